//! Models on emulated GPUs: the built-in one compared with the CPU engine, files of prompts on several.

use std::path::Path;

use crate::{Bench, kernels};

fn run(bench: &Bench, flags: &[&str]) -> crate::Outcome {
    let kernels = kernels(&["gfx1151"]);
    let fixed = ["run", "--kernels", kernels.to_str().expect("an UTF-8 path"), "-t", "2"];
    bench.run(&[&fixed[..], flags].concat())
}

#[test]
fn auto_takes_a_gpu_or_an_emulated_one_and_checks_its_tokens() {
    let bench = Bench::new();
    let outcome = run(&bench, &["-n", "16"]).ok();
    assert!(outcome.stderr.contains("(auto: "), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("device: CPU"), "{}", outcome.stderr);
    let ids = outcome.stdout.split_whitespace().count();
    assert!(outcome.stderr.contains(&format!("\ncheck: of {ids} tokens ")), "{}", outcome.stderr);
    assert_eq!(outcome.stdout.lines().count(), 2);
}

#[test]
fn sampled_tokens_and_the_cpu_engines_own_are_not_checked() {
    let bench = Bench::new();
    for flags in [&["-n", "8", "-T", "1", "--device", "emu:gfx1151"][..], &["-m", "getp_cpu"]] {
        let fixed = ["run", "-t", "1"];
        let outcome = match flags.contains(&"getp_cpu") {
            true => bench.run(&[&fixed[..], flags].concat()).ok(),
            false => run(&bench, flags).ok(),
        };
        assert!(!outcome.stderr.contains("check: "), "{}", outcome.stderr);
    }
}

#[test]
fn neither_batch_nor_gpus_change_what_is_drawn() {
    let bench = Bench::new();
    bench.write("in.txt", "5\na\nbcd\nefghi\nj\nklmnopq\n");
    let (tiny, kernels) = (crate::tiny_model(), kernels(&["gfx1151"]));
    let path = |path: &Path| path.to_str().expect("an UTF-8 path").to_owned();
    let (tiny, kernels) = (path(&tiny), path(&kernels));
    let fixed = ["run", "-c", &tiny, "-z", "bytes.bin", "--kernels", &kernels, "-i", "in.txt"];
    let sampling = ["--device", "emu:gfx1151x3", "-n", "12", "-T", "0.9", "-p", "0.8", "-s", "4"];
    let run = |flags: &[&str]| bench.run(&[&fixed[..], &sampling, flags].concat());
    let first = run(&["-b", "1"]).ok().stdout;
    assert_eq!(first.lines().count(), 5);
    for flags in [["-b", "3", "-g", "1"], ["-b", "1", "-g", "2"], ["-b", "2", "-g", "3"]] {
        let outcome = run(&flags).ok();
        assert_eq!(outcome.stdout, first, "{flags:?}");
        let gpus = outcome.stderr.matches("emu:gfx1151 device").count();
        assert_eq!(gpus.to_string(), flags[3], "{}", outcome.stderr);
    }
    run(&["-g", "4"]).refused(&["-g 4", "emu:gfx1151x3 has 3 GPUs"]);
    run(&["-g", "2", "-m", "chat"]).refused(&["-g 2", "getp"]);
}

#[test]
fn the_emulator_tells_what_it_counted() {
    let bench = Bench::new();
    let flags = ["-n", "10", "-T", "1", "--device", "emu:gfx1151", "--emu-stats"];
    let counted = run(&bench, &flags).ok().stderr;
    // The prefill's launches, then those of the steps that are recorded and replayed.
    for kernel in ["embed", "sample"] {
        let line = counted.lines().find(|line| line.split(' ').next() == Some(kernel));
        let fields: Vec<&str> = line.unwrap_or(&counted).split_whitespace().collect();
        assert!(fields.len() == 7 && fields[1..3].iter().all(|n| *n != "0"), "{counted}");
    }
}

#[test]
fn missing_kernels_are_one_line() {
    let bench = Bench::new();
    let flags = ["run", "--device", "emu:gfx1151", "--kernels", "."];
    bench.run(&flags).refused(&["gfx1151.co", "device-build --arch gfx1151"]);
}
