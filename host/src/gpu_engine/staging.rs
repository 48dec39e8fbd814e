//! Page-locked memory on the way to devices: a ring of slots, one filled while others are copied.

use crate::gpu::{DeviceSlice, Event, GpuError, PinnedBuffer, Stream};

/// Bytes of one slot: enough that a copy takes longer than starting it, and that all threads have
/// row tiles to pack.
pub const SLOT_BYTES: usize = 32 << 20;
/// Slots of a ring: packing and copying are each even over a few of them, not over one.
const SLOTS: usize = 4;
/// Pieces start at multiples of this in a slot: packers write wider elements than bytes.
const PIECE_ALIGNMENT: usize = 256;

struct Slot {
    memory: PinnedBuffer<u8>,
    /// When the last copy from it to each device has been done.
    copied: Vec<Event>,
}

/// A ring of slots, from which the same pieces are copied to every one of some devices.
pub struct Staging<'a> {
    streams: Vec<&'a Stream>,
    slots: Vec<Slot>,
    current: usize,
    /// Bytes of the current slot that hold pieces.
    used: usize,
}

impl<'a> Staging<'a> {
    /// Slots of `slot_bytes` for copies on `streams`, one for each device; at least one.
    pub fn new(streams: &[&'a Stream], slot_bytes: usize) -> Result<Staging<'a>, GpuError> {
        let Some(first) = streams.first() else {
            return Err(GpuError::Refused("staging for 0 devices, expected at least 1".to_owned()));
        };
        let slot = |_| {
            let copied = streams.iter().map(|stream| Event::new(stream.device()));
            Ok(Slot {
                memory: PinnedBuffer::new(first.device(), slot_bytes)?,
                copied: copied.collect::<Result<_, GpuError>>()?,
            })
        };
        let slots = (0..SLOTS).map(slot).collect::<Result<_, GpuError>>()?;
        Ok(Staging { streams: streams.to_vec(), slots, current: 0, used: 0 })
    }

    /// Bytes of one slot: the largest piece.
    pub fn slot_bytes(&self) -> usize {
        self.slots[0].memory.len()
    }

    /// Bytes that the next piece can have without waiting for a slot; a whole slot when there are
    /// fewer than `least`, which is at most that.
    pub fn room(&self, least: usize) -> usize {
        match self.slot_bytes() - self.used {
            left if left < least => self.slot_bytes(),
            left => left,
        }
    }

    /// Queues copies of what `fill` writes to `to`, one view for each stream, all of one length, at
    /// most a slot.
    pub fn send<E: From<GpuError>>(
        &mut self,
        to: &[DeviceSlice<'_, u8>],
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let len = to[0].len();
        if len > self.slot_bytes() - self.used {
            self.turn()?;
        }
        let piece = &mut self.slots[self.current].memory[self.used..self.used + len];
        fill(piece)?;
        for (stream, &to) in self.streams.iter().zip(to) {
            // SAFETY: the piece is neither written again nor freed before the copy is done: a slot
            // is reused after `turn` has waited for its events, and dropping waits for all streams.
            unsafe { stream.upload_async(to, piece)? };
        }
        self.used = (self.used + len).next_multiple_of(PIECE_ALIGNMENT).min(self.slot_bytes());
        Ok(())
    }

    /// Goes on to the next slot, once it has been copied everywhere.
    fn turn(&mut self) -> Result<(), GpuError> {
        for (event, stream) in self.slots[self.current].copied.iter().zip(&self.streams) {
            event.record(stream)?;
        }
        self.current = (self.current + 1) % self.slots.len();
        self.used = 0;
        self.slots[self.current].copied.iter().try_for_each(Event::synchronize)
    }

    /// Waits for all copies.
    pub fn finish(self) -> Result<(), GpuError> {
        self.streams.iter().try_for_each(|stream| stream.synchronize())
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        for stream in &self.streams {
            // An error here has been reported by whoever used the stream, or will be.
            let _ = stream.synchronize();
        }
    }
}
