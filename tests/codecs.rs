//! bf16 and MXFP4 against their definitions, in f64.

use proptest::prelude::*;
use shared::{bf16, mxfp4};

/// The bf16 value next to `bits`, one step away from zero.
fn outward(bits: u16) -> f64 {
    // One step past the largest finite number stands where it would, had bf16 more exponents.
    if bits & 0x7fff == 0x7f7f {
        let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
        return sign * 2f64.powi(128);
    }
    f64::from(bf16::to_f32(bits + 1))
}

proptest! {
    /// Of the two bf16 around `x`, the nearer; of two as near, the one with an even last bit.
    #[test]
    fn bf16_rounds_to_nearest_even(bits in any::<u32>()) {
        let x = f32::from_bits(bits);
        prop_assume!(x.is_finite());
        let toward_zero = (bits >> 16) as u16;
        let inner = f64::from(bf16::to_f32(toward_zero));
        let outer = outward(toward_zero);
        let (to_inner, to_outer) = ((f64::from(x) - inner).abs(), (f64::from(x) - outer).abs());
        let rounds_out = to_outer < to_inner || (to_outer == to_inner && toward_zero % 2 == 1);
        prop_assert_eq!(bf16::from_f32(x), toward_zero + u16::from(rounds_out));
    }

    /// A NaN stays one, and infinities stay themselves.
    #[test]
    fn bf16_keeps_what_is_not_finite(mantissa in 0u32..1 << 23, negative in any::<bool>()) {
        let x = f32::from_bits(0x7f80_0000 | mantissa | u32::from(negative) << 31);
        let rounded = bf16::to_f32(bf16::from_f32(x));
        if x.is_nan() {
            prop_assert!(rounded.is_nan());
        } else {
            prop_assert_eq!(rounded, x);
        }
    }

    /// Every element of a block is its code's value times the scale, with one rounding at most:
    /// both are exact in f64, and so is their product.
    #[test]
    fn mxfp4_blocks_decode_by_the_definition(
        packed in any::<[u8; mxfp4::BLOCK_BYTES]>(),
        scale in 0..=254u8,
    ) {
        let decoded = mxfp4::decode_block(&packed, scale);
        for (i, value) in decoded.into_iter().enumerate() {
            let code = packed[i / 2] >> (4 * (i % 2)) & 15;
            // e2m1: sign, two bits of exponent (bias 1), one of mantissa; exponent 0 is subnormal.
            let (exponent, mantissa) = (i32::from(code >> 1 & 3), f64::from(code & 1));
            let magnitude = match exponent {
                0 => mantissa * 0.5,
                _ => (1.0 + mantissa * 0.5) * 2f64.powi(exponent - 1),
            };
            let sign = if code & 8 == 0 { 1.0 } else { -1.0 };
            let expected = sign * magnitude * 2f64.powi(i32::from(scale) - 127);
            prop_assert_eq!(value.to_bits(), (expected as f32).to_bits(), "element {}", i);
        }
    }

    /// The NaN scale spoils its whole block.
    #[test]
    fn the_nan_scale_gives_nan(packed in any::<[u8; mxfp4::BLOCK_BYTES]>()) {
        prop_assert!(mxfp4::decode_block(&packed, 255).iter().all(|v| v.is_nan()));
    }
}
