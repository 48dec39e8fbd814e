//! Launchers of the mixture of experts.
//!
//! The list of tiles and the order of the slots are made on the device by `moe_sort` and never read
//! back, so the kernels that follow trust them: their launchers are `unsafe`.

use half::bf16;
use shared::block::{Family, ROWS, STEP, tiled_len};
use shared::kernels::moe::*;
use shared::launch::DevPtr;
use shared::pack;

use super::{Check, Kernels};
use crate::gpu::{DeviceSlice, GpuError, Stream};

/// How the experts' weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertFormat {
    /// MXFP4, as published.
    Mxfp4,
    /// bf16.
    Bf16,
}

impl ExpertFormat {
    /// Bytes of 16 rows by 32 k.
    pub const fn step_bytes(self) -> usize {
        match self {
            ExpertFormat::Mxfp4 => pack::MXFP4_STEP_BYTES,
            ExpertFormat::Bf16 => pack::BF16_STEP_BYTES,
        }
    }
}

/// Which of the kernels of one product: results are the same, bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertPath {
    /// Tiles of up to 16 slots: few tokens per expert.
    Skinny,
    /// Tiles of up to 64 slots, or 128 on NVIDIA.
    Tile,
}

impl ExpertPath {
    /// Slots of a tile.
    pub const fn slots(self, family: Family) -> u32 {
        match self {
            ExpertPath::Skinny => SKINNY_SLOTS,
            ExpertPath::Tile => tile_slots(family),
        }
    }

    /// Row tiles of W of a workgroup.
    const fn w_tiles(self) -> u32 {
        match self {
            ExpertPath::Skinny => SKINNY_WAVES,
            ExpertPath::Tile => TILE_W_TILES,
        }
    }
}

/// Sizes shared by the kernels of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routing {
    /// Tokens.
    pub rows: usize,
    /// Experts of the layer.
    pub experts: usize,
    /// Experts each token visits.
    pub top_k: usize,
}

impl Routing {
    /// Assignments: a token and one of its experts.
    pub const fn assignments(&self) -> usize {
        self.rows * self.top_k
    }

    /// Entries the list of tiles needs room for.
    pub const fn max_tiles(&self, path: ExpertPath, family: Family) -> usize {
        let slots = path.slots(family);
        max_tiles(self.rows as u32, self.top_k as u32, self.experts as u32, slots) as usize
    }

    /// Slots the buffers need room for, the empty ones between experts included.
    pub const fn max_slots(&self) -> usize {
        max_slots(self.rows as u32, self.top_k as u32, self.experts as u32) as usize
    }

    fn check(&self, check: &Check<'_>) -> Result<[u32; 3], GpuError> {
        let rows = check.positive("rows", self.rows)?;
        let experts = check.positive("experts", self.experts)?;
        let top_k = check.positive("top_k", self.top_k)?;
        if experts > MAX_EXPERTS {
            return Err(check.refuse(format!("experts = {experts}, at most {MAX_EXPERTS}")));
        }
        let most = MAX_TOP_K.min(experts);
        if top_k > most {
            return Err(check.refuse(format!("top_k = {top_k}, at most {most}")));
        }
        check.size("rows * top_k", self.assignments())?;
        Ok([rows, experts, top_k])
    }
}

/// What `moe_sort` makes.
#[derive(Clone, Copy)]
pub struct Sorted<'a> {
    /// `[max_slots]`: the assignment in each slot, or `EMPTY`.
    pub assignment_of: DeviceSlice<'a, u32>,
    /// `[assignments]`: the slot of each assignment.
    pub slot_of: DeviceSlice<'a, u32>,
    /// `[max_tiles, 3]`: expert, first slot, slots.
    pub tiles: DeviceSlice<'a, u32>,
    /// `[1]`
    pub num_tiles: DeviceSlice<'a, u32>,
}

/// One of the experts' weight matrices.
#[derive(Clone, Copy)]
pub struct ExpertWeights<'a> {
    /// Blocks, `[experts, n / 16, k / 32]`.
    pub w: DeviceSlice<'a, u8>,
    /// `[experts, n]`
    pub bias: DeviceSlice<'a, f32>,
    /// How `w` is stored.
    pub format: ExpertFormat,
    /// Outputs, a multiple of 16; for gate and up together, a multiple of 64.
    pub n: usize,
    /// Inputs, a multiple of 32.
    pub k: usize,
}

impl ExpertWeights<'_> {
    /// Address, bias, and steps.
    fn check(
        &self,
        check: &Check<'_>,
        experts: usize,
    ) -> Result<(DevPtr<u8>, DevPtr<f32>, u32), GpuError> {
        let steps = check.multiple("k", self.k, STEP)? / STEP as u32;
        let blocks = [experts, self.n / ROWS, steps as usize, self.format.step_bytes()];
        let w = check.aligned("w", self.w, &blocks, 16)?;
        Ok((w, check.view("bias", self.bias, &[experts, self.n])?, steps))
    }
}

impl Kernels {
    /// `ids, weights[rows, top_k] =` the experts of `logits[rows, experts]`, best first, the lowest
    /// index among equals, and the softmax of their logits.
    pub fn moe_route(
        &self,
        stream: &Stream,
        routing: Routing,
        logits: DeviceSlice<'_, f32>,
        ids: DeviceSlice<'_, u32>,
        weights: DeviceSlice<'_, f32>,
    ) -> Result<(), GpuError> {
        let check = Check::new(&moe_route::KERNEL, stream);
        let [rows, experts, top_k] = routing.check(&check)?;
        let args = moe_route::Args {
            logits: check.view("logits", logits, &[routing.rows, routing.experts])?,
            ids: check.view("ids", ids, &[routing.rows, routing.top_k])?,
            weights: check.view("weights", weights, &[routing.rows, routing.top_k])?,
            experts,
            top_k,
        };
        check.apart(("ids", ids), ("logits", logits))?;
        check.apart(("weights", weights), ("logits", logits))?;
        check.apart(("weights", weights), ("ids", ids))?;
        // SAFETY: lengths and overlap were checked, and there is one wave per row.
        unsafe { self.launch(stream, [rows, 1, 1], &args) }
    }

    /// Sorts the assignments of `ids[rows, top_k]` by expert, stably, and lists the tiles of
    /// `path`.
    ///
    /// # Safety
    ///
    /// Every id is below `routing.experts`, as `moe_route` writes them.
    pub unsafe fn moe_sort(
        &self,
        stream: &Stream,
        routing: Routing,
        path: ExpertPath,
        ids: DeviceSlice<'_, u32>,
        sorted: Sorted<'_>,
    ) -> Result<(), GpuError> {
        let check = Check::new(&moe_sort::KERNEL, stream);
        let [_, experts, _] = routing.check(&check)?;
        let assignments = routing.assignments();
        let slots = routing.max_slots();
        let tiles = [routing.max_tiles(path, self.family()), TILE_WORDS as usize];
        let args = moe_sort::Args {
            ids: check.view("ids", ids, &[assignments])?,
            assignment_of: check.view("assignment_of", sorted.assignment_of, &[slots])?,
            slot_of: check.view("slot_of", sorted.slot_of, &[assignments])?,
            tiles: check.view("tiles", sorted.tiles, &tiles)?,
            num_tiles: check.view("num_tiles", sorted.num_tiles, &[1])?,
            assignments: assignments as u32,
            experts,
            tile_slots: path.slots(self.family()),
            slots: check.size("slots", slots)?,
        };
        let outputs = [
            ("assignment_of", sorted.assignment_of),
            ("slot_of", sorted.slot_of),
            ("tiles", sorted.tiles),
            ("num_tiles", sorted.num_tiles),
        ];
        for output in outputs {
            check.apart(output, ("ids", ids))?;
        }
        // SAFETY: lengths and overlap were checked; ids are the caller's promise.
        unsafe { self.launch(stream, [experts, 1, 1], &args) }
    }

    /// `out[slots, k] =` the rows of `x[rows, k]` by slot, both bf16 in tiled layout; rows of empty
    /// slots stay as they are.
    ///
    /// # Safety
    ///
    /// `assignment_of` is what `moe_sort` made for this `routing`.
    pub unsafe fn moe_gather(
        &self,
        stream: &Stream,
        routing: Routing,
        k: usize,
        x: DeviceSlice<'_, bf16>,
        assignment_of: DeviceSlice<'_, u32>,
        out: DeviceSlice<'_, bf16>,
    ) -> Result<(), GpuError> {
        let check = Check::new(&moe_gather::KERNEL, stream);
        let [_, _, top_k] = routing.check(&check)?;
        let slots = routing.max_slots();
        let steps = check.multiple("k", k, STEP)? / STEP as u32;
        let x_ptr = check.aligned("x", x, &[tiled_len(routing.rows, k)], 16)?;
        let out_ptr = check.aligned("out", out, &[tiled_len(slots, k)], 16)?;
        let args = moe_gather::Args {
            x: DevPtr::new(x_ptr.address()),
            assignment_of: check.view("assignment_of", assignment_of, &[slots])?,
            out: DevPtr::new(out_ptr.address()),
            steps,
            top_k,
        };
        check.apart(("out", out), ("x", x))?;
        check.apart(("out", out), ("assignment_of", assignment_of))?;
        let slots = check.size("slots", slots)? / ROWS as u32;
        // SAFETY: lengths, alignment and overlap were checked, the grid covers steps and slots; the
        // assignments are the caller's promise.
        unsafe { self.launch(stream, [steps.div_ceil(GATHER_STEPS), slots, 1], &args) }
    }

    /// `act[slots, units] =` SwiGLU of the first product of each filled slot's row of `x[slots, k]`
    /// and expert, both bf16 in tiled layout. `weights.n` is `2 * units`: row tiles alternate 16
    /// gates, 16 ups.
    ///
    /// # Safety
    ///
    /// `sorted` is what `moe_sort` made for this `routing` and `path`.
    #[expect(clippy::too_many_arguments, reason = "each is a tensor or a shape of the product")]
    pub unsafe fn moe_gate_up(
        &self,
        stream: &Stream,
        routing: Routing,
        path: ExpertPath,
        weights: ExpertWeights<'_>,
        sorted: Sorted<'_>,
        x: DeviceSlice<'_, bf16>,
        act: DeviceSlice<'_, bf16>,
        limit: f32,
    ) -> Result<(), GpuError> {
        macro_rules! launch {
            ($kernel:ident) => {{
                let check = Check::new(&$kernel::KERNEL, stream);
                routing.check(&check)?;
                let units = check.multiple("rows of w", weights.n, 2 * STEP)? / 2;
                let (w, bias, steps) = weights.check(&check, routing.experts)?;
                let tiles = [routing.max_tiles(path, self.family()), TILE_WORDS as usize];
                let slots = routing.max_slots();
                let x_len = tiled_len(slots, weights.k);
                let act_len = tiled_len(slots, units as usize);
                let args = $kernel::Args {
                    w,
                    bias,
                    x: DevPtr::new(check.aligned("x", x, &[x_len], 16)?.address()),
                    tiles: check.view("tiles", sorted.tiles, &tiles)?,
                    num_tiles: check.view("num_tiles", sorted.num_tiles, &[1])?,
                    act: check.aligned("act", act, &[act_len], 16)?,
                    units,
                    steps,
                    limit,
                };
                check.apart(("act", act), ("x", x))?;
                check.apart(("act", act), ("w", weights.w))?;
                let groups = (2 * units / ROWS as u32).div_ceil(path.w_tiles());
                let grid = [groups, tiles[0] as u32, 1];
                // SAFETY: lengths, alignment and overlap were checked, the grid covers the row
                // tiles and every tile of slots; the lists are the caller's promise.
                unsafe { self.launch(stream, grid, &args) }
            }};
        }
        match (path, weights.format) {
            (ExpertPath::Skinny, ExpertFormat::Mxfp4) => launch!(moe_gate_up_skinny_mxfp4),
            (ExpertPath::Skinny, ExpertFormat::Bf16) => launch!(moe_gate_up_skinny_bf16),
            (ExpertPath::Tile, ExpertFormat::Mxfp4) => launch!(moe_gate_up_tile_mxfp4),
            (ExpertPath::Tile, ExpertFormat::Bf16) => launch!(moe_gate_up_tile_bf16),
        }
    }

    /// `y[slots, n] =` the second product of each filled slot's activation and expert, by slot.
    ///
    /// # Safety
    ///
    /// `sorted` is what `moe_sort` made for this `routing` and `path`.
    #[expect(clippy::too_many_arguments, reason = "each is a tensor or a shape of the product")]
    pub unsafe fn moe_down(
        &self,
        stream: &Stream,
        routing: Routing,
        path: ExpertPath,
        weights: ExpertWeights<'_>,
        sorted: Sorted<'_>,
        act: DeviceSlice<'_, bf16>,
        y: DeviceSlice<'_, f32>,
    ) -> Result<(), GpuError> {
        macro_rules! launch {
            ($kernel:ident) => {{
                let check = Check::new(&$kernel::KERNEL, stream);
                routing.check(&check)?;
                let n = check.multiple("n", weights.n, ROWS)?;
                let (w, bias, steps) = weights.check(&check, routing.experts)?;
                let tiles = [routing.max_tiles(path, self.family()), TILE_WORDS as usize];
                let act_len = tiled_len(routing.max_slots(), weights.k);
                let args = $kernel::Args {
                    w,
                    bias,
                    act: DevPtr::new(check.aligned("act", act, &[act_len], 16)?.address()),
                    tiles: check.view("tiles", sorted.tiles, &tiles)?,
                    num_tiles: check.view("num_tiles", sorted.num_tiles, &[1])?,
                    y: check.view("y", y, &[routing.max_slots(), weights.n])?,
                    n,
                    steps,
                };
                check.apart(("y", y), ("act", act))?;
                check.apart(("y", y), ("w", weights.w))?;
                let groups = (n / ROWS as u32).div_ceil(path.w_tiles());
                let grid = [groups, tiles[0] as u32, 1];
                // SAFETY: lengths, alignment and overlap were checked, the grid covers the row
                // tiles and every tile of slots; the lists are the caller's promise.
                unsafe { self.launch(stream, grid, &args) }
            }};
        }
        match (path, weights.format) {
            (ExpertPath::Skinny, ExpertFormat::Mxfp4) => launch!(moe_down_skinny_mxfp4),
            (ExpertPath::Skinny, ExpertFormat::Bf16) => launch!(moe_down_skinny_bf16),
            (ExpertPath::Tile, ExpertFormat::Mxfp4) => launch!(moe_down_tile_mxfp4),
            (ExpertPath::Tile, ExpertFormat::Bf16) => launch!(moe_down_tile_bf16),
        }
    }

    /// `out[rows, n] += sum over rank of weights[rows, top_k] * y[slot]`, ranks ascending.
    ///
    /// # Safety
    ///
    /// `slot_of` is what `moe_sort` made for this `routing`.
    #[expect(clippy::too_many_arguments, reason = "each is a tensor or a shape of the sum")]
    pub unsafe fn moe_combine(
        &self,
        stream: &Stream,
        routing: Routing,
        y: DeviceSlice<'_, f32>,
        slot_of: DeviceSlice<'_, u32>,
        weights: DeviceSlice<'_, f32>,
        out: DeviceSlice<'_, f32>,
        n: usize,
    ) -> Result<(), GpuError> {
        let check = Check::new(&moe_combine::KERNEL, stream);
        let [rows, _, top_k] = routing.check(&check)?;
        let args = moe_combine::Args {
            y: check.view("y", y, &[routing.max_slots(), n])?,
            slot_of: check.view("slot_of", slot_of, &[routing.assignments()])?,
            weights: check.view("weights", weights, &[routing.assignments()])?,
            out: check.view("out", out, &[routing.rows, n])?,
            n: check.positive("n", n)?,
            top_k,
        };
        check.apart(("out", out), ("y", y))?;
        check.apart(("out", out), ("weights", weights))?;
        check.apart(("out", out), ("slot_of", slot_of))?;
        let grid = [args.n.div_ceil(COMBINE_ELEMENTS), rows, 1];
        // SAFETY: lengths and overlap were checked, the grid covers every element; the slots are
        // the caller's promise.
        unsafe { self.launch(stream, grid, &args) }
    }
}
