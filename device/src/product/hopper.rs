//! Tile products on Hopper: 128 outputs by 128 tokens, two groups of four waves that each issue
//! `wgmma` for 64 tokens.
//!
//! Three stages of two steps are filled by asynchronous copies. `wgmma` reads its operands from
//! workgroup memory, so packed weights are decoded there, into one of two buffers, while the
//! product of the step before is still under way. The chunk order of blocks is `wgmma`'s K-major
//! layout without swizzle: only the distance between chunk columns changes, because the workgroup's
//! tiles lie side by side.
//!
//! `wgmma` sums 16 k at a time in the same order as `mma.sync` in [`super::skinny`]: equal bits.

use core::arch::asm;

use shared::block::{BLOCK_BYTES, CHUNK_STRIDE_BYTES, ROWS};
use shared::kernels::linear::{TILE_OUTPUTS, tile_rows, tile_threads};

use crate::arch::{
    self, copy_async_16, copy_commit, copy_wait, store_16, workgroup_address, workgroup_barrier,
};
use crate::tile::{ACC, Acc, FAMILY};
use crate::weights::Format;

/// Row tiles of W, and of X.
const TILES: usize = TILE_OUTPUTS as usize / ROWS;
/// Rows of W, and of X: one per thread of half the workgroup.
const SIDE: usize = TILES * ROWS;
/// Steps of a stage.
const STEPS: usize = 2;
/// Stages, all but one of them under way.
const STAGES: usize = 3;
/// Bytes of one operand's two steps in `wgmma`'s layout.
const OPERAND_BYTES: usize = STEPS * TILES * BLOCK_BYTES;
/// Bytes from one chunk column to the next: a chunk of every row.
const COLUMN_BYTES: usize = SIDE * 16;
/// `wgmma`s of 16 k in a stage.
const PRODUCTS: usize = STEPS * 2;

const _: () = {
    assert!(SIDE == tile_rows(FAMILY) as usize);
    assert!(tile_threads(FAMILY) as usize == 2 * SIDE);
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
    let packed = F::STEP_BYTES != BLOCK_BYTES;
    let w_bytes = if packed { TILES * STEPS * F::STEP_BYTES } else { OPERAND_BYTES };
    let stage_bytes = w_bytes + OPERAND_BYTES;
    let memory: *mut u8 = arch::workgroup_memory();
    // SAFETY: behind the stages.
    let decoded = unsafe { memory.add(STAGES * stage_bytes) };
    let thread = arch::thread_id() as usize;
    let wave = arch::wave_id() as usize;
    // Thread t copies and decodes row t % SIDE: of step t / SIDE when it decodes, of two chunk
    // columns of both steps when it copies.
    let (row, half) = (thread % SIDE, thread / SIDE);
    let x_row = x(row as u32);
    let w_tile = w((row / ROWS) as u32);
    let stages = steps as usize / STEPS + steps as usize % STEPS;

    let fill = |stage: usize| {
        if stage < stages {
            // SAFETY: inside the stage; past the last step the last one is copied again.
            unsafe {
                let to = memory.add(stage % STAGES * stage_bytes);
                for h in 0..STEPS {
                    let step = (stage * STEPS + h).min(steps as usize - 1);
                    for c in [half, half + 2] {
                        let at = (h * 4 + c) * COLUMN_BYTES + row * 16;
                        let from = step * BLOCK_BYTES + c * CHUNK_STRIDE_BYTES;
                        copy_async_16(to.add(w_bytes + at), x_row.add(from));
                        if !packed {
                            let w_row = w_tile.add(row % ROWS * 16);
                            copy_async_16(to.add(at), w_row.add(from));
                        }
                    }
                    if packed {
                        let mut i = thread;
                        while i < TILES * F::STEP_BYTES / 16 {
                            let (tile, at) = (i * 16 / F::STEP_BYTES, i * 16 % F::STEP_BYTES);
                            let from = w(tile as u32).add(step * F::STEP_BYTES + at);
                            copy_async_16(to.add(h * TILES * F::STEP_BYTES + i * 16), from);
                            i += 2 * SIDE;
                        }
                    }
                }
            }
        }
        copy_commit();
    };

    let mut acc = [0.0; 64];
    for stage in 0..STAGES - 1 {
        fill(stage);
    }
    for stage in 0..stages {
        copy_wait::<{ STAGES - 2 }>();
        // SAFETY: inside this stage and the decoded buffers; the product two stages back, which
        // read this buffer, was waited for below.
        let (w_from, x_from) = unsafe {
            let from = memory.add(stage % STAGES * stage_bytes);
            let mut w_from = from.cast_const();
            if packed {
                workgroup_barrier(); // the stage is whole
                let to = decoded.add(stage % 2 * OPERAND_BYTES);
                let block = from.add((half * TILES + row / ROWS) * F::STEP_BYTES);
                let chunks = F::decode_row(block, row % ROWS);
                for c in 0..4 {
                    store_16(to.add((half * 4 + c) * COLUMN_BYTES + row * 16), chunks[c]);
                }
                w_from = to;
            }
            (w_from, from.add(w_bytes))
        };
        fence_async();
        workgroup_barrier(); // both operands are there for the whole workgroup
        wgmma_fence();
        let count =
            if stage * STEPS + STEPS > steps as usize { PRODUCTS / STEPS } else { PRODUCTS };
        let (w_at, x_at) = (workgroup_address(w_from), workgroup_address(x_from));
        for k in 0..PRODUCTS {
            if k < count {
                let column = (2 * k * COLUMN_BYTES) as u32;
                let group = (wave / 4 * 64 * 16) as u32;
                // SAFETY: both operands are whole, and stay until the product was waited for.
                unsafe {
                    wgmma(&mut acc, descriptor(x_at + column + group), descriptor(w_at + column));
                }
            }
        }
        wgmma_commit();
        // The product before this one is done: its stage can be filled, once all know.
        wgmma_wait::<1>();
        workgroup_barrier();
        fill(stage + STAGES - 1);
    }
    wgmma_wait::<0>();
    for pair in 0..TILES / 2 {
        let mut result = [arch::ZERO; 2];
        for i in 0..2 * ACC {
            result[i / ACC][i % ACC] = acc[pair * 2 * ACC + i];
        }
        each(2 * pair as u32, wave as u32, result);
    }
}

/// Describes a K-major operand without swizzle: 8 rows by 8 k are 128 contiguous bytes, the next
/// 8 rows follow at 128 bytes, the next 8 k a chunk column further.
#[inline(always)]
fn descriptor(address: u32) -> u64 {
    const COLUMN: u64 = COLUMN_BYTES as u64 >> 4;
    const EIGHT_ROWS: u64 = 128 >> 4;
    u64::from((address & 0x3_ffff) >> 4) | COLUMN << 16 | EIGHT_ROWS << 32
}

/// Makes this thread's writes to workgroup memory visible to `wgmma`, once a barrier follows.
#[inline(always)]
fn fence_async() {
    // SAFETY: only orders memory accesses.
    unsafe { asm!("fence.proxy.async.shared::cta;", options(nostack)) };
}

/// Orders earlier accesses to the accumulator registers before the next `wgmma`.
#[inline(always)]
fn wgmma_fence() {
    // SAFETY: only orders.
    unsafe { asm!("wgmma.fence.sync.aligned;", options(nostack)) };
}

/// Closes a group of `wgmma`s.
#[inline(always)]
fn wgmma_commit() {
    // SAFETY: only marks what was issued.
    unsafe { asm!("wgmma.commit_group.sync.aligned;", options(nostack)) };
}

/// Waits until at most `PENDING` groups are under way.
#[inline(always)]
fn wgmma_wait<const PENDING: u32>() {
    // SAFETY: only waits.
    unsafe { asm!("wgmma.wait_group.sync.aligned {};", const PENDING, options(nostack)) };
}

/// `c += X · Wᵀ` of 64 rows of X, 128 rows of W and 16 k. Wave `i` of the group holds rows
/// `16 i..` of X: `c[8 j..]` is its result with row tile `j` of W, as `mma.sync` would hold it.
/// Collective over four waves; asynchronous.
///
/// # Safety
///
/// The descriptors are of operands that stay as they are until the product was waited for.
#[inline(always)]
unsafe fn wgmma(c: &mut [f32; 64], x: u64, w: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15},",
            "{16}, {17}, {18}, {19}, {20}, {21}, {22}, {23}, {24}, {25}, {26}, {27}, {28}, {29}, {30}, {31},",
            "{32}, {33}, {34}, {35}, {36}, {37}, {38}, {39}, {40}, {41}, {42}, {43}, {44}, {45}, {46}, {47},",
            "{48}, {49}, {50}, {51}, {52}, {53}, {54}, {55}, {56}, {57}, {58}, {59}, {60}, {61}, {62}, {63}}}, {64}, {65}, 1, 1, 1, 0, 0;",
            inout(reg32) c[0], inout(reg32) c[1], inout(reg32) c[2], inout(reg32) c[3],
            inout(reg32) c[4], inout(reg32) c[5], inout(reg32) c[6], inout(reg32) c[7],
            inout(reg32) c[8], inout(reg32) c[9], inout(reg32) c[10], inout(reg32) c[11],
            inout(reg32) c[12], inout(reg32) c[13], inout(reg32) c[14], inout(reg32) c[15],
            inout(reg32) c[16], inout(reg32) c[17], inout(reg32) c[18], inout(reg32) c[19],
            inout(reg32) c[20], inout(reg32) c[21], inout(reg32) c[22], inout(reg32) c[23],
            inout(reg32) c[24], inout(reg32) c[25], inout(reg32) c[26], inout(reg32) c[27],
            inout(reg32) c[28], inout(reg32) c[29], inout(reg32) c[30], inout(reg32) c[31],
            inout(reg32) c[32], inout(reg32) c[33], inout(reg32) c[34], inout(reg32) c[35],
            inout(reg32) c[36], inout(reg32) c[37], inout(reg32) c[38], inout(reg32) c[39],
            inout(reg32) c[40], inout(reg32) c[41], inout(reg32) c[42], inout(reg32) c[43],
            inout(reg32) c[44], inout(reg32) c[45], inout(reg32) c[46], inout(reg32) c[47],
            inout(reg32) c[48], inout(reg32) c[49], inout(reg32) c[50], inout(reg32) c[51],
            inout(reg32) c[52], inout(reg32) c[53], inout(reg32) c[54], inout(reg32) c[55],
            inout(reg32) c[56], inout(reg32) c[57], inout(reg32) c[58], inout(reg32) c[59],
            inout(reg32) c[60], inout(reg32) c[61], inout(reg32) c[62], inout(reg32) c[63],
            in(reg64) x, in(reg64) w, options(nostack)
        );
    }
}
