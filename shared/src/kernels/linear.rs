//! Dense products, `out[x, w] (+)= sum_k W[w, k] X[x, k] + bias[w]`.

use crate::block::{BLOCK_BYTES, Family, ROWS};
use crate::pack;

/// Outputs of a workgroup of the kernels for up to 16 rows: one wave, one row tile.
pub const SKINNY_OUTPUTS: u32 = ROWS as u32;
/// Waves of a workgroup of the kernels for up to 64 rows.
pub const SKINNY64_WAVES: u32 = 4;
/// Outputs of a workgroup of the tile kernels.
pub const TILE_OUTPUTS: u32 = 128;

/// Outputs of a workgroup of the kernels for up to 64 rows: a row tile per wave.
pub const SKINNY64_OUTPUTS: u32 = SKINNY64_WAVES * ROWS as u32;

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
                threads(wave) = $threads(wave);
                lds(args, family) = $lds(family, $step_bytes, args.n);
            }
        )*}
    };
}

/// Threads of the kernels for up to 16 rows.
pub const fn skinny_threads(wave: u32) -> u32 {
    wave
}

/// Threads of the kernels for up to 64 rows.
pub const fn skinny64_threads(wave: u32) -> u32 {
    SKINNY64_WAVES * wave
}

/// Threads of the tile kernels: eight waves.
pub const fn tile_threads(wave: u32) -> u32 {
    8 * wave
}

/// No workgroup memory.
const fn no_lds(_family: Family, _step_bytes: usize, _n: u32) -> u32 {
    0
}

/// Workgroup memory of a wave that streams a row tile of W through it: four stages of eight steps,
/// and a barrier for each stage.
const fn bulk_lds(step_bytes: usize) -> u32 {
    (4 * 8 * step_bytes + 4 * 8) as u32
}

/// Outputs below which Hopper's waves are few, so that each needs more bytes on their way than its
/// registers hold; with more, the many waves need none of the workgroup memory.
pub const BULK_OUTPUTS: u32 = 1 << 15;

/// [`bulk_lds`] where that is how `n` outputs are computed.
const fn skinny_lds(family: Family, step_bytes: usize, n: u32) -> u32 {
    match family {
        Family::Nvptx if n < BULK_OUTPUTS => bulk_lds(step_bytes),
        _ => 0,
    }
}

/// [`tile_lds`]; `n` does not matter.
const fn tile_lds_of(family: Family, step_bytes: usize, _n: u32) -> u32 {
    tile_lds(family, step_bytes)
}

linear! {
    /// bf16 W, up to 16 rows. Grid `ceil(n / 16)`.
    linear_skinny_bf16, skinny_threads, skinny_lds, pack::BF16_STEP_BYTES;
    /// bf16 W, up to 64 rows. Grid `ceil(n / 64)`.
    linear_skinny64_bf16, skinny64_threads, no_lds, pack::BF16_STEP_BYTES;
    /// bf16 W. Grid `(ceil(n / 128), ceil(rows / tile_rows))`.
    linear_tile_bf16, tile_threads, tile_lds_of, pack::BF16_STEP_BYTES;
    /// MXINT8 W, up to 16 rows. Grid `ceil(n / 16)`.
    linear_skinny_mxint8, skinny_threads, skinny_lds, pack::MXINT8_STEP_BYTES;
    /// MXINT8 W, up to 64 rows. Grid `ceil(n / 64)`.
    linear_skinny64_mxint8, skinny64_threads, no_lds, pack::MXINT8_STEP_BYTES;
    /// MXINT8 W. Grid `(ceil(n / 128), ceil(rows / tile_rows))`.
    linear_tile_mxint8, tile_threads, tile_lds_of, pack::MXINT8_STEP_BYTES;
}
