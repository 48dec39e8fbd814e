//! The small kernels in f64, each with the bound on what rounding may do to it.
//!
//! A bound counts the roundings of the kernel's documented order, each at most [`U`] relative, and
//! the error its hardware instructions are specified with on the worst of the chips: 4 U for
//! exponential, reciprocal and reciprocal square root (AMD: 1 ulp; NVIDIA: 2^-22.5, 1 ulp,
//! 2^-22.9).

/// Half a unit in the last place of an f32, relative.
pub const U: f64 = 1.0 / (1 << 24) as f64;
/// The error of an approximating instruction, in units of [`U`].
pub(crate) const INSTRUCTION: f64 = 4.0;
/// Room for the second-order terms that the bounds leave out.
pub(crate) const SECOND_ORDER: f64 = 1.01;
/// Results below the smallest normal f32 may be flushed to zero.
pub(crate) const FLUSHED: f64 = f32::MIN_POSITIVE as f64;

/// A value and how far a kernel's may be from it.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The exact value.
    pub value: f64,
    /// The largest error.
    pub bound: f64,
}

/// Half a unit in the last place of the bf16 next to `x`.
pub fn half_ulp_bf16(x: f64) -> f64 {
    let exponent = x.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor();
    exponent.exp2() * (1.0 / 256.0)
}

/// `y + a * x`, one rounding.
pub fn axpy(a: f32, x: &[f32], y: &[f32]) -> Vec<Expected> {
    let one = |(&x, &y): (&f32, &f32)| {
        let value = f64::from(a) * f64::from(x) + f64::from(y);
        Expected { value, bound: SECOND_ORDER * U * value.abs() + FLUSHED }
    };
    x.iter().zip(y).map(one).collect()
}

/// Roundings of a sum that `threads` threads take in turns and then add in a tree.
fn sum_roundings(n: usize, threads: usize) -> f64 {
    (n.div_ceil(threads) + threads.ilog2() as usize) as f64
}

/// One row of RMSNorm, rounded to bf16; `weight` is exact.
pub fn rmsnorm_bf16(x: &[f32], weight: &[f64], eps: f32, threads: usize) -> Vec<Expected> {
    let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (mean + f64::from(eps)).sqrt();
    // The square root halves what the sum, the division and the addition of eps did; the
    // instruction and two products follow.
    let relative = 0.5 * (sum_roundings(x.len(), threads) + 2.0) + INSTRUCTION + 2.0;
    let one = |(&x, &weight): (&f32, &f64)| {
        let value = f64::from(x) * scale * weight;
        let before = SECOND_ORDER * relative * U * value.abs();
        Expected { value, bound: before + half_ulp_bf16(value.abs() + before) }
    };
    x.iter().zip(weight).map(one).collect()
}

/// One row of softmax.
pub fn softmax(x: &[f32], threads: usize) -> Vec<Expected> {
    let largest = x.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(f64::from(x)));
    // exp(-d): the difference, log2(e) and their product are each rounded, which moves the
    // exponent by d U each; then the instruction.
    let exp_error = |d: f64| 3.0 * d + INSTRUCTION;
    let terms: Vec<(f64, f64)> = x
        .iter()
        .map(|&x| {
            let d = largest - f64::from(x);
            ((-d).exp(), exp_error(d))
        })
        .collect();
    let sum: f64 = terms.iter().map(|(e, _)| e).sum();
    let weighted: f64 = terms.iter().map(|(e, error)| if *e > 0.0 { e * error } else { 0.0 }).sum();
    let sum_error = weighted / sum + sum_roundings(x.len(), threads);
    let one = |&(e, error): &(f64, f64)| {
        let value = e / sum;
        // The reciprocal of the sum, and the product with it.
        let relative = if e > 0.0 { error + sum_error + INSTRUCTION + 1.0 } else { 0.0 };
        Expected { value, bound: SECOND_ORDER * relative * U * value + 2.0 * FLUSHED }
    };
    terms.iter().map(one).collect()
}

/// `a[m, k] * b[n, k]^T` of bf16 values given exactly: products are exact in f32, and no order of
/// the sum is documented for AMD's matrix instruction, so twice the textbook bound.
pub fn product(a: &[f64], b: &[f64], [m, n, k]: [usize; 3]) -> Vec<Expected> {
    let cells = (0..m).flat_map(|row| (0..n).map(move |col| (row, col)));
    let one = |(row, col): (usize, usize)| {
        let pairs = || a[row * k..][..k].iter().zip(&b[col * k..][..k]);
        let value = pairs().map(|(a, b)| a * b).sum();
        let magnitude: f64 = pairs().map(|(a, b)| (a * b).abs()).sum();
        Expected { value, bound: 2.0 * k as f64 * U * magnitude }
    };
    cells.map(one).collect()
}

/// Panics at the first value outside its bound; a NaN or an infinity always is. `at` names an
/// index.
#[track_caller]
pub fn assert_close(case: &str, got: &[f32], expected: &[Expected]) {
    assert_eq!(got.len(), expected.len(), "{case}: number of results");
    for (i, (&got, &Expected { value, bound })) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(got) - value).abs();
        assert!(
            got.is_finite() && error <= bound,
            "{case}[{i}]: got {got:e}, expected {value:e}: off by {error:.3e}, bound {bound:.3e}"
        );
    }
}

/// Panics at the first element whose bits differ.
#[track_caller]
pub fn assert_same_bits(case: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{case}: number of results");
    let differ = got.iter().zip(expected).position(|(a, b)| a.to_bits() != b.to_bits());
    if let Some(i) = differ {
        panic!("{case}[{i}]: got {:e}, expected {:e}", got[i], expected[i]);
    }
}

/// Panics unless `spoiled`, computed from inputs of which one is not finite, is not finite exactly
/// where `reached` says so, and has the bits of `clean` everywhere else.
#[track_caller]
pub fn assert_reaches(case: &str, clean: &[f32], spoiled: &[f32], reached: impl Fn(usize) -> bool) {
    assert_eq!(spoiled.len(), clean.len(), "{case}: number of results");
    assert!((0..clean.len()).any(&reached), "{case}: nothing is to be reached");
    for (i, (&clean, &spoiled)) in clean.iter().zip(spoiled).enumerate() {
        if reached(i) {
            assert!(!spoiled.is_finite(), "{case}[{i}] is {spoiled}: what was not finite is lost");
        } else {
            let same = clean.to_bits() == spoiled.to_bits();
            assert!(same, "{case}[{i}]: got {spoiled:e} beside what is not finite, not {clean:e}");
        }
    }
}

/// A head rotated by `angles` (cosines, then sines) and rounded to bf16: two products and their
/// sum, each rounded.
pub fn rotated(head: &[f32], angles: &[f32]) -> Vec<Expected> {
    let half = head.len() / 2;
    let one = |i: usize| {
        let (cos, sin) = (f64::from(angles[i % half]), f64::from(angles[half + i % half]));
        let (same, other) = (f64::from(head[i]), f64::from(head[(i + half) % head.len()]));
        let terms = [same * cos, if i < half { -other * sin } else { other * sin }];
        let value = terms[0] + terms[1];
        let before = SECOND_ORDER * U * (terms[0].abs() + terms[1].abs() + value.abs());
        Expected { value, bound: before + half_ulp_bf16(value.abs() + before) }
    };
    (0..head.len()).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_catches_an_error_of_one_ulp_and_a_nan() {
        let expected = axpy(2.0, &[1.5], &[0.25]);
        assert_close("exact", &[3.25], &expected);
        for wrong in [3.25 + 4.0 * f32::EPSILON, f32::NAN, f32::INFINITY] {
            let caught = std::panic::catch_unwind(|| assert_close("wrong", &[wrong], &expected));
            assert!(caught.is_err(), "{wrong} passed");
        }
    }

    #[test]
    fn half_an_ulp_of_bf16() {
        assert_eq!(half_ulp_bf16(1.0), 1.0 / 256.0);
        assert_eq!(half_ulp_bf16(1.99), 1.0 / 256.0);
        assert_eq!(half_ulp_bf16(-2.0), 2.0 / 256.0);
    }

    #[test]
    fn softmax_sums_to_one() {
        let total: f64 = softmax(&[0.0, -1.0, 5.0, -300.0], 256).iter().map(|e| e.value).sum();
        assert!((total - 1.0).abs() < 1e-15, "{total}");
    }
}
