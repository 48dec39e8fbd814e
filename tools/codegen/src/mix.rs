//! What a stretch of code consists of: instructions by class, memory accesses by width.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

/// What an instruction is for. The classes are chosen for the questions a kernel author asks, so
/// not all are hardware units: a matrix loop wants many [`Matrix`](Class::Matrix), few of all
/// else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Matrix multiply-accumulate: MFMA, SMFMAC, WMMA, SWMMAC; `mma`, `wgmma` in PTX.
    Matrix,
    /// Dot products of packed operands (`v_dot2_f32_bf16`).
    Dot,
    /// Arithmetic on two packed values (`v_pk_fma_f32`).
    Packed,
    /// Two operations in one instruction (VOPD, `v_dual_*`); counted once.
    Dual,
    /// exp, log, rcp, rsqrt, sqrt, sin, cos: a quarter of the vector rate or less.
    Transcendental,
    /// Conversions between number formats (`v_cvt_*`).
    Convert,
    /// Copies between vector and accumulation registers (CDNA).
    AccMove,
    /// All other vector arithmetic, address arithmetic and moves included.
    Vector,
    /// Scalar arithmetic.
    Scalar,
    /// Loads through the scalar cache.
    ScalarMemory,
    /// Device memory: global, flat, buffer.
    Global,
    /// LDS; cross-lane operations that go through its crossbar included.
    Lds,
    /// Scratch: spills and arrays indexed at run time.
    Scratch,
    /// Waits for memory (`s_waitcnt*`, `s_wait_*cnt`).
    Wait,
    /// Workgroup barriers; gfx12 has two instructions for one, a signal and a wait.
    Barrier,
    /// Branches, calls, ends.
    Branch,
    /// Scheduling: `s_nop`, `s_delay_alu`, `s_clause`, `s_wait_alu`.
    Hint,
    /// What the disassembler or this table does not know.
    Other,
}

impl Class {
    /// Every class, in the order of the tables.
    pub const ALL: [Class; 18] = [
        Class::Matrix,
        Class::Dot,
        Class::Packed,
        Class::Dual,
        Class::Transcendental,
        Class::Convert,
        Class::AccMove,
        Class::Vector,
        Class::Scalar,
        Class::ScalarMemory,
        Class::Global,
        Class::Lds,
        Class::Scratch,
        Class::Wait,
        Class::Barrier,
        Class::Branch,
        Class::Hint,
        Class::Other,
    ];

    /// Its name in tables.
    pub fn label(self) -> &'static str {
        match self {
            Class::Matrix => "matrix",
            Class::Dot => "dot",
            Class::Packed => "packed",
            Class::Dual => "dual",
            Class::Transcendental => "transcendental",
            Class::Convert => "convert",
            Class::AccMove => "acc move",
            Class::Vector => "vector",
            Class::Scalar => "scalar",
            Class::ScalarMemory => "scalar memory",
            Class::Global => "global",
            Class::Lds => "LDS",
            Class::Scratch => "scratch",
            Class::Wait => "wait",
            Class::Barrier => "barrier",
            Class::Branch => "branch",
            Class::Hint => "hint",
            Class::Other => "other",
        }
    }
}

/// A memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Device memory.
    Global,
    /// Workgroup memory.
    Lds,
    /// Private memory.
    Scratch,
    /// Device memory through the scalar cache.
    Scalar,
}

/// What is done to a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Memory to registers.
    Load,
    /// Device memory to LDS without passing through registers.
    LoadToLds,
    /// Registers to memory.
    Store,
    /// Read-modify-write.
    Atomic,
    /// Exchange between lanes through the LDS crossbar; no memory is touched.
    Permute,
    /// Write-back or invalidation of a cache.
    Cache,
}

/// A kind of memory access. Widths are those of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Access {
    /// Which memory.
    pub space: Space,
    /// What is done.
    pub operation: Operation,
    /// Separately addressed elements: 2 for `ds_read2_*`, else 1.
    pub elements: u32,
    /// Bits of an element; 0 for cache operations.
    pub bits: u32,
}

impl Access {
    /// Bytes a lane moves.
    pub fn bytes(&self) -> u32 {
        self.elements * self.bits / 8
    }

    /// The width as the tables write it: `b128`, `2xb32`.
    pub fn width(&self) -> String {
        match self.elements {
            1 => format!("b{}", self.bits),
            n => format!("{n}xb{}", self.bits),
        }
    }
}

/// As in JSON keys: `global_load_b128`, `lds_load_2xb64`, `global_cache`.
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = match self.space {
            Space::Global => "global",
            Space::Lds => "lds",
            Space::Scratch => "scratch",
            Space::Scalar => "scalar",
        };
        let operation = match self.operation {
            Operation::Load => "load",
            Operation::LoadToLds => "load_to_lds",
            Operation::Store => "store",
            Operation::Atomic => "atomic",
            Operation::Permute => "permute",
            Operation::Cache => return write!(f, "{space}_cache"),
        };
        write!(f, "{space}_{operation}_{}", self.width())
    }
}

impl Serialize for Access {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What one instruction adds to a [`Mix`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its class.
    pub class: Class,
    /// The access, if it touches memory.
    pub access: Option<Access>,
    /// The operation's name, for matrix instructions.
    pub matrix: Option<String>,
}

/// Counts over a stretch of code. Absent keys are zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mix {
    /// All instructions.
    pub instructions: u32,
    /// By class.
    pub classes: BTreeMap<Class, u32>,
    /// Memory accesses by memory, operation and width.
    pub accesses: BTreeMap<Access, u32>,
    /// Matrix instructions by name.
    pub matrix: BTreeMap<String, u32>,
}

impl Mix {
    /// Counts instructions.
    pub fn of<'a>(kinds: impl IntoIterator<Item = &'a Kind>) -> Mix {
        let mut mix = Mix::default();
        for kind in kinds {
            mix.instructions += 1;
            *mix.classes.entry(kind.class).or_default() += 1;
            if let Some(access) = kind.access {
                *mix.accesses.entry(access).or_default() += 1;
            }
            if let Some(name) = &kind.matrix {
                *mix.matrix.entry(name.clone()).or_default() += 1;
            }
        }
        mix
    }

    /// Instructions of a class.
    pub fn count(&self, class: Class) -> u32 {
        self.classes.get(&class).copied().unwrap_or(0)
    }

    /// Whether any instruction reads or writes a memory.
    pub fn touches(&self, space: Space) -> bool {
        let moves = |operation| !matches!(operation, Operation::Permute | Operation::Cache);
        self.accesses.keys().any(|access| access.space == space && moves(access.operation))
    }

    /// The accesses of one memory and operation, widest first.
    pub fn widths(&self, space: Space, operation: Operation) -> Vec<(Access, u32)> {
        let mut widths: Vec<_> = self
            .accesses
            .iter()
            .filter(|(access, _)| (access.space, access.operation) == (space, operation))
            .map(|(access, count)| (*access, *count))
            .collect();
        widths.sort_by_key(|(access, _)| std::cmp::Reverse((access.bytes(), access.bits)));
        widths
    }

    /// Bytes one lane moves by an operation on a memory.
    pub fn bytes(&self, space: Space, operation: Operation) -> u32 {
        self.widths(space, operation).iter().map(|(access, count)| access.bytes() * count).sum()
    }
}
