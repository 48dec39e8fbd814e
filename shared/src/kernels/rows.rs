//! What happens to rows of activations between the products: embedding, normalisation, rotation
//! and the KV cache, and the choice of a token.

use crate::sampling::BINS;

/// Elements a thread of `rmsnorm_tiled` takes at a time: a chunk of the tiled layout.
pub const NORM_CHUNK: u32 = crate::block::CHUNK as u32;
/// Heads of a workgroup of `qkv_rope_kv`, one wave each.
pub const ROPE_HEADS: u32 = 4;
/// What `argmax` answers for a row with a value that is not finite.
pub const NOT_FINITE: u32 = u32::MAX;
/// Marks a token that `embed` takes from its list `chosen`, at the index in the other bits: what an
/// earlier step chose never has to reach the host first. Vocabularies have fewer than 2^31 tokens.
pub const FROM_CHOSEN: u32 = 1 << 31;

crate::kernels! {
    /// `x[r] = table[token]`, where `token` is `tokens[r]`, or `chosen[tokens[r] - FROM_CHOSEN]`
    /// where [`FROM_CHOSEN`] is set. A token that is not in the table makes the row NaN: the
    /// [`NOT_FINITE`] of an earlier step fails again in the step that takes it. Grid `rows`.
    embed(
        /// `[vocab, n]`, bf16
        table: *const u16,
        /// `[rows]`
        tokens: *const u32,
        /// `[choices]`, as `argmax` and `sample` write it
        chosen: *const u32,
        /// `[rows, n]`
        x: *mut f32,
        n: u32,
        /// below 2^31
        vocab: u32,
        choices: u32,
    ) {
        threads(family) = 256;
        lds(args, family) = 0;
    }

    /// `y[r] = x[s] / sqrt(mean(x[s]^2) + eps) * weight`, rounded to bf16, where `s` is `rows[r]`,
    /// or `r` without `rows`. Grid: the rows of `y`.
    rmsnorm_tiled(
        /// `[rows of x, n]`
        x: *const f32,
        /// `[n]`
        weight: *const f32,
        /// rows of x; may be null
        rows: *const u32,
        /// `[grid, n]` bf16 in tiled layout
        y: *mut u16,
        /// a multiple of 32
        n: u32,
        eps: f32,
    ) {
        threads(family) = 256;
        lds(args, family) = threads(family) / family.wave() * 4;
    }

    /// Rotates queries and keys to their positions, and rounds all three to bf16: queries to `q`,
    /// keys and values to the cache. Grid `(ceil((heads + 2 * kv_heads) / 4), rows)`.
    qkv_rope_kv(
        /// `[rows, (heads + 2 * kv_heads) * head_dim]`: queries, keys, values
        qkv: *const f32,
        /// `[positions, 2, head_dim / 2]`, see [`crate::rope`]
        rope: *const f32,
        /// `[rows]`
        positions: *const u32,
        /// `[rows]`: the page of each row's position
        page_of: *const u32,
        /// `[kv_heads][rows * heads / kv_heads, head_dim]` bf16, each KV head's in tiled layout
        q: *mut u16,
        /// this layer's pages, see [`crate::kv`]
        pages: *mut u16,
        heads: u32,
        kv_heads: u32,
        /// a multiple of 32
        head_dim: u32,
        rows: u32,
    ) {
        threads(family) = ROPE_HEADS * family.wave();
        lds(args, family) = 0;
    }

    /// The largest value's index, the lowest among equals; [`NOT_FINITE`] if any is not finite.
    /// Grid `rows`.
    argmax(
        /// `[rows, n]`
        x: *const f32,
        /// `[rows]`
        ids: *mut u32,
        n: u32,
    ) {
        threads(family) = 512;
        lds(args, family) = 3 * 4 * (threads(family) / family.wave());
    }

    /// Draws a token from each row as [`crate::sampling`] says; [`NOT_FINITE`] if any logit is not
    /// finite. Grid `rows`.
    sample(
        /// `[rows, n]`
        x: *const f32,
        /// `[rows]`, each a [`crate::sampling::Draw`] in words
        draws: *const u32,
        /// `[rows]`
        ids: *mut u32,
        n: u32,
    ) {
        threads(family) = 512;
        lds(args, family) = 2 * 4 * BINS + 8 * (threads(family) / family.wave());
    }
}
