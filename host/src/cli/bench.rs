//! `gptoss bench`: how fast things are, with the ceilings measured in the same run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Subcommand;
use gptoss::bench::{chat, cpu, kernels, load};
use gptoss::device_name::DeviceName;
use gptoss::gpu::{self, Opened};
use gptoss::synth;

use super::Console;
use super::args;
use super::model::{self, CpuArgs, DeviceArgs, ModelArgs, Room};

/// Measures speed.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Chat(ChatBench),
    Cpu(CpuBench),
    Emu(EmulatorBench),
    Kernels(KernelBench),
    Load(LoadBench),
}

/// A conversation: how long its second answer is waited for, beside a short prompt's.
#[derive(clap::Args)]
struct ChatBench {
    /// The model; without it, the small built-in one.
    #[arg(short, long)]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Tokens of the conversation before the last message.
    #[arg(long, default_value = "2000", value_parser = args::count)]
    tokens: usize,
    /// Measurements of each kind.
    #[arg(long, default_value = "9", value_parser = args::count)]
    samples: usize,
    /// JSON.
    #[arg(long)]
    json: bool,
}

/// Every kernel of the model at the sizes of gpt-oss-20b, beside the copy bandwidth and the matrix
/// rate of the same run.
#[derive(clap::Args)]
struct KernelBench {
    /// Where: hip:0, cuda:0 or emu:CHIP.
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    /// Only kernels whose name contains this.
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Folder of code objects or PTX, instead of the embedded ones.
    #[arg(long, value_name = "DIR")]
    kernels: Option<PathBuf>,
    /// Small shapes and few samples, as always on the emulator: times mean nothing.
    #[arg(long)]
    quick: bool,
    /// JSON.
    #[arg(long)]
    json: bool,
}

/// The emulator: instructions and matrix instructions per second, and how they scale over threads.
#[derive(clap::Args)]
struct EmulatorBench {
    /// Threads of the scaling measurement; without it, one per core.
    #[arg(long, value_parser = args::threads)]
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

/// Loading: how fast weights are packed and sent, beside the copy rate of the same run.
#[derive(clap::Args)]
struct LoadBench {
    /// The model; without it, two layers of gpt-oss-20b with random weights, in memory.
    #[arg(short, long)]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// Where: hip, hip:0,1, cuda, emu:CHIP; several devices are loaded at once.
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    /// JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<ExitCode> {
    match args.what {
        What::Chat(args) => chat_bench(&args),
        What::Cpu(args) => cpu(args),
        What::Emu(args) => emulator(&args),
        What::Kernels(args) => kernel_bench(args),
        What::Load(args) => load_bench(args),
    }
}

/// The GPUs of a device name.
fn gpus(name: &DeviceName, what: &str) -> Result<Vec<gpu::Device>> {
    match gpu::open(name)? {
        Opened::Gpus { devices, .. } => Ok(devices),
        Opened::Cpu { why } => bail!("--device {name}: {why}; bench {what} needs a GPU"),
    }
}

fn load_bench(args: LoadBench) -> Result<ExitCode> {
    let devices = gpus(&args.device, "load")?;
    let weights = match &args.checkpoint {
        Some(path) => args.model.load(path)?,
        None => {
            let two_layers = synth::Options::new(synth::Preset::TwoLayers, 0);
            Arc::new(synth::in_memory(&two_layers)?)
        }
    };
    let report = load::run(&devices, &weights)?;
    let mut console = Console::stdout(None)?;
    match args.json {
        true => console.line(serde_json::to_string_pretty(&report)?)?,
        false => console.line(report.to_string().trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn chat_bench(args: &ChatBench) -> Result<ExitCode> {
    let weights = match &args.checkpoint {
        Some(path) => args.model.load(path)?,
        None => model::built_in(),
    };
    // Two conversations: the one that is measured, and those before it that make room.
    let positions = 2 * (args.tokens + chat::SHORT + chat::MESSAGE);
    let mut opened = args.device.open(weights, Room::for_one(positions))?;
    let options = chat::Options { tokens: args.tokens, samples: args.samples };
    let report = chat::run(opened.engines.remove(0), options)?;
    let mut console = Console::stdout(None)?;
    match args.json {
        true => console.line(serde_json::to_string_pretty(&report)?)?,
        false => console.line(report.to_string().trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn kernel_bench(args: KernelBench) -> Result<ExitCode> {
    let name = args.device;
    let devices = gpus(&name, "kernels")?;
    let [device] = devices.as_slice() else {
        bail!("--device {name}: {} devices, and kernels are timed on one", devices.len());
    };
    let chip = &device.properties().arch;
    let code = gptoss::kernels::code_object(chip, args.kernels.as_deref())?;
    let loaded = gpu::Kernels::load(device, chip, &code)?;
    let options = kernels::Options { kernel: args.kernel, quick: args.quick };
    let report = kernels::run(&loaded, &options)?;
    let mut console = Console::stdout(None)?;
    match args.json {
        true => console.line(serde_json::to_string_pretty(&report)?)?,
        false => console.line(report.to_string().trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn cpu(args: CpuBench) -> Result<ExitCode> {
    let options = cpu::Options {
        load: args.model.options(args.checkpoint.as_deref())?,
        model: args.checkpoint,
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
