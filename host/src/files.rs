//! Output files that destroy nothing: an output is never an input, and a file is replaced whole or
//! not at all.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::terminal;

mod overlap;

#[cfg(test)]
mod tests;

pub use overlap::refuse_overlap;

/// Why an output was refused or could not be written; displayed, each is one line.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The system refused.
    #[error("{path}: {source}", path = terminal::path(path))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Writing the output would destroy an input.
    #[error(
        "{output} {} is the same file as {input} {}{link}, expected another name",
        terminal::path(output_path),
        terminal::path(input_path)
    )]
    SameFile {
        /// What the output is: a flag's name.
        output: String,
        /// The output, as it was named.
        output_path: PathBuf,
        /// What the input is.
        input: String,
        /// The input, as it was named; of a folder, the file inside it.
        input_path: PathBuf,
        /// How the two names lead to one file, in brackets; empty where the names are equal.
        link: String,
    },
    /// The name is taken by something that no file may replace, or that is no stream.
    #[error("{path} is {kind}, expected {expected}", path = terminal::path(path))]
    Kind {
        /// The output.
        path: PathBuf,
        /// What is there.
        kind: String,
        /// What may be there.
        expected: &'static str,
    },
}

impl FilesError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> FilesError {
        let path = path.to_owned();
        move |source| FilesError::Io { path, source }
    }
}

/// What an output's name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing yet: [`AtomicFile::create`] makes it.
    New,
    /// A regular file: [`AtomicFile::create`] replaces it.
    Regular,
    /// A terminal, a character device or a pipe, directly or through a link such as `/dev/stdout`:
    /// [`open_stream`] writes to it.
    Stream,
}

const REPLACEABLE: &str = "a regular file or a new name";

/// What `path` stands for; links to files, folders, sockets and disks are refused by name.
pub fn target(path: &Path) -> Result<Target, FilesError> {
    let refuse = |kind: String| FilesError::Kind {
        path: path.to_owned(),
        kind,
        expected: "a regular file, a new name, a character device or a pipe",
    };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Target::New),
        Err(e) => return Err(FilesError::io(path)(e)),
    };
    if found.is_file() {
        return Ok(Target::Regular);
    }
    if found.is_symlink() {
        return match fs::metadata(path) {
            Ok(behind) if is_stream(&behind) => Ok(Target::Stream),
            _ => Err(refuse(kind(path, &found))),
        };
    }
    if is_stream(&found) { Ok(Target::Stream) } else { Err(refuse(kind(path, &found))) }
}

fn is_stream(found: &Metadata) -> bool {
    found.file_type().is_char_device() || found.file_type().is_fifo()
}

/// For people: what is there.
fn kind(path: &Path, found: &Metadata) -> String {
    let file_type = found.file_type();
    if file_type.is_symlink() {
        return match fs::read_link(path) {
            Ok(to) => format!("a symbolic link to {}", terminal::path(&to)),
            Err(_) => "a symbolic link".to_owned(),
        };
    }
    let kind = if file_type.is_dir() {
        "a folder"
    } else if file_type.is_fifo() {
        "a pipe"
    } else if file_type.is_char_device() {
        "a character device"
    } else if file_type.is_block_device() {
        "a disk"
    } else if file_type.is_socket() {
        "a socket"
    } else {
        "a regular file"
    };
    kind.to_owned()
}

/// A file being made under another name; [`AtomicFile::commit`] gives it its own.
///
/// Dropped before that, it leaves nothing behind, and what was under the name stays untouched.
#[derive(Debug)]
pub struct AtomicFile {
    target: PathBuf,
    temporary: tempfile::NamedTempFile,
    /// The folder of both names: a rename is on disk only when the folder is.
    folder: File,
}

impl AtomicFile {
    /// Begins a file that will be called `target`, beside it and readable by whoever may read the
    /// file it replaces, or by whomever the umask says.
    ///
    /// Only a regular file is replaced: a link, a folder, a device or a pipe is an error. Another
    /// hard link to the replaced file keeps the old bytes.
    pub fn create(target: &Path) -> Result<AtomicFile, FilesError> {
        let replaced = replaceable(target)?;
        if target.file_name().is_none() || target.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Err(FilesError::Kind {
                path: target.to_owned(),
                kind: "a folder".to_owned(),
                expected: REPLACEABLE,
            });
        }
        let parent = parent(target);
        let mode = replaced.as_ref().map_or(0o666, |found| found.permissions().mode() & 0o7777);
        let folder = File::open(parent).map_err(FilesError::io(parent))?;
        let temporary = tempfile::Builder::new()
            .prefix(".gptoss-")
            .suffix(".partial")
            .permissions(PermissionsExt::from_mode(mode))
            .tempfile_in(parent)
            .map_err(FilesError::io(parent))?;
        if replaced.is_some() {
            // The umask has taken bits away that the replaced file had.
            let permissions = PermissionsExt::from_mode(mode);
            temporary.as_file().set_permissions(permissions).map_err(FilesError::io(target))?;
        }
        Ok(AtomicFile { target: target.to_owned(), temporary, folder })
    }

    /// The file under its temporary name, to be written.
    pub fn file(&self) -> &File {
        self.temporary.as_file()
    }

    /// Puts the file on disk, and then under its name. After an error nothing has changed, unless
    /// the error is the folder's own: then the new file is there, but a power cut may undo it.
    pub fn commit(self) -> Result<(), FilesError> {
        let AtomicFile { target, temporary, folder } = self;
        // A full disk may show only now.
        temporary.as_file().sync_all().map_err(FilesError::io(&target))?;
        // Someone may have put something else there meanwhile.
        replaceable(&target)?;
        temporary.persist(&target).map_err(|e| FilesError::io(&target)(e.error))?;
        sync(&folder, parent(&target))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.temporary.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temporary.as_file_mut().flush()
    }
}

/// Puts what was renamed into or made in the folder `path` on disk.
pub(crate) fn sync_folder(path: &Path) -> Result<(), FilesError> {
    sync(&File::open(path).map_err(FilesError::io(path))?, path)
}

fn sync(folder: &File, path: &Path) -> Result<(), FilesError> {
    match folder.sync_all() {
        // Not every file system can sync a folder; those that cannot say so.
        Err(e) if e.kind() != io::ErrorKind::InvalidInput => Err(FilesError::io(path)(e)),
        _ => Ok(()),
    }
}

/// What a file called `path` would replace; an error when that is no regular file.
fn replaceable(path: &Path) -> Result<Option<Metadata>, FilesError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(Some(found)),
        Ok(found) => Err(FilesError::Kind {
            path: path.to_owned(),
            kind: kind(path, &found),
            expected: REPLACEABLE,
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FilesError::io(path)(e)),
    }
}

/// The folder that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Opens a character device or a pipe for writing; it is neither made nor emptied.
///
/// A pipe that nobody reads blocks, as it does for every program. A regular file is refused.
pub fn open_stream(path: &Path) -> Result<File, FilesError> {
    let refuse = |found: &Metadata| FilesError::Kind {
        path: path.to_owned(),
        kind: kind(path, found),
        expected: "a character device or a pipe",
    };
    let found = fs::metadata(path).map_err(FilesError::io(path))?;
    if !is_stream(&found) {
        return Err(refuse(&found));
    }
    let file = OpenOptions::new().write(true).open(path).map_err(FilesError::io(path))?;
    // What is open counts, not what was there before.
    let opened = file.metadata().map_err(FilesError::io(path))?;
    if is_stream(&opened) { Ok(file) } else { Err(refuse(&opened)) }
}
