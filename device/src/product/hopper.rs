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

use crate::arch::hopper::{fence_async, wait_products};
use crate::arch::{
    self, copy_async_16, copy_commit, copy_wait, store_16, workgroup_address, workgroup_barrier,
};
use crate::tile::{Acc, FAMILY};
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

    // Makes the operands of a stage ready, and returns their descriptors.
    let ready = |stage: usize| {
        copy_wait::<{ STAGES - 2 }>();
        // SAFETY: inside this stage and the decoded buffers; the product two stages back, which
        // read this buffer, was waited for.
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
        let group = (wave / 4 * 64 * 16) as u32;
        (descriptor(workgroup_address(x_from) + group), descriptor(workgroup_address(w_from)))
    };

    let mut acc = [arch::ZERO; TILES];
    for stage in 0..STAGES - 1 {
        fill(stage);
    }
    let whole = steps as usize / STEPS;
    for stage in 0..whole {
        let (x, w) = ready(stage);
        // SAFETY: both operands are whole, and stay until the product was waited for.
        unsafe { products_4(&mut acc, x, w) };
        // The product before this one is done: its stage can be filled, once all know.
        wgmma_wait::<1>();
        workgroup_barrier();
        fill(stage + STAGES - 1);
    }
    wait_products(&mut acc);
    if whole < stages {
        let (x, w) = ready(whole);
        // SAFETY: as above.
        unsafe { products_2(&mut acc, x, w) };
        wait_products(&mut acc);
    }
    for pair in 0..TILES / 2 {
        each(2 * pair as u32, wave as u32, [acc[2 * pair], acc[2 * pair + 1]]);
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

/// Waits until at most `PENDING` groups are under way.
#[inline(always)]
fn wgmma_wait<const PENDING: u32>() {
    // SAFETY: only waits.
    unsafe { asm!("wgmma.wait_group.sync.aligned {};", const PENDING, options(nostack)) };
}

/// One `wgmma` of 16 k, and the descriptors of the next.
macro_rules! product {
    () => {
        concat!(
            "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 ",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}, ",
            "{16}, {17}, {18}, {19}, {20}, {21}, {22}, {23}, {24}, {25}, {26}, {27}, {28}, {29}, {30}, {31}, ",
            "{32}, {33}, {34}, {35}, {36}, {37}, {38}, {39}, {40}, {41}, {42}, {43}, {44}, {45}, {46}, {47}, ",
            "{48}, {49}, {50}, {51}, {52}, {53}, {54}, {55}, {56}, {57}, {58}, {59}, {60}, {61}, {62}, {63}}}, ",
            "dx, dw, 1, 1, 1, 0, 0;",
            "add.s64 dx, dx, {66}; add.s64 dw, dw, {66};",
        )
    };
}

/// Products of 64 rows of X with 128 rows of W, in one piece of assembly: an instruction of the
/// compiler's between the fence and the last of them would have them wait for each other.
macro_rules! products {
    ($(#[$doc:meta] $name:ident = $($product:expr),*;)*) => {$(
        #[$doc]
        /// Wave `i` of the group holds rows `16 i..` of X: `c[j]` is its result with row tile
        /// `j` of W, as `mma.sync` would hold it. Collective over four waves; asynchronous.
        ///
        /// # Safety
        ///
        /// The descriptors are of operands that stay as they are until the product was waited for.
        #[inline(always)]
        unsafe fn $name(c: &mut [Acc; TILES], x: u64, w: u64) {
            // SAFETY: the caller's promise.
            unsafe {
                asm!(
                    "{{ .reg .b64 dx, dw; mov.b64 dx, {64}; mov.b64 dw, {65};",
                    "wgmma.fence.sync.aligned;",
                    $($product,)*
                    "wgmma.commit_group.sync.aligned; }}",
                    inout(reg32) c[0][0], inout(reg32) c[0][1], inout(reg32) c[0][2], inout(reg32) c[0][3],
                    inout(reg32) c[0][4], inout(reg32) c[0][5], inout(reg32) c[0][6], inout(reg32) c[0][7],
                    inout(reg32) c[1][0], inout(reg32) c[1][1], inout(reg32) c[1][2], inout(reg32) c[1][3],
                    inout(reg32) c[1][4], inout(reg32) c[1][5], inout(reg32) c[1][6], inout(reg32) c[1][7],
                    inout(reg32) c[2][0], inout(reg32) c[2][1], inout(reg32) c[2][2], inout(reg32) c[2][3],
                    inout(reg32) c[2][4], inout(reg32) c[2][5], inout(reg32) c[2][6], inout(reg32) c[2][7],
                    inout(reg32) c[3][0], inout(reg32) c[3][1], inout(reg32) c[3][2], inout(reg32) c[3][3],
                    inout(reg32) c[3][4], inout(reg32) c[3][5], inout(reg32) c[3][6], inout(reg32) c[3][7],
                    inout(reg32) c[4][0], inout(reg32) c[4][1], inout(reg32) c[4][2], inout(reg32) c[4][3],
                    inout(reg32) c[4][4], inout(reg32) c[4][5], inout(reg32) c[4][6], inout(reg32) c[4][7],
                    inout(reg32) c[5][0], inout(reg32) c[5][1], inout(reg32) c[5][2], inout(reg32) c[5][3],
                    inout(reg32) c[5][4], inout(reg32) c[5][5], inout(reg32) c[5][6], inout(reg32) c[5][7],
                    inout(reg32) c[6][0], inout(reg32) c[6][1], inout(reg32) c[6][2], inout(reg32) c[6][3],
                    inout(reg32) c[6][4], inout(reg32) c[6][5], inout(reg32) c[6][6], inout(reg32) c[6][7],
                    inout(reg32) c[7][0], inout(reg32) c[7][1], inout(reg32) c[7][2], inout(reg32) c[7][3],
                    inout(reg32) c[7][4], inout(reg32) c[7][5], inout(reg32) c[7][6], inout(reg32) c[7][7],
                    in(reg64) x, in(reg64) w, const COLUMN_BYTES * 2 / 16, options(nostack)
                );
            }
        }
    )*};
}

products! {
    /// `c += X · Wᵀ` over 64 k.
    products_4 = product!(), product!(), product!(), product!();
    /// `c += X · Wᵀ` over 32 k.
    products_2 = product!(), product!();
}
