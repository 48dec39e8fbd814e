//! The 64-byte kernel descriptor: what the command processor reads to start a wave.
//!
//! Source: LLVM AMDGPUUsage, "Kernel Descriptor". Field names are its names.

use crate::chip::Encoding;

/// Size of a kernel descriptor.
pub const DESCRIPTOR_BYTES: usize = 64;

/// A decoded kernel descriptor. The `compute_pgm_rsrc` words are kept whole; methods name their
/// fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelDescriptor {
    /// LDS per workgroup in bytes, without what the launch adds.
    pub group_segment_fixed_size: u32,
    /// Scratch per lane in bytes.
    pub private_segment_fixed_size: u32,
    /// Bytes of arguments; 0 when the compiler did not say.
    pub kernarg_size: u32,
    /// Entry point, relative to the descriptor's own address.
    pub kernel_code_entry_byte_offset: i64,
    /// Registers, rounding and denormal modes.
    pub rsrc1: Rsrc1,
    /// What the hardware puts in registers at the start.
    pub rsrc2: Rsrc2,
    /// Family-specific: accumulation registers on CDNA, instruction prefetch on gfx11 and later.
    pub rsrc3: u32,
    /// Which user SGPRs are set up.
    pub properties: Properties,
    /// Arguments preloaded into SGPRs.
    pub kernarg_preload: KernargPreload,
}

/// COMPUTE_PGM_RSRC1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rsrc1(pub u32);

/// COMPUTE_PGM_RSRC2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rsrc2(pub u32);

/// `kernel_code_properties`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties(pub u16);

/// `kernarg_preload`: dwords of the argument block that arrive in user SGPRs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernargPreload {
    /// Dwords preloaded.
    pub length: u16,
    /// First of them, in dwords from the start of the arguments.
    pub offset: u16,
}

impl KernelDescriptor {
    /// Decodes the 64 bytes of a descriptor.
    pub fn parse(bytes: &[u8; DESCRIPTOR_BYTES]) -> KernelDescriptor {
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let entry = u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32;
        let preload = u16_at(58);
        KernelDescriptor {
            group_segment_fixed_size: u32_at(0),
            private_segment_fixed_size: u32_at(4),
            kernarg_size: u32_at(8),
            kernel_code_entry_byte_offset: entry.cast_signed(),
            rsrc3: u32_at(44),
            rsrc1: Rsrc1(u32_at(48)),
            rsrc2: Rsrc2(u32_at(52)),
            properties: Properties(u16_at(56)),
            kernarg_preload: KernargPreload { length: preload & 0x7f, offset: preload >> 7 },
        }
    }

    /// VGPRs allocated to a lane, accumulation registers included where the file is unified.
    pub fn allocated_vgprs(&self, encoding: Encoding) -> u32 {
        let granule = match encoding {
            Encoding::Gcn => 4,
            Encoding::Cdna => 8,
            Encoding::Gfx125 => 16,
            Encoding::Gfx10 | Encoding::Gfx11 | Encoding::Gfx12
                if self.properties.wavefront_size32() =>
            {
                8
            }
            Encoding::Gfx10 | Encoding::Gfx11 | Encoding::Gfx12 => 4,
        };
        (self.rsrc1.granulated_workitem_vgpr_count() + 1) * granule
    }

    /// First VGPR number of the accumulation registers (CDNA): `a0` is this register of the
    /// unified file.
    pub fn accum_offset(&self) -> u32 {
        ((self.rsrc3 & 0x3f) + 1) * 4
    }

    /// Workgroups may be split between the compute units of a pair (CDNA).
    pub fn tg_split(&self) -> bool {
        self.rsrc3 >> 16 & 1 != 0
    }
}

/// Declares accessors of bit fields.
macro_rules! fields {
    ($type:ty: $repr:ty { $($(#[$doc:meta])* $name:ident = $low:literal, $width:literal;)* }) => {
        impl $type {
            $($(#[$doc])*
            pub fn $name(self) -> u32 {
                u32::from(self.0 >> $low) & ((1 << $width) - 1)
            })*
        }
    };
}

/// Declares accessors of single bits.
macro_rules! flags {
    ($type:ty { $($(#[$doc:meta])* $name:ident = $bit:literal;)* }) => {
        impl $type {
            $($(#[$doc])*
            pub fn $name(self) -> bool {
                self.0 >> $bit & 1 != 0
            })*
        }
    };
}

fields!(Rsrc1: u32 {
    /// VGPRs in granules, less one.
    granulated_workitem_vgpr_count = 0, 6;
    /// SGPRs in granules, less one; 0 on gfx10 and later, where the number is fixed.
    granulated_wavefront_sgpr_count = 6, 4;
    /// Rounding of f32: 0 nearest even, 1 up, 2 down, 3 to zero.
    float_round_mode_32 = 12, 2;
    /// Rounding of f16 and f64.
    float_round_mode_16_64 = 14, 2;
    /// Denormals of f32: bit 0 keeps them in sources, bit 1 in results.
    float_denorm_mode_32 = 16, 2;
    /// Denormals of f16 and f64.
    float_denorm_mode_16_64 = 18, 2;
});
flags!(Rsrc1 {
    /// DX10 clamp: NaN becomes 0 under clamp (up to gfx11).
    enable_dx10_clamp = 21;
    /// IEEE mode: signalling NaNs are quieted (up to gfx11).
    enable_ieee_mode = 23;
    /// f16 overflow gives the largest finite value.
    fp16_ovfl = 26;
    /// The workgroup may use both compute units of a work-group processor (gfx10 and later).
    wgp_mode = 29;
    /// Loads and stores return in order (gfx10 and later).
    mem_ordered = 30;
    /// Waves make progress independently of age (gfx10 and later).
    fwd_progress = 31;
});

fields!(Rsrc2: u32 {
    /// User SGPRs set up before the wave starts.
    user_sgpr_count = 1, 5;
    /// Work-item ids passed in: 0 x, 1 x and y, 2 x, y and z.
    enable_vgpr_workitem_id = 11, 2;
    /// LDS in granules; written by the runtime, 0 in the file.
    granulated_lds_size = 15, 9;
});
flags!(Rsrc2 {
    /// Scratch is used.
    enable_private_segment = 0;
    /// An SGPR holds the workgroup's x index.
    enable_sgpr_workgroup_id_x = 7;
    /// An SGPR holds the workgroup's y index.
    enable_sgpr_workgroup_id_y = 8;
    /// An SGPR holds the workgroup's z index.
    enable_sgpr_workgroup_id_z = 9;
    /// An SGPR holds wave numbers within the workgroup.
    enable_sgpr_workgroup_info = 10;
});

flags!(Properties {
    /// Four user SGPRs: scratch buffer descriptor.
    enable_sgpr_private_segment_buffer = 0;
    /// Two user SGPRs: address of the dispatch packet.
    enable_sgpr_dispatch_ptr = 1;
    /// Two user SGPRs: address of the queue.
    enable_sgpr_queue_ptr = 2;
    /// Two user SGPRs: address of the arguments.
    enable_sgpr_kernarg_segment_ptr = 3;
    /// Two user SGPRs: the dispatch's number.
    enable_sgpr_dispatch_id = 4;
    /// Two user SGPRs: where flat scratch starts.
    enable_sgpr_flat_scratch_init = 5;
    /// One user SGPR: scratch bytes per lane.
    enable_sgpr_private_segment_size = 6;
    /// 32 lanes per wave, not 64.
    wavefront_size32 = 10;
    /// Scratch use is not known at compile time.
    uses_dynamic_stack = 11;
});
