//! The one integration binary; a comment per module says what it needs.

/// The CPU engine against the f64 model, and against itself bit for bit. Needs nothing.
mod cpu;

/// bf16 and MXFP4 against their definitions. Needs nothing.
mod codecs;
/// What every engine promises, over the CPU engine, the GPU engine and a fake. Needs a device and
/// its kernels.
mod conformance;
/// Snapshots whose widths are padded or whose elements are binary16. One test needs a device and
/// its kernels.
mod narrow;

/// The device tests run on: `GPTOSS_TEST_DEVICE`, by default two emulated gfx1151.
mod gpu;
/// The GPU engine against the f64 model, and against itself bit for bit. Needs a device and its
/// kernels.
mod gpu_engine;
/// Every kernel against its f64 oracle. Needs a device and its kernels.
mod kernels;
/// Imports between modules of the host point down. Needs nothing.
mod layers;
/// Memory, streams, events and graphs of the GPU layer. Needs a device, no kernels.
mod runtime;
/// Batches, budgets, cancels and preemption, on a fake engine. Needs nothing.
mod scheduler;
/// Threads, clients and lost devices; a long run of random requests. Needs nothing.
mod worker;
