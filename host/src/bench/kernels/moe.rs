//! The mixture of experts.

use half::bf16;
use shared::block::tiled_len;

use super::{Bench, words};
use crate::gpu::launch::moe::{ExpertFormat, ExpertPath, ExpertWeights, Routing, Sorted};
use crate::gpu::{DeviceBuffer, GpuError, Kernels, Stream};

/// Routings to rotate over: with one token each, together they visit every expert of gpt-oss-20b.
const ROUTINGS: usize = 8;

/// One choice of experts, sorted on the device.
struct Chosen {
    ids: DeviceBuffer<u32>,
    assignment_of: DeviceBuffer<u32>,
    slot_of: DeviceBuffer<u32>,
    tiles: DeviceBuffer<u32>,
    num_tiles: DeviceBuffer<u32>,
    /// Experts that have tokens.
    active: usize,
}

impl Chosen {
    fn new(
        bench: &Bench<'_>,
        routing: Routing,
        path: ExpertPath,
        set: usize,
    ) -> Result<Chosen, GpuError> {
        let ids = ids(routing, set);
        let mut distinct = ids.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let device = bench.device();
        let tiles = 3 * routing.max_tiles(path, bench.kernels.family());
        let chosen = Chosen {
            assignment_of: DeviceBuffer::new(device, routing.max_slots())?,
            slot_of: DeviceBuffer::new(device, ids.len())?,
            tiles: DeviceBuffer::new(device, tiles)?,
            num_tiles: DeviceBuffer::new(device, 1)?,
            active: distinct.len(),
            ids: bench.stream.buffer_from(&ids)?,
        };
        chosen.sort(bench.kernels, bench.stream, routing, path)?;
        Ok(chosen)
    }

    fn sort(
        &self,
        kernels: &Kernels,
        stream: &Stream,
        routing: Routing,
        path: ExpertPath,
    ) -> Result<(), GpuError> {
        // SAFETY: `ids` gives experts that exist.
        unsafe { kernels.moe_sort(stream, routing, path, self.ids.view(), self.sorted()) }
    }

    fn sorted(&self) -> Sorted<'_> {
        Sorted {
            assignment_of: self.assignment_of.view(),
            slot_of: self.slot_of.view(),
            tiles: self.tiles.view(),
            num_tiles: self.num_tiles.view(),
        }
    }
}

/// Different experts for each token, at random; a single token gets the next ones in each set.
fn ids(Routing { rows, experts, top_k }: Routing, set: usize) -> Vec<u32> {
    if rows == 1 {
        return (0..top_k).map(|rank| ((set * top_k + rank) % experts) as u32).collect();
    }
    let random: Vec<u32> = words(rows * top_k, 100 + set as u32).collect();
    let mut ids = Vec::new();
    for random in random.chunks(top_k) {
        let mut left: Vec<u32> = (0..experts as u32).collect();
        ids.extend(random.iter().map(|&r| left.swap_remove(r as usize % left.len())));
    }
    ids
}

/// The two matrices of all experts.
struct Weights {
    gate_up: DeviceBuffer<u8>,
    down: DeviceBuffer<u8>,
    gate_up_bias: DeviceBuffer<f32>,
    down_bias: DeviceBuffer<f32>,
}

pub fn measure(bench: &mut Bench<'_>) -> Result<(), GpuError> {
    const FORMAT: ExpertFormat = ExpertFormat::Mxfp4;
    const NAMES: &str = "moe_route moe_sort moe_gather moe_combine moe_gate_up_skinny_mxfp4 \
                         moe_gate_up_tile_mxfp4 moe_down_skinny_mxfp4 moe_down_tile_mxfp4";
    if !bench.wants(NAMES) {
        return Ok(());
    }
    let (experts, units, hidden) = (bench.sizes.experts, bench.sizes.units, bench.sizes.hidden);
    let bytes = |n: usize, k: usize| experts * n / 16 * (k / 32) * FORMAT.step_bytes();
    let weights = Weights {
        gate_up: bench.blocks(FORMAT.step_bytes(), true, bytes(2 * units, hidden))?,
        down: bench.blocks(FORMAT.step_bytes(), true, bytes(hidden, units))?,
        gate_up_bias: bench.f32(experts * 2 * units)?,
        down_bias: bench.f32(experts * hidden)?,
    };
    let most = bench.sizes.decode.iter().max().copied();
    for rows in bench.sizes.all_rows().collect::<Vec<_>>() {
        let path = if Some(rows) > most { ExpertPath::Tile } else { ExpertPath::Skinny };
        let routing = Routing { rows, experts, top_k: bench.sizes.top_k };
        let chosen = (0..ROUTINGS)
            .map(|set| Chosen::new(bench, routing, path, set))
            .collect::<Result<Vec<_>, _>>()?;
        around(bench, routing, path, &chosen)?;
        products(bench, routing, path, &chosen, &weights)?;
    }
    Ok(())
}

/// What happens before and after the products.
fn around(
    bench: &mut Bench<'_>,
    routing: Routing,
    path: ExpertPath,
    chosen: &[Chosen],
) -> Result<(), GpuError> {
    let Routing { rows, experts, top_k } = routing;
    let (n, assignments, slots) = (bench.sizes.hidden, routing.assignments(), routing.max_slots());
    let (stream, kernels) = (bench.stream, bench.kernels);
    let shape = format!("{rows}, {top_k} of {experts}");

    let logits = bench.f32(rows * experts)?;
    let ids = DeviceBuffer::<u32>::new(bench.device(), assignments)?;
    let weights = DeviceBuffer::<f32>::new(bench.device(), assignments)?;
    let bytes = rows * experts * 4 + assignments * 8;
    bench.measure("moe_route", shape.clone(), [bytes, 0], 1, |_| {
        kernels.moe_route(stream, routing, logits.view(), ids.view(), weights.view())
    })?;
    bench.measure("moe_sort", shape, [assignments * 12, 0], ROUTINGS, |set| {
        chosen[set].sort(kernels, stream, routing, path)
    })?;

    let shape = format!("{assignments} x {n}");
    let x = bench.bf16(tiled_len(rows, n))?;
    let gathered = DeviceBuffer::<bf16>::new(bench.device(), tiled_len(slots, n))?;
    let bytes = (rows + assignments) * n * 2;
    bench.measure("moe_gather", shape.clone(), [bytes, 0], ROUTINGS, |set| {
        let from = chosen[set].assignment_of.view();
        // SAFETY: sorted for this routing.
        unsafe { kernels.moe_gather(stream, routing, n, x.view(), from, gathered.view()) }
    })?;
    let y = bench.f32(slots * n)?;
    let out = bench.f32(rows * n)?;
    let weights = bench.f32(assignments)?;
    let bytes = (assignments + 2 * rows) * n * 4;
    bench.measure("moe_combine", shape, [bytes, 2 * assignments * n], ROUTINGS, |set| {
        let (slots, weights) = (chosen[set].slot_of.view(), weights.view());
        // SAFETY: sorted for this routing.
        unsafe { kernels.moe_combine(stream, routing, y.view(), slots, weights, out.view(), n) }
    })
}

fn products(
    bench: &mut Bench<'_>,
    routing: Routing,
    path: ExpertPath,
    chosen: &[Chosen],
    weights: &Weights,
) -> Result<(), GpuError> {
    const LIMIT: f32 = 7.0;
    let (units, hidden, experts) = (bench.sizes.units, bench.sizes.hidden, routing.experts);
    let (assignments, slots) = (routing.assignments(), routing.max_slots());
    let (stream, kernels) = (bench.stream, bench.kernels);
    let path_name = match path {
        ExpertPath::Skinny => "skinny",
        ExpertPath::Tile => "tile",
    };
    let x = bench.bf16(tiled_len(slots, hidden))?;
    let act = bench.bf16(tiled_len(slots, units))?;
    let y = DeviceBuffer::<f32>::new(bench.device(), slots * hidden)?;
    let active = chosen.iter().map(|chosen| chosen.active).sum::<usize>() as f64;
    let active = active / chosen.len() as f64;
    let weight_bytes = |w: &DeviceBuffer<u8>| (w.len() as f64 / experts as f64 * active) as usize;

    let gate_up = ExpertWeights {
        w: weights.gate_up.view(),
        bias: weights.gate_up_bias.view(),
        format: ExpertFormat::Mxfp4,
        n: 2 * units,
        k: hidden,
    };
    let bytes = weight_bytes(&weights.gate_up) + assignments * (hidden + units) * 2;
    let flops = 2 * assignments * 2 * units * hidden;
    let shape = format!("{assignments} x {} x {hidden}", 2 * units);
    let name = format!("moe_gate_up_{path_name}_mxfp4");
    bench.measure(&name, shape, [bytes, flops], ROUTINGS, |set| {
        let (sorted, x, act) = (chosen[set].sorted(), x.view(), act.view());
        // SAFETY: sorted for this routing and path.
        unsafe { kernels.moe_gate_up(stream, routing, path, gate_up, sorted, x, act, LIMIT) }
    })?;

    let down = ExpertWeights {
        w: weights.down.view(),
        bias: weights.down_bias.view(),
        format: ExpertFormat::Mxfp4,
        n: hidden,
        k: units,
    };
    let bytes = weight_bytes(&weights.down) + assignments * (units * 2 + hidden * 4);
    let flops = 2 * assignments * hidden * units;
    let shape = format!("{assignments} x {hidden} x {units}");
    let name = format!("moe_down_{path_name}_mxfp4");
    bench.measure(&name, shape, [bytes, flops], ROUTINGS, |set| {
        let (sorted, act, y) = (chosen[set].sorted(), act.view(), y.view());
        // SAFETY: sorted for this routing and path.
        unsafe { kernels.moe_down(stream, routing, path, down, sorted, act, y) }
    })
}
