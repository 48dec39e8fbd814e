//! The decoder against LLVM's disassembler, on random operands of every opcode.

use std::collections::BTreeMap;

use codegen::disasm::Disassembler;

use super::super::{Inst, Op};
use super::decode;

/// Deterministic bits (Marsaglia's xorshift).
struct Bits(u64);

impl Bits {
    fn next(&mut self, below: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) % u64::from(below)) as u32
    }

    /// An 8-bit source: registers, constants, a literal.
    fn scalar(&mut self) -> u32 {
        match self.next(8) {
            0 => 128 + self.next(81),
            1 => 240 + self.next(9),
            2 => 255,
            3 => 106,
            4 => 124 + self.next(3),
            _ => 2 * self.next(50),
        }
    }

    /// A 9-bit source.
    fn source(&mut self) -> u32 {
        if self.next(2) == 0 { self.scalar() } else { 256 + self.next(120) }
    }

    fn word(&mut self) -> u32 {
        self.next(u32::MAX)
    }
}

/// Encodings of one opcode with random operands.
fn samples(encoding: &str, opcode: u32, bits: &mut Bits) -> [u32; 4] {
    let literal = bits.word();
    let (v, w) = (bits.next(120), bits.next(120));
    match encoding {
        "sop1" => {
            [0xbe80_0000 | (2 * bits.next(50)) << 16 | opcode << 8 | bits.scalar(), literal, 0, 0]
        }
        "sop2" => {
            let word = 2 << 30 | opcode << 23 | (2 * bits.next(50)) << 16;
            [word | bits.scalar() << 8 | bits.scalar(), literal, 0, 0]
        }
        "sopc" => [0xbf00_0000 | opcode << 16 | bits.scalar() << 8 | bits.scalar(), literal, 0, 0],
        "sopk" => {
            let register = 2 * bits.next(50);
            [0xb000_0000 | opcode << 23 | register << 16 | bits.next(1 << 16), literal, 0, 0]
        }
        "sopp" => [0xbf80_0000 | opcode << 16 | bits.next(1 << 16), literal, 0, 0],
        "smem" => {
            let low = 0xf400_0000 | opcode << 18 | (4 * bits.next(20)) << 6 | bits.next(50);
            [low, 124 << 25 | bits.next(1 << 20), 0, 0]
        }
        "vop1" => [0x7e00_0000 | v << 17 | opcode << 9 | bits.source(), literal, 0, 0],
        "vop1 dpp" => {
            let dpp = bits.next(256) << 8 | 0xff00_0000 | bits.next(16) << 20 | w;
            [0x7e00_0000 | v << 17 | opcode << 9 | 250, dpp, 0, 0]
        }
        "vop1 dpp8" => [0x7e00_0000 | v << 17 | opcode << 9 | 233, literal << 8 | w, 0, 0],
        "vop2" => [opcode << 25 | v << 17 | w << 9 | bits.source(), literal, 0, 0],
        "vop2 dpp" => {
            let dpp = (0x150 + bits.next(16)) << 8 | 0xff00_0000 | 1 << 19 | bits.next(120);
            [opcode << 25 | v << 17 | w << 9 | 250, dpp, 0, 0]
        }
        "vopc" => [0x7c00_0000 | opcode << 17 | w << 9 | bits.source(), literal, 0, 0],
        "vop3" => {
            let low = 0xd400_0000 | opcode << 16 | bits.next(16) << 11 | bits.next(8) << 8 | v;
            let high =
                bits.next(8) << 29 | bits.source() << 18 | bits.source() << 9 | bits.source();
            [low, high, literal, 0]
        }
        "vop3 plain" => {
            let low = 0xd400_0000 | opcode << 16 | (2 * bits.next(50)) << 8 | v;
            [low, bits.source() << 18 | bits.source() << 9 | bits.source(), literal, 0]
        }
        "vop3p" => {
            let low = 0xcc00_0000 | opcode << 16 | 1 << 14 | bits.next(8) << 11 | bits.next(8) << 8;
            let high =
                bits.next(32) << 27 | bits.source() << 18 | bits.source() << 9 | bits.source();
            [low | v, high, literal, 0]
        }
        "ds" => {
            let low = 0xd800_0000 | opcode << 18 | bits.next(1 << 16);
            [low, v << 24 | bits.next(120) << 16 | bits.next(120) << 8 | w, 0, 0]
        }
        segment => {
            let segment = ["flat", "scratch", "global"].iter().position(|&s| s == segment);
            let segment = segment.expect("an encoding") as u32;
            let saddr = if segment == 0 || bits.next(2) == 0 { 124 } else { 2 * bits.next(50) };
            let offset = if segment == 0 { bits.next(4096) } else { bits.next(1 << 13) };
            let glc = bits.next(2) << 14;
            let vector = if segment == 1 { bits.next(2) << 23 } else { 0 };
            let low = 0xdc00_0000 | opcode << 18 | segment << 16 | glc | offset;
            [low, v << 24 | vector | saddr << 16 | bits.next(120) << 8 | w, 0, 0]
        }
    }
}

/// Mnemonic without the suffix of its encoding.
fn bare(mnemonic: &str) -> &str {
    let suffixes = ["_e64_dpp", "_e32", "_e64", "_dpp", "_sdwa"];
    suffixes.iter().find_map(|suffix| mnemonic.strip_suffix(suffix)).unwrap_or(mnemonic)
}

/// The first register of each operand, in order; halves and modifiers are left out.
fn registers(text: &str) -> Vec<String> {
    let operands = text.split_once(' ').map_or("", |(_, operands)| operands);
    operands
        .split([',', ' ', '|', '(', ')', '-'])
        .filter_map(|token| {
            let token = token.trim_end_matches(".l").trim_end_matches(".h");
            match token {
                "vcc" | "vcc_lo" => return Some("vcc".to_owned()),
                "exec" | "exec_lo" => return Some("exec".to_owned()),
                "vcc_hi" | "exec_hi" | "m0" | "null" => return Some(token.to_owned()),
                _ => {}
            }
            let kind = token.get(..1).filter(|kind| ["v", "s"].contains(kind))?;
            let number = token[1..].trim_start_matches('[').split(':').next()?;
            number.parse::<u32>().ok().map(|number| format!("{kind}{number}"))
        })
        .collect()
}

/// Encodings and how many opcodes each has.
const ENCODINGS: [(&str, u32); 20] = [
    ("sop1", 256),
    ("sop2", 96),
    ("sopc", 128),
    ("sopk", 32),
    ("sopp", 128),
    ("smem", 8),
    ("vop1", 256),
    ("vop1 dpp", 256),
    ("vop1 dpp8", 256),
    ("vop2", 62),
    ("vop2 dpp", 62),
    ("vopc", 256),
    ("vop3", 1024),
    ("vop3 plain", 1024),
    ("vop3p", 128),
    ("ds", 256),
    ("flat", 128),
    ("scratch", 128),
    ("global", 128),
    ("", 0),
];

#[test]
fn decodes_what_llvm_decodes() {
    let disassembler = match Disassembler::with_features("gfx1151", "+real-true16") {
        Ok(disassembler) => disassembler,
        Err(error) => {
            println!("skipped: {error}");
            return;
        }
    };
    let mut bits = Bits(0x9e37_79b9_7f4a_7c15);
    let mut wrong = BTreeMap::new();
    let mut unknown: BTreeMap<String, u32> = BTreeMap::new();
    let mut compared = 0;
    for (encoding, opcodes) in ENCODINGS {
        for opcode in (0..opcodes).flat_map(|opcode| [opcode; 12]) {
            let words = samples(encoding, opcode, &mut bits);
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let Some(theirs) = disassembler.instructions(&bytes, 0).next() else { continue };
            let ours = decode(&words).0;
            let mnemonic = bare(theirs.mnemonic()).to_owned();
            let refused = mnemonic == ".long" || theirs.text.contains("Invalid register");
            match (mnemonic.as_str(), ours.op) {
                _ if refused => {}
                (_, Op::UNKNOWN) => *unknown.entry(mnemonic).or_default() += 1,
                _ => {
                    compared += 1;
                    if let Some(difference) = difference(&ours, &theirs.text, theirs.bytes.len()) {
                        let key = format!("{encoding}: {mnemonic}");
                        wrong.entry(key).or_insert(format!("{difference} {words:08x?}"));
                    }
                }
            }
        }
    }
    if std::env::var_os("GPTOSS_TEST_VERBOSE").is_some() {
        println!("unknown here: {unknown:?}");
    }
    assert!(wrong.is_empty(), "{} of {compared} differ: {wrong:#?}", wrong.len());
    assert!(compared > 5000, "only {compared} encodings were compared");
}

/// What differs between our reading and LLVM's.
fn difference(ours: &Inst, theirs: &str, bytes: usize) -> Option<String> {
    let text = ours.to_string();
    let same_name = ours.mnemonic() == bare(theirs.split(' ').next().unwrap_or_default());
    let same =
        same_name && ours.words as usize * 4 == bytes && registers(&text) == registers(theirs);
    (!same).then(|| format!("ours `{text}` ({} bytes), LLVM `{theirs}` ({bytes})", ours.words * 4))
}
