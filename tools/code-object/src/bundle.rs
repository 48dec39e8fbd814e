//! Clang offload bundles: several code objects in one file, as `hipcc --genco` writes them.
//!
//! Source: LLVM, "Clang Offload Bundler", section "Bundled Binary File Layout".

use std::ops::Range;

use crate::CodeObjectError;

const MAGIC: &[u8] = b"__CLANG_OFFLOAD_BUNDLE__";
const COMPRESSED_MAGIC: &[u8] = b"CCOB";
/// More entries than there are chips: a damaged count, not a bundle.
const MAX_ENTRIES: u64 = 1024;

/// One entry of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Bundle entry id: `hipv4-amdgcn-amd-amdhsa--gfx942:sramecc+:xnack-`.
    pub id: &'a str,
    /// The code object; empty for the host's entry.
    pub bytes: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The processor of the id without feature suffixes; `None` for a host entry.
    pub fn chip(&self) -> Option<&'a str> {
        let (kind, target) = self.id.split_once("--")?;
        let processor = target.split(':').next()?;
        (kind.contains("amdgcn") && processor.starts_with("gfx")).then_some(processor)
    }
}

/// Whether `bytes` start like a bundle, compressed or not.
pub fn is_bundle(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC) || bytes.starts_with(COMPRESSED_MAGIC)
}

/// Lists the entries of a bundle in the file's order.
///
/// # Errors
///
/// [`CodeObjectError::Bundle`] when the header is damaged or the bundle is compressed.
pub fn entries(bytes: &[u8]) -> Result<Vec<Entry<'_>>, CodeObjectError> {
    if bytes.starts_with(COMPRESSED_MAGIC) {
        return Err(CodeObjectError::Bundle(
            "compressed; unpack it with clang-offload-bundler or build with --no-offload-compress",
        ));
    }
    if !bytes.starts_with(MAGIC) {
        return Err(CodeObjectError::Bundle("the magic bytes are missing"));
    }
    let mut reader = Reader { bytes, at: MAGIC.len() };
    let count = reader.number()?;
    if count > MAX_ENTRIES {
        return Err(CodeObjectError::Bundle("the entry count is absurd"));
    }
    (0..count).map(|_| reader.entry()).collect()
}

/// The code object for `chip` in a bundle, or `bytes` themselves when they are not a bundle.
///
/// # Errors
///
/// [`CodeObjectError::NotInBundle`] names what the bundle holds; [`CodeObjectError::Bundle`].
pub fn select<'a>(bytes: &'a [u8], chip: &str) -> Result<&'a [u8], CodeObjectError> {
    if !is_bundle(bytes) {
        return Ok(bytes);
    }
    let entries = entries(bytes)?;
    if let Some(entry) = entries.iter().find(|entry| entry.chip() == Some(chip)) {
        return Ok(entry.bytes);
    }
    let present: Vec<_> = entries.iter().filter_map(Entry::chip).collect();
    Err(CodeObjectError::NotInBundle { chip: chip.to_owned(), present: present.join(", ") })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, size: u64) -> Result<&'a [u8], CodeObjectError> {
        let at = self.at as u64;
        let bytes = slice(self.bytes, at, size)
            .ok_or(CodeObjectError::Bundle("the header runs past the end of the file"))?;
        self.at += bytes.len();
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u64, CodeObjectError> {
        let mut number = [0; 8];
        number.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(number))
    }

    fn entry(&mut self) -> Result<Entry<'a>, CodeObjectError> {
        let (offset, size, id_size) = (self.number()?, self.number()?, self.number()?);
        let id = str::from_utf8(self.take(id_size)?)
            .map_err(|_| CodeObjectError::Bundle("an entry id is not UTF-8"))?;
        let bytes = slice(self.bytes, offset, size)
            .ok_or(CodeObjectError::Bundle("an entry runs past the end of the file"))?;
        Ok(Entry { id, bytes })
    }
}

/// `size` bytes at `offset`, if they are there.
fn slice(bytes: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    let range: Range<usize> =
        usize::try_from(offset).ok()?..usize::try_from(offset.checked_add(size)?).ok()?;
    bytes.get(range)
}
