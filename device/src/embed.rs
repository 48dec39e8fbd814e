//! Embedding: rows of a bf16 table, widened to f32.

use shared::kernels::rows::{FROM_CHOSEN, NOT_FINITE, embed};

use crate::arch::{thread_id, unpack_bf16, workgroup_id_x};

const _: embed::Signature = embed;
const THREADS: u32 = embed::threads(crate::tile::FAMILY);

/// The kernel; shapes are in the table.
///
/// # Safety
///
/// The launch contract of the table: `n` is even.
#[unsafe(no_mangle)]
pub unsafe extern "gpu-kernel" fn embed(
    table: *const u16,
    tokens: *const u32,
    chosen: *const u32,
    x: *mut f32,
    n: u32,
    vocab: u32,
    choices: u32,
) {
    crate::arch::wait_for_earlier();
    let row = workgroup_id_x() as usize;
    // SAFETY: the grid has one workgroup per row.
    let mut token = unsafe { *tokens.add(row) };
    if token & FROM_CHOSEN != 0 {
        let choice = token & !FROM_CHOSEN;
        token = if choice < choices {
            // SAFETY: one of the list.
            unsafe { *chosen.add(choice as usize) }
        } else {
            NOT_FINITE
        };
    }
    // SAFETY: x has n elements per row, and so has the table, of which nothing is read but rows
    // below its `vocab`.
    unsafe {
        let from = table.wrapping_add(token as usize * n as usize).cast::<u32>();
        let to = x.add(row * n as usize);
        for pair in (thread_id()..n / 2).step_by(THREADS as usize) {
            let [low, high] =
                if token < vocab { unpack_bf16(*from.add(pair as usize)) } else { [f32::NAN; 2] };
            *to.add(2 * pair as usize) = low;
            *to.add(2 * pair as usize + 1) = high;
        }
    }
}
