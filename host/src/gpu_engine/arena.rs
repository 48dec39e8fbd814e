//! Memory for the activations of a step, allocated once for the largest step.

use half::bf16;
use shared::block::{Family, tiled_len};
use shared::kernels::attention::{SPLIT_ROWS, max_splits, part_len};
use shared::kernels::moe::TILE_WORDS;
use shared::model::ModelConfig;

use super::{GpuOptions, plan};
use crate::gpu::launch::moe::{ExpertPath, Routing};
use crate::gpu::{DeviceBuffer, GpuError, Stream};

/// Most rows of logits computed at a time: they take memory, and fewer read the unembedding again.
const MAX_OUTPUT_ROWS: usize = 512;

/// Rows of logits computed at a time.
pub fn output_rows(options: &GpuOptions) -> usize {
    options.max_sequences.min(options.max_step_tokens).clamp(1, MAX_OUTPUT_ROWS)
}

/// Tokens that a step can choose.
pub fn choices(options: &GpuOptions) -> usize {
    options.max_sequences.min(options.max_step_tokens).max(1)
}

/// Declares the arena: each buffer once, with its element and its length.
macro_rules! arena {
    ($sizes:ident; $($(#[doc = $doc:literal])+ $name:ident: $element:ty = $len:expr;)+) => {
        /// Buffers of a step. `R` is the most tokens of a step, `A` their assignments to experts,
        /// `S` the slots of those, empty ones included, `O` the rows of logits computed at a time.
        pub struct Arena {
            $($(#[doc = $doc])+ pub $name: DeviceBuffer<$element>,)+
        }

        impl Arena {
            /// Bytes of all buffers.
            pub fn bytes(config: &ModelConfig, options: &GpuOptions, family: Family) -> u64 {
                let $sizes = Lengths::new(config, options, family);
                0 $(+ (size_of::<$element>() * $len) as u64)+
            }

            /// Allocates and zeroes them: products read the padding of tiled matrices.
            pub fn new(
                stream: &Stream,
                config: &ModelConfig,
                options: &GpuOptions,
                family: Family,
            ) -> Result<Arena, GpuError> {
                let $sizes = Lengths::new(config, options, family);
                Ok(Arena { $($name: zeroed::<$element>(stream, $len)?,)+ })
            }
        }
    };
}

arena! { of;
    /// Indices of the step, see `plan::Plan`.
    indices: u32 = of.words;
    /// Residual stream, `[R, hidden]`.
    x: f32 = of.rows * of.hidden;
    /// Rows normalised before a product, `[R, hidden]`, tiled.
    normed: bf16 = tiled_len(of.rows, of.hidden);
    /// Queries, keys, values as computed, `[R, q_dim + 2 kv_dim]`.
    qkv: f32 = of.rows * (of.q_dim + 2 * of.kv_dim);
    /// Rotated queries, `[kv heads][R * group, head_dim]`, each tiled.
    q: bf16 = of.kv_heads * tiled_len(of.rows * of.group, of.head_dim);
    /// Parts of attention, see `shared::kernels::attention`.
    parts: f32 = of.parts;
    /// Attention's output, `[R, q_dim]`, tiled.
    attention: bf16 = tiled_len(of.rows, of.q_dim);
    /// Router logits, `[R, experts]`.
    router: f32 = of.rows * of.experts;
    /// Experts of each row, `[A]`.
    ids: u32 = of.assignments;
    /// Their weights, `[A]`.
    weights: f32 = of.assignments;
    /// Assignment in each slot, `[S]`.
    assignment_of: u32 = of.slots;
    /// Slot of each assignment, `[A]`.
    slot_of: u32 = of.assignments;
    /// Tiles of slots, `[max_tiles, 3]`.
    tiles: u32 = of.tiles * TILE_WORDS as usize;
    /// `[1]`
    num_tiles: u32 = 1;
    /// Rows by slot, `[S, hidden]`, tiled.
    gathered: bf16 = tiled_len(of.slots, of.hidden);
    /// First product's result, `[S, intermediate]`, tiled.
    act: bf16 = tiled_len(of.slots, of.intermediate);
    /// Second product's result, `[S, hidden]`.
    y: f32 = of.slots * of.hidden;
    /// Rows that want logits, `[O, hidden]`, tiled.
    last: bf16 = tiled_len(of.outputs, of.hidden);
    /// `[O, vocab]`
    logits: f32 = of.outputs * of.vocab;
    /// Tokens chosen in the last step that chose any, one for each chunk that wanted one.
    chosen: u32 = of.choices;
}

fn zeroed<T: bytemuck::Pod>(stream: &Stream, len: usize) -> Result<DeviceBuffer<T>, GpuError> {
    let buffer = DeviceBuffer::new(stream.device(), len)?;
    stream.fill(buffer.view(), 0)?;
    Ok(buffer)
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

/// What the buffers' lengths are made of.
struct Lengths {
    words: usize,
    rows: usize,
    hidden: usize,
    q_dim: usize,
    kv_dim: usize,
    kv_heads: usize,
    group: usize,
    head_dim: usize,
    parts: usize,
    experts: usize,
    assignments: usize,
    slots: usize,
    tiles: usize,
    intermediate: usize,
    outputs: usize,
    choices: usize,
    vocab: usize,
}

impl Lengths {
    fn new(config: &ModelConfig, options: &GpuOptions, family: Family) -> Lengths {
        let rows = options.max_step_tokens;
        let (experts, top_k) = (config.num_local_experts, config.num_experts_per_tok);
        let routing = Routing { rows, experts, top_k };
        let tiles = [ExpertPath::Skinny, ExpertPath::Tile]
            .map(|path| routing.max_tiles(path, family))
            .into_iter()
            .max()
            .unwrap_or(0);
        let part = part_len(config.head_dim as u32) as usize;
        let parts = split_rows(config, options) * config.num_key_value_heads * part;
        Lengths {
            words: plan::max_words(config, options),
            rows,
            hidden: config.hidden_size,
            q_dim: config.q_dim(),
            kv_dim: config.kv_dim(),
            kv_heads: config.num_key_value_heads,
            group: config.group_size(),
            head_dim: config.head_dim,
            parts: parts * splits(config, options),
            experts,
            assignments: routing.assignments(),
            slots: routing.max_slots(),
            tiles,
            intermediate: config.intermediate_size,
            outputs: output_rows(options),
            choices: choices(options),
            vocab: config.vocab_size,
        }
    }
}
