//! The GPU engine against the f64 model, and against itself bit for bit.

/// Neither neighbours, chunks, devices nor replay change a bit.
mod bits;
/// Whole models against f64 and against recorded logits.
mod close;
/// One layer at the size of gpt-oss-20b.
mod full_size;
/// Memory is planned before anything is sent.
mod memory;
/// Tokens drawn on the device, in steps that are recorded and replayed.
mod sampled;

use std::sync::Arc;

use gptoss::engine::{ByHand, Output, Piece, Sampling, Want};
use gptoss::gpu::Device;
use gptoss::gpu::launch::linear::DenseFormat;
use gptoss::gpu_engine::{GpuEngine, GpuOptions};
use gptoss::model::{Dtype, Weights};
use oracle::model::{BASE, ExpertFormat, random, tokens};

use crate::gpu::{devices, kernels_folder};

/// Norm of the errors over the norm of the logits, as `gptoss golden` allows bf16 activations.
const TOLERANCE: f64 = 2e-2;

fn options(max_step_tokens: usize) -> GpuOptions {
    GpuOptions {
        max_sequences: 64,
        max_positions: 512,
        max_step_tokens,
        kernels: Some(kernels_folder()),
        ..GpuOptions::default()
    }
}

fn engine_with(device: &Device, weights: &Arc<Weights>, options: GpuOptions) -> ByHand<GpuEngine> {
    let engine = GpuEngine::new(device, weights, options, |_, _| {});
    ByHand::new(engine.unwrap_or_else(|e| panic!("{e}")))
}

/// On the first device.
fn engine(weights: &Arc<Weights>, max_step_tokens: usize) -> ByHand<GpuEngine> {
    engine_with(&devices()[0], weights, options(max_step_tokens))
}

/// [`engine`] with the dense weights in `dense`.
fn dense_engine(weights: &Arc<Weights>, dense: DenseFormat) -> ByHand<GpuEngine> {
    engine_with(&devices()[0], weights, GpuOptions { dense, ..options(256) })
}

fn logits_of(output: Output) -> Vec<f32> {
    match output {
        Output::Logits(logits) => logits,
        other => panic!("asked for logits, got {other:?}"),
    }
}

/// Logits of every position, the prompt given in pieces of `chunk`.
fn alone(engine: &mut ByHand<GpuEngine>, tokens: &[u32], chunk: usize) -> Vec<f32> {
    pieces(engine, tokens, std::iter::repeat(chunk))
}

/// Logits of every position, the prompt given in pieces of these lengths, the last one cut short.
fn pieces(
    engine: &mut ByHand<GpuEngine>,
    mut rest: &[u32],
    lens: impl IntoIterator<Item = usize>,
) -> Vec<f32> {
    let seq = engine.open();
    let mut logits = Vec::new();
    for len in lens {
        let (tokens, others) = rest.split_at(len.min(rest.len()));
        let chunk = Piece { seq, tokens, want: Want::Logits };
        logits.extend(logits_of(engine.step(&[chunk]).expect("the step is valid").remove(0)));
        rest = others;
        if rest.is_empty() {
            break;
        }
    }
    engine.close(seq);
    logits
}

#[test]
fn tokens_are_chosen_from_the_logits_of_the_last_row() {
    let weights = Arc::new(random(&BASE, Dtype::Bf16, ExpertFormat::Mxfp4, 5));
    let mut engine = engine(&weights, 256);
    let prompt = tokens(&BASE, 20, 5);
    let logits = alone(&mut engine, &prompt, 20);
    let last = &logits[19 * BASE.vocab_size..];
    let expected = gptoss::sampling::argmax(last).expect("finite logits") as u32;
    for temperature in [0.0, 0.8] {
        let sampling = Sampling { temperature, top_p: 0.9, seed: 7, ..Sampling::GREEDY };
        let seq = engine.open();
        let chunk = Piece { seq, tokens: &prompt, want: Want::Token(sampling) };
        let found = engine.step(&[chunk]).expect("the step is valid").remove(0);
        let expected = match temperature {
            0.0 => expected,
            _ => gptoss::sampling::sample(last, &sampling, 20).expect("finite logits"),
        };
        assert_eq!(found, Output::Token(expected), "temperature {temperature}");
        engine.close(seq);
    }
}

/// What a small model computes on the first device: the logits of a prompt of whole tiles, splits and
/// single rows, and tokens drawn behind it.
pub fn prefilled_and_drawn() -> (Vec<f32>, Vec<u32>) {
    let weights = Arc::new(random(&BASE, Dtype::Bf16, ExpertFormat::Mxfp4, 12));
    let mut engine = engine(&weights, 256);
    let prompt = tokens(&BASE, 170, 2);
    let logits = pieces(&mut engine, &prompt, [140, 9, 1, 1, 19]);
    let seq = engine.open();
    let (mut next, mut drawn) = (prompt, Vec::new());
    for temperature in [0.0, 0.9, 0.9, 0.0, 0.9] {
        let sampling = Sampling { temperature, top_p: 0.9, seed: 3, ..Sampling::GREEDY };
        let piece = Piece { seq, tokens: &next, want: Want::Token(sampling) };
        let Output::Token(token) = engine.step(&[piece]).expect("the step is valid").remove(0)
        else {
            panic!("no token")
        };
        drawn.push(token);
        next = vec![token];
    }
    (logits, drawn)
}
