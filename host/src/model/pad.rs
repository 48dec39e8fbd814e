//! Models whose widths are no multiples of 32, as equal models whose widths are.
//!
//! Engines work on blocks of 32. Rows and columns of zeros change nothing but the mean of RMSNorm,
//! which is over more elements then: `x / sqrt(S/n + eps) * w` is
//! `x / sqrt(S/m + eps n/m) * w sqrt(n/m)`, so epsilon and scales make up for it. Of the padding
//! nothing but zeros ever comes: `(0 + 1) * 0 * sigmoid(0)` too is zero.

use std::sync::Arc;

use shared::model::ModelConfig;

use super::weights::{Bytes, ExpertWeights, Experts, Matrix, Store};

/// The widths a model has in its files, and the ones its engines see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Widths {
    /// Residual stream, in the files.
    pub hidden: usize,
    /// Inside an expert, in the files.
    pub inner: usize,
    padded_hidden: usize,
    padded_inner: usize,
}

impl Widths {
    /// Pads the widths of `config`, and adapts what depends on them.
    pub fn pad(config: &mut ModelConfig) -> Widths {
        // A width without a next multiple is refused for its size.
        let padded = |width: usize| width.checked_next_multiple_of(32).unwrap_or(width);
        let widths = Widths {
            hidden: config.hidden_size,
            inner: config.intermediate_size,
            padded_hidden: padded(config.hidden_size),
            padded_inner: padded(config.intermediate_size),
        };
        if widths.hidden != widths.padded_hidden {
            let factor = widths.hidden as f64 / widths.padded_hidden as f64;
            config.rms_norm_eps = (f64::from(config.rms_norm_eps) * factor) as f32;
        }
        (config.hidden_size, config.intermediate_size) =
            (widths.padded_hidden, widths.padded_inner);
        widths
    }

    /// Whether nothing has to be padded.
    pub fn are_whole(&self) -> bool {
        (self.hidden, self.inner) == (self.padded_hidden, self.padded_inner)
    }

    /// What stands for a width of the files.
    fn of(&self, width: Width) -> [usize; 2] {
        match width {
            Width::Hidden => [self.hidden, self.padded_hidden],
            Width::Inner => [self.inner, self.padded_inner],
            Width::Pairs => [2 * self.inner, 2 * self.padded_inner],
            Width::Other(n) => [n, n],
        }
    }

    /// The width in the files.
    pub fn stored(&self, width: Width) -> usize {
        self.of(width)[0]
    }

    /// A vector whose length is `width`.
    pub fn vector(&self, mut values: Vec<f32>, width: Width) -> Vec<f32> {
        values.resize(self.of(width)[1], 0.0);
        values
    }

    /// The scale of an RMSNorm.
    pub fn norm(&self, scale: Vec<f32>) -> Vec<f32> {
        if self.hidden == self.padded_hidden {
            return scale;
        }
        let factor = (self.hidden as f64 / self.padded_hidden as f64).sqrt();
        let scale = scale.into_iter().map(|w| (f64::from(w) * factor) as f32).collect();
        self.vector(scale, Width::Hidden)
    }

    /// A matrix of `rows` by `cols`.
    pub fn matrix(&self, matrix: Matrix, rows: Width, cols: Width) -> Matrix {
        let shape = [[1, 1], self.of(rows), self.of(cols)];
        let data = self.bytes(matrix.data, shape, matrix.dtype.size());
        Matrix { rows: shape[1][1], cols: shape[2][1], data, ..matrix }
    }

    /// Experts of `cols` to `rows`; MXFP4 has no width to be padded.
    pub fn experts(&self, experts: Experts, rows: Width, cols: Width) -> Experts {
        let (count, [n, padded_n], k) = (experts.count, self.of(rows), self.of(cols));
        let of = [[count, count], [n, padded_n], k];
        let weights = match experts.weights {
            ExpertWeights::OutIn(dtype, data) => {
                ExpertWeights::OutIn(dtype, self.bytes(data, of, dtype.size()))
            }
            ExpertWeights::InOut(dtype, data) => {
                ExpertWeights::InOut(dtype, self.bytes(data, [of[0], of[2], of[1]], dtype.size()))
            }
            mxfp4 @ ExpertWeights::Mxfp4 { .. } => mxfp4,
        };
        let mut bias = vec![0.0; count * padded_n];
        for (to, from) in bias.chunks_mut(padded_n).zip(experts.bias.chunks(n)) {
            to[..n].copy_from_slice(from);
        }
        Experts { count, rows: padded_n, cols: k[1], weights, bias }
    }

    /// Elements of `size` bytes; of each dimension, the stored and the padded length.
    fn bytes(&self, data: Bytes, [count, rows, cols]: [[usize; 2]; 3], size: usize) -> Bytes {
        if rows[0] == rows[1] && cols[0] == cols[1] {
            return data;
        }
        let mut padded = vec![0; count[1] * rows[1] * cols[1] * size];
        let matrices = padded.chunks_mut(rows[1] * cols[1] * size);
        for (to, from) in matrices.zip(data.chunks(rows[0] * cols[0] * size)) {
            for (to, from) in to.chunks_mut(cols[1] * size).zip(from.chunks(cols[0] * size)) {
                to[..from.len()].copy_from_slice(from);
            }
        }
        Bytes::whole(Arc::new(Store::Owned(padded)))
    }
}

/// A dimension of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// The residual stream.
    Hidden,
    /// Inside an expert.
    Inner,
    /// Twice that: gates and linear parts, in pairs.
    Pairs,
    /// Something that is never padded.
    Other(usize),
}
