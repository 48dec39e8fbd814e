//! From a device name to devices.

use super::device::Device;
use super::driver::{Driver, Virtual};
use super::error::GpuError;
use crate::device_name::{DeviceName, Which};

/// What a device name came to.
#[derive(Debug)]
pub enum Opened {
    /// GPUs, at least one, of one driver.
    Gpus {
        /// In the order of the name.
        devices: Vec<Device>,
        /// Why these, for the user.
        why: String,
    },
    /// The CPU engine.
    Cpu {
        /// Why, for the user.
        why: String,
    },
}

/// Opens the devices of `name`. Only [`DeviceName::Auto`] chooses, and says why.
pub fn open(name: &DeviceName) -> Result<Opened, GpuError> {
    let asked = || format!("--device {name}");
    match name {
        DeviceName::Hip(which) => {
            Ok(Opened::Gpus { devices: select(Driver::hip()?, which)?, why: asked() })
        }
        DeviceName::Cuda(which) => {
            Ok(Opened::Gpus { devices: select(Driver::cuda()?, which)?, why: asked() })
        }
        DeviceName::Emulator { chip, count } => {
            let driver = Driver::emulator(&Virtual { chip: chip.clone(), count: *count })?;
            let these = Which::These((0..*count).collect());
            Ok(Opened::Gpus { devices: select(driver, &these)?, why: asked() })
        }
        DeviceName::Cpu => Ok(Opened::Cpu { why: asked() }),
        DeviceName::Auto => Ok(choose(
            || select(Driver::hip()?, &Which::All),
            || select(Driver::cuda()?, &Which::All),
        )),
    }
}

/// AMD first, then NVIDIA, then the CPU, with the reason for each step down.
fn choose(
    hip: impl FnOnce() -> Result<Vec<Device>, GpuError>,
    cuda: impl FnOnce() -> Result<Vec<Device>, GpuError>,
) -> Opened {
    let no_hip = match hip() {
        Ok(devices) => {
            let why = format!("auto: {} AMD GPU(s) through HIP", devices.len());
            return Opened::Gpus { devices, why };
        }
        Err(error) => error,
    };
    match cuda() {
        Ok(devices) => {
            let why = format!("auto: {} NVIDIA GPU(s); no AMD GPU: {no_hip}", devices.len());
            Opened::Gpus { devices, why }
        }
        Err(no_cuda) => Opened::Cpu { why: format!("auto: no GPU; {no_hip}; {no_cuda}") },
    }
}

fn select(driver: &'static Driver, which: &Which) -> Result<Vec<Device>, GpuError> {
    let count = driver.device_count()?;
    let indices = match which {
        Which::All => (0..count).collect(),
        Which::These(indices) => indices.clone(),
    };
    indices.into_iter().map(|index| Device::open(driver, index)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absent(api: &'static str) -> Result<Vec<Device>, GpuError> {
        Err(GpuError::NoLibrary { api, tried: format!("lib{api}.so"), broken: String::new() })
    }

    #[test]
    fn auto_says_why_it_fell_back_to_the_cpu() {
        let Opened::Cpu { why } = choose(|| absent("HIP"), || absent("CUDA")) else {
            panic!("no driver, yet a GPU was chosen");
        };
        assert!(why.contains("libHIP.so") && why.contains("libCUDA.so"), "{why}");
    }

    /// With a driver installed and no GPU, as in CI and on most laptops, the message must tell
    /// that apart from a missing driver.
    #[test]
    fn a_real_hip_without_a_device_is_told_apart_from_no_hip() {
        match Driver::hip().and_then(|driver| driver.device_count()) {
            Ok(count) => assert!(count > 0),
            Err(error @ GpuError::NoDevice { .. }) => {
                let text = error.to_string();
                assert!(text.contains("libamdhip64.so") && text.contains("no device"), "{text}");
            }
            Err(error @ GpuError::NoLibrary { .. }) => {
                let text = error.to_string();
                assert!(text.contains("libamdhip64.so.7") && text.contains("not installed"));
            }
            Err(error) => panic!("{error}"),
        }
    }
}
