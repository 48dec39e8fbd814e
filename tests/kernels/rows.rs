//! Embedding, RMSNorm into tiles, rotation into the cache, argmax.

use gptoss::gpu::launch::rows::{Heads, RopeKv};
use oracle::basics::{assert_close, rmsnorm_bf16, rotated};
use oracle::random::{uniform_bf16, uniform_f32, words};
use shared::bf16;
use shared::block::{ROWS, STEP, tiled_index, tiled_len};
use shared::kernels::rows::{FROM_CHOSEN, NOT_FINITE};
use shared::kv::{PAGE, key_index, page_len, value_index};

use crate::gpu::{Output, as_bf16, kernels, stream};

/// The rows that `embed` writes for `tokens` over a table of eleven rows of `n`.
fn embedded(table: &[u16], n: usize, tokens: &[u32], chosen: &[u32]) -> Vec<f32> {
    let stream = stream();
    let x = Output::new(&stream, tokens.len() * n);
    let table = stream.buffer_from(table).expect("table");
    let tokens = stream.buffer_from(tokens).expect("tokens");
    let chosen = stream.buffer_from(chosen).expect("chosen");
    let (table, tokens, chosen) = (as_bf16(table.view()), tokens.view(), chosen.view());
    kernels().embed(&stream, table, tokens, chosen, x.view(), n).expect("embed");
    x.read(&stream)
}

#[test]
fn embedding_copies_the_rows_asked_for() {
    for (case, n, tokens) in [
        ("smallest width", 32, vec![0]),
        ("first and last row, one twice", 96, vec![10, 0, 10]),
        ("hidden size of gpt-oss", 2880, (0..65).map(|i| i * 7 % 11).collect()),
    ] {
        let table = uniform_bf16(11 * n, 1);
        let expected = tokens.iter().flat_map(|&t| &table[t as usize * n..][..n]);
        let expected: Vec<f32> = expected.map(|&v| bf16::to_f32(v)).collect();
        assert_eq!(embedded(&table, n, &tokens, &[0]), expected, "{case}");
    }
}

#[test]
fn embedding_takes_tokens_that_were_chosen_on_the_device() {
    let chosen = [7, 10, NOT_FINITE, 0, 11];
    let from = |index: u32| FROM_CHOSEN | index;
    const NONE: Option<u32> = None;
    for (case, tokens, rows) in [
        ("chosen", vec![from(0), from(3), from(1)], vec![Some(7), Some(0), Some(10)]),
        ("plain, beside choices of the same index", vec![0, 3, 1], vec![Some(0), Some(3), Some(1)]),
        ("not finite", vec![from(2)], vec![NONE]),
        ("first past the table", vec![11, from(4)], vec![NONE, NONE]),
        ("first past the choices, last of all", vec![from(5), u32::MAX], vec![NONE, NONE]),
        (
            "mixed",
            vec![from(1), 5, from(2), from(0), 0, from(1)],
            vec![Some(10), Some(5), NONE, Some(7), Some(0), Some(10)],
        ),
    ] {
        // More pairs than threads, and not a multiple of them.
        let n = 546;
        let table = uniform_bf16(11 * n, 2);
        let x = embedded(&table, n, &tokens, &chosen);
        for (row, (x, token)) in x.chunks(n).zip(rows).enumerate() {
            match token {
                Some(token) => {
                    let expected =
                        table[token as usize * n..][..n].iter().map(|&v| bf16::to_f32(v));
                    assert!(x.iter().copied().eq(expected), "{case}, row {row}");
                }
                // Output is poisoned with a NaN of another sign.
                None => assert!(
                    x.iter().all(|v| v.to_bits() == f32::NAN.to_bits()),
                    "{case}, row {row}: {x:?}"
                ),
            }
        }
    }
}

/// Rows of the tiled output, bits; rows beyond those written stay poisoned.
pub(super) fn norm(x: &[f32], weight: &[f32], gather: Option<&[u32]>) -> Vec<Vec<u16>> {
    let (stream, n) = (stream(), weight.len());
    let count = gather.map_or(x.len() / n, <[u32]>::len);
    let y = Output::<u16>::new(&stream, tiled_len(count, n));
    let x = stream.buffer_from(x).expect("x");
    let weight = stream.buffer_from(weight).expect("weight");
    let (x, weight, out) = (x.view(), weight.view(), as_bf16(y.view()));
    match gather {
        None => kernels().rmsnorm_tiled(&stream, x, weight, out, 1e-5),
        Some(rows) => {
            let rows = stream.buffer_from(rows).expect("rows");
            // SAFETY: the tests name rows of x.
            unsafe { kernels().rmsnorm_tiled_rows(&stream, x, weight, rows.view(), out, 1e-5) }
        }
    }
    .expect("rmsnorm_tiled");
    let y = y.read(&stream);
    for row in count..count.next_multiple_of(ROWS) {
        assert!(
            (0..n).all(|k| y[tiled_index(row, k, n / STEP)] == u16::MAX),
            "padding was written"
        );
    }
    let at = |row| (0..n).map(|k| y[tiled_index(row, k, n / STEP)]).collect();
    (0..count).map(at).collect()
}

#[test]
fn tiled_rmsnorm_matches_the_oracle() {
    for (case, n, rows) in [
        ("one block", 32, 1),
        ("odd blocks, one row past a tile", 96, 17),
        ("hidden size of gpt-oss", 2880, 65),
        ("one chunk past a pass of the workgroup", 2080, 2),
    ] {
        let (x, weight) = (uniform_f32(rows * n, 1), uniform_f32(n, 2));
        let exact: Vec<f64> = weight.iter().map(|&w| w.into()).collect();
        for (row, (x, got)) in x.chunks(n).zip(norm(&x, &weight, None)).enumerate() {
            let got: Vec<f32> = got.into_iter().map(bf16::to_f32).collect();
            // Eight elements at a time, 256 threads: no longer a chain than one thread in 32.
            let expected = rmsnorm_bf16(x, &exact, 1e-5, 32);
            assert_close(&format!("{case}, row {row}"), &got, &expected);
        }
    }
}

#[test]
fn a_row_is_normalised_alike_alone_gathered_and_among_others() {
    let (n, rows) = (160, 40);
    let (x, weight) = (uniform_f32(rows * n, 3), uniform_f32(n, 4));
    let all = norm(&x, &weight, None);
    let gather = [39, 0, 16, 39];
    for (&row, got) in gather.iter().zip(norm(&x, &weight, Some(&gather))) {
        let row = row as usize;
        assert_eq!(got, all[row], "row {row} gathered");
        assert_eq!(norm(&x[row * n..][..n], &weight, None)[0], all[row], "row {row} alone");
    }
}

/// A step's rotation: every row has a page of its own, from the last to the first.
pub(super) struct Rope<'a> {
    /// Heads, KV heads, elements of a head.
    pub(super) shape: [usize; 3],
    pub(super) qkv: &'a [f32],
    pub(super) angles: &'a [f32],
    pub(super) positions: &'a [u32],
}

impl Rope<'_> {
    fn page_of(&self) -> Vec<u32> {
        (0..self.positions.len() as u32).rev().collect()
    }

    fn q_head(&self) -> usize {
        let [heads, kv_heads, dim] = self.shape;
        (self.positions.len() * heads / kv_heads).next_multiple_of(ROWS) * dim
    }

    /// Queries and pages.
    fn run(&self) -> (Vec<u16>, Vec<u16>) {
        let (stream, rows) = (stream(), self.positions.len());
        let [heads, kv_heads, dim] = self.shape;
        let (q, pages) = (
            Output::<u16>::new(&stream, kv_heads * self.q_head()),
            Output::<u16>::new(&stream, rows * page_len(kv_heads, dim)),
        );
        let on_device = |x: &[f32]| stream.buffer_from(x).expect("an input");
        let indices = |x: &[u32]| stream.buffer_from(x).expect("indices");
        let (d_qkv, d_angles) = (on_device(self.qkv), on_device(self.angles));
        let (d_positions, d_pages) = (indices(self.positions), indices(&self.page_of()));
        let buffers = RopeKv {
            qkv: d_qkv.view(),
            rope: d_angles.view(),
            positions: d_positions.view(),
            page_of: d_pages.view(),
            q: as_bf16(q.view()),
            pages: as_bf16(pages.view()),
        };
        let shape = Heads { heads, kv_heads, head_dim: dim };
        // SAFETY: angles reach the last position, pages are below `rows`, one for each.
        unsafe { kernels().qkv_rope_kv(&stream, shape, buffers) }.expect("qkv_rope_kv");
        (q.read(&stream), pages.read(&stream))
    }

    /// Head `head` of `row`: queries, keys, then values.
    fn head<'b>(&self, (q, pages): (&'b [u16], &'b [u16]), row: usize, head: usize) -> Vec<u16> {
        let [heads, kv_heads, dim] = self.shape;
        let (group, position) = (heads / kv_heads, self.positions[row] as usize);
        let page = &pages[self.page_of()[row] as usize * page_len(kv_heads, dim)..];
        let place = |d: usize| {
            if head < heads {
                let query = row * group + head % group;
                q[head / group * self.q_head() + tiled_index(query, d, dim / STEP)]
            } else if head < heads + kv_heads {
                page[key_index(head - heads, dim, position, d)]
            } else {
                page[value_index(kv_heads, head - heads - kv_heads, dim, position, d)]
            }
        };
        (0..dim).map(place).collect()
    }

    /// `[rows, heads + 2 kv_heads, dim]`
    pub(super) fn values(&self) -> Vec<f32> {
        let (q, pages) = self.run();
        let [heads, kv_heads, _] = self.shape;
        let width = heads + 2 * kv_heads;
        let at = |i| self.head((&q, &pages), i / width, i % width);
        (0..self.positions.len() * width).flat_map(at).map(bf16::to_f32).collect()
    }
}

fn rope_case(case: &str, shape: [usize; 3], positions: &[u32]) {
    let ([heads, kv_heads, dim], rows) = (shape, positions.len());
    let width = heads + 2 * kv_heads;
    let qkv = uniform_f32(rows * width * dim, 5);
    let angles = uniform_f32((1 + *positions.iter().max().expect("a row") as usize) * dim, 6);
    let rope = Rope { shape, qkv: &qkv, angles: &angles, positions };
    let (q, pages) = rope.run();

    let mut written = 0;
    for (row, &position) in positions.iter().enumerate() {
        let position = position as usize;
        for head in 0..width {
            let from = &qkv[(row * width + head) * dim..][..dim];
            let angles = &angles[position * dim..][..dim];
            let what = format!("{case}, row {row}, head {head}");
            let got = rope.head((&q, &pages), row, head);
            if head >= heads + kv_heads {
                let expected: Vec<u16> = from.iter().map(|&v| bf16::from_f32(v)).collect();
                assert_eq!(got, expected, "{what}");
            } else {
                let got: Vec<f32> = got.into_iter().map(bf16::to_f32).collect();
                assert_close(&what, &got, &rotated(from, angles));
            }
            written += dim;
        }
    }
    let stored = q.iter().chain(&pages).filter(|&&x| x != u16::MAX).count();
    assert_eq!(stored, written, "{case}: elements written");
}

#[test]
fn rotated_heads_land_in_their_places() {
    let page = PAGE as u32;
    rope_case("one head", [1, 1, 32], &[0]);
    rope_case("groups of three, page edges", [9, 3, 32], &[page - 1, page, 3, 2 * page + 17]);
    rope_case("gpt-oss", [64, 8, 64], &[130, page - 1, page, 0, 2 * page - 1]);
    rope_case("one row past a tile of queries", [7, 1, 128], &[5, 6, 70]);
}

fn largest(x: &[f32], n: usize) -> Vec<u32> {
    let stream = stream();
    let ids = Output::new(&stream, x.len() / n);
    let x = stream.buffer_from(x).expect("x");
    kernels().argmax(&stream, x.view(), ids.view()).expect("argmax");
    ids.read(&stream)
}

#[test]
fn argmax_takes_the_lowest_of_equals() {
    for n in [1, 2, 31, 61, 1024, 1025, 4999, 201_088] {
        let mut x = uniform_f32(3 * n, 7);
        for (row, x) in x.chunks_mut(n).enumerate() {
            let at = words(2, (n + row) as u32);
            for word in at {
                x[word as usize % n] = 2.0;
            }
        }
        let first = |x: &[f32]| x.iter().position(|&v| v == 2.0).expect("put there") as u32;
        assert_eq!(largest(&x, n), x.chunks(n).map(first).collect::<Vec<_>>(), "n = {n}");
    }
    assert_eq!(largest(&[-0.0, 0.0, -1.0], 3), [0]);
    assert_eq!(largest(&[-3.0e38, -3.3e38], 2), [0]);
}

#[test]
fn argmax_tells_of_what_is_not_finite() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [0, 700, 1299] {
            let mut x = uniform_f32(2 * 1300, 8);
            x[at] = bad;
            x[1300 + 7] = 5.0;
            assert_eq!(largest(&x, 1300), [NOT_FINITE, 7], "{bad} at {at}");
        }
    }
}
