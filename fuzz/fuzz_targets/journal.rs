//! The journal of a getp run: no more requests are finished than there are, whatever it holds.
#![no_main]

use gptoss::cpu::KvDtype;
use gptoss::engine::Sampling;
use gptoss::gpu::launch::linear::DenseFormat;
use gptoss::model::bin::BinLayout;
use gptoss::modes::journal::{JobKey, finished, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let job = JobKey {
        requests: 4,
        prompts: 7,
        positions: 64,
        sampling: Sampling { temperature: 0.5, top_p: 0.9, top_k: 40, min_p: 0.1, seed: 3 },
        stop: Vec::new(),
        model: String::from("model"),
        model_files: String::new(),
        bin_layout: BinLayout::Ups,
        tokenizer: String::from("o200k_harmony"),
        device: String::from("cpu"),
        dense: DenseFormat::Bf16,
        kv: KvDtype::Bf16,
        version: "1",
        kernels: 5,
    };
    // As it is, and as the records of a sound one.
    for journal in [bytes.to_vec(), [header(&job).as_bytes(), bytes].concat()] {
        match finished(&journal, &job) {
            Ok(count) => assert!(count <= job.requests),
            Err(error) => assert!(!error.to_string().contains('\n')),
        }
    }
});
