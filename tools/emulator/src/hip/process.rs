//! The calls that reach into every other part: finding a function, forgetting a device.

use std::ffi::{c_char, c_int};

use super::error::{Error, Result};
use super::runtime::{current, runtime};
use super::{event, memory, module, out, registration, stream};

/// Forgets everything that belongs to the current device.
///
/// # Errors
/// There is no such device, or its memory cannot be freed.
fn reset() -> Result {
    let device = current()?;
    // What a failed device reports here is about to be forgotten.
    let _ = device.drain();
    stream::forget(device);
    event::forget(device);
    module::forget(device);
    registration::forget(device.index);
    memory::forget(device)?;
    let runtime = runtime()?;
    for peer in &runtime.devices {
        runtime.memory.set_peer_access(device.index, peer.index, false);
    }
    device.recover();
    Ok(())
}

super::export::exports! {
    /// The address of a function by its name, whatever the version asked for.
    /// `status` becomes 0 for one that exists and 1 for one that does not.
    ///
    /// # Safety
    /// `name` is null or a C string, `address` null or points to a writable
    /// pointer, `status` null or points to a writable int.
    fn hipGetProcAddress(
        name: *const c_char,
        address: *mut usize,
        _version: c_int,
        _flags: u64,
        status: *mut c_int,
    ) {
        // SAFETY: the caller's promise about `name`.
        let found = super::symbol(unsafe { module::name(name)? });
        // SAFETY: the caller's promise about `address`.
        unsafe { out(address, found.map_or(0, |address| address as usize))? };
        if !status.is_null() {
            // SAFETY: the caller's promise about `status`.
            unsafe { out(status, c_int::from(found.is_none()))? };
        }
        found.map(drop).ok_or(Error::NotFound)
    }

    /// Ends all work of the current device and frees everything on it: streams,
    /// events, modules, memory, and the failure it may be in.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipDeviceReset() {
        reset()
    }
}
