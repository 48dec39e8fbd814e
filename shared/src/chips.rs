//! The chips that kernels are built for: the one table.
//!
//! What a tool knows of chips beside that stays with it (the numbers of ELF files, the sizes that
//! occupancy follows from, which can be emulated); a test of `tools/device-build` says what is
//! missing for a chip of this table.

use crate::block::Family;

/// One chip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chip {
    /// The name that users type, drivers report and files carry.
    pub name: &'static str,
    /// Which module of `device/src/arch/` it uses.
    pub family: Family,
    /// rustc's `-C target-cpu`.
    pub target_cpu: &'static str,
}

const fn chip(name: &'static str, family: Family) -> Chip {
    Chip { name, family, target_cpu: name }
}

/// Every chip. Adding one of a known family is one line.
///
/// sm_90 is compiled as sm_90a, the superset with `wgmma` and `setmaxnreg`: its PTX runs on no
/// other generation, and there is no other sm_90.
pub const CHIPS: [Chip; 7] = [
    chip("gfx90a", Family::Gfx9),
    chip("gfx942", Family::Gfx9),
    chip("gfx950", Family::Gfx9),
    chip("gfx1100", Family::Gfx11),
    chip("gfx1151", Family::Gfx11),
    chip("gfx1201", Family::Gfx12),
    Chip { name: "sm_90", family: Family::Nvptx, target_cpu: "sm_90a" },
];

impl Chip {
    /// The chip called `name`.
    pub fn find(name: &str) -> Option<Chip> {
        CHIPS.into_iter().find(|chip| chip.name == name)
    }

    /// rustc's target triple.
    pub const fn target(self) -> &'static str {
        match self.family {
            Family::Nvptx => "nvptx64-nvidia-cuda",
            _ => "amdgcn-amd-amdhsa",
        }
    }

    /// Extension of the file the driver loads: an ELF code object or PTX text.
    pub const fn extension(self) -> &'static str {
        match self.family {
            Family::Nvptx => "ptx",
            _ => "co",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for (i, chip) in CHIPS.iter().enumerate() {
            assert!(CHIPS[..i].iter().all(|other| other.name != chip.name), "{}", chip.name);
            assert_eq!(Chip::find(chip.name), Some(*chip));
        }
        assert_eq!(Chip::find("gfx803"), None);
    }
}
