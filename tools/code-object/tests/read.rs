//! The checked-in code objects of `data/`, against LLVM's own reader where it is installed, and
//! damaged in every way that a loop can think of.

use std::process::Command;

use code_object::metadata::{Access, Axis};
use code_object::{
    AddressSpace, CodeObject, CodeObjectError, Encoding, Feature, Relocation, RelocationKind,
    Target, ValueKind, bundle,
};

const GFX1151: &[u8] = include_bytes!("data/sample.gfx1151.co");
const SAMPLES: [(&str, &[u8]); 4] = [
    ("gfx90a", include_bytes!("data/sample.gfx90a.co")),
    ("gfx942", include_bytes!("data/sample.gfx942.co")),
    ("gfx1151", GFX1151),
    ("gfx1201", include_bytes!("data/sample.gfx1201.co")),
];
const NAMES: &[u8] = include_bytes!("data/names.bundle");

fn parse(bytes: &[u8]) -> CodeObject {
    CodeObject::parse(bytes).expect("a checked-in code object parses")
}

#[test]
fn every_sample_has_its_chip_and_kernels() {
    for (chip, bytes) in SAMPLES {
        let code_object = parse(bytes);
        assert_eq!(code_object.chip.name, chip);
        let wave = if code_object.chip.encoding() == Encoding::Cdna { 64 } else { 32 };
        let names: Vec<_> = code_object.kernels.iter().map(|kernel| kernel.name()).collect();
        assert_eq!(names, ["row_sum", "shuffle", "lookup", "tile"], "{chip}");
        for kernel in &code_object.kernels {
            assert_eq!(kernel.metadata.wavefront_size, wave, "{chip} {}", kernel.name());
            assert_eq!(kernel.descriptor.properties.wavefront_size32(), wave == 32);
            assert!(kernel.descriptor.properties.enable_sgpr_kernarg_segment_ptr());
            assert!(kernel.code.start % 256 == 0, "entry points are 256-byte aligned");
            assert!(code_object.code(kernel).len() >= 64);
        }
    }
}

#[test]
fn features_come_from_the_flags() {
    assert_eq!(parse(GFX1151).chip.xnack, Feature::Unsupported);
    let mi300 = parse(SAMPLES[1].1).chip;
    assert_eq!((mi300.xnack, mi300.sramecc), (Feature::Any, Feature::Any));
}

#[test]
fn descriptor_and_metadata_agree() {
    for (chip, bytes) in SAMPLES {
        let code_object = parse(bytes);
        for kernel in &code_object.kernels {
            let (descriptor, metadata) = (&kernel.descriptor, &kernel.metadata);
            let of = format!("{chip} {}", kernel.name());
            assert_eq!(
                descriptor.group_segment_fixed_size, metadata.group_segment_fixed_size,
                "{of}"
            );
            assert_eq!(
                descriptor.private_segment_fixed_size, metadata.private_segment_fixed_size,
                "{of}"
            );
            assert_eq!(descriptor.kernarg_size, metadata.kernarg_segment_size, "{of}");
            let allocated = descriptor.allocated_vgprs(code_object.chip.encoding());
            let spare = allocated - metadata.vgpr_count.max(1);
            assert!(spare < 8, "{of}: {allocated} VGPRs for {}", metadata.vgpr_count);
            let scratch = metadata.private_segment_fixed_size > 0;
            assert_eq!(descriptor.rsrc2.enable_private_segment(), scratch, "{of}");
        }
    }
}

#[test]
fn arguments_of_every_kind() {
    let code_object = parse(GFX1151);
    let kernel = code_object.kernel("shuffle").expect("is there");
    let args = &kernel.metadata.args;
    let layout: Vec<_> = args[..5].iter().map(|a| (a.offset, a.size, a.kind.clone())).collect();
    assert_eq!(
        layout,
        [
            (0, 8, ValueKind::GlobalBuffer),
            (8, 16, ValueKind::ByValue),
            (24, 4, ValueKind::ByValue),
            (32, 4, ValueKind::HiddenBlockCount(Axis::X)),
            (36, 4, ValueKind::HiddenBlockCount(Axis::Y)),
        ]
    );
    assert!(args[3..].iter().all(|a| a.kind.is_hidden()));
    assert!(args.iter().any(|a| a.kind == ValueKind::HiddenDynamicLdsSize));
    assert_eq!(kernel.metadata.max_flat_workgroup_size, 64);
    assert!(kernel.metadata.private_segment_fixed_size >= 800, "200 ints of scratch");

    let row_sum = code_object.kernel("row_sum").expect("is there");
    let access: Vec<_> =
        row_sum.metadata.args.iter().map(|a| (a.address_space, a.access)).collect();
    let global = Some(AddressSpace::Global);
    assert_eq!(
        access,
        [(global, Some(Access::ReadOnly)), (global, Some(Access::WriteOnly)), (None, None)]
    );
    assert_eq!(row_sum.metadata.group_segment_fixed_size, 1024);
}

#[test]
fn the_image_has_its_pointers() {
    let code_object = parse(GFX1151);
    assert_eq!(code_object.relocations.len(), 2);
    let table = code_object.relocations[0].address;
    let Relocation { address, kind, ref target, addend } = code_object.relocations[1];
    assert_eq!((kind, target), (RelocationKind::Relative64, &Target::Base));
    assert_eq!(address, table + 8);

    let base = 0x7f00_0000_0000;
    let image = code_object.image(base, |_| None).expect("nothing is undefined");
    assert_eq!(image.len(), code_object.image_size());
    let at = address as usize;
    let pointer = u64::from_le_bytes(image[at..at + 8].try_into().expect("8 bytes"));
    assert_eq!(pointer, base.wrapping_add_signed(addend));
    let cubes = (pointer - base) as usize;
    assert_eq!(image[cubes..cubes + 16], [0i32, 1, 8, 27].map(i32::to_le_bytes).concat());
    let kernel = &code_object.kernels[0];
    let entry = kernel.code.start as usize;
    assert!(image[entry..].starts_with(code_object.code(kernel)));
}

#[test]
fn figures_equal_those_of_llvm_readelf() {
    for (chip, _) in SAMPLES {
        let path = format!("{}/tests/data/sample.{chip}.co", env!("CARGO_MANIFEST_DIR"));
        let Ok(output) = Command::new("llvm-readelf-22").args(["--notes", &path]).output() else {
            eprintln!("skipped: llvm-readelf-22 is not installed");
            return;
        };
        let notes = String::from_utf8(output.stdout).expect("llvm-readelf prints UTF-8");
        let code_object = parse(&std::fs::read(&path).expect("the sample is there"));
        for key in ["sgpr_count", "vgpr_count", "agpr_count", "kernarg_segment_size"] {
            let theirs: Vec<u32> = notes
                .lines()
                .filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix('.'))
                .filter_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
                .map(|number| number.trim().parse().expect("a number"))
                .collect();
            let ours: Vec<u32> = code_object
                .kernels
                .iter()
                .map(|kernel| match key {
                    "sgpr_count" => kernel.metadata.sgpr_count,
                    "vgpr_count" => kernel.metadata.vgpr_count,
                    "agpr_count" => kernel.metadata.agpr_count,
                    _ => kernel.metadata.kernarg_segment_size,
                })
                .collect();
            let absent = key == "agpr_count" && code_object.chip.encoding() != Encoding::Cdna;
            assert_eq!(theirs, if absent { Vec::new() } else { ours }, "{chip} {key}");
        }
    }
}

#[test]
fn a_foreign_file_is_named() {
    let mut bytes = GFX1151.to_vec();
    bytes[18] = 62; // e_machine: x86-64
    assert!(matches!(CodeObject::parse(&bytes), Err(CodeObjectError::Machine(62))));
    let mut bytes = GFX1151.to_vec();
    bytes[7] = 65; // PAL
    assert!(matches!(CodeObject::parse(&bytes), Err(CodeObjectError::OsAbi(65))));
    let mut bytes = GFX1151.to_vec();
    bytes[8] = 1; // code object version 3
    assert!(matches!(CodeObject::parse(&bytes), Err(CodeObjectError::AbiVersion(1))));
    let mut bytes = GFX1151.to_vec();
    bytes[48] = 0xfe; // e_flags
    assert!(matches!(CodeObject::parse(&bytes), Err(CodeObjectError::UnknownChip(0xfe))));
    assert!(matches!(CodeObject::parse(b"not ELF"), Err(CodeObjectError::Elf(_))));
}

#[test]
fn truncations_are_errors() {
    // Section headers end the file, so every proper prefix lacks something.
    for length in (0..GFX1151.len()).step_by(7) {
        assert!(CodeObject::parse(&GFX1151[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn damage_never_panics() {
    // Each byte of the headers, the notes, the symbols and the descriptors in turn, and what is
    // then still accepted is laid out and read in full.
    let end = 0x1200.min(GFX1151.len());
    for at in (0..end).chain(GFX1151.len() - 0x500..GFX1151.len()) {
        for value in [0x01, 0xff] {
            let mut bytes = GFX1151.to_vec();
            bytes[at] = value;
            let Ok(code_object) = CodeObject::parse(&bytes) else { continue };
            if code_object.image_size() < 1 << 20 {
                let _ = code_object.image(0x1000, |_| None);
            }
            for kernel in &code_object.kernels {
                assert!(!code_object.code(kernel).is_empty(), "byte {at} = {value}");
            }
        }
    }
}

#[test]
fn a_bundle_gives_the_chip_asked_for() {
    assert_eq!(bundle::select(NAMES, "gfx1151").expect("in the bundle"), b"gfx1151");
    assert_eq!(bundle::select(NAMES, "gfx942").expect("features do not matter"), b"gfx942");
    assert_eq!(bundle::select(GFX1151, "gfx942").expect("not a bundle"), GFX1151);
    let ids: Vec<_> = bundle::entries(NAMES).expect("reads").iter().map(|e| e.chip()).collect();
    assert_eq!(ids, [None, Some("gfx1151"), Some("gfx942")]);
    let error = bundle::select(NAMES, "gfx1201").expect_err("not there").to_string();
    assert_eq!(error, "the bundle has no code for gfx1201; it holds gfx1151, gfx942");
}

#[test]
fn damaged_bundles_are_errors() {
    for length in 0..NAMES.len() {
        assert!(bundle::entries(&NAMES[..length]).is_err(), "{length} bytes");
    }
    for at in 24..0xd5 {
        for value in [0, 0x7f, 0xff] {
            let mut bytes = NAMES.to_vec();
            bytes[at] = value;
            let _ = bundle::entries(&bytes);
        }
    }
    assert!(bundle::entries(b"CCOB\x02\0").is_err());
}
