//! Requests, and what becomes of them.

use crate::engine::{Limits, Sampling};
use crate::pages::SeqId;

/// One text to continue.
#[derive(Clone, Debug)]
pub struct Request {
    /// Names the request in events.
    pub id: usize,
    /// At least one token, each below the vocabulary's size.
    pub prompt: Vec<u32>,
    /// Tokens to generate at most, the stop token included.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Ids that end the generation; the one that came is its last token.
    pub stop: Vec<u32>,
    /// Compute the prompt and choose nothing: what begins like it starts sooner later on.
    pub prefill_only: bool,
}

/// Why a request has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token came, or whoever asked saw enough.
    Stop,
    /// It has all the tokens it may have.
    Length,
    /// It was cancelled.
    Cancelled,
}

/// Why a request has no end. The others go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It asks for what the engine does not do.
    #[error("{0}")]
    Invalid(String),
    /// It would not fit an empty engine.
    #[error("{positions} positions do not fit, expected at most {most} ({limit})")]
    TooLarge {
        /// Positions it may take.
        positions: usize,
        /// Positions there are.
        most: usize,
        /// What sets the limit.
        limit: &'static str,
    },
    /// The model's values were out of range.
    #[error("{0}")]
    NotFinite(String),
    /// The engine answered with something else than was asked for.
    #[error("the engine answered with {0}, which was not asked for")]
    Unexpected(String),
    /// The device that ran it failed, and there is no other.
    #[error("the device failed: {0}")]
    DeviceLost(String),
}

/// What happened to a request. Each ends with exactly one of [`Event::Done`] and
/// [`Event::Failed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has its place. Comes once, before its tokens.
    Started {
        /// The request.
        id: usize,
        /// Tokens of its prompt that need not be computed.
        reused: usize,
    },
    /// A part of its prompt was computed, and no token chosen yet.
    Prefill {
        /// The request.
        id: usize,
        /// Tokens that are computed.
        done: usize,
        /// Tokens that have to be, before one is chosen.
        total: usize,
    },
    /// Its next token.
    Token {
        /// The request.
        id: usize,
        /// The token.
        token: u32,
    },
    /// It is finished, and forgotten.
    Done {
        /// The request.
        id: usize,
        /// Why.
        finish: Finish,
        /// All tokens it generated.
        tokens: Vec<u32>,
    },
    /// It failed, and is forgotten.
    Failed {
        /// The request.
        id: usize,
        /// Why.
        error: RequestError,
    },
}

impl Event {
    /// The request.
    pub fn id(&self) -> usize {
        match self {
            Event::Started { id, .. }
            | Event::Prefill { id, .. }
            | Event::Token { id, .. }
            | Event::Done { id, .. }
            | Event::Failed { id, .. } => *id,
        }
    }

    /// The same of request `id`.
    pub(crate) fn of(mut self, of: usize) -> Event {
        match &mut self {
            Event::Started { id, .. }
            | Event::Prefill { id, .. }
            | Event::Token { id, .. }
            | Event::Done { id, .. }
            | Event::Failed { id, .. } => *id = of,
        }
        self
    }

    /// Whether it is the request's last.
    pub fn is_last(&self) -> bool {
        matches!(self, Event::Done { .. } | Event::Failed { .. })
    }
}

impl Request {
    /// Refuses what could never run.
    pub(super) fn check(&self, limits: &Limits) -> Result<(), RequestError> {
        if self.prompt.is_empty() {
            return Err(RequestError::Invalid(
                "the prompt is empty, expected at least one token".to_owned(),
            ));
        }
        self.sampling.check().map_err(RequestError::Invalid)?;
        let positions = self.prompt.len().saturating_add(self.max_tokens);
        for (most, limit) in [
            (limits.max_positions, "positions of a sequence"),
            (limits.pages.max_positions(), "memory for keys and values"),
        ] {
            if positions > most {
                return Err(RequestError::TooLarge { positions, most, limit });
            }
        }
        Ok(())
    }
}

/// A request and its text.
#[derive(Debug)]
pub(super) struct Work {
    pub request: Request,
    /// The prompt, then the generated tokens.
    pub tokens: Vec<u32>,
    /// Whether [`Event::Started`] was told.
    pub is_announced: bool,
}

impl Work {
    pub fn new(request: Request) -> Work {
        let tokens = request.prompt.clone();
        Work { request, tokens, is_announced: false }
    }

    pub fn generated(&self) -> &[u32] {
        &self.tokens[self.request.prompt.len()..]
    }

    /// Why nothing more is to be generated, if so.
    pub fn finish(&self) -> Option<Finish> {
        if self.request.prefill_only {
            return None;
        }
        let stopped =
            self.generated().last().is_some_and(|token| self.request.stop.contains(token));
        let full = self.generated().len() >= self.request.max_tokens;
        if stopped { Some(Finish::Stop) } else { full.then_some(Finish::Length) }
    }

    pub fn done(&self, finish: Finish) -> Event {
        Event::Done { id: self.request.id, finish, tokens: self.generated().to_vec() }
    }
}

/// A request that has its place.
#[derive(Debug)]
pub(super) struct Running {
    pub work: Work,
    pub seq: SeqId,
    /// Tokens of the text that are computed or in a step under way, one beyond the known ones where
    /// that is not read yet.
    pub fed: usize,
    /// Step and chunk that choose the next token.
    pub asked: Option<(u64, usize)>,
    /// Whether all of a text that is only prefilled is there.
    pub is_prefilled: bool,
}
