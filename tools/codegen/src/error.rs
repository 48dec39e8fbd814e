//! What can go wrong in a report.

use std::path::PathBuf;

use code_object::CodeObjectError;

use crate::disasm::DisasmError;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodegenError {
    /// A file or directory cannot be read.
    #[error("{}: {reason}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// A file is neither a code object, nor a bundle, nor PTX.
    #[error("{}: not an AMDGPU code object, a clang offload bundle or PTX", path.display())]
    NotCode {
        /// Which.
        path: PathBuf,
    },
    /// A code object or bundle is damaged.
    #[error("{}: {reason}", path.display())]
    CodeObject {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: CodeObjectError,
    },
    /// A PTX file is damaged.
    #[error("{}: {problem}", path.display())]
    Ptx {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// No disassembler.
    #[error(transparent)]
    Disasm(#[from] DisasmError),
    /// The inputs hold no kernels at all.
    #[error("no code objects in {inputs}")]
    Nothing {
        /// What was searched, comma-separated.
        inputs: String,
    },
    /// A chip asked for is in none of the inputs.
    #[error("no code for {chip}; there is {found}")]
    NoChip {
        /// The chip asked for.
        chip: String,
        /// Chips of the inputs, comma-separated.
        found: String,
    },
    /// A kernel asked for is in none of the inputs.
    #[error("no kernel's name contains `{name}`; there are {found}")]
    NoKernel {
        /// The name asked for.
        name: String,
        /// Names of the inputs' kernels, comma-separated.
        found: String,
    },
    /// JSON could not be written.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
}
