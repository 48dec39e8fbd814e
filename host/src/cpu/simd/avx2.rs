//! AVX2 with FMA: two 256-bit registers, lanes 0 to 7 and 8 to 15.

use std::arch::x86_64::*;

use super::{Kernel, LANES, Simd, Tile};

/// AVX2 and FMA, detected.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The proof, if the CPU and the system have it.
    pub fn detect() -> Option<Avx2> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Avx2(()))
    }

    #[target_feature(enable = "avx2,fma")]
    fn run_inner<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    /// Eight MXFP4 codes (one per 32-bit lane, higher bits ignored) as values of the table of
    /// magnitudes.
    #[inline(always)]
    fn e2m1(self, codes: __m256i, magnitudes: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe {
            // The permutation reads only the low three bits of an index; the fourth is the sign.
            let value = _mm256_permutevar8x32_ps(magnitudes, codes);
            let sign = _mm256_slli_epi32::<31>(_mm256_srli_epi32::<3>(codes));
            _mm256_or_ps(value, _mm256_castsi256_ps(sign))
        }
    }
}

impl Simd for Avx2 {
    type V = [__m256; 2];
    const TILE: Tile = Tile::Small;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` exists only when `detect` found every feature `run_inner` enables.
        unsafe { self.run_inner(kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> [__m256; 2] {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> [__m256; 2] {
        // SAFETY: `self` proves AVX2; `x` is 64 readable bytes.
        unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))] }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES], x: [__m256; 2]) {
        // SAFETY: `self` proves AVX2; `to` is 64 writable bytes.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), x[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), x[1]);
        }
    }

    #[inline(always)]
    fn fma(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: `self` proves FMA.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    fn sum(self, x: [__m256; 2]) -> f32 {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let x = _mm256_add_ps(x[0], x[1]);
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: every x86-64 has SSE; a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    fn f32s(self, x: &[u8; 4 * LANES]) -> [__m256; 2] {
        // SAFETY: `self` proves AVX2; `x` is 64 readable bytes, read unaligned.
        unsafe { [_mm256_loadu_ps(x.as_ptr().cast()), _mm256_loadu_ps(x.as_ptr().add(32).cast())] }
    }

    #[inline(always)]
    fn bf16s(self, x: &[u8; 2 * LANES]) -> [__m256; 2] {
        // SAFETY: `self` proves AVX2; each half is 16 readable bytes, read unaligned.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(x.as_ptr().cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(x.as_ptr().add(16).cast()));
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            ]
        }
    }

    #[inline(always)]
    fn bf16_pairs(self, x: &[u8; 4 * LANES]) -> ([__m256; 2], [__m256; 2]) {
        // SAFETY: `self` proves AVX2; each half is 32 readable bytes, read unaligned.
        unsafe {
            let low = _mm256_loadu_si256(x.as_ptr().cast());
            let high = _mm256_loadu_si256(x.as_ptr().add(32).cast());
            let mask = _mm256_set1_epi32(!0xffff);
            let even = [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            ];
            let odd = [
                _mm256_castsi256_ps(_mm256_and_si256(low, mask)),
                _mm256_castsi256_ps(_mm256_and_si256(high, mask)),
            ];
            (even, odd)
        }
    }

    #[inline(always)]
    fn mxfp4_pairs(self, x: &[u8; LANES], scale: f32) -> ([__m256; 2], [__m256; 2]) {
        // SAFETY: `self` proves AVX2; `x` is 16 readable bytes, each half 8, read unaligned; the
        // table holds at least 8 values.
        unsafe {
            let magnitudes = _mm256_loadu_ps(shared::mxfp4::E2M1.as_ptr());
            let magnitudes = _mm256_mul_ps(magnitudes, _mm256_set1_ps(scale));
            let low = _mm256_cvtepu8_epi32(_mm_loadl_epi64(x.as_ptr().cast()));
            let high = _mm256_cvtepu8_epi32(_mm_loadl_epi64(x.as_ptr().add(8).cast()));
            let even = [self.e2m1(low, magnitudes), self.e2m1(high, magnitudes)];
            let (low, high) = (_mm256_srli_epi32::<4>(low), _mm256_srli_epi32::<4>(high));
            (even, [self.e2m1(low, magnitudes), self.e2m1(high, magnitudes)])
        }
    }
}
