use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::engine::Limits;
use crate::model::ModelConfig;
use crate::synth::Preset;

const STOP: u32 = 0;

/// An engine whose next token is a hash of everything its sequence holds, and whose cache is a
/// number of tokens.
struct Fake {
    config: ModelConfig,
    limits: Limits,
    cache: usize,
    next: u32,
    open: HashMap<SeqId, Vec<u32>>,
    /// Largest number of sequences that were open together.
    peak: usize,
}

impl Fake {
    fn new(limits: Limits, cache: usize) -> Fake {
        let config = Preset::Nano.config();
        Fake { config, limits, cache, next: 0, open: HashMap::new(), peak: 0 }
    }
}

fn next_token(held: &[u32], seed: u64) -> u32 {
    let hash = held.iter().fold(seed ^ 0x9e37_79b9, |hash, &token| {
        (hash ^ u64::from(token)).wrapping_mul(0x0100_0000_01b3).rotate_left(17)
    });
    (hash % 23) as u32
}

impl Engine for Fake {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn describe(&self) -> String {
        String::from("fake")
    }

    fn open(&mut self, max_positions: usize) -> Result<SeqId, EngineError> {
        if max_positions > self.limits.max_positions {
            return Err(EngineError::Invalid(format!("{max_positions} positions")));
        }
        if self.open.len() >= self.limits.max_sequences {
            return Err(EngineError::OutOfCache(String::from("no place")));
        }
        let seq = SeqId(self.next);
        self.next += 1;
        self.open.insert(seq, Vec::new());
        self.peak = self.peak.max(self.open.len());
        Ok(seq)
    }

    fn close(&mut self, seq: SeqId) {
        self.open.remove(&seq);
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Output>, EngineError> {
        let tokens: usize = chunks.iter().map(|chunk| chunk.tokens.len()).sum();
        assert!(
            tokens <= self.limits.max_step_tokens && chunks.iter().all(|c| !c.tokens.is_empty())
        );
        let held: usize = self.open.values().map(Vec::len).sum();
        if held + tokens > self.cache {
            return Err(EngineError::OutOfCache(format!("{} tokens", self.cache)));
        }
        let answer = |chunk: &Chunk<'_>| {
            let held = self.open.get_mut(&chunk.seq).expect("the sequence is open");
            held.extend(chunk.tokens);
            match chunk.want {
                Want::Token(sampling) => Output::Token(next_token(held, sampling.seed)),
                _ => Output::Nothing,
            }
        };
        Ok(chunks.iter().map(answer).collect())
    }
}

fn request(id: usize, prompt: Vec<u32>, max_tokens: usize) -> Request {
    let sampling = Sampling { seed: id as u64, ..Sampling::GREEDY };
    Request { id, prompt, max_tokens, sampling, stop: vec![STOP] }
}

/// What a request gives by itself, one token at a time.
fn alone(request: &Request) -> Vec<u32> {
    let mut held = request.prompt.clone();
    let mut out = Vec::new();
    while out.len() < request.max_tokens && out.last() != Some(&STOP) {
        let token = next_token(&held, request.sampling.seed);
        held.push(token);
        out.push(token);
    }
    out
}

fn run(
    scheduler: &mut Scheduler,
    engine: &mut Fake,
) -> Result<HashMap<usize, Vec<u32>>, ScheduleError> {
    let mut done = HashMap::new();
    let mut streamed: HashMap<usize, Vec<u32>> = HashMap::new();
    while !scheduler.is_idle() {
        for event in scheduler.step(engine)? {
            match event {
                Event::Token { id, token } => streamed.entry(id).or_default().push(token),
                Event::Done { id, tokens } => {
                    assert_eq!(streamed.remove(&id).unwrap_or_default(), tokens);
                    assert!(done.insert(id, tokens).is_none(), "request {id} finished twice");
                }
            }
        }
    }
    assert!(engine.open.is_empty(), "a sequence was left open");
    Ok(done)
}

fn limits(max_sequences: usize, max_step_tokens: usize) -> Limits {
    Limits { max_sequences, max_step_tokens, max_positions: 1 << 20 }
}

proptest! {
    #[test]
    fn batch_budget_and_cache_change_nothing(
        prompts in prop::collection::vec((prop::collection::vec(1u32..23, 1..20), 0usize..12), 1..20),
        batch in 1usize..9,
        sequences in 1usize..9,
        budget in 1usize..24,
        spare in 0usize..64,
    ) {
        // Enough for the largest request by itself.
        let largest = prompts.iter().map(|(p, n)| p.len() + n).max().unwrap_or(0);
        let mut engine = Fake::new(limits(sequences, budget), largest + spare);
        let mut scheduler = Scheduler::new(batch);
        let requests: Vec<Request> = prompts
            .into_iter()
            .enumerate()
            .map(|(id, (prompt, max))| request(id, prompt, max))
            .collect();
        requests.iter().cloned().for_each(|request| scheduler.submit(request));
        let done = run(&mut scheduler, &mut engine).unwrap();
        for request in &requests {
            prop_assert_eq!(&done[&request.id], &alone(request));
        }
        prop_assert!(engine.peak <= batch.min(sequences));
    }
}

#[test]
fn a_finished_place_is_taken_in_the_next_step() {
    let mut engine = Fake::new(limits(2, 64), 1 << 20);
    let mut scheduler = Scheduler::new(2);
    for id in 0..3 {
        scheduler
            .submit(Request { stop: vec![], ..request(id, vec![1], if id == 0 { 1 } else { 4 }) });
    }
    let first = scheduler.step(&mut engine).unwrap();
    assert!(first.iter().any(|event| matches!(event, Event::Done { id: 0, .. })));
    let second = scheduler.step(&mut engine).unwrap();
    assert!(second.iter().any(|event| matches!(event, Event::Token { id: 2, .. })));
}

#[test]
fn decoding_goes_before_a_long_prompt() {
    let mut engine = Fake::new(limits(4, 8), 1 << 20);
    let mut scheduler = Scheduler::new(4);
    scheduler.submit(Request { stop: vec![], ..request(0, vec![1; 100], 2) });
    scheduler.submit(Request { stop: vec![], ..request(1, vec![1], 3) });
    let mut order = Vec::new();
    while !scheduler.is_idle() {
        for event in scheduler.step(&mut engine).unwrap() {
            if let Event::Done { id, .. } = event {
                order.push(id);
            }
        }
    }
    assert_eq!(order, [1, 0]);
    assert_eq!(scheduler.counts().prefill_tokens, 101);
    assert_eq!(scheduler.counts().decode_tokens, 3);
}

#[test]
fn a_request_larger_than_the_cache_is_named() {
    let mut engine = Fake::new(limits(4, 64), 10);
    let mut scheduler = Scheduler::new(4);
    scheduler.submit(request(7, vec![1; 20], 5));
    let error = run(&mut scheduler, &mut engine).unwrap_err().to_string();
    assert!(error.contains("request 7") && error.contains("25 positions"), "{error}");
}

#[test]
fn a_cancelled_request_frees_its_sequence() {
    let mut engine = Fake::new(limits(1, 64), 100);
    let mut scheduler = Scheduler::new(1);
    scheduler.submit(Request { stop: vec![], ..request(0, vec![1], 50) });
    scheduler.submit(request(1, vec![1], 50));
    scheduler.step(&mut engine).unwrap();
    scheduler.cancel(0, &mut engine);
    scheduler.cancel(1, &mut engine);
    assert!(scheduler.is_idle() && engine.open.is_empty());
}
