//! Transcendental functions of f32, evaluated in f64.
//!
//! Hardware results are within one unit in the last place; these are correctly rounded but for
//! rare near-ties. Only additions, multiplications and divisions of f64 are used, in a fixed
//! order and never fused, so that every machine gives the same bits and loops over lanes
//! vectorise. Denormal arguments and results are flushed where the hardware does so.

use super::operand::flush32;

/// 2^x.
#[inline(always)]
pub(super) fn exp2(x: f32) -> f32 {
    let x = f32::from_bits(flush32(x.to_bits()));
    let clamped = f64::from(x.clamp(-200.0, 200.0));
    // Adding 1.5 * 2^52 rounds to an integer, whose low bits are then the integer itself.
    let shifted = clamped + 6_755_399_441_055_744.0;
    let whole = shifted - 6_755_399_441_055_744.0;
    let t = (clamped - whole) * std::f64::consts::LN_2;
    let mut p = 1.0 / 479_001_600.0;
    for c in EXP {
        p = p * t + c;
    }
    let exponent = (shifted.to_bits() as i32 + 1023) as u64;
    let y = (p * f64::from_bits(exponent << 52)) as f32;
    let y = f32::from_bits(flush32(y.to_bits()));
    if x.is_nan() { x } else { y }
}

/// 1/11!, ..., 1/1!, 1/0!.
const EXP: [f64; 12] = [
    1.0 / 39_916_800.0,
    1.0 / 3_628_800.0,
    1.0 / 362_880.0,
    1.0 / 40_320.0,
    1.0 / 5_040.0,
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    0.5,
    1.0,
    1.0,
];

/// log2(x).
#[inline(always)]
pub(super) fn log2(x: f32) -> f32 {
    let x = f32::from_bits(flush32(x.to_bits()));
    let bits = f64::from(x).to_bits();
    // Mantissa in [sqrt(1/2), sqrt(2)), so that numbers near 1 keep their precision.
    let up = u64::from(bits & 0x000f_ffff_ffff_ffff > 0x0006_a09e_667f_3bcd);
    let exponent = (bits >> 52 & 0x7ff) as i32 - 1023 + up as i32;
    let m = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | (1023 - up) << 52);
    // log(m) = 2 atanh(s), s = (m - 1) / (m + 1), |s| < 0.1716.
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let mut p = 1.0 / 21.0;
    for k in [19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        p = p * z + 1.0 / k;
    }
    let y = (2.0 * s * p * std::f64::consts::LOG2_E + f64::from(exponent)) as f32;
    if x == 0.0 {
        f32::NEG_INFINITY
    } else if x < 0.0 {
        f32::NAN
    } else if x == f32::INFINITY || x.is_nan() {
        x
    } else {
        y
    }
}

/// 1 / x.
#[inline(always)]
pub(super) fn rcp(x: f32) -> f32 {
    let y = 1.0 / f32::from_bits(flush32(x.to_bits()));
    f32::from_bits(flush32(y.to_bits()))
}

/// 1 / sqrt(x).
#[inline(always)]
pub(super) fn rsq(x: f32) -> f32 {
    (1.0 / f64::from(f32::from_bits(flush32(x.to_bits()))).sqrt()) as f32
}

/// sqrt(x).
#[inline(always)]
pub(super) fn sqrt(x: f32) -> f32 {
    f32::from_bits(flush32(x.to_bits())).sqrt()
}

/// sin(2 pi x); zero beyond 256 turns, as AMD's manual says.
#[inline(always)]
pub(super) fn sin_turns(x: f32) -> f32 {
    let turns = f64::from(x);
    // Quarter-wave symmetry: r in [-1/4, 1/4] turns.
    let fraction = turns - turns.round_ties_even();
    let folded = if fraction > 0.25 {
        0.5 - fraction
    } else if fraction < -0.25 {
        -0.5 - fraction
    } else {
        fraction
    };
    finish_turns(x, sine(folded), 0.0)
}

/// cos(2 pi x); one beyond 256 turns.
#[inline(always)]
pub(super) fn cos_turns(x: f32) -> f32 {
    let turns = f64::from(x);
    let fraction = (turns - turns.round_ties_even()).abs();
    finish_turns(x, sine(0.25 - fraction), 1.0)
}

#[inline(always)]
fn finish_turns(x: f32, value: f64, far: f32) -> f32 {
    if x.is_nan() || x.is_infinite() {
        f32::NAN
    } else if x.abs() > 256.0 {
        far
    } else {
        value as f32
    }
}

/// sin(2 pi r) for |r| <= 1/4.
#[inline(always)]
fn sine(r: f64) -> f64 {
    let t = r * std::f64::consts::TAU;
    let z = t * t;
    let mut p = 1.0 / 355_687_428_096_000.0;
    for c in SINE {
        p = p * z + c;
    }
    p * t
}

/// Taylor coefficients of sin(t)/t in t², highest first, after 1/17!.
const SINE: [f64; 8] = [
    -1.0 / 1_307_674_368_000.0,
    1.0 / 6_227_020_800.0,
    -1.0 / 39_916_800.0,
    1.0 / 362_880.0,
    -1.0 / 5_040.0,
    1.0 / 120.0,
    -1.0 / 6.0,
    1.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance in units of the last place of the rounded reference.
    fn ulps(got: f32, exact: f64) -> f64 {
        let near = exact as f32;
        let ulp = f64::from(near.abs().next_up()) - f64::from(near.abs());
        (f64::from(got) - exact).abs() / ulp
    }

    #[test]
    fn exponential_is_correctly_rounded() {
        for k in -12500..12700 {
            let x = k as f32 / 100.0;
            assert!(ulps(exp2(x), f64::from(x).exp2()) < 0.5001, "exp2({x})");
        }
        assert_eq!(exp2(-127.0), 0.0);
        assert_eq!(exp2(128.0), f32::INFINITY);
        assert_eq!(exp2(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp2(f32::INFINITY), f32::INFINITY);
        assert!(exp2(f32::NAN).is_nan());
        assert_eq!(exp2(0.0), 1.0);
    }

    #[test]
    fn logarithm_is_correctly_rounded() {
        let mut x = 1.2e-38f32;
        while x < 3e38 {
            assert!(ulps(log2(x), f64::from(x).log2()) < 0.5001, "log2({x})");
            x *= 1.0173;
        }
        for x in [0.999_999_94f32, 1.000_000_1, 0.707, 1.414] {
            assert!(ulps(log2(x), f64::from(x).log2()) < 0.5001, "log2({x})");
        }
        assert_eq!(log2(1.0), 0.0);
        assert_eq!(log2(0.0), f32::NEG_INFINITY);
        assert_eq!(log2(1e-40), f32::NEG_INFINITY);
        assert!(log2(-1.0).is_nan());
        assert_eq!(log2(f32::INFINITY), f32::INFINITY);
    }

    #[test]
    fn circle_functions_count_in_turns() {
        for k in -2000..2000 {
            let x = k as f32 / 777.0;
            let angle = f64::from(x) * std::f64::consts::TAU;
            assert!((f64::from(sin_turns(x)) - angle.sin()).abs() < 6e-8, "sin({x})");
            assert!((f64::from(cos_turns(x)) - angle.cos()).abs() < 6e-8, "cos({x})");
        }
        assert_eq!(sin_turns(0.25), 1.0);
        assert_eq!(cos_turns(0.5), -1.0);
        assert_eq!(sin_turns(1e9), 0.0);
        assert!(cos_turns(f32::INFINITY).is_nan());
    }

    #[test]
    fn reciprocals_flush_denormals() {
        assert_eq!(rcp(3.0), 1.0 / 3.0);
        assert_eq!(rcp(1e-40), f32::INFINITY);
        assert_eq!(rcp(2e38), 0.0);
        assert_eq!(rsq(4.0), 0.5);
        assert_eq!(rsq(0.0), f32::INFINITY);
        assert!(rsq(-1.0).is_nan());
        assert_eq!(sqrt(2.0), std::f32::consts::SQRT_2);
    }
}
