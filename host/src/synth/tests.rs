//! Synthetic models: what is written is what is promised.

use super::*;
use crate::model::{ExpertWeights, LoadOptions, load};

/// Nano with a vocabulary fit for a test.
fn small(seed: u64) -> Options {
    let mut options = Options::new(Preset::Nano, seed);
    options.config.vocab_size = 1000;
    options
}

fn write(options: &Options) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model");
    run(options, &out, &ProgressBar::hidden(), &|| false).unwrap();
    (dir, out)
}

/// All bytes of a model, tensor after tensor.
fn bytes(weights: &Weights) -> Vec<Vec<u8>> {
    let mut all = vec![weights.embedding.data.to_vec(), weights.unembedding.data.to_vec()];
    all.push(bytemuck::cast_slice(&weights.norm).to_vec());
    for layer in &weights.layers {
        for linear in [&layer.q, &layer.k, &layer.v, &layer.o, &layer.router] {
            all.push(linear.weight.data.to_vec());
            all.push(bytemuck::cast_slice(&linear.bias).to_vec());
        }
        for experts in [&layer.gate_up, &layer.down] {
            all.push(bytemuck::cast_slice(&experts.bias).to_vec());
            match &experts.weights {
                ExpertWeights::Mxfp4 { blocks, scales } => {
                    all.extend([blocks.to_vec(), scales.to_vec()]);
                }
                ExpertWeights::OutIn(_, data) | ExpertWeights::InOut(_, data) => {
                    all.push(data.to_vec());
                }
            }
        }
        for vector in [&layer.attn_norm, &layer.mlp_norm, &layer.sinks] {
            all.push(bytemuck::cast_slice(vector).to_vec());
        }
    }
    all
}

#[test]
fn a_snapshot_loads_and_equals_the_model_in_memory() {
    for (experts, dense) in [
        (ExpertFormat::Mxfp4, Dtype::Bf16),
        (ExpertFormat::Bf16, Dtype::Bf16),
        (ExpertFormat::Mxfp4, Dtype::F32),
        (ExpertFormat::Mxfp4, Dtype::F16),
    ] {
        let options = Options { experts, dense, ..small(1) };
        let (_guard, out) = write(&options);
        let loaded = load(&out, &LoadOptions::default()).unwrap();
        assert_eq!(loaded.config, options.config);
        assert_eq!(bytes(&loaded), bytes(&in_memory(&options).unwrap()));
    }
}

#[test]
fn shards_do_not_change_the_model() {
    let one = small(2);
    let many = Options { shard_bytes: 100_000, ..one.clone() };
    let (_guard, out) = write(&many);
    assert!(out.join("model.safetensors.index.json").is_file());
    assert!(!out.join("model.safetensors").exists());
    let loaded = load(&out, &LoadOptions::default()).unwrap();
    assert_eq!(bytes(&loaded), bytes(&in_memory(&one).unwrap()));
}

#[test]
fn the_seed_alone_decides() {
    let [a, b] = [3, 4].map(|seed| bytes(&in_memory(&small(seed)).unwrap()));
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(a, one_thread.install(|| bytes(&in_memory(&small(3)).unwrap())));
    for (a, b) in a.iter().zip(&b) {
        assert_ne!(a, b);
    }
}

#[test]
fn numbers_have_the_promised_mean_and_deviation() {
    let dtype = StDtype::F32;
    let count = 1 << 16;
    let fill = Fill::Normal { mean: 1.0, std: 0.5 };
    let spec = Spec::new(String::new(), dtype, &[count], fill);
    let mut out = vec![0xff; spec.bytes as usize];
    spec.fill(5, 0, 0, &mut out);
    let values = shards::to_f32(Dtype::F32, &out);
    let n = count as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
    // Five standard errors: of the mean std / sqrt(n), of the deviation std / sqrt(2 n).
    assert!((mean - 1.0).abs() < 5.0 * 0.5 / n.sqrt(), "{mean}");
    assert!((variance.sqrt() - 0.5).abs() < 5.0 * 0.5 / (2.0 * n).sqrt(), "{variance}");
}

#[test]
fn a_chunk_is_the_same_alone_and_within_its_tensor() {
    for (dtype, fill) in [
        (StDtype::BF16, Fill::Normal { mean: 0.0, std: 1.0 }),
        (StDtype::F32, Fill::Normal { mean: 0.0, std: 1.0 }),
        (StDtype::U8, Fill::Codes),
        (StDtype::U8, Fill::Scales { low: 100 }),
    ] {
        let elements = (CHUNK + 12) * 8 / dtype.bitsize();
        let spec = Spec::new(String::new(), dtype, &[elements], fill);
        let mut whole = vec![0; spec.bytes as usize];
        spec.fill(6, 2, 0, &mut whole);
        let mut tail = vec![0; 12];
        spec.fill(6, 2, CHUNK as u64, &mut tail);
        assert_eq!(whole[CHUNK..], tail, "{dtype:?}");
    }
}

#[test]
fn an_occupied_folder_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("keep"), "x").unwrap();
    let error = run(&small(1), dir.path(), &ProgressBar::hidden(), &|| false).unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn an_unwritable_place_is_named_and_nothing_stays() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = run(&small(1), &file.join("model"), &ProgressBar::hidden(), &|| false).unwrap_err();
    assert!(error.to_string().contains("file"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn published_sizes() {
    let total =
        |preset| -> u64 { specs(&Options::new(preset, 0)).iter().map(|spec| spec.bytes).sum() };
    // metadata.total_size of the published indexes.
    assert_eq!(total(Preset::B20), 13_761_264_768);
    assert_eq!(total(Preset::B120), 65_248_815_744);
    assert!(total(Preset::Nano) < 60_000_000);
}

#[test]
fn nano_is_the_preset() {
    let weights = nano();
    assert_eq!(weights.config, Preset::Nano.config());
    assert_eq!(weights.layers.len(), 4);
}

#[test]
fn an_interrupted_model_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model");
    let error = run(&small(1), &out, &ProgressBar::hidden(), &|| true).unwrap_err();
    assert!(error.to_string().ends_with("model: interrupted, nothing was written"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
