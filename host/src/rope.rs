//! The table of rotary angles, in the layout of [`shared::rope`].

use shared::model::{ModelConfig, Rope};

/// Cosines and sines of the positions asked for so far.
#[derive(Debug)]
pub struct Table {
    /// Radians per position, `[head_dim / 2]`.
    frequencies: Vec<f64>,
    concentration: f64,
    /// `[positions, 2, head_dim / 2]`.
    values: Vec<f32>,
}

impl Table {
    /// A table of no positions.
    pub fn new(config: &ModelConfig) -> Table {
        let frequencies = frequencies(&config.rope, config.head_dim);
        let concentration = concentration(&config.rope);
        Table { frequencies, concentration, values: Vec::new() }
    }

    /// Makes sure that positions below `positions` are there.
    pub fn grow(&mut self, positions: usize) {
        let row = 2 * self.frequencies.len();
        for position in self.values.len() / row..positions {
            let angles = || self.frequencies.iter().map(move |f| f * position as f64);
            let concentration = self.concentration;
            self.values.extend(angles().map(|a| (a.cos() * concentration) as f32));
            self.values.extend(angles().map(|a| (a.sin() * concentration) as f32));
        }
    }

    /// Every row so far, `[positions, 2, head_dim / 2]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Rotates each head of `heads` (`[heads, head_dim]`) to `position`, which must be in the
    /// table.
    pub fn rotate(&self, position: usize, heads: &mut [f32]) {
        let half = self.frequencies.len();
        let (cos, sin) = self.values[2 * half * position..][..2 * half].split_at(half);
        for head in heads.chunks_exact_mut(2 * half) {
            let (first, second) = head.split_at_mut(half);
            for i in 0..half {
                (first[i], second[i]) = shared::rope::rotate(first[i], second[i], cos[i], sin[i]);
            }
        }
    }
}

/// Radians per position of each pair of elements, `[head_dim / 2]`.
///
/// YaRN: fast frequencies are kept, slow ones divided by `factor`, with a linear ramp between
/// two bounds.
/// Source: Peng et al., "YaRN", arXiv 2309.00071, section 3.2; bounds as in transformers, which
/// for sane parameters are those of gpt-oss's torch model.
fn frequencies(rope: &Rope, head_dim: usize) -> Vec<f64> {
    let half = head_dim / 2;
    let theta = f64::from(rope.theta);
    let base = (0..half).map(|i| theta.powf(-(2.0 * i as f64) / head_dim as f64));
    if rope.factor <= 1.0 {
        return base.collect();
    }
    let factor = f64::from(rope.factor);
    let bound = |rotations: f32| {
        let context = rope.original_context as f64;
        let wavelengths = context / (f64::from(rotations) * std::f64::consts::TAU);
        half as f64 * wavelengths.ln() / theta.ln()
    };
    let (mut low, mut high) = (bound(rope.beta_fast), bound(rope.beta_slow));
    if rope.truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(head_dim as f64 - 1.0));
    // Equal bounds mean a step; the ramp must not divide by zero.
    let width = if low == high { 1e-3 } else { high - low };
    base.enumerate()
        .map(|(i, f)| {
            let ramp = ((i as f64 - low) / width).clamp(0.0, 1.0);
            f / factor * ramp + f * (1.0 - ramp)
        })
        .collect()
}

/// What YaRN multiplies queries and keys by.
fn concentration(rope: &Rope) -> f64 {
    match rope.attention_factor {
        Some(factor) => factor,
        None if rope.factor <= 1.0 => 1.0,
        None => 0.1 * f64::from(rope.factor).ln() + 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPT_OSS: Rope = Rope {
        theta: 150_000.0,
        factor: 32.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_context: 4096,
        truncate: false,
        attention_factor: None,
    };

    #[test]
    fn published_frequencies() {
        let known = [
            (0, 1.0),
            (1, 0.689_044_31),
            (7, 0.073_744_568),
            (8, 0.050_813_275),
            (9, 0.031_705_696),
            (13, 0.003_860_359_3),
            (16, 4.564_839_2e-4),
            (17, 1.293_187_0e-4),
            (18, 3.830_881_2e-5),
            (31, 3.023_511_4e-7),
        ];
        let frequencies = frequencies(&GPT_OSS, 64);
        for (i, expected) in known {
            assert!((frequencies[i] / expected - 1.0).abs() < 1e-7, "{i}: {}", frequencies[i]);
        }
        assert!((concentration(&GPT_OSS) - 1.346_573_59).abs() < 1e-8);
    }

    #[test]
    fn odd_parameters_give_the_frequencies_of_transformers() {
        // What transformers 5.24's _compute_yarn_parameters gives in f64, made once: `head_dim`,
        // the parameters, and frequencies by index.
        let cases = [
            (
                "bounds rounded",
                64,
                Rope { truncate: true, ..GPT_OSS },
                vec![(8, 5.081327481546e-2), (10, 1.945096754406e-2), (16, 5.809475019311e-4)],
            ),
            (
                "the lower bound below the first index",
                64,
                Rope { original_context: 64, ..GPT_OSS },
                vec![(0, 1.0), (7, 2.304517756571e-3), (10, 7.539134706999e-4)],
            ),
            (
                "both bounds above the last index",
                8,
                Rope { theta: 10.0, original_context: 131_072, ..GPT_OSS },
                vec![(0, 3.125e-2), (1, 1.757316641220e-2), (3, 5.557123156372e-3)],
            ),
            (
                "equal bounds",
                64,
                Rope { beta_fast: 4.0, beta_slow: 4.0, ..GPT_OSS },
                vec![(10, 2.412523106240e-2), (16, 8.068715304599e-5)],
            ),
            (
                "crossed bounds",
                64,
                Rope { beta_fast: 1.0, beta_slow: 32.0, ..GPT_OSS },
                vec![(8, 1.587914837983e-3), (10, 5.544143406557e-3), (31, 9.675236569981e-6)],
            ),
        ];
        for (name, head_dim, rope, known) in cases {
            let frequencies = frequencies(&rope, head_dim);
            for (i, expected) in known {
                // As many digits as the numbers above have.
                assert!((frequencies[i] / expected - 1.0).abs() < 1e-11, "{name}: {i}");
            }
        }
    }

    #[test]
    fn factor_one_is_plain_rope() {
        let rope = Rope { factor: 1.0, ..GPT_OSS };
        let frequencies = frequencies(&rope, 4);
        assert_eq!(frequencies, [1.0, 150_000f64.powf(-0.5)]);
        assert_eq!(concentration(&rope), 1.0);
    }
}
