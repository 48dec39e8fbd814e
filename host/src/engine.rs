//! What every engine does: advance a ragged batch of sequences by one step.
//!
//! A step is a list of chunks, one per sequence: a piece of prompt (prefill) or the token chosen
//! last (decode), mixed freely. An engine holds the weights and the memory of the KV cache; which
//! page holds what is the caller's to know ([`crate::pages`]) and comes with each chunk. The result
//! for a sequence depends on neither its neighbours nor the chunking: the same tokens give
//! bit-identical logits however they are grouped.
//!
//! Steps are submitted and waited for apart, so that the device has the next one before the host
//! has read the last one's tokens: a chunk may take the token that a chunk of the step before it
//! chooses ([`Tokens::Chosen`]). Steps of one engine take effect in the order they were submitted.
//!
//! What goes wrong with one chunk is that chunk's answer; the others of its step get theirs. Only an
//! engine that can do nothing more answers with an [`EngineError`].

mod by_hand;

pub use by_hand::{ByHand, Piece, StepError};

use crate::model::ModelConfig;
use crate::pages::{Geometry, PageTable};
pub use crate::sampling::Sampling;

/// What is wanted of a chunk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Want {
    /// Nothing: prefill that goes on in a later step.
    Nothing,
    /// The token after the chunk's last one.
    Token(Sampling),
    /// The logits of every position of the chunk.
    Logits,
}

/// The tokens of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens<'a> {
    /// These: at least one, each below `vocab_size`.
    Known(&'a [u32]),
    /// The one that this chunk of the step submitted before chooses; it wants a token.
    Chosen(usize),
}

impl Tokens<'_> {
    /// How many.
    pub fn count(&self) -> usize {
        match self {
            Tokens::Known(tokens) => tokens.len(),
            Tokens::Chosen(_) => 1,
        }
    }
}

/// Consecutive tokens of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// What the sequence gains.
    pub tokens: Tokens<'a>,
    /// The sequence's pages, the chunk's own positions included: they are the table's last ones. At
    /// most one chunk of a sequence in a step.
    pub pages: &'a PageTable,
    /// What to return.
    pub want: Want,
}

impl Chunk<'_> {
    /// Position of the first token.
    pub fn start(&self) -> usize {
        self.pages.len() - self.tokens.count()
    }

    /// How the token is chosen, where one is wanted.
    pub fn sampling(&self) -> Option<Sampling> {
        match self.want {
            Want::Token(sampling) => Some(sampling),
            Want::Nothing | Want::Logits => None,
        }
    }
}

/// The answer to one chunk, by [`Want`].
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// [`Want::Nothing`].
    Nothing,
    /// [`Want::Token`].
    Token(u32),
    /// [`Want::Logits`]: `[tokens, vocab_size]`.
    Logits(Vec<f32>),
}

/// Why there is no answer to one chunk. Its positions hold nothing of use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The chunk breaks the contract; it was left out of the step.
    #[error("{0}")]
    Invalid(String),
    /// The model's values are out of range: NaN or infinite.
    #[error("{0}")]
    NotFinite(String),
}

/// What became of a chunk.
pub type Outcome = Result<Output, ChunkError>;

/// What an engine takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Chunks in one step.
    pub max_chunks: usize,
    /// Tokens in one step, over all chunks.
    pub max_step_tokens: usize,
    /// Positions of one sequence.
    pub max_positions: usize,
    /// Steps submitted and not yet waited for.
    pub max_in_flight: usize,
    /// Pages of the KV cache.
    pub pages: Geometry,
}

/// Why an engine does not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The caller broke the contract of the step as a whole; nothing was computed.
    #[error("{0}")]
    Invalid(String),
    /// The device failed: no step can follow.
    #[error("{0}")]
    DeviceLost(String),
}

/// A step that was submitted. Every ticket is waited for, in the order of submission.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a step that is not waited for holds its place"]
pub struct Ticket(u64);

impl Ticket {
    /// For engines: the ticket of their step `number`.
    pub fn new(number: u64) -> Ticket {
        Ticket(number)
    }

    /// The number.
    pub fn number(&self) -> u64 {
        self.0
    }
}

/// A model on a device.
pub trait Engine: Send {
    /// Hyper-parameters of the model.
    fn config(&self) -> &ModelConfig;

    /// What it takes.
    fn limits(&self) -> Limits;

    /// One line for people: device, memory, threads.
    fn describe(&self) -> String;

    /// Queues a step; tables and tokens are read before this returns.
    fn submit(&mut self, chunks: &[Chunk<'_>]) -> Result<Ticket, EngineError>;

    /// Waits for a step, the oldest one submitted, and answers in the order of its chunks.
    fn wait(&mut self, ticket: Ticket) -> Result<Vec<Outcome>, EngineError>;
}

/// Whatever points at an engine is one.
macro_rules! pointers {
    ($($pointer:ty),*) => {$(
        impl<E: Engine + ?Sized> Engine for $pointer {
            fn config(&self) -> &ModelConfig {
                (**self).config()
            }

            fn limits(&self) -> Limits {
                (**self).limits()
            }

            fn describe(&self) -> String {
                (**self).describe()
            }

            fn submit(&mut self, chunks: &[Chunk<'_>]) -> Result<Ticket, EngineError> {
                (**self).submit(chunks)
            }

            fn wait(&mut self, ticket: Ticket) -> Result<Vec<Outcome>, EngineError> {
                (**self).wait(ticket)
            }
        }
    )*};
}
pointers!(Box<E>, &mut E);

/// What an engine remembers of the step it was given last.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// For each chunk, whether it chooses a token.
    chooses: Vec<bool>,
}

impl Before {
    /// Of a step of these chunks.
    pub fn of(chunks: &[Chunk<'_>]) -> Before {
        Before { chooses: chunks.iter().map(|chunk| chunk.sampling().is_some()).collect() }
    }
}

/// Refuses a step as a whole, or says for each chunk why it is left out; `before` is the step
/// submitted before. Every engine begins with this.
pub fn check(
    chunks: &[Chunk<'_>],
    config: &ModelConfig,
    limits: &Limits,
    before: &Before,
) -> Result<Vec<Option<ChunkError>>, EngineError> {
    let tokens: usize = chunks.iter().map(|chunk| chunk.tokens.count()).sum();
    for (what, value, most) in
        [("tokens", tokens, limits.max_step_tokens), ("chunks", chunks.len(), limits.max_chunks)]
    {
        if value > most {
            let why = format!("a step of {value} {what}, expected at most {most}");
            return Err(EngineError::Invalid(why));
        }
    }
    let mut seen = std::collections::HashSet::new();
    let mut one = |chunk: &Chunk<'_>| {
        let seq = chunk.pages.seq().0;
        if !seen.insert(seq) {
            return Err(format!("sequence {seq} has two chunks in one step, expected one"));
        }
        check_chunk(chunk, config, limits, before)
    };
    Ok(chunks.iter().map(|chunk| one(chunk).err().map(ChunkError::Invalid)).collect())
}

fn check_chunk(
    chunk: &Chunk<'_>,
    config: &ModelConfig,
    limits: &Limits,
    before: &Before,
) -> Result<(), String> {
    let (seq, len) = (chunk.pages.seq().0, chunk.pages.len());
    match chunk.tokens {
        Tokens::Known([]) => {
            return Err(format!("the chunk of sequence {seq} is empty, expected a token"));
        }
        Tokens::Known(tokens) => {
            let vocab = config.vocab_size;
            if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocab) {
                return Err(format!(
                    "token {token} of sequence {seq}, expected less than vocab_size {vocab}"
                ));
            }
        }
        Tokens::Chosen(index) if before.chooses.get(index) != Some(&true) => {
            return Err(format!(
                "sequence {seq} takes the token of chunk {index} of the step before, which chooses \
                 none"
            ));
        }
        Tokens::Chosen(_) => {}
    }
    let most = limits.max_positions;
    if len > most {
        return Err(format!("sequence {seq} would hold {len} tokens, expected at most {most}"));
    }
    if chunk.tokens.count() > len {
        let count = chunk.tokens.count();
        return Err(format!("sequence {seq} has pages for {len} tokens, not for {count}"));
    }
    chunk.sampling().map_or(Ok(()), |sampling| sampling.check())
}
