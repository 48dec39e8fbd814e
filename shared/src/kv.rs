//! The paged KV cache: where keys and values of a position lie.
//!
//! A page holds [`PAGE`] consecutive positions of one layer, keys then values, all KV heads. Both
//! parts are blocks of [`crate::block`], ready to be matrix operands:
//!
//! - keys `[kv head][key tile of 16][d step of 32]`: rows are keys, k is d;
//! - values `[kv head][d tile of 16][key step of 32]`: rows are d, k is keys.
//!
//! A sequence has two tables of page numbers, indexed by position / [`PAGE`]: one for the layers
//! that see everything, one for the windowed layers, whose pages are freed behind the window.

use crate::block::{BLOCK, ROWS, STEP, block_index};

/// Positions of a page.
pub const PAGE: usize = 64;
/// Keys whose scores are summed as one part. Parts begin at multiples of it and are merged in
/// order, whichever kernel computes them.
pub const SPLIT: usize = 128;
/// Keys scored at a time.
pub const KEYS: usize = 32;
/// Head sizes the attention kernels are compiled for.
pub const HEAD_DIMS: [usize; 2] = [32, 64];

/// bf16 elements of a page.
pub const fn page_len(kv_heads: usize, head_dim: usize) -> usize {
    2 * PAGE * kv_heads * head_dim
}

/// Index in its page of element `d` of the key of position `pos` (taken modulo the page).
#[inline(always)]
pub const fn key_index(kv_head: usize, head_dim: usize, pos: usize, d: usize) -> usize {
    let pos = pos % PAGE;
    let blocks = (kv_head * (PAGE / ROWS) + pos / ROWS) * (head_dim / STEP) + d / STEP;
    blocks * BLOCK + block_index(pos % ROWS, d % STEP)
}

/// Index in its page of element `d` of the value of position `pos` (taken modulo the page).
#[inline(always)]
pub const fn value_index(
    kv_heads: usize,
    kv_head: usize,
    head_dim: usize,
    pos: usize,
    d: usize,
) -> usize {
    let pos = pos % PAGE;
    let keys = PAGE * kv_heads * head_dim;
    let blocks = (kv_head * (head_dim / ROWS) + d / ROWS) * (PAGE / STEP) + pos / STEP;
    keys + blocks * BLOCK + block_index(d % ROWS, pos % STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_every_element_once() {
        const HEADS: usize = 3;
        const D: usize = 64;
        let mut seen = [false; page_len(HEADS, D)];
        for pos in 0..PAGE {
            for head in 0..HEADS {
                for d in 0..D {
                    for at in
                        [key_index(head, D, pos, d), value_index(HEADS, head, D, PAGE + pos, d)]
                    {
                        assert!(!seen[at]);
                        seen[at] = true;
                    }
                }
            }
        }
        assert!(seen.iter().all(|&s| s));
    }
}
