//! The text of a PTX module.
#![no_main]

use codegen::ptx::kernels;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(kernels) = kernels(text, "any.ptx", &[]) {
        assert!(kernels.iter().all(|kernel| text.contains(&kernel.name)));
    }
});
