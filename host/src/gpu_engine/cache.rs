//! The paged KV cache: one pool of pages for the layers that see everything, one for the windowed
//! layers, whose pages are freed behind the window.

use half::bf16;
use std::collections::BTreeMap;

use shared::kv::{PAGE, page_len};
use shared::model::ModelConfig;

use super::GpuOptions;
use crate::engine::{EngineError, SeqId};
use crate::gpu::{DeviceBuffer, DeviceSlice, GpuError, Stream};

/// Stands in a table where a page was freed or not yet taken.
const NO_PAGE: u32 = 0;

/// Free pages of one class of layers.
#[derive(Debug)]
struct Pool {
    free: Vec<u32>,
}

impl Pool {
    fn new(pages: usize) -> Pool {
        // Popped from the end: low numbers first.
        Pool { free: (0..pages as u32).rev().collect() }
    }
}

/// One sequence.
#[derive(Debug)]
struct Sequence {
    max_positions: usize,
    len: usize,
    /// Page of each block of [`PAGE`] positions.
    full: Vec<u32>,
    /// The same for windowed layers; the first `freed` were given back.
    windowed: Vec<u32>,
    freed: usize,
}

/// All pages, and who holds them.
pub struct Cache {
    layers: Vec<DeviceBuffer<bf16>>,
    full: Pool,
    windowed: Pool,
    window: usize,
    max_sequences: usize,
    sequences: BTreeMap<u32, Sequence>,
    next: u32,
}

/// Pages for each class: full, windowed.
fn pages(config: &ModelConfig, options: &GpuOptions) -> (usize, usize) {
    let full = options.max_sequences * options.max_positions.div_ceil(PAGE);
    // A window of any alignment, and what a step adds before anything is freed.
    let own = config.sliding_window.div_ceil(PAGE) + 1;
    let step = options.max_step_tokens.div_ceil(PAGE);
    let windowed = options.max_sequences * (own + 1) + step;
    (full, windowed.min(full))
}

impl Cache {
    /// Bytes of all pages, and of those of one sequence.
    pub fn bytes(config: &ModelConfig, options: &GpuOptions) -> (u64, u64) {
        let (full, windowed) = pages(config, options);
        let page = 2 * page_len(config.num_key_value_heads, config.head_dim);
        let total: usize = (0..config.num_hidden_layers)
            .map(|l| if config.window(l).is_some() { windowed } else { full })
            .map(|pages| pages * page)
            .sum();
        (total as u64, (total / options.max_sequences.max(1)) as u64)
    }

    /// Allocates the pages and zeroes them: kernels multiply what lies behind the last position by
    /// zero, so it has to be finite.
    pub fn new(
        stream: &Stream,
        config: &ModelConfig,
        options: &GpuOptions,
    ) -> Result<Cache, GpuError> {
        let (full, windowed) = pages(config, options);
        let page = page_len(config.num_key_value_heads, config.head_dim);
        let layers = (0..config.num_hidden_layers)
            .map(|l| {
                let pages = if config.window(l).is_some() { windowed } else { full };
                let buffer = DeviceBuffer::new(stream.device(), pages * page)?;
                stream.fill(buffer.view(), 0)?;
                Ok(buffer)
            })
            .collect::<Result<_, GpuError>>()?;
        Ok(Cache { layers, ..Cache::without_memory(config, options) })
    }

    /// The bookkeeping alone.
    pub fn without_memory(config: &ModelConfig, options: &GpuOptions) -> Cache {
        let (full, windowed) = pages(config, options);
        Cache {
            layers: Vec::new(),
            full: Pool::new(full),
            windowed: Pool::new(windowed),
            window: config.sliding_window,
            max_sequences: options.max_sequences,
            sequences: BTreeMap::new(),
            next: 0,
        }
    }

    /// The pages of layer `layer`.
    pub fn layer(&self, layer: usize) -> DeviceSlice<'_, bf16> {
        self.layers[layer].view()
    }

    /// Opens a sequence.
    pub fn open(&mut self, max_positions: usize) -> Result<SeqId, EngineError> {
        if self.sequences.len() == self.max_sequences {
            let most = self.max_sequences;
            return Err(EngineError::OutOfCache(format!("{most} sequences are open")));
        }
        let id = self.next;
        self.next += 1;
        let (full, windowed) = (Vec::new(), Vec::new());
        let sequence = Sequence { max_positions, len: 0, full, windowed, freed: 0 };
        self.sequences.insert(id, sequence);
        Ok(SeqId(id))
    }

    /// Frees a sequence's pages.
    pub fn close(&mut self, seq: SeqId) {
        if let Some(sequence) = self.sequences.remove(&seq.0) {
            self.full.free.extend(sequence.full);
            self.windowed.free.extend(&sequence.windowed[sequence.freed..]);
        }
    }

    /// Makes sure that every one of `chunks` (a sequence and how many tokens it gains) finds its
    /// pages; changes nothing.
    pub fn reserve(&self, chunks: impl Iterator<Item = (SeqId, usize)>) -> Result<(), EngineError> {
        let (mut full, mut windowed) = (0, 0);
        for (seq, tokens) in chunks {
            let Some(sequence) = self.sequences.get(&seq.0) else {
                return Err(EngineError::Invalid(format!("sequence {} is not open", seq.0)));
            };
            let end = sequence.len + tokens;
            if end > sequence.max_positions {
                return Err(EngineError::Invalid(format!(
                    "sequence {} would hold {end} positions, expected at most {}",
                    seq.0, sequence.max_positions
                )));
            }
            full += end.div_ceil(PAGE) - sequence.full.len();
            windowed += end.div_ceil(PAGE) - sequence.windowed.len();
        }
        for (pool, pages, of) in
            [(&self.full, full, "full"), (&self.windowed, windowed, "windowed")]
        {
            let free = pool.free.len();
            if free < pages {
                return Err(EngineError::OutOfCache(format!(
                    "{pages} pages of {PAGE} positions for {of} layers, {free} are free"
                )));
            }
        }
        Ok(())
    }

    /// Takes the pages of `tokens` more positions, which [`Cache::reserve`] has found, and says
    /// what the first position is.
    pub fn extend(&mut self, seq: SeqId, tokens: usize) -> Result<usize, EngineError> {
        let Some(sequence) = self.sequences.get_mut(&seq.0) else {
            return Err(EngineError::Invalid(format!("sequence {} is not open", seq.0)));
        };
        let (start, end) = (sequence.len, sequence.len + tokens);
        let blocks = end.div_ceil(PAGE);
        for (pages, pool) in
            [(&mut sequence.full, &mut self.full), (&mut sequence.windowed, &mut self.windowed)]
        {
            let at = (pool.free.len() + pages.len()).saturating_sub(blocks);
            pages.extend(pool.free.drain(at..).rev());
        }
        sequence.len = end;
        Ok(start)
    }

    /// Page of each block of [`PAGE`] positions, for full and for windowed layers.
    pub fn tables(&self, seq: SeqId) -> [&[u32]; 2] {
        match self.sequences.get(&seq.0) {
            Some(sequence) => [&sequence.full, &sequence.windowed],
            None => [&[], &[]],
        }
    }

    /// Frees the windowed pages that no later token sees. Steps run in order, so a page may be
    /// given away as soon as the last step that reads it has been laid out; whether its sequence
    /// goes on soon does not matter.
    pub fn retire(&mut self, seq: SeqId) {
        let Some(sequence) = self.sequences.get_mut(&seq.0) else { return };
        let first_seen = (sequence.len + 1).saturating_sub(self.window) / PAGE;
        while sequence.freed < first_seen.min(sequence.windowed.len()) {
            let page = std::mem::replace(&mut sequence.windowed[sequence.freed], NO_PAGE);
            self.windowed.free.push(page);
            sequence.freed += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(full: usize, windowed: usize, max_sequences: usize) -> Cache {
        let config = ModelConfig { sliding_window: 128, ..crate::synth::Preset::Nano.config() };
        let options = GpuOptions { max_sequences, ..GpuOptions::default() };
        Cache {
            full: Pool::new(full),
            windowed: Pool::new(windowed),
            ..Cache::without_memory(&config, &options)
        }
    }

    fn step(cache: &mut Cache, chunks: &[(SeqId, usize)]) -> Result<(), EngineError> {
        cache.reserve(chunks.iter().copied())?;
        for &(seq, tokens) in chunks {
            cache.extend(seq, tokens)?;
        }
        chunks.iter().for_each(|&(seq, _)| cache.retire(seq));
        Ok(())
    }

    #[test]
    fn windowed_pages_return_behind_the_window() {
        let mut cache = cache(16, 4, 1);
        let seq = cache.open(1024).unwrap();
        for position in 0..1024 {
            cache.reserve([(seq, 1)].into_iter()).unwrap();
            assert_eq!(cache.extend(seq, 1).unwrap(), position);
            let [full, windowed] = cache.tables(seq);
            assert_eq!(full.len(), position / PAGE + 1);
            let first = (position + 1).saturating_sub(128) / PAGE;
            let mut live = windowed[first..].to_vec();
            live.sort_unstable();
            live.dedup();
            assert_eq!(live.len(), position / PAGE + 1 - first, "pages are shared");
            cache.retire(seq);
        }
        assert_eq!(cache.full.free.len(), 0);
        cache.close(seq);
        assert_eq!((cache.full.free.len(), cache.windowed.free.len()), (16, 4));
    }

    #[test]
    fn idle_sequences_keep_only_their_window() {
        let config = ModelConfig { sliding_window: 128, ..crate::synth::Preset::Nano.config() };
        let options = GpuOptions {
            max_sequences: 8,
            max_positions: 4096,
            max_step_tokens: 512,
            ..GpuOptions::default()
        };
        let (full, windowed) = pages(&config, &options);
        let mut cache = Cache::without_memory(&config, &options);
        // One after the other reads its prompt, then waits; in the end all go on together.
        let seqs: Vec<SeqId> = (0..8).map(|_| cache.open(4096).unwrap()).collect();
        for &seq in &seqs {
            for _ in 0..7 {
                step(&mut cache, &[(seq, 512)]).unwrap();
            }
        }
        let all: Vec<(SeqId, usize)> = seqs.iter().map(|&seq| (seq, 64)).collect();
        step(&mut cache, &all).unwrap();
        for seq in seqs {
            let held = cache.sequences[&seq.0].windowed.len() - cache.sequences[&seq.0].freed;
            assert_eq!(held, 2, "pages of 127 positions that the next token sees");
            cache.close(seq);
        }
        assert_eq!((cache.full.free.len(), cache.windowed.free.len()), (full, windowed));
    }

    #[test]
    fn a_refused_step_changes_nothing() {
        let mut cache = cache(3, 3, 2);
        let (a, b) = (cache.open(192).unwrap(), cache.open(192).unwrap());
        let refused = cache.reserve([(a, 128), (b, 128)].into_iter());
        assert!(matches!(refused, Err(EngineError::OutOfCache(_))));
        assert_eq!(cache.full.free.len(), 3);
        let refused = cache.reserve([(a, 193)].into_iter());
        assert!(matches!(refused, Err(EngineError::Invalid(_))));
        cache.reserve([(a, 128), (b, 64)].into_iter()).unwrap();
        assert_eq!(cache.extend(a, 128).unwrap(), 0);
        assert_eq!(cache.extend(b, 64).unwrap(), 0);
        assert_eq!(cache.tables(b)[0].len(), 1);
    }
}
