//! Vector arithmetic with 64-bit operands.

use super::operand::{
    Lanes64, fetch32, fetch64, finish_f32, finish_f64, write_mask, write32, write64,
};
use super::wave::{LANES, Lanes};
use super::{Group, Inst, Outcome, Wave, unsupported};
use crate::isa::{Op, Src, Ty};

super::executor!(pub(super) executor = execute);

#[inline(always)]
fn execute(w: &mut Wave, _: &mut Group<'_>, i: &Inst) -> Outcome {
    let mask = write_mask(w, i);
    if i.ty.is_64() {
        let mut r = wide(w, i).ok_or_else(|| unsupported(format!("{:?}", i.op)))?;
        if i.ty == Ty::F64 {
            finish_f64(w, i, &mut r);
        }
        write64(w, i.dst, mask, &r);
    } else {
        let mut r =
            narrow(i, &fetch64(w, i, 0)).ok_or_else(|| unsupported(format!("{:?}", i.op)))?;
        if i.ty == Ty::F32 {
            finish_f32(w, i, &mut r);
        }
        write32(w, i.dst, mask, &r);
    }
    Ok(())
}

#[inline(always)]
fn map3(a: &Lanes64, b: &Lanes64, c: &Lanes64, f: impl Fn(f64, f64, f64) -> f64) -> Lanes64 {
    let mut r = [0; LANES];
    for l in 0..LANES {
        let v = f64::from_bits;
        r[l] = f(v(a[l]), v(b[l]), v(c[l])).to_bits();
    }
    r
}

/// Operations with a 64-bit result.
#[inline(always)]
fn wide(w: &Wave, i: &Inst) -> Option<Lanes64> {
    use Op::*;
    let source = |n: usize| match (i.src[n], i.src_ty[n].is_64()) {
        (Src::None, _) => [0; LANES],
        (_, true) => fetch64(w, i, n),
        (_, false) => {
            let mut buf = [0; LANES];
            fetch32(w, i, n, &mut buf).map(u64::from)
        }
    };
    let (a, b, c) = (source(0), source(1), source(2));
    let ieee = w.ieee;
    let float = |f: fn(f64) -> f64| map3(&a, &b, &c, |x, _, _| f(x));
    Some(match i.op {
        V_ADD_F64 => map3(&a, &b, &c, |x, y, _| x + y),
        V_MUL_F64 => map3(&a, &b, &c, |x, y, _| x * y),
        V_FMA_F64 => map3(&a, &b, &c, f64::mul_add),
        V_MIN_F64 => map3(&a, &b, &c, |x, y, _| min_f64(x, y, ieee)),
        V_MAX_F64 => map3(&a, &b, &c, |x, y, _| max_f64(x, y, ieee)),
        V_LDEXP_F64 => map3(&a, &b, &c, |x, n, _| ldexp(x, n.to_bits() as i32)),
        V_TRUNC_F64 => float(f64::trunc),
        V_CEIL_F64 => float(f64::ceil),
        V_RNDNE_F64 => float(f64::round_ties_even),
        V_FLOOR_F64 => float(f64::floor),
        V_FRACT_F64 => float(|x| (x - x.floor()).min(1.0f64.next_down())),
        V_RCP_F64 => float(|x| 1.0 / x),
        V_RSQ_F64 => float(|x| 1.0 / x.sqrt()),
        V_SQRT_F64 => float(f64::sqrt),
        V_FREXP_MANT_F64 => float(frexp_mantissa),
        V_DIV_FIXUP_F64 => map3(&a, &b, &c, div_fixup),
        V_CVT_F64_I32 => a.map(|x| f64::from(x as i32).to_bits()),
        V_CVT_F64_U32 => a.map(|x| f64::from(x as u32).to_bits()),
        V_CVT_F64_F32 => a.map(|x| f64::from(f32::from_bits(x as u32)).to_bits()),
        V_LSHLREV_B64 => shift(&a, &b, |x, n| x << n),
        V_LSHRREV_B64 => shift(&a, &b, |x, n| x >> n),
        V_ASHRREV_I64 => shift(&a, &b, |x, n| (x.cast_signed() >> n).cast_unsigned()),
        _ => return None,
    })
}

/// Shifts `b` by the low six bits of `a`.
#[inline(always)]
fn shift(a: &Lanes64, b: &Lanes64, f: impl Fn(u64, u32) -> u64) -> Lanes64 {
    let mut r = [0; LANES];
    for l in 0..LANES {
        r[l] = f(b[l], a[l] as u32 & 63);
    }
    r
}

/// Operations with a 32-bit result.
#[inline(always)]
fn narrow(i: &Inst, a: &Lanes64) -> Option<Lanes> {
    use Op::*;
    let f = f64::from_bits;
    Some(match i.op {
        V_CVT_I32_F64 => a.map(|x| (f(x) as i32).cast_unsigned()),
        V_CVT_U32_F64 => a.map(|x| f(x) as u32),
        V_CVT_F32_F64 => a.map(|x| (f(x) as f32).to_bits()),
        V_FREXP_EXP_I32_F64 => a.map(|x| frexp_exponent(f(x)).cast_unsigned()),
        _ => return None,
    })
}

/// x * 2^n, rounded once.
#[inline(always)]
pub(super) fn ldexp(x: f64, n: i32) -> f64 {
    let power = |n: i32| f64::from_bits(((n + 1023) as u64) << 52);
    if x == 0.0 || x.is_nan() || x.is_infinite() {
        return x;
    }
    // The mantissa is in [1/2, 1), so that only the last product can be inexact.
    let exponent = frexp_exponent(x).saturating_add(n).clamp(-1200, 1200);
    let mantissa = frexp_mantissa(x);
    if exponent > 1000 {
        mantissa * power(1000) * power(exponent - 1000)
    } else if exponent > -1000 {
        mantissa * power(exponent)
    } else {
        mantissa * power(-1000) * power(exponent + 1000)
    }
}

#[inline(always)]
fn is_signalling(x: f64) -> bool {
    x.is_nan() && x.to_bits() & 1 << 51 == 0
}

/// The smaller; a number before a quiet NaN, -0 before +0.
#[inline(always)]
fn min_f64(x: f64, y: f64, ieee: bool) -> f64 {
    if ieee && (is_signalling(x) || is_signalling(y)) {
        return f64::NAN;
    }
    if y.is_nan() || !x.is_nan() && (x < y || x == y && x.is_sign_negative()) { x } else { y }
}

/// The larger.
#[inline(always)]
fn max_f64(x: f64, y: f64, ieee: bool) -> f64 {
    if ieee && (is_signalling(x) || is_signalling(y)) {
        return f64::NAN;
    }
    if y.is_nan() || !x.is_nan() && (x > y || x == y && x.is_sign_positive()) { x } else { y }
}

/// Mantissa in [1/2, 1).
fn frexp_mantissa(x: f64) -> f64 {
    if x == 0.0 || x.is_nan() || x.is_infinite() {
        return x;
    }
    let normal = if x.is_subnormal() { x * 18_014_398_509_481_984.0 } else { x };
    f64::from_bits(normal.to_bits() & 0x800f_ffff_ffff_ffff | 0x3fe0_0000_0000_0000)
}

/// Exponent that goes with [`frexp_mantissa`].
fn frexp_exponent(x: f64) -> i32 {
    if x == 0.0 || x.is_nan() || x.is_infinite() {
        return 0;
    }
    let exponent = |x: f64| (x.to_bits() >> 52 & 0x7ff) as i32 - 1022;
    if x.is_subnormal() { exponent(x * 18_014_398_509_481_984.0) - 54 } else { exponent(x) }
}

/// Special cases of `numerator / denominator` around the computed `quotient`.
fn div_fixup(quotient: f64, denominator: f64, numerator: f64) -> f64 {
    let negative = denominator.is_sign_negative() != numerator.is_sign_negative();
    let signed = |x: f64| if negative { -x } else { x };
    let exponent = |x: f64| (x.to_bits() >> 52 & 0x7ff) as i32;
    if numerator.is_nan() {
        f64::from_bits(numerator.to_bits() | 1 << 51)
    } else if denominator.is_nan() {
        f64::from_bits(denominator.to_bits() | 1 << 51)
    } else if numerator == 0.0 && denominator == 0.0
        || numerator.is_infinite() && denominator.is_infinite()
    {
        f64::from_bits(0xfff8_0000_0000_0000)
    } else if denominator == 0.0 || numerator.is_infinite() {
        signed(f64::INFINITY)
    } else if denominator.is_infinite()
        || numerator == 0.0
        || exponent(numerator) - exponent(denominator) < -1075
    {
        signed(0.0)
    } else if quotient.is_nan() {
        // As for f32: the refinement overflowed.
        signed(f64::INFINITY)
    } else {
        signed(quotient.abs())
    }
}
