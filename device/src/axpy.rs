//! `y += a * x`: the smallest kernel there is.
//!
//! One thread per element. Rounding: one fused multiply-add each.

use shared::kernels::basics::axpy_f32;

use crate::arch::{fma, thread_id, workgroup_id_x};

const _: axpy_f32::Signature = axpy_f32;

/// The kernel; shapes are in the table.
///
/// # Safety
///
/// `x` and `y` hold `n` elements and do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "gpu-kernel" fn axpy_f32(x: *const f32, y: *mut f32, a: f32, n: u32) {
    crate::arch::wait_for_earlier();
    let i = workgroup_id_x() * axpy_f32::threads(crate::tile::FAMILY) + thread_id();
    if i < n {
        // SAFETY: i < n.
        unsafe {
            let y = y.add(i as usize);
            *y = fma(a, *x.add(i as usize), *y);
        }
    }
}
