//! How far something is that takes a while, always in the same words: what is done, how far it is,
//! how fast, how much time is left. A bar on a terminal; elsewhere a line every few seconds.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::ops::Deref;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

/// Nothing is said of what is over sooner.
const FIRST_LINE: Duration = Duration::from_secs(2);
/// Time between two lines where there is no terminal.
const NEXT_LINE: Duration = Duration::from_secs(4);
/// Time between two changes on a terminal.
const TICK: Duration = Duration::from_millis(200);

/// What is counted.
#[derive(Clone, Copy)]
enum Unit {
    Bytes,
    Tokens,
}

/// The bar, which whoever works moves; dropped, it leaves the terminal as it was.
pub struct Progress {
    bar: ProgressBar,
    /// Dropped to end the thread that writes lines.
    end: Option<Sender<()>>,
    lines: Option<JoinHandle<()>>,
}

/// Counts bytes; whoever works sets how many there are. Until then only the time is told.
pub fn bytes(what: &'static str) -> Progress {
    Progress::new(what, Unit::Bytes, 0)
}

/// Counts tokens.
pub fn tokens(what: &'static str, total: u64) -> Progress {
    Progress::new(what, Unit::Tokens, total)
}

/// Tells the time of something whose end is not known.
pub fn waiting(what: &'static str) -> Progress {
    Progress::new(what, Unit::Tokens, 0)
}

impl Progress {
    fn new(what: &'static str, unit: Unit, total: u64) -> Progress {
        let bar = ProgressBar::new(total);
        if !bar.is_hidden() {
            let text = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let (done, total) = (state.pos(), state.len().unwrap_or(0));
                // A terminal that takes no more text has no use for an error either.
                let _ = out.write_str(&line(what, unit, done, total, state.elapsed()));
            };
            let style = ProgressStyle::with_template("{line} {msg} {wide_bar}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.with_key("line", text));
            bar.enable_steady_tick(TICK);
            return Progress { bar, end: None, lines: None };
        }
        let (end, ended) = mpsc::channel::<()>();
        let seen = bar.clone();
        let lines = std::thread::spawn(move || {
            let mut pause = FIRST_LINE;
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let total = seen.length().unwrap_or(0);
                let mut text = line(what, unit, seen.position(), total, seen.elapsed());
                if !seen.message().is_empty() {
                    let _ = write!(text, ", {}", seen.message());
                }
                // Nobody reads it: the work goes on.
                let _ = writeln!(io::stderr(), "{text}");
                pause = NEXT_LINE;
            }
        });
        Progress { bar, end: Some(end), lines: Some(lines) }
    }
}

impl Deref for Progress {
    type Target = ProgressBar;

    fn deref(&self) -> &ProgressBar {
        &self.bar
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.end.take());
        // Its only panic would be one of this module, and was reported.
        let _ = self.lines.take().map(JoinHandle::join);
        self.bar.finish_and_clear();
    }
}

/// `export: 3.2 of 83.7 GB, 0.41 GB/s, 3 min 16 s left`.
fn line(what: &str, unit: Unit, done: u64, total: u64, elapsed: Duration) -> String {
    if total == 0 {
        return format!("{what}: {}", time(elapsed));
    }
    let rate = done as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    let left = match done {
        0 => String::new(),
        _ => {
            let seconds = total.saturating_sub(done) as f64 / rate;
            format!(", {} left", time(Duration::from_secs_f64(seconds.min(1e9))))
        }
    };
    match unit {
        Unit::Bytes => {
            let gigabytes = |bytes: f64| bytes / 1e9;
            let (done, total) = (gigabytes(done as f64), gigabytes(total as f64));
            format!("{what}: {done:.1} of {total:.1} GB, {:.2} GB/s{left}", gigabytes(rate))
        }
        Unit::Tokens => format!("{what}: {done} of {total} tokens, {rate:.1} tok/s{left}"),
    }
}

/// `2 h 5 min`, `1 min 20 s`, `7 s`.
fn time(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_how_far_and_how_long() {
        let seconds = Duration::from_secs;
        for (text, unit, done, total, elapsed) in [
            ("w: 3 s", Unit::Bytes, 0, 0, seconds(3)),
            ("w: 0.0 of 8.0 GB, 0.00 GB/s", Unit::Bytes, 0, 8_000_000_000, seconds(2)),
            (
                "w: 2.0 of 8.0 GB, 0.10 GB/s, 1 min 0 s left",
                Unit::Bytes,
                2_000_000_000,
                8_000_000_000,
                seconds(20),
            ),
            ("w: 30 of 40 tokens, 15.0 tok/s, 0 s left", Unit::Tokens, 30, 40, seconds(2)),
            ("w: 1 of 7201 tokens, 1.0 tok/s, 2 h 0 min left", Unit::Tokens, 1, 7201, seconds(1)),
            // A request may end before its limit, or after a total that was too small.
            ("w: 5 of 4 tokens, 5.0 tok/s, 0 s left", Unit::Tokens, 5, 4, seconds(1)),
        ] {
            assert_eq!(line("w", unit, done, total, elapsed), text);
        }
        assert!(line("w", Unit::Tokens, 1, u64::MAX, Duration::MAX).contains("left"));
    }
}
