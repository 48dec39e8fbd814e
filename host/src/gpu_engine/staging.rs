//! Page-locked memory on the way to a device: one half is filled while the other is copied.

use crate::gpu::{DeviceSlice, Event, GpuError, PinnedBuffer, Stream};

/// Bytes of one half: enough that a copy takes longer than starting it.
pub const HALF_BYTES: usize = 32 << 20;

struct Half {
    memory: PinnedBuffer<u16>,
    /// When the last copy from it has been done.
    copied: Event,
}

/// Two halves, used in turn.
pub struct Staging<'a> {
    stream: &'a Stream,
    halves: [Half; 2],
    next: usize,
}

impl<'a> Staging<'a> {
    /// Halves of `half_bytes`, rounded up to an even number.
    pub fn new(stream: &'a Stream, half_bytes: usize) -> Result<Staging<'a>, GpuError> {
        let half = || {
            Ok::<_, GpuError>(Half {
                memory: PinnedBuffer::new(stream.device(), half_bytes.div_ceil(2))?,
                copied: Event::new(stream.device())?,
            })
        };
        Ok(Staging { stream, halves: [half()?, half()?], next: 0 })
    }

    /// Where it copies.
    pub fn stream(&self) -> &'a Stream {
        self.stream
    }

    /// Bytes of one half.
    pub fn half_bytes(&self) -> usize {
        2 * self.halves[0].memory.len()
    }

    /// Queues a copy to `dst`, at most a half, of what `fill` writes.
    pub fn send<E: From<GpuError>>(
        &mut self,
        dst: DeviceSlice<'_, u8>,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Half { memory, copied } = &mut self.halves[self.next];
        copied.synchronize()?;
        let bytes = &mut bytemuck::cast_slice_mut(&mut memory[..])[..dst.len()];
        fill(bytes)?;
        // SAFETY: the half is neither filled again nor freed before the copy is done: `send` waits
        // for its event, and dropping waits for the stream.
        unsafe { self.stream.upload_async(dst, bytes)? };
        copied.record(self.stream)?;
        self.next = 1 - self.next;
        Ok(())
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // An error here has been reported by whoever used the stream, or will be.
        let _ = self.stream.synchronize();
    }
}
