//! LDS, and moves between lanes that go through its crossbar.

use super::global::{load_lane, store_lane};
use super::wave::{LANES, Lanes};
use super::{Group, Inst, Outcome, Trouble, Wave, unsupported};
use crate::fault::FaultKind;
use crate::isa::{Atomic, Op, Src};

super::executor!(pub(super) executor = execute);

/// Banks of LDS, each a dword wide.
const BANKS: usize = 32;

fn execute(w: &mut Wave, group: &mut Group<'_>, i: &Inst) -> Outcome {
    let exec = w.exec();
    match i.op {
        Op::DS_SWIZZLE_B32 | Op::DS_PERMUTE_B32 | Op::DS_BPERMUTE_B32 => {
            cross_lane(w, i, exec);
            return Ok(());
        }
        _ => {}
    }
    let base = base(w, i);
    if i.mem.pair_stride == 0 {
        let addresses = base.map(|a| a.wrapping_add(i.imm.cast_unsigned()));
        count(group, exec, &addresses, i.mem.bytes);
        return one(w, group, i, exec, &addresses);
    }
    for (second, offset) in [i.imm & 0xff, i.imm >> 8].into_iter().enumerate() {
        let offset = offset.cast_unsigned() * u32::from(i.mem.pair_stride);
        let addresses = base.map(|a| a.wrapping_add(offset));
        count(group, exec, &addresses, i.mem.bytes);
        let mut half = *i;
        if second == 1 {
            half.dst = i.dst.wrapping_add(i.mem.bytes / 4);
            half.src[1] = i.src[2];
        }
        one(w, group, &half, exec, &addresses)?;
    }
    Ok(())
}

/// The address register's lanes.
#[inline(always)]
fn base(w: &Wave, i: &Inst) -> Lanes {
    match i.src[0] {
        Src::V(r) => w.v.0[r as usize],
        _ => [0; LANES],
    }
}

/// Per-lane LDS addresses: one set, or two for two-address instructions.
pub(crate) fn addresses(w: &Wave, i: &Inst) -> (Lanes, Option<Lanes>) {
    let base = base(w, i);
    if i.mem.pair_stride == 0 {
        return (base.map(|a| a.wrapping_add(i.imm.cast_unsigned())), None);
    }
    let stride = u32::from(i.mem.pair_stride);
    let [first, second] = [i.imm & 0xff, i.imm >> 8].map(|o| o.cast_unsigned() * stride);
    (base.map(|a| a.wrapping_add(first)), Some(base.map(|a| a.wrapping_add(second))))
}

/// One access per lane.
#[inline(always)]
fn one(w: &mut Wave, group: &mut Group<'_>, i: &Inst, exec: u32, addresses: &Lanes) -> Outcome {
    let bytes = i.mem.bytes as usize;
    // A quick check for all lanes; the slow path names the first bad one.
    let active = addresses.iter().enumerate().filter(|(lane, _)| exec >> lane & 1 != 0);
    let highest = active.map(|(_, &address)| address).max().unwrap_or(0);
    if exec != 0 && highest as usize + bytes > group.lds.len() {
        return Err(out_of_bounds(group, exec, addresses, bytes));
    }
    if bytes >= 4 && i.op == Op::LDS_LOAD {
        let lds = group.lds.as_slice();
        for k in 0..bytes / 4 {
            let dst = &mut w.v.0[i.dst as usize + k];
            for lane in 0..LANES {
                if exec >> lane & 1 != 0 {
                    let at = addresses[lane] as usize + 4 * k;
                    dst[lane] = dword(lds, at);
                }
            }
        }
        return Ok(());
    }
    for lane in (0..LANES).filter(|lane| exec >> lane & 1 != 0) {
        lane_access(w, group, i, lane, addresses[lane] as usize)?;
    }
    Ok(())
}

#[inline(always)]
fn dword(lds: &[u8], at: usize) -> u32 {
    let bytes = &lds[at..at + 4];
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cold]
fn out_of_bounds(group: &Group<'_>, exec: u32, addresses: &Lanes, bytes: usize) -> Box<Trouble> {
    let size = group.lds.len() as u32;
    let bad = (0..LANES)
        .find(|&l| exec >> l & 1 != 0 && addresses[l] as usize + bytes > size as usize)
        .unwrap_or(0);
    let kind = FaultKind::LdsOutOfBounds { address: addresses[bad], bytes, size };
    Box::new(Trouble { kind, lane: Some(bad as u32) })
}

/// One lane's access, in bounds.
#[inline(always)]
fn lane_access(w: &mut Wave, group: &mut Group<'_>, i: &Inst, lane: usize, at: usize) -> Outcome {
    let bytes = i.mem.bytes as usize;
    match i.op {
        Op::LDS_LOAD | Op::LOAD => {
            let mut raw = [0; 16];
            raw[..bytes].copy_from_slice(&group.lds[at..at + bytes]);
            load_lane(w, i, lane, raw);
        }
        Op::LDS_STORE | Op::STORE => {
            let raw = store_lane(w, i, lane);
            group.lds[at..at + bytes].copy_from_slice(&raw[..bytes]);
        }
        _ => atomic(w, group, i, lane, at),
    }
    Ok(())
}

/// A read-modify-write of one lane.
fn atomic(w: &mut Wave, group: &mut Group<'_>, i: &Inst, lane: usize, at: usize) {
    let bytes = i.mem.bytes as usize;
    let operand = |src: Src, skip: usize| {
        let Src::V(r) = src else { return 0 };
        let word = |k: usize| u64::from(w.v.0[(r as usize + skip + k) & 255][lane]);
        if bytes == 8 { word(0) | word(1) << 32 } else { word(0) }
    };
    let value = operand(i.src[1], 0);
    // Flat atomics carry both operands in one run of registers.
    let compare =
        if i.op == Op::ATOMIC { operand(i.src[1], bytes / 4) } else { operand(i.src[2], 0) };
    let mut raw = [0; 8];
    raw[..bytes].copy_from_slice(&group.lds[at..at + bytes]);
    let old = u64::from_le_bytes(raw);
    let new = update(i.mem.atomic, bytes, old, value, compare);
    group.lds[at..at + bytes].copy_from_slice(&new.to_le_bytes()[..bytes]);
    if i.mem.returns {
        w.v.0[i.dst as usize][lane] = old as u32;
        if bytes == 8 {
            w.v.0[(i.dst as usize + 1) & 255][lane] = (old >> 32) as u32;
        }
    }
}

/// One lane of a flat access that lands in LDS.
pub(super) fn flat(
    w: &mut Wave,
    group: &mut Group<'_>,
    i: &Inst,
    lane: usize,
    address: u32,
) -> Outcome {
    let bytes = i.mem.bytes as usize;
    if address as usize + bytes > group.lds.len() {
        let size = group.lds.len() as u32;
        return Err(FaultKind::LdsOutOfBounds { address, bytes, size }.into());
    }
    if i.op == Op::ATOMIC && !(address as usize).is_multiple_of(bytes) {
        return Err(unsupported(format!("misaligned atomic at LDS {address}")));
    }
    lane_access(w, group, i, lane, address as usize)
}

/// The value that an atomic operation leaves in memory.
pub(super) fn update(op: Atomic, bytes: usize, old: u64, value: u64, compare: u64) -> u64 {
    let signed = |x: u64| if bytes == 4 { i64::from(x as i32) } else { x.cast_signed() };
    let new = match op {
        Atomic::None => old,
        Atomic::Swap => value,
        Atomic::CmpSwap | Atomic::CmpStore => {
            if old == compare {
                value
            } else {
                old
            }
        }
        Atomic::Add => old.wrapping_add(value),
        Atomic::Sub => old.wrapping_sub(value),
        Atomic::RSub => value.wrapping_sub(old),
        Atomic::MinI => {
            if signed(value) < signed(old) {
                value
            } else {
                old
            }
        }
        Atomic::MinU => old.min(value),
        Atomic::MaxI => {
            if signed(value) > signed(old) {
                value
            } else {
                old
            }
        }
        Atomic::MaxU => old.max(value),
        Atomic::And => old & value,
        Atomic::Or => old | value,
        Atomic::Xor => old ^ value,
        Atomic::Inc => {
            if old >= value {
                0
            } else {
                old + 1
            }
        }
        Atomic::Dec => {
            if old == 0 || old > value {
                value
            } else {
                old - 1
            }
        }
        Atomic::MskOr => old & !value | compare,
        Atomic::MinF | Atomic::MaxF | Atomic::AddF => float(op, bytes, old, value),
    };
    if bytes == 4 { new & 0xffff_ffff } else { new }
}

/// Float atomics; minimum and maximum keep the old value unless the new one compares beyond it.
fn float(op: Atomic, bytes: usize, old: u64, value: u64) -> u64 {
    let widen = |x: u64| {
        if bytes == 4 { f64::from(f32::from_bits(x as u32)) } else { f64::from_bits(x) }
    };
    let (x, y) = (widen(old), widen(value));
    match op {
        Atomic::MinF => {
            if y < x {
                value
            } else {
                old
            }
        }
        Atomic::MaxF => {
            if y > x {
                value
            } else {
                old
            }
        }
        _ if bytes == 4 => {
            let sum = f32::from_bits(old as u32) + f32::from_bits(value as u32);
            u64::from(sum.to_bits())
        }
        _ => (x + y).to_bits(),
    }
}

/// Swizzle and permutes.
fn cross_lane(w: &mut Wave, i: &Inst, exec: u32) {
    let (address, offset) = (base(w, i), i.imm.cast_unsigned());
    let data = match (i.op, i.src[1]) {
        (Op::DS_SWIZZLE_B32, _) => address,
        (_, Src::V(r)) => w.v.0[r as usize],
        _ => [0; LANES],
    };
    let mut result = [0; LANES];
    let active = |lane: usize| exec >> lane & 1 != 0;
    for lane in 0..LANES {
        let other = (address[lane].wrapping_add(offset) / 4) as usize % LANES;
        match i.op {
            Op::DS_PERMUTE_B32 if active(lane) => result[other] = data[lane],
            Op::DS_BPERMUTE_B32 if active(other) => result[lane] = data[other],
            Op::DS_SWIZZLE_B32 => {
                let from = swizzle_source(offset, lane);
                if active(from) {
                    result[lane] = data[from];
                }
            }
            _ => {}
        }
    }
    super::operand::write32(w, i.dst, exec, &result);
}

/// The lane that `lane` reads under a swizzle pattern.
fn swizzle_source(offset: u32, lane: usize) -> usize {
    let offset = offset as usize;
    if offset >= 0xe000 {
        // Butterfly order for Fourier transforms.
        let mask = offset & 31;
        let reversed = (lane as u32).reverse_bits() as usize >> 27;
        return (reversed >> mask.count_ones()) | (lane & mask);
    }
    if offset >= 0xc000 {
        // Rotation within groups; bit 10 is the direction.
        let (mask, amount) = (offset & 31, offset >> 5 & 31);
        let turned = if offset >> 10 & 1 == 0 { lane + amount } else { lane.wrapping_sub(amount) };
        return (lane & mask) | (turned & !mask & 31);
    }
    if offset & 0x8000 != 0 {
        return lane & !3 | (offset >> (2 * (lane & 3)) & 3);
    }
    let (and, or, xor) = (offset & 31, offset >> 5 & 31, offset >> 10 & 31);
    ((lane & and) | or) ^ xor
}

/// Counts bytes and bank conflicts. Lanes are served in groups that ask for at most 32 dwords: 32,
/// 16 or 8 lanes at a time for up to 4, 8 or 16 bytes; a group takes as many cycles as the busiest
/// bank has distinct dwords.
#[inline(always)]
fn count(group: &mut Group<'_>, exec: u32, addresses: &Lanes, bytes: u8) {
    group.counters.lds_bytes += u64::from(bytes) * u64::from(exec.count_ones());
    let dwords = (bytes as usize).div_ceil(4);
    let lanes = BANKS / dwords.next_power_of_two();
    for first in (0..LANES).step_by(lanes) {
        let mut owner = [u32::MAX; BANKS];
        let mut depth = [0u8; BANKS];
        let mut busiest = 1;
        for lane in (first..first + lanes).filter(|lane| exec >> lane & 1 != 0) {
            for k in 0..dwords as u32 {
                let dword = addresses[lane] / 4 + k;
                let bank = dword as usize % BANKS;
                if owner[bank] != dword {
                    owner[bank] = dword;
                    depth[bank] += 1;
                    busiest = busiest.max(depth[bank]);
                }
            }
        }
        group.counters.lds_bank_conflicts += u64::from(busiest - 1);
    }
}
