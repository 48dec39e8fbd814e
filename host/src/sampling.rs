//! Choosing a token from logits: the algorithm of [`shared::sampling`], which GPUs compute alike.
//!
//! Greedy takes the largest logit, the lowest id among equals.

use shared::sampling::{BINS, DIGIT_BITS, Draw, MAX_RANK, rank, weight};

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy: the largest logit, the lowest id among equals.
    pub temperature: f32,
    /// Nucleus mass, in (0, 1]; 1 keeps every token.
    pub top_p: f32,
    /// The most tokens that are kept, the likeliest; 0 keeps every token.
    pub top_k: u32,
    /// Least probability of a kept token as a share of the likeliest one's, in [0, 1); 0 keeps
    /// every token.
    pub min_p: f32,
    /// With the position it fixes the random number: the same seed gives the same text whatever
    /// the batch.
    pub seed: u64,
}

impl Sampling {
    /// The largest logit.
    pub const GREEDY: Sampling =
        Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 0 };
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling::GREEDY
    }
}

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
        if !(0.0..1.0).contains(&self.min_p) {
            return Err(format!("min_p is {}, expected at least 0 and less than 1", self.min_p));
        }
        Ok(())
    }

    /// How the token at `position` is drawn.
    pub fn draw(&self, position: u32) -> Draw {
        let Sampling { temperature, top_p, top_k, min_p, seed } = *self;
        Draw::new(temperature, top_p, seed, position).limited(top_k, min_p)
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
    let kept = kept(&tokens, draw);
    let target = draw.target(mass(&tokens, kept));
    let mut sum = 0;
    for (id, token) in (0..).zip(&tokens) {
        if kept.holds(id, token.rank) {
            sum += token.weight;
            if sum >= target {
                return Ok(id);
            }
        }
    }
    unreachable!("the target is at most the mass of what is kept")
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

/// A prefix of the order of tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Prefix {
    /// Lower ranks are in, higher ones out.
    rank: u32,
    /// Of those that have exactly `rank`, ids up to this one are in.
    last: u32,
}

impl Prefix {
    const ALL: Prefix = Prefix { rank: MAX_RANK, last: u32::MAX };

    fn holds(self, id: u32, rank: u32) -> bool {
        rank < self.rank || (rank == self.rank && id <= self.last)
    }
}

/// What a prefix weighs.
fn mass(tokens: &[Token], prefix: Prefix) -> u64 {
    let held = (0..).zip(tokens).filter(|&(id, token)| prefix.holds(id, token.rank));
    held.map(|(_, token)| token.weight).sum()
}

/// What may be drawn.
fn kept(tokens: &[Token], draw: Draw) -> Prefix {
    let mut kept = Prefix::ALL;
    if (1..tokens.len()).contains(&(draw.top_k as usize)) {
        kept = shortest(tokens, draw.top_k.into(), |_| 1);
    }
    if draw.share != 0 {
        let needed = draw.needed(mass(tokens, kept));
        kept = shortest(tokens, needed, |token| token.weight);
    }
    if draw.last_rank < kept.rank {
        kept = Prefix { rank: draw.last_rank, last: u32::MAX };
    }
    kept
}

/// The shortest prefix that `measure`s at least `needed`, one digit of the rank after the other.
fn shortest(tokens: &[Token], needed: u64, measure: impl Fn(&Token) -> u64) -> Prefix {
    let (high, missing) = digit(tokens, needed, |rank| Some(rank >> DIGIT_BITS), &measure);
    let low = |rank: u32| (rank >> DIGIT_BITS == high).then_some(rank % BINS);
    let (low, missing) = digit(tokens, missing, low, &measure);
    let rank = high << DIGIT_BITS | low;
    let (mut last, mut taken) = (0, 0);
    for (id, token) in (0..).zip(tokens).filter(|(_, token)| token.rank == rank) {
        if taken >= missing {
            break;
        }
        (last, taken) = (id, taken + measure(token));
    }
    Prefix { rank, last }
}

/// The bin at which the running sum of `measure` reaches `missing`, and what is then still missing
/// of it. `bin_of` gives the bin of a rank, for tokens that count.
fn digit(
    tokens: &[Token],
    missing: u64,
    bin_of: impl Fn(u32) -> Option<u32>,
    measure: impl Fn(&Token) -> u64,
) -> (u32, u64) {
    let mut bins = vec![0u64; BINS as usize];
    for token in tokens {
        if let Some(bin) = bin_of(token.rank) {
            bins[bin as usize] += measure(token);
        }
    }
    let mut missing = missing;
    for (bin, sum) in (0..).zip(bins) {
        if sum >= missing {
            return (bin, missing);
        }
        missing -= sum;
    }
    unreachable!("all bins together measure at least what is missing")
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
            assert!(Sampling { temperature, top_p, ..Sampling::GREEDY }.check().is_err());
        }
        for min_p in [-0.1, 1.0, f32::NAN, f32::INFINITY] {
            let error = Sampling { min_p, ..Sampling::GREEDY }.check().unwrap_err();
            assert!(error.starts_with(&format!("min_p is {min_p}, expected")), "{error}");
        }
        let good = Sampling { temperature: 0.7, top_p: 0.9, top_k: u32::MAX, min_p: 0.1, seed: 0 };
        assert!(good.check().is_ok());
    }

    /// Draws at temperature 1 from three tokens of 1, 2 and 5 eighths, and what is to be expected.
    fn assert_frequencies(limits: Sampling, shares: [f64; 3]) {
        let logits = [0.0f32, 2.0f32.ln(), f32::ln(5.0)];
        let sampling = |seed| Sampling { temperature: 1.0, seed, ..limits };
        let mut counts = [0u32; 3];
        const DRAWS: u32 = 8000;
        for i in 0..DRAWS {
            counts[sample(&logits, &sampling(u64::from(i % 8)), i / 8).unwrap() as usize] += 1;
        }
        for (count, share) in counts.into_iter().zip(shares) {
            let expected = f64::from(DRAWS) * share;
            // Five standard deviations; the draws are fixed, so this cannot flicker.
            let bound = 5.0 * (expected * (1.0 - share)).sqrt();
            assert!((f64::from(count) - expected).abs() <= bound, "{limits:?}: {counts:?}");
        }
    }

    #[test]
    fn frequencies_follow_the_softmax_of_what_is_kept() {
        const ALL: Sampling = Sampling::GREEDY;
        const TWO: [f64; 3] = [0.0, 2.0 / 7.0, 5.0 / 7.0];
        const ONE: [f64; 3] = [0.0, 0.0, 1.0];
        assert_frequencies(ALL, [0.125, 0.25, 0.625]);
        assert_frequencies(Sampling { top_k: 2, ..ALL }, TWO);
        assert_frequencies(Sampling { top_k: 1, ..ALL }, ONE);
        assert_frequencies(Sampling { top_k: 3, ..ALL }, [0.125, 0.25, 0.625]);
        assert_frequencies(Sampling { min_p: 0.39, ..ALL }, TWO);
        assert_frequencies(Sampling { min_p: 0.41, ..ALL }, ONE);
        assert_frequencies(Sampling { min_p: 0.19, ..ALL }, [0.125, 0.25, 0.625]);
        // Of the two likeliest, the first alone is 5/7 = 0.714; of all three it is 0.625.
        assert_frequencies(Sampling { top_k: 2, top_p: 0.7, ..ALL }, ONE);
        assert_frequencies(Sampling { top_p: 0.7, ..ALL }, TWO);
        // Each limit takes from what the one before has left.
        assert_frequencies(Sampling { top_k: 2, top_p: 0.72, min_p: 0.41, ..ALL }, ONE);
        assert_frequencies(Sampling { top_k: 2, top_p: 0.72, min_p: 0.39, ..ALL }, TWO);
    }

    #[test]
    fn a_tiny_top_p_is_greedy() {
        let logits = [0.1, 0.3, 0.2, 0.3];
        for seed in 0..64 {
            let sampling = Sampling { temperature: 1.0, top_p: 1e-6, seed, ..Sampling::GREEDY };
            assert_eq!(sample(&logits, &sampling, 5), Ok(1));
        }
    }

    proptest! {
        /// The search by digits against sorting.
        #[test]
        fn what_is_kept_is_a_prefix_of_the_order(
            mut logits in prop::collection::vec(-12i32..0, 1..40),
            top_p in prop::option::of(0.001f32..0.999),
            top_k in 0u32..45,
            min_p in prop::option::of(0.0f32..0.999),
            scale in prop::sample::select(vec![1.0f32, 1e-5, 3e-4, 0.1, 5.0]),
        ) {
            logits.push(0);
            let tokens: Vec<Token> =
                logits.iter().map(|&x| Token::at(-x as f32 * scale)).collect();
            let draw = Draw::new(1.0, top_p.unwrap_or(1.0), 0, 0)
                .limited(top_k, min_p.unwrap_or(0.0));
            let mut order: Vec<usize> = (0..tokens.len()).collect();
            order.sort_by_key(|&i| (tokens[i].rank, i));
            if top_k > 0 {
                order.truncate(top_k as usize);
            }
            if top_p.is_some() {
                let needed = draw.needed(order.iter().map(|&i| tokens[i].weight).sum());
                let mut before = 0;
                order.retain(|&i| {
                    let kept = before < needed;
                    before += tokens[i].weight;
                    kept
                });
            }
            order.retain(|&i| tokens[i].rank <= draw.last_rank);
            order.sort_unstable();
            let found = kept(&tokens, draw);
            let held: Vec<usize> =
                (0..tokens.len()).filter(|&i| found.holds(i as u32, tokens[i].rank)).collect();
            let weighs: u64 = order.iter().map(|&i| tokens[i].weight).sum();
            prop_assert_eq!(mass(&tokens, found), weighs);
            prop_assert_eq!(held, order);
        }

        /// `min_p` by ranks against its definition by weights.
        #[test]
        fn min_p_keeps_what_weighs_enough(distance in 0.0f32..12.0, min_p in 0.00001f32..0.999) {
            let limit = Draw::new(1.0, 1.0, 0, 0).limited(0, min_p).last_rank;
            let token = Token::at(distance);
            let share = token.weight as f64 / (1u64 << 40) as f64;
            // What is within a rank of the limit, 2^-17 of the weight, may be on either side.
            if (share / f64::from(min_p) - 1.0).abs() > 1.0 / f64::from(1 << 17) {
                prop_assert_eq!(token.rank <= limit, share >= f64::from(min_p));
            }
        }

        #[test]
        fn equal_logits_are_cut_by_id(count in 1usize..50, top_p in 0.01f32..0.99) {
            let one = Token::at(0.0).weight;
            let draw = Draw::new(1.0, top_p, 0, 0);
            let found = kept(&vec![Token::at(0.0); count], draw);
            let taken = draw.needed(one * count as u64).div_ceil(one);
            prop_assert_eq!(found, Prefix { rank: 0, last: taken as u32 - 1 });
            let limited = kept(&vec![Token::at(0.0); count], Draw { top_k: 3, share: 0, ..draw });
            let last = if count > 3 { 2 } else { u32::MAX };
            prop_assert_eq!(limited.last, last);
        }
    }
}
