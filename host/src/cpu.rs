//! The CPU engine: the oracle of every kernel, and the engine of machines without a GPU.
//!
//! Weights are used as stored, in place in the mapped file; activations and sums are f32. A
//! logit depends on its sequence's tokens alone, bit for bit: not on the batch, the chunks, the
//! number of threads or the instruction set.

mod activations;
mod attention;
mod forward;
mod kv;
mod matmul;
mod memory;
mod moe;
mod row;
pub(crate) mod simd;

use std::sync::Arc;

use rayon::ThreadPool;
use shared::model::{ConfigError, ModelConfig};

use crate::engine::{
    self, Before, Chunk, ChunkError, Engine, EngineError, Limits, Outcome, Output, Ticket, Tokens,
    Want,
};
use crate::kv_budget::{KvBudget, Supply};
use crate::model::Weights;
use crate::pages::{Geometry, PageTable};
use crate::sampling;
use forward::Forward;
use half::bf16;
use kv::Memory;
use row::Row;
pub use simd::Isa;
use simd::Level;

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvDtype {
    /// Rounded to bf16: half the memory.
    #[default]
    Bf16,
    /// As computed.
    F32,
}

/// How to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuOptions {
    /// Threads; 0 is one per core.
    pub threads: usize,
    /// Instruction set.
    pub isa: Isa,
    /// KV cache.
    pub kv: KvDtype,
    /// Sequences that run together.
    pub max_sequences: usize,
    /// Positions of one sequence that memory is planned for.
    pub max_positions: usize,
    /// Tokens per step: bounds the memory for activations.
    pub max_step_tokens: usize,
    /// Memory for keys and values; a page gets its own when it is first used.
    pub budget: KvBudget,
}

impl Default for CpuOptions {
    fn default() -> CpuOptions {
        CpuOptions {
            threads: 0,
            isa: Isa::Auto,
            kv: KvDtype::Bf16,
            max_sequences: 1024,
            max_positions: usize::MAX,
            max_step_tokens: 512,
            budget: KvBudget::Free,
        }
    }
}

/// Why there is no CPU engine.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// The instruction set asked for is not there.
    #[error("this CPU does not have {0:?}")]
    NoIsa(Isa),
    /// The model cannot be run.
    #[error("config: {0}")]
    Config(ConfigError),
    /// Threads could not be started.
    #[error("cannot start threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// A limit of 0.
    #[error("{0} is 0, expected at least 1")]
    Zero(&'static str),
    /// Too little memory for keys and values.
    #[error(transparent)]
    Kv(#[from] crate::kv_budget::KvBudgetError),
}

/// [`Engine`] on the CPU.
#[derive(Debug)]
pub struct CpuEngine {
    weights: Arc<Weights>,
    options: CpuOptions,
    level: Level,
    pool: ThreadPool,
    geometry: Geometry,
    memory: KvMemory,
    forward: Forward,
    /// Whether each chunk of the last step chooses a token, and the one it chose.
    before: Before,
    chosen: Vec<Option<u32>>,
    steps: u64,
    /// The step that was submitted and not waited for.
    answered: Option<(u64, Vec<Outcome>)>,
}

#[derive(Debug)]
enum KvMemory {
    Bf16(Memory<bf16>),
    F32(Memory<f32>),
}

/// Runs an expression on the memory, whatever its element.
macro_rules! with {
    ($memory:expr, $of:ident => $body:expr) => {
        match $memory {
            KvMemory::Bf16($of) => $body,
            KvMemory::F32($of) => $body,
        }
    };
}

impl CpuEngine {
    /// An engine with no sequence open. Shapes in `weights` must match its config, as every
    /// loader checks.
    pub fn new(weights: Arc<Weights>, options: CpuOptions) -> Result<CpuEngine, CpuError> {
        let limits = [
            ("max_sequences", options.max_sequences),
            ("max_step_tokens", options.max_step_tokens),
            ("max_positions", options.max_positions),
        ];
        if let Some((name, _)) = limits.into_iter().find(|(_, value)| *value == 0) {
            return Err(CpuError::Zero(name));
        }
        let config = &weights.config;
        config.check().map_err(CpuError::Config)?;
        let level = Level::new(options.isa).ok_or(CpuError::NoIsa(options.isa))?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|i| format!("cpu-{i}"))
            .build()?;
        let page_bytes = match options.kv {
            KvDtype::Bf16 => Memory::<bf16>::page_bytes(config),
            KvDtype::F32 => Memory::<f32>::page_bytes(config),
        };
        // A mapped file counts as available, and is wanted in memory.
        let free = memory::available()
            .map_or(u64::MAX, |free| free.saturating_sub(weights.matrix_bytes()).max(free / 4));
        let supply = Supply { free, page_bytes: page_bytes as u64, in_flight: 1 };
        let geometry = options.budget.geometry(
            config,
            (options.max_sequences, options.max_positions.min(config.max_position_embeddings)),
            options.max_step_tokens,
            supply,
        )?;
        let memory = match options.kv {
            KvDtype::Bf16 => KvMemory::Bf16(Memory::new(config, geometry)),
            KvDtype::F32 => KvMemory::F32(Memory::new(config, geometry)),
        };
        let forward = Forward::new(config, level, pool.current_num_threads());
        let (before, chosen) = (Before::default(), Vec::new());
        let (steps, answered) = (0, None);
        Ok(CpuEngine {
            weights,
            options,
            level,
            pool,
            geometry,
            memory,
            forward,
            before,
            chosen,
            steps,
            answered,
        })
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `work` on the engine's threads.
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce(Level) -> R + Send) -> R {
        let level = self.level;
        self.pool.install(|| work(level))
    }

    /// The rows of a step's good chunks, in the order of its chunks.
    fn rows(&self, chunks: &[Chunk<'_>], outcomes: &mut [Option<ChunkError>]) -> Vec<Row> {
        let mut rows = Vec::new();
        for (chunk, (c, failed)) in chunks.iter().zip(outcomes).enumerate() {
            if failed.is_some() {
                continue;
            }
            let mut push = |i, token| {
                rows.push(Row { chunk, position: c.start() + i, token });
            };
            match c.tokens {
                Tokens::Known(tokens) => {
                    tokens.iter().enumerate().for_each(|(i, &token)| push(i, token));
                }
                Tokens::Chosen(index) => match self.chosen[index] {
                    Some(token) => push(0, token),
                    None => {
                        let why = format!("no token was chosen for sequence {}", c.pages.seq().0);
                        *failed = Some(ChunkError::NotFinite(why));
                    }
                },
            }
        }
        rows
    }

    /// Computes a step.
    fn compute(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Outcome>, EngineError> {
        let (config, limits) = (&self.weights.config, self.limits());
        let mut failed = engine::check(chunks, config, &limits, &self.before)?;
        let rows = self.rows(chunks, &mut failed);
        let wanted = wanted(chunks, &rows);
        let tables: Vec<&PageTable> = chunks.iter().map(|chunk| chunk.pages).collect();
        let mut broken = vec![None; chunks.len()];
        let (weights, forward) = (&self.weights, &mut self.forward);
        let outcomes = with!(&mut self.memory, memory => {
            let logits: &[f32] = match rows.is_empty() {
                true => &[],
                false => self.pool.install(|| {
                    forward.run(weights, memory, (&rows, &tables), &wanted, &mut broken)
                }),
            };
            let broken = broken.into_iter().map(|why| why.map(ChunkError::NotFinite));
            let failed = failed.into_iter().zip(broken).collect();
            answer(chunks, logits, weights.config.vocab_size, failed)
        });
        let token = |outcome: &Outcome| match outcome {
            Ok(Output::Token(token)) => Some(*token),
            _ => None,
        };
        self.chosen = outcomes.iter().map(token).collect();
        self.before = Before::of(chunks);
        Ok(outcomes)
    }
}

/// Rows whose logits are needed.
fn wanted(chunks: &[Chunk<'_>], rows: &[Row]) -> Vec<usize> {
    let last = |i: usize| rows.get(i + 1).is_none_or(|next| next.chunk != rows[i].chunk);
    (0..rows.len())
        .filter(|&i| match chunks[rows[i].chunk].want {
            Want::Nothing => false,
            Want::Token(_) => last(i),
            Want::Logits => true,
        })
        .collect()
}

/// Answers chunk by chunk from the logits of the wanted rows. A chunk that was left out (the first
/// of a pair) has none among them; one that broke on the way (the second) has.
fn answer(
    chunks: &[Chunk<'_>],
    mut logits: &[f32],
    vocab: usize,
    failed: Vec<(Option<ChunkError>, Option<ChunkError>)>,
) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(chunks.len());
    for (chunk, (invalid, broken)) in chunks.iter().zip(failed) {
        if let Some(invalid) = invalid {
            outcomes.push(Err(invalid));
            continue;
        }
        let rows = match chunk.want {
            Want::Nothing => 0,
            Want::Token(_) => 1,
            Want::Logits => chunk.tokens.count(),
        };
        let (mine, rest) = logits.split_at(rows * vocab);
        logits = rest;
        outcomes.push(match broken {
            Some(broken) => Err(broken),
            None => choose(chunk, mine, vocab),
        });
    }
    outcomes
}

/// What was asked of a chunk's logits.
fn choose(chunk: &Chunk<'_>, logits: &[f32], vocab: usize) -> Outcome {
    let (seq, len) = (chunk.pages.seq().0, chunk.pages.len());
    let broken = |e| ChunkError::NotFinite(format!("after {len} tokens of sequence {seq}: {e}"));
    Ok(match chunk.want {
        Want::Nothing => Output::Nothing,
        Want::Token(sampling) => {
            Output::Token(sampling::sample(logits, &sampling, len as u32).map_err(broken)?)
        }
        Want::Logits => {
            for row in logits.chunks_exact(vocab) {
                sampling::argmax(row).map_err(broken)?;
            }
            Output::Logits(logits.to_vec())
        }
    })
}

impl Engine for CpuEngine {
    fn config(&self) -> &ModelConfig {
        &self.weights.config
    }

    fn limits(&self) -> Limits {
        Limits {
            max_chunks: self.options.max_sequences,
            max_step_tokens: self.options.max_step_tokens,
            max_positions: self
                .options
                .max_positions
                .min(self.weights.config.max_position_embeddings),
            max_in_flight: 1,
            pages: self.geometry,
        }
    }

    fn describe(&self) -> String {
        let kv = match self.options.kv {
            KvDtype::Bf16 => "bf16",
            KvDtype::F32 => "f32",
        };
        let threads = self.threads();
        let plural = if threads == 1 { "" } else { "s" };
        format!("CPU, {}, {threads} thread{plural}, {kv} KV cache", self.level.name())
    }

    fn submit(&mut self, chunks: &[Chunk<'_>]) -> Result<Ticket, EngineError> {
        if self.answered.is_some() {
            let why = String::from("a second step under way, expected at most one");
            return Err(EngineError::Invalid(why));
        }
        let outcomes = self.compute(chunks)?;
        self.steps += 1;
        self.answered = Some((self.steps, outcomes));
        Ok(Ticket::new(self.steps))
    }

    fn wait(&mut self, ticket: Ticket) -> Result<Vec<Outcome>, EngineError> {
        match self.answered.take() {
            Some((step, outcomes)) if step == ticket.number() => Ok(outcomes),
            other => {
                self.answered = other;
                Err(EngineError::Invalid(format!("step {} is not under way", ticket.number())))
            }
        }
    }
}
