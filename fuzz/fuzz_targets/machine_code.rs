//! A code object for the emulator: loaded with every instruction decoded, or refused.
#![no_main]

use std::sync::Arc;

use emulator::{Chip, CodeImage, Memory, Owner};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let memory = Arc::new(Memory::new());
    for chip in Chip::ALL {
        let _ = CodeImage::load(&memory, Owner::Device(0), chip, file);
    }
});
