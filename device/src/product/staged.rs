//! Tile products on AMD: 128 outputs by 64 tokens, eight waves of 32 by 32.
//!
//! Blocks are copied to workgroup memory as they are stored, one step ahead of their use; each wave
//! decodes what it multiplies.

use shared::block::{BLOCK_BYTES, ROWS};
use shared::kernels::linear::{TILE_OUTPUTS, tile_rows, tile_threads};

use super::multiply;
use crate::arch::{self, copy_async_16, copy_commit, copy_wait, workgroup_barrier};
use crate::tile::{Acc, FAMILY, Operand};
use crate::weights::Format;

/// Waves along W and along X, and the tiles of each.
const WAVES: (usize, usize) = (4, 2);
const WT: usize = 2;
const XT: usize = 2;
const W_TILES: usize = WAVES.0 * WT;
const X_TILES: usize = WAVES.1 * XT;
const THREADS: usize = tile_threads(FAMILY) as usize;

const _: () = {
    assert!(W_TILES * ROWS == TILE_OUTPUTS as usize);
    assert!(X_TILES * ROWS == tile_rows(FAMILY) as usize);
    assert!(WAVES.0 * WAVES.1 * arch::WAVE as usize == THREADS);
};

/// The product of the workgroup's eight row tiles of W with its rows of X. `each` gets the wave's
/// results by pairs of row tiles: the number of the first, the number of the tile of X, both
/// counted in the workgroup, and the two results. Collective over the workgroup.
///
/// # Safety
///
/// The launch has the threads and the workgroup memory of the table's tile kernels. `w(i)` is the
/// first block of the workgroup's row tile `i`, `x(r)` the first chunk of its row `r`; all have
/// `steps >= 1` steps, are readable, and are not written during the launch.
#[inline(always)]
pub unsafe fn tile_product<F: Format>(
    w: impl Fn(u32) -> *const u8,
    x: impl Fn(u32) -> *const u8,
    steps: u32,
    mut each: impl FnMut(u32, u32, [Acc; 2]),
) {
    let w_bytes = W_TILES * F::STEP_BYTES;
    let stage_bytes = w_bytes + X_TILES * BLOCK_BYTES;
    let (thread, lane) = (arch::thread_id() as usize, arch::lane());
    let wave = arch::wave_id() as usize;
    let memory: *mut u8 = arch::workgroup_memory();
    let stage = |step: u32| {
        // SAFETY: two stages fit; pieces are 16 bytes, each of one tile's block; step < steps.
        unsafe {
            let to = memory.add(step as usize % 2 * stage_bytes);
            let mut i = thread;
            while i < w_bytes / 16 {
                let (tile, at) = (i * 16 / F::STEP_BYTES, i * 16 % F::STEP_BYTES);
                copy_async_16(
                    to.add(i * 16),
                    w(tile as u32).add(step as usize * F::STEP_BYTES + at),
                );
                i += THREADS;
            }
            let mut i = thread;
            while i < X_TILES * BLOCK_BYTES / 16 {
                let (tile, chunk) = (i / 64, i % 64);
                let row = x((tile * ROWS + chunk % ROWS) as u32);
                let from = row.add(step as usize * BLOCK_BYTES + chunk / ROWS * 256);
                copy_async_16(to.add(w_bytes + i * 16), from);
                i += THREADS;
            }
        }
        copy_commit();
    };

    let mut acc = [[arch::ZERO; XT]; WT];
    let w_at = wave % WAVES.0 * WT * F::STEP_BYTES;
    let x_at = w_bytes + wave / WAVES.0 * XT * BLOCK_BYTES;
    stage(0);
    for step in 0..steps {
        copy_wait::<0>();
        workgroup_barrier(); // this stage is whole, and nobody reads the other any more
        if step + 1 < steps {
            stage(step + 1);
        }
        // SAFETY: the wave's share of a stage.
        unsafe {
            let from = memory.add(step as usize % 2 * stage_bytes);
            let x: [Operand; XT] =
                core::array::from_fn(|i| Operand::load(from.add(x_at + i * BLOCK_BYTES), lane));
            for i in 0..WT {
                let w = F::load(from.add(w_at + i * F::STEP_BYTES), lane);
                multiply::<F, XT>(&w, &x, &mut acc[i]);
            }
        }
    }
    let (w_tile, x_tile) = ((wave % WAVES.0 * WT) as u32, (wave / WAVES.0 * XT) as u32);
    for j in 0..XT {
        each(w_tile, x_tile + j as u32, [acc[0][j], acc[1][j]]);
    }
}
