//! Attention with a sink in f64, with the bound on what the kernels' roundings may do to it.

use crate::basics::{Expected, FLUSHED, INSTRUCTION, SECOND_ORDER, U, half_ulp_bf16};

/// Half a unit in the last place of a bf16, relative: what rounding probabilities costs.
const BF16: f64 = 1.0 / 256.0;

/// What one query sees: a row of `d` exact values per position.
pub struct Seen<'a> {
    /// Keys.
    pub keys: Vec<&'a [f64]>,
    /// Values.
    pub values: Vec<&'a [f64]>,
}

/// `sum_t p_t v_t` rounded to bf16, `p_t = 2^(scale q·k_t) / (e^sink + sum 2^(scale q·k_u))`.
///
/// The kernels sum keys by splits of `split`, each of which may move the maximum: a weight goes
/// through at most two exponentials and products per split, whose exponents telescope.
pub fn attend(q: &[f64], seen: &Seen<'_>, sink: f32, scale: f32, split: usize) -> Vec<Expected> {
    let scale = f64::from(scale);
    let dot = |k: &[f64]| q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>();
    let magnitude = |k: &[f64]| q.iter().zip(k).map(|(a, b)| (a * b).abs()).sum::<f64>();
    let scores: Vec<f64> = seen.keys.iter().map(|k| scale * dot(k)).collect();
    let sink = f64::from(sink) * std::f64::consts::LOG2_E;
    let top = scores.iter().fold(sink, |m, &s| m.max(s));
    let low = scores.iter().fold(sink, |m, &s| m.min(s));
    let splits = (seen.keys.len() / split + 2) as f64;
    // Exponents move by no more than the range of the scores in all, up and down.
    let moved = std::f64::consts::LN_2 * 2.0 * (top - low) * U;
    let steps = 2.0 * splits * (INSTRUCTION + 2.0) * U + moved;
    let relative: Vec<f64> = seen
        .keys
        .iter()
        .zip(&scores)
        .map(|(k, s)| {
            let score = 2.0 * q.len() as f64 * U * magnitude(k) * scale + U * s.abs();
            std::f64::consts::LN_2 * score + steps
        })
        .collect();
    let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp2()).collect();
    let sink_weight = (sink - top).exp2();
    let sum = weights.iter().sum::<f64>() + sink_weight;
    let terms = seen.keys.len() as f64 + 2.0 * splits;
    let sink_error = std::f64::consts::LN_2 * 2.0 * U * sink.abs() + steps;
    let sum_error = weights.iter().zip(&relative).map(|(w, r)| w * r).sum::<f64>() / sum
        + sink_weight / sum * sink_error
        + (terms + 2.0 * INSTRUCTION + 4.0) * U;
    let one = |i: usize| {
        let column = || seen.values.iter().map(|v| v[i]);
        let value = weights.iter().zip(column()).map(|(w, v)| w * v).sum::<f64>() / sum;
        let terms = weights.iter().zip(&relative).zip(column());
        let error = terms.map(|((w, r), v)| w * v.abs() * (BF16 + r + 2.0 * terms_u(seen)));
        let flushed = column().map(|v| v.abs() * FLUSHED).sum::<f64>();
        let before = SECOND_ORDER * (error.sum::<f64>() / sum + value.abs() * sum_error) + flushed;
        Expected { value, bound: before + half_ulp_bf16(value.abs() + before) }
    };
    (0..q.len()).map(one).collect()
}

/// The chains over keys of the second product, in units of 1.
fn terms_u(seen: &Seen<'_>) -> f64 {
    seen.keys.len().next_multiple_of(32) as f64 * U
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_equal_to_the_only_score_halves_the_value() {
        let seen = Seen { keys: vec![&[0.0]], values: vec![&[3.0]] };
        let [out] = attend(&[1.0], &seen, 0.0, 1.0, 128)[..] else { panic!("one element") };
        assert!((out.value - 1.5).abs() < 1e-12 && out.bound < 0.02, "{out:?}");
    }
}
