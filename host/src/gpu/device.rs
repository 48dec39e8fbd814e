//! A device and what it says about itself.

use std::cell::Cell;
use std::ffi::c_int;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde::Serialize;

use super::driver::{Api, Driver, Fault, text};
use super::error::GpuError;
use super::hip_sys::{self, Attribute, CUcontext, hipDeviceptr_t, hipErrorOutOfMemory};

/// What a device is; sizes in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Properties {
    /// Marketing name.
    pub name: String,
    /// Chip its kernels are compiled for: `gfx1151`, `sm_90`.
    pub arch: String,
    /// The chip with the features the driver reports: `gfx942:sramecc+:xnack-`.
    pub arch_features: String,
    /// Device memory.
    pub memory_bytes: u64,
    /// Compute units, or streaming multiprocessors. RDNA reports work-group processors' halves
    /// or whole ones, as the driver counts.
    pub compute_units: u32,
    /// Threads that share an instruction: 32 or 64.
    pub wave_size: u32,
    /// Workgroup memory one workgroup may use.
    pub lds_bytes: u32,
    /// Threads of the largest workgroup.
    pub max_workgroup: u32,
    /// Threads a compute unit holds at once, where the driver says.
    pub max_threads_per_unit: Option<u32>,
    /// Workgroups of the largest grid, per dimension.
    pub max_grid: [u32; 3],
    /// Last-level cache as the driver counts it, where it says.
    pub l2_bytes: Option<u64>,
    /// Peak clock in kHz, where the driver says.
    pub clock_khz: Option<u32>,
    /// Memory clock (kHz) times bus width times two transfers a clock, in bytes per second, where
    /// the driver states both. A nominal figure: measure before you compare.
    pub memory_bandwidth: Option<f64>,
    /// Whether the device shares the host's memory.
    pub integrated: bool,
}

/// A GPU, real or virtual; clones are the same device.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    driver: &'static Driver,
    ordinal: c_int,
    context: CUcontext,
    properties: Properties,
    /// The first error of a destructor, which cannot return it; the next call does.
    deferred: Mutex<Option<GpuError>>,
    /// Whether there is one: every call asks, and few find one.
    has_deferred: AtomicBool,
}

thread_local! {
    /// Driver and ordinal of the device that this thread has made current. Nothing but
    /// [`Device::enter`] does so in this program, and drivers remember it per thread.
    static CURRENT: Cell<Option<(*const Driver, c_int)>> = const { Cell::new(None) };
}

impl PartialEq for Device {
    fn eq(&self, other: &Device) -> bool {
        std::ptr::eq(self.0.driver, other.0.driver) && self.0.ordinal == other.0.ordinal
    }
}

impl Eq for Device {}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// `cuda:0 (NVIDIA H200, sm_90)`.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Properties { name, arch, .. } = self.properties();
        let ordinal = self.0.ordinal;
        match self.api() {
            Api::Hip => write!(f, "hip:{ordinal} ({name}, {arch})"),
            Api::Cuda => write!(f, "cuda:{ordinal} ({name}, {arch})"),
            Api::Emulator => write!(f, "emu:{arch} device {ordinal}"),
        }
    }
}

impl Device {
    /// Opens a device by its index in the driver's order.
    pub fn open(driver: &'static Driver, index: usize) -> Result<Device, GpuError> {
        let count = driver.device_count()?;
        if index >= count {
            return Err(GpuError::NoSuchDevice { driver: driver.describe(), index, count });
        }
        let opening = |fault: Fault| fault.asked(format!("opening device {index}"));
        let mut ordinal = 0;
        // SAFETY: `ordinal` outlives the call.
        unsafe { driver.hipDeviceGet(&mut ordinal, index as c_int) }.map_err(opening)?;
        let context = driver.retain_context(ordinal).map_err(opening)?;
        let properties = Properties::read(driver, ordinal)?;
        Ok(Device(Arc::new(Inner {
            driver,
            ordinal,
            context,
            properties,
            deferred: Mutex::new(None),
            has_deferred: AtomicBool::new(false),
        })))
    }

    /// What the device says about itself.
    pub fn properties(&self) -> &Properties {
        &self.0.properties
    }

    /// The API it is driven through.
    pub fn api(&self) -> Api {
        self.0.driver.api()
    }

    /// Its driver.
    pub fn driver(&self) -> &'static Driver {
        self.0.driver
    }

    /// Its index in the driver's order.
    pub fn ordinal(&self) -> usize {
        self.0.ordinal as usize
    }

    /// Free and total device memory in bytes, now.
    pub fn memory(&self) -> Result<(u64, u64), GpuError> {
        self.enter()?;
        let (mut free, mut total) = (0usize, 0usize);
        // SAFETY: both outlive the call.
        unsafe { self.driver().hipMemGetInfo(&mut free, &mut total) }
            .map_err(|fault| fault.asked(format!("the free memory of {self}")))?;
        Ok((free as u64, total as u64))
    }

    /// Waits for everything on the device, and returns what failed since the last wait.
    pub fn synchronize(&self) -> Result<(), GpuError> {
        // SAFETY: no pointers.
        self.wait("everything", || unsafe { self.driver().hipDeviceSynchronize() })
    }

    /// Whether kernels here can reach `peer`'s memory, once [`Device::enable_peer`] has been
    /// called. Copies between devices work either way.
    pub fn can_access(&self, peer: &Device) -> Result<bool, GpuError> {
        let mut can = 0;
        // SAFETY: `can` outlives the call.
        unsafe { self.driver().hipDeviceCanAccessPeer(&mut can, self.0.ordinal, peer.0.ordinal) }
            .map_err(|fault| fault.asked(format!("whether {self} reaches {peer}")))?;
        Ok(can != 0)
    }

    /// Lets kernels here reach `peer`'s memory; asking again is no error.
    pub fn enable_peer(&self, peer: &Device) -> Result<(), GpuError> {
        self.enter()?;
        self.driver()
            .enable_peer(peer.0.ordinal, peer.0.context)
            .map_err(|fault| fault.asked(format!("letting {self} reach {peer}")))
    }

    /// Makes the device current for this thread, and returns an error that a destructor left.
    pub(crate) fn enter(&self) -> Result<(), GpuError> {
        self.deferred()?;
        self.make_current()
    }

    /// Waits for `what` with `wait`, and only then returns an error that a destructor left: on an
    /// error the caller drops the memory that what it waits for is using.
    pub(crate) fn wait(
        &self,
        what: &str,
        wait: impl FnOnce() -> Result<(), Fault>,
    ) -> Result<(), GpuError> {
        let current = self.make_current();
        let waited = wait().map_err(|fault| fault.asked(format!("waiting for {what} on {self}")));
        current.and(waited)?;
        self.deferred()
    }

    /// The error that a destructor left, once.
    fn deferred(&self) -> Result<(), GpuError> {
        if !self.0.has_deferred.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut deferred = self.0.deferred.lock().unwrap_or_else(|e| e.into_inner());
        self.0.has_deferred.store(false, Ordering::Release);
        deferred.take().map_or(Ok(()), Err)
    }

    fn make_current(&self) -> Result<(), GpuError> {
        let this = Some((std::ptr::from_ref(self.0.driver), self.0.ordinal));
        if CURRENT.get() == this {
            return Ok(());
        }
        CURRENT.set(None);
        self.driver()
            .set_current(self.0.ordinal, self.0.context)
            .map_err(|fault| fault.asked(format!("making {self} current")))?;
        CURRENT.set(this);
        Ok(())
    }

    /// Runs the release of an object; its failure is kept for the next call on the device.
    pub(crate) fn release(&self, what: &str, release: impl FnOnce() -> Result<(), Fault>) {
        let released = self
            .make_current()
            .and_then(|()| release().map_err(|fault| fault.asked(format!("releasing {what}"))));
        if let Err(error) = released {
            let mut deferred = self.0.deferred.lock().unwrap_or_else(|e| e.into_inner());
            deferred.get_or_insert(error);
            self.0.has_deferred.store(true, Ordering::Release);
        }
    }

    /// Allocates device memory; [`GpuError::OutOfMemory`] when there is not enough.
    pub(crate) fn allocate(&self, bytes: usize) -> Result<hipDeviceptr_t, GpuError> {
        self.enter()?;
        let mut ptr = 0;
        // SAFETY: `ptr` outlives the call.
        match unsafe { self.driver().hipMalloc(&mut ptr, bytes) } {
            Ok(()) => Ok(ptr),
            Err(fault) if fault.code() == Some(hipErrorOutOfMemory) => {
                let (free, total) = self.memory()?;
                let device = self.to_string();
                Err(GpuError::OutOfMemory { device, asked: bytes as u64, free, total })
            }
            Err(fault) => Err(fault.asked(format!("{bytes} bytes on {self}"))),
        }
    }

    /// An address here, as a copy between devices wants it.
    pub(crate) fn locate(&self, ptr: hipDeviceptr_t) -> (hipDeviceptr_t, c_int, CUcontext) {
        (ptr, self.0.ordinal, self.0.context)
    }
}

impl Properties {
    fn read(driver: &'static Driver, ordinal: c_int) -> Result<Properties, GpuError> {
        let asked = |what: &str| format!("{what} of device {ordinal}");
        let attribute = |number: c_int| -> Result<c_int, Fault> {
            let mut value = 0;
            // SAFETY: `value` outlives the call.
            unsafe { driver.hipDeviceGetAttribute(&mut value, number, ordinal) }.map(|()| value)
        };
        let number = |of: Attribute| if driver.is_cuda() { of.cuda } else { of.hip };
        let required_number = |number: c_int, what: &str| -> Result<u32, GpuError> {
            let value = attribute(number).map_err(|fault| fault.asked(asked(what)))?;
            Ok(value.max(0) as u32)
        };
        let required = |of: Attribute, what: &str| required_number(number(of), what);
        // Zero means that the driver does not know.
        let known = |of| attribute(number(of)).ok().filter(|&v| v > 0);
        let optional = |of| known(of).map(|v| v as u32);

        let arch_features = match driver.gcn_arch(ordinal) {
            Some(arch) => arch.map_err(|fault| fault.asked(asked("the chip")))?,
            None => {
                let digits = |number| required_number(number, "compute capability");
                let major = digits(hip_sys::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
                let minor = digits(hip_sys::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
                format!("sm_{major}{minor}")
            }
        };
        let mut name = [0u8; 256];
        // SAFETY: the buffer has the length given.
        unsafe { driver.hipDeviceGetName(name.as_mut_ptr().cast(), name.len() as c_int, ordinal) }
            .map_err(|fault| fault.asked(asked("the name")))?;
        let mut memory_bytes = 0;
        // SAFETY: `memory_bytes` outlives the call.
        unsafe { driver.hipDeviceTotalMem(&mut memory_bytes, ordinal) }
            .map_err(|fault| fault.asked(asked("the memory")))?;
        let memory_bandwidth = optional(hip_sys::hipDeviceAttributeMemoryClockRate)
            .zip(optional(hip_sys::hipDeviceAttributeMemoryBusWidth))
            .map(|(khz, bits)| f64::from(khz) * 1e3 * 2.0 * f64::from(bits) / 8.0);
        Ok(Properties {
            name: text(&name),
            arch: arch_features.split(':').next().unwrap_or_default().to_owned(),
            arch_features,
            memory_bytes: memory_bytes as u64,
            compute_units: required(
                hip_sys::hipDeviceAttributeMultiprocessorCount,
                "compute units",
            )?,
            wave_size: required(hip_sys::hipDeviceAttributeWarpSize, "wave size")?,
            lds_bytes: required(
                hip_sys::hipDeviceAttributeMaxSharedMemoryPerBlock,
                "workgroup memory",
            )?,
            max_workgroup: required(
                hip_sys::hipDeviceAttributeMaxThreadsPerBlock,
                "largest workgroup",
            )?,
            max_threads_per_unit: optional(hip_sys::hipDeviceAttributeMaxThreadsPerMultiProcessor),
            max_grid: [
                required(hip_sys::hipDeviceAttributeMaxGridDimX, "largest grid")?,
                required(hip_sys::hipDeviceAttributeMaxGridDimY, "largest grid")?,
                required(hip_sys::hipDeviceAttributeMaxGridDimZ, "largest grid")?,
            ],
            l2_bytes: optional(hip_sys::hipDeviceAttributeL2CacheSize).map(u64::from),
            clock_khz: optional(hip_sys::hipDeviceAttributeClockRate),
            memory_bandwidth,
            integrated: known(hip_sys::hipDeviceAttributeIntegrated).is_some(),
        })
    }
}
