//! Times device work with the device's own clock.
//!
//! Method: warm up; then take samples, each a run of launches between two events, long enough
//! that the events' resolution and the launch latency do not show; report the median and the
//! quartiles of the time per launch. Work that reads memory rotates over several sets of buffers
//! whose total exceeds the last-level cache three times ([`sets`]), so that what is timed comes
//! from memory, as weights do in a model larger than any cache.

use serde::Serialize;

use crate::gpu::{Device, Event, GpuError, Stream};

/// How long and how often to measure.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Method {
    /// Launches before the first sample.
    pub warm_up: usize,
    /// Samples.
    pub samples: usize,
    /// Shortest sample, in milliseconds; sets the launches per sample.
    pub sample_ms: f64,
}

impl Default for Method {
    /// About a tenth of a second per case. Two milliseconds are some thousand times the
    /// resolution of the events.
    fn default() -> Method {
        Method { warm_up: 5, samples: 25, sample_ms: 2.0 }
    }
}

impl Method {
    /// One launch per sample and few of them: on the emulator, where times mean nothing, it still
    /// shows that the measurement runs.
    pub const SMOKE: Method = Method { warm_up: 1, samples: 3, sample_ms: 0.0 };
}

/// Microseconds per launch over the samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Time {
    /// The lower quartile.
    pub q1_us: f64,
    /// The middle.
    pub median_us: f64,
    /// The upper quartile.
    pub q3_us: f64,
    /// Samples taken.
    pub samples: usize,
    /// Launches in each.
    pub launches: usize,
}

impl Time {
    /// Rate for `work` units per launch, in units per second, at the median.
    pub fn rate(&self, work: f64) -> f64 {
        work / (self.median_us * 1e-6)
    }
}

/// Work of one launch, and the rates its time comes to.
#[derive(Clone, Debug, Serialize)]
pub struct Result {
    /// What was timed: kernel or case.
    pub name: String,
    /// Its shape.
    pub shape: String,
    /// Time per launch.
    pub time: Time,
    /// Bytes a launch must move at least: each input read and each output written once.
    pub bytes: f64,
    /// Floating-point operations, a multiply-add being two.
    pub flops: f64,
    /// Bytes per second, in GB/s.
    pub gb_per_s: f64,
    /// Operations per second, in Tflop/s.
    pub tflop_per_s: f64,
}

impl Result {
    /// Joins work and time.
    pub fn new(name: &str, shape: String, time: Time, bytes: f64, flops: f64) -> Result {
        let gb_per_s = time.rate(bytes) / 1e9;
        let tflop_per_s = time.rate(flops) / 1e12;
        Result { name: name.to_owned(), shape, time, bytes, flops, gb_per_s, tflop_per_s }
    }
}

/// Sets of buffers to rotate over so that together they exceed the last-level cache three times:
/// at least one, and no more than fit in half of the free memory.
pub fn sets(device: &Device, bytes_per_set: u64) -> std::result::Result<usize, GpuError> {
    let cache = device.properties().l2_bytes.unwrap_or(64 << 20);
    let (free, _) = device.memory()?;
    Ok(set_count(cache, free, bytes_per_set.max(1)))
}

fn set_count(cache: u64, free: u64, bytes_per_set: u64) -> usize {
    let wanted = (3 * cache).div_ceil(bytes_per_set) + 1;
    let fit = free / 2 / bytes_per_set;
    wanted.min(fit).max(1) as usize
}

/// Times `launch`, which queues one launch on `stream`; its argument counts launches up from 0,
/// to choose the set of buffers (`i % sets`).
pub fn time(
    stream: &Stream,
    method: Method,
    mut launch: impl FnMut(usize) -> std::result::Result<(), GpuError>,
) -> std::result::Result<Time, GpuError> {
    let (start, end) = (Event::timed(stream.device())?, Event::timed(stream.device())?);
    let mut count = 0;
    let mut run = |launches: usize| {
        start.record(stream)?;
        for _ in 0..launches {
            launch(count)?;
            count += 1;
        }
        end.record(stream)?;
        end.synchronize()?;
        end.elapsed_ms(&start).map(f64::from)
    };
    run(method.warm_up.max(1))?;
    let mut launches = 1;
    let mut ms = run(launches)?;
    while ms < method.sample_ms && launches < 1 << 20 {
        // Aims past the target, and grows at most tenfold on the strength of one short run.
        let factor = (1.2 * method.sample_ms / ms.max(1e-6)).clamp(1.5, 10.0);
        launches = (launches as f64 * factor).ceil() as usize;
        ms = run(launches)?;
    }
    let mut per_launch = Vec::with_capacity(method.samples);
    for _ in 0..method.samples.max(1) {
        per_launch.push(run(launches)? * 1e3 / launches as f64);
    }
    let [q1_us, median_us, q3_us] = quartiles(&mut per_launch);
    Ok(Time { q1_us, median_us, q3_us, samples: per_launch.len(), launches })
}

/// Quartiles by linear interpolation between the sorted samples, at least one.
fn quartiles(samples: &mut [f64]) -> [f64; 3] {
    samples.sort_by(f64::total_cmp);
    [0.25, 0.5, 0.75].map(|fraction| {
        let at = fraction * (samples.len() - 1) as f64;
        let below = samples[at.floor() as usize];
        let above = samples[at.ceil() as usize];
        below + (above - below) * at.fract()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_interpolate() {
        assert_eq!(quartiles(&mut [4.0, 1.0, 3.0, 2.0, 5.0]), [2.0, 3.0, 4.0]);
        assert_eq!(quartiles(&mut [1.0, 2.0]), [1.25, 1.5, 1.75]);
        assert_eq!(quartiles(&mut [7.0]), [7.0; 3]);
    }

    #[test]
    fn sets_exceed_the_cache_three_times_and_fit() {
        for bytes in [1, 1000, 50 << 20, 1 << 30] {
            let sets = set_count(50 << 20, 100 << 30, bytes);
            assert!(sets as u64 * bytes > 150 << 20, "{bytes}");
        }
        assert_eq!(set_count(50 << 20, 100 << 20, 20 << 20), 2);
        assert_eq!(set_count(50 << 20, 10, 20 << 20), 1);
    }

    #[test]
    fn rates_count_units_per_second() {
        let time = Time { q1_us: 1.0, median_us: 2.0, q3_us: 3.0, samples: 1, launches: 1 };
        let result = Result::new("copy", String::new(), time, 4e6, 8e6);
        assert_eq!((result.gb_per_s, result.tflop_per_s), (2000.0, 4.0));
    }
}
