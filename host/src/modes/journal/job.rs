//! What makes two getp jobs the same.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use shared::hash;

use crate::cpu::KvDtype;
use crate::engine::Sampling;
use crate::gpu::launch::linear::DenseFormat;
use crate::model;
use crate::model::bin::{self, BinLayout};

/// Everything that determines a job's output; the journal of another job is refused. What does not
/// change a byte (batch, threads, number of GPUs) is not here.
pub struct JobKey {
    /// Number of prompts.
    pub requests: usize,
    /// [`crate::modes::prompts::fingerprint`].
    pub prompts: u64,
    /// Positions of each sequence, `-n`.
    pub positions: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end a request.
    pub stop: Vec<String>,
    /// Where the model is.
    pub model: String,
    /// [`model_stamp`] of it.
    pub model_files: String,
    /// How a reference `.bin` is read.
    pub bin_layout: BinLayout,
    /// The tokenizer's file and [`file_stamp`], or the name of a built-in one.
    pub tokenizer: String,
    /// The device's kind: results may differ in rounding from another kind's.
    pub device: String,
    /// How a GPU keeps dense weights.
    pub dense: DenseFormat,
    /// How keys and values are kept.
    pub kv: KvDtype,
    /// The program's version.
    pub version: &'static str,
    /// What the host and the kernels agree on.
    pub kernels: u64,
}

impl JobKey {
    /// Names and values, each value on one line. A field that is added above must be written here
    /// before this compiles.
    pub(super) fn fields(&self) -> Vec<(&'static str, String)> {
        let JobKey {
            requests,
            prompts,
            positions,
            sampling,
            stop,
            model,
            model_files,
            bin_layout,
            tokenizer,
            device,
            dense,
            kv,
            version,
            kernels,
        } = self;
        let Sampling { temperature, top_p, top_k, min_p, seed } = sampling;
        // Greedy looks at neither.
        let drawn = |value: String| if *temperature > 0.0 { value } else { String::from("-") };
        let text = |value: &str| value.escape_debug().to_string();
        vec![
            ("requests", requests.to_string()),
            ("prompts", format!("{prompts:016x}")),
            ("-n", positions.to_string()),
            ("-T", temperature.to_string()),
            ("-p", drawn(top_p.to_string())),
            ("-k", drawn(top_k.to_string())),
            ("--min-p", drawn(min_p.to_string())),
            ("seed", drawn(seed.to_string())),
            ("--stop", format!("{stop:?}")),
            ("model", text(model)),
            ("model-files", text(model_files)),
            ("--bin-layout", format!("{bin_layout:?}").to_lowercase()),
            ("tokenizer", text(tokenizer)),
            ("device", text(device)),
            ("--dense", format!("{dense:?}").to_lowercase()),
            ("kv", format!("{kv:?}").to_lowercase()),
            ("version", text(version)),
            ("kernels", format!("{kernels:016x}")),
        ]
    }
}

/// Tells the content of a model's files from another content under the same path, by their names,
/// sizes and times of change, and the configuration's bytes: reading all of it would take minutes.
pub fn model_stamp(path: &Path) -> io::Result<String> {
    let path = &model::locate(path).map_err(io::Error::other)?;
    let found = fs::metadata(path)?;
    let mut hash = hash::START;
    if !found.is_dir() {
        let mut header = vec![0; bin::HEADER_BYTES.min(found.len() as usize)];
        io::Read::read_exact(&mut fs::File::open(path)?, &mut header)?;
        hash = hash::add(hash, &header);
        hash = hash::add(hash, &moment(&found));
        return Ok(stamp(1, found.len(), hash));
    }
    let mut names: Vec<_> =
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
    names.sort();
    let (mut files, mut bytes) = (0, 0);
    for name in names {
        let file = path.join(&name);
        let is_weights = file.extension().is_some_and(|extension| extension == "safetensors");
        let is_json = name == "config.json" || name == "model.safetensors.index.json";
        if !is_weights && !is_json {
            continue;
        }
        let found = fs::metadata(&file)?;
        hash = hash::add(hash, name.as_encoded_bytes());
        hash = match is_json {
            true => hash::add(hash, &fs::read(&file)?),
            false => hash::add(hash, &moment(&found)),
        };
        files += 1;
        bytes += found.len();
    }
    Ok(stamp(files, bytes, hash))
}

/// Tells the content of a small file from another.
pub fn file_stamp(path: &Path) -> io::Result<String> {
    let content = fs::read(path)?;
    let hash = hash::add(hash::START, &content);
    Ok(stamp(1, content.len() as u64, hash))
}

fn stamp(files: usize, bytes: u64, hash: u64) -> String {
    format!("{files} files, {bytes} bytes, {hash:016x}")
}

/// Size and time of change.
fn moment(file: &Metadata) -> Vec<u8> {
    [file.len() as i64, file.mtime(), file.mtime_nsec()].map(i64::to_le_bytes).concat()
}
