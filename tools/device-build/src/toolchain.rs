//! The compiler in use: where it is and which one it is.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::BuildError;

/// The compiler the kernels were tested with. Others are tried, and named when they fail.
pub const TESTED_RUSTC: &str = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)";

/// One installed rustc.
pub(crate) struct Toolchain {
    /// Program to run.
    pub rustc: PathBuf,
    /// Root of its libraries and documentation.
    pub sysroot: PathBuf,
    /// First line of `rustc -vV`.
    pub version: String,
    /// Folder name that no other compiler shares.
    pub id: String,
}

impl Toolchain {
    /// Asks `$RUSTC`, or `rustc` as rustup resolves it in the workspace `root`.
    pub fn find(root: &Path) -> Result<Self, BuildError> {
        let rustc = PathBuf::from(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        let ask = |args: &[&str]| {
            let fail =
                |reason: String| BuildError::NoRustc { rustc: rustc.display().to_string(), reason };
            let out = Command::new(&rustc)
                .args(args)
                .current_dir(root)
                .output()
                .map_err(|e| fail(e.to_string()))?;
            if !out.status.success() {
                return Err(fail(String::from_utf8_lossy(&out.stderr).trim().to_owned()));
            }
            Ok(String::from_utf8_lossy(&out.stdout).into_owned())
        };
        let verbose = ask(&["-vV"])?;
        let version = verbose.lines().next().unwrap_or_default().to_owned();
        if !version.contains("-nightly") && !version.contains("-dev") {
            return Err(BuildError::NotNightly { version });
        }
        let field = |name| verbose.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
        let (release, commit) = (field("release:"), field("commit-hash:").unwrap_or("unknown"));
        let id = format!("{}-{commit:.9}", release.unwrap_or("rustc"));
        let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?.trim());
        Ok(Self { rustc, sysroot, version, id })
    }

    /// Whether this is the compiler the kernels were tested with.
    pub fn is_tested(&self) -> bool {
        self.version == TESTED_RUSTC
    }

    /// rustup's name for it, as far as the path tells.
    pub fn rustup_name(&self) -> String {
        let name = self.sysroot.file_name().map(|n| n.to_string_lossy().into_owned());
        name.filter(|n| n.contains("nightly")).unwrap_or_else(|| "nightly".to_owned())
    }
}
