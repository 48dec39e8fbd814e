//! `gptoss bench`: how fast things are, with the ceilings measured in the same run.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use gptoss::bench::{cpu, kernels};
use gptoss::device_name::DeviceName;

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
    Emu(EmulatorBench),
    Kernels(KernelBench),
}

/// The emulator: instructions and matrix instructions per second, and how they scale over threads.
#[derive(clap::Args)]
struct EmulatorBench {
    /// Threads of the scaling measurement; without it, one per core.
    #[arg(long, value_parser = args::count)]
    threads: Option<usize>,
    /// JSON.
    #[arg(long)]
    json: bool,
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

/// The GPU kernels at gpt-oss-20b's shapes, as shares of a roofline measured in the same run.
#[derive(clap::Args)]
struct KernelBench {
    /// Which GPU: hip, cuda, or emu:gfx1151 (small shapes, whose times mean nothing).
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    /// Folder of code objects in place of those in this program.
    #[arg(long, value_name = "DIR")]
    kernels: Option<PathBuf>,
    /// JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<ExitCode> {
    match args.what {
        What::Cpu(args) => cpu(args),
        What::Emu(args) => emulator(&args),
        What::Kernels(args) => run_kernels(args),
    }
}

fn run_kernels(args: KernelBench) -> Result<ExitCode> {
    let mut console = Console::stdout(None)?;
    let options = kernels::Options { device: args.device, kernels: args.kernels };
    let report = kernels::run(&options)?;
    if args.json {
        console.line(serde_json::to_string_pretty(&report)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    console.line(report.device.summary())?;
    let copy = &report.ceilings.copy;
    console.line(format!("copy    {:8.0} GB/s   {}", copy.gb_per_s, copy.shape))?;
    match &report.ceilings.matrix {
        Ok(m) => {
            console.line(format!("matrix  {:8.0} Tflop/s {} {}", m.tflop_per_s, m.name, m.shape))?
        }
        Err(why) => console.line(format!("matrix  not measured: {why}"))?,
    }
    for kernels::Measured { result, share, bound } in &report.kernels {
        console.line(format!(
            "{:34} {:32} {:10.1} us {:8.0} GB/s {:8.1} Tflop/s {:5.1} % of {bound}",
            result.name,
            result.shape,
            result.time.median_us,
            result.gb_per_s,
            result.tflop_per_s,
            100.0 * share
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn cpu(args: CpuBench) -> Result<ExitCode> {
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

fn emulator(args: &EmulatorBench) -> Result<ExitCode> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let speed = ::emulator::bench::measure(args.threads.unwrap_or(threads))?;
    let mut console = Console::stdout(None)?;
    if args.json {
        console.line(speed.to_json())?;
        return Ok(ExitCode::SUCCESS);
    }
    let millions = |rate: f64| format!("{:.2} million/s per core", rate / 1e6);
    console.line(format!("vector instructions: {}", millions(speed.instructions_per_second)))?;
    console.line(format!("matrix instructions: {}", millions(speed.matrix_per_second)))?;
    console.line(format!("{} threads: {:.2} times one", speed.threads, speed.scaling))?;
    Ok(ExitCode::SUCCESS)
}
