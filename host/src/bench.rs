//! Measurements: how long work takes, and the ceilings to compare it with.

pub mod ceiling;
pub mod chat;
pub mod cpu;
pub mod cublas;
pub mod device;
pub mod kernels;
pub mod load;
