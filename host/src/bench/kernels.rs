//! `gptoss bench kernels`: every kernel of the model at the sizes of gpt-oss-20b, beside the
//! ceilings measured in the same run.
//!
//! Launches are recorded into a graph, so that the host's launch latency does not show, and rotate
//! over buffers past the last-level cache, so that weights and pages come from memory. Inputs are
//! random: zeros draw less power and clock higher. A kernel's share is the time that its bytes at
//! the copy bandwidth or its operations at the matrix rate would take, whichever is longer, over
//! the time it takes.

mod attention;
mod linear;
mod moe;
mod rows;

use half::bf16;
use std::fmt;

use bytemuck::Pod;
use serde::Serialize;
use shared::philox::{philox4x32, uniform};

use super::ceiling::{self, Ceilings};
use super::device::{self, Method, Time};
use crate::gpu::{Api, Device, DeviceBuffer, GpuError, Graph, Kernels, Stream};

/// Launches in a recorded graph, at least.
const RECORDED: usize = 20;

/// What to measure.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only kernels whose name contains this.
    pub kernel: Option<String>,
    /// Small shapes and few samples: shows that everything runs, and times mean nothing.
    pub quick: bool,
}

/// The sizes of a model, and of what it is asked.
struct Sizes {
    hidden: usize,
    units: usize,
    kv_heads: usize,
    group: usize,
    head_dim: usize,
    experts: usize,
    top_k: usize,
    vocab: usize,
    /// Rows of a step of decode, one per sequence.
    decode: &'static [usize],
    /// Rows of a step of prefill.
    prefill: &'static [usize],
    /// Tokens each decoding sequence has.
    contexts: &'static [usize],
    window: usize,
}

impl Sizes {
    const GPT_OSS_20B: Sizes = Sizes {
        hidden: 2880,
        units: 2880,
        kv_heads: 8,
        group: 8,
        head_dim: 64,
        experts: 32,
        top_k: 4,
        vocab: 201_088,
        decode: &[1, 16, 64],
        prefill: &[1024, 4096],
        contexts: &[1024, 8192],
        window: 128,
    };
    const QUICK: Sizes = Sizes {
        hidden: 96,
        units: 64,
        kv_heads: 2,
        group: 3,
        head_dim: 32,
        experts: 5,
        top_k: 2,
        vocab: 257,
        decode: &[1, 17],
        prefill: &[65],
        contexts: &[70],
        window: 16,
    };

    fn heads(&self) -> usize {
        self.kv_heads * self.group
    }

    fn all_rows(&self) -> impl Iterator<Item = usize> {
        self.decode.iter().chain(self.prefill).copied()
    }
}

/// One kernel at one shape.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Work and time.
    #[serde(flatten)]
    pub result: device::Result,
    /// Share of the ceiling, 1 at best.
    pub share: f64,
    /// The ceiling that limits it.
    pub limit: Limit,
}

/// What keeps a kernel from being faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// The copy bandwidth.
    Copy,
    /// The matrix rate.
    Matrix,
}

impl Measured {
    fn new(result: device::Result, ceilings: &Ceilings) -> Measured {
        let copy = result.bytes / (ceilings.copy.gb_per_s * 1e9);
        let matrix = match &ceilings.matrix {
            Ok(matrix) => result.flops / (matrix.tflop_per_s * 1e12),
            Err(_) => 0.0,
        };
        let (limit, seconds) =
            if matrix > copy { (Limit::Matrix, matrix) } else { (Limit::Copy, copy) };
        Measured { share: seconds / (result.time.median_us * 1e-6), result, limit }
    }
}

/// All that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The device.
    pub device: String,
    /// The ceilings of this run.
    pub ceilings: Ceilings,
    /// Kernel by kernel.
    pub kernels: Vec<Measured>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.device)?;
        writeln!(f, "copy, read and written: {:.0} GB/s", self.ceilings.copy.gb_per_s)?;
        match &self.ceilings.matrix {
            Ok(matrix) => {
                writeln!(f, "{} {}: {:.1} Tflop/s", matrix.name, matrix.shape, matrix.tflop_per_s)?;
            }
            Err(why) => writeln!(f, "no matrix rate: {why}")?,
        }
        writeln!(
            f,
            "{:<26} {:<32} {:>10} {:>9} {:>9} {:>9} {:>8} {:>8}  share of",
            "kernel", "shape", "median us", "q1", "q3", "MB", "GB/s", "Tflop/s"
        )?;
        for Measured { result, share, limit } in &self.kernels {
            let limit = match limit {
                Limit::Copy => "copy",
                Limit::Matrix => "matrix",
            };
            writeln!(
                f,
                "{:<26} {:<32} {:>10.2} {:>9.2} {:>9.2} {:>9.2} {:>8.0} {:>8.1}  {:.1} % {limit}",
                result.name,
                result.shape,
                result.time.median_us,
                result.time.q1_us,
                result.time.q3_us,
                result.bytes / 1e6,
                result.gb_per_s,
                result.tflop_per_s,
                100.0 * share,
            )?;
        }
        Ok(())
    }
}

/// Measures the ceilings and every kernel asked for.
///
/// # Errors
///
/// What the driver refuses, and a name that no kernel measured here contains.
pub fn run(kernels: &Kernels, options: &Options) -> Result<Report, GpuError> {
    let device = kernels.device();
    let quick = options.quick || device.api() == Api::Emulator;
    let (method, sizes) = match quick {
        true => (Method::SMOKE, Sizes::QUICK),
        false => (Method::default(), Sizes::GPT_OSS_20B),
    };
    let stream = Stream::new(device)?;
    let ceilings = ceiling::measure(device, method)?;
    let only = options.kernel.clone();
    let mut bench = Bench { stream: &stream, kernels, method, sizes, quick, only, results: vec![] };
    rows::measure(&mut bench)?;
    linear::measure(&mut bench)?;
    attention::measure(&mut bench)?;
    moe::measure(&mut bench)?;
    if let (Some(name), true) = (&options.kernel, bench.results.is_empty()) {
        return Err(GpuError::Refused(format!(
            "--kernel {name}: no kernel of the model is named so"
        )));
    }
    let kernels = bench.results.into_iter().map(|r| Measured::new(r, &ceilings)).collect();
    let device = format!("{} ({})", device.properties().name, device.properties().arch);
    Ok(Report { device, ceilings, kernels })
}

/// A run.
struct Bench<'a> {
    stream: &'a Stream,
    kernels: &'a Kernels,
    method: Method,
    sizes: Sizes,
    quick: bool,
    only: Option<String>,
    results: Vec<device::Result>,
}

impl Bench<'_> {
    /// Whether the kernel was asked for.
    fn wants(&self, kernel: &str) -> bool {
        self.only.as_ref().is_none_or(|only| kernel.contains(only.as_str()))
    }

    fn device(&self) -> &Device {
        self.stream.device()
    }

    /// Sets of buffers to rotate over.
    fn sets(&self, bytes_per_set: usize) -> Result<usize, GpuError> {
        match self.quick {
            true => Ok(2),
            false => device::sets(self.device(), bytes_per_set as u64),
        }
    }

    /// Times `launch(set)` over `sets` sets of buffers; `bytes` and `flops` are those of a launch.
    fn measure(
        &mut self,
        name: &str,
        shape: String,
        [bytes, flops]: [usize; 2],
        sets: usize,
        launch: impl Fn(usize) -> Result<(), GpuError>,
    ) -> Result<(), GpuError> {
        if !self.wants(name) {
            return Ok(());
        }
        let stream = self.stream;
        // Once outside the recording: a driver may load a kernel when it is first launched.
        launch(0)?;
        stream.synchronize()?;
        let least = if self.quick { 1 } else { RECORDED };
        let launches = least.next_multiple_of(sets);
        let graph = Graph::record(stream, || (0..launches).try_for_each(|i| launch(i % sets)))?;
        // SAFETY: the buffers of the recorded launches are borrowed by `launch`, which lives as
        // long as this function, and every sample waits for its end.
        let time = device::time(stream, self.method, |_| unsafe { graph.launch(stream) })?;
        stream.synchronize()?;
        let each = launches as f64;
        let time = Time {
            q1_us: time.q1_us / each,
            median_us: time.median_us / each,
            q3_us: time.q3_us / each,
            launches: time.launches * launches,
            ..time
        };
        self.results.push(device::Result::new(name, shape, time, bytes as f64, flops as f64));
        Ok(())
    }

    /// `len` elements on the device: `pattern`, over and over.
    fn repeated<T: Pod>(&self, pattern: &[T], len: usize) -> Result<DeviceBuffer<T>, GpuError> {
        let buffer = DeviceBuffer::new(self.device(), len)?;
        let mut done = pattern.len().min(len);
        self.stream.upload(buffer.slice(..done), &pattern[..done])?;
        while done < len {
            let more = done.min(len - done);
            self.stream.copy(buffer.slice(done..done + more), buffer.slice(..more))?;
            done += more;
        }
        self.stream.synchronize()?;
        Ok(buffer)
    }

    /// Random bf16 in [-1, 1).
    fn bf16(&self, len: usize) -> Result<DeviceBuffer<bf16>, GpuError> {
        self.repeated(&ceiling::random_bf16(PATTERN, 1), len)
    }

    /// Random f32 in [-1, 1).
    fn f32(&self, len: usize) -> Result<DeviceBuffer<f32>, GpuError> {
        let values: Vec<f32> = words(PATTERN, 2).map(|word| 2.0 * uniform(word) - 1.0).collect();
        self.repeated(&values, len)
    }

    /// Random blocks of weights: bytes of any value, after 16 scales near one if there are any.
    fn blocks(&self, step: usize, scales: bool, len: usize) -> Result<DeviceBuffer<u8>, GpuError> {
        const SCALE: u8 = 120;
        if !scales {
            return self.repeated(bytemuck::cast_slice(&ceiling::random_bf16(PATTERN, 3)), len);
        }
        let mut bytes: Vec<u8> = words(64 * step, 4).map(|word| (word >> 24) as u8).collect();
        for block in bytes.chunks_exact_mut(step) {
            for scale in &mut block[..16] {
                *scale = SCALE + *scale % 4;
            }
        }
        self.repeated(&bytes, len)
    }
}

/// Elements that random inputs repeat: a whole number of blocks.
const PATTERN: usize = 1 << 16;

/// `len` random words.
fn words(len: usize, seed: u32) -> impl Iterator<Item = u32> {
    (0..len.div_ceil(4)).flat_map(move |i| philox4x32([i as u32, 0, 0, 0], [seed, 1])).take(len)
}
