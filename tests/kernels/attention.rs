//! Attention over the paged cache, split and whole, every case both ways and bit for bit equal.

use gptoss::gpu::launch::attention::{Attention, AttentionShape};
use gptoss::gpu::pack;
use oracle::attention::{Seen, attend};
use oracle::basics::{Expected, assert_close};
use oracle::products::exact;
use oracle::random::uniform_bf16;
use shared::bf16;
use shared::block::{STEP, tiled_index, tiled_len};
use shared::kernels::attention::{SPLIT_ROWS, WHOLE_ROWS, max_splits};
use shared::kv::{PAGE, SPLIT, key_index, page_len, value_index};

use crate::gpu::{Output, as_bf16, kernels, stream};

/// Content of what no query may see, ruinous if it takes part: behind the last position and in
/// pages of others even with a weight of zero.
const GARBAGE: f32 = f32::NAN;
/// The same before a window, in a page that is partly seen.
const OWN_GARBAGE: f32 = 1e30;
/// A page number that no buffer has: where the table says so, nobody may look.
const NO_PAGE: u32 = 0x00ff_ffff;

/// A sequence in a step: its last `new` of `context` tokens are the step's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sequence {
    pub(super) seed: u32,
    pub(super) new: usize,
    pub(super) context: usize,
}

/// Single tokens after each of these contexts.
fn decoding(contexts: &[usize]) -> Vec<Sequence> {
    let one = |(i, &context): (usize, &usize)| Sequence { seed: i as u32, new: 1, context };
    contexts.iter().enumerate().map(one).collect()
}

/// One layer; the scores' spread is `sharpness` times that of random unit values.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) head_dim: usize,
    pub(super) kv_heads: usize,
    pub(super) group: usize,
    pub(super) window: Option<usize>,
    pub(super) sharpness: f32,
    pub(super) sink: f32,
}

pub(super) const LAYER: Layer =
    Layer { head_dim: 64, kv_heads: 2, group: 8, window: None, sharpness: 3.0, sink: 0.5 };

impl Layer {
    pub(super) fn heads(&self) -> usize {
        self.kv_heads * self.group
    }

    fn scale(&self) -> f32 {
        self.sharpness * std::f32::consts::LOG2_E / (self.head_dim as f32).sqrt()
    }

    pub(super) fn sinks(&self) -> Vec<f32> {
        (0..self.heads()).map(|head| self.sink * (1.0 + 0.125 * head as f32)).collect()
    }

    /// Queries `[context, heads, head_dim]`, keys and values `[context, kv_heads, head_dim]`.
    fn tensors(&self, sequence: Sequence) -> [Vec<u16>; 3] {
        let len = |heads| sequence.context * heads * self.head_dim;
        let seed = 100 + 3 * sequence.seed;
        [
            uniform_bf16(len(self.heads()), seed),
            uniform_bf16(len(self.kv_heads), seed + 1),
            uniform_bf16(len(self.kv_heads), seed + 2),
        ]
    }

    pub(super) fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

/// A step's inputs as the kernels take them.
pub(super) struct Step {
    rows: usize,
    pub(super) q: Vec<u16>,
    pages: Vec<u16>,
    table: Vec<u32>,
    pub(super) positions: Vec<u32>,
    /// First row, rows, first table entry of each sequence.
    runs: Vec<[usize; 3]>,
}

impl Step {
    pub(super) fn new(layer: &Layer, sequences: &[Sequence]) -> Step {
        let (dim, group) = (layer.head_dim, layer.group);
        let rows: usize = sequences.iter().map(|s| s.new).sum();
        let needed: usize = sequences.iter().map(|s| s.context.div_ceil(PAGE)).sum();
        // One page more than needed, handed out from the last to the first, every other first.
        let free: Vec<u32> = (0..=needed as u32).rev().collect();
        let mut free = free.iter().step_by(2).chain(free[1..].iter().step_by(2)).copied();
        let page = page_len(layer.kv_heads, dim);
        let mut step = Step {
            rows,
            q: Vec::new(),
            pages: vec![bf16::from_f32(GARBAGE); (needed + 1) * page],
            table: Vec::new(),
            positions: Vec::new(),
            runs: Vec::new(),
        };
        let mut by_head = vec![Vec::new(); layer.kv_heads];
        for &sequence in sequences {
            let [q, k, v] = layer.tensors(sequence);
            let first_row = step.positions.len();
            let old = sequence.context - sequence.new;
            step.runs.push([first_row, sequence.new, step.table.len()]);
            step.positions.extend((old..sequence.context).map(|p| p as u32));
            let lowest = layer.first_seen(old) / PAGE;
            for index in 0..sequence.context.div_ceil(PAGE) {
                let number = free.next().expect("a page for each");
                step.table.push(if index < lowest { NO_PAGE } else { number });
                let page = &mut step.pages[number as usize * page..][..page];
                let end = ((index + 1) * PAGE).min(sequence.context);
                let first_seen = layer.first_seen(old);
                if index < lowest {
                    continue;
                }
                for position in index * PAGE..end {
                    for head in 0..layer.kv_heads {
                        for d in 0..dim {
                            let from = (position * layer.kv_heads + head) * dim + d;
                            let own = bf16::from_f32(OWN_GARBAGE);
                            let [k, v] =
                                if position < first_seen { [own; 2] } else { [k[from], v[from]] };
                            page[key_index(head, dim, position, d)] = k;
                            page[value_index(layer.kv_heads, head, dim, position, d)] = v;
                        }
                    }
                }
            }
            step.table.push(NO_PAGE);
            for position in old..sequence.context {
                for (head, rows) in by_head.iter_mut().enumerate() {
                    let from = (position * layer.heads() + head * group) * dim;
                    rows.extend_from_slice(&q[from..][..group * dim]);
                }
            }
        }
        for head in by_head {
            let mut tiled = vec![0; tiled_len(rows * group, dim)];
            pack::bf16(&mut tiled, &head, rows * group, dim, |row| row);
            step.q.extend(tiled);
        }
        step
    }

    /// The page of `position` of sequence `run`.
    pub(super) fn page(&mut self, layer: &Layer, run: usize, position: usize) -> &mut [u16] {
        let number = self.table[self.runs[run][2] + position / PAGE] as usize;
        let len = page_len(layer.kv_heads, layer.head_dim);
        &mut self.pages[number * len..][..len]
    }

    fn tiles(&self, group: usize, most: u32) -> Vec<u32> {
        let mut tiles = Vec::new();
        for &[first, rows, table] in &self.runs {
            let (first, end) = (first * group, (first + rows) * group);
            for row in (first..end).step_by(most as usize) {
                let position = self.positions[row / group];
                tiles.extend([row, (end - row).min(most as usize), table].map(|x| x as u32));
                tiles.push(position);
            }
        }
        tiles
    }
}

/// How to compute a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Way {
    Split,
    Whole,
}

/// Output bits `[rows, heads * head_dim]`.
fn run(layer: &Layer, sequences: &[Sequence], way: Way) -> Vec<u16> {
    run_step(layer, &Step::new(layer, sequences), &layer.sinks(), way)
}

/// The same of inputs made before.
pub(super) fn run_step(layer: &Layer, step: &Step, sinks: &[f32], way: Way) -> Vec<u16> {
    let stream = stream();
    let shape = AttentionShape {
        rows: step.rows,
        kv_heads: layer.kv_heads,
        group: layer.group,
        head_dim: layer.head_dim,
        window: layer.window,
        scale: layer.scale(),
    };
    let tiles = match way {
        Way::Split => step.tiles(layer.group, SPLIT_ROWS),
        Way::Whole => step.tiles(layer.group, WHOLE_ROWS),
    };
    let q = stream.buffer_from(&step.q).expect("q");
    let pages = stream.buffer_from(&step.pages).expect("pages");
    let table = stream.buffer_from(&step.table).expect("table");
    let tiles = stream.buffer_from(&tiles).expect("tiles");
    let positions = stream.buffer_from(&step.positions).expect("positions");
    let sinks = stream.buffer_from(sinks).expect("sinks");
    let inputs = Attention {
        q: as_bf16(q.view()),
        pages: as_bf16(pages.view()),
        table: table.view(),
        tiles: tiles.view(),
    };
    let out = Output::<u16>::new(&stream, shape.out_len());
    // SAFETY: `Step` lists runs of existing rows and pages for all they see.
    unsafe {
        match way {
            Way::Whole => {
                kernels().attention_whole(&stream, shape, inputs, sinks.view(), as_bf16(out.view()))
            }
            Way::Split => {
                let last = *step.positions.iter().max().expect("a row");
                let splits = max_splits(last, layer.window.unwrap_or(0) as u32) as usize;
                let rows = step.rows * layer.group;
                let parts = Output::<f32>::new(&stream, shape.parts_len(rows, splits));
                let (at, sinks) = (positions.view(), sinks.view());
                kernels()
                    .attention_split(&stream, shape, inputs, splits, parts.view(), rows)
                    .and_then(|()| {
                        let (parts, out) = (parts.view(), as_bf16(out.view()));
                        kernels()
                            .attention_merge(&stream, shape, splits, parts, at, sinks, out, rows)
                    })
                    .map(|()| drop(parts.read(&stream)))
            }
        }
    }
    .expect("attention");
    let bits = out.read(&stream);
    let columns = layer.heads() * layer.head_dim;
    let places = (0..step.rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    places.map(|(row, column)| bits[tiled_index(row, column, columns / STEP)]).collect()
}

fn expected(layer: &Layer, sequences: &[Sequence]) -> Vec<Expected> {
    let (dim, sinks) = (layer.head_dim, layer.sinks());
    let mut out = Vec::new();
    for &sequence in sequences {
        let [q, k, v] = layer.tensors(sequence).map(|t| exact(&t));
        for position in sequence.context - sequence.new..sequence.context {
            for head in 0..layer.heads() {
                let query = &q[(position * layer.heads() + head) * dim..][..dim];
                let seen = layer.first_seen(position)..position + 1;
                let at = |t: usize| (t * layer.kv_heads + head / layer.group) * dim;
                let seen = Seen {
                    keys: seen.clone().map(|t| &k[at(t)..][..dim]).collect(),
                    values: seen.map(|t| &v[at(t)..][..dim]).collect(),
                };
                out.extend(attend(query, &seen, sinks[head], layer.scale(), SPLIT));
            }
        }
    }
    out
}

/// Both ways match the oracle and each other.
fn check(case: &str, layer: &Layer, sequences: &[Sequence]) {
    let whole = run(layer, sequences, Way::Whole);
    let split = run(layer, sequences, Way::Split);
    let values: Vec<f32> = whole.iter().map(|&x| bf16::to_f32(x)).collect();
    assert_close(&format!("{case}, whole"), &values, &expected(layer, sequences));
    let differ = whole.iter().zip(&split).position(|(a, b)| a != b);
    assert_eq!(differ, None, "{case}: element where split differs from whole");
}

/// At the edges of a tile of keys, a page, a split, and two.
const CONTEXTS: [usize; 14] = [1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 256, 257];

#[test]
fn decode_at_every_edge_of_the_context() {
    check("no_window", &LAYER, &decoding(&CONTEXTS));
    check("head_32", &Layer { head_dim: 32, group: 3, ..LAYER }, &decoding(&CONTEXTS));
}

#[test]
fn decode_at_every_edge_of_the_window() {
    for window in [1, 5, 33, 127, 128, 129, 1000] {
        let layer = Layer { window: Some(window), kv_heads: 1, group: 2, ..LAYER };
        check(&format!("window_{window}"), &layer, &decoding(&CONTEXTS));
    }
}

#[test]
fn every_group_size() {
    let sequences = [
        Sequence { seed: 1, new: 1, context: 70 },
        Sequence { seed: 2, new: 3, context: 40 },
        Sequence { seed: 3, new: 19, context: 19 },
    ];
    for group in 1..=8 {
        for (head_dim, kv_heads) in [(32, 3), (64, 1)] {
            let layer = Layer { head_dim, kv_heads, group, ..LAYER };
            check(&format!("group_{group}_of_{head_dim}"), &layer, &sequences);
        }
    }
}

#[test]
fn chunks_of_several_tokens() {
    let cases = [
        ("within_one_tile", vec![(5, 5), (3, 66)]),
        ("across_a_page", vec![(20, 70)]),
        ("across_a_split", vec![(17, 140), (9, 132)]),
        ("more_than_one_workgroup", vec![(70, 70)]),
        ("among_decoding_sequences", vec![(1, 100), (33, 33), (1, 1), (40, 200)]),
    ];
    for (case, sequences) in cases {
        let sequences: Vec<Sequence> = sequences
            .into_iter()
            .enumerate()
            .map(|(i, (new, context))| Sequence { seed: i as u32, new, context })
            .collect();
        for window in [None, Some(8), Some(128)] {
            let layer = Layer { window, kv_heads: 1, group: 3, ..LAYER };
            check(&format!("{case}, window {window:?}"), &layer, &sequences);
        }
    }
}

#[test]
fn sinks_and_scores_of_any_size() {
    let cases = [
        ("sink_takes_everything", 3.0, 1e4),
        ("sink_takes_most", 3.0, 20.0),
        ("sink_takes_nothing", 3.0, -1e4),
        ("one_key_takes_everything", 300.0, 0.0),
        ("equal_scores", 1e-30, 1.0),
    ];
    for (case, sharpness, sink) in cases {
        let layer = Layer { kv_heads: 1, group: 2, sharpness, sink, ..LAYER };
        let chunk = Sequence { seed: 9, new: 6, context: 131 };
        check(case, &layer, &[decoding(&[3, 129]), vec![chunk]].concat());
    }
}

#[test]
fn a_token_depends_on_neither_its_chunk_nor_its_neighbours() {
    const TOKENS: usize = 150;
    for window in [None, Some(40)] {
        let layer = Layer { head_dim: 32, kv_heads: 1, group: 3, window, ..LAYER };
        let at_once = Sequence { seed: 5, new: TOKENS, context: TOKENS };
        let expected = run(&layer, &[at_once], Way::Whole);
        let row = layer.heads() * layer.head_dim;
        for chunk in [1, 7, 64] {
            for first in (0..TOKENS).step_by(chunk).skip(if chunk == 1 { 120 } else { 0 }) {
                let new = chunk.min(TOKENS - first);
                let mine = Sequence { seed: 5, new, context: first + new };
                let others = decoding(&[40, 130]);
                let step = [others, vec![mine]].concat();
                for (way, step, at) in
                    [(Way::Whole, &[mine][..], 0), (Way::Split, &step[..], 2 * row)]
                {
                    let got = &run(&layer, step, way)[at..];
                    let same = got == &expected[first * row..][..new * row];
                    assert!(same, "{window:?} {way:?}: tokens {first}.. in chunks of {chunk}");
                }
            }
        }
    }
}

#[test]
fn attention_refuses_what_it_does_not_handle() {
    let stream = stream();
    let (halves, words) = (stream.buffer_from(&[0u16; 8]), stream.buffer_from(&[0u32; 8]));
    let (halves, words) = (halves.expect("memory"), words.expect("memory"));
    let (sinks, out) = (stream.buffer_from(&[0f32; 8]), Output::<u16>::new(&stream, 8));
    let sinks = sinks.expect("memory");
    let inputs = Attention {
        q: as_bf16(halves.view()),
        pages: as_bf16(halves.view()),
        table: words.view(),
        tiles: words.view(),
    };
    let shape = |head_dim, scale| AttentionShape {
        rows: 1,
        kv_heads: 1,
        group: 1,
        head_dim,
        window: None,
        scale,
    };
    let cases = [
        (shape(48, 1.0), "head_dim = 48, expected one of [32, 64]"),
        (shape(64, 0.0), "scale = 0, expected a positive number"),
        (shape(64, f32::NAN), "scale = NaN, expected a positive number"),
        (AttentionShape { window: Some(0), ..shape(64, 1.0) }, "window = 0"),
    ];
    for (shape, what) in cases {
        // SAFETY: refused before anything is read.
        let result = unsafe {
            let out = as_bf16(out.view());
            kernels().attention_whole(&stream, shape, inputs, sinks.view(), out)
        };
        let error = result.expect_err(what).to_string();
        assert!(error.contains(what), "{error}, expected {what}");
    }
}

#[test]
fn long_contexts_of_gpt_oss() {
    if std::env::var_os("GPTOSS_TEST_FULL").is_none() {
        println!("skipped: GPTOSS_TEST_FULL is not set");
        return;
    }
    let layer = Layer { kv_heads: 8, group: 8, ..LAYER };
    let sequences = [
        Sequence { seed: 1, new: 1, context: 8192 },
        Sequence { seed: 2, new: 64, context: 1024 },
        Sequence { seed: 3, new: 1, context: 1 },
    ];
    for window in [None, Some(128)] {
        check("gpt_oss", &Layer { window, ..layer.clone() }, &sequences);
    }
}
