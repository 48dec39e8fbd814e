//! Drawing tokens: the kernel against the host's implementation, bit for bit.
//!
//! What the host draws is checked in `host/src/sampling.rs` against sorting and against the
//! frequencies of a softmax.

use gptoss::engine::Sampling;
use gptoss::sampling;
use oracle::random::uniform_f32;
use shared::kernels::rows::NOT_FINITE;

use crate::gpu::{Output, kernels, stream};

/// The tokens the kernel draws from rows of `n` logits, one for each of `draws`.
fn drawn(x: &[f32], n: usize, draws: &[(Sampling, u32)]) -> Vec<u32> {
    let stream = stream();
    assert_eq!(x.len(), n * draws.len());
    let words: Vec<u32> = draws.iter().flat_map(|(s, at)| s.draw(*at).to_words()).collect();
    let ids = Output::new(&stream, draws.len());
    let x = stream.buffer_from(x).expect("x");
    let words = stream.buffer_from(&words).expect("draws");
    kernels().sample(&stream, x.view(), words.view(), ids.view()).expect("sample");
    ids.read(&stream)
}

/// Temperatures and nuclei at their edges, and in between, of all tokens; then the other limits,
/// alone and combined. `n` is the number of tokens.
fn settings(n: usize) -> Vec<Sampling> {
    let temperatures = [1e-45, 1e-3, 0.7, 1.0, 50.0, f32::MAX];
    let shares = [f32::MIN_POSITIVE, 1e-4, 0.5, 0.9, 1.0 - f32::EPSILON / 2.0, 1.0];
    let pairs = temperatures.into_iter().flat_map(|t| shares.map(|p| (t, p)));
    let pairs = [(0.0, 0.3)].into_iter().chain(pairs);
    let nuclei =
        pairs.map(|(temperature, top_p)| Sampling { temperature, top_p, ..Sampling::GREEDY });
    nuclei.chain(limits(n)).collect()
}

fn limits(n: usize) -> impl Iterator<Item = Sampling> {
    let n = n as u32;
    let combined = [
        (1, 0.0),
        (2, 0.0),
        (n / 2, 0.0),
        (n - 1, 0.0),
        (n, 0.0),
        (n + 1, 0.0),
        (u32::MAX, 0.0),
        (0, f32::MIN_POSITIVE),
        (0, 0.05),
        (0, 1.0 - f32::EPSILON / 2.0),
        (1, 1.0 - f32::EPSILON / 2.0),
        (5, 0.3),
        (n, 0.7),
    ];
    combined.into_iter().flat_map(|(top_k, min_p)| {
        [(1.0, 1.0), (0.8, 0.9), (50.0, 0.5)].map(|(temperature, top_p)| Sampling {
            temperature,
            top_p,
            top_k,
            min_p,
            seed: 0,
        })
    })
}

/// Every setting on the logits `row(i)` of `n`.
fn assert_same_as_host(case: &str, n: usize, settings: &[Sampling], row: impl Fn(u32) -> Vec<f32>) {
    let draws: Vec<(Sampling, u32)> = (0..)
        .zip(settings)
        .map(|(i, sampling)| {
            let seed = u64::from(i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (Sampling { seed, ..*sampling }, 3 * i)
        })
        .collect();
    let x: Vec<f32> = (0..).take(draws.len()).flat_map(row).collect();
    let found = drawn(&x, n, &draws);
    for (i, (sampling, at)) in draws.iter().enumerate() {
        let expected = sampling::sample(&x[i * n..][..n], sampling, *at).expect("finite logits");
        assert_eq!(found[i], expected, "{case}, n = {n}, {sampling:?}, position {at}");
    }
}

#[test]
fn draws_are_those_of_the_host() {
    for n in [1, 2, 31, 32, 33, 61, 1024, 1025, 4999] {
        assert_same_as_host("spread over 16", n, &settings(n), |i| {
            uniform_f32(n, 100 + i).into_iter().map(|x| 8.0 * x).collect()
        });
    }
}

#[test]
fn logits_that_are_equal_or_nearly_so() {
    let n = 1301;
    assert_same_as_host("all equal", n, &settings(n), |_| vec![-2.5; n]);
    assert_same_as_host("two levels", n, &settings(n), |i| {
        (0..n).map(|k| if k % (3 + i as usize) == 0 { 1.0 } else { 0.5 }).collect()
    });
    // Around the resolution of a rank, and around that of its upper digit.
    for step in [1.0f32 / (1 << 19) as f32, 1.0 / (1 << 17) as f32, 1.0 / 64.0] {
        assert_same_as_host("a slope", n, &settings(n), |_| {
            (0..n).map(|k| (k * 7919 % n) as f32 * step).collect()
        });
    }
}

#[test]
fn ties_at_the_last_place_go_to_the_lowest_ids() {
    // Three tokens ahead of many equals, so that the k-th place is among these.
    let n = 1301;
    let settings: Vec<Sampling> = [1, 2, 3, 4, 5, 700, 1300]
        .into_iter()
        .flat_map(|top_k| [1.0, 0.6].map(|top_p| (top_k, top_p)))
        .map(|(top_k, top_p)| Sampling { temperature: 9.0, top_p, top_k, ..Sampling::GREEDY })
        .collect();
    let row = |i: u32| {
        let mut x = vec![0.25; n];
        for place in 0..3 {
            x[(i as usize * 331 + place * 517) % n] = 0.5;
        }
        x
    };
    assert_same_as_host("ties", n, &settings, row);
    for seed in 0..20 {
        let sampling = Sampling { temperature: 9.0, top_k: 4, seed, ..Sampling::GREEDY };
        let x = row(1);
        let token = sampling::sample(&x, &sampling, 0).expect("finite logits") as usize;
        assert!(x[token] == 0.5 || token == 0, "seed {seed}: token {token}");
    }
}

#[test]
fn logits_far_apart() {
    let n = 700;
    assert_same_as_host("one token weighs all", n, &settings(n), |i| {
        let mut x = vec![-3.0e38; n];
        x[(i as usize * 131) % n] = 3.0e38;
        x
    });
    // From the largest weight down to nothing, and past the last rank.
    assert_same_as_host("every magnitude of weight", n, &settings(n), |_| {
        (0..n).map(|k| -((k * 131 % n) as f32) * 0.06).collect()
    });
}

#[test]
fn the_real_vocabulary() {
    let full = std::env::var_os("GPTOSS_TEST_FULL").is_some();
    let n = 201_088;
    let all = Sampling { temperature: 1.0, ..Sampling::GREEDY };
    let few = vec![
        Sampling { top_p: 0.9, ..all },
        Sampling { temperature: 0.8, ..all },
        Sampling { top_k: 50, top_p: 0.95, min_p: 0.05, ..all },
    ];
    let settings = if full { settings(n) } else { few };
    assert_same_as_host("gpt-oss", n, &settings, |i| {
        uniform_f32(n, 7 + i).into_iter().map(|x| 12.0 * x).collect()
    });
}

#[test]
fn what_is_not_finite_is_told() {
    let n = 1300;
    let sampled = (Sampling { temperature: 1.0, top_p: 0.9, top_k: 3, min_p: 0.5, seed: 1 }, 5);
    for draw in [sampled, (Sampling::GREEDY, 5)] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = uniform_f32(2 * n, 8);
            x[700] = bad;
            let expected = sampling::sample(&x[n..], &draw.0, 5).expect("finite logits");
            assert_eq!(drawn(&x, n, &[draw, draw]), [NOT_FINITE, expected], "{bad}");
        }
    }
}

#[test]
fn a_row_is_drawn_alike_among_others() {
    let n = 997;
    let x = uniform_f32(40 * n, 9);
    let draw =
        |i: u32| (Sampling { temperature: 0.9, top_p: 0.8, seed: i.into(), ..Sampling::GREEDY }, i);
    let draws: Vec<(Sampling, u32)> = (0..40).map(draw).collect();
    let all = drawn(&x, n, &draws);
    for i in [0, 17, 39] {
        assert_eq!(drawn(&x[i * n..][..n], n, &draws[i..=i]), [all[i]], "row {i}");
    }
    assert!(all.iter().any(|&id| id != all[0]), "every row drew the same");
}
