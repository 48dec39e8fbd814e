//! Pages on Hopper: the copy engine brings a head's keys or values of a page to workgroup memory
//! with one instruction.
//!
//! For many queries, three groups of four waves multiply 64 rows each with `wgmma`: queries and
//! probabilities come from registers, keys and values from a ring of splits that all share. One
//! thread keeps the ring filled. While one group multiplies, others take exponentials.

use shared::block::{CHUNK, ROWS};
use shared::kernels::attention::{WHOLE_STAGES, WHOLE_WAVES};
use shared::kv::{SPLIT, head_len};

use super::queries::{Launch, PAGES, Pages, Queries, Seen, Tile, page_numbers};
use super::softmax::{STEPS, Softmax, State, TILES};
use super::wgmma;
use crate::arch::hopper::{Barrier, barriers_made, fence_async, wait_products, wave_barrier};
use crate::arch::{self, workgroup_barrier};
use crate::tile::{Acc, Operand, truncate_chunk};

/// A split's pages, on their way to the workgroup memory of a wave. The values of the last page take
/// the place of the keys: a quarter less memory, a third more waves.
pub struct Fetch {
    memory: *mut u8,
    /// Bytes of a head's keys or values of a page.
    head: usize,
    from: Pages,
    keys: Barrier,
    values: [Barrier; PAGES],
}

impl Fetch {
    /// Sends for them.
    ///
    /// # Safety
    ///
    /// The pages are readable; the workgroup is one wave with `split_lds` of workgroup memory.
    #[inline(always)]
    pub unsafe fn start(from: Pages, dim: usize, lane: u32) -> Self {
        let memory: *mut u8 = arch::workgroup_memory();
        let head = head_len(dim) * 2;
        // SAFETY: all parts but one, then the barriers.
        let barrier = |i: usize| unsafe { Barrier::at(memory.add((2 * PAGES - 1) * head + i * 8)) };
        let fetch = Self { memory, head, from, keys: barrier(0), values: [barrier(1), barrier(2)] };
        if lane == 0 {
            fetch.keys.init(1);
            fetch.values[0].init(1);
            fetch.values[1].init(1);
            barriers_made();
            fetch.keys.expect((PAGES * head) as u32);
            // SAFETY: the caller's promise; each part has its place.
            unsafe {
                for i in 0..PAGES {
                    fetch.keys.copy(memory.add(i * head), from.keys[i], head as u32);
                }
                fetch.send_values(0);
            }
        }
        wave_barrier(); // no lane waits on a barrier before it exists
        fetch
    }

    /// # Safety
    ///
    /// Nobody uses the place of these values.
    #[inline(always)]
    unsafe fn send_values(&self, page: usize) {
        self.values[page].expect(self.head as u32);
        // SAFETY: the caller's promise.
        unsafe {
            self.values[page].copy(self.place(page), self.from.values[page], self.head as u32);
        }
    }

    #[inline(always)]
    fn place(&self, page: usize) -> *mut u8 {
        // SAFETY: behind the keys, and in place of the first of them.
        unsafe { self.memory.add((page + PAGES) % (2 * PAGES - 1) * self.head) }
    }

    /// The keys by page, once they are there.
    #[inline(always)]
    pub fn keys(&self) -> [*const u8; PAGES] {
        self.keys.wait(0);
        // SAFETY: the first parts.
        unsafe { [self.memory, self.memory.add(self.head)] }
    }

    /// Ends the use of the keys. Collective.
    #[inline(always)]
    pub fn keys_read(&self, lane: u32) {
        wave_barrier();
        if lane == 0 {
            fence_async();
            // SAFETY: every lane has read its keys.
            unsafe { self.send_values(1) };
        }
    }

    /// The values of a page, once they are there.
    #[inline(always)]
    pub fn values(&self, page: usize) -> *const u8 {
        self.values[page].wait(0);
        self.place(page)
    }
}

/// Stages of workgroup memory that hold a split each, and the barriers that say which is full, and
/// which every wave has done with.
#[derive(Clone, Copy)]
struct Ring {
    memory: *mut u8,
    /// Bytes of a head's keys or values of a page.
    head: usize,
}

impl Ring {
    const STAGES: u32 = WHOLE_STAGES as u32;
    /// Splits on their way, beside the one in use. One less than there are stages: the slowest wave
    /// may be a round behind.
    const AHEAD: u32 = Self::STAGES - 2;

    /// Where the keys of `stage` lie, then its values.
    #[inline(always)]
    fn stage(&self, stage: u32) -> *mut u8 {
        // SAFETY: one of the stages.
        unsafe { self.memory.add(stage as usize * 2 * PAGES * self.head) }
    }

    #[inline(always)]
    fn barrier(&self, index: u32) -> Barrier {
        // SAFETY: behind the stages; two for each.
        unsafe { Barrier::at(self.stage(Self::STAGES).add(index as usize * 8)) }
    }

    #[inline(always)]
    fn full(&self, stage: u32) -> Barrier {
        self.barrier(stage)
    }

    #[inline(always)]
    fn empty(&self, stage: u32) -> Barrier {
        self.barrier(Self::STAGES + stage)
    }

    /// Makes the barriers. Collective over the workgroup.
    #[inline(always)]
    fn make(&self) {
        if arch::thread_id() == 0 {
            for stage in 0..Self::STAGES {
                self.full(stage).init(1);
                self.empty(stage).init(WHOLE_WAVES);
            }
            barriers_made();
        }
        workgroup_barrier(); // nobody uses a barrier before it exists
    }

    /// Sends for a split.
    ///
    /// # Safety
    ///
    /// The pages are readable, and nobody uses the stage.
    #[inline(always)]
    unsafe fn send(&self, stage: u32, pages: &Pages) {
        let full = self.full(stage);
        full.expect((2 * PAGES * self.head) as u32);
        for i in 0..2 * PAGES {
            let from = if i < PAGES { pages.keys[i] } else { pages.values[i - PAGES] };
            // SAFETY: the caller's promise; each part has its place.
            unsafe {
                full.copy(self.stage(stage).add(i * self.head), from, self.head as u32);
            }
        }
    }
}

/// The merged splits of the wave's rows of a tile. Collective over the workgroup.
///
/// # Safety
///
/// The launch contract of `attention_whole_*`.
#[inline(always)]
pub unsafe fn whole<const DS: usize, const DT: usize>(launch: &Launch, tile: &Tile) -> State<DT> {
    /// Rows of four waves.
    const GROUP_ROWS: u32 = 4 * ROWS as u32;
    let (lane, dim) = (arch::lane(), DT * ROWS);
    let ring = Ring { memory: arch::workgroup_memory(), head: head_len(dim) * 2 };
    let all = tile.sees(launch.window, 0, tile.count - 1);
    let [first, last] = all.splits();
    // SAFETY: `all` sees these splits.
    let numbers = |split: u32| unsafe { page_numbers(tile, &all, split.min(last)) };
    // SAFETY: pages that are in the table exist.
    let pages = |numbers| unsafe { Pages::new(launch, tile, dim, numbers) };
    // Page numbers arrive while the barriers are made.
    let thread = arch::thread_id();
    let begin = numbers(first + thread.min(Ring::AHEAD));
    let mut next = numbers(first + Ring::AHEAD);
    ring.make();
    // The first splits, a lane each.
    if thread < Ring::AHEAD && first + thread <= last {
        // SAFETY: stages that nobody has used.
        unsafe { ring.send(thread, &pages(begin)) };
    }
    wave_barrier();
    let row0 = arch::wave_id() * ROWS as u32;
    let group0 = row0 / GROUP_ROWS * GROUP_ROWS;
    let [group_first, group_last] =
        tile.sees(launch.window, group0, group0 + GROUP_ROWS - 1).splits();
    let own = tile.sees(launch.window, row0, row0 + ROWS as u32 - 1);
    // SAFETY: the tile's rows exist.
    let queries = unsafe { Queries::<DS>::new(launch, tile, row0, lane) };
    let mut state = State::EMPTY;
    for split in first..=last {
        let (stage, round) = ((split - first) % Ring::STAGES, (split - first) / Ring::STAGES);
        // All wait, those with nothing to do too: an arrival belongs to the round it is made in.
        ring.full(stage).wait(round);
        if let Some(keys) = all.ends_in(split) {
            let values = ring.stage(stage).wrapping_add(PAGES * ring.head);
            // SAFETY: the stage is full, and nobody has begun with it before the barrier.
            unsafe { truncate_values(values, all.page_start(split), keys, dim) };
            fence_async();
            workgroup_barrier();
        }
        let ahead = split + Ring::AHEAD;
        let ahead_pages = pages(next);
        next = numbers(ahead + 1);
        let fill = || {
            if thread == 0 && ahead <= last {
                let (stage, round) =
                    ((ahead - first) % Ring::STAGES, (ahead - first) / Ring::STAGES);
                if round > 0 {
                    ring.empty(stage).wait(round - 1);
                }
                // SAFETY: every wave has done with the stage.
                unsafe { ring.send(stage, &ahead_pages) };
            }
            wave_barrier();
        };
        if group0 < tile.count && group_first <= split && split <= group_last {
            let keys = ring.stage(stage).cast_const();
            // SAFETY: the stage is full, and stays until every wave has arrived at `empty`.
            let (softmax, values) =
                unsafe { attend(&queries, &own, launch.scale, split, keys, fill) };
            state.merge(softmax, &values);
        } else {
            fill();
        }
        if lane == 0 {
            ring.empty(stage).arrive();
        }
    }
    state
}

/// Replaces the values of the split at `values` by zeros, whatever they are, behind its first `keys`
/// and before `start`, a multiple of a page: see `Weighted`. Where a page is not seen, the one that
/// stands in its place may be the last, with the same positions behind its end. Every thread its
/// share.
///
/// # Safety
///
/// The values of a split are there, in workgroup memory, and nobody uses them.
#[inline(always)]
unsafe fn truncate_values(values: *mut u8, start: u32, keys: u32, dim: usize) {
    // Chunks of eight keys, `dim` to a column.
    let mut chunk = arch::thread_id();
    while chunk < (SPLIT / CHUNK * dim) as u32 {
        let first = chunk / dim as u32 * CHUNK as u32;
        let kept = if first < start { 0 } else { keys };
        if first + CHUNK as u32 > kept {
            // SAFETY: one of the split's chunks.
            unsafe {
                let at = values.add(chunk as usize * 16);
                arch::store_16(at, truncate_chunk(arch::load_16(at), first, kept));
            }
        }
        chunk += WHOLE_WAVES * arch::WAVE;
    }
}

/// One split, whose keys and then values are at `keys`, for the wave's rows: its softmax and its
/// weighted values. `meanwhile` runs while the first product is under way. Collective over four
/// waves.
///
/// # Safety
///
/// The split is in workgroup memory, and stays until this returns.
#[inline(always)]
unsafe fn attend<const DS: usize, const DT: usize>(
    queries: &Queries<DS>,
    own: &Seen,
    scale: f32,
    split: u32,
    keys: *const u8,
    meanwhile: impl FnOnce(),
) -> (Softmax, [Acc; DT]) {
    let mut scores = [arch::ZERO; TILES];
    let mut values = [arch::ZERO; DT];
    // SAFETY: the caller's promise.
    unsafe {
        wgmma::scores(&mut scores, &queries.q, keys);
        meanwhile();
        wait_products(&mut scores);
        if own.hides(split) {
            queries.hide(&mut scores, split, arch::lane());
        }
        let staged = keys.add(PAGES * head_len(DT * ROWS) * 2);
        let mut p = [Operand::ZERO; STEPS / 2];
        let softmax = Softmax::new(&scores, scale, |step, operand| {
            p[step % p.len()] = *operand;
            match step {
                1 => wgmma::weighted::<0, DT>(&mut values, &p, staged),
                3 => wgmma::weighted::<1, DT>(&mut values, &p, staged),
                _ => {}
            }
        });
        wait_products(&mut values);
        (softmax, values)
    }
}
