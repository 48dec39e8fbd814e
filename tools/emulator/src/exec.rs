//! Execution of decoded instructions, one wave at a time.
//!
//! A wave is interpreted instruction by instruction; a vector instruction is a loop over 32 lanes
//! that the compiler vectorises. Each executor is compiled twice, for AVX2 and for any machine;
//! both give the same bits, because only exact or correctly rounded host operations are used.

mod control;
mod convert;
mod float;
mod global;
mod lanes;
mod lds;
mod math;
mod matrix;
mod operand;
mod packed;
mod salu;
mod smem;
mod valu16;
mod valu32;
mod valu64;
mod wave;

#[cfg(test)]
mod tests;

use crate::fault::FaultKind;
use crate::isa::{Inst, Unit};

pub(crate) use control::{Observer, Pause, Unobserved, run};
pub(crate) use global::addresses as global_addresses;
pub(crate) use lds::addresses as lds_addresses;
pub(crate) use smem::address as scalar_address;
pub(crate) use wave::{Group, LANES, Lanes, PRIVATE_BASE, SHARED_BASE, State, Wave, WaveStart};

/// What stopped a wave, before it is known where.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) kind: FaultKind,
    pub(crate) lane: Option<u32>,
}

impl From<FaultKind> for Box<Trouble> {
    fn from(kind: FaultKind) -> Box<Trouble> {
        Box::new(Trouble { kind, lane: None })
    }
}

/// Outcome of executing something.
pub(crate) type Outcome = Result<(), Box<Trouble>>;

/// An instruction whose operands or modifiers the emulator does not implement.
#[cold]
pub(crate) fn unsupported(what: impl Into<String>) -> Box<Trouble> {
    FaultKind::Unsupported(what.into()).into()
}

/// An executor of one unit's instructions.
pub(crate) type Executor = unsafe fn(&mut Wave, &mut Group<'_>, &Inst) -> Outcome;

/// Declares an executor compiled for AVX2 and for any machine, and the function that picks one.
///
/// The body must be `#[inline(always)]`, so that it takes on the features of each wrapper.
macro_rules! executor {
    ($vis:vis $name:ident = $body:path) => {
        /// The version of this executor for the machine it runs on.
        $vis fn $name() -> super::Executor {
            use super::{Group, Inst, Outcome, Wave};
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
                unsafe fn avx2(wave: &mut Wave, group: &mut Group<'_>, inst: &Inst) -> Outcome {
                    $body(wave, group, inst)
                }
                if super::has_avx2() {
                    return avx2;
                }
            }
            unsafe fn portable(wave: &mut Wave, group: &mut Group<'_>, inst: &Inst) -> Outcome {
                $body(wave, group, inst)
            }
            portable
        }
    };
}
pub(crate) use executor;

/// Whether this machine has what the AVX2 executors are compiled for.
#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

/// The executor of each unit.
pub(crate) struct Executors([Executor; 16]);

impl Executors {
    /// Those for this machine.
    pub(crate) fn new() -> Executors {
        let mut table: [Executor; 16] = [unknown; 16];
        table[Unit::Salu as usize] = salu::executor();
        table[Unit::Smem as usize] = smem::executor();
        table[Unit::Valu32 as usize] = valu32::executor();
        table[Unit::Dual as usize] = valu32::dual_executor();
        table[Unit::Valu16 as usize] = valu16::executor();
        table[Unit::Valu64 as usize] = valu64::executor();
        table[Unit::Convert as usize] = convert::executor();
        table[Unit::Packed as usize] = packed::executor();
        table[Unit::Carry as usize] = lanes::carry_executor();
        table[Unit::Compare as usize] = lanes::compare_executor();
        table[Unit::Lane as usize] = lanes::executor();
        table[Unit::Matrix as usize] = matrix::executor();
        table[Unit::Global as usize] = global::executor();
        table[Unit::Lds as usize] = lds::executor();
        Executors(table)
    }
}

/// Executor of what the decoder does not know.
unsafe fn unknown(_: &mut Wave, _: &mut Group<'_>, _: &Inst) -> Outcome {
    Err(FaultKind::UnknownInstruction.into())
}
