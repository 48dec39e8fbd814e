//! What a launch counted.

use std::ops::AddAssign;

/// Events of one launch, summed over its waves. An instruction counts once per wave that issues
/// it, whatever its EXEC mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Workgroups run.
    pub workgroups: u64,
    /// Waves run.
    pub waves: u64,
    /// All instructions; both halves of a dual-issue pair count as one.
    pub instructions: u64,
    /// Vector arithmetic, without matrix instructions.
    pub valu: u64,
    /// Scalar arithmetic.
    pub salu: u64,
    /// Scalar loads.
    pub smem: u64,
    /// Global and flat loads, stores and atomics.
    pub global: u64,
    /// Scratch loads and stores.
    pub scratch: u64,
    /// LDS instructions.
    pub lds: u64,
    /// Matrix instructions.
    pub matrix: u64,
    /// Waits on counters.
    pub wait: u64,
    /// Branches, taken or not.
    pub branch: u64,
    /// Barriers that waves arrived at.
    pub barrier: u64,
    /// Everything else (no-ops, hints, messages, program ends).
    pub other: u64,
    /// Multiply-adds that matrix instructions did.
    pub matrix_macs: u64,
    /// Bytes that active lanes asked of global memory, loads and stores.
    pub global_bytes: u64,
    /// Distinct 128-byte lines that each global instruction touched, summed.
    pub global_lines: u64,
    /// Bytes that active lanes read from or wrote to LDS.
    pub lds_bytes: u64,
    /// Cycles beyond the least that LDS instructions needed, for 32 banks of 4 bytes.
    pub lds_bank_conflicts: u64,
}

impl Counters {
    /// Every counter with its name, in the order declared.
    pub fn entries(&self) -> [(&'static str, u64); 19] {
        [
            ("workgroups", self.workgroups),
            ("waves", self.waves),
            ("instructions", self.instructions),
            ("valu", self.valu),
            ("salu", self.salu),
            ("smem", self.smem),
            ("global", self.global),
            ("scratch", self.scratch),
            ("lds", self.lds),
            ("matrix", self.matrix),
            ("wait", self.wait),
            ("branch", self.branch),
            ("barrier", self.barrier),
            ("other", self.other),
            ("matrix_macs", self.matrix_macs),
            ("global_bytes", self.global_bytes),
            ("global_lines", self.global_lines),
            ("lds_bytes", self.lds_bytes),
            ("lds_bank_conflicts", self.lds_bank_conflicts),
        ]
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Counters) {
        self.workgroups += other.workgroups;
        self.waves += other.waves;
        self.instructions += other.instructions;
        self.valu += other.valu;
        self.salu += other.salu;
        self.smem += other.smem;
        self.global += other.global;
        self.scratch += other.scratch;
        self.lds += other.lds;
        self.matrix += other.matrix;
        self.wait += other.wait;
        self.branch += other.branch;
        self.barrier += other.barrier;
        self.other += other.other;
        self.matrix_macs += other.matrix_macs;
        self.global_bytes += other.global_bytes;
        self.global_lines += other.global_lines;
        self.lds_bytes += other.lds_bytes;
        self.lds_bank_conflicts += other.lds_bank_conflicts;
    }
}
