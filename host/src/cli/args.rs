//! Values on the command line: ranges checked while parsing, so that an error names the flag.

use std::path::Path;
use std::str::FromStr;

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

/// How much memory keys and values may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvMemory {
    /// What is free.
    #[default]
    Auto,
    /// What every sequence at its full length takes.
    Full,
    /// So many bytes.
    Bytes(u64),
}

impl FromStr for KvMemory {
    type Err = String;

    fn from_str(text: &str) -> Result<KvMemory, String> {
        let expected =
            "expected auto, full or a number of bytes as 800M or 12G (k, M, G count 1024)";
        let unit = |suffix: char| 1u64 << (10 * " kMG".find(suffix).unwrap_or(0));
        let (digits, unit) = match text.strip_suffix(['k', 'M', 'G']) {
            Some(digits) => (digits, text.chars().last().map_or(1, unit)),
            None => (text, 1),
        };
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        match text {
            "auto" => Ok(KvMemory::Auto),
            "full" => Ok(KvMemory::Full),
            _ => digits
                .parse::<u64>()
                .ok()
                .and_then(|number| number.checked_mul(unit))
                .filter(|bytes| is_number && *bytes > 0)
                .map(KvMemory::Bytes)
                .ok_or_else(|| expected.to_owned()),
        }
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
    fn kv_memory_is_a_word_or_bytes() {
        for (text, value) in [
            ("auto", KvMemory::Auto),
            ("full", KvMemory::Full),
            ("1", KvMemory::Bytes(1)),
            ("3k", KvMemory::Bytes(3 << 10)),
            ("800M", KvMemory::Bytes(800 << 20)),
            ("12G", KvMemory::Bytes(12 << 30)),
            ("17179869183G", KvMemory::Bytes(17_179_869_183 << 30)),
        ] {
            assert_eq!(text.parse(), Ok(value), "{text}");
        }
        for text in
            ["", "0", "0G", "-1", "+1", "1T", "G", "1.5G", "1 G", "12g", "Auto", "17179869184G"]
        {
            assert!(text.parse::<KvMemory>().is_err(), "{text}");
        }
    }

    #[test]
    fn threads_end_somewhere() {
        assert_eq!(threads("16"), Ok(16));
        assert!(threads("100000").unwrap_err().contains("at most"));
        assert!(threads("0").is_err());
    }
}
