//! What a kernel in PTX does before it waits for the launches before it.
//!
//! Launches overlap: until `griddepcontrol.wait`, what earlier kernels write may not be there yet,
//! and what they still read may not be overwritten.

use std::collections::{BTreeMap, BTreeSet};

const WAIT: &str = "griddepcontrol.wait";

/// What a kernel may do before it waits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Early {
    /// Nothing: it touches no global memory.
    Nothing,
    /// Read what the launch before does not write, as its documentation in the table says.
    Reads,
    /// One wave waits, and fills a ring; all others use what is behind the ring's barriers.
    OneWave,
}

fn allowed(kernel: &str) -> Early {
    if kernel.starts_with("attention_split_") {
        Early::Reads
    } else if kernel.starts_with("linear_skinny") {
        Early::OneWave
    } else {
        Early::Nothing
    }
}

/// What is wrong with the body of the entry `kernel`, if anything is.
pub(crate) fn check(kernel: &str, body: &str) -> Result<(), String> {
    if !body.contains(WAIT) {
        return Err("does not wait for the launches before it, which it may overlap".to_owned());
    }
    let allowed = allowed(kernel);
    for line in before_wait(body) {
        let refused = match access(line) {
            None => false,
            Some(Access::Read) => allowed == Early::Nothing,
            Some(Access::Write) => allowed != Early::OneWave,
        };
        if refused {
            return Err(format!(
                "touches global memory before it waits for earlier launches: `{line}`"
            ));
        }
    }
    Ok(())
}

/// The instructions that can be reached from the start without a wait.
fn before_wait<'a>(body: &'a str) -> Vec<&'a str> {
    let lines: Vec<&str> = body.lines().map(str::trim).collect();
    let label = |(i, line): (usize, &&'a str)| {
        let name = line.strip_suffix(':').filter(|name| name.starts_with('$'))?;
        Some((name, i))
    };
    let labels: BTreeMap<&str, usize> = lines.iter().enumerate().filter_map(label).collect();
    let (mut reached, mut open) = (BTreeSet::new(), vec![0]);
    while let Some(i) = open.pop() {
        let Some(&line) = lines.get(i) else { continue };
        if line.contains(WAIT) || !reached.insert(i) {
            continue;
        }
        let (guard, instruction) = match line.strip_prefix('@') {
            Some(rest) => (true, rest.split_once(char::is_whitespace).map_or("", |(_, i)| i)),
            None => (false, line),
        };
        let instruction = instruction.trim();
        let jumps = instruction.starts_with("bra");
        if jumps {
            let target = instruction.trim_end_matches(';').rsplit(char::is_whitespace).next();
            open.extend(target.and_then(|name| labels.get(name)));
        }
        let ends = jumps || instruction.starts_with("ret") || instruction.starts_with("exit");
        if guard || !ends {
            open.push(i + 1);
        }
    }
    reached.into_iter().map(|i| lines[i]).collect()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    Read,
    Write,
}

/// How an instruction, or a piece of inline assembly, touches memory that may be global: without a
/// state space an address may be.
fn access(line: &str) -> Option<Access> {
    let mut found = None;
    for word in line.split([' ', '\t', ';', '{']) {
        let mut parts = word.split('.');
        let (Some(name), Some(space)) = (parts.next(), parts.next()) else { continue };
        let (own, to_global) = match space {
            "param" | "shared" | "local" | "const" => (true, false),
            _ => (false, word.contains(".global.shared")),
        };
        match name {
            _ if own => {}
            "st" | "atom" | "red" | "multimem" => return Some(Access::Write),
            "cp" if to_global => return Some(Access::Write),
            "cp" if word.contains(".commit_group") || word.contains(".wait_group") => {}
            "ld" | "ldu" | "cp" | "prefetch" | "tex" => found = Some(Access::Read),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const AROUND: &str = "
\tld.param.b64 \t%rd1, [axpy_f32_param_0];
\tst.shared.b32 \t[%r1], %r2;
\tsetp.gt.u32 \t%p1, %r1, 7;
\t@%p1 bra \t$L__BB0_2;
\tmov.u32 %r2, 0;
\t// begin inline asm
\tgriddepcontrol.wait;griddepcontrol.launch_dependents;
\t// end inline asm
\tbra.uni \t$L__BB0_3;
$L__BB0_2:
\tBEFORE
\tgriddepcontrol.wait;
$L__BB0_3:
\tld.global.b32 \t%r4, [%rd5];
\tst.global.b32 \t[%rd5], %r4;
\tret;
";

    fn with(kernel: &str, instruction: &str) -> Result<(), String> {
        check(kernel, &AROUND.replace("BEFORE", instruction))
    }

    #[test]
    fn a_wait_on_every_way_is_enough() {
        assert_eq!(with("axpy_f32", "mov.u32 %r3, 0;"), Ok(()));
    }

    #[test]
    fn an_access_before_the_wait_is_named() {
        for instruction in [
            "ld.global.b32 \t%r9, [%rd5];",
            "ld.b32 \t%r9, [%rd5];",
            "st.global.b32 \t[%rd5], %r9;",
            "atom.global.add.u32 %r9, [%rd5], 1;",
            "cp.async.cg.shared.global [%r1], [%rd5], 16;",
            "@%p1 ld.global.b32 \t%r9, [%rd5];",
        ] {
            let error = with("axpy_f32", instruction).unwrap_err();
            assert!(error.contains(instruction), "{error}");
        }
    }

    #[test]
    fn a_way_past_the_wait_is_found() {
        let error = with("axpy_f32", "@%p2 bra \t$L__BB0_3;").unwrap_err();
        assert!(error.contains("ld.global.b32 \t%r4"), "{error}");
        let none = check("axpy_f32", "\tret;\n").unwrap_err();
        assert!(none.contains("does not wait"), "{none}");
    }

    #[test]
    fn some_kernels_read_ahead_and_some_leave_the_wait_to_one_wave() {
        let (load, store) = ("ld.global.b32 \t%r9, [%rd5];", "st.global.b32 \t[%rd5], %r9;");
        assert_eq!(with("attention_split_64", load), Ok(()));
        assert!(with("attention_split_64", store).is_err());
        assert_eq!(with("linear_skinny_bf16", store), Ok(()));
        assert!(with("linear_tile_bf16", load).is_err());
    }
}
