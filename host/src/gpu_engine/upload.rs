//! Weights to the device, packed on the way, a piece at a time: while one is copied, the next is
//! packed from the mapped file.

use std::borrow::Cow;

use rayon::prelude::*;
use shared::bf16;
use shared::block::{Family, ROWS, STEP};
use shared::mxfp4::{BLOCK as MX, BLOCK_BYTES};

use super::GpuEngineError;
use super::staging::Staging;
use crate::gpu::launch::linear::DenseFormat;
use crate::gpu::launch::moe::ExpertFormat;
use crate::gpu::pack::{self, PackError};
use crate::gpu::{DeviceBuffer, DeviceSlice, GpuError, Stream};
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

/// Bytes of a model on the device.
pub fn bytes(weights: &Weights, dense: DenseFormat) -> u64 {
    let config = &weights.config;
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    let mut total = vocab * hidden * 2 + dense.bytes(vocab, hidden);
    let mut vectors = hidden + vocab;
    for layer in &weights.layers {
        total += dense.bytes(config.q_dim() + 2 * config.kv_dim(), hidden);
        total += dense.bytes(hidden, config.q_dim());
        total += DenseFormat::Bf16.bytes(config.num_local_experts, hidden);
        vectors += layer.attn_norm.len() + layer.mlp_norm.len() + layer.sinks.len();
        for linear in [&layer.q, &layer.k, &layer.v, &layer.o, &layer.router] {
            vectors += linear.bias.len();
        }
        for experts in [&layer.gate_up, &layer.down] {
            total += experts_len(experts);
            vectors += experts.bias.len();
        }
    }
    (total + 4 * vectors) as u64
}

struct Upload<'a> {
    stream: &'a Stream,
    staging: Staging<'a>,
    family: Family,
    dense: DenseFormat,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl DeviceWeights {
    /// Packs and uploads `weights`. `progress` hears of bytes sent so far and of [`bytes`].
    pub fn upload(
        staging: Staging<'_>,
        family: Family,
        dense: DenseFormat,
        weights: &Weights,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<DeviceWeights, GpuEngineError> {
        let (stream, total) = (staging.stream(), bytes(weights, dense));
        let mut up = Upload { stream, staging, family, dense, done: 0, total, progress };
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
        let norm = up.vector(&weights.norm)?;
        stream.synchronize()?;
        Ok(DeviceWeights { embedding, layers, norm, unembedding, bytes: up.done })
    }

    /// Bytes of all weights.
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
        let name = |part: &str| format!("layer {l}, {part}");
        let qkv = [&layer.q, &layer.k, &layer.v];
        let bias: Vec<f32> = qkv.iter().flat_map(|linear| linear.bias.iter().copied()).collect();
        let qkv = qkv.map(|linear| &linear.weight);
        let (o, router) = (&layer.o, &layer.router);
        let (dense, bf16) = (self.dense, DenseFormat::Bf16);
        Ok(DeviceLayer {
            attn_norm: self.vector(&layer.attn_norm)?,
            qkv: self.matrices(&name("qkv"), &qkv, &bias, dense)?,
            sinks: self.vector(&layer.sinks)?,
            o: self.matrices(&name("attention output"), &[&o.weight], &o.bias, dense)?,
            mlp_norm: self.vector(&layer.mlp_norm)?,
            router: self.matrices(&name("router"), &[&router.weight], &router.bias, bf16)?,
            gate_up: self.experts(&name("gate_up"), &layer.gate_up, pack::gate_up_row)?,
            down: self.experts(&name("down"), &layer.down, |row| row)?,
        })
    }

    fn vector(&mut self, values: &[f32]) -> Result<DeviceBuffer<f32>, GpuError> {
        let buffer = self.stream.buffer_from(values)?;
        self.advance(buffer.view());
        Ok(buffer)
    }

    /// A matrix as it is, rounded to bf16.
    fn plain(&mut self, matrix: &Matrix) -> Result<DeviceBuffer<u16>, GpuError> {
        let values = to_bf16(matrix.dtype, &matrix.data);
        let buffer = DeviceBuffer::new(self.stream.device(), values.len())?;
        let (bytes, to) = (bytemuck::cast_slice::<u16, u8>(&values), buffer.view().cast::<u8>()?);
        let half = self.staging.half_bytes();
        for (n, piece) in bytes.chunks(half).enumerate() {
            let to = to.slice(n * half..).slice(..piece.len());
            self.staging.send(to, |out| {
                out.copy_from_slice(piece);
                Ok::<_, GpuError>(())
            })?;
            self.advance(to);
        }
        Ok(buffer)
    }

    /// Row tiles of a matrix `[n, k]`, each `tile_bytes` long, to `to`: `pack` fills a buffer with
    /// the tiles from a row on, given how many rows.
    fn tiles(
        &mut self,
        name: &str,
        to: DeviceSlice<'_, u8>,
        (n, tile_bytes): (usize, usize),
        pack: impl Fn(&mut [u8], usize, usize) -> Result<(), PackError>,
    ) -> Result<(), GpuEngineError> {
        let half = self.staging.half_bytes();
        if tile_bytes > half {
            return Err(GpuEngineError::Shape {
                name: "bytes of 16 rows of weights",
                value: tile_bytes,
                expected: format!("at most {half}"),
            });
        }
        let rows = half / tile_bytes * ROWS;
        for first in (0..n).step_by(rows) {
            let rows = rows.min(n - first);
            let to = to.slice(first / ROWS * tile_bytes..);
            let to = to.slice(..rows.div_ceil(ROWS) * tile_bytes);
            self.staging.send(to, |out| pack(out, first, rows).map_err(refused(name)))?;
            self.advance(to);
        }
        Ok(())
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
        let w = DeviceBuffer::new(self.stream.device(), format.bytes(n, k))?;
        let (family, tile) = (self.family, (n, format.bytes(ROWS, k)));
        self.tiles(name, w.view(), tile, |out, first, rows| {
            let row = |r| first + r;
            match format {
                DenseFormat::Bf16 => {
                    pack::bf16(bytemuck::cast_slice_mut(out), &values, rows, k, row);
                    Ok(())
                }
                DenseFormat::Mxint8 => pack::mxint8(family, out, &values, rows, k, row),
            }
        })?;
        Ok(Dense { w, bias: self.vector(bias)?, format, n, k })
    }

    fn experts(
        &mut self,
        name: &str,
        experts: &Experts,
        row: impl Fn(usize) -> usize + Sync,
    ) -> Result<DeviceExperts, GpuEngineError> {
        let Experts { count, rows: n, cols: k, .. } = *experts;
        let format = expert_format(experts);
        let tile = k / STEP * format.step_bytes();
        let own = n / ROWS * tile;
        let w = DeviceBuffer::new(self.stream.device(), count * own)?;
        let family = self.family;
        for e in 0..count {
            let name = format!("{name}, expert {e}");
            let to = w.slice(e * own..(e + 1) * own);
            let values = match &experts.weights {
                ExpertWeights::Mxfp4 { blocks, scales } => {
                    let (b, s) = (n * k / MX * BLOCK_BYTES, n * k / MX);
                    let source = (&blocks[e * b..][..b], &scales[e * s..][..s]);
                    self.tiles(&name, to, (n, tile), |out, first, rows| {
                        pack::mxfp4(family, out, source, rows, k, |r| row(first + r))
                    })?;
                    continue;
                }
                ExpertWeights::OutIn(dtype, data) => one_of(*dtype, data, e, n * k),
                ExpertWeights::InOut(dtype, data) => {
                    let values = one_of(*dtype, data, e, n * k);
                    let turned = (0..n * k).into_par_iter().map(|i| values[i % k * n + i / k]);
                    Cow::Owned(turned.collect())
                }
            };
            self.tiles(&name, to, (n, tile), |out, first, rows| {
                let out = bytemuck::cast_slice_mut(out);
                pack::bf16(out, &values, rows, k, |r| row(first + r));
                Ok(())
            })?;
        }
        let bias: Vec<f32> = (0..count)
            .flat_map(|e| (0..n).map(move |p| (e, p)))
            .map(|(e, p)| experts.bias[e * n + row(p)])
            .collect();
        Ok(DeviceExperts { w, bias: self.vector(&bias)?, format, n, k })
    }

    fn advance<T>(&mut self, sent: DeviceSlice<'_, T>) {
        self.done += sent.bytes() as u64;
        (self.progress)(self.done, self.total);
    }
}

fn refused(tensor: &str) -> impl FnOnce(PackError) -> GpuEngineError + '_ {
    |source| GpuEngineError::Pack { tensor: tensor.to_owned(), source }
}

/// Matrix `e` of several of `len` elements, as bf16.
fn one_of(dtype: Dtype, data: &[u8], e: usize, len: usize) -> Cow<'_, [u16]> {
    let size = len * dtype.size();
    to_bf16(dtype, &data[e * size..][..size])
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
        Dtype::F16 => data
            .par_chunks_exact(2)
            .map(|b| bf16::from_f32(half::f16::from_le_bytes([b[0], b[1]]).to_f32()))
            .collect::<Vec<_>>()
            .into(),
        Dtype::F32 => data
            .par_chunks_exact(4)
            .map(|b| bf16::from_f32(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
            .collect::<Vec<_>>()
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{self, Opened};
    use crate::gpu_engine::staging::HALF_BYTES;

    /// The content of every weight, and what progress said last.
    fn uploaded(half_bytes: usize, dense: DenseFormat) -> (Vec<Vec<u8>>, (u64, u64)) {
        let name = "emu:gfx1151".parse().unwrap();
        let Opened::Gpus { devices, .. } = gpu::open(&name).unwrap() else { panic!("no GPU") };
        let stream = Stream::new(&devices[0]).unwrap();
        let staging = Staging::new(&stream, half_bytes).unwrap();
        let mut last = (0, 0);
        let mut progress = |done, total| {
            assert!(done > last.0 && done <= total, "{done} of {total} after {}", last.0);
            last = (done, total);
        };
        let weights = crate::synth::nano();
        let on_device =
            DeviceWeights::upload(staging, Family::Gfx11, dense, &weights, &mut progress).unwrap();
        assert_eq!(on_device.bytes(), bytes(&weights, dense));
        let read = |buffer: &DeviceBuffer<u8>| stream.read(buffer.view()).unwrap();
        let mut all = vec![
            read(&on_device.unembedding.w),
            stream.read(on_device.embedding.view().cast().unwrap()).unwrap(),
        ];
        for layer in &on_device.layers {
            all.extend([&layer.qkv, &layer.o, &layer.router].map(|dense| read(&dense.w)));
            all.extend([&layer.gate_up, &layer.down].map(|experts| read(&experts.w)));
        }
        (all, last)
    }

    #[test]
    fn pieces_do_not_change_what_arrives() {
        for dense in [DenseFormat::Bf16, DenseFormat::Mxint8] {
            let (whole, (done, total)) = uploaded(HALF_BYTES, dense);
            assert_eq!(done, total);
            // No row tile divides it.
            let (pieces, end) = uploaded(20_000, dense);
            assert_eq!(end, (total, total));
            assert!(whole == pieces, "{dense:?}");
        }
    }

    #[test]
    fn a_row_tile_that_does_not_fit_is_refused() {
        let name = "emu:gfx1151".parse().unwrap();
        let Opened::Gpus { devices, .. } = gpu::open(&name).unwrap() else { panic!("no GPU") };
        let stream = Stream::new(&devices[0]).unwrap();
        let staging = Staging::new(&stream, 1000).unwrap();
        let dense = DenseFormat::Bf16;
        let weights = crate::synth::nano();
        let refused =
            DeviceWeights::upload(staging, Family::Gfx11, dense, &weights, &mut |_, _| {});
        let Err(error) = refused else { panic!("it was taken") };
        assert!(error.to_string().contains("2048, expected at most 1000"), "{error}");
    }
}
