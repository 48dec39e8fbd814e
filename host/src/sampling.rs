//! Choosing a token from logits: the same algorithm on every device, bit for bit.
//!
//! Greedy takes the largest logit, the lowest id among equals. Otherwise, with `m` the largest
//! logit and `T` the temperature:
//!
//! 1. Token `i` weighs `q[i] = trunc(exp((logit[i] - m) / T) * 2^40)`, with [`shared::exp::exp`];
//!    the subtraction and the division are single f32 operations. Weights are integers, so their
//!    sums are exact and no order of summation can change them.
//! 2. Order tokens by weight, heaviest first, the lower id first among equals. The nucleus is
//!    the shortest prefix that weighs at least `max(1, ceil(top_p * sum(q)))`, the product taken
//!    in f64. With `top_p` 1 it is every token.
//! 3. With `kept` the weight of the nucleus and `r` = [`shared::philox::token_bits`] of the seed
//!    and of the position of the new token, the target is `floor(r * kept / 2^64)`, and the token
//!    is the first of the nucleus, in order of ids, at which the running sum exceeds the target.

use crate::engine::Sampling;

const WEIGHT_ONE: f32 = (1u64 << 40) as f32;

/// What cannot be sampled from.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// NaN or infinite.
    #[error("the logit of token {token} is {value}, expected a finite number")]
    NotFinite {
        /// Token id.
        token: usize,
        /// Its logit.
        value: f32,
    },
    /// There is nothing to choose from.
    #[error("no logits")]
    Empty,
}

impl Sampling {
    /// Says in one line what is wrong with these parameters, if anything is.
    pub fn check(&self) -> Result<(), String> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(format!(
                "temperature is {}, expected a finite number of at least 0",
                self.temperature
            ));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(format!("top_p is {}, expected more than 0 and at most 1", self.top_p));
        }
        Ok(())
    }
}

/// The token for `position` (counted from the sequence's first token) given `logits` over the
/// vocabulary.
pub fn sample(logits: &[f32], sampling: &Sampling, position: u64) -> Result<u32, SamplingError> {
    let best = argmax(logits)?;
    if sampling.temperature == 0.0 {
        return Ok(best as u32);
    }
    let max = logits[best];
    let weight = |x: f32| (shared::exp::exp((x - max) / sampling.temperature) * WEIGHT_ONE) as u64;
    let weights: Vec<u64> = logits.iter().map(|&x| weight(x)).collect();
    let nucleus = nucleus(&weights, sampling.top_p);
    let random = u128::from(shared::philox::token_bits(sampling.seed, position));
    let target = ((random * u128::from(nucleus.mass)) >> 64) as u64;
    let mut sum = 0;
    for (id, &weight) in weights.iter().enumerate() {
        if nucleus.holds(id, weight) {
            sum += weight;
            if sum > target {
                return Ok(id as u32);
            }
        }
    }
    unreachable!("the target is below the mass of the nucleus")
}

/// The largest logit's index, the lowest among equals; an error if any is not finite.
pub fn argmax(logits: &[f32]) -> Result<usize, SamplingError> {
    let mut best = None;
    for (token, &value) in logits.iter().enumerate() {
        if !value.is_finite() {
            return Err(SamplingError::NotFinite { token, value });
        }
        if best.is_none_or(|b: usize| value > logits[b]) {
            best = Some(token);
        }
    }
    best.ok_or(SamplingError::Empty)
}

/// Which tokens may be drawn.
#[derive(Debug, PartialEq)]
struct Nucleus {
    /// Heavier tokens are in, lighter ones out.
    cut: u64,
    /// Of those that weigh exactly `cut`, ids up to this one are in.
    last: usize,
    /// What they weigh together.
    mass: u64,
}

impl Nucleus {
    fn holds(&self, id: usize, weight: u64) -> bool {
        weight > self.cut || (weight == self.cut && id <= self.last)
    }
}

/// Finds the cut from the highest bit down: of the tokens still undecided, those with the bit set
/// are the heavier ones.
fn nucleus(weights: &[u64], top_p: f32) -> Nucleus {
    let total: u64 = weights.iter().sum();
    if top_p >= 1.0 {
        return Nucleus { cut: 0, last: weights.len(), mass: total };
    }
    let needed = ((f64::from(top_p) * total as f64).ceil() as u64).clamp(1, total);
    let mut missing = needed;
    let mut undecided: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0).collect();
    for bit in (0..=40).rev() {
        let is_set = |&i: &usize| weights[i] >> bit & 1 == 1;
        let heavier: u64 = undecided.iter().filter(|&i| is_set(i)).map(|&i| weights[i]).sum();
        if heavier >= missing {
            undecided.retain(is_set);
        } else {
            missing -= heavier;
            undecided.retain(|i| !is_set(i));
        }
    }
    // What is left weighs the same: the cut.
    let cut = weights[undecided[0]];
    let taken = missing.div_ceil(cut);
    let last = undecided[taken as usize - 1];
    Nucleus { cut, last, mass: needed - missing + taken * cut }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn greedy_takes_the_lowest_of_equals() {
        assert_eq!(sample(&[1.0, 3.0, 3.0, 2.0], &Sampling::GREEDY, 0), Ok(1));
        assert_eq!(sample(&[-0.0, 0.0], &Sampling::GREEDY, 0), Ok(0));
    }

    #[test]
    fn what_is_not_finite_is_named() {
        for value in [f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(
                sample(&[0.0, value], &Sampling::GREEDY, 0),
                Err(SamplingError::NotFinite { token: 1, value })
            );
        }
        let error = sample(&[f32::NAN, 0.0], &Sampling::GREEDY, 0).unwrap_err();
        assert_eq!(error.to_string(), "the logit of token 0 is NaN, expected a finite number");
        assert_eq!(sample(&[], &Sampling::GREEDY, 0), Err(SamplingError::Empty));
    }

    #[test]
    fn bad_parameters_are_refused() {
        for (temperature, top_p) in [
            (-1.0, 1.0),
            (f32::NAN, 1.0),
            (f32::INFINITY, 1.0),
            (1.0, 0.0),
            (1.0, 1.1),
            (1.0, f32::NAN),
        ] {
            assert!(Sampling { temperature, top_p, seed: 0 }.check().is_err());
        }
        assert!(Sampling { temperature: 0.7, top_p: 0.9, seed: 0 }.check().is_ok());
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let logits = [0.0f32, 2.0f32.ln(), f32::ln(5.0)];
        let sampling = |seed| Sampling { temperature: 1.0, top_p: 1.0, seed };
        let mut counts = [0u32; 3];
        const DRAWS: u64 = 8000;
        for i in 0..DRAWS {
            counts[sample(&logits, &sampling(i % 8), i / 8).unwrap() as usize] += 1;
        }
        for (count, share) in counts.into_iter().zip([0.125, 0.25, 0.625]) {
            let expected = DRAWS as f64 * share;
            // Five standard deviations; the draws are fixed, so this cannot flicker.
            let bound = 5.0 * (expected * (1.0 - share)).sqrt();
            assert!((f64::from(count) - expected).abs() < bound, "{counts:?}");
        }
    }

    #[test]
    fn a_tiny_top_p_is_greedy() {
        let logits = [0.1, 0.3, 0.2, 0.3];
        for seed in 0..64 {
            let sampling = Sampling { temperature: 1.0, top_p: 1e-6, seed };
            assert_eq!(sample(&logits, &sampling, 5), Ok(1));
        }
    }

    proptest! {
        /// The radix search against sorting.
        #[test]
        fn nucleus_is_the_shortest_prefix(
            mut weights in prop::collection::vec(0u64..50, 1..40),
            top_p in 0.001f32..0.999,
        ) {
            weights.push(50);
            let total: u64 = weights.iter().sum();
            let needed = ((f64::from(top_p) * total as f64).ceil() as u64).max(1);
            let mut order: Vec<usize> = (0..weights.len()).collect();
            order.sort_by_key(|&i| (std::cmp::Reverse(weights[i]), i));
            let mut mass = 0;
            let mut kept = Vec::new();
            for i in order {
                if mass >= needed { break; }
                mass += weights[i];
                kept.push(i);
            }
            kept.sort_unstable();
            let found = nucleus(&weights, top_p);
            let held: Vec<usize> =
                (0..weights.len()).filter(|&i| found.holds(i, weights[i])).collect();
            prop_assert_eq!(held, kept);
            prop_assert_eq!(found.mass, mass);
        }

        #[test]
        fn equal_weights_are_cut_by_id(count in 1usize..50, top_p in 0.01f32..0.99) {
            let found = nucleus(&vec![7; count], top_p);
            let needed = (f64::from(top_p) * (7 * count) as f64).ceil() as u64;
            prop_assert_eq!(found, Nucleus {
                cut: 7,
                last: needed.div_ceil(7) as usize - 1,
                mass: needed.div_ceil(7) * 7,
            });
        }
    }
}
