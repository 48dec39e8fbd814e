//! Missing waits: results of memory instructions that are used before `s_waitcnt` covers them.
//!
//! Each wave has counters of outstanding operations. Vector loads return in order, and so do LDS
//! operations among themselves; scalar loads return in any order, so that while one is
//! outstanding only a wait for zero says anything. Source: LLVM AMDGPUUsage, "Memory Model gfx11".

use crate::exec::{Group, Outcome, Wave};
use crate::fault::FaultKind;
use crate::isa::{Class, Inst, Op, Register, Space, Unit};

/// When a register's pending result is there.
#[derive(Clone, Copy, Default)]
struct Pending {
    /// Number of the vector-memory operation that writes it, from 1; 0 is none.
    vm: u64,
    /// Number of the LDS or scalar-memory operation.
    lgkm: u64,
    /// Instruction that writes it.
    pc: usize,
}

/// Outstanding operations of one wave.
pub(super) struct Waits {
    vm_issued: u64,
    vm_done: u64,
    lgkm_issued: u64,
    lgkm_done: u64,
    /// The last scalar load, and the last LDS store.
    scalar_load: u64,
    lds_store: u64,
    vector: Vec<Pending>,
    scalar: Vec<Pending>,
}

impl Default for Waits {
    fn default() -> Waits {
        Waits {
            vm_issued: 0,
            vm_done: 0,
            lgkm_issued: 0,
            lgkm_done: 0,
            scalar_load: 0,
            lds_store: 0,
            vector: vec![Pending::default(); 256],
            scalar: vec![Pending::default(); 128],
        }
    }
}

impl Waits {
    pub(super) fn before(&mut self, group: &Group<'_>, wave: &Wave, inst: &Inst) -> Outcome {
        match inst.class {
            Class::Wait => {
                self.wait(inst);
                return Ok(());
            }
            Class::Barrier if self.lds_store > self.lgkm_done => {
                let what = "LDS stores may still be under way at the barrier".to_owned();
                return Err(FaultKind::MissingWait(what).into());
            }
            _ => {}
        }
        self.check(group, inst)?;
        self.issue(wave, inst);
        Ok(())
    }

    fn wait(&mut self, inst: &Inst) {
        let imm = inst.imm.cast_unsigned();
        match inst.op {
            Op::S_WAITCNT => {
                self.wait_vm(u64::from(imm >> 10 & 63));
                self.wait_lgkm(u64::from(imm >> 4 & 63));
            }
            Op::S_WAITCNT_VMCNT => self.wait_vm(u64::from(imm & 63)),
            Op::S_WAITCNT_LGKMCNT => self.wait_lgkm(u64::from(imm & 63)),
            Op::S_WAIT_IDLE => {
                self.wait_vm(0);
                self.wait_lgkm(0);
            }
            _ => {}
        }
    }

    fn wait_vm(&mut self, outstanding: u64) {
        self.vm_done = self.vm_done.max(self.vm_issued.saturating_sub(outstanding));
    }

    fn wait_lgkm(&mut self, outstanding: u64) {
        if outstanding == 0 || self.scalar_load <= self.lgkm_done {
            self.lgkm_done = self.lgkm_done.max(self.lgkm_issued.saturating_sub(outstanding));
        }
    }

    fn pending(&mut self, register: Register) -> &mut Pending {
        match register {
            Register::V(r) => &mut self.vector[r as usize],
            Register::S(r) => &mut self.scalar[r as usize & 127],
        }
    }

    /// Refuses reads of pending registers, and writes that a pending result would overwrite.
    fn check(&mut self, group: &Group<'_>, inst: &Inst) -> Outcome {
        let (vm_done, lgkm_done) = (self.vm_done, self.lgkm_done);
        let mut offence = None;
        let mut look = |register: Register, use_: &'static str, waits: &mut Waits| {
            let pending = *waits.pending(register);
            if pending.vm > vm_done || pending.lgkm > lgkm_done {
                offence.get_or_insert((register, use_, pending.pc));
            }
        };
        inst.reads(|register| look(register, "read", self));
        // Memory results that come back in order may overwrite one another.
        let memory = matches!(inst.unit, Unit::Global | Unit::Lds | Unit::Smem);
        if !memory {
            inst.writes(|register| look(register, "overwritten", self));
        }
        let Some((register, use_, pc)) = offence else { return Ok(()) };
        let name = match register {
            Register::V(r) => format!("v{r}"),
            Register::S(r) => format!("s{r}"),
        };
        let writer = group.program.insts.get(pc).map(Inst::to_string).unwrap_or_default();
        let what = format!("{name} is {use_} before a wait covers `{writer}`");
        Err(FaultKind::MissingWait(what).into())
    }

    fn issue(&mut self, wave: &Wave, inst: &Inst) {
        let loads = inst.op == Op::LOAD || inst.mem.returns;
        let flat = inst.unit == Unit::Global && inst.mem.space == Space::Flat;
        let (vm, lgkm) = match inst.unit {
            Unit::Global => (loads, flat),
            Unit::Lds => (false, true),
            Unit::Smem => (false, inst.op != Op::CACHE),
            _ => (false, false),
        };
        if vm {
            self.vm_issued += 1;
        }
        if lgkm {
            self.lgkm_issued += 1;
            if inst.unit == Unit::Smem {
                self.scalar_load = self.lgkm_issued;
            }
            if matches!(inst.op, Op::LDS_STORE | Op::LDS_ATOMIC) {
                self.lds_store = self.lgkm_issued;
            }
        }
        if !vm && !lgkm {
            return;
        }
        let pending = Pending {
            vm: if vm { self.vm_issued } else { 0 },
            lgkm: if lgkm { self.lgkm_issued } else { 0 },
            pc: wave.pc - 1,
        };
        inst.writes(|register| *self.pending(register) = pending);
    }
}
