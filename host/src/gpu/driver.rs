//! One driver: real HIP, CUDA, or the emulator's HIP, as a table of functions found at run time.
//!
//! Libraries are never unloaded: their threads and the objects they own outlive any order of
//! destruction we could promise.

mod library;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use super::error::GpuError;
use super::hip_sys::*;

/// The runtimes this engine can drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// AMD GPUs through ROCm's `libamdhip64`.
    Hip,
    /// NVIDIA GPUs through `libcuda`.
    Cuda,
    /// Virtual AMD GPUs, executed by the emulator linked into this program.
    Emulator,
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Api::Hip => "HIP",
            Api::Cuda => "CUDA",
            Api::Emulator => "the emulator",
        })
    }
}

/// The virtual devices of an emulated node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Virtual {
    /// Chip, as `gfx1151`.
    pub chip: String,
    /// How many of it.
    pub count: usize,
}

/// What the two APIs have each in their own shape.
enum Own {
    Hip(HipFunctions),
    Cuda(CudaFunctions),
}

/// A loaded and started driver.
pub struct Driver {
    api: Api,
    library: PathBuf,
    functions: Functions,
    own: Own,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.api, self.library.display())
    }
}

/// A call that did not succeed, before anyone has said what was asked of it.
#[derive(Debug)]
pub(crate) struct Fault {
    driver: &'static Driver,
    call: &'static str,
    /// `None`: the library has no such function.
    code: Option<c_int>,
}

impl Fault {
    /// The driver's code, unless the call does not exist.
    pub(crate) fn code(&self) -> Option<c_int> {
        self.code
    }

    /// The error, once it is known what was asked.
    pub(crate) fn asked(self, asked: impl Into<String>) -> GpuError {
        let asked = asked.into();
        let Some(code) = self.code else {
            return GpuError::NoSuchCall { call: self.call, library: self.driver.describe() };
        };
        let (name, meaning) = self.driver.explain(code);
        let fault = match self.driver.api {
            Api::Emulator => emulator::last_fault(),
            _ => None,
        };
        GpuError::Call { call: self.call, code, name, meaning, asked, fault }
    }
}

/// The drivers of this process, each tried once.
static HIP: OnceLock<Result<&'static Driver, GpuError>> = OnceLock::new();
static CUDA: OnceLock<Result<&'static Driver, GpuError>> = OnceLock::new();
static EMULATOR: Mutex<Option<(Virtual, &'static Driver)>> = Mutex::new(None);

impl Driver {
    /// The AMD driver of this machine.
    pub fn hip() -> Result<&'static Driver, GpuError> {
        HIP.get_or_init(|| {
            let found = library::find_hip()?;
            Ok(Driver::new(Api::Hip, found.path.clone(), &|name| found.symbol(name)))
        })
        .clone()
    }

    /// The NVIDIA driver of this machine.
    pub fn cuda() -> Result<&'static Driver, GpuError> {
        CUDA.get_or_init(|| {
            let found = library::find_cuda()?;
            Ok(Driver::new(Api::Cuda, found.path.clone(), &|name| found.symbol(name)))
        })
        .clone()
    }

    /// The emulator with at least these devices. A process has one emulated node: asking later for
    /// another chip, or for more devices, is an error.
    pub fn emulator(node: &Virtual) -> Result<&'static Driver, GpuError> {
        let mut slot = EMULATOR.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((existing, driver)) = &*slot {
            if existing.chip == node.chip && existing.count >= node.count {
                return Ok(driver);
            }
            return Err(GpuError::EmulatorTaken {
                asked: format!("{} of {}", node.count, node.chip),
                existing: format!("{} of {}", existing.count, existing.chip),
            });
        }
        emulator::configure(&node.chip, node.count)
            .map_err(|reason| GpuError::Emulator { reason: reason.to_string() })?;
        let driver =
            Driver::new(Api::Emulator, PathBuf::from("this program"), &|n| emulator::symbol(n));
        *slot = Some((node.clone(), driver));
        Ok(driver)
    }

    /// Builds the table, starts the driver and leaks it: see the module documentation.
    fn new(
        api: Api,
        library: PathBuf,
        lookup: &dyn Fn(&str) -> Option<*const c_void>,
    ) -> &'static Driver {
        let cuda = api == Api::Cuda;
        let own = match cuda {
            true => Own::Cuda(CudaFunctions::load(lookup)),
            false => Own::Hip(HipFunctions::load(lookup)),
        };
        let functions = Functions::load(lookup, cuda);
        Box::leak(Box::new(Driver { api, library, functions, own }))
    }

    /// Which API this is.
    pub fn api(&self) -> Api {
        self.api
    }

    pub(super) fn is_cuda(&self) -> bool {
        self.api == Api::Cuda
    }

    pub(super) fn functions(&self) -> &Functions {
        &self.functions
    }

    /// Library and version in one phrase.
    pub fn describe(&'static self) -> String {
        match self.api {
            Api::Emulator => "the built-in emulator".to_owned(),
            api => format!("{api} {} ({})", self.version(), self.library.display()),
        }
    }

    /// Number of devices: at least one, or the error that says the driver is there without any.
    pub fn device_count(&'static self) -> Result<usize, GpuError> {
        let counted = self.start().and_then(|()| {
            let mut count = 0;
            // SAFETY: `count` outlives the call.
            unsafe { self.hipGetDeviceCount(&mut count) }.map(|()| count)
        });
        match counted {
            Ok(count) if count > 0 => Ok(count as usize),
            Ok(_) => Err(GpuError::NoDevice { driver: self.describe(), reason: "0 devices" }),
            Err(fault) if fault.code == Some(hipErrorNoDevice) => Err(GpuError::NoDevice {
                driver: self.describe(),
                reason: "no device is detected: error 100",
            }),
            Err(fault) => Err(fault.asked("counting the devices")),
        }
    }

    fn start(&'static self) -> Result<(), Fault> {
        let Own::Cuda(cuda) = &self.own else { return Ok(()) };
        let f = cuda.cuInit.ok_or_else(|| self.missing("cuInit"))?;
        // SAFETY: no pointers.
        self.check("cuInit", unsafe { f(0) })
    }

    /// `Ok` for success, else the fault.
    pub(super) fn check(&'static self, call: &'static str, code: c_int) -> Result<(), Fault> {
        if code == hipSuccess {
            return Ok(());
        }
        Err(Fault { driver: self, call, code: Some(code) })
    }

    /// The fault of a function that the library lacks.
    pub(super) fn missing(&'static self, call: &'static str) -> Fault {
        Fault { driver: self, call, code: None }
    }

    /// Makes a device current for this thread: its context on CUDA, its ordinal on HIP.
    pub(crate) fn set_current(
        &'static self,
        ordinal: c_int,
        context: CUcontext,
    ) -> Result<(), Fault> {
        match &self.own {
            Own::Hip(hip) => {
                let f = hip.hipSetDevice.ok_or_else(|| self.missing("hipSetDevice"))?;
                // SAFETY: no pointers.
                self.check("hipSetDevice", unsafe { f(ordinal) })
            }
            Own::Cuda(cuda) => {
                let f = cuda.cuCtxSetCurrent.ok_or_else(|| self.missing("cuCtxSetCurrent"))?;
                // SAFETY: `context` is the retained primary context of a device, never released.
                self.check("cuCtxSetCurrent", unsafe { f(context) })
            }
        }
    }

    /// The primary context of a CUDA device; null on HIP, which has none.
    pub(crate) fn retain_context(&'static self, ordinal: c_int) -> Result<CUcontext, Fault> {
        let Own::Cuda(cuda) = &self.own else { return Ok(CUcontext::NULL) };
        let call = "cuDevicePrimaryCtxRetain";
        let f = cuda.cuDevicePrimaryCtxRetain.ok_or_else(|| self.missing(call))?;
        let mut context = CUcontext::NULL;
        // SAFETY: `context` outlives the call.
        self.check(call, unsafe { f(&mut context, ordinal) })?;
        Ok(context)
    }

    /// Loads a code object, cubin or PTX into the current device. On failure the second value is
    /// what the JIT compiler said, if anything.
    ///
    /// # Safety
    ///
    /// `image` is what the driver takes; PTX ends in a zero byte.
    pub(crate) unsafe fn load_module(
        &'static self,
        image: &[u8],
    ) -> Result<hipModule_t, (Fault, String)> {
        let mut module = hipModule_t::NULL;
        let image = image.as_ptr().cast::<c_void>();
        match &self.own {
            Own::Hip(hip) => {
                let call = "hipModuleLoadData";
                let f = hip.hipModuleLoadData.ok_or_else(|| (self.missing(call), String::new()))?;
                // SAFETY: `module` outlives the call; the caller vouches for the image.
                let code = unsafe { f(&mut module, image) };
                self.check(call, code).map_err(|fault| (fault, String::new()))?;
            }
            Own::Cuda(cuda) => {
                let call = "cuModuleLoadDataEx";
                let f =
                    cuda.cuModuleLoadDataEx.ok_or_else(|| (self.missing(call), String::new()))?;
                let mut log = vec![0u8; 16 << 10];
                let mut options = [CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
                // An option's value travels in the pointer itself.
                let mut values = [log.as_mut_ptr().cast::<c_void>(), log.len() as *mut c_void];
                // SAFETY: two options with two values; `log` has the size given and outlives the
                // call; the caller vouches for the image.
                let code =
                    unsafe { f(&mut module, image, 2, options.as_mut_ptr(), values.as_mut_ptr()) };
                self.check(call, code).map_err(|fault| {
                    let end = log.iter().position(|&b| b == 0).unwrap_or(log.len());
                    (fault, String::from_utf8_lossy(&log[..end]).trim().to_owned())
                })?;
            }
        }
        Ok(module)
    }

    /// Lets a kernel use `bytes` of workgroup memory beyond what every launch may; a no-op on
    /// HIP, where the launch alone says it.
    pub(crate) fn allow_dynamic_lds(
        &'static self,
        function: hipFunction_t,
        bytes: u32,
    ) -> Result<(), Fault> {
        let Own::Cuda(cuda) = &self.own else { return Ok(()) };
        let call = "cuFuncSetAttribute";
        let f = cuda.cuFuncSetAttribute.ok_or_else(|| self.missing(call))?;
        // SAFETY: `function` belongs to a loaded module.
        self.check(call, unsafe {
            f(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes as c_int)
        })
    }

    /// Launches a kernel that may begin before the one launched before it has ended; `None` where
    /// launches run one after the other.
    ///
    /// # Safety
    ///
    /// As for `hipModuleLaunchKernel`, and the kernel itself waits for what it reads.
    pub(crate) unsafe fn launch_overlapping(
        &'static self,
        function: hipFunction_t,
        [grid, workgroup]: [[u32; 3]; 2],
        lds_bytes: u32,
        stream: hipStream_t,
        params: *mut *mut c_void,
    ) -> Option<Result<(), Fault>> {
        let Own::Cuda(cuda) = &self.own else { return None };
        let f = cuda.cuLaunchKernelEx?;
        let attributes = [CUlaunchAttribute::PROGRAMMATIC_STREAM_SERIALIZATION];
        let launch = CUlaunchConfig {
            grid,
            workgroup,
            lds_bytes,
            stream,
            attributes: attributes.as_ptr(),
            count: attributes.len() as u32,
        };
        // SAFETY: the structure outlives the call; the rest is the caller's promise.
        let code = unsafe { f(&launch, function, params, std::ptr::null_mut()) };
        Some(self.check("cuLaunchKernelEx", code))
    }

    /// Copies between two devices in stream order; each is given by ordinal and context.
    ///
    /// # Safety
    ///
    /// Both addresses hold `bytes` on their device until the stream has done the copy.
    pub(crate) unsafe fn memcpy_peer(
        &'static self,
        dst: (hipDeviceptr_t, c_int, CUcontext),
        src: (hipDeviceptr_t, c_int, CUcontext),
        bytes: usize,
        stream: hipStream_t,
    ) -> Result<(), Fault> {
        match &self.own {
            Own::Hip(hip) => {
                let call = "hipMemcpyPeerAsync";
                let f = hip.hipMemcpyPeerAsync.ok_or_else(|| self.missing(call))?;
                // SAFETY: the caller's promise.
                self.check(call, unsafe { f(dst.0, dst.1, src.0, src.1, bytes, stream) })
            }
            Own::Cuda(cuda) => {
                let call = "cuMemcpyPeerAsync";
                let f = cuda.cuMemcpyPeerAsync.ok_or_else(|| self.missing(call))?;
                // SAFETY: the caller's promise.
                self.check(call, unsafe { f(dst.0, dst.2, src.0, src.2, bytes, stream) })
            }
        }
    }

    /// Lets kernels on the current device reach `peer`'s memory; doing it twice is no error.
    pub(crate) fn enable_peer(&'static self, peer: c_int, context: CUcontext) -> Result<(), Fault> {
        let (call, code) = match &self.own {
            Own::Hip(hip) => {
                let call = "hipDeviceEnablePeerAccess";
                let f = hip.hipDeviceEnablePeerAccess.ok_or_else(|| self.missing(call))?;
                // SAFETY: no pointers.
                (call, unsafe { f(peer, 0) })
            }
            Own::Cuda(cuda) => {
                let call = "cuCtxEnablePeerAccess";
                let f = cuda.cuCtxEnablePeerAccess.ok_or_else(|| self.missing(call))?;
                // SAFETY: a retained primary context.
                (call, unsafe { f(context, 0) })
            }
        };
        if code == hipErrorPeerAccessAlreadyEnabled {
            return Ok(());
        }
        self.check(call, code)
    }

    /// The chip as HIP spells it, features and all (`gfx942:sramecc+:xnack-`); `None` on CUDA.
    pub(crate) fn gcn_arch(&'static self, ordinal: c_int) -> Option<Result<String, Fault>> {
        // Offsets of `gcnArchName` in the two structures of that name (hip_runtime_api.h, 5.2 and
        // 6.0); the buffer is larger than either.
        const OFFSET_R0600: usize = 1160;
        const OFFSET_LEGACY: usize = 396;
        const ARCH_BYTES: usize = 256;
        let Own::Hip(hip) = &self.own else { return None };
        let (call, f, offset) = match (hip.hipGetDevicePropertiesR0600, hip.hipGetDeviceProperties)
        {
            (Some(f), _) => ("hipGetDevicePropertiesR0600", f, OFFSET_R0600),
            (None, Some(f)) => ("hipGetDeviceProperties", f, OFFSET_LEGACY),
            (None, None) => return Some(Err(self.missing("hipGetDevicePropertiesR0600"))),
        };
        let mut properties = [0u64; 512];
        // SAFETY: the buffer is 4 KiB, aligned for any member, and the structure is below 1.5 KiB.
        let code = unsafe { f(properties.as_mut_ptr().cast(), ordinal) };
        let arch = self.check(call, code).map(|()| {
            let bytes: &[u8] = bytemuck::cast_slice(&properties);
            text(&bytes[offset..offset + ARCH_BYTES])
        });
        Some(arch)
    }

    /// Name and meaning of an error code, in the driver's own words.
    fn explain(&self, code: c_int) -> (String, String) {
        let unknown = || "unknown".to_owned();
        let read = |at: *const c_char| {
            if at.is_null() {
                return unknown();
            }
            // SAFETY: both drivers return a static string or null.
            unsafe { CStr::from_ptr(at) }.to_string_lossy().into_owned()
        };
        match &self.own {
            Own::Hip(hip) => {
                // SAFETY: no pointers go in.
                let name = hip.hipGetErrorName.map_or_else(unknown, |f| read(unsafe { f(code) }));
                // SAFETY: no pointers go in.
                let meaning =
                    hip.hipGetErrorString.map_or_else(unknown, |f| read(unsafe { f(code) }));
                (name, meaning)
            }
            Own::Cuda(cuda) => {
                let ask = |f: Option<CudaText>| {
                    let Some(f) = f else { return unknown() };
                    let mut at = std::ptr::null();
                    // SAFETY: `at` outlives the call; a code CUDA does not know leaves it null.
                    let _ = unsafe { f(code, &mut at) };
                    read(at)
                };
                (ask(cuda.cuGetErrorName), ask(cuda.cuGetErrorString))
            }
        }
    }

    /// The version as the vendor writes it.
    pub fn version(&'static self) -> String {
        let mut version = 0;
        match &self.own {
            Own::Hip(hip) => {
                let Some(f) = hip.hipRuntimeGetVersion else {
                    return "of unknown version".to_owned();
                };
                // SAFETY: `version` outlives the call.
                if unsafe { f(&mut version) } != hipSuccess {
                    return "of unknown version".to_owned();
                }
                let (major, rest) = (version / 10_000_000, version % 10_000_000);
                format!("{major}.{}.{}", rest / 100_000, rest % 100_000)
            }
            Own::Cuda(_) => {
                // SAFETY: `version` outlives the call.
                match unsafe { self.hipDriverGetVersion(&mut version) } {
                    Ok(()) => format!("{}.{}", version / 1000, version % 1000 / 10),
                    Err(_) => "of unknown version".to_owned(),
                }
            }
        }
    }
}

/// A C string in a fixed buffer.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
