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

/// [`scores`] of heads of 32.
///
/// # Safety
///
/// As [`scores`].
#[inline(always)]
unsafe fn scores_32(c: &mut [Acc; 8], q: [[[u32; 4]; 2]; 1], rows: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{ .reg .b32 low; .reg .b64 d;",
            "wgmma.fence.sync.aligned;",
            "add.u32 low, {72}, 0; mov.b64 d, {{low, {73}}};",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            first_32!(),
            "{{{64}, {65}, {66}, {67}}}, d, 0, 1, 1, 0;",
            "add.u32 low, {72}, 128; mov.b64 d, {{low, {73}}};",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            first_32!(),
            "{{{68}, {69}, {70}, {71}}}, d, 1, 1, 1, 0;",
            "add.u32 low, {72}, 256; mov.b64 d, {{low, {73}}};",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            next_32!(),
            "{{{64}, {65}, {66}, {67}}}, d, 0, 1, 1, 0;",
            "add.u32 low, {72}, 384; mov.b64 d, {{low, {73}}};",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            next_32!(),
            "{{{68}, {69}, {70}, {71}}}, d, 1, 1, 1, 0;",
            "wgmma.commit_group.sync.aligned; }}",
            out(reg32) c[0][0], out(reg32) c[0][1], out(reg32) c[0][2], out(reg32) c[0][3],
            out(reg32) c[0][4], out(reg32) c[0][5], out(reg32) c[0][6], out(reg32) c[0][7],
            out(reg32) c[1][0], out(reg32) c[1][1], out(reg32) c[1][2], out(reg32) c[1][3],
            out(reg32) c[1][4], out(reg32) c[1][5], out(reg32) c[1][6], out(reg32) c[1][7],
            out(reg32) c[2][0], out(reg32) c[2][1], out(reg32) c[2][2], out(reg32) c[2][3],
            out(reg32) c[2][4], out(reg32) c[2][5], out(reg32) c[2][6], out(reg32) c[2][7],
            out(reg32) c[3][0], out(reg32) c[3][1], out(reg32) c[3][2], out(reg32) c[3][3],
            out(reg32) c[3][4], out(reg32) c[3][5], out(reg32) c[3][6], out(reg32) c[3][7],
            out(reg32) c[4][0], out(reg32) c[4][1], out(reg32) c[4][2], out(reg32) c[4][3],
            out(reg32) c[4][4], out(reg32) c[4][5], out(reg32) c[4][6], out(reg32) c[4][7],
            out(reg32) c[5][0], out(reg32) c[5][1], out(reg32) c[5][2], out(reg32) c[5][3],
            out(reg32) c[5][4], out(reg32) c[5][5], out(reg32) c[5][6], out(reg32) c[5][7],
            out(reg32) c[6][0], out(reg32) c[6][1], out(reg32) c[6][2], out(reg32) c[6][3],
            out(reg32) c[6][4], out(reg32) c[6][5], out(reg32) c[6][6], out(reg32) c[6][7],
            out(reg32) c[7][0], out(reg32) c[7][1], out(reg32) c[7][2], out(reg32) c[7][3],
            out(reg32) c[7][4], out(reg32) c[7][5], out(reg32) c[7][6], out(reg32) c[7][7],
            in(reg32) q[0][0][0], in(reg32) q[0][0][1], in(reg32) q[0][0][2],
            in(reg32) q[0][0][3], in(reg32) q[0][1][0], in(reg32) q[0][1][1],
            in(reg32) q[0][1][2], in(reg32) q[0][1][3],
            in(reg32) rows, const EIGHT_ROWS, options(nostack)
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
        asm!(
            "{{ .reg .b32 low; .reg .b64 d;",
            "wgmma.fence.sync.aligned;",
            "add.u32 low, {80}, 0; mov.b64 d, {{low, {81}}};",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            first_32!(),
            "{{{64}, {65}, {66}, {67}}}, d, 0, 1, 1, 0;",
            "add.u32 low, {80}, 128; mov.b64 d, {{low, {81}}};",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            first_32!(),
            "{{{68}, {69}, {70}, {71}}}, d, 1, 1, 1, 0;",
            "add.u32 low, {80}, 256; mov.b64 d, {{low, {81}}};",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            first_32!(),
            "{{{72}, {73}, {74}, {75}}}, d, 1, 1, 1, 0;",
            "add.u32 low, {80}, 384; mov.b64 d, {{low, {81}}};",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            first_32!(),
            "{{{76}, {77}, {78}, {79}}}, d, 1, 1, 1, 0;",
            "add.u32 low, {80}, 512; mov.b64 d, {{low, {81}}};",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            next_32!(),
            "{{{64}, {65}, {66}, {67}}}, d, 0, 1, 1, 0;",
            "add.u32 low, {80}, 640; mov.b64 d, {{low, {81}}};",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            next_32!(),
            "{{{68}, {69}, {70}, {71}}}, d, 1, 1, 1, 0;",
            "add.u32 low, {80}, 768; mov.b64 d, {{low, {81}}};",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            next_32!(),
            "{{{72}, {73}, {74}, {75}}}, d, 1, 1, 1, 0;",
            "add.u32 low, {80}, 896; mov.b64 d, {{low, {81}}};",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            next_32!(),
            "{{{76}, {77}, {78}, {79}}}, d, 1, 1, 1, 0;",
            "wgmma.commit_group.sync.aligned; }}",
            out(reg32) c[0][0], out(reg32) c[0][1], out(reg32) c[0][2], out(reg32) c[0][3],
            out(reg32) c[0][4], out(reg32) c[0][5], out(reg32) c[0][6], out(reg32) c[0][7],
            out(reg32) c[1][0], out(reg32) c[1][1], out(reg32) c[1][2], out(reg32) c[1][3],
            out(reg32) c[1][4], out(reg32) c[1][5], out(reg32) c[1][6], out(reg32) c[1][7],
            out(reg32) c[2][0], out(reg32) c[2][1], out(reg32) c[2][2], out(reg32) c[2][3],
            out(reg32) c[2][4], out(reg32) c[2][5], out(reg32) c[2][6], out(reg32) c[2][7],
            out(reg32) c[3][0], out(reg32) c[3][1], out(reg32) c[3][2], out(reg32) c[3][3],
            out(reg32) c[3][4], out(reg32) c[3][5], out(reg32) c[3][6], out(reg32) c[3][7],
            out(reg32) c[4][0], out(reg32) c[4][1], out(reg32) c[4][2], out(reg32) c[4][3],
            out(reg32) c[4][4], out(reg32) c[4][5], out(reg32) c[4][6], out(reg32) c[4][7],
            out(reg32) c[5][0], out(reg32) c[5][1], out(reg32) c[5][2], out(reg32) c[5][3],
            out(reg32) c[5][4], out(reg32) c[5][5], out(reg32) c[5][6], out(reg32) c[5][7],
            out(reg32) c[6][0], out(reg32) c[6][1], out(reg32) c[6][2], out(reg32) c[6][3],
            out(reg32) c[6][4], out(reg32) c[6][5], out(reg32) c[6][6], out(reg32) c[6][7],
            out(reg32) c[7][0], out(reg32) c[7][1], out(reg32) c[7][2], out(reg32) c[7][3],
            out(reg32) c[7][4], out(reg32) c[7][5], out(reg32) c[7][6], out(reg32) c[7][7],
            in(reg32) q[0][0][0], in(reg32) q[0][0][1], in(reg32) q[0][0][2],
            in(reg32) q[0][0][3], in(reg32) q[0][1][0], in(reg32) q[0][1][1],
            in(reg32) q[0][1][2], in(reg32) q[0][1][3], in(reg32) q[1][0][0],
            in(reg32) q[1][0][1], in(reg32) q[1][0][2], in(reg32) q[1][0][3],
            in(reg32) q[1][1][0], in(reg32) q[1][1][1], in(reg32) q[1][1][2],
            in(reg32) q[1][1][3],
            in(reg32) rows, const EIGHT_ROWS, options(nostack)
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
        asm!(
            "{{ .reg .b32 low; .reg .b64 d;",
            "wgmma.fence.sync.aligned;",
            "add.u32 low, {32}, 0; mov.b64 d, {{low, {33}}};",
            "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16",
            first_16!(),
            "{{{16}, {17}, {18}, {19}}}, d, 0, 1, 1, 0;",
            "add.u32 low, {32}, 64; mov.b64 d, {{low, {33}}};",
            "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16",
            first_16!(),
            "{{{20}, {21}, {22}, {23}}}, d, 1, 1, 1, 0;",
            "add.u32 low, {32}, 128; mov.b64 d, {{low, {33}}};",
            "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16",
            first_16!(),
            "{{{24}, {25}, {26}, {27}}}, d, 1, 1, 1, 0;",
            "add.u32 low, {32}, 192; mov.b64 d, {{low, {33}}};",
            "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16",
            first_16!(),
            "{{{28}, {29}, {30}, {31}}}, d, 1, 1, 1, 0;",
            "wgmma.commit_group.sync.aligned; }}",
            out(reg32) c[0][0], out(reg32) c[0][1], out(reg32) c[0][2], out(reg32) c[0][3],
            out(reg32) c[0][4], out(reg32) c[0][5], out(reg32) c[0][6], out(reg32) c[0][7],
            out(reg32) c[1][0], out(reg32) c[1][1], out(reg32) c[1][2], out(reg32) c[1][3],
            out(reg32) c[1][4], out(reg32) c[1][5], out(reg32) c[1][6], out(reg32) c[1][7],
            in(reg32) p[0][0][0], in(reg32) p[0][0][1], in(reg32) p[0][0][2],
            in(reg32) p[0][0][3], in(reg32) p[0][1][0], in(reg32) p[0][1][1],
            in(reg32) p[0][1][2], in(reg32) p[0][1][3], in(reg32) p[1][0][0],
            in(reg32) p[1][0][1], in(reg32) p[1][0][2], in(reg32) p[1][0][3],
            in(reg32) p[1][1][0], in(reg32) p[1][1][1], in(reg32) p[1][1][2],
            in(reg32) p[1][1][3],
            in(reg32) rows, const EIGHT_ROWS, options(nostack)
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
        asm!(
            "{{ .reg .b32 low; .reg .b64 d;",
            "wgmma.fence.sync.aligned;",
            "add.u32 low, {32}, 0; mov.b64 d, {{low, {33}}};",
            "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16",
            first_16!(),
            "{{{16}, {17}, {18}, {19}}}, d, 1, 1, 1, 0;",
            "add.u32 low, {32}, 64; mov.b64 d, {{low, {33}}};",
            "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16",
            first_16!(),
            "{{{20}, {21}, {22}, {23}}}, d, 1, 1, 1, 0;",
            "add.u32 low, {32}, 128; mov.b64 d, {{low, {33}}};",
            "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16",
            first_16!(),
            "{{{24}, {25}, {26}, {27}}}, d, 1, 1, 1, 0;",
            "add.u32 low, {32}, 192; mov.b64 d, {{low, {33}}};",
            "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16",
            first_16!(),
            "{{{28}, {29}, {30}, {31}}}, d, 1, 1, 1, 0;",
            "wgmma.commit_group.sync.aligned; }}",
            inout(reg32) c[0][0], inout(reg32) c[0][1], inout(reg32) c[0][2],
            inout(reg32) c[0][3], inout(reg32) c[0][4], inout(reg32) c[0][5],
            inout(reg32) c[0][6], inout(reg32) c[0][7], inout(reg32) c[1][0],
            inout(reg32) c[1][1], inout(reg32) c[1][2], inout(reg32) c[1][3],
            inout(reg32) c[1][4], inout(reg32) c[1][5], inout(reg32) c[1][6],
            inout(reg32) c[1][7],
            in(reg32) p[0][0][0], in(reg32) p[0][0][1], in(reg32) p[0][0][2],
            in(reg32) p[0][0][3], in(reg32) p[0][1][0], in(reg32) p[0][1][1],
            in(reg32) p[0][1][2], in(reg32) p[0][1][3], in(reg32) p[1][0][0],
            in(reg32) p[1][0][1], in(reg32) p[1][0][2], in(reg32) p[1][0][3],
            in(reg32) p[1][1][0], in(reg32) p[1][1][1], in(reg32) p[1][1][2],
            in(reg32) p[1][1][3],
            in(reg32) rows, const EIGHT_ROWS, options(nostack)
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
        asm!(
            "{{ .reg .b32 low; .reg .b64 d;",
            "wgmma.fence.sync.aligned;",
            "add.u32 low, {48}, 0; mov.b64 d, {{low, {49}}};",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            first_32!(),
            "{{{32}, {33}, {34}, {35}}}, d, 0, 1, 1, 0;",
            "add.u32 low, {48}, 128; mov.b64 d, {{low, {49}}};",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            first_32!(),
            "{{{36}, {37}, {38}, {39}}}, d, 1, 1, 1, 0;",
            "add.u32 low, {48}, 256; mov.b64 d, {{low, {49}}};",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            first_32!(),
            "{{{40}, {41}, {42}, {43}}}, d, 1, 1, 1, 0;",
            "add.u32 low, {48}, 384; mov.b64 d, {{low, {49}}};",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            first_32!(),
            "{{{44}, {45}, {46}, {47}}}, d, 1, 1, 1, 0;",
            "wgmma.commit_group.sync.aligned; }}",
            out(reg32) c[0][0], out(reg32) c[0][1], out(reg32) c[0][2], out(reg32) c[0][3],
            out(reg32) c[0][4], out(reg32) c[0][5], out(reg32) c[0][6], out(reg32) c[0][7],
            out(reg32) c[1][0], out(reg32) c[1][1], out(reg32) c[1][2], out(reg32) c[1][3],
            out(reg32) c[1][4], out(reg32) c[1][5], out(reg32) c[1][6], out(reg32) c[1][7],
            out(reg32) c[2][0], out(reg32) c[2][1], out(reg32) c[2][2], out(reg32) c[2][3],
            out(reg32) c[2][4], out(reg32) c[2][5], out(reg32) c[2][6], out(reg32) c[2][7],
            out(reg32) c[3][0], out(reg32) c[3][1], out(reg32) c[3][2], out(reg32) c[3][3],
            out(reg32) c[3][4], out(reg32) c[3][5], out(reg32) c[3][6], out(reg32) c[3][7],
            in(reg32) p[0][0][0], in(reg32) p[0][0][1], in(reg32) p[0][0][2],
            in(reg32) p[0][0][3], in(reg32) p[0][1][0], in(reg32) p[0][1][1],
            in(reg32) p[0][1][2], in(reg32) p[0][1][3], in(reg32) p[1][0][0],
            in(reg32) p[1][0][1], in(reg32) p[1][0][2], in(reg32) p[1][0][3],
            in(reg32) p[1][1][0], in(reg32) p[1][1][1], in(reg32) p[1][1][2],
            in(reg32) p[1][1][3],
            in(reg32) rows, const EIGHT_ROWS, options(nostack)
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
        asm!(
            "{{ .reg .b32 low; .reg .b64 d;",
            "wgmma.fence.sync.aligned;",
            "add.u32 low, {48}, 0; mov.b64 d, {{low, {49}}};",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            first_32!(),
            "{{{32}, {33}, {34}, {35}}}, d, 1, 1, 1, 0;",
            "add.u32 low, {48}, 128; mov.b64 d, {{low, {49}}};",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            first_32!(),
            "{{{36}, {37}, {38}, {39}}}, d, 1, 1, 1, 0;",
            "add.u32 low, {48}, 256; mov.b64 d, {{low, {49}}};",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            first_32!(),
            "{{{40}, {41}, {42}, {43}}}, d, 1, 1, 1, 0;",
            "add.u32 low, {48}, 384; mov.b64 d, {{low, {49}}};",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            first_32!(),
            "{{{44}, {45}, {46}, {47}}}, d, 1, 1, 1, 0;",
            "wgmma.commit_group.sync.aligned; }}",
            inout(reg32) c[0][0], inout(reg32) c[0][1], inout(reg32) c[0][2],
            inout(reg32) c[0][3], inout(reg32) c[0][4], inout(reg32) c[0][5],
            inout(reg32) c[0][6], inout(reg32) c[0][7], inout(reg32) c[1][0],
            inout(reg32) c[1][1], inout(reg32) c[1][2], inout(reg32) c[1][3],
            inout(reg32) c[1][4], inout(reg32) c[1][5], inout(reg32) c[1][6],
            inout(reg32) c[1][7], inout(reg32) c[2][0], inout(reg32) c[2][1],
            inout(reg32) c[2][2], inout(reg32) c[2][3], inout(reg32) c[2][4],
            inout(reg32) c[2][5], inout(reg32) c[2][6], inout(reg32) c[2][7],
            inout(reg32) c[3][0], inout(reg32) c[3][1], inout(reg32) c[3][2],
            inout(reg32) c[3][3], inout(reg32) c[3][4], inout(reg32) c[3][5],
            inout(reg32) c[3][6], inout(reg32) c[3][7],
            in(reg32) p[0][0][0], in(reg32) p[0][0][1], in(reg32) p[0][0][2],
            in(reg32) p[0][0][3], in(reg32) p[0][1][0], in(reg32) p[0][1][1],
            in(reg32) p[0][1][2], in(reg32) p[0][1][3], in(reg32) p[1][0][0],
            in(reg32) p[1][0][1], in(reg32) p[1][0][2], in(reg32) p[1][0][3],
            in(reg32) p[1][1][0], in(reg32) p[1][1][1], in(reg32) p[1][1][2],
            in(reg32) p[1][1][3],
            in(reg32) rows, const EIGHT_ROWS, options(nostack)
        );
    }
}
