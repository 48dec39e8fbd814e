//! Embeds the kernels that `device-build` left in `target/kernels`, whichever they are.
//!
//! None is fine: the program then says so when a GPU is asked for. They are copied to Cargo's own
//! folder, and watched by a relative path: a checkout that was moved or copied together with its
//! `target` folder must not go on embedding what lies in the old place.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Relative to the package, as Cargo runs this script.
const KERNELS: &str = "../target/kernels";

fn main() -> io::Result<()> {
    let kernels = Path::new(KERNELS);
    let index = kernels.join("index");
    // Cargo reruns the script on every build while a watched file is missing.
    if !index.is_file() {
        fs::create_dir_all(kernels)?;
        fs::write(&index, "")?;
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={KERNELS}/index");

    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let mut source = String::from("&[\n");
    for line in fs::read_to_string(&index)?.lines() {
        let file = line.split(' ').next().unwrap_or_default();
        let path = kernels.join(file);
        let chip = Path::new(file).file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        if path.is_file() {
            fs::copy(&path, out.join(file))?;
            let bytes = format!("include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{file}\"))");
            let _ = writeln!(source, "    ({chip:?}, {bytes}),");
        }
    }
    source.push_str("]\n");
    fs::write(out.join("kernels.rs"), source)
}
