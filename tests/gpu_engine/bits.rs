//! Neither neighbours, chunks, devices nor replay change a bit.

use std::sync::Arc;

use gptoss::engine::{ByHand, Output, Piece, Sampling, Want};
use gptoss::gpu::launch::linear::DenseFormat;
use gptoss::gpu_engine::GpuEngine;
use gptoss::model::{Dtype, ModelConfig};
use gptoss::pages::SeqId;
use oracle::basics::assert_same_bits;
use oracle::model::{BASE, ExpertFormat, random, tokens};

use super::{alone, dense_engine, engine, logits_of, options};
use crate::gpu::devices;

#[test]
fn neither_chunks_nor_devices_change_a_bit() {
    let weights = Arc::new(random(&BASE, Dtype::Bf16, ExpertFormat::Mxfp4, 2));
    let prompt = tokens(&BASE, 131, 3);
    let mut first = engine(&weights, 256);
    let whole = alone(&mut first, &prompt, prompt.len());
    for chunk in [7, 64] {
        let what = format!("chunks of {chunk}");
        assert_same_bits(&what, &alone(&mut first, &prompt, chunk), &whole);
    }
    let (start, vocab) = (&prompt[..70], BASE.vocab_size);
    assert_same_bits("chunks of 1", &alone(&mut first, start, 1), &whole[..70 * vocab]);
    // Loaded at once, from weights packed once.
    let all = GpuEngine::new_all(devices(), &weights, options(256), |_, _| {});
    for (i, engine) in all.unwrap_or_else(|e| panic!("{e}")).into_iter().enumerate() {
        let found = alone(&mut ByHand::new(engine), &prompt, 64);
        assert_same_bits(&format!("device {i}"), &found, &whole);
    }
}

/// Steps all `prompts` together, the next tokens of each in a piece as long as `len(i)` says, and
/// returns the logits of each.
fn together(
    engine: &mut ByHand<GpuEngine>,
    prompts: &[Vec<u32>],
    len: impl Fn(usize) -> usize,
) -> Vec<Vec<f32>> {
    let seqs: Vec<SeqId> = prompts.iter().map(|_| engine.open()).collect();
    let mut found = vec![Vec::new(); prompts.len()];
    let mut done = vec![0; prompts.len()];
    loop {
        let mut chunks = Vec::new();
        let mut of_chunk = Vec::new();
        for (i, (prompt, done)) in prompts.iter().zip(&mut done).enumerate() {
            let rest = &prompt[*done..];
            if !rest.is_empty() {
                let tokens = &rest[..len(i).min(rest.len())];
                chunks.push(Piece { seq: seqs[i], tokens, want: Want::Logits });
                of_chunk.push(i);
                *done += tokens.len();
            }
        }
        if chunks.is_empty() {
            break;
        }
        let outputs = engine.step(&chunks).expect("the step is valid");
        for (i, output) in of_chunk.into_iter().zip(outputs) {
            found[i].extend(logits_of(output));
        }
    }
    seqs.into_iter().for_each(|seq| engine.close(seq));
    found
}

fn prompts(config: &ModelConfig, lens: impl Iterator<Item = usize>) -> Vec<Vec<u32>> {
    lens.enumerate().map(|(i, len)| tokens(config, len, i)).collect()
}

/// The first step prefills, the last ones are 64 rows that decode.
#[test]
fn sixty_three_neighbours_do_not_change_a_bit() {
    let weights = Arc::new(random(&BASE, Dtype::Bf16, ExpertFormat::Mxfp4, 4));
    let mut engine = engine(&weights, 512);
    let prompts = prompts(&BASE, (0..64).map(|i| 2 + i % 9));
    let lens = |i: usize| [1, 7][i % 2];
    let found = together(&mut engine, &prompts, lens);
    for which in [0, 7, 8, 63] {
        let expected = alone(&mut engine, &prompts[which], 256);
        assert_same_bits(&format!("sequence {which} among 63"), &found[which], &expected);
    }
}

/// Prefill past a split and decode share each step, on the heads of gpt-oss, in both formats.
#[test]
fn long_prefills_and_decodes_of_a_step_do_not_change_a_bit() {
    let heads = ModelConfig {
        num_attention_heads: 8,
        num_key_value_heads: 1,
        head_dim: 64,
        sliding_window: 128,
        ..BASE
    };
    let weights = Arc::new(random(&heads, Dtype::Bf16, ExpertFormat::Mxfp4, 8));
    for dense in [DenseFormat::Bf16, DenseFormat::Mxint8] {
        let mut engine = dense_engine(&weights, dense);
        let lens = [140, 6, 70, 5, 131];
        let prompts = prompts(&heads, lens.into_iter());
        let found = together(&mut engine, &prompts, |i| [64, 1, 13, 2, 50][i]);
        for (which, found) in found.iter().enumerate() {
            let expected = alone(&mut engine, &prompts[which], 256);
            assert_same_bits(&format!("{dense:?}, sequence {which}"), found, &expected);
        }
    }
}

fn largest(logits: &[f32]) -> u32 {
    gptoss::sampling::argmax(logits).expect("finite logits") as u32
}

/// A step of greedy single tokens is recorded and replayed while its launches stay the same. The
/// contexts grow past a page and a split, other steps come between, and a sequence leaves. What
/// the replayed steps wrote to the cache is seen by the logits at the end.
#[test]
fn replayed_steps_do_what_launched_ones_do() {
    let weights = Arc::new(random(&BASE, Dtype::Bf16, ExpertFormat::Mxfp4, 9));
    let mut engine = engine(&weights, 256);
    let (vocab, steps) = (BASE.vocab_size, 9);
    let starts = [1, 60, 124];
    let prompts = prompts(&BASE, starts.into_iter().map(|start| start + steps));
    let expected: Vec<Vec<f32>> =
        prompts.iter().map(|prompt| alone(&mut engine, prompt, 256)).collect();
    let row = |i: usize, position: usize| &expected[i][position * vocab..][..vocab];

    let open = |engine: &mut ByHand<GpuEngine>, i: usize| {
        let seq = engine.open();
        let start = Piece { seq, tokens: &prompts[i][..starts[i]], want: Want::Nothing };
        engine.step(&[start]).expect("the step is valid");
        seq
    };
    let seqs = [0, 1, 2].map(|i| open(&mut engine, i));
    let mut running = vec![0, 1, 2];
    for step in 0..steps - 1 {
        if step == 5 {
            running.remove(0);
            engine.close(seqs[0]);
        }
        if step == 2 {
            // Another shape of step, in the same buffers.
            alone(&mut engine, &prompts[2], 50);
        }
        let next = |i: usize| &prompts[i][starts[i] + step..][..1];
        let chunk = |&i: &usize| Piece {
            seq: seqs[i],
            tokens: next(i),
            want: Want::Token(Sampling::GREEDY),
        };
        let chunks: Vec<Piece<'_>> = running.iter().map(chunk).collect();
        let found = engine.step(&chunks).expect("the step is valid");
        let tokens = running.iter().map(|&i| Output::Token(largest(row(i, starts[i] + step))));
        assert_eq!(found, tokens.collect::<Vec<_>>(), "step {step}");
    }
    for i in running {
        let last = prompts[i].len() - 1;
        let chunk = Piece { seq: seqs[i], tokens: &prompts[i][last..], want: Want::Logits };
        let found = logits_of(engine.step(&[chunk]).expect("the step is valid").remove(0));
        assert_same_bits(&format!("sequence {i} after replays"), &found, row(i, last));
    }
}
