//! How packed weights lie in device memory: by row tiles of 16, then k steps of 32, one block per
//! step, so that a wave reads one contiguous stream whatever the format.
//!
//! The order inside a packed block is what makes decoding cheap, and differs between families;
//! host code that packs and kernels that decode both take it from here.

use crate::bf16;
use crate::block::{BLOCK_BYTES, Family, ROWS, STEP};
use crate::mxfp4;

/// Bytes of a bf16 block.
pub const BF16_STEP_BYTES: usize = BLOCK_BYTES;
/// Bytes of an MXFP4 block: sixteen scales, then sixteen rows of sixteen bytes.
pub const MXFP4_STEP_BYTES: usize = ROWS + ROWS * STEP / 2;
/// Bytes of an MXINT8 block: sixteen scales, then sixteen rows of 32 bytes.
pub const MXINT8_STEP_BYTES: usize = ROWS + ROWS * STEP;

/// MXFP4 scale bytes every kernel decodes exactly: with these an element stays a normal bf16.
pub const MXFP4_SCALES: core::ops::RangeInclusive<u8> = 2..=128;
/// The same for MXINT8.
pub const MXINT8_SCALES: core::ops::RangeInclusive<u8> = 8..=128;

/// Where element `k` (0 to 31) of a row sits: the position of its nibble or byte in the row's
/// packed order. Both packed formats use it; position `p` of MXFP4 is element `p % 8` of the
/// row's 32-bit word `p / 8`: [`mxfp4_bits`].
///
/// - gfx9, gfx11: chunk by chunk (a word of MXFP4 is a chunk).
/// - gfx12: chunks 0, 2, 1, 3, so that the two chunks of a half-wave are neighbours.
/// - nvptx: word `q` holds what lane `q` of four multiplies: k `2q`, `2q + 1`, `2q + 8` and `2q + 9`
///   of each 16.
pub const fn position(family: Family, k: usize) -> usize {
    match family {
        Family::Gfx9 | Family::Gfx11 => k,
        Family::Gfx12 => [0, 2, 1, 3][k / 8] * 8 + k % 8,
        Family::Nvptx => k % 8 / 2 * 8 + k / 16 * 4 + k % 16 / 8 * 2 + k % 2,
    }
}

/// The bits of a word of MXFP4 that hold `code` as element `i` of its eight.
///
/// AMD looks bytes up with `v_perm_b32`: elements 0 to 3 are the low nibbles of the four bytes, 4 to
/// 7 the high ones. NVIDIA multiplies pairs of bf16: elements `2t` and `2t + 1` lie alike in the low
/// and the high half-word, their bits where few shifts bring the sign to bit 15 and the rest to bits
/// 6 to 8 of both at once.
pub const fn mxfp4_bits(family: Family, i: usize, code: u8) -> u32 {
    let code = code as u32;
    match family {
        Family::Nvptx => {
            let (sign_at, magnitude_at) = [(15, 6), (12, 3), (14, 0), (13, 9)][i / 2];
            ((code >> 3) << sign_at | (code & 7) << magnitude_at) << (i % 2 * 16)
        }
        _ => code << (i % 4 * 8 + i / 4 * 4),
    }
}

/// The byte that stands for MXFP4 scale `scale`, one of [`MXFP4_SCALES`], in a block. On NVIDIA it
/// is the exponent of the bf16 that the pairs are multiplied by.
pub const fn mxfp4_scale(family: Family, scale: u8) -> u8 {
    match family {
        Family::Nvptx => scale + 126,
        _ => scale,
    }
}

/// Byte of an MXFP4 block at which row `row` starts.
pub const fn mxfp4_row_offset(row: usize) -> usize {
    ROWS + row * STEP / 2
}

/// Byte of an MXINT8 block at which row `row` starts.
pub const fn mxint8_row_offset(row: usize) -> usize {
    ROWS + row * STEP
}

/// Packs one row of an MXFP4 block: `packed` in the published order into `row`, 16 bytes.
pub fn mxfp4_row(family: Family, packed: &[u8; mxfp4::BLOCK_BYTES], row: &mut [u8; 16]) {
    let mut words = [0u32; 4];
    for k in 0..STEP {
        let code = packed[k / 2] >> (k % 2 * 4) & 15;
        let p = position(family, k);
        words[p / 8] |= mxfp4_bits(family, p % 8, code);
    }
    for (bytes, word) in row.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
}

/// Quantises 32 bf16 values to MXINT8: int8 with six fraction bits times `2^(scale - 127)`.
/// The scale is the smallest that keeps the largest value in range after rounding; bytes are sign
/// and magnitude, because kernels build bf16 from them. `None` when a value is not finite or the
/// scale leaves [`MXINT8_SCALES`].
///
/// Source: OCP Microscaling Formats (MX) v1.0, sections 5.3 and 6.3.
pub fn mxint8_quantise(values: &[u16; STEP]) -> Option<(u8, [u8; STEP])> {
    let max = values.iter().map(|&v| v & 0x7fff).max().unwrap_or(0);
    if max >= 0x7f80 {
        return None;
    }
    // 2^e <= max < 2^(e+1); q = v / 2^(e - 6) is below 128, but may round up to it.
    let mut scale = ((max >> 7) as u8).max(*MXINT8_SCALES.start());
    if max & 0x7f == 0x7f {
        scale += 1;
    }
    if !MXINT8_SCALES.contains(&scale) {
        return None;
    }
    let unit = mxfp4::scale_to_f32(scale) / 64.0;
    let mut out = [0; STEP];
    for (out, &v) in out.iter_mut().zip(values) {
        let magnitude = round_half_even(bf16::to_f32(v & 0x7fff) / unit);
        *out = magnitude | ((v >> 8) as u8 & 0x80);
    }
    Some((scale, out))
}

/// The integer nearest to `x`, ties to even; `0 <= x < 128`.
fn round_half_even(x: f32) -> u8 {
    // Adding 2^23 leaves no fraction bits: the hardware rounds.
    const SHIFT: f32 = 8_388_608.0;
    ((x + SHIFT) - SHIFT) as u8
}

/// The value of an MXINT8 byte in sign-and-magnitude form.
pub fn mxint8_value(byte: u8, scale: u8) -> f32 {
    let magnitude = f32::from(byte & 0x7f) * (mxfp4::scale_to_f32(scale) / 64.0);
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILIES: [Family; 4] = [Family::Gfx9, Family::Gfx11, Family::Gfx12, Family::Nvptx];

    #[test]
    fn positions_and_bits_are_permutations() {
        for family in FAMILIES {
            let mut seen = 0u32;
            for k in 0..STEP {
                seen |= 1 << position(family, k);
            }
            assert_eq!(seen, u32::MAX, "{family:?}");
            let mut bits = 0u32;
            for i in 0..8 {
                for code in [1, 2, 4, 8] {
                    bits |= mxfp4_bits(family, i, code);
                }
            }
            assert_eq!(bits, u32::MAX, "{family:?}");
        }
    }

    #[test]
    fn mxint8_error_is_half_a_step_and_exact_in_bf16() {
        let mut state = 1u32;
        for round in 0..1000 {
            let values: [u16; STEP] = core::array::from_fn(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let x = (state >> 8) as f32 / 8_388_608.0 - 1.0;
                bf16::from_f32(x * f32::from_bits((100 + round % 28) << 23))
            });
            let (scale, bytes) = mxint8_quantise(&values).expect("in range");
            let step = f64::from(mxfp4::scale_to_f32(scale)) / 64.0;
            for (&v, &b) in values.iter().zip(&bytes) {
                let got = mxint8_value(b, scale);
                assert!((f64::from(got) - f64::from(bf16::to_f32(v))).abs() <= step / 2.0);
                assert_eq!(bf16::to_f32(bf16::from_f32(got)), got);
            }
        }
    }

    #[test]
    fn mxint8_refuses_what_it_cannot_hold() {
        assert!(mxint8_quantise(&[0x7f80; STEP]).is_none());
        assert!(mxint8_quantise(&[0x7fc0; STEP]).is_none());
        assert!(mxint8_quantise(&[0x4f00; STEP]).is_none(), "2^31 needs a scale past 128");
        assert_eq!(mxint8_quantise(&[0; STEP]), Some((8, [0; STEP])));
    }
}
