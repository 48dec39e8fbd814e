//! Graphs: what a capture recorded, and its replay.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong};
use std::sync::{Arc, Mutex};

use super::device::Device;
use super::error::{Error, Result};
use super::handles::{Handle, Handles};
use super::operation::Operation;
use super::signal::{Signal, lock};
use super::{out, queue, stream};

/// One captured operation.
pub struct Node {
    pub operation: Operation,
    pub device: &'static Device,
    /// Which of the captured streams recorded it.
    pub lane: usize,
    /// Earlier nodes that have to end first.
    pub depends_on: Vec<usize>,
}

/// Nodes in the order of their capture, which is a topological one.
#[derive(Default)]
pub struct Graph {
    pub nodes: Vec<Node>,
}

/// A graph made ready to launch.
struct Executable {
    graph: Mutex<Arc<Graph>>,
    /// Raised when the latest launch has ended: launches of one executable graph
    /// do not overlap.
    latest: Mutex<Arc<Signal>>,
}

static GRAPHS: Handles<Graph> = Handles::new();
static EXECUTABLES: Handles<Executable> = Handles::new();

/// `hipGraphExecUpdateResult`.
const UPDATE_SUCCESS: c_int = 0;
const UPDATE_TOPOLOGY_CHANGED: c_int = 2;
const UPDATE_NODE_TYPE_CHANGED: c_int = 3;
/// `hipGraphInstantiateFlagAutoFreeOnLaunch`, and its successors up to
/// `hipGraphInstantiateFlagUseNodePriority`.
const KNOWN_FLAGS: c_ulonglong = 0xf;

impl Graph {
    /// Runs the graph and blocks until it has ended.
    ///
    /// Every captured stream becomes a thread, so kernels that wait for each
    /// other across streams or devices make progress as they would directly.
    ///
    /// # Errors
    /// The first failure in node order.
    pub fn run(&self) -> Result {
        let lanes = self.nodes.iter().map(|node| node.lane).max().map_or(0, |last| last + 1);
        let ended: Vec<Signal> = self.nodes.iter().map(|_| Signal::default()).collect();
        if lanes == 1 {
            self.run_lane(0, &ended);
        } else {
            std::thread::scope(|scope| {
                for lane in 0..lanes {
                    let ended = &ended;
                    scope.spawn(move || self.run_lane(lane, ended));
                }
            });
        }
        ended.iter().filter_map(Signal::peek).try_for_each(|done| done.result)
    }

    fn run_lane(&self, lane: usize, ended: &[Signal]) {
        for (node, ended_here) in self.nodes.iter().zip(ended) {
            if node.lane != lane {
                continue;
            }
            for &before in &node.depends_on {
                ended[before].wait();
            }
            ended_here.raise(queue::execute(&node.operation, node.device));
        }
    }

    /// How `other` differs from this graph, as a `hipGraphExecUpdateResult`:
    /// only the parameters of nodes may.
    fn compare(&self, other: &Graph) -> c_int {
        let shape = |node: &Node| (node.device.index, node.lane, node.depends_on.clone());
        let kind = |node: &Node| std::mem::discriminant(&node.operation);
        let pairs = || self.nodes.iter().zip(&other.nodes);
        if self.nodes.len() != other.nodes.len() || pairs().any(|(a, b)| shape(a) != shape(b)) {
            UPDATE_TOPOLOGY_CHANGED
        } else if pairs().any(|(a, b)| kind(a) != kind(b)) {
            UPDATE_NODE_TYPE_CHANGED
        } else {
            UPDATE_SUCCESS
        }
    }
}

/// Gives a captured graph a handle.
pub fn insert(graph: Graph) -> Handle {
    GRAPHS.insert(Arc::new(graph))
}

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
            return stream::enqueue(&stream, Operation::Replay(graph));
        }
        let mut latest = lock(&executable.latest);
        let waits = vec![Arc::clone(&latest)];
        *latest = queue::submit(&stream, Operation::Replay(graph), waits)?;
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
