//! Facts both sides of a kernel launch agree on.
//!
//! No allocation, no files, no GPU: the host, the kernels and the tools all compile this crate.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(any(target_arch = "amdgpu", target_arch = "nvptx64"), feature(abi_gpu_kernel))]

pub mod bf16;
pub mod block;
pub mod chips;
pub mod exp;
pub mod frag;
pub mod hash;
pub mod kernels;
pub mod kv;
pub mod launch;
pub mod model;
pub mod mxfp4;
pub mod pack;
pub mod philox;
pub mod rope;
pub mod sampling;
