use std::sync::Arc;

use gptoss::cpu::{CpuEngine, CpuOptions};
use gptoss::engine::{
    ByHand, Chunk, ChunkError, Engine, EngineError, Outcome, Output, Piece, Sampling, StepError,
    Tokens, Want,
};
use gptoss::gpu_engine::{GpuEngine, GpuOptions};
use gptoss::kv_budget::KvBudget;
use gptoss::model::{Dtype, Weights};
use gptoss::pages::{Geometry, Pages, SeqId};
use gptoss::scheduler::{Event, Finish, Request, Scheduler};
use oracle::fake::{BREAKS, Fake, limits};
use oracle::model::{BASE, ExpertFormat, broken_at, random, tokens};

use crate::gpu::{devices, kernels_folder};

/// What an engine is made for.
#[derive(Clone, Copy)]
struct Size {
    sequences: usize,
    step_tokens: usize,
    full: usize,
    windowed: usize,
    /// Whether [`BREAKS`] breaks it; a text it generates could hold that token.
    breaks: bool,
}

const ROOMY: Size = Size { sequences: 8, step_tokens: 256, full: 64, windowed: 64, breaks: false };

type Make = fn(Size) -> Box<dyn Engine>;

/// A small model whose windowed layers see 70 positions: two pages and a bit.
fn weights(breaks: bool) -> Arc<Weights> {
    let config = gptoss::model::ModelConfig { sliding_window: 70, ..BASE };
    let weights = random(&config, Dtype::Bf16, ExpertFormat::Mxfp4, 21);
    Arc::new(if breaks { broken_at(weights, BREAKS) } else { weights })
}

fn cpu(size: Size) -> Box<dyn Engine> {
    let options = CpuOptions {
        threads: 1,
        max_sequences: size.sequences,
        max_positions: 1024,
        max_step_tokens: size.step_tokens,
        budget: KvBudget::Pages(size.full, size.windowed),
        ..CpuOptions::default()
    };
    Box::new(CpuEngine::new(weights(size.breaks), options).expect("the model can be run"))
}

fn gpu(size: Size) -> Box<dyn Engine> {
    let options = GpuOptions {
        max_sequences: size.sequences,
        max_positions: 1024,
        max_step_tokens: size.step_tokens,
        budget: KvBudget::Pages(size.full, size.windowed),
        kernels: Some(kernels_folder()),
        ..GpuOptions::default()
    };
    let engine = GpuEngine::new(&devices()[0], &weights(size.breaks), options, |_, _| {});
    Box::new(engine.unwrap_or_else(|e| panic!("{e}")))
}

fn fake(size: Size) -> Box<dyn Engine> {
    let pages = Geometry { full: size.full, windowed: size.windowed, window: 70 };
    let limits = limits(size.sequences, size.step_tokens, 64, 2);
    Box::new(Fake::new(gptoss::engine::Limits { pages, max_positions: 1024, ..limits }))
}

/// Runs every case on every engine.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        mod cpu_engine { $(#[test] fn $case() { super::$case(super::cpu); })* }
        mod gpu_engine { $(#[test] fn $case() { super::$case(super::gpu); })* }
        mod fake_engine { $(#[test] fn $case() { super::$case(super::fake); })* }
    };
}

cases! {
    answers_come_in_the_order_of_chunks_by_what_was_wanted,
    neither_chunks_nor_neighbours_change_a_token,
    a_token_need_not_be_read_before_it_is_fed,
    a_chunk_that_breaks_the_contract_fails_alone,
    a_chunk_whose_values_leave_the_range_fails_alone,
    a_token_that_failed_fails_the_chunk_that_takes_it,
    a_step_that_is_too_large_is_refused_and_the_engine_goes_on,
    no_more_steps_are_under_way_than_the_limit_says,
    a_ticket_is_waited_for_once,
    windowed_pages_are_given_back_and_used_again,
    preempted_requests_give_the_tokens_of_roomy_ones,
    a_cancelled_request_frees_its_pages_and_changes_nobody,
    a_prefix_taken_up_gives_the_same_tokens,
}

const GREEDY: Want = Want::Token(Sampling::GREEDY);

/// The greedy tokens that follow `prompt`, each from a step of its own.
fn greedy(engine: &mut ByHand<Box<dyn Engine>>, prompt: &[u32], count: usize) -> Vec<u32> {
    let seq = engine.open();
    let mut next = prompt.to_vec();
    let mut found = Vec::new();
    for _ in 0..count {
        let mut left = &next[..];
        let most = engine.engine().limits().max_step_tokens;
        while left.len() > most {
            let piece = Piece { seq, tokens: &left[..most], want: Want::Nothing };
            engine.step(&[piece]).expect("a good step");
            left = &left[most..];
        }
        let output = engine.step(&[Piece { seq, tokens: left, want: GREEDY }]);
        let Output::Token(token) = output.expect("a good step").remove(0) else {
            panic!("no token")
        };
        found.push(token);
        next = vec![token];
    }
    engine.close(seq);
    found
}

fn text(len: usize, seed: usize) -> Vec<u32> {
    let text = tokens(&BASE, len, seed);
    text.into_iter().map(|token| if token == BREAKS { 1 } else { token }).collect()
}

fn answers_come_in_the_order_of_chunks_by_what_was_wanted(make: Make) {
    let mut engine = ByHand::new(make(ROOMY));
    let [a, b, c, d] = [(); 4].map(|()| engine.open());
    let prompt = text(9, 1);
    let piece = |seq, want| Piece { seq, tokens: &prompt, want };
    let found = engine
        .step(&[
            piece(a, Want::Nothing),
            piece(b, GREEDY),
            piece(c, Want::Logits),
            piece(d, GREEDY),
        ])
        .expect("a good step");
    assert_eq!(found[0], Output::Nothing);
    assert!(matches!(found[1], Output::Token(_)) && found[1] == found[3], "{found:?}");
    let Output::Logits(logits) = &found[2] else { panic!("{:?}", found[2]) };
    assert_eq!(logits.len(), 9 * BASE.vocab_size);
    assert!(engine.step(&[]).expect("an empty step").is_empty());
}

fn neither_chunks_nor_neighbours_change_a_token(make: Make) {
    let mut engine = ByHand::new(make(ROOMY));
    let prompts: Vec<Vec<u32>> = (0..4).map(|i| text(60 + 11 * i, i)).collect();
    let expected: Vec<Vec<u32>> = prompts.iter().map(|p| greedy(&mut engine, p, 1)).collect();
    let seqs = [(); 4].map(|()| engine.open());
    let mut found = vec![None; 4];
    for start in (0..120).step_by(5) {
        let mut of = Vec::new();
        let mut pieces = Vec::new();
        for (i, prompt) in prompts.iter().enumerate().filter(|(_, p)| start < p.len()) {
            let end = (start + 5).min(prompt.len());
            let want = if end == prompt.len() { GREEDY } else { Want::Nothing };
            pieces.push(Piece { seq: seqs[i], tokens: &prompt[start..end], want });
            of.push(i);
        }
        let outputs = engine.step(&pieces).expect("a good step");
        for (i, output) in of.into_iter().zip(outputs) {
            if let Output::Token(token) = output {
                found[i] = Some(vec![token]);
            }
        }
    }
    assert_eq!(found.into_iter().flatten().collect::<Vec<_>>(), expected);
}

/// An engine and pages, without the convenience of waiting.
struct Bare {
    engine: Box<dyn Engine>,
    pages: Pages,
}

impl Bare {
    fn new(engine: Box<dyn Engine>) -> Bare {
        let pages = Pages::new(engine.limits().pages, false);
        Bare { engine, pages }
    }

    fn submit(
        &mut self,
        chunks: &[(SeqId, Tokens<'_>, Want)],
    ) -> Result<gptoss::engine::Ticket, EngineError> {
        for (seq, tokens, _) in chunks {
            self.pages.extend(*seq, tokens.count()).expect("there are pages");
        }
        let chunks: Vec<Chunk<'_>> = chunks
            .iter()
            .map(|&(seq, tokens, want)| Chunk { tokens, pages: self.pages.table(seq), want })
            .collect();
        self.engine.submit(&chunks)
    }

    fn step(&mut self, chunks: &[(SeqId, Tokens<'_>, Want)]) -> Vec<Outcome> {
        let ticket = self.submit(chunks).expect("a good step");
        self.engine.wait(ticket).expect("the device is there")
    }
}

fn a_token_need_not_be_read_before_it_is_fed(make: Make) {
    let (a, b) = (text(12, 3), text(70, 4));
    let mut by_hand = ByHand::new(make(ROOMY));
    let expected = [greedy(&mut by_hand, &a, 5), greedy(&mut by_hand, &b, 5)];
    let mut bare = Bare::new(make(ROOMY));
    let seqs = [(); 2].map(|()| bare.pages.open(&[]));
    let depth = bare.engine.limits().max_in_flight;
    let mut under_way = std::collections::VecDeque::new();
    let mut found = [Vec::new(), Vec::new()];
    for step in 0..5 {
        // Chunks change places, so that each takes the other's place's token.
        let order = if step % 2 == 0 { [0, 1] } else { [1, 0] };
        let chunk = |i: usize| {
            let tokens = match step {
                0 => Tokens::Known([&a, &b][i]),
                _ => Tokens::Chosen(if step % 2 == 0 { 1 - i } else { i }),
            };
            (seqs[i], tokens, GREEDY)
        };
        let ticket = bare.submit(&order.map(chunk)).expect("a good step");
        under_way.push_back((ticket, order));
        while under_way.len() >= depth
            && let Some((ticket, order)) = under_way.pop_front()
        {
            let outcomes = bare.engine.wait(ticket).expect("the device is there");
            for (i, outcome) in order.into_iter().zip(outcomes) {
                let Ok(Output::Token(token)) = outcome else { panic!("{outcome:?}") };
                found[i].push(token);
            }
        }
    }
    for (ticket, order) in under_way {
        for (i, outcome) in order.into_iter().zip(bare.engine.wait(ticket).expect("it is there")) {
            let Ok(Output::Token(token)) = outcome else { panic!("{outcome:?}") };
            found[i].push(token);
        }
    }
    assert_eq!(found, expected);
}

fn a_chunk_that_breaks_the_contract_fails_alone(make: Make) {
    let good = text(20, 5);
    let expected = greedy(&mut ByHand::new(make(ROOMY)), &good, 1)[0];
    let mut bare = Bare::new(make(ROOMY));
    let vocab = BASE.vocab_size as u32;
    let hot = Want::Token(Sampling { temperature: f32::NAN, ..Sampling::GREEDY });
    let cases: [(Tokens<'_>, Want, &str); 4] = [
        (Tokens::Known(&[]), GREEDY, "is empty"),
        (Tokens::Known(&[1, vocab]), GREEDY, "expected less than vocab_size 61"),
        (Tokens::Chosen(2), GREEDY, "which chooses none"),
        (Tokens::Known(&[1]), hot, "temperature is NaN"),
    ];
    for (tokens, want, why) in cases {
        let (seq, bad) = (bare.pages.open(&[]), bare.pages.open(&[]));
        let found = bare.step(&[(bad, tokens, want), (seq, Tokens::Known(&good), GREEDY)]);
        assert!(matches!(&found[0], Err(ChunkError::Invalid(e)) if e.contains(why)), "{found:?}");
        assert_eq!(found[1], Ok(Output::Token(expected)), "{why}");
    }
    // The step before: chunk 0 failed, chunk 1 chose.
    let seq = bare.pages.open(&[]);
    let twice = bare.step(&[
        (seq, Tokens::Known(&good[..10]), Want::Nothing),
        (seq, Tokens::Known(&good[10..]), GREEDY),
    ]);
    assert!(twice.iter().any(|outcome| matches!(
        outcome,
        Err(ChunkError::Invalid(e)) if e.contains("two chunks in one step")
    )));
    let long = bare.pages.open(&[]);
    bare.pages.extend(long, 1024).expect("there are pages");
    let found = bare.step(&[(long, Tokens::Known(&[1]), GREEDY)]);
    let why = "would hold 1025 tokens, expected at most 1024";
    assert!(matches!(&found[0], Err(ChunkError::Invalid(e)) if e.contains(why)), "{found:?}");
}

fn a_chunk_whose_values_leave_the_range_fails_alone(make: Make) {
    let good = text(90, 6);
    let mut engine = ByHand::new(make(Size { full: 4, windowed: 4, breaks: true, ..ROOMY }));
    let expected = greedy(&mut engine, &good, 3);
    let (seq, bad) = (engine.open(), engine.open());
    let mut broken = text(80, 7);
    broken[66] = BREAKS;
    let found = engine
        .step_each(&[
            Piece { seq: bad, tokens: &broken, want: GREEDY },
            Piece { seq, tokens: &good, want: GREEDY },
        ])
        .expect("the engine goes on");
    assert!(matches!(found[0], Err(ChunkError::NotFinite(_))), "{found:?}");
    assert_eq!(found[1], Ok(Output::Token(expected[0])));
    assert_eq!(
        engine.step(&[Piece { seq: bad, tokens: &[1], want: GREEDY }]),
        Err(StepError::NotOpen(bad.0))
    );
    engine.close(seq);
    // All pages are used again, those that hold what left the range too.
    assert_eq!(engine.pages().in_use(), [0, 0]);
    assert_eq!(
        greedy(&mut engine, &text(200, 8), 1),
        greedy(&mut ByHand::new(make(ROOMY)), &text(200, 8), 1)
    );
    assert_eq!(greedy(&mut engine, &good, 3), expected);
}

fn a_token_that_failed_fails_the_chunk_that_takes_it(make: Make) {
    let mut bare = Bare::new(make(Size { breaks: true, ..ROOMY }));
    if bare.engine.limits().max_in_flight < 2 {
        return;
    }
    let (bad, seq) = (bare.pages.open(&[]), bare.pages.open(&[]));
    let first = bare
        .submit(&[(bad, Tokens::Known(&[2, BREAKS]), GREEDY), (seq, Tokens::Known(&[3]), GREEDY)])
        .expect("a good step");
    let second = bare
        .submit(&[(bad, Tokens::Chosen(0), GREEDY), (seq, Tokens::Chosen(1), GREEDY)])
        .expect("a good step");
    for ticket in [first, second] {
        let found = bare.engine.wait(ticket).expect("the engine goes on");
        assert!(matches!(found[0], Err(ChunkError::NotFinite(_))), "{found:?}");
        assert!(matches!(found[1], Ok(Output::Token(_))), "{found:?}");
    }
}

fn a_step_that_is_too_large_is_refused_and_the_engine_goes_on(make: Make) {
    let mut engine = ByHand::new(make(Size { sequences: 2, step_tokens: 8, ..ROOMY }));
    let expected = greedy(&mut engine, &[1, 2, 3], 1);
    let long = engine.open();
    let refused = engine.step(&[Piece { seq: long, tokens: &[1; 9], want: GREEDY }]);
    let why = "a step of 9 tokens, expected at most 8".to_owned();
    assert_eq!(refused, Err(StepError::Engine(EngineError::Invalid(why))));
    let seqs = [(); 3].map(|()| engine.open());
    let refused = engine.step(&seqs.map(|seq| Piece { seq, tokens: &[1], want: GREEDY }));
    let why = "a step of 3 chunks, expected at most 2".to_owned();
    assert_eq!(refused, Err(StepError::Engine(EngineError::Invalid(why))));
    assert_eq!(greedy(&mut engine, &[1, 2, 3], 1), expected);
}

fn no_more_steps_are_under_way_than_the_limit_says(make: Make) {
    let mut bare = Bare::new(make(ROOMY));
    let seq = bare.pages.open(&[]);
    let depth = bare.engine.limits().max_in_flight;
    let submit = |bare: &mut Bare| bare.submit(&[(seq, Tokens::Known(&[1]), Want::Nothing)]);
    let tickets: Vec<_> = (0..depth).map(|_| submit(&mut bare).expect("a good step")).collect();
    assert!(matches!(submit(&mut bare), Err(EngineError::Invalid(_))));
    for ticket in tickets {
        assert_eq!(bare.engine.wait(ticket).expect("it is there"), [Ok(Output::Nothing)]);
    }
}

fn a_ticket_is_waited_for_once(make: Make) {
    let mut engine = make(ROOMY);
    let number = engine.submit(&[]).expect("an empty step").number();
    assert!(engine.wait(gptoss::engine::Ticket::new(number)).expect("it is there").is_empty());
    let again = engine.wait(gptoss::engine::Ticket::new(number));
    assert!(matches!(again, Err(EngineError::Invalid(_))), "{again:?}");
}

fn windowed_pages_are_given_back_and_used_again(make: Make) {
    let prompt = text(300, 9);
    let expected = greedy(&mut ByHand::new(make(ROOMY)), &prompt, 80);
    // Just the window's pages and one step's.
    let mut engine = ByHand::new(make(Size { full: 6, windowed: 4, step_tokens: 64, ..ROOMY }));
    assert_eq!(greedy(&mut engine, &prompt, 80), expected);
    assert_eq!(engine.pages().in_use(), [0, 0]);
}

/// Runs requests to their ends, cancelling those of `cancel` after so many events, and returns the
/// tokens of each with how it ended.
fn schedule(
    engine: &mut dyn Engine,
    requests: &[Request],
    reuse: bool,
    cancel: &[(usize, usize)],
) -> (Vec<(Finish, Vec<u32>)>, gptoss::scheduler::Counts) {
    let limits = engine.limits();
    let mut scheduler = Scheduler::new(8, limits, reuse).expect("no limit is 0");
    requests.iter().cloned().for_each(|request| scheduler.submit(request));
    let mut ended = vec![None; requests.len()];
    let mut tickets = std::collections::VecDeque::new();
    let mut steps = 0;
    while !scheduler.is_idle() || !tickets.is_empty() {
        while tickets.len() < limits.max_in_flight && scheduler.plan() {
            tickets.push_back(engine.submit(&scheduler.chunks()).expect("a good step"));
        }
        for &(_, id) in cancel.iter().filter(|(at, _)| *at == steps) {
            let before = scheduler.pages().in_use()[0];
            scheduler.cancel(id);
            assert!(scheduler.pages().in_use()[0] < before, "the pages of {id} are still held");
        }
        steps += 1;
        if let Some(ticket) = tickets.pop_front() {
            let outcomes = engine.wait(ticket).expect("the device is there");
            scheduler.complete(outcomes).expect("an answer to each chunk");
        }
        for event in scheduler.take_events() {
            match event {
                Event::Done { id, finish, tokens } => ended[id] = Some((finish, tokens)),
                Event::Failed { id, error } => panic!("request {id}: {error}"),
                _ => {}
            }
        }
    }
    assert_eq!(scheduler.pages().in_use(), [0, 0]);
    (ended.into_iter().map(|end| end.expect("it ended")).collect(), scheduler.counts())
}

fn request(id: usize, prompt: Vec<u32>, max_tokens: usize) -> Request {
    let sampling = Sampling { temperature: 0.8, seed: id as u64, ..Sampling::GREEDY };
    Request { id, prompt, max_tokens, sampling, stop: Vec::new(), prefill_only: false }
}

fn preempted_requests_give_the_tokens_of_roomy_ones(make: Make) {
    let requests: Vec<Request> = (0..4).map(|id| request(id, text(50, id), 90)).collect();
    let (expected, roomy) = schedule(make(ROOMY).as_mut(), &requests, false, &[]);
    // Each needs three pages in the end; seven are there for four.
    let tight = Size { full: 7, windowed: 7, ..ROOMY };
    let (found, counts) = schedule(make(tight).as_mut(), &requests, false, &[]);
    assert_eq!(found, expected);
    assert!(roomy.preemptions == 0 && counts.preemptions > 0, "{counts:?}");
}

fn a_cancelled_request_frees_its_pages_and_changes_nobody(make: Make) {
    let requests: Vec<Request> = (0..4).map(|id| request(id, text(70, id), 12)).collect();
    let (expected, _) = schedule(make(ROOMY).as_mut(), &requests, true, &[]);
    let (found, _) = schedule(make(ROOMY).as_mut(), &requests, true, &[(0, 1), (4, 2)]);
    assert_eq!((&found[0], &found[3]), (&expected[0], &expected[3]));
    for id in [1, 2] {
        let (finish, tokens) = &found[id];
        assert_eq!(*finish, Finish::Cancelled);
        assert!(tokens.len() < 12 && *tokens == expected[id].1[..tokens.len()]);
    }
}

fn a_prefix_taken_up_gives_the_same_tokens(make: Make) {
    let shared = text(150, 11);
    let with = |id: usize, tail: usize| request(id, [&shared[..], &text(tail, id)].concat(), 6);
    let alone = |request: &Request| {
        let request = Request { id: 0, ..request.clone() };
        schedule(make(ROOMY).as_mut(), &[request], false, &[]).0.remove(0)
    };
    // The first computes the prefix, those behind it wait for a place and take it up.
    let requests: Vec<Request> = (0..4).map(|id| with(id, 3 + 20 * id)).collect();
    let mut engine = make(Size { sequences: 1, ..ROOMY });
    let (found, counts) = schedule(engine.as_mut(), &requests, true, &[]);
    assert_eq!(counts.reused_tokens, 3 * 128);
    for (request, found) in requests.iter().zip(found) {
        assert_eq!(found, alone(request), "request {}", request.id);
    }
}
