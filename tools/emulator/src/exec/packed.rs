//! Packed 16-bit arithmetic, dot products and mixed-precision multiply-add.

use super::float::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16, fma_f16};
use super::operand::{fetch16, finish_f16, finish_f32, write_mask, write16, write32};
use super::valu32::{max_f32, min_f32};
use super::wave::{LANES, Lanes};
use super::{Group, Inst, Outcome, Trouble, Wave, unsupported};
use crate::isa::{Op, Src, Ty};

super::executor!(pub(super) executor = execute);

#[inline(always)]
fn execute(w: &mut Wave, _: &mut Group<'_>, i: &Inst) -> Outcome {
    let r = compute(w, i)?;
    let mask = write_mask(w, i);
    match i.op {
        Op::V_FMA_MIXLO_F16 | Op::V_DOT2_F16_F16 | Op::V_DOT2_BF16_BF16 => {
            let half = Inst { op_sel: i.op_sel & 8, ..*i };
            write16(w, &half, mask, &r);
        }
        Op::V_FMA_MIXHI_F16 => {
            let half = Inst { op_sel: 8, ..*i };
            write16(w, &half, mask, &r);
        }
        _ => write32(w, i.dst, mask, &r),
    }
    Ok(())
}

/// Computes the lanes of a result.
#[inline(always)]
pub(super) fn compute(w: &Wave, i: &Inst) -> Result<Lanes, Box<Trouble>> {
    use Op::*;
    match i.op {
        V_DOT2_F32_F16 | V_DOT2ACC_F32_F16 | V_DOT2_F32_BF16 => Ok(dot2(w, i)),
        V_DOT2_F16_F16 | V_DOT2_BF16_BF16 => Ok(dot2_narrow(w, i)),
        V_DOT4_I32_IU8 | V_DOT4_U32_U8 | V_DOT8_I32_IU4 | V_DOT8_U32_U4 => Ok(dot_integer(w, i)),
        V_FMA_MIX_F32 | V_FMA_MIXLO_F16 | V_FMA_MIXHI_F16 => Ok(mix(w, i)),
        V_PK_FMA_F16 | V_PK_ADD_F16 | V_PK_MUL_F16 | V_PK_MIN_F16 | V_PK_MAX_F16
        | V_PK_FMAC_F16 => Ok(packed_float(w, i)),
        _ => packed_integer(w, i),
    }
}

/// Source `n` as 32-bit lanes.
#[inline(always)]
fn whole(w: &Wave, src: Src) -> Lanes {
    match src {
        Src::V(r) => w.v.0[r as usize],
        scalar => [w.scalar(scalar); LANES],
    }
}

/// Source `n`'s half for the low (`high` false) or high result, sign modifier applied.
#[inline(always)]
fn half(w: &Wave, i: &Inst, n: usize, high: bool) -> Lanes {
    let (select, negate) = if high { (i.op_sel_hi, i.abs) } else { (i.op_sel, i.neg) };
    let shift = if select >> n & 1 != 0 { 16 } else { 0 };
    let float = matches!(i.src_ty[n], Ty::PF16 | Ty::PBF16);
    let sign = if float && negate >> n & 1 != 0 { 0x8000 } else { 0 };
    let mut r = whole(w, i.src[n]);
    for x in &mut r {
        *x = (*x >> shift & 0xffff) ^ sign;
    }
    r
}

#[inline(always)]
fn packed_float(w: &Wave, i: &Inst) -> Lanes {
    let mut halves = [[0; LANES]; 2];
    for (high, result) in halves.iter_mut().enumerate() {
        let source = |n: usize| match i.src[n] {
            Src::None => [0.0; LANES],
            _ => half(w, i, n, high == 1).map(f16_to_f32),
        };
        let (a, b, c) = (source(0), source(1), source(2));
        let mut r = [0.0; LANES];
        for l in 0..LANES {
            r[l] = match i.op {
                Op::V_PK_ADD_F16 => a[l] + b[l],
                Op::V_PK_MUL_F16 => a[l] * b[l],
                Op::V_PK_MIN_F16 => f32::from_bits(min_f32(a[l].to_bits(), b[l].to_bits(), w.ieee)),
                Op::V_PK_MAX_F16 => f32::from_bits(max_f32(a[l].to_bits(), b[l].to_bits(), w.ieee)),
                _ => fma_f16(a[l], b[l], c[l]),
            };
        }
        *result = finish_f16(w, i, &r);
    }
    join(&halves)
}

#[inline(always)]
fn join(halves: &[Lanes; 2]) -> Lanes {
    let mut r = [0; LANES];
    for l in 0..LANES {
        r[l] = halves[0][l] & 0xffff | halves[1][l] << 16;
    }
    r
}

#[inline(always)]
fn packed_integer(w: &Wave, i: &Inst) -> Result<Lanes, Box<Trouble>> {
    use Op::*;
    let s = |x: u32| i32::from(x as i16);
    let clamp = i.clamp;
    let unsigned = |x: u32| if clamp { x.min(0xffff) } else { x };
    let signed = |x: i32| (if clamp { x.clamp(-32768, 32767) } else { x }).cast_unsigned();
    let mut halves = [[0; LANES]; 2];
    for (high, result) in halves.iter_mut().enumerate() {
        let source = |n: usize| match i.src[n] {
            Src::None => [0; LANES],
            _ => half(w, i, n, high == 1),
        };
        let (a, b, c) = (source(0), source(1), source(2));
        for l in 0..LANES {
            let (x, y, z) = (a[l], b[l], c[l]);
            result[l] = match i.op {
                V_PK_ADD_U16 => unsigned(x + y),
                V_PK_SUB_U16 if clamp => x.saturating_sub(y),
                V_PK_SUB_U16 => x.wrapping_sub(y),
                V_PK_ADD_I16 => signed(s(x) + s(y)),
                V_PK_SUB_I16 => signed(s(x) - s(y)),
                V_PK_MUL_LO_U16 => x * y,
                V_PK_MAD_U16 => unsigned((x * y).wrapping_add(z)),
                V_PK_MAD_I16 => signed(s(x) * s(y) + s(z)),
                V_PK_LSHLREV_B16 => y << (x & 15),
                V_PK_LSHRREV_B16 => y >> (x & 15),
                V_PK_ASHRREV_I16 => (s(y) >> (x & 15)).cast_unsigned(),
                V_PK_MAX_I16 => s(x).max(s(y)).cast_unsigned(),
                V_PK_MIN_I16 => s(x).min(s(y)).cast_unsigned(),
                V_PK_MAX_U16 => x.max(y),
                V_PK_MIN_U16 => x.min(y),
                op => return Err(unsupported(format!("{op:?}"))),
            };
        }
    }
    Ok(join(&halves))
}

/// c + a.lo * b.lo + a.hi * b.hi, rounded after each addition; products of halves are exact.
#[inline(always)]
fn dot2(w: &Wave, i: &Inst) -> Lanes {
    let widen = if i.src_ty[0] == Ty::PF16 { f16_to_f32 } else { bf16_to_f32 };
    let parts = |n: usize| [half(w, i, n, false).map(widen), half(w, i, n, true).map(widen)];
    let (a, b) = (parts(0), parts(1));
    let mut c = whole(w, i.src[2]);
    let sign = if i.neg >> 2 & 1 != 0 { 0x8000_0000 } else { 0 };
    for l in 0..LANES {
        let start = f32::from_bits(c[l] ^ sign);
        c[l] = (start + a[0][l] * b[0][l] + a[1][l] * b[1][l]).to_bits();
    }
    finish_f32(w, i, &mut c);
    c
}

/// As [`dot2`] with a 16-bit addend and result.
#[inline(always)]
fn dot2_narrow(w: &Wave, i: &Inst) -> Lanes {
    let half_precision = i.src_ty[0] == Ty::PF16;
    let widen = if half_precision { f16_to_f32 } else { bf16_to_f32 };
    let parts = |n: usize| {
        let raw = whole(w, i.src[n]);
        let float = |x: u32| {
            let y = widen(x & 0xffff);
            let y = if i.abs >> n & 1 != 0 { y.abs() } else { y };
            if i.neg >> n & 1 != 0 { -y } else { y }
        };
        [raw.map(float), raw.map(|x| float(x >> 16))]
    };
    let (a, b) = (parts(0), parts(1));
    let c = fetch16(w, i, 2).map(widen);
    let narrow = if half_precision { f32_to_f16 } else { f32_to_bf16 };
    let mut r = [0; LANES];
    for l in 0..LANES {
        let first = widen(narrow(c[l] + a[0][l] * b[0][l]));
        r[l] = narrow(first + a[1][l] * b[1][l]);
    }
    r
}

/// Integer dot products of four bytes or eight nibbles; `neg` says which sources are signed.
#[inline(always)]
fn dot_integer(w: &Wave, i: &Inst) -> Lanes {
    let bits = if matches!(i.op, Op::V_DOT4_I32_IU8 | Op::V_DOT4_U32_U8) { 8 } else { 4 };
    let mixed = matches!(i.op, Op::V_DOT4_I32_IU8 | Op::V_DOT8_I32_IU4);
    let (a, b, c) = (whole(w, i.src[0]), whole(w, i.src[1]), whole(w, i.src[2]));
    let element = |x: u32, k: u32, n: usize| {
        let top = x << (32 - bits - k * bits);
        if mixed && i.neg >> n & 1 != 0 {
            i64::from(top.cast_signed() >> (32 - bits))
        } else {
            i64::from(top >> (32 - bits))
        }
    };
    let mut r = [0; LANES];
    for l in 0..LANES {
        let start = if mixed { i64::from(c[l].cast_signed()) } else { i64::from(c[l]) };
        let sum =
            (0..32 / bits).fold(start, |sum, k| sum + element(a[l], k, 0) * element(b[l], k, 1));
        let clamped = if mixed {
            sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX))
        } else {
            sum.min(i64::from(u32::MAX))
        };
        r[l] = if i.clamp { clamped as u32 } else { sum as u32 };
    }
    r
}

/// Multiply-add whose sources are each f32 or a half of a register.
#[inline(always)]
fn mix(w: &Wave, i: &Inst) -> Lanes {
    let source = |n: usize| {
        let raw = whole(w, i.src[n]);
        let mut r = [0.0; LANES];
        for l in 0..LANES {
            let x = if i.op_sel_hi >> n & 1 == 0 {
                f32::from_bits(raw[l])
            } else {
                f16_to_f32(if i.op_sel >> n & 1 != 0 { raw[l] >> 16 } else { raw[l] & 0xffff })
            };
            let x = if i.abs >> n & 1 != 0 { x.abs() } else { x };
            r[l] = if i.neg >> n & 1 != 0 { -x } else { x };
        }
        r
    };
    let (a, b, c) = (source(0), source(1), source(2));
    let mut r = [0.0; LANES];
    for l in 0..LANES {
        r[l] = a[l].mul_add(b[l], c[l]);
    }
    if i.op == Op::V_FMA_MIX_F32 {
        let mut bits = r.map(f32::to_bits);
        finish_f32(w, i, &mut bits);
        return bits;
    }
    finish_f16(w, i, &r)
}
