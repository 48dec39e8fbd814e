//! The files that a run reads and writes: what it reads is never overwritten.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use gptoss::files::refuse_overlap;

use super::{Args, LOG_FILE, Mode};

/// Folders below a model's folder that are looked into, as `original/`.
const MODEL_DEPTH: usize = 2;
/// How the files of a model end, its tokenizer's and templates' among them.
const MODEL_FILES: [&str; 5] = ["safetensors", "json", "bin", "gguf", "jinja"];

impl Args {
    /// Refuses outputs that would overwrite something, and a reference that cannot be read, before
    /// any work is done.
    pub fn check_paths(&self) -> Result<()> {
        if let Some(reference) = &self.verify {
            check_readable(reference).with_context(|| format!("-v {}", reference.display()))?;
        }
        let prompts = self.input.as_deref().filter(|_| self.mode.reads_prompts()).map(Path::new);
        let named = [
            ("-i", prompts),
            ("-v", self.verify.as_deref()),
            ("-z", self.tokenizer.as_deref()),
            ("--kernels", self.device.kernels()),
        ];
        let mut inputs: Vec<(&str, &Path)> =
            named.into_iter().filter_map(|(flag, path)| Some((flag, path?))).collect();
        let model = self.checkpoint.as_deref().map(model_files).unwrap_or_default();
        inputs.extend(model.iter().map(|file| ("-c", file.as_path())));
        let output = self.output.as_deref();
        if let Some(output) = output {
            refuse_overlap(("-o", output), &inputs)?;
        }
        if let Some(log) = self.log() {
            inputs.extend(output.map(|output| ("-o", output)));
            refuse_overlap(("-l", log), &inputs)?;
        }
        Ok(())
    }

    /// Where everything printed is copied to.
    pub fn log(&self) -> Option<&Path> {
        self.log.then_some(Path::new(LOG_FILE))
    }
}

impl Mode {
    /// Whether `-i` names a file.
    fn reads_prompts(self) -> bool {
        !matches!(self, Mode::Generate | Mode::Chat)
    }
}

/// An error when a file cannot be read; what is in a pipe is left there.
fn check_readable(path: &Path) -> std::io::Result<()> {
    let found = fs::metadata(path)?;
    if found.is_file() || found.is_dir() {
        // A folder can be opened, but not read.
        let _ = File::open(path)?.read(&mut [0])?;
    }
    Ok(())
}

/// The files of the model at `path`. Other files in its folder, such as an earlier output, are not
/// the model's; what cannot be listed is refused when it is loaded.
fn model_files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let mut files = Vec::new();
    let mut folders = vec![(path.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && depth + 1 < MODEL_DEPTH {
                folders.push((path, depth + 1));
            } else if path.extension().is_some_and(|end| MODEL_FILES.iter().any(|e| end == *e)) {
                files.push(path);
            }
        }
    }
    files
}
