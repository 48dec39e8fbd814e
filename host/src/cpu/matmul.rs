//! `y = W x + b` for many rows of `x` and many matrices at once, on weights as stored.
//!
//! An output is a sum over blocks of 32 inputs, in order, in 16 accumulators that are added up at
//! the end ([`Simd::sum`]); accumulator `l` takes two inputs of a block. (With `[in, out]`
//! weights it is one accumulator per output, inputs in order.) That order is the whole contract:
//! tiles, threads and rows that share a pass cannot change a bit.

#![allow(clippy::needless_range_loop, reason = "indices name the registers of a tile")]

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use super::activations::{Activations, BLOCK, BlockLines, Order};
use super::simd::{Kernel, LANES, Level, Simd, Tile};
use crate::model::{Dtype, ExpertWeights, Experts, Matrix};

/// Rows of activations that are kept in cache while the weights of a task pass by.
const ROW_BLOCK: usize = 64;

/// Weights of one matrix, as stored.
#[derive(Clone, Copy)]
enum View<'a> {
    /// `[out, in]`.
    F32(&'a [u8]),
    /// `[out, in]`.
    Bf16(&'a [u8]),
    /// `[out, in / 32, 16]` and `[out, in / 32]`.
    Mxfp4 { blocks: &'a [u8], scales: &'a [u8] },
    /// `[in, out]`.
    InOut(Dtype, &'a [u8]),
}

/// One product: some rows of activations times one matrix.
pub struct Product<'a> {
    view: View<'a>,
    outs: usize,
    bias: &'a [f32],
    input: &'a Activations,
    rows: &'a [u32],
    output: Columns<'a>,
}

impl<'a> Product<'a> {
    /// `output[i] = matrix * input[rows[i]] + bias`; an empty bias is none. `output` is
    /// `[rows, matrix.rows]`.
    pub fn dense(
        matrix: &'a Matrix,
        bias: &'a [f32],
        input: &'a Activations,
        rows: &'a [u32],
        output: &'a mut [f32],
    ) -> Product<'a> {
        let view = match matrix.dtype {
            Dtype::F32 => View::F32(&matrix.data),
            Dtype::Bf16 => View::Bf16(&matrix.data),
        };
        Product {
            view,
            outs: matrix.rows,
            bias,
            input,
            rows,
            output: Columns::new(output, matrix.rows),
        }
    }

    /// The same with expert `index` of `experts`.
    pub fn expert(
        experts: &'a Experts,
        index: usize,
        input: &'a Activations,
        rows: &'a [u32],
        output: &'a mut [f32],
    ) -> Product<'a> {
        let (outs, cols) = (experts.rows, experts.cols);
        let elements = outs * cols;
        let of = |bytes: &'a [u8], size: usize| &bytes[index * size..][..size];
        let view = match &experts.weights {
            ExpertWeights::Mxfp4 { blocks, scales } => View::Mxfp4 {
                blocks: of(blocks, elements / 2),
                scales: of(scales, elements / BLOCK),
            },
            ExpertWeights::OutIn(Dtype::F32, bytes) => View::F32(of(bytes, 4 * elements)),
            ExpertWeights::OutIn(Dtype::Bf16, bytes) => View::Bf16(of(bytes, 2 * elements)),
            ExpertWeights::InOut(dtype, bytes) => {
                View::InOut(*dtype, of(bytes, dtype.size() * elements))
            }
        };
        let bias = &experts.bias[index * outs..][..outs];
        Product { view, outs, bias, input, rows, output: Columns::new(output, outs) }
    }
}

/// The order in which a dense matrix wants its input.
pub fn dense_order(matrix: &Matrix) -> Order {
    match matrix.dtype {
        Dtype::F32 => Order::Natural,
        Dtype::Bf16 => Order::Paired,
    }
}

/// The order in which experts want their input.
pub fn expert_order(experts: &Experts) -> Order {
    match experts.weights {
        ExpertWeights::Mxfp4 { .. } | ExpertWeights::OutIn(Dtype::Bf16, _) => Order::Paired,
        ExpertWeights::OutIn(Dtype::F32, _) | ExpertWeights::InOut(..) => Order::Natural,
    }
}

/// Computes all `products`, spread over the threads of the current rayon pool.
pub fn run(level: Level, products: &[Product<'_>]) {
    let outs: usize = products.iter().map(|p| p.outs).sum();
    // About 16 tasks per thread, so that threads end together; whole vectors of outputs, few
    // enough that a task's weights stay in the second-level cache while several row blocks pass.
    let task =
        (outs / (16 * rayon::current_num_threads())).next_multiple_of(BLOCK).clamp(BLOCK, 256);
    let tasks: Vec<(usize, Range<usize>)> = products
        .iter()
        .enumerate()
        .flat_map(|(i, p)| (0..p.outs).step_by(task).map(move |o| (i, o..p.outs.min(o + task))))
        .collect();
    tasks.into_par_iter().with_max_len(1).for_each(|(i, outs)| {
        let product = &products[i];
        match product.view {
            View::F32(bytes) => level.run(Sweep { weights: F32 { bytes }, product, outs }),
            View::Bf16(bytes) => level.run(Sweep { weights: Bf16 { bytes }, product, outs }),
            View::Mxfp4 { blocks, scales } => {
                level.run(Sweep { weights: Mxfp4 { blocks, scales }, product, outs });
            }
            View::InOut(dtype, bytes) => level.run(Accumulate { dtype, bytes, product, outs }),
        }
    });
}

/// `[rows, stride]` outputs that tasks write in disjoint ranges of columns.
struct Columns<'a> {
    base: *mut f32,
    len: usize,
    stride: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: it stands for an exclusive borrow of plain numbers; `segment` says how it is shared.
unsafe impl Sync for Columns<'_> {}

impl<'a> Columns<'a> {
    fn new(data: &'a mut [f32], stride: usize) -> Columns<'a> {
        Columns { base: data.as_mut_ptr(), len: data.len(), stride, borrow: PhantomData }
    }

    /// Columns `cols` of `row`.
    ///
    /// # Safety
    /// While the slice lives, nobody else uses these columns of this row.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    unsafe fn segment(&self, row: usize, cols: Range<usize>) -> &mut [f32] {
        let start = row * self.stride + cols.start;
        assert!(cols.end <= self.stride && start + cols.len() <= self.len);
        // SAFETY: in bounds of the borrow this stands for, as just checked; exclusive by the
        // caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(start), cols.len()) }
    }
}

/// The weights of one output, block by block.
trait WeightRow: Copy {
    /// The weights of inputs `32 * block..`, in the order of the format.
    fn block<S: Simd>(&self, simd: S, block: usize) -> (S::V, S::V);
    /// Whole blocks.
    fn blocks(&self) -> usize;
    /// The inputs after the last whole block, padded with zeros.
    fn tail<S: Simd>(&self, simd: S) -> Option<(S::V, S::V)>;
}

/// A matrix whose outputs are rows.
trait Format<'a>: Copy {
    /// One output.
    type Row: WeightRow;
    /// How a block of weights is decoded, hence how activations must lie.
    const ORDER: Order;
    /// Output `out` of a matrix with `cols` inputs.
    fn row(self, out: usize, cols: usize) -> Self::Row;
}

#[derive(Clone, Copy)]
struct F32<'a> {
    bytes: &'a [u8],
}

#[derive(Clone, Copy)]
struct F32Row<'a> {
    blocks: &'a [[[u8; 4 * LANES]; 2]],
    tail: &'a [u8],
}

impl<'a> Format<'a> for F32<'a> {
    type Row = F32Row<'a>;
    const ORDER: Order = Order::Natural;
    #[inline(always)]
    fn row(self, out: usize, cols: usize) -> F32Row<'a> {
        let (vectors, _) = self.bytes[4 * out * cols..][..4 * cols].as_chunks();
        let (blocks, _) = vectors.as_chunks();
        F32Row {
            blocks,
            tail: &self.bytes[4 * (out * cols + cols / BLOCK * BLOCK)..][..4 * (cols % BLOCK)],
        }
    }
}

impl WeightRow for F32Row<'_> {
    #[inline(always)]
    fn block<S: Simd>(&self, simd: S, block: usize) -> (S::V, S::V) {
        let [a, b] = &self.blocks[block];
        (simd.f32s(a), simd.f32s(b))
    }
    #[inline(always)]
    fn blocks(&self) -> usize {
        self.blocks.len()
    }
    #[inline(always)]
    fn tail<S: Simd>(&self, simd: S) -> Option<(S::V, S::V)> {
        if self.tail.is_empty() {
            return None;
        }
        let mut padded = [0; 4 * BLOCK];
        padded[..self.tail.len()].copy_from_slice(self.tail);
        let (vectors, _) = padded.as_chunks();
        Some((simd.f32s(&vectors[0]), simd.f32s(&vectors[1])))
    }
}

#[derive(Clone, Copy)]
struct Bf16<'a> {
    bytes: &'a [u8],
}

#[derive(Clone, Copy)]
struct Bf16Row<'a> {
    blocks: &'a [[u8; 2 * BLOCK]],
    tail: &'a [u8],
}

impl<'a> Format<'a> for Bf16<'a> {
    type Row = Bf16Row<'a>;
    const ORDER: Order = Order::Paired;
    #[inline(always)]
    fn row(self, out: usize, cols: usize) -> Bf16Row<'a> {
        let (blocks, tail) = self.bytes[2 * out * cols..][..2 * cols].as_chunks();
        Bf16Row { blocks, tail }
    }
}

impl WeightRow for Bf16Row<'_> {
    #[inline(always)]
    fn block<S: Simd>(&self, simd: S, block: usize) -> (S::V, S::V) {
        simd.bf16_pairs(&self.blocks[block])
    }
    #[inline(always)]
    fn blocks(&self) -> usize {
        self.blocks.len()
    }
    #[inline(always)]
    fn tail<S: Simd>(&self, simd: S) -> Option<(S::V, S::V)> {
        if self.tail.is_empty() {
            return None;
        }
        let mut padded = [0; 2 * BLOCK];
        padded[..self.tail.len()].copy_from_slice(self.tail);
        Some(simd.bf16_pairs(&padded))
    }
}

#[derive(Clone, Copy)]
struct Mxfp4<'a> {
    blocks: &'a [u8],
    scales: &'a [u8],
}

#[derive(Clone, Copy)]
struct Mxfp4Row<'a> {
    blocks: &'a [[u8; BLOCK / 2]],
    scales: &'a [u8],
}

/// Every e8m0 scale by its byte.
static SCALES: [f32; 256] = {
    let mut table = [0.0; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = shared::mxfp4::scale_to_f32(i as u8);
        i += 1;
    }
    table
};

impl<'a> Format<'a> for Mxfp4<'a> {
    type Row = Mxfp4Row<'a>;
    const ORDER: Order = Order::Paired;
    #[inline(always)]
    fn row(self, out: usize, cols: usize) -> Mxfp4Row<'a> {
        let per_row = cols / BLOCK;
        let (blocks, _) = self.blocks[out * cols / 2..][..cols / 2].as_chunks();
        Mxfp4Row { blocks, scales: &self.scales[out * per_row..][..per_row] }
    }
}

impl WeightRow for Mxfp4Row<'_> {
    #[inline(always)]
    fn block<S: Simd>(&self, simd: S, block: usize) -> (S::V, S::V) {
        let scale = SCALES[usize::from(self.scales[block])];
        simd.mxfp4_pairs(&self.blocks[block], scale)
    }
    #[inline(always)]
    fn blocks(&self) -> usize {
        // The smaller of two equal lengths: lets both bounds checks go.
        self.blocks.len().min(self.scales.len())
    }
    #[inline(always)]
    fn tail<S: Simd>(&self, _: S) -> Option<(S::V, S::V)> {
        None
    }
}

/// A range of outputs of one product.
struct Sweep<'a, F> {
    weights: F,
    product: &'a Product<'a>,
    outs: Range<usize>,
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
                (_, Tile::Large) => self.outputs::<S, 4, 4>(simd, rows),
                (_, Tile::Small) => self.outputs::<S, 2, 2>(simd, rows),
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
            self.tile::<S, R, O>(simd, &weights, row, out);
            row += R;
        }
        if R > 2 && row + 2 <= rows.end {
            self.tile::<S, 2, O>(simd, &weights, row, out);
            row += 2;
        }
        if R > 1 && row < rows.end {
            self.tile::<S, 1, O>(simd, &weights, row, out);
        }
    }

    /// Outputs `out..out + O` of rows `row..row + R`.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const O: usize>(
        &self,
        simd: S,
        weights: &[F::Row; O],
        row: usize,
        out: usize,
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
            // SAFETY: tasks of a product have disjoint ranges of outputs, and products exclusive
            // borrows of their output.
            let to = unsafe { product.output.segment(row + r, out..out + O) };
            for o in 0..O {
                let bias = product.bias.get(out + o).copied().unwrap_or(0.0);
                to[o] = simd.sum(acc[r][o]) + bias;
            }
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

/// A range of outputs of a product whose weights are `[in, out]`: the output is the accumulator,
/// and passes over it take `INPUTS` inputs each.
struct Accumulate<'a> {
    dtype: Dtype,
    bytes: &'a [u8],
    product: &'a Product<'a>,
    outs: Range<usize>,
}

/// Inputs per pass over the outputs; divides every expert's inputs, which come in blocks of 32.
const INPUTS: usize = 4;

impl Kernel for Accumulate<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let product = self.product;
        for row in 0..product.rows.len() {
            // SAFETY: as in `Sweep::tile`; the slice ends with the statement.
            let to = unsafe { product.output.segment(row, self.outs.clone()) };
            to.copy_from_slice(&product.bias[self.outs.clone()]);
        }
        for first in (0..product.rows.len()).step_by(ROW_BLOCK) {
            let rows = first..product.rows.len().min(first + ROW_BLOCK);
            for input in (0..product.input.cols()).step_by(INPUTS) {
                for out in self.outs.clone().step_by(LANES) {
                    self.pass(simd, rows.clone(), input, out);
                }
            }
        }
    }
}

impl Accumulate<'_> {
    /// Adds inputs `input..input + INPUTS` to outputs `out..out + 16` of `rows`.
    #[inline(always)]
    fn pass<S: Simd>(&self, simd: S, rows: Range<usize>, input: usize, out: usize) {
        let product = self.product;
        let mut w = [simd.splat(0.0); INPUTS];
        for i in 0..INPUTS {
            let at = self.dtype.size() * ((input + i) * product.outs + out);
            w[i] = match self.dtype {
                Dtype::F32 => simd.f32s(vector(&self.bytes[at..])),
                Dtype::Bf16 => simd.bf16s(vector(&self.bytes[at..])),
            };
        }
        for row in rows {
            let x = product.input.row(product.rows[row] as usize, Order::Natural);
            let x: &[f32] = bytemuck::cast_slice(x);
            // SAFETY: as in `Sweep::tile`.
            let to = unsafe { product.output.segment(row, out..out + LANES) };
            let to: &mut [f32; LANES] = vector_mut(to);
            let mut acc = simd.load(to);
            for i in 0..INPUTS {
                acc = simd.fma(w[i], simd.splat(x[input + i]), acc);
            }
            simd.store(to, acc);
        }
    }
}

#[inline(always)]
fn vector<const N: usize>(bytes: &[u8]) -> &[u8; N] {
    bytes.first_chunk().expect("outputs of experts come in whole vectors")
}

#[inline(always)]
fn vector_mut(x: &mut [f32]) -> &mut [f32; LANES] {
    x.first_chunk_mut().expect("outputs of experts come in whole vectors")
}
