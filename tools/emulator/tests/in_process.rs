//! The runtime inside the program's own process, without a shared library.
//!
//! One test, since the devices of a process are configured once.

use std::ffi::{c_char, c_int};

#[test]
fn devices_are_configured_before_their_first_use() {
    let none = emulator::configure("gfx1151", 0).unwrap_err();
    assert_eq!(none.to_string(), "0 devices: expected 1 to 64");
    let unknown = emulator::configure("gfx906", 1).unwrap_err();
    assert!(unknown.to_string().contains("`gfx906`"), "{unknown}");

    emulator::configure("gfx1151", 3).unwrap();
    emulator::configure("gfx1100", 2).unwrap();

    type Count = unsafe extern "C" fn(*mut c_int) -> c_int;
    let count = emulator::symbol("hipGetDeviceCount").unwrap();
    // SAFETY: this is the type of the function in `hip_runtime_api.h`.
    let count: Count = unsafe { std::mem::transmute(count) };
    let mut devices = -1;
    // SAFETY: the pointer is to a live int.
    assert_eq!(unsafe { count(&mut devices) }, 0);
    assert_eq!(devices, 2);

    type Attribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
    let attribute = emulator::symbol("hipDeviceGetAttribute").unwrap();
    // SAFETY: this is the type of the function in `hip_runtime_api.h`.
    let attribute: Attribute = unsafe { std::mem::transmute(attribute) };
    let mut major = -1;
    // SAFETY: the pointer is to a live int.
    assert_eq!(unsafe { attribute(&mut major, 23, 1) }, 0);
    assert_eq!(major, 11);

    assert_eq!(emulator::configure("gfx1100", 2), Ok(()), "as it is");
    assert_eq!(emulator::configure("gfx1100", 4), Err(emulator::ConfigError::InUse));
    assert_eq!(emulator::last_fault(), None);
    assert_eq!(emulator::take_stats(), []);

    type Proc = unsafe extern "C" fn(*const c_char, *mut usize, c_int, u64, *mut c_int) -> c_int;
    let proc = emulator::symbol("hipGetProcAddress").unwrap();
    // SAFETY: this is the type of the function in HIP 6's `hip_runtime_api.h`.
    let proc: Proc = unsafe { std::mem::transmute(proc) };
    let (mut found, mut status) = (0, -1);
    // SAFETY: a C string and pointers to live values.
    let known = unsafe { proc(c"hipMalloc".as_ptr(), &mut found, 0, 0, &mut status) };
    assert_eq!((known, status), (0, 0));
    assert_eq!(Some(found), emulator::symbol("hipMalloc").map(|address| address as usize));
    // SAFETY: as above.
    let unknown = unsafe { proc(c"hipMallocs".as_ptr(), &mut found, 0, 0, &mut status) };
    assert_eq!((unknown, found, status), (500, 0, 1));
}
