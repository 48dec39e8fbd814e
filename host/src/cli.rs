//! The command line: what may be typed, with types. What it does is in the modules below.

mod args;
mod bench;
mod codegen;
mod console;
mod decode;
mod doctor;
mod export;
mod golden;
mod interrupt;
mod model;
mod progress;
mod run;
mod synth;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use console::Console;
use gptoss::terminal;

/// Exit code of a failed command.
const FAILURE: u8 = 1;
/// Exit code of a command line that cannot be understood.
const USAGE: u8 = 2;

/// Runs OpenAI's gpt-oss models; the GPU kernels are Rust.
#[derive(Parser)]
#[command(name = "gptoss", version, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(bench::Args),
    Codegen(codegen::Args),
    Decode(decode::Args),
    Doctor(doctor::Args),
    Export(export::Args),
    Golden(golden::Args),
    Run(Box<run::Args>),
    Synth(synth::Args),
}

/// Parses the process's arguments and obeys.
pub fn main() -> ExitCode {
    report_panics_in_one_line();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match dispatch(cli.command) {
        Ok(code) => code,
        // Whoever reads our output has enough: `gptoss ... | head` is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gptoss: {}", one_line(&message(&error)));
            ExitCode::from(if is_interrupt(&error) { interrupt::EXIT_CODE } else { FAILURE })
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Bench(args) => bench::run(args),
        Command::Codegen(args) => codegen::run(&args),
        Command::Decode(args) => decode::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Golden(args) => golden::run(args),
        Command::Run(args) => run::run(*args),
        Command::Synth(args) => synth::run(&args),
    }
}

/// Prints help as it is, and an error as one line with the value and what was expected.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Nothing is left to do when even this cannot be printed.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(USAGE);
    }
    let rendered = error.to_string();
    let first = rendered.split("\n\nUsage:").next().unwrap_or_default();
    let first = first.split("\n\nFor more").next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(first);
    let message =
        message.replace("cannot be used multiple times", "is given more than once, expected once");
    eprintln!("gptoss: {} (see --help)", one_line(&message));
    ExitCode::from(USAGE)
}

/// A message on one line, with nothing in it that a terminal obeys: arguments and files name
/// themselves in it.
fn one_line(text: &str) -> String {
    terminal::line(&text.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned()
}

/// The error and its causes, without those that the text before already ends with.
fn message(error: &anyhow::Error) -> String {
    let mut message = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !message.ends_with(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    message
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

fn is_interrupt(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(gptoss::model::ModelError::Interrupted { .. }))
}

/// A bug is reported like any error: one line. `RUST_BACKTRACE` brings the whole story back.
fn report_panics_in_one_line() {
    if std::env::var_os("RUST_BACKTRACE").is_some() {
        return;
    }
    std::panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("no message");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        eprintln!("gptoss: internal error at {place}: {}", one_line(message));
    }));
}
