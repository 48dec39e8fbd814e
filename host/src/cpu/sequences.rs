//! Open sequences and their caches.

use std::collections::BTreeMap;

use shared::model::ModelConfig;

use super::forward::Row;
use super::kv::{Element, FreeBlocks, LayerCache, Shape};
use crate::engine::SeqId;

/// One sequence.
#[derive(Debug)]
struct Sequence<T> {
    /// Tokens so far.
    len: usize,
    /// Most tokens it may hold.
    max_positions: usize,
    layers: Vec<LayerCache<T>>,
}

/// All open sequences.
#[derive(Debug)]
pub struct Sequences<T> {
    shape: Shape,
    layers: usize,
    next: u32,
    open: BTreeMap<SeqId, Sequence<T>>,
    free: FreeBlocks<T>,
}

impl<T: Element> Sequences<T> {
    /// None open.
    pub fn new(config: &ModelConfig) -> Sequences<T> {
        let shape = Shape { heads: config.num_key_value_heads, head_dim: config.head_dim };
        let layers = config.num_hidden_layers;
        Sequences { shape, layers, next: 0, open: BTreeMap::new(), free: FreeBlocks::new(shape) }
    }

    /// The sizes of every cache block.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Sequences open.
    pub fn count(&self) -> usize {
        self.open.len()
    }

    /// Opens one under an id that is not in use.
    pub fn open(&mut self, max_positions: usize) -> SeqId {
        while self.open.contains_key(&SeqId(self.next)) {
            self.next = self.next.wrapping_add(1);
        }
        let id = SeqId(self.next);
        self.next = self.next.wrapping_add(1);
        let layers = (0..self.layers).map(|_| LayerCache::new()).collect();
        self.open.insert(id, Sequence { len: 0, max_positions, layers });
        id
    }

    /// Forgets one, if it is open.
    pub fn close(&mut self, id: SeqId) {
        if let Some(mut sequence) = self.open.remove(&id) {
            for layer in &mut sequence.layers {
                layer.clear(&mut self.free);
            }
        }
    }

    /// Tokens so far and at most, if it is open.
    pub fn len(&self, id: SeqId) -> Option<(usize, usize)> {
        self.open.get(&id).map(|s| (s.len, s.max_positions))
    }

    /// Counts `tokens` more.
    pub fn advance(&mut self, id: SeqId, tokens: usize) {
        if let Some(sequence) = self.open.get_mut(&id) {
            sequence.len += tokens;
        }
    }

    /// Stores keys and values (`[rows, kv_dim]`) of layer `layer`.
    pub fn append(&mut self, layer: usize, rows: &[Row], keys: &[f32], values: &[f32]) {
        let width = self.shape.heads * self.shape.head_dim;
        let source = keys.chunks_exact(width).zip(values.chunks_exact(width));
        for (row, (keys, values)) in rows.iter().zip(source) {
            if let Some(sequence) = self.open.get_mut(&row.seq) {
                sequence.layers[layer].append(row.position, keys, values, &mut self.free);
            }
        }
    }

    /// Drops what no later position of a layer with this window will see.
    pub fn trim(&mut self, layer: usize, rows: &[Row], window: Option<usize>) {
        let Some(window) = window else { return };
        for row in rows {
            if let Some(sequence) = self.open.get_mut(&row.seq) {
                let first = (row.position + 2).saturating_sub(window);
                sequence.layers[layer].drop_before(first, &mut self.free);
            }
        }
    }

    /// The cache of layer `layer` of an open sequence.
    pub fn layer(&self, id: SeqId, layer: usize) -> &LayerCache<T> {
        &self.open[&id].layers[layer]
    }
}
