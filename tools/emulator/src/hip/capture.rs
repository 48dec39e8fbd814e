//! Stream capture: work that is recorded as nodes instead of being run.
//!
//! Each stream of a capture has a frontier, the nodes that its next node depends
//! on. An event recorded in the stream keeps a copy of the frontier, and a
//! stream that waits for the event adds it to its own, joining the capture if it
//! was not in it yet.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, ThreadId};

use super::error::{Error, Result};
use super::graph::{Graph, Node};
use super::queue::{Kind, Stream, Work};
use super::signal::lock;

/// Which calls a capture forbids, in the numbering of `hipStreamCaptureMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Unsafe calls are refused in every thread.
    Global = 0,
    /// Unsafe calls are refused in the capturing thread.
    ThreadLocal = 1,
    /// Nothing is refused.
    Relaxed = 2,
}

impl Mode {
    /// The mode of a C value.
    pub fn from_c(mode: i32) -> Result<Self> {
        match mode {
            0 => Ok(Self::Global),
            1 => Ok(Self::ThreadLocal),
            2 => Ok(Self::Relaxed),
            _ => Err(Error::InvalidValue),
        }
    }
}

/// One running capture.
pub struct Capture {
    /// Unique among the captures of the process.
    pub id: usize,
    mode: Mode,
    thread: ThreadId,
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    nodes: Vec<Node>,
    members: Vec<Weak<Stream>>,
    invalid: bool,
}

/// The part a stream plays in a capture.
pub struct Membership {
    pub capture: Arc<Capture>,
    /// Nodes that the stream's next node depends on.
    pub frontier: Vec<usize>,
    lane: usize,
    origin: bool,
}

/// Captures that are running, by what they forbid.
static RUNNING: Mutex<Vec<(usize, Mode, ThreadId)>> = Mutex::new(Vec::new());
static NEXT_ID: AtomicUsize = AtomicUsize::new(1);

thread_local! {
    static THREAD_MODE: std::cell::Cell<Mode> = const { std::cell::Cell::new(Mode::Global) };
}

/// Replaces the calling thread's own mode and returns the former one.
pub fn exchange_thread_mode(mode: Mode) -> Mode {
    THREAD_MODE.replace(mode)
}

/// Refuses a call that a running capture cannot tolerate, such as an allocation.
pub fn forbid_while_capturing() -> Result {
    let here = thread::current().id();
    let own = THREAD_MODE.get();
    let clashes = |&(_, mode, thread): &(usize, Mode, ThreadId)| match own {
        Mode::Relaxed => false,
        Mode::ThreadLocal => mode != Mode::Relaxed && thread == here,
        Mode::Global => mode == Mode::Global || (mode == Mode::ThreadLocal && thread == here),
    };
    let clash = lock(&RUNNING).iter().any(clashes);
    if clash { Err(Error::StreamCaptureUnsupported) } else { Ok(()) }
}

impl Capture {
    /// Ends the hope of a graph; the stream that began the capture learns of it
    /// when it ends the capture.
    pub fn invalidate(&self) {
        lock(&self.record).invalid = true;
    }

    fn admit(&self, stream: &Arc<Stream>) -> usize {
        let mut record = lock(&self.record);
        record.members.push(Arc::downgrade(stream));
        record.members.len() - 1
    }
}

/// Begins a capture in `stream`.
///
/// # Errors
/// The null stream cannot capture; a stream cannot begin twice.
pub fn begin(stream: &Arc<Stream>, mode: Mode) -> Result {
    if stream.kind == Kind::Null {
        return Err(Error::StreamCaptureUnsupported);
    }
    let mut membership = lock(&stream.capture);
    if membership.is_some() {
        return Err(Error::IllegalState);
    }
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let thread = thread::current().id();
    let capture = Arc::new(Capture { id, mode, thread, record: Mutex::default() });
    let lane = capture.admit(stream);
    lock(&RUNNING).push((id, mode, thread));
    *membership = Some(Membership { capture, frontier: Vec::new(), lane, origin: true });
    Ok(())
}

/// Records `work` as the next node if `stream` is capturing; gives it back
/// otherwise.
pub fn record(stream: &Stream, work: Box<dyn Work>) -> Result<Option<Box<dyn Work>>> {
    let mut membership = lock(&stream.capture);
    let Some(member) = membership.as_mut() else {
        return Ok(Some(work));
    };
    let mut record = lock(&member.capture.record);
    if record.invalid {
        return Err(Error::StreamCaptureInvalidated);
    }
    let depends_on = std::mem::take(&mut member.frontier);
    member.frontier.push(record.nodes.len());
    record.nodes.push(Node { work, device: stream.device, lane: member.lane, depends_on });
    Ok(None)
}

/// The capture and frontier of `stream`, for an event to remember.
pub fn frontier(stream: &Stream) -> Option<(Arc<Capture>, Vec<usize>)> {
    let membership = lock(&stream.capture);
    membership.as_ref().map(|member| (Arc::clone(&member.capture), member.frontier.clone()))
}

/// Makes `stream` depend on an event recorded in `capture` at `frontier`.
///
/// # Errors
/// The stream takes part in another capture, or the capture is over.
pub fn join(stream: &Arc<Stream>, capture: &Arc<Capture>, frontier: &[usize]) -> Result {
    if !lock(&RUNNING).iter().any(|&(id, ..)| id == capture.id) {
        return Err(Error::CapturedEvent);
    }
    if stream.kind == Kind::Null {
        capture.invalidate();
        return Err(Error::StreamCaptureImplicit);
    }
    let mut membership = lock(&stream.capture);
    if let Some(member) = membership.as_mut() {
        if member.capture.id != capture.id {
            member.capture.invalidate();
            capture.invalidate();
            return Err(Error::StreamCaptureMerge);
        }
        let new = frontier.iter().filter(|node| !member.frontier.contains(node)).copied();
        let new: Vec<usize> = new.collect();
        member.frontier.extend(new);
        return Ok(());
    }
    let lane = capture.admit(stream);
    *membership = Some(Membership {
        capture: Arc::clone(capture),
        frontier: frontier.to_vec(),
        lane,
        origin: false,
    });
    Ok(())
}

/// Ends the capture that began in `stream` and returns what it recorded.
///
/// # Errors
/// No capture began here, it began in another thread, an error spoilt it, or a
/// stream that joined it was not joined back.
pub fn end(stream: &Arc<Stream>) -> Result<Graph> {
    let (capture, frontier) = {
        let mut membership = lock(&stream.capture);
        let member = membership.as_ref().ok_or(Error::IllegalState)?;
        if !member.origin {
            return Err(Error::StreamCaptureUnmatched);
        }
        if member.capture.mode != Mode::Relaxed && member.capture.thread != thread::current().id() {
            return Err(Error::StreamCaptureWrongThread);
        }
        let Membership { capture, frontier, .. } = membership.take().ok_or(Error::IllegalState)?;
        (capture, frontier)
    };
    lock(&RUNNING).retain(|&(id, ..)| id != capture.id);
    let record = std::mem::take(&mut *lock(&capture.record));
    for member in record.members.iter().filter_map(Weak::upgrade) {
        lock(&member.capture).take_if(|member| member.capture.id == capture.id);
    }
    if record.invalid {
        return Err(Error::StreamCaptureInvalidated);
    }
    if !reaches_all(&record.nodes, frontier) {
        return Err(Error::StreamCaptureUnjoined);
    }
    Ok(Graph { nodes: record.nodes })
}

/// Whether every node is an ancestor of, or in, `frontier`.
fn reaches_all(nodes: &[Node], mut frontier: Vec<usize>) -> bool {
    let mut seen = vec![false; nodes.len()];
    while let Some(node) = frontier.pop() {
        if !std::mem::replace(&mut seen[node], true) {
            frontier.extend(&nodes[node].depends_on);
        }
    }
    seen.into_iter().all(|seen| seen)
}

/// Status as HIP numbers it (0 not capturing, 1 capturing, 2 spoilt) and the
/// number of the capture.
pub fn status(stream: &Stream) -> (i32, u64) {
    match &*lock(&stream.capture) {
        None => (0, 0),
        Some(member) => {
            let status = if lock(&member.capture.record).invalid { 2 } else { 1 };
            (status, member.capture.id as u64)
        }
    }
}

/// Spoils the capture that `stream` takes part in.
pub fn spoil(stream: &Stream) {
    if let Some(member) = &*lock(&stream.capture) {
        member.capture.invalidate();
    }
}

/// Takes `stream` out of its capture, which is spoilt by that.
pub fn abandon(stream: &Stream) {
    if let Some(member) = lock(&stream.capture).take() {
        member.capture.invalidate();
        if member.origin {
            lock(&RUNNING).retain(|&(id, ..)| id != member.capture.id);
        }
    }
}
