//! Few tokens on Hopper: W and X through workgroup memory, a ring of stages ahead of their use.
//!
//! A row tile is one contiguous stream whatever its format, so one lane asks for a stage of it with
//! a single `cp.async.bulk`, and the whole ring is on its way without a register. Half a stage is
//! taken into registers while the half before is multiplied: what limits a wave is then the chain
//! of its products, and what limits many waves is memory.

use shared::block::{BLOCK_BYTES, ROWS};
use shared::kernels::linear::{RING_STEPS, SKINNY64_WAVES, ring_stage_bytes};

use super::multiply;
use crate::arch::hopper::{Barrier, barriers_made, wave_barrier};
use crate::arch::{self, workgroup_barrier};
use crate::tile::{Acc, Operand, row_tile_bytes};
use crate::weights::Format;

/// Steps taken into registers together. They are written out, because the compiler leaves long loops
/// over them as they are, and their operands in memory.
const HALF: usize = 4;
const _: () = assert!(2 * HALF == RING_STEPS);

/// The product of each wave's row tile of W, of which the workgroup has one per wave, `W` of them,
/// with up to 16 rows of X, through a ring of `STAGES`. Collective over the workgroup.
///
/// # Safety
///
/// The launch has the workgroup memory of `shared::kernels::linear::ring_lds` for these tiles, one
/// of X, and these stages. `w(i)` is the first block of the workgroup's row tile `i` in format `F`,
/// `x` that of a row tile of X; all have `steps >= 1` steps and are not written during the launch.
#[inline(always)]
pub unsafe fn skinny<F: Format, const W: usize, const STAGES: usize>(
    w: impl Fn(u32) -> *const u8,
    x: *const u8,
    _x_rows: u32,
    steps: u32,
) -> Acc {
    let wave = arch::wave_id() as usize;
    // SAFETY: the caller's promise.
    let [acc] = unsafe { Ring::<W, 1, W, STAGES>::product::<F, 1>(w, x, 1, steps, [wave, 0]) };
    acc
}

/// The products of the workgroup's row tiles of W with up to 64 rows of X. `each` gets the wave's
/// results: the numbers of the tiles of W and X, and the result. Collective over the workgroup.
///
/// # Safety
///
/// As [`skinny`], with as many tiles of X as `x_rows` need.
#[inline(always)]
pub unsafe fn skinny64<F: Format, const STAGES: usize>(
    w: impl Fn(u32) -> *const u8,
    x: *const u8,
    x_rows: u32,
    steps: u32,
    mut each: impl FnMut(u32, u32, Acc),
) {
    const W: usize = super::SKINNY64_TILES;
    const WAVES: usize = SKINNY64_WAVES as usize;
    const XT: usize = 4 * W / WAVES;
    let wave = arch::wave_id() as usize;
    let (w_tile, x_tile) = (wave % W, wave / W * XT);
    let x_tiles = x_rows.div_ceil(ROWS as u32);
    // SAFETY: the caller's promise.
    let acc = unsafe {
        Ring::<W, 4, WAVES, STAGES>::product::<F, XT>(w, x, x_tiles, steps, [w_tile, x_tile])
    };
    for tile in 0..XT {
        each(w_tile as u32, (x_tile + tile) as u32, acc[tile]);
    }
}

/// A workgroup of `WAVES` and its ring: `STAGES` of `W` row tiles of W and `X` of X.
struct Ring<const W: usize, const X: usize, const WAVES: usize, const STAGES: usize>;

/// A row tile of W or X that a wave asks for.
#[derive(Clone, Copy)]
struct Stream {
    from: *const u8,
    /// Where its part of a stage begins.
    to: u32,
    /// 0: there is no such tile.
    step_bytes: u32,
}

impl Stream {
    /// Asks for `count` steps of stage `stage`, into the stage at `ring`.
    ///
    /// # Safety
    ///
    /// The tile has them, and nobody uses that part of the ring before `full` completes.
    #[inline(always)]
    unsafe fn copy(self, stage: u32, count: u32, ring: *mut u8, full: Barrier) {
        if self.step_bytes != 0 {
            // SAFETY: the caller's promise.
            unsafe {
                let from = self.from.add((stage * RING_STEPS as u32 * self.step_bytes) as usize);
                full.copy(ring.add(self.to as usize), from, count * self.step_bytes);
            }
        }
    }
}

/// Operands of half a stage.
struct Taken<F: Format, const XT: usize> {
    w: [F::Raw; HALF],
    /// `[step][tile]`
    x: [[Operand; XT]; HALF],
}

impl<F: Format, const XT: usize> Taken<F, XT> {
    /// Adds the products of all steps.
    #[inline(always)]
    fn add(self, acc: &mut [[Acc; XT]; 1]) {
        for step in 0..HALF {
            multiply::<F, 1, XT>(&[self.w[step]], &self.x[step], acc);
        }
    }

    /// Adds the products of the first `count` steps.
    #[inline(always)]
    fn add_first(self, count: u32, acc: &mut [[Acc; XT]; 1]) {
        for step in 0..HALF {
            if (step as u32) < count {
                multiply::<F, 1, XT>(&[self.w[step]], &self.x[step], acc);
            }
        }
    }
}

impl<const W: usize, const X: usize, const WAVES: usize, const STAGES: usize>
    Ring<W, X, WAVES, STAGES>
{
    /// The products of the wave's tile `w_tile` of W with its `XT` tiles of X from `x_first` on, of
    /// which `x_tiles` exist. Collective over the workgroup.
    ///
    /// # Safety
    ///
    /// As [`skinny`], with `x_tiles` tiles of X, one behind the other.
    #[inline(always)]
    unsafe fn product<F: Format, const XT: usize>(
        w: impl Fn(u32) -> *const u8,
        x: *const u8,
        x_tiles: u32,
        steps: u32,
        [w_tile, x_first]: [usize; 2],
    ) -> [Acc; XT] {
        const { assert!(W + X <= 2 * WAVES && STAGES.is_power_of_two()) };
        const STEPS: u32 = RING_STEPS as u32;
        let wave = if WAVES == 1 { 0 } else { arch::wave_id() };
        let lane = arch::lane();
        let stages = steps.div_ceil(STEPS);
        let stage_bytes = ring_stage_bytes(W, X, F::STEP_BYTES) as u32;
        let w_bytes = W * RING_STEPS * F::STEP_BYTES;
        let memory: *mut u8 = arch::workgroup_memory();
        // SAFETY: one of the ring's stages; behind them two barriers for each.
        let ring =
            |stage: u32| unsafe { memory.add((stage % STAGES as u32 * stage_bytes) as usize) };
        let barrier = |stage: u32, i: u32| {
            let at = STAGES as u32 * stage_bytes + (stage % STAGES as u32 * 2 + i) * 8;
            // SAFETY: as above.
            unsafe { Barrier::at(memory.add(at as usize)) }
        };
        let full = |stage: u32| barrier(stage, 0);
        let empty = |stage: u32| barrier(stage, 1);
        if arch::thread_id() == 0 {
            for stage in 0..STAGES as u32 {
                full(stage).init(WAVES as u32);
                empty(stage).init(WAVES as u32);
            }
            barriers_made();
        }
        workgroup_barrier(); // nobody uses a barrier before it exists

        // Streams are the tiles of W, then of X; each wave asks for two of them at most.
        let stream = |i: u32| {
            if i < W as u32 {
                let step_bytes = F::STEP_BYTES as u32;
                return Stream { from: w(i), to: i * STEPS * step_bytes, step_bytes };
            }
            let tile = i - W as u32;
            let step_bytes = if tile < x_tiles { BLOCK_BYTES as u32 } else { 0 };
            Stream {
                // Not used past the last tile.
                from: x.wrapping_add(tile as usize * row_tile_bytes(steps)),
                to: w_bytes as u32 + tile * STEPS * BLOCK_BYTES as u32,
                step_bytes,
            }
        };
        let streams = [stream(wave), stream(wave + WAVES as u32)];
        // Tiles of W only, of X only, or both.
        let copy = |stage: u32, w: bool, x: bool| {
            let count = (steps - stage * STEPS).min(STEPS);
            for (i, stream) in [(wave, streams[0]), (wave + WAVES as u32, streams[1])] {
                if if i < W as u32 { w } else { x } {
                    // SAFETY: steps of the stage; every wave has taken what was there.
                    unsafe { stream.copy(stage, count, ring(stage), full(stage)) };
                }
            }
        };
        let expect = |stage: u32| {
            let count = (steps - stage * STEPS).min(STEPS);
            full(stage).expect(count * (streams[0].step_bytes + streams[1].step_bytes));
        };
        let refill = |stage: u32| {
            if lane == 0 && stage < stages {
                if WAVES > 1 {
                    empty(stage).wait(stage / STAGES as u32 - 1);
                }
                expect(stage);
                copy(stage, true, true);
            }
        };
        let take = |stage: u32, half: usize| {
            // SAFETY: blocks of this stage.
            unsafe {
                let from = ring(stage);
                let w_from = from.add((w_tile * RING_STEPS + half * HALF) * F::STEP_BYTES);
                let x_from = from.add(w_bytes + (x_first * RING_STEPS + half * HALF) * BLOCK_BYTES);
                let w = |step: usize| F::load(w_from.add(step * F::STEP_BYTES), lane);
                let x = |step: usize| -> [Operand; XT] {
                    core::array::from_fn(|tile| {
                        let block = (tile * RING_STEPS + step) * BLOCK_BYTES;
                        Operand::load_x(x_from.add(block), lane)
                    })
                };
                Taken::<F, XT> { w: [w(0), w(1), w(2), w(3)], x: [x(0), x(1), x(2), x(3)] }
            }
        };

        let ahead = stages.min(STAGES as u32);
        if lane == 0 {
            for stage in 0..ahead {
                expect(stage);
                copy(stage, true, false);
            }
        }
        // Weights are nobody's output; X is that of an earlier launch.
        arch::wait_for_earlier();
        if lane == 0 {
            for stage in 0..ahead {
                copy(stage, false, true);
            }
        }
        let mut acc = [[arch::ZERO; XT]];
        full(0).wait(0);
        let mut first = take(0, 0);
        let whole = steps / STEPS;
        for stage in 0..whole {
            let second = take(stage, 1);
            first.add(&mut acc);
            wave_barrier(); // all lanes have taken theirs
            if lane == 0 && WAVES > 1 {
                empty(stage).arrive();
            }
            if stage > 0 {
                refill(stage - 1 + STAGES as u32);
            }
            // The last stage is taken again: there is no other, and nothing to wait for.
            let next = (stage + 1).min(stages - 1);
            full(next).wait(next / STAGES as u32);
            first = take(next, 0);
            second.add(&mut acc);
        }
        if whole < stages {
            let second = take(whole, 1);
            let left = steps - whole * STEPS;
            first.add_first(left, &mut acc);
            second.add_first(left.saturating_sub(HALF as u32), &mut acc);
        }
        let [acc] = acc;
        acc
    }
}
