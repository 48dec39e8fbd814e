//! GPUs: one code path over AMD's HIP, NVIDIA's CUDA driver and the emulator.
//!
//! Libraries are loaded at run time, so this program builds and starts with neither installed.
//! [`open`] turns a device name into [`Device`]s; a [`Stream`] orders work, a [`DeviceBuffer`] owns
//! memory, a [`Kernel`] of a [`Module`] runs, a [`Graph`] replays. Every driver call is checked, and
//! its error says what was asked; a destructor's error is returned by the next call on its device.
//!
//! | here | HIP | CUDA driver |
//! |---|---|---|
//! | [`Device`] | device ordinal | primary context |
//! | [`Stream`], [`Event`] | `hipStream_t`, `hipEvent_t` | `CUstream`, `CUevent` |
//! | [`Module`], [`Kernel`] | `hipModule_t`, `hipFunction_t` | `CUmodule`, `CUfunction` |
//! | [`DeviceBuffer`], [`DeviceSlice`] | `hipDeviceptr_t` | `CUdeviceptr` |
//! | [`PinnedBuffer`] | `hipHostMalloc` | `cuMemHostAlloc` |
//! | [`Graph`] | `hipGraphExec_t` | `CUgraphExec` |
//!
//! [`Kernels`] is every kernel of the table on one device, with a checked launcher for each.

mod buffer;
mod device;
mod driver;
mod error;
mod graph;
mod hip_sys;
pub mod launch;
mod module;
mod open;
pub mod pack;
mod report;
mod stream;

pub use buffer::{ALIGNMENT, DeviceBuffer, DeviceSlice, PinnedBuffer};
pub use device::{Device, Properties};
pub use driver::{Api, Driver, Virtual};
pub use error::GpuError;
pub use graph::{Graph, Recorded};
pub use launch::Kernels;
pub use module::{Kernel, LaunchConfig, Module, Resources};
pub use open::{Opened, open};
pub use report::{DriverReport, report};
pub use stream::{Event, Stream};
