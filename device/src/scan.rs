//! Exclusive prefix sum of u32, modulo 2^32.
//!
//! One workgroup walks the array, one element per thread and step, carrying the sum so far:
//! lanes are scanned by shuffles, waves by adding the totals of the waves before.

use shared::kernels::basics::exclusive_scan_u32;

use crate::arch::{WAVE, lane, shuffle, thread_id, wave_id, workgroup_barrier, workgroup_memory};

const _: exclusive_scan_u32::Signature = exclusive_scan_u32;
const THREADS: u32 = exclusive_scan_u32::threads(crate::tile::FAMILY);

/// The kernel; shapes are in the table.
///
/// # Safety
///
/// The buffers hold what the table says, do not overlap, and the launch passes the table's
/// workgroup memory.
#[unsafe(no_mangle)]
pub unsafe extern "gpu-kernel" fn exclusive_scan_u32(x: *const u32, y: *mut u32, n: u32) {
    crate::arch::wait_for_earlier();
    let totals: *mut u32 = workgroup_memory();
    let mut carry = 0u32;
    let mut start = 0;
    while start < n {
        let i = start + thread_id();
        // SAFETY: i < n where it is read.
        let value = if i < n { unsafe { *x.add(i as usize) } } else { 0 };
        let inclusive = wave_inclusive_scan(value);
        if lane() == WAVE - 1 {
            // SAFETY: one element per wave.
            unsafe { *totals.add(wave_id() as usize) = inclusive };
        }
        workgroup_barrier();
        let (mut before, mut all) = (0u32, 0u32);
        for wave in 0..THREADS / WAVE {
            // SAFETY: one element per wave, written above.
            let total = unsafe { *totals.add(wave as usize) };
            if wave < wave_id() {
                before = before.wrapping_add(total);
            }
            all = all.wrapping_add(total);
        }
        // Nobody may write the next step's totals before everyone has read these.
        workgroup_barrier();
        if i < n {
            let exclusive = inclusive.wrapping_sub(value);
            // SAFETY: i < n.
            unsafe { *y.add(i as usize) = carry.wrapping_add(before).wrapping_add(exclusive) };
        }
        carry = carry.wrapping_add(all);
        start += THREADS;
    }
}

/// Sum of the values of this lane and those before it. Collective.
#[inline(always)]
fn wave_inclusive_scan(value: u32) -> u32 {
    let mut sum = value;
    let mut distance = 1;
    while distance < WAVE {
        let other = shuffle(sum, lane().wrapping_sub(distance) % WAVE);
        if lane() >= distance {
            sum = sum.wrapping_add(other);
        }
        distance *= 2;
    }
    sum
}
