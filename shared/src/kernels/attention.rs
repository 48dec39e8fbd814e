//! Attention over the paged cache, with sinks and sliding windows.
//!
//! Queries of one KV head form rows `token * group + head in group`; a *query tile* is a run of
//! rows of one sequence. The host lists the tiles of a step.
//!
//! Positions behind the last one that a tile sees may hold anything, NaN too, and so may pages that
//! it sees nothing of: what another sequence left there changes nothing. Positions before a window
//! in a page that is partly seen are the sequence's own. A value that is not finite, of a position
//! that some rows of a tile see, makes the tile's other rows NaN too: they are of the same
//! sequence, whose later tokens fail anyway.

use crate::block::Family;
use crate::kv::{PAGE, SPLIT, head_len};

/// Words of one entry of the tile list: first query row, query rows, where the sequence's page
/// numbers begin in the table, and the position of the first row's token. Positions of the rows
/// after it follow, so that a kernel's first loads tell it all that it has to read.
pub const TILE_WORDS: u32 = 4;
/// Query rows of a tile of `attention_split_*`.
pub const SPLIT_ROWS: u32 = 16;
/// Waves of a workgroup of `attention_whole_*`.
pub const WHOLE_WAVES: u32 = 12;
/// Query rows of a tile of `attention_whole_*`: 16 per wave.
pub const WHOLE_ROWS: u32 = 16 * WHOLE_WAVES;
/// Splits of keys that a workgroup of `attention_whole_*` has in workgroup memory on Hopper.
pub const WHOLE_STAGES: usize = 4;

/// Bytes of one head's keys and values of a split.
const fn split_bytes(head_dim: usize) -> usize {
    2 * SPLIT / PAGE * head_len(head_dim) * 2
}

/// Workgroup memory of `attention_split_*`: on Hopper the split without the values of its last page,
/// which take the place of the keys, and a barrier each for the keys and for the values of a page.
pub const fn split_lds(family: Family, head_dim: usize) -> u32 {
    match family {
        Family::Nvptx => (split_bytes(head_dim) - 2 * head_len(head_dim) + 3 * 8) as u32,
        _ => 0,
    }
}

/// Workgroup memory of `attention_whole_*`: a split, on Hopper several, with two barriers for each.
pub const fn whole_lds(family: Family, head_dim: usize) -> u32 {
    let bytes = match family {
        Family::Nvptx => WHOLE_STAGES * (split_bytes(head_dim) + 2 * 8),
        _ => split_bytes(head_dim),
    };
    bytes as u32
}

/// First split that a query at `position` sees; `window` 0 means no window.
#[inline(always)]
pub const fn first_split(position: u32, window: u32) -> u32 {
    if window == 0 { 0 } else { (position + 1).saturating_sub(window) / SPLIT as u32 }
}

/// Splits of a launch of `attention_split_*` whose tiles hold positions up to `max_position`:
/// those of one query, and one more, because a tile's rows may begin in two splits.
pub const fn max_splits(max_position: u32, window: u32) -> u32 {
    let all = max_position / SPLIT as u32 + 1;
    let windowed = window.div_ceil(SPLIT as u32) + 2;
    if window == 0 || all < windowed { all } else { windowed }
}

/// f32 of one row's part: maximum, sum, then the weighted values.
pub const fn part_len(head_dim: u32) -> u32 {
    head_dim + 2
}

macro_rules! attention {
    ($($split:ident $merge:ident $whole:ident, $dim:literal;)*) => {
        crate::kernels! {$(
            /// Scores one split of keys for one tile of up to 16 query rows.
            /// Grid `(splits, kv_heads, tiles)`, one wave each. Splits count from the first one
            /// that the tile's first row sees, in `parts` from the first one the row itself sees.
            /// The launch before this one writes neither the lists nor keys and values of positions
            /// before a tile's first: they are read while it may still run.
            $split(
                /// `[kv_heads][rows * group, head_dim]` bf16, each head tiled
                q: *const u8,
                /// this layer's pages, see [`crate::kv`]
                pages: *const u8,
                /// page numbers
                table: *const u32,
                /// `[tiles, 4]`
                tiles: *const u32,
                /// `[rows * group, kv_heads, splits, head_dim + 2]`; rows without a part need no room
                parts: *mut f32,
                rows: u32,
                kv_heads: u32,
                /// query heads per KV head
                group: u32,
                splits: u32,
                /// 0: no window
                window: u32,
                /// applied to scores, in units of log2; positive
                scale: f32,
            ) {
                threads(family) = family.wave();
                lds(args, family) = split_lds(family, $dim);
            }
            /// Merges the splits of query rows `0..grid` and the sink. Grid
            /// `(query rows, kv_heads)`, one wave each.
            $merge(
                /// `[rows * group, kv_heads, splits, head_dim + 2]`; rows without a part need no room
                parts: *const f32,
                /// `[rows]`
                positions: *const u32,
                /// `[kv_heads * group]`
                sinks: *const f32,
                /// `[rows, kv_heads * group * head_dim]` bf16 in tiled layout
                out: *mut u16,
                kv_heads: u32,
                /// query heads per KV head
                group: u32,
                splits: u32,
                /// 0: no window
                window: u32,
            ) {
                threads(family) = family.wave();
                lds(args, family) = 0;
            }
            /// All keys of one tile of up to 192 query rows. Grid `(kv_heads, tiles)`.
            $whole(
                /// `[kv_heads][rows * group, head_dim]` bf16, each head tiled
                q: *const u8,
                /// this layer's pages, see [`crate::kv`]
                pages: *const u8,
                /// page numbers
                table: *const u32,
                /// `[tiles, 4]`
                tiles: *const u32,
                /// `[kv_heads * group]`
                sinks: *const f32,
                /// `[rows, kv_heads * group * head_dim]` bf16 in tiled layout
                out: *mut u16,
                rows: u32,
                kv_heads: u32,
                /// query heads per KV head
                group: u32,
                /// 0: no window
                window: u32,
                /// applied to scores, in units of log2; positive
                scale: f32,
            ) {
                threads(family) = WHOLE_WAVES * family.wave();
                lds(args, family) = whole_lds(family, $dim);
            }
        )*}
    };
}

attention! {
    attention_split_32 attention_merge_32 attention_whole_32, 32;
    attention_split_64 attention_merge_64 attention_whole_64, 64;
}
