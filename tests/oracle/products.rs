//! Products with packed weights in f64: what every format decodes to, and the bounds on the sums.

use shared::bf16;
use shared::mxfp4;
use shared::pack;

use crate::basics::{Expected, U};

/// A weight matrix: what kernels get, and what it means.
pub struct Weights {
    /// Published form, by format.
    pub source: Source,
    /// `[n, k]`, the exact values.
    pub values: Vec<f64>,
}

/// Published form of a weight matrix.
pub enum Source {
    /// `[n, k]` bf16 bits; also what MXINT8 is quantised from.
    Bf16(Vec<u16>),
    /// `[n, k / 32, 16]` blocks and `[n, k / 32]` scales.
    Mxfp4(Vec<u8>, Vec<u8>),
}

/// The exact values of bf16 bits.
pub fn exact(bits: &[u16]) -> Vec<f64> {
    bits.iter().map(|&x| bf16::to_f32(x).into()).collect()
}

/// A matrix of bf16 weights.
pub fn bf16_weights(bits: Vec<u16>) -> Weights {
    let values = exact(&bits);
    Weights { source: Source::Bf16(bits), values }
}

/// The values that MXINT8 gives the rows of `bits[n, k]`, `k` a multiple of 32: each block of 32
/// quantised by its own scale.
pub fn mxint8_values(bits: &[u16]) -> Vec<f64> {
    let (blocks, _) = bits.as_chunks::<32>();
    let decode = |block: &[u16; 32]| {
        let (scale, bytes) = pack::mxint8_quantise(block).expect("values in range");
        bytes.map(|byte| f64::from(pack::mxint8_value(byte, scale)))
    };
    blocks.iter().flat_map(decode).collect()
}

/// Random MXFP4 weights `[n, k]` of magnitude about one: all codes, scales from 2^-3 to 2^0.
pub fn mxfp4_weights(n: usize, k: usize, seed: u32) -> Weights {
    let count = n * k / mxfp4::BLOCK;
    let words = crate::random::words(count * 5, seed);
    let (mut blocks, mut scales, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for words in words.chunks_exact(5) {
        let mut block = [0u8; mxfp4::BLOCK_BYTES];
        for (bytes, word) in block.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let scale = 124 + (words[4] >> 30) as u8;
        values.extend(mxfp4::decode_block(&block, scale).map(f64::from));
        blocks.extend(block);
        scales.push(scale);
    }
    Weights { source: Source::Mxfp4(blocks, scales), values }
}

/// `x[k] . w[k] + bias (+ old)`. The order of the sum inside one matrix instruction is not
/// documented for AMD, so the chain counts twice its textbook bound; then one rounding for the bias
/// and one for the old value.
pub fn output(x: &[f64], w: &[f64], bias: f32, old: Option<f32>) -> Expected {
    let sum: f64 = x.iter().zip(w).map(|(x, w)| x * w).sum();
    let magnitude: f64 = x.iter().zip(w).map(|(x, w)| (x * w).abs()).sum();
    let biased = sum + f64::from(bias);
    let value = biased + f64::from(old.unwrap_or(0.0));
    let last = if old.is_some() { value.abs() } else { 0.0 };
    let bound = 1.01 * U * (2.0 * x.len() as f64 * magnitude + biased.abs() + last);
    Expected { value, bound }
}
