//! The experts' two products at the sizes of gpt-oss-20b and 120b, and what must not change a bit:
//! the path, the neighbours, and MXFP4 widened to bf16.
//!
//! k is always the real one; on the emulator the outputs are cut unless long sweeps are asked for.
//! A few different experts are repeated, each time with its own bias, so that packing hundreds of
//! megabytes stays cheap and a wrong expert still shows.

use gptoss::gpu::launch::moe::{ExpertFormat, ExpertPath, ExpertWeights, Routing};
use gptoss::gpu::{Api, DeviceBuffer, GpuError, Stream, pack};
use oracle::basics::{Expected, assert_close, assert_same_bits};
use oracle::products::{Source, bf16_weights, exact, mxfp4_weights, output};
use oracle::random::{uniform_bf16, uniform_f32, words};
use shared::bf16;
use shared::block::{ROWS, STEP, tiled_index, tiled_len};

use super::moe::{LIMIT, Order, swiglu};
use crate::gpu::{Output, as_bf16, device, full, kernels, stream};

const PATHS: [ExpertPath; 2] = [ExpertPath::Skinny, ExpertPath::Tile];
/// Experts with weights of their own; the others repeat them.
const DISTINCT: usize = 3;

/// Which of a layer's two products.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Product {
    GateUp,
    Down,
}

/// How the weights of a case are stored: MXFP4, or the same values in bf16.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stored {
    Mxfp4,
    Widened,
    Bf16,
}

/// One product of one layer, and the tokens its experts get. Results are by assignment,
/// `[assignments, columns]`; rows of inputs are the same whatever their number.
struct Case {
    product: Product,
    routing: Routing,
    /// `[rows, top_k]`
    ids: Vec<u32>,
    /// Results of an assignment: units of the first product, outputs of the second.
    columns: usize,
    k: usize,
}

/// `top_k` different experts for each of `rows` tokens.
fn different_ids(Routing { rows, experts, top_k }: Routing) -> Vec<u32> {
    let starts = words(rows, 1);
    let of_row = |start: u32| (0..top_k).map(move |i| (start as usize + 7 * i) % experts);
    starts.into_iter().flat_map(of_row).map(|id| id as u32).collect()
}

impl Case {
    fn new(product: Product, routing: Routing, columns: usize, k: usize) -> Case {
        Case { product, routing, ids: different_ids(routing), columns, k }
    }

    /// Rows of one expert's weights.
    fn n(&self) -> usize {
        match self.product {
            Product::GateUp => 2 * self.columns,
            Product::Down => self.columns,
        }
    }

    fn packed_row(&self) -> fn(usize) -> usize {
        match self.product {
            Product::GateUp => pack::gate_up_row,
            Product::Down => |row| row,
        }
    }

    /// The different experts, packed, and their exact values `[DISTINCT][n, k]` as published.
    fn weights(&self, stored: Stored) -> (Vec<Vec<u8>>, Vec<Vec<f64>>) {
        let (n, k, row) = (self.n(), self.k, self.packed_row());
        let one = |seed: u32| {
            let weights = match stored {
                Stored::Bf16 => bf16_weights(uniform_bf16(n * k, 20 + seed)),
                Stored::Mxfp4 | Stored::Widened => mxfp4_weights(n, k, 20 + seed),
            };
            let packed = match &weights.source {
                Source::Mxfp4(blocks, scales) if stored == Stored::Mxfp4 => {
                    let blocks_of = n / ROWS * (k / STEP);
                    let mut out = vec![0; blocks_of * ExpertFormat::Mxfp4.step_bytes()];
                    pack::mxfp4(kernels().family(), &mut out, (blocks, scales), n, k, row)
                        .expect("scales in range");
                    out
                }
                _ => {
                    let values = weights.values.iter();
                    let bits: Vec<u16> = values.map(|&x| bf16::from_f32(x as f32)).collect();
                    let mut out = vec![0u16; n * k];
                    pack::bf16(&mut out, &bits, n, k, row);
                    bytemuck::cast_slice(&out).to_vec()
                }
            };
            (packed, weights.values)
        };
        (0..DISTINCT.min(self.routing.experts) as u32).map(one).unzip()
    }

    /// `[experts, n]`, as published.
    fn bias(&self) -> Vec<f32> {
        uniform_f32(self.routing.experts * self.n(), 23)
    }

    /// `[rows, k]` by token for the first product, `[assignments, k]` for the second.
    fn inputs(&self) -> Vec<u16> {
        let rows = match self.product {
            Product::GateUp => self.routing.rows,
            Product::Down => self.routing.assignments(),
        };
        uniform_bf16(rows * self.k, 24)
    }

    /// By assignment.
    fn run(&self, stored: Stored, path: ExpertPath) -> Vec<f32> {
        let (routing, n, k) = (self.routing, self.n(), self.k);
        let stream = stream();
        let w = self.upload(&stream, stored);
        let (published, row) = (self.bias(), self.packed_row());
        let at = |i: usize| published[i / n * n + row(i % n)];
        let bias: Vec<f32> = (0..published.len()).map(at).collect();
        let bias = stream.buffer_from(&bias).expect("bias");
        let format = match stored {
            Stored::Mxfp4 => ExpertFormat::Mxfp4,
            Stored::Widened | Stored::Bf16 => ExpertFormat::Bf16,
        };
        let weights = ExpertWeights { w: w.view(), bias: bias.view(), format, n, k };
        let order = Order::of(&stream, routing, path, &self.ids);
        let slot_of = order.slot_of.read(&stream);
        let by_slot = match self.product {
            Product::GateUp => {
                gate_up(&stream, routing, path, weights, &order, &self.inputs(), self.columns)
            }
            Product::Down => {
                down(&stream, routing, path, weights, &order, &slot_of, &self.inputs())
            }
        }
        .unwrap_or_else(|e| panic!("{e}"));
        let own = |&slot: &u32| &by_slot[slot as usize * self.columns..][..self.columns];
        slot_of.iter().flat_map(own).copied().collect()
    }

    /// All experts, one after the other.
    fn upload(&self, stream: &Stream, stored: Stored) -> DeviceBuffer<u8> {
        let (packed, _) = self.weights(stored);
        let own = packed[0].len();
        let w = DeviceBuffer::new(stream.device(), self.routing.experts * own).expect("memory");
        for expert in 0..self.routing.experts {
            let to = w.slice(expert * own..(expert + 1) * own);
            stream.upload(to, &packed[expert % DISTINCT]).expect("w");
        }
        w
    }

    /// One assignment's results of `columns`.
    fn expected(&self, values: &[Vec<f64>], assignment: usize, columns: &[usize]) -> Vec<Expected> {
        let (n, k) = (self.n(), self.k);
        let (expert, inputs, bias) = (self.ids[assignment] as usize, self.inputs(), self.bias());
        let row = match self.product {
            Product::GateUp => assignment / self.routing.top_k,
            Product::Down => assignment,
        };
        let x = exact(&inputs[row * k..][..k]);
        let sum = |i: usize| {
            let w = &values[expert % DISTINCT][i * k..][..k];
            output(&x, w, bias[expert * n + i], None)
        };
        let one = |&column: &usize| match self.product {
            Product::GateUp => swiglu(sum(2 * column), sum(2 * column + 1)),
            Product::Down => sum(column),
        };
        columns.iter().map(one).collect()
    }

    /// Every path gives finite numbers and the same bits, MXFP4 those of the same weights widened;
    /// and the first, a middle and the last tile of columns are those of the oracle.
    fn check(&self, name: &str, formats: &[Stored]) {
        let tile = |first: usize| first..(first + ROWS).min(self.columns);
        let last = (self.columns - 1) / ROWS * ROWS;
        let mut columns: Vec<usize> =
            [0, self.columns / 2 / ROWS * ROWS, last].into_iter().flat_map(tile).collect();
        columns.dedup();
        let mut widened: Option<Vec<f32>> = None;
        for &stored in formats {
            let name = format!("{name}: {:?} {stored:?}", self.product);
            let [skinny, tile] = PATHS.map(|path| self.run(stored, path));
            assert!(skinny.iter().all(|x| x.is_finite()), "{name}: not all was written");
            assert_same_bits(&format!("{name}, by tiles"), &tile, &skinny);
            let (_, values) = self.weights(stored);
            for assignment in 0..self.ids.len() {
                let row = &skinny[assignment * self.columns..][..self.columns];
                let got: Vec<f32> = columns.iter().map(|&column| row[column]).collect();
                let expected = self.expected(&values, assignment, &columns);
                assert_close(&format!("{name}, assignment {assignment}"), &got, &expected);
            }
            if stored != Stored::Bf16 {
                let other = widened.get_or_insert_with(|| skinny.clone());
                assert_same_bits(&format!("{name}, widened"), &skinny, other);
            }
        }
    }
}

/// `[slots, units]` from the tokens' rows.
fn gate_up(
    stream: &Stream,
    routing: Routing,
    path: ExpertPath,
    weights: ExpertWeights<'_>,
    order: &Order,
    inputs: &[u16],
    units: usize,
) -> Result<Vec<f32>, GpuError> {
    let (k, slots) = (weights.k, routing.max_slots());
    let mut x = vec![0; tiled_len(routing.rows, k)];
    pack::bf16(&mut x, inputs, routing.rows, k, |row| row);
    let x = stream.buffer_from(&x)?;
    // Poison in the rows of empty slots must not reach the others.
    let gathered = Output::<u16>::new(stream, tiled_len(slots, k));
    let act = Output::<u16>::new(stream, tiled_len(slots, units));
    let (x, by_slot, sorted) = (as_bf16(x.view()), as_bf16(gathered.view()), order.view());
    // SAFETY: the order is of this routing and path.
    unsafe {
        kernels().moe_gather(stream, routing, k, x, sorted.assignment_of, by_slot)?;
        let out = as_bf16(act.view());
        kernels().moe_gate_up(stream, routing, path, weights, sorted, by_slot, out, LIMIT)?;
    }
    let act = act.read(stream);
    let cells = (0..slots).flat_map(|slot| (0..units).map(move |unit| (slot, unit)));
    Ok(cells.map(|(s, unit)| bf16::to_f32(act[tiled_index(s, unit, units / STEP)])).collect())
}

/// `[slots, n]` from the assignments' rows.
fn down(
    stream: &Stream,
    routing: Routing,
    path: ExpertPath,
    weights: ExpertWeights<'_>,
    order: &Order,
    slot_of: &[u32],
    inputs: &[u16],
) -> Result<Vec<f32>, GpuError> {
    let (n, k, slots) = (weights.n, weights.k, routing.max_slots());
    // NaN in the rows of empty slots must not reach the others.
    let mut by_slot = vec![u16::MAX; slots * k];
    for (from, &slot) in inputs.chunks_exact(k).zip(slot_of) {
        by_slot[slot as usize * k..][..k].copy_from_slice(from);
    }
    let mut act = vec![0; tiled_len(slots, k)];
    pack::bf16(&mut act, &by_slot, slots, k, |row| row);
    let act = stream.buffer_from(&act)?;
    let y = Output::<f32>::new(stream, slots * n);
    // SAFETY: the order is of this routing and path.
    unsafe {
        let act = as_bf16(act.view());
        kernels().moe_down(stream, routing, path, weights, order.view(), act, y.view())?;
    }
    Ok(y.read(stream))
}

const OF_20B: Routing = Routing { rows: 3, experts: 32, top_k: 4 };
const OF_120B: Routing = Routing { rows: 2, experts: 128, top_k: 4 };
/// Of gpt-oss, hidden and intermediate alike.
const WIDTH: usize = 2880;

#[test]
fn products_at_the_depth_of_gpt_oss() {
    for (name, routing) in [("20b", OF_20B), ("120b", OF_120B)] {
        for (product, columns) in [(Product::GateUp, 32), (Product::Down, 48)] {
            let case = Case::new(product, routing, columns, WIDTH);
            case.check(name, &[Stored::Mxfp4, Stored::Widened]);
        }
    }
}

#[test]
fn products_at_the_sizes_of_gpt_oss() {
    if device().api() == Api::Emulator && !full() {
        println!("skipped: GPTOSS_TEST_FULL is not set");
        return;
    }
    for product in [Product::GateUp, Product::Down] {
        let few = |routing| Case::new(product, Routing { rows: 2, ..routing }, WIDTH, WIDTH);
        few(OF_20B).check("20b", &[Stored::Mxfp4]);
        few(OF_120B).check("120b", &[Stored::Mxfp4]);
    }
}

/// A token's results by themselves, and as the first of several whose experts are its own or
/// others, in every order of columns past a workgroup and of k past one step of unrolling.
#[test]
fn an_assignment_depends_on_neither_path_nor_neighbours() {
    let routing = |rows| Routing { rows, experts: 5, top_k: 2 };
    for (product, columns) in [(Product::GateUp, 96), (Product::Down, 144)] {
        for stored in [Stored::Mxfp4, Stored::Widened, Stored::Bf16] {
            let alone = Case::new(product, routing(1), columns, 320).run(stored, PATHS[0]);
            for rows in [1, 70] {
                let among = Case::new(product, routing(rows), columns, 320);
                for path in PATHS {
                    let case = format!("{product:?} {stored:?} {path:?}, the first of {rows}");
                    assert_same_bits(&case, &among.run(stored, path)[..alone.len()], &alone);
                }
            }
        }
    }
}

/// Around one stage and the whole of the ring that Hopper's skinny kernels stream through.
#[test]
fn products_at_the_edges_of_the_ring() {
    use shared::kernels::linear::{RING_STAGES, RING_STEPS};
    let ring = RING_STEPS * RING_STAGES;
    for steps in [1, RING_STEPS - 1, RING_STEPS + 1, ring - 1, ring, ring + 1] {
        for (product, columns) in [(Product::GateUp, 32), (Product::Down, 80)] {
            let routing = Routing { rows: 9, experts: 3, top_k: 2 };
            let case = Case::new(product, routing, columns, steps * STEP);
            case.check(&format!("{steps} steps"), &[Stored::Mxfp4, Stored::Bf16]);
        }
    }
}
