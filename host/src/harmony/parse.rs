//! Reads an answer token by token: it fails on nothing, shows no word of a header as text, and
//! loses no text.
//!
//! A header without `<|message|>` ends where its words do: the rest is text, on the header's own
//! channel. An unknown channel, or none, is the final one, unless a tool is spoken to.

use super::header::{Header, Kind};
use super::{Channel, Message, STOP_TOKENS};
use crate::tokenizer::{
    CALL, CHANNEL, CONSTRAIN, END, END_OF_TEXT, MESSAGE, RETURN, START, TextStream, Tokenizer,
    TokenizerError,
};

/// A piece of a message's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Which message of the answer, from 0: where it changes, another text begins.
    pub message: usize,
    /// The message's channel.
    pub channel: Channel,
    /// The tool it speaks to.
    pub recipient: Option<String>,
    /// The text.
    pub text: String,
}

/// The state of reading one answer, which began after `<|start|>assistant`.
#[derive(Debug)]
pub struct Parser {
    state: State,
    stream: TextStream,
    messages: Vec<Message>,
    /// Recipients that exist; `None` when nobody said.
    tools: Option<Vec<String>>,
    complete: bool,
}

#[derive(Debug)]
enum State {
    Header(Header),
    Content(Message),
}

impl Default for Parser {
    fn default() -> Parser {
        Parser {
            state: State::Header(Header::default()),
            stream: TextStream::default(),
            messages: Vec::new(),
            tools: None,
            complete: false,
        }
    }
}

impl Parser {
    /// A parser of answers to a prompt that declares `tools`, by full name, as `functions.weather`.
    ///
    /// Models write the type of a call's arguments right behind the name, as in
    /// `functions.weatherjson`. A name that is not declared, but is without `json`, is repaired;
    /// where nobody said what is declared, every such name is.
    pub fn with_tools(tools: impl IntoIterator<Item = String>) -> Parser {
        Parser { tools: Some(tools.into_iter().collect()), ..Parser::default() }
    }

    /// Reads a token, and returns the text that it completes.
    pub fn push(&mut self, id: u32, tokenizer: &Tokenizer) -> Result<Vec<Delta>, TokenizerError> {
        let mut deltas = Vec::new();
        self.complete = STOP_TOKENS.contains(&id);
        let is_special = [START, CHANNEL, CONSTRAIN, MESSAGE, END, RETURN, CALL, END_OF_TEXT];
        if !is_special.contains(&id) {
            let bytes = tokenizer.bytes(id)?;
            let text = self.stream.push(&bytes);
            self.text(text, &mut deltas);
            return Ok(deltas);
        }
        let cut = self.stream.finish();
        self.text(cut, &mut deltas);
        match (&mut self.state, id) {
            (State::Header(header), CHANNEL) => header.open(Kind::Channel),
            (State::Header(header), CONSTRAIN) => header.open(Kind::Constrain),
            (State::Header(header), MESSAGE) => {
                let message = std::mem::take(header).into_message(self.tools.as_deref());
                self.state = State::Content(message);
            }
            (State::Content(_), MESSAGE | CONSTRAIN) => {}
            // The header again: nothing was said under the first.
            (State::Content(message), START | CHANNEL) if message.content.is_empty() => {
                self.state = State::Header(Header::after(id));
            }
            _ => {
                self.end(&mut deltas);
                self.state = State::Header(Header::after(id));
            }
        }
        Ok(deltas)
    }

    /// Whether the answer has ended with a stop token; else it was cut, and the model can go on:
    /// see [`super::render_continuation`].
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Ends the answer: what is left, and all its messages.
    pub fn finish(mut self) -> (Vec<Delta>, Vec<Message>) {
        let mut deltas = Vec::new();
        let cut = self.stream.finish();
        self.text(cut, &mut deltas);
        self.end(&mut deltas);
        (deltas, self.messages)
    }

    fn text(&mut self, text: String, deltas: &mut Vec<Delta>) {
        match &mut self.state {
            State::Header(header) => {
                if header.push(&text) {
                    self.header_is_text(deltas);
                }
            }
            State::Content(message) => deltas.extend(delta(self.messages.len(), message, text)),
        }
    }

    /// No `<|message|>` will come: what is behind the header's words is text.
    fn header_is_text(&mut self, deltas: &mut Vec<Delta>) {
        if let State::Header(header) = &mut self.state {
            let (mut message, text) = header.as_text(self.tools.as_deref());
            if !text.trim().is_empty() {
                deltas.extend(delta(self.messages.len(), &mut message, text));
                self.state = State::Content(message);
            }
        }
    }

    /// The message is whole, or its header all there will be of it.
    fn end(&mut self, deltas: &mut Vec<Delta>) {
        self.header_is_text(deltas);
        let next = State::Header(Header::default());
        if let State::Content(message) = std::mem::replace(&mut self.state, next) {
            self.messages.push(message);
        }
    }
}

/// Adds `text` to `message`, which is number `index`.
fn delta(index: usize, message: &mut Message, text: String) -> Option<Delta> {
    if text.is_empty() {
        return None;
    }
    message.content += &text;
    let channel = message.channel.unwrap_or(Channel::Final);
    Some(Delta { message: index, channel, recipient: message.recipient.clone(), text })
}
