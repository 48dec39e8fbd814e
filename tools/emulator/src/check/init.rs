//! Uninitialised values.
//!
//! Loads of bytes that nobody has written stop at once. Registers carry a shadow bit per lane
//! (vector) or per bit (scalar) that arithmetic hands on; using such a value is an offence only
//! where it matters: in an address, a branch, EXEC, or data stored to global memory. Compilers do
//! move undefined values about harmlessly.

use crate::exec::{
    Group, LANES, Outcome, Trouble, Wave, global_addresses, lds_addresses, scalar_address,
};
use crate::fault::FaultKind;
use crate::isa::{Dpp, EXEC, Inst, Op, Register, Space, Src, Unit, VCC};
use crate::memory::covering;

/// Undefined lanes and bits of one wave's registers.
struct Shadow {
    /// Bit l of entry r: lane l of v\[r\] is undefined.
    vector: [u32; 256],
    /// Bit b of entry r: bit b of s\[r\] is undefined.
    scalar: [u32; 128],
    scc: bool,
}

/// Shadows of a workgroup.
pub(super) struct Init {
    waves: Vec<Shadow>,
    /// Bytes of LDS that have been written.
    lds: Vec<bool>,
}

impl Init {
    pub(super) fn new(waves: usize, lds_bytes: usize, sgprs: usize) -> Init {
        let shadow = || {
            let mut shadow =
                Shadow { vector: [u32::MAX; 256], scalar: [u32::MAX; 128], scc: false };
            // v0 holds the work-item ids; user and system SGPRs come first; VCC, M0 and EXEC are
            // the emulator's to define.
            shadow.vector[0] = 0;
            shadow.scalar[..sgprs].fill(0);
            shadow.scalar[VCC as usize..].fill(0);
            shadow
        };
        Init { waves: (0..waves).map(|_| shadow()).collect(), lds: vec![false; lds_bytes] }
    }

    pub(super) fn before(&mut self, wave: &Wave, group: &Group<'_>, inst: &Inst) -> Outcome {
        let shadow = &mut self.waves[wave.index as usize];
        shadow.branch(inst)?;
        match inst.unit {
            Unit::Smem => {
                shadow.scalar_load(wave, group, inst)?;
                shadow.define(inst);
            }
            Unit::Global => {
                shadow.global(wave, group, inst)?;
                shadow.define_lanes(wave, inst);
            }
            Unit::Lds => {
                shadow.address(wave, inst)?;
                lds(&mut self.lds, wave, inst)?;
                shadow.define_lanes(wave, inst);
            }
            Unit::Salu | Unit::Control => shadow.salu(wave, inst)?,
            Unit::Unknown => {}
            _ => shadow.valu(wave, inst)?,
        }
        Ok(())
    }
}

fn offence(what: String, lane: Option<usize>) -> Box<Trouble> {
    let lane = lane.map(|lane| lane as u32);
    Box::new(Trouble { kind: FaultKind::Uninitialised(what), lane })
}

/// Loads of LDS bytes that nobody has written; stores and atomics write theirs.
fn lds(written: &mut [bool], wave: &Wave, inst: &Inst) -> Outcome {
    let (first, second) = lds_addresses(wave, inst);
    let exec = wave.exec();
    let reads = matches!(inst.op, Op::LDS_LOAD | Op::LDS_ATOMIC);
    let writes = matches!(inst.op, Op::LDS_STORE | Op::LDS_ATOMIC);
    for addresses in [Some(first), second].into_iter().flatten() {
        for lane in (0..LANES).filter(|lane| exec >> lane & 1 != 0) {
            let at = addresses[lane] as usize;
            let Some(bytes) = written.get_mut(at..at + inst.mem.bytes as usize) else { continue };
            if reads && let Some(k) = bytes.iter().position(|&w| !w) {
                return Err(offence(format!("LDS byte {} was never written", at + k), Some(lane)));
            }
            if writes {
                bytes.fill(true);
            }
        }
    }
    Ok(())
}

impl Shadow {
    /// Undefined bits of a register: of its lanes, or of the scalar itself.
    fn of(&mut self, register: Register) -> &mut u32 {
        match register {
            Register::V(r) => &mut self.vector[r as usize],
            Register::S(r) => &mut self.scalar[r as usize & 127],
        }
    }

    /// Branches on undefined values.
    fn branch(&self, inst: &Inst) -> Outcome {
        let (bad, what) = match inst.op {
            Op::S_CBRANCH_SCC0 | Op::S_CBRANCH_SCC1 => (self.scc, "SCC"),
            Op::S_CBRANCH_VCCZ | Op::S_CBRANCH_VCCNZ => (self.scalar[VCC as usize] != 0, "VCC"),
            _ => return Ok(()),
        };
        if bad { Err(offence(format!("branch on {what}"), None)) } else { Ok(()) }
    }

    /// Marks what an instruction writes as defined.
    fn define(&mut self, inst: &Inst) {
        inst.writes(|register| *self.of(register) = 0);
    }

    /// As [`define`](Shadow::define), for the lanes that execute.
    fn define_lanes(&mut self, wave: &Wave, inst: &Inst) {
        let exec = wave.exec();
        inst.writes(|register| *self.of(register) &= !exec);
    }

    /// Undefined addresses of active lanes.
    fn address(&mut self, wave: &Wave, inst: &Inst) -> Outcome {
        let wide = inst.unit == Unit::Global && inst.src[2] == Src::None;
        let mut bad = 0;
        if let Src::V(r) = inst.src[0] {
            bad |= self.vector[r as usize];
            if wide && inst.mem.space != Space::Scratch {
                bad |= self.vector[(r as usize + 1) & 255];
            }
        }
        if let (Unit::Global, Src::S(r)) = (inst.unit, inst.src[2]) {
            bad |= if self.scalar[r as usize] != 0 { u32::MAX } else { 0 };
        }
        match bad & wave.exec() {
            0 => Ok(()),
            lanes => Err(offence("an address".to_owned(), Some(lanes.trailing_zeros() as usize))),
        }
    }

    fn scalar_load(&mut self, wave: &Wave, group: &Group<'_>, inst: &Inst) -> Outcome {
        if let Src::S(r) = inst.src[0]
            && inst.op != Op::CACHE
        {
            if self.scalar[r as usize] | self.scalar[r as usize + 1] != 0 {
                return Err(offence("an address".to_owned(), None));
            }
            written(group, scalar_address(wave, inst), inst.mem.bytes as usize, None)?;
        }
        Ok(())
    }

    fn global(&mut self, wave: &Wave, group: &Group<'_>, inst: &Inst) -> Outcome {
        self.address(wave, inst)?;
        if inst.mem.space == Space::Scratch {
            return Ok(());
        }
        let exec = wave.exec();
        let addresses = global_addresses(wave, inst);
        if inst.op != Op::STORE {
            for lane in (0..LANES).filter(|lane| exec >> lane & 1 != 0) {
                written(group, addresses[lane], inst.mem.bytes as usize, Some(lane))?;
            }
        }
        if let (Op::STORE | Op::ATOMIC, Src::V(data)) = (inst.op, inst.src[1]) {
            for k in 0..inst.data_registers() {
                let bad = self.vector[data.wrapping_add(k) as usize] & exec;
                if bad != 0 {
                    let lane = bad.trailing_zeros() as usize;
                    return Err(offence(
                        format!("v{} is stored", data as usize + k as usize),
                        Some(lane),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Scalar results are undefined in whole if any source bit is, but for bitwise operations.
    fn salu(&mut self, wave: &Wave, inst: &Inst) -> Outcome {
        use Op::*;
        let mut bits = 0;
        inst.reads(|register| bits |= *self.of(register));
        if matches!(inst.op, S_CSELECT_B32 | S_CSELECT_B64 | S_ADDC_U32 | S_SUBB_U32) && self.scc {
            bits = u32::MAX;
        }
        let result = match bits {
            0 => 0,
            _ => self.bitwise(wave, inst, bits).unwrap_or(u32::MAX),
        };
        let name = format!("{:?}", inst.op);
        let saves = name.contains("SAVEEXEC");
        if (saves || name.contains("WREXEC") || inst.dst == EXEC)
            && result != 0
            && inst.unit == Unit::Salu
        {
            return Err(offence("EXEC is set".to_owned(), None));
        }
        inst.writes(|register| *self.of(register) = if saves { 0 } else { result });
        if inst.unit == Unit::Salu && !matches!(inst.op, S_MOV_B32 | S_MOV_B64 | S_MOVK_I32) {
            self.scc = result != 0;
        }
        Ok(())
    }

    /// Undefined bits of the result of a bitwise operation, whose sources have the undefined bits
    /// `any`; `None` for other operations. Compilers build masks from registers they never set:
    /// a defined bit of the other operand may decide.
    fn bitwise(&self, wave: &Wave, inst: &Inst, any: u32) -> Option<u32> {
        use Op::*;
        let bits = |src: Src| Bits {
            value: wave.scalar(src),
            undefined: if let Src::S(r) = src { self.scalar[r as usize & 127] } else { 0 },
        };
        let exec = Bits { value: wave.exec(), undefined: 0 };
        let (a, b) = (bits(inst.src[0]), bits(inst.src[1]));
        Some(match inst.op {
            S_MOV_B32 | S_MOV_B64 | S_XOR_B32 | S_NOT_B32 | S_XOR_SAVEEXEC_B32 => any,
            S_AND_B32 => a.and(b),
            S_AND_NOT1_B32 => a.and(b.not()),
            S_OR_B32 => a.or(b),
            S_OR_NOT1_B32 => a.or(b.not()),
            S_AND_SAVEEXEC_B32 => a.and(exec),
            S_AND_NOT0_SAVEEXEC_B32 => a.not().and(exec),
            S_AND_NOT1_SAVEEXEC_B32 => a.and(exec.not()),
            S_OR_SAVEEXEC_B32 => a.or(exec),
            S_OR_NOT0_SAVEEXEC_B32 => a.not().or(exec),
            S_OR_NOT1_SAVEEXEC_B32 => a.or(exec.not()),
            _ => return None,
        })
    }

    /// Lanes of a vector result are undefined where any source's is.
    fn valu(&mut self, wave: &Wave, inst: &Inst) -> Outcome {
        let exec = wave.exec();
        let mut lanes = 0;
        let selects = matches!(inst.op, Op::V_CNDMASK_B32 | Op::V_CNDMASK_B16);
        // The low word of a 64-bit sum needs only the low word of the addend: compilers leave the
        // other one undefined where they use nothing else.
        let sum = matches!(inst.op, Op::V_MAD_U64_U32 | Op::V_MAD_I64_I32);
        let high = match inst.src[2] {
            Src::V(r) if sum => self.vector[(r as usize + 1) & 255],
            _ => 0,
        };
        for n in 0..3 {
            let words = if sum { 1 } else { inst.src_ty[n].registers().max(1) };
            let bad = match inst.src[n] {
                Src::V(r) => (0..words).fold(0, |bad, k| bad | self.vector[(r as usize + k) & 255]),
                Src::S(r) if inst.src_ty[n] == crate::isa::Ty::M => self.scalar[r as usize & 127],
                Src::S(r) if self.scalar[r as usize & 127] != 0 => u32::MAX,
                _ => 0,
            };
            // Selection takes the first source where the mask has 0, the second where it has 1.
            let taken = match (selects, n) {
                (true, 0) => !wave.scalar(inst.src[2]),
                (true, 1) => wave.scalar(inst.src[2]),
                _ => u32::MAX,
            };
            let permuted = n == 0 && inst.dpp != Dpp::None && bad != 0 && bad != u32::MAX;
            lanes |= if permuted { 0 } else { bad & taken };
        }
        match inst.unit {
            Unit::Lane => lanes = self.moved(wave, inst),
            Unit::Matrix if lanes != 0 => lanes = u32::MAX,
            _ => {}
        }
        if inst.unit == Unit::Compare && inst.sdst == EXEC && lanes & exec != 0 {
            let lane = (lanes & exec).trailing_zeros() as usize;
            return Err(offence("EXEC is set".to_owned(), Some(lane)));
        }
        inst.writes(|register| match register {
            Register::V(r) => {
                let lanes = if r as usize == inst.dst as usize { lanes } else { lanes | high };
                let old = &mut self.vector[r as usize];
                *old = *old & !exec | lanes & exec;
            }
            Register::S(r) => self.scalar[r as usize & 127] = (lanes | high) & exec,
        });
        Ok(())
    }

    /// Moves between lanes: a scalar result is undefined if the lane read is; permutations are
    /// taken to be defined.
    fn moved(&mut self, wave: &Wave, inst: &Inst) -> u32 {
        let Src::V(r) = inst.src[0] else { return 0 };
        let lane = match inst.op {
            Op::V_READLANE_B32 => wave.scalar(inst.src[1]) & 31,
            Op::V_READFIRSTLANE_B32 => wave.exec().trailing_zeros() & 31,
            _ => return 0,
        };
        if self.vector[r as usize] >> lane & 1 != 0 { u32::MAX } else { 0 }
    }
}

/// An operand of a bitwise operation; undefined bits have any value.
#[derive(Clone, Copy)]
struct Bits {
    value: u32,
    undefined: u32,
}

impl Bits {
    fn not(self) -> Bits {
        Bits { value: !self.value, ..self }
    }

    /// Undefined bits of the conjunction: a defined 0 on either side decides.
    fn and(self, other: Bits) -> u32 {
        let open = |bits: Bits| bits.undefined | bits.value;
        (self.undefined | other.undefined) & open(self) & open(other)
    }

    /// Undefined bits of the disjunction: a defined 1 on either side decides.
    fn or(self, other: Bits) -> u32 {
        self.not().and(other.not())
    }
}

/// Whether all bytes of a device-memory access have been written.
fn written(group: &Group<'_>, address: u64, bytes: usize, lane: Option<usize>) -> Outcome {
    let region = covering(group.regions, address, bytes);
    match region.and_then(|region| region.first_unwritten(address, bytes)) {
        None => Ok(()),
        Some(at) => Err(offence(format!("the byte at 0x{at:x} was never written"), lane)),
    }
}
