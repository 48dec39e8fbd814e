//! Choosing a token from logits: the algorithm of [`shared::sampling`], which GPUs compute alike.
//!
//! Greedy takes the largest logit, the lowest id among equals.

use shared::sampling::{BINS, DIGIT_BITS, Draw, MAX_RANK, rank, weight};

use crate::engine::Sampling;

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

    /// How the token at `position` is drawn.
    pub fn draw(&self, position: u32) -> Draw {
        Draw::new(self.temperature, self.top_p, self.seed, position)
    }
}

/// The token for `position` (counted from the sequence's first token) given `logits` over the
/// vocabulary.
pub fn sample(logits: &[f32], sampling: &Sampling, position: u32) -> Result<u32, SamplingError> {
    let best = argmax(logits)?;
    let draw = sampling.draw(position);
    if draw.is_greedy() {
        return Ok(best as u32);
    }
    let max = logits[best];
    let tokens: Vec<Token> = logits.iter().map(|&x| Token::at(draw.distance(max, x))).collect();
    let nucleus = nucleus(&tokens, draw);
    let target = draw.target(nucleus.mass);
    let mut sum = 0;
    for (id, token) in tokens.iter().enumerate() {
        if nucleus.holds(id, token.rank) {
            sum += token.weight;
            if sum >= target {
                return Ok(id as u32);
            }
        }
    }
    unreachable!("the target is at most the mass of the nucleus")
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

/// What the choice depends on.
#[derive(Clone, Copy, Debug)]
struct Token {
    rank: u32,
    weight: u64,
}

impl Token {
    fn at(distance: f32) -> Token {
        Token { rank: rank(distance), weight: weight(distance) }
    }
}

/// Which tokens may be drawn.
#[derive(Debug, PartialEq)]
struct Nucleus {
    /// Lower ranks are in, higher ones out.
    rank: u32,
    /// Of those that have exactly `rank`, ids up to this one are in.
    last: usize,
    /// What they weigh together.
    mass: u64,
}

impl Nucleus {
    fn holds(&self, id: usize, rank: u32) -> bool {
        rank < self.rank || (rank == self.rank && id <= self.last)
    }
}

/// Finds where the nucleus ends, one digit of the rank after the other.
fn nucleus(tokens: &[Token], draw: Draw) -> Nucleus {
    let total: u64 = tokens.iter().map(|token| token.weight).sum();
    if draw.share == 0 {
        return Nucleus { rank: MAX_RANK, last: tokens.len(), mass: total };
    }
    let needed = draw.needed(total);
    let (high, missing) = digit(tokens, needed, |rank| Some(rank >> DIGIT_BITS));
    let low = |rank: u32| (rank >> DIGIT_BITS == high).then_some(rank % BINS);
    let (low, missing) = digit(tokens, missing, low);
    let rank = high << DIGIT_BITS | low;
    let (mut last, mut taken) = (0, 0);
    for (id, token) in tokens.iter().enumerate().filter(|(_, token)| token.rank == rank) {
        if taken >= missing {
            break;
        }
        (last, taken) = (id, taken + token.weight);
    }
    Nucleus { rank, last, mass: needed - missing + taken }
}

/// The bin at which the running sum of weights reaches `missing`, and what is then still missing
/// of it. `bin_of` gives the bin of a rank, for tokens that count.
fn digit(tokens: &[Token], missing: u64, bin_of: impl Fn(u32) -> Option<u32>) -> (u32, u64) {
    let mut bins = vec![0u64; BINS as usize];
    for token in tokens {
        if let Some(bin) = bin_of(token.rank) {
            bins[bin as usize] += token.weight;
        }
    }
    let mut missing = missing;
    for (bin, sum) in (0..).zip(bins) {
        if sum >= missing {
            return (bin, missing);
        }
        missing -= sum;
    }
    unreachable!("all bins together weigh at least what is missing")
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
        const DRAWS: u32 = 8000;
        for i in 0..DRAWS {
            counts[sample(&logits, &sampling(u64::from(i % 8)), i / 8).unwrap() as usize] += 1;
        }
        for (count, share) in counts.into_iter().zip([0.125, 0.25, 0.625]) {
            let expected = f64::from(DRAWS) * share;
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
        /// The search by digits against sorting.
        #[test]
        fn nucleus_is_the_shortest_prefix(
            mut logits in prop::collection::vec(-12i32..0, 1..40),
            top_p in 0.001f32..0.999,
            scale in prop::sample::select(vec![1.0f32, 1e-5, 3e-4, 0.1]),
        ) {
            logits.push(0);
            let tokens: Vec<Token> =
                logits.iter().map(|&x| Token::at(-x as f32 * scale)).collect();
            let draw = Draw::new(1.0, top_p, 0, 0);
            let needed = draw.needed(tokens.iter().map(|token| token.weight).sum());
            let mut order: Vec<usize> = (0..tokens.len()).collect();
            order.sort_by_key(|&i| (tokens[i].rank, i));
            let mut mass = 0;
            let mut kept = Vec::new();
            for i in order {
                if mass >= needed { break; }
                mass += tokens[i].weight;
                kept.push(i);
            }
            kept.sort_unstable();
            let found = nucleus(&tokens, draw);
            let held: Vec<usize> =
                (0..tokens.len()).filter(|&i| found.holds(i, tokens[i].rank)).collect();
            prop_assert_eq!(held, kept);
            prop_assert_eq!(found.mass, mass);
        }

        #[test]
        fn equal_logits_are_cut_by_id(count in 1usize..50, top_p in 0.01f32..0.99) {
            let one = Token::at(0.0).weight;
            let draw = Draw::new(1.0, top_p, 0, 0);
            let found = nucleus(&vec![Token::at(0.0); count], draw);
            let taken = draw.needed(one * count as u64).div_ceil(one);
            prop_assert_eq!(found, Nucleus {
                rank: 0,
                last: taken as usize - 1,
                mass: taken * one,
            });
        }
    }
}
