//! Transpose of an f32 matrix through workgroup memory, so that reads and writes both run along
//! rows.
//!
//! One workgroup moves one square tile; a wave's lanes are neighbours in a row on both sides. A
//! row of the staged tile is one element longer than the tile, so that a column touches every
//! bank once.

use shared::kernels::basics::{TRANSPOSE_TILE as TILE, transpose_f32};

use crate::arch::{thread_id, workgroup_barrier, workgroup_id_x, workgroup_id_y, workgroup_memory};

const _: transpose_f32::Signature = transpose_f32;
/// Rows of the tile all threads move at once.
const ROWS: u32 = transpose_f32::threads(crate::tile::FAMILY) / TILE;
const STRIDE: u32 = TILE + 1;

/// The kernel; shapes are in the table.
///
/// # Safety
///
/// The buffers hold what the table says, do not overlap, and the launch passes the table's
/// workgroup memory.
#[unsafe(no_mangle)]
pub unsafe extern "gpu-kernel" fn transpose_f32(x: *const f32, y: *mut f32, rows: u32, cols: u32) {
    crate::arch::wait_for_earlier();
    let tile: *mut f32 = workgroup_memory();
    let (row0, col0) = (workgroup_id_y() * TILE, workgroup_id_x() * TILE);
    let (along, across) = (thread_id() % TILE, thread_id() / TILE);

    for r in (across..TILE).step_by(ROWS as usize) {
        let (row, col) = (row0 + r, col0 + along);
        if row < rows && col < cols {
            // SAFETY: inside the matrix, and inside the tile.
            unsafe {
                let value = *x.add(row as usize * cols as usize + col as usize);
                *tile.add((r * STRIDE + along) as usize) = value;
            }
        }
    }
    workgroup_barrier();
    for c in (across..TILE).step_by(ROWS as usize) {
        let (row, col) = (row0 + along, col0 + c);
        if row < rows && col < cols {
            // SAFETY: inside the matrix, and an element staged above.
            unsafe {
                let value = *tile.add((along * STRIDE + c) as usize);
                *y.add(col as usize * rows as usize + row as usize) = value;
            }
        }
    }
}
