//! `model.safetensors.index.json`: file names that are accepted cannot leave the folder.
#![no_main]

use gptoss::model::shards::parse_index;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(map) = parse_index(text) {
        for file in map.values() {
            assert_eq!(std::path::Path::new(file).components().count(), 1);
            assert!(!file.contains('/') && file != "..");
        }
    }
});
