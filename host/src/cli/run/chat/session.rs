//! What was said, and what the model is asked next. Nothing here waits, reads or prints.

use std::sync::Arc;

use gptoss::engine::Sampling;
use gptoss::harmony::{self, Delta, Effort, Message, Role, SystemPrompt};
use gptoss::tokenizer::{Tokenizer, TokenizerError};

use super::reading::Reading;

/// The share of the context that is kept free for an answer when there are old turns to forget.
const RESERVE: usize = 8;

/// Why a message is not sent. It is not part of the conversation.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The text is no text to the tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// It would leave no room for an answer, even alone.
    #[error(
        "the message makes {tokens} tokens with the instructions, expected less than {limit}, the \
         context"
    )]
    TooLong { tokens: usize, limit: usize },
    /// The model's vocabulary is smaller than the tokenizer's.
    #[error("the text has token {token}, expected less than the model's {vocabulary}")]
    Vocabulary { token: u32, vocabulary: usize },
    /// There is nothing to go on with.
    #[error("no answer was cut, /more has nothing to continue")]
    NothingCut,
}

/// What does not change in a conversation.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Tokens of the conversation at most.
    pub positions: usize,
    /// Ids of the model.
    pub vocabulary: usize,
}

/// What the model is asked.
#[derive(Debug)]
pub struct Asked {
    pub prompt: Vec<u32>,
    pub max_tokens: usize,
    pub sampling: Sampling,
    /// Reads the answer; what a cut one has is read already.
    pub reading: Reading,
    /// Turns that had to be forgotten, the oldest ones.
    pub forgotten: usize,
}

/// An answer that ended before the model ended it.
#[derive(Clone, Debug)]
struct Cut {
    tokens: Vec<u32>,
    /// With the same seed it goes on as it would have gone.
    sampling: Sampling,
    /// How many of the last messages are its own.
    messages: usize,
}

/// What an answer is awaited to.
#[derive(Debug)]
enum Awaited {
    Message,
    /// The cut answer, and what there was of it.
    More(Cut, Vec<Message>),
}

/// A conversation.
pub struct Session {
    tokenizer: Arc<Tokenizer>,
    limits: Limits,
    /// Its seed is the conversation's.
    sampling: Sampling,
    stops: Vec<String>,
    system: SystemPrompt,
    instructions: String,
    /// What was said, the oldest first, and the tokens of each message.
    messages: Vec<Message>,
    ids: Vec<Vec<u32>>,
    cut: Option<Cut>,
    awaited: Option<(Awaited, Sampling)>,
    /// Answers begun so far.
    answers: u64,
}

impl Session {
    /// An empty one. The date is taken once: a prompt that began differently on the next day would
    /// be computed anew.
    pub fn new(
        tokenizer: Arc<Tokenizer>,
        limits: Limits,
        sampling: Sampling,
        stops: Vec<String>,
        system: SystemPrompt,
    ) -> Session {
        Session {
            tokenizer,
            limits,
            sampling,
            stops,
            system,
            instructions: String::new(),
            messages: Vec::new(),
            ids: Vec::new(),
            cut: None,
            awaited: None,
            answers: 0,
        }
    }

    /// Forgets what was said.
    pub fn reset(&mut self) {
        self.messages.clear();
        self.ids.clear();
        self.cut = None;
        self.awaited = None;
    }

    /// Forgets what was said, and has other instructions from now on.
    pub fn instruct(&mut self, instructions: &str) {
        self.reset();
        instructions.clone_into(&mut self.instructions);
    }

    /// How long the model is to reason.
    pub fn effort(&self) -> Effort {
        self.system.effort
    }

    /// From the next answer on.
    pub fn set_effort(&mut self, effort: Effort) {
        self.system.effort = effort;
    }

    /// The user says something.
    pub fn say(&mut self, text: &str) -> Result<Asked, Refusal> {
        let message = Message::new(Role::User, text);
        let ids = harmony::message_ids(&message, &self.tokenizer)?;
        if let Some(&token) = ids.iter().find(|&&id| id as usize >= self.limits.vocabulary) {
            let vocabulary = self.limits.vocabulary;
            return Err(Refusal::Vocabulary { token, vocabulary });
        }
        let tokens = self.frame()?.len() + ids.len() + self.start()?.len();
        if tokens >= self.limits.positions {
            return Err(Refusal::TooLong { tokens, limit: self.limits.positions });
        }
        self.messages.push(message);
        self.ids.push(ids);
        let forgotten = self.make_room(0)?;
        let prompt = [self.prefix()?, self.start()?].concat();
        let sampling = Sampling { seed: seed(self.sampling.seed, self.answers), ..self.sampling };
        self.answers += 1;
        self.cut = None;
        self.awaited = Some((Awaited::Message, sampling));
        let max_tokens = self.limits.positions - prompt.len();
        let reading = Reading::new(Arc::clone(&self.tokenizer), self.stops.clone());
        Ok(Asked { prompt, max_tokens, sampling, reading, forgotten })
    }

    /// The model is to go on with the answer that was cut.
    pub fn more(&mut self) -> Result<Asked, Refusal> {
        let Some(cut) = self.cut.clone() else { return Err(Refusal::NothingCut) };
        let question = self.messages.len() - cut.messages;
        let last_turn = self.turns(question).last().copied().unwrap_or(0);
        let alone: usize = self.ids[last_turn..question].iter().map(Vec::len).sum();
        let tokens = self.frame()?.len() + alone + self.start()?.len() + cut.tokens.len();
        if tokens >= self.limits.positions {
            return Err(Refusal::TooLong { tokens, limit: self.limits.positions });
        }
        let mut reading = Reading::new(Arc::clone(&self.tokenizer), self.stops.clone());
        for &token in &cut.tokens {
            // The user has seen this text.
            reading.push(token)?;
        }
        let said = self.messages.split_off(question);
        self.ids.truncate(question);
        let forgotten = self.make_room(cut.tokens.len())?;
        let prompt = [self.prefix()?, self.start()?, cut.tokens.clone()].concat();
        let max_tokens = self.limits.positions - prompt.len();
        let sampling = cut.sampling;
        self.cut = None;
        self.awaited = Some((Awaited::More(cut, said), sampling));
        Ok(Asked { prompt, max_tokens, sampling, reading, forgotten })
    }

    /// Takes an answer that ended, and gives the text that was held back.
    pub fn take(&mut self, reading: Reading, is_cut: bool) -> Result<Vec<Delta>, Refusal> {
        let Some((_, sampling)) = self.awaited.take() else { return Ok(Vec::new()) };
        let (rest, messages, tokens) = reading.finish();
        self.cut = is_cut.then_some(Cut { tokens, sampling, messages: messages.len() });
        for message in messages {
            self.ids.push(harmony::message_ids(&message, &self.tokenizer)?);
            self.messages.push(message);
        }
        // What is held back of a cut answer comes with the rest of it.
        Ok(if is_cut { Vec::new() } else { rest })
    }

    /// There is no answer: what asked for it was not said.
    pub fn take_back(&mut self) -> Result<(), Refusal> {
        match self.awaited.take() {
            Some((Awaited::Message, _)) => {
                self.messages.pop();
                self.ids.pop();
            }
            Some((Awaited::More(cut, said), _)) => {
                for message in said {
                    self.ids.push(harmony::message_ids(&message, &self.tokenizer)?);
                    self.messages.push(message);
                }
                self.cut = Some(cut);
            }
            None => {}
        }
        Ok(())
    }

    /// Tokens that the next prompt begins with, whatever the user says.
    pub fn prefix(&self) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.frame()?;
        for (index, _) in harmony::shown(&self.messages) {
            ids.extend(&self.ids[index]);
        }
        Ok(ids)
    }

    fn frame(&self) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = harmony::message_ids(&self.system.message(), &self.tokenizer)?;
        if !self.instructions.is_empty() {
            let instructions = Message::instructions(&self.instructions);
            ids.extend(harmony::message_ids(&instructions, &self.tokenizer)?);
        }
        Ok(ids)
    }

    fn start(&self) -> Result<Vec<u32>, TokenizerError> {
        harmony::answer_start(&self.tokenizer)
    }

    /// Where each of the turns before message `end` begins.
    fn turns(&self, end: usize) -> Vec<usize> {
        (0..end).filter(|&index| self.messages[index].role == Role::User).collect()
    }

    /// Forgets old turns when too little room would be left behind a prompt that goes on with `more`
    /// tokens: as many as leave half of the context free, so that the next time is far away. The
    /// last turn stays.
    fn make_room(&mut self, more: usize) -> Result<usize, TokenizerError> {
        let limit = self.limits.positions;
        let length = |session: &Session| -> Result<usize, TokenizerError> {
            Ok(session.prefix()?.len() + session.start()?.len() + more)
        };
        if length(self)? + limit / RESERVE <= limit {
            return Ok(0);
        }
        let mut forgotten = 0;
        while length(self)? > limit / 2 {
            let Some(&second) = self.turns(self.messages.len()).get(1) else { break };
            self.messages.drain(..second);
            self.ids.drain(..second);
            forgotten += 1;
        }
        Ok(forgotten)
    }
}

/// The seed of answer `index` of a conversation: the same every time, and unlike the others'
/// (splitmix64).
fn seed(base: u64, index: u64) -> u64 {
    let mut z = base.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
