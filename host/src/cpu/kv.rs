//! The memory of the KV cache: pages of blocks of 16 positions, for every layer.
//!
//! A block holds, head by head, keys as `[head_dim, 16]` (a vector is one element of 16 keys) and
//! values as `[16, head_dim padded to 16]` (a vector is 16 elements of one value). A page gets its
//! memory when it is first written. What stands in a page that was used before is never read:
//! attention takes the positions it sees, all of which their sequence has written.

use half::bf16;
use shared::kv::PAGE;
use shared::model::ModelConfig;

use super::simd::{LANES, Simd};
use crate::pages::{Geometry, PageTable};

/// Positions per block.
pub const BLOCK_POSITIONS: usize = LANES;

/// How a key or value is stored.
pub trait Element: Copy + Send + Sync + 'static {
    /// 0.
    const ZERO: Self;
    /// The nearest to `x`.
    fn from_f32(x: f32) -> Self;
    /// Sixteen of them, exactly.
    fn load<S: Simd>(simd: S, x: &[Self; LANES]) -> S::V;
}

impl Element for f32 {
    const ZERO: f32 = 0.0;
    fn from_f32(x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn load<S: Simd>(simd: S, x: &[f32; LANES]) -> S::V {
        simd.load(x)
    }
}

impl Element for bf16 {
    const ZERO: bf16 = bf16::ZERO;
    fn from_f32(x: f32) -> bf16 {
        bf16::from_bits(shared::bf16::from_f32(x))
    }
    #[inline(always)]
    fn load<S: Simd>(simd: S, x: &[bf16; LANES]) -> S::V {
        simd.bf16s(bytemuck::cast_ref(x))
    }
}

/// The sizes of a block.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Key-value heads.
    pub heads: usize,
    /// Elements per head.
    pub head_dim: usize,
}

impl Shape {
    /// `head_dim` in whole vectors.
    pub fn value_vectors(self) -> usize {
        self.head_dim.div_ceil(LANES)
    }

    /// Vectors of one head of a block: keys, then values.
    fn head_vectors(self) -> usize {
        self.head_dim + BLOCK_POSITIONS * self.value_vectors()
    }

    /// Vectors of a page.
    fn page_vectors(self) -> usize {
        PAGE / BLOCK_POSITIONS * self.heads * self.head_vectors()
    }
}

/// `[blocks of a page][heads][vectors of a head]`.
type Page<T> = Box<[[T; LANES]]>;

/// The pages of one layer.
#[derive(Debug)]
struct Layer<T> {
    /// Whether its pages are those of the windowed class.
    is_windowed: bool,
    pages: Vec<Option<Page<T>>>,
}

/// Keys and values of every layer.
#[derive(Debug)]
pub struct Memory<T> {
    shape: Shape,
    layers: Vec<Layer<T>>,
}

impl<T: Element> Memory<T> {
    /// As many pages as `geometry` says, none with memory yet.
    pub fn new(config: &ModelConfig, geometry: Geometry) -> Memory<T> {
        let shape = Shape { heads: config.num_key_value_heads, head_dim: config.head_dim };
        let layer = |index| {
            let is_windowed = config.window(index).is_some();
            let count = if is_windowed { geometry.windowed } else { geometry.full };
            Layer { is_windowed, pages: (0..count).map(|_| None).collect() }
        };
        Memory { shape, layers: (0..config.num_hidden_layers).map(layer).collect() }
    }

    /// Bytes of one page of one layer.
    pub fn page_bytes(config: &ModelConfig) -> usize {
        let shape = Shape { heads: config.num_key_value_heads, head_dim: config.head_dim };
        shape.page_vectors() * size_of::<[T; LANES]>()
    }

    /// The sizes of every block.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Stores `keys` and `values`, each `[heads, head_dim]`, of one position of a sequence.
    pub fn store(
        &mut self,
        layer: usize,
        table: &PageTable,
        position: usize,
        keys: &[f32],
        values: &[f32],
    ) {
        let shape = self.shape;
        let layer = &mut self.layers[layer];
        let page = table.classes()[usize::from(layer.is_windowed)][position / PAGE];
        let page = layer.pages[page as usize]
            .get_or_insert_with(|| vec![[T::ZERO; LANES]; shape.page_vectors()].into());
        let (block, lane) = (position % PAGE / BLOCK_POSITIONS, position % BLOCK_POSITIONS);
        let size = shape.heads * shape.head_vectors();
        let heads = page[block * size..][..size].chunks_exact_mut(shape.head_vectors());
        let source = keys.chunks_exact(shape.head_dim).zip(values.chunks_exact(shape.head_dim));
        for (head, (key, value)) in heads.zip(source) {
            let (head_keys, head_values) = head.split_at_mut(shape.head_dim);
            for (to, &x) in head_keys.iter_mut().zip(key) {
                to[lane] = T::from_f32(x);
            }
            let vectors = shape.value_vectors();
            let to = head_values[lane * vectors..][..vectors].as_flattened_mut();
            for (to, &x) in to.iter_mut().zip(value) {
                *to = T::from_f32(x);
            }
        }
    }

    /// What a sequence sees of one layer.
    pub fn view<'a>(&'a self, layer: usize, table: &'a PageTable) -> View<'a, T> {
        let layer = &self.layers[layer];
        let table = table.classes()[usize::from(layer.is_windowed)];
        View { pages: &layer.pages, table }
    }
}

/// Keys and values of one layer of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    pages: &'a [Option<Page<T>>],
    table: &'a [u32],
}

impl<'a, T> View<'a, T> {
    /// Keys `[head_dim, 16]` and values `[16, value_vectors]` of `head` in block `index`, counted
    /// from position 0; a block that was written.
    #[inline(always)]
    pub fn head(
        &self,
        index: usize,
        head: usize,
        shape: Shape,
    ) -> (&'a [[T; LANES]], &'a [[T; LANES]]) {
        const BLOCKS: usize = PAGE / BLOCK_POSITIONS;
        let size = shape.head_vectors();
        let first = (index % BLOCKS * shape.heads + head) * size;
        let page = self.table[index / BLOCKS] as usize;
        let vectors = self.pages[page].as_deref().unwrap_or_default();
        vectors[first..first + size].split_at(shape.head_dim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::Pages;

    /// Stores what names its position and reads it back where the table says, pages in any order.
    #[test]
    fn a_position_is_read_where_it_was_stored() {
        let config = crate::synth::Preset::Nano.config();
        let (heads, head_dim) = (config.num_key_value_heads, config.head_dim);
        let geometry = Geometry { full: 6, windowed: 6, window: config.sliding_window };
        let mut pages = Pages::new(geometry, false);
        let mut memory = Memory::<f32>::new(&config, geometry);
        let seqs = [(); 2].map(|()| pages.open(&[]));
        // They take turns, so that no sequence has pages in a row.
        for _ in 0..3 {
            seqs.iter().for_each(|&seq| pages.extend(seq, PAGE - 3).unwrap());
        }
        let value = |s: usize, position: usize, h: usize, d: usize, key: bool| {
            (((s * 1000 + position) * heads + h) * head_dim + d) as f32
                + if key { 0.5 } else { 0.0 }
        };
        for layer in 0..config.num_hidden_layers {
            for (s, &seq) in seqs.iter().enumerate() {
                for position in 0..pages.table(seq).len() {
                    let row = |key| {
                        let element = |i| value(s, position, i / head_dim, i % head_dim, key);
                        (0..heads * head_dim).map(element).collect::<Vec<f32>>()
                    };
                    memory.store(layer, pages.table(seq), position, &row(true), &row(false));
                }
            }
            for (s, &seq) in seqs.iter().enumerate() {
                let view = memory.view(layer, pages.table(seq));
                for position in 0..pages.table(seq).len() {
                    let lane = position % LANES;
                    for h in 0..heads {
                        let (keys, values) = view.head(position / LANES, h, memory.shape());
                        let vectors = memory.shape().value_vectors();
                        for d in 0..head_dim {
                            assert_eq!(keys[d][lane], value(s, position, h, d, true));
                            let found = values[lane * vectors + d / LANES][d % LANES];
                            assert_eq!(found, value(s, position, h, d, false));
                        }
                    }
                }
            }
        }
    }
}
