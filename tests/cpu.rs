use std::sync::Arc;

use gptoss::cpu::{CpuEngine, CpuOptions, Isa, KvDtype};
use gptoss::engine::{ByHand, ChunkError, EngineError, Output, Piece, Sampling, StepError, Want};
use gptoss::model::{Dtype, ModelConfig, Weights};
use gptoss::pages::SeqId;
use oracle::basics::assert_same_bits;
use oracle::model::{BASE, ExpertFormat, Kv, broken_at, forward, random, tokens};

/// Model, dense dtype, expert format, prompt length, and the edge they walk.
fn cases() -> Vec<(&'static str, ModelConfig, Dtype, ExpertFormat, usize)> {
    use Dtype::{Bf16, F32};
    use ExpertFormat::{InOut, Mxfp4, OutIn};
    let published =
        ModelConfig { num_attention_heads: 8, num_key_value_heads: 1, head_dim: 64, ..BASE };
    let mut no_yarn = BASE;
    no_yarn.rope.factor = 1.0;
    let heads = |heads, kv_heads, head_dim| ModelConfig {
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim,
        ..BASE
    };
    let experts =
        |count, top_k| ModelConfig { num_local_experts: count, num_experts_per_tok: top_k, ..BASE };
    let sizes = |hidden, inner, vocab| ModelConfig {
        hidden_size: hidden,
        intermediate_size: inner,
        vocab_size: vocab,
        ..BASE
    };
    let window =
        |window, layers| ModelConfig { sliding_window: window, num_hidden_layers: layers, ..BASE };
    vec![
        ("published layout", published, Bf16, Mxfp4, 40),
        ("no YaRN", no_yarn, Bf16, Mxfp4, 9),
        ("one head", heads(1, 1, 32), F32, OutIn(F32), 9),
        ("odd heads, groups of three", heads(9, 3, 32), Bf16, OutIn(Bf16), 17),
        ("groups of seven, head_dim 80", heads(7, 1, 80), Bf16, Mxfp4, 18),
        ("groups of five, q_dim no multiple of 32", heads(5, 1, 10), Bf16, InOut(Bf16), 9),
        ("the same in f32", heads(5, 1, 10), F32, InOut(F32), 9),
        ("smallest head", heads(3, 3, 2), Bf16, Mxfp4, 9),
        ("one expert", experts(1, 1), Bf16, Mxfp4, 7),
        ("every expert", experts(4, 4), Bf16, InOut(Bf16), 7),
        ("three of seven experts", experts(7, 3), F32, Mxfp4, 23),
        ("odd multiples of 32", sizes(96, 160, 61), Bf16, Mxfp4, 9),
        ("the same, [in, out]", sizes(96, 160, 61), Bf16, InOut(Bf16), 9),
        ("inputs longer than the buffer of decoded weights", sizes(992, 32, 61), Bf16, Mxfp4, 70),
        ("the same, bf16 experts", sizes(992, 32, 67), F32, OutIn(Bf16), 13),
        ("large prime vocabulary", sizes(32, 32, 1009), Bf16, OutIn(Bf16), 5),
        ("vocabulary of one", sizes(32, 32, 1), F32, OutIn(F32), 5),
        ("window of one", window(1, 1), Bf16, Mxfp4, 9),
        ("window longer than the prompt", window(100, 3), Bf16, Mxfp4, 33),
        ("window shorter than a block, five layers", window(15, 5), Bf16, Mxfp4, 50),
        ("window of one block", window(16, 1), F32, Mxfp4, 50),
        ("a single token", window(128, 4), Bf16, Mxfp4, 1),
    ]
}

fn engine(weights: &Arc<Weights>, options: CpuOptions) -> ByHand<CpuEngine> {
    ByHand::new(CpuEngine::new(Arc::clone(weights), options).expect("the model can be run"))
}

fn options(threads: usize, isa: Isa, kv: KvDtype) -> CpuOptions {
    CpuOptions { threads, isa, kv, ..CpuOptions::default() }
}

fn step_logits(engine: &mut ByHand<CpuEngine>, chunks: &[(SeqId, &[u32])]) -> Vec<Vec<f32>> {
    let chunks: Vec<Piece<'_>> =
        chunks.iter().map(|&(seq, tokens)| Piece { seq, tokens, want: Want::Logits }).collect();
    let outputs = engine.step(&chunks).expect("the step is valid");
    let logits = outputs.into_iter().map(|output| match output {
        Output::Logits(logits) => logits,
        other => panic!("asked for logits, got {other:?}"),
    });
    logits.collect()
}

/// Logits of every position, the prompt given in pieces of `chunk`.
fn logits(engine: &mut ByHand<CpuEngine>, tokens: &[u32], chunk: usize) -> Vec<f32> {
    let seq = engine.open();
    let pieces =
        tokens.chunks(chunk).flat_map(|piece| step_logits(engine, &[(seq, piece)]).remove(0));
    let logits = pieces.collect();
    engine.close(seq);
    logits
}

/// Largest error over the largest logit.
fn error(found: &[f32], expected: &[Vec<f64>]) -> f64 {
    let expected = expected.concat();
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0f64, |m, x| m.max(x.abs()));
    found.iter().zip(&expected).fold(0f64, |worst, (&f, e)| {
        assert!(f.is_finite(), "{f}");
        worst.max((f64::from(f) - e).abs())
    }) / scale
}

/// A sum of `k` products in 16 partial sums is off by at most about `k / 16 + 5` roundings of its
/// size; a layer is six such sums deep. Errors of different sums are independent, which the bound
/// ignores: what is measured is some 20 times smaller.
fn tolerance(config: &ModelConfig) -> f64 {
    let k = config.hidden_size.max(config.q_dim()).max(config.intermediate_size);
    let sums = 6 * config.num_hidden_layers + 1;
    (sums * (k / 16 + 5)) as f64 * f64::from(f32::EPSILON) / 2.0
}

#[test]
fn shapes_against_f64() {
    for (name, config, dtype, format, len) in cases() {
        let weights = Arc::new(random(&config, dtype, format, 1));
        let prompt = tokens(&config, len, 1);
        let expected = forward(&weights, &prompt, Kv::Exact);
        let mut engine = engine(&weights, options(2, Isa::Auto, KvDtype::F32));
        let error = error(&logits(&mut engine, &prompt, len), &expected);
        assert!(error <= tolerance(&config), "{name}: error {error:e}");
    }
}

#[test]
fn bf16_cache_against_f64() {
    for (name, config, dtype, format, len) in cases() {
        let weights = Arc::new(random(&config, dtype, format, 2));
        let prompt = tokens(&config, len, 1);
        let expected = forward(&weights, &prompt, Kv::Bf16);
        let mut engine = engine(&weights, options(1, Isa::Auto, KvDtype::Bf16));
        let error = error(&logits(&mut engine, &prompt, 4), &expected);
        // Where f32 and f64 fall on two sides of a rounding boundary, one element of a key or
        // value moves by 2^-8 of itself; each is one of `head_dim` or of many positions.
        let flips = f64::powi(2.0, -8) / (config.head_dim as f64).sqrt();
        assert!(error <= tolerance(&config) + flips, "{name}: error {error:e}");
    }
}

#[test]
fn instruction_sets_agree() {
    for (name, config, dtype, format, len) in cases() {
        let weights = Arc::new(random(&config, dtype, format, 3));
        let prompt = tokens(&config, len.min(20), 1);
        let run = |isa, kv| {
            let engine = CpuEngine::new(Arc::clone(&weights), options(1, isa, kv));
            engine.ok().map(|engine| logits(&mut ByHand::new(engine), &prompt, 6))
        };
        for kv in [KvDtype::Bf16, KvDtype::F32] {
            let portable = run(Isa::Portable, kv).expect("there is always plain Rust");
            for isa in [Isa::Avx2, Isa::Avx512] {
                if let Some(found) = run(isa, kv) {
                    assert_same_bits(&format!("{name}, {isa:?}, {kv:?}"), &found, &portable);
                }
            }
        }
    }
}

#[test]
fn neither_chunks_nor_threads_change_a_bit() {
    for (name, config, dtype, format, _) in cases() {
        let weights = Arc::new(random(&config, dtype, format, 4));
        let prompt = tokens(&config, 70, 1);
        let whole =
            logits(&mut engine(&weights, options(1, Isa::Auto, KvDtype::Bf16)), &prompt, 70);
        let mut two = engine(&weights, options(2, Isa::Auto, KvDtype::Bf16));
        for chunk in [1, 7, 64] {
            let found = logits(&mut two, &prompt, chunk);
            assert_same_bits(&format!("{name}, chunks of {chunk}, two threads"), &found, &whole);
        }
    }
}

#[test]
fn neighbours_do_not_change_a_bit() {
    for (name, config, dtype, format, _) in cases() {
        let weights = Arc::new(random(&config, dtype, format, 5));
        let mut engine = engine(&weights, options(2, Isa::Auto, KvDtype::Bf16));
        let all = tokens(&config, 60, 1);
        let prompts: Vec<&[u32]> = (0..11).map(|i| &all[i..i + 10 + 3 * i]).collect();
        let alone: Vec<Vec<f32>> =
            prompts.iter().map(|p| logits(&mut engine, p, p.len())).collect();
        // Step by step with chunks of different lengths, so prefill and decode mix.
        let seqs: Vec<SeqId> = prompts.iter().map(|_| engine.open()).collect();
        let mut together = vec![Vec::new(); prompts.len()];
        let mut done = vec![0; prompts.len()];
        while done.iter().zip(&prompts).any(|(d, p)| *d < p.len()) {
            let mut chunks = Vec::new();
            for (i, prompt) in prompts.iter().enumerate() {
                let rest = &prompt[done[i]..];
                if !rest.is_empty() {
                    chunks.push((i, &rest[..rest.len().min([1, 13, 4][i % 3])]));
                }
            }
            let of_step: Vec<_> = chunks.iter().map(|&(i, tokens)| (seqs[i], tokens)).collect();
            for (&(i, tokens), found) in chunks.iter().zip(step_logits(&mut engine, &of_step)) {
                together[i].extend(found);
                done[i] += tokens.len();
            }
        }
        for (i, (together, alone)) in together.iter().zip(&alone).enumerate() {
            assert_same_bits(&format!("{name}, sequence {i}"), together, alone);
        }
    }
}

#[test]
fn tokens_are_sampled_from_the_last_row_at_the_next_position() {
    let weights = Arc::new(random(&BASE, Dtype::Bf16, ExpertFormat::Mxfp4, 6));
    let mut engine = engine(&weights, options(1, Isa::Auto, KvDtype::Bf16));
    let prompt = tokens(&BASE, 12, 1);
    let logits = logits(&mut engine, &prompt, 12);
    let last = &logits[11 * BASE.vocab_size..];
    for sampling in
        [Sampling::GREEDY, Sampling { temperature: 2.0, top_p: 0.9, seed: 7, ..Sampling::GREEDY }]
    {
        let (seq, quiet) = (engine.open(), engine.open());
        let found = engine.step(&[
            Piece { seq: quiet, tokens: &[1, 2], want: Want::Nothing },
            Piece { seq, tokens: &prompt, want: Want::Token(sampling) },
        ]);
        let expected = gptoss::sampling::sample(last, &sampling, 12).unwrap();
        assert_eq!(found.unwrap(), [Output::Nothing, Output::Token(expected)]);
    }
}

#[test]
fn a_step_that_is_too_large_is_refused_as_a_whole() {
    let weights = Arc::new(random(&BASE, Dtype::Bf16, ExpertFormat::Mxfp4, 7));
    let mut options = options(1, Isa::Auto, KvDtype::Bf16);
    (options.max_sequences, options.max_step_tokens) = (2, 8);
    let mut engine = engine(&weights, options);
    let seqs = [(); 3].map(|()| engine.open());
    let piece = |seq, tokens| Piece { seq, tokens, want: Want::Nothing };
    let refused = engine.step(&[piece(seqs[0], &[1; 9])]);
    let of_tokens = EngineError::Invalid("a step of 9 tokens, expected at most 8".to_owned());
    assert_eq!(refused, Err(StepError::Engine(of_tokens)));
    let all: Vec<Piece<'_>> = [seqs[1], seqs[2], engine.open()].map(|s| piece(s, &[1][..])).into();
    let of_chunks = EngineError::Invalid("a step of 3 chunks, expected at most 2".to_owned());
    assert_eq!(engine.step(&all), Err(StepError::Engine(of_chunks)));
}

#[test]
fn a_broken_value_is_named_by_layer_and_position_and_breaks_nobody_else() {
    let weights = random(&BASE, Dtype::Bf16, ExpertFormat::Mxfp4, 8);
    let good = Arc::new(weights.clone());
    // Whoever does not hold the token computes as before.
    let mut engine = engine(&Arc::new(broken_at(weights, 7)), CpuOptions::default());
    let (seq, other) = (engine.open(), engine.open());
    let piece = |seq, tokens| Piece { seq, tokens, want: Want::Logits };
    let found = engine.step_each(&[piece(seq, &[3, 7, 4]), piece(other, &[5, 6])]).unwrap();
    let Err(ChunkError::NotFinite(why)) = &found[0] else { panic!("{:?}", found[0]) };
    assert!(
        why.starts_with("the output of layer 0 is not finite at position 1 (token 7)"),
        "{why}"
    );
    let alone = logits(&mut self::engine(&good, CpuOptions::default()), &[5, 6], 2);
    let Ok(Output::Logits(found)) = &found[1] else { panic!("{:?}", found[1]) };
    assert_same_bits("beside a broken sequence", found, &alone);
    assert_eq!(engine.step(&[piece(seq, &[3])]), Err(StepError::NotOpen(seq.0)));
    // The pages of the broken one are taken up by another.
    let again = engine.open();
    let Output::Logits(found) = engine.step(&[piece(again, &[5, 6])]).unwrap().remove(0) else {
        panic!("no logits")
    };
    assert_same_bits("in pages of a broken sequence", &found, &alone);
}
