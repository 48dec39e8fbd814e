//! Reports of AMDGPU code objects.

use code_object::{CodeObject, Kernel};

use crate::Launch;
use crate::classify::{Context, classify};
use crate::disasm::{DisasmError, Disassembler, Instruction};
use crate::flow::Flow;
use crate::mix::Space;
use crate::occupancy::{Demand, occupancy};
use crate::report::{Body, KernelReport, Resources, main_loop};

/// Reports every kernel of a code object.
pub(crate) fn kernels(
    object: &CodeObject,
    file: &str,
    launches: &[Launch],
) -> Result<Vec<KernelReport>, DisasmError> {
    object.kernels.iter().map(|kernel| report(object, kernel, file, launches)).collect()
}

fn report(
    object: &CodeObject,
    kernel: &Kernel,
    file: &str,
    launches: &[Launch],
) -> Result<KernelReport, DisasmError> {
    let metadata = &kernel.metadata;
    let launch = launches.iter().find(|launch| launch.kernel == kernel.name());
    let compiled_for = metadata.reqd_workgroup_size.map_or(metadata.max_flat_workgroup_size, |s| {
        s.iter().copied().fold(1, u32::saturating_mul)
    });
    let workgroup_size = launch.and_then(|launch| launch.workgroup_size).unwrap_or(compiled_for);
    let (body, calls) = body(object, kernel)?;
    let mix = body.mix();
    let dynamic_lds_bytes = match launch {
        Some(launch) => Some(launch.dynamic_lds_bytes),
        // LDS is used and none is declared: the launch brings it.
        None if metadata.group_segment_fixed_size == 0 && mix.touches(Space::Lds) => None,
        None => Some(0),
    };
    let demand = Demand {
        vgprs: metadata.vgpr_count,
        sgprs: metadata.sgpr_count,
        lds_bytes: metadata.group_segment_fixed_size.saturating_add(dynamic_lds_bytes.unwrap_or(0)),
        workgroup: workgroup_size,
        wavefront: metadata.wavefront_size,
        wgp_mode: metadata.workgroup_processor_mode,
    };
    let loops = body.loops();
    Ok(KernelReport {
        name: kernel.name().to_owned(),
        chip: object.chip.name.to_owned(),
        file: file.to_owned(),
        wavefront_size: metadata.wavefront_size,
        workgroup_size,
        resources: Some(Resources {
            vgpr: metadata.vgpr_count,
            agpr: metadata.agpr_count,
            sgpr: metadata.sgpr_count,
            lds_bytes: metadata.group_segment_fixed_size,
            dynamic_lds_bytes,
            scratch_bytes: metadata.private_segment_fixed_size,
            vgpr_spills: metadata.vgpr_spill_count,
            sgpr_spills: metadata.sgpr_spill_count,
        }),
        occupancy: occupancy(&object.chip, &demand),
        code_bytes: Some(kernel.code.end - kernel.code.start),
        calls,
        mix,
        main_loop: main_loop(&loops),
        loops,
    })
}

/// Disassembles and classifies a kernel; also the number of calls in it.
fn body(object: &CodeObject, kernel: &Kernel) -> Result<(Body, u32), DisasmError> {
    let features = match kernel.metadata.wavefront_size {
        64 => "+wavefrontsize64",
        _ => "+wavefrontsize32",
    };
    let disassembler = Disassembler::with_features(object.chip.name, features)?;
    let context = Context {
        buffer_is_scratch: kernel.descriptor.properties.enable_sgpr_private_segment_buffer()
            && kernel.metadata.private_segment_fixed_size > 0,
    };
    let start = kernel.code.start;
    let listing: Vec<Instruction> = disassembler.instructions(object.code(kernel), start).collect();
    let index_of = |address: u64| listing.binary_search_by_key(&address, |i| i.address).ok();
    let is_call = |i: &&Instruction| {
        i.mnemonic().starts_with("s_swappc") || i.mnemonic().starts_with("s_call")
    };
    let calls = listing.iter().filter(is_call).count() as u32;
    let body = Body {
        kinds: listing.iter().map(|i| classify(&i.text, context)).collect(),
        flow: listing.iter().map(|i| flow(i, index_of)).collect(),
        offsets: listing.iter().map(|i| i.address - start).collect(),
    };
    Ok((body, calls))
}

/// Where control goes after an instruction.
fn flow(instruction: &Instruction, index_of: impl Fn(u64) -> Option<usize>) -> Flow {
    let mnemonic = instruction.mnemonic();
    if mnemonic.starts_with("s_endpgm") || mnemonic.starts_with("s_setpc") {
        return Flow::End;
    }
    let conditional = mnemonic.starts_with("s_cbranch");
    if !conditional && mnemonic != "s_branch" {
        return Flow::Next;
    }
    let target = instruction.branch_target().and_then(index_of);
    if conditional { Flow::Branch(target) } else { Flow::Jump(target) }
}
