//! What the AMD families with 32-lane waves share: gfx11 and gfx12.

use core::arch::amdgpu;

use super::amd::{dpp, shuffle};

/// Lanes in a wave.
pub const WAVE: u32 = 32;

/// DPP control word `row_xmask:0`; the mask is its low four bits.
const ROW_XMASK: u32 = 0x160;

unsafe extern "unadjusted" {
    #[link_name = "llvm.amdgcn.ballot.i32"]
    safe fn llvm_ballot(x: bool) -> u32;
}

/// The lanes in which `x` is true, lane 0 in bit 0. Collective.
#[inline(always)]
pub fn ballot(x: bool) -> u64 {
    llvm_ballot(x).into()
}

/// `x` of lane `lane() ^ MASK`. Collective.
#[inline(always)]
pub fn shuffle_xor<const MASK: u32>(x: u32) -> u32 {
    const { assert!(MASK < 32) };
    // The DPP control is an instruction field: each mask is its own constant.
    let x = match MASK % 16 {
        0 => x,
        1 => dpp::<{ ROW_XMASK | 1 }>(x),
        2 => dpp::<{ ROW_XMASK | 2 }>(x),
        3 => dpp::<{ ROW_XMASK | 3 }>(x),
        4 => dpp::<{ ROW_XMASK | 4 }>(x),
        8 => dpp::<{ ROW_XMASK | 8 }>(x),
        _ => return shuffle(x, super::lane() ^ MASK),
    };
    if MASK < 16 {
        return x;
    }
    // SAFETY: moves registers only; the selectors keep each lane's place in the other row.
    unsafe { amdgpu::permlanex16_u32::<false, true>(x, x, 0x7654_3210, 0xfedc_ba98) }
}
