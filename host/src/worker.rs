//! What owns engines and schedulers: requests go in, events come out.
//!
//! Each engine has a thread and a scheduler of its own; all take requests from one queue as they
//! have room. Which engine runs a request changes when it is finished, and nothing else. A thread
//! keeps as many steps under way as its engine takes: while one computes, the next is laid out.
//!
//! A request that fails ends alone. When a device is lost, or its engine panics, what ran there goes
//! back to the queue with the tokens it has and is taken up by another engine; with none left, every
//! request fails with the reason, and so does every later one.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::engine::{Engine, EngineError, Limits, Ticket};
use crate::model::ModelConfig;
use crate::scheduler::{Counts, Event, Request, RequestError, Scheduler, ZeroLimit};

/// Hears each token of a request and says whether that is enough.
pub type Until = Box<dyn FnMut(u32) -> bool + Send>;

/// How to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerOptions {
    /// Requests that run together on one engine at most.
    pub batch: usize,
    /// Whether texts that begin alike are computed once.
    pub reuse: bool,
}

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A limit leaves nothing to do.
    #[error(transparent)]
    Zero(#[from] ZeroLimit),
    /// No engine was given.
    #[error("no engine, expected at least one")]
    NoEngine,
    /// The system refused a thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A request that was submitted.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    key: usize,
}

impl Handle {
    /// Ends the request with what it has; its pages are free at once. One that has ended is left
    /// alone.
    pub fn cancel(&self) {
        self.shared.cancel(self.key);
    }
}

/// Engines at work. Dropping it ends them with the step they are in.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    config: ModelConfig,
    limits: Limits,
    description: String,
    next: AtomicUsize,
}

/// A request on its way.
struct Job {
    request: Request,
    generated: Vec<u32>,
    client: Client,
}

/// Who hears of a request.
struct Client {
    id: usize,
    events: Sender<Event>,
    until: Option<Until>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    /// For each engine, requests to end; the queue is cleared of them at once.
    cancelled: Vec<Vec<usize>>,
    /// Engines that still run.
    alive: usize,
    closing: bool,
    /// Why the last engine went.
    lost: Option<String>,
    counts: Counts,
}

struct Shared {
    state: Mutex<State>,
    /// Something changed that a thread may wait for.
    changed: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        f.debug_struct("Shared").field("queue", &state.queue.len()).finish_non_exhaustive()
    }
}

impl Worker {
    /// Sets engines of the same model to work, each in a thread.
    pub fn start(
        engines: Vec<Box<dyn Engine>>,
        options: WorkerOptions,
    ) -> Result<Worker, WorkerError> {
        let Some(first) = engines.first() else { return Err(WorkerError::NoEngine) };
        let (config, limits) = (first.config().clone(), first.limits());
        let names: Vec<String> = engines.iter().map(|engine| engine.describe()).collect();
        let state = State {
            cancelled: vec![Vec::new(); engines.len()],
            alive: engines.len(),
            ..State::default()
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let mut worker = Worker {
            shared: Arc::clone(&shared),
            threads: Vec::new(),
            config,
            limits,
            description: names.join("; "),
            next: AtomicUsize::new(0),
        };
        let lanes = engines
            .into_iter()
            .enumerate()
            .map(|(index, engine)| {
                let scheduler = Scheduler::new(options.batch, engine.limits(), options.reuse)?;
                let shared = Arc::clone(&shared);
                Ok(Lane { index, shared, engine, scheduler, clients: HashMap::new() })
            })
            .collect::<Result<Vec<Lane>, ZeroLimit>>()?;
        for lane in lanes {
            let thread = std::thread::Builder::new().name(format!("engine-{}", lane.index));
            worker.threads.push(thread.spawn(move || lane.run())?);
        }
        Ok(worker)
    }

    /// Hyper-parameters of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What the first engine takes.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// For people: what runs.
    pub fn describe(&self) -> &str {
        &self.description
    }

    /// How much was computed until now.
    pub fn counts(&self) -> Counts {
        self.shared.lock().counts
    }

    /// Queues a request. What becomes of it is sent to `events` under the request's own id, which
    /// need not be unique; a client that listens no more ends it. `until` sees every token and may
    /// end the request with it.
    pub fn submit(
        &self,
        mut request: Request,
        events: &Sender<Event>,
        until: Option<Until>,
    ) -> Handle {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let client = Client { id: request.id, events: events.clone(), until };
        request.id = key;
        let job = Job { request, generated: Vec::new(), client };
        let mut state = self.shared.lock();
        if state.alive == 0 {
            let why = state.lost.clone().unwrap_or_default();
            job.client.fail(RequestError::DeviceLost(why));
        } else {
            state.queue.push_back(job);
            self.shared.changed.notify_all();
        }
        drop(state);
        Handle { shared: Arc::clone(&self.shared), key }
    }

    /// Ends the engines, and lets go of those that are in a step for longer than `patience`.
    pub fn end_within(mut self, patience: Duration) {
        self.shared.close();
        let start = Instant::now();
        while !self.threads.iter().all(JoinHandle::is_finished) {
            if start.elapsed() > patience {
                self.threads.clear();
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Lets go of the threads, which end with the program: a step under way is not waited for.
    pub fn abandon(mut self) {
        self.shared.close();
        self.threads.clear();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.close();
        for thread in self.threads.drain(..) {
            // Panics of engines are caught in the thread, and were told to the clients.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_all();
    }

    fn cancel(&self, key: usize) {
        let mut state = self.lock();
        if let Some(at) = state.queue.iter().position(|job| job.request.id == key) {
            if let Some(job) = state.queue.remove(at) {
                job.client.cancelled(job.generated);
            }
            return;
        }
        state.cancelled.iter_mut().for_each(|keys| keys.push(key));
        self.changed.notify_all();
    }
}

impl Client {
    /// Whether somebody listens.
    fn send(&self, event: Event) -> bool {
        self.events.send(event.of(self.id)).is_ok()
    }

    fn fail(&self, error: RequestError) {
        self.send(Event::Failed { id: self.id, error });
    }

    fn cancelled(&self, tokens: Vec<u32>) {
        self.send(Event::Done { id: self.id, finish: crate::scheduler::Finish::Cancelled, tokens });
    }
}

/// One engine's thread.
struct Lane {
    index: usize,
    shared: Arc<Shared>,
    engine: Box<dyn Engine>,
    scheduler: Scheduler,
    clients: HashMap<usize, Client>,
}

impl Lane {
    fn run(mut self) {
        let ended = catch_unwind(AssertUnwindSafe(|| self.work()));
        let lost = match ended {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => format!("the engine panicked: {}", message(&*panic)),
        };
        self.give_up(&lost);
    }

    /// Runs until the worker closes or the engine fails.
    fn work(&mut self) -> Result<(), EngineError> {
        let depth = self.engine.limits().max_in_flight;
        let mut tickets: VecDeque<Ticket> = VecDeque::new();
        while self.take_work(tickets.is_empty()) {
            while tickets.len() < depth && self.scheduler.plan() {
                tickets.push_back(self.engine.submit(&self.scheduler.chunks())?);
            }
            if let Some(ticket) = tickets.pop_front() {
                let outcomes = self.engine.wait(ticket)?;
                self.scheduler.complete(outcomes)?;
            }
            self.tell();
        }
        // The device may still read what it was given.
        for ticket in tickets {
            self.engine.wait(ticket)?;
        }
        Ok(())
    }

    /// Takes what the queue has for this engine, waiting for it when there is nothing else to do;
    /// false when the worker closes.
    fn take_work(&mut self, may_wait: bool) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        while may_wait
            && !state.closing
            && state.queue.is_empty()
            && state.cancelled[self.index].is_empty()
            && self.scheduler.is_idle()
        {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closing {
            return false;
        }
        for key in std::mem::take(&mut state.cancelled[self.index]) {
            self.scheduler.cancel(key);
        }
        // A short queue is shared out evenly.
        let mut share = state.queue.len().div_ceil(state.alive.max(1));
        while share > 0
            && self.scheduler.in_flight() < self.scheduler.batch()
            && let Some(job) = state.queue.pop_front()
        {
            self.clients.insert(job.request.id, job.client);
            match job.generated.as_slice() {
                [] => self.scheduler.submit(job.request),
                generated => self.scheduler.resume(job.request, generated),
            }
            share -= 1;
        }
        true
    }

    /// Tells the clients what happened.
    fn tell(&mut self) {
        loop {
            let events = self.scheduler.take_events();
            if events.is_empty() {
                break;
            }
            let ended: Vec<usize> =
                events.iter().filter(|event| event.is_last()).map(Event::id).collect();
            for event in events {
                self.tell_one(event, &ended);
            }
        }
        let mut state = self.shared.lock();
        let counts = self.scheduler.take_counts();
        state.counts += counts;
    }

    /// `ended` are the requests whose last event is on its way already.
    fn tell_one(&mut self, event: Event, ended: &[usize]) {
        let (key, is_last) = (event.id(), event.is_last());
        let Some(client) = self.clients.get_mut(&key) else { return };
        let enough = match (&event, &mut client.until) {
            (Event::Token { token, .. }, Some(until)) => until(*token),
            _ => false,
        };
        let heard = client.send(event);
        if is_last {
            self.clients.remove(&key);
        } else if !ended.contains(&key) {
            if !heard {
                self.scheduler.cancel(key);
            } else if enough {
                self.scheduler.stop(key);
            }
        }
    }

    /// Hands everything to the other engines, or fails it where there is none.
    fn give_up(&mut self, why: &str) {
        self.tell();
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        state.alive -= 1;
        for (request, generated) in self.scheduler.take_all().into_iter().rev() {
            if let Some(client) = self.clients.remove(&request.id) {
                state.queue.push_front(Job { request, generated, client });
            }
        }
        if state.alive == 0 {
            let lost = RequestError::DeviceLost(why.to_owned());
            state.queue.drain(..).for_each(|job| job.client.fail(lost.clone()));
            state.lost = Some(why.to_owned());
        }
        shared.changed.notify_all();
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
