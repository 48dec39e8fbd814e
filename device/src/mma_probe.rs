//! The matrix instruction on its own: what each lane must hold, and what the loaders put there.
//!
//! With one-hot operands every element of every fragment can be told apart, so these two kernels
//! decide whether `shared::frag` and the loaders of `arch` are right about a chip.

use shared::frag::Frag as _;
use shared::kernels::basics::{MMA_LDS_STRIDE, MMA_TILE, mma_fragments_bf16, mma_tile_bf16};

use crate::arch::{
    AbFrag, CFrag, Mma, WAVE, ZERO, lane, load_16, load_a, load_a_lds, load_b, load_b_lds, mma,
    store_16, workgroup_barrier, workgroup_id_x, workgroup_memory,
};

const _: mma_tile_bf16::Signature = mma_tile_bf16;
const _: mma_fragments_bf16::Signature = mma_fragments_bf16;
const _: () = assert!(Mma::M == MMA_TILE && Mma::N == MMA_TILE && Mma::K == MMA_TILE);

/// Elements of one tile.
const TILE: usize = (MMA_TILE * MMA_TILE) as usize;
/// Elements of one staged tile.
const STAGED: usize = (MMA_TILE * MMA_LDS_STRIDE) as usize;

/// The product of two tiles; shapes are in the table.
///
/// # Safety
///
/// The buffers hold what the table says and are 16-byte aligned, `c` overlaps no other, and the
/// launch passes the table's workgroup memory.
#[unsafe(no_mangle)]
pub unsafe extern "gpu-kernel" fn mma_tile_bf16(a: *const u16, b: *const u16, c: *mut f32) {
    crate::arch::wait_for_earlier();
    let tile = workgroup_id_x() as usize * TILE;
    let lds_a: *mut u16 = workgroup_memory();
    // SAFETY: the launch passes room for two staged tiles, and the grid has a workgroup per tile.
    unsafe {
        let (a, b, c) = (a.add(tile), b.add(tile), c.add(2 * tile));
        let lds_b = lds_a.add(STAGED);
        stage(lds_a, a);
        stage(lds_b, b);
        workgroup_barrier();
        store(c, mma(load_a(a, MMA_TILE), load_b(b, MMA_TILE), ZERO));
        let (a, b) = (load_a_lds(lds_a, MMA_LDS_STRIDE), load_b_lds(lds_b, MMA_LDS_STRIDE));
        store(c.add(TILE), mma(a, b, ZERO));
    }
}

/// Copies a tile to workgroup memory.
///
/// # Safety
///
/// `from` holds a tile and `to` a staged one, both 16-byte aligned.
#[inline(always)]
unsafe fn stage(to: *mut u16, from: *const u16) {
    const VECTOR: u32 = 8;
    for at in (lane() * VECTOR..TILE as u32).step_by((WAVE * VECTOR) as usize) {
        let (row, k) = (at / MMA_TILE, at % MMA_TILE);
        // SAFETY: inside both tiles.
        unsafe {
            let value = load_16(from.add(at as usize));
            store_16(to.add((row * MMA_LDS_STRIDE + k) as usize), value);
        }
    }
}

/// Stores this lane's part of the tile `c`.
///
/// # Safety
///
/// `c` holds a tile.
#[inline(always)]
unsafe fn store(c: *mut f32, frag: CFrag) {
    for (i, value) in frag.into_iter().enumerate() {
        let (m, n) = Mma::c_index(lane(), i as u32);
        // SAFETY: inside the tile.
        unsafe { *c.add((m * MMA_TILE + n) as usize) = value };
    }
}

/// One instruction on registers as they come; shapes are in the table.
///
/// # Safety
///
/// The buffers hold what the table says and do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "gpu-kernel" fn mma_fragments_bf16(a: *const u32, b: *const u32, c: *mut f32) {
    crate::arch::wait_for_earlier();
    let at = (workgroup_id_x() * WAVE + lane()) as usize;
    // SAFETY: every buffer holds one fragment per lane and tile.
    unsafe {
        let c = c.cast::<CFrag>().add(at);
        *c = mma(*a.cast::<AbFrag>().add(at), *b.cast::<AbFrag>().add(at), *c);
    }
}
