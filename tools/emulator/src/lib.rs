//! A functional AMDGPU emulator behind the HIP runtime API.
//!
//! It executes AMDHSA code objects instruction by instruction. The core below knows no HIP:
//! [`Memory`] holds what device pointers point to, [`CodeImage`] is a code object loaded into it,
//! and [`launch`](launch()) runs one kernel over a grid and returns what it counted, or the
//! [`Fault`] that stopped it. [`hip`] is the runtime API on top.

pub mod bench;
mod check;
pub mod chip;
pub mod code;
pub mod counters;
mod exec;
pub mod fault;
mod guest;
pub mod hip;
mod isa;
pub mod launch;
pub mod memory;

pub use check::Checkers;
pub use chip::{Chip, UnknownChip};
pub use code::{CodeImage, Kernel, LoadError};
pub use counters::Counters;
pub use fault::{Fault, FaultKind};
pub use hip::{
    ConfigError, KernelStats, configure, default_checkers, last_fault, symbol, symbols, take_stats,
};
pub use launch::{Launch, LaunchError, Options, launch};
pub use memory::{Allocation, Memory, MemoryError, Owner};
