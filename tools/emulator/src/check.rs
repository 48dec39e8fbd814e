//! Opt-in checks of what a kernel does: the project's compute-sanitizer for AMD.
//!
//! A [`Checker`] watches one workgroup. It sees every instruction before it executes, keeps
//! shadows of registers and memory, and stops the wave at the first offence.

mod init;
mod races;
mod waits;

use crate::exec::{Group, Observer, Outcome, Wave};
use crate::fault::FaultKind;
use crate::isa::{Inst, Src, Unit};

/// Opt-in checks. Each costs time; none changes a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkers {
    /// Uses of LDS, registers or device memory that nobody has written.
    pub uninitialised: bool,
    /// LDS and global bytes touched by two waves of a workgroup, one of them writing, without a
    /// barrier in between.
    pub races: bool,
    /// Results of memory instructions used before a wait covers them.
    pub waits: bool,
    /// Waves of a workgroup at different barriers, or ended while others wait.
    pub barriers: bool,
}

impl Checkers {
    /// Every check.
    pub const ALL: Checkers =
        Checkers { uninitialised: true, races: true, waits: true, barriers: true };

    /// Whether any check is on.
    pub fn any(self) -> bool {
        self != Checkers::default()
    }
}

/// The checks of one workgroup.
pub(crate) struct Checker {
    checkers: Checkers,
    waits: Vec<waits::Waits>,
    init: init::Init,
    races: races::Races,
}

impl Checker {
    /// Watches `waves` waves that share `lds_bytes` of LDS; each starts with `sgprs` scalar
    /// registers set.
    pub(crate) fn new(checkers: Checkers, waves: usize, lds_bytes: usize, sgprs: usize) -> Checker {
        Checker {
            checkers,
            waits: (0..waves).map(|_| waits::Waits::default()).collect(),
            init: init::Init::new(waves, lds_bytes, sgprs),
            races: races::Races::new(waves, lds_bytes),
        }
    }

    /// One instruction, or half of a dual-issue pair.
    fn inst(&mut self, wave: &mut Wave, group: &mut Group<'_>, inst: &Inst) -> Outcome {
        if self.checkers.waits {
            self.waits[wave.index as usize].before(group, wave, inst)?;
        }
        if inst.unit == Unit::Matrix {
            fragments(wave, inst)?;
        }
        if self.checkers.uninitialised {
            self.init.before(wave, group, inst)?;
        }
        if self.checkers.races {
            self.races.before(wave, group, inst)?;
        }
        Ok(())
    }
}

/// The upper half-wave must hold the same rows of A and columns of B as the lower: the hardware
/// reads both, the emulator only one.
fn fragments(wave: &Wave, inst: &Inst) -> Outcome {
    for n in 0..2 {
        let Src::V(first) = inst.src[n] else { continue };
        for register in (0..inst.src_ty[n].registers()).map(|k| first as usize + k) {
            let lanes = &wave.v.0[register & 255];
            if lanes[..16] != lanes[16..] {
                let what = format!("v{register} differs between the halves of the wave");
                return Err(FaultKind::Unsupported(what).into());
            }
        }
    }
    Ok(())
}

impl Observer for Checker {
    fn before(&mut self, wave: &mut Wave, group: &mut Group<'_>, inst: &Inst) -> Outcome {
        self.inst(wave, group, inst)?;
        if inst.unit == Unit::Dual {
            let second = group.program.insts[wave.pc];
            self.inst(wave, group, &second)?;
        }
        Ok(())
    }

    fn barrier(&mut self, waves: &[Wave]) -> Outcome {
        self.races.barrier();
        if !self.checkers.barriers {
            return Ok(());
        }
        let waiting = || waves.iter().filter(|wave| wave.is_waiting());
        let Some(first) = waiting().next() else { return Ok(()) };
        if let Some(ended) = waves.iter().find(|wave| !wave.is_waiting()) {
            let what = format!("wave {} ended while wave {} waits", ended.index, first.index);
            return Err(FaultKind::DivergentBarrier(what).into());
        }
        if let Some(other) = waiting().find(|wave| wave.pc != first.pc) {
            let what = format!("waves {} and {} are at different ones", first.index, other.index);
            return Err(FaultKind::DivergentBarrier(what).into());
        }
        Ok(())
    }
}
