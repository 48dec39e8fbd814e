//! The `gptoss` command.

fn main() {}
