//! LLVM's AMDGPU disassembler, loaded at run time.
//!
//! The Rust toolchain that compiled the kernels ships LLVM as a shared library, and that library
//! exports LLVM's C disassembler with the AMDGPU target: exactly the LLVM that made the code, and
//! nothing to install. A system's `libLLVM` serves where there is no toolchain. The C interface is
//! that of `llvm-c/Disassembler.h`.

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use libloading::Library;

/// Names the `libLLVM` to use instead of searching for one.
pub const LIBRARY_VARIABLE: &str = "GPTOSS_LIBLLVM";

/// Where distributions and ROCm put LLVM, newest first.
const SYSTEM_LIBRARIES: [&str; 6] = [
    "libLLVM.so.23.1",
    "libLLVM.so.22.1",
    "/usr/lib/llvm-23/lib/libLLVM.so",
    "/usr/lib/llvm-22/lib/libLLVM.so",
    "/opt/rocm/llvm/lib/libLLVM.so",
    "/opt/rocm/lib/llvm/lib/libLLVM.so",
];

/// Longest listing line LLVM may write.
const TEXT_BYTES: usize = 512;

/// Why there is no disassembler.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DisasmError {
    /// No usable `libLLVM`.
    #[error(
        "no LLVM with an AMDGPU disassembler: tried {tried}. Install a Rust toolchain \
         (rustup toolchain install nightly) or LLVM 22 (apt install llvm-22), or name a libLLVM in \
         {LIBRARY_VARIABLE}"
    )]
    NoLibrary {
        /// What was tried, comma-separated, each with its reason.
        tried: String,
    },
    /// The library does not know the chip.
    #[error("{library} cannot disassemble `{chip}`")]
    UnknownChip {
        /// The chip asked for.
        chip: String,
        /// The library in use.
        library: String,
    },
}

type Context = *mut c_void;
type Create = unsafe extern "C" fn(
    triple: *const c_char,
    cpu: *const c_char,
    features: *const c_char,
    info: *mut c_void,
    tag: c_int,
    operand_info: *const c_void,
    symbol_lookup: *const c_void,
) -> Context;
type Decode =
    unsafe extern "C" fn(Context, *mut u8, size: u64, pc: u64, *mut c_char, usize) -> usize;

/// The functions in use; they live as long as the process.
struct Llvm {
    path: String,
    create: Create,
    decode: Decode,
    dispose: unsafe extern "C" fn(Context),
}

/// One instruction of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction<'a> {
    /// Address of its first byte.
    pub address: u64,
    /// Its encoding.
    pub bytes: &'a [u8],
    /// LLVM's text without surrounding blanks; `.long 0x...` for a dword that is no instruction.
    pub text: String,
}

impl Instruction<'_> {
    /// The text up to the first blank: `v_add_f32_e32`.
    pub fn mnemonic(&self) -> &str {
        self.text.split_whitespace().next().unwrap_or_default()
    }

    /// Where a branch leads to.
    pub fn branch_target(&self) -> Option<u64> {
        let mnemonic = self.mnemonic();
        if mnemonic != "s_branch" && !mnemonic.starts_with("s_cbranch") {
            return None;
        }
        // SOPP: the low half of the first dword is the distance in dwords from the next instruction.
        let distance = i64::from(i16::from_le_bytes(*self.bytes.first_chunk()?)) * 4;
        Some(self.address.wrapping_add(4).wrapping_add_signed(distance))
    }
}

/// A disassembler for one chip. Not shared between threads: LLVM's context has state.
pub struct Disassembler {
    llvm: &'static Llvm,
    context: Context,
}

impl Disassembler {
    /// For the chip's own wave size (32 lanes where it has the choice).
    ///
    /// # Errors
    ///
    /// [`DisasmError`] names the libraries tried, or the chip that LLVM does not know.
    pub fn new(chip: &str) -> Result<Disassembler, DisasmError> {
        Disassembler::with_features(chip, "")
    }

    /// With LLVM's feature string, such as `+wavefrontsize64`.
    ///
    /// # Errors
    ///
    /// As [`new`](Disassembler::new).
    pub fn with_features(chip: &str, features: &str) -> Result<Disassembler, DisasmError> {
        let llvm = llvm()?;
        let unknown =
            || DisasmError::UnknownChip { chip: chip.to_owned(), library: llvm.path.clone() };
        // LLVM takes an unknown processor for a generic one; the reader's table does not.
        if !code_object::chip::is_known(chip) {
            return Err(unknown());
        }
        let cpu = CString::new(chip).map_err(|_| unknown())?;
        let features = CString::new(features).map_err(|_| unknown())?;
        // SAFETY: `create` has the signature of LLVMCreateDisasmCPUFeatures, the strings end in
        // NUL and outlive the call, and LLVM accepts null for the callbacks and their data.
        let context = unsafe {
            (llvm.create)(
                c"amdgcn-amd-amdhsa".as_ptr(),
                cpu.as_ptr(),
                features.as_ptr(),
                std::ptr::null_mut(),
                0,
                std::ptr::null(),
                std::ptr::null(),
            )
        };
        if context.is_null() { Err(unknown()) } else { Ok(Disassembler { llvm, context }) }
    }

    /// The path of the library in use.
    pub fn library(&self) -> &str {
        &self.llvm.path
    }

    /// Disassembles `bytes`, the first of which is at address `base`, to their end.
    pub fn instructions<'a>(&'a self, bytes: &'a [u8], base: u64) -> Instructions<'a> {
        Instructions { disassembler: self, rest: bytes, address: base }
    }

    /// Size and text of the instruction at the start of `bytes`; `None` when there is none.
    fn decode(&self, bytes: &[u8], address: u64) -> Option<(usize, String)> {
        let mut text = [0u8; TEXT_BYTES];
        // SAFETY: `decode` has the signature of LLVMDisasmInstruction and `context` is live. LLVM
        // reads at most `bytes.len()` bytes and does not write them (the parameter's missing
        // const is historical), and writes at most TEXT_BYTES bytes, the last of them NUL.
        let size = unsafe {
            (self.llvm.decode)(
                self.context,
                bytes.as_ptr().cast_mut(),
                bytes.len() as u64,
                address,
                text.as_mut_ptr().cast(),
                TEXT_BYTES,
            )
        };
        if size == 0 || size > bytes.len() {
            return None;
        }
        let length = text.iter().position(|&byte| byte == 0).unwrap_or(TEXT_BYTES);
        let text = String::from_utf8_lossy(&text[..length]);
        Some((size, text.split_whitespace().collect::<Vec<_>>().join(" ")))
    }
}

impl Drop for Disassembler {
    fn drop(&mut self) {
        // SAFETY: the context came from `create` and is disposed of once.
        unsafe { (self.llvm.dispose)(self.context) }
    }
}

/// Iterator of [`Disassembler::instructions`].
pub struct Instructions<'a> {
    disassembler: &'a Disassembler,
    rest: &'a [u8],
    address: u64,
}

impl<'a> Iterator for Instructions<'a> {
    type Item = Instruction<'a>;

    fn next(&mut self) -> Option<Instruction<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let address = self.address;
        let (size, text) = self.disassembler.decode(self.rest, address).unwrap_or_else(|| {
            let dword = &self.rest[..self.rest.len().min(4)];
            let number = dword.iter().rev().fold(0u32, |n, &byte| n << 8 | u32::from(byte));
            (dword.len(), format!(".long {number:#010x}"))
        });
        let (bytes, rest) = self.rest.split_at(size);
        self.rest = rest;
        self.address += size as u64;
        Some(Instruction { address, bytes, text })
    }
}

/// The process's LLVM, loaded at the first call.
fn llvm() -> Result<&'static Llvm, DisasmError> {
    static LLVM: OnceLock<Result<Llvm, DisasmError>> = OnceLock::new();
    LLVM.get_or_init(find_llvm).as_ref().map_err(Clone::clone)
}

fn find_llvm() -> Result<Llvm, DisasmError> {
    let mut tried = Vec::new();
    for path in candidates() {
        match open(&path) {
            Ok(llvm) => return Ok(llvm),
            Err(reason) => tried.push(format!("{} ({reason})", path.display())),
        }
    }
    Err(DisasmError::NoLibrary { tried: tried.join(", ") })
}

/// Libraries to try, best first.
fn candidates() -> Vec<PathBuf> {
    match std::env::var_os(LIBRARY_VARIABLE) {
        Some(chosen) => vec![PathBuf::from(chosen)],
        None => {
            let system = SYSTEM_LIBRARIES.iter().map(PathBuf::from);
            toolchain_libraries().into_iter().chain(system).collect()
        }
    }
}

/// The `libLLVM` of the Rust toolchain that `rustc` names here. Next to the library lies a linker
/// script of a similar name, so the versioned file is tried first.
fn toolchain_libraries() -> Vec<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let Ok(output) = Command::new(rustc).args(["--print", "sysroot"]).output() else {
        return Vec::new();
    };
    let sysroot = String::from_utf8_lossy(&output.stdout);
    let Ok(entries) = Path::new(sysroot.trim()).join("lib").read_dir() else {
        return Vec::new();
    };
    let mut libraries: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libLLVM"))
        })
        .collect();
    libraries.sort_by_key(|path| !path.to_string_lossy().contains("libLLVM.so."));
    libraries
}

/// Opens a library and registers its AMDGPU target.
fn open(path: &Path) -> Result<Llvm, String> {
    // SAFETY: libLLVM's initialisers only register LLVM's own static objects.
    let library = unsafe { Library::new(path) }.map_err(|error| error.to_string())?;
    // SAFETY: the types are those of llvm-c/Target.h and llvm-c/Disassembler.h, unchanged for as
    // long as LLVM has had this interface.
    let llvm = unsafe {
        for name in ["TargetInfo", "TargetMC", "Disassembler"] {
            let symbol = format!("LLVMInitializeAMDGPU{name}");
            let initialise = library
                .get::<unsafe extern "C" fn()>(symbol.as_bytes())
                .map_err(|_| format!("no {symbol}: built without AMDGPU"))?;
            initialise();
        }
        let missing = |error: libloading::Error| error.to_string();
        Llvm {
            path: path.display().to_string(),
            create: *library.get(b"LLVMCreateDisasmCPUFeatures").map_err(missing)?,
            decode: *library.get(b"LLVMDisasmInstruction").map_err(missing)?,
            dispose: *library.get(b"LLVMDisasmDispose").map_err(missing)?,
        }
    };
    // The function pointers are used until the process ends.
    std::mem::forget(library);
    Ok(llvm)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A few encodings per family, checked against `llvm-mc-22 -show-encoding`.
    #[test]
    fn known_encodings_have_their_text() {
        let cases: [(&str, &[u32], &[&str]); 3] = [
            (
                "gfx1151",
                &[0x060a0501, 0xbf8700b1, 0xbfb00000],
                &["v_add_f32_e32 v5, v1, v2", "s_delay_alu", "s_endpgm"],
            ),
            (
                "gfx942",
                &[0xd3e10000, 0x04020902, 0xbf810000],
                &["v_mfma_f32_16x16x16_bf16", "s_endpgm"],
            ),
            ("gfx1201", &[0xbfc60000, 0xbfb00000], &["s_wait_dscnt 0x0", "s_endpgm"]),
        ];
        for (chip, words, expected) in cases {
            let disassembler = match Disassembler::new(chip) {
                Ok(disassembler) => disassembler,
                Err(error) => panic!("the toolchain that runs this test has an LLVM: {error}"),
            };
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let listing: Vec<_> = disassembler.instructions(&bytes, 0x100).collect();
            assert_eq!(listing.len(), expected.len(), "{chip}: {listing:?}");
            for (instruction, expected) in listing.iter().zip(expected) {
                assert!(instruction.text.starts_with(expected), "{chip}: {instruction:?}");
            }
            let covered: Vec<u8> = listing.iter().flat_map(|i| i.bytes.to_vec()).collect();
            assert_eq!(covered, bytes, "{chip}: every byte in order");
            assert_eq!(listing[0].address, 0x100);
        }
    }

    #[test]
    fn what_is_no_instruction_is_a_dword() {
        let Ok(disassembler) = Disassembler::new("gfx1151") else { return };
        let listing: Vec<_> =
            disassembler.instructions(&[0xff, 0xff, 0xff, 0xff, 0x01], 0).collect();
        assert_eq!(listing[0].text, ".long 0xffffffff");
        assert_eq!(listing[1].text, ".long 0x00000001");
        assert_eq!(listing.len(), 2);
    }

    #[test]
    fn a_chip_nobody_knows_is_named() {
        let Err(error) = Disassembler::new("gfx9999") else { panic!("gfx9999 does not exist") };
        assert!(error.to_string().contains("gfx9999"), "{error}");
    }
}
