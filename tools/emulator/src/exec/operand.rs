//! Reading vector operands with their modifiers, and writing results under EXEC.

use super::float::{f16_to_f32, f32_to_f16};
use super::wave::{LANES, Lanes, Wave};
use crate::isa::{Dpp, Inst, Op, Src, Ty};

/// A 64-bit register pair.
pub(crate) type Lanes64 = [u64; LANES];

/// Source `n` as 32-bit lanes, modifiers applied.
#[inline(always)]
pub(crate) fn fetch32<'a>(w: &'a Wave, i: &Inst, n: usize, buf: &'a mut Lanes) -> &'a Lanes {
    let float = i.src_ty[n] == Ty::F32;
    let flush = w.flush32 && float;
    if i.modified >> n & 1 == 0 && !flush {
        match i.src[n] {
            Src::V(r) => return &w.v.0[r as usize],
            other => {
                *buf = [w.scalar(other); LANES];
                return buf;
            }
        }
    }
    if n == 0 && i.dpp != Dpp::None {
        fetch_permuted(w, i, buf);
    } else {
        fetch_plain(w, i.src[n], 0, buf);
    }
    if float || selects(i) {
        let sign_and = if i.abs >> n & 1 != 0 { 0x7fff_ffff } else { u32::MAX };
        let sign_xor = if i.neg >> n & 1 != 0 { 0x8000_0000 } else { 0 };
        for x in buf.iter_mut() {
            *x = (*x & sign_and) ^ sign_xor;
        }
    }
    if flush {
        for x in buf.iter_mut() {
            *x = flush32(*x);
        }
    }
    buf
}

/// Instructions that choose between bits of any type, and yet have the sign modifiers of floats.
#[inline(always)]
fn selects(i: &Inst) -> bool {
    matches!(i.op, Op::V_CNDMASK_B32 | Op::V_CNDMASK_B16)
}

/// Source `src` as raw lanes; `register` 1 is the upper half of a pair.
#[inline(always)]
fn fetch_plain(w: &Wave, src: Src, register: usize, buf: &mut Lanes) {
    *buf = match src {
        Src::V(r) => w.v.0[(r as usize + register) & 255],
        other if register == 0 => [w.scalar(other); LANES],
        other => [(w.scalar64(other) >> 32) as u32; LANES],
    };
}

/// The first source, permuted by DPP.
#[inline(never)]
fn fetch_permuted(w: &Wave, i: &Inst, buf: &mut Lanes) {
    let mut raw = [0; LANES];
    fetch_plain(w, i.src[0], 0, &mut raw);
    for (lane, value) in buf.iter_mut().enumerate() {
        *value = dpp_source(i.dpp, lane, w.exec()).map_or(0, |from| raw[from]);
    }
}

/// Source `n` as raw lanes after DPP, before float modifiers.
#[inline(always)]
fn fetch_raw(w: &Wave, i: &Inst, n: usize, register: usize, buf: &mut Lanes) {
    if n == 0 && register == 0 && i.dpp != Dpp::None {
        fetch_permuted(w, i, buf);
    } else {
        fetch_plain(w, i.src[n], register, buf);
    }
}

/// Source `n` as 16-bit lanes in the low halves, modifiers applied.
#[inline(always)]
pub(crate) fn fetch16(w: &Wave, i: &Inst, n: usize) -> Lanes {
    let mut buf = [0; LANES];
    fetch_raw(w, i, n, 0, &mut buf);
    if i.op_sel >> n & 1 != 0 && matches!(i.src[n], Src::V(_) | Src::S(_)) {
        for x in &mut buf {
            *x >>= 16;
        }
    }
    let float = matches!(i.src_ty[n], Ty::F16 | Ty::BF16) || selects(i);
    let sign_and = if float && i.abs >> n & 1 != 0 { 0x7fff } else { 0xffff };
    let sign_xor = if float && i.neg >> n & 1 != 0 { 0x8000 } else { 0 };
    for x in &mut buf {
        *x = (*x & sign_and) ^ sign_xor;
    }
    if w.flush16_64 && i.src_ty[n] == Ty::F16 {
        for x in &mut buf {
            *x = if *x & 0x7c00 == 0 { *x & 0x8000 } else { *x };
        }
    }
    buf
}

/// Source `n` as half-precision lanes widened to f32.
#[inline(always)]
pub(crate) fn fetch16_f32(w: &Wave, i: &Inst, n: usize) -> [f32; LANES] {
    let raw = fetch16(w, i, n);
    let mut out = [0.0; LANES];
    for l in 0..LANES {
        out[l] = f16_to_f32(raw[l]);
    }
    out
}

/// Source `n` as 64-bit lanes, modifiers applied.
#[inline(always)]
pub(crate) fn fetch64(w: &Wave, i: &Inst, n: usize) -> Lanes64 {
    let (mut low, mut high) = ([0; LANES], [0; LANES]);
    fetch_raw(w, i, n, 0, &mut low);
    fetch_raw(w, i, n, 1, &mut high);
    let mut out = [0; LANES];
    for l in 0..LANES {
        out[l] = u64::from(low[l]) | u64::from(high[l]) << 32;
    }
    if i.src_ty[n] == Ty::F64 {
        let sign_and = if i.abs >> n & 1 != 0 { u64::MAX >> 1 } else { u64::MAX };
        let sign_xor = if i.neg >> n & 1 != 0 { 1 << 63 } else { 0 };
        for x in &mut out {
            *x = (*x & sign_and) ^ sign_xor;
            if w.flush16_64 && *x >> 52 & 0x7ff == 0 {
                *x &= 1 << 63;
            }
        }
    }
    out
}

/// Lanes that an instruction writes: EXEC, less what DPP masks out.
#[inline(always)]
pub(crate) fn write_mask(w: &Wave, i: &Inst) -> u32 {
    match i.dpp {
        Dpp::None => w.exec(),
        dpp => dpp_mask(dpp, w.exec()),
    }
}

/// Writes a 32-bit result, output modifiers not applied.
#[inline(always)]
pub(crate) fn write32(w: &mut Wave, register: u8, mask: u32, r: &Lanes) {
    let dst = &mut w.v.0[register as usize];
    if mask == u32::MAX {
        *dst = *r;
        return;
    }
    for l in 0..LANES {
        let keep = (mask >> l & 1).wrapping_sub(1);
        dst[l] = (dst[l] & keep) | (r[l] & !keep);
    }
}

/// Writes the low halves of `r` to half a register; the other half keeps its value.
#[inline(always)]
pub(crate) fn write16(w: &mut Wave, i: &Inst, mask: u32, r: &Lanes) {
    let old = &w.v.0[i.dst as usize];
    let mut merged = [0; LANES];
    if i.op_sel & 8 != 0 {
        for l in 0..LANES {
            merged[l] = (old[l] & 0xffff) | r[l] << 16;
        }
    } else {
        for l in 0..LANES {
            merged[l] = (old[l] & 0xffff_0000) | (r[l] & 0xffff);
        }
    }
    write32(w, i.dst, mask, &merged);
}

/// Writes a 64-bit result.
#[inline(always)]
pub(crate) fn write64(w: &mut Wave, register: u8, mask: u32, r: &Lanes64) {
    let (mut low, mut high) = ([0; LANES], [0; LANES]);
    for l in 0..LANES {
        low[l] = r[l] as u32;
        high[l] = (r[l] >> 32) as u32;
    }
    write32(w, register, mask, &low);
    write32(w, register.wrapping_add(1), mask, &high);
}

/// Applies output multiplier, clamp and denormal flushing to an f32 result.
#[inline(always)]
pub(crate) fn finish_f32(w: &Wave, i: &Inst, r: &mut Lanes) {
    if i.omod != 0 || i.clamp {
        let factor = [1.0, 2.0, 4.0, 0.5][i.omod as usize & 3];
        for x in r.iter_mut() {
            let y = f32::from_bits(*x) * factor;
            // NaN becomes 0 under clamp, as DX10_CLAMP asks.
            let clamped = if y > 0.0 { y.min(1.0) } else { 0.0 };
            *x = if i.clamp { clamped } else { y }.to_bits();
        }
    }
    if w.flush32 {
        for x in r.iter_mut() {
            *x = flush32(*x);
        }
    }
}

/// Rounds f32 lanes to half precision with the output modifiers applied.
#[inline(always)]
pub(crate) fn finish_f16(w: &Wave, i: &Inst, r: &[f32; LANES]) -> Lanes {
    let mut out = [0; LANES];
    for l in 0..LANES {
        out[l] = f32_to_f16(r[l]);
    }
    if i.omod != 0 || i.clamp || w.flush16_64 {
        let factor = [1.0, 2.0, 4.0, 0.5][i.omod as usize & 3];
        for x in &mut out {
            let mut y = f16_to_f32(*x) * factor;
            if i.clamp {
                y = if y > 0.0 { y.min(1.0) } else { 0.0 };
            }
            *x = f32_to_f16(y);
            if w.flush16_64 && *x & 0x7c00 == 0 {
                *x &= 0x8000;
            }
        }
    }
    out
}

/// Applies output multiplier and clamp to an f64 result.
#[inline(always)]
pub(crate) fn finish_f64(w: &Wave, i: &Inst, r: &mut Lanes64) {
    if i.omod == 0 && !i.clamp && !w.flush16_64 {
        return;
    }
    let factor = [1.0, 2.0, 4.0, 0.5][i.omod as usize & 3];
    for x in r.iter_mut() {
        let mut y = f64::from_bits(*x) * factor;
        if i.clamp {
            y = if y > 0.0 { y.min(1.0) } else { 0.0 };
        }
        *x = y.to_bits();
        if w.flush16_64 && *x >> 52 & 0x7ff == 0 {
            *x &= 1 << 63;
        }
    }
}

/// Replaces an f32 denormal by zero of its sign.
#[inline(always)]
pub(crate) fn flush32(x: u32) -> u32 {
    if x & 0x7f80_0000 == 0 { x & 0x8000_0000 } else { x }
}

/// The lane that `lane` reads; `None` where it has no source and reads zero or is not written.
fn dpp_source(dpp: Dpp, lane: usize, exec: u32) -> Option<usize> {
    let (from, fetch_inactive) = match dpp {
        Dpp::None => (lane, true),
        Dpp::Eight { selectors, fetch_inactive } => {
            let pick = selectors as usize >> (3 * (lane & 7)) & 7;
            (lane & !7 | pick, fetch_inactive)
        }
        Dpp::Sixteen { control, fetch_inactive, .. } => {
            (row_source(control, lane)?, fetch_inactive)
        }
    };
    (fetch_inactive || exec >> from & 1 != 0).then_some(from)
}

/// The source lane of a DPP16 control.
fn row_source(control: u16, lane: usize) -> Option<usize> {
    let (row, at) = (lane & !15, lane & 15);
    let amount = control as usize & 15;
    Some(match control >> 4 {
        0x00..=0x0f => lane & !3 | (control as usize >> (2 * (lane & 3)) & 3),
        0x10 => row | Some(at + amount).filter(|&from| from < 16)?,
        0x11 => row | at.checked_sub(amount)?,
        0x12 => row | (at.wrapping_sub(amount) & 15),
        0x14 if amount == 0 => row | (15 - at),
        0x14 => lane & !7 | (7 - (lane & 7)),
        0x15 => row | amount,
        _ => row | (at ^ amount),
    })
}

/// Lanes of `exec` that an instruction with this DPP writes.
fn dpp_mask(dpp: Dpp, exec: u32) -> u32 {
    let Dpp::Sixteen { bound_control, row_mask, bank_mask, .. } = dpp else {
        return exec;
    };
    let mut mask = exec;
    for lane in 0..LANES {
        let masked_out = row_mask >> (lane / 16) & 1 == 0 || bank_mask >> (lane % 16 / 4) & 1 == 0;
        let no_source = !bound_control && dpp_source(dpp, lane, exec).is_none();
        if masked_out || no_source {
            mask &= !(1 << lane);
        }
    }
    mask
}
