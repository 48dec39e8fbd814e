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
use gptoss::harmony::Effort;
use gptoss::kv_budget::KvBudget;
use gptoss::model::{ModelConfig, Weights};
use gptoss::terminal;
use gptoss::tokenizer::{Tokenizer, TokenizerError};

use super::console::LOG_FILE;
use super::model::{self, DeviceArgs, ModelArgs, Room};
use super::{Console, args};

/// Total positions when `-n` does not say.
const POSITIONS: usize = 1024;
/// The same for the built-in model: prompts on an emulated GPU are not worth waiting long for, and
/// in chat the frame alone takes about seventy.
const BUILT_IN_POSITIONS: usize = 24;
const BUILT_IN_TEXT_POSITIONS: usize = 64;
const BUILT_IN_CHAT_POSITIONS: usize = 512;
/// Requests together when `-b` does not say.
const BATCH: usize = 32;
/// Temperature and nucleus of a conversation, as OpenAI recommends them for these models.
const CHAT_SAMPLING: (f32, f32) = (1.0, 1.0);
/// Those of the other modes, as in the reference systems.
const TEXT_SAMPLING: (f32, f32) = (0.0, 0.9);
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
    /// chat: how long the model may reason [default: medium]
    #[arg(long, value_enum)]
    effort: Option<Effort>,
    /// Temperature; 0 takes the most likely token [default: 1 in chat, else 0]
    #[arg(short = 'T', long, value_parser = args::temperature, allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Take the most likely token, as -T 0.
    #[arg(long, conflicts_with = "temperature")]
    greedy: bool,
    /// Sample among the most likely tokens that together have this probability [default: 1 in
    /// chat, else 0.9]
    #[arg(short = 'p', long, value_parser = args::top_p, allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Sample among this many of the most likely tokens [default: all]
    #[arg(short = 'k', long, value_parser = args::top_k, allow_negative_numbers = true)]
    top_k: Option<u32>,
    /// Leave out tokens less probable than this share of the likeliest one [default: 0]
    #[arg(long, value_parser = args::min_p, allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// End at this text; may be given again.
    #[arg(long, value_name = "TEXT", value_parser = args::text, allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Positions in total, prompt included; 0 is all the model has [default: 1024; chat: what
    /// memory holds]
    #[arg(short = 'n', long, value_parser = args::count_or_zero, allow_negative_numbers = true)]
    steps: Option<usize>,
    /// Seed of sampling; without it, the time.
    #[arg(short, long, value_parser = args::seed, allow_negative_numbers = true)]
    seed: Option<u64>,
    /// getp: requests that run together, on each GPU [default: 32]
    #[arg(short, long, value_parser = args::batch, allow_negative_numbers = true)]
    batch: Option<usize>,
    /// Memory for keys and values, on each device: auto takes what is free, full what every
    /// sequence at its full length needs, 12G so many bytes (k, M and G count 1000).
    #[arg(
        long,
        value_name = "BYTES|auto|full",
        default_value = "auto",
        allow_negative_numbers = true
    )]
    kv_memory: KvBudget,
    /// Tokens that go through the model together, prompts and answers mixed [default: 512]
    #[arg(long, value_name = "N", value_parser = args::step_tokens, allow_negative_numbers = true)]
    step_tokens: Option<usize>,
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
    args.note_unused_flags()?;
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
            ("--effort", self.effort.is_some() && !chats, "chat"),
            ("-b", self.batch.is_some() && (chats || generates), "getp"),
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

    /// Names the flags that greedy choice does not look at; the reference systems take them too.
    fn note_unused_flags(&self) -> Result<()> {
        let drawn = [
            ("-p", self.top_p.is_some()),
            ("-k", self.top_k.is_some()),
            ("--min-p", self.min_p.is_some()),
            ("-s", self.seed.is_some()),
        ];
        let unused: Vec<&str> =
            drawn.iter().filter(|(_, given)| *given).map(|(flag, _)| *flag).collect();
        if self.temperature() > 0.0 || unused.is_empty() {
            return Ok(());
        }
        let unused = unused.join(" ");
        Console::stderr(None)?.line(format!(
            "note: {unused} without -T: the most likely token is taken, nothing is drawn"
        ))
    }

    fn tokenizer(&self) -> Result<Tokenizer> {
        args::tokenizer(self.tokenizer.as_deref())
    }

    /// The model, and what it is called.
    fn weights(&self, console: &mut Console) -> Result<(Arc<Weights>, String)> {
        let Some(path) = &self.checkpoint else {
            self.model.options(None)?;
            if std::env::var_os(MODEL_ROOT).is_some() {
                console.line(format!("note: {MODEL_ROOT} is set, -m 20 and -m 120 look there"))?;
            }
            console.line(
                "model: built in, 4 small layers with random weights: its text has no meaning \
                 (-c takes a real one)",
            )?;
            return Ok((model::built_in(), String::from("built-in")));
        };
        let weights = self.model.load(path)?;
        console.line(format!("model: {}, {}", terminal::path(path), describe(&weights.config)))?;
        let name = path.canonicalize().unwrap_or_else(|_| path.clone());
        Ok((weights, name.display().to_string()))
    }

    /// What an engine has to make room for, `batch` requests at a time.
    fn room(&self, batch: usize) -> Room {
        let positions = match self.steps {
            Some(0) => usize::MAX,
            Some(n) => n,
            None => self.default_positions(),
        };
        let (kv_memory, step_tokens) = (self.kv_memory, self.step_tokens);
        Room { batch, positions: Some(positions), kv_memory, step_tokens }
    }

    fn default_positions(&self) -> usize {
        match self.mode {
            // A conversation grows as long as it can.
            Mode::Chat if self.checkpoint.is_some() => usize::MAX,
            _ if self.checkpoint.is_some() => POSITIONS,
            Mode::Chat => BUILT_IN_CHAT_POSITIONS,
            Mode::Generate => BUILT_IN_TEXT_POSITIONS,
            _ => BUILT_IN_POSITIONS,
        }
    }

    /// Positions of every sequence, `-n`.
    fn positions(&self, engine: &dyn Engine) -> Result<usize> {
        let max = engine.limits().max_positions.min(engine.config().max_position_embeddings);
        match self.steps {
            Some(0) => Ok(max),
            Some(n) if n > max => bail!("-n {n}: the model has {max} positions"),
            Some(n) => Ok(n),
            None => Ok(self.default_positions().min(max)),
        }
    }

    /// How tokens are chosen, with `seed` when `-s` does not say.
    fn sampling(&self, seed: impl FnOnce() -> u64) -> Sampling {
        Sampling {
            temperature: self.temperature(),
            top_p: self.top_p.unwrap_or(self.default_sampling().1),
            top_k: self.top_k.unwrap_or(0),
            min_p: self.min_p.unwrap_or(0.0),
            seed: self.seed.unwrap_or_else(seed),
        }
    }

    fn temperature(&self) -> f32 {
        match self.temperature {
            _ if self.greedy => 0.0,
            Some(temperature) => temperature,
            None => self.default_sampling().0,
        }
    }

    /// Temperature and nucleus of the mode.
    fn default_sampling(&self) -> (f32, f32) {
        if self.mode == Mode::Chat { CHAT_SAMPLING } else { TEXT_SAMPLING }
    }

    /// Requests that run together on each device.
    fn batch(&self) -> usize {
        self.batch.unwrap_or(BATCH)
    }
}

/// What draws the tokens: enough to draw the same again.
fn describe_sampling(sampling: &Sampling) -> String {
    let Sampling { temperature, top_p, top_k, min_p, seed } = sampling;
    let top_k = if *top_k > 0 { format!(", top-k {top_k}") } else { String::new() };
    let min_p = if *min_p > 0.0 { format!(", min-p {min_p}") } else { String::new() };
    format!("sampling: temperature {temperature}, top-p {top_p}{top_k}{min_p}, seed {seed}")
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
