//! The reference `.bin`: header and size agree in whatever is accepted, and headers survive.
#![no_main]

use gptoss::model::bin::{HEADER_BYTES, check, file_bytes, header, parse_header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    if let Ok(config) = check(file) {
        assert_eq!(file_bytes(&config), file.len() as u64);
    }
    if let Some(bytes) = file.first_chunk::<HEADER_BYTES>()
        && let Ok(config) = parse_header(bytes)
    {
        assert_eq!(header(&config).as_ref(), Ok(bytes));
    }
});
