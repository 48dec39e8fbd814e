//! The two ways in which a program hands over a kernel's arguments.

use std::ffi::c_void;

use super::error::{Error, Result};
use crate::Kernel;

/// `HIP_LAUNCH_PARAM_BUFFER_POINTER`, `_SIZE` and `_END`.
const BUFFER_POINTER: usize = 1;
const BUFFER_SIZE: usize = 2;
const END: usize = 3;

/// Bytes of the explicit arguments, which are the first of the kernarg segment.
fn explicit_bytes(kernel: &Kernel) -> usize {
    kernel.arguments.iter().map(|argument| argument.offset + argument.size).max().unwrap_or(0)
}

/// The explicit arguments of `kernel` as its kernarg segment holds them.
///
/// # Errors
/// [`Error::InvalidValue`] if arguments are missing, given in both ways, or the
/// buffer is shorter than they are.
///
/// # Safety
/// `parameters` is null or has a pointer to every argument, each null or valid
/// for reads of the argument's size. `extra` is null or a list that ends with
/// `HIP_LAUNCH_PARAM_END` and whose buffer is readable.
pub unsafe fn pack(
    kernel: &Kernel,
    parameters: *const *const c_void,
    extra: *const *const c_void,
) -> Result<Box<[u8]>> {
    let bytes = explicit_bytes(kernel);
    match (parameters.is_null(), extra.is_null()) {
        (true, true) if bytes == 0 => Ok(Box::default()),
        // SAFETY: the caller's promise about `parameters`.
        (false, true) => unsafe { gather(kernel, bytes, parameters) },
        // SAFETY: the caller's promise about `extra`.
        (true, false) => unsafe { from_buffer(bytes, extra) },
        _ => Err(Error::InvalidValue),
    }
}

/// # Safety
/// As [`pack`] for `parameters`, which is not null.
unsafe fn gather(
    kernel: &Kernel,
    bytes: usize,
    parameters: *const *const c_void,
) -> Result<Box<[u8]>> {
    let mut packed = vec![0; bytes];
    for (index, argument) in kernel.arguments.iter().enumerate() {
        // SAFETY: the caller's promise: there is a pointer for every argument.
        let value = unsafe { *parameters.add(index) }.cast::<u8>();
        if value.is_null() {
            return Err(Error::InvalidValue);
        }
        // SAFETY: the caller's promise about the argument, not null.
        let value = unsafe { std::slice::from_raw_parts(value, argument.size) };
        packed[argument.offset..argument.offset + argument.size].copy_from_slice(value);
    }
    Ok(packed.into())
}

/// # Safety
/// As [`pack`] for `extra`, which is not null.
unsafe fn from_buffer(bytes: usize, mut extra: *const *const c_void) -> Result<Box<[u8]>> {
    let (mut buffer, mut len): (*const u8, Option<usize>) = (std::ptr::null(), None);
    loop {
        // SAFETY: the caller's promise: the list goes on until its end marker.
        let key = unsafe { *extra } as usize;
        if key == END {
            break;
        }
        // SAFETY: as above, a key is followed by its value.
        let value = unsafe { *extra.add(1) };
        match key {
            BUFFER_POINTER => buffer = value.cast(),
            // SAFETY: the caller's promise: the size is behind a pointer.
            BUFFER_SIZE if !value.is_null() => len = Some(unsafe { *value.cast::<usize>() }),
            _ => return Err(Error::InvalidValue),
        }
        // SAFETY: as above, the list goes on.
        extra = unsafe { extra.add(2) };
    }
    match len {
        Some(len) if len >= bytes && (!buffer.is_null() || bytes == 0) => {
            if bytes == 0 {
                return Ok(Box::default());
            }
            // SAFETY: the caller's promise: the buffer has `len` bytes.
            Ok(unsafe { std::slice::from_raw_parts(buffer, bytes) }.into())
        }
        _ => Err(Error::InvalidValue),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::Argument;

    fn kernel() -> Kernel {
        let argument = |offset, size| Argument { offset, size, kind: String::from("by_value") };
        Kernel {
            name: String::from("k"),
            arguments: vec![argument(0, 8), argument(8, 2), argument(12, 4)],
            kernarg_bytes: 272,
            lds_bytes: 0,
            scratch_bytes: 0,
            vgprs: 8,
            sgprs: 8,
            wave_size: 32,
            max_threads: 1024,
        }
    }

    #[test]
    fn parameters_land_at_their_offsets() {
        let (a, b, c) = (0x1122_3344_5566_7788u64, 0x99aau16, 0xbbcc_ddeeu32);
        let pointers: [*const c_void; 3] =
            [(&raw const a).cast(), (&raw const b).cast(), (&raw const c).cast()];
        // SAFETY: three valid pointers for three arguments.
        let packed = unsafe { pack(&kernel(), pointers.as_ptr(), std::ptr::null()) }.unwrap();
        let mut expected = a.to_le_bytes().to_vec();
        expected.extend(b.to_le_bytes());
        expected.extend([0, 0]);
        expected.extend(c.to_le_bytes());
        assert_eq!(*packed, *expected);
    }

    #[test]
    fn a_buffer_is_taken_up_to_the_last_argument() {
        let buffer: Vec<u8> = (0..32).collect();
        for (len, expected) in
            [(32usize, Ok(&buffer[..16])), (16, Ok(&buffer[..16])), (15, Err(()))]
        {
            let extra = [
                BUFFER_POINTER as *const c_void,
                buffer.as_ptr().cast(),
                BUFFER_SIZE as *const c_void,
                (&raw const len).cast(),
                END as *const c_void,
            ];
            // SAFETY: a well-formed list with a valid buffer.
            let packed = unsafe { pack(&kernel(), std::ptr::null(), extra.as_ptr()) };
            assert_eq!(packed.as_deref().map_err(|_| ()), expected, "{len} bytes");
        }
    }

    #[test]
    fn missing_or_double_arguments_are_refused() {
        let null: *const c_void = std::ptr::null();
        let nulls = [null; 3];
        // SAFETY: null pointers are found before they are read.
        unsafe {
            assert!(pack(&kernel(), std::ptr::null(), std::ptr::null()).is_err());
            assert!(pack(&kernel(), nulls.as_ptr(), std::ptr::null()).is_err());
            assert!(pack(&kernel(), nulls.as_ptr(), nulls.as_ptr()).is_err());
            assert!(pack(&kernel(), std::ptr::null(), nulls.as_ptr()).is_err());
        }
    }
}
