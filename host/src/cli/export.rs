//! `gptoss export`: any model that loads, to the reference `.bin`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use gptoss::{export, files, terminal};

use super::model::ModelArgs;
use super::{Console, interrupt, progress};

/// Writes a model as a reference .bin (every value in f32).
#[derive(clap::Args)]
pub struct Args {
    /// The model: a snapshot's folder, or a .bin to rewrite.
    #[arg(short, long, visible_alias = "snapshot")]
    checkpoint: PathBuf,
    /// The file to write.
    #[arg(short, long, default_value = "gpt-oss.bin")]
    out: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// List the tensors of the snapshot and write nothing.
    #[arg(long)]
    print_keys: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let mut console = Console::stdout(None)?;
    if args.print_keys {
        export::print_keys(&args.checkpoint, &mut console)?;
        return Ok(ExitCode::SUCCESS);
    }
    files::refuse_overlap(("-o", &args.out), &[("the model", &args.checkpoint)])?;
    let weights = args.model.load(&args.checkpoint)?;
    let bar = progress::bytes("export");
    interrupt::catch()?;
    export::run(&weights, &args.out, &bar, &interrupt::asked)?;
    console.line(format!("wrote {}", terminal::path(&args.out)))?;
    Ok(ExitCode::SUCCESS)
}
