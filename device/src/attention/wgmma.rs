//! The two products of attention on Hopper: `wgmma` on a split of keys, for four waves at once.
//!
//! Both are asynchronous: between a product and [`wait`], whose turn it is to name the results, no
//! code may touch them, or stand in a branch of its own.
//!
//! Wave `i` of the four holds rows `16 i..`, laid out as by `mma.sync`; `wgmma` sums the 16 k of an
//! instruction as `mma.sync` does. So the results are those of `Queries::scores` and `add_weighted`.

use core::arch::asm;

use shared::block::ROWS;
use shared::kv::PAGE;

use super::softmax::{STEPS, TILES};
use crate::arch::workgroup_address;
use crate::tile::{Acc, Operand};

/// Describes rows side by side, without swizzle: eight rows of a chunk are 128 contiguous bytes, the
/// next chunk follows after `rows` chunks.
#[inline(always)]
fn descriptor(address: *const u8, rows: usize) -> u64 {
    const EIGHT_ROWS: u64 = 128 >> 4;
    let address = u64::from((workgroup_address(address) & 0x3_ffff) >> 4);
    address | (rows as u64) << 16 | EIGHT_ROWS << 32
}

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

/// The values of a split, weighted, of which two pages lie one after the other at `values` in
/// workgroup memory. Collective over four waves; asynchronous.
///
/// # Safety
///
/// As [`scores`].
#[inline(always)]
pub unsafe fn weighted<const DT: usize>(
    out: &mut [Acc; DT],
    p: &[Operand; STEPS],
    values: *const u8,
) {
    let (p, values) = (words(p), descriptor(values, DT * ROWS));
    // SAFETY: the caller's promise; `DT` is one of the two.
    unsafe {
        match DT {
            2 => weighted_32(&mut *out.as_mut_ptr().cast(), &p, values),
            _ => weighted_64(&mut *out.as_mut_ptr().cast(), &p, values),
        }
    }
}

/// Waits for all products, of which these are the results.
#[inline(always)]
pub fn wait<const N: usize>(results: &mut [Acc; N]) {
    // SAFETY: only waits.
    unsafe { asm!("wgmma.wait_group.sync.aligned 0;", options(nostack)) };
    for c in results {
        // SAFETY: does nothing, but after the wait: the compiler sees the results change here.
        unsafe {
            asm!("// {0} {1} {2} {3} {4} {5} {6} {7}", inout(reg32) c[0], inout(reg32) c[1], inout(reg32) c[2], inout(reg32) c[3],
                inout(reg32) c[4], inout(reg32) c[5], inout(reg32) c[6], inout(reg32) c[7],
                options(nostack));
        }
    }
}

/// [`scores`] of heads of 32.
///
/// # Safety
///
/// As [`scores`].
#[inline(always)]
unsafe fn scores_32(c: &mut [Acc; 8], q: [[[u32; 4]; 2]; 1], rows: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{ .reg .b64 d;",
            "wgmma.fence.sync.aligned;",
            "add.s64 d, {72}, 0;",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}, {16}, {17}, {18}, {19}, {20}, {21}, {22}, {23}, {24}, {25}, {26}, {27}, {28}, {29}, {30}, {31}}},",
            "{{{64}, {65}, {66}, {67}}}, d, 0, 1, 1, 0;",
            "add.s64 d, {72}, 128;",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}, {16}, {17}, {18}, {19}, {20}, {21}, {22}, {23}, {24}, {25}, {26}, {27}, {28}, {29}, {30}, {31}}},",
            "{{{68}, {69}, {70}, {71}}}, d, 1, 1, 1, 0;",
            "add.s64 d, {72}, 256;",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            "{{{32}, {33}, {34}, {35}, {36}, {37}, {38}, {39}, {40}, {41}, {42}, {43}, {44}, {45}, {46}, {47}, {48}, {49}, {50}, {51}, {52}, {53}, {54}, {55}, {56}, {57}, {58}, {59}, {60}, {61}, {62}, {63}}},",
            "{{{64}, {65}, {66}, {67}}}, d, 0, 1, 1, 0;",
            "add.s64 d, {72}, 384;",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            "{{{32}, {33}, {34}, {35}, {36}, {37}, {38}, {39}, {40}, {41}, {42}, {43}, {44}, {45}, {46}, {47}, {48}, {49}, {50}, {51}, {52}, {53}, {54}, {55}, {56}, {57}, {58}, {59}, {60}, {61}, {62}, {63}}},",
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
            in(reg64) rows, options(nostack)
        );
    }
}

/// [`scores`] of heads of 64.
///
/// # Safety
///
/// As [`scores`].
#[inline(always)]
unsafe fn scores_64(c: &mut [Acc; 8], q: [[[u32; 4]; 2]; 2], rows: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{ .reg .b64 d;",
            "wgmma.fence.sync.aligned;",
            "add.s64 d, {80}, 0;",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}, {16}, {17}, {18}, {19}, {20}, {21}, {22}, {23}, {24}, {25}, {26}, {27}, {28}, {29}, {30}, {31}}},",
            "{{{64}, {65}, {66}, {67}}}, d, 0, 1, 1, 0;",
            "add.s64 d, {80}, 128;",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}, {16}, {17}, {18}, {19}, {20}, {21}, {22}, {23}, {24}, {25}, {26}, {27}, {28}, {29}, {30}, {31}}},",
            "{{{68}, {69}, {70}, {71}}}, d, 1, 1, 1, 0;",
            "add.s64 d, {80}, 256;",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}, {16}, {17}, {18}, {19}, {20}, {21}, {22}, {23}, {24}, {25}, {26}, {27}, {28}, {29}, {30}, {31}}},",
            "{{{72}, {73}, {74}, {75}}}, d, 1, 1, 1, 0;",
            "add.s64 d, {80}, 384;",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}, {16}, {17}, {18}, {19}, {20}, {21}, {22}, {23}, {24}, {25}, {26}, {27}, {28}, {29}, {30}, {31}}},",
            "{{{76}, {77}, {78}, {79}}}, d, 1, 1, 1, 0;",
            "add.s64 d, {80}, 512;",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            "{{{32}, {33}, {34}, {35}, {36}, {37}, {38}, {39}, {40}, {41}, {42}, {43}, {44}, {45}, {46}, {47}, {48}, {49}, {50}, {51}, {52}, {53}, {54}, {55}, {56}, {57}, {58}, {59}, {60}, {61}, {62}, {63}}},",
            "{{{64}, {65}, {66}, {67}}}, d, 0, 1, 1, 0;",
            "add.s64 d, {80}, 640;",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            "{{{32}, {33}, {34}, {35}, {36}, {37}, {38}, {39}, {40}, {41}, {42}, {43}, {44}, {45}, {46}, {47}, {48}, {49}, {50}, {51}, {52}, {53}, {54}, {55}, {56}, {57}, {58}, {59}, {60}, {61}, {62}, {63}}},",
            "{{{68}, {69}, {70}, {71}}}, d, 1, 1, 1, 0;",
            "add.s64 d, {80}, 768;",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            "{{{32}, {33}, {34}, {35}, {36}, {37}, {38}, {39}, {40}, {41}, {42}, {43}, {44}, {45}, {46}, {47}, {48}, {49}, {50}, {51}, {52}, {53}, {54}, {55}, {56}, {57}, {58}, {59}, {60}, {61}, {62}, {63}}},",
            "{{{72}, {73}, {74}, {75}}}, d, 1, 1, 1, 0;",
            "add.s64 d, {80}, 896;",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            "{{{32}, {33}, {34}, {35}, {36}, {37}, {38}, {39}, {40}, {41}, {42}, {43}, {44}, {45}, {46}, {47}, {48}, {49}, {50}, {51}, {52}, {53}, {54}, {55}, {56}, {57}, {58}, {59}, {60}, {61}, {62}, {63}}},",
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
            in(reg64) rows, options(nostack)
        );
    }
}

/// [`weighted`] of heads of 32.
///
/// # Safety
///
/// As [`scores`].
#[inline(always)]
unsafe fn weighted_32(c: &mut [Acc; 2], p: &[[[u32; 4]; 2]; 4], rows: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{ .reg .b64 d;",
            "wgmma.fence.sync.aligned;",
            "add.s64 d, {48}, 0;",
            "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}}},",
            "{{{16}, {17}, {18}, {19}}}, d, 0, 1, 1, 0;",
            "add.s64 d, {48}, 64;",
            "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}}},",
            "{{{20}, {21}, {22}, {23}}}, d, 1, 1, 1, 0;",
            "add.s64 d, {48}, 128;",
            "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}}},",
            "{{{24}, {25}, {26}, {27}}}, d, 1, 1, 1, 0;",
            "add.s64 d, {48}, 192;",
            "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}}},",
            "{{{28}, {29}, {30}, {31}}}, d, 1, 1, 1, 0;",
            "add.s64 d, {48}, 256;",
            "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}}},",
            "{{{32}, {33}, {34}, {35}}}, d, 1, 1, 1, 0;",
            "add.s64 d, {48}, 320;",
            "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}}},",
            "{{{36}, {37}, {38}, {39}}}, d, 1, 1, 1, 0;",
            "add.s64 d, {48}, 384;",
            "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}}},",
            "{{{40}, {41}, {42}, {43}}}, d, 1, 1, 1, 0;",
            "add.s64 d, {48}, 448;",
            "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}}},",
            "{{{44}, {45}, {46}, {47}}}, d, 1, 1, 1, 0;",
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
            in(reg32) p[1][1][3], in(reg32) p[2][0][0], in(reg32) p[2][0][1],
            in(reg32) p[2][0][2], in(reg32) p[2][0][3], in(reg32) p[2][1][0],
            in(reg32) p[2][1][1], in(reg32) p[2][1][2], in(reg32) p[2][1][3],
            in(reg32) p[3][0][0], in(reg32) p[3][0][1], in(reg32) p[3][0][2],
            in(reg32) p[3][0][3], in(reg32) p[3][1][0], in(reg32) p[3][1][1],
            in(reg32) p[3][1][2], in(reg32) p[3][1][3],
            in(reg64) rows, options(nostack)
        );
    }
}

/// [`weighted`] of heads of 64.
///
/// # Safety
///
/// As [`scores`].
#[inline(always)]
unsafe fn weighted_64(c: &mut [Acc; 4], p: &[[[u32; 4]; 2]; 4], rows: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{ .reg .b64 d;",
            "wgmma.fence.sync.aligned;",
            "add.s64 d, {64}, 0;",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}, {16}, {17}, {18}, {19}, {20}, {21}, {22}, {23}, {24}, {25}, {26}, {27}, {28}, {29}, {30}, {31}}},",
            "{{{32}, {33}, {34}, {35}}}, d, 0, 1, 1, 0;",
            "add.s64 d, {64}, 128;",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}, {16}, {17}, {18}, {19}, {20}, {21}, {22}, {23}, {24}, {25}, {26}, {27}, {28}, {29}, {30}, {31}}},",
            "{{{36}, {37}, {38}, {39}}}, d, 1, 1, 1, 0;",
            "add.s64 d, {64}, 256;",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}, {16}, {17}, {18}, {19}, {20}, {21}, {22}, {23}, {24}, {25}, {26}, {27}, {28}, {29}, {30}, {31}}},",
            "{{{40}, {41}, {42}, {43}}}, d, 1, 1, 1, 0;",
            "add.s64 d, {64}, 384;",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}, {16}, {17}, {18}, {19}, {20}, {21}, {22}, {23}, {24}, {25}, {26}, {27}, {28}, {29}, {30}, {31}}},",
            "{{{44}, {45}, {46}, {47}}}, d, 1, 1, 1, 0;",
            "add.s64 d, {64}, 512;",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}, {16}, {17}, {18}, {19}, {20}, {21}, {22}, {23}, {24}, {25}, {26}, {27}, {28}, {29}, {30}, {31}}},",
            "{{{48}, {49}, {50}, {51}}}, d, 1, 1, 1, 0;",
            "add.s64 d, {64}, 640;",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}, {16}, {17}, {18}, {19}, {20}, {21}, {22}, {23}, {24}, {25}, {26}, {27}, {28}, {29}, {30}, {31}}},",
            "{{{52}, {53}, {54}, {55}}}, d, 1, 1, 1, 0;",
            "add.s64 d, {64}, 768;",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}, {16}, {17}, {18}, {19}, {20}, {21}, {22}, {23}, {24}, {25}, {26}, {27}, {28}, {29}, {30}, {31}}},",
            "{{{56}, {57}, {58}, {59}}}, d, 1, 1, 1, 0;",
            "add.s64 d, {64}, 896;",
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
            "{{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}, {16}, {17}, {18}, {19}, {20}, {21}, {22}, {23}, {24}, {25}, {26}, {27}, {28}, {29}, {30}, {31}}},",
            "{{{60}, {61}, {62}, {63}}}, d, 1, 1, 1, 0;",
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
            in(reg32) p[1][1][3], in(reg32) p[2][0][0], in(reg32) p[2][0][1],
            in(reg32) p[2][0][2], in(reg32) p[2][0][3], in(reg32) p[2][1][0],
            in(reg32) p[2][1][1], in(reg32) p[2][1][2], in(reg32) p[2][1][3],
            in(reg32) p[3][0][0], in(reg32) p[3][0][1], in(reg32) p[3][0][2],
            in(reg32) p[3][0][3], in(reg32) p[3][1][0], in(reg32) p[3][1][1],
            in(reg32) p[3][1][2], in(reg32) p[3][1][3],
            in(reg64) rows, options(nostack)
        );
    }
}
