//! Harmony, the conversation format of gpt-oss: rendering to tokens, and reading answers.
//!
//! A message is `<|start|>ROLE[ to=RECIPIENT][<|channel|>CHANNEL][ TYPE]<|message|>TEXT<|end|>`; a
//! model that answers starts after `<|start|>assistant` and ends with `<|return|>`, or with
//! `<|call|>` when it wants a tool. The format is OpenAI's (openai/harmony, docs/format.md).

mod header;
mod parse;

use crate::tokenizer::{
    CALL, CHANNEL, CONSTRAIN, END, END_OF_TEXT, MESSAGE, RETURN, START, Tokenizer, TokenizerError,
};

pub use parse::{Delta, Parser};

/// Ids that end an answer.
pub const STOP_TOKENS: [u32; 3] = [END_OF_TEXT, RETURN, CALL];

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The frame: identity, dates, effort, channels. See [`SystemPrompt`].
    System,
    /// Instructions; what other formats call the system prompt.
    Developer,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A tool, by its name.
    Tool(String),
}

impl Role {
    fn name(&self) -> &str {
        match self {
            Role::System => "system",
            Role::Developer => "developer",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool(name) => name,
        }
    }
}

/// What a message of the assistant is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Reasoning: not shown as the answer, and dropped once an answer was given.
    Analysis,
    /// Calls of tools, and what is said around them.
    Commentary,
    /// The answer.
    Final,
}

impl Channel {
    /// The name in a header.
    pub fn name(self) -> &'static str {
        match self {
            Channel::Analysis => "analysis",
            Channel::Commentary => "commentary",
            Channel::Final => "final",
        }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// Who is spoken to, when it is not everyone: a tool, as `functions.weather`.
    pub recipient: Option<String>,
    /// Set in messages of the assistant and of tools.
    pub channel: Option<Channel>,
    /// Format of the content that the sampler was held to, as `json`.
    pub constrain: Option<String>,
    /// The text.
    pub content: String,
}

impl Message {
    /// A message with nothing but a role and a text.
    pub fn new(role: Role, content: impl Into<String>) -> Message {
        let content = content.into();
        Message { role, recipient: None, channel: None, constrain: None, content }
    }

    /// A message of the assistant.
    pub fn assistant(channel: Channel, content: impl Into<String>) -> Message {
        Message { channel: Some(channel), ..Message::new(Role::Assistant, content) }
    }

    /// Instructions to the model.
    pub fn instructions(text: &str) -> Message {
        Message::new(Role::Developer, format!("# Instructions\n\n{text}"))
    }
}

/// How long the model may reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Effort {
    /// Little.
    Low,
    /// As usual.
    #[default]
    Medium,
    /// Long.
    High,
}

impl Effort {
    /// The word in the system message and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Effort::Low => "low",
            Effort::Medium => "medium",
            Effort::High => "high",
        }
    }
}

/// A word that is no [`Effort`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("effort is {0:?}, expected low, medium or high")]
pub struct EffortError(String);

impl std::str::FromStr for Effort {
    type Err = EffortError;

    fn from_str(word: &str) -> Result<Effort, EffortError> {
        let efforts = [Effort::Low, Effort::Medium, Effort::High];
        efforts.into_iter().find(|e| e.name() == word).ok_or_else(|| EffortError(word.to_owned()))
    }
}

/// The system message the model was trained with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemPrompt {
    /// How long to reason.
    pub effort: Effort,
    /// `YYYY-MM-DD`; without it the line is left out.
    pub date: Option<String>,
}

impl SystemPrompt {
    /// The message.
    pub fn message(&self) -> Message {
        let date = self.date.as_ref().map(|date| format!("Current date: {date}\n"));
        let effort = self.effort.name();
        let text = format!(
            "You are ChatGPT, a large language model trained by OpenAI.\n\
             Knowledge cutoff: 2024-06\n{}\nReasoning: {effort}\n\n\
             # Valid channels: analysis, commentary, final. Channel must be included for every \
             message.",
            date.unwrap_or_default(),
        );
        Message::new(Role::System, text)
    }
}

/// Tokens of a conversation, up to where the assistant's next message begins.
///
/// Reasoning that led to an answer already given is left out: the model was trained so.
pub fn render(messages: &[Message], tokenizer: &Tokenizer) -> Result<Vec<u32>, TokenizerError> {
    let mut ids = Vec::new();
    for (_, message) in shown(messages) {
        ids.extend(message_ids(message, tokenizer)?);
    }
    ids.extend(answer_start(tokenizer)?);
    Ok(ids)
}

/// The messages that the model is shown, with their indices: all but reasoning that led to an answer
/// already given.
pub fn shown(messages: &[Message]) -> impl Iterator<Item = (usize, &Message)> {
    let answered = messages.iter().rposition(|m| m.channel == Some(Channel::Final)).unwrap_or(0);
    let is_shown =
        move |index: usize, m: &Message| index >= answered || m.channel != Some(Channel::Analysis);
    messages.iter().enumerate().filter(move |(index, message)| is_shown(*index, message))
}

/// Tokens behind which the assistant's next message begins.
pub fn answer_start(tokenizer: &Tokenizer) -> Result<Vec<u32>, TokenizerError> {
    let mut ids = vec![START];
    ids.extend(tokenizer.encode(Role::Assistant.name())?);
    Ok(ids)
}

/// As [`render`], with an answer that was cut behind it, which the model goes on with: `answer` is
/// the tokens it gave so far, all of them, in its own spelling and with its reasoning.
///
/// A [`Parser`] that has read `answer` reads what follows as the same messages; one that has ended
/// with a stop token ([`Parser::is_complete`]) has nothing to add.
pub fn render_continuation(
    messages: &[Message],
    answer: &[u32],
    tokenizer: &Tokenizer,
) -> Result<Vec<u32>, TokenizerError> {
    let mut ids = render(messages, tokenizer)?;
    ids.extend_from_slice(answer);
    Ok(ids)
}

/// Tokens of one message; those of a conversation are these, one message after the other.
pub fn message_ids(message: &Message, tokenizer: &Tokenizer) -> Result<Vec<u32>, TokenizerError> {
    let mut ids = vec![START];
    ids.extend(tokenizer.encode(message.role.name())?);
    if let Some(recipient) = &message.recipient {
        ids.extend(tokenizer.encode(&format!(" to={recipient}"))?);
    }
    if let Some(channel) = message.channel {
        ids.push(CHANNEL);
        ids.extend(tokenizer.encode(channel.name())?);
    }
    if let Some(constrain) = &message.constrain {
        ids.extend(tokenizer.encode(" ")?);
        ids.push(CONSTRAIN);
        ids.extend(tokenizer.encode(constrain)?);
    }
    ids.push(MESSAGE);
    ids.extend(tokenizer.encode(&message.content)?);
    let calls = message.role == Role::Assistant && message.recipient.is_some();
    ids.push(if calls { CALL } else { END });
    Ok(ids)
}

/// Today in UTC as `YYYY-MM-DD`, for [`SystemPrompt::date`].
pub fn today() -> String {
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs());
    date(seconds / (24 * 60 * 60))
}

/// The day that many days after 1970-01-01, in the Gregorian calendar.
fn date(mut days: u64) -> String {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

#[cfg(test)]
mod tests;
