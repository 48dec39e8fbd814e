//! AMDGPU mnemonics to classes and accesses.
//!
//! Source of the names: AMD's ISA documents of CDNA2 to CDNA4, RDNA3, RDNA3.5 and RDNA4, and LLVM's
//! "AMDGPU Instruction Syntax" pages.

use crate::mix::{Access, Class, Kind, Operation, Space};

/// What is particular to a kernel about reading its instructions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context {
    /// The kernel addresses scratch by buffer instructions (gfx90a and older).
    pub buffer_is_scratch: bool,
}

/// Classifies one instruction by its text.
pub fn classify(text: &str, context: Context) -> Kind {
    let mnemonic = text.split_whitespace().next().unwrap_or_default();
    let plain = |class| Kind { class, access: None, matrix: None };
    if let Some(rest) = mnemonic.strip_prefix("v_") {
        let class = vector(rest);
        let matrix = (class == Class::Matrix).then(|| mnemonic.to_owned());
        return Kind { class, access: None, matrix };
    }
    if let Some(rest) = mnemonic.strip_prefix("s_") {
        let class = scalar(rest);
        let loads = rest.starts_with("load_") || rest.starts_with("buffer_load_");
        let access = loads.then(|| access(Space::Scalar, Operation::Load, rest));
        return Kind { class, access, matrix: None };
    }
    let Some((unit, operation)) = mnemonic.split_once('_') else { return plain(Class::Other) };
    let (class, space) = match unit {
        "ds" => (Class::Lds, Space::Lds),
        "scratch" => (Class::Scratch, Space::Scratch),
        "buffer" if context.buffer_is_scratch && is_transfer(operation) => {
            (Class::Scratch, Space::Scratch)
        }
        "global" | "flat" | "buffer" | "tbuffer" | "image" => (Class::Global, Space::Global),
        _ => return plain(Class::Other),
    };
    let kind = match space {
        Space::Lds => lds_operation(operation),
        _ => memory_operation(operation, text),
    };
    Kind { class, access: Some(access(space, kind, operation)), matrix: None }
}

/// The class of a `v_` instruction.
fn vector(name: &str) -> Class {
    const PREFIXES: [(&str, Class); 18] = [
        ("mfma_", Class::Matrix),
        ("smfmac_", Class::Matrix),
        ("wmma_", Class::Matrix),
        ("swmmac_", Class::Matrix),
        ("dot", Class::Dot),
        ("dual_", Class::Dual),
        ("pk_", Class::Packed),
        ("exp_", Class::Transcendental),
        ("log_", Class::Transcendental),
        ("rcp_", Class::Transcendental),
        ("rsq_", Class::Transcendental),
        ("sqrt_", Class::Transcendental),
        ("sin_", Class::Transcendental),
        ("cos_", Class::Transcendental),
        ("tanh_", Class::Transcendental),
        ("s_", Class::Transcendental), // v_s_exp_f32: one lane, result in an SGPR
        ("cvt_", Class::Convert),
        ("accvgpr_", Class::AccMove),
    ];
    PREFIXES
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix))
        .map_or(Class::Vector, |(_, class)| *class)
}

/// The class of an `s_` instruction.
fn scalar(name: &str) -> Class {
    const PREFIXES: [(&str, Class); 34] = [
        ("waitcnt_depctr", Class::Hint),
        ("waitcnt", Class::Wait),
        ("wait_alu", Class::Hint),
        ("wait_idle", Class::Hint),
        ("wait_event", Class::Hint),
        ("wait_", Class::Wait),
        ("barrier", Class::Barrier),
        ("branch", Class::Branch),
        ("cbranch", Class::Branch),
        ("setpc", Class::Branch),
        ("swappc", Class::Branch),
        ("call", Class::Branch),
        ("endpgm", Class::Branch),
        ("trap", Class::Branch),
        ("load_", Class::ScalarMemory),
        ("buffer_", Class::ScalarMemory),
        ("scratch_", Class::ScalarMemory),
        ("store_", Class::ScalarMemory),
        ("dcache_", Class::ScalarMemory),
        ("icache_", Class::ScalarMemory),
        ("gl1_inv", Class::ScalarMemory),
        ("prefetch_", Class::ScalarMemory),
        ("memtime", Class::ScalarMemory),
        ("memrealtime", Class::ScalarMemory),
        ("nop", Class::Hint),
        ("delay_alu", Class::Hint),
        ("clause", Class::Hint),
        ("sleep", Class::Hint),
        ("setprio", Class::Hint),
        ("set_inst_prefetch", Class::Hint),
        ("inst_prefetch", Class::Hint),
        ("code_end", Class::Hint),
        ("sendmsg", Class::Hint),
        ("ttracedata", Class::Hint),
    ];
    PREFIXES
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix))
        .map_or(Class::Scalar, |(_, class)| *class)
}

/// Whether a buffer instruction moves data; the others control caches.
fn is_transfer(operation: &str) -> bool {
    operation.starts_with("load") || operation.starts_with("store")
}

/// What `global_`, `flat_`, `buffer_`, `scratch_` and `image_` instructions do.
fn memory_operation(name: &str, text: &str) -> Operation {
    if name.starts_with("load_lds") || (name.starts_with("load") && text.ends_with(" lds")) {
        Operation::LoadToLds
    } else if name.starts_with("load") || name.starts_with("sample") || name.starts_with("gather") {
        Operation::Load
    } else if name.starts_with("store") {
        Operation::Store
    } else if name.starts_with("atomic") {
        Operation::Atomic
    } else {
        Operation::Cache
    }
}

/// What a `ds_` instruction does.
fn lds_operation(name: &str) -> Operation {
    if name.contains("permute") || name.starts_with("swizzle") {
        Operation::Permute
    } else if name.starts_with("read") || name.starts_with("load") || name == "consume" {
        Operation::Load
    } else if name.starts_with("write") || name.starts_with("store") {
        Operation::Store
    } else {
        Operation::Atomic
    }
}

/// The access of an instruction whose name without the unit is `name`.
fn access(space: Space, operation: Operation, name: &str) -> Access {
    let mut parts = name.split('_');
    let paired = parts.clone().any(|part| part == "2addr")
        || parts.next().is_some_and(|verb| verb.trim_end_matches("st64").ends_with('2'));
    let bits = match operation {
        Operation::Cache => 0,
        // The largest: `ds_read_b64_tr_b16` moves 64 bits, seen as 16-bit elements.
        _ => name.split('_').filter_map(bits).max().unwrap_or(32),
    };
    Access { space, operation, elements: if paired { 2 } else { 1 }, bits }
}

/// Bits named by a part of a mnemonic; `d16` names the half of a register, not a width.
fn bits(part: &str) -> Option<u32> {
    match part {
        "dword" => Some(32),
        "dwordx2" | "x2" => Some(64),
        "dwordx3" => Some(96),
        "dwordx4" => Some(128),
        "dwordx8" => Some(256),
        "dwordx16" => Some(512),
        "short" | "ushort" | "sshort" => Some(16),
        "byte" | "ubyte" | "sbyte" => Some(8),
        "d16" => None,
        "bf16" | "pk" => Some(32), // packed atomics: two halves
        _ => match part.strip_prefix(['b', 'u', 'i', 'f'])?.parse() {
            Ok(bits @ (8 | 16 | 32 | 64 | 96 | 128 | 256 | 512)) => Some(bits),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_every_family() {
        let cases = [
            ("v_mfma_f32_16x16x16_bf16 v[0:3], v[2:3], v[4:5], v[0:3]", Class::Matrix),
            ("v_wmma_f32_16x16x16_bf16 v[2:9], v[14:21], v[22:29], v[2:9]", Class::Matrix),
            ("v_dot2_f32_bf16 v0, v1, v2, v3", Class::Dot),
            ("v_dual_mov_b32 v3, v2 :: v_dual_mov_b32 v4, v2", Class::Dual),
            ("v_pk_fma_f32 v[0:1], v[2:3], v[4:5], v[0:1]", Class::Packed),
            ("v_exp_f32_e32 v0, v1", Class::Transcendental),
            ("v_s_rsq_f32 s0, s1", Class::Transcendental),
            ("v_cvt_f32_u32_e32 v0, v1", Class::Convert),
            ("v_accvgpr_read_b32 v0, a1", Class::AccMove),
            ("v_readfirstlane_b32 s0, v1", Class::Vector),
            ("s_waitcnt vmcnt(0)", Class::Wait),
            ("s_wait_dscnt 0x0", Class::Wait),
            ("s_wait_alu depctr_va_vcc(0)", Class::Hint),
            ("s_waitcnt_depctr depctr_va_vdst(0)", Class::Hint),
            ("s_barrier_signal -1", Class::Barrier),
            ("s_cbranch_scc1 65510", Class::Branch),
            ("s_and_saveexec_b32 s0, vcc_lo", Class::Scalar),
            ("s_delay_alu instid0(VALU_DEP_1)", Class::Hint),
            (".long 0xffffffff", Class::Other),
        ];
        for (text, class) in cases {
            assert_eq!(classify(text, Context::default()).class, class, "{text}");
        }
    }

    #[test]
    fn accesses_have_their_width() {
        let scratch = Context { buffer_is_scratch: true };
        let cases = [
            ("global_load_b128 v[0:3], v[4:5], off", "global_load_b128"),
            ("global_load_dwordx4 v[0:3], v[4:5], off", "global_load_b128"),
            ("global_load_d16_hi_b16 v0, v[4:5], off", "global_load_b16"),
            ("global_load_short_d16_hi v0, v[4:5], off", "global_load_b16"),
            ("flat_load_ubyte v0, v[4:5]", "global_load_b8"),
            ("global_load_lds_dwordx4 v[4:5], off", "global_load_to_lds_b128"),
            ("global_atomic_pk_add_bf16 v0, v1, s[0:1]", "global_atomic_b32"),
            ("global_atomic_add_x2 v[0:1], v[2:3], off", "global_atomic_b64"),
            ("buffer_wbl2", "global_cache"),
            ("buffer_store_dword v1, v2, s[0:3], 0 offen", "scratch_store_b32"),
            ("scratch_load_b64 v[0:1], off, s0", "scratch_load_b64"),
            ("ds_read_b128 v[0:3], v4", "lds_load_b128"),
            ("ds_read2st64_b32 v[0:1], v4 offset1:1", "lds_load_2xb32"),
            ("ds_load_2addr_b64 v[0:3], v4 offset1:1", "lds_load_2xb64"),
            ("ds_write2_b64 v0, v[1:2], v[3:4] offset1:1", "lds_store_2xb64"),
            ("ds_read_b64_tr_b16 v[0:1], v4", "lds_load_b64"),
            ("ds_add_u32 v0, v1", "lds_atomic_b32"),
            ("ds_bpermute_b32 v0, v1, v2", "lds_permute_b32"),
            ("s_load_b512 s[0:15], s[0:1], 0x0", "scalar_load_b512"),
            ("s_buffer_load_dwordx8 s[0:7], s[8:11], 0x0", "scalar_load_b256"),
        ];
        for (text, expected) in cases {
            let access = classify(text, scratch).access;
            assert_eq!(
                access.map(|access| access.to_string()).as_deref(),
                Some(expected),
                "{text}"
            );
        }
        let global = classify("buffer_load_dword v1, v2, s[0:3], 0 offen", Context::default());
        assert_eq!(global.class, Class::Global);
    }
}
