//! Code objects, metadata and bundles made of any bytes, or of damaged good ones, are answered.

use code_object::{CodeObject, Metadata, bundle};
use proptest::prelude::*;

const SAMPLES: [&[u8]; 3] = [
    include_bytes!("data/sample.gfx1151.co"),
    include_bytes!("data/sample.gfx942.co"),
    include_bytes!("data/names.bundle"),
];

/// Reads all there is to read.
fn read(bytes: &[u8]) {
    if let Ok(entries) = bundle::entries(bytes) {
        assert!(entries.iter().all(|entry| entry.bytes.len() <= bytes.len()));
    }
    let _ = bundle::select(bytes, "gfx1151");
    let _ = Metadata::parse(bytes);
    let Ok(code_object) = CodeObject::parse(bytes) else { return };
    if code_object.image_size() < 1 << 20 {
        let _ = code_object.image(0x1000, |_| Some(0));
    }
    for kernel in &code_object.kernels {
        assert!(!code_object.code(kernel).is_empty());
    }
}

/// Where the metadata note begins: MessagePack that speaks of "amdhsa".
fn metadata(sample: &[u8]) -> &[u8] {
    let at = sample.windows(6).position(|six| six == b"amdhsa").expect("a code object");
    // The map's own byte and that of the key's length come before it.
    &sample[at - 2..]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read(&bytes);
        read(&[b"\x7fELF\x02\x01\x01\x40", &bytes[..]].concat());
        read(&[b"__CLANG_OFFLOAD_BUNDLE__", &bytes[..]].concat());
    }

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
        read(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        read(&bytes);
    }

    #[test]
    fn damaged_metadata(
        damage in prop::collection::vec((0usize..2000, any::<u8>()), 1..4),
    ) {
        let mut bytes = metadata(SAMPLES[0]).to_vec();
        for (at, value) in damage {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let _ = Metadata::parse(&bytes);
    }
}

#[test]
fn the_sound_metadata_is_read() {
    assert!(!Metadata::parse(metadata(SAMPLES[0])).expect("it is sound").kernels.is_empty());
}
