//! Memory: on the device, and page-locked on the host.
//!
//! Device memory is not host memory: what is in it changes in stream order, not in program order,
//! and any number of kernels may be reading and writing it. A view is therefore `Copy`, like a
//! shared reference to a `Cell`, and permits both; ordering accesses is the business of streams
//! and events.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::{Bound, Deref, DerefMut, RangeBounds};
use std::ptr::NonNull;

use bytemuck::Pod;

use super::device::Device;
use super::error::GpuError;
use super::hip_sys::{hipDeviceptr_t, hipHostMallocPortable};

/// Device memory is at least this aligned: both drivers promise 256 bytes.
pub const ALIGNMENT: usize = 256;

/// An array in device memory, freed on drop. Both drivers finish the device's pending work before
/// they free.
pub struct DeviceBuffer<T> {
    device: Device,
    ptr: hipDeviceptr_t,
    len: usize,
    of: PhantomData<T>,
}

// SAFETY: the buffer owns device memory; the host only ever holds its address.
unsafe impl<T: Send> Send for DeviceBuffer<T> {}
// SAFETY: a shared buffer gives out addresses, and streams order the accesses.
unsafe impl<T: Sync> Sync for DeviceBuffer<T> {}

impl<T: Pod> DeviceBuffer<T> {
    /// Allocates `len` elements with unspecified content. An empty buffer has an address too.
    pub fn new(device: &Device, len: usize) -> Result<DeviceBuffer<T>, GpuError> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(|| {
            GpuError::Refused(format!("buffer of {len} x {} bytes: too large", size_of::<T>()))
        })?;
        let ptr = device.allocate(bytes.max(1))?;
        Ok(DeviceBuffer { device: device.clone(), ptr, len, of: PhantomData })
    }
}

impl<T> DeviceBuffer<T> {
    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it is.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// All of it.
    pub fn view(&self) -> DeviceSlice<'_, T> {
        DeviceSlice { device: &self.device, ptr: self.ptr, len: self.len, of: PhantomData }
    }

    /// A part of it; see [`DeviceSlice::slice`].
    ///
    /// # Panics
    ///
    /// When the range is not inside the buffer, as slicing on the host does.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> DeviceSlice<'_, T> {
        self.view().slice(range)
    }
}

impl<T> Drop for DeviceBuffer<T> {
    fn drop(&mut self) {
        // SAFETY: the buffer owns the allocation, and no view of it is left.
        self.device.release("a buffer", || unsafe { self.device.driver().hipFree(self.ptr) });
    }
}

/// A view of device memory that kernels and copies may read and write.
#[derive(Debug)]
pub struct DeviceSlice<'a, T> {
    device: &'a Device,
    ptr: hipDeviceptr_t,
    len: usize,
    of: PhantomData<&'a T>,
}

impl<T> Clone for DeviceSlice<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for DeviceSlice<'_, T> {}

// SAFETY: an address and a length; see the module documentation.
unsafe impl<T: Send> Send for DeviceSlice<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for DeviceSlice<'_, T> {}

impl<'a, T> DeviceSlice<'a, T> {
    /// Elements.
    pub fn len(self) -> usize {
        self.len
    }

    /// Bytes.
    pub fn bytes(self) -> usize {
        self.len * size_of::<T>()
    }

    /// Whether it has no element.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Where it is.
    pub fn device(self) -> &'a Device {
        self.device
    }

    /// Its address on the device.
    pub fn address(self) -> u64 {
        self.ptr
    }

    /// A part of it.
    ///
    /// # Panics
    ///
    /// When the range is not inside the view, as slicing on the host does.
    #[track_caller]
    pub fn slice(self, range: impl RangeBounds<usize>) -> DeviceSlice<'a, T> {
        let start = match range.start_bound() {
            Bound::Included(&at) => at,
            Bound::Excluded(&at) => at + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&at) => at + 1,
            Bound::Excluded(&at) => at,
            Bound::Unbounded => self.len,
        };
        assert!(
            start <= end && end <= self.len,
            "slice {start}..{end} of a device view of {} elements",
            self.len
        );
        let ptr = self.ptr + (start * size_of::<T>()) as u64;
        DeviceSlice { ptr, len: end - start, ..self }
    }

    /// The same memory as elements of another type.
    ///
    /// # Errors
    ///
    /// When the length or the address does not fit the type.
    pub fn cast<U: Pod>(self) -> Result<DeviceSlice<'a, U>, GpuError> {
        let bytes = self.bytes();
        if !bytes.is_multiple_of(size_of::<U>()) || !self.ptr.is_multiple_of(align_of::<U>() as u64)
        {
            return Err(GpuError::Refused(format!(
                "view of {bytes} bytes at {:#x} as elements of {} bytes: does not divide",
                self.ptr,
                size_of::<U>()
            )));
        }
        let len = bytes / size_of::<U>();
        Ok(DeviceSlice { device: self.device, ptr: self.ptr, len, of: PhantomData })
    }
}

/// A page-locked array on the host: copies from and to it run beside kernels. Starts zeroed.
pub struct PinnedBuffer<T> {
    device: Device,
    ptr: NonNull<T>,
    len: usize,
}

// SAFETY: the buffer owns ordinary host memory that the driver has locked.
unsafe impl<T: Send> Send for PinnedBuffer<T> {}
// SAFETY: as above; shared access only reads.
unsafe impl<T: Sync> Sync for PinnedBuffer<T> {}

impl<T: Pod> PinnedBuffer<T> {
    /// Allocates `len` zeroed elements, usable with every device of the driver.
    pub fn new(device: &Device, len: usize) -> Result<PinnedBuffer<T>, GpuError> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(|| {
            GpuError::Refused(format!("pinned {len} x {} bytes: too large", size_of::<T>()))
        })?;
        device.enter()?;
        let mut ptr: *mut c_void = std::ptr::null_mut();
        // SAFETY: `ptr` outlives the call.
        unsafe { device.driver().hipHostMalloc(&mut ptr, bytes.max(1), hipHostMallocPortable) }
            .map_err(|fault| fault.asked(format!("{bytes} bytes of page-locked host memory")))?;
        let ptr = NonNull::new(ptr.cast::<T>()).ok_or_else(|| {
            GpuError::Refused("page-locked memory: the driver returned null".to_owned())
        })?;
        // SAFETY: the driver allocated at least `bytes`, page-aligned.
        unsafe { ptr.write_bytes(0, len) };
        Ok(PinnedBuffer { device: device.clone(), ptr, len })
    }
}

impl<T> Deref for PinnedBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements, initialised by `new`, and any bits are a `Pod`.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for PinnedBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl<T> Drop for PinnedBuffer<T> {
    fn drop(&mut self) {
        let ptr = self.ptr.as_ptr().cast::<c_void>();
        // SAFETY: the buffer owns the allocation; who copies asynchronously promised to wait.
        self.device.release("pinned memory", || unsafe { self.device.driver().hipHostFree(ptr) });
    }
}
