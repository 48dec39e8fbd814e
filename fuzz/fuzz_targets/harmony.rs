//! A model's answer in Harmony: any ids are read, and what is shown is what the messages hold.
#![no_main]

use std::sync::LazyLock;

use gptoss::harmony::Parser;
use gptoss::tokenizer::Tokenizer;
use libfuzzer_sys::fuzz_target;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::o200k_harmony);

fuzz_target!(|bytes: &[u8]| {
    let mut parser = Parser::default();
    let mut shown = String::new();
    // Ids of one byte are text, those of two reach the whole vocabulary and beyond; the special
    // ones are near.
    let mut rest = bytes.iter().copied();
    while let Some(byte) = rest.next() {
        let id = match byte {
            0..=127 => u32::from(byte),
            128..=160 => 199_990 + u32::from(byte - 128),
            _ => u32::from(byte - 161) << 12 | u32::from(rest.next().unwrap_or(0)) << 4,
        };
        for delta in parser.push(id, &TOKENIZER).expect("an id that a vocabulary can have") {
            shown += &delta.text;
        }
    }
    let (deltas, messages) = parser.finish();
    shown.extend(deltas.into_iter().map(|delta| delta.text));
    let held: String = messages.into_iter().map(|message| message.content).collect();
    assert_eq!(shown, held);
});
