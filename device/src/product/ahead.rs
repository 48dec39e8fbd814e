//! Few tokens on AMD: every wave for itself, loads running ahead in registers.

use shared::block::{BLOCK_BYTES, ROWS};
use shared::kernels::linear::SKINNY64_WAVES;

use super::{Rows, lane_rows, multiply, tiled_row};
use crate::arch;
use crate::tile::{Acc, Operand};
use crate::weights::Format;

/// The product of each wave's row tile of W, of which the workgroup has one per wave, `W` of them,
/// with up to 16 rows of X. Loads run `DEPTH` steps ahead of their use. Every wave has a result.
/// Collective over the workgroup.
///
/// # Safety
///
/// `w(i)` is the first block of the workgroup's row tile `i` in format `F`, `x` that of a row tile
/// of X of which `x_rows >= 1` rows are looked at; all have `steps >= 1` steps and are not written
/// during the launch.
#[inline(always)]
pub unsafe fn skinny<F: Format, const W: usize, const DEPTH: usize>(
    w: impl Fn(u32) -> *const u8,
    x: *const u8,
    x_rows: u32,
    steps: u32,
) -> Option<Acc> {
    let lane = arch::lane();
    // SAFETY: the caller's promise; rows past the last repeat it.
    unsafe {
        let x = lane_rows(lane, |row| tiled_row(x, row.min(x_rows - 1), steps));
        let [acc] = ahead::<F, 1, DEPTH>(w(arch::wave_id()), [x], steps, lane);
        Some(acc)
    }
}

/// The products of the workgroup's row tiles of W with up to 64 rows of X. `each` gets the wave's
/// results: the numbers of the tiles of W and X, and the result. Collective over the workgroup.
///
/// # Safety
///
/// As [`skinny`], with as many tiles of X as `x_rows` need.
#[inline(always)]
pub unsafe fn skinny64<F: Format, const DEPTH: usize>(
    w: impl Fn(u32) -> *const u8,
    x: *const u8,
    x_rows: u32,
    steps: u32,
    mut each: impl FnMut(u32, u32, Acc),
) {
    const { assert!(SKINNY64_WAVES as usize == super::SKINNY64_TILES) };
    let (lane, wave) = (arch::lane(), arch::wave_id());
    // SAFETY: the caller's promise; rows past the last repeat it.
    let acc = unsafe {
        let x: [Rows; 4] = core::array::from_fn(|tile| {
            let first = (tile * ROWS) as u32;
            lane_rows(lane, |row| tiled_row(x, (first + row).min(x_rows - 1), steps))
        });
        ahead::<F, 4, DEPTH>(w(wave), x, steps, lane)
    };
    for tile in 0..4 {
        each(wave, tile as u32, acc[tile]);
    }
}

/// Products of a row tile of W with `XT` tiles of X over all `steps`. Loads run `DEPTH` steps ahead
/// of their use. Collective over the wave.
///
/// # Safety
///
/// `w` is the first block of a row tile in format `F`, `x[i]` the lane's rows of a tile; both have `steps >= 1` steps and are not written during the launch.
#[inline(always)]
unsafe fn ahead<F: Format, const XT: usize, const DEPTH: usize>(
    w: *const u8,
    x: [Rows; XT],
    steps: u32,
    lane: u32,
) -> [Acc; XT] {
    // Past the end the last step is loaded again: cheaper than a branch, and in cache.
    let load = |step: u32| {
        let step = step.min(steps - 1) as usize;
        // SAFETY: step < steps.
        let w = unsafe { F::load(w.add(step * F::STEP_BYTES), lane) };
        let load_x = |i: usize| {
            let mut rows = x[i];
            for row in &mut rows {
                // SAFETY: step < steps.
                *row = unsafe { row.add(step * BLOCK_BYTES) };
            }
            // SAFETY: the rows of the block of this step.
            unsafe { Operand::gather(rows, lane) }
        };
        (w, core::array::from_fn(load_x))
    };
    let mut acc = [arch::ZERO; XT];
    let mut ahead: [(F::Raw, [Operand; XT]); DEPTH] = core::array::from_fn(|i| load(i as u32));
    let mut step = 0;
    while step + DEPTH as u32 <= steps {
        for i in 0..DEPTH {
            let (w, x) = ahead[i];
            ahead[i] = load(step + (i + DEPTH) as u32);
            multiply::<F, XT>(&w, &x, &mut acc);
        }
        step += DEPTH as u32;
    }
    for i in 0..DEPTH {
        if step + (i as u32) < steps {
            multiply::<F, XT>(&ahead[i].0, &ahead[i].1, &mut acc);
        }
    }
    acc
}
