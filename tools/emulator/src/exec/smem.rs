//! Scalar loads.

use super::global::load_words;
use super::{Group, Inst, Outcome, Wave};
use crate::isa::Op;

super::executor!(pub(super) executor = execute);

#[inline(always)]
fn execute(w: &mut Wave, group: &mut Group<'_>, i: &Inst) -> Outcome {
    if i.op == Op::CACHE {
        return Ok(());
    }
    let address = address(w, i);
    let count = i.mem.bytes as usize / 4;
    let mut words = [0u32; 16];
    load_words(w, group, address, &mut words[..count])?;
    for (k, word) in words[..count].iter().enumerate() {
        w.set_scalar(i.dst.wrapping_add(k as u8), *word);
    }
    Ok(())
}

/// First byte of a scalar load; the hardware ignores the low two bits.
pub(crate) fn address(w: &Wave, i: &Inst) -> u64 {
    let base = w.scalar64(i.src[0]);
    let offset = i64::from(i.imm) + i64::from(w.scalar(i.src[1]));
    base.wrapping_add_signed(offset) & !3
}
