//! Running one kernel over a grid.

mod arguments;
mod dispatch;

use crate::check::Checkers;
use crate::code::{CodeImage, Kernel, Start};
use crate::counters::Counters;
use crate::fault::{Fault, FaultKind};
use crate::memory::{Memory, Owner};

pub(crate) use dispatch::Dispatch;

/// One kernel launch.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    /// The loaded code object.
    pub code: &'a CodeImage,
    /// Name of the kernel in it.
    pub kernel: &'a str,
    /// Workgroups in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a workgroup in x, y, z.
    pub block: [u32; 3],
    /// Bytes of LDS beyond what the kernel declares.
    pub dynamic_lds: u32,
    /// The explicit arguments, laid out as the metadata says. Hidden arguments are filled in.
    pub kernarg: &'a [u8],
}

/// How to run a launch. Results depend on none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Host threads that run workgroups; 0 takes as many as there are cores.
    pub threads: usize,
    /// Checks to make.
    pub checkers: Checkers,
    /// Instructions that one wave may issue before the launch is stopped.
    pub instruction_limit: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { threads: 0, checkers: Checkers::default(), instruction_limit: u64::MAX }
    }
}

/// Why a launch did not complete.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The launch itself is malformed; nothing ran.
    #[error("invalid launch: {0}")]
    Invalid(String),
    /// A wave was stopped.
    #[error(transparent)]
    Fault(Box<Fault>),
}

/// Runs a kernel to its end on the calling thread, helped by others.
///
/// Workgroups start in order of their index (x fastest). A workgroup runs on one thread, its
/// waves in turn up to each barrier. Atomics are the only thing through which workgroups may see
/// each other's order; integer ones commute, so the result is the same for any thread count.
///
/// # Errors
/// [`LaunchError::Invalid`] when grid, block, LDS or arguments do not fit the kernel,
/// [`LaunchError::Fault`] with the first fault in workgroup order among those that occurred.
pub fn launch(
    memory: &Memory,
    launch: &Launch<'_>,
    options: &Options,
) -> Result<Counters, LaunchError> {
    let code = launch.code;
    let (kernel, start) = checked(launch).map_err(LaunchError::Invalid)?;
    let dispatch =
        Dispatch::new(memory, launch, kernel, start, options).map_err(LaunchError::Invalid)?;
    dispatch.run().map_err(|mut fault| {
        name_the_peer(memory, code.owner(), &mut fault.kind);
        LaunchError::Fault(fault)
    })
}

/// Refuses a launch that could not begin, as [`launch()`] would.
///
/// # Errors
/// The reason, with the offending value and what the kernel takes.
pub fn check(launch: &Launch<'_>) -> Result<(), String> {
    checked(launch).map(drop)
}

fn checked<'a>(launch: &Launch<'a>) -> Result<(&'a Kernel, &'a Start), String> {
    let found = launch.code.kernel(launch.kernel).zip(launch.code.start(launch.kernel));
    let (kernel, start) = found.ok_or_else(|| format!("no kernel named `{}`", launch.kernel))?;
    validate(launch, kernel, start)?;
    Ok((kernel, start))
}

/// Tells an access to another device's memory from one to no memory.
fn name_the_peer(memory: &Memory, here: Owner, kind: &mut FaultKind) {
    if let FaultKind::IllegalAddress { address, bytes, access, .. } = *kind
        && let Some(Owner::Device(peer)) = memory.find(address).map(|found| found.owner)
        && here != Owner::Device(peer)
    {
        *kind = FaultKind::NoPeerAccess { address, bytes, access, peer };
    }
}

/// Refuses what the kernel or the chip cannot take.
fn validate(launch: &Launch<'_>, kernel: &Kernel, start: &Start) -> Result<(), String> {
    let name = &kernel.name;
    if launch.grid.contains(&0) || launch.block.contains(&0) {
        return Err(format!(
            "{name}: grid {:?} or block {:?} has a zero",
            launch.grid, launch.block
        ));
    }
    let threads = launch.block.iter().map(|&n| u64::from(n)).product::<u64>();
    if threads > u64::from(kernel.max_threads) {
        let most = kernel.max_threads;
        return Err(format!("{name}: block of {threads} threads, the kernel allows {most}"));
    }
    if let Some(required) = start.metadata.reqd_workgroup_size
        && required != launch.block
    {
        return Err(format!("{name}: block {:?}, the kernel requires {required:?}", launch.block));
    }
    let lds = u64::from(kernel.lds_bytes) + u64::from(launch.dynamic_lds);
    let most = launch.code.chip().properties().lds_bytes;
    if lds > u64::from(most) {
        return Err(format!("{name}: {lds} bytes of LDS, the chip has {most}"));
    }
    let given = launch.kernarg.len();
    let needed = kernel.arguments.iter().map(|arg| arg.offset + arg.size).max().unwrap_or(0);
    if given < needed || given > kernel.kernarg_bytes.next_multiple_of(16) {
        return Err(format!("{name}: {given} bytes of arguments, the kernel takes {needed}"));
    }
    if kernel.wave_size != 32 {
        return Err(format!("{name}: wave size {}, only 32 is emulated", kernel.wave_size));
    }
    Ok(())
}
