//! Blocks of tokens by the hash of everything up to their end.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::pool::Pool;
use super::{FULL, WINDOWED};

/// Names a block and all before it: 128 bits of a keyed hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u64; 2]);

impl Key {
    /// Before the first block.
    pub const ROOT: Key = Key([0; 2]);

    /// The block of `tokens` behind this one.
    pub fn next(self, tokens: &[u32]) -> Key {
        Key([0u8, 1].map(|half| {
            let mut hasher = DefaultHasher::new();
            (half, self, tokens).hash(&mut hasher);
            hasher.finish()
        }))
    }
}

/// Pages that hold a block.
#[derive(Debug)]
pub struct Block {
    before: Key,
    tokens: Box<[u32]>,
    /// Page of the full layers.
    pub full: u32,
    /// Page of the windowed layers, while it is there.
    pub windowed: Option<u32>,
}

impl Block {
    /// The block of `tokens` behind `before`.
    pub fn new(before: Key, tokens: &[u32], full: u32, windowed: Option<u32>) -> Block {
        Block { before, tokens: tokens.into(), full, windowed }
    }

    /// Whether it is what its name says: equal hashes alone are no proof.
    pub fn is(&self, before: Key, tokens: &[u32]) -> bool {
        self.before == before && *self.tokens == *tokens
    }
}

/// All blocks that can be taken up.
#[derive(Debug, Default)]
pub struct Chain {
    blocks: HashMap<Key, Block>,
}

impl Chain {
    /// The block of this name.
    pub fn get(&self, key: &Key) -> Option<&Block> {
        self.blocks.get(key)
    }

    /// Offers a block. Where it is known already the known pages stay, but for a windowed page that
    /// is gone there.
    pub fn insert(&mut self, key: Key, block: Block, pools: &mut [Pool; 2]) {
        match self.blocks.get_mut(&key) {
            None => {
                pools[FULL].name(block.full, key);
                block.windowed.into_iter().for_each(|page| pools[WINDOWED].name(page, key));
                self.blocks.insert(key, block);
            }
            Some(known) => {
                if known.windowed.is_none()
                    && known.is(block.before, &block.tokens)
                    && let Some(page) = block.windowed
                {
                    pools[WINDOWED].name(page, key);
                    known.windowed = Some(page);
                }
            }
        }
    }

    /// Forgets a block.
    pub fn remove(&mut self, key: &Key) -> Option<Block> {
        self.blocks.remove(key)
    }

    /// Forgets a block's windowed page.
    pub fn drop_window(&mut self, key: &Key) {
        if let Some(block) = self.blocks.get_mut(key) {
            block.windowed = None;
        }
    }
}
