//! A hash that tells versions of a source tree apart, at compile time and at run time alike:
//! FNV-1a, 64 bits.

/// The hash of nothing.
pub const START: u64 = 0xcbf2_9ce4_8422_2325;

/// `hash` with `bytes` added.
pub const fn add(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut i = 0;
    while i < bytes.len() {
        hash = step(hash, bytes[i] as u64);
        i += 1;
    }
    // Keeps "a" then "bc" apart from "ab" then "c".
    step(hash, bytes.len() as u64)
}

const fn step(hash: u64, value: u64) -> u64 {
    (hash ^ value).wrapping_mul(0x0000_0100_0000_01b3)
}

/// The hash of files, each a name relative to a common folder, with `/` between folders, and its
/// content; in the order of the names' bytes.
pub const fn of_files(files: &[(&str, &[u8])]) -> u64 {
    let mut hash = START;
    let mut i = 0;
    while i < files.len() {
        hash = add(add(hash, files[i].0.as_bytes()), files[i].1);
        i += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_contents_and_their_borders_count() {
        let hashes = [
            of_files(&[]),
            of_files(&[("a", b"bc")]),
            of_files(&[("ab", b"c")]),
            of_files(&[("a", b"bd")]),
            of_files(&[("a", b"bc"), ("b", b"")]),
            of_files(&[("b", b""), ("a", b"bc")]),
        ];
        for (i, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..i].contains(hash), "{i}");
        }
    }
}
