//! What a program can ask about a kernel: attributes and occupancy.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use super::device::Device;
use super::error::{Error, Result};
use super::handles::Handle;
use super::module::Function;
use super::{out, registration};
use crate::Kernel;

/// LDS is handed out to workgroups in pieces of this many bytes.
const LDS_GRANULE: u32 = 512;
/// A wave's registers are a multiple of this fraction of a SIMD's: 24 of 1536
/// and 16 of 1024, as LLVM's `getVGPRAllocGranule` has it for wave32.
const REGISTER_GRANULES: u32 = 64;

/// `hipFuncAttributes`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    binary_version: c_int,
    cache_mode: c_int,
    const_bytes: usize,
    local_bytes: usize,
    max_dynamic_shared_bytes: c_int,
    max_threads: c_int,
    registers: c_int,
    shared_carveout: c_int,
    ptx_version: c_int,
    shared_bytes: usize,
}

fn attributes(function: &Function) -> Attributes {
    let device = function.module.device;
    let (chip, kernel) = (device.chip.properties(), function.kernel());
    let (major, minor) = device.version();
    Attributes {
        binary_version: major * 10 + minor,
        cache_mode: 0,
        const_bytes: 0,
        local_bytes: kernel.scratch_bytes as usize,
        max_dynamic_shared_bytes: chip.lds_bytes.saturating_sub(kernel.lds_bytes) as c_int,
        max_threads: kernel.max_threads.min(chip.max_threads_per_workgroup) as c_int,
        registers: kernel.vgprs as c_int,
        shared_carveout: 0,
        ptx_version: major * 10 + minor,
        shared_bytes: kernel.lds_bytes as usize,
    }
}

/// Workgroups of `threads` threads that a multiprocessor of `device` holds.
fn occupancy(device: &Device, kernel: &Kernel, threads: u32, dynamic_lds: u32) -> u32 {
    let chip = device.chip.properties();
    let granule = chip.vgprs_per_simd / REGISTER_GRANULES;
    let registers = kernel.vgprs.max(1).next_multiple_of(granule);
    let waves_per_simd = (chip.vgprs_per_simd / registers).min(chip.max_waves_per_simd);
    let waves = threads.div_ceil(kernel.wave_size);
    let by_waves = waves_per_simd * device.simds() / waves;
    let lds = kernel.lds_bytes.saturating_add(dynamic_lds);
    if lds > chip.lds_bytes || threads > kernel.max_threads.min(chip.max_threads_per_workgroup) {
        return 0;
    }
    let lds_total = chip.lds_bytes * device.simds() / chip.simds_per_compute_unit;
    match lds.next_multiple_of(LDS_GRANULE) {
        0 => by_waves,
        lds => by_waves.min(lds_total / lds),
    }
}

/// # Safety
/// `blocks` is null or points to a writable int.
unsafe fn out_occupancy(
    blocks: *mut c_int,
    function: &Function,
    threads: c_int,
    dynamic_lds: usize,
) -> Result {
    let threads = u32::try_from(threads).ok().filter(|&n| n > 0).ok_or(Error::InvalidValue)?;
    let dynamic_lds = u32::try_from(dynamic_lds).unwrap_or(u32::MAX);
    let found = occupancy(function.module.device, function.kernel(), threads, dynamic_lds);
    // SAFETY: the caller's promise.
    unsafe { out(blocks, found as c_int) }
}

/// The largest full-occupancy block for `function` and the grid that fills the
/// device with it.
///
/// # Safety
/// `grid` and `block` are null or point to writable ints.
unsafe fn out_best_block(
    grid: *mut c_int,
    block: *mut c_int,
    function: &Function,
    dynamic_lds: usize,
    limit: c_int,
) -> Result {
    let (device, kernel) = (function.module.device, function.kernel());
    let chip = device.chip.properties();
    let most = kernel.max_threads.min(chip.max_threads_per_workgroup);
    let limit = u32::try_from(limit).ok().filter(|&limit| limit > 0).unwrap_or(most).min(most);
    let dynamic_lds = u32::try_from(dynamic_lds).unwrap_or(u32::MAX);
    let resident = |threads: u32| occupancy(device, kernel, threads, dynamic_lds) * threads;
    let candidates = (1..=limit / kernel.wave_size).map(|waves| waves * kernel.wave_size);
    let threads = candidates.max_by_key(|&threads| (resident(threads), threads)).unwrap_or(limit);
    let blocks = occupancy(device, kernel, threads, dynamic_lds) * device.multiprocessors() as u32;
    // SAFETY: the caller's promise.
    unsafe { out(grid, blocks as c_int).and(out(block, threads as c_int)) }
}

/// A handle from `hipModuleGetFunction` or the host stub of a kernel.
fn by_pointer(function: *const c_void) -> Result<Arc<Function>> {
    Function::resolve(function.cast_mut()).or_else(|_| registration::function(function))
}

super::export::exports! {
    /// One `hipFunction_attribute` of a kernel.
    ///
    /// # Safety
    /// `value` is null or points to a writable int.
    fn hipFuncGetAttribute(value: *mut c_int, attribute: c_int, function: Handle) {
        let all = attributes(&*Function::resolve(function)?);
        let found = match attribute {
            0 => all.max_threads,
            1 => all.shared_bytes as c_int,
            2 => all.const_bytes as c_int,
            3 => all.local_bytes as c_int,
            4 => all.registers,
            5 => all.ptx_version,
            6 => all.binary_version,
            7 => all.cache_mode,
            8 => all.max_dynamic_shared_bytes,
            9 => all.shared_carveout,
            _ => return Err(Error::InvalidValue),
        };
        // SAFETY: the caller's promise about `value`.
        unsafe { out(value, found) }
    }

    /// All attributes of a kernel, given by its handle or its host stub.
    ///
    /// # Safety
    /// `into` is null or points to a writable `hipFuncAttributes`.
    fn hipFuncGetAttributes(into: *mut Attributes, function: *const c_void) {
        // SAFETY: the caller's promise about `into`.
        unsafe { out(into, attributes(&*by_pointer(function)?)) }
    }

    /// Accepts a `hipFuncAttribute`; any LDS size the chip has is allowed anyway.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipFuncSetAttribute(function: *const c_void, attribute: c_int, value: c_int) {
        let all = attributes(&*by_pointer(function)?);
        match attribute {
            8 if (0..=all.max_dynamic_shared_bytes).contains(&value) => Ok(()),
            9 if (-1..=100).contains(&value) => Ok(()),
            _ => Err(Error::InvalidValue),
        }
    }

    /// Accepts a cache preference, which has no effect here.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipFuncSetCacheConfig(function: *const c_void, _config: c_int) {
        by_pointer(function).map(drop)
    }

    /// Workgroups of a size that a multiprocessor holds at once.
    ///
    /// # Safety
    /// `blocks` is null or points to a writable int.
    fn hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: *mut c_int,
        function: Handle,
        threads: c_int,
        dynamic_lds: usize,
    ) {
        // SAFETY: the caller's promise about `blocks`.
        unsafe { out_occupancy(blocks, &*Function::resolve(function)?, threads, dynamic_lds) }
    }

    /// As the function without flags, which change nothing.
    ///
    /// # Safety
    /// `blocks` is null or points to a writable int.
    fn hipModuleOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: *mut c_int,
        function: Handle,
        threads: c_int,
        dynamic_lds: usize,
        _flags: c_uint,
    ) {
        // SAFETY: the caller's promise about `blocks`.
        unsafe { out_occupancy(blocks, &*Function::resolve(function)?, threads, dynamic_lds) }
    }

    /// Workgroups of a size that a multiprocessor holds, for a host stub.
    ///
    /// # Safety
    /// `blocks` is null or points to a writable int.
    fn hipOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: *mut c_int,
        function: *const c_void,
        threads: c_int,
        dynamic_lds: usize,
    ) {
        // SAFETY: the caller's promise about `blocks`.
        unsafe { out_occupancy(blocks, &*by_pointer(function)?, threads, dynamic_lds) }
    }

    /// The block size with the most resident threads, and a grid that fills the
    /// device.
    ///
    /// # Safety
    /// `grid` and `block` are null or point to writable ints.
    fn hipModuleOccupancyMaxPotentialBlockSize(
        grid: *mut c_int,
        block: *mut c_int,
        function: Handle,
        dynamic_lds: usize,
        limit: c_int,
    ) {
        let function = Function::resolve(function)?;
        // SAFETY: the caller's promise about `grid` and `block`.
        unsafe { out_best_block(grid, block, &function, dynamic_lds, limit) }
    }

    /// As the module form, for a host stub.
    ///
    /// # Safety
    /// `grid` and `block` are null or point to writable ints.
    fn hipOccupancyMaxPotentialBlockSize(
        grid: *mut c_int,
        block: *mut c_int,
        function: *const c_void,
        dynamic_lds: usize,
        limit: c_int,
    ) {
        let function = by_pointer(function)?;
        // SAFETY: the caller's promise about `grid` and `block`.
        unsafe { out_best_block(grid, block, &function, dynamic_lds, limit) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Chip;

    fn occupied(vgprs: u32, lds_bytes: u32, threads: u32, dynamic_lds: u32) -> u32 {
        let kernel = Kernel {
            name: String::from("k"),
            arguments: Vec::new(),
            kernarg_bytes: 0,
            lds_bytes,
            scratch_bytes: 0,
            vgprs,
            sgprs: 16,
            wave_size: 32,
            max_threads: 1024,
        };
        occupancy(&Device::new(0, Chip::Gfx1100, 1 << 30), &kernel, threads, dynamic_lds)
    }

    #[test]
    fn few_registers_leave_the_wave_slots_as_the_limit() {
        assert_eq!(occupied(24, 0, 256, 0), 16 * 4 / 8);
        assert_eq!(occupied(96, 0, 256, 0), 16 * 4 / 8);
    }

    #[test]
    fn registers_are_rounded_up_to_their_granule() {
        assert_eq!(occupied(97, 0, 32, 0), 1536 / 120 * 4);
        assert_eq!(occupied(256, 0, 32, 0), 1536 / 264 * 4);
    }

    #[test]
    fn lds_limits_and_too_much_of_it_does_not_fit() {
        assert_eq!(occupied(24, 16 << 10, 64, 16 << 10), 4);
        assert_eq!(occupied(24, 64 << 10, 64, 1), 0);
        assert_eq!(occupied(24, 0, 1025, 0), 0);
    }
}
