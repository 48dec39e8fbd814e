//! Graphs: what a capture recorded, and how it runs.

use std::ffi::c_int;
use std::sync::Arc;

use super::device::Device;
use super::error::Result;
use super::handles::{Handle, Handles};
use super::queue::{Work, execute};
use super::signal::Signal;

/// `hipGraphExecUpdateResult`.
pub const UPDATE_SUCCESS: c_int = 0;
const UPDATE_TOPOLOGY_CHANGED: c_int = 2;
const UPDATE_NODE_TYPE_CHANGED: c_int = 3;

/// One captured piece of work.
pub struct Node {
    pub work: Box<dyn Work>,
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

/// Graphs that a program has a handle of.
pub static GRAPHS: Handles<Graph> = Handles::new();

/// Gives a graph a handle.
pub fn insert(graph: Graph) -> Handle {
    GRAPHS.insert(Arc::new(graph))
}

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
            ended_here.raise(execute(&*node.work, node.device));
        }
    }

    /// How `other` differs from this graph, as a `hipGraphExecUpdateResult`:
    /// only the parameters of nodes may.
    pub fn compare(&self, other: &Graph) -> c_int {
        let shape = |node: &Node| (node.device.index, node.lane, node.depends_on.clone());
        let kind = |node: &Node| node.work.kind();
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
