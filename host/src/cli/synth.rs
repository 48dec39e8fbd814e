//! `gptoss synth`: models with random weights in the published format.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use gptoss::model::Dtype;
use gptoss::synth::{self, ExpertFormat, Options, Preset};
use gptoss::terminal;

use super::{Console, interrupt, progress};

/// Writes a Hugging Face snapshot with seeded random weights.
#[derive(clap::Args)]
pub struct Args {
    /// Size of the model.
    #[arg(long, value_enum)]
    preset: Preset,
    /// The same seed gives the same bytes.
    #[arg(long, default_value_t = synth::NANO_SEED)]
    seed: u64,
    /// How everything but the experts is stored.
    #[arg(long, value_enum, default_value = "bf16")]
    dense: Dtype,
    /// How the experts are stored.
    #[arg(long, value_enum, default_value_t)]
    experts: ExpertFormat,
    /// The folder to write; it must not exist or be empty.
    #[arg(short, long)]
    out: PathBuf,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let options = Options {
        dense: args.dense,
        experts: args.experts,
        ..Options::new(args.preset, args.seed)
    };
    let bar = progress::bytes("synth");
    interrupt::catch()?;
    synth::run(&options, &args.out, &bar, &interrupt::asked)?;
    Console::stdout(None)?.line(format!("wrote {}", terminal::path(&args.out)))?;
    Ok(ExitCode::SUCCESS)
}
