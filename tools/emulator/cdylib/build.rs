//! Makes this build of the emulator the one whose functions have their C names.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cfg=hip_symbols");
}
