//! What the user types: with an editor on a terminal, line by line from anything else.
//!
//! While an answer comes nobody reads. A terminal keeps what is typed ahead, and a pipe what is
//! written to it; the editor keeps what it has read beyond its line.

use std::io::{self, BufRead, IsTerminal, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};

use anyhow::Result;
use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use rustyline::error::ReadlineError;
use rustyline::{
    Cmd, ConditionalEventHandler, DefaultEditor, Event, EventContext, EventHandler, KeyEvent,
    RepeatCount,
};

use super::Console;
use crate::cli::interrupt;

const PROMPT: &str = "> ";
/// Longest line that is read, in bytes: more than any model's context of any text.
const MAX_LINE: u64 = 16 << 20;
/// Terminals without a cursor to move, which the editor does not serve.
const PLAIN_TERMINALS: [&str; 4] = ["", "dumb", "cons25", "emacs"];

/// One line, or what came instead.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    Text(String),
    /// It is no text, and why; it is gone.
    Unreadable(String),
    /// Ctrl-C, with nothing under way.
    Interrupted,
    End,
}

/// Where lines come from.
pub enum Lines {
    Terminal(Box<Terminal>),
    Plain(Receiver<Line>),
}

/// The editor on a terminal.
pub struct Terminal {
    editor: DefaultEditor,
    /// Whether Ctrl-C ended the line.
    interrupted: Arc<AtomicBool>,
    _settings: Settings,
}

impl Lines {
    /// Of standard input.
    pub fn open() -> Result<Lines> {
        let term = std::env::var("TERM").unwrap_or_default();
        if io::stdin().is_terminal() && !PLAIN_TERMINALS.contains(&term.as_str()) {
            return Ok(Lines::Terminal(Box::new(Terminal::open()?)));
        }
        // A few lines ahead: whoever writes more waits.
        let (sender, lines) = mpsc::sync_channel(4);
        std::thread::Builder::new().name("lines".to_owned()).spawn(move || {
            let mut input = io::stdin().lock();
            loop {
                let line = read_line(&mut input)
                    .unwrap_or_else(|error| Line::Unreadable(format!("cannot read: {error}")));
                let is_end = line == Line::End;
                // The conversation may be over before the input.
                if sender.send(line).is_err() || is_end {
                    break;
                }
            }
        })?;
        Ok(Lines::Plain(lines))
    }

    /// Waits for the next line.
    pub fn next(&mut self, console: &mut Console) -> Result<Line> {
        match self {
            Lines::Terminal(terminal) => terminal.next(),
            Lines::Plain(lines) => {
                if io::stdin().is_terminal() {
                    console.text(PROMPT)?;
                }
                // One that was not heard in time was for the answer before.
                interrupt::asked();
                loop {
                    match lines.recv_timeout(interrupt::ASK_EVERY) {
                        Ok(line) => return Ok(line),
                        Err(RecvTimeoutError::Disconnected) => return Ok(Line::End),
                        Err(RecvTimeoutError::Timeout) if interrupt::asked() => {
                            return Ok(Line::Interrupted);
                        }
                        Err(RecvTimeoutError::Timeout) => {}
                    }
                }
            }
        }
    }
}

impl Terminal {
    fn open() -> Result<Terminal> {
        let settings = Settings::keep_typed_ahead()?;
        let interrupted = Arc::new(AtomicBool::new(false));
        let mut editor = DefaultEditor::new()?;
        let handler = EndLine(Arc::clone(&interrupted));
        editor.bind_sequence(KeyEvent::ctrl('C'), EventHandler::Conditional(Box::new(handler)));
        Ok(Terminal { editor, interrupted, _settings: settings })
    }

    fn next(&mut self) -> Result<Line> {
        let read = self.editor.readline(PROMPT);
        // The key is the editor's here; a signal came from elsewhere, or before.
        interrupt::asked();
        if self.interrupted.swap(false, Ordering::SeqCst) {
            return Ok(Line::Interrupted);
        }
        match read {
            Ok(line) => {
                // The history is a convenience: a line it does not take is still said.
                let _ = self.editor.add_history_entry(line.as_str());
                Ok(Line::Text(line))
            }
            Err(ReadlineError::Eof) => Ok(Line::End),
            Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
            Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Ok(Line::Unreadable("what was typed is not UTF-8".to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Ctrl-C ends the line as Enter does: as an error it would take what was typed behind it along.
struct EndLine(Arc<AtomicBool>);

impl ConditionalEventHandler for EndLine {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, _: &EventContext) -> Option<Cmd> {
        self.0.store(true, Ordering::SeqCst);
        Some(Cmd::AcceptLine)
    }
}

/// The terminal's settings, given back at the end.
struct Settings(Termios);

impl Settings {
    /// Has the terminal keep, at Ctrl-C, the lines that were typed before it.
    fn keep_typed_ahead() -> Result<Settings> {
        let before = termios::tcgetattr(io::stdin().as_fd())?;
        let mut settings = before.clone();
        settings.local_flags.insert(LocalFlags::NOFLSH);
        termios::tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &settings)?;
        Ok(Settings(before))
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        // A terminal that is gone needs no settings.
        let _ = termios::tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &self.0);
    }
}

/// The next line, without its end.
fn read_line(input: &mut impl BufRead) -> io::Result<Line> {
    let mut bytes = Vec::new();
    if input.take(MAX_LINE).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(Line::End);
    }
    if bytes.len() as u64 == MAX_LINE && !bytes.ends_with(b"\n") {
        input.skip_until(b'\n')?;
        let why = format!("a line of more than {MAX_LINE} bytes, expected at most so many");
        return Ok(Line::Unreadable(why));
    }
    let end = bytes.strip_suffix(b"\n").map_or(bytes.len(), <[u8]>::len);
    bytes.truncate(end);
    if bytes.ends_with(b"\r") {
        bytes.pop();
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => Line::Text(text),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let byte = error.as_bytes()[at];
            Line::Unreadable(format!("the line is not UTF-8: byte {byte:#04x} at {at}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<Line> {
        let mut input = bytes;
        let next = || Some(read_line(&mut input).unwrap()).filter(|line| *line != Line::End);
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_line_that_is_no_text_does_not_end_the_others() {
        let text = |text: &str| Line::Text(text.to_owned());
        let found = lines(b"one\r\n\nna\xefve\ntwo");
        let bad = Line::Unreadable("the line is not UTF-8: byte 0xef at 2".to_owned());
        assert_eq!(found, [text("one"), text(""), bad, text("two")]);
        assert_eq!(lines(b""), []);
    }

    #[test]
    fn an_endless_line_is_not_kept() {
        let mut bytes = vec![b'a'; MAX_LINE as usize + 5];
        bytes.extend(b"\nnext\n");
        let found = lines(&bytes);
        assert!(matches!(&found[0], Line::Unreadable(why) if why.contains("16777216 bytes")));
        assert_eq!(found[1..], [Line::Text("next".to_owned())]);
    }
}
