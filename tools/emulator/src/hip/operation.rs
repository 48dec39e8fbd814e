//! Copies, fills and what else a stream does that needs neither kernels nor graphs.

use super::device::Device;
use super::error::{Error, Result};
use super::queue::Work;
use super::runtime::runtime;

/// One side of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address in an allocation of this runtime.
    Known(u64),
    /// An address in memory of the program's own.
    Host(u64),
}

impl Place {
    fn offset(self, bytes: usize) -> Self {
        match self {
            Self::Known(address) => Self::Known(address + bytes as u64),
            Self::Host(address) => Self::Host(address + bytes as u64),
        }
    }
}

/// A copy of `rows` rows of `width` bytes, the starts of which are a pitch apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    pub to: Place,
    pub from: Place,
    pub width: usize,
    pub rows: usize,
    pub to_pitch: usize,
    pub from_pitch: usize,
}

/// A piece of such work.
pub enum Operation {
    /// Nothing: its end marks a point in the stream.
    Marker,
    /// Copies. The program keeps the host memory valid until it has ended.
    Copy(Copy),
    /// Stores bytes taken from the program when the call was made.
    Write { to: u64, data: Box<[u8]> },
    /// Repeats the first `width` bytes of `pattern` over `bytes` bytes.
    Fill { to: u64, pattern: [u8; 4], width: usize, bytes: usize },
    /// Calls the program.
    Call(Box<dyn Fn() + Send + Sync>),
    /// Frees an allocation.
    Free(u64),
}

impl Work for Operation {
    fn kind(&self) -> &'static str {
        match self {
            Self::Marker => "marker",
            Self::Copy(_) => "copy",
            Self::Write { .. } => "write",
            Self::Fill { .. } => "fill",
            Self::Call(_) => "call",
            Self::Free(_) => "free",
        }
    }

    fn runs_after_a_fault(&self) -> bool {
        matches!(self, Self::Free(_))
    }

    fn run(&self, _: &Device) -> Result {
        let memory = &runtime()?.memory;
        match self {
            Self::Marker => {}
            Self::Copy(copy) => {
                for row in 0..copy.rows {
                    let to = copy.to.offset(row * copy.to_pitch);
                    copy_row(to, copy.from.offset(row * copy.from_pitch), copy.width)?;
                }
            }
            Self::Write { to, data } => memory.write(*to, data)?,
            Self::Fill { to, pattern, width, bytes } => {
                memory.fill(*to, &pattern[..*width], *bytes)?;
            }
            Self::Call(function) => function(),
            Self::Free(address) => memory.free(*address)?,
        }
        Ok(())
    }
}

fn copy_row(to: Place, from: Place, bytes: usize) -> Result {
    let memory = &runtime()?.memory;
    match (to, from) {
        (Place::Known(to), Place::Known(from)) => memory.copy(to, from, bytes),
        (Place::Known(to), Place::Host(from)) => {
            // SAFETY: every copy demands that host memory given as its source is
            // readable until the copy has ended.
            let from = unsafe { std::slice::from_raw_parts(from as *const u8, bytes) };
            memory.write(to, from)
        }
        (Place::Host(to), Place::Known(from)) => {
            // SAFETY: every copy demands that host memory given as its target is
            // writable, and used by nobody else, until the copy has ended.
            let to = unsafe { std::slice::from_raw_parts_mut(to as *mut u8, bytes) };
            memory.read(from, to)
        }
        (Place::Host(to), Place::Host(from)) => {
            // SAFETY: as above for both sides; they may overlap.
            unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
            Ok(())
        }
    }
    .map_err(Error::from)
}
