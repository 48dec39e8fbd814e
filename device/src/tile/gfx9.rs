//! CDNA: two MFMA of 16 k, four from each chunk. A quarter of the wave holds one chunk column.
//!
//! gfx950 has an instruction for all 32 k at once. It is not used: see device/README.md.

use shared::block::Family;
use shared::frag::Frag as _;

use super::{Acc, truncate_chunk};
use crate::arch::{self, Mma, Vec16, load_16, pack_bf16, shuffle_xor_f32};

/// The family, as the host knows it.
pub const FAMILY: Family = Family::Gfx9;
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

/// Eight k of one row.
#[derive(Clone, Copy)]
pub struct Operand(Vec16);

impl Operand {
    /// All zeros.
    pub const ZERO: Self = Self(Vec16::ZERO);

    /// From chunk `lane / 16` of the row.
    #[inline(always)]
    pub fn from_chunks([chunk]: [Vec16; 1]) -> Self {
        Self(chunk)
    }

    /// From a row whose chunks lie `stride` bytes apart.
    ///
    /// # Safety
    ///
    /// The row's chunks, `stride` bytes apart, are readable and 16-byte aligned.
    #[inline(always)]
    pub unsafe fn strided(row: *const u8, stride: usize, lane: u32) -> Self {
        // SAFETY: a row's four chunks lie at `stride`.
        Self(unsafe { load_16(row.add((lane / 16) as usize * stride)) })
    }

    /// Replaces the elements from k = `count` on by zeros, whatever they are.
    #[inline(always)]
    pub fn truncate(&mut self, count: u32, lane: u32) {
        self.0 = truncate_chunk(self.0, lane / 16 * 8, count);
    }
}

/// The first or second four k of every chunk. Callers with several accumulators interleave the
/// halves, because the second waits for the first. Collective.
#[inline(always)]
pub fn mma_half<const HALF: usize>(w: &Operand, x: &Operand, acc: &mut Acc) {
    let half = |o: &Operand| [o.0.0[2 * HALF], o.0.0[2 * HALF + 1]];
    *acc = arch::mma(half(w), half(x), *acc);
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
    let x = op(x, shuffle_xor_f32::<16>(x));
    op(x, shuffle_xor_f32::<32>(x))
}

/// The key, of 32, whose scores are row `row` of score tile `tile`: chosen so that
/// [`probabilities`] finds a lane's keys where the operand wants them.
#[inline(always)]
pub fn score_key(tile: u32, row: u32) -> u32 {
    row / 4 * 8 + tile * 4 + row % 4
}

/// The X operand whose k are 32 keys, from the two tiles of their probabilities. Collective.
#[inline(always)]
pub fn probabilities(tiles: [Acc; 2]) -> Operand {
    let [a, b] = tiles;
    Operand(Vec16([
        pack_bf16(a[0], a[1]),
        pack_bf16(a[2], a[3]),
        pack_bf16(b[0], b[1]),
        pack_bf16(b[2], b[3]),
    ]))
}
