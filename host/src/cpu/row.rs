//! What a step is made of.

/// One token of a step.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The chunk it belongs to.
    pub chunk: usize,
    /// In its sequence.
    pub position: usize,
    /// Its id.
    pub token: u32,
}
