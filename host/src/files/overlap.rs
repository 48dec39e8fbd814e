//! Whether an output is one of the inputs, whatever the two are called.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::terminal;

use super::{FilesError, is_stream, parent};

/// Folders below an input folder that are looked into: `snapshots/<revision>/original` of a hub
/// cache, and one more.
const MAX_DEPTH: usize = 4;
/// As many links as the system follows.
const MAX_LINKS: usize = 40;

/// Refuses an `output` that is one of `inputs`; each is a word for messages and a path.
///
/// Two names are one file when device and inode agree after every link, or, for a file that is
/// not there yet, when its folder and its name do. An input that is a folder stands for all files
/// in it and in the folders below, those behind links included. A device or a pipe holds nothing
/// that could be lost. What does not exist, on either side, may be named: opening it will say more.
pub fn refuse_overlap(output: (&str, &Path), inputs: &[(&str, &Path)]) -> Result<(), FilesError> {
    let (what, path) = output;
    if fs::metadata(path).is_ok_and(|found| is_stream(&found)) {
        return Ok(());
    }
    let Some(identity) = identity(path)? else { return Ok(()) };
    for &(input, input_path) in inputs {
        if let Some(found) = find(&identity, input_path, 0)? {
            return Err(FilesError::SameFile {
                output: what.to_owned(),
                output_path: path.to_owned(),
                input: input.to_owned(),
                link: link(path, &found),
                input_path: found,
            });
        }
    }
    Ok(())
}

/// What tells one file from another.
#[derive(Debug, PartialEq, Eq)]
enum Identity {
    /// Device and inode.
    Inode(u64, u64),
    /// Of a file that is not there yet: its folder's device and inode, and its name.
    Name(u64, u64, OsString),
}

impl Identity {
    fn of(found: &Metadata) -> Identity {
        Identity::Inode(found.dev(), found.ino())
    }
}

/// The identity of `path`; `None` when even its folder is not there.
fn identity(path: &Path) -> Result<Option<Identity>, FilesError> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::metadata(&path) {
            Ok(found) => return Ok(Some(Identity::of(&found))),
            Err(e) if is_absent(&e) => {}
            Err(e) => return Err(FilesError::io(&path)(e)),
        }
        // A link to a file that is not there yet: the file would be made where it points.
        match fs::read_link(&path) {
            Ok(to) => path = parent(&path).join(to),
            Err(_) => break,
        }
    }
    let Some(name) = path.file_name() else { return Ok(None) };
    match fs::metadata(parent(&path)) {
        Ok(folder) => Ok(Some(Identity::Name(folder.dev(), folder.ino(), name.to_owned()))),
        Err(e) if is_absent(&e) => Ok(None),
        Err(e) => Err(FilesError::io(parent(&path))(e)),
    }
}

/// Nothing there, or a file where a folder was expected.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The file at `input`, or in that folder, that has the identity `wanted`.
fn find(wanted: &Identity, input: &Path, depth: usize) -> Result<Option<PathBuf>, FilesError> {
    let Some(found) = identity(input)? else { return Ok(None) };
    if found == *wanted {
        return Ok(Some(input.to_owned()));
    }
    // A file that is not there yet is in no folder.
    let inside = matches!(wanted, Identity::Inode(..)) && depth < MAX_DEPTH && input.is_dir();
    if !inside {
        return Ok(None);
    }
    for entry in fs::read_dir(input).map_err(FilesError::io(input))? {
        let entry = entry.map_err(FilesError::io(input))?;
        if let Some(path) = find(wanted, &entry.path(), depth + 1)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// How two names lead to one file.
fn link(output: &Path, input: &Path) -> String {
    let is_link = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    if output == input {
        String::new()
    } else if let Some(link) = [output, input].into_iter().find(|path| is_link(path)) {
        format!(" (through the link {})", terminal::path(link))
    } else {
        match (fs::canonicalize(output), fs::canonicalize(input)) {
            (Ok(a), Ok(b)) if a != b => " (a hard link)".to_owned(),
            (Ok(path), Ok(_)) => format!(" (both are {})", terminal::path(&path)),
            _ => String::new(),
        }
    }
}
