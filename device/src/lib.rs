//! GPU kernels of gpt-oss.
//!
//! Empty unless compiled for a GPU: `tools/device-build` compiles it once per chip.
#![cfg(any(target_arch = "amdgpu", target_arch = "nvptx64"))]
#![no_std]
