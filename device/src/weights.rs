//! Weight formats: how a 16 x 32 block of W is stored and becomes a matrix operand.
//!
//! A matrix is stored by row tiles of 16, a tile by k steps of 32, one block of
//! [`Format::STEP_BYTES`] per step, so that a wave reads one contiguous stream. Every format
//! decodes to exact bf16: a product with packed weights equals, bit for bit, the product with the
//! same weights widened beforehand.

use shared::pack;

#[cfg(family = "nvptx")]
use crate::arch::{Vec16, load_16};
use crate::tile::{LANE_ROWS, Operand, lane_row};

#[cfg_attr(not(family = "nvptx"), path = "weights/amd.rs")]
#[cfg_attr(family = "nvptx", path = "weights/nvptx.rs")]
mod decode;

use decode::{Aligned, WORDS, first_word, fp4_operand, int8_operand};

/// One way to store W.
pub trait Format {
    /// Bytes of a 16 x 32 block.
    const STEP_BYTES: usize;
    /// A lane's part of a block, as loaded: a few words that wait for their use.
    type Raw: Copy;

    /// Loads this lane's part of the block at `block`, on NVIDIA in workgroup memory. Collective.
    ///
    /// # Safety
    ///
    /// `block` is a readable 16-byte aligned block.
    unsafe fn load(block: *const u8, lane: u32) -> Self::Raw;

    /// The bf16 operand.
    fn operand(raw: &Self::Raw) -> Operand;

    /// The four bf16 chunks of row `row` of a block in workgroup memory.
    ///
    /// # Safety
    ///
    /// `block` is a readable 16-byte aligned block; `row < 16`.
    #[cfg(family = "nvptx")]
    unsafe fn decode_row(block: *const u8, row: usize) -> [Vec16; 4];
}

/// bf16 as published.
pub struct Bf16;

impl Format for Bf16 {
    const STEP_BYTES: usize = pack::BF16_STEP_BYTES;
    type Raw = Operand;

    #[inline(always)]
    unsafe fn load(block: *const u8, lane: u32) -> Operand {
        // SAFETY: the caller's promise.
        unsafe { Operand::load(block, lane) }
    }

    #[inline(always)]
    fn operand(raw: &Operand) -> Operand {
        *raw
    }

    #[cfg(family = "nvptx")]
    #[inline(always)]
    unsafe fn decode_row(block: *const u8, row: usize) -> [Vec16; 4] {
        // SAFETY: the row's chunks.
        [0, 1, 2, 3].map(|c| unsafe {
            load_16(block.add(c * shared::block::CHUNK_STRIDE_BYTES + row * 16))
        })
    }
}

/// MXFP4 as published, reordered by [`pack::mxfp4_row`].
pub struct Mxfp4;

/// A lane's part of an MXFP4 block: for each row it reads, words of eight nibbles and the scale.
#[derive(Clone, Copy)]
pub struct Mxfp4Raw {
    words: [[u32; WORDS]; LANE_ROWS],
    scales: [u32; LANE_ROWS],
}

impl Format for Mxfp4 {
    const STEP_BYTES: usize = pack::MXFP4_STEP_BYTES;
    type Raw = Mxfp4Raw;

    #[inline(always)]
    unsafe fn load(block: *const u8, lane: u32) -> Mxfp4Raw {
        let mut raw = Mxfp4Raw { words: [[0; WORDS]; LANE_ROWS], scales: [0; LANE_ROWS] };
        for i in 0..LANE_ROWS {
            let row = lane_row(lane, i) as usize;
            let at = pack::mxfp4_row_offset(row) + first_word(lane) * 4;
            // SAFETY: a row is sixteen bytes, and `WORDS` of them from the lane's first lie in it,
            // aligned as a whole because a row is.
            unsafe {
                raw.words[i] = block.add(at).cast::<Aligned<[u32; WORDS]>>().read().0;
                raw.scales[i] = u32::from(*block.add(row));
            }
        }
        raw
    }

    #[inline(always)]
    fn operand(raw: &Mxfp4Raw) -> Operand {
        fp4_operand(raw.words, raw.scales)
    }

    #[cfg(family = "nvptx")]
    #[inline(always)]
    unsafe fn decode_row(block: *const u8, row: usize) -> [Vec16; 4] {
        // SAFETY: a row is one piece of sixteen bytes.
        let (words, scale) = unsafe {
            (load_16(block.add(pack::mxfp4_row_offset(row))), u32::from(*block.add(row)))
        };
        decode::chunks(words.0.map(|word| decode::fp4_pairs(word, scale)))
    }
}

/// MXINT8, made from bf16 when a model is loaded with 8-bit dense weights.
pub struct Mxint8;

/// A lane's part of an MXINT8 block: for each row it reads, words of four elements and the scale.
#[derive(Clone, Copy)]
pub struct Mxint8Raw {
    words: [[[u32; 2]; WORDS]; LANE_ROWS],
    scales: [u32; LANE_ROWS],
}

impl Format for Mxint8 {
    const STEP_BYTES: usize = pack::MXINT8_STEP_BYTES;
    type Raw = Mxint8Raw;

    #[inline(always)]
    unsafe fn load(block: *const u8, lane: u32) -> Mxint8Raw {
        let mut raw = Mxint8Raw { words: [[[0; 2]; WORDS]; LANE_ROWS], scales: [0; LANE_ROWS] };
        for i in 0..LANE_ROWS {
            let row = lane_row(lane, i) as usize;
            let at = pack::mxint8_row_offset(row) + first_word(lane) * 8;
            // SAFETY: a row is 32 bytes; as for MXFP4, with words twice as wide.
            unsafe {
                raw.words[i] = block.add(at).cast::<Aligned<[[u32; 2]; WORDS]>>().read().0;
                raw.scales[i] = u32::from(*block.add(row));
            }
        }
        raw
    }

    #[inline(always)]
    fn operand(raw: &Mxint8Raw) -> Operand {
        int8_operand(raw.words, raw.scales)
    }

    #[cfg(family = "nvptx")]
    #[inline(always)]
    unsafe fn decode_row(block: *const u8, row: usize) -> [Vec16; 4] {
        // SAFETY: a row is two pieces of sixteen bytes.
        let (low, high, scale) = unsafe {
            let at = block.add(pack::mxint8_row_offset(row));
            (load_16(at).0, load_16(at.add(16)).0, u32::from(*block.add(row)))
        };
        let words = [[low[0], low[1]], [low[2], low[3]], [high[0], high[1]], [high[2], high[3]]];
        decode::chunks(words.map(|word| decode::int8_pairs(word, scale)))
    }
}
