//! Sixteen f32 lanes on every instruction set, bit for bit the same.
//!
//! Kernels are written once against [`Simd`] and compiled once per instruction set. Each
//! operation is either exactly rounded or a fixed sequence of such, so AVX-512, AVX2 and the
//! portable path agree on every bit.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use portable::Portable;

/// f32 lanes of the vector every kernel is written in.
pub const LANES: usize = 16;

/// One vector in memory.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub struct Line(pub [f32; LANES]);

impl Line {
    /// Every lane 0.
    pub const ZERO: Line = Line([0.0; LANES]);
}

/// Proof that the CPU has an instruction set, and its vector operations.
///
/// Methods are small and always inlined: they are only fast inside [`Simd::run`].
pub trait Simd: Copy + Send + Sync + 'static {
    /// Sixteen f32.
    type V: Copy;
    /// Rows of activations and outputs of a register tile that fit the register file.
    const TILE: Tile;

    /// Runs `kernel` compiled for this instruction set.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;
    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::V;
    /// Lane `i` is `x[i]`.
    fn load(self, x: &[f32; LANES]) -> Self::V;
    /// The reverse of [`Simd::load`].
    fn store(self, to: &mut [f32; LANES], x: Self::V);
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The sum of all lanes: halves are added lane by lane (8, 4, 2, 1).
    fn sum(self, x: Self::V) -> f32;
    /// Asks for the cache line at `address`, which need not be valid.
    fn prefetch(self, address: *const u8);
    /// Sixteen f32, little-endian, at any address.
    fn f32s(self, x: &[u8; 4 * LANES]) -> Self::V;
    /// Sixteen bf16, little-endian, at any address.
    fn bf16s(self, x: &[u8; 2 * LANES]) -> Self::V;
    /// 32 bf16: those at even indices, those at odd ones.
    fn bf16_pairs(self, x: &[u8; 4 * LANES]) -> (Self::V, Self::V);
    /// An MXFP4 block times its scale: elements at even indices (low nibbles), at odd ones.
    fn mxfp4_pairs(self, x: &[u8; LANES], scale: f32) -> (Self::V, Self::V);
}

/// The shape of a register tile; the sums it computes do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tile {
    /// 4 rows by 4 outputs.
    Large,
    /// 2 rows by 2 outputs.
    Small,
}

/// A computation to compile for each instruction set. `run` must be `#[inline(always)]`.
pub trait Kernel {
    /// The result.
    type Output;
    /// The computation.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Which instruction set to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Isa {
    /// The widest there is.
    #[default]
    Auto,
    /// Plain Rust.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

/// An instruction set this CPU has.
#[derive(Clone, Copy, Debug)]
pub enum Level {
    /// Plain Rust.
    Portable(Portable),
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-512 F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl Level {
    /// What `isa` names, if this CPU has it.
    pub fn new(isa: Isa) -> Option<Level> {
        #[cfg(target_arch = "x86_64")]
        let (avx2, avx512) = (Avx2::detect().map(Level::Avx2), Avx512::detect().map(Level::Avx512));
        #[cfg(not(target_arch = "x86_64"))]
        let (avx2, avx512) = (None, None);
        match isa {
            Isa::Auto => avx512.or(avx2).or(Some(Level::Portable(Portable))),
            Isa::Portable => Some(Level::Portable(Portable)),
            Isa::Avx2 => avx2,
            Isa::Avx512 => avx512,
        }
    }

    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(_) => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(_) => "AVX-512",
        }
    }

    /// Runs `kernel` on this instruction set.
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Level::Portable(simd) => simd.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(simd) => simd.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(simd) => simd.run(kernel),
        }
    }
}

/// The sum of sixteen lanes in the order of [`Simd::sum`], for plain code.
#[inline(always)]
pub fn sum_lanes(x: [f32; LANES]) -> f32 {
    let mut x = x;
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            x[i] += x[i + width];
        }
        width /= 2;
    }
    x[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every operation's bits on awkward inputs.
    struct Probe {
        bytes: [u8; 64],
    }

    impl Kernel for Probe {
        type Output = Vec<u32>;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Vec<u32> {
            let mut out = Vec::new();
            let mut keep = |x: S::V| {
                let mut lanes = [f32::NAN; LANES];
                s.store(&mut lanes, x);
                out.extend(lanes.map(f32::to_bits));
            };
            let x = s.f32s(&self.bytes);
            let (even, odd) = s.bf16_pairs(&self.bytes);
            let low: &[u8; 32] = self.bytes.first_chunk().unwrap();
            let block: &[u8; 16] = self.bytes.first_chunk().unwrap();
            for v in [x, even, odd, s.bf16s(low), s.fma(even, odd, x), s.splat(0.1)] {
                keep(v);
            }
            for scale in [1.0, 2f32.powi(-127), 2f32.powi(127), 2f32.powi(-3)] {
                let (low, high) = s.mxfp4_pairs(block, scale);
                keep(low);
                keep(high);
            }
            let sum = s.sum(s.fma(even, odd, x));
            out.push(sum.to_bits());
            out
        }
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state
        };
        for _ in 0..200 {
            let mut bytes = [0u8; 64];
            for pair in bytes.chunks_exact_mut(2) {
                // Exponents around 1 as bf16, so that sums stay finite and cancel.
                let bits = (next() >> 16) as u16;
                pair.copy_from_slice(&((bits & 0x83ff) | 0x3e00).to_le_bytes());
            }
            let portable = Portable.run(Probe { bytes });
            for isa in [Isa::Avx2, Isa::Avx512] {
                if let Some(level) = Level::new(isa) {
                    assert_eq!(level.run(Probe { bytes }), portable, "{}", level.name());
                }
            }
        }
    }

    #[test]
    fn portable_decodes_as_the_codecs_do() {
        let bytes: [u8; 64] = std::array::from_fn(|i| (i * 37 + 11) as u8);
        let block: &[u8; 16] = bytes.first_chunk().unwrap();
        let decoded = shared::mxfp4::decode_block(block, 125);
        let (even, odd) = Portable.mxfp4_pairs(block, shared::mxfp4::scale_to_f32(125));
        for i in 0..LANES {
            assert_eq!((even[i], odd[i]), (decoded[2 * i], decoded[2 * i + 1]));
        }
        let (even, odd) = Portable.bf16_pairs(&bytes);
        for i in 0..LANES {
            let at = |j: usize| {
                shared::bf16::to_f32(u16::from_le_bytes([bytes[2 * j], bytes[2 * j + 1]])).to_bits()
            };
            assert_eq!((even[i].to_bits(), odd[i].to_bits()), (at(2 * i), at(2 * i + 1)));
        }
    }

    #[test]
    fn plain_sum_is_the_vector_sum() {
        let lanes: [f32; LANES] = std::array::from_fn(|i| 0.1 * (i as f32).exp());
        assert_eq!(sum_lanes(lanes).to_bits(), Portable.sum(lanes).to_bits());
    }
}
