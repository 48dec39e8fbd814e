//! The model and the device that `run` and `golden` take, from their flags.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use gptoss::cpu::{CpuEngine, CpuOptions, Isa, KvDtype};
use gptoss::device_name::DeviceName;
use gptoss::engine::Engine;
use gptoss::golden::Precision;
use gptoss::model::{self, LoadOptions, Weights};
use gptoss::synth;

use super::args::{self, BinLayoutArg};

/// Which model, and how it is read.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// How a reference .bin is laid out.
    #[arg(long, value_enum, default_value_t)]
    bin_layout: BinLayoutArg,
}

impl ModelArgs {
    /// How to read a file.
    pub fn options(&self) -> LoadOptions {
        LoadOptions { bin_layout: self.bin_layout.into() }
    }

    /// Maps and checks the model at `path`.
    pub fn load(&self, path: &Path) -> Result<Arc<Weights>> {
        Ok(Arc::new(model::load(path, &self.options())?))
    }
}

/// The model that needs no file.
pub fn built_in() -> Arc<Weights> {
    Arc::new(synth::nano())
}

/// How the CPU engine computes.
#[derive(clap::Args)]
pub struct CpuArgs {
    /// Threads of the CPU engine; without it, one per core.
    #[arg(long, value_parser = args::count)]
    threads: Option<usize>,
    /// Instruction set of the CPU engine.
    #[arg(long, value_enum, default_value_t)]
    isa: IsaArg,
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
            isa: match self.isa {
                IsaArg::Auto => Isa::Auto,
                IsaArg::Portable => Isa::Portable,
                IsaArg::Avx2 => Isa::Avx2,
                IsaArg::Avx512 => Isa::Avx512,
            },
            kv: if self.kv32 { KvDtype::F32 } else { KvDtype::Bf16 },
            ..CpuOptions::default()
        }
    }
}

/// Which device, and how it computes.
#[derive(clap::Args)]
pub struct DeviceArgs {
    /// hip, hip:0,1, cuda, emu:gfx1151, emu:gfx942x4, cpu, or auto: the first of AMD, NVIDIA, CPU
    /// that is there.
    #[arg(long, default_value = "auto")]
    pub device: DeviceName,
    /// Number of GPUs, of those the device names.
    #[arg(short, long, value_parser = args::count)]
    gpus: Option<usize>,
    #[command(flatten)]
    cpu: CpuArgs,
    /// Folder of code objects to use instead of the embedded ones.
    #[arg(long, value_name = "DIR")]
    kernels: Option<PathBuf>,
    /// Print the emulator's counters per kernel at the end.
    #[arg(long)]
    emu_stats: bool,
}

/// Instruction set of the CPU engine.
#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum IsaArg {
    /// The best this CPU has.
    #[default]
    Auto,
    /// No intrinsics.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512.
    Avx512,
}

/// An engine, and what has to be known beside its interface.
pub struct Opened {
    /// The engine.
    pub engine: Box<dyn Engine>,
    /// The device's kind: results may differ in rounding from another kind's.
    pub kind: String,
    /// Why this device.
    pub why: String,
    /// How exactly it computes.
    pub precision: Precision,
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

    /// Whether keys and values are kept in f32.
    pub fn kv32(&self) -> bool {
        self.cpu.kv32
    }

    /// Keeps keys and values in f32 unless a flag asks for bf16: a reference tolerance is at stake.
    pub fn prefer_kv32(&mut self) {
        self.cpu.kv32 = !self.cpu.kv16;
    }

    /// Makes an engine for up to `batch` sequences.
    pub fn open(&self, weights: Arc<Weights>, batch: usize) -> Result<Opened> {
        match &self.device {
            DeviceName::Cpu => self.open_cpu(weights, batch, format!("--device {}", self.device)),
            DeviceName::Auto => self.open_cpu(weights, batch, String::from("auto: the CPU engine")),
            other => bail!("--device {other}: this build runs models on cpu"),
        }
    }

    fn open_cpu(&self, weights: Arc<Weights>, batch: usize, why: String) -> Result<Opened> {
        if let Some(gpus) = self.gpus.filter(|&gpus| gpus > 1) {
            bail!("-g {gpus}: device cpu has no GPUs to share work among");
        }
        if let Some(kernels) = &self.kernels {
            bail!("--kernels {}: device cpu has no kernels", kernels.display());
        }
        if self.emu_stats {
            bail!("--emu-stats counts what an emulated GPU does, expected --device emu:CHIP");
        }
        let options = CpuOptions { max_sequences: batch, ..self.cpu.options() };
        let engine = CpuEngine::new(weights, options).context("device cpu")?;
        Ok(Opened {
            engine: Box::new(engine),
            kind: String::from("cpu"),
            why,
            precision: Precision::F32,
        })
    }
}
