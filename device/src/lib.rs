//! GPU kernels of gpt-oss.
//!
//! Empty unless compiled for a GPU: `tools/device-build` compiles it once per chip.
#![cfg(any(target_arch = "amdgpu", target_arch = "nvptx64"))]
#![no_std]
#![allow(internal_features)]
// Register arrays must be indexed by constants after unrolling: an iterator over one leaves it in
// memory, because it is unrolled only after the array was given up on.
#![allow(clippy::needless_range_loop)]
// A kernel's arguments are scalars and pointers: see `shared::launch`.
#![allow(clippy::too_many_arguments)]
// The kernel calling convention.
#![feature(abi_gpu_kernel)]
// Workgroup memory sized by the launch; a GPU target has no static kind.
#![feature(core_intrinsics, gpu_intrinsics, gpu_launch_sized_workgroup_mem)]
// Vectors as LLVM has them.
#![feature(repr_simd)]
// `mul_add` without std.
#![feature(core_float_math)]
// Intrinsics that core wraps, and those it does not.
#![cfg_attr(target_arch = "amdgpu", feature(stdarch_amdgpu, link_llvm_intrinsics))]
#![cfg_attr(target_arch = "amdgpu", feature(abi_unadjusted, simd_ffi))]
#![cfg_attr(target_arch = "nvptx64", feature(stdarch_nvptx, asm_experimental_arch))]

pub mod arch;
pub mod argmax;
pub mod attention;
pub mod axpy;
pub mod choice;
pub mod embed;
pub mod histogram;
pub mod linear;
pub mod mma_probe;
pub mod moe;
pub mod moe_product;
pub mod product;
pub mod rmsnorm;
pub mod rope_kv;
pub mod sample;
pub mod scan;
pub mod softmax;
pub mod tile;
pub mod transpose;
pub mod weights;

/// Hash of the sources of `shared/` this was compiled with; the host compares it with its own.
#[unsafe(no_mangle)]
pub static KERNEL_TABLE: u64 = shared::kernels::FINGERPRINT;

/// Hash of the sources of this crate, which `tools/device-build` passes and checks.
#[unsafe(no_mangle)]
pub static KERNEL_SOURCES: u64 = match option_env!("GPTOSS_KERNEL_SOURCES") {
    Some(hash) => match u64::from_str_radix(hash, 16) {
        Ok(hash) => hash,
        Err(_) => panic!("GPTOSS_KERNEL_SOURCES is no hexadecimal number"),
    },
    None => 0,
};

/// Never runs: panics are compiled to traps.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
