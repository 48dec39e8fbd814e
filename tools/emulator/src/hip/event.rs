//! Events: marks in streams, to wait for and to time.

use std::ffi::{c_float, c_uint};
use std::sync::{Arc, Mutex};

use super::capture::{self, Capture};
use super::device::Device;
use super::error::{Error, Result};
use super::handles::{Handle, Handles};
use super::operation::Operation;
use super::runtime::current;
use super::signal::{Signal, lock};
use super::{out, queue, stream};

/// `hipEventDisableTiming`.
const DISABLE_TIMING: c_uint = 2;
/// `hipEventInterprocess`.
const INTERPROCESS: c_uint = 4;
/// All flags of `hipEventCreateWithFlags`.
const KNOWN_FLAGS: c_uint = 1 | DISABLE_TIMING | INTERPROCESS | 0xf000_0000;

static EVENTS: Handles<Event> = Handles::new();

/// What an event stands for.
#[derive(Clone)]
pub enum Mark {
    /// It was never recorded.
    Never,
    /// The end of the work submitted to a stream before it was recorded.
    Recorded(Arc<Signal>),
    /// A place in a graph that is being captured.
    Captured { capture: Arc<Capture>, frontier: Vec<usize> },
}

/// An event of one device.
pub struct Event {
    device: usize,
    timed: bool,
    mark: Mutex<Mark>,
}

impl Event {
    /// What the event stands for now.
    pub fn mark(&self) -> Mark {
        lock(&self.mark).clone()
    }
}

/// The event a handle stands for.
pub fn resolve(handle: Handle) -> Result<Arc<Event>> {
    EVENTS.get(handle)
}

/// Retires the events of a device.
pub fn forget(device: &Device) {
    EVENTS.retain(|event| event.device != device.index);
}

fn create(handle: *mut Handle, flags: c_uint) -> Result {
    if handle.is_null() || flags & !KNOWN_FLAGS != 0 {
        return Err(Error::InvalidValue);
    }
    if flags & INTERPROCESS != 0 {
        return Err(Error::NotSupported);
    }
    let device = current()?.index;
    let timed = flags & DISABLE_TIMING == 0;
    let event = Event { device, timed, mark: Mutex::new(Mark::Never) };
    // SAFETY: the callers' promise that `handle` is null or writable.
    unsafe { out(handle, EVENTS.insert(Arc::new(event))) }
}

super::export::exports! {
    /// Creates an event of the current device that keeps times.
    ///
    /// # Safety
    /// `event` is null or points to a writable handle.
    fn hipEventCreate(event: *mut Handle) {
        create(event, 0)
    }

    /// Creates an event of the current device.
    ///
    /// # Safety
    /// `event` is null or points to a writable handle.
    fn hipEventCreateWithFlags(event: *mut Handle, flags: c_uint) {
        create(event, flags)
    }

    /// Retires the handle; streams that wait for the event still do.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipEventDestroy(event: Handle) {
        EVENTS.remove(event).map(drop)
    }

    /// Moves the event to the end of the work now in the stream.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipEventRecord(event: Handle, stream: Handle) {
        let event = resolve(event)?;
        let stream = stream::resolve(stream)?;
        if stream.device.index != event.device {
            return Err(Error::InvalidHandle);
        }
        let mark = match capture::frontier(&stream) {
            Some((capture, frontier)) => Mark::Captured { capture, frontier },
            None => Mark::Recorded(queue::submit(&stream, Box::new(Operation::Marker), Vec::new())?),
        };
        *lock(&event.mark) = mark;
        Ok(())
    }

    /// Waits until the work before the event has ended.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipEventSynchronize(event: Handle) {
        match resolve(event)?.mark() {
            Mark::Never => Ok(()),
            Mark::Recorded(signal) => signal.wait().result,
            Mark::Captured { .. } => Err(Error::CapturedEvent),
        }
    }

    /// Whether the work before the event has ended.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipEventQuery(event: Handle) {
        match resolve(event)?.mark() {
            Mark::Never => Ok(()),
            Mark::Recorded(signal) => signal.peek().ok_or(Error::NotReady)?.result,
            Mark::Captured { .. } => Err(Error::CapturedEvent),
        }
    }

    /// Milliseconds between two events, in host time.
    ///
    /// # Safety
    /// `milliseconds` is null or points to a writable float.
    fn hipEventElapsedTime(milliseconds: *mut c_float, start: Handle, stop: Handle) {
        let (start, stop) = (resolve(start)?, resolve(stop)?);
        if !(start.timed && stop.timed) || start.device != stop.device {
            return Err(Error::InvalidHandle);
        }
        let (Mark::Recorded(from), Mark::Recorded(to)) = (start.mark(), stop.mark()) else {
            return Err(Error::InvalidHandle);
        };
        let (from, to) = (from.peek().ok_or(Error::NotReady)?, to.peek().ok_or(Error::NotReady)?);
        from.result.and(to.result)?;
        let span = match to.at.checked_duration_since(from.at) {
            Some(later) => later.as_secs_f64(),
            None => -(from.at - to.at).as_secs_f64(),
        };
        // SAFETY: the caller's promise about `milliseconds`.
        unsafe { out(milliseconds, (span * 1e3) as c_float) }
    }
}
