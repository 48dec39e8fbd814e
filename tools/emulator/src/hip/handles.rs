//! Opaque handles that a program may pass back wrong without harm.
//!
//! A handle is a number that grows and is never reused, so a stale one, one of
//! another kind, or a stray pointer is found missing from the table instead of
//! being dereferenced.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use super::error::{Error, Result};

/// Far outside any user-space mapping, so that no handle equals a real pointer.
const FIRST: usize = 0x4849_5000_0000_0000;
static NEXT: AtomicUsize = AtomicUsize::new(FIRST);

/// A C handle.
pub type Handle = *mut c_void;

/// The live handles of one kind.
pub struct Handles<T> {
    live: LazyLock<Mutex<HashMap<usize, Arc<T>>>>,
}

impl<T> Handles<T> {
    /// An empty table.
    pub const fn new() -> Self {
        Self { live: LazyLock::new(Mutex::default) }
    }

    /// Enters `value` and returns its handle.
    pub fn insert(&self, value: Arc<T>) -> Handle {
        let handle = NEXT.fetch_add(16, Ordering::Relaxed);
        self.lock().insert(handle, value);
        handle as Handle
    }

    /// The object behind `handle`, or [`Error::InvalidHandle`].
    pub fn get(&self, handle: Handle) -> Result<Arc<T>> {
        self.lock().get(&(handle as usize)).cloned().ok_or(Error::InvalidHandle)
    }

    /// Retires `handle` and returns its object, or [`Error::InvalidHandle`].
    pub fn remove(&self, handle: Handle) -> Result<Arc<T>> {
        self.lock().remove(&(handle as usize)).ok_or(Error::InvalidHandle)
    }

    /// Retires every handle whose object does not satisfy `keep`.
    pub fn retain(&self, keep: impl Fn(&T) -> bool) {
        self.lock().retain(|_, value| keep(value));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<usize, Arc<T>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_null_or_stray_handle_is_an_error() {
        let table = Handles::new();
        let handle = table.insert(Arc::new(7));
        assert_eq!(*table.get(handle).unwrap(), 7);
        assert_eq!(*table.remove(handle).unwrap(), 7);
        for bad in [handle, std::ptr::null_mut(), 8 as Handle] {
            assert_eq!(table.get(bad), Err(Error::InvalidHandle));
            assert_eq!(table.remove(bad), Err(Error::InvalidHandle));
        }
    }

    #[test]
    fn handles_of_two_kinds_never_collide() {
        let (numbers, names) = (Handles::new(), Handles::new());
        let number = numbers.insert(Arc::new(1));
        let name = names.insert(Arc::new("one"));
        assert!(numbers.get(name).is_err() && names.get(number).is_err());
    }
}
