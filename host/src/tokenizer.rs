//! Text to token ids and back: o200k_harmony, built in, or a reference `tokenizer.bin`.
//!
//! Text is always encoded as ordinary text: what a user types never becomes a special token, so
//! nobody can forge a turn. Special ids are written by [`crate::harmony`] alone.

mod bin;
mod stream;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use tiktoken_rs::CoreBPE;

pub use stream::TextStream;

/// Ends a document.
pub const END_OF_TEXT: u32 = 199999;
/// Ends the last message of an answer.
pub const RETURN: u32 = 200002;
/// Opens the type of a message's content.
pub const CONSTRAIN: u32 = 200003;
/// Opens the channel of a message.
pub const CHANNEL: u32 = 200005;
/// Opens a message.
pub const START: u32 = 200006;
/// Ends a message that others follow.
pub const END: u32 = 200007;
/// Ends a message's header.
pub const MESSAGE: u32 = 200008;
/// Ends a message that calls a tool.
pub const CALL: u32 = 200012;
/// Ids that end a generation when the prompt is raw text; the one that came is part of the output.
pub const STOP_TOKENS: [u32; 2] = [END_OF_TEXT, RETURN];

/// Ids of o200k_harmony, specials and reserved ones included.
const O200K_HARMONY_SIZE: u32 = 201088;

/// Ids that the largest vocabulary of a model has.
const MAX_VOCABULARY: u32 = 1 << 24;

/// Why text or ids were refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file cannot be read.
    #[error("tokenizer {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The bytes are no `tokenizer.bin`.
    #[error("tokenizer {path}: {what}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The offending value and what was expected.
        what: String,
    },
    /// The text cannot be split: the pattern's backtracking limit, met by whitespace runs of about
    /// a million characters.
    #[error("text of {bytes} bytes cannot be split into tokens: {reason}")]
    Split {
        /// Length of the text.
        bytes: usize,
        /// What the pattern engine said.
        reason: String,
    },
    /// An id that is no token.
    #[error("token id {id} is not in the vocabulary, expected 0 to {max}")]
    UnknownId {
        /// The id.
        id: u64,
        /// The largest id there is.
        max: u32,
    },
}

/// A vocabulary with its merge rules.
pub struct Tokenizer {
    vocabulary: Vocabulary,
}

enum Vocabulary {
    /// o200k_harmony as tiktoken-rs embeds it.
    BuiltIn(&'static CoreBPE),
    File(Box<bin::FileVocabulary>),
}

impl Tokenizer {
    /// The tokenizer of gpt-oss, embedded in the binary.
    pub fn o200k_harmony() -> Tokenizer {
        Tokenizer { vocabulary: Vocabulary::BuiltIn(tiktoken_rs::o200k_harmony_singleton()) }
    }

    /// Reads a reference `tokenizer.bin`.
    ///
    /// Its ids are merge ranks; text is cut by o200k's own pattern first, so that a file exported
    /// from o200k_harmony gives exactly the built-in tokenizer's ids. (The program the format comes
    /// from has no such pattern and differs from tiktoken where, say, several spaces meet a word.)
    pub fn open(path: &Path) -> Result<Tokenizer, TokenizerError> {
        let read = |source| TokenizerError::Read { path: path.to_owned(), source };
        let size = std::fs::metadata(path).map_err(read)?.len();
        let format = |what| TokenizerError::Format { path: path.to_owned(), what };
        if size > bin::MAX_FILE_BYTES {
            let max = bin::MAX_FILE_BYTES;
            return Err(format(format!("{size} bytes, expected at most {max}")));
        }
        Tokenizer::from_bin(&std::fs::read(path).map_err(read)?).map_err(format)
    }

    /// Parses the bytes of a `tokenizer.bin`; the error says what is wrong and where.
    pub fn from_bin(bytes: &[u8]) -> Result<Tokenizer, String> {
        Ok(Tokenizer { vocabulary: Vocabulary::File(Box::new(bin::parse(bytes)?)) })
    }

    /// Number of ids.
    pub fn vocab_size(&self) -> u32 {
        match &self.vocabulary {
            Vocabulary::BuiltIn(_) => O200K_HARMONY_SIZE,
            Vocabulary::File(file) => file.pieces.len() as u32,
        }
    }

    /// Ids of `text`, special tokens' names included as ordinary text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let bpe = match &self.vocabulary {
            Vocabulary::BuiltIn(bpe) => *bpe,
            Vocabulary::File(file) => &file.bpe,
        };
        // `encode`, unlike `encode_ordinary`, returns the pattern engine's error.
        match bpe.encode(text, &HashSet::new()) {
            Ok((ids, _)) => Ok(ids),
            Err(error) => Err(TokenizerError::Split { bytes: text.len(), reason: error.message }),
        }
    }

    /// Bytes of one id; they may be a part of a character. Special tokens give their names, and ids
    /// that a model's padded vocabulary has beyond this one give `<|unused_ID|>`.
    pub fn bytes(&self, id: u32) -> Result<Vec<u8>, TokenizerError> {
        let bytes = match &self.vocabulary {
            Vocabulary::BuiltIn(bpe) => bpe.decode_bytes(&[id]).ok(),
            Vocabulary::File(file) => file.pieces.get(id as usize).cloned(),
        };
        match bytes {
            Some(bytes) => Ok(bytes),
            None if id < MAX_VOCABULARY => Ok(format!("<|unused_{id}|>").into_bytes()),
            None => Err(TokenizerError::UnknownId { id: id.into(), max: MAX_VOCABULARY - 1 }),
        }
    }

    /// Text of `ids`; bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let mut stream = TextStream::default();
        let mut text = String::new();
        for &id in ids {
            text += &stream.push(&self.bytes(id)?);
        }
        Ok(text + &stream.finish())
    }
}

#[cfg(test)]
mod tests;
