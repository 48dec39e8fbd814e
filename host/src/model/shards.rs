//! Safetensors files of one model: one file, or several under an index.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use safetensors::tensor::{Dtype as StDtype, Metadata};
use serde_json::Value;
use shared::bf16;

use super::error::ModelError;
use super::weights::{Bytes, Dtype, Matrix, Store};

/// A tensor of a mapped file.
#[derive(Debug)]
pub(crate) struct Tensor {
    /// The file.
    pub path: Arc<PathBuf>,
    /// Element type as the file names it.
    pub dtype: StDtype,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// The elements, little-endian.
    pub data: Bytes,
}

/// The tensors of a model by name.
pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// Maps every safetensors file of the snapshot in `dir`.
pub(crate) fn open(dir: &Path) -> Result<Tensors, ModelError> {
    let index = dir.join("model.safetensors.index.json");
    let single = dir.join("model.safetensors");
    // The single file first, as in transformers: an index beside it is what another save left.
    if single.exists() {
        let mut tensors = Tensors::new();
        open_file(&single, &mut tensors)?;
        Ok(tensors)
    } else if index.is_file() {
        open_indexed(dir, &index)
    } else {
        Err(ModelError::file(
            dir,
            "neither model.safetensors nor model.safetensors.index.json is there",
        ))
    }
}

fn open_indexed(dir: &Path, index: &Path) -> Result<Tensors, ModelError> {
    let text = std::fs::read_to_string(index).map_err(ModelError::io(index))?;
    let weight_map = parse_index(&text).map_err(|reason| ModelError::file(index, reason))?;
    let files: BTreeSet<&String> = weight_map.values().collect();
    let missing: Vec<&str> =
        files.iter().filter(|file| !dir.join(file).is_file()).map(|f| f.as_str()).collect();
    if !missing.is_empty() {
        let list = missing.join(", ");
        let reason = format!("{} of {} shards missing: {list}", missing.len(), files.len());
        return Err(ModelError::file(dir, reason));
    }

    let mut tensors = Tensors::new();
    for file in files {
        open_file(&dir.join(file), &mut tensors)?;
    }
    for (name, file) in &weight_map {
        let found = tensors.get(name).is_some_and(|t| t.path.ends_with(file));
        if !found {
            let reason = format!("tensor {name} is not in {file}, where the index puts it");
            return Err(ModelError::file(index, reason));
        }
    }
    if let Some(name) = tensors.keys().find(|name| !weight_map.contains_key(*name)) {
        return Err(ModelError::file(index, format!("tensor {name} of the shards is not listed")));
    }
    Ok(tensors)
}

/// The map from tensor to file name in the text of a `model.safetensors.index.json`.
///
/// File names must be plain: an index cannot lead out of its folder. The error is one line.
pub fn parse_index(text: &str) -> Result<BTreeMap<String, String>, String> {
    let root: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
    let Some(Value::Object(map)) = root.get("weight_map") else {
        return Err("weight_map is missing or not an object".to_owned());
    };
    if map.is_empty() {
        return Err("weight_map is empty".to_owned());
    }
    map.iter()
        .map(|(name, file)| match file.as_str() {
            Some(file) if is_plain(file) => Ok((name.clone(), file.to_owned())),
            _ => Err(format!("weight_map puts {name} in {file}, expected a file name")),
        })
        .collect()
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

/// Maps a file read-only.
pub(crate) fn map(path: &Path) -> Result<Arc<Store>, ModelError> {
    // Asked before opening: to open a pipe is to wait for its other end.
    if !std::fs::metadata(path).map_err(ModelError::io(path))?.is_file() {
        return Err(ModelError::file(path, "not a regular file"));
    }
    let file = File::open(path).map_err(ModelError::io(path))?;
    if file.metadata().map_err(ModelError::io(path))?.len() == 0 {
        return Err(ModelError::file(path, "the file is empty"));
    }
    // SAFETY: the map is private and read-only. Nothing in this process writes model files in
    // place (they are made under another name and renamed); that no other process truncates one
    // while it is in use is the user's part, as with every mapped model.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(ModelError::io(path))?;
    Ok(Arc::new(Store::Mapped(map)))
}

fn open_file(path: &Path, tensors: &mut Tensors) -> Result<(), ModelError> {
    let store = map(path)?;
    let path = Arc::new(path.to_owned());
    let header = parse_header(&store).map_err(|reason| ModelError::file(&path, reason))?;
    let Header { data_start, metadata } = header;
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let data = Bytes::new(Arc::clone(&store), data_start + start..data_start + end)
            .ok_or_else(|| ModelError::file(&path, format!("tensor {name} leaves the file")))?;
        let tensor =
            Tensor { path: Arc::clone(&path), dtype: info.dtype, shape: info.shape.clone(), data };
        if let Some(other) = tensors.insert(name.clone(), tensor) {
            let reason = format!("tensor {name} is also in {}", other.path.display());
            return Err(ModelError::file(&path, reason));
        }
    }
    Ok(())
}

/// The checked header of a safetensors file.
#[derive(Debug)]
pub struct Header {
    /// Offset in bytes of the first tensor's data.
    pub data_start: usize,
    /// Names, dtypes, shapes and offsets; every offset lies within the file.
    pub metadata: Metadata,
}

/// Checks the header of the safetensors file `file` against its size; the error is one line.
pub fn parse_header(file: &[u8]) -> Result<Header, String> {
    // The format's own limit; a longer header is a sign of a file of another kind.
    const MAX_HEADER: u64 = 100_000_000;
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(format!("the file is {} bytes, too short for safetensors", file.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(format!("header length is {length}, expected at most {MAX_HEADER}"));
    }
    let header = rest.get(..length as usize).ok_or_else(|| {
        format!("header length is {length}, but only {} bytes follow: truncated", rest.len())
    })?;
    let metadata: Metadata =
        serde_json::from_slice(header).map_err(|e| format!("safetensors header: {e}"))?;
    let data_start = 8 + header.len();
    let expected = data_start.checked_add(metadata.data_len());
    match expected {
        Some(expected) if expected == file.len() => Ok(Header { data_start, metadata }),
        Some(expected) => Err(format!(
            "the file is {} bytes, its header says {expected}: {}",
            file.len(),
            if expected > file.len() { "truncated" } else { "oversized" }
        )),
        None => Err("tensor offsets of the header overflow".to_owned()),
    }
}

/// The elements of `bytes` as f32.
pub(crate) fn to_f32(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::F32 => {
            bytes.as_chunks().0.iter().map(|&b: &[u8; 4]| f32::from_le_bytes(b)).collect()
        }
        Dtype::Bf16 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|&b: &[u8; 2]| bf16::to_f32(u16::from_le_bytes(b)))
            .collect(),
        Dtype::F16 => {
            bytes.as_chunks().0.iter().map(|&b: &[u8; 2]| f16::from_le_bytes(b).to_f32()).collect()
        }
    }
}

/// The first value that is not finite, with its index.
pub(crate) fn non_finite(values: &[f32]) -> Option<(usize, f32)> {
    values.iter().copied().enumerate().find(|(_, v)| !v.is_finite())
}

impl Tensor {
    fn error(&self, name: &str, expected: String) -> ModelError {
        ModelError::Tensor {
            path: PathBuf::clone(&self.path),
            name: name.to_owned(),
            got: format!("{:?} {:?}", self.dtype, self.shape),
            expected,
        }
    }

    /// A float tensor of exactly this shape: its dtype.
    pub fn float(&self, name: &str, shape: &[usize]) -> Result<Dtype, ModelError> {
        let dtype = match self.dtype {
            StDtype::BF16 => Some(Dtype::Bf16),
            StDtype::F16 => Some(Dtype::F16),
            StDtype::F32 => Some(Dtype::F32),
            _ => None,
        };
        match dtype {
            Some(dtype) if self.shape == shape => Ok(dtype),
            _ => Err(self.error(name, format!("BF16, F16 or F32 {shape:?}"))),
        }
    }

    /// Raw bytes (MXFP4 blocks or scales) of exactly this shape.
    pub fn bytes(self, name: &str, shape: &[usize]) -> Result<Bytes, ModelError> {
        if self.dtype == StDtype::U8 && self.shape == shape {
            Ok(self.data)
        } else {
            Err(self.error(name, format!("U8 {shape:?}")))
        }
    }

    /// A matrix `[rows, cols]`.
    pub fn matrix(self, name: &str, rows: usize, cols: usize) -> Result<Matrix, ModelError> {
        let dtype = self.float(name, &[rows, cols])?;
        Ok(Matrix { dtype, rows, cols, data: self.data })
    }

    /// A small tensor of exactly this shape as f32, every value finite.
    pub fn vector(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let values = to_f32(self.float(name, shape)?, &self.data);
        match non_finite(&values) {
            None => Ok(values),
            Some((index, value)) => Err(ModelError::NonFinite {
                path: PathBuf::clone(&self.path),
                name: name.to_owned(),
                index,
                value,
            }),
        }
    }
}
