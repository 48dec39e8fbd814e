//! The greedy choice: the index of a row's largest value.
//!
//! One workgroup per row.

use shared::kernels::rows::{NOT_FINITE, argmax};

use crate::arch::{
    WAVE, ballot, lane, thread_id, wave_id, workgroup_barrier, workgroup_id_x, workgroup_memory,
};
use crate::choice::Choice;

const _: argmax::Signature = argmax;
const THREADS: u32 = argmax::threads(crate::tile::FAMILY);

/// The best so far, and whether everything so far is finite.
#[derive(Clone, Copy)]
pub struct Best {
    /// The largest value, and its index, the lowest among equals.
    pub choice: Choice,
    /// Whether no value is NaN or infinite.
    pub finite: bool,
}

impl Best {
    const NONE: Self = Self { choice: Choice::NONE, finite: true };

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Self { choice: self.choice.better(other.choice), finite: self.finite & other.finite }
    }

    /// The best of the wave, in every lane. Collective.
    #[inline(always)]
    fn of_wave(self) -> Self {
        Self { choice: self.choice.best_of_wave(), finite: ballot(!self.finite) == 0 }
    }

    /// The best of `x[..n]`, in every thread of a workgroup of `THREADS`. Collective over the
    /// workgroup; ends with a barrier, so that `scratch` can be used again at once.
    ///
    /// # Safety
    ///
    /// `x` has `n` elements, and `scratch` three words of workgroup memory for each wave, which
    /// nobody else touches.
    #[inline(always)]
    pub unsafe fn of_row<const THREADS: u32>(x: *const f32, n: u32, scratch: *mut u32) -> Self {
        let mut best = Self::NONE;
        for index in (thread_id()..n).step_by(THREADS as usize) {
            // SAFETY: index < n.
            let value = unsafe { *x.add(index as usize) };
            let finite = value.to_bits() & 0x7f80_0000 != 0x7f80_0000;
            best = best.and(Self { choice: Choice { value, index }, finite });
        }
        let best = best.of_wave();
        // SAFETY: three words per wave; the barriers part writing from reading.
        unsafe {
            if lane() == 0 {
                let mine = scratch.add(3 * wave_id() as usize);
                *mine = best.choice.value.to_bits();
                *mine.add(1) = best.choice.index;
                *mine.add(2) = best.finite.into();
            }
            workgroup_barrier();
            let mut best = Self::NONE;
            for wave in 0..(THREADS / WAVE) as usize {
                let one = scratch.add(3 * wave);
                let choice = Choice { value: f32::from_bits(*one), index: *one.add(1) };
                best = best.and(Self { choice, finite: *one.add(2) != 0 });
            }
            workgroup_barrier();
            best
        }
    }
}

/// The kernel; shapes are in the table.
///
/// # Safety
///
/// The launch contract of the table; `n >= 1`.
#[unsafe(no_mangle)]
pub unsafe extern "gpu-kernel" fn argmax(x: *const f32, ids: *mut u32, n: u32) {
    crate::arch::wait_for_earlier();
    let row = workgroup_id_x() as usize;
    // SAFETY: the grid has one workgroup per row of n elements, and the launch passes three words
    // of workgroup memory per wave.
    let best = unsafe { Best::of_row::<THREADS>(x.add(row * n as usize), n, workgroup_memory()) };
    if thread_id() == 0 {
        // SAFETY: one element per row.
        unsafe { *ids.add(row) = if best.finite { best.choice.index } else { NOT_FINITE } };
    }
}
