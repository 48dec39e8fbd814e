//! Dense products at the sizes of gpt-oss-20b and 120b, in every format, by every path.
//!
//! k is always the real one; on the emulator n is cut to two workgroups unless long sweeps are asked
//! for. The oracle checks all rows of three row tiles of the weights: the first, one in the
//! middle, and the last; every other number of rows and every other path must then give the same
//! bits for all outputs.

use gptoss::gpu::Api;
use gptoss::gpu::launch::linear::{DenseFormat, Linear, LinearPath, LinearShape, Store};
use gptoss::gpu::pack;
use oracle::basics::{Expected, assert_close, assert_same_bits};
use oracle::products::{exact, mxint8_values, output};
use oracle::random::{uniform_bf16, uniform_f32};
use shared::block::{ROWS, STEP, tiled_len};
use shared::kernels::linear::{RING_STAGES, RING_STEPS, TILE_OUTPUTS};

use crate::gpu::{Output, as_bf16, device, full, kernels, stream};

const FORMATS: [DenseFormat; 2] = [DenseFormat::Bf16, DenseFormat::Mxint8];

/// A matrix and its inputs; a row of x is the same whatever their number.
struct Product {
    n: usize,
    k: usize,
    w: Vec<u16>,
    x: Vec<u16>,
    bias: Vec<f32>,
}

impl Product {
    fn new(n: usize, k: usize, rows: usize) -> Product {
        let w = uniform_bf16(n * k, 1);
        Product { n, k, w, x: uniform_bf16(rows * k, 2), bias: uniform_f32(n, 3) }
    }

    fn packed(&self, format: DenseFormat) -> Vec<u8> {
        let (n, k) = (self.n, self.k);
        let mut out = vec![0; format.bytes(n, k)];
        match format {
            DenseFormat::Bf16 => {
                pack::bf16(bytemuck::cast_slice_mut(&mut out), &self.w, n, k, |row| row);
            }
            DenseFormat::Mxint8 => {
                pack::mxint8(kernels().family(), &mut out, &self.w, n, k, |row| row)
                    .expect("values in range");
            }
        }
        out
    }

    /// `[rows, n]` for the first `rows` rows of x, by each of `cases`.
    fn run(&self, format: DenseFormat, cases: &[(usize, LinearPath)]) -> Vec<Vec<f32>> {
        let (n, k) = (self.n, self.k);
        let stream = stream();
        let w = stream.buffer_from(&self.packed(format)).expect("w");
        let bias = stream.buffer_from(&self.bias).expect("bias");
        let run = |&(rows, path): &(usize, LinearPath)| {
            let mut x = vec![0; tiled_len(rows, k)];
            pack::bf16(&mut x, &self.x[..rows * k], rows, k, |row| row);
            let x = stream.buffer_from(&x).expect("x");
            let out = Output::new(&stream, rows * n);
            let (w, bias) = (w.view(), bias.view());
            let buffers = Linear { w, format, x: as_bf16(x.view()), bias, out: out.view() };
            let shape = LinearShape { n, rows, k };
            kernels().linear(&stream, path, shape, Store::Replace, buffers).expect("linear");
            out.read(&stream)
        };
        cases.iter().map(run).collect()
    }

    /// The outputs checked with the oracle.
    fn sample(&self) -> Vec<usize> {
        let tile = |first: usize| first..(first + ROWS).min(self.n);
        let (middle, last) = (self.n / 2 / ROWS * ROWS, (self.n - 1) / ROWS * ROWS);
        let mut outputs: Vec<usize> = [0, middle, last].into_iter().flat_map(tile).collect();
        outputs.dedup();
        outputs
    }

    fn expected(&self, format: DenseFormat, rows: usize, col: usize) -> Vec<Expected> {
        let k = self.k;
        let bits = &self.w[col * k..][..k];
        let w = match format {
            DenseFormat::Bf16 => exact(bits),
            DenseFormat::Mxint8 => mxint8_values(bits),
        };
        let x = exact(&self.x);
        (0..rows).map(|row| output(&x[row * k..][..k], &w, self.bias[col], None)).collect()
    }

    /// The first case against the oracle, the others against the first.
    fn check(&self, name: &str, cases: &[(usize, LinearPath)]) {
        for format in FORMATS {
            let results = self.run(format, cases);
            for (&(rows, path), got) in cases.iter().zip(&results) {
                let case = format!("{name}, {rows} rows, {format:?} {path:?}");
                assert!(got.iter().all(|x| x.is_finite()), "{case}: not all was written");
                assert_same_bits(&case, got, &results[0][..rows * self.n]);
            }
            let rows = cases[0].0;
            for col in self.sample() {
                let got: Vec<f32> = (0..rows).map(|row| results[0][row * self.n + col]).collect();
                let case = format!("{name}, {format:?}, output {col}");
                assert_close(&case, &got, &self.expected(format, rows, col));
            }
        }
    }
}

/// Every path, at every number of rows where the paths change.
const ALL: [(usize, LinearPath); 8] = [
    (129, LinearPath::Tile),
    (65, LinearPath::Tile),
    (64, LinearPath::Skinny64),
    (17, LinearPath::Skinny64),
    (16, LinearPath::Skinny),
    (1, LinearPath::Skinny),
    (1, LinearPath::Skinny64),
    (1, LinearPath::Tile),
];
/// What the emulator can afford on every run.
const FEW: [(usize, LinearPath); 4] = [
    (65, LinearPath::Tile),
    (17, LinearPath::Skinny64),
    (16, LinearPath::Skinny),
    (1, LinearPath::Skinny),
];
/// The same for matrices of full size.
const WHOLE: [(usize, LinearPath); 3] =
    [(17, LinearPath::Tile), (17, LinearPath::Skinny64), (1, LinearPath::Skinny)];

/// One past a workgroup of a tile kernel.
const SLICE: usize = TILE_OUTPUTS as usize + ROWS;
const VOCABULARY: usize = 201_088;

fn check_all(rows: usize, most: usize, cases: &[(usize, LinearPath)]) {
    Product::new(most.min(5120), 2880, rows).check("queries, keys and values", cases);
    Product::new(most.min(2880), 4096, rows).check("attention output", cases);
}

fn emulated() -> bool {
    device().api() == Api::Emulator
}

#[test]
fn dense_products_of_gpt_oss() {
    let cases: &[_] = if emulated() && !full() { &FEW } else { &ALL };
    let rows = cases[0].0;
    check_all(rows, SLICE, cases);
    Product::new(32, 2880, rows).check("router of 20b", cases);
    Product::new(128, 2880, rows).check("router of 120b", cases);
}

#[test]
fn dense_products_of_gpt_oss_in_full() {
    if !emulated() {
        check_all(129, usize::MAX, &ALL);
        let cases = [(64, LinearPath::Skinny64), (1, LinearPath::Skinny), (5, LinearPath::Tile)];
        Product::new(VOCABULARY, 2880, 64).check("unembedding", &cases);
    } else if full() {
        // The unembedding would take half an hour.
        check_all(17, usize::MAX, &WHOLE);
    } else {
        println!("skipped: GPTOSS_TEST_FULL is not set");
    }
}

/// Around one stage and the whole of the ring that Hopper's skinny kernels stream through, and an
/// odd number of row tiles for workgroups that have several.
#[test]
fn dense_products_at_the_edges_of_the_ring() {
    let cases = [(17, LinearPath::Skinny64), (5, LinearPath::Skinny), (17, LinearPath::Tile)];
    let ring = RING_STEPS * RING_STAGES;
    for steps in [RING_STEPS - 1, RING_STEPS, RING_STEPS + 1, ring - 1, ring, ring + 1] {
        Product::new(33, steps * STEP, 17).check(&format!("{steps} steps"), &cases);
    }
}
