//! The code of a code object, decoded.

use super::{Inst, Op};

/// A run of decoded code at consecutive addresses.
#[derive(Debug)]
pub struct Program {
    /// Instructions in address order. The second half of a dual-issue pair follows the first.
    pub insts: Vec<Inst>,
    /// Address of the first.
    base: u64,
    /// Instruction that starts at each dword.
    index: Vec<u32>,
    /// Dword at which each instruction starts.
    offset: Vec<u32>,
}

/// No instruction starts at this dword.
const NOWHERE: u32 = u32::MAX;

impl Program {
    /// Decodes `words`, which lie at address `base`, with `decode`: it takes the rest of the code
    /// and returns an instruction and, for a dual-issue pair, its second half.
    ///
    /// Each dword offset in `starts` begins an instruction, whatever decoding before it says.
    pub fn decode(
        base: u64,
        words: &[u32],
        starts: &[usize],
        decode: impl Fn(&[u32]) -> (Inst, Option<Inst>),
    ) -> Program {
        let mut starts: Vec<usize> = starts.iter().copied().filter(|&s| s < words.len()).collect();
        starts.sort_unstable();
        let mut program = Program {
            insts: Vec::with_capacity(words.len()),
            base,
            index: vec![NOWHERE; words.len()],
            offset: Vec::with_capacity(words.len()),
        };
        let mut at = 0;
        while at < words.len() {
            let next_start = starts.partition_point(|&s| s <= at);
            let end = starts.get(next_start).copied().unwrap_or(words.len());
            let (mut inst, second) = decode(&words[at..]);
            if at + inst.words as usize > end {
                inst = Inst::unknown([words[at], 0]);
            }
            program.index[at] = program.insts.len() as u32;
            let known = inst.op != Op::UNKNOWN;
            program.insts.push(inst);
            program.offset.push(at as u32);
            if let Some(second) = second.filter(|_| known) {
                program.insts.push(second);
                program.offset.push(at as u32);
            }
            at += inst.words as usize;
        }
        program.resolve_branches();
        program
    }

    /// Turns branch displacements (dwords from the next instruction) into instruction indices;
    /// a branch to nowhere becomes -1.
    fn resolve_branches(&mut self) {
        for at in 0..self.insts.len() {
            let inst = &self.insts[at];
            if inst.class != super::Class::Branch || inst.op == Op::S_SETPC_B64 {
                continue;
            }
            let next = i64::from(self.offset[at]) + i64::from(inst.words);
            let target = usize::try_from(next + i64::from(inst.imm)).ok();
            let index = target.and_then(|t| self.index.get(t)).copied().filter(|&i| i != NOWHERE);
            self.insts[at].imm = index.map_or(-1, |i| i as i32);
        }
    }

    /// Index of the instruction at `address`.
    pub fn at(&self, address: u64) -> Option<usize> {
        let offset = address.checked_sub(self.base)?;
        if !offset.is_multiple_of(4) {
            return None;
        }
        let index = *self.index.get(usize::try_from(offset / 4).ok()?)?;
        (index != NOWHERE).then_some(index as usize)
    }

    /// Address of the instruction with this index; of the end for the index past the last.
    pub fn address(&self, index: usize) -> u64 {
        let dword = self.offset.get(index).map_or(self.index.len(), |&d| d as usize);
        self.base + 4 * dword as u64
    }
}
