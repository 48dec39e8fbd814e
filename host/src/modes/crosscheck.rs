//! Whether another engine would have chosen the same tokens.
//!
//! The other engine reads each request's prompt and the tokens that were chosen, so that one
//! different token does not make all later ones incomparable. A token agrees when its logit there
//! is the largest, or is short of it by no more than [`TOLERANCE`] of the row's root mean square.
//!
//! Not every token of a faithful engine agrees: where two experts nearly tie, rounding to bf16 may
//! choose the other one, which moves the whole row. One token in [`ONE_IN`] may therefore differ,
//! which is what the built-in model's rows do; of a wrong kernel's, nearly all differ.

use crate::engine::{ByHand, Engine, EngineError, Output, Piece, StepError, Want};
use crate::pages::SeqId;

/// How far the logit of a greedy token may fall short of the largest, over the root mean square of
/// the row: two logits, each off by the 2e-2 of the norm that `gptoss golden` allows bf16
/// activations, can change places at this distance.
pub const TOLERANCE: f64 = 4e-2;
/// One token among so many, rounded up, may be beyond the tolerance.
pub const ONE_IN: usize = 50;
/// Logits held at a time.
const MAX_LOGITS: usize = 1 << 22;

/// What a comparison found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crosscheck {
    /// Tokens compared.
    pub tokens: usize,
    /// Of those, the other engine's first choice.
    pub equal: usize,
    /// Others within the tolerance.
    pub close: usize,
    /// The first token beyond it: its request, and its place among the request's tokens.
    pub first_beyond: Option<(usize, usize)>,
}

impl Crosscheck {
    /// Tokens beyond the tolerance.
    pub fn beyond(&self) -> usize {
        self.tokens - self.equal - self.close
    }

    /// Tokens that may be beyond the tolerance.
    pub fn allowed(&self) -> usize {
        self.tokens.div_ceil(ONE_IN)
    }

    /// Whether enough tokens agree.
    pub fn passes(&self) -> bool {
        self.beyond() <= self.allowed()
    }

    /// Compares the greedy `tokens` that followed `prompt` in request `id` with the logits of
    /// `engine`.
    pub fn add(
        &mut self,
        engine: &mut ByHand<impl Engine>,
        id: usize,
        prompt: &[u32],
        tokens: &[u32],
    ) -> Result<(), StepError> {
        let Some((_, fed)) = tokens.split_last() else { return Ok(()) };
        let text = [prompt, fed].concat();
        let seq = engine.open();
        let compared = self.rows(engine, seq, id, &text, tokens);
        engine.close(seq);
        compared
    }

    fn rows(
        &mut self,
        engine: &mut ByHand<impl Engine>,
        seq: SeqId,
        id: usize,
        text: &[u32],
        tokens: &[u32],
    ) -> Result<(), StepError> {
        let vocab = engine.engine().config().vocab_size;
        let most = engine.engine().limits().max_step_tokens;
        let (before, rest) = text.split_at(text.len() - tokens.len());
        for tokens in before.chunks(most) {
            engine.step(&[Piece { seq, tokens, want: Want::Nothing }])?;
        }
        let most = most.min(MAX_LOGITS / vocab).max(1);
        let mut place = 0;
        for chunk in rest.chunks(most) {
            let outputs = engine.step(&[Piece { seq, tokens: chunk, want: Want::Logits }])?;
            let [Output::Logits(logits)] = outputs.as_slice() else {
                let why = "no logits came, though asked for".to_owned();
                return Err(EngineError::Invalid(why).into());
            };
            for row in logits.chunks_exact(vocab) {
                self.token(id, place, row, tokens[place]);
                place += 1;
            }
        }
        Ok(())
    }

    fn token(&mut self, id: usize, place: usize, row: &[f32], token: u32) {
        let squares: f64 = row.iter().map(|&x| f64::from(x).powi(2)).sum();
        let rms = (squares / row.len() as f64).sqrt();
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let short = f64::from(largest) - f64::from(row[token as usize]);
        self.tokens += 1;
        // A logit that is not finite agrees with nothing.
        if squares.is_finite() && short == 0.0 {
            self.equal += 1;
        } else if squares.is_finite() && short <= TOLERANCE * rms {
            self.close += 1;
        } else {
            self.first_beyond.get_or_insert((id, place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(row: &[f32], token: u32) -> Crosscheck {
        let mut found = Crosscheck::default();
        found.token(3, 4, row, token);
        found
    }

    #[test]
    fn a_token_is_judged_by_its_distance_from_the_largest() {
        // The root mean square is 1 within a percent.
        let row = |second: f32| [1.0, -1.0, second, -1.0];
        assert_eq!(of(&row(0.99), 0).equal, 1);
        assert_eq!(of(&row(1.0), 2).equal, 1, "equal logits");
        assert_eq!(of(&row(0.97), 2).close, 1);
        assert_eq!(of(&row(0.95), 2).first_beyond, Some((3, 4)));
        assert_eq!(of(&[0.0; 4], 1).equal, 1);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(of(&row(bad), 2).beyond(), 1, "{bad}");
        }
    }

    #[test]
    fn one_token_in_fifty_may_differ() {
        let found = |tokens, beyond| Crosscheck {
            tokens,
            equal: tokens - beyond,
            close: 0,
            first_beyond: None,
        };
        assert!(found(63, 2).passes() && !found(63, 3).passes());
        assert!(found(50, 1).passes() && !found(50, 2).passes());
    }

    /// The CPU engine in another rounding: its cache in bf16 instead of f32.
    #[test]
    fn tokens_of_an_engine_pass_and_others_fail() {
        use crate::cpu::{CpuEngine, CpuOptions, KvDtype};
        use crate::engine::Sampling;

        let weights = std::sync::Arc::new(crate::synth::nano());
        let open = |kv| {
            let options = CpuOptions { kv, max_sequences: 1, ..CpuOptions::default() };
            ByHand::new(CpuEngine::new(weights.clone(), options).unwrap())
        };
        let (mut rounded, mut reference) = (open(KvDtype::Bf16), open(KvDtype::F32));
        let prompt = [5, 188_246, 7];
        let (mut tokens, mut next) = (Vec::new(), prompt.to_vec());
        let seq = rounded.open();
        while tokens.len() < 20 {
            let want = Want::Token(Sampling::GREEDY);
            let outputs = rounded.step(&[Piece { seq, tokens: &next, want }]).unwrap();
            let [Output::Token(token)] = outputs[..] else { panic!("{outputs:?}") };
            tokens.push(token);
            next = vec![token];
        }
        let mut found = Crosscheck::default();
        found.add(&mut reference, 0, &prompt, &tokens).unwrap();
        assert_eq!(found.tokens, 20);
        assert!(found.passes(), "{found:?}");
        // The same tokens, each one place late.
        tokens.rotate_right(1);
        let mut found = Crosscheck::default();
        found.add(&mut reference, 0, &prompt, &tokens).unwrap();
        assert!(!found.passes(), "{found:?}");
    }
}
