//! Texts that end a generation, found across the borders of tokens.

use std::sync::Arc;

use crate::tokenizer::Tokenizer;
use crate::worker::Until;

/// Finds the first of several texts in a stream of bytes, and holds back what may be the beginning
/// of one.
#[derive(Clone, Debug, Default)]
pub struct StopTexts {
    texts: Vec<Vec<u8>>,
    /// Bytes that were pushed and not given out.
    held: Vec<u8>,
    found: bool,
}

impl StopTexts {
    /// None of `texts` is empty; with no text at all everything passes.
    pub fn new(texts: &[String]) -> StopTexts {
        let texts = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        StopTexts { texts, held: Vec::new(), found: false }
    }

    /// Takes more bytes and gives those that are known to lie before a stop text; nothing once one
    /// was found.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.found {
            return Vec::new();
        }
        self.held.extend_from_slice(bytes);
        let at = |text: &Vec<u8>| self.held.windows(text.len()).position(|window| window == text);
        if let Some(first) = self.texts.iter().filter_map(at).min() {
            self.found = true;
            self.held.truncate(first);
            return std::mem::take(&mut self.held);
        }
        let begins =
            |&from: &usize| self.texts.iter().any(|text| text.starts_with(&self.held[from..]));
        let longest = self.texts.iter().map(Vec::len).max().unwrap_or(0);
        let first = self.held.len().saturating_sub(longest);
        let keep = (first..self.held.len()).find(begins).unwrap_or(self.held.len());
        let rest = self.held.split_off(keep);
        std::mem::replace(&mut self.held, rest)
    }

    /// Whether a stop text came.
    pub fn found(&self) -> bool {
        self.found
    }

    /// What was held back, when nothing more comes.
    pub fn finish(self) -> Vec<u8> {
        self.held
    }
}

/// Ends a request with the token that completes one of `texts`; `None` without any.
pub fn until(texts: &[String], tokenizer: &Arc<Tokenizer>) -> Option<Until> {
    if texts.is_empty() {
        return None;
    }
    let (mut texts, tokenizer) = (StopTexts::new(texts), Arc::clone(tokenizer));
    Some(Box::new(move |token| {
        // A token without bytes is no text.
        texts.push(&tokenizer.bytes(token).unwrap_or_default());
        texts.found()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(texts: &[&str], pieces: &[&str]) -> (String, bool) {
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        let mut stop = StopTexts::new(&texts);
        let mut out = Vec::new();
        for piece in pieces {
            out.extend(stop.push(piece.as_bytes()));
        }
        let found = stop.found();
        out.extend(stop.finish());
        (String::from_utf8(out).unwrap(), found)
    }

    #[test]
    fn a_stop_text_is_found_across_tokens_and_not_shown() {
        for (texts, pieces, expected) in [
            (&["END"][..], &["a E", "N", "D b"][..], ("a ", true)),
            (&["END"], &["a E", "N", "d b"], ("a ENd b", false)),
            (&["END"], &["EEN", "D"], ("E", true)),
            (&["aab"], &["aa", "ab"], ("a", true)),
            (&["b", "ab"], &["xa", "b"], ("x", true)),
            (&["\n\n", "."], &["one", "\n", "two", "."], ("one\ntwo", true)),
            (&[], &["any", "thing"], ("anything", false)),
            (&["é"], &["caf", "é", "!"], ("caf", true)),
        ] {
            assert_eq!(run(texts, pieces), (expected.0.to_owned(), expected.1), "{pieces:?}");
        }
    }

    proptest! {
        /// However a text is cut, what passes is what stands before the first stop text.
        #[test]
        fn pieces_do_not_matter(
            text in "[ab]{0,30}",
            stops in prop::collection::vec("[ab]{1,4}", 0..4),
            cuts in prop::collection::vec(0usize..30, 0..6),
        ) {
            let first = stops.iter().filter_map(|stop| text.find(stop.as_str())).min();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&str> = cuts.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let (out, found) = run(&stops, &pieces);
            prop_assert_eq!(found, first.is_some());
            prop_assert_eq!(out, &text[..first.unwrap_or(text.len())]);
        }
    }
}
