//! HIP's module API by its own names, as a `-sys` crate would give it: types, constants and the table
//! of functions. CUDA's name for each stands beside it.
//!
//! HIP's module API mirrors the CUDA driver API: most calls have one signature, one order of
//! arguments and one set of constants, and differ in name only. Those are [`Functions`]. The few that
//! differ in shape are [`HipFunctions`] and [`CudaFunctions`]. Signatures: `hip/hip_runtime_api.h` of
//! HIP 5.2 to 6.3, and `cuda.h` of CUDA 12.6; where a call has versions, the symbol here is the one
//! that the header maps the plain name to.
//!
//! Symbols are looked up at run time. A library older than a call has none for it: the entry is
//! `None`, and using it is an error that names the symbol.

#![allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    reason = "the names of hip_runtime_api.h and cuda.h"
)]

use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};

use super::driver::{Driver, Fault};

/// An address in device memory: `CUdeviceptr`.
pub(crate) type hipDeviceptr_t = u64;

/// Defines opaque handles of the driver.
macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) struct $name(*mut c_void);

        impl $name {
            /// The null handle: none, or the default one.
            pub(crate) const NULL: $name = $name(std::ptr::null_mut());

            /// The driver's own value, for calls outside this table.
            #[allow(dead_code, reason = "only some kinds of handle leave the table")]
            pub(crate) fn as_ptr(self) -> *mut c_void {
                self.0
            }
        }

        // SAFETY: a handle is a name for an object of the driver, which both HIP and CUDA let any
        // thread use; nothing is reached through it on the host.
        unsafe impl Send for $name {}
        // SAFETY: as above.
        unsafe impl Sync for $name {}
    )*};
}

handles! {
    /// CUDA's alone: HIP names a device by its ordinal.
    CUcontext;
    /// `CUstream`.
    hipStream_t;
    /// `CUevent`.
    hipEvent_t;
    /// `CUmodule`.
    hipModule_t;
    /// `CUfunction`.
    hipFunction_t;
    /// `CUgraph`.
    hipGraph_t;
    /// `CUgraphExec`.
    hipGraphExec_t;
}

/// `CUDA_SUCCESS`.
pub(crate) const hipSuccess: c_int = 0;
/// `CUDA_ERROR_OUT_OF_MEMORY`.
pub(crate) const hipErrorOutOfMemory: c_int = 2;
/// `CUDA_ERROR_NO_DEVICE`.
pub(crate) const hipErrorNoDevice: c_int = 100;
/// `CUDA_ERROR_NOT_FOUND`.
pub(crate) const hipErrorNotFound: c_int = 500;
/// `CUDA_ERROR_NOT_READY`: an answer, not a failure.
pub(crate) const hipErrorNotReady: c_int = 600;
/// `CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED`.
pub(crate) const hipErrorPeerAccessAlreadyEnabled: c_int = 704;

/// `CU_MEMHOSTALLOC_PORTABLE`: usable with every device.
pub(crate) const hipHostMallocPortable: c_uint = 1;
/// `CU_STREAM_NON_BLOCKING`: no implicit order with the default stream.
pub(crate) const hipStreamNonBlocking: c_uint = 1;
/// `CU_EVENT_DISABLE_TIMING`.
pub(crate) const hipEventDisableTiming: c_uint = 2;
/// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`: other threads may allocate while one records.
pub(crate) const hipStreamCaptureModeThreadLocal: c_int = 1;

/// `CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK`.
pub(crate) const HIP_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: c_int = 0;
/// `CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES`.
pub(crate) const HIP_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: c_int = 1;
/// `CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES`.
pub(crate) const HIP_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES: c_int = 3;
/// `CU_FUNC_ATTRIBUTE_NUM_REGS`.
pub(crate) const HIP_FUNC_ATTRIBUTE_NUM_REGS: c_int = 4;
/// Set, not read, and by CUDA alone.
pub(crate) const CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: c_int = 8;

/// The option whose value is the buffer for the JIT compiler's errors.
pub(crate) const CU_JIT_ERROR_LOG_BUFFER: c_int = 5;
/// The option whose value is that buffer's size.
pub(crate) const CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES: c_int = 6;

/// An integer property of a device, which the two APIs number differently.
#[derive(Clone, Copy)]
pub(crate) struct Attribute {
    /// In `hipDeviceAttribute_t`.
    pub(crate) hip: c_int,
    /// In `CUdevice_attribute`.
    pub(crate) cuda: c_int,
}

/// Defines attributes: HIP's number, CUDA's number.
macro_rules! attributes {
    ($($(#[$doc:meta])* $name:ident = $hip:literal, $cuda:literal;)*) => {$(
        $(#[$doc])*
        pub(crate) const $name: Attribute = Attribute { hip: $hip, cuda: $cuda };
    )*};
}

attributes! {
    /// `CLOCK_RATE`, in kHz.
    hipDeviceAttributeClockRate = 5, 13;
    /// `INTEGRATED`.
    hipDeviceAttributeIntegrated = 16, 18;
    /// `L2_CACHE_SIZE`, in bytes.
    hipDeviceAttributeL2CacheSize = 19, 38;
    /// `MAX_GRID_DIM_X`.
    hipDeviceAttributeMaxGridDimX = 29, 5;
    /// `MAX_GRID_DIM_Y`.
    hipDeviceAttributeMaxGridDimY = 30, 6;
    /// `MAX_GRID_DIM_Z`.
    hipDeviceAttributeMaxGridDimZ = 31, 7;
    /// `MAX_THREADS_PER_BLOCK`.
    hipDeviceAttributeMaxThreadsPerBlock = 56, 1;
    /// `MAX_THREADS_PER_MULTIPROCESSOR`.
    hipDeviceAttributeMaxThreadsPerMultiProcessor = 57, 39;
    /// `GLOBAL_MEMORY_BUS_WIDTH`, in bits.
    hipDeviceAttributeMemoryBusWidth = 59, 37;
    /// `MEMORY_CLOCK_RATE`, in kHz.
    hipDeviceAttributeMemoryClockRate = 60, 36;
    /// `MULTIPROCESSOR_COUNT`.
    hipDeviceAttributeMultiprocessorCount = 63, 16;
    /// `MAX_SHARED_MEMORY_PER_BLOCK_OPTIN` on CUDA: the most a kernel may ask for, not what each gets.
    hipDeviceAttributeMaxSharedMemoryPerBlock = 74, 97;
    /// `WARP_SIZE`.
    hipDeviceAttributeWarpSize = 87, 10;
}

/// First digits of the compute capability.
pub(crate) const CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: c_int = 75;
/// Its last digit.
pub(crate) const CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: c_int = 76;

/// A launch with attributes.
#[repr(C)]
pub(crate) struct CUlaunchConfig {
    /// Workgroups per dimension.
    pub(crate) grid: [c_uint; 3],
    /// Threads per workgroup and dimension.
    pub(crate) workgroup: [c_uint; 3],
    /// Workgroup memory sized at launch.
    pub(crate) lds_bytes: c_uint,
    /// The stream.
    pub(crate) stream: hipStream_t,
    /// An array of attributes.
    pub(crate) attributes: *const CUlaunchAttribute,
    /// How many.
    pub(crate) count: c_uint,
}

/// One of them. Its value is a union of 64 bytes, some of whose members are pointers.
#[repr(C, align(8))]
pub(crate) struct CUlaunchAttribute {
    id: c_int,
    padding: c_int,
    /// The members that are integers start here.
    value: [c_int; 16],
}

const _: () = assert!(size_of::<CUlaunchAttribute>() == 72 && align_of::<CUlaunchAttribute>() == 8);

impl CUlaunchAttribute {
    /// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION`, set: the kernel may begin before the
    /// one launched before it has ended.
    pub(crate) const PROGRAMMATIC_STREAM_SERIALIZATION: CUlaunchAttribute = {
        let mut value = [0; 16];
        value[0] = 1;
        CUlaunchAttribute { id: 6, padding: 0, value }
    };
}

/// `cuGetErrorName` and `cuGetErrorString`.
pub(super) type CudaText = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;

/// Finds a symbol by name; `None` when the library lacks it.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<*const c_void>;

/// Defines the calls that are one signature under two names, and a checked method for each.
macro_rules! functions {
    ($($(#[$doc:meta])* $hip:ident | $cuda:ident($($arg:ident: $ty:ty),*);)*) => {
        /// Calls that differ in name only.
        pub(super) struct Functions {
            $($hip: Option<unsafe extern "C" fn($($ty),*) -> c_int>,)*
        }

        impl Functions {
            /// Fills the table; `cuda` says under which names.
            pub(super) fn load(lookup: Lookup<'_>, cuda: bool) -> Functions {
                let name = |hip, other| if cuda { other } else { hip };
                Functions {
                    $($hip: lookup(name(stringify!($hip), stringify!($cuda))).map(|at| {
                        // SAFETY: the symbol is the function of that name, whose C signature
                        // (module documentation) is this one.
                        unsafe {
                            std::mem::transmute::<
                                *const c_void,
                                unsafe extern "C" fn($($ty),*) -> c_int,
                            >(at)
                        }
                    }),)*
                }
            }
        }

        impl Driver {
            $($(#[$doc])*
            ///
            /// # Safety
            ///
            /// Handles and device addresses are live, and host pointers are valid for what the
            /// driver's documentation says it reads or writes through them.
            #[allow(clippy::too_many_arguments, reason = "the driver's own argument lists")]
            pub(crate) unsafe fn $hip(&'static self, $($arg: $ty),*) -> Result<(), Fault> {
                let call = if self.is_cuda() { stringify!($cuda) } else { stringify!($hip) };
                let f = self.functions().$hip.ok_or_else(|| self.missing(call))?;
                // SAFETY: the caller's promise.
                self.check(call, unsafe { f($($arg),*) })
            })*
        }
    };
}

functions! {
    /// Version of the driver.
    hipDriverGetVersion | cuDriverGetVersion(version: *mut c_int);
    /// Number of devices.
    hipGetDeviceCount | cuDeviceGetCount(count: *mut c_int);
    /// Handle of a device, by ordinal.
    hipDeviceGet | cuDeviceGet(device: *mut c_int, ordinal: c_int);
    /// Marketing name.
    hipDeviceGetName | cuDeviceGetName(name: *mut c_char, len: c_int, device: c_int);
    /// Device memory in bytes.
    hipDeviceTotalMem | cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int);
    /// An integer property; the numbering of `attribute` differs: see [`Attribute`].
    hipDeviceGetAttribute | cuDeviceGetAttribute(
        value: *mut c_int, attribute: c_int, device: c_int
    );
    /// Whether kernels on `device` can read memory of `peer`.
    hipDeviceCanAccessPeer | cuDeviceCanAccessPeer(can: *mut c_int, device: c_int, peer: c_int);
    /// Waits for everything on the current device.
    hipDeviceSynchronize | cuCtxSynchronize();
    /// Free and total memory of the current device, in bytes.
    hipMemGetInfo | cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
    /// Allocates device memory.
    hipMalloc | cuMemAlloc_v2(ptr: *mut hipDeviceptr_t, bytes: usize);
    /// Frees device memory.
    hipFree | cuMemFree_v2(ptr: hipDeviceptr_t);
    /// Allocates page-locked host memory.
    hipHostMalloc | cuMemHostAlloc(ptr: *mut *mut c_void, bytes: usize, flags: c_uint);
    /// Frees page-locked host memory.
    hipHostFree | cuMemFreeHost(ptr: *mut c_void);
    /// Host to device, in stream order.
    hipMemcpyHtoDAsync | cuMemcpyHtoDAsync_v2(
        dst: hipDeviceptr_t, src: *const c_void, bytes: usize, stream: hipStream_t
    );
    /// Device to host, in stream order.
    hipMemcpyDtoHAsync | cuMemcpyDtoHAsync_v2(
        dst: *mut c_void, src: hipDeviceptr_t, bytes: usize, stream: hipStream_t
    );
    /// Within a device, in stream order.
    hipMemcpyDtoDAsync | cuMemcpyDtoDAsync_v2(
        dst: hipDeviceptr_t, src: hipDeviceptr_t, bytes: usize, stream: hipStream_t
    );
    /// Sets bytes, in stream order.
    hipMemsetD8Async | cuMemsetD8Async(
        dst: hipDeviceptr_t, value: u8, count: usize, stream: hipStream_t
    );
    /// Sets 32-bit words, in stream order.
    hipMemsetD32Async | cuMemsetD32Async(
        dst: hipDeviceptr_t, value: c_uint, count: usize, stream: hipStream_t
    );
    /// Creates a stream on the current device.
    hipStreamCreateWithFlags | cuStreamCreate(stream: *mut hipStream_t, flags: c_uint);
    /// Destroys a stream; work already on it still completes.
    hipStreamDestroy | cuStreamDestroy_v2(stream: hipStream_t);
    /// Waits for everything on a stream.
    hipStreamSynchronize | cuStreamSynchronize(stream: hipStream_t);
    /// Makes later work of a stream wait for an event.
    hipStreamWaitEvent | cuStreamWaitEvent(stream: hipStream_t, event: hipEvent_t, flags: c_uint);
    /// Starts recording the stream's work into a graph.
    hipStreamBeginCapture | cuStreamBeginCapture_v2(stream: hipStream_t, mode: c_int);
    /// Ends the recording.
    hipStreamEndCapture | cuStreamEndCapture(stream: hipStream_t, graph: *mut hipGraph_t);
    /// Creates an event.
    hipEventCreateWithFlags | cuEventCreate(event: *mut hipEvent_t, flags: c_uint);
    /// Destroys an event.
    hipEventDestroy | cuEventDestroy_v2(event: hipEvent_t);
    /// Marks the present end of a stream.
    hipEventRecord | cuEventRecord(event: hipEvent_t, stream: hipStream_t);
    /// [`hipErrorNotReady`] while the work before the event is not done.
    hipEventQuery | cuEventQuery(event: hipEvent_t);
    /// Waits for an event.
    hipEventSynchronize | cuEventSynchronize(event: hipEvent_t);
    /// Milliseconds between two events.
    hipEventElapsedTime | cuEventElapsedTime(ms: *mut f32, start: hipEvent_t, end: hipEvent_t);
    /// Unloads a module.
    hipModuleUnload | cuModuleUnload(module: hipModule_t);
    /// Finds a kernel by name.
    hipModuleGetFunction | cuModuleGetFunction(
        function: *mut hipFunction_t, module: hipModule_t, name: *const c_char
    );
    /// An integer property of a kernel; both number them alike.
    hipFuncGetAttribute | cuFuncGetAttribute(
        value: *mut c_int, attribute: c_int, function: hipFunction_t
    );
    /// Workgroups of a kernel that fit a compute unit at once.
    hipModuleOccupancyMaxActiveBlocksPerMultiprocessor | cuOccupancyMaxActiveBlocksPerMultiprocessor(
        groups: *mut c_int, function: hipFunction_t, threads: c_int, lds_bytes: usize
    );
    /// Launches a kernel; `params` points to one pointer per argument.
    hipModuleLaunchKernel | cuLaunchKernel(
        function: hipFunction_t, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint,
        block_y: c_uint, block_z: c_uint, lds_bytes: c_uint, stream: hipStream_t,
        params: *mut *mut c_void, extra: *mut *mut c_void
    );
    /// Makes a recorded graph launchable.
    hipGraphInstantiateWithFlags | cuGraphInstantiateWithFlags(
        exec: *mut hipGraphExec_t, graph: hipGraph_t, flags: c_ulonglong
    );
    /// Launches a graph.
    hipGraphLaunch | cuGraphLaunch(exec: hipGraphExec_t, stream: hipStream_t);
    /// Destroys a recorded graph.
    hipGraphDestroy | cuGraphDestroy(graph: hipGraph_t);
    /// Destroys a launchable graph.
    hipGraphExecDestroy | cuGraphExecDestroy(exec: hipGraphExec_t);
}

/// Defines the calls that one API has in a shape of its own.
macro_rules! functions_of_one {
    ($(#[$struct_doc:meta])* $table:ident { $($(#[$doc:meta])*
        $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty;)* }) => {
        $(#[$struct_doc])*
        pub(super) struct $table {
            $($(#[$doc])* pub(super) $name: Option<unsafe extern "C" fn($($ty),*) -> $ret>,)*
        }

        impl $table {
            /// Fills the table.
            pub(super) fn load(lookup: Lookup<'_>) -> $table {
                $table {
                    $($name: lookup(stringify!($name)).map(|at| {
                        // SAFETY: the symbol is the function of that name, whose C signature
                        // (module documentation) is this one.
                        unsafe {
                            std::mem::transmute::<
                                *const c_void,
                                unsafe extern "C" fn($($ty),*) -> $ret,
                            >(at)
                        }
                    }),)*
                }
            }
        }
    };
}

functions_of_one! {
    /// What only HIP has, or has in another shape.
    HipFunctions {
        /// Makes a device current for the calling thread.
        hipSetDevice(device: c_int) -> c_int;
        /// Version of the runtime, as `major * 10^7 + minor * 10^5 + patch`.
        hipRuntimeGetVersion(version: *mut c_int) -> c_int;
        /// Loads a code object.
        hipModuleLoadData(module: *mut hipModule_t, image: *const c_void) -> c_int;
        /// Copies between devices, named by ordinal.
        hipMemcpyPeerAsync(
            dst: hipDeviceptr_t, dst_device: c_int, src: hipDeviceptr_t, src_device: c_int,
            bytes: usize, stream: hipStream_t
        ) -> c_int;
        /// Lets the current device reach a peer's memory.
        hipDeviceEnablePeerAccess(peer: c_int, flags: c_uint) -> c_int;
        /// `hipGetDeviceProperties` with HIP 6's structure.
        hipGetDevicePropertiesR0600(properties: *mut c_void, device: c_int) -> c_int;
        /// `hipGetDeviceProperties` with HIP 5's structure.
        hipGetDeviceProperties(properties: *mut c_void, device: c_int) -> c_int;
        /// Name of an error code.
        hipGetErrorName(code: c_int) -> *const c_char;
        /// Meaning of an error code.
        hipGetErrorString(code: c_int) -> *const c_char;
    }
}

functions_of_one! {
    /// What only CUDA has, or has in another shape.
    CudaFunctions {
        /// Starts the driver; the first call made. HIP starts with any call, and its `hipInit`
        /// obscures a missing device: HIP 5.2 then returns 101, not 100.
        cuInit(flags: c_uint) -> c_int;
        /// The context that all users of a device in this process share.
        cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: c_int) -> c_int;
        /// Makes a context current for the calling thread.
        cuCtxSetCurrent(context: CUcontext) -> c_int;
        /// Loads PTX or a cubin; the options are two parallel arrays.
        cuModuleLoadDataEx(
            module: *mut hipModule_t, image: *const c_void,
            num_options: c_uint, options: *mut c_int, values: *mut *mut c_void
        ) -> c_int;
        /// Sets a property of a kernel.
        cuFuncSetAttribute(function: hipFunction_t, attribute: c_int, value: c_int) -> c_int;
        /// A launch with attributes, newer than 12.0 of CUDA.
        cuLaunchKernelEx(
            config: *const CUlaunchConfig, function: hipFunction_t,
            params: *mut *mut c_void, extra: *mut *mut c_void
        ) -> c_int;
        /// Copies between devices, named by context.
        cuMemcpyPeerAsync(
            dst: hipDeviceptr_t, dst_context: CUcontext, src: hipDeviceptr_t,
            src_context: CUcontext, bytes: usize, stream: hipStream_t
        ) -> c_int;
        /// Lets the current context reach a peer's memory.
        cuCtxEnablePeerAccess(peer: CUcontext, flags: c_uint) -> c_int;
        /// Name of an error code.
        cuGetErrorName(code: c_int, name: *mut *const c_char) -> c_int;
        /// Meaning of an error code.
        cuGetErrorString(code: c_int, text: *mut *const c_char) -> c_int;
    }
}
