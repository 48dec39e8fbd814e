//! Drawing a token from logits, in steps that every device does alike, bit for bit.
//!
//! With `m` the largest logit and `t` the inverse of the temperature, rounded once:
//!
//! 1. The distance of a token is `d = (m - logit) * t`, two f32 operations. Its weight is
//!    `trunc(exp(-d) * 2^40)`. Weights are integers: their sums are exact, whatever the order.
//! 2. Tokens are ordered by rank, `trunc(d * 2^17)`, the lower id first among equals. The nucleus
//!    is the shortest prefix of that order that weighs at least the share `top_p` of all weights.
//!    A rank has 22 bits, so that two histograms of 2048 bins find where the prefix ends. It tells
//!    logits apart down to 2^-17 of the temperature.
//! 3. With `kept` the weight of the nucleus and `r` = [`crate::philox::token_bits`] of the seed and
//!    of the position of the new token, the token is the first of the nucleus, in order of ids, at
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

/// How one row of logits is drawn from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// `1 / temperature`, a normal number; 0 takes the largest logit.
    pub inverse_temperature: f32,
    /// The nucleus's share of all weights in units of 2^-32; 0 is all of them.
    pub share: u32,
    /// Seed of the sequence.
    pub seed: u64,
    /// Position of the token to be drawn, counted from the sequence's first.
    pub position: u32,
}

impl Draw {
    /// Words of a draw in memory.
    pub const WORDS: usize = 5;

    /// A draw at `temperature`, at least 0, from the nucleus of `top_p`, in (0, 1].
    pub fn new(temperature: f32, top_p: f32, seed: u64, position: u32) -> Draw {
        let inverse_temperature = match temperature {
            0.0 => 0.0,
            // Both ends stay normal, so that it does not matter who flushes what is not.
            t => (1.0 / t).clamp(f32::MIN_POSITIVE, f32::MAX),
        };
        // Exact in f64: a share is rounded up to a whole unit.
        let share = f64::from(top_p) * (1u64 << 32) as f64;
        let rounded_up = share as u64 + u64::from(share > share as u64 as f64);
        // 2^32 units, the whole, become 0.
        Draw { inverse_temperature, share: rounded_up as u32, seed, position }
    }

    /// As it lies in memory.
    pub const fn to_words(self) -> [u32; Draw::WORDS] {
        let Draw { inverse_temperature, share, seed, position } = self;
        [inverse_temperature.to_bits(), share, seed as u32, (seed >> 32) as u32, position]
    }

    /// The draw that [`Draw::to_words`] wrote.
    pub const fn from_words(words: [u32; Draw::WORDS]) -> Draw {
        Draw {
            inverse_temperature: f32::from_bits(words[0]),
            share: words[1],
            seed: words[2] as u64 | (words[3] as u64) << 32,
            position: words[4],
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

    /// What the nucleus has to weigh when all tokens weigh `total`: at least 1, as `total` is.
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

    const ONE: u64 = 1 << 40;

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
        let draw = Draw::new(0.7, 0.9, 0x0123_4567_89ab_cdef, 42);
        assert_eq!(Draw::from_words(draw.to_words()), draw);
        assert!(Draw::new(0.0, 1.0, 0, 0).is_greedy() && !draw.is_greedy());
        for temperature in [1e-45, f32::MIN_POSITIVE, f32::MAX] {
            let draw = Draw::new(temperature, 1.0, 0, 0);
            assert!(draw.inverse_temperature.is_normal(), "{temperature}");
            assert_eq!(draw.distance(1.0, 1.0), 0.0);
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
