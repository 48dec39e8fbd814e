//! `gptoss bench cpu`: tokens per second, and how close decode comes to the speed of memory.
//!
//! One stream of decode reads every weight it uses once per token, so its speed is bounded by
//! read bandwidth; the share of it that is reached says what is left to gain.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use serde::Serialize;

use crate::cpu::simd::{Kernel, LANES, Level, Line, Simd};
use crate::cpu::{CpuEngine, CpuError, CpuOptions};
use crate::engine::{ByHand, Engine, Piece, Sampling, StepError, Want};
use crate::model::{self, ExpertWeights, Experts, LoadOptions, Matrix, ModelError, Weights};
use crate::synth;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// A snapshot or `.bin`; `None` makes two layers of gpt-oss-20b in memory.
    pub model: Option<PathBuf>,
    /// How to read it.
    pub load: LoadOptions,
    /// Threads, instruction set, KV cache.
    pub cpu: CpuOptions,
    /// Tokens of the prompt that prefill is measured on.
    pub prompt: usize,
    /// Steps of decode per batch size.
    pub steps: usize,
    /// JSON instead of lines.
    pub json: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            model: None,
            load: LoadOptions::default(),
            cpu: CpuOptions::default(),
            prompt: 256,
            steps: 24,
            json: false,
        }
    }
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The model could not be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The engine could not be made.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] StepError),
    /// A number of tokens or steps of 0.
    #[error("{0} is 0, expected at least 1")]
    Zero(&'static str),
    /// The report could not be written.
    #[error("cannot write the report: {0}")]
    Report(#[from] std::io::Error),
}

/// What was measured. Rates are medians over steps; bandwidth is the best of several passes.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The model, by path or preset.
    pub model: String,
    /// The engine: instruction set, threads, KV cache.
    pub engine: String,
    /// Prompt tokens per second, the prompt given in steps of at most the engine's limit.
    pub prefill_tokens_per_s: f64,
    /// Decode.
    pub decode: Vec<Decode>,
    /// Bytes of weights that one token reads when it is alone.
    pub bytes_per_token: u64,
    /// Bytes per second that all threads read from a buffer larger than the caches.
    pub read_bandwidth: f64,
    /// Bytes per second of weights that decode of one stream reads, over `read_bandwidth`.
    pub decode_bandwidth_share: f64,
    /// Bytes of weights in the model.
    pub weight_bytes: u64,
    /// Most memory the process has held, mapped file pages included; before the buffer of the
    /// bandwidth measurement. `None` where the system does not say.
    pub peak_rss_bytes: Option<u64>,
}

/// Decode at one batch size.
#[derive(Clone, Debug, Serialize)]
pub struct Decode {
    /// Sequences per step.
    pub batch: usize,
    /// Over all sequences.
    pub tokens_per_s: f64,
}

const BATCHES: [usize; 2] = [1, 16];
/// Tokens that each sequence holds before decode is measured.
const DECODE_CONTEXT: usize = 32;

/// Measures, and writes the report to `out`.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<(), BenchError> {
    for (name, value) in
        [("the prompt length", options.prompt), ("the number of steps", options.steps)]
    {
        if value == 0 {
            return Err(BenchError::Zero(name));
        }
    }
    let (name, weights) = match &options.model {
        Some(path) => (path.display().to_string(), model::load(path, &options.load)?),
        None => {
            let options = synth::Options::new(synth::Preset::TwoLayers, 0);
            ("synthetic 20b-2l".to_owned(), synth::in_memory(&options)?)
        }
    };
    let report = measure(name, Arc::new(weights), options)?;
    if options.json {
        let json = serde_json::to_string(&report).map_err(std::io::Error::from)?;
        writeln!(out, "{json}")?;
    } else {
        write_lines(&report, out)?;
    }
    Ok(())
}

fn measure(name: String, weights: Arc<Weights>, options: &Options) -> Result<Report, BenchError> {
    let mut engine = ByHand::new(CpuEngine::new(Arc::clone(&weights), options.cpu)?);
    // The first pass brings the file into memory.
    prefill(&mut engine, options.prompt)?;
    let prefill =
        median((0..3).map(|_| prefill(&mut engine, options.prompt)).collect::<Result<_, _>>()?);
    let mut decode = Vec::new();
    for batch in BATCHES {
        let step = median(decode_steps(&mut engine, batch, options.steps)?);
        decode.push(Decode { batch, tokens_per_s: batch as f64 / step.as_secs_f64() });
    }
    let peak_rss_bytes = peak_rss();
    let read_bandwidth = engine.engine().install(read_bandwidth);
    let bytes_per_token = bytes_per_token(&weights);
    Ok(Report {
        model: name,
        engine: engine.engine().describe(),
        prefill_tokens_per_s: options.prompt as f64 / prefill.as_secs_f64(),
        decode_bandwidth_share: decode[0].tokens_per_s * bytes_per_token as f64 / read_bandwidth,
        decode,
        bytes_per_token,
        read_bandwidth,
        weight_bytes: weights.matrix_bytes(),
        peak_rss_bytes,
    })
}

/// Spread over the vocabulary, so that experts are chosen as differently as they can be.
fn token(config: &model::ModelConfig, i: usize) -> u32 {
    (i.wrapping_mul(7919) % config.vocab_size) as u32
}

/// Time to the first token of a prompt.
fn prefill(engine: &mut ByHand<CpuEngine>, tokens: usize) -> Result<Duration, StepError> {
    let config = engine.engine().config();
    let prompt: Vec<u32> = (0..tokens).map(|i| token(config, i)).collect();
    let chunk = engine.engine().limits().max_step_tokens;
    let seq = engine.open();
    let start = Instant::now();
    for (i, tokens) in prompt.chunks(chunk).enumerate() {
        let last = (i + 1) * chunk >= prompt.len();
        let want = if last { Want::Token(Sampling::GREEDY) } else { Want::Nothing };
        engine.step(&[Piece { seq, tokens, want }])?;
    }
    let time = start.elapsed();
    engine.close(seq);
    Ok(time)
}

/// Time of each step that advances `batch` sequences by one token.
fn decode_steps(
    engine: &mut ByHand<CpuEngine>,
    batch: usize,
    steps: usize,
) -> Result<Vec<Duration>, StepError> {
    let config = engine.engine().config().clone();
    let mut seqs = Vec::new();
    for b in 0..batch {
        let seq = engine.open();
        let prompt: Vec<u32> = (0..DECODE_CONTEXT).map(|i| token(&config, 31 * b + i)).collect();
        engine.step(&[Piece { seq, tokens: &prompt, want: Want::Nothing }])?;
        seqs.push(seq);
    }
    let mut times = Vec::new();
    for step in 0..steps {
        let tokens: Vec<u32> = (0..batch).map(|b| token(&config, 1000 + 31 * b + step)).collect();
        let chunks: Vec<Piece<'_>> = seqs
            .iter()
            .zip(tokens.chunks(1))
            .map(|(&seq, tokens)| Piece { seq, tokens, want: Want::Token(Sampling::GREEDY) })
            .collect();
        let start = Instant::now();
        engine.step(&chunks)?;
        times.push(start.elapsed());
    }
    seqs.into_iter().for_each(|seq| engine.close(seq));
    Ok(times)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn matrix_bytes(matrix: &Matrix) -> u64 {
    matrix.data.len() as u64
}

fn expert_bytes(experts: &Experts) -> u64 {
    let all = match &experts.weights {
        ExpertWeights::Mxfp4 { blocks, scales } => blocks.len() + scales.len(),
        ExpertWeights::OutIn(_, data) | ExpertWeights::InOut(_, data) => data.len(),
    };
    all as u64 / experts.count as u64
}

/// Matrices of the model that one token reads when it is alone: all dense ones, one row of the
/// embedding, and the experts it visits.
fn bytes_per_token(weights: &Weights) -> u64 {
    let top_k = weights.config.num_experts_per_tok as u64;
    let layers = weights.layers.iter().map(|l| {
        let dense = [&l.q, &l.k, &l.v, &l.o, &l.router].map(|l| matrix_bytes(&l.weight));
        dense.iter().sum::<u64>() + top_k * (expert_bytes(&l.gate_up) + expert_bytes(&l.down))
    });
    let row = matrix_bytes(&weights.embedding) / weights.config.vocab_size as u64;
    layers.sum::<u64>() + row + matrix_bytes(&weights.unembedding)
}

/// Adds up a buffer, read at [`STREAMS`] places at once: one stream per thread does not keep
/// memory busy.
struct ReadAll<'a>(&'a [Page]);

const STREAMS: usize = 8;
type Page = [Line; 64];

impl Kernel for ReadAll<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let one = simd.splat(1.0);
        let mut sums = [simd.splat(0.0); STREAMS];
        for pages in self.0.as_chunks::<STREAMS>().0 {
            for line in 0..pages[0].len() {
                for (sum, page) in sums.iter_mut().zip(pages) {
                    *sum = simd.fma(one, simd.load(&page[line].0), *sum);
                }
            }
        }
        sums.iter().map(|&sum| simd.sum(sum)).sum()
    }
}

/// Bytes per second that all threads of the current pool read together: the best of several
/// passes over 512 MiB.
fn read_bandwidth(level: Level) -> f64 {
    let buffer = vec![[Line([1.0; LANES]); 64]; (512 << 20) / size_of::<Page>()];
    let pass = || {
        let start = Instant::now();
        let sums = buffer.par_chunks(32 * STREAMS).map(|part| level.run(ReadAll(part)));
        std::hint::black_box(sums.sum::<f32>());
        start.elapsed()
    };
    let best = (0..8).map(|_| pass()).min().unwrap_or_default();
    size_of_val(&buffer[..]) as f64 / best.as_secs_f64()
}

fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

fn write_lines(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    const GB: f64 = 1e9;
    writeln!(
        out,
        "model            {} ({:.2} GB of weights)",
        report.model,
        report.weight_bytes as f64 / GB
    )?;
    writeln!(out, "engine           {}", report.engine)?;
    writeln!(out, "prefill          {:.1} tokens/s", report.prefill_tokens_per_s)?;
    for decode in &report.decode {
        writeln!(out, "decode, batch {:<2} {:.2} tokens/s", decode.batch, decode.tokens_per_s)?;
    }
    writeln!(
        out,
        "read bandwidth   {:.1} GB/s; one stream of decode reaches {:.0} % of it ({:.2} GB per token)",
        report.read_bandwidth / GB,
        report.decode_bandwidth_share * 100.0,
        report.bytes_per_token as f64 / GB
    )?;
    match report.peak_rss_bytes {
        Some(bytes) => writeln!(out, "peak memory      {:.2} GB", bytes as f64 / GB),
        None => writeln!(out, "peak memory      not known on this system"),
    }
}
