//! Which matrix element each lane holds, for every matrix instruction the kernels issue.
//!
//! Pure index arithmetic, so the host checks it without a GPU and the device uses it without a
//! table. Each instruction computes `D[m, n] = sum over k of A[m, k] * B[n, k] + C[m, n]` on a
//! 16 x 16 tile; B is indexed column first because weights are stored that way. `lane` counts
//! from 0 inside one wave, `i` counts the elements one lane holds, the lower half of each
//! register first.

/// Layout of one matrix instruction. D is laid out as C.
pub trait Frag {
    /// Rows of A and C.
    const M: u32 = 16;
    /// Columns of B and C.
    const N: u32 = 16;
    /// Products summed into each element.
    const K: u32 = 16;
    /// Lanes in a wave.
    const WAVE: u32;
    /// Elements of A one lane holds; B has as many.
    const AB_PER_LANE: u32;
    /// Elements of C one lane holds.
    const C_PER_LANE: u32 = Self::M * Self::N / Self::WAVE;

    /// `(m, k)` of element `i` of the lane's part of A.
    fn a_index(lane: u32, i: u32) -> (u32, u32);
    /// `(n, k)` of element `i` of the lane's part of B.
    fn b_index(lane: u32, i: u32) -> (u32, u32) {
        Self::a_index(lane, i)
    }
    /// `(m, n)` of element `i` of the lane's part of C.
    fn c_index(lane: u32, i: u32) -> (u32, u32);
}

/// RDNA3 `v_wmma_f32_16x16x16_bf16`: a lane holds a whole row of A and column of B, and lanes 16
/// to 31 repeat lanes 0 to 15.
///
/// Source: "RDNA3" ISA guide, section 7.9; gpuopen.com/learn/wmma_on_rdna3.
#[derive(Debug, Clone, Copy)]
pub struct Wmma11;

impl Frag for Wmma11 {
    const WAVE: u32 = 32;
    const AB_PER_LANE: u32 = 16;

    #[inline(always)]
    fn a_index(lane: u32, i: u32) -> (u32, u32) {
        (lane % 16, i)
    }

    #[inline(always)]
    fn c_index(lane: u32, i: u32) -> (u32, u32) {
        (2 * i + lane / 16, lane % 16)
    }
}

/// RDNA4 `v_wmma_f32_16x16x16_bf16`: the halves of the wave split k, nothing is repeated.
///
/// Source: "RDNA4" ISA guide, section 7.12. AMD's matrix instruction calculator gives a lane's
/// elements other k, the same ones in A and B. That is another naming only: the products that are
/// summed are the same pairs.
#[derive(Debug, Clone, Copy)]
pub struct Wmma12;

impl Frag for Wmma12 {
    const WAVE: u32 = 32;
    const AB_PER_LANE: u32 = 8;

    #[inline(always)]
    fn a_index(lane: u32, i: u32) -> (u32, u32) {
        (lane % 16, lane / 16 * 8 + i)
    }

    #[inline(always)]
    fn c_index(lane: u32, i: u32) -> (u32, u32) {
        (lane / 16 * 8 + i, lane % 16)
    }
}

/// CDNA2 and later `v_mfma_f32_16x16x16_bf16` (`_1k`): four groups of lanes split k, and m of C.
///
/// Source: "AMD Instinct MI200" ISA guide, chapter 7; AMD matrix instruction calculator.
#[derive(Debug, Clone, Copy)]
pub struct Mfma9;

impl Frag for Mfma9 {
    const WAVE: u32 = 64;
    const AB_PER_LANE: u32 = 4;

    #[inline(always)]
    fn a_index(lane: u32, i: u32) -> (u32, u32) {
        (lane % 16, lane / 16 * 4 + i)
    }

    #[inline(always)]
    fn c_index(lane: u32, i: u32) -> (u32, u32) {
        (lane / 16 * 4 + i, lane % 16)
    }
}

/// Two NVIDIA `mma.sync.m16n8k16`, the second for columns 8 to 15: eight groups of four lanes,
/// elements in pairs along k (A, B) or n (C).
///
/// Source: PTX ISA 8.0, "Matrix Fragments for mma.m16n8k16 with floating point type".
#[derive(Debug, Clone, Copy)]
pub struct Mma16816;

impl Frag for Mma16816 {
    const WAVE: u32 = 32;
    const AB_PER_LANE: u32 = 8;

    #[inline(always)]
    fn a_index(lane: u32, i: u32) -> (u32, u32) {
        let (group, pair) = (lane / 4, i / 2);
        (group + pair % 2 * 8, lane % 4 * 2 + pair / 2 * 8 + i % 2)
    }

    #[inline(always)]
    fn b_index(lane: u32, i: u32) -> (u32, u32) {
        let (group, pair) = (lane / 4, i / 2);
        (group + pair / 2 * 8, lane % 4 * 2 + pair % 2 * 8 + i % 2)
    }

    #[inline(always)]
    fn c_index(lane: u32, i: u32) -> (u32, u32) {
        let (group, half, pair) = (lane / 4, i / 4, i / 2 % 2);
        (group + pair * 8, half * 8 + lane % 4 * 2 + i % 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts the owners of each element of a 16 x 16 matrix.
    fn owners(wave: u32, per_lane: u32, index: fn(u32, u32) -> (u32, u32)) -> [[u32; 16]; 16] {
        let mut count = [[0; 16]; 16];
        for lane in 0..wave {
            for i in 0..per_lane {
                let (row, col) = index(lane, i);
                count[row as usize][col as usize] += 1;
            }
        }
        count
    }

    fn check<L: Frag>() {
        assert_eq!(owners(L::WAVE, L::C_PER_LANE, L::c_index), [[1; 16]; 16]);
        let copies = L::WAVE * L::AB_PER_LANE / (L::M * L::K);
        assert_eq!(owners(L::WAVE, L::AB_PER_LANE, L::a_index), [[copies; 16]; 16]);
        assert_eq!(owners(L::WAVE, L::AB_PER_LANE, L::b_index), [[copies; 16]; 16]);
    }

    #[test]
    fn every_element_has_its_owner() {
        check::<Wmma11>();
        check::<Wmma12>();
        check::<Mfma9>();
        check::<Mma16816>();
    }

    /// Kernels move A and B two bf16 at a time.
    #[test]
    fn elements_of_a_register_are_neighbours_in_k() {
        fn check<L: Frag>() {
            for (lane, i) in
                (0..L::WAVE).flat_map(|l| (0..L::AB_PER_LANE).step_by(2).map(move |i| (l, i)))
            {
                for index in [L::a_index, L::b_index] {
                    let (row, k) = index(lane, i);
                    assert_eq!(index(lane, i + 1), (row, k + 1));
                    assert!(k.is_multiple_of(2));
                }
            }
        }
        check::<Wmma11>();
        check::<Wmma12>();
        check::<Mfma9>();
        check::<Mma16816>();
    }
}
