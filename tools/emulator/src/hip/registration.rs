//! What a compiler generates for `kernel<<<...>>>`: code objects, kernels and
//! variables that a program registers when it starts, named by host addresses.
//!
//! The calls and the wrapper around the image are those that clang emits for HIP
//! (`CGCUDANV.cpp`); images are loaded onto a device when first used there.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::{Arc, LazyLock, Mutex};

use super::arguments;
use super::error::{Error, Result};
use super::handles::Handle;
use super::module::{self, Function, KernelLaunch, Module};
use super::runtime::current;
use super::signal::lock;
use super::{image, out, stream, transfer};

/// `HIPF`, the magic of the wrapper.
const WRAPPER_MAGIC: u32 = 0x4849_5046;

/// `__CudaFatBinaryWrapper`.
#[repr(C)]
pub struct Wrapper {
    magic: u32,
    version: u32,
    image: *const c_void,
    unused: *const c_void,
}

/// `dim3`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dim3 {
    x: u32,
    y: u32,
    z: u32,
}

impl From<Dim3> for [u32; 3] {
    fn from(dim: Dim3) -> Self {
        [dim.x, dim.y, dim.z]
    }
}

/// A registered image and the modules made of it, by device.
struct Binary {
    image: usize,
    modules: HashMap<usize, Arc<Module>>,
}

#[derive(Default)]
struct Registry {
    /// By the handle that the program got, which is a count.
    binaries: HashMap<usize, Binary>,
    next: usize,
    /// Kernels by their host stub, variables by their host shadow: handle of the
    /// binary and name.
    kernels: HashMap<usize, (usize, String)>,
    variables: HashMap<usize, (usize, String)>,
}

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

/// A launch configuration on its way from `<<<...>>>` to the host stub.
type Configuration = (Dim3, Dim3, usize, usize);

thread_local! {
    static CONFIGURATIONS: RefCell<Vec<Configuration>> = const { RefCell::new(Vec::new()) };
}

impl Registry {
    /// The binary as loaded on the current device.
    fn module(&mut self, binary: usize) -> Result<Arc<Module>> {
        let device = current()?;
        let binary = self.binaries.get_mut(&binary).ok_or(Error::InvalidDeviceFunction)?;
        if let Some(module) = binary.modules.get(&device.index) {
            return Ok(Arc::clone(module));
        }
        // SAFETY: whoever registered the image promised that it is whole and
        // stays until it is unregistered.
        let image = unsafe { image::bytes(binary.image as *const u8)? };
        let module = Module::load(device, image)?;
        binary.modules.insert(device.index, Arc::clone(&module));
        Ok(module)
    }
}

/// Drops what is loaded on a device; it is loaded again when it is next used.
pub fn forget(device: usize) {
    for binary in lock(&REGISTRY).binaries.values_mut() {
        binary.modules.remove(&device);
    }
}

/// The kernel of a host stub, on the current device.
pub fn function(stub: *const c_void) -> Result<Arc<Function>> {
    let mut registry = lock(&REGISTRY);
    let found = registry.kernels.get(&(stub as usize)).cloned();
    let (binary, name) = found.ok_or(Error::InvalidDeviceFunction)?;
    registry.module(binary)?.function(&name).map_err(|_| Error::InvalidDeviceFunction)
}

/// Address and bytes of the variable of a host shadow, on the current device.
fn variable(shadow: *const c_void) -> Result<(u64, usize)> {
    let mut registry = lock(&REGISTRY);
    let found = registry.variables.get(&(shadow as usize)).cloned();
    let (binary, name) = found.ok_or(Error::InvalidSymbol)?;
    registry.module(binary)?.global(&name).map_err(|_| Error::InvalidSymbol)
}

/// The part of a variable that a copy of `bytes` at `offset` touches.
fn within(shadow: *const c_void, offset: usize, bytes: usize) -> Result<u64> {
    let (address, size) = variable(shadow)?;
    let end = offset.checked_add(bytes).ok_or(Error::InvalidValue)?;
    if end <= size { Ok(address + offset as u64) } else { Err(Error::InvalidValue) }
}

super::export::exports! {
    /// Registers an image; null if the wrapper is not one.
    ///
    /// # Safety
    /// `wrapper` is null or points to a wrapper whose image (ELF or bundle) stays
    /// until it is unregistered.
    fn __hipRegisterFatBinary(wrapper: *const Wrapper) -> Handle {
        // SAFETY: the caller's promise about `wrapper`.
        let image = unsafe { wrapper.as_ref() }.filter(|wrapper| wrapper.magic == WRAPPER_MAGIC);
        let Some(image) = image.map(|wrapper| wrapper.image as usize) else {
            return std::ptr::null_mut();
        };
        let mut registry = lock(&REGISTRY);
        registry.next += 1;
        let handle = registry.next;
        registry.binaries.insert(handle, Binary { image, modules: HashMap::new() });
        handle as Handle
    }

    /// Names the kernel that a host stub stands for.
    ///
    /// # Safety
    /// `kernel` is null or a C string.
    fn __hipRegisterFunction(
        binary: Handle,
        stub: *const c_void,
        _stub_name: *const c_char,
        kernel: *const c_char,
        _thread_limit: c_uint,
        _thread: *mut c_void,
        _block: *mut c_void,
        _block_size: *mut c_void,
        _grid_size: *mut c_void,
        _wave_size: *mut c_int,
    ) {
        // SAFETY: the caller's promise about `kernel`.
        let kernel = unsafe { module::name(kernel)? };
        lock(&REGISTRY).kernels.insert(stub as usize, (binary as usize, kernel.to_owned()));
        Ok(())
    }

    /// Names the device variable that a host variable stands for.
    ///
    /// # Safety
    /// `variable` is null or a C string.
    fn __hipRegisterVar(
        binary: Handle,
        shadow: *const c_void,
        _shadow_name: *const c_char,
        variable: *const c_char,
        _external: c_int,
        _bytes: usize,
        _constant: c_int,
        _global: c_int,
    ) {
        // SAFETY: the caller's promise about `variable`.
        let variable = unsafe { module::name(variable)? };
        lock(&REGISTRY).variables.insert(shadow as usize, (binary as usize, variable.to_owned()));
        Ok(())
    }

    /// Takes a registration back, its kernels and variables included.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn __hipUnregisterFatBinary(binary: Handle) {
        let binary = binary as usize;
        let mut registry = lock(&REGISTRY);
        registry.kernels.retain(|_, (owner, _)| *owner != binary);
        registry.variables.retain(|_, (owner, _)| *owner != binary);
        registry.binaries.remove(&binary).map(drop).ok_or(Error::InvalidHandle)
    }

    /// Keeps a launch configuration for the host stub that is called next.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn __hipPushCallConfiguration(grid: Dim3, block: Dim3, dynamic_lds: usize, stream: Handle) {
        let configuration = (grid, block, dynamic_lds, stream as usize);
        CONFIGURATIONS.with_borrow_mut(|kept| kept.push(configuration));
        Ok(())
    }

    /// Gives the configuration back to the host stub.
    ///
    /// # Safety
    /// Every pointer is null or points to a writable value of its type.
    fn __hipPopCallConfiguration(
        grid: *mut Dim3,
        block: *mut Dim3,
        dynamic_lds: *mut usize,
        stream: *mut Handle,
    ) {
        let kept = CONFIGURATIONS.with_borrow_mut(Vec::pop).ok_or(Error::MissingConfiguration)?;
        // SAFETY: the caller's promise about all four.
        unsafe {
            out(grid, kept.0)?;
            out(block, kept.1)?;
            out(dynamic_lds, kept.2)?;
            out(stream, kept.3 as Handle)
        }
    }

    /// Launches the kernel of a host stub in stream order.
    ///
    /// # Safety
    /// `parameters` has a pointer to every argument.
    fn hipLaunchKernel(
        stub: *const c_void,
        grid: Dim3,
        block: Dim3,
        parameters: *const *const c_void,
        dynamic_lds: usize,
        stream: Handle,
    ) {
        let function = function(stub)?;
        let stream = stream::resolve(stream)?;
        let dynamic_lds = u32::try_from(dynamic_lds).map_err(|_| Error::LaunchOutOfResources)?;
        // SAFETY: the caller's promise about `parameters`.
        let arguments =
            unsafe { arguments::pack(function.kernel(), parameters, std::ptr::null())? };
        let launch =
            KernelLaunch::new(function, grid.into(), block.into(), dynamic_lds, arguments)?;
        module::launch(&stream, launch)
    }

    /// The device address of a registered variable.
    ///
    /// # Safety
    /// `address` is null or points to a writable pointer.
    fn hipGetSymbolAddress(address: *mut u64, symbol: *const c_void) {
        // SAFETY: the caller's promise about `address`.
        unsafe { out(address, variable(symbol)?.0) }
    }

    /// Bytes of a registered variable.
    ///
    /// # Safety
    /// `bytes` is null or points to a writable `size_t`.
    fn hipGetSymbolSize(bytes: *mut usize, symbol: *const c_void) {
        // SAFETY: the caller's promise about `bytes`.
        unsafe { out(bytes, variable(symbol)?.1) }
    }

    /// Copies into a registered variable and waits.
    ///
    /// # Safety
    /// As `hipMemcpy` for `from`.
    fn hipMemcpyToSymbol(
        symbol: *const c_void,
        from: u64,
        bytes: usize,
        offset: usize,
        kind: c_int,
    ) {
        transfer::copy_now(transfer::copy(within(symbol, offset, bytes)?, from, bytes, kind)?)
    }

    /// Copies out of a registered variable and waits.
    ///
    /// # Safety
    /// As `hipMemcpy` for `to`.
    fn hipMemcpyFromSymbol(
        to: u64,
        symbol: *const c_void,
        bytes: usize,
        offset: usize,
        kind: c_int,
    ) {
        transfer::copy_now(transfer::copy(to, within(symbol, offset, bytes)?, bytes, kind)?)
    }
}
