//! Model files and the weights they hold, whichever format they came from.

use std::path::Path;

pub mod bin;
pub mod config;
mod decode;
mod error;
mod locate;
pub(crate) mod names;
pub(crate) mod pad;
pub mod shards;
pub(crate) mod snapshot;
mod weights;

#[cfg(test)]
mod tests;

pub use error::ModelError;
pub use locate::locate;
pub use shared::model::{ModelConfig, Rope};
pub use weights::{Bytes, Dtype, ExpertWeights, Experts, Layer, Linear, Matrix, Store, Weights};

/// How to read what a file does not say about itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Which exporter wrote a reference `.bin`; snapshots do not look at it.
    pub bin_layout: bin::BinLayout,
}

/// Maps the model at `path` and checks it: a folder is a snapshot, or a folder of the Hugging Face
/// cache with one in it; a file is a reference `.bin`.
///
/// Matrices stay in the file; norms, biases and sinks are read, and must be finite.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Weights, ModelError> {
    let path = locate(path)?;
    if path.is_dir() { snapshot::load(&path) } else { bin::load(&path, options.bin_layout) }
}
