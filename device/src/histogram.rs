//! Histogram of bytes: counted per workgroup in workgroup memory, then added to the global bins.
//!
//! Both sides use integer atomics: the counts do not depend on their order.

use shared::kernels::basics::{
    HISTOGRAM_BINS as BINS, HISTOGRAM_BYTES_PER_THREAD as BYTES, histogram_u8,
};

use crate::arch::{
    atomic_add, load_16, thread_id, workgroup_barrier, workgroup_id_x, workgroup_memory,
};

const _: histogram_u8::Signature = histogram_u8;
const THREADS: u32 = histogram_u8::threads(crate::tile::FAMILY);

/// The kernel; shapes are in the table.
///
/// # Safety
///
/// The buffers hold what the table says, do not overlap, and the launch passes the table's
/// workgroup memory. Other launches may add to `counts` only through this kernel.
#[unsafe(no_mangle)]
pub unsafe extern "gpu-kernel" fn histogram_u8(x: *const u8, counts: *mut u32, n: u32) {
    crate::arch::wait_for_earlier();
    let bins: *mut u32 = workgroup_memory();
    for bin in (thread_id()..BINS).step_by(THREADS as usize) {
        // SAFETY: bin < BINS.
        unsafe { *bins.add(bin as usize) = 0 };
    }
    workgroup_barrier();

    let start = (workgroup_id_x() * THREADS + thread_id()) * BYTES;
    if start + BYTES <= n {
        // SAFETY: sixteen bytes inside x, and `start` is a multiple of sixteen.
        let words = unsafe { load_16(x.add(start as usize)) };
        for word in words.0 {
            for shift in [0, 8, 16, 24] {
                let byte = (word >> shift) & 0xff;
                // SAFETY: a byte is a bin.
                unsafe { atomic_add(bins.add(byte as usize), 1) };
            }
        }
    } else {
        for i in start..n {
            // SAFETY: i < n, and a byte is a bin.
            unsafe { atomic_add(bins.add((*x.add(i as usize)).into()), 1) };
        }
    }
    workgroup_barrier();

    for bin in (thread_id()..BINS).step_by(THREADS as usize) {
        // SAFETY: bin < BINS.
        unsafe { atomic_add(counts.add(bin as usize), *bins.add(bin as usize)) };
    }
}
