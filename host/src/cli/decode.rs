//! `gptoss decode`: output files back to text.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use gptoss::files;
use gptoss::tokenizer::Tokenizer;

use super::{Console, args};

/// Where `-l` writes, as in the reference tool.
const LOG_FILE: &str = "gt_decoded.txt";

/// Prints the text of a getp output file, request by request.
#[derive(clap::Args)]
pub struct Args {
    /// Only this request, counted from 0; a negative number is all of them.
    #[arg(allow_negative_numbers = true, default_value_t = -1)]
    line: i64,
    /// The output file: one line of token ids per request.
    #[arg(short, long)]
    input: PathBuf,
    /// Reference tokenizer.bin instead of the built-in o200k_harmony.
    #[arg(short = 'z', long)]
    tokenizer: Option<PathBuf>,
    /// Also write everything to gt_decoded.txt.
    #[arg(short, long)]
    log: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let path = &args.input;
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let tokenizer = args::tokenizer(args.tokenizer.as_deref())?;
    let lines: Vec<&str> = text.lines().collect();
    let wanted = match usize::try_from(args.line) {
        Err(_) => 0..lines.len(),
        Ok(line) if line < lines.len() => line..line + 1,
        Ok(line) => {
            bail!("{}: no line {line}, it has {}", path.display(), lines.len())
        }
    };
    if args.log {
        let mut inputs = vec![("-i", path.as_path())];
        inputs.extend(args.tokenizer.iter().map(|path| ("-z", path.as_path())));
        files::refuse_overlap(("-l", Path::new(LOG_FILE)), &inputs)?;
    }
    let mut console = Console::stdout(args.log.then_some(Path::new(LOG_FILE)))?;
    for index in wanted {
        let text = decode_line(&tokenizer, lines[index])
            .with_context(|| format!("{}: line {}", path.display(), index + 1))?;
        console.line("-".repeat(66))?;
        console.line(format!("⛩️  Decoding #{index}:"))?;
        console.untrusted(&text)?;
        console.line("")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn decode_line(tokenizer: &Tokenizer, line: &str) -> Result<String> {
    let ids = line
        .split_whitespace()
        .map(|word| word.parse::<u32>().with_context(|| format!("{word:.40?} is no token id")));
    Ok(tokenizer.decode(&ids.collect::<Result<Vec<_>>>()?)?)
}
