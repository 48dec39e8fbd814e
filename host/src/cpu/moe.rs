//! Which experts a row visits, and rows grouped by expert.

use std::ops::Range;

use shared::exp::exp;
use shared::model::ModelConfig;

/// The routes of one step through one layer. A slot is one visit of one row to one expert; slots
/// of an expert are consecutive, rows in order.
#[derive(Debug, Default)]
pub struct Routes {
    /// `[rows, top-k]`, best first.
    experts: Vec<u32>,
    /// `[rows, top-k]`, each row summing to 1.
    weights: Vec<f32>,
    /// `[rows, top-k]`: the slot of each visit.
    slots: Vec<u32>,
    /// `[slots]`: the row of each slot.
    rows: Vec<u32>,
    /// `[experts + 1]`: where the slots of each expert start.
    starts: Vec<usize>,
}

impl Routes {
    /// Chooses from `logits`, `[rows, experts]`: the top k by value, the lowest index among
    /// equals, weighted by the softmax over those chosen.
    pub fn choose(&mut self, logits: &[f32], config: &ModelConfig) {
        let top_k = config.num_experts_per_tok;
        self.experts.clear();
        self.weights.clear();
        for logits in logits.chunks_exact(config.num_local_experts) {
            let first = self.experts.len();
            for _ in 0..top_k {
                let best = best_except(logits, &self.experts[first..]);
                self.experts.push(best as u32);
            }
            let chosen = self.experts[first..].iter().map(|&e| logits[e as usize]);
            softmax(&mut self.weights, chosen);
            // A NaN is not chosen: it must show all the same.
            if logits.iter().any(|logit| logit.is_nan()) {
                self.weights[first..].fill(f32::NAN);
            }
        }
        self.group(config.num_local_experts, top_k);
    }

    /// A counting sort by expert.
    fn group(&mut self, experts: usize, top_k: usize) {
        self.starts.clear();
        self.starts.resize(experts + 1, 0);
        for &expert in &self.experts {
            self.starts[expert as usize + 1] += 1;
        }
        for expert in 0..experts {
            self.starts[expert + 1] += self.starts[expert];
        }
        self.rows.resize(self.experts.len(), 0);
        self.slots.resize(self.experts.len(), 0);
        let mut next = self.starts.clone();
        for (visit, &expert) in self.experts.iter().enumerate() {
            let slot = next[expert as usize];
            next[expert as usize] += 1;
            self.slots[visit] = slot as u32;
            self.rows[slot] = (visit / top_k) as u32;
        }
    }

    /// Visits in all.
    pub fn slots(&self) -> usize {
        self.rows.len()
    }

    /// Experts that are visited, and their slots.
    pub fn visited(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        self.starts
            .windows(2)
            .map(|w| w[0]..w[1])
            .enumerate()
            .filter(|(_, slots)| !slots.is_empty())
    }

    /// The row of each slot.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Slot and weight of each visit of `row`, best first.
    pub fn visits(&self, row: usize, top_k: usize) -> impl Iterator<Item = (usize, f32)> {
        let visits = row * top_k..(row + 1) * top_k;
        let weights = self.weights[visits.clone()].iter();
        self.slots[visits].iter().map(|&s| s as usize).zip(weights.copied())
    }
}

/// The largest logit's index, the lowest among equals, `taken` ones left out.
fn best_except(logits: &[f32], taken: &[u32]) -> usize {
    let mut best = None;
    for (i, &logit) in logits.iter().enumerate() {
        let larger = best.is_none_or(|b: usize| logit > logits[b]);
        if larger && !taken.contains(&(i as u32)) {
            best = Some(i);
        }
    }
    best.unwrap_or(0)
}

/// Appends the softmax of `logits`, the largest of which comes first.
fn softmax(to: &mut Vec<f32>, logits: impl Iterator<Item = f32>) {
    let first = to.len();
    to.extend(logits);
    let chosen = &mut to[first..];
    let max = chosen[0];
    let mut sum = 0.0;
    for x in chosen.iter_mut() {
        *x = exp(*x - max);
        sum += *x;
    }
    for x in chosen {
        *x /= sum;
    }
}

/// `(clamp(linear) + 1) * gate * sigmoid(1.702 gate)` of alternating gates and linears, the gate
/// clamped above only. `from` is `[2 * intermediate]`, `to` `[intermediate]`.
pub fn swiglu(from: &[f32], to: &mut [f32], limit: f32) {
    for (to, pair) in to.iter_mut().zip(from.chunks_exact(2)) {
        // Comparisons rather than min and max: those lose a NaN.
        let gate = if pair[0] > limit { limit } else { pair[0] };
        let linear = if pair[1] > limit { limit } else { pair[1] };
        let linear = if linear < -limit { -limit } else { linear };
        *to = gate / (1.0 + exp(-1.702 * gate)) * (linear + 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_choose_the_lowest_indices() {
        assert_eq!(best_except(&[1.0, 2.0, 2.0], &[]), 1);
        assert_eq!(best_except(&[1.0, 2.0, 2.0], &[1]), 2);
        assert_eq!(best_except(&[5.0, 2.0, 2.0], &[0, 1]), 2);
    }

    #[test]
    fn nan_logits_choose_without_panic() {
        let mut taken = Vec::new();
        for _ in 0..3 {
            taken.push(best_except(&[f32::NAN; 3], &taken) as u32);
        }
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2]);
    }

    #[test]
    fn swiglu_clamps() {
        let mut out = [f32::NAN; 4];
        swiglu(&[1e9, 1e9, 1e9, -1e9, -1e9, 0.0, 0.0, 5.0], &mut out, 7.0);
        let top = 7.0 / (1.0 + exp(-1.702 * 7.0));
        assert_eq!(out[..2], [top * 8.0, top * -6.0]);
        assert_eq!(out[2], 0.0, "the gate is not clamped below");
        assert_eq!(out[3], 0.0);
    }
}
