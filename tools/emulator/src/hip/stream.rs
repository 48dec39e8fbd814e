//! Streams: the calls that make them, wait for them and put work into them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use super::capture::{self, Mode};
use super::device::Device;
use super::error::{Error, Result};
use super::event::{self, Mark};
use super::graph;
use super::handles::{Handle, Handles};
use super::operation::Operation;
use super::out;
use super::queue::{self, Kind, Stream, Work};
use super::runtime::current;
use super::signal::lock;

/// `hipStreamLegacy` and `hipStreamPerThread`.
const LEGACY: usize = 1;
const PER_THREAD: usize = 2;
/// `hipStreamNonBlocking`.
const NON_BLOCKING: c_uint = 1;
/// Lowest and highest priority; they are kept but change nothing.
const LEAST_PRIORITY: c_int = 1;
const GREATEST_PRIORITY: c_int = -1;

static STREAMS: Handles<Stream> = Handles::new();

/// The calling thread's own streams, by device.
#[derive(Default)]
struct PerThread(HashMap<usize, Arc<Stream>>);

impl Drop for PerThread {
    fn drop(&mut self) {
        self.0.values().for_each(|stream| stream.close());
    }
}

thread_local! {
    static OWN: RefCell<PerThread> = RefCell::default();
}

/// The null stream of `device`.
pub fn null(device: &'static Device) -> Arc<Stream> {
    lock(&device.streams).null(device)
}

/// The stream a handle stands for; null is the current device's null stream.
///
/// # Errors
/// [`Error::InvalidHandle`] for a handle that is no stream's.
pub fn resolve(handle: Handle) -> Result<Arc<Stream>> {
    match handle as usize {
        0 | LEGACY => Ok(null(current()?)),
        PER_THREAD => per_thread(current()?),
        _ => STREAMS.get(handle),
    }
}

fn per_thread(device: &'static Device) -> Result<Arc<Stream>> {
    let own = |own: &RefCell<PerThread>| {
        let mut own = own.borrow_mut();
        let stream = own.0.entry(device.index).or_insert_with(|| {
            let stream = Stream::new(device, Kind::Blocking, 0);
            lock(&device.streams).add(&stream);
            stream
        });
        Arc::clone(stream)
    };
    OWN.try_with(own).map_err(|_| Error::InvalidHandle)
}

/// Puts work into the stream, or into the graph that it is capturing.
pub fn enqueue(stream: &Arc<Stream>, work: impl Work + 'static) -> Result {
    match capture::record(stream, Box::new(work))? {
        Some(work) => queue::submit(stream, work, Vec::new()).map(drop),
        None => Ok(()),
    }
}

/// Puts work into the stream and waits for its end.
///
/// # Errors
/// A capturing stream cannot be waited for, which spoils the capture.
pub fn run(stream: &Arc<Stream>, work: impl Work + 'static) -> Result {
    refuse_capturing(stream)?;
    queue::submit(stream, Box::new(work), Vec::new())?.wait().result
}

fn refuse_capturing(stream: &Stream) -> Result {
    match &*lock(&stream.capture) {
        None => Ok(()),
        Some(member) => {
            member.capture.invalidate();
            Err(Error::StreamCaptureUnsupported)
        }
    }
}

/// Ends every stream of an idle device.
pub fn forget(device: &Device) {
    for stream in lock(&device.streams).take() {
        capture::abandon(&stream);
        stream.close();
    }
    STREAMS.retain(|stream| stream.device.index != device.index);
    // Closed streams of other threads are replaced when they are next used.
    OWN.with(|own| own.borrow_mut().0.remove(&device.index));
}

fn create(handle: *mut Handle, flags: c_uint, priority: c_int) -> Result {
    if flags & !NON_BLOCKING != 0 {
        return Err(Error::InvalidValue);
    }
    let device = current()?;
    device.healthy()?;
    let kind = if flags == NON_BLOCKING { Kind::NonBlocking } else { Kind::Blocking };
    let priority = priority.clamp(GREATEST_PRIORITY, LEAST_PRIORITY);
    let stream = Stream::new(device, kind, priority);
    if handle.is_null() {
        return Err(Error::InvalidValue);
    }
    lock(&device.streams).add(&stream);
    // SAFETY: the callers' promise that `handle` is null or writable.
    unsafe { out(handle, STREAMS.insert(stream)) }
}

super::export::exports! {
    /// Creates a stream that is ordered against the null stream.
    ///
    /// # Safety
    /// `stream` is null or points to a writable handle.
    fn hipStreamCreate(stream: *mut Handle) {
        create(stream, 0, 0)
    }

    /// Creates a stream; `hipStreamNonBlocking` frees it of the null stream.
    ///
    /// # Safety
    /// `stream` is null or points to a writable handle.
    fn hipStreamCreateWithFlags(stream: *mut Handle, flags: c_uint) {
        create(stream, flags, 0)
    }

    /// Creates a stream with a priority, which changes nothing here.
    ///
    /// # Safety
    /// `stream` is null or points to a writable handle.
    fn hipStreamCreateWithPriority(stream: *mut Handle, flags: c_uint, priority: c_int) {
        create(stream, flags, priority)
    }

    /// The range of priorities.
    ///
    /// # Safety
    /// `least` and `greatest` are null or point to writable ints.
    fn hipDeviceGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) {
        current()?;
        // SAFETY: the caller's promise about both.
        unsafe { out(least, LEAST_PRIORITY).and(out(greatest, GREATEST_PRIORITY)) }
    }

    /// Retires the handle; work in the stream still ends.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipStreamDestroy(stream: Handle) {
        let stream = STREAMS.remove(stream)?;
        capture::abandon(&stream);
        stream.close();
        Ok(())
    }

    /// Waits until the work in the stream has ended.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipStreamSynchronize(stream: Handle) {
        let stream = resolve(stream)?;
        refuse_capturing(&stream)?;
        if stream.kind == Kind::Null {
            for signal in queue::ordered_work(stream.device) {
                signal.wait();
            }
        }
        stream.drain()
    }

    /// Whether the work in the stream has ended.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipStreamQuery(stream: Handle) {
        let stream = resolve(stream)?;
        refuse_capturing(&stream)?;
        stream.device.healthy()?;
        let busy = match stream.kind {
            Kind::Null => !queue::ordered_work(stream.device).is_empty(),
            _ => stream.pending().is_some(),
        };
        if busy { Err(Error::NotReady) } else { Ok(()) }
    }

    /// Makes later work in the stream wait for the event's latest record.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipStreamWaitEvent(stream: Handle, event: Handle, flags: c_uint) {
        let stream = resolve(stream)?;
        let event = event::resolve(event)?;
        if flags & !1 != 0 {
            return Err(Error::InvalidValue);
        }
        match event.mark() {
            Mark::Captured { capture, frontier } => capture::join(&stream, &capture, &frontier),
            _ if stream.is_capturing() => {
                capture::spoil(&stream);
                Err(Error::StreamCaptureIsolation)
            }
            Mark::Recorded(signal) if signal.peek().is_none() => {
                queue::submit(&stream, Box::new(Operation::Marker), vec![signal]).map(drop)
            }
            Mark::Recorded(_) | Mark::Never => Ok(()),
        }
    }

    /// The flags the stream was created with.
    ///
    /// # Safety
    /// `flags` is null or points to a writable unsigned int.
    fn hipStreamGetFlags(stream: Handle, flags: *mut c_uint) {
        let non_blocking = resolve(stream)?.kind == Kind::NonBlocking;
        // SAFETY: the caller's promise about `flags`.
        unsafe { out(flags, if non_blocking { NON_BLOCKING } else { 0 }) }
    }

    /// The priority the stream was created with.
    ///
    /// # Safety
    /// `priority` is null or points to a writable int.
    fn hipStreamGetPriority(stream: Handle, priority: *mut c_int) {
        // SAFETY: the caller's promise about `priority`.
        unsafe { out(priority, resolve(stream)?.priority) }
    }

    /// The device of the stream.
    ///
    /// # Safety
    /// `index` is null or points to a writable int.
    fn hipStreamGetDevice(stream: Handle, index: *mut c_int) {
        // SAFETY: the caller's promise about `index`.
        unsafe { out(index, resolve(stream)?.device.index as c_int) }
    }

    /// Calls `function(argument)` in stream order, from another thread.
    ///
    /// # Safety
    /// The function may be called from any thread with this argument, as often
    /// as a graph that captures the call is launched.
    fn hipLaunchHostFunc(
        stream: Handle,
        function: Option<unsafe extern "C" fn(*mut c_void)>,
        argument: *mut c_void,
    ) {
        let stream = resolve(stream)?;
        let (function, argument) = (function.ok_or(Error::InvalidValue)?, argument as usize);
        // SAFETY: the caller's promise about the function.
        let call = move || unsafe { function(argument as *mut c_void) };
        enqueue(&stream, Operation::Call(Box::new(call)))
    }

    /// Calls `function(stream, hipSuccess, argument)` in stream order, from
    /// another thread. A failed device calls nothing.
    ///
    /// # Safety
    /// The function may be called from any thread with these arguments.
    fn hipStreamAddCallback(
        stream: Handle,
        function: Option<unsafe extern "C" fn(Handle, c_int, *mut c_void)>,
        argument: *mut c_void,
        flags: c_uint,
    ) {
        let (handle, stream) = (stream as usize, resolve(stream)?);
        let (function, argument) = (function.ok_or(Error::InvalidValue)?, argument as usize);
        if flags != 0 {
            return Err(Error::InvalidValue);
        }
        // SAFETY: the caller's promise about the function.
        let call = move || unsafe { function(handle as Handle, 0, argument as *mut c_void) };
        enqueue(&stream, Operation::Call(Box::new(call)))
    }

    /// Begins to record the stream's work as a graph.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipStreamBeginCapture(stream: Handle, mode: c_int) {
        capture::begin(&resolve(stream)?, Mode::from_c(mode)?)
    }

    /// Ends the recording and returns the graph, null if it was spoilt.
    ///
    /// # Safety
    /// `graph` is null or points to a writable handle.
    fn hipStreamEndCapture(stream: Handle, graph: *mut Handle) {
        if graph.is_null() {
            return Err(Error::InvalidValue);
        }
        let ended = capture::end(&resolve(stream)?);
        let handle = ended.map(graph::insert);
        // SAFETY: the caller's promise about `graph`.
        unsafe { out(graph, handle.unwrap_or(std::ptr::null_mut()))? };
        handle.map(drop)
    }

    /// Whether the stream is recording: 0 no, 1 yes, 2 yes but spoilt.
    ///
    /// # Safety
    /// `status` is null or points to a writable int.
    fn hipStreamIsCapturing(stream: Handle, status: *mut c_int) {
        let (found, _) = capture::status(&*resolve(stream)?);
        // SAFETY: the caller's promise about `status`.
        unsafe { out(status, found) }
    }

    /// As `hipStreamIsCapturing`, with the number of the capture.
    ///
    /// # Safety
    /// `status` and `id` are null or point to a writable int and 64-bit integer.
    fn hipStreamGetCaptureInfo(stream: Handle, status: *mut c_int, id: *mut u64) {
        let (found, capture) = capture::status(&*resolve(stream)?);
        if !id.is_null() {
            // SAFETY: the caller's promise about `id`.
            unsafe { out(id, capture)? };
        }
        // SAFETY: the caller's promise about `status`.
        unsafe { out(status, found) }
    }

    /// Swaps the calling thread's capture mode with `*mode`.
    ///
    /// # Safety
    /// `mode` is null or points to a readable and writable int.
    fn hipThreadExchangeStreamCaptureMode(mode: *mut c_int) {
        if mode.is_null() {
            return Err(Error::InvalidValue);
        }
        // SAFETY: the caller's promise about `mode`, which is not null.
        let new = Mode::from_c(unsafe { *mode })?;
        // SAFETY: as above.
        unsafe { out(mode, capture::exchange_thread_mode(new) as c_int) }
    }
}
