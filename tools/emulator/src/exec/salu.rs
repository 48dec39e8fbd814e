//! Scalar arithmetic.

use std::cmp::Ordering;

use super::float::{f16_to_f32, f32_to_f16, f32_to_f16_toward_zero, fma_f16};
use super::operand::flush32;
use super::valu32::{max_f32, min_f32};
use super::{Group, Inst, Outcome, Wave, unsupported};
use crate::isa::{EXEC, Op, Ty};

super::executor!(pub(super) executor = execute);

#[inline(always)]
fn execute(w: &mut Wave, _: &mut Group<'_>, i: &Inst) -> Outcome {
    let name_is_64 = i.ty == Ty::B64;
    if name_is_64 { wide(w, i) } else { narrow(w, i) }
}

/// Sets SCC where a result is not zero, and writes it.
#[inline(always)]
fn logic(w: &mut Wave, dst: u8, value: u32) {
    w.scc = value != 0;
    w.set_scalar(dst, value);
}

/// As [`logic`], for pairs.
#[inline(always)]
fn logic64(w: &mut Wave, dst: u8, value: u64) {
    w.scc = value != 0;
    w.set_scalar64(dst, value);
}

/// Saves EXEC in `dst` and replaces it.
#[inline(always)]
fn save_exec(w: &mut Wave, dst: u8, exec: u32) {
    let saved = w.exec();
    w.set_scalar(dst, saved);
    w.s[EXEC as usize] = exec;
    w.scc = exec != 0;
}

/// Bit field extraction with offset and width packed in `control`.
#[inline(always)]
fn field(value: u64, control: u32, bits: u32) -> (u64, u32) {
    let offset = control & (bits - 1);
    let width = (control >> 16 & 0x7f).min(bits);
    let mask = if width >= 64 { u64::MAX } else { (1 << width) - 1 };
    (value >> offset & mask, width)
}

#[inline(always)]
fn sign_extend(value: u64, width: u32) -> u64 {
    if width == 0 || width >= 64 {
        return value;
    }
    ((value << (64 - width)).cast_signed() >> (64 - width)).cast_unsigned()
}

/// Instructions whose name says 32 bits or less: moves and single bits.
#[inline(always)]
fn narrow(w: &mut Wave, i: &Inst) -> Outcome {
    use Op::*;
    let a = w.scalar(i.src[0]);
    let old = w.scalar(crate::isa::Src::S(i.dst));
    match i.op {
        S_MOV_B32 => w.set_scalar(i.dst, a),
        S_CMOV_B32 => {
            if w.scc {
                w.set_scalar(i.dst, a);
            }
        }
        S_BREV_B32 => w.set_scalar(i.dst, a.reverse_bits()),
        S_CTZ_I32_B32 => w.set_scalar(i.dst, if a == 0 { u32::MAX } else { a.trailing_zeros() }),
        S_CLZ_I32_U32 => w.set_scalar(i.dst, if a == 0 { u32::MAX } else { a.leading_zeros() }),
        S_CLS_I32 => w.set_scalar(i.dst, sign_run(a)),
        S_SEXT_I32_I8 => w.set_scalar(i.dst, i32::from(a as i8).cast_unsigned()),
        S_SEXT_I32_I16 => w.set_scalar(i.dst, i32::from(a as i16).cast_unsigned()),
        S_BITSET0_B32 => w.set_scalar(i.dst, old & !(1 << (a & 31))),
        S_BITSET1_B32 => w.set_scalar(i.dst, old | 1 << (a & 31)),
        S_ABS_I32 => logic(w, i.dst, a.cast_signed().wrapping_abs().cast_unsigned()),
        S_BCNT0_I32_B32 => logic(w, i.dst, a.count_zeros()),
        S_BCNT1_I32_B32 => logic(w, i.dst, a.count_ones()),
        S_NOT_B32 => logic(w, i.dst, !a),
        _ => return arithmetic(w, i),
    }
    Ok(())
}

/// Sums, products, shifts, the smaller and the larger.
#[inline(always)]
fn arithmetic(w: &mut Wave, i: &Inst) -> Outcome {
    use Op::*;
    let (a, b) = (w.scalar(i.src[0]), w.scalar(i.src[1]));
    let (sa, sb) = (a.cast_signed(), b.cast_signed());
    match i.op {
        S_ADD_U32 => carry(w, i.dst, a.overflowing_add(b)),
        S_SUB_U32 => carry(w, i.dst, a.overflowing_sub(b)),
        S_ADD_I32 => {
            let (sum, overflow) = sa.overflowing_add(sb);
            carry(w, i.dst, (sum.cast_unsigned(), overflow));
        }
        S_SUB_I32 => {
            let (difference, overflow) = sa.overflowing_sub(sb);
            carry(w, i.dst, (difference.cast_unsigned(), overflow));
        }
        S_ADDC_U32 => {
            let sum = u64::from(a) + u64::from(b) + u64::from(w.scc);
            carry(w, i.dst, (sum as u32, sum >> 32 != 0));
        }
        S_SUBB_U32 => {
            let taken = u64::from(b) + u64::from(w.scc);
            carry(w, i.dst, (a.wrapping_sub(taken as u32), taken > u64::from(a)));
        }
        S_ABSDIFF_I32 => logic(w, i.dst, sa.wrapping_sub(sb).wrapping_abs().cast_unsigned()),
        S_LSHL_B32 => logic(w, i.dst, a << (b & 31)),
        S_LSHR_B32 => logic(w, i.dst, a >> (b & 31)),
        S_ASHR_I32 => logic(w, i.dst, (sa >> (b & 31)).cast_unsigned()),
        S_LSHL1_ADD_U32 => shift_add(w, i.dst, a, 1, b),
        S_LSHL2_ADD_U32 => shift_add(w, i.dst, a, 2, b),
        S_LSHL3_ADD_U32 => shift_add(w, i.dst, a, 3, b),
        S_LSHL4_ADD_U32 => shift_add(w, i.dst, a, 4, b),
        S_MIN_I32 => pick(w, i.dst, a, b, sa < sb),
        S_MIN_U32 => pick(w, i.dst, a, b, a < b),
        S_MAX_I32 => pick(w, i.dst, a, b, sa >= sb),
        S_MAX_U32 => pick(w, i.dst, a, b, a >= b),
        _ => return bitwise(w, i),
    }
    Ok(())
}

/// Logic, fields, selection.
#[inline(always)]
fn bitwise(w: &mut Wave, i: &Inst) -> Outcome {
    use Op::*;
    let (a, b) = (w.scalar(i.src[0]), w.scalar(i.src[1]));
    let sa = a.cast_signed();
    let sb = b.cast_signed();
    match i.op {
        S_AND_B32 => logic(w, i.dst, a & b),
        S_OR_B32 => logic(w, i.dst, a | b),
        S_XOR_B32 => logic(w, i.dst, a ^ b),
        S_NAND_B32 => logic(w, i.dst, !(a & b)),
        S_NOR_B32 => logic(w, i.dst, !(a | b)),
        S_XNOR_B32 => logic(w, i.dst, !(a ^ b)),
        S_AND_NOT1_B32 => logic(w, i.dst, a & !b),
        S_OR_NOT1_B32 => logic(w, i.dst, a | !b),
        S_BFE_U32 => logic(w, i.dst, field(u64::from(a), b, 32).0 as u32),
        S_BFE_I32 => {
            // The shift is arithmetic, so that a field past the top repeats the sign.
            let (value, width) = field(i64::from(sa).cast_unsigned(), b, 32);
            logic(w, i.dst, sign_extend(value, width) as u32);
        }
        S_BFM_B32 => w.set_scalar(i.dst, ((1u32 << (a & 31)) - 1) << (b & 31)),
        S_MUL_I32 => w.set_scalar(i.dst, a.wrapping_mul(b)),
        S_MUL_HI_U32 => w.set_scalar(i.dst, ((u64::from(a) * u64::from(b)) >> 32) as u32),
        S_MUL_HI_I32 => w.set_scalar(i.dst, ((i64::from(sa) * i64::from(sb)) >> 32) as u32),
        S_CSELECT_B32 => w.set_scalar(i.dst, if w.scc { a } else { b }),
        S_PACK_LL_B32_B16 => w.set_scalar(i.dst, a & 0xffff | b << 16),
        S_PACK_LH_B32_B16 => w.set_scalar(i.dst, a & 0xffff | b & 0xffff_0000),
        S_PACK_HH_B32_B16 => w.set_scalar(i.dst, a >> 16 | b & 0xffff_0000),
        S_PACK_HL_B32_B16 => w.set_scalar(i.dst, a >> 16 | b << 16),
        _ => return comparison(w, i),
    }
    Ok(())
}

/// Comparisons, whose result is SCC.
#[inline(always)]
fn comparison(w: &mut Wave, i: &Inst) -> Outcome {
    use Op::*;
    let (a, b) = (w.scalar(i.src[0]), w.scalar(i.src[1]));
    let (sa, sb) = (a.cast_signed(), b.cast_signed());
    match i.op {
        S_CMP_EQ_I32 | S_CMP_EQ_U32 => w.scc = a == b,
        S_CMP_LG_I32 | S_CMP_LG_U32 => w.scc = a != b,
        S_CMP_GT_I32 => w.scc = sa > sb,
        S_CMP_GE_I32 => w.scc = sa >= sb,
        S_CMP_LT_I32 => w.scc = sa < sb,
        S_CMP_LE_I32 => w.scc = sa <= sb,
        S_CMP_GT_U32 => w.scc = a > b,
        S_CMP_GE_U32 => w.scc = a >= b,
        S_CMP_LT_U32 => w.scc = a < b,
        S_CMP_LE_U32 => w.scc = a <= b,
        S_BITCMP0_B32 => w.scc = a >> (b & 31) & 1 == 0,
        S_BITCMP1_B32 => w.scc = a >> (b & 31) & 1 == 1,
        _ => return masks(w, i),
    }
    Ok(())
}

/// Masks of EXEC.
#[inline(always)]
fn masks(w: &mut Wave, i: &Inst) -> Outcome {
    use Op::*;
    let (a, exec) = (w.scalar(i.src[0]), w.exec());
    match i.op {
        S_AND_SAVEEXEC_B32 => save_exec(w, i.dst, a & exec),
        S_OR_SAVEEXEC_B32 => save_exec(w, i.dst, a | exec),
        S_XOR_SAVEEXEC_B32 => save_exec(w, i.dst, a ^ exec),
        S_NAND_SAVEEXEC_B32 => save_exec(w, i.dst, !(a & exec)),
        S_NOR_SAVEEXEC_B32 => save_exec(w, i.dst, !(a | exec)),
        S_XNOR_SAVEEXEC_B32 => save_exec(w, i.dst, !(a ^ exec)),
        S_AND_NOT0_SAVEEXEC_B32 => save_exec(w, i.dst, !a & exec),
        S_OR_NOT0_SAVEEXEC_B32 => save_exec(w, i.dst, !a | exec),
        S_AND_NOT1_SAVEEXEC_B32 => save_exec(w, i.dst, a & !exec),
        S_OR_NOT1_SAVEEXEC_B32 => save_exec(w, i.dst, a | !exec),
        S_AND_NOT0_WREXEC_B32 => write_exec(w, i.dst, !a & exec),
        S_AND_NOT1_WREXEC_B32 => write_exec(w, i.dst, a & !exec),
        _ => return with_constant(w, i),
    }
    Ok(())
}

/// A register and a 16-bit constant, and the hardware registers.
#[inline(always)]
fn with_constant(w: &mut Wave, i: &Inst) -> Outcome {
    use Op::*;
    let k = i.imm;
    let old = w.scalar(crate::isa::Src::S(i.dst));
    match i.op {
        S_MOVK_I32 => w.set_scalar(i.dst, k.cast_unsigned()),
        S_CMOVK_I32 => {
            if w.scc {
                w.set_scalar(i.dst, k.cast_unsigned());
            }
        }
        S_CMPK_EQ_I32 | S_CMPK_EQ_U32 => w.scc = old == k.cast_unsigned(),
        S_CMPK_LG_I32 | S_CMPK_LG_U32 => w.scc = old != k.cast_unsigned(),
        S_CMPK_GT_I32 => w.scc = old.cast_signed() > k,
        S_CMPK_GE_I32 => w.scc = old.cast_signed() >= k,
        S_CMPK_LT_I32 => w.scc = old.cast_signed() < k,
        S_CMPK_LE_I32 => w.scc = old.cast_signed() <= k,
        S_CMPK_GT_U32 => w.scc = old > k.cast_unsigned(),
        S_CMPK_GE_U32 => w.scc = old >= k.cast_unsigned(),
        S_CMPK_LT_U32 => w.scc = old < k.cast_unsigned(),
        S_CMPK_LE_U32 => w.scc = old <= k.cast_unsigned(),
        S_ADDK_I32 => {
            let (sum, overflow) = old.cast_signed().overflowing_add(k);
            carry(w, i.dst, (sum.cast_unsigned(), overflow));
        }
        S_MULK_I32 => w.set_scalar(i.dst, old.wrapping_mul(k.cast_unsigned())),
        S_GETREG_B32 => {
            let value = read_hardware(w, k)?;
            w.set_scalar(i.dst, value);
        }
        S_SETREG_B32 => return write_hardware(w, k, old),
        S_SETREG_IMM32_B32 => return write_hardware(w, k, w.scalar(i.src[0])),
        _ => return float(w, i),
    }
    Ok(())
}

#[inline(always)]
fn carry(w: &mut Wave, dst: u8, (value, carry): (u32, bool)) {
    w.set_scalar(dst, value);
    w.scc = carry;
}

#[inline(always)]
fn pick(w: &mut Wave, dst: u8, a: u32, b: u32, first: bool) {
    w.set_scalar(dst, if first { a } else { b });
    w.scc = first;
}

#[inline(always)]
fn shift_add(w: &mut Wave, dst: u8, a: u32, shift: u32, b: u32) {
    let sum = (u64::from(a) << shift) + u64::from(b);
    carry(w, dst, (sum as u32, sum >> 32 != 0));
}

#[inline(always)]
fn write_exec(w: &mut Wave, dst: u8, exec: u32) {
    w.s[EXEC as usize] = exec;
    w.set_scalar(dst, exec);
    w.scc = exec != 0;
}

/// Leading bits equal to the sign bit, -1 when all are.
pub(super) fn sign_run(a: u32) -> u32 {
    let run = (a ^ (a.cast_signed() >> 31).cast_unsigned()).leading_zeros();
    if run == 32 { u32::MAX } else { run }
}

/// Splits the immediate of `s_getreg` and `s_setreg`: register, offset, width.
fn hardware_field(k: i32) -> (u32, u32, u32) {
    let k = k.cast_unsigned();
    (k & 63, k >> 6 & 31, (k >> 11 & 31) + 1)
}

fn read_hardware(w: &Wave, k: i32) -> Result<u32, Box<super::Trouble>> {
    let (register, offset, width) = hardware_field(k);
    let value = match register {
        1 => w.mode,
        // STATUS, TRAPSTS and the LDS allocation hold nothing that results may depend on.
        2 | 3 | 6 => 0,
        // HW_ID1 and HW_ID2 tell where a wave runs: everything runs on unit 0.
        23 | 24 => 0,
        // SHADER_CYCLES: a clock that only counts instructions, so that results stay the same.
        29 => w.counts.iter().sum::<u64>() as u32,
        _ => return Err(unsupported(format!("hardware register {register}"))),
    };
    Ok(((u64::from(value) >> offset) & ((1 << width) - 1)) as u32)
}

fn write_hardware(w: &mut Wave, k: i32, value: u32) -> Outcome {
    let (register, offset, width) = hardware_field(k);
    if register != 1 {
        return Err(unsupported(format!("write to hardware register {register}")));
    }
    let mask = (((1u64 << width) - 1) << offset) as u32;
    super::control::set_mode(w, w.mode & !mask | (u64::from(value) << offset) as u32 & mask)
}

/// Scalar floats of RDNA3.5.
#[inline(always)]
fn float(w: &mut Wave, i: &Inst) -> Outcome {
    use Op::*;
    let (a, b) = (w.scalar(i.src[0]), w.scalar(i.src[1]));
    let flush = |x: u32| if w.flush32 { flush32(x) } else { x };
    let (x, y) = (f32::from_bits(flush(a)), f32::from_bits(flush(b)));
    let z = f32::from_bits(flush(w.scalar(i.src[2])));
    let (hx, hy, hz) = (f16_to_f32(a), f16_to_f32(b), f16_to_f32(w.scalar(i.src[2])));
    let single = match i.op {
        S_CEIL_F32 => x.ceil(),
        S_FLOOR_F32 => x.floor(),
        S_TRUNC_F32 => x.trunc(),
        S_RNDNE_F32 => x.round_ties_even(),
        S_CVT_F32_I32 => a.cast_signed() as f32,
        S_CVT_F32_U32 => a as f32,
        S_CVT_F32_F16 => hx,
        S_CVT_HI_F32_F16 => f16_to_f32(a >> 16),
        S_ADD_F32 => x + y,
        S_SUB_F32 => x - y,
        S_MUL_F32 => x * y,
        S_MIN_F32 => f32::from_bits(min_f32(x.to_bits(), y.to_bits(), w.ieee)),
        S_MAX_F32 => f32::from_bits(max_f32(x.to_bits(), y.to_bits(), w.ieee)),
        S_FMAAK_F32 | S_FMAMK_F32 | S_FMAC_F32 => x.mul_add(y, z),
        _ => return float_other(w, i, [x, y], [hx, hy, hz]),
    };
    let result = flush(single.to_bits());
    w.set_scalar(i.dst, result);
    Ok(())
}

fn float_other(w: &mut Wave, i: &Inst, [x, y]: [f32; 2], [hx, hy, hz]: [f32; 3]) -> Outcome {
    use Op::*;
    let half = match i.op {
        S_CVT_I32_F32 => x as i32 as u32,
        S_CVT_U32_F32 => x as u32,
        S_CVT_F16_F32 => f32_to_f16(x),
        S_CVT_PK_RTZ_F16_F32 => f32_to_f16_toward_zero(x) | f32_to_f16_toward_zero(y) << 16,
        S_CEIL_F16 => f32_to_f16(hx.ceil()),
        S_FLOOR_F16 => f32_to_f16(hx.floor()),
        S_TRUNC_F16 => f32_to_f16(hx.trunc()),
        S_RNDNE_F16 => f32_to_f16(hx.round_ties_even()),
        S_ADD_F16 => f32_to_f16(hx + hy),
        S_SUB_F16 => f32_to_f16(hx - hy),
        S_MUL_F16 => f32_to_f16(hx * hy),
        S_MIN_F16 => f32_to_f16(f32::from_bits(min_f32(hx.to_bits(), hy.to_bits(), w.ieee))),
        S_MAX_F16 => f32_to_f16(f32::from_bits(max_f32(hx.to_bits(), hy.to_bits(), w.ieee))),
        S_FMAC_F16 => f32_to_f16(fma_f16(hx, hy, hz)),
        _ => return compare(w, i, [x, y], [hx, hy]),
    };
    w.set_scalar(i.dst, half);
    Ok(())
}

fn compare(w: &mut Wave, i: &Inst, [x, y]: [f32; 2], [hx, hy]: [f32; 2]) -> Outcome {
    use Op::*;
    let order = if i.ty == Ty::F16 { hx.partial_cmp(&hy) } else { x.partial_cmp(&y) };
    let less = order == Some(Ordering::Less);
    let equal = order == Some(Ordering::Equal);
    let greater = order == Some(Ordering::Greater);
    w.scc = match i.op {
        S_CMP_LT_F32 | S_CMP_LT_F16 => less,
        S_CMP_EQ_F32 | S_CMP_EQ_F16 => equal,
        S_CMP_LE_F32 | S_CMP_LE_F16 => less || equal,
        S_CMP_GT_F32 | S_CMP_GT_F16 => greater,
        S_CMP_LG_F32 | S_CMP_LG_F16 => less || greater,
        S_CMP_GE_F32 | S_CMP_GE_F16 => greater || equal,
        S_CMP_O_F32 | S_CMP_O_F16 => order.is_some(),
        S_CMP_U_F32 | S_CMP_U_F16 => order.is_none(),
        S_CMP_NGE_F32 | S_CMP_NGE_F16 => !(greater || equal),
        S_CMP_NLG_F32 | S_CMP_NLG_F16 => !(less || greater),
        S_CMP_NGT_F32 | S_CMP_NGT_F16 => !greater,
        S_CMP_NLE_F32 | S_CMP_NLE_F16 => !(less || equal),
        S_CMP_NEQ_F32 | S_CMP_NEQ_F16 => !equal,
        S_CMP_NLT_F32 | S_CMP_NLT_F16 => !less,
        op => return Err(unsupported(format!("scalar {op:?}"))),
    };
    Ok(())
}

/// Instructions whose name says 64 bits.
#[inline(always)]
fn wide(w: &mut Wave, i: &Inst) -> Outcome {
    use Op::*;
    let (a, b) = (w.scalar64(i.src[0]), w.scalar64(i.src[1]));
    let b32 = w.scalar(i.src[1]);
    match i.op {
        S_MOV_B64 => w.set_scalar64(i.dst, a),
        S_CMOV_B64 => {
            if w.scc {
                w.set_scalar64(i.dst, a);
            }
        }
        S_BREV_B64 => w.set_scalar64(i.dst, a.reverse_bits()),
        S_CTZ_I32_B64 => w.set_scalar(i.dst, if a == 0 { u32::MAX } else { a.trailing_zeros() }),
        S_CLZ_I32_U64 => w.set_scalar(i.dst, if a == 0 { u32::MAX } else { a.leading_zeros() }),
        S_CLS_I32_I64 => {
            let run = (a ^ (a.cast_signed() >> 63).cast_unsigned()).leading_zeros();
            w.set_scalar(i.dst, if run == 64 { u32::MAX } else { run });
        }
        S_BITSET0_B64 | S_BITSET1_B64 => {
            let old = w.scalar64(crate::isa::Src::S(i.dst));
            let bit = 1u64 << (a & 63);
            let set = i.op == S_BITSET1_B64;
            w.set_scalar64(i.dst, if set { old | bit } else { old & !bit });
        }
        S_BCNT0_I32_B64 => logic(w, i.dst, a.count_zeros()),
        S_BCNT1_I32_B64 => logic(w, i.dst, a.count_ones()),
        S_NOT_B64 => logic64(w, i.dst, !a),
        S_LSHL_B64 => logic64(w, i.dst, a << (b32 & 63)),
        S_LSHR_B64 => logic64(w, i.dst, a >> (b32 & 63)),
        S_ASHR_I64 => logic64(w, i.dst, (a.cast_signed() >> (b32 & 63)).cast_unsigned()),
        S_AND_B64 => logic64(w, i.dst, a & b),
        S_OR_B64 => logic64(w, i.dst, a | b),
        S_XOR_B64 => logic64(w, i.dst, a ^ b),
        S_NAND_B64 => logic64(w, i.dst, !(a & b)),
        S_NOR_B64 => logic64(w, i.dst, !(a | b)),
        S_XNOR_B64 => logic64(w, i.dst, !(a ^ b)),
        S_AND_NOT1_B64 => logic64(w, i.dst, a & !b),
        S_OR_NOT1_B64 => logic64(w, i.dst, a | !b),
        S_BFE_U64 => logic64(w, i.dst, field(a, b32, 64).0),
        S_BFE_I64 => {
            let (value, width) = field(a, b32, 64);
            logic64(w, i.dst, sign_extend(value, width));
        }
        S_BFM_B64 => w.set_scalar64(i.dst, ((1u64 << (a & 63)) - 1) << (b & 63)),
        S_CSELECT_B64 => w.set_scalar64(i.dst, if w.scc { a } else { b }),
        S_BITCMP0_B64 => w.scc = a >> (b32 & 63) & 1 == 0,
        S_BITCMP1_B64 => w.scc = a >> (b32 & 63) & 1 == 1,
        S_CMP_EQ_U64 => w.scc = a == b,
        S_CMP_LG_U64 => w.scc = a != b,
        op => return Err(unsupported(format!("scalar {op:?}"))),
    }
    Ok(())
}
