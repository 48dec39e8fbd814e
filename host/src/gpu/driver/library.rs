//! Where the drivers' libraries may be.

use std::ffi::c_void;
use std::path::{Path, PathBuf};

use libloading::Library;

use crate::gpu::error::GpuError;

/// Names HIP's runtime goes by, newest first. AMD's Python packages ship only the versioned name;
/// Debian's and ROCm's runtime packages too.
const HIP_NAMES: [&str; 4] =
    ["libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5", "libamdhip64.so"];
const CUDA_NAMES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];
/// Where container runtimes and WSL put NVIDIA's driver without telling the loader.
const CUDA_DIRS: [&str; 3] =
    ["/usr/local/nvidia/lib64", "/usr/local/nvidia/lib", "/usr/lib/wsl/lib"];

/// A library that loaded.
pub(super) struct Found {
    library: &'static Library,
    /// The file, where the loader tells.
    pub(super) path: PathBuf,
}

impl Found {
    /// The address of a function; `None` when the library lacks it.
    pub(super) fn symbol(&self, name: &str) -> Option<*const c_void> {
        // SAFETY: taken as an address only; the table that calls it gives it its type.
        let symbol = unsafe { self.library.get::<*const c_void>(name) };
        symbol.ok().map(|at| *at).filter(|at| !at.is_null())
    }
}

/// AMD's runtime: `$GPTOSS_HIP_LIB` alone when set, else the loader's own search, then ROCm's
/// directories.
pub(super) fn find_hip() -> Result<Found, GpuError> {
    if let Some(path) = std::env::var_os("GPTOSS_HIP_LIB") {
        return first("HIP", vec![PathBuf::from(path)]);
    }
    let mut candidates: Vec<PathBuf> = HIP_NAMES.iter().map(PathBuf::from).collect();
    let rocm_path = std::env::var_os("ROCM_PATH").map(PathBuf::from);
    for root in rocm_path.into_iter().chain(rocm_roots(Path::new("/opt"))) {
        candidates.extend(HIP_NAMES.iter().map(|name| root.join("lib").join(name)));
    }
    first("HIP", candidates)
}

/// NVIDIA's driver.
pub(super) fn find_cuda() -> Result<Found, GpuError> {
    let mut candidates: Vec<PathBuf> = CUDA_NAMES.iter().map(PathBuf::from).collect();
    candidates.extend(CUDA_DIRS.iter().map(|dir| Path::new(dir).join(CUDA_NAMES[0])));
    first("CUDA", candidates)
}

/// `/opt/rocm*`, the highest name first, so that the newest of several versions wins.
fn rocm_roots(opt: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(opt).into_iter().flatten().flatten();
    let mut roots: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("rocm"))
        .map(|entry| entry.path())
        .collect();
    roots.sort_by(|a, b| b.cmp(a));
    roots
}

/// Loads the first candidate that loads. A file that is there but does not load is reported with
/// the loader's reason: a broken installation must not look like an absent one.
fn first(api: &'static str, candidates: Vec<PathBuf>) -> Result<Found, GpuError> {
    let mut broken = Vec::new();
    for candidate in &candidates {
        // SAFETY: the drivers' libraries may be loaded at any time, from any thread.
        match unsafe { Library::new(candidate) } {
            Ok(library) => {
                // Leaked: never unloaded, see driver.rs.
                let library = Box::leak(Box::new(library));
                return Ok(Found { library, path: loaded_file(candidate) });
            }
            Err(error) => {
                if candidate.is_absolute() && candidate.exists() {
                    broken.push(format!("{}: {error}", candidate.display()));
                }
            }
        }
    }
    let tried: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
    Err(GpuError::NoLibrary { api, tried: tried.join(", "), broken: broken.join("; ") })
}

/// The file behind a name that the loader resolved by its own search.
fn loaded_file(candidate: &Path) -> PathBuf {
    let Some(name) = candidate.file_name().map(|name| name.to_string_lossy().into_owned()) else {
        return candidate.to_owned();
    };
    if candidate.is_absolute() {
        return candidate.to_owned();
    }
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let stem = name.split(".so").next().unwrap_or(&name).to_owned() + ".so";
    maps.lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(|path| path.rsplit('/').next().is_some_and(|file| file.starts_with(&stem)))
        .map_or_else(|| candidate.to_owned(), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_names_every_file_tried() {
        let candidates = vec![PathBuf::from("libnone.so.7"), PathBuf::from("/nowhere/libnone.so")];
        let message = first("HIP", candidates).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message.contains("libnone.so.7, /nowhere/libnone.so"), "{message}");
    }

    #[test]
    fn a_file_that_is_no_library_is_reported_as_broken() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let message =
            first("HIP", vec![file.path().to_owned()]).err().map(|e| e.to_string()).unwrap();
        assert!(message.contains("does not load"), "{message}");
    }

    #[test]
    fn newer_rocm_directories_come_first() {
        let opt = tempfile::tempdir().expect("a temporary directory");
        for name in ["rocm-6.4.1", "rocm-7.0.0", "other"] {
            std::fs::create_dir(opt.path().join(name)).expect("a directory");
        }
        let names: Vec<_> = rocm_roots(opt.path())
            .iter()
            .filter_map(|root| root.file_name().map(|n| n.to_string_lossy().into_owned()))
            .collect();
        assert_eq!(names, ["rocm-7.0.0", "rocm-6.4.1"]);
    }
}
