//! Pages on Hopper: the copy engine brings a head's keys or values of a page to workgroup memory
//! with one instruction.
//!
//! For many queries, three groups of four waves multiply 64 rows each with `wgmma`: queries and
//! probabilities come from registers, keys and values from a ring of splits that all share. One
//! thread keeps the ring filled. While one group multiplies, others take exponentials.

use shared::block::ROWS;
use shared::kernels::attention::{WHOLE_STAGES, WHOLE_WAVES};
use shared::kv::head_len;

use super::queries::{Launch, PAGES, Pages, Queries, Tile, page_numbers};
use super::softmax::{STEPS, Softmax, State, TILES};
use super::wgmma;
use crate::arch::hopper::{Barrier, barriers_made, wave_barrier};
use crate::arch::{self, workgroup_barrier};
use crate::tile::Operand;

/// A split's pages, on their way to the workgroup memory of a wave.
pub struct Fetch {
    pages: Pages,
    keys: Barrier,
    values: Barrier,
}

impl Fetch {
    /// Sends for them.
    ///
    /// # Safety
    ///
    /// The pages are readable; the workgroup is one wave with `split_lds` of workgroup memory.
    #[inline(always)]
    pub unsafe fn start(pages: Pages, dim: usize, lane: u32) -> Self {
        let memory: *mut u8 = arch::workgroup_memory();
        let head = head_len(dim) * 2;
        // SAFETY: the split, then two barriers.
        let (staged, keys, values) = unsafe {
            let barriers = memory.add(2 * PAGES * head);
            (Pages::staged(memory, dim), Barrier::at(barriers), Barrier::at(barriers.add(8)))
        };
        if lane == 0 {
            keys.init(1);
            values.init(1);
            barriers_made();
            // SAFETY: the caller's promise; each part has its place.
            unsafe {
                send(keys, &pages.keys, memory, head);
                send(values, &pages.values, memory.add(PAGES * head), head);
            }
        }
        wave_barrier(); // no lane waits on a barrier before it exists
        Self { pages: staged, keys, values }
    }

    /// The pages, once keys are there.
    #[inline(always)]
    pub fn keys(&self) -> &Pages {
        self.keys.wait(0);
        &self.pages
    }

    /// The pages, once values are there.
    #[inline(always)]
    pub fn values(&self) -> &Pages {
        self.values.wait(0);
        &self.pages
    }
}

/// Has parts of `bytes` each copied one after the other to `to`.
///
/// # Safety
///
/// As [`Barrier::copy`], for each.
#[inline(always)]
unsafe fn send(barrier: Barrier, parts: &[*const u8; PAGES], to: *mut u8, bytes: usize) {
    barrier.expect((PAGES * bytes) as u32);
    for i in 0..PAGES {
        // SAFETY: the caller's promise.
        unsafe { barrier.copy(to.add(i * bytes), parts[i], bytes as u32) };
    }
}

/// The merged splits of the wave's rows of a tile. Collective over the workgroup.
///
/// # Safety
///
/// The launch contract of `attention_whole_*`.
#[inline(always)]
pub unsafe fn whole<const DS: usize, const DT: usize>(launch: &Launch, tile: &Tile) -> State<DT> {
    const STAGES: u32 = WHOLE_STAGES as u32;
    /// Rows of four waves.
    const GROUP_ROWS: u32 = 4 * ROWS as u32;
    let (lane, dim) = (arch::lane(), DT * ROWS);
    let row0 = arch::wave_id() * ROWS as u32;
    let group = row0 / GROUP_ROWS;
    let head = head_len(dim) * 2;
    let stage_bytes = 2 * PAGES * head;
    let memory: *mut u8 = arch::workgroup_memory();
    // SAFETY: one of the stages.
    let stage_of = |stage: u32| unsafe { memory.add(stage as usize * stage_bytes) };
    let [full, empty] = [0, 1].map(|i| {
        // SAFETY: behind the stages; two barriers for each.
        let barriers = unsafe { memory.add(STAGES as usize * (stage_bytes + i * 8)) };
        // SAFETY: likewise.
        move |stage: u32| unsafe { Barrier::at(barriers.add(stage as usize * 8)) }
    });
    let filler = arch::thread_id() == 0;
    if filler {
        for stage in 0..STAGES {
            full(stage).init(1);
            empty(stage).init(WHOLE_WAVES);
        }
        barriers_made();
    }
    workgroup_barrier(); // nobody uses a barrier before it exists

    let mut state = State::EMPTY;
    // SAFETY: the tile's rows exist; workgroup memory holds the stages; what a product reads stays
    // until every wave has arrived at `empty`.
    unsafe {
        let all = tile.sees(launch.window, 0, tile.count - 1);
        let groups = tile.sees(launch.window, group * GROUP_ROWS, (group + 1) * GROUP_ROWS - 1);
        let own = tile.sees(launch.window, row0, row0 + ROWS as u32 - 1);
        let queries = Queries::<DS>::new(launch, tile, row0, lane);
        let [first, last] = all.splits();
        let [group_first, group_last] = groups.splits();
        let works = group * GROUP_ROWS < tile.count;
        // The pages of the split to be filled next are known a round before they are needed.
        let mut next = first;
        let mut numbers = page_numbers(tile, &all, next);
        let mut fill = || {
            if filler && next <= last {
                let (stage, round) = ((next - first) % STAGES, (next - first) / STAGES);
                if round > 0 {
                    empty(stage).wait(round - 1);
                }
                let pages = Pages::new(launch, tile, dim, numbers);
                full(stage).expect(stage_bytes as u32);
                for i in 0..2 * PAGES {
                    let from = if i < PAGES { pages.keys[i] } else { pages.values[i - PAGES] };
                    full(stage).copy(stage_of(stage).add(i * head), from, head as u32);
                }
                next += 1;
                numbers = page_numbers(tile, &all, next.min(last));
            }
            wave_barrier();
        };
        for _ in 0..STAGES - 1 {
            fill();
        }

        for split in first..=last {
            fill();
            let (stage, round) = ((split - first) % STAGES, (split - first) / STAGES);
            // All wait, those with nothing to do too: an arrival belongs to the round it is made in.
            full(stage).wait(round);
            if works && group_first <= split && split <= group_last {
                let keys = stage_of(stage).cast_const();
                let mut scores = [arch::ZERO; TILES];
                wgmma::scores(&mut scores, &queries.q, keys);
                wgmma::wait(&mut scores);
                if own.hides(split) {
                    queries.hide(&mut scores, split, lane);
                }
                let mut p = [Operand::ZERO; STEPS];
                let softmax = Softmax::new(&scores, launch.scale, |step, operand| {
                    p[step] = *operand;
                });
                let mut values = [arch::ZERO; DT];
                wgmma::weighted(&mut values, &p, keys.add(PAGES * head));
                wgmma::wait(&mut values);
                state.merge(softmax, &values);
            }
            if lane == 0 {
                empty(stage).arrive();
            }
        }
    }
    state
}
