//! A program that links the emulator as a crate.

use object::{Object, ObjectSymbol};

/// It may load a real HIP beside it, whose functions must not be taken for the emulator's.
#[test]
fn a_program_with_the_emulator_in_it_has_no_symbols_of_hip() {
    assert!(emulator::symbol("hipMalloc").is_some());
    let file = std::env::current_exe().and_then(std::fs::read).expect("this program");
    let file = object::File::parse(&*file).expect("an ELF file");
    let names: Vec<&str> = file
        .symbols()
        .chain(file.dynamic_symbols())
        .filter_map(|symbol| symbol.name().ok())
        .collect();
    assert!(names.iter().any(|name| name.contains("hipMalloc")), "it has symbols and the function");
    let hip = emulator::symbols();
    let taken: Vec<_> = names.iter().filter(|name| hip.contains(name)).collect();
    assert!(taken.is_empty(), "{taken:?}");
}
