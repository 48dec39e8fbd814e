//! Model files and the weights they hold, whichever format they came from.

mod weights;

pub use shared::model::{ModelConfig, Rope};
pub use weights::{Bytes, Dtype, ExpertWeights, Experts, Layer, Linear, Matrix, Store, Weights};
