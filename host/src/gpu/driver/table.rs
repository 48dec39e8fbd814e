//! The driver calls this project makes, each under its HIP and its CUDA name.
//!
//! HIP's module API mirrors the CUDA driver API: most calls have one signature, one order of
//! arguments and one set of constants, and differ in name only. Those are [`Shared`]. The few that
//! differ in shape are [`Hip`] and [`Cuda`]. Signatures: `hip/hip_runtime_api.h` of HIP 5.2 to
//! 6.3, and `cuda.h` of CUDA 12.6; where a call has versions, the symbol here is the one that the
//! header maps the plain name to.
//!
//! A library older than a call has no symbol for it: the entry is `None`, and using it is an error
//! that names the symbol.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};

use super::{Driver, Fault};

/// An address in device memory: `CUdeviceptr`, `hipDeviceptr_t`.
pub(crate) type DevicePtr = u64;

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
    /// `CUcontext`; HIP has none.
    Context;
    /// `hipStream_t`, `CUstream`.
    StreamHandle;
    /// `hipEvent_t`, `CUevent`.
    EventHandle;
    /// `hipModule_t`, `CUmodule`.
    ModuleHandle;
    /// `hipFunction_t`, `CUfunction`.
    FunctionHandle;
    /// `hipGraph_t`, `CUgraph`.
    GraphHandle;
    /// `hipGraphExec_t`, `CUgraphExec`.
    GraphExecHandle;
}

/// `CUlaunchConfig`.
#[repr(C)]
pub(crate) struct ExtendedLaunch {
    /// Workgroups per dimension.
    pub(crate) grid: [c_uint; 3],
    /// Threads per workgroup and dimension.
    pub(crate) workgroup: [c_uint; 3],
    /// Workgroup memory sized at launch.
    pub(crate) lds_bytes: c_uint,
    /// The stream.
    pub(crate) stream: StreamHandle,
    /// An array of attributes.
    pub(crate) attributes: *const LaunchAttribute,
    /// How many.
    pub(crate) count: c_uint,
}

/// `CUlaunchAttribute`. Its value is a union of 64 bytes, some of whose members are pointers.
#[repr(C, align(8))]
pub(crate) struct LaunchAttribute {
    id: c_int,
    padding: c_int,
    /// The members that are integers start here.
    value: [c_int; 16],
}

const _: () = assert!(size_of::<LaunchAttribute>() == 72 && align_of::<LaunchAttribute>() == 8);

impl LaunchAttribute {
    /// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION`: the kernel may begin before the one
    /// launched before it has ended.
    pub(crate) const MAY_OVERLAP: LaunchAttribute = {
        let mut value = [0; 16];
        value[0] = 1;
        LaunchAttribute { id: 6, padding: 0, value }
    };
}

/// `cuGetErrorName` and `cuGetErrorString`.
pub(super) type CudaText = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;

/// Finds a symbol by name; `None` when the library lacks it.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<*const c_void>;

/// Defines the calls that are one signature under two names, and a checked method for each.
macro_rules! shared {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) = $hip:literal, $cuda:literal;)*) => {
        /// Calls that differ in name only.
        pub(super) struct Shared {
            $($name: Option<unsafe extern "C" fn($($ty),*) -> c_int>,)*
        }

        impl Shared {
            /// Fills the table; `cuda` says under which names.
            pub(super) fn load(lookup: Lookup<'_>, cuda: bool) -> Shared {
                Shared {
                    $($name: lookup(if cuda { $cuda } else { $hip }).map(|at| {
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
            pub(crate) unsafe fn $name(&'static self, $($arg: $ty),*) -> Result<(), Fault> {
                let call = if self.is_cuda() { $cuda } else { $hip };
                let f = self.shared.$name.ok_or_else(|| self.missing(call))?;
                // SAFETY: the caller's promise.
                self.check(call, unsafe { f($($arg),*) })
            })*
        }
    };
}

shared! {
    /// Version of the driver.
    driver_version(version: *mut c_int) = "hipDriverGetVersion", "cuDriverGetVersion";
    /// Number of devices.
    raw_device_count(count: *mut c_int) = "hipGetDeviceCount", "cuDeviceGetCount";
    /// Handle of a device, by ordinal.
    device_get(device: *mut c_int, ordinal: c_int) = "hipDeviceGet", "cuDeviceGet";
    /// Marketing name.
    device_name(name: *mut c_char, len: c_int, device: c_int)
        = "hipDeviceGetName", "cuDeviceGetName";
    /// Device memory in bytes.
    device_total_memory(bytes: *mut usize, device: c_int)
        = "hipDeviceTotalMem", "cuDeviceTotalMem_v2";
    /// An integer property; the numbering of `attribute` differs between the two.
    device_attribute(value: *mut c_int, attribute: c_int, device: c_int)
        = "hipDeviceGetAttribute", "cuDeviceGetAttribute";
    /// Whether kernels on `device` can read memory of `peer`.
    device_can_access_peer(can: *mut c_int, device: c_int, peer: c_int)
        = "hipDeviceCanAccessPeer", "cuDeviceCanAccessPeer";
    /// Waits for everything on the current device.
    device_synchronize() = "hipDeviceSynchronize", "cuCtxSynchronize";
    /// Free and total memory of the current device, in bytes.
    memory_info(free: *mut usize, total: *mut usize) = "hipMemGetInfo", "cuMemGetInfo_v2";
    /// Allocates device memory.
    malloc(ptr: *mut DevicePtr, bytes: usize) = "hipMalloc", "cuMemAlloc_v2";
    /// Frees device memory.
    free(ptr: DevicePtr) = "hipFree", "cuMemFree_v2";
    /// Allocates page-locked host memory.
    host_malloc(ptr: *mut *mut c_void, bytes: usize, flags: c_uint)
        = "hipHostMalloc", "cuMemHostAlloc";
    /// Frees page-locked host memory.
    host_free(ptr: *mut c_void) = "hipHostFree", "cuMemFreeHost";
    /// Host to device, in stream order.
    memcpy_htod_async(dst: DevicePtr, src: *const c_void, bytes: usize, stream: StreamHandle)
        = "hipMemcpyHtoDAsync", "cuMemcpyHtoDAsync_v2";
    /// Device to host, in stream order.
    memcpy_dtoh_async(dst: *mut c_void, src: DevicePtr, bytes: usize, stream: StreamHandle)
        = "hipMemcpyDtoHAsync", "cuMemcpyDtoHAsync_v2";
    /// Within a device, in stream order.
    memcpy_dtod_async(dst: DevicePtr, src: DevicePtr, bytes: usize, stream: StreamHandle)
        = "hipMemcpyDtoDAsync", "cuMemcpyDtoDAsync_v2";
    /// Sets bytes, in stream order.
    memset_d8_async(dst: DevicePtr, value: u8, count: usize, stream: StreamHandle)
        = "hipMemsetD8Async", "cuMemsetD8Async";
    /// Sets 32-bit words, in stream order.
    memset_d32_async(dst: DevicePtr, value: c_uint, count: usize, stream: StreamHandle)
        = "hipMemsetD32Async", "cuMemsetD32Async";
    /// Creates a stream on the current device.
    stream_create(stream: *mut StreamHandle, flags: c_uint)
        = "hipStreamCreateWithFlags", "cuStreamCreate";
    /// Destroys a stream; work already on it still completes.
    stream_destroy(stream: StreamHandle) = "hipStreamDestroy", "cuStreamDestroy_v2";
    /// Waits for everything on a stream.
    stream_synchronize(stream: StreamHandle) = "hipStreamSynchronize", "cuStreamSynchronize";
    /// Makes later work of a stream wait for an event.
    stream_wait_event(stream: StreamHandle, event: EventHandle, flags: c_uint)
        = "hipStreamWaitEvent", "cuStreamWaitEvent";
    /// Starts recording the stream's work into a graph.
    stream_begin_capture(stream: StreamHandle, mode: c_int)
        = "hipStreamBeginCapture", "cuStreamBeginCapture_v2";
    /// Ends the recording.
    stream_end_capture(stream: StreamHandle, graph: *mut GraphHandle)
        = "hipStreamEndCapture", "cuStreamEndCapture";
    /// Creates an event.
    event_create(event: *mut EventHandle, flags: c_uint)
        = "hipEventCreateWithFlags", "cuEventCreate";
    /// Destroys an event.
    event_destroy(event: EventHandle) = "hipEventDestroy", "cuEventDestroy_v2";
    /// Marks the present end of a stream.
    event_record(event: EventHandle, stream: StreamHandle) = "hipEventRecord", "cuEventRecord";
    /// `NOT_READY` while the work before the event is not done.
    event_query(event: EventHandle) = "hipEventQuery", "cuEventQuery";
    /// Waits for an event.
    event_synchronize(event: EventHandle) = "hipEventSynchronize", "cuEventSynchronize";
    /// Milliseconds between two events.
    event_elapsed(ms: *mut f32, start: EventHandle, end: EventHandle)
        = "hipEventElapsedTime", "cuEventElapsedTime";
    /// Unloads a module.
    module_unload(module: ModuleHandle) = "hipModuleUnload", "cuModuleUnload";
    /// Finds a kernel by name.
    module_get_function(function: *mut FunctionHandle, module: ModuleHandle, name: *const c_char)
        = "hipModuleGetFunction", "cuModuleGetFunction";
    /// An integer property of a kernel; both number them alike.
    function_attribute(value: *mut c_int, attribute: c_int, function: FunctionHandle)
        = "hipFuncGetAttribute", "cuFuncGetAttribute";
    /// Workgroups of a kernel that fit a compute unit at once.
    occupancy(groups: *mut c_int, function: FunctionHandle, threads: c_int, lds_bytes: usize)
        = "hipModuleOccupancyMaxActiveBlocksPerMultiprocessor",
          "cuOccupancyMaxActiveBlocksPerMultiprocessor";
    /// Launches a kernel; `params` points to one pointer per argument.
    launch_kernel(
        function: FunctionHandle,
        grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        lds_bytes: c_uint, stream: StreamHandle,
        params: *mut *mut c_void, extra: *mut *mut c_void
    ) = "hipModuleLaunchKernel", "cuLaunchKernel";
    /// Makes a recorded graph launchable.
    graph_instantiate(exec: *mut GraphExecHandle, graph: GraphHandle, flags: c_ulonglong)
        = "hipGraphInstantiateWithFlags", "cuGraphInstantiateWithFlags";
    /// Launches a graph.
    graph_launch(exec: GraphExecHandle, stream: StreamHandle) = "hipGraphLaunch", "cuGraphLaunch";
    /// Destroys a recorded graph.
    graph_destroy(graph: GraphHandle) = "hipGraphDestroy", "cuGraphDestroy";
    /// Destroys a launchable graph.
    graph_exec_destroy(exec: GraphExecHandle) = "hipGraphExecDestroy", "cuGraphExecDestroy";
}

/// Defines the calls that one API has in a shape of its own.
macro_rules! own {
    ($(#[$struct_doc:meta])* $table:ident { $($(#[$doc:meta])*
        $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $symbol:literal;)* }) => {
        $(#[$struct_doc])*
        pub(super) struct $table {
            $($(#[$doc])* pub(super) $name: Option<unsafe extern "C" fn($($ty),*) -> $ret>,)*
        }

        impl $table {
            /// Fills the table.
            pub(super) fn load(lookup: Lookup<'_>) -> $table {
                $table {
                    $($name: lookup($symbol).map(|at| {
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

own! {
    /// What only HIP has, or has in another shape.
    Hip {
        /// Makes a device current for the calling thread.
        set_device(device: c_int) -> c_int = "hipSetDevice";
        /// Version of the runtime, as `major * 10^7 + minor * 10^5 + patch`.
        runtime_version(version: *mut c_int) -> c_int = "hipRuntimeGetVersion";
        /// Loads a code object.
        module_load(module: *mut ModuleHandle, image: *const c_void) -> c_int
            = "hipModuleLoadData";
        /// Copies between devices, named by ordinal.
        memcpy_peer_async(
            dst: DevicePtr, dst_device: c_int, src: DevicePtr, src_device: c_int,
            bytes: usize, stream: StreamHandle
        ) -> c_int = "hipMemcpyPeerAsync";
        /// Lets the current device reach a peer's memory.
        enable_peer_access(peer: c_int, flags: c_uint) -> c_int = "hipDeviceEnablePeerAccess";
        /// `hipGetDeviceProperties` with HIP 6's structure.
        properties_r0600(properties: *mut c_void, device: c_int) -> c_int
            = "hipGetDevicePropertiesR0600";
        /// `hipGetDeviceProperties` with HIP 5's structure.
        properties(properties: *mut c_void, device: c_int) -> c_int = "hipGetDeviceProperties";
        /// Name of an error code.
        error_name(code: c_int) -> *const c_char = "hipGetErrorName";
        /// Meaning of an error code.
        error_string(code: c_int) -> *const c_char = "hipGetErrorString";
    }
}

own! {
    /// What only CUDA has, or has in another shape.
    Cuda {
        /// Starts the driver; the first call made. HIP starts with any call, and its `hipInit`
        /// obscures a missing device: HIP 5.2 then returns 101, not 100.
        init(flags: c_uint) -> c_int = "cuInit";
        /// The context that all users of a device in this process share.
        primary_retain(context: *mut Context, device: c_int) -> c_int
            = "cuDevicePrimaryCtxRetain";
        /// Makes a context current for the calling thread.
        set_current(context: Context) -> c_int = "cuCtxSetCurrent";
        /// Loads PTX or a cubin; the options are two parallel arrays.
        module_load(
            module: *mut ModuleHandle, image: *const c_void,
            num_options: c_uint, options: *mut c_int, values: *mut *mut c_void
        ) -> c_int = "cuModuleLoadDataEx";
        /// Sets a property of a kernel.
        function_set_attribute(function: FunctionHandle, attribute: c_int, value: c_int) -> c_int
            = "cuFuncSetAttribute";
        /// A launch with attributes, newer than 12.0 of CUDA.
        launch_kernel_ex(
            config: *const ExtendedLaunch, function: FunctionHandle,
            params: *mut *mut c_void, extra: *mut *mut c_void
        ) -> c_int = "cuLaunchKernelEx";
        /// Copies between devices, named by context.
        memcpy_peer_async(
            dst: DevicePtr, dst_context: Context, src: DevicePtr, src_context: Context,
            bytes: usize, stream: StreamHandle
        ) -> c_int = "cuMemcpyPeerAsync";
        /// Lets the current context reach a peer's memory.
        enable_peer_access(peer: Context, flags: c_uint) -> c_int = "cuCtxEnablePeerAccess";
        /// Name of an error code.
        error_name(code: c_int, name: *mut *const c_char) -> c_int = "cuGetErrorName";
        /// Meaning of an error code.
        error_string(code: c_int, text: *mut *const c_char) -> c_int = "cuGetErrorString";
    }
}
