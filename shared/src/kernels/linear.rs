//! Dense products, `out[x, w] (+)= sum_k W[w, k] X[x, k] + bias[w]`.

use crate::block::{BLOCK_BYTES, ROWS};
use crate::pack;

/// Waves of a workgroup of the skinny kernels; each has its own 16 outputs.
pub const SKINNY_WAVES: u32 = 4;
/// Outputs of a workgroup of the tile kernels.
pub const TILE_OUTPUTS: u32 = 128;
/// Rows of X of a workgroup of the tile kernels.
pub const TILE_ROWS: u32 = 64;

/// Two stages of a tile kernel's blocks, in bytes.
const fn tile_lds(step_bytes: usize) -> u32 {
    let w = TILE_OUTPUTS as usize / ROWS * step_bytes;
    2 * (w + TILE_ROWS as usize / ROWS * BLOCK_BYTES) as u32
}

macro_rules! linear {
    ($(#[$doc:meta] $name:ident, $threads:expr, $lds:expr;)*) => {
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
                lds(args, wave) = $lds;
            }
        )*}
    };
}

/// Threads of the skinny kernels.
pub const fn skinny_threads(wave: u32) -> u32 {
    SKINNY_WAVES * wave
}

/// Threads of the tile kernels: eight waves.
pub const fn tile_threads(wave: u32) -> u32 {
    8 * wave
}

linear! {
    /// bf16 W, up to 16 rows. Grid `ceil(n / 64)`.
    linear_skinny_bf16, skinny_threads, 0;
    /// bf16 W, up to 64 rows. Grid `ceil(n / 64)`.
    linear_skinny64_bf16, skinny_threads, 0;
    /// bf16 W. Grid `(ceil(n / 128), ceil(rows / 64))`.
    linear_tile_bf16, tile_threads, tile_lds(pack::BF16_STEP_BYTES);
    /// MXINT8 W, up to 16 rows. Grid `ceil(n / 64)`.
    linear_skinny_mxint8, skinny_threads, 0;
    /// MXINT8 W, up to 64 rows. Grid `ceil(n / 64)`.
    linear_skinny64_mxint8, skinny_threads, 0;
    /// MXINT8 W. Grid `(ceil(n / 128), ceil(rows / 64))`.
    linear_tile_mxint8, tile_threads, tile_lds(pack::MXINT8_STEP_BYTES);
}
