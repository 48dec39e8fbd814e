//! Copies and fills.
//!
//! A copy in a stream reads or writes pinned memory when its turn comes. For
//! pageable host memory it behaves as the documentation of HIP's model says: the
//! source is taken before the call returns, and a copy to it has ended when the
//! call returns.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use super::capture::forbid_while_capturing;
use super::error::{Error, Result};
use super::handles::Handle;
use super::operation::{Copy, Operation, Place};
use super::queue::{self, Stream};
use super::runtime::{current, device, runtime};
use super::signal::Signal;
use super::stream;
use crate::Owner;

/// `hipMemcpyKind`.
const HOST_TO_HOST: c_int = 0;
const HOST_TO_DEVICE: c_int = 1;
const DEVICE_TO_HOST: c_int = 2;
const DEVICE_TO_DEVICE: c_int = 3;
const DEFAULT: c_int = 4;

/// One side of a copy of `bytes` bytes (its whole extent, pitches included).
///
/// # Errors
/// [`Error::InvalidValue`] for null, a range that leaves its allocation, or a
/// pointer that `must_be_known` and is not.
fn place(address: u64, bytes: usize, must_be_known: bool) -> Result<Place> {
    if address == 0 || address.checked_add(bytes as u64).is_none() {
        return Err(Error::InvalidValue);
    }
    match runtime()?.memory.find(address) {
        Some(found) if bytes as u64 <= found.base + found.len as u64 - address => {
            Ok(Place::Known(address))
        }
        None if !must_be_known => Ok(Place::Host(address)),
        _ => Err(Error::InvalidValue),
    }
}

/// A checked copy of `bytes` bytes; `None` if there is nothing to copy.
pub fn copy(to: u64, from: u64, bytes: usize, kind: c_int) -> Result<Option<Copy>> {
    copy_rows((to, bytes), (from, bytes), bytes, 1, kind)
}

/// A checked copy of rows, each side an address and a pitch in bytes.
fn copy_rows(
    (to, to_pitch): (u64, usize),
    (from, from_pitch): (u64, usize),
    width: usize,
    rows: usize,
    kind: c_int,
) -> Result<Option<Copy>> {
    if !(HOST_TO_HOST..=DEFAULT).contains(&kind) {
        return Err(Error::InvalidMemcpyDirection);
    }
    if width == 0 || rows == 0 {
        return Ok(None);
    }
    if to_pitch < width || from_pitch < width {
        return Err(Error::InvalidPitchValue);
    }
    let extent = |pitch: usize| {
        (rows - 1).checked_mul(pitch).and_then(|n| n.checked_add(width)).ok_or(Error::InvalidValue)
    };
    let to = place(to, extent(to_pitch)?, matches!(kind, HOST_TO_DEVICE | DEVICE_TO_DEVICE))?;
    let from = place(from, extent(from_pitch)?, matches!(kind, DEVICE_TO_HOST | DEVICE_TO_DEVICE))?;
    Ok(Some(Copy { to, from, width, rows, to_pitch, from_pitch }))
}

/// The unfinished work of the devices whose memory a copy touches, as far as a
/// null stream of theirs would wait for it.
fn work_on(copy: &Copy) -> Result<Vec<Arc<Signal>>> {
    let runtime = runtime()?;
    let mut waits = Vec::new();
    for place in [copy.to, copy.from] {
        if let Place::Known(address) = place
            && let Some(Owner::Device(index)) = runtime.memory.find(address).map(|a| a.owner)
        {
            waits.extend(queue::ordered_work(&runtime.devices[index]));
        }
    }
    Ok(waits)
}

/// Copies on the null stream and waits for the end.
pub fn copy_now(copy: Option<Copy>) -> Result {
    forbid_while_capturing()?;
    let null = stream::null(current()?);
    let Some(copy) = copy else { return null.device.healthy() };
    queue::submit(&null, Box::new(Operation::Copy(copy)), work_on(&copy)?)?.wait().result
}

/// Copies in stream order.
fn copy_in(stream: &Arc<Stream>, copy: Option<Copy>) -> Result {
    let Some(copy) = copy else { return stream.device.healthy() };
    if stream.is_capturing() {
        return stream::enqueue(stream, Operation::Copy(copy));
    }
    match (copy.to, copy.from) {
        (Place::Known(to), Place::Host(from)) if copy.rows == 1 => {
            // SAFETY: the caller promises that the source is readable now.
            let data = unsafe { std::slice::from_raw_parts(from as *const u8, copy.width) };
            stream::enqueue(stream, Operation::Write { to, data: data.into() })
        }
        (Place::Known(_), Place::Known(_)) => stream::enqueue(stream, Operation::Copy(copy)),
        _ => stream::run(stream, Operation::Copy(copy)),
    }
}

/// A checked fill of `count` elements of `width` bytes; `None` if there are none.
fn fill(to: u64, pattern: u32, width: usize, count: usize) -> Result<Option<Operation>> {
    let bytes = count.checked_mul(width).ok_or(Error::InvalidValue)?;
    if bytes == 0 {
        return Ok(None);
    }
    if !to.is_multiple_of(width as u64) {
        return Err(Error::InvalidValue);
    }
    match place(to, bytes, true)? {
        Place::Known(to) => {
            Ok(Some(Operation::Fill { to, pattern: pattern.to_le_bytes(), width, bytes }))
        }
        Place::Host(_) => Err(Error::InvalidValue),
    }
}

fn fill_now(fill: Option<Operation>) -> Result {
    forbid_while_capturing()?;
    let null = stream::null(current()?);
    fill.map_or(Ok(()), |fill| stream::run(&null, fill))
}

fn fill_in(stream: Handle, fill: Option<Operation>) -> Result {
    let stream = stream::resolve(stream)?;
    fill.map_or(Ok(()), |fill| stream::enqueue(&stream, fill))
}

super::export::exports! {
    /// Copies and waits. `kind` is a `hipMemcpyKind`; device sides are checked
    /// against the live allocations.
    ///
    /// # Safety
    /// A side that is host memory of the program's own is valid for `bytes`.
    fn hipMemcpy(to: u64, from: u64, bytes: usize, kind: c_int) {
        copy_now(copy(to, from, bytes, kind)?)
    }

    /// Copies in stream order.
    ///
    /// # Safety
    /// As `hipMemcpy`, until the copy has ended.
    fn hipMemcpyAsync(to: u64, from: u64, bytes: usize, kind: c_int, stream: Handle) {
        let stream = stream::resolve(stream)?;
        copy_in(&stream, copy(to, from, bytes, kind)?)
    }

    /// Copies in stream order and waits for the end.
    ///
    /// # Safety
    /// As `hipMemcpy`.
    fn hipMemcpyWithStream(to: u64, from: u64, bytes: usize, kind: c_int, stream: Handle) {
        let stream = stream::resolve(stream)?;
        let Some(copy) = copy(to, from, bytes, kind)? else { return Ok(()) };
        stream::run(&stream, Operation::Copy(copy))
    }

    /// Copies from the host to a device and waits.
    ///
    /// # Safety
    /// `from` is valid for reads of `bytes`.
    fn hipMemcpyHtoD(to: u64, from: u64, bytes: usize) {
        copy_now(copy(to, from, bytes, HOST_TO_DEVICE)?)
    }

    /// Copies from a device to the host and waits.
    ///
    /// # Safety
    /// `to` is valid for writes of `bytes`.
    fn hipMemcpyDtoH(to: u64, from: u64, bytes: usize) {
        copy_now(copy(to, from, bytes, DEVICE_TO_HOST)?)
    }

    /// Copies between device allocations and waits.
    ///
    /// # Safety
    /// None beyond the C ABI: both sides are checked.
    fn hipMemcpyDtoD(to: u64, from: u64, bytes: usize) {
        copy_now(copy(to, from, bytes, DEVICE_TO_DEVICE)?)
    }

    /// Copies from the host to a device in stream order.
    ///
    /// # Safety
    /// `from` is valid for reads of `bytes` until the copy has ended.
    fn hipMemcpyHtoDAsync(to: u64, from: u64, bytes: usize, stream: Handle) {
        copy_in(&stream::resolve(stream)?, copy(to, from, bytes, HOST_TO_DEVICE)?)
    }

    /// Copies from a device to the host in stream order.
    ///
    /// # Safety
    /// `to` is valid for writes of `bytes` until the copy has ended.
    fn hipMemcpyDtoHAsync(to: u64, from: u64, bytes: usize, stream: Handle) {
        copy_in(&stream::resolve(stream)?, copy(to, from, bytes, DEVICE_TO_HOST)?)
    }

    /// Copies between device allocations in stream order.
    ///
    /// # Safety
    /// None beyond the C ABI: both sides are checked.
    fn hipMemcpyDtoDAsync(to: u64, from: u64, bytes: usize, stream: Handle) {
        copy_in(&stream::resolve(stream)?, copy(to, from, bytes, DEVICE_TO_DEVICE)?)
    }

    /// Copies from one device to another and waits.
    ///
    /// # Safety
    /// None beyond the C ABI: both sides are checked.
    fn hipMemcpyPeer(to: u64, to_device: c_int, from: u64, from_device: c_int, bytes: usize) {
        device(to_device).and(device(from_device))?;
        copy_now(copy(to, from, bytes, DEVICE_TO_DEVICE)?)
    }

    /// Copies from one device to another in stream order.
    ///
    /// # Safety
    /// None beyond the C ABI: both sides are checked.
    fn hipMemcpyPeerAsync(
        to: u64,
        to_device: c_int,
        from: u64,
        from_device: c_int,
        bytes: usize,
        stream: Handle,
    ) {
        device(to_device).and(device(from_device))?;
        copy_in(&stream::resolve(stream)?, copy(to, from, bytes, DEVICE_TO_DEVICE)?)
    }

    /// Copies `rows` rows of `width` bytes and waits.
    ///
    /// # Safety
    /// A side that is host memory of the program's own is valid for all rows.
    fn hipMemcpy2D(
        to: u64,
        to_pitch: usize,
        from: u64,
        from_pitch: usize,
        width: usize,
        rows: usize,
        kind: c_int,
    ) {
        copy_now(copy_rows((to, to_pitch), (from, from_pitch), width, rows, kind)?)
    }

    /// Copies `rows` rows of `width` bytes in stream order.
    ///
    /// # Safety
    /// As `hipMemcpy2D`, until the copy has ended.
    fn hipMemcpy2DAsync(
        to: u64,
        to_pitch: usize,
        from: u64,
        from_pitch: usize,
        width: usize,
        rows: usize,
        kind: c_int,
        stream: Handle,
    ) {
        let stream = stream::resolve(stream)?;
        copy_in(&stream, copy_rows((to, to_pitch), (from, from_pitch), width, rows, kind)?)
    }

    /// Sets `bytes` bytes to the low byte of `value` and waits.
    ///
    /// # Safety
    /// None beyond the C ABI: the target is checked.
    fn hipMemset(to: *mut c_void, value: c_int, bytes: usize) {
        fill_now(fill(to as u64, value as u32, 1, bytes)?)
    }

    /// Sets `bytes` bytes to the low byte of `value` in stream order.
    ///
    /// # Safety
    /// None beyond the C ABI: the target is checked.
    fn hipMemsetAsync(to: *mut c_void, value: c_int, bytes: usize, stream: Handle) {
        fill_in(stream, fill(to as u64, value as u32, 1, bytes)?)
    }

    /// Sets `count` bytes and waits.
    ///
    /// # Safety
    /// None beyond the C ABI: the target is checked.
    fn hipMemsetD8(to: u64, value: u8, count: usize) {
        fill_now(fill(to, value.into(), 1, count)?)
    }

    /// Sets `count` bytes in stream order.
    ///
    /// # Safety
    /// None beyond the C ABI: the target is checked.
    fn hipMemsetD8Async(to: u64, value: u8, count: usize, stream: Handle) {
        fill_in(stream, fill(to, value.into(), 1, count)?)
    }

    /// Sets `count` 16-bit elements and waits.
    ///
    /// # Safety
    /// None beyond the C ABI: the target is checked.
    fn hipMemsetD16(to: u64, value: u16, count: usize) {
        fill_now(fill(to, value.into(), 2, count)?)
    }

    /// Sets `count` 16-bit elements in stream order.
    ///
    /// # Safety
    /// None beyond the C ABI: the target is checked.
    fn hipMemsetD16Async(to: u64, value: u16, count: usize, stream: Handle) {
        fill_in(stream, fill(to, value.into(), 2, count)?)
    }

    /// Sets `count` 32-bit elements and waits.
    ///
    /// # Safety
    /// None beyond the C ABI: the target is checked.
    fn hipMemsetD32(to: u64, value: c_int, count: usize) {
        fill_now(fill(to, value as u32, 4, count)?)
    }

    /// Sets `count` 32-bit elements in stream order.
    ///
    /// # Safety
    /// None beyond the C ABI: the target is checked.
    fn hipMemsetD32Async(to: u64, value: c_int, count: usize, stream: Handle) {
        fill_in(stream, fill(to, value as u32, 4, count)?)
    }
}
