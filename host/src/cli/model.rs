//! The model and the device that `run` and `golden` take, from their flags.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use emulator::KernelStats;
use gptoss::cpu::{CpuEngine, CpuOptions, Isa, KvDtype};
use gptoss::device_name::DeviceName;
use gptoss::engine::Engine;
use gptoss::golden::Precision;
use gptoss::gpu::launch::linear::DenseFormat;
use gptoss::gpu::{self, Api};
use gptoss::gpu_engine::{GpuEngine, GpuOptions};
use gptoss::kv_budget::KvBudget;
use gptoss::model::bin::BinLayout;
use gptoss::model::{self, LoadOptions, Weights};
use gptoss::synth;

use super::{Console, args, progress};

/// Which model, and how it is read.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// How a reference .bin is laid out [default: ups]
    #[arg(long, value_enum)]
    bin_layout: Option<BinLayout>,
}

impl ModelArgs {
    /// How to read the model at `path`; `None` is the built-in one. Only a reference `.bin` leaves
    /// anything to choose.
    pub fn options(&self, path: Option<&Path>) -> Result<LoadOptions> {
        if let Some(layout) = self.bin_layout {
            let layout = args::name(layout);
            match path {
                None => bail!("--bin-layout {layout} needs -c, a reference .bin"),
                Some(path) if path.is_dir() => bail!(
                    "--bin-layout {layout}: {} is a folder, expected a reference .bin",
                    path.display()
                ),
                Some(_) => {}
            }
        }
        Ok(LoadOptions { bin_layout: self.bin_layout.unwrap_or_default() })
    }

    /// Maps and checks the model at `path`.
    pub fn load(&self, path: &Path) -> Result<Arc<Weights>> {
        Ok(Arc::new(model::load(path, &self.options(Some(path))?)?))
    }
}

/// The chip emulated for the built-in model where there is no GPU.
const EMULATED: &str = "gfx1151";

/// The model that needs no file.
pub fn built_in() -> Arc<Weights> {
    Arc::new(synth::nano())
}

/// How the CPU engine computes.
#[derive(clap::Args)]
pub struct CpuArgs {
    /// Threads of the CPU engine; without it, one per core.
    #[arg(long, value_parser = args::threads)]
    threads: Option<usize>,
    /// Instruction set of the CPU engine [default: auto]
    #[arg(long, value_enum)]
    isa: Option<Isa>,
    /// KV cache in bf16: the default.
    #[arg(long)]
    kv16: bool,
    /// KV cache in f32.
    #[arg(long, conflicts_with = "kv16")]
    kv32: bool,
}

impl CpuArgs {
    /// The engine's options.
    pub fn options(&self) -> CpuOptions {
        CpuOptions {
            threads: self.threads.unwrap_or(0),
            isa: self.isa.unwrap_or_default(),
            kv: if self.kv32 { KvDtype::F32 } else { KvDtype::Bf16 },
            ..CpuOptions::default()
        }
    }
}

/// Which device, and how it computes.
#[derive(clap::Args)]
pub struct DeviceArgs {
    /// hip, hip:0,1, cuda, emu:gfx1151, emu:gfx1100x4, cpu, or auto: the first of AMD, NVIDIA, CPU
    /// that is there.
    #[arg(long, default_value = "auto")]
    pub device: DeviceName,
    /// getp: number of GPUs to share the prompts among, of those the device names [default: 1]
    #[arg(short, long, value_parser = args::count)]
    gpus: Option<usize>,
    #[command(flatten)]
    cpu: CpuArgs,
    /// Folder of code objects to use instead of the embedded ones.
    #[arg(long, value_name = "DIR")]
    kernels: Option<PathBuf>,
    /// How a GPU keeps dense weights; the router always stays bf16 [default: bf16]
    #[arg(long, value_enum)]
    dense: Option<DenseFormat>,
    /// Print the emulator's counters per kernel at the end.
    #[arg(long)]
    emu_stats: bool,
    /// Whether the CPU engine keeps keys and values in f32 unless a flag asks for bf16.
    #[arg(skip)]
    precise: bool,
}

const EMULATED_ONLY: &str =
    "--emu-stats counts what an emulated GPU does, expected --device emu:CHIP";

/// [`Engines::kind`] of the CPU engine.
const CPU: &str = "cpu";

/// What an engine has to make room for.
#[derive(Clone, Copy)]
pub struct Room {
    /// Sequences that run together.
    pub batch: usize,
    /// Positions of each, where that is known.
    pub positions: Option<usize>,
    /// Memory for keys and values.
    pub kv_memory: KvBudget,
    /// Tokens in one step, where that was chosen.
    pub step_tokens: Option<usize>,
}

impl Room {
    /// For one sequence.
    pub fn for_one(positions: usize) -> Room {
        let (kv_memory, step_tokens) = (KvBudget::default(), None);
        Room { batch: 1, positions: Some(positions), kv_memory, step_tokens }
    }
}

/// An engine, and what has to be known beside its interface.
pub struct Engines {
    /// The engines, one for each GPU; at least one.
    pub engines: Vec<Box<dyn Engine>>,
    /// The device's kind: results may differ in rounding from another kind's.
    pub kind: String,
    /// Why this device.
    pub why: String,
    /// How exactly it computes.
    pub precision: Precision,
}

impl Engines {
    /// The first engine.
    pub fn engine(&self) -> &dyn Engine {
        self.engines[0].as_ref()
    }

    /// For people: what runs, a line for each engine, and why.
    pub fn describe(&self) -> String {
        let engines: Vec<String> = self.engines.iter().map(|engine| engine.describe()).collect();
        // The first clause; `doctor` tells all that was tried.
        let why = match self.why.split_once(';') {
            Some((first, _)) => format!("{first}, doctor says why"),
            None => self.why.clone(),
        };
        format!("{} ({why})", engines.join("\n        "))
    }

    /// Whether this is the CPU engine.
    pub fn is_cpu(&self) -> bool {
        self.kind == CPU
    }
}

impl DeviceArgs {
    /// The device of `getp_cpu`.
    pub fn force_cpu(&mut self) -> Result<()> {
        match &self.device {
            DeviceName::Cpu | DeviceName::Auto => self.device = DeviceName::Cpu,
            other => bail!("--device {other}: mode getp_cpu runs on cpu"),
        }
        Ok(())
    }

    /// Prints what the emulator counted, where that is wanted: a line per kernel.
    pub fn print_stats(&self) -> Result<()> {
        if !self.emu_stats {
            return Ok(());
        }
        let mut console = Console::stderr(None)?;
        console.line(format!(
            "{:<24} {:>8} {:>12} {:>12} {:>10} {:>10} {:>13}",
            "kernel", "launches", "instructions", "vector", "matrix", "global MB", "LDS conflicts"
        ))?;
        for KernelStats { kernel, launches, counters } in emulator::take_stats() {
            console.line(format!(
                "{kernel:<24} {launches:>8} {:>12} {:>12} {:>10} {:>10.1} {:>13}",
                counters.instructions,
                counters.valu,
                counters.matrix,
                counters.global_bytes as f64 / 1e6,
                counters.lds_bank_conflicts
            ))?;
        }
        Ok(())
    }

    /// Whether the CPU engine keeps keys and values in f32; a GPU never does.
    pub fn kv32(&self) -> bool {
        self.cpu.kv32 || self.precise && !self.cpu.kv16
    }

    /// The folder of `--kernels`.
    pub fn kernels(&self) -> Option<&Path> {
        self.kernels.as_deref()
    }

    /// How a GPU keeps dense weights.
    pub fn dense(&self) -> DenseFormat {
        self.dense.unwrap_or(DenseFormat::Bf16)
    }

    /// Keeps keys and values in f32 on the CPU unless a flag asks for bf16: a reference tolerance
    /// is at stake.
    pub fn prefer_kv32(&mut self) {
        self.precise = true;
    }

    /// Makes an engine for what `room` says.
    pub fn open(&self, weights: Arc<Weights>, room: Room) -> Result<Engines> {
        if let Some(gpus) = self.gpus.filter(|&gpus| gpus > 1) {
            bail!("-g {gpus}: only files of prompts (getp) are shared among GPUs");
        }
        self.open_all(weights, room)
    }

    /// As [`DeviceArgs::open`], an engine on each of `-g` GPUs.
    pub fn open_all(&self, weights: Arc<Weights>, room: Room) -> Result<Engines> {
        match gpu::open(&self.device)? {
            gpu::Opened::Cpu { why } => self.open_cpu(weights, room, why),
            gpu::Opened::Gpus { devices, why } => self.open_gpus(&devices, &weights, room, why),
        }
    }

    /// As [`DeviceArgs::open_all`], but where `auto` finds no GPU it takes emulated ones: the
    /// kernels are what the built-in model is there to show.
    pub fn open_or_emulate(&self, weights: Arc<Weights>, room: Room) -> Result<Engines> {
        let count = self.gpus.unwrap_or(1);
        let emulated = DeviceName::Emulator { chip: EMULATED.to_owned(), count };
        if self.device == DeviceName::Auto
            && let gpu::Opened::Cpu { why } = gpu::open(&self.device)?
            && let gpu::Opened::Gpus { devices, .. } = gpu::open(&emulated)?
        {
            return self.open_gpus(&devices, &weights, room, why);
        }
        self.open_all(weights, room)
    }

    /// The CPU engine beside another one, to compare with it.
    pub fn open_reference(&self, weights: Arc<Weights>) -> Result<CpuEngine> {
        let options = CpuOptions { max_sequences: 1, ..self.cpu.options() };
        CpuEngine::new(weights, options).context("device cpu")
    }

    fn open_gpus(
        &self,
        devices: &[gpu::Device],
        weights: &Arc<Weights>,
        room: Room,
        why: String,
    ) -> Result<Engines> {
        let gpus = self.gpus.unwrap_or(1);
        let Some(devices) = devices.get(..gpus) else {
            bail!("-g {gpus}: --device {} has {} GPUs", self.device, devices.len());
        };
        self.refuse_cpu_flags()?;
        let kind = kind(devices)?;
        if self.emu_stats && devices.iter().any(|device| device.api() != Api::Emulator) {
            bail!(EMULATED_ONLY);
        }
        if self.cpu.kv32 {
            bail!("--kv32: device {} keeps keys and values in bf16", devices[0]);
        }
        let most = weights.config.max_position_embeddings;
        let defaults = GpuOptions::default();
        let options = GpuOptions {
            max_sequences: room.batch,
            max_positions: room.positions.unwrap_or(defaults.max_positions).clamp(1, most),
            max_step_tokens: room.step_tokens.unwrap_or(defaults.max_step_tokens),
            budget: room.kv_memory,
            dense: self.dense(),
            kernels: self.kernels.clone(),
        };
        let bar = progress::bytes("weights to the device");
        let engines = GpuEngine::new_all(devices, weights, options, |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        })?;
        drop(bar);
        let engines = engines.into_iter().map(|engine| Box::new(engine) as _).collect();
        Ok(Engines { engines, kind, why, precision: Precision::Bf16 })
    }

    /// What only the CPU engine obeys.
    fn refuse_cpu_flags(&self) -> Result<()> {
        let CpuArgs { threads, isa, kv16: _, kv32: _ } = &self.cpu;
        let given = [
            ("--threads", threads.map(|threads| threads.to_string())),
            ("--isa", isa.map(args::name)),
        ];
        for (flag, value) in given {
            if let Some(value) = value {
                bail!("{flag} {value}: a GPU computes here, expected --device cpu");
            }
        }
        Ok(())
    }

    fn open_cpu(&self, weights: Arc<Weights>, room: Room, why: String) -> Result<Engines> {
        if let Some(gpus) = self.gpus.filter(|&gpus| gpus > 1) {
            bail!("-g {gpus}: device cpu has no GPUs to share work among");
        }
        if let Some(kernels) = &self.kernels {
            bail!("--kernels {}: device cpu has no kernels", kernels.display());
        }
        if let Some(dense) = self.dense {
            let dense = args::name(dense);
            bail!("--dense {dense}: device cpu computes with the weights as they are stored");
        }
        if self.emu_stats {
            bail!(EMULATED_ONLY);
        }
        let kv = if self.kv32() { KvDtype::F32 } else { KvDtype::Bf16 };
        let options = CpuOptions {
            max_sequences: room.batch,
            max_positions: room.positions.unwrap_or(usize::MAX),
            max_step_tokens: room.step_tokens.unwrap_or(CpuOptions::default().max_step_tokens),
            budget: room.kv_memory,
            kv,
            ..self.cpu.options()
        };
        let engine = CpuEngine::new(weights, options).context("device cpu")?;
        Ok(Engines {
            engines: vec![Box::new(engine)],
            kind: String::from(CPU),
            why,
            // Keys and values rounded to bf16 are beyond what an f32 engine may differ by.
            precision: if self.kv32() { Precision::F32 } else { Precision::Bf16 },
        })
    }
}

/// The chip of all `devices`: results of two kinds may differ in rounding.
fn kind(devices: &[gpu::Device]) -> Result<String> {
    let first = &devices[0].properties().arch;
    match devices.iter().find(|device| device.properties().arch != *first) {
        Some(other) => bail!(
            "{} is a {first} and {other} a {}, expected GPUs of one kind to share a file of prompts",
            devices[0],
            other.properties().arch
        ),
        None => Ok(first.clone()),
    }
}
