//! Ctrl-C as a request to stop; a second one ends the program at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

/// Exit code of an interrupted program, by the shells' convention.
pub const EXIT_CODE: u8 = 130;
/// How often whoever waits for something else looks for Ctrl-C.
pub const ASK_EVERY: Duration = Duration::from_millis(50);

static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C sets a flag.
pub fn catch() -> Result<()> {
    let handler = || {
        if ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(EXIT_CODE.into());
        }
    };
    ctrlc::set_handler(handler).context("cannot catch Ctrl-C")
}

/// Whether Ctrl-C came since the last call.
pub fn asked() -> bool {
    ASKED.swap(false, Ordering::SeqCst)
}
