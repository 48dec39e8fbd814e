//! Products with `[out, in]` weights: sums in registers, a tile of rows and outputs at a time.

use std::ops::Range;

use super::format::{Format, WeightRow};
use super::{Product, ROW_BLOCK};
use crate::cpu::activations::{BLOCK, BlockLines};
use crate::cpu::simd::{Kernel, Line, Simd, Tile};

/// From this many rows on, decoding weights once into a buffer pays.
const BUFFERED_ROWS: usize = 8;
/// Blocks of inputs in that buffer: with the rows of a tile it stays in the first-level cache.
const CHUNK: usize = 30;

/// A range of outputs of one product.
pub struct Sweep<'a, F> {
    pub weights: F,
    pub product: &'a Product<'a>,
    pub outs: Range<usize>,
}

impl<'a, F: Format<'a>> Kernel for Sweep<'a, F> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for first in (0..self.product.rows.len()).step_by(ROW_BLOCK) {
            let rows = first..self.product.rows.len().min(first + ROW_BLOCK);
            match (rows.len(), S::TILE) {
                // One row: more outputs at a time hide the latency of the sums.
                (1, Tile::Large) => self.outputs::<S, 1, 8>(simd, rows),
                (1, Tile::Small) => self.outputs::<S, 1, 4>(simd, rows),
                (..BUFFERED_ROWS, Tile::Large) => self.outputs::<S, 4, 4>(simd, rows),
                (..BUFFERED_ROWS, Tile::Small) => self.outputs::<S, 2, 2>(simd, rows),
                (_, Tile::Large) => self.buffered::<S, 4, 6>(simd, rows),
                (_, Tile::Small) => self.buffered::<S, 2, 2>(simd, rows),
            }
        }
    }
}

impl<'a, F: Format<'a>> Sweep<'a, F> {
    #[inline(always)]
    fn outputs<S: Simd, const R: usize, const O: usize>(&self, simd: S, rows: Range<usize>) {
        let mut out = self.outs.start;
        while out + O <= self.outs.end {
            self.rows::<S, R, O>(simd, rows.clone(), out);
            out += O;
        }
        while out < self.outs.end {
            self.rows::<S, R, 1>(simd, rows.clone(), out);
            out += 1;
        }
    }

    #[inline(always)]
    fn rows<S: Simd, const R: usize, const O: usize>(
        &self,
        simd: S,
        rows: Range<usize>,
        out: usize,
    ) {
        let cols = self.product.input.cols();
        let mut weights = [self.weights.row(out, cols); O];
        for (o, row) in weights.iter_mut().enumerate() {
            *row = self.weights.row(out + o, cols);
        }
        let mut row = rows.start;
        while row + R <= rows.end {
            self.tile::<S, R, O>(simd, &weights, row, out, row == rows.start);
            row += R;
        }
        if R > 2 && row + 2 <= rows.end {
            self.tile::<S, 2, O>(simd, &weights, row, out, row == rows.start);
            row += 2;
        }
        if R > 1 && row < rows.end {
            self.tile::<S, 1, O>(simd, &weights, row, out, row == rows.start);
        }
    }

    /// Outputs `out..out + O` of rows `row..row + R`. The first tile of a group of outputs asks
    /// for the weights of the next.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const O: usize>(
        &self,
        simd: S,
        weights: &[F::Row; O],
        row: usize,
        out: usize,
        first: bool,
    ) {
        let product = self.product;
        let input = |r: usize| product.input.row(product.rows[row + r] as usize, F::ORDER);
        let mut x: [&[BlockLines]; R] = [input(0); R];
        for (r, x) in x.iter_mut().enumerate() {
            *x = input(r);
        }
        let mut acc = [[simd.splat(0.0); O]; R];
        // Checked here once, so that no access in the loop is.
        let blocks = weights[0].blocks();
        assert!(weights.iter().all(|w| w.blocks() == blocks));
        assert!(x.iter().all(|x| x.len() >= blocks));
        for block in 0..blocks {
            let mut w = [(simd.splat(0.0), simd.splat(0.0)); O];
            for o in 0..O {
                w[o] = weights[o].block(simd, block);
            }
            if first {
                weights.iter().for_each(|w| w.prefetch(simd, block, O));
            }
            for r in 0..R {
                step(simd, &mut acc[r], &w, &x[r][block]);
            }
        }
        if let Some(first) = weights[0].tail(simd) {
            let mut w = [first; O];
            for o in 0..O {
                w[o] = weights[o].tail(simd).unwrap_or(first);
            }
            for r in 0..R {
                step(simd, &mut acc[r], &w, &x[r][blocks]);
            }
        }
        for r in 0..R {
            self.finish(simd, row + r, out, acc[r]);
        }
    }

    /// Adds up the lanes of outputs `out..out + O` of `row`.
    #[inline(always)]
    fn finish<S: Simd, const O: usize>(&self, simd: S, row: usize, out: usize, acc: [S::V; O]) {
        // SAFETY: tasks of a product have disjoint ranges of outputs, and products exclusive
        // borrows of their output.
        let to = unsafe { self.product.output.segment(row, out..out + O) };
        for o in 0..O {
            let bias = self.product.bias.get(out + o).copied().unwrap_or(0.0);
            to[o] = simd.sum(acc[o]) + bias;
        }
    }

    /// The same outputs for many rows: weights are decoded once per chunk of blocks, and sums
    /// rest in memory between chunks.
    #[inline(always)]
    fn buffered<S: Simd, const R: usize, const O: usize>(&self, simd: S, rows: Range<usize>) {
        let mut sums = [[Line::ZERO; O]; ROW_BLOCK];
        let mut decoded = [[[Line::ZERO; 2]; O]; CHUNK];
        let cols = self.product.input.cols();
        let blocks = cols.div_ceil(BLOCK);
        let mut out = self.outs.start;
        while out + O <= self.outs.end {
            sums[..rows.len()].fill([Line::ZERO; O]);
            let mut weights = [self.weights.row(out, cols); O];
            for o in 0..O {
                weights[o] = self.weights.row(out + o, cols);
            }
            for first in (0..blocks).step_by(CHUNK) {
                let chunk = first..blocks.min(first + CHUNK);
                for o in 0..O {
                    decode(simd, &weights[o], chunk.clone(), o, &mut decoded);
                }
                let decoded = &decoded[..chunk.len()];
                let mut row = 0;
                while row < rows.len() {
                    // Each tile asks for its share of the next group's weights.
                    let tile = if row + R <= rows.len() { R } else { 1 };
                    let share = O * row / rows.len()..O * (row + tile) / rows.len();
                    let (next, sums) = (&weights[share], &mut sums[row..]);
                    let at = rows.start + row;
                    if tile == R {
                        self.add::<S, R, O>(simd, decoded, at, &chunk, next, sums);
                    } else {
                        self.add::<S, 1, O>(simd, decoded, at, &chunk, next, sums);
                    }
                    row += tile;
                }
            }
            for (row, sums) in rows.clone().zip(&sums) {
                let mut acc = [simd.splat(0.0); O];
                for o in 0..O {
                    acc[o] = simd.load(&sums[o].0);
                }
                self.finish(simd, row, out, acc);
            }
            out += O;
        }
        while out < self.outs.end {
            self.rows::<S, R, 1>(simd, rows.clone(), out);
            out += 1;
        }
    }

    /// Adds the products of `chunk` to the sums of rows `row..row + R`.
    #[inline(always)]
    fn add<S: Simd, const R: usize, const O: usize>(
        &self,
        simd: S,
        decoded: &[[BlockLines; O]],
        row: usize,
        chunk: &Range<usize>,
        next: &[F::Row],
        sums: &mut [[Line; O]],
    ) {
        let mut x: [&[BlockLines]; R] = [&[]; R];
        let mut acc = [[simd.splat(0.0); O]; R];
        for r in 0..R {
            let row = self.product.rows[row + r] as usize;
            x[r] = &self.product.input.row(row, F::ORDER)[chunk.clone()];
            for o in 0..O {
                acc[r][o] = simd.load(&sums[r][o].0);
            }
        }
        assert!(x.iter().all(|x| x.len() == decoded.len()));
        for (block, w) in decoded.iter().enumerate() {
            for next in next {
                next.prefetch(simd, chunk.start + block, O);
            }
            for half in 0..2 {
                let mut v = [simd.splat(0.0); R];
                for r in 0..R {
                    v[r] = simd.load(&x[r][block][half].0);
                }
                for o in 0..O {
                    let w = simd.load(&w[o][half].0);
                    for r in 0..R {
                        acc[r][o] = simd.fma(w, v[r], acc[r][o]);
                    }
                }
            }
        }
        for r in 0..R {
            for o in 0..O {
                simd.store(&mut sums[r][o].0, acc[r][o]);
            }
        }
    }
}

/// Decodes blocks `chunk` of output `o` of a group.
#[inline(always)]
fn decode<S: Simd, const O: usize>(
    simd: S,
    weights: &impl WeightRow,
    chunk: Range<usize>,
    o: usize,
    to: &mut [[BlockLines; O]; CHUNK],
) {
    let whole = weights.blocks();
    for (to, block) in to.iter_mut().zip(chunk) {
        let pair =
            if block < whole { Some(weights.block(simd, block)) } else { weights.tail(simd) };
        if let Some((first, second)) = pair {
            simd.store(&mut to[o][0].0, first);
            simd.store(&mut to[o][1].0, second);
        }
    }
}

/// One block of one row for `O` outputs.
#[inline(always)]
fn step<S: Simd, const O: usize>(
    simd: S,
    acc: &mut [S::V; O],
    w: &[(S::V, S::V); O],
    x: &BlockLines,
) {
    let (x0, x1) = (simd.load(&x[0].0), simd.load(&x[1].0));
    for o in 0..O {
        acc[o] = simd.fma(w[o].0, x0, acc[o]);
    }
    for o in 0..O {
        acc[o] = simd.fma(w[o].1, x1, acc[o]);
    }
}
