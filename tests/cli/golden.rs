//! golden: every reference model, on the CPU engine and on both emulated chips.

use crate::{Bench, data, kernels};

/// Those from transformers, then those of tools/golden.py.
const MODELS: [&str; 9] = [
    "tiny_bf16",
    "tiny_mxfp4",
    "five_layers",
    "wide_groups",
    "groups_of_one",
    "groups_of_five",
    "groups_of_six",
    "groups_of_eight",
    "long_prompt",
];

#[test]
fn both_emulated_chips_pass() {
    let bench = Bench::new();
    let chips = ["gfx1151", "gfx1100"];
    let kernels = kernels(&chips);
    for model in MODELS {
        let dir = data(model);
        let verdicts = chips.map(|chip| {
            let device = format!("emu:{chip}");
            let fixed = ["golden", dir.to_str().unwrap(), "--device", &device, "--kernels"];
            let report =
                bench.run(&[&fixed[..], &[kernels.to_str().unwrap()]].concat()).ok().stdout;
            assert!(report.ends_with("PASS\n"), "{report}");
            let (_, cases) = report.split_once('\n').expect("the engine, then the cases");
            cases.to_owned()
        });
        // Both compute in the same order, so every figure of the report is the same.
        assert_eq!(verdicts[0], verdicts[1], "{model}");
    }
}

#[test]
fn the_cpu_passes_at_any_thread_count_and_on_the_portable_path() {
    let bench = Bench::new();
    for model in MODELS {
        let dir = data(model);
        for flags in [&["--threads", "1"][..], &["--threads", "2"], &["--isa", "portable"]] {
            let fixed = ["golden", dir.to_str().unwrap(), "--device", "cpu"];
            let outcome = bench.run(&[&fixed[..], flags].concat()).ok();
            assert!(outcome.stdout.ends_with("PASS\n"), "{}", outcome.stdout);
        }
    }
}

#[test]
fn a_golden_that_does_not_hold_fails() {
    let bench = Bench::new();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(data("tiny_bf16").join(file), bench.path(file)).unwrap();
    }
    let golden = std::fs::read_to_string(data("tiny_bf16").join("golden.json")).unwrap();
    let mut golden: serde_json::Value = serde_json::from_str(&golden).unwrap();
    let logit = &mut golden["cases"][0]["rows"][0]["top_logits"][0];
    *logit = (logit.as_f64().unwrap() + 0.01).into();
    bench.write("golden.json", golden.to_string());
    let outcome = bench.run(&["golden", ".", "--device", "cpu"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stdout.contains("FAIL: 1 of"), "{}", outcome.stdout);
}
