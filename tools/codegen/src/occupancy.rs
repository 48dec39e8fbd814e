//! Waves per SIMD: how many waves a kernel's registers, LDS and workgroup size let the hardware
//! keep in flight.
//!
//! Sources of the sizes: AMD's CDNA2, CDNA3, CDNA4, RDNA2, RDNA3 and RDNA4 ISA documents (register
//! files, LDS) and LLVM AMDGPUUsage (granules of allocation, the chips with 1536 registers).

use code_object::{Chip, Encoding};
use serde::Serialize;

/// What a kernel asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// VGPRs of a lane, accumulation registers included.
    pub vgprs: u32,
    /// SGPRs of a wave.
    pub sgprs: u32,
    /// LDS of a workgroup in bytes, what the launch adds included.
    pub lds_bytes: u32,
    /// Work-items of a workgroup.
    pub workgroup: u32,
    /// Lanes of a wave.
    pub wavefront: u32,
    /// Compiled for a whole work-group processor (gfx10 and later).
    pub wgp_mode: bool,
}

/// What keeps the number of waves down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The hardware's maximum is reached.
    Hardware,
    /// Vector registers.
    Vgpr,
    /// Scalar registers (gfx9 and older).
    Sgpr,
    /// LDS.
    Lds,
    /// Workgroups start whole: the rest of the slots fits none, or their number is at its maximum.
    Workgroup,
}

/// Waves per SIMD of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Occupancy {
    /// Waves per SIMD when the chip is full of this kernel; 0 when not one workgroup fits.
    pub waves_per_simd: f64,
    /// The chip's maximum.
    pub max_waves_per_simd: u32,
    /// Workgroups per compute unit (work-group processor in WGP mode).
    pub workgroups: u32,
    /// What the number is limited by.
    pub limited_by: Limit,
}

/// Sizes of the unit that a workgroup runs on: a compute unit, or in WGP mode the pair of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unit {
    /// VGPRs per lane of a SIMD, and the granule they are given out in.
    vgprs: u32,
    vgpr_granule: u32,
    /// SGPRs per SIMD and granule, where waves share a pool.
    sgprs: Option<(u32, u32)>,
    max_waves: u32,
    simds: u32,
    lds_bytes: u32,
    lds_granule: u32,
    /// Workgroups of more than one wave.
    max_workgroups: u32,
}

/// Computes the occupancy; `None` for chips whose sizes are not in the table.
pub fn occupancy(chip: &Chip, demand: &Demand) -> Option<Occupancy> {
    let unit = unit(chip, demand)?;
    let by_vgpr = unit.vgprs / demand.vgprs.max(1).next_multiple_of(unit.vgpr_granule);
    let by_sgpr = unit
        .sgprs
        .map_or(u32::MAX, |(pool, granule)| pool / demand.sgprs.max(1).next_multiple_of(granule));
    let by_registers = by_vgpr.min(by_sgpr).min(unit.max_waves);
    let waves = demand.workgroup.div_ceil(demand.wavefront).max(1);
    let by_slots = by_registers * unit.simds / waves;
    let by_lds = match demand.lds_bytes {
        0 => u32::MAX,
        bytes => unit.lds_bytes / bytes.next_multiple_of(unit.lds_granule),
    };
    let by_count = if waves > 1 { unit.max_workgroups } else { u32::MAX };
    let workgroups = by_slots.min(by_lds).min(by_count);
    let in_flight = workgroups * waves;
    let limited_by = if in_flight == unit.max_waves * unit.simds {
        Limit::Hardware
    } else if by_lds < by_slots.min(by_count) {
        Limit::Lds
    } else if in_flight < by_registers * unit.simds {
        Limit::Workgroup
    } else if by_sgpr < by_vgpr {
        Limit::Sgpr
    } else {
        Limit::Vgpr
    };
    // A workgroup too large for the registers is their fault, not the workgroup's.
    let limited_by = match limited_by {
        Limit::Workgroup if workgroups == 0 && by_registers < unit.max_waves => Limit::Vgpr,
        other => other,
    };
    Some(Occupancy {
        waves_per_simd: f64::from(in_flight) / f64::from(unit.simds),
        max_waves_per_simd: unit.max_waves,
        workgroups,
        limited_by,
    })
}

/// The sizes of the chip in the mode the kernel was compiled for.
fn unit(chip: &Chip, demand: &Demand) -> Option<Unit> {
    let encoding = chip.encoding();
    let gfx9 = Unit {
        vgprs: 256,
        vgpr_granule: 4,
        sgprs: Some((800, 16)),
        max_waves: 10,
        simds: 4,
        lds_bytes: 64 << 10,
        lds_granule: 512,
        max_workgroups: 16,
    };
    match encoding {
        Encoding::Gcn if chip.name.starts_with("gfx9") => return Some(gfx9),
        Encoding::Cdna => {
            let cdna4 = chip.name == "gfx950";
            return Some(Unit {
                vgprs: 512,
                vgpr_granule: 8,
                max_waves: 8,
                lds_bytes: if cdna4 { 160 << 10 } else { 64 << 10 },
                lds_granule: if cdna4 { 1280 } else { 512 },
                ..gfx9
            });
        }
        Encoding::Gcn | Encoding::Gfx125 => return None,
        Encoding::Gfx10 | Encoding::Gfx11 | Encoding::Gfx12 => {}
    }
    let large =
        encoding == Encoding::Gfx12 || matches!(chip.name, "gfx1100" | "gfx1101" | "gfx1151");
    let rdna1 = chip.name.starts_with("gfx101") || chip.name == "gfx10-1-generic";
    let (vgprs, vgpr_granule) = match (large, rdna1) {
        (true, _) => (1536, 24),
        (_, true) => (1024, 8),
        _ => (1024, 16),
    };
    // A wave64 takes each of its registers twice.
    let per_lane = demand.wavefront / 32;
    let units = if demand.wgp_mode { 2 } else { 1 };
    Some(Unit {
        vgprs: vgprs / per_lane,
        vgpr_granule: vgpr_granule / per_lane,
        sgprs: None,
        max_waves: if rdna1 { 20 } else { 16 },
        simds: 2 * units,
        lds_bytes: (64 << 10) * units,
        lds_granule: 512,
        max_workgroups: 16 * units,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use code_object::Feature;

    fn waves(name: &'static str, vgprs: u32, lds_bytes: u32, workgroup: u32) -> (f64, Limit) {
        let chip = Chip { name, xnack: Feature::Any, sramecc: Feature::Any };
        let wavefront = if chip.encoding() == Encoding::Cdna { 64 } else { 32 };
        let wgp_mode = wavefront == 32;
        let demand = Demand { vgprs, sgprs: 32, lds_bytes, workgroup, wavefront, wgp_mode };
        let occupancy = occupancy(&chip, &demand).expect("in the table");
        (occupancy.waves_per_simd, occupancy.limited_by)
    }

    #[test]
    fn registers_limit_by_granule() {
        // 512 / 64 = 8, and one register more takes a granule of 8: 512 / 72 = 7.
        assert_eq!(waves("gfx942", 64, 0, 64), (8.0, Limit::Hardware));
        assert_eq!(waves("gfx942", 65, 0, 64), (7.0, Limit::Vgpr));
        assert_eq!(waves("gfx90a", 512, 0, 64), (1.0, Limit::Vgpr));
        // 1536 / 96 = 16; 1536 / 120 = 12; the smaller file: 1024 / 112 = 9.
        assert_eq!(waves("gfx1151", 96, 0, 32), (16.0, Limit::Hardware));
        assert_eq!(waves("gfx1151", 97, 0, 32), (12.0, Limit::Vgpr));
        assert_eq!(waves("gfx1201", 256, 0, 32), (5.0, Limit::Vgpr));
        assert_eq!(waves("gfx1102", 97, 0, 32), (9.0, Limit::Vgpr));
    }

    #[test]
    fn lds_limits_by_workgroup() {
        // 64 KiB / 17408 = 3 workgroups of 4 waves over 4 SIMDs.
        assert_eq!(waves("gfx90a", 32, 17408, 256), (3.0, Limit::Lds));
        assert_eq!(waves("gfx950", 32, 17408, 256), (8.0, Limit::Hardware));
        // 128 KiB / 33 KiB = 3 workgroups of 8 waves over 4 SIMDs.
        assert_eq!(waves("gfx1100", 32, 33 << 10, 256), (6.0, Limit::Lds));
    }

    #[test]
    fn workgroups_start_whole() {
        // 7 waves per SIMD, 28 in all: one workgroup of 16 waves.
        assert_eq!(waves("gfx942", 72, 0, 1024), (4.0, Limit::Workgroup));
        // 1 wave per SIMD does not hold 16 waves.
        assert_eq!(waves("gfx942", 512, 0, 1024), (0.0, Limit::Vgpr));
        // 16 workgroups of 2 waves: 32 waves on 4 SIMDs, all there is room for.
        assert_eq!(waves("gfx942", 32, 0, 128), (8.0, Limit::Hardware));
    }
}
