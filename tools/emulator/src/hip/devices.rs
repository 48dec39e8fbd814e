//! The calls that choose and describe devices.

use std::ffi::{CStr, c_char, c_int, c_uint};

use super::capture::forbid_while_capturing;
use super::device::Device;
use super::error::{Error, Result};
use super::properties::{self, Properties5, Properties6, copy_name};
use super::runtime::{self, current, device, runtime};
use super::{attributes, out};

/// The HIP whose header this surface follows: 5.2, in HIP's encoding
/// `major * 10^7 + minor * 10^5 + patch`.
const VERSION: c_int = 5 * 10_000_000 + 2 * 100_000;

super::export::exports! {
    /// Starts the runtime; `flags` has to be 0.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipInit(flags: c_uint) {
        runtime()?;
        if flags == 0 { Ok(()) } else { Err(Error::InvalidValue) }
    }

    /// The version of the driver, the runtime's own.
    ///
    /// # Safety
    /// `version` is null or points to a writable int.
    fn hipDriverGetVersion(version: *mut c_int) {
        // SAFETY: the caller's promise about `version`.
        unsafe { out(version, VERSION) }
    }

    /// The version of HIP whose ABI this is.
    ///
    /// # Safety
    /// `version` is null or points to a writable int.
    fn hipRuntimeGetVersion(version: *mut c_int) {
        // SAFETY: the caller's promise about `version`.
        unsafe { out(version, VERSION) }
    }

    /// The number of virtual devices.
    ///
    /// # Safety
    /// `count` is null or points to a writable int.
    fn hipGetDeviceCount(count: *mut c_int) {
        // SAFETY: the caller's promise about `count`.
        unsafe { out(count, runtime()?.devices.len() as c_int) }
    }

    /// Makes a device the calling thread's.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipSetDevice(index: c_int) {
        runtime::set_current(device(index)?);
        Ok(())
    }

    /// The calling thread's device.
    ///
    /// # Safety
    /// `index` is null or points to a writable int.
    fn hipGetDevice(index: *mut c_int) {
        // SAFETY: the caller's promise about `index`.
        unsafe { out(index, current()?.index as c_int) }
    }

    /// The driver's handle of a device, which is its number.
    ///
    /// # Safety
    /// `handle` is null or points to a writable int.
    fn hipDeviceGet(handle: *mut c_int, index: c_int) {
        // SAFETY: the caller's promise about `handle`.
        unsafe { out(handle, device(index)?.index as c_int) }
    }

    /// The board's name, cut to `len` bytes with the terminating zero.
    ///
    /// # Safety
    /// `name` is null or points to `len` writable bytes.
    fn hipDeviceGetName(name: *mut c_char, len: c_int, index: c_int) {
        let board = device(index)?.chip.properties().board;
        // SAFETY: the caller's promise about `name`.
        unsafe { out_text(name, len, board) }
    }

    /// The device's identity, 16 bytes.
    ///
    /// # Safety
    /// `uuid` is null or points to 16 writable bytes.
    fn hipDeviceGetUuid(uuid: *mut [u8; 16], index: c_int) {
        // SAFETY: the caller's promise about `uuid`.
        unsafe { out(uuid, device(index)?.uuid()) }
    }

    /// The device's PCI address as `domain:bus:device.function`.
    ///
    /// # Safety
    /// `id` is null or points to `len` writable bytes.
    fn hipDeviceGetPCIBusId(id: *mut c_char, len: c_int, index: c_int) {
        let address = format!("0000:{:02x}:00.0", device(index)?.pci_bus());
        // SAFETY: the caller's promise about `id`.
        unsafe { out_text(id, len, &address) }
    }

    /// The device at a PCI address.
    ///
    /// # Safety
    /// `index` is null or points to a writable int; `id` is null or a C string.
    fn hipDeviceGetByPCIBusId(index: *mut c_int, id: *const c_char) {
        if id.is_null() {
            return Err(Error::InvalidValue);
        }
        // SAFETY: the caller's promise about `id`, which is not null.
        let id = unsafe { CStr::from_ptr(id) }.to_string_lossy();
        let at_id = |device: &&Device| id == format!("0000:{:02x}:00.0", device.pci_bus());
        let found = runtime()?.devices.iter().find(at_id).ok_or(Error::InvalidDevice)?;
        // SAFETY: the caller's promise about `index`.
        unsafe { out(index, found.index as c_int) }
    }

    /// Major and minor version of the device's instruction set.
    ///
    /// # Safety
    /// `major` and `minor` are null or point to writable ints.
    fn hipDeviceComputeCapability(major: *mut c_int, minor: *mut c_int, index: c_int) {
        let version = device(index)?.version();
        // SAFETY: the caller's promise about `major` and `minor`.
        unsafe { out(major, version.0).and(out(minor, version.1)) }
    }

    /// Bytes of device memory.
    ///
    /// # Safety
    /// `bytes` is null or points to a writable `size_t`.
    fn hipDeviceTotalMem(bytes: *mut usize, index: c_int) {
        // SAFETY: the caller's promise about `bytes`.
        unsafe { out(bytes, device(index)?.memory_bytes) }
    }

    /// One property of a device as an int.
    ///
    /// # Safety
    /// `value` is null or points to a writable int.
    fn hipDeviceGetAttribute(value: *mut c_int, attribute: c_int, index: c_int) {
        let found = attributes::value(device(index)?, attribute)?;
        // SAFETY: the caller's promise about `value`.
        unsafe { out(value, found) }
    }

    /// All properties of a device, in the layout of HIP 5.
    ///
    /// # Safety
    /// `properties` is null or points to a writable `hipDeviceProp_t` of HIP 5.
    fn hipGetDeviceProperties(properties: *mut Properties5, index: c_int) {
        // SAFETY: the caller's promise about `properties`.
        unsafe { out(properties, properties::hip5(device(index)?)) }
    }

    /// All properties of a device, in the layout of HIP 6 and later.
    ///
    /// # Safety
    /// `properties` is null or points to a writable `hipDeviceProp_tR0600`.
    fn hipGetDevicePropertiesR0600(properties: *mut Properties6, index: c_int) {
        // SAFETY: the caller's promise about `properties`.
        unsafe { out(properties, properties::hip6(device(index)?)) }
    }

    /// Waits until the current device is idle.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipDeviceSynchronize() {
        forbid_while_capturing()?;
        current()?.drain()
    }

    /// Accepts the scheduling flags, which have no effect here.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipSetDeviceFlags(flags: c_uint) {
        current()?;
        if flags & !0x1f == 0 { Ok(()) } else { Err(Error::InvalidValue) }
    }

    /// The scheduling flags, always `hipDeviceScheduleAuto`.
    ///
    /// # Safety
    /// `flags` is null or points to a writable unsigned int.
    fn hipGetDeviceFlags(flags: *mut c_uint) {
        current()?;
        // SAFETY: the caller's promise about `flags`.
        unsafe { out(flags, 0) }
    }

    /// Accepts a cache preference, which has no effect here.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipDeviceSetCacheConfig(_config: c_int) {
        current().map(drop)
    }

    /// Whether a device can reach another's memory: every other one can.
    ///
    /// # Safety
    /// `can` is null or points to a writable int.
    fn hipDeviceCanAccessPeer(can: *mut c_int, index: c_int, peer: c_int) {
        let differ = device(index)?.index != device(peer)?.index;
        // SAFETY: the caller's promise about `can`.
        unsafe { out(can, c_int::from(differ)) }
    }

    /// Lets kernels of the current device reach a peer's memory.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipDeviceEnablePeerAccess(peer: c_int, flags: c_uint) {
        let (here, peer) = (current()?, device(peer)?);
        if flags != 0 {
            return Err(Error::InvalidValue);
        }
        if here.index == peer.index {
            return Err(Error::InvalidDevice);
        }
        let new = runtime()?.memory.set_peer_access(here.index, peer.index, true);
        if new { Ok(()) } else { Err(Error::PeerAccessAlreadyEnabled) }
    }

    /// Takes back what `hipDeviceEnablePeerAccess` allowed.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipDeviceDisablePeerAccess(peer: c_int) {
        let (here, peer) = (current()?, device(peer)?);
        let known = runtime()?.memory.set_peer_access(here.index, peer.index, false);
        if known { Ok(()) } else { Err(Error::PeerAccessNotEnabled) }
    }

    /// How two devices are connected: access yes, native atomics yes, arrays no.
    ///
    /// # Safety
    /// `value` is null or points to a writable int.
    fn hipDeviceGetP2PAttribute(value: *mut c_int, attribute: c_int, from: c_int, to: c_int) {
        if device(from)?.index == device(to)?.index {
            return Err(Error::InvalidDevice);
        }
        let found = match attribute {
            0 | 3 => 0,
            1 | 2 => 1,
            _ => return Err(Error::InvalidValue),
        };
        // SAFETY: the caller's promise about `value`.
        unsafe { out(value, found) }
    }
}

/// Writes `text` into the caller's buffer of `len` bytes.
///
/// # Safety
/// `into` is null or points to `len` writable bytes.
unsafe fn out_text(into: *mut c_char, len: c_int, text: &str) -> Result {
    let room = usize::try_from(len).unwrap_or(0);
    if into.is_null() || room == 0 {
        return Err(Error::InvalidValue);
    }
    // SAFETY: the caller's promise, with `into` not null and `len` positive.
    let into = unsafe { std::slice::from_raw_parts_mut(into, room) };
    into.fill(0);
    copy_name(into, text);
    Ok(())
}
