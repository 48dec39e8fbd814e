//! Mixture of experts: route, sort by expert, two products per expert, combine.
//!
//! An *assignment* is a token and one of its experts, numbered `row * top_k + rank`. A *slot* is an
//! assignment's place when they are sorted by expert, then by number, and every expert's first slot
//! is the next multiple of 16: row tiles belong to one expert, and slots between experts are empty.
//! A *tile* is up to [`SKINNY_SLOTS`] or [`tile_slots`] slots of one expert. Counts stay on the
//! device: grids are upper bounds, and workgroups past the last tile leave at once.

use crate::block::{Family, ROWS};
use crate::kernels::linear::{ring_lds, ring_waves, tile_lds, tile_rows, tile_threads};
use crate::pack;

/// Experts a sort can count.
pub const MAX_EXPERTS: u32 = 1024;
/// Most experts of one token.
pub const MAX_TOP_K: u32 = 32;
/// Words of one entry of the tile list: expert, first slot, slots.
pub const TILE_WORDS: u32 = 3;
/// Slots of a tile of the skinny kernels.
pub const SKINNY_SLOTS: u32 = 16;
/// Slots there can be at most, empty ones included.
pub const fn max_slots(rows: u32, top_k: u32, experts: u32) -> u32 {
    ROWS as u32 * max_tiles(rows, top_k, experts, ROWS as u32)
}

/// Waves of a workgroup of the skinny kernels that multiply: each has a row tile of W, in the first product one
/// of gates and the next of ups.
pub const SKINNY_WAVES: u32 = 4;
/// Stages of the ring of Hopper's skinny kernels: fewer than the dense ones have, so that one more
/// workgroup shares a compute unit, because unpacking keeps waves busy.
pub const MOE_RING_STAGES: usize = 3;
/// Row tiles of W of a workgroup of the tile kernels.
pub const TILE_W_TILES: u32 = 8;
/// The assignment of an empty slot.
pub const EMPTY: u32 = u32::MAX;
/// Threads of `moe_sort`, and how many of them count together.
pub const SORT_THREADS: u32 = 256;
/// See [`SORT_THREADS`].
pub const SORT_GROUP: u32 = 16;
/// Steps of one workgroup of `moe_gather`, whose threads each copy a chunk of them.
pub const GATHER_STEPS: u32 = 16;
/// Rows one workgroup of `moe_combine` adds to, and the elements of each.
pub const COMBINE_ELEMENTS: u32 = 1024;

/// Slots of a tile of the tile kernels.
pub const fn tile_slots(family: Family) -> u32 {
    tile_rows(family)
}

/// Tiles there can be at most: every expert may end in a broken one.
pub const fn max_tiles(rows: u32, top_k: u32, experts: u32, tile_slots: u32) -> u32 {
    let slots = rows * top_k;
    let broken = if slots < experts { slots } else { experts };
    (slots - broken) / tile_slots + broken
}

/// Workgroup memory of the skinny kernels: on Hopper a ring. The first product hands its ups over
/// to the waves that have the gates.
const fn skinny_lds(family: Family, step_bytes: usize) -> u32 {
    match family {
        Family::Nvptx => ring_lds(SKINNY_WAVES as usize, 1, MOE_RING_STAGES, step_bytes),
        _ => SKINNY_WAVES / 2 * (ROWS * ROWS * 4) as u32,
    }
}

const fn skinny_threads(family: Family) -> u32 {
    ring_waves(family, SKINNY_WAVES) * family.wave()
}

crate::kernels! {
    /// Chooses each row's experts: the `top_k` largest logits, the lowest index among equals,
    /// weighted by their softmax. Grid `rows`, one wave each.
    moe_route(
        /// `[rows, experts]`
        logits: *const f32,
        /// `[rows, top_k]`
        ids: *mut u32,
        /// `[rows, top_k]`
        weights: *mut f32,
        experts: u32,
        top_k: u32,
    ) {
        threads(family) = family.wave();
        lds(args, family) = 0;
    }
    /// Sorts assignments by expert, stably, and lists the tiles. Grid `experts`.
    moe_sort(
        /// `[assignments]`, each below `experts`
        ids: *const u32,
        /// `[slots]`: the assignment in each slot, or [`EMPTY`]
        assignment_of: *mut u32,
        /// `[assignments]`: the slot of each assignment
        slot_of: *mut u32,
        /// `[max_tiles, 3]`: expert, first slot, filled slots
        tiles: *mut u32,
        /// `[1]`
        num_tiles: *mut u32,
        assignments: u32,
        experts: u32,
        tile_slots: u32,
        slots: u32,
    ) {
        threads(family) = SORT_THREADS;
        lds(args, family) = 4 * (args.experts + SORT_THREADS + SORT_THREADS / SORT_GROUP + 2);
    }
    /// Copies each filled slot's token row. Grid `(ceil(steps / 16), slots / 16)`.
    moe_gather(
        /// `[rows, 32 * steps]` bf16 in tiled layout
        x: *const u8,
        /// `[slots]`
        assignment_of: *const u32,
        /// `[slots, 32 * steps]` bf16 in tiled layout; empty slots are left as they are
        out: *mut u8,
        steps: u32,
        top_k: u32,
    ) {
        threads(family) = 256;
        lds(args, family) = 0;
    }
    /// `out[row] += sum over rank of weight * y[slot]`, ranks ascending.
    /// Grid `(ceil(n / 1024), rows)`.
    moe_combine(
        /// `[slots, n]`
        y: *const f32,
        /// `[assignments]`
        slot_of: *const u32,
        /// `[assignments]`
        weights: *const f32,
        /// `[rows, n]`
        out: *mut f32,
        n: u32,
        top_k: u32,
    ) {
        threads(family) = 256;
        lds(args, family) = 0;
    }
}

macro_rules! products {
    ($(
        #[$doc:meta] gate_up $gate_up:ident,
        #[$doc2:meta] down $down:ident,
        $threads:expr, $lds:expr, $step_bytes:expr;
    )*) => {
        crate::kernels! {$(
            #[$doc]
            $gate_up(
                /// `[experts, 2 * units / 16, steps]` blocks; row tiles alternate: 16 gates, 16 ups
                w: *const u8,
                /// `[experts, 2 * units]` in the same order
                bias: *const f32,
                /// `[slots, 32 * steps]` bf16 in tiled layout, see `moe_gather`
                x: *const u8,
                /// `[max_tiles, 3]`
                tiles: *const u32,
                /// `[1]`
                num_tiles: *const u32,
                /// `[slots, units]` bf16 in tiled layout
                act: *mut u16,
                units: u32,
                steps: u32,
                limit: f32,
            ) {
                threads(family) = $threads(family);
                lds(args, family) = $lds(family, $step_bytes);
            }
            #[$doc2]
            $down(
                /// `[experts, n / 16, steps]` blocks
                w: *const u8,
                /// `[experts, n]`
                bias: *const f32,
                /// `[slots, 32 * steps]` bf16 in tiled layout
                act: *const u8,
                /// `[max_tiles, 3]`
                tiles: *const u32,
                /// `[1]`
                num_tiles: *const u32,
                /// `[slots, n]`
                y: *mut f32,
                n: u32,
                steps: u32,
            ) {
                threads(family) = $threads(family);
                lds(args, family) = $lds(family, $step_bytes);
            }
        )*}
    };
}

pub mod products {
    //! The grouped products, in a module of their own: one table per macro call.
    use super::*;

    products! {
        /// First product and SwiGLU, MXFP4. Grid `(ceil(2 * units / 16 / 4), max_tiles)`.
        gate_up moe_gate_up_skinny_mxfp4,
        /// Second product, MXFP4. Grid `(ceil(n / 16 / 4), max_tiles)`.
        down moe_down_skinny_mxfp4,
        skinny_threads, skinny_lds, pack::MXFP4_STEP_BYTES;
        /// First product and SwiGLU, MXFP4. Grid `(ceil(2 * units / 16 / 8), max_tiles)`.
        gate_up moe_gate_up_tile_mxfp4,
        /// Second product, MXFP4. Grid `(ceil(n / 16 / 8), max_tiles)`.
        down moe_down_tile_mxfp4,
        tile_threads, tile_lds, pack::MXFP4_STEP_BYTES;
        /// First product and SwiGLU, bf16. Grid `(ceil(2 * units / 16 / 4), max_tiles)`.
        gate_up moe_gate_up_skinny_bf16,
        /// Second product, bf16. Grid `(ceil(n / 16 / 4), max_tiles)`.
        down moe_down_skinny_bf16,
        skinny_threads, skinny_lds, pack::BF16_STEP_BYTES;
        /// First product and SwiGLU, bf16. Grid `(ceil(2 * units / 16 / 8), max_tiles)`.
        gate_up moe_gate_up_tile_bf16,
        /// Second product, bf16. Grid `(ceil(n / 16 / 8), max_tiles)`.
        down moe_down_tile_bf16,
        tile_threads, tile_lds, pack::BF16_STEP_BYTES;
    }
}

pub use products::{
    moe_down_skinny_bf16, moe_down_skinny_mxfp4, moe_down_tile_bf16, moe_down_tile_mxfp4,
    moe_gate_up_skinny_bf16, moe_gate_up_skinny_mxfp4, moe_gate_up_tile_bf16,
    moe_gate_up_tile_mxfp4,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_tiles_is_reached_and_never_passed() {
        // One expert takes everything but one slot each for the others.
        assert_eq!(max_tiles(16, 4, 32, 16), 34);
        assert_eq!(max_tiles(1, 4, 32, 16), 4);
        assert_eq!(max_tiles(1, 1, 1, 64), 1);
        for (slots, experts) in [(64u32, 3u32), (65, 3), (7, 9), (640, 5)] {
            // Worst split: experts - 1 experts hold one slot, the last the rest.
            let used = experts.min(slots);
            let worst = used - 1 + (slots - (used - 1)).div_ceil(16);
            assert!(worst <= max_tiles(slots, 1, experts, 16));
        }
    }
}
