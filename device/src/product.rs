//! The two ways to sum tile products over k, used by every GEMM-like kernel.
//!
//! [`skinny`] is for few tokens: each wave streams its own rows of W from global memory straight
//! into registers, several steps ahead, and nothing is shared. [`Staged`] is for many: a workgroup
//! copies blocks of W and X to workgroup memory, double buffered, and each wave multiplies its
//! share. Both add the same tile products in the same order, so their results are equal bit for
//! bit; so are those of the Hopper kernels in `hopper.rs`.

use shared::block::{BLOCK_BYTES, ROWS};

use crate::arch::{self, copy_async_16, copy_commit, copy_wait, workgroup_barrier};
use crate::tile::{Acc, LANE_ROWS, Operand, lane_row, mma_half};
use crate::weights::Format;

/// Where the rows of X that a lane reads begin: their first chunk in the block of step 0.
pub type Rows = [*const u8; LANE_ROWS];

/// The rows of X of one 16-token tile, for this lane, where `row(x)` is the first chunk of tile
/// row `x`.
#[inline(always)]
pub fn lane_rows(lane: u32, row: impl Fn(u32) -> *const u8) -> Rows {
    let mut rows = [core::ptr::null(); LANE_ROWS];
    for (i, slot) in rows.iter_mut().enumerate() {
        *slot = row(lane_row(lane, i));
    }
    rows
}

/// The first chunk of row `row` of a tiled bf16 matrix of `steps` steps.
///
/// # Safety
///
/// The matrix has that row.
#[inline(always)]
pub unsafe fn tiled_row(x: *const u8, row: u32, steps: u32) -> *const u8 {
    let tile = row as usize / ROWS * crate::tile::row_tile_bytes(steps);
    // SAFETY: the caller's promise.
    unsafe { x.add(tile + row as usize % ROWS * 16) }
}

/// Products of `WT` row tiles of W with `XT` tiles of X over all `steps`: `[w tile][x tile]`.
/// Loads run `DEPTH` steps ahead of their use. Collective over the wave.
///
/// # Safety
///
/// `w[i]` is the first block of a row tile in format `F`, `x[i]` the lane's rows of a tile; both
/// have `steps >= 1` steps and are not written during the launch.
#[inline(always)]
pub unsafe fn skinny<F: Format, const WT: usize, const XT: usize, const DEPTH: usize>(
    w: [*const u8; WT],
    x: [Rows; XT],
    steps: u32,
    lane: u32,
) -> [[Acc; XT]; WT] {
    // Past the end the last step is loaded again: cheaper than a branch, and in cache.
    let load = |step: u32| {
        let step = step.min(steps - 1) as usize;
        // SAFETY: step < steps.
        let load_w = |i: usize| unsafe { F::load(w[i].add(step * F::STEP_BYTES), lane) };
        let load_x = |i: usize| {
            let mut rows = x[i];
            for row in &mut rows {
                // SAFETY: step < steps.
                *row = unsafe { row.add(step * BLOCK_BYTES) };
            }
            // SAFETY: the rows of the block of this step.
            unsafe { Operand::gather(rows, lane) }
        };
        (core::array::from_fn(load_w), core::array::from_fn(load_x))
    };
    let mut acc = [[arch::ZERO; XT]; WT];
    let mut ahead: [([F::Raw; WT], [Operand; XT]); DEPTH] =
        core::array::from_fn(|i| load(i as u32));
    let mut step = 0;
    while step + DEPTH as u32 <= steps {
        for i in 0..DEPTH {
            let (w, x) = ahead[i];
            ahead[i] = load(step + (i + DEPTH) as u32);
            multiply::<F, WT, XT>(&w, &x, &mut acc);
        }
        step += DEPTH as u32;
    }
    for i in 0..DEPTH {
        if step + (i as u32) < steps {
            multiply::<F, WT, XT>(&ahead[i].0, &ahead[i].1, &mut acc);
        }
    }
    acc
}

/// One step of `WT` by `XT` tile products.
#[inline(always)]
fn multiply<F: Format, const WT: usize, const XT: usize>(
    w: &[F::Raw; WT],
    x: &[Operand; XT],
    acc: &mut [[Acc; XT]; WT],
) {
    for i in 0..WT {
        let w = F::operand(&w[i]);
        for j in 0..XT {
            mma_half::<0>(&w, &x[j], &mut acc[i][j]);
        }
        for j in 0..XT {
            mma_half::<1>(&w, &x[j], &mut acc[i][j]);
        }
    }
}

/// The product of a workgroup's tile: `WAVES_W * WT` row tiles of W by `WAVES_X * XT` tiles of X.
pub struct Staged<F, const WAVES_W: usize, const WAVES_X: usize, const WT: usize, const XT: usize>(
    core::marker::PhantomData<F>,
);

impl<F: Format, const WAVES_W: usize, const WAVES_X: usize, const WT: usize, const XT: usize>
    Staged<F, WAVES_W, WAVES_X, WT, XT>
{
    /// Row tiles of W of a workgroup.
    pub const W_TILES: u32 = (WAVES_W * WT) as u32;
    /// Tiles of X of a workgroup.
    pub const X_TILES: u32 = (WAVES_X * XT) as u32;
    /// Threads of a workgroup.
    pub const THREADS: u32 = (WAVES_W * WAVES_X) as u32 * arch::WAVE;
    const W_BYTES: usize = WAVES_W * WT * F::STEP_BYTES;
    const STAGE_BYTES: usize = Self::W_BYTES + WAVES_X * XT * BLOCK_BYTES;
    /// Workgroup memory it uses.
    pub const LDS_BYTES: usize = 2 * Self::STAGE_BYTES;

    /// The wave's products, `[w tile][x tile]`: row tiles `wave % WAVES_W * WT ..` and tiles
    /// `wave / WAVES_W * XT ..` of the workgroup's. Collective over the workgroup.
    ///
    /// # Safety
    ///
    /// The workgroup has [`Self::THREADS`] threads and [`Self::LDS_BYTES`] of workgroup memory.
    /// `w(i)` is the first block of the workgroup's row tile `i`, `x(r)` the first chunk of its
    /// token `r`; all have `steps >= 1` steps, are readable, and are not written during the launch.
    #[inline(always)]
    pub unsafe fn product(
        w: impl Fn(u32) -> *const u8,
        x: impl Fn(u32) -> *const u8,
        steps: u32,
    ) -> [[Acc; XT]; WT] {
        let (thread, lane) = (arch::thread_id(), arch::lane());
        let wave = arch::wave_id() as usize;
        let memory: *mut u8 = arch::workgroup_memory();
        let (w_pieces, x_pieces) = (Self::W_BYTES / 16, WAVES_X * XT * BLOCK_BYTES / 16);
        let stage = |step: u32| {
            // SAFETY: two stages fit; pieces are 16 bytes, each of one tile's block; step < steps.
            unsafe {
                let to = memory.add(step as usize % 2 * Self::STAGE_BYTES);
                let mut i = thread as usize;
                while i < w_pieces {
                    let (tile, at) = (i * 16 / F::STEP_BYTES, i * 16 % F::STEP_BYTES);
                    let from = w(tile as u32).add(step as usize * F::STEP_BYTES + at);
                    copy_async_16(to.add(i * 16), from);
                    i += Self::THREADS as usize;
                }
                let mut i = thread as usize;
                while i < x_pieces {
                    let (tile, chunk) = (i / 64, i % 64);
                    let row = x((tile * ROWS + chunk % ROWS) as u32);
                    let from = row.add(step as usize * BLOCK_BYTES + chunk / ROWS * 256);
                    copy_async_16(to.add(Self::W_BYTES + i * 16), from);
                    i += Self::THREADS as usize;
                }
            }
            copy_commit();
        };

        let mut acc = [[arch::ZERO; XT]; WT];
        let w_at = wave % WAVES_W * WT * F::STEP_BYTES;
        let x_at = Self::W_BYTES + wave / WAVES_W * XT * BLOCK_BYTES;
        stage(0);
        for step in 0..steps {
            copy_wait::<0>();
            workgroup_barrier(); // this stage is whole, and nobody reads the other any more
            if step + 1 < steps {
                stage(step + 1);
            }
            // SAFETY: the wave's share of a stage.
            unsafe {
                let from = memory.add(step as usize % 2 * Self::STAGE_BYTES);
                let x: [Operand; XT] =
                    core::array::from_fn(|i| Operand::load(from.add(x_at + i * BLOCK_BYTES), lane));
                for i in 0..WT {
                    let w = F::load(from.add(w_at + i * F::STEP_BYTES), lane);
                    multiply::<F, 1, XT>(&[w], &x, core::array::from_mut(&mut acc[i]));
                }
            }
        }
        acc
    }
}
