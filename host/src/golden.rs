//! Compares an engine with `golden.json`: logits and greedy tokens that transformers computed.
//!
//! The format is described in `tests/data/README.md`.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::engine::{
    ByHand, ChunkError, Engine, EngineError, Output, Piece, Sampling, StepError, Want,
};
use crate::pages::SeqId;

/// A checked `golden.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Golden {
    /// At least one.
    pub cases: Vec<Case>,
}

/// A prompt and what the reference makes of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// Token ids, at least one.
    pub prompt: Vec<u32>,
    /// Positions of the prompt whose logits are known.
    pub rows: Vec<Row>,
    /// Tokens that follow the prompt when each is the likeliest.
    pub greedy: Vec<u32>,
    /// The largest logit minus the second largest, for each of `greedy`.
    pub greedy_gap: Vec<f64>,
}

/// Logits of one position.
#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    /// Position in the prompt.
    pub pos: usize,
    /// The ids whose logits follow.
    pub top_ids: Vec<u32>,
    /// Their logits.
    pub top_logits: Vec<f64>,
    /// Logarithm of the sum of the exponentials of all logits.
    pub lse: Option<f64>,
    /// Mean of all logits.
    pub mean: Option<f64>,
}

/// What an engine computes in: it sets the tolerance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32 activations: 2e-3 on every logit, and every greedy token.
    F32,
    /// bf16 activations: 2e-2 of the norm of a case's logits, and the greedy tokens before the
    /// first gap under 0.1.
    Bf16,
}

/// Largest error of a logit, and of their log-sum-exp and mean, with [`Precision::F32`].
const ABS_TOLERANCE: f64 = 2e-3;
/// Largest norm of a case's errors over the norm of its logits, with [`Precision::Bf16`].
const REL_TOLERANCE: f64 = 2e-2;
/// Below this gap bf16 may rightly choose another token.
const SMALL_GAP: f64 = 0.1;
/// Logits held at a time: it bounds the chunks of a prompt where the vocabulary is large.
const MAX_LOGITS: usize = 1 << 24;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// `golden.json` could not be read.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `golden.json` is not one, or does not fit the model.
    #[error("{path}: {reason}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The engine refused or failed.
    #[error("case {case}: {source}")]
    Engine {
        /// The case, counted from 0.
        case: usize,
        /// The engine's answer.
        source: StepError,
    },
    /// The report could not be written.
    #[error("report: {0}")]
    Report(std::io::Error),
}

/// Reads `golden.json` of `dir` for a model of `vocab_size` tokens.
pub fn read(dir: &Path, vocab_size: usize) -> Result<Golden, GoldenError> {
    let path = dir.join("golden.json");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(GoldenError::Io { path, source }),
    };
    parse(&text, vocab_size).map_err(|reason| GoldenError::File { path, reason })
}

/// Parses and checks the text of a `golden.json`; the error is one line.
pub fn parse(text: &str, vocab_size: usize) -> Result<Golden, String> {
    let golden: Golden =
        serde_json::from_str(text).map_err(|e| format!("not a golden file: {e}"))?;
    if golden.cases.is_empty() {
        return Err("cases is empty".to_owned());
    }
    for (index, case) in golden.cases.iter().enumerate() {
        check(case, vocab_size).map_err(|reason| format!("case {index}: {reason}"))?;
    }
    Ok(golden)
}

fn check(case: &Case, vocab_size: usize) -> Result<(), String> {
    if case.prompt.is_empty() {
        return Err("prompt is empty".to_owned());
    }
    if case.rows.is_empty() {
        return Err("rows is empty".to_owned());
    }
    if case.greedy.len() != case.greedy_gap.len() {
        return Err(format!(
            "greedy has {} tokens and greedy_gap {} entries, expected as many",
            case.greedy.len(),
            case.greedy_gap.len()
        ));
    }
    for row in &case.rows {
        if row.pos >= case.prompt.len() {
            return Err(format!("pos is {}, the prompt has {}", row.pos, case.prompt.len()));
        }
        if row.top_ids.is_empty() || row.top_ids.len() != row.top_logits.len() {
            return Err(format!(
                "pos {}: {} top_ids and {} top_logits, expected as many and at least one",
                row.pos,
                row.top_ids.len(),
                row.top_logits.len()
            ));
        }
    }
    let ids = case.rows.iter().flat_map(|row| &row.top_ids);
    match ids.chain(&case.prompt).chain(&case.greedy).find(|&&id| id as usize >= vocab_size) {
        Some(id) => Err(format!("token {id} is outside the vocabulary of {vocab_size}")),
        None => Ok(()),
    }
}

/// What an engine made of a case.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Largest error of a listed logit; NaN when one is not a number.
    pub max_abs: f64,
    /// Norm of the errors over the norm of the listed logits.
    pub rel: f64,
    /// Largest error of a row's log-sum-exp or mean.
    pub max_moment: f64,
    /// Greedy tokens equal to the reference's before the first that differs.
    pub matched: usize,
}

impl Comparison {
    /// Whether an engine of `precision` may differ so from `case`.
    pub fn passes(&self, case: &Case, precision: Precision) -> bool {
        match precision {
            Precision::F32 => {
                self.max_abs <= ABS_TOLERANCE
                    && self.max_moment <= ABS_TOLERANCE
                    && self.matched == case.greedy.len()
            }
            Precision::Bf16 => {
                let small = case.greedy_gap.iter().position(|&gap| gap < SMALL_GAP);
                self.rel <= REL_TOLERANCE && self.matched >= small.unwrap_or(case.greedy.len())
            }
        }
    }
}

/// Runs every case on `engine` and writes one line each, then PASS or FAIL; true when all pass.
pub fn run(
    golden: &Golden,
    engine: &mut dyn Engine,
    precision: Precision,
    report: &mut dyn Write,
) -> Result<bool, GoldenError> {
    let mut failed = 0;
    for (index, case) in golden.cases.iter().enumerate() {
        let comparison =
            compare(case, engine).map_err(|source| GoldenError::Engine { case: index, source })?;
        let pass = comparison.passes(case, precision);
        failed += usize::from(!pass);
        writeln!(
            report,
            "case {index}: prompt {}, {} rows: max abs {:.2e}, rel {:.2e}, lse and mean {:.2e}, \
             greedy {}/{}{}",
            case.prompt.len(),
            case.rows.len(),
            comparison.max_abs,
            comparison.rel,
            comparison.max_moment,
            comparison.matched,
            case.greedy.len(),
            if pass { "" } else { "  <- outside the tolerance" },
        )
        .map_err(GoldenError::Report)?;
    }
    let verdict = match failed {
        0 => "PASS".to_owned(),
        _ => format!("FAIL: {failed} of {} cases", golden.cases.len()),
    };
    writeln!(report, "{verdict}").map_err(GoldenError::Report)?;
    Ok(failed == 0)
}

/// Runs one case on `engine`.
pub fn compare(case: &Case, engine: &mut dyn Engine) -> Result<Comparison, StepError> {
    let positions = case.prompt.len() + case.greedy.len();
    let limit = engine.limits().max_positions;
    if positions > limit {
        let why = format!("the case takes {positions} positions, the engine has {limit}");
        return Err(ChunkError::Invalid(why).into());
    }
    let mut engine = ByHand::new(engine);
    let seq = engine.open();
    compare_in(case, &mut engine, seq)
}

fn compare_in(
    case: &Case,
    engine: &mut ByHand<&mut dyn Engine>,
    seq: SeqId,
) -> Result<Comparison, StepError> {
    let vocab = engine.engine().config().vocab_size;
    let chunk = engine.engine().limits().max_step_tokens.min(MAX_LOGITS / vocab).max(1);
    let mut errors = Errors::default();
    let mut next = 0;
    for (index, tokens) in case.prompt.chunks(chunk).enumerate() {
        let logits = match step(engine, Piece { seq, tokens, want: Want::Logits })? {
            Output::Logits(logits) if logits.len() == tokens.len() * vocab => logits,
            other => return Err(unexpected(&other)),
        };
        let first = index * chunk;
        for row in case.rows.iter().filter(|r| (first..first + tokens.len()).contains(&r.pos)) {
            errors.add(row, &logits[(row.pos - first) * vocab..][..vocab]);
        }
        next = argmax(&logits[logits.len() - vocab..]);
    }

    let mut matched = 0;
    while matched < case.greedy.len() && next == case.greedy[matched] {
        matched += 1;
        if matched < case.greedy.len() {
            let want = Want::Token(Sampling::GREEDY);
            next = match step(engine, Piece { seq, tokens: &[next], want })? {
                Output::Token(token) => token,
                other => return Err(unexpected(&other)),
            };
        }
    }
    Ok(Comparison {
        max_abs: errors.max_abs,
        rel: (errors.squares / errors.norm).sqrt(),
        max_moment: errors.max_moment,
        matched,
    })
}

fn step(engine: &mut ByHand<&mut dyn Engine>, piece: Piece<'_>) -> Result<Output, StepError> {
    let outputs = engine.step(&[piece])?;
    let count = outputs.len();
    match <[Output; 1]>::try_from(outputs) {
        Ok([output]) => Ok(output),
        Err(_) => Err(EngineError::Invalid(format!("{count} outputs for one chunk")).into()),
    }
}

fn unexpected(output: &Output) -> StepError {
    let kind = match output {
        Output::Nothing => "nothing".to_owned(),
        Output::Token(_) => "a token".to_owned(),
        Output::Logits(logits) => format!("{} logits", logits.len()),
    };
    let why = format!("the engine answered with {kind}, which was not asked for");
    EngineError::Invalid(why).into()
}

/// The largest logit's id, the lowest among equals.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

/// Errors over the rows of a case; a NaN stays.
#[derive(Default)]
struct Errors {
    max_abs: f64,
    max_moment: f64,
    squares: f64,
    norm: f64,
}

impl Errors {
    fn add(&mut self, row: &Row, logits: &[f32]) {
        for (&id, &expected) in row.top_ids.iter().zip(&row.top_logits) {
            let error = f64::from(logits[id as usize]) - expected;
            self.max_abs = max(self.max_abs, error.abs());
            self.squares += error * error;
            self.norm += expected * expected;
        }
        let (lse, mean) = moments(logits);
        for (got, expected) in [(lse, row.lse), (mean, row.mean)] {
            if let Some(expected) = expected {
                self.max_moment = max(self.max_moment, (got - expected).abs());
            }
        }
    }
}

/// Like [`f64::max`], but NaN wins.
fn max(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// Log-sum-exp and mean.
fn moments(logits: &[f32]) -> (f64, f64) {
    let top = logits.iter().copied().map(f64::from).fold(f64::NEG_INFINITY, max);
    let sum: f64 = logits.iter().map(|&l| (f64::from(l) - top).exp()).sum();
    let mean = logits.iter().copied().map(f64::from).sum::<f64>() / logits.len() as f64;
    (top + sum.ln(), mean)
}

#[cfg(test)]
mod tests;
