//! Pages on AMD: read where they lie for few queries, staged in workgroup memory for many.
//!
//! A workgroup's twelve waves share one split at a time. It leaves room for other workgroups on the
//! same compute unit, which multiply while this one waits.

use shared::block::{CHUNK, ROWS, STEP};
use shared::kernels::attention::WHOLE_WAVES;
use shared::kv::{PAGE, head_len};

use super::queries::{Launch, PAGES, Pages, Queries, Tile, add_weighted, page_numbers};
use super::softmax::{Softmax, State};
use crate::arch::{
    self, copy_async_16, copy_commit, copy_wait, load_16, store_16, workgroup_barrier,
};
use crate::tile::truncate_chunk;

/// A split's pages, on their way to a wave.
pub struct Fetch(Pages);

impl Fetch {
    /// Nothing to start: operands are loaded from the cache.
    ///
    /// # Safety
    ///
    /// The pages are readable.
    #[inline(always)]
    pub unsafe fn start(pages: Pages, _dim: usize, _lane: u32) -> Self {
        Self(pages)
    }

    /// The keys by page.
    #[inline(always)]
    pub fn keys(&self) -> [*const u8; PAGES] {
        self.0.keys
    }

    /// Ends the use of the keys: nothing to do.
    #[inline(always)]
    pub fn keys_read(&self, _lane: u32) {}

    /// The values of a page.
    #[inline(always)]
    pub fn values(&self, page: usize) -> *const u8 {
        self.0.values[page]
    }
}

/// The merged splits of the wave's rows of a tile. Collective over the workgroup.
///
/// # Safety
///
/// The launch contract of `attention_whole_*`.
#[inline(always)]
pub unsafe fn whole<const DS: usize, const DT: usize>(launch: &Launch, tile: &Tile) -> State<DT> {
    let (lane, dim) = (arch::lane(), DT * ROWS);
    let row0 = arch::wave_id() * ROWS as u32;
    let memory: *mut u8 = arch::workgroup_memory();
    let mut state = State::EMPTY;
    // SAFETY: the tile's rows exist; workgroup memory holds a split.
    unsafe {
        let all = tile.sees(launch.window, 0, tile.count - 1);
        let own = tile.sees(launch.window, row0, row0 + ROWS as u32 - 1);
        // Keys, then values.
        let staged = |part: usize| memory.add(part * head_len(dim) * 2).cast_const();
        let keys = [staged(0), staged(1)];
        let [first, last] = all.splits();
        let [own_first, own_last] = own.splits();
        for split in first..=last {
            let numbers = page_numbers(tile, &all, split);
            workgroup_barrier(); // nobody reads the split before any more
            stage(&Pages::new(launch, tile, dim, numbers), memory, dim, all.ends_in(split));
            // Loaded for every split: to keep them would cost registers, and with them waves.
            let queries = Queries::<DS>::new(launch, tile, row0, lane);
            copy_wait::<0>();
            workgroup_barrier(); // the split is whole
            if row0 >= tile.count || split < own_first || split > own_last {
                continue;
            }
            let mut scores = queries.scores(&own, split, keys, lane);
            if own.hides(split) {
                queries.hide(&mut scores, split, lane);
            }
            let mut values = [arch::ZERO; DT];
            let softmax = Softmax::new(&scores, launch.scale, |step, p| {
                let page = staged(PAGES + step * STEP / PAGE);
                add_weighted(&mut values, &own, [split, step as u32], p, page, lane);
            });
            state.merge(softmax, &values);
        }
    }
    state
}

/// Copies a split to workgroup memory, every thread its share; of values behind the first `keys`, if
/// that is said, zeros, whatever they are: their weights are zero, but zero times NaN is NaN.
///
/// # Safety
///
/// The pages are readable; the memory holds a split, and nobody uses it.
#[inline(always)]
unsafe fn stage(pages: &Pages, memory: *mut u8, dim: usize, keys: Option<u32>) {
    const THREADS: usize = (WHOLE_WAVES * arch::WAVE) as usize;
    let head = head_len(dim) * 2;
    let parts = [pages.keys, pages.values];
    for i in 0..2 * PAGES {
        let from = parts[i / PAGES][i % PAGES];
        let mut at = arch::thread_id() as usize * 16;
        while at < head {
            // SAFETY: the caller's promise.
            unsafe {
                let (to, from) = (memory.add(i * head + at), from.add(at));
                match keys {
                    Some(keys) if i >= PAGES => {
                        // Chunks of eight keys, `dim` to a column.
                        let first = (i - PAGES) * PAGE + at / 16 / dim * CHUNK;
                        store_16(to, truncate_chunk(load_16(from), first as u32, keys));
                    }
                    _ => copy_async_16(to, from),
                }
            }
            at += THREADS * 16;
        }
    }
    copy_commit();
}
