//! `hipDeviceGetAttribute`: the numbers of `hipDeviceAttribute_t`, which are the
//! same in every release since HIP 5.

use std::ffi::c_int;

use super::device::Device;
use super::error::{Error, Result};
use super::properties::{ARCH_FLAGS, CLOCK_INSTRUCTION_KHZ, NO_LIMIT};

/// The value of one attribute.
///
/// # Errors
/// [`Error::InvalidValue`] for a number that is no attribute or one whose value
/// is not an int.
pub fn value(device: &Device, attribute: c_int) -> Result<c_int> {
    let chip = device.chip.properties();
    Ok(match attribute {
        // Asynchronous engines, mapped and registered host memory, host atomics.
        2 | 3 | 4 | 15 => 1,
        // Concurrent kernels, copy overlap, unified addressing, memory pools.
        8 | 12 | 85 | 88 => 1,
        5 => chip.clock_khz as c_int,
        22 => 1,
        23 => device.version().0,
        26..=28 | 55 | 56 => chip.max_threads_per_workgroup as c_int,
        25 => device.simds() as c_int * chip.max_waves_per_simd as c_int,
        29 | 58 => NO_LIMIT,
        30 | 31 => c_int::from(u16::MAX),
        19 => chip.l2_bytes as c_int,
        57 => device.threads_per_multiprocessor(),
        59 => chip.memory_bus_bits as c_int,
        60 => chip.memory_clock_khz as c_int,
        61 => device.version().1,
        63 | 10015 => device.multiprocessors(),
        67 => device.pci_bus(),
        71 | 72 => device.registers_per_multiprocessor(),
        74 | 75 => chip.lds_bytes as c_int,
        76 | 10002 => device.lds_per_multiprocessor() as c_int,
        79 | 81 | 82 => 256,
        83 => NO_LIMIT,
        84 => c_int::try_from(device.memory_bytes).unwrap_or(NO_LIMIT),
        87 => chip.wave_size as c_int,
        90 => 1,
        10000 | 10017 => CLOCK_INSTRUCTION_KHZ,
        10001 => ARCH_FLAGS as c_int,
        10003 => device.gcn_arch(),
        // Large BAR, fine-grained memory.
        10011 | 10016 => 1,
        10018 => 1,
        // Strings and addresses do not fit an int.
        21 | 64 | 86 | 10004..=10006 => return Err(Error::InvalidValue),
        // Everything else that HIP defines is a feature that is absent here.
        0..=91 | 10007..=10020 => 0,
        _ => return Err(Error::InvalidValue),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Chip;

    #[test]
    fn attributes_agree_with_the_chip() {
        let device = Device::new(0, Chip::Gfx1151, 1 << 30);
        let chip = device.chip.properties();
        assert_eq!(value(&device, 87), Ok(32));
        assert_eq!(value(&device, 63), Ok(chip.compute_units as c_int / 2));
        assert_eq!(value(&device, 74), Ok(chip.lds_bytes as c_int));
        assert_eq!((value(&device, 23), value(&device, 61)), (Ok(11), Ok(5)));
        assert_eq!(value(&device, 10003), Ok(1151));
    }

    #[test]
    fn what_is_no_attribute_is_an_error() {
        let device = Device::new(0, Chip::Gfx1100, 1 << 30);
        for attribute in [-1, 92, 9999, 10004, 19999, c_int::MAX] {
            assert_eq!(value(&device, attribute), Err(Error::InvalidValue), "{attribute}");
        }
    }
}
