//! Loads and stores of guest memory.
//!
//! Kernels of several streams, workgroups of one launch and copies run on host threads of their own,
//! and a guest with a race makes them touch the same bytes at once. On the host that may not be
//! undefined behaviour: every access here is a relaxed atomic of the widest unit its address is
//! aligned to, which is an ordinary load or store to the machine, and what a GPU gives.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Bytes that a copy holds at a time.
const PIECE: usize = 4096;

/// The byte at `at`.
///
/// # Safety
/// A live region covers it.
#[inline(always)]
pub unsafe fn load8(at: u64) -> u8 {
    // SAFETY: the caller's promise.
    unsafe { AtomicU8::from_ptr(at as *mut u8) }.load(Relaxed)
}

/// The two bytes from `at` on.
///
/// # Safety
/// A live region covers them.
#[inline(always)]
pub unsafe fn load16(at: u64) -> u16 {
    // SAFETY: the caller's promise; the whole unit is aligned.
    unsafe {
        match at % 2 {
            0 => AtomicU16::from_ptr(at as *mut u16).load(Relaxed),
            _ => u16::from_le_bytes([load8(at), load8(at + 1)]),
        }
    }
}

/// The four bytes from `at` on.
///
/// # Safety
/// A live region covers them.
#[inline(always)]
pub unsafe fn load32(at: u64) -> u32 {
    // SAFETY: the caller's promise; the whole unit is aligned.
    unsafe {
        match at % 4 {
            0 => AtomicU32::from_ptr(at as *mut u32).load(Relaxed),
            _ => u32::from(load16(at)) | u32::from(load16(at + 2)) << 16,
        }
    }
}

/// Stores a byte.
///
/// # Safety
/// A live region covers it.
#[inline(always)]
pub unsafe fn store8(at: u64, value: u8) {
    // SAFETY: the caller's promise.
    unsafe { AtomicU8::from_ptr(at as *mut u8) }.store(value, Relaxed);
}

/// Stores two bytes.
///
/// # Safety
/// A live region covers them.
#[inline(always)]
pub unsafe fn store16(at: u64, value: u16) {
    // SAFETY: the caller's promise; the whole unit is aligned.
    unsafe {
        if at.is_multiple_of(2) {
            return AtomicU16::from_ptr(at as *mut u16).store(value, Relaxed);
        }
        let [low, high] = value.to_le_bytes();
        store8(at, low);
        store8(at + 1, high);
    }
}

/// Stores four bytes.
///
/// # Safety
/// A live region covers them.
#[inline(always)]
pub unsafe fn store32(at: u64, value: u32) {
    // SAFETY: the caller's promise; the whole unit is aligned.
    unsafe {
        if at.is_multiple_of(4) {
            return AtomicU32::from_ptr(at as *mut u32).store(value, Relaxed);
        }
        store16(at, value as u16);
        store16(at + 2, (value >> 16) as u16);
    }
}

/// Bytes from `at` to the next word, at most `most`.
fn to_word(at: u64, most: usize) -> usize {
    (at.wrapping_neg() % 8).min(most as u64) as usize
}

/// Fills `into` from `at`.
///
/// # Safety
/// A live region covers the range.
pub unsafe fn read(at: u64, into: &mut [u8]) {
    let (head, rest) = into.split_at_mut(to_word(at, into.len()));
    let (words, tail) = rest.as_chunks_mut::<8>();
    let (middle, end) = (at + head.len() as u64, (words.len() * 8) as u64);
    // SAFETY: all within the range; words begin at a multiple of their size.
    unsafe {
        (at..).zip(head).for_each(|(at, byte)| *byte = load8(at));
        for (at, word) in (middle..).step_by(8).zip(words) {
            *word = AtomicU64::from_ptr(at as *mut u64).load(Relaxed).to_le_bytes();
        }
        (middle + end..).zip(tail).for_each(|(at, byte)| *byte = load8(at));
    }
}

/// Stores `from` at `at`.
///
/// # Safety
/// A live region covers the range.
pub unsafe fn write(at: u64, from: &[u8]) {
    let (head, rest) = from.split_at(to_word(at, from.len()));
    let (words, tail) = rest.as_chunks::<8>();
    let (middle, end) = (at + head.len() as u64, (words.len() * 8) as u64);
    // SAFETY: all within the range; words begin at a multiple of their size.
    unsafe {
        (at..).zip(head).for_each(|(at, byte)| store8(at, *byte));
        for (at, word) in (middle..).step_by(8).zip(words) {
            AtomicU64::from_ptr(at as *mut u64).store(u64::from_le_bytes(*word), Relaxed);
        }
        (middle + end..).zip(tail).for_each(|(at, byte)| store8(at, *byte));
    }
}

/// Copies within guest memory; the ranges may overlap.
///
/// # Safety
/// Live regions cover both ranges.
pub unsafe fn copy(to: u64, from: u64, bytes: usize) {
    let mut held = [0; PIECE];
    let mut piece = |start: usize| {
        let held = &mut held[..PIECE.min(bytes - start)];
        // SAFETY: within the ranges.
        unsafe {
            read(from + start as u64, held);
            write(to + start as u64, held);
        }
    };
    let starts = (0..bytes).step_by(PIECE);
    // A target above the source is filled from its end, so that nothing is overwritten unread.
    if to > from { starts.rev().for_each(&mut piece) } else { starts.for_each(&mut piece) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every alignment of both sides, and lengths around a word.
    #[test]
    fn ranges_are_copied_whatever_their_alignment() {
        let source: Vec<u8> = (0..64).collect();
        for (from, to, len) in
            (0..8).flat_map(|f| (0..8).flat_map(move |t| (0..33).map(move |len| (f, t, len))))
        {
            let mut target = [0xee; 64];
            let base = target.as_mut_ptr() as u64 + to;
            // SAFETY: within `target`.
            unsafe { write(base, &source[from..from + len]) };
            let mut back = vec![0; len];
            // SAFETY: as above.
            unsafe { read(base, &mut back) };
            assert_eq!(back, source[from..from + len]);
            assert_eq!(target[to as usize..][..len], source[from..from + len]);
            assert!(target[..to as usize].iter().all(|&byte| byte == 0xee));
            assert!(target[to as usize + len..].iter().all(|&byte| byte == 0xee));
        }
    }

    #[test]
    fn words_at_any_address_are_the_bytes_there() {
        let mut bytes: Vec<u8> = (1..=16).collect();
        let base = bytes.as_mut_ptr() as u64;
        for at in 0..8 {
            let expected = u32::from_le_bytes([1, 2, 3, 4].map(|b| b + at as u8));
            // SAFETY: within `bytes`.
            unsafe {
                assert_eq!(load32(base + at), expected);
                assert_eq!(load16(base + at), expected as u16);
                store32(base + at, !expected);
                assert_eq!(load32(base + at), !expected);
                store32(base + at, expected);
                store16(base + at, 0xabcd);
                assert_eq!(load32(base + at), expected & 0xffff_0000 | 0xabcd);
                store32(base + at, expected);
            }
        }
        assert!(bytes.iter().copied().eq(1..=16));
    }

    /// Longer than a piece, in both directions.
    #[test]
    fn overlapping_ranges_are_moved() {
        for shift in [1usize, 8, 100, PIECE, PIECE + 3] {
            let len = 3 * PIECE + 5;
            let original: Vec<u8> = (0..len + shift).map(|i| ((i * 31) >> 3) as u8).collect();
            for up in [true, false] {
                let mut bytes = original.clone();
                let (from, to) = if up { (0, shift) } else { (shift, 0) };
                let base = bytes.as_mut_ptr() as u64;
                // SAFETY: both ranges are within `bytes`.
                unsafe { copy(base + to as u64, base + from as u64, len) };
                assert!(bytes[to..to + len] == original[from..from + len], "by {shift}, {up}");
            }
        }
    }
}
