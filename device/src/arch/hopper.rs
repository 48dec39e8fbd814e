//! Hopper's copy engine: bulk copies to workgroup memory, and the barriers they report to.

use core::arch::asm;

use super::{CFrag, chip::global_address, workgroup_address};

/// Waits for every lane of the wave, and orders their accesses to workgroup memory.
#[inline(always)]
pub fn wave_barrier() {
    // SAFETY: only waits.
    unsafe { asm!("bar.warp.sync 0xffffffff;", options(nostack)) };
}

/// Shows the copy engine the barriers that this thread has made.
#[inline(always)]
pub fn barriers_made() {
    // SAFETY: only orders memory accesses.
    unsafe {
        asm!(
            "fence.mbarrier_init.release.cluster;",
            "fence.proxy.async.shared::cta;",
            options(nostack)
        );
    }
}

/// Orders this thread's accesses to workgroup memory, and those it has waited for, before the copies
/// it asks for.
#[inline(always)]
pub fn fence_async() {
    // SAFETY: only orders memory accesses.
    unsafe { asm!("fence.proxy.async.shared::cta;", options(nostack)) };
}

/// A barrier (`mbarrier`) in workgroup memory. Its phases count from 0; a phase is complete when
/// all arrivals and all bytes it expects are there.
#[derive(Clone, Copy)]
pub struct Barrier(u32);

impl Barrier {
    /// The barrier at `at`.
    ///
    /// # Safety
    ///
    /// Eight bytes of workgroup memory, set aside for it.
    #[inline(always)]
    pub unsafe fn at(at: *mut u8) -> Self {
        Self(workgroup_address(at))
    }

    /// The barrier `index` places further: they are eight bytes apart.
    #[inline(always)]
    pub fn nth(self, index: u32) -> Self {
        Self(self.0 + 8 * index)
    }

    /// Makes a barrier whose phases take `arrivals`. It exists for the copy engine after a
    /// [`barriers_made`], for the others of the workgroup after a [`super::workgroup_barrier`] then.
    #[inline(always)]
    pub fn init(self, arrivals: u32) {
        // SAFETY: the barrier's own memory.
        unsafe {
            asm!("mbarrier.init.shared.b64 [{}], {};", in(reg32) self.0, in(reg32) arrivals,
                options(nostack));
        }
    }

    /// Arrives.
    #[inline(always)]
    pub fn arrive(self) {
        // SAFETY: an initialised barrier.
        unsafe {
            asm!("mbarrier.arrive.shared.b64 _, [{}];", in(reg32) self.0, options(nostack));
        }
    }

    /// Arrives, and has the phase expect `bytes` more.
    #[inline(always)]
    pub fn expect(self, bytes: u32) {
        // SAFETY: an initialised barrier.
        unsafe {
            asm!("mbarrier.arrive.expect_tx.shared.b64 _, [{}], {};", in(reg32) self.0,
                in(reg32) bytes, options(nostack));
        }
    }

    /// Waits until phase `phase`, this one or the one before, is complete.
    #[inline(always)]
    pub fn wait(self, phase: u32) {
        loop {
            let done: u32;
            // SAFETY: an initialised barrier.
            unsafe {
                asm!("{{ .reg .pred p;", "mbarrier.try_wait.parity.shared.b64 p, [{1}], {2};",
                    "selp.u32 {0}, 1, 0, p; }}", out(reg32) done, in(reg32) self.0,
                    in(reg32) phase % 2, options(nostack));
            }
            if done != 0 {
                return;
            }
        }
    }

    /// Has the copy engine move `bytes` from global to workgroup memory and report to the barrier.
    ///
    /// # Safety
    ///
    /// All three are multiples of 16, both sides are valid, and nobody uses the destination before
    /// the barrier's phase completes.
    #[inline(always)]
    pub unsafe fn copy(self, to: *mut u8, from: *const u8, bytes: u32) {
        // SAFETY: the caller's promise.
        unsafe { self.copy_to(workgroup_address(to), from, bytes) };
    }

    /// [`Self::copy`] to a workgroup address.
    ///
    /// # Safety
    ///
    /// As [`Self::copy`].
    #[inline(always)]
    pub unsafe fn copy_to(self, to: u32, from: *const u8, bytes: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            asm!("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes",
                "[{}], [{}], {}, [{}];", in(reg32) to,
                in(reg64) global_address(from), in(reg32) bytes, in(reg32) self.0,
                options(nostack));
        }
    }
}

/// Waits for all `wgmma` products under way, of which these are the results.
#[inline(always)]
pub fn wait_products<const N: usize>(results: &mut [CFrag; N]) {
    // SAFETY: only waits.
    unsafe { asm!("wgmma.wait_group.sync.aligned 0;", options(nostack)) };
    for c in results {
        // SAFETY: does nothing, but after the wait: the compiler sees the results change here.
        unsafe {
            asm!("// {0} {1} {2} {3} {4} {5} {6} {7}", inout(reg32) c[0], inout(reg32) c[1],
                inout(reg32) c[2], inout(reg32) c[3], inout(reg32) c[4], inout(reg32) c[5],
                inout(reg32) c[6], inout(reg32) c[7], options(nostack));
        }
    }
}
