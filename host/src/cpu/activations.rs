//! Rows of f32 activations in the order a product's weights are decoded in.

use rayon::prelude::*;

use super::simd::{LANES, Line};

/// Inputs are taken 32 at a time: an MXFP4 block, two vectors.
pub const BLOCK: usize = 2 * LANES;

/// Two vectors: one block of a row.
pub type BlockLines = [Line; 2];

/// The order of the 32 elements of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they come.
    Natural,
    /// The 16 at even indices, then the 16 at odd ones: how bf16 pairs and MXFP4 nibbles unpack.
    Paired,
}

/// `[rows, cols]` activations, each row padded with zeros to whole blocks.
#[derive(Debug, Default)]
pub struct Activations {
    cols: usize,
    blocks: usize,
    rows: usize,
    natural: Vec<BlockLines>,
    paired: Vec<BlockLines>,
}

impl Activations {
    /// Makes room for `rows` rows of `cols` elements. What they hold is unspecified.
    pub fn resize(&mut self, rows: usize, cols: usize) {
        self.cols = cols;
        self.blocks = cols.div_ceil(BLOCK);
        self.rows = rows;
        let len = rows * self.blocks;
        if self.natural.len() < len {
            self.natural.resize(len, [Line::ZERO; 2]);
        }
    }

    /// Writes every row with `write(row index, row)` and lays it out in `orders` as well.
    pub fn fill(&mut self, orders: &[Order], write: impl Fn(usize, &mut [f32]) + Sync) {
        let (cols, blocks) = (self.cols, self.blocks);
        let len = self.rows * blocks;
        self.natural[..len].par_chunks_mut(blocks).enumerate().for_each(|(i, row)| {
            let row: &mut [f32] = bytemuck::cast_slice_mut(row);
            write(i, &mut row[..cols]);
            row[cols..].fill(0.0);
        });
        if orders.contains(&Order::Paired) {
            if self.paired.len() < len {
                self.paired.resize(len, [Line::ZERO; 2]);
            }
            let natural = self.natural[..len].par_chunks(blocks);
            self.paired[..len].par_chunks_mut(blocks).zip(natural).for_each(|(to, from)| {
                for (to, from) in to.iter_mut().zip(from) {
                    *to = paired(from);
                }
            });
        }
    }

    /// Elements per row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// One row in `order`, which the last [`Activations::fill`] must have been asked for (natural
    /// order is always there).
    #[inline(always)]
    pub fn row(&self, row: usize, order: Order) -> &[BlockLines] {
        let lines = match order {
            Order::Natural => &self.natural,
            Order::Paired => &self.paired,
        };
        &lines[row * self.blocks..][..self.blocks]
    }
}

fn paired(block: &BlockLines) -> BlockLines {
    let x: &[f32; BLOCK] = bytemuck::cast_ref(block);
    [Line(std::array::from_fn(|i| x[2 * i])), Line(std::array::from_fn(|i| x[2 * i + 1]))]
}
