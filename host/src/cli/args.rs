//! Values on the command line: ranges checked while parsing, so that an error names the flag.

use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;
use gptoss::tokenizer::Tokenizer;

/// A temperature: 0 (greedy) or more.
pub fn temperature(text: &str) -> Result<f32, String> {
    number(text, "0 (greedy) or more", |value| value >= 0.0)
}

/// A nucleus mass.
pub fn top_p(text: &str) -> Result<f32, String> {
    number(text, "more than 0 and at most 1", |value| value > 0.0 && value <= 1.0)
}

fn number(text: &str, expected: &str, fits: impl Fn(f32) -> bool) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() && fits(value) => Ok(value),
        _ => Err(format!("expected {expected}")),
    }
}

/// A count of at least one.
pub fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(value) if value > 0 => Ok(value),
        _ => Err(String::from("expected a whole number, 1 or more")),
    }
}

/// A number of threads, up to a few for each core: beyond that a program only waits for itself.
pub fn threads(text: &str) -> Result<usize, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = (cores * THREADS_PER_CORE).max(LEAST_MOST_THREADS);
    match count(text)? {
        threads if threads <= most => Ok(threads),
        _ => Err(format!("expected at most {most}, this machine has {cores} cores")),
    }
}

const THREADS_PER_CORE: usize = 4;
/// Every machine takes this many, so that a command line serves on all.
const LEAST_MOST_THREADS: usize = 16;

/// Requests that run together: each has a place of its own, however little it takes.
pub fn batch(text: &str) -> Result<usize, String> {
    match count(text) {
        Ok(requests) if requests <= MAX_BATCH => Ok(requests),
        _ => Err(format!("expected a whole number from 1 to {MAX_BATCH}")),
    }
}

const MAX_BATCH: usize = 65536;

/// Tokens of a step: more than a device takes with profit would only cost memory.
pub fn step_tokens(text: &str) -> Result<usize, String> {
    match count(text) {
        Ok(tokens) if tokens <= MAX_STEP_TOKENS => Ok(tokens),
        _ => Err(format!("expected a whole number from 1 to {MAX_STEP_TOKENS}")),
    }
}

const MAX_STEP_TOKENS: usize = 16384;

/// Any 64-bit number.
pub fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("expected a whole number from 0 to {}", u64::MAX))
}

/// A share of the likeliest token's probability.
pub fn min_p(text: &str) -> Result<f32, String> {
    number(text, "0 or more and less than 1", |value| (0.0..1.0).contains(&value))
}

/// How many of the likeliest tokens.
pub fn top_k(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(value) if value > 0 => Ok(value),
        _ => Err(String::from("expected a whole number, 1 or more")),
    }
}

/// A text that is there.
pub fn text(text: &str) -> Result<String, String> {
    match text {
        "" => Err(String::from("expected at least one character")),
        text => Ok(text.to_owned()),
    }
}

/// A count that may be zero.
pub fn count_or_zero(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| String::from("expected a whole number, 0 or more"))
}

/// A choice's name on the command line.
pub fn name(choice: impl ValueEnum) -> String {
    choice.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// The tokenizer of `-z`, or the built-in one.
pub fn tokenizer(path: Option<&Path>) -> Result<Tokenizer> {
    Ok(match path {
        Some(path) => Tokenizer::open(path)?,
        None => Tokenizer::o200k_harmony(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_end_somewhere() {
        assert_eq!(threads("16"), Ok(16));
        assert!(threads("100000").unwrap_err().contains("at most"));
        assert!(threads("0").is_err());
    }
}
