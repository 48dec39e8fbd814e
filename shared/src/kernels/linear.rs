//! Dense products, `out[x, w] (+)= sum_k W[w, k] X[x, k] + bias[w]`.

use crate::block::{BLOCK_BYTES, Family, ROWS};
use crate::pack;

/// Outputs of a workgroup of the kernels for up to 16 rows: one wave, one row tile.
pub const SKINNY_OUTPUTS: u32 = ROWS as u32;
/// Waves of a workgroup of the kernels for up to 64 rows.
pub const SKINNY64_WAVES: u32 = 4;
/// Outputs of a workgroup of the tile kernels.
pub const TILE_OUTPUTS: u32 = 128;

/// Row tiles of W of a workgroup of the kernels for up to 64 rows. On Hopper its waves share them
/// and each takes 16 rows of X; elsewhere each wave takes one, and all rows of X.
pub const fn skinny64_tiles(family: Family) -> u32 {
    match family {
        Family::Nvptx => 2,
        _ => SKINNY64_WAVES,
    }
}

/// Steps of a stage of the ring that Hopper's skinny kernels keep in workgroup memory.
pub const RING_STEPS: usize = 8;
/// Stages of that ring: more bytes on their way for each wave.
pub const RING_STAGES: usize = 4;

/// Bytes of one stage of a ring of `w` row tiles of W, in blocks of `step_bytes`, and `x` of X.
pub const fn ring_stage_bytes(w: usize, x: usize, step_bytes: usize) -> usize {
    RING_STEPS * (w * step_bytes + x * BLOCK_BYTES)
}

/// Waves of a workgroup of which `waves` multiply: on Hopper one more fills the ring.
pub const fn ring_waves(family: Family, waves: u32) -> u32 {
    match family {
        Family::Nvptx => waves + 1,
        _ => waves,
    }
}

/// Workgroup memory of a ring: its stages, and two barriers for each.
pub const fn ring_lds(w: usize, x: usize, stages: usize, step_bytes: usize) -> u32 {
    (stages * (ring_stage_bytes(w, x, step_bytes) + 16)) as u32
}

/// Rows of X of a workgroup of the tile kernels.
pub const fn tile_rows(family: Family) -> u32 {
    match family {
        Family::Nvptx => 128,
        _ => 64,
    }
}

/// Workgroup memory of the tile kernels, here and in `moe`, for blocks of `step_bytes` of W: two
/// stages on AMD. On Hopper three stages of two steps, and for packed formats two more of decoded W.
pub const fn tile_lds(family: Family, step_bytes: usize) -> u32 {
    let x = tile_rows(family) as usize / ROWS * BLOCK_BYTES;
    let w = TILE_OUTPUTS as usize / ROWS * step_bytes;
    let decoded = TILE_OUTPUTS as usize / ROWS * BLOCK_BYTES;
    let bytes = match family {
        Family::Nvptx if step_bytes == BLOCK_BYTES => 3 * 2 * (w + x),
        Family::Nvptx => 3 * 2 * (w + x) + 2 * 2 * decoded,
        _ => 2 * (w + x),
    };
    bytes as u32
}

macro_rules! linear {
    ($(#[$doc:meta] $name:ident, $threads:expr, $lds:expr, $step_bytes:expr;)*) => {
        crate::kernels! {$(
            #[$doc]
            $name(
                /// `[ceil(n / 16)][steps]` blocks, see [`crate::pack`]
                w: *const u8,
                /// `[rows, 32 * steps]` bf16 in tiled layout, see [`crate::block`]
                x: *const u8,
                /// `[n]`
                bias: *const f32,
                /// `[rows, n]`
                out: *mut f32,
                n: u32,
                rows: u32,
                /// k in units of 32
                steps: u32,
                /// not 0: the result is added to `out`
                accumulate: u32,
            ) {
                threads(family) = $threads(family);
                lds(args, family) = $lds(family, $step_bytes);
            }
        )*}
    };
}

/// Threads of the kernels for up to 16 rows.
pub const fn skinny_threads(family: Family) -> u32 {
    ring_waves(family, 1) * family.wave()
}

/// Threads of the kernels for up to 64 rows.
pub const fn skinny64_threads(family: Family) -> u32 {
    ring_waves(family, SKINNY64_WAVES) * family.wave()
}

/// Threads of the tile kernels: eight waves.
pub const fn tile_threads(family: Family) -> u32 {
    8 * family.wave()
}

const fn skinny_lds(family: Family, step_bytes: usize) -> u32 {
    match family {
        Family::Nvptx => ring_lds(1, 1, RING_STAGES, step_bytes),
        _ => 0,
    }
}

const fn skinny64_lds(family: Family, step_bytes: usize) -> u32 {
    match family {
        Family::Nvptx => ring_lds(skinny64_tiles(family) as usize, 4, RING_STAGES, step_bytes),
        _ => 0,
    }
}

linear! {
    /// bf16 W, up to 16 rows. Grid `ceil(n / 16)`.
    linear_skinny_bf16, skinny_threads, skinny_lds, pack::BF16_STEP_BYTES;
    /// bf16 W, up to 64 rows. Grid `ceil(n / 16 / skinny64_tiles)`.
    linear_skinny64_bf16, skinny64_threads, skinny64_lds, pack::BF16_STEP_BYTES;
    /// bf16 W. Grid `(ceil(n / 128), ceil(rows / tile_rows))`.
    linear_tile_bf16, tile_threads, tile_lds, pack::BF16_STEP_BYTES;
    /// MXINT8 W, up to 16 rows. Grid `ceil(n / 16)`.
    linear_skinny_mxint8, skinny_threads, skinny_lds, pack::MXINT8_STEP_BYTES;
    /// MXINT8 W, up to 64 rows. Grid `ceil(n / 16 / skinny64_tiles)`.
    linear_skinny64_mxint8, skinny64_threads, skinny64_lds, pack::MXINT8_STEP_BYTES;
    /// MXINT8 W. Grid `(ceil(n / 128), ceil(rows / tile_rows))`.
    linear_tile_mxint8, tile_threads, tile_lds, pack::MXINT8_STEP_BYTES;
}
