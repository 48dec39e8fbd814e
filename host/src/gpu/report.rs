//! What `gptoss doctor` says about GPUs.

use serde::Serialize;

use super::device::{Device, Properties};
use super::driver::{Api, Driver};
use super::error::GpuError;

/// One driver as found on this machine.
#[derive(Clone, Debug, Serialize)]
pub struct DriverReport {
    /// `HIP` or `CUDA`.
    pub api: String,
    /// API, version and file when the library loads; else why it does not.
    pub library: Result<String, String>,
    /// Its devices; else why there is none. Absent without a library.
    pub devices: Option<Result<Vec<Properties>, String>>,
}

/// Looks for every real driver and its devices. The emulator needs no looking for: it is part of
/// this program.
pub fn report() -> Vec<DriverReport> {
    vec![probe(Api::Hip, Driver::hip()), probe(Api::Cuda, Driver::cuda())]
}

fn probe(api: Api, driver: Result<&'static Driver, GpuError>) -> DriverReport {
    let devices = driver.as_ref().ok().map(|driver| {
        devices(driver).map_err(|error| match error {
            GpuError::NoDevice { reason, .. } => reason.to_owned(),
            error => error.to_string(),
        })
    });
    let library = driver.map(Driver::describe).map_err(|error| error.to_string());
    DriverReport { api: api.to_string(), library, devices }
}

fn devices(driver: &'static Driver) -> Result<Vec<Properties>, GpuError> {
    (0..driver.device_count()?)
        .map(|index| Device::open(driver, index).map(|device| device.properties().clone()))
        .collect()
}

impl Properties {
    /// One line for people.
    pub fn summary(&self) -> String {
        let gib = self.memory_bytes as f64 / f64::from(1 << 30);
        let mut line = format!(
            "{} ({}): {gib:.1} GiB, {} compute units, wave {}, {} KiB of workgroup memory",
            self.name,
            self.arch_features,
            self.compute_units,
            self.wave_size,
            self.lds_bytes >> 10
        );
        if let Some(khz) = self.clock_khz {
            line += &format!(", {:.2} GHz", f64::from(khz) / 1e6);
        }
        if let Some(bandwidth) = self.memory_bandwidth {
            line += &format!(", nominal {:.0} GB/s", bandwidth / 1e9);
        }
        line
    }
}

impl std::fmt::Display for DriverReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.library {
            Ok(found) => write!(f, "{found}")?,
            Err(why) => return write!(f, "{why}"),
        }
        match &self.devices {
            Some(Ok(devices)) => devices
                .iter()
                .enumerate()
                .try_for_each(|(index, device)| write!(f, "\n  {index}: {}", device.summary())),
            Some(Err(why)) => write!(f, "\n  {why}"),
            None => Ok(()),
        }
    }
}
