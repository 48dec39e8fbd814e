//! The softmax of one split of keys, and how splits are merged.

use shared::block::{ROWS, STEP};
use shared::kv::SPLIT;

use crate::arch::{self, exp2, fma, max, rcp};
use crate::tile::{ACC, Acc, Operand, X_SLOTS, over_w, probabilities, x_slot};

/// Tiles of 16 keys in a split.
pub const TILES: usize = SPLIT / ROWS;
/// Operands of 32 keys in a split.
pub const STEPS: usize = SPLIT / STEP;

/// The softmax of one split, for the queries of one 16-row tile: for each of the lane's queries the
/// largest scaled score, and the sum of exponentials relative to it.
#[derive(Clone, Copy)]
pub struct Softmax {
    pub max: [f32; X_SLOTS],
    pub sum: [f32; X_SLOTS],
}

impl Softmax {
    /// Of no keys.
    pub const EMPTY: Self = Self { max: [f32::NEG_INFINITY; X_SLOTS], sum: [0.0; X_SLOTS] };

    /// Of unscaled scores, minus infinity where a query does not see a key; `each` gets the
    /// exponentials, as operands of 32 keys. Collective.
    #[inline(always)]
    pub fn new(scores: &[Acc; TILES], scale: f32, mut each: impl FnMut(usize, &Operand)) -> Self {
        let mut top = [f32::NEG_INFINITY; X_SLOTS];
        for tile in 0..TILES {
            for i in 0..ACC {
                top[x_slot(i)] = max(top[x_slot(i)], scores[tile][i]);
            }
        }
        // A query that sees nothing of this split has exponentials of zero: 2^(-inf - 0).
        let mut base = [0.0; X_SLOTS];
        for slot in 0..X_SLOTS {
            top[slot] = over_w(top[slot], max) * scale;
            base[slot] = if top[slot] == f32::NEG_INFINITY { 0.0 } else { top[slot] };
        }
        let mut sum = [0.0; X_SLOTS];
        for step in 0..STEPS {
            let mut p = [arch::ZERO; 2];
            for half in 0..2 {
                let mut part = [0.0; X_SLOTS];
                for i in 0..ACC {
                    let slot = x_slot(i);
                    p[half][i] = exp2(fma(scores[2 * step + half][i], scale, -base[slot]));
                    part[slot] += p[half][i];
                }
                for slot in 0..X_SLOTS {
                    sum[slot] += part[slot];
                }
            }
            each(step, &probabilities(p));
        }
        for slot in 0..X_SLOTS {
            sum[slot] = over_w(sum[slot], |a, b| a + b);
        }
        Self { max: top, sum }
    }
}

/// The merged splits of the queries of one 16-row tile: maxima, sums, and the weighted values
/// `[d tile]`.
pub struct State<const DT: usize> {
    pub softmax: Softmax,
    pub values: [Acc; DT],
}

impl<const DT: usize> State<DT> {
    pub const EMPTY: Self = Self { softmax: Softmax::EMPTY, values: [arch::ZERO; DT] };

    /// Appends a later split with its weighted values.
    #[inline(always)]
    pub fn merge(&mut self, later: Softmax, values: &[Acc; DT]) {
        let Softmax { max: tops, sum } = &mut self.softmax;
        let mut merge = [Merge::KEEP; X_SLOTS];
        for slot in 0..X_SLOTS {
            merge[slot] = Merge::new(tops[slot], later.max[slot]);
            sum[slot] = merge[slot].apply(sum[slot], later.sum[slot]);
            tops[slot] = max(tops[slot], later.max[slot]);
        }
        for tile in 0..DT {
            for i in 0..ACC {
                let merge = merge[x_slot(i)];
                self.values[tile][i] = merge.apply(self.values[tile][i], values[tile][i]);
            }
        }
    }
}

/// How two parts of one query's softmax are brought to the same maximum: the factors of what was
/// merged and of the split that follows.
#[derive(Clone, Copy)]
pub struct Merge {
    pub old: f32,
    pub new: f32,
}

impl Merge {
    /// Of a split without a key that the query sees.
    pub const KEEP: Self = Self { old: 1.0, new: 0.0 };

    /// From the two maxima.
    #[inline(always)]
    pub fn new(old: f32, new: f32) -> Self {
        if new == f32::NEG_INFINITY {
            return Self::KEEP;
        }
        let all = max(old, new);
        Self { old: exp2(old - all), new: exp2(new - all) }
    }

    /// Sums, or weighted values.
    #[inline(always)]
    pub fn apply(self, old: f32, new: f32) -> f32 {
        fma(old, self.old, new * self.new)
    }
}

/// Divides by the sum with the sink: the factor of the values.
#[inline(always)]
pub fn normaliser(top: f32, sum: f32, sink: f32) -> f32 {
    let sink = sink * core::f32::consts::LOG2_E;
    let all = max(top, sink);
    let scale = exp2(top - all);
    scale * rcp(fma(sum, scale, exp2(sink - all)))
}
