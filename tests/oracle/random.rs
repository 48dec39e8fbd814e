//! Reproducible inputs: Philox streams, so that every machine tests the same numbers.

use shared::bf16;
use shared::philox::{philox4x32, uniform};

/// `len` random words of stream `seed`.
pub fn words(len: usize, seed: u32) -> Vec<u32> {
    let blocks = (0..len.div_ceil(4)).flat_map(|i| philox4x32([i as u32, 0, 0, 0], [seed, 0]));
    blocks.take(len).collect()
}

/// `len` values, uniform in `[-1, 1)`.
pub fn uniform_f32(len: usize, seed: u32) -> Vec<f32> {
    words(len, seed).into_iter().map(|word| 2.0 * uniform(word) - 1.0).collect()
}

/// `len` bf16 values, uniform in `[-1, 1]`, as bits.
pub fn uniform_bf16(len: usize, seed: u32) -> Vec<u16> {
    uniform_f32(len, seed).into_iter().map(bf16::from_f32).collect()
}
