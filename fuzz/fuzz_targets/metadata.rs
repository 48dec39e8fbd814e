//! The MessagePack note of a code object.
#![no_main]

use code_object::Metadata;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|note: &[u8]| {
    if let Err(error) = Metadata::parse(note) {
        assert!(!error.to_string().is_empty());
    }
});
