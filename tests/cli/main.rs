//! The real binary: modes, tools, bad input. Needs nothing but the kernels of emulated chips,
//! which are built when they are not there; the model is `tests/data/tiny_bf16` with a tokenizer whose ids are
//! bytes, or the built-in one.

mod bad_input;
mod chat;
mod emulated;
mod getp;
mod golden;
mod paths;
mod text;
mod tools;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a run of the program came to.
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// A folder of its own, with the test tokenizer in it, in which the program runs.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().expect("a folder for the test");
        std::fs::write(dir.path().join("bytes.bin"), byte_tokenizer()).expect("a small file");
        Bench { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).expect("the test writes its input");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("the program wrote the file")
    }

    /// Names and contents of everything in the folder.
    fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.dir.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("the folder is there").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path.clone());
                }
                let content = std::fs::read(&path).unwrap_or_default();
                files.insert(path, content);
            }
        }
        files
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.current_dir(self.dir.path()).args(args).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Outcome {
        outcome(&mut self.command(args))
    }

    /// Runs a model of a few thousand weights: `run -c tiny -z bytes.bin ARGS`.
    fn tiny(&self, args: &[&str]) -> Outcome {
        outcome(&mut self.tiny_command(args))
    }

    fn tiny_command(&self, args: &[&str]) -> Command {
        let tiny = tiny_model();
        let fixed = ["run", "-c", tiny.to_str().expect("an UTF-8 path"), "-z", "bytes.bin"];
        self.command(&[&fixed[..], &["--device", "cpu"], args].concat())
    }
}

fn program() -> &'static str {
    env!("CARGO_BIN_EXE_gptoss")
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name)
}

/// The folder with the kernels of `chips` and of the GPUs in this machine, brought up to date.
fn kernels(chips: &[&str]) -> PathBuf {
    let folder = device_build::default_out();
    let found = device_build::detected_chips();
    let others = found.iter().map(String::as_str).filter(|name| !chips.contains(name));
    let chips: Vec<_> =
        others.chain(chips.iter().copied()).filter_map(|n| device_build::chip(n).ok()).collect();
    device_build::build(&chips, &folder).unwrap_or_else(|e| panic!("{e}"));
    folder
}

fn tiny_model() -> PathBuf {
    data("tiny_bf16")
}

fn outcome(command: &mut Command) -> Outcome {
    let output = command.output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("the program writes text");
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    Outcome { code: output.status.code(), stdout, stderr }
}

impl Outcome {
    /// Succeeded; the outcome again.
    #[track_caller]
    fn ok(self) -> Outcome {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// Refused in one line that holds each of `parts`.
    #[track_caller]
    fn refused(&self, parts: &[&str]) {
        assert!(self.code.is_some_and(|code| code > 0), "exit code {:?}", self.code);
        let lines: Vec<&str> =
            self.stderr.lines().filter(|line| line.starts_with("gptoss: ")).collect();
        let [line] = lines.as_slice() else {
            panic!("expected one line of error: {:?}", self.stderr)
        };
        assert!(!line.contains("internal error"), "{line}");
        assert_eq!(self.stderr.lines().last(), Some(*line), "the error comes last");
        for part in parts {
            assert!(line.contains(part), "{part:?} is not in {line:?}");
        }
    }
}

/// A `tokenizer.bin` of the tiny models' 512 ids: the bytes, then pieces that text hardly holds,
/// and a special token.
fn byte_tokenizer() -> Vec<u8> {
    let mut file = 16i32.to_le_bytes().to_vec();
    let mut record = |score: f32, piece: &[u8]| {
        file.extend(score.to_le_bytes());
        file.extend((piece.len() as i32).to_le_bytes());
        file.extend(piece);
    };
    for byte in 0..=u8::MAX {
        record(f32::from(byte), &[byte]);
    }
    for id in 256..511 {
        record(id as f32, format!("~{id:x}").as_bytes());
    }
    record(-1e30, b"<|special|>");
    file
}
