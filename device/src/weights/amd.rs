//! Decoding on AMD: `v_perm_b32` looks four bytes up at once in a table of eight.

use crate::arch::Vec16;
use crate::tile::{FAMILY, LANE_ROWS, Operand};
use shared::block::Family;

/// MXFP4 words (chunks) of one row a lane reads.
pub const WORDS: usize = match FAMILY {
    Family::Gfx11 => 4,
    Family::Gfx12 => 2,
    _ => 1,
};

/// Moved as one access.
#[derive(Clone, Copy)]
#[cfg_attr(family = "gfx9", repr(C, align(4)))]
#[cfg_attr(family = "gfx11", repr(C, align(16)))]
#[cfg_attr(family = "gfx12", repr(C, align(8)))]
pub struct Aligned<T>(pub T);

// LLVM: IntrinsicsAMDGPU.td.
unsafe extern "unadjusted" {
    #[link_name = "llvm.amdgcn.perm"]
    safe fn llvm_perm(high: u32, low: u32, selector: u32) -> u32;
}

/// The first of them.
#[inline(always)]
pub fn first_word(lane: u32) -> usize {
    match FAMILY {
        Family::Gfx11 => 0,
        Family::Gfx12 => (lane / 16 * 2) as usize,
        _ => (lane / 16) as usize,
    }
}

/// The operand of MXFP4 words.
///
/// The eight magnitudes times the row's scale, as bf16, make a table of high bytes and one of low
/// bytes; four elements are then two look-ups, a sign, and two merges.
#[inline(always)]
pub fn fp4_operand([words]: [[u32; WORDS]; LANE_ROWS], [scale]: [u32; LANE_ROWS]) -> Operand {
    // bf16 of 0, 0.5, 1, 1.5, 2, 3, 4, 6 in pairs. Adding to the exponent field multiplies; zero
    // has none and stays.
    let exponent = ((scale as i32 - 127) << 7) as u32;
    let both = exponent.wrapping_mul(0x1_0001);
    let pairs = [
        0x3f00_0000_u32.wrapping_add(exponent << 16),
        0x3fc0_3f80_u32.wrapping_add(both),
        0x4040_4000_u32.wrapping_add(both),
        0x40c0_4080_u32.wrapping_add(both),
    ];
    let bytes = |selector| {
        [llvm_perm(pairs[1], pairs[0], selector), llvm_perm(pairs[3], pairs[2], selector)]
    };
    let (low_table, high_table) = (bytes(0x0604_0200), bytes(0x0705_0301));

    let four = |codes: u32, signs: u32| {
        let codes = codes & 0x0707_0707;
        let low = llvm_perm(low_table[1], low_table[0], codes);
        let high = llvm_perm(high_table[1], high_table[0], codes) | signs & 0x8080_8080;
        [llvm_perm(high, low, 0x0501_0400), llvm_perm(high, low, 0x0703_0602)]
    };
    Operand::from_chunks(words.map(|word| {
        let ([a, b], [c, d]) = (four(word, word << 4), four(word >> 4, word));
        Vec16([a, b, c, d])
    }))
}

/// The operand of MXINT8 words: exact in f32, hence in the upper half of f32.
#[inline(always)]
pub fn int8_operand([words]: [[[u32; 2]; WORDS]; LANE_ROWS], [scale]: [u32; LANE_ROWS]) -> Operand {
    let unit = f32::from_bits((scale - 6) << 23);
    let value = |byte: u32| {
        let magnitude = (byte & 0x7f) as f32 * unit;
        magnitude.to_bits() | (byte & 0x80) << 24
    };
    let pair = |a: u32, b: u32| llvm_perm(value(b), value(a), 0x0706_0302);
    Operand::from_chunks(words.map(|[low, high]| {
        Vec16([
            pair(low, low >> 8),
            pair(low >> 16, low >> 24),
            pair(high, high >> 8),
            pair(high >> 16, high >> 24),
        ])
    }))
}
