//! What every engine does: advance a ragged batch of sequences by one step.
//!
//! A step is a list of chunks, one per sequence: a piece of prompt (prefill) or the token sampled
//! last (decode), mixed freely. The result for a sequence depends on neither its neighbours nor
//! the chunking: the same tokens give bit-identical logits however they are grouped.

/// Names a sequence inside one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId(pub u32);

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy: the largest logit, the lowest id among equals.
    pub temperature: f32,
    /// Nucleus mass, in (0, 1]; 1 keeps every token.
    pub top_p: f32,
    /// The most tokens that are kept, the likeliest; 0 keeps every token.
    pub top_k: u32,
    /// Least probability of a kept token as a share of the likeliest one's, in [0, 1); 0 keeps
    /// every token.
    pub min_p: f32,
    /// With the position it fixes the random number: the same seed gives the same text whatever
    /// the batch.
    pub seed: u64,
}

impl Sampling {
    /// The largest logit.
    pub const GREEDY: Sampling =
        Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 0 };
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling::GREEDY
    }
}

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

/// Consecutive tokens of one sequence; positions follow those the sequence already holds.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// The sequence; at most one chunk of it in a step.
    pub seq: SeqId,
    /// At least one token, each below `vocab_size`.
    pub tokens: &'a [u32],
    /// What to return.
    pub want: Want,
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

/// What one step can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sequences open at a time.
    pub max_sequences: usize,
    /// Tokens in one step, over all chunks.
    pub max_step_tokens: usize,
    /// Positions of one sequence.
    pub max_positions: usize,
}

/// Why an engine refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The caller broke the contract of [`Engine::step`]; nothing was computed.
    #[error("{0}")]
    Invalid(String),
    /// No room for another sequence or its next tokens; closing one makes room.
    #[error("out of KV cache: {0}")]
    OutOfCache(String),
    /// The device failed; the engine cannot go on.
    #[error("{0}")]
    Device(String),
}

/// A model on a device.
pub trait Engine: Send {
    /// Hyper-parameters of the model.
    fn config(&self) -> &shared::model::ModelConfig;

    /// What one step can take.
    fn limits(&self) -> Limits;

    /// One line for people: device, memory, threads.
    fn describe(&self) -> String;

    /// Opens a sequence that will hold at most `max_positions` tokens.
    fn open(&mut self, max_positions: usize) -> Result<SeqId, EngineError>;

    /// Forgets a sequence and frees its cache. An unknown one is ignored.
    fn close(&mut self, seq: SeqId);

    /// Advances each chunk's sequence, and answers in the order of the chunks.
    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Output>, EngineError>;
}
