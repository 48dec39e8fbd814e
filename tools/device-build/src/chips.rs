//! Chips by their names, and those of this machine.

use std::fs;
use std::path::Path;
use std::process::Command;

pub use shared::block::Family;
pub use shared::chips::{CHIPS, Chip};

use crate::error::BuildError;

/// The chip called `name`.
///
/// # Errors
///
/// [`BuildError::UnknownChip`] names it and every known one.
pub fn chip(name: &str) -> Result<Chip, BuildError> {
    Chip::find(name).ok_or_else(|| BuildError::UnknownChip {
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

    /// What has to be added elsewhere with a chip.
    #[test]
    fn the_tools_know_every_chip() {
        use code_object::{Feature, chip::is_known};
        use codegen::occupancy::{Demand, occupancy};
        for chip in CHIPS.into_iter().filter(|chip| chip.family != Family::Nvptx) {
            let name = chip.name;
            assert!(is_known(name), "{name}: no number in tools/code-object/src/chip.rs");
            let target = code_object::Chip { name, xnack: Feature::Any, sramecc: Feature::Any };
            let wavefront = chip.family.wave();
            let demand = Demand {
                vgprs: 32,
                sgprs: 32,
                lds_bytes: 0,
                workgroup: 256,
                wavefront,
                wgp_mode: wavefront == 32,
            };
            let sizes = occupancy(&target, &demand);
            assert!(sizes.is_some(), "{name}: no sizes in tools/codegen/src/occupancy.rs");
        }
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
