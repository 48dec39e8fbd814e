//! Counters per kernel name, summed over launches.

use std::collections::BTreeMap;

use super::runtime;
use super::signal::lock;
use crate::Counters;

/// What all launches of one kernel counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelStats {
    /// Name of the kernel.
    pub kernel: String,
    /// Number of launches.
    pub launches: u64,
    /// Sums over the launches.
    pub counters: Counters,
}

/// The sums so far, by kernel name.
#[derive(Default)]
pub struct Stats(BTreeMap<String, (u64, Counters)>);

impl Stats {
    /// Adds one launch.
    pub fn add(&mut self, kernel: &str, counters: Counters) {
        if !self.0.contains_key(kernel) {
            self.0.insert(kernel.to_owned(), Default::default());
        }
        if let Some((launches, sum)) = self.0.get_mut(kernel) {
            *launches += 1;
            *sum += counters;
        }
    }
}

/// Takes the counters of every kernel launched since the last call, ordered by
/// name. Work that is still running is not included: synchronise first.
pub fn take_stats() -> Vec<KernelStats> {
    let Some(runtime) = runtime::running() else {
        return Vec::new();
    };
    let taken = std::mem::take(&mut *lock(&runtime.stats));
    let stats = |(kernel, (launches, counters))| KernelStats { kernel, launches, counters };
    taken.0.into_iter().map(stats).collect()
}
