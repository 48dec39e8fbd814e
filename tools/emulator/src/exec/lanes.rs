//! Instructions with lane masks: comparisons, carries, and moves between lanes.

use std::cmp::Ordering;

use super::float::f16_to_f32;
use super::operand::{
    Lanes64, fetch16, fetch32, fetch64, finish_f32, finish_f64, write_mask, write32, write64,
};
use super::wave::{LANES, Lanes};
use super::{Group, Inst, Outcome, Wave, unsupported};
use crate::isa::{EXEC, Op, Src, Ty, VCC};

super::executor!(pub(super) executor = execute);
super::executor!(pub(super) carry_executor = execute_carry);
super::executor!(pub(super) compare_executor = execute_compare);

/// Gathers one bit per lane.
#[inline(always)]
fn mask_of(f: impl Fn(usize) -> bool) -> u32 {
    let mut bits = [0u32; LANES];
    for (l, bit) in bits.iter_mut().enumerate() {
        *bit = u32::from(f(l)) << l;
    }
    bits.iter().fold(0, |mask, bit| mask | bit)
}

#[inline(always)]
fn execute_compare(w: &mut Wave, _: &mut Group<'_>, i: &Inst) -> Outcome {
    let opcode = i.imm.cast_unsigned();
    let code = opcode & 0x7f;
    let mask = if code >= 125 {
        class(w, i)
    } else {
        match i.src_ty[0] {
            Ty::F16 => {
                let (a, b) = (fetch16(w, i, 0).map(f16_to_f32), fetch16(w, i, 1).map(f16_to_f32));
                ordered(code & 15, &a, &b)
            }
            Ty::F32 => {
                let (mut ba, mut bb) = ([0; LANES], [0; LANES]);
                let a = fetch32(w, i, 0, &mut ba).map(f32::from_bits);
                let b = fetch32(w, i, 1, &mut bb).map(f32::from_bits);
                ordered(code & 15, &a, &b)
            }
            Ty::F64 => {
                let (a, b) = (fetch64(w, i, 0), fetch64(w, i, 1));
                ordered(code & 15, &a.map(f64::from_bits), &b.map(f64::from_bits))
            }
            Ty::B16 => {
                let (a, b) = (fetch16(w, i, 0), fetch16(w, i, 1));
                if code < 56 {
                    total(code & 7, &a.map(|x| x as i16), &b.map(|x| x as i16))
                } else {
                    total(code & 7, &a, &b)
                }
            }
            Ty::B32 => {
                let (mut ba, mut bb) = ([0; LANES], [0; LANES]);
                let (a, b) = (fetch32(w, i, 0, &mut ba), fetch32(w, i, 1, &mut bb));
                if code < 72 {
                    total(code & 7, &a.map(u32::cast_signed), &b.map(u32::cast_signed))
                } else {
                    total(code & 7, a, b)
                }
            }
            Ty::I64 => {
                let (a, b) = (fetch64(w, i, 0), fetch64(w, i, 1));
                total(code & 7, &a.map(u64::cast_signed), &b.map(u64::cast_signed))
            }
            _ => total(code & 7, &fetch64(w, i, 0), &fetch64(w, i, 1)),
        }
    };
    let mask = mask & write_mask(w, i);
    if opcode & 0x80 != 0 {
        w.s[EXEC as usize] = mask;
    } else {
        w.set_scalar(i.sdst, mask);
    }
    Ok(())
}

/// Comparison of totally ordered values.
#[inline(always)]
fn total<T: Ord>(condition: u32, a: &[T; LANES], b: &[T; LANES]) -> u32 {
    match condition {
        0 => 0,
        1 => mask_of(|l| a[l] < b[l]),
        2 => mask_of(|l| a[l] == b[l]),
        3 => mask_of(|l| a[l] <= b[l]),
        4 => mask_of(|l| a[l] > b[l]),
        5 => mask_of(|l| a[l] != b[l]),
        6 => mask_of(|l| a[l] >= b[l]),
        _ => u32::MAX,
    }
}

/// Comparison of floats; the second eight conditions are the negations of the first, reversed.
#[inline(always)]
fn ordered<T: PartialOrd>(condition: u32, a: &[T; LANES], b: &[T; LANES]) -> u32 {
    if condition >= 8 {
        return !ordered_half(15 - condition, a, b);
    }
    ordered_half(condition, a, b)
}

#[inline(always)]
#[allow(clippy::eq_op)]
fn ordered_half<T: PartialOrd>(condition: u32, a: &[T; LANES], b: &[T; LANES]) -> u32 {
    match condition {
        0 => 0,
        1 => mask_of(|l| a[l] < b[l]),
        2 => mask_of(|l| a[l] == b[l]),
        3 => mask_of(|l| a[l] <= b[l]),
        4 => mask_of(|l| a[l] > b[l]),
        5 => {
            mask_of(|l| matches!(a[l].partial_cmp(&b[l]), Some(Ordering::Less | Ordering::Greater)))
        }
        6 => mask_of(|l| a[l] >= b[l]),
        _ => mask_of(|l| a[l] == a[l] && b[l] == b[l]),
    }
}

/// Membership of float classes: bit 0 signalling NaN, 1 quiet NaN, then -inf, -normal, -denormal,
/// -0, +0, +denormal, +normal, +inf.
fn class(w: &Wave, i: &Inst) -> u32 {
    let mut wanted: Lanes = [0; LANES];
    if i.src_ty[1] == Ty::B16 {
        wanted = fetch16(w, i, 1);
    } else {
        let mut buf = [0; LANES];
        wanted.copy_from_slice(fetch32(w, i, 1, &mut buf));
    }
    let (values, exponent_bits, mantissa_bits) = match i.src_ty[0] {
        Ty::F16 => (fetch16(w, i, 0).map(u64::from), 5, 10),
        Ty::F32 => {
            let mut buf = [0; LANES];
            (fetch32(w, i, 0, &mut buf).map(u64::from), 8, 23)
        }
        _ => (fetch64(w, i, 0), 11, 52),
    };
    mask_of(|l| {
        let x = values[l];
        let mantissa = x & ((1 << mantissa_bits) - 1);
        let top = (1u64 << exponent_bits) - 1;
        let exponent = x >> mantissa_bits & top;
        let negative = x >> (mantissa_bits + exponent_bits) & 1 != 0;
        let bit = if exponent == top && mantissa != 0 {
            (mantissa >> (mantissa_bits - 1)) as u32
        } else {
            let size = match (exponent, mantissa) {
                (0, 0) => 0,
                (0, _) => 1,
                (e, _) if e == top => 3,
                _ => 2,
            };
            if negative { 5 - size } else { 6 + size }
        };
        wanted[l] >> bit & 1 != 0
    })
}

#[inline(always)]
fn execute_carry(w: &mut Wave, _: &mut Group<'_>, i: &Inst) -> Outcome {
    use Op::*;
    match i.op {
        V_MAD_U64_U32 | V_MAD_I64_I32 => return mad64(w, i),
        V_DIV_SCALE_F32 => return div_scale_f32(w, i),
        V_DIV_SCALE_F64 => return div_scale_f64(w, i),
        // Undoes the scale of V_DIV_SCALE, whose direction shows in the quotient so far: AMD's
        // pseudo-code multiplies by 2^32 (2^64) always, which that scale contradicts.
        V_DIV_FMAS_F32 => {
            let (mut ba, mut bb, mut bc) = ([0; LANES], [0; LANES], [0; LANES]);
            let (a, b) = (fetch32(w, i, 0, &mut ba), fetch32(w, i, 1, &mut bb));
            let c = fetch32(w, i, 2, &mut bc);
            let vcc = w.s[VCC as usize];
            let mut r = [0; LANES];
            for l in 0..LANES {
                let f = |x: u32| f64::from(f32::from_bits(x));
                let scale = match vcc >> l & 1 != 0 {
                    true if f(c[l]).abs() >= 2.0 => f64::exp2(64.0),
                    true => f64::exp2(-64.0),
                    false => 1.0,
                };
                let fused =
                    f32::from_bits(a[l]).mul_add(f32::from_bits(b[l]), f32::from_bits(c[l]));
                let scaled = fused * scale as f32;
                // A denormal quotient is rounded where it ends up and not before.
                let late = fma_to_odd(f(a[l]), f(b[l]), f(c[l])) * scale;
                r[l] = if scaled.is_subnormal() { late as f32 } else { scaled }.to_bits();
            }
            finish_f32(w, i, &mut r);
            write32(w, i.dst, w.exec(), &r);
            return Ok(());
        }
        V_DIV_FMAS_F64 => {
            let (a, b, c) = (fetch64(w, i, 0), fetch64(w, i, 1), fetch64(w, i, 2));
            let vcc = w.s[VCC as usize];
            let mut r: Lanes64 = [0; LANES];
            for l in 0..LANES {
                let f = f64::from_bits;
                let scale = match vcc >> l & 1 != 0 {
                    true if f(c[l]).abs() >= 2.0 => f64::exp2(128.0),
                    true => f64::exp2(-128.0),
                    false => 1.0,
                };
                let scaled = f(a[l]).mul_add(f(b[l]), f(c[l])) * scale;
                let late = fma_to_odd(f(a[l]), f(b[l]), f(c[l])) * scale;
                r[l] = if scaled.is_subnormal() { late } else { scaled }.to_bits();
            }
            finish_f64(w, i, &mut r);
            write64(w, i.dst, w.exec(), &r);
            return Ok(());
        }
        _ => {}
    }
    let (mut ba, mut bb) = ([0; LANES], [0; LANES]);
    let (a, b) = (*fetch32(w, i, 0, &mut ba), *fetch32(w, i, 1, &mut bb));
    let carry_in = if i.src[2] == Src::None { 0 } else { w.scalar(i.src[2]) };
    let subtract = !matches!(i.op, V_ADD_CO_U32 | V_ADD_CO_CI_U32);
    let reversed = matches!(i.op, V_SUBREV_CO_U32 | V_SUBREV_CO_CI_U32);
    let (a, b) = if reversed { (b, a) } else { (a, b) };
    if i.clamp {
        return Err(unsupported("clamp on a carry operation"));
    }
    let mut wide: Lanes64 = [0; LANES];
    for l in 0..LANES {
        let c = u64::from(carry_in >> l & 1);
        let (x, y) = (u64::from(a[l]), u64::from(b[l]));
        wide[l] = if subtract { x.wrapping_sub(y + c) } else { x + y + c };
    }
    let mask = write_mask(w, i);
    let carry = mask_of(|l| wide[l] >> 32 != 0) & mask;
    write32(w, i.dst, mask, &wide.map(|x| x as u32));
    w.set_scalar(i.sdst, carry);
    Ok(())
}

/// a * b + c rounded to odd: a later rounding to fewer bits is then as if done at once.
fn fma_to_odd(a: f64, b: f64, c: f64) -> f64 {
    let sum = a.mul_add(b, c);
    let product = a * b;
    let low = a.mul_add(b, -product);
    let total = product + c;
    let part = total - product;
    let error = (product - (total - part)) + (c - part);
    let rest = (total - sum) + (error + low);
    let bits = sum.to_bits();
    if rest == 0.0 || !rest.is_finite() || bits & 1 != 0 {
        return sum;
    }
    f64::from_bits(if (rest > 0.0) == (sum > 0.0) { bits + 1 } else { bits - 1 })
}

fn mad64(w: &mut Wave, i: &Inst) -> Outcome {
    let (mut ba, mut bb) = ([0; LANES], [0; LANES]);
    let (a, b) = (fetch32(w, i, 0, &mut ba), fetch32(w, i, 1, &mut bb));
    let c = fetch64(w, i, 2);
    let mut r: Lanes64 = [0; LANES];
    let mut overflow = 0;
    for l in 0..LANES {
        let (sum, carry) = if i.op == Op::V_MAD_U64_U32 {
            (u64::from(a[l]) * u64::from(b[l])).overflowing_add(c[l])
        } else {
            let product = i64::from(a[l].cast_signed()) * i64::from(b[l].cast_signed());
            let (sum, carry) = product.overflowing_add(c[l].cast_signed());
            (sum.cast_unsigned(), carry)
        };
        r[l] = sum;
        overflow |= u32::from(carry) << l;
    }
    let exec = w.exec();
    write64(w, i.dst, exec, &r);
    w.set_scalar(i.sdst, overflow & exec);
    Ok(())
}

/// Scales numerator or denominator so that the refinement of a division neither overflows nor
/// loses bits; the mask says where the quotient must be scaled back.
fn div_scale_f32(w: &mut Wave, i: &Inst) -> Outcome {
    let (mut ba, mut bb, mut bc) = ([0; LANES], [0; LANES], [0; LANES]);
    let a = fetch32(w, i, 0, &mut ba);
    let (b, c) = (fetch32(w, i, 1, &mut bb), fetch32(w, i, 2, &mut bc));
    let mut r = [0; LANES];
    let mut scaled = 0;
    for l in 0..LANES {
        let (value, denominator, numerator) =
            (f32::from_bits(a[l]), f32::from_bits(b[l]), f32::from_bits(c[l]));
        let exponent = |x: f32| (x.to_bits() >> 23 & 255) as i32;
        let up = super::valu32::ldexp(value, 64);
        let down = super::valu32::ldexp(value, -64);
        // AMD's pseudo-code looks for a denormal f64, which no f32 gives, and scales the
        // denominator up where both are tiny, which overflows: a denominator above 2^126 has a
        // reciprocal that the hardware flushes, so it is scaled down.
        let tiny_reciprocal = (1.0 / f64::from(denominator)).abs() < f64::from(f32::MIN_POSITIVE);
        let tiny_quotient = (numerator / denominator).is_subnormal();
        let (result, scale) = if numerator == 0.0 || denominator == 0.0 {
            (f32::NAN, false)
        } else if exponent(numerator) - exponent(denominator) >= 96 {
            (if a[l] == b[l] { up } else { value }, true)
        } else if denominator.is_subnormal() {
            (up, false)
        } else if tiny_reciprocal && tiny_quotient {
            (if a[l] == b[l] { down } else { value }, true)
        } else if tiny_reciprocal {
            (down, false)
        } else if tiny_quotient {
            (if a[l] == c[l] { up } else { value }, true)
        } else if exponent(numerator) <= 23 {
            (up, false)
        } else {
            (value, false)
        };
        r[l] = result.to_bits();
        scaled |= u32::from(scale) << l;
    }
    let exec = w.exec();
    write32(w, i.dst, exec, &r);
    w.set_scalar(i.sdst, scaled & exec);
    Ok(())
}

/// As [`div_scale_f32`].
fn div_scale_f64(w: &mut Wave, i: &Inst) -> Outcome {
    let (a, b, c) = (fetch64(w, i, 0), fetch64(w, i, 1), fetch64(w, i, 2));
    let mut r: Lanes64 = [0; LANES];
    let mut scaled = 0;
    for l in 0..LANES {
        let (value, denominator, numerator) =
            (f64::from_bits(a[l]), f64::from_bits(b[l]), f64::from_bits(c[l]));
        let exponent = |x: f64| (x.to_bits() >> 52 & 0x7ff) as i32;
        let up = super::valu64::ldexp(value, 128);
        let down = super::valu64::ldexp(value, -128);
        let tiny_reciprocal = (1.0 / denominator).is_subnormal();
        let tiny_quotient = (numerator / denominator).is_subnormal();
        let (result, scale) = if numerator == 0.0 || denominator == 0.0 {
            (f64::NAN, false)
        } else if exponent(numerator) - exponent(denominator) >= 768 {
            (if a[l] == b[l] { up } else { value }, true)
        } else if denominator.is_subnormal() {
            (up, false)
        } else if tiny_reciprocal && tiny_quotient {
            (if a[l] == b[l] { down } else { value }, true)
        } else if tiny_reciprocal {
            (down, false)
        } else if tiny_quotient {
            (if a[l] == c[l] { up } else { value }, true)
        } else if exponent(numerator) <= 53 {
            (up, false)
        } else {
            (value, false)
        };
        r[l] = result.to_bits();
        scaled |= u32::from(scale) << l;
    }
    let exec = w.exec();
    write64(w, i.dst, exec, &r);
    w.set_scalar(i.sdst, scaled & exec);
    Ok(())
}

#[inline(always)]
fn execute(w: &mut Wave, _: &mut Group<'_>, i: &Inst) -> Outcome {
    use Op::*;
    let exec = w.exec();
    match i.op {
        V_READLANE_B32 => {
            let lane = w.scalar(i.src[1]) as usize % LANES;
            let value = lane_value(w, i.src[0], lane);
            w.set_scalar(i.sdst, value);
        }
        V_READFIRSTLANE_B32 => {
            let lane = if exec == 0 { 0 } else { exec.trailing_zeros() as usize };
            let value = lane_value(w, i.src[0], lane);
            w.set_scalar(i.sdst, value);
        }
        V_WRITELANE_B32 => {
            let lane = w.scalar(i.src[1]) as usize % LANES;
            w.v.0[i.dst as usize][lane] = w.scalar(i.src[0]);
        }
        V_PERMLANE16_B32 | V_PERMLANEX16_B32 => permlane(w, i),
        // Swaps halves of a wave of 64; nothing to do in a wave of 32.
        V_PERMLANE64_B32 => {}
        V_SWAP_B32 => {
            let Src::V(other) = i.src[0] else { return Err(unsupported("swap operand")) };
            let (x, y) = (w.v.0[i.dst as usize], w.v.0[other as usize]);
            write32(w, i.dst, exec, &y);
            write32(w, other, exec, &x);
        }
        V_SWAP_B16 => return swap16(w, i),
        op => return Err(unsupported(format!("{op:?}"))),
    }
    Ok(())
}

fn lane_value(w: &Wave, src: Src, lane: usize) -> u32 {
    match src {
        Src::V(r) => w.v.0[r as usize][lane],
        scalar => w.scalar(scalar),
    }
}

/// Arbitrary permutation within rows of sixteen, or with the lanes of the other row.
fn permlane(w: &mut Wave, i: &Inst) {
    let selectors = u64::from(w.scalar(i.src[1])) | u64::from(w.scalar(i.src[2])) << 32;
    let (fetch_inactive, bound_control) = (i.op_sel & 1 != 0, i.op_sel & 2 != 0);
    let exec = w.exec();
    let mut result = w.v.0[i.dst as usize];
    for (lane, value) in result.iter_mut().enumerate() {
        let row = if i.op == Op::V_PERMLANE16_B32 { lane & 16 } else { !lane & 16 };
        let from = row | (selectors >> (4 * (lane & 15)) & 15) as usize;
        if fetch_inactive || exec >> from & 1 != 0 {
            *value = lane_value(w, i.src[0], from);
        } else if bound_control {
            *value = 0;
        }
    }
    write32(w, i.dst, exec, &result);
}

fn swap16(w: &mut Wave, i: &Inst) -> Outcome {
    let Src::V(other) = i.src[0] else { return Err(unsupported("swap operand")) };
    let exec = w.exec();
    let (dst_shift, src_shift) = (16 * (i.op_sel >> 3 & 1), 16 * (i.op_sel & 1));
    for lane in (0..LANES).filter(|lane| exec >> lane & 1 != 0) {
        let x = w.v.0[i.dst as usize][lane] >> dst_shift & 0xffff;
        let y = w.v.0[other as usize][lane] >> src_shift & 0xffff;
        let dst = &mut w.v.0[i.dst as usize][lane];
        *dst = *dst & !(0xffff << dst_shift) | y << dst_shift;
        let src = &mut w.v.0[other as usize][lane];
        *src = *src & !(0xffff << src_shift) | x << src_shift;
    }
    Ok(())
}
