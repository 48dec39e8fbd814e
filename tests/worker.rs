use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use gptoss::cpu::{CpuEngine, CpuOptions};
use gptoss::engine::{Chunk, Engine, EngineError, Limits, Outcome, Sampling, Ticket};
use gptoss::kv_budget::KvBudget;
use gptoss::model::{ModelConfig, Weights};
use gptoss::scheduler::{Event, Finish, Request, RequestError};
use gptoss::worker::{Handle, Worker, WorkerOptions};
use oracle::fake::{BREAKS, Fake, limits};
use oracle::model::broken_at;
use shared::philox::philox4x32;

use crate::gpu::full;
use crate::scheduler::{alone, request};

/// Long enough for anything that is not stuck.
const PATIENCE: Duration = Duration::from_secs(120);

fn fake() -> Fake {
    Fake::new(limits(4, 64, 512, 2))
}

fn start(engines: Vec<Fake>, batch: usize) -> Worker {
    let boxed = |engine| -> Box<dyn Engine> { Box::new(engine) };
    let engines = engines.into_iter().map(boxed).collect();
    Worker::start(engines, WorkerOptions { batch, reuse: true }).expect("engines that can start")
}

fn requests(count: usize) -> Vec<Request> {
    let prompt =
        |id: usize| (0..1 + id as u32 % 90).map(|i| (7 * i + id as u32) % 20 + 1).collect();
    (0..count).map(|id| request(id, prompt(id), id % 40)).collect()
}

/// How `count` requests ended.
fn ends(events: &Receiver<Event>, count: usize) -> HashMap<usize, Result<Vec<u32>, RequestError>> {
    let mut ended = HashMap::new();
    while ended.len() < count {
        let (id, end) = match events.recv_timeout(PATIENCE).expect("something happens") {
            Event::Done { id, tokens, .. } => (id, Ok(tokens)),
            Event::Failed { id, error } => (id, Err(error)),
            _ => continue,
        };
        assert!(ended.insert(id, end).is_none(), "request {id} ended twice");
    }
    ended
}

fn submit_all(worker: &Worker, requests: &[Request], events: &Sender<Event>) -> Vec<Handle> {
    requests.iter().map(|request| worker.submit(request.clone(), events, None)).collect()
}

#[test]
fn any_number_of_engines_gives_the_same_tokens() {
    let requests = requests(60);
    for (engines, batch) in [(1, 1), (1, 4), (2, 3), (3, 1), (5, 4)] {
        let worker = start((0..engines).map(|_| fake()).collect(), batch);
        let (sender, events) = mpsc::channel();
        submit_all(&worker, &requests, &sender);
        let ended = ends(&events, requests.len());
        for request in &requests {
            assert_eq!(ended[&request.id], Ok(alone(request)), "{engines} engines");
        }
    }
}

#[test]
fn what_a_lost_device_ran_is_taken_up_by_another() {
    let requests = requests(60);
    for lost_at in [1, 2, 3, 9, 30] {
        let worker = start(vec![fake().lost_at(lost_at), fake()], 4);
        let (sender, events) = mpsc::channel();
        submit_all(&worker, &requests, &sender);
        let ended = ends(&events, requests.len());
        for request in &requests {
            assert_eq!(ended[&request.id], Ok(alone(request)), "lost in step {lost_at}");
        }
    }
}

#[test]
fn with_the_last_device_every_request_fails_and_so_do_later_ones() {
    let long = |id| Request { stop: Vec::new(), ..request(id, vec![1, 2, 3], 400) };
    let worker = start(vec![fake().lost_at(3), fake().lost_at(4)], 4);
    let (sender, events) = mpsc::channel();
    submit_all(&worker, &(0..20).map(long).collect::<Vec<_>>(), &sender);
    let lost = RequestError::DeviceLost("it fell off the bus".to_owned());
    assert!(ends(&events, 20).values().all(|end| *end == Err(lost.clone())));
    worker.submit(long(20), &sender, None);
    assert_eq!(ends(&events, 1)[&20], Err(lost));
}

/// An engine with a bug.
struct Panics(Fake);

impl Engine for Panics {
    fn config(&self) -> &ModelConfig {
        self.0.config()
    }
    fn limits(&self) -> Limits {
        self.0.limits()
    }
    fn describe(&self) -> String {
        self.0.describe()
    }
    fn submit(&mut self, chunks: &[Chunk<'_>]) -> Result<Ticket, EngineError> {
        self.0.submit(chunks)
    }
    fn wait(&mut self, _: Ticket) -> Result<Vec<Outcome>, EngineError> {
        panic!("index out of bounds")
    }
}

#[test]
fn a_panic_is_told_at_once() {
    let options = WorkerOptions { batch: 4, reuse: true };
    let worker = Worker::start(vec![Box::new(Panics(fake()))], options).expect("it starts");
    let (sender, events) = mpsc::channel();
    worker.submit(request(3, vec![1], 10), &sender, None);
    let why = "the engine panicked: index out of bounds".to_owned();
    assert_eq!(ends(&events, 1)[&3], Err(RequestError::DeviceLost(why)));
}

#[test]
fn a_request_is_cancelled_wherever_it_is() {
    let worker = start(vec![fake().slow(Duration::from_millis(1))], 1);
    let (sender, events) = mpsc::channel();
    let endless = |id| Request { stop: Vec::new(), ..request(id, vec![1], 500) };
    let running = worker.submit(endless(0), &sender, None);
    let waiting = worker.submit(endless(1), &sender, None);
    loop {
        if let Event::Token { id: 0, .. } = events.recv_timeout(PATIENCE).expect("it runs") {
            break;
        }
    }
    waiting.cancel();
    running.cancel();
    running.cancel();
    let ended = ends(&events, 2);
    assert_eq!(ended[&1], Ok(Vec::new()));
    assert!(ended[&0].as_ref().is_ok_and(|tokens| (1..500).contains(&tokens.len())));
    // The place is free again.
    let next = request(2, vec![4, 5], 9);
    worker.submit(next.clone(), &sender, None);
    assert_eq!(ends(&events, 1)[&2], Ok(alone(&next)));
}

#[test]
fn a_client_that_listens_no_more_ends_its_request() {
    let worker = start(vec![fake().slow(Duration::from_millis(1))], 1);
    let (sender, events) = mpsc::channel();
    worker.submit(Request { stop: Vec::new(), ..request(0, vec![1], 500) }, &sender, None);
    drop((sender, events));
    let (sender, events) = mpsc::channel();
    let next = request(1, vec![4, 5], 9);
    worker.submit(next.clone(), &sender, None);
    assert_eq!(ends(&events, 1)[&1], Ok(alone(&next)));
    assert!(worker.counts().decode_tokens < 500, "it ran to its end");
}

#[test]
fn whoever_asked_ends_a_request_with_the_token_that_is_enough() {
    let worker = start(vec![fake()], 4);
    let (sender, events) = mpsc::channel();
    let endless = Request { stop: Vec::new(), ..request(0, vec![1, 2], 300) };
    let mut seen = 0;
    let third = move |_| {
        seen += 1;
        seen == 3
    };
    worker.submit(endless.clone(), &sender, Some(Box::new(third)));
    let all = alone(&endless);
    loop {
        if let Event::Done { finish, tokens, .. } = events.recv_timeout(PATIENCE).expect("it runs")
        {
            assert_eq!((finish, &tokens[..]), (Finish::Stop, &all[..3]));
            break;
        }
    }
}

/// The built-in model of random weights, with a token that breaks it.
fn nano() -> Arc<Weights> {
    Arc::new(broken_at(gptoss::synth::nano(), BREAKS))
}

/// The same throws in every run.
struct Dice(u32);

impl Dice {
    fn below(&mut self, n: u32) -> u32 {
        self.0 += 1;
        philox4x32([self.0, 0, 0, 0], [7, 0])[0] % n
    }
}

/// What is known of a request of the soak.
struct Known {
    handle: Handle,
    max_tokens: usize,
    is_bad: bool,
    is_cancelled: bool,
    streamed: Vec<u32>,
    ended: bool,
}

/// Random requests arrive while others run, some are cancelled, some are bad, and the pool holds a
/// fraction of what they would take. None is lost, ends twice or starves.
#[test]
fn soak() {
    let count = if full() { 20_000 } else { 500 };
    let options = CpuOptions {
        max_sequences: 24,
        max_positions: 512,
        max_step_tokens: 96,
        budget: KvBudget::Pages(9, 12),
        ..CpuOptions::default()
    };
    let engine = CpuEngine::new(nano(), options).expect("the model can be run");
    let options = WorkerOptions { batch: 24, reuse: true };
    let worker = Worker::start(vec![Box::new(engine)], options).expect("it starts");
    let (sender, events) = mpsc::channel();
    let mut random = Dice(0);
    let mut known: Vec<Known> = Vec::new();
    let mut ended = 0;
    while ended < count {
        let mut quiet = true;
        // At most a few more than can run.
        if known.len() < count && known.len() - ended < 60 {
            quiet = false;
            let id = known.len();
            let (request, is_bad) = arrival(id, &mut random);
            let max_tokens = request.max_tokens;
            let handle = worker.submit(request, &sender, None);
            let (streamed, ended, is_cancelled) = (Vec::new(), false, false);
            known.push(Known { handle, max_tokens, is_bad, is_cancelled, streamed, ended });
        }
        if random.below(12) == 0 {
            let index = random.below(known.len() as u32) as usize;
            let one = &mut known[index];
            one.is_cancelled |= !one.ended;
            one.handle.cancel();
        }
        let wait = if quiet { PATIENCE } else { Duration::ZERO };
        match events.recv_timeout(wait) {
            Ok(event) => ended += usize::from(note(&mut known, event)),
            Err(RecvTimeoutError::Timeout) if !quiet => {}
            Err(error) => panic!("after {ended} of {count} requests: {error}"),
        }
    }
    assert!(events.recv_timeout(Duration::from_millis(200)).is_err(), "an event after the end");
    let counts = worker.counts();
    assert!(counts.preemptions > 0 && counts.reused_tokens > 0, "{counts:?}");
    drop(worker);
}

fn arrival(id: usize, random: &mut Dice) -> (Request, bool) {
    // A few beginnings, so that some are shared.
    let (start, len) = (random.below(4), 1 + random.below(150));
    let mut prompt: Vec<u32> = (0..len).map(|i| (i * 31 + start * 977) % 5000 + 100).collect();
    if let Some(last) = prompt.last_mut() {
        *last = 6000 + random.below(1000);
    }
    let mut max_tokens = random.below(24) as usize;
    let kind = random.below(40);
    match kind {
        0 => prompt.push(u32::MAX),
        1 => prompt.push(BREAKS),
        2 => prompt.clear(),
        // Two of these outgrow what both were admitted for.
        3..9 => max_tokens = 150,
        _ => {}
    }
    let sampling = Sampling { temperature: 0.7, seed: id as u64, ..Sampling::GREEDY };
    let request = Request { id, prompt, max_tokens, sampling, stop: vec![7], prefill_only: false };
    // What generates nothing is never computed, and so does not fail for its tokens.
    (request, kind == 2 || (kind < 2 && max_tokens > 0))
}

/// Checks an event against what is known; true when it is the request's last.
fn note(known: &mut [Known], event: Event) -> bool {
    let one = &mut known[event.id()];
    assert!(!one.ended, "request {} goes on after its end", event.id());
    one.ended = event.is_last();
    match event {
        Event::Token { token, .. } => one.streamed.push(token),
        Event::Done { id, finish, tokens } => {
            assert_eq!(tokens, one.streamed, "request {id}");
            let fed = tokens.split_last().map_or(&[][..], |(_, fed)| fed);
            assert!(!fed.contains(&BREAKS), "request {id} went on behind what breaks");
            assert!(tokens.len() <= one.max_tokens);
            match finish {
                Finish::Cancelled => assert!(one.is_cancelled, "request {id}"),
                Finish::Stop => assert_eq!(tokens.last(), Some(&7)),
                Finish::Length => assert_eq!(tokens.len(), one.max_tokens),
            }
            assert!(!one.is_bad || one.is_cancelled, "request {id} should have failed");
        }
        // A text that was drawn may come to the token that breaks by itself.
        Event::Failed { id, error } => {
            let breaks = one.is_bad || one.streamed.last() == Some(&BREAKS);
            assert!(breaks, "request {id}: {error}");
        }
        Event::Started { .. } | Event::Prefill { .. } => {}
    }
    one.ended
}
