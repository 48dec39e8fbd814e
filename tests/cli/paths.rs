//! What a run reads is never what it writes.

use std::os::unix::fs::symlink;

use crate::{Bench, Outcome, tiny_model};

/// A folder with a model, prompts and a reference in it.
fn bench() -> Bench {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("model")).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(tiny_model().join(file), bench.path("model").join(file)).unwrap();
    }
    bench.write("in.txt", "1\nhello\n");
    bench.write("reference.txt", "1 2 3\n");
    bench
}

fn run(bench: &Bench, flags: &[&str]) -> Outcome {
    let fixed = ["run", "-c", "model", "-z", "bytes.bin", "--device", "cpu", "-i", "in.txt"];
    let reference = if flags.contains(&"-v") { &[][..] } else { &["-v", "reference.txt"] };
    bench.run(&[&fixed[..], &["-n", "20"], reference, flags].concat())
}

#[test]
fn an_output_is_never_an_input() {
    let bench = bench();
    for (index, input) in
        ["in.txt", "reference.txt", "bytes.bin", "model/model.safetensors", "model/config.json"]
            .into_iter()
            .enumerate()
    {
        let (link, hard) = (format!("link{index}"), format!("hard{index}"));
        symlink(input, bench.path(&link)).unwrap();
        std::fs::hard_link(bench.path(input), bench.path(&hard)).unwrap();
        let before = bench.contents();
        for output in [input, &link, &hard, &format!("./model/../{input}")] {
            run(&bench, &["-o", output]).refused(&["-o", output, "the same file", input]);
            assert_eq!(bench.contents(), before, "-o {output}");
        }
    }
}

#[test]
fn a_log_is_neither_an_input_nor_the_output() {
    let bench = bench();
    run(&bench, &["-o", "log.txt", "-l"]).refused(&["-l log.txt", "the same file as -o"]);
    for input in ["in.txt", "model/config.json", "bytes.bin"] {
        symlink(input, bench.path("log.txt")).unwrap();
        let before = bench.contents();
        run(&bench, &["-o", "out.txt", "-l"]).refused(&["-l log.txt", "the same file", input]);
        assert_eq!(bench.contents(), before);
        std::fs::remove_file(bench.path("log.txt")).unwrap();
    }
    bench.write("elsewhere", "kept");
    symlink("elsewhere", bench.path("log.txt")).unwrap();
    run(&bench, &["-o", "out.txt", "-l"]).refused(&["log.txt is a symbolic link to elsewhere"]);
    assert_eq!(bench.read("elsewhere"), "kept");
    bench.write("gt_decoded.txt", "104 105\n");
    bench
        .run(&["decode", "-z", "bytes.bin", "-i", "gt_decoded.txt", "-l"])
        .refused(&["-l gt_decoded.txt", "the same file as -i"]);
    assert_eq!(bench.read("gt_decoded.txt"), "104 105\n");
}

#[test]
fn an_earlier_output_beside_the_model_may_be_replaced() {
    let bench = bench();
    let flags = ["run", "-c", "model", "-z", "bytes.bin", "--device", "cpu", "-i", "in.txt"];
    let flags = [&flags[..], &["-n", "20", "-o", "model/out.txt"]].concat();
    bench.run(&flags).ok();
    bench.run(&flags).ok();
}

#[test]
fn a_reference_that_is_not_there_is_noticed_before_the_work() {
    let bench = bench();
    let before = bench.contents();
    for (reference, part) in [("none.txt", "No such file"), ("model", "Is a directory")] {
        let outcome = run(&bench, &["-o", "out.txt", "-v", reference]);
        outcome.refused(&["-v", reference, part]);
        assert!(!outcome.stdout.contains("model:"), "{}", outcome.stdout);
        assert_eq!(bench.contents(), before);
    }
}
