//! From the path a user gives to the folder or file that holds the model.

use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use super::error::ModelError;

/// First bytes of a GGUF file.
const GGUF: [u8; 4] = *b"GGUF";

/// The model at `path`: the path itself, or a folder below it.
///
/// Of a folder of the Hugging Face cache (`models--ORG--NAME`) it is the snapshot that `refs/main`
/// names, or the only one; of a folder with nothing but OpenAI's files, `original`.
pub fn locate(path: &Path) -> Result<PathBuf, ModelError> {
    let kind = match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && is_repository(path) => {
            return Err(ModelError::file(
                path,
                "no such file or folder; the name of a repository is no path, and nothing is \
                 downloaded: expected the folder of a snapshot",
            ));
        }
        kind => kind.map_err(ModelError::io(path))?,
    };
    if kind.is_dir() {
        return folder(path);
    }
    if is_gguf(path) {
        let reason = "GGUF is not read, expected a Hugging Face folder or a reference .bin";
        return Err(ModelError::file(path, reason));
    }
    if path.extension().is_some_and(|e| e == "safetensors") {
        let reason = "one file of a snapshot, expected the folder that holds it and config.json";
        return Err(ModelError::file(path, reason));
    }
    Ok(path.to_owned())
}

/// Whether a path that is not there looks like `ORG/NAME`.
fn is_repository(path: &Path) -> bool {
    let plain = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(allowed)
    };
    match path.to_str().and_then(|text| text.split_once('/')) {
        Some((owner, name)) => plain(owner) && plain(name) && !Path::new(owner).exists(),
        None => false,
    }
}

/// What cannot be opened is for the reader to report.
fn is_gguf(path: &Path) -> bool {
    let mut start = [0; 4];
    // To open a pipe is to wait for its other end.
    path.is_file()
        && fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok())
        && start == GGUF
}

fn folder(dir: &Path) -> Result<PathBuf, ModelError> {
    let holds_model = |dir: &Path| dir.join("config.json").is_file();
    if holds_model(dir) {
        return Ok(dir.to_owned());
    }
    let snapshots = dir.join("snapshots");
    if snapshots.is_dir() {
        return snapshot(dir, &snapshots);
    }
    let original = dir.join("original");
    if holds_model(&original) {
        return Ok(original);
    }
    let reason = match gguf_inside(dir) {
        Some(name) => format!("GGUF is not read ({name}), expected a Hugging Face folder"),
        None => "config.json is not there, expected a model snapshot".to_owned(),
    };
    Err(ModelError::file(dir, reason))
}

/// The snapshot to take of a folder of the cache.
fn snapshot(dir: &Path, snapshots: &Path) -> Result<PathBuf, ModelError> {
    if let Ok(main) = fs::read_to_string(dir.join("refs/main")) {
        let name = Path::new(main.trim());
        let mut parts = name.components();
        // A reference cannot lead out of the folder.
        let is_plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        let named = snapshots.join(name);
        if is_plain && named.is_dir() {
            return folder(&named);
        }
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(snapshots).map_err(ModelError::io(snapshots))? {
        let path = entry.map_err(ModelError::io(snapshots))?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    match &found[..] {
        [only] => folder(only),
        _ => {
            let reason = format!("{} snapshots, expected the folder of one", found.len());
            Err(ModelError::file(snapshots, reason))
        }
    }
}

/// The name of a GGUF file in `dir`.
fn gguf_inside(dir: &Path) -> Option<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".gguf"))
        .collect();
    names.sort();
    names.into_iter().next()
}
