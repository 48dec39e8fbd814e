//! Paths that lead to a model, and paths that do not.

use super::*;

const REVISION: &str = "6cee5e81ee83917806bbde320786a8fb61efebee";

fn copy(name: &str, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(data(name).join(file), to.join(file)).unwrap();
    }
}

#[test]
fn a_folder_of_the_cache_is_the_snapshot_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("models--openai--gpt-oss-20b");
    copy("tiny_bf16", &root.join("snapshots").join(REVISION));
    fs::create_dir_all(root.join("blobs")).unwrap();
    assert!(open(&root).is_ok());

    fs::create_dir(root.join("snapshots/other")).unwrap();
    let line = refusal(&root);
    assert!(line.contains("snapshots: 2 snapshots, expected the folder of one"), "{line}");

    fs::create_dir(root.join("refs")).unwrap();
    fs::write(root.join("refs/main"), format!("{REVISION}\n")).unwrap();
    assert!(open(&root).is_ok());
    // It leads nowhere else.
    for main in ["..", "../blobs", "/", "gone", ""] {
        fs::write(root.join("refs/main"), main).unwrap();
        assert!(refusal(&root).contains("2 snapshots"), "{main}");
    }
}

#[test]
fn a_folder_with_nothing_but_original_files_is_those() {
    let dir = tempfile::tempdir().unwrap();
    copy("tiny_mxfp4", &dir.path().join("original"));
    assert!(open(dir.path()).is_ok());
    let mut keys = Vec::new();
    crate::export::print_keys(dir.path(), &mut keys).unwrap();
    assert!(!keys.is_empty());
}

#[test]
fn gguf_is_called_gguf() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gpt-oss-20b-mxfp4.gguf");
    fs::write(&file, b"GGUF\x03\0\0\0").unwrap();
    for path in [file.as_path(), dir.path()] {
        let line = refusal(path);
        assert!(line.contains("GGUF is not read") && line.contains("Hugging Face"), "{line}");
    }
    // By what it holds, not by its name.
    let disguised = dir.path().join("model.bin");
    fs::rename(&file, &disguised).unwrap();
    assert!(refusal(&disguised).contains("GGUF is not read"));
}

#[test]
fn the_name_of_a_repository_is_no_path() {
    let line = refusal(Path::new("openai/gpt-oss-20b"));
    assert!(line.starts_with("openai/gpt-oss-20b: no such file or folder"), "{line}");
    assert!(line.contains("nothing is downloaded"), "{line}");
    for path in ["./openai/gpt-oss-20b", "/openai/gpt-oss-20b", "gone", "a/b/c", "src/gone"] {
        let line = refusal(Path::new(path));
        assert!(line.contains("No such file") && !line.contains("downloaded"), "{line}");
    }
}

#[test]
fn names_from_files_send_nothing_to_the_terminal() {
    const EVIL: &str = "a\x1b]0;x\x07\u{9b}2J\nb";
    let mut draft = Draft::of("tiny_bf16");
    let spare = draft.entry("model.norm.weight").clone();
    draft.tensors.insert(EVIL.to_owned(), spare);
    let dir = draft.write();
    let mut lines = vec![refusal(dir.path())];
    let mut keys = Vec::new();
    crate::export::print_keys(dir.path(), &mut keys).unwrap();
    lines.extend(String::from_utf8(keys).unwrap().lines().map(str::to_owned));
    let mut map = serde_json::Map::new();
    map.insert(EVIL.to_owned(), Value::from("../x"));
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    write_index(dir.path(), map);
    lines.push(refusal(dir.path()));
    let folder = dir.path().join(EVIL);
    fs::create_dir(&folder).unwrap();
    lines.push(refusal(&folder));
    draft.config["model_type"] = Value::from(EVIL);
    draft.write_config(dir.path());
    lines.push(refusal(dir.path()));
    for line in &lines {
        assert!(!line.contains(crate::terminal::is_obeyed), "{line:?}");
    }
    let shown = lines.iter().filter(|line| line.contains("\\u{1b}") || line.contains("\\u001b"));
    assert_eq!(shown.count(), 5);
}
