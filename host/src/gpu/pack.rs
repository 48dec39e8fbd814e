//! Weights into the order kernels read them: row tiles of 16, then steps of 32 k, one block per step
//! (`shared::pack`, `shared::block`).
//!
//! All functions write blocks for `[n, k]` matrices, `n` padded to 16 with zero rows, `k` a multiple
//! of 32, and take the source row of each packed row from `row`, so that a layout can also reorder
//! rows ([`gate_up_row`]) or take some of a longer matrix. Tiles are packed on all host threads, each
//! from start to end: sixteen rows are read as sixteen streams, and the blocks written as one.

use rayon::prelude::*;
use shared::block::{BLOCK, CHUNK, Family, ROWS, STEP, block_index, tiled_len};
use shared::{bf16, mxfp4, pack};

use super::launch::linear::DenseFormat;
use crate::model::Dtype;

/// What keeps weights from being packed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// A value that eight bits cannot hold.
    #[error(
        "row {row}, columns {column} to {}: a value is not finite or outside the range of MXINT8",
        .column + STEP - 1
    )]
    Mxint8Range {
        /// Row of the source.
        row: usize,
        /// First column of the block.
        column: usize,
    },
    /// A scale that kernels do not decode exactly.
    #[error("row {row}, columns {column} to {}: MXFP4 scale {scale}, expected {} to {}",
        .column + STEP - 1, pack::MXFP4_SCALES.start(), pack::MXFP4_SCALES.end())]
    Mxfp4Scale {
        /// Row of the source.
        row: usize,
        /// First column of the block.
        column: usize,
        /// The scale byte.
        scale: u8,
    },
}

impl PackError {
    /// Row of the source where it was found.
    pub fn row(&self) -> usize {
        match self {
            PackError::Mxint8Range { row, .. } | PackError::Mxfp4Scale { row, .. } => *row,
        }
    }

    /// The same finding in a matrix that starts at row `first` of the source.
    pub fn in_matrix_at(mut self, first: usize) -> PackError {
        match &mut self {
            PackError::Mxint8Range { row, .. } | PackError::Mxfp4Scale { row, .. } => *row -= first,
        }
        self
    }
}

/// Source row of packed row `p` of an expert's first matrix, whose published rows alternate between
/// gate and up, and whose packed row tiles alternate between 16 gates and their 16 ups.
pub fn gate_up_row(p: usize) -> usize {
    let (tile, row) = (p / ROWS, p % ROWS);
    2 * (tile / 2 * ROWS + row) + tile % 2
}

/// Matrices as they lie in a file, little-endian, at any address. Values of f32 are rounded to bf16.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    data: &'a [u8],
    dtype: Dtype,
    /// Rows of each matrix, where it is stored `[k, rows]`.
    columns: Option<usize>,
}

impl<'a> Source<'a> {
    /// Matrices `[.., k]`, one after the other.
    pub fn rows(dtype: Dtype, data: &'a [u8]) -> Source<'a> {
        Source { data, dtype, columns: None }
    }

    /// Matrices `[k, n]`, one after the other; row `m * n + r` is column `r` of matrix `m`.
    pub fn columns(dtype: Dtype, data: &'a [u8], n: usize) -> Source<'a> {
        Source { data, dtype, columns: Some(n) }
    }

    /// Where row `row` starts, in elements.
    fn start(&self, row: usize, k: usize) -> usize {
        match self.columns {
            None => row * k,
            Some(n) => row / n * (n * k) + row % n,
        }
    }

    /// 32 values of the row that starts at `start`, those of step `step`.
    #[inline(always)]
    fn step(&self, start: usize, step: usize) -> [u16; STEP] {
        let short = |b: [u8; 2]| u16::from_le_bytes(b);
        let half = |b: [u8; 2]| bf16::from_f32(half::f16::from_le_bytes(b).to_f32());
        let long = |b: [u8; 4]| bf16::from_f32(f32::from_le_bytes(b));
        let (first, stride) = match self.columns {
            None => (start + step * STEP, 1),
            Some(n) => (start + step * STEP * n, n),
        };
        match self.dtype {
            Dtype::Bf16 => self.values(first, stride, short),
            Dtype::F16 => self.values(first, stride, half),
            Dtype::F32 => self.values(first, stride, long),
        }
    }

    #[inline(always)]
    fn values<const BYTES: usize>(
        &self,
        first: usize,
        stride: usize,
        value: impl Fn([u8; BYTES]) -> u16,
    ) -> [u16; STEP] {
        let (elements, _) = self.data.as_chunks::<BYTES>();
        let mut out = [0; STEP];
        if stride == 1 {
            let row = &elements[first..first + STEP];
            out.iter_mut().zip(row).for_each(|(out, &element)| *out = value(element));
        } else {
            let column = elements[first..].iter().step_by(stride);
            out.iter_mut().zip(column).for_each(|(out, &element)| *out = value(element));
        }
        out
    }
}

/// bf16 `src[.., k]` in tiled layout: `tiled_len(n, k)` elements. Weights and activations alike.
pub fn bf16(out: &mut [u16], src: &[u16], n: usize, k: usize, row: impl Fn(usize) -> usize + Sync) {
    assert_eq!((out.len(), src.len() % k), (tiled_len(n, k), 0), "bf16 [{n}, {k}]");
    bf16_tiles(out, Source::rows(Dtype::Bf16, bytemuck::cast_slice(src)), n, k, row);
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
    assert_eq!(src.len() % k, 0, "[{n}, {k}]");
    let source = Source::rows(Dtype::Bf16, bytemuck::cast_slice(src));
    dense(family, DenseFormat::Mxint8, out, source, (n, k), row)
}

/// Blocks of `format` of a dense matrix: bf16, or MXINT8 for `family`.
pub fn dense(
    family: Family,
    format: DenseFormat,
    out: &mut [u8],
    source: Source<'_>,
    (n, k): (usize, usize),
    row: impl Fn(usize) -> usize + Sync,
) -> Result<(), PackError> {
    assert_eq!(out.len(), format.bytes(n.next_multiple_of(ROWS), k), "[{n}, {k}]");
    match format {
        DenseFormat::Bf16 => bf16_tiles(bytemuck::cast_slice_mut(out), source, n, k, row),
        DenseFormat::Mxint8 => return mxint8_tiles(family, out, source, n, k, row),
    }
    Ok(())
}

/// Where the source rows of tile `tile` start; fewer than 16 in the last tile of a matrix.
fn starts(
    source: Source<'_>,
    tile: usize,
    (n, k): (usize, usize),
    row: &(impl Fn(usize) -> usize + Sync),
) -> impl Iterator<Item = usize> {
    (tile * ROWS..n.min((tile + 1) * ROWS)).map(move |p| source.start(row(p), k))
}

fn bf16_tiles(
    out: &mut [u16],
    source: Source<'_>,
    n: usize,
    k: usize,
    row: impl Fn(usize) -> usize + Sync,
) {
    let steps = k / STEP;
    out.par_chunks_mut(steps * BLOCK).enumerate().for_each(|(tile, out)| {
        let mut from = [0; ROWS];
        let rows = starts(source, tile, (n, k), &row).zip(&mut from).map(|(s, f)| *f = s).count();
        for (step, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            if rows < ROWS {
                out.fill(0);
            }
            for (r, &start) in from[..rows].iter().enumerate() {
                let values = source.step(start, step);
                for (chunk, values) in values.chunks_exact(CHUNK).enumerate() {
                    let at = block_index(r, chunk * CHUNK);
                    out[at..at + CHUNK].copy_from_slice(values);
                }
            }
        }
    });
}

fn mxint8_tiles(
    family: Family,
    out: &mut [u8],
    source: Source<'_>,
    n: usize,
    k: usize,
    row: impl Fn(usize) -> usize + Sync,
) -> Result<(), PackError> {
    const BYTES: usize = pack::MXINT8_STEP_BYTES;
    let steps = k / STEP;
    let position: [usize; STEP] = std::array::from_fn(|k| pack::position(family, k));
    out.par_chunks_mut(steps * BYTES).enumerate().try_for_each(|(tile, out)| {
        out.fill(0);
        for (r, start) in starts(source, tile, (n, k), &row).enumerate() {
            for (step, out) in out.chunks_exact_mut(BYTES).enumerate() {
                let block = source.step(start, step);
                let (scale, bytes) = pack::mxint8_quantise(&block).ok_or_else(|| {
                    let row = row(tile * ROWS + r);
                    PackError::Mxint8Range { row, column: step * STEP }
                })?;
                out[r] = scale;
                let out = &mut out[pack::mxint8_row_offset(r)..][..STEP];
                for (&at, byte) in position.iter().zip(bytes) {
                    out[at] = byte;
                }
            }
        }
        Ok(())
    })
}

/// The rows of an MXFP4 block.
type BlockRows = [[u8; mxfp4::BLOCK_BYTES]; ROWS];

/// MXFP4 blocks of published `blocks[.., k / 32, 16]` and `scales[.., k / 32]`: scales, then rows.
///
/// A block of zeros may have any scale: it is stored with the least one kernels decode.
pub fn mxfp4(
    family: Family,
    out: &mut [u8],
    source: (&[u8], &[u8]),
    n: usize,
    k: usize,
    row: impl Fn(usize) -> usize + Sync,
) -> Result<(), PackError> {
    // Chosen here, so that the order is no question in the loop.
    match family {
        Family::Gfx9 | Family::Gfx11 => mxfp4_tiles(family, out, source, (n, k), row, in_words),
        Family::Gfx12 => mxfp4_tiles(family, out, source, (n, k), row, in_swapped_words),
        Family::Nvptx => mxfp4_tiles(family, out, source, (n, k), row, in_pairs),
    }
}

fn mxfp4_tiles(
    family: Family,
    out: &mut [u8],
    (blocks, scales): (&[u8], &[u8]),
    (n, k): (usize, usize),
    row: impl Fn(usize) -> usize + Sync,
    order: impl Fn([u64; 2]) -> [u64; 2] + Sync,
) -> Result<(), PackError> {
    const BYTES: usize = pack::MXFP4_STEP_BYTES;
    let steps = k / STEP;
    assert_eq!(out.len(), n.div_ceil(ROWS) * steps * BYTES, "[{n}, {k}]");
    let (blocks, _) = blocks.as_chunks::<{ mxfp4::BLOCK_BYTES }>();
    assert_eq!((blocks.len(), scales.len() % steps), (scales.len(), 0), "[{n}, {k}]");
    out.par_chunks_mut(steps * BYTES).enumerate().try_for_each(|(tile, out)| {
        let rows = ROWS.min(n - tile * ROWS);
        let mut from = [0; ROWS];
        (0..rows).for_each(|r| from[r] = row(tile * ROWS + r) * steps);
        let mut words = [[0u64; ROWS]; 2];
        for (step, out) in out.chunks_exact_mut(BYTES).enumerate() {
            let mut own = [*pack::MXFP4_SCALES.start(); ROWS];
            for r in 0..rows {
                let (low, high) = halves(&blocks[from[r] + step]);
                (words[0][r], words[1][r]) = (low, high);
                own[r] = scales[from[r] + step];
            }
            if !own.iter().all(|scale| pack::MXFP4_SCALES.contains(scale)) {
                least_scales_of_zeros(&mut own, &words).map_err(|r| PackError::Mxfp4Scale {
                    row: row(tile * ROWS + r),
                    column: step * STEP,
                    scale: own[r],
                })?;
            }
            let (out_scales, out_rows) = out.split_at_mut(ROWS);
            out_scales.copy_from_slice(&own.map(|scale| pack::mxfp4_scale(family, scale)));
            let packed: BlockRows = std::array::from_fn(|r| {
                bytemuck::cast(order([words[0][r], words[1][r]]).map(u64::to_le))
            });
            out_rows.copy_from_slice(packed.as_flattened());
        }
        Ok(())
    })
}

/// Gives blocks of zeros the least scale; the row of a block that has values and a scale that
/// kernels do not decode is the error.
#[cold]
fn least_scales_of_zeros(scales: &mut [u8; ROWS], words: &[[u64; ROWS]; 2]) -> Result<(), usize> {
    /// All bits of eight bytes of codes but the signs.
    const MAGNITUDES: u64 = 0x7777_7777_7777_7777;
    for (r, scale) in scales.iter_mut().enumerate() {
        if pack::MXFP4_SCALES.contains(scale) {
            continue;
        }
        if (words[0][r] | words[1][r]) & MAGNITUDES != 0 {
            return Err(r);
        }
        *scale = *pack::MXFP4_SCALES.start();
    }
    Ok(())
}

/// A row of a block as two words.
fn halves(row: &[u8; mxfp4::BLOCK_BYTES]) -> (u64, u64) {
    let [low, high]: [[u8; 8]; 2] = bytemuck::cast(*row);
    (u64::from_le_bytes(low), u64::from_le_bytes(high))
}

/// Swaps the bits of `x` under `mask` with those `shift` above them.
#[inline(always)]
fn swap(x: u64, mask: u64, shift: u32) -> u64 {
    let t = (x ^ x >> shift) & mask;
    x ^ t ^ t << shift
}

/// [`pack::mxfp4_row`] of gfx9 and gfx11: the low half of each 32-bit word becomes its low nibbles,
/// the high half its high ones.
#[inline(always)]
fn in_words(row: [u64; 2]) -> [u64; 2] {
    row.map(|x| {
        let x = swap(x, 0x0000_ff00_0000_ff00, 8);
        swap(x, 0x00f0_00f0_00f0_00f0, 4)
    })
}

/// [`pack::mxfp4_row`] of gfx12: as for gfx11, with words 1 and 2 in each other's place.
#[inline(always)]
fn in_swapped_words(row: [u64; 2]) -> [u64; 2] {
    let [a, b] = in_words(row);
    [a & 0xffff_ffff | b << 32, a >> 32 | b & !0xffff_ffff]
}

/// [`pack::mxfp4_row`] of NVIDIA: word `q` is made of byte `q` of each of the four words, whose low
/// nibbles go to the low half-word and whose high nibbles to the high one.
#[inline(always)]
fn in_pairs([a, b]: [u64; 2]) -> [u64; 2] {
    // Four half-words, of byte q of words 0 and 1, or 2 and 3.
    let both = |x| swap(swap(x, 0x0000_0000_ffff_0000, 16), 0x0000_ff00_0000_ff00, 8);
    let (a, b) = (both(a), both(b));
    // The half-word of four codes: `shared::pack::mxfp4_bits` for pairs 0 to 3.
    let half = |a: u64, b: u64| {
        let at = |x: u64, mask: u64| x & (mask * 0x0001_0001_0001_0001);
        at(a, 0x0007) << 6
            | at(a, 0x0008) << 12
            | at(a, 0x0700) >> 5
            | at(a, 0x0800) << 1
            | at(b, 0x0007)
            | at(b, 0x0008) << 11
            | at(b, 0x0700) << 1
            | at(b, 0x0800) << 2
    };
    let (low, high) = (half(a, b), half(a >> 4, b >> 4));
    let apart = |x: u64| x & 0xffff | (x & 0xffff_0000) << 16;
    [apart(low) | apart(high) << 16, apart(low >> 32) | apart(high >> 32) << 16]
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

        let mut out = vec![0xff; pack::MXFP4_STEP_BYTES];
        mxfp4(Family::Nvptx, &mut out, (&[0xff; 3 * 16], &[100; 3]), 3, 32, |row| row).unwrap();
        assert_eq!(out[pack::mxfp4_row_offset(3)..], [0; 13 * 16]);
        assert_eq!(out[..4], [226, 226, 226, 128]);
    }

    /// Bits that look random and differ from byte to byte.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1u32;
        let byte = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(byte).collect()
    }

    /// Against the order's definition, one bit at a time and in bulk: 37 rows of 96 leave a tile
    /// of five, and three steps show a wrong stride.
    #[test]
    fn mxfp4_rows_are_in_the_order_that_shared_defines() {
        let (n, k) = (37, 96);
        let mut inputs: Vec<Vec<u8>> = (0..128)
            .map(|bit| {
                let mut blocks = vec![0; n * k / 2];
                blocks[bit / 8] = 1 << (bit % 8);
                blocks
            })
            .collect();
        inputs.push(noise(n * k / 2));
        let scales: Vec<u8> = (0..n * k / STEP).map(|i| 2 + (i % 127) as u8).collect();
        for (family, blocks) in Family::ALL.iter().flat_map(|f| inputs.iter().map(move |b| (f, b)))
        {
            let mut out = vec![0xff; n.div_ceil(ROWS) * (k / STEP) * pack::MXFP4_STEP_BYTES];
            mxfp4(*family, &mut out, (blocks, &scales), n, k, |row| n - 1 - row).unwrap();
            for (row, step) in (0..n).flat_map(|row| (0..k / STEP).map(move |step| (row, step))) {
                let from = (n - 1 - row) * (k / STEP) + step;
                let mut expected = [0; 16];
                let block = blocks[from * 16..][..16].try_into().unwrap();
                pack::mxfp4_row(*family, block, &mut expected);
                let at = (row / ROWS * (k / STEP) + step) * pack::MXFP4_STEP_BYTES;
                let got = &out[at + pack::mxfp4_row_offset(row % ROWS)..][..16];
                assert_eq!(got, expected, "{family:?}, row {row}, step {step}");
                assert_eq!(out[at + row % ROWS], pack::mxfp4_scale(*family, scales[from]));
            }
        }
    }

    /// Rows, columns, f32 and odd addresses are the same matrix.
    #[test]
    fn a_matrix_is_packed_alike_however_it_is_stored() {
        let (n, k, matrices) = (32, 64, 2);
        let bits: Vec<u16> = noise(2 * matrices * n * k)
            .chunks(2)
            // Finite, and of a size that MXINT8 holds.
            .map(|b| u16::from_le_bytes([b[0], b[1]]) & 0xbfff | 0x3000)
            .collect();
        let rows = |bytes: fn(u16) -> Vec<u8>| {
            let values = bits.iter().flat_map(|&bits| bytes(bits));
            std::iter::once(0).chain(values).collect::<Vec<u8>>()
        };
        let columns = |bytes: fn(u16) -> Vec<u8>| {
            let at = |i: usize| bits[i / (n * k) * (n * k) + i % n * k + i % (n * k) / n];
            let values = (0..bits.len()).flat_map(|i| bytes(at(i)));
            std::iter::once(0).chain(values).collect::<Vec<u8>>()
        };
        let short = |bits: u16| bits.to_le_bytes().to_vec();
        // A little above the value, and rounded back to it.
        let long = |bits: u16| (u32::from(bits) << 16 | 0x7fff).to_le_bytes().to_vec();
        let stored = [rows(short), rows(long), columns(short), columns(long)];
        let [a, b, c, d] = &stored;
        let sources = [
            Source::rows(Dtype::Bf16, &a[1..]),
            Source::rows(Dtype::F32, &b[1..]),
            Source::columns(Dtype::Bf16, &c[1..], n),
            Source::columns(Dtype::F32, &d[1..], n),
        ];
        for format in [DenseFormat::Bf16, DenseFormat::Mxint8] {
            let packed = sources.map(|source| {
                let mut out = vec![0u16; format.bytes(matrices * n, k) / 2];
                let bytes = bytemuck::cast_slice_mut(&mut out);
                let reversed = |row| matrices * n - 1 - row;
                dense(Family::Nvptx, format, bytes, source, (matrices * n, k), reversed).unwrap();
                out
            });
            for other in &packed[1..] {
                assert!(packed[0] == *other, "{format:?}");
            }
            if format == DenseFormat::Bf16 {
                for (row, column) in [(0, 0), (17, 33), (63, 63)] {
                    let at = shared::block::tiled_index(63 - row, column, k / STEP);
                    assert_eq!(packed[0][at], bits[row * k + column]);
                }
            }
        }
    }

    #[test]
    fn a_scale_out_of_range_is_refused_with_its_place_unless_the_block_is_zero() {
        let mut out = vec![0; pack::MXFP4_STEP_BYTES];
        let (mut blocks, mut scales) = (vec![0u8; 2 * 16], vec![120u8, 255]);
        // Minus zero is zero.
        blocks[17] = 0x88;
        assert_eq!(mxfp4(Family::Gfx11, &mut out, (&blocks, &scales), 2, 32, |r| r), Ok(()));
        assert_eq!(out[1], *pack::MXFP4_SCALES.start());
        blocks[16] = 3;
        scales[1] = 200;
        let refused = mxfp4(Family::Gfx11, &mut out, (&blocks, &scales), 2, 32, |r| r);
        assert_eq!(refused, Err(PackError::Mxfp4Scale { row: 1, column: 0, scale: 200 }));
    }
}
