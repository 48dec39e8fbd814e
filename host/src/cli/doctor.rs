//! `gptoss doctor`: what this machine has, and what each missing thing would enable.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Result;
use gptoss::gpu::{self, DriverReport};
use gptoss::kernels;

use super::Console;

/// Says what is here: toolchain, CPU, memory, GPU drivers.
#[derive(clap::Args)]
pub struct Args {}

/// One line of the report.
struct Finding {
    what: &'static str,
    /// What was found.
    found: Result<String, String>,
    /// What it is for; printed when it is missing.
    enables: &'static str,
}

pub fn run(_: &Args) -> Result<ExitCode> {
    let mut console = Console::stdout(None)?;
    for finding in [toolchain(), rust_src(), disassembler(), cpu(), memory(), embedded()] {
        report(&mut console, &finding)?;
    }
    for driver in gpu::report() {
        report(&mut console, &gpu_finding(&driver))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn report(console: &mut Console, finding: &Finding) -> Result<()> {
    let Finding { what, found, enables } = finding;
    match found {
        Ok(found) => console.line(format!("ok       {what:<14} {found}")),
        Err(missing) => {
            console.line(format!("missing  {what:<14} {missing}; it would enable {enables}"))
        }
    }
}

fn embedded() -> Finding {
    let state = |chip: &str| match kernels::code_object(chip, None) {
        Ok(_) => chip.to_owned(),
        Err(_) => format!("{chip} (of other sources, refused)"),
    };
    let chips: Vec<String> = kernels::embedded_chips().map(state).collect();
    let found = match chips.as_slice() {
        [] => Err(String::from("none in this program")),
        chips => Ok(chips.join(" ")),
    };
    let enables = "running on GPUs and on the emulator: ./run.sh build --arch LIST";
    Finding { what: "kernels", found, enables }
}

fn gpu_finding(driver: &DriverReport) -> Finding {
    let (what, enables) = if driver.api == "HIP" {
        ("HIP", "running on AMD GPUs: install ROCm, or name its library in GPTOSS_HIP_LIB")
    } else {
        ("CUDA", "running on NVIDIA GPUs: install their driver")
    };
    let text = driver.to_string();
    let found = match driver.devices {
        Some(Ok(_)) => Ok(text),
        _ => Err(text.split_whitespace().collect::<Vec<_>>().join(" ")),
    };
    Finding { what, found, enables }
}

fn toolchain() -> Finding {
    let found = output("rustc", &["--version"]).and_then(|version| {
        if version.contains("nightly") {
            Ok(version)
        } else {
            Err(format!("{version} is no nightly"))
        }
    });
    let enables = "building the program and its kernels: install rustup's nightly";
    Finding { what: "rustc", found, enables }
}

fn rust_src() -> Finding {
    let found = output("rustc", &["--print", "sysroot"]).and_then(|sysroot| {
        let core = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/src/lib.rs");
        if core.is_file() {
            Ok(String::from("present"))
        } else {
            Err(String::from("not in the toolchain"))
        }
    });
    let enables =
        "kernels built from core's own sources (without it the toolchain's documentation serves)";
    Finding { what: "rust-src", found, enables }
}

fn cpu() -> Finding {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Finding {
        what: "CPU",
        found: match instruction_sets().as_slice() {
            [] => Err(format!("{threads} threads, portable code only")),
            sets => Ok(format!("{threads} threads, {}", sets.join(" "))),
        },
        enables: "the faster paths of the CPU engine (AVX2 with FMA, or AVX-512)",
    }
}

#[cfg(target_arch = "x86_64")]
fn instruction_sets() -> Vec<&'static str> {
    let sets = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    sets.into_iter().filter(|(_, present)| *present).map(|(name, _)| name).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn instruction_sets() -> Vec<&'static str> {
    Vec::new()
}

fn memory() -> Finding {
    let found = std::fs::read_to_string("/proc/meminfo")
        .map_err(|error| format!("/proc/meminfo: {error}"))
        .map(|text| {
            let gib = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
                kib.map_or(String::from("?"), |kib| format!("{:.1} GiB", kib / 1024.0 / 1024.0))
            };
            format!("{} of {} available", gib("MemAvailable:"), gib("MemTotal:"))
        });
    Finding { what: "memory", found, enables: "judging which model fits" }
}

fn disassembler() -> Finding {
    let found = output("rustc", &["--print", "sysroot"]).and_then(|sysroot| {
        llvm_library(&Path::new(&sysroot).join("lib"))
            .map(|path| path.display().to_string())
            .ok_or_else(|| format!("no libLLVM in {sysroot}/lib"))
    });
    Finding { what: "disassembler", found, enables: "instruction listings in gptoss codegen" }
}

fn llvm_library(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    entries.flatten().map(|entry| entry.path()).find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libLLVM.so."))
    })
}

/// First line a program prints.
fn output(program: &str, args: &[&str]) -> Result<String, String> {
    let output =
        Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().next() {
        Some(line) if output.status.success() => Ok(line.to_owned()),
        _ => Err(format!("{program} failed with {}", output.status)),
    }
}
