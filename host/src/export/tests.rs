//! `.bin` files: the same weights come back, in every layout.

use std::path::PathBuf;

use super::*;
use crate::model::bin::BinLayout;
use crate::model::{LoadOptions, load};
use crate::synth;

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name)
}

fn snapshot(name: &str) -> Weights {
    load(&data(name), &LoadOptions::default()).unwrap()
}

fn export(weights: &Weights) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.bin");
    run(weights, &out, &ProgressBar::hidden(), &|| false).unwrap();
    (dir, out)
}

fn read(path: &Path, bin_layout: BinLayout) -> Weights {
    load(path, &LoadOptions { bin_layout }).unwrap()
}

/// Every value of the model, part after part, in the order of the file.
fn values(weights: &Weights) -> Vec<Vec<f32>> {
    jobs(weights)
        .into_iter()
        .map(|job| {
            let mut values = vec![f32::NAN; job.rows.len() * job.part.shape()[1]];
            job.part.decode(job.rows, &mut values);
            values
        })
        .collect()
}

/// A model whose every dimension is another, and not square anywhere.
fn lopsided() -> Weights {
    let mut options = synth::Options::new(synth::Preset::Nano, 11);
    options.experts = synth::ExpertFormat::Bf16;
    let c = &mut options.config;
    (c.vocab_size, c.hidden_size, c.intermediate_size) = (300, 96, 64);
    (c.num_hidden_layers, c.num_local_experts, c.num_experts_per_tok) = (3, 5, 2);
    (c.num_attention_heads, c.num_key_value_heads, c.head_dim) = (6, 2, 10);
    c.windowed_layers = config::alternating(3);
    synth::in_memory(&options).unwrap()
}

#[test]
fn a_bin_read_back_equals_its_source() {
    for weights in [snapshot("tiny_mxfp4"), snapshot("tiny_bf16"), lopsided()] {
        let (_guard, out) = export(&weights);
        let back = read(&out, BinLayout::Ups);
        assert_eq!(back.config, weights.config);
        assert_eq!(values(&back), values(&weights));
        let size = std::fs::metadata(&out).unwrap().len();
        assert_eq!(size, bin::file_bytes(&weights.config));
    }
}

#[test]
fn values_are_those_of_an_independent_decoder() {
    // Element (expert 3, output 77, input 70) of the second product, taken from the file by hand.
    let weights = snapshot("tiny_mxfp4");
    let crate::model::ExpertWeights::Mxfp4 { blocks, scales } = &weights.layers[1].down.weights
    else {
        panic!("tiny_mxfp4 holds MXFP4");
    };
    let block = (3 * 128 + 77) * 4 + 2;
    let byte = blocks[block * 16 + 3];
    let scale = f32::powi(2.0, i32::from(scales[block]) - 127);
    let magnitude = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0][usize::from(byte & 7)];
    let sign = if byte & 8 == 0 { 1.0 } else { -1.0 };
    let mut row = [f32::NAN; 128];
    weights.layers[1].down.decode_rows(3 * 128 + 77..3 * 128 + 78, &mut row);
    assert_eq!(row[70], sign * magnitude * scale);
}

/// Rewrites `section` of the file through `change`, which gets one layer's elements at a time.
fn rewrite(path: &Path, config: &ModelConfig, section: Section, change: impl Fn(&mut [[u8; 4]])) {
    let mut bytes = std::fs::read(path).unwrap();
    let before: usize = Section::ALL
        .iter()
        .take_while(|&&s| s != section)
        .map(|s| s.count(config) * s.elements(config))
        .sum();
    let elements = section.elements(config);
    for layer in 0..section.count(config) {
        let start = bin::HEADER_BYTES + 4 * (before + layer * elements);
        change(bytes[start..start + 4 * elements].as_chunks_mut().0);
    }
    std::fs::write(path, bytes).unwrap();
}

/// Transposes each of the `[rows, cols]` matrices in `elements`.
fn transpose(elements: &mut [[u8; 4]], rows: usize, cols: usize) {
    for matrix in elements.chunks_mut(rows * cols) {
        let old = matrix.to_vec();
        for (index, value) in old.iter().enumerate() {
            matrix[index % cols * rows + index / cols] = *value;
        }
    }
}

#[test]
fn the_lhl_layout_is_undone() {
    let weights = lopsided();
    let c = &weights.config;
    let (_guard, out) = export(&weights);
    let (e, h, i) = (c.num_local_experts, c.hidden_size, c.intermediate_size);
    rewrite(&out, c, Section::Router, |elements| transpose(elements, e, h));
    rewrite(&out, c, Section::Down, |elements| transpose(elements, h, i));
    assert_ne!(values(&read(&out, BinLayout::Ups)), values(&weights));
    let fixed = read(&out, BinLayout::Lhl);
    assert_eq!(values(&fixed), values(&weights));

    // Exporting it again gives a file that needs no switch.
    let (_guard, out) = export(&fixed);
    assert_eq!(values(&read(&out, BinLayout::Ups)), values(&weights));
}

#[test]
fn the_swapped_layout_exchanges_the_embeddings() {
    let mut weights = snapshot("tiny_bf16");
    let (_guard, out) = export(&weights);
    let swapped = read(&out, BinLayout::Swapped);
    std::mem::swap(&mut weights.embedding, &mut weights.unembedding);
    assert_eq!(values(&swapped), values(&weights));
}

#[test]
fn the_published_sizes() {
    assert_eq!(bin::file_bytes(&synth::Preset::B20.config()), 83_659_028_796);
    assert_eq!(bin::file_bytes(&synth::Preset::B120.config()), 467_316_626_748);
}

#[test]
fn a_model_the_format_cannot_express_is_refused() {
    type Change = fn(&mut ModelConfig);
    let changes: [(&str, Change); 7] = [
        ("truncate is true", |c| c.rope.truncate = true),
        ("attention_factor is 1,", |c| c.rope.attention_factor = Some(1.0)),
        ("rms_norm_eps is 0.000001", |c| c.rms_norm_eps = 1e-6),
        ("beta_fast is 64", |c| c.rope.beta_fast = 64.0),
        ("beta_slow is 2", |c| c.rope.beta_slow = 2.0),
        ("windowed layers", |c| c.windowed_layers = 0),
        ("max_position_embeddings is 4294967296", |c| c.max_position_embeddings = 1 << 32),
    ];
    for (expected, change) in changes {
        let mut weights = snapshot("tiny_bf16");
        change(&mut weights.config);
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("model.bin");
        let error = run(&weights, &out, &ProgressBar::hidden(), &|| false).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_weight_that_is_not_finite_leaves_no_file() {
    let mut weights = snapshot("tiny_mxfp4");
    let crate::model::ExpertWeights::Mxfp4 { scales, .. } = &mut weights.layers[1].gate_up.weights
    else {
        panic!("tiny_mxfp4 holds MXFP4");
    };
    let mut bytes = scales.to_vec();
    bytes[100] = 255;
    let range = 0..bytes.len();
    let store = std::sync::Arc::new(crate::model::Store::Owned(bytes));
    *scales = crate::model::Bytes::new(store, range).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.bin");
    let error = run(&weights, &out, &ProgressBar::hidden(), &|| false).unwrap_err().to_string();
    assert!(error.contains("mlp1 of layer 1"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn an_unwritable_path_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let weights = snapshot("tiny_bf16");
    let gone = dir.path().join("gone/model.bin");
    for path in [gone.as_path(), dir.path()] {
        let error = run(&weights, path, &ProgressBar::hidden(), &|| false).unwrap_err().to_string();
        assert!(error.contains(dir.path().to_str().unwrap()), "{error}");
    }
}

#[test]
fn what_is_no_regular_file_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let weights = snapshot("tiny_bf16");
    let [link, behind] = ["link", "behind"].map(|name| dir.path().join(name));
    std::fs::write(&behind, "old").unwrap();
    std::os::unix::fs::symlink(&behind, &link).unwrap();
    for (path, kind) in [
        (link.as_path(), "is a symbolic link to"),
        (Path::new("/dev/null"), "is a character device"),
        (dir.path(), "is a folder"),
    ] {
        let error = run(&weights, path, &ProgressBar::hidden(), &|| false).unwrap_err().to_string();
        assert!(error.contains(kind), "{error}");
    }
    assert_eq!(std::fs::read(&behind).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn keys_are_listed_with_dtype_and_shape() {
    let mut text = Vec::new();
    print_keys(&data("tiny_mxfp4"), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.lines().count(), 41);
    let line = "model.layers.1.mlp.experts.down_proj_scales U8 [8, 128, 4]";
    assert!(text.lines().any(|l| l == line), "{text}");
}

#[test]
fn a_bin_read_back_gives_the_same_logits() {
    use crate::cpu::{CpuEngine, CpuOptions, KvDtype};
    use crate::engine::{ByHand, Output, Piece, Want};

    let logits = |weights: Weights| {
        let options = CpuOptions { kv: KvDtype::F32, ..CpuOptions::default() };
        let engine = CpuEngine::new(std::sync::Arc::new(weights), options).unwrap();
        let mut engine = ByHand::new(engine);
        let tokens: Vec<u32> = (0..150).map(|i| i * 37 % 512).collect();
        let seq = engine.open();
        let piece = Piece { seq, tokens: &tokens, want: Want::Logits };
        match engine.step(&[piece]).unwrap().pop() {
            Some(Output::Logits(logits)) => logits,
            other => panic!("{other:?}"),
        }
    };
    for name in ["tiny_mxfp4", "tiny_bf16"] {
        let (_guard, out) = export(&snapshot(name));
        let (expected, got) = (logits(snapshot(name)), logits(read(&out, BinLayout::Ups)));
        assert_eq!(got.len(), 150 * 512);
        assert!(expected.iter().all(|l| l.is_finite()));
        // The weights are equal, as another test says; the engine adds products of MXFP4 and of
        // f32 in another order, so what is left is rounding, some 3e-5 on logits of this size.
        let worst = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(got.iter().all(|l| l.is_finite()) && worst <= 1e-4, "{name}: {worst}");
    }
}

#[test]
fn an_interrupted_export_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.bin");
    std::fs::write(&out, "old").unwrap();
    let error = run(&snapshot("tiny_bf16"), &out, &ProgressBar::hidden(), &|| true).unwrap_err();
    assert!(error.to_string().ends_with("interrupted, nothing was written"), "{error}");
    assert_eq!(std::fs::read(&out).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
