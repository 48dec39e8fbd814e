//! The engine on a GPU: real AMD, NVIDIA, or emulated.
//!
//! Weights are packed and uploaded once; memory for activations and the paged KV cache is planned
//! before the first launch. A step uploads one block of indices and queues its kernels, without
//! waiting for any of them; counts of tokens per expert stay on the device. The tokens it chooses
//! stay there too, for the step behind it, and are copied to the host beside its work: while one
//! step runs, the host reads the tokens of the one before and queues the next.
//!
//! Tokens are chosen on the device, by the algorithm of the CPU engine: the same logits give the
//! same token, whatever the temperature. Logits come back only when they are asked for.

mod arena;
mod flight;
mod forward;
mod graphs;
mod kv;
mod plan;
mod rank;
pub(crate) mod staging;
pub(crate) mod upload;

use std::path::PathBuf;
use std::slice;
use std::sync::Arc;

use arena::Arena;
use flight::{Asked, Flight};
use forward::{Alone, Forward};
use graphs::Graphs;
use rank::Rank;
use shared::kv::{HEAD_DIMS, PAGE};
use shared::model::ModelConfig;
use upload::{DeviceWeights, Target};

use crate::engine::{self, Before, Chunk, Engine, EngineError, Limits, Outcome, Ticket};
use crate::gpu::launch::Kernels;
use crate::gpu::launch::linear::DenseFormat;
use crate::gpu::{Device, GpuError, Recorded, Stream};
use crate::kernels;
use crate::kv_budget::{KvBudget, Supply, geometry_bytes};
use crate::model::Weights;
use crate::pages::Geometry;

/// Steps under way at a time: one computes while the next is laid out.
const IN_FLIGHT: usize = 2;

/// How to run.
#[derive(Clone, Debug)]
pub struct GpuOptions {
    /// Sequences open at a time.
    pub max_sequences: usize,
    /// Positions of one sequence.
    pub max_positions: usize,
    /// Tokens in one step: bounds the memory for activations.
    pub max_step_tokens: usize,
    /// Memory for keys and values.
    pub budget: KvBudget,
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
            budget: KvBudget::Free,
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
    /// A limit of 0.
    #[error("{0} is 0, expected at least 1")]
    Zero(&'static str),
    /// The model and the least it can run with are larger than the device's memory.
    #[error(
        "the model does not fit {device}: weights {weights} MB + activations {activations} MB + \
         KV cache of at least {cache} MB, and {free} MB are free"
    )]
    DoesNotFit {
        /// Device.
        device: String,
        /// Weights as packed.
        weights: u64,
        /// Activations of one step.
        activations: u64,
        /// The least memory for keys and values; all that is asked for, where that is fixed.
        cache: u64,
        /// Free device memory.
        free: u64,
    },
}

/// [`Engine`] on a GPU.
pub struct GpuEngine {
    /// Recorded steps. First, so that they go, and the stream is empty, before what they use.
    graphs: Recorded<Graphs>,
    config: ModelConfig,
    options: GpuOptions,
    geometry: Geometry,
    forward: Forward,
    flights: Vec<Flight>,
    /// Steps submitted so far.
    steps: u64,
    before: Before,
    /// Where the tokens of the last step are among the chosen ones, by its chunks.
    chosen: Vec<Option<usize>>,
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
        options.check()?;
        check_shapes(&weights.config)?;
        let mut ready = Vec::new();
        for device in devices {
            let chip = &device.properties().arch;
            let code = kernels::code_object(chip, options.kernels.as_deref())?;
            let kernels = Kernels::load(device, chip, &code)?;
            let geometry = plan_memory(device, weights, &options, kernels.family())?;
            ready.push((Stream::new(device)?, kernels, geometry));
        }
        let targets: Vec<_> = ready
            .iter()
            .map(|(stream, kernels, _)| Target { stream, family: kernels.family() })
            .collect();
        let uploaded = DeviceWeights::upload_all(&targets, options.dense, weights, &mut progress)?;
        let ranks =
            ready.into_iter().zip(uploaded).map(|((stream, kernels, geometry), uploaded)| {
                let parts = (stream, kernels, uploaded);
                Ok((Rank::new(&weights.config, &options, geometry, parts)?, geometry))
            });
        ranks
            .map(|rank| rank.and_then(|rank| GpuEngine::with(rank, &weights.config, &options)))
            .collect()
    }

    /// The engine around a rank that holds the whole model.
    fn with(
        (rank, geometry): (Rank, Geometry),
        config: &ModelConfig,
        options: &GpuOptions,
    ) -> Result<GpuEngine, GpuEngineError> {
        let flights = (0..IN_FLIGHT)
            .map(|_| Flight::new(rank.stream.device(), config, options))
            .collect::<Result<_, _>>()?;
        Ok(GpuEngine {
            graphs: Recorded::new(&rank.stream, Graphs::default()),
            config: config.clone(),
            options: options.clone(),
            geometry,
            forward: Forward { ranks: vec![rank], exchange: Box::new(Alone) },
            flights,
            steps: 0,
            before: Before::default(),
            chosen: Vec::new(),
        })
    }
}

impl GpuOptions {
    fn check(&self) -> Result<(), GpuEngineError> {
        for (name, value) in [
            ("max_sequences", self.max_sequences),
            ("max_positions", self.max_positions),
            ("max_step_tokens", self.max_step_tokens),
        ] {
            if value == 0 {
                return Err(GpuEngineError::Zero(name));
            }
        }
        Ok(())
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

/// Decides how many pages there are, or refuses a model that does not fit, before anything is
/// allocated.
fn plan_memory(
    device: &Device,
    weights: &Weights,
    options: &GpuOptions,
    family: shared::block::Family,
) -> Result<Geometry, GpuEngineError> {
    let (free, _) = device.memory()?;
    let config = &weights.config;
    let bytes_weights = upload::bytes(weights, options.dense);
    // The table of rotations is one more buffer that a step reads.
    let rope = 4 * options.max_positions as u64 * config.head_dim as u64;
    let bytes_arena = Arena::bytes(config, options, family).saturating_add(rope);
    let rest = free.checked_sub(bytes_weights.saturating_add(bytes_arena));
    let page_bytes = kv::page_bytes(config);
    let supply = Supply { free: rest.unwrap_or(0), page_bytes, in_flight: IN_FLIGHT };
    let sizes = (options.max_sequences, options.max_positions);
    let planned = options.budget.geometry(config, sizes, options.max_step_tokens, supply);
    match (rest, planned) {
        (Some(_), Ok(geometry)) => Ok(geometry),
        (_, planned) => {
            let mb = |bytes: u64| bytes.div_ceil(1_000_000);
            let least = |geometry| mb(geometry_bytes(config, &geometry, supply));
            Err(GpuEngineError::DoesNotFit {
                device: device.to_string(),
                weights: mb(bytes_weights),
                activations: mb(bytes_arena),
                cache: planned.map_or_else(|error| error.least, least),
                free: mb(free),
            })
        }
    }
}

impl Engine for GpuEngine {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn limits(&self) -> Limits {
        Limits {
            max_chunks: self.options.max_sequences,
            max_step_tokens: self.options.max_step_tokens,
            max_positions: self.options.max_positions.min(self.config.max_position_embeddings),
            max_in_flight: IN_FLIGHT,
            pages: self.geometry,
        }
    }

    fn describe(&self) -> String {
        let rank = self.forward.first();
        let weights = rank.weights.bytes() as f64 / 1e9;
        let positions = self.geometry.full * PAGE;
        format!(
            "{}: weights {weights:.2} GB, KV cache for {positions} positions",
            rank.stream.device(),
        )
    }

    fn submit(&mut self, chunks: &[Chunk<'_>]) -> Result<Ticket, EngineError> {
        let at = self.steps as usize % IN_FLIGHT;
        if self.flights[at].asked.is_some() {
            let why = format!("{IN_FLIGHT} steps are under way, expected one to be waited for");
            return Err(EngineError::Invalid(why));
        }
        let failed = engine::check(chunks, &self.config, &self.limits(), &self.before)?;
        let good: Vec<&Chunk<'_>> =
            chunks.iter().zip(&failed).filter(|(_, f)| f.is_none()).map(|(c, _)| c).collect();
        let flight = &mut self.flights[at];
        flight.plan.lay_out(&self.config, &good, &self.chosen);
        let questions = flight.questions(chunks, failed);
        self.before = Before::of(chunks);
        self.chosen = Flight::choices(&questions);
        let logits = match good.is_empty() {
            true => Ok(Vec::new()),
            false => self.queue(at),
        };
        let logits = logits.map_err(|error| {
            // What was queued may not lose what it reads. The first error tells more than what
            // the wait may add.
            let _ = self.forward.first().stream.synchronize();
            EngineError::from(error)
        })?;
        self.steps += 1;
        self.flights[at].asked = Some(Asked { step: self.steps, questions, logits });
        Ok(Ticket::new(self.steps))
    }

    fn wait(&mut self, ticket: Ticket) -> Result<Vec<Outcome>, EngineError> {
        let step = ticket.number();
        let is_it = |flight: &Flight| flight.asked.as_ref().is_some_and(|asked| asked.step == step);
        let Some(flight) = self.flights.iter_mut().find(|flight| is_it(flight)) else {
            return Err(EngineError::Invalid(format!("step {step} is not under way")));
        };
        flight.done.synchronize()?;
        let Some(asked) = flight.asked.take() else { return Ok(Vec::new()) };
        Ok(flight.answer(asked, self.config.vocab_size))
    }
}

impl GpuEngine {
    /// Queues the step laid out at `at`, and reads the logits that are wanted.
    fn queue(&mut self, at: usize) -> Result<Vec<f32>, GpuError> {
        let Flight { plan, chosen, done, .. } = &mut self.flights[at];
        let (forward, most) = (&self.forward, arena::output_rows(&self.options));
        let layers = self.config.num_hidden_layers;
        for rank in &forward.ranks {
            let words = plan.words();
            let indices = rank.arena.indices.slice(..words.len());
            // SAFETY: a flight's plan changes when its step was waited for, and an engine waits for
            // its stream before it drops.
            unsafe { rank.stream.upload_async(indices, words)? };
        }
        match plan.recipe(&self.config, most) {
            Some(recipe) => self.graphs.launch(recipe, forward, |forward| {
                forward.layers(plan, layers)?;
                forward.choices(plan, most)
            })?,
            None => {
                forward.layers(plan, layers)?;
                forward.choices(plan, most)?;
            }
        }
        let first = forward.first();
        let (stream, arena) = (&first.stream, &first.arena);
        let count = plan.choices;
        // SAFETY: as above; the tokens are read when the event behind the copy was waited for.
        unsafe { stream.download_async(&mut chosen[..count], arena.chosen.slice(..count))? };
        let mut logits = Vec::new();
        for row in (count..plan.outputs.len()).step_by(most) {
            let rows = most.min(plan.outputs.len() - row);
            first.logits(plan, row, rows)?;
            logits.extend(stream.read(arena.logits.slice(..rows * self.config.vocab_size))?);
        }
        done.record(stream)?;
        Ok(logits)
    }
}

impl From<GpuError> for EngineError {
    fn from(error: GpuError) -> EngineError {
        EngineError::DeviceLost(error.to_string())
    }
}
