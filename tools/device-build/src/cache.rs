//! Content hashes that say whether an output is up to date.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use crate::error::{AtPath, BuildError};
use crate::library::files_below;

/// Hash of everything an output is made from.
pub(crate) struct Fingerprint(DefaultHasher);

impl Fingerprint {
    /// Starts from what identifies the compiler and its flags.
    pub fn new(parts: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        parts.hash(&mut hasher);
        Self(hasher)
    }

    /// Adds the names and contents of all files below `folder`.
    pub fn add_folder(mut self, folder: &Path) -> Result<Self, BuildError> {
        for path in files_below(folder)? {
            path.strip_prefix(folder).unwrap_or(&path).hash(&mut self.0);
            fs::read(&path).at(&path)?.hash(&mut self.0);
        }
        Ok(self)
    }

    /// The hash as text.
    pub fn finish(self) -> String {
        format!("{:016x}", self.0.finish())
    }
}

/// Whether `stamp` records `fingerprint` and every output is there.
pub(crate) fn is_fresh(stamp: &Path, fingerprint: &str, outputs: &[&Path]) -> bool {
    fs::read_to_string(stamp).is_ok_and(|s| s == fingerprint) && outputs.iter().all(|o| o.is_file())
}

/// Makes `outputs` with `make` unless `stamp` says they are made from the same things already.
/// Returns whether it made them.
pub(crate) fn refresh(
    stamp: &Path,
    fingerprint: &str,
    outputs: &[&Path],
    make: impl FnOnce() -> Result<(), BuildError>,
) -> Result<bool, BuildError> {
    if is_fresh(stamp, fingerprint, outputs) {
        return Ok(false);
    }
    // An interrupted build must not leave a stamp that vouches for half an output.
    if stamp.exists() {
        fs::remove_file(stamp).at(stamp)?;
    }
    make()?;
    fs::write(stamp, fingerprint).at(stamp)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_made_once_per_content() {
        let dir = tempfile::tempdir().unwrap();
        let (src, stamp, out) =
            (dir.path().join("src"), dir.path().join("stamp"), dir.path().join("out"));
        fs::create_dir(&src).unwrap();
        let write = |text: &str| fs::write(src.join("a.rs"), text).unwrap();
        let build = || {
            let print = Fingerprint::new("flags").add_folder(&src).unwrap().finish();
            refresh(&stamp, &print, &[&out], || fs::write(&out, "made").at(&out)).unwrap()
        };
        write("one");
        assert!(build());
        assert!(!build());
        write("two");
        assert!(build());
        fs::remove_file(&out).unwrap();
        assert!(build());
    }

    #[test]
    fn a_failed_make_is_not_fresh() {
        let dir = tempfile::tempdir().unwrap();
        let stamp = dir.path().join("stamp");
        fs::write(&stamp, "x").unwrap();
        let missing = dir.path().join("missing");
        let failed = refresh(&stamp, "y", &[], || fs::read(&missing).map(|_| ()).at(&missing));
        assert!(failed.is_err());
        assert!(!stamp.exists());
    }
}
