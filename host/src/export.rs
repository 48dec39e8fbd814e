//! Converts any model that loads to the reference systems' `.bin`.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use indicatif::ProgressBar;
use rayon::prelude::*;

use crate::files::AtomicFile;
use crate::model::bin::{self, Section};
use crate::model::{Experts, Matrix, ModelConfig, ModelError, Weights, config, locate, shards};
use crate::terminal;

/// Writes `weights` to `out` in the layout the reference runtimes read.
///
/// Every value is converted to f32 exactly. Memory is bounded by a few MB per thread whatever the
/// model's size. The file is made under another name and renamed when it is whole; after an error
/// nothing is left, and a file that was under the name stays. Only a regular file is replaced. That
/// `out` is no file of the model is for the caller to see to. Progress is counted in bytes written; `interrupted` is asked now and then
/// whether to give up.
pub fn run(
    weights: &Weights,
    out: &Path,
    progress: &ProgressBar,
    interrupted: &(dyn Fn() -> bool + Sync),
) -> Result<(), ModelError> {
    let header = header(&weights.config).map_err(|reason| ModelError::file(out, reason))?;
    let partial = AtomicFile::create(out)?;
    let size = bin::file_bytes(&weights.config);
    progress.set_length(size);
    write(weights, &header, partial.file(), progress, interrupted).map_err(|e| match e {
        WriteError::Io(source) => ModelError::io(out)(source),
        WriteError::Interrupted => ModelError::Interrupted { path: out.to_owned() },
        WriteError::NonFinite(name) => {
            ModelError::file(out, format!("{name} holds a value that is not finite"))
        }
    })?;
    partial.commit()?;
    progress.finish();
    Ok(())
}

/// Lists the tensors of the snapshot in `dir`: name, dtype and shape, one a line.
pub fn print_keys(dir: &Path, out: &mut dyn Write) -> Result<(), ModelError> {
    for (name, tensor) in shards::open(&locate(dir)?)? {
        let name = terminal::line(&name);
        writeln!(out, "{name} {:?} {:?}", tensor.dtype, tensor.shape)
            .map_err(ModelError::io(dir))?;
    }
    Ok(())
}

/// The header, unless the format cannot express the model.
fn header(config: &ModelConfig) -> Result<[u8; bin::HEADER_BYTES], String> {
    let fixed = [
        ("rms_norm_eps", config.rms_norm_eps, bin::RMS_NORM_EPS),
        ("rope beta_fast", config.rope.beta_fast, bin::BETA_FAST),
        ("rope beta_slow", config.rope.beta_slow, bin::BETA_SLOW),
    ];
    for (name, value, expected) in fixed {
        if value != expected {
            return Err(format!("{name} is {value}, the .bin format fixes it at {expected}"));
        }
    }
    if config.rope.truncate {
        return Err("rope truncate is true, the .bin format fixes it at false".to_owned());
    }
    if let Some(factor) = config.rope.attention_factor {
        return Err(format!(
            "rope attention_factor is {factor}, the .bin format fixes it at 0.1 ln(factor) + 1"
        ));
    }
    if config.windowed_layers != config::alternating(config.num_hidden_layers) {
        return Err("the .bin format fixes the windowed layers: exactly the even ones".to_owned());
    }
    bin::header(config)
}

/// Rows of f32 that lie together in the file.
#[derive(Clone, Copy)]
enum Part<'a> {
    Vector(&'a [f32]),
    Matrix(&'a Matrix),
    Experts(&'a Experts),
}

impl<'a> Part<'a> {
    /// Rows and columns.
    fn shape(self) -> [usize; 2] {
        match self {
            Part::Vector(values) => [1, values.len()],
            Part::Matrix(m) => [m.rows, m.cols],
            Part::Experts(e) => [e.count * e.rows, e.cols],
        }
    }

    fn decode(self, rows: Range<usize>, out: &mut [f32]) {
        match self {
            Part::Vector(values) => out.copy_from_slice(values),
            Part::Matrix(matrix) => matrix.decode_rows(rows, out),
            Part::Experts(experts) => experts.decode_rows(rows, out),
        }
    }

    /// What `section` consists of in `layer`.
    fn of(weights: &'a Weights, section: Section, layer: usize) -> Vec<Part<'a>> {
        let l = &weights.layers[layer];
        match section {
            Section::Embedding => vec![Part::Matrix(&weights.embedding)],
            Section::Unembedding => vec![Part::Matrix(&weights.unembedding)],
            Section::Norm => vec![Part::Vector(&weights.norm)],
            Section::AttnNorm => vec![Part::Vector(&l.attn_norm)],
            Section::MlpNorm => vec![Part::Vector(&l.mlp_norm)],
            Section::Qkv => [&l.q, &l.k, &l.v].map(|m| Part::Matrix(&m.weight)).to_vec(),
            Section::QkvBias => [&l.q, &l.k, &l.v].map(|m| Part::Vector(&m.bias)).to_vec(),
            Section::O => vec![Part::Matrix(&l.o.weight)],
            Section::OBias => vec![Part::Vector(&l.o.bias)],
            Section::Sinks => vec![Part::Vector(&l.sinks)],
            Section::Router => vec![Part::Matrix(&l.router.weight)],
            Section::RouterBias => vec![Part::Vector(&l.router.bias)],
            Section::GateUp => vec![Part::Experts(&l.gate_up)],
            Section::GateUpBias => vec![Part::Vector(&l.gate_up.bias)],
            Section::Down => vec![Part::Experts(&l.down)],
            Section::DownBias => vec![Part::Vector(&l.down.bias)],
        }
    }
}

/// Rows to convert and write.
struct Job<'a> {
    part: Part<'a>,
    rows: Range<usize>,
    /// In the file, bytes.
    at: u64,
    section: Section,
    layer: usize,
}

/// f32 values converted at a time, unless one row is longer.
const CHUNK: usize = 1 << 20;

/// The whole file's conversion, in its order.
fn jobs(weights: &Weights) -> Vec<Job<'_>> {
    let mut jobs = Vec::new();
    let mut at = bin::HEADER_BYTES as u64;
    for section in Section::ALL {
        for layer in 0..section.count(&weights.config) {
            for part in Part::of(weights, section, layer) {
                let [rows, cols] = part.shape();
                let step = (CHUNK / cols).max(1);
                for first in (0..rows).step_by(step) {
                    let rows = first..rows.min(first + step);
                    let bytes = 4 * (rows.len() * cols) as u64;
                    jobs.push(Job { part, rows, at, section, layer });
                    at += bytes;
                }
            }
        }
    }
    jobs
}

enum WriteError {
    Io(io::Error),
    Interrupted,
    NonFinite(String),
}

fn write(
    weights: &Weights,
    header: &[u8],
    file: &File,
    progress: &ProgressBar,
    interrupted: &(dyn Fn() -> bool + Sync),
) -> Result<(), WriteError> {
    file.set_len(bin::file_bytes(&weights.config)).map_err(WriteError::Io)?;
    file.write_all_at(header, 0).map_err(WriteError::Io)?;
    progress.inc(header.len() as u64);
    jobs(weights).par_iter().try_for_each_init(Vec::new, |values, job| {
        if interrupted() {
            return Err(WriteError::Interrupted);
        }
        let [_, cols] = job.part.shape();
        values.resize(job.rows.len() * cols, 0.0);
        job.part.decode(job.rows.clone(), values);
        if shards::non_finite(values).is_some() {
            let name = job.section.name();
            return Err(WriteError::NonFinite(format!("{name} of layer {}", job.layer)));
        }
        for value in values.iter_mut() {
            *value = f32::from_bits(value.to_bits().to_le());
        }
        file.write_all_at(bytemuck::cast_slice(values), job.at).map_err(WriteError::Io)?;
        progress.inc(4 * values.len() as u64);
        Ok(())
    })
}

#[cfg(test)]
mod tests;
