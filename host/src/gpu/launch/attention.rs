//! Launchers of attention over the paged cache.
//!
//! Tile lists, positions and page numbers are content of device memory that the kernels trust, so
//! these launchers are `unsafe`; see [`Attention`] for what must hold.

use half::bf16;
use shared::block::tiled_len;
use shared::kernels::attention::*;
use shared::kv;
use shared::launch::DevPtr;

use super::{Check, Kernels};
use crate::gpu::{DeviceSlice, GpuError, Stream};

/// The sizes of one layer's attention over the rows of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Tokens of the step.
    pub rows: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Query heads per KV head.
    pub group: usize,
    /// Elements per head: 32 or 64.
    pub head_dim: usize,
    /// Tokens a query sees, its own included; `None` sees all before it.
    pub window: Option<usize>,
    /// Factor on the scores, positive, in units of log2: `log2(e) / sqrt(head_dim)`.
    pub scale: f32,
}

/// What one layer's attention reads.
///
/// The contract of the `unsafe` launchers: every entry of `tiles` is a run of existing query rows
/// of one sequence, its tokens at consecutive positions, no longer than the kernel takes
/// (`SPLIT_ROWS`, `WHOLE_ROWS`); every position that a row of it sees, by the window, has a page in
/// `table`; the pages exist. What they hold behind the last position that a tile sees changes
/// nothing; what they hold before a window, in a page that is partly seen, is finite.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    /// `[kv_heads][rows * group, head_dim]` bf16, each head tiled.
    pub q: DeviceSlice<'a, bf16>,
    /// This layer's pages, see `shared::kv`; a whole number of them.
    pub pages: DeviceSlice<'a, bf16>,
    /// Page numbers.
    pub table: DeviceSlice<'a, u32>,
    /// `[tiles, 4]`: first query row, query rows, where the sequence's pages begin in `table`,
    /// position of the first row's token.
    pub tiles: DeviceSlice<'a, u32>,
}

/// Scalars as the kernels take them, checked.
struct AttentionSizes {
    rows: u32,
    kv_heads: u32,
    group: u32,
    query_rows: usize,
    window: u32,
}

impl AttentionShape {
    fn check(&self, check: &Check<'_>) -> Result<AttentionSizes, GpuError> {
        let query_rows = self.rows.saturating_mul(self.group);
        check.positive("rows * group", query_rows)?;
        let window = match self.window {
            None => 0,
            Some(window) => check.positive("window", window)?,
        };
        if !(self.scale > 0.0 && self.scale.is_finite()) {
            return Err(check.refuse(format!("scale = {}, expected a positive number", self.scale)));
        }
        Ok(AttentionSizes {
            rows: check.positive("rows", self.rows)?,
            kv_heads: check.positive("kv_heads", self.kv_heads)?,
            group: check.positive("group", self.group)?,
            query_rows,
            window,
        })
    }

    /// f32 of the parts of query rows `0..query_rows` in `splits` splits.
    pub const fn parts_len(&self, query_rows: usize, splits: usize) -> usize {
        query_rows * self.kv_heads * splits * part_len(self.head_dim as u32) as usize
    }

    /// bf16 elements of the queries.
    pub const fn q_len(&self) -> usize {
        self.kv_heads * tiled_len(self.rows * self.group, self.head_dim)
    }

    /// bf16 elements of the output: `[rows, kv_heads * group * head_dim]` in tiled layout.
    pub const fn out_len(&self) -> usize {
        tiled_len(self.rows, self.kv_heads * self.group * self.head_dim)
    }
}

/// Addresses as the kernels take them, checked.
struct Inputs {
    q: DevPtr<u8>,
    pages: DevPtr<u8>,
    table: DevPtr<u32>,
    tiles: DevPtr<u32>,
    num_tiles: u32,
}

impl Attention<'_> {
    fn check(&self, check: &Check<'_>, shape: &AttentionShape) -> Result<Inputs, GpuError> {
        let page = kv::page_len(shape.kv_heads, shape.head_dim);
        check.whole("elements of pages", self.pages.len(), page)?;
        let words = TILE_WORDS as usize;
        let num_tiles = check.multiple("elements of tiles", self.tiles.len(), words)? / TILE_WORDS;
        let q = check.aligned("q", self.q, &[shape.q_len()], 16)?;
        let pages = check.aligned("pages", self.pages, &[self.pages.len()], 16)?;
        Ok(Inputs {
            q: DevPtr::new(q.address()),
            pages: DevPtr::new(pages.address()),
            table: check.view("table", self.table, &[self.table.len()])?,
            tiles: check.view("tiles", self.tiles, &[self.tiles.len()])?,
            num_tiles,
        })
    }
}

/// Runs `$launch!(kernel)` with the kernel compiled for the head size.
macro_rules! by_head_dim {
    ($stream:expr, $dim:expr, $launch:ident, $kernel_32:ident, $kernel_64:ident) => {
        match $dim {
            32 => $launch!($kernel_32),
            64 => $launch!($kernel_64),
            other => Err(Check::new(&$kernel_64::KERNEL, $stream)
                .refuse(format!("head_dim = {other}, expected one of {:?}", kv::HEAD_DIMS))),
        }
    };
}

impl Kernels {
    /// `parts[query_rows, kv_heads, splits, head_dim + 2] =` each split of keys scored for each
    /// query row of the tiles.
    ///
    /// # Safety
    ///
    /// The contract of [`Attention`], the tiles hold query rows below `query_rows` only, and
    /// `splits` is at least `max_splits` of the positions. The launch before this one in the stream
    /// writes neither `tiles` nor `table`, nor keys and values of positions before a tile's first.
    pub unsafe fn attention_split(
        &self,
        stream: &Stream,
        shape: AttentionShape,
        inputs: Attention<'_>,
        splits: usize,
        parts: DeviceSlice<'_, f32>,
        query_rows: usize,
    ) -> Result<(), GpuError> {
        macro_rules! launch {
            ($kernel:ident) => {{
                let check = Check::new(&$kernel::KERNEL, stream);
                let sizes = shape.check(&check)?;
                let from = inputs.check(&check, &shape)?;
                let splits = check.positive("splits", splits)?;
                let args = $kernel::Args {
                    q: from.q,
                    pages: from.pages,
                    table: from.table,
                    tiles: from.tiles,
                    parts: check.view(
                        "parts",
                        parts,
                        &[shape.parts_len(query_rows, splits as usize)],
                    )?,
                    rows: sizes.rows,
                    kv_heads: sizes.kv_heads,
                    group: sizes.group,
                    splits,
                    window: sizes.window,
                    scale: shape.scale,
                };
                check.apart(("parts", parts), ("q", inputs.q))?;
                check.apart(("parts", parts), ("pages", inputs.pages))?;
                let grid = [splits, sizes.kv_heads, from.num_tiles];
                // SAFETY: lengths, alignment and overlap were checked, the grid covers splits,
                // heads and tiles; the content is the caller's promise.
                unsafe { self.launch(stream, grid, &args) }
            }};
        }
        by_head_dim!(stream, shape.head_dim, launch, attention_split_32, attention_split_64)
    }

    /// `out =` the merged parts of query rows `0..query_rows`, with the sinks, bf16 in tiled layout
    /// `[rows, kv_heads * group * head_dim]`.
    ///
    /// # Safety
    ///
    /// `attention_split` has written the parts of those rows with this `shape` and `splits`, of
    /// tiles at the same `positions`.
    #[expect(clippy::too_many_arguments, reason = "each is a tensor or a shape of the merge")]
    pub unsafe fn attention_merge(
        &self,
        stream: &Stream,
        shape: AttentionShape,
        splits: usize,
        parts: DeviceSlice<'_, f32>,
        positions: DeviceSlice<'_, u32>,
        sinks: DeviceSlice<'_, f32>,
        out: DeviceSlice<'_, bf16>,
        query_rows: usize,
    ) -> Result<(), GpuError> {
        macro_rules! launch {
            ($kernel:ident) => {{
                let check = Check::new(&$kernel::KERNEL, stream);
                let sizes = shape.check(&check)?;
                if query_rows > sizes.query_rows {
                    return Err(
                        check.refuse(format!("query_rows = {query_rows}, of {}", sizes.query_rows))
                    );
                }
                let args = $kernel::Args {
                    parts: check.view("parts", parts, &[shape.parts_len(query_rows, splits)])?,
                    positions: check.view("positions", positions, &[shape.rows])?,
                    sinks: check.view("sinks", sinks, &[shape.kv_heads, shape.group])?,
                    out: check.aligned("out", out, &[shape.out_len()], 16)?,
                    kv_heads: sizes.kv_heads,
                    group: sizes.group,
                    splits: check.positive("splits", splits)?,
                    window: sizes.window,
                };
                check.apart(("out", out), ("parts", parts))?;
                let grid = [check.positive("query_rows", query_rows)?, sizes.kv_heads, 1];
                // SAFETY: lengths, alignment and overlap were checked; the parts are the caller's
                // promise.
                unsafe { self.launch(stream, grid, &args) }
            }};
        }
        by_head_dim!(stream, shape.head_dim, launch, attention_merge_32, attention_merge_64)
    }

    /// `out =` attention of the tiles' query rows over all their keys, with the sinks, bf16 in tiled
    /// layout `[rows, kv_heads * group * head_dim]`.
    ///
    /// # Safety
    ///
    /// The contract of [`Attention`].
    pub unsafe fn attention_whole(
        &self,
        stream: &Stream,
        shape: AttentionShape,
        inputs: Attention<'_>,
        sinks: DeviceSlice<'_, f32>,
        out: DeviceSlice<'_, bf16>,
    ) -> Result<(), GpuError> {
        macro_rules! launch {
            ($kernel:ident) => {{
                let check = Check::new(&$kernel::KERNEL, stream);
                let sizes = shape.check(&check)?;
                let from = inputs.check(&check, &shape)?;
                let args = $kernel::Args {
                    q: from.q,
                    pages: from.pages,
                    table: from.table,
                    tiles: from.tiles,
                    sinks: check.view("sinks", sinks, &[shape.kv_heads, shape.group])?,
                    out: check.aligned("out", out, &[shape.out_len()], 16)?,
                    rows: sizes.rows,
                    kv_heads: sizes.kv_heads,
                    group: sizes.group,
                    window: sizes.window,
                    scale: shape.scale,
                };
                check.apart(("out", out), ("q", inputs.q))?;
                check.apart(("out", out), ("pages", inputs.pages))?;
                let grid = [sizes.kv_heads, from.num_tiles, 1];
                // SAFETY: lengths, alignment and overlap were checked, the grid covers heads and
                // tiles; the content is the caller's promise.
                unsafe { self.launch(stream, grid, &args) }
            }};
        }
        by_head_dim!(stream, shape.head_dim, launch, attention_whole_32, attention_whole_64)
    }
}
