//! Values on the command line: ranges checked while parsing, so that an error names the flag.

use std::path::Path;

use anyhow::Result;
use gptoss::model::bin::BinLayout;
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

/// A count that may be zero.
pub fn count_or_zero(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| String::from("expected a whole number, 0 or more"))
}

/// The tokenizer of `-z`, or the built-in one.
pub fn tokenizer(path: Option<&Path>) -> Result<Tokenizer> {
    Ok(match path {
        Some(path) => Tokenizer::open(path)?,
        None => Tokenizer::o200k_harmony(),
    })
}

/// Which exporter wrote a reference `.bin`: size and header cannot tell.
#[derive(Clone, Copy, Default, clap::ValueEnum)]
pub enum BinLayoutArg {
    /// As the reference runtimes read it.
    #[default]
    Ups,
    /// From the gfx1151 port's exporter: router and second expert product transposed.
    Lhl,
    /// Embedding and unembedding exchanged.
    Swapped,
}

impl From<BinLayoutArg> for BinLayout {
    fn from(layout: BinLayoutArg) -> BinLayout {
        match layout {
            BinLayoutArg::Ups => BinLayout::Ups,
            BinLayoutArg::Lhl => BinLayout::Lhl,
            BinLayoutArg::Swapped => BinLayout::Swapped,
        }
    }
}
