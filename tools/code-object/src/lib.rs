//! Reader of AMDGPU code objects: ELF, kernel descriptors and the metadata note.
