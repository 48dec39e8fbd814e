//! Conversions and other operations that mix 16-bit and 32-bit operands.

use super::float::{f16_to_f32, f32_to_f16_toward_zero};
use super::operand::{fetch16, fetch32, finish_f16, finish_f32, write_mask, write16, write32};
use super::wave::{LANES, Lanes};
use super::{Group, Inst, Outcome, Wave, unsupported};
use crate::isa::{Op, Src};

super::executor!(pub(super) executor = execute);

#[inline(always)]
fn execute(w: &mut Wave, _: &mut Group<'_>, i: &Inst) -> Outcome {
    use Op::*;
    let mask = write_mask(w, i);
    // Each source at the width of its type, 16-bit ones zero-extended.
    let source = |n: usize| -> Lanes {
        if i.src[n] == Src::None {
            [0; LANES]
        } else if i.src_ty[n].is_16() {
            fetch16(w, i, n)
        } else {
            let mut buf = [0; LANES];
            *fetch32(w, i, n, &mut buf)
        }
    };
    let (a, b, c) = (source(0), source(1), source(2));
    let f = f32::from_bits;
    let signed = |x: u32| i32::from(x as i16);
    let pack = |low: u32, high: u32| low & 0xffff | high << 16;
    let pairs = |convert: &dyn Fn(u32) -> u32| {
        let mut r = [0; LANES];
        for l in 0..LANES {
            r[l] = pack(convert(a[l]), convert(b[l]));
        }
        r
    };
    let r = match i.op {
        V_CVT_F16_F32 => {
            let r = finish_f16(w, i, &a.map(f));
            write16(w, i, mask, &r);
            return Ok(());
        }
        V_CVT_F32_F16 => {
            let mut r = a.map(|x| f16_to_f32(x).to_bits());
            finish_f32(w, i, &mut r);
            r
        }
        V_CVT_I32_I16 => a.map(|x| signed(x).cast_unsigned()),
        V_CVT_U32_U16 => a,
        V_CVT_PK_RTZ_F16_F32 => pairs(&|x| f32_to_f16_toward_zero(f(x))),
        V_PACK_B32_F16 => pairs(&|x| x),
        V_CVT_PK_I16_F32 => pairs(&|x| i32::from(f(x) as i16).cast_unsigned()),
        V_CVT_PK_U16_F32 => pairs(&|x| u32::from(f(x) as u16)),
        V_CVT_PK_U16_U32 => pairs(&|x| x.min(0xffff)),
        V_CVT_PK_I16_I32 => pairs(&|x| x.cast_signed().clamp(-32768, 32767).cast_unsigned()),
        V_ALIGNBIT_B32 | V_ALIGNBYTE_B32 => {
            let mut r = [0; LANES];
            for l in 0..LANES {
                let shift = if i.op == V_ALIGNBIT_B32 { c[l] & 31 } else { 8 * (c[l] & 3) };
                r[l] = ((u64::from(a[l]) << 32 | u64::from(b[l])) >> shift) as u32;
            }
            r
        }
        V_MAD_U32_U16 | V_MAD_I32_I16 if !i.clamp => {
            let mut r = [0; LANES];
            for l in 0..LANES {
                let product = if i.op == V_MAD_U32_U16 {
                    a[l] * b[l]
                } else {
                    (signed(a[l]) * signed(b[l])).cast_unsigned()
                };
                r[l] = product.wrapping_add(c[l]);
            }
            r
        }
        op => return Err(unsupported(format!("{op:?}"))),
    };
    write32(w, i.dst, mask, &r);
    Ok(())
}
