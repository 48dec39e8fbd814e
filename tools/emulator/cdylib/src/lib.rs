//! `libamdhip64.so`: the functions of [`emulator::hip`] under their C names.
//!
//! Chip, number of devices and checks come from the environment, for example
//! `GPTOSS_EMU=gfx1151x4`. A program that was linked to a real runtime looks for
//! its versioned name: link `libamdhip64.so.6`, or whichever it wants, to this
//! file in a folder of `LD_LIBRARY_PATH`.

pub use emulator::hip;
