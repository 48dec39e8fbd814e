use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;
use crate::cpu::KvDtype;
use crate::engine::Sampling;
use crate::gpu::launch::linear::DenseFormat;
use crate::model::bin::BinLayout;

fn job(positions: usize) -> JobKey {
    JobKey {
        requests: 4,
        prompts: 7,
        positions,
        sampling: Sampling { temperature: 0.5, top_p: 0.9, top_k: 40, min_p: 0.1, seed: 3 },
        stop: Vec::new(),
        model: String::from("models/20b"),
        model_files: String::from("1 files, 60 bytes, 0"),
        bin_layout: BinLayout::Ups,
        tokenizer: String::from("o200k_harmony"),
        device: String::from("cpu"),
        dense: DenseFormat::Bf16,
        kv: KvDtype::Bf16,
        version: "0.1.0",
        kernels: 5,
    }
}

/// Lines before the first record.
fn header_lines() -> usize {
    2 + job(64).fields().len()
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.txt");
    (dir, path)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn create(path: &Path) -> Result<OutputFile, JournalError> {
    OutputFile::create(path, 4, &job(64))
}

/// The error of going on with another job's journal.
fn refused(path: &Path, job: &JobKey) -> String {
    match OutputFile::resume(path, 4, job, |_, _| true) {
        Ok(_) => panic!("another job's journal was taken"),
        Err(error) => error.to_string(),
    }
}

fn resume(path: &Path) -> Result<OutputFile, JournalError> {
    let output = OutputFile::resume(path, 4, &job(64), |_, _| true)?;
    Ok(output.expect("the output is unfinished"))
}

fn error(result: Result<OutputFile, JournalError>) -> JournalError {
    result.err().expect("the output is refused")
}

const WHOLE: &str = "1 2\n\n5\n7 8 9\n";

fn finish(mut output: OutputFile) {
    for (request, tokens) in [(0, vec![1, 2]), (1, vec![]), (2, vec![5]), (3, vec![7, 8, 9])] {
        if !output.is_done(request) {
            output.record(request, tokens).unwrap();
        }
    }
    output.finish().unwrap();
}

#[test]
fn an_output_stands_until_the_next_one_is_whole() {
    let (dir, path) = folder();
    std::fs::write(&path, "before\n").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    let mut output = create(&path).unwrap();
    for (request, tokens) in [(3, vec![7, 8, 9]), (0, vec![1, 2]), (1, vec![]), (2, vec![5])] {
        output.record(request, tokens).unwrap();
        assert_eq!(read(&path), "before\n");
    }
    output.finish().unwrap();
    assert_eq!(read(&path), WHOLE);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
}

#[test]
fn a_stream_gets_its_lines_in_request_order_as_soon_as_they_can_come() {
    let (_dir, path) = folder();
    let file = File::create(&path).unwrap();
    let mut output = OutputFile::stream(Box::new(file), 4);
    output.record(3, vec![7, 8, 9]).unwrap();
    assert_eq!(read(&path), "");
    output.record(0, vec![1, 2]).unwrap();
    assert_eq!(read(&path), "1 2\n");
    output.record(1, vec![]).unwrap();
    output.record(2, vec![5]).unwrap();
    assert_eq!(read(&path), WHOLE);
    output.finish().unwrap();
}

#[test]
fn a_run_cut_anywhere_resumes_to_the_same_bytes() {
    let (_dir, path) = folder();
    let mut output = create(&path).unwrap();
    output.record(3, vec![7, 8, 9]).unwrap();
    output.record(0, vec![1, 2]).unwrap();
    drop(output);
    let journal = std::fs::read(journal_path(&path)).unwrap();
    let finished = |cut: usize| {
        let lines = journal[..cut].split_inclusive(|&b| b == b'\n').skip(header_lines());
        lines.filter(|line| line.ends_with(b"\n")).count()
    };
    assert_eq!(finished(journal.len()), 2);
    for cut in 0..=journal.len() {
        std::fs::write(journal_path(&path), &journal[..cut]).unwrap();
        // Whatever the output holds, the journal decides.
        std::fs::write(&path, "1 2\n9").unwrap();
        let output = resume(&path).unwrap();
        let kept = (0..4).filter(|&request| output.is_done(request)).count();
        assert_eq!(kept, finished(cut), "cut at {cut}");
        finish(output);
        assert_eq!(read(&path), WHOLE, "cut at {cut}");
        assert!(!journal_path(&path).exists());
    }
}

#[test]
fn an_output_ended_too_early_is_refused_and_keeps_its_journal() {
    let (_dir, path) = folder();
    let mut output = create(&path).unwrap();
    output.record(0, vec![1, 2]).unwrap();
    let error = output.finish().unwrap_err();
    assert!(matches!(error, JournalError::Missing { request: 1, .. }), "{error}");
    assert!(!path.exists() && journal_path(&path).exists());
}

#[test]
fn an_unfinished_run_is_not_overwritten() {
    let (_dir, path) = folder();
    drop(create(&path).unwrap());
    let error = error(create(&path)).to_string();
    assert!(error.contains("--resume"), "{error}");
}

#[test]
fn a_finished_output_is_recognised() {
    let (_dir, path) = folder();
    finish(create(&path).unwrap());
    let resume =
        |is_whole: fn(usize, &[u32]) -> bool| OutputFile::resume(&path, 4, &job(64), is_whole);
    // Request 1 ends at once, the others after their ids.
    let lengths = |request, ids: &[u32]| ids.len() == [2, 0, 1, 3][request];
    assert!(resume(lengths).unwrap().is_none());
    assert!(!journal_path(&path).exists() && read(&path) == WHOLE);
    let error = resume(|request, _| request != 2).err().unwrap().to_string();
    assert!(error.contains("no journal") && error.contains("line 3"), "{error}");
    for (text, part) in [
        ("1 2\n\n5\n", "3 lines, expected 4"),
        ("1 2\n\n5\n7 8 9\n1\n", "5 lines, expected 4"),
        ("1 2\n\n5\n7 8 9", "4 lines, expected 4 whole ones"),
        ("1 2\n\nx\n7 8 9\n", "line 3"),
        ("", "0 lines"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = resume(|_, _| true).err().unwrap().to_string();
        assert!(error.contains(part), "{error}");
        assert_eq!(read(&path), text);
    }
}

/// Each field alone makes another job.
#[test]
fn another_job_is_refused_with_what_differs() {
    let (_dir, path) = folder();
    drop(create(&path).unwrap());
    assert_eq!(recorded(&path, "seed").as_deref(), Some("3"));
    let message = refused(&path, &job(65));
    assert!(message.contains(r#"-n is "64", expected "65""#), "{message}");
    type Change = fn(&mut JobKey);
    let others: [(&str, Change); 17] = [
        ("requests", |job| job.requests = 5),
        ("prompts", |job| job.prompts = 8),
        ("-T", |job| job.sampling.temperature = 0.25),
        ("-p", |job| job.sampling.top_p = 1.0),
        ("-k", |job| job.sampling.top_k = 0),
        ("--min-p", |job| job.sampling.min_p = 0.0),
        ("seed", |job| job.sampling.seed = 4),
        ("--stop", |job| job.stop = vec![String::from("###")]),
        ("model", |job| job.model = String::from("models/120b")),
        ("model-files", |job| job.model_files = String::from("1 files, 61 bytes, 0")),
        ("--bin-layout", |job| job.bin_layout = BinLayout::Lhl),
        ("tokenizer", |job| job.tokenizer = String::from("tokenizer.bin")),
        ("device", |job| job.device = String::from("gfx1151")),
        ("--dense", |job| job.dense = DenseFormat::Mxint8),
        ("kv", |job| job.kv = KvDtype::F32),
        ("version", |job| job.version = "0.2.0"),
        ("kernels", |job| job.kernels = 6),
    ];
    assert_eq!(others.len() + 1, job(64).fields().len(), "a field without a case");
    for (name, change) in others {
        let mut other = job(64);
        change(&mut other);
        let message = refused(&path, &other);
        assert!(message.contains(&format!("another job: {name} is ")), "{name}: {message}");
    }
    // Greedy does not look at a seed.
    let (_dir, path) = folder();
    let greedy = |seed| {
        let sampling = Sampling { seed, ..Sampling::GREEDY };
        JobKey { sampling, ..job(64) }
    };
    drop(OutputFile::create(&path, 4, &greedy(1)).unwrap());
    assert!(OutputFile::resume(&path, 4, &greedy(2), |_, _| true).unwrap().is_some());
}

#[test]
fn a_path_with_a_line_end_is_one_value() {
    let (_dir, path) = folder();
    let odd = || JobKey { model: String::from("a\n--\n0: 1\n\"b\""), ..job(64) };
    drop(OutputFile::create(&path, 4, &odd()).unwrap());
    let output = OutputFile::resume(&path, 4, &odd(), |_, _| true).unwrap().unwrap();
    assert!((0..4).all(|request| !output.is_done(request)));
    drop(output);
    assert!(!refused(&path, &job(64)).contains('\n'));
}

#[test]
fn a_journal_of_another_format_is_refused_as_such() {
    let (_dir, path) = folder();
    std::fs::write(journal_path(&path), "gptoss getp journal 1\n-n 64\n--\n0: 1\n").unwrap();
    let message = refused(&path, &job(64));
    assert!(message.contains("format is \"gptoss getp journal 1\""), "{message}");
}

#[test]
fn two_runs_do_not_share_an_output() {
    let (_dir, path) = folder();
    let _first = create(&path).unwrap();
    assert!(matches!(error(resume(&path)), JournalError::Busy { .. }));
}

/// The other run may end between the opening of its journal and the lock on it.
#[test]
fn a_journal_that_its_run_removed_meanwhile_is_not_taken() {
    let (_dir, path) = folder();
    let journal = journal_path(&path);
    let file = File::create(&journal).unwrap();
    std::fs::remove_file(&journal).unwrap();
    assert!(matches!(lock(&file, &journal), Err(JournalError::Busy { .. })));
    std::fs::write(&journal, "").unwrap();
    assert!(matches!(lock(&file, &journal), Err(JournalError::Busy { .. })));
}

#[test]
fn an_output_that_may_not_be_replaced_is_refused_before_the_work() {
    let (dir, path) = folder();
    let link = dir.path().join("link");
    for to in ["nowhere", "file"] {
        std::fs::write(dir.path().join("file"), "kept").unwrap();
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(dir.path().join(to), &link).unwrap();
        assert!(error(create(&link)).to_string().contains("is a symbolic link to"));
        assert_eq!(read(&dir.path().join("file")), "kept");
    }
    assert!(!journal_path(&path).exists());
    assert!(error(create(&dir.path().join("no/out.txt"))).to_string().contains("No such file"));
    assert!(error(create(dir.path())).to_string().contains("is a folder"));
}

#[test]
fn a_damaged_journal_is_refused_by_line() {
    let (_dir, path) = folder();
    drop(create(&path).unwrap());
    let header = read(&journal_path(&path));
    let first = header_lines() + 1;
    let with = |records: &[u8]| [header.as_bytes(), records].concat();
    for (bytes, line) in [
        (b"garbage\n".to_vec(), 1),
        (b"garbage".to_vec(), 1),
        (with(b"x: 1\n"), first),
        (with(b"0: 1\n4: 1\n"), first + 1),
        (with(b"0: one\n"), first),
        (with(b"0: 1\n1: \xff\n"), first + 1),
    ] {
        std::fs::write(journal_path(&path), &bytes).unwrap();
        let error = error(resume(&path));
        assert!(matches!(error, JournalError::Damaged { line: l, .. } if l == line), "{error}");
        assert_eq!(std::fs::read(journal_path(&path)).unwrap(), bytes, "it is left as it was");
    }
}

#[test]
fn a_full_device_is_an_error() {
    let path = Path::new("/dev/full");
    let mut output = OutputFile::create(path, 1, &job(64)).unwrap();
    let error = output.record(0, vec![1]).unwrap_err().to_string();
    assert!(error.starts_with("/dev/full: No space left"), "{error}");
    assert!(OutputFile::resume(path, 1, &job(64), |_, _| true).is_err());
}

#[test]
fn the_stamp_of_a_model_follows_its_content() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let stamp = || model_stamp(dir.path()).unwrap();
    write("config.json", "{}");
    write("model.safetensors", "weights");
    let first = stamp();
    write("out.txt", "an output beside the model");
    assert_eq!(stamp(), first);
    write("config.json", "[]");
    let other_config = stamp();
    assert_ne!(other_config, first);
    let weights = File::options().write(true).open(dir.path().join("model.safetensors")).unwrap();
    weights.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_ne!(stamp(), other_config);
    // A file: its header, size and time.
    let bin = dir.path().join("m.bin");
    write("m.bin", "short");
    let first = model_stamp(&bin).unwrap();
    write("m.bin", "shorter");
    assert_ne!(model_stamp(&bin).unwrap(), first);
}

#[test]
fn the_stamp_of_a_folder_of_the_cache_is_that_of_its_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = dir.path().join("snapshots/1f");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(snapshot.join("config.json"), "{}").unwrap();
    let stamp = model_stamp(dir.path()).unwrap();
    assert_eq!(stamp, model_stamp(&snapshot).unwrap());
    assert!(stamp.starts_with("1 files, 2 bytes"), "{stamp}");
}

proptest! {
    #[test]
    fn any_bytes_are_answered(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        records in "([0-9 :a\\n]{0,8}:[0-9 ]{0,6}\\n){0,6}",
        cut in 0usize..1000,
        damage in (0usize..1000, any::<u8>()),
    ) {
        let whole = header(&job(64)) + &records;
        let mut damaged = whole.clone().into_bytes();
        damaged.truncate(cut);
        if let Some(byte) = damaged.get_mut(damage.0) {
            *byte = damage.1;
        }
        for bytes in [&bytes[..], whole.as_bytes(), &damaged] {
            match finished(bytes, &job(64)) {
                Ok(count) => prop_assert!(count <= 4),
                Err(error) => prop_assert!(!error.to_string().contains('\n')),
            }
        }
    }
}
