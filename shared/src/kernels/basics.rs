//! Small kernels that prove the path from source to result: one idea of the machine each.

/// Side of the square tile [`transpose_f32`] moves.
pub const TRANSPOSE_TILE: u32 = 32;
/// Bins [`histogram_u8`] counts.
pub const HISTOGRAM_BINS: u32 = 256;
/// Bytes a thread of [`histogram_u8`] reads.
pub const HISTOGRAM_BYTES_PER_THREAD: u32 = 16;
/// Side of a matrix tile, and its depth.
pub const MMA_TILE: u32 = 16;
/// Elements from one row to the next of a tile [`mma_tile_bf16`] stages: a multiple of 16 bytes
/// that spreads a column over the banks.
pub const MMA_LDS_STRIDE: u32 = 24;

crate::kernels! {
    /// `y[i] += a * x[i]` for `i < n`. Grid `ceil(n / threads)`.
    axpy_f32(
        /// `[n]`
        x: *const f32,
        /// `[n]`
        y: *mut f32,
        a: f32,
        n: u32,
    ) {
        threads(family) = 256;
        lds(args, family) = 0;
    }

    /// `y[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight`, rounded to bf16. Grid `rows`.
    rmsnorm_f32_bf16(
        /// `[rows, n]`
        x: *const f32,
        /// `[n]`, bf16
        weight: *const u16,
        /// `[rows, n]`, bf16
        y: *mut u16,
        n: u32,
        eps: f32,
    ) {
        threads(family) = 256;
        lds(args, family) = threads(family) / family.wave() * 4;
    }

    /// `y[r] = softmax(x[r])`. Grid `rows`.
    softmax_f32(
        /// `[rows, n]`
        x: *const f32,
        /// `[rows, n]`
        y: *mut f32,
        n: u32,
    ) {
        threads(family) = 256;
        lds(args, family) = threads(family) / family.wave() * 4;
    }

    /// `y[c, r] = x[r, c]`. Grid `(ceil(cols / tile), ceil(rows / tile))`.
    transpose_f32(
        /// `[rows, cols]`
        x: *const f32,
        /// `[cols, rows]`
        y: *mut f32,
        rows: u32,
        cols: u32,
    ) {
        threads(family) = 256;
        lds(args, family) = TRANSPOSE_TILE * (TRANSPOSE_TILE + 1) * 4;
    }

    /// `y[i] = x[0] + .. + x[i - 1]`, modulo 2^32. Grid 1.
    exclusive_scan_u32(
        /// `[n]`
        x: *const u32,
        /// `[n]`
        y: *mut u32,
        n: u32,
    ) {
        threads(family) = 256;
        lds(args, family) = threads(family) / family.wave() * 4;
    }

    /// `counts[b] +=` how many `x[i]` equal `b`. Grid `ceil(n / (threads * bytes per thread))`.
    histogram_u8(
        /// `[n]`, 16-byte aligned
        x: *const u8,
        /// `[HISTOGRAM_BINS]`
        counts: *mut u32,
        n: u32,
    ) {
        threads(family) = 256;
        lds(args, family) = HISTOGRAM_BINS * 4;
    }

    /// One wave per tile: `c[t] = a[t] * b[t]^T` twice, with the operands loaded from global and
    /// from workgroup memory. Grid `tiles`.
    mma_tile_bf16(
        /// `[tiles, MMA_TILE, MMA_TILE]` as m, k; bf16
        a: *const u16,
        /// `[tiles, MMA_TILE, MMA_TILE]` as n, k; bf16
        b: *const u16,
        /// `[tiles, 2, MMA_TILE, MMA_TILE]` as m, n
        c: *mut f32,
    ) {
        threads(family) = family.wave();
        lds(args, family) = 2 * MMA_TILE * MMA_LDS_STRIDE * 2;
    }

    /// One matrix instruction per wave on bare registers: lane by lane, element by element of
    /// `shared::frag`. Grid `tiles`.
    mma_fragments_bf16(
        /// `[tiles, WAVE, AB_PER_LANE]`, bf16
        a: *const u32,
        /// `[tiles, WAVE, AB_PER_LANE]`, bf16
        b: *const u32,
        /// `[tiles, WAVE, C_PER_LANE]`, added to
        c: *mut f32,
    ) {
        threads(family) = family.wave();
        lds(args, family) = 0;
    }
}
