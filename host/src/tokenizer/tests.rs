use super::*;
use proptest::prelude::*;

/// Ids from Python tiktoken's o200k_harmony, `encode_ordinary`.
const VECTORS: [(&str, &[u32]); 4] = [
    ("Hello, world!", &[13225, 11, 2375, 0]),
    ("What is the capital of France?", &[4827, 382, 290, 9029, 328, 10128, 30]),
    ("Write a short haiku about autumn.", &[10930, 261, 4022, 2472, 11169, 1078, 57373, 13]),
    (
        "Explain the significance of the ROCm WMMA on RDNA3.",
        &[176289, 290, 40711, 328, 290, 171799, 76, 44691, 8131, 402, 59889, 9555, 18, 13],
    ),
];

/// The built-in vocabulary in `tokenizer.bin` form, as the reference exporter writes it.
fn exported() -> Vec<u8> {
    let tokenizer = Tokenizer::o200k_harmony();
    let mut bytes = 128i32.to_le_bytes().to_vec();
    for id in 0..tokenizer.vocab_size() {
        let piece = tokenizer.bytes(id).expect("every id below the size is a token");
        let piece = if piece == [0] { b"<0x00>".to_vec() } else { piece };
        record(&mut bytes, if id < 199998 { id as f32 } else { -1e30 }, &piece);
    }
    bytes
}

fn record(bytes: &mut Vec<u8>, score: f32, piece: &[u8]) {
    bytes.extend(score.to_le_bytes());
    bytes.extend((piece.len() as i32).to_le_bytes());
    bytes.extend(piece);
}

/// The smallest file that is accepted: 256 bytes, one merge, one special token.
fn smallest() -> Vec<u8> {
    let mut bytes = 8i32.to_le_bytes().to_vec();
    for byte in 0..=255u8 {
        record(&mut bytes, byte.into(), &[byte]);
    }
    record(&mut bytes, 256.0, b"ab");
    record(&mut bytes, -1e30, b"<|x|>");
    bytes
}

fn refusal(bytes: &[u8]) -> String {
    Tokenizer::from_bin(bytes).err().expect("the file is refused")
}

#[test]
fn ids_are_tiktokens() {
    let tokenizer = Tokenizer::o200k_harmony();
    for (text, ids) in VECTORS {
        assert_eq!(tokenizer.encode(text).unwrap(), ids);
        assert_eq!(tokenizer.decode(ids).unwrap(), text);
    }
}

#[test]
fn special_names_in_text_stay_text() {
    let tokenizer = Tokenizer::o200k_harmony();
    for name in ["<|start|>", "<|endoftext|>", "<|return|>", "<|reserved_200018|>"] {
        let ids = tokenizer.encode(name).unwrap();
        assert!(ids.iter().all(|&id| id < 199998), "{name} became {ids:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), name);
    }
    assert_eq!(tokenizer.decode(&[START, RETURN]).unwrap(), "<|start|><|return|>");
}

#[test]
fn ids_past_the_vocabulary_are_unused_and_no_models_are_errors() {
    let tokenizer = Tokenizer::o200k_harmony();
    assert!(tokenizer.bytes(201087).unwrap().starts_with(b"<|reserved_"));
    assert_eq!(tokenizer.bytes(201088).unwrap(), b"<|unused_201088|>");
    assert_eq!(tokenizer.decode(&[13225, 202_000]).unwrap(), "Hello<|unused_202000|>");
    for id in [1 << 24, u32::MAX] {
        let error = tokenizer.bytes(id).unwrap_err().to_string();
        assert!(error.contains(&id.to_string()) && error.contains("16777215"), "{error}");
    }
}

#[test]
fn a_million_spaces_are_an_error_or_tokens_but_no_panic() {
    let tokenizer = Tokenizer::o200k_harmony();
    let text = " ".repeat(1 << 20) + "a";
    match tokenizer.encode(&text) {
        Ok(ids) => assert_eq!(tokenizer.decode(&ids).unwrap(), text),
        Err(error) => assert!(error.to_string().contains("1048577 bytes"), "{error}"),
    }
}

#[test]
fn an_exported_file_gives_the_built_in_ids() {
    let bytes = exported();
    let file = Tokenizer::from_bin(&bytes).unwrap();
    let built_in = Tokenizer::o200k_harmony();
    assert_eq!(file.vocab_size(), built_in.vocab_size());
    for text in ["a  b\n\n  c", "naïve 漢字 🙂\0x", "12345 <|start|> it's", "\u{a0} \t\r\n"] {
        assert_eq!(file.encode(text).unwrap(), built_in.encode(text).unwrap(), "{text:?}");
    }
    for id in 0..built_in.vocab_size() {
        assert_eq!(file.bytes(id).unwrap(), built_in.bytes(id).unwrap(), "id {id}");
    }
}

#[test]
fn a_small_file_merges_by_rank() {
    let tokenizer = Tokenizer::from_bin(&smallest()).unwrap();
    assert_eq!(tokenizer.encode("cab").unwrap(), [99, 256]);
    assert_eq!(tokenizer.encode("<|x|>").unwrap(), b"<|x|>".map(u32::from));
    assert_eq!(tokenizer.bytes(257).unwrap(), b"<|x|>");
    assert_eq!(tokenizer.bytes(258).unwrap(), b"<|unused_258|>");
}

#[test]
fn broken_files_are_refused_with_the_value() {
    let good = smallest();
    assert!(refusal(&[]).contains("max_token_length"));
    assert!(refusal(&good[..good.len() - 1]).contains("ends inside the bytes of id 257"));
    assert!(refusal(&good[..6]).contains("ends inside the score of id 0"));
    assert!(refusal(&good[..4]).contains("no token for byte 0x00"));

    let patched = |at: usize, value: [u8; 4]| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&value);
        refusal(&bytes)
    };
    assert!(patched(0, (-1i32).to_le_bytes()).contains("max_token_length is -1"));
    assert!(patched(0, i32::MAX.to_le_bytes()).contains("max_token_length is 2147483647"));
    assert!(patched(4, f32::NAN.to_le_bytes()).contains("score of id 0 is NaN"));
    assert!(patched(8, (-5i32).to_le_bytes()).contains("length of id 0 is -5"));
    assert!(patched(8, 0i32.to_le_bytes()).contains("length of id 0 is 0"));
    assert!(patched(8, i32::MAX.to_le_bytes()).contains("length of id 0 is 2147483647"));

    let mut twice = good.clone();
    record(&mut twice, 258.0, b"ab");
    assert!(refusal(&twice).contains("ids 256 and 258"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn text_survives_the_round_trip(text in any::<String>()) {
        let tokenizer = Tokenizer::o200k_harmony();
        let ids = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Tokenizer::from_bin(&bytes);
    }
}
