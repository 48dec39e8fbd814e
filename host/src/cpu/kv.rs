//! The KV cache of one sequence and layer: blocks of 16 positions.
//!
//! A block holds, head by head, keys as `[head_dim, 16]` (a vector is one element of 16 keys) and
//! values as `[16, head_dim padded to 16]` (a vector is 16 elements of one value). Windowed
//! layers drop the blocks behind the window; blocks are recycled between layers and sequences.

use std::collections::VecDeque;

use super::simd::{LANES, Simd};

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

/// bf16, little-endian.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Bf16([u8; 2]);

impl Element for Bf16 {
    const ZERO: Bf16 = Bf16([0; 2]);
    fn from_f32(x: f32) -> Bf16 {
        Bf16(shared::bf16::from_f32(x).to_le_bytes())
    }
    #[inline(always)]
    fn load<S: Simd>(simd: S, x: &[Bf16; LANES]) -> S::V {
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
}

type Block<T> = Box<[[T; LANES]]>;

/// Blocks that no sequence holds.
#[derive(Debug)]
pub struct FreeBlocks<T> {
    shape: Shape,
    blocks: Vec<Block<T>>,
}

impl<T: Element> FreeBlocks<T> {
    /// None yet.
    pub fn new(shape: Shape) -> FreeBlocks<T> {
        FreeBlocks { shape, blocks: Vec::new() }
    }

    fn take(&mut self) -> Block<T> {
        self.blocks.pop().unwrap_or_else(|| {
            vec![[T::ZERO; LANES]; self.shape.heads * self.shape.head_vectors()].into()
        })
    }
}

/// Keys and values of one layer of one sequence.
#[derive(Debug)]
pub struct LayerCache<T> {
    /// Blocks dropped before the first that is held.
    dropped: usize,
    blocks: VecDeque<Block<T>>,
}

impl<T: Element> LayerCache<T> {
    /// Empty.
    pub fn new() -> LayerCache<T> {
        LayerCache { dropped: 0, blocks: VecDeque::new() }
    }

    /// Stores `keys` and `values`, each `[heads, head_dim]`, of `position`: the next one.
    pub fn append(
        &mut self,
        position: usize,
        keys: &[f32],
        values: &[f32],
        free: &mut FreeBlocks<T>,
    ) {
        let shape = free.shape;
        let lane = position % BLOCK_POSITIONS;
        let index = position / BLOCK_POSITIONS - self.dropped;
        if index == self.blocks.len() {
            self.blocks.push_back(free.take());
        }
        let heads = self.blocks[index].chunks_exact_mut(shape.head_vectors());
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

    /// Gives back the blocks that hold only positions below `first`.
    pub fn drop_before(&mut self, first: usize, free: &mut FreeBlocks<T>) {
        while (self.dropped + 1) * BLOCK_POSITIONS <= first
            && let Some(block) = self.blocks.pop_front()
        {
            free.blocks.push(block);
            self.dropped += 1;
        }
    }

    /// Gives back everything.
    pub fn clear(&mut self, free: &mut FreeBlocks<T>) {
        free.blocks.extend(self.blocks.drain(..));
    }

    /// Keys `[head_dim, 16]` and values `[16, value_vectors]` of `head` in block `index`, counted
    /// from position 0.
    #[inline(always)]
    pub fn head(&self, index: usize, head: usize, shape: Shape) -> (&[[T; LANES]], &[[T; LANES]]) {
        let size = shape.head_vectors();
        self.blocks[index - self.dropped][head * size..][..size].split_at(shape.head_dim)
    }

    /// Blocks held.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.blocks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windowed_layers_hold_the_window_and_recycle() {
        let shape = Shape { heads: 1, head_dim: 2 };
        let mut free = FreeBlocks::<Bf16>::new(shape);
        let mut cache = LayerCache::new();
        const WINDOW: usize = 128;
        for position in 0..1000 {
            cache.append(position, &[1.0; 2], &[1.0; 2], &mut free);
            cache.drop_before((position + 2).saturating_sub(WINDOW), &mut free);
            assert!(cache.held() <= WINDOW / BLOCK_POSITIONS + 1, "{position}");
        }
        assert!(free.blocks.len() <= 1);
        cache.clear(&mut free);
        assert_eq!(cache.held(), 0);
    }
}
