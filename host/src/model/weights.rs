//! Weights as every engine sees them: views into the mapped file, in the file's own dtype.

use std::ops::{Deref, Range};
use std::sync::Arc;

use shared::model::ModelConfig;

/// What holds a file's bytes.
#[derive(Debug)]
pub enum Store {
    /// A mapped file.
    Mapped(memmap2::Mmap),
    /// Bytes made in memory: the built-in model.
    Owned(Vec<u8>),
}

impl Deref for Store {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Store::Mapped(map) => map,
            Store::Owned(bytes) => bytes,
        }
    }
}

/// The bytes of one tensor. They may start at any address: read them unaligned.
#[derive(Clone, Debug)]
pub struct Bytes {
    store: Arc<Store>,
    range: Range<usize>,
}

impl Bytes {
    /// The bytes of `store` in `range`; `None` when the range leaves the store.
    pub fn new(store: Arc<Store>, range: Range<usize>) -> Option<Bytes> {
        (range.start <= range.end && range.end <= store.len()).then_some(Bytes { store, range })
    }

    /// All bytes of `store`.
    pub fn whole(store: Arc<Store>) -> Bytes {
        let range = 0..store.len();
        Bytes { store, range }
    }

    /// A part of these bytes, `range` counted from their start; `None` when it leaves them.
    pub fn slice(&self, range: Range<usize>) -> Option<Bytes> {
        let start = self.range.start.checked_add(range.start)?;
        let end = self.range.start.checked_add(range.end)?;
        (start <= end && end <= self.range.end)
            .then(|| Bytes { store: Arc::clone(&self.store), range: start..end })
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.store[self.range.clone()]
    }
}

/// How a dense element is stored, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Dtype {
    /// 4 bytes.
    F32,
    /// 2 bytes.
    Bf16,
    /// 2 bytes, IEEE 754 binary16.
    F16,
}

impl Dtype {
    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 | Dtype::F16 => 2,
        }
    }
}

/// A dense matrix `[rows, cols]`, row-major. In a product `y = W x`, rows are outputs.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// How `data` is stored.
    pub dtype: Dtype,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// `rows * cols` elements.
    pub data: Bytes,
}

/// `y = weight x + bias`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Matrix,
    /// `[out]`.
    pub bias: Vec<f32>,
}

impl Matrix {
    /// Rows `rows` as a matrix of their own, sharing the bytes.
    ///
    /// # Panics
    /// When `rows` leaves the matrix.
    pub fn rows(&self, rows: Range<usize>) -> Matrix {
        let row_bytes = self.cols * self.dtype.size();
        let data = self.data.slice(rows.start * row_bytes..rows.end * row_bytes);
        Matrix { rows: rows.len(), data: data.expect("rows of the matrix"), ..*self }
    }
}

impl Linear {
    /// Outputs `rows` as a map of their own, sharing the weight's bytes.
    ///
    /// # Panics
    /// When `rows` leaves the outputs.
    pub fn rows(&self, rows: Range<usize>) -> Linear {
        Linear { weight: self.weight.rows(rows.clone()), bias: self.bias[rows].to_vec() }
    }
}

/// The weights of all experts of one product, as stored.
#[derive(Clone, Debug)]
pub enum ExpertWeights {
    /// MXFP4: `blocks` u8 `[experts, out, in / 32, 16]`, `scales` u8 `[experts, out, in / 32]`.
    Mxfp4 {
        /// Packed e2m1 pairs.
        blocks: Bytes,
        /// e8m0 scales.
        scales: Bytes,
    },
    /// `[experts, out, in]`: the reference `.bin` and OpenAI's original files.
    OutIn(Dtype, Bytes),
    /// `[experts, in, out]`: Hugging Face's bf16 files.
    InOut(Dtype, Bytes),
}

/// One product of every expert of a layer: `y = W[e] x + bias[e]`.
///
/// Outputs of the first product alternate: row `2j` is gate `j`, row `2j + 1` is linear `j`.
#[derive(Clone, Debug)]
pub struct Experts {
    /// Experts.
    pub count: usize,
    /// Outputs of one expert.
    pub rows: usize,
    /// Inputs of one expert.
    pub cols: usize,
    /// The matrices.
    pub weights: ExpertWeights,
    /// `[experts, out]`.
    pub bias: Vec<f32>,
}

/// One transformer block.
#[derive(Clone, Debug)]
pub struct Layer {
    /// RMSNorm scale before attention, `[hidden]`.
    pub attn_norm: Vec<f32>,
    /// `[num_attention_heads * head_dim, hidden]`.
    pub q: Linear,
    /// `[num_key_value_heads * head_dim, hidden]`.
    pub k: Linear,
    /// `[num_key_value_heads * head_dim, hidden]`.
    pub v: Linear,
    /// One extra logit per query head, `[num_attention_heads]`: it takes weight and gives no value.
    pub sinks: Vec<f32>,
    /// `[hidden, num_attention_heads * head_dim]`.
    pub o: Linear,
    /// RMSNorm scale before the experts, `[hidden]`.
    pub mlp_norm: Vec<f32>,
    /// `[num_local_experts, hidden]`.
    pub router: Linear,
    /// `[experts, 2 * intermediate, hidden]`.
    pub gate_up: Experts,
    /// `[experts, hidden, intermediate]`.
    pub down: Experts,
}

/// A whole model. Every shape has been checked against `config` by the loader.
#[derive(Clone, Debug)]
pub struct Weights {
    /// Hyper-parameters.
    pub config: ModelConfig,
    /// `[vocab, hidden]`.
    pub embedding: Matrix,
    /// Blocks, first to last.
    pub layers: Vec<Layer>,
    /// Final RMSNorm scale, `[hidden]`.
    pub norm: Vec<f32>,
    /// `[vocab, hidden]`.
    pub unembedding: Matrix,
}

impl Weights {
    /// Bytes of all matrices as stored.
    pub fn matrix_bytes(&self) -> u64 {
        let experts = |experts: &Experts| match &experts.weights {
            ExpertWeights::Mxfp4 { blocks, scales } => blocks.len() + scales.len(),
            ExpertWeights::OutIn(_, data) | ExpertWeights::InOut(_, data) => data.len(),
        };
        let layer = |layer: &Layer| {
            let dense = [&layer.q, &layer.k, &layer.v, &layer.o, &layer.router];
            let dense: usize = dense.iter().map(|linear| linear.weight.data.len()).sum();
            dense + experts(&layer.gate_up) + experts(&layer.down)
        };
        let ends = self.embedding.data.len() + self.unembedding.data.len();
        (self.layers.iter().map(layer).sum::<usize>() + ends) as u64
    }
}
