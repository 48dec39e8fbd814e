//! Loops of a kernel: natural loops of the control-flow graph.
//!
//! Method: basic blocks, immediate dominators by iteration (Cooper, Harvey and Kennedy, "A Simple,
//! Fast Dominance Algorithm"), and for each edge to a dominator the blocks that reach it without
//! passing the header.

use std::collections::BTreeSet;

/// Where control goes after an instruction. Targets are instruction indices; `None` is a target
/// outside the kernel or unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// To the next instruction.
    Next,
    /// To the target.
    Jump(Option<usize>),
    /// To the target or the next instruction.
    Branch(Option<usize>),
    /// Nowhere: the end, a return, a jump through a register.
    End,
}

impl Flow {
    fn target(self) -> Option<usize> {
        match self {
            Flow::Jump(target) | Flow::Branch(target) => target,
            Flow::Next | Flow::End => None,
        }
    }

    fn falls_through(self) -> bool {
        matches!(self, Flow::Next | Flow::Branch(_))
    }
}

/// A natural loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    /// Index of its first instruction, through which alone it is entered.
    pub header: usize,
    /// Indices of its instructions in ascending order, nested loops included.
    pub body: Vec<usize>,
    /// 1 for an outermost loop.
    pub depth: u32,
    /// Contains no other loop.
    pub innermost: bool,
}

/// The loops of a kernel that starts at instruction 0, ordered by header.
pub fn loops(flow: &[Flow]) -> Vec<Loop> {
    let graph = Graph::new(flow);
    let bodies = graph.loop_bodies();
    let contains = |outer: &(usize, BTreeSet<usize>), inner: usize| outer.1.contains(&inner);
    bodies
        .iter()
        .map(|(header, blocks)| Loop {
            header: graph.blocks[*header].0,
            body: blocks
                .iter()
                .flat_map(|&block| graph.blocks[block].0..graph.blocks[block].1)
                .collect(),
            depth: bodies.iter().filter(|outer| contains(outer, *header)).count() as u32,
            innermost: !bodies.iter().any(|(other, _)| other != header && blocks.contains(other)),
        })
        .collect()
}

/// Basic blocks and their edges.
struct Graph {
    /// First instruction and one past the last, in order.
    blocks: Vec<(usize, usize)>,
    successors: Vec<Vec<usize>>,
    predecessors: Vec<Vec<usize>>,
}

impl Graph {
    fn new(flow: &[Flow]) -> Graph {
        let targets = flow.iter().filter_map(|flow| flow.target());
        let after = flow.iter().enumerate().filter(|(_, f)| **f != Flow::Next).map(|(i, _)| i + 1);
        let leaders: BTreeSet<usize> =
            targets.chain(after).chain([0]).filter(|&at| at < flow.len()).collect();
        let starts: Vec<usize> = leaders.into_iter().collect();
        let ends = starts.iter().skip(1).copied().chain([flow.len()]);
        let blocks: Vec<(usize, usize)> = starts.iter().copied().zip(ends).collect();
        let block_at = |at: usize| starts.binary_search(&at).ok();
        let successors: Vec<Vec<usize>> = blocks
            .iter()
            .enumerate()
            .map(|(index, &(start, end))| {
                let last = if end > start { flow[end - 1] } else { Flow::End };
                let next = (last.falls_through() && index + 1 < blocks.len()).then_some(index + 1);
                last.target().and_then(block_at).into_iter().chain(next).collect()
            })
            .collect();
        let mut predecessors = vec![Vec::new(); blocks.len()];
        for (from, tos) in successors.iter().enumerate() {
            for &to in tos {
                predecessors[to].push(from);
            }
        }
        Graph { blocks, successors, predecessors }
    }

    /// Reachable blocks, each after all its predecessors except along back edges.
    fn reverse_postorder(&self) -> Vec<usize> {
        let mut order = Vec::new();
        let mut seen = vec![false; self.blocks.len()];
        let mut stack = vec![(0, 0)];
        seen[0] = true;
        while let Some((block, edge)) = stack.pop() {
            let Some(&next) = self.successors[block].get(edge) else {
                order.push(block);
                continue;
            };
            stack.push((block, edge + 1));
            if !std::mem::replace(&mut seen[next], true) {
                stack.push((next, 0));
            }
        }
        order.reverse();
        order
    }

    /// Immediate dominators; `None` for unreachable blocks. The entry dominates itself.
    fn dominators(&self) -> Vec<Option<usize>> {
        let order = self.reverse_postorder();
        let mut rank = vec![usize::MAX; self.blocks.len()];
        for (position, &block) in order.iter().enumerate() {
            rank[block] = position;
        }
        let mut dominator: Vec<Option<usize>> = vec![None; self.blocks.len()];
        dominator[0] = Some(0);
        let mut changed = true;
        while changed {
            changed = false;
            for &block in order.iter().skip(1) {
                let known = self.predecessors[block].iter().filter(|&&p| dominator[p].is_some());
                let new = known.copied().reduce(|a, b| common(a, b, &dominator, &rank));
                if new != dominator[block] {
                    dominator[block] = new;
                    changed = true;
                }
            }
        }
        dominator
    }

    /// Header block and blocks of every natural loop; loops of one header are one loop.
    fn loop_bodies(&self) -> Vec<(usize, BTreeSet<usize>)> {
        if self.blocks.is_empty() {
            return Vec::new();
        }
        let dominator = self.dominators();
        let mut bodies: Vec<(usize, BTreeSet<usize>)> = Vec::new();
        for header in 0..self.blocks.len() {
            let mut stack: Vec<usize> = self.predecessors[header]
                .iter()
                .copied()
                .filter(|&latch| dominates(header, latch, &dominator))
                .collect();
            if stack.is_empty() {
                continue;
            }
            let mut body = BTreeSet::from([header]);
            while let Some(block) = stack.pop() {
                if body.insert(block) {
                    let reachable = |p: &usize| dominator[*p].is_some();
                    stack.extend(self.predecessors[block].iter().copied().filter(reachable));
                }
            }
            bodies.push((header, body));
        }
        bodies
    }
}

/// The closest common dominator of two reachable blocks.
fn common(mut a: usize, mut b: usize, dominator: &[Option<usize>], rank: &[usize]) -> usize {
    while a != b {
        if rank[a] > rank[b] {
            a = dominator[a].unwrap_or(0);
        } else {
            b = dominator[b].unwrap_or(0);
        }
    }
    a
}

/// Whether every path to `block` passes `header`; no path at all does not count.
fn dominates(header: usize, mut block: usize, dominator: &[Option<usize>]) -> bool {
    while let Some(next) = dominator[block] {
        if block == header {
            return true;
        }
        if next == block {
            return false;
        }
        block = next;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use Flow::{Branch, End, Jump, Next};

    fn shape(flow: &[Flow]) -> Vec<(usize, usize, u32, bool)> {
        loops(flow).iter().map(|l| (l.header, l.body.len(), l.depth, l.innermost)).collect()
    }

    #[test]
    fn nothing_and_straight_code_have_none() {
        assert!(shape(&[]).is_empty());
        assert!(shape(&[Next, Next, End]).is_empty());
        assert!(shape(&[Branch(Some(2)), Next, End]).is_empty());
    }

    #[test]
    fn a_loop_of_one_block() {
        assert_eq!(shape(&[Next, Next, Branch(Some(1)), End]), [(1, 2, 1, true)]);
        assert_eq!(shape(&[Branch(Some(0)), End]), [(0, 1, 1, true)]);
    }

    #[test]
    fn a_nest_has_depths() {
        // for { for { } }, and a later loop by itself.
        let flow = [Next, Next, Branch(Some(1)), Branch(Some(0)), Next, Branch(Some(4)), End];
        assert_eq!(shape(&flow), [(0, 4, 1, false), (1, 2, 2, true), (4, 2, 1, true)]);
    }

    #[test]
    fn a_body_placed_after_the_end() {
        // The compiler put part of the loop behind s_endpgm.
        let flow = [Next, Branch(Some(4)), Branch(Some(1)), End, Next, Jump(Some(2))];
        assert_eq!(shape(&flow), [(1, 4, 1, true)]);
        assert_eq!(loops(&flow)[0].body, [1, 2, 4, 5]);
    }

    #[test]
    fn two_back_edges_are_one_loop() {
        assert_eq!(shape(&[Next, Branch(Some(0)), Next, Branch(Some(0)), End]), [(0, 4, 1, true)]);
    }

    #[test]
    fn unreachable_code_and_wild_targets_are_harmless() {
        assert!(shape(&[Branch(None), End, Next, Jump(Some(2))]).is_empty());
        assert!(shape(&[Jump(Some(99)), Next]).is_empty());
    }

    #[test]
    fn a_cycle_with_two_entries_is_no_natural_loop() {
        // 0 jumps to 2 or falls to 1; 1 and 2 form a cycle that neither dominates.
        assert!(shape(&[Branch(Some(2)), Next, Branch(Some(1)), End]).is_empty());
    }
}
