//! The engine on a GPU: real AMD, NVIDIA, or emulated.
//!
//! Weights are packed and uploaded once; memory for activations and the paged KV cache is planned
//! before the first launch. A step uploads one block of indices, queues its kernels on one stream
//! without waiting for any of them, and reads tokens or logits back at the end. Counts of tokens
//! per expert stay on the device.
//!
//! Tokens are chosen on the device, by the algorithm of the CPU engine: the same logits give the
//! same token, whatever the temperature. Logits come back only when they are asked for.

mod arena;
mod cache;
mod plan;
pub(crate) mod staging;
mod step;
pub(crate) mod upload;

use std::path::PathBuf;
use std::slice;
use std::sync::Arc;

use arena::{Arena, OUTPUT_ROWS};
use cache::Cache;
use plan::{Plan, Recipe};
use shared::kv::{HEAD_DIMS, PAGE};
use shared::model::ModelConfig;
use upload::{DeviceWeights, Target};

use crate::engine::{Chunk, Engine, EngineError, Limits, Output, SeqId, Want};
use crate::gpu::launch::Kernels;
use crate::gpu::launch::linear::DenseFormat;
use crate::gpu::{Device, DeviceBuffer, GpuError, Graph, PinnedBuffer, Recorded, Stream};
use crate::kernels;
use crate::model::Weights;
use crate::rope;

/// How to run.
#[derive(Clone, Debug)]
pub struct GpuOptions {
    /// Sequences open at a time.
    pub max_sequences: usize,
    /// Positions of one sequence.
    pub max_positions: usize,
    /// Tokens in one step: bounds the memory for activations.
    pub max_step_tokens: usize,
    /// How dense weights are kept; the router is always bf16.
    pub dense: DenseFormat,
    /// Folder of code objects to use instead of the embedded ones.
    pub kernels: Option<PathBuf>,
}

impl Default for GpuOptions {
    fn default() -> GpuOptions {
        GpuOptions {
            max_sequences: 32,
            max_positions: 4096,
            max_step_tokens: 512,
            dense: DenseFormat::Bf16,
            kernels: None,
        }
    }
}

/// Why there is no GPU engine.
#[derive(Debug, thiserror::Error)]
pub enum GpuEngineError {
    /// The driver or the device refused.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// There are no kernels for this chip.
    #[error(transparent)]
    Kernels(#[from] kernels::KernelsError),
    /// The model is of a shape no kernel takes.
    #[error("{name} is {value}, expected {expected}")]
    Shape {
        /// Hyper-parameter.
        name: &'static str,
        /// Its value.
        value: usize,
        /// What kernels take.
        expected: String,
    },
    /// A tensor holds what kernels do not decode.
    #[error("{tensor}: {source}")]
    Pack {
        /// Tensor.
        tensor: String,
        /// Why.
        source: crate::gpu::pack::PackError,
    },
    /// The model and its cache are larger than the device's memory.
    #[error(
        "the model does not fit {device}: weights {weights} MB + activations {activations} MB + \
         KV cache {cache} MB ({per_sequence} MB for each of {sequences} sequences), and {free} MB \
         are free"
    )]
    DoesNotFit {
        /// Device.
        device: String,
        /// Weights as packed.
        weights: u64,
        /// Activations of one step.
        activations: u64,
        /// All pages.
        cache: u64,
        /// Pages of one sequence.
        per_sequence: u64,
        /// Sequences planned for.
        sequences: usize,
        /// Free device memory.
        free: u64,
    },
}

/// [`Engine`] on a GPU.
pub struct GpuEngine {
    /// The last decode step, ready to be replayed. First, so that it is dropped before what it
    /// uses.
    recorded: Recorded<Option<(Recipe, Graph)>>,
    config: ModelConfig,
    options: GpuOptions,
    stream: Stream,
    kernels: Kernels,
    weights: DeviceWeights,
    arena: Arena,
    cache: Cache,
    /// `[max_positions, 2, head_dim / 2]`.
    rope: DeviceBuffer<f32>,
    /// The step's indices.
    plan: Plan,
    /// Tokens chosen in a decode step, `[OUTPUT_ROWS]`.
    chosen: PinnedBuffer<u32>,
}

impl GpuEngine {
    /// Loads the kernels, plans memory, and uploads the weights. `progress` hears of bytes of
    /// weights sent so far and in all.
    pub fn new(
        device: &Device,
        weights: &Arc<Weights>,
        options: GpuOptions,
        progress: impl FnMut(u64, u64),
    ) -> Result<GpuEngine, GpuEngineError> {
        let mut engines = GpuEngine::new_all(slice::from_ref(device), weights, options, progress)?;
        Ok(engines.remove(0))
    }

    /// As [`GpuEngine::new`], an engine on each of `devices`, in order; the weights are read and
    /// packed once for all devices of a family.
    pub fn new_all(
        devices: &[Device],
        weights: &Arc<Weights>,
        options: GpuOptions,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Vec<GpuEngine>, GpuEngineError> {
        check_shapes(&weights.config)?;
        let mut ready = Vec::new();
        for device in devices {
            let chip = &device.properties().arch;
            let code = kernels::code_object(chip, options.kernels.as_deref())?;
            let kernels = Kernels::load(device, chip, &code)?;
            check_fit(device, weights, &options, kernels.family())?;
            ready.push((Stream::new(device)?, kernels));
        }
        let targets: Vec<_> = ready
            .iter()
            .map(|(stream, kernels)| Target { stream, family: kernels.family() })
            .collect();
        let uploaded = DeviceWeights::upload_all(&targets, options.dense, weights, &mut progress)?;
        let config = &weights.config;
        ready
            .into_iter()
            .zip(uploaded)
            .map(|((stream, kernels), uploaded)| {
                GpuEngine::with(stream, kernels, uploaded, config, options.clone())
            })
            .collect()
    }

    /// The engine around weights that are on its device.
    fn with(
        stream: Stream,
        kernels: Kernels,
        weights: DeviceWeights,
        config: &ModelConfig,
        options: GpuOptions,
    ) -> Result<GpuEngine, GpuEngineError> {
        let device = stream.device();
        let mut table = rope::Table::new(config);
        table.grow(options.max_positions);
        Ok(GpuEngine {
            plan: Plan::new(device, config, &options)?,
            chosen: PinnedBuffer::new(device, OUTPUT_ROWS)?,
            recorded: Recorded::new(&stream, None),
            arena: Arena::new(&stream, config, &options, kernels.family())?,
            cache: Cache::new(&stream, config, &options)?,
            rope: stream.buffer_from(table.values())?,
            config: config.clone(),
            options,
            stream,
            kernels,
            weights,
        })
    }
}

/// Refuses what no kernel was compiled for.
fn check_shapes(config: &ModelConfig) -> Result<(), GpuEngineError> {
    let limit = |name, value: usize, most: usize| {
        let expected = format!("at most {most}");
        if value <= most { Ok(()) } else { Err(GpuEngineError::Shape { name, value, expected }) }
    };
    if !HEAD_DIMS.contains(&config.head_dim) {
        return Err(GpuEngineError::Shape {
            name: "head_dim",
            value: config.head_dim,
            expected: format!("one of {HEAD_DIMS:?}"),
        });
    }
    limit("num_local_experts", config.num_local_experts, shared::kernels::moe::MAX_EXPERTS as _)?;
    limit("num_experts_per_tok", config.num_experts_per_tok, shared::kernels::moe::MAX_TOP_K as _)
}

/// Refuses a model that does not fit, before anything is allocated.
fn check_fit(
    device: &Device,
    weights: &Weights,
    options: &GpuOptions,
    family: shared::block::Family,
) -> Result<(), GpuEngineError> {
    let (free, _) = device.memory()?;
    let config = &weights.config;
    let bytes_weights = upload::bytes(weights, options.dense);
    // The table of rotations is one more buffer that a step reads.
    let rope = 4 * options.max_positions * config.head_dim;
    let bytes_arena = Arena::bytes(config, options, family) + rope as u64;
    let (bytes_cache, per_sequence) = Cache::bytes(config, options);
    if bytes_weights + bytes_arena + bytes_cache <= free {
        return Ok(());
    }
    let mb = |bytes: u64| bytes.div_ceil(1_000_000);
    Err(GpuEngineError::DoesNotFit {
        device: device.to_string(),
        weights: mb(bytes_weights),
        activations: mb(bytes_arena),
        cache: mb(bytes_cache),
        per_sequence: mb(per_sequence),
        sequences: options.max_sequences,
        free: mb(free),
    })
}

impl Engine for GpuEngine {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn limits(&self) -> Limits {
        Limits {
            max_sequences: self.options.max_sequences,
            max_step_tokens: self.options.max_step_tokens,
            max_positions: self.options.max_positions.min(self.config.max_position_embeddings),
        }
    }

    fn describe(&self) -> String {
        let weights = self.weights.bytes() / 1_000_000;
        format!(
            "{}: weights {weights} MB, KV cache for {} sequences of {} positions ({PAGE} a page)",
            self.stream.device(),
            self.options.max_sequences,
            self.options.max_positions,
        )
    }

    fn open(&mut self, max_positions: usize) -> Result<SeqId, EngineError> {
        let most = self.limits().max_positions;
        if max_positions > most {
            return Err(EngineError::Invalid(format!(
                "a sequence of {max_positions} positions, expected at most {most}"
            )));
        }
        self.cache.open(max_positions)
    }

    fn close(&mut self, seq: SeqId) {
        self.cache.close(seq);
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Output>, EngineError> {
        self.check(chunks)?;
        self.plan.lay_out(&self.config, &mut self.cache, chunks)?;
        self.run(chunks)
    }
}

impl GpuEngine {
    /// Refuses what breaks the contract of [`Engine::step`].
    fn check(&self, chunks: &[Chunk<'_>]) -> Result<(), EngineError> {
        let invalid = |why: String| Err(EngineError::Invalid(why));
        let tokens: usize = chunks.iter().map(|chunk| chunk.tokens.len()).sum();
        if tokens > self.options.max_step_tokens {
            let most = self.options.max_step_tokens;
            return invalid(format!("{tokens} tokens in a step, expected at most {most}"));
        }
        for (i, chunk) in chunks.iter().enumerate() {
            if chunk.tokens.is_empty() {
                return invalid(format!("chunk {i} has no token, expected at least one"));
            }
            let vocab = self.config.vocab_size;
            if let Some(token) = chunk.tokens.iter().find(|&&token| token as usize >= vocab) {
                return invalid(format!("token {token}, expected less than {vocab}"));
            }
            if chunks[..i].iter().any(|other| other.seq == chunk.seq) {
                return invalid(format!("sequence {} has two chunks in a step", chunk.seq.0));
            }
            if let Want::Token(sampling) = chunk.want {
                sampling.check().or_else(invalid)?;
            }
        }
        Ok(())
    }
}
