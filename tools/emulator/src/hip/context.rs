//! Contexts: every device has one, the primary, and its handle stands for the
//! device. Making one current is setting the device.

use std::cell::RefCell;
use std::ffi::{c_int, c_uint};
use std::sync::{Arc, LazyLock};

use super::device::Device;
use super::error::{Error, Result};
use super::handles::{Handle, Handles};
use super::out;
use super::runtime::{current, device, runtime, set_current};

static CONTEXTS: Handles<usize> = Handles::new();
static PRIMARY: LazyLock<Vec<usize>> = LazyLock::new(|| {
    let devices = runtime().map_or(0, |runtime| runtime.devices.len());
    (0..devices).map(|index| CONTEXTS.insert(Arc::new(index)) as usize).collect()
});

thread_local! {
    /// Devices that were current when a context was pushed.
    static PUSHED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

fn of(device: &Device) -> Result<Handle> {
    PRIMARY.get(device.index).map(|&handle| handle as Handle).ok_or(Error::InvalidDevice)
}

fn device_of(context: Handle) -> Result<&'static Device> {
    let index = *CONTEXTS.get(context).map_err(|_| Error::InvalidContext)?;
    device(index as c_int)
}

super::export::exports! {
    /// The primary context of a device.
    ///
    /// # Safety
    /// `context` is null or points to a writable handle.
    fn hipDevicePrimaryCtxRetain(context: *mut Handle, index: c_int) {
        // SAFETY: the caller's promise about `context`.
        unsafe { out(context, of(device(index)?)?) }
    }

    /// Accepts the release of a primary context, which lives on.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipDevicePrimaryCtxRelease(index: c_int) {
        device(index).map(drop)
    }

    /// Flags (none) and state (active) of a primary context.
    ///
    /// # Safety
    /// `flags` and `active` are null or point to writable ints.
    fn hipDevicePrimaryCtxGetState(index: c_int, flags: *mut c_uint, active: *mut c_int) {
        device(index)?;
        // SAFETY: the caller's promise about both.
        unsafe { out(flags, 0).and(out(active, 1)) }
    }

    /// Makes the device's primary context current and returns it.
    ///
    /// # Safety
    /// `context` is null or points to a writable handle.
    fn hipCtxCreate(context: *mut Handle, _flags: c_uint, index: c_int) {
        let device = device(index)?;
        // SAFETY: the caller's promise about `context`.
        unsafe { out(context, of(device)?)? };
        let before = current()?.index;
        PUSHED.with_borrow_mut(|pushed| pushed.push(before));
        set_current(device);
        Ok(())
    }

    /// Accepts the end of a context, which lives on.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipCtxDestroy(context: Handle) {
        device_of(context).map(drop)
    }

    /// Makes a context's device the calling thread's.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipCtxSetCurrent(context: Handle) {
        set_current(device_of(context)?);
        Ok(())
    }

    /// The context of the calling thread's device.
    ///
    /// # Safety
    /// `context` is null or points to a writable handle.
    fn hipCtxGetCurrent(context: *mut Handle) {
        // SAFETY: the caller's promise about `context`.
        unsafe { out(context, of(current()?)?) }
    }

    /// Makes a context current until it is popped.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipCtxPushCurrent(context: Handle) {
        let device = device_of(context)?;
        let before = current()?.index;
        PUSHED.with_borrow_mut(|pushed| pushed.push(before));
        set_current(device);
        Ok(())
    }

    /// Returns the current context and makes the one before it current.
    ///
    /// # Safety
    /// `context` is null or points to a writable handle.
    fn hipCtxPopCurrent(context: *mut Handle) {
        let here = of(current()?)?;
        let before = PUSHED.with_borrow_mut(Vec::pop).ok_or(Error::InvalidContext)?;
        set_current(device(before as c_int)?);
        if context.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's promise about `context`.
        unsafe { out(context, here) }
    }

    /// The calling thread's device.
    ///
    /// # Safety
    /// `index` is null or points to a writable int.
    fn hipCtxGetDevice(index: *mut c_int) {
        // SAFETY: the caller's promise about `index`.
        unsafe { out(index, current()?.index as c_int) }
    }

    /// Waits until the current device is idle.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipCtxSynchronize() {
        super::capture::forbid_while_capturing()?;
        current()?.drain()
    }
}
