//! Drawing a token from a row of logits by temperature, top-k, nucleus and min-p:
//! `shared::sampling`.
//!
//! One workgroup per row. Two histograms over ranks, in workgroup memory, of counts or weights find
//! where a prefix of the order ends; sums over ever smaller stretches of ids find the token. All
//! sums are of integers, so that the order in which threads add changes nothing.
//!
//! A nucleus reads the row five times, mostly from cache, and computes its exponentials once for
//! all tokens and then for those that may still matter. Top-k reads it four times more, min-p once
//! where it takes something away.

use shared::kernels::rows::{NOT_FINITE, sample};
use shared::sampling::{BINS, DIGIT_BITS, Draw, MAX_RANK, rank, weight};

use crate::arch::{
    WAVE, atomic_add, ballot, lane, shuffle, thread_id, wave_id, workgroup_barrier, workgroup_id_x,
    workgroup_memory,
};
use crate::argmax::Best;

const _: sample::Signature = sample;
const THREADS: u32 = sample::threads(crate::tile::FAMILY);
const WAVES: u32 = THREADS / WAVE;

/// `x` of lane `from`. Collective.
#[inline(always)]
fn shuffle_u64(x: u64, from: u32) -> u64 {
    u64::from(shuffle(x as u32, from)) | u64::from(shuffle((x >> 32) as u32, from)) << 32
}

/// Sum of the values of this lane and those before it. Collective.
#[inline(always)]
fn wave_inclusive_scan(x: u64) -> u64 {
    let mut sum = x;
    let mut distance = 1;
    while distance < WAVE {
        let other = shuffle_u64(sum, lane().wrapping_sub(distance) % WAVE);
        if lane() >= distance {
            sum += other;
        }
        distance *= 2;
    }
    sum
}

/// A prefix of the order of tokens: lower ranks than `rank`, and ids up to `last` of `rank` itself.
#[derive(Clone, Copy)]
struct Prefix {
    rank: u32,
    last: u32,
}

impl Prefix {
    const ALL: Self = Self { rank: MAX_RANK, last: u32::MAX };

    #[inline(always)]
    fn holds(self, id: u32, rank: u32) -> bool {
        rank < self.rank || (rank == self.rank && id <= self.last)
    }
}

/// A row, what is asked of it, and workgroup memory.
#[derive(Clone, Copy)]
struct Row {
    logits: *const f32,
    n: u32,
    draw: Draw,
    max: f32,
    /// `[BINS]` low words of sums, then as many high words.
    bins: *mut u32,
    /// `[WAVES]`
    sums: *mut u64,
}

impl Row {
    #[inline(always)]
    fn distance(self, id: u32) -> f32 {
        // SAFETY: ids are below n.
        self.draw.distance(self.max, unsafe { *self.logits.add(id as usize) })
    }

    /// The total of `own` over the workgroup, and its sum over the threads before this one.
    /// Collective over the workgroup.
    #[inline(always)]
    fn scan(self, own: u64) -> (u64, u64) {
        let inclusive = wave_inclusive_scan(own);
        let (mut before, mut total) = (inclusive - own, 0);
        // SAFETY: one element per wave; the barriers part writing from reading.
        unsafe {
            if lane() == WAVE - 1 {
                *self.sums.add(wave_id() as usize) = inclusive;
            }
            workgroup_barrier();
            for wave in 0..WAVES {
                let sum = *self.sums.add(wave as usize);
                if wave < wave_id() {
                    before += sum;
                }
                total += sum;
            }
            workgroup_barrier();
        }
        (before, total)
    }

    /// The bin in which the sum of `measure` of distances, taken in order of bins, reaches what is
    /// missing, and what is then missing of that bin. `bin_of` gives the bin of a rank that counts,
    /// and `missing` what is missing of the total of all bins. Collective over the workgroup.
    #[inline(always)]
    fn digit(
        self,
        bin_of: impl Fn(u32) -> Option<u32>,
        missing: impl FnOnce(u64) -> u64,
        measure: impl Fn(f32) -> u64,
    ) -> (u32, u64) {
        const OWN: u32 = BINS.div_ceil(THREADS);
        let (low, high) = (self.bins, self.bins.wrapping_add(BINS as usize));
        for word in (thread_id()..2 * BINS).step_by(THREADS as usize) {
            // SAFETY: both halves of the bins.
            unsafe { *self.bins.add(word as usize) = 0 };
        }
        workgroup_barrier();
        for id in (thread_id()..self.n).step_by(THREADS as usize) {
            let distance = self.distance(id);
            if let Some(bin) = bin_of(rank(distance)) {
                let value = measure(distance);
                // SAFETY: bins are below BINS. A carry out of the low word goes to the high one.
                unsafe {
                    let before = atomic_add(low.add(bin as usize), value as u32);
                    let carry = u32::from(before.checked_add(value as u32).is_none());
                    let upper = (value >> 32) as u32 + carry;
                    if upper != 0 {
                        atomic_add(high.add(bin as usize), upper);
                    }
                }
            }
        }
        workgroup_barrier();

        let first = thread_id() * OWN;
        // SAFETY: bins are below BINS, which the threads share out.
        let sum = |bin: u32| unsafe {
            let bin = bin as usize;
            if bin < BINS as usize {
                u64::from(*low.add(bin)) | u64::from(*high.add(bin)) << 32
            } else {
                0
            }
        };
        let mut own = 0;
        for bin in first..first + OWN {
            own += sum(bin);
        }
        let (mut before, total) = self.scan(own);
        let missing = missing(total);
        let found = self.sums.cast::<u32>();
        if before < missing && missing <= before + own {
            let mut bin = first;
            while before + sum(bin) < missing {
                before += sum(bin);
                bin += 1;
            }
            let rest = missing - before;
            // SAFETY: sums hold at least three words; exactly one thread is here.
            unsafe {
                *found = bin;
                *found.add(1) = rest as u32;
                *found.add(2) = (rest >> 32) as u32;
            }
        }
        workgroup_barrier();
        // SAFETY: written above, since all bins together measure at least what is missing.
        let (bin, rest) =
            unsafe { (*found, u64::from(*found.add(1)) | u64::from(*found.add(2)) << 32) };
        workgroup_barrier();
        (bin, rest)
    }

    /// The first id at which the sum of `weight_of`, in order of ids, reaches `needed`, and that
    /// sum. All ids together weigh at least `needed`. Collective over the workgroup.
    #[inline(always)]
    fn first_reaching(self, needed: u64, weight_of: impl Fn(u32) -> u64) -> (u32, u64) {
        let (mut start, mut len, mut before) = (0, self.n, 0u64);
        // Each round leaves one wave's part of what is left.
        while len > WAVE {
            let part = len.div_ceil(WAVES);
            let mine = start + wave_id() * part;
            let end = (mine + part).min(start + len);
            let mut own = 0;
            for id in (mine + lane()..end).step_by(WAVE as usize) {
                own += weight_of(id);
            }
            let inclusive = wave_inclusive_scan(own);
            let mut wave = 0;
            // SAFETY: one element per wave; the barriers part writing from reading.
            unsafe {
                if lane() == WAVE - 1 {
                    *self.sums.add(wave_id() as usize) = inclusive;
                }
                workgroup_barrier();
                while wave < WAVES - 1 && before + *self.sums.add(wave as usize) < needed {
                    before += *self.sums.add(wave as usize);
                    wave += 1;
                }
                workgroup_barrier();
            }
            let offset = (wave * part).min(len);
            start += offset;
            len = part.min(len - offset);
        }
        let own = if lane() < len { weight_of(start + lane()) } else { 0 };
        let inclusive = before + wave_inclusive_scan(own);
        let first = ballot(inclusive >= needed).trailing_zeros() % WAVE;
        (start + first, shuffle_u64(inclusive, first))
    }

    /// The shortest prefix that `measure`s at least `needed` of the total, and what it measures. What
    /// has the last rank measures nothing. Collective over the workgroup.
    #[inline(always)]
    fn shortest(
        self,
        needed: impl FnOnce(u64) -> u64,
        measure: impl Fn(f32) -> u64 + Copy,
    ) -> (Prefix, u64) {
        let mut all = 0;
        let (high, missing) = self.digit(
            |rank| if rank < MAX_RANK { Some(rank >> DIGIT_BITS) } else { None },
            |total| {
                all = needed(total);
                all
            },
            measure,
        );
        let of_bin = move |rank: u32| {
            if rank < MAX_RANK && rank >> DIGIT_BITS == high { Some(rank % BINS) } else { None }
        };
        let (low, missing) = self.digit(of_bin, |_| missing, measure);
        let rank_found = high << DIGIT_BITS | low;
        let equal = move |id| {
            let distance = self.distance(id);
            if rank(distance) == rank_found { measure(distance) } else { 0 }
        };
        let (last, taken) = self.first_reaching(missing, equal);
        (Prefix { rank: rank_found, last }, all - missing + taken)
    }

    /// The weight of `id` if `prefix` holds it.
    #[inline(always)]
    fn weight_in(self, prefix: Prefix, id: u32) -> u64 {
        let distance = self.distance(id);
        if prefix.holds(id, rank(distance)) { weight(distance) } else { 0 }
    }

    /// What `prefix` weighs. Collective over the workgroup.
    #[inline(always)]
    fn mass(self, prefix: Prefix) -> u64 {
        let mut own = 0;
        for id in (thread_id()..self.n).step_by(THREADS as usize) {
            own += self.weight_in(prefix, id);
        }
        self.scan(own).1
    }

    /// The token drawn. Collective over the workgroup.
    #[inline(always)]
    fn draw(self) -> u32 {
        let Draw { top_k, share, last_rank, .. } = self.draw;
        let (mut kept, mut mass) = (Prefix::ALL, 0);
        let limited = top_k != 0 && top_k < self.n;
        if limited {
            // Tokens of the last rank weigh nothing: whether they are among the first does not
            // matter.
            (kept, _) = self.shortest(|total| total.min(top_k.into()), |_| 1);
        }
        if limited || share == 0 {
            mass = self.mass(kept);
        }
        if share != 0 {
            let of_all = move |total: u64| self.draw.needed(if limited { mass } else { total });
            (kept, mass) = self.shortest(of_all, weight);
        }
        if last_rank < kept.rank {
            kept = Prefix { rank: last_rank, last: u32::MAX };
            mass = self.mass(kept);
        }
        self.first_reaching(self.draw.target(mass), move |id| self.weight_in(kept, id)).0
    }
}

/// The kernel; shapes are in the table.
///
/// # Safety
///
/// The launch contract of the table; `n >= 1`.
#[unsafe(no_mangle)]
pub unsafe extern "gpu-kernel" fn sample(x: *const f32, draws: *const u32, ids: *mut u32, n: u32) {
    crate::arch::wait_for_earlier();
    let row = workgroup_id_x() as usize;
    // SAFETY: the grid has one workgroup per row, and the draws one entry.
    let (logits, draw) = unsafe {
        let draw = draws.add(row * Draw::WORDS);
        let mut words = [0; Draw::WORDS];
        for i in 0..Draw::WORDS {
            words[i] = *draw.add(i);
        }
        (x.add(row * n as usize), Draw::from_words(words))
    };
    let memory: *mut u32 = workgroup_memory();
    // SAFETY: the row has n elements, and the memory of the bins three words per wave.
    let best = unsafe { Best::of_row::<THREADS>(logits, n, memory) };
    let id = if !best.finite {
        NOT_FINITE
    } else if draw.is_greedy() {
        best.choice.index
    } else {
        let bins = memory;
        // The launch passes the sums behind the bins.
        let sums = bins.wrapping_add(2 * BINS as usize).cast();
        Row { logits, n, draw, max: best.choice.value, bins, sums }.draw()
    };
    if thread_id() == 0 {
        // SAFETY: one element per row.
        unsafe { *ids.add(row) = id };
    }
}
