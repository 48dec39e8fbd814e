//! Virtual devices.

use std::ffi::c_int;
use std::sync::{Arc, Mutex};

use super::error::{Error, Result};
use super::queue::Streams;
use super::signal::{Signal, lock};
use crate::Chip;

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

    /// Forgets the failure.
    pub fn recover(&self) {
        *lock(&self.fault) = None;
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
