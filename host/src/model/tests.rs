//! Model files, sound and broken.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype as StDtype, TensorView};
use serde_json::Value;

use super::*;

mod bin_files;
mod configs;
mod places;
mod snapshots;

/// A reference model of `tests/data`.
fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name)
}

fn open(path: &Path) -> Result<Weights, ModelError> {
    load(path, &LoadOptions::default())
}

/// The one line with which `path` is refused.
fn refusal(path: &Path) -> String {
    match open(path) {
        Ok(_) => panic!("{} was accepted", path.display()),
        Err(error) => {
            let line = error.to_string();
            assert!(!line.contains('\n'), "{line}");
            line
        }
    }
}

/// One tensor of a snapshot to be.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    dtype: StDtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// A snapshot to be changed and written.
#[derive(Clone)]
struct Draft {
    config: Value,
    tensors: BTreeMap<String, Entry>,
}

impl Draft {
    fn of(name: &str) -> Draft {
        let dir = data(name);
        let config = fs::read_to_string(dir.join("config.json")).unwrap();
        let tensors = shards::open(&dir)
            .unwrap()
            .into_iter()
            .map(|(name, tensor)| {
                let bytes = tensor.data.to_vec();
                (name, Entry { dtype: tensor.dtype, shape: tensor.shape, bytes })
            })
            .collect();
        Draft { config: serde_json::from_str(&config).unwrap(), tensors }
    }

    fn entry(&mut self, name: &str) -> &mut Entry {
        self.tensors.get_mut(name).unwrap()
    }

    /// The bytes of one safetensors file of the tensors that `select` picks.
    fn file(&self, select: impl Fn(&str) -> bool) -> Vec<u8> {
        let views = self.tensors.iter().filter(|(name, _)| select(name)).map(|(name, entry)| {
            let view = TensorView::new(entry.dtype, entry.shape.clone(), &entry.bytes).unwrap();
            (name, view)
        });
        safetensors::serialize(views, None).unwrap()
    }

    fn write_config(&self, dir: &Path) {
        fs::write(dir.join("config.json"), self.config.to_string()).unwrap();
    }

    /// Writes config and one file into a new folder.
    fn write(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        self.write_config(dir.path());
        fs::write(dir.path().join("model.safetensors"), self.file(|_| true)).unwrap();
        dir
    }

    /// Writes two files, the first with what belongs to layer 0, and an index.
    fn write_shards(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        self.write_config(dir.path());
        let first = |name: &str| name.starts_with("model.layers.0.");
        fs::write(dir.path().join(SHARDS[0]), self.file(first)).unwrap();
        fs::write(dir.path().join(SHARDS[1]), self.file(|name| !first(name))).unwrap();
        let map = self
            .tensors
            .keys()
            .map(|name| (name.clone(), Value::from(SHARDS[usize::from(!first(name))])));
        write_index(dir.path(), map.collect());
        dir
    }
}

const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
const INDEX: &str = "model.safetensors.index.json";

fn write_index(dir: &Path, weight_map: serde_json::Map<String, Value>) {
    let index = serde_json::json!({ "metadata": {}, "weight_map": weight_map });
    fs::write(dir.join(INDEX), index.to_string()).unwrap();
}

/// Every value of a model: what two ways of storing it must agree on.
fn values(weights: &Weights) -> Vec<Vec<f32>> {
    let matrix = |m: &Matrix| {
        let mut out = vec![f32::NAN; m.rows * m.cols];
        m.decode_rows(0..m.rows, &mut out);
        out
    };
    let experts = |e: &Experts| {
        let mut out = vec![f32::NAN; e.count * e.rows * e.cols];
        e.decode_rows(0..e.count * e.rows, &mut out);
        out
    };
    let mut all =
        vec![matrix(&weights.embedding), matrix(&weights.unembedding), weights.norm.clone()];
    for l in &weights.layers {
        all.extend([l.attn_norm.clone(), l.sinks.clone(), l.mlp_norm.clone()]);
        for linear in [&l.q, &l.k, &l.v, &l.o, &l.router] {
            all.extend([matrix(&linear.weight), linear.bias.clone()]);
        }
        for product in [&l.gate_up, &l.down] {
            all.extend([experts(product), product.bias.clone()]);
        }
    }
    all
}
