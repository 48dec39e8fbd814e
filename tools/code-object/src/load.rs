//! Laying a code object out in memory, as a loader does.
//!
//! Source: LLVM AMDGPUUsage, "Relocation Records".

use crate::{CodeObject, CodeObjectError};

/// Largest image accepted. Real code objects are a few MiB; a damaged header asks for more.
pub(crate) const MAX_IMAGE_BYTES: u64 = 1 << 30;

/// A dynamic relocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Virtual address of the patched bytes.
    pub address: u64,
    /// What is written.
    pub kind: RelocationKind,
    /// S of the formula.
    pub target: Target,
    /// A of the formula.
    pub addend: i64,
}

/// What a relocation refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The load base itself.
    Base,
    /// A virtual address of this file, relative to the load base.
    Address(u64),
    /// A symbol that somebody else defines.
    Undefined(String),
}

/// The formula, in LLVM's notation: A addend, B base, P patched address, S symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelocationKind {
    /// R_AMDGPU_RELATIVE64: B + A, 8 bytes.
    Relative64,
    /// R_AMDGPU_ABS64: S + A, 8 bytes.
    Abs64,
    /// R_AMDGPU_ABS32 and ABS32_LO: low half of S + A.
    Abs32Lo,
    /// R_AMDGPU_ABS32_HI: high half of S + A.
    Abs32Hi,
    /// R_AMDGPU_REL64: S + A - P, 8 bytes.
    Rel64,
    /// R_AMDGPU_REL32 and REL32_LO: low half of S + A - P.
    Rel32Lo,
    /// R_AMDGPU_REL32_HI: high half of S + A - P.
    Rel32Hi,
}

impl RelocationKind {
    /// Decodes an R_AMDGPU number; `None` for R_AMDGPU_NONE.
    pub(crate) fn from_number(
        number: u32,
        address: u64,
    ) -> Result<Option<RelocationKind>, CodeObjectError> {
        Ok(Some(match number {
            0 => return Ok(None),
            1 | 6 => RelocationKind::Abs32Lo,
            2 => RelocationKind::Abs32Hi,
            3 => RelocationKind::Abs64,
            4 | 10 => RelocationKind::Rel32Lo,
            5 => RelocationKind::Rel64,
            11 => RelocationKind::Rel32Hi,
            13 => RelocationKind::Relative64,
            kind => return Err(CodeObjectError::Relocation { kind, address }),
        }))
    }
}

impl CodeObject {
    /// Bytes of memory the loaded segments span, from the load base.
    pub fn image_size(&self) -> usize {
        let end = self.segments.iter().map(|s| s.address.saturating_add(s.memory_size)).max();
        // `parse` bounds every segment by MAX_IMAGE_BYTES.
        end.unwrap_or(0) as usize
    }

    /// The memory image for load base `base`, relocations applied. `resolve` gives the address of
    /// a symbol that this file does not define.
    ///
    /// # Errors
    ///
    /// [`CodeObjectError::Undefined`] when `resolve` gives none, [`CodeObjectError::Segment`] when
    /// a relocation patches memory outside the image.
    pub fn image(
        &self,
        base: u64,
        resolve: impl Fn(&str) -> Option<u64>,
    ) -> Result<Vec<u8>, CodeObjectError> {
        let mut image = vec![0; self.image_size()];
        for segment in &self.segments {
            let start = segment.address as usize;
            image[start..start + segment.data.len()].copy_from_slice(&segment.data);
        }
        for relocation in &self.relocations {
            let symbol = match &relocation.target {
                Target::Base => base,
                Target::Address(address) => base.wrapping_add(*address),
                Target::Undefined(name) => {
                    resolve(name).ok_or_else(|| CodeObjectError::Undefined(name.clone()))?
                }
            };
            let absolute = symbol.wrapping_add_signed(relocation.addend);
            let relative = absolute.wrapping_sub(base.wrapping_add(relocation.address));
            let (value, size) = match relocation.kind {
                RelocationKind::Relative64 => (base.wrapping_add_signed(relocation.addend), 8),
                RelocationKind::Abs64 => (absolute, 8),
                RelocationKind::Abs32Lo => (absolute, 4),
                RelocationKind::Abs32Hi => (absolute >> 32, 4),
                RelocationKind::Rel64 => (relative, 8),
                RelocationKind::Rel32Lo => (relative, 4),
                RelocationKind::Rel32Hi => (relative >> 32, 4),
            };
            usize::try_from(relocation.address)
                .ok()
                .and_then(|at| image.get_mut(at..at.checked_add(size)?))
                .ok_or(CodeObjectError::Segment {
                    address: relocation.address,
                    size: size as u64,
                    problem: "a relocation outside the image",
                })?
                .copy_from_slice(&value.to_le_bytes()[..size]);
        }
        Ok(image)
    }
}
