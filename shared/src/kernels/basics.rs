//! Small kernels that prove the path from source to result: one idea of the machine each.

/// Side of the square tile `transpose_f32` moves.
pub const TRANSPOSE_TILE: u32 = 32;
/// Bins `histogram_u32` counts.
pub const HISTOGRAM_BINS: u32 = 256;

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
        threads(wave) = 256;
        lds(args, wave) = 0;
    }
}
