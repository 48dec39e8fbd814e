//! Reads one answer: its channels, and the texts that end it.

use std::sync::Arc;

use gptoss::harmony::{Channel, Delta, Message, Parser};
use gptoss::stop::StopTexts;
use gptoss::tokenizer::{Tokenizer, TokenizerError};

/// The state of reading one answer.
pub struct Reading {
    tokenizer: Arc<Tokenizer>,
    parser: Parser,
    tokens: Vec<u32>,
    /// Texts that end the answer, looked for in each final message alone.
    stops: Vec<String>,
    /// The final message that is being read: where its text goes, and what of it is held back.
    last: Option<(Delta, StopTexts)>,
    is_stopped: bool,
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").field("tokens", &self.tokens.len()).finish_non_exhaustive()
    }
}

impl Reading {
    /// Nothing is read yet.
    pub fn new(tokenizer: Arc<Tokenizer>, stops: Vec<String>) -> Reading {
        let parser = Parser::default();
        Reading { tokenizer, parser, tokens: Vec::new(), stops, last: None, is_stopped: false }
    }

    /// Reads a token and gives the text that can be shown. Behind a stop text there is none.
    pub fn push(&mut self, token: u32) -> Result<Vec<Delta>, TokenizerError> {
        self.tokens.push(token);
        let deltas = self.parser.push(token, &self.tokenizer)?;
        Ok(self.pass(deltas))
    }

    /// Whether a stop text came: the answer is whole.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// The text that was held back, the messages of the answer, and its tokens.
    pub fn finish(mut self) -> (Vec<Delta>, Vec<Message>, Vec<u32>) {
        let parser = std::mem::take(&mut self.parser);
        let (deltas, mut messages) = parser.finish();
        let mut shown = self.pass(deltas);
        if self.is_stopped {
            let last = self.last.as_ref().map(|(delta, _)| delta.message);
            if let Some(message) = last.and_then(|index| messages.get_mut(index)) {
                let first = self.stops.iter().filter_map(|stop| message.content.find(stop)).min();
                message.content.truncate(first.unwrap_or(message.content.len()));
                messages.truncate(last.map_or(0, |index| index + 1));
            }
        } else {
            shown.extend(self.release());
        }
        (shown, messages, self.tokens)
    }

    fn pass(&mut self, deltas: Vec<Delta>) -> Vec<Delta> {
        if self.stops.is_empty() {
            return deltas;
        }
        let mut shown = Vec::new();
        for delta in deltas {
            if self.is_stopped {
                break;
            }
            if self.last.as_ref().is_none_or(|(last, _)| last.message != delta.message) {
                shown.extend(self.release());
            }
            if delta.channel != Channel::Final {
                shown.push(delta);
                continue;
            }
            let (_, stop) = self.last.get_or_insert_with(|| {
                (Delta { text: String::new(), ..delta.clone() }, StopTexts::new(&self.stops))
            });
            // Both are whole characters, and so is what stands before the one in the other.
            let text = String::from_utf8_lossy(&stop.push(delta.text.as_bytes())).into_owned();
            self.is_stopped = stop.found();
            if !text.is_empty() {
                shown.push(Delta { text, ..delta });
            }
        }
        shown
    }

    /// What is held back of a message that has ended.
    fn release(&mut self) -> Option<Delta> {
        let (delta, stop) = self.last.take()?;
        let text = String::from_utf8_lossy(&stop.finish()).into_owned();
        (!text.is_empty()).then_some(Delta { text, ..delta })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gptoss::tokenizer::{CHANNEL, END, MESSAGE, RETURN, START};

    /// Tokens of an answer: channel, text, and how it ends.
    fn answer(parts: &[(&str, &str, u32)], tokenizer: &Tokenizer) -> Vec<u32> {
        let mut ids = Vec::new();
        for (index, (channel, text, end)) in parts.iter().enumerate() {
            if index > 0 {
                ids.push(START);
                ids.extend(tokenizer.encode("assistant").unwrap());
            }
            ids.push(CHANNEL);
            ids.extend(tokenizer.encode(channel).unwrap());
            ids.push(MESSAGE);
            // Character by character: a stop text comes in pieces.
            text.chars().for_each(|c| ids.extend(tokenizer.encode(&c.to_string()).unwrap()));
            ids.push(*end);
        }
        ids
    }

    /// What is shown, the final message, and whether it was stopped.
    fn read(stops: &[&str], parts: &[(&str, &str, u32)]) -> (String, String, bool) {
        let tokenizer = Arc::new(Tokenizer::o200k_harmony());
        let stops = stops.iter().map(|&stop| stop.to_owned()).collect();
        let mut reading = Reading::new(Arc::clone(&tokenizer), stops);
        let mut shown = Vec::new();
        for token in answer(parts, &tokenizer) {
            shown.extend(reading.push(token).unwrap());
        }
        let stopped = reading.is_stopped();
        let (rest, messages, _) = reading.finish();
        shown.extend(rest);
        let text = shown.iter().map(|delta| delta.text.as_str()).collect();
        (text, messages.last().unwrap().content.clone(), stopped)
    }

    #[test]
    fn a_stop_text_ends_the_answer_in_the_final_channel_alone() {
        let parts = [("analysis", "an END?", END), ("final", "One END two", RETURN)];
        let (shown, last, stopped) = read(&["END"], &parts);
        assert_eq!((shown.as_str(), last.as_str(), stopped), ("an END?One ", "One ", true));
        let (shown, last, stopped) = read(&[], &parts);
        assert_eq!((shown.as_str(), stopped), ("an END?One END two", false));
        assert_eq!(last, "One END two");
    }

    #[test]
    fn what_only_began_like_a_stop_text_is_shown_at_the_end() {
        let (shown, last, stopped) = read(&["END"], &[("final", "One EN", RETURN)]);
        assert_eq!((shown.as_str(), last.as_str(), stopped), ("One EN", "One EN", false));
    }
}
