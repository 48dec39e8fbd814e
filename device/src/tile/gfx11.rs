//! RDNA3: two WMMA of 16 k. Both half-waves hold the same rows.

use core::mem::transmute;

use shared::block::{CHUNK_STRIDE_BYTES, Family};
use shared::frag::Frag as _;

use super::Acc;
use crate::arch::{self, Mma, Vec16, load_16};

/// The family, as the host knows it.
pub const FAMILY: Family = Family::Gfx11;
/// Rows of a block a lane reads from.
pub const LANE_ROWS: usize = 1;

/// The row lane `lane` reads.
#[inline(always)]
pub fn lane_row(lane: u32, _i: usize) -> u32 {
    lane % 16
}

/// `(w, x)` of element `i` of this lane's part of a result.
#[inline(always)]
pub fn acc_index(lane: u32, i: usize) -> (u32, u32) {
    Mma::c_index(lane, i as u32)
}

/// All 32 k of one row.
#[derive(Clone, Copy)]
pub struct Operand([[Vec16; 2]; 2]);

impl Operand {
    /// All zeros.
    pub const ZERO: Self = Self([[Vec16::ZERO; 2]; 2]);

    /// From the row's four chunks.
    #[inline(always)]
    pub fn from_chunks([a, b, c, d]: [Vec16; 4]) -> Self {
        Self([[a, b], [c, d]])
    }

    /// From the first chunk of the row the lane reads.
    ///
    /// # Safety
    ///
    /// The pointer is the 16-byte aligned first chunk of row [`lane_row`] of a readable block.
    #[inline(always)]
    pub unsafe fn gather([row]: [*const u8; LANE_ROWS], _lane: u32) -> Self {
        // SAFETY: a row's four chunks lie at the chunk stride.
        let chunk = |c: usize| unsafe { load_16(row.add(c * CHUNK_STRIDE_BYTES)) };
        Self([[chunk(0), chunk(1)], [chunk(2), chunk(3)]])
    }
}

/// The first or second 16 k of a tile product. Callers with several accumulators interleave the
/// halves, because the second waits for the first. Collective.
#[inline(always)]
pub fn mma_half<const HALF: usize>(w: &Operand, x: &Operand, acc: &mut Acc) {
    // SAFETY: two chunks are the 16 bf16 of an instruction operand.
    let [w, x] = [w, x].map(|o| unsafe { transmute::<[Vec16; 2], arch::AbFrag>(o.0[HALF]) });
    *acc = arch::mma(w, x, *acc);
}
