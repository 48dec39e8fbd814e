//! Results do not depend on how many host threads emulate the device.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::Command;

use gptoss::gpu::Api;
use oracle::random::{uniform_bf16, uniform_f32, words};

use super::{basics, mma};
use crate::gpu::device;
use crate::gpu_engine;

/// Set in the child processes, which print their digest instead.
const CHILD: &str = "GPTOSS_TEST_DIGEST";
const NAME: &str = "kernels::threads::results_do_not_depend_on_host_threads";

#[test]
fn results_do_not_depend_on_host_threads() {
    if std::env::var_os(CHILD).is_some() {
        println!("\ndigest {:016x}", digest());
        return;
    }
    if device().api() != Api::Emulator {
        println!("skipped: only the emulator runs on host threads");
        return;
    }
    let digests: Vec<String> = ["1", "2", "7"].map(with_threads).into();
    assert!(digests.iter().all(|d| *d == digests[0]), "1, 2 and 7 threads gave {digests:?}");
}

/// Small kernels with many workgroups each, and a model, which launches all the others.
fn digest() -> u64 {
    let mut hasher = DefaultHasher::new();
    let floats = [
        basics::axpy(10_007),
        basics::rmsnorm(&uniform_f32(9 * 300, 1), &uniform_bf16(300, 2)),
        basics::softmax(&uniform_f32(9 * 300, 3), 300),
        basics::transpose(&uniform_f32(130 * 70, 4), [130, 70]),
        mma::tiles(&uniform_bf16(40 * 256, 5), &uniform_bf16(40 * 256, 6)),
    ];
    for x in floats.iter().flatten() {
        x.to_bits().hash(&mut hasher);
    }
    basics::scan(&words(3000, 7)).hash(&mut hasher);
    basics::histogram(&basics::bytes(100_000), &[0; 256]).hash(&mut hasher);
    let (logits, tokens) = gpu_engine::prefilled_and_drawn();
    logits.iter().for_each(|x| x.to_bits().hash(&mut hasher));
    tokens.hash(&mut hasher);
    hasher.finish()
}

fn with_threads(threads: &str) -> String {
    let exe = std::env::current_exe().expect("this program");
    let child = Command::new(exe)
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD, "1")
        .env("GPTOSS_EMU_THREADS", threads)
        .output()
        .expect("a child process");
    let text = String::from_utf8_lossy(&child.stdout);
    let digest = text.lines().find_map(|line| line.strip_prefix("digest "));
    digest.unwrap_or_else(|| panic!("{threads} threads: {text}")).to_owned()
}
