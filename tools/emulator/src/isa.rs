//! Instructions, decoded once into a form that is quick to execute.
//!
//! [`Inst`] and [`Op`] are shared by all families; a family's module turns its encodings into
//! them. A new family adds its tables and decoder beside [`gfx11`], and what operations it brings
//! to [`Op`].

pub mod gfx11;
mod op;
mod program;
mod registers;
mod text;

pub use op::Op;
pub use program::Program;
pub use registers::Register;

/// Type of a vector operand: its width, how constants of it are written, and whether the source
/// modifiers are a float's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::upper_case_acronyms)]
pub enum Ty {
    /// No operand.
    NONE,
    /// 16-bit integer.
    B16,
    /// IEEE half.
    F16,
    /// bfloat16.
    BF16,
    /// 32-bit integer.
    B32,
    /// IEEE single.
    F32,
    /// 64-bit integer whose literals are zero-extended.
    B64,
    /// 64-bit integer whose literals are sign-extended.
    I64,
    /// IEEE double.
    F64,
    /// Two 16-bit integers.
    P16,
    /// Two halves.
    PF16,
    /// Two bfloat16.
    PBF16,
    /// One bit per lane, in a scalar register.
    M,
    /// A scalar register.
    S,
    /// Two registers of a matrix fragment.
    W2,
    /// Four registers of a matrix fragment.
    W4,
    /// Eight registers of a matrix fragment.
    W8,
}

impl Ty {
    /// Whether the operand is half a register.
    pub const fn is_16(self) -> bool {
        matches!(self, Ty::B16 | Ty::F16 | Ty::BF16)
    }

    /// Whether the operand is a register pair.
    pub const fn is_64(self) -> bool {
        matches!(self, Ty::B64 | Ty::I64 | Ty::F64)
    }

    /// Vector registers that an operand takes.
    pub const fn registers(self) -> usize {
        match self {
            Ty::NONE | Ty::M | Ty::S => 0,
            Ty::B64 | Ty::I64 | Ty::F64 | Ty::W2 => 2,
            Ty::W4 => 4,
            Ty::W8 => 8,
            _ => 1,
        }
    }
}

/// Where a source operand comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Src {
    /// There is none.
    None,
    /// Vector register, the first of the operand.
    V(u8),
    /// Scalar register, the first of the operand; 106 is VCC, 124 null, 125 M0, 126 EXEC.
    S(u8),
    /// A constant, as the bits of the operand's type.
    Const(u64),
    /// The scalar condition code.
    Scc,
    /// High half of the address window onto LDS.
    SharedBase,
    /// Last address of that window.
    SharedLimit,
    /// Start of the address window onto scratch.
    PrivateBase,
    /// Last address of that window.
    PrivateLimit,
    /// Whether VCC is zero.
    Vccz,
    /// Whether EXEC is zero.
    Execz,
}

/// Which executor runs an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Unit {
    Unknown,
    Salu,
    Control,
    Smem,
    Valu32,
    Valu16,
    Valu64,
    Convert,
    Packed,
    Carry,
    Compare,
    Lane,
    Dual,
    Matrix,
    Global,
    Lds,
}

/// What an instruction counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Class {
    Valu,
    Salu,
    Smem,
    Global,
    Scratch,
    Lds,
    Matrix,
    Wait,
    Branch,
    Barrier,
    Other,
}

impl Class {
    /// Number of classes.
    pub const COUNT: usize = 11;
}

/// Read-modify-write operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Atomic {
    None,
    Swap,
    /// Compare with the second data dword, store the first.
    CmpSwap,
    /// LDS: compare with the second data operand, store the first.
    CmpStore,
    Add,
    Sub,
    RSub,
    MinI,
    MinU,
    MaxI,
    MaxU,
    And,
    Or,
    Xor,
    Inc,
    Dec,
    MskOr,
    MinF,
    MaxF,
    AddF,
}

/// Address spaces of the FLAT encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Space {
    Flat,
    Scratch,
    Global,
}

/// Shape of a memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mem {
    /// Bytes per lane (of each access where there are two).
    pub bytes: u8,
    /// Sign-extend what is loaded.
    pub signed: bool,
    /// Load into half a register, keeping the other half.
    pub d16: bool,
    /// Use the upper half of the data register.
    pub high: bool,
    /// Write the value before the atomic to the destination.
    pub returns: bool,
    /// The atomic operation.
    pub atomic: Atomic,
    /// Address space.
    pub space: Space,
    /// Bytes per unit of the two offsets of a two-address LDS access; 0 where there is one.
    pub pair_stride: u16,
}

impl Mem {
    /// No access.
    pub const NONE: Mem = Mem {
        bytes: 0,
        signed: false,
        d16: false,
        high: false,
        returns: false,
        atomic: Atomic::None,
        space: Space::Flat,
        pair_stride: 0,
    };
}

/// How DPP permutes the lanes of the first source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dpp {
    /// Not at all.
    None,
    /// Lane i of each eight takes lane `(selectors >> 3 * i) & 7`.
    Eight {
        /// Eight 3-bit selectors.
        selectors: u32,
        /// Read disabled lanes too.
        fetch_inactive: bool,
    },
    /// A pattern within rows of sixteen lanes.
    Sixteen {
        /// The nine-bit `dpp_ctrl`.
        control: u16,
        /// Lanes without a source read zero instead of keeping their result.
        bound_control: bool,
        /// Read disabled lanes too.
        fetch_inactive: bool,
        /// Rows that are written.
        row_mask: u8,
        /// Banks (quads of each row) that are written.
        bank_mask: u8,
    },
}

/// One decoded instruction.
#[derive(Clone, Copy, Debug)]
pub struct Inst {
    /// What it does.
    pub op: Op,
    /// Who executes it.
    pub unit: Unit,
    /// What it counts as.
    pub class: Class,
    /// Length in dwords.
    pub words: u8,
    /// Destination vector register, or the scalar one of scalar instructions.
    pub dst: u8,
    /// Scalar destination of vector instructions (masks, carries); 124 is none.
    pub sdst: u8,
    /// Result type.
    pub ty: Ty,
    /// Source types.
    pub src_ty: [Ty; 3],
    /// Sources.
    pub src: [Src; 3],
    /// Negate source i (bit i); low halves for packed instructions.
    pub neg: u8,
    /// Absolute value of source i; packed instructions negate high halves instead.
    pub abs: u8,
    /// Upper half of 16-bit source i (bit i) and result (bit 3); packed: the low result's halves.
    pub op_sel: u8,
    /// Packed: the halves that the high result takes.
    pub op_sel_hi: u8,
    /// Output multiplier: 1 doubles, 2 quadruples, 3 halves.
    pub omod: u8,
    /// Clamp the result to 0..1, or saturate integers.
    pub clamp: bool,
    /// Sources that are not taken as they are: bit i for float modifiers or DPP on source i.
    pub modified: u8,
    /// Lane permutation of the first source.
    pub dpp: Dpp,
    /// Memory access.
    pub mem: Mem,
    /// Immediate, offset, or index of the instruction branched to.
    pub imm: i32,
    /// Mnemonic of memory instructions; others go by their operation's name.
    pub name: &'static str,
    /// First two dwords of the encoding.
    pub raw: [u32; 2],
}

impl Inst {
    /// An instruction with nothing but its first dwords known.
    pub fn unknown(raw: [u32; 2]) -> Inst {
        Inst {
            op: Op::UNKNOWN,
            unit: Unit::Unknown,
            class: Class::Other,
            words: 1,
            dst: 0,
            sdst: NULL,
            ty: Ty::NONE,
            src_ty: [Ty::NONE; 3],
            src: [Src::None; 3],
            neg: 0,
            abs: 0,
            op_sel: 0,
            op_sel_hi: 0,
            omod: 0,
            clamp: false,
            modified: 0,
            dpp: Dpp::None,
            mem: Mem::NONE,
            imm: 0,
            name: "",
            raw,
        }
    }
}

/// Scalar register number of VCC.
pub const VCC: u8 = 106;
/// Scalar register number of the null register.
pub const NULL: u8 = 124;
/// Scalar register number of M0.
pub const M0: u8 = 125;
/// Scalar register number of EXEC.
pub const EXEC: u8 = 126;
