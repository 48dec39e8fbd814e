//! Command lines, files and requests that are wrong. Each gives one line that names the value and
//! what was expected, a failing exit code, and leaves every file as it was.

mod files;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::{Bench, tiny_model};

/// Nothing wrong takes longer to notice, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Cases that run at the same time.
const WORKERS: usize = 4;

/// A command line that must be refused, in a folder with prompts, a tokenizer and these files.
struct Case {
    line: String,
    files: Vec<(&'static str, Vec<u8>)>,
    /// Whether `model/` is a copy of the tiny model; the files above come after it.
    copies_model: bool,
    parts: Vec<&'static str>,
}

/// `line` must be refused with a message that holds each of `parts`. Its words: `RUN` runs the
/// tiny model on the file of prompts, `MODEL` is that model, `EMPTY` an empty argument.
fn case(line: &str, parts: &[&'static str]) -> Case {
    let run = "run -c MODEL -z bytes.bin --device cpu -i in.txt -o out.txt";
    let line = line.replace("RUN", run);
    Case { line, files: Vec::new(), copies_model: false, parts: parts.to_vec() }
}

impl Case {
    fn file(mut self, name: &'static str, content: impl Into<Vec<u8>>) -> Case {
        self.files.push((name, content.into()));
        self
    }

    fn model_copy(mut self) -> Case {
        self.copies_model = true;
        self
    }

    fn prepare(&self) -> Bench {
        let bench = Bench::new();
        bench.write("in.txt", "1\nhello\n");
        if self.copies_model {
            std::fs::create_dir(bench.path("model")).unwrap();
            for file in ["config.json", "model.safetensors", "golden.json"] {
                std::fs::copy(tiny_model().join(file), bench.path("model").join(file)).unwrap();
            }
        }
        for (name, content) in &self.files {
            let folder = bench.path(name).parent().map(Path::to_owned);
            folder.map_or(Ok(()), std::fs::create_dir_all).unwrap();
            bench.write(name, content);
        }
        bench
    }

    /// What is wrong with the program's answer.
    fn check(&self) -> Result<(), String> {
        let bench = self.prepare();
        let before = bench.contents();
        let model = tiny_model();
        let words = self.line.split(' ').map(|word| match word {
            "MODEL" => model.to_str().expect("an UTF-8 path"),
            "EMPTY" => "",
            word => word,
        });
        let mut command = bench.command(&words.collect::<Vec<_>>());
        let (code, stderr) = answer(command.env_remove("MODELBIN_ROOT"))?;
        let lines: Vec<&str> = stderr.lines().collect();
        if !matches!(code, Some(1 | 2)) {
            return Err(format!("exit code {code:?}, {stderr:?}"));
        }
        if lines.len() != 1 || !stderr.starts_with("gptoss: ") {
            return Err(format!("expected one line of error: {stderr:?}"));
        }
        if ["panicked", "internal error"].iter().any(|bug| stderr.contains(bug)) {
            return Err(stderr);
        }
        match self.parts.iter().find(|part| !stderr.contains(**part)) {
            Some(part) => Err(format!("{part:?} is not in {stderr:?}")),
            None if bench.contents() != before => Err(String::from("it changed the folder")),
            None => Ok(()),
        }
    }
}

/// Exit code and standard error of a program that must end by itself.
fn answer(command: &mut Command) -> Result<(Option<i32>, String), String> {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            return Err(format!("it is still running after {PATIENCE:?}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// Runs all cases, and fails with every one that is not refused as it should be.
#[track_caller]
fn check(cases: &[Case]) {
    let (next, failures) = (Mutex::new(cases.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some(case) = next.lock().unwrap().next() else { break };
                    if let Err(problem) = case.check() {
                        failures.lock().unwrap().push(format!("gptoss {}: {problem}", case.line));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn flags_with_wrong_values() {
    check(&[
        case("RUN -T -1", &["-1", "--temperature", "0 (greedy) or more"]),
        case("RUN -T nan", &["nan", "--temperature"]),
        case("RUN -T inf", &["inf", "--temperature"]),
        case("RUN -T warm", &["warm", "--temperature"]),
        case("RUN --greedy -T 1", &["--greedy", "--temperature"]),
        case("RUN -p 0", &["--top-p", "more than 0 and at most 1"]),
        case("RUN -p 1.5", &["1.5", "--top-p"]),
        case("RUN -k 0", &["'0'", "--top-k", "1 or more"]),
        case("RUN -k -1", &["-1", "--top-k"]),
        case("RUN --min-p 1", &["'1'", "--min-p", "less than 1"]),
        case("RUN --min-p -0.5", &["-0.5", "--min-p"]),
        case("RUN --stop EMPTY", &["--stop", "at least one character"]),
        case("RUN -n -3", &["-3", "--steps", "0 or more"]),
        case("RUN -n x", &["'x'", "--steps"]),
        case("RUN -n 99999999999999999999", &["99999999999999999999", "--steps"]),
        case("RUN -n 1000000", &["-n 1000000", "the model has"]),
        case("RUN -b 0", &["'0'", "--batch", "from 1 to"]),
        case("RUN -b 18446744073709551615", &["18446744073709551615", "--batch", "from 1 to"]),
        case("RUN -b -4", &["-4", "--batch"]),
        case("RUN -s -1", &["-1", "--seed", "expected a whole number from 0"]),
        case("RUN -s 1.5", &["1.5", "--seed", "whole number"]),
        case("RUN -t -1", &["-1", "--truncate"]),
        case("RUN -g 0", &["'0'", "--gpus"]),
        case("RUN -g 2", &["-g 2", "no GPUs"]),
        case("RUN -m getq", &["getq", "--mode", "chat"]),
        case("RUN --threads 0", &["'0'", "--threads"]),
        case("RUN --threads 1000000", &["1000000", "--threads", "at most", "cores"]),
        case("RUN --isa avx3", &["avx3", "--isa", "portable"]),
        case("RUN --kv16 --kv32", &["--kv16", "--kv32"]),
        case("RUN --kv-memory 0", &["'0'", "--kv-memory", "auto, full"]),
        case("RUN --kv-memory 12T", &["12T", "--kv-memory"]),
        case("RUN --kv-memory -1", &["-1", "--kv-memory"]),
        case("RUN --step-tokens 0", &["'0'", "--step-tokens", "from 1 to"]),
        case("RUN --step-tokens 1000000000", &["1000000000", "--step-tokens", "from 1 to"]),
        case("RUN --bin-layout up", &["up", "--bin-layout", "swapped"]),
        case("RUN --dense q4", &["q4", "--dense", "q8"]),
        case("RUN --no-such-flag", &["--no-such-flag"]),
        case("RUN --kernels a --kernels b", &["--kernels", "more than once", "expected once"]),
        case("RUN in.txt", &["in.txt"]),
        case("RUN -m chat --effort most", &["most", "--effort", "high"]),
    ]);
}

#[test]
fn devices_that_are_none() {
    let device = |name: &str, parts| {
        case(&format!("run -c MODEL -z bytes.bin -i in.txt -o out.txt --device {name}"), parts)
    };
    check(&[
        device("gpu", &["gpu", "--device"]),
        device("hip:a", &["hip:a", "no device number"]),
        device("cuda:0,0", &["cuda:0,0", "named twice"]),
        device("cuda:99", &["cuda"]),
        device("cpu:1", &["cpu:1", "takes no list"]),
        device("emu", &["emu", "no chip"]),
        device("emu:gfx942x4", &["gfx942", "gfx1100"]),
        device("emu:gfx1151x0", &["gfx1151x0", "no number of devices"]),
    ]);
}

#[test]
fn flags_that_would_do_nothing() {
    let text = "run -c MODEL -z bytes.bin --device cpu -i Once -m generate";
    let chat = "run -c MODEL -z bytes.bin --device cpu -m chat";
    let emulated = "run -c MODEL -z bytes.bin --device emu:gfx1151 -i in.txt -o out.txt";
    let with = |fixed: &str, flags: &str, parts| case(&format!("{fixed} {flags}"), parts);
    check(&[
        with(text, "-o x", &["-o", "getp"]),
        with(text, "-b 4", &["-b", "getp"]),
        with(text, "-f", &["-f", "getp"]),
        with(text, "-t 1", &["-t", "getp"]),
        with(text, "--effort low", &["--effort", "chat"]),
        with(text, "-y brief", &["-y", "chat"]),
        with(chat, "-v x", &["-v", "getp"]),
        with(chat, "--resume", &["--resume", "getp"]),
        with(chat, "-b 4", &["-b", "getp"]),
        with(chat, "-g 2", &["-g 2", "getp"]),
        case("run -c MODEL -z bytes.bin --device cpu -m generate", &["generate", "-i"]),
        case("RUN -y brief", &["-y", "chat"]),
        case("RUN --kernels nowhere", &["--kernels nowhere", "no kernels"]),
        case("RUN --emu-stats", &["--emu-stats", "emu:CHIP"]),
        case("RUN --bin-layout lhl", &["--bin-layout lhl", "folder", "reference .bin"]),
        case("run --bin-layout lhl -i in.txt -o out.txt", &["--bin-layout lhl", "-c"]),
        case("golden MODEL --bin-layout ups", &["--bin-layout ups", "folder"]),
        case("export -c MODEL -o x.bin --bin-layout ups", &["--bin-layout ups", "folder"]),
        case("RUN --dense q8", &["--dense q8", "cpu"]),
        case("RUN --dense bf16", &["--dense bf16", "cpu"]),
        with(emulated, "--threads 2", &["--threads 2", "--device cpu"]),
        with(emulated, "--isa portable", &["--isa portable", "--device cpu"]),
        with(emulated, "--kv32", &["--kv32", "bf16"]),
        case("run -c MODEL -i in.txt --resume", &["--resume", "-o"]),
        case("run -c MODEL -i in.txt -v in.txt", &["-v", "-o"]),
        case("run -c MODEL -m getp_cpu --device cuda -i in.txt", &["--device cuda", "getp_cpu"]),
    ]);
}

#[test]
fn commands_without_what_they_need() {
    check(&[
        case("nonsense", &["nonsense"]),
        case("decode", &["--input"]),
        case("golden", &["<DIR>"]),
        case("synth -o x", &["--preset"]),
        case("synth --preset 7b -o x", &["7b", "120b"]),
        case("synth --preset nano", &["--out"]),
        case("synth --preset nano --dense f64 -o x", &["f64", "bf16"]),
        case("export", &["--checkpoint"]),
        case("bench gpu", &["gpu"]),
        case("bench kernels --device cpu", &["--device cpu", "needs a GPU"]),
        case("bench emu --threads 0", &["'0'", "--threads"]),
        case("bench cpu --steps 0", &["'0'", "--steps"]),
        case("codegen --lds gemm", &["gemm", "KERNEL=BYTES"]),
        case("codegen nowhere.co", &["nowhere.co"]),
        case("run -m 20", &["MODELBIN_ROOT is not set", "gpt-oss-20b.bin"]),
    ]);
    let bare = Bench::new().run(&[]);
    assert_eq!(bare.code, Some(2));
    assert!(bare.stderr.contains("Usage: gptoss"));
}

#[test]
fn the_folder_of_the_reference_systems_is_named() {
    let bench = Bench::new();
    let mut command = bench.command(&["run", "-m", "120"]);
    let (code, stderr) = answer(command.env("MODELBIN_ROOT", "/none")).unwrap();
    assert_eq!(code, Some(1));
    assert!(stderr.contains("/none/gpt-oss-120b.bin"), "{stderr}");
    assert!(!Path::new("/none").exists());
}

/// What `check` would miss, no case could show.
#[test]
fn a_case_can_fail() {
    for (case, problem) in [
        (case("doctor", &[]), "exit code Some(0)"),
        (case("bench", &[]), "one line"),
        (case("nonsense", &["sense of humour"]), "is not in"),
        // It says what it found before the prompt that does not fit.
        (case("run -c MODEL -z bytes.bin --device cpu -m generate -i hello -n 2", &[]), "one line"),
    ] {
        let found = case.check().unwrap_err();
        assert!(found.contains(problem), "{}: {found}", case.line);
    }
}
