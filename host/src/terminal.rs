//! Text from files, users and models, made safe to print: a terminal obeys bytes of text, and some
//! of what it obeys changes titles, clipboards, or what is already on the screen.

use std::borrow::Cow;
use std::path::Path;

/// Whether a terminal obeys `c` rather than showing it: control characters of C0 and C1 but for
/// newline and tab, DEL, and what turns the direction of the text around it.
pub fn is_obeyed(c: char) -> bool {
    let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || c.is_control() && c != '\n' && c != '\t'
}

/// `text` with every character that [`is_obeyed`] spelled out, as `\u{1b}`.
///
/// Each character stands for itself: text may be given in pieces.
pub fn printable(text: &str) -> Cow<'_, str> {
    spell(text, is_obeyed)
}

/// As [`printable`], on one line: newlines and tabs are spelled out as well.
pub fn line(text: &str) -> Cow<'_, str> {
    spell(text, |c| is_obeyed(c) || c.is_control())
}

/// A path as a message shows it.
pub fn path(path: &Path) -> String {
    line(&path.to_string_lossy()).into_owned()
}

fn spell(text: &str, wanted: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&wanted) {
        return Cow::Borrowed(text);
    }
    let mut spelled = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if wanted(c) {
            spelled.extend(c.escape_unicode());
        } else {
            spelled.push(c);
        }
    }
    Cow::Owned(spelled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sequences_that_terminals_obey_are_spelled_out() {
        for (text, expected) in [
            ("\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}"),
            ("\x1b]52;c;cm0gLXJm\x1b\\", "\\u{1b}]52;c;cm0gLXJm\\u{1b}\\"),
            ("\x1b[2J\x1b[H", "\\u{1b}[2J\\u{1b}[H"),
            ("\u{9b}31mred", "\\u{9b}31mred"),
            ("\u{9d}0;title\u{9c}", "\\u{9d}0;title\\u{9c}"),
            ("kept\rlost\x08\x7f\0", "kept\\u{d}lost\\u{8}\\u{7f}\\u{0}"),
            ("\u{202e}gnp.exe\u{2066}", "\\u{202e}gnp.exe\\u{2066}"),
        ] {
            assert_eq!(printable(text), expected);
            assert_eq!(line(text), expected);
        }
    }

    #[test]
    fn text_stays_as_it_is() {
        let text = "a\tb\nnaïve 漢字 🙂 \u{200d}\u{a0}\u{feff} \\u{1b}";
        assert!(matches!(printable(text), Cow::Borrowed(same) if same == text));
        assert_eq!(line("a\tb\nc"), "a\\u{9}b\\u{a}c");
        assert_eq!(path(Path::new("a\x1b[2J\n")), "a\\u{1b}[2J\\u{a}");
    }

    proptest! {
        #[test]
        fn pieces_are_as_safe_as_the_whole(head in any::<String>(), tail in any::<String>()) {
            let pieces = printable(&head).into_owned() + &printable(&tail);
            prop_assert!(!pieces.contains(is_obeyed));
            let whole = head + &tail;
            prop_assert_eq!(pieces, printable(&whole));
        }
    }
}
