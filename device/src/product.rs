//! The two ways to sum tile products over k, used by every GEMM-like kernel.
//!
//! [`skinny`] is for few tokens: each wave streams its own rows of W from global memory straight
//! into registers, several steps ahead, and nothing is shared. [`tile_product`] is for many: a
//! workgroup copies blocks of W and X to workgroup memory and shares them. Both add the same
//! products in the same order, so their results are equal bit for bit.

#[cfg_attr(family = "nvptx", path = "product/hopper.rs")]
#[cfg_attr(not(family = "nvptx"), path = "product/staged.rs")]
mod tiled;

use shared::block::{BLOCK_BYTES, ROWS};
pub use tiled::tile_product;

use crate::arch;
use crate::tile::{Acc, LANE_ROWS, Operand, lane_row, mma_half};
use crate::weights::Format;

/// Where the rows of X that a lane reads begin: their first chunk in the block of step 0.
pub type Rows = [*const u8; LANE_ROWS];

/// The rows of X of one 16-token tile, for this lane, where `row(x)` is the first chunk of tile
/// row `x`.
#[inline(always)]
pub fn lane_rows(lane: u32, row: impl Fn(u32) -> *const u8) -> Rows {
    let mut rows = [core::ptr::null(); LANE_ROWS];
    for (i, slot) in rows.iter_mut().enumerate() {
        *slot = row(lane_row(lane, i));
    }
    rows
}

/// The first chunk of row `row` of a tiled bf16 matrix of `steps` steps.
///
/// # Safety
///
/// The matrix has that row.
#[inline(always)]
pub unsafe fn tiled_row(x: *const u8, row: u32, steps: u32) -> *const u8 {
    let tile = row as usize / ROWS * crate::tile::row_tile_bytes(steps);
    // SAFETY: the caller's promise.
    unsafe { x.add(tile + row as usize % ROWS * 16) }
}

/// Products of `WT` row tiles of W with `XT` tiles of X over all `steps`: `[w tile][x tile]`.
/// Loads run `DEPTH` steps ahead of their use. Collective over the wave.
///
/// # Safety
///
/// `w[i]` is the first block of a row tile in format `F`, `x[i]` the lane's rows of a tile; both
/// have `steps >= 1` steps and are not written during the launch.
#[inline(always)]
pub unsafe fn skinny<F: Format, const WT: usize, const XT: usize, const DEPTH: usize>(
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

/// One step of `WT` by `XT` tile products.
#[inline(always)]
fn multiply<F: Format, const WT: usize, const XT: usize>(
    w: &[F::Raw; WT],
    x: &[Operand; XT],
    acc: &mut [[Acc; XT]; WT],
) {
    for i in 0..WT {
        let w = F::operand(&w[i]);
        for j in 0..XT {
            mma_half::<0>(&w, &x[j], &mut acc[i][j]);
        }
        for j in 0..XT {
            mma_half::<1>(&w, &x[j], &mut acc[i][j]);
        }
    }
}
