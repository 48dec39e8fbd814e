//! Weights to devices, read and packed once for all devices of a family, a piece at a time: all
//! threads pack one while others are copied.

use rayon::prelude::*;
use shared::bf16;
use shared::block::{Family, ROWS, STEP};

use super::GpuEngineError;
use super::staging::{SLOT_BYTES, Staging};
use crate::gpu::launch::linear::DenseFormat;
use crate::gpu::launch::moe::ExpertFormat;
use crate::gpu::pack::{self, PackError, Source};
use crate::gpu::{Device, DeviceBuffer, DeviceSlice, GpuError, Stream};
use crate::model::{Dtype, ExpertWeights, Experts, Layer, Matrix, Weights};

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
    pub embedding: DeviceBuffer<half::bf16>,
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

impl Dense {
    fn new(device: &Device, format: DenseFormat, n: usize, k: usize) -> Result<Dense, GpuError> {
        let w = DeviceBuffer::new(device, format.bytes(n, k))?;
        Ok(Dense { w, bias: DeviceBuffer::new(device, n)?, format, n, k })
    }
}

impl DeviceExperts {
    fn new(device: &Device, experts: &Experts) -> Result<DeviceExperts, GpuError> {
        Ok(DeviceExperts {
            w: DeviceBuffer::new(device, experts_len(experts))?,
            bias: DeviceBuffer::new(device, experts.bias.len())?,
            format: expert_format(experts),
            n: experts.rows,
            k: experts.cols,
        })
    }
}

impl DeviceLayer {
    fn new(device: &Device, dense: DenseFormat, layer: &Layer) -> Result<DeviceLayer, GpuError> {
        let of = |format, matrix: &Matrix| Dense::new(device, format, matrix.rows, matrix.cols);
        let qkv = layer.q.weight.rows + layer.k.weight.rows + layer.v.weight.rows;
        Ok(DeviceLayer {
            attn_norm: DeviceBuffer::new(device, layer.attn_norm.len())?,
            qkv: Dense::new(device, dense, qkv, layer.q.weight.cols)?,
            sinks: DeviceBuffer::new(device, layer.sinks.len())?,
            o: of(dense, &layer.o.weight)?,
            mlp_norm: DeviceBuffer::new(device, layer.mlp_norm.len())?,
            router: of(DenseFormat::Bf16, &layer.router.weight)?,
            gate_up: DeviceExperts::new(device, &layer.gate_up)?,
            down: DeviceExperts::new(device, &layer.down)?,
        })
    }
}

/// A device that weights are sent to.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Where copies are queued.
    pub stream: &'a Stream,
    /// The device's family: how weights are packed.
    pub family: Family,
}

impl DeviceWeights {
    /// Packs `weights` once for each family among `targets`, and uploads them to every target, in
    /// order. `progress` hears of bytes sent so far and of [`bytes`] for all targets.
    pub fn upload_all(
        targets: &[Target<'_>],
        dense: DenseFormat,
        weights: &Weights,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Vec<DeviceWeights>, GpuEngineError> {
        Self::upload_in(SLOT_BYTES, targets, dense, weights, progress)
    }

    fn upload_in(
        slot_bytes: usize,
        targets: &[Target<'_>],
        dense: DenseFormat,
        weights: &Weights,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Vec<DeviceWeights>, GpuEngineError> {
        let all = targets
            .iter()
            .map(|target| DeviceWeights::allocate(target.stream.device(), dense, weights))
            .collect::<Result<Vec<_>, GpuError>>()?;
        let total = all.iter().map(DeviceWeights::bytes).sum();
        let mut done = 0;
        for family in Family::ALL {
            let of_family = |(target, _): &(&Target<'_>, _)| target.family == family;
            let (streams, onto): (Vec<_>, Vec<_>) =
                targets.iter().zip(&all).filter(of_family).map(|(t, on)| (t.stream, on)).unzip();
            if streams.is_empty() {
                continue;
            }
            let staging = Staging::new(&streams, slot_bytes)?;
            let mut upload = Upload { staging, onto, family, done, total, progress };
            upload.model(weights)?;
            done = upload.done;
            upload.staging.finish()?;
        }
        Ok(all)
    }

    /// Memory for `weights`, with unspecified content.
    fn allocate(
        device: &Device,
        dense: DenseFormat,
        weights: &Weights,
    ) -> Result<DeviceWeights, GpuError> {
        let (embedding, unembedding) = (&weights.embedding, &weights.unembedding);
        let layers = weights.layers.iter().map(|layer| DeviceLayer::new(device, dense, layer));
        Ok(DeviceWeights {
            embedding: DeviceBuffer::new(device, embedding.rows * embedding.cols)?,
            layers: layers.collect::<Result<_, _>>()?,
            norm: DeviceBuffer::new(device, weights.norm.len())?,
            unembedding: Dense::new(device, dense, unembedding.rows, unembedding.cols)?,
            bytes: bytes(weights, dense),
        })
    }

    /// Bytes of all weights.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// One pass over the weights, to all devices of one family.
struct Upload<'a> {
    staging: Staging<'a>,
    onto: Vec<&'a DeviceWeights>,
    family: Family,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

/// One memory on each device.
type Everywhere<'a, T> = Vec<DeviceSlice<'a, T>>;

impl<'a> Upload<'a> {
    fn model(&mut self, weights: &Weights) -> Result<(), GpuEngineError> {
        let embedding = self.on(|on| on.embedding.view());
        self.plain(&weights.embedding, embedding)?;
        for (l, layer) in weights.layers.iter().enumerate() {
            self.layer(l, layer)?;
        }
        let unembedding = &weights.unembedding;
        let bias = vec![0.0; unembedding.rows];
        self.linear(|on| &on.unembedding, &[("unembedding", unembedding)], &bias)?;
        let norm = self.on(|on| on.norm.view());
        self.vector(&weights.norm, norm)
    }

    fn layer(&mut self, l: usize, layer: &Layer) -> Result<(), GpuEngineError> {
        let name = |part: &str| format!("layer {l}, {part}");
        let on = |on: &'a DeviceWeights| &on.layers[l];
        let attn_norm = self.on(|all| on(all).attn_norm.view());
        self.vector(&layer.attn_norm, attn_norm)?;
        let qkv = [("q", &layer.q), ("k", &layer.k), ("v", &layer.v)];
        let bias: Vec<f32> =
            qkv.iter().flat_map(|(_, linear)| linear.bias.iter().copied()).collect();
        let names = qkv.map(|(part, _)| name(part));
        let parts: [_; 3] = std::array::from_fn(|i| (names[i].as_str(), &qkv[i].1.weight));
        self.linear(|all| &on(all).qkv, &parts, &bias)?;
        let sinks = self.on(|all| on(all).sinks.view());
        self.vector(&layer.sinks, sinks)?;
        let o = [(&*name("attention output"), &layer.o.weight)];
        self.linear(|all| &on(all).o, &o, &layer.o.bias)?;
        let mlp_norm = self.on(|all| on(all).mlp_norm.view());
        self.vector(&layer.mlp_norm, mlp_norm)?;
        let router = [(&*name("router"), &layer.router.weight)];
        self.linear(|all| &on(all).router, &router, &layer.router.bias)?;
        self.experts(|all| &on(all).gate_up, &name("gate_up"), &layer.gate_up, pack::gate_up_row)?;
        self.experts(|all| &on(all).down, &name("down"), &layer.down, |row| row)
    }

    fn on<T>(&self, of: impl Fn(&'a DeviceWeights) -> DeviceSlice<'a, T>) -> Everywhere<'a, T> {
        self.onto.iter().map(|&on| of(on)).collect()
    }

    /// Queues one piece.
    fn send(
        &mut self,
        to: &[DeviceSlice<'_, u8>],
        fill: impl FnOnce(&mut [u8]) -> Result<(), GpuEngineError>,
    ) -> Result<(), GpuEngineError> {
        self.staging.send(to, fill)?;
        self.done += to.iter().map(|to| to.bytes() as u64).sum::<u64>();
        (self.progress)(self.done, self.total);
        Ok(())
    }

    /// Elements of `size` bytes to `to`, which holds them, in pieces that `fill` makes, given the
    /// first element.
    fn elements<T>(
        &mut self,
        to: Everywhere<'_, T>,
        fill: impl Fn(&mut [u8], usize),
    ) -> Result<(), GpuEngineError> {
        let (len, size) = (to[0].len(), size_of::<T>());
        let to = to.iter().map(|to| to.cast::<u8>()).collect::<Result<Vec<_>, _>>()?;
        let mut first = 0;
        while first < len {
            let piece = (self.staging.room(size) / size).min(len - first);
            let part = first * size..(first + piece) * size;
            let to: Vec<_> = to.iter().map(|to| to.slice(part.clone())).collect();
            self.send(&to, |out| {
                fill(out, first);
                Ok(())
            })?;
            first += piece;
        }
        Ok(())
    }

    fn vector(&mut self, values: &[f32], to: Everywhere<'_, f32>) -> Result<(), GpuEngineError> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        self.elements(to, |out, first| out.copy_from_slice(&bytes[4 * first..][..out.len()]))
    }

    /// A matrix as it is, rounded to bf16.
    fn plain(
        &mut self,
        matrix: &Matrix,
        to: Everywhere<'_, half::bf16>,
    ) -> Result<(), GpuEngineError> {
        let (dtype, data) = (matrix.dtype, &*matrix.data);
        self.elements(to, |out, first| to_bf16(out, dtype, &data[first * dtype.size()..]))
    }

    /// Row tiles of a matrix `[n, k]`, each `tile_bytes` long, to `to`: `pack` fills a buffer with
    /// the tiles from a row on, given how many rows.
    fn tiles(
        &mut self,
        to: &[DeviceSlice<'_, u8>],
        (n, tile_bytes): (usize, usize),
        pack: impl Fn(&mut [u8], usize, usize) -> Result<(), GpuEngineError>,
    ) -> Result<(), GpuEngineError> {
        let most = self.staging.slot_bytes();
        if tile_bytes > most {
            return Err(GpuEngineError::Shape {
                name: "bytes of 16 rows of weights",
                value: tile_bytes,
                expected: format!("at most {most}"),
            });
        }
        let mut first = 0;
        while first < n {
            let rows = (self.staging.room(tile_bytes) / tile_bytes * ROWS).min(n - first);
            let at = first / ROWS * tile_bytes;
            let part = at..at + rows.div_ceil(ROWS) * tile_bytes;
            let to: Vec<_> = to.iter().map(|to| to.slice(part.clone())).collect();
            self.send(&to, |out| pack(out, first, rows))?;
            first += rows;
        }
        Ok(())
    }

    /// Named matrices with the same inputs, stacked, and their biases.
    fn linear(
        &mut self,
        of: impl Fn(&'a DeviceWeights) -> &'a Dense,
        parts: &[(&str, &Matrix)],
        bias: &[f32],
    ) -> Result<(), GpuEngineError> {
        let (family, format) = (self.family, of(self.onto[0]).format);
        let to = self.on(|on| of(on).w.view());
        let (mut at, mut rows) = (0, 0);
        for &(name, matrix) in parts {
            if rows % ROWS != 0 {
                return Err(GpuEngineError::Shape {
                    name: "rows of queries, keys and values",
                    value: rows,
                    expected: format!("a multiple of {ROWS}"),
                });
            }
            let (n, k) = (matrix.rows, matrix.cols);
            let source = Source::rows(matrix.dtype, &matrix.data);
            let end = at + format.bytes(n, k);
            let to: Vec<_> = to.iter().map(|to| to.slice(at..end)).collect();
            self.tiles(&to, (n, format.bytes(ROWS, k)), |out, first, rows| {
                pack::dense(family, format, out, source, (rows, k), |row| first + row)
                    .map_err(|source| refused(name.to_owned(), source))
            })?;
            (at, rows) = (end, rows + n);
        }
        let to = self.on(|on| of(on).bias.view());
        self.vector(bias, to)
    }

    /// All experts of one product; `row` is the source row of each packed row of one expert.
    fn experts(
        &mut self,
        of: impl Fn(&'a DeviceWeights) -> &'a DeviceExperts,
        name: &str,
        experts: &Experts,
        row: impl Fn(usize) -> usize + Sync,
    ) -> Result<(), GpuEngineError> {
        let (n, k) = (experts.rows, experts.cols);
        let family = self.family;
        let from = |p: usize| p / n * n + row(p % n);
        let tile_bytes = k / STEP * expert_format(experts).step_bytes();
        let to = self.on(|on| of(on).w.view());
        self.tiles(&to, (experts.count * n, tile_bytes), |out, first, rows| {
            let from = |p| from(first + p);
            let packed = match &experts.weights {
                ExpertWeights::Mxfp4 { blocks, scales } => {
                    pack::mxfp4(family, out, (blocks, scales), rows, k, from)
                }
                ExpertWeights::OutIn(dtype, data) => {
                    let source = Source::rows(*dtype, data);
                    pack::dense(family, DenseFormat::Bf16, out, source, (rows, k), from)
                }
                ExpertWeights::InOut(dtype, data) => {
                    let source = Source::columns(*dtype, data, n);
                    pack::dense(family, DenseFormat::Bf16, out, source, (rows, k), from)
                }
            };
            packed.map_err(|source| {
                let expert = source.row() / n;
                refused(format!("{name}, expert {expert}"), source.in_matrix_at(expert * n))
            })
        })?;
        let bias: Vec<f32> = (0..experts.count * n).map(|p| experts.bias[from(p)]).collect();
        let to = self.on(|on| of(on).bias.view());
        self.vector(&bias, to)
    }
}

fn refused(tensor: String, source: PackError) -> GpuEngineError {
    GpuEngineError::Pack { tensor, source }
}

/// The first values of `data` as bf16, as many as fill `out`; others are rounded.
fn to_bf16(out: &mut [u8], dtype: Dtype, data: &[u8]) {
    /// Elements that a thread takes at a time.
    const PIECE: usize = 32 << 10;
    let size = dtype.size();
    out.par_chunks_mut(2 * PIECE).zip(data.par_chunks(size * PIECE)).for_each(|(out, data)| {
        match dtype {
            Dtype::Bf16 => out.copy_from_slice(&data[..out.len()]),
            Dtype::F16 => {
                let (out, _) = out.as_chunks_mut::<2>();
                for (out, &value) in out.iter_mut().zip(data.as_chunks::<2>().0) {
                    let value = half::f16::from_le_bytes(value).to_f32();
                    *out = bf16::from_f32(value).to_le_bytes();
                }
            }
            Dtype::F32 => {
                let (out, _) = out.as_chunks_mut::<2>();
                for (out, &value) in out.iter_mut().zip(data.as_chunks::<4>().0) {
                    *out = bf16::from_f32(f32::from_le_bytes(value)).to_le_bytes();
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{self, Opened};
    use crate::model::{Bytes, Store};
    use crate::synth;
    use std::sync::Arc;

    fn stream() -> Stream {
        let name = "emu:gfx1151".parse().unwrap();
        let Opened::Gpus { devices, .. } = gpu::open(&name).unwrap() else { panic!("no GPU") };
        Stream::new(&devices[0]).unwrap()
    }

    /// The bytes of every weight.
    fn content(stream: &Stream, on: &DeviceWeights) -> Vec<Vec<u8>> {
        let bytes = |view: DeviceSlice<'_, u8>| stream.read(view).unwrap();
        let floats = |buffer: &DeviceBuffer<f32>| bytes(buffer.view().cast().unwrap());
        let dense = |dense: &Dense| [bytes(dense.w.view()), floats(&dense.bias)];
        let mut all = vec![bytes(on.embedding.view().cast().unwrap()), floats(&on.norm)];
        all.extend(dense(&on.unembedding));
        for layer in &on.layers {
            all.extend([&layer.qkv, &layer.o, &layer.router].into_iter().flat_map(dense));
            all.extend([&layer.attn_norm, &layer.mlp_norm, &layer.sinks].map(floats));
            for experts in [&layer.gate_up, &layer.down] {
                all.extend([bytes(experts.w.view()), floats(&experts.bias)]);
            }
        }
        all
    }

    /// What arrives at devices of `families`.
    fn uploaded(
        weights: &Weights,
        slot_bytes: usize,
        families: &[Family],
        dense: DenseFormat,
    ) -> Vec<Vec<Vec<u8>>> {
        let streams: Vec<_> = families.iter().map(|_| stream()).collect();
        let targets: Vec<_> = streams
            .iter()
            .zip(families)
            .map(|(stream, &family)| Target { stream, family })
            .collect();
        let mut last = (0, 0);
        let mut progress = |done, total| {
            assert!(done > last.0 && done <= total, "{done} of {total} after {}", last.0);
            last = (done, total);
        };
        let all =
            DeviceWeights::upload_in(slot_bytes, &targets, dense, weights, &mut progress).unwrap();
        let total = bytes(weights, dense) * families.len() as u64;
        assert_eq!(last, (total, total));
        all.iter().zip(&streams).map(|(on, stream)| content(stream, on)).collect()
    }

    #[test]
    fn pieces_do_not_change_what_arrives() {
        for dense in [DenseFormat::Bf16, DenseFormat::Mxint8] {
            let one = |slot| uploaded(&synth::nano(), slot, &[Family::Gfx11], dense).remove(0);
            // No row tile divides the small slots.
            assert!(one(SLOT_BYTES) == one(20_000), "{dense:?}");
        }
    }

    #[test]
    fn several_devices_get_what_each_gets_alone() {
        let families = [Family::Gfx11, Family::Nvptx, Family::Gfx11];
        let weights = synth::nano();
        let together = uploaded(&weights, 1 << 20, &families, DenseFormat::Bf16);
        for (family, got) in families.iter().zip(&together) {
            let alone = uploaded(&weights, SLOT_BYTES, &[*family], DenseFormat::Bf16).remove(0);
            assert!(alone == *got, "{family:?}");
        }
        assert!(together[0] != together[1], "the families' orders differ");
    }

    /// Queries, keys and values are one matrix, and each expert follows the one before it.
    #[test]
    fn rows_arrive_where_kernels_look_for_them() {
        let weights = synth::nano();
        let got = uploaded(&weights, 20_000, &[Family::Gfx11], DenseFormat::Bf16).remove(0);
        let layer = &weights.layers[0];
        let k = weights.config.hidden_size;
        let value = |row: usize, column: usize| {
            let at = 2 * shared::block::tiled_index(row, column, k / STEP);
            [got[4][at], got[4][at + 1]]
        };
        let mut row = 0;
        for linear in [&layer.q, &layer.k, &layer.v] {
            let bytes = &linear.weight.data;
            assert_eq!(value(row, 0), bytes[..2]);
            row += linear.weight.rows;
            assert_eq!(value(row - 1, k - 1), bytes[bytes.len() - 2..]);
        }
        let experts = &layer.gate_up;
        let ExpertWeights::Mxfp4 { scales, .. } = &experts.weights else { panic!("MXFP4") };
        let step_bytes = shared::pack::MXFP4_STEP_BYTES;
        for (expert, p) in [(0, 0), (1, 17), (experts.count - 1, experts.rows - 1)] {
            let at = (expert * experts.rows + p) / ROWS * (k / STEP) * step_bytes;
            let from = expert * experts.rows + pack::gate_up_row(p);
            assert_eq!(got[13][at + p % ROWS], scales[from * (k / STEP)], "expert {expert}");
        }
    }

    #[test]
    fn a_row_tile_that_does_not_fit_is_refused() {
        let (stream, weights) = (stream(), synth::nano());
        let target = Target { stream: &stream, family: Family::Gfx11 };
        let dense = DenseFormat::Bf16;
        let refused = DeviceWeights::upload_in(1000, &[target], dense, &weights, &mut |_, _| {});
        let Err(error) = refused else { panic!("it was taken") };
        assert!(error.to_string().contains("2048, expected at most 1000"), "{error}");
    }

    #[test]
    fn what_cannot_be_packed_is_named_by_tensor_expert_and_row() {
        let mut weights = synth::nano();
        let down = &mut weights.layers[1].down;
        let steps = down.cols / STEP;
        let ExpertWeights::Mxfp4 { blocks, scales } = &mut down.weights else { panic!("MXFP4") };
        let owned = |bytes: Vec<u8>| {
            let len = bytes.len();
            Bytes::new(Arc::new(Store::Owned(bytes)), 0..len).unwrap()
        };
        // Expert 2, row 5, second block.
        let at = (2 * down.rows + 5) * steps + 1;
        let (mut b, mut s) = (blocks.to_vec(), scales.to_vec());
        (b[16 * at], s[at]) = (1, 255);
        (*blocks, *scales) = (owned(b), owned(s));
        let stream = stream();
        let target = Target { stream: &stream, family: Family::Gfx11 };
        let mut silent = |_, _| {};
        let refused =
            DeviceWeights::upload_all(&[target], DenseFormat::Bf16, &weights, &mut silent);
        let Err(error) = refused else { panic!("it was taken") };
        let expected = "layer 1, down, expert 2: row 5, columns 32 to 63: MXFP4 scale 255";
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}
