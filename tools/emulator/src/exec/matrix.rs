//! Matrix instructions of RDNA3: D = A B + C with 16x16x16 tiles in a wave of 32.
//!
//! Lane l holds row l % 16 of A and column l % 16 of B, 16 values of k in order; the lanes above
//! 16 hold the same again, and those of the lower half are used. Element i of lane l of C and D
//! is row 2 i + l / 16, column l % 16.
//!
//! Order of accumulation, which the hardware does not document: each element starts from C and
//! takes its 16 products in ascending k, each fused with its addition in f32 (i32 wraps or, with
//! clamp, saturates at the end).

use super::float::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use super::wave::{LANES, Lanes};
use super::{Group, Inst, Outcome, Wave, unsupported};
use crate::isa::{Op, Src, Ty};

super::executor!(pub(super) executor = execute);

/// Edge of a tile.
const N: usize = 16;

/// A tile, row by row.
type Tile<T> = [[T; N]; N];

#[inline(always)]
fn execute(w: &mut Wave, group: &mut Group<'_>, i: &Inst) -> Outcome {
    use Op::*;
    if w.exec() != u32::MAX {
        return Err(unsupported("matrix instruction with lanes disabled"));
    }
    group.counters.matrix_macs += (N * N * N) as u64;
    match i.op {
        V_WMMA_F32_16X16X16_F16 => float(w, i, f16_to_f32),
        V_WMMA_F32_16X16X16_BF16 => float(w, i, bf16_to_f32),
        V_WMMA_F16_16X16X16_F16 => half(w, i, f16_to_f32, f32_to_f16),
        V_WMMA_BF16_16X16X16_BF16 => half(w, i, bf16_to_f32, f32_to_bf16),
        V_WMMA_I32_16X16X16_IU8 => integer(w, i, 8),
        V_WMMA_I32_16X16X16_IU4 => integer(w, i, 4),
        op => return Err(unsupported(format!("{op:?}"))),
    }
    Ok(())
}

/// The registers of source `n`.
#[inline(always)]
fn registers(w: &Wave, i: &Inst, n: usize) -> [Lanes; 8] {
    let mut r = [[0; LANES]; 8];
    for (k, row) in r.iter_mut().enumerate().take(i.src_ty[n].registers()) {
        *row = match i.src[n] {
            Src::V(v) => w.v.0[(v as usize + k) & 255],
            scalar => [w.scalar(scalar); LANES],
        };
    }
    r
}

/// A as rows of k and B as rows of columns (its transpose in registers), widened to f32.
#[inline(always)]
fn operands(w: &Wave, i: &Inst, widen: impl Fn(u32) -> f32) -> (Tile<f32>, Tile<f32>) {
    let (a, b) = (registers(w, i, 0), registers(w, i, 1));
    // Both end up indexed [k][row or column]; A is then read column-wise.
    let mut at = [[0.0; N]; N];
    let mut bt = [[0.0; N]; N];
    for k in 0..N / 2 {
        for l in 0..N {
            at[2 * k][l] = widen(a[k][l] & 0xffff);
            at[2 * k + 1][l] = widen(a[k][l] >> 16);
            bt[2 * k][l] = widen(b[k][l] & 0xffff);
            bt[2 * k + 1][l] = widen(b[k][l] >> 16);
        }
    }
    negate(i, 0, &mut at);
    negate(i, 1, &mut bt);
    (at, bt)
}

/// Source modifiers: `neg` on elements of even k, `abs` (neg_hi) on those of odd k.
#[inline(always)]
fn negate(i: &Inst, n: usize, tile: &mut Tile<f32>) {
    if (i.neg | i.abs) >> n & 1 == 0 {
        return;
    }
    for (k, row) in tile.iter_mut().enumerate() {
        let bits = if k % 2 == 0 { i.neg } else { i.abs };
        if bits >> n & 1 != 0 {
            row.iter_mut().for_each(|x| *x = -*x);
        }
    }
}

/// Accumulates one row of D.
#[inline(always)]
fn row(at: &Tile<f32>, bt: &Tile<f32>, m: usize, mut d: [f32; N]) -> [f32; N] {
    for k in 0..N {
        let x = at[k][m];
        for n in 0..N {
            d[n] = x.mul_add(bt[k][n], d[n]);
        }
    }
    d
}

/// f32 accumulator.
#[inline(always)]
fn float(w: &mut Wave, i: &Inst, widen: impl Fn(u32) -> f32) {
    let (at, bt) = operands(w, i, widen);
    let mut c = registers(w, i, 2);
    let and = if i.abs >> 2 & 1 != 0 { 0x7fff_ffff } else { u32::MAX };
    let xor = if i.neg >> 2 & 1 != 0 { 0x8000_0000 } else { 0 };
    for (v, lanes) in c.iter_mut().enumerate() {
        for upper in 0..2 {
            let mut d = [0.0; N];
            for n in 0..N {
                d[n] = f32::from_bits((lanes[N * upper + n] & and) ^ xor);
            }
            d = row(&at, &bt, 2 * v + upper, d);
            for n in 0..N {
                lanes[N * upper + n] = d[n].to_bits();
            }
        }
    }
    for (v, lanes) in c.iter().enumerate() {
        w.v.0[i.dst as usize + v] = *lanes;
    }
}

/// 16-bit accumulator in one half of each register (`op_sel` bit 2); the other half is kept.
#[inline(always)]
fn half(w: &mut Wave, i: &Inst, widen: impl Fn(u32) -> f32, narrow: impl Fn(f32) -> u32) {
    let (at, bt) = operands(w, i, &widen);
    let c = registers(w, i, 2);
    let shift = if i.op_sel >> 2 & 1 != 0 { 16 } else { 0 };
    for (v, lanes) in c.iter().enumerate() {
        let mut out = w.v.0[i.dst as usize + v];
        for upper in 0..2 {
            let mut d = [0.0; N];
            for n in 0..N {
                let x = widen(lanes[N * upper + n] >> shift & 0xffff);
                let x = if i.abs >> 2 & 1 != 0 { x.abs() } else { x };
                d[n] = if i.neg >> 2 & 1 != 0 { -x } else { x };
            }
            d = row(&at, &bt, 2 * v + upper, d);
            for n in 0..N {
                let old = &mut out[N * upper + n];
                *old = *old & !(0xffff << shift) | narrow(d[n]) << shift;
            }
        }
        w.v.0[i.dst as usize + v] = out;
    }
}

/// i32 accumulator over bytes or nibbles; `neg` says which sources are signed.
#[inline(always)]
fn integer(w: &mut Wave, i: &Inst, bits: usize) {
    let element = |registers: &[Lanes; 8], lane: usize, k: usize, n: usize| {
        let per_register = 32 / bits;
        let word = registers[k / per_register][lane];
        let top = word << (32 - bits - k % per_register * bits);
        if i.neg >> n & 1 != 0 {
            i64::from(top.cast_signed() >> (32 - bits))
        } else {
            i64::from(top >> (32 - bits))
        }
    };
    let (a, b, mut c) = (registers(w, i, 0), registers(w, i, 1), registers(w, i, 2));
    for (v, lanes) in c.iter_mut().enumerate() {
        for (lane, value) in lanes.iter_mut().enumerate() {
            let m = 2 * v + lane / N;
            let start = i64::from(value.cast_signed());
            let sum = (0..N)
                .fold(start, |sum, k| sum + element(&a, m, k, 0) * element(&b, lane % N, k, 1));
            let clamped = sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
            *value = if i.clamp { clamped } else { sum } as u32;
        }
    }
    for (v, lanes) in c.iter().enumerate() {
        w.v.0[i.dst as usize + v] = *lanes;
    }
    debug_assert_eq!(i.ty, Ty::W8);
}
