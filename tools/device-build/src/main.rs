//! `device-build --arch LIST [--out DIR] [--quiet]`: one code object per chip.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use device_build::{
    CHIPS, Chip, Family, build, chip, default_out, detected_chips, lint, parse_chips,
};

const USAGE: &str = "usage: device-build [--arch LIST|all] [--out DIR] [--quiet] [--lint]

Compiles the kernels in device/ to one code object per chip (PTX for sm_90).

  --arch LIST  chips, separated by commas, or `all`; without it, the GPUs found here and gfx1151
  --out DIR    where NAME.co and NAME.s (or NAME.ptx) go [default: target/kernels]
  --lint       Clippy on the kernels instead, with warnings denied; without --arch, for the first
               chip of every family
  --quiet      a line for what is compiled, and nothing when all is up to date

The checkout is $GPTOSS_ROOT, else the one around the current folder.";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("device-build: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let (mut chips, mut out, mut quiet, mut clippy) = (None, default_out(), false, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value\n\n{USAGE}"));
        match arg.as_str() {
            "--arch" => chips = Some(parse_chips(&value()?).map_err(|e| e.to_string())?),
            "--out" => out = PathBuf::from(value()?),
            "--quiet" => quiet = true,
            "--lint" => clippy = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            _ => return Err(format!("unexpected argument `{arg}`\n\n{USAGE}")),
        }
    }
    if clippy {
        let families = || Family::ALL.map(|f| CHIPS.into_iter().find(|c| c.family == f));
        let chips = chips.unwrap_or_else(|| families().into_iter().flatten().collect());
        return lint(&chips).map_err(|e| e.to_string());
    }
    let chips = match chips {
        Some(chips) => chips,
        None => default_chips()?,
    };
    let start = Instant::now();
    let artifacts = build(&chips, &out).map_err(|e| e.to_string())?;
    if quiet {
        return Ok(());
    }
    for artifact in artifacts {
        let state = if artifact.rebuilt { "built" } else { "up to date" };
        println!("{:8} {state:10} {}", artifact.chip.name, artifact.path.display());
    }
    eprintln!("{} chip(s) in {:.1} s", chips.len(), start.elapsed().as_secs_f64());
    Ok(())
}

/// gfx1151, which the emulator runs everywhere, and the supported GPUs of this machine.
fn default_chips() -> Result<Vec<Chip>, String> {
    let mut chips = vec![chip("gfx1151").map_err(|e| e.to_string())?];
    for name in detected_chips() {
        match CHIPS.into_iter().find(|c| c.name == name) {
            Some(chip) if !chips.contains(&chip) => chips.push(chip),
            Some(_) => {}
            None => eprintln!("device-build: this machine's {name} has no kernels, skipped"),
        }
    }
    Ok(chips)
}
