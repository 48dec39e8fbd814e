//! The device under test.

use std::sync::OnceLock;

use gptoss::device_name::DeviceName;
use gptoss::gpu::{self, Device, Opened, Stream};

/// Two devices, so that copies between devices are tested where there is no GPU.
const DEFAULT: &str = "emu:gfx1151x2";

/// Every device of `GPTOSS_TEST_DEVICE`, opened once.
///
/// # Panics
///
/// When there is none: a test that silently ran nothing would be green.
pub fn devices() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let name = std::env::var("GPTOSS_TEST_DEVICE").unwrap_or_else(|_| DEFAULT.to_owned());
        let name: DeviceName = name.parse().unwrap_or_else(|e| panic!("GPTOSS_TEST_DEVICE: {e}"));
        match gpu::open(&name) {
            Ok(Opened::Gpus { devices, .. }) => devices,
            Ok(Opened::Cpu { why }) => panic!("GPTOSS_TEST_DEVICE: {name} is no GPU: {why}"),
            Err(error) => panic!("GPTOSS_TEST_DEVICE: {error}"),
        }
    })
}

/// The first device.
pub fn device() -> &'static Device {
    &devices()[0]
}

/// A stream of the first device.
pub fn stream() -> Stream {
    Stream::new(device()).expect("a stream")
}
