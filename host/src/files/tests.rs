//! Outputs on a real file system: links, devices, pipes, and writing that stops in the middle.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn pipe(path: &Path) {
    let name = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: `name` is a string that ends in NUL and outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
}

fn refusal(output: &Path, input: &Path) -> String {
    let error = refuse_overlap(("-o", output), &[("the model", input)]).unwrap_err().to_string();
    assert!(error.starts_with(&format!("-o {} is the same file as the model", output.display())));
    assert!(!error.contains('\n'), "{error}");
    error
}

fn accepts(output: &Path, input: &Path) {
    refuse_overlap(("-o", output), &[("the model", input)]).unwrap();
}

/// Names in `dir` that are not in `expected`.
fn leftovers(dir: &Path, expected: &[&str]) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !expected.contains(&name.as_str())).collect()
}

#[test]
fn the_same_name_is_the_same_file() {
    let dir = folder();
    let model = dir.path().join("x.bin");
    fs::write(&model, "weights").unwrap();
    let error = refusal(&model, &model);
    assert!(error.ends_with("x.bin, expected another name"), "{error}");
    let detour = dir.path().join("../").join(dir.path().file_name().unwrap()).join("./x.bin");
    assert!(refusal(&detour, &model).contains("(both are "));
    accepts(&dir.path().join("y.bin"), &model);
}

#[test]
fn a_symbolic_link_is_the_file_behind_it() {
    let dir = folder();
    let [model, one, two] = ["x.bin", "one", "two"].map(|name| dir.path().join(name));
    fs::write(&model, "weights").unwrap();
    symlink("x.bin", &one).unwrap();
    symlink(&one, &two).unwrap();
    for (output, input, link) in [(&two, &model, &two), (&model, &one, &one), (&one, &two, &one)] {
        let error = refusal(output, input);
        assert!(error.contains(&format!("(through the link {})", link.display())), "{error}");
    }
}

#[test]
fn a_hard_link_is_the_same_file() {
    let dir = folder();
    let [model, other] = ["x.bin", "other"].map(|name| dir.path().join(name));
    fs::write(&model, "weights").unwrap();
    fs::hard_link(&model, &other).unwrap();
    assert!(refusal(&other, &model).contains("(a hard link)"));
}

#[test]
fn every_file_of_a_snapshot_is_an_input() {
    let dir = folder();
    let root = dir.path().join("models--a--b");
    let [blobs, revision] = ["blobs", "snapshots/1f"].map(|name| root.join(name));
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(revision.join("original")).unwrap();
    fs::write(blobs.join("77"), "weights").unwrap();
    symlink("../../blobs/77", revision.join("model.safetensors")).unwrap();
    fs::write(revision.join("original/config.json"), "{}").unwrap();
    assert!(refusal(&blobs.join("77"), &revision).contains("1f/model.safetensors (through the"));
    for output in [revision.join("model.safetensors"), revision.join("original/config.json")] {
        refusal(&output, &root);
        assert!(refusal(&output, &revision).contains("snapshots/1f/"));
    }
    // A new file beside them destroys nothing, and neither does a stream.
    accepts(&revision.join("out.txt"), &revision);
    accepts(Path::new("/dev/null"), &revision);
    accepts(Path::new("/dev/null"), Path::new("/dev/null"));
    assert!(refusal(&revision, &revision).contains("1f"));
}

#[test]
fn files_that_are_not_there_yet_are_compared_by_folder_and_name() {
    let dir = folder();
    let [log, link, dangling] = ["log", "link", "dangling"].map(|name| dir.path().join(name));
    symlink(dir.path(), &link).unwrap();
    symlink("log", &dangling).unwrap();
    refusal(&log, &log);
    refusal(&link.join("log"), &log);
    refusal(&dangling, &log);
    refusal(&log, &dangling);
    accepts(&dir.path().join("LOG"), &log);
    accepts(&dir.path().join("nowhere/log"), &log);
    accepts(&log, &dir.path().join("nowhere/log"));
}

#[test]
fn a_circle_of_links_ends() {
    let dir = folder();
    let [a, b, model] = ["a", "b", "x.bin"].map(|name| dir.path().join(name));
    symlink(&a, &b).unwrap();
    symlink(&b, &a).unwrap();
    fs::write(&model, "weights").unwrap();
    assert!(refuse_overlap(("-o", &a), &[("the model", &model)]).is_err());
    // A folder that holds itself is looked into only so deep.
    symlink(dir.path(), dir.path().join("again")).unwrap();
    fs::remove_file(&a).unwrap();
    fs::remove_file(&b).unwrap();
    let elsewhere = folder();
    let output = elsewhere.path().join("out");
    fs::write(&output, "").unwrap();
    accepts(&output, dir.path());
}

#[test]
fn a_new_file_appears_when_it_is_whole() {
    let dir = folder();
    let path = dir.path().join("out");
    let mut output = AtomicFile::create(&path).unwrap();
    output.write_all(b"new").unwrap();
    assert!(!path.exists());
    output.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(leftovers(dir.path(), &["out"]), [""; 0]);
}

#[test]
fn giving_up_in_the_middle_leaves_the_old_bytes_and_nothing_else() {
    let dir = folder();
    let path = dir.path().join("out");
    fs::write(&path, "old").unwrap();
    let mut output = AtomicFile::create(&path).unwrap();
    output.write_all(b"half of the n").unwrap();
    assert_eq!(leftovers(dir.path(), &["out"]).len(), 1);
    drop(output);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(leftovers(dir.path(), &["out"]), [""; 0]);
}

#[test]
fn the_mode_is_that_of_the_replaced_file_or_of_the_umask() {
    let dir = folder();
    let [path, fresh, plain] = ["out", "fresh", "plain"].map(|name| dir.path().join(name));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    fs::write(&path, "old").unwrap();
    for wanted in [0o600, 0o640, 0o666, 0o444] {
        fs::set_permissions(&path, PermissionsExt::from_mode(wanted)).unwrap();
        AtomicFile::create(&path).unwrap().commit().unwrap();
        assert_eq!(mode(&path), wanted);
    }
    AtomicFile::create(&fresh).unwrap().commit().unwrap();
    fs::write(&plain, "").unwrap();
    assert_eq!(mode(&fresh), mode(&plain));
}

#[test]
fn a_hard_link_to_the_replaced_file_keeps_its_bytes() {
    let dir = folder();
    let [path, other] = ["out", "other"].map(|name| dir.path().join(name));
    fs::write(&path, "old").unwrap();
    fs::hard_link(&path, &other).unwrap();
    let mut output = AtomicFile::create(&path).unwrap();
    output.write_all(b"new").unwrap();
    output.commit().unwrap();
    assert_eq!(
        (fs::read(&path).unwrap(), fs::read(&other).unwrap()),
        (b"new".into(), b"old".into())
    );
}

#[test]
fn only_regular_files_are_replaced() {
    let dir = folder();
    let [file, link, dangling, fifo] =
        ["file", "link", "dangling", "fifo"].map(|name| dir.path().join(name));
    fs::write(&file, "old").unwrap();
    symlink(&file, &link).unwrap();
    symlink("gone", &dangling).unwrap();
    pipe(&fifo);
    for (path, kind) in [
        (link.as_path(), "a symbolic link to "),
        (&dangling, "a symbolic link to gone"),
        (&fifo, "a pipe"),
        (Path::new("/dev/null"), "a character device"),
        (dir.path(), "a folder"),
        (Path::new("/"), "a folder"),
        (&dir.path().join("new/"), "a folder"),
    ] {
        let error = AtomicFile::create(path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{} is {kind}", path.display())), "{error}");
        assert!(error.ends_with("expected a regular file or a new name"), "{error}");
    }
    // What is put there while the file is being written stays as well.
    let output = AtomicFile::create(&file).unwrap();
    fs::remove_file(&file).unwrap();
    pipe(&file);
    assert!(output.commit().unwrap_err().to_string().contains("is a pipe"));
    assert!(fs::symlink_metadata(&file).unwrap().file_type().is_fifo());
    let names = ["file", "link", "dangling", "fifo"];
    assert_eq!(leftovers(dir.path(), &names), [""; 0]);
}

#[test]
fn folders_that_cannot_be_written_are_named() {
    let dir = folder();
    let gone = dir.path().join("gone/out");
    let error = AtomicFile::create(&gone).unwrap_err().to_string();
    assert!(error.contains("gone: No such file"), "{error}");
    // Nobody makes files in /proc, the superuser included; permissions do not stop that one.
    assert!(AtomicFile::create(Path::new("/proc/self/out")).is_err());
    let sealed = dir.path().join("sealed");
    fs::create_dir(&sealed).unwrap();
    fs::set_permissions(&sealed, PermissionsExt::from_mode(0o555)).unwrap();
    if File::create(sealed.join("probe")).is_err() {
        let error = AtomicFile::create(&sealed.join("out")).unwrap_err().to_string();
        assert!(error.contains("sealed: Permission denied"), "{error}");
    }
}

#[test]
fn targets_are_told_apart() {
    let dir = folder();
    let [file, link, fifo] = ["file", "link", "fifo"].map(|name| dir.path().join(name));
    fs::write(&file, "").unwrap();
    symlink(&file, &link).unwrap();
    pipe(&fifo);
    let null = dir.path().join("null");
    symlink("/dev/null", &null).unwrap();
    for (path, expected) in [
        (dir.path().join("new"), Target::New),
        (file, Target::Regular),
        (fifo, Target::Stream),
        (null, Target::Stream),
        (PathBuf::from("/dev/full"), Target::Stream),
    ] {
        assert_eq!(target(&path).unwrap(), expected, "{}", path.display());
    }
    assert!(target(&link).unwrap_err().to_string().contains("is a symbolic link to"));
    assert!(target(dir.path()).unwrap_err().to_string().contains("is a folder"));
}

#[test]
fn streams_are_written_and_stay_what_they_are() {
    let dir = folder();
    let fifo = dir.path().join("fifo");
    pipe(&fifo);
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || fs::read(fifo).unwrap()
    });
    open_stream(&fifo).unwrap().write_all(b"through").unwrap();
    assert_eq!(reader.join().unwrap(), b"through");
    assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
    open_stream(Path::new("/dev/null")).unwrap().write_all(b"gone").unwrap();

    let file = dir.path().join("file");
    fs::write(&file, "old").unwrap();
    let error = open_stream(&file).unwrap_err().to_string();
    assert!(error.contains("is a regular file, expected a character device or a pipe"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"old");
    assert!(open_stream(&dir.path().join("new")).unwrap_err().to_string().contains("No such file"));
    assert!(!dir.path().join("new").exists());
}
