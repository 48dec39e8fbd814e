//! Allocation: device memory, pinned and registered host memory.

use std::collections::BTreeSet;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Mutex;

use super::capture::forbid_while_capturing;
use super::device::Device;
use super::error::{Error, Result};
use super::handles::Handle;
use super::operation::Operation;
use super::runtime::{current, runtime};
use super::signal::lock;
use super::{out, stream};
use crate::{Allocation, MemoryError, Owner};

/// Memory is handed out in pages, and counted so.
const PAGE: usize = 4096;

/// Start addresses of host memory that the program owns and has registered.
static REGISTERED: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());
/// Makes the check against a device's size and the allocation one step.
static ALLOCATING: Mutex<()> = Mutex::new(());

/// `hipMemoryType` as HIP 5 numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
enum MemoryType {
    Host = 0,
    Device = 1,
}

/// `hipPointerAttribute_t`.
#[repr(C)]
pub struct PointerAttributes {
    memory_type: c_int,
    device: c_int,
    device_pointer: u64,
    host_pointer: u64,
    is_managed: c_int,
    allocation_flags: c_uint,
}

/// Where `address` leads.
///
/// # Errors
/// [`Error::InvalidValue`] for memory that this runtime does not know.
pub fn attributes(address: u64) -> Result<PointerAttributes> {
    let found = runtime()?.memory.find(address).ok_or(Error::InvalidValue)?;
    let (memory_type, device, host_pointer) = match found.owner {
        Owner::Device(index) => (MemoryType::Device, index, 0),
        Owner::HostPinned => (MemoryType::Host, current()?.index, address),
    };
    Ok(PointerAttributes {
        memory_type: memory_type as c_int,
        device: device as c_int,
        device_pointer: address,
        host_pointer,
        is_managed: 0,
        allocation_flags: 0,
    })
}

/// Bytes of `device` that are taken, in whole pages.
fn used(device: &Device) -> Result<usize> {
    let owned = |a: &Allocation| a.owner == Owner::Device(device.index);
    let allocations = runtime()?.memory.allocations();
    Ok(allocations.iter().filter(|a| owned(a)).map(|a| a.len.next_multiple_of(PAGE)).sum())
}

/// Allocates `bytes`, which may be 0, on `device`.
pub fn allocate(device: &Device, bytes: usize) -> Result<u64> {
    device.healthy()?;
    if bytes == 0 {
        return Ok(0);
    }
    let _one_at_a_time = lock(&ALLOCATING);
    let pages = bytes.checked_next_multiple_of(PAGE).ok_or(Error::OutOfMemory)?;
    if pages > device.memory_bytes.saturating_sub(used(device)?) {
        return Err(Error::OutOfMemory);
    }
    runtime()?.memory.allocate(Owner::Device(device.index), bytes).map_err(Error::from)
}

fn allocate_pinned(bytes: usize) -> Result<u64> {
    current()?.healthy()?;
    if bytes == 0 {
        return Ok(0);
    }
    runtime()?.memory.allocate(Owner::HostPinned, bytes).map_err(Error::from)
}

/// The allocation that starts at `address`.
fn starting_at(address: u64) -> Result<Allocation> {
    let found = runtime()?.memory.find(address).filter(|found| found.base == address);
    found.ok_or(Error::InvalidValue)
}

/// Frees device memory once its device is idle.
fn free(address: u64) -> Result {
    let runtime = runtime()?;
    if address == 0 {
        return Ok(());
    }
    let Owner::Device(index) = starting_at(address)?.owner else {
        return free_pinned(address);
    };
    let result = runtime.devices[index].drain();
    runtime.memory.free(address)?;
    result
}

fn free_pinned(address: u64) -> Result {
    let runtime = runtime()?;
    if address == 0 {
        return Ok(());
    }
    if starting_at(address)?.owner != Owner::HostPinned || lock(&REGISTERED).contains(&address) {
        return Err(Error::InvalidValue);
    }
    for device in &runtime.devices {
        // A failed device is as done with the memory as an idle one.
        let _ = device.drain();
    }
    runtime.memory.free(address).map_err(Error::from)
}

/// Frees all memory of `device`.
pub fn forget(device: &Device) -> Result {
    let memory = &runtime()?.memory;
    for allocation in memory.allocations() {
        if allocation.owner == Owner::Device(device.index) {
            memory.free(allocation.base)?;
        }
    }
    Ok(())
}

impl From<MemoryError> for Error {
    fn from(error: MemoryError) -> Self {
        match error {
            MemoryError::OutOfMemory { .. } => Self::OutOfMemory,
            MemoryError::NotAllocated { .. } => Self::InvalidValue,
            MemoryError::OutOfBounds { .. } => Self::IllegalAddress,
        }
    }
}

super::export::exports! {
    /// Describes where a pointer leads; see [`attributes`].
    ///
    /// # Safety
    /// `attributes` is null or points to a writable `hipPointerAttribute_t`.
    fn hipPointerGetAttributes(attributes: *mut PointerAttributes, pointer: *const c_void) {
        // SAFETY: the caller's promise about `attributes`.
        unsafe { out(attributes, self::attributes(pointer as u64)?) }
    }

    /// Allocates device memory on the current device, poisoned. Zero bytes give
    /// a null pointer.
    ///
    /// # Safety
    /// `pointer` is null or points to a writable pointer.
    fn hipMalloc(pointer: *mut u64, bytes: usize) {
        forbid_while_capturing()?;
        // SAFETY: the caller's promise about `pointer`.
        unsafe { out_allocated(pointer, || allocate(current()?, bytes)) }
    }

    /// As `hipMalloc`; the flags (fine-grained, signal memory) change nothing here.
    ///
    /// # Safety
    /// `pointer` is null or points to a writable pointer.
    fn hipExtMallocWithFlags(pointer: *mut u64, bytes: usize, _flags: c_uint) {
        forbid_while_capturing()?;
        // SAFETY: the caller's promise about `pointer`.
        unsafe { out_allocated(pointer, || allocate(current()?, bytes)) }
    }

    /// Allocates memory that the host and every device may touch.
    ///
    /// # Safety
    /// `pointer` is null or points to a writable pointer.
    fn hipMallocManaged(pointer: *mut u64, bytes: usize, _flags: c_uint) {
        forbid_while_capturing()?;
        // SAFETY: the caller's promise about `pointer`.
        unsafe { out_allocated(pointer, || allocate_pinned(bytes)) }
    }

    /// Allocates device memory; it is usable at once, which stream order permits.
    ///
    /// # Safety
    /// `pointer` is null or points to a writable pointer.
    fn hipMallocAsync(pointer: *mut u64, bytes: usize, stream: Handle) {
        let stream = stream::resolve(stream)?;
        if stream.is_capturing() {
            return Err(Error::StreamCaptureUnsupported);
        }
        // SAFETY: the caller's promise about `pointer`.
        unsafe { out_allocated(pointer, || allocate(stream.device, bytes)) }
    }

    /// Frees memory once the work submitted to the stream so far has ended.
    ///
    /// # Safety
    /// None beyond the C ABI: a pointer that is not an allocation is refused.
    fn hipFreeAsync(pointer: u64, stream: Handle) {
        let stream = stream::resolve(stream)?;
        if pointer == 0 {
            return Ok(());
        }
        if !matches!(starting_at(pointer)?.owner, Owner::Device(_)) {
            return Err(Error::InvalidValue);
        }
        if stream.is_capturing() {
            return Err(Error::StreamCaptureUnsupported);
        }
        stream::enqueue(&stream, Operation::Free(pointer))
    }

    /// Waits until the memory's device is idle and frees it. Null is fine.
    ///
    /// # Safety
    /// None beyond the C ABI: a pointer that is not an allocation is refused.
    fn hipFree(pointer: u64) {
        forbid_while_capturing()?;
        free(pointer)
    }

    /// Allocates pinned host memory, which kernels reach at the same address.
    ///
    /// # Safety
    /// `pointer` is null or points to a writable pointer.
    fn hipHostMalloc(pointer: *mut u64, bytes: usize, _flags: c_uint) {
        forbid_while_capturing()?;
        // SAFETY: the caller's promise about `pointer`.
        unsafe { out_allocated(pointer, || allocate_pinned(bytes)) }
    }

    /// The older name of `hipHostMalloc`.
    ///
    /// # Safety
    /// `pointer` is null or points to a writable pointer.
    fn hipHostAlloc(pointer: *mut u64, bytes: usize, _flags: c_uint) {
        forbid_while_capturing()?;
        // SAFETY: the caller's promise about `pointer`.
        unsafe { out_allocated(pointer, || allocate_pinned(bytes)) }
    }

    /// `hipHostMalloc` without flags.
    ///
    /// # Safety
    /// `pointer` is null or points to a writable pointer.
    fn hipMallocHost(pointer: *mut u64, bytes: usize) {
        forbid_while_capturing()?;
        // SAFETY: the caller's promise about `pointer`.
        unsafe { out_allocated(pointer, || allocate_pinned(bytes)) }
    }

    /// Waits until every device is idle and frees pinned host memory.
    ///
    /// # Safety
    /// None beyond the C ABI: a pointer that is not an allocation is refused.
    fn hipHostFree(pointer: u64) {
        forbid_while_capturing()?;
        free_pinned(pointer)
    }

    /// The older name of `hipHostFree`.
    ///
    /// # Safety
    /// None beyond the C ABI: a pointer that is not an allocation is refused.
    fn hipFreeHost(pointer: u64) {
        forbid_while_capturing()?;
        free_pinned(pointer)
    }

    /// Makes the program's own memory reachable by kernels, at its own address.
    ///
    /// # Safety
    /// `bytes` at `pointer` stay mapped, readable and writable until
    /// `hipHostUnregister` has returned.
    fn hipHostRegister(pointer: u64, bytes: usize, flags: c_uint) {
        let memory = &runtime()?.memory;
        if pointer == 0 || bytes == 0 || flags & !0xf != 0 {
            return Err(Error::InvalidValue);
        }
        let end = pointer.checked_add(bytes as u64).ok_or(Error::InvalidValue)?;
        let mut registered = lock(&REGISTERED);
        let overlaps = |a: &Allocation| a.base < end && pointer < a.base + a.len as u64;
        if memory.allocations().iter().any(overlaps) {
            return Err(Error::HostMemoryAlreadyRegistered);
        }
        // SAFETY: the caller's promise about the range; `hipHostUnregister`
        // drains every device before it ends the registration.
        unsafe { memory.register(pointer, bytes) };
        registered.insert(pointer);
        Ok(())
    }

    /// Waits until every device is idle and takes a registration back.
    ///
    /// # Safety
    /// None beyond the C ABI: memory that is not registered is refused.
    fn hipHostUnregister(pointer: u64) {
        let runtime = runtime()?;
        if pointer == 0 {
            return Err(Error::InvalidValue);
        }
        if !lock(&REGISTERED).remove(&pointer) {
            return Err(Error::HostMemoryNotRegistered);
        }
        for device in &runtime.devices {
            // A failed device is as done with the memory as an idle one.
            let _ = device.drain();
        }
        runtime.memory.free(pointer).map_err(Error::from)
    }

    /// The device's address of pinned host memory, which is the host's.
    ///
    /// # Safety
    /// `device_pointer` is null or points to a writable pointer.
    fn hipHostGetDevicePointer(device_pointer: *mut u64, pointer: u64, flags: c_uint) {
        let found = runtime()?.memory.find(pointer).ok_or(Error::InvalidValue)?;
        if found.owner != Owner::HostPinned || flags != 0 {
            return Err(Error::InvalidValue);
        }
        // SAFETY: the caller's promise about `device_pointer`.
        unsafe { out(device_pointer, pointer) }
    }

    /// Free and total bytes of the current device.
    ///
    /// # Safety
    /// `free` and `total` are null or point to writable `size_t`.
    fn hipMemGetInfo(free: *mut usize, total: *mut usize) {
        let device = current()?;
        device.healthy()?;
        let left = device.memory_bytes.saturating_sub(used(device)?);
        // SAFETY: the caller's promise about `free` and `total`.
        unsafe { out(free, left).and(out(total, device.memory_bytes)) }
    }

    /// Start and size of the allocation that an address lies in.
    ///
    /// # Safety
    /// `base` and `bytes` are null or point to a writable pointer and `size_t`.
    fn hipMemGetAddressRange(base: *mut u64, bytes: *mut usize, pointer: u64) {
        let found = runtime()?.memory.find(pointer).ok_or(Error::InvalidDevicePointer)?;
        // SAFETY: the caller's promise about `base` and `bytes`.
        unsafe { out(base, found.base).and(out(bytes, found.len)) }
    }

    /// Size of the allocation that starts at an address.
    ///
    /// # Safety
    /// `bytes` is null or points to a writable `size_t`.
    fn hipMemPtrGetInfo(pointer: *mut c_void, bytes: *mut usize) {
        // SAFETY: the caller's promise about `bytes`.
        unsafe { out(bytes, starting_at(pointer as u64)?.len) }
    }
}

/// Writes the address that `allocate` returns to `pointer`, allocating nothing
/// if there is nowhere to write it.
///
/// # Safety
/// `pointer` is null or points to a writable pointer.
unsafe fn out_allocated(pointer: *mut u64, allocate: impl FnOnce() -> Result<u64>) -> Result {
    if pointer.is_null() {
        return Err(Error::InvalidValue);
    }
    // SAFETY: the caller's promise about `pointer`.
    unsafe { out(pointer, allocate()?) }
}
