//! RDNA4 (RX 9000, R9700): wave32.

use core::mem::transmute;

use shared::frag::Frag as _;

use super::load_16;

pub use super::amd::*;
pub use super::wave32::{WAVE, ballot, shuffle_xor};

/// Layout of [`mma`].
pub use shared::frag::Wmma12 as Mma;

/// One lane's part of A or B: 8 bf16 in 4 registers.
pub type AbFrag = [u32; 4];
/// One lane's part of C.
pub type CFrag = [f32; 8];

#[derive(Clone, Copy)]
#[repr(simd)]
struct LlvmAb([i16; 8]);

#[derive(Clone, Copy)]
#[repr(simd)]
struct LlvmC([f32; 8]);

#[allow(improper_ctypes, reason = "vectors are passed as LLVM vectors, not by a C rule")]
unsafe extern "unadjusted" {
    #[link_name = "llvm.amdgcn.wmma.f32.16x16x16.bf16.v8f32.v8i16"]
    fn llvm_mma(a: LlvmAb, b: LlvmAb, c: LlvmC) -> LlvmC;
    #[link_name = "llvm.amdgcn.s.wait.dscnt"]
    fn llvm_s_wait_dscnt(count: i16);
}

/// Waits until this wave's accesses to workgroup memory are done.
#[inline(always)]
pub(super) fn wait_for_lds() {
    // SAFETY: only waits.
    unsafe { llvm_s_wait_dscnt(0) };
}

/// `A * B + C` on the whole tile. Collective.
///
/// The order of the sum over k is the hardware's; it is the same for every element.
#[inline(always)]
pub fn mma(a: AbFrag, b: AbFrag, c: CFrag) -> CFrag {
    // SAFETY: arrays and vectors of the same scalars; the caller keeps every lane active.
    unsafe {
        let (a, b) = (transmute::<AbFrag, LlvmAb>(a), transmute::<AbFrag, LlvmAb>(b));
        transmute(llvm_mma(a, b, transmute::<CFrag, LlvmC>(c)))
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
    unsafe { load_16(tile.add((row * stride + k) as usize)).0 }
}
