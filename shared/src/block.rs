//! Blocks of 16 rows by 32 k: the memory layout all matrix operands have.
//!
//! Every product of this project is a sum of tile products
//! `D[16 w, 16 x] += W[16 w, 32 k] · X[16 x, 32 k]ᵀ`: `w` counts weight rows (or keys, or value
//! dimensions), `x` counts tokens (or queries). Both operands lie in memory as *blocks* of
//! 16 rows by 32 k, cut into *chunks* of eight consecutive k of one row: 16 bytes of bf16. Chunks
//! are ordered by k first, then by row, so that 16 rows of one chunk column are 256 consecutive
//! bytes. That one order serves all families: a lane's operand is one, two or four chunks (or half
//! chunks) at constant distances, loads of a wave are contiguous, workgroup memory has no bank
//! conflicts, and it is the unswizzled K-major layout Hopper's `wgmma` reads.
//!
//! The sum over k is one chain of matrix instructions, k ascending, whatever kernel computes it;
//! so a result depends on neither the tile shape nor the batch. On NVIDIA the chain advances 16 k
//! at a time (`mma.sync.m16n8k16` and `wgmma.k16` were compared bit for bit on an H200: equal, and
//! independent of the order within the 16), on gfx11 and gfx12 likewise, on gfx9 also 16 k, taken
//! as half chunks from all four chunks of the block.
//!
//! Which lane holds what of one instruction is in [`crate::frag`].

/// Rows of a block, on both sides of a tile product.
pub const ROWS: usize = 16;
/// k of a block.
pub const STEP: usize = 32;
/// Consecutive k of one row in a chunk.
pub const CHUNK: usize = 8;
/// Elements of a block.
pub const BLOCK: usize = ROWS * STEP;
/// Bytes of a block of bf16.
pub const BLOCK_BYTES: usize = BLOCK * 2;
/// Bytes from a chunk to the one of the same row 8 k further.
pub const CHUNK_STRIDE_BYTES: usize = ROWS * CHUNK * 2;

/// Position of element `(row, k)` in its block; `row < 16`, `k < 32`.
#[inline(always)]
pub const fn block_index(row: usize, k: usize) -> usize {
    (k / CHUNK * ROWS + row) * CHUNK + k % CHUNK
}

/// Position of element `(row, k)` of a matrix of `steps * 32` columns in tiled layout:
/// `[row tile][step][chunk]`.
#[inline(always)]
pub const fn tiled_index(row: usize, k: usize, steps: usize) -> usize {
    (row / ROWS * steps + k / STEP) * BLOCK + block_index(row % ROWS, k % STEP)
}

/// Elements of a `[rows, cols]` matrix in tiled layout: rows are padded to 16, `cols` to 32.
pub const fn tiled_len(rows: usize, cols: usize) -> usize {
    rows.next_multiple_of(ROWS) * cols.next_multiple_of(STEP)
}

/// The families of chips: they differ in their matrix instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// MFMA 16x16x16, wave64.
    Gfx9,
    /// RDNA3 WMMA, wave32.
    Gfx11,
    /// RDNA4 WMMA, wave32.
    Gfx12,
    /// `mma.sync.m16n8k16`, two side by side, and `wgmma`; wave32.
    Nvptx,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 4] = [Family::Gfx9, Family::Gfx11, Family::Gfx12, Family::Nvptx];

    /// The name in cfgs and of the module in `device/src/arch/`.
    pub const fn name(self) -> &'static str {
        match self {
            Family::Gfx9 => "gfx9",
            Family::Gfx11 => "gfx11",
            Family::Gfx12 => "gfx12",
            Family::Nvptx => "nvptx",
        }
    }

    /// Lanes of a wave.
    pub const fn wave(self) -> u32 {
        match self {
            Family::Gfx9 => 64,
            Family::Gfx11 | Family::Gfx12 | Family::Nvptx => 32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiled_layout_is_a_permutation() {
        const STEPS: usize = 3;
        let mut seen = [false; 2 * STEPS * BLOCK];
        for row in 0..2 * ROWS {
            for k in 0..STEPS * STEP {
                let at = tiled_index(row, k, STEPS);
                assert!(!seen[at]);
                seen[at] = true;
            }
        }
        assert!(seen.iter().all(|&s| s));
        assert_eq!(tiled_len(17, 96), seen.len());
    }
}
