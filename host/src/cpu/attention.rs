//! Attention of one query position over its cache, for the query heads of one key-value head.
//!
//! Scores are sums over `head_dim`, in order; softmax sums 16 partial sums by position modulo 16;
//! outputs are sums over positions, in order. All three depend on absolute positions alone.

use std::ops::Range;

use shared::exp::exp;

use super::kv::{BLOCK_POSITIONS, Element, Shape, View};
use super::simd::{Kernel, LANES, Line, Simd, sum_lanes};

/// Buffers of one thread.
#[derive(Debug, Default)]
pub struct Scratch {
    /// `[query heads, blocks]` scores, then weights.
    scores: Vec<Line>,
    /// `[query heads, value vectors]`.
    sums: Vec<Line>,
}

/// One task.
pub struct Attend<'a, T> {
    /// The sequence's keys and values of this layer, up to `position` at least.
    pub cache: View<'a, T>,
    /// Of the cache.
    pub shape: Shape,
    /// Key-value head.
    pub head: usize,
    /// Of the query.
    pub position: usize,
    /// Positions seen, the query's own included; `None` is all.
    pub window: Option<usize>,
    /// `[query heads, head_dim]`, already divided by the square root of `head_dim`.
    pub queries: &'a [f32],
    /// `[query heads]`.
    pub sinks: &'a [f32],
    /// `[query heads, head_dim]`.
    pub output: &'a mut [f32],
    /// Of this thread.
    pub scratch: &'a mut Scratch,
}

/// Runs `$call` over `$count` heads, `$n` (8, 4, 2 or 1) of them from `$head` on at a time.
macro_rules! by_heads {
    ($count:expr, |$head:ident, $n:ident| $call:expr) => {{
        let mut $head = 0;
        while $head < $count {
            match $count - $head {
                8.. => {
                    const $n: usize = 8;
                    $call;
                    $head += $n;
                }
                4.. => {
                    const $n: usize = 4;
                    $call;
                    $head += $n;
                }
                2.. => {
                    const $n: usize = 2;
                    $call;
                    $head += $n;
                }
                _ => {
                    const $n: usize = 1;
                    $call;
                    $head += $n;
                }
            }
        }
    }};
}

impl<T: Element> Kernel for Attend<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let start = self.window.map_or(0, |window| (self.position + 1).saturating_sub(window));
        let first = start / BLOCK_POSITIONS;
        let blocks = self.position / BLOCK_POSITIONS + 1 - first;
        // Positions of block `b` that are seen.
        let seen = |b: usize| {
            let from = if b == 0 { start % BLOCK_POSITIONS } else { 0 };
            let to = if b + 1 == blocks { self.position % BLOCK_POSITIONS + 1 } else { LANES };
            from..to
        };
        let group = self.sinks.len();
        let vectors = self.shape.value_vectors();
        let Scratch { scores, sums } = self.scratch;
        // Grown, not cleared: every line in use is written before it is read.
        if scores.len() < group * blocks {
            scores.resize(group * blocks, Line::ZERO);
        }
        let scores = &mut scores[..group * blocks];
        sums.clear();
        sums.resize(group * vectors, Line::ZERO);
        for b in 0..blocks {
            let (keys, _) = self.cache.head(first + b, self.head, self.shape);
            by_heads!(group, |head, N| {
                score::<S, T, N>(simd, keys, self.queries, head, &mut scores[b..], blocks)
            });
        }
        for (scores, &sink) in scores.chunks_exact_mut(blocks).zip(self.sinks) {
            scores[0].0[..seen(0).start].fill(f32::NEG_INFINITY);
            scores[blocks - 1].0[seen(blocks - 1).end..].fill(f32::NEG_INFINITY);
            softmax(scores, sink);
        }
        for b in 0..blocks {
            let (_, values) = self.cache.head(first + b, self.head, self.shape);
            by_heads!(group, |head, N| {
                add_values::<S, T, N>(simd, values, seen(b), head, &scores[b..], blocks, sums)
            });
        }
        let outputs = self.output.chunks_exact_mut(self.shape.head_dim);
        for (output, sums) in outputs.zip(sums.chunks_exact(vectors)) {
            let sums: &[f32] = bytemuck::cast_slice(sums);
            output.copy_from_slice(&sums[..output.len()]);
        }
    }
}

/// Scores of one block for query heads `head..head + N`; `scores` starts at the block, heads
/// `stride` lines apart.
#[inline(always)]
fn score<S: Simd, T: Element, const N: usize>(
    simd: S,
    keys: &[[T; LANES]],
    queries: &[f32],
    head: usize,
    scores: &mut [Line],
    stride: usize,
) {
    let head_dim = keys.len();
    let queries = &queries[head * head_dim..][..N * head_dim];
    let mut acc = [simd.splat(0.0); N];
    for (d, keys) in keys.iter().enumerate() {
        let keys = T::load(simd, keys);
        for g in 0..N {
            acc[g] = simd.fma(simd.splat(queries[g * head_dim + d]), keys, acc[g]);
        }
    }
    for g in 0..N {
        simd.store(&mut scores[(head + g) * stride].0, acc[g]);
    }
}

/// Turns scores into weights; the sink takes its share and gives nothing.
#[inline(always)]
fn softmax(scores: &mut [Line], sink: f32) {
    let mut max = [sink; LANES];
    for line in scores.iter() {
        for (max, &score) in max.iter_mut().zip(&line.0) {
            *max = if score > *max { score } else { *max };
        }
    }
    let max = max.into_iter().fold(sink, f32::max);
    let mut sums = [0.0; LANES];
    for line in scores.iter_mut() {
        for (sum, score) in sums.iter_mut().zip(&mut line.0) {
            *score = exp(*score - max);
            *sum += *score;
        }
    }
    let scale = 1.0 / (sum_lanes(sums) + exp(sink - max));
    for line in scores {
        for weight in &mut line.0 {
            *weight *= scale;
        }
    }
}

/// Adds the weighted values of one block for query heads `head..head + N`, laid out as in
/// [`score`]; `sums` is `[query heads, value vectors]`.
#[inline(always)]
fn add_values<S: Simd, T: Element, const N: usize>(
    simd: S,
    values: &[[T; LANES]],
    seen: Range<usize>,
    head: usize,
    weights: &[Line],
    stride: usize,
    sums: &mut [Line],
) {
    let vectors = values.len() / BLOCK_POSITIONS;
    for v in 0..vectors {
        let mut acc = [simd.splat(0.0); N];
        for g in 0..N {
            acc[g] = simd.load(&sums[(head + g) * vectors + v].0);
        }
        for t in seen.clone() {
            let value = T::load(simd, &values[t * vectors + v]);
            for g in 0..N {
                let weight = simd.splat(weights[(head + g) * stride].0[t]);
                acc[g] = simd.fma(weight, value, acc[g]);
            }
        }
        for g in 0..N {
            simd.store(&mut sums[(head + g) * vectors + v].0, acc[g]);
        }
    }
}
