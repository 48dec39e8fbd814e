//! What the AMD families share. Besides these names a family supplies `WAVE`, `shuffle_xor`,
//! `ballot`, `wait_for_lds`, and the matrix instruction: `Mma`, `AbFrag`, `CFrag`, `mma`,
//! `load_a`. A and B are laid out alike and come from any memory by plain loads, so the other
//! three loaders are `load_a` again.

use core::arch::amdgpu;
use core::sync::atomic::{Ordering, compiler_fence};

use super::chip::{AbFrag, load_a};

// Source: llvm/include/llvm/IR/IntrinsicsAMDGPU.td.
unsafe extern "unadjusted" {
    #[link_name = "llvm.amdgcn.rcp.f32"]
    safe fn llvm_rcp(x: f32) -> f32;
    #[link_name = "llvm.amdgcn.rsq.f32"]
    safe fn llvm_rsq(x: f32) -> f32;
    #[link_name = "llvm.amdgcn.exp2.f32"]
    safe fn llvm_exp2(x: f32) -> f32;
    #[link_name = "llvm.amdgcn.log.f32"]
    safe fn llvm_log2(x: f32) -> f32;
}

/// Index of this thread in its workgroup.
#[inline(always)]
pub fn thread_id() -> u32 {
    amdgpu::workitem_id_x()
}

/// Index of this workgroup in the grid, first dimension.
#[inline(always)]
pub fn workgroup_id_x() -> u32 {
    amdgpu::workgroup_id_x()
}

/// Index of this workgroup in the grid, second dimension.
#[inline(always)]
pub fn workgroup_id_y() -> u32 {
    amdgpu::workgroup_id_y()
}

/// Index of this workgroup in the grid, third dimension.
#[inline(always)]
pub fn workgroup_id_z() -> u32 {
    amdgpu::workgroup_id_z()
}

/// `x`, which the caller knows to be the same in all active lanes: tells the compiler, so that the
/// value and what follows from it live in scalar registers.
#[inline(always)]
pub fn uniform(x: u32) -> u32 {
    amdgpu::readfirstlane_u32(x)
}

/// `x` of lane `lane`, which may differ from lane to lane. Collective.
#[inline(always)]
pub fn shuffle(x: u32, lane: u32) -> u32 {
    // SAFETY: moves registers only; the byte address wraps at the wave size.
    unsafe { amdgpu::ds_bpermute(lane * 4, x) }
}

/// `x` moved by a DPP control word. Every row and bank takes part.
#[inline(always)]
pub fn dpp<const CTRL: u32>(x: u32) -> u32 {
    // SAFETY: moves registers only.
    unsafe { amdgpu::update_dpp::<CTRL, 0xf, 0xf, true>(0, x) }
}

/// `1 / x` within 1 ulp; subnormal results flush to zero. `v_rcp_f32`.
#[inline(always)]
pub fn rcp(x: f32) -> f32 {
    llvm_rcp(x)
}

/// `1 / sqrt(x)` within 1 ulp. `v_rsq_f32`.
#[inline(always)]
pub fn rsqrt(x: f32) -> f32 {
    llvm_rsq(x)
}

/// `2^x` within 1 ulp; subnormal results flush to zero. `v_exp_f32`.
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    llvm_exp2(x)
}

/// `log2(x)` within 1 ulp; subnormal arguments count as zero. `v_log_f32`.
#[inline(always)]
pub fn log2(x: f32) -> f32 {
    llvm_log2(x)
}

/// Two f32 rounded to bf16 (nearest, ties to even), `low` in the low half.
#[inline(always)]
pub fn pack_bf16(low: f32, high: f32) -> u32 {
    u32::from(shared::bf16::from_f32(low)) | u32::from(shared::bf16::from_f32(high)) << 16
}

/// Launches of a stream run one after the other: there is nothing to wait for.
#[inline(always)]
pub fn wait_for_earlier() {}

/// Waits until every wave of the workgroup is here and its accesses to workgroup memory are
/// done. Orders workgroup memory only: global stores may still be under way. Collective over
/// the workgroup.
///
/// The bare `s_barrier` (a signal and a wait on gfx12) waits for no memory, and Rust's fences are
/// system-wide: they would flush caches. A wait for LDS is all it takes; the compiler fences keep
/// LLVM from moving accesses across.
#[inline(always)]
pub fn workgroup_barrier() {
    compiler_fence(Ordering::SeqCst);
    super::chip::wait_for_lds();
    amdgpu::s_barrier();
    compiler_fence(Ordering::SeqCst);
}

/// Copies sixteen bytes from global to workgroup memory; they are there after [`copy_wait`] and
/// a barrier. Through a register here: the families without a direct path share this one.
///
/// # Safety
///
/// Both are 16-byte aligned and valid; `lds` is workgroup memory nobody else touches meanwhile.
#[inline(always)]
pub unsafe fn copy_async_16(lds: *mut u8, global: *const u8) {
    // SAFETY: the caller's promise.
    unsafe { super::store_16(lds, super::load_16(global)) };
}

/// Closes a group of [`copy_async_16`] calls.
#[inline(always)]
pub fn copy_commit() {}

/// Waits until at most `PENDING` of this thread's latest groups are still on their way.
#[inline(always)]
pub fn copy_wait<const PENDING: usize>() {}

/// [`load_a`] of workgroup memory. Collective.
///
/// # Safety
///
/// As [`load_a`].
#[inline(always)]
pub unsafe fn load_a_lds(tile: *const u16, stride: u32) -> AbFrag {
    // SAFETY: the caller's promise.
    unsafe { load_a(tile, stride) }
}

/// This lane's part of B, of which `tile` points to `N` rows of `K` elements, `stride` elements
/// apart. Collective.
///
/// # Safety
///
/// As [`load_a`].
#[inline(always)]
pub unsafe fn load_b(tile: *const u16, stride: u32) -> AbFrag {
    // SAFETY: the caller's promise.
    unsafe { load_a(tile, stride) }
}

/// [`load_b`] of workgroup memory. Collective.
///
/// # Safety
///
/// As [`load_a`].
#[inline(always)]
pub unsafe fn load_b_lds(tile: *const u16, stride: u32) -> AbFrag {
    // SAFETY: the caller's promise.
    unsafe { load_a(tile, stride) }
}
