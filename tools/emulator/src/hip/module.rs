//! Modules, their kernels and variables, and launching kernels.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::{Arc, Mutex};

use code_object::{CodeObjectError, bundle};

use super::arguments;
use super::device::Device;
use super::error::{Error, Result};
use super::handles::{Handle, Handles};
use super::image;
use super::queue::{Stream, Work};
use super::runtime::{current, runtime};
use super::signal::lock;
use super::{out, stream};
use crate::{CodeImage, FaultKind, Kernel, Launch, LaunchError, LoadError, Owner};

/// A code object on one device. It stays loaded while a launch of it is pending.
pub struct Module {
    pub device: &'static Device,
    image: CodeImage,
}

/// A kernel of a module.
pub struct Function {
    pub module: Arc<Module>,
    index: usize,
}

/// One launch, arguments included.
pub struct KernelLaunch {
    function: Arc<Function>,
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_lds: u32,
    arguments: Box<[u8]>,
}

static MODULES: Handles<Module> = Handles::new();
static FUNCTIONS: Handles<Function> = Handles::new();
static LAST_FAULT: Mutex<Option<String>> = Mutex::new(None);

/// Why and where the last kernel that failed was stopped.
pub fn last_fault() -> Option<String> {
    lock(&LAST_FAULT).clone()
}

impl Module {
    /// Loads an ELF, or the fitting one of a bundle, onto `device`.
    ///
    /// # Errors
    /// The HIP error of the reason, which is printed.
    pub fn load(device: &'static Device, image: &[u8]) -> Result<Arc<Self>> {
        device.healthy()?;
        let print = |error: &dyn std::error::Error| eprintln!("emulator: {error}");
        let code = bundle::select(image, device.chip.name()).map_err(|error| {
            print(&error);
            match error {
                CodeObjectError::NotInBundle { .. } => Error::NoBinaryForGpu,
                _ => Error::InvalidImage,
            }
        })?;
        let owner = Owner::Device(device.index);
        let loaded = CodeImage::load(&runtime()?.memory, owner, device.chip, code);
        let image = loaded.map_err(|error| {
            print(&error);
            match error {
                LoadError::WrongChip { .. } => Error::NoBinaryForGpu,
                LoadError::Memory(_) => Error::OutOfMemory,
                _ => Error::InvalidImage,
            }
        })?;
        Ok(Arc::new(Self { device, image }))
    }

    /// The kernel of this name.
    pub fn function(self: &Arc<Self>, name: &str) -> Result<Arc<Function>> {
        let kernels = self.image.kernels();
        let index = kernels.iter().position(|kernel| kernel.name == name);
        let index = index.ok_or(Error::NotFound)?;
        Ok(Arc::new(Function { module: Arc::clone(self), index }))
    }

    /// Address and bytes of the variable of this name.
    pub fn global(&self, name: &str) -> Result<(u64, usize)> {
        let (address, bytes) = self.image.global(name).ok_or(Error::NotFound)?;
        Ok((address, bytes as usize))
    }
}

impl Function {
    /// What the code object says of the kernel.
    pub fn kernel(&self) -> &Kernel {
        &self.module.image.kernels()[self.index]
    }

    /// The function a handle stands for.
    pub fn resolve(handle: Handle) -> Result<Arc<Self>> {
        FUNCTIONS.get(handle)
    }
}

impl KernelLaunch {
    /// A launch that the device can carry out.
    ///
    /// # Errors
    /// [`Error::InvalidConfiguration`] for an impossible grid or block,
    /// [`Error::LaunchOutOfResources`] for too much LDS.
    pub fn new(
        function: Arc<Function>,
        grid: [u32; 3],
        block: [u32; 3],
        dynamic_lds: u32,
        arguments: Box<[u8]>,
    ) -> Result<Self> {
        // A dispatch packet counts work items in 32 bits.
        let items_fit = grid.iter().zip(block).all(|(&groups, n)| groups.checked_mul(n).is_some());
        if !items_fit {
            return Err(Error::InvalidConfiguration);
        }
        let lds = u64::from(function.kernel().lds_bytes) + u64::from(dynamic_lds);
        if lds > u64::from(function.module.device.chip.properties().lds_bytes) {
            return Err(Error::LaunchOutOfResources);
        }
        let launch = Self { function, grid, block, dynamic_lds, arguments };
        match crate::launch::check(&launch.as_launch()) {
            Ok(()) => Ok(launch),
            Err(reason) => {
                eprintln!("emulator: {reason}");
                Err(Error::InvalidConfiguration)
            }
        }
    }

    fn as_launch(&self) -> Launch<'_> {
        Launch {
            code: &self.function.module.image,
            kernel: &self.function.kernel().name,
            grid: self.grid,
            block: self.block,
            dynamic_lds: self.dynamic_lds,
            kernarg: &self.arguments,
        }
    }
}

impl Work for KernelLaunch {
    fn kind(&self) -> &'static str {
        "launch"
    }

    /// Runs the kernel to its end and adds what it counted to the statistics; a fault is printed and
    /// kept for [`last_fault`].
    fn run(&self, device: &Device) -> Result {
        let runtime = runtime()?;
        match crate::launch(&runtime.memory, &self.as_launch(), &runtime.options) {
            Ok(counters) => {
                lock(&runtime.stats).add(&self.function.kernel().name, counters);
                Ok(())
            }
            Err(error) => {
                let text = format!("device {} ({}): {error}", device.index, device.chip);
                eprintln!("emulator: {text}");
                *lock(&LAST_FAULT) = Some(text);
                Err(code_of(&error))
            }
        }
    }
}

fn code_of(error: &LaunchError) -> Error {
    let LaunchError::Fault(fault) = error else {
        return Error::InvalidConfiguration;
    };
    match fault.kind {
        FaultKind::IllegalAddress { .. }
        | FaultKind::NoPeerAccess { .. }
        | FaultKind::LdsOutOfBounds { .. }
        | FaultKind::ScratchOutOfBounds { .. } => Error::IllegalAddress,
        // Unknown instructions too: HIP has no code of their own for them.
        _ => Error::LaunchFailure,
    }
}

/// Puts a kernel into a stream of the device it is loaded on.
pub fn launch(stream: &Arc<Stream>, launch: KernelLaunch) -> Result {
    if stream.device.index != launch.function.module.device.index {
        return Err(Error::InvalidHandle);
    }
    stream::enqueue(stream, launch)
}

/// Retires the modules and functions of a device.
pub fn forget(device: &Device) {
    FUNCTIONS.retain(|function| function.module.device.index != device.index);
    MODULES.retain(|module| module.device.index != device.index);
}

/// The text of a C string.
///
/// # Safety
/// `text` is null or a C string.
pub unsafe fn name<'a>(text: *const c_char) -> Result<&'a str> {
    if text.is_null() {
        return Err(Error::InvalidValue);
    }
    // SAFETY: the caller's promise, with `text` not null.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| Error::InvalidValue)
}

/// Gives a module of the current device a handle.
///
/// # Safety
/// `module` is null or points to a writable handle.
unsafe fn out_loaded(module: *mut Handle, image: &[u8]) -> Result {
    if module.is_null() {
        return Err(Error::InvalidValue);
    }
    let loaded = Module::load(current()?, image)?;
    // SAFETY: the caller's promise.
    unsafe { out(module, MODULES.insert(loaded)) }
}

super::export::exports! {
    /// Loads a file (ELF or bundle) onto the current device.
    ///
    /// # Safety
    /// `module` is null or points to a writable handle; `path` is null or a C
    /// string.
    fn hipModuleLoad(module: *mut Handle, path: *const c_char) {
        // SAFETY: the caller's promise about `path`.
        let path = unsafe { name(path)? };
        let image = std::fs::read(path).map_err(|_| Error::FileNotFound)?;
        // SAFETY: the caller's promise about `module`.
        unsafe { out_loaded(module, &image) }
    }

    /// Loads an image in memory (ELF or bundle) onto the current device.
    ///
    /// # Safety
    /// `module` is null or points to a writable handle; `image` is null or points
    /// to a whole ELF file or bundle.
    fn hipModuleLoadData(module: *mut Handle, image: *const c_void) {
        // SAFETY: the caller's promise about both.
        unsafe { out_loaded(module, image::bytes(image.cast())?) }
    }

    /// As `hipModuleLoadData`; the options are for a compiler and change nothing.
    ///
    /// # Safety
    /// As `hipModuleLoadData`.
    fn hipModuleLoadDataEx(
        module: *mut Handle,
        image: *const c_void,
        _count: c_uint,
        _options: *mut c_int,
        _values: *mut *mut c_void,
    ) {
        // SAFETY: the caller's promise about both.
        unsafe { out_loaded(module, image::bytes(image.cast())?) }
    }

    /// Retires a module and its functions; pending launches still run.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipModuleUnload(module: Handle) {
        let module = MODULES.remove(module)?;
        FUNCTIONS.retain(|function| !Arc::ptr_eq(&function.module, &module));
        Ok(())
    }

    /// The kernel of a name.
    ///
    /// # Safety
    /// `function` is null or points to a writable handle; `kernel` is null or a C
    /// string.
    fn hipModuleGetFunction(function: *mut Handle, module: Handle, kernel: *const c_char) {
        if function.is_null() {
            return Err(Error::InvalidValue);
        }
        // SAFETY: the caller's promise about `kernel`.
        let kernel = unsafe { name(kernel)? };
        let found = MODULES.get(module)?.function(kernel)?;
        // SAFETY: the caller's promise about `function`.
        unsafe { out(function, FUNCTIONS.insert(found)) }
    }

    /// Address and bytes of the variable of a name; either may be left out.
    ///
    /// # Safety
    /// `address` and `bytes` are null or point to a writable pointer and
    /// `size_t`; `variable` is null or a C string.
    fn hipModuleGetGlobal(
        address: *mut u64,
        bytes: *mut usize,
        module: Handle,
        variable: *const c_char,
    ) {
        // SAFETY: the caller's promise about `variable`.
        let variable = unsafe { name(variable)? };
        let (found, len) = MODULES.get(module)?.global(variable)?;
        if !address.is_null() {
            // SAFETY: the caller's promise about `address`.
            unsafe { out(address, found)? };
        }
        if !bytes.is_null() {
            // SAFETY: the caller's promise about `bytes`.
            unsafe { out(bytes, len)? };
        }
        Ok(())
    }

    /// Launches a kernel in stream order. The arguments are read before the call
    /// returns.
    ///
    /// # Safety
    /// `parameters` is null or has a pointer to every argument; `extra` is null
    /// or a list as `hip_runtime_api.h` describes, with a readable buffer.
    fn hipModuleLaunchKernel(
        function: Handle,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        dynamic_lds: c_uint,
        stream: Handle,
        parameters: *const *const c_void,
        extra: *const *const c_void,
    ) {
        let function = Function::resolve(function)?;
        let stream = stream::resolve(stream)?;
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        // SAFETY: the caller's promise about both lists.
        let arguments = unsafe { arguments::pack(function.kernel(), parameters, extra)? };
        launch(&stream, KernelLaunch::new(function, grid, block, dynamic_lds, arguments)?)
    }
}
