//! The two ways to sum tile products over k, used by every GEMM-like kernel.
//!
//! The skinny ones are for few tokens, and limited by the stream of W: [`skinny`] for up to 16,
//! [`skinny64`] for up to 64. On AMD each wave loads its own rows of W several steps ahead into
//! registers; on Hopper the copy engine fills workgroup memory, which keeps more bytes on their way.
//! [`tile_product`] is for many tokens: a workgroup copies blocks of W and X to workgroup memory
//! and shares them. All add the same products in the same order, so their results are equal bit
//! for bit.

#[cfg_attr(family = "nvptx", path = "product/ring.rs")]
#[cfg_attr(not(family = "nvptx"), path = "product/ahead.rs")]
mod few;
#[cfg_attr(family = "nvptx", path = "product/hopper.rs")]
#[cfg_attr(not(family = "nvptx"), path = "product/staged.rs")]
mod tiled;

pub use few::{skinny, skinny64};
use shared::block::ROWS;
use shared::kernels::linear::skinny64_tiles;
pub use tiled::tile_product;

use crate::tile::{Acc, FAMILY, LANE_ROWS, Operand, lane_row, mma_half};
use crate::weights::Format;

/// Row tiles of W of a workgroup of [`skinny64`].
const SKINNY64_TILES: usize = skinny64_tiles(FAMILY) as usize;

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

/// One step of the products of a tile of W with `XT` of X.
#[inline(always)]
fn multiply<F: Format, const XT: usize>(w: &F::Raw, x: &[Operand; XT], acc: &mut [Acc; XT]) {
    let w = F::operand(w);
    for j in 0..XT {
        mma_half::<0>(&w, &x[j], &mut acc[j]);
    }
    for j in 0..XT {
        mma_half::<1>(&w, &x[j], &mut acc[j]);
    }
}
