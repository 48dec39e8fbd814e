//! Weights into the order kernels read them: row tiles of 16, then steps of 32 k, one block per step
//! (`shared::pack`, `shared::block`).
//!
//! All functions write blocks for `[n, k]` matrices, `n` padded to 16 with zero rows, `k` a multiple
//! of 32, and take the source row of each packed row from `row`, so that a layout can also reorder
//! rows ([`gate_up_row`]) or take some of a longer matrix. Tiles are packed on all host threads.

use rayon::prelude::*;
use shared::block::{BLOCK, CHUNK, Family, ROWS, STEP, block_index, tiled_len};
use shared::{mxfp4, pack};

/// What keeps weights from being packed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// A value that eight bits cannot hold.
    #[error(
        "row {row}, columns {column} to {}: a value is not finite or outside the range of MXINT8",
        .column + STEP - 1
    )]
    Mxint8Range {
        /// Row of the source matrix.
        row: usize,
        /// First column of the block.
        column: usize,
    },
    /// A scale that kernels do not decode exactly.
    #[error("row {row}, columns {column} to {}: MXFP4 scale {scale}, expected {} to {}",
        .column + STEP - 1, pack::MXFP4_SCALES.start(), pack::MXFP4_SCALES.end())]
    Mxfp4Scale {
        /// Row of the source matrix.
        row: usize,
        /// First column of the block.
        column: usize,
        /// The scale byte.
        scale: u8,
    },
}

/// Source row of packed row `p` of an expert's first matrix, whose published rows alternate between
/// gate and up, and whose packed row tiles alternate between 16 gates and their 16 ups.
pub fn gate_up_row(p: usize) -> usize {
    let (tile, row) = (p / ROWS, p % ROWS);
    2 * (tile / 2 * ROWS + row) + tile % 2
}

/// bf16 `src[.., k]` in tiled layout: `tiled_len(n, k)` elements. Weights and activations alike.
pub fn bf16(out: &mut [u16], src: &[u16], n: usize, k: usize, row: impl Fn(usize) -> usize + Sync) {
    assert_eq!((out.len(), src.len() % k), (tiled_len(n, k), 0), "bf16 [{n}, {k}]");
    let steps = k / STEP;
    out.par_chunks_mut(steps * BLOCK).enumerate().for_each(|(tile, out)| {
        out.fill(0);
        for r in 0..ROWS.min(n - tile * ROWS) {
            let src = &src[row(tile * ROWS + r) * k..][..k];
            for (chunk, values) in src.chunks_exact(CHUNK).enumerate() {
                let k = chunk * CHUNK;
                let at = k / STEP * BLOCK + block_index(r, k % STEP);
                out[at..at + CHUNK].copy_from_slice(values);
            }
        }
    });
}

/// MXINT8 blocks of bf16 `src[.., k]`: scales, then rows.
pub fn mxint8(
    family: Family,
    out: &mut [u8],
    src: &[u16],
    n: usize,
    k: usize,
    row: impl Fn(usize) -> usize + Sync,
) -> Result<(), PackError> {
    const BYTES: usize = pack::MXINT8_STEP_BYTES;
    let steps = k / STEP;
    assert_eq!((out.len(), src.len() % k), (n.div_ceil(ROWS) * steps * BYTES, 0), "[{n}, {k}]");
    out.par_chunks_mut(steps * BYTES).enumerate().try_for_each(|(tile, out)| {
        out.fill(0);
        for r in 0..ROWS.min(n - tile * ROWS) {
            let from = row(tile * ROWS + r);
            let (blocks, _) = src[from * k..][..k].as_chunks::<STEP>();
            for (step, block) in blocks.iter().enumerate() {
                let (scale, bytes) = pack::mxint8_quantise(block)
                    .ok_or(PackError::Mxint8Range { row: from, column: step * STEP })?;
                let out = &mut out[step * BYTES..][..BYTES];
                out[r] = scale;
                for (k, byte) in bytes.into_iter().enumerate() {
                    out[pack::mxint8_row_offset(r) + pack::position(family, k)] = byte;
                }
            }
        }
        Ok(())
    })
}

/// MXFP4 blocks of published `blocks[.., k / 32, 16]` and `scales[.., k / 32]`: scales, then rows.
///
/// A block of zeros may have any scale: it is stored with the least one kernels decode.
pub fn mxfp4(
    family: Family,
    out: &mut [u8],
    (blocks, scales): (&[u8], &[u8]),
    n: usize,
    k: usize,
    row: impl Fn(usize) -> usize + Sync,
) -> Result<(), PackError> {
    const BYTES: usize = pack::MXFP4_STEP_BYTES;
    let steps = k / STEP;
    assert_eq!(out.len(), n.div_ceil(ROWS) * steps * BYTES, "[{n}, {k}]");
    let (blocks, _) = blocks.as_chunks::<{ mxfp4::BLOCK_BYTES }>();
    assert_eq!((blocks.len(), scales.len() % steps), (scales.len(), 0), "[{n}, {k}]");
    out.par_chunks_mut(steps * BYTES).enumerate().try_for_each(|(tile, out)| {
        out.fill(0);
        for (step, out) in out.chunks_exact_mut(BYTES).enumerate() {
            let (out_scales, out_rows) = out.split_at_mut(ROWS);
            out_scales.fill(pack::mxfp4_scale(family, *pack::MXFP4_SCALES.start()));
            let (out_rows, _) = out_rows.as_chunks_mut::<{ mxfp4::BLOCK_BYTES }>();
            for r in 0..ROWS.min(n - tile * ROWS) {
                let from = row(tile * ROWS + r);
                let (block, scale) = (&blocks[from * steps + step], scales[from * steps + step]);
                if pack::MXFP4_SCALES.contains(&scale) {
                    out_scales[r] = pack::mxfp4_scale(family, scale);
                } else if block.iter().any(|byte| byte & 0x77 != 0) {
                    let column = step * STEP;
                    return Err(PackError::Mxfp4Scale { row: from, column, scale });
                }
                pack::mxfp4_row(family, block, &mut out_rows[r]);
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_and_ups_alternate_by_tile() {
        let units = 48;
        let mut seen: Vec<usize> = (0..2 * units).map(gate_up_row).collect();
        assert_eq!(seen[..3], [0, 2, 4]);
        assert_eq!(seen[16..19], [1, 3, 5]);
        assert_eq!(seen[32], 32);
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..2 * units));
    }

    #[test]
    fn short_matrices_are_padded_with_zero_rows() {
        let src: Vec<u16> = (1..=3 * 32).collect();
        let mut out = vec![0xffff; tiled_len(3, 32)];
        bf16(&mut out, &src, 3, 32, |row| row);
        assert_eq!(out.iter().filter(|&&x| x == 0).count(), 13 * 32);
        assert_eq!(out[block_index(2, 31)], 96);
    }

    #[test]
    fn a_scale_out_of_range_is_refused_with_its_place_unless_the_block_is_zero() {
        let mut out = vec![0; pack::MXFP4_STEP_BYTES];
        let (mut blocks, mut scales) = (vec![0u8; 2 * 16], vec![120u8, 255]);
        assert_eq!(mxfp4(Family::Gfx11, &mut out, (&blocks, &scales), 2, 32, |r| r), Ok(()));
        blocks[16] = 3;
        scales[1] = 200;
        let refused = mxfp4(Family::Gfx11, &mut out, (&blocks, &scales), 2, 32, |r| r);
        assert_eq!(refused, Err(PackError::Mxfp4Scale { row: 1, column: 0, scale: 200 }));
    }
}
