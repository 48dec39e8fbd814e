//! GPU kernels of gpt-oss.
//!
//! Empty unless compiled for a GPU: `tools/device-build` compiles it once per chip.
#![cfg(any(target_arch = "amdgpu", target_arch = "nvptx64"))]
#![no_std]

/// Unreachable: panics are compiled to traps.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
