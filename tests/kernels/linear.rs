//! Dense products, every format and path.

use gptoss::gpu::launch::linear::{DenseFormat, Linear, LinearPath, LinearShape, Store};
use gptoss::gpu::pack;
use oracle::basics::{Expected, assert_close};
use oracle::products::{exact, mxint8_values, output};
use oracle::random::{uniform_bf16, uniform_f32};
use shared::block::{STEP, tiled_len};

use crate::gpu::{Output, as_bf16, kernels, stream};

const FORMATS: [DenseFormat; 2] = [DenseFormat::Bf16, DenseFormat::Mxint8];
pub(super) const PATHS: [LinearPath; 3] =
    [LinearPath::Skinny, LinearPath::Skinny64, LinearPath::Tile];

/// One product's operands on the host; the same seed gives the same rows whatever their number.
pub(super) struct Case {
    shape: LinearShape,
    pub(super) w: Vec<u16>,
    pub(super) x: Vec<u16>,
    pub(super) bias: Vec<f32>,
    pub(super) old: Vec<f32>,
}

impl Case {
    pub(super) fn new(shape: LinearShape) -> Case {
        let LinearShape { n, rows, k } = shape;
        Case {
            shape,
            w: uniform_bf16(n * k, 1),
            x: uniform_bf16(rows * k, 2),
            bias: uniform_f32(n, 3),
            old: uniform_f32(rows * n, 4),
        }
    }

    fn packed(&self, format: DenseFormat) -> Vec<u8> {
        let LinearShape { n, k, .. } = self.shape;
        let mut out = vec![0; format.bytes(n, k)];
        match format {
            DenseFormat::Bf16 => {
                let blocks: &mut [u16] = bytemuck::cast_slice_mut(&mut out);
                pack::bf16(blocks, &self.w, n, k, |row| row);
            }
            DenseFormat::Mxint8 => {
                pack::mxint8(kernels().family(), &mut out, &self.w, n, k, |row| row)
                    .expect("values in range");
            }
        }
        out
    }

    pub(super) fn run(&self, format: DenseFormat, path: LinearPath, store: Store) -> Vec<f32> {
        let LinearShape { rows, k, .. } = self.shape;
        let stream = stream();
        let mut x = vec![0; tiled_len(rows, k)];
        pack::bf16(&mut x, &self.x, rows, k, |row| row);
        let w = stream.buffer_from(&self.packed(format)).expect("w");
        let x = stream.buffer_from(&x).expect("x");
        let bias = stream.buffer_from(&self.bias).expect("bias");
        let out = Output::new(&stream, self.old.len());
        if store == Store::Add {
            stream.upload(out.view(), &self.old).expect("out");
        }
        let buffers = Linear {
            w: w.view(),
            format,
            x: as_bf16(x.view()),
            bias: bias.view(),
            out: out.view(),
        };
        kernels().linear(&stream, path, self.shape, store, buffers).expect("linear");
        out.read(&stream)
    }

    fn expected(&self, format: DenseFormat, store: Store) -> Vec<Expected> {
        let LinearShape { n, k, .. } = self.shape;
        let w = match format {
            DenseFormat::Bf16 => exact(&self.w),
            DenseFormat::Mxint8 => mxint8_values(&self.w),
        };
        let x = exact(&self.x);
        let cell = |(i, &old): (usize, &f32)| {
            let (row, col) = (i / n, i % n);
            let old = (store == Store::Add).then_some(old);
            output(&x[row * k..][..k], &w[col * k..][..k], self.bias[col], old)
        };
        self.old.iter().enumerate().map(cell).collect()
    }
}

fn paths_for(rows: usize) -> impl Iterator<Item = LinearPath> {
    PATHS.into_iter().filter(move |path| match path {
        LinearPath::Skinny => rows <= 16,
        LinearPath::Skinny64 => rows <= 64,
        LinearPath::Tile => true,
    })
}

#[test]
fn linear_matches_the_oracle_at_every_edge() {
    let cases = [
        ("one_of_each", 1, 1, 32),
        ("one_short_of_a_row_tile", 16, 15, 64),
        ("one_past_a_row_tile", 48, 17, 96),
        ("outputs_past_a_row_tile", 17, 3, 160),
        ("one_past_a_workgroup_of_outputs", 129, 16, 64),
        ("one_past_a_workgroup_of_rows", 40, 65, 64),
        ("one_past_two_workgroups_of_rows", 24, 129, 96),
        ("odd_steps", 64, 2, 13 * STEP),
        ("k_of_gpt_oss", 32, 2, 2880),
    ];
    for (case, n, rows, k) in cases {
        let operands = Case::new(LinearShape { n, rows, k });
        for format in FORMATS {
            for store in [Store::Replace, Store::Add] {
                let expected = operands.expected(format, store);
                for path in paths_for(rows) {
                    let name = format!("{case} {format:?} {path:?} {store:?}");
                    assert_close(&name, &operands.run(format, path, store), &expected);
                }
            }
        }
    }
}

#[test]
fn a_row_depends_on_neither_path_nor_neighbours() {
    let shape = |rows| LinearShape { n: 80, rows, k: 320 };
    for format in FORMATS {
        let alone = Case::new(shape(1)).run(format, LinearPath::Skinny, Store::Replace);
        for rows in [1, 16, 40, 64, 70] {
            for path in paths_for(rows) {
                let got = Case::new(shape(rows)).run(format, path, Store::Replace);
                let same = got[..80].iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{format:?} {path:?}: row 0 of {rows} differs from row 0 alone");
            }
        }
    }
}

#[test]
fn linear_refuses_what_it_does_not_handle() {
    let stream = stream();
    let run = |path, n, rows, k| {
        let w = stream.buffer_from(&vec![0u8; 4096]).expect("w");
        let x = stream.buffer_from(&vec![0u16; 1024]).expect("x");
        let out = stream.buffer_from(&vec![0f32; 64]).expect("out");
        let buffers = Linear {
            w: w.view(),
            format: DenseFormat::Bf16,
            x: as_bf16(x.view()),
            bias: out.slice(..16),
            out: out.slice(16..),
        };
        let shape = LinearShape { n, rows, k };
        let refused = kernels().linear(&stream, path, shape, Store::Replace, buffers);
        refused.expect_err("a wrong shape").to_string()
    };
    assert_eq!(
        run(LinearPath::Tile, 16, 1, 2872),
        "linear_tile_bf16: k = 2872 is not a multiple of 32"
    );
    assert_eq!(run(LinearPath::Skinny, 16, 17, 32), "linear_skinny_bf16: rows = 17, at most 16");
    assert_eq!(
        run(LinearPath::Skinny64, 16, 1, 32),
        "linear_skinny64_bf16: w holds 4096 elements, expected [1024]"
    );
}
