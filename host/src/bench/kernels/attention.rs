//! Attention: split and merged for decode, whole for prefill.

use half::bf16;
use shared::kernels::attention::{SPLIT_ROWS, WHOLE_ROWS, max_splits};
use shared::kv::{PAGE, page_len};

use super::Bench;
use crate::gpu::launch::attention::{Attention, AttentionShape};
use crate::gpu::{DeviceBuffer, GpuError};

/// `rows` queries that begin at `context - rows / sequences` of each sequence.
struct Step {
    shape: AttentionShape,
    q: DeviceBuffer<bf16>,
    pages: DeviceBuffer<bf16>,
    /// Page numbers, one table after the other by set.
    table: DeviceBuffer<u32>,
    tiles: DeviceBuffer<u32>,
    positions: DeviceBuffer<u32>,
    sinks: DeviceBuffer<f32>,
    sets: usize,
    table_len: usize,
    /// Keys seen by all rows together.
    seen: usize,
    /// Bytes of the keys and values that some row sees.
    kv_bytes: usize,
}

pub fn measure(bench: &mut Bench<'_>) -> Result<(), GpuError> {
    let window = bench.sizes.window;
    let dim = bench.sizes.head_dim;
    for window in [None, Some(window)] {
        for &context in bench.sizes.contexts {
            for &rows in bench.sizes.decode {
                if bench.wants(&format!("attention_split_{dim} attention_merge_{dim}")) {
                    decode(bench, rows, context, window)?;
                }
            }
        }
        for &rows in bench.sizes.prefill {
            if bench.wants(&format!("attention_whole_{dim}")) {
                prefill(bench, rows, window)?;
            }
        }
    }
    Ok(())
}

impl Step {
    /// `sequences` sequences of `context` tokens, the last `new` of each in this step, in tiles of
    /// `most` query rows.
    fn new(
        bench: &Bench<'_>,
        [sequences, new, context]: [usize; 3],
        window: Option<usize>,
        most: u32,
    ) -> Result<Step, GpuError> {
        let sizes = &bench.sizes;
        let (kv_heads, group, head_dim) = (sizes.kv_heads, sizes.group, sizes.head_dim);
        let rows = sequences * new;
        let scale = std::f32::consts::LOG2_E / (head_dim as f32).sqrt();
        let shape = AttentionShape { rows, kv_heads, group, head_dim, window, scale };
        let positions: Vec<u32> =
            (0..sequences).flat_map(|_| (context - new..context).map(|p| p as u32)).collect();
        let sees = |position: u32| (position as usize + 1).min(window.unwrap_or(usize::MAX));
        let seen = positions.iter().map(|&p| sees(p)).sum();
        let keys = sequences * context.min(window.unwrap_or(context).saturating_add(new - 1));
        let kv_bytes = keys * 2 * kv_heads * head_dim * 2;
        let sets = bench.sets(kv_bytes)?;

        let per_sequence = context.div_ceil(PAGE);
        let table_len = sequences * per_sequence;
        let count = sets * table_len;
        // Neighbours in a table are far apart in memory, as after some time of use.
        let stride = (count / 2 + 1..).find(|&s| gcd(s, count) == 1).unwrap_or(1);
        let table: Vec<u32> = (0..count).map(|i| (i * stride % count) as u32).collect();
        let mut tiles = Vec::new();
        for sequence in 0..sequences {
            let (first, end) = (sequence * new * group, (sequence + 1) * new * group);
            // Longest first, as in a step.
            for row in (first..end).step_by(most as usize).rev() {
                let rows = (end - row).min(most as usize);
                let position = context - new + (row - first) / group;
                tiles.extend([row, rows, sequence * per_sequence, position].map(|x| x as u32));
            }
        }
        Ok(Step {
            q: bench.bf16(shape.q_len())?,
            pages: bench.bf16(count * page_len(kv_heads, head_dim))?,
            table: bench.stream.buffer_from(&table)?,
            tiles: bench.stream.buffer_from(&tiles)?,
            positions: bench.stream.buffer_from(&positions)?,
            sinks: bench.f32(kv_heads * group)?,
            shape,
            sets,
            table_len,
            seen,
            kv_bytes,
        })
    }

    fn inputs(&self, set: usize) -> Attention<'_> {
        Attention {
            q: self.q.view(),
            pages: self.pages.view(),
            table: self.table.slice(set * self.table_len..(set + 1) * self.table_len),
            tiles: self.tiles.view(),
        }
    }

    /// Of both products.
    fn flops(&self) -> usize {
        4 * self.seen * self.shape.kv_heads * self.shape.group * self.shape.head_dim
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn seen_name(window: Option<usize>) -> String {
    window.map_or_else(|| "all".to_owned(), |window| format!("window {window}"))
}

fn decode(
    bench: &mut Bench<'_>,
    rows: usize,
    context: usize,
    window: Option<usize>,
) -> Result<(), GpuError> {
    let step = Step::new(bench, [rows, 1, context], window, SPLIT_ROWS)?;
    let (shape, dim) = (step.shape, step.shape.head_dim);
    let splits = max_splits(context as u32 - 1, window.unwrap_or(0) as u32) as usize;
    let query_rows = rows * shape.group;
    let parts = DeviceBuffer::<f32>::new(bench.device(), shape.parts_len(query_rows, splits))?;
    let out = DeviceBuffer::<bf16>::new(bench.device(), shape.out_len())?;
    let (stream, kernels) = (bench.stream, bench.kernels);
    let name = format!("{rows} after {context}, {}", seen_name(window));
    let split = |set| {
        let (inputs, parts) = (step.inputs(set), parts.view());
        // SAFETY: `Step` lists runs of existing rows and pages for all they see, in splits enough.
        unsafe { kernels.attention_split(stream, shape, inputs, splits, parts, query_rows) }
    };
    split(0)?;
    let bytes = [step.kv_bytes + step.q.len() * 2 + parts.len() * 4, step.flops()];
    let kernel = format!("attention_split_{dim}");
    bench.measure(&kernel, name.clone(), bytes, step.sets, split)?;
    let kernel = format!("attention_merge_{dim}");
    let bytes = [parts.len() * 4 + out.len() * 2, 0];
    // The parts come from the kernel before, as in a step: one set.
    bench.measure(&kernel, name, bytes, 1, |_| {
        let (parts, positions) = (parts.view(), step.positions.view());
        let (sinks, out) = (step.sinks.view(), out.view());
        // SAFETY: the parts were written above.
        unsafe {
            kernels.attention_merge(stream, shape, splits, parts, positions, sinks, out, query_rows)
        }
    })
}

fn prefill(bench: &mut Bench<'_>, rows: usize, window: Option<usize>) -> Result<(), GpuError> {
    let step = Step::new(bench, [1, rows, rows], window, WHOLE_ROWS)?;
    let shape = step.shape;
    let out = DeviceBuffer::<bf16>::new(bench.device(), shape.out_len())?;
    let (stream, kernels) = (bench.stream, bench.kernels);
    let kernel = format!("attention_whole_{}", shape.head_dim);
    let bytes = [step.kv_bytes + (step.q.len() + out.len()) * 2, step.flops()];
    let name = format!("{rows} of {rows}, {}", seen_name(window));
    bench.measure(&kernel, name, bytes, step.sets, |set| {
        let (inputs, sinks) = (step.inputs(set), step.sinks.view());
        // SAFETY: `Step` lists runs of existing rows and pages for all they see.
        unsafe { kernels.attention_whole(stream, shape, inputs, sinks, out.view()) }
    })
}
