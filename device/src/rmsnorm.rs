//! RMSNorm: `y = x / sqrt(mean(x^2) + eps) * weight`, f32 in, bf16 out.
//!
//! One workgroup per row; thread `t` takes elements `t, t + threads, ...`. Rounding: the sum of
//! squares is added per thread in that order, then over lanes and waves in the order of `arch`;
//! the scaled value is rounded once, to bf16.

use shared::block::{STEP, tiled_index};
use shared::kernels::basics::rmsnorm_f32_bf16;
use shared::kernels::rows::{NORM_CHUNK, rmsnorm_tiled};

use crate::arch::{
    Vec16, WAVE, fma, load_16, pack_bf16, rsqrt, store_16, thread_id, unpack_bf16, workgroup_id_x,
    workgroup_memory, workgroup_sum,
};

const _: rmsnorm_f32_bf16::Signature = rmsnorm_f32_bf16;
const THREADS: u32 = rmsnorm_f32_bf16::threads(crate::tile::FAMILY);

/// The kernel; shapes are in the table.
///
/// # Safety
///
/// The buffers hold what the table says, `y` overlaps no other, and the launch passes the
/// table's workgroup memory.
#[unsafe(no_mangle)]
pub unsafe extern "gpu-kernel" fn rmsnorm_f32_bf16(
    x: *const f32,
    weight: *const u16,
    y: *mut u16,
    n: u32,
    eps: f32,
) {
    crate::arch::wait_for_earlier();
    let row = workgroup_id_x() as usize * n as usize;
    // SAFETY: inside the matrices by the grid.
    let (x, y) = unsafe { (x.add(row), y.add(row)) };

    let columns = (thread_id()..n).step_by(THREADS as usize);
    let mut squares = 0.0;
    for i in columns.clone() {
        // SAFETY: i < n.
        let x = unsafe { *x.add(i as usize) };
        squares = fma(x, x, squares);
    }
    // SAFETY: the launch passes one f32 per wave.
    let sum = unsafe { workgroup_sum(squares, workgroup_memory(), THREADS / WAVE) };
    let scale = rsqrt(sum / n as f32 + eps);

    for i in columns {
        // SAFETY: i < n.
        unsafe {
            let [weight, _] = unpack_bf16((*weight.add(i as usize)).into());
            let value = *x.add(i as usize) * scale * weight;
            *y.add(i as usize) = shared::bf16::from_f32(value);
        }
    }
}

const _: rmsnorm_tiled::Signature = rmsnorm_tiled;
const TILED_THREADS: u32 = rmsnorm_tiled::threads(crate::tile::FAMILY);

/// The kernel; shapes are in the table. Thread `t` takes chunks `t, t + threads, ...` of eight
/// elements, squares added in order; otherwise as [`rmsnorm_f32_bf16`].
///
/// # Safety
///
/// The launch contract of the table; `x` is 16-byte aligned and `n` a multiple of 32.
#[unsafe(no_mangle)]
pub unsafe extern "gpu-kernel" fn rmsnorm_tiled(
    x: *const f32,
    weight: *const f32,
    rows: *const u32,
    y: *mut u16,
    n: u32,
    eps: f32,
) {
    crate::arch::wait_for_earlier();
    let row = workgroup_id_x() as usize;
    // SAFETY: `rows` has one entry per workgroup, if it is there.
    let source = if rows.is_null() { row } else { unsafe { *rows.add(row) as usize } };
    // SAFETY: a row of x.
    let x = unsafe { x.add(source * n as usize) };
    let steps = n as usize / STEP;
    let chunks = (thread_id()..n / NORM_CHUNK).step_by(TILED_THREADS as usize);

    let mut squares = 0.0;
    for chunk in chunks.clone() {
        // SAFETY: the chunk lies in the row.
        let x = unsafe { load_8_f32(x.add((chunk * NORM_CHUNK) as usize)) };
        for i in 0..NORM_CHUNK as usize {
            squares = fma(x[i], x[i], squares);
        }
    }
    // SAFETY: the launch passes one f32 per wave.
    let sum = unsafe { workgroup_sum(squares, workgroup_memory(), TILED_THREADS / WAVE) };
    let scale = rsqrt(sum / n as f32 + eps);

    for chunk in chunks {
        let k = (chunk * NORM_CHUNK) as usize;
        // SAFETY: the chunk lies in the row, and in its place of the tiled matrix.
        unsafe {
            let (x, weight) = (load_8_f32(x.add(k)), load_8_f32(weight.add(k)));
            let mut words = [0; 4];
            for i in 0..4 {
                let (a, b) = (2 * i, 2 * i + 1);
                words[i] = pack_bf16(x[a] * scale * weight[a], x[b] * scale * weight[b]);
            }
            store_16(y.add(tiled_index(row, k, steps)), Vec16(words));
        }
    }
}

/// Eight consecutive f32.
///
/// # Safety
///
/// `p` is 16-byte aligned and holds eight.
#[inline(always)]
unsafe fn load_8_f32(p: *const f32) -> [f32; 8] {
    // SAFETY: the caller's promise.
    let ([a, b, c, d], [e, f, g, h]) = unsafe { (load_16(p).f32(), load_16(p.add(4)).f32()) };
    [a, b, c, d, e, f, g, h]
}
