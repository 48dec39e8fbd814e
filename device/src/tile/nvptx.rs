//! Hopper: `mma.sync.m16n8k16` with rows of A from X and columns of B from W, four per tile product.
//!
//! k have the documented order, in which `ldmatrix` brings operands from workgroup memory and a tile
//! of scores is one.

use shared::block::{CHUNK_STRIDE_BYTES, Family};
use shared::frag::Frag as _;

use super::{Acc, truncate_pair};
use crate::arch::{self, Mma, Vec8, pack_bf16, shuffle_xor_f32};

/// The family, as the host knows it.
pub const FAMILY: Family = Family::Nvptx;
/// Rows of a block a lane reads from.
pub const LANE_ROWS: usize = 2;

/// The `i`-th row lane `lane` reads.
#[inline(always)]
pub fn lane_row(lane: u32, i: usize) -> u32 {
    lane / 4 + 8 * i as u32
}

/// `(w, x)` of element `i` of this lane's part of a result.
#[inline(always)]
pub fn acc_index(lane: u32, i: usize) -> (u32, u32) {
    let (x, w) = Mma::c_index(lane, i as u32);
    (w, x)
}

/// Two pairs of k of two rows, for each half of the block's 32 k.
#[derive(Clone, Copy)]
pub struct Operand([[Vec8; LANE_ROWS]; 2]);

impl Operand {
    /// All zeros.
    pub const ZERO: Self = Self([[Vec8([0; 2]); LANE_ROWS]; 2]);

    /// From `[half][row]` words: bf16 pairs of four k each.
    #[inline(always)]
    pub fn from_words(words: [[Vec8; LANE_ROWS]; 2]) -> Self {
        Self(words)
    }

    /// From the first chunk of each row the lane reads.
    ///
    /// # Safety
    ///
    /// Each pointer is the 16-byte aligned first chunk of row [`lane_row`] of a readable block.
    #[inline(always)]
    pub unsafe fn gather(rows: [*const u8; LANE_ROWS], lane: u32) -> Self {
        let at = (lane % 4) as usize * 4;
        // SAFETY: a pair of k of two neighbouring chunks of the row.
        let load = |row: *const u8, half: usize| unsafe {
            let pair = row.add(half * 2 * CHUNK_STRIDE_BYTES + at);
            Vec8([*pair.cast(), *pair.add(CHUNK_STRIDE_BYTES).cast()])
        };
        Self([0, 1].map(|half| rows.map(|row| load(row, half))))
    }

    /// Operand whose row `r` is row `row(r)` of four columns of chunks at `columns`, `stride` bytes
    /// apart. Collective.
    ///
    /// # Safety
    ///
    /// `columns` is a 16-byte aligned address of workgroup memory; the rows are readable.
    #[inline(always)]
    pub unsafe fn columns(
        columns: *const u8,
        stride: usize,
        row: impl Fn(u32) -> u32,
        lane: u32,
    ) -> Self {
        // Lane 8j + r addresses row r of the j-th 8 x 8 matrix: two chunks of eight rows, then of
        // the next eight.
        let (r, chunk) = (lane % 8 + lane / 16 * 8, lane / 8 % 2);
        let at = row(r) as usize * 16 + chunk as usize * stride;
        Self([0, 1].map(|half| {
            // SAFETY: a chunk of a row the caller promises.
            let [a, b, c, d] =
                unsafe { arch::ldmatrix(columns.add(half * 2 * stride + at).cast()) };
            [Vec8([a, b]), Vec8([c, d])]
        }))
    }

    /// Replaces the elements from k = `count` on by zeros, whatever they are.
    #[inline(always)]
    pub fn truncate(&mut self, count: u32, lane: u32) {
        for half in 0..2 {
            for row in 0..LANE_ROWS {
                for i in 0..2 {
                    let k = (half * 16 + i * 8) as u32 + lane % 4 * 2;
                    let word = &mut self.0[half][row].0[i];
                    *word = truncate_pair(*word, k, count);
                }
            }
        }
    }

    /// The words of the first or second 16 k as the instruction's A operand.
    #[inline(always)]
    pub fn words(&self, half: usize) -> [u32; 4] {
        let [x0, x1] = self.0[half].map(|v| v.0);
        [x0[0], x1[0], x0[1], x1[1]]
    }

    /// This lane's part of the block of X at workgroup address `block`. Collective.
    ///
    /// # Safety
    ///
    /// A readable 16-byte aligned block.
    #[inline(always)]
    pub unsafe fn load_x(block: u32, lane: u32) -> Self {
        // Rows 0 to 7 and 8 to 15 of one column of chunks, then of the next: the registers of A.
        let at = block + lane * 16;
        Self([0, 1].map(|half| {
            // SAFETY: chunks of this block.
            let [a, b, c, d] =
                unsafe { arch::ldmatrix_at(at + half * 2 * CHUNK_STRIDE_BYTES as u32) };
            [Vec8([a, c]), Vec8([b, d])]
        }))
    }

    /// This lane's part of a block of W in workgroup memory. Collective.
    ///
    /// # Safety
    ///
    /// As [`Self::load_x`].
    #[inline(always)]
    pub unsafe fn load(block: *const u8, lane: u32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::columns(block, CHUNK_STRIDE_BYTES, |row| row, lane) }
    }
}

/// The first or second 16 k of a tile product. Callers with several accumulators interleave the
/// halves, because the second waits for the first. Collective.
#[inline(always)]
pub fn mma_half<const HALF: usize>(w: &Operand, x: &Operand, acc: &mut Acc) {
    let [w0, w1] = w.0[HALF].map(|v| v.0);
    *acc = arch::mma(x.words(HALF), [w0[0], w0[1], w1[0], w1[1]], *acc);
}

/// Whether elements `2 i` and `2 i + 1` of a lane's part of a result are neighbours in w.
pub const PAIRED: bool = true;

/// Results of different x one lane holds.
pub const X_SLOTS: usize = 2;

/// Which of the lane's x element `i` of a result belongs to.
#[inline(always)]
pub fn x_slot(i: usize) -> usize {
    i % 4 / 2
}

/// Combines values over the lanes that hold the same x. The order is fixed. Collective.
#[inline(always)]
pub fn over_w(x: f32, op: impl Fn(f32, f32) -> f32) -> f32 {
    let x = op(x, shuffle_xor_f32::<1>(x));
    op(x, shuffle_xor_f32::<2>(x))
}

/// The key, of 32, whose scores are row `row` of score tile `tile`.
#[inline(always)]
pub fn score_key(tile: u32, row: u32) -> u32 {
    tile * 16 + row
}

/// The X operand whose k are 32 keys, from the two tiles of their probabilities. Collective.
#[inline(always)]
pub fn probabilities(tiles: [Acc; 2]) -> Operand {
    Operand(tiles.map(|p| {
        let row = |i: usize| Vec8([pack_bf16(p[i], p[i + 1]), pack_bf16(p[i + 4], p[i + 5])]);
        [row(0), row(2)]
    }))
}
