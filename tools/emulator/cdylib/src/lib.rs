//! `libamdhip64.so`: the functions of [`emulator::hip`] under their C names.
//!
//! Chip, number of devices and checks come from the environment, for example
//! `GPTOSS_EMU=gfx1151x4`.

pub use emulator::hip;
