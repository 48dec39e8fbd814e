//! The chips that can be emulated, and what a runtime reports about them.

use std::fmt;
use std::str::FromStr;

/// A chip whose code objects can be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chip {
    /// RDNA3, Navi 31 (Radeon RX 7900 XTX).
    Gfx1100,
    /// RDNA3.5, Strix Halo (Radeon 8060S): RDNA3 plus scalar float arithmetic.
    Gfx1151,
}

/// A chip name that this emulator does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown chip `{0}`: expected one of gfx1100, gfx1151")]
pub struct UnknownChip(pub String);

/// What a runtime reports about a chip. Figures are AMD's for the board named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Marketing name of the board.
    pub board: &'static str,
    /// Lanes of a wave, as kernels for this chip are compiled by default.
    pub wave_size: u32,
    /// Compute units. HIP counts a WGP (two of them) as one multiprocessor on RDNA.
    pub compute_units: u32,
    /// SIMD units of one compute unit.
    pub simds_per_compute_unit: u32,
    /// Bytes of LDS a workgroup may have.
    pub lds_bytes: u32,
    /// Vector registers of one SIMD, each 32 lanes of 32 bits.
    pub vgprs_per_simd: u32,
    /// Greatest number of threads in a workgroup.
    pub max_threads_per_workgroup: u32,
    /// Greatest number of waves that one SIMD holds.
    pub max_waves_per_simd: u32,
    /// Bytes of L2 cache.
    pub l2_bytes: u32,
    /// Bytes of device memory of the board.
    pub memory_bytes: u64,
    /// Peak clock in kHz.
    pub clock_khz: u32,
    /// Memory clock in kHz.
    pub memory_clock_khz: u32,
    /// Width of the memory bus in bits.
    pub memory_bus_bits: u32,
}

impl Chip {
    /// Every chip, in the order of their names.
    pub const ALL: [Chip; 2] = [Chip::Gfx1100, Chip::Gfx1151];

    /// The LLVM processor name.
    pub const fn name(self) -> &'static str {
        match self {
            Chip::Gfx1100 => "gfx1100",
            Chip::Gfx1151 => "gfx1151",
        }
    }

    /// The LLVM processor name of code that runs on all chips of its family.
    pub const fn generic_name(self) -> &'static str {
        match self {
            Chip::Gfx1100 | Chip::Gfx1151 => "gfx11-generic",
        }
    }

    /// What a runtime reports about this chip.
    pub const fn properties(self) -> Properties {
        let rdna3 = Properties {
            board: "",
            wave_size: 32,
            compute_units: 0,
            simds_per_compute_unit: 2,
            lds_bytes: 64 << 10,
            vgprs_per_simd: 1536,
            max_threads_per_workgroup: 1024,
            max_waves_per_simd: 16,
            l2_bytes: 0,
            memory_bytes: 0,
            clock_khz: 0,
            memory_clock_khz: 0,
            memory_bus_bits: 0,
        };
        match self {
            Chip::Gfx1100 => Properties {
                board: "AMD Radeon RX 7900 XTX",
                compute_units: 96,
                l2_bytes: 6 << 20,
                memory_bytes: 24 << 30,
                clock_khz: 2_498_000,
                memory_clock_khz: 1_249_000,
                memory_bus_bits: 384,
                ..rdna3
            },
            Chip::Gfx1151 => Properties {
                board: "AMD Radeon 8060S",
                compute_units: 40,
                l2_bytes: 2 << 20,
                memory_bytes: 96 << 30,
                clock_khz: 2_900_000,
                memory_clock_khz: 1_000_000,
                memory_bus_bits: 256,
                ..rdna3
            },
        }
    }
}

impl FromStr for Chip {
    type Err = UnknownChip;

    fn from_str(name: &str) -> Result<Chip, UnknownChip> {
        let known = Chip::ALL.into_iter().find(|chip| chip.name() == name);
        known.ok_or_else(|| UnknownChip(name.to_owned()))
    }
}

impl fmt::Display for Chip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for chip in Chip::ALL {
            assert_eq!(chip.name().parse(), Ok(chip));
        }
    }

    #[test]
    fn an_unknown_chip_is_named_in_the_error() {
        let error = "gfx90a".parse::<Chip>().unwrap_err();
        assert_eq!(error.to_string(), "unknown chip `gfx90a`: expected one of gfx1100, gfx1151");
    }
}
