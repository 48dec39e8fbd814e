//! Streams: queues of work that run in order, and events that mark points in them.

use bytemuck::Pod;

use super::buffer::{DeviceBuffer, DeviceSlice};
use super::device::Device;
use super::driver::{self, EventHandle, StreamHandle};
use super::error::GpuError;
use super::graph::Graph;

/// `hipStreamNonBlocking`, `CU_STREAM_NON_BLOCKING`: no implicit order with the default stream.
const NON_BLOCKING: u32 = 1;
/// `hipEventDisableTiming`, `CU_EVENT_DISABLE_TIMING`.
const DISABLE_TIMING: u32 = 2;
/// `hipStreamCaptureModeThreadLocal`, `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`: other threads may
/// allocate while this one records.
const CAPTURE_THREAD_LOCAL: i32 = 1;

/// A queue of work on one device; work on it runs in the order it was queued.
pub struct Stream {
    device: Device,
    handle: StreamHandle,
}

impl Stream {
    /// Creates a stream.
    pub fn new(device: &Device) -> Result<Stream, GpuError> {
        device.enter()?;
        let mut handle = StreamHandle::NULL;
        // SAFETY: `handle` outlives the call.
        unsafe { device.driver().stream_create(&mut handle, NON_BLOCKING) }
            .map_err(|fault| fault.asked(format!("a stream on {device}")))?;
        Ok(Stream { device: device.clone(), handle })
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn handle(&self) -> StreamHandle {
        self.handle
    }

    /// The driver's handle, for libraries that take one.
    pub fn as_ptr(&self) -> *mut std::ffi::c_void {
        self.handle.as_ptr()
    }

    /// Waits for everything queued so far. An error may come from any of it.
    pub fn synchronize(&self) -> Result<(), GpuError> {
        self.device.enter()?;
        // SAFETY: the stream is live.
        unsafe { self.device.driver().stream_synchronize(self.handle) }
            .map_err(|fault| fault.asked(format!("waiting for a stream of {}", self.device)))
    }

    /// Makes later work here wait until the work before `event` is done, on whichever device.
    pub fn wait(&self, event: &Event) -> Result<(), GpuError> {
        self.device.enter()?;
        // SAFETY: stream and event are live.
        unsafe { self.device.driver().stream_wait_event(self.handle, event.handle, 0) }
            .map_err(|fault| fault.asked(format!("a stream of {} on an event", self.device)))
    }

    /// Copies to the device and waits until it is done.
    pub fn upload<T: Pod>(&self, dst: DeviceSlice<'_, T>, src: &[T]) -> Result<(), GpuError> {
        // SAFETY: `src` outlives the copy, which the wait completes.
        unsafe { self.upload_async(dst, src)? };
        self.synchronize()
    }

    /// Copies to the host, once the work queued before is done, and waits for it.
    pub fn download<T: Pod>(&self, dst: &mut [T], src: DeviceSlice<'_, T>) -> Result<(), GpuError> {
        // SAFETY: `dst` outlives the copy, which the wait completes.
        unsafe { self.download_async(dst, src)? };
        self.synchronize()
    }

    /// A new buffer with the content of `src`.
    pub fn buffer_from<T: Pod>(&self, src: &[T]) -> Result<DeviceBuffer<T>, GpuError> {
        let buffer = DeviceBuffer::new(&self.device, src.len())?;
        self.upload(buffer.view(), src)?;
        Ok(buffer)
    }

    /// The content of device memory, once the work queued before is done.
    pub fn read<T: Pod>(&self, src: DeviceSlice<'_, T>) -> Result<Vec<T>, GpuError> {
        let mut dst = vec![T::zeroed(); src.len()];
        self.download(&mut dst, src)?;
        Ok(dst)
    }

    /// Queues a copy to the device. It runs beside other work only from a
    /// [`PinnedBuffer`](super::PinnedBuffer).
    ///
    /// # Safety
    ///
    /// `src` stays alive and unchanged until the stream has passed the copy.
    pub unsafe fn upload_async<T: Pod>(
        &self,
        dst: DeviceSlice<'_, T>,
        src: &[T],
    ) -> Result<(), GpuError> {
        self.same_length("upload", src.len(), dst.len())?;
        if src.is_empty() {
            return Ok(());
        }
        self.device.enter()?;
        let bytes = dst.bytes();
        // SAFETY: both sides hold `bytes`, the host's by the caller's promise until then.
        unsafe {
            let src = src.as_ptr().cast();
            self.device.driver().memcpy_htod_async(dst.address(), src, bytes, self.handle)
        }
        .map_err(|fault| fault.asked(format!("{bytes} bytes to {}", self.device)))
    }

    /// Queues a copy to the host. It runs beside other work only into a
    /// [`PinnedBuffer`](super::PinnedBuffer).
    ///
    /// # Safety
    ///
    /// `dst` stays alive and is neither read nor written until the stream has passed the copy.
    pub unsafe fn download_async<T: Pod>(
        &self,
        dst: &mut [T],
        src: DeviceSlice<'_, T>,
    ) -> Result<(), GpuError> {
        self.same_length("download", src.len(), dst.len())?;
        if dst.is_empty() {
            return Ok(());
        }
        self.device.enter()?;
        let bytes = src.bytes();
        // SAFETY: both sides hold `bytes`, the host's by the caller's promise until then.
        unsafe {
            let dst = dst.as_mut_ptr().cast();
            self.device.driver().memcpy_dtoh_async(dst, src.address(), bytes, self.handle)
        }
        .map_err(|fault| fault.asked(format!("{bytes} bytes from {}", self.device)))
    }

    /// Queues a copy within the device, or from another device of the same driver.
    pub fn copy<T: Pod>(
        &self,
        dst: DeviceSlice<'_, T>,
        src: DeviceSlice<'_, T>,
    ) -> Result<(), GpuError> {
        self.same_length("copy", src.len(), dst.len())?;
        if dst.is_empty() {
            return Ok(());
        }
        self.device.enter()?;
        let (driver, bytes) = (self.device.driver(), dst.bytes());
        let (to, from) = (dst.device(), src.device());
        // SAFETY: both views hold `bytes`, and freeing waits for pending work.
        let queued = unsafe {
            if to == from {
                driver.memcpy_dtod_async(dst.address(), src.address(), bytes, self.handle)
            } else {
                let (dst, src) = (to.locate(dst.address()), from.locate(src.address()));
                driver.memcpy_peer(dst, src, bytes, self.handle)
            }
        };
        queued.map_err(|fault| fault.asked(format!("{bytes} bytes from {from} to {to}")))
    }

    /// Queues setting every byte to `value`. 0xff makes every f32 and bf16 a NaN.
    pub fn fill<T: Pod>(&self, dst: DeviceSlice<'_, T>, value: u8) -> Result<(), GpuError> {
        if dst.is_empty() {
            return Ok(());
        }
        self.device.enter()?;
        let bytes = dst.bytes();
        // SAFETY: the view holds `bytes`.
        unsafe { self.device.driver().memset_d8_async(dst.address(), value, bytes, self.handle) }
            .map_err(|fault| fault.asked(format!("{bytes} bytes on {}", self.device)))
    }

    /// Queues setting every 32-bit word to `value`.
    pub fn fill_words(&self, dst: DeviceSlice<'_, u32>, value: u32) -> Result<(), GpuError> {
        if dst.is_empty() {
            return Ok(());
        }
        self.device.enter()?;
        let words = dst.len();
        // SAFETY: the view holds `words` 32-bit words.
        unsafe { self.device.driver().memset_d32_async(dst.address(), value, words, self.handle) }
            .map_err(|fault| fault.asked(format!("{words} words on {}", self.device)))
    }

    /// Records what `work` queues here into a graph, without running it. Inside, waiting,
    /// allocating and freeing are refused by the driver.
    pub fn capture(&self, work: impl FnOnce() -> Result<(), GpuError>) -> Result<Graph, GpuError> {
        self.device.enter()?;
        let driver = self.device.driver();
        // SAFETY: the stream is live.
        unsafe { driver.stream_begin_capture(self.handle, CAPTURE_THREAD_LOCAL) }
            .map_err(|fault| fault.asked("recording a graph"))?;
        // The recording ends even when the work failed: the stream is unusable until then.
        let worked = work();
        let mut recorded = driver::GraphHandle::NULL;
        // SAFETY: the stream is recording, and `recorded` outlives the call.
        let ended = unsafe { driver.stream_end_capture(self.handle, &mut recorded) };
        let graph = ended
            .map_err(|fault| fault.asked("ending the recording of a graph"))
            .and_then(|()| Graph::instantiate(&self.device, recorded));
        worked.and(graph)
    }

    fn same_length(&self, what: &str, src: usize, dst: usize) -> Result<(), GpuError> {
        if src == dst {
            return Ok(());
        }
        Err(GpuError::Refused(format!("{what}: {src} elements do not fit {dst}")))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let driver = self.device.driver();
        // SAFETY: the stream is live; work on it still completes.
        self.device.release("a stream", || unsafe { driver.stream_destroy(self.handle) });
    }
}

/// A point in a stream.
pub struct Event {
    device: Device,
    handle: EventHandle,
}

impl Event {
    /// An event for ordering: no times, less overhead.
    pub fn new(device: &Device) -> Result<Event, GpuError> {
        Event::with_flags(device, DISABLE_TIMING)
    }

    /// An event that [`Event::elapsed_ms`] can read.
    pub fn timed(device: &Device) -> Result<Event, GpuError> {
        Event::with_flags(device, 0)
    }

    fn with_flags(device: &Device, flags: u32) -> Result<Event, GpuError> {
        device.enter()?;
        let mut handle = EventHandle::NULL;
        // SAFETY: `handle` outlives the call.
        unsafe { device.driver().event_create(&mut handle, flags) }
            .map_err(|fault| fault.asked(format!("an event on {device}")))?;
        Ok(Event { device: device.clone(), handle })
    }

    /// Marks the present end of `stream`, a stream of the same device.
    pub fn record(&self, stream: &Stream) -> Result<(), GpuError> {
        self.device.enter()?;
        // SAFETY: event and stream are live.
        unsafe { self.device.driver().event_record(self.handle, stream.handle) }
            .map_err(|fault| fault.asked(format!("an event on {}", self.device)))
    }

    /// Whether the work before it is done.
    pub fn is_done(&self) -> Result<bool, GpuError> {
        self.device.enter()?;
        // SAFETY: the event is live.
        match unsafe { self.device.driver().event_query(self.handle) } {
            Ok(()) => Ok(true),
            Err(fault) if fault.code() == Some(driver::NOT_READY) => Ok(false),
            Err(fault) => Err(fault.asked(format!("an event on {}", self.device))),
        }
    }

    /// Waits for the work before it.
    pub fn synchronize(&self) -> Result<(), GpuError> {
        self.device.enter()?;
        // SAFETY: the event is live.
        unsafe { self.device.driver().event_synchronize(self.handle) }
            .map_err(|fault| fault.asked(format!("waiting for an event on {}", self.device)))
    }

    /// Milliseconds from `start` to here, both timed and done.
    pub fn elapsed_ms(&self, start: &Event) -> Result<f32, GpuError> {
        self.device.enter()?;
        let mut ms = 0.0;
        // SAFETY: both events are live, and `ms` outlives the call.
        unsafe { self.device.driver().event_elapsed(&mut ms, start.handle, self.handle) }
            .map_err(|fault| fault.asked(format!("time between events on {}", self.device)))?;
        Ok(ms)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let driver = self.device.driver();
        // SAFETY: the event is live; recorded work still completes.
        self.device.release("an event", || unsafe { driver.event_destroy(self.handle) });
    }
}
