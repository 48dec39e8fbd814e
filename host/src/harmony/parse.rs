//! Reads an answer token by token, and loses no text whatever the model writes.
//!
//! A header that is no header (no `<|message|>` after a few words, an end in the middle) is taken
//! for the text it may have been meant to be; an unknown channel, or none, is the final one.

use super::{Channel, Message, Role};
use crate::tokenizer::{
    CALL, CHANNEL, CONSTRAIN, END, END_OF_TEXT, MESSAGE, RETURN, START, TextStream, Tokenizer,
    TokenizerError,
};

/// Bytes of text after which a header is taken for text. Names of tools have at most 64.
const MAX_HEADER_BYTES: usize = 160;

/// A piece of a message's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
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
}

#[derive(Debug)]
enum State {
    Header(Header),
    Content(Message),
}

/// The parts of a header; a part is opened by a special token.
#[derive(Debug, Default)]
struct Header {
    /// Role and recipient.
    lead: String,
    /// Channel, recipient and type.
    channel: Option<String>,
    constrain: Option<String>,
}

impl Header {
    /// The part that text belongs to.
    fn part(&mut self) -> &mut String {
        match (&mut self.constrain, &mut self.channel) {
            (Some(part), _) | (None, Some(part)) => part,
            (None, None) => &mut self.lead,
        }
    }

    /// All its text, as it came.
    fn into_text(self) -> String {
        self.lead + &self.channel.unwrap_or_default() + &self.constrain.unwrap_or_default()
    }

    fn bytes(&self) -> usize {
        let length = |part: &Option<String>| part.as_ref().map_or(0, String::len);
        self.lead.len() + length(&self.channel) + length(&self.constrain)
    }

    /// A message with no text yet.
    fn into_message(self) -> Message {
        let mut message = Message::new(Role::Assistant, "");
        let (mut channel, mut constrain) = (None, None);
        let words = self.channel.iter().flat_map(|part| part.split_whitespace());
        for word in self.lead.split_whitespace().chain(words) {
            if let Some(recipient) = word.strip_prefix("to=") {
                message.recipient = Some(recipient.to_owned());
            }
        }
        let words = self.channel.iter().flat_map(|part| part.split_whitespace());
        for word in words.filter(|word| !word.starts_with("to=")) {
            // The published template writes the type without its special token.
            *(if channel.is_none() { &mut channel } else { &mut constrain }) = Some(word);
        }
        message.channel = Some(match channel {
            Some("analysis") => Channel::Analysis,
            Some("commentary") => Channel::Commentary,
            _ => Channel::Final,
        });
        let named = self.constrain.as_deref().map(str::trim).filter(|name| !name.is_empty());
        message.constrain = named.or(constrain).map(str::to_owned);
        message
    }
}

impl Default for Parser {
    fn default() -> Parser {
        Parser {
            state: State::Header(Header::default()),
            stream: TextStream::default(),
            messages: Vec::new(),
        }
    }
}

impl Parser {
    /// Reads a token, and returns the text that it completes.
    pub fn push(&mut self, id: u32, tokenizer: &Tokenizer) -> Result<Vec<Delta>, TokenizerError> {
        let mut deltas = Vec::new();
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
            (State::Header(header), CHANNEL) if header.channel.is_none() => {
                header.channel = Some(String::new());
            }
            (State::Header(header), CONSTRAIN) => header.constrain = Some(String::new()),
            (State::Header(_), MESSAGE) => self.begin(),
            (State::Content(_), MESSAGE | CONSTRAIN) => {}
            _ => self.end(&mut deltas),
        }
        // A channel without a start: the header of the next message all the same.
        if let (State::Header(header), CHANNEL) = (&mut self.state, id) {
            header.channel.get_or_insert_default();
        }
        Ok(deltas)
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
                header.part().push_str(&text);
                if header.bytes() > MAX_HEADER_BYTES {
                    self.header_is_text(deltas);
                }
            }
            State::Content(message) => {
                let delta = text_delta(message, text);
                deltas.extend(delta);
            }
        }
    }

    /// The header is whole: text follows.
    fn begin(&mut self) {
        if let State::Header(header) = &mut self.state {
            self.state = State::Content(std::mem::take(header).into_message());
        }
    }

    /// What was read as a header is the beginning of an answer.
    fn header_is_text(&mut self, deltas: &mut Vec<Delta>) {
        if let State::Header(header) = &mut self.state {
            let text = std::mem::take(header).into_text();
            let mut message = Message::assistant(Channel::Final, "");
            deltas.extend(text_delta(&mut message, text));
            self.state = State::Content(message);
        }
    }

    /// The message is whole: the next header follows.
    fn end(&mut self, deltas: &mut Vec<Delta>) {
        let blank = match &self.state {
            State::Header(header) => {
                let text = header.lead.trim();
                let bare = header.channel.is_none() && header.constrain.is_none();
                header.bytes() == 0 || (bare && (text.is_empty() || text == "assistant"))
            }
            State::Content(_) => false,
        };
        if blank {
            self.state = State::Header(Header::default());
            return;
        }
        self.header_is_text(deltas);
        let next = State::Header(Header::default());
        if let State::Content(message) = std::mem::replace(&mut self.state, next) {
            self.messages.push(message);
        }
    }
}

fn text_delta(message: &mut Message, text: String) -> Option<Delta> {
    if text.is_empty() {
        return None;
    }
    message.content += &text;
    let channel = message.channel.unwrap_or(Channel::Final);
    Some(Delta { channel, recipient: message.recipient.clone(), text })
}
