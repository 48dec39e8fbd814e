//! Streams: queues of work that run in order, and events that mark points in them.

use std::sync::Arc;

use bytemuck::Pod;

use super::buffer::{DeviceBuffer, DeviceSlice};
use super::device::Device;
use super::error::GpuError;
use super::hip_sys::{
    hipErrorNotReady, hipEvent_t, hipEventDisableTiming, hipStream_t, hipStreamNonBlocking,
};

/// A queue of work on one device; work on it runs in the order it was queued. Clones are the same
/// stream.
#[derive(Clone)]
pub struct Stream(Arc<Inner>);

struct Inner {
    device: Device,
    handle: hipStream_t,
}

impl Stream {
    /// Creates a stream.
    pub fn new(device: &Device) -> Result<Stream, GpuError> {
        device.enter()?;
        let mut handle = hipStream_t::NULL;
        // SAFETY: `handle` outlives the call.
        unsafe { device.driver().hipStreamCreateWithFlags(&mut handle, hipStreamNonBlocking) }
            .map_err(|fault| fault.asked(format!("a stream on {device}")))?;
        Ok(Stream(Arc::new(Inner { device: device.clone(), handle })))
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    pub(crate) fn handle(&self) -> hipStream_t {
        self.0.handle
    }

    /// The driver's handle, for libraries that take one.
    pub fn as_ptr(&self) -> *mut std::ffi::c_void {
        self.0.handle.as_ptr()
    }

    /// Waits for everything queued so far. An error may come from any of it, or from a destructor;
    /// either way the work has ended, unless the device has failed.
    pub fn synchronize(&self) -> Result<(), GpuError> {
        let Inner { device, handle } = &*self.0;
        // SAFETY: the stream is live.
        device.wait("a stream", || unsafe { device.driver().hipStreamSynchronize(*handle) })
    }

    /// Makes later work here wait until the work before `event` is done, on whichever device.
    pub fn wait(&self, event: &Event) -> Result<(), GpuError> {
        self.0.device.enter()?;
        // SAFETY: stream and event are live.
        unsafe { self.0.device.driver().hipStreamWaitEvent(self.0.handle, event.handle, 0) }
            .map_err(|fault| fault.asked(format!("a stream of {} on an event", self.0.device)))
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
        let buffer = DeviceBuffer::new(&self.0.device, src.len())?;
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
        self.here("upload", dst)?;
        if src.is_empty() {
            return Ok(());
        }
        self.0.device.enter()?;
        let bytes = dst.bytes();
        // SAFETY: both sides hold `bytes`: the host's until then by the caller's promise, the
        // device's because freeing it waits for this device.
        unsafe {
            let src = src.as_ptr().cast();
            self.0.device.driver().hipMemcpyHtoDAsync(dst.address(), src, bytes, self.0.handle)
        }
        .map_err(|fault| fault.asked(format!("{bytes} bytes to {}", self.0.device)))
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
        self.here("download", src)?;
        if dst.is_empty() {
            return Ok(());
        }
        self.0.device.enter()?;
        let bytes = src.bytes();
        // SAFETY: both sides hold `bytes`: the host's until then by the caller's promise, the
        // device's because freeing it waits for this device.
        unsafe {
            let dst = dst.as_mut_ptr().cast();
            self.0.device.driver().hipMemcpyDtoHAsync(dst, src.address(), bytes, self.0.handle)
        }
        .map_err(|fault| fault.asked(format!("{bytes} bytes from {}", self.0.device)))
    }

    /// Queues a copy within the device.
    pub fn copy<T: Pod>(
        &self,
        dst: DeviceSlice<'_, T>,
        src: DeviceSlice<'_, T>,
    ) -> Result<(), GpuError> {
        self.same_length("copy", src.len(), dst.len())?;
        self.here("copy", dst)?;
        self.here("copy", src)?;
        if dst.is_empty() {
            return Ok(());
        }
        self.0.device.enter()?;
        let (driver, bytes) = (self.0.device.driver(), dst.bytes());
        // SAFETY: both views hold `bytes` here, and freeing memory of this device waits for its
        // pending work.
        unsafe { driver.hipMemcpyDtoDAsync(dst.address(), src.address(), bytes, self.0.handle) }
            .map_err(|fault| fault.asked(format!("{bytes} bytes within {}", self.0.device)))
    }

    /// Queues a copy between two devices of this stream's driver.
    ///
    /// # Safety
    ///
    /// Both buffers live until the stream has passed the copy: freeing memory waits for the work of
    /// its own device, and the copy is work of the stream's.
    pub unsafe fn copy_peer<T: Pod>(
        &self,
        dst: DeviceSlice<'_, T>,
        src: DeviceSlice<'_, T>,
    ) -> Result<(), GpuError> {
        self.same_length("copy", src.len(), dst.len())?;
        if dst.is_empty() {
            return Ok(());
        }
        self.0.device.enter()?;
        let (driver, bytes) = (self.0.device.driver(), dst.bytes());
        let (to, from) = (dst.device(), src.device());
        for device in [to, from] {
            if !std::ptr::eq(device.driver(), driver) {
                let here = &self.0.device;
                return Err(GpuError::Refused(format!("copy: {device} and {here} have no peers")));
            }
        }
        let (dst, src) = (to.locate(dst.address()), from.locate(src.address()));
        // SAFETY: both views hold `bytes`, until then by the caller's promise.
        unsafe { driver.memcpy_peer(dst, src, bytes, self.0.handle) }
            .map_err(|fault| fault.asked(format!("{bytes} bytes from {from} to {to}")))
    }

    /// Queues setting every byte to `value`. 0xff makes every f32 and bf16 a NaN.
    pub fn fill<T: Pod>(&self, dst: DeviceSlice<'_, T>, value: u8) -> Result<(), GpuError> {
        self.here("fill", dst)?;
        if dst.is_empty() {
            return Ok(());
        }
        self.0.device.enter()?;
        let bytes = dst.bytes();
        // SAFETY: the view holds `bytes`, and freeing it waits for this device.
        unsafe {
            self.0.device.driver().hipMemsetD8Async(dst.address(), value, bytes, self.0.handle)
        }
        .map_err(|fault| fault.asked(format!("{bytes} bytes on {}", self.0.device)))
    }

    /// Queues setting every 32-bit word to `value`.
    pub fn fill_words(&self, dst: DeviceSlice<'_, u32>, value: u32) -> Result<(), GpuError> {
        self.here("fill", dst)?;
        if dst.is_empty() {
            return Ok(());
        }
        self.0.device.enter()?;
        let words = dst.len();
        // SAFETY: the view holds `words` 32-bit words, and freeing it waits for this device.
        unsafe {
            self.0.device.driver().hipMemsetD32Async(dst.address(), value, words, self.0.handle)
        }
        .map_err(|fault| fault.asked(format!("{words} words on {}", self.0.device)))
    }

    /// Refuses another device's memory: freeing that would not wait for what is queued here.
    fn here<T>(&self, what: &str, view: DeviceSlice<'_, T>) -> Result<(), GpuError> {
        let (here, there) = (&self.0.device, view.device());
        if here == there {
            return Ok(());
        }
        Err(GpuError::Refused(format!("{what}: memory of {there} on a stream of {here}")))
    }

    fn same_length(&self, what: &str, src: usize, dst: usize) -> Result<(), GpuError> {
        if src == dst {
            return Ok(());
        }
        Err(GpuError::Refused(format!("{what}: {src} elements do not fit {dst}")))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let driver = self.device.driver();
        // SAFETY: the stream is live; work on it still completes.
        self.device.release("a stream", || unsafe { driver.hipStreamDestroy(self.handle) });
    }
}

/// A point in a stream.
pub struct Event {
    device: Device,
    handle: hipEvent_t,
}

impl Event {
    /// An event for ordering: no times, less overhead.
    pub fn new(device: &Device) -> Result<Event, GpuError> {
        Event::with_flags(device, hipEventDisableTiming)
    }

    /// An event that [`Event::elapsed_ms`] can read.
    pub fn timed(device: &Device) -> Result<Event, GpuError> {
        Event::with_flags(device, 0)
    }

    fn with_flags(device: &Device, flags: u32) -> Result<Event, GpuError> {
        device.enter()?;
        let mut handle = hipEvent_t::NULL;
        // SAFETY: `handle` outlives the call.
        unsafe { device.driver().hipEventCreateWithFlags(&mut handle, flags) }
            .map_err(|fault| fault.asked(format!("an event on {device}")))?;
        Ok(Event { device: device.clone(), handle })
    }

    /// Marks the present end of `stream`, a stream of the same device.
    pub fn record(&self, stream: &Stream) -> Result<(), GpuError> {
        self.device.enter()?;
        // SAFETY: event and stream are live.
        unsafe { self.device.driver().hipEventRecord(self.handle, stream.0.handle) }
            .map_err(|fault| fault.asked(format!("an event on {}", self.device)))
    }

    /// Whether the work before it is done.
    pub fn is_done(&self) -> Result<bool, GpuError> {
        self.device.enter()?;
        // SAFETY: the event is live.
        match unsafe { self.device.driver().hipEventQuery(self.handle) } {
            Ok(()) => Ok(true),
            Err(fault) if fault.code() == Some(hipErrorNotReady) => Ok(false),
            Err(fault) => Err(fault.asked(format!("an event on {}", self.device))),
        }
    }

    /// Waits for the work before it; errors as of [`Stream::synchronize`].
    pub fn synchronize(&self) -> Result<(), GpuError> {
        let device = &self.device;
        // SAFETY: the event is live.
        device.wait("an event", || unsafe { device.driver().hipEventSynchronize(self.handle) })
    }

    /// Milliseconds from `start` to here, both timed and done.
    pub fn elapsed_ms(&self, start: &Event) -> Result<f32, GpuError> {
        self.device.enter()?;
        let mut ms = 0.0;
        // SAFETY: both events are live, and `ms` outlives the call.
        unsafe { self.device.driver().hipEventElapsedTime(&mut ms, start.handle, self.handle) }
            .map_err(|fault| fault.asked(format!("time between events on {}", self.device)))?;
        Ok(ms)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let driver = self.device.driver();
        // SAFETY: the event is live; recorded work still completes.
        self.device.release("an event", || unsafe { driver.hipEventDestroy(self.handle) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Opened, open};

    /// The object that failed to be released, in the driver's words.
    const LEFT: &str = "hipTestDestroy";

    /// Queues work that takes a while, leaves a destructor's error, and lets `wait` wait: returns
    /// what that said, and whether the work was done when it did.
    fn error_of(wait: impl FnOnce(&Stream, &Event) -> Result<(), GpuError>) -> (String, bool) {
        let name = "emu:gfx1151".parse().unwrap();
        let Opened::Gpus { devices, .. } = open(&name).unwrap() else { panic!("no GPU") };
        let device = &devices[0];
        let (stream, event) = (Stream::new(device).unwrap(), Event::new(device).unwrap());
        let buffer = DeviceBuffer::<u32>::new(device, 16 << 20).unwrap();
        for value in 0..4 {
            stream.fill_words(buffer.view(), value).unwrap();
        }
        event.record(&stream).unwrap();
        device.release("a test's object", || Err(device.driver().missing(LEFT)));
        let error = wait(&stream, &event).unwrap_err().to_string();
        (error, event.is_done().unwrap())
    }

    #[test]
    fn a_wait_waits_before_it_returns_a_destructors_error() {
        type Wait = fn(&Stream, &Event) -> Result<(), GpuError>;
        let waits: [Wait; 3] = [
            |stream, _| stream.synchronize(),
            |_, event| event.synchronize(),
            |stream, _| stream.device().synchronize(),
        ];
        for (i, wait) in waits.into_iter().enumerate() {
            let (error, done) = error_of(wait);
            assert!(error.contains(LEFT), "{i}: {error}");
            assert!(done, "wait {i} returned before the work was done");
        }
    }
}
