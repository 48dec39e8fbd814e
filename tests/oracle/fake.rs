//! An engine whose model is a hash: what it answers depends on every token that its pages hold.

use std::collections::VecDeque;
use std::time::Duration;

use gptoss::engine::{
    self, Before, Chunk, ChunkError, Engine, EngineError, Limits, Outcome, Output, Sampling,
    Ticket, Tokens, Want,
};
use gptoss::model::ModelConfig;
use gptoss::pages::Geometry;
use shared::kv::PAGE;

use crate::model::BASE;

/// A chunk with this token fails, as a model does whose values leave the range.
pub const BREAKS: u32 = BASE.vocab_size as u32 - 1;

/// The engine. Its layers are one that sees everything and one with a window; a page of either
/// holds the tokens of its positions.
pub struct Fake {
    config: ModelConfig,
    limits: Limits,
    pages: [Vec<[u32; PAGE]>; 2],
    before: Before,
    chosen: Vec<Option<u32>>,
    answers: VecDeque<(u64, Vec<Outcome>)>,
    steps: u64,
    lost_at: Option<u64>,
    step_time: Duration,
}

/// The token after `text`.
pub fn next_token(text: &[u32], sampling: &Sampling) -> u32 {
    let start = sampling.seed ^ 0x9e37_79b9_7f4a_7c15;
    let hash = text.iter().fold(start, |hash, &token| {
        (hash ^ u64::from(token)).wrapping_mul(0x0100_0000_01b3).rotate_left(17)
    });
    (hash % u64::from(BREAKS)) as u32
}

impl Fake {
    /// An engine of these limits.
    pub fn new(limits: Limits) -> Fake {
        let pages = [limits.pages.full, limits.pages.windowed].map(|n| vec![[u32::MAX; PAGE]; n]);
        let config = ModelConfig { sliding_window: limits.pages.window, ..BASE };
        Fake {
            config,
            limits,
            pages,
            before: Before::default(),
            chosen: Vec::new(),
            answers: VecDeque::new(),
            steps: 0,
            lost_at: None,
            step_time: Duration::ZERO,
        }
    }

    /// The device is lost in this step, counted from 1.
    pub fn lost_at(self, step: u64) -> Fake {
        Fake { lost_at: Some(step), ..self }
    }

    /// Every step takes so long.
    pub fn slow(self, step_time: Duration) -> Fake {
        Fake { step_time, ..self }
    }

    /// Writes a chunk's tokens to its pages and answers from what the pages hold.
    fn answer(&mut self, chunk: &Chunk<'_>) -> Outcome {
        let tokens = match chunk.tokens {
            Tokens::Known(tokens) => tokens.to_vec(),
            Tokens::Chosen(index) => vec![self.chosen[index].ok_or_else(broken)?],
        };
        let classes = chunk.pages.classes();
        for (position, &token) in (chunk.start()..).zip(&tokens) {
            for (class, table) in classes.into_iter().enumerate() {
                self.pages[class][table[position / PAGE] as usize][position % PAGE] = token;
            }
        }
        let at = |class: usize, position: usize| {
            self.pages[class][classes[class][position / PAGE] as usize][position % PAGE]
        };
        let text: Vec<u32> = (0..chunk.pages.len()).map(|position| at(0, position)).collect();
        let first = (chunk.start() + 1).saturating_sub(self.limits.pages.window);
        for (position, &token) in text.iter().enumerate().skip(first) {
            assert_eq!(
                at(1, position),
                token,
                "the window's page does not hold position {position}"
            );
        }
        if tokens.contains(&BREAKS) {
            return Err(broken());
        }
        Ok(match chunk.want {
            Want::Nothing => Output::Nothing,
            Want::Token(sampling) => Output::Token(next_token(&text, &sampling)),
            Want::Logits => Output::Logits(vec![0.0; tokens.len() * self.config.vocab_size]),
        })
    }
}

fn broken() -> ChunkError {
    ChunkError::NotFinite("a token that breaks".to_owned())
}

impl Engine for Fake {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn describe(&self) -> String {
        "a hash".to_owned()
    }

    fn submit(&mut self, chunks: &[Chunk<'_>]) -> Result<Ticket, EngineError> {
        if self.answers.len() == self.limits.max_in_flight {
            return Err(EngineError::Invalid("too many steps under way".to_owned()));
        }
        let invalid = engine::check(chunks, &self.config, &self.limits, &self.before)?;
        self.steps += 1;
        if self.lost_at == Some(self.steps) {
            return Err(EngineError::DeviceLost("it fell off the bus".to_owned()));
        }
        let answers: Vec<Outcome> = chunks
            .iter()
            .zip(invalid)
            .map(|(chunk, invalid)| invalid.map_or_else(|| self.answer(chunk), Err))
            .collect();
        let token = |answer: &Outcome| match answer {
            Ok(Output::Token(token)) => Some(*token),
            _ => None,
        };
        self.chosen = answers.iter().map(token).collect();
        self.before = Before::of(chunks);
        self.answers.push_back((self.steps, answers));
        Ok(Ticket::new(self.steps))
    }

    fn wait(&mut self, ticket: Ticket) -> Result<Vec<Outcome>, EngineError> {
        std::thread::sleep(self.step_time);
        match self.answers.pop_front() {
            Some((step, answers)) if step == ticket.number() => Ok(answers),
            _ => Err(EngineError::Invalid(format!("step {} is not the oldest", ticket.number()))),
        }
    }
}

/// Limits with room for `sequences` of `positions`.
pub fn limits(sequences: usize, step_tokens: usize, positions: usize, in_flight: usize) -> Limits {
    const WINDOW: usize = 100;
    Limits {
        max_chunks: sequences,
        max_step_tokens: step_tokens,
        max_positions: 1 << 20,
        max_in_flight: in_flight,
        pages: Geometry::worst_case(sequences, positions, step_tokens * in_flight, WINDOW),
    }
}
