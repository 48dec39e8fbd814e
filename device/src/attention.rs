//! Attention with sinks, sliding windows and grouped queries over the paged cache.
//!
//! `out = sum_t p_t v_t`, `p_t = exp(q·k_t * scale) / (exp(sink) + sum exp(q·k_t * scale))` over
//! the positions `t` a query sees. Scores are one chain of tile products over d in f32; `exp` is
//! `exp2` of scores scaled by `scale` (which includes log2 e); probabilities are rounded to bf16
//! for the product with V and summed unrounded.
//!
//! Keys are taken in tiles of 32 at multiples of 32, and summed in splits at multiples of
//! [`SPLIT`]: an online softmax within a split, then splits merged in ascending order. Both ways
//! to compute a query do exactly that. `attention_split_*` gives each split to a wave, for few
//! queries with long contexts, and `attention_merge_*` merges; `attention_whole_*` walks through
//! all splits of a query tile. What a query does not see changes nothing, bit for bit: its
//! probabilities are zero and its maximum stays. So the result depends on neither the kernel, nor
//! the chunk a query came in.

use shared::block::{BLOCK_BYTES, ROWS, STEP, tiled_index};
use shared::kernels::attention::*;
use shared::kv::{KEYS, PAGE, SPLIT};

use crate::arch::{self, exp2, fma, max, pack_bf16, rcp};
use crate::product::{Rows, lane_rows, tiled_row};
use crate::tile::{
    ACC, Acc, LANE_ROWS, Operand, X_SLOTS, acc_index, lane_row, mma, over_w, probabilities,
    score_key, x_slot,
};

/// What all tiles of a launch share.
#[derive(Clone, Copy)]
struct Launch {
    q: *const u8,
    pages: *const u8,
    table: *const u32,
    positions: *const u32,
    rows: u32,
    group: u32,
    kv_heads: u32,
    window: u32,
    scale: f32,
}

/// A run of query rows of one sequence and one KV head.
#[derive(Clone, Copy)]
struct Tile {
    kv_head: u32,
    first: u32,
    count: u32,
    table: *const u32,
}

impl Tile {
    /// Entry `index` of the tile list, for `kv_head`.
    ///
    /// # Safety
    ///
    /// The list has that entry.
    #[inline(always)]
    unsafe fn load(tiles: *const u32, index: u32, kv_head: u32, table: *const u32) -> Self {
        // SAFETY: entries are three words; the third is an index into the table.
        unsafe {
            let entry = tiles.add((index * TILE_WORDS) as usize);
            let table = table.add(*entry.add(2) as usize);
            Self { kv_head, first: *entry, count: *entry.add(1), table }
        }
    }

    /// Query row `row`, of which those past the last repeat it.
    #[inline(always)]
    fn row(&self, row: u32) -> u32 {
        self.first + row.min(self.count - 1)
    }
}

/// An online softmax of the queries of one 16-row tile: for each of the lane's queries the
/// largest score, the sum of exponentials, and the weighted values `[d tile]`.
#[derive(Clone, Copy)]
struct Softmax<const DT: usize> {
    max: [f32; X_SLOTS],
    sum: [f32; X_SLOTS],
    values: [Acc; DT],
}

impl<const DT: usize> Softmax<DT> {
    const EMPTY: Self =
        Self { max: [f32::NEG_INFINITY; X_SLOTS], sum: [0.0; X_SLOTS], values: [arch::ZERO; DT] };

    /// Adds 32 keys: their scores, in the order of [`score_key`], and V.
    ///
    /// # Safety
    ///
    /// `values` points to the block of d tile 0; those of the next d tiles follow at
    /// `PAGE / STEP` blocks. Collective.
    #[inline(always)]
    unsafe fn add(&mut self, scores: [Acc; 2], values: *const u8, lane: u32) {
        let mut top = self.max;
        for i in 0..2 * ACC {
            let slot = x_slot(i % ACC);
            top[slot] = max(top[slot], scores[i / ACC][i % ACC]);
        }
        let mut shrink = [1.0; X_SLOTS];
        let mut base = [0.0; X_SLOTS];
        for slot in 0..X_SLOTS {
            let all = over_w(top[slot], max);
            // A query that has seen nothing yet keeps its empty state: 2^(-inf - 0) = 0.
            base[slot] = if all == f32::NEG_INFINITY { 0.0 } else { all };
            shrink[slot] = exp2(self.max[slot] - base[slot]);
            self.max[slot] = all;
        }
        let mut p = scores;
        let mut sum = [0.0; X_SLOTS];
        for i in 0..2 * ACC {
            let slot = x_slot(i % ACC);
            let e = exp2(scores[i / ACC][i % ACC] - base[slot]);
            p[i / ACC][i % ACC] = e;
            sum[slot] += e;
        }
        for slot in 0..X_SLOTS {
            let sum = over_w(sum[slot], |a, b| a + b);
            self.sum[slot] = fma(self.sum[slot], shrink[slot], sum);
        }
        let p = probabilities(p);
        for tile in 0..DT {
            for i in 0..ACC {
                self.values[tile][i] *= shrink[x_slot(i)];
            }
            // SAFETY: the caller's promise.
            let v = unsafe { Operand::load(values.add(tile * PAGE / STEP * BLOCK_BYTES), lane) };
            mma(&v, &p, &mut self.values[tile]);
        }
    }

    /// Appends the softmax of later keys.
    #[inline(always)]
    fn merge(&mut self, part: &Self) {
        let mut factors = [(1.0, 0.0); X_SLOTS];
        for slot in 0..X_SLOTS {
            let m = Merge::new(self.max[slot], part.max[slot]);
            self.sum[slot] = m.apply(self.sum[slot], part.sum[slot]);
            self.max[slot] = m.max;
            factors[slot] = (m.old, m.new);
        }
        for tile in 0..DT {
            for i in 0..ACC {
                let (old, new) = factors[x_slot(i)];
                let merged = Merge { max: 0.0, old, new };
                self.values[tile][i] = merged.apply(self.values[tile][i], part.values[tile][i]);
            }
        }
    }
}

/// How two parts of one query's softmax are brought to the same maximum.
#[derive(Clone, Copy)]
struct Merge {
    max: f32,
    old: f32,
    new: f32,
}

impl Merge {
    #[inline(always)]
    fn new(old: f32, new: f32) -> Self {
        let all = max(old, new);
        if new == f32::NEG_INFINITY {
            return Self { max: old, old: 1.0, new: 0.0 };
        }
        Self { max: all, old: exp2(old - all), new: exp2(new - all) }
    }

    #[inline(always)]
    fn apply(self, old: f32, new: f32) -> f32 {
        fma(old, self.old, new * self.new)
    }
}

/// Scores and values of one split for 16 query rows.
struct Split<'a, const DS: usize> {
    launch: &'a Launch,
    tile: &'a Tile,
    /// Query operands by d step.
    q: [Operand; DS],
    /// Position of each of the lane's queries.
    position: [u32; X_SLOTS],
}

impl<'a, const DS: usize> Split<'a, DS> {
    /// The 16 query rows from tile row `row0` on.
    ///
    /// # Safety
    ///
    /// The launch contract: the tile's rows exist.
    #[inline(always)]
    unsafe fn new(launch: &'a Launch, tile: &'a Tile, row0: u32, lane: u32) -> Self {
        let query_rows = launch.rows * launch.group;
        // SAFETY: each head's queries are padded to whole row tiles.
        let (q, positions) = unsafe {
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
            let mut positions = [0; X_SLOTS];
            for i in 0..ACC {
                let (_, x) = acc_index(lane, i);
                let row = tile.row(row0 + x) / launch.group;
                positions[x_slot(i)] = *launch.positions.add(row as usize);
            }
            (q, positions)
        };
        Self { launch, tile, q, position: positions }
    }

    /// The softmax over split `split`, of which keys in `from..to` are looked at.
    ///
    /// # Safety
    ///
    /// Pages of `from..to` are in the table. Collective.
    #[inline(always)]
    unsafe fn softmax<const DT: usize>(&self, from: u32, to: u32, lane: u32) -> Softmax<DT> {
        const KEY_TILES: u32 = (PAGE / ROWS) as u32;
        let (launch, tile) = (self.launch, self.tile);
        let key_blocks = KEY_TILES as usize * DS;
        let head = tile.kv_head as usize * key_blocks * BLOCK_BYTES;
        let part = launch.kv_heads as usize * key_blocks * BLOCK_BYTES;
        let mut state = Softmax::<DT>::EMPTY;
        let mut start = from / KEYS as u32 * KEYS as u32;
        while start < to {
            let within = start % PAGE as u32;
            // SAFETY: the page is in the table, and holds all its heads' blocks.
            let (keys, values) = unsafe {
                let page = *tile.table.add((start / PAGE as u32) as usize) as usize;
                let keys = launch.pages.add(page * 2 * part + head);
                let values = keys.add(part + (within / KEYS as u32) as usize * BLOCK_BYTES);
                (keys, values)
            };
            let mut scores = [arch::ZERO; 2];
            for t in 0..2 {
                let mut rows: Rows = [core::ptr::null(); LANE_ROWS];
                for i in 0..LANE_ROWS {
                    let key = within + score_key(t as u32, lane_row(lane, i));
                    let block = (key / ROWS as u32) as usize * DS * BLOCK_BYTES;
                    // SAFETY: within the page's keys of this head.
                    rows[i] = unsafe { keys.add(block + (key % ROWS as u32) as usize * 16) };
                }
                for step in 0..DS {
                    let mut at = rows;
                    for row in &mut at {
                        // SAFETY: the next block of the same key.
                        *row = unsafe { row.add(step * BLOCK_BYTES) };
                    }
                    // SAFETY: rows of one block each.
                    let k = unsafe { Operand::gather(at, lane) };
                    mma(&k, &self.q[step], &mut scores[t]);
                }
            }
            for i in 0..2 * ACC {
                let (w, _) = acc_index(lane, i % ACC);
                let key = start + score_key((i / ACC) as u32, w);
                let position = self.position[x_slot(i % ACC)];
                let hidden =
                    key > position || launch.window != 0 && key + launch.window <= position;
                let score = &mut scores[i / ACC][i % ACC];
                *score = if hidden { f32::NEG_INFINITY } else { *score * launch.scale };
            }
            // SAFETY: values of these keys; the blocks of d tiles follow each other.
            unsafe { state.add(scores, values, lane) };
            start += KEYS as u32;
        }
        state
    }
}

/// Positions from the first one `position` sees to itself.
#[inline(always)]
fn first_key(position: u32, window: u32) -> u32 {
    if window == 0 { 0 } else { (position + 1).saturating_sub(window) }
}

/// Divides by the sum with the sink: the factor of the values.
#[inline(always)]
fn normaliser(top: f32, sum: f32, sink: f32) -> f32 {
    let sink = sink * core::f32::consts::LOG2_E;
    let all = max(top, sink);
    let scale = exp2(top - all);
    scale * rcp(fma(sum, scale, exp2(sink - all)))
}

/// Where the output of one query row begins: token row and first column.
#[inline(always)]
fn output(row: u32, kv_head: u32, group: u32, dim: usize) -> (usize, usize) {
    let head = kv_head * group + row % group;
    ((row / group) as usize, head as usize * dim)
}

#[inline(always)]
unsafe fn split<const DS: usize, const DT: usize>(
    launch: Launch,
    tiles: *const u32,
    parts: *mut f32,
    splits: u32,
) {
    let lane = arch::lane();
    // SAFETY: the grid has one workgroup per tile.
    unsafe {
        let tile = Tile::load(tiles, arch::workgroup_id_z(), arch::workgroup_id_y(), launch.table);
        let position = |row: u32| *launch.positions.add((tile.row(row) / launch.group) as usize);
        let (first, last) = (position(0), position(tile.count - 1));
        let split = first_split(first, launch.window) + arch::workgroup_id_x();
        let (start, end) = (split * SPLIT as u32, (split + 1) * SPLIT as u32);
        if start > last {
            return;
        }
        let from = first_key(first, launch.window).max(start);
        let queries = Split::<DS>::new(&launch, &tile, 0, lane);
        let state = queries.softmax::<DT>(from, end.min(last + 1), lane);

        let len = part_len((DT * ROWS) as u32) as usize;
        for i in 0..ACC {
            let (w, x) = acc_index(lane, i);
            let own = queries.position[x_slot(i)];
            let own_first = first_split(own, launch.window);
            if x >= tile.count || split < own_first || start > own {
                continue;
            }
            let row = (tile.row(x) * launch.kv_heads + tile.kv_head) as usize;
            let part = parts.add((row * splits as usize + (split - own_first) as usize) * len);
            if w == 0 {
                *part = state.max[x_slot(i)];
                *part.add(1) = state.sum[x_slot(i)];
            }
            for t in 0..DT {
                *part.add(2 + t * ROWS + w as usize) = state.values[t][i];
            }
        }
    }
}

#[inline(always)]
unsafe fn merge<const DT: usize>(
    parts: *const f32,
    positions: *const u32,
    sinks: *const f32,
    out: *mut u16,
    kv_heads: u32,
    group: u32,
    splits: u32,
    window: u32,
) {
    let (row, kv_head) = (arch::workgroup_id_x(), arch::workgroup_id_y());
    let dim = DT * ROWS;
    let len = part_len(dim as u32) as usize;
    // SAFETY: the grid's rows exist; each has a part for every split it sees.
    unsafe {
        let position = *positions.add((row / group) as usize);
        let count = position / SPLIT as u32 + 1 - first_split(position, window);
        let at = (row * kv_heads + kv_head) as usize;
        let parts = parts.add(at * splits as usize * len);
        let (token, col) = output(row, kv_head, group, dim);
        let steps = (kv_heads * group) as usize * dim / STEP;
        let sink = *sinks.add((kv_head * group + row % group) as usize);
        let mut d = arch::lane() as usize;
        while d < dim {
            let (mut top, mut sum, mut value) = (f32::NEG_INFINITY, 0.0, 0.0);
            for split in 0..count as usize {
                let part = parts.add(split * len);
                let m = Merge::new(top, *part);
                sum = m.apply(sum, *part.add(1));
                value = m.apply(value, *part.add(2 + d));
                top = m.max;
            }
            let value = value * normaliser(top, sum, sink);
            *out.add(tiled_index(token, col + d, steps)) = pack_bf16(value, 0.0) as u16;
            d += arch::WAVE as usize;
        }
    }
}

#[inline(always)]
unsafe fn whole<const DS: usize, const DT: usize>(
    launch: Launch,
    tiles: *const u32,
    sinks: *const f32,
    out: *mut u16,
) {
    let lane = arch::lane();
    // SAFETY: the grid has one workgroup per tile; a wave without rows leaves before it reads.
    unsafe {
        let tile = Tile::load(tiles, arch::workgroup_id_y(), arch::workgroup_id_x(), launch.table);
        let row0 = arch::wave_id() * ROWS as u32;
        if row0 >= tile.count {
            return;
        }
        let position = |row: u32| *launch.positions.add((tile.row(row) / launch.group) as usize);
        let from = first_key(position(row0), launch.window);
        let last = position(row0 + ROWS as u32 - 1);
        let queries = Split::<DS>::new(&launch, &tile, row0, lane);
        let mut state = Softmax::<DT>::EMPTY;
        for split in from / SPLIT as u32..=last / SPLIT as u32 {
            let (start, end) = (split * SPLIT as u32, (split + 1) * SPLIT as u32);
            state.merge(&queries.softmax::<DT>(from.max(start), end.min(last + 1), lane));
        }

        let dim = DT * ROWS;
        let steps = (launch.kv_heads * launch.group) as usize * dim / STEP;
        for i in 0..ACC {
            let (w, x) = acc_index(lane, i);
            if row0 + x >= tile.count {
                continue;
            }
            let row = tile.row(row0 + x);
            let (token, col) = output(row, tile.kv_head, launch.group, dim);
            let sink = *sinks.add((tile.kv_head * launch.group + row % launch.group) as usize);
            let scale = normaliser(state.max[x_slot(i)], state.sum[x_slot(i)], sink);
            for t in 0..DT {
                let at = tiled_index(token, col + t * ROWS + w as usize, steps);
                *out.add(at) = pack_bf16(state.values[t][i] * scale, 0.0) as u16;
            }
        }
    }
}

macro_rules! kernels {
    ($($split:ident $merge:ident $whole:ident, $dim:literal;)*) => {$(
        const _: $split::Signature = $split;
        const _: $merge::Signature = $merge;
        const _: $whole::Signature = $whole;

        #[doc = concat!("`", stringify!($split), "` of the table.")]
        ///
        /// # Safety
        ///
        /// The launch contract of the table: tiles are runs of existing query rows of one
        /// sequence, at most 16, whose visible positions have pages in the table.
        #[unsafe(no_mangle)]
        pub unsafe extern "gpu-kernel" fn $split(
            q: *const u8,
            pages: *const u8,
            table: *const u32,
            tiles: *const u32,
            positions: *const u32,
            parts: *mut f32,
            rows: u32,
            kv_heads: u32,
            group: u32,
            splits: u32,
            window: u32,
            scale: f32,
        ) {
            let launch =
                Launch { q, pages, table, positions, rows, group, kv_heads, window, scale };
            // SAFETY: the kernel's contract.
            unsafe { split::<{ $dim / STEP }, { $dim / ROWS }>(launch, tiles, parts, splits) }
        }

        #[doc = concat!("`", stringify!($merge), "` of the table.")]
        ///
        /// # Safety
        ///
        /// The launch contract of the table: every row of the grid has its parts.
        #[unsafe(no_mangle)]
        pub unsafe extern "gpu-kernel" fn $merge(
            parts: *const f32,
            positions: *const u32,
            sinks: *const f32,
            out: *mut u16,
            kv_heads: u32,
            group: u32,
            splits: u32,
            window: u32,
        ) {
            // SAFETY: the kernel's contract.
            unsafe {
                merge::<{ $dim / ROWS }>(
                    parts, positions, sinks, out, kv_heads, group, splits, window,
                )
            }
        }

        #[doc = concat!("`", stringify!($whole), "` of the table.")]
        ///
        /// # Safety
        ///
        /// The launch contract of the table: tiles are runs of existing query rows of one
        /// sequence, at most 64, whose visible positions have pages in the table.
        #[unsafe(no_mangle)]
        pub unsafe extern "gpu-kernel" fn $whole(
            q: *const u8,
            pages: *const u8,
            table: *const u32,
            tiles: *const u32,
            positions: *const u32,
            sinks: *const f32,
            out: *mut u16,
            rows: u32,
            kv_heads: u32,
            group: u32,
            window: u32,
            scale: f32,
        ) {
            let launch =
                Launch { q, pages, table, positions, rows, group, kv_heads, window, scale };
            // SAFETY: the kernel's contract.
            unsafe { whole::<{ $dim / STEP }, { $dim / ROWS }>(launch, tiles, sinks, out) }
        }
    )*};
}

kernels! {
    attention_split_32 attention_merge_32 attention_whole_32, 32;
    attention_split_64 attention_merge_64 attention_whole_64, 64;
}
