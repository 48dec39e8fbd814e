//! Bytes that arrive in pieces, to text.

/// Turns the bytes of successive tokens into text: a character split over tokens waits for its
/// last byte.
#[derive(Debug, Default)]
pub struct TextStream {
    /// The start of a character, at most 3 bytes.
    pending: Vec<u8>,
}

impl TextStream {
    /// The text that `bytes` completes. What cannot be UTF-8 becomes U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.pending) {
                Ok(valid) => {
                    text += valid;
                    self.pending.clear();
                    return text;
                }
                Err(error) => {
                    let (valid, rest) = self.pending.split_at(error.valid_up_to());
                    text += &String::from_utf8_lossy(valid);
                    let Some(invalid) = error.error_len() else {
                        self.pending = rest.to_vec();
                        return text;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    self.pending = rest[invalid..].to_vec();
                }
            }
        }
    }

    /// What is left at the end: U+FFFD when a character was cut short, else nothing.
    pub fn finish(&mut self) -> String {
        let cut = !std::mem::take(&mut self.pending).is_empty();
        if cut { char::REPLACEMENT_CHARACTER.to_string() } else { String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_character_waits_for_its_last_byte() {
        let mut stream = TextStream::default();
        assert_eq!(stream.push(b"a\xe6\xbc"), "a");
        assert_eq!(stream.push(b"\xa2b"), "漢b");
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn a_cut_character_is_replaced_once() {
        let mut stream = TextStream::default();
        assert_eq!(stream.push(b"\xf0\x9f\x92"), "");
        assert_eq!(stream.finish(), "\u{fffd}");
        assert_eq!(stream.finish(), "");
    }

    proptest! {
        #[test]
        fn any_cutting_gives_the_lossy_text(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            cuts in prop::collection::vec(1usize..5, 0..64),
        ) {
            let mut stream = TextStream::default();
            let (mut text, mut rest) = (String::new(), &bytes[..]);
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                text += &stream.push(piece);
                rest = tail;
            }
            text += &stream.push(rest);
            text += &stream.finish();
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
