//! `gptoss bench load`: how fast weights are packed and sent, beside the copy rate of the same run.
//!
//! Loading reads the file, packs on all threads and copies at once, so it is as fast as the slowest
//! of the three. Rates are bytes of packed weights per second; those of copying and loading count
//! what arrives at every device.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use shared::block::{Family, ROWS, STEP};
use shared::chips::Chip;

use crate::gpu::launch::linear::DenseFormat;
use crate::gpu::pack::{self, PackError, Source};
use crate::gpu::{Device, DeviceBuffer, GpuError, Stream};
use crate::gpu_engine::GpuEngineError;
use crate::gpu_engine::staging::{SLOT_BYTES, Staging};
use crate::gpu_engine::upload::{DeviceWeights, Target};
use crate::model::{ExpertWeights, Weights};

/// How fast one kind of tensor is packed.
#[derive(Clone, Debug, Serialize)]
pub struct Packing {
    /// What is packed, and into what.
    pub name: &'static str,
    /// Bytes per second on one thread.
    pub one_thread: f64,
    /// Bytes per second on all threads.
    pub all_threads: f64,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where to.
    pub devices: Vec<String>,
    /// Threads that pack.
    pub threads: usize,
    /// For each kind of tensor that the model has.
    pub packing: Vec<Packing>,
    /// Bytes per second from page-locked memory to all devices at once, without packing.
    pub copy: f64,
    /// Bytes of weights on all devices.
    pub bytes: u64,
    /// Bytes per second of whole loads: the first maps the file's pages, the second finds them.
    pub loads: [f64; 2],
}

/// Measures loading of `weights` to all `devices` at once.
pub fn run(devices: &[Device], weights: &Arc<Weights>) -> Result<Report, GpuEngineError> {
    let mut targets = Vec::new();
    let streams = devices.iter().map(Stream::new).collect::<Result<Vec<_>, _>>()?;
    for stream in &streams {
        let chip = &stream.device().properties().arch;
        let family = Chip::find(chip)
            .map(|chip| chip.family)
            .ok_or_else(|| GpuError::Refused(format!("{chip}: no family packs weights for it")))?;
        targets.push(Target { stream, family });
    }
    let [first, ..] = targets[..] else {
        return Err(GpuError::Refused("0 devices, expected at least 1".to_owned()).into());
    };
    let mut bytes = 0;
    let mut load = || -> Result<f64, GpuEngineError> {
        let start = Instant::now();
        let loaded =
            DeviceWeights::upload_all(&targets, DenseFormat::Bf16, weights, &mut |_, _| {})?;
        let time = start.elapsed();
        bytes = loaded.iter().map(DeviceWeights::bytes).sum();
        Ok(rate(bytes as usize, time))
    };
    // Before anything else touches the file.
    let loads = [load()?, load()?];
    Ok(Report {
        devices: devices.iter().map(ToString::to_string).collect(),
        threads: rayon::current_num_threads(),
        packing: packing(first.family, weights)?,
        copy: copy_rate(&streams)?,
        bytes,
        loads,
    })
}

/// Time after which a measurement has enough.
const ENOUGH: Duration = Duration::from_millis(500);

fn rate(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64().max(1e-9)
}

/// Calls `work`, which says how many bytes it made, again and again: bytes per second.
fn repeat<E>(mut work: impl FnMut() -> Result<usize, E>) -> Result<f64, E> {
    let (start, mut bytes) = (Instant::now(), 0);
    while start.elapsed() < ENOUGH {
        bytes += work()?;
    }
    Ok(rate(bytes, start.elapsed()))
}

fn copy_rate(streams: &[Stream]) -> Result<f64, GpuError> {
    let streams: Vec<&Stream> = streams.iter().collect();
    let buffers = streams
        .iter()
        .map(|stream| DeviceBuffer::new(stream.device(), SLOT_BYTES))
        .collect::<Result<Vec<_>, _>>()?;
    let to: Vec<_> = buffers.iter().map(DeviceBuffer::view).collect();
    let mut staging = Staging::new(&streams, SLOT_BYTES)?;
    // The event that a slot waits for says that what is counted has arrived, but for the ring.
    let rate = repeat(|| {
        staging.send(&to, |_| Ok::<_, GpuError>(()))?;
        Ok(SLOT_BYTES * to.len())
    });
    staging.finish()?;
    rate
}

/// Fills a buffer with packed rows, from one on, so many.
type Pack<'a> = dyn Fn(&mut [u8], usize, usize) -> Result<(), PackError> + Sync + 'a;

/// A kind of tensor.
struct Case<'a> {
    name: &'static str,
    rows: usize,
    tile_bytes: usize,
    pack: Box<Pack<'a>>,
}

fn packing(family: Family, weights: &Weights) -> Result<Vec<Packing>, GpuEngineError> {
    let matrix = &weights.unembedding;
    let k = matrix.cols;
    let source = Source::rows(matrix.dtype, &matrix.data);
    let dense = |name, format: DenseFormat| Case {
        name,
        rows: matrix.rows,
        tile_bytes: format.bytes(ROWS, k),
        pack: Box::new(move |out, first, rows| {
            pack::dense(family, format, out, source, (rows, k), |row| first + row)
        }),
    };
    let mut cases =
        vec![dense("dense, bf16", DenseFormat::Bf16), dense("dense, MXINT8", DenseFormat::Mxint8)];
    if let Some(layer) = weights.layers.first()
        && let ExpertWeights::Mxfp4 { blocks, scales } = &layer.gate_up.weights
    {
        let (n, k) = (layer.gate_up.rows, layer.gate_up.cols);
        let row = move |p: usize| p / n * n + pack::gate_up_row(p % n);
        cases.push(Case {
            name: "experts, MXFP4",
            rows: layer.gate_up.count * n,
            tile_bytes: k / STEP * shared::pack::MXFP4_STEP_BYTES,
            pack: Box::new(move |out, first, rows| {
                pack::mxfp4(family, out, (blocks, scales), rows, k, |p| row(first + p))
            }),
        });
    }
    let one = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .map_err(|error| GpuError::Refused(format!("a pool of one thread: {error}")))?;
    let refused =
        |name: &'static str| move |source| GpuEngineError::Pack { tensor: name.to_owned(), source };
    cases
        .into_iter()
        .map(|case| {
            Ok(Packing {
                name: case.name,
                one_thread: one.install(|| case.rate()).map_err(refused(case.name))?,
                all_threads: case.rate().map_err(refused(case.name))?,
            })
        })
        .collect()
}

impl Case<'_> {
    /// Bytes per second, a slot at a time over the whole tensor, as loading does it.
    fn rate(&self) -> Result<f64, PackError> {
        let most = (SLOT_BYTES / self.tile_bytes).max(1) * ROWS;
        // Elements as wide as any packer writes.
        let mut slot = vec![0u64; (most / ROWS * self.tile_bytes).div_ceil(8)];
        let slot = bytemuck::cast_slice_mut(&mut slot);
        let mut first = 0;
        repeat(|| {
            let rows = most.min(self.rows - first);
            let bytes = rows.div_ceil(ROWS) * self.tile_bytes;
            (self.pack)(&mut slot[..bytes], first, rows)?;
            first = (first + rows) % self.rows;
            Ok(bytes)
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gb = |rate: f64| rate / 1e9;
        writeln!(f, "{:.2} GB of weights to {}", self.bytes as f64 / 1e9, self.devices.join("; "))?;
        for Packing { name, one_thread, all_threads } in &self.packing {
            let (one, all) = (gb(*one_thread), gb(*all_threads));
            let threads = self.threads;
            writeln!(f, "packing {name}: {one:.2} GB/s on 1 thread, {all:.2} on {threads}")?;
        }
        writeln!(f, "copying from page-locked memory: {:.2} GB/s", gb(self.copy))?;
        for (which, rate) in ["first load", "second load"].iter().zip(self.loads) {
            let share = 100.0 * rate / self.copy;
            let seconds = self.bytes as f64 / rate;
            writeln!(f, "{which}: {:.2} GB/s ({share:.0} % of copying), {seconds:.2} s", gb(rate))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{self, Opened};

    #[test]
    fn every_rate_is_measured_and_said() {
        let name = "emu:gfx1151".parse().unwrap();
        let Opened::Gpus { devices, .. } = gpu::open(&name).unwrap() else { panic!("no GPU") };
        let weights = Arc::new(crate::synth::nano());
        let report = run(&devices, &weights).unwrap();
        let expected = crate::gpu_engine::upload::bytes(&weights, DenseFormat::Bf16);
        assert_eq!(report.bytes, expected);
        assert_eq!(report.packing.len(), 3);
        let rates = report.packing.iter().flat_map(|p| [p.one_thread, p.all_threads]);
        for rate in rates.chain([report.copy]).chain(report.loads) {
            assert!(rate.is_finite() && rate > 0.0, "{report}");
        }
        assert!(report.to_string().contains("experts, MXFP4"), "{report}");
    }
}
