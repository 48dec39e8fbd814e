//! Checked launches of the kernels in `shared::kernels`.
//!
//! [`Kernels`] holds every kernel of the table, loaded on one device. Each kernel has a function
//! here (one file per family under `launch/`) that takes views of device memory and sizes, and
//! refuses by name what the kernel does not handle, before the driver sees anything. What such a
//! function accepts stays inside its buffers, whatever their content; kernels whose safety rests on
//! content (indices in device memory) have an `unsafe` function that says so.

pub mod attention;
mod basics;
pub mod linear;
pub mod moe;
pub mod rows;

use half::bf16;
use shared::block::Family;
use shared::chips::Chip;
use shared::kernels;
use shared::launch::{self, DevPtr, KernelArgs, Scalar, Type};

use super::buffer::DeviceSlice;
use super::device::Device;
use super::error::GpuError;
use super::module::{Kernel, LaunchConfig, Module};
use super::stream::Stream;

/// Bytes of the longest argument buffer.
const MAX_PACKED: usize = 384;

/// An argument buffer, aligned for its widest member.
#[repr(align(16))]
struct Packed([u8; MAX_PACKED]);

/// Every kernel of the table, loaded on one device.
pub struct Kernels {
    device: Device,
    family: Family,
    /// In the order of the table.
    loaded: Box<[Kernel]>,
}

impl Kernels {
    /// Loads a code object or PTX and finds every kernel of the table in it; `name` is for
    /// messages.
    pub fn load(device: &Device, name: &str, image: &[u8]) -> Result<Kernels, GpuError> {
        let chip = &device.properties().arch;
        let family = Chip::find(chip).map(|chip| chip.family);
        let family =
            family.ok_or_else(|| GpuError::Refused(format!("{chip}: no kernels for this chip")))?;
        let module = Module::load(device, name, image)?;
        let loaded = kernels::all().map(|kernel| module.kernel(kernel.name));
        let loaded = loaded.collect::<Result<_, GpuError>>()?;
        Ok(Kernels { device: device.clone(), family, loaded })
    }

    /// Where they run.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The chip's family, which tile shapes and workgroup memory depend on.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Lanes in a wave here, which workgroup sizes depend on.
    pub fn wave(&self) -> u32 {
        self.family.wave()
    }

    /// A kernel of the table, for its resources and occupancy.
    pub fn kernel(&self, kernel: &launch::Kernel) -> Result<&Kernel, GpuError> {
        kernels::index(kernel)
            .map(|index| &self.loaded[index])
            .ok_or_else(|| GpuError::Refused(format!("{}: not a kernel of the table", kernel.name)))
    }

    /// Queues a launch with the table's workgroup size and workgroup memory, after checking that
    /// every pointer is set and aligned for its element.
    ///
    /// # Safety
    ///
    /// What the kernel's own documentation promises about its arguments and grid holds.
    pub unsafe fn launch<A: KernelArgs>(
        &self,
        stream: &Stream,
        grid: [u32; 3],
        args: &A,
    ) -> Result<(), GpuError> {
        // SAFETY: the caller's promise.
        unsafe { self.launch_optional(stream, grid, args, &[]) }
    }

    /// As [`Kernels::launch`], with the names of the pointers that may be null.
    ///
    /// # Safety
    ///
    /// As for [`Kernels::launch`].
    pub unsafe fn launch_optional<A: KernelArgs>(
        &self,
        stream: &Stream,
        grid: [u32; 3],
        args: &A,
        optional: &[&str],
    ) -> Result<(), GpuError> {
        // Its place is known at compile time, and so is a kernel that is not of the table.
        let index = const { kernels::index(A::KERNEL).expect("a kernel of the table") };
        let kernel = &self.loaded[index];
        let bytes = A::KERNEL.args_bytes();
        let mut packed = Packed([0; MAX_PACKED]);
        let Some(packed) = packed.0.get_mut(..bytes) else {
            return Err(kernel.refuse(format!("{bytes} bytes of arguments: at most {MAX_PACKED}")));
        };
        args.put(packed);
        check_pointers(A::KERNEL, packed, optional)?;
        let threads = (A::KERNEL.threads)(self.family);
        let config = LaunchConfig {
            grid,
            workgroup: [threads, 1, 1],
            lds_bytes: args.lds_bytes(self.family),
            // `tools/device-build` sees to it that every kernel of the table waits.
            may_overlap: true,
        };
        let offsets = A::KERNEL.args.iter().map(|arg| arg.offset);
        // SAFETY: packed as the table says, which the code object was checked against when it was
        // built; the rest is the caller's promise.
        unsafe { kernel.launch(stream, config, packed, offsets) }
    }
}

/// Every pointer is set, unless it may be absent, and aligned for its element.
fn check_pointers(
    kernel: &launch::Kernel,
    packed: &[u8],
    optional: &[&str],
) -> Result<(), GpuError> {
    for arg in kernel.args {
        let (Type::Const(element) | Type::Mut(element)) = arg.ty else { continue };
        let mut address = [0; 8];
        address.copy_from_slice(&packed[arg.offset..arg.offset + 8]);
        let address = u64::from_le_bytes(address);
        let why = if address == 0 && !optional.contains(&arg.name) {
            "null".to_owned()
        } else if !address.is_multiple_of(element.bytes() as u64) {
            format!("{address:#x}, not aligned to its {}-byte elements", element.bytes())
        } else {
            continue;
        };
        return Err(GpuError::Refused(format!("{}: {} is {why}", kernel.name, arg.name)));
    }
    Ok(())
}

/// An element that kernels take, and what the table of kernels calls it.
pub trait Argument {
    /// The scalar in the table.
    type Scalar: Scalar;
}

macro_rules! arguments {
    ($($ty:ty => $scalar:ty),*) => {$(
        impl Argument for $ty {
            type Scalar = $scalar;
        }
    )*};
}
// The table has no type of two bytes but their bits.
arguments!(u8 => u8, u32 => u32, i32 => i32, u64 => u64, f32 => f32, bf16 => u16);

impl<T: Argument> DeviceSlice<'_, T> {
    /// Its address as a kernel argument.
    pub fn ptr(self) -> DevPtr<T::Scalar> {
        DevPtr::new(self.address())
    }
}

/// The checks of one launch; every refusal starts with the kernel's name.
pub(crate) struct Check<'a> {
    kernel: &'static str,
    device: &'a Device,
}

impl<'a> Check<'a> {
    /// Checks for a launch of `kernel` on `stream`.
    pub(crate) fn new(kernel: &launch::Kernel, stream: &'a Stream) -> Check<'a> {
        Check { kernel: kernel.name, device: stream.device() }
    }

    /// The refusal.
    pub(crate) fn refuse(&self, why: impl std::fmt::Display) -> GpuError {
        GpuError::Refused(format!("{}: {why}", self.kernel))
    }

    /// A size that kernels take as u32.
    pub(crate) fn size(&self, name: &str, value: usize) -> Result<u32, GpuError> {
        u32::try_from(value)
            .map_err(|_| self.refuse(format!("{name} = {value} is above {}", u32::MAX)))
    }

    /// A size that may not be zero.
    pub(crate) fn positive(&self, name: &str, value: usize) -> Result<u32, GpuError> {
        if value == 0 {
            return Err(self.refuse(format!("{name} = 0, expected at least 1")));
        }
        self.size(name, value)
    }

    /// A length, of any size, that a block divides.
    pub(crate) fn whole(&self, name: &str, value: usize, of: usize) -> Result<(), GpuError> {
        if value == 0 || !value.is_multiple_of(of) {
            return Err(self.refuse(format!("{name} = {value}, expected a multiple of {of}")));
        }
        Ok(())
    }

    /// A size that a block divides.
    pub(crate) fn multiple(&self, name: &str, value: usize, of: usize) -> Result<u32, GpuError> {
        if !value.is_multiple_of(of) {
            return Err(self.refuse(format!("{name} = {value} is not a multiple of {of}")));
        }
        self.positive(name, value)
    }

    /// A view of `shape` elements on the launch's device.
    pub(crate) fn view<T: Argument>(
        &self,
        name: &str,
        view: DeviceSlice<'_, T>,
        shape: &[usize],
    ) -> Result<DevPtr<T::Scalar>, GpuError> {
        let wanted = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
        if wanted != Some(view.len()) {
            return Err(
                self.refuse(format!("{name} holds {} elements, expected {shape:?}", view.len()))
            );
        }
        if view.device() != self.device {
            return Err(self.refuse(format!(
                "{name} is on {}, launched on {}",
                view.device(),
                self.device
            )));
        }
        Ok(view.ptr())
    }

    /// As [`Check::view`], for a kernel that reads `bytes` at a time.
    pub(crate) fn aligned<T: Argument>(
        &self,
        name: &str,
        view: DeviceSlice<'_, T>,
        shape: &[usize],
        bytes: u64,
    ) -> Result<DevPtr<T::Scalar>, GpuError> {
        let ptr = self.view(name, view, shape)?;
        if !ptr.address().is_multiple_of(bytes) {
            return Err(self.refuse(format!(
                "{name} is at {:#x}, not aligned to {bytes} bytes",
                ptr.address()
            )));
        }
        Ok(ptr)
    }

    /// Refuses an output that overlaps an input.
    pub(crate) fn apart<T, U>(
        &self,
        (out_name, out): (&str, DeviceSlice<'_, T>),
        (in_name, input): (&str, DeviceSlice<'_, U>),
    ) -> Result<(), GpuError> {
        let end = |at: u64, bytes: usize| at + bytes as u64;
        let apart = end(out.address(), out.bytes()) <= input.address()
            || end(input.address(), input.bytes()) <= out.address();
        if apart { Ok(()) } else { Err(self.refuse(format!("{out_name} overlaps {in_name}"))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::launch::{Arg, Element};

    const ARGS: [Arg; 2] =
        launch::layout([("x", Type::Const(Element::F32)), ("bias", Type::Mut(Element::U16))]);
    const KERNEL: launch::Kernel = launch::Kernel { name: "probe", args: &ARGS, threads: |_| 64 };

    fn refusal(x: u64, bias: u64, optional: &[&str]) -> Option<String> {
        let packed = [x.to_le_bytes(), bias.to_le_bytes()].concat();
        check_pointers(&KERNEL, &packed, optional).err().map(|error| error.to_string())
    }

    #[test]
    fn pointers_are_set_and_aligned() {
        assert_eq!(refusal(0x100, 0x102, &[]), None);
        assert_eq!(refusal(0, 0x102, &[]).as_deref(), Some("probe: x is null"));
        assert_eq!(refusal(0x100, 0, &["bias"]), None);
        assert_eq!(
            refusal(0x102, 0x102, &[]).as_deref(),
            Some("probe: x is 0x102, not aligned to its 4-byte elements")
        );
    }
}
