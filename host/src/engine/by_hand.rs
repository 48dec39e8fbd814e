//! An engine driven one step at a time: what comparisons, benchmarks and tests need, without a
//! scheduler.

use super::{Chunk, ChunkError, Engine, EngineError, Outcome, Output, Tokens, Want};
use crate::pages::{OutOfPages, Pages, SeqId};

/// Consecutive tokens of one sequence; positions follow those the sequence already holds.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The sequence; at most one piece of it in a step.
    pub seq: SeqId,
    /// At least one token.
    pub tokens: &'a [u32],
    /// What to return.
    pub want: Want,
}

/// Why a step gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// The engine does not go on.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// One chunk has no answer.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// The sequence was closed, or never opened.
    #[error("sequence {0} is not open")]
    NotOpen(u64),
    /// The KV cache is full.
    #[error("out of KV cache: {0}")]
    OutOfPages(#[from] OutOfPages),
}

/// An engine with pages of its own. A sequence of a step that failed is closed.
#[derive(Debug)]
pub struct ByHand<E> {
    engine: E,
    pages: Pages,
}

impl<E: Engine> ByHand<E> {
    /// No sequence is open. Every sequence computes all its tokens.
    pub fn new(engine: E) -> ByHand<E> {
        let pages = Pages::new(engine.limits().pages, false);
        ByHand { engine, pages }
    }

    /// The engine, to drive it otherwise for a while.
    pub fn engine_mut(&mut self) -> &mut E {
        &mut self.engine
    }

    /// The engine.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// The pages.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Opens a sequence.
    pub fn open(&mut self) -> SeqId {
        self.pages.open(&[])
    }

    /// Closes a sequence; one that is not open is ignored.
    pub fn close(&mut self, seq: SeqId) {
        self.pages.close(seq);
    }

    /// Advances each piece's sequence, and answers in their order, each for itself.
    pub fn step_each(&mut self, pieces: &[Piece<'_>]) -> Result<Vec<Outcome>, StepError> {
        if let Some(piece) = pieces.iter().find(|piece| !self.pages.is_open(piece.seq)) {
            return Err(StepError::NotOpen(piece.seq.0));
        }
        for piece in pieces {
            self.pages.extend(piece.seq, piece.tokens.len())?;
        }
        let chunks: Vec<Chunk<'_>> = pieces
            .iter()
            .map(|piece| Chunk {
                tokens: Tokens::Known(piece.tokens),
                pages: self.pages.table(piece.seq),
                want: piece.want,
            })
            .collect();
        let answered = self.engine.submit(&chunks).and_then(|ticket| self.engine.wait(ticket));
        let outcomes = match answered {
            Ok(outcomes) => outcomes,
            Err(error) => {
                pieces.iter().for_each(|piece| self.pages.close(piece.seq));
                return Err(error.into());
            }
        };
        for (piece, outcome) in pieces.iter().zip(&outcomes) {
            match outcome {
                Ok(_) => self.pages.confirm(piece.seq, piece.tokens),
                Err(_) => self.pages.close(piece.seq),
            }
        }
        Ok(outcomes)
    }

    /// As [`ByHand::step_each`]; the first chunk that failed fails the call.
    pub fn step(&mut self, pieces: &[Piece<'_>]) -> Result<Vec<Output>, StepError> {
        let outcomes = self.step_each(pieces)?;
        Ok(outcomes.into_iter().collect::<Result<_, ChunkError>>()?)
    }
}
