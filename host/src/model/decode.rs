//! Stored weights as f32, a few rows at a time: for conversion and for checks, not for speed.

use std::ops::Range;

use half::f16;
use shared::{bf16, mxfp4};

use super::weights::{Dtype, ExpertWeights, Experts, Matrix};

/// Writes the elements of `bytes` to `out`, as many as `out` holds.
fn widen<'a>(dtype: Dtype, bytes: &[u8], out: impl Iterator<Item = &'a mut f32>) {
    match dtype {
        Dtype::F32 => {
            for (out, &bytes) in out.zip(bytes.as_chunks().0) {
                *out = f32::from_le_bytes(bytes);
            }
        }
        Dtype::Bf16 => {
            for (out, &bytes) in out.zip(bytes.as_chunks().0) {
                *out = bf16::to_f32(u16::from_le_bytes(bytes));
            }
        }
        Dtype::F16 => {
            for (out, &bytes) in out.zip(bytes.as_chunks().0) {
                *out = f16::from_le_bytes(bytes).to_f32();
            }
        }
    }
}

impl Matrix {
    /// Decodes rows `rows` into `out`, `[rows, cols]`.
    ///
    /// # Panics
    /// When `rows` leaves the matrix or `out` is not `rows.len() * cols` long.
    pub fn decode_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        assert_eq!(out.len(), rows.len() * self.cols);
        let row_bytes = self.cols * self.dtype.size();
        widen(self.dtype, &self.data[rows.start * row_bytes..rows.end * row_bytes], out.iter_mut());
    }
}

impl Experts {
    /// Decodes rows `rows` of `[count * rows, cols]`, all experts one after the other, into `out`.
    ///
    /// # Panics
    /// When `rows` leaves the experts or `out` is not `rows.len() * cols` long.
    pub fn decode_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        assert_eq!(out.len(), rows.len() * self.cols);
        let elements = rows.start * self.cols..rows.end * self.cols;
        match &self.weights {
            ExpertWeights::Mxfp4 { blocks, scales } => {
                let range = elements.start / mxfp4::BLOCK..elements.end / mxfp4::BLOCK;
                let blocks = &blocks.as_chunks().0[range.clone()];
                let out = out.as_chunks_mut::<{ mxfp4::BLOCK }>().0;
                for ((out, block), &scale) in out.iter_mut().zip(blocks).zip(&scales[range]) {
                    *out = mxfp4::decode_block(block, scale);
                }
            }
            ExpertWeights::OutIn(dtype, data) => {
                let size = dtype.size();
                widen(*dtype, &data[elements.start * size..elements.end * size], out.iter_mut());
            }
            ExpertWeights::InOut(dtype, data) => {
                let mut rest = rows;
                let mut out = out;
                while !rest.is_empty() {
                    let expert = rest.start / self.rows;
                    let end = rest.end.min((expert + 1) * self.rows);
                    let (part, after) = out.split_at_mut((end - rest.start) * self.cols);
                    self.transpose_rows(*dtype, data, rest.start..end, part);
                    (rest, out) = (end..rest.end, after);
                }
            }
        }
    }

    /// Decodes `rows`, which belong to one expert, from `[experts, in, out]`.
    fn transpose_rows(&self, dtype: Dtype, data: &[u8], rows: Range<usize>, out: &mut [f32]) {
        let size = dtype.size();
        let expert = rows.start / self.rows;
        let first = rows.start % self.rows;
        for col in 0..self.cols {
            let start = (expert * self.cols + col) * self.rows + first;
            let column = &data[start * size..(start + rows.len()) * size];
            widen(dtype, column, out[col..].iter_mut().step_by(self.cols));
        }
    }
}
