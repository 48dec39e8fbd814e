//! The experts' two products, grouped: one launch serves every expert's tokens.
//!
//! First: `u = W1 x + b1`, then SwiGLU: `g = min(gate, limit)`, `l = clamp(up, -limit, limit)`,
//! `act = (l + 1) * g * sigmoid(1.702 g)`, rounded to bf16. Row tiles of W1 alternate between 16
//! gates and their 16 ups, so a lane holds both of a unit in the same accumulator element.
//! Second: `y = W2 act + b2` in f32.

use shared::block::{ROWS, STEP, tiled_index};
use shared::kernels::moe::*;

use crate::arch::{self, exp2, pack_bf16, rcp};
use crate::product::{skinny, tile_product, tiled_row};
use crate::tile::{ACC, Acc, FAMILY, acc_index};
use crate::weights::{Bf16, Format, Mxfp4};
use shared::block::Family;

/// How far loads of the skinny products run ahead: stages of the ring on Hopper; elsewhere steps,
/// as many as registers allow, because bytes on their way are what hides memory latency.
const AHEAD: usize = match FAMILY {
    Family::Gfx9 => 8,
    Family::Gfx11 | Family::Gfx12 => 4,
    Family::Nvptx => MOE_RING_STAGES,
};

/// Some slots of one expert.
struct Slots {
    expert: usize,
    first: u32,
    count: u32,
}

impl Slots {
    /// The tile this workgroup works on, if there is one.
    ///
    /// # Safety
    ///
    /// `num_tiles` holds the number of entries of `tiles`, which has room for the grid's.
    #[inline(always)]
    unsafe fn of_workgroup(tiles: *const u32, num_tiles: *const u32) -> Option<Self> {
        let tile = arch::workgroup_id_y();
        // SAFETY: the caller's promise; entries are three words, and there is room for one per
        // workgroup, so that all can be asked for at once.
        let (count, entry) = unsafe {
            let entry = tiles.add((tile * TILE_WORDS) as usize);
            (*num_tiles, [*entry, *entry.add(1), *entry.add(2)])
        };
        let [expert, first, slots] = entry;
        (tile < count).then_some(Self { expert: expert as usize, first, count: slots })
    }

    /// The slot of tile row `row`; rows past the last repeat it, and are not stored.
    #[inline(always)]
    fn slot(&self, row: u32) -> u32 {
        self.first + row.min(self.count - 1)
    }
}

/// Arguments of the first product.
#[derive(Clone, Copy)]
struct GateUp {
    w: *const u8,
    bias: *const f32,
    x: *const u8,
    act: *mut u16,
    units: u32,
    steps: u32,
    limit: f32,
}

impl GateUp {
    /// Row tiles of W1 of one expert.
    #[inline(always)]
    fn w_tiles(self) -> u32 {
        2 * self.units / ROWS as u32
    }

    /// First block of row tile `tile` of expert `expert`.
    ///
    /// # Safety
    ///
    /// Both exist.
    #[inline(always)]
    unsafe fn w_tile<F: Format>(self, expert: usize, tile: u32) -> *const u8 {
        let tile = expert * self.w_tiles() as usize + tile as usize;
        // SAFETY: the caller's promise.
        unsafe { self.w.add(tile * self.steps as usize * F::STEP_BYTES) }
    }

    /// The biases of row tile `tile` of expert `expert`, for the elements of a tile's result.
    ///
    /// # Safety
    ///
    /// Both exist.
    #[inline(always)]
    unsafe fn biases(self, expert: usize, tile: u32, lane: u32) -> Acc {
        let at = expert * 2 * self.units as usize + tile as usize * ROWS;
        // SAFETY: the caller's promise.
        unsafe { biases(self.bias.add(at), lane) }
    }

    /// SwiGLU of one pair of tiles, stored for the slots from tile row `row0` on.
    ///
    /// # Safety
    ///
    /// `pair` is the number of a gate tile and its up tile.
    #[inline(always)]
    unsafe fn store(self, slots: &Slots, gate: Acc, up: Acc, pair: u32, row0: u32, lane: u32) {
        for i in 0..ACC {
            let (w, x) = acc_index(lane, i);
            let row = row0 + x;
            if row < slots.count {
                let unit = pair * ROWS as u32 + w;
                let steps = self.units as usize / STEP;
                let at = tiled_index((slots.first + row) as usize, unit as usize, steps);
                let value = pack_bf16(swiglu(gate[i], up[i], self.limit), 0.0) as u16;
                // SAFETY: unit < units and the slot is filled.
                unsafe { *self.act.add(at) = value };
            }
        }
    }
}

/// 16 biases from `bias` on, for the elements of a tile's result.
///
/// # Safety
///
/// They are readable.
#[inline(always)]
unsafe fn biases(bias: *const f32, lane: u32) -> Acc {
    let mut biases = arch::ZERO;
    for i in 0..ACC {
        // SAFETY: the caller's promise.
        biases[i] = unsafe { *bias.add(acc_index(lane, i).0 as usize) };
    }
    biases
}

/// `acc + biases`.
#[inline(always)]
fn add(mut acc: Acc, biases: Acc) -> Acc {
    for i in 0..ACC {
        acc[i] += biases[i];
    }
    acc
}

/// `(clamp(up) + 1) * gate * sigmoid(1.702 * gate)`, the gate clamped from above only. By
/// comparisons, not by `min` and `max`, which lose a NaN.
#[inline(always)]
fn swiglu(gate: f32, up: f32, limit: f32) -> f32 {
    const SLOPE: f32 = -1.702 * core::f32::consts::LOG2_E;
    let gate = if gate > limit { limit } else { gate };
    let up = if up > limit { limit } else { up };
    let up = if up < -limit { -limit } else { up };
    (up + 1.0) * (gate * rcp(1.0 + exp2(SLOPE * gate)))
}

#[inline(always)]
unsafe fn gate_up_skinny<F: Format>(args: GateUp, slots: Slots) {
    const WAVES: usize = SKINNY_WAVES as usize;
    let (wave, lane) = (arch::wave_id(), arch::lane());
    let w0 = arch::workgroup_id_x() * SKINNY_WAVES;
    let last = args.w_tiles() - 1;
    // SAFETY: tiles past the last repeat it and are not stored; the slots are filled.
    unsafe {
        let biases = args.biases(slots.expert, (w0 + wave).min(last), lane);
        let acc = skinny::<F, WAVES, AHEAD>(
            |i| args.w_tile::<F>(slots.expert, (w0 + i).min(last)),
            tiled_row(args.x, slots.first, args.steps),
            slots.count,
            args.steps,
        );
        let acc = acc.map(|acc| add(acc, biases));
        // The wave of the ups hands them to that of their gates, before it.
        let memory: *mut f32 = arch::workgroup_memory();
        let pair = memory.add(wave as usize / 2 * ACC * arch::WAVE as usize + lane as usize);
        arch::workgroup_barrier(); // nobody reads the operands that were there
        if let (1, Some(up)) = (wave % 2, acc) {
            for i in 0..ACC {
                *pair.add(i * arch::WAVE as usize) = up[i];
            }
        }
        arch::workgroup_barrier(); // the ups are there
        let w_tile = w0 + wave;
        if let (0, Some(gate), true) = (wave % 2, acc, w_tile < last) {
            let mut up = arch::ZERO;
            for i in 0..ACC {
                up[i] = *pair.add(i * arch::WAVE as usize);
            }
            args.store(&slots, gate, up, w_tile / 2, 0, lane);
        }
    }
}

#[inline(always)]
unsafe fn gate_up_tile<F: Format>(args: GateUp, slots: Slots) {
    let w0 = arch::workgroup_id_x() * TILE_W_TILES;
    let last = args.w_tiles() - 1;
    let lane = arch::lane();
    // SAFETY: tiles past the last repeat it and are not stored; the slots are filled.
    unsafe {
        tile_product::<F>(
            |i| args.w_tile::<F>(slots.expert, (w0 + i).min(last)),
            |r| tiled_row(args.x, slots.slot(r), args.steps),
            args.steps,
            |w_tile, x_tile, [gate, up]| {
                let w_tile = w0 + w_tile;
                if w_tile < last {
                    let gate = add(gate, args.biases(slots.expert, w_tile, lane));
                    let up = add(up, args.biases(slots.expert, w_tile + 1, lane));
                    args.store(&slots, gate, up, w_tile / 2, x_tile * ROWS as u32, lane);
                }
            },
        );
    }
}

/// Arguments of the second product.
#[derive(Clone, Copy)]
struct Down {
    w: *const u8,
    bias: *const f32,
    act: *const u8,
    y: *mut f32,
    n: u32,
    steps: u32,
}

impl Down {
    /// First block of row tile `tile` of expert `expert`.
    ///
    /// # Safety
    ///
    /// Both exist.
    #[inline(always)]
    unsafe fn w_tile<F: Format>(self, expert: usize, tile: u32) -> *const u8 {
        let tile = expert * (self.n as usize / ROWS) + tile as usize;
        // SAFETY: the caller's promise.
        unsafe { self.w.add(tile * self.steps as usize * F::STEP_BYTES) }
    }

    /// The biases of row tile `tile` of expert `expert`, for the elements of a tile's result.
    ///
    /// # Safety
    ///
    /// Both exist.
    #[inline(always)]
    unsafe fn biases(self, expert: usize, tile: u32, lane: u32) -> Acc {
        let at = expert * self.n as usize + tile as usize * ROWS;
        // SAFETY: the caller's promise.
        unsafe { biases(self.bias.add(at), lane) }
    }

    /// Stores one tile for the slots from tile row `row0` on.
    ///
    /// # Safety
    ///
    /// Row tile `w_tile` exists.
    #[inline(always)]
    unsafe fn store(self, slots: &Slots, acc: Acc, w_tile: u32, row0: u32, lane: u32) {
        for i in 0..ACC {
            let (w, x) = acc_index(lane, i);
            let row = row0 + x;
            if row < slots.count {
                let at = (w_tile * ROWS as u32 + w) as usize;
                let at = (slots.first + row) as usize * self.n as usize + at;
                // SAFETY: the tile exists and the slot is filled.
                unsafe { *self.y.add(at) = acc[i] };
            }
        }
    }
}

#[inline(always)]
unsafe fn down_skinny<F: Format>(args: Down, slots: Slots) {
    const WAVES: usize = SKINNY_WAVES as usize;
    let w0 = arch::workgroup_id_x() * SKINNY_WAVES;
    let last = args.n / ROWS as u32 - 1;
    let (w_tile, lane) = (w0 + arch::wave_id(), arch::lane());
    // SAFETY: tiles past the last repeat it and are not stored; the slots are filled.
    unsafe {
        let biases = args.biases(slots.expert, w_tile.min(last), lane);
        let acc = skinny::<F, WAVES, AHEAD>(
            |i| args.w_tile::<F>(slots.expert, (w0 + i).min(last)),
            tiled_row(args.act, slots.first, args.steps),
            slots.count,
            args.steps,
        );
        if let (Some(acc), true) = (acc, w_tile <= last) {
            args.store(&slots, add(acc, biases), w_tile, 0, lane);
        }
    }
}

#[inline(always)]
unsafe fn down_tile<F: Format>(args: Down, slots: Slots) {
    let w0 = arch::workgroup_id_x() * TILE_W_TILES;
    let tiles = args.n / ROWS as u32;
    let lane = arch::lane();
    // SAFETY: tiles past the last repeat it and are not stored; the slots are filled.
    unsafe {
        tile_product::<F>(
            |i| args.w_tile::<F>(slots.expert, (w0 + i).min(tiles - 1)),
            |r| tiled_row(args.act, slots.slot(r), args.steps),
            args.steps,
            |w_tile, x_tile, results| {
                for i in 0..2 {
                    let w_tile = w0 + w_tile + i as u32;
                    if w_tile < tiles {
                        let acc = add(results[i], args.biases(slots.expert, w_tile, lane));
                        args.store(&slots, acc, w_tile, x_tile * ROWS as u32, lane);
                    }
                }
            },
        );
    }
}

macro_rules! kernels {
    ($($gate_up:ident = $gate_up_body:path, $down:ident = $down_body:path;)*) => {$(
        const _: $gate_up::Signature = $gate_up;
        const _: $down::Signature = $down;

        #[doc = concat!("`", stringify!($gate_up), "` of the table.")]
        ///
        /// # Safety
        ///
        /// The launch contract of the table: `tiles` lists filled slots of existing experts; `units` is a multiple of 32, `steps >= 1`.
        #[unsafe(no_mangle)]
        pub unsafe extern "gpu-kernel" fn $gate_up(
            w: *const u8,
            bias: *const f32,
            x: *const u8,
            tiles: *const u32,
            num_tiles: *const u32,
            act: *mut u16,
            units: u32,
            steps: u32,
            limit: f32,
        ) {
            let args = GateUp { w, bias, x, act, units, steps, limit };
            arch::wait_for_earlier();
            // SAFETY: the kernel's contract.
            unsafe {
                if let Some(slots) = Slots::of_workgroup(tiles, num_tiles) {
                    $gate_up_body(args, slots);
                }
            }
        }

        #[doc = concat!("`", stringify!($down), "` of the table.")]
        ///
        /// # Safety
        ///
        /// The launch contract of the table: `tiles` lists filled slots of existing experts; `n`
        /// is a multiple of 16, `steps >= 1`.
        #[unsafe(no_mangle)]
        pub unsafe extern "gpu-kernel" fn $down(
            w: *const u8,
            bias: *const f32,
            act: *const u8,
            tiles: *const u32,
            num_tiles: *const u32,
            y: *mut f32,
            n: u32,
            steps: u32,
        ) {
            let args = Down { w, bias, act, y, n, steps };
            arch::wait_for_earlier();
            // SAFETY: the kernel's contract.
            unsafe {
                if let Some(slots) = Slots::of_workgroup(tiles, num_tiles) {
                    $down_body(args, slots);
                }
            }
        }
    )*};
}

kernels! {
    moe_gate_up_skinny_mxfp4 = gate_up_skinny::<Mxfp4>, moe_down_skinny_mxfp4 = down_skinny::<Mxfp4>;
    moe_gate_up_skinny_bf16 = gate_up_skinny::<Bf16>, moe_down_skinny_bf16 = down_skinny::<Bf16>;
    moe_gate_up_tile_mxfp4 = gate_up_tile::<Mxfp4>, moe_down_tile_mxfp4 = down_tile::<Mxfp4>;
    moe_gate_up_tile_bf16 = gate_up_tile::<Bf16>, moe_down_tile_bf16 = down_tile::<Bf16>;
}
