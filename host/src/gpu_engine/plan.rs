//! Where a step's rows go: the indices its kernels read, laid out in one buffer.
//!
//! The layout of a step that decodes depends on little, see [`Recipe`], so that a recorded step can
//! be replayed with other content.

use shared::kernels::attention::{SPLIT_ROWS, TILE_WORDS, WHOLE_ROWS, max_splits};
use shared::kernels::rows::FROM_CHOSEN;
use shared::kv::PAGE;
use shared::model::ModelConfig;
use shared::sampling::Draw;

use super::GpuOptions;
use crate::engine::{Chunk, Sampling, Tokens, Want};
use crate::gpu::{Device, GpuError, PinnedBuffer};

/// Where a range of words of the index buffer lies.
pub type Span = std::ops::Range<usize>;

/// Pages in the longest table are rounded up to a power of two, at least this: a sequence that
/// takes a page rarely changes the layout.
const MIN_STRIDE: usize = 16;

/// Words of the largest step's indices.
pub fn max_words(config: &ModelConfig, options: &GpuOptions) -> usize {
    let rows = options.max_step_tokens;
    let tables = options.max_sequences.min(rows) * stride(options.max_positions.div_ceil(PAGE));
    let tiles = rows * config.group_size() / SPLIT_ROWS as usize + rows;
    // Tokens, positions, two page numbers and an output for each row.
    (5 + Draw::WORDS) * rows + 2 * tables + TILE_WORDS as usize * tiles
}

fn stride(pages: usize) -> usize {
    pages.max(MIN_STRIDE).next_power_of_two()
}

/// A chunk's place in the step and in its sequence.
#[derive(Clone, Copy, Debug)]
struct Place {
    chunk: usize,
    first_row: usize,
    first_position: usize,
}

/// A step's indices, and what the host has to know of them. Reused from step to step.
pub struct Plan {
    words: PinnedBuffer<u32>,
    len: usize,
    /// Tokens of the step.
    pub rows: usize,
    /// `[rows]`
    pub tokens: Span,
    /// `[rows]`
    pub positions: Span,
    /// Page of each row's position, for full and for windowed layers.
    pub page_of: [Span; 2],
    /// Page tables, likewise: one after the other, each `stride` long.
    pub tables: [Span; 2],
    stride: usize,
    /// Tiles of the query rows that are computed by splits: the first ones.
    pub split_tiles: Span,
    /// Tiles of the others.
    pub whole_tiles: Span,
    /// Query rows in split tiles.
    pub split_rows: usize,
    /// Rows whose logits are wanted: first those that a token is chosen from.
    pub outputs: Span,
    /// How many tokens are chosen.
    pub choices: usize,
    /// How each of them is drawn; empty where all are greedy.
    pub draws: Span,
    /// For each chunk, its first output and how many it has.
    pub wanted: Vec<Span>,
    /// Whether every chunk is one token and none wants logits.
    decodes: bool,
    last_position: usize,
    /// In the order of rows.
    places: Vec<Place>,
}

/// What the launches of a decode step depend on, beside the content of the index buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    rows: usize,
    outputs: usize,
    is_sampled: bool,
    stride: usize,
    splits: [usize; 2],
}

/// Whether a chunk's queries are computed by splits.
fn is_short(config: &ModelConfig, chunk: &Chunk<'_>) -> bool {
    let rows = chunk.tokens.count();
    rows == 1 || rows * config.group_size() <= SPLIT_ROWS as usize
}

/// Rows of a chunk whose logits are wanted: the last ones.
fn output_rows(chunk: &Chunk<'_>) -> usize {
    match chunk.want {
        Want::Nothing => 0,
        Want::Token(_) => 1,
        Want::Logits => chunk.tokens.count(),
    }
}

fn sampling(chunk: &Chunk<'_>) -> Sampling {
    chunk.sampling().unwrap_or(Sampling::GREEDY)
}

impl Plan {
    /// Room for the largest step of `options`.
    pub fn new(
        device: &Device,
        config: &ModelConfig,
        options: &GpuOptions,
    ) -> Result<Plan, GpuError> {
        Ok(Plan {
            words: PinnedBuffer::new(device, max_words(config, options))?,
            len: 0,
            rows: 0,
            tokens: 0..0,
            positions: 0..0,
            page_of: [0..0, 0..0],
            tables: [0..0, 0..0],
            stride: 0,
            split_tiles: 0..0,
            whole_tiles: 0..0,
            split_rows: 0,
            outputs: 0..0,
            choices: 0,
            draws: 0..0,
            wanted: Vec::new(),
            decodes: false,
            last_position: 0,
            places: Vec::new(),
        })
    }

    /// What to upload.
    pub fn words(&self) -> &[u32] {
        &self.words[..self.len]
    }

    /// Lays out the rows of `chunks`: those of short chunks first, because they are computed by
    /// splits. `chosen` says where on the device the tokens of the step before are, by its chunks.
    pub fn lay_out(
        &mut self,
        config: &ModelConfig,
        chunks: &[&Chunk<'_>],
        chosen: &[Option<usize>],
    ) {
        self.place(config, chunks);
        self.measure(config, chunks);
        self.write_rows(chunks, chosen);
        self.write_tiles(config, chunks);
        self.write_outputs(chunks);
    }

    /// Orders the chunks.
    fn place(&mut self, config: &ModelConfig, chunks: &[&Chunk<'_>]) {
        self.places.clear();
        let (mut rows, mut pages) = (0, 0);
        self.last_position = 0;
        for short in [true, false] {
            let of_kind = chunks.iter().enumerate().filter(|(_, c)| is_short(config, c) == short);
            for (index, chunk) in of_kind {
                let (start, end) = (chunk.start(), chunk.pages.len());
                self.places.push(Place { chunk: index, first_row: rows, first_position: start });
                self.last_position = self.last_position.max(end - 1);
                pages = pages.max(end.div_ceil(PAGE));
                rows += chunk.tokens.count();
            }
        }
        (self.rows, self.stride) = (rows, stride(pages));
    }

    /// Decides where everything lies.
    fn measure(&mut self, config: &ModelConfig, chunks: &[&Chunk<'_>]) {
        let (mut split_tiles, mut whole_tiles) = (0, 0);
        self.split_rows = 0;
        self.choices = chunks.iter().filter(|chunk| chunk.sampling().is_some()).count();
        self.decodes =
            chunks.iter().all(|chunk| chunk.tokens.count() == 1 && chunk.want != Want::Logits);
        self.wanted.clear();
        let (mut choices, mut outputs) = (0, self.choices);
        for chunk in chunks {
            let query_rows = chunk.tokens.count() * config.group_size();
            if is_short(config, chunk) {
                self.split_rows += query_rows;
                split_tiles += query_rows.div_ceil(SPLIT_ROWS as usize);
            } else {
                whole_tiles += query_rows.div_ceil(WHOLE_ROWS as usize);
            }
            let next = if chunk.sampling().is_some() { &mut choices } else { &mut outputs };
            self.wanted.push(*next..*next + output_rows(chunk));
            *next += output_rows(chunk);
        }
        let sampled = chunks.iter().any(|chunk| sampling(chunk).temperature > 0.0);
        let mut at = 0;
        let mut span = |len: usize| {
            at += len;
            at - len..at
        };
        let (rows, tables) = (self.rows, self.stride * chunks.len());
        self.tokens = span(rows);
        self.positions = span(rows);
        self.page_of = [span(rows), span(rows)];
        self.tables = [span(tables), span(tables)];
        self.split_tiles = span(TILE_WORDS as usize * split_tiles);
        self.whole_tiles = span(TILE_WORDS as usize * whole_tiles);
        self.outputs = span(outputs);
        self.draws = span(if sampled { Draw::WORDS * self.choices } else { 0 });
        self.len = at;
    }

    /// Tokens, positions, pages and tables.
    fn write_rows(&mut self, chunks: &[&Chunk<'_>], chosen: &[Option<usize>]) {
        let words = &mut self.words[..];
        for (n, place) in self.places.iter().enumerate() {
            let chunk = chunks[place.chunk];
            let (row, count) = (place.first_row, chunk.tokens.count());
            let tokens = &mut words[self.tokens.start + row..][..count];
            match chunk.tokens {
                Tokens::Known(known) => tokens.copy_from_slice(known),
                // One that nobody chose is outside `chosen`: its row fails on the device.
                Tokens::Chosen(index) => {
                    let at = chosen.get(index).copied().flatten();
                    tokens[0] = at.map_or(u32::MAX, |at| FROM_CHOSEN | at as u32);
                }
            }
            let positions = place.first_position..place.first_position + count;
            for (word, position) in words[self.positions.start + row..].iter_mut().zip(positions) {
                *word = position as u32;
            }
            for (class, pages) in chunk.pages.classes().into_iter().enumerate() {
                let at = self.tables[class].start + n * self.stride;
                words[at..][..pages.len()].copy_from_slice(pages);
                words[at + pages.len()..at + self.stride].fill(0);
                let page_of = &mut words[self.page_of[class].start + row..][..count];
                for (page, position) in page_of.iter_mut().zip(place.first_position..) {
                    *page = pages[position / PAGE];
                }
            }
        }
    }

    /// Lists of query tiles.
    fn write_tiles(&mut self, config: &ModelConfig, chunks: &[&Chunk<'_>]) {
        let mut at = self.split_tiles.start;
        for (n, place) in self.places.iter().enumerate() {
            let chunk = chunks[place.chunk];
            let (first, rows) = (place.first_row, chunk.tokens.count() * config.group_size());
            let most = if is_short(config, chunk) { SPLIT_ROWS } else { WHOLE_ROWS } as usize;
            // Those that see most first: what starts last should be short.
            for start in (0..rows).step_by(most).rev() {
                let row = first * config.group_size() + start;
                let position = place.first_position + start / config.group_size();
                let tile = [row, most.min(rows - start), n * self.stride, position];
                let tile = tile.map(|x| x as u32);
                self.words[at..][..tile.len()].copy_from_slice(&tile);
                at += tile.len();
            }
        }
    }

    /// Rows whose logits are wanted, and how tokens are drawn.
    fn write_outputs(&mut self, chunks: &[&Chunk<'_>]) {
        for place in &self.places {
            let chunk = chunks[place.chunk];
            let wanted = self.wanted[place.chunk].clone();
            let skipped = chunk.tokens.count() - wanted.len();
            for (n, output) in wanted.enumerate() {
                let row = place.first_row + skipped + n;
                self.words[self.outputs.start + output] = row as u32;
                if !self.draws.is_empty() && chunk.sampling().is_some() {
                    let draw = sampling(chunk).draw(chunk.pages.len() as u32).to_words();
                    let at = self.draws.start + output * Draw::WORDS;
                    self.words[at..][..Draw::WORDS].copy_from_slice(&draw);
                }
            }
        }
    }

    /// The recipe of a step of single tokens that chooses at most `most`; `None` for other steps,
    /// which are long enough to be launched one kernel at a time.
    pub fn recipe(&self, config: &ModelConfig, most: usize) -> Option<Recipe> {
        let few = (1..=most).contains(&self.outputs.len());
        (few && self.decodes).then(|| Recipe {
            rows: self.rows,
            outputs: self.outputs.len(),
            is_sampled: !self.draws.is_empty(),
            stride: self.stride,
            splits: [None, Some(config.sliding_window)].map(|window| self.splits(window)),
        })
    }

    /// Splits of the step's queries in a layer of this window.
    pub fn splits(&self, window: Option<usize>) -> usize {
        max_splits(self.last_position as u32, window.unwrap_or(0) as u32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{self, Opened};
    use crate::pages::{Geometry, Pages};

    /// A recorded step is replayed as long as the recipe is the same.
    #[test]
    fn pages_and_positions_do_not_change_the_layout() {
        let config = crate::synth::Preset::Nano.config();
        let options = GpuOptions { max_sequences: 3, max_positions: 600, ..GpuOptions::default() };
        let device = "emu:gfx1151".parse().unwrap();
        let Opened::Gpus { devices, .. } = gpu::open(&device).unwrap() else { panic!("no GPU") };
        let geometry = Geometry::worst_case(3, 600, 512, config.sliding_window);
        let mut pages = Pages::new(geometry, false);
        let mut plan = Plan::new(&devices[0], &config, &options).unwrap();
        let seqs = [0; 3].map(|_| pages.open(&[]));
        let mut recipe_of = |tokens: [&[u32]; 3], want| {
            for (&seq, tokens) in seqs.iter().zip(tokens) {
                pages.extend(seq, tokens.len()).unwrap();
            }
            let chunk = |(&seq, tokens)| Chunk {
                tokens: Tokens::Known(tokens),
                pages: pages.table(seq),
                want,
            };
            let chunks: Vec<Chunk<'_>> = seqs.iter().zip(tokens).map(chunk).collect();
            plan.lay_out(&config, &chunks.iter().collect::<Vec<_>>(), &[]);
            let recipe = plan.recipe(&config, 3);
            for (&seq, tokens) in seqs.iter().zip(tokens) {
                pages.confirm(seq, tokens);
            }
            recipe
        };
        let greedy = Want::Token(Sampling::GREEDY);
        let prompt = [5; 100];
        let prefill = recipe_of([&prompt, &prompt[..9], &prompt[..61]], greedy);
        assert_eq!(prefill, None, "a step with a long chunk");
        let one = [&prompt[..1]; 3];
        let first = recipe_of(one, greedy);
        assert!(first.is_some());
        // Positions 101 to 127: one sequence takes a page.
        for position in 101..128 {
            assert_eq!(recipe_of(one, greedy), first, "position {position}");
        }
        assert_ne!(recipe_of(one, greedy), first, "a split of keys more");
        let sampled = Want::Token(Sampling { temperature: 1.0, top_p: 0.9, ..Sampling::GREEDY });
        assert_ne!(recipe_of(one, greedy), recipe_of(one, sampled), "another kernel chooses");
        assert_eq!(recipe_of(one, Want::Logits), None);
    }
}
