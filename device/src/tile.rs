//! The matrix tile product every GEMM-like kernel is made of:
//! `D[16 w, 16 x] += W[16 w, 32 k] · X[16 x, 32 k]ᵀ` on operands in blocks ([`shared::block`]).
//!
//! Each family supplies the same names. Which side is the instruction's A operand is the family's
//! business: AMD takes W, NVIDIA takes X, so that a tile of attention scores can be fed back as an
//! operand without a transpose.

#[cfg_attr(family = "gfx9", path = "tile/gfx9.rs")]
#[cfg_attr(family = "gfx11", path = "tile/gfx11.rs")]
#[cfg_attr(family = "gfx12", path = "tile/gfx12.rs")]
#[cfg_attr(family = "nvptx", path = "tile/nvptx.rs")]
mod chip;

pub use chip::{
    FAMILY, LANE_ROWS, Operand, PAIRED, X_SLOTS, acc_index, lane_row, mma_half, over_w,
    probabilities, score_key, x_slot,
};
use shared::block::BLOCK_BYTES;
#[cfg(not(family = "nvptx"))]
use shared::block::CHUNK_STRIDE_BYTES;
use shared::frag::Frag as _;

use crate::arch::{self, Mma};

/// Elements of a result one lane holds.
pub const ACC: usize = Mma::C_PER_LANE as usize;
/// This lane's part of a result, in the order of [`acc_index`].
pub type Acc = arch::CFrag;

/// What the families of AMD share: a lane reads one row.
#[cfg(not(family = "nvptx"))]
impl Operand {
    /// From the first chunk of the row the lane reads.
    ///
    /// # Safety
    ///
    /// The pointer is the 16-byte aligned first chunk of row [`lane_row`] of a readable block.
    #[inline(always)]
    pub unsafe fn gather([row]: [*const u8; LANE_ROWS], lane: u32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::strided(row, CHUNK_STRIDE_BYTES, lane) }
    }

    /// Operand whose row `r` is row `row(r)` of four columns of chunks at `columns`, `stride` bytes
    /// apart. Collective.
    ///
    /// # Safety
    ///
    /// `columns` is 16-byte aligned; the rows are readable.
    #[inline(always)]
    pub unsafe fn columns(
        columns: *const u8,
        stride: usize,
        row: impl Fn(u32) -> u32,
        lane: u32,
    ) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::strided(columns.add(row(lane_row(lane, 0)) as usize * 16), stride, lane) }
    }

    /// This lane's part of the block at `block`.
    ///
    /// # Safety
    ///
    /// `block` is a 16-byte aligned block of 1024 readable bytes.
    #[inline(always)]
    pub unsafe fn load(block: *const u8, lane: u32) -> Self {
        // SAFETY: the first column has one chunk per row, 16 bytes each.
        unsafe { Self::gather([block.add(lane_row(lane, 0) as usize * 16)], lane) }
    }
}

/// `acc += W · Xᵀ` over all 32 k. Collective.
#[inline(always)]
pub fn mma(w: &Operand, x: &Operand, acc: &mut Acc) {
    mma_half::<0>(w, x, acc);
    mma_half::<1>(w, x, acc);
}

/// Bytes of one row tile of a tiled bf16 matrix of `steps` k steps.
#[inline(always)]
pub fn row_tile_bytes(steps: u32) -> usize {
    steps as usize * BLOCK_BYTES
}

/// A word of elements `k` and `k + 1`, with zeros for those from `count` on.
#[inline(always)]
fn truncate_pair(word: u32, k: u32, count: u32) -> u32 {
    if k + 1 < count {
        word
    } else if k < count {
        word & 0xffff
    } else {
        0
    }
}

/// Eight consecutive elements from `k` on, with zeros for those from `count` on.
#[inline(always)]
pub fn truncate_chunk(chunk: arch::Vec16, k: u32, count: u32) -> arch::Vec16 {
    let mut words = chunk.0;
    for i in 0..4 {
        words[i] = truncate_pair(words[i], k + 2 * i as u32, count);
    }
    arch::Vec16(words)
}
