//! The report: one record per kernel and chip. Its JSON form is described in the README.

use serde::Serialize;

use crate::flow::{Flow, loops};
use crate::mix::{Class, Kind, Mix, Operation, Space};
use crate::occupancy::Occupancy;

/// Version of the JSON form; it changes when a key changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// All kernels of all inputs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Kernel by kernel in the inputs' order, the chips of one kernel together.
    pub kernels: Vec<KernelReport>,
}

/// One kernel on one chip.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelReport {
    /// Kernel's symbol.
    pub name: String,
    /// `gfx1151`, `sm_90`.
    pub chip: String,
    /// Where it was read from.
    pub file: String,
    /// Lanes of a wave.
    pub wavefront_size: u32,
    /// Work-items of a workgroup, as launched where the caller said so, else the largest that the
    /// code was compiled for.
    pub workgroup_size: u32,
    /// What the code object declares; `None` for PTX, whose registers are not yet allocated.
    pub resources: Option<Resources>,
    /// Waves per SIMD; `None` for PTX and chips whose sizes are not known.
    pub occupancy: Option<Occupancy>,
    /// Bytes of machine code; `None` for PTX.
    pub code_bytes: Option<u64>,
    /// Calls of functions that were not inlined; their code is not counted here.
    pub calls: u32,
    /// The whole kernel, each instruction once.
    pub mix: Mix,
    /// Its loops in the order of their headers.
    pub loops: Vec<LoopReport>,
    /// Index in `loops` of the one that matters most: see [`main_loop`].
    pub main_loop: Option<usize>,
}

/// Registers and memory of a kernel, as its metadata says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Resources {
    /// VGPRs; on CDNA both kinds of the unified file with the gap between them.
    pub vgpr: u32,
    /// Accumulation registers among them (CDNA).
    pub agpr: u32,
    /// SGPRs.
    pub sgpr: u32,
    /// Static LDS of a workgroup in bytes.
    pub lds_bytes: u32,
    /// LDS that the launch adds; `None` when there is some and the caller did not say how much.
    pub dynamic_lds_bytes: Option<u32>,
    /// Scratch of a lane in bytes.
    pub scratch_bytes: u32,
    /// VGPRs spilled to scratch.
    pub vgpr_spills: u32,
    /// SGPRs spilled to VGPR lanes or scratch.
    pub sgpr_spills: u32,
}

/// One loop.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoopReport {
    /// Address of its first instruction from the start of the kernel; a statement number in PTX.
    pub offset: u64,
    /// 1 for an outermost loop.
    pub depth: u32,
    /// Contains no other loop.
    pub innermost: bool,
    /// One iteration, all branches of the body counted once.
    pub mix: Mix,
}

/// The decoded body of a kernel.
pub(crate) struct Body {
    /// Per instruction.
    pub kinds: Vec<Kind>,
    /// Per instruction.
    pub flow: Vec<Flow>,
    /// Per instruction, from the start of the kernel.
    pub offsets: Vec<u64>,
}

impl Body {
    /// The mix of the whole body.
    pub fn mix(&self) -> Mix {
        Mix::of(&self.kinds)
    }

    /// The loops, ordered by header.
    pub fn loops(&self) -> Vec<LoopReport> {
        loops(&self.flow)
            .into_iter()
            .map(|found| LoopReport {
                offset: self.offsets[found.header],
                depth: found.depth,
                innermost: found.innermost,
                mix: Mix::of(found.body.iter().map(|&index| &self.kinds[index])),
            })
            .collect()
    }
}

/// Chooses the loop that matters most: among innermost loops the one with the most matrix
/// instructions, then the deepest, then the one that moves the most bytes per lane, then the
/// longest.
pub fn main_loop(loops: &[LoopReport]) -> Option<usize> {
    let weight = |found: &LoopReport| {
        let mix = &found.mix;
        let bytes: u32 = [Space::Global, Space::Lds]
            .iter()
            .flat_map(|&space| {
                [Operation::Load, Operation::LoadToLds, Operation::Store]
                    .map(|operation| mix.bytes(space, operation))
            })
            .sum();
        (mix.count(Class::Matrix), found.depth, bytes, mix.instructions)
    };
    loops
        .iter()
        .enumerate()
        .filter(|(_, found)| found.innermost)
        // The first of equals: `max_by_key` alone would take the last.
        .rev()
        .max_by_key(|(_, found)| weight(found))
        .map(|(index, _)| index)
}

impl KernelReport {
    /// The loop that matters most.
    pub fn main(&self) -> Option<&LoopReport> {
        self.loops.get(self.main_loop?)
    }

    /// Every figure under a name, for comparisons; absent ones are left out.
    pub fn figures(&self) -> Vec<(String, f64)> {
        let mut figures: Vec<(String, f64)> = Vec::new();
        let mut add = |name: &str, value: f64| figures.push((name.to_owned(), value));
        if let Some(resources) = &self.resources {
            add("VGPR", resources.vgpr.into());
            add("AGPR", resources.agpr.into());
            add("SGPR", resources.sgpr.into());
            add(
                "LDS bytes",
                (resources.lds_bytes + resources.dynamic_lds_bytes.unwrap_or(0)).into(),
            );
            add("scratch bytes", resources.scratch_bytes.into());
            add("VGPR spills", resources.vgpr_spills.into());
            add("SGPR spills", resources.sgpr_spills.into());
        }
        if let Some(occupancy) = &self.occupancy {
            add("waves/SIMD", occupancy.waves_per_simd);
        }
        if let Some(bytes) = self.code_bytes {
            add("code bytes", bytes as f64);
        }
        add("calls", self.calls.into());
        let loops = self.main().map(|found| ("loop ", &found.mix));
        for (prefix, mix) in [("", &self.mix)].into_iter().chain(loops) {
            add(&format!("{prefix}instructions"), mix.instructions.into());
            for class in Class::ALL {
                add(&format!("{prefix}{}", class.label()), mix.count(class).into());
            }
        }
        figures
    }
}
