//! Kernels that work row by row: embedding, norm, rotation, argmax.

use half::bf16;
use shared::block::tiled_len;
use shared::kv::{PAGE, page_len};

use super::{Bench, words};
use crate::gpu::launch::rows::{Heads, RopeKv};
use crate::gpu::{DeviceBuffer, GpuError};

pub fn measure(bench: &mut Bench<'_>) -> Result<(), GpuError> {
    embed(bench)?;
    norm(bench)?;
    rotate(bench)?;
    argmax(bench)
}

fn embed(bench: &mut Bench<'_>) -> Result<(), GpuError> {
    let (n, vocab) = (bench.sizes.hidden, bench.sizes.vocab);
    if !bench.wants("embed") {
        return Ok(());
    }
    let table = bench.bf16(vocab * n)?;
    let chosen = DeviceBuffer::<u32>::new(bench.device(), 1)?;
    for rows in bench.sizes.all_rows().collect::<Vec<_>>() {
        let bytes = rows * n * 6;
        // Tokens differ from set to set; the table is past any cache.
        let sets: Vec<_> = (0..bench.sets(bytes)?)
            .map(|set| {
                let tokens: Vec<u32> =
                    words(rows, set as u32).map(|word| word % vocab as u32).collect();
                let out = DeviceBuffer::<f32>::new(bench.device(), rows * n)?;
                Ok((bench.stream.buffer_from(&tokens)?, out))
            })
            .collect::<Result<_, GpuError>>()?;
        let (stream, kernels) = (bench.stream, bench.kernels);
        bench.measure("embed", format!("{rows} x {n}"), [bytes, 0], sets.len(), |set| {
            let (tokens, out) = &sets[set];
            kernels.embed(stream, table.view(), tokens.view(), chosen.view(), out.view(), n)
        })?;
    }
    Ok(())
}

fn norm(bench: &mut Bench<'_>) -> Result<(), GpuError> {
    let n = bench.sizes.hidden;
    if !bench.wants("rmsnorm_tiled") {
        return Ok(());
    }
    let weight = bench.f32(n)?;
    for rows in bench.sizes.all_rows().collect::<Vec<_>>() {
        let bytes = rows * n * 6 + n * 4;
        let sets: Vec<_> = (0..bench.sets(bytes)?)
            .map(|_| {
                let y = DeviceBuffer::<bf16>::new(bench.device(), tiled_len(rows, n))?;
                Ok((bench.f32(rows * n)?, y))
            })
            .collect::<Result<_, GpuError>>()?;
        let (stream, kernels) = (bench.stream, bench.kernels);
        bench.measure("rmsnorm_tiled", format!("{rows} x {n}"), [bytes, 0], sets.len(), |set| {
            let (x, y) = &sets[set];
            kernels.rmsnorm_tiled(stream, x.view(), weight.view(), y.view(), 1e-5)
        })?;
    }
    Ok(())
}

fn rotate(bench: &mut Bench<'_>) -> Result<(), GpuError> {
    let sizes = &bench.sizes;
    let (kv_heads, head_dim, group) = (sizes.kv_heads, sizes.head_dim, sizes.group);
    let heads = Heads { heads: sizes.heads(), kv_heads, head_dim };
    let columns = (heads.heads + 2 * kv_heads) * head_dim;
    if !bench.wants("qkv_rope_kv") {
        return Ok(());
    }
    for rows in bench.sizes.all_rows().collect::<Vec<_>>() {
        let bytes = rows * columns * 6;
        let pages = rows.div_ceil(PAGE);
        let rope = bench.f32(rows * head_dim)?;
        let positions: Vec<u32> = (0..rows as u32).collect();
        let page_of: Vec<u32> = positions.iter().map(|p| p / PAGE as u32).collect();
        let positions = bench.stream.buffer_from(&positions)?;
        let page_of = bench.stream.buffer_from(&page_of)?;
        let sets: Vec<_> = (0..bench.sets(bytes)?)
            .map(|_| {
                let q = kv_heads * tiled_len(rows * group, head_dim);
                let q = DeviceBuffer::<bf16>::new(bench.device(), q)?;
                let pages = pages * page_len(kv_heads, head_dim);
                let pages = DeviceBuffer::<bf16>::new(bench.device(), pages)?;
                Ok((bench.f32(rows * columns)?, q, pages))
            })
            .collect::<Result<_, GpuError>>()?;
        let (stream, kernels) = (bench.stream, bench.kernels);
        let shape = format!("{rows} x {columns}");
        bench.measure("qkv_rope_kv", shape, [bytes, 0], sets.len(), |set| {
            let (qkv, q, pages) = &sets[set];
            let buffers = RopeKv {
                qkv: qkv.view(),
                rope: rope.view(),
                positions: positions.view(),
                page_of: page_of.view(),
                q: q.view(),
                pages: pages.view(),
            };
            // SAFETY: positions have a rotation, and their pages exist and differ by row.
            unsafe { kernels.qkv_rope_kv(stream, heads, buffers) }
        })?;
    }
    Ok(())
}

fn argmax(bench: &mut Bench<'_>) -> Result<(), GpuError> {
    let n = bench.sizes.vocab;
    if !bench.wants("argmax") {
        return Ok(());
    }
    for &rows in bench.sizes.decode {
        let bytes = rows * n * 4;
        let sets = (0..bench.sets(bytes)?)
            .map(|_| bench.f32(rows * n))
            .collect::<Result<Vec<_>, GpuError>>()?;
        let ids = DeviceBuffer::<u32>::new(bench.device(), rows)?;
        let (stream, kernels) = (bench.stream, bench.kernels);
        bench.measure("argmax", format!("{rows} x {n}"), [bytes, 0], sets.len(), |set| {
            kernels.argmax(stream, sets[set].view(), ids.view())
        })?;
    }
    Ok(())
}
