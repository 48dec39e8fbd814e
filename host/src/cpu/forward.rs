//! One step through the model, layer by layer, on all rows at once.

use rayon::prelude::*;
use shared::model::ModelConfig;

use super::activations::{Activations, Order};
use super::attention::{Attend, Scratch};
use super::kv::{Element, Memory, View};
use super::matmul::{self, Product, dense_order, expert_order};
use super::moe::{Routes, swiglu};
use super::row::Row;
use super::simd::{LANES, Level, sum_lanes};
use crate::model::{Layer, Weights};
use crate::pages::PageTable;
use crate::rope;

/// Everything a step computes in; kept from step to step.
#[derive(Debug)]
pub struct Forward {
    level: Level,
    rope: rope::Table,
    /// One per thread.
    scratch: Vec<std::sync::Mutex<Scratch>>,
    /// The residual stream, `[rows, hidden]`.
    x: Vec<f32>,
    input: Activations,
    /// `0..`, for products that take every row.
    every: Vec<u32>,
    /// `[rows, q_dim]`, `[rows, kv_dim]` twice.
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// Outputs of attention, `[rows, q_dim]`.
    attended: Vec<f32>,
    /// `[rows, hidden]` or `[slots, hidden]`: what goes back to the residual stream.
    delta: Vec<f32>,
    /// `[rows, experts]`.
    router: Vec<f32>,
    routes: Routes,
    /// `[slots, 2 * intermediate]`.
    gate_up: Vec<f32>,
    inner: Activations,
    /// `[rows that are asked for, vocab]`.
    logits: Vec<f32>,
}

/// `buffer` with at least `len` elements, cut to it.
fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

impl Forward {
    /// Buffers for `threads` threads.
    pub fn new(config: &ModelConfig, level: Level, threads: usize) -> Forward {
        Forward {
            level,
            rope: rope::Table::new(config),
            scratch: (0..threads).map(|_| Default::default()).collect(),
            x: Vec::new(),
            input: Activations::default(),
            every: Vec::new(),
            q: Vec::new(),
            k: Vec::new(),
            v: Vec::new(),
            attended: Vec::new(),
            delta: Vec::new(),
            router: Vec::new(),
            routes: Routes::default(),
            gate_up: Vec::new(),
            inner: Activations::default(),
            logits: Vec::new(),
        }
    }

    /// The logits `[wanted, vocab]` of the rows that `wanted` indexes. `tables` has the pages of each
    /// chunk, and `broken` gets, for each chunk, where its values went out of range first. Runs in a
    /// rayon pool of as many threads as given to [`Forward::new`].
    pub fn run<T: Element>(
        &mut self,
        weights: &Weights,
        memory: &mut Memory<T>,
        (rows, tables): (&[Row], &[&PageTable]),
        wanted: &[usize],
        broken: &mut [Option<String>],
    ) -> &[f32] {
        let config = &weights.config;
        let positions = rows.iter().map(|r| r.position + 1).max().unwrap_or(0);
        self.rope.grow(positions);
        let slots = rows.len() * config.num_experts_per_tok;
        self.every.extend(self.every.len() as u32..slots as u32);
        let hidden = config.hidden_size;
        let x = sized(&mut self.x, rows.len() * hidden);
        for (x, row) in x.chunks_exact_mut(hidden).zip(rows) {
            let token = row.token as usize;
            weights.embedding.decode_rows(token..token + 1, x);
        }
        let width = config.kv_dim();
        for (index, layer) in weights.layers.iter().enumerate() {
            self.qkv(config, layer, rows);
            let source = self.k.chunks_exact(width).zip(self.v.chunks_exact(width));
            for (row, (keys, values)) in rows.iter().zip(source) {
                memory.store(index, tables[row.chunk], row.position, keys, values);
            }
            self.attention(config, layer, index, memory, (rows, tables));
            self.add_attention(config, layer, rows.len());
            self.experts(config, layer, rows.len());
            self.find_broken(hidden, index, rows, broken);
        }
        self.unembed(weights, wanted);
        &self.logits[..wanted.len() * config.vocab_size]
    }

    /// RMSNorm of rows of `x` into `input`.
    fn norm(&mut self, config: &ModelConfig, scale: &[f32], orders: &[Order], rows: Rows<'_>) {
        let hidden = config.hidden_size;
        self.input.resize(rows.len(), hidden);
        let x = &self.x;
        self.input.fill(orders, |i, to| {
            rms_norm(&x[rows.index(i) * hidden..][..hidden], scale, config.rms_norm_eps, to);
        });
    }

    /// Queries, keys and values, rotated; queries divided by the square root of `head_dim`.
    fn qkv(&mut self, config: &ModelConfig, layer: &Layer, rows: &[Row]) {
        let n = rows.len();
        let orders = [&layer.q, &layer.k, &layer.v].map(|l| dense_order(&l.weight));
        self.norm(config, &layer.attn_norm, &orders, Rows::First(n));
        let (q_dim, kv_dim) = (config.q_dim(), config.kv_dim());
        let (q, k, v) = (
            sized(&mut self.q, n * q_dim),
            sized(&mut self.k, n * kv_dim),
            sized(&mut self.v, n * kv_dim),
        );
        let every = &self.every[..n];
        matmul::run(
            self.level,
            &[
                Product::dense(&layer.q.weight, &layer.q.bias, &self.input, every, q),
                Product::dense(&layer.k.weight, &layer.k.bias, &self.input, every, k),
                Product::dense(&layer.v.weight, &layer.v.bias, &self.input, every, v),
            ],
        );
        let scale = 1.0 / (config.head_dim as f32).sqrt();
        let heads = self.q[..n * q_dim]
            .par_chunks_exact_mut(q_dim)
            .zip(self.k[..n * kv_dim].par_chunks_exact_mut(kv_dim));
        heads.zip(rows).for_each(|((q, k), row)| {
            self.rope.rotate(row.position, q);
            self.rope.rotate(row.position, k);
            q.iter_mut().for_each(|q| *q *= scale);
        });
    }

    fn attention<T: Element>(
        &mut self,
        config: &ModelConfig,
        layer: &Layer,
        index: usize,
        memory: &Memory<T>,
        (rows, tables): (&[Row], &[&PageTable]),
    ) {
        let n = rows.len();
        let span = config.group_size() * config.head_dim;
        let caches: Vec<View<'_, T>> =
            rows.iter().map(|row| memory.view(index, tables[row.chunk])).collect();
        let attended = sized(&mut self.attended, n * config.q_dim());
        let tasks = attended.par_chunks_exact_mut(span).zip(self.q.par_chunks_exact(span));
        tasks.enumerate().with_max_len(1).for_each(|(task, (output, queries))| {
            let (row, head) =
                (task / config.num_key_value_heads, task % config.num_key_value_heads);
            let thread = rayon::current_thread_index().unwrap_or(0);
            let mut scratch = self.scratch[thread].lock().unwrap_or_else(|e| e.into_inner());
            self.level.run(Attend {
                cache: caches[row],
                shape: memory.shape(),
                head,
                position: rows[row].position,
                window: config.window(index),
                queries,
                sinks: &layer.sinks[head * config.group_size()..][..config.group_size()],
                output,
                scratch: &mut scratch,
            });
        });
    }

    /// Adds the output projection of attention to the residual stream.
    fn add_attention(&mut self, config: &ModelConfig, layer: &Layer, rows: usize) {
        let (hidden, q_dim) = (config.hidden_size, config.q_dim());
        self.input.resize(rows, q_dim);
        let attended = &self.attended;
        self.input.fill(&[dense_order(&layer.o.weight)], |i, to| {
            to.copy_from_slice(&attended[i * q_dim..][..q_dim]);
        });
        let delta = sized(&mut self.delta, rows * hidden);
        let every = &self.every[..rows];
        let o = Product::dense(&layer.o.weight, &layer.o.bias, &self.input, every, delta);
        matmul::run(self.level, &[o]);
        for (x, delta) in self.x[..rows * hidden].iter_mut().zip(&self.delta) {
            *x += delta;
        }
    }

    /// Adds the mixture of experts to the residual stream.
    fn experts(&mut self, config: &ModelConfig, layer: &Layer, rows: usize) {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let orders = [dense_order(&layer.router.weight), expert_order(&layer.gate_up)];
        self.norm(config, &layer.mlp_norm, &orders, Rows::First(rows));
        let router = sized(&mut self.router, rows * config.num_local_experts);
        let every = &self.every;
        matmul::run(
            self.level,
            &[Product::dense(
                &layer.router.weight,
                &layer.router.bias,
                &self.input,
                &every[..rows],
                router,
            )],
        );
        self.routes.choose(&self.router[..rows * config.num_local_experts], config);

        let slots = self.routes.slots();
        let gate_up = sized(&mut self.gate_up, slots * 2 * inner);
        let mut rest = gate_up;
        let mut products = Vec::new();
        for (expert, slots) in self.routes.visited() {
            let (output, after) = rest.split_at_mut(slots.len() * 2 * inner);
            rest = after;
            let rows = &self.routes.rows()[slots];
            products.push(Product::expert(&layer.gate_up, expert, &self.input, rows, output));
        }
        matmul::run(self.level, &products);

        self.inner.resize(slots, inner);
        let gate_up = &self.gate_up;
        self.inner.fill(&[expert_order(&layer.down)], |slot, to| {
            swiglu(&gate_up[slot * 2 * inner..][..2 * inner], to, config.swiglu_limit);
        });
        let mut rest = sized(&mut self.delta, slots * hidden);
        let mut products = Vec::new();
        for (expert, slots) in self.routes.visited() {
            let (output, after) = rest.split_at_mut(slots.len() * hidden);
            rest = after;
            let rows = &every[slots];
            products.push(Product::expert(&layer.down, expert, &self.inner, rows, output));
        }
        matmul::run(self.level, &products);

        let (routes, delta) = (&self.routes, &self.delta);
        let x = self.x[..rows * hidden].par_chunks_exact_mut(hidden);
        x.enumerate().for_each(|(row, x)| {
            for (slot, weight) in routes.visits(row, config.num_experts_per_tok) {
                for (x, delta) in x.iter_mut().zip(&delta[slot * hidden..][..hidden]) {
                    *x += weight * delta;
                }
            }
        });
    }

    /// Names the layer and token at which the residual stream of a chunk broke. Such a row goes on
    /// as zeros: its chunk has failed, and the others of its step are not to meet a NaN.
    fn find_broken(
        &mut self,
        hidden: usize,
        layer: usize,
        rows: &[Row],
        broken: &mut [Option<String>],
    ) {
        for (x, row) in self.x.chunks_exact_mut(hidden).zip(rows) {
            // A sum of zeros unless something is infinite or NaN.
            if x.iter().map(|x| x * 0.0).sum::<f32>() != 0.0 {
                let Row { position, token, .. } = row;
                broken[row.chunk].get_or_insert_with(|| {
                    format!(
                        "the output of layer {layer} is not finite at position {position} (token \
                         {token}): the weights or an earlier value are out of range"
                    )
                });
                x.fill(0.0);
            }
        }
    }

    fn unembed(&mut self, weights: &Weights, wanted: &[usize]) {
        if wanted.is_empty() {
            return;
        }
        let order = [dense_order(&weights.unembedding)];
        self.norm(&weights.config, &weights.norm, &order, Rows::These(wanted));
        let logits = sized(&mut self.logits, wanted.len() * weights.config.vocab_size);
        let every = &self.every[..wanted.len()];
        let product = Product::dense(&weights.unembedding, &[], &self.input, every, logits);
        matmul::run(self.level, &[product]);
    }
}

/// Which rows of the residual stream.
#[derive(Clone, Copy)]
enum Rows<'a> {
    First(usize),
    These(&'a [usize]),
}

impl Rows<'_> {
    fn len(self) -> usize {
        match self {
            Rows::First(n) => n,
            Rows::These(rows) => rows.len(),
        }
    }

    fn index(self, i: usize) -> usize {
        match self {
            Rows::First(_) => i,
            Rows::These(rows) => rows[i],
        }
    }
}

/// `x / sqrt(mean(x^2) + eps) * scale`, squares summed in 16 partial sums by index modulo 16.
fn rms_norm(x: &[f32], scale: &[f32], eps: f32, to: &mut [f32]) {
    let (vectors, rest) = x.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for vector in vectors {
        for (sum, x) in sums.iter_mut().zip(vector) {
            *sum += x * x;
        }
    }
    debug_assert!(rest.is_empty(), "the width of the residual stream is a multiple of 32");
    let factor = 1.0 / (sum_lanes(sums) / x.len() as f32 + eps).sqrt();
    for ((to, x), scale) in to.iter_mut().zip(x).zip(scale) {
        *to = x * factor * scale;
    }
}
