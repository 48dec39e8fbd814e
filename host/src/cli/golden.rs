//! `gptoss golden`: a model's logits against recorded ones.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use gptoss::{golden, terminal};

use super::Console;
use super::model::{DeviceArgs, ModelArgs, Room};

/// Runs golden.json against the snapshot beside it; the exit code says whether it passes.
#[derive(clap::Args)]
pub struct Args {
    /// Folder with golden.json and the snapshot it belongs to.
    dir: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(mut args: Args) -> Result<ExitCode> {
    args.device.prefer_kv32();
    let weights = args.model.load(&args.dir)?;
    let golden = golden::read(&args.dir, weights.config.vocab_size)?;
    let length = |case: &golden::Case| case.prompt.len() + case.greedy.len();
    let longest = golden.cases.iter().map(length).max().unwrap_or(1);
    let opened = args.device.open(weights, Room::for_one(longest))?;
    let mut console = Console::stdout(None)?;
    console.line(format!("{}: {}", terminal::path(&args.dir), opened.engine().describe()))?;
    let precision = opened.precision;
    let mut engines = opened.engines;
    let pass = golden::run(&golden, engines[0].as_mut(), precision, &mut console)?;
    args.device.print_stats()?;
    Ok(if pass { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
