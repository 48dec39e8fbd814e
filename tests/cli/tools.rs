//! decode, export, synth, doctor, and help.

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
fn an_output_that_is_an_input_is_refused() {
    let bench = Bench::new();
    let snapshot = data("tiny_bf16");
    let model = bench.path("model");
    std::fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(snapshot.join(name), model.join(name)).unwrap();
    }
    std::os::unix::fs::symlink("model/model.safetensors", bench.path("link")).unwrap();
    for out in ["model/model.safetensors", "model/config.json", "link"] {
        bench.run(&["export", "-c", "model", "-o", out]).refused(&[out, "is the same file as"]);
    }
    bench.run(&["export", "-c", "model", "-o", "tiny.bin"]).ok();
    bench.run(&["export", "-c", "tiny.bin", "-o", "tiny.bin"]).refused(&["tiny.bin"]);
    bench.write("gt_decoded.txt", "1 2\n");
    bench.run(&["decode", "-l", "-i", "gt_decoded.txt"]).refused(&["gt_decoded.txt"]);
    assert_eq!(bench.read("gt_decoded.txt"), "1 2\n");
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

/// run.sh brings kernels of emulated chips up to date, and builds none for chips that are refused.
#[test]
fn run_sh_knows_the_emulated_chips() {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../run.sh");
    let script = std::fs::read_to_string(script).unwrap();
    let line =
        format!("\nemulated='{}'\n", emulator::Chip::ALL.map(emulator::Chip::name).join("|"));
    assert!(script.contains(&line), "{line} is not in run.sh");
}
