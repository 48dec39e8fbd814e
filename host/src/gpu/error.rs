//! What can go wrong between this program and a GPU.

/// A failure of the driver, or of a request that was refused before the driver saw it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GpuError {
    /// A driver call failed.
    #[error("{call} failed with {code} {name}{}: {asked}{}",
        meaning_of(.name, .meaning), fault_line(.fault))]
    Call {
        /// The function.
        call: &'static str,
        /// What it returned.
        code: i32,
        /// The code's name.
        name: String,
        /// The driver's explanation.
        meaning: String,
        /// What was asked of it.
        asked: String,
        /// The emulator's finding: kernel, wave, instruction, address.
        fault: Option<String>,
    },
    /// The library is too old for a call.
    #[error("{library} has no {call}")]
    NoSuchCall {
        /// The function.
        call: &'static str,
        /// Library and version.
        library: String,
    },
    /// No library of this API could be loaded.
    #[error("{api} is not installed: none of {tried} loads{}", broken_line(.broken))]
    NoLibrary {
        /// `HIP` or `CUDA`.
        api: &'static str,
        /// Every file tried, in order.
        tried: String,
        /// Files that exist and do not load, with the loader's reasons.
        broken: String,
    },
    /// The driver is installed and sees no device.
    #[error("{driver} is installed, but has no device ({reason})")]
    NoDevice {
        /// API, version and file.
        driver: String,
        /// What the driver said.
        reason: &'static str,
    },
    /// A device index past the last one.
    #[error("device {index} does not exist: {driver} has {count} (0 to {})", .count - 1)]
    NoSuchDevice {
        /// API, version and file.
        driver: String,
        /// The index asked for.
        index: usize,
        /// Devices there are.
        count: usize,
    },
    /// The emulator refused a chip or a count.
    #[error("the emulator refused: {reason}")]
    Emulator {
        /// Its words.
        reason: String,
    },
    /// A second, different emulated node in one process.
    #[error("this process already emulates {existing}; it cannot also emulate {asked}")]
    EmulatorTaken {
        /// The new request.
        asked: String,
        /// What runs.
        existing: String,
    },
    /// Not enough device memory.
    #[error(
        "{device} is out of memory: asked for {asked} bytes ({:.2} GiB), \
         {free} of {total} are free ({:.2} of {:.2} GiB)",
        gib(*.asked), gib(*.free), gib(*.total)
    )]
    OutOfMemory {
        /// The device.
        device: String,
        /// Bytes asked for.
        asked: u64,
        /// Bytes free at that moment.
        free: u64,
        /// Bytes the device has.
        total: u64,
    },
    /// The driver refused a module.
    #[error("{device} does not load {module}: {cause}{}", log_line(.log))]
    Module {
        /// The device.
        device: String,
        /// What was loaded: file or name.
        module: String,
        /// The driver's error.
        cause: String,
        /// The JIT compiler's log.
        log: String,
    },
    /// A module lacks a kernel.
    #[error("{module} has no kernel {kernel}")]
    NoKernel {
        /// File or name of the module.
        module: String,
        /// The kernel asked for.
        kernel: String,
    },
    /// A launch, copy or view was refused before the driver saw it; starts with its name.
    #[error("{0}")]
    Refused(String),
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// HIP before 6 explains a code by its name.
fn meaning_of(name: &str, meaning: &str) -> String {
    if name == meaning { String::new() } else { format!(" ({meaning})") }
}

fn fault_line(fault: &Option<String>) -> String {
    fault.as_ref().map(|text| format!("; emulator: {text}")).unwrap_or_default()
}

fn broken_line(broken: &str) -> String {
    if broken.is_empty() { String::new() } else { format!(" (there, but does not load: {broken})") }
}

fn log_line(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("; compiler log: {log}") }
}
