//! Attention with sinks, sliding windows and grouped queries over the paged cache.
//!
//! `out = sum_t p_t v_t`, `p_t = exp(q·k_t * scale) / (exp(sink) + sum exp(q·k_t * scale))` over
//! the positions `t` a query sees. Scores are one chain of tile products over d in f32; `exp` is
//! `exp2` of scores scaled by `scale` (which includes log2 e); probabilities are rounded to bf16
//! for the product with V and summed unrounded.
//!
//! Keys are taken in splits of [`shared::kv::SPLIT`] at multiples of it. A split has one maximum,
//! one sum and one chain of tile products over its keys; splits are merged in ascending order. Both
//! ways to compute a query do exactly that. `attention_split_*` gives each split to a wave, for few queries with
//! long contexts, and `attention_merge_*` merges; `attention_whole_*` walks through all splits of a
//! query tile. What a query does not see changes nothing, bit for bit: its probabilities are zero,
//! and a split without any leaves what was merged before as it is. So the result depends on neither
//! the kernel, nor the chunk a query came in.

mod queries;
mod softmax;
mod split;
#[cfg(family = "nvptx")]
mod wgmma;

#[cfg_attr(family = "nvptx", path = "attention/hopper.rs")]
#[cfg_attr(not(family = "nvptx"), path = "attention/amd.rs")]
mod chip;

use shared::block::{ROWS, STEP, tiled_index};
use shared::kernels::attention::*;

use self::queries::{Launch, Tile, output};
use self::softmax::{State, normaliser};
use crate::arch::{self, pack_bf16};
use crate::tile::{ACC, PAIRED, X_SLOTS, acc_index, x_slot};

/// `attention_whole_*`.
///
/// # Safety
///
/// The launch contract of the table.
#[inline(always)]
unsafe fn whole<const DS: usize, const DT: usize>(
    launch: &Launch,
    tiles: *const u32,
    sinks: *const f32,
    out: *mut u16,
) {
    let (lane, dim) = (arch::lane(), DT * ROWS);
    // SAFETY: the grid has one workgroup per tile.
    unsafe {
        let tile = Tile::load(launch, tiles, arch::workgroup_id_y(), arch::workgroup_id_x());
        let row0 = arch::wave_id() * ROWS as u32;
        let mut rows = [0; X_SLOTS];
        let mut sink = [0.0; X_SLOTS];
        for i in 0..ACC {
            let (slot, (_, x)) = (x_slot(i), acc_index(lane, i));
            rows[slot] = row0 + x;
            let head = tile.kv_head * launch.group + tile.row(row0 + x) % launch.group;
            sink[slot] = *sinks.add(head as usize);
        }
        let State { softmax, values } = chip::whole::<DS, DT>(launch, &tile);
        let steps = (launch.kv_heads * launch.group) as usize * dim / STEP;
        for slot in 0..X_SLOTS {
            if rows[slot] >= tile.count {
                continue;
            }
            // A head begins with a block.
            let (token, col) = output(tile.row(rows[slot]), tile.kv_head, launch.group, dim);
            let out = out.add(tiled_index(token, col, steps));
            let scale = normaliser(softmax.max[slot], softmax.sum[slot], sink[slot]);
            for i in 0..ACC {
                if x_slot(i) != slot {
                    continue;
                }
                let (w, _) = acc_index(lane, i);
                for t in 0..DT {
                    let out = out.add(tiled_index(0, t * ROWS + w as usize, steps));
                    let value = values[t][i] * scale;
                    if !PAIRED {
                        *out = pack_bf16(value, 0.0) as u16;
                    } else if i % 2 == 0 {
                        *out.cast() = pack_bf16(value, values[t][i + 1] * scale);
                    }
                }
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
            parts: *mut f32,
            rows: u32,
            kv_heads: u32,
            group: u32,
            splits: u32,
            window: u32,
            scale: f32,
        ) {
            let launch =
                Launch { q, pages, table, rows, group, kv_heads, window, scale };
            // SAFETY: the kernel's contract.
            unsafe { split::split::<{ $dim / STEP }, { $dim / ROWS }>(&launch, tiles, parts, splits) }
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
            crate::arch::wait_for_earlier();
            // SAFETY: the kernel's contract.
            unsafe {
                split::merge::<$dim>(
                    parts, positions, sinks, out, kv_heads, group, splits, window,
                )
            }
        }

        #[doc = concat!("`", stringify!($whole), "` of the table.")]
        ///
        /// # Safety
        ///
        /// The launch contract of the table: tiles are runs of existing query rows of one
        /// sequence, at most 192, whose visible positions have pages in the table.
        #[unsafe(no_mangle)]
        pub unsafe extern "gpu-kernel" fn $whole(
            q: *const u8,
            pages: *const u8,
            table: *const u32,
            tiles: *const u32,
            sinks: *const f32,
            out: *mut u16,
            rows: u32,
            kv_heads: u32,
            group: u32,
            window: u32,
            scale: f32,
        ) {
            crate::arch::wait_for_earlier();
            let launch =
                Launch { q, pages, table, rows, group, kv_heads, window, scale };
            // SAFETY: the kernel's contract.
            unsafe { whole::<{ $dim / STEP }, { $dim / ROWS }>(&launch, tiles, sinks, out) }
        }
    )*};
}

kernels! {
    attention_split_32 attention_merge_32 attention_whole_32, 32;
    attention_split_64 attention_merge_64 attention_whole_64, 64;
}
