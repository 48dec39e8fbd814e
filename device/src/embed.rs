//! Embedding: rows of a bf16 table, widened to f32.

use shared::kernels::rows::embed;

use crate::arch::{thread_id, unpack_bf16, workgroup_id_x};

const _: embed::Signature = embed;
const THREADS: u32 = embed::threads(crate::tile::FAMILY);

/// The kernel; shapes are in the table.
///
/// # Safety
///
/// The launch contract of the table: tokens are below the table's rows, and `n` is even.
#[unsafe(no_mangle)]
pub unsafe extern "gpu-kernel" fn embed(
    table: *const u16,
    tokens: *const u32,
    x: *mut f32,
    n: u32,
) {
    crate::arch::wait_for_earlier();
    let row = workgroup_id_x() as usize;
    // SAFETY: the grid has one workgroup per row, and its token is in the table.
    unsafe {
        let from = table.add(*tokens.add(row) as usize * n as usize).cast::<u32>();
        let to = x.add(row * n as usize);
        for pair in (thread_id()..n / 2).step_by(THREADS as usize) {
            let [low, high] = unpack_bf16(*from.add(pair as usize));
            *to.add(2 * pair as usize) = low;
            *to.add(2 * pair as usize + 1) = high;
        }
    }
}
