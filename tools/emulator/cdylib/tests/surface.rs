//! Devices, memory, handles and errors of the shared library.

mod common;

use std::ffi::CStr;

use common::*;

const BAD: Handle = 0x1234 as Handle;
const INVALID_DEVICE: i32 = 101;
const INVALID_HANDLE: i32 = 400;

#[test]
fn the_library_exports_everything_that_the_table_lists() {
    let missing: Vec<_> =
        emulator::symbols().into_iter().filter(|name| !hip().exports(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(emulator::symbol("hipModuleLaunchKernel").is_some());
    assert!(emulator::symbol("hipNoSuchFunction").is_none());
}

#[test]
fn devices_are_counted_and_current_per_thread() {
    let hip = hip_on(3);
    let mut count = 0;
    hip.hipGetDeviceCount(&mut count).unwrap();
    assert_eq!(count as usize, DEVICES);
    let in_a_new_thread = std::thread::spawn(|| {
        let mut index = -1;
        common::hip().hipGetDevice(&mut index).unwrap();
        index
    });
    assert_eq!(in_a_new_thread.join().unwrap(), 0);
    let mut index = -1;
    hip.hipGetDevice(&mut index).unwrap();
    assert_eq!(index, 3);
    assert_eq!(hip.hipSetDevice(DEVICES as i32), Err(INVALID_DEVICE));
    assert_eq!(hip.hipSetDevice(-1), Err(INVALID_DEVICE));
    assert_eq!(hip.hipInit(1), Err(INVALID_VALUE));
}

#[test]
fn both_layouts_of_the_properties_say_the_same() {
    let (mut five, mut six) = (vec![0xffu8; 792 + 8], vec![0xffu8; 1472 + 8]);
    hip().hipGetDeviceProperties(five.as_mut_ptr(), 0).unwrap();
    hip().hipGetDevicePropertiesR0600(six.as_mut_ptr(), 0).unwrap();
    let text = |bytes: &[u8]| CStr::from_bytes_until_nul(bytes).unwrap().to_owned();
    assert_eq!(text(&five[396..]).to_str(), Ok(CHIP));
    assert_eq!(text(&six[1160..]).to_str(), Ok(CHIP));
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(word(&five, 256), MEMORY as u64);
    assert_eq!(word(&six, 288), MEMORY as u64);
    let int = |bytes: &[u8], at: usize| i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((int(&five, 276), int(&six, 308)), (32, 32), "warpSize");
    assert_eq!(int(&five, 336), int(&six, 388), "multiProcessorCount");
    assert_eq!((&five[792..], &six[1472..]), (&[0xff; 8][..], &[0xff; 8][..]), "written past");
    assert_eq!(hip().hipGetDeviceProperties(std::ptr::null_mut(), 0), Err(INVALID_VALUE));
}

#[test]
fn bytes_survive_every_kind_of_copy() {
    let hip = hip_on(1);
    let values: Vec<u32> = (0..1000).map(|i| i * 7 + 1).collect();
    let first = hip.upload(&values);
    let second = hip.malloc(4000);
    hip.hipMemcpy(second, first, 4000, DEVICE_TO_DEVICE).unwrap();
    assert_eq!(hip.download(second, 1000), values);
    let mut pinned = 0;
    hip.hipHostMalloc(&mut pinned, 4000, 0).unwrap();
    hip.hipMemcpy(pinned, second, 4000, DEFAULT).unwrap();
    hip.hipMemcpy(first, pinned + 400, 400, DEFAULT).unwrap();
    assert_eq!(hip.download(first, 100), values[100..200]);
    hip.hipHostFree(pinned).unwrap();
    hip.hipMemcpy2D(second, 40, first, 400, 40, 5, DEVICE_TO_DEVICE).unwrap();
    let rows: Vec<u32> = (0..5).flat_map(|row| hip.download(first + row * 400, 10)).collect();
    assert_eq!(hip.download(second, 50), rows);
}

#[test]
fn a_copy_must_stay_inside_its_allocations() {
    let hip = hip_on(1);
    let device = hip.malloc(100);
    let mut host = [0u8; 101];
    let host = host.as_mut_ptr() as u64;
    for (to, from, bytes, kind) in [
        (device, host, 101, HOST_TO_DEVICE),
        (device + 50, host, 51, HOST_TO_DEVICE),
        (host, device, 101, DEVICE_TO_HOST),
        (host, host, 8, HOST_TO_DEVICE),
        (host, host, 8, DEVICE_TO_HOST),
        (0, host, 8, HOST_TO_DEVICE),
        (device, 0, 8, HOST_TO_DEVICE),
        (device, host, usize::MAX, DEFAULT),
    ] {
        assert_eq!(hip.hipMemcpy(to, from, bytes, kind), Err(INVALID_VALUE), "{bytes} {kind}");
    }
    assert_eq!(hip.hipMemcpy(device, host, 8, 5), Err(21), "no such direction");
    assert_eq!(hip.hipMemset(device, 0, 101), Err(INVALID_VALUE));
    assert_eq!(hip.hipMemset(host, 0, 1), Err(INVALID_VALUE));
    assert_eq!(hip.hipMemsetD32(device + 2, 0, 1), Err(INVALID_VALUE));
    assert_eq!(hip.hipMemcpy2D(device, 8, host, 4, 8, 2, HOST_TO_DEVICE), Err(12));
    hip.hipMemcpy(device, host, 0, HOST_TO_DEVICE).unwrap();
}

#[test]
fn memory_is_counted_and_runs_out() {
    let hip = hip_on(2);
    let info = || {
        let (mut free, mut total) = (0, 0);
        hip.hipMemGetInfo(&mut free, &mut total).unwrap();
        (free, total)
    };
    assert_eq!(info(), (MEMORY, MEMORY));
    let half = hip.malloc(MEMORY / 2);
    assert_eq!(info(), (MEMORY / 2, MEMORY));
    let mut pointer = 0;
    assert_eq!(hip.hipMalloc(&mut pointer, MEMORY / 2 + 1), Err(OUT_OF_MEMORY));
    assert_eq!(hip.hipMalloc(&mut pointer, usize::MAX), Err(OUT_OF_MEMORY));
    let rest = hip.malloc(MEMORY / 2);
    assert_eq!(info(), (0, MEMORY));
    hip.hipFree(half).unwrap();
    hip.hipFree(rest).unwrap();
    assert_eq!(info(), (MEMORY, MEMORY));
    hip.hipMalloc(&mut pointer, 0).unwrap();
    assert_eq!(pointer, 0, "zero bytes");
    hip.hipFree(0).unwrap();
}

#[test]
fn only_the_start_of_a_live_allocation_can_be_freed() {
    let hip = hip_on(4);
    let pointer = hip.malloc(64);
    assert_eq!(hip.hipFree(pointer + 8), Err(INVALID_VALUE));
    assert_eq!(hip.hipHostFree(pointer), Err(INVALID_VALUE));
    hip.hipFree(pointer).unwrap();
    assert_eq!(hip.hipFree(pointer), Err(INVALID_VALUE));
    assert_eq!(hip.hipFreeAsync(pointer, NULL), Err(INVALID_VALUE));
}

#[test]
fn registered_memory_is_known_until_it_is_unregistered() {
    let hip = hip_on(4);
    let mut host = vec![5u32; 256];
    let pointer = host.as_mut_ptr() as u64;
    let mut attributes = [0; 32];
    assert_eq!(hip.hipPointerGetAttributes(&mut attributes, pointer), Err(INVALID_VALUE));
    hip.hipHostRegister(pointer, 1024, 0).unwrap();
    assert_eq!(hip.hipHostRegister(pointer + 8, 8, 0), Err(712));
    hip.hipPointerGetAttributes(&mut attributes, pointer + 4).unwrap();
    assert_eq!(attributes[..4], [0; 4], "host memory");
    hip.hipMemsetD32(pointer, 9, 256).unwrap();
    assert_eq!(hip.hipHostFree(pointer), Err(INVALID_VALUE));
    hip.hipHostUnregister(pointer).unwrap();
    assert_eq!(hip.hipHostUnregister(pointer), Err(713));
    assert_eq!(host, [9; 256]);
}

#[test]
fn a_handle_that_is_none_is_refused_everywhere() {
    let hip = hip_on(4);
    let mut out = NULL;
    let mut number = 0;
    for (what, result) in [
        ("stream", hip.hipStreamSynchronize(BAD)),
        ("stream", hip.hipStreamDestroy(BAD)),
        ("null stream destroyed", hip.hipStreamDestroy(NULL)),
        ("event", hip.hipEventRecord(BAD, NULL)),
        ("event", hip.hipEventSynchronize(NULL)),
        ("event", hip.hipStreamWaitEvent(NULL, BAD, 0)),
        ("graph", hip.hipGraphInstantiate(&mut out, BAD, &mut out, std::ptr::null_mut(), 0)),
        ("executable", hip.hipGraphLaunch(BAD, NULL)),
        ("module", hip.hipModuleUnload(BAD)),
        ("module", hip.function(BAD, "kernel").map(drop)),
        ("function", hip.hipFuncGetAttribute(&mut number, 0, BAD)),
        ("stream as event", hip.hipEventQuery(hip.stream())),
    ] {
        assert_eq!(result, Err(INVALID_HANDLE), "{what}");
    }
    let stream = hip.stream();
    hip.hipStreamDestroy(stream).unwrap();
    assert_eq!(hip.hipStreamSynchronize(stream), Err(INVALID_HANDLE), "stale");
    assert_eq!(hip.hipModuleLoadData(&mut out, b"not an image".as_ptr()), Err(200));
    assert_eq!(hip.hipModuleLoad(&mut out, c"/no/such/file".as_ptr()), Err(301));
    assert_eq!(hip.hipPeekAtLastError(), Err(301));
    assert_eq!(hip.hipGetLastError(), Err(301));
    assert_eq!(hip.hipGetLastError(), Ok(()));
}

#[test]
fn peer_access_is_a_switch() {
    let hip = hip_on(5);
    let mut can = -1;
    hip.hipDeviceCanAccessPeer(&mut can, 5, 6).unwrap();
    assert_eq!(can, 1);
    hip.hipDeviceCanAccessPeer(&mut can, 5, 5).unwrap();
    assert_eq!(can, 0);
    assert_eq!(hip.hipDeviceDisablePeerAccess(6), Err(705));
    hip.hipDeviceEnablePeerAccess(6, 0).unwrap();
    assert_eq!(hip.hipDeviceEnablePeerAccess(6, 0), Err(704));
    hip.hipDeviceDisablePeerAccess(6).unwrap();
    assert_eq!(hip.hipDeviceEnablePeerAccess(5, 0), Err(INVALID_DEVICE));
    let source = hip.upload(&[1, 2, 3]);
    hip.hipSetDevice(6).unwrap();
    let target = hip.malloc(12);
    hip.hipMemcpyPeer(target, 6, source, 5, 12).unwrap();
    assert_eq!(hip.download(target, 3), [1, 2, 3]);
}

#[test]
fn a_reset_frees_memory_and_retires_handles() {
    let hip = hip_on(7);
    let (stream, event) = (hip.stream(), hip.event());
    hip.malloc(1 << 20);
    hip.hipMemsetAsync(hip.malloc(64), 1, 64, stream).unwrap();
    hip.hipDeviceReset().unwrap();
    let (mut free, mut total) = (0, 0);
    hip.hipMemGetInfo(&mut free, &mut total).unwrap();
    assert_eq!(free, total);
    assert_eq!(hip.hipStreamQuery(stream), Err(INVALID_HANDLE));
    assert_eq!(hip.hipEventQuery(event), Err(INVALID_HANDLE));
    let fresh = hip.stream();
    hip.hipStreamSynchronize(fresh).unwrap();
}
