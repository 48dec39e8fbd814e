//! The better of two values with their indices: the larger, or the lower index of equals. So a choice
//! among many does not depend on the order of comparisons.

use crate::arch::{WAVE, shuffle_xor};

/// A value and its index. A NaN is never better.
#[derive(Clone, Copy)]
pub struct Choice {
    /// The value.
    pub value: f32,
    /// Its index.
    pub index: u32,
}

impl Choice {
    /// Worse than every other.
    pub const NONE: Self = Self { value: f32::NEG_INFINITY, index: u32::MAX };

    /// Whether this is better than `other`.
    #[inline(always)]
    pub fn beats(self, other: Self) -> bool {
        // Without short circuits: no lane branches.
        (self.value > other.value) | ((self.value == other.value) & (self.index < other.index))
    }

    /// The better of the two.
    #[inline(always)]
    pub fn better(self, other: Self) -> Self {
        if other.beats(self) { other } else { self }
    }

    /// The best of the wave, in every lane. Collective.
    #[inline(always)]
    pub fn best_of_wave(mut self) -> Self {
        macro_rules! step {
            ($($mask:literal)*) => {$(
                if $mask < WAVE {
                    const MASK: u32 = $mask % WAVE;
                    self = self.better(Self {
                        value: f32::from_bits(shuffle_xor::<MASK>(self.value.to_bits())),
                        index: shuffle_xor::<MASK>(self.index),
                    });
                }
            )*};
        }
        step!(1 2 4 8 16 32);
        self
    }
}
