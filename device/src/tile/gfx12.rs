//! RDNA4: two WMMA of 16 k. A half-wave holds every other chunk.

use core::mem::transmute;

use shared::block::Family;
use shared::frag::Frag as _;

use super::{Acc, truncate_chunk};
use crate::arch::{self, Mma, Vec16, load_16, pack_bf16, shuffle_xor_f32};

/// The family, as the host knows it.
pub const FAMILY: Family = Family::Gfx12;
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

/// Eight k of one row for each half of the 32.
#[derive(Clone, Copy)]
pub struct Operand([Vec16; 2]);

impl Operand {
    /// All zeros.
    pub const ZERO: Self = Self([Vec16::ZERO; 2]);

    /// From chunks `lane / 16` and `2 + lane / 16` of the row.
    #[inline(always)]
    pub fn from_chunks(chunks: [Vec16; 2]) -> Self {
        Self(chunks)
    }

    /// From a row whose chunks lie `stride` bytes apart.
    ///
    /// # Safety
    ///
    /// The row's chunks, `stride` bytes apart, are readable and 16-byte aligned.
    #[inline(always)]
    pub unsafe fn strided(row: *const u8, stride: usize, lane: u32) -> Self {
        let first = (lane / 16) as usize;
        // SAFETY: a row's four chunks lie at `stride`.
        let chunk = |c: usize| unsafe { load_16(row.add(c * stride)) };
        Self([chunk(first), chunk(first + 2)])
    }

    /// Replaces the elements from k = `count` on by zeros, whatever they are.
    #[inline(always)]
    pub fn truncate(&mut self, count: u32, lane: u32) {
        for half in 0..2 {
            let k = half as u32 * 16 + lane / 16 * 8;
            self.0[half] = truncate_chunk(self.0[half], k, count);
        }
    }
}

/// The first or second 16 k of a tile product. Callers with several accumulators interleave the
/// halves, because the second waits for the first. Collective.
#[inline(always)]
pub fn mma_half<const HALF: usize>(w: &Operand, x: &Operand, acc: &mut Acc) {
    // SAFETY: a chunk is the eight bf16 of an instruction operand.
    let [w, x] = [w, x].map(|o| unsafe { transmute::<Vec16, arch::AbFrag>(o.0[HALF]) });
    *acc = arch::mma(w, x, *acc);
}

/// Whether elements `2 i` and `2 i + 1` of a lane's part of a result are neighbours in w.
pub const PAIRED: bool = true;

/// Results of different x one lane holds.
pub const X_SLOTS: usize = 1;

/// Which of the lane's x element `i` of a result belongs to.
#[inline(always)]
pub fn x_slot(_i: usize) -> usize {
    0
}

/// Combines values over the lanes that hold the same x. The order is fixed. Collective.
#[inline(always)]
pub fn over_w(x: f32, op: impl Fn(f32, f32) -> f32) -> f32 {
    op(x, shuffle_xor_f32::<16>(x))
}

/// The key, of 32, whose scores are row `row` of score tile `tile`: chosen so that
/// [`probabilities`] finds a lane's keys where the operand wants them.
#[inline(always)]
pub fn score_key(tile: u32, row: u32) -> u32 {
    tile * 16 + row
}

/// The X operand whose k are 32 keys, from the two tiles of their probabilities. Collective.
#[inline(always)]
pub fn probabilities(tiles: [Acc; 2]) -> Operand {
    Operand(tiles.map(|p| Vec16([0, 2, 4, 6].map(|i| pack_bf16(p[i], p[i + 1])))))
}
