//! Memory encodings.

use super::super::super::{Class, NULL, Op, Space, Src, Unit};
use super::super::tables::find;
use super::super::{mem, sop};
use super::{Decoder, bits};

impl Decoder<'_> {
    pub(super) fn smem(&mut self) -> Option<()> {
        let (low, high) = (self.words[0], self.word(1)?);
        self.inst.words = 2;
        self.inst.unit = Unit::Smem;
        self.inst.class = Class::Smem;
        let opcode = bits(low, 18, 8);
        if matches!(opcode, 32 | 33) {
            // Cache invalidation: nothing is cached here.
            self.inst.op = Op::CACHE;
            self.inst.name = if opcode == 32 { "s_gl1_inv" } else { "s_dcache_inv" };
            return Some(());
        }
        self.inst.op = find(sop::SMEM, opcode)?;
        self.inst.dst = bits(low, 6, 7) as u8;
        self.inst.src[0] = Src::S((bits(low, 0, 6) << 1) as u8);
        self.inst.src[1] = Src::S(bits(high, 25, 7) as u8);
        // 21-bit signed offset.
        self.inst.imm = (high << 11).cast_signed() >> 11;
        self.inst.mem.bytes = 4 << (opcode & 7);
        Some(())
    }

    pub(super) fn ds(&mut self) -> Option<()> {
        let (low, high) = (self.words[0], self.word(1)?);
        self.inst.words = 2;
        // Global data share does not exist on these chips for compute.
        if bits(low, 17, 1) != 0 {
            return None;
        }
        let row = mem::DS.iter().find(|row| u32::from(row.opcode) == bits(low, 18, 8))?;
        self.inst.op = row.op;
        self.inst.mem = row.mem;
        self.inst.name = row.name;
        self.inst.unit = Unit::Lds;
        self.inst.class = Class::Lds;
        self.inst.imm = bits(low, 0, 16) as i32;
        self.inst.dst = bits(high, 24, 8) as u8;
        let field = |low| Src::V(bits(high, low, 8) as u8);
        self.inst.src = [field(0), field(8), field(16)];
        let data = self.inst.mem.bytes.div_ceil(4) as usize;
        let pair = if self.inst.mem.pair_stride != 0 { 2 } else { 1 };
        let writes = matches!(self.inst.op, Op::LDS_LOAD) || self.inst.mem.returns;
        let fits = |register: Src, count: usize| match register {
            Src::V(r) => r as usize + count <= 256,
            _ => true,
        };
        let first = matches!(self.inst.op, Op::LDS_LOAD) || fits(self.inst.src[1], data);
        let second = !self.inst.reads_second_data() || fits(self.inst.src[2], data);
        let fit_sources = first && second;
        let fit_result = !writes || fits(Src::V(self.inst.dst), data * pair);
        (fit_sources && fit_result).then_some(())
    }

    pub(super) fn flat(&mut self) -> Option<()> {
        let (low, high) = (self.words[0], self.word(1)?);
        self.inst.words = 2;
        let row = mem::FLAT.iter().find(|row| u32::from(row.opcode) == bits(low, 18, 7))?;
        self.inst.op = row.op;
        self.inst.mem = row.mem;
        self.inst.name = row.name;
        self.inst.unit = Unit::Global;
        self.inst.mem.space = match bits(low, 16, 2) {
            0 => Space::Flat,
            1 => Space::Scratch,
            2 => Space::Global,
            _ => return None,
        };
        if row.op == Op::ATOMIC {
            if self.inst.mem.space == Space::Scratch {
                return None;
            }
            self.inst.mem.returns = bits(low, 14, 1) != 0;
        }
        self.inst.class =
            if self.inst.mem.space == Space::Scratch { Class::Scratch } else { Class::Global };
        // 13-bit signed offset.
        self.inst.imm = (low << 19).cast_signed() >> 19;
        self.inst.dst = bits(high, 24, 8) as u8;
        self.inst.src[0] = Src::V(bits(high, 0, 8) as u8);
        self.inst.src[1] = Src::V(bits(high, 8, 8) as u8);
        let saddr = bits(high, 16, 7);
        self.inst.src[2] = match saddr {
            0x7f => Src::None,
            _ if saddr == u32::from(NULL) => Src::None,
            _ => Src::S(saddr as u8),
        };
        if self.inst.mem.space == Space::Scratch && bits(high, 23, 1) == 0 {
            self.inst.src[0] = Src::None;
        }
        let count = self.inst.mem.bytes.div_ceil(4) as usize;
        let register =
            if self.inst.op == Op::LOAD { self.inst.dst } else { bits(high, 8, 8) as u8 };
        (register as usize + count <= 256).then_some(())
    }

    /// Of the buffer instructions only the cache invalidations are supported.
    pub(super) fn buffer(&mut self) -> Option<()> {
        let low = self.words[0];
        self.word(1)?;
        self.inst.words = 2;
        self.inst.op = Op::CACHE;
        self.inst.unit = Unit::Control;
        self.inst.name = match bits(low, 18, 8) {
            43 => "buffer_gl0_inv",
            44 => "buffer_gl1_inv",
            _ => return None,
        };
        Some(())
    }
}
