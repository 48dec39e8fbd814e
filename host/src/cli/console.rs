//! Standard output, copied to a log file on request.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// Where `-l` writes.
pub const LOG_FILE: &str = "log.txt";

/// What the user sees on standard output. Every write is checked, so that a closed pipe ends the
/// program and not a thread.
pub struct Console {
    log: Option<File>,
}

impl Console {
    /// Standard output, and `log` when given.
    pub fn new(log: Option<&Path>) -> Result<Console> {
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("cannot write {}", path.display()))
        };
        Ok(Console { log: log.map(create).transpose()? })
    }

    /// Writes one line.
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<()> {
        writeln!(self, "{}", text.as_ref())?;
        Ok(())
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().write_all(bytes)?;
        if let Some(log) = &mut self.log {
            log.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}
