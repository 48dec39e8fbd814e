//! The pages of one class: who holds them, and which go first.

use std::collections::BTreeMap;

use super::chain::Key;

/// Order in which pages that nobody holds are taken: those worth keeping last, then the oldest.
type Turn = (bool, u64);

#[derive(Clone, Debug, Default)]
struct Page {
    holders: u32,
    /// The block it holds, where others may take it up.
    block: Option<Key>,
    /// Its place among the idle ones.
    turn: Option<Turn>,
}

/// Pages of one class.
#[derive(Debug)]
pub struct Pool {
    pages: Vec<Page>,
    /// Held by nobody, with nothing in them.
    empty: Vec<u32>,
    /// Held by nobody, with a block in them.
    idle: BTreeMap<Turn, u32>,
    clock: u64,
}

impl Pool {
    /// `count` pages, all empty.
    pub fn new(count: usize) -> Pool {
        // Popped from the end: low numbers first.
        let empty = (0..count as u32).rev().collect();
        Pool { pages: vec![Page::default(); count], empty, idle: BTreeMap::new(), clock: 0 }
    }

    /// Pages that nobody holds.
    pub fn available(&self) -> usize {
        self.empty.len() + self.idle.len()
    }

    /// Takes one that nobody holds, an empty one first, and says which block it held.
    pub fn take(&mut self) -> Option<(u32, Option<Key>)> {
        let page = self.empty.pop().or_else(|| self.idle.pop_first().map(|(_, page)| page))?;
        let own = &mut self.pages[page as usize];
        own.turn = None;
        own.holders = 1;
        Some((page, own.block.take()))
    }

    /// One more holder of a page with a block.
    pub fn hold(&mut self, page: u32) {
        let own = &mut self.pages[page as usize];
        own.holders += 1;
        if let Some(turn) = own.turn.take() {
            self.idle.remove(&turn);
        }
    }

    /// One holder less. With `keep`, other pages are taken before this one.
    pub fn release(&mut self, page: u32, keep: bool) {
        let own = &mut self.pages[page as usize];
        own.holders -= 1;
        if own.holders > 0 {
            return;
        }
        if own.block.is_none() {
            self.empty.push(page);
            return;
        }
        self.clock += 1;
        own.turn = Some((keep, self.clock));
        self.idle.insert((keep, self.clock), page);
    }

    /// From now on the page holds `block`.
    pub fn name(&mut self, page: u32, block: Key) {
        self.pages[page as usize].block = Some(block);
    }

    /// The page's block is gone from the chain.
    pub fn forget(&mut self, page: u32) {
        let own = &mut self.pages[page as usize];
        own.block = None;
        if let Some(turn) = own.turn.take() {
            self.idle.remove(&turn);
            self.empty.push(page);
        }
    }
}
