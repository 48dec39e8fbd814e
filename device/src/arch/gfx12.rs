//! RDNA4 (RX 9000, R9700): wave32.

use core::arch::amdgpu;
use core::sync::atomic::{Ordering, compiler_fence};

pub use super::amd::*;
pub use super::wave32::{WAVE, ballot, shuffle_xor};

unsafe extern "unadjusted" {
    #[link_name = "llvm.amdgcn.s.wait.dscnt"]
    fn llvm_s_wait_dscnt(count: i16);
}

/// Waits until every wave of the workgroup is here and its accesses to workgroup memory are
/// done. Orders workgroup memory only: global stores may still be under way. Collective over
/// the workgroup.
///
/// The bare barrier (a signal and a wait here) waits for no memory, and Rust's fences are system-wide: they would flush
/// caches. `s_wait_dscnt 0` is all that LDS needs; the compiler fences keep LLVM from
/// moving accesses across.
#[inline(always)]
pub fn workgroup_barrier() {
    compiler_fence(Ordering::SeqCst);
    // SAFETY: only waits.
    unsafe { llvm_s_wait_dscnt(0) };
    amdgpu::s_barrier();
    compiler_fence(Ordering::SeqCst);
}
