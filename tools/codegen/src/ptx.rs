//! Reports of PTX: the instruction mix and the loops. Registers, code size and occupancy belong to
//! the machine code that the driver makes of it, and are absent.
//!
//! Source of the instruction names: NVIDIA, "Parallel Thread Execution ISA".

use std::collections::HashMap;

use crate::Launch;
use crate::flow::Flow;
use crate::mix::{Access, Class, Kind, Operation, Space};
use crate::report::{Body, KernelReport, main_loop};

/// Lanes of a warp.
const WARP: u32 = 32;
/// The largest workgroup of every NVIDIA chip.
const MAX_WORKGROUP: u32 = 1024;

/// Reports every `.entry` of a PTX module; `file` is its name in the reports.
///
/// # Errors
///
/// What the text lacks, in a few words.
pub fn kernels(
    text: &str,
    file: &str,
    launches: &[Launch],
) -> Result<Vec<KernelReport>, &'static str> {
    let text = without_comments(text);
    let chip = directive(&text, ".target").ok_or("no .target directive")?;
    // sm_90a is sm_90 with the instructions that no later chip promises to have.
    let chip = chip.trim_end_matches(['a', 'f']);
    let mut kernels = Vec::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(".entry") {
        rest = &rest[at + ".entry".len()..];
        let name =
            rest.split(|c: char| c.is_whitespace() || c == '(').find(|word| !word.is_empty());
        let name = name.ok_or("an .entry without a name")?;
        let open = rest.find('{').ok_or("an .entry without a body")?;
        let size = body_size(&rest[open..]).ok_or("an .entry whose body does not end")?;
        let (head, body) = (&rest[..open], &rest[open..open + size]);
        kernels.push(report(name, chip, file, head, body, launches));
        rest = &rest[open + size..];
    }
    Ok(kernels)
}

fn report(
    name: &str,
    chip: &str,
    file: &str,
    head: &str,
    body: &str,
    launches: &[Launch],
) -> KernelReport {
    let launch = launches.iter().find(|launch| launch.kernel == name);
    let declared = [".reqntid", ".maxntid"].iter().find_map(|name| workgroup(head, name));
    let statements = statements(body);
    let labels: HashMap<&str, usize> = statements
        .iter()
        .filter_map(|statement| match statement {
            Statement::Label(label, index) => Some((*label, *index)),
            Statement::Instruction(_) => None,
        })
        .collect();
    let instructions: Vec<&str> = statements
        .iter()
        .filter_map(|statement| match statement {
            Statement::Instruction(text) => Some(*text),
            Statement::Label(..) => None,
        })
        .collect();
    let body = Body {
        kinds: instructions.iter().map(|text| classify(text)).collect(),
        flow: instructions.iter().map(|text| flow(text, &labels)).collect(),
        offsets: (0..instructions.len() as u64).collect(),
    };
    let loops = body.loops();
    KernelReport {
        name: name.to_owned(),
        chip: chip.to_owned(),
        file: file.to_owned(),
        wavefront_size: WARP,
        workgroup_size: launch
            .and_then(|launch| launch.workgroup_size)
            .or(declared)
            .unwrap_or(MAX_WORKGROUP),
        resources: None,
        occupancy: None,
        code_bytes: None,
        calls: instructions.iter().filter(|text| operation(text).1.starts_with("call")).count()
            as u32,
        mix: body.mix(),
        main_loop: main_loop(&loops),
        loops,
    }
}

/// The text without `//` and `/* */` comments.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('/') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = if rest.starts_with("//") {
            rest.find('\n')
        } else if rest.starts_with("/*") {
            rest.find("*/").map(|end| end + 2)
        } else {
            out.push('/');
            Some(1)
        };
        rest = &rest[end.unwrap_or(rest.len())..];
    }
    out.push_str(rest);
    out
}

/// The first word after a module directive.
fn directive(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(name)?;
    let word = rest.split(|c: char| c.is_whitespace() || c == ',').find(|word| !word.is_empty())?;
    Some(word.to_owned())
}

/// Bytes from an opening brace to past its match.
fn body_size(text: &str) -> Option<usize> {
    let mut depth = 0u32;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// The product of a `.reqntid x, y, z` or `.maxntid` directive.
fn workgroup(head: &str, name: &str) -> Option<u32> {
    let (_, rest) = head.split_once(name)?;
    let numbers = rest.split(',').map_while(|n| n.split_whitespace().next()?.parse::<u32>().ok());
    numbers.reduce(u32::saturating_mul)
}

/// A part of a kernel's body.
enum Statement<'a> {
    /// A label and the index of the instruction it stands before.
    Label(&'a str, usize),
    Instruction(&'a str),
}

/// Splits a body into labels and instructions; declarations are dropped.
fn statements(body: &str) -> Vec<Statement<'_>> {
    let mut statements = Vec::new();
    let mut index = 0;
    for mut text in body.split(';') {
        loop {
            text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '{' || c == '}');
            // A label is one word before a colon; `::` is part of names such as .shared::cta.
            let Some((label, rest)) = text.split_once(':') else { break };
            if rest.starts_with(':') || label.contains(char::is_whitespace) {
                break;
            }
            statements.push(Statement::Label(label, index));
            text = rest;
        }
        if !text.is_empty() && !text.starts_with('.') {
            statements.push(Statement::Instruction(text.trim_end()));
            index += 1;
        }
    }
    statements
}

/// The predicate, if any, and the operation: `("@%p1", "bra")`.
fn operation(text: &str) -> (Option<&str>, &str) {
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or_default();
    if first.starts_with('@') {
        (Some(first), words.next().unwrap_or_default())
    } else {
        (None, first)
    }
}

fn flow(text: &str, labels: &HashMap<&str, usize>) -> Flow {
    let (predicate, operation) = operation(text);
    let target = || text.split_whitespace().last().and_then(|label| labels.get(label)).copied();
    match operation.split('.').next().unwrap_or_default() {
        "bra" if predicate.is_some() => Flow::Branch(target()),
        "bra" => Flow::Jump(target()),
        "ret" | "exit" | "trap" if predicate.is_none() => Flow::End,
        _ => Flow::Next,
    }
}

/// The class and access of one instruction.
fn classify(text: &str) -> Kind {
    let (_, operation) = operation(text);
    let mut parts = operation.split('.');
    let verb = parts.next().unwrap_or_default();
    let modifiers: Vec<&str> = parts.collect();
    let has =
        |name: &str| modifiers.iter().any(|m| *m == name || m.starts_with(&format!("{name}::")));
    let access = access(verb, &modifiers, text);
    let class = match verb {
        "mma" => Class::Matrix,
        "wgmma" if has("mma_async") => Class::Matrix,
        "wgmma" | "fence" | "membar" => Class::Wait,
        "cp" if has("wait_group") || has("wait_all") || has("commit_group") => Class::Wait,
        "mbarrier" if has("try_wait") || has("test_wait") => Class::Wait,
        "bar" | "barrier" | "mbarrier" => Class::Barrier,
        "bra" | "ret" | "exit" | "trap" | "call" | "brx" => Class::Branch,
        "ex2" | "lg2" | "rcp" | "rsqrt" | "sqrt" | "sin" | "cos" | "tanh" => Class::Transcendental,
        "cvt" => Class::Convert,
        "dp4a" | "dp2a" => Class::Dot,
        "nanosleep" | "setmaxnreg" => Class::Hint,
        _ => match access.map(|access| access.space) {
            Some(Space::Global) => Class::Global,
            Some(Space::Lds) => Class::Lds,
            Some(Space::Scratch) => Class::Scratch,
            Some(Space::Scalar) => Class::ScalarMemory,
            None if ["f16x2", "bf16x2", "f32x2"].iter().any(|pair| has(pair)) => Class::Packed,
            None => Class::Vector,
        },
    };
    Kind { class, access, matrix: (class == Class::Matrix).then(|| operation.to_owned()) }
}

/// The access of a load, store, copy or atomic.
fn access(verb: &str, modifiers: &[&str], text: &str) -> Option<Access> {
    let has =
        |name: &str| modifiers.iter().any(|m| *m == name || m.starts_with(&format!("{name}::")));
    let operation = match verb {
        "ld" | "ldu" | "ldmatrix" => Operation::Load,
        "st" | "stmatrix" => Operation::Store,
        "atom" | "red" => Operation::Atomic,
        "cp" if has("async") && has("global") => Operation::LoadToLds,
        "prefetch" | "discard" | "applypriority" => Operation::Cache,
        _ => return None,
    };
    let space = match operation {
        Operation::LoadToLds | Operation::Cache => Space::Global,
        _ if has("param") || has("const") => Space::Scalar,
        _ if has("shared") => Space::Lds,
        _ if has("local") => Space::Scratch,
        // No state space is a generic address, which these kernels use for global memory.
        _ => Space::Global,
    };
    let bits = match verb {
        "cp" => copied_bytes(text).unwrap_or(16).saturating_mul(8),
        "ldmatrix" | "stmatrix" => vector_length(modifiers, 'x').saturating_mul(32),
        _ => {
            let element = modifiers.last().map_or(32, |kind| element_bits(kind));
            element.saturating_mul(vector_length(modifiers, 'v'))
        }
    };
    let bits = if operation == Operation::Cache { 0 } else { bits };
    Some(Access { space, operation, elements: 1, bits })
}

/// The size operand of `cp.async DST, SRC, SIZE`.
fn copied_bytes(text: &str) -> Option<u32> {
    text.split(',').nth(2)?.trim().parse().ok()
}

/// The number in a `.v4` or `.x4` modifier, else 1.
fn vector_length(modifiers: &[&str], letter: char) -> u32 {
    modifiers.iter().find_map(|m| m.strip_prefix(letter)?.parse().ok()).unwrap_or(1)
}

/// Bits of a type modifier.
fn element_bits(kind: &str) -> u32 {
    match kind {
        "f16x2" | "bf16x2" => 32,
        "bf16" => 16,
        _ => kind.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(32),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MODULE: &str = r"
.version 7.8
.target sm_90a, debug
.address_size 64 // comment with .entry in it
.visible .entry gemm(
    .param .u64 gemm_param_0
)
.reqntid 64, 2, 1
{
    .reg .b32 %r<8>;
    ld.param.u64 %rd1, [gemm_param_0];
$L__BB0_1:
    ld.global.nc.v4.b32 {%r1, %r2, %r3, %r4}, [%rd1];
    // begin inline asm
    { ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1, %r2, %r3, %r4}, [%r5]; }
    // end inline asm
    mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1}, {%r1}, {%r2}, {%f1};
    cp.async.cg.shared.global [%r1], [%rd1], 16;
    cp.async.wait_group 0;
    st.shared.v2.f32 [%r1], {%f1, %f2};
    bar.sync 0;
    ex2.approx.ftz.f32 %f1, %f2;
    @%p1 bra $L__BB0_1;
    st.global.b16 [%rd1], %rs1;
    ret;
}
";

    proptest! {
        #[test]
        fn any_text_is_answered(
            text in any::<String>(),
            words in "(\\PC|[{};:@.,/*]|ld\\.|cp\\.async\\.cg\\.global|\\.v[0-9]{10}|[0-9]{10}){0,40}",
            cut in 0..MODULE.len(),
            damage in (0..MODULE.len(), "[ -~]"),
        ) {
            let mut damaged = MODULE.to_owned();
            damaged.replace_range(damage.0..=damage.0, &damage.1);
            let body = format!(".target sm_90\n.entry k() {{ {words}; }}");
            for text in [text.as_str(), &MODULE[..cut], &damaged, &body] {
                let _ = kernels(text, "any.ptx", &[]);
            }
        }
    }

    #[test]
    fn sizes_that_overflow_are_answered() {
        let body = "cp.async.cg.shared.global [%r1], [%rd1], 4294967295; \
                    ld.v4294967295.b32 %r1, [%r2]; ldmatrix.x4294967295.b16 %r1, [%r2];";
        let text = format!(".target sm_90\n.entry k() {{ {body} }}");
        let kernels = kernels(&text, "any.ptx", &[]).expect("parses");
        assert_eq!(kernels[0].mix.instructions, 3);
    }

    #[test]
    fn a_module_has_its_mix_and_loop() {
        let kernels = kernels(MODULE, "gemm.ptx", &[]).expect("parses");
        let [kernel] = kernels.as_slice() else { panic!("one kernel, got {}", kernels.len()) };
        assert_eq!((kernel.name.as_str(), kernel.chip.as_str()), ("gemm", "sm_90"));
        assert_eq!(kernel.workgroup_size, 128);
        assert_eq!(kernel.mix.instructions, 12);
        let main = &kernel.main().expect("one loop").mix;
        assert_eq!(main.instructions, 9);
        for (class, count) in [
            (Class::Matrix, 1),
            (Class::Global, 2),
            (Class::Lds, 2),
            (Class::Wait, 1),
            (Class::Barrier, 1),
            (Class::Transcendental, 1),
            (Class::Branch, 1),
        ] {
            assert_eq!(main.count(class), count, "{class:?}");
        }
        let accesses: Vec<_> = main.accesses.keys().map(ToString::to_string).collect();
        assert_eq!(
            accesses,
            ["global_load_b128", "global_load_to_lds_b128", "lds_load_b128", "lds_store_b64"]
        );
    }

    #[test]
    fn damage_is_an_error() {
        assert!(kernels(".version 7.8", "", &[]).is_err());
        for end in 0..MODULE.len() {
            let _ = kernels(&MODULE[..end], "", &[]);
        }
        let cut = &MODULE[..MODULE.rfind('}').expect("has a brace")];
        assert!(kernels(cut, "", &[]).is_err());
    }
}
