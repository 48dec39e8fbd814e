//! Exact comparison of a getp output with a reference output, in the reference program's words.

use std::io::{self, Write};

/// Compares line by line, reports to `report`, and returns whether everything is equal.
pub fn verify(output: &str, reference: &str, report: &mut dyn Write) -> io::Result<bool> {
    let ours: Vec<&str> = output.lines().collect();
    let theirs: Vec<&str> = reference.lines().collect();
    let mut mismatches = 0;
    for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        mismatches += usize::from(!compare(index, ours, theirs, report)?);
    }
    if theirs.len() > ours.len() {
        writeln!(report, "❌ Output has fewer lines than GT at line {}", ours.len())?;
        mismatches += 1;
    }
    if ours.len() > theirs.len() {
        writeln!(report, "❌ Output file has more lines than GT")?;
        mismatches += 1;
    }
    let checked = theirs.len();
    writeln!(report, "\n📊 Verification Summary:")?;
    writeln!(report, "Total requests checked: {checked}")?;
    writeln!(report, "Requests with mismatches: {mismatches}")?;
    writeln!(report, "Requests matching: {}", checked.saturating_sub(mismatches))?;
    if mismatches == 0 {
        writeln!(report, "🎉 ✅ ALL TESTS PASSED!")?;
    } else {
        writeln!(report, "❌ TESTS FAILED! {mismatches} requests have mismatches.")?;
    }
    Ok(mismatches == 0)
}

/// Compares one request. What is no id is compared as it is written.
fn compare(index: usize, ours: &str, theirs: &str, report: &mut dyn Write) -> io::Result<bool> {
    let ours: Vec<&str> = ours.split_whitespace().collect();
    let theirs: Vec<&str> = theirs.split_whitespace().collect();
    if ours.is_empty() && theirs.is_empty() {
        return Ok(true);
    }
    if ours.len() != theirs.len() {
        writeln!(
            report,
            "⚠️ Request #{index}: Length mismatch (GT: {} tokens, Generated: {} tokens)",
            theirs.len(),
            ours.len()
        )?;
        return Ok(false);
    }
    match ours.iter().zip(&theirs).position(|(ours, theirs)| !same_id(ours, theirs)) {
        Some(at) => {
            writeln!(
                report,
                "❌ Request {index}: Token mismatch at position {at} (GT: {}, Generated: {})",
                theirs[at], ours[at]
            )?;
            Ok(false)
        }
        None => {
            writeln!(report, "✅ Request #{index}: Match ({} tokens)", ours.len())?;
            Ok(true)
        }
    }
}

fn same_id(a: &str, b: &str) -> bool {
    match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(output: &str, reference: &str) -> (bool, String) {
        let mut report = Vec::new();
        let same = verify(output, reference, &mut report).unwrap();
        (same, String::from_utf8(report).unwrap())
    }

    #[test]
    fn equal_files_pass() {
        let (same, text) = report("1 2\n\n3\n", "1 2\n\n3");
        assert!(same);
        assert!(text.contains("✅ Request #0: Match (2 tokens)"));
        assert!(!text.contains("Request #1"), "two empty lines are equal without a word");
        assert!(text.contains(
            "Total requests checked: 3\nRequests with mismatches: 0\nRequests matching: 3\n"
        ));
        assert!(text.ends_with("🎉 ✅ ALL TESTS PASSED!\n"));
    }

    #[test]
    fn a_different_token_is_placed() {
        let (same, text) = report("1 2 4\n", "1 3 4\n");
        assert!(!same);
        assert!(text.contains("❌ Request 0: Token mismatch at position 1 (GT: 3, Generated: 2)"));
        assert!(text.ends_with("❌ TESTS FAILED! 1 requests have mismatches.\n"));
    }

    #[test]
    fn a_different_length_gives_both() {
        let (same, text) = report("1 2\n", "1\n");
        assert!(!same);
        assert!(
            text.contains("⚠️ Request #0: Length mismatch (GT: 1 tokens, Generated: 2 tokens)")
        );
    }

    #[test]
    fn missing_and_extra_lines_fail() {
        assert!(report("1\n", "1\n2\n").1.contains("❌ Output has fewer lines than GT at line 1"));
        assert!(report("1\n2\n", "1\n").1.contains("❌ Output file has more lines than GT"));
        assert!(!report("", "1\n").0 && !report("1\n", "").0 && report("", "").0);
    }

    #[test]
    fn what_is_no_number_differs_from_an_id() {
        assert!(!report("1\n", "x\n").0);
        assert!(!report("1\n", "-1\n").0);
    }
}
