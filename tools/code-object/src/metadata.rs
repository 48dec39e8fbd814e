//! The NT_AMDGPU_METADATA note: what the compiler tells the runtime about each kernel.
//!
//! Source: LLVM AMDGPUUsage, "Code Object V3 Metadata" to "V5 Metadata". The note is MessagePack.

use rmpv::Value;

use crate::CodeObjectError;

/// Deepest nesting accepted; the documented format needs six levels.
const MAX_DEPTH: usize = 16;

/// One argument of a kernel, hidden ones included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Name in the source; empty when the compiler left it out.
    pub name: String,
    /// Bytes from the start of the argument block.
    pub offset: u32,
    /// Size in bytes.
    pub size: u32,
    /// What to pass.
    pub kind: ValueKind,
    /// What a pointer points into.
    pub address_space: Option<AddressSpace>,
    /// Alignment of the pointee in bytes, for LDS sized at launch.
    pub pointee_align: Option<u32>,
    /// What the kernel does through the pointer, by declaration or by analysis.
    pub access: Option<Access>,
}

/// `.value_kind`: what the runtime puts into an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// The value itself.
    ByValue,
    /// A pointer to device memory.
    GlobalBuffer,
    /// An offset into LDS sized at launch.
    DynamicSharedPointer,
    /// `hidden_block_count_*`: workgroups in x, y, z.
    HiddenBlockCount(Axis),
    /// `hidden_group_size_*`: work-items of a whole workgroup.
    HiddenGroupSize(Axis),
    /// `hidden_remainder_*`: work-items of the last, partial workgroup.
    HiddenRemainder(Axis),
    /// `hidden_global_offset_*`: OpenCL's global offset; HIP passes 0.
    HiddenGlobalOffset(Axis),
    /// `hidden_grid_dims`: 1, 2 or 3.
    HiddenGridDims,
    /// `hidden_dynamic_lds_size`: bytes of LDS sized at launch.
    HiddenDynamicLdsSize,
    /// `hidden_private_base`: high half of the scratch aperture.
    HiddenPrivateBase,
    /// `hidden_shared_base`: high half of the LDS aperture.
    HiddenSharedBase,
    /// `hidden_none`: space without a value.
    HiddenNone,
    /// A runtime service the kernel expects (`hidden_hostcall_buffer`, `hidden_heap_v1`, ...) or an
    /// image, sampler or queue, by its documented name.
    Other(String),
}

/// A dimension of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Fastest varying.
    X,
    /// Second.
    Y,
    /// Third.
    Z,
}

impl ValueKind {
    /// Decodes the documented name.
    fn parse(name: &str) -> ValueKind {
        let axis = match name.as_bytes().last() {
            Some(b'x') => Axis::X,
            Some(b'y') => Axis::Y,
            _ => Axis::Z,
        };
        match name {
            "by_value" => ValueKind::ByValue,
            "global_buffer" => ValueKind::GlobalBuffer,
            "dynamic_shared_pointer" => ValueKind::DynamicSharedPointer,
            "hidden_block_count_x" | "hidden_block_count_y" | "hidden_block_count_z" => {
                ValueKind::HiddenBlockCount(axis)
            }
            "hidden_group_size_x" | "hidden_group_size_y" | "hidden_group_size_z" => {
                ValueKind::HiddenGroupSize(axis)
            }
            "hidden_remainder_x" | "hidden_remainder_y" | "hidden_remainder_z" => {
                ValueKind::HiddenRemainder(axis)
            }
            "hidden_global_offset_x" | "hidden_global_offset_y" | "hidden_global_offset_z" => {
                ValueKind::HiddenGlobalOffset(axis)
            }
            "hidden_grid_dims" => ValueKind::HiddenGridDims,
            "hidden_dynamic_lds_size" => ValueKind::HiddenDynamicLdsSize,
            "hidden_private_base" => ValueKind::HiddenPrivateBase,
            "hidden_shared_base" => ValueKind::HiddenSharedBase,
            "hidden_none" => ValueKind::HiddenNone,
            other => ValueKind::Other(other.to_owned()),
        }
    }

    /// Whether the runtime supplies the value, and the launch does not.
    pub fn is_hidden(&self) -> bool {
        match self {
            ValueKind::ByValue | ValueKind::GlobalBuffer | ValueKind::DynamicSharedPointer => false,
            ValueKind::Other(name) => name.starts_with("hidden_"),
            _ => true,
        }
    }
}

/// `.address_space` of a pointer argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressSpace {
    /// Scratch.
    Private,
    /// Device memory.
    Global,
    /// Device memory that the kernel does not change.
    Constant,
    /// LDS.
    Local,
    /// Any of the above.
    Generic,
    /// Global data share region.
    Region,
}

/// `.access` or `.actual_access` of a pointer argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    ReadOnly,
    /// Only written.
    WriteOnly,
    /// Both.
    ReadWrite,
}

/// The metadata of one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelMetadata {
    /// Name in the source.
    pub name: String,
    /// Symbol of the kernel descriptor.
    pub symbol: String,
    /// The arguments in order of offset as written, hidden ones last.
    pub args: Vec<Argument>,
    /// Bytes of the argument block.
    pub kernarg_segment_size: u32,
    /// Alignment of the argument block in bytes.
    pub kernarg_segment_align: u32,
    /// LDS per workgroup in bytes, without what the launch adds.
    pub group_segment_fixed_size: u32,
    /// Scratch per lane in bytes.
    pub private_segment_fixed_size: u32,
    /// Lanes of a wave: 32 or 64.
    pub wavefront_size: u32,
    /// SGPRs used, VCC and the like included on the families that count them.
    pub sgpr_count: u32,
    /// VGPRs used; on CDNA both kinds of the unified file, with the gap between them.
    pub vgpr_count: u32,
    /// Accumulation registers used (CDNA), else 0.
    pub agpr_count: u32,
    /// SGPRs spilled, each to a lane of a VGPR or to scratch.
    pub sgpr_spill_count: u32,
    /// VGPRs spilled to scratch.
    pub vgpr_spill_count: u32,
    /// Largest workgroup the code was compiled for.
    pub max_flat_workgroup_size: u32,
    /// The one workgroup size allowed, if the source fixed it.
    pub reqd_workgroup_size: Option<[u32; 3]>,
    /// Scratch use is not known at compile time.
    pub uses_dynamic_stack: bool,
    /// Compiled for workgroups that span both compute units of a work-group processor.
    pub workgroup_processor_mode: bool,
}

/// The whole note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Format version, `[1, 2]` for code object version 5.
    pub version: [u32; 2],
    /// Target id: `amdgcn-amd-amdhsa--gfx942:sramecc+:xnack-`.
    pub target: String,
    /// One entry per kernel, in the note's order.
    pub kernels: Vec<KernelMetadata>,
}

impl Metadata {
    /// Decodes the note's descriptor bytes.
    ///
    /// # Errors
    ///
    /// [`CodeObjectError`] when the bytes are not MessagePack, or lack or mistype a key.
    pub fn parse(mut note: &[u8]) -> Result<Metadata, CodeObjectError> {
        let root = rmpv::decode::read_value_with_max_depth(&mut note, MAX_DEPTH)?;
        let root = Map { of: "the code object", value: &root };
        let version =
            root.numbers("amdhsa.version")?.ok_or_else(|| root.missing("amdhsa.version"))?;
        let kernels = root.array("amdhsa.kernels")?.unwrap_or_default();
        Ok(Metadata {
            version,
            target: root.text("amdhsa.target")?.unwrap_or_default().to_owned(),
            kernels: kernels.iter().map(kernel).collect::<Result<_, _>>()?,
        })
    }
}

/// Decodes one element of `amdhsa.kernels`.
fn kernel(value: &Value) -> Result<KernelMetadata, CodeObjectError> {
    let unnamed = Map { of: "a kernel", value };
    let name = unnamed.required_text(".name")?;
    let map = Map { of: name, value };
    let args = map.array(".args")?.unwrap_or_default();
    Ok(KernelMetadata {
        name: name.to_owned(),
        symbol: map.required_text(".symbol")?.to_owned(),
        args: args.iter().map(|value| argument(name, value)).collect::<Result<_, _>>()?,
        kernarg_segment_size: map.required(".kernarg_segment_size")?,
        kernarg_segment_align: map.required(".kernarg_segment_align")?,
        group_segment_fixed_size: map.required(".group_segment_fixed_size")?,
        private_segment_fixed_size: map.required(".private_segment_fixed_size")?,
        wavefront_size: map.wavefront_size()?,
        sgpr_count: map.required(".sgpr_count")?,
        vgpr_count: map.required(".vgpr_count")?,
        agpr_count: map.number(".agpr_count")?.unwrap_or(0),
        sgpr_spill_count: map.number(".sgpr_spill_count")?.unwrap_or(0),
        vgpr_spill_count: map.number(".vgpr_spill_count")?.unwrap_or(0),
        max_flat_workgroup_size: map.required(".max_flat_workgroup_size")?,
        reqd_workgroup_size: map.numbers(".reqd_workgroup_size")?,
        uses_dynamic_stack: map.flag(".uses_dynamic_stack")?,
        workgroup_processor_mode: map.flag(".workgroup_processor_mode")?,
    })
}

/// Decodes one element of `.args`.
fn argument(kernel: &str, value: &Value) -> Result<Argument, CodeObjectError> {
    let map = Map { of: kernel, value };
    let access = match map.text(".actual_access")? {
        Some(access) => Some(access),
        None => map.text(".access")?,
    };
    Ok(Argument {
        name: map.text(".name")?.unwrap_or_default().to_owned(),
        offset: map.required(".offset")?,
        size: map.required(".size")?,
        kind: ValueKind::parse(map.required_text(".value_kind")?),
        address_space: match map.text(".address_space")? {
            None => None,
            Some("private") => Some(AddressSpace::Private),
            Some("global") => Some(AddressSpace::Global),
            Some("constant") => Some(AddressSpace::Constant),
            Some("local") => Some(AddressSpace::Local),
            Some("generic") => Some(AddressSpace::Generic),
            Some("region") => Some(AddressSpace::Region),
            Some(_) => return Err(map.bad(".address_space", "an address space")),
        },
        pointee_align: map.number(".pointee_align")?,
        access: match access {
            None => None,
            Some("read_only") => Some(Access::ReadOnly),
            Some("write_only") => Some(Access::WriteOnly),
            Some("read_write") => Some(Access::ReadWrite),
            Some(_) => return Err(map.bad(".actual_access", "an access qualifier")),
        },
    })
}

/// A MessagePack map and whose it is, for messages.
#[derive(Clone, Copy)]
struct Map<'a> {
    of: &'a str,
    value: &'a Value,
}

impl<'a> Map<'a> {
    /// The value under `key`; `None` when absent or when this is no map.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.value.as_map()?.iter().find(|(name, _)| name.as_str() == Some(key)).map(|(_, v)| v)
    }

    fn missing(&self, key: &'static str) -> CodeObjectError {
        CodeObjectError::MissingKey { of: format!("`{}`", self.of), key }
    }

    fn bad(&self, key: &'static str, expected: &'static str) -> CodeObjectError {
        let value = self.get(key).map(ToString::to_string).unwrap_or_default();
        // A damaged file can hold a value of any length.
        let value = value.chars().take(40).collect();
        CodeObjectError::BadValue { of: format!("`{}`", self.of), key, value, expected }
    }

    fn number(&self, key: &'static str) -> Result<Option<u32>, CodeObjectError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
        number.map(Some).ok_or_else(|| self.bad(key, "an unsigned 32-bit number"))
    }

    fn required(&self, key: &'static str) -> Result<u32, CodeObjectError> {
        self.number(key)?.ok_or_else(|| self.missing(key))
    }

    fn wavefront_size(&self) -> Result<u32, CodeObjectError> {
        match self.required(".wavefront_size")? {
            size @ (32 | 64) => Ok(size),
            _ => Err(self.bad(".wavefront_size", "32 or 64")),
        }
    }

    fn text(&self, key: &'static str) -> Result<Option<&'a str>, CodeObjectError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.bad(key, "text"))
    }

    fn required_text(&self, key: &'static str) -> Result<&'a str, CodeObjectError> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    fn array(&self, key: &'static str) -> Result<Option<&'a [Value]>, CodeObjectError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let array = value.as_array().ok_or_else(|| self.bad(key, "an array"))?;
        Ok(Some(array))
    }

    /// An array of `N` small numbers.
    fn numbers<const N: usize>(
        &self,
        key: &'static str,
    ) -> Result<Option<[u32; N]>, CodeObjectError> {
        let Some(array) = self.array(key)? else { return Ok(None) };
        let numbers: Option<Vec<u32>> =
            array.iter().map(|v| v.as_u64().and_then(|n| u32::try_from(n).ok())).collect();
        let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
        numbers.map(Some).ok_or_else(|| self.bad(key, "an array of as many numbers as documented"))
    }

    /// A boolean, which LLVM writes as such or as 0 and 1.
    fn flag(&self, key: &'static str) -> Result<bool, CodeObjectError> {
        let Some(value) = self.get(key) else { return Ok(false) };
        value
            .as_bool()
            .or_else(|| value.as_u64().map(|n| n != 0))
            .ok_or_else(|| self.bad(key, "a boolean"))
    }
}
