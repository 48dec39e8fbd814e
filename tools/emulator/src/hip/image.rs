//! Finding where an image ends: `hipModuleLoadData` gets a bare pointer to an ELF
//! file or to an offload bundle.

use super::error::{Error, Result};

const ELF_MAGIC: &[u8] = b"\x7fELF";
const BUNDLE_MAGIC: &[u8] = b"__CLANG_OFFLOAD_BUNDLE__";
/// A 64-bit ELF header.
const ELF_HEADER: usize = 64;

/// Bytes that start at an address and end where the program's promise does.
struct Image(*const u8);

impl Image {
    /// # Safety
    /// `N` bytes at `offset` belong to the image.
    unsafe fn array<const N: usize>(&self, offset: usize) -> [u8; N] {
        // SAFETY: the caller's promise; an array of bytes needs no alignment.
        unsafe { self.0.wrapping_add(offset).cast::<[u8; N]>().read() }
    }

    /// # Safety
    /// 8 bytes at `offset` belong to the image.
    unsafe fn word(&self, offset: usize) -> Result<usize> {
        // SAFETY: the caller's promise.
        let word = u64::from_le_bytes(unsafe { self.array(offset) });
        usize::try_from(word).map_err(|_| Error::InvalidImage)
    }

    /// # Safety
    /// 2 bytes at `offset` belong to the image.
    unsafe fn half(&self, offset: usize) -> usize {
        // SAFETY: the caller's promise.
        u16::from_le_bytes(unsafe { self.array(offset) }).into()
    }

    /// Whether the image begins with `magic`; nothing beyond the first byte that
    /// differs is read.
    ///
    /// # Safety
    /// The image begins with `magic` or is readable up to where it differs.
    unsafe fn starts_with(&self, magic: &[u8]) -> bool {
        // SAFETY: the caller's promise.
        magic.iter().enumerate().all(|(at, &byte)| unsafe { self.array::<1>(at) } == [byte])
    }

    /// Bytes of the ELF file that the image is.
    ///
    /// # Safety
    /// The image is a whole ELF file.
    unsafe fn elf_bytes(&self) -> Result<usize> {
        const NO_BITS: [u8; 4] = 8u32.to_le_bytes();
        // SAFETY: an ELF file holds its header and the tables that it names.
        unsafe {
            let (programs, sections) = (self.word(32)?, self.word(40)?);
            let (program_bytes, program_count) = (self.half(54), self.half(56));
            let (section_bytes, section_count) = (self.half(58), self.half(60));
            let mut end = ELF_HEADER
                .max(extent(programs, program_bytes * program_count)?)
                .max(extent(sections, section_bytes * section_count)?);
            for header in (0..program_count).map(|index| programs + index * program_bytes) {
                end = end.max(extent(self.word(header + 8)?, self.word(header + 32)?)?);
            }
            for header in (0..section_count).map(|index| sections + index * section_bytes) {
                if self.array(header + 4) != NO_BITS {
                    end = end.max(extent(self.word(header + 24)?, self.word(header + 32)?)?);
                }
            }
            Ok(end)
        }
    }

    /// Bytes of the bundle that the image is.
    ///
    /// # Safety
    /// The image is a whole bundle.
    unsafe fn bundle_bytes(&self) -> Result<usize> {
        let mut at = BUNDLE_MAGIC.len() + 8;
        let mut end = at;
        // SAFETY: a bundle holds its table of entries.
        unsafe {
            for _ in 0..self.word(BUNDLE_MAGIC.len())? {
                let (offset, len, id) = (self.word(at)?, self.word(at + 8)?, self.word(at + 16)?);
                at = extent(at + 24, id)?;
                end = end.max(at).max(extent(offset, len)?);
            }
        }
        Ok(end)
    }
}

fn extent(offset: usize, len: usize) -> Result<usize> {
    offset.checked_add(len).ok_or(Error::InvalidImage)
}

/// All bytes of the ELF file or bundle at `image`.
///
/// # Errors
/// [`Error::InvalidImage`] if it is neither; [`Error::InvalidValue`] for null.
///
/// # Safety
/// `image` is null, points to a whole ELF file or bundle, or to as many readable
/// bytes as tell that it is neither; the bytes live as long as the result is used.
pub unsafe fn bytes<'a>(image: *const u8) -> Result<&'a [u8]> {
    if image.is_null() {
        return Err(Error::InvalidValue);
    }
    let found = Image(image);
    // SAFETY: the caller's promise, for all that follows.
    unsafe {
        let len = if found.starts_with(ELF_MAGIC) {
            found.elf_bytes()?
        } else if found.starts_with(BUNDLE_MAGIC) {
            found.bundle_bytes()?
        } else {
            return Err(Error::InvalidImage);
        };
        Ok(std::slice::from_raw_parts(image, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(image: &[u8]) -> Result<Vec<u8>> {
        // SAFETY: the tests pass whole images, or ones that differ in the magic.
        unsafe { bytes(image.as_ptr()) }.map(<[u8]>::to_vec)
    }

    #[test]
    fn a_bundle_ends_with_its_last_entry() {
        let mut image = BUNDLE_MAGIC.to_vec();
        for word in [1, 64, 5, 3] {
            image.extend(u64::to_le_bytes(word));
        }
        image.extend(b"idx");
        image.resize(64, 0);
        image.extend(b"entry");
        let expected = image.clone();
        image.extend([0xee; 100]);
        assert_eq!(whole(&image), Ok(expected));
    }

    #[test]
    fn an_elf_ends_with_its_last_section() {
        let mut image = vec![0; ELF_HEADER + 64 + 40];
        image[..4].copy_from_slice(ELF_MAGIC);
        let mut put = |at: usize, value: u64, len| {
            image[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        };
        put(40, ELF_HEADER as u64, 8);
        put(58, 64, 2);
        put(60, 1, 2);
        put(ELF_HEADER + 24, (ELF_HEADER + 64) as u64, 8);
        put(ELF_HEADER + 32, 40, 8);
        let expected = image.clone();
        image.extend([0xee; 100]);
        assert_eq!(whole(&image), Ok(expected));
    }

    #[test]
    fn something_else_is_no_image() {
        assert_eq!(whole(b"\x7fELG"), Err(Error::InvalidImage));
        assert_eq!(whole(b"__CLANG_ON"), Err(Error::InvalidImage));
        // SAFETY: null is refused before anything is read.
        assert_eq!(unsafe { bytes(std::ptr::null()) }, Err(Error::InvalidValue));
    }
}
