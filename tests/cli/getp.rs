//! Files of prompts: the bytes of the output, whatever happens on the way.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::{Bench, outcome, tiny_model};

/// Prompts of 1 to 40 bytes.
fn prompts(count: usize) -> String {
    let prompt = |index: usize| {
        "the quick brown fox jumps over the lazy dog"[..1 + index * 7 % 40].to_owned()
    };
    let lines: Vec<String> = (0..count).map(prompt).collect();
    format!("{count}\n{}\n", lines.join("\n"))
}

fn ids(line: &str) -> Vec<u32> {
    line.split(' ').filter(|word| !word.is_empty()).map(|word| word.parse().unwrap()).collect()
}

#[test]
fn output_has_a_line_of_ids_per_prompt() {
    let bench = Bench::new();
    bench.write("in.txt", "3\nhello\na\nforty-two bytes that leave no room at all.\n");
    let outcome = bench.tiny(&["-i", "in.txt", "-o", "out.txt", "-n", "42"]).ok();
    let text = bench.read("out.txt");
    let lines: Vec<Vec<u32>> = text.lines().map(ids).collect();
    // No id of this tokenizer ends a text, so each fills its positions.
    assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [37, 41, 0]);
    assert!(text.ends_with('\n') && !text.contains(" \n"));
    assert!(outcome.stdout.contains("│ ⌛️ Time: ") && outcome.stdout.contains("│ ⚡️ TPS: "));
    assert!(!bench.path("out.txt.journal").exists());
}

#[test]
fn batch_and_threads_do_not_change_a_byte() {
    let bench = Bench::new();
    bench.write("in.txt", prompts(70));
    for sampling in [&["-T", "0"][..], &["-T", "0.8", "-p", "0.9", "-s", "7"]] {
        let mut first = None;
        for (batch, threads) in [("1", "1"), ("7", "2"), ("64", "1"), ("64", "2")] {
            let flags =
                ["-i", "in.txt", "-o", "out.txt", "-n", "56", "-b", batch, "--threads", threads];
            bench.tiny(&[&flags[..], sampling].concat()).ok();
            let output = bench.read("out.txt");
            assert_eq!(output.lines().count(), 70);
            assert_eq!(
                *first.get_or_insert(output.clone()),
                output,
                "-b {batch} --threads {threads}"
            );
        }
    }
}

/// Whatever this CPU has: a path that it lacks is refused, and the others agree in every id.
#[test]
fn every_instruction_set_gives_the_same_ids() {
    let bench = Bench::new();
    bench.write("in.txt", prompts(4));
    let run =
        |isa: &str| bench.tiny(&["-i", "in.txt", "-n", "50", "-T", "1", "-s", "5", "--isa", isa]);
    let auto = run("auto").ok().stdout;
    let lengths: Vec<usize> = auto.lines().map(|line| ids(line).len()).collect();
    assert_eq!(lengths, [49, 42, 35, 28]);
    assert_eq!(run("portable").ok().stdout, auto);
    for isa in ["avx2", "avx512"] {
        let outcome = run(isa);
        match outcome.code {
            Some(0) => assert_eq!(outcome.stdout, auto, "{isa}"),
            _ => outcome.refused(&["this CPU does not have"]),
        }
    }
}

#[test]
fn seeds_matter_when_sampling_and_only_then() {
    let bench = Bench::new();
    bench.write("in.txt", "2\nsame\nsame\n");
    let run = |flags: &[&str]| {
        bench.tiny(&[&["-i", "in.txt", "-n", "40"][..], flags].concat()).ok().stdout
    };
    assert_eq!(run(&["-s", "1"]), run(&["-s", "2"]));
    let sampled = run(&["-T", "2", "-p", "1", "-s", "1"]);
    assert_ne!(sampled, run(&["-T", "2", "-p", "1", "-s", "2"]));
    let lines: Vec<&str> = sampled.lines().collect();
    assert_ne!(lines[0], lines[1], "equal prompts of a job draw different numbers");
}

#[test]
fn truncation_takes_the_first_prompts() {
    let bench = Bench::new();
    bench.write("in.txt", "3\na\nb\nc\n");
    assert_eq!(bench.tiny(&["-i", "in.txt", "-t", "2", "-n", "4"]).ok().stdout.lines().count(), 2);
    assert_eq!(bench.tiny(&["-i", "in.txt", "-t", "0", "-n", "4"]).ok().stdout.lines().count(), 3);
}

#[test]
fn verification_decides_the_exit_code() {
    let bench = Bench::new();
    bench.write("in.txt", prompts(3));
    let flags = ["-i", "in.txt", "-o", "out.txt", "-n", "45"];
    bench.tiny(&flags).ok();
    let good = bench.read("out.txt");
    bench.write("good.txt", &good);
    let verify = |file: &str| bench.tiny(&[&flags[..], &["-v", file]].concat());
    let passed = verify("good.txt").ok();
    assert!(passed.stdout.contains("🎉 ✅ ALL TESTS PASSED!\n✅ Verification: PASSED"));
    bench.write("bad.txt", good.replacen(' ', " 9", 1));
    let failed = verify("bad.txt");
    assert_eq!(failed.code, Some(1));
    assert!(failed.stdout.contains("Token mismatch at position 1"), "{}", failed.stdout);
    assert!(failed.stdout.ends_with("❌ Verification: FAILED\n"));
}

#[test]
fn getp_cpu_is_getp_on_the_cpu() {
    let bench = Bench::new();
    bench.write("in.txt", prompts(3));
    let getp = bench.tiny(&["-i", "in.txt", "-n", "45"]).ok().stdout;
    assert_eq!(bench.tiny(&["-m", "getp_cpu", "-i", "in.txt", "-n", "45"]).ok().stdout, getp);
    let tiny = tiny_model();
    let gpu = ["run", "-c", tiny.to_str().unwrap(), "-m", "getp_cpu", "--device", "cuda"];
    bench.run(&gpu).refused(&["--device cuda", "getp_cpu"]);
}

/// Starts a job that takes a while, and waits until some of its requests are finished.
fn start_long_job(bench: &Bench) -> Child {
    bench.write("in.txt", prompts(200));
    let mut command = bench.tiny_command(LONG_JOB);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_records(bench);
    child
}

fn wait_for_records(bench: &Bench) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while finished(bench) < 3 {
        assert!(Instant::now() < deadline, "no request finished within a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
}

const LONG_JOB: &[&str] =
    &["-i", "in.txt", "-o", "out.txt", "-n", "120", "-b", "4", "-T", "1", "-s", "3"];

/// Requests in the journal.
fn finished(bench: &Bench) -> usize {
    let Ok(file) = std::fs::File::open(bench.path("out.txt.journal")) else { return 0 };
    BufReader::new(file).lines().map_while(Result::ok).filter(|line| line.contains(": ")).count()
}

fn undisturbed() -> String {
    let bench = Bench::new();
    bench.write("in.txt", prompts(200));
    bench.tiny(LONG_JOB).ok();
    bench.read("out.txt")
}

#[test]
fn a_killed_job_resumes_to_the_same_bytes() {
    let bench = Bench::new();
    let mut child = start_long_job(&bench);
    child.kill().unwrap();
    child.wait().unwrap();
    let kept = finished(&bench);
    assert!((3..200).contains(&kept), "{kept} requests were finished when the kill came");
    bench.tiny(LONG_JOB).refused(&["out.txt.journal", "--resume"]);
    // The seed comes from the journal when it is not given.
    let resume: Vec<&str> = LONG_JOB.iter().copied().filter(|f| !["-s", "3"].contains(f)).collect();
    let outcome = bench.tiny(&[&resume[..], &["--resume"]].concat()).ok();
    assert!(outcome.stdout.contains(&format!("resume: {kept} requests")), "{}", outcome.stdout);
    assert_eq!(bench.read("out.txt"), undisturbed());
    assert!(!bench.path("out.txt.journal").exists());
}

#[test]
fn an_interrupted_job_says_how_to_go_on() {
    let bench = Bench::new();
    let child = start_long_job(&bench);
    let pid = child.id().to_string();
    let kill = std::process::Command::new("bash").args(["-c", "kill -INT $0", &pid]).status();
    assert!(kill.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("out.txt.journal") && stderr.contains("--resume"), "{stderr}");
    bench.tiny(&[LONG_JOB, &["--resume"]].concat()).ok();
    assert_eq!(bench.read("out.txt"), undisturbed());
}

#[test]
fn a_full_disk_loses_nothing() {
    let bench = Bench::new();
    bench.write("in.txt", prompts(200));
    // 3 KB per file, and a failing write instead of a signal.
    let script = "trap '' XFSZ; ulimit -f 3; exec \"$0\" \"$@\"";
    let tiny = bench.tiny_command(LONG_JOB);
    let mut limited = std::process::Command::new("bash");
    limited.current_dir(bench.dir.path()).args(["-c", script]).arg(crate::program());
    limited.args(tiny.get_args());
    outcome(&mut limited).refused(&["out.txt", "File too large", "--resume"]);
    let kept = finished(&bench);
    assert!(kept > 0);
    let outcome = bench.tiny(&[LONG_JOB, &["--resume"]].concat()).ok();
    assert!(outcome.stdout.contains(&format!("resume: {kept} requests")), "{}", outcome.stdout);
    assert_eq!(bench.read("out.txt"), undisturbed());
}

#[test]
fn a_resumed_job_must_be_the_same_job() {
    let bench = Bench::new();
    bench.write("in.txt", prompts(200));
    let mut child = start_long_job(&bench);
    child.kill().unwrap();
    child.wait().unwrap();
    let other = ["-i", "in.txt", "-o", "out.txt", "-n", "119", "--resume"];
    bench.tiny(&other).refused(&["another job", "-n is \"120\"", "expected \"119\""]);
}

#[test]
fn a_finished_output_is_left_alone() {
    let bench = Bench::new();
    bench.write("in.txt", prompts(5));
    let job = ["-i", "in.txt", "-o", "out.txt", "-n", "60"];
    bench.tiny(&job).ok();
    let (whole, written) = (bench.read("out.txt"), modified(&bench));
    bench.write("good.txt", &whole);
    let again = bench.tiny(&[&job[..], &["--resume", "-v", "good.txt"]].concat()).ok();
    assert!(again.stdout.contains("every request is finished already"), "{}", again.stdout);
    assert!(again.stdout.contains("✅ Verification: PASSED"), "{}", again.stdout);
    assert_eq!(modified(&bench), written, "the file is not written again");
    // Another length, other prompts: not this job's output, and not to be lost.
    bench.tiny(&["-i", "in.txt", "-o", "out.txt", "-n", "61", "--resume"]).refused(&[
        "out.txt",
        "no journal",
        "line 1",
    ]);
    bench.write("in.txt", prompts(6));
    bench.tiny(&[&job[..], &["--resume"]].concat()).refused(&["5 lines, expected 6"]);
    assert_eq!(bench.read("out.txt"), whole);
}

fn modified(bench: &Bench) -> std::time::SystemTime {
    std::fs::metadata(bench.path("out.txt")).unwrap().modified().unwrap()
}

#[test]
fn other_weights_under_the_same_path_are_another_job() {
    let bench = Bench::new();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(tiny_model().join(file), bench.path(file)).unwrap();
    }
    bench.write("in.txt", prompts(200));
    let job = ["run", "-c", ".", "-z", "bytes.bin", "--device", "cpu", "-i", "in.txt"];
    let job = [&job[..], &["-o", "out.txt", "-n", "120"]].concat();
    let mut child = bench.command(&job).stdout(Stdio::null()).spawn().unwrap();
    wait_for_records(&bench);
    child.kill().unwrap();
    child.wait().unwrap();
    let journal = bench.read("out.txt.journal");
    // The same size, another content: the time of change tells.
    std::fs::copy(tiny_model().join("model.safetensors"), bench.path("model.safetensors")).unwrap();
    bench.run(&[&job[..], &["--resume"]].concat()).refused(&["another job", "model-files is"]);
    assert_eq!(bench.read("out.txt.journal"), journal);
}
