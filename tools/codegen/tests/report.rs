//! Reports of the code objects that the reader's tests use, made by clang 22 from the source
//! beside them.

use std::path::PathBuf;
use std::process::Command;

use codegen::mix::{Class, Operation, Space};
use codegen::{Launch, Options, report, run};

const CHIPS: [&str; 4] = ["gfx90a", "gfx942", "gfx1151", "gfx1201"];

fn data() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../code-object/tests/data")
}

fn sample(chip: &str) -> PathBuf {
    data().join(format!("sample.{chip}.co"))
}

fn options() -> Options {
    Options { inputs: CHIPS.map(sample).to_vec(), ..Options::default() }
}

#[test]
fn the_table_is_as_recorded() {
    let options = Options {
        kernels: vec!["tile".to_owned(), "shuffle".to_owned()],
        launches: vec![
            Launch { kernel: "tile".to_owned(), workgroup_size: Some(64), dynamic_lds_bytes: 0 },
            Launch {
                kernel: "shuffle".to_owned(),
                workgroup_size: Some(64),
                dynamic_lds_bytes: 256,
            },
        ],
        all_loops: true,
        ..options()
    };
    let table = run(&options).expect("the samples are there");
    assert_eq!(table, include_str!("data/samples.txt"), "the new table is:\n{table}");
}

#[test]
fn the_main_loop_is_the_one_with_the_matrix_instruction() {
    let report = report(&options().inputs, &options()).expect("the samples are there");
    for chip in CHIPS {
        let find = |name: &str| {
            let found = report.kernels.iter().find(|k| k.name == name && k.chip == chip);
            found.unwrap_or_else(|| panic!("{name} {chip}"))
        };
        // The source has one loop, of one matrix instruction per iteration.
        let tile = find("tile");
        assert_eq!(tile.loops.len(), 1, "{chip}");
        let main = &tile.main().expect("a loop").mix;
        assert_eq!(main.count(Class::Matrix), 1, "{chip}");
        // Two operand fragments: 16 x 16 bf16 over the wave, twice on gfx11, which duplicates.
        let wave = tile.wavefront_size;
        let copies = if chip == "gfx1151" { 2 } else { 1 };
        let bytes = 2 * copies * 16 * 16 * 2 / wave;
        assert_eq!(main.bytes(Space::Global, Operation::Load), bytes, "{chip}");
        // row_sum: a streaming loop, and a tree with a barrier.
        let row_sum = find("row_sum");
        assert_eq!(row_sum.loops.len(), 2, "{chip}: {:?}", row_sum.loops);
        assert!(row_sum.loops[0].mix.count(Class::Global) > 0, "{chip}");
        assert!(row_sum.loops[1].mix.count(Class::Barrier) > 0, "{chip}");
        // shuffle: its array is in scratch, whatever instructions the family has for that.
        let shuffle = find("shuffle");
        assert!(shuffle.mix.count(Class::Scratch) >= 4, "{chip}");
        assert_eq!(find("row_sum").mix.count(Class::Scratch), 0, "{chip}");
        for kernel in [tile, row_sum, shuffle] {
            assert_eq!(kernel.mix.count(Class::Other), 0, "{chip} {}", kernel.name);
        }
    }
}

#[test]
fn figures_equal_those_of_llvm_readelf() {
    for chip in CHIPS {
        let path = sample(chip);
        let Ok(output) = Command::new("llvm-readelf-22").arg("--notes").arg(&path).output() else {
            eprintln!("skipped: llvm-readelf-22 is not installed");
            return;
        };
        let notes = String::from_utf8(output.stdout).expect("llvm-readelf prints UTF-8");
        let report = report(&[path], &Options::default()).expect("the sample is there");
        let keys = [
            ".vgpr_count:",
            ".sgpr_count:",
            ".group_segment_fixed_size:",
            ".private_segment_fixed_size:",
            ".vgpr_spill_count:",
            ".sgpr_spill_count:",
        ];
        for (index, key) in keys.iter().enumerate() {
            let theirs: Vec<u32> = notes
                .lines()
                .filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix(key))
                .map(|number| number.trim().parse().expect("a number"))
                .collect();
            let ours: Vec<u32> = report
                .kernels
                .iter()
                .map(|kernel| kernel.resources.expect("AMD kernels have them"))
                .map(|r| {
                    [r.vgpr, r.sgpr, r.lds_bytes, r.scratch_bytes, r.vgpr_spills, r.sgpr_spills]
                        [index]
                })
                .collect();
            assert_eq!(theirs, ours, "{chip} {key}");
        }
    }
}

#[test]
fn the_disassembler_covers_every_byte() {
    for chip in CHIPS {
        let bytes = std::fs::read(sample(chip)).expect("the sample is there");
        let object = code_object::CodeObject::parse(&bytes).expect("parses");
        let disassembler = codegen::disasm::Disassembler::new(chip).expect("an LLVM");
        for kernel in &object.kernels {
            let code = object.code(kernel);
            let listing: Vec<_> = disassembler.instructions(code, kernel.code.start).collect();
            let covered: Vec<u8> = listing.iter().flat_map(|i| i.bytes).copied().collect();
            assert_eq!(covered, code, "{chip} {}", kernel.name());
            assert!(listing.iter().any(|i| i.text.starts_with("s_endpgm")));
        }
    }
}

#[test]
fn json_has_the_documented_keys() {
    let text = run(&Options { json: true, ..options() }).expect("the samples are there");
    let json: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
    assert_eq!(json["schema"], 1);
    let tile = &json["kernels"][0];
    assert_eq!(tile["chip"], "gfx90a");
    for key in ["name", "file", "wavefront_size", "workgroup_size", "code_bytes", "calls"] {
        assert!(!tile[key].is_null(), "{key}");
    }
    assert!(tile["resources"]["vgpr"].is_u64() && tile["occupancy"]["waves_per_simd"].is_f64());
    assert!(tile["mix"]["classes"]["vector"].is_u64() && tile["loops"][0]["mix"].is_object());
}

#[test]
fn a_set_of_objects_equals_itself() {
    let same = Options { compare_with: options().inputs, ..options() };
    assert_eq!(run(&same).expect("runs"), "0 changed, 16 unchanged, 0 removed, 0 added\n");
}

#[test]
fn a_difference_is_told_figure_by_figure() {
    // gfx942's code under gfx90a's name stands for a newer build of gfx90a.
    let mut new = std::fs::read(sample("gfx942")).expect("the sample is there");
    new[48] = 0x3f; // EF_AMDGPU_MACH of gfx90a
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("new.co");
    std::fs::write(&path, new).expect("writes");
    let options = Options {
        inputs: vec![path],
        compare_with: vec![sample("gfx90a")],
        kernels: vec!["shuffle".to_owned()],
        ..Options::default()
    };
    let text = run(&options).expect("runs");
    assert!(text.starts_with("shuffle gfx90a\n"), "{text}");
    assert!(text.contains("\n  VGPR "), "{text}");
    assert!(text.ends_with("1 changed, 0 unchanged, 0 removed, 0 added\n"), "{text}");
}

#[test]
fn what_is_not_there_is_named() {
    let error = |options: Options| run(&options).expect_err("refused").to_string();
    let chips = vec!["gfx1100".to_owned()];
    assert_eq!(
        error(Options { chips, ..options() }),
        "no code for gfx1100; there is gfx90a, gfx942, gfx1151, gfx1201"
    );
    let kernels = vec!["gemm".to_owned()];
    assert_eq!(
        error(Options { kernels, ..options() }),
        "no kernel's name contains `gemm`; there are row_sum, shuffle, lookup, tile"
    );
    let inputs = vec![data().join("sample.hip")];
    let text = error(Options { inputs, ..Options::default() });
    assert!(text.ends_with("not an AMDGPU code object, a clang offload bundle or PTX"), "{text}");
    let inputs = vec![PathBuf::from("/nonexistent.co")];
    assert!(error(Options { inputs, ..Options::default() }).starts_with("/nonexistent.co: "));
}
