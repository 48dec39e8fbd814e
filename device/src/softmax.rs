//! Softmax of a row: `y = exp(x - max x) / sum exp(x - max x)`, f32.
//!
//! One workgroup per row; thread `t` takes elements `t, t + threads, ...`. Rounding: the sum is
//! added per thread in that order, then over lanes and waves in the order of `arch`. A row of
//! infinities or with a NaN gives NaN.

use shared::kernels::basics::softmax_f32;

use crate::arch::{
    WAVE, exp, max, rcp, thread_id, workgroup_id_x, workgroup_max, workgroup_memory, workgroup_sum,
};

const _: softmax_f32::Signature = softmax_f32;
const THREADS: u32 = softmax_f32::threads(crate::tile::FAMILY);
const WAVES: u32 = THREADS / WAVE;

/// The kernel; shapes are in the table.
///
/// # Safety
///
/// The buffers hold what the table says, do not overlap, and the launch passes the table's
/// workgroup memory.
#[unsafe(no_mangle)]
pub unsafe extern "gpu-kernel" fn softmax_f32(x: *const f32, y: *mut f32, n: u32) {
    crate::arch::wait_for_earlier();
    let row = workgroup_id_x() as usize * n as usize;
    // SAFETY: inside the matrices by the grid.
    let (x, y) = unsafe { (x.add(row), y.add(row)) };
    let columns = (thread_id()..n).step_by(THREADS as usize);

    let mut largest = f32::NEG_INFINITY;
    for i in columns.clone() {
        // SAFETY: i < n.
        largest = max(largest, unsafe { *x.add(i as usize) });
    }
    // SAFETY: the launch passes one f32 per wave.
    let largest = unsafe { workgroup_max(largest, workgroup_memory(), WAVES) };

    let mut sum = 0.0;
    for i in columns.clone() {
        // SAFETY: i < n.
        sum += exp(unsafe { *x.add(i as usize) } - largest);
    }
    // SAFETY: the launch passes one f32 per wave.
    let scale = rcp(unsafe { workgroup_sum(sum, workgroup_memory(), WAVES) });

    for i in columns {
        // SAFETY: i < n.
        unsafe { *y.add(i as usize) = exp(*x.add(i as usize) - largest) * scale };
    }
}
