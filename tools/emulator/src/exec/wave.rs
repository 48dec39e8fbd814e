//! State of a wave and of the workgroup it belongs to.

use std::sync::Arc;

use crate::counters::Counters;
use crate::isa::{Class, EXEC, NULL, Program, Src, VCC};
use crate::memory::{POISON, Region};

/// Lanes of a wave.
pub(crate) const LANES: usize = 32;

/// One vector register.
pub(crate) type Lanes = [u32; LANES];

/// What registers hold before anything is written to them.
pub(crate) const POISON32: u32 = (POISON as u32) << 16 | POISON as u32;

/// Where generic addresses of LDS start: an address no host mapping can have.
pub(crate) const SHARED_BASE: u64 = 0x0001_0000_0000_0000;
/// Where generic addresses of scratch start.
pub(crate) const PRIVATE_BASE: u64 = 0x0002_0000_0000_0000;

/// The vector register file of a wave.
#[repr(C, align(64))]
pub(crate) struct Vgprs(pub(crate) [Lanes; 256]);

/// Whether a wave can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    AtBarrier,
    Ended,
}

/// What the launch puts into a wave's registers.
pub(crate) struct WaveStart<'a> {
    /// Index of the wave in its workgroup.
    pub(crate) index: u32,
    /// Instruction to start at.
    pub(crate) entry: usize,
    /// SGPRs from s0 up.
    pub(crate) sgprs: &'a [u32],
    /// Packed work-item ids.
    pub(crate) v0: Lanes,
    /// Lanes that exist.
    pub(crate) exec: u32,
    /// MODE register.
    pub(crate) mode: u32,
    /// Bytes of scratch per lane.
    pub(crate) scratch_bytes: u32,
    /// Vector registers that the kernel allocates.
    pub(crate) vgprs: usize,
}

/// One wave.
pub(crate) struct Wave {
    pub(crate) v: Box<Vgprs>,
    /// Scalar registers by encoding: VCC at 106, null at 124, M0 at 125, EXEC at 126.
    pub(crate) s: [u32; 128],
    pub(crate) scc: bool,
    /// Index of the next instruction.
    pub(crate) pc: usize,
    /// MODE register.
    pub(crate) mode: u32,
    /// MODE says that f32 denormals are flushed in sources and results.
    pub(crate) flush32: bool,
    /// MODE says that f16 and f64 denormals are flushed.
    pub(crate) flush16_64: bool,
    /// MODE's IEEE bit: minimum and maximum quiet signalling NaNs.
    pub(crate) ieee: bool,
    pub(crate) state: State,
    pub(crate) index: u32,
    /// Scratch of each lane, one after the other.
    pub(crate) scratch: Vec<u8>,
    pub(crate) scratch_bytes: u32,
    /// Index of the region that the last global access hit.
    pub(crate) hot: usize,
    /// Instructions issued, by class.
    pub(crate) counts: [u64; Class::COUNT],
}

impl Wave {
    /// A wave that has not been started.
    pub(crate) fn new() -> Wave {
        Wave {
            v: Box::new(Vgprs([[POISON32; LANES]; 256])),
            s: [0; 128],
            scc: false,
            pc: 0,
            mode: 0,
            flush32: false,
            flush16_64: false,
            ieee: false,
            state: State::Ended,
            index: 0,
            scratch: Vec::new(),
            scratch_bytes: 0,
            hot: 0,
            counts: [0; Class::COUNT],
        }
    }

    /// Starts the wave anew.
    pub(crate) fn start(&mut self, start: &WaveStart<'_>) {
        self.v.0[..start.vgprs].fill([POISON32; LANES]);
        self.v.0[0] = start.v0;
        self.s.fill(POISON32);
        self.s[..start.sgprs.len()].copy_from_slice(start.sgprs);
        self.s[VCC as usize] = 0;
        self.s[VCC as usize + 1] = 0;
        self.s[NULL as usize] = 0;
        self.s[EXEC as usize] = start.exec;
        self.s[EXEC as usize + 1] = 0;
        self.scc = false;
        self.pc = start.entry;
        self.set_mode(start.mode);
        self.counts = [0; Class::COUNT];
        self.hot = 0;
        self.state = State::Running;
        self.index = start.index;
        self.scratch_bytes = start.scratch_bytes;
        self.scratch.clear();
        self.scratch.resize(start.scratch_bytes as usize * LANES, POISON as u8);
    }

    /// Writes the MODE register.
    pub(crate) fn set_mode(&mut self, mode: u32) {
        self.mode = mode;
        self.flush32 = mode >> 4 & 3 != 3;
        self.flush16_64 = mode >> 6 & 3 != 3;
        self.ieee = mode >> 9 & 1 != 0;
    }

    /// Whether it has arrived at a barrier.
    pub(crate) fn is_waiting(&self) -> bool {
        self.state == State::AtBarrier
    }

    /// Lanes that execute.
    #[inline(always)]
    pub(crate) fn exec(&self) -> u32 {
        self.s[EXEC as usize]
    }

    /// A 32-bit scalar operand.
    #[inline(always)]
    pub(crate) fn scalar(&self, src: Src) -> u32 {
        match src {
            Src::S(r) => self.s[r as usize & 127],
            Src::Const(value) => value as u32,
            other => self.scalar64(other) as u32,
        }
    }

    /// A 64-bit scalar operand.
    #[inline(always)]
    pub(crate) fn scalar64(&self, src: Src) -> u64 {
        match src {
            Src::S(r) if r == NULL => 0,
            Src::S(r) => {
                let r = r as usize;
                let high = self.s[(r + 1) & 127];
                u64::from(self.s[r & 127]) | u64::from(high) << 32
            }
            Src::Const(value) => value,
            Src::Scc => u64::from(self.scc),
            Src::SharedBase => SHARED_BASE,
            Src::SharedLimit => SHARED_BASE + 0xffff_ffff,
            Src::PrivateBase => PRIVATE_BASE,
            Src::PrivateLimit => PRIVATE_BASE + 0xffff_ffff,
            Src::Vccz => u64::from(self.s[VCC as usize] == 0),
            Src::Execz => u64::from(self.exec() == 0),
            Src::None | Src::V(_) => 0,
        }
    }

    /// Writes a scalar register.
    #[inline(always)]
    pub(crate) fn set_scalar(&mut self, register: u8, value: u32) {
        self.s[register as usize & 127] = value;
        self.s[NULL as usize] = 0;
    }

    /// Writes a pair of scalar registers.
    #[inline(always)]
    pub(crate) fn set_scalar64(&mut self, register: u8, value: u64) {
        if register == NULL {
            return;
        }
        let register = register as usize;
        self.s[register & 127] = value as u32;
        self.s[(register + 1) & 127] = (value >> 32) as u32;
        self.s[NULL as usize] = 0;
    }
}

/// A workgroup, and what its waves share.
pub(crate) struct Group<'a> {
    /// Live allocations and the arguments, ordered by address.
    pub(crate) regions: &'a [Arc<Region>],
    pub(crate) program: &'a Program,
    pub(crate) lds: Vec<u8>,
    pub(crate) counters: Counters,
}
