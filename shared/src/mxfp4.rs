//! MXFP4, the format of the published experts: blocks of 32 e2m1 values that share an e8m0 scale.
//!
//! Byte `i` of a block holds element `2i` in its low nibble and `2i + 1` in its high one.
//! Source: OCP Microscaling Formats (MX) v1.0, section 5.

/// Elements that share one scale.
pub const BLOCK: usize = 32;
/// Bytes of packed elements per block.
pub const BLOCK_BYTES: usize = BLOCK / 2;

/// The sixteen e2m1 values by code; bit 3 is the sign.
pub const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// The value of an e8m0 scale byte: `2^(scale - 127)`; 255 is NaN.
#[inline(always)]
pub const fn scale_to_f32(scale: u8) -> f32 {
    match scale {
        0 => f32::from_bits(0x0040_0000), // 2^-127 is subnormal in f32
        255 => f32::NAN,
        s => f32::from_bits((s as u32) << 23),
    }
}

/// The 32 values of one block.
pub fn decode_block(packed: &[u8; BLOCK_BYTES], scale: u8) -> [f32; BLOCK] {
    let s = scale_to_f32(scale);
    let mut out = [0.0; BLOCK];
    for (i, byte) in packed.iter().enumerate() {
        out[2 * i] = E2M1[(byte & 15) as usize] * s;
        out[2 * i + 1] = E2M1[(byte >> 4) as usize] * s;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_powers_of_two() {
        for scale in 0..255u8 {
            assert_eq!(scale_to_f32(scale) as f64, f64::powi(2.0, scale as i32 - 127));
        }
        assert!(scale_to_f32(255).is_nan());
    }

    #[test]
    fn low_nibble_comes_first() {
        let mut packed = [0; BLOCK_BYTES];
        packed[0] = 0x2f;
        let block = decode_block(&packed, 128);
        assert_eq!(block[..3], [-12.0, 2.0, 0.0]);
    }
}
