//! AVX-512: one 512-bit register.

use std::arch::x86_64::*;

use super::{Kernel, LANES, Simd, Tile};

/// AVX-512 F, BW, DQ and VL, detected.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// The proof, if the CPU and the system have it.
    pub fn detect() -> Option<Avx512> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma");
        has.then_some(Avx512(()))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    fn run_inner<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
}

impl Simd for Avx512 {
    type V = __m512;
    const TILE: Tile = Tile::Large;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` exists only when `detect` found every feature `run_inner` enables.
        unsafe { self.run_inner(kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: `self` proves AVX-512 F.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m512 {
        // SAFETY: `self` proves AVX-512 F; `x` is 64 readable bytes.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES], x: __m512) {
        // SAFETY: `self` proves AVX-512 F; `to` is 64 writable bytes.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512 F.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn sum(self, x: __m512) -> f32 {
        // SAFETY: `self` proves AVX-512 F and DQ, and SSE3 comes with them.
        unsafe {
            let x = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
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
    fn f32s(self, x: &[u8; 4 * LANES]) -> __m512 {
        // SAFETY: `self` proves AVX-512 F; `x` is 64 readable bytes, read unaligned.
        unsafe { _mm512_loadu_ps(x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn bf16s(self, x: &[u8; 2 * LANES]) -> __m512 {
        // SAFETY: `self` proves AVX-512 F; `x` is 32 readable bytes, read unaligned.
        unsafe {
            let x = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x))
        }
    }

    #[inline(always)]
    fn bf16_pairs(self, x: &[u8; 4 * LANES]) -> (__m512, __m512) {
        // SAFETY: `self` proves AVX-512 F; `x` is 64 readable bytes, read unaligned.
        unsafe {
            let x = _mm512_loadu_si512(x.as_ptr().cast());
            let odd = _mm512_and_si512(x, _mm512_set1_epi32(!0xffff));
            (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(x)), _mm512_castsi512_ps(odd))
        }
    }

    #[inline(always)]
    fn mxfp4_pairs(self, x: &[u8; LANES], scale: f32) -> (__m512, __m512) {
        // SAFETY: `self` proves AVX-512 F; `x` is 16 readable bytes, read unaligned.
        unsafe {
            let table = _mm512_loadu_ps(shared::mxfp4::E2M1.as_ptr());
            // Scaling the table instead of the weights is the same product, done once.
            let table = _mm512_mul_ps(table, _mm512_set1_ps(scale));
            let codes = _mm512_cvtepu8_epi32(_mm_loadu_si128(x.as_ptr().cast()));
            // The permutation reads only the low four bits of an index.
            let even = _mm512_permutexvar_ps(codes, table);
            (even, _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(codes), table))
        }
    }
}
