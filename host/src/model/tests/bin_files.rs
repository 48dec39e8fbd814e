//! Headers and sizes of reference `.bin` files; that contents survive is tested with `export`.

use proptest::prelude::*;

use super::*;
use crate::model::bin::{HEADER_BYTES, check, file_bytes, header, parse_header};
use crate::synth::Preset;

const FIELDS: [&str; 15] = [
    "vocab_size",
    "hidden_dim",
    "n_experts",
    "experts_per_token",
    "intermediate_dim",
    "n_layers",
    "head_dim",
    "n_attn_heads",
    "n_kv_heads",
    "seq_len",
    "initial_context_length",
    "rope_theta",
    "rope_scaling_factor",
    "sliding_window",
    "swiglu_limit",
];
const FLOATS: [usize; 3] = [11, 12, 14];

fn config() -> ModelConfig {
    open(&data("tiny_bf16")).unwrap().config
}

/// The header of `config()` with field `index` replaced.
fn with(index: usize, field: [u8; 4]) -> [u8; HEADER_BYTES] {
    let mut header = header(&config()).unwrap();
    header.as_chunks_mut().0[index] = field;
    header
}

#[test]
fn headers_read_back() {
    for config in [config(), Preset::B20.config(), Preset::B120.config()] {
        assert_eq!(parse_header(&header(&config).unwrap()), Ok(config));
    }
}

#[test]
fn integers_that_are_no_sizes_are_named() {
    for (index, name) in FIELDS.iter().enumerate().filter(|(i, _)| !FLOATS.contains(i)) {
        for value in [0, -1, i32::MIN] {
            let line = parse_header(&with(index, value.to_le_bytes())).unwrap_err();
            assert!(line.contains(&format!("{name} is {value}, expected")), "{line}");
        }
        let line = parse_header(&with(index, i32::MAX.to_le_bytes())).unwrap_err();
        assert!(line.contains("2147483647"), "{name}: {line}");
    }
}

#[test]
fn floats_that_are_no_parameters_are_named() {
    for index in FLOATS {
        for value in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let line = parse_header(&with(index, value.to_le_bytes())).unwrap_err();
            assert!(line.contains(&format!("is {value}, expected")), "{line}");
        }
    }
}

#[test]
fn the_obsolete_header_is_named() {
    let mut header = with(10, 4096f32.to_le_bytes());
    header.as_chunks_mut().0[13] = 128f32.to_le_bytes();
    let line = parse_header(&header).unwrap_err();
    assert!(line.contains("obsolete header: initial_context_length (4096)"), "{line}");
    assert!(line.contains("sliding_window (128)"), "{line}");
}

#[test]
fn an_integer_rope_theta_is_named() {
    let line = parse_header(&with(11, 150_000i32.to_le_bytes())).unwrap_err();
    assert!(line.contains("the field holds the integer 150000"), "{line}");
}

#[test]
fn files_of_a_wrong_size_are_refused_with_both_numbers() {
    let size = file_bytes(&config()) as usize;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.bin");
    let mut bytes = vec![0; size + 1];
    bytes[..HEADER_BYTES].copy_from_slice(&header(&config()).unwrap());
    for (length, expected) in [
        (0, "the file is empty".to_owned()),
        (1, "the file is 1 bytes, too short for the header of 60".to_owned()),
        (59, "the file is 59 bytes, too short for the header of 60".to_owned()),
        (60, format!("the file is 60 bytes, its header says {size}: truncated")),
        (size - 1, format!("the file is {} bytes, its header says {size}: truncated", size - 1)),
        (size + 1, format!("the file is {} bytes, its header says {size}: oversized", size + 1)),
    ] {
        fs::write(&path, &bytes[..length]).unwrap();
        let line = refusal(&path);
        assert!(line.contains(&expected), "{line}");
    }
}

#[test]
fn values_that_are_not_finite_are_named() {
    let config = config();
    let size = file_bytes(&config) as usize;
    let mut bytes = vec![0; size];
    bytes[..HEADER_BYTES].copy_from_slice(&header(&config).unwrap());
    // The attention norms follow the two embeddings.
    let norms = HEADER_BYTES + 4 * 2 * config.vocab_size * config.hidden_size;
    let second_of_layer_1 = norms + 4 * (config.hidden_size + 1);
    bytes[second_of_layer_1..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.bin");
    fs::write(&path, bytes).unwrap();
    let line = refusal(&path);
    assert!(line.contains("tensor attention norm of layer 1 holds NaN at index 1"), "{line}");
}

#[test]
fn a_sparse_file_of_the_published_size_opens_without_being_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gpt-oss-20b.bin");
    let config = Preset::B20.config();
    fs::write(&path, header(&config).unwrap()).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    // Some file systems cannot hold so large a file, sparse or not: nothing to see there.
    if file.set_len(file_bytes(&config)).is_ok() {
        let weights = open(&path).unwrap();
        assert_eq!(weights.layers.len(), 24);
        assert_eq!(weights.unembedding.rows, 201_088);
    }
}

proptest! {
    /// Whatever the bytes, the answer is a configuration or one line: no panic, no overflow.
    #[test]
    fn any_header_is_answered(bytes in prop::array::uniform32(any::<u8>()), tail in any::<[u8; 28]>()) {
        let mut header = [0; HEADER_BYTES];
        header[..32].copy_from_slice(&bytes);
        header[32..].copy_from_slice(&tail);
        if let Err(line) = check(&header) {
            prop_assert!(!line.contains('\n'));
        }
    }

    /// One wrong byte in a sound header: what is still accepted can be run and has a size.
    #[test]
    fn any_damage_is_answered(at in 0..HEADER_BYTES, byte in any::<u8>()) {
        let mut damaged = header(&config()).unwrap();
        damaged[at] = byte;
        if let Ok(config) = parse_header(&damaged) {
            prop_assert_eq!(config.check(), Ok(()));
            prop_assert!(file_bytes(&config) > HEADER_BYTES as u64);
        }
    }

    /// Any safetensors header of hostile bytes is answered too.
    #[test]
    fn any_safetensors_file_is_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(line) = shards::parse_header(&bytes) {
            prop_assert!(!line.contains('\n'));
        }
    }
}
