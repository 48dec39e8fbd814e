//! Continuous batching: many requests advance together, and a finished one's place is taken in
//! the very next step.
//!
//! Every request holds the tokens known so far (prompt, then what was generated) and how many of
//! them its sequence has consumed. A step feeds each running request what it has not consumed:
//! one token when decoding, a chunk of prompt otherwise, until the engine's budget is spent;
//! decoding goes first, so that a long prompt delays nobody. When the cache is full, the youngest
//! request gives its place up and consumes its tokens again later: engines promise the same bits
//! however tokens are grouped, so its text does not change.

use std::collections::VecDeque;
use std::ops::AddAssign;

use crate::engine::{Chunk, Engine, EngineError, Output, Sampling, SeqId, Want};

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
}

/// What a step brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A request's next token.
    Token {
        /// The request.
        id: usize,
        /// The token.
        token: u32,
    },
    /// A request is finished, and forgotten.
    Done {
        /// The request.
        id: usize,
        /// All tokens it generated.
        tokens: Vec<u32>,
    },
}

/// Why requests cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The request would not fit an empty engine.
    #[error("request {id} alone does not fit ({positions} positions): {source}")]
    TooLarge {
        /// The request.
        id: usize,
        /// Positions it may take.
        positions: usize,
        /// What the engine said.
        source: EngineError,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// How much was computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Steps of the engine.
    pub steps: u64,
    /// Tokens consumed in chunks of prompt, those consumed again after a preemption included.
    pub prefill_tokens: u64,
    /// Tokens consumed one by one after they were sampled.
    pub decode_tokens: u64,
    /// Times a request lost its place because the cache was full.
    pub preemptions: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.steps += other.steps;
        self.prefill_tokens += other.prefill_tokens;
        self.decode_tokens += other.decode_tokens;
        self.preemptions += other.preemptions;
    }
}

/// The requests in flight.
#[derive(Debug, Default)]
pub struct Scheduler {
    /// Requests that run together at most.
    batch: usize,
    waiting: VecDeque<Work>,
    /// Oldest first.
    running: Vec<Running>,
    finished: Vec<Event>,
    counts: Counts,
}

#[derive(Debug)]
struct Work {
    request: Request,
    /// The prompt, then the generated tokens.
    tokens: Vec<u32>,
}

#[derive(Debug)]
struct Running {
    work: Work,
    seq: SeqId,
    /// Tokens the sequence holds.
    consumed: usize,
}

impl Work {
    fn generated(&self) -> &[u32] {
        &self.tokens[self.request.prompt.len()..]
    }

    fn positions(&self) -> usize {
        self.request.prompt.len() + self.request.max_tokens
    }

    fn is_done(&self) -> bool {
        let stopped =
            self.generated().last().is_some_and(|token| self.request.stop.contains(token));
        stopped || self.generated().len() >= self.request.max_tokens
    }
}

impl Running {
    /// Tokens not yet consumed; one, when decoding.
    fn pending(&self) -> &[u32] {
        &self.work.tokens[self.consumed..]
    }
}

impl Scheduler {
    /// Runs at most `batch` requests together, and no more than the engine takes.
    pub fn new(batch: usize) -> Scheduler {
        Scheduler { batch, ..Scheduler::default() }
    }

    /// Queues a request behind those before it.
    pub fn submit(&mut self, request: Request) {
        let tokens = request.prompt.clone();
        let work = Work { request, tokens };
        if work.is_done() {
            self.finished.push(Event::Done { id: work.request.id, tokens: Vec::new() });
        } else {
            self.waiting.push_back(work);
        }
    }

    /// Forgets a request; one that is not there is ignored.
    pub fn cancel(&mut self, id: usize, engine: &mut dyn Engine) {
        self.waiting.retain(|work| work.request.id != id);
        self.running.retain(|running| {
            let keep = running.work.request.id != id;
            if !keep {
                engine.close(running.seq);
            }
            keep
        });
    }

    /// Whether no request is left, and no event either.
    pub fn is_idle(&self) -> bool {
        self.in_flight() == 0
    }

    /// Requests submitted whose end has not been told.
    pub fn in_flight(&self) -> usize {
        self.waiting.len() + self.running.len() + self.finished.len()
    }

    /// How much was computed until now.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Advances everything that can advance by one step of the engine.
    ///
    /// After an error the requests in flight are in an unknown state; the engine may be dropped.
    pub fn step(&mut self, engine: &mut dyn Engine) -> Result<Vec<Event>, ScheduleError> {
        let mut events = std::mem::take(&mut self.finished);
        self.admit(engine)?;
        while !self.running.is_empty() {
            let plan = self.plan(engine.limits().max_step_tokens);
            match engine.step(&self.chunks(&plan)) {
                Ok(outputs) => {
                    self.apply(&plan, outputs, engine, &mut events)?;
                    break;
                }
                Err(full @ EngineError::OutOfCache(_)) => self.preempt(full, engine)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(events)
    }

    /// Opens sequences for waiting requests while there is room.
    fn admit(&mut self, engine: &mut dyn Engine) -> Result<(), ScheduleError> {
        let limits = engine.limits();
        // A step has a token for each running request, or some would starve.
        let room = self.batch.min(limits.max_sequences).min(limits.max_step_tokens);
        while self.running.len() < room
            && let Some(work) = self.waiting.pop_front()
        {
            match engine.open(work.positions()) {
                Ok(seq) => self.running.push(Running { work, seq, consumed: 0 }),
                Err(full @ EngineError::OutOfCache(_)) if self.running.is_empty() => {
                    return Err(too_large(&work, full));
                }
                Err(EngineError::OutOfCache(_)) => {
                    self.waiting.push_front(work);
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// `(running index, tokens)` of the next step: decoding first, then prompts by age.
    fn plan(&self, budget: usize) -> Vec<(usize, usize)> {
        let (decode, prefill): (Vec<usize>, Vec<usize>) =
            (0..self.running.len()).partition(|&index| self.running[index].pending().len() == 1);
        let mut left = budget;
        let mut plan = Vec::new();
        for index in decode.into_iter().chain(prefill) {
            let count = self.running[index].pending().len().min(left);
            if count > 0 {
                plan.push((index, count));
                left -= count;
            }
        }
        plan
    }

    fn chunks(&self, plan: &[(usize, usize)]) -> Vec<Chunk<'_>> {
        let chunk = |&(index, count): &(usize, usize)| {
            let running = &self.running[index];
            let pending = running.pending();
            let want = if count == pending.len() {
                Want::Token(running.work.request.sampling)
            } else {
                Want::Nothing
            };
            Chunk { seq: running.seq, tokens: &pending[..count], want }
        };
        plan.iter().map(chunk).collect()
    }

    fn apply(
        &mut self,
        plan: &[(usize, usize)],
        outputs: Vec<Output>,
        engine: &mut dyn Engine,
        events: &mut Vec<Event>,
    ) -> Result<(), ScheduleError> {
        self.counts.steps += 1;
        for (&(index, count), output) in plan.iter().zip(outputs) {
            let running = &mut self.running[index];
            let decodes = running.consumed >= running.work.request.prompt.len() && count == 1;
            *(if decodes {
                &mut self.counts.decode_tokens
            } else {
                &mut self.counts.prefill_tokens
            }) += count as u64;
            running.consumed += count;
            let id = running.work.request.id;
            match output {
                Output::Token(token) => {
                    running.work.tokens.push(token);
                    events.push(Event::Token { id, token });
                }
                Output::Nothing => {}
                Output::Logits(_) => {
                    let message = format!("request {id}: logits came where a token was asked for");
                    return Err(EngineError::Device(message).into());
                }
            }
        }
        self.running.retain(|running| {
            let done = running.work.is_done();
            if done {
                engine.close(running.seq);
                let tokens = running.work.generated().to_vec();
                events.push(Event::Done { id: running.work.request.id, tokens });
            }
            !done
        });
        Ok(())
    }

    /// Takes the youngest request's place away.
    fn preempt(&mut self, full: EngineError, engine: &mut dyn Engine) -> Result<(), ScheduleError> {
        let Some(youngest) = self.running.pop() else { return Err(full.into()) };
        engine.close(youngest.seq);
        if self.running.is_empty() {
            return Err(too_large(&youngest.work, full));
        }
        self.counts.preemptions += 1;
        self.waiting.push_front(youngest.work);
        Ok(())
    }
}

fn too_large(work: &Work, source: EngineError) -> ScheduleError {
    ScheduleError::TooLarge { id: work.request.id, positions: work.positions(), source }
}

#[cfg(test)]
mod tests;
