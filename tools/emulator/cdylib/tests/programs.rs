//! C++ programs compiled by Debian's clang against libamdhip64-dev's headers,
//! linked to our library, running code that clang made for gfx1100.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const HEADER: &str = "/usr/include/hip/hip_runtime_api.h";

/// What the programs need and this machine lacks.
fn missing() -> Option<String> {
    let runs = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
    let tool = ["clang-22", "clang++-22", "ld.lld-22"].into_iter().find(|tool| !runs(tool));
    let header = (!Path::new(HEADER).exists()).then_some(HEADER);
    tool.or(header).map(str::to_owned)
}

/// Says why a test does nothing here.
fn skipped() -> bool {
    let missing = missing();
    if let Some(missing) = &missing {
        eprintln!(
            "skipped: {missing} is missing; install Debian's clang-22, lld-22 and libamdhip64-dev"
        );
    }
    missing.is_some()
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name)
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    output
}

/// Compiles a host program against the header and our library.
fn compile(flags: &[&str], from: &str, to: &Path) {
    let library = common::library_path();
    let folder = library.parent().unwrap();
    let mut link = std::ffi::OsString::from("-Wl,-rpath,");
    link.push(folder);
    let mut clang = Command::new("clang++-22");
    clang.args(["-std=c++17", "-O1", "-D__HIP_PLATFORM_AMD__", "-I/usr/include"]).args(flags);
    clang.arg(source(from)).arg("-o").arg(to).arg("-L").arg(folder).arg("-lamdhip64").arg(link);
    succeed(&mut clang);
}

fn run(program: &Path, arguments: &[&Path], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).env("GPTOSS_EMU", "gfx1100x2").envs(environment.iter().copied());
    // Cargo's own value may lead to a library of an earlier build.
    command.env_remove("LD_LIBRARY_PATH");
    let output = succeed(&mut command);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "passed\n");
    output
}

#[test]
fn a_program_gets_right_results_through_the_module_api() {
    if skipped() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (code, program) = (folder.path().join("kernels.co"), folder.path().join("module_api"));
    let mut clang = Command::new("clang-22");
    clang.args(["-target", "amdgcn-amd-amdhsa", "-mcpu=gfx1100", "-nogpulib", "-O2"]);
    succeed(clang.arg(source("kernels.c")).arg("-o").arg(&code));
    compile(&[], "module_api.cpp", &program);
    for threads in ["1", "3"] {
        let output = run(&program, &[&code], &[("GPTOSS_EMU_THREADS", threads)]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(errors.matches("illegal address").count(), 2, "{errors}");
        assert!(errors.contains("kernel stray"), "{errors}");
        assert!(errors.contains("peer access is not enabled: kernel histogram"), "{errors}");
    }
}

#[test]
fn a_program_with_its_kernels_inside_gets_right_results() {
    if skipped() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("chevrons");
    let flags = ["-x", "hip", "--offload-arch=gfx1100", "-nogpulib", "-nogpuinc"];
    compile(&[&flags[..], &["--no-offload-compress"]].concat(), "chevrons.hip", &program);
    run(&program, &[], &[]);
}
