//! What the user reads, copied to a log file on request.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::path::Path;

use anyhow::{Context, Result};
use gptoss::files::{self, Target};
use gptoss::terminal;

/// Where `run -l` writes, unless a link there leads elsewhere: that is refused.
pub const LOG_FILE: &str = "log.txt";

/// Which stream a console writes to.
#[derive(Clone, Copy)]
enum Stream {
    Out,
    Err,
}

/// A stream to the user. Every write is checked, so that a closed pipe ends the program and not a
/// thread.
pub struct Console {
    stream: Stream,
    log: Option<File>,
}

impl Console {
    /// Standard output, and `log` when given.
    pub fn stdout(log: Option<&Path>) -> Result<Console> {
        Console::new(Stream::Out, log)
    }

    /// Standard error, for what is said beside the output proper.
    pub fn stderr(log: Option<&Path>) -> Result<Console> {
        Console::new(Stream::Err, log)
    }

    fn new(stream: Stream, log: Option<&Path>) -> Result<Console> {
        let create = |path: &Path| {
            let file = match files::target(path)? {
                Target::Stream => files::open_stream(path)?,
                Target::New | Target::Regular => File::create(path)
                    .with_context(|| format!("cannot write {}", path.display()))?,
            };
            anyhow::Ok(file)
        };
        Ok(Console { stream, log: log.map(create).transpose()? })
    }

    /// Writes one line.
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<()> {
        writeln!(self, "{}", text.as_ref())?;
        Ok(())
    }

    /// Writes text of a model or a file, to be seen at once: a terminal shows what it would
    /// otherwise obey. Files and pipes get the text itself.
    pub fn untrusted(&mut self, text: &str) -> Result<()> {
        let is_terminal = match self.stream {
            Stream::Out => io::stdout().is_terminal(),
            Stream::Err => io::stderr().is_terminal(),
        };
        if is_terminal {
            self.show(terminal::printable(text).as_bytes())?;
        } else {
            self.show(text.as_bytes())?;
        }
        if let Some(log) = &mut self.log {
            log.write_all(text.as_bytes())?;
        }
        self.flush()?;
        Ok(())
    }

    fn show(&self, bytes: &[u8]) -> io::Result<()> {
        match self.stream {
            Stream::Out => io::stdout().write_all(bytes),
            Stream::Err => io::stderr().write_all(bytes),
        }
    }

    /// Writes text as it stands, to be seen at once.
    pub fn text(&mut self, text: &str) -> Result<()> {
        self.write_all(text.as_bytes())?;
        self.flush()?;
        Ok(())
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.show(bytes)?;
        if let Some(log) = &mut self.log {
            log.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.stream {
            Stream::Out => io::stdout().flush(),
            Stream::Err => io::stderr().flush(),
        }
    }
}
