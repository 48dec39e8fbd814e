//! The ELF of a code object: what is accepted can be laid out, and every kernel has its code.
#![no_main]

use code_object::CodeObject;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let Ok(object) = CodeObject::parse(file) else { return };
    if object.image_size() < 1 << 20 {
        let _ = object.image(0x1000, |_| Some(0));
    }
    for kernel in &object.kernels {
        assert!(!object.code(kernel).is_empty());
    }
});
