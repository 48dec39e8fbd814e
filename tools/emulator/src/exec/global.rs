//! Global, flat and scratch memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::lds::update;
use super::wave::{LANES, PRIVATE_BASE, SHARED_BASE};
use super::{Group, Inst, Outcome, Trouble, Wave, unsupported};
use crate::fault::FaultKind;
use crate::guest;
use crate::isa::{Op, Space, Src};
use crate::memory::{Region, covering, nearest};

super::executor!(pub(super) executor = execute);

/// Per-lane addresses of a FLAT, GLOBAL or SCRATCH instruction. Scratch addresses are offsets into
/// the lane's own segment; lanes that do not execute have arbitrary ones.
#[inline(always)]
pub(crate) fn addresses(w: &Wave, i: &Inst) -> [u64; LANES] {
    let mut out = [0; LANES];
    if i.mem.space == Space::Scratch {
        let base = match i.src[2] {
            Src::None => 0,
            scalar => w.scalar(scalar),
        };
        let base = base.wrapping_add_signed(i.imm);
        for (lane, address) in out.iter_mut().enumerate() {
            let offset = match i.src[0] {
                Src::V(r) => w.v.0[r as usize][lane],
                _ => 0,
            };
            *address = u64::from(base.wrapping_add(offset));
        }
        return out;
    }
    let Src::V(r) = i.src[0] else { return out };
    let low = &w.v.0[r as usize];
    match i.src[2] {
        Src::None => {
            let high = &w.v.0[(r as usize + 1) & 255];
            for lane in 0..LANES {
                let base = u64::from(low[lane]) | u64::from(high[lane]) << 32;
                out[lane] = base.wrapping_add_signed(i64::from(i.imm));
            }
        }
        scalar => {
            let base = w.scalar64(scalar).wrapping_add_signed(i64::from(i.imm));
            for lane in 0..LANES {
                out[lane] = base.wrapping_add(u64::from(low[lane]));
            }
        }
    }
    out
}

fn execute(w: &mut Wave, group: &mut Group<'_>, i: &Inst) -> Outcome {
    let exec = w.exec();
    if exec == 0 {
        return Ok(());
    }
    let addresses = addresses(w, i);
    let windows = i.mem.space == Space::Flat
        && (0..LANES).any(|l| exec >> l & 1 != 0 && addresses[l] >= SHARED_BASE);
    if i.mem.space == Space::Scratch || windows {
        return through_windows(w, group, i, &addresses);
    }
    count(group, i, exec, &addresses);
    let span = Span::new(&addresses, exec, i.mem.bytes as usize);
    if let Some(region) = span.region(w, group) {
        let region = region.clone();
        return access(w, i, exec, &addresses, &region);
    }
    // No one allocation covers all lanes: find each lane's own.
    for (lane, &address) in addresses.iter().enumerate() {
        if exec >> lane & 1 != 0 {
            let region = locate(w, group, address, i.mem.bytes as usize, name(i));
            let region = region.map_err(|mut t| {
                t.lane = Some(lane as u32);
                t
            })?;
            access(w, i, 1 << lane, &addresses, &region)?;
        }
    }
    Ok(())
}

/// What a fault calls an access.
fn name(i: &Inst) -> &'static str {
    match i.op {
        Op::LOAD => "load",
        Op::STORE => "store",
        _ => "atomic",
    }
}

/// The bytes from the lowest to the highest that active lanes access.
struct Span {
    low: u64,
    bytes: usize,
}

impl Span {
    #[inline(always)]
    fn new(addresses: &[u64; LANES], exec: u32, bytes: usize) -> Span {
        let (mut low, mut high) = (u64::MAX, 0);
        for (lane, &address) in addresses.iter().enumerate() {
            if exec >> lane & 1 != 0 {
                low = low.min(address);
                high = high.max(address);
            }
        }
        Span { low, bytes: (high - low).saturating_add(bytes as u64) as usize }
    }

    /// The region that covers it, tried first where the last access went.
    #[inline(always)]
    fn region<'g>(&self, w: &mut Wave, group: &'g Group<'_>) -> Option<&'g Arc<Region>> {
        let regions = group.regions;
        if let Some(hot) = regions.get(w.hot)
            && hot.contains(self.low, self.bytes)
        {
            return Some(hot);
        }
        let after = regions.partition_point(|r| r.allocation.base <= self.low);
        let index = after.checked_sub(1)?;
        if !regions[index].contains(self.low, self.bytes) {
            return None;
        }
        w.hot = index;
        Some(&regions[index])
    }
}

/// The region that covers an access, or the fault.
fn locate(
    w: &mut Wave,
    group: &Group<'_>,
    address: u64,
    bytes: usize,
    access: &'static str,
) -> Result<Arc<Region>, Box<Trouble>> {
    let span = Span { low: address, bytes };
    match span.region(w, group).or_else(|| covering(group.regions, address, bytes)) {
        Some(region) => Ok(region.clone()),
        None => {
            let nearest = nearest(group.regions, address);
            Err(FaultKind::IllegalAddress { address, bytes, access, nearest }.into())
        }
    }
}

/// Reads consecutive dwords, as scalar loads do.
#[inline(always)]
pub(super) fn load_words(
    w: &mut Wave,
    group: &Group<'_>,
    address: u64,
    words: &mut [u32],
) -> Outcome {
    let bytes = words.len() * 4;
    let span = Span { low: address, bytes };
    let held;
    if span.region(w, group).is_none() {
        held = locate(w, group, address, bytes, "scalar load")?;
        debug_assert!(held.contains(address, bytes));
    }
    for (at, word) in (address..).step_by(4).zip(words) {
        // SAFETY: a live region covers the range, and the dispatch keeps it mapped.
        *word = unsafe { guest::load32(at) };
    }
    Ok(())
}

/// Executes the lanes of `mask`, all of whose accesses `region` covers.
fn access(w: &mut Wave, i: &Inst, mask: u32, addresses: &[u64; LANES], region: &Region) -> Outcome {
    let bytes = i.mem.bytes as usize;
    match i.op {
        Op::LOAD => load(w, i, mask, addresses),
        Op::STORE => {
            store(w, i, mask, addresses);
            mark(region, mask, addresses, bytes);
        }
        _ => {
            atomic(w, i, mask, addresses)?;
            mark(region, mask, addresses, bytes);
        }
    }
    Ok(())
}

/// Tells a tracked region what has been written.
fn mark(region: &Region, mask: u32, addresses: &[u64; LANES], bytes: usize) {
    if !region.is_tracked() {
        return;
    }
    for (lane, &address) in addresses.iter().enumerate() {
        if mask >> lane & 1 != 0 {
            region.mark_written(address, bytes);
        }
    }
}

/// Loads whose range has been checked.
#[inline(always)]
fn load(w: &mut Wave, i: &Inst, mask: u32, addresses: &[u64; LANES]) {
    if i.mem.bytes < 4 {
        for lane in (0..LANES).filter(|lane| mask >> lane & 1 != 0) {
            let at = addresses[lane];
            // SAFETY: the caller has checked that a live region covers `bytes` at this address.
            let raw = unsafe {
                match i.mem.bytes {
                    1 => u32::from(guest::load8(at)),
                    _ => u32::from(guest::load16(at)),
                }
            };
            put_narrow(w, i, lane, raw);
        }
        return;
    }
    for k in 0..i.mem.bytes as usize / 4 {
        let dst = &mut w.v.0[i.dst as usize + k];
        for lane in 0..LANES {
            if mask >> lane & 1 != 0 {
                // SAFETY: as above.
                dst[lane] = unsafe { guest::load32(addresses[lane] + 4 * k as u64) };
            }
        }
    }
}

/// Writes a loaded byte or half-word to its register.
#[inline(always)]
pub(super) fn put_narrow(w: &mut Wave, i: &Inst, lane: usize, raw: u32) {
    let value = match (i.mem.bytes, i.mem.signed) {
        (1, true) => i32::from(raw as i8).cast_unsigned(),
        (2, true) => i32::from(raw as i16).cast_unsigned(),
        _ => raw,
    };
    let dst = &mut w.v.0[i.dst as usize][lane];
    *dst = match (i.mem.d16, i.mem.high) {
        (false, _) => value,
        (true, false) => *dst & 0xffff_0000 | value & 0xffff,
        (true, true) => *dst & 0xffff | value << 16,
    };
}

/// Stores whose range has been checked.
#[inline(always)]
fn store(w: &Wave, i: &Inst, mask: u32, addresses: &[u64; LANES]) {
    let Src::V(data) = i.src[1] else { return };
    let shift = if i.mem.high { 16 } else { 0 };
    for lane in (0..LANES).filter(|lane| mask >> lane & 1 != 0) {
        let at = addresses[lane];
        let first = w.v.0[data as usize][lane] >> shift;
        // SAFETY: the caller has checked that a live region covers `bytes` at this address.
        unsafe {
            match i.mem.bytes {
                1 => guest::store8(at, first as u8),
                2 => guest::store16(at, first as u16),
                bytes => {
                    for k in 0..bytes as usize / 4 {
                        guest::store32(at + 4 * k as u64, w.v.0[data as usize + k][lane]);
                    }
                }
            }
        }
    }
}

/// Atomics, lane after lane.
fn atomic(w: &mut Wave, i: &Inst, mask: u32, addresses: &[u64; LANES]) -> Outcome {
    let Src::V(data) = i.src[1] else { return Ok(()) };
    let (data, dst) = (data as usize, i.dst as usize);
    for lane in (0..LANES).filter(|lane| mask >> lane & 1 != 0) {
        let address = addresses[lane];
        if !address.is_multiple_of(u64::from(i.mem.bytes)) {
            let mut trouble = unsupported(format!("misaligned atomic at 0x{address:x}"));
            trouble.lane = Some(lane as u32);
            return Err(trouble);
        }
        let word = |k: usize| w.v.0[(data + k) & 255][lane];
        let pair = |k: usize| u64::from(word(k)) | u64::from(word(k + 1)) << 32;
        if i.mem.bytes == 4 {
            // SAFETY: aligned, and covered by a live region, all accesses to which are atomic.
            let cell = unsafe { AtomicU32::from_ptr(address as *mut u32) };
            let (value, compare) = (u64::from(word(0)), u64::from(word(1)));
            let next = |old| Some(update(i.mem.atomic, 4, u64::from(old), value, compare) as u32);
            let old = cell.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
            if i.mem.returns {
                w.v.0[dst][lane] = old.unwrap_or_else(|old| old);
            }
        } else {
            // SAFETY: as above.
            let cell = unsafe { AtomicU64::from_ptr(address as *mut u64) };
            let (value, compare) = (pair(0), pair(2));
            let next = |old| Some(update(i.mem.atomic, 8, old, value, compare));
            let old = cell.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
            if i.mem.returns {
                let old = old.unwrap_or_else(|old| old);
                w.v.0[dst][lane] = old as u32;
                w.v.0[(dst + 1) & 255][lane] = (old >> 32) as u32;
            }
        }
    }
    Ok(())
}

/// Scratch, and flat accesses some of whose lanes go to LDS or scratch.
fn through_windows(
    w: &mut Wave,
    group: &mut Group<'_>,
    i: &Inst,
    addresses: &[u64; LANES],
) -> Outcome {
    let exec = w.exec();
    for lane in (0..LANES).filter(|lane| exec >> lane & 1 != 0) {
        let address = addresses[lane];
        let in_lane = |mut trouble: Box<Trouble>| {
            trouble.lane = Some(lane as u32);
            trouble
        };
        if i.mem.space == Space::Scratch || address >= PRIVATE_BASE {
            scratch(w, i, lane, address as u32).map_err(in_lane)?;
        } else if address >= SHARED_BASE {
            super::lds::flat(w, group, i, lane, address as u32).map_err(in_lane)?;
        } else {
            let region = locate(w, group, address, i.mem.bytes as usize, name(i));
            let region = region.map_err(in_lane)?;
            access(w, i, 1 << lane, addresses, &region)?;
        }
    }
    Ok(())
}

/// One lane's access to its own scratch.
fn scratch(w: &mut Wave, i: &Inst, lane: usize, offset: u32) -> Outcome {
    let (bytes, size) = (i.mem.bytes as usize, w.scratch_bytes);
    if u64::from(offset) + bytes as u64 > u64::from(size) {
        return Err(FaultKind::ScratchOutOfBounds { address: offset, bytes, size }.into());
    }
    let start = lane * size as usize + offset as usize;
    match i.op {
        Op::LOAD => {
            let mut raw = [0; 16];
            raw[..bytes].copy_from_slice(&w.scratch[start..start + bytes]);
            load_lane(w, i, lane, raw);
        }
        Op::STORE => {
            let raw = store_lane(w, i, lane);
            w.scratch[start..start + bytes].copy_from_slice(&raw[..bytes]);
        }
        _ => return Err(unsupported("atomic on scratch")),
    }
    Ok(())
}

/// Puts loaded bytes into one lane's registers.
pub(super) fn load_lane(w: &mut Wave, i: &Inst, lane: usize, raw: [u8; 16]) {
    let word =
        |k: usize| u32::from_le_bytes([raw[4 * k], raw[4 * k + 1], raw[4 * k + 2], raw[4 * k + 3]]);
    if i.mem.bytes < 4 {
        put_narrow(w, i, lane, word(0));
        return;
    }
    for k in 0..i.mem.bytes as usize / 4 {
        w.v.0[i.dst as usize + k][lane] = word(k);
    }
}

/// The bytes that one lane stores.
pub(super) fn store_lane(w: &Wave, i: &Inst, lane: usize) -> [u8; 16] {
    let mut raw = [0; 16];
    let Src::V(data) = i.src[1] else { return raw };
    let shift = if i.mem.high { 16 } else { 0 };
    for k in 0..(i.mem.bytes as usize).div_ceil(4) {
        let word = w.v.0[data as usize + k][lane] >> shift;
        raw[4 * k..4 * k + 4].copy_from_slice(&word.to_le_bytes());
    }
    raw
}

/// Counts bytes asked and 128-byte lines touched.
#[inline(always)]
fn count(group: &mut Group<'_>, i: &Inst, exec: u32, addresses: &[u64; LANES]) {
    let bytes = u64::from(i.mem.bytes);
    group.counters.global_bytes += bytes * u64::from(exec.count_ones());
    let mut lines = [u64::MAX; 2 * LANES];
    let mut distinct = 0;
    for lane in (0..LANES).filter(|lane| exec >> lane & 1 != 0) {
        let (first, last) = (addresses[lane] / 128, (addresses[lane] + bytes - 1) / 128);
        for line in [first, last] {
            // Neighbouring lanes mostly share a line: look at the latest ones first.
            if !lines[..distinct].iter().rev().any(|&seen| seen == line) {
                lines[distinct] = line;
                distinct += 1;
            }
        }
    }
    group.counters.global_lines += distinct as u64;
}
