//! One step: the kernels it is made of.

use half::bf16;
use shared::block::tiled_len;
use shared::kernels::rows::NOT_FINITE;
use shared::sampling::Draw;

use super::arena::OUTPUT_ROWS;
use super::plan::{Plan, Recipe, Span};
use super::upload::{Dense, DeviceExperts, DeviceLayer};
use super::{GpuEngine, GpuEngineError};
use crate::engine::{Chunk, EngineError, Output, Want};
use crate::gpu::launch::attention::{Attention, AttentionShape};
use crate::gpu::launch::linear::{Linear, LinearPath, LinearShape, Store};
use crate::gpu::launch::moe::{ExpertPath, ExpertWeights, Routing, Sorted};
use crate::gpu::launch::rows::{Heads, RopeKv};
use crate::gpu::{DeviceSlice, GpuError, Graph};

impl From<GpuError> for EngineError {
    fn from(error: GpuError) -> EngineError {
        EngineError::Device(error.to_string())
    }
}

impl From<GpuEngineError> for EngineError {
    fn from(error: GpuEngineError) -> EngineError {
        EngineError::Device(error.to_string())
    }
}

impl GpuEngine {
    /// Runs the planned step.
    pub(super) fn run(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Output>, EngineError> {
        if self.plan.rows == 0 {
            return Ok(Vec::new());
        }
        let outputs = self.queue_and_read(chunks);
        if outputs.is_err() {
            // The plan may not change before it has been read. The first error tells more than
            // what the wait may add.
            let _ = self.stream.synchronize();
        }
        outputs
    }

    fn queue_and_read(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Output>, EngineError> {
        let words = self.plan.words();
        let indices = self.arena.indices.slice(..words.len());
        // SAFETY: the plan changes in the next step, and every path from here waits for the stream.
        unsafe { self.stream.upload_async(indices, words)? };
        match self.plan.recipe(&self.config, chunks) {
            Some(recipe) => {
                self.replay(recipe)?;
                answers(&self.plan.wanted, chunks, &self.chosen, &[])
            }
            None => {
                self.queue(&self.plan)?;
                let outputs = self.outputs(&self.plan, chunks);
                self.stream.synchronize()?;
                outputs
            }
        }
    }

    /// Runs a step whose launches are those of the step before, by replaying them: at one token a
    /// step, launching some three hundred kernels would take as long as running them.
    fn replay(&mut self, recipe: Recipe) -> Result<(), GpuError> {
        let rows = self.plan.outputs.len();
        if self.recorded.as_ref().is_none_or(|(known, _)| *known != recipe) {
            let graph = Graph::record(&self.stream, || {
                self.queue(&self.plan)?;
                self.logits(&self.plan, 0, rows)?;
                self.choose(&self.plan, 0, rows)
            })?;
            *self.recorded = Some((recipe, graph));
        }
        if let Some((_, graph)) = &*self.recorded {
            // SAFETY: the graph uses buffers and kernels of this engine only.
            unsafe { graph.launch(&self.stream)? };
        }
        self.stream.download(&mut self.chosen[..rows], self.arena.chosen.slice(..rows))
    }

    fn index(&self, span: &Span) -> DeviceSlice<'_, u32> {
        self.arena.indices.slice(span.clone())
    }

    /// Queues everything up to the residual stream after the last layer.
    fn queue(&self, plan: &Plan) -> Result<(), GpuError> {
        let (arena, hidden) = (&self.arena, self.config.hidden_size);
        let (table, tokens) = (self.weights.embedding.view(), self.index(&plan.tokens));
        let x = arena.x.slice(..plan.rows * hidden);
        // SAFETY: tokens are below the vocabulary, as `GpuEngine::check` saw.
        unsafe { self.kernels.embed(&self.stream, table, tokens, x, hidden)? };
        for (l, layer) in self.weights.layers.iter().enumerate() {
            self.attention(plan, l, layer)?;
            self.experts(plan, layer)?;
        }
        Ok(())
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

    fn attention(&self, plan: &Plan, l: usize, layer: &DeviceLayer) -> Result<(), GpuError> {
        let (arena, config, rows) = (&self.arena, &self.config, plan.rows);
        let class = usize::from(config.window(l).is_some());
        let (x, eps) = (arena.x.slice(..rows * config.hidden_size), config.rms_norm_eps);
        let t = arena.t.slice(..tiled_len(rows, config.hidden_size));
        self.kernels.rmsnorm_tiled(&self.stream, x, layer.attn_norm.view(), t, eps)?;
        self.linear(rows, &layer.qkv, arena.t.view(), arena.qkv.view(), Store::Replace)?;
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
            pages: self.cache.layer(l),
        };
        // SAFETY: positions are below the engine's limit, for which `rope` has rows; each row's
        // page is its own sequence's.
        unsafe { self.kernels.qkv_rope_kv(&self.stream, shape_heads, buffers)? };

        let shape = AttentionShape {
            rows,
            kv_heads,
            group: config.group_size(),
            head_dim: config.head_dim,
            window: config.window(l),
            scale: std::f32::consts::LOG2_E / (config.head_dim as f32).sqrt(),
        };
        let inputs = |tiles: &Span| Attention {
            q: arena.q.slice(..shape.q_len()),
            pages: self.cache.layer(l),
            table: self.index(&plan.tables[class]),
            tiles: self.index(tiles),
        };
        let out = arena.attention.slice(..shape.out_len());
        if plan.split_rows > 0 {
            let splits = plan.splits(config.window(l));
            let parts = arena.parts.slice(..shape.parts_len(plan.split_rows, splits));
            let positions = self.index(&plan.positions);
            // SAFETY: tiles are runs of at most 16 rows, all below `split_rows`, of sequences whose
            // pages are in the table from their first visible position on; pages are finite. The
            // launch before wrote keys and values of this step only; a split chunk is one tile, or
            // one token.
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
        self.linear(rows, &layer.o, arena.attention.view(), arena.x.view(), Store::Add)
    }

    fn experts(&self, plan: &Plan, layer: &DeviceLayer) -> Result<(), GpuError> {
        let (arena, config, rows) = (&self.arena, &self.config, plan.rows);
        let (stream, kernels) = (&self.stream, &self.kernels);
        let (experts, top_k) = (config.num_local_experts, config.num_experts_per_tok);
        let hidden = config.hidden_size;
        let routing = Routing { rows, experts, top_k };
        let (assignments, slots) = (routing.assignments(), routing.max_slots());
        let few = assignments <= 16 * experts;
        let path = if few { ExpertPath::Skinny } else { ExpertPath::Tile };
        let tiles = routing.max_tiles(path, kernels.family());

        let t = arena.t.slice(..tiled_len(rows, hidden));
        let residual = arena.x.slice(..rows * hidden);
        kernels.rmsnorm_tiled(stream, residual, layer.mlp_norm.view(), t, config.rms_norm_eps)?;
        self.linear(rows, &layer.router, arena.t.view(), arena.router.view(), Store::Replace)?;
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

    /// Queues the logits of outputs `first..first + rows`, at most [`OUTPUT_ROWS`].
    fn logits(&self, plan: &Plan, first: usize, rows: usize) -> Result<(), GpuError> {
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
    fn choose(&self, plan: &Plan, first: usize, rows: usize) -> Result<(), GpuError> {
        let logits = self.arena.logits.slice(..rows * self.config.vocab_size);
        let chosen = self.arena.chosen.slice(..rows);
        if plan.draws.is_empty() {
            return self.kernels.argmax(&self.stream, logits, chosen);
        }
        let start = plan.draws.start + first * Draw::WORDS;
        let draws = self.index(&(start..start + rows * Draw::WORDS));
        self.kernels.sample(&self.stream, logits, draws, chosen)
    }

    /// Logits of the rows that want them, a few rows at a time, and what was asked of them.
    fn outputs(&self, plan: &Plan, chunks: &[Chunk<'_>]) -> Result<Vec<Output>, EngineError> {
        let vocab = self.config.vocab_size;
        let wanted = chunks.iter().any(|chunk| chunk.want == Want::Logits);
        let (mut logits, mut ids) = (Vec::new(), Vec::new());
        for first in (0..plan.outputs.len()).step_by(OUTPUT_ROWS) {
            let rows = OUTPUT_ROWS.min(plan.outputs.len() - first);
            self.logits(plan, first, rows)?;
            self.choose(plan, first, rows)?;
            ids.extend(self.stream.read(self.arena.chosen.slice(..rows))?);
            if wanted {
                logits.extend(self.stream.read(self.arena.logits.slice(..rows * vocab))?);
            }
        }
        answers(&plan.wanted, chunks, &ids, &logits)
    }
}

/// The chunks' answers from the tokens chosen on the device and, where they are wanted, all
/// outputs' `logits`; `wanted` has each chunk's first output and how many it has.
fn answers(
    wanted: &[(usize, usize)],
    chunks: &[Chunk<'_>],
    ids: &[u32],
    logits: &[f32],
) -> Result<Vec<Output>, EngineError> {
    let vocab = logits.len() / ids.len().max(1);
    chunks
        .iter()
        .zip(wanted)
        .map(|(chunk, &(first, rows))| match chunk.want {
            Want::Nothing => Ok(Output::Nothing),
            Want::Logits => Ok(Output::Logits(logits[first * vocab..][..rows * vocab].to_vec())),
            Want::Token(_) if ids[first] == NOT_FINITE => {
                Err(EngineError::Device(format!("sequence {}: logits are not finite", chunk.seq.0)))
            }
            Want::Token(_) => Ok(Output::Token(ids[first])),
        })
        .collect()
}
