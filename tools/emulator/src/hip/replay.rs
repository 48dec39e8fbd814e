//! The calls that make graphs launchable and replay them.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong};
use std::sync::{Arc, Mutex};

use super::device::Device;
use super::error::{Error, Result};
use super::graph::{GRAPHS, Graph, UPDATE_SUCCESS, insert};
use super::handles::{Handle, Handles};
use super::queue::Work;
use super::signal::{Signal, lock};
use super::{out, queue, stream};

/// Runs a graph.
struct Replay(Arc<Graph>);

impl Work for Replay {
    fn kind(&self) -> &'static str {
        "replay"
    }

    fn run(&self, _: &Device) -> Result {
        self.0.run()
    }
}

/// A graph made ready to launch.
struct Executable {
    graph: Mutex<Arc<Graph>>,
    /// Raised when the latest launch has ended: launches of one executable graph
    /// do not overlap.
    latest: Mutex<Arc<Signal>>,
}

static EXECUTABLES: Handles<Executable> = Handles::new();

/// `hipGraphInstantiateFlagAutoFreeOnLaunch`, and its successors up to
/// `hipGraphInstantiateFlagUseNodePriority`.
const KNOWN_FLAGS: c_ulonglong = 0xf;

fn instantiate(executable: *mut Handle, graph: Handle) -> Result {
    if executable.is_null() {
        return Err(Error::InvalidValue);
    }
    let graph = Mutex::new(GRAPHS.get(graph)?);
    let latest = Mutex::new(Arc::new(Signal::raised()));
    let handle = EXECUTABLES.insert(Arc::new(Executable { graph, latest }));
    // SAFETY: the callers' promise that `executable` is null or writable.
    unsafe { out(executable, handle) }
}

super::export::exports! {
    /// Makes an empty graph.
    ///
    /// # Safety
    /// `graph` is null or points to a writable handle.
    fn hipGraphCreate(graph: *mut Handle, flags: c_uint) {
        if graph.is_null() || flags != 0 {
            return Err(Error::InvalidValue);
        }
        // SAFETY: the caller's promise about `graph`.
        unsafe { out(graph, insert(Graph::default())) }
    }

    /// Retires the handle; executable graphs made of it stay.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipGraphDestroy(graph: Handle) {
        GRAPHS.remove(graph).map(drop)
    }

    /// The number of nodes. Nodes have no handles here, so `nodes` must be null.
    ///
    /// # Safety
    /// `count` is null or points to a writable `size_t`.
    fn hipGraphGetNodes(graph: Handle, nodes: *mut Handle, count: *mut usize) {
        let graph = GRAPHS.get(graph)?;
        if !nodes.is_null() {
            return Err(Error::NotSupported);
        }
        // SAFETY: the caller's promise about `count`.
        unsafe { out(count, graph.nodes.len()) }
    }

    /// Makes a graph ready to launch. The error node and log stay empty.
    ///
    /// # Safety
    /// `executable` and `error_node` are null or point to writable handles;
    /// `log` is null or points to `log_bytes` writable bytes.
    fn hipGraphInstantiate(
        executable: *mut Handle,
        graph: Handle,
        error_node: *mut Handle,
        log: *mut c_char,
        log_bytes: usize,
    ) {
        if !error_node.is_null() {
            // SAFETY: the caller's promise about `error_node`.
            unsafe { out(error_node, std::ptr::null_mut())? };
        }
        if !log.is_null() && log_bytes > 0 {
            // SAFETY: the caller's promise about `log`.
            unsafe { out(log, 0)? };
        }
        instantiate(executable, graph)
    }

    /// Makes a graph ready to launch; the flags change nothing here.
    ///
    /// # Safety
    /// `executable` is null or points to a writable handle.
    fn hipGraphInstantiateWithFlags(executable: *mut Handle, graph: Handle, flags: c_ulonglong) {
        if flags & !KNOWN_FLAGS != 0 {
            return Err(Error::InvalidValue);
        }
        instantiate(executable, graph)
    }

    /// Runs the graph in stream order, after its previous launch.
    ///
    /// # Safety
    /// Host memory that captured copies name is still valid.
    fn hipGraphLaunch(executable: Handle, stream: Handle) {
        let executable = EXECUTABLES.get(executable)?;
        let stream = stream::resolve(stream)?;
        let graph = Arc::clone(&lock(&executable.graph));
        if stream.is_capturing() {
            return stream::enqueue(&stream, Replay(graph));
        }
        let mut latest = lock(&executable.latest);
        let waits = vec![Arc::clone(&latest)];
        *latest = queue::submit(&stream, Box::new(Replay(graph)), waits)?;
        Ok(())
    }

    /// Retires the handle; a launch under way still ends.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipGraphExecDestroy(executable: Handle) {
        EXECUTABLES.remove(executable).map(drop)
    }

    /// Takes over the parameters of a graph that is otherwise the same.
    ///
    /// # Safety
    /// `error_node` is null or points to a writable handle, `result` to an int.
    fn hipGraphExecUpdate(
        executable: Handle,
        graph: Handle,
        error_node: *mut Handle,
        result: *mut c_int,
    ) {
        let (executable, graph) = (EXECUTABLES.get(executable)?, GRAPHS.get(graph)?);
        let mut current = lock(&executable.graph);
        let difference = current.compare(&graph);
        if !error_node.is_null() {
            // SAFETY: the caller's promise about `error_node`.
            unsafe { out(error_node, std::ptr::null_mut())? };
        }
        // SAFETY: the caller's promise about `result`.
        unsafe { out(result, difference)? };
        if difference != UPDATE_SUCCESS {
            return Err(Error::GraphExecUpdateFailure);
        }
        *current = graph;
        Ok(())
    }
}
