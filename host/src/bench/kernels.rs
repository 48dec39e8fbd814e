//! `gptoss bench kernels`: each kernel at gpt-oss's shapes, against ceilings of the same run.
//!
//! The roofline of a case is the longer of two times: its least bytes at the rate of a large copy,
//! and its operations at the rate of the vendor's matrix product where there is one. The share is
//! that time over the kernel's. Weights are random and rotate over sets that exceed the cache.

use std::path::PathBuf;

use serde::Serialize;
use shared::block::{ROWS, STEP, tiled_len};
use shared::kernels::attention::{WHOLE_ROWS, max_splits};
use shared::kv;

use super::ceiling::{self, Ceilings, random_bf16};
use super::device::{self, Method, sets, time};
use crate::device_name::DeviceName;
use crate::gpu::launch::attention::{Attention, AttentionShape};
use crate::gpu::launch::linear::{DenseFormat, Linear, LinearPath, LinearShape, Store};
use crate::gpu::launch::moe::{ExpertFormat, ExpertPath, ExpertWeights, Routing, Sorted};
use crate::gpu::{self, Api, DeviceBuffer, GpuError, Kernels, Opened, Properties, Stream};
use crate::kernels::{KernelsError, code_object};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The device; the first of several.
    pub device: DeviceName,
    /// Folder of code objects in place of the embedded ones.
    pub kernels: Option<PathBuf>,
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum KernelBenchError {
    /// No device, or it failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// No code for it.
    #[error(transparent)]
    Kernels(Box<KernelsError>),
    /// The name came to the CPU.
    #[error("kernels are measured on a GPU: {0}")]
    Cpu(String),
}

/// One case against its roofline.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Work, time and rates.
    #[serde(flatten)]
    pub result: device::Result,
    /// Roofline over time, 0 to 1.
    pub share: f64,
    /// Which ceiling is the roofline: `copy` or `matrix`.
    pub bound: &'static str,
}

/// Everything measured on one device.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The device.
    pub device: Properties,
    /// How it was measured.
    pub method: Method,
    /// The ceilings.
    pub ceilings: Ceilings,
    /// Every case.
    pub kernels: Vec<Measured>,
}

/// Shapes to measure.
struct Shapes {
    /// Name, outputs, inputs.
    dense: &'static [(&'static str, usize, usize)],
    experts: usize,
    hidden: usize,
    rows: &'static [usize],
    prefill_rows: usize,
    contexts: &'static [usize],
}

/// gpt-oss-20b.
const REAL: Shapes = Shapes {
    dense: &[("qkv", 5120, 2880), ("attention output", 2880, 4096), ("unembedding", 201_088, 2880)],
    experts: 32,
    hidden: 2880,
    rows: &[1, 16, 64, 1024, 4096],
    prefill_rows: 4096,
    contexts: &[1024, 8192],
};

/// Small enough for the emulator, whose times mean nothing.
const SMALL: Shapes = Shapes {
    dense: &[("dense", 80, 96)],
    experts: 4,
    hidden: 64,
    rows: &[1, 17],
    prefill_rows: 16,
    contexts: &[130],
};

const TOP_K: usize = 4;
const KV_HEADS: usize = 8;
const GROUP: usize = 8;
const HEAD_DIM: usize = 64;

/// Measures everything.
pub fn run(options: &Options) -> Result<Report, KernelBenchError> {
    let device = match gpu::open(&options.device)? {
        Opened::Gpus { devices, .. } => devices.into_iter().next(),
        Opened::Cpu { why } => return Err(KernelBenchError::Cpu(why)),
    };
    let device = device.ok_or_else(|| KernelBenchError::Cpu("no device".to_owned()))?;
    let arch = &device.properties().arch;
    let code = code_object(arch, options.kernels.as_deref())
        .map_err(|error| KernelBenchError::Kernels(Box::new(error)))?;
    let kernels = Kernels::load(&device, arch, &code)?;
    let emulated = device.api() == Api::Emulator;
    let (shapes, method) =
        if emulated { (SMALL, Method::SMOKE) } else { (REAL, Method::default()) };
    let ceilings = ceiling::measure(&device, method)?;
    let stream = Stream::new(&device)?;
    let bench = Bench { kernels: &kernels, stream: &stream, method };
    let mut measured = Vec::new();
    let mut add = |result| measured.push(against(&ceilings, result));
    for &rows in shapes.rows {
        for &(name, n, k) in shapes.dense {
            if n > 100_000 && rows > 64 {
                continue; // logits are computed for sampling rows only
            }
            for format in [DenseFormat::Bf16, DenseFormat::Mxint8] {
                add(bench.linear(name, LinearShape { n, rows, k }, format)?);
            }
        }
        let routing = Routing { rows, experts: shapes.experts, top_k: TOP_K };
        bench.experts(routing, shapes.hidden)?.into_iter().for_each(&mut add);
    }
    for &context in shapes.contexts {
        for &rows in shapes.rows.iter().filter(|&&rows| rows <= 64) {
            add(bench.decode_attention(rows, context)?);
        }
    }
    add(bench.prefill_attention(shapes.prefill_rows)?);
    let device = device.properties().clone();
    Ok(Report { device, method, ceilings, kernels: measured })
}

fn against(ceilings: &Ceilings, result: device::Result) -> Measured {
    let copy = result.gb_per_s / ceilings.copy.gb_per_s;
    let matrix = ceilings.matrix.as_ref().map_or(0.0, |m| result.tflop_per_s / m.tflop_per_s);
    let (share, bound) = if copy >= matrix { (copy, "copy") } else { (matrix, "matrix") };
    Measured { result, share, bound }
}

struct Bench<'a> {
    kernels: &'a Kernels,
    stream: &'a Stream,
    method: Method,
}

impl Bench<'_> {
    /// `bytes` of random weights: bf16 values made on the host, repeated by copies on the device.
    /// Packed formats take the same bytes: the time does not depend on what they decode to.
    fn random(&self, bytes: usize, seed: u32) -> Result<DeviceBuffer<u8>, GpuError> {
        const PATTERN: usize = 1 << 20;
        let buffer = DeviceBuffer::<u8>::new(self.stream.device(), bytes)?;
        let values: Vec<u16> = random_bf16(PATTERN / 2, seed);
        let pattern: &[u8] = bytemuck::cast_slice(&values);
        let first = PATTERN.min(bytes);
        self.stream.upload(buffer.slice(..first), &pattern[..first])?;
        let mut filled = first;
        while filled < bytes {
            let next = filled.min(bytes - filled);
            self.stream.copy(buffer.slice(filled..filled + next), buffer.slice(..next))?;
            filled += next;
        }
        Ok(buffer)
    }

    fn zeros<T: bytemuck::Pod>(&self, len: usize) -> Result<DeviceBuffer<T>, GpuError> {
        let buffer = DeviceBuffer::new(self.stream.device(), len)?;
        self.stream.fill(buffer.view(), 0)?;
        Ok(buffer)
    }

    fn activations(&self, rows: usize, k: usize) -> Result<DeviceBuffer<u16>, GpuError> {
        self.stream.buffer_from(&random_bf16(tiled_len(rows, k), 9))
    }

    fn linear(
        &self,
        name: &str,
        shape: LinearShape,
        format: DenseFormat,
    ) -> Result<device::Result, GpuError> {
        let LinearShape { n, rows, k } = shape;
        let bytes = format.bytes(n, k);
        let sets = sets(self.stream.device(), bytes as u64)?;
        let w = self.random(sets * bytes, 1)?;
        let x = self.activations(rows, k)?;
        let bias = self.zeros(n)?;
        let out = self.zeros(rows * n)?;
        let path = LinearPath::for_rows(rows);
        let time = time(self.stream, self.method, |i| {
            let at = i % sets * bytes;
            let w = w.slice(at..at + bytes);
            let (x, bias, out) = (x.view(), bias.view(), out.view());
            let buffers = Linear { w, format, x, bias, out };
            self.kernels.linear(self.stream, path, shape, Store::Replace, buffers)
        })?;
        let moved = bytes + 2 * rows * k + 4 * n + 4 * rows * n;
        let flops = 2.0 * (n * rows * k) as f64;
        let name = format!("{name} {format:?} {path:?}");
        let shape = format!("{rows} x {n} x {k}");
        Ok(device::Result::new(&name, shape, time, moved as f64, flops))
    }

    /// Both products of a layer, tokens spread evenly over the experts.
    fn experts(&self, routing: Routing, hidden: usize) -> Result<Vec<device::Result>, GpuError> {
        let path = match routing.assignments() <= 16 * routing.experts {
            true => ExpertPath::Skinny,
            false => ExpertPath::Tile,
        };
        let assignments = routing.assignments();
        let ids: Vec<u32> = (0..assignments).map(|i| (i % routing.experts) as u32).collect();
        let ids = self.stream.buffer_from(&ids)?;
        let assignment_of = self.zeros(assignments)?;
        let slot_of = self.zeros(assignments)?;
        let tiles = self.zeros(3 * routing.max_tiles(path, self.kernels.family()))?;
        let num_tiles = self.zeros(1)?;
        let sorted = Sorted {
            assignment_of: assignment_of.view(),
            slot_of: slot_of.view(),
            tiles: tiles.view(),
            num_tiles: num_tiles.view(),
        };
        // SAFETY: the ids are below the number of experts.
        unsafe { self.kernels.moe_sort(self.stream, routing, path, ids.view(), sorted)? };

        let x = self.activations(routing.rows, hidden)?;
        let gathered = self.zeros::<u16>(tiled_len(assignments, hidden))?;
        let act = self.zeros::<u16>(tiled_len(assignments, hidden))?;
        let y = self.zeros::<f32>(assignments * hidden)?;
        let gate_up = self.product(routing, "gate_up", path, [2 * hidden, hidden], |weights| {
            // SAFETY: the order is of this routing and path.
            unsafe {
                let x = match path {
                    ExpertPath::Skinny => x.view(),
                    ExpertPath::Tile => {
                        let (from, to) = (sorted.assignment_of, gathered.view());
                        self.kernels.moe_gather(
                            self.stream,
                            routing,
                            hidden,
                            x.view(),
                            from,
                            to,
                        )?;
                        to
                    }
                };
                let act = act.view();
                self.kernels.moe_gate_up(self.stream, routing, path, weights, sorted, x, act, 7.0)
            }
        })?;
        let down = self.product(routing, "down", path, [hidden, hidden], |weights| {
            let (act, y) = (act.view(), y.view());
            // SAFETY: the order is of this routing and path.
            unsafe { self.kernels.moe_down(self.stream, routing, path, weights, sorted, act, y) }
        })?;
        Ok(vec![gate_up, down])
    }

    /// Times one product of the experts over rotating MXFP4 weights `[experts, n, k]`.
    fn product(
        &self,
        routing: Routing,
        name: &str,
        path: ExpertPath,
        [n, k]: [usize; 2],
        launch: impl Fn(ExpertWeights<'_>) -> Result<(), GpuError>,
    ) -> Result<device::Result, GpuError> {
        let format = ExpertFormat::Mxfp4;
        let expert = n / ROWS * (k / STEP) * format.step_bytes();
        let bytes = routing.experts * expert;
        let visited = routing.experts.min(routing.assignments());
        let sets = sets(self.stream.device(), (visited * expert) as u64)?;
        let w = self.random(sets * bytes, 2)?;
        let bias = self.zeros(routing.experts * n)?;
        let time = time(self.stream, self.method, |i| {
            let at = i % sets * bytes;
            let (w, bias) = (w.slice(at..at + bytes), bias.view());
            launch(ExpertWeights { w, bias, format, n, k })
        })?;
        let slots = routing.assignments();
        let moved = visited * (expert + 4 * n) + slots * 2 * k + slots * 2 * n;
        let flops = 2.0 * (slots * n * k) as f64;
        let name = format!("moe {name} Mxfp4 {path:?}");
        let shape = format!("{} rows, {} experts, {n} x {k}", routing.rows, routing.experts);
        Ok(device::Result::new(&name, shape, time, moved as f64, flops))
    }

    /// `rows` sequences of `context` tokens, one query each: split and merge together.
    fn decode_attention(&self, rows: usize, context: usize) -> Result<device::Result, GpuError> {
        let shape = attention_shape(rows);
        let pages_each = context.div_ceil(kv::PAGE);
        let page = kv::page_len(KV_HEADS, HEAD_DIM);
        let cache = rows * pages_each * page;
        let sets = sets(self.stream.device(), 2 * cache as u64)?;
        let pages = self.zeros::<u16>(sets * cache)?;
        let table: Vec<u32> = (0..(rows * pages_each) as u32).collect();
        let tile = |row: usize| [row * GROUP, GROUP, row * pages_each].map(|x| x as u32);
        let tiles: Vec<u32> = (0..rows).flat_map(tile).collect();
        let (table, tiles) = (self.stream.buffer_from(&table)?, self.stream.buffer_from(&tiles)?);
        let positions = self.stream.buffer_from(&vec![context as u32 - 1; rows])?;
        let q = self.stream.buffer_from(&random_bf16(shape.q_len(), 3))?;
        let splits = max_splits(context as u32 - 1, 0) as usize;
        let query_rows = rows * GROUP;
        let parts = self.zeros::<f32>(shape.parts_len(query_rows, splits))?;
        let sinks = self.zeros::<f32>(KV_HEADS * GROUP)?;
        let out = self.zeros::<u16>(shape.out_len())?;
        let time = time(self.stream, self.method, |i| {
            let at = i % sets * cache;
            let inputs = Attention {
                q: q.view(),
                pages: pages.slice(at..at + cache),
                table: table.view(),
                tiles: tiles.view(),
                positions: positions.view(),
            };
            let (kernels, stream) = (self.kernels, self.stream);
            let (parts, positions, sinks) = (parts.view(), positions.view(), sinks.view());
            // SAFETY: one tile per sequence, whose positions all have pages, which are zero.
            unsafe {
                kernels.attention_split(stream, shape, inputs, splits, parts, query_rows)?;
                let out = out.view();
                let rows = query_rows;
                kernels.attention_merge(stream, shape, splits, parts, positions, sinks, out, rows)
            }
        })?;
        let bytes = (rows * context * 2 * KV_HEADS * HEAD_DIM * 2) as f64;
        let flops = 4.0 * (rows * context * KV_HEADS * GROUP * HEAD_DIM) as f64;
        let name = "decode attention";
        Ok(device::Result::new(name, format!("{rows} x {context} tokens"), time, bytes, flops))
    }

    /// One prompt of `rows` tokens, all positions before each.
    fn prefill_attention(&self, rows: usize) -> Result<device::Result, GpuError> {
        let shape = attention_shape(rows);
        let count = rows.div_ceil(kv::PAGE);
        let pages = self.zeros::<u16>(count * kv::page_len(KV_HEADS, HEAD_DIM))?;
        let table: Vec<u32> = (0..count as u32).collect();
        let query_rows = (rows * GROUP) as u32;
        let firsts = (0..query_rows).step_by(WHOLE_ROWS as usize);
        let tiles: Vec<u32> =
            firsts.flat_map(|at| [at, WHOLE_ROWS.min(query_rows - at), 0]).collect();
        let positions: Vec<u32> = (0..rows as u32).collect();
        let (table, tiles) = (self.stream.buffer_from(&table)?, self.stream.buffer_from(&tiles)?);
        let positions = self.stream.buffer_from(&positions)?;
        let q = self.stream.buffer_from(&random_bf16(shape.q_len(), 4))?;
        let sinks = self.zeros::<f32>(KV_HEADS * GROUP)?;
        let out = self.zeros::<u16>(shape.out_len())?;
        let inputs = Attention {
            q: q.view(),
            pages: pages.view(),
            table: table.view(),
            tiles: tiles.view(),
            positions: positions.view(),
        };
        let time = time(self.stream, self.method, |_| {
            // SAFETY: the tiles are runs of the one sequence, whose positions all have pages.
            unsafe {
                let (sinks, out) = (sinks.view(), out.view());
                self.kernels.attention_whole(self.stream, shape, inputs, sinks, out)
            }
        })?;
        let pairs = rows as f64 * (rows as f64 + 1.0) / 2.0;
        let flops = 4.0 * pairs * (KV_HEADS * GROUP * HEAD_DIM) as f64;
        let bytes = (2 * rows * HEAD_DIM * 2 * (KV_HEADS * GROUP + KV_HEADS)) as f64;
        let name = "prefill attention";
        Ok(device::Result::new(name, format!("{rows} tokens"), time, bytes, flops))
    }
}

fn attention_shape(rows: usize) -> AttentionShape {
    let scale = std::f32::consts::LOG2_E / (HEAD_DIM as f32).sqrt();
    let (kv_heads, group, head_dim) = (KV_HEADS, GROUP, HEAD_DIM);
    AttentionShape { rows, kv_heads, group, head_dim, window: None, scale }
}
