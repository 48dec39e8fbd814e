//! Launchers of the small kernels that prove the path.

use half::bf16;
use shared::kernels::basics::{
    HISTOGRAM_BINS, HISTOGRAM_BYTES_PER_THREAD, MMA_TILE, TRANSPOSE_TILE, axpy_f32,
    exclusive_scan_u32, histogram_u8, mma_fragments_bf16, mma_tile_bf16, rmsnorm_f32_bf16,
    softmax_f32, transpose_f32,
};

use super::{Check, Kernels};
use crate::gpu::{DeviceSlice, GpuError, Stream};

impl Kernels {
    /// `y[n] += a * x[n]`.
    pub fn axpy_f32(
        &self,
        stream: &Stream,
        x: DeviceSlice<'_, f32>,
        y: DeviceSlice<'_, f32>,
        a: f32,
    ) -> Result<(), GpuError> {
        let check = Check::new(&axpy_f32::KERNEL, stream);
        let n = check.positive("n", x.len())?;
        let args = axpy_f32::Args {
            x: check.view("x", x, &[x.len()])?,
            y: check.view("y", y, &[x.len()])?,
            a,
            n,
        };
        check.apart(("y", y), ("x", x))?;
        let grid = [n.div_ceil(axpy_f32::threads(self.family)), 1, 1];
        // SAFETY: lengths and overlap were checked, and the grid covers n.
        unsafe { self.launch(stream, grid, &args) }
    }

    /// `y[rows, n] = x[rows, n] / sqrt(mean(x^2) + eps) * weight[n]`, rounded to bf16.
    pub fn rmsnorm_f32_bf16(
        &self,
        stream: &Stream,
        x: DeviceSlice<'_, f32>,
        weight: DeviceSlice<'_, bf16>,
        y: DeviceSlice<'_, bf16>,
        eps: f32,
    ) -> Result<(), GpuError> {
        let check = Check::new(&rmsnorm_f32_bf16::KERNEL, stream);
        let n = check.positive("n", weight.len())?;
        let rows = check.multiple("elements of x", x.len(), weight.len())? / n;
        let shape = [rows as usize, n as usize];
        let args = rmsnorm_f32_bf16::Args {
            x: check.view("x", x, &shape)?,
            weight: check.view("weight", weight, &[n as usize])?,
            y: check.view("y", y, &shape)?,
            n,
            eps,
        };
        check.apart(("y", y), ("x", x))?;
        check.apart(("y", y), ("weight", weight))?;
        // SAFETY: lengths and overlap were checked, and there is one workgroup per row.
        unsafe { self.launch(stream, [rows, 1, 1], &args) }
    }

    /// `y[rows, n] = softmax(x[rows, n])`.
    pub fn softmax_f32(
        &self,
        stream: &Stream,
        x: DeviceSlice<'_, f32>,
        y: DeviceSlice<'_, f32>,
        n: usize,
    ) -> Result<(), GpuError> {
        let check = Check::new(&softmax_f32::KERNEL, stream);
        let columns = check.positive("n", n)?;
        let rows = check.multiple("elements of x", x.len(), n)? / columns;
        let args = softmax_f32::Args {
            x: check.view("x", x, &[rows as usize, n])?,
            y: check.view("y", y, &[rows as usize, n])?,
            n: columns,
        };
        check.apart(("y", y), ("x", x))?;
        // SAFETY: lengths and overlap were checked, and there is one workgroup per row.
        unsafe { self.launch(stream, [rows, 1, 1], &args) }
    }

    /// `y[cols, rows] = x[rows, cols]` transposed.
    pub fn transpose_f32(
        &self,
        stream: &Stream,
        x: DeviceSlice<'_, f32>,
        y: DeviceSlice<'_, f32>,
        [rows, cols]: [usize; 2],
    ) -> Result<(), GpuError> {
        let check = Check::new(&transpose_f32::KERNEL, stream);
        let args = transpose_f32::Args {
            x: check.view("x", x, &[rows, cols])?,
            y: check.view("y", y, &[cols, rows])?,
            rows: check.positive("rows", rows)?,
            cols: check.positive("cols", cols)?,
        };
        check.apart(("y", y), ("x", x))?;
        let tiles = |n: u32| n.div_ceil(TRANSPOSE_TILE);
        // SAFETY: lengths and overlap were checked, and the tiles cover the matrix.
        unsafe { self.launch(stream, [tiles(args.cols), tiles(args.rows), 1], &args) }
    }

    /// `y[n] =` the sums of `x[n]` before each element, modulo 2^32.
    pub fn exclusive_scan_u32(
        &self,
        stream: &Stream,
        x: DeviceSlice<'_, u32>,
        y: DeviceSlice<'_, u32>,
    ) -> Result<(), GpuError> {
        let check = Check::new(&exclusive_scan_u32::KERNEL, stream);
        let args = exclusive_scan_u32::Args {
            x: check.view("x", x, &[x.len()])?,
            y: check.view("y", y, &[x.len()])?,
            n: check.positive("n", x.len())?,
        };
        check.apart(("y", y), ("x", x))?;
        // SAFETY: lengths and overlap were checked, and the grid is one workgroup.
        unsafe { self.launch(stream, [1, 1, 1], &args) }
    }

    /// `counts[256] +=` how often each byte occurs in `x[n]`, 16-byte aligned.
    pub fn histogram_u8(
        &self,
        stream: &Stream,
        x: DeviceSlice<'_, u8>,
        counts: DeviceSlice<'_, u32>,
    ) -> Result<(), GpuError> {
        let check = Check::new(&histogram_u8::KERNEL, stream);
        let args = histogram_u8::Args {
            x: check.aligned("x", x, &[x.len()], 16)?,
            counts: check.view("counts", counts, &[HISTOGRAM_BINS as usize])?,
            n: check.positive("n", x.len())?,
        };
        let per_group = histogram_u8::threads(self.family) * HISTOGRAM_BYTES_PER_THREAD;
        // The last thread's first byte is computed in 32 bits.
        if args.n > u32::MAX - per_group {
            return Err(check.refuse(format!("n = {} is above {}", args.n, u32::MAX - per_group)));
        }
        check.apart(("counts", counts), ("x", x))?;
        // SAFETY: lengths, alignment and overlap were checked, and the grid covers n.
        unsafe { self.launch(stream, [args.n.div_ceil(per_group), 1, 1], &args) }
    }

    /// `c[tiles, 2, 16, 16] = a[tiles, 16, 16] * b[tiles, 16, 16]^T`, once with operands loaded
    /// from global and once from workgroup memory; all 16-byte aligned.
    pub fn mma_tile_bf16(
        &self,
        stream: &Stream,
        a: DeviceSlice<'_, bf16>,
        b: DeviceSlice<'_, bf16>,
        c: DeviceSlice<'_, f32>,
    ) -> Result<(), GpuError> {
        const TILE: usize = (MMA_TILE * MMA_TILE) as usize;
        let check = Check::new(&mma_tile_bf16::KERNEL, stream);
        let tiles = check.multiple("elements of a", a.len(), TILE)? / TILE as u32;
        let args = mma_tile_bf16::Args {
            a: check.aligned("a", a, &[tiles as usize, TILE], 16)?,
            b: check.aligned("b", b, &[tiles as usize, TILE], 16)?,
            c: check.aligned("c", c, &[tiles as usize, 2, TILE], 16)?,
        };
        check.apart(("c", c), ("a", a))?;
        check.apart(("c", c), ("b", b))?;
        // SAFETY: lengths, alignment and overlap were checked, and there is one wave per tile.
        unsafe { self.launch(stream, [tiles, 1, 1], &args) }
    }

    /// One matrix instruction per wave on bare registers, `c` added to:
    /// `a, b: [tiles, wave, ab_per_lane / 2]` as pairs of bf16, `c: [tiles, wave, c_per_lane]`.
    pub fn mma_fragments_bf16(
        &self,
        stream: &Stream,
        a: DeviceSlice<'_, u32>,
        b: DeviceSlice<'_, u32>,
        c: DeviceSlice<'_, f32>,
        ab_per_lane: usize,
    ) -> Result<(), GpuError> {
        let check = Check::new(&mma_fragments_bf16::KERNEL, stream);
        let wave = self.wave() as usize;
        let c_per_lane = (MMA_TILE * MMA_TILE) as usize / wave;
        let tiles = check.multiple("elements of c", c.len(), wave * c_per_lane)?
            / (wave * c_per_lane) as u32;
        let fragment = [tiles as usize, wave, ab_per_lane / 2];
        let args = mma_fragments_bf16::Args {
            a: check.aligned("a", a, &fragment, 32)?,
            b: check.aligned("b", b, &fragment, 32)?,
            c: check.aligned("c", c, &[tiles as usize, wave, c_per_lane], 32)?,
        };
        check.apart(("c", c), ("a", a))?;
        check.apart(("c", c), ("b", b))?;
        // SAFETY: lengths, alignment and overlap were checked, and there is one wave per tile.
        unsafe { self.launch(stream, [tiles, 1, 1], &args) }
    }
}
