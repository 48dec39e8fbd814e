//! Requests over several engines, each with a scheduler and a thread of its own.
//!
//! All take requests from one queue as they have room. Which engine runs a request changes when it
//! is finished, and nothing else: its tokens depend on no neighbour.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::scheduler::{Counts, Event, Request, ScheduleError, Scheduler};
use crate::engine::Engine;

/// How often `stop` is asked while no event comes.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How much was computed, over all engines.
    pub counts: Counts,
    /// Whether every request is finished.
    pub is_complete: bool,
}

/// What the threads share.
struct Shared {
    queue: Mutex<VecDeque<Request>>,
    /// Requests of one engine at a time.
    room: usize,
    stop: AtomicBool,
}

/// Runs `requests` with at most `batch` together on each engine. `on_event` hears of every event,
/// in the calling thread; after `stop` says yes, or after an error, all engines end with the step
/// they are in.
pub fn run<E: From<ScheduleError>>(
    engines: &mut [Box<dyn Engine>],
    batch: usize,
    requests: Vec<Request>,
    mut stop: impl FnMut() -> bool,
    mut on_event: impl FnMut(Event) -> Result<(), E>,
) -> Result<Outcome, E> {
    let total = requests.len();
    let shared = Shared {
        queue: Mutex::new(requests.into()),
        // A short queue is shared out evenly.
        room: batch.min(total.div_ceil(engines.len().max(1))),
        stop: AtomicBool::new(false),
    };
    let (sender, events) = mpsc::channel();
    std::thread::scope(|scope| {
        let work = |engine| {
            let (shared, sender) = (&shared, sender.clone());
            scope.spawn(move || shared.work(engine, &sender))
        };
        let workers: Vec<_> = engines.iter_mut().map(work).collect();
        drop(sender);
        let mut done = 0;
        let mut listen = || {
            loop {
                match events.recv_timeout(ASK_EVERY) {
                    Ok(event) => {
                        let event = event?;
                        done += usize::from(matches!(event, Event::Done { .. }));
                        on_event(event)?;
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
                if stop() {
                    shared.stop.store(true, Ordering::Relaxed);
                }
            }
        };
        let listened = listen();
        shared.stop.store(true, Ordering::Relaxed);
        let mut counts = Counts::default();
        for worker in workers {
            match worker.join() {
                Ok(of_engine) => counts += of_engine,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        listened.map(|()| Outcome { counts, is_complete: done == total })
    })
}

impl Shared {
    /// What one engine's thread does.
    fn work(
        &self,
        engine: &mut Box<dyn Engine>,
        events: &Sender<Result<Event, ScheduleError>>,
    ) -> Counts {
        let mut scheduler = Scheduler::new(self.room);
        while !self.stop.load(Ordering::Relaxed) {
            while scheduler.in_flight() < self.room
                && let Some(request) = self.next()
            {
                scheduler.submit(request);
            }
            if scheduler.is_idle() {
                break;
            }
            let (found, failed) = match scheduler.step(engine.as_mut()) {
                Ok(found) => (found, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            let is_last = failed.is_some();
            for event in found.into_iter().map(Ok).chain(failed.map(Err)) {
                if events.send(event).is_err() {
                    return scheduler.counts();
                }
            }
            if is_last {
                break;
            }
        }
        scheduler.counts()
    }

    fn next(&self) -> Option<Request> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cpu::{CpuEngine, CpuOptions};
    use crate::engine::Sampling;

    fn engines(count: usize) -> Vec<Box<dyn Engine>> {
        let weights = Arc::new(crate::synth::nano());
        let options = CpuOptions { threads: 1, max_sequences: 4, ..CpuOptions::default() };
        let engine = |_| {
            let engine: Box<dyn Engine> =
                Box::new(CpuEngine::new(Arc::clone(&weights), options).unwrap());
            engine
        };
        (0..count).map(engine).collect()
    }

    fn requests(count: usize) -> Vec<Request> {
        let request = |id| Request {
            id,
            prompt: (0..1 + id as u32 % 5).map(|i| 7 * i + id as u32).collect(),
            // Some end before they begin.
            max_tokens: id % 4,
            sampling: Sampling {
                temperature: 0.9,
                top_p: 0.9,
                seed: id as u64,
                ..Sampling::GREEDY
            },
            stop: Vec::new(),
        };
        (0..count).map(request).collect()
    }

    #[test]
    fn any_number_of_engines_gives_the_same_tokens() {
        let mut expected: Option<Vec<Vec<u32>>> = None;
        for (count, batch) in [(1, 1), (1, 4), (2, 3), (3, 1), (5, 4)] {
            let mut found = vec![None; 13];
            let on_event = |event| {
                if let Event::Done { id, tokens } = event {
                    assert!(found[id].replace(tokens).is_none(), "request {id} ended twice");
                }
                Ok::<_, ScheduleError>(())
            };
            let outcome = run(&mut engines(count), batch, requests(13), || false, on_event);
            let outcome = outcome.unwrap();
            assert!(outcome.is_complete);
            let fed: usize = requests(13)
                .iter()
                .filter(|r| r.max_tokens > 0)
                .map(|r| r.prompt.len() + r.max_tokens - 1)
                .sum();
            let counts = outcome.counts;
            assert_eq!(counts.prefill_tokens + counts.decode_tokens, fed as u64);
            let found: Vec<Vec<u32>> = found.into_iter().map(Option::unwrap).collect();
            assert!(found.iter().zip(0..).all(|(tokens, id)| tokens.len() == id % 4));
            assert_eq!(*expected.get_or_insert_with(|| found.clone()), found, "{count} engines");
        }
    }

    #[test]
    fn stopping_leaves_requests_unfinished() {
        let mut asked = 0;
        let stop = || {
            asked += 1;
            asked > 3
        };
        let long = |mut request: Request| {
            request.max_tokens = 1 << 16;
            request
        };
        let requests = requests(6).into_iter().map(long).collect();
        let outcome = run(&mut engines(2), 2, requests, stop, |_| Ok::<_, ScheduleError>(()));
        assert!(!outcome.unwrap().is_complete);
    }

    #[test]
    fn an_error_of_either_side_ends_all() {
        #[derive(Debug)]
        enum Failed {
            Scheduler,
            Listener,
        }
        impl From<ScheduleError> for Failed {
            fn from(_: ScheduleError) -> Failed {
                Failed::Scheduler
            }
        }
        let long = |mut request: Request| {
            request.max_tokens = 1 << 16;
            request
        };
        let failing = |_| Err(Failed::Listener);
        let all: Vec<Request> = requests(6).into_iter().map(long).collect();
        let found = run(&mut engines(2), 2, all.clone(), || false, failing);
        assert!(matches!(found, Err(Failed::Listener)));
        // A token beyond the vocabulary.
        let mut bad = all;
        bad[4].prompt = vec![u32::MAX];
        let found = run(&mut engines(2), 3, bad, || false, |_| Ok(()));
        assert!(matches!(found, Err(Failed::Scheduler)));
    }
}
