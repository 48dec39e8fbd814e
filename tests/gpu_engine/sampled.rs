//! Tokens drawn on the device, in steps that are recorded and replayed.

use std::sync::Arc;

use gptoss::engine::{ByHand, Output, Piece, Sampling, Want};
use gptoss::gpu_engine::GpuEngine;
use gptoss::model::Dtype;
use gptoss::pages::SeqId;
use oracle::model::{BASE, ExpertFormat, random, tokens};

use super::{alone, engine};

/// Tokens that follow each prompt, all sequences advancing together.
fn generate(
    engine: &mut ByHand<GpuEngine>,
    prompts: &[(Vec<u32>, Sampling)],
    count: usize,
) -> Vec<Vec<u32>> {
    let seqs: Vec<SeqId> = prompts.iter().map(|_| engine.open()).collect();
    let mut texts: Vec<Vec<u32>> = prompts.iter().map(|(prompt, _)| prompt.clone()).collect();
    let mut fed = vec![0; texts.len()];
    for _ in 0..count {
        let chunks: Vec<Piece<'_>> = seqs
            .iter()
            .zip(prompts)
            .enumerate()
            .map(|(i, (&seq, (_, sampling)))| Piece {
                seq,
                tokens: &texts[i][fed[i]..],
                want: Want::Token(*sampling),
            })
            .collect();
        let outputs = engine.step(&chunks).expect("the step is valid");
        for (i, output) in outputs.into_iter().enumerate() {
            let Output::Token(token) = output else { panic!("{output:?}") };
            fed[i] = texts[i].len();
            texts[i].push(token);
        }
    }
    seqs.into_iter().for_each(|seq| engine.close(seq));
    texts
}

/// Prompts with settings from greedy to uniform.
fn prompts() -> Vec<(Vec<u32>, Sampling)> {
    let settings = [
        (0.0, 1.0, 0, 0.0),
        (0.8, 0.9, 0, 0.0),
        (1.0, 1.0, 7, 0.0),
        (1e-3, 0.5, 0, 0.0),
        (5.0, 0.99, 20, 0.3),
        (0.0, 0.1, 3, 0.0),
    ];
    (0..)
        .zip(settings)
        .map(|(i, (temperature, top_p, top_k, min_p))| {
            let sampling =
                Sampling { temperature, top_p, top_k, min_p, seed: (i as u64) << 33 | 5 };
            (tokens(&BASE, 3 + i, i), sampling)
        })
        .collect()
}

#[test]
fn sampled_decode_draws_what_the_host_draws_from_the_same_logits() {
    let weights = Arc::new(random(&BASE, Dtype::Bf16, ExpertFormat::Mxfp4, 8));
    let mut engine = engine(&weights, 256);
    let prompts = prompts();
    let texts = generate(&mut engine, &prompts, 12);
    for ((prompt, sampling), text) in prompts.iter().zip(&texts) {
        let logits = alone(&mut engine, text, text.len());
        for at in prompt.len()..text.len() {
            let row = &logits[(at - 1) * BASE.vocab_size..][..BASE.vocab_size];
            let expected = gptoss::sampling::sample(row, sampling, at as u32);
            assert_eq!(Ok(text[at]), expected, "{sampling:?}, position {at}");
        }
    }
}

#[test]
fn neighbours_do_not_change_what_is_drawn() {
    let weights = Arc::new(random(&BASE, Dtype::Bf16, ExpertFormat::Mxfp4, 9));
    let mut engine = engine(&weights, 256);
    let prompts = prompts();
    let together = generate(&mut engine, &prompts, 8);
    for (prompt, expected) in prompts.iter().zip(together) {
        assert_eq!(generate(&mut engine, std::slice::from_ref(prompt), 8), [expected]);
    }
}

#[test]
fn a_step_may_want_tokens_logits_and_nothing() {
    let weights = Arc::new(random(&BASE, Dtype::Bf16, ExpertFormat::Mxfp4, 10));
    let mut engine = engine(&weights, 256);
    let prompt = tokens(&BASE, 7, 1);
    let logits = alone(&mut engine, &prompt, 7);
    let last = &logits[6 * BASE.vocab_size..];
    let sampling = Sampling { temperature: 0.9, top_p: 0.9, seed: 3, ..Sampling::GREEDY };
    let wants = [Want::Token(sampling), Want::Logits, Want::Nothing, Want::Token(Sampling::GREEDY)];
    let seqs = wants.map(|_| engine.open());
    let chunks: Vec<Piece<'_>> =
        seqs.iter().zip(wants).map(|(&seq, want)| Piece { seq, tokens: &prompt, want }).collect();
    let drawn = |s| gptoss::sampling::sample(last, &s, 7).expect("finite logits");
    let expected = [
        Output::Token(drawn(sampling)),
        Output::Logits(logits.clone()),
        Output::Nothing,
        Output::Token(drawn(Sampling::GREEDY)),
    ];
    assert_eq!(engine.step(&chunks).expect("the step is valid"), expected);
}
