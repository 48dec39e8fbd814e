//! Modules and the kernels in them.

use std::ffi::{CString, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::device::Device;
use super::driver::{Api, Fault};
use super::error::GpuError;
use super::hip_sys::{self, hipErrorNotFound, hipFunction_t, hipModule_t};
use super::stream::Stream;

/// Workgroup memory that CUDA gives any launch; more must be asked for per kernel.
const LDS_WITHOUT_ASKING: u32 = 48 << 10;

/// A code object, cubin or PTX, loaded on one device; clones are the same module.
#[derive(Clone)]
pub struct Module(Arc<Inner>);

struct Inner {
    device: Device,
    handle: hipModule_t,
    name: String,
}

impl Module {
    /// Loads `image`; `name` (a file, say) is for messages. The driver compiles PTX here.
    pub fn load(device: &Device, name: &str, image: &[u8]) -> Result<Module, GpuError> {
        device.enter()?;
        let refuse = |cause: String, log: String| GpuError::Module {
            device: device.to_string(),
            module: name.to_owned(),
            cause,
            log,
        };
        if image.is_empty() {
            return Err(refuse("it is empty".to_owned(), String::new()));
        }
        // The driver takes no length: PTX ends in a zero byte, an ELF image says its own size.
        let mut owned = image.to_vec();
        owned.push(0);
        // SAFETY: ends in a zero byte; a damaged image is the driver's to refuse.
        let handle = unsafe { device.driver().load_module(&owned) }.map_err(|(fault, log)| {
            refuse(fault.asked(format!("{} bytes", image.len())).to_string(), log)
        })?;
        Ok(Module(Arc::new(Inner { device: device.clone(), handle, name: name.to_owned() })))
    }

    /// Where it is loaded.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// Finds a kernel.
    pub fn kernel(&self, name: &str) -> Result<Kernel, GpuError> {
        let Inner { device, handle, name: module } = &*self.0;
        device.enter()?;
        let missing = || GpuError::NoKernel { module: module.clone(), kernel: name.to_owned() };
        let symbol = CString::new(name).map_err(|_| missing())?;
        let mut function = hipFunction_t::NULL;
        // SAFETY: `function` outlives the call, the module is live, the name ends in a zero byte.
        unsafe { device.driver().hipModuleGetFunction(&mut function, *handle, symbol.as_ptr()) }
            .map_err(|fault| match fault.code() {
                Some(code) if code == hipErrorNotFound => missing(),
                _ => fault.asked(format!("kernel {name} of {module}")),
            })?;
        let attribute = |number: i32| {
            let mut value = 0;
            // SAFETY: `value` outlives the call and the function is live.
            unsafe { device.driver().hipFuncGetAttribute(&mut value, number, function) }
                .map_err(|fault| fault.asked(format!("attribute {number} of kernel {name}")))?;
            Ok(value.max(0) as u32)
        };
        // Asking also makes CUDA, which loads lazily, load the kernel before a recording needs it.
        let resources = Resources {
            max_workgroup: attribute(hip_sys::HIP_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
            static_lds_bytes: attribute(hip_sys::HIP_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?,
            scratch_bytes: attribute(hip_sys::HIP_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?,
            registers: attribute(hip_sys::HIP_FUNC_ATTRIBUTE_NUM_REGS)?,
        };
        Ok(Kernel {
            module: self.clone(),
            name: name.to_owned(),
            function,
            resources,
            lds_allowed: Arc::new(AtomicU32::new(LDS_WITHOUT_ASKING)),
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let driver = self.device.driver();
        // SAFETY: the module is live and no kernel of it is left.
        self.device.release("a module", || unsafe { driver.hipModuleUnload(self.handle) });
    }
}

/// What a kernel takes, as the driver says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Threads of the largest workgroup it can be launched with.
    pub max_workgroup: u32,
    /// Workgroup memory fixed at compile time, in bytes.
    pub static_lds_bytes: u32,
    /// Scratch (spills and stack) per thread, in bytes.
    pub scratch_bytes: u32,
    /// Vector registers per thread.
    pub registers: u32,
}

/// Grid, workgroup and workgroup memory of one launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Workgroups per dimension.
    pub grid: [u32; 3],
    /// Threads per workgroup and dimension.
    pub workgroup: [u32; 3],
    /// Workgroup memory sized at launch, in bytes.
    pub lds_bytes: u32,
    /// The kernel waits itself for the launches before it, and may begin while the last of them
    /// still runs. CUDA only; HIP runs the launches of a stream one after the other.
    pub may_overlap: bool,
}

/// A kernel of a loaded module.
#[derive(Clone)]
pub struct Kernel {
    module: Module,
    name: String,
    function: hipFunction_t,
    resources: Resources,
    /// Launch-sized workgroup memory that the driver has been told of.
    lds_allowed: Arc<AtomicU32>,
}

impl Kernel {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        self.module.device()
    }

    /// What it takes.
    pub fn resources(&self) -> Resources {
        self.resources
    }

    /// Workgroups of `threads` threads and `lds_bytes` that fit a compute unit at once.
    pub fn occupancy(&self, threads: u32, lds_bytes: u32) -> Result<u32, GpuError> {
        self.device().enter()?;
        self.allow_lds(lds_bytes)?;
        let (driver, mut groups) = (self.device().driver(), 0);
        // SAFETY: `groups` outlives the call and the function is live.
        unsafe {
            driver.hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(
                &mut groups,
                self.function,
                threads as i32,
                lds_bytes as usize,
            )
        }
        .map_err(|fault| fault.asked(format!("{} with {threads} threads", self.name)))?;
        Ok(groups.max(0) as u32)
    }

    /// Queues a launch after checking it against the limits of device and kernel. The arguments
    /// are packed as C lays out their structure; `offsets` says where each starts.
    ///
    /// # Safety
    ///
    /// The packed arguments are what the kernel takes, and the kernel accesses only memory that is
    /// live until the stream has passed the launch.
    pub unsafe fn launch(
        &self,
        stream: &Stream,
        config: LaunchConfig,
        packed: &[u8],
        offsets: impl ExactSizeIterator<Item = usize>,
    ) -> Result<(), GpuError> {
        self.check(stream, config)?;
        let mut params: [*mut c_void; MAX_ARGUMENTS] = [std::ptr::null_mut(); MAX_ARGUMENTS];
        if offsets.len() > MAX_ARGUMENTS {
            return Err(
                self.refuse(format!("{} arguments: at most {MAX_ARGUMENTS}", offsets.len()))
            );
        }
        for (param, offset) in params.iter_mut().zip(offsets) {
            let Some(argument) = packed.get(offset..).filter(|rest| !rest.is_empty()) else {
                return Err(self.refuse(format!("argument at {offset} of {} bytes", packed.len())));
            };
            *param = argument.as_ptr().cast_mut().cast();
        }
        self.device().enter()?;
        self.allow_lds(config.lds_bytes)?;
        let driver = self.device().driver();
        let (grid, workgroup) = (config.grid, config.workgroup);
        let asked = |fault: Fault| fault.asked(format!("{} with {config:?}", self.name));
        // SAFETY: function and stream are live; the driver reads each argument from `packed`, which
        // outlives the call, and never writes there; the rest is the caller's promise.
        unsafe {
            let (stream, params) = (stream.handle(), params.as_mut_ptr());
            if config.may_overlap {
                let sizes = [grid, workgroup];
                let launched = driver.launch_overlapping(
                    self.function,
                    sizes,
                    config.lds_bytes,
                    stream,
                    params,
                );
                if let Some(launched) = launched {
                    return launched.map_err(asked);
                }
            }
            let ([gx, gy, gz], [bx, by, bz]) = (grid, workgroup);
            let (lds, none) = (config.lds_bytes, std::ptr::null_mut());
            driver
                .hipModuleLaunchKernel(
                    self.function,
                    gx,
                    gy,
                    gz,
                    bx,
                    by,
                    bz,
                    lds,
                    stream,
                    params,
                    none,
                )
                .map_err(asked)
        }
    }

    /// Refuses what the driver would refuse with less to say, or would not refuse.
    fn check(&self, stream: &Stream, config: LaunchConfig) -> Result<(), GpuError> {
        if stream.device() != self.device() {
            return Err(self.refuse(format!(
                "loaded on {}, launched on a stream of {}",
                self.device(),
                stream.device()
            )));
        }
        let limits = self.device().properties();
        let threads: u64 = config.workgroup.iter().map(|&n| u64::from(n)).product();
        let most = match self.resources.max_workgroup {
            0 => limits.max_workgroup,
            own => own.min(limits.max_workgroup),
        };
        if threads == 0 || threads > u64::from(most) {
            return Err(self.refuse(format!("workgroup of {threads} threads: 1 to {most}")));
        }
        for (axis, i) in [("x", 0), ("y", 1), ("z", 2)] {
            let (groups, most) = (config.grid[i], limits.max_grid[i]);
            // AMD's dispatch packet counts threads, not workgroups, in 32 bits per dimension.
            let threads = u64::from(groups) * u64::from(config.workgroup[i]);
            let too_many = self.device().api() != Api::Cuda && threads > u64::from(u32::MAX);
            if groups == 0 || groups > most || too_many {
                return Err(self.refuse(format!(
                    "grid of {groups} workgroups ({threads} threads) along {axis}: \
                     1 to {most} workgroups"
                )));
            }
        }
        let lds = u64::from(config.lds_bytes) + u64::from(self.resources.static_lds_bytes);
        if lds > u64::from(limits.lds_bytes) {
            return Err(self.refuse(format!(
                "{lds} bytes of workgroup memory: {} has {}",
                self.device(),
                limits.lds_bytes
            )));
        }
        Ok(())
    }

    fn allow_lds(&self, bytes: u32) -> Result<(), GpuError> {
        if bytes <= self.lds_allowed.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.device().driver().allow_dynamic_lds(self.function, bytes).map_err(|fault| {
            fault.asked(format!("{bytes} bytes of workgroup memory for {}", self.name))
        })?;
        self.lds_allowed.fetch_max(bytes, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn refuse(&self, why: impl std::fmt::Display) -> GpuError {
        GpuError::Refused(format!("{}: {why}", self.name))
    }
}

/// Arguments of the longest argument list.
const MAX_ARGUMENTS: usize = 48;
