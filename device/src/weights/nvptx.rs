//! Decoding on Hopper: pairs of bf16 by masks and one packed multiplication.

use core::arch::asm;

use crate::arch::{Vec8, Vec16};
use crate::tile::{LANE_ROWS, Operand};

/// MXFP4 words of one row a lane reads.
pub const WORDS: usize = 1;

/// Moved as one access.
#[derive(Clone, Copy)]
#[repr(C, align(4))]
pub struct Aligned<T>(pub T);

/// The first of them.
#[inline(always)]
pub fn first_word(lane: u32) -> usize {
    (lane % 4) as usize
}

/// The operand of MXFP4 words.
#[inline(always)]
pub fn fp4_operand(words: [[u32; WORDS]; LANE_ROWS], scales: [u32; LANE_ROWS]) -> Operand {
    from_pairs([0, 1].map(|row| fp4_pairs(words[row][0], scales[row])))
}

/// The operand of MXINT8 words.
#[inline(always)]
pub fn int8_operand(words: [[[u32; 2]; WORDS]; LANE_ROWS], scales: [u32; LANE_ROWS]) -> Operand {
    from_pairs([0, 1].map(|row| int8_pairs(words[row][0], scales[row])))
}

/// The four pairs of an MXFP4 word: two of the first 16 k, two of the second.
///
/// The three magnitude bits, put at the bottom of bf16's exponent and the top of its mantissa,
/// read as the element times 2^-126, subnormals included; one exact multiplication makes it the
/// value. `exponent` is that of the factor: `shared::pack::mxfp4_scale`. The bits lie where
/// `shared::pack::mxfp4_bits` says.
#[inline(always)]
pub fn fp4_pairs(word: u32, exponent: u32) -> [u32; 4] {
    const SIGN: u32 = 0x8000_8000;
    const MAGNITUDE: u32 = 0x01c0_01c0;
    let factor = exponent * 0x0080_0080;
    [
        word & (SIGN | MAGNITUDE),
        word << 3 & (SIGN | MAGNITUDE),
        word << 6 & MAGNITUDE | word << 1 & SIGN,
        word >> 3 & MAGNITUDE | word << 2 & SIGN,
    ]
    .map(|pair| mul_bf16x2(pair, factor))
}

/// The four pairs of eight MXINT8 bytes, in the same order.
///
/// `0x4300 | m` is the bf16 128 + m; `(128 + m) * s - 128 * s` in one rounding is exactly `m * s`.
#[inline(always)]
pub fn int8_pairs([low, high]: [u32; 2], scale: u32) -> [u32; 4] {
    let unit = ((scale - 6) << 7) * 0x1_0001;
    let offset = ((scale + 1) << 7 | 0x8000) * 0x1_0001;
    let pair = |bytes: u32| {
        let value = fma_bf16x2(bytes & 0x007f_007f | 0x4300_4300, unit, offset);
        value ^ (bytes << 8 & 0x8000_8000)
    };
    [
        pair(spread::<0x4140>(low)),
        pair(spread::<0x4342>(low)),
        pair(spread::<0x4140>(high)),
        pair(spread::<0x4342>(high)),
    ]
}

/// The chunks of a row from the pairs of its four words, one of each chunk in every word.
#[inline(always)]
pub fn chunks(words: [[u32; 4]; 4]) -> [Vec16; 4] {
    [0, 1, 2, 3].map(|c| Vec16(words.map(|pairs| pairs[c])))
}

/// Rows of four pairs, the first two of the block's first 16 k.
#[inline(always)]
fn from_pairs(rows: [[u32; 4]; LANE_ROWS]) -> Operand {
    Operand::from_words([0, 1].map(|half| rows.map(|r| Vec8([r[2 * half], r[2 * half + 1]]))))
}

#[inline(always)]
fn mul_bf16x2(a: u32, b: u32) -> u32 {
    let y: u32;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!("mul.rn.bf16x2 {}, {}, {};", out(reg32) y, in(reg32) a, in(reg32) b,
            options(pure, nomem));
    }
    y
}

#[inline(always)]
fn fma_bf16x2(a: u32, b: u32, c: u32) -> u32 {
    let y: u32;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!("fma.rn.bf16x2 {}, {}, {}, {};", out(reg32) y, in(reg32) a, in(reg32) b,
            in(reg32) c, options(pure, nomem));
    }
    y
}

/// Two bytes of `x` in the low bytes of two half-words, chosen by a `prmt` control word.
#[inline(always)]
fn spread<const CONTROL: u32>(x: u32) -> u32 {
    let y: u32;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!("prmt.b32 {}, {}, 0, {};", out(reg32) y, in(reg32) x, const CONTROL,
            options(pure, nomem));
    }
    y
}
