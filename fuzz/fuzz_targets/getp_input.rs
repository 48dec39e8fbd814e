//! The getp input file: whatever is accepted is as many non-empty lines of the file as promised.
#![no_main]

use gptoss::modes::prompts::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| match parse(file, None) {
    Ok(prompts) => {
        assert!(!prompts.is_empty());
        assert!(prompts.iter().all(|prompt| !prompt.is_empty() && !prompt.contains('\n')));
        assert_eq!(parse(file, Some(1)).expect("a limit refuses nothing"), prompts[..1]);
    }
    Err(error) => assert!(!error.to_string().contains('\n')),
});
