//! Few tokens, loads running ahead in registers.

use shared::block::BLOCK_BYTES;

use super::{Rows, multiply};
use crate::arch;
use crate::tile::{Acc, Operand};
use crate::weights::Format;

/// Products of `WT` row tiles of W with `XT` tiles of X over all `steps`: `[w tile][x tile]`.
/// Loads run `DEPTH` steps ahead of their use. Collective over the wave.
///
/// # Safety
///
/// `w[i]` is the first block of a row tile in format `F`, `x[i]` the lane's rows of a tile; both
/// have `steps >= 1` steps and are not written during the launch.
#[inline(always)]
pub unsafe fn skinny_ahead<F: Format, const WT: usize, const XT: usize, const DEPTH: usize>(
    w: [*const u8; WT],
    x: [Rows; XT],
    steps: u32,
    lane: u32,
) -> [[Acc; XT]; WT] {
    // Past the end the last step is loaded again: cheaper than a branch, and in cache.
    let load = |step: u32| {
        let step = step.min(steps - 1) as usize;
        // SAFETY: step < steps.
        let load_w = |i: usize| unsafe { F::load(w[i].add(step * F::STEP_BYTES), lane) };
        let load_x = |i: usize| {
            let mut rows = x[i];
            for row in &mut rows {
                // SAFETY: step < steps.
                *row = unsafe { row.add(step * BLOCK_BYTES) };
            }
            // SAFETY: the rows of the block of this step.
            unsafe { Operand::gather(rows, lane) }
        };
        (core::array::from_fn(load_w), core::array::from_fn(load_x))
    };
    let mut acc = [[arch::ZERO; XT]; WT];
    let mut ahead: [([F::Raw; WT], [Operand; XT]); DEPTH] =
        core::array::from_fn(|i| load(i as u32));
    let mut step = 0;
    while step + DEPTH as u32 <= steps {
        for i in 0..DEPTH {
            let (w, x) = ahead[i];
            ahead[i] = load(step + (i + DEPTH) as u32);
            multiply::<F, WT, XT>(&w, &x, &mut acc);
        }
        step += DEPTH as u32;
    }
    for i in 0..DEPTH {
        if step + (i as u32) < steps {
            multiply::<F, WT, XT>(&ahead[i].0, &ahead[i].1, &mut acc);
        }
    }
    acc
}
