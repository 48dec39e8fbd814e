//! The greedy choice: the index of a row's largest value.
//!
//! One workgroup per row. The result does not depend on the order of comparisons: of equal values
//! the lower index is better.

use shared::kernels::rows::{NOT_FINITE, argmax};

use crate::arch::{
    WAVE, lane, shuffle_xor, thread_id, wave_id, workgroup_barrier, workgroup_id_x,
    workgroup_memory,
};

const _: argmax::Signature = argmax;
const THREADS: u32 = argmax::threads(WAVE);
const WAVES: usize = (THREADS / WAVE) as usize;

/// The best so far, and whether everything so far is finite.
#[derive(Clone, Copy)]
struct Best {
    value: f32,
    index: u32,
    finite: bool,
}

impl Best {
    const NONE: Self = Self { value: f32::NEG_INFINITY, index: u32::MAX, finite: true };

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        // Without short circuits: no lane branches.
        let better =
            (other.value > self.value) | ((other.value == self.value) & (other.index < self.index));
        let Self { value, index, .. } = if better { other } else { self };
        Self { value, index, finite: self.finite & other.finite }
    }

    /// The best of the wave, in every lane. Collective.
    #[inline(always)]
    fn of_wave(mut self) -> Self {
        macro_rules! step {
            ($($mask:literal)*) => {$(
                if $mask < WAVE {
                    const MASK: u32 = $mask % WAVE;
                    self = self.and(Self {
                        value: f32::from_bits(shuffle_xor::<MASK>(self.value.to_bits())),
                        index: shuffle_xor::<MASK>(self.index),
                        finite: shuffle_xor::<MASK>(u32::from(self.finite)) != 0,
                    });
                }
            )*};
        }
        step!(1 2 4 8 16 32);
        self
    }
}

/// The kernel; shapes are in the table.
///
/// # Safety
///
/// The launch contract of the table; `n >= 1`.
#[unsafe(no_mangle)]
pub unsafe extern "gpu-kernel" fn argmax(x: *const f32, ids: *mut u32, n: u32) {
    let row = workgroup_id_x() as usize;
    // SAFETY: the grid has one workgroup per row.
    let x = unsafe { x.add(row * n as usize) };
    let mut best = Best::NONE;
    for index in (thread_id()..n).step_by(THREADS as usize) {
        // SAFETY: index < n.
        let value = unsafe { *x.add(index as usize) };
        let finite = value.to_bits() & 0x7f80_0000 != 0x7f80_0000;
        best = best.and(Best { value, index, finite });
    }
    let best = best.of_wave();
    let memory: *mut u32 = workgroup_memory();
    // SAFETY: the launch passes three words per wave.
    unsafe {
        if lane() == 0 {
            let mine = memory.add(3 * wave_id() as usize);
            *mine = best.value.to_bits();
            *mine.add(1) = best.index;
            *mine.add(2) = best.finite.into();
        }
        workgroup_barrier();
        if thread_id() == 0 {
            let mut best = Best::NONE;
            for wave in 0..WAVES {
                let one = memory.add(3 * wave);
                best = best.and(Best {
                    value: f32::from_bits(*one),
                    index: *one.add(1),
                    finite: *one.add(2) != 0,
                });
            }
            *ids.add(row) = if best.finite { best.index } else { NOT_FINITE };
        }
    }
}
