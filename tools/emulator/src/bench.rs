//! Speed of the emulator itself.

use std::sync::Arc;
use std::time::Instant;

use crate::{Chip, CodeImage, Launch, LaunchError, LoadError, Memory, Options, Owner, launch};

/// Figures of one measurement. Rates are per host core.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Wave instructions per second on vector arithmetic, one thread.
    pub instructions_per_second: f64,
    /// 16x16x16 matrix instructions per second, one thread.
    pub matrix_per_second: f64,
    /// Threads of the scaling measurement.
    pub threads: usize,
    /// Vector instruction rate with that many threads over the rate with one.
    pub scaling: f64,
}

impl Speed {
    /// One line of JSON.
    pub fn to_json(&self) -> String {
        format!(
            "{{\"instructions_per_second_per_core\":{:.0},\"matrix_per_second_per_core\":{:.0},\
             \"threads\":{},\"scaling\":{:.3}}}",
            self.instructions_per_second, self.matrix_per_second, self.threads, self.scaling
        )
    }
}

/// Why the measurement did not happen.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The kernels that come with the emulator did not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// They did not run.
    #[error(transparent)]
    Launch(#[from] LaunchError),
}

/// Measures: the best of five runs of about a tenth of a second each, per figure.
///
/// # Errors
/// [`BenchError`]; none is expected.
pub fn measure(threads: usize) -> Result<Speed, BenchError> {
    let memory = Arc::new(Memory::new());
    let bytes = include_bytes!("bench/kernels.co");
    let code = CodeImage::load(&memory, Owner::Device(0), Chip::Gfx1151, bytes)?;
    let best = |kernel: &str, turns: u32, threads: usize| {
        let rates = (0..5).map(|_| rate(&memory, &code, kernel, turns, threads));
        rates.collect::<Result<Vec<_>, _>>().map(|rates| rates.into_iter().fold(0.0, f64::max))
    };
    let alone = best("vector", 2000, 1)?;
    Ok(Speed {
        instructions_per_second: alone,
        matrix_per_second: best("matrix", 200, 1)?,
        threads,
        scaling: best("vector", 2000, threads)? / alone,
    })
}

/// Vector or matrix instructions per second of one launch.
fn rate(
    memory: &Memory,
    code: &CodeImage,
    kernel: &str,
    turns: u32,
    threads: usize,
) -> Result<f64, LaunchError> {
    let kernarg = turns.to_le_bytes();
    let (grid, block) = ([64, 1, 1], [32, 1, 1]);
    let launched = Launch { code, kernel, grid, block, dynamic_lds: 0, kernarg: &kernarg };
    let options = Options { threads, ..Options::default() };
    let start = Instant::now();
    let counters = launch(memory, &launched, &options)?;
    let seconds = start.elapsed().as_secs_f64();
    let count = if kernel == "matrix" { counters.matrix } else { counters.instructions };
    Ok(count as f64 / seconds)
}
