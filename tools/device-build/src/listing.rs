//! The listing of a code object: its own instructions, disassembled.
//!
//! The compiler's assembly output is that of another run of the code generator, and some kernels
//! of it differ from what was linked.

use std::collections::BTreeSet;
use std::fmt::Write;

use code_object::{CodeObject, Kernel};
use codegen::disasm::{Disassembler, Instruction};

/// Every kernel with its registers, its instructions at their offsets, and labels where branches
/// lead to. Each line ends with the instruction's bytes. Without a disassembler, a line that says
/// so: a listing is not worth a failed build.
pub(crate) fn listing(object: &CodeObject) -> String {
    match Disassembler::new(object.chip.name) {
        Err(error) => format!("; no listing: {error}\n"),
        Ok(disassembler) => {
            let mut text = format!("; {}\n", object.target);
            for kernel in &object.kernels {
                list(&mut text, object, kernel, &disassembler);
            }
            text
        }
    }
}

fn list(text: &mut String, object: &CodeObject, kernel: &Kernel, disassembler: &Disassembler) {
    let start = kernel.code.start;
    let found: Vec<Instruction<'_>> =
        disassembler.instructions(object.code(kernel), start).collect();
    let targets: BTreeSet<u64> = found.iter().filter_map(Instruction::branch_target).collect();
    let metadata = &kernel.metadata;
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "\n{}: ; {} threads, {} VGPRs, {} SGPRs",
        metadata.name, metadata.max_flat_workgroup_size, metadata.vgpr_count, metadata.sgpr_count
    );
    for instruction in &found {
        if targets.contains(&instruction.address) {
            let _ = writeln!(text, "L{:x}:", instruction.address - start);
        }
        let to = instruction.branch_target().map(|to| format!(" -> L{:x}", to.wrapping_sub(start)));
        let _ = write!(
            text,
            "{:6x}  {}{} ;",
            instruction.address - start,
            instruction.text,
            to.unwrap_or_default()
        );
        for byte in instruction.bytes {
            let _ = write!(text, " {byte:02x}");
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that a listing says kernel `name` consists of.
    fn listed(text: &str, name: &str) -> Vec<u8> {
        let head = format!("\n{name}: ;");
        let (_, rest) = text.split_once(&head).expect("the kernel is listed");
        let own = rest.split("\n\n").next().unwrap_or_default();
        let lines = own.lines().skip(1).filter(|line| line.starts_with(' '));
        let bytes = lines.flat_map(|line| line.rsplit(';').next().unwrap_or_default().split(' '));
        bytes
            .filter(|byte| !byte.is_empty())
            .map(|byte| u8::from_str_radix(byte, 16).expect("a byte"))
            .collect()
    }

    #[test]
    fn a_listing_is_that_of_the_object() {
        let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../code-object/tests/data");
        for chip in ["gfx90a", "gfx942", "gfx1151", "gfx1201"] {
            let bytes = std::fs::read(format!("{data}/sample.{chip}.co")).expect("a code object");
            let object = CodeObject::parse(&bytes).expect("a code object");
            let text = listing(&object);
            assert!(!object.kernels.is_empty());
            for kernel in &object.kernels {
                assert_eq!(listed(&text, kernel.name()), object.code(kernel), "{chip}");
            }
            for line in text.lines().filter(|line| line.contains(" -> ")) {
                let label = line.split(" -> ").nth(1).and_then(|rest| rest.split(' ').next());
                let label = format!("\n{}:\n", label.expect("a label"));
                assert!(text.contains(&label), "{chip}: {line}");
            }
            assert!(text.contains("s_endpgm ;"), "{chip}");
        }
    }
}
