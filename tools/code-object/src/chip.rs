//! Chips: the processor a code object was compiled for.
//!
//! Source: LLVM, "User Guide for AMDGPU Backend" (AMDGPUUsage), sections "Header" (`e_flags`) and
//! "Processors".

use crate::CodeObjectError;

/// Whether code depends on an optional hardware feature (xnack, sramecc).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// The chip does not have it.
    Unsupported,
    /// The code runs with it on or off.
    Any,
    /// The code needs it off.
    Off,
    /// The code needs it on.
    On,
}

impl Feature {
    /// Decodes a two-bit field of `e_flags`.
    fn from_bits(bits: u32) -> Feature {
        match bits & 3 {
            0 => Feature::Unsupported,
            1 => Feature::Any,
            2 => Feature::Off,
            _ => Feature::On,
        }
    }
}

/// The processor and its optional features, from the ELF flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chip {
    /// LLVM's processor name: `gfx1151`.
    pub name: &'static str,
    /// Retry of faulting memory accesses.
    pub xnack: Feature,
    /// Error correction of on-chip memories.
    pub sramecc: Feature,
}

/// Chips that share an instruction encoding and the sizes of registers and LDS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encoding {
    /// GCN 1 to 5 and CDNA1 (gfx6 to gfx908): wave64, no unified accumulation registers.
    Gcn,
    /// CDNA2 and later (gfx90a, gfx942, gfx950): wave64, MFMA, unified registers.
    Cdna,
    /// RDNA1 and RDNA2.
    Gfx10,
    /// RDNA3 and RDNA3.5.
    Gfx11,
    /// RDNA4 (gfx1200, gfx1201).
    Gfx12,
    /// gfx1250 and gfx1251: wave32 only, an encoding of their own.
    Gfx125,
}

impl Chip {
    /// Decodes `e_flags` of code object versions 4 to 6.
    ///
    /// # Errors
    ///
    /// [`CodeObjectError::UnknownChip`].
    pub fn from_flags(flags: u32) -> Result<Chip, CodeObjectError> {
        let mach = flags & 0xff;
        let name = MACHS
            .iter()
            .find(|(number, _)| *number == mach)
            .map(|(_, name)| *name)
            .ok_or(CodeObjectError::UnknownChip(mach))?;
        Ok(Chip {
            name,
            xnack: Feature::from_bits(flags >> 8),
            sramecc: Feature::from_bits(flags >> 10),
        })
    }

    /// The encoding of the chip.
    pub fn encoding(&self) -> Encoding {
        encoding(self.name)
    }
}

/// Whether `name` is a processor this crate knows.
pub fn is_known(name: &str) -> bool {
    MACHS.iter().any(|(_, known)| *known == name)
}

/// The encoding of the processor `name`, one of the table's.
fn encoding(name: &str) -> Encoding {
    match name {
        "gfx90a" | "gfx942" | "gfx950" | "gfx9-4-generic" => Encoding::Cdna,
        "gfx1250" | "gfx1251" => Encoding::Gfx125,
        _ if name.starts_with("gfx10") => Encoding::Gfx10,
        _ if name.starts_with("gfx11") => Encoding::Gfx11,
        _ if name.starts_with("gfx12") => Encoding::Gfx12,
        _ => Encoding::Gcn,
    }
}

/// EF_AMDGPU_MACH values. Those of gfx940 and gfx941, which LLVM dropped, are left out.
const MACHS: [(u32, &str); 53] = [
    (0x20, "gfx600"),
    (0x21, "gfx601"),
    (0x22, "gfx700"),
    (0x23, "gfx701"),
    (0x24, "gfx702"),
    (0x25, "gfx703"),
    (0x26, "gfx704"),
    (0x28, "gfx801"),
    (0x29, "gfx802"),
    (0x2a, "gfx803"),
    (0x2b, "gfx810"),
    (0x2c, "gfx900"),
    (0x2d, "gfx902"),
    (0x2e, "gfx904"),
    (0x2f, "gfx906"),
    (0x30, "gfx908"),
    (0x31, "gfx909"),
    (0x32, "gfx90c"),
    (0x33, "gfx1010"),
    (0x34, "gfx1011"),
    (0x35, "gfx1012"),
    (0x36, "gfx1030"),
    (0x37, "gfx1031"),
    (0x38, "gfx1032"),
    (0x39, "gfx1033"),
    (0x3a, "gfx602"),
    (0x3b, "gfx705"),
    (0x3c, "gfx805"),
    (0x3d, "gfx1035"),
    (0x3e, "gfx1034"),
    (0x3f, "gfx90a"),
    (0x41, "gfx1100"),
    (0x42, "gfx1013"),
    (0x43, "gfx1150"),
    (0x44, "gfx1103"),
    (0x45, "gfx1036"),
    (0x46, "gfx1101"),
    (0x47, "gfx1102"),
    (0x48, "gfx1200"),
    (0x49, "gfx1250"),
    (0x4a, "gfx1151"),
    (0x4c, "gfx942"),
    (0x4e, "gfx1201"),
    (0x4f, "gfx950"),
    (0x51, "gfx9-generic"),
    (0x52, "gfx10-1-generic"),
    (0x53, "gfx10-3-generic"),
    (0x54, "gfx11-generic"),
    (0x55, "gfx1152"),
    (0x58, "gfx1153"),
    (0x59, "gfx12-generic"),
    (0x5a, "gfx1251"),
    (0x5f, "gfx9-4-generic"),
];
