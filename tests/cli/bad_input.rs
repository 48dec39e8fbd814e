//! One clear line, a failing exit code, and no file left behind.

use crate::Bench;

#[test]
fn flags_with_wrong_values_are_named() {
    let bench = Bench::new();
    bench.write("in.txt", "1\nhello\n");
    let cases: &[(&[&str], &[&str])] = &[
        (&["-T", "-1"], &["-1", "--temperature", "0 (greedy) or more"]),
        (&["-T", "nan"], &["nan", "--temperature"]),
        (&["-T", "inf"], &["inf", "--temperature"]),
        (&["-p", "0"], &["--top-p", "more than 0 and at most 1"]),
        (&["-p", "1.5"], &["1.5", "--top-p"]),
        (&["-n", "-3"], &["-3", "--steps", "0 or more"]),
        (&["-n", "x"], &["'x'", "--steps"]),
        (&["-n", "99999999999999999999"], &["99999999999999999999", "--steps"]),
        (&["-n", "1000000"], &["-n 1000000", "the model has"]),
        (&["-b", "0"], &["'0'", "--batch", "1 or more"]),
        (&["-b", "-4"], &["-4", "--batch"]),
        (&["-s", "-1"], &["-1", "--seed"]),
        (&["-s", "1.5"], &["1.5", "--seed"]),
        (&["-t", "-1"], &["-1", "--truncate"]),
        (&["-g", "0"], &["'0'", "--gpus"]),
        (&["-g", "2"], &["-g 2", "no GPUs"]),
        (&["-m", "getq"], &["getq", "--mode", "chat"]),
        (&["--threads", "0"], &["'0'", "--threads"]),
        (&["--kv16", "--kv32"], &["--kv16", "--kv32"]),
        (&["--kernels", "nowhere"], &["--kernels nowhere", "no kernels"]),
        (&["--emu-stats"], &["--emu-stats", "emu:CHIP"]),
        (&["--bin-layout", "up"], &["up", "--bin-layout", "swapped"]),
        (&["--device", "gpu"], &["gpu", "--device"]),
        (&["--no-such-flag"], &["--no-such-flag"]),
        (&["-y", "Be brief."], &["-y", "chat"]),
        (&["-m", "generate", "-o", "x"], &["-o", "getp"]),
        (&["-m", "chat", "-v", "x"], &["-v", "getp"]),
        (&["-m", "generate"], &["-i"]),
        (&["--resume"], &["--resume", "-o"]),
        (&["-v", "x"], &["-v", "-o"]),
    ];
    for (flags, parts) in cases {
        let input = if flags.contains(&"generate") { &[][..] } else { &["-i", "in.txt"] };
        // The fixed flags name a device already.
        let fixed = ["run", "-c", "MODEL", "-z", "bytes.bin"];
        let model = crate::tiny_model();
        let fixed = fixed.map(|flag| if flag == "MODEL" { model.to_str().unwrap() } else { flag });
        let device = if flags.contains(&"--device") { &[][..] } else { &["--device", "cpu"] };
        bench.run(&[&fixed[..], device, input, flags].concat()).refused(parts);
    }
}

#[test]
fn commands_need_their_arguments() {
    let bench = Bench::new();
    bench.run(&["nonsense"]).refused(&["nonsense"]);
    bench.run(&["decode"]).refused(&["--input"]);
    bench.run(&["golden"]).refused(&["<DIR>"]);
    bench.run(&["synth", "-o", "x"]).refused(&["--preset"]);
    bench.run(&["synth", "--preset", "7b", "-o", "x"]).refused(&["7b", "120b"]);
    bench.run(&["bench", "gpu"]).refused(&["gpu"]);
    let bare = bench.run(&[]);
    assert_eq!(bare.code, Some(2));
    assert!(bare.stderr.contains("Usage: gptoss"));
}

#[test]
fn input_files_that_lie_are_refused_before_anything_is_written() {
    let bench = Bench::new();
    let megabyte = format!("1\n{}\n", "a".repeat(1 << 20));
    let cases: &[(&[u8], &[&str])] = &[
        (b"", &["line 1", "count is \"\""]),
        (b"many\nhello\n", &["line 1", "\"many\"", "1 or more"]),
        (b"-1\nhello\n", &["line 1", "\"-1\""]),
        (b"0\n", &["line 1", "\"0\""]),
        (b"3\na\nb\n", &["count is 3", "2 prompts follow"]),
        (b"1\na\nb\n", &["count is 1", "2 prompts follow"]),
        (b"99999999999\na\n", &["count is 99999999999", "1 prompts follow"]),
        (b"2\na\n\n", &["line 3", "prompt 1 is empty"]),
        (b"2\r\n\r\nb\r\n", &["line 2", "prompt 0 is empty"]),
        (b"1\n\xff\xfe\n", &["line 2", "byte 0 is not UTF-8"]),
        (
            b"2\nok\na prompt of 22 tokens.\n",
            &["prompt 1 (line 3)", "22 tokens", "at most 20 (-n)"],
        ),
        (megabyte.as_bytes(), &["prompt 0 (line 2)", "1048576 tokens", "at most 20 (-n)"]),
    ];
    for (file, parts) in cases {
        bench.write("in.txt", file);
        let outcome = bench.tiny(&["-i", "in.txt", "-o", "out.txt", "-n", "20"]);
        outcome.refused(&[&["in.txt"], *parts].concat());
        assert!(!bench.path("out.txt").exists() && !bench.path("out.txt.journal").exists());
    }
}

#[test]
fn ids_past_the_models_vocabulary_are_refused() {
    let bench = Bench::new();
    bench.write("in.txt", "1\nExplain the significance of the ROCm WMMA on RDNA3.\n");
    // o200k_harmony on a model with a small vocabulary.
    let tiny = crate::tiny_model();
    let flags = ["run", "-c", tiny.to_str().unwrap(), "--device", "cpu", "-i", "in.txt"];
    bench.run(&flags).refused(&["prompt 0 (line 2)", "token id 176289", "expected 0 to 511"]);
}

#[test]
fn files_that_are_not_there_are_named() {
    let bench = Bench::new();
    bench.write("in.txt", "1\nhello\n");
    bench.tiny(&["-i", "none.txt"]).refused(&["none.txt", "No such file"]);
    bench.tiny(&["-i", "in.txt", "-o", "no/such/folder"]).refused(&["no/such/folder", "No such"]);
    bench.tiny(&["-i", "in.txt", "-o", "/dev/full"]).refused(&["/dev/full", "No space left"]);
    bench.tiny(&["-i", "in.txt", "-o", "."]).refused(&["."]);
    bench.run(&["run", "-c", "none", "-i", "in.txt"]).refused(&["none", "No such file"]);
    bench.run(&["run", "-z", "none.bin", "-i", "in.txt"]).refused(&["none.bin", "No such file"]);
    bench.run(&["decode", "-i", "none.txt"]).refused(&["none.txt"]);
    bench.run(&["golden", "none"]).refused(&["none"]);
    bench.run(&["export", "-c", "none", "-o", "x.bin"]).refused(&["none"]);
    let root = bench.command(&["run", "-m", "20"]).env_remove("MODELBIN_ROOT").output().unwrap();
    assert!(String::from_utf8_lossy(&root.stderr).contains("MODELBIN_ROOT is not set"));
    let root = bench.command(&["run", "-m", "120"]).env("MODELBIN_ROOT", "/none").output().unwrap();
    assert!(String::from_utf8_lossy(&root.stderr).contains("/none/gpt-oss-120b.bin"));
}

#[test]
fn output_files_that_are_none_do_not_decode() {
    let bench = Bench::new();
    bench.write("ids.txt", "1 2\n3 x\n");
    let decode = |line: &str| bench.run(&["decode", line, "-z", "bytes.bin", "-i", "ids.txt"]);
    decode("-1").refused(&["ids.txt", "line 2", "\"x\" is no token id"]);
    decode("0").ok();
    decode("2").refused(&["no line 2", "it has 2"]);
    bench.write("ids.txt", "512\n");
    decode("0").refused(&["line 1", "token id 512", "0 to 511"]);
    bench.write("ids.txt", "");
    decode("0").refused(&["no line 0", "it has 0"]);
    bench.write("ids.txt", b"\xff\n");
    decode("-1").refused(&["ids.txt", "UTF-8"]);
}

#[test]
fn tokenizers_that_lie_are_refused() {
    let bench = Bench::new();
    bench.write("in.txt", "1\nhello\n");
    let good = crate::byte_tokenizer();
    let mut negative = good.clone();
    negative[8..12].copy_from_slice(&(-1i32).to_le_bytes());
    for (file, part) in [
        (&good[..good.len() - 3], "ends inside the bytes of id 511"),
        (&negative, "length of id 0 is -1"),
        (&b"garbage that is long enough"[..], "max_token_length"),
    ] {
        bench.write("bad.bin", file);
        bench.run(&["run", "-z", "bad.bin", "-i", "in.txt"]).refused(&["bad.bin", part]);
    }
}
