//! decode, export, synth, golden, doctor, and help.

use crate::{Bench, data};

#[test]
fn every_command_has_help() {
    let bench = Bench::new();
    let commands = ["run", "export", "decode", "synth", "golden", "bench", "doctor", "codegen"];
    for command in commands {
        let help = bench.run(&[command, "-h"]).ok();
        assert!(help.stdout.contains("Usage: gptoss"), "{command}: {}", help.stdout);
    }
    let all = bench.run(&["--help"]).ok().stdout;
    assert!(commands.iter().all(|command| all.contains(command)), "{all}");
}

#[test]
fn decode_prints_text() {
    let bench = Bench::new();
    bench.write("ids.txt", "72 105\n\n240 159 166 128 200\n");
    let rule = "-".repeat(66);
    let all = bench.run(&["decode", "-i", "ids.txt", "-z", "bytes.bin", "-l"]).ok().stdout;
    let expected = format!(
        "{rule}\n⛩️  Decoding #0:\nHi\n{rule}\n⛩️  Decoding #1:\n\n{rule}\n⛩️  Decoding #2:\n🦀\u{fffd}\n"
    );
    assert_eq!(all, expected);
    assert_eq!(bench.read("gt_decoded.txt"), expected);
    let one = bench.run(&["decode", "0", "-i", "ids.txt", "-z", "bytes.bin"]).ok().stdout;
    assert_eq!(one, format!("{rule}\n⛩️  Decoding #0:\nHi\n"));
    // The built-in tokenizer.
    bench.write("ids.txt", "13225 11 2375 0 200002\n");
    assert!(
        bench.run(&["decode", "-i", "ids.txt"]).ok().stdout.ends_with("Hello, world!<|return|>\n")
    );
}

#[test]
fn a_snapshot_and_its_bin_give_the_same_text() {
    let bench = Bench::new();
    let snapshot = data("tiny_mxfp4");
    let snapshot = snapshot.to_str().unwrap();
    let keys = bench.run(&["export", "-c", snapshot, "--print-keys"]).ok().stdout;
    assert!(keys.contains("model.embed_tokens.weight"), "{keys}");
    bench.run(&["export", "--snapshot", snapshot, "-o", "tiny.bin"]).ok();
    bench.write("in.txt", "2\nhello\nworld\n");
    let run = |checkpoint: &str| {
        let flags = ["run", "-c", checkpoint, "-z", "bytes.bin", "--device", "cpu"];
        bench.run(&[&flags[..], &["-i", "in.txt", "-n", "30"]].concat()).ok().stdout
    };
    assert_eq!(run(snapshot), run("tiny.bin"));
}

#[test]
fn the_public_goldens_pass_at_any_thread_count_and_on_the_portable_path() {
    let bench = Bench::new();
    for model in ["tiny_bf16", "tiny_mxfp4", "five_layers", "wide_groups"] {
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

#[test]
fn doctor_reports_every_part() {
    let report = Bench::new().run(&["doctor"]).ok().stdout;
    for part in ["rustc", "CPU", "memory", "HIP", "CUDA"] {
        assert!(report.contains(part), "{part} is not in {report}");
    }
    assert!(
        report.lines().all(|line| !line.starts_with("missing") || line.contains("would enable"))
    );
}
