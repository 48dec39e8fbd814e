//! One split of keys for one tile of queries, and the merge of the splits.

use shared::block::{ROWS, STEP, tiled_index};
use shared::kernels::attention::{first_split, part_len};
use shared::kv::{PAGE, SPLIT};

use super::chip::Fetch;
use super::queries::{Launch, Pages, Queries, Tile, Weighted, output, page_numbers};
use super::softmax::{Merge, Softmax, normaliser};
use crate::arch::{self, max, pack_bf16, shuffle_f32};
use crate::tile::{ACC, acc_index, x_slot};

/// `attention_split_*`.
///
/// What the launch before this one does not write is read without waiting for it: the lists, and
/// splits that end before the tile's first row.
///
/// # Safety
///
/// The launch contract of the table.
#[inline(always)]
pub unsafe fn split<const DS: usize, const DT: usize>(
    launch: &Launch,
    tiles: *const u32,
    parts: *mut f32,
    splits: u32,
) {
    let (lane, dim) = (arch::lane(), DT * ROWS);
    // SAFETY: the grid has one workgroup per tile.
    unsafe {
        let tile = Tile::load(launch, tiles, arch::workgroup_id_z(), arch::workgroup_id_y());
        let seen = tile.sees(launch.window, 0, tile.count - 1);
        let [first, last] = seen.splits();
        let split = first + arch::workgroup_id_x();
        let numbers = page_numbers(&tile, &seen, split);
        if !seen.precedes(split) {
            arch::wait_for_earlier();
        }
        if split > last {
            return;
        }
        let fetch = Fetch::start(Pages::new(launch, &tile, dim, numbers), dim, lane);
        arch::wait_for_earlier();
        let queries = Queries::<DS>::new(launch, &tile, 0, lane);
        let mut scores = queries.scores(&seen, split, fetch.keys(), lane);
        fetch.keys_read(lane);
        if seen.hides(split) {
            queries.hide(&mut scores, split, lane);
        }
        let mut values = Weighted::<DT>::EMPTY;
        let mut page = core::ptr::null();
        let softmax = Softmax::new(&scores, launch.scale, |step, p| {
            if (step * STEP).is_multiple_of(PAGE) {
                page = fetch.values(step * STEP / PAGE);
            }
            values.add(&seen, [split, step as u32], p, page, lane);
        });
        let values = values.finish(&seen, split, lane);

        let len = part_len(dim as u32) as usize;
        for i in 0..ACC {
            let (w, x) = acc_index(lane, i);
            let own = queries.position[x_slot(i)];
            let own_first = first_split(own, launch.window);
            if x >= tile.count || split < own_first || split > own / SPLIT as u32 {
                continue;
            }
            let row = (tile.row(x) * launch.kv_heads + tile.kv_head) as usize;
            let part = parts.add((row * splits as usize + (split - own_first) as usize) * len);
            if w == 0 {
                *part = softmax.max[x_slot(i)];
                *part.add(1) = softmax.sum[x_slot(i)];
            }
            for t in 0..DT {
                *part.add(2 + t * ROWS + w as usize) = values[t][i];
            }
        }
    }
}

/// Parts whose values are loaded together, a batch ahead of their use.
const BATCH: usize = 16;
/// Parts that are loaded if there is one among them.
const GROUP: usize = 4;
/// Lanes of a wave.
const WAVE: usize = arch::WAVE as usize;

/// Values of the largest head that a lane merges.
const MOST_COLUMNS: usize = shared::kv::HEAD_DIMS[shared::kv::HEAD_DIMS.len() - 1].div_ceil(WAVE);

/// `attention_merge_*`: each lane merges every `WAVE`-th of `DIM` values.
///
/// Factors depend on maxima only, and those of all splits before are a prefix maximum: a wave of
/// splits gets its factors at once, then the chain over splits is one `fma` each.
///
/// # Safety
///
/// The launch contract of the table.
#[inline(always)]
pub unsafe fn merge<const DIM: usize>(
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
    let lane = arch::lane() as usize;
    let len = part_len(DIM as u32) as usize;
    // SAFETY: the grid's rows exist; each has a part for every split it sees.
    unsafe {
        let position = *positions.add((row / group) as usize);
        let sink = *sinks.add((kv_head * group + row % group) as usize);
        let count = (position / SPLIT as u32 + 1 - first_split(position, window)) as usize;
        let parts = parts.add((row * kv_heads + kv_head) as usize * splits as usize * len);
        let (mut top, mut sum) = (f32::NEG_INFINITY, 0.0);
        // Lanes past the last value repeat one.
        let column = |j: usize| (lane + j * WAVE) % DIM;
        let mut values = [0.0; MOST_COLUMNS];
        let load = |first: usize| {
            let mut batch = [[0.0; MOST_COLUMNS]; BATCH];
            for b in 0..BATCH {
                // By groups, past the last split the same one again.
                if first + b / GROUP * GROUP < count {
                    let part = parts.add((first + b).min(count - 1) * len);
                    for j in 0..DIM.div_ceil(WAVE) {
                        batch[b][j] = *part.add(2 + column(j));
                    }
                }
            }
            batch
        };
        let mut ahead = load(0);
        let mut first = 0;
        while first < count {
            let part = parts.add((first + lane).min(count - 1) * len);
            let exists = first + lane < count;
            let own_max = if exists { *part } else { f32::NEG_INFINITY };
            let own_sum = if exists { *part.add(1) } else { 0.0 };
            let (highest, factors) = wave_factors(top, own_max);
            let mut i = 0;
            while i < WAVE.min(count - first) {
                let batch = ahead;
                ahead = load(first + i + BATCH);
                // Past the last split the factors keep what is there.
                for b in 0..BATCH {
                    let from = (i + b) as u32;
                    let merge = Merge {
                        old: shuffle_f32(factors.old, from),
                        new: shuffle_f32(factors.new, from),
                    };
                    sum = merge.apply(sum, shuffle_f32(own_sum, from));
                    for j in 0..DIM.div_ceil(WAVE) {
                        values[j] = merge.apply(values[j], batch[b][j]);
                    }
                }
                i += BATCH;
            }
            top = shuffle_f32(highest, arch::WAVE - 1);
            first += WAVE;
        }

        let (token, col) = output(row, kv_head, group, DIM);
        let steps = (kv_heads * group) as usize * DIM / STEP;
        let scale = normaliser(top, sum, sink);
        for j in 0..DIM.div_ceil(WAVE) {
            if lane + j * WAVE < DIM {
                let at = tiled_index(token, col + column(j), steps);
                *out.add(at) = pack_bf16(values[j] * scale, 0.0) as u16;
            }
        }
    }
}

/// For the lanes' parts, of which `own` are the maxima and `top` the maximum of all before: the
/// maximum up to each, and the factors of what was merged and of the part. Collective.
#[inline(always)]
fn wave_factors(top: f32, own: f32) -> (f32, Merge) {
    let lane = arch::lane() as usize;
    let mut highest = max(top, own);
    let mut distance = 1;
    while distance < WAVE {
        let other = shuffle_f32(highest, lane.saturating_sub(distance) as u32);
        highest = max(highest, other);
        distance *= 2;
    }
    let before = shuffle_f32(highest, lane.saturating_sub(1) as u32);
    (highest, Merge::new(if lane == 0 { top } else { before }, own))
}
