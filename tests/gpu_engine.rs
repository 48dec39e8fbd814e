//! The GPU engine against the f64 model, and against itself bit for bit.

use std::path::Path;
use std::sync::Arc;

use gptoss::engine::{Chunk, Engine, EngineError, Output, Sampling, SeqId, Want};
use gptoss::golden::{self, Precision};
use gptoss::gpu::Device;
use gptoss::gpu_engine::{GpuEngine, GpuOptions};
use gptoss::model::{self, Dtype, LoadOptions, ModelConfig, Rope, Weights};
use oracle::model::{ExpertFormat, Kv, forward, random};

use crate::gpu::{devices, kernels_folder};

const BASE: ModelConfig = ModelConfig {
    vocab_size: 61,
    hidden_size: 64,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 32,
    intermediate_size: 32,
    num_local_experts: 4,
    num_experts_per_tok: 2,
    sliding_window: 5,
    windowed_layers: 0b1_0101,
    max_position_embeddings: 4096,
    rope: Rope {
        theta: 150_000.0,
        factor: 32.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_context: 4096,
    },
    rms_norm_eps: 1e-5,
    swiglu_limit: 7.0,
};

/// Norm of the errors over the norm of the logits, as `gptoss golden` allows bf16 activations.
const TOLERANCE: f64 = 2e-2;

fn engine(device: &Device, weights: &Arc<Weights>, max_step_tokens: usize) -> GpuEngine {
    let options = GpuOptions {
        max_sequences: 64,
        max_positions: 512,
        max_step_tokens,
        kernels: Some(kernels_folder()),
        ..GpuOptions::default()
    };
    GpuEngine::new(device, weights, options, |_, _| {}).unwrap_or_else(|e| panic!("{e}"))
}

fn tokens(config: &ModelConfig, len: usize, seed: usize) -> Vec<u32> {
    (0..len).map(|i| ((i * 7919 + 13 * seed) % config.vocab_size) as u32).collect()
}

fn logits_of(output: Output) -> Vec<f32> {
    match output {
        Output::Logits(logits) => logits,
        other => panic!("asked for logits, got {other:?}"),
    }
}

/// Logits of every position, the prompt given in pieces of `chunk`.
fn alone(engine: &mut GpuEngine, tokens: &[u32], chunk: usize) -> Vec<f32> {
    let seq = engine.open(tokens.len()).expect("there is room");
    let mut logits = Vec::new();
    for tokens in tokens.chunks(chunk) {
        let chunk = Chunk { seq, tokens, want: Want::Logits };
        logits.extend(logits_of(engine.step(&[chunk]).expect("the step is valid").remove(0)));
    }
    engine.close(seq);
    logits
}

fn assert_same_bits(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let differ = found.iter().zip(expected).position(|(a, b)| a.to_bits() != b.to_bits());
    if let Some(i) = differ {
        panic!("{what}: element {i} is {}, expected {}", found[i], expected[i]);
    }
}

/// BASE with every token visiting every expert: where bf16 cannot tip a choice between two of
/// them, every row has to be close.
const EVERY: ModelConfig = ModelConfig { num_experts_per_tok: 4, ..BASE };

/// For each row, the norm of its errors over the norm of its logits.
fn row_errors(config: &ModelConfig, dtype: Dtype, format: ExpertFormat, len: usize) -> Vec<f64> {
    let weights = Arc::new(random(config, dtype, format, 1));
    let tokens = tokens(config, len, 1);
    let found = alone(&mut engine(&devices()[0], &weights, 256), &tokens, 256);
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let rows = found.chunks_exact(config.vocab_size).zip(forward(&weights, &tokens, Kv::Bf16));
    rows.map(|(found, expected)| {
        let error = norm(&mut found.iter().zip(&expected).map(|(&a, b)| f64::from(a) - b));
        error / norm(&mut expected.into_iter())
    })
    .collect()
}

#[test]
fn shapes_against_f64() {
    let heads = |heads, kv_heads, head_dim| ModelConfig {
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim,
        ..EVERY
    };
    let five = ModelConfig {
        num_hidden_layers: 5,
        hidden_size: 96,
        intermediate_size: 160,
        vocab_size: 127,
        sliding_window: 15,
        ..EVERY
    };
    let window = |sliding_window| ModelConfig { sliding_window, ..EVERY };
    use ExpertFormat::{InOut, Mxfp4, OutIn};
    let cases = [
        ("groups of eight, MXFP4", heads(8, 1, 64), Dtype::Bf16, Mxfp4, 40),
        ("groups of one, head_dim 64", heads(3, 3, 64), Dtype::Bf16, Mxfp4, 18),
        ("groups of three, odd KV heads", heads(9, 3, 32), Dtype::F32, OutIn(Dtype::F32), 17),
        ("groups of seven, bf16 experts", heads(7, 1, 32), Dtype::Bf16, InOut(Dtype::Bf16), 33),
        ("five layers, odd multiples of 32, prime vocabulary", five, Dtype::Bf16, Mxfp4, 70),
        ("window of one", window(1), Dtype::Bf16, Mxfp4, 9),
        ("window longer than the prompt, past a page", window(300), Dtype::Bf16, Mxfp4, 130),
        ("window of a page and one, past a split", window(65), Dtype::Bf16, Mxfp4, 140),
    ];
    for (case, config, dtype, format, len) in cases {
        for (row, error) in row_errors(&config, dtype, format, len).into_iter().enumerate() {
            assert!(error <= TOLERANCE, "{case}: row {row} is off by {error:.2e}");
        }
    }
}

/// A near tie between two experts may be decided otherwise in bf16, which moves a whole row: here
/// most rows have to be close.
#[test]
fn routing_against_f64() {
    for (count, top_k) in [(1, 1), (4, 2), (7, 3), (33, 2)] {
        let experts = ModelConfig { num_local_experts: count, num_experts_per_tok: top_k, ..BASE };
        let mut errors = row_errors(&experts, Dtype::Bf16, ExpertFormat::Mxfp4, 40);
        errors.sort_by(f64::total_cmp);
        let median = errors[errors.len() / 2];
        assert!(
            median <= TOLERANCE,
            "{top_k} of {count} experts: the median row is off by {median:.2e}"
        );
    }
}

#[test]
fn goldens_pass() {
    // With every checker on, the two from transformers take a minute.
    let full = std::env::var_os("GPTOSS_TEST_FULL").is_some();
    let long = ["tiny_bf16", "tiny_mxfp4"].into_iter().filter(|_| full);
    for model in ["five_layers", "wide_groups"].into_iter().chain(long) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(model);
        let weights = model::load(&dir, &LoadOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        let golden = golden::read(&dir, weights.config.vocab_size).expect(model);
        let mut engine = engine(&devices()[0], &Arc::new(weights), 256);
        let mut report = Vec::new();
        let pass = golden::run(&golden, &mut engine, Precision::Bf16, &mut report).expect(model);
        assert!(pass, "{model}: {}", String::from_utf8_lossy(&report));
    }
}

#[test]
fn neither_chunks_nor_devices_change_a_bit() {
    let weights = Arc::new(random(&BASE, Dtype::Bf16, ExpertFormat::Mxfp4, 2));
    let prompt = tokens(&BASE, 131, 3);
    let mut first = engine(&devices()[0], &weights, 256);
    let whole = alone(&mut first, &prompt, prompt.len());
    for chunk in [7, 64] {
        let what = format!("chunks of {chunk}");
        assert_same_bits(&alone(&mut first, &prompt, chunk), &whole, &what);
    }
    let (start, vocab) = (&prompt[..70], BASE.vocab_size);
    assert_same_bits(&alone(&mut first, start, 1), &whole[..70 * vocab], "chunks of 1");
    if let Some(second) = devices().get(1) {
        let found = alone(&mut engine(second, &weights, 256), &prompt, 64);
        assert_same_bits(&found, &whole, "a second device");
    }
}

#[test]
fn sixty_three_neighbours_do_not_change_a_bit() {
    let weights = Arc::new(random(&BASE, Dtype::Bf16, ExpertFormat::Mxfp4, 4));
    let mut engine = engine(&devices()[0], &weights, 512);
    let lens: Vec<usize> = (0..64).map(|i| 2 + i % 9).collect();
    let prompts: Vec<Vec<u32>> =
        lens.iter().enumerate().map(|(i, &len)| tokens(&BASE, len, i)).collect();
    let seqs: Vec<SeqId> =
        prompts.iter().map(|p| engine.open(p.len()).expect("there is room")).collect();
    let mut found: Vec<Vec<f32>> = vec![Vec::new(); 64];
    // All but the last token as prefill, then one step of 64 decoding rows.
    for decode in [false, true] {
        let part = |p: &[u32]| if decode { p.len() - 1..p.len() } else { 0..p.len() - 1 };
        let chunks: Vec<Chunk<'_>> = seqs
            .iter()
            .zip(&prompts)
            .map(|(&seq, prompt)| Chunk { seq, tokens: &prompt[part(prompt)], want: Want::Logits })
            .collect();
        let outputs = engine.step(&chunks).expect("the step is valid");
        found.iter_mut().zip(outputs).for_each(|(to, output)| to.extend(logits_of(output)));
    }
    seqs.into_iter().for_each(|seq| engine.close(seq));
    for which in [0, 8, 63] {
        let expected = alone(&mut engine, &prompts[which], 256);
        assert_same_bits(&found[which], &expected, &format!("sequence {which} among 63"));
    }
}

#[test]
fn greedy_tokens_are_those_of_the_largest_logits() {
    let weights = Arc::new(random(&BASE, Dtype::Bf16, ExpertFormat::Mxfp4, 5));
    let mut engine = engine(&devices()[0], &weights, 256);
    let prompt = tokens(&BASE, 20, 5);
    let logits = alone(&mut engine, &prompt, 20);
    let last = &logits[19 * BASE.vocab_size..];
    let expected = gptoss::sampling::argmax(last).expect("finite logits") as u32;
    for temperature in [0.0, 0.8] {
        let sampling = Sampling { temperature, top_p: 0.9, seed: 7 };
        let seq = engine.open(20).expect("there is room");
        let chunk = Chunk { seq, tokens: &prompt, want: Want::Token(sampling) };
        let found = engine.step(&[chunk]).expect("the step is valid").remove(0);
        let expected = match temperature {
            0.0 => expected,
            _ => gptoss::sampling::sample(last, &sampling, 20).expect("finite logits"),
        };
        assert_eq!(found, Output::Token(expected), "temperature {temperature}");
        engine.close(seq);
    }
}

#[test]
fn a_refused_step_changes_nothing() {
    let weights = Arc::new(random(&BASE, Dtype::Bf16, ExpertFormat::Mxfp4, 6));
    let mut engine = engine(&devices()[0], &weights, 256);
    let prompt = tokens(&BASE, 9, 6);
    let expected = alone(&mut engine, &prompt, 9);
    let seq = engine.open(9).expect("there is room");
    let good = Chunk { seq, tokens: &prompt, want: Want::Logits };
    let not_open = Chunk { seq: SeqId(1_000_000), ..good };
    let long = [0; 10];
    for bad in [
        vec![good, not_open],
        vec![good, good],
        vec![Chunk { tokens: &[], ..good }],
        vec![Chunk { tokens: &[61], ..good }],
        vec![Chunk { tokens: &long, ..good }],
    ] {
        let refused = engine.step(&bad);
        assert!(matches!(refused, Err(EngineError::Invalid(_))), "{refused:?}");
    }
    let found = logits_of(engine.step(&[good]).expect("the step is valid").remove(0));
    assert_same_bits(&found, &expected, "after refused steps");
}
