//! What the kernels read: tiles of queries, and pages of keys and values.

use shared::block::{BLOCK_BYTES, ROWS, STEP};
use shared::kernels::attention::TILE_WORDS;
use shared::kv::{PAGE, SPLIT, head_len};

use super::softmax::{STEPS, TILES};
use crate::arch;
use crate::product::{Rows, lane_rows, tiled_row};
use crate::tile::{ACC, Acc, Operand, X_SLOTS, acc_index, mma, score_key, x_slot};

/// Pages of a split.
pub const PAGES: usize = SPLIT / PAGE;

/// What all tiles of a launch share.
#[derive(Clone, Copy)]
pub struct Launch {
    pub q: *const u8,
    pub pages: *const u8,
    pub table: *const u32,
    pub rows: u32,
    pub group: u32,
    pub kv_heads: u32,
    pub window: u32,
    pub scale: f32,
}

/// A run of query rows of one sequence and one KV head.
#[derive(Clone, Copy)]
pub struct Tile {
    pub kv_head: u32,
    first: u32,
    pub count: u32,
    table: *const u32,
    /// Position of token row 0, were the sequence to reach back to it: may have wrapped around.
    origin: u32,
    group: u32,
}

impl Tile {
    /// Entry `index` of the tile list, for `kv_head`.
    ///
    /// # Safety
    ///
    /// The list has that entry.
    #[inline(always)]
    pub unsafe fn load(launch: &Launch, tiles: *const u32, index: u32, kv_head: u32) -> Self {
        // SAFETY: entries are four words; the third is an index into the table.
        unsafe {
            let entry = tiles.add((index * TILE_WORDS) as usize);
            let (first, count, group) = (*entry, *entry.add(1), launch.group);
            let table = launch.table.add(*entry.add(2) as usize);
            let origin = (*entry.add(3)).wrapping_sub(first / group);
            Self { kv_head, first, count, table, origin, group }
        }
    }

    /// Query row `row`, of which those past the last repeat it.
    #[inline(always)]
    pub fn row(&self, row: u32) -> u32 {
        self.first + row.min(self.count - 1)
    }

    /// Its position.
    #[inline(always)]
    fn position(&self, row: u32) -> u32 {
        self.origin.wrapping_add(self.row(row) / self.group)
    }

    /// What rows `first..=last` see.
    #[inline(always)]
    pub fn sees(&self, window: u32, first: u32, last: u32) -> Seen {
        Seen::new(self.position(first), self.position(last), window)
    }
}

/// First position that a query at `position` sees.
#[inline(always)]
fn first_key(position: u32, window: u32) -> u32 {
    if window == 0 { 0 } else { (position + 1).saturating_sub(window) }
}

/// What a run of queries sees.
#[derive(Clone, Copy)]
pub struct Seen {
    /// First key that one of them sees, and the first that all see, if they have a key in common.
    first: [u32; 2],
    /// Last key that all see, and the last that one of them sees.
    last: [u32; 2],
}

impl Seen {
    #[inline(always)]
    fn new(low: u32, high: u32, window: u32) -> Self {
        Self { first: [first_key(low, window), first_key(high, window)], last: [low, high] }
    }

    /// The splits of all keys that one of them sees: first and last.
    #[inline(always)]
    pub fn splits(&self) -> [u32; 2] {
        [self.first[0] / SPLIT as u32, self.last[1] / SPLIT as u32]
    }

    /// Whether all keys of `split` are before the first query's own.
    #[inline(always)]
    pub fn precedes(&self, split: u32) -> bool {
        (split + 1) * SPLIT as u32 <= self.last[0]
    }

    /// Whether there is a key in `split` that one of them does not see.
    #[inline(always)]
    pub fn hides(&self, split: u32) -> bool {
        let start = split * SPLIT as u32;
        start < self.first[1] || start + (SPLIT - 1) as u32 > self.last[0]
    }
}

impl Seen {
    /// Whether one of them sees a key of step `step` of 32 in `split`. A step nobody sees is
    /// skipped: adding zeros changes nothing. On AMD the branch also keeps LLVM from moving the
    /// loads of all steps before the first product, for which there are not registers enough.
    #[inline(always)]
    fn step(&self, split: u32, step: usize) -> bool {
        let start = split * SPLIT as u32 + (step * STEP) as u32;
        start <= self.last[1] && start + STEP as u32 > self.first[0]
    }
}

impl Seen {
    /// Keys of `split` up to the last that one of them sees, if there are others behind it.
    #[inline(always)]
    pub fn ends_in(&self, split: u32) -> Option<u32> {
        let keys = self.last[1] + 1 - split * SPLIT as u32;
        if keys < SPLIT as u32 { Some(keys) } else { None }
    }

    /// Keys of `split` before the first page that one of them sees.
    #[cfg(family = "nvptx")] // others skip what nobody sees
    #[inline(always)]
    pub fn page_start(&self, split: u32) -> u32 {
        (self.first[0] / PAGE as u32 * PAGE as u32).saturating_sub(split * SPLIT as u32)
    }

    /// Whether step `step` of 32 keys in `split` has the last key that one of them sees, and others
    /// behind it.
    #[inline(always)]
    fn ends_in_step(&self, split: u32, step: u32) -> bool {
        let keys = (self.last[1] + 1).wrapping_sub(split * SPLIT as u32 + step * STEP as u32);
        keys != 0 && keys < STEP as u32
    }
}

/// Where one head's keys and values of a split lie, by page.
#[derive(Clone, Copy)]
pub struct Pages {
    pub keys: [*const u8; PAGES],
    pub values: [*const u8; PAGES],
}

/// The numbers of a split's pages. Those that no query of the tile sees are not in the table; in
/// their place stands the nearest that is, so that all of a split can be read, and then hidden.
///
/// # Safety
///
/// Pages of what is seen are in the table, and `split` is one that is seen.
#[inline(always)]
pub unsafe fn page_numbers(tile: &Tile, seen: &Seen, split: u32) -> [u32; PAGES] {
    let (first, last) = (seen.first[0] / PAGE as u32, seen.last[1] / PAGE as u32);
    let mut numbers = [0; PAGES];
    for i in 0..PAGES {
        let index = (split * PAGES as u32 + i as u32).max(first).min(last);
        // SAFETY: the caller's promise.
        numbers[i] = unsafe { *tile.table.add(index as usize) };
    }
    numbers
}

impl Pages {
    /// In the cache.
    ///
    /// # Safety
    ///
    /// The pages exist.
    #[inline(always)]
    pub unsafe fn new(launch: &Launch, tile: &Tile, dim: usize, numbers: [u32; PAGES]) -> Self {
        let head = head_len(dim) * 2;
        let heads = launch.kv_heads as usize;
        let mut pages =
            Self { keys: [core::ptr::null(); PAGES], values: [core::ptr::null(); PAGES] };
        for i in 0..PAGES {
            let part = numbers[i] as usize * 2 * heads + tile.kv_head as usize;
            // SAFETY: keys of all heads, then values of all heads.
            unsafe {
                pages.keys[i] = launch.pages.add(part * head);
                pages.values[i] = pages.keys[i].add(heads * head);
            }
        }
        pages
    }
}

/// Sixteen query rows.
pub struct Queries<const DS: usize> {
    /// Operands by d step.
    pub q: [Operand; DS],
    /// Position of each of the lane's queries.
    pub position: [u32; X_SLOTS],
    window: u32,
}

impl<const DS: usize> Queries<DS> {
    /// The 16 query rows from tile row `row0` on.
    ///
    /// # Safety
    ///
    /// The launch contract: the tile's rows exist.
    #[inline(always)]
    pub unsafe fn new(launch: &Launch, tile: &Tile, row0: u32, lane: u32) -> Self {
        let query_rows = launch.rows * launch.group;
        // SAFETY: each head's queries are padded to whole row tiles.
        unsafe {
            let head = tile.kv_head as usize * query_rows.next_multiple_of(ROWS as u32) as usize;
            let head = launch.q.add(head * DS * STEP * 2);
            let rows: Rows =
                lane_rows(lane, |row| tiled_row(head, tile.row(row0 + row), DS as u32));
            let mut q = [Operand::ZERO; DS];
            for step in 0..DS {
                let mut at = rows;
                for row in &mut at {
                    *row = row.add(step * BLOCK_BYTES);
                }
                q[step] = Operand::gather(at, lane);
            }
            let mut position = [0; X_SLOTS];
            for i in 0..ACC {
                let (_, x) = acc_index(lane, i);
                position[x_slot(i)] = tile.position(row0 + x);
            }
            Self { q, position, window: launch.window }
        }
    }

    /// Scores of the keys of `split` that one of `seen` sees, unscaled, tile `t` in the order of
    /// [`score_key`]. Collective.
    ///
    /// # Safety
    ///
    /// `keys` are the split's pages, readable; on NVIDIA they are in workgroup memory.
    #[inline(always)]
    pub unsafe fn scores(
        &self,
        seen: &Seen,
        split: u32,
        keys: [*const u8; PAGES],
        lane: u32,
    ) -> [Acc; TILES] {
        let mut scores = [arch::ZERO; TILES];
        for step in 0..STEPS {
            if seen.step(split, step) {
                let keys = keys[step * STEP / PAGE];
                for half in 0..2 {
                    let row = |w| score_key(half as u32, w);
                    for d_step in 0..DS {
                        // SAFETY: rows of 32 keys, in the chunks of this d step.
                        let k = unsafe {
                            let chunks =
                                keys.add(d_step * STEP * PAGE * 2 + step * STEP % PAGE * 16);
                            Operand::columns(chunks, PAGE * 16, row, lane)
                        };
                        mma(&k, &self.q[d_step], &mut scores[2 * step + half]);
                    }
                }
            }
        }
        scores
    }

    /// Hides the keys of `split` that a query does not see.
    #[inline(always)]
    pub fn hide(&self, scores: &mut [Acc; TILES], split: u32, lane: u32) {
        for t in 0..TILES {
            for i in 0..ACC {
                let (w, _) = acc_index(lane, i);
                let position = self.position[x_slot(i)];
                let first = first_key(position, self.window);
                let base = split * SPLIT as u32 + (t / 2 * STEP) as u32;
                let key = base + score_key((t % 2) as u32, w);
                if key.wrapping_sub(first) > position - first {
                    scores[t][i] = f32::NEG_INFINITY;
                }
            }
        }
    }
}

/// Adds the values of 32 keys of `split` to `values` `[d tile]`, weighted, if one of `seen` sees
/// them; `page` has the values of their page. Collective.
///
/// # Safety
///
/// The page is readable; on NVIDIA it is in workgroup memory.
#[cfg(not(family = "nvptx"))]
#[inline(always)]
pub unsafe fn add_weighted<const DT: usize>(
    values: &mut [Acc; DT],
    seen: &Seen,
    [split, step]: [u32; 2],
    p: &Operand,
    page: *const u8,
    lane: u32,
) {
    if seen.step(split, step as usize) {
        for t in 0..DT {
            // SAFETY: the caller's promise.
            let v = unsafe { values_operand::<DT>(page, step, t, lane) };
            mma(&v, p, &mut values[t]);
        }
    }
}

/// Sixteen rows of d, from `t * 16` on, of the values of the 32 keys of step `step`, of whose page
/// `page` has the values. Collective.
///
/// # Safety
///
/// The page is readable; on NVIDIA it is in workgroup memory.
#[inline(always)]
unsafe fn values_operand<const DT: usize>(
    page: *const u8,
    step: u32,
    t: usize,
    lane: u32,
) -> Operand {
    let dim = DT * ROWS;
    // SAFETY: in the chunks of these 32 keys.
    unsafe {
        let chunks = page.add(step as usize * STEP % PAGE * dim * 2);
        Operand::columns(chunks.add(t * ROWS * 16), dim * 16, |d| d, lane)
    }
}

/// The weighted values of a split, `[d tile]`, while they are summed from pages of the cache.
///
/// What lies behind the last key that is seen may be anything: its weights are zero, but zero times
/// NaN is NaN. So the step in which that key is, the last one, waits until the others are done, and
/// takes zeros for the values behind. The loop over steps is unrolled, and has no room for that.
pub struct Weighted<const DT: usize> {
    values: [Acc; DT],
    /// The step that waits, if there is one: its operand, and the page with its values.
    last: Option<u32>,
    p: Operand,
    page: *const u8,
}

impl<const DT: usize> Weighted<DT> {
    /// Of no keys.
    pub const EMPTY: Self =
        Self { values: [arch::ZERO; DT], last: None, p: Operand::ZERO, page: core::ptr::null() };

    /// Adds step `step` of 32 keys of `split`, if one of `seen` sees them; `page` has the values of
    /// their page. Collective.
    ///
    /// # Safety
    ///
    /// The page is readable until [`Self::finish`]; on NVIDIA it is in workgroup memory.
    #[inline(always)]
    pub unsafe fn add(
        &mut self,
        seen: &Seen,
        [split, step]: [u32; 2],
        p: &Operand,
        page: *const u8,
        lane: u32,
    ) {
        if seen.ends_in_step(split, step) {
            (self.last, self.p, self.page) = (Some(step), *p, page);
        } else if seen.step(split, step as usize) {
            for t in 0..DT {
                // SAFETY: the caller's promise.
                let v = unsafe { values_operand::<DT>(page, step, t, lane) };
                mma(&v, p, &mut self.values[t]);
            }
        }
    }

    /// The sum. Collective.
    ///
    /// # Safety
    ///
    /// The pages of all steps are readable.
    #[inline(always)]
    pub unsafe fn finish(mut self, seen: &Seen, split: u32, lane: u32) -> [Acc; DT] {
        if let Some(step) = self.last {
            let keys = seen.last[1] + 1 - (split * SPLIT as u32 + step * STEP as u32);
            for t in 0..DT {
                // SAFETY: the caller's promise.
                let mut v = unsafe { values_operand::<DT>(self.page, step, t, lane) };
                v.truncate(keys, lane);
                mma(&v, &self.p, &mut self.values[t]);
            }
        }
        self.values
    }
}

/// Where the output of one query row begins: token row and first column.
#[inline(always)]
pub fn output(row: u32, kv_head: u32, group: u32, dim: usize) -> (usize, usize) {
    let head = kv_head * group + row % group;
    ((row / group) as usize, head as usize * dim)
}
