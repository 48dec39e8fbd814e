//! The getp input file: a count, then that many lines, one prompt each.
//!
//! A prompt is its line as it stands. Lines end with `\n`, or with `\r\n` when the count line does;
//! a `\r` elsewhere belongs to its prompt.

use shared::hash;

/// What is wrong with an input file; lines count from 1, prompts from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromptsError {
    /// The first line is no count.
    #[error("line 1: count is {found:?}, expected a whole number, 1 or more")]
    Count {
        /// The start of the line.
        found: String,
    },
    /// The count line promises another number of prompts.
    #[error("line 1: count is {count}, but {lines} prompts follow")]
    Lies {
        /// The promise.
        count: usize,
        /// The lines that follow.
        lines: usize,
    },
    /// Bytes that are no text.
    #[error("line {line}: byte {byte} is not UTF-8")]
    NotUtf8 {
        /// The line.
        line: usize,
        /// The first bad byte in it, counted from 0.
        byte: usize,
    },
    /// A line with nothing in it.
    #[error("line {line}: prompt {prompt} is empty, expected at least one token")]
    Empty {
        /// The line.
        line: usize,
        /// The prompt.
        prompt: usize,
    },
}

/// Characters of a wrong count line that an error repeats.
const SHOWN: usize = 40;

/// The prompts of an input file, the first `limit` of them when given.
pub fn parse(bytes: &[u8], limit: Option<usize>) -> Result<Vec<&str>, PromptsError> {
    let mut lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    // A file ends with a line end; blank lines after it hold no prompt.
    while lines.len() > 1 && lines.last().is_some_and(|line| matches!(*line, [] | [b'\r'])) {
        lines.pop();
    }
    let (count_line, prompts) = match lines.split_first() {
        Some((first, prompts)) => (*first, prompts),
        None => (bytes, &[][..]),
    };
    let crlf = count_line.ends_with(b"\r");
    let count = parse_count(text_of(count_line, crlf))?;
    // A blank last prompt looks like the end of the file.
    if count > prompts.len() && ends_with_blank_lines(bytes, count.saturating_add(1)) {
        return Err(PromptsError::Empty { line: prompts.len() + 2, prompt: prompts.len() });
    }
    if count != prompts.len() {
        return Err(PromptsError::Lies { count, lines: prompts.len() });
    }
    let wanted = limit.map_or(count, |limit| limit.min(count));
    let lines = prompts[..wanted].iter().enumerate();
    lines.map(|(prompt, line)| parse_prompt(prompt, text_of(line, crlf))).collect()
}

/// A line without the `\r` that belongs to its end.
fn text_of(line: &[u8], crlf: bool) -> &[u8] {
    if crlf { line.strip_suffix(b"\r").unwrap_or(line) } else { line }
}

fn parse_prompt(prompt: usize, text: &[u8]) -> Result<&str, PromptsError> {
    let line = prompt + 2;
    if text.is_empty() {
        return Err(PromptsError::Empty { line, prompt });
    }
    std::str::from_utf8(text)
        .map_err(|error| PromptsError::NotUtf8 { line, byte: error.valid_up_to() })
}

/// A number that tells sets of prompts apart.
pub fn fingerprint(prompts: &[&str]) -> u64 {
    prompts.iter().fold(hash::START, |hash, prompt| hash::add(hash, prompt.as_bytes()))
}

fn parse_count(line: &[u8]) -> Result<usize, PromptsError> {
    let text = String::from_utf8_lossy(line);
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(count) if count > 0 && digits => Ok(count),
        _ => Err(PromptsError::Count { found: text.chars().take(SHOWN).collect() }),
    }
}

/// Whether the file has at least `lines` terminated lines, so that blank ones at its end are
/// prompts that the count line promised.
fn ends_with_blank_lines(bytes: &[u8], lines: usize) -> bool {
    bytes.iter().filter(|&&byte| byte == b'\n').count() >= lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(bytes: &[u8]) -> PromptsError {
        parse(bytes, None).expect_err("the file is refused")
    }

    #[test]
    fn prompts_are_lines() {
        assert_eq!(parse(b"2\nHello, world!\n a \n", None), Ok(vec!["Hello, world!", " a "]));
        assert_eq!(parse(b"1\nno line end", None), Ok(vec!["no line end"]));
        assert_eq!(parse(b"2\na\nb\n\n\n", None), Ok(vec!["a", "b"]));
    }

    #[test]
    fn carriage_returns_end_lines_where_the_count_line_has_one() {
        assert_eq!(parse(b"2\r\na\r\nb\r\n", None), Ok(vec!["a", "b"]));
        assert_eq!(parse(b"2\na\r\nb\n", None), Ok(vec!["a\r", "b"]));
    }

    #[test]
    fn a_limit_takes_the_first() {
        assert_eq!(parse(b"3\na\nb\n\xff\n", Some(2)), Ok(vec!["a", "b"]));
        assert_eq!(parse(b"1\na\n", Some(9)), Ok(vec!["a"]));
    }

    #[test]
    fn a_count_line_that_is_none_is_shown() {
        for file in
            [&b""[..], b"\n", b"abc\na\n", b"-1\na\n", b"0\n", b"+1\na\n", b" 1\na\n", b"1.0\na"]
        {
            assert!(matches!(refused(file), PromptsError::Count { .. }), "{file:?}");
        }
        let long = refused(&[b'x'; 1 << 20]).to_string();
        assert!(long.len() < 200, "the error is {} bytes long", long.len());
        assert!(matches!(refused(b"99999999999999999999999\na\n"), PromptsError::Count { .. }));
    }

    #[test]
    fn a_count_line_that_lies_gives_both_numbers() {
        assert_eq!(refused(b"3\na\nb\n"), PromptsError::Lies { count: 3, lines: 2 });
        assert_eq!(refused(b"1\na\nb\n"), PromptsError::Lies { count: 1, lines: 2 });
        assert_eq!(
            refused(b"18446744073709551615\na\n"),
            PromptsError::Lies { count: usize::MAX, lines: 1 }
        );
    }

    #[test]
    fn empty_prompts_are_named() {
        assert_eq!(refused(b"2\n\nb\n"), PromptsError::Empty { line: 2, prompt: 0 });
        assert_eq!(refused(b"2\na\n\n"), PromptsError::Empty { line: 3, prompt: 1 });
        assert_eq!(refused(b"2\r\na\r\n\r\n"), PromptsError::Empty { line: 3, prompt: 1 });
    }

    #[test]
    fn bytes_that_are_no_text_are_placed() {
        assert_eq!(refused(b"1\nab\xffc\n"), PromptsError::NotUtf8 { line: 2, byte: 2 });
    }

    #[test]
    fn a_line_of_a_megabyte_is_a_prompt() {
        let file = format!("1\n{}\n", "a ".repeat(1 << 19));
        assert_eq!(parse(file.as_bytes(), None).map(|prompts| prompts[0].len()), Ok(1 << 20));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes, None);
        }

        #[test]
        fn what_is_written_is_read(prompts in prop::collection::vec("[^\r\n]{1,20}", 1..9)) {
            let file = format!("{}\n{}\n", prompts.len(), prompts.join("\n"));
            prop_assert_eq!(parse(file.as_bytes(), None).unwrap(), prompts);
        }
    }
}
