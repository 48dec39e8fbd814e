//! Models with seeded random weights, in the published format and at the published sizes.
//!
//! Every number is a function of the seed, the tensor and its place in it: the bytes depend on
//! neither the number of threads nor the order in which they are written.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use indicatif::ProgressBar;
use rayon::prelude::*;
use safetensors::tensor::{Dtype as StDtype, Metadata, TensorInfo};
use serde_json::json;
use shared::{bf16, mxfp4, philox};

use crate::files;
use crate::model::{
    Bytes, Dtype, ModelConfig, ModelError, Rope, Store, Weights, config, names, shards, snapshot,
};

/// A published size, or one for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// The full vocabulary on four small layers: 53 MB.
    Nano,
    /// Two layers of gpt-oss-20b.
    #[value(name = "20b-2l")]
    TwoLayers,
    /// gpt-oss-20b.
    #[value(name = "20b")]
    B20,
    /// gpt-oss-120b.
    #[value(name = "120b")]
    B120,
}

impl Preset {
    /// Hyper-parameters of the preset.
    pub fn config(self) -> ModelConfig {
        let (layers, experts) = match self {
            Preset::Nano => (4, 8),
            Preset::TwoLayers => (2, 32),
            Preset::B20 => (24, 32),
            Preset::B120 => (36, 128),
        };
        let (hidden_size, heads, kv_heads) = match self {
            Preset::Nano => (64, 8, 1),
            _ => (2880, 64, 8),
        };
        ModelConfig {
            vocab_size: 201_088,
            hidden_size,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim: 64,
            intermediate_size: hidden_size,
            num_local_experts: experts,
            num_experts_per_tok: 4,
            sliding_window: 128,
            windowed_layers: config::alternating(layers),
            max_position_embeddings: 131_072,
            rope: Rope {
                theta: 150_000.0,
                factor: 32.0,
                beta_fast: 32.0,
                beta_slow: 1.0,
                original_context: 4096,
                truncate: false,
                attention_factor: None,
            },
            rms_norm_eps: 1e-5,
            swiglu_limit: 7.0,
        }
    }
}

/// How the experts are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ExpertFormat {
    /// As published: *_blocks and *_scales.
    #[default]
    Mxfp4,
    /// [experts, in, out].
    Bf16,
}

/// What to write.
#[derive(Clone, Debug)]
pub struct Options {
    /// Hyper-parameters; see [`Preset::config`].
    pub config: ModelConfig,
    /// The same seed gives the same bytes.
    pub seed: u64,
    /// Dtype of everything but MXFP4 experts.
    pub dense: Dtype,
    /// How the experts are stored.
    pub experts: ExpertFormat,
    /// Bytes of tensors after which a new file is begun.
    pub shard_bytes: u64,
}

impl Options {
    /// Bytes of a file of the published snapshots, roughly.
    pub const SHARD_BYTES: u64 = 4_500_000_000;

    /// The published format of `preset`.
    pub fn new(preset: Preset, seed: u64) -> Options {
        Options {
            config: preset.config(),
            seed,
            dense: Dtype::Bf16,
            experts: ExpertFormat::Mxfp4,
            shard_bytes: Options::SHARD_BYTES,
        }
    }
}

impl Options {
    /// A nearly normal tensor in the dense dtype.
    fn float(&self, name: String, shape: &[usize], mean: f32, std: f64) -> Spec {
        let dtype = match self.dense {
            Dtype::F32 => StDtype::F32,
            Dtype::Bf16 => StDtype::BF16,
            Dtype::F16 => StDtype::F16,
        };
        Spec::new(name, dtype, shape, Fill::Normal { mean, std: std as f32 })
    }
}

/// Seed of the built-in model.
pub const NANO_SEED: u64 = 20;

/// The built-in model, in memory: [`Preset::Nano`] as [`run`] would write it with [`NANO_SEED`].
pub fn nano() -> Weights {
    let options = Options::new(Preset::Nano, NANO_SEED);
    in_memory(&options).expect("the preset fits its own format")
}

/// The model [`run`] would write, in memory.
pub fn in_memory(options: &Options) -> Result<Weights, ModelError> {
    let specs = specs(options);
    let total = specs.iter().map(|spec| spec.bytes as usize).sum();
    let mut bytes = vec![0; total];
    let mut rest = bytes.as_mut_slice();
    let mut jobs = Vec::new();
    for (stream, spec) in specs.iter().enumerate() {
        let (part, after) = rest.split_at_mut(spec.bytes as usize);
        rest = after;
        for (chunk, out) in part.chunks_mut(CHUNK).enumerate() {
            jobs.push((stream, (chunk * CHUNK) as u64, out));
        }
    }
    jobs.into_par_iter()
        .for_each(|(stream, offset, out)| specs[stream].fill(options.seed, stream, offset, out));

    let store = Arc::new(Store::Owned(bytes));
    let path = Arc::new(PathBuf::from("the built-in model"));
    let mut tensors = shards::Tensors::new();
    let mut start = 0;
    for spec in specs {
        let end = start + spec.bytes as usize;
        let data = Bytes::new(Arc::clone(&store), start..end)
            .ok_or_else(|| ModelError::file(&path, format!("{} is cut off", spec.name)))?;
        let Spec { name, dtype, shape, .. } = spec;
        tensors.insert(name, shards::Tensor { path: Arc::clone(&path), dtype, shape, data });
        start = end;
    }
    snapshot::assemble(&path, config::Described::of(options.config.clone()), tensors)
}

/// Writes the model as a Hugging Face snapshot into the new folder `out`.
///
/// The folder appears under its name only when it is complete; after an error nothing is left.
/// Progress is counted in bytes; `interrupted` is asked now and then whether to give up.
pub fn run(
    options: &Options,
    out: &Path,
    progress: &ProgressBar,
    interrupted: &(dyn Fn() -> bool + Sync),
) -> Result<(), ModelError> {
    options.config.check().map_err(|e| ModelError::file(out, e))?;
    let occupied = match fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_some(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
        Err(e) => return Err(ModelError::io(out)(e)),
    };
    if occupied {
        return Err(ModelError::file(out, "the folder is not empty, expected a new one"));
    }
    let parent = files::parent(out);
    let partial = tempfile::Builder::new()
        .prefix(".gptoss-synth-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .tempdir_in(parent)
        .map_err(ModelError::io(parent))?;
    write_snapshot(options, partial.path(), progress, &|| match interrupted() {
        true => Err(ModelError::Interrupted { path: out.to_owned() }),
        false => Ok(()),
    })?;
    fs::rename(partial.path(), out).map_err(ModelError::io(out))?;
    // Renamed: there is nothing left for the guard to remove.
    let _ = partial.keep();
    files::sync_folder(parent)?;
    progress.finish();
    Ok(())
}

fn write_snapshot(
    options: &Options,
    dir: &Path,
    progress: &ProgressBar,
    go_on: &(dyn Fn() -> Result<(), ModelError> + Sync),
) -> Result<(), ModelError> {
    let specs = specs(options);
    progress.set_length(specs.iter().map(|spec| spec.bytes).sum());
    let shards = plan(&specs, options.shard_bytes);
    let mut jobs = Vec::new();
    let mut handles = Vec::new();
    let mut weight_map = BTreeMap::new();
    for file in &shards {
        let path = dir.join(&file.name);
        let (header, size) =
            header(&specs[file.specs.clone()]).map_err(|reason| ModelError::file(&path, reason))?;
        let handle = File::create(&path).map_err(ModelError::io(&path))?;
        handle.write_all_at(&header, 0).map_err(ModelError::io(&path))?;
        handle.set_len(header.len() as u64 + size).map_err(ModelError::io(&path))?;
        let handle = Arc::new((handle, path));
        handles.push(Arc::clone(&handle));
        let mut position = header.len() as u64;
        for stream in file.specs.clone() {
            let spec = &specs[stream];
            weight_map.insert(spec.name.as_str(), file.name.as_str());
            for offset in (0..spec.bytes).step_by(CHUNK) {
                jobs.push(Job { file: Arc::clone(&handle), stream, offset, at: position + offset });
            }
            position += spec.bytes;
        }
    }
    jobs.par_iter().try_for_each_init(Vec::new, |buffer, job| {
        go_on()?;
        let spec = &specs[job.stream];
        buffer.resize((spec.bytes - job.offset).min(CHUNK as u64) as usize, 0);
        spec.fill(options.seed, job.stream, job.offset, buffer);
        let (file, path) = &*job.file;
        file.write_all_at(buffer, job.at).map_err(ModelError::io(path))?;
        progress.inc(buffer.len() as u64);
        Ok::<(), ModelError>(())
    })?;
    for (file, path) in handles.iter().map(AsRef::as_ref) {
        file.sync_all().map_err(ModelError::io(path))?;
    }

    if shards.len() > 1 {
        let total: u64 = specs.iter().map(|spec| spec.bytes).sum();
        let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        write_json(&dir.join("model.safetensors.index.json"), &index)?;
    }
    let mxfp4 = options.experts == ExpertFormat::Mxfp4;
    write_json(&dir.join("config.json"), &config::to_json(&options.config, mxfp4))?;
    Ok(files::sync_folder(dir)?)
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<(), ModelError> {
    let mut file = File::create(path).map_err(ModelError::io(path))?;
    writeln!(file, "{value:#}").and_then(|()| file.sync_all()).map_err(ModelError::io(path))
}

/// Bytes made and written at a time; a multiple of every block below.
const CHUNK: usize = 4 << 20;

/// A chunk of a tensor to make and write.
struct Job {
    file: Arc<(File, PathBuf)>,
    stream: usize,
    /// In the tensor, bytes.
    offset: u64,
    /// In the file, bytes.
    at: u64,
}

/// A tensor to be made.
#[derive(Debug)]
struct Spec {
    name: String,
    dtype: StDtype,
    shape: Vec<usize>,
    bytes: u64,
    fill: Fill,
}

/// What a tensor is filled with.
#[derive(Clone, Copy, Debug)]
enum Fill {
    /// Nearly normal.
    Normal { mean: f32, std: f32 },
    /// Bytes, each value as likely: pairs of e2m1 codes.
    Codes,
    /// e8m0 scales, `low` or `low + 1`.
    Scales { low: u8 },
}

impl Spec {
    fn new(name: String, dtype: StDtype, shape: &[usize], fill: Fill) -> Spec {
        let elements: u64 = shape.iter().map(|&n| n as u64).product();
        let bytes = elements * dtype.bitsize() as u64 / 8;
        Spec { name, dtype, shape: shape.to_vec(), bytes, fill }
    }

    /// Makes the bytes from `offset` on; `offset` is a multiple of [`CHUNK`].
    fn fill(&self, seed: u64, stream: usize, offset: u64, out: &mut [u8]) {
        let random = |block: u64| {
            let counter = [block as u32, (block >> 32) as u32, stream as u32, 0];
            philox::philox4x32(counter, [seed as u32, (seed >> 32) as u32])
        };
        match self.fill {
            Fill::Codes => fill_blocks(out, offset, |b| bytemuck::cast::<_, [u8; 16]>(random(b))),
            Fill::Scales { low } => fill_blocks(out, offset, |b| {
                bytemuck::cast::<_, [u8; 16]>(random(b)).map(|byte| low + (byte & 1))
            }),
            Fill::Normal { mean, std } if self.dtype == StDtype::F32 => {
                fill_blocks(out, offset, |b| {
                    let values = random(b).map(|word| normal(word, mean, std).to_le_bytes());
                    bytemuck::cast::<_, [u8; 16]>(values)
                });
            }
            Fill::Normal { mean, std } if self.dtype == StDtype::F16 => {
                fill_blocks(out, offset, |b| {
                    let value = |word| f16::from_f32(normal(word, mean, std)).to_le_bytes();
                    bytemuck::cast::<_, [u8; 8]>(random(b).map(value))
                });
            }
            Fill::Normal { mean, std } => fill_blocks(out, offset, |b| {
                let values =
                    random(b).map(|word| bf16::from_f32(normal(word, mean, std)).to_le_bytes());
                bytemuck::cast::<_, [u8; 8]>(values)
            }),
        }
    }
}

/// Fills `out`, which starts `offset` bytes into its tensor, with blocks of `N` bytes.
fn fill_blocks<const N: usize>(out: &mut [u8], offset: u64, block: impl Fn(u64) -> [u8; N]) {
    let first = offset / N as u64;
    let (blocks, tail) = out.as_chunks_mut::<N>();
    let count = blocks.len() as u64;
    for (out, index) in blocks.iter_mut().zip(first..) {
        *out = block(index);
    }
    if !tail.is_empty() {
        tail.copy_from_slice(&block(first + count)[..tail.len()]);
    }
}

/// A nearly normal number from 32 random bits: the sum of their bytes, centred and scaled. It
/// stays within 3.5 standard deviations.
fn normal(word: u32, mean: f32, std: f32) -> f32 {
    /// Standard deviation of the sum of four uniform bytes: `sqrt(4 * (256^2 - 1) / 12)`.
    const STD: f32 = 147.801;
    // Two bytes at a time, then the two halves.
    const ALTERNATE: u32 = 0x00ff_00ff;
    let pairs = (word & ALTERNATE) + (word >> 8 & ALTERNATE);
    let sum = (pairs + (pairs >> 16)) & 0xffff;
    mean + std / STD * (sum as f32 - 510.0)
}

/// Root mean square of the e2m1 values, each as likely.
const E2M1_RMS: f64 = 2.926_174_8;

/// Every tensor of the model, in the order of the files.
///
/// Weights have a variance of one over their inputs, so that activations keep their size through
/// the layers; norms are near one, biases small.
fn specs(options: &Options) -> Vec<Spec> {
    let c = &options.config;
    let (h, vocab) = (c.hidden_size, c.vocab_size);
    let top = &names::HUGGING_FACE;
    let mut specs = vec![options.float(top.embedding.to_owned(), &[vocab, h], 0.0, 1.0)];
    for layer in 0..c.num_hidden_layers {
        block_specs(options, layer, &mut specs);
    }
    specs.push(options.float(top.norm.to_owned(), &[h], 1.0, NORM_STD));
    let std = 2.0 * inputs_std(h);
    specs.push(options.float(top.unembedding.to_owned(), &[vocab, h], 0.0, std));
    specs
}

/// Deviation of norm scales.
const NORM_STD: f64 = 0.05;
/// Deviation of biases.
const BIAS_STD: f64 = 0.02;

/// Deviation of weights that keeps the variance of what they multiply.
fn inputs_std(inputs: usize) -> f64 {
    1.0 / (inputs as f64).sqrt()
}

/// The tensors of one layer.
fn block_specs(options: &Options, layer: usize, specs: &mut Vec<Spec>) {
    let c = &options.config;
    let (h, q, kv) = (c.hidden_size, c.q_dim(), c.kv_dim());
    let top = &names::HUGGING_FACE;
    let block = &top.in_block;
    let of = |part: &str| top.of(layer, part);

    specs.push(options.float(of(block.attn_norm), &[h], 1.0, NORM_STD));
    let names::Qkv::Split(qkv) = &block.qkv else { unreachable!("Hugging Face splits q, k, v") };
    let linears = [
        (qkv[0], q, h),
        (qkv[1], kv, h),
        (qkv[2], kv, h),
        (block.o, h, q),
        (block.router, c.num_local_experts, h),
    ];
    for (part, rows, cols) in linears {
        let [weight, bias] = top.linear(layer, part);
        specs.push(options.float(weight, &[rows, cols], 0.0, inputs_std(cols)));
        specs.push(options.float(bias, &[rows], 0.0, BIAS_STD));
    }
    specs.push(options.float(of(block.sinks), &[c.num_attention_heads], 0.0, 1.0));
    specs.push(options.float(of(block.mlp_norm), &[h], 1.0, NORM_STD));

    let experts = c.num_local_experts;
    let products =
        [(&block.gate_up, 2 * c.intermediate_size, h), (&block.down, h, c.intermediate_size)];
    for (product, rows, cols) in products {
        specs.push(options.float(of(product.bias), &[experts, rows], 0.0, BIAS_STD));
        match options.experts {
            ExpertFormat::Mxfp4 => {
                let low = (inputs_std(cols) / E2M1_RMS).log2().floor() as i32 + 127;
                let per_row = cols / mxfp4::BLOCK;
                specs.push(Spec::new(
                    of(product.blocks),
                    StDtype::U8,
                    &[experts, rows, per_row, mxfp4::BLOCK_BYTES],
                    Fill::Codes,
                ));
                specs.push(Spec::new(
                    of(product.scales),
                    StDtype::U8,
                    &[experts, rows, per_row],
                    Fill::Scales { low: low as u8 },
                ));
            }
            ExpertFormat::Bf16 => specs.push(Spec::new(
                of(product.dense),
                StDtype::BF16,
                &[experts, cols, rows],
                Fill::Normal { mean: 0.0, std: inputs_std(cols) as f32 },
            )),
        }
    }
}

/// One file: consecutive tensors.
#[derive(Debug, PartialEq)]
struct ShardPlan {
    name: String,
    specs: std::ops::Range<usize>,
}

/// Cuts the tensors into files of about `shard_bytes`.
fn plan(specs: &[Spec], shard_bytes: u64) -> Vec<ShardPlan> {
    let mut cuts = vec![0];
    let mut bytes = 0;
    for (index, spec) in specs.iter().enumerate() {
        if bytes > 0 && bytes + spec.bytes > shard_bytes {
            cuts.push(index);
            bytes = 0;
        }
        bytes += spec.bytes;
    }
    cuts.push(specs.len());
    let count = cuts.len() - 1;
    cuts.windows(2)
        .enumerate()
        .map(|(index, cut)| ShardPlan {
            name: match count {
                1 => "model.safetensors".to_owned(),
                _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
            },
            specs: cut[0]..cut[1],
        })
        .collect()
}

/// The header of a file of `specs`, length included, and the size in bytes of what follows it.
fn header(specs: &[Spec]) -> Result<(Vec<u8>, u64), String> {
    let mut end = 0;
    let infos = specs
        .iter()
        .map(|spec| {
            let start = end;
            end += spec.bytes as usize;
            let (dtype, shape) = (spec.dtype, spec.shape.clone());
            (spec.name.clone(), TensorInfo { dtype, shape, data_offsets: (start, end) })
        })
        .collect();
    let origin = [("format".to_owned(), "pt".to_owned())].into();
    let metadata = Metadata::new(Some(origin), infos).map_err(|e| e.to_string())?;
    let mut json = serde_json::to_vec(&metadata).map_err(|e| e.to_string())?;
    // Padded as other writers do, so that the first tensor is aligned.
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok((header, end as u64))
}

#[cfg(test)]
mod tests;
