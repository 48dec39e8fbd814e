//! The header of a safetensors file: whatever is accepted lies within the file.
#![no_main]

use gptoss::model::shards::parse_header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| match parse_header(file) {
    Ok(header) => {
        for info in header.metadata.tensors().values() {
            let (start, end) = info.data_offsets;
            assert!(file.get(header.data_start + start..header.data_start + end).is_some());
        }
    }
    Err(line) => assert!(!line.is_empty()),
});
