//! Completion of one piece of stream work, which others can wait for.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::error::Result;

/// Locks a mutex whose data stays consistent even if a holder panicked.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When and how a piece of work ended.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    pub at: Instant,
    pub result: Result,
}

/// Raised once, when a piece of work has ended.
#[derive(Debug, Default)]
pub struct Signal {
    done: Mutex<Option<Done>>,
    raised: Condvar,
}

impl Signal {
    /// A signal that is raised already.
    pub fn raised() -> Self {
        let done = Done { at: Instant::now(), result: Ok(()) };
        Self { done: Mutex::new(Some(done)), raised: Condvar::new() }
    }

    /// Marks the work as ended and wakes those who wait for it.
    pub fn raise(&self, result: Result) {
        lock(&self.done).get_or_insert(Done { at: Instant::now(), result });
        self.raised.notify_all();
    }

    /// How the work ended, `None` while it has not.
    pub fn peek(&self) -> Option<Done> {
        *lock(&self.done)
    }

    /// Blocks until the work has ended.
    pub fn wait(&self) -> Done {
        let mut done = lock(&self.done);
        loop {
            if let Some(done) = *done {
                return done;
            }
            done = self.raised.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
