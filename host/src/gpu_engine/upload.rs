//! Weights to the device, packed on the way: one tensor at a time through page-locked memory.

use std::borrow::Cow;

use rayon::prelude::*;
use shared::bf16;
use shared::block::{Family, ROWS, STEP, tiled_len};
use shared::mxfp4::{BLOCK as MX, BLOCK_BYTES};

use super::GpuEngineError;
use crate::gpu::launch::linear::DenseFormat;
use crate::gpu::launch::moe::ExpertFormat;
use crate::gpu::pack::{self, PackError};
use crate::gpu::{DeviceBuffer, DeviceSlice, GpuError, PinnedBuffer, Stream};
use crate::model::{Dtype, ExpertWeights, Experts, Matrix, Weights};

/// A dense matrix and its bias.
pub struct Dense {
    /// Blocks of `format`.
    pub w: DeviceBuffer<u8>,
    /// `[n]`
    pub bias: DeviceBuffer<f32>,
    /// How `w` is stored.
    pub format: DenseFormat,
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
}

/// One product of a layer's experts.
pub struct DeviceExperts {
    /// Blocks of `format`.
    pub w: DeviceBuffer<u8>,
    /// `[experts, n]`, in the order of the packed rows.
    pub bias: DeviceBuffer<f32>,
    /// How `w` is stored.
    pub format: ExpertFormat,
    /// Outputs of one expert.
    pub n: usize,
    /// Inputs of one expert.
    pub k: usize,
}

/// One transformer block.
pub struct DeviceLayer {
    /// `[hidden]`
    pub attn_norm: DeviceBuffer<f32>,
    /// Queries, keys and values in one matrix.
    pub qkv: Dense,
    /// `[heads]`
    pub sinks: DeviceBuffer<f32>,
    /// Attention's output projection.
    pub o: Dense,
    /// `[hidden]`
    pub mlp_norm: DeviceBuffer<f32>,
    /// Always bf16: it decides which experts are read.
    pub router: Dense,
    /// First product; row tiles alternate between 16 gates and their 16 ups.
    pub gate_up: DeviceExperts,
    /// Second product.
    pub down: DeviceExperts,
}

/// A model on a device.
pub struct DeviceWeights {
    /// `[vocab, hidden]`, row-major.
    pub embedding: DeviceBuffer<u16>,
    /// Blocks, first to last.
    pub layers: Vec<DeviceLayer>,
    /// `[hidden]`
    pub norm: DeviceBuffer<f32>,
    /// The bias is zero.
    pub unembedding: Dense,
    bytes: u64,
}

fn expert_format(experts: &Experts) -> ExpertFormat {
    match experts.weights {
        ExpertWeights::Mxfp4 { .. } => ExpertFormat::Mxfp4,
        ExpertWeights::OutIn(..) | ExpertWeights::InOut(..) => ExpertFormat::Bf16,
    }
}

fn experts_len(experts: &Experts) -> usize {
    let blocks = experts.count * experts.rows / ROWS * (experts.cols / STEP);
    blocks * expert_format(experts).step_bytes()
}

/// Bytes of a model's matrices on the device.
pub fn bytes(weights: &Weights, dense: DenseFormat) -> u64 {
    let config = &weights.config;
    let hidden = config.hidden_size;
    let mut total = config.vocab_size * hidden * 2 + dense.bytes(config.vocab_size, hidden);
    for layer in &weights.layers {
        total += dense.bytes(config.q_dim() + 2 * config.kv_dim(), hidden);
        total += dense.bytes(hidden, config.q_dim());
        total += DenseFormat::Bf16.bytes(config.num_local_experts, hidden);
        for experts in [&layer.gate_up, &layer.down] {
            total += experts_len(experts) + 4 * experts.bias.len();
        }
    }
    total as u64
}

/// The largest tensor, in bytes: what staging has to hold.
fn largest(weights: &Weights, dense: DenseFormat) -> usize {
    let config = &weights.config;
    let vocab = (config.vocab_size * config.hidden_size * 2)
        .max(dense.bytes(config.vocab_size, config.hidden_size));
    let qkv = dense.bytes(config.q_dim() + 2 * config.kv_dim(), config.hidden_size);
    let o = dense.bytes(config.hidden_size, config.q_dim());
    let experts = weights.layers.iter().flat_map(|l| [&l.gate_up, &l.down]).map(experts_len);
    experts.fold(vocab.max(qkv).max(o), usize::max).max(1 << 16)
}

struct Upload<'a> {
    stream: &'a Stream,
    family: Family,
    dense: DenseFormat,
    staging: PinnedBuffer<u16>,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl DeviceWeights {
    /// Packs and uploads `weights`.
    pub fn upload(
        stream: &Stream,
        family: Family,
        dense: DenseFormat,
        weights: &Weights,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<DeviceWeights, GpuEngineError> {
        let staging = PinnedBuffer::new(stream.device(), largest(weights, dense).div_ceil(2))?;
        let total = bytes(weights, dense);
        let mut up = Upload { stream, family, dense, staging, done: 0, total, progress };
        let embedding = up.plain(&weights.embedding)?;
        let layers = weights
            .layers
            .iter()
            .enumerate()
            .map(|(l, layer)| up.layer(l, layer))
            .collect::<Result<_, _>>()?;
        let unembedding = &weights.unembedding;
        let bias = vec![0.0; unembedding.rows];
        let unembedding = up.matrices("unembedding", &[unembedding], &bias, dense)?;
        let norm = stream.buffer_from(&weights.norm)?;
        Ok(DeviceWeights { embedding, layers, norm, unembedding, bytes: up.done })
    }

    /// Bytes of all matrices.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Upload<'_> {
    fn layer(
        &mut self,
        l: usize,
        layer: &crate::model::Layer,
    ) -> Result<DeviceLayer, GpuEngineError> {
        let stream = self.stream;
        let name = |part: &str| format!("layer {l}, {part}");
        let qkv = [&layer.q, &layer.k, &layer.v];
        let bias: Vec<f32> = qkv.iter().flat_map(|linear| linear.bias.iter().copied()).collect();
        let qkv = qkv.map(|linear| &linear.weight);
        let (o, router) = (&layer.o, &layer.router);
        let dense = self.dense;
        Ok(DeviceLayer {
            attn_norm: stream.buffer_from(&layer.attn_norm)?,
            qkv: self.matrices(&name("qkv"), &qkv, &bias, dense)?,
            sinks: stream.buffer_from(&layer.sinks)?,
            o: self.matrices(&name("attention output"), &[&o.weight], &o.bias, dense)?,
            mlp_norm: stream.buffer_from(&layer.mlp_norm)?,
            router: self.matrices(
                &name("router"),
                &[&router.weight],
                &router.bias,
                DenseFormat::Bf16,
            )?,
            gate_up: self.experts(&name("gate_up"), &layer.gate_up, pack::gate_up_row)?,
            down: self.experts(&name("down"), &layer.down, |row| row)?,
        })
    }

    /// A matrix as it is, rounded to bf16.
    fn plain(&mut self, matrix: &Matrix) -> Result<DeviceBuffer<u16>, GpuError> {
        let values = to_bf16(matrix.dtype, &matrix.data);
        let buffer = DeviceBuffer::new(self.stream.device(), values.len())?;
        self.staging[..values.len()].copy_from_slice(&values);
        self.stream.upload(buffer.view(), &self.staging[..values.len()])?;
        self.advance(buffer.view());
        Ok(buffer)
    }

    /// Matrices with the same inputs, stacked.
    fn matrices(
        &mut self,
        name: &str,
        parts: &[&Matrix],
        bias: &[f32],
        format: DenseFormat,
    ) -> Result<Dense, GpuEngineError> {
        let k = parts[0].cols;
        let n: usize = parts.iter().map(|part| part.rows).sum();
        let values: Cow<'_, [u16]> = match parts {
            [one] => to_bf16(one.dtype, &one.data),
            _ => parts.iter().flat_map(|p| to_bf16(p.dtype, &p.data).into_owned()).collect(),
        };
        let len = format.bytes(n, k);
        match format {
            DenseFormat::Bf16 => {
                pack::bf16(&mut self.staging[..tiled_len(n, k)], &values, n, k, |row| row);
            }
            DenseFormat::Mxint8 => {
                let family = self.family;
                let out = &mut bytemuck::cast_slice_mut(&mut self.staging[..])[..len];
                pack::mxint8(family, out, &values, n, k, |row| row).map_err(refused(name))?;
            }
        }
        Ok(Dense { w: self.send(len)?, bias: self.stream.buffer_from(bias)?, format, n, k })
    }

    fn experts(
        &mut self,
        name: &str,
        experts: &Experts,
        row: impl Fn(usize) -> usize + Sync,
    ) -> Result<DeviceExperts, GpuEngineError> {
        let Experts { count, rows: n, cols: k, .. } = *experts;
        let format = expert_format(experts);
        let own = n / ROWS * (k / STEP) * format.step_bytes();
        let family = self.family;
        let out = &mut bytemuck::cast_slice_mut::<u16, u8>(&mut self.staging[..])[..count * own];
        for (e, out) in out.chunks_exact_mut(own).enumerate() {
            match &experts.weights {
                ExpertWeights::Mxfp4 { blocks, scales } => {
                    let (b, s) = (n * k / MX * BLOCK_BYTES, n * k / MX);
                    let source = (&blocks[e * b..][..b], &scales[e * s..][..s]);
                    let name = format!("{name}, expert {e}");
                    pack::mxfp4(family, out, source, n, k, &row).map_err(refused(&name))?;
                }
                ExpertWeights::OutIn(dtype, data) => {
                    let size = n * k * dtype.size();
                    let values = to_bf16(*dtype, &data[e * size..][..size]);
                    pack::bf16(bytemuck::cast_slice_mut(out), &values, n, k, &row);
                }
                ExpertWeights::InOut(dtype, data) => {
                    let size = n * k * dtype.size();
                    let values = to_bf16(*dtype, &data[e * size..][..size]);
                    let turned: Vec<u16> =
                        (0..n * k).into_par_iter().map(|i| values[i % k * n + i / k]).collect();
                    pack::bf16(bytemuck::cast_slice_mut(out), &turned, n, k, &row);
                }
            }
        }
        let bias: Vec<f32> = (0..count)
            .flat_map(|e| (0..n).map(move |p| (e, p)))
            .map(|(e, p)| experts.bias[e * n + row(p)])
            .collect();
        let w = self.send(count * own)?;
        Ok(DeviceExperts { w, bias: self.stream.buffer_from(&bias)?, format, n, k })
    }

    /// The first `len` bytes of staging, on the device.
    fn send(&mut self, len: usize) -> Result<DeviceBuffer<u8>, GpuError> {
        let buffer = DeviceBuffer::new(self.stream.device(), len)?;
        let staged: &[u8] = bytemuck::cast_slice(&self.staging[..]);
        self.stream.upload(buffer.view(), &staged[..len])?;
        self.advance(buffer.view());
        Ok(buffer)
    }

    fn advance<T>(&mut self, sent: DeviceSlice<'_, T>) {
        self.done += sent.bytes() as u64;
        (self.progress)(self.done, self.total);
    }
}

fn refused(tensor: &str) -> impl FnOnce(PackError) -> GpuEngineError + '_ {
    |source| GpuEngineError::Pack { tensor: tensor.to_owned(), source }
}

/// Values as bf16: in place where they are and lie aligned, else rounded or copied.
fn to_bf16(dtype: Dtype, data: &[u8]) -> Cow<'_, [u16]> {
    match dtype {
        Dtype::Bf16 => match bytemuck::try_cast_slice(data) {
            Ok(values) => Cow::Borrowed(values),
            Err(_) => {
                let value = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
                Cow::Owned(data.par_chunks_exact(2).map(value).collect())
            }
        },
        Dtype::F32 => data
            .par_chunks_exact(4)
            .map(|b| bf16::from_f32(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
            .collect::<Vec<_>>()
            .into(),
    }
}
