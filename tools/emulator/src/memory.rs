//! Device memory: host mappings whose addresses are the device addresses.
//!
//! A kernel's pointer needs no translation, only a check that it lies in a live allocation.
//! Allocations are kept apart by gaps, so an index that runs over the end of one does not land in
//! the next. Fresh memory holds [`POISON`], a NaN in every float width and an absurd index.

use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, RwLock};

use crate::guest;

/// The 16-bit pattern, repeated, that fresh memory holds: a NaN as f16, bf16, f32 and f64.
pub const POISON: u16 = 0x7ff7;

/// Unusable addresses on either side of an allocation.
const GAP: usize = 64 << 10;

/// Allocations at least this large get their poison from a shared copy-on-write mapping, so that
/// memory nobody touches is never committed.
const SHARED_POISON: usize = 16 << 20;

/// Where the next allocation goes. It only grows, so that an address is not handed out twice and a
/// use after free is one for as long as the process lives; and runs see the same addresses.
static NEXT_ADDRESS: AtomicUsize = AtomicUsize::new(0x1000_0000_0000);

/// Whose memory an allocation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The memory of the virtual device with this index.
    Device(usize),
    /// Page-locked or registered host memory, which every device and the host may touch.
    HostPinned,
}

/// A live allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Address of its first byte.
    pub base: u64,
    /// Bytes.
    pub len: usize,
    /// Whose it is.
    pub owner: Owner,
}

/// What went wrong with an allocation or a copy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The host refused the mapping.
    #[error("out of memory: cannot map {bytes} bytes")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
    },
    /// The address is not the start of a live allocation.
    #[error("0x{address:x} is not the start of a live allocation")]
    NotAllocated {
        /// The address given.
        address: u64,
    },
    /// An access that no live allocation covers.
    #[error("{bytes} bytes at 0x{address:x} are outside every allocation ({})", near(.nearest))]
    OutOfBounds {
        /// First byte of the access.
        address: u64,
        /// Its length.
        bytes: usize,
        /// The allocation closest to it.
        nearest: Option<Allocation>,
    },
}

/// Describes the allocation nearest to a bad address.
pub(crate) fn near(nearest: &Option<Allocation>) -> String {
    match nearest {
        Some(a) => format!("nearest is 0x{:x}..0x{:x}", a.base, a.base + a.len as u64),
        None => "there is none".to_owned(),
    }
}

/// One mapping, live while anybody holds it.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) allocation: Allocation,
    /// The mapping with its gaps, or `None` for memory the caller keeps.
    mapping: Option<(NonNull<libc::c_void>, usize)>,
    /// One bit a byte, set once the byte has been written; absent where nothing is tracked.
    written: Option<Box<[AtomicU8]>>,
}

// SAFETY: the mapping is only released by Drop, and is otherwise reached through raw addresses.
unsafe impl Send for Region {}
// SAFETY: as above; the fields themselves are never mutated, `written` only atomically.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        if let Some((start, bytes)) = self.mapping {
            // SAFETY: `map` returned this range and nobody else unmaps it.
            unsafe { libc::munmap(start.as_ptr(), bytes) };
        }
    }
}

impl Region {
    /// Memory that somebody else keeps mapped.
    pub(crate) fn borrowed(allocation: Allocation) -> Region {
        Region { allocation, mapping: None, written: None }
    }

    pub(crate) fn contains(&self, address: u64, bytes: usize) -> bool {
        let offset = address.wrapping_sub(self.allocation.base);
        offset <= self.allocation.len as u64 && bytes as u64 <= self.allocation.len as u64 - offset
    }

    /// Whether it records which bytes have been written.
    pub(crate) fn is_tracked(&self) -> bool {
        self.written.is_some()
    }

    /// Records that `bytes` at `address` have been written.
    pub(crate) fn mark_written(&self, address: u64, bytes: usize) {
        let Some(written) = &self.written else { return };
        let first = (address - self.allocation.base) as usize;
        let mut at = first;
        while at < first + bytes {
            if at.is_multiple_of(8) && first + bytes - at >= 8 {
                written[at / 8].store(0xff, Ordering::Relaxed);
                at += 8;
            } else {
                written[at / 8].fetch_or(1 << (at % 8), Ordering::Relaxed);
                at += 1;
            }
        }
    }

    /// The first address in the range that nobody has written, if it is tracked.
    pub(crate) fn first_unwritten(&self, address: u64, bytes: usize) -> Option<u64> {
        let written = self.written.as_ref()?;
        let first = (address - self.allocation.base) as usize;
        (first..first + bytes)
            .find(|at| written[at / 8].load(Ordering::Relaxed) & (1 << (at % 8)) == 0)
            .map(|at| self.allocation.base + at as u64)
    }
}

/// Live allocations ordered by address, as one moment saw them.
pub(crate) type Snapshot = Arc<Vec<Arc<Region>>>;

/// All memory that kernels and copies can reach: one per process, shared by all virtual devices.
///
/// Every method may be called from any thread. Freeing memory that a running kernel uses is safe:
/// the kernel keeps the mappings it started with until it ends.
#[derive(Debug, Default)]
pub struct Memory {
    regions: RwLock<Snapshot>,
    /// Pairs of devices, the first of which may reach the second's memory.
    peers: RwLock<BTreeSet<(usize, usize)>>,
    track: AtomicBool,
}

impl Memory {
    /// Memory with nothing in it.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// Whether allocations made from now on record which of their bytes have been written. The
    /// checker for uninitialised reads sees nothing in memory allocated without it.
    pub fn track_initialisation(&self, on: bool) {
        self.track.store(on, Ordering::Relaxed);
    }

    /// Lets kernels of `device` reach the memory of `peer`, or no longer, from their next launch
    /// on. Returns whether that is a change.
    pub fn set_peer_access(&self, device: usize, peer: usize, allowed: bool) -> bool {
        let mut peers = self.peers.write().unwrap_or_else(|e| e.into_inner());
        if allowed { peers.insert((device, peer)) } else { peers.remove(&(device, peer)) }
    }

    /// Maps `bytes` of poisoned memory, aligned to a page. Zero bytes take one.
    ///
    /// # Errors
    /// [`MemoryError::OutOfMemory`] when the host refuses.
    pub fn allocate(&self, owner: Owner, bytes: usize) -> Result<u64, MemoryError> {
        let bytes = bytes.max(1);
        let (start, total) = map(bytes)?;
        let base = start.as_ptr() as u64 + GAP as u64;
        let tracked = self.track.load(Ordering::Relaxed) && owner != Owner::HostPinned;
        let region = Region {
            allocation: Allocation { base, len: bytes, owner },
            mapping: Some((start, total)),
            written: tracked.then(|| bitmap(bytes)),
        };
        poison(base, bytes);
        self.insert(region);
        Ok(base)
    }

    /// Makes host memory that the caller keeps reachable by kernels at its own address.
    ///
    /// # Safety
    /// `address..address + bytes` must be mapped, readable and writable until [`Memory::free`] of
    /// `address` has returned and every launch begun before then has ended.
    pub unsafe fn register(&self, address: u64, bytes: usize) {
        let allocation = Allocation { base: address, len: bytes, owner: Owner::HostPinned };
        self.insert(Region::borrowed(allocation));
    }

    /// Frees the allocation that starts at `address`.
    ///
    /// # Errors
    /// [`MemoryError::NotAllocated`] when none does.
    pub fn free(&self, address: u64) -> Result<(), MemoryError> {
        let mut regions = self.regions.write().unwrap_or_else(|e| e.into_inner());
        let Ok(at) = regions.binary_search_by_key(&address, |r| r.allocation.base) else {
            return Err(MemoryError::NotAllocated { address });
        };
        Arc::make_mut(&mut regions).remove(at);
        Ok(())
    }

    /// The live allocation that `address` lies in.
    pub fn find(&self, address: u64) -> Option<Allocation> {
        let regions = self.snapshot();
        covering(&regions, address, 1).map(|region| region.allocation)
    }

    /// All live allocations, ordered by address.
    pub fn allocations(&self) -> Vec<Allocation> {
        self.snapshot().iter().map(|region| region.allocation).collect()
    }

    /// Fills `into` from `address`.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`] when no one allocation covers the range.
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        if into.is_empty() {
            return Ok(());
        }
        let _held = self.checked(address, into.len())?;
        // SAFETY: `_held` keeps the whole source range mapped.
        unsafe { guest::read(address, into) };
        Ok(())
    }

    /// Writes `from` to `address`.
    ///
    /// # Errors
    /// As [`Memory::read`].
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), MemoryError> {
        if from.is_empty() {
            return Ok(());
        }
        let held = self.checked(address, from.len())?;
        // SAFETY: `held` keeps the whole destination range mapped.
        unsafe { guest::write(address, from) };
        held.mark_written(address, from.len());
        Ok(())
    }

    /// Copies `bytes` from one allocation to another; the ranges may overlap. What was not
    /// written at the source counts as written at the destination only where it was.
    ///
    /// # Errors
    /// As [`Memory::read`], for either range.
    pub fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), MemoryError> {
        if bytes == 0 {
            return Ok(());
        }
        let source = self.checked(from, bytes)?;
        let target = self.checked(to, bytes)?;
        // SAFETY: both ranges are kept mapped.
        unsafe { guest::copy(to, from, bytes) };
        if target.written.is_some() {
            for i in 0..bytes as u64 {
                if source.first_unwritten(from + i, 1).is_none() {
                    target.mark_written(to + i, 1);
                }
            }
        }
        Ok(())
    }

    /// Repeats `pattern` over `bytes` at `address`; a partial last repeat is cut off.
    ///
    /// # Errors
    /// As [`Memory::read`].
    pub fn fill(&self, address: u64, pattern: &[u8], bytes: usize) -> Result<(), MemoryError> {
        if bytes == 0 || pattern.is_empty() {
            return Ok(());
        }
        let held = self.checked(address, bytes)?;
        // Whole repeats, about a page of them: a large fill is copies of that.
        let repeats = (4096 / pattern.len()).max(1).min(bytes.div_ceil(pattern.len()));
        let block = pattern.repeat(repeats);
        for at in (0..bytes).step_by(block.len()) {
            let count = block.len().min(bytes - at);
            // SAFETY: `held` keeps the range mapped and `at + count <= bytes`.
            unsafe { guest::write(address + at as u64, &block[..count]) };
        }
        held.mark_written(address, bytes);
        Ok(())
    }

    /// The allocations as they are now; holding it keeps them mapped.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.regions.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Of the allocations as they are now, those that a kernel of `owner` may touch.
    pub(crate) fn reachable(&self, owner: Owner) -> Vec<Arc<Region>> {
        let peers = self.peers.read().unwrap_or_else(|e| e.into_inner());
        let reaches = |other| match (owner, other) {
            (Owner::Device(device), Owner::Device(other)) => {
                device == other || peers.contains(&(device, other))
            }
            _ => true,
        };
        let regions = self.snapshot();
        regions.iter().filter(|region| reaches(region.allocation.owner)).cloned().collect()
    }

    fn insert(&self, region: Region) {
        let mut regions = self.regions.write().unwrap_or_else(|e| e.into_inner());
        let at = regions.partition_point(|r| r.allocation.base < region.allocation.base);
        Arc::make_mut(&mut regions).insert(at, Arc::new(region));
    }

    fn checked(&self, address: u64, bytes: usize) -> Result<Arc<Region>, MemoryError> {
        let regions = self.snapshot();
        covering(&regions, address, bytes).cloned().ok_or_else(|| MemoryError::OutOfBounds {
            address,
            bytes,
            nearest: nearest(&regions, address),
        })
    }
}

/// The region that covers the whole access.
pub(crate) fn covering(
    regions: &[Arc<Region>],
    address: u64,
    bytes: usize,
) -> Option<&Arc<Region>> {
    let after = regions.partition_point(|r| r.allocation.base <= address);
    let region = regions.get(after.checked_sub(1)?)?;
    region.contains(address, bytes).then_some(region)
}

/// The allocation whose closest byte is nearest to `address`.
pub(crate) fn nearest(regions: &[Arc<Region>], address: u64) -> Option<Allocation> {
    let distance = |a: &Allocation| {
        let end = a.base + a.len as u64;
        if address < a.base { a.base - address } else { address.saturating_sub(end - 1) }
    };
    regions.iter().map(|r| r.allocation).min_by_key(distance)
}

fn bitmap(bytes: usize) -> Box<[AtomicU8]> {
    (0..bytes.div_ceil(8)).map(|_| AtomicU8::new(0)).collect()
}

/// Reserves `bytes` with a gap on either side.
fn map(bytes: usize) -> Result<(NonNull<libc::c_void>, usize), MemoryError> {
    let refused = MemoryError::OutOfMemory { bytes };
    let Some(total) = bytes.checked_next_multiple_of(4096).and_then(|b| b.checked_add(2 * GAP))
    else {
        return Err(refused);
    };
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let fresh = NEXT_ADDRESS.fetch_add(total, Ordering::Relaxed) as *mut libc::c_void;
    // SAFETY: an anonymous mapping that replaces no other disturbs nothing.
    let mut start =
        unsafe { libc::mmap(fresh, total, protection, flags | libc::MAP_FIXED_NOREPLACE, -1, 0) };
    if start == libc::MAP_FAILED {
        // Taken or out of range: anywhere will do.
        // SAFETY: as above, at an address of the system's choosing.
        start = unsafe { libc::mmap(std::ptr::null_mut(), total, protection, flags, -1, 0) };
    }
    match NonNull::new(start) {
        Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok((start, total)),
        _ => Err(refused),
    }
}

/// Fills a fresh mapping with [`POISON`].
fn poison(base: u64, bytes: usize) {
    let mut done = 0;
    if bytes >= SHARED_POISON
        && let Some(file) = poison_file()
    {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE;
        while done + SHARED_POISON <= bytes {
            let at = (base as usize + done) as *mut libc::c_void;
            // SAFETY: the target lies within the mapping that `map` has just made for us alone.
            let got = unsafe { libc::mmap(at, SHARED_POISON, protection, flags, file, 0) };
            if got == libc::MAP_FAILED {
                break;
            }
            done += SHARED_POISON;
        }
    }
    // SAFETY: the rest of the fresh mapping, which nobody else knows yet; pages are 4 KiB, so
    // rounding the length up to two bytes stays inside.
    let rest = unsafe {
        std::slice::from_raw_parts_mut(
            (base as usize + done) as *mut u16,
            (bytes - done).div_ceil(2),
        )
    };
    rest.fill(POISON);
}

/// An in-memory file of [`SHARED_POISON`] poisoned bytes; `None` where the host has none.
fn poison_file() -> Option<libc::c_int> {
    static FILE: OnceLock<Option<libc::c_int>> = OnceLock::new();
    *FILE.get_or_init(|| {
        // SAFETY: creates a new descriptor; the name is a C string literal.
        let file = unsafe { libc::memfd_create(c"poison".as_ptr(), libc::MFD_CLOEXEC) };
        if file < 0 {
            return None;
        }
        let pattern = vec![POISON; SHARED_POISON / 2];
        let mut written = 0;
        while written < SHARED_POISON {
            let rest = SHARED_POISON - written;
            // SAFETY: reads `rest` bytes that lie within `pattern`.
            let count =
                unsafe { libc::write(file, pattern.as_ptr().byte_add(written).cast(), rest) };
            if count <= 0 {
                return None;
            }
            written += count as usize;
        }
        Some(file)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_memory_is_poison_to_the_last_byte() {
        let memory = Memory::new();
        for bytes in [1, 2, 3, 4097, SHARED_POISON, SHARED_POISON + 5] {
            let base = memory.allocate(Owner::Device(0), bytes).unwrap();
            let mut got = vec![0; bytes];
            memory.read(base, &mut got).unwrap();
            let expected = POISON.to_le_bytes();
            assert!(got.iter().enumerate().all(|(i, &b)| b == expected[i % 2]), "{bytes} bytes");
            memory.free(base).unwrap();
        }
    }

    #[test]
    fn a_freed_address_does_not_come_back() {
        let memory = Memory::new();
        let first = memory.allocate(Owner::Device(0), 4096).unwrap();
        memory.free(first).unwrap();
        let second = memory.allocate(Owner::Device(0), 4096).unwrap();
        assert_ne!(first, second);
    }

    #[test]
    fn a_device_reaches_its_own_and_pinned_memory_and_that_of_its_peers() {
        let memory = Memory::new();
        let owners = [Owner::Device(0), Owner::Device(1), Owner::HostPinned];
        let bases = owners.map(|owner| memory.allocate(owner, 16).unwrap());
        let reachable = |device| {
            let regions = memory.reachable(Owner::Device(device));
            bases.map(|base| covering(&regions, base, 16).is_some())
        };
        assert_eq!(reachable(0), [true, false, true]);
        assert!(memory.set_peer_access(0, 1, true));
        assert!(!memory.set_peer_access(0, 1, true));
        assert_eq!((reachable(0), reachable(1)), ([true; 3], [false, true, true]));
        assert!(memory.set_peer_access(0, 1, false));
        assert_eq!(reachable(0), [true, false, true]);
    }

    #[test]
    fn an_access_must_lie_in_one_allocation() {
        let memory = Memory::new();
        let base = memory.allocate(Owner::Device(1), 100).unwrap();
        let owner = Owner::Device(1);
        assert_eq!(memory.find(base + 99), Some(Allocation { base, len: 100, owner }));
        assert_eq!(memory.find(base + 100), None);
        assert_eq!(memory.find(base - 1), None);
        memory.write(base + 96, &[1; 4]).unwrap();
        let error = memory.write(base + 97, &[1; 4]).unwrap_err();
        assert!(
            matches!(error, MemoryError::OutOfBounds { nearest: Some(a), .. } if a.base == base)
        );
        memory.free(base).unwrap();
        assert_eq!(memory.free(base), Err(MemoryError::NotAllocated { address: base }));
    }

    #[test]
    fn a_fill_repeats_its_pattern_and_cuts_off_the_last() {
        let memory = Memory::new();
        let base = memory.allocate(Owner::Device(0), 20_000).unwrap();
        for (pattern, bytes) in [(&[1u8][..], 9999), (&[1, 2, 3, 4], 9998), (&[5, 6, 7], 7)] {
            memory.fill(base, &[0xee], 20_000).unwrap();
            memory.fill(base + 3, pattern, bytes).unwrap();
            let mut got = vec![0; 20_000];
            memory.read(base, &mut got).unwrap();
            let expected: Vec<u8> = pattern.iter().copied().cycle().take(bytes).collect();
            assert_eq!(got[3..3 + bytes], expected);
            assert!(got[..3].iter().chain(&got[3 + bytes..]).all(|&byte| byte == 0xee));
        }
    }

    #[test]
    fn written_bytes_are_tracked_across_copies() {
        let memory = Memory::new();
        memory.track_initialisation(true);
        let a = memory.allocate(Owner::Device(0), 32).unwrap();
        let b = memory.allocate(Owner::Device(0), 32).unwrap();
        memory.write(a + 3, &[0; 20]).unwrap();
        memory.copy(b, a, 32).unwrap();
        let region = memory.checked(b, 32).unwrap();
        assert_eq!(region.first_unwritten(b, 32), Some(b));
        assert_eq!(region.first_unwritten(b + 3, 20), None);
        assert_eq!(region.first_unwritten(b + 3, 21), Some(b + 23));
    }
}
