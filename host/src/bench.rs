//! Measurements: how long device work takes, and the ceilings to compare it with.

pub mod ceiling;
pub mod cublas;
pub mod device;
