//! What can be wrong with a code object.

/// Why bytes are not a code object that this crate can read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodeObjectError {
    /// The ELF structure itself does not hold together.
    #[error("not a well-formed ELF file: {0}")]
    Elf(String),
    /// A well-formed ELF file for another machine.
    #[error("ELF machine {0} is not AMDGPU (224)")]
    Machine(u16),
    /// An AMDGPU file for another runtime (PAL, Mesa).
    #[error("ELF OS ABI {0} is not AMDGPU HSA (64)")]
    OsAbi(u8),
    /// Code object versions before 4 lay out the flags differently.
    #[error("ELF ABI version {0}: expected 2 to 4 (code object versions 4 to 6)")]
    AbiVersion(u8),
    /// A chip newer than the table in [`chip`](crate::chip).
    #[error("unknown processor {0:#05x} in the ELF flags")]
    UnknownChip(u32),
    /// A relocatable object: it has to be linked first.
    #[error("ELF type {0} is not a shared object (3): link it first")]
    NotLinked(u16),
    /// A segment lies outside the file, or its size or address is absurd.
    #[error("segment at address {address:#x}, {size} bytes: {problem}")]
    Segment {
        /// Virtual address.
        address: u64,
        /// Size in memory.
        size: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// A dynamic relocation that loaders do not apply.
    #[error("relocation type {kind} at {address:#x} is not one a loader applies")]
    Relocation {
        /// The R_AMDGPU number.
        kind: u32,
        /// Where it applies.
        address: u64,
    },
    /// A relocation names a symbol that nobody defines.
    #[error("undefined symbol `{0}`")]
    Undefined(String),
    /// No NT_AMDGPU_METADATA note.
    #[error("no AMDGPU metadata note")]
    NoMetadata,
    /// The note is not MessagePack.
    #[error("metadata note: {0}")]
    MessagePack(String),
    /// A metadata key is absent.
    #[error("metadata of {of}: no `{key}`")]
    MissingKey {
        /// The kernel, or the part of the metadata.
        of: String,
        /// The absent key.
        key: &'static str,
    },
    /// A metadata key has the wrong type or is out of range.
    #[error("metadata of {of}: `{key}` is {value}, expected {expected}")]
    BadValue {
        /// The kernel, or the part of the metadata.
        of: String,
        /// The key.
        key: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// A kernel's descriptor symbol is absent.
    #[error("kernel `{kernel}`: no symbol `{symbol}`")]
    NoDescriptor {
        /// The kernel.
        kernel: String,
        /// The descriptor's symbol.
        symbol: String,
    },
    /// A kernel's descriptor or code is not inside a loaded segment.
    #[error("kernel `{kernel}`: {what} at {address:#x} is outside the loaded segments")]
    Outside {
        /// The kernel.
        kernel: String,
        /// Descriptor or code.
        what: &'static str,
        /// Where it was said to be.
        address: u64,
    },
    /// The bundle header is damaged.
    #[error("clang offload bundle: {0}")]
    Bundle(&'static str),
    /// A bundle without the chip that was asked for.
    #[error("the bundle has no code for {chip}; it holds {present}")]
    NotInBundle {
        /// The chip asked for.
        chip: String,
        /// What is there, comma-separated.
        present: String,
    },
}

impl From<object::read::Error> for CodeObjectError {
    fn from(error: object::read::Error) -> CodeObjectError {
        CodeObjectError::Elf(error.to_string())
    }
}

impl From<rmpv::decode::Error> for CodeObjectError {
    fn from(error: rmpv::decode::Error) -> CodeObjectError {
        CodeObjectError::MessagePack(error.to_string())
    }
}
