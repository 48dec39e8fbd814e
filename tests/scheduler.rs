use std::collections::{HashMap, VecDeque};

use gptoss::engine::{Engine, Limits, Sampling};
use gptoss::pages::Geometry;
use gptoss::scheduler::{Event, Finish, Request, RequestError, Scheduler};
use oracle::fake::{BREAKS, Fake, limits, next_token};
use proptest::prelude::*;

const STOP: u32 = 0;

pub fn request(id: usize, prompt: Vec<u32>, max_tokens: usize) -> Request {
    let sampling = Sampling { seed: id as u64 % 7, ..Sampling::GREEDY };
    Request { id, prompt, max_tokens, sampling, stop: vec![STOP], prefill_only: false }
}

/// What a request gives by itself, one token at a time.
pub fn alone(request: &Request) -> Vec<u32> {
    let mut held = request.prompt.clone();
    let mut out = Vec::new();
    while out.len() < request.max_tokens && out.last() != Some(&STOP) {
        let token = next_token(&held, &request.sampling);
        held.push(token);
        out.push(token);
    }
    out
}

/// One step: as many as the engine takes are under way.
fn step(
    scheduler: &mut Scheduler,
    engine: &mut Fake,
    tickets: &mut VecDeque<gptoss::engine::Ticket>,
) -> Vec<Event> {
    while tickets.len() < engine.limits().max_in_flight && scheduler.plan() {
        tickets.push_back(engine.submit(&scheduler.chunks()).expect("a good step"));
    }
    if let Some(ticket) = tickets.pop_front() {
        let outcomes = engine.wait(ticket).expect("the device is there");
        scheduler.complete(outcomes).expect("an answer to each chunk");
    }
    scheduler.take_events()
}

/// How each request ended, once all have; tokens must have been streamed as they end.
fn run(
    scheduler: &mut Scheduler,
    engine: &mut Fake,
) -> HashMap<usize, Result<(Finish, Vec<u32>), RequestError>> {
    let mut ended = HashMap::new();
    let mut streamed: HashMap<usize, Vec<u32>> = HashMap::new();
    let mut tickets = VecDeque::new();
    let mut steps = 0;
    while !scheduler.is_idle() || !tickets.is_empty() {
        let events = step(scheduler, engine, &mut tickets);
        steps += 1;
        assert!(steps < 100_000, "the end does not come nearer: {:?}", scheduler.counts());
        for event in events {
            let id = event.id();
            assert!(!ended.contains_key(&id), "request {id} goes on after its end");
            match event {
                Event::Token { token, .. } => streamed.entry(id).or_default().push(token),
                Event::Done { finish, tokens, .. } => {
                    assert_eq!(streamed.remove(&id).unwrap_or_default(), tokens);
                    ended.insert(id, Ok((finish, tokens)));
                }
                Event::Failed { error, .. } => {
                    ended.insert(id, Err(error));
                }
                Event::Started { .. } | Event::Prefill { .. } => {}
            }
        }
    }
    assert_eq!(scheduler.pages().in_use(), [0, 0], "pages are left over");
    assert_eq!(scheduler.pages().open_sequences(), 0);
    ended
}

/// Full pages for `positions` and the least windowed ones.
fn tight(limits: Limits, positions: usize, spare: usize) -> Limits {
    let window = limits.pages.window;
    let windowed = Geometry::window_pages(window) + spare;
    let full = positions.div_ceil(shared::kv::PAGE) + spare;
    Limits { pages: Geometry { full, windowed, window }, ..limits }
}

proptest! {
    #[test]
    fn batch_budget_cache_and_steps_under_way_change_nothing(
        prompts in prop::collection::vec((prop::collection::vec(1u32..4, 1..200), 0usize..150), 1..16),
        batch in 1usize..9,
        sequences in 1usize..9,
        budget in 1usize..300,
        in_flight in 1usize..4,
        spare in 0usize..12,
        reuse: bool,
    ) {
        // Enough for the largest request by itself.
        let largest = prompts.iter().map(|(p, n)| p.len() + n).max().unwrap_or(0);
        let limits = tight(limits(sequences, budget, 64, in_flight), largest, spare);
        let mut engine = Fake::new(limits);
        let mut scheduler = Scheduler::new(batch, limits, reuse).expect("no limit is 0");
        let requests: Vec<Request> = prompts
            .into_iter()
            .enumerate()
            .map(|(id, (prompt, max))| request(id, prompt, max))
            .collect();
        requests.iter().cloned().for_each(|request| scheduler.submit(request));
        let ended = run(&mut scheduler, &mut engine);
        for request in &requests {
            let (finish, tokens) = ended[&request.id].as_ref().expect("it ran");
            prop_assert_eq!(tokens, &alone(request));
            let stopped = tokens.last() == Some(&STOP);
            prop_assert_eq!(*finish, if stopped { Finish::Stop } else { Finish::Length });
        }
    }
}

#[test]
fn limits_of_zero_are_refused() {
    let good = limits(2, 8, 64, 1);
    let refused = |batch, limits| Scheduler::new(batch, limits, false).unwrap_err().to_string();
    assert_eq!(refused(0, good), "batch is 0, expected at least 1");
    let none = Limits { max_step_tokens: 0, ..good };
    assert_eq!(refused(1, none), "max_step_tokens is 0, expected at least 1");
    assert!(refused(1, Limits { max_chunks: 0, ..good }).starts_with("max_chunks is 0"));
    assert!(refused(1, Limits { max_in_flight: 0, ..good }).starts_with("max_in_flight is 0"));
}

#[test]
fn a_bad_request_fails_alone() {
    let limits = limits(4, 32, 256, 2);
    let mut engine = Fake::new(limits);
    let mut scheduler = Scheduler::new(4, limits, true).expect("no limit is 0");
    let good: Vec<Request> = (0..3).map(|id| request(id, vec![id as u32 + 1; 9], 20)).collect();
    good.iter().cloned().for_each(|request| scheduler.submit(request));
    scheduler.submit(request(10, vec![], 5));
    scheduler.submit(request(11, vec![1, 1000], 5));
    scheduler.submit(request(12, vec![1, BREAKS, 2], 5));
    scheduler.submit(request(13, vec![1; 5000], 5));
    scheduler.submit(request(14, vec![1], usize::MAX));
    let hot = Sampling { temperature: f32::NAN, ..Sampling::GREEDY };
    scheduler.submit(Request { sampling: hot, ..request(15, vec![1], 5) });
    let ended = run(&mut scheduler, &mut engine);
    for request in &good {
        assert_eq!(ended[&request.id].as_ref().expect("it ran").1, alone(request));
    }
    let error = |id: usize| ended[&id].as_ref().unwrap_err();
    let is_invalid = |id| matches!(error(id), RequestError::Invalid(_));
    assert!(is_invalid(10) && is_invalid(11) && is_invalid(15), "{ended:?}");
    assert!(error(11).to_string().contains("token 1000"), "{}", error(11));
    assert!(matches!(error(12), RequestError::NotFinite(_)), "{}", error(12));
    assert!(matches!(error(13), RequestError::TooLarge { positions: 5005, .. }), "{}", error(13));
    assert!(matches!(error(14), RequestError::TooLarge { .. }), "{}", error(14));
}

#[test]
fn a_finished_place_is_taken_in_the_next_step() {
    let limits = limits(2, 64, 64, 1);
    let (mut engine, mut tickets) = (Fake::new(limits), VecDeque::new());
    let mut scheduler = Scheduler::new(2, limits, false).expect("no limit is 0");
    for id in 0..3 {
        let max = if id == 0 { 1 } else { 4 };
        scheduler.submit(Request { stop: vec![], ..request(id, vec![1], max) });
    }
    let first = step(&mut scheduler, &mut engine, &mut tickets);
    assert!(first.iter().any(|event| matches!(event, Event::Done { id: 0, .. })));
    let second = step(&mut scheduler, &mut engine, &mut tickets);
    assert!(second.iter().any(|event| matches!(event, Event::Token { id: 2, .. })));
}

#[test]
fn decoding_goes_before_a_long_prompt() {
    let limits = limits(4, 8, 256, 1);
    let (mut engine, mut tickets) = (Fake::new(limits), VecDeque::new());
    let mut scheduler = Scheduler::new(4, limits, false).expect("no limit is 0");
    scheduler.submit(Request { stop: vec![], ..request(0, vec![1; 100], 2) });
    scheduler.submit(Request { stop: vec![], ..request(1, vec![1], 3) });
    let mut order = Vec::new();
    while !scheduler.is_idle() {
        let events = step(&mut scheduler, &mut engine, &mut tickets);
        order.extend(events.iter().filter(|event| event.is_last()).map(Event::id));
    }
    assert_eq!(order, [1, 0]);
    assert_eq!((scheduler.counts().prefill_tokens, scheduler.counts().decode_tokens), (101, 3));
}

#[test]
fn a_cancelled_request_ends_once_and_frees_its_pages_at_once() {
    for in_flight in [1, 2] {
        let limits = limits(1, 64, 128, in_flight);
        let (mut engine, mut tickets) = (Fake::new(limits), VecDeque::new());
        let mut scheduler = Scheduler::new(1, limits, false).expect("no limit is 0");
        scheduler.submit(Request { stop: vec![], ..request(0, vec![1], 50) });
        scheduler.submit(request(1, vec![1], 50));
        let mut events = step(&mut scheduler, &mut engine, &mut tickets);
        assert_eq!(scheduler.pages().in_use(), [1, 1]);
        scheduler.cancel(0);
        assert_eq!(scheduler.pages().in_use(), [0, 0], "{in_flight} steps under way");
        scheduler.cancel(1);
        scheduler.cancel(2);
        while !tickets.is_empty() || !scheduler.is_idle() {
            events.extend(step(&mut scheduler, &mut engine, &mut tickets));
        }
        let ends: Vec<(usize, usize)> = events
            .iter()
            .filter_map(|event| match event {
                Event::Done { id, finish: Finish::Cancelled, tokens } => Some((*id, tokens.len())),
                _ => None,
            })
            .collect();
        assert_eq!(ends, [(0, 1), (1, 0)]);
    }
}

#[test]
fn preempted_requests_give_the_same_tokens() {
    // Each takes three pages in the end, four run, and there are seven.
    let limits = tight(limits(4, 64, 64, 2), 192, 4);
    let mut engine = Fake::new(limits);
    let mut scheduler = Scheduler::new(4, limits, true).expect("no limit is 0");
    let requests: Vec<Request> = (0..4)
        .map(|id| Request { stop: vec![], ..request(id, vec![id as u32 + 1; 40], 130) })
        .collect();
    requests.iter().cloned().for_each(|request| scheduler.submit(request));
    let ended = run(&mut scheduler, &mut engine);
    for request in &requests {
        let mut held = request.prompt.clone();
        for _ in 0..130 {
            held.push(next_token(&held, &request.sampling));
        }
        assert_eq!(ended[&request.id].as_ref().expect("it ran").1, held[40..]);
    }
    assert!(scheduler.counts().preemptions > 0, "the pool was not tight enough to tell");
}

#[test]
fn a_second_turn_computes_only_what_is_new() {
    let limits = limits(2, 512, 1024, 2);
    let mut engine = Fake::new(limits);
    let mut scheduler = Scheduler::new(2, limits, true).expect("no limit is 0");
    let mut text: Vec<u32> = (0..300).map(|i| i % 13 + 1).collect();
    let first = Request { stop: vec![], ..request(0, text.clone(), 40) };
    scheduler.submit(first.clone());
    let ended = run(&mut scheduler, &mut engine);
    text.extend(&ended[&0].as_ref().expect("it ran").1);
    text.extend([5, 6, 7]);
    let second = request(1, text, 10);
    scheduler.submit(second.clone());
    let before = scheduler.counts();
    let ended = run(&mut scheduler, &mut engine);
    assert_eq!(ended[&1].as_ref().expect("it ran").1, alone(&second));
    // 342 tokens, of which five blocks were there.
    let counts = scheduler.counts();
    assert_eq!(counts.reused_tokens - before.reused_tokens, 320);
    assert_eq!(counts.prefill_tokens - before.prefill_tokens, 343 - 320);
}

#[test]
fn a_prompt_can_be_computed_ahead() {
    let limits = limits(2, 64, 1024, 2);
    let mut engine = Fake::new(limits);
    let mut scheduler = Scheduler::new(2, limits, true).expect("no limit is 0");
    let prompt: Vec<u32> = (0..200).map(|i| i % 11 + 1).collect();
    scheduler.submit(Request { prefill_only: true, ..request(0, prompt.clone(), 0) });
    let ended = run(&mut scheduler, &mut engine);
    assert_eq!(ended[&0], Ok((Finish::Length, Vec::new())));
    let after = request(1, [prompt, vec![3]].concat(), 5);
    scheduler.submit(after.clone());
    assert_eq!(run(&mut scheduler, &mut engine)[&1].as_ref().expect("it ran").1, alone(&after));
    assert_eq!(scheduler.counts().reused_tokens, 192);
}
