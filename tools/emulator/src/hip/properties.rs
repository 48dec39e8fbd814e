//! `hipDeviceProp_t` in its two layouts.
//!
//! HIP 6 changed the structure and with it the name of the function that fills
//! it; a program calls the one its headers knew. Layouts: `hip_runtime_api.h`
//! of HIP 5.2 and of HIP 6.0 (`hipDeviceProp_tR0600`).

use std::ffi::{c_char, c_int, c_uint};

use super::device::Device;

/// Flag word of `hipDeviceArch_t`: 32-bit and 64-bit integer atomics, float
/// exchange and add, doubles, wave votes and shuffles, fences, 3-D grids. Not
/// set: funnel shift, `__syncthreads_count`, surfaces, dynamic parallelism.
pub const ARCH_FLAGS: c_uint = 0x97ff;

/// Reported where the only limit is that of the type.
pub const NO_LIMIT: c_int = c_int::MAX;
/// Ticks of `s_memrealtime` per millisecond.
pub const CLOCK_INSTRUCTION_KHZ: c_int = 100_000;
/// Alignment of textures in bytes; kernels here have none, but 0 is no alignment.
const TEXTURE_ALIGNMENT: usize = 256;

/// `hipDeviceProp_t` of HIP 5.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_snake_case, reason = "the C names")]
pub struct Properties5 {
    name: [c_char; 256],
    totalGlobalMem: usize,
    sharedMemPerBlock: usize,
    regsPerBlock: c_int,
    warpSize: c_int,
    maxThreadsPerBlock: c_int,
    maxThreadsDim: [c_int; 3],
    maxGridSize: [c_int; 3],
    clockRate: c_int,
    memoryClockRate: c_int,
    memoryBusWidth: c_int,
    totalConstMem: usize,
    major: c_int,
    minor: c_int,
    multiProcessorCount: c_int,
    l2CacheSize: c_int,
    maxThreadsPerMultiProcessor: c_int,
    computeMode: c_int,
    clockInstructionRate: c_int,
    arch: c_uint,
    concurrentKernels: c_int,
    pciDomainID: c_int,
    pciBusID: c_int,
    pciDeviceID: c_int,
    maxSharedMemoryPerMultiProcessor: usize,
    isMultiGpuBoard: c_int,
    canMapHostMemory: c_int,
    gcnArch: c_int,
    gcnArchName: [c_char; 256],
    integrated: c_int,
    cooperativeLaunch: c_int,
    cooperativeMultiDeviceLaunch: c_int,
    maxTexture1DLinear: c_int,
    maxTexture1D: c_int,
    maxTexture2D: [c_int; 2],
    maxTexture3D: [c_int; 3],
    hdpMemFlushCntl: usize,
    hdpRegFlushCntl: usize,
    memPitch: usize,
    textureAlignment: usize,
    texturePitchAlignment: usize,
    kernelExecTimeoutEnabled: c_int,
    ECCEnabled: c_int,
    tccDriver: c_int,
    cooperativeMultiDeviceUnmatched: [c_int; 4],
    isLargeBar: c_int,
    asicRevision: c_int,
    managedMemory: c_int,
    directManagedMemAccessFromHost: c_int,
    concurrentManagedAccess: c_int,
    pageableMemoryAccess: c_int,
    pageableMemoryAccessUsesHostPageTables: c_int,
}

/// `hipDeviceProp_tR0600`, the structure of HIP 6 and later. The texture and
/// surface limits, all zero here, are one array.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_snake_case, reason = "the C names")]
pub struct Properties6 {
    name: [c_char; 256],
    uuid: [c_char; 16],
    luid: [c_char; 8],
    luidDeviceNodeMask: c_uint,
    totalGlobalMem: usize,
    sharedMemPerBlock: usize,
    regsPerBlock: c_int,
    warpSize: c_int,
    memPitch: usize,
    maxThreadsPerBlock: c_int,
    maxThreadsDim: [c_int; 3],
    maxGridSize: [c_int; 3],
    clockRate: c_int,
    totalConstMem: usize,
    major: c_int,
    minor: c_int,
    textureAlignment: usize,
    texturePitchAlignment: usize,
    deviceOverlap: c_int,
    multiProcessorCount: c_int,
    kernelExecTimeoutEnabled: c_int,
    integrated: c_int,
    canMapHostMemory: c_int,
    computeMode: c_int,
    textures_and_surfaces: [c_int; 40],
    surfaceAlignment: usize,
    concurrentKernels: c_int,
    ECCEnabled: c_int,
    pciBusID: c_int,
    pciDeviceID: c_int,
    pciDomainID: c_int,
    tccDriver: c_int,
    asyncEngineCount: c_int,
    unifiedAddressing: c_int,
    memoryClockRate: c_int,
    memoryBusWidth: c_int,
    l2CacheSize: c_int,
    persistingL2CacheMaxSize: c_int,
    maxThreadsPerMultiProcessor: c_int,
    streamPrioritiesSupported: c_int,
    globalL1CacheSupported: c_int,
    localL1CacheSupported: c_int,
    sharedMemPerMultiprocessor: usize,
    regsPerMultiprocessor: c_int,
    managedMemory: c_int,
    isMultiGpuBoard: c_int,
    multiGpuBoardGroupID: c_int,
    hostNativeAtomicSupported: c_int,
    singleToDoublePrecisionPerfRatio: c_int,
    pageableMemoryAccess: c_int,
    concurrentManagedAccess: c_int,
    computePreemptionSupported: c_int,
    canUseHostPointerForRegisteredMem: c_int,
    cooperativeLaunch: c_int,
    cooperativeMultiDeviceLaunch: c_int,
    sharedMemPerBlockOptin: usize,
    pageableMemoryAccessUsesHostPageTables: c_int,
    directManagedMemAccessFromHost: c_int,
    maxBlocksPerMultiProcessor: c_int,
    accessPolicyMaxWindowSize: c_int,
    reservedSharedMemPerBlock: usize,
    hostRegisterSupported: c_int,
    sparseHipArraySupported: c_int,
    hostRegisterReadOnlySupported: c_int,
    timelineSemaphoreInteropSupported: c_int,
    memoryPoolsSupported: c_int,
    gpuDirectRDMA: [c_int; 3],
    memoryPoolSupportedHandleTypes: c_uint,
    deferredMappingHipArraySupported: c_int,
    ipcEventSupported: c_int,
    clusterLaunch: c_int,
    unifiedFunctionPointers: c_int,
    reserved: [c_int; 63],
    hipReserved: [c_int; 32],
    gcnArchName: [c_char; 256],
    maxSharedMemoryPerMultiProcessor: usize,
    clockInstructionRate: c_int,
    arch: c_uint,
    hdpMemFlushCntl: usize,
    hdpRegFlushCntl: usize,
    cooperativeMultiDeviceUnmatched: [c_int; 4],
    isLargeBar: c_int,
    asicRevision: c_int,
}

/// Zeroes everything, then sets the fields that both layouts have.
macro_rules! filled {
    ($layout:ident, $device:expr) => {{
        let (device, chip): (&Device, _) = ($device, $device.chip.properties());
        // SAFETY: the structure is made of integers and arrays of them, for which zero is valid.
        let mut properties: $layout = unsafe { std::mem::zeroed() };
        copy_name(&mut properties.name, chip.board);
        copy_name(&mut properties.gcnArchName, device.chip.name());
        properties.totalGlobalMem = device.memory_bytes;
        properties.sharedMemPerBlock = chip.lds_bytes as usize;
        properties.maxSharedMemoryPerMultiProcessor = device.lds_per_multiprocessor();
        properties.regsPerBlock = device.registers_per_multiprocessor();
        properties.warpSize = chip.wave_size as c_int;
        properties.maxThreadsPerBlock = chip.max_threads_per_workgroup as c_int;
        properties.maxThreadsDim = [chip.max_threads_per_workgroup as c_int; 3];
        properties.maxGridSize = [NO_LIMIT, c_int::from(u16::MAX), c_int::from(u16::MAX)];
        properties.clockRate = chip.clock_khz as c_int;
        properties.clockInstructionRate = CLOCK_INSTRUCTION_KHZ;
        properties.memoryClockRate = chip.memory_clock_khz as c_int;
        properties.memoryBusWidth = chip.memory_bus_bits as c_int;
        properties.totalConstMem = NO_LIMIT as usize;
        (properties.major, properties.minor) = device.version();
        properties.multiProcessorCount = device.multiprocessors();
        properties.l2CacheSize = chip.l2_bytes as c_int;
        properties.maxThreadsPerMultiProcessor = device.threads_per_multiprocessor();
        properties.arch = ARCH_FLAGS;
        properties.concurrentKernels = 1;
        properties.pciBusID = device.pci_bus();
        properties.canMapHostMemory = 1;
        properties.memPitch = NO_LIMIT as usize;
        properties.textureAlignment = TEXTURE_ALIGNMENT;
        properties.texturePitchAlignment = TEXTURE_ALIGNMENT;
        properties.isLargeBar = 1;
        properties
    }};
}

/// The properties of `device` as HIP 5 lays them out.
pub fn hip5(device: &Device) -> Properties5 {
    let mut properties = filled!(Properties5, device);
    properties.gcnArch = device.gcn_arch();
    properties
}

/// The properties of `device` as HIP 6 and later lay them out.
pub fn hip6(device: &Device) -> Properties6 {
    let mut properties = filled!(Properties6, device);
    properties.uuid = device.uuid().map(|byte| byte as c_char);
    properties.asyncEngineCount = 1;
    properties.unifiedAddressing = 1;
    properties.sharedMemPerMultiprocessor = device.lds_per_multiprocessor();
    properties.sharedMemPerBlockOptin = properties.sharedMemPerBlock;
    properties.regsPerMultiprocessor = device.registers_per_multiprocessor();
    properties.hostNativeAtomicSupported = 1;
    properties.canUseHostPointerForRegisteredMem = 1;
    properties.hostRegisterSupported = 1;
    properties
}

/// Copies `text` with a terminating zero, cut to what fits.
pub fn copy_name(into: &mut [c_char], text: &str) {
    let room = into.len().saturating_sub(1);
    for (to, from) in into[..room].iter_mut().zip(text.bytes()) {
        *to = from as c_char;
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn the_layout_of_hip_5_is_that_of_its_header() {
        assert_eq!(size_of::<Properties5>(), 792);
        assert_eq!(offset_of!(Properties5, totalConstMem), 320);
        assert_eq!(offset_of!(Properties5, arch), 356);
        assert_eq!(offset_of!(Properties5, maxSharedMemoryPerMultiProcessor), 376);
        assert_eq!(offset_of!(Properties5, gcnArchName), 396);
        assert_eq!(offset_of!(Properties5, memPitch), 712);
        assert_eq!(offset_of!(Properties5, pageableMemoryAccessUsesHostPageTables), 788);
    }

    #[test]
    fn the_layout_of_hip_6_is_that_of_its_header() {
        assert_eq!(size_of::<Properties6>(), 1472);
        assert_eq!(offset_of!(Properties6, totalGlobalMem), 288);
        assert_eq!(offset_of!(Properties6, warpSize), 308);
        assert_eq!(offset_of!(Properties6, multiProcessorCount), 388);
        assert_eq!(offset_of!(Properties6, surfaceAlignment), 568);
        assert_eq!(offset_of!(Properties6, sharedMemPerMultiprocessor), 640);
        assert_eq!(offset_of!(Properties6, gpuDirectRDMA), 748);
        assert_eq!(offset_of!(Properties6, reserved), 780);
        assert_eq!(offset_of!(Properties6, gcnArchName), 1160);
        assert_eq!(offset_of!(Properties6, asicRevision), 1468);
    }
}
