//! The rustc calls that make a code object.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use code_object::CodeObject;

use crate::cache::{Stamp, hash_folder, hash_words, refresh};
use crate::check::{Sources, check};
use crate::chips::{CHIPS, Chip, Family};
use crate::error::{AtPath, BuildError};
use crate::library::core_root;
use crate::toolchain::{TESTED_RUSTC, Toolchain};

/// Chips compiled at once: core's peak memory is about 1 GB each.
const MAX_PARALLEL: usize = 2;

/// Clippy, as a compiler; of the toolchain in use.
const CLIPPY: &str = "clippy-driver";
/// Lints of `shared` and `device`: those of the workspace, which only Cargo reads.
const LINTS: [&str; 3] = ["-Wmissing_docs", "-Dunsafe_op_in_unsafe_fn", "-Wunused_qualifications"];
/// Lints of the workspace that only Clippy knows.
const CLIPPY_LINTS: [&str; 4] = [
    "-Dclippy::undocumented_unsafe_blocks",
    "-Dclippy::dbg_macro",
    "-Dclippy::todo",
    "-Dclippy::unimplemented",
];

/// What one chip's build left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The chip it runs on.
    pub chip: Chip,
    /// The ELF code object, or the PTX text for NVIDIA.
    pub path: PathBuf,
    /// The disassembly of the same code; PTX is its own listing.
    pub listing: PathBuf,
    /// False when an earlier build's output was still up to date.
    pub rebuilt: bool,
}

/// The checkout whose kernels are built: `$GPTOSS_ROOT`, else the one around the current folder,
/// else the one this program was compiled in. A checkout may have been moved or copied since, so
/// that the last one may be gone, or another.
fn checkout() -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    find_checkout(std::env::var_os("GPTOSS_ROOT").map(PathBuf::from), &here)
}

fn find_checkout(named: Option<PathBuf>, here: &Path) -> PathBuf {
    let around = || here.ancestors().find(|folder| is_checkout(folder)).map(Path::to_owned);
    named.or_else(around).unwrap_or_else(|| {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR"));
        tool.parent().and_then(Path::parent).unwrap_or(tool).to_owned()
    })
}

fn is_checkout(folder: &Path) -> bool {
    folder.join("device/Cargo.toml").is_file() && folder.join("shared/Cargo.toml").is_file()
}

/// Where code objects go unless told otherwise: `target/kernels` of the checkout.
pub fn default_out() -> PathBuf {
    checkout().join("target/kernels")
}

/// Builds the kernels of every chip in `chips` and puts `NAME.co` and `NAME.s` (or `NAME.ptx`)
/// into `out`. Only what changed is compiled; concurrent calls wait for one another.
///
/// # Errors
///
/// The first chip that failed, in the order of `chips`.
pub fn build(chips: &[Chip], out: &Path) -> Result<Vec<Artifact>, BuildError> {
    let (build, _lock) = Build::open()?;
    fs::create_dir_all(out).at(out)?;
    let queue = Mutex::new(chips.iter().enumerate());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..MAX_PARALLEL.min(chips.len()) {
            scope.spawn(|| {
                while let Some((i, chip)) = next(&queue) {
                    let result = build.chip(*chip, out);
                    done.lock().unwrap_or_else(|e| e.into_inner()).push((i, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    done.sort_by_key(|(i, _)| *i);
    write_index(out)?;
    done.into_iter().map(|(_, result)| result).collect()
}

/// Has Clippy look at the kernels as each of `chips` sees them, with warnings denied.
///
/// # Errors
///
/// The first chip that failed, with what Clippy says.
pub fn lint(chips: &[Chip]) -> Result<(), BuildError> {
    let (build, _lock) = Build::open()?;
    chips.iter().try_for_each(|chip| build.lint(*chip))
}

/// Lists what `out` holds, one `NAME.EXT STAMP` a line, so that a build script has one file
/// to watch. Left alone when nothing changed.
fn write_index(out: &Path) -> Result<(), BuildError> {
    let mut text = String::new();
    for chip in CHIPS {
        if let Ok(stamp) = fs::read_to_string(out.join(format!("{}.stamp", chip.name))) {
            text += &format!("{}.{} {stamp}\n", chip.name, chip.extension());
        }
    }
    let index = out.join("index");
    if fs::read_to_string(&index).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(&index, text).at(&index)
}

fn next<T>(queue: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    queue.lock().unwrap_or_else(|e| e.into_inner()).next()
}

/// What all chips of one call share.
struct Build {
    root: PathBuf,
    toolchain: Toolchain,
    cache: PathBuf,
    core: PathBuf,
    sources: Sources,
    /// Hash of this program's own sources.
    tool: u64,
}

impl Build {
    /// What all chips need, and a lock on it that concurrent calls wait for.
    fn open() -> Result<(Self, File), BuildError> {
        let root = checkout();
        if !is_checkout(&root) {
            return Err(BuildError::NoCheckout { root });
        }
        let toolchain = Toolchain::find(&root)?;
        let cache = root.join("target/kernels").join(&toolchain.id);
        fs::create_dir_all(&cache).at(&cache)?;
        let lock_path = cache.join(".lock");
        let lock = File::create(&lock_path).at(&lock_path)?;
        lock.lock().at(&lock_path)?;
        let sources = Sources {
            shared: hash_folder(&root.join("shared/src"))?,
            device: hash_folder(&root.join("device/src"))?,
        };
        let tool = hash_folder(&root.join("tools/device-build/src"))?;
        let core = core_root(&toolchain, &cache)?;
        Ok((Build { core, root, toolchain, cache, sources, tool }, lock))
    }

    fn stamp(&self, chip: Chip) -> Stamp {
        Stamp::new([
            ("compiler", hash_words([self.toolchain.id.as_str()])),
            (
                "flags",
                hash_words(flags(chip).iter().chain(&kernel_flags(chip)).map(String::as_str)),
            ),
            ("shared/src", self.sources.shared),
            ("device/src", self.sources.device),
            ("tools/device-build/src", self.tool),
        ])
    }

    /// The folder of a chip's libraries.
    fn sysroot(&self, chip: Chip) -> Result<PathBuf, BuildError> {
        let sysroot = self.cache.join(chip.name);
        fs::create_dir_all(&sysroot).at(&sysroot)?;
        Ok(sysroot)
    }

    fn chip(&self, chip: Chip, out: &Path) -> Result<Artifact, BuildError> {
        let sysroot = self.sysroot(chip)?;
        let path = out.join(chip.name).with_extension(chip.extension());
        let listing = match chip.family {
            Family::Nvptx => path.clone(),
            _ => out.join(chip.name).with_extension("s"),
        };
        let stamp = self.stamp(chip);
        let stamp_path = out.join(format!("{}.stamp", chip.name));
        let rebuilt = refresh(&stamp_path, &stamp, &[&path, &listing], |why| {
            eprintln!("device-build: compiling the kernels of {} ({why})", chip.name);
            self.core(chip, &sysroot)?;
            self.kernels(chip, &sysroot, &path, &listing)
        })?;
        Ok(Artifact { chip, path, listing, rebuilt })
    }

    /// core and an empty `compiler_builtins`, the two crates `no_std` code links.
    fn core(&self, chip: Chip, sysroot: &Path) -> Result<(), BuildError> {
        let stamp = Stamp::new([
            ("compiler", hash_words([self.toolchain.id.as_str()])),
            ("flags", hash_words(flags(chip).iter().map(String::as_str))),
        ]);
        let libraries = ["core", "compiler_builtins"].map(|n| sysroot.join(format!("lib{n}.rlib")));
        let outputs: Vec<&Path> = libraries.iter().map(PathBuf::as_path).collect();
        refresh(&sysroot.join("core.stamp"), &stamp, &outputs, |_| {
            let library = ["-Zforce-unstable-if-unmarked", "--cap-lints=allow"];
            self.rlib(chip, "core", &self.core, sysroot, &library)?;
            let empty = sysroot.join("compiler_builtins.rs");
            let source = "#![feature(compiler_builtins)]\n#![compiler_builtins]\n#![no_std]\n";
            fs::write(&empty, source).at(&empty)?;
            self.rlib(chip, "compiler_builtins", &empty, sysroot, &library)
        })?;
        Ok(())
    }

    /// `shared`, which `device` links.
    fn shared(&self, chip: Chip, sysroot: &Path) -> Result<(), BuildError> {
        self.rlib(chip, "shared", &self.root.join("shared/src/lib.rs"), sysroot, &LINTS)
    }

    /// Clippy's opinion of `device`, with warnings denied, unless it was heard already.
    fn lint(&self, chip: Chip) -> Result<(), BuildError> {
        let sysroot = self.sysroot(chip)?;
        refresh(&sysroot.join("lint.stamp"), &self.stamp(chip), &[], |_| {
            self.core(chip, &sysroot)?;
            self.shared(chip, &sysroot)?;
            let mut clippy = self.compiler(CLIPPY, chip, "device", &sysroot);
            clippy.args(["--crate-type=rlib", "--emit=metadata", "--extern=shared", "-Dwarnings"]);
            clippy.arg("--out-dir").arg(sysroot.join("lint"));
            clippy.args(LINTS).args(CLIPPY_LINTS).args(kernel_flags(chip));
            clippy.arg(self.root.join("device/src/lib.rs"));
            self.run(chip, "device", clippy)
        })?;
        Ok(())
    }

    fn rlib(
        &self,
        chip: Chip,
        krate: &'static str,
        source: &Path,
        sysroot: &Path,
        extra: &[&str],
    ) -> Result<(), BuildError> {
        let mut rustc = self.rustc(chip, krate, sysroot);
        // Bitcode only: the machine code of a library would be thrown away by LTO.
        rustc.args(["--crate-type=rlib", "-Clinker-plugin-lto", "--out-dir"]).arg(sysroot);
        rustc.args(extra).arg(source);
        self.run(chip, krate, rustc)
    }

    /// Compiles beside core and moves into place only what passed the check.
    fn kernels(
        &self,
        chip: Chip,
        sysroot: &Path,
        path: &Path,
        listing: &Path,
    ) -> Result<(), BuildError> {
        self.shared(chip, sysroot)?;

        let attributes = sysroot.join("attributes.csv");
        fs::write(&attributes, kernel_attributes(chip)).at(&attributes)?;
        let (object, text) = (sysroot.join("device.co"), sysroot.join("device.ptx"));

        let mut rustc = self.rustc(chip, "device", sysroot);
        rustc.args(["--crate-type=cdylib", "-Clto=fat", "--extern=shared"]);
        rustc.args(LINTS).args(kernel_flags(chip));
        rustc.env("GPTOSS_KERNEL_SOURCES", format!("{:016x}", self.sources.device));
        rustc.arg(format!("-Cllvm-args=--forceattrs-csv-path={}", attributes.display()));
        // One output: with two, the compiler generates code twice, and not always the same. One unit,
        // as PTX is anyway: attributes and register arrays need all of a kernel at once.
        rustc.arg("-Ccodegen-units=1").arg(match chip.family {
            Family::Nvptx => emit("asm", &text),
            _ => emit("link", &object),
        });
        rustc.arg(self.root.join("device/src/lib.rs"));
        self.run(chip, "device", rustc)?;

        if chip.family == Family::Nvptx {
            check(chip, &text, self.sources)?;
            fs::copy(&text, path).at(path)?;
            return Ok(());
        }
        check(chip, &object, self.sources)?;
        let bytes = fs::read(&object).at(&object)?;
        let parsed = CodeObject::parse(&bytes)
            .map_err(|source| BuildError::CodeObject { path: object.clone(), source })?;
        fs::write(listing, crate::listing::listing(&parsed)).at(listing)?;
        fs::copy(&object, path).at(path)?;
        Ok(())
    }

    fn rustc(&self, chip: Chip, krate: &str, sysroot: &Path) -> Command {
        self.compiler(&self.toolchain.rustc, chip, krate, sysroot)
    }

    fn compiler(
        &self,
        program: impl AsRef<OsStr>,
        chip: Chip,
        krate: &str,
        sysroot: &Path,
    ) -> Command {
        let mut rustc = Command::new(program);
        // rustc keeps intermediate files in the working folder, under names that all chips share.
        rustc.current_dir(sysroot).args(["--edition=2024", "--crate-name", krate, "-L"]);
        rustc.arg(sysroot).args(flags(chip));
        rustc
    }

    fn run(&self, chip: Chip, krate: &'static str, mut rustc: Command) -> Result<(), BuildError> {
        let out = rustc.output().map_err(|e| BuildError::NoRustc {
            rustc: rustc.get_program().display().to_string(),
            reason: e.to_string(),
        })?;
        let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
        if !out.status.success() {
            let hint = if self.toolchain.is_tested() {
                String::new()
            } else {
                format!(" with `{}`; tested: `{TESTED_RUSTC}`", self.toolchain.version)
            };
            return Err(BuildError::Compile { chip: chip.name, krate, hint, stderr });
        }
        eprint!("{stderr}");
        Ok(())
    }
}

/// Flags of every crate of `chip`: mixing others would stop inlining between them.
fn flags(chip: Chip) -> Vec<String> {
    let mut flags: Vec<String> = vec![
        format!("--target={}", chip.target()),
        format!("-Ctarget-cpu={}", chip.target_cpu),
        "-Zunstable-options".into(),
        // Below 2 LLVM's GPU back ends miss passes they rely on.
        "-Copt-level=3".into(),
        // A panic is a trap: no message, no formatting code, no call that PTX could not link.
        "-Cpanic=immediate-abort".into(),
    ];
    if chip.family == Family::Nvptx {
        // No linker: the driver compiles the text. So every function must be inlinable.
        flags.extend([
            "-Clinker-flavor=llbc".into(),
            "-Zcross-crate-inline-threshold=always".into(),
        ]);
    }
    flags
}

/// What `device/` is told about the chip.
fn kernel_flags(chip: Chip) -> Vec<String> {
    let families = Family::ALL.map(|f| format!("\"{}\"", f.name())).join(",");
    let chips = CHIPS.map(|c| format!("\"{}\"", c.name)).join(",");
    vec![
        format!("--check-cfg=cfg(family, values({families}))"),
        format!("--check-cfg=cfg(chip, values({chips}))"),
        format!("--cfg=family=\"{}\"", chip.family.name()),
        format!("--cfg=chip=\"{}\"", chip.name),
        // Loops over register arrays must be unrolled whole, however long their bodies: what is not
        // lands in scratch memory.
        "-Cllvm-args=-unroll-threshold=5000".into(),
    ]
}

/// LLVM attributes of every kernel, as its `ForceFunctionAttrs` pass reads them.
///
/// Rust cannot say how many threads share a workgroup's registers, and without that LLVM assumes
/// 1024 on AMD: a kernel of 256 threads on gfx90a then gets 128 of its 512 registers and spills
/// the rest. The table knows the number. On NVIDIA the same fact becomes `.maxntid`.
fn kernel_attributes(chip: Chip) -> String {
    let mut lines = String::new();
    for kernel in shared::kernels::all() {
        let (name, threads) = (kernel.name, (kernel.threads)(chip.family));
        lines += &match chip.family {
            Family::Nvptx => format!("{name},nvvm.maxntid={threads}\n"),
            _ => format!(
                "{name},amdgpu-flat-work-group-size={threads},{threads}\n\
                 {name},uniform-work-group-size=true\n"
            ),
        };
    }
    lines
}

fn emit(kind: &str, path: &Path) -> OsString {
    let mut arg = OsString::from(format!("--emit={kind}="));
    arg.push(path);
    arg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_is_the_one_named_or_around() {
        let dir = tempfile::tempdir().unwrap();
        for part in ["device", "shared"] {
            fs::create_dir_all(dir.path().join(part).join("src")).unwrap();
            fs::write(dir.path().join(part).join("Cargo.toml"), "").unwrap();
        }
        let inside = dir.path().join("device/src");
        assert_eq!(find_checkout(None, &inside), dir.path());
        assert_eq!(find_checkout(Some("/named".into()), &inside), Path::new("/named"));
        let compiled_in = find_checkout(None, Path::new("/"));
        assert!(is_checkout(&compiled_in), "{}", compiled_in.display());
    }
}
