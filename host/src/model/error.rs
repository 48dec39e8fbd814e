//! What can be wrong with a model on disk.

use std::path::{Path, PathBuf};

use crate::files::FilesError;
use crate::terminal;

/// Why a model was refused; displayed, each is one line that names the file.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file could not be opened, mapped, read or written.
    #[error("{path}: {source}", path = terminal::path(path))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what it should be: its size, its header, its JSON.
    #[error("{path}: {reason}", path = terminal::path(path))]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, with the value found and the value expected.
        reason: String,
    },
    /// A tensor has the wrong dtype or shape.
    #[error("{path}: tensor {} is {got}, expected {expected}", terminal::line(name), path = terminal::path(path))]
    Tensor {
        /// The file that holds the tensor.
        path: PathBuf,
        /// The tensor, as the file calls it.
        name: String,
        /// Its dtype and shape.
        got: String,
        /// The dtypes and the shape that fit the configuration.
        expected: String,
    },
    /// The set of tensors is not the one the configuration calls for.
    #[error("{path}: {count} {what}: {}", terminal::line(&names.join(", ")), path = terminal::path(path))]
    Tensors {
        /// The folder of the model.
        path: PathBuf,
        /// "missing tensors" or "unknown tensors".
        what: &'static str,
        /// How many there are.
        count: usize,
        /// The first few.
        names: Vec<String>,
    },
    /// The user asked to stop.
    #[error("{path}: interrupted, nothing was written", path = terminal::path(path))]
    Interrupted {
        /// What was being written.
        path: PathBuf,
    },
    /// The output was refused or cannot be put in place.
    #[error(transparent)]
    Output(#[from] FilesError),
    /// A value that must be finite is not.
    #[error("{path}: tensor {} holds {value} at index {index}, expected finite values",
        terminal::line(name), path = terminal::path(path))]
    NonFinite {
        /// The file that holds the tensor.
        path: PathBuf,
        /// The tensor, as the file calls it.
        name: String,
        /// Position of the value, in elements.
        index: usize,
        /// NaN or an infinity.
        value: f32,
    },
}

impl ModelError {
    /// An [`ModelError::Io`] at `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ModelError {
        let path = path.to_owned();
        move |source| ModelError::Io { path, source }
    }

    /// A [`ModelError::File`] at `path`.
    pub(crate) fn file(path: &Path, reason: impl ToString) -> ModelError {
        // A reason taken from elsewhere may hold a file's text: keep the message one short line.
        let reason = reason.to_string().replace(['\n', '\r'], " ");
        let reason = terminal::line(&reason).into_owned();
        let reason = match reason.char_indices().nth(300) {
            Some((end, _)) => format!("{}...", &reason[..end]),
            None => reason,
        };
        ModelError::File { path: path.to_owned(), reason }
    }

    /// A [`ModelError::Tensors`] that shows the first few of `names`.
    pub(crate) fn tensors(path: &Path, what: &'static str, names: &[String]) -> ModelError {
        let mut shown: Vec<String> = names.iter().take(5).cloned().collect();
        if names.len() > shown.len() {
            shown.push("...".to_owned());
        }
        ModelError::Tensors { path: path.to_owned(), what, count: names.len(), names: shown }
    }
}
