//! Races: bytes of LDS or global memory that two waves of a workgroup touch, at least one of them
//! writing, without a barrier in between.
//!
//! Every byte remembers who wrote and who read it since the last barrier. Atomics do not race with
//! atomics. Scratch is private and has no races.

use std::collections::HashMap;

use crate::exec::{Group, LANES, Outcome, Trouble, Wave, global_addresses, lds_addresses};
use crate::fault::FaultKind;
use crate::isa::{Inst, Op, Space, Unit};

/// No wave.
const NOBODY: u8 = u8::MAX;
/// More than one wave.
const MANY: u8 = u8::MAX - 1;

/// Accesses of one byte in one interval between barriers.
#[derive(Clone, Copy)]
struct Byte {
    interval: u32,
    reader: u8,
    writer: u8,
    /// The writes were atomic.
    atomic: bool,
}

const UNTOUCHED: Byte = Byte { interval: 0, reader: NOBODY, writer: NOBODY, atomic: false };

/// How an instruction touches memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    Atomic,
}

impl Byte {
    /// Notes an access; returns the wave it races with.
    fn touch(&mut self, interval: u32, wave: u8, access: Access) -> Option<u8> {
        if self.interval != interval {
            *self = Byte { interval, ..UNTOUCHED };
        }
        let both_atomic = access == Access::Atomic && self.atomic;
        let with_writer = self.writer != NOBODY && self.writer != wave && !both_atomic;
        let with_reader = access != Access::Read && self.reader != NOBODY && self.reader != wave;
        let other = if with_writer { self.writer } else { self.reader };
        let slot = if access == Access::Read { &mut self.reader } else { &mut self.writer };
        *slot = if *slot == NOBODY || *slot == wave { wave } else { MANY };
        if access != Access::Read {
            self.atomic = access == Access::Atomic;
        }
        (with_writer || with_reader).then_some(other)
    }
}

/// Bytes of global memory whose shadows lie together.
const PAGE: u64 = 256;

/// Shadows of the global memory a workgroup has touched.
#[derive(Default)]
struct Pages {
    pages: Vec<[Byte; PAGE as usize]>,
    /// Place in `pages` by page number.
    place: HashMap<u64, usize>,
    /// The page touched last, and its place: most accesses stay in it.
    last: Option<(u64, usize)>,
}

impl Pages {
    fn byte(&mut self, at: u64) -> &mut Byte {
        let number = at / PAGE;
        let place = match self.last {
            Some((last, place)) if last == number => place,
            _ => *self.place.entry(number).or_insert_with(|| {
                self.pages.push([UNTOUCHED; PAGE as usize]);
                self.pages.len() - 1
            }),
        };
        self.last = Some((number, place));
        &mut self.pages[place][(at % PAGE) as usize]
    }
}

/// The bytes that a workgroup has touched.
pub(super) struct Races {
    waves: usize,
    /// Number of the interval, from 1.
    interval: u32,
    lds: Vec<Byte>,
    global: Pages,
}

impl Races {
    pub(super) fn new(waves: usize, lds_bytes: usize) -> Races {
        Races { waves, interval: 1, lds: vec![UNTOUCHED; lds_bytes], global: Pages::default() }
    }

    /// A barrier has been passed.
    pub(super) fn barrier(&mut self) {
        self.interval += 1;
    }

    pub(super) fn before(&mut self, wave: &Wave, group: &Group<'_>, inst: &Inst) -> Outcome {
        let access = match inst.op {
            Op::LOAD | Op::LDS_LOAD => Access::Read,
            Op::STORE | Op::LDS_STORE => Access::Write,
            Op::ATOMIC | Op::LDS_ATOMIC => Access::Atomic,
            _ => return Ok(()),
        };
        // A wave has nobody to race with but others.
        if self.waves == 1 {
            return Ok(());
        }
        let bytes = u64::from(inst.mem.bytes);
        match inst.unit {
            Unit::Lds => {
                let (first, second) = lds_addresses(wave, inst);
                for addresses in [Some(first), second].into_iter().flatten() {
                    self.lanes(wave, &addresses.map(u64::from), bytes, access, true)?;
                }
                Ok(())
            }
            Unit::Global if inst.mem.space != Space::Scratch => {
                let addresses = global_addresses(wave, inst);
                debug_assert!(!group.regions.is_empty());
                self.lanes(wave, &addresses, bytes, access, false)
            }
            _ => Ok(()),
        }
    }

    fn lanes(
        &mut self,
        wave: &Wave,
        addresses: &[u64; LANES],
        bytes: u64,
        access: Access,
        lds: bool,
    ) -> Outcome {
        let exec = wave.exec();
        for (lane, &address) in addresses.iter().enumerate().filter(|(l, _)| exec >> l & 1 != 0) {
            for at in address..address.wrapping_add(bytes) {
                let other = self
                    .byte(at, lds)
                    .and_then(|byte| byte.0.touch(byte.1, wave.index as u8, access));
                if let Some(other) = other {
                    return Err(race(wave, lane, other, at, lds));
                }
            }
        }
        Ok(())
    }

    /// The shadow of a byte and the current interval; bad LDS addresses are another check's.
    fn byte(&mut self, at: u64, lds: bool) -> Option<(&mut Byte, u32)> {
        let interval = self.interval;
        if lds {
            return Some((self.lds.get_mut(at as usize)?, interval));
        }
        Some((self.global.byte(at), interval))
    }
}

#[cold]
fn race(wave: &Wave, lane: usize, other: u8, at: u64, lds: bool) -> Box<Trouble> {
    let place = if lds { format!("LDS byte {at}") } else { format!("the byte at 0x{at:x}") };
    let other = match other {
        MANY => "several waves".to_owned(),
        wave => format!("wave {wave}"),
    };
    let what = format!("wave {} and {other} touch {place} with no barrier between", wave.index);
    Box::new(Trouble { kind: FaultKind::Race(what), lane: Some(lane as u32) })
}
