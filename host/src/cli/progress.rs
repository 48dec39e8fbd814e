//! Progress bars on a terminal; nothing elsewhere.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that counts bytes; whoever works sets its length.
pub fn bytes(what: &'static str) -> ProgressBar {
    let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
    ProgressBar::new(0).with_message(what).with_style(style(template))
}

/// A bar that counts tokens.
pub fn tokens(total: u64) -> ProgressBar {
    let template = "{wide_bar} {pos}/{len} tokens {per_sec:.1} ETA {eta} {msg}";
    ProgressBar::new(total).with_style(style(template))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
