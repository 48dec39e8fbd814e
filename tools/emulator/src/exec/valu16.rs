//! Vector arithmetic whose operands are all 16 bits wide.
//!
//! Half-precision operations are done in f32, which has more than twice the bits and so rounds
//! sums, products, quotients and roots as if done once; fused ones have their own path.

use super::float::{f16_to_f32, fma_f16};
use super::math;
use super::operand::{fetch16, fetch16_f32, finish_f16, write_mask, write16};
use super::valu32::{max_f32, med3, med3_f32, min_f32};
use super::wave::{LANES, Lanes};
use super::{Group, Inst, Outcome, Wave, unsupported};
use crate::isa::{Op, Src, Ty};

super::executor!(pub(super) executor = execute);

/// f32 lanes.
type Floats = [f32; LANES];

#[inline(always)]
fn execute(w: &mut Wave, _: &mut Group<'_>, i: &Inst) -> Outcome {
    let result = if i.ty == Ty::F16 {
        let sources = |n: usize| match (i.src[n], i.src_ty[n]) {
            (Src::None, _) => [0.0; LANES],
            (_, Ty::F16) => fetch16_f32(w, i, n),
            // Integer sources of conversions and exponents.
            _ => fetch16(w, i, n).map(|x| f32::from(x as i16)),
        };
        let r = float(i, w, &sources(0), &sources(1), &sources(2))
            .ok_or_else(|| unsupported(format!("{:?}", i.op)))?;
        finish_f16(w, i, &r)
    } else {
        integer(w, i).ok_or_else(|| unsupported(format!("{:?}", i.op)))?
    };
    let mask = write_mask(w, i);
    write16(w, i, mask, &result);
    Ok(())
}

#[inline(always)]
fn map1(a: &Floats, f: impl Fn(f32) -> f32) -> Floats {
    let mut r = [0.0; LANES];
    for l in 0..LANES {
        r[l] = f(a[l]);
    }
    r
}

#[inline(always)]
fn map2(a: &Floats, b: &Floats, f: impl Fn(f32, f32) -> f32) -> Floats {
    let mut r = [0.0; LANES];
    for l in 0..LANES {
        r[l] = f(a[l], b[l]);
    }
    r
}

#[inline(always)]
fn map3(a: &Floats, b: &Floats, c: &Floats, f: impl Fn(f32, f32, f32) -> f32) -> Floats {
    let mut r = [0.0; LANES];
    for l in 0..LANES {
        r[l] = f(a[l], b[l], c[l]);
    }
    r
}

/// Operations with a half-precision result.
#[inline(always)]
fn float(i: &Inst, w: &Wave, a: &Floats, b: &Floats, c: &Floats) -> Option<Floats> {
    use Op::*;
    let ieee = w.ieee;
    let min = |x: f32, y: f32| f32::from_bits(min_f32(x.to_bits(), y.to_bits(), ieee));
    let max = |x: f32, y: f32| f32::from_bits(max_f32(x.to_bits(), y.to_bits(), ieee));
    Some(match i.op {
        V_ADD_F16 => map2(a, b, |x, y| x + y),
        V_SUB_F16 => map2(a, b, |x, y| x - y),
        V_SUBREV_F16 => map2(a, b, |x, y| y - x),
        V_MUL_F16 => map2(a, b, |x, y| x * y),
        V_FMAC_F16 | V_FMA_F16 | V_FMAAK_F16 | V_FMAMK_F16 => map3(a, b, c, fma_f16),
        V_MIN_F16 => map2(a, b, min),
        V_MAX_F16 => map2(a, b, max),
        V_MIN3_F16 => map3(a, b, c, |x, y, z| min(min(x, y), z)),
        V_MAX3_F16 => map3(a, b, c, |x, y, z| max(max(x, y), z)),
        V_MINMAX_F16 => map3(a, b, c, |x, y, z| max(min(x, y), z)),
        V_MAXMIN_F16 => map3(a, b, c, |x, y, z| min(max(x, y), z)),
        V_MED3_F16 => map3(a, b, c, |x, y, z| {
            f32::from_bits(med3_f32(x.to_bits(), y.to_bits(), z.to_bits(), ieee))
        }),
        V_CVT_F16_I16 => *a,
        V_CVT_F16_U16 => fetch16(w, i, 0).map(|x| f32::from(x as u16)),
        V_RCP_F16 => map1(a, |x| 1.0 / x),
        V_SQRT_F16 => map1(a, f32::sqrt),
        V_RSQ_F16 => map1(a, |x| (1.0 / f64::from(x).sqrt()) as f32),
        V_LOG_F16 => map1(a, math::log2),
        V_EXP_F16 => map1(a, math::exp2),
        V_SIN_F16 => map1(a, math::sin_turns),
        V_COS_F16 => map1(a, math::cos_turns),
        V_FLOOR_F16 => map1(a, f32::floor),
        V_CEIL_F16 => map1(a, f32::ceil),
        V_TRUNC_F16 => map1(a, f32::trunc),
        V_RNDNE_F16 => map1(a, f32::round_ties_even),
        V_FRACT_F16 => map1(a, |x| (x - x.floor()).min(0.999_511_7)),
        V_FREXP_MANT_F16 => map1(a, super::valu32::frexp_mantissa),
        V_LDEXP_F16 => map2(a, b, |x, n| super::valu32::ldexp(x, n as i32)),
        V_DIV_FIXUP_F16 => map3(a, b, c, super::valu32::div_fixup),
        _ => return None,
    })
}

/// Operations with an integer result.
#[inline(always)]
fn integer(w: &Wave, i: &Inst) -> Option<Lanes> {
    use Op::*;
    let a = fetch16(w, i, 0);
    let b = if i.src[1] == Src::None { a } else { fetch16(w, i, 1) };
    let ternary = i.src[2] != Src::None && i.src_ty[2] != Ty::M;
    let c = if ternary { fetch16(w, i, 2) } else { a };
    let s = |x: u32| i32::from(x as i16);
    let map = |f: &dyn Fn(u32, u32, u32) -> u32| {
        let mut r = [0; LANES];
        for l in 0..LANES {
            r[l] = f(a[l], b[l], c[l]);
        }
        r
    };
    let unsigned = |x: u32| if i.clamp { x.min(0xffff) } else { x };
    let signed = |x: i32| (if i.clamp { x.clamp(-32768, 32767) } else { x }).cast_unsigned();
    Some(match i.op {
        V_MOV_B16 => a,
        V_NOT_B16 => map(&|x, _, _| !x),
        V_AND_B16 => map(&|x, y, _| x & y),
        V_OR_B16 => map(&|x, y, _| x | y),
        V_XOR_B16 => map(&|x, y, _| x ^ y),
        V_LSHLREV_B16 => map(&|x, y, _| y << (x & 15)),
        V_LSHRREV_B16 => map(&|x, y, _| y >> (x & 15)),
        V_ASHRREV_I16 => map(&|x, y, _| (s(y) >> (x & 15)).cast_unsigned()),
        V_ADD_NC_U16 => map(&|x, y, _| unsigned(x + y)),
        V_SUB_NC_U16 => {
            map(&|x, y, _| if i.clamp { x.saturating_sub(y) } else { x.wrapping_sub(y) })
        }
        V_ADD_NC_I16 => map(&|x, y, _| signed(s(x) + s(y))),
        V_SUB_NC_I16 => map(&|x, y, _| signed(s(x) - s(y))),
        V_MUL_LO_U16 => map(&|x, y, _| x * y),
        V_MAD_U16 => map(&|x, y, z| unsigned((x * y).wrapping_add(z))),
        V_MAD_I16 => map(&|x, y, z| signed(s(x) * s(y) + s(z))),
        V_MIN_U16 => map(&|x, y, _| x.min(y)),
        V_MAX_U16 => map(&|x, y, _| x.max(y)),
        V_MIN_I16 => map(&|x, y, _| s(x).min(s(y)).cast_unsigned()),
        V_MAX_I16 => map(&|x, y, _| s(x).max(s(y)).cast_unsigned()),
        V_MIN3_U16 => map(&|x, y, z| x.min(y).min(z)),
        V_MAX3_U16 => map(&|x, y, z| x.max(y).max(z)),
        V_MED3_U16 => map(&|x, y, z| med3(x, y, z)),
        V_MIN3_I16 => map(&|x, y, z| s(x).min(s(y)).min(s(z)).cast_unsigned()),
        V_MAX3_I16 => map(&|x, y, z| s(x).max(s(y)).max(s(z)).cast_unsigned()),
        V_MED3_I16 => map(&|x, y, z| med3(s(x), s(y), s(z)).cast_unsigned()),
        V_CNDMASK_B16 => {
            let mask = w.scalar(i.src[2]);
            let mut r = [0; LANES];
            for l in 0..LANES {
                r[l] = if mask >> l & 1 != 0 { b[l] } else { a[l] };
            }
            r
        }
        V_CVT_U16_F16 => map(&|x, _, _| u32::from(f16_to_f32(x) as u16)),
        V_CVT_I16_F16 => map(&|x, _, _| i32::from(f16_to_f32(x) as i16).cast_unsigned()),
        V_FREXP_EXP_I16_F16 => {
            map(&|x, _, _| super::valu32::frexp_exponent(f16_to_f32(x)).cast_unsigned())
        }
        _ => return None,
    })
}
