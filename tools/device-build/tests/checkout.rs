//! Which checkout the program builds, with a compiler that only writes down how it is called.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A copy of what the program reads of a checkout, and a compiler beside it.
struct Copy {
    dir: tempfile::TempDir,
}

impl Copy {
    fn new() -> Copy {
        let dir = tempfile::tempdir().expect("a folder");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for part in ["device", "shared", "tools/device-build"] {
            copy(&root.join(part).join("src"), &dir.path().join("moved").join(part).join("src"));
            let manifest = Path::new(part).join("Cargo.toml");
            let to = dir.path().join("moved").join(&manifest);
            fs::copy(root.join(&manifest), to).expect("a manifest");
        }
        let core = dir.path().join("sysroot/lib/rustlib/src/rust/library/core/src");
        fs::create_dir_all(&core).expect("a folder");
        fs::write(core.join("lib.rs"), "").expect("core");
        let script = format!(
            "#!/bin/sh\ncase $1 in\n\
             -vV) echo 'rustc 1.97.0-nightly (0 2026-01-01)'; echo 'release: 1.97.0-nightly' ;;\n\
             --print) echo '{0}/sysroot' ;;\n\
             *) echo \"$PWD $*\" >> '{0}/calls'; exit 1 ;;\nesac\n",
            dir.path().display()
        );
        let rustc = dir.path().join("rustc");
        fs::write(&rustc, script).expect("a script");
        fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755)).expect("a program");
        Copy { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("moved").canonicalize().expect("the copy")
    }

    fn build(&self, folder: &Path, root: Option<&Path>) -> Output {
        let mut program = Command::new(env!("CARGO_BIN_EXE_device-build"));
        program.args(["--arch", "gfx1151"]).current_dir(folder);
        program.env("RUSTC", self.dir.path().join("rustc")).env_remove("GPTOSS_ROOT");
        program.envs(root.map(|root| ("GPTOSS_ROOT", root)));
        program.output().expect("device-build")
    }

    /// The calls of the compiler so far, each with its folder.
    fn calls(&self) -> String {
        fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry").path();
        let to = to.join(entry.file_name().expect("a name"));
        if entry.is_dir() {
            copy(&entry, &to);
        } else {
            fs::copy(&entry, &to).expect("a file");
        }
    }
}

#[test]
fn a_copied_checkout_builds_its_own_kernels_in_its_own_folder() {
    for (inside, named) in [(true, false), (false, true)] {
        let checkout = Copy::new();
        let root = checkout.root();
        let folder = if inside { root.join("device/src") } else { checkout.dir.path().to_owned() };
        let out = checkout.build(&folder, named.then_some(root.as_path()));
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        // The compiler fails, but not before it was called for the copy.
        assert!(!out.status.success());
        assert!(said.contains("compiling the kernels of gfx1151 (not built yet)"), "{said}");
        let calls = checkout.calls();
        let kernels = root.join("target/kernels");
        assert!(!calls.is_empty(), "{said}");
        for call in calls.lines() {
            assert!(call.starts_with(&kernels.display().to_string()), "{call}");
            assert!(!call.contains(env!("CARGO_MANIFEST_DIR")), "{call}");
        }
    }
}

#[test]
fn a_folder_without_sources_is_named() {
    let checkout = Copy::new();
    let empty = checkout.dir.path().join("sysroot");
    let out = checkout.build(&empty, Some(&empty));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let expected = format!("device-build: {}: no checkout of gptoss", empty.display());
    assert!(said.starts_with(&expected), "{said}");
    assert_eq!((out.status.success(), checkout.calls().as_str()), (false, ""));
}
