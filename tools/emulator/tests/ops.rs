//! Results of single operations, as clang compiles them, against the host's own arithmetic.

use std::sync::Arc;

use emulator::{Chip, CodeImage, Launch, Memory, Options, Owner, launch};

/// Inputs and results of one lane.
type Reference = fn(u64, u64, u64) -> u64;

/// How two results are compared.
#[derive(Clone, Copy)]
enum Kind {
    /// Bit for bit.
    Bits,
    /// As floats of so many bits: any NaN equals any NaN.
    Float(u32),
}
use Kind::{Bits, Float};

/// Lanes per kernel: all pairs of edges, then random values.
const LANES: usize = 64 * 64;

fn f(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

fn d(x: u64) -> f64 {
    f64::from_bits(x)
}

fn bits(x: f32) -> u64 {
    u64::from(x.to_bits())
}

/// Value of a half, by definition of the format.
fn h(x: u64) -> f64 {
    let (exponent, mantissa) = ((x >> 10 & 31) as i32, (x & 0x3ff) as f64);
    let sign = if x & 0x8000 != 0 { -1.0 } else { 1.0 };
    match exponent {
        0 => sign * mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => sign * f64::INFINITY,
        31 => f64::NAN,
        e => sign * (1024.0 + mantissa) * 2f64.powi(e - 25),
    }
}

/// The half nearest to `x`, ties to even: `x` in units of the last place there, rounded.
fn half(x: f64) -> u64 {
    let sign = u64::from(x.is_sign_negative()) << 15;
    if x.is_nan() {
        return 0x7e00;
    }
    let exponent = if x == 0.0 { -14 } else { x.abs().log2().floor().clamp(-14.0, 16.0) as i32 };
    let units = (x.abs() / 2f64.powi(exponent - 10)).round_ties_even();
    // A mantissa that rounds up to the next power of two carries into the exponent.
    let encoded = ((exponent + 14) as f64) * 1024.0 + units;
    sign | (encoded.min(31744.0) as u64)
}

#[rustfmt::skip]
const OPERATIONS: &[(&str, Kind, Reference)] = &[
    ("add_f32", Float(32), |a, b, _| bits(f(a) + f(b))),
    ("mul_f32", Float(32), |a, b, _| bits(f(a) * f(b))),
    ("div_f32", Float(32), |a, b, _| bits(f(a) / f(b))),
    ("fma_f32", Float(32), |a, b, c| bits(f(a).mul_add(f(b), f(c)))),
    ("sqrt_f32", Float(32), |a, _, _| bits(f(a).sqrt())),
    ("floor_f32", Float(32), |a, _, _| bits(f(a).floor())),
    ("rint_f32", Float(32), |a, _, _| bits(f(a).round_ties_even())),
    ("less_f32", Bits, |a, b, _| u64::from(f(a) < f(b))),
    ("unequal_f32", Bits, |a, b, _| u64::from(f(a) != f(b))),
    ("select_negated_f32", Float(32), |a, b, c| {
        let x = f(b) * f(c);
        bits(if x < f(a) { -x.abs() } else { x })
    }),
    ("add_f64", Float(64), |a, b, _| (d(a) + d(b)).to_bits()),
    ("fma_f64", Float(64), |a, b, c| d(a).mul_add(d(b), d(c)).to_bits()),
    ("sqrt_f64", Float(64), |a, _, _| d(a).sqrt().to_bits()),
    ("trunc_f64", Float(64), |a, _, _| d(a).trunc().to_bits()),
    ("less_equal_f64", Bits, |a, b, _| u64::from(d(a) <= d(b))),
    ("add_f16", Float(16), |a, b, _| half(h(a) + h(b))),
    ("mul_f16", Float(16), |a, b, _| half(h(a) * h(b))),
    ("div_f16", Float(16), |a, b, _| half(h(a) / h(b))),
    ("f16_to_f32", Float(32), |a, _, _| bits(h(a) as f32)),
    ("f32_to_f16", Float(16), |a, _, _| half(f64::from(f(a)))),
    ("f64_to_f32", Float(32), |a, _, _| bits(d(a) as f32)),
    ("i64_to_f32", Float(32), |a, _, _| bits(a.cast_signed() as f32)),
    ("u64_to_f64", Float(64), |a, _, _| (a as f64).to_bits()),
    ("div_u32", Bits, |a, b, _| u64::from(a as u32 / (b as u32 | 1))),
    ("rem_u64", Bits, |a, b, _| a % (b | 1)),
    ("div_i64", Bits, |a, b, _| (a.cast_signed() / ((b >> 1).cast_signed() | 1)).cast_unsigned()),
    ("mul_add_u64", Bits, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
    ("mul_high_u64", Bits, |a, b, _| ((u128::from(a) * u128::from(b)) >> 64) as u64),
    ("shift_left_u64", Bits, |a, b, _| a << (b & 63)),
    ("shift_right_i64", Bits, |a, b, _| (a.cast_signed() >> (b & 63)).cast_unsigned()),
    ("rotate_u32", Bits, |a, b, _| u64::from((a as u32).rotate_left(b as u32 & 31))),
    ("count_ones_u64", Bits, |a, _, _| u64::from(a.count_ones())),
    ("leading_zeros_u64", Bits, |a, _, _| u64::from((a | 1).leading_zeros())),
    ("reverse_bits_u64", Bits, |a, _, _| a.reverse_bits()),
    ("swap_bytes_u64", Bits, |a, _, _| a.swap_bytes()),
    ("add_saturating_u32", Bits, |a, b, _| u64::from((a as u32).saturating_add(b as u32))),
    ("sub_saturating_i32", Bits, |a, b, _| u64::from((a as i32).saturating_sub(b as i32) as u32)),
    ("add_saturating_i16", Bits, |a, b, _| u64::from((a as i16).saturating_add(b as i16) as u16)),
    ("mul_add_u16", Bits, |a, b, c| a.wrapping_mul(b).wrapping_add(c) & 0xffff),
    ("max_i16", Bits, |a, b, _| u64::from((a as i16).max(b as i16) as u16)),
    ("min_i32", Bits, |a, b, _| u64::from((a as i32).min(b as i32) as u32)),
    ("select_bits_u64", Bits, |a, b, c| a & b | !a & c),
];

/// Zeros, ones, denormals, largest and smallest normals, infinities, NaNs and integer limits of
/// every width.
const EDGES: [u64; 32] = [
    0,
    1,
    0x3ff,
    0x400,
    0x7bff,
    0x7c00,
    0x7e00,
    0x8000,
    0x8001,
    0xbc00,
    0xfc00,
    0xffff,
    0x007f_ffff,
    0x0080_0000,
    0x3f80_0000,
    0x7e80_0000,
    0x7f00_0000,
    0x7f7f_ffff,
    0x7f80_0000,
    0x7fc0_0000,
    0x7fff_ffff,
    0x8000_0000,
    0x8000_0001,
    0xbf80_0000,
    0xff80_0000,
    0xffff_ffff,
    0x000f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x3ff0_0000_0000_0000,
    0x7ff0_0000_0000_0000,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_ffff,
];

/// Three inputs of `lane`.
fn inputs(lane: usize) -> [u64; 3] {
    let random = |k: usize| {
        let mut x = ((lane * 3 + k + 1) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ x >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x ^ x >> 29
    };
    let edge = |k: usize| EDGES[k % EDGES.len()];
    if lane < EDGES.len() * EDGES.len() {
        [edge(lane), edge(lane / EDGES.len()), edge(lane * 7 + 3)]
    } else {
        [random(0), random(1), random(2)]
    }
}

fn is_nan(x: u64, width: u32) -> bool {
    match width {
        16 => h(x).is_nan(),
        32 => f(x).is_nan(),
        _ => d(x).is_nan(),
    }
}

#[test]
fn operations_agree_with_the_host() {
    let memory = Arc::new(Memory::new());
    let bytes = include_bytes!("data/ops.co");
    let code = CodeImage::load(&memory, Owner::Device(0), Chip::Gfx1151, bytes).unwrap();
    let buffers = [0, 1, 2, 3].map(|_| memory.allocate(Owner::Device(0), 8 * LANES).unwrap());
    for (k, buffer) in buffers[..3].iter().enumerate() {
        let bytes: Vec<u8> = (0..LANES).flat_map(|lane| inputs(lane)[k].to_le_bytes()).collect();
        memory.write(*buffer, &bytes).unwrap();
    }
    let kernarg: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.to_le_bytes()).collect();
    for &(kernel, kind, reference) in OPERATIONS {
        memory.fill(buffers[3], &[0xcd], 8 * LANES).unwrap();
        let launched = Launch {
            code: &code,
            kernel,
            grid: [(LANES / 64) as u32, 1, 1],
            block: [64, 1, 1],
            dynamic_lds: 0,
            kernarg: &kernarg,
        };
        launch(&memory, &launched, &Options::default()).unwrap_or_else(|e| panic!("{kernel}: {e}"));
        let mut out = vec![0; 8 * LANES];
        memory.read(buffers[3], &mut out).unwrap();
        for (lane, bytes) in out.as_chunks::<8>().0.iter().enumerate() {
            let [a, b, c] = inputs(lane);
            let (got, expected) = (u64::from_le_bytes(*bytes), reference(a, b, c));
            let both_nan =
                matches!(kind, Float(width) if is_nan(got, width) && is_nan(expected, width));
            assert!(
                got == expected || both_nan,
                "{kernel}({a:#x}, {b:#x}, {c:#x}) is {got:#x}, not {expected:#x}"
            );
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let memory = Arc::new(Memory::new());
    let bytes = include_bytes!("data/ops.co");
    let code = CodeImage::load(&memory, Owner::Device(0), Chip::Gfx1151, bytes).unwrap();
    let buffers = [0, 1, 2, 3].map(|_| memory.allocate(Owner::Device(0), 8 * LANES).unwrap());
    for buffer in &buffers[..3] {
        let bytes: Vec<u8> = (0..LANES).flat_map(|lane| inputs(lane)[0].to_le_bytes()).collect();
        memory.write(*buffer, &bytes).unwrap();
    }
    let kernarg: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.to_le_bytes()).collect();
    let run = |threads| {
        let launched = Launch {
            code: &code,
            kernel: "div_f32",
            grid: [(LANES / 64) as u32, 1, 1],
            block: [64, 1, 1],
            dynamic_lds: 0,
            kernarg: &kernarg,
        };
        let options = Options { threads, ..Options::default() };
        let counters = launch(&memory, &launched, &options).unwrap();
        let mut out = vec![0; 8 * LANES];
        memory.read(buffers[3], &mut out).unwrap();
        (counters, out)
    };
    let alone = run(1);
    for threads in [2, 3, 8] {
        assert!(run(threads) == alone, "{threads} threads");
    }
}
