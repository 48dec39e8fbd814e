//! Embeds the kernels that `device-build` left in `target/kernels`, whichever they are.
//!
//! None is fine: the program then says so when a GPU is asked for.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let kernels = root.parent().unwrap_or(&root).join("target/kernels");
    let index = kernels.join("index");
    // Cargo reruns the script on every build while a watched file is missing.
    if !index.is_file() {
        fs::create_dir_all(&kernels)?;
        fs::write(&index, "")?;
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", index.display());

    let mut source = String::from("&[\n");
    for line in fs::read_to_string(&index)?.lines() {
        let file = line.split(' ').next().unwrap_or_default();
        let path = kernels.join(file);
        let chip = Path::new(file).file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        if path.is_file() {
            let _ = writeln!(
                source,
                "    ({chip:?}, include_bytes!({:?})),",
                path.display().to_string()
            );
        }
    }
    source.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("kernels.rs");
    fs::write(out, source)
}
