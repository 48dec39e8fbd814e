//! Tables of what the compiler made of each kernel, chip beside chip.

pub mod disasm;
