//! The dense products.

use half::bf16;
use shared::block::tiled_len;

use super::Bench;
use crate::bench::cublas::{Cublas, Product};
use crate::gpu::launch::linear::{DenseFormat, Linear, LinearPath, LinearShape, Store};
use crate::gpu::{DeviceBuffer, GpuError};

/// What one launch reads and writes.
struct Set {
    w: DeviceBuffer<u8>,
    x: DeviceBuffer<bf16>,
    out: DeviceBuffer<f32>,
}

pub fn measure(bench: &mut Bench<'_>) -> Result<(), GpuError> {
    let (hidden, heads) = (bench.sizes.hidden, bench.sizes.heads() * bench.sizes.head_dim);
    let kv = 2 * bench.sizes.kv_heads * bench.sizes.head_dim;
    let matrices = [
        ("qkv", heads + kv, hidden),
        ("o", hidden, heads),
        ("router", bench.sizes.experts, hidden),
        ("unembedding", bench.sizes.vocab, hidden),
    ];
    let most = bench.sizes.decode.iter().max().copied();
    for rows in bench.sizes.all_rows().collect::<Vec<_>>() {
        for (what, n, k) in matrices {
            // Only rows that are sampled from are unembedded.
            if what == "unembedding" && Some(rows) > most {
                continue;
            }
            for format in [DenseFormat::Bf16, DenseFormat::Mxint8] {
                product(bench, what, format, LinearShape { n, rows, k })?;
            }
        }
    }
    Ok(())
}

fn product(
    bench: &mut Bench<'_>,
    what: &str,
    format: DenseFormat,
    shape: LinearShape,
) -> Result<(), GpuError> {
    let LinearShape { n, rows, k } = shape;
    let path = LinearPath::for_rows(rows);
    let path_name = match path {
        LinearPath::Skinny => "skinny",
        LinearPath::Skinny64 => "skinny64",
        LinearPath::Tile => "tile",
    };
    let format_name = match format {
        DenseFormat::Bf16 => "bf16",
        DenseFormat::Mxint8 => "mxint8",
    };
    let name = format!("linear_{path_name}_{format_name}");
    if !bench.wants(&name) {
        return Ok(());
    }
    let bytes = format.bytes(n, k) + rows * k * 2 + (rows + 1) * n * 4;
    let sets: Vec<Set> = (0..bench.sets(bytes)?)
        .map(|_| {
            let scales = format == DenseFormat::Mxint8;
            Ok(Set {
                w: bench.blocks(format.step_bytes(), scales, format.bytes(n, k))?,
                x: bench.bf16(tiled_len(rows, k))?,
                out: DeviceBuffer::new(bench.device(), rows * n)?,
            })
        })
        .collect::<Result<_, GpuError>>()?;
    let bias = bench.f32(n)?;
    let (stream, kernels) = (bench.stream, bench.kernels);
    let shape_name = format!("{what} {rows} x {n} x {k}");
    if (path, format) == (LinearPath::Tile, DenseFormat::Bf16) {
        vendor(bench, &format!("{name}, cuBLAS"), &shape_name, shape)?;
    }
    bench.measure(&name, shape_name, [bytes, 2 * rows * n * k], sets.len(), |set| {
        let Set { w, x, out } = &sets[set];
        let buffers =
            Linear { w: w.view(), format, x: x.view(), bias: bias.view(), out: out.view() };
        kernels.linear(stream, path, shape, Store::Replace, buffers)
    })
}

/// The same product by cuBLAS, where there is one: small shapes reach less than the ceiling.
fn vendor(
    bench: &mut Bench<'_>,
    name: &str,
    shape_name: &str,
    LinearShape { n, rows, k }: LinearShape,
) -> Result<(), GpuError> {
    let stream = bench.stream;
    let Ok(cublas) = Cublas::new(stream) else { return Ok(()) };
    let bytes = (n * k + rows * k) * 2 + rows * n * 4;
    let sets = (0..bench.sets(bytes)?)
        .map(|_| {
            let out = DeviceBuffer::<f32>::new(bench.device(), rows * n)?;
            Ok((bench.bf16(n * k)?, bench.bf16(rows * k)?, out))
        })
        .collect::<Result<Vec<_>, GpuError>>()?;
    let work = [bytes, 2 * rows * n * k];
    bench.measure(name, shape_name.to_owned(), work, sets.len(), |set| {
        let (w, x, out) = &sets[set];
        cublas.gemm_bf16(Product::F32(out.view()), x.view(), w.view(), [rows, n, k])
    })
}
