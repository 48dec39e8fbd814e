//! Model files, sound and broken.

use std::path::PathBuf;

use super::*;

/// A reference model of `tests/data`.
fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name)
}

#[test]
fn both_goldens_load() {
    for name in ["tiny_bf16", "tiny_mxfp4"] {
        let weights = load(&data(name), &LoadOptions::default()).unwrap();
        assert_eq!(weights.config.vocab_size, 512);
        assert_eq!(weights.config.windowed_layers, 1);
        assert_eq!(weights.layers.len(), 2);
        let mxfp4 = matches!(weights.layers[1].down.weights, ExpertWeights::Mxfp4 { .. });
        assert_eq!(mxfp4, name == "tiny_mxfp4");
    }
}
