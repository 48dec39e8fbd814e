//! Virtual devices and the calls that choose and describe them.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::{Arc, Mutex};

use super::attributes;
use super::capture::{self, forbid_while_capturing};
use super::error::{Error, Result};
use super::properties::{self, Properties5, Properties6, copy_name};
use super::queue::Streams;
use super::runtime::{self, current, device, runtime};
use super::signal::{Signal, lock};
use super::{event, memory, module, out, registration, stream};
use crate::Chip;

/// The HIP whose header this surface follows: 5.2, in HIP's encoding
/// `major * 10^7 + minor * 10^5 + patch`.
const VERSION: c_int = 5 * 10_000_000 + 2 * 100_000;

/// One virtual device.
pub struct Device {
    pub index: usize,
    pub chip: Chip,
    /// Bytes of memory it pretends to have.
    pub memory_bytes: usize,
    pub streams: Mutex<Streams>,
    fault: Mutex<Option<Error>>,
}

impl Device {
    /// An idle device.
    pub fn new(index: usize, chip: Chip, memory_bytes: usize) -> Self {
        Self { index, chip, memory_bytes, streams: Mutex::default(), fault: Mutex::default() }
    }

    /// The failure that a kernel left behind. It stays until the device is reset.
    pub fn healthy(&self) -> Result {
        lock(&self.fault).map_or(Ok(()), Err)
    }

    /// Records the first failure.
    pub fn fail(&self, error: Error) {
        lock(&self.fault).get_or_insert(error);
    }

    /// The signals of all work submitted to the device that has not ended.
    pub fn pending(&self) -> Vec<Arc<Signal>> {
        lock(&self.streams).pending()
    }

    /// Blocks until the device is idle, then reports its failure if it has one.
    pub fn drain(&self) -> Result {
        for signal in self.pending() {
            signal.wait();
        }
        self.healthy()
    }

    /// Compute units that share an LDS: a work group processor on RDNA.
    fn units_per_multiprocessor(&self) -> u32 {
        if self.chip.properties().wave_size == 32 { 2 } else { 1 }
    }

    /// What HIP calls multiprocessors.
    pub fn multiprocessors(&self) -> c_int {
        (self.chip.properties().compute_units / self.units_per_multiprocessor()) as c_int
    }

    /// SIMDs of a multiprocessor.
    pub fn simds(&self) -> u32 {
        self.chip.properties().simds_per_compute_unit * self.units_per_multiprocessor()
    }

    /// Most threads resident on a multiprocessor.
    pub fn threads_per_multiprocessor(&self) -> c_int {
        let chip = self.chip.properties();
        (self.simds() * chip.max_waves_per_simd * chip.wave_size) as c_int
    }

    /// 32-bit registers of a multiprocessor.
    pub fn registers_per_multiprocessor(&self) -> c_int {
        (self.simds() * self.chip.properties().vgprs_per_simd * 32) as c_int
    }

    /// Bytes of LDS of a multiprocessor, as HIP reports them.
    pub fn lds_per_multiprocessor(&self) -> usize {
        self.chip.properties().lds_bytes as usize
    }

    /// Major and minor version of the instruction set: gfx1151 is 11.5.
    pub fn version(&self) -> (c_int, c_int) {
        let digits = self.chip.name().trim_start_matches("gfx").as_bytes();
        let (major, rest) = digits.split_at(digits.len().saturating_sub(2));
        let major = major.iter().fold(0, |value, digit| value * 10 + c_int::from(digit - b'0'));
        let minor = rest.first().map_or(0, |&digit| c_int::from(digit.saturating_sub(b'0')));
        (major, minor)
    }

    /// The chip's number, 0 where it has a letter in it.
    pub fn gcn_arch(&self) -> c_int {
        self.chip.name().trim_start_matches("gfx").parse().unwrap_or(0)
    }

    /// A made-up PCI bus, one per device.
    pub fn pci_bus(&self) -> c_int {
        self.index as c_int + 1
    }

    /// A made-up identity, one per device.
    pub fn uuid(&self) -> [u8; 16] {
        let mut uuid = *b"GPU-emulated-\0\0\0";
        uuid[13..].copy_from_slice(format!("{:03}", self.index % 1000).as_bytes());
        uuid
    }
}

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

    /// Ends all work of the current device and frees everything on it: streams,
    /// events, modules, memory, and the failure it may be in.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipDeviceReset() {
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
        *lock(&device.fault) = None;
        Ok(())
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

    /// Swaps the calling thread's capture mode with `*mode`.
    ///
    /// # Safety
    /// `mode` is null or points to a readable and writable int.
    fn hipThreadExchangeStreamCaptureMode(mode: *mut c_int) {
        if mode.is_null() {
            return Err(Error::InvalidValue);
        }
        // SAFETY: the caller's promise about `mode`, which is not null.
        let new = capture::Mode::from_c(unsafe { *mode })?;
        // SAFETY: as above.
        unsafe { out(mode, capture::exchange_thread_mode(new) as c_int) }
    }

    /// Describes where a pointer leads; see [`memory::attributes`].
    ///
    /// # Safety
    /// `attributes` is null or points to a writable `hipPointerAttribute_t`.
    fn hipPointerGetAttributes(attributes: *mut memory::PointerAttributes, pointer: *const c_void) {
        // SAFETY: the caller's promise about `attributes`.
        unsafe { out(attributes, memory::attributes(pointer as u64)?) }
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
