//! The engine behind streams: a queue and a worker thread each, and the rules
//! that order one stream's work against another's.
//!
//! A [`Command`] waits for signals that work submitted earlier will raise, so
//! the waits form no cycle. The legacy null stream of a device is a stream
//! whose commands also wait for everything submitted to the device's blocking
//! streams so far, and whose pending work every blocking stream waits for.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};

use super::capture::Membership;
use super::device::Device;
use super::error::{Error, Result};
use super::signal::{Signal, lock};

/// How a stream orders itself against the device's null stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The legacy default stream.
    Null,
    /// Ordered against the null stream.
    Blocking,
    /// Not ordered against the null stream.
    NonBlocking,
}

/// What a stream can be asked to do: the queue knows nothing else of it.
pub trait Work: Send + Sync {
    /// What sort of work it is: a graph may be updated where each node's stays the same.
    fn kind(&self) -> &'static str;

    /// Carries it out on the calling thread.
    ///
    /// # Errors
    /// What becomes the device's failure.
    fn run(&self, device: &Device) -> Result;

    /// Whether it is carried out even on a device that has failed.
    fn runs_after_a_fault(&self) -> bool {
        false
    }
}

struct Command {
    waits: Vec<Arc<Signal>>,
    work: Box<dyn Work>,
    done: Arc<Signal>,
}

#[derive(Default)]
struct Queue {
    commands: VecDeque<Command>,
    /// Raised when everything submitted so far has ended.
    tail: Option<Arc<Signal>>,
    has_worker: bool,
    closed: bool,
}

/// A stream of one device.
pub struct Stream {
    pub device: &'static Device,
    pub kind: Kind,
    pub priority: i32,
    /// Set while the stream takes part in a capture.
    pub capture: Mutex<Option<Membership>>,
    queue: Mutex<Queue>,
    wake: Condvar,
}

impl Stream {
    /// A stream without work; its thread starts with the first submission.
    pub fn new(device: &'static Device, kind: Kind, priority: i32) -> Arc<Self> {
        Arc::new(Self {
            device,
            kind,
            priority,
            capture: Mutex::default(),
            queue: Mutex::default(),
            wake: Condvar::new(),
        })
    }

    /// Whether the stream records its work instead of doing it.
    pub fn is_capturing(&self) -> bool {
        lock(&self.capture).is_some()
    }

    /// The signal that is raised when all work submitted so far has ended,
    /// `None` if it has already.
    pub fn pending(&self) -> Option<Arc<Signal>> {
        lock(&self.queue).tail.clone().filter(|tail| tail.peek().is_none())
    }

    /// Blocks until all work submitted so far has ended, then reports a fault
    /// of the device.
    pub fn drain(&self) -> Result {
        if let Some(tail) = self.pending() {
            tail.wait();
        }
        self.device.healthy()
    }

    /// Lets the worker end once the queue is empty; nothing may be submitted
    /// afterwards.
    pub fn close(&self) {
        lock(&self.queue).closed = true;
        self.wake.notify_all();
    }

    fn push(self: &Arc<Self>, command: Command) -> Result {
        let mut queue = lock(&self.queue);
        if queue.closed {
            return Err(Error::InvalidHandle);
        }
        if !queue.has_worker {
            let stream = Arc::clone(self);
            std::thread::Builder::new()
                .name(format!("emu{}-stream", self.device.index))
                .spawn(move || stream.work())
                .map_err(|_| Error::OutOfMemory)?;
            queue.has_worker = true;
        }
        queue.tail = Some(Arc::clone(&command.done));
        queue.commands.push_back(command);
        self.wake.notify_one();
        Ok(())
    }

    fn next(&self) -> Option<Command> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(command) = queue.commands.pop_front() {
                return Some(command);
            }
            if queue.closed {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self) {
        while let Some(command) = self.next() {
            for signal in &command.waits {
                signal.wait();
            }
            command.done.raise(execute(&*command.work, self.device));
        }
    }
}

/// Does one piece of work unless the device has failed; its failure becomes the
/// device's.
pub fn execute(work: &dyn Work, device: &Device) -> Result {
    if !work.runs_after_a_fault() {
        device.healthy()?;
    }
    let run = AssertUnwindSafe(|| work.run(device));
    let result = catch_unwind(run).unwrap_or(Err(Error::Unknown));
    if let Err(error) = result {
        device.fail(error);
    }
    result
}

/// The streams of one device. Its lock makes a submission atomic with the
/// choice of what it waits for.
#[derive(Default)]
pub struct Streams {
    null: Option<Arc<Stream>>,
    created: Vec<Weak<Stream>>,
}

impl Streams {
    /// The null stream of `device`, made on first use.
    pub fn null(&mut self, device: &'static Device) -> Arc<Stream> {
        Arc::clone(self.null.get_or_insert_with(|| Stream::new(device, Kind::Null, 0)))
    }

    /// Adds a stream that a program created.
    pub fn add(&mut self, stream: &Arc<Stream>) {
        self.created.retain(|known| known.strong_count() > 0);
        self.created.push(Arc::downgrade(stream));
    }

    fn all(&self) -> impl Iterator<Item = Arc<Stream>> {
        self.null.iter().cloned().chain(self.created.iter().filter_map(Weak::upgrade))
    }

    /// The signals of all unfinished work, of every kind of stream.
    pub fn pending(&self) -> Vec<Arc<Signal>> {
        self.all().filter_map(|stream| stream.pending()).collect()
    }

    /// Forgets every stream and returns them.
    pub fn take(&mut self) -> Vec<Arc<Stream>> {
        let all = self.all().collect();
        *self = Self::default();
        all
    }

    /// What a submission to a stream of `kind` has to wait for.
    fn implicit_waits(&self, kind: Kind) -> Vec<Arc<Signal>> {
        let orders = |other: Kind| {
            matches!((kind, other), (Kind::Null, Kind::Blocking) | (Kind::Blocking, Kind::Null))
        };
        self.all().filter(|other| orders(other.kind)).filter_map(|other| other.pending()).collect()
    }

    /// Invalidates the captures that work on the null stream would have to wait
    /// for, and says whether there were any.
    fn break_implicit_captures(&self) -> bool {
        let mut any = false;
        for stream in self.all().filter(|stream| stream.kind == Kind::Blocking) {
            if let Some(membership) = &*lock(&stream.capture) {
                membership.capture.invalidate();
                any = true;
            }
        }
        any
    }
}

/// The signals of the unfinished work of `device` that its null stream is
/// ordered against, its own included.
pub fn ordered_work(device: &Device) -> Vec<Arc<Signal>> {
    let streams = lock(&device.streams);
    let ordered = streams.all().filter(|stream| stream.kind != Kind::NonBlocking);
    ordered.filter_map(|stream| stream.pending()).collect()
}

/// Submits `work` to `stream` after `waits`; the signal is raised when it
/// has ended.
///
/// # Errors
/// The device's fault, a stream that is closed, or work on the null stream
/// while a blocking stream captures.
pub fn submit(
    stream: &Arc<Stream>,
    work: Box<dyn Work>,
    mut waits: Vec<Arc<Signal>>,
) -> Result<Arc<Signal>> {
    stream.device.healthy()?;
    let streams = lock(&stream.device.streams);
    if stream.kind == Kind::Null && streams.break_implicit_captures() {
        return Err(Error::StreamCaptureImplicit);
    }
    waits.extend(streams.implicit_waits(stream.kind));
    let done = Arc::new(Signal::default());
    stream.push(Command { waits, work, done: Arc::clone(&done) })?;
    Ok(done)
}
