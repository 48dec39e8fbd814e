//! Mixture of experts: each stage against its oracle, on what the stage before really gave.

use gptoss::gpu::launch::moe::{ExpertFormat, ExpertPath, ExpertWeights, Routing, Sorted};
use gptoss::gpu::{DeviceBuffer, Stream, pack};
use oracle::basics::{Expected, U, assert_close, half_ulp_bf16, softmax};
use oracle::products::{Source, Weights, bf16_weights, exact, mxfp4_weights, output};
use oracle::random::{uniform_bf16, uniform_f32, words};
use shared::bf16;
use shared::block::{ROWS, STEP, tiled_index, tiled_len};
use shared::kernels::moe::EMPTY;

use crate::gpu::{Output, as_bf16, kernels, stream};

pub(super) const FORMATS: [ExpertFormat; 2] = [ExpertFormat::Mxfp4, ExpertFormat::Bf16];
pub(super) const PATHS: [ExpertPath; 2] = [ExpertPath::Skinny, ExpertPath::Tile];
pub(super) const LIMIT: f32 = 7.0;

/// Ids and weights of `logits[rows, experts]`.
pub(super) fn route(routing: Routing, logits: &[f32]) -> (Vec<u32>, Vec<f32>) {
    let stream = stream();
    let logits = stream.buffer_from(logits).expect("logits");
    let ids = Output::new(&stream, routing.assignments());
    let weights = Output::new(&stream, routing.assignments());
    kernels()
        .moe_route(&stream, routing, logits.view(), ids.view(), weights.view())
        .expect("moe_route");
    (ids.read(&stream), weights.read(&stream))
}

#[test]
fn route_takes_the_largest_logits_and_the_lowest_index_of_equals() {
    let cases = [
        ("one_expert", 3, 1, 1),
        ("all_experts", 2, 4, 4),
        ("experts_of_20b", 5, 32, 4),
        ("experts_of_120b", 3, 128, 4),
        ("past_a_wave", 2, 65, 2),
        ("odd", 4, 7, 3),
    ];
    for (case, rows, experts, top_k) in cases {
        let routing = Routing { rows, experts, top_k };
        // Few distinct values: most rows have ties.
        let few = |x: &f32| (x * 3.0).round();
        let tied: Vec<f32> = uniform_f32(rows * experts, 1).iter().map(few).collect();
        for logits in [uniform_f32(rows * experts, 2), tied] {
            let (ids, weights) = route(routing, &logits);
            for row in 0..rows {
                let logits = &logits[row * experts..][..experts];
                let mut order: Vec<u32> = (0..experts as u32).collect();
                order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
                let chosen = &order[..top_k];
                assert_eq!(ids[row * top_k..][..top_k], *chosen, "{case}, row {row}");
                let chosen: Vec<f32> = chosen.iter().map(|&id| logits[id as usize]).collect();
                let expected = softmax(&chosen, 32);
                assert_close(
                    &format!("{case}, row {row}"),
                    &weights[row * top_k..][..top_k],
                    &expected,
                );
            }
        }
    }
}

/// What `moe_sort` made.
pub(super) struct Order {
    assignment_of: Output<u32>,
    pub(super) slot_of: Output<u32>,
    tiles: Output<u32>,
    num_tiles: Output<u32>,
}

impl Order {
    /// Sorts `ids`, the expert of each assignment.
    pub(super) fn of(stream: &Stream, routing: Routing, path: ExpertPath, ids: &[u32]) -> Order {
        let max_tiles = routing.max_tiles(path, kernels().family());
        let order = Order {
            assignment_of: Output::new(stream, routing.max_slots()),
            slot_of: Output::new(stream, ids.len()),
            tiles: Output::new(stream, 3 * max_tiles),
            num_tiles: Output::new(stream, 1),
        };
        let ids = stream.buffer_from(ids).expect("ids");
        // SAFETY: the tests' ids are below the number of experts.
        unsafe { kernels().moe_sort(stream, routing, path, ids.view(), order.view()) }
            .expect("moe_sort");
        // The ids must stay until they are read.
        stream.synchronize().unwrap_or_else(|e| panic!("{e}"));
        order
    }

    pub(super) fn view(&self) -> Sorted<'_> {
        Sorted {
            assignment_of: self.assignment_of.view(),
            slot_of: self.slot_of.view(),
            tiles: self.tiles.view(),
            num_tiles: self.num_tiles.view(),
        }
    }
}

/// Experts of each assignment, by what the router may do to them.
fn id_cases() -> Vec<(&'static str, Routing, Vec<u32>)> {
    let random = |routing: Routing, seed| -> Vec<u32> {
        let experts = routing.experts as u32;
        words(routing.assignments(), seed).into_iter().map(|word| word % experts).collect()
    };
    let routing = |rows, experts, top_k| Routing { rows, experts, top_k };
    let few = routing(3, 32, 4);
    let many = routing(90, 5, 2);
    let one = routing(70, 4, 2);
    vec![
        ("one_token", routing(1, 8, 2), vec![5, 2]),
        ("most_experts_empty", few, random(few, 1)),
        ("tiles_broken_at_every_expert", many, random(many, 2)),
        ("all_to_one_expert", one, vec![3; one.assignments()]),
    ]
}

#[test]
fn sort_is_stable_and_its_tiles_cover_every_slot_once() {
    let stream = stream();
    for (case, routing, ids) in id_cases() {
        // Every expert's assignments in order, then empty slots up to the next multiple of 16.
        let mut expected = Vec::new();
        for expert in 0..routing.experts as u32 {
            expected.extend((0..ids.len() as u32).filter(|&i| ids[i as usize] == expert));
            expected.resize(expected.len().next_multiple_of(ROWS), EMPTY);
        }
        assert!(expected.len() <= routing.max_slots(), "{case}");
        expected.resize(routing.max_slots(), EMPTY);
        for path in PATHS {
            let order = Order::of(&stream, routing, path, &ids);
            let assignment_of = order.assignment_of.read(&stream);
            assert_eq!(assignment_of, expected, "{case} {path:?}");
            for (assignment, slot) in order.slot_of.read(&stream).into_iter().enumerate() {
                assert_eq!(assignment_of[slot as usize], assignment as u32, "{case} {path:?}");
            }
            let count = order.num_tiles.read(&stream)[0] as usize;
            let tiles = order.tiles.read(&stream);
            let mut covered = vec![0; assignment_of.len()];
            for tile in tiles.chunks_exact(3).take(count) {
                let [expert, first, slots] = [tile[0], tile[1], tile[2]];
                let most = path.slots(kernels().family());
                assert!((1..=most).contains(&slots), "{case} {path:?}: {tile:?}");
                assert_eq!(first % ROWS as u32, 0, "{case} {path:?}: {tile:?}");
                for slot in first..first + slots {
                    covered[slot as usize] += 1;
                    let assignment = assignment_of[slot as usize];
                    assert_eq!(ids[assignment as usize], expert, "{case} {path:?}: {tile:?}");
                }
            }
            let filled = assignment_of.iter().map(|&assignment| u32::from(assignment != EMPTY));
            assert!(covered.iter().copied().eq(filled), "{case} {path:?}: {covered:?}");
        }
    }
}

/// The experts' matrices, one after the other, packed and exact.
pub(super) struct Experts {
    packed: Vec<u8>,
    /// `[experts][n, k]`
    values: Vec<Vec<f64>>,
    /// `[experts, n]`
    pub(super) bias: Vec<f32>,
    format: ExpertFormat,
    n: usize,
    k: usize,
}

impl Experts {
    /// `row` reorders rows from published to packed; bias and values are in packed order.
    pub(super) fn new(
        experts: usize,
        format: ExpertFormat,
        [n, k]: [usize; 2],
        row: fn(usize) -> usize,
    ) -> Experts {
        let mut made = Experts {
            packed: Vec::new(),
            values: Vec::new(),
            bias: uniform_f32(experts * n, 30),
            format,
            n,
            k,
        };
        for expert in 0..experts as u32 {
            let weights = match format {
                ExpertFormat::Mxfp4 => mxfp4_weights(n, k, 40 + expert),
                ExpertFormat::Bf16 => bf16_weights(uniform_bf16(n * k, 40 + expert)),
            };
            made.push(weights, row);
        }
        made
    }

    fn push(&mut self, Weights { source, values }: Weights, row: fn(usize) -> usize) {
        let (n, k) = (self.n, self.k);
        let mut out = vec![0; n / ROWS * (k / STEP) * self.format.step_bytes()];
        match &source {
            Source::Bf16(bits) => {
                pack::bf16(bytemuck::cast_slice_mut(&mut out), bits, n, k, row);
            }
            Source::Mxfp4(blocks, scales) => {
                pack::mxfp4(kernels().family(), &mut out, (blocks, scales), n, k, row)
                    .expect("scales in range");
            }
        }
        self.packed.extend(out);
        self.values.push((0..n).flat_map(|p| values[row(p) * k..][..k].iter().copied()).collect());
    }

    fn row(&self, expert: usize, p: usize) -> (&[f64], f32) {
        (&self.values[expert][p * self.k..][..self.k], self.bias[expert * self.n + p])
    }

    /// Replaces the bf16 weight `k` of packed row `p` of an expert.
    pub(super) fn spoil(&mut self, expert: usize, p: usize, k: usize, bits: u16) {
        let at = expert * self.n * self.k + tiled_index(p, k, self.k / STEP);
        self.packed[2 * at..][..2].copy_from_slice(&bits.to_le_bytes());
    }

    /// Uploads, and calls `run` with the device's view.
    pub(super) fn with<T>(&self, stream: &Stream, run: impl FnOnce(ExpertWeights<'_>) -> T) -> T {
        let w = stream.buffer_from(&self.packed).expect("w");
        let bias = stream.buffer_from(&self.bias).expect("bias");
        let (format, n, k) = (self.format, self.n, self.k);
        run(ExpertWeights { w: w.view(), bias: bias.view(), format, n, k })
    }
}

/// `[rows, k]` bf16 in tiled layout, on the device.
pub(super) fn tiled(stream: &Stream, x: &[u16], [rows, k]: [usize; 2]) -> DeviceBuffer<u16> {
    let mut out = vec![0; tiled_len(rows, k)];
    pack::bf16(&mut out, x, rows, k, |row| row);
    stream.buffer_from(&out).expect("tiled")
}

/// Row-major values of tiled bf16.
fn untiled(tiles: &[u16], [rows, k]: [usize; 2]) -> Vec<f32> {
    let cells = (0..rows).flat_map(|row| (0..k).map(move |col| (row, col)));
    cells.map(|(row, col)| bf16::to_f32(tiles[tiled_index(row, col, k / STEP)])).collect()
}

/// `[assignments, units]` by assignment.
pub(super) fn gate_up(
    routing: Routing,
    path: ExpertPath,
    experts: &Experts,
    ids: &[u32],
    x: &[u16],
) -> Vec<f32> {
    let stream = stream();
    let order = Order::of(&stream, routing, path, ids);
    let (units, k, slots) = (experts.n / 2, experts.k, routing.max_slots());
    let x = tiled(&stream, x, [routing.rows, k]);
    // Poison in the rows of empty slots must not reach the others.
    let gathered = Output::<u16>::new(&stream, tiled_len(slots, k));
    let act = Output::<u16>::new(&stream, tiled_len(slots, units));
    experts
        .with(&stream, |weights| {
            let (sorted, x, rows) = (order.view(), as_bf16(x.view()), as_bf16(gathered.view()));
            // SAFETY: the order is of this routing and path.
            unsafe {
                kernels().moe_gather(&stream, routing, k, x, sorted.assignment_of, rows)?;
                kernels().moe_gate_up(
                    &stream,
                    routing,
                    path,
                    weights,
                    sorted,
                    rows,
                    as_bf16(act.view()),
                    LIMIT,
                )
            }
        })
        .unwrap_or_else(|e| panic!("{e}"));
    let act = untiled(&act.read(&stream), [slots, units]);
    by_assignment(&act, units, &order.slot_of.read(&stream))
}

/// The rows, of `n`, of filled slots, in the order of their assignments.
pub(super) fn by_assignment(rows: &[f32], n: usize, slot_of: &[u32]) -> Vec<f32> {
    slot_of.iter().flat_map(|&slot| &rows[slot as usize * n..][..n]).copied().collect()
}

/// `act` of one unit from its gate and up, and what rounding may do to it.
pub(super) fn swiglu(gate: Expected, up: Expected) -> Expected {
    const SLOPE: f64 = 1.702;
    let limit = f64::from(LIMIT);
    let (g, l) = (gate.value.min(limit), up.value.clamp(-limit, limit));
    let sigmoid = 1.0 / (1.0 + (-SLOPE * g).exp());
    let value = (l + 1.0) * g * sigmoid;
    // |d/dx x sigmoid(x)| is below 1.1 everywhere; clamping shrinks errors.
    let inputs = (l + 1.0).abs() * 1.1 * gate.bound + (g * sigmoid).abs() * up.bound;
    // The exponent's argument is rounded twice; exponential, reciprocal, their sum and three
    // products follow.
    let relative = 2.0 * (SLOPE * g).abs() + 4.0 + 4.0 + 1.0 + 3.0;
    let before = 1.01 * (inputs + relative * U * value.abs() + U * (g * sigmoid).abs());
    Expected { value, bound: before + half_ulp_bf16(value.abs() + before) }
}

#[test]
fn gate_up_matches_the_oracle() {
    for (case, routing, ids) in id_cases() {
        for format in FORMATS {
            let (units, k) = (96, 160);
            let experts = Experts::new(routing.experts, format, [2 * units, k], pack::gate_up_row);
            let x = uniform_bf16(routing.rows * k, 50);
            let tokens = exact(&x);
            let got = PATHS.map(|path| gate_up(routing, path, &experts, &ids, &x));
            assert_eq!(got[0], got[1], "{case} {format:?}: the paths differ");
            for assignment in 0..ids.len() {
                let x = &tokens[assignment / routing.top_k * k..][..k];
                let expert = ids[assignment] as usize;
                let unit = |unit: usize| {
                    let p = unit / ROWS * 2 * ROWS + unit % ROWS;
                    let [gate, up] = [p, p + ROWS].map(|p| {
                        let (w, bias) = experts.row(expert, p);
                        output(x, w, bias, None)
                    });
                    swiglu(gate, up)
                };
                let expected: Vec<Expected> = (0..units).map(unit).collect();
                let name = format!("{case} {format:?}, assignment {assignment}");
                assert_close(&name, &got[0][assignment * units..][..units], &expected);
            }
        }
    }
}

#[test]
fn down_matches_the_oracle() {
    let stream = stream();
    for (case, routing, ids) in id_cases() {
        for format in FORMATS {
            let (n, k) = (80, 96);
            let experts = Experts::new(routing.experts, format, [n, k], |row| row);
            let slots = routing.max_slots();
            let act = uniform_bf16(slots * k, 60);
            let device_act = tiled(&stream, &act, [slots, k]);
            let act = exact(&act);
            let results = PATHS.map(|path| {
                let order = Order::of(&stream, routing, path, &ids);
                let y = Output::new(&stream, slots * n);
                experts.with(&stream, |weights| {
                    let (sorted, act) = (order.view(), as_bf16(device_act.view()));
                    // SAFETY: the order is of this routing and path.
                    unsafe {
                        kernels().moe_down(&stream, routing, path, weights, sorted, act, y.view())
                    }
                    .expect("moe_down");
                });
                (by_assignment(&y.read(&stream), n, &order.slot_of.read(&stream)), order)
            });
            let slot_of = results[0].1.slot_of.read(&stream);
            let results = results.map(|(y, _)| y);
            let mut expected = Vec::new();
            for (&slot, &expert) in slot_of.iter().zip(&ids) {
                expected.extend((0..n).map(|p| {
                    let (w, bias) = experts.row(expert as usize, p);
                    output(&act[slot as usize * k..][..k], w, bias, None)
                }));
            }
            assert_close(&format!("{case} {format:?}"), &results[0], &expected);
            assert_eq!(results[0], results[1], "{case} {format:?}: the paths differ");
        }
    }
}

#[test]
fn combine_adds_experts_in_the_order_of_their_rank() {
    let stream = stream();
    for (case, routing, ids) in id_cases() {
        for n in [1, 1024, 1025, 2880] {
            let order = Order::of(&stream, routing, ExpertPath::Skinny, &ids);
            let y = uniform_f32(routing.max_slots() * n, 70);
            let weights = uniform_f32(ids.len(), 71);
            let old = uniform_f32(routing.rows * n, 72);
            let slot_of = order.slot_of.read(&stream);
            let out = Output::new(&stream, old.len());
            stream.upload(out.view(), &old).expect("out");
            let device_y = stream.buffer_from(&y).expect("y");
            let device_weights = stream.buffer_from(&weights).expect("weights");
            let (y_view, slots) = (device_y.view(), order.slot_of.view());
            // SAFETY: the order is of this routing.
            unsafe {
                let weights = device_weights.view();
                kernels().moe_combine(&stream, routing, y_view, slots, weights, out.view(), n)
            }
            .expect("moe_combine");
            // One fused multiply-add per expert, so the host can do the same bit for bit.
            let expected = old.iter().enumerate().map(|(i, &old)| {
                let (row, col) = (i / n, i % n);
                (0..routing.top_k).fold(old, |sum, rank| {
                    let assignment = row * routing.top_k + rank;
                    let y = y[slot_of[assignment] as usize * n + col];
                    weights[assignment].mul_add(y, sum)
                })
            });
            let got = out.read(&stream);
            assert!(got.into_iter().eq(expected), "{case}, n = {n}");
        }
    }
}
