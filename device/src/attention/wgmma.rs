//! The two products of attention on Hopper: `wgmma` on a split of keys, for four waves at once.
//!
//! Both are asynchronous: between a product and the [`wait`] that names its results, no code may
//! touch them.
//!
//! Wave `i` of the four holds rows `16 i..`, laid out as by `mma.sync`; `wgmma` sums the 16 k of an
//! instruction as `mma.sync` does. So the results are those of `Queries::scores` and `add_weighted`.

use core::arch::asm;

use shared::block::ROWS;
use shared::kv::{PAGE, head_len};

use super::softmax::{STEPS, TILES};
use crate::arch::workgroup_address;
use crate::tile::{Acc, Operand};

/// The low word of the description of rows side by side, without swizzle: the address, and from a
/// chunk to the next `rows` chunks. Eight rows of a chunk are 128 contiguous bytes, which is the high
/// word, [`EIGHT_ROWS`].
#[inline(always)]
fn descriptor(address: *const u8, rows: usize) -> u32 {
    (workgroup_address(address) & 0x3_ffff) >> 4 | (rows as u32) << 16
}

/// See [`descriptor`].
const EIGHT_ROWS: u32 = 128 >> 4;

/// Words of operands as the instruction takes them: four for every 16 k.
#[inline(always)]
fn words<const N: usize>(operands: &[Operand; N]) -> [[[u32; 4]; 2]; N] {
    operands.map(|operand| [operand.words(0), operand.words(1)])
}

/// Scores of 64 rows with the keys of a split, of which two pages lie one after the other at `keys`
/// in workgroup memory. Collective over four waves; asynchronous.
///
/// # Safety
///
/// The keys are there, and stay until the product was waited for.
#[inline(always)]
pub unsafe fn scores<const DS: usize>(
    scores: &mut [Acc; TILES],
    q: &[Operand; DS],
    keys: *const u8,
) {
    let (q, keys) = (words(q), descriptor(keys, PAGE));
    // SAFETY: the caller's promise; `DS` is one of the two.
    unsafe {
        match DS {
            1 => scores_32(scores, *q.as_ptr().cast(), keys),
            _ => scores_64(scores, *q.as_ptr().cast(), keys),
        }
    }
}

/// Adds the values of half `HALF` of a split, weighted; its page lies at `HALF` pages after `values`
/// in workgroup memory. The first half replaces what is in `out`. Collective over four waves;
/// asynchronous.
///
/// # Safety
///
/// As [`scores`].
#[inline(always)]
pub unsafe fn weighted<const HALF: usize, const DT: usize>(
    out: &mut [Acc; DT],
    p: &[Operand; STEPS / 2],
    values: *const u8,
) {
    let dim = DT * ROWS;
    // SAFETY: the caller's promise; `DT` is one of the two.
    unsafe {
        let (p, values) = (words(p), descriptor(values.add(HALF * head_len(dim) * 2), dim));
        let out = out.as_mut_ptr();
        match (DT, HALF) {
            (2, 0) => weighted_32(&mut *out.cast(), &p, values),
            (2, _) => add_weighted_32(&mut *out.cast(), &p, values),
            (_, 0) => weighted_64(&mut *out.cast(), &p, values),
            _ => add_weighted_64(&mut *out.cast(), &p, values),
        }
    }
}

// The accumulators of an instruction: operands 0 to 15, 0 to 31, or 32 to 63 of its piece of assembly.

macro_rules! first_16 {
    () => {
        concat!(
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}}},"
        )
    };
}

macro_rules! first_32 {
    () => {
        concat!(
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}, ",
            "{16}, {17}, {18}, {19}, {20}, {21}, {22}, {23}, {24}, {25}, {26}, {27}, {28}, {29}, {30}, {31}}},"
        )
    };
}

macro_rules! next_32 {
    () => {
        concat!(
            "{{{32}, {33}, {34}, {35}, {36}, {37}, {38}, {39}, {40}, {41}, {42}, {43}, {44}, {45}, {46}, {47}, ",
            "{48}, {49}, {50}, {51}, {52}, {53}, {54}, {55}, {56}, {57}, {58}, {59}, {60}, {61}, {62}, {63}}},"
        )
    };
}

/// One instruction: accumulators of `n` columns, the four words of an operand, the distance of its
/// rows from the first in units of 16 bytes, and whether the accumulators count (1) or are set (0).
macro_rules! product {
    ($n:literal, $c:expr, $a:literal, $distance:literal, $accumulate:literal) => {
        concat!(
            "add.u32 low, {rows}, ",
            $distance,
            "; mov.b64 d, {{low, {high}}};",
            "wgmma.mma_async.sync.aligned.m64n",
            $n,
            "k16.f32.bf16.bf16 ",
            $c,
            "{{",
            $a,
            "}}, d, ",
            $accumulate,
            ", 1, 1, 0;"
        )
    };
}

/// All instructions of a product in one piece of assembly: an instruction of the compiler's between
/// the fence and the last of them would have them wait for each other. `$direction` of the
/// accumulators `$c`, by tile; words of `$a`, of one or of two operands.
macro_rules! products {
    ($direction:ident $c:ident $tiles:tt, $a:ident [1], $rows:ident, $($product:expr),*) => {
        products!(@ $direction $c $tiles, $a [], $rows, $($product),*)
    };
    ($direction:ident $c:ident $tiles:tt, $a:ident [2], $rows:ident, $($product:expr),*) => {
        products!(@ $direction $c $tiles, $a [
            a8 = in(reg32) $a[1][0][0], a9 = in(reg32) $a[1][0][1], a10 = in(reg32) $a[1][0][2], a11 = in(reg32) $a[1][0][3],
            a12 = in(reg32) $a[1][1][0], a13 = in(reg32) $a[1][1][1], a14 = in(reg32) $a[1][1][2], a15 = in(reg32) $a[1][1][3],
        ], $rows, $($product),*)
    };
    (@ $direction:ident $c:ident [$($tile:literal)*], $a:ident [$($second:tt)*], $rows:ident, $($product:expr),*) => {
        asm!(
            "{{ .reg .b32 low; .reg .b64 d;",
            "wgmma.fence.sync.aligned;",
            $($product,)*
            "wgmma.commit_group.sync.aligned; }}",
            $($direction(reg32) $c[$tile][0], $direction(reg32) $c[$tile][1],
            $direction(reg32) $c[$tile][2], $direction(reg32) $c[$tile][3],
            $direction(reg32) $c[$tile][4], $direction(reg32) $c[$tile][5],
            $direction(reg32) $c[$tile][6], $direction(reg32) $c[$tile][7],)*
            a0 = in(reg32) $a[0][0][0], a1 = in(reg32) $a[0][0][1], a2 = in(reg32) $a[0][0][2], a3 = in(reg32) $a[0][0][3],
            a4 = in(reg32) $a[0][1][0], a5 = in(reg32) $a[0][1][1], a6 = in(reg32) $a[0][1][2], a7 = in(reg32) $a[0][1][3],
            $($second)*
            rows = in(reg32) $rows, high = const EIGHT_ROWS, options(nostack)
        )
    };
}

/// [`scores`] of heads of 32.
///
/// # Safety
///
/// As [`scores`].
#[inline(always)]
unsafe fn scores_32(c: &mut [Acc; 8], q: [[[u32; 4]; 2]; 1], rows: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        products!(
            out c [0 1 2 3 4 5 6 7], q [1], rows,
            product!("64", first_32!(), "{a0}, {a1}, {a2}, {a3}", "0", "0"),
            product!("64", first_32!(), "{a4}, {a5}, {a6}, {a7}", "128", "1"),
            product!("64", next_32!(), "{a0}, {a1}, {a2}, {a3}", "256", "0"),
            product!("64", next_32!(), "{a4}, {a5}, {a6}, {a7}", "384", "1")
        );
    }
}

/// [`scores`] of heads of 64.
///
/// # Safety
///
/// As [`scores`].
#[inline(always)]
unsafe fn scores_64(c: &mut [Acc; 8], q: [[[u32; 4]; 2]; 2], rows: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        products!(
            out c [0 1 2 3 4 5 6 7], q [2], rows,
            product!("64", first_32!(), "{a0}, {a1}, {a2}, {a3}", "0", "0"),
            product!("64", first_32!(), "{a4}, {a5}, {a6}, {a7}", "128", "1"),
            product!("64", first_32!(), "{a8}, {a9}, {a10}, {a11}", "256", "1"),
            product!("64", first_32!(), "{a12}, {a13}, {a14}, {a15}", "384", "1"),
            product!("64", next_32!(), "{a0}, {a1}, {a2}, {a3}", "512", "0"),
            product!("64", next_32!(), "{a4}, {a5}, {a6}, {a7}", "640", "1"),
            product!("64", next_32!(), "{a8}, {a9}, {a10}, {a11}", "768", "1"),
            product!("64", next_32!(), "{a12}, {a13}, {a14}, {a15}", "896", "1")
        );
    }
}

/// Half 0 of [`weighted`] for heads of 32.
///
/// # Safety
///
/// As [`weighted`].
#[inline(always)]
unsafe fn weighted_32(c: &mut [Acc; 2], p: &[[[u32; 4]; 2]; 2], rows: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        products!(
            out c [0 1], p [2], rows,
            product!("32", first_16!(), "{a0}, {a1}, {a2}, {a3}", "0", "0"),
            product!("32", first_16!(), "{a4}, {a5}, {a6}, {a7}", "64", "1"),
            product!("32", first_16!(), "{a8}, {a9}, {a10}, {a11}", "128", "1"),
            product!("32", first_16!(), "{a12}, {a13}, {a14}, {a15}", "192", "1")
        );
    }
}

/// Half 1 of [`weighted`] for heads of 32.
///
/// # Safety
///
/// As [`weighted`].
#[inline(always)]
unsafe fn add_weighted_32(c: &mut [Acc; 2], p: &[[[u32; 4]; 2]; 2], rows: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        products!(
            inout c [0 1], p [2], rows,
            product!("32", first_16!(), "{a0}, {a1}, {a2}, {a3}", "0", "1"),
            product!("32", first_16!(), "{a4}, {a5}, {a6}, {a7}", "64", "1"),
            product!("32", first_16!(), "{a8}, {a9}, {a10}, {a11}", "128", "1"),
            product!("32", first_16!(), "{a12}, {a13}, {a14}, {a15}", "192", "1")
        );
    }
}

/// Half 0 of [`weighted`] for heads of 64.
///
/// # Safety
///
/// As [`weighted`].
#[inline(always)]
unsafe fn weighted_64(c: &mut [Acc; 4], p: &[[[u32; 4]; 2]; 2], rows: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        products!(
            out c [0 1 2 3], p [2], rows,
            product!("64", first_32!(), "{a0}, {a1}, {a2}, {a3}", "0", "0"),
            product!("64", first_32!(), "{a4}, {a5}, {a6}, {a7}", "128", "1"),
            product!("64", first_32!(), "{a8}, {a9}, {a10}, {a11}", "256", "1"),
            product!("64", first_32!(), "{a12}, {a13}, {a14}, {a15}", "384", "1")
        );
    }
}

/// Half 1 of [`weighted`] for heads of 64.
///
/// # Safety
///
/// As [`weighted`].
#[inline(always)]
unsafe fn add_weighted_64(c: &mut [Acc; 4], p: &[[[u32; 4]; 2]; 2], rows: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        products!(
            inout c [0 1 2 3], p [2], rows,
            product!("64", first_32!(), "{a0}, {a1}, {a2}, {a3}", "0", "1"),
            product!("64", first_32!(), "{a4}, {a5}, {a6}, {a7}", "128", "1"),
            product!("64", first_32!(), "{a8}, {a9}, {a10}, {a11}", "256", "1"),
            product!("64", first_32!(), "{a12}, {a13}, {a14}, {a15}", "384", "1")
        );
    }
}
