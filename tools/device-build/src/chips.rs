//! The chips kernels are built for.

use std::fs;
use std::path::Path;
use std::process::Command;

pub use shared::block::Family;

use crate::error::BuildError;

/// One chip kernels can be built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chip {
    /// The name users type and files carry.
    pub name: &'static str,
    /// Which module of `device/src/arch/` it uses.
    pub family: Family,
    /// rustc's `-C target-cpu`.
    pub target_cpu: &'static str,
}

impl Chip {
    /// rustc's target triple.
    pub fn target(self) -> &'static str {
        match self.family {
            Family::Nvptx => "nvptx64-nvidia-cuda",
            _ => "amdgcn-amd-amdhsa",
        }
    }

    /// Extension of the file the driver loads: an ELF code object or PTX text.
    pub fn extension(self) -> &'static str {
        match self.family {
            Family::Nvptx => "ptx",
            _ => "co",
        }
    }
}

const fn chip_of(name: &'static str, family: Family) -> Chip {
    Chip { name, family, target_cpu: name }
}

/// Every chip. Adding one of a known family is one line.
///
/// sm_90 is compiled as sm_90a, the superset with `wgmma` and `setmaxnreg`: its PTX runs on no
/// other generation, and there is no other sm_90.
pub const CHIPS: [Chip; 7] = [
    chip_of("gfx90a", Family::Gfx9),
    chip_of("gfx942", Family::Gfx9),
    chip_of("gfx950", Family::Gfx9),
    chip_of("gfx1100", Family::Gfx11),
    chip_of("gfx1151", Family::Gfx11),
    chip_of("gfx1201", Family::Gfx12),
    Chip { name: "sm_90", family: Family::Nvptx, target_cpu: "sm_90a" },
];

/// The chip called `name`.
///
/// # Errors
///
/// [`BuildError::UnknownChip`] names it and every known one.
pub fn chip(name: &str) -> Result<Chip, BuildError> {
    CHIPS.into_iter().find(|c| c.name == name).ok_or_else(|| BuildError::UnknownChip {
        name: name.to_owned(),
        known: CHIPS.map(|c| c.name).join(", "),
    })
}

/// Reads a `--arch` list: names separated by commas, or `all`. Duplicates count once.
///
/// # Errors
///
/// [`BuildError::UnknownChip`] for the first name that is none.
pub fn parse_chips(list: &str) -> Result<Vec<Chip>, BuildError> {
    if list == "all" {
        return Ok(CHIPS.to_vec());
    }
    let mut chips = Vec::new();
    for name in list.split(',').map(str::trim) {
        let chip = chip(name)?;
        if !chips.contains(&chip) {
            chips.push(chip);
        }
    }
    Ok(chips)
}

/// The names of the GPUs in this machine, supported or not, without loading a driver: AMD's
/// from the kernel's KFD topology, NVIDIA's from `nvidia-smi`.
pub fn detected_chips() -> Vec<String> {
    let mut names = kfd_chips(Path::new("/sys/class/kfd/kfd/topology/nodes"));
    if Path::new("/proc/driver/nvidia/gpus").exists() {
        let query = ["--query-gpu=compute_cap", "--format=csv,noheader"];
        if let Ok(out) = Command::new("nvidia-smi").args(query).output() {
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            names.extend(text.lines().map(|l| format!("sm_{}", l.trim().replace('.', ""))));
        }
    }
    names.sort();
    names.dedup();
    names
}

fn kfd_chips(nodes: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(nodes) else { return Vec::new() };
    let properties =
        entries.flatten().filter_map(|e| fs::read_to_string(e.path().join("properties")).ok());
    properties.filter_map(|text| gfx_name(&text)).collect()
}

/// `gfx_target_version` packs major, minor and stepping as decimal pairs; the name writes minor
/// and stepping as one hexadecimal digit each. CPUs have version 0.
fn gfx_name(properties: &str) -> Option<String> {
    let line = properties.lines().find_map(|l| l.strip_prefix("gfx_target_version "))?;
    let version: u32 = line.trim().parse().ok()?;
    let (major, minor, stepping) = (version / 10000, version / 100 % 100, version % 100);
    (major > 0).then(|| format!("gfx{major}{minor:x}{stepping:x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_chip_is_named() {
        let error = parse_chips("gfx1151,gfx803").unwrap_err().to_string();
        assert!(error.starts_with("unknown chip `gfx803`"), "{error}");
        assert!(error.contains("gfx1151"), "{error}");
        assert!(parse_chips("").is_err());
    }

    #[test]
    fn a_list_keeps_its_order_and_drops_duplicates() {
        let names: Vec<_> =
            parse_chips("sm_90, gfx90a,sm_90").unwrap().iter().map(|c| c.name).collect();
        assert_eq!(names, ["sm_90", "gfx90a"]);
        assert_eq!(parse_chips("all").unwrap().len(), CHIPS.len());
    }

    #[test]
    fn kfd_versions_become_names() {
        let name = |v| gfx_name(&format!("cpu_cores_count 0\ngfx_target_version {v}\n"));
        assert_eq!(name(110501).as_deref(), Some("gfx1151"));
        assert_eq!(name(90010).as_deref(), Some("gfx90a"));
        assert_eq!(name(90402).as_deref(), Some("gfx942"));
        assert_eq!(name(0), None);
    }
}
