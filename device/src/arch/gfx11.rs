//! RDNA3 and RDNA3.5 (RX 7000, Strix Halo): wave32.

use core::arch::amdgpu;
use core::sync::atomic::{Ordering, compiler_fence};

pub use super::amd::*;
pub use super::wave32::{WAVE, ballot, shuffle_xor};

unsafe extern "unadjusted" {
    #[link_name = "llvm.amdgcn.s.waitcnt"]
    fn llvm_s_waitcnt(counters: i32);
}

/// Waits until every wave of the workgroup is here and its accesses to workgroup memory are
/// done. Orders workgroup memory only: global stores may still be under way. Collective over
/// the workgroup.
///
/// The bare `s_barrier` waits for no memory, and Rust's fences are system-wide: they would flush
/// caches. `s_waitcnt lgkmcnt(0)` is all that LDS needs; the compiler fences keep LLVM from
/// moving accesses across.
#[inline(always)]
pub fn workgroup_barrier() {
    compiler_fence(Ordering::SeqCst);
    // SAFETY: only waits. lgkmcnt is bits 4 to 9 on gfx11; ones in the others mean no wait.
    unsafe { llvm_s_waitcnt(0xfc07) };
    amdgpu::s_barrier();
    compiler_fence(Ordering::SeqCst);
}
