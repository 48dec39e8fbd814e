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
const STEPS: u32 = RING_STEPS as u32;

/// The product of each wave's row tile of W, of which the workgroup has one per wave, `W` of them,
/// with up to 16 rows of X, through a ring of `STAGES`; `None` for the one wave more that fills it.
/// Collective over the workgroup.
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
) -> Option<Acc> {
    let tiles = [arch::wave_id(), 0];
    // SAFETY: the caller's promise.
    let acc = unsafe { Ring::<W, 1, W, STAGES>::product::<F, 1>(w, x, 1, steps, tiles) };
    acc.map(|[acc]| acc)
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
    const W: u32 = super::SKINNY64_TILES as u32;
    const WAVES: usize = SKINNY64_WAVES as usize;
    const XT: usize = 4 * W as usize / WAVES;
    let (w_tile, x_tile) = (arch::wave_id() % W, arch::wave_id() / W * XT as u32);
    let x_tiles = x_rows.div_ceil(ROWS as u32);
    // SAFETY: the caller's promise.
    let acc = unsafe {
        let tiles = [w_tile, x_tile];
        Ring::<{ W as usize }, 4, WAVES, STAGES>::product::<F, XT>(w, x, x_tiles, steps, tiles)
    };
    if let Some(acc) = acc {
        for tile in 0..XT {
            each(w_tile, x_tile + tile as u32, acc[tile]);
        }
    }
}

/// A workgroup of `WAVES` that multiply and one that fills their ring: `STAGES` of `W` row tiles of W
/// and `X` of X.
struct Ring<const W: usize, const X: usize, const WAVES: usize, const STAGES: usize>;

/// Operands of half a stage.
struct Taken<F: Format, const XT: usize> {
    w: [F::Raw; HALF],
    /// `[step][tile]`
    x: [[Operand; XT]; HALF],
}

impl<F: Format, const XT: usize> Taken<F, XT> {
    /// Adds the products of all steps.
    #[inline(always)]
    fn add(self, acc: &mut [Acc; XT]) {
        for step in 0..HALF {
            multiply::<F, XT>(&self.w[step], &self.x[step], acc);
        }
    }

    /// Adds the products of the first `count` steps.
    #[inline(always)]
    fn add_first(self, count: u32, acc: &mut [Acc; XT]) {
        for step in 0..HALF {
            if (step as u32) < count {
                multiply::<F, XT>(&self.w[step], &self.x[step], acc);
            }
        }
    }
}

impl<const W: usize, const X: usize, const WAVES: usize, const STAGES: usize>
    Ring<W, X, WAVES, STAGES>
{
    /// The products of the wave's tile `w_tile` of W with its `XT` tiles of X from `x_first` on, of
    /// which `x_tiles` exist; `None` for the last wave, which fills the ring. Collective over the
    /// workgroup.
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
        [w_tile, x_first]: [u32; 2],
    ) -> Option<[Acc; XT]> {
        let memory: *mut u8 = arch::workgroup_memory();
        if arch::thread_id() == 0 {
            for stage in 0..STAGES as u32 {
                Self::full::<F>(memory, stage).init(1);
                Self::empty::<F>(memory, stage).init(WAVES as u32);
            }
            barriers_made();
        }
        workgroup_barrier(); // nobody uses a barrier before it exists
        // SAFETY: the caller's promise.
        unsafe {
            if arch::wave_id() < WAVES as u32 {
                return Some(Self::multiply::<F, XT>(memory, steps, w_tile, x_first));
            }
            if arch::lane() == 0 {
                Self::fill::<F>(memory, w, x, x_tiles, steps);
            }
        }
        None
    }

    const fn stage_bytes<F: Format>() -> u32 {
        ring_stage_bytes(W, X, F::STEP_BYTES) as u32
    }

    /// Where the tiles of X begin in a stage.
    const fn x_at<F: Format>() -> u32 {
        (W * RING_STEPS * F::STEP_BYTES) as u32
    }

    /// Completes when stage `stage` is there.
    #[inline(always)]
    fn full<F: Format>(memory: *mut u8, stage: u32) -> Barrier {
        let barriers = STAGES * Self::stage_bytes::<F>() as usize;
        // SAFETY: two barriers for each stage lie behind the ring.
        unsafe { Barrier::at(memory.wrapping_add(barriers)) }.nth(stage % STAGES as u32)
    }

    /// Completes when every wave has taken stage `stage`.
    #[inline(always)]
    fn empty<F: Format>(memory: *mut u8, stage: u32) -> Barrier {
        Self::full::<F>(memory, stage).nth(STAGES as u32)
    }

    /// Asks for stage after stage, each as soon as its place is free. For one lane.
    ///
    /// # Safety
    ///
    /// As [`Self::product`].
    #[inline(always)]
    unsafe fn fill<F: Format>(
        memory: *mut u8,
        w: impl Fn(u32) -> *const u8,
        x: *const u8,
        x_tiles: u32,
        steps: u32,
    ) {
        let w: [*const u8; W] = core::array::from_fn(|i| w(i as u32));
        let ring = arch::workgroup_address(memory);
        let count = |stage: u32| (steps - stage * STEPS).min(STEPS);
        let at = |stage: u32| ring + stage % STAGES as u32 * Self::stage_bytes::<F>();
        let expect = |stage: u32| {
            let step_bytes = W as u32 * F::STEP_BYTES as u32 + x_tiles * BLOCK_BYTES as u32;
            Self::full::<F>(memory, stage).expect(count(stage) * step_bytes);
        };
        // SAFETY: steps of the stage, into its part of the ring, whose content every wave has taken.
        let copy_w = |stage: u32| unsafe {
            let bytes = F::STEP_BYTES as u32;
            for i in 0..W {
                let from = w[i].add((stage * STEPS * bytes) as usize);
                let to = at(stage) + i as u32 * STEPS * bytes;
                Self::full::<F>(memory, stage).copy_to(to, from, count(stage) * bytes);
            }
        };
        // SAFETY: as above.
        let copy_x = |stage: u32| unsafe {
            let bytes = BLOCK_BYTES as u32;
            for i in 0..X as u32 {
                if i < x_tiles {
                    let tile = x.add(i as usize * row_tile_bytes(steps));
                    let from = tile.add((stage * STEPS * bytes) as usize);
                    let to = at(stage) + Self::x_at::<F>() + i * STEPS * bytes;
                    Self::full::<F>(memory, stage).copy_to(to, from, count(stage) * bytes);
                }
            }
        };
        let stages = steps.div_ceil(STEPS);
        let ahead = stages.min(STAGES as u32);
        // Weights are nobody's output; X is that of an earlier launch. With several tiles of W in a
        // stage, though, asking for them all would keep the first X waiting longer than it helps.
        let early = if W == 1 { ahead } else { 1 };
        for stage in 0..early {
            expect(stage);
            copy_w(stage);
        }
        arch::wait_for_earlier();
        for stage in 0..ahead {
            if stage >= early {
                expect(stage);
                copy_w(stage);
            }
            copy_x(stage);
        }
        for stage in ahead..stages {
            Self::empty::<F>(memory, stage).wait(stage / STAGES as u32 - 1);
            expect(stage);
            copy_w(stage);
            copy_x(stage);
        }
    }

    /// Takes stage after stage and multiplies, half a stage behind. Collective over the wave.
    ///
    /// # Safety
    ///
    /// As [`Self::product`], while [`Self::fill`] fills the ring.
    #[inline(always)]
    unsafe fn multiply<F: Format, const XT: usize>(
        memory: *mut u8,
        steps: u32,
        w_tile: u32,
        x_first: u32,
    ) -> [Acc; XT] {
        let lane = arch::lane();
        let w_from = memory.wrapping_add((w_tile * STEPS) as usize * F::STEP_BYTES);
        let x_from = arch::workgroup_address(memory)
            + Self::x_at::<F>()
            + x_first * STEPS * BLOCK_BYTES as u32;
        let take = |stage: u32, half: usize| {
            let ring = stage % STAGES as u32 * Self::stage_bytes::<F>();
            // SAFETY: blocks of this stage.
            unsafe {
                let w_from = w_from.add(ring as usize + half * HALF * F::STEP_BYTES);
                let x_from = x_from + ring + (half * HALF * BLOCK_BYTES) as u32;
                let w = |step: usize| F::load(w_from.add(step * F::STEP_BYTES), lane);
                let x = |step: usize| -> [Operand; XT] {
                    core::array::from_fn(|tile| {
                        let block = (tile * RING_STEPS + step) * BLOCK_BYTES;
                        Operand::load_x(x_from + block as u32, lane)
                    })
                };
                Taken::<F, XT> { w: [w(0), w(1), w(2), w(3)], x: [x(0), x(1), x(2), x(3)] }
            }
        };
        let stages = steps.div_ceil(STEPS);
        let mut acc = [arch::ZERO; XT];
        Self::full::<F>(memory, 0).wait(0);
        let mut first = take(0, 0);
        let whole = steps / STEPS;
        for stage in 0..whole {
            let second = take(stage, 1);
            first.add(&mut acc);
            wave_barrier(); // all lanes have taken theirs
            if lane == 0 {
                Self::empty::<F>(memory, stage).arrive();
            }
            // The last stage is taken again: there is no other, and nothing to wait for.
            let next = (stage + 1).min(stages - 1);
            Self::full::<F>(memory, next).wait(next / STAGES as u32);
            first = take(next, 0);
            second.add(&mut acc);
        }
        if whole < stages {
            let second = take(whole, 1);
            let left = steps - whole * STEPS;
            first.add_first(left, &mut acc);
            second.add_first(left.saturating_sub(HALF as u32), &mut acc);
        }
        acc
    }
}
