//! Whatever a program's bytes are, they are a result or a fault of the guest's, never a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Executors, Group, Observer, Unobserved, Wave, WaveStart, run};
use crate::check::{Checker, Checkers};
use crate::counters::Counters;
use crate::isa::{Program, gfx11};
use crate::memory::{Allocation, Owner, Region};

const LDS_BYTES: usize = 1024;

/// First bits of the encodings, and how many.
const ENCODINGS: [(u32, u32); 17] = [
    (0b110101, 6),
    (0b11001100, 8),
    (0b110010, 6),
    (0b110110, 6),
    (0b110111, 6),
    (0b111101, 6),
    (0b111000, 6),
    (0b1_0111_1101, 9),
    (0b1_0111_1110, 9),
    (0b1_0111_1111, 9),
    (0b1011, 4),
    (0b10, 2),
    (0b011_1111, 7),
    (0b011_1110, 7),
    (0, 1),
    (0, 1),
    (0, 0),
];

struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 32) as u32
    }

    /// An instruction, often with the last register in one of its fields.
    fn instruction(&mut self) -> [u32; 4] {
        let (bits, count) = ENCODINGS[self.next() as usize % ENCODINGS.len()];
        let mut words = [self.next(), self.next(), self.next(), self.next()];
        let fields = [0, 0xff, 0x1fe00, 0xff << 17, 0xff00, 0xff_0000, 0xff00_0000, 0x1ff];
        for word in &mut words {
            *word |= fields[self.next() as usize % fields.len()];
        }
        if count > 0 {
            words[0] = words[0] & (u32::MAX >> count) | bits << (32 - count);
        }
        words
    }
}

/// Executes one instruction on a wave whose registers are small numbers and addresses of `memory`.
fn execute<O: Observer>(
    words: &[u32],
    random: &mut Random,
    memory: &[Arc<Region>],
    observer: &mut O,
) {
    let program = Program::decode(0x1000, words, &[0], gfx11::decode);
    let mut group = Group {
        regions: memory,
        program: &program,
        lds: vec![0; LDS_BYTES],
        counters: Counters::default(),
    };
    let base = memory[0].allocation.base;
    let mut wave = Wave::new();
    wave.start(&WaveStart {
        index: 0,
        entry: 0,
        sgprs: &[base as u32, (base >> 32) as u32],
        v0: [0; 32],
        exec: if random.next() & 1 == 0 { u32::MAX } else { random.next() },
        mode: 0xf0,
        scratch_bytes: 64,
        vgprs: 256,
    });
    for register in &mut wave.v.0 {
        let first = random.next() % 600;
        *register = std::array::from_fn(|lane| first + 3 * lane as u32);
    }
    for register in &mut wave.s[2..106] {
        *register = random.next() % 600;
    }
    // A fault is as good as a result.
    let _ = run(&mut wave, &mut group, &Executors::new(), observer, 1);
    for inst in &program.insts {
        assert!(!inst.to_string().is_empty());
    }
}

#[test]
fn no_encoding_panics() {
    let mut bytes = vec![0u64; 512];
    let allocation =
        Allocation { base: bytes.as_mut_ptr() as u64, len: 4096, owner: Owner::Device(0) };
    let memory = [Arc::new(Region::borrowed(allocation))];
    let mut random = Random(1);
    for turn in 0..1_000_000 {
        let words = random.instruction();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            if turn % 4 == 0 {
                let mut checker = Checker::new(Checkers::ALL, 1, LDS_BYTES, 2);
                execute(&words, &mut random, &memory, &mut checker);
            } else {
                execute(&words, &mut random, &memory, &mut Unobserved);
            }
        }));
        assert!(outcome.is_ok(), "{words:08x?}");
    }
}

/// `ds_store_2addr_b64` whose second operand ends past the last register.
#[test]
fn operands_past_the_last_register_are_unknown_instructions() {
    for (second, known) in [(254, true), (255, false)] {
        let words = [0xd938_0100, second << 16];
        let (inst, _) = gfx11::decode(&words);
        assert_eq!(inst.op != crate::isa::Op::UNKNOWN, known, "v{second}: {inst}");
    }
}
