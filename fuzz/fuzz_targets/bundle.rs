//! HIP's bundles of code objects: every entry lies within the file.
#![no_main]

use code_object::bundle::{entries, select};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    if let Ok(entries) = entries(file) {
        let range = file.as_ptr_range();
        for entry in entries {
            let bytes = entry.bytes.as_ptr_range();
            assert!(entry.bytes.is_empty() || range.start <= bytes.start && bytes.end <= range.end);
        }
    }
    let _ = select(file, "gfx1151");
});
