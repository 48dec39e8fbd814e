//! The header of a message, as models write it: with parts twice, in any order, or half.

use super::{Channel, Message, Role};
use crate::tokenizer::{CHANNEL, START};

/// Bytes of text after which a header is taken for text. Names of tools have at most 64.
const MAX_BYTES: usize = 160;

/// What opened a part of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, or `<|start|>`: role and recipient.
    Lead,
    /// `<|channel|>`: channel, recipient and type.
    Channel,
    /// `<|constrain|>`: the type.
    Constrain,
}

/// A header while it comes in.
#[derive(Debug)]
pub struct Header {
    /// `<|start|>` came: a role is due.
    started: bool,
    /// The last one is open.
    parts: Vec<(Kind, String)>,
}

impl Default for Header {
    fn default() -> Header {
        Header { started: false, parts: vec![(Kind::Lead, String::new())] }
    }
}

impl Header {
    /// The header that begins with the special token `id`, or behind it.
    pub fn after(id: u32) -> Header {
        let mut header = Header { started: id == START, ..Header::default() };
        if id == CHANNEL {
            header.open(Kind::Channel);
        }
        header
    }

    /// Begins a part.
    pub fn open(&mut self, kind: Kind) {
        self.parts.push((kind, String::new()));
    }

    /// Adds text to the open part; whether the header is longer than any that is one.
    pub fn push(&mut self, text: &str) -> bool {
        let bytes: usize = self.parts.iter().map(|(_, part)| part.len()).sum();
        if let Some((kind, part)) = self.parts.last_mut() {
            // Space without end makes no header long; in a lead it may be text.
            let room = if *kind == Kind::Lead { MAX_BYTES } else { 0 };
            let more_space = text.trim().is_empty() && part.trim_end().len() + room < part.len();
            // A name without end is cut.
            if !more_space && bytes <= MAX_BYTES {
                part.push_str(text);
            }
        }
        bytes + text.len() > MAX_BYTES
    }

    /// The message that follows a whole header: every word belongs to the header.
    pub fn into_message(self, tools: Option<&[String]>) -> Message {
        let mut words = Words::default();
        for (kind, part) in &self.parts {
            let mut rest = words.take(*kind, part, self.started, true);
            while !rest.trim().is_empty() {
                let (word, after) = split_word(rest.trim_start());
                words.add(*kind, word);
                rest = words.take_names(after, false);
            }
        }
        words.message(tools)
    }

    /// The message that a header without end turned out to be, and its text.
    pub fn as_text(&self, tools: Option<&[String]>) -> (Message, String) {
        let mut words = Words::default();
        let mut text = String::new();
        for (kind, part) in &self.parts {
            let rest = words.take(*kind, part, self.started, false);
            // A word alone behind `<|channel|>` is a name, whole or cut; one behind a recipient a
            // type.
            let alone = rest.trim();
            let plain = alone.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let is_name = rest.len() == part.len() || words.recipient.is_some();
            let is_header = *kind == Kind::Channel && plain && is_name;
            // The beginning of `to=`.
            if !is_header && alone != "to" {
                text += rest;
            }
        }
        (words.message(tools), text)
    }
}

/// What the words of a header say.
#[derive(Debug, Default)]
struct Words {
    role: Option<Role>,
    recipient: Option<String>,
    channel: Option<Channel>,
    /// Something stood where a channel's name stands.
    named: bool,
    constrain: Option<String>,
}

impl Words {
    /// Takes the header's words from the front of a part, and returns what is behind them: all of
    /// the part, spaces included, when there are none.
    fn take<'a>(&mut self, kind: Kind, part: &'a str, started: bool, whole: bool) -> &'a str {
        match kind {
            Kind::Lead => {
                let rest = if started { self.take_role(part, whole) } else { part };
                self.take_names(rest, true)
            }
            Kind::Channel => {
                // A second channel corrects the first.
                self.named = false;
                self.take_names(part, false)
            }
            Kind::Constrain => {
                let text = self.take_names(part, false).trim_start();
                let is_type = |c: char| c.is_ascii_alphanumeric() || "_+-./".contains(c);
                let end = text.find(|c| !is_type(c)).unwrap_or(text.len());
                if end > 0 {
                    self.constrain = Some(text[..end].to_owned());
                }
                self.take_names(&text[end..], false).trim_start()
            }
        }
    }

    /// Takes the role behind `<|start|>`.
    fn take_role<'a>(&mut self, part: &'a str, whole: bool) -> &'a str {
        let text = part.trim_start();
        if let Some(rest) = text.strip_prefix("assistant") {
            return rest;
        }
        let (word, rest) = split_word(text);
        self.role = match word {
            "user" => Some(Role::User),
            "system" => Some(Role::System),
            "developer" => Some(Role::Developer),
            // Only a whole header names a tool for certain; else this may be an answer.
            name if !name.is_empty() && (whole || name.starts_with("functions.")) => {
                Some(Role::Tool(name.to_owned()))
            }
            _ => return part,
        };
        rest
    }

    /// Takes channels and recipients from the front of `text`. In the `lead` a name may also be
    /// the first word of an answer.
    fn take_names<'a>(&mut self, text: &'a str, lead: bool) -> &'a str {
        let mut rest = text;
        loop {
            let next = rest.trim_start();
            if let Some(behind) = next.strip_prefix("to=") {
                let (name, after) = split_word(behind);
                if !name.is_empty() {
                    self.recipient = Some(name.to_owned());
                }
                rest = after;
            } else if let Some((channel, after)) = channel(next, lead) {
                (self.channel, self.named) = (Some(channel), true);
                rest = after;
            } else {
                return if rest.len() == text.len() { text } else { next };
            }
        }
    }

    /// A word that is neither a known channel nor a recipient, in a whole header.
    fn add(&mut self, kind: Kind, word: &str) {
        if kind == Kind::Channel {
            // The published template writes the type without its special token.
            if self.named {
                self.constrain.get_or_insert_with(|| word.to_owned());
            }
            self.named = true;
        }
    }

    /// The message, without its text.
    fn message(self, tools: Option<&[String]>) -> Message {
        let Words { role, recipient, channel, constrain, .. } = self;
        let (recipient, stuck) = match recipient.map(|name| repair(name, &constrain, tools)) {
            Some((name, stuck)) => (Some(name), stuck),
            None => (None, None),
        };
        // What someone else would have said, or says to a tool, is not the answer.
        let answers = role.is_none() && recipient.is_none();
        let otherwise = if answers { Channel::Final } else { Channel::Commentary };
        Message {
            role: role.unwrap_or(Role::Assistant),
            recipient,
            channel: Some(channel.unwrap_or(otherwise)),
            constrain: constrain.or(stuck),
            content: String::new(),
        }
    }
}

/// The known channel at the front of `text`, and what is behind its name, which may be anything:
/// models forget the space, and the `<|message|>`.
fn channel(text: &str, lead: bool) -> Option<(Channel, &str)> {
    let channels = [Channel::Analysis, Channel::Commentary, Channel::Final];
    let found = channels.into_iter().find_map(|c| Some((c, text.strip_prefix(c.name())?)));
    // "finally" is no channel, and a lead "final word" is prose.
    found.filter(|(channel, rest)| {
        let glued = rest.starts_with("to=") || channels.iter().any(|c| rest.starts_with(c.name()));
        let prose = rest.starts_with(char::is_lowercase)
            || lead && rest.starts_with(' ') && !rest.trim_start().is_empty();
        *channel != Channel::Final || glued || !prose
    })
}

/// The first word of `text` and what is behind it.
fn split_word(text: &str) -> (&str, &str) {
    text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()))
}

/// A recipient without the type that stuck to it, and that type.
fn repair(
    name: String,
    constrain: &Option<String>,
    tools: Option<&[String]>,
) -> (String, Option<String>) {
    let stem = name.strip_suffix("json").filter(|stem| match tools {
        Some(tools) => !tools.contains(&name) && tools.iter().any(|tool| tool == stem),
        None => {
            let tool = stem.strip_prefix("functions.").unwrap_or_default();
            constrain.is_none() && tool.ends_with(|c: char| c.is_ascii_alphanumeric())
        }
    });
    match stem {
        Some(stem) => (stem.to_owned(), Some("json".to_owned())),
        None => (name, None),
    }
}
