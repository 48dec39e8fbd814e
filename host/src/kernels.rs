//! Where the GPU code comes from: embedded in the program, or a folder given at run time.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use code_object::CodeObject;
use shared::block::Family;
use shared::chips::Chip;
use shared::kernels::{FINGERPRINT, FINGERPRINT_SYMBOL, SOURCES_SYMBOL};

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
    /// Compiled with another version of `shared/`: arguments, layouts or sizes would not be what
    /// the host takes them for.
    #[error(
        "kernels for {chip} ({origin}) were made with other sources of shared/ ({found}) than this program ({FINGERPRINT:016x}): run `./run.sh build --arch {chip}`"
    )]
    OtherVersion {
        /// The chip asked for.
        chip: String,
        /// Where the bytes came from.
        origin: String,
        /// What they say they were made with.
        found: Stamp,
    },
}

/// What kernels say they were made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Hash of `shared/src`, which has to be this program's own: [`shared::kernels::FINGERPRINT`].
    pub shared: Option<u64>,
    /// Hash of `device/src`, which tells builds of kernels apart.
    pub device: Option<u64>,
}

impl Stamp {
    fn of(chip: &str, code: &[u8], object: Option<&CodeObject>) -> Stamp {
        let number = |symbol| match object {
            Some(object) => object.number(symbol),
            None if is_nvidia(chip) => {
                code_object::ptx_number(&String::from_utf8_lossy(code), symbol)
            }
            None => None,
        };
        Stamp { shared: number(FINGERPRINT_SYMBOL), device: number(SOURCES_SYMBOL) }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |number: Option<u64>| match number {
            Some(number) => format!("{number:016x}"),
            None => "none".to_owned(),
        };
        write!(f, "{}, device/ {}", part(self.shared), part(self.device))
    }
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
/// A code object of another chip, or made with another version of `shared/`, is refused.
///
/// # Errors
///
/// See [`KernelsError`].
pub fn code_object(chip: &str, folder: Option<&Path>) -> Result<Cow<'static, [u8]>, KernelsError> {
    let (code, origin) = match folder {
        Some(folder) => {
            let extension = Chip::find(chip).map_or("co", Chip::extension);
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
    Chip::find(chip).is_some_and(|chip| chip.family == Family::Nvptx)
}

fn check(chip: &str, origin: &str, code: &[u8]) -> Result<(), KernelsError> {
    let (chip, origin) = (chip.to_owned(), origin.to_owned());
    let object = if is_nvidia(&chip) {
        None
    } else {
        match CodeObject::parse(code) {
            Ok(object) => Some(object),
            Err(source) => return Err(KernelsError::Malformed { chip, origin, source }),
        }
    };
    if let Some(object) = object.as_ref().filter(|object| object.chip.name != chip) {
        let found = object.chip.name.to_owned();
        return Err(KernelsError::OtherChip { chip, origin, found });
    }
    let found = Stamp::of(&chip, code, object.as_ref());
    if found.shared == Some(FINGERPRINT) {
        return Ok(());
    }
    Err(KernelsError::OtherVersion { chip, origin, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `code` as if `shared/` had hashed to `shared` when it was made.
    fn restamped(chip: &str, code: &[u8], shared: u64) -> Vec<u8> {
        let mut code = code.to_vec();
        if is_nvidia(chip) {
            let list = |number: u64| number.to_le_bytes().map(|b| b.to_string()).join(", ");
            let text = String::from_utf8(code).unwrap();
            let found = code_object::ptx_number(&text, FINGERPRINT_SYMBOL).expect("a stamp");
            return text.replace(&list(found), &list(shared)).into_bytes();
        }
        let object = CodeObject::parse(&code).unwrap();
        let address = object.symbol(FINGERPRINT_SYMBOL).expect("a stamp").address;
        let segment = object.segments.iter().find(|s| s.address <= address).expect("its segment");
        let at = segment.file_range.start + (address - segment.address) as usize;
        code[at..at + 8].copy_from_slice(&shared.to_le_bytes());
        code
    }

    #[test]
    fn embedded_kernels_are_taken_by_their_stamp() {
        for (chip, code) in EMBEDDED {
            // A checkout whose sources changed since its kernels were built is refused by name.
            let object = CodeObject::parse(code).ok();
            let stamp = Stamp::of(chip, code, object.as_ref());
            assert_eq!(
                code_object(chip, None).is_ok(),
                stamp.shared == Some(FINGERPRINT),
                "{chip}"
            );
            assert!(check(chip, "", &restamped(chip, code, FINGERPRINT)).is_ok(), "{chip}");
            let other = check(chip, "a file", &restamped(chip, code, FINGERPRINT ^ 1)).unwrap_err();
            let expected = format!(
                "kernels for {chip} (a file) were made with other sources of shared/ ({:016x}, ",
                FINGERPRINT ^ 1
            );
            assert!(other.to_string().starts_with(&expected), "{other}");
        }
    }

    #[test]
    fn kernels_of_another_chip_are_refused() {
        for (chip, code) in EMBEDDED.iter().filter(|(chip, _)| !is_nvidia(chip)) {
            let error = check("gfx803", "a file", code).unwrap_err().to_string();
            assert!(error.ends_with(&format!("were compiled for {chip}")), "{error}");
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
    fn ptx_of_another_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let load = |value: u64| {
            let bytes = value.to_le_bytes().map(|b| b.to_string()).join(", ");
            let text = format!(".visible .global .align 8 .b8 KERNEL_TABLE[8] = {{{bytes}}};\n");
            fs::write(dir.path().join("sm_90.ptx"), text).unwrap();
            code_object("sm_90", Some(dir.path()))
        };
        assert!(load(FINGERPRINT).is_ok());
        assert!(matches!(load(!FINGERPRINT), Err(KernelsError::OtherVersion { .. })));
        fs::write(dir.path().join("sm_90.ptx"), "").unwrap();
        let empty = code_object("sm_90", Some(dir.path()));
        assert!(matches!(empty, Err(KernelsError::OtherVersion { .. })));
    }
}
