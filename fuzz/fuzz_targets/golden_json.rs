//! `golden.json`: ids and positions that are accepted can be looked up.
#![no_main]

use gptoss::golden::parse;
use libfuzzer_sys::fuzz_target;

const VOCAB: usize = 512;

fuzz_target!(|text: &str| {
    let Ok(golden) = parse(text, VOCAB) else { return };
    for case in &golden.cases {
        assert_eq!(case.greedy.len(), case.greedy_gap.len());
        for row in &case.rows {
            assert!(row.pos < case.prompt.len());
            assert_eq!(row.top_ids.len(), row.top_logits.len());
            assert!(row.top_ids.iter().all(|&id| (id as usize) < VOCAB));
        }
    }
});
