//! NVIDIA Hopper: waves (warps, in NVIDIA's words) of 32 lanes.
//!
//! Inline assembly throughout: core wraps only the thread indices and the barrier.

use core::arch::{asm, nvptx};

use super::Vec16;

/// Lanes in a wave.
pub const WAVE: u32 = 32;

/// Index of this thread in its workgroup.
#[inline(always)]
pub fn thread_id() -> u32 {
    // SAFETY: reads a special register.
    unsafe { nvptx::_thread_idx_x() }
}

/// Index of this workgroup in the grid, first dimension.
#[inline(always)]
pub fn workgroup_id_x() -> u32 {
    // SAFETY: reads a special register.
    unsafe { nvptx::_block_idx_x() }
}

/// Index of this workgroup in the grid, second dimension.
#[inline(always)]
pub fn workgroup_id_y() -> u32 {
    // SAFETY: reads a special register.
    unsafe { nvptx::_block_idx_y() }
}

/// Index of this workgroup in the grid, third dimension.
#[inline(always)]
pub fn workgroup_id_z() -> u32 {
    // SAFETY: reads a special register.
    unsafe { nvptx::_block_idx_z() }
}

/// `x`, which the caller knows to be the same in all lanes. There are no scalar registers here
/// to move it to, and a shuffle would make every use collective.
#[inline(always)]
pub fn uniform(x: u32) -> u32 {
    x
}

/// `x` of lane `lane`, which may differ from lane to lane. Collective.
#[inline(always)]
pub fn shuffle(x: u32, lane: u32) -> u32 {
    let y: u32;
    // SAFETY: moves registers only; the caller keeps every lane active.
    unsafe {
        asm!("shfl.sync.idx.b32 {}, {}, {}, 31, 0xffffffff;", out(reg32) y, in(reg32) x,
            in(reg32) lane, options(nostack));
    }
    y
}

/// `x` of lane `lane() ^ MASK`. Collective.
#[inline(always)]
pub fn shuffle_xor<const MASK: u32>(x: u32) -> u32 {
    const { assert!(MASK < 32) };
    let y: u32;
    // SAFETY: moves registers only; the caller keeps every lane active.
    unsafe {
        asm!("shfl.sync.bfly.b32 {}, {}, {}, 31, 0xffffffff;", out(reg32) y, in(reg32) x,
            const MASK, options(nostack));
    }
    y
}

/// The lanes in which `x` is true, lane 0 in bit 0. Collective.
#[inline(always)]
pub fn ballot(x: bool) -> u64 {
    let lanes: u32;
    // SAFETY: touches registers only; the caller keeps every lane active.
    unsafe {
        asm!("{{ .reg .pred p; setp.ne.u32 p, {1}, 0;",
            "vote.sync.ballot.b32 {0}, p, 0xffffffff; }}",
            out(reg32) lanes, in(reg32) u32::from(x), options(nostack));
    }
    lanes.into()
}

/// Waits until every wave of the workgroup is here and its accesses to workgroup memory are
/// done. On this family it orders the workgroup's global accesses too; kernels do not rely on
/// it. Collective over the workgroup.
#[inline(always)]
pub fn workgroup_barrier() {
    // SAFETY: only waits.
    unsafe { nvptx::_syncthreads() };
}

/// `1 / x` within 1 ulp; subnormals flush to zero.
#[inline(always)]
pub fn rcp(x: f32) -> f32 {
    let y: f32;
    // SAFETY: arithmetic on registers.
    unsafe { asm!("rcp.approx.ftz.f32 {}, {};", out(reg32) y, in(reg32) x, options(pure, nomem)) };
    y
}

/// `1 / sqrt(x)` within 2^-22.9 relative.
#[inline(always)]
pub fn rsqrt(x: f32) -> f32 {
    let y: f32;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!("rsqrt.approx.ftz.f32 {}, {};", out(reg32) y, in(reg32) x, options(pure, nomem));
    }
    y
}

/// `2^x` within 2 ulp plus 2^-22 relative; subnormal results flush to zero.
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    let y: f32;
    // SAFETY: arithmetic on registers.
    unsafe { asm!("ex2.approx.ftz.f32 {}, {};", out(reg32) y, in(reg32) x, options(pure, nomem)) };
    y
}

/// `log2(x)` within 2^-22 (absolute between 0.5 and 2, relative elsewhere).
#[inline(always)]
pub fn log2(x: f32) -> f32 {
    let y: f32;
    // SAFETY: arithmetic on registers.
    unsafe { asm!("lg2.approx.ftz.f32 {}, {};", out(reg32) y, in(reg32) x, options(pure, nomem)) };
    y
}

/// Two f32 rounded to bf16 (nearest, ties to even), `low` in the low half.
#[inline(always)]
pub fn pack_bf16(low: f32, high: f32) -> u32 {
    let y: u32;
    // SAFETY: arithmetic on registers. The instruction's first operand is the high half.
    unsafe {
        asm!("cvt.rn.bf16x2.f32 {}, {}, {};", out(reg32) y, in(reg32) high, in(reg32) low,
            options(pure, nomem));
    }
    y
}

/// Sixteen bytes of global memory that no later access of this kernel needs again: kept out of
/// the first-level cache.
///
/// # Safety
///
/// `p` is 16-byte aligned, readable, and not written during the launch.
#[inline(always)]
pub unsafe fn load_once_16(p: *const u8) -> Vec16 {
    let (a, b, c, d);
    // SAFETY: the caller's promise; nothing writes there, so the load may move (`pure`).
    unsafe {
        asm!("ld.global.nc.L1::no_allocate.v4.b32 {{{}, {}, {}, {}}}, [{}];", out(reg32) a,
            out(reg32) b, out(reg32) c, out(reg32) d, in(reg64) global_address(p),
            options(pure, nomem));
    }
    Vec16([a, b, c, d])
}

/// Copies sixteen bytes from global to workgroup memory past the registers; they are there after
/// [`copy_wait`] and a barrier.
///
/// # Safety
///
/// Both are 16-byte aligned and valid; `lds` is workgroup memory nobody else touches meanwhile.
#[inline(always)]
pub unsafe fn copy_async_16(lds: *mut u8, global: *const u8) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("cp.async.cg.shared.global [{}], [{}], 16;", in(reg32) workgroup_address(lds),
            in(reg64) global_address(global), options(nostack));
    }
}

/// Closes a group of [`copy_async_16`] calls.
#[inline(always)]
pub fn copy_commit() {
    // SAFETY: only marks what was issued.
    unsafe { asm!("cp.async.commit_group;", options(nostack)) };
}

/// Waits until at most `PENDING` of this thread's latest groups are still on their way.
#[inline(always)]
pub fn copy_wait<const PENDING: u32>() {
    // SAFETY: only waits.
    unsafe { asm!("cp.async.wait_group {};", const PENDING, options(nostack)) };
}

/// The address of `p` in the workgroup's own memory window, as `ldmatrix` and `cp.async` take it.
#[inline(always)]
pub fn workgroup_address<T>(p: *const T) -> u32 {
    let address: u64;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!("cvta.to.shared.u64 {}, {};", out(reg64) address, in(reg64) p,
            options(pure, nomem));
    }
    address as u32
}

#[inline(always)]
fn global_address<T>(p: *const T) -> u64 {
    let address: u64;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!("cvta.to.global.u64 {}, {};", out(reg64) address, in(reg64) p,
            options(pure, nomem));
    }
    address
}
