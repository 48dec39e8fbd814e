//! Snapshots of models that no engine runs as they are: the loader pads their widths, and binary16
//! is read as it is. What the engine computes is compared with f64 at the widths of the files.

use std::path::Path;
use std::sync::Arc;

use gptoss::cpu::{CpuEngine, CpuOptions, Isa, KvDtype};
use gptoss::engine::{ByHand, Engine, Output, Piece, Want};
use gptoss::gpu_engine::{GpuEngine, GpuOptions};
use gptoss::model::{self, Dtype, ExpertWeights, LoadOptions, Matrix, ModelConfig, Weights};
use oracle::model::{BASE, ExpertFormat, Kv, forward, random, tokens};
use safetensors::tensor::{Dtype as StDtype, TensorView};
use serde_json::json;

use crate::gpu::{devices, kernels_folder};

/// A tensor to be written.
struct Entry {
    name: String,
    dtype: StDtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn stored(dtype: Dtype) -> StDtype {
    match dtype {
        Dtype::F32 => StDtype::F32,
        Dtype::Bf16 => StDtype::BF16,
        Dtype::F16 => StDtype::F16,
    }
}

fn matrix(name: &str, m: &Matrix) -> Entry {
    let shape = vec![m.rows, m.cols];
    Entry { name: name.to_owned(), dtype: stored(m.dtype), shape, bytes: m.data.to_vec() }
}

fn vector(name: String, shape: &[usize], values: &[f32]) -> Entry {
    let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    Entry { name, dtype: StDtype::F32, shape: shape.to_vec(), bytes }
}

/// Every tensor under its Hugging Face name.
fn entries(weights: &Weights) -> Vec<Entry> {
    let mut all = vec![
        matrix("model.embed_tokens.weight", &weights.embedding),
        matrix("lm_head.weight", &weights.unembedding),
        vector("model.norm.weight".to_owned(), &[weights.norm.len()], &weights.norm),
    ];
    for (l, layer) in weights.layers.iter().enumerate() {
        let of = |part: &str| format!("model.layers.{l}.{part}");
        let linears = [
            ("self_attn.q_proj", &layer.q),
            ("self_attn.k_proj", &layer.k),
            ("self_attn.v_proj", &layer.v),
            ("self_attn.o_proj", &layer.o),
            ("mlp.router", &layer.router),
        ];
        for (part, linear) in linears {
            all.push(matrix(&of(&format!("{part}.weight")), &linear.weight));
            all.push(vector(of(&format!("{part}.bias")), &[linear.bias.len()], &linear.bias));
        }
        for (part, values) in [
            ("input_layernorm.weight", &layer.attn_norm),
            ("post_attention_layernorm.weight", &layer.mlp_norm),
            ("self_attn.sinks", &layer.sinks),
        ] {
            all.push(vector(of(part), &[values.len()], values));
        }
        for (part, experts) in [("gate_up_proj", &layer.gate_up), ("down_proj", &layer.down)] {
            let ExpertWeights::InOut(dtype, data) = &experts.weights else {
                panic!("experts of Hugging Face lie [in, out]")
            };
            let name = of(&format!("mlp.experts.{part}"));
            let bias =
                vector(format!("{name}_bias"), &[experts.count, experts.rows], &experts.bias);
            let shape = vec![experts.count, experts.cols, experts.rows];
            all.push(Entry { name, dtype: stored(*dtype), shape, bytes: data.to_vec() });
            all.push(bias);
        }
    }
    all
}

fn config(c: &ModelConfig) -> serde_json::Value {
    let windowed = |l| c.window(l).is_some();
    let kind = |l| if windowed(l) { "sliding_attention" } else { "full_attention" };
    json!({
        "model_type": "gpt_oss", "vocab_size": c.vocab_size, "hidden_size": c.hidden_size,
        "num_hidden_layers": c.num_hidden_layers, "head_dim": c.head_dim,
        "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads,
        "intermediate_size": c.intermediate_size, "num_local_experts": c.num_local_experts,
        "num_experts_per_tok": c.num_experts_per_tok, "sliding_window": c.sliding_window,
        "max_position_embeddings": c.max_position_embeddings, "rms_norm_eps": 1e-5,
        "layer_types": (0..c.num_hidden_layers).map(kind).collect::<Vec<_>>(),
    })
}

fn write(weights: &Weights, dir: &Path) {
    let entries = entries(weights);
    let views = entries.iter().map(|e| {
        (&e.name, TensorView::new(e.dtype, e.shape.clone(), &e.bytes).expect("a sound tensor"))
    });
    let file = safetensors::serialize(views, None).expect("a sound file");
    std::fs::write(dir.join("model.safetensors"), file).expect("room in the folder");
    let config = config(&weights.config).to_string();
    std::fs::write(dir.join("config.json"), config).expect("room in the folder");
}

/// Logits of every position from the snapshot of `weights`, and the widths the engine saw.
fn from_snapshot(weights: &Weights, tokens: &[u32], isa: Isa) -> (Vec<f32>, [usize; 2]) {
    let dir = tempfile::tempdir().expect("a folder");
    write(weights, dir.path());
    let read = model::load(dir.path(), &LoadOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let widths = [read.config.hidden_size, read.config.intermediate_size];
    let options = CpuOptions { threads: 2, isa, kv: KvDtype::F32, ..CpuOptions::default() };
    let engine = CpuEngine::new(Arc::new(read), options).expect("the model can be run");
    (logits(engine, tokens), widths)
}

fn logits(engine: impl Engine, tokens: &[u32]) -> Vec<f32> {
    let mut engine = ByHand::new(engine);
    let seq = engine.open();
    let piece = Piece { seq, tokens, want: Want::Logits };
    match engine.step(&[piece]).expect("the step is valid").remove(0) {
        Output::Logits(logits) => logits,
        other => panic!("asked for logits, got {other:?}"),
    }
}

#[test]
fn widths_and_dtypes_of_any_kind_against_f64() {
    let sizes = |hidden, inner| ModelConfig {
        hidden_size: hidden,
        intermediate_size: inner,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        ..BASE
    };
    for (name, config, dtype, expected_widths) in [
        ("hidden 8", sizes(8, 32), Dtype::Bf16, [32, 32]),
        ("hidden 24, inner 40", sizes(24, 40), Dtype::F32, [32, 64]),
        ("hidden 33, inner 1", sizes(33, 1), Dtype::F16, [64, 32]),
        ("binary16", sizes(64, 96), Dtype::F16, [64, 96]),
    ] {
        let weights = random(&config, dtype, ExpertFormat::InOut(dtype), 3);
        let tokens = tokens(&config, 23, 1);
        let expected = forward(&weights, &tokens, Kv::Exact).concat();
        let scale = expected.iter().fold(0f64, |m, x| m.max(x.abs()));
        for isa in [Isa::Auto, Isa::Portable] {
            let (found, widths) = from_snapshot(&weights, &tokens, isa);
            assert_eq!(widths, expected_widths, "{name}");
            assert_eq!(found.len(), expected.len(), "{name}");
            let worst = found.iter().zip(&expected).map(|(&f, e)| (f64::from(f) - e).abs());
            let worst = worst.fold(0.0, f64::max) / scale;
            // 13 sums deep, each within k / 16 + 5 roundings of its size for k of at most 96; one
            // rounding more for each of the five padded norms.
            let tolerance = (13 * (96 / 16 + 5) + 5) as f64 * f64::from(f32::EPSILON) / 2.0;
            assert!(worst <= tolerance, "{name}: off by {worst:.2e}, allowed {tolerance:.2e}");
        }
    }
}

/// Every row, in the norm of its logits: as close as `gptoss golden` asks of bf16 activations.
#[test]
fn padded_models_on_a_gpu_against_f64() {
    let config = ModelConfig {
        hidden_size: 24,
        intermediate_size: 40,
        num_experts_per_tok: BASE.num_local_experts,
        ..BASE
    };
    for dtype in [Dtype::Bf16, Dtype::F16] {
        let weights = random(&config, dtype, ExpertFormat::InOut(dtype), 3);
        let tokens = tokens(&config, 23, 1);
        let expected = forward(&weights, &tokens, Kv::Bf16);
        let dir = tempfile::tempdir().expect("a folder");
        write(&weights, dir.path());
        let read = model::load(dir.path(), &LoadOptions::default());
        let read = Arc::new(read.unwrap_or_else(|e| panic!("{e}")));
        let options = GpuOptions {
            max_sequences: 1,
            max_positions: 64,
            kernels: Some(kernels_folder()),
            ..GpuOptions::default()
        };
        let engine = GpuEngine::new(&devices()[0], &read, options, |_, _| {})
            .unwrap_or_else(|e| panic!("{e}"));
        let found = logits(engine, &tokens);
        for (row, (found, expected)) in found.chunks(config.vocab_size).zip(&expected).enumerate() {
            let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
            let error = norm(&mut found.iter().zip(expected).map(|(&f, e)| f64::from(f) - e));
            let error = error / norm(&mut expected.iter().copied());
            assert!(error <= 2e-2, "{dtype:?}: row {row} is off by {error:.2e}");
        }
    }
}
