//! What can go wrong between a chip's name and its code object.

use std::path::PathBuf;

use crate::toolchain::TESTED_RUSTC;

/// Why there is no code object. Every message is complete on its own.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The chip is not in [`crate::CHIPS`].
    #[error("unknown chip `{name}`: known chips are {known}")]
    UnknownChip {
        /// What was asked for.
        name: String,
        /// The names that would have worked.
        known: String,
    },
    /// The folder holds no sources to compile.
    #[error(
        "{}: no checkout of gptoss (device/ and shared/ are not there); run in one, or name it in GPTOSS_ROOT",
        root.display()
    )]
    NoCheckout {
        /// The folder.
        root: PathBuf,
    },
    /// rustc could not be started or asked for its version.
    #[error("cannot run `{rustc}`: {reason}; install rustup from https://rustup.rs")]
    NoRustc {
        /// The program tried.
        rustc: String,
        /// What the operating system or rustc said.
        reason: String,
    },
    /// A stable or beta compiler: kernels need unstable features.
    #[error("the kernels need a nightly compiler, this is `{version}`; tested: `{TESTED_RUSTC}`")]
    NotNightly {
        /// First line of `rustc -vV`.
        version: String,
    },
    /// Neither rust-src nor rust-docs is installed for this compiler.
    #[error(
        "no sources of the core library for `{version}`: run `rustup component add rust-src --toolchain {toolchain}`"
    )]
    NoLibrary {
        /// First line of `rustc -vV`.
        version: String,
        /// rustup's name of the toolchain.
        toolchain: String,
    },
    /// A documentation page did not have the expected form.
    #[error("{}: not a rustdoc source page: {what}; run `rustup component add rust-src`", path.display())]
    DocsPage {
        /// The page.
        path: PathBuf,
        /// What was missing.
        what: &'static str,
    },
    /// rustc refused the sources.
    #[error("{chip}: compiling `{krate}` failed{hint}\n{stderr}")]
    Compile {
        /// The chip.
        chip: &'static str,
        /// The crate that did not compile.
        krate: &'static str,
        /// Names the tested compiler when this is another one, else empty.
        hint: String,
        /// rustc's messages.
        stderr: String,
    },
    /// The compiled kernels and the table in `shared/src/kernels.rs` disagree.
    #[error("{}: kernel `{kernel}`: {what}", path.display())]
    Mismatch {
        /// The code object or PTX file.
        path: PathBuf,
        /// The kernel.
        kernel: String,
        /// What was found and what the table says.
        what: String,
    },
    /// The code object could not be read back.
    #[error("{}: {source}", path.display())]
    CodeObject {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: code_object::CodeObjectError,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
}

/// Names the path an I/O error is about.
pub(crate) trait AtPath<T> {
    fn at(self, path: &std::path::Path) -> Result<T, BuildError>;
}

impl<T> AtPath<T> for std::io::Result<T> {
    fn at(self, path: &std::path::Path) -> Result<T, BuildError> {
        self.map_err(|source| BuildError::Io { path: path.to_owned(), source })
    }
}
