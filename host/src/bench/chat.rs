//! `gptoss bench chat`: how long a conversation's next answer is waited for, beside a short prompt's
//! first token.
//!
//! Turn by turn as `run -m chat` does it: what was said is computed while the user types, so that a
//! message waits for its own tokens alone. Beside it stands the same prompt computed as a whole, as
//! it would be were nothing kept.

use std::fmt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::engine::{Engine, Sampling};
use crate::scheduler::{Event, Request, RequestError};
use crate::worker::{Worker, WorkerError, WorkerOptions};

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Tokens of the conversation before the last message.
    pub tokens: usize,
    /// Measurements of each kind.
    pub samples: usize,
}

/// Tokens of a short prompt: the frame of a conversation and a first message.
pub const SHORT: usize = 90;
/// Tokens of a message, its frame included.
pub const MESSAGE: usize = 20;

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum ChatBenchError {
    /// The worker does not start.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// A request failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The conversation is too long for the engine.
    #[error("{tokens} tokens and a message make {positions}, expected at most {most}")]
    TooLong {
        /// Tokens asked for.
        tokens: usize,
        /// Those of the longest text.
        positions: usize,
        /// Positions there are.
        most: usize,
    },
    /// The worker ended without an answer.
    #[error("the worker ended before the first token, expected an answer")]
    NoAnswer,
}

/// Times to the first token, in milliseconds: medians.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The engine.
    pub engine: String,
    /// Tokens of the conversation before the last message.
    pub tokens: usize,
    /// Measurements of each kind.
    pub samples: usize,
    /// A prompt of [`SHORT`] tokens, all computed.
    pub short_ms: f64,
    /// A message of [`MESSAGE`] tokens behind the conversation, which was kept.
    pub second_turn_ms: f64,
    /// The same prompt, all computed.
    pub without_reuse_ms: f64,
    /// `second_turn_ms / short_ms`.
    pub ratio: f64,
    /// `without_reuse_ms / short_ms`.
    pub ratio_without_reuse: f64,
}

/// Measures on one engine.
pub fn run(engine: Box<dyn Engine>, options: Options) -> Result<Report, ChatBenchError> {
    let limits = engine.limits();
    let most = limits.max_positions.min(limits.pages.max_positions());
    // Conversations differ in length by up to a page, so that every place in one is met.
    let positions = options.tokens + PAGE + MESSAGE + 1;
    if positions > most {
        return Err(ChatBenchError::TooLong { tokens: options.tokens, positions, most });
    }
    let vocabulary = engine.config().vocab_size;
    let worker = Worker::start(vec![engine], WorkerOptions { batch: 1, reuse: true })?;
    let mut texts = Texts { vocabulary, next: 0 };
    let (mut short, mut second, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    // The first round warms up.
    for round in 0..=options.samples {
        let length = options.tokens + round * PAGE / (options.samples + 1);
        let times = [
            first_token(&worker, texts.new_text(SHORT))?,
            second_turn(&worker, &mut texts, length)?,
            first_token(&worker, texts.new_text(length + MESSAGE))?,
        ];
        if round > 0 {
            [&mut short, &mut second, &mut whole].into_iter().zip(times).for_each(|(all, time)| {
                all.push(time);
            });
        }
    }
    let [short_ms, second_turn_ms, without_reuse_ms] = [short, second, whole].map(median_ms);
    Ok(Report {
        engine: worker.describe().to_owned(),
        tokens: options.tokens,
        samples: options.samples,
        short_ms,
        second_turn_ms,
        without_reuse_ms,
        ratio: second_turn_ms / short_ms,
        ratio_without_reuse: without_reuse_ms / short_ms,
    })
}

const PAGE: usize = shared::kv::PAGE;

/// Texts of which no two begin alike.
struct Texts {
    vocabulary: usize,
    next: usize,
}

impl Texts {
    fn new_text(&mut self, tokens: usize) -> Vec<u32> {
        self.next += 1;
        (0..tokens).map(|i| ((self.next * 7919 + i * 104_729) % self.vocabulary) as u32).collect()
    }
}

/// Time of the first token of a message behind a conversation of `length` tokens that was prepared.
fn second_turn(
    worker: &Worker,
    texts: &mut Texts,
    length: usize,
) -> Result<Duration, ChatBenchError> {
    let mut conversation = texts.new_text(length);
    ask(worker, conversation.clone(), true)?;
    conversation.extend(texts.new_text(MESSAGE));
    first_token(worker, conversation)
}

fn first_token(worker: &Worker, prompt: Vec<u32>) -> Result<Duration, ChatBenchError> {
    ask(worker, prompt, false)
}

/// Time to the first token, or to the end of what is only computed; either way nothing is under way
/// afterwards.
fn ask(worker: &Worker, prompt: Vec<u32>, prefill_only: bool) -> Result<Duration, ChatBenchError> {
    let (sender, events) = mpsc::channel();
    let request = Request {
        id: 0,
        prompt,
        max_tokens: usize::from(!prefill_only),
        sampling: Sampling::GREEDY,
        stop: Vec::new(),
        prefill_only,
    };
    let start = Instant::now();
    let _handle = worker.submit(request, &sender, None);
    drop(sender);
    let mut first = None;
    for event in events {
        match event {
            Event::Token { .. } => first = Some(start.elapsed()),
            Event::Done { .. } => {
                let end = prefill_only.then(|| start.elapsed());
                return first.or(end).ok_or(ChatBenchError::NoAnswer);
            }
            Event::Failed { error, .. } => return Err(error.into()),
            Event::Started { .. } | Event::Prefill { .. } => {}
        }
    }
    Err(ChatBenchError::NoAnswer)
}

fn median_ms(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "engine         {}", self.engine)?;
        writeln!(f, "short prompt   {:.2} ms to the first token ({SHORT} tokens)", self.short_ms)?;
        let (tokens, ms, ratio) = (self.tokens, self.second_turn_ms, self.ratio);
        writeln!(
            f,
            "second turn    {ms:.2} ms ({MESSAGE} tokens behind {tokens}): {ratio:.2} times"
        )?;
        let (ms, ratio) = (self.without_reuse_ms, self.ratio_without_reuse);
        writeln!(f, "without reuse  {ms:.2} ms: {ratio:.2} times")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{CpuEngine, CpuOptions};
    use crate::synth;
    use std::sync::Arc;

    fn engine() -> Box<dyn Engine> {
        let options = CpuOptions {
            threads: 1,
            max_positions: 512,
            max_sequences: 1,
            ..CpuOptions::default()
        };
        Box::new(CpuEngine::new(Arc::new(synth::nano()), options).unwrap())
    }

    /// What is kept is not computed again: this counts tokens, where the benchmark takes times.
    #[test]
    fn a_second_turn_computes_its_own_tokens_alone() {
        let worker =
            Worker::start(vec![engine()], WorkerOptions { batch: 1, reuse: true }).unwrap();
        let mut texts = Texts { vocabulary: 500, next: 0 };
        second_turn(&worker, &mut texts, 330).unwrap();
        // Five whole pages are there: 320 of 350 tokens.
        assert_eq!(worker.counts().reused_tokens, 320);
        first_token(&worker, texts.new_text(SHORT)).unwrap();
        assert_eq!(worker.counts().reused_tokens, 320, "no two texts begin alike");
    }

    #[test]
    fn a_conversation_beyond_the_engine_is_refused() {
        let options = Options { tokens: 500, samples: 1 };
        let error = run(engine(), options).unwrap_err();
        assert_eq!(error.to_string(), "500 tokens and a message make 585, expected at most 512");
    }
}
