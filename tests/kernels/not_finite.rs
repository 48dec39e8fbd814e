//! A NaN or an infinity in one place of one input of each kernel reaches the results that depend on
//! it, and no other. `argmax`, `sample` and `embed` say so in their own files.

use gptoss::gpu::launch::linear::{DenseFormat, LinearPath, LinearShape, Store};
use gptoss::gpu::launch::moe::{ExpertFormat, Routing};
use oracle::basics::assert_reaches;
use oracle::random::{uniform_bf16, uniform_f32};
use shared::bf16;
use shared::block::{STEP, tiled_index, tiled_len};
use shared::kv::{key_index, value_index};

use super::attention::{LAYER, Layer, Sequence, Step, Way, run_step};
use super::basics::{rmsnorm, softmax};
use super::linear::{self, Case};
use super::moe::{self, Experts, Order};
use super::rows::{Rope, norm};
use crate::gpu::{Output, as_bf16, kernels, stream};

const BAD: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
const NAN: u16 = bf16::from_f32(f32::NAN);

#[test]
fn in_a_row_that_is_normalised() {
    let (n, rows) = (160, 20);
    let (x, weight) = (uniform_f32(rows * n, 1), uniform_f32(n, 2));
    let run = |x: &[f32], weight: &[f32]| -> Vec<f32> {
        norm(x, weight, None).concat().into_iter().map(bf16::to_f32).collect()
    };
    let clean = run(&x, &weight);
    for bad in BAD {
        let mut spoiled = x.clone();
        spoiled[17 * n + 70] = bad;
        let got = run(&spoiled, &weight);
        // An infinite sum of squares makes the row's other elements zero.
        let row = |i: usize| i / n == 17;
        let others: Vec<f32> = got
            .iter()
            .enumerate()
            .map(|(i, &y)| if row(i) && i % n != 70 { 0.0 } else { y })
            .collect();
        let zeroed: Vec<f32> = clean
            .iter()
            .enumerate()
            .map(|(i, &y)| if row(i) && i % n != 70 { 0.0 } else { y })
            .collect();
        assert_reaches("x", &zeroed, &others, |i| i == 17 * n + 70);
        if bad.is_nan() {
            assert_reaches("NaN in x", &clean, &got, row);
        }
        let mut spoiled = weight.clone();
        spoiled[33] = bad;
        assert_reaches("weight", &clean, &run(&x, &spoiled), |i| i % n == 33);
    }
}

#[test]
fn in_a_head_that_is_rotated() {
    let (shape, positions) = ([6, 2, 32], [3, 70, 9]);
    let (width, dim) = (10, 32);
    let qkv = uniform_f32(positions.len() * width * dim, 3);
    let angles = uniform_f32(71 * dim, 4);
    let run =
        |qkv: &[f32], angles: &[f32]| Rope { shape, qkv, angles, positions: &positions }.values();
    let clean = run(&qkv, &angles);
    for bad in BAD {
        // A query, a key, and a value, which is not rotated.
        for (row, head, d) in [(0, 4, 5), (1, 7, 31), (2, 9, 16)] {
            let mut spoiled = qkv.clone();
            spoiled[(row * width + head) * dim + d] = bad;
            let own = |i: usize| i / dim == row * width + head;
            let reached =
                |i: usize| own(i) && if head < 8 { i % 16 == d % 16 } else { i % dim == d };
            assert_reaches(&format!("head {head}"), &clean, &run(&spoiled, &angles), reached);
        }
        let mut spoiled = angles.clone();
        spoiled[70 * dim + 2] = bad;
        let reached = |i: usize| i / dim / width == 1 && i / dim % width < 8 && i % 16 == 2;
        assert_reaches("angles", &clean, &run(&qkv, &spoiled), reached);
    }
}

#[test]
fn in_a_dense_product() {
    let (n, k) = (40, 96);
    for path in linear::PATHS {
        let rows = if path == LinearPath::Skinny { 9 } else { 20 };
        let shape = LinearShape { n, rows, k };
        for (format, store) in [
            (DenseFormat::Bf16, Store::Replace),
            (DenseFormat::Bf16, Store::Add),
            (DenseFormat::Mxint8, Store::Replace),
        ] {
            let name = |what| format!("{what}, {path:?} {format:?} {store:?}");
            let clean = Case::new(shape).run(format, path, store);
            let spoiled = |spoil: &dyn Fn(&mut Case)| {
                let mut case = Case::new(shape);
                spoil(&mut case);
                case.run(format, path, store)
            };
            for bad in BAD {
                let got = spoiled(&|case| case.x[7 * k + 50] = bf16::from_f32(bad));
                assert_reaches(&name("x"), &clean, &got, |i| i / n == 7);
                let got = spoiled(&|case| case.bias[33] = bad);
                assert_reaches(&name("bias"), &clean, &got, |i| i % n == 33);
                if format == DenseFormat::Bf16 {
                    let got = spoiled(&|case| case.w[39 * k + 95] = bf16::from_f32(bad));
                    assert_reaches(&name("w"), &clean, &got, |i| i % n == 39);
                }
                if store == Store::Add {
                    let got = spoiled(&|case| case.old[3 * n + 4] = bad);
                    assert_reaches(&name("out"), &clean, &got, |i| i == 3 * n + 4);
                }
            }
        }
    }
}

#[test]
fn among_the_logits_of_a_router() {
    for (experts, top_k) in [(1, 1), (7, 3), (32, 4), (129, 4)] {
        let routing = Routing { rows: 3, experts, top_k };
        let logits = uniform_f32(3 * experts, 5);
        let (clean_ids, clean) = moe::route(routing, &logits);
        for at in [0, experts / 2, experts - 1] {
            for bad in [f32::NAN, f32::INFINITY] {
                let mut spoiled = logits.clone();
                spoiled[experts + at] = bad;
                let (ids, weights) = moe::route(routing, &spoiled);
                let case = format!("{bad} at {at} of {experts}");
                assert_reaches(&case, &clean, &weights, |i| i / top_k == 1);
                assert!(ids.iter().all(|&id| (id as usize) < experts), "{case}: {ids:?}");
                assert_eq!(ids[..top_k], clean_ids[..top_k], "{case}");
            }
        }
        let all = [&logits[..experts], &vec![f32::NAN; experts], &logits[2 * experts..]].concat();
        let (ids, weights) = moe::route(routing, &all);
        assert_reaches("all NaN", &clean, &weights, |i| i / top_k == 1);
        assert!(ids.iter().all(|&id| (id as usize) < experts), "all NaN: {ids:?}");
    }
}

const ROUTING: Routing = Routing { rows: 20, experts: 3, top_k: 2 };

/// Two experts of each token.
fn ids() -> Vec<u32> {
    (0..20).flat_map(|row| [row % 3, (row + 1) % 3]).collect()
}

#[test]
fn in_the_first_product_of_an_expert() {
    let (units, k) = (32, 64);
    let x = uniform_bf16(ROUTING.rows * k, 6);
    for (format, path) in moe::FORMATS.into_iter().flat_map(|f| moe::PATHS.map(|p| (f, p))) {
        let experts = || Experts::new(3, format, [2 * units, k], gptoss::gpu::pack::gate_up_row);
        let run = |experts: &Experts, x: &[u16]| moe::gate_up(ROUTING, path, experts, &ids(), x);
        let clean = run(&experts(), &x);
        let name = |what| format!("{what}, {format:?} {path:?}");
        let mut spoiled = x.clone();
        spoiled[11 * k + 9] = NAN;
        let got = run(&experts(), &spoiled);
        assert_reaches(&name("x"), &clean, &got, |i| i / units / 2 == 11);
        // Unit 17 of expert 1: the second pair of row tiles, its gate, then its up.
        for p in [33, 49] {
            let mut experts = experts();
            experts.bias[2 * units + p] = f32::NAN;
            let reached = |i: usize| ids()[i / units] == 1 && i % units == 17;
            assert_reaches(&name("bias"), &clean, &run(&experts, &x), reached);
        }
    }
}

#[test]
fn in_the_second_product_of_an_expert() {
    let (n, k) = (48, 64);
    let stream = stream();
    let slots = ROUTING.max_slots();
    for (format, path) in moe::FORMATS.into_iter().flat_map(|f| moe::PATHS.map(|p| (f, p))) {
        let order = Order::of(&stream, ROUTING, path, &ids());
        let slot_of = order.slot_of.read(&stream);
        let run = |experts: &Experts, act: &[u16]| {
            let act = moe::tiled(&stream, act, [slots, k]);
            let y = Output::new(&stream, slots * n);
            experts.with(&stream, |weights| {
                let (sorted, act, y) = (order.view(), as_bf16(act.view()), y.view());
                // SAFETY: the order is of this routing and path.
                unsafe { kernels().moe_down(&stream, ROUTING, path, weights, sorted, act, y) }
                    .expect("moe_down");
            });
            moe::by_assignment(&y.read(&stream), n, &slot_of)
        };
        let experts = || Experts::new(3, format, [n, k], |row| row);
        let act = uniform_bf16(slots * k, 7);
        let clean = run(&experts(), &act);
        let name = |what| format!("{what}, {format:?} {path:?}");
        for bad in BAD {
            let mut spoiled = act.clone();
            spoiled[slot_of[13] as usize * k + 63] = bf16::from_f32(bad);
            assert_reaches(&name("act"), &clean, &run(&experts(), &spoiled), |i| i / n == 13);
            let mut experts = experts();
            experts.bias[2 * n + 47] = bad;
            let reached = |i: usize| ids()[i / n] == 2 && i % n == 47;
            assert_reaches(&name("bias"), &clean, &run(&experts, &act), reached);
        }
    }
}

#[test]
fn in_what_is_combined() {
    let (n, stream) = (1030, stream());
    let order = Order::of(&stream, ROUTING, moe::PATHS[0], &ids());
    let slot_of = order.slot_of.read(&stream);
    let inputs = [
        uniform_f32(ROUTING.max_slots() * n, 8),
        uniform_f32(ROUTING.assignments(), 9),
        uniform_f32(ROUTING.rows * n, 10),
    ];
    let run = |[y, weights, old]: [&[f32]; 3]| {
        let out = Output::new(&stream, old.len());
        stream.upload(out.view(), old).expect("out");
        let y = stream.buffer_from(y).expect("y");
        let weights = stream.buffer_from(weights).expect("weights");
        let (y, slots, weights) = (y.view(), order.slot_of.view(), weights.view());
        // SAFETY: the order is of this routing.
        unsafe { kernels().moe_combine(&stream, ROUTING, y, slots, weights, out.view(), n) }
            .expect("moe_combine");
        out.read(&stream)
    };
    let clean = run(inputs.each_ref().map(Vec::as_slice));
    for bad in BAD {
        let spoiled = |which: usize, at: usize| {
            let mut inputs = inputs.clone();
            inputs[which][at] = bad;
            run(inputs.each_ref().map(Vec::as_slice))
        };
        let at = slot_of[13] as usize * n + 1029;
        assert_reaches("y", &clean, &spoiled(0, at), |i| i == 6 * n + 1029);
        assert_reaches("weights", &clean, &spoiled(1, 7), |i| i / n == 3);
        assert_reaches("out", &clean, &spoiled(2, 5 * n + 2), |i| i == 5 * n + 2);
    }
}

/// Output of each query head as values, `[rows, heads, head_dim]`.
fn attend(layer: &Layer, step: &Step, sinks: &[f32], way: Way) -> Vec<f32> {
    run_step(layer, step, sinks, way).into_iter().map(bf16::to_f32).collect()
}

#[test]
fn in_what_attention_reads() {
    let sequences = [
        Sequence { seed: 1, new: 1, context: 150 },
        Sequence { seed: 2, new: 30, context: 140 },
        Sequence { seed: 3, new: 1, context: 40 },
    ];
    for window in [None, Some(20)] {
        let layer = Layer { kv_heads: 2, group: 3, window, ..LAYER };
        let (dim, heads, rows) = (layer.head_dim, layer.heads(), 32);
        let (clean_step, sinks) = (Step::new(&layer, &sequences), layer.sinks());
        // Row, head of an element of the output.
        let of = |i: usize| (i / dim / heads, i / dim % heads);
        for way in [Way::Split, Way::Whole] {
            let name = |what| format!("{what}, window {window:?}, {way:?}");
            let clean = attend(&layer, &clean_step, &sinks, way);
            let spoiled = |spoil: &dyn Fn(&mut Step)| {
                let mut step = Step::new(&layer, &sequences);
                spoil(&mut step);
                attend(&layer, &step, &sinks, way)
            };
            // Head 4 of the tenth row is query row 31 of the second KV head.
            let at = tiled_len(rows * 3, dim) + tiled_index(31, 17, dim / STEP);
            let got = spoiled(&|step| step.q[at] = NAN);
            assert_reaches(&name("q"), &clean, &got, |i| of(i) == (10, 4));

            // Position 125 of the second sequence, whose rows are at 110 to 139.
            let position = 125;
            let sees = |row: usize| {
                let own = clean_step.positions[row] as usize;
                (1..31).contains(&row) && layer.first_seen(own) <= position && position <= own
            };
            let at = key_index(1, dim, position, 3);
            let got = spoiled(&|step| step.page(&layer, 1, position)[at] = NAN);
            let reached = |i: usize| sees(of(i).0) && of(i).1 >= 3;
            assert_reaches(&name("keys"), &clean, &got, reached);

            // Other rows of the sequence may become NaN too, no other sequence's may.
            let at = value_index(2, 1, dim, position, 3);
            let mut got = spoiled(&|step| step.page(&layer, 1, position)[at] = NAN);
            let reached = |i: usize| reached(i) && i % dim == 3;
            for i in (0..got.len()).filter(|&i| (1..31).contains(&of(i).0) && !reached(i)) {
                assert!(got[i].is_nan() && i % dim == 3 || got[i] == clean[i], "{i}");
                got[i] = clean[i];
            }
            assert_reaches(&name("values"), &clean, &got, reached);

            for bad in [f32::NAN, f32::INFINITY] {
                let mut sinks = sinks.clone();
                sinks[2] = bad;
                let got = attend(&layer, &clean_step, &sinks, way);
                assert_reaches(&name("sinks"), &clean, &got, |i| of(i).1 == 2);
            }
        }
    }
}

#[test]
fn in_a_row_of_softmax_and_of_plain_rmsnorm() {
    let n = 300;
    let x = uniform_f32(3 * n, 11);
    let weight = uniform_bf16(n, 12);
    let (clean, normed) = (softmax(&x, n), rmsnorm(&x, &weight));
    for at in [n, n + 299] {
        let mut spoiled = x.clone();
        spoiled[at] = f32::NAN;
        assert_reaches("softmax", &clean, &softmax(&spoiled, n), |i| i / n == 1);
        assert_reaches("rmsnorm", &normed, &rmsnorm(&spoiled, &weight), |i| i / n == 1);
        spoiled[at] = f32::INFINITY;
        assert_reaches("softmax", &clean, &softmax(&spoiled, n), |i| i / n == 1);
    }
}

/// bf16 weights of experts may be NaN as published.
#[test]
fn in_a_weight_of_an_expert() {
    let (units, k) = (32, 64);
    let x = uniform_bf16(ROUTING.rows * k, 6);
    for path in moe::PATHS {
        let row = gptoss::gpu::pack::gate_up_row;
        let mut experts = Experts::new(3, ExpertFormat::Bf16, [2 * units, k], row);
        let run = |experts: &Experts| moe::gate_up(ROUTING, path, experts, &ids(), &x);
        let clean = run(&experts);
        experts.spoil(1, 33, 20, NAN);
        let reached = |i: usize| ids()[i / units] == 1 && i % units == 17;
        assert_reaches(&format!("w, {path:?}"), &clean, &run(&experts), reached);
    }
}
