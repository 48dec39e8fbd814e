//! Memory for the activations of a step, allocated once for the largest step.

use half::bf16;
use shared::block::{Family, tiled_len};
use shared::kernels::attention::{SPLIT_ROWS, max_splits, part_len};
use shared::kernels::moe::TILE_WORDS;
use shared::model::ModelConfig;

use super::{GpuOptions, plan};
use crate::gpu::launch::moe::{ExpertPath, Routing};
use crate::gpu::{DeviceBuffer, GpuError, Stream};

/// Rows of logits computed at a time.
pub const OUTPUT_ROWS: usize = 64;

/// Buffers of a step. `R` is the most tokens of a step, `A` their assignments to experts, `S` the
/// slots of those, empty ones included.
pub struct Arena {
    /// Indices of the step, see `plan::Plan`.
    pub indices: DeviceBuffer<u32>,
    /// Residual stream, `[R, hidden]`.
    pub x: DeviceBuffer<f32>,
    /// Normalised rows, `[R, hidden]`, tiled.
    pub t: DeviceBuffer<bf16>,
    /// Queries, keys, values as computed, `[R, q_dim + 2 kv_dim]`.
    pub qkv: DeviceBuffer<f32>,
    /// Rotated queries, `[kv heads][R * group, head_dim]`, each tiled.
    pub q: DeviceBuffer<bf16>,
    /// Parts of attention, see `shared::kernels::attention`.
    pub parts: DeviceBuffer<f32>,
    /// Attention's output, `[R, q_dim]`, tiled.
    pub attention: DeviceBuffer<bf16>,
    /// Router logits, `[R, experts]`.
    pub router: DeviceBuffer<f32>,
    /// Experts of each row, `[A]`.
    pub ids: DeviceBuffer<u32>,
    /// Their weights, `[A]`.
    pub weights: DeviceBuffer<f32>,
    /// Assignment in each slot, `[S]`.
    pub assignment_of: DeviceBuffer<u32>,
    /// Slot of each assignment, `[A]`.
    pub slot_of: DeviceBuffer<u32>,
    /// Tiles of slots, `[max_tiles, 3]`.
    pub tiles: DeviceBuffer<u32>,
    /// `[1]`
    pub num_tiles: DeviceBuffer<u32>,
    /// Rows by slot, `[S, hidden]`, tiled.
    pub gathered: DeviceBuffer<bf16>,
    /// First product's result, `[S, intermediate]`, tiled.
    pub act: DeviceBuffer<bf16>,
    /// Second product's result, `[S, hidden]`.
    pub y: DeviceBuffer<f32>,
    /// Rows that want logits, `[OUTPUT_ROWS, hidden]`, tiled.
    pub last: DeviceBuffer<bf16>,
    /// `[OUTPUT_ROWS, vocab]`
    pub logits: DeviceBuffer<f32>,
    /// Tokens chosen, `[OUTPUT_ROWS]`.
    pub chosen: DeviceBuffer<u32>,
}

/// Elements of each buffer, in the order of the fields.
struct Sizes {
    words: [(usize, usize); 20],
}

/// Most splits a step's queries can touch.
pub fn splits(config: &ModelConfig, options: &GpuOptions) -> usize {
    let last = options.max_positions.saturating_sub(1) as u32;
    let windowed = max_splits(last, config.sliding_window as u32);
    windowed.max(max_splits(last, 0)) as usize
}

/// Query rows of a step that are computed by splits: one token's, or a few of a short chunk, for
/// every sequence.
fn split_rows(config: &ModelConfig, options: &GpuOptions) -> usize {
    let own = config.group_size().max(SPLIT_ROWS as usize);
    (options.max_sequences * own).min(options.max_step_tokens * config.group_size())
}

impl Sizes {
    fn new(config: &ModelConfig, options: &GpuOptions, family: Family) -> Sizes {
        let rows = options.max_step_tokens;
        let (hidden, top_k) = (config.hidden_size, config.num_experts_per_tok);
        let routing = Routing { rows, experts: config.num_local_experts, top_k };
        let (assignments, slots) = (routing.assignments(), routing.max_slots());
        let tiles = [ExpertPath::Skinny, ExpertPath::Tile]
            .map(|path| routing.max_tiles(path, family))
            .into_iter()
            .max()
            .unwrap_or(0);
        let query_rows = rows * config.group_size();
        let part = part_len(config.head_dim as u32) as usize;
        let parts = split_rows(config, options) * config.num_key_value_heads * part;
        let width = config.q_dim() + 2 * config.kv_dim();
        let words = [
            (4, plan::max_words(config, options)),
            (4, rows * hidden),
            (2, tiled_len(rows, hidden)),
            (4, rows * width),
            (2, config.num_key_value_heads * tiled_len(query_rows, config.head_dim)),
            (4, parts * splits(config, options)),
            (2, tiled_len(rows, config.q_dim())),
            (4, rows * config.num_local_experts),
            (4, assignments),
            (4, assignments),
            (4, slots),
            (4, assignments),
            (4, tiles * TILE_WORDS as usize),
            (4, 1),
            (2, tiled_len(slots, hidden)),
            (2, tiled_len(slots, config.intermediate_size)),
            (4, slots * hidden),
            (2, tiled_len(OUTPUT_ROWS, hidden)),
            (4, OUTPUT_ROWS * config.vocab_size),
            (4, OUTPUT_ROWS),
        ];
        Sizes { words }
    }
}

impl Arena {
    /// Bytes of all buffers.
    pub fn bytes(config: &ModelConfig, options: &GpuOptions, family: Family) -> u64 {
        let sizes = Sizes::new(config, options, family);
        sizes.words.iter().map(|(size, len)| (size * len) as u64).sum()
    }

    /// Allocates and zeroes them: products read the padding of tiled matrices.
    pub fn new(
        stream: &Stream,
        config: &ModelConfig,
        options: &GpuOptions,
        family: Family,
    ) -> Result<Arena, GpuError> {
        let sizes = Sizes::new(config, options, family);
        let mut lens = sizes.words.iter().map(|(_, len)| *len);
        let mut len = || lens.next().unwrap_or(0);
        fn buffer<T: bytemuck::Pod>(
            stream: &Stream,
            len: usize,
        ) -> Result<DeviceBuffer<T>, GpuError> {
            let buffer = DeviceBuffer::new(stream.device(), len)?;
            stream.fill(buffer.view(), 0)?;
            Ok(buffer)
        }
        Ok(Arena {
            indices: buffer(stream, len())?,
            x: buffer(stream, len())?,
            t: buffer(stream, len())?,
            qkv: buffer(stream, len())?,
            q: buffer(stream, len())?,
            parts: buffer(stream, len())?,
            attention: buffer(stream, len())?,
            router: buffer(stream, len())?,
            ids: buffer(stream, len())?,
            weights: buffer(stream, len())?,
            assignment_of: buffer(stream, len())?,
            slot_of: buffer(stream, len())?,
            tiles: buffer(stream, len())?,
            num_tiles: buffer(stream, len())?,
            gathered: buffer(stream, len())?,
            act: buffer(stream, len())?,
            y: buffer(stream, len())?,
            last: buffer(stream, len())?,
            logits: buffer(stream, len())?,
            chosen: buffer(stream, len())?,
        })
    }
}
