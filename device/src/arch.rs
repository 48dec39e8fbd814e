//! What differs between GPU generations, and nothing else.
//!
//! The `family` cfg, set by `tools/device-build`, picks one module; its names appear here. Every
//! family defines the same names, so a kernel never names a chip. The AMD families share
//! `amd.rs`, where each name a family must supply itself is listed.
//!
//! The matrix instruction is [`mma`] on a 16 x 16 tile, bf16 operands and f32 accumulator;
//! [`Mma`] is its layout (`shared::frag`), [`AbFrag`] and [`CFrag`] are one lane's registers.
//!
//! A function described as *collective* is called by every lane of the wave (or every wave of
//! the workgroup, where it says so) at once; in a branch that lanes take differently its result
//! is garbage on AMD and undefined on NVIDIA.

use core::mem::transmute;
use core::sync::atomic::{AtomicU32, Ordering};

use shared::frag::Frag as _;

#[cfg_attr(family = "gfx9", path = "arch/gfx9.rs")]
#[cfg_attr(family = "gfx11", path = "arch/gfx11.rs")]
#[cfg_attr(family = "gfx12", path = "arch/gfx12.rs")]
#[cfg_attr(family = "nvptx", path = "arch/nvptx.rs")]
mod chip;

#[cfg(any(family = "gfx9", family = "gfx11", family = "gfx12"))]
mod amd;

#[cfg(any(family = "gfx11", family = "gfx12"))]
mod wave32;

#[cfg(family = "nvptx")]
pub mod hopper;

pub use chip::{
    AbFrag, CFrag, Mma, WAVE, ballot, copy_async_16, copy_commit, copy_wait, exp2, load_a,
    load_a_lds, load_b, load_b_lds, log2, mma, pack_bf16, rcp, rsqrt, shuffle, shuffle_xor,
    thread_id, uniform, wait_for_earlier, workgroup_barrier, workgroup_id_x, workgroup_id_y,
    workgroup_id_z,
};
#[cfg(family = "nvptx")]
pub use chip::{ldmatrix, ldmatrix_at, workgroup_address};

/// Sixteen bytes: eight bf16, four f32, or 32 MXFP4 elements. [`load_16`] and [`store_16`] move it.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub struct Vec16(pub [u32; 4]);

/// Eight bytes. [`load_8`] and [`store_8`] move it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Vec8(pub [u32; 2]);

impl Vec16 {
    /// All bits zero.
    pub const ZERO: Self = Self([0; 4]);

    /// The eight bf16 values, widened.
    #[inline(always)]
    pub fn bf16(self) -> [f32; 8] {
        let [a, b, c, d] = self.0.map(unpack_bf16);
        [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]]
    }

    /// The four f32 values.
    #[inline(always)]
    pub fn f32(self) -> [f32; 4] {
        self.0.map(f32::from_bits)
    }
}

/// Four registers as LLVM sees a vector: loading through it keeps the access whole on every
/// family, where a plain struct becomes two 8-byte accesses on NVIDIA.
#[derive(Clone, Copy)]
#[repr(simd)]
struct Lanes4([u32; 4]);

/// Two registers; see [`Lanes4`].
#[derive(Clone, Copy)]
#[repr(simd)]
struct Lanes2([u32; 2]);

/// Loads sixteen bytes of global or workgroup memory in one access.
///
/// # Safety
///
/// `p` is 16-byte aligned and readable.
#[inline(always)]
pub unsafe fn load_16<T>(p: *const T) -> Vec16 {
    // SAFETY: the caller's promise; the types have the same bits.
    unsafe { Vec16(transmute::<Lanes4, [u32; 4]>(*p.cast())) }
}

/// Loads eight bytes of global or workgroup memory in one access.
///
/// # Safety
///
/// `p` is 8-byte aligned and readable.
#[inline(always)]
pub unsafe fn load_8<T>(p: *const T) -> Vec8 {
    // SAFETY: the caller's promise; the types have the same bits.
    unsafe { Vec8(transmute::<Lanes2, [u32; 2]>(*p.cast())) }
}

/// Stores sixteen bytes to global or workgroup memory in one access.
///
/// # Safety
///
/// `p` is 16-byte aligned and writable.
#[inline(always)]
pub unsafe fn store_16<T>(p: *mut T, value: Vec16) {
    // SAFETY: the caller's promise; the types have the same bits.
    unsafe { *p.cast() = transmute::<[u32; 4], Lanes4>(value.0) };
}

/// Stores eight bytes to global or workgroup memory in one access.
///
/// # Safety
///
/// `p` is 8-byte aligned and writable.
#[inline(always)]
pub unsafe fn store_8<T>(p: *mut T, value: Vec8) {
    // SAFETY: the caller's promise; the types have the same bits.
    unsafe { *p.cast() = transmute::<[u32; 2], Lanes2>(value.0) };
}

/// An accumulator of zeros.
pub const ZERO: CFrag = [0.0; Mma::C_PER_LANE as usize];

/// Adds to a counter in global or workgroup memory and returns what it held.
///
/// # Safety
///
/// `p` is valid, and during the launch only accessed by this function.
#[inline(always)]
pub unsafe fn atomic_add(p: *mut u32, x: u32) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { AtomicU32::from_ptr(p) }.fetch_add(x, Ordering::Relaxed)
}

/// Index of this lane in its wave. Workgroups are one-dimensional.
#[inline(always)]
pub fn lane() -> u32 {
    thread_id() % WAVE
}

/// Index of this wave in its workgroup, known to the compiler to be the same in all lanes.
#[inline(always)]
pub fn wave_id() -> u32 {
    uniform(thread_id() / WAVE)
}

/// The start of the workgroup memory the launch passes; the same address whatever `T` is, and
/// aligned to 128 bytes.
#[inline(always)]
pub fn workgroup_memory<T>() -> *mut T {
    #[repr(align(128))]
    struct Align;
    core::intrinsics::gpu::gpu_launch_sized_workgroup_mem::<Align>().cast()
}

/// The two bf16 values of a word, low half first.
#[inline(always)]
pub fn unpack_bf16(word: u32) -> [f32; 2] {
    [f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000)]
}

/// `e^x` as [`exp2`] of a scaled argument: the relative error grows as `|x| * 2^-24`.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    exp2(x * core::f32::consts::LOG2_E)
}

/// `a * b + c`, rounded once.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    core::f32::math::mul_add(a, b, c)
}

/// The larger of two numbers; a NaN loses to a number.
#[inline(always)]
pub fn max(a: f32, b: f32) -> f32 {
    a.max(b)
}

/// Dot product of two bf16 pairs added to `c`: low halves first, each step rounded to f32.
///
/// Not `v_dot2_f32_bf16`, which not every chip has.
#[inline(always)]
pub fn dot2_bf16(a: u32, b: u32, c: f32) -> f32 {
    let ([a0, a1], [b0, b1]) = (unpack_bf16(a), unpack_bf16(b));
    fma(a1, b1, fma(a0, b0, c))
}

/// [`shuffle_xor`] of an f32.
#[inline(always)]
pub fn shuffle_xor_f32<const MASK: u32>(x: f32) -> f32 {
    f32::from_bits(shuffle_xor::<MASK>(x.to_bits()))
}

/// [`shuffle`] of an f32.
#[inline(always)]
pub fn shuffle_f32(x: f32, lane: u32) -> f32 {
    f32::from_bits(shuffle(x.to_bits(), lane))
}

/// Combines the values of each group of `WIDTH` consecutive lanes; every lane of a group gets
/// the same bits. The tree is fixed: neighbours first, then pairs at twice the distance.
/// `WIDTH` is a power of two up to [`WAVE`]. Collective.
#[inline(always)]
pub fn group_reduce<const WIDTH: u32>(x: f32, op: impl Fn(f32, f32) -> f32) -> f32 {
    const { assert!(WIDTH.is_power_of_two() && WIDTH <= WAVE) };
    let mut x = x;
    if WIDTH > 1 {
        x = op(x, shuffle_xor_f32::<1>(x));
    }
    if WIDTH > 2 {
        x = op(x, shuffle_xor_f32::<2>(x));
    }
    if WIDTH > 4 {
        x = op(x, shuffle_xor_f32::<4>(x));
    }
    if WIDTH > 8 {
        x = op(x, shuffle_xor_f32::<8>(x));
    }
    if WIDTH > 16 {
        x = op(x, shuffle_xor_f32::<16>(x));
    }
    if WIDTH > 32 {
        // Half of 64; spelled so that it is a lane's distance where this is dead code, too.
        x = op(x, shuffle_xor_f32::<{ WAVE / 2 }>(x));
    }
    x
}

/// Sum over the wave, the same bits in every lane. Collective.
#[inline(always)]
pub fn wave_sum(x: f32) -> f32 {
    group_reduce::<WAVE>(x, |a, b| a + b)
}

/// Maximum over the wave. Collective.
#[inline(always)]
pub fn wave_max(x: f32) -> f32 {
    group_reduce::<WAVE>(x, max)
}

/// Sum over a workgroup of `waves` waves, the same bits in every lane: wave sums, added in the
/// order of the waves. Collective over the workgroup; ends with a barrier, so `scratch` (one f32
/// per wave of workgroup memory) can be used again at once.
///
/// # Safety
///
/// `scratch` holds `waves` f32 that nobody else touches.
#[inline(always)]
pub unsafe fn workgroup_sum(x: f32, scratch: *mut f32, waves: u32) -> f32 {
    // SAFETY: the caller's promise.
    unsafe { workgroup_reduce(wave_sum(x), scratch, waves, |a, b| a + b) }
}

/// Maximum over a workgroup of `waves` waves; otherwise as [`workgroup_sum`].
///
/// # Safety
///
/// As [`workgroup_sum`].
#[inline(always)]
pub unsafe fn workgroup_max(x: f32, scratch: *mut f32, waves: u32) -> f32 {
    // SAFETY: the caller's promise.
    unsafe { workgroup_reduce(wave_max(x), scratch, waves, max) }
}

/// # Safety
///
/// As [`workgroup_sum`]; `wave` is the same in every lane of a wave.
#[inline(always)]
unsafe fn workgroup_reduce(
    wave: f32,
    scratch: *mut f32,
    waves: u32,
    op: impl Fn(f32, f32) -> f32,
) -> f32 {
    if lane() == 0 {
        // SAFETY: wave_id() < waves.
        unsafe { *scratch.add(wave_id() as usize) = wave };
    }
    workgroup_barrier();
    // SAFETY: written above by wave 0, which always exists.
    let mut total = unsafe { *scratch };
    for i in 1..waves as usize {
        // SAFETY: i < waves, each written above.
        total = op(total, unsafe { *scratch.add(i) });
    }
    workgroup_barrier();
    total
}
