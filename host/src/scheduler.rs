//! Continuous batching: many requests advance together, and a finished one's place is taken in
//! the very next step.
//!
//! Every request holds the tokens known so far (prompt, then what was generated) and how many of
//! them are computed or about to be. A step feeds each running request what it lacks: one token when
//! decoding, a chunk of prompt otherwise, until the step is full; decoding goes first, so that a
//! long prompt delays nobody, and prompts go by age. A decoding request whose last token has not
//! been read yet goes on with whatever that token will be.
//!
//! Requests are admitted in order, while there are pages for their text and one more for everyone
//! that runs. When pages run out all the same, the youngest request gives its place up and computes
//! its tokens again later: engines promise the same bits however tokens are grouped, so its text
//! does not change.
//!
//! Nothing here touches an engine. [`Scheduler::plan`] lays a step out, [`Scheduler::chunks`] is
//! what to submit, [`Scheduler::complete`] takes the answers, oldest step first.

mod work;

use std::collections::VecDeque;
use std::ops::AddAssign;

use shared::kv::PAGE;

use crate::engine::{Chunk, ChunkError, EngineError, Limits, Outcome, Output, Tokens, Want};
use crate::pages::{Pages, SeqId};
pub use work::{Event, Finish, Request, RequestError};
use work::{Running, Work};

/// A limit that leaves nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is 0, expected at least 1")]
pub struct ZeroLimit(&'static str);

/// How much was computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Steps of the engine.
    pub steps: u64,
    /// Tokens consumed in chunks of prompt, those consumed again after a preemption included.
    pub prefill_tokens: u64,
    /// Tokens consumed one by one after they were sampled.
    pub decode_tokens: u64,
    /// Tokens of prompts whose keys and values were there already.
    pub reused_tokens: u64,
    /// Times a request lost its place because the cache was full.
    pub preemptions: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.steps += other.steps;
        self.prefill_tokens += other.prefill_tokens;
        self.decode_tokens += other.decode_tokens;
        self.reused_tokens += other.reused_tokens;
        self.preemptions += other.preemptions;
    }
}

/// One chunk of a step that was laid out.
#[derive(Clone, Copy, Debug)]
struct Entry {
    seq: SeqId,
    /// Where the request was among the running ones.
    hint: usize,
    /// First token of the request's text.
    start: usize,
    count: usize,
    /// The chunk of the step before that chooses the token.
    chosen: Option<usize>,
    /// Whether a token is wanted.
    asks: bool,
}

/// The requests in flight.
#[derive(Debug)]
pub struct Scheduler {
    /// Requests that run together at most.
    batch: usize,
    limits: Limits,
    pages: Pages,
    waiting: VecDeque<Work>,
    /// Oldest first.
    running: Vec<Running>,
    events: Vec<Event>,
    /// Steps laid out and not completed, oldest first.
    flights: VecDeque<Vec<Entry>>,
    /// Steps laid out so far.
    planned: u64,
    /// [`Pages::releases`] when nothing more could be admitted.
    blocked_at: Option<u64>,
    counts: Counts,
}

impl Scheduler {
    /// Runs at most `batch` requests together on an engine of these limits. With `reuse`, texts that
    /// begin alike are computed once.
    pub fn new(batch: usize, limits: Limits, reuse: bool) -> Result<Scheduler, ZeroLimit> {
        for (name, value) in [
            ("batch", batch),
            ("max_chunks", limits.max_chunks),
            ("max_step_tokens", limits.max_step_tokens),
            ("max_in_flight", limits.max_in_flight),
        ] {
            if value == 0 {
                return Err(ZeroLimit(name));
            }
        }
        // A step has a token for each running request, or some would starve.
        let batch = batch.min(limits.max_chunks).min(limits.max_step_tokens);
        Ok(Scheduler {
            batch,
            limits,
            pages: Pages::new(limits.pages, reuse),
            waiting: VecDeque::new(),
            running: Vec::new(),
            events: Vec::new(),
            flights: VecDeque::new(),
            planned: 0,
            blocked_at: None,
            counts: Counts::default(),
        })
    }

    /// Requests that run together at most.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Queues a request behind those before it. What can never run fails at once.
    pub fn submit(&mut self, request: Request) {
        self.submit_work(Work::new(request));
    }

    /// As [`Scheduler::submit`], with tokens that were generated elsewhere.
    pub fn resume(&mut self, request: Request, generated: &[u32]) {
        let mut work = Work::new(request);
        work.tokens.extend_from_slice(generated);
        work.is_announced = true;
        self.submit_work(work);
    }

    fn submit_work(&mut self, work: Work) {
        if let Err(error) = work.request.check(&self.limits) {
            self.events.push(Event::Failed { id: work.request.id, error });
        } else if let Some(finish) = work.finish() {
            self.events.push(work.done(finish));
        } else {
            self.waiting.push_back(work);
        }
        self.blocked_at = None;
    }

    /// Ends a request where it is; its pages are free at once. One that is not there is ignored.
    pub fn cancel(&mut self, id: usize) {
        self.end(id, Finish::Cancelled);
    }

    /// Ends a request as if its last token were a stop token. One that is not there is ignored.
    pub fn stop(&mut self, id: usize) {
        self.end(id, Finish::Stop);
    }

    fn end(&mut self, id: usize, finish: Finish) {
        if let Some(at) = self.waiting.iter().position(|work| work.request.id == id)
            && let Some(work) = self.waiting.remove(at)
        {
            self.events.push(work.done(finish));
        }
        if let Some(at) = self.running.iter().position(|r| r.work.request.id == id) {
            let Running { work, seq, .. } = self.running.remove(at);
            self.pages.close(seq);
            self.events.push(work.done(finish));
        }
    }

    /// Takes every request away, with the tokens it has generated: for another engine.
    pub fn take_all(&mut self) -> Vec<(Request, Vec<u32>)> {
        self.running.iter().for_each(|running| self.pages.close(running.seq));
        let running = std::mem::take(&mut self.running).into_iter().map(|running| running.work);
        let all = running.chain(std::mem::take(&mut self.waiting));
        all.map(|work| {
            let generated = work.generated().to_vec();
            (work.request, generated)
        })
        .collect()
    }

    /// Whether no request is left, and no event either.
    pub fn is_idle(&self) -> bool {
        self.in_flight() == 0 && self.events.is_empty()
    }

    /// Requests that wait or run.
    pub fn in_flight(&self) -> usize {
        self.waiting.len() + self.running.len()
    }

    /// How much was computed until now.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How much was computed since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// The pages, and who holds them.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// What happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Lays out the next step, with everything that can advance; false when nothing can before the
    /// answers of an earlier step are here.
    pub fn plan(&mut self) -> bool {
        self.admit();
        let mut entries = Vec::new();
        let mut left = self.limits.max_step_tokens;
        let mut given_up = Vec::new();
        let ready: Vec<_> = (0..self.running.len()).map(|index| self.ready(index)).collect();
        let (decode, prefill): (Vec<usize>, Vec<usize>) =
            (0..ready.len()).partition(|&index| ready[index].0 <= 1);
        for index in decode.into_iter().chain(prefill) {
            if given_up.contains(&index) {
                continue;
            }
            let (tokens, chosen) = ready[index];
            let mut count = tokens.min(left);
            let seq = self.running[index].seq;
            // A step under way may give pages back: nobody loses a place before that is known.
            while count > 0 && self.pages.room(seq) == 0 && self.flights.is_empty() {
                let planned = |r: usize| entries.iter().any(|entry: &Entry| entry.hint == r);
                let others = |&r: &usize| !given_up.contains(&r) && !planned(r);
                let Some(youngest) = (0..self.running.len()).rev().find(others) else { break };
                self.pages.close(self.running[youngest].seq);
                given_up.push(youngest);
                if youngest == index {
                    count = 0;
                }
            }
            if count == 0 {
                continue;
            }
            count = count.min(self.pages.room(seq));
            if count == 0 || self.pages.extend(seq, count).is_err() {
                continue;
            }
            left -= count;
            let chunk = entries.len();
            entries.push(self.entry(index, count, chosen, chunk));
        }
        self.preempt(given_up, &mut entries);
        if entries.is_empty() {
            return false;
        }
        self.flights.push_back(entries);
        self.planned += 1;
        self.counts.steps += 1;
        true
    }

    /// Tokens that a running request can be fed now, and the chunk of the step before that chooses
    /// the only one, where it is not known yet.
    fn ready(&self, index: usize) -> (usize, Option<usize>) {
        let running = &self.running[index];
        let known = running.work.tokens.len();
        if running.fed < known {
            return (known - running.fed, None);
        }
        let Some((step, chunk)) = running.asked else { return (0, None) };
        let unread = running.fed + 1 - known;
        let more = running.work.generated().len() + unread < running.work.request.max_tokens;
        // Only the step before can hand its token on.
        if more && step + 1 == self.planned && !self.flights.is_empty() {
            (1, Some(chunk))
        } else {
            (0, None)
        }
    }

    /// Counts a chunk that has its pages as fed.
    fn entry(&mut self, index: usize, count: usize, chosen: Option<usize>, chunk: usize) -> Entry {
        let step = self.planned;
        let running = &mut self.running[index];
        let start = running.fed;
        running.fed += count;
        let all = running.fed >= running.work.tokens.len();
        let asks = all && !running.work.request.prefill_only;
        running.asked = asks.then_some((step, chunk));
        Entry { seq: running.seq, hint: index, start, count, chosen, asks }
    }

    /// Puts requests whose pages were taken back to the head of the queue.
    fn preempt(&mut self, mut given_up: Vec<usize>, entries: &mut [Entry]) {
        // From the last on: the indices before stay, and the oldest ends up in front.
        given_up.sort_unstable_by(|a, b| b.cmp(a));
        for index in given_up {
            let running = self.running.remove(index);
            self.waiting.push_front(running.work);
            self.counts.preemptions += 1;
            entries.iter_mut().filter(|e| e.hint > index).for_each(|entry| entry.hint -= 1);
        }
    }

    /// The step that [`Scheduler::plan`] has just laid out.
    pub fn chunks(&self) -> Vec<Chunk<'_>> {
        let chunk = |entry: &Entry| {
            let work = &self.running[entry.hint].work;
            let tokens = match entry.chosen {
                Some(chunk) => Tokens::Chosen(chunk),
                None => Tokens::Known(&work.tokens[entry.start..entry.start + entry.count]),
            };
            let want = if entry.asks { Want::Token(work.request.sampling) } else { Want::Nothing };
            Chunk { tokens, pages: self.pages.table(entry.seq), want }
        };
        self.flights.back().into_iter().flatten().map(chunk).collect()
    }

    /// Takes the answers of the oldest step.
    pub fn complete(&mut self, outcomes: Vec<Outcome>) -> Result<(), EngineError> {
        let entries = self.flights.pop_front().unwrap_or_default();
        if entries.len() != outcomes.len() {
            let (found, expected) = (outcomes.len(), entries.len());
            let why = format!("{found} answers to a step of {expected} chunks");
            return Err(EngineError::Invalid(why));
        }
        for (entry, outcome) in entries.into_iter().zip(outcomes) {
            // Whoever was cancelled, preempted or is finished has another sequence, or none.
            let is = |running: &Running| running.seq == entry.seq;
            let at = match self.running.get(entry.hint).is_some_and(is) {
                true => Some(entry.hint),
                false => self.running.iter().position(is),
            };
            let Some(at) = at else { continue };
            match outcome {
                Ok(output) => self.advance(at, entry, output),
                Err(error) => self.fail(at, error.into()),
            }
        }
        Ok(())
    }

    /// Books what a chunk brought.
    fn advance(&mut self, at: usize, entry: Entry, output: Output) {
        let running = &mut self.running[at];
        let (id, start, count) = (running.work.request.id, entry.start, entry.count);
        let decodes = start >= running.work.request.prompt.len() && count == 1;
        let kind = match decodes {
            true => &mut self.counts.decode_tokens,
            false => &mut self.counts.prefill_tokens,
        };
        *kind += count as u64;
        self.pages.confirm(running.seq, &running.work.tokens[start..start + count]);
        match (output, entry.asks) {
            (Output::Token(token), true) => {
                running.work.tokens.push(token);
                self.events.push(Event::Token { id, token });
            }
            (Output::Nothing, false) => {
                let (done, total) = (start + count, running.work.tokens.len());
                running.is_prefilled = done >= total;
                self.events.push(Event::Prefill { id, done, total });
            }
            (other, _) => {
                let error = RequestError::Unexpected(format!("{other:.40?}"));
                return self.fail(at, error);
            }
        }
        let finish = match running.is_prefilled && running.work.request.prefill_only {
            true => Some(Finish::Length),
            false => running.work.finish(),
        };
        if let Some(finish) = finish {
            let Running { work, seq, .. } = self.running.remove(at);
            self.pages.close(seq);
            self.events.push(work.done(finish));
        }
    }

    fn fail(&mut self, at: usize, error: RequestError) {
        let Running { work, seq, .. } = self.running.remove(at);
        self.pages.close(seq);
        self.events.push(Event::Failed { id: work.request.id, error });
    }

    /// Opens sequences for waiting requests while there is room.
    fn admit(&mut self) {
        while self.running.len() < self.batch && !self.waiting.is_empty() {
            if !self.running.is_empty() && self.blocked_at == Some(self.pages.releases()) {
                return;
            }
            let Some(mut work) = self.waiting.pop_front() else { return };
            let seq = self.pages.open(&work.tokens);
            let reused = self.pages.table(seq).len();
            if !self.running.is_empty() && !self.fits(seq, work.tokens.len() - reused) {
                self.pages.close(seq);
                self.waiting.push_front(work);
                self.blocked_at = Some(self.pages.releases());
                return;
            }
            self.counts.reused_tokens += reused as u64;
            if !work.is_announced {
                work.is_announced = true;
                self.events.push(Event::Started { id: work.request.id, reused });
            }
            let running = Running { work, seq, fed: reused, asked: None, is_prefilled: false };
            self.running.push(running);
        }
    }

    /// Whether there are pages for `tokens` more of a sequence, and one for each that runs.
    fn fits(&self, seq: SeqId, tokens: usize) -> bool {
        let ahead = self.running.iter().map(|running| {
            let held = self.pages.table(running.seq).len().div_ceil(PAGE);
            let Request { prompt, max_tokens, .. } = &running.work.request;
            let known = running.work.tokens.len().div_ceil(PAGE);
            (known + 1).min((prompt.len() + max_tokens).div_ceil(PAGE)).saturating_sub(held)
        });
        let promised = ahead.sum::<usize>();
        let [full, windowed] = self.pages.needed(seq, tokens.max(1));
        let [free, free_windowed] = self.pages.free();
        // A windowed layer never holds more than its window and what a step adds.
        let step = self.limits.max_step_tokens.div_ceil(PAGE) + 1;
        full + promised <= free && windowed.min(step) <= free_windowed
    }
}

impl From<ChunkError> for RequestError {
    fn from(error: ChunkError) -> RequestError {
        match error {
            ChunkError::Invalid(why) => RequestError::Invalid(why),
            ChunkError::NotFinite(why) => RequestError::NotFinite(why),
        }
    }
}
