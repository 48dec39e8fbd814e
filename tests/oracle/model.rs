//! The whole model in f64, one sequence, no cache: what every engine is compared with.

use gptoss::model::{
    Bytes, Dtype, ExpertWeights, Experts, Layer, Linear, Matrix, ModelConfig, Rope, Store, Weights,
};
use std::sync::Arc;

/// A model of every part and of no size: what the tests of the engines vary.
pub const BASE: ModelConfig = ModelConfig {
    vocab_size: 61,
    hidden_size: 64,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 32,
    intermediate_size: 32,
    num_local_experts: 4,
    num_experts_per_tok: 2,
    sliding_window: 5,
    windowed_layers: 0b1_0101,
    max_position_embeddings: 4096,
    rope: Rope {
        theta: 150_000.0,
        factor: 32.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_context: 4096,
        truncate: false,
        attention_factor: None,
    },
    rms_norm_eps: 1e-5,
    swiglu_limit: 7.0,
};

/// `len` token ids without a short period.
pub fn tokens(config: &ModelConfig, len: usize, seed: usize) -> Vec<u32> {
    (0..len).map(|i| ((i * 7919 + 13 * seed) % config.vocab_size) as u32).collect()
}

/// How an engine keeps keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kv {
    /// Unrounded.
    Exact,
    /// Rounded to bf16 after rotation.
    Bf16,
}

impl Kv {
    fn round(self, x: f64) -> f64 {
        match self {
            Kv::Exact => x,
            Kv::Bf16 => f64::from(shared::bf16::to_f32(shared::bf16::from_f32(x as f32))),
        }
    }
}

/// Logits `[tokens][vocab]` of one sequence.
pub fn forward(weights: &Weights, tokens: &[u32], kv: Kv) -> Vec<Vec<f64>> {
    forward_margins(weights, tokens, kv).0
}

/// Logits as [`forward`] has them, and for each token by how much its experts were chosen: the
/// smallest distance over the layers from the last router logit taken to the next.
pub fn forward_margins(weights: &Weights, tokens: &[u32], kv: Kv) -> (Vec<Vec<f64>>, Vec<f64>) {
    let config = &weights.config;
    let embedding = dense(&weights.embedding);
    let mut x: Vec<Vec<f64>> =
        tokens.iter().map(|&t| row(&embedding, t as usize, config.hidden_size).to_vec()).collect();
    let mut margins = vec![f64::INFINITY; tokens.len()];
    for (index, layer) in weights.layers.iter().enumerate() {
        attention(config, layer, config.window(index), kv, &mut x);
        mixture(config, layer, &mut x, &mut margins);
    }
    let unembedding = dense(&weights.unembedding);
    let logits = |x: &Vec<f64>| times(&unembedding, &norm(config, x, &weights.norm));
    (x.iter().map(logits).collect(), margins)
}

fn row(matrix: &[f64], index: usize, cols: usize) -> &[f64] {
    &matrix[index * cols..][..cols]
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `matrix * x`, with as many columns as `x` has elements.
fn times(matrix: &[f64], x: &[f64]) -> Vec<f64> {
    matrix.chunks_exact(x.len()).map(|row| dot(row, x)).collect()
}

fn affine(matrix: &[f64], bias: &[f32], x: &[f64]) -> Vec<f64> {
    times(matrix, x).iter().zip(bias).map(|(y, &b)| y + f64::from(b)).collect()
}

fn norm(config: &ModelConfig, x: &[f64], scale: &[f32]) -> Vec<f64> {
    let mean_square = dot(x, x) / x.len() as f64;
    let factor = (mean_square + f64::from(config.rms_norm_eps)).sqrt().recip();
    x.iter().zip(scale).map(|(x, &s)| x * factor * f64::from(s)).collect()
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps: Vec<f64> = x.iter().map(|x| (x - max).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|e| e / sum).collect()
}

fn attention(
    config: &ModelConfig,
    layer: &Layer,
    window: Option<usize>,
    kv: Kv,
    x: &mut [Vec<f64>],
) {
    let (d, heads) = (config.head_dim, config.num_attention_heads);
    let [q, k, v, o] = [&layer.q, &layer.k, &layer.v, &layer.o].map(|l| dense(&l.weight));
    let (mut qs, mut ks, mut vs) = (Vec::new(), Vec::new(), Vec::new());
    for (position, x) in x.iter().enumerate() {
        let t = norm(config, x, &layer.attn_norm);
        let rotated = |y: Vec<f64>| -> Vec<f64> {
            y.chunks_exact(d).flat_map(|head| rotate(config, position, head)).collect()
        };
        qs.push(rotated(affine(&q, &layer.q.bias, &t)));
        let k = rotated(affine(&k, &layer.k.bias, &t));
        ks.push(k.into_iter().map(|k| kv.round(k)).collect::<Vec<_>>());
        let v = affine(&v, &layer.v.bias, &t);
        vs.push(v.into_iter().map(|v| kv.round(v)).collect::<Vec<_>>());
    }
    for (position, x) in x.iter_mut().enumerate() {
        let first = window.map_or(0, |w| (position + 1).saturating_sub(w));
        let mut out = Vec::new();
        for head in 0..heads {
            let kv_head = head / config.group_size();
            let query = row(&qs[position], head, d);
            let mut scores: Vec<f64> = (first..=position)
                .map(|t| dot(query, row(&ks[t], kv_head, d)) / (d as f64).sqrt())
                .collect();
            scores.push(f64::from(layer.sinks[head]));
            let weights = softmax(&scores);
            for i in 0..d {
                out.push(
                    (first..=position).map(|t| weights[t - first] * vs[t][kv_head * d + i]).sum(),
                );
            }
        }
        let out: Vec<f64> = out;
        for (x, y) in x.iter_mut().zip(affine(&o, &layer.o.bias, &out)) {
            *x += y;
        }
    }
}

/// Rotary embedding with YaRN of one head at `position`.
fn rotate(config: &ModelConfig, position: usize, head: &[f64]) -> Vec<f64> {
    let (half, rope) = (head.len() / 2, &config.rope);
    let (theta, factor) = (f64::from(rope.theta), f64::from(rope.factor));
    let bound = |beta: f32| {
        let context = rope.original_context as f64;
        half as f64 * (context / (f64::from(beta) * std::f64::consts::TAU)).ln() / theta.ln()
    };
    let (low, high) = (bound(rope.beta_fast), bound(rope.beta_slow));
    let mut out = vec![0.0; head.len()];
    for i in 0..half {
        let base = theta.powf(2.0 * i as f64 / head.len() as f64);
        let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        let (frequency, scale) = if factor <= 1.0 {
            (1.0 / base, 1.0)
        } else {
            (ramp / (factor * base) + (1.0 - ramp) / base, 0.1 * factor.ln() + 1.0)
        };
        let (sin, cos) = (position as f64 * frequency).sin_cos();
        let (a, b) = (head[i], head[i + half]);
        out[i] = (a * cos - b * sin) * scale;
        out[i + half] = (b * cos + a * sin) * scale;
    }
    out
}

/// A token's normalised row, and its experts with their weights, best first.
struct Routed {
    t: Vec<f64>,
    experts: Vec<(usize, f64)>,
}

fn route(config: &ModelConfig, layer: &Layer, router: &[f64], x: &[f64]) -> (Routed, f64) {
    let t = norm(config, x, &layer.mlp_norm);
    let logits = affine(router, &layer.router.bias, &t);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    // Stable: the lowest index first among equals.
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let chosen = &order[..config.num_experts_per_tok];
    let next = order.get(chosen.len()).map_or(f64::NEG_INFINITY, |&e| logits[e]);
    let scores: Vec<f64> = chosen.iter().map(|&e| logits[e]).collect();
    let margin = scores[scores.len() - 1] - next;
    let experts = chosen.iter().copied().zip(softmax(&scores)).collect();
    (Routed { t, experts }, margin)
}

fn mixture(config: &ModelConfig, layer: &Layer, x: &mut [Vec<f64>], margins: &mut [f64]) {
    let router = dense(&layer.router.weight);
    let limit = f64::from(config.swiglu_limit);
    let mut routed = Vec::new();
    for (x, least) in x.iter().zip(margins) {
        let (choice, margin) = route(config, layer, &router, x);
        *least = least.min(margin);
        routed.push(choice);
    }
    // Expert by expert, so that one at a time is held in f64: `[tokens][rank]`.
    let mut results = vec![vec![Vec::new(); config.num_experts_per_tok]; x.len()];
    for e in 0..config.num_local_experts {
        let of_token = |(token, routed): (usize, &Routed)| {
            routed.experts.iter().position(|&(own, _)| own == e).map(|rank| (token, rank))
        };
        let visits: Vec<(usize, usize)> = routed.iter().enumerate().filter_map(of_token).collect();
        if visits.is_empty() {
            continue;
        }
        let [first, second] = [&layer.gate_up, &layer.down].map(|experts| expert(experts, e));
        let bias = |experts: &Experts| experts.bias[e * experts.rows..][..experts.rows].to_vec();
        for (token, rank) in visits {
            let inner: Vec<f64> = affine(&first, &bias(&layer.gate_up), &routed[token].t)
                .chunks_exact(2)
                .map(|pair| {
                    let (gate, linear) = (pair[0].min(limit), pair[1].clamp(-limit, limit));
                    gate / (1.0 + (-1.702 * gate).exp()) * (linear + 1.0)
                })
                .collect();
            results[token][rank] = affine(&second, &bias(&layer.down), &inner);
        }
    }
    for ((x, routed), results) in x.iter_mut().zip(&routed).zip(results) {
        for (&(_, weight), y) in routed.experts.iter().zip(results) {
            for (x, y) in x.iter_mut().zip(y) {
                *x += weight * y;
            }
        }
    }
}

fn decode(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
    bytes
        .chunks_exact(dtype.size())
        .map(|b| match dtype {
            Dtype::F32 => f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Dtype::Bf16 => f64::from(shared::bf16::to_f32(u16::from_le_bytes([b[0], b[1]]))),
            Dtype::F16 => binary16(u16::from_le_bytes([b[0], b[1]])),
        })
        .collect()
}

/// A finite IEEE 754 binary16, by its definition.
fn binary16(bits: u16) -> f64 {
    let (sign, exponent, fraction) = (bits >> 15, i32::from(bits >> 10 & 31), bits & 1023);
    let magnitude = match exponent {
        0 => f64::from(fraction) * f64::powi(2.0, -24),
        _ => f64::from(1024 + fraction) * f64::powi(2.0, exponent - 25),
    };
    if sign == 1 { -magnitude } else { magnitude }
}

/// A binary16 near `x`: of its smallest normal size or more, cut to ten bits of fraction.
fn to_binary16(x: f32) -> u16 {
    let bits = x.to_bits();
    let exponent = (bits >> 23 & 255).clamp(127 - 14, 127 + 15) + 15 - 127;
    (bits >> 16 & 0x8000 | exponent << 10 | bits >> 13 & 1023) as u16
}

/// A dense matrix, `[rows, cols]`.
pub fn dense(matrix: &Matrix) -> Vec<f64> {
    decode(matrix.dtype, &matrix.data)
}

/// Expert `index`, `[out, in]`.
pub fn expert(experts: &Experts, index: usize) -> Vec<f64> {
    let (rows, cols) = (experts.rows, experts.cols);
    let of = |bytes: &[u8], size: usize| bytes[index * size..][..size].to_vec();
    match &experts.weights {
        ExpertWeights::Mxfp4 { blocks, scales } => {
            let scales = of(scales, rows * cols / shared::mxfp4::BLOCK);
            let blocks = of(blocks, rows * cols / 2);
            let (blocks, _) = blocks.as_chunks();
            let pairs = blocks.iter().zip(scales);
            pairs.flat_map(|(b, s)| shared::mxfp4::decode_block(b, s)).map(f64::from).collect()
        }
        ExpertWeights::OutIn(dtype, bytes) => {
            decode(*dtype, &of(bytes, rows * cols * dtype.size()))
        }
        ExpertWeights::InOut(dtype, bytes) => {
            let w = decode(*dtype, &of(bytes, rows * cols * dtype.size()));
            (0..rows * cols).map(|i| w[i % cols * rows + i / cols]).collect()
        }
    }
}

/// The model that `--dense q8` computes: attention and unembedding as MXINT8 keeps them, in bf16,
/// which holds those values exactly.
pub fn as_mxint8(weights: &Weights) -> Weights {
    let matrix = |matrix: &Matrix| {
        let bits: Vec<u16> =
            dense(matrix).into_iter().map(|x| shared::bf16::from_f32(x as f32)).collect();
        let values = crate::products::mxint8_values(&bits).into_iter();
        let stored = values.flat_map(|x| shared::bf16::from_f32(x as f32).to_le_bytes());
        // The first byte is left out.
        let data = owned([0].into_iter().chain(stored).collect());
        Matrix { dtype: Dtype::Bf16, data, ..*matrix }
    };
    let linear = |l: &Linear| Linear { weight: matrix(&l.weight), bias: l.bias.clone() };
    let mut out = weights.clone();
    for layer in &mut out.layers {
        for part in [&mut layer.q, &mut layer.k, &mut layer.v, &mut layer.o] {
            *part = linear(part);
        }
    }
    out.unembedding = matrix(&weights.unembedding);
    out
}

/// How random experts are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertFormat {
    /// MXFP4.
    Mxfp4,
    /// `[out, in]`.
    OutIn(Dtype),
    /// `[in, out]`.
    InOut(Dtype),
}

/// A model with random weights that keep activations near 1.
pub fn random(config: &ModelConfig, dtype: Dtype, format: ExpertFormat, seed: u64) -> Weights {
    let mut random = Random { seed, next: 0 };
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let layers = (0..config.num_hidden_layers)
        .map(|_| Layer {
            attn_norm: random.around(1.0, 0.2, hidden),
            q: random.linear(dtype, config.q_dim(), hidden),
            k: random.linear(dtype, config.kv_dim(), hidden),
            v: random.linear(dtype, config.kv_dim(), hidden),
            sinks: random.around(0.0, 1.0, config.num_attention_heads),
            o: random.linear(dtype, hidden, config.q_dim()),
            mlp_norm: random.around(1.0, 0.2, hidden),
            router: random.linear(dtype, config.num_local_experts, hidden),
            gate_up: random.experts(format, config.num_local_experts, 2 * inner, hidden),
            down: random.experts(format, config.num_local_experts, hidden, inner),
        })
        .collect();
    Weights {
        config: config.clone(),
        embedding: random.matrix(dtype, config.vocab_size, hidden, 1.0),
        layers,
        norm: random.around(1.0, 0.2, hidden),
        unembedding: random.matrix(
            dtype,
            config.vocab_size,
            hidden,
            (hidden as f32).sqrt().recip(),
        ),
    }
}

struct Random {
    seed: u64,
    next: u64,
}

impl Random {
    fn bits(&mut self) -> u64 {
        self.next += 1;
        shared::philox::token_bits(self.seed, self.next)
    }

    /// Uniform in [-1, 1).
    fn unit(&mut self) -> f32 {
        (self.bits() as i32 >> 8) as f32 / (1 << 23) as f32
    }

    fn around(&mut self, center: f32, spread: f32, n: usize) -> Vec<f32> {
        (0..n).map(|_| center + spread * self.unit()).collect()
    }

    /// Elements of standard deviation `scale`, starting at an odd address as files may have them.
    fn stored(&mut self, dtype: Dtype, n: usize, scale: f32) -> Bytes {
        let mut bytes = vec![0];
        for _ in 0..n {
            let x = self.unit() * scale * 3f32.sqrt();
            match dtype {
                Dtype::F32 => bytes.extend(x.to_le_bytes()),
                Dtype::Bf16 => bytes.extend(shared::bf16::from_f32(x).to_le_bytes()),
                Dtype::F16 => bytes.extend(to_binary16(x).to_le_bytes()),
            }
        }
        owned(bytes)
    }

    fn matrix(&mut self, dtype: Dtype, rows: usize, cols: usize, scale: f32) -> Matrix {
        Matrix { dtype, rows, cols, data: self.stored(dtype, rows * cols, scale) }
    }

    fn linear(&mut self, dtype: Dtype, rows: usize, cols: usize) -> Linear {
        let weight = self.matrix(dtype, rows, cols, (cols as f32).sqrt().recip());
        Linear { weight, bias: self.around(0.0, 0.2, rows) }
    }

    fn experts(&mut self, format: ExpertFormat, count: usize, rows: usize, cols: usize) -> Experts {
        let n = count * rows * cols;
        let scale = (cols as f32).sqrt().recip();
        let weights = match format {
            ExpertFormat::Mxfp4 => {
                let blocks = (0..n / 2 + 1).map(|_| self.bits() as u8).collect();
                // The sixteen values have a mean square of 8.7; exponents vary by 3.
                let base = 127 + (scale / 8.7f32.sqrt()).log2().round() as i32 - 1;
                let scales = (0..n / shared::mxfp4::BLOCK + 1)
                    .map(|_| (base + (self.bits() % 3) as i32) as u8)
                    .collect();
                ExpertWeights::Mxfp4 { blocks: owned(blocks), scales: owned(scales) }
            }
            ExpertFormat::OutIn(dtype) => ExpertWeights::OutIn(dtype, self.stored(dtype, n, scale)),
            ExpertFormat::InOut(dtype) => ExpertWeights::InOut(dtype, self.stored(dtype, n, scale)),
        };
        Experts { count, rows, cols, weights, bias: self.around(0.0, 0.2, count * rows) }
    }
}

/// All but the first byte.
fn owned(bytes: Vec<u8>) -> Bytes {
    let range = 1..bytes.len();
    Bytes::new(Arc::new(Store::Owned(bytes)), range).expect("the range is that of the store")
}

/// The same model with an infinite value in the embedding of `token`: what holds it leaves the range
/// of numbers.
pub fn broken_at(mut weights: Weights, token: u32) -> Weights {
    let mut embedding = [&[0], &*weights.embedding.data].concat();
    let first = 1 + token as usize * weights.config.hidden_size * weights.embedding.dtype.size();
    let infinity = match weights.embedding.dtype {
        Dtype::Bf16 => &0x7f80u16.to_le_bytes()[..],
        _ => &f32::INFINITY.to_le_bytes()[..],
    };
    embedding[first..][..infinity.len()].copy_from_slice(infinity);
    weights.embedding.data = owned(embedding);
    weights
}
