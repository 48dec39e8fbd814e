//! Decoder of gfx11 machine code.
//!
//! Encodings as in AMD's RDNA3 ISA manual; 16-bit operands are halves of registers ("true16").

mod memory;

use super::super::{Class, Dpp, EXEC, Inst, M0, NULL, Op, Src, Ty, Unit, VCC};
use super::sop;
use super::tables::{compare_type, find, find_row, inline_constant, scalar_type, tables, unit};
use super::vop::Row;

/// Decodes the instruction at the start of `words`, and the second half of a dual-issue pair.
///
/// An encoding it does not know comes back as one dword of [`Op::UNKNOWN`].
pub fn decode(words: &[u32]) -> (Inst, Option<Inst>) {
    let raw = [words[0], words.get(1).copied().unwrap_or(0)];
    let mut at = Decoder { words, inst: Inst { words: 0, ..Inst::unknown(raw) }, second: None };
    match at.any() {
        Some(()) => (at.inst, at.second),
        None => (Inst::unknown(raw), None),
    }
}

/// Bits `low..low + width` of `word`.
const fn bits(word: u32, low: u32, width: u32) -> u32 {
    (word >> low) & ((1 << width) - 1)
}

/// Source encodings with a meaning of their own.
const DPP8: u32 = 233;
const DPP8_FETCH_INACTIVE: u32 = 234;
const DPP16: u32 = 250;
const LITERAL: u32 = 255;

struct Decoder<'a> {
    words: &'a [u32],
    inst: Inst,
    second: Option<Inst>,
}

impl Decoder<'_> {
    fn any(&mut self) -> Option<()> {
        let word = *self.words.first()?;
        self.inst.words = 1;
        match word >> 26 {
            0b110101 => return self.vop3(),
            0b110011 if bits(word, 24, 2) == 0 => return self.vop3p(),
            0b110010 => return self.dual(),
            0b110110 => return self.ds(),
            0b110111 => return self.flat(),
            0b111101 => return self.smem(),
            0b111000 => return self.buffer(),
            _ => {}
        }
        match word >> 23 {
            0b1_0111_1101 => return self.sop1(),
            0b1_0111_1110 => return self.sopc(),
            0b1_0111_1111 => return self.sopp(),
            _ => {}
        }
        match word >> 28 {
            0b1011 => return self.sopk(),
            0b1000..=0b1010 => return self.sop2(),
            _ => {}
        }
        match word >> 25 {
            0b011_1111 => self.vop1(),
            0b011_1110 => self.vopc(),
            _ if word >> 31 == 0 => self.vop2(),
            _ => None,
        }
    }

    fn word(&self, at: usize) -> Option<u32> {
        self.words.get(at).copied()
    }

    /// Takes the next dword as a literal; operands share one.
    fn literal(&mut self) -> Option<u32> {
        let literal = self.word(self.inst.words as usize)?;
        self.inst.words += 1;
        Some(literal)
    }

    /// A source operand. `literal` is the instruction's literal where it has been read already.
    fn source(&mut self, code: u32, ty: Ty, literal: &mut Option<u32>) -> Option<Src> {
        Some(match code {
            256.. => Src::V((code - 256) as u8),
            0..=127 => Src::S(code as u8),
            235 => Src::SharedBase,
            236 => Src::SharedLimit,
            237 => Src::PrivateBase,
            238 => Src::PrivateLimit,
            251 => Src::Vccz,
            252 => Src::Execz,
            253 => Src::Scc,
            LITERAL => {
                let value = match *literal {
                    Some(value) => value,
                    None => *literal.insert(self.literal()?),
                };
                Src::Const(match ty {
                    Ty::F64 => u64::from(value) << 32,
                    Ty::I64 => i64::from(value.cast_signed()).cast_unsigned(),
                    _ => u64::from(value),
                })
            }
            _ => Src::Const(inline_constant(code, ty)?),
        })
    }

    /// An 8-bit vector register field; for a 16-bit operand of a short encoding the top bit
    /// selects the upper half.
    fn short_register(&mut self, field: u32, ty: Ty, op_sel_bit: u8) -> u8 {
        if !ty.is_16() {
            return field as u8;
        }
        if field & 0x80 != 0 {
            self.inst.op_sel |= 1 << op_sel_bit;
        }
        (field & 0x7f) as u8
    }

    fn sop_sources(&mut self, op: Op, codes: &[u32]) -> Option<()> {
        let ty = scalar_type(op);
        let mut literal = None;
        for (i, &code) in codes.iter().enumerate() {
            self.inst.src[i] = self.source(code, ty, &mut literal)?;
        }
        self.inst.op = op;
        self.inst.ty = ty;
        self.inst.unit = Unit::Salu;
        self.inst.class = Class::Salu;
        Some(())
    }

    fn sop1(&mut self) -> Option<()> {
        let word = self.words[0];
        let op = find(sop::SOP1, bits(word, 8, 8))?;
        self.inst.dst = bits(word, 16, 7) as u8;
        match op {
            Op::S_GETPC_B64 => self.sop_sources(op, &[])?,
            _ => self.sop_sources(op, &[bits(word, 0, 8)])?,
        }
        if matches!(op, Op::S_GETPC_B64 | Op::S_SETPC_B64 | Op::S_SWAPPC_B64) {
            self.inst.unit = Unit::Control;
        }
        if matches!(op, Op::S_SETPC_B64) {
            self.inst.class = Class::Branch;
        }
        Some(())
    }

    fn sop2(&mut self) -> Option<()> {
        let word = self.words[0];
        let op = find(sop::SOP2, bits(word, 23, 7))?;
        self.inst.dst = bits(word, 16, 7) as u8;
        let [a, b] = [bits(word, 0, 8), bits(word, 8, 8)];
        self.sop_sources(op, &[a, b])?;
        match op {
            Op::S_FMAAK_F32 => self.inst.src[2] = Src::Const(u64::from(self.fused_literal()?)),
            Op::S_FMAMK_F32 => {
                self.inst.src[2] = self.inst.src[1];
                self.inst.src[1] = Src::Const(u64::from(self.fused_literal()?));
            }
            Op::S_FMAC_F32 | Op::S_FMAC_F16 => self.inst.src[2] = Src::S(self.inst.dst),
            _ => {}
        }
        Some(())
    }

    /// The literal that FMAAK and FMAMK always carry; a literal operand is the same dword.
    fn fused_literal(&mut self) -> Option<u32> {
        if self.inst.words == 1 { self.literal() } else { self.word(1) }
    }

    fn sopc(&mut self) -> Option<()> {
        let word = self.words[0];
        let op = find(sop::SOPC, bits(word, 16, 7))?;
        self.inst.dst = NULL;
        self.sop_sources(op, &[bits(word, 0, 8), bits(word, 8, 8)])
    }

    fn sopk(&mut self) -> Option<()> {
        let word = self.words[0];
        let op = find(sop::SOPK, bits(word, 23, 5))?;
        self.inst.dst = bits(word, 16, 7) as u8;
        self.inst.imm = i32::from(word as u16 as i16);
        self.sop_sources(op, &[])?;
        match op {
            Op::S_CALL_B64 => {
                self.inst.unit = Unit::Control;
                self.inst.class = Class::Branch;
            }
            Op::S_SETREG_IMM32_B32 => {
                self.inst.dst = NULL;
                self.inst.src[0] = Src::Const(u64::from(self.literal()?));
            }
            Op::S_WAITCNT_VSCNT
            | Op::S_WAITCNT_VMCNT
            | Op::S_WAITCNT_EXPCNT
            | Op::S_WAITCNT_LGKMCNT => {
                // The counter may also come from a register; compilers never do that.
                if self.inst.dst != NULL {
                    return None;
                }
                self.inst.unit = Unit::Control;
                self.inst.class = Class::Wait;
            }
            Op::S_CMPK_EQ_U32
            | Op::S_CMPK_LG_U32
            | Op::S_CMPK_GT_U32
            | Op::S_CMPK_GE_U32
            | Op::S_CMPK_LT_U32
            | Op::S_CMPK_LE_U32 => self.inst.imm = i32::from(word as u16),
            _ => {}
        }
        Some(())
    }

    fn sopp(&mut self) -> Option<()> {
        let word = self.words[0];
        let op = find(sop::SOPP, bits(word, 16, 7))?;
        self.inst.op = op;
        self.inst.unit = Unit::Control;
        self.inst.imm = i32::from(word as u16);
        self.inst.class = match op {
            Op::S_WAITCNT | Op::S_WAITCNT_DEPCTR | Op::S_WAIT_IDLE | Op::S_WAIT_EVENT => {
                Class::Wait
            }
            Op::S_BRANCH
            | Op::S_CBRANCH_SCC0
            | Op::S_CBRANCH_SCC1
            | Op::S_CBRANCH_VCCZ
            | Op::S_CBRANCH_VCCNZ
            | Op::S_CBRANCH_EXECZ
            | Op::S_CBRANCH_EXECNZ => {
                self.inst.imm = i32::from(word as u16 as i16);
                Class::Branch
            }
            Op::S_BARRIER => Class::Barrier,
            _ => Class::Other,
        };
        Some(())
    }

    /// Sets operation, types and executor from a row of the vector tables.
    fn vector(&mut self, row: &Row) {
        self.inst.op = row.op;
        self.inst.ty = row.dst;
        self.inst.src_ty[..row.src.len()].copy_from_slice(row.src);
        self.inst.unit = unit(row);
        self.inst.class = if self.inst.unit == Unit::Matrix { Class::Matrix } else { Class::Valu };
    }

    /// The first source of a short encoding, which may announce a DPP dword.
    fn short_source(&mut self, code: u32, ty: Ty, literal: &mut Option<u32>) -> Option<Src> {
        if matches!(code, DPP8 | DPP8_FETCH_INACTIVE | DPP16) {
            let field = self.dpp(code)?;
            return Some(Src::V(self.short_register(field, ty, 0)));
        }
        if code >= 256 && ty.is_16() {
            return Some(Src::V(self.short_register(code - 256, ty, 0)));
        }
        self.source(code, ty, literal)
    }

    /// Takes the DPP dword; returns its register field.
    fn dpp(&mut self, code: u32) -> Option<u32> {
        let word = self.literal()?;
        if code == DPP16 {
            self.inst.dpp = Dpp::Sixteen {
                control: bits(word, 8, 9) as u16,
                fetch_inactive: bits(word, 18, 1) != 0,
                bound_control: bits(word, 19, 1) != 0,
                bank_mask: bits(word, 24, 4) as u8,
                row_mask: bits(word, 28, 4) as u8,
            };
            let modifiers = bits(word, 20, 4) as u8;
            self.inst.neg |= (modifiers & 1) | (modifiers >> 1 & 2);
            self.inst.abs |= (modifiers >> 1 & 1) | (modifiers >> 2 & 2);
        } else {
            let fetch_inactive = code == DPP8_FETCH_INACTIVE;
            self.inst.dpp = Dpp::Eight { selectors: word >> 8, fetch_inactive };
        }
        Some(bits(word, 0, 8))
    }

    fn vop1(&mut self) -> Option<()> {
        let word = self.words[0];
        let opcode = bits(word, 9, 8);
        if opcode == 0 {
            self.inst.op = Op::V_NOP;
            self.inst.unit = Unit::Control;
            self.inst.class = Class::Valu;
            return Some(());
        }
        let row = find_row(&tables().vop1, opcode)?;
        self.vector(row);
        self.inst.dst = self.short_register(bits(word, 17, 8), row.dst, 3);
        self.inst.src[0] = self.short_source(bits(word, 0, 9), row.src[0], &mut None)?;
        if row.dst == Ty::S {
            self.inst.sdst = bits(word, 17, 8) as u8;
        }
        self.check()
    }

    fn vop2(&mut self) -> Option<()> {
        let word = self.words[0];
        let row = find_row(&tables().vop2, bits(word, 25, 6))?;
        self.vector(row);
        let mut literal = None;
        self.inst.dst = self.short_register(bits(word, 17, 8), row.dst, 3);
        self.inst.src[0] = self.short_source(bits(word, 0, 9), row.src[0], &mut literal)?;
        self.inst.src[1] = Src::V(self.short_register(bits(word, 9, 8), row.src[1], 1));
        self.implied(&mut literal)?;
        self.check()
    }

    /// Operands that the name implies: accumulators, VCC, fused literals.
    fn implied(&mut self, literal: &mut Option<u32>) -> Option<()> {
        let inst = &mut self.inst;
        match inst.op {
            Op::V_FMAC_F32
            | Op::V_FMAC_F16
            | Op::V_FMAC_DX9_ZERO_F32
            | Op::V_DOT2ACC_F32_F16
            | Op::V_PK_FMAC_F16 => {
                inst.src[2] = Src::V(inst.dst);
                inst.src_ty[2] = inst.ty;
                if inst.op_sel & 8 != 0 {
                    inst.op_sel |= 4;
                }
            }
            Op::V_CNDMASK_B32 => {
                inst.src[2] = Src::S(VCC);
                inst.src_ty[2] = Ty::M;
            }
            Op::V_ADD_CO_CI_U32 | Op::V_SUB_CO_CI_U32 | Op::V_SUBREV_CO_CI_U32 => {
                inst.src[2] = Src::S(VCC);
                inst.src_ty[2] = Ty::M;
                inst.sdst = VCC;
            }
            Op::V_FMAAK_F32 | Op::V_FMAAK_F16 | Op::V_FMAMK_F32 | Op::V_FMAMK_F16 => {
                let value = match *literal {
                    Some(value) => value,
                    None => self.literal()?,
                };
                let inst = &mut self.inst;
                let constant = Src::Const(u64::from(value));
                inst.src_ty[2] = inst.ty;
                if matches!(inst.op, Op::V_FMAAK_F32 | Op::V_FMAAK_F16) {
                    inst.src[2] = constant;
                } else {
                    inst.src[2] = inst.src[1];
                    inst.src[1] = constant;
                    // The half selector moves with its operand.
                    inst.op_sel = inst.op_sel & !6 | (inst.op_sel & 2) << 1;
                }
            }
            _ => {}
        }
        Some(())
    }

    fn vopc(&mut self) -> Option<()> {
        let word = self.words[0];
        let opcode = bits(word, 17, 8);
        self.compare(opcode)?;
        let [a, b, _] = self.inst.src_ty;
        self.inst.src[0] = self.short_source(bits(word, 0, 9), a, &mut None)?;
        self.inst.src[1] = Src::V(self.short_register(bits(word, 9, 8), b, 1));
        self.inst.sdst = if opcode & 0x80 != 0 { EXEC } else { VCC };
        self.check()
    }

    /// Comparison `opcode`; the condition stays in `imm`.
    fn compare(&mut self, opcode: u32) -> Option<()> {
        let ty = compare_type(opcode & 0x7f)?;
        self.inst.op = Op::V_CMP;
        self.inst.imm = opcode as i32;
        self.inst.unit = Unit::Compare;
        self.inst.class = Class::Valu;
        self.inst.ty = Ty::M;
        let second = if bits(opcode, 0, 7) >= 125 { Ty::B32 } else { ty };
        let second = if second == Ty::B32 && ty == Ty::F16 { Ty::B16 } else { second };
        self.inst.src_ty = [ty, second, Ty::NONE];
        Some(())
    }

    fn vop3(&mut self) -> Option<()> {
        let (low, high) = (self.words[0], self.word(1)?);
        self.inst.words = 2;
        let opcode = bits(low, 16, 10);
        self.inst.dst = bits(low, 0, 8) as u8;
        self.inst.neg = bits(high, 29, 3) as u8;
        self.inst.omod = bits(high, 27, 2) as u8;
        self.inst.clamp = bits(low, 15, 1) != 0;
        let has_sdst = matches!(opcode, 288..=290 | 764..=770);
        if has_sdst {
            self.inst.sdst = bits(low, 8, 7) as u8;
        } else {
            self.inst.abs = bits(low, 8, 3) as u8;
            self.inst.op_sel = bits(low, 11, 4) as u8;
        }
        let t = tables();
        match opcode {
            0..=255 => {
                self.compare(opcode)?;
                self.inst.sdst = if opcode & 0x80 != 0 { EXEC } else { bits(low, 0, 8) as u8 };
            }
            384 => {
                self.inst.op = Op::V_NOP;
                self.inst.unit = Unit::Control;
                self.inst.class = Class::Valu;
                return Some(());
            }
            256..=383 => self.vector(find_row(&t.vop2, opcode - 256)?),
            385..=511 => self.vector(find_row(&t.vop1, opcode - 384)?),
            _ if has_sdst => self.vector(find_row(&t.vop3sd, opcode)?),
            _ => self.vector(find_row(&t.vop3, opcode)?),
        }
        if (256..384).contains(&opcode) {
            let sdst = self.inst.sdst;
            match self.inst.op {
                Op::V_FMAAK_F32 | Op::V_FMAAK_F16 | Op::V_FMAMK_F32 | Op::V_FMAMK_F16 => {
                    return None;
                }
                _ => self.implied(&mut None)?,
            }
            self.inst.sdst = sdst;
            if self.inst.src_ty[2] == Ty::M {
                self.inst.src[2] = Src::None;
            }
        }
        if self.inst.ty == Ty::S {
            self.inst.sdst = bits(low, 0, 8) as u8;
        }
        self.long_sources(high)?;
        self.check()
    }

    /// The three 9-bit sources of the long encodings.
    fn long_sources(&mut self, high: u32) -> Option<()> {
        let mut literal = None;
        for i in 0..3 {
            let ty = self.inst.src_ty[i];
            if ty == Ty::NONE || self.inst.src[i] != Src::None {
                continue;
            }
            let code = bits(high, 9 * i as u32, 9);
            self.inst.src[i] = if i == 0 && matches!(code, DPP8 | DPP8_FETCH_INACTIVE | DPP16) {
                // The modifiers of the long encoding hold; those of the DPP dword are unused.
                let (neg, abs) = (self.inst.neg, self.inst.abs);
                let register = self.dpp(code)?;
                (self.inst.neg, self.inst.abs) = (neg, abs);
                Src::V(register as u8)
            } else {
                self.source(code, ty, &mut literal)?
            };
        }
        Some(())
    }

    fn vop3p(&mut self) -> Option<()> {
        let (low, high) = (self.words[0], self.word(1)?);
        self.inst.words = 2;
        self.vector(find_row(&tables().vop3p, bits(low, 16, 7))?);
        self.inst.dst = bits(low, 0, 8) as u8;
        self.inst.neg = bits(high, 29, 3) as u8;
        self.inst.abs = bits(low, 8, 3) as u8;
        self.inst.clamp = bits(low, 15, 1) != 0;
        self.inst.op_sel = bits(low, 11, 3) as u8;
        self.inst.op_sel_hi = (bits(high, 27, 2) | bits(low, 14, 1) << 2) as u8;
        if matches!(self.inst.op, Op::V_FMA_MIX_F32 | Op::V_FMA_MIXLO_F16 | Op::V_FMA_MIXHI_F16) {
            // Each source is f32, or the half of a register.
            let halves = self.inst.op_sel_hi;
            self.inst.src_ty =
                [0, 1, 2].map(|n| if halves >> n & 1 != 0 { Ty::F16 } else { Ty::F32 });
        }
        self.long_sources(high)?;
        self.check()
    }

    fn dual(&mut self) -> Option<()> {
        let (low, high) = (self.words[0], self.word(1)?);
        self.inst.words = 2;
        let mut literal = None;
        let x_dst = bits(high, 24, 8) as u8;
        // The two destinations differ in parity; only one of the low bits is encoded.
        let y_dst = (bits(high, 17, 7) << 1) as u8 | (!x_dst & 1);
        let mut second = Decoder { words: self.words, inst: self.inst, second: None };
        self.dual_half(bits(low, 22, 4), x_dst, bits(low, 0, 9), bits(low, 9, 8), &mut literal)?;
        second.inst.words = self.inst.words;
        second.dual_half(
            bits(low, 17, 5),
            y_dst,
            bits(high, 0, 9),
            bits(high, 9, 8),
            &mut literal,
        )?;
        self.inst.words = second.inst.words;
        self.inst.unit = Unit::Dual;
        self.second = Some(second.inst);
        Some(())
    }

    fn dual_half(
        &mut self,
        opcode: u32,
        dst: u8,
        src0: u32,
        src1: u32,
        literal: &mut Option<u32>,
    ) -> Option<()> {
        let op = match opcode {
            0 => Op::V_FMAC_F32,
            1 => Op::V_FMAAK_F32,
            2 => Op::V_FMAMK_F32,
            3 => Op::V_MUL_F32,
            4 => Op::V_ADD_F32,
            5 => Op::V_SUB_F32,
            6 => Op::V_SUBREV_F32,
            7 => Op::V_MUL_DX9_ZERO_F32,
            8 => Op::V_MOV_B32,
            9 => Op::V_CNDMASK_B32,
            10 => Op::V_MAX_F32,
            11 => Op::V_MIN_F32,
            12 => Op::V_DOT2ACC_F32_F16,
            13 => Op::V_DOT2_F32_BF16,
            16 => Op::V_ADD_NC_U32,
            17 => Op::V_LSHLREV_B32,
            18 => Op::V_AND_B32,
            _ => return None,
        };
        let t = tables();
        let mut rows = t.vop2.iter().chain(&t.vop1).chain(&t.vop3p).flatten();
        let row = rows.find(|row| row.op == op)?;
        self.vector(row);
        self.inst.dst = dst;
        self.inst.src[0] = self.source(src0, row.src[0], literal)?;
        if op != Op::V_MOV_B32 {
            self.inst.src[1] = Src::V(src1 as u8);
        }
        if op == Op::V_DOT2_F32_BF16 {
            self.inst.src[2] = Src::V(dst);
        }
        if let Op::V_FMAAK_F32 | Op::V_FMAMK_F32 = op
            && literal.is_none()
        {
            *literal = Some(self.literal()?);
        }
        self.implied(literal)?;
        if matches!(self.inst.unit, Unit::Packed) {
            self.inst.op_sel_hi = 7;
        }
        Some(())
    }

    /// Notes which sources are modified, and refuses operands that run past the register file.
    fn check(&mut self) -> Option<()> {
        self.inst.modified = self.inst.neg | self.inst.abs | u8::from(self.inst.dpp != Dpp::None);
        let inst = &self.inst;
        let past_end = |register: u8, ty: Ty| register as usize + ty.registers() > 256;
        let bad_source = inst.src.iter().zip(inst.src_ty).any(|(src, ty)| match *src {
            Src::V(r) => past_end(r, ty) || matches!(ty, Ty::M | Ty::S),
            Src::S(r) => r == M0 && ty == Ty::M,
            _ => false,
        });
        (!bad_source && !past_end(inst.dst, inst.ty)).then_some(())
    }
}
