//! Launchers of the dense products.

use half::bf16;
use shared::block::{Family, ROWS, STEP, tiled_len};
use shared::kernels::linear::{
    SKINNY_OUTPUTS, TILE_OUTPUTS, linear_skinny_bf16, linear_skinny_mxint8, linear_skinny64_bf16,
    linear_skinny64_mxint8, linear_tile_bf16, linear_tile_mxint8, skinny64_tiles, tile_rows,
};
use shared::launch::DevPtr;
use shared::pack;

use super::{Check, Kernels};
use crate::gpu::{DeviceSlice, GpuError, Stream};

/// How a dense weight matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DenseFormat {
    /// bf16, as published.
    Bf16,
    /// Eight-bit integers in blocks of 32 with a power-of-two scale.
    #[value(name = "q8")]
    Mxint8,
}

impl DenseFormat {
    /// Bytes of 16 rows by 32 k.
    pub const fn step_bytes(self) -> usize {
        match self {
            DenseFormat::Bf16 => pack::BF16_STEP_BYTES,
            DenseFormat::Mxint8 => pack::MXINT8_STEP_BYTES,
        }
    }

    /// Bytes of an `[n, k]` matrix, `n` padded to 16; `k` is a multiple of 32.
    pub const fn bytes(self, n: usize, k: usize) -> usize {
        n.div_ceil(ROWS) * (k / STEP) * self.step_bytes()
    }
}

/// Which of the kernels of one product: results are the same, bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinearPath {
    /// Up to 16 rows.
    Skinny,
    /// Up to 64 rows.
    Skinny64,
    /// Any number of rows.
    Tile,
}

impl LinearPath {
    /// The path that reads the weights once for `rows` rows.
    pub const fn for_rows(rows: usize) -> LinearPath {
        match rows {
            0..=16 => LinearPath::Skinny,
            17..=64 => LinearPath::Skinny64,
            _ => LinearPath::Tile,
        }
    }

    const fn max_rows(self) -> usize {
        match self {
            LinearPath::Skinny => 16,
            LinearPath::Skinny64 => 64,
            LinearPath::Tile => usize::MAX,
        }
    }
}

/// What becomes of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// It replaces what was there.
    Replace,
    /// It is added to what was there.
    Add,
}

/// The sizes of one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearShape {
    /// Outputs: rows of the weights.
    pub n: usize,
    /// Rows of the input.
    pub rows: usize,
    /// Inputs, a multiple of 32.
    pub k: usize,
}

/// Buffers of one product.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    /// `[ceil(n / 16)][k / 32]` blocks of `format`, see `shared::pack`.
    pub w: DeviceSlice<'a, u8>,
    /// How `w` is stored.
    pub format: DenseFormat,
    /// `[rows, k]` bf16 in tiled layout: `tiled_len(rows, k)` elements, see `shared::block`.
    pub x: DeviceSlice<'a, bf16>,
    /// `[n]`
    pub bias: DeviceSlice<'a, f32>,
    /// `[rows, n]`
    pub out: DeviceSlice<'a, f32>,
}

impl Kernels {
    /// `out[rows, n] (+)= x[rows, k] * w[n, k]^T + bias[n]`.
    pub fn linear(
        &self,
        stream: &Stream,
        path: LinearPath,
        shape: LinearShape,
        store: Store,
        buffers: Linear<'_>,
    ) -> Result<(), GpuError> {
        macro_rules! launch {
            ($kernel:ident) => {{
                let check = Check::new(&$kernel::KERNEL, stream);
                let sizes = check_linear(&check, self.family(), path, shape, &buffers)?;
                let args = $kernel::Args {
                    w: sizes.w,
                    x: sizes.x,
                    bias: buffers.bias.ptr(),
                    out: buffers.out.ptr(),
                    n: sizes.n,
                    rows: sizes.rows,
                    steps: sizes.steps,
                    accumulate: u32::from(store == Store::Add),
                };
                // SAFETY: lengths, alignment and overlap were checked; the grid covers n and rows.
                unsafe { self.launch(stream, sizes.grid, &args) }
            }};
        }
        use {DenseFormat::*, LinearPath::*};
        match (path, buffers.format) {
            (Skinny, Bf16) => launch!(linear_skinny_bf16),
            (Skinny64, Bf16) => launch!(linear_skinny64_bf16),
            (Tile, Bf16) => launch!(linear_tile_bf16),
            (Skinny, Mxint8) => launch!(linear_skinny_mxint8),
            (Skinny64, Mxint8) => launch!(linear_skinny64_mxint8),
            (Tile, Mxint8) => launch!(linear_tile_mxint8),
        }
    }
}

/// What the six kernels take alike.
struct LinearSizes {
    w: DevPtr<u8>,
    x: DevPtr<u8>,
    n: u32,
    rows: u32,
    steps: u32,
    grid: [u32; 3],
}

fn check_linear(
    check: &Check<'_>,
    family: Family,
    path: LinearPath,
    LinearShape { n, rows, k }: LinearShape,
    buffers: &Linear<'_>,
) -> Result<LinearSizes, GpuError> {
    if rows > path.max_rows() {
        return Err(check.refuse(format!("rows = {rows}, at most {}", path.max_rows())));
    }
    let steps = check.multiple("k", k, STEP)? / STEP as u32;
    let w = check.aligned("w", buffers.w, &[buffers.format.bytes(n, k)], 16)?;
    let x = check.aligned("x", buffers.x, &[tiled_len(rows, k)], 16)?;
    check.view("bias", buffers.bias, &[n])?;
    check.view("out", buffers.out, &[rows, n])?;
    check.apart(("out", buffers.out), ("w", buffers.w))?;
    check.apart(("out", buffers.out), ("x", buffers.x))?;
    check.apart(("out", buffers.out), ("bias", buffers.bias))?;
    let (n, rows) = (check.positive("n", n)?, check.positive("rows", rows)?);
    let grid = match path {
        LinearPath::Skinny => [n.div_ceil(SKINNY_OUTPUTS), 1, 1],
        LinearPath::Skinny64 => [n.div_ceil(ROWS as u32 * skinny64_tiles(family)), 1, 1],
        LinearPath::Tile => [n.div_ceil(TILE_OUTPUTS), rows.div_ceil(tile_rows(family)), 1],
    };
    Ok(LinearSizes { w, x: DevPtr::new(x.address()), n, rows, steps, grid })
}
