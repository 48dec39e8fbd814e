//! The device under test.

use std::path::PathBuf;
use std::sync::OnceLock;

use bytemuck::Pod;
use emulator::Checkers;
use gptoss::device_name::DeviceName;
use gptoss::gpu::{self, Device, DeviceBuffer, DeviceSlice, Kernels, Opened, Stream};
use gptoss::kernels::code_object;
use half::bf16;

/// Two devices, so that copies between devices are tested where there is no GPU.
const DEFAULT: &str = "emu:gfx1151x2";

/// Every device of `GPTOSS_TEST_DEVICE`, opened once; emulated ones with every checker on.
///
/// # Panics
///
/// When there is none: a test that silently ran nothing would be green.
pub fn devices() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let name = std::env::var("GPTOSS_TEST_DEVICE").unwrap_or_else(|_| DEFAULT.to_owned());
        let name: DeviceName = name.parse().unwrap_or_else(|e| panic!("GPTOSS_TEST_DEVICE: {e}"));
        if matches!(name, DeviceName::Emulator { .. }) {
            emulator::default_checkers(Checkers::ALL).expect("nothing has used the emulator yet");
        }
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

/// Every kernel on the first device: from `GPTOSS_KERNELS`, a directory with `gfx1151.co` or
/// `sm_90.ptx`, else built here.
pub fn kernels() -> &'static Kernels {
    static KERNELS: OnceLock<Kernels> = OnceLock::new();
    KERNELS.get_or_init(|| {
        let arch = &device().properties().arch;
        let image = code_object(arch, Some(&kernels_folder())).unwrap_or_else(|e| panic!("{e}"));
        Kernels::load(device(), arch, &image).unwrap_or_else(|e| panic!("{e}"))
    })
}

/// The folder [`kernels`] come from.
pub fn kernels_folder() -> PathBuf {
    match std::env::var_os("GPTOSS_KERNELS") {
        Some(folder) => PathBuf::from(folder),
        None => built(&device().properties().arch),
    }
}

/// The folder with the kernels of `arch`, brought up to date.
fn built(arch: &str) -> PathBuf {
    let folder = device_build::default_out();
    let chip = device_build::chip(arch).unwrap_or_else(|e| panic!("{e}"));
    device_build::build(&[chip], &folder).unwrap_or_else(|e| panic!("{e}"));
    folder
}

/// Whether long sweeps run: `GPTOSS_TEST_FULL` is set.
pub fn full() -> bool {
    std::env::var_os("GPTOSS_TEST_FULL").is_some()
}

/// Bits of bf16, as the oracles have them, where a kernel takes bf16.
pub fn as_bf16(bits: DeviceSlice<'_, u16>) -> DeviceSlice<'_, bf16> {
    bits.cast().expect("the same size")
}

/// Elements after an output that a kernel must leave alone.
const GUARD: usize = 64;

/// An output, poisoned, with a guard after it: 0xff bytes, so that a missed store of a float is a
/// NaN.
pub struct Output<T> {
    buffer: DeviceBuffer<T>,
    len: usize,
}

impl<T: Pod + PartialEq + std::fmt::Debug> Output<T> {
    /// `len` poisoned elements.
    pub fn new(stream: &Stream, len: usize) -> Output<T> {
        let buffer = DeviceBuffer::new(stream.device(), len + GUARD).expect("memory");
        stream.fill(buffer.view(), 0xff).expect("poison");
        Output { buffer, len }
    }

    /// What the kernel writes.
    pub fn view(&self) -> DeviceSlice<'_, T> {
        self.buffer.slice(..self.len)
    }

    /// What it wrote, once the guard has been found untouched.
    pub fn read(&self, stream: &Stream) -> Vec<T> {
        let mut values = stream.read(self.buffer.view()).unwrap_or_else(|e| panic!("{e}"));
        let guard = bytemuck::cast_slice::<T, u8>(&values[self.len..]);
        assert!(guard.iter().all(|&byte| byte == 0xff), "written past the end of an output");
        values.truncate(self.len);
        values
    }
}
