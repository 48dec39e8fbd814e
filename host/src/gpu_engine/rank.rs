//! One device's part of a model, and the kernels it is made to run.

use half::bf16;
use shared::block::tiled_len;
use shared::model::ModelConfig;
use shared::sampling::Draw;

use super::arena::Arena;
use super::kv::KvMemory;
use super::plan::{Plan, Span};
use super::upload::{Dense, DeviceExperts, DeviceWeights};
use super::{GpuEngineError, GpuOptions};
use crate::gpu::launch::Kernels;
use crate::gpu::launch::attention::{Attention, AttentionShape};
use crate::gpu::launch::linear::{Linear, LinearPath, LinearShape, Store};
use crate::gpu::launch::moe::{ExpertPath, ExpertWeights, Routing, Sorted};
use crate::gpu::launch::rows::{Heads, RopeKv};
use crate::gpu::{DeviceBuffer, DeviceSlice, GpuError, Stream};
use crate::pages::Geometry;
use crate::rope;

/// A device with its stream, kernels, weights, buffers and pages.
pub struct Rank {
    config: ModelConfig,
    /// Everything runs here, in order.
    pub stream: Stream,
    kernels: Kernels,
    /// Its weights.
    pub weights: DeviceWeights,
    /// Buffers of a step.
    pub arena: Arena,
    kv: KvMemory,
    /// `[max_positions, 2, head_dim / 2]`.
    rope: DeviceBuffer<f32>,
}

impl Rank {
    /// Takes what is loaded already and allocates the rest.
    pub fn new(
        config: &ModelConfig,
        options: &GpuOptions,
        geometry: Geometry,
        (stream, kernels, weights): (Stream, Kernels, DeviceWeights),
    ) -> Result<Rank, GpuEngineError> {
        let arena = Arena::new(&stream, config, options, kernels.family())?;
        let kv = KvMemory::new(&stream, config, geometry)?;
        let mut table = rope::Table::new(config);
        table.grow(options.max_positions);
        let rope = stream.buffer_from(table.values())?;
        Ok(Rank { config: config.clone(), stream, kernels, weights, arena, kv, rope })
    }

    fn index(&self, span: &Span) -> DeviceSlice<'_, u32> {
        self.arena.indices.slice(span.clone())
    }

    /// Queues the rows of the step's tokens into the residual stream.
    pub fn embed(&self, plan: &Plan) -> Result<(), GpuError> {
        let (arena, hidden) = (&self.arena, self.config.hidden_size);
        let (table, tokens) = (self.weights.embedding.view(), self.index(&plan.tokens));
        let (chosen, x) = (arena.chosen.view(), arena.x.slice(..plan.rows * hidden));
        self.kernels.embed(&self.stream, table, tokens, chosen, x, hidden)
    }

    fn linear(
        &self,
        rows: usize,
        dense: &Dense,
        x: DeviceSlice<'_, bf16>,
        out: DeviceSlice<'_, f32>,
        store: Store,
    ) -> Result<(), GpuError> {
        let (n, k) = (dense.n, dense.k);
        let buffers = Linear {
            w: dense.w.view(),
            format: dense.format,
            x: x.slice(..tiled_len(rows, k)),
            bias: dense.bias.view(),
            out: out.slice(..rows * n),
        };
        let shape = LinearShape { n, rows, k };
        self.kernels.linear(&self.stream, LinearPath::for_rows(rows), shape, store, buffers)
    }

    /// Queues attention of layer `l`, its output added to the residual stream.
    pub fn attention(&self, plan: &Plan, l: usize) -> Result<(), GpuError> {
        self.queries(plan, l)?;
        self.attend(plan, l)?;
        let layer = &self.weights.layers[l];
        let arena = &self.arena;
        self.linear(plan.rows, &layer.o, arena.attention.view(), arena.x.view(), Store::Add)
    }

    /// Queues the queries of layer `l`, and its keys and values into their pages.
    fn queries(&self, plan: &Plan, l: usize) -> Result<(), GpuError> {
        let (arena, config, rows) = (&self.arena, &self.config, plan.rows);
        let layer = &self.weights.layers[l];
        let class = usize::from(config.window(l).is_some());
        let (x, eps) = (arena.x.slice(..rows * config.hidden_size), config.rms_norm_eps);
        let t = arena.normed.slice(..tiled_len(rows, config.hidden_size));
        self.kernels.rmsnorm_tiled(&self.stream, x, layer.attn_norm.view(), t, eps)?;
        self.linear(rows, &layer.qkv, arena.normed.view(), arena.qkv.view(), Store::Replace)?;
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let shape_heads = Heads { heads, kv_heads, head_dim: config.head_dim };
        let width = config.q_dim() + 2 * config.kv_dim();
        let queries = kv_heads * tiled_len(rows * config.group_size(), config.head_dim);
        let buffers = RopeKv {
            qkv: arena.qkv.slice(..rows * width),
            rope: self.rope.view(),
            positions: self.index(&plan.positions),
            page_of: self.index(&plan.page_of[class]),
            q: arena.q.slice(..queries),
            pages: self.kv.layer(l),
        };
        // SAFETY: positions are below the engine's limit, for which `rope` has rows; each row's
        // page is its own sequence's.
        unsafe { self.kernels.qkv_rope_kv(&self.stream, shape_heads, buffers) }
    }

    /// Queues the queries' way through the pages of layer `l`.
    fn attend(&self, plan: &Plan, l: usize) -> Result<(), GpuError> {
        let (arena, config) = (&self.arena, &self.config);
        let class = usize::from(config.window(l).is_some());
        let layer = &self.weights.layers[l];
        let shape = AttentionShape {
            rows: plan.rows,
            kv_heads: config.num_key_value_heads,
            group: config.group_size(),
            head_dim: config.head_dim,
            window: config.window(l),
            scale: std::f32::consts::LOG2_E / (config.head_dim as f32).sqrt(),
        };
        let inputs = |tiles: &Span| Attention {
            q: arena.q.slice(..shape.q_len()),
            pages: self.kv.layer(l),
            table: self.index(&plan.tables[class]),
            tiles: self.index(tiles),
        };
        let out = arena.attention.slice(..shape.out_len());
        if plan.split_rows > 0 {
            let splits = plan.splits(config.window(l));
            let parts = arena.parts.slice(..shape.parts_len(plan.split_rows, splits));
            let positions = self.index(&plan.positions);
            // SAFETY: tiles are runs of at most 16 rows, all below `split_rows`, of sequences whose
            // pages are in the table from their first visible position on. The launch before wrote
            // keys and values of this step only; a split chunk is one tile, or one token.
            unsafe {
                let inputs = inputs(&plan.split_tiles);
                self.kernels.attention_split(
                    &self.stream,
                    shape,
                    inputs,
                    splits,
                    parts,
                    plan.split_rows,
                )?;
                self.kernels.attention_merge(
                    &self.stream,
                    shape,
                    splits,
                    parts,
                    positions,
                    layer.sinks.view(),
                    out,
                    plan.split_rows,
                )?;
            }
        }
        if !plan.whole_tiles.is_empty() {
            let inputs = inputs(&plan.whole_tiles);
            // SAFETY: as above, with runs of at most `WHOLE_ROWS` rows.
            unsafe {
                let sinks = layer.sinks.view();
                self.kernels.attention_whole(&self.stream, shape, inputs, sinks, out)?;
            }
        }
        Ok(())
    }

    /// Queues the experts of layer `l`, their outputs added to the residual stream.
    pub fn experts(&self, plan: &Plan, l: usize) -> Result<(), GpuError> {
        let (arena, config, rows) = (&self.arena, &self.config, plan.rows);
        let layer = &self.weights.layers[l];
        let (stream, kernels) = (&self.stream, &self.kernels);
        let (experts, top_k) = (config.num_local_experts, config.num_experts_per_tok);
        let hidden = config.hidden_size;
        let routing = Routing { rows, experts, top_k };
        let (assignments, slots) = (routing.assignments(), routing.max_slots());
        let few = assignments <= 16 * experts;
        let path = if few { ExpertPath::Skinny } else { ExpertPath::Tile };
        let tiles = routing.max_tiles(path, kernels.family());

        let t = arena.normed.slice(..tiled_len(rows, hidden));
        let residual = arena.x.slice(..rows * hidden);
        kernels.rmsnorm_tiled(stream, residual, layer.mlp_norm.view(), t, config.rms_norm_eps)?;
        self.linear(rows, &layer.router, arena.normed.view(), arena.router.view(), Store::Replace)?;
        let ids = arena.ids.slice(..assignments);
        let weights = arena.weights.slice(..assignments);
        let logits = arena.router.slice(..rows * experts);
        kernels.moe_route(stream, routing, logits, ids, weights)?;
        let sorted = Sorted {
            assignment_of: arena.assignment_of.slice(..slots),
            slot_of: arena.slot_of.slice(..assignments),
            tiles: arena.tiles.slice(..tiles * shared::kernels::moe::TILE_WORDS as usize),
            num_tiles: arena.num_tiles.view(),
        };
        fn view(experts: &DeviceExperts) -> ExpertWeights<'_> {
            let DeviceExperts { format, n, k, .. } = *experts;
            ExpertWeights { w: experts.w.view(), bias: experts.bias.view(), format, n, k }
        }
        let act = arena.act.slice(..tiled_len(slots, config.intermediate_size));
        let y = arena.y.slice(..slots * hidden);
        // SAFETY: each list is what the launch before it makes for this routing and path.
        unsafe {
            kernels.moe_sort(stream, routing, path, ids, sorted)?;
            let x = arena.gathered.slice(..tiled_len(slots, hidden));
            kernels.moe_gather(stream, routing, hidden, t, sorted.assignment_of, x)?;
            let gate_up = view(&layer.gate_up);
            let limit = config.swiglu_limit;
            kernels.moe_gate_up(stream, routing, path, gate_up, sorted, x, act, limit)?;
            let down = view(&layer.down);
            kernels.moe_down(stream, routing, path, down, sorted, act, y)?;
            kernels.moe_combine(stream, routing, y, sorted.slot_of, weights, residual, hidden)
        }
    }

    /// Queues the logits of outputs `first..first + rows`, at most as many as the arena has.
    pub fn logits(&self, plan: &Plan, first: usize, rows: usize) -> Result<(), GpuError> {
        let start = plan.outputs.start + first;
        let hidden = self.config.hidden_size;
        let last = self.arena.last.slice(..tiled_len(rows, hidden));
        let index = self.index(&(start..start + rows));
        let x = self.arena.x.slice(..plan.rows * hidden);
        let (weight, eps) = (self.weights.norm.view(), self.config.rms_norm_eps);
        // SAFETY: the rows named are rows of this step.
        unsafe { self.kernels.rmsnorm_tiled_rows(&self.stream, x, weight, index, last, eps)? };
        let (w, out) = (&self.weights.unembedding, self.arena.logits.view());
        self.linear(rows, w, self.arena.last.view(), out, Store::Replace)
    }

    /// Queues the choice of a token from each of the first `rows` rows of logits, those of outputs
    /// `first..first + rows`.
    pub fn choose(&self, plan: &Plan, first: usize, rows: usize) -> Result<(), GpuError> {
        let logits = self.arena.logits.slice(..rows * self.config.vocab_size);
        let chosen = self.arena.chosen.slice(first..first + rows);
        if plan.draws.is_empty() {
            return self.kernels.argmax(&self.stream, logits, chosen);
        }
        let start = plan.draws.start + first * Draw::WORDS;
        let draws = self.index(&(start..start + rows * Draw::WORDS));
        self.kernels.sample(&self.stream, logits, draws, chosen)
    }
}
