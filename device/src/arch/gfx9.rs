//! CDNA2, CDNA3 and CDNA4 (MI200, MI300, MI350): wave64.

use core::mem::transmute;

use shared::frag::Frag as _;

use super::load_8;

pub use super::amd::*;

/// Lanes in a wave.
pub const WAVE: u32 = 64;

/// Layout of [`mma`].
pub use shared::frag::Mfma9 as Mma;

/// One lane's part of A or B: 4 bf16 in 2 registers.
pub type AbFrag = [u32; 2];
/// One lane's part of C.
pub type CFrag = [f32; 4];

#[derive(Clone, Copy)]
#[repr(simd)]
struct LlvmAb([i16; 4]);

#[derive(Clone, Copy)]
#[repr(simd)]
struct LlvmC([f32; 4]);

#[allow(improper_ctypes, reason = "vectors are passed as LLVM vectors, not by a C rule")]
unsafe extern "unadjusted" {
    // The last three select lane broadcasts and negations: none. gfx950 has an instruction of twice
    // the K (`llvm.amdgcn.mfma.f32.16x16x32.bf16`), which is not used: it sums in another order.
    #[link_name = "llvm.amdgcn.mfma.f32.16x16x16bf16.1k"]
    fn llvm_mma(a: LlvmAb, b: LlvmAb, c: LlvmC, cbsz: i32, abid: i32, blgp: i32) -> LlvmC;
    #[link_name = "llvm.amdgcn.ballot.i64"]
    safe fn llvm_ballot(x: bool) -> u64;
    #[link_name = "llvm.amdgcn.ds.swizzle"]
    safe fn llvm_ds_swizzle(x: u32, pattern: i32) -> u32;
    #[link_name = "llvm.amdgcn.s.waitcnt"]
    fn llvm_s_waitcnt(counters: i32);
}

/// Waits until this wave's accesses to workgroup memory are done.
#[inline(always)]
pub(super) fn wait_for_lds() {
    // SAFETY: only waits. lgkmcnt is bits 8 to 11; ones in the others mean no wait.
    unsafe { llvm_s_waitcnt(0xc07f) };
}

/// The lanes in which `x` is true, lane 0 in bit 0. Collective.
#[inline(always)]
pub fn ballot(x: bool) -> u64 {
    llvm_ballot(x)
}

/// `x` of lane `lane() ^ MASK`. Collective.
///
/// Within four lanes by `quad_perm` and at distance 8 by rotating rows of 16, both at register
/// speed; within 32 lanes by `ds_swizzle` (no memory, but the LDS crossbar); beyond by address.
#[inline(always)]
pub fn shuffle_xor<const MASK: u32>(x: u32) -> u32 {
    const { assert!(MASK < 64) };
    const ROW_ROR_8: u32 = 0x128;
    // A swizzle's bit mask mode: lane ((i & 0x1f) | 0) ^ mask, the mask from bit 10.
    match MASK {
        0 => x,
        1 => dpp::<{ quad_xor(1) }>(x),
        2 => dpp::<{ quad_xor(2) }>(x),
        3 => dpp::<{ quad_xor(3) }>(x),
        4 => llvm_ds_swizzle(x, 4 << 10 | 0x1f),
        8 => dpp::<ROW_ROR_8>(x),
        16 => llvm_ds_swizzle(x, 16 << 10 | 0x1f),
        _ => shuffle(x, super::lane() ^ MASK),
    }
}

/// The DPP control word of `quad_perm` that gives lane `i` of each four the value of `i ^ mask`.
const fn quad_xor(mask: u32) -> u32 {
    mask | (1 ^ mask) << 2 | (2 ^ mask) << 4 | (3 ^ mask) << 6
}

/// `A * B + C` on the whole tile. Collective.
///
/// The order of the sum over k is the hardware's; it is the same for every element.
#[inline(always)]
pub fn mma(a: AbFrag, b: AbFrag, c: CFrag) -> CFrag {
    // SAFETY: arrays and vectors of the same scalars; the caller keeps every lane active.
    unsafe {
        let (a, b) = (transmute::<AbFrag, LlvmAb>(a), transmute::<AbFrag, LlvmAb>(b));
        transmute(llvm_mma(a, b, transmute::<CFrag, LlvmC>(c), 0, 0, 0))
    }
}

/// This lane's part of A, of which `tile` points to `M` rows of `K` elements, `stride` elements
/// apart. Collective.
///
/// # Safety
///
/// The tile is readable and its rows start at multiples of 16 bytes.
#[inline(always)]
pub unsafe fn load_a(tile: *const u16, stride: u32) -> AbFrag {
    let (row, k) = Mma::a_index(super::lane(), 0);
    // SAFETY: inside the tile by the caller's promise; the lane's elements follow in k.
    unsafe { load_8(tile.add((row * stride + k) as usize)).0 }
}
