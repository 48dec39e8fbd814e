//! The HIP runtime API over the emulator.
//!
//! The functions have their C names and the ABI of HIP 5.2, whose header Debian
//! ships; where HIP 6 gave a function with a new layout a new name
//! (`hipGetDevicePropertiesR0600`) both are here. A program reaches them through
//! the shared library `libamdhip64.so` that the `amdhip64` crate makes, or in
//! process through [`symbol`].
//!
//! - `queue` orders work, of which it knows only the trait: a thread per stream,
//!   signals between them.
//! - `capture` and `graph` record work instead; `replay` runs it.
//! - `operation` has the simple kinds of work; `memory`, `transfer`, `module` and
//!   `registration` make work of what a program asks.
//! - Each file owns the handles it gives out; `process` resets them all.
//! - A kernel that faults leaves its device failed: every later call on the
//!   device returns that error until `hipDeviceReset`.

mod arguments;
mod attributes;
mod capture;
mod context;
mod device;
mod devices;
mod error;
mod event;
mod export;
mod function;
mod graph;
mod handles;
mod image;
mod memory;
mod module;
mod operation;
mod process;
mod properties;
mod queue;
mod registration;
mod replay;
mod runtime;
mod signal;
mod stats;
mod stream;
mod transfer;

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::LazyLock;

pub use module::last_fault;
pub use runtime::{ConfigError, configure, default_checkers};
pub use stats::{KernelStats, take_stats};

static SYMBOLS: LazyLock<HashMap<&'static str, usize>> = LazyLock::new(|| {
    let files = [
        context::exported(),
        devices::exported(),
        error::exported(),
        event::exported(),
        function::exported(),
        memory::exported(),
        module::exported(),
        process::exported(),
        registration::exported(),
        replay::exported(),
        stream::exported(),
        transfer::exported(),
    ];
    files.into_iter().flatten().collect()
});

/// The address of a HIP function by its C name, as `dlsym` would give it for
/// `libamdhip64.so`; `None` for one that this runtime does not have.
pub fn symbol(name: &str) -> Option<*const c_void> {
    SYMBOLS.get(name).map(|&address| address as *const c_void)
}

/// Names of all functions that [`symbol`] knows, sorted.
pub fn symbols() -> Vec<&'static str> {
    let mut names: Vec<_> = SYMBOLS.keys().copied().collect();
    names.sort_unstable();
    names
}

/// Writes a result through a pointer of the caller's.
///
/// # Errors
/// [`error::Error::InvalidValue`] if the pointer is null.
///
/// # Safety
/// `into` is null or valid for a write of `T`.
unsafe fn out<T>(into: *mut T, value: T) -> error::Result {
    if into.is_null() {
        return Err(error::Error::InvalidValue);
    }
    // SAFETY: not null, so the caller promises that it may be written; a program
    // may well pass an address that is not aligned.
    unsafe { into.write_unaligned(value) };
    Ok(())
}
