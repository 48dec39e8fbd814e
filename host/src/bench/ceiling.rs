//! What the device can do at best, measured: the rooflines kernels are compared with.

use half::bf16;
use serde::Serialize;
use shared::philox::{philox4x32, uniform};

use super::cublas::{Cublas, Product};
use super::device::{self, Method};
use crate::gpu::{Api, Device, DeviceBuffer, GpuError, Stream};

/// The two ceilings of a device.
#[derive(Clone, Debug, Serialize)]
pub struct Ceilings {
    /// A large copy within device memory; its bytes count reading and writing.
    pub copy: device::Result,
    /// A large bf16 product by the vendor's library, or why there is none to measure.
    pub matrix: Result<device::Result, String>,
}

/// Bytes of each side of the copy: far beyond any cache.
const COPY_BYTES: usize = 1 << 30;
/// Rows, columns and depth of the product.
const MATRIX_SIZE: usize = 8192;

/// Measures both. On the emulator sizes shrink and the times mean nothing.
pub fn measure(device: &Device, method: Method) -> Result<Ceilings, GpuError> {
    let stream = Stream::new(device)?;
    let copy = copy(&stream, method)?;
    let matrix = match device.api() {
        Api::Cuda => match Cublas::new(&stream) {
            Ok(cublas) => Ok(matrix(&stream, &cublas, method)?),
            Err(error) => Err(error.to_string()),
        },
        api => Err(format!("no vendor library is measured through {api}")),
    };
    Ok(Ceilings { copy, matrix })
}

/// The copy bandwidth, through the driver's own copy.
pub fn copy(stream: &Stream, method: Method) -> Result<device::Result, GpuError> {
    let device = stream.device();
    let (free, _) = device.memory()?;
    let most = if device.api() == Api::Emulator { 1 << 20 } else { COPY_BYTES };
    let bytes = most.min(free as usize / 4);
    let src = DeviceBuffer::<u8>::new(device, bytes)?;
    let dst = DeviceBuffer::<u8>::new(device, bytes)?;
    stream.fill(src.view(), 0x5a)?;
    let time = device::time(stream, method, |_| stream.copy(dst.view(), src.view()))?;
    Ok(device::Result::new("copy", format!("{bytes} bytes"), time, 2.0 * bytes as f64, 0.0))
}

/// The matrix rate, on random operands: zeros draw less power and clock higher.
fn matrix(
    stream: &Stream,
    cublas: &Cublas<'_>,
    method: Method,
) -> Result<device::Result, GpuError> {
    let n = MATRIX_SIZE;
    let a = stream.buffer_from(&random_bf16(n * n, 1))?;
    let b = stream.buffer_from(&random_bf16(n * n, 2))?;
    let c = DeviceBuffer::<bf16>::new(stream.device(), n * n)?;
    let shape = [n, n, n];
    let time = device::time(stream, method, |_| {
        cublas.gemm_bf16(Product::Bf16(c.view()), a.view(), b.view(), shape)
    })?;
    let bytes = 3.0 * 2.0 * (n * n) as f64;
    let flops = 2.0 * (n as f64).powi(3);
    Ok(device::Result::new("cuBLAS gemm_bf16", format!("{n} x {n} x {n}"), time, bytes, flops))
}

/// `len` bf16 values, uniform in [-1, 1).
pub fn random_bf16(len: usize, seed: u32) -> Vec<bf16> {
    let words = (0..len.div_ceil(4)).flat_map(|i| philox4x32([i as u32, 0, 0, 0], [seed, 0]));
    words.take(len).map(|word| bf16::from_f32(2.0 * uniform(word) - 1.0)).collect()
}
