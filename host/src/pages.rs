//! Which page of the KV cache holds which positions of which sequence.
//!
//! Pages are taken as sequences grow and come in two classes: those of the layers that see
//! everything, and those of the windowed layers, which a sequence gives back behind its window. A
//! page is shared by every sequence that holds the same tokens up to its end. A page that nobody
//! holds any more keeps its content until the memory is needed: a sequence that begins with the same
//! tokens takes it up again instead of computing it.
//!
//! Nothing here touches a device: numbers of pages, counts of holders, and the chain of hashes that
//! names a block of [`PAGE`] tokens and all before it. Engines of both kinds read the tables.
//!
//! A sequence moves in two beats: [`Pages::extend`] takes the pages of tokens that are about to be
//! computed, [`Pages::confirm`] says that they were, after which they may be shared and those behind
//! the window go. Whoever drives steps calls both in the order of the steps, and an engine runs them
//! in that order, so that a page can be given to another sequence while a step that reads it is
//! still under way.

mod chain;
mod pool;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use chain::{Block, Chain, Key};
use pool::Pool;
use shared::kv::PAGE;

/// Stands in a table where a page was given back or not yet taken.
const NO_PAGE: u32 = 0;
/// Class of the layers that see everything.
const FULL: usize = 0;
/// Class of the windowed layers.
const WINDOWED: usize = 1;

/// Names a sequence; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId(pub u64);

/// How many pages there are, and how far a windowed layer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Pages for each full layer.
    pub full: usize,
    /// Pages for each windowed layer.
    pub windowed: usize,
    /// Positions a windowed layer sees, the query's own included.
    pub window: usize,
}

impl Geometry {
    /// Pages that can never all be used up, by `sequences` of `positions` each with `tokens` in
    /// steps that are under way.
    pub fn worst_case(
        sequences: usize,
        positions: usize,
        tokens: usize,
        window: usize,
    ) -> Geometry {
        let full = sequences.saturating_mul(positions.div_ceil(PAGE));
        let own = Geometry::window_pages(window) + 1;
        let windowed = sequences.saturating_mul(own).saturating_add(tokens.div_ceil(PAGE));
        Geometry { full, windowed: windowed.min(full), window }
    }

    /// Pages of a window at any alignment.
    pub fn window_pages(window: usize) -> usize {
        window.div_ceil(PAGE) + 1
    }

    /// The most positions that one sequence can hold.
    pub fn max_positions(&self) -> usize {
        if self.windowed < Geometry::window_pages(self.window).min(self.full) {
            return 0;
        }
        self.full.saturating_mul(PAGE)
    }

    /// First position that a windowed layer sees from position `len`.
    fn first_seen(&self, len: usize) -> usize {
        (len + 1).saturating_sub(self.window)
    }
}

/// Where one sequence's keys and values are; made by [`Pages`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageTable {
    seq: SeqId,
    len: usize,
    full: Vec<u32>,
    windowed: Vec<u32>,
    first_windowed: usize,
}

impl PageTable {
    /// Whose it is.
    pub fn seq(&self) -> SeqId {
        self.seq
    }

    /// Positions that have pages.
    #[expect(clippy::len_without_is_empty, reason = "a count of positions")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Page of each block of [`PAGE`] positions, for full and for windowed layers. Windowed blocks
    /// that no coming token sees have no page of their own: what stands there means nothing.
    pub fn classes(&self) -> [&[u32]; 2] {
        [&self.full, &self.windowed]
    }
}

/// Pages that are needed and not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{needed} pages of {PAGE} positions for {class} layers, {free} are free")]
pub struct OutOfPages {
    needed: usize,
    free: usize,
    class: &'static str,
}

#[derive(Debug)]
struct Sequence {
    table: PageTable,
    /// Positions whose keys and values are there.
    filled: usize,
    /// Length of the text it was opened with: where other texts may part from it.
    prompt: usize,
    /// Name of the last whole block.
    last: Key,
    /// Tokens behind the last whole block.
    rest: Vec<u32>,
}

/// All pages, and who holds them.
#[derive(Debug)]
pub struct Pages {
    geometry: Geometry,
    pools: [Pool; 2],
    chain: Chain,
    sequences: HashMap<SeqId, Sequence>,
    next: u64,
    reuse: bool,
    releases: u64,
}

impl Pages {
    /// All free. Without `reuse` every sequence computes all its tokens.
    pub fn new(geometry: Geometry, reuse: bool) -> Pages {
        Pages {
            geometry,
            pools: [geometry.full, geometry.windowed].map(Pool::new),
            chain: Chain::default(),
            sequences: HashMap::new(),
            next: 0,
            reuse,
            releases: 0,
        }
    }

    /// How many there are.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Opens a sequence that is going to hold `tokens`. Its table covers those that are there
    /// already, always whole blocks and never the last token, whose logits are wanted.
    pub fn open(&mut self, tokens: &[u32]) -> SeqId {
        let seq = SeqId(self.next);
        self.next += 1;
        let found = if self.reuse { self.reusable(tokens) } else { Vec::new() };
        let first_windowed = self.geometry.first_seen(found.len() * PAGE) / PAGE;
        let (mut full, mut windowed) = (Vec::new(), Vec::new());
        for (index, key) in found.iter().enumerate() {
            let Some(block) = self.chain.get(key) else { break };
            full.push(block.full);
            self.pools[FULL].hold(block.full);
            windowed.push(match block.windowed {
                Some(page) if index >= first_windowed => {
                    self.pools[WINDOWED].hold(page);
                    page
                }
                _ => NO_PAGE,
            });
        }
        let len = full.len() * PAGE;
        let table = PageTable { seq, len, full, windowed, first_windowed };
        let last = found.last().copied().unwrap_or(Key::ROOT);
        let sequence =
            Sequence { table, filled: len, prompt: tokens.len(), last, rest: Vec::new() };
        self.sequences.insert(seq, sequence);
        seq
    }

    /// Names of the blocks at the start of `tokens` that can be taken up: all but the windows'
    /// pages may be gone before the last of them.
    fn reusable(&self, tokens: &[u32]) -> Vec<Key> {
        let mut keys = Vec::new();
        let mut last = Key::ROOT;
        let whole = tokens.len().saturating_sub(1) / PAGE;
        for block in tokens.chunks_exact(PAGE).take(whole) {
            let key = last.next(block);
            match self.chain.get(&key) {
                Some(found) if found.is(last, block) => keys.push(key),
                _ => break,
            }
            last = key;
        }
        let windowed = |key: &Key| self.chain.get(key).is_some_and(|b| b.windowed.is_some());
        let seen = |len: usize| self.geometry.first_seen(len * PAGE) / PAGE..len;
        let usable = (0..=keys.len()).rev().find(|&len| keys[seen(len)].iter().all(windowed));
        keys.truncate(usable.unwrap_or(0));
        keys
    }

    /// The sequence's table. Panics when it is not open: whoever opened it knows.
    pub fn table(&self, seq: SeqId) -> &PageTable {
        &self.sequences[&seq].table
    }

    /// Whether the sequence is open.
    pub fn is_open(&self, seq: SeqId) -> bool {
        self.sequences.contains_key(&seq)
    }

    /// Sequences open.
    pub fn open_sequences(&self) -> usize {
        self.sequences.len()
    }

    /// Pages that no sequence holds, in each class.
    pub fn free(&self) -> [usize; 2] {
        [self.pools[FULL].available(), self.pools[WINDOWED].available()]
    }

    /// Pages that sequences hold, in each class; a shared one counts once.
    pub fn in_use(&self) -> [usize; 2] {
        let [full, windowed] = self.free();
        [self.geometry.full - full, self.geometry.windowed - windowed]
    }

    /// Changes whenever pages may have become free.
    pub fn releases(&self) -> u64 {
        self.releases
    }

    /// Pages of each class that `tokens` more positions take.
    pub fn needed(&self, seq: SeqId, tokens: usize) -> [usize; 2] {
        let table = self.table(seq);
        let blocks = (table.len + tokens).div_ceil(PAGE);
        [blocks - table.full.len(), blocks - table.windowed.len()]
    }

    /// Most tokens for which [`Pages::extend`] finds pages.
    pub fn room(&self, seq: SeqId) -> usize {
        let table = self.table(seq);
        let [full, windowed] = self.free();
        let blocks = (table.full.len() + full).min(table.windowed.len() + windowed);
        blocks * PAGE - table.len
    }

    /// Takes the pages of `tokens` more positions: all of them or none.
    pub fn extend(&mut self, seq: SeqId, tokens: usize) -> Result<(), OutOfPages> {
        let needed = self.needed(seq, tokens);
        let free = self.free();
        for (class, name) in [(FULL, "full"), (WINDOWED, "windowed")] {
            if needed[class] > free[class] {
                let (needed, free) = (needed[class], free[class]);
                return Err(OutOfPages { needed, free, class: name });
            }
        }
        for class in [FULL, WINDOWED] {
            for _ in 0..needed[class] {
                let Some(page) = self.take(class) else { continue };
                let Some(sequence) = self.sequences.get_mut(&seq) else { continue };
                let table = &mut sequence.table;
                [&mut table.full, &mut table.windowed][class].push(page);
            }
        }
        if let Some(sequence) = self.sequences.get_mut(&seq) {
            sequence.table.len += tokens;
        }
        Ok(())
    }

    /// A page that nobody holds; what it held can no longer be taken up.
    fn take(&mut self, class: usize) -> Option<u32> {
        let (page, held) = self.pools[class].take()?;
        match (held, class) {
            (Some(key), FULL) => {
                let windowed = self.chain.remove(&key).and_then(|block| block.windowed);
                windowed.into_iter().for_each(|page| self.pools[WINDOWED].forget(page));
            }
            (Some(key), _) => self.chain.drop_window(&key),
            (None, _) => {}
        }
        Some(page)
    }

    /// Says that the next `tokens` of a sequence have been computed: whole blocks can be shared from
    /// now on, and windowed pages that no later token sees are given back. A sequence that is no
    /// longer open is ignored.
    pub fn confirm(&mut self, seq: SeqId, tokens: &[u32]) {
        let Some(sequence) = self.sequences.get_mut(&seq) else { return };
        sequence.filled += tokens.len();
        if self.reuse {
            sequence.rest.extend_from_slice(tokens);
            let whole = sequence.rest.len() / PAGE;
            let first = (sequence.filled - sequence.rest.len()) / PAGE;
            let rest = sequence.rest.split_off(whole * PAGE);
            let blocks = std::mem::replace(&mut sequence.rest, rest);
            for (index, block) in (first..).zip(blocks.chunks_exact(PAGE)) {
                let table = &sequence.table;
                let windowed = (index >= table.first_windowed).then(|| table.windowed[index]);
                let last = sequence.last;
                sequence.last = last.next(block);
                let block = Block::new(last, block, table.full[index], windowed);
                self.chain.insert(sequence.last, block, &mut self.pools);
            }
        }
        let sequence_filled = sequence.filled;
        let seen = self.geometry.first_seen(sequence_filled) / PAGE;
        let kept = sequence.prompt / PAGE;
        let anchors = self.geometry.first_seen(kept * PAGE) / PAGE..kept;
        let table = &mut sequence.table;
        let retired = table.first_windowed..seen.min(table.windowed.len());
        if retired.is_empty() {
            return;
        }
        for index in retired.clone() {
            let page = std::mem::replace(&mut table.windowed[index], NO_PAGE);
            self.pools[WINDOWED].release(page, anchors.contains(&index));
        }
        table.first_windowed = retired.end;
        self.releases += 1;
    }

    /// Forgets a sequence. Its pages are free at once, and keep what was confirmed until they are
    /// taken. One that is not open is ignored.
    pub fn close(&mut self, seq: SeqId) {
        let Some(Sequence { table, .. }) = self.sequences.remove(&seq) else { return };
        // The ends of texts go first: a block is of no use without those before it.
        for &page in table.windowed[table.first_windowed.min(table.windowed.len())..].iter().rev() {
            self.pools[WINDOWED].release(page, false);
        }
        for &page in table.full.iter().rev() {
            self.pools[FULL].release(page, false);
        }
        self.releases += 1;
    }
}
