//! A conversation on a terminal and on pipes. The model is the built-in one, whose text has no
//! meaning and hardly ever ends by itself: answers end at the limit of the context, or by Ctrl-C.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use nix::pty::openpty;

use crate::{Bench, Outcome};

/// Longest wait for anything; what is waited for comes in a fraction of it.
const PATIENCE: Duration = Duration::from_secs(30);

const CHAT: [&str; 9] = ["run", "-m", "chat", "--device", "cpu", "--threads", "1", "--seed", "1"];

/// The program on a terminal of its own.
struct OnTerminal {
    child: Child,
    keys: File,
    shown: Receiver<Vec<u8>>,
    text: String,
    /// How much of the text was waited for.
    seen: usize,
}

impl OnTerminal {
    fn start(bench: &Bench, flags: &[&str]) -> OnTerminal {
        let pty = openpty(None, None).expect("a pseudo-terminal");
        let tty = || Stdio::from(pty.slave.try_clone().expect("a descriptor"));
        let mut command = bench.command(&[&CHAT[..], flags].concat());
        command.env("TERM", "xterm").stdin(tty()).stdout(tty()).stderr(tty());
        // SAFETY: between fork and exec only these two system calls are made, which take no memory
        // and no lock.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().expect("the program starts");
        drop((command, pty.slave));
        let keys = File::from(pty.master);
        let mut screen = keys.try_clone().expect("a descriptor");
        let (sender, shown) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal without a program is an error to read.
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        OnTerminal { child, keys, shown, text: String::new(), seen: 0 }
    }

    fn type_keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Waits until `part` is shown behind what was waited for before.
    #[track_caller]
    fn wait_for(&mut self, part: &str) {
        let start = Instant::now();
        loop {
            if let Some(at) = self.text[self.seen..].find(part) {
                self.seen += at + part.len();
                return;
            }
            let Ok(bytes) = self.shown.recv_timeout(PATIENCE.saturating_sub(start.elapsed()))
            else {
                let rest: String = self.text[self.seen..].chars().take(500).collect();
                panic!("{part:?} is not shown behind {rest:?}");
            };
            // Characters split over two reads do not matter to what is waited for.
            self.text += &String::from_utf8_lossy(&bytes);
        }
    }

    /// Waits for the end, which has to be a good one.
    #[track_caller]
    fn ends(mut self) -> String {
        let status = self.child.wait().expect("the program ends");
        assert!(status.success(), "{status}: {}", self.text);
        drop(self.keys);
        while let Ok(bytes) = self.shown.recv_timeout(Duration::from_millis(200)) {
            self.text += &String::from_utf8_lossy(&bytes);
        }
        self.text
    }
}

/// The program with `input` on a pipe.
fn piped(bench: &Bench, flags: &[&str], input: &[u8]) -> Outcome {
    let mut command = bench.command(&[&CHAT[..], flags].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input).expect("the program reads");
    drop(stdin);
    let output = child.wait_with_output().expect("the program ends");
    // The model's text is any bytes.
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    Outcome { code: output.status.code(), stdout, stderr }
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

const CUT: &str = "(cut: the context is full; /more continues)";

#[test]
fn lines_that_come_at_once_are_all_answered() {
    let bench = Bench::new();
    let mut chat = OnTerminal::start(&bench, &["-n", "110"]);
    chat.wait_for("> ");
    chat.type_keys("one\rtwo\r");
    chat.wait_for(CUT);
    chat.wait_for(CUT);
    // Typed while nobody reads, or just before.
    chat.type_keys("three\r/effort\rfour\r/effort low\r/effort lots\r");
    for part in [CUT, "(effort is medium)", CUT, "(effort is low from now on)"] {
        chat.wait_for(part);
    }
    chat.wait_for("(effort is \"lots\", expected low, medium or high)");
    chat.type_keys("/quit\r");
    assert_eq!(count(&chat.ends(), CUT), 4);
    let outcome = piped(&bench, &["-n", "110"], b"one\ntwo\nthree").ok();
    assert_eq!(count(&outcome.stdout, CUT), 3, "{}", outcome.stdout);
}

#[test]
fn ctrl_c_cuts_an_answer_and_no_message() {
    let bench = Bench::new();
    let mut chat = OnTerminal::start(&bench, &["-n", "0"]);
    chat.wait_for("context: 131072 tokens (all the model has)");
    chat.wait_for("> ");
    chat.type_keys("one\r");
    // Some of the answer, whatever it says.
    chat.wait_for("\n");
    std::thread::sleep(Duration::from_millis(300));
    chat.type_keys("typed ahead\r");
    chat.type_keys("\x03");
    let start = Instant::now();
    chat.wait_for("(cut; /more continues)");
    // The aim is 0.2 s; a loaded machine has time for its own affairs.
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    chat.wait_for("typed ahead");
    std::thread::sleep(Duration::from_millis(300));
    chat.type_keys("\x03");
    chat.wait_for("(cut; /more continues)");
    chat.type_keys("/more\r");
    std::thread::sleep(Duration::from_millis(300));
    chat.type_keys("\x03");
    chat.wait_for("(cut; /more continues)");
    // At the prompt it says how to leave, and takes nothing along.
    chat.wait_for("> ");
    chat.type_keys("\x03/effort high\r");
    chat.wait_for("(Ctrl-D or /quit leaves)");
    chat.wait_for("(effort is high from now on)");
    chat.wait_for("> ");
    chat.type_keys("\x04");
    chat.ends();
}

#[test]
fn a_terminal_obeys_nothing_the_model_or_the_user_says() {
    let bench = Bench::new();
    let mut chat = OnTerminal::start(&bench, &["-n", "110", "-i", "a\x1b]0;b\x07c"]);
    chat.wait_for("> a\\u{1b}]0;b\\u{7}c");
    chat.wait_for(CUT);
    chat.type_keys("/quit\r");
    assert!(!chat.ends().contains("\x1b]0;"));
}

#[test]
fn a_cut_answer_goes_on_where_it_was_cut() {
    let bench = Bench::new();
    // Two turns with room to spare; the second is cut and goes on in the room that is made.
    let flags = ["-n", "120"];
    let outcome = piped(&bench, &flags, b"/more\none\ntwo\n/more\n").ok();
    for part in ["(no answer was cut, /more has nothing to continue)", CUT, "turn was forgotten"] {
        assert!(outcome.stdout.contains(part), "{part:?} is not in {:?}", outcome.stdout);
    }
    // The same again: seeds come from -s and the turn.
    assert_eq!(piped(&bench, &flags, b"/more\none\ntwo\n/more\n").stdout, outcome.stdout);
}

#[test]
fn a_line_that_cannot_be_sent_is_named_and_the_next_one_answered() {
    let bench = Bench::new();
    let spaces = [b"a", " ".repeat(1_300_000).as_bytes(), b"b\n"].concat();
    let input = [b"na\xefve\n", &spaces[..], b"one\n"].concat();
    let outcome = piped(&bench, &["-n", "110"], &input).ok();
    let named = "(the line is not UTF-8: byte 0xef at 2; it was not sent)";
    for part in [named, "(text of 1300002 bytes cannot be split into tokens", CUT] {
        assert!(outcome.stdout.contains(part), "{part:?} is not in {:?}", outcome.stdout);
    }
    assert_eq!(outcome.stderr, "");
}

#[test]
fn a_message_too_long_is_refused_by_its_numbers() {
    let bench = Bench::new();
    let input = ["word ".repeat(300).as_bytes(), b"\none\n"].concat();
    let outcome = piped(&bench, &["-n", "110"], &input).ok();
    for part in [" tokens with the instructions, expected less than 110, the context", CUT] {
        assert!(outcome.stdout.contains(part), "{part:?} is not in {:?}", outcome.stdout);
    }
}

#[test]
fn the_bench_of_conversations_tells_times_and_their_ratio() {
    let bench = Bench::new();
    let flags = ["bench", "chat", "--device", "cpu", "--tokens", "200", "--samples", "1", "--json"];
    let report: serde_json::Value =
        serde_json::from_str(&bench.run(&flags).ok().stdout).expect("JSON");
    let number = |key: &str| report[key].as_f64().expect("a number");
    assert!(number("short_ms") > 0.0);
    assert_eq!(number("ratio"), number("second_turn_ms") / number("short_ms"));
}
