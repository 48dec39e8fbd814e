//! Memory is planned before anything is sent.

use std::sync::Arc;

use gptoss::gpu_engine::{GpuEngine, GpuEngineError, GpuOptions};
use gptoss::kv_budget::KvBudget;
use gptoss::model::Dtype;
use oracle::model::{BASE, ExpertFormat, random};

use super::options;
use crate::gpu::devices;

#[test]
fn a_model_that_does_not_fit_is_refused_with_the_arithmetic() {
    let weights = Arc::new(random(&BASE, Dtype::Bf16, ExpertFormat::Mxfp4, 1));
    let (device, sequences) = (&devices()[0], 1 << 22);
    let options = GpuOptions {
        max_sequences: sequences,
        max_positions: 4096,
        budget: KvBudget::WorstCase,
        ..options(256)
    };
    let sent = |_, _| panic!("weights were sent");
    let refused = GpuEngine::new(device, &weights, options, sent);
    let Err(error @ GpuEngineError::DoesNotFit { .. }) = refused else {
        panic!("the model was taken")
    };
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    let GpuEngineError::DoesNotFit { weights, activations, cache, free, .. } = error else {
        unreachable!("matched above")
    };
    // Two layers of 64 pages a sequence, or, in windowed ones, of 3 for its window, what two steps
    // add, and a quarter of the others'; a page is 64 x 2 x 2 x 32 bf16.
    let pages = (64 + 3 + 16) * sequences as u64 + 2 * 256 / 64;
    let expected = (pages * 64 * 2 * 2 * 32 * 2).div_ceil(1_000_000);
    assert!(cache.abs_diff(expected) <= 1, "{cache} MB, expected {expected} MB");
    assert!(weights + activations + cache > free, "{text}");
    for part in [
        device.to_string(),
        format!(
            "weights {weights} MB + activations {activations} MB + KV cache of at least {cache} MB"
        ),
        format!("{free} MB are free"),
    ] {
        assert!(text.contains(&part), "{part:?} is not in {text:?}");
    }
}
