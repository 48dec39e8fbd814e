//! `gptoss bench`: how fast things are, with the ceilings measured in the same run.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use gptoss::bench::cpu;

use super::Console;
use super::args;
use super::model::{CpuArgs, ModelArgs};

/// Measures speed.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Cpu(CpuBench),
}

/// The CPU engine: prefill, decode, and the machine's read bandwidth.
#[derive(clap::Args)]
struct CpuBench {
    /// The model; without it, two layers of gpt-oss-20b with random weights, in memory.
    #[arg(short, long)]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    cpu: CpuArgs,
    /// Tokens of the prompt that prefill is measured on.
    #[arg(long, default_value = "256", value_parser = args::count)]
    prompt: usize,
    /// Steps of decode per batch size.
    #[arg(long, default_value = "24", value_parser = args::count)]
    steps: usize,
    /// JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let What::Cpu(args) = args.what;
    let options = cpu::Options {
        model: args.checkpoint,
        load: args.model.options(),
        cpu: args.cpu.options(),
        prompt: args.prompt,
        steps: args.steps,
        json: args.json,
    };
    cpu::run(&options, &mut Console::stdout(None)?)?;
    Ok(ExitCode::SUCCESS)
}
