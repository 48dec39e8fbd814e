//! `gptoss run`: generate, chat, and files of prompts.

mod chat;
mod generate;
mod getp;
mod job;
mod paths;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use gptoss::engine::{Engine, Sampling};
use gptoss::model::{ModelConfig, Weights};
use gptoss::tokenizer::{Tokenizer, TokenizerError};

use super::console::LOG_FILE;
use super::model::{self, DeviceArgs, ModelArgs};
use super::{Console, args};

/// Total positions when `-n` does not say.
const POSITIONS: usize = 1024;
/// The same for the built-in model, whose text is not worth waiting for on an emulated GPU.
const BUILT_IN_POSITIONS: usize = 24;
/// Where the reference scripts keep their models.
const MODEL_ROOT: &str = "MODELBIN_ROOT";

/// Runs a model; with no checkpoint, a small built-in one with random weights.
#[derive(clap::Args)]
pub struct Args {
    /// The model: a Hugging Face snapshot's folder, or a reference .bin.
    #[arg(short, long)]
    checkpoint: Option<PathBuf>,
    /// What to do.
    #[arg(short, long, value_enum, default_value_t)]
    mode: Mode,
    /// getp: the file of prompts; generate: the prompt; chat: the first message.
    #[arg(short, long)]
    input: Option<String>,
    /// getp: the file of token ids to write; without it they go to standard output.
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Reference tokenizer.bin instead of the built-in o200k_harmony.
    #[arg(short = 'z', long)]
    tokenizer: Option<PathBuf>,
    /// chat: instructions to the model.
    #[arg(short = 'y', long)]
    system: Option<String>,
    /// Temperature; 0 takes the most likely token.
    #[arg(short = 'T', long, default_value = "0", value_parser = args::temperature, allow_negative_numbers = true)]
    temperature: f32,
    /// Sample among the most likely tokens that together have this probability.
    #[arg(short = 'p', long, default_value = "0.9", value_parser = args::top_p, allow_negative_numbers = true)]
    top_p: f32,
    /// Positions in total, prompt included; 0 is all the model has [default: 1024]
    #[arg(short = 'n', long, value_parser = args::count_or_zero, allow_negative_numbers = true)]
    steps: Option<usize>,
    /// Seed of sampling; without it, the time.
    #[arg(short, long, allow_negative_numbers = true)]
    seed: Option<u64>,
    /// getp: requests that run together, on each GPU.
    #[arg(short, long, default_value = "32", value_parser = args::count, allow_negative_numbers = true)]
    batch: usize,
    /// getp: only the first prompts; 0 is all.
    #[arg(short, long, default_value = "0", value_parser = args::count_or_zero, allow_negative_numbers = true)]
    truncate: usize,
    /// getp: print where the time went.
    #[arg(short = 'f', long)]
    profile: bool,
    /// Also write what is printed to log.txt.
    #[arg(short, long)]
    log: bool,
    /// getp: compare the output with this file; a difference is a failure.
    #[arg(short, long)]
    verify: Option<PathBuf>,
    /// getp: complete an output that was interrupted.
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// A file of prompts, many at a time.
    #[default]
    Getp,
    /// The same on the CPU engine.
    #[value(name = "getp_cpu")]
    GetpCpu,
    /// Continue a text.
    Generate,
    /// Talk.
    Chat,
    /// getp on $MODELBIN_ROOT/gpt-oss-20b.bin.
    #[value(name = "20")]
    Getp20b,
    /// getp on $MODELBIN_ROOT/gpt-oss-120b.bin.
    #[value(name = "120")]
    Getp120b,
}

/// Does what the arguments ask for.
pub fn run(mut args: Args) -> Result<ExitCode> {
    match args.mode {
        Mode::Getp20b => args.default_checkpoint("gpt-oss-20b.bin")?,
        Mode::Getp120b => args.default_checkpoint("gpt-oss-120b.bin")?,
        Mode::GetpCpu => args.device.force_cpu()?,
        _ => {}
    }
    args.refuse_flags_of_other_modes()?;
    args.check_paths()?;
    let code = match args.mode {
        Mode::Chat => chat::run(&args),
        Mode::Generate => generate::run(&args),
        _ => getp::run(&args),
    }?;
    args.device.print_stats()?;
    Ok(code)
}

impl Args {
    fn default_checkpoint(&mut self, file: &str) -> Result<()> {
        if self.checkpoint.is_none() {
            let root = std::env::var_os(MODEL_ROOT).with_context(|| {
                format!("{MODEL_ROOT} is not set, expected the folder of {file}")
            })?;
            self.checkpoint = Some(Path::new(&root).join(file));
        }
        Ok(())
    }

    /// A flag that would do nothing is a mistake worth hearing of.
    fn refuse_flags_of_other_modes(&self) -> Result<()> {
        let chats = self.mode == Mode::Chat;
        let generates = self.mode == Mode::Generate;
        let misplaced = [
            ("-y", self.system.is_some() && !chats, "chat"),
            ("-o", self.output.is_some() && (chats || generates), "getp"),
            ("-v", self.verify.is_some() && (chats || generates), "getp"),
            ("-t", self.truncate > 0 && (chats || generates), "getp"),
            ("-f", self.profile && (chats || generates), "getp"),
            ("--resume", self.resume && (chats || generates), "getp"),
        ];
        for (flag, given, mode) in misplaced {
            if given {
                bail!("{flag} belongs to mode {mode}");
            }
        }
        if self.output.is_none() && (self.verify.is_some() || self.resume) {
            let flag = if self.resume { "--resume" } else { "-v" };
            bail!("{flag} needs -o, the output file");
        }
        Ok(())
    }

    fn tokenizer(&self) -> Result<Tokenizer> {
        args::tokenizer(self.tokenizer.as_deref())
    }

    /// The model, and what it is called.
    fn weights(&self, console: &mut Console) -> Result<(Arc<Weights>, String)> {
        let Some(path) = &self.checkpoint else {
            console.line(
                "model: built in, 4 small layers with random weights: its text has no meaning \
                 (-c takes a real one)",
            )?;
            return Ok((model::built_in(), String::from("built-in")));
        };
        let weights = self.model.load(path)?;
        console.line(format!("model: {}, {}", path.display(), describe(&weights.config)))?;
        let name = path.canonicalize().unwrap_or_else(|_| path.clone());
        Ok((weights, name.display().to_string()))
    }

    /// Positions an engine has to make room for.
    fn room(&self) -> Option<usize> {
        Some(match self.steps {
            Some(0) => usize::MAX,
            Some(n) => n,
            None if self.checkpoint.is_none() => BUILT_IN_POSITIONS,
            None => POSITIONS,
        })
    }

    /// Positions of every sequence, `-n`.
    fn positions(&self, engine: &dyn Engine) -> Result<usize> {
        let max = engine.limits().max_positions.min(engine.config().max_position_embeddings);
        match self.steps {
            Some(0) => Ok(max),
            Some(n) if n > max => bail!("-n {n}: the model has {max} positions"),
            Some(n) => Ok(n),
            None if self.checkpoint.is_none() => Ok(BUILT_IN_POSITIONS),
            None => Ok(POSITIONS.min(max)),
        }
    }

    /// How tokens are chosen, with `seed` when `-s` does not say.
    fn sampling(&self, seed: impl FnOnce() -> u64) -> Sampling {
        let seed = self.seed.unwrap_or_else(seed);
        Sampling { temperature: self.temperature, top_p: self.top_p, seed, ..Sampling::GREEDY }
    }
}

/// A seed nobody chose.
fn time_seed() -> u64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| elapsed.as_nanos() as u64)
}

fn describe(config: &ModelConfig) -> String {
    format!(
        "{} layers, hidden {}, {} of {} experts, vocabulary {}",
        config.num_hidden_layers,
        config.hidden_size,
        config.num_experts_per_tok,
        config.num_local_experts,
        config.vocab_size
    )
}

/// Ids of a prompt that the model knows and that leave it room.
fn encode(
    tokenizer: &Tokenizer,
    text: &str,
    config: &ModelConfig,
    positions: usize,
) -> Result<Vec<u32>> {
    let ids = tokenizer.encode(text)?;
    check_prompt(&ids, config, positions)?;
    Ok(ids)
}

fn check_prompt(ids: &[u32], config: &ModelConfig, positions: usize) -> Result<()> {
    let max = config.vocab_size - 1;
    if let Some(&id) = ids.iter().find(|&&id| id as usize > max) {
        bail!(TokenizerError::UnknownId { id: id.into(), max: max as u32 });
    }
    match ids.len() {
        0 => bail!("the prompt is empty, expected at least one token"),
        length if length > positions => {
            bail!("the prompt has {length} tokens, expected at most {positions} (-n)")
        }
        _ => Ok(()),
    }
}
