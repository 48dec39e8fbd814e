//! RMSNorm: `y = x / sqrt(mean(x^2) + eps) * weight`, f32 in, bf16 out.
//!
//! One workgroup per row; thread `t` takes elements `t, t + threads, ...`. Rounding: the sum of
//! squares is added per thread in that order, then over lanes and waves in the order of `arch`;
//! the scaled value is rounded once, to bf16.

use shared::kernels::basics::rmsnorm_f32_bf16;

use crate::arch::{
    WAVE, fma, rsqrt, thread_id, unpack_bf16, workgroup_id_x, workgroup_memory, workgroup_sum,
};

const _: rmsnorm_f32_bf16::Signature = rmsnorm_f32_bf16;
const THREADS: u32 = rmsnorm_f32_bf16::threads(WAVE);

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
