//! Recorded steps: at one token a step, launching some three hundred kernels would take as long as
//! running them.

use std::collections::VecDeque;

use super::forward::Forward;
use super::plan::Recipe;
use crate::gpu::{GpuError, Graph};

/// Recordings kept. A batch that shrinks and grows again meets the same steps.
const KEPT: usize = 16;

/// Steps ready to be replayed, the one used last in front.
#[derive(Default)]
pub struct Graphs {
    recorded: VecDeque<(Recipe, Graph)>,
}

impl Graphs {
    /// Runs the step of this recipe: what `queue` queues, recorded the first time.
    pub fn launch(
        &mut self,
        recipe: Recipe,
        forward: &Forward,
        queue: impl FnOnce(&Forward) -> Result<(), GpuError>,
    ) -> Result<(), GpuError> {
        let stream = &forward.first().stream;
        let known = self.recorded.iter().position(|(known, _)| *known == recipe);
        let entry = match known.and_then(|at| self.recorded.remove(at)) {
            Some(entry) => entry,
            None => (recipe, Graph::record(stream, || queue(forward))?),
        };
        self.recorded.push_front(entry);
        // Launches of a graph that goes still complete.
        self.recorded.truncate(KEPT);
        match self.recorded.front() {
            // SAFETY: the graph uses buffers and kernels of this engine only, which drops its graphs
            // first.
            Some((_, graph)) => unsafe { graph.launch(stream) },
            None => Ok(()),
        }
    }
}
