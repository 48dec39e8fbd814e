//! Which registers an instruction reads and writes.

use super::{Inst, NULL, Op, Src, Ty, Unit, VCC};

/// One register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Vector register.
    V(u8),
    /// Scalar register.
    S(u8),
}

impl Inst {
    /// Scalar registers that source `n` takes.
    pub fn scalars(&self, n: usize) -> u8 {
        use Op::*;
        match self.unit {
            Unit::Salu | Unit::Control if self.ty == Ty::B64 => match (self.op, n) {
                (S_LSHL_B64 | S_LSHR_B64 | S_ASHR_I64 | S_BFE_U64 | S_BFE_I64, 1) => 1,
                (S_BITCMP0_B64 | S_BITCMP1_B64, 1) => 1,
                (S_BITSET0_B64 | S_BITSET1_B64, _) | (S_BFM_B64, _) => 1,
                _ => 2,
            },
            Unit::Smem if n == 0 => 2,
            Unit::Global if n == 2 && self.mem.space == super::Space::Global => 2,
            _ if self.src_ty[n].is_64() => 2,
            _ => 1,
        }
    }

    /// Scalar registers that the result of a scalar instruction takes.
    pub fn scalar_results(&self) -> u8 {
        use Op::*;
        match self.op {
            _ if self.unit == Unit::Smem => self.mem.bytes / 4,
            S_SETPC_B64 | S_SETREG_B32 | S_SETREG_IMM32_B32 => 0,
            S_GETPC_B64 | S_SWAPPC_B64 | S_CALL_B64 => 2,
            S_CTZ_I32_B64 | S_CLZ_I32_U64 | S_CLS_I32_I64 | S_BCNT0_I32_B64 | S_BCNT1_I32_B64 => 1,
            _ if self.unit == Unit::Control || self.is_scalar_compare() => 0,
            _ if self.ty == Ty::B64 => 2,
            _ => 1,
        }
    }

    /// Whether the result of a scalar instruction is SCC alone.
    fn is_scalar_compare(&self) -> bool {
        use Op::*;
        let immediate = matches!(
            self.op,
            S_CMPK_EQ_I32
                | S_CMPK_LG_I32
                | S_CMPK_GT_I32
                | S_CMPK_GE_I32
                | S_CMPK_LT_I32
                | S_CMPK_LE_I32
                | S_CMPK_EQ_U32
                | S_CMPK_LG_U32
                | S_CMPK_GT_U32
                | S_CMPK_GE_U32
                | S_CMPK_LT_U32
                | S_CMPK_LE_U32
        );
        immediate || self.unit == Unit::Salu && self.dst == NULL
    }

    /// Vector registers that a memory instruction takes its data from, per data operand.
    pub fn data_registers(&self) -> u8 {
        let registers = self.mem.bytes.div_ceil(4);
        let both = self.mem.atomic == super::Atomic::CmpSwap;
        if both { 2 * registers } else { registers }
    }

    /// Calls `f` with every register read.
    pub fn reads(&self, mut f: impl FnMut(Register)) {
        let mut run = |src: Src, vectors: u8, scalars: u8| match src {
            Src::V(r) => (0..vectors).for_each(|k| f(Register::V(r.wrapping_add(k)))),
            Src::S(r) if r != NULL => (0..scalars).for_each(|k| f(Register::S(r.wrapping_add(k)))),
            _ => {}
        };
        match self.unit {
            Unit::Unknown => {}
            Unit::Control if self.op != Op::S_SETPC_B64 && self.op != Op::S_SWAPPC_B64 => {}
            Unit::Global => {
                let wide = self.src[2] == Src::None && self.mem.space != super::Space::Scratch;
                run(self.src[0], if wide { 2 } else { 1 }, 0);
                run(self.src[2], 0, self.scalars(2));
                if self.op != Op::LOAD {
                    run(self.src[1], self.data_registers(), 0);
                }
            }
            Unit::Lds => {
                run(self.src[0], 1, 0);
                if !matches!(self.op, Op::LDS_LOAD | Op::DS_SWIZZLE_B32) {
                    run(self.src[1], self.data_registers(), 0);
                }
                if self.reads_second_data() {
                    run(self.src[2], self.data_registers(), 0);
                }
            }
            _ => {
                for n in 0..3 {
                    run(self.src[n], self.src_ty[n].registers().max(1) as u8, self.scalars(n));
                }
                if self.reads_own_result() {
                    run(Src::S(self.dst), 0, self.scalar_results().max(1));
                }
                if matches!(self.op, Op::V_DIV_FMAS_F32 | Op::V_DIV_FMAS_F64) {
                    run(Src::S(VCC), 0, 1);
                }
            }
        }
    }

    /// Whether an LDS instruction has a second data operand.
    pub(super) fn reads_second_data(&self) -> bool {
        let pair = self.op == Op::LDS_STORE && self.mem.pair_stride != 0;
        pair || matches!(self.mem.atomic, super::Atomic::CmpStore | super::Atomic::MskOr)
    }

    /// Whether a scalar instruction also reads the register it names as its result.
    fn reads_own_result(&self) -> bool {
        use Op::*;
        let immediate_compare = self.is_scalar_compare() && self.dst != NULL;
        self.unit == Unit::Salu
            && (immediate_compare
                || matches!(
                    self.op,
                    S_ADDK_I32
                        | S_MULK_I32
                        | S_SETREG_B32
                        | S_CMOV_B32
                        | S_CMOV_B64
                        | S_CMOVK_I32
                        | S_BITSET0_B32
                        | S_BITSET1_B32
                        | S_BITSET0_B64
                        | S_BITSET1_B64
                ))
    }

    /// Calls `f` with every register written.
    pub fn writes(&self, mut f: impl FnMut(Register)) {
        let mut vectors = |count: usize| {
            (0..count).for_each(|k| f(Register::V(self.dst.wrapping_add(k as u8))));
        };
        match self.unit {
            Unit::Unknown => {}
            Unit::Global => {
                if self.op == Op::LOAD || self.mem.returns {
                    vectors(self.mem.bytes.div_ceil(4) as usize);
                }
            }
            Unit::Lds => {
                let pair = if self.mem.pair_stride == 0 { 1 } else { 2 };
                if self.op == Op::LDS_LOAD || self.mem.returns {
                    vectors(self.mem.bytes.div_ceil(4) as usize * pair);
                }
            }
            Unit::Salu | Unit::Smem | Unit::Control => {
                if self.dst != NULL {
                    (0..self.scalar_results())
                        .for_each(|k| f(Register::S(self.dst.wrapping_add(k))));
                }
            }
            Unit::Compare => f(Register::S(self.sdst)),
            _ if self.ty == Ty::S => f(Register::S(self.sdst)),
            _ => {
                vectors(self.ty.registers());
                if self.unit == Unit::Carry && self.sdst != NULL {
                    f(Register::S(self.sdst));
                }
                if let (Op::V_SWAP_B32 | Op::V_SWAP_B16, Src::V(other)) = (self.op, self.src[0]) {
                    f(Register::V(other));
                }
            }
        }
    }
}
