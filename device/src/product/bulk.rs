//! Few tokens on Hopper: W through workgroup memory, filled by the copy engine.
//!
//! A tile of W is one contiguous stream whatever its format, so one lane asks for a stage of it
//! with a single `cp.async.bulk`, and the whole ring is on its way without a register. X is small
//! and comes from cache, a batch ahead in registers.

use core::arch::asm;

use shared::block::BLOCK_BYTES;

use super::{Rows, multiply};
use crate::arch::{self, workgroup_address};
use crate::tile::{Acc, Operand};
use crate::weights::Format;

/// Steps of a stage.
const STAGE: usize = 8;
/// Stages of the ring.
const STAGES: usize = 4;
/// Steps whose operands are loaded together.
const BATCH: usize = 4;

/// The product of a row tile of W with a tile of X over all `steps`, for a workgroup of one wave.
/// Collective over the wave.
///
/// # Safety
///
/// The workgroup is one wave with `shared::kernels::linear::bulk_lds` of workgroup memory. `w` is
/// the first block of a row tile in format `F`, `x` the lane's rows of a tile; both have
/// `steps >= 1` steps and are not written during the launch.
#[inline(always)]
pub unsafe fn skinny_bulk<F: Format>(w: *const u8, x: Rows, steps: u32, lane: u32) -> Acc {
    let steps = steps as usize;
    let stage_bytes = STAGE * F::STEP_BYTES;
    let memory: *mut u8 = arch::workgroup_memory();
    let ring = workgroup_address(memory);
    // SAFETY: behind the ring.
    let barriers = workgroup_address(unsafe { memory.add(STAGES * stage_bytes) });
    let barrier = |stage: usize| barriers + (stage % STAGES * 8) as u32;
    let stages = steps.div_ceil(STAGE);
    if lane == 0 {
        for stage in 0..STAGES {
            init(barrier(stage));
        }
    }
    wave_barrier(); // no lane waits on a barrier before it exists
    let fill = |stage: usize| {
        if lane == 0 && stage < stages {
            let bytes = (steps - stage * STAGE).min(STAGE) * F::STEP_BYTES;
            expect(barrier(stage), bytes as u32);
            let to = ring + (stage % STAGES * stage_bytes) as u32;
            // SAFETY: `bytes` more of the tile's stream, into this stage.
            unsafe {
                let from = w.add(stage * STAGE * F::STEP_BYTES);
                copy(to, from, bytes as u32, barrier(stage));
            }
        }
    };
    for stage in 0..STAGES {
        fill(stage);
    }

    // Past the last step, W is what the ring held before and X the last step again: they are not
    // multiplied.
    let load_x = |step: usize| -> [Operand; BATCH] {
        core::array::from_fn(|b| {
            let mut rows = x;
            for row in &mut rows {
                // SAFETY: rows have `steps` steps.
                *row = unsafe { row.add((step + b).min(steps - 1) * BLOCK_BYTES) };
            }
            // SAFETY: the rows of one block.
            unsafe { Operand::gather(rows, lane) }
        })
    };
    let mut acc = [[arch::ZERO; 1]];
    let mut x_next = load_x(0);
    for stage in 0..stages {
        wait(barrier(stage), (stage / STAGES % 2) as u32);
        for batch in 0..STAGE / BATCH {
            let step = stage * STAGE + batch * BATCH;
            let x = x_next;
            x_next = load_x(step + BATCH);
            let at = stage % STAGES * stage_bytes + batch * BATCH * F::STEP_BYTES;
            let w: [F::Raw; BATCH] = core::array::from_fn(|b| {
                // SAFETY: inside the ring.
                unsafe { F::load(memory.add(at + b * F::STEP_BYTES), lane) }
            });
            for b in 0..BATCH {
                if step + b < steps {
                    multiply::<F, 1, 1>(&[w[b]], &[x[b]], &mut acc);
                }
            }
        }
        wave_barrier(); // every lane has read its part of the stage
        fill(stage + STAGES);
    }
    acc[0][0]
}

/// Waits for every lane of the wave, and orders their accesses to workgroup memory.
#[inline(always)]
fn wave_barrier() {
    // SAFETY: only waits.
    unsafe { asm!("bar.warp.sync 0xffffffff;", options(nostack)) };
}

/// Makes a barrier that one arrival and the bytes it expects complete.
#[inline(always)]
fn init(barrier: u32) {
    // SAFETY: eight bytes of workgroup memory set aside for it.
    unsafe {
        asm!("mbarrier.init.shared.b64 [{}], 1;", "fence.proxy.async.shared::cta;",
            in(reg32) barrier, options(nostack));
    }
}

/// Arrives, and expects `bytes` to be copied.
#[inline(always)]
fn expect(barrier: u32, bytes: u32) {
    // SAFETY: an initialised barrier.
    unsafe {
        asm!("mbarrier.arrive.expect_tx.shared.b64 _, [{}], {};", in(reg32) barrier,
            in(reg32) bytes, options(nostack));
    }
}

/// Has the copy engine move `bytes` from global to workgroup memory and report to `barrier`.
///
/// # Safety
///
/// All three are multiples of 16, both sides are valid, and nobody uses the destination before the
/// barrier completes.
#[inline(always)]
unsafe fn copy(to: u32, from: *const u8, bytes: u32, barrier: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes",
            "[{}], [{}], {}, [{}];", in(reg32) to, in(reg64) from, in(reg32) bytes,
            in(reg32) barrier, options(nostack));
    }
}

/// Waits until the phase of parity `parity` of the barrier is complete.
#[inline(always)]
fn wait(barrier: u32, parity: u32) {
    loop {
        let done: u32;
        // SAFETY: an initialised barrier.
        unsafe {
            asm!("{{ .reg .pred p;", "mbarrier.try_wait.parity.shared.b64 p, [{1}], {2};",
                "selp.u32 {0}, 1, 0, p; }}", out(reg32) done, in(reg32) barrier,
                in(reg32) parity, options(nostack));
        }
        if done != 0 {
            return;
        }
    }
}
