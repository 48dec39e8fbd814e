//! One layer at the size of gpt-oss-20b.

use std::sync::Arc;

use gptoss::cpu::{CpuEngine, CpuOptions, KvDtype};
use gptoss::engine::{ByHand, Piece, Want};
use gptoss::gpu::launch::linear::DenseFormat;
use gptoss::model::{Dtype, ModelConfig};
use oracle::model::{BASE, ExpertFormat, Kv, forward_margins, random, tokens};

use super::close::{CLEAR, errors};
use super::{TOLERANCE, dense_engine, logits_of, pieces};
use crate::gpu::full;

/// All of a layer's sizes; the vocabulary only has to be there.
const LAYER_20B: ModelConfig = ModelConfig {
    vocab_size: 251,
    hidden_size: 2880,
    num_hidden_layers: 1,
    num_attention_heads: 64,
    num_key_value_heads: 8,
    head_dim: 64,
    intermediate_size: 2880,
    num_local_experts: 32,
    num_experts_per_tok: 4,
    sliding_window: 128,
    ..BASE
};

#[test]
fn a_layer_of_20b_agrees_with_the_cpu_engine_and_f64() {
    if !full() {
        println!("skipped: GPTOSS_TEST_FULL is not set");
        return;
    }
    let weights = Arc::new(random(&LAYER_20B, Dtype::Bf16, ExpertFormat::Mxfp4, 10));
    let prompt = tokens(&LAYER_20B, 6, 10);
    let (exact, margins) = forward_margins(&weights, &prompt, Kv::Bf16);
    let clear: Vec<usize> = (0..6).filter(|&row| margins[row] > CLEAR).collect();
    assert!(clear.len() >= 3, "experts are chosen by {margins:?}: too close to tell anything");

    let options = CpuOptions { kv: KvDtype::Bf16, ..CpuOptions::default() };
    let mut cpu =
        ByHand::new(CpuEngine::new(Arc::clone(&weights), options).expect("the model can be run"));
    let seq = cpu.open();
    let chunk = Piece { seq, tokens: &prompt, want: Want::Logits };
    let cpu = logits_of(cpu.step(&[chunk]).expect("the step is valid").remove(0));
    let as_f64 = |logits: &[f32]| logits.iter().map(|&x| x.into()).collect();
    let cpu_rows: Vec<Vec<f64>> = cpu.chunks_exact(LAYER_20B.vocab_size).map(as_f64).collect();

    let gpu = pieces(&mut dense_engine(&weights, DenseFormat::Bf16), &prompt, [3, 1, 2]);
    for (against, errors) in
        [("the CPU engine", errors(&gpu, &cpu_rows)), ("f64", errors(&gpu, &exact))]
    {
        for &row in &clear {
            let error = errors[row];
            assert!(error <= TOLERANCE, "row {row} is off {against} by {error:.2e}");
        }
    }
}
