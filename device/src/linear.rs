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
use crate::product::{lane_rows, skinny_ahead, tile_product, tiled_row};
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
    /// Stores the elements of one tile whose row tile of W is `w_tile` and whose first row is `x0`.
    ///
    /// # Safety
    ///
    /// `bias` holds `n` and `out` `rows * n` elements, as the kernels promise.
    #[inline(always)]
    unsafe fn store(self, acc: Acc, w_tile: u32, x0: u32, lane: u32) {
        for i in 0..ACC {
            let (w, x) = acc_index(lane, i);
            let (w, x) = (w_tile * ROWS as u32 + w, x0 + x);
            if w < self.n && x < self.rows {
                // SAFETY: in range by the test above.
                unsafe {
                    let at = self.out.add(x as usize * self.n as usize + w as usize);
                    let value = acc[i] + *self.bias.add(w as usize);
                    *at = if self.accumulate != 0 { *at + value } else { value };
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn linear_skinny<F: Format, const XT: usize, const DEPTH: usize>(
    w: *const u8,
    x: *const u8,
    steps: u32,
    output: Output,
) {
    let lane = arch::lane();
    let waves = if XT == 1 { 1 } else { SKINNY64_WAVES };
    let w_tile = arch::workgroup_id_x() * waves + arch::wave_id();
    if w_tile * ROWS as u32 >= output.n {
        return;
    }
    // SAFETY: the tile exists; rows past the last repeat it, and their results are not stored.
    unsafe {
        let w_rows = w.add(w_tile as usize * steps as usize * F::STEP_BYTES);
        let x_rows = core::array::from_fn(|tile| {
            lane_rows(lane, |row| {
                let row = (tile * ROWS) as u32 + row;
                tiled_row(x, row.min(output.rows - 1), steps)
            })
        });
        #[cfg(family = "nvptx")]
        if XT == 1 && output.n < BULK_OUTPUTS {
            let acc = crate::product::skinny_bulk::<F>(w_rows, x_rows[0], steps, lane);
            return output.store(acc, w_tile, 0, lane);
        }
        let [acc] = skinny_ahead::<F, 1, XT, DEPTH>([w_rows], x_rows, steps, lane);
        for tile in 0..XT {
            output.store(acc[tile], w_tile, (tile * ROWS) as u32, lane);
        }
    }
}

#[inline(always)]
unsafe fn linear_tile<F: Format>(w: *const u8, x: *const u8, steps: u32, output: Output) {
    let w0 = arch::workgroup_id_x() * (TILE_OUTPUTS / ROWS as u32);
    let x0 = arch::workgroup_id_y() * tile_rows(FAMILY);
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
                output.store(results[0], w0 + w_tile, x, lane);
                output.store(results[1], w0 + w_tile + 1, x, lane);
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

/// Steps loaded ahead for up to 16 and up to 64 rows: as many as registers allow beside the
/// accumulators. An operand of gfx11 is four times as large as one of gfx9.
const AHEAD: (usize, usize) = match FAMILY {
    Family::Gfx9 => (8, 2),
    Family::Gfx11 => (4, 1),
    Family::Gfx12 | Family::Nvptx => (4, 2),
};

kernels! {
    linear_skinny_bf16 = linear_skinny::<Bf16, 1, { AHEAD.0 }>;
    linear_skinny64_bf16 = linear_skinny::<Bf16, 4, { AHEAD.1 }>;
    linear_tile_bf16 = linear_tile::<Bf16>;
    linear_skinny_mxint8 = linear_skinny::<Mxint8, 1, { AHEAD.0 }>;
    linear_skinny64_mxint8 = linear_skinny::<Mxint8, 4, { AHEAD.1 }>;
    linear_tile_mxint8 = linear_tile::<Mxint8>;
}
