//! The reference systems' `tokenizer.bin`, little-endian:
//! `i32 max_token_length`, then per id `f32 score, i32 length, length bytes`.
//!
//! A score of -1e30 marks a special token. `<0xHH>` stands for one byte: the format's first
//! writer spells the zero byte so.

use std::collections::HashMap;

use tiktoken_rs::{CoreBPE, O200K_BASE_PAT_STR};

/// Twenty times the size of o200k_harmony's file.
pub(super) const MAX_FILE_BYTES: u64 = 64 << 20;
/// o200k's longest token has 128 bytes.
const MAX_TOKEN_BYTES: i32 = 1 << 16;
/// Scores at or below this mark special tokens.
const SPECIAL_SCORE: f32 = -1e29;

/// A vocabulary read from a file.
pub(super) struct FileVocabulary {
    /// Bytes per id; special tokens hold their names.
    pub pieces: Vec<Vec<u8>>,
    /// Merges of the ordinary tokens.
    pub bpe: CoreBPE,
}

/// Reads all of `bytes`, or says what is wrong.
pub(super) fn parse(bytes: &[u8]) -> Result<FileVocabulary, String> {
    let mut reader = Reader { rest: bytes, at: 0 };
    let max_length = i32::from_le_bytes(reader.array("max_token_length")?);
    if !(1..=MAX_TOKEN_BYTES).contains(&max_length) {
        return Err(format!("max_token_length is {max_length}, expected 1 to {MAX_TOKEN_BYTES}"));
    }
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    let mut ranks: HashMap<Vec<u8>, u32> = HashMap::new();
    while !reader.rest.is_empty() {
        let id = pieces.len() as u32;
        let (special, piece) = reader.record(id, max_length)?;
        if !special && let Some(first) = ranks.insert(piece.clone(), id) {
            return Err(format!("ids {first} and {id} are the same token, expected all distinct"));
        }
        pieces.push(piece);
    }
    if let Some(byte) = (0..=u8::MAX).find(|&byte| !ranks.contains_key(&[byte][..])) {
        return Err(format!("no token for byte {byte:#04x}, expected one for each of the 256"));
    }
    // Never matched: `encode` allows no special token. The pattern engine only needs one that is
    // ASCII.
    let special = [(String::from("<|endoftext|>"), u32::MAX)];
    let bpe = CoreBPE::new(
        ranks.into_iter().collect(),
        special.into_iter().collect(),
        O200K_BASE_PAT_STR,
    )
    .map_err(|error| error.to_string())?;
    Ok(FileVocabulary { pieces, bpe })
}

struct Reader<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8], String> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            let (at, left) = (self.at, self.rest.len());
            return Err(format!("ends inside {what}: {left} bytes at {at}, expected {length}"));
        };
        (self.rest, self.at) = (rest, self.at + length);
        Ok(taken)
    }

    fn array(&mut self, what: &str) -> Result<[u8; 4], String> {
        let taken = self.take(4, what)?;
        Ok([taken[0], taken[1], taken[2], taken[3]])
    }

    /// Whether the token is special, and its bytes.
    fn record(&mut self, id: u32, max_length: i32) -> Result<(bool, Vec<u8>), String> {
        let score = f32::from_le_bytes(self.array(&format!("the score of id {id}"))?);
        if !score.is_finite() {
            return Err(format!("score of id {id} is {score}, expected a finite number"));
        }
        let length = i32::from_le_bytes(self.array(&format!("the length of id {id}"))?);
        if !(1..=max_length).contains(&length) {
            return Err(format!("length of id {id} is {length}, expected 1 to {max_length}"));
        }
        let piece = self.take(length as usize, &format!("the bytes of id {id}"))?;
        if score <= SPECIAL_SCORE {
            return Ok((true, piece.to_vec()));
        }
        Ok((false, spelled_byte(piece).map_or_else(|| piece.to_vec(), |byte| vec![byte])))
    }
}

/// The byte that `<0xHH>` stands for.
fn spelled_byte(piece: &[u8]) -> Option<u8> {
    let digits = piece.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let digits = std::str::from_utf8(digits).ok()?;
    let hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if hex { u8::from_str_radix(digits, 16).ok() } else { None }
}
