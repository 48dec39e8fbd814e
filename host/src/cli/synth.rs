//! `gptoss synth`: models with random weights in the published format.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use gptoss::model::Dtype;
use gptoss::synth;

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
    #[arg(long, value_enum, default_value_t)]
    dense: Dense,
    /// How the experts are stored.
    #[arg(long, value_enum, default_value_t)]
    experts: Experts,
    /// The folder to write; it must not exist or be empty.
    #[arg(short, long)]
    out: PathBuf,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Preset {
    /// The full vocabulary on a few small layers.
    Nano,
    /// Two layers of gpt-oss-20b.
    #[value(name = "20b-2l")]
    TwoLayers,
    /// gpt-oss-20b.
    #[value(name = "20b")]
    B20,
    /// gpt-oss-120b.
    #[value(name = "120b")]
    B120,
}

#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum Dense {
    #[default]
    Bf16,
    F32,
}

#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum Experts {
    #[default]
    Mxfp4,
    Bf16,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let preset = match args.preset {
        Preset::Nano => synth::Preset::Nano,
        Preset::TwoLayers => synth::Preset::TwoLayers,
        Preset::B20 => synth::Preset::B20,
        Preset::B120 => synth::Preset::B120,
    };
    let mut options = synth::Options::new(preset, args.seed);
    options.dense = match args.dense {
        Dense::Bf16 => Dtype::Bf16,
        Dense::F32 => Dtype::F32,
    };
    options.experts = match args.experts {
        Experts::Mxfp4 => synth::ExpertFormat::Mxfp4,
        Experts::Bf16 => synth::ExpertFormat::Bf16,
    };
    let bar = progress::bytes("synth");
    interrupt::catch()?;
    synth::run(&options, &args.out, &bar, &interrupt::asked)?;
    Console::stdout(None)?.line(format!("wrote {}", args.out.display()))?;
    Ok(ExitCode::SUCCESS)
}
