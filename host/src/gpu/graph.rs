//! Recorded work that replays with one call.

use super::device::Device;
use super::driver::{GraphExecHandle, GraphHandle};
use super::error::GpuError;
use super::stream::Stream;

/// Work recorded by [`Stream::capture`], ready to replay: same kernels, arguments and addresses.
pub struct Graph {
    device: Device,
    exec: GraphExecHandle,
}

impl Graph {
    /// Takes a recording and makes it launchable.
    pub(super) fn instantiate(device: &Device, recorded: GraphHandle) -> Result<Graph, GpuError> {
        let driver = device.driver();
        let mut exec = GraphExecHandle::NULL;
        // SAFETY: `recorded` is live, and `exec` outlives the call.
        let instantiated = unsafe { driver.graph_instantiate(&mut exec, recorded, 0) };
        // SAFETY: `recorded` is live and not used again; what was instantiated does not need it.
        device.release("a recorded graph", || unsafe { driver.graph_destroy(recorded) });
        instantiated.map_err(|fault| fault.asked(format!("a graph on {device}")))?;
        Ok(Graph { device: device.clone(), exec })
    }

    /// Queues the recorded work.
    ///
    /// # Safety
    ///
    /// Every buffer, pinned buffer and module that the recorded work uses is still alive.
    pub unsafe fn launch(&self, stream: &Stream) -> Result<(), GpuError> {
        self.device.enter()?;
        // SAFETY: graph and stream are live, and so is what the graph uses by the caller's promise.
        unsafe { self.device.driver().graph_launch(self.exec, stream.handle()) }
            .map_err(|fault| fault.asked(format!("a graph on {}", self.device)))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let driver = self.device.driver();
        // SAFETY: the graph is live; launches of it still complete.
        self.device.release("a graph", || unsafe { driver.graph_exec_destroy(self.exec) });
    }
}
