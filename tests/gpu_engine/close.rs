//! Whole models against f64 and against recorded logits.

use std::path::Path;
use std::sync::Arc;

use gptoss::engine::{Piece, Want};
use gptoss::golden::{self, Precision};
use gptoss::gpu::launch::linear::DenseFormat;
use gptoss::gpu_engine::GpuOptions;
use gptoss::model::{self, Dtype, LoadOptions, ModelConfig, Weights};
use oracle::basics::assert_same_bits;
use oracle::model::{BASE, ExpertFormat, Kv, as_mxint8, forward, forward_margins, random, tokens};

use super::{TOLERANCE, alone, dense_engine, engine_with, logits_of, options, pieces};
use crate::gpu::{devices, full};

/// BASE with every token visiting every expert: where bf16 cannot tip a choice between two of
/// them, every row has to be close.
const EVERY: ModelConfig = ModelConfig { num_experts_per_tok: 4, ..BASE };

fn heads(heads: usize, kv_heads: usize, head_dim: usize) -> ModelConfig {
    ModelConfig { num_attention_heads: heads, num_key_value_heads: kv_heads, head_dim, ..EVERY }
}

/// For each row, the norm of its errors over the norm of its logits.
pub(super) fn errors(found: &[f32], expected: &[Vec<f64>]) -> Vec<f64> {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let rows = found.chunks_exact(expected[0].len()).zip(expected);
    rows.map(|(found, expected)| {
        let error = norm(&mut found.iter().zip(expected).map(|(&a, b)| f64::from(a) - b));
        error / norm(&mut expected.iter().copied())
    })
    .collect()
}

fn row_errors(weights: Weights, len: usize) -> Vec<f64> {
    let tokens = tokens(&weights.config, len, 1);
    let expected = forward(&weights, &tokens, Kv::Bf16);
    let found = alone(&mut dense_engine(&Arc::new(weights), DenseFormat::Bf16), &tokens, 256);
    assert_eq!(found.len(), expected.concat().len());
    errors(&found, &expected)
}

#[track_caller]
fn assert_rows_close(case: &str, errors: &[f64]) {
    for (row, error) in errors.iter().enumerate() {
        assert!(*error <= TOLERANCE, "{case}: row {row} is off by {error:.2e}");
    }
}

#[test]
fn shapes_against_f64() {
    let five = ModelConfig {
        num_hidden_layers: 5,
        hidden_size: 96,
        intermediate_size: 160,
        vocab_size: 127,
        sliding_window: 15,
        ..EVERY
    };
    let window = |sliding_window| ModelConfig { sliding_window, ..EVERY };
    let one_expert = ModelConfig { num_local_experts: 1, num_experts_per_tok: 1, ..BASE };
    use ExpertFormat::{InOut, Mxfp4, OutIn};
    let cases = [
        ("groups of one, head_dim 64", heads(3, 3, 64), Dtype::Bf16, Mxfp4, 18),
        ("groups of three, odd KV heads", heads(9, 3, 32), Dtype::F32, OutIn(Dtype::F32), 17),
        ("groups of four", heads(4, 1, 64), Dtype::Bf16, Mxfp4, 19),
        ("groups of five", heads(5, 1, 32), Dtype::Bf16, Mxfp4, 13),
        ("groups of six", heads(6, 1, 64), Dtype::F32, Mxfp4, 11),
        ("groups of seven, bf16 experts", heads(7, 1, 32), Dtype::Bf16, InOut(Dtype::Bf16), 33),
        ("groups of eight, MXFP4", heads(8, 1, 64), Dtype::Bf16, Mxfp4, 40),
        ("one expert", one_expert, Dtype::Bf16, Mxfp4, 20),
        ("five layers, odd multiples of 32, prime vocabulary", five, Dtype::Bf16, Mxfp4, 70),
        ("window of one", window(1), Dtype::Bf16, Mxfp4, 9),
        ("window longer than the prompt, past a page", window(300), Dtype::Bf16, Mxfp4, 130),
        ("window of a page and one, past a split", window(65), Dtype::Bf16, Mxfp4, 140),
    ];
    for (case, config, dtype, format, len) in cases {
        assert_rows_close(case, &row_errors(random(&config, dtype, format, 1), len));
    }
}

/// A difference of router logits that bf16 activations do not bridge: they are off by less than
/// 2^-8 of values around one.
pub(super) const CLEAR: f64 = 0.02;

/// A near tie between two experts may be decided otherwise in bf16, which moves a whole row. Forty
/// sequences of one token see nobody else, so that every row whose experts are clearly chosen has
/// to be close.
#[test]
fn routing_against_f64() {
    for (count, top_k) in [(4, 2), (7, 3), (33, 2), (5, 4)] {
        let experts = ModelConfig { num_local_experts: count, num_experts_per_tok: top_k, ..BASE };
        let weights = random(&experts, Dtype::Bf16, ExpertFormat::Mxfp4, 1);
        let tokens = tokens(&experts, 40, 1);
        let exact: Vec<(Vec<Vec<f64>>, Vec<f64>)> =
            tokens.chunks(1).map(|one| forward_margins(&weights, one, Kv::Bf16)).collect();
        let mut engine = dense_engine(&Arc::new(weights), DenseFormat::Bf16);
        let pieces: Vec<Piece<'_>> = tokens
            .chunks(1)
            .map(|tokens| Piece { seq: engine.open(), tokens, want: Want::Logits })
            .collect();
        let outputs = engine.step(&pieces).expect("the step is valid");
        let mut clear = 0;
        for (row, (output, (exact, margins))) in outputs.into_iter().zip(exact).enumerate() {
            if margins[0] > CLEAR {
                clear += 1;
                let error = errors(&logits_of(output), &exact)[0];
                let case = format!("{top_k} of {count} experts");
                assert!(error <= TOLERANCE, "{case}: row {row} is off by {error:.2e}");
            }
        }
        assert!(clear >= 20, "{top_k} of {count} experts: only {clear} rows are clearly chosen");
    }
}

/// bf16 holds every MXINT8 value and both formats go through the same products, so a model in
/// MXINT8 computes what the same values in bf16 do, bit for bit; and those must be close to f64.
#[test]
fn q8_computes_the_rounded_model() {
    let odd = ModelConfig { hidden_size: 96, vocab_size: 127, ..heads(5, 1, 64) };
    for (case, config) in [("groups of two", EVERY), ("odd multiples of 32", odd)] {
        let weights = random(&config, Dtype::Bf16, ExpertFormat::Mxfp4, 7);
        let rounded = as_mxint8(&weights);
        let (weights, same) = (Arc::new(weights), Arc::new(rounded.clone()));
        let prompt = tokens(&config, 95, 7);
        // As many rows as each of the kernels of a dense product takes.
        let lens = || [70, 20, 1, 1, 3];
        let q8 = pieces(&mut dense_engine(&weights, DenseFormat::Mxint8), &prompt, lens());
        let bf16 = pieces(&mut dense_engine(&same, DenseFormat::Bf16), &prompt, lens());
        assert_same_bits(case, &q8, &bf16);
        assert_rows_close(case, &errors(&q8, &forward(&rounded, &prompt, Kv::Bf16)));
        let plain = pieces(&mut dense_engine(&weights, DenseFormat::Bf16), &prompt, lens());
        assert!(plain != q8, "{case}: MXINT8 must round something");
    }
}

#[test]
fn goldens_pass() {
    let short = ["wide_groups", "groups_of_one", "groups_of_five", "groups_of_six"];
    // With every checker on these take a minute.
    let long = ["tiny_bf16", "tiny_mxfp4", "five_layers", "groups_of_eight", "long_prompt"];
    for model in short.into_iter().chain(long.into_iter().filter(|_| full())) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(model);
        let weights = model::load(&dir, &LoadOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        let golden = golden::read(&dir, weights.config.vocab_size).expect(model);
        let options = GpuOptions { max_positions: 768, ..options(256) };
        let mut engine = engine_with(&devices()[0], &Arc::new(weights), options);
        let mut report = Vec::new();
        let pass =
            golden::run(&golden, engine.engine_mut(), Precision::Bf16, &mut report).expect(model);
        assert!(pass, "{model}: {}", String::from_utf8_lossy(&report));
    }
}
