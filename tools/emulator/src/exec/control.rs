//! The interpreter loop: fetch, count, dispatch; branches, waits, barriers and ends of programs.

use super::wave::{Group, State, Wave};
use super::{Executors, Outcome, Trouble, unsupported};
use crate::fault::FaultKind;
use crate::isa::{EXEC, Inst, Op, Unit, VCC};

/// Why a wave stopped running without having failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// It arrived at a barrier.
    Barrier,
    /// It ended.
    Ended,
    /// It used up its slice, or sleeps: others may run.
    Slice,
}

/// Watches a wave's instructions; the unchecked run compiles it away.
pub(crate) trait Observer {
    /// Sees the instruction that is about to execute.
    fn before(&mut self, wave: &mut Wave, group: &mut Group<'_>, inst: &Inst) -> Outcome;

    /// Sees that all waves have arrived at a barrier or ended, before they go on.
    fn barrier(&mut self, waves: &[Wave]) -> Outcome;
}

/// Observes nothing.
pub(crate) struct Unobserved;

impl Observer for Unobserved {
    #[inline(always)]
    fn before(&mut self, _: &mut Wave, _: &mut Group<'_>, _: &Inst) -> Outcome {
        Ok(())
    }

    fn barrier(&mut self, _: &[Wave]) -> Outcome {
        Ok(())
    }
}

/// Runs a wave until it pauses, at the latest after `slice` instructions.
pub(crate) fn run<O: Observer>(
    wave: &mut Wave,
    group: &mut Group<'_>,
    executors: &Executors,
    observer: &mut O,
    slice: u64,
) -> Result<Pause, Box<Trouble>> {
    let program = group.program;
    for _ in 0..slice {
        let Some(inst) = program.insts.get(wave.pc) else {
            return Err(FaultKind::BadJump { target: program.address(wave.pc) }.into());
        };
        wave.pc += 1;
        wave.counts[inst.class as usize] += 1;
        observer.before(wave, group, inst)?;
        if inst.unit == Unit::Control {
            if let Some(pause) = control(wave, group, inst)? {
                return Ok(pause);
            }
        } else {
            // SAFETY: `Executors::new` installs versions for other machines' features only after
            // detecting those features.
            unsafe { executors.0[inst.unit as usize](wave, group, inst)? };
        }
    }
    Ok(Pause::Slice)
}

/// Executes an instruction that steers the wave.
#[inline(always)]
fn control(
    wave: &mut Wave,
    group: &mut Group<'_>,
    inst: &Inst,
) -> Result<Option<Pause>, Box<Trouble>> {
    let vcc = wave.s[VCC as usize];
    let taken = match inst.op {
        Op::S_BRANCH => true,
        Op::S_CBRANCH_SCC0 => !wave.scc,
        Op::S_CBRANCH_SCC1 => wave.scc,
        Op::S_CBRANCH_VCCZ => vcc == 0,
        Op::S_CBRANCH_VCCNZ => vcc != 0,
        Op::S_CBRANCH_EXECZ => wave.s[EXEC as usize] == 0,
        Op::S_CBRANCH_EXECNZ => wave.s[EXEC as usize] != 0,
        _ => return other(wave, group, inst),
    };
    if taken {
        jump(wave, inst)?;
    }
    Ok(None)
}

fn jump(wave: &mut Wave, inst: &Inst) -> Outcome {
    match usize::try_from(inst.imm) {
        Ok(target) => wave.pc = target,
        Err(_) => return Err(unsupported("branch out of the code")),
    }
    Ok(())
}

/// Everything but conditional branches.
fn other(
    wave: &mut Wave,
    group: &mut Group<'_>,
    inst: &Inst,
) -> Result<Option<Pause>, Box<Trouble>> {
    match inst.op {
        Op::S_BARRIER => {
            wave.state = State::AtBarrier;
            return Ok(Some(Pause::Barrier));
        }
        Op::S_ENDPGM => {
            wave.state = State::Ended;
            return Ok(Some(Pause::Ended));
        }
        Op::S_SLEEP => return Ok(Some(Pause::Slice)),
        Op::S_TRAP => return Err(FaultKind::Trap(inst.imm as u32).into()),
        Op::S_GETPC_B64 => {
            wave.set_scalar64(inst.dst, group.program.address(wave.pc));
        }
        Op::S_SETPC_B64 => {
            let target = wave.scalar64(inst.src[0]);
            go_to(wave, group, target)?;
        }
        Op::S_SWAPPC_B64 => {
            let target = wave.scalar64(inst.src[0]);
            wave.set_scalar64(inst.dst, group.program.address(wave.pc));
            go_to(wave, group, target)?;
        }
        Op::S_CALL_B64 => {
            wave.set_scalar64(inst.dst, group.program.address(wave.pc));
            jump(wave, inst)?;
        }
        Op::S_ROUND_MODE => {
            set_mode(wave, wave.mode & !0xf | inst.imm as u32 & 0xf)?;
        }
        Op::S_DENORM_MODE => {
            set_mode(wave, wave.mode & !0xf0 | (inst.imm as u32 & 0xf) << 4)?;
        }
        // Messages: 3 gives the wave's registers back before it ends.
        Op::S_SENDMSG if inst.imm == 3 => {}
        // Memory operations complete at once, so waits and cache control have nothing to do, and
        // scheduling hints change no result.
        Op::S_NOP
        | Op::V_NOP
        | Op::CACHE
        | Op::S_CLAUSE
        | Op::S_DELAY_ALU
        | Op::S_SET_INST_PREFETCH_DISTANCE
        | Op::S_WAITCNT
        | Op::S_WAITCNT_DEPCTR
        | Op::S_WAITCNT_VSCNT
        | Op::S_WAITCNT_VMCNT
        | Op::S_WAITCNT_EXPCNT
        | Op::S_WAITCNT_LGKMCNT
        | Op::S_WAIT_IDLE
        | Op::S_SETPRIO
        | Op::S_WAKEUP
        | Op::S_INCPERFLEVEL
        | Op::S_DECPERFLEVEL
        | Op::S_ICACHE_INV => {}
        op => return Err(unsupported(format!("{op:?} has no meaning here"))),
    }
    Ok(None)
}

fn go_to(wave: &mut Wave, group: &Group<'_>, target: u64) -> Outcome {
    match group.program.at(target) {
        Some(index) => wave.pc = index,
        None => return Err(FaultKind::BadJump { target }.into()),
    }
    Ok(())
}

/// Writes MODE; only rounding to nearest even is emulated.
pub(crate) fn set_mode(wave: &mut Wave, mode: u32) -> Outcome {
    if mode & 0xf != 0 {
        return Err(unsupported(format!("rounding mode {:#x}, only nearest even", mode & 0xf)));
    }
    wave.set_mode(mode);
    Ok(())
}
