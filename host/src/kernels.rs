//! Where the GPU code comes from: embedded in the program, or a folder given at run time.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use code_object::CodeObject;
use shared::kernels::{FINGERPRINT, FINGERPRINT_SYMBOL};

/// `(chip, code object or PTX)`, as `build.rs` found them.
static EMBEDDED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// Why there is no code for a chip.
#[derive(Debug, thiserror::Error)]
pub enum KernelsError {
    /// Nothing embedded for the chip.
    #[error(
        "no kernels for {chip} in this program ({}): run `./run.sh build --arch {chip}`, or name a folder with --kernels",
        embedded_list()
    )]
    NotEmbedded {
        /// The chip asked for.
        chip: String,
    },
    /// The folder given has no file for the chip.
    #[error("{}: {source}; `device-build --arch {chip} --out DIR` writes it", path.display())]
    Read {
        /// The chip asked for.
        chip: String,
        /// The file looked for.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// Not a code object.
    #[error("kernels for {chip} ({origin}): {source}")]
    Malformed {
        /// The chip asked for.
        chip: String,
        /// Where the bytes came from.
        origin: String,
        /// What is wrong.
        source: code_object::CodeObjectError,
    },
    /// Compiled for another chip than its name says.
    #[error("kernels for {chip} ({origin}) were compiled for {found}")]
    OtherChip {
        /// The chip asked for.
        chip: String,
        /// Where the bytes came from.
        origin: String,
        /// What the code object says.
        found: String,
    },
    /// Compiled with another table of kernels: its arguments would not be what the host passes.
    #[error(
        "kernels for {chip} ({origin}) are of another version of this program: run `./run.sh build --arch {chip}`"
    )]
    OtherTable {
        /// The chip asked for.
        chip: String,
        /// Where the bytes came from.
        origin: String,
    },
}

/// The chips whose kernels are embedded.
pub fn embedded_chips() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().map(|(chip, _)| *chip)
}

fn embedded_list() -> String {
    match embedded_chips().collect::<Vec<_>>() {
        chips if chips.is_empty() => "no kernels are embedded".to_owned(),
        chips => format!("embedded: {}", chips.join(", ")),
    }
}

/// The code of `chip` (`gfx1151`, `sm_90`, ...): from `folder` if one is given, else embedded.
/// A code object of another chip or of another table of kernels is refused.
///
/// # Errors
///
/// See [`KernelsError`].
pub fn code_object(chip: &str, folder: Option<&Path>) -> Result<Cow<'static, [u8]>, KernelsError> {
    let (code, origin) = match folder {
        Some(folder) => {
            let extension = if is_nvidia(chip) { "ptx" } else { "co" };
            let path = folder.join(format!("{chip}.{extension}"));
            let code = fs::read(&path).map_err(|source| KernelsError::Read {
                chip: chip.to_owned(),
                path: path.clone(),
                source,
            })?;
            (Cow::Owned(code), path.display().to_string())
        }
        None => {
            let found = EMBEDDED.iter().find(|(name, _)| *name == chip);
            let (_, code) =
                found.ok_or_else(|| KernelsError::NotEmbedded { chip: chip.to_owned() })?;
            (Cow::Borrowed(*code), "embedded".to_owned())
        }
    };
    check(chip, &origin, &code)?;
    Ok(code)
}

fn is_nvidia(chip: &str) -> bool {
    chip.starts_with("sm_")
}

fn check(chip: &str, origin: &str, code: &[u8]) -> Result<(), KernelsError> {
    let (chip, origin) = (chip.to_owned(), origin.to_owned());
    let fingerprint = if is_nvidia(&chip) {
        ptx_fingerprint(&String::from_utf8_lossy(code))
    } else {
        let object = match CodeObject::parse(code) {
            Ok(object) => object,
            Err(source) => return Err(KernelsError::Malformed { chip, origin, source }),
        };
        if object.chip.name != chip {
            let found = object.chip.name.to_owned();
            return Err(KernelsError::OtherChip { chip, origin, found });
        }
        elf_fingerprint(&object)
    };
    if fingerprint == Some(FINGERPRINT) {
        return Ok(());
    }
    Err(KernelsError::OtherTable { chip, origin })
}

fn elf_fingerprint(object: &CodeObject) -> Option<u64> {
    let symbol = object.symbol(FINGERPRINT_SYMBOL)?;
    let bytes = object.bytes(symbol.address..symbol.address.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// PTX has it as `.visible .global .align 8 .b8 NAME[8] = {BYTE, BYTE, ...};`.
fn ptx_fingerprint(text: &str) -> Option<u64> {
    let line = text.lines().find(|l| l.contains(".global") && l.contains(FINGERPRINT_SYMBOL))?;
    let (_, list) = line.split_once('{')?;
    let (list, _) = list.split_once('}')?;
    let bytes: Vec<u8> =
        list.split(',').map(|byte| byte.trim().parse().ok()).collect::<Option<_>>()?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_kernels_are_of_this_table() {
        for chip in embedded_chips() {
            // A checkout whose table changed since its kernels were built is refused by name.
            match code_object(chip, None) {
                Ok(_) | Err(KernelsError::OtherTable { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn a_chip_without_kernels_is_named() {
        let error = code_object("gfx803", None).unwrap_err().to_string();
        assert!(error.starts_with("no kernels for gfx803"), "{error}");
        assert!(error.contains("./run.sh build --arch gfx803"), "{error}");
    }

    #[test]
    fn a_missing_or_malformed_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = code_object("gfx1151", Some(dir.path())).unwrap_err().to_string();
        assert!(error.contains("gfx1151.co"), "{error}");
        fs::write(dir.path().join("gfx1151.co"), "not an ELF").unwrap();
        let error = code_object("gfx1151", Some(dir.path())).unwrap_err();
        assert!(matches!(error, KernelsError::Malformed { .. }), "{error}");
    }

    #[test]
    fn ptx_of_another_table_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let load = |value: u64| {
            let bytes = value.to_le_bytes().map(|b| b.to_string()).join(", ");
            let text = format!(".visible .global .align 8 .b8 KERNEL_TABLE[8] = {{{bytes}}};\n");
            fs::write(dir.path().join("sm_90.ptx"), text).unwrap();
            code_object("sm_90", Some(dir.path()))
        };
        assert!(load(FINGERPRINT).is_ok());
        assert!(matches!(load(!FINGERPRINT), Err(KernelsError::OtherTable { .. })));
        fs::write(dir.path().join("sm_90.ptx"), "").unwrap();
        let empty = code_object("sm_90", Some(dir.path()));
        assert!(matches!(empty, Err(KernelsError::OtherTable { .. })));
    }
}
