//! e^x in f32 from plain multiplications and additions.
//!
//! Every engine uses this one, so that a result depends on neither the vector width, the C
//! library nor the device. It must be compiled without contraction into fused multiply-adds,
//! which is how rustc compiles it everywhere.

/// `1.5 * 2^23`: adding it leaves the nearest integer in the low mantissa bits.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts; the first has 9 trailing zero bits, so that `n * LN2_HIGH` is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// e^x within 2 units in the last place; 0 and infinity beyond the range, NaN for NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Comparisons rather than min and max: those lose a NaN.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.5 { -104.5 } else { x };
    let shifted = x * core::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    // Minimax polynomial of (e^r - 1 - r) / r^2 on [-ln 2 / 2, ln 2 / 2], as in Cephes expf.
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let y = p * (r * r) + r + 1.0;
    // 2^n as two factors, each a normal number: n reaches -151 and 128.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    y * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::exp;

    #[test]
    fn two_units_in_the_last_place() {
        for i in -1_040_000..=887_000 {
            let x = i as f32 * 1e-4;
            let exact = (x as f64).exp();
            let unit = f64::max(exact * f64::from(f32::EPSILON), f64::powi(2.0, -149));
            let error = (f64::from(exp(x)) - exact).abs();
            assert!(error <= 2.0 * unit, "exp({x}) = {:e}, expected {exact:e}", exp(x));
        }
    }

    #[test]
    fn edges() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(1e30), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }
}
