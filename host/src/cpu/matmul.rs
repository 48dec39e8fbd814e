//! `y = W x + b` for many rows of `x` and many matrices at once, on weights as stored.
//!
//! An output is a sum over blocks of 32 inputs, in order, in 16 accumulators that are added up at
//! the end ([`Simd::sum`]); accumulator `l` takes two inputs of a block. (With `[in, out]`
//! weights it is one accumulator per output, inputs in order.) That order is the whole contract:
//! tiles, threads and rows that share a pass cannot change a bit.

#![allow(clippy::needless_range_loop, reason = "indices name the registers of a tile")]

mod accumulate;
mod format;
mod sweep;

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use super::activations::{Activations, BLOCK, Order};
use super::simd::Level;
use crate::model::{Dtype, ExpertWeights, Experts, Matrix};
use accumulate::Accumulate;
use format::{Bf16, F16, F32, Halves, Mxfp4};
use sweep::Sweep;

/// Rows of activations that are kept in cache while the weights of a task pass by.
const ROW_BLOCK: usize = 64;

/// Weights of one matrix, as stored.
#[derive(Clone, Copy)]
enum View<'a> {
    /// `[out, in]`.
    F32(&'a [u8]),
    /// `[out, in]`.
    Bf16(&'a [u8]),
    /// `[out, in]`.
    F16(&'a [u8]),
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
            Dtype::F16 => View::F16(&matrix.data),
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
            ExpertWeights::OutIn(Dtype::F16, bytes) => View::F16(of(bytes, 2 * elements)),
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
        Dtype::F32 | Dtype::F16 => Order::Natural,
        Dtype::Bf16 => Order::Paired,
    }
}

/// The order in which experts want their input.
pub fn expert_order(experts: &Experts) -> Order {
    match experts.weights {
        ExpertWeights::Mxfp4 { .. } | ExpertWeights::OutIn(Dtype::Bf16, _) => Order::Paired,
        ExpertWeights::OutIn(Dtype::F32 | Dtype::F16, _) | ExpertWeights::InOut(..) => {
            Order::Natural
        }
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
            View::F16(bytes) => {
                let weights = Halves::<F16> { bytes, element: PhantomData };
                level.run(Sweep { weights, product, outs });
            }
            View::Bf16(bytes) => {
                let weights = Halves::<Bf16> { bytes, element: PhantomData };
                level.run(Sweep { weights, product, outs });
            }
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
