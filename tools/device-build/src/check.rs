//! Compares what the compiler made with the table of kernels.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use code_object::{CodeObject, KernelMetadata, ValueKind};
use shared::kernels::{FINGERPRINT_SYMBOL, SOURCES_SYMBOL};
use shared::launch::{Kernel, Type};

use crate::chips::{Chip, Family};
use crate::early;
use crate::error::{AtPath, BuildError};

/// Hashes of the sources that kernels are made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources {
    pub shared: u64,
    pub device: u64,
}

/// Checks the code object or PTX at `path`: exactly the kernels of the table, with its
/// arguments and workgroup sizes, no scratch, no workgroup memory but what the launch passes.
///
/// It also has to say that it was made from `sources`.
pub(crate) fn check(chip: Chip, path: &Path, sources: Sources) -> Result<(), BuildError> {
    let bytes = fs::read(path).at(path)?;
    let found = match chip.family {
        Family::Nvptx => check_ptx(&String::from_utf8_lossy(&bytes)),
        _ => {
            let object = CodeObject::parse(&bytes)
                .map_err(|source| BuildError::CodeObject { path: path.to_owned(), source })?;
            check_metadata(chip, object.kernels.iter().map(|k| &k.metadata))
        }
    };
    let number = |symbol: &str| match chip.family {
        Family::Nvptx => code_object::ptx_number(&String::from_utf8_lossy(&bytes), symbol),
        _ => CodeObject::parse(&bytes).ok()?.number(symbol),
    };
    let stamped = |symbol: &str, expected| {
        same("hash of its sources", number(symbol), Some(expected))
            .map_err(|what| (symbol.to_owned(), what))
    };
    let found = found
        .and_then(|()| stamped(FINGERPRINT_SYMBOL, sources.shared))
        .and_then(|()| stamped(SOURCES_SYMBOL, sources.device));
    found.map_err(|(kernel, what)| BuildError::Mismatch { path: path.to_owned(), kernel, what })
}

/// The kernel, and what is wrong with it.
type Finding = (String, String);

fn check_metadata<'a>(
    chip: Chip,
    kernels: impl Iterator<Item = &'a KernelMetadata>,
) -> Result<(), Finding> {
    let mut names = BTreeSet::new();
    for found in kernels {
        names.insert(found.name.as_str());
        let table = in_table(&found.name)?;
        check_kernel(chip, table, found).map_err(|what| (found.name.clone(), what))?;
    }
    all_present(&names)
}

fn in_table(name: &str) -> Result<&'static Kernel, Finding> {
    shared::kernels::all()
        .find(|k| k.name == name)
        .ok_or_else(|| (name.to_owned(), "is not in the table of kernels".to_owned()))
}

fn all_present(names: &BTreeSet<&str>) -> Result<(), Finding> {
    match shared::kernels::all().find(|k| !names.contains(k.name)) {
        Some(k) => {
            Err((k.name.to_owned(), "is in the table, but device/ has no such kernel".into()))
        }
        None => Ok(()),
    }
}

/// `what` is `found`, and the table says `expected`.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what} is {found:?}, the table says {expected:?}"))
}

fn check_kernel(chip: Chip, table: &Kernel, found: &KernelMetadata) -> Result<(), String> {
    let args: Vec<_> = found.args.iter().filter(|a| !a.kind.is_hidden()).collect();
    same("number of arguments", args.len(), table.args.len())?;
    for (got, want) in args.iter().zip(table.args) {
        let kind = match want.ty {
            Type::Value(_) => ValueKind::ByValue,
            Type::Const(_) | Type::Mut(_) => ValueKind::GlobalBuffer,
        };
        same(&format!("offset of `{}`", want.name), got.offset as usize, want.offset)?;
        same(&format!("size of `{}`", want.name), got.size as usize, want.ty.bytes())?;
        same(&format!("kind of `{}`", want.name), &got.kind, &kind)?;
    }
    if let Some(hidden) = found.args.iter().find(|a| a.kind.is_hidden()) {
        return Err(format!("takes the hidden argument {:?}, which no launch passes", hidden.kind));
    }
    let wave = chip.family.wave();
    same("wave size", found.wavefront_size, wave)?;
    same("workgroup size", found.max_flat_workgroup_size, (table.threads)(chip.family))?;
    same("fixed workgroup memory", found.group_segment_fixed_size, 0)?;
    same("scratch memory", found.private_segment_fixed_size, 0)?;
    same("number of spilled vector registers", found.vgpr_spill_count, 0)
}

/// PTX declares an entry as `.visible .entry NAME(`, a `.param` line per argument, `)`, then
/// directives such as `.maxntid`, then the body.
fn check_ptx(text: &str) -> Result<(), Finding> {
    if let Some(line) = text.lines().find(|l| l.starts_with(".extern .func")) {
        let name = line.rsplit(' ').next().unwrap_or_default().to_owned();
        return Err((name, "is called but not in this file, and PTX is not linked".to_owned()));
    }
    let mut names = BTreeSet::new();
    for entry in text.split(".visible .entry ").skip(1) {
        let (name, rest) = entry.split_once('(').unwrap_or((entry, ""));
        let (params, rest) = rest.split_once(')').unwrap_or((rest, ""));
        let (directives, body) = rest.split_once('{').unwrap_or((rest, ""));
        names.insert(name);
        let table = in_table(name)?;
        check_entry(table, params, directives, body).map_err(|what| (name.to_owned(), what))?;
    }
    all_present(&names)
}

fn check_entry(table: &Kernel, params: &str, directives: &str, body: &str) -> Result<(), String> {
    let params: Vec<_> = params.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    same("number of arguments", params.len(), table.args.len())?;
    for (line, want) in params.iter().zip(table.args) {
        let pointer = matches!(want.ty, Type::Const(_) | Type::Mut(_));
        let bits = line.split([' ', '\t']).find_map(|word| {
            let digits = word.strip_prefix('.')?.trim_start_matches(['u', 's', 'b', 'f']);
            digits.parse::<usize>().ok()
        });
        same(&format!("size of `{}`", want.name), bits, Some(8 * want.ty.bytes()))?;
        same(&format!("`{}` being a pointer", want.name), line.contains(" .ptr "), pointer)?;
    }
    let threads = directives.lines().find_map(|l| l.trim().strip_prefix(".maxntid "));
    let threads = threads.and_then(|t| t.trim().parse().ok());
    same("workgroup size", threads, Some((table.threads)(Family::Nvptx)))?;
    early::check(table.name, body)?;
    if body.contains("__local_depot") {
        return Err("keeps an array in local memory, which is not in registers".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTX: &str = "\t// .globl\taxpy_f32
.visible .entry axpy_f32(
\t.param .u64 .ptr .align 1 axpy_f32_param_0,
\t.param .u64 .ptr .align 1 axpy_f32_param_1,
\t.param .f32 axpy_f32_param_2,
\t.param .u32 axpy_f32_param_3
)
.maxntid 256
{
\tgriddepcontrol.wait;
\tret;
}
";

    fn axpy(ptx: &str) -> Result<(), String> {
        // The rest of the table is missing from this text.
        match check_ptx(ptx) {
            Err((name, what)) if name != "axpy_f32" => {
                assert!(what.starts_with("is in the table"), "{name}: {what}");
                Ok(())
            }
            other => other.map_err(|(_, what)| what),
        }
    }

    #[test]
    fn matching_ptx_passes() {
        assert_eq!(axpy(PTX), Ok(()));
    }

    #[test]
    fn each_disagreement_is_named() {
        let what = |from: &str, to: &str| axpy(&PTX.replace(from, to)).unwrap_err();
        assert!(what(".f32 axpy", ".f64 axpy").contains("size of `a` is Some(64)"));
        assert!(what(" .ptr .align 1 axpy_f32_param_0", " axpy").contains("`x` being a pointer"));
        assert!(what(".maxntid 256\n", "").contains("workgroup size is None"));
        assert!(what("\tret", "\t.local .b8 __local_depot0[8];").contains("local memory"));
        assert!(what("\tgriddepcontrol.wait;\n", "").contains("does not wait"));
        let fewer = what(",\n\t.param .u32 axpy_f32_param_3", "");
        assert!(fewer.contains("number of arguments is 3"), "{fewer}");
    }

    #[test]
    fn unknown_and_missing_kernels_are_named() {
        let (name, what) = check_ptx(&PTX.replace("axpy_f32(", "axpy_f16(")).unwrap_err();
        assert_eq!((name.as_str(), what.contains("not in the table")), ("axpy_f16", true));
        let (_, what) = check_ptx("").unwrap_err();
        assert!(what.contains("no such kernel"), "{what}");
    }
}
