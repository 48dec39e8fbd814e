//! How the weights of `[out, in]` matrices are decoded, block by block.

use std::marker::PhantomData;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::cpu::activations::{BLOCK, Order};
use crate::cpu::simd::{LANES, Simd};

/// The weights of one output, block by block.
pub trait WeightRow: Copy {
    /// The weights of inputs `32 * block..`, in the order of the format.
    fn block<S: Simd>(&self, simd: S, block: usize) -> (S::V, S::V);
    /// Asks for what holds `block` of the output that follows `outs` outputs later: rows are too
    /// short for the hardware to foresee where the next group of outputs starts.
    fn prefetch<S: Simd>(&self, simd: S, block: usize, outs: usize);
    /// Whole blocks.
    fn blocks(&self) -> usize;
    /// The inputs after the last whole block, padded with zeros.
    fn tail<S: Simd>(&self, simd: S) -> Option<(S::V, S::V)>;
}

/// A matrix whose outputs are rows.
pub trait Format<'a>: Copy {
    /// One output.
    type Row: WeightRow;
    /// How a block of weights is decoded, hence how activations must lie.
    const ORDER: Order;
    /// Output `out` of a matrix with `cols` inputs.
    fn row(self, out: usize, cols: usize) -> Self::Row;
}

/// `[out, in]` f32, little-endian.
#[derive(Clone, Copy)]
pub struct F32<'a> {
    pub bytes: &'a [u8],
}

#[derive(Clone, Copy)]
pub struct F32Row<'a> {
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
    fn prefetch<S: Simd>(&self, simd: S, block: usize, outs: usize) {
        let ahead = self.blocks.as_ptr().wrapping_add(outs * self.blocks.len() + block);
        simd.prefetch(ahead.cast());
        simd.prefetch(ahead.cast::<u8>().wrapping_add(4 * LANES));
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

/// An element of two bytes.
pub trait Half: Copy {
    /// How a block is decoded.
    const ORDER: Order;
    /// The values of a block, exactly.
    fn decode<S: Simd>(simd: S, block: &[u8; 2 * BLOCK]) -> (S::V, S::V);
}

/// bf16, little-endian.
#[derive(Clone, Copy)]
pub struct Bf16;

impl Half for Bf16 {
    const ORDER: Order = Order::Paired;
    #[inline(always)]
    fn decode<S: Simd>(simd: S, block: &[u8; 2 * BLOCK]) -> (S::V, S::V) {
        simd.bf16_pairs(block)
    }
}

/// binary16, little-endian.
#[derive(Clone, Copy)]
pub struct F16;

impl Half for F16 {
    const ORDER: Order = Order::Natural;
    #[inline(always)]
    fn decode<S: Simd>(simd: S, block: &[u8; 2 * BLOCK]) -> (S::V, S::V) {
        let (vectors, _) = block.as_chunks();
        (f16s(simd, &vectors[0]), f16s(simd, &vectors[1]))
    }
}

/// `[out, in]` of elements of two bytes.
#[derive(Clone, Copy)]
pub struct Halves<'a, E> {
    pub bytes: &'a [u8],
    pub element: PhantomData<E>,
}

#[derive(Clone, Copy)]
pub struct HalvesRow<'a, E> {
    blocks: &'a [[u8; 2 * BLOCK]],
    tail: &'a [u8],
    element: PhantomData<E>,
}

impl<'a, E: Half> Format<'a> for Halves<'a, E> {
    type Row = HalvesRow<'a, E>;
    const ORDER: Order = E::ORDER;
    #[inline(always)]
    fn row(self, out: usize, cols: usize) -> HalvesRow<'a, E> {
        let (blocks, tail) = self.bytes[2 * out * cols..][..2 * cols].as_chunks();
        HalvesRow { blocks, tail, element: self.element }
    }
}

impl<E: Half> WeightRow for HalvesRow<'_, E> {
    #[inline(always)]
    fn block<S: Simd>(&self, simd: S, block: usize) -> (S::V, S::V) {
        E::decode(simd, &self.blocks[block])
    }
    #[inline(always)]
    fn prefetch<S: Simd>(&self, simd: S, block: usize, outs: usize) {
        simd.prefetch(self.blocks.as_ptr().wrapping_add(outs * self.blocks.len() + block).cast());
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
        Some(E::decode(simd, &padded))
    }
}

/// Sixteen binary16 values, exactly: by the CPU's own instruction where it has one.
#[inline(always)]
pub fn f16s<S: Simd>(simd: S, x: &[u8; 2 * LANES]) -> S::V {
    let (values, _) = x.as_chunks();
    let values: [f16; LANES] = std::array::from_fn(|i| f16::from_le_bytes(values[i]));
    let mut wide = [0.0; LANES];
    values.convert_to_f32_slice(&mut wide);
    simd.load(&wide)
}

/// `blocks` `[out, in / 32, 16]`, `scales` `[out, in / 32]`.
#[derive(Clone, Copy)]
pub struct Mxfp4<'a> {
    pub blocks: &'a [u8],
    pub scales: &'a [u8],
}

#[derive(Clone, Copy)]
pub struct Mxfp4Row<'a> {
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
    fn prefetch<S: Simd>(&self, simd: S, block: usize, outs: usize) {
        // Four blocks share a cache line, 64 scales another.
        if block.is_multiple_of(4) {
            let ahead = outs * self.blocks.len() + block;
            simd.prefetch(self.blocks.as_ptr().wrapping_add(ahead).cast());
            if block.is_multiple_of(64) {
                simd.prefetch(self.scales.as_ptr().wrapping_add(ahead));
            }
        }
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
