//! Tables of what the compiler made of each kernel, chip beside chip.
//!
//! [`run`] reads code objects of any origin (ours, hipcc's, bundles of several chips) and PTX, and
//! says per kernel which registers, LDS and scratch it takes, how many waves fit, and what its
//! instructions and its main loop consist of. How to read the figures is in this crate's README.
//! [`disasm`] is the disassembler by itself.

mod amdgpu;
pub mod classify;
pub mod compare;
pub mod disasm;
mod error;
pub mod flow;
mod input;
pub mod mix;
pub mod occupancy;
pub mod ptx;
pub mod report;
pub mod table;

use std::path::PathBuf;

pub use error::CodegenError;
pub use report::{KernelReport, Report};

/// What to report.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Code objects, bundles, PTX files and directories of them.
    pub inputs: Vec<PathBuf>,
    /// Compare with these instead of listing; they are the older side.
    pub compare_with: Vec<PathBuf>,
    /// Chips, in the order of the columns; empty for all there are.
    pub chips: Vec<String>,
    /// Kernels whose name contains one of these; empty for all there are.
    pub kernels: Vec<String>,
    /// JSON, not text.
    pub json: bool,
    /// A line for every loop, not only the main one's rows. JSON always has all.
    pub all_loops: bool,
    /// How kernels are launched, where it is known.
    pub launches: Vec<Launch>,
}

/// How a kernel is launched: what a code object does not say and occupancy depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The kernel's name.
    pub kernel: String,
    /// Work-items of a workgroup; `None` for the size it was compiled for.
    pub workgroup_size: Option<u32>,
    /// LDS of a workgroup in bytes, beyond what the code object declares.
    pub dynamic_lds_bytes: u32,
}

/// Makes the report, or with [`Options::compare_with`] the comparison, as text or JSON that ends in
/// a newline.
///
/// # Errors
///
/// [`CodegenError`]: an unreadable or foreign file, no disassembler, a chip or kernel that is not
/// there.
pub fn run(options: &Options) -> Result<String, CodegenError> {
    let new = report(&options.inputs, options)?;
    if options.compare_with.is_empty() {
        return if options.json { json(&new) } else { Ok(table::render(&new, options.all_loops)) };
    }
    let old = report(&options.compare_with, options)?;
    let comparison = compare::compare(&old, &new);
    if options.json { json(&comparison) } else { Ok(compare::render(&comparison)) }
}

/// Reads `inputs` and reports the chips and kernels that `options` names.
///
/// # Errors
///
/// As [`run`].
pub fn report(inputs: &[PathBuf], options: &Options) -> Result<Report, CodegenError> {
    let mut kernels = input::read(inputs, &options.launches)?;
    if kernels.is_empty() {
        let inputs: Vec<_> = inputs.iter().map(|input| input.display().to_string()).collect();
        return Err(CodegenError::Nothing { inputs: inputs.join(", ") });
    }
    select(&mut kernels, options)?;
    sort(&mut kernels, &options.chips);
    Ok(Report { schema: report::SCHEMA, kernels })
}

/// Keeps the chips and kernels asked for, each of which has to be there.
fn select(kernels: &mut Vec<KernelReport>, options: &Options) -> Result<(), CodegenError> {
    for chip in &options.chips {
        if !kernels.iter().any(|kernel| kernel.chip == *chip) {
            let found = distinct(kernels.iter().map(|kernel| &kernel.chip));
            return Err(CodegenError::NoChip { chip: chip.clone(), found });
        }
    }
    for name in &options.kernels {
        if !kernels.iter().any(|kernel| kernel.name.contains(name.as_str())) {
            let found = distinct(kernels.iter().map(|kernel| &kernel.name));
            return Err(CodegenError::NoKernel { name: name.clone(), found });
        }
    }
    kernels.retain(|kernel| {
        let chip = options.chips.is_empty() || options.chips.contains(&kernel.chip);
        let named = options.kernels.iter().any(|name| kernel.name.contains(name.as_str()));
        chip && (options.kernels.is_empty() || named)
    });
    Ok(())
}

/// Brings the chips of a kernel together, kernels in the order in which they first appear.
fn sort(kernels: &mut [KernelReport], chips: &[String]) {
    let mut names: Vec<String> = Vec::new();
    for kernel in kernels.iter() {
        if !names.contains(&kernel.name) {
            names.push(kernel.name.clone());
        }
    }
    let place = |list: &[String], item: &String| list.iter().position(|other| other == item);
    kernels.sort_by_key(|kernel| {
        // gfx942 before gfx1100: shorter names are older chips. NVIDIA's come last.
        let age = (!kernel.chip.starts_with("gfx"), kernel.chip.len(), kernel.chip.clone());
        (place(&names, &kernel.name), place(chips, &kernel.chip), age)
    });
}

/// The distinct items in order, comma-separated.
fn distinct<'a>(items: impl Iterator<Item = &'a String>) -> String {
    let mut seen: Vec<&str> = Vec::new();
    for item in items {
        if !seen.contains(&item.as_str()) {
            seen.push(item);
        }
    }
    seen.join(", ")
}

fn json(value: &impl serde::Serialize) -> Result<String, CodegenError> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(text)
}
