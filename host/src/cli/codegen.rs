//! `gptoss codegen`: what the compiler made of each kernel, chips side by side.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::codegen::{Launch, Options};
use anyhow::{Result, ensure};

use super::Console;

/// Where `./run.sh build --arch` puts code objects.
const BUILT: &str = "target/kernels";

/// Prints registers, memory, occupancy and instructions of every kernel, chips side by side.
///
/// How to read the tables: tools/codegen/README.md.
#[derive(clap::Args)]
pub struct Args {
    /// Code objects, clang offload bundles, PTX files, or folders of them [default: target/kernels].
    files: Vec<PathBuf>,
    /// Chips, separated by commas, in the order of the columns; or all.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "all")]
    arch: Vec<String>,
    /// Only kernels whose name contains this; also lists all loops.
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
    /// JSON.
    #[arg(long)]
    json: bool,
    /// Two folders or files: prints only what differs between them.
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with = "files")]
    compare: Vec<PathBuf>,
    /// LDS that the launch of a kernel brings, for the waves per SIMD.
    #[arg(long, value_name = "KERNEL=BYTES", value_parser = lds)]
    lds: Vec<Launch>,
}

fn lds(text: &str) -> Result<Launch, String> {
    let expected = || String::from("expected KERNEL=BYTES, as gemm=16384");
    let (kernel, bytes) = text.split_once('=').ok_or_else(expected)?;
    let dynamic_lds_bytes = bytes.parse().map_err(|_| expected())?;
    Ok(Launch { kernel: kernel.to_owned(), workgroup_size: None, dynamic_lds_bytes })
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let (inputs, compare_with) = match args.compare.as_slice() {
        [old, new] => (vec![new.clone()], vec![old.clone()]),
        _ if args.files.is_empty() => {
            ensure!(
                Path::new(BUILT).is_dir(),
                "{BUILT} is not there: ./run.sh build --arch LIST makes it; or name code objects"
            );
            (vec![PathBuf::from(BUILT)], Vec::new())
        }
        _ => (args.files.clone(), Vec::new()),
    };
    let text = ::codegen::run(&Options {
        inputs,
        compare_with,
        chips: args.arch.iter().filter(|chip| *chip != "all").cloned().collect(),
        kernels: args.kernel.clone(),
        json: args.json,
        all_loops: !args.kernel.is_empty(),
        launches: args.lds.clone(),
    })?;
    Console::stdout(None)?.write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
