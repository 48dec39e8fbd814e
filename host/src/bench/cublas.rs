//! NVIDIA's matrix product, as a ceiling to compare ours with. Never used for results.
//!
//! Loaded at run time; signatures and constants: `cublas_api.h` and `library_types.h` of CUDA 12,
//! unchanged in CUDA 13.

use half::bf16;
use std::ffi::{c_int, c_void};
use std::path::PathBuf;

use libloading::Library;

use crate::gpu::{Api, DeviceSlice, GpuError, Stream};

const NAMES: [&str; 2] = ["libcublas.so.13", "libcublas.so.12"];
const DIRS: [&str; 3] =
    ["/usr/local/cuda/lib64", "/usr/local/cuda-13/lib64", "/usr/local/cuda-12/lib64"];

/// `CUBLAS_OP_N`, `CUBLAS_OP_T`.
const OP_N: c_int = 0;
const OP_T: c_int = 1;
/// `CUDA_R_32F`, `CUDA_R_16BF`.
const F32: c_int = 0;
const BF16: c_int = 14;
/// `CUBLAS_COMPUTE_32F`.
const COMPUTE_F32: c_int = 68;
/// `CUBLAS_GEMM_DEFAULT`.
const ALGORITHM_DEFAULT: c_int = -1;

type Create = unsafe extern "C" fn(*mut *mut c_void) -> c_int;
type Destroy = unsafe extern "C" fn(*mut c_void) -> c_int;
type SetStream = unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int;
type GemmEx = unsafe extern "C" fn(
    handle: *mut c_void,
    transa: c_int,
    transb: c_int,
    m: c_int,
    n: c_int,
    k: c_int,
    alpha: *const c_void,
    a: *const c_void,
    a_type: c_int,
    lda: c_int,
    b: *const c_void,
    b_type: c_int,
    ldb: c_int,
    beta: *const c_void,
    c: *mut c_void,
    c_type: c_int,
    ldc: c_int,
    compute_type: c_int,
    algorithm: c_int,
) -> c_int;

/// Where the product goes: `[m, n]`.
#[derive(Clone, Copy, Debug)]
pub enum Product<'a> {
    /// As f32.
    F32(DeviceSlice<'a, f32>),
    /// As bf16 bits.
    Bf16(DeviceSlice<'a, bf16>),
}

/// cuBLAS, bound to one stream.
pub struct Cublas<'a> {
    stream: &'a Stream,
    handle: *mut c_void,
    destroy: Destroy,
    gemm_ex: GemmEx,
    /// The file it came from.
    pub library: PathBuf,
}

impl<'a> Cublas<'a> {
    /// Loads `$GPTOSS_CUBLAS_LIB` when set, else the library of the newest CUDA there is.
    ///
    /// # Errors
    ///
    /// When the stream is not CUDA's or no library loads; says which were tried.
    pub fn new(stream: &'a Stream) -> Result<Cublas<'a>, GpuError> {
        if stream.device().api() != Api::Cuda {
            return Err(GpuError::Refused(format!("cublas: {} is not CUDA's", stream.device())));
        }
        let (library, path) = load()?;
        stream.device().enter()?;
        let missing = |error| GpuError::Refused(format!("cublas: {}: {error}", path.display()));
        // SAFETY: cublas_api.h gives these functions these types.
        let (create, destroy, set_stream, gemm_ex) = unsafe {
            (
                *library.get::<Create>("cublasCreate_v2").map_err(missing)?,
                *library.get::<Destroy>("cublasDestroy_v2").map_err(missing)?,
                *library.get::<SetStream>("cublasSetStream_v2").map_err(missing)?,
                *library.get::<GemmEx>("cublasGemmEx").map_err(missing)?,
            )
        };
        let mut handle = std::ptr::null_mut();
        // SAFETY: `handle` outlives the call, and the stream's device is current.
        check("cublasCreate_v2", unsafe { create(&mut handle) })?;
        let cublas = Cublas { stream, handle, destroy, gemm_ex, library: path };
        // SAFETY: handle and stream are live.
        check("cublasSetStream_v2", unsafe { set_stream(handle, stream.as_ptr()) })?;
        Ok(cublas)
    }

    /// Queues `c[m, n] = a[m, k] · b[n, k]ᵀ`, all row-major, bf16 bits in, f32 accumulation.
    pub fn gemm_bf16(
        &self,
        c: Product<'_>,
        a: DeviceSlice<'_, bf16>,
        b: DeviceSlice<'_, bf16>,
        [m, n, k]: [usize; 3],
    ) -> Result<(), GpuError> {
        let (c_len, c_at, c_type) = match c {
            Product::F32(c) => (c.len(), c.address(), F32),
            Product::Bf16(c) => (c.len(), c.address(), BF16),
        };
        if a.len() != m * k || b.len() != n * k || c_len != m * n {
            return Err(GpuError::Refused(format!(
                "cublas: [{m}, {n}, {k}] with {}, {} and {c_len} elements",
                a.len(),
                b.len()
            )));
        }
        self.stream.device().enter()?;
        let (alpha, beta) = (1f32, 0f32);
        // Column-major, the row-major c is its own transpose: cᵀ[n, m] = b · aᵀ.
        // SAFETY: the lengths were checked; alpha and beta are read during the call; device
        // addresses are passed as the pointers the header asks for.
        let status = unsafe {
            (self.gemm_ex)(
                self.handle,
                OP_T,
                OP_N,
                n as c_int,
                m as c_int,
                k as c_int,
                (&raw const alpha).cast(),
                b.address() as *const c_void,
                BF16,
                k as c_int,
                a.address() as *const c_void,
                BF16,
                k as c_int,
                (&raw const beta).cast(),
                c_at as *mut c_void,
                c_type,
                n as c_int,
                COMPUTE_F32,
                ALGORITHM_DEFAULT,
            )
        };
        check("cublasGemmEx", status)
    }
}

impl Drop for Cublas<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle is live. A failure here has no consequence: nothing uses it any more.
        let _ = unsafe { (self.destroy)(self.handle) };
    }
}

fn load() -> Result<(&'static Library, PathBuf), GpuError> {
    let candidates: Vec<PathBuf> = match std::env::var_os("GPTOSS_CUBLAS_LIB") {
        Some(path) => vec![PathBuf::from(path)],
        None => {
            let in_dirs =
                DIRS.iter().flat_map(|dir| NAMES.map(|name| PathBuf::from(dir).join(name)));
            NAMES.iter().map(PathBuf::from).chain(in_dirs).collect()
        }
    };
    for candidate in &candidates {
        // SAFETY: cuBLAS may be loaded at any time.
        if let Ok(library) = unsafe { Library::new(candidate) } {
            // Leaked: like the drivers, it keeps state that outlives us.
            return Ok((Box::leak(Box::new(library)), candidate.clone()));
        }
    }
    let tried: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
    Err(GpuError::NoLibrary { api: "cuBLAS", tried: tried.join(", "), broken: String::new() })
}

/// `cublasStatus_t`: 0 is success.
fn check(call: &'static str, status: c_int) -> Result<(), GpuError> {
    if status == 0 {
        return Ok(());
    }
    let name = match status {
        1 => "not initialized",
        3 => "allocation failed",
        7 => "invalid value",
        8 => "architecture mismatch",
        13 => "execution failed",
        14 => "internal error",
        15 => "not supported",
        _ => "unknown status",
    };
    Err(GpuError::Refused(format!("cublas: {call} returned {status} ({name})")))
}
