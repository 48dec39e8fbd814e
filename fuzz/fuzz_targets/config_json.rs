//! `config.json`: what is accepted passes the check that engines rely on.
#![no_main]

use gptoss::model::config::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(config) = parse(text) {
        config.check().expect("an accepted configuration can be run");
    }
});
