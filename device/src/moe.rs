//! Mixture of experts: which tokens go to which expert, and the weighted sum that comes back.
//!
//! Deterministic throughout: ties go to the lowest expert, the sort is stable, and the sum over a
//! token's experts runs in the order of their rank. The only atomics count integers in workgroup
//! memory.

use shared::block::{BLOCK_BYTES, CHUNK_STRIDE_BYTES, ROWS};
use shared::kernels::moe::*;

use crate::arch::{
    WAVE, atomic_add, ballot, exp, group_reduce, lane, load_16, rcp, store_16, thread_id,
    workgroup_barrier, workgroup_id_x, workgroup_id_y, workgroup_memory,
};
use crate::choice::Choice;
use crate::product::tiled_row;

const _: moe_route::Signature = moe_route;
const _: moe_sort::Signature = moe_sort;
const _: moe_gather::Signature = moe_gather;
const _: moe_combine::Signature = moe_combine;

/// The kernel; shapes are in the table.
///
/// # Safety
///
/// The launch contract of the table; `top_k <= experts` and at most [`MAX_TOP_K`].
#[unsafe(no_mangle)]
pub unsafe extern "gpu-kernel" fn moe_route(
    logits: *const f32,
    ids: *mut u32,
    weights: *mut f32,
    experts: u32,
    top_k: u32,
) {
    crate::arch::wait_for_earlier();
    let row = workgroup_id_x() as usize;
    // SAFETY: row is below the grid's size.
    let logits = unsafe { logits.add(row * experts as usize) };
    let mut last = Choice { value: f32::INFINITY, index: 0 };
    // Lane k keeps the k-th choice.
    let mut mine = Choice::NONE;
    // A NaN is never chosen: it is looked for.
    let mut nan = false;
    for rank in 0..top_k {
        let mut best = Choice::NONE;
        let mut expert = lane();
        while expert < experts {
            // SAFETY: expert < experts.
            let this = Choice { value: unsafe { *logits.add(expert as usize) }, index: expert };
            nan |= this.value.is_nan();
            if (rank == 0 || last.beats(this)) && this.beats(best) {
                best = this;
            }
            expert += WAVE;
        }
        last = best.best_of_wave();
        if lane() == rank {
            mine = last;
        }
    }
    // Softmax over the choices: every lane past top_k adds exp(-inf) = 0.
    let top = group_reduce::<32>(mine.value, crate::arch::max);
    let e = if lane() < top_k { exp(mine.value - top) } else { 0.0 };
    let sum = group_reduce::<32>(e, |a, b| a + b);
    let weight = if ballot(nan) == 0 { e * rcp(sum) } else { f32::NAN };
    if lane() < top_k {
        let at = row * top_k as usize + lane() as usize;
        // SAFETY: lane < top_k.
        unsafe {
            // With too many NaN logits nothing was chosen: stay in range.
            *ids.add(at) = mine.index.min(experts - 1);
            *weights.add(at) = weight;
        }
    }
}

/// Threads of a workgroup of the sort.
const THREADS: u32 = moe_sort::threads(crate::tile::FAMILY);

/// The kernel; shapes are in the table. Each workgroup places one expert's assignments, counting
/// everybody's to know where they begin: reading the ids again is cheaper than a second launch.
///
/// # Safety
///
/// The launch contract of the table; every id is below `experts`, which is at most
/// [`MAX_EXPERTS`].
#[unsafe(no_mangle)]
pub unsafe extern "gpu-kernel" fn moe_sort(
    ids: *const u32,
    assignment_of: *mut u32,
    slot_of: *mut u32,
    tiles: *mut u32,
    num_tiles: *mut u32,
    assignments: u32,
    experts: u32,
    tile_slots: u32,
    slots: u32,
) {
    crate::arch::wait_for_earlier();
    let counts: *mut u32 = workgroup_memory();
    // SAFETY: the launch passes a word per expert, per thread and per group of threads, and two;
    // the rest is the kernel's contract.
    unsafe {
        let ranks = counts.add(experts as usize);
        let groups = ranks.add(THREADS as usize);
        let before = groups.add((THREADS / SORT_GROUP) as usize);
        let (me, thread) = (workgroup_id_x(), thread_id());
        // Each thread takes a contiguous piece, so that ranks follow the order of assignments.
        let piece = assignments.div_ceil(THREADS);
        let own = [thread * piece, ((thread + 1) * piece).min(assignments)];
        let sort = Sort { ids, counts, ranks, groups, before, experts, me, thread, own };
        sort.clear();
        workgroup_barrier();
        sort.count();
        workgroup_barrier();
        sort.count_before(tile_slots);
        workgroup_barrier();
        let first = sort.list(assignment_of, tiles, num_tiles, tile_slots, slots);
        sort.place(assignment_of, slot_of, first);
    }
}

/// What the threads of a workgroup of the sort share, and what each of them sorts.
#[derive(Clone, Copy)]
struct Sort {
    ids: *const u32,
    /// Assignments of each expert.
    counts: *mut u32,
    /// This expert's assignments among each thread's, then among each group of threads'.
    ranks: *mut u32,
    groups: *mut u32,
    /// Slots, then tiles, of the experts before this one.
    before: *mut u32,
    experts: u32,
    /// This workgroup's expert.
    me: u32,
    thread: u32,
    /// This thread's assignments: from, and to before.
    own: [u32; 2],
}

/// Each step is for all threads of the workgroup, between barriers.
///
/// # Safety
///
/// The kernel's contract, and that of the fields: workgroup memory is as the launch passes it.
impl Sort {
    /// Zeroes the counters.
    #[inline(always)]
    unsafe fn clear(self) {
        let words = self.experts + THREADS + THREADS / SORT_GROUP + 2;
        let mut i = self.thread;
        while i < words {
            // SAFETY: all of the launch's memory.
            unsafe { *self.counts.add(i as usize) = 0 };
            i += THREADS;
        }
    }

    /// Counts every expert's assignments, and this one's by thread and by group of threads.
    #[inline(always)]
    unsafe fn count(self) {
        let mut mine = 0;
        for i in self.own[0]..self.own[1] {
            // SAFETY: i < assignments, and ids are below `experts`.
            unsafe {
                let id = *self.ids.add(i as usize);
                atomic_add(self.counts.add(id as usize), 1);
                mine += u32::from(id == self.me);
            }
        }
        // SAFETY: one word per thread and group.
        unsafe {
            *self.ranks.add(self.thread as usize) = mine;
            atomic_add(self.groups.add((self.thread / SORT_GROUP) as usize), mine);
        }
    }

    /// Counts slots and tiles of the experts before this one.
    #[inline(always)]
    unsafe fn count_before(self, tile_slots: u32) {
        let mut expert = self.thread;
        while expert < self.me {
            // SAFETY: expert < experts.
            unsafe {
                let count = *self.counts.add(expert as usize);
                atomic_add(self.before, count.next_multiple_of(ROWS as u32));
                atomic_add(self.before.add(1), count.div_ceil(tile_slots));
            }
            expert += THREADS;
        }
    }

    /// Lists the expert's tiles and its empty slots, the last expert those behind it too; returns
    /// its first slot.
    #[inline(always)]
    unsafe fn list(
        self,
        assignment_of: *mut u32,
        tiles: *mut u32,
        num_tiles: *mut u32,
        tile_slots: u32,
        slots: u32,
    ) -> u32 {
        let Self { me, thread, .. } = self;
        // SAFETY: me < experts; the lists have room for every tile and slot there can be.
        unsafe {
            let (first, tile) = (*self.before, *self.before.add(1));
            let count = *self.counts.add(me as usize);
            let own_tiles = count.div_ceil(tile_slots);
            let mut t = thread;
            while t < own_tiles {
                let entry = tiles.add(((tile + t) * TILE_WORDS) as usize);
                *entry = me;
                *entry.add(1) = first + t * tile_slots;
                *entry.add(2) = (count - t * tile_slots).min(tile_slots);
                t += THREADS;
            }
            let mut end = first + count.next_multiple_of(ROWS as u32);
            if me == self.experts - 1 {
                end = slots;
                if thread == 0 {
                    *num_tiles = tile + own_tiles;
                }
            }
            let mut empty = first + count + thread;
            while empty < end {
                *assignment_of.add(empty as usize) = EMPTY;
                empty += THREADS;
            }
            first
        }
    }

    /// Places this thread's assignments to the expert, whose slots begin at `first`.
    #[inline(always)]
    unsafe fn place(self, assignment_of: *mut u32, slot_of: *mut u32, first: u32) {
        let mut slot = first;
        let group = self.thread / SORT_GROUP;
        // SAFETY: all below the thread; assignments are the thread's, slots the expert's.
        unsafe {
            for group in 0..group {
                slot += *self.groups.add(group as usize);
            }
            for before in group * SORT_GROUP..self.thread {
                slot += *self.ranks.add(before as usize);
            }
            for i in self.own[0]..self.own[1] {
                if *self.ids.add(i as usize) == self.me {
                    *assignment_of.add(slot as usize) = i;
                    *slot_of.add(i as usize) = slot;
                    slot += 1;
                }
            }
        }
    }
}

/// The kernel; shapes are in the table. A thread copies one of the 16 rows' four chunks of a step,
/// for every fourth of the workgroup's steps.
///
/// # Safety
///
/// The launch contract of the table.
#[unsafe(no_mangle)]
pub unsafe extern "gpu-kernel" fn moe_gather(
    x: *const u8,
    assignment_of: *const u32,
    out: *mut u8,
    steps: u32,
    top_k: u32,
) {
    crate::arch::wait_for_earlier();
    let (chunk, first) = (thread_id() % 64, thread_id() / 64);
    let slot = workgroup_id_y() * 16 + chunk % 16;
    // SAFETY: the list has every slot of the grid.
    let assignment = unsafe { *assignment_of.add(slot as usize) };
    if assignment == EMPTY {
        return;
    }
    let at = (chunk / 16) as usize * CHUNK_STRIDE_BYTES;
    // SAFETY: the slot is filled; both matrices have its row and `steps` steps.
    unsafe {
        let row = assignment / top_k;
        let (from, to) = (tiled_row(x, row, steps).add(at), tiled_row(out, slot, steps).add(at));
        let mut step = workgroup_id_x() * GATHER_STEPS + first;
        let end = ((workgroup_id_x() + 1) * GATHER_STEPS).min(steps);
        while step < end {
            let at = step as usize * BLOCK_BYTES;
            store_16(to.cast_mut().add(at), load_16(from.add(at)));
            step += moe_gather::threads(crate::tile::FAMILY) / 64;
        }
    }
}

/// The kernel; shapes are in the table.
///
/// # Safety
///
/// The launch contract of the table.
#[unsafe(no_mangle)]
pub unsafe extern "gpu-kernel" fn moe_combine(
    y: *const f32,
    slot_of: *const u32,
    weights: *const f32,
    out: *mut f32,
    n: u32,
    top_k: u32,
) {
    crate::arch::wait_for_earlier();
    let row = workgroup_id_y();
    let first = row * top_k;
    let mut at = workgroup_id_x() * COMBINE_ELEMENTS + thread_id();
    let end = ((workgroup_id_x() + 1) * COMBINE_ELEMENTS).min(n);
    while at < end {
        // SAFETY: at < n, and row and slots are below their counts.
        unsafe {
            let out = out.add(row as usize * n as usize + at as usize);
            let mut sum = *out;
            for rank in 0..top_k {
                let slot = *slot_of.add((first + rank) as usize) as usize;
                let weight = *weights.add((first + rank) as usize);
                sum = crate::arch::fma(weight, *y.add(slot * n as usize + at as usize), sum);
            }
            *out = sum;
        }
        at += moe_combine::threads(crate::tile::FAMILY);
    }
}
