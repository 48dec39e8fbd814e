//! Code objects made of damaged good ones are loaded or refused.

use std::sync::Arc;

use emulator::{Chip, CodeImage, Memory, Owner};
use proptest::prelude::*;

const SAMPLES: [&[u8]; 2] = [include_bytes!("data/axpy.co"), include_bytes!("data/ops.co")];

fn load(bytes: &[u8]) -> bool {
    let memory = Arc::new(Memory::new());
    Chip::ALL.iter().any(|&chip| CodeImage::load(&memory, Owner::Device(0), chip, bytes).is_ok())
}

#[test]
fn the_samples_are_loaded() {
    assert!(SAMPLES.iter().all(|sample| load(sample)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn damaged_samples(
        sample in 0..SAMPLES.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..9),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = SAMPLES[sample].to_vec();
        for (at, value) in &damage {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        load(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        load(&bytes);
    }
}
