//! What may overtake what: streams, events, the null stream, captures.

mod common;

use common::*;

const CAPTURE_UNSUPPORTED: i32 = 900;
const RELAXED: i32 = 2;
const THREAD_LOCAL: i32 = 1;

fn log() -> &'static Log {
    Box::leak(Box::default())
}

#[test]
fn a_stream_runs_its_work_in_order() {
    let hip = hip_on(0);
    let (stream, log) = (hip.stream(), log());
    let gate = Gate::close(hip, stream);
    for number in 0..100 {
        log.note(hip, stream, number);
    }
    assert_eq!(hip.hipStreamQuery(stream), Err(NOT_READY));
    assert_eq!(log.take(), []);
    gate.open();
    hip.hipStreamSynchronize(stream).unwrap();
    assert_eq!(log.take(), (0..100).collect::<Vec<_>>());
    assert_eq!(hip.hipStreamQuery(stream), Ok(()));
}

#[test]
fn streams_of_a_device_run_at_the_same_time() {
    let hip = hip_on(1);
    let (held, free, log) = (hip.stream(), hip.stream(), log());
    let gate = Gate::close(hip, held);
    log.note(hip, held, 2);
    log.note(hip, free, 1);
    hip.hipStreamSynchronize(free).unwrap();
    gate.open();
    hip.hipStreamSynchronize(held).unwrap();
    assert_eq!(log.take(), [1, 2]);
}

#[test]
fn an_event_holds_a_stream_of_another_device() {
    let hip = hip_on(2);
    let (first, event) = (hip.stream(), hip.event());
    let source = hip.upload(&[0; 4]);
    hip.hipSetDevice(17).unwrap();
    let second = hip.stream();
    let target = hip.upload(&[0; 4]);
    let gate = Gate::close(hip, first);
    hip.hipMemsetD32Async(source, 7, 4, first).unwrap();
    hip.hipEventRecord(event, first).unwrap();
    hip.hipMemsetD32Async(source, 8, 4, first).unwrap();
    hip.hipStreamWaitEvent(second, event, 0).unwrap();
    hip.hipMemcpyPeerAsync(target, 17, source, 2, 16, second).unwrap();
    assert_eq!(hip.hipEventQuery(event), Err(NOT_READY));
    assert_eq!(hip.hipStreamQuery(second), Err(NOT_READY));
    gate.open();
    hip.hipStreamSynchronize(second).unwrap();
    assert_eq!(hip.hipEventQuery(event), Ok(()));
    let copied = hip.download(target, 4);
    assert!(copied == [7; 4] || copied == [8; 4], "{copied:?}");
    hip.hipStreamSynchronize(first).unwrap();
    assert_eq!(hip.download(source, 4), [8; 4]);
}

#[test]
fn a_wait_is_for_the_record_before_it() {
    let hip = hip_on(3);
    let (first, second, event, log) = (hip.stream(), hip.stream(), hip.event(), log());
    hip.hipEventRecord(event, first).unwrap();
    hip.hipStreamWaitEvent(second, event, 0).unwrap();
    let gate = Gate::close(hip, first);
    hip.hipEventRecord(event, first).unwrap();
    log.note(hip, second, 1);
    hip.hipStreamSynchronize(second).unwrap();
    assert_eq!(log.take(), [1]);
    gate.open();
    hip.hipEventSynchronize(event).unwrap();
}

#[test]
fn an_event_that_was_never_recorded_holds_nothing() {
    let hip = hip_on(4);
    let (stream, event) = (hip.stream(), hip.event());
    hip.hipEventQuery(event).unwrap();
    hip.hipEventSynchronize(event).unwrap();
    hip.hipStreamWaitEvent(stream, event, 0).unwrap();
    hip.hipStreamSynchronize(stream).unwrap();
}

#[test]
fn elapsed_time_needs_two_timed_events_that_have_ended() {
    let hip = hip_on(5);
    let (stream, start, stop) = (hip.stream(), hip.event(), hip.event());
    let mut milliseconds = f32::NAN;
    let elapsed = |stop, milliseconds: &mut f32| hip.hipEventElapsedTime(milliseconds, start, stop);
    assert_eq!(elapsed(stop, &mut milliseconds), Err(400), "not recorded");
    hip.hipEventRecord(start, stream).unwrap();
    let gate = Gate::close(hip, stream);
    hip.hipEventRecord(stop, stream).unwrap();
    assert_eq!(elapsed(stop, &mut milliseconds), Err(NOT_READY));
    gate.open();
    hip.hipEventSynchronize(stop).unwrap();
    elapsed(stop, &mut milliseconds).unwrap();
    assert!(milliseconds >= 0.0, "{milliseconds}");
    let mut untimed = NULL;
    hip.hipEventCreateWithFlags(&mut untimed, 2).unwrap();
    hip.hipEventRecord(untimed, stream).unwrap();
    hip.hipEventSynchronize(untimed).unwrap();
    assert_eq!(elapsed(untimed, &mut milliseconds), Err(400), "without timing");
}

#[test]
fn the_null_stream_waits_for_blocking_streams_and_they_for_it() {
    let hip = hip_on(6);
    let (before, after, apart, log) = (hip.stream(), hip.stream(), hip.stream_with(1), log());
    let gate = Gate::close(hip, before);
    log.note(hip, before, 1);
    log.note(hip, NULL, 2);
    log.note(hip, after, 3);
    log.note(hip, apart, 0);
    hip.hipStreamSynchronize(apart).unwrap();
    assert_eq!(hip.hipStreamQuery(NULL), Err(NOT_READY));
    assert_eq!(hip.hipStreamQuery(after), Err(NOT_READY));
    gate.open();
    hip.hipStreamSynchronize(after).unwrap();
    assert_eq!(log.take(), [0, 1, 2, 3]);
}

#[test]
fn synchronising_the_device_waits_for_every_stream() {
    let hip = hip_on(7);
    let log = log();
    for number in 0..8 {
        log.note(hip, hip.stream_with(number % 2), number as usize);
    }
    hip.hipDeviceSynchronize().unwrap();
    let mut ended = log.take();
    ended.sort_unstable();
    assert_eq!(ended, (0..8).collect::<Vec<_>>());
}

#[test]
fn a_destroyed_stream_ends_its_work() {
    let hip = hip_on(8);
    let (stream, event, log) = (hip.stream(), hip.event(), log());
    let gate = Gate::close(hip, stream);
    log.note(hip, stream, 1);
    hip.hipEventRecord(event, stream).unwrap();
    hip.hipStreamDestroy(stream).unwrap();
    gate.open();
    hip.hipEventSynchronize(event).unwrap();
    assert_eq!(log.take(), [1]);
}

#[test]
fn a_pageable_source_may_change_once_the_call_has_returned() {
    let hip = hip_on(9);
    let stream = hip.stream_with(1);
    let target = hip.malloc(16);
    let gate = Gate::close(hip, stream);
    let mut source = [1u32; 4];
    let from = source.as_ptr() as u64;
    hip.hipMemcpyAsync(target, from, 16, HOST_TO_DEVICE, stream).unwrap();
    source.fill(2);
    std::hint::black_box(&source);
    gate.open();
    hip.hipStreamSynchronize(stream).unwrap();
    assert_eq!(hip.download(target, 4), [1; 4]);
}

#[test]
fn a_pinned_source_is_read_in_stream_order() {
    let hip = hip_on(10);
    let stream = hip.stream_with(1);
    let (target, mut pinned) = (hip.malloc(16), 0);
    hip.hipHostMalloc(&mut pinned, 16, 0).unwrap();
    let gate = Gate::close(hip, stream);
    hip.hipMemsetD32Async(pinned, 5, 4, stream).unwrap();
    hip.hipMemcpyAsync(target, pinned, 16, HOST_TO_DEVICE, stream).unwrap();
    gate.open();
    hip.hipStreamSynchronize(stream).unwrap();
    assert_eq!(hip.download(target, 4), [5; 4]);
}

#[test]
fn freeing_in_stream_order_comes_after_the_last_use() {
    let hip = hip_on(11);
    let stream = hip.stream();
    let kept = hip.malloc(16);
    let mut pointer = 0;
    hip.hipMallocAsync(&mut pointer, 16, stream).unwrap();
    let gate = Gate::close(hip, stream);
    hip.hipMemsetD32Async(pointer, 3, 4, stream).unwrap();
    hip.hipMemcpyAsync(kept, pointer, 16, DEVICE_TO_DEVICE, stream).unwrap();
    hip.hipFreeAsync(pointer, stream).unwrap();
    gate.open();
    hip.hipStreamSynchronize(stream).unwrap();
    assert_eq!(hip.download(kept, 4), [3; 4]);
    assert_eq!(hip.hipFree(pointer), Err(INVALID_VALUE), "already free");
}

/// Fills `a` in `main`, copies it to `b` in `side`, and half of that to `c` back
/// in `main`; notes when `main` begins and ends.
fn fork_and_join(hip: &Hip, main: Handle, side: Handle, buffers: [u64; 3], log: &'static Log) {
    let [a, b, c] = buffers;
    let (forked, joined) = (hip.event(), hip.event());
    log.note(hip, main, 0);
    hip.hipMemsetD32Async(a, 11, 4, main).unwrap();
    hip.hipEventRecord(forked, main).unwrap();
    hip.hipStreamWaitEvent(side, forked, 0).unwrap();
    hip.hipMemcpyAsync(b, a, 16, DEVICE_TO_DEVICE, side).unwrap();
    hip.hipEventRecord(joined, side).unwrap();
    hip.hipStreamWaitEvent(main, joined, 0).unwrap();
    hip.hipMemcpyAsync(c, b, 8, DEVICE_TO_DEVICE, main).unwrap();
    log.note(hip, main, 1);
}

fn end_capture(hip: &Hip, stream: Handle) -> Result<Handle, i32> {
    let mut graph = 1 as Handle;
    let result = hip.hipStreamEndCapture(stream, &mut graph);
    assert_eq!(result.is_err(), graph.is_null());
    result.map(|()| graph)
}

fn instantiate(hip: &Hip, graph: Handle) -> Handle {
    let mut executable = NULL;
    let (null, no_log) = (std::ptr::null_mut(), std::ptr::null_mut());
    hip.hipGraphInstantiate(&mut executable, graph, null, no_log, 0).unwrap();
    executable
}

#[test]
fn a_replayed_capture_does_what_the_calls_do() {
    let hip = hip_on(12);
    let (main, side, log) = (hip.stream(), hip.stream(), log());
    let poison = [0xabab_abab; 4];
    let buffers = || [hip.upload(&poison), hip.upload(&poison), hip.upload(&poison)];
    let (direct, replayed) = (buffers(), buffers());
    fork_and_join(hip, main, side, direct, log);
    hip.hipStreamSynchronize(main).unwrap();
    assert_eq!(log.take(), [0, 1]);

    hip.hipStreamBeginCapture(main, THREAD_LOCAL).unwrap();
    fork_and_join(hip, main, side, replayed, log);
    let mut status = -1;
    hip.hipStreamIsCapturing(side, &mut status).unwrap();
    assert_eq!(status, 1, "the forked stream has joined the capture");
    let graph = end_capture(hip, main).unwrap();
    hip.hipStreamIsCapturing(side, &mut status).unwrap();
    assert_eq!(status, 0);
    hip.hipDeviceSynchronize().unwrap();
    assert_eq!(log.take(), [], "a capture runs nothing");
    assert_eq!(hip.download(replayed[0], 4), poison);

    let executable = instantiate(hip, graph);
    hip.hipGraphDestroy(graph).unwrap();
    for _ in 0..3 {
        hip.hipGraphLaunch(executable, main).unwrap();
    }
    hip.hipStreamSynchronize(main).unwrap();
    assert_eq!(log.take(), [0, 1, 0, 1, 0, 1]);
    for (direct, replayed) in direct.into_iter().zip(replayed) {
        assert_eq!(hip.download(replayed, 4), hip.download(direct, 4));
    }
    hip.hipGraphExecDestroy(executable).unwrap();
    assert_eq!(hip.hipGraphLaunch(executable, main), Err(400));
}

#[test]
fn captured_streams_run_at_the_same_time_in_the_replay() {
    let hip = hip_on(13);
    let (main, side, log) = (hip.stream(), hip.stream(), log());
    let (forked, joined) = (hip.event(), hip.event());
    hip.hipStreamBeginCapture(main, RELAXED).unwrap();
    hip.hipEventRecord(forked, main).unwrap();
    hip.hipStreamWaitEvent(side, forked, 0).unwrap();
    // The gate is in the stream that forked first, its key in the other.
    let gate = Gate::close(hip, main);
    log.note(hip, side, 1);
    hip.hipEventRecord(joined, side).unwrap();
    hip.hipStreamWaitEvent(main, joined, 0).unwrap();
    let executable = instantiate(hip, end_capture(hip, main).unwrap());
    hip.hipGraphLaunch(executable, main).unwrap();
    while log.take().is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(hip.hipStreamQuery(main), Err(NOT_READY));
    gate.open();
    hip.hipStreamSynchronize(main).unwrap();
}

#[test]
fn an_update_takes_new_parameters_and_refuses_a_new_shape() {
    let hip = hip_on(14);
    let stream = hip.stream();
    let target = hip.upload(&[0; 4]);
    let capture = |fills: &[i32]| {
        hip.hipStreamBeginCapture(stream, RELAXED).unwrap();
        for &value in fills {
            hip.hipMemsetD32Async(target, value, 4, stream).unwrap();
        }
        end_capture(hip, stream).unwrap()
    };
    let executable = instantiate(hip, capture(&[1]));
    let mut difference = -1;
    let null = std::ptr::null_mut();
    let longer = capture(&[2, 3]);
    assert_eq!(hip.hipGraphExecUpdate(executable, longer, null, &mut difference), Err(910));
    assert_eq!(difference, 2);
    hip.hipGraphExecUpdate(executable, capture(&[4]), null, &mut difference).unwrap();
    hip.hipGraphLaunch(executable, stream).unwrap();
    hip.hipStreamSynchronize(stream).unwrap();
    assert_eq!(hip.download(target, 4), [4; 4]);
}

#[test]
fn what_a_capture_cannot_hold_spoils_it() {
    let hip = hip_on(15);
    let (stream, other, event) = (hip.stream(), hip.stream(), hip.event());
    let begin = || hip.hipStreamBeginCapture(stream, RELAXED).unwrap();

    begin();
    assert_eq!(hip.hipStreamSynchronize(stream), Err(CAPTURE_UNSUPPORTED));
    assert_eq!(end_capture(hip, stream), Err(901), "spoilt by waiting for the stream");

    begin();
    hip.hipEventRecord(event, other).unwrap();
    assert_eq!(hip.hipStreamWaitEvent(stream, event, 0), Err(905));
    assert_eq!(end_capture(hip, stream), Err(901), "spoilt by work outside");

    begin();
    let target = hip.malloc(16);
    assert_eq!(hip.hipMemsetD32Async(target, 1, 4, NULL), Err(906));
    assert_eq!(end_capture(hip, stream), Err(901), "spoilt by the null stream");

    begin();
    hip.hipEventRecord(event, stream).unwrap();
    assert_eq!(hip.hipEventQuery(event), Err(907), "a captured event has no end");
    hip.hipStreamWaitEvent(other, event, 0).unwrap();
    hip.hipMemsetD32Async(target, 1, 4, other).unwrap();
    assert_eq!(end_capture(hip, other), Err(903), "begun elsewhere");
    assert_eq!(end_capture(hip, stream), Err(904), "not joined back");

    assert_eq!(end_capture(hip, stream), Err(401), "not capturing");
    assert_eq!(hip.hipStreamBeginCapture(NULL, RELAXED), Err(CAPTURE_UNSUPPORTED));
    hip.hipMemsetD32Async(target, 6, 4, stream).unwrap();
    hip.hipStreamSynchronize(stream).unwrap();
    assert_eq!(hip.download(target, 4), [6; 4], "the stream works as before");
}

#[test]
fn a_thread_that_captures_may_not_allocate() {
    let hip = hip_on(16);
    let stream = hip.stream();
    hip.hipStreamBeginCapture(stream, THREAD_LOCAL).unwrap();
    let mut pointer = 0;
    assert_eq!(hip.hipMalloc(&mut pointer, 16), Err(CAPTURE_UNSUPPORTED));
    assert_eq!(hip.hipDeviceSynchronize(), Err(CAPTURE_UNSUPPORTED));
    let elsewhere = std::thread::spawn(|| hip_on(18).malloc(16)).join();
    assert!(elsewhere.is_ok());
    let graph = end_capture(hip, stream).unwrap();
    hip.hipGraphLaunch(instantiate(hip, graph), stream).unwrap();
    hip.hipStreamSynchronize(stream).unwrap();
    hip.hipMalloc(&mut pointer, 16).unwrap();
}
