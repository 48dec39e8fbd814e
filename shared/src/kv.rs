//! The paged KV cache: where keys and values of a position lie.
//!
//! A page holds [`PAGE`] consecutive positions of one layer, keys then values. A KV head's part of
//! each is contiguous, and ready to be a matrix operand: chunks of eight k of one row (16 bytes), by
//! k first, then by row, as in a block of [`crate::block`] with all rows of the page side by side:
//!
//! - keys `[kv head][d / 8][key][d % 8]`: rows are keys, k is d;
//! - values `[kv head][key / 8][d][key % 8]`: rows are d, k is keys.
//!
//! So one bulk copy brings a head's keys or values of a page to workgroup memory, in the layout that
//! Hopper's `wgmma` reads.
//!
//! A sequence has two tables of page numbers, indexed by position / [`PAGE`]: one for the layers
//! that see everything, one for the windowed layers, whose pages are freed behind the window.

use crate::block::CHUNK;

/// Positions of a page.
pub const PAGE: usize = 64;
/// Keys that share one maximum, at absolute multiples of it. Splits are merged in order, whichever
/// kernel computes them.
pub const SPLIT: usize = 128;
/// Head sizes the attention kernels are compiled for.
pub const HEAD_DIMS: [usize; 2] = [32, 64];

/// bf16 elements of a page.
pub const fn page_len(kv_heads: usize, head_dim: usize) -> usize {
    2 * PAGE * kv_heads * head_dim
}

/// bf16 elements of one head's keys, or values, of a page.
pub const fn head_len(head_dim: usize) -> usize {
    PAGE * head_dim
}

/// Index in its page of element `d` of the key of position `pos` (taken modulo the page).
#[inline(always)]
pub const fn key_index(kv_head: usize, head_dim: usize, pos: usize, d: usize) -> usize {
    let chunk = d / CHUNK * PAGE + pos % PAGE;
    kv_head * head_len(head_dim) + chunk * CHUNK + d % CHUNK
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
    let chunk = pos % PAGE / CHUNK * head_dim + d;
    (kv_heads + kv_head) * head_len(head_dim) + chunk * CHUNK + pos % CHUNK
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
