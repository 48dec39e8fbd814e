//! The conversation's side of the worker: one answer at a time, and in the meantime the beginning of
//! the next prompt.

use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use gptoss::engine::Sampling;
use gptoss::harmony;
use gptoss::scheduler::{Event, Request};
use gptoss::worker::{Handle, Worker};

/// How long leaving waits for a step under way.
const LEAVE: Duration = Duration::from_millis(500);

/// A request that was made. Its events come on a channel of its own: what an old one still has to
/// say is not heard.
pub struct Stream {
    pub handle: Handle,
    pub events: Receiver<Event>,
}

/// A prompt's beginning that is computed while nobody waits.
struct Background {
    prompt: Vec<u32>,
    stream: Stream,
    /// Tokens computed, and how many there are.
    done: Option<(usize, usize)>,
    has_ended: bool,
}

impl Background {
    fn listen(&mut self) {
        for event in self.stream.events.try_iter() {
            match event {
                Event::Prefill { done, total, .. } => self.done = Some((done, total)),
                // Should it fail, the prompt itself fails in the same way, and tells.
                event if event.is_last() => self.has_ended = true,
                _ => {}
            }
        }
    }
}

/// Asks the worker.
pub struct Client {
    worker: Worker,
    background: Option<Background>,
}

impl Client {
    /// Of a worker that takes up what it has computed.
    pub fn new(worker: Worker) -> Client {
        Client { worker, background: None }
    }

    /// Asks for an answer.
    ///
    /// What is computed in the background goes on where the prompt begins with it: to break the step
    /// off would be to compute its tokens again.
    pub fn ask(&mut self, prompt: Vec<u32>, max_tokens: usize, sampling: Sampling) -> Stream {
        if self.background.as_ref().is_some_and(|ahead| !prompt.starts_with(&ahead.prompt)) {
            self.cancel_background();
        }
        let stop = harmony::STOP_TOKENS.to_vec();
        self.submit(Request { id: 0, prompt, max_tokens, sampling, stop, prefill_only: false })
    }

    /// Computes what the next prompt begins with, in the background.
    pub fn prepare(&mut self, prompt: Vec<u32>) {
        self.cancel_background();
        let request = Request {
            id: 0,
            prompt: prompt.clone(),
            max_tokens: 0,
            sampling: Sampling::GREEDY,
            stop: Vec::new(),
            prefill_only: true,
        };
        let stream = self.submit(request);
        self.background = Some(Background { prompt, stream, done: None, has_ended: false });
    }

    /// How far the background is, while it is not at its end.
    pub fn background(&mut self) -> Option<(usize, usize)> {
        let ahead = self.background.as_mut()?;
        ahead.listen();
        ahead.done.filter(|_| !ahead.has_ended)
    }

    /// Ends the worker without waiting for a long step.
    pub fn leave(self) {
        self.worker.end_within(LEAVE);
    }

    fn cancel_background(&mut self) {
        if let Some(ahead) = self.background.take() {
            ahead.stream.handle.cancel();
        }
    }

    fn submit(&self, request: Request) -> Stream {
        let (sender, events) = mpsc::channel();
        let handle = self.worker.submit(request, &sender, None);
        Stream { handle, events }
    }
}
