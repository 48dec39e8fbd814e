//! `libamdhip64.so`, loaded the way a program without headers loads it.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, OnceLock};

use libloading::Library;

/// Devices of the emulated machine: enough that every test has its own.
pub const DEVICES: usize = 20;
pub const CHIP: &str = "gfx1100";
pub const MEMORY: usize = 256 << 20;

pub const INVALID_VALUE: c_int = 1;
pub const OUT_OF_MEMORY: c_int = 2;
pub const NOT_READY: c_int = 600;
pub const HOST_TO_DEVICE: c_int = 1;
pub const DEVICE_TO_HOST: c_int = 2;
pub const DEVICE_TO_DEVICE: c_int = 3;
pub const DEFAULT: c_int = 4;

pub type Handle = *mut c_void;
pub const NULL: Handle = std::ptr::null_mut();
pub type HostFunction = unsafe extern "C" fn(*mut c_void);

macro_rules! functions {
    ($($name:ident($($arg:ident: $ty:ty),*);)*) => {
        /// The functions under test, by their C names.
        #[allow(non_snake_case, reason = "the C names")]
        struct Table {
            $($name: unsafe extern "C" fn($($ty),*) -> c_int,)*
            library: Library,
        }

        impl Table {
            fn load(library: Library) -> Self {
                // SAFETY: the types are those of `hip_runtime_api.h`.
                unsafe {
                    Self { $($name: *library.get(stringify!($name)).unwrap(),)* library }
                }
            }
        }

        impl Hip {
            $(
                #[allow(non_snake_case, clippy::too_many_arguments, reason = "as in C")]
                pub fn $name(&self, $($arg: $ty),*) -> Result<(), c_int> {
                    // SAFETY: the tests pass null or pointers to live values of
                    // the right type, and otherwise what the runtime must refuse.
                    match unsafe { (self.0.$name)($($arg),*) } {
                        0 => Ok(()),
                        code => Err(code),
                    }
                }
            )*
        }
    };
}

/// The loaded library.
pub struct Hip(Table);

functions! {
    hipInit(flags: c_uint);
    hipGetDeviceCount(count: *mut c_int);
    hipSetDevice(index: c_int);
    hipGetDevice(index: *mut c_int);
    hipDeviceGetAttribute(value: *mut c_int, attribute: c_int, index: c_int);
    hipDeviceTotalMem(bytes: *mut usize, index: c_int);
    hipDeviceSynchronize();
    hipDeviceReset();
    hipGetDeviceProperties(properties: *mut u8, index: c_int);
    hipGetDevicePropertiesR0600(properties: *mut u8, index: c_int);
    hipDeviceCanAccessPeer(can: *mut c_int, index: c_int, peer: c_int);
    hipDeviceEnablePeerAccess(peer: c_int, flags: c_uint);
    hipDeviceDisablePeerAccess(peer: c_int);
    hipGetLastError();
    hipPeekAtLastError();
    hipMalloc(pointer: *mut u64, bytes: usize);
    hipMallocAsync(pointer: *mut u64, bytes: usize, stream: Handle);
    hipFree(pointer: u64);
    hipFreeAsync(pointer: u64, stream: Handle);
    hipHostMalloc(pointer: *mut u64, bytes: usize, flags: c_uint);
    hipHostFree(pointer: u64);
    hipHostRegister(pointer: u64, bytes: usize, flags: c_uint);
    hipHostUnregister(pointer: u64);
    hipMemGetInfo(free: *mut usize, total: *mut usize);
    hipMemcpy(to: u64, from: u64, bytes: usize, kind: c_int);
    hipMemcpyAsync(to: u64, from: u64, bytes: usize, kind: c_int, stream: Handle);
    hipMemcpy2D(
        to: u64, to_pitch: usize, from: u64, from_pitch: usize,
        width: usize, rows: usize, kind: c_int
    );
    hipMemcpyPeer(to: u64, to_device: c_int, from: u64, from_device: c_int, bytes: usize);
    hipMemcpyPeerAsync(
        to: u64, to_device: c_int, from: u64, from_device: c_int, bytes: usize, stream: Handle
    );
    hipMemset(to: u64, value: c_int, bytes: usize);
    hipMemsetAsync(to: u64, value: c_int, bytes: usize, stream: Handle);
    hipMemsetD32(to: u64, value: c_int, count: usize);
    hipMemsetD32Async(to: u64, value: c_int, count: usize, stream: Handle);
    hipStreamCreate(stream: *mut Handle);
    hipStreamCreateWithFlags(stream: *mut Handle, flags: c_uint);
    hipStreamDestroy(stream: Handle);
    hipStreamSynchronize(stream: Handle);
    hipStreamQuery(stream: Handle);
    hipStreamWaitEvent(stream: Handle, event: Handle, flags: c_uint);
    hipLaunchHostFunc(stream: Handle, function: Option<HostFunction>, argument: *mut c_void);
    hipEventCreate(event: *mut Handle);
    hipEventCreateWithFlags(event: *mut Handle, flags: c_uint);
    hipEventRecord(event: Handle, stream: Handle);
    hipEventSynchronize(event: Handle);
    hipEventQuery(event: Handle);
    hipEventElapsedTime(milliseconds: *mut f32, start: Handle, stop: Handle);
    hipEventDestroy(event: Handle);
    hipStreamBeginCapture(stream: Handle, mode: c_int);
    hipStreamEndCapture(stream: Handle, graph: *mut Handle);
    hipStreamIsCapturing(stream: Handle, status: *mut c_int);
    hipGraphInstantiate(
        executable: *mut Handle, graph: Handle, error_node: *mut Handle,
        log: *mut c_char, log_bytes: usize
    );
    hipGraphLaunch(executable: Handle, stream: Handle);
    hipGraphDestroy(graph: Handle);
    hipGraphExecDestroy(executable: Handle);
    hipGraphExecUpdate(
        executable: Handle, graph: Handle, error_node: *mut Handle, result: *mut c_int
    );
    hipModuleLoad(module: *mut Handle, path: *const c_char);
    hipModuleLoadData(module: *mut Handle, image: *const u8);
    hipModuleUnload(module: Handle);
    hipModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char);
    hipModuleGetGlobal(
        address: *mut u64, bytes: *mut usize, module: Handle, name: *const c_char
    );
    hipModuleLaunchKernel(
        function: Handle, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint,
        block_y: c_uint, block_z: c_uint, dynamic_lds: c_uint, stream: Handle,
        parameters: *const *const c_void, extra: *const *const c_void
    );
    hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: *mut c_int, function: Handle, threads: c_int, dynamic_lds: usize
    );
    hipFuncGetAttribute(value: *mut c_int, attribute: c_int, function: Handle);
    hipPointerGetAttributes(attributes: *mut [u8; 32], pointer: u64);
}

/// The shared library that cargo built beside this test.
pub fn library_path() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.with_file_name("libamdhip64.so")
}

/// The library with [`DEVICES`] devices, loaded once per process.
pub fn hip() -> &'static Hip {
    static HIP: OnceLock<Hip> = OnceLock::new();
    HIP.get_or_init(|| {
        // SAFETY: no other thread of a test gets past this function before it is
        // done, so none reads the environment meanwhile.
        unsafe {
            std::env::set_var("GPTOSS_EMU", format!("{CHIP}x{DEVICES}"));
            std::env::set_var("GPTOSS_EMU_MEMORY", MEMORY.to_string());
        }
        let path = library_path();
        // SAFETY: the library has no initialisers.
        let library = unsafe { Library::new(&path) };
        Hip(Table::load(library.unwrap_or_else(|error| panic!("{}: {error}", path.display()))))
    })
}

/// The library, with `device` as the calling thread's device.
pub fn hip_on(device: usize) -> &'static Hip {
    hip().hipSetDevice(device as c_int).unwrap();
    hip()
}

impl Hip {
    /// Whether the library exports `name`.
    pub fn exports(&self, name: &str) -> bool {
        // SAFETY: the symbol is only looked up.
        unsafe { self.0.library.get::<*const c_void>(name) }.is_ok()
    }

    pub fn malloc(&self, bytes: usize) -> u64 {
        let mut pointer = 0;
        self.hipMalloc(&mut pointer, bytes).unwrap();
        assert_ne!(pointer, 0);
        pointer
    }

    pub fn upload(&self, values: &[u32]) -> u64 {
        let pointer = self.malloc(size_of_val(values));
        let from = values.as_ptr() as u64;
        self.hipMemcpy(pointer, from, size_of_val(values), HOST_TO_DEVICE).unwrap();
        pointer
    }

    /// `count` words of device memory, into a poisoned vector.
    pub fn download(&self, pointer: u64, count: usize) -> Vec<u32> {
        let mut values = vec![0xdead_beef; count];
        let to = values.as_mut_ptr() as u64;
        self.hipMemcpy(to, pointer, 4 * count, DEVICE_TO_HOST).unwrap();
        values
    }

    pub fn stream(&self) -> Handle {
        self.stream_with(0)
    }

    pub fn stream_with(&self, flags: c_uint) -> Handle {
        let mut stream = NULL;
        self.hipStreamCreateWithFlags(&mut stream, flags).unwrap();
        stream
    }

    pub fn event(&self) -> Handle {
        let mut event = NULL;
        self.hipEventCreate(&mut event).unwrap();
        event
    }

    pub fn function(&self, module: Handle, name: &str) -> Result<Handle, c_int> {
        let (name, mut function) = (CString::new(name).unwrap(), NULL);
        self.hipModuleGetFunction(&mut function, module, name.as_ptr())?;
        Ok(function)
    }
}

/// Holds a stream up until it is opened.
pub struct Gate(Sender<()>);

impl Gate {
    /// Puts the gate into `stream`.
    pub fn close(hip: &Hip, stream: Handle) -> Self {
        unsafe extern "C" fn wait(receiver: *mut c_void) {
            // SAFETY: `close` made this pointer of a box and passes it once.
            let receiver = unsafe { Box::from_raw(receiver.cast::<Receiver<()>>()) };
            receiver.recv().unwrap();
        }
        let (sender, receiver) = channel::<()>();
        let argument = Box::into_raw(Box::new(receiver)).cast();
        hip.hipLaunchHostFunc(stream, Some(wait), argument).unwrap();
        Self(sender)
    }

    pub fn open(self) {
        self.0.send(()).unwrap();
    }
}

/// Numbers that host functions wrote down, in their order.
#[derive(Default)]
pub struct Log(Mutex<Vec<usize>>);

impl Log {
    /// Puts a note of `number` into `stream`; a captured note may run often.
    pub fn note(&'static self, hip: &Hip, stream: Handle, number: usize) {
        unsafe extern "C" fn write(note: *mut c_void) {
            // SAFETY: `note` leaks the pair that this points to.
            let (log, number) = unsafe { *note.cast::<(&'static Log, usize)>() };
            log.0.lock().unwrap().push(number);
        }
        let note: *mut (&'static Log, usize) = Box::leak(Box::new((self, number)));
        hip.hipLaunchHostFunc(stream, Some(write), note.cast()).unwrap();
    }

    pub fn take(&self) -> Vec<usize> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}
