//! Compiles `device/` for a chip: core, the kernels, and a check of the result against the
//! kernel table.
//!
//! Cargo is not involved: a GPU target has no prebuilt core, `-Zbuild-std` needs the rust-src
//! component even where the same sources are installed as documentation, and one core per chip
//! is needed anyway (LLVM does not inline across differing GPU feature sets). So this calls
//! rustc itself, four times per chip: core, an empty `compiler_builtins`, `shared`, `device`.
//!
//! Everything is cached by content under `target/kernels`; a build with nothing to do only
//! hashes the sources.

mod cache;
mod check;
mod chips;
mod compile;
mod early;
mod error;
mod library;
mod listing;
mod toolchain;

pub use chips::{CHIPS, Chip, Family, chip, detected_chips, parse_chips};
pub use compile::{Artifact, build, default_out, lint};
pub use error::BuildError;
pub use toolchain::TESTED_RUSTC;
