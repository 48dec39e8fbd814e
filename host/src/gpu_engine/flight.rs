//! A step under way: what it reads and writes on the host, and what to answer when it is done.

use shared::kernels::rows::NOT_FINITE;
use shared::model::ModelConfig;

use super::plan::{Plan, Span};
use super::{GpuOptions, arena};
use crate::engine::{Chunk, ChunkError, Outcome, Output, Want};
use crate::gpu::{Device, Event, GpuError, PinnedBuffer};

/// A place for one step under way.
pub struct Flight {
    /// The step's indices; not changed before the step is done.
    pub plan: Plan,
    /// Where the chosen tokens arrive.
    pub chosen: PinnedBuffer<u32>,
    /// Marks the step's end on the stream.
    pub done: Event,
    /// What was asked, while the step is under way.
    pub asked: Option<Asked>,
}

/// What was asked of a step.
pub struct Asked {
    /// Number of the step.
    pub step: u64,
    /// Of its chunks.
    pub questions: Vec<Question>,
    /// `[rows, vocab]` of the outputs behind the chosen ones.
    pub logits: Vec<f32>,
}

/// What was asked of a chunk.
pub struct Question {
    seq: u64,
    len: usize,
    want: Want,
    /// Its outputs, or why it is no part of the step.
    outputs: Result<Span, ChunkError>,
}

impl Flight {
    /// Room for the largest step.
    pub fn new(
        device: &Device,
        config: &ModelConfig,
        options: &GpuOptions,
    ) -> Result<Flight, GpuError> {
        Ok(Flight {
            plan: Plan::new(device, config, options)?,
            chosen: PinnedBuffer::new(device, arena::choices(options))?,
            done: Event::new(device)?,
            asked: None,
        })
    }

    /// The questions of `chunks`; those that `failed` says are no part of the plan.
    pub fn questions(
        &self,
        chunks: &[Chunk<'_>],
        failed: Vec<Option<ChunkError>>,
    ) -> Vec<Question> {
        let mut planned = self.plan.wanted.iter();
        let question = |(chunk, failed): (&Chunk<'_>, Option<ChunkError>)| Question {
            seq: chunk.pages.seq().0,
            len: chunk.pages.len(),
            want: chunk.want,
            outputs: match failed {
                Some(failed) => Err(failed),
                None => Ok(planned.next().cloned().unwrap_or(0..0)),
            },
        };
        chunks.iter().zip(failed).map(question).collect()
    }

    /// Whether a chunk's token stands among the chosen ones, and where.
    pub fn choices(questions: &[Question]) -> Vec<Option<usize>> {
        let choice = |question: &Question| match (&question.want, &question.outputs) {
            (Want::Token(_), Ok(outputs)) => Some(outputs.start),
            _ => None,
        };
        questions.iter().map(choice).collect()
    }

    /// The answers, once the step is done.
    pub fn answer(&self, asked: Asked, vocab: usize) -> Vec<Outcome> {
        let Asked { questions, logits, .. } = asked;
        let first = self.plan.choices;
        questions.into_iter().map(|q| q.answer(&self.chosen, &logits, first, vocab)).collect()
    }
}

impl Question {
    fn answer(self, chosen: &[u32], logits: &[f32], choices: usize, vocab: usize) -> Outcome {
        let outputs = self.outputs?;
        let (seq, len) = (self.seq, self.len);
        let broken = || {
            let why = format!("after {len} tokens of sequence {seq}: the logits are not finite");
            ChunkError::NotFinite(why)
        };
        match self.want {
            Want::Nothing => Ok(Output::Nothing),
            Want::Token(_) => match chosen[outputs.start] {
                NOT_FINITE => Err(broken()),
                token => Ok(Output::Token(token)),
            },
            Want::Logits => {
                let first = (outputs.start - choices) * vocab;
                let logits = &logits[first..][..outputs.len() * vocab];
                if logits.iter().all(|logit| logit.is_finite()) {
                    Ok(Output::Logits(logits.to_vec()))
                } else {
                    Err(broken())
                }
            }
        }
    }
}
