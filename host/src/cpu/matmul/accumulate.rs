//! Products with `[in, out]` weights: the output is the accumulator.

use std::ops::Range;

use super::format::f16s;
use super::{Product, ROW_BLOCK};
use crate::cpu::activations::Order;
use crate::cpu::simd::{Kernel, LANES, Simd};
use crate::model::Dtype;

/// A range of outputs of a product whose weights are `[in, out]`: the output is the accumulator,
/// and passes over it take `INPUTS` inputs each.
pub struct Accumulate<'a> {
    pub dtype: Dtype,
    pub bytes: &'a [u8],
    pub product: &'a Product<'a>,
    pub outs: Range<usize>,
}

/// Inputs per pass over the outputs; divides every expert's inputs, which come in blocks of 32.
const INPUTS: usize = 4;

impl Kernel for Accumulate<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let product = self.product;
        for row in 0..product.rows.len() {
            // SAFETY: tasks of a product have disjoint ranges of outputs, and the slice ends with the
            // loop's turn.
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
                Dtype::F16 => f16s(simd, vector(&self.bytes[at..])),
            };
        }
        for row in rows {
            let x = product.input.row(product.rows[row] as usize, Order::Natural);
            let x: &[f32] = bytemuck::cast_slice(x);
            // SAFETY: as above.
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
