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
mod moe;
mod sequences;
pub(crate) mod simd;

use std::sync::Arc;

use rayon::ThreadPool;
use shared::model::{ConfigError, ModelConfig};

use crate::engine::{Chunk, Engine, EngineError, Limits, Output, SeqId, Want};
use crate::model::Weights;
use crate::sampling;
use forward::{Forward, Row};
use kv::Bf16;
use sequences::Sequences;
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
    /// Sequences open at a time; caches grow as they are used.
    pub max_sequences: usize,
    /// Tokens per step: bounds the memory for activations.
    pub max_step_tokens: usize,
}

impl Default for CpuOptions {
    fn default() -> CpuOptions {
        CpuOptions {
            threads: 0,
            isa: Isa::Auto,
            kv: KvDtype::Bf16,
            max_sequences: 1024,
            max_step_tokens: 512,
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
}

/// [`Engine`] on the CPU.
#[derive(Debug)]
pub struct CpuEngine {
    weights: Arc<Weights>,
    options: CpuOptions,
    level: Level,
    pool: ThreadPool,
    caches: Caches,
    forward: Forward,
}

#[derive(Debug)]
enum Caches {
    Bf16(Sequences<Bf16>),
    F32(Sequences<f32>),
}

/// Runs an expression on the sequences, whatever their element.
macro_rules! with {
    ($caches:expr, $sequences:ident => $body:expr) => {
        match $caches {
            Caches::Bf16($sequences) => $body,
            Caches::F32($sequences) => $body,
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
        let caches = match options.kv {
            KvDtype::Bf16 => Caches::Bf16(Sequences::new(config)),
            KvDtype::F32 => Caches::F32(Sequences::new(config)),
        };
        let forward = Forward::new(config, level, pool.current_num_threads());
        Ok(CpuEngine { weights, options, level, pool, caches, forward })
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

    fn len(&self, seq: SeqId) -> Option<(usize, usize)> {
        with!(&self.caches, s => s.len(seq))
    }

    /// The rows of a step, in the order of its chunks, or what is wrong with it.
    fn rows(&self, chunks: &[Chunk<'_>]) -> Result<Vec<Row>, String> {
        let mut rows = Vec::new();
        for (chunk, c) in chunks.iter().enumerate() {
            let seq = c.seq;
            let name = seq.0;
            let Some((len, max)) = self.len(seq) else {
                return Err(format!("sequence {name} is not open"));
            };
            if chunks[..chunk].iter().any(|other| other.seq == seq) {
                return Err(format!("sequence {name} has two chunks in one step, expected one"));
            }
            if c.tokens.is_empty() {
                return Err(format!("the chunk of sequence {name} is empty, expected a token"));
            }
            if len + c.tokens.len() > max {
                return Err(format!(
                    "sequence {name} would hold {} tokens, expected at most {max}",
                    len + c.tokens.len()
                ));
            }
            if let Want::Token(sampling) = &c.want {
                sampling.check()?;
            }
            for (i, &token) in c.tokens.iter().enumerate() {
                if token as usize >= self.weights.config.vocab_size {
                    return Err(format!(
                        "token {token} of sequence {name}, expected less than vocab_size {}",
                        self.weights.config.vocab_size
                    ));
                }
                rows.push(Row { chunk, seq, position: len + i, token });
            }
        }
        if rows.len() > self.options.max_step_tokens {
            return Err(format!(
                "a step of {} tokens, expected at most {}",
                rows.len(),
                self.options.max_step_tokens
            ));
        }
        Ok(rows)
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

/// Answers chunk by chunk from the logits of the wanted rows; `lens` are the lengths after the
/// step.
fn answer(
    chunks: &[Chunk<'_>],
    mut logits: &[f32],
    vocab: usize,
    lens: &[usize],
) -> Result<Vec<Output>, EngineError> {
    let mut outputs = Vec::with_capacity(chunks.len());
    for (chunk, &len) in chunks.iter().zip(lens) {
        let broken =
            |e| EngineError::Device(format!("after {len} tokens of sequence {}: {e}", chunk.seq.0));
        let rows = match chunk.want {
            Want::Nothing => 0,
            Want::Token(_) => 1,
            Want::Logits => chunk.tokens.len(),
        };
        let (mine, rest) = logits.split_at(rows * vocab);
        logits = rest;
        outputs.push(match chunk.want {
            Want::Nothing => Output::Nothing,
            Want::Token(sampling) => {
                Output::Token(sampling::sample(mine, &sampling, len as u32).map_err(broken)?)
            }
            Want::Logits => {
                for row in mine.chunks_exact(vocab) {
                    sampling::argmax(row).map_err(broken)?;
                }
                Output::Logits(mine.to_vec())
            }
        });
    }
    Ok(outputs)
}

impl Engine for CpuEngine {
    fn config(&self) -> &ModelConfig {
        &self.weights.config
    }

    fn limits(&self) -> Limits {
        Limits {
            max_sequences: self.options.max_sequences,
            max_step_tokens: self.options.max_step_tokens,
            max_positions: self.weights.config.max_position_embeddings,
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

    fn open(&mut self, max_positions: usize) -> Result<SeqId, EngineError> {
        let limits = self.limits();
        if max_positions == 0 || max_positions > limits.max_positions {
            return Err(EngineError::Invalid(format!(
                "a sequence of {max_positions} positions, expected 1 to {}",
                limits.max_positions
            )));
        }
        with!(&mut self.caches, s => {
            if s.count() >= limits.max_sequences {
                return Err(EngineError::OutOfCache(format!(
                    "{} sequences are open, the most this engine takes",
                    s.count()
                )));
            }
            Ok(s.open(max_positions))
        })
    }

    fn close(&mut self, seq: SeqId) {
        with!(&mut self.caches, s => s.close(seq));
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Output>, EngineError> {
        let rows = self.rows(chunks).map_err(EngineError::Invalid)?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = wanted(chunks, &rows);
        let (weights, forward) = (&self.weights, &mut self.forward);
        let mut lens = Vec::with_capacity(chunks.len());
        let result = with!(&mut self.caches, sequences => {
            let logits = self.pool.install(|| forward.run(weights, sequences, &rows, &wanted));
            for chunk in chunks {
                sequences.advance(chunk.seq, chunk.tokens.len());
                lens.push(sequences.len(chunk.seq).map_or(0, |(len, _)| len));
            }
            let vocab = weights.config.vocab_size;
            logits.and_then(|logits| answer(chunks, logits, vocab, &lens))
        });
        if result.is_err() {
            // Their caches are in an unknown state.
            chunks.iter().for_each(|chunk| self.close(chunk.seq));
        }
        result
    }
}
