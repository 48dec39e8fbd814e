//! Half precision and bfloat16 in integer arithmetic: the same bits on every machine.

/// Half (low 16 bits of `h`) to single; exact.
#[inline(always)]
pub(crate) fn f16_to_f32(h: u32) -> f32 {
    let magnitude = (h & 0x7fff) << 13;
    // Rebiasing by a multiplication also normalises denormals.
    let scaled = f32::from_bits(magnitude) * f32::from_bits(0x7780_0000);
    let infinite = h & 0x7c00 == 0x7c00;
    let bits = if infinite { magnitude | 0x7f80_0000 } else { scaled.to_bits() };
    f32::from_bits(bits | (h & 0x8000) << 16)
}

/// Single to half, rounding to nearest even.
#[inline(always)]
pub(crate) fn f32_to_f16(x: f32) -> u32 {
    let bits = x.to_bits();
    let sign = bits >> 16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    let nan = 0x7e00 | (magnitude >> 13 & 0x1ff);
    // Denormal results: adding 0.5 aligns the mantissa so that the addition rounds.
    let small = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let odd = magnitude >> 13 & 1;
    let normal = magnitude.wrapping_sub(0x3800_0000).wrapping_add(0xfff + odd) >> 13;
    let finite = if magnitude < 0x3880_0000 { small } else { normal };
    let rounded = if magnitude >= 0x477f_f000 { 0x7c00 } else { finite };
    sign | if magnitude > 0x7f80_0000 { nan } else { rounded }
}

/// Double to single, rounding to odd: a later rounding to fewer bits is then as if done at once.
#[inline(always)]
pub(crate) fn f64_to_f32_odd(x: f64) -> f32 {
    let near = x as f32;
    let bits = near.to_bits();
    let exact = f64::from(near) == x || x.is_nan();
    if exact || bits & 1 != 0 {
        return near;
    }
    // An even result that was rounded: the odd neighbour on the other side of `x`.
    let too_large = f64::from(near).abs() > x.abs();
    f32::from_bits(if too_large { bits - 1 } else { bits + 1 })
}

/// `a * b + c` of halves with one rounding.
#[inline(always)]
pub(crate) fn fma_f16(a: f32, b: f32, c: f32) -> f32 {
    // The product of two halves is exact in f64; the sum is rounded to odd by its exact error.
    let product = f64::from(a) * f64::from(b);
    let addend = f64::from(c);
    let sum = product + addend;
    let virtual_addend = sum - product;
    let error = (product - (sum - virtual_addend)) + (addend - virtual_addend);
    let bits = sum.to_bits();
    let adjust = error != 0.0 && bits & 1 == 0 && sum.is_finite();
    let away = (error > 0.0) == (sum > 0.0);
    let odd = if away { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    f64_to_f32_odd(f64::from_bits(if adjust { odd } else { bits }))
}

/// bfloat16 (low 16 bits) to single; exact.
#[inline(always)]
pub(crate) fn bf16_to_f32(h: u32) -> f32 {
    f32::from_bits(h << 16)
}

/// Single to bfloat16, rounding to nearest even.
#[inline(always)]
pub(crate) fn f32_to_bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { bits >> 16 | 0x40 } else { rounded }
}

/// Single to half, rounding towards zero.
#[inline(always)]
pub(crate) fn f32_to_f16_toward_zero(x: f32) -> u32 {
    let nearest = f32_to_f16(x);
    let overshot = f16_to_f32(nearest).abs() > x.abs();
    // Overflow stays at the largest finite value unless the source is infinite.
    if overshot { nearest - 1 } else { nearest }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Value of a half by definition.
    fn value(h: u32) -> f64 {
        let (exponent, mantissa) = ((h >> 10 & 31) as i32, f64::from(h & 0x3ff));
        let sign = if h & 0x8000 != 0 { -1.0 } else { 1.0 };
        match exponent {
            0 => sign * mantissa * 2f64.powi(-24),
            31 if mantissa == 0.0 => sign * f64::INFINITY,
            31 => f64::NAN,
            e => sign * (1024.0 + mantissa) * 2f64.powi(e - 25),
        }
    }

    #[test]
    fn every_half_widens_exactly_and_comes_back() {
        for h in 0..=0xffffu32 {
            let wide = f16_to_f32(h);
            if value(h).is_nan() {
                assert!(wide.is_nan() && f32_to_f16(wide) & 0x7fff > 0x7c00, "{h:#06x}");
            } else {
                assert_eq!(f64::from(wide), value(h), "{h:#06x}");
                assert_eq!(f32_to_f16(wide), h, "{h:#06x}");
            }
        }
    }

    #[test]
    fn narrowing_picks_the_nearest_half_and_ties_to_even() {
        for h in 0..0x7bffu32 {
            let (low, high) = (value(h), value(h + 1));
            let middle = (low + high) / 2.0;
            let even = if h & 1 == 0 { h } else { h + 1 };
            assert_eq!(f32_to_f16(middle as f32), even, "tie above {h:#06x}");
            assert_eq!(f32_to_f16((middle as f32).next_down()), h);
            assert_eq!(f32_to_f16((middle as f32).next_up()), h + 1);
            assert_eq!(f32_to_f16(f64_to_f32_odd(middle.next_up())), h + 1);
            assert_eq!(f32_to_f16_toward_zero((high as f32).next_down()), h);
        }
        assert_eq!(f32_to_f16(65519.996), 0x7bff);
        assert_eq!(f32_to_f16(65520.0), 0x7c00);
        assert_eq!(f32_to_f16_toward_zero(1e9), 0x7bff);
        assert_eq!(f32_to_f16_toward_zero(f32::INFINITY), 0x7c00);
    }

    #[test]
    fn fused_half_multiply_add_rounds_once() {
        // 1.0009766² = 1.0019541…; the tiny addend decides a tie that f32 would lose.
        let a = f16_to_f32(0x3c01);
        let tiny = f16_to_f32(0x0001);
        let exact = value(0x3c01) * value(0x3c01) - value(0x0001);
        assert_eq!(f32_to_f16(fma_f16(a, a, -tiny)), f32_to_f16(f64_to_f32_odd(exact)));
        assert!(fma_f16(f32::INFINITY, 0.0, 1.0).is_nan());
        assert_eq!(fma_f16(f32::INFINITY, 1.0, 1.0), f32::INFINITY);
    }

    #[test]
    fn bf16_rounds_to_nearest_even() {
        assert_eq!(f32_to_bf16(f32::from_bits(0x3f80_8000)), 0x3f80);
        assert_eq!(f32_to_bf16(f32::from_bits(0x3f81_8000)), 0x3f82);
        assert_eq!(f32_to_bf16(f32::from_bits(0x3f80_8001)), 0x3f81);
        assert!(bf16_to_f32(f32_to_bf16(f32::NAN)).is_nan());
    }
}
