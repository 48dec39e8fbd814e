//! Dense products: `out[x, w] (+)= sum_k W[w, k] X[x, k] + bias[w]`.
//!
//! W is `[n, k]` in a packed format, X `[rows, k]` bf16 in tiled layout, `bias` `[n]` f32, `out`
//! `[rows, n]` f32, row-major. With `accumulate` the result is added to `out`: the residual stream
//! takes it in place. Rounding: one chain over k in f32 (see [`shared::block`]), then the bias,
//! then the residual, each rounded once.
//!
//! `linear_skinny_*` serve up to 16 or 64 rows, one row tile of W per wave; `linear_tile_*` any
//! number.

use shared::block::{Family, ROWS};
use shared::kernels::linear::*;

use crate::arch;
use crate::product::{skinny, skinny64, tile_product, tiled_row};
use crate::tile::{ACC, Acc, FAMILY, acc_index};
use crate::weights::{Bf16, Format, Mxint8};

/// Where results go.
#[derive(Clone, Copy)]
struct Output {
    bias: *const f32,
    out: *mut f32,
    n: u32,
    rows: u32,
    accumulate: u32,
}

impl Output {
    /// The biases of row tile `w_tile`, for the elements of a tile's result.
    ///
    /// # Safety
    ///
    /// `bias` holds `n` elements, as the kernels promise.
    #[inline(always)]
    unsafe fn biases(self, w_tile: u32, lane: u32) -> Acc {
        let mut biases = arch::ZERO;
        for i in 0..ACC {
            let w = w_tile * ROWS as u32 + acc_index(lane, i).0;
            // SAFETY: below n.
            biases[i] = unsafe { *self.bias.add(w.min(self.n - 1) as usize) };
        }
        biases
    }

    /// Stores the elements of one tile whose row tile of W is `w_tile` and whose first row is `x0`.
    ///
    /// # Safety
    ///
    /// `out` holds `rows * n` elements, as the kernels promise.
    #[inline(always)]
    unsafe fn store(self, acc: Acc, biases: Acc, w_tile: u32, x0: u32, lane: u32) {
        for i in 0..ACC {
            let (w, x) = acc_index(lane, i);
            let (w, x) = (w_tile * ROWS as u32 + w, x0 + x);
            if w < self.n && x < self.rows {
                // SAFETY: in range by the test above.
                unsafe {
                    let at = self.out.add(x as usize * self.n as usize + w as usize);
                    let value = acc[i] + biases[i];
                    *at = if self.accumulate != 0 { *at + value } else { value };
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn linear_skinny<F: Format>(w: *const u8, x: *const u8, steps: u32, output: Output) {
    let (w_tile, lane) = (arch::workgroup_id_x(), arch::lane());
    // SAFETY: the grid has a workgroup per tile of W, and x has the rows.
    unsafe {
        let biases = output.biases(w_tile, lane);
        let tile = w.add(w_tile as usize * steps as usize * F::STEP_BYTES);
        if let Some(acc) = skinny::<F, 1, { AHEAD.0 }>(|_| tile, x, output.rows, steps) {
            output.store(acc, biases, w_tile, 0, lane);
        }
    }
}

#[inline(always)]
unsafe fn linear_skinny64<F: Format>(w: *const u8, x: *const u8, steps: u32, output: Output) {
    let w0 = arch::workgroup_id_x() * skinny64_tiles(FAMILY);
    let last = (output.n - 1) / ROWS as u32;
    // SAFETY: tiles past the last repeat it, and their results are not stored; x has the rows.
    unsafe {
        skinny64::<F, { AHEAD.1 }>(
            |i| w.add((w0 + i).min(last) as usize * steps as usize * F::STEP_BYTES),
            x,
            output.rows,
            steps,
            |w_tile, x_tile, acc| {
                let (w_tile, lane) = (w0 + w_tile, arch::lane());
                let biases = output.biases(w_tile, lane);
                output.store(acc, biases, w_tile, x_tile * ROWS as u32, lane);
            },
        );
    }
}

#[inline(always)]
unsafe fn linear_tile<F: Format>(w: *const u8, x: *const u8, steps: u32, output: Output) {
    let w0 = arch::workgroup_id_x() * (TILE_OUTPUTS / ROWS as u32);
    let x0 = arch::workgroup_id_y() * tile_rows(FAMILY);
    arch::wait_for_earlier();
    let (last_w, last_x) = ((output.n - 1) / ROWS as u32, output.rows - 1);
    let lane = arch::lane();
    // SAFETY: tiles and rows past the last repeat it, and their results are not stored.
    unsafe {
        tile_product::<F>(
            |i| w.add((w0 + i).min(last_w) as usize * steps as usize * F::STEP_BYTES),
            |r| tiled_row(x, (x0 + r).min(last_x), steps),
            steps,
            |w_tile, x_tile, results| {
                let x = x0 + x_tile * ROWS as u32;
                for (result, w_tile) in results.into_iter().zip(w0 + w_tile..) {
                    output.store(result, output.biases(w_tile, lane), w_tile, x, lane);
                }
            },
        );
    }
}

macro_rules! kernels {
    ($($name:ident = $body:path;)*) => {$(
        const _: $name::Signature = $name;

        #[doc = concat!("`", stringify!($name), "` of the table.")]
        ///
        /// # Safety
        ///
        /// The launch contract of `shared::kernels`: `w` holds `n` rows (padded to 16) of `steps`
        /// steps in the kernel's format, `x` `rows` rows (padded to 16) of `steps` steps, `bias`
        /// `n` and `out` `rows * n` elements; `n`, `rows` and `steps` are at least 1.
        #[unsafe(no_mangle)]
        pub unsafe extern "gpu-kernel" fn $name(
            w: *const u8,
            x: *const u8,
            bias: *const f32,
            out: *mut f32,
            n: u32,
            rows: u32,
            steps: u32,
            accumulate: u32,
        ) {
            // SAFETY: the kernel's contract.
            unsafe { $body(w, x, steps, Output { bias, out, n, rows, accumulate }) }
        }
    )*};
}

/// How far loads run ahead, for up to 16 and up to 64 rows: stages of the ring on Hopper; elsewhere
/// steps, as many as registers allow beside the accumulators. An operand of gfx11 is four times as
/// large as one of gfx9.
const AHEAD: (usize, usize) = match FAMILY {
    Family::Gfx9 => (8, 2),
    Family::Gfx11 => (4, 1),
    Family::Gfx12 => (4, 2),
    Family::Nvptx => (RING_STAGES, RING_STAGES),
};

kernels! {
    linear_skinny_bf16 = linear_skinny::<Bf16>;
    linear_skinny64_bf16 = linear_skinny64::<Bf16>;
    linear_tile_bf16 = linear_tile::<Bf16>;
    linear_skinny_mxint8 = linear_skinny::<Mxint8>;
    linear_skinny64_mxint8 = linear_skinny64::<Mxint8>;
    linear_tile_mxint8 = linear_tile::<Mxint8>;
}
