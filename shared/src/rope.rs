//! Rotary position embedding: how a head is rotated, and how the table of angles lies in memory.
//!
//! The host makes the table (its logarithms and cosines are f64, rounded once); kernels and CPU
//! only look up. A row of the table is one position: `head_dim / 2` cosines, then as many sines,
//! both already multiplied by YaRN's concentration.

/// Rotates the pair of elements `i` and `i + head_dim / 2` by the angle with these (scaled)
/// cosine and sine.
#[inline(always)]
pub fn rotate(a: f32, b: f32, cos: f32, sin: f32) -> (f32, f32) {
    (a * cos - b * sin, b * cos + a * sin)
}
