//! generate and chat, and the built-in model.

use std::io::Write;
use std::process::Stdio;

use crate::{Bench, outcome};

#[test]
fn no_checkpoint_runs_the_built_in_model_and_says_so() {
    let bench = Bench::new();
    let outcome = bench.run(&["run", "--device", "cpu", "-n", "20", "-b", "2"]).ok();
    assert!(outcome.stderr.contains("model: built in"), "{}", outcome.stderr);
    assert_eq!(outcome.stdout.lines().count(), 4, "one line per sample prompt");
}

#[test]
fn generate_continues_the_prompt() {
    let bench = Bench::new();
    let text = |n: &str| bench.tiny(&["-m", "generate", "-i", "Once", "-n", n]).ok();
    let short = text("8");
    assert!(short.stdout.starts_with("Once") && short.stdout.ends_with('\n'));
    assert!(short.stderr.contains("achieved tok/s: "));
    // A longer text starts like the shorter one; its last character may still be incomplete.
    let start = short.stdout.trim_end_matches(['\n', '\u{fffd}']);
    assert!(text("30").stdout.starts_with(start));
    assert_eq!(text("4").stdout, "Once\n");
}

/// What a terminal would obey is shown on it, and kept where it is a file.
#[test]
fn a_terminal_shows_what_it_would_obey() {
    let bench = Bench::new();
    bench.write("ids.txt", "104 27 93 48 59 105 7 155\n");
    let decode = ["decode", "-z", "bytes.bin", "-i", "ids.txt"];
    let piped = bench.run(&decode).ok().stdout;
    assert!(piped.contains("\nh\x1b]0;i\x07"), "{piped:?}");
    let command = format!("{} {}", crate::program(), decode.join(" "));
    let mut script = std::process::Command::new("script");
    script.current_dir(bench.dir.path()).args(["-qec", &command, "/dev/null"]).stdin(Stdio::null());
    let Ok(output) = script.output() else {
        eprintln!("skipped: script (util-linux), which makes terminals, is not installed");
        return;
    };
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("h\\u{1b}]0;i\\u{7}"), "{shown:?}");
    // An error too, wherever it goes.
    let refused = bench.run(&["decode", "-z", "bytes.bin", "-i", "a\x1b[2J\nb"]);
    refused.refused(&["a\\u{1b}[2J b"]);
}

#[test]
fn chat_answers_and_obeys_commands() {
    let bench = Bench::new();
    // The built-in model: Harmony needs the real special ids.
    let flags = ["run", "-m", "chat", "--device", "cpu", "-n", "150", "-y", "Be brief.", "-l"];
    let mut child = bench
        .command(&flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let script = "/help\nhello\n/nonsense\n/reset\n/system Be long.\n\n/quit\nnot reached\n";
    stdin.write_all(script.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let stdout = String::from_utf8(output.stdout).unwrap();
    for part in [
        "model: built in",
        "/system TEXT",
        "/nonsense is no command",
        "(a new conversation)",
        "(a new conversation, with these instructions)",
    ] {
        assert!(stdout.contains(part), "{part:?} is not in {stdout:?}");
    }
    assert!(bench.read("log.txt").contains("/nonsense is no command"));
}

#[test]
fn a_conversation_that_does_not_fit_is_refused_and_goes_on() {
    let bench = Bench::new();
    let flags = ["run", "-m", "chat", "--device", "cpu", "-n", "20", "-i", "hello"];
    let outcome = bench.run(&flags).ok();
    assert!(outcome.stdout.contains("expected less than 20, the context"), "{}", outcome.stdout);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let bench = Bench::new();
    bench.write("ids.txt", "104 105\n".repeat(50_000));
    let script = "\"$0\" decode -z bytes.bin -i ids.txt | head -n 3; exit ${PIPESTATUS[0]}";
    let mut piped = std::process::Command::new("bash");
    piped.current_dir(bench.dir.path()).args(["-c", script]).arg(crate::program());
    let outcome = outcome(&mut piped).ok();
    assert_eq!(outcome.stdout, format!("{}\n⛩️  Decoding #0:\nhi\n", "-".repeat(66)));
    assert_eq!(outcome.stderr, "");
}
