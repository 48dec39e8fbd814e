//! Recorded work that replays with one call.

use std::ops::{Deref, DerefMut};

use super::device::Device;
use super::error::GpuError;
use super::hip_sys::{hipGraph_t, hipGraphExec_t, hipStreamCaptureModeThreadLocal};
use super::stream::Stream;

/// Recorded work, ready to replay: same kernels, arguments and addresses.
pub struct Graph {
    device: Device,
    exec: hipGraphExec_t,
}

impl Graph {
    /// Records what `work` queues on `stream`, without running it. Inside, waiting, allocating and
    /// freeing are refused by the driver.
    pub fn record(
        stream: &Stream,
        work: impl FnOnce() -> Result<(), GpuError>,
    ) -> Result<Graph, GpuError> {
        let recording = Recording::begin(stream)?;
        work()?;
        let recorded = recording.end()?;
        Graph::instantiate(stream.device(), recorded)
    }

    /// Takes a recording and makes it launchable.
    fn instantiate(device: &Device, recorded: hipGraph_t) -> Result<Graph, GpuError> {
        let driver = device.driver();
        let mut exec = hipGraphExec_t::NULL;
        // SAFETY: `recorded` is live, and `exec` outlives the call.
        let instantiated = unsafe { driver.hipGraphInstantiateWithFlags(&mut exec, recorded, 0) };
        // SAFETY: `recorded` is live and not used again; what was instantiated does not need it.
        device.release("a recorded graph", || unsafe { driver.hipGraphDestroy(recorded) });
        instantiated.map_err(|fault| fault.asked(format!("a graph on {device}")))?;
        Ok(Graph { device: device.clone(), exec })
    }

    /// Queues the recorded work.
    ///
    /// # Safety
    ///
    /// Every buffer, pinned buffer and module that the recorded work uses is alive until `stream`
    /// has passed it; [`Recorded`] keeps that promise for what its owner drops after it.
    pub unsafe fn launch(&self, stream: &Stream) -> Result<(), GpuError> {
        self.device.enter()?;
        // SAFETY: graph and stream are live, and so is what the graph uses by the caller's promise.
        unsafe { self.device.driver().hipGraphLaunch(self.exec, stream.handle()) }
            .map_err(|fault| fault.asked(format!("a graph on {}", self.device)))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let driver = self.device.driver();
        // SAFETY: the graph is live; launches of it still complete.
        self.device.release("a graph", || unsafe { driver.hipGraphExecDestroy(self.exec) });
    }
}

/// A stream while it records. It is unusable until the recording has ended, so that dropping this
/// ends it, whether the work failed or panicked.
struct Recording<'a> {
    stream: &'a Stream,
    ended: bool,
}

impl<'a> Recording<'a> {
    fn begin(stream: &'a Stream) -> Result<Recording<'a>, GpuError> {
        let device = stream.device();
        device.enter()?;
        // SAFETY: the stream is live.
        unsafe {
            device.driver().hipStreamBeginCapture(stream.handle(), hipStreamCaptureModeThreadLocal)
        }
        .map_err(|fault| fault.asked("recording a graph"))?;
        Ok(Recording { stream, ended: false })
    }

    fn end(mut self) -> Result<hipGraph_t, GpuError> {
        self.close()
    }

    fn close(&mut self) -> Result<hipGraph_t, GpuError> {
        self.ended = true;
        let mut recorded = hipGraph_t::NULL;
        let (driver, stream) = (self.stream.device().driver(), self.stream.handle());
        // SAFETY: the stream is recording, and `recorded` outlives the call.
        unsafe { driver.hipStreamEndCapture(stream, &mut recorded) }
            .map_err(|fault| fault.asked("ending the recording of a graph"))?;
        Ok(recorded)
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // The work's own failure is what is reported.
        if let Ok(recorded) = self.close() {
            let device = self.stream.device();
            // SAFETY: `recorded` is live and nobody else has it.
            let destroy = || unsafe { device.driver().hipGraphDestroy(recorded) };
            device.release("an abandoned recording", destroy);
        }
    }
}

/// Graphs, and the stream that replays them: dropping it waits for the stream, then drops the
/// graphs.
///
/// Whoever owns graphs beside the buffers and kernels they use declares this field first. Fields
/// are dropped in the order of their declaration, so the replays have ended and the graphs are gone
/// before the first buffer is freed.
pub struct Recorded<T> {
    stream: Stream,
    graphs: T,
}

impl<T> Recorded<T> {
    /// `graphs`, which are launched on `stream` only.
    pub fn new(stream: &Stream, graphs: T) -> Recorded<T> {
        Recorded { stream: stream.clone(), graphs }
    }
}

impl<T> Deref for Recorded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.graphs
    }
}

impl<T> DerefMut for Recorded<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.graphs
    }
}

impl<T> Drop for Recorded<T> {
    fn drop(&mut self) {
        // An error here has been reported by whoever used the stream, or will be.
        let _ = self.stream.synchronize();
    }
}
