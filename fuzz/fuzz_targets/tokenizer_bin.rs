//! The reference `tokenizer.bin`: what is accepted decodes every id it has.
#![no_main]

use gptoss::tokenizer::Tokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    if let Ok(tokenizer) = Tokenizer::from_bin(file) {
        for id in 0..tokenizer.vocab_size() {
            tokenizer.bytes(id).expect("an id below the vocabulary's size");
        }
    }
});
