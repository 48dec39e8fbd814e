//! Launchers of what happens to rows of activations between the products.

use half::bf16;
use shared::block::{STEP, tiled_len};
use shared::kernels::rows::{
    FROM_CHOSEN, ROPE_HEADS, argmax, embed, qkv_rope_kv, rmsnorm_tiled, sample,
};
use shared::kv;
use shared::launch::DevPtr;
use shared::sampling::Draw;

use super::{Check, Kernels};
use crate::gpu::{DeviceSlice, GpuError, Stream};

/// Heads of one layer's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// KV heads, of which `heads` is a multiple.
    pub kv_heads: usize,
    /// Elements per head, a multiple of 32.
    pub head_dim: usize,
}

/// What [`Kernels::qkv_rope_kv`] reads and writes.
#[derive(Clone, Copy)]
pub struct RopeKv<'a> {
    /// `[rows, (heads + 2 * kv_heads) * head_dim]`: queries, keys, values.
    pub qkv: DeviceSlice<'a, f32>,
    /// `[positions, 2, head_dim / 2]`: scaled cosines and sines, see `shared::rope`.
    pub rope: DeviceSlice<'a, f32>,
    /// `[rows]`
    pub positions: DeviceSlice<'a, u32>,
    /// `[rows]`: the page of each row's position.
    pub page_of: DeviceSlice<'a, u32>,
    /// `[kv_heads][rows * heads / kv_heads, head_dim]` bf16, each KV head's in tiled layout.
    pub q: DeviceSlice<'a, bf16>,
    /// This layer's pages, see `shared::kv`; a whole number of them.
    pub pages: DeviceSlice<'a, bf16>,
}

impl Kernels {
    /// `x[rows, n] = table[tokens]`. A token with `shared::kernels::rows::FROM_CHOSEN` set stands
    /// for the one in `chosen` at its other bits; a row whose token is not in the table is NaN.
    pub fn embed(
        &self,
        stream: &Stream,
        table: DeviceSlice<'_, bf16>,
        tokens: DeviceSlice<'_, u32>,
        chosen: DeviceSlice<'_, u32>,
        x: DeviceSlice<'_, f32>,
        n: usize,
    ) -> Result<(), GpuError> {
        let check = Check::new(&embed::KERNEL, stream);
        // Elements are read in pairs.
        let columns = check.multiple("n", n, 2)?;
        check.whole("elements of table", table.len(), n)?;
        let vocab = check.size("rows of table", table.len() / n)?;
        if vocab > FROM_CHOSEN {
            return Err(check.refuse(format!("rows of table = {vocab} is above {FROM_CHOSEN}")));
        }
        let rows = check.positive("rows", tokens.len())?;
        let args = embed::Args {
            table: check.view("table", table, &[table.len()])?,
            tokens: check.view("tokens", tokens, &[tokens.len()])?,
            chosen: check.view("chosen", chosen, &[chosen.len()])?,
            x: check.view("x", x, &[tokens.len(), n])?,
            n: columns,
            vocab,
            choices: check.size("elements of chosen", chosen.len())?,
        };
        check.apart(("x", x), ("table", table))?;
        check.apart(("x", x), ("tokens", tokens))?;
        check.apart(("x", x), ("chosen", chosen))?;
        // SAFETY: lengths and overlap were checked, there is one workgroup per row. The kernel
        // reads no row that `table` does not have, and no choice that `chosen` does not have.
        unsafe { self.launch(stream, [rows, 1, 1], &args) }
    }

    /// `y[rows, n] = x[rows, n] / sqrt(mean(x^2) + eps) * weight[n]`, bf16 in tiled layout.
    pub fn rmsnorm_tiled(
        &self,
        stream: &Stream,
        x: DeviceSlice<'_, f32>,
        weight: DeviceSlice<'_, f32>,
        y: DeviceSlice<'_, bf16>,
        eps: f32,
    ) -> Result<(), GpuError> {
        let rows = x.len() / weight.len().max(1);
        // SAFETY: without a list of rows nothing is trusted.
        unsafe { self.norm(stream, x, weight, None, rows, y, eps) }
    }

    /// As [`Kernels::rmsnorm_tiled`], of the rows of `x` that `rows` names.
    ///
    /// # Safety
    ///
    /// Every entry of `rows` is below the rows of `x`.
    pub unsafe fn rmsnorm_tiled_rows(
        &self,
        stream: &Stream,
        x: DeviceSlice<'_, f32>,
        weight: DeviceSlice<'_, f32>,
        rows: DeviceSlice<'_, u32>,
        y: DeviceSlice<'_, bf16>,
        eps: f32,
    ) -> Result<(), GpuError> {
        // SAFETY: the caller's promise.
        unsafe { self.norm(stream, x, weight, Some(rows), rows.len(), y, eps) }
    }

    /// # Safety
    ///
    /// Every entry of `list` is below the rows of `x`.
    #[expect(clippy::too_many_arguments, reason = "the tensors of one kernel")]
    unsafe fn norm(
        &self,
        stream: &Stream,
        x: DeviceSlice<'_, f32>,
        weight: DeviceSlice<'_, f32>,
        list: Option<DeviceSlice<'_, u32>>,
        rows: usize,
        y: DeviceSlice<'_, bf16>,
        eps: f32,
    ) -> Result<(), GpuError> {
        let check = Check::new(&rmsnorm_tiled::KERNEL, stream);
        let n = check.multiple("n", weight.len(), STEP)?;
        check.multiple("elements of x", x.len(), weight.len())?;
        let grid = [check.positive("rows", rows)?, 1, 1];
        let args = rmsnorm_tiled::Args {
            x: check.aligned("x", x, &[x.len()], 16)?,
            weight: check.aligned("weight", weight, &[weight.len()], 16)?,
            rows: match list {
                Some(list) => check.view("rows", list, &[rows])?,
                None => DevPtr::NULL,
            },
            y: check.aligned("y", y, &[tiled_len(rows, weight.len())], 16)?,
            n,
            eps,
        };
        check.apart(("y", y), ("x", x))?;
        check.apart(("y", y), ("weight", weight))?;
        // SAFETY: lengths, alignment and overlap were checked, there is one workgroup per row of y;
        // the list is the caller's promise.
        unsafe { self.launch_optional(stream, grid, &args, &["rows"]) }
    }

    /// Rotates queries and keys to their positions and rounds all three to bf16: queries to `q`,
    /// keys and values to the cache.
    ///
    /// # Safety
    ///
    /// Every position has a row in `rope` and its page is one of `pages`; no two rows share both
    /// page and position.
    pub unsafe fn qkv_rope_kv(
        &self,
        stream: &Stream,
        Heads { heads, kv_heads, head_dim }: Heads,
        buffers: RopeKv<'_>,
    ) -> Result<(), GpuError> {
        let RopeKv { qkv, rope, positions, page_of, q, pages } = buffers;
        let check = Check::new(&qkv_rope_kv::KERNEL, stream);
        let args_kv_heads = check.positive("kv_heads", kv_heads)?;
        let args_heads = check.multiple("heads", heads, kv_heads)?;
        let dim = check.multiple("head_dim", head_dim, STEP)?;
        let rows = positions.len();
        check.multiple("elements of rope", rope.len(), head_dim)?;
        check.whole("elements of pages", pages.len(), kv::page_len(kv_heads, head_dim))?;
        let q_len = tiled_len(rows.saturating_mul(heads / kv_heads), head_dim);
        let args = qkv_rope_kv::Args {
            qkv: check.aligned("qkv", qkv, &[rows, heads + 2 * kv_heads, head_dim], 16)?,
            rope: check.aligned("rope", rope, &[rope.len()], 16)?,
            positions: check.view("positions", positions, &[rows])?,
            page_of: check.view("page_of", page_of, &[rows])?,
            q: check.aligned("q", q, &[kv_heads, q_len], 16)?,
            pages: check.aligned("pages", pages, &[pages.len()], 16)?,
            heads: args_heads,
            kv_heads: args_kv_heads,
            head_dim: dim,
            rows: check.positive("rows", rows)?,
        };
        check.apart(("q", q), ("qkv", qkv))?;
        check.apart(("pages", pages), ("qkv", qkv))?;
        check.apart(("pages", pages), ("q", q))?;
        let grid = [(args_heads + 2 * args_kv_heads).div_ceil(ROPE_HEADS), args.rows, 1];
        // SAFETY: lengths, alignment and overlap were checked, the grid covers heads and rows;
        // positions and pages are the caller's promise.
        unsafe { self.launch(stream, grid, &args) }
    }

    /// `ids[rows] =` the index of the largest value of `x[rows, n]`, the lowest among equals;
    /// `shared::kernels::rows::NOT_FINITE` for a row with a value that is not finite.
    pub fn argmax(
        &self,
        stream: &Stream,
        x: DeviceSlice<'_, f32>,
        ids: DeviceSlice<'_, u32>,
    ) -> Result<(), GpuError> {
        let check = Check::new(&argmax::KERNEL, stream);
        let rows = check.positive("rows", ids.len())?;
        let n = check.multiple("elements of x", x.len(), ids.len())? / rows;
        let args = argmax::Args {
            x: check.view("x", x, &[ids.len(), n as usize])?,
            ids: check.view("ids", ids, &[ids.len()])?,
            n,
        };
        check.apart(("ids", ids), ("x", x))?;
        // SAFETY: lengths and overlap were checked, and there is one workgroup per row.
        unsafe { self.launch(stream, [rows, 1, 1], &args) }
    }

    /// `ids[rows] =` a token drawn from each row of `x[rows, n]` as `draws[rows]` say, each a
    /// [`Draw`] in words; `shared::kernels::rows::NOT_FINITE` for a row with a value that is not
    /// finite.
    pub fn sample(
        &self,
        stream: &Stream,
        x: DeviceSlice<'_, f32>,
        draws: DeviceSlice<'_, u32>,
        ids: DeviceSlice<'_, u32>,
    ) -> Result<(), GpuError> {
        let check = Check::new(&sample::KERNEL, stream);
        let rows = check.positive("rows", ids.len())?;
        let n = check.multiple("elements of x", x.len(), ids.len())? / rows;
        let args = sample::Args {
            x: check.view("x", x, &[ids.len(), n as usize])?,
            draws: check.view("draws", draws, &[ids.len(), Draw::WORDS])?,
            ids: check.view("ids", ids, &[ids.len()])?,
            n,
        };
        check.apart(("ids", ids), ("x", x))?;
        check.apart(("ids", ids), ("draws", draws))?;
        // SAFETY: lengths and overlap were checked, and there is one workgroup per row. Any words
        // are a draw.
        unsafe { self.launch(stream, [rows, 1, 1], &args) }
    }
}
