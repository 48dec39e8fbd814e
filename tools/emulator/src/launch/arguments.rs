//! What a kernel finds in memory and in its registers when it starts.
//!
//! Source: LLVM AMDGPUUsage, "Initial Kernel Execution State" and "Code Object V5 Metadata".

use code_object::ValueKind;
use code_object::metadata::Axis;

use super::Launch;
use crate::code::{Kernel, Start};
use crate::exec::{PRIVATE_BASE, SHARED_BASE};
use crate::memory::{Allocation, Owner, Region};

/// Offset of the arguments behind the dispatch packet and a queue of zeros.
const ARGUMENTS: usize = 256;
/// Offset of that queue.
const QUEUE: usize = 64;

/// The dispatch packet and the arguments of one launch, in memory that its waves can read.
pub(crate) struct Block {
    /// Zero-padded bytes, aligned to 16.
    storage: Box<[u128]>,
}

impl Block {
    /// Lays out packet and arguments.
    pub(crate) fn new(launch: &Launch<'_>, kernel: &Kernel, start: &Start) -> Block {
        let bytes = ARGUMENTS + kernel.kernarg_bytes.max(launch.kernarg.len()) + 64;
        let mut storage = vec![0u128; bytes.div_ceil(16)].into_boxed_slice();
        let base = storage.as_ptr() as u64;
        let mut content = vec![0; storage.len() * 16];
        packet(launch, kernel, start, base, &mut content);
        content[ARGUMENTS..ARGUMENTS + launch.kernarg.len()].copy_from_slice(launch.kernarg);
        for argument in start.metadata.args.iter().filter(|argument| argument.kind.is_hidden()) {
            let (at, size) = (ARGUMENTS + argument.offset as usize, argument.size as usize);
            if let Some(slot) = content.get_mut(at..at + size) {
                let value = hidden(&argument.kind, launch).to_le_bytes();
                let count = size.min(value.len());
                slot[..count].copy_from_slice(&value[..count]);
            }
        }
        for (word, bytes) in storage.iter_mut().zip(content.as_chunks::<16>().0) {
            *word = u128::from_le_bytes(*bytes);
        }
        Block { storage }
    }

    /// The block as an allocation that waves may access.
    pub(crate) fn region(&self) -> Region {
        let base = self.storage.as_ptr() as u64;
        Region::borrowed(Allocation {
            base,
            len: self.storage.len() * 16,
            owner: Owner::HostPinned,
        })
    }

    /// User SGPRs in the order of AMDGPUUsage, up to the workgroup ids.
    pub(crate) fn user_sgprs(&self, kernel: &Kernel, start: &Start) -> Vec<u32> {
        let base = self.storage.as_ptr() as u64;
        let properties = start.descriptor.properties;
        let pair = |value: u64| [value as u32, (value >> 32) as u32];
        let mut sgprs = Vec::with_capacity(16);
        if properties.enable_sgpr_private_segment_buffer() {
            sgprs.extend([0; 4]);
        }
        if properties.enable_sgpr_dispatch_ptr() {
            sgprs.extend(pair(base));
        }
        if properties.enable_sgpr_queue_ptr() {
            sgprs.extend(pair(base + QUEUE as u64));
        }
        if properties.enable_sgpr_kernarg_segment_ptr() {
            sgprs.extend(pair(base + ARGUMENTS as u64));
        }
        if properties.enable_sgpr_dispatch_id() {
            sgprs.extend(pair(0));
        }
        if properties.enable_sgpr_flat_scratch_init() {
            sgprs.extend(pair(0));
        }
        if properties.enable_sgpr_private_segment_size() {
            sgprs.push(kernel.scratch_bytes);
        }
        sgprs.resize(start.descriptor.rsrc2.user_sgpr_count() as usize, 0);
        sgprs
    }
}

/// The AQL dispatch packet, of which kernels read sizes.
fn packet(launch: &Launch<'_>, kernel: &Kernel, start: &Start, base: u64, content: &mut [u8]) {
    let mut put = |at: usize, bytes: &[u8]| content[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &2u16.to_le_bytes());
    put(2, &dimensions(launch).to_le_bytes());
    for axis in 0..3 {
        put(4 + 2 * axis, &(launch.block[axis] as u16).to_le_bytes());
        put(12 + 4 * axis, &launch.grid[axis].wrapping_mul(launch.block[axis]).to_le_bytes());
    }
    put(24, &kernel.scratch_bytes.to_le_bytes());
    put(28, &(kernel.lds_bytes + launch.dynamic_lds).to_le_bytes());
    put(32, &start.object_address.to_le_bytes());
    put(40, &(base + ARGUMENTS as u64).to_le_bytes());
}

/// Dimensions that are not trivial, at least one.
fn dimensions(launch: &Launch<'_>) -> u16 {
    let used = |axis: usize| launch.grid[axis] > 1 || launch.block[axis] > 1;
    if used(2) {
        3
    } else if used(1) {
        2
    } else {
        1
    }
}

/// Value of a hidden argument. Runtime services that do not exist here are null.
fn hidden(kind: &ValueKind, launch: &Launch<'_>) -> u64 {
    let index = |axis: &Axis| match axis {
        Axis::X => 0,
        Axis::Y => 1,
        Axis::Z => 2,
    };
    match kind {
        ValueKind::HiddenBlockCount(axis) => u64::from(launch.grid[index(axis)]),
        ValueKind::HiddenGroupSize(axis) => u64::from(launch.block[index(axis)]),
        ValueKind::HiddenGridDims => u64::from(dimensions(launch)),
        ValueKind::HiddenDynamicLdsSize => u64::from(launch.dynamic_lds),
        ValueKind::HiddenPrivateBase => PRIVATE_BASE >> 32,
        ValueKind::HiddenSharedBase => SHARED_BASE >> 32,
        // HIP has neither partial workgroups nor global offsets.
        _ => 0,
    }
}
