//! The small kernels that prove the path.

use oracle::basics::{self, assert_close};
use oracle::random::{uniform_bf16, uniform_f32, words};
use shared::bf16;
use shared::kernels::basics::{rmsnorm_f32_bf16, softmax_f32};

use crate::gpu::{Output, as_bf16, kernels, stream};

/// Lengths at the edges of a wave, a workgroup of 256 and several workgroups.
const LENGTHS: [(&str, usize); 6] = [
    ("one_element", 1),
    ("one_short_of_a_wave", 31),
    ("one_workgroup", 256),
    ("one_past_a_workgroup", 257),
    ("prime", 1009),
    ("hidden_size_of_gpt_oss", 2880),
];

pub fn axpy(n: usize) -> Vec<f32> {
    let stream = stream();
    let x = stream.buffer_from(&uniform_f32(n, 1)).expect("x");
    let y = Output::new(&stream, n);
    stream.upload(y.view(), &uniform_f32(n, 2)).expect("y");
    kernels().axpy_f32(&stream, x.view(), y.view(), 0.75).expect("axpy");
    y.read(&stream)
}

#[test]
fn axpy_matches_the_oracle() {
    for (case, n) in LENGTHS {
        let expected = basics::axpy(0.75, &uniform_f32(n, 1), &uniform_f32(n, 2));
        assert_close(case, &axpy(n), &expected);
    }
}

pub fn rmsnorm(x: &[f32], weight: &[u16]) -> Vec<f32> {
    let stream = stream();
    let y = Output::<u16>::new(&stream, x.len());
    let x = stream.buffer_from(x).expect("x");
    let weight = stream.buffer_from(weight).expect("weight");
    let (weight, out) = (as_bf16(weight.view()), as_bf16(y.view()));
    kernels().rmsnorm_f32_bf16(&stream, x.view(), weight, out, 1e-5).expect("rmsnorm");
    y.read(&stream).into_iter().map(bf16::to_f32).collect()
}

#[test]
fn rmsnorm_matches_the_oracle() {
    let threads = rmsnorm_f32_bf16::threads(kernels().family()) as usize;
    let cases = LENGTHS.iter().flat_map(|&(case, n)| [1, 5].map(|rows| (case, n, rows, 1.0)));
    let scales = [("tiny_values", 64, 2, 1e-20), ("huge_values", 64, 2, 1e15)];
    for (case, n, rows, scale) in cases.chain(scales) {
        let x: Vec<f32> = uniform_f32(rows * n, 3).iter().map(|x| x * scale).collect();
        let weight = uniform_bf16(n, 4);
        let exact: Vec<f64> = weight.iter().map(|&w| bf16::to_f32(w).into()).collect();
        let got = rmsnorm(&x, &weight);
        for (row, (x, got)) in x.chunks(n).zip(got.chunks(n)).enumerate() {
            let expected = basics::rmsnorm_bf16(x, &exact, 1e-5, threads);
            assert_close(&format!("{case}, row {row} of {rows}"), got, &expected);
        }
    }
}

#[test]
fn rmsnorm_of_zeros_is_zero() {
    assert_eq!(rmsnorm(&[0.0; 96], &uniform_bf16(96, 5)), [0.0; 96]);
}

pub fn softmax(x: &[f32], n: usize) -> Vec<f32> {
    let stream = stream();
    let y = Output::new(&stream, x.len());
    let x = stream.buffer_from(x).expect("x");
    kernels().softmax_f32(&stream, x.view(), y.view(), n).expect("softmax");
    y.read(&stream)
}

#[test]
fn softmax_matches_the_oracle() {
    let threads = softmax_f32::threads(kernels().family()) as usize;
    let wide = [("underflowing", 300, 3, 200.0), ("equal", 300, 1, 0.0)];
    let cases = LENGTHS.iter().flat_map(|&(case, n)| [1, 4].map(|rows| (case, n, rows, 8.0)));
    for (case, n, rows, scale) in cases.chain(wide) {
        let x: Vec<f32> = uniform_f32(rows * n, 6).iter().map(|x| x * scale).collect();
        let got = softmax(&x, n);
        for (row, (x, got)) in x.chunks(n).zip(got.chunks(n)).enumerate() {
            let expected = basics::softmax(x, threads);
            assert_close(&format!("{case}, row {row} of {rows}"), got, &expected);
        }
    }
}

pub fn transpose(x: &[f32], [rows, cols]: [usize; 2]) -> Vec<f32> {
    let stream = stream();
    let y = Output::new(&stream, x.len());
    let x = stream.buffer_from(x).expect("x");
    kernels().transpose_f32(&stream, x.view(), y.view(), [rows, cols]).expect("transpose");
    y.read(&stream)
}

#[test]
fn transpose_moves_every_element() {
    let shapes = [
        ("one_element", [1, 1]),
        ("one_row", [1, 100]),
        ("one_column", [100, 1]),
        ("one_tile", [32, 32]),
        ("one_past_a_tile", [33, 65]),
        ("ragged", [70, 45]),
    ];
    for (case, [rows, cols]) in shapes {
        let x = uniform_f32(rows * cols, 7);
        let got = transpose(&x, [rows, cols]);
        for (i, got) in got.iter().enumerate() {
            let (col, row) = (i / rows, i % rows);
            assert_eq!(got.to_bits(), x[row * cols + col].to_bits(), "{case}[{col}, {row}]");
        }
    }
}

pub fn scan(x: &[u32]) -> Vec<u32> {
    let stream = stream();
    let y = Output::new(&stream, x.len());
    let x = stream.buffer_from(x).expect("x");
    kernels().exclusive_scan_u32(&stream, x.view(), y.view()).expect("scan");
    y.read(&stream)
}

#[test]
fn scan_sums_what_comes_before() {
    for (case, n) in LENGTHS {
        // Random words wrap around; the sum is modulo 2^32.
        let x = words(n, 8);
        let mut sum = 0u32;
        for (i, (got, x)) in scan(&x).into_iter().zip(&x).enumerate() {
            assert_eq!(got, sum, "{case}[{i}]");
            sum = sum.wrapping_add(*x);
        }
    }
}

pub fn histogram(x: &[u8], counts: &[u32]) -> Vec<u32> {
    let stream = stream();
    let out = Output::new(&stream, counts.len());
    stream.upload(out.view(), counts).expect("counts");
    let x = stream.buffer_from(x).expect("x");
    kernels().histogram_u8(&stream, x.view(), out.view()).expect("histogram");
    out.read(&stream)
}

#[test]
fn histogram_counts_every_byte() {
    let cases = [
        ("one_byte", vec![255u8]),
        ("one_short_of_a_vector", vec![7; 15]),
        ("all_in_one_bin", vec![3; 5000]),
        ("one_past_a_workgroup", bytes(256 * 16 + 1)),
        ("random", bytes(10_007)),
    ];
    for (case, x) in cases {
        // Starts from what is there: it adds.
        let start: Vec<u32> = (0..256).collect();
        let mut expected = start.clone();
        for &byte in &x {
            expected[usize::from(byte)] += 1;
        }
        assert_eq!(histogram(&x, &start), expected, "{case}");
    }
}

/// Random bytes, each value about equally often.
pub fn bytes(n: usize) -> Vec<u8> {
    words(n, 9).into_iter().map(|word| (word >> 24) as u8).collect()
}

#[test]
fn launchers_refuse_by_name() {
    let stream = stream();
    let three = stream.buffer_from(&[1f32, 2.0, 3.0]).expect("three");
    let four = stream.buffer_from(&[0f32; 4]).expect("four");
    let none = stream.buffer_from::<f32>(&[]).expect("none");
    let kernels = kernels();
    let refusals = [
        (
            kernels.axpy_f32(&stream, three.view(), four.view(), 1.0),
            "axpy_f32: y holds 4 elements, expected [3]",
        ),
        (
            kernels.axpy_f32(&stream, none.view(), none.view(), 1.0),
            "axpy_f32: n = 0, expected at least 1",
        ),
        (kernels.axpy_f32(&stream, three.view(), three.view(), 1.0), "axpy_f32: y overlaps x"),
        (
            kernels.softmax_f32(&stream, three.view(), four.slice(..3), 2),
            "softmax_f32: elements of x = 3 is not a multiple of 2",
        ),
    ];
    for (result, expected) in refusals {
        assert_eq!(result.expect_err(expected).to_string(), expected);
    }
}
