//! Reader of AMDGPU code objects: ELF, kernel descriptors and the metadata note.
//!
//! A code object is the ELF shared library that `rustc`, `clang` or `hipcc` make for one chip and
//! that `hipModuleLoadData` takes. [`CodeObject::parse`] checks everything it reads: a damaged or
//! foreign file is an error, never a panic. [`bundle`] unpacks the multi-chip files of HIP.
//!
//! Source of every layout: LLVM, "User Guide for AMDGPU Backend" (AMDGPUUsage), code object
//! versions 4 to 6.

pub mod bundle;
pub mod chip;
pub mod descriptor;
mod error;
mod load;
pub mod metadata;
mod number;

use std::ops::Range;

use object::LittleEndian;
use object::elf::{self, FileHeader64};
use object::read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _, Rela as _, Sym as _};
use object::read::elf::{SectionHeader as _, SymbolTable};

pub use chip::{Chip, Encoding, Feature};
pub use descriptor::KernelDescriptor;
pub use error::CodeObjectError;
pub use load::{Relocation, RelocationKind, Target};
pub use metadata::{AddressSpace, Argument, KernelMetadata, Metadata, ValueKind};

pub use number::ptx_number;

use descriptor::DESCRIPTOR_BYTES;

const ELFOSABI_AMDGPU_HSA: u8 = 64;
const NT_AMDGPU_METADATA: u32 = 32;
const LE: LittleEndian = LittleEndian;

type File<'a> = ElfFile64<'a, LittleEndian>;

/// A parsed code object. It owns the bytes of its segments.
#[derive(Clone, Debug)]
pub struct CodeObject {
    /// The chip it was compiled for.
    pub chip: Chip,
    /// PT_LOAD segments in the file's order.
    pub segments: Vec<Segment>,
    /// What a loader patches once it knows the base address.
    pub relocations: Vec<Relocation>,
    /// Defined and undefined symbols of the symbol tables, each once.
    pub symbols: Vec<Symbol>,
    /// Format version of the metadata.
    pub metadata_version: [u32; 2],
    /// Target id: `amdgcn-amd-amdhsa--gfx942:sramecc+:xnack-`.
    pub target: String,
    /// The kernels in the metadata's order.
    pub kernels: Vec<Kernel>,
}

/// A loadable segment. Addresses are relative to the load base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Virtual address.
    pub address: u64,
    /// Bytes in memory; those past [`data`](Segment::data) are zero.
    pub memory_size: u64,
    /// Where `data` stood in the file.
    pub file_range: Range<usize>,
    /// The initialised bytes.
    pub data: Vec<u8>,
    /// Contents may be executed.
    pub executable: bool,
    /// Contents may be written.
    pub writable: bool,
}

/// A symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its name.
    pub name: String,
    /// Virtual address; 0 when undefined.
    pub address: u64,
    /// Size in bytes.
    pub size: u64,
    /// What it names.
    pub kind: SymbolKind,
    /// Defined in this file.
    pub defined: bool,
    /// Visible to a runtime that looks up names (`hipModuleGetGlobal`).
    pub global: bool,
}

/// What a symbol names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolKind {
    /// Code.
    Function,
    /// Data; kernel descriptors are data.
    Object,
    /// Anything else.
    Other,
}

/// A kernel: metadata, descriptor, and where they and the code are.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// From the note.
    pub metadata: KernelMetadata,
    /// From the 64 bytes at `descriptor_address`.
    pub descriptor: KernelDescriptor,
    /// Virtual address of the descriptor.
    pub descriptor_address: u64,
    /// Virtual addresses of the code, entry point first. Functions that were not inlined have
    /// symbols of their own and are not part of it.
    pub code: Range<u64>,
}

impl Kernel {
    /// Name in the source.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }
}

impl CodeObject {
    /// Parses one code object, not a bundle.
    ///
    /// # Errors
    ///
    /// [`CodeObjectError`] says what is damaged or foreign.
    pub fn parse(bytes: &[u8]) -> Result<CodeObject, CodeObjectError> {
        let file = File::parse(bytes)?;
        let chip = check_header(file.elf_header())?;
        let segments = read_segments(&file, bytes)?;
        let symbols = read_symbols(&file)?;
        let relocations = read_relocations(&file, bytes)?;
        let metadata = Metadata::parse(metadata_note(&file, bytes)?)?;
        let mut code_object = CodeObject {
            chip,
            segments,
            relocations,
            symbols,
            metadata_version: metadata.version,
            target: metadata.target,
            kernels: Vec::new(),
        };
        code_object.kernels = metadata
            .kernels
            .into_iter()
            .map(|kernel| code_object.locate(kernel))
            .collect::<Result<_, _>>()?;
        Ok(code_object)
    }

    /// The kernel called `name`.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name() == name)
    }

    /// The defined symbol called `name`.
    pub fn symbol(&self, name: &str) -> Option<&Symbol> {
        self.symbols.iter().find(|symbol| symbol.defined && symbol.name == name)
    }

    /// The initialised bytes from `address` to the end of its segment's data, without relocations.
    pub fn bytes_from(&self, address: u64) -> Option<&[u8]> {
        self.segments.iter().find_map(|segment| {
            let at = usize::try_from(address.checked_sub(segment.address)?).ok()?;
            segment.data.get(at..).filter(|rest| !rest.is_empty())
        })
    }

    /// The initialised bytes at `range`, which must lie in one segment.
    pub fn bytes(&self, range: Range<u64>) -> Option<&[u8]> {
        let size = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
        self.bytes_from(range.start)?.get(..size)
    }

    /// The machine code of a kernel of this code object.
    pub fn code(&self, kernel: &Kernel) -> &[u8] {
        // `parse` put the range inside a segment; a kernel of another object has no code here.
        self.bytes(kernel.code.clone()).unwrap_or_default()
    }

    /// Finds the descriptor and the code of a kernel.
    fn locate(&self, metadata: KernelMetadata) -> Result<Kernel, CodeObjectError> {
        let Some(symbol) = self.symbol(&metadata.symbol) else {
            let KernelMetadata { name, symbol, .. } = metadata;
            return Err(CodeObjectError::NoDescriptor { kernel: name, symbol });
        };
        let outside = |what, address| CodeObjectError::Outside {
            kernel: metadata.name.clone(),
            what,
            address,
        };
        let descriptor_address = symbol.address;
        let bytes = self
            .bytes_from(descriptor_address)
            .and_then(|bytes| bytes.first_chunk::<DESCRIPTOR_BYTES>())
            .ok_or_else(|| outside("descriptor", descriptor_address))?;
        let descriptor = KernelDescriptor::parse(bytes);
        let entry =
            descriptor_address.wrapping_add_signed(descriptor.kernel_code_entry_byte_offset);
        let code = entry..entry.saturating_add(self.code_size(entry));
        if code.is_empty() || self.bytes(code.clone()).is_none() {
            return Err(outside("code", entry));
        }
        Ok(Kernel { metadata, descriptor, descriptor_address, code })
    }

    /// Bytes of the function at `entry`: its symbol's size, else to the end of its segment.
    fn code_size(&self, entry: u64) -> u64 {
        self.symbols
            .iter()
            .find(|s| {
                s.defined && s.kind == SymbolKind::Function && s.address == entry && s.size > 0
            })
            .map(|symbol| symbol.size)
            .or_else(|| self.bytes_from(entry).map(|rest| rest.len() as u64))
            .unwrap_or(0)
    }
}

/// Refuses files for other machines, runtimes and versions.
fn check_header(header: &FileHeader64<LittleEndian>) -> Result<Chip, CodeObjectError> {
    let machine = header.e_machine(LE);
    if machine != elf::EM_AMDGPU {
        return Err(CodeObjectError::Machine(machine.0));
    }
    let ident = header.e_ident();
    if ident.os_abi.0 != ELFOSABI_AMDGPU_HSA {
        return Err(CodeObjectError::OsAbi(ident.os_abi.0));
    }
    if !(2..=4).contains(&ident.abi_version) {
        return Err(CodeObjectError::AbiVersion(ident.abi_version));
    }
    let kind = header.e_type(LE);
    if kind != elf::ET_DYN {
        return Err(CodeObjectError::NotLinked(kind.0));
    }
    Chip::from_flags(header.e_flags(LE).0)
}

fn read_segments(file: &File, bytes: &[u8]) -> Result<Vec<Segment>, CodeObjectError> {
    let loads = file.elf_program_headers().iter().filter(|p| p.p_type(LE) == elf::PT_LOAD);
    loads
        .map(|header| {
            let (address, size) = (header.p_vaddr(LE), header.p_memsz(LE));
            let wrong = |problem| CodeObjectError::Segment { address, size, problem };
            let data = header.data(LE, bytes).map_err(|()| wrong("data outside the file"))?;
            if data.len() as u64 > size {
                return Err(wrong("more bytes in the file than in memory"));
            }
            if address.checked_add(size).is_none_or(|end| end > load::MAX_IMAGE_BYTES) {
                return Err(wrong("ends beyond 1 GiB"));
            }
            let start = usize::try_from(header.p_offset(LE)).unwrap_or(usize::MAX);
            let flags = header.p_flags(LE);
            Ok(Segment {
                address,
                memory_size: size,
                file_range: start..start.saturating_add(data.len()),
                data: data.to_vec(),
                executable: flags.0 & elf::PF_X.0 != 0,
                writable: flags.0 & elf::PF_W.0 != 0,
            })
        })
        .collect()
}

/// The symbols of `.symtab` where the file has it (local functions are only there), then those of
/// `.dynsym` that it lacks.
fn read_symbols(file: &File) -> Result<Vec<Symbol>, CodeObjectError> {
    let mut symbols: Vec<Symbol> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for table in [file.elf_symbol_table(), file.elf_dynamic_symbol_table()] {
        for symbol in table.iter() {
            let symbol = read_symbol(table, symbol)?;
            if !symbol.name.is_empty() && seen.insert((symbol.name.clone(), symbol.address)) {
                symbols.push(symbol);
            }
        }
    }
    Ok(symbols)
}

fn read_symbol(
    table: &SymbolTable<'_, FileHeader64<LittleEndian>>,
    symbol: &elf::Sym64<LittleEndian>,
) -> Result<Symbol, CodeObjectError> {
    let name = table.symbol_name(LE, symbol)?;
    Ok(Symbol {
        name: String::from_utf8_lossy(name).into_owned(),
        address: symbol.st_value(LE),
        size: symbol.st_size(LE),
        kind: match symbol.st_type() {
            elf::STT_FUNC => SymbolKind::Function,
            elf::STT_OBJECT => SymbolKind::Object,
            _ => SymbolKind::Other,
        },
        defined: !symbol.is_undefined(LE),
        global: !symbol.is_local(),
    })
}

/// The relocations of loaded RELA sections.
fn read_relocations(file: &File, bytes: &[u8]) -> Result<Vec<Relocation>, CodeObjectError> {
    let mut relocations = Vec::new();
    for section in file.elf_section_table().iter() {
        if section.sh_flags(LE).0 & elf::SHF_ALLOC.0 == 0 {
            continue;
        }
        let Some((entries, _)) = section.rela(LE, bytes)? else { continue };
        for rela in entries {
            let address = rela.r_offset(LE);
            let number = rela.r_type(LE, false).0;
            let Some(kind) = RelocationKind::from_number(number, address)? else { continue };
            let target = match rela.symbol(LE, false) {
                None => Target::Base,
                Some(index) => {
                    let table = file.elf_dynamic_symbol_table();
                    let symbol = read_symbol(table, table.symbol(index)?)?;
                    match symbol.defined {
                        true => Target::Address(symbol.address),
                        false => Target::Undefined(symbol.name),
                    }
                }
            };
            relocations.push(Relocation { address, kind, target, addend: rela.r_addend(LE) });
        }
    }
    Ok(relocations)
}

/// The MessagePack bytes of the metadata note.
fn metadata_note<'a>(file: &File<'a>, bytes: &'a [u8]) -> Result<&'a [u8], CodeObjectError> {
    for header in file.elf_program_headers() {
        let Some(mut notes) = header.notes(LE, bytes)? else { continue };
        while let Some(note) = notes.next()? {
            if note.name() == b"AMDGPU" && note.n_type(LE).0 == NT_AMDGPU_METADATA {
                return Ok(note.desc());
            }
        }
    }
    Err(CodeObjectError::NoMetadata)
}
