//! A functional AMDGPU emulator behind the HIP runtime API.
