//! Code objects loaded into [`Memory`].

use std::sync::Arc;

use code_object::{CodeObject, KernelDescriptor, KernelMetadata, SymbolKind, ValueKind};

use crate::chip::Chip;
use crate::isa::{Program, gfx11};
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
    /// The metadata's kind: `global_buffer`, `by_value`, `dynamic_shared_pointer`, or another name.
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

/// What starting a kernel takes, beside what [`Kernel`] says.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    /// Address of the kernel descriptor.
    pub(crate) object_address: u64,
    /// Address of the first instruction.
    pub(crate) entry_address: u64,
    pub(crate) descriptor: KernelDescriptor,
    pub(crate) metadata: KernelMetadata,
}

/// A code object in memory: segments mapped and relocated, kernels decoded.
#[derive(Debug)]
pub struct CodeImage {
    memory: Arc<Memory>,
    base: u64,
    owner: Owner,
    chip: Chip,
    kernels: Vec<Kernel>,
    starts: Vec<Start>,
    symbols: Vec<(String, u64, u64)>,
    program: Arc<Program>,
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
        let malformed = |e: code_object::CodeObjectError| LoadError::Malformed(e.to_string());
        let object = CodeObject::parse(bytes).map_err(malformed)?;
        if object.chip.name != chip.name() && object.chip.name != chip.generic_name() {
            let found = object.chip.name.to_owned();
            return Err(LoadError::WrongChip { found, expected: chip });
        }
        let base = memory.allocate(owner, object.image_size())?;
        let mut image = CodeImage {
            memory: memory.clone(),
            base,
            owner,
            chip,
            kernels: Vec::new(),
            starts: Vec::new(),
            symbols: Vec::new(),
            program: Arc::new(Program::decode(base, &[], &[], gfx11::decode)),
        };
        let content = object.image(base, |_| None).map_err(malformed)?;
        memory.write(base, &content)?;
        image.program = Arc::new(decode(&object, base, &content)?);
        image.kernels = object.kernels.iter().map(describe).collect();
        image.starts = object.kernels.iter().map(|kernel| start(kernel, base)).collect();
        image.symbols = object
            .symbols
            .iter()
            .filter(|symbol| symbol.defined && symbol.kind != SymbolKind::Function)
            .map(|symbol| (symbol.name.clone(), base + symbol.address, symbol.size))
            .collect();
        Ok(image)
    }

    /// The chip it runs on.
    pub fn chip(&self) -> Chip {
        self.chip
    }

    /// Whose memory it is in, and so which device runs its kernels.
    pub fn owner(&self) -> Owner {
        self.owner
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

    /// What starting the kernel called `name` takes.
    pub(crate) fn start(&self, name: &str) -> Option<&Start> {
        let at = self.kernels.iter().position(|kernel| kernel.name == name)?;
        self.starts.get(at)
    }

    pub(crate) fn program(&self) -> &Arc<Program> {
        &self.program
    }
}

impl Drop for CodeImage {
    fn drop(&mut self) {
        // Only a caller who freed the image's own address can make this fail: nothing is left to do.
        let _ = self.memory.free(self.base);
    }
}

/// Decodes the executable segment of a relocated image.
fn decode(object: &CodeObject, base: u64, content: &[u8]) -> Result<Program, LoadError> {
    let mut executable = object.segments.iter().filter(|segment| segment.executable);
    let (Some(segment), None) = (executable.next(), executable.next()) else {
        let problem = "expected exactly one executable segment".to_owned();
        return Err(LoadError::Malformed(problem));
    };
    let start = segment.address as usize;
    let bytes = &content[start..start + segment.data.len()];
    let (words, _) = bytes.as_chunks::<4>();
    let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let functions = object.symbols.iter().filter(|s| s.defined && s.kind == SymbolKind::Function);
    let starts: Vec<usize> = functions
        .map(|s| s.address)
        .chain(object.kernels.iter().map(|kernel| kernel.code.start))
        .filter_map(|address| address.checked_sub(segment.address))
        .map(|offset| offset as usize / 4)
        .collect();
    Ok(Program::decode(base + segment.address, &words, &starts, gfx11::decode))
}

/// Addresses and descriptor of a kernel loaded at `base`.
fn start(kernel: &code_object::Kernel, base: u64) -> Start {
    Start {
        object_address: base + kernel.descriptor_address,
        entry_address: base + kernel.code.start,
        descriptor: kernel.descriptor,
        metadata: kernel.metadata.clone(),
    }
}

/// What a kernel's metadata says.
fn describe(kernel: &code_object::Kernel) -> Kernel {
    let metadata = &kernel.metadata;
    let explicit = metadata.args.iter().filter(|arg| !arg.kind.is_hidden());
    let kind = |kind: &ValueKind| match kind {
        ValueKind::ByValue => "by_value".to_owned(),
        ValueKind::GlobalBuffer => "global_buffer".to_owned(),
        ValueKind::DynamicSharedPointer => "dynamic_shared_pointer".to_owned(),
        ValueKind::Other(name) => name.clone(),
        hidden => format!("{hidden:?}"),
    };
    Kernel {
        name: metadata.name.clone(),
        arguments: explicit
            .map(|arg| Argument {
                offset: arg.offset as usize,
                size: arg.size as usize,
                kind: kind(&arg.kind),
            })
            .collect(),
        kernarg_bytes: metadata.kernarg_segment_size as usize,
        lds_bytes: metadata.group_segment_fixed_size,
        scratch_bytes: metadata.private_segment_fixed_size,
        vgprs: metadata.vgpr_count,
        sgprs: metadata.sgpr_count,
        wave_size: metadata.wavefront_size,
        max_threads: metadata.max_flat_workgroup_size,
    }
}
