//! NVIDIA Hopper: waves (warps, in NVIDIA's words) of 32 lanes.
//!
//! Inline assembly throughout: core wraps only the thread indices and the barrier.

use core::arch::{asm, nvptx};

use shared::frag::Frag as _;

use super::lane;

/// Layout of [`mma`].
pub use shared::frag::Mma16816 as Mma;

/// One lane's part of A or B: 8 bf16 in 4 registers.
pub type AbFrag = [u32; 4];
/// One lane's part of C.
pub type CFrag = [f32; 8];

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

/// Waits until the launches before this one in its stream are done and what they wrote can be read;
/// then lets the launch after this one begin.
///
/// The host launches kernels so that each may begin while the one before still runs ("programmatic
/// dependent launch"). So every kernel calls this before it touches memory that some kernel writes,
/// and may load weights earlier. `tools/device-build` refuses a kernel that does not call it.
#[inline(always)]
pub fn wait_for_earlier() {
    // SAFETY: only waits.
    unsafe {
        asm!("griddepcontrol.wait;", "griddepcontrol.launch_dependents;", options(nostack));
    }
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
pub fn copy_wait<const PENDING: usize>() {
    // SAFETY: only waits.
    unsafe { asm!("cp.async.wait_group {};", const PENDING, options(nostack)) };
}

/// The address of `p` in the workgroup's own memory window, as `ldmatrix` and `cp.async` take it.
#[inline(always)]
pub fn workgroup_address<T>(p: *const T) -> u32 {
    let address: u64;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!("cvta.to.shared.u64 {}, {};", out(reg64) address, in(reg64) p.addr(),
            options(pure, nomem));
    }
    address as u32
}

#[inline(always)]
pub(super) fn global_address<T>(p: *const T) -> u64 {
    let address: u64;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!("cvta.to.global.u64 {}, {};", out(reg64) address, in(reg64) p.addr(),
            options(pure, nomem));
    }
    address
}

/// `A * B + C` on the whole tile. Collective.
///
/// The order of the sum over k is the hardware's; it is the same for every element.
#[inline(always)]
pub fn mma(a: AbFrag, b: AbFrag, c: CFrag) -> CFrag {
    let [c0, c1, c2, c3, c4, c5, c6, c7] = c;
    let [d0, d1, d2, d3] = mma_m16n8k16(a, [b[0], b[1]], [c0, c1, c2, c3]);
    let [d4, d5, d6, d7] = mma_m16n8k16(a, [b[2], b[3]], [c4, c5, c6, c7]);
    [d0, d1, d2, d3, d4, d5, d6, d7]
}

#[inline(always)]
fn mma_m16n8k16(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    let [mut d0, mut d1, mut d2, mut d3] = c;
    // SAFETY: touches registers only; the caller keeps every lane active.
    unsafe {
        asm!("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
            "{{{0}, {1}, {2}, {3}}}, {{{4}, {5}, {6}, {7}}}, {{{8}, {9}}}, {{{0}, {1}, {2}, {3}}};",
            inout(reg32) d0, inout(reg32) d1, inout(reg32) d2, inout(reg32) d3,
            in(reg32) a[0], in(reg32) a[1], in(reg32) a[2], in(reg32) a[3],
            in(reg32) b[0], in(reg32) b[1], options(nomem, nostack));
    }
    [d0, d1, d2, d3]
}

/// This lane's part of A, of which `tile` points to `M` rows of `K` elements, `stride` elements
/// apart. Collective.
///
/// # Safety
///
/// The tile is readable and its rows start at multiples of 16 bytes.
#[inline(always)]
pub unsafe fn load_a(tile: *const u16, stride: u32) -> AbFrag {
    // SAFETY: the caller's promise.
    unsafe { load_pairs(tile, stride, Mma::a_index) }
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
    unsafe { load_pairs(tile, stride, Mma::b_index) }
}

/// # Safety
///
/// As [`load_a`].
#[inline(always)]
unsafe fn load_pairs(
    tile: *const u16,
    stride: u32,
    index: impl Fn(u32, u32) -> (u32, u32),
) -> AbFrag {
    let load = |i: u32| {
        let (row, k) = index(lane(), 2 * i);
        // SAFETY: inside the tile by the caller's promise; k is even, so the pair is aligned.
        unsafe { *tile.add((row * stride + k) as usize).cast::<u32>() }
    };
    [load(0), load(1), load(2), load(3)]
}

/// [`load_a`] of workgroup memory, by one `ldmatrix`. Collective.
///
/// # Safety
///
/// As [`load_a`].
#[inline(always)]
pub unsafe fn load_a_lds(tile: *const u16, stride: u32) -> AbFrag {
    // Lane 8j + r addresses row r of the j-th 8 x 8 matrix; register j receives it. For A the
    // second matrix lies below the first, the third and fourth to the right.
    let (row, k) = (lane() % 16, lane() / 16 * 8);
    // SAFETY: inside the tile by the caller's promise.
    unsafe { ldmatrix(tile.add((row * stride + k) as usize)) }
}

/// [`load_b`] of workgroup memory, by one `ldmatrix`. Collective.
///
/// # Safety
///
/// As [`load_a`].
#[inline(always)]
pub unsafe fn load_b_lds(tile: *const u16, stride: u32) -> AbFrag {
    // As for A, but the second matrix lies to the right.
    let (row, k) = (lane() % 8 + lane() / 16 * 8, lane() / 8 % 2 * 8);
    // SAFETY: inside the tile by the caller's promise.
    unsafe { ldmatrix(tile.add((row * stride + k) as usize)) }
}

/// Four 8 x 8 matrices of workgroup memory: lane `8 j + r` addresses row `r` of the `j`-th, register
/// `j` receives elements `2 (lane % 4)` and the next of its row `lane / 4`. Collective.
///
/// # Safety
///
/// `row` is a 16-byte aligned address of eight elements of workgroup memory.
#[inline(always)]
pub unsafe fn ldmatrix(row: *const u16) -> [u32; 4] {
    // SAFETY: the caller's promise.
    unsafe { ldmatrix_at(workgroup_address(row)) }
}

/// [`ldmatrix`] by workgroup address.
///
/// # Safety
///
/// As [`ldmatrix`].
#[inline(always)]
pub unsafe fn ldmatrix_at(row: u32) -> [u32; 4] {
    let (a, b, c, d);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{{}, {}, {}, {}}}, [{}];",
            out(reg32) a, out(reg32) b, out(reg32) c, out(reg32) d, in(reg32) row,
            options(nostack));
    }
    [a, b, c, d]
}
