//! bf16 as raw bits: Rust has no bf16 primitive, and kernels and host must round alike.

/// The bf16 nearest to `x`, ties to even; NaN stays NaN (quiet), overflow becomes infinity.
#[inline(always)]
pub const fn from_f32(x: f32) -> u16 {
    let bits = x.to_bits();
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// The value of the bf16 `bits`, exactly.
#[inline(always)]
pub const fn to_f32(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bf16_survives_the_round_trip() {
        for bits in 0..=u16::MAX {
            let x = to_f32(bits);
            if x.is_nan() {
                assert!(to_f32(from_f32(x)).is_nan(), "{bits:#06x}");
            } else {
                assert_eq!(from_f32(x), bits);
            }
        }
    }

    #[test]
    fn ties_go_to_even() {
        assert_eq!(from_f32(f32::from_bits(0x3f80_8000)), 0x3f80);
        assert_eq!(from_f32(f32::from_bits(0x3f81_8000)), 0x3f82);
        assert_eq!(from_f32(f32::from_bits(0x3f80_8001)), 0x3f81);
    }

    #[test]
    fn overflow_becomes_infinity() {
        assert_eq!(from_f32(f32::MAX), 0x7f80);
        assert_eq!(from_f32(f32::MIN), 0xff80);
    }
}
