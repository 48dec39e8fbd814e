//! What stops a kernel.

use std::fmt;

use crate::memory::{Allocation, near};

/// The reason a kernel was stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// An access that no live allocation covers.
    IllegalAddress {
        /// First byte of the access.
        address: u64,
        /// Its length.
        bytes: usize,
        /// `load`, `store` or `atomic`.
        access: &'static str,
        /// The allocation closest to it.
        nearest: Option<Allocation>,
    },
    /// An access to the memory of a device that this one has no peer access to.
    NoPeerAccess {
        /// First byte of the access.
        address: u64,
        /// Its length.
        bytes: usize,
        /// `load`, `store` or `atomic`.
        access: &'static str,
        /// The device whose memory it is.
        peer: usize,
    },
    /// An LDS access past the workgroup's allocation.
    LdsOutOfBounds {
        /// Byte offset in LDS.
        address: u32,
        /// Length of the access.
        bytes: usize,
        /// Bytes of LDS that the workgroup has.
        size: u32,
    },
    /// A scratch access past the lane's private segment.
    ScratchOutOfBounds {
        /// Byte offset in the lane's scratch.
        address: u32,
        /// Length of the access.
        bytes: usize,
        /// Bytes of scratch that a lane has.
        size: u32,
    },
    /// An instruction, operand or encoding that the emulator does not know.
    UnknownInstruction,
    /// An instruction whose operands its encoding forbids or the emulator does not support.
    Unsupported(String),
    /// `s_trap` with this number; LLVM emits 2 for `abort`.
    Trap(u32),
    /// Control left the code of the code object.
    BadJump {
        /// Address that was jumped to.
        target: u64,
    },
    /// A wave issued more instructions than [`Options::instruction_limit`](crate::Options).
    InstructionLimit(u64),
    /// Checker: a value nobody has written was used.
    Uninitialised(String),
    /// Checker: two waves touched the same bytes without a barrier in between.
    Race(String),
    /// Checker: a result was used before a wait covered it.
    MissingWait(String),
    /// Checker: waves of a workgroup arrived at different barriers, or some ended before one.
    DivergentBarrier(String),
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FaultKind::IllegalAddress { address, bytes, access, nearest } => {
                let near = near(nearest);
                write!(f, "illegal address: {access} of {bytes} bytes at 0x{address:x} ({near})")
            }
            FaultKind::NoPeerAccess { address, bytes, access, peer } => write!(
                f,
                "illegal address: {access} of {bytes} bytes at 0x{address:x}, in memory of device \
                 {peer}, to which peer access is not enabled"
            ),
            FaultKind::LdsOutOfBounds { address, bytes, size } => write!(
                f,
                "LDS access out of bounds: {bytes} bytes at {address}, the workgroup has {size}"
            ),
            FaultKind::ScratchOutOfBounds { address, bytes, size } => write!(
                f,
                "scratch access out of bounds: {bytes} bytes at {address}, a lane has {size}"
            ),
            FaultKind::UnknownInstruction => f.write_str("unknown instruction"),
            FaultKind::Unsupported(what) => write!(f, "unsupported instruction: {what}"),
            FaultKind::Trap(number) => write!(f, "trap {number}"),
            FaultKind::BadJump { target } => write!(f, "jump outside the code to 0x{target:x}"),
            FaultKind::InstructionLimit(limit) => {
                write!(f, "a wave issued more than {limit} instructions")
            }
            FaultKind::Uninitialised(what) => write!(f, "uninitialised read: {what}"),
            FaultKind::Race(what) => write!(f, "race: {what}"),
            FaultKind::MissingWait(what) => write!(f, "missing wait: {what}"),
            FaultKind::DivergentBarrier(what) => write!(f, "divergent barrier: {what}"),
        }
    }
}

/// Why and where a kernel was stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The reason.
    pub kind: FaultKind,
    /// Name of the kernel.
    pub kernel: String,
    /// Workgroup index in x, y, z.
    pub workgroup: [u32; 3],
    /// Index of the wave in its workgroup.
    pub wave: u32,
    /// The lane that caused it, where one did.
    pub lane: Option<u32>,
    /// Byte offset of the instruction from the kernel's entry.
    pub pc: i64,
    /// The instruction as text.
    pub instruction: String,
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.workgroup;
        write!(f, "{}: kernel {}, workgroup ({x}, {y}, {z})", self.kind, self.kernel)?;
        write!(f, ", wave {}", self.wave)?;
        if let Some(lane) = self.lane {
            write!(f, ", lane {lane}")?;
        }
        let (sign, pc) =
            if self.pc < 0 { ("-", self.pc.unsigned_abs()) } else { ("+", self.pc as u64) };
        write!(f, ", pc {sign}0x{pc:x}: {}", self.instruction)
    }
}
