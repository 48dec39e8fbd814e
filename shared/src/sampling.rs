//! Drawing a token from logits, in steps that every device does alike, bit for bit.
//!
//! With `m` the largest logit and `t` the inverse of the temperature, rounded once:
//!
//! 1. The distance of a token is `d = (m - logit) * t`, two f32 operations. Its weight is
//!    `trunc(exp(-d) * 2^40)`. Weights are integers: their sums are exact, whatever the order.
//! 2. Tokens are ordered by rank, `trunc(d * 2^17)`, the lower id first among equals. A rank has 22
//!    bits, so that two histograms of 2048 bins find where a prefix of the order ends. It tells
//!    logits apart down to 2^-17 of the temperature.
//! 3. Three prefixes of that order limit what may be drawn, in Hugging Face's sequence: the first
//!    `top_k` tokens; of these the nucleus, the shortest prefix that weighs at least the share
//!    `top_p` of them; of these the ranks `min_p` allows, those up to the last at whose distance
//!    (the shortest of the rank) a token weighs at least the share `min_p` of the largest weight,
//!    2^40. The first token of the order has rank 0 and stays.
//! 4. With `kept` the weight of what is left and `r` = [`crate::philox::token_bits`] of the seed and
//!    of the position of the new token, the token is the first of those left, in order of ids, at
//!    which the running sum of weights exceeds `floor(r * kept / 2^64)`.
//!
//! All of it must be compiled without contraction into fused multiply-adds, which is how rustc
//! compiles it everywhere.

/// Bits of a rank that each of two histograms resolves.
pub const DIGIT_BITS: u32 = 11;
/// Bins of a histogram.
pub const BINS: u32 = 1 << DIGIT_BITS;
/// The last rank; a token of this rank is so far away that it weighs nothing.
pub const MAX_RANK: u32 = BINS * BINS - 1;
/// Ranks per unit of distance.
const RANKS: f32 = (1u32 << 17) as f32;
/// Bits of the largest weight, that of distance 0.
const WEIGHT_BITS: u32 = 40;

/// How one row of logits is drawn from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// `1 / temperature`, a normal number; 0 takes the largest logit.
    pub inverse_temperature: f32,
    /// The nucleus's share of all weights in units of 2^-32; 0 is all of them.
    pub share: u32,
    /// Tokens that may be drawn, the first in the order; 0 is all of them.
    pub top_k: u32,
    /// The last rank that may be drawn.
    pub last_rank: u32,
    /// Seed of the sequence.
    pub seed: u64,
    /// Position of the token to be drawn, counted from the sequence's first.
    pub position: u32,
}

impl Draw {
    /// Words of a draw in memory.
    pub const WORDS: usize = 7;

    /// A draw at `temperature`, at least 0, from the nucleus of `top_p`, in (0, 1], of all tokens.
    pub fn new(temperature: f32, top_p: f32, seed: u64, position: u32) -> Draw {
        let inverse_temperature = match temperature {
            0.0 => 0.0,
            // Both ends stay normal, so that it does not matter who flushes what is not.
            t => (1.0 / t).clamp(f32::MIN_POSITIVE, f32::MAX),
        };
        // 2^32 units, the whole, become 0.
        let share = units(top_p, 32) as u32;
        Draw { inverse_temperature, share, top_k: 0, last_rank: MAX_RANK, seed, position }
    }

    /// The same draw from the first `top_k` tokens, 0 for all, and from tokens that weigh at least
    /// the share `min_p`, in [0, 1), of the likeliest.
    pub fn limited(self, top_k: u32, min_p: f32) -> Draw {
        Draw { top_k, last_rank: last_rank(min_p), ..self }
    }

    /// As it lies in memory.
    pub const fn to_words(self) -> [u32; Draw::WORDS] {
        let Draw { inverse_temperature, share, top_k, last_rank, seed, position } = self;
        let (seed_low, seed_high) = (seed as u32, (seed >> 32) as u32);
        [inverse_temperature.to_bits(), share, top_k, last_rank, seed_low, seed_high, position]
    }

    /// The draw that [`Draw::to_words`] wrote.
    pub const fn from_words(words: [u32; Draw::WORDS]) -> Draw {
        Draw {
            inverse_temperature: f32::from_bits(words[0]),
            share: words[1],
            top_k: words[2],
            last_rank: words[3],
            seed: words[4] as u64 | (words[5] as u64) << 32,
            position: words[6],
        }
    }

    /// Whether the largest logit is taken.
    pub const fn is_greedy(self) -> bool {
        self.inverse_temperature == 0.0
    }

    /// The distance of `logit` from the largest, `max`.
    #[inline(always)]
    pub fn distance(self, max: f32, logit: f32) -> f32 {
        (max - logit) * self.inverse_temperature
    }

    /// What the nucleus of tokens that weigh `total` has to weigh: at least 1, as `total` is.
    #[inline(always)]
    pub const fn needed(self, total: u64) -> u64 {
        if self.share == 0 {
            return total;
        }
        let (high, low) = (total >> 32, total & 0xffff_ffff);
        let share = self.share as u64;
        high * share + ((low * share + 0xffff_ffff) >> 32)
    }

    /// The running sum that the drawn token is the first to reach, from 1 to `kept`.
    #[inline(always)]
    pub const fn target(self, kept: u64) -> u64 {
        let random = crate::philox::token_bits(self.seed, self.position as u64);
        high_product(random, kept) + 1
    }
}

/// `share`, from 0 to 1, in units of `2^-bits`, rounded up to a whole one.
fn units(share: f32, bits: u32) -> u64 {
    // Exact in f64.
    let units = f64::from(share) * (1u64 << bits) as f64;
    units as u64 + u64::from(units > units as u64 as f64)
}

/// The last rank at whose distance a token weighs at least the share `min_p` of [`weight`] of 0.
fn last_rank(min_p: f32) -> u32 {
    let least = units(min_p, WEIGHT_BITS);
    if least == 0 {
        return MAX_RANK;
    }
    // Rank 0 weighs enough, the last weighs nothing.
    let (mut enough, mut too_little) = (0, MAX_RANK);
    while too_little - enough > 1 {
        let rank = enough.midpoint(too_little);
        if weight(rank as f32 / RANKS) >= least { enough = rank } else { too_little = rank }
    }
    enough
}

/// The rank of a token at `distance`.
#[inline(always)]
pub fn rank(distance: f32) -> u32 {
    let scaled = distance * RANKS;
    if scaled < MAX_RANK as f32 { scaled as u32 } else { MAX_RANK }
}

/// The weight of a token at `distance`: `trunc(exp(-distance) * 2^40)`.
#[inline(always)]
pub fn weight(distance: f32) -> u64 {
    let bits = crate::exp::exp(-distance).to_bits();
    let mantissa = u64::from(bits & 0x007f_ffff | 0x0080_0000);
    // The value is the mantissa times 2^(exponent - 150).
    let exponent = bits >> 23;
    if exponent >= 110 {
        mantissa << (exponent - 110)
    } else if exponent > 110 - 24 {
        mantissa >> (110 - exponent)
    } else {
        0
    }
}

/// `floor(a * b / 2^64)`, without the 128-bit type that not every GPU has.
const fn high_product(a: u64, b: u64) -> u64 {
    let (a1, a0) = (a >> 32, a & 0xffff_ffff);
    let (b1, b0) = (b >> 32, b & 0xffff_ffff);
    let middle = a1 * b0 + ((a0 * b0) >> 32);
    let carry = (a0 * b1 + (middle & 0xffff_ffff)) >> 32;
    a1 * b1 + (middle >> 32) + carry
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: u64 = 1 << WEIGHT_BITS;

    #[test]
    fn weights_are_the_truncated_exponential() {
        assert_eq!(weight(0.0), ONE);
        assert_eq!((weight(27.7), weight(27.8)), (1, 0));
        assert_eq!((weight(1e30), weight(f32::INFINITY)), (0, 0));
        for i in 0..2800 {
            let d = i as f32 * 0.01;
            let exact = (f64::from(crate::exp::exp(-d)) * ONE as f64) as u64;
            assert_eq!(weight(d), exact, "d = {d}");
        }
    }

    #[test]
    fn what_has_the_last_rank_weighs_nothing() {
        assert_eq!(rank(0.0), 0);
        assert_eq!(rank(1.0), 1 << 17);
        for d in [32.0, 33.5, 1e30, f32::INFINITY] {
            assert_eq!((rank(d), weight(d)), (MAX_RANK, 0), "{d}");
        }
    }

    #[test]
    fn products_keep_their_high_half() {
        for (a, b) in [(0, 0), (!0, !0), (!0, 1), (1 << 63, 2), (0x1234_5678_9abc_def0, !0 >> 3)] {
            let exact = ((u128::from(a) * u128::from(b)) >> 64) as u64;
            assert_eq!(high_product(a, b), exact, "{a} {b}");
        }
    }

    #[test]
    fn shares_are_rounded_up() {
        let needed = |top_p, total| Draw::new(1.0, top_p, 0, 0).needed(total);
        assert_eq!(needed(1.0, 7 * ONE), 7 * ONE);
        assert_eq!(needed(0.5, ONE), ONE / 2);
        assert_eq!(needed(0.5, 3), 2);
        assert_eq!(needed(f32::MIN_POSITIVE, ONE), 1 << 8);
        assert_eq!(needed(f32::MIN_POSITIVE, 1), 1);
        // The largest top_p below 1 of the largest sum.
        let total = ONE << 18;
        assert_eq!(needed(1.0 - f32::EPSILON / 2.0, total), total - (total >> 24));
    }

    #[test]
    fn draws_survive_memory_and_extreme_temperatures() {
        let draw = Draw::new(0.7, 0.9, 0x0123_4567_89ab_cdef, 42).limited(50, 0.1);
        assert_eq!(Draw::from_words(draw.to_words()), draw);
        assert!(Draw::new(0.0, 1.0, 0, 0).is_greedy() && !draw.is_greedy());
        for temperature in [1e-45, f32::MIN_POSITIVE, f32::MAX] {
            let draw = Draw::new(temperature, 1.0, 0, 0);
            assert!(draw.inverse_temperature.is_normal(), "{temperature}");
            assert_eq!(draw.distance(1.0, 1.0), 0.0);
        }
    }

    #[test]
    fn min_p_is_a_distance_of_its_logarithm() {
        use core::f64::consts::{LN_2, LN_10};
        assert_eq!(last_rank(0.0), MAX_RANK);
        // The smallest shares keep whatever weighs anything, the largest what is next to the top.
        let last = f64::from(last_rank(f32::MIN_POSITIVE)) / f64::from(RANKS);
        assert!((last - 40.0 * LN_2).abs() < 1e-4, "{last}");
        assert_eq!(last_rank(1.0 - f32::EPSILON / 2.0), 0);
        for (min_p, distance) in
            [(0.5, LN_2), (0.25, 2.0 * LN_2), (0.1, LN_10), (0.01, 2.0 * LN_10)]
        {
            let rank = f64::from(last_rank(min_p));
            // A rank's own width, and f32's error in min_p and in the exponential.
            let off = rank - distance * f64::from(RANKS);
            assert!((-1.1..=0.1).contains(&off), "min_p {min_p}: {off} ranks off");
        }
    }

    #[test]
    fn targets_are_from_one_to_the_sum() {
        for position in 0..100 {
            let draw = Draw::new(1.0, 1.0, 5, position);
            assert_eq!(draw.target(1), 1);
            assert!((1..=ONE).contains(&draw.target(ONE)));
        }
    }
}
