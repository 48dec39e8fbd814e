//! Content hashes that say whether an output is up to date, and if not, why.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use shared::hash;

use crate::error::{AtPath, BuildError};
use crate::library::files_below;

/// Hashes of everything an output is made from, by what a person calls it.
pub(crate) struct Stamp(Vec<(&'static str, u64)>);

impl Stamp {
    /// Of `parts`, whose names hold no blank.
    pub fn new(parts: impl IntoIterator<Item = (&'static str, u64)>) -> Self {
        Self(parts.into_iter().collect())
    }

    /// Why `path`, with `outputs` beside it, has to be made; none if it records this stamp.
    pub fn stale(&self, path: &Path, outputs: &[&Path]) -> Option<String> {
        let Ok(found) = fs::read_to_string(path) else { return Some("not built yet".to_owned()) };
        if let Some(missing) = outputs.iter().find(|output| !output.is_file()) {
            return Some(format!("{} is missing", missing.display()));
        }
        let found: Vec<&str> = found.split_whitespace().collect();
        let now = self.to_string();
        let changed = self.0.iter().zip(now.split_whitespace());
        let changed = changed.filter(|(_, part)| !found.contains(part)).map(|((name, _), _)| *name);
        let changed = changed.collect::<Vec<_>>().join(", ");
        (!changed.is_empty()).then(|| format!("changed: {changed}"))
    }
}

/// One line of `NAME=HASH`.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, hash)) in self.0.iter().enumerate() {
            let blank = if i == 0 { "" } else { " " };
            write!(f, "{blank}{name}={hash:016x}")?;
        }
        Ok(())
    }
}

/// Hash of the names and contents of all files below `folder`, as [`shared::hash::of_files`] has it.
pub(crate) fn hash_folder(folder: &Path) -> Result<u64, BuildError> {
    let name = |path: &PathBuf| {
        let below = path.strip_prefix(folder).unwrap_or(path);
        below.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
    };
    let mut files: Vec<_> = files_below(folder)?.into_iter().map(|p| (name(&p), p)).collect();
    files.sort();
    let mut sum = hash::START;
    for (name, path) in files {
        sum = hash::add(hash::add(sum, name.as_bytes()), &fs::read(&path).at(&path)?);
    }
    Ok(sum)
}

/// Hash of words.
pub(crate) fn hash_words<'a>(words: impl IntoIterator<Item = &'a str>) -> u64 {
    words.into_iter().fold(hash::START, |sum, word| hash::add(sum, word.as_bytes()))
}

/// Makes `outputs` with `make`, which is told why, unless the file `path` says that they are made
/// from what `stamp` says already. Returns whether it made them.
pub(crate) fn refresh(
    path: &Path,
    stamp: &Stamp,
    outputs: &[&Path],
    make: impl FnOnce(String) -> Result<(), BuildError>,
) -> Result<bool, BuildError> {
    let Some(why) = stamp.stale(path, outputs) else { return Ok(false) };
    // An interrupted build must not leave a stamp that vouches for half an output.
    if path.exists() {
        fs::remove_file(path).at(path)?;
    }
    make(why)?;
    fs::write(path, stamp.to_string()).at(path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_fingerprint_covers_every_file_of_shared() {
        let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/src");
        assert_eq!(
            hash_folder(&shared).unwrap(),
            shared::kernels::FINGERPRINT,
            "a file of shared/src is not in the list in kernels.rs, or not in order"
        );
    }

    #[test]
    fn outputs_are_made_once_per_content_and_the_reason_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (src, stamp, out) =
            (dir.path().join("src"), dir.path().join("stamp"), dir.path().join("out"));
        fs::create_dir_all(src.join("b")).unwrap();
        let write = |name: &str, text: &str| fs::write(src.join(name), text).unwrap();
        let build = |flags: &str| {
            let print = [("flags", hash_words([flags])), ("src", hash_folder(&src).unwrap())];
            let mut reason = None;
            let made = refresh(&stamp, &Stamp::new(print), &[&out], |why| {
                reason = Some(why);
                fs::write(&out, "made").at(&out)
            });
            assert_eq!(made.unwrap(), reason.is_some());
            reason
        };
        write("a.rs", "one");
        assert_eq!(build("-O").as_deref(), Some("not built yet"));
        assert_eq!(build("-O"), None);
        write("a.rs", "two");
        assert_eq!(build("-O").as_deref(), Some("changed: src"));
        write("b/c.rs", "");
        assert_eq!(build("-g").as_deref(), Some("changed: flags, src"));
        fs::remove_file(&out).unwrap();
        assert_eq!(build("-g"), Some(format!("{} is missing", out.display())));
        fs::write(&stamp, "a stamp of another version").unwrap();
        assert_eq!(build("-g").as_deref(), Some("changed: flags, src"));
        assert_eq!(build("-g"), None);
    }

    #[test]
    fn a_failed_make_is_not_fresh() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stamp");
        fs::write(&path, "x").unwrap();
        let missing = dir.path().join("missing");
        let stamp = Stamp::new([("y", 1)]);
        let failed = refresh(&path, &stamp, &[], |_| fs::read(&missing).map(|_| ()).at(&missing));
        assert!(failed.is_err());
        assert!(!path.exists());
    }
}
