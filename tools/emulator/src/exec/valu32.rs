//! Vector arithmetic whose operands are all 32 bits wide.

use super::math;
use super::operand::{fetch32, finish_f32, write_mask, write32};
use super::wave::{LANES, Lanes};
use super::{Group, Inst, Outcome, Wave, unsupported};
use crate::isa::{Op, Src, Ty};

super::executor!(pub(super) executor = execute);
super::executor!(pub(super) dual_executor = execute_dual);

#[inline(always)]
fn execute(w: &mut Wave, _: &mut Group<'_>, i: &Inst) -> Outcome {
    let mut result = [0; LANES];
    compute(w, i, &mut result)?;
    let mask = write_mask(w, i);
    write32(w, i.dst, mask, &result);
    Ok(())
}

/// Two operations that read before either writes.
#[inline(always)]
fn execute_dual(w: &mut Wave, group: &mut Group<'_>, x: &Inst) -> Outcome {
    let y = &group.program.insts[w.pc];
    w.pc += 1;
    let (mut first, mut second) = ([0; LANES], [0; LANES]);
    half(w, x, &mut first)?;
    half(w, y, &mut second)?;
    let mask = w.exec();
    write32(w, x.dst, mask, &first);
    write32(w, y.dst, mask, &second);
    Ok(())
}

/// One operation of a pair; only these may be paired.
#[inline(always)]
fn half(w: &Wave, i: &Inst, r: &mut Lanes) -> Outcome {
    if i.unit == crate::isa::Unit::Packed {
        *r = super::packed::compute(w, i)?;
        return Ok(());
    }
    let (mut ba, mut bb, mut bc) = ([0; LANES], [0; LANES], [0; LANES]);
    let a = fetch32(w, i, 0, &mut ba);
    let b = if i.src[1] == Src::None { a } else { fetch32(w, i, 1, &mut bb) };
    let c = if i.src[2] == Src::None { a } else { fetch32(w, i, 2, &mut bc) };
    match i.op {
        Op::V_FMAC_F32 | Op::V_FMAAK_F32 | Op::V_FMAMK_F32 => {
            float3(r, a, b, c, |x, y, z| x.mul_add(y, z));
        }
        Op::V_MUL_F32 => float2(r, a, b, |x, y| x * y),
        Op::V_ADD_F32 => float2(r, a, b, |x, y| x + y),
        Op::V_SUB_F32 => float2(r, a, b, |x, y| x - y),
        Op::V_SUBREV_F32 => float2(r, a, b, |x, y| y - x),
        Op::V_MUL_DX9_ZERO_F32 => float2(r, a, b, dx9_mul),
        Op::V_MAX_F32 => map2(r, a, b, |x, y| max_f32(x, y, w.ieee)),
        Op::V_MIN_F32 => map2(r, a, b, |x, y| min_f32(x, y, w.ieee)),
        Op::V_MOV_B32 => *r = *a,
        Op::V_CNDMASK_B32 => {
            for l in 0..LANES {
                r[l] = if c[l] >> l & 1 != 0 { b[l] } else { a[l] };
            }
        }
        Op::V_ADD_NC_U32 => map2(r, a, b, u32::wrapping_add),
        Op::V_LSHLREV_B32 => map2(r, a, b, |x, y| y << (x & 31)),
        Op::V_AND_B32 => map2(r, a, b, |x, y| x & y),
        op => return Err(unsupported(format!("dual {op:?}"))),
    }
    if i.ty == Ty::F32 {
        finish_f32(w, i, r);
    }
    Ok(())
}

#[inline(always)]
fn map1(r: &mut Lanes, a: &Lanes, f: impl Fn(u32) -> u32) {
    for l in 0..LANES {
        r[l] = f(a[l]);
    }
}

#[inline(always)]
fn map2(r: &mut Lanes, a: &Lanes, b: &Lanes, f: impl Fn(u32, u32) -> u32) {
    for l in 0..LANES {
        r[l] = f(a[l], b[l]);
    }
}

#[inline(always)]
fn map3(r: &mut Lanes, a: &Lanes, b: &Lanes, c: &Lanes, f: impl Fn(u32, u32, u32) -> u32) {
    for l in 0..LANES {
        r[l] = f(a[l], b[l], c[l]);
    }
}

#[inline(always)]
fn float1(r: &mut Lanes, a: &Lanes, f: impl Fn(f32) -> f32) {
    map1(r, a, |x| f(f32::from_bits(x)).to_bits());
}

#[inline(always)]
fn float2(r: &mut Lanes, a: &Lanes, b: &Lanes, f: impl Fn(f32, f32) -> f32) {
    map2(r, a, b, |x, y| f(f32::from_bits(x), f32::from_bits(y)).to_bits());
}

#[inline(always)]
fn float3(r: &mut Lanes, a: &Lanes, b: &Lanes, c: &Lanes, f: impl Fn(f32, f32, f32) -> f32) {
    map3(r, a, b, c, |x, y, z| {
        f(f32::from_bits(x), f32::from_bits(y), f32::from_bits(z)).to_bits()
    });
}

/// Computes the lanes of a result, output modifiers applied.
#[inline(always)]
fn compute(w: &Wave, i: &Inst, r: &mut Lanes) -> Outcome {
    let (mut ba, mut bb, mut bc) = ([0; LANES], [0; LANES], [0; LANES]);
    let a = fetch32(w, i, 0, &mut ba);
    let b = if i.src[1] == Src::None { a } else { fetch32(w, i, 1, &mut bb) };
    let c = if i.src[2] == Src::None { a } else { fetch32(w, i, 2, &mut bc) };
    if i.ty == Ty::F32 {
        if !float(i.op, w.ieee, a, b, c, r) {
            return Err(unsupported(format!("{:?}", i.op)));
        }
        finish_f32(w, i, r);
    } else if i.clamp {
        return saturating(i, a, b, r);
    } else if !integer(i, a, b, c, r) {
        return Err(unsupported(format!("{:?}", i.op)));
    }
    Ok(())
}

/// Operations with an f32 result.
#[inline(always)]
fn float(op: Op, ieee: bool, a: &Lanes, b: &Lanes, c: &Lanes, r: &mut Lanes) -> bool {
    use Op::*;
    let min = |x, y| min_f32(x, y, ieee);
    let max = |x, y| max_f32(x, y, ieee);
    match op {
        V_ADD_F32 => float2(r, a, b, |x, y| x + y),
        V_SUB_F32 => float2(r, a, b, |x, y| x - y),
        V_SUBREV_F32 => float2(r, a, b, |x, y| y - x),
        V_MUL_F32 => float2(r, a, b, |x, y| x * y),
        V_FMAC_F32 | V_FMA_F32 | V_FMAAK_F32 | V_FMAMK_F32 => {
            float3(r, a, b, c, |x, y, z| x.mul_add(y, z))
        }
        V_MUL_DX9_ZERO_F32 => float2(r, a, b, dx9_mul),
        V_FMA_DX9_ZERO_F32 | V_FMAC_DX9_ZERO_F32 => {
            float3(r, a, b, c, |x, y, z| if x == 0.0 || y == 0.0 { z } else { x.mul_add(y, z) })
        }
        V_MIN_F32 => map2(r, a, b, min),
        V_MAX_F32 => map2(r, a, b, max),
        V_MIN3_F32 => map3(r, a, b, c, |x, y, z| min(min(x, y), z)),
        V_MAX3_F32 => map3(r, a, b, c, |x, y, z| max(max(x, y), z)),
        V_MINMAX_F32 => map3(r, a, b, c, |x, y, z| max(min(x, y), z)),
        V_MAXMIN_F32 => map3(r, a, b, c, |x, y, z| min(max(x, y), z)),
        V_MED3_F32 => map3(r, a, b, c, |x, y, z| med3_f32(x, y, z, ieee)),
        V_FRACT_F32 => float1(r, a, |x| (x - x.floor()).min(f32::from_bits(0x3f7f_ffff))),
        V_TRUNC_F32 => float1(r, a, f32::trunc),
        V_CEIL_F32 => float1(r, a, f32::ceil),
        V_RNDNE_F32 => float1(r, a, f32::round_ties_even),
        V_FLOOR_F32 => float1(r, a, f32::floor),
        V_EXP_F32 => float1(r, a, math::exp2),
        V_LOG_F32 => float1(r, a, math::log2),
        V_RCP_F32 | V_RCP_IFLAG_F32 => float1(r, a, math::rcp),
        V_RSQ_F32 => float1(r, a, math::rsq),
        V_SQRT_F32 => float1(r, a, math::sqrt),
        V_SIN_F32 => float1(r, a, math::sin_turns),
        V_COS_F32 => float1(r, a, math::cos_turns),
        V_CVT_F32_I32 => map1(r, a, |x| (x.cast_signed() as f32).to_bits()),
        V_CVT_F32_U32 => map1(r, a, |x| (x as f32).to_bits()),
        V_CVT_F32_UBYTE0 => map1(r, a, |x| ((x & 255) as f32).to_bits()),
        V_CVT_F32_UBYTE1 => map1(r, a, |x| ((x >> 8 & 255) as f32).to_bits()),
        V_CVT_F32_UBYTE2 => map1(r, a, |x| ((x >> 16 & 255) as f32).to_bits()),
        V_CVT_F32_UBYTE3 => map1(r, a, |x| ((x >> 24) as f32).to_bits()),
        V_FREXP_MANT_F32 => float1(r, a, frexp_mantissa),
        V_LDEXP_F32 => map2(r, a, b, |x, n| ldexp(f32::from_bits(x), n.cast_signed()).to_bits()),
        V_DIV_FIXUP_F32 => float3(r, a, b, c, div_fixup),
        _ => return false,
    }
    true
}

/// Operations with an integer result.
#[inline(always)]
fn integer(i: &Inst, a: &Lanes, b: &Lanes, c: &Lanes, r: &mut Lanes) -> bool {
    use Op::*;
    let s = u32::cast_signed;
    match i.op {
        V_MOV_B32 => *r = *a,
        V_NOT_B32 => map1(r, a, |x| !x),
        V_ADD_NC_U32 | V_ADD_NC_I32 => map2(r, a, b, u32::wrapping_add),
        V_SUB_NC_U32 | V_SUB_NC_I32 => map2(r, a, b, u32::wrapping_sub),
        V_SUBREV_NC_U32 => map2(r, a, b, |x, y| y.wrapping_sub(x)),
        V_AND_B32 => map2(r, a, b, |x, y| x & y),
        V_OR_B32 => map2(r, a, b, |x, y| x | y),
        V_XOR_B32 => map2(r, a, b, |x, y| x ^ y),
        V_XNOR_B32 => map2(r, a, b, |x, y| !(x ^ y)),
        V_LSHLREV_B32 => map2(r, a, b, |x, y| y << (x & 31)),
        V_LSHRREV_B32 => map2(r, a, b, |x, y| y >> (x & 31)),
        V_ASHRREV_I32 => map2(r, a, b, |x, y| (s(y) >> (x & 31)).cast_unsigned()),
        V_CNDMASK_B32 => {
            for l in 0..LANES {
                r[l] = if c[l] >> l & 1 != 0 { b[l] } else { a[l] };
            }
        }
        V_MUL_LO_U32 => map2(r, a, b, u32::wrapping_mul),
        V_MUL_HI_U32 => map2(r, a, b, |x, y| ((u64::from(x) * u64::from(y)) >> 32) as u32),
        V_MUL_HI_I32 => map2(r, a, b, |x, y| ((i64::from(s(x)) * i64::from(s(y))) >> 32) as u32),
        V_MUL_U32_U24 => map2(r, a, b, |x, y| u24(x).wrapping_mul(u24(y))),
        V_MUL_I32_I24 => map2(r, a, b, |x, y| i24(x).wrapping_mul(i24(y)).cast_unsigned()),
        V_MUL_HI_U32_U24 => {
            map2(r, a, b, |x, y| ((u64::from(u24(x)) * u64::from(u24(y))) >> 32) as u32)
        }
        V_MUL_HI_I32_I24 => {
            map2(r, a, b, |x, y| ((i64::from(i24(x)) * i64::from(i24(y))) >> 32) as u32)
        }
        V_MAD_U32_U24 => map3(r, a, b, c, |x, y, z| u24(x).wrapping_mul(u24(y)).wrapping_add(z)),
        V_MAD_I32_I24 => {
            map3(r, a, b, c, |x, y, z| i24(x).wrapping_mul(i24(y)).cast_unsigned().wrapping_add(z))
        }
        V_MIN_I32 => map2(r, a, b, |x, y| s(x).min(s(y)).cast_unsigned()),
        V_MAX_I32 => map2(r, a, b, |x, y| s(x).max(s(y)).cast_unsigned()),
        V_MIN_U32 => map2(r, a, b, u32::min),
        V_MAX_U32 => map2(r, a, b, u32::max),
        V_MIN3_I32 => map3(r, a, b, c, |x, y, z| s(x).min(s(y)).min(s(z)).cast_unsigned()),
        V_MAX3_I32 => map3(r, a, b, c, |x, y, z| s(x).max(s(y)).max(s(z)).cast_unsigned()),
        V_MIN3_U32 => map3(r, a, b, c, |x, y, z| x.min(y).min(z)),
        V_MAX3_U32 => map3(r, a, b, c, |x, y, z| x.max(y).max(z)),
        V_MED3_I32 => map3(r, a, b, c, |x, y, z| med3(s(x), s(y), s(z)).cast_unsigned()),
        V_MED3_U32 => map3(r, a, b, c, med3),
        V_MINMAX_U32 => map3(r, a, b, c, |x, y, z| x.min(y).max(z)),
        V_MAXMIN_U32 => map3(r, a, b, c, |x, y, z| x.max(y).min(z)),
        V_MINMAX_I32 => map3(r, a, b, c, |x, y, z| s(x).min(s(y)).max(s(z)).cast_unsigned()),
        V_MAXMIN_I32 => map3(r, a, b, c, |x, y, z| s(x).max(s(y)).min(s(z)).cast_unsigned()),
        V_XOR3_B32 => map3(r, a, b, c, |x, y, z| x ^ y ^ z),
        V_XAD_U32 => map3(r, a, b, c, |x, y, z| (x ^ y).wrapping_add(z)),
        V_LSHL_ADD_U32 => map3(r, a, b, c, |x, y, z| (x << (y & 31)).wrapping_add(z)),
        V_ADD_LSHL_U32 => map3(r, a, b, c, |x, y, z| x.wrapping_add(y) << (z & 31)),
        V_ADD3_U32 => map3(r, a, b, c, |x, y, z| x.wrapping_add(y).wrapping_add(z)),
        V_LSHL_OR_B32 => map3(r, a, b, c, |x, y, z| x << (y & 31) | z),
        V_AND_OR_B32 => map3(r, a, b, c, |x, y, z| x & y | z),
        V_OR3_B32 => map3(r, a, b, c, |x, y, z| x | y | z),
        V_BFI_B32 => map3(r, a, b, c, |x, y, z| x & y | !x & z),
        V_BFE_U32 => map3(r, a, b, c, |x, y, z| x >> (y & 31) & ((1 << (z & 31)) - 1)),
        V_BFE_I32 => map3(r, a, b, c, bfe_i32),
        V_BFM_B32 => map2(r, a, b, |x, y| ((1u32 << (x & 31)) - 1) << (y & 31)),
        V_PERM_B32 => map3(r, a, b, c, perm),
        _ => return integer_other(i, a, b, r),
    }
    true
}

/// Bit counts, conversions and the rest of the integer results.
#[inline(always)]
fn integer_other(i: &Inst, a: &Lanes, b: &Lanes, r: &mut Lanes) -> bool {
    use Op::*;
    let f = f32::from_bits;
    match i.op {
        V_BCNT_U32_B32 => map2(r, a, b, |x, y| x.count_ones().wrapping_add(y)),
        V_MBCNT_LO_U32_B32 => {
            for l in 0..LANES {
                r[l] = (a[l] & ((1 << l) - 1)).count_ones().wrapping_add(b[l]);
            }
        }
        // A wave of 32 has no lanes above 32.
        V_MBCNT_HI_U32_B32 => *r = *b,
        V_BFREV_B32 => map1(r, a, u32::reverse_bits),
        V_CLZ_I32_U32 => map1(r, a, |x| if x == 0 { u32::MAX } else { x.leading_zeros() }),
        V_CTZ_I32_B32 => map1(r, a, |x| if x == 0 { u32::MAX } else { x.trailing_zeros() }),
        V_CLS_I32 => map1(r, a, super::salu::sign_run),
        V_CVT_U32_F32 => map1(r, a, |x| f(x) as u32),
        V_CVT_I32_F32 => map1(r, a, |x| (f(x) as i32).cast_unsigned()),
        V_CVT_NEAREST_I32_F32 => map1(r, a, |x| ((f(x) + 0.5).floor() as i32).cast_unsigned()),
        V_CVT_FLOOR_I32_F32 => map1(r, a, |x| (f(x).floor() as i32).cast_unsigned()),
        V_FREXP_EXP_I32_F32 => map1(r, a, |x| frexp_exponent(f(x)).cast_unsigned()),
        _ => return false,
    }
    true
}

/// Integer operations with the clamp bit.
#[inline(never)]
fn saturating(i: &Inst, a: &Lanes, b: &Lanes, r: &mut Lanes) -> Outcome {
    use Op::*;
    let s = u32::cast_signed;
    match i.op {
        V_ADD_NC_U32 => map2(r, a, b, u32::saturating_add),
        V_SUB_NC_U32 => map2(r, a, b, u32::saturating_sub),
        V_SUBREV_NC_U32 => map2(r, a, b, |x, y| y.saturating_sub(x)),
        V_ADD_NC_I32 => map2(r, a, b, |x, y| s(x).saturating_add(s(y)).cast_unsigned()),
        V_SUB_NC_I32 => map2(r, a, b, |x, y| s(x).saturating_sub(s(y)).cast_unsigned()),
        V_CVT_U32_F32 | V_CVT_I32_F32 | V_MOV_B32 => {
            let plain = Inst { clamp: false, ..*i };
            if !integer(&plain, a, b, a, r) {
                return Err(unsupported("clamp"));
            }
        }
        op => return Err(unsupported(format!("clamp on {op:?}"))),
    }
    Ok(())
}

fn u24(x: u32) -> u32 {
    x & 0x00ff_ffff
}

fn i24(x: u32) -> i32 {
    (x << 8).cast_signed() >> 8
}

#[inline(always)]
pub(super) fn med3<T: Ord + Copy>(x: T, y: T, z: T) -> T {
    x.min(y).max(x.max(y).min(z))
}

#[inline(always)]
fn bfe_i32(x: u32, offset: u32, width: u32) -> u32 {
    let (offset, width) = (offset & 31, width & 31);
    let shifted = (x.cast_signed() >> offset).cast_unsigned();
    let unused = (32 - width) & 31;
    let field = ((shifted << unused).cast_signed() >> unused).cast_unsigned();
    if width == 0 { 0 } else { field }
}

/// Byte permutation: selectors 0 to 3 are bytes of `low`, 4 to 7 of `high`, 8 to 11 repeat a sign
/// bit, 12 is 0x00, higher ones 0xff.
#[inline(always)]
fn perm(high: u32, low: u32, selectors: u32) -> u32 {
    let data = u64::from(high) << 32 | u64::from(low);
    let mut r = 0;
    for k in 0..4 {
        let selector = selectors >> (8 * k) & 255;
        let byte = (data >> (8 * (selector & 7))) as u32 & 255;
        let sign = (data >> (16 * (selector & 3) + 15)) as u32 & 1;
        let value = match selector {
            0..=7 => byte,
            8..=11 => sign * 255,
            12 => 0,
            _ => 255,
        };
        r |= value << (8 * k);
    }
    r
}

#[inline(always)]
fn dx9_mul(x: f32, y: f32) -> f32 {
    if x == 0.0 || y == 0.0 { 0.0 } else { x * y }
}

#[inline(always)]
fn quiet(x: u32) -> u32 {
    x | 0x0040_0000
}

#[inline(always)]
fn is_nan(x: u32) -> bool {
    x & 0x7fff_ffff > 0x7f80_0000
}

#[inline(always)]
fn is_signalling(x: u32) -> bool {
    is_nan(x) && x & 0x0040_0000 == 0
}

/// Integer that orders floats as the hardware's minimum and maximum do, -0 before +0.
#[inline(always)]
fn order(x: u32) -> i32 {
    (x ^ ((x.cast_signed() >> 31).cast_unsigned() >> 1)).cast_signed()
}

/// The smaller of two f32; a number before a quiet NaN, -0 before +0.
#[inline(always)]
pub(super) fn min_f32(x: u32, y: u32, ieee: bool) -> u32 {
    let number = if order(x) < order(y) { x } else { y };
    pick_number(x, y, number, ieee)
}

/// The larger of two f32.
#[inline(always)]
pub(super) fn max_f32(x: u32, y: u32, ieee: bool) -> u32 {
    let number = if order(x) > order(y) { x } else { y };
    pick_number(x, y, number, ieee)
}

/// `number` unless a source is NaN; in IEEE mode a signalling one wins, quieted.
#[inline(always)]
fn pick_number(x: u32, y: u32, number: u32, ieee: bool) -> u32 {
    let r = if is_nan(y) {
        x
    } else if is_nan(x) {
        y
    } else {
        number
    };
    let r = if ieee && is_signalling(y) { quiet(y) } else { r };
    if ieee && is_signalling(x) { quiet(x) } else { r }
}

#[inline(always)]
pub(super) fn med3_f32(x: u32, y: u32, z: u32, ieee: bool) -> u32 {
    let low = min_f32(min_f32(x, y, ieee), z, ieee);
    let high = max_f32(max_f32(x, y, ieee), z, ieee);
    let middle = if high == x {
        max_f32(y, z, ieee)
    } else if high == y {
        max_f32(x, z, ieee)
    } else {
        max_f32(x, y, ieee)
    };
    if is_nan(x) || is_nan(y) || is_nan(z) { low } else { middle }
}

/// Mantissa in [1/2, 1).
#[inline(always)]
pub(super) fn frexp_mantissa(x: f32) -> f32 {
    if x == 0.0 || x.is_nan() || x.is_infinite() {
        return x;
    }
    let bits = f64::from(x).to_bits();
    f64::from_bits(bits & 0x800f_ffff_ffff_ffff | 0x3fe0_0000_0000_0000) as f32
}

/// Exponent that goes with [`frexp_mantissa`]; 0 for zero, infinities and NaN.
#[inline(always)]
pub(super) fn frexp_exponent(x: f32) -> i32 {
    if x == 0.0 || x.is_nan() || x.is_infinite() {
        return 0;
    }
    (f64::from(x).to_bits() >> 52 & 0x7ff) as i32 - 1022
}

/// x * 2^n, rounded once.
#[inline(always)]
pub(super) fn ldexp(x: f32, n: i32) -> f32 {
    let exponent = (n.clamp(-400, 400) + 1023) as u64;
    (f64::from(x) * f64::from_bits(exponent << 52)) as f32
}

/// Special cases of `numerator / denominator` around the computed `quotient`.
#[inline(always)]
pub(super) fn div_fixup(quotient: f32, denominator: f32, numerator: f32) -> f32 {
    let negative = (denominator.to_bits() ^ numerator.to_bits()) >> 31 != 0;
    let signed = |x: f32| if negative { -x } else { x };
    let exponent = |x: f32| (x.to_bits() >> 23 & 255) as i32;
    if numerator.is_nan() {
        f32::from_bits(quiet(numerator.to_bits()))
    } else if denominator.is_nan() {
        f32::from_bits(quiet(denominator.to_bits()))
    } else if numerator == 0.0 && denominator == 0.0
        || numerator.is_infinite() && denominator.is_infinite()
    {
        f32::from_bits(0xffc0_0000)
    } else if denominator == 0.0 || numerator.is_infinite() {
        signed(f32::INFINITY)
    } else if denominator.is_infinite()
        || numerator == 0.0
        || exponent(numerator) - exponent(denominator) < -150
    {
        signed(0.0)
    } else if quotient.is_nan() {
        // Finite operands: the estimate overflowed and its refinement subtracted infinities.
        signed(f32::INFINITY)
    } else {
        signed(quotient.abs())
    }
}
