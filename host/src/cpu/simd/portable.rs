//! Plain Rust: the definition of every operation.

use super::{Kernel, LANES, Simd, Tile};

/// Needs nothing of the CPU. Slow where `f32::mul_add` is a library call.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

#[inline(always)]
fn bf16_at(x: &[u8], i: usize) -> f32 {
    shared::bf16::to_f32(u16::from_le_bytes([x[2 * i], x[2 * i + 1]]))
}

impl Simd for Portable {
    type V = [f32; LANES];
    const TILE: Tile = Tile::Small;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::V {
        *x
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES], x: Self::V) {
        *to = x;
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn sum(self, x: Self::V) -> f32 {
        super::sum_lanes(x)
    }

    #[inline(always)]
    fn prefetch(self, _: *const u8) {}

    #[inline(always)]
    fn f32s(self, x: &[u8; 4 * LANES]) -> Self::V {
        let (words, _) = x.as_chunks::<4>();
        std::array::from_fn(|i| f32::from_le_bytes(words[i]))
    }

    #[inline(always)]
    fn bf16s(self, x: &[u8; 2 * LANES]) -> Self::V {
        std::array::from_fn(|i| bf16_at(x, i))
    }

    #[inline(always)]
    fn bf16_pairs(self, x: &[u8; 4 * LANES]) -> (Self::V, Self::V) {
        (std::array::from_fn(|i| bf16_at(x, 2 * i)), std::array::from_fn(|i| bf16_at(x, 2 * i + 1)))
    }

    #[inline(always)]
    fn mxfp4_pairs(self, x: &[u8; LANES], scale: f32) -> (Self::V, Self::V) {
        let value = |code: u8| shared::mxfp4::E2M1[usize::from(code & 15)] * scale;
        (std::array::from_fn(|i| value(x[i])), std::array::from_fn(|i| value(x[i] >> 4)))
    }
}
