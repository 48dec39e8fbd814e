//! The GPU layer without kernels: memory, streams, events, graphs, devices.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gptoss::gpu::{DeviceBuffer, Event, GpuError, Graph, Module, PinnedBuffer, Recorded, Stream};

use crate::gpu::{device, devices, stream};

type Outcome = Result<(), Box<dyn Error>>;

/// Not a multiple of any vector width or page.
const LEN: usize = 10_007;

fn counting(len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect()
}

#[test]
fn what_goes_up_comes_down() -> Outcome {
    let stream = stream();
    let values = counting(LEN);
    let buffer = stream.buffer_from(&values)?;
    assert_eq!(stream.read(buffer.view())?, values);
    assert_eq!(stream.read(buffer.slice(3..9))?, values[3..9]);
    Ok(())
}

#[test]
fn an_empty_buffer_is_no_special_case() -> Outcome {
    let stream = stream();
    let buffer = stream.buffer_from::<f32>(&[])?;
    assert!(buffer.is_empty() && buffer.view().address() != 0);
    stream.fill(buffer.view(), 0xff)?;
    assert!(stream.read(buffer.view())?.is_empty());
    Ok(())
}

#[test]
fn buffers_are_aligned_for_the_widest_access() -> Outcome {
    for len in [1, 7, 4097] {
        let buffer = DeviceBuffer::<u8>::new(device(), len)?;
        assert!(buffer.view().address().is_multiple_of(gptoss::gpu::ALIGNMENT as u64), "{len}");
    }
    Ok(())
}

#[test]
fn copies_and_fills_keep_to_their_part() -> Outcome {
    let stream = stream();
    let values = counting(LEN);
    let buffer = stream.buffer_from(&values)?;
    stream.copy(buffer.slice(100..200), buffer.slice(1000..1100))?;
    stream.fill_words(buffer.slice(300..301), 7)?;
    stream.fill(buffer.slice(400..402), 0xff)?;
    let mut expected = values.clone();
    expected.copy_within(1000..1100, 100);
    expected[300] = 7;
    expected[400..402].fill(u32::MAX);
    assert_eq!(stream.read(buffer.view())?, expected);
    Ok(())
}

#[test]
fn fill_ff_makes_f32_nan() -> Outcome {
    let stream = stream();
    let buffer = DeviceBuffer::<f32>::new(device(), LEN)?;
    stream.fill(buffer.view(), 0xff)?;
    assert!(stream.read(buffer.view())?.iter().all(|x| x.is_nan()));
    Ok(())
}

#[test]
fn pinned_memory_goes_both_ways_in_stream_order() -> Outcome {
    let stream = stream();
    let mut up = PinnedBuffer::<u32>::new(device(), LEN)?;
    let mut down = PinnedBuffer::<u32>::new(device(), LEN)?;
    assert!(down.iter().all(|&x| x == 0));
    up.copy_from_slice(&counting(LEN));
    let buffer = DeviceBuffer::new(device(), LEN)?;
    // SAFETY: both pinned buffers live, untouched, until the stream is waited for.
    unsafe {
        stream.upload_async(buffer.view(), &up)?;
        stream.download_async(&mut down, buffer.view())?;
    }
    stream.synchronize()?;
    assert_eq!(down[..], up[..]);
    Ok(())
}

#[test]
fn an_event_orders_two_streams() -> Outcome {
    let (first, second) = (stream(), stream());
    let (a, b) = (DeviceBuffer::new(device(), LEN)?, DeviceBuffer::new(device(), LEN)?);
    let event = Event::new(device())?;
    for value in 0..20 {
        first.fill_words(a.view(), value)?;
        event.record(&first)?;
        second.wait(&event)?;
        second.copy(b.view(), a.view())?;
        assert_eq!(second.read(b.view())?, [value; LEN]);
    }
    assert!(event.is_done()?);
    Ok(())
}

#[test]
fn events_measure_time_forwards() -> Outcome {
    let stream = stream();
    let buffer = DeviceBuffer::<u8>::new(device(), 1 << 20)?;
    let (start, end) = (Event::timed(device())?, Event::timed(device())?);
    start.record(&stream)?;
    stream.fill(buffer.view(), 1)?;
    end.record(&stream)?;
    end.synchronize()?;
    let ms = end.elapsed_ms(&start)?;
    assert!(ms.is_finite() && ms >= 0.0, "{ms}");
    Ok(())
}

#[test]
fn a_graph_replays_what_was_recorded_and_runs_nothing_before() -> Outcome {
    let stream = stream();
    let (a, b) = (stream.buffer_from(&counting(LEN))?, stream.buffer_from(&vec![0u32; LEN])?);
    let graph = Graph::record(&stream, || {
        stream.copy(b.view(), a.view())?;
        stream.fill_words(b.slice(0..1), 42)
    })?;
    assert!(stream.read(b.view())?.iter().all(|&x| x == 0), "recording ran the work");
    for round in 0..3u32 {
        let values: Vec<u32> = counting(LEN).iter().map(|x| x ^ round).collect();
        stream.upload(a.view(), &values)?;
        // SAFETY: the buffers outlive the replay, which the read below waits for.
        unsafe { graph.launch(&stream)? };
        let got = stream.read(b.view())?;
        assert_eq!(got[0], 42);
        assert_eq!(got[1..], values[1..]);
    }
    Ok(())
}

#[test]
fn a_failed_recording_leaves_the_stream_usable() -> Outcome {
    let stream = stream();
    let refused = Graph::record(&stream, || Err(GpuError::Refused("no".to_owned())));
    assert!(matches!(refused, Err(GpuError::Refused(why)) if why == "no"));
    what_goes_up_comes_down()?;
    stream.synchronize()?;
    Ok(())
}

#[test]
fn a_panic_while_recording_leaves_the_stream_usable() -> Outcome {
    let stream = stream();
    let buffer = stream.buffer_from(&[1u32; LEN])?;
    let recording = || {
        Graph::record(&stream, || {
            stream.fill_words(buffer.view(), 2)?;
            panic!("while recording")
        })
    };
    assert!(catch_unwind(AssertUnwindSafe(recording)).is_err());
    assert_eq!(stream.read(buffer.view())?, [1; LEN], "what was recorded ran");
    stream.fill_words(buffer.view(), 3)?;
    assert_eq!(stream.read(buffer.view())?, [3; LEN]);
    Ok(())
}

/// What an engine owns, in the order it must be dropped in.
struct Replaying {
    graph: Recorded<Option<Graph>>,
    _buffer: DeviceBuffer<u32>,
}

#[test]
fn replays_end_before_the_buffers_they_use_are_dropped() -> Outcome {
    let stream = stream();
    // Large enough that a replay is far from done when it has been queued.
    let buffer = DeviceBuffer::<u32>::new(device(), 16 << 20)?;
    let graph =
        Graph::record(&stream, || (0..4).try_for_each(|i| stream.fill_words(buffer.view(), i)))?;
    let done = Event::new(device())?;
    let owner = Replaying { graph: Recorded::new(&stream, Some(graph)), _buffer: buffer };
    if let Some(graph) = &*owner.graph {
        // SAFETY: `owner` waits for the stream before it drops the buffer.
        unsafe { graph.launch(&stream)? };
    }
    done.record(&stream)?;
    drop(owner.graph);
    assert!(done.is_done()?);
    Ok(())
}

#[test]
fn copies_between_devices_arrive_whole() -> Outcome {
    let [here, there, ..] = devices() else {
        println!("skipped: needs two devices, as in GPTOSS_TEST_DEVICE=emu:gfx1151x2");
        return Ok(());
    };
    let (at_home, abroad) = (Stream::new(here)?, Stream::new(there)?);
    let values = counting(LEN);
    let source = at_home.buffer_from(&values)?;
    let target = DeviceBuffer::new(there, LEN)?;
    // SAFETY: both buffers outlive the copy, which the wait completes.
    unsafe { at_home.copy_peer(target.view(), source.view())? };
    at_home.synchronize()?;
    assert_eq!(abroad.read(target.view())?, values);
    if here.can_access(there)? {
        here.enable_peer(there)?;
        here.enable_peer(there)?;
    }
    Ok(())
}

/// Freeing waits for work on the memory's own device only, so no other device's stream may use it.
#[test]
fn memory_of_another_device_is_refused() -> Outcome {
    let [here, there, ..] = devices() else {
        println!("skipped: needs two devices, as in GPTOSS_TEST_DEVICE=emu:gfx1151x2");
        return Ok(());
    };
    let stream = Stream::new(here)?;
    let (own, other) = (DeviceBuffer::<u32>::new(here, 8)?, DeviceBuffer::<u32>::new(there, 8)?);
    let refused = [
        stream.upload(other.view(), &[0; 8]),
        stream.download(&mut [0; 8], other.view()),
        stream.copy(own.view(), other.view()),
        stream.copy(other.view(), own.view()),
        stream.fill(other.view(), 0),
        stream.fill_words(other.view(), 0),
    ];
    for outcome in refused {
        let error = outcome.expect_err("memory of another device").to_string();
        let (here, there) = (here.to_string(), there.to_string());
        assert!(error.contains(&here) && error.contains(&there), "{error}");
    }
    Ok(())
}

#[test]
fn out_of_memory_gives_the_arithmetic() -> Outcome {
    let (_, total) = device().memory()?;
    let asked = 2 * total as usize;
    let Err(error) = DeviceBuffer::<u8>::new(device(), asked) else {
        panic!("{asked} bytes were allocated of {total}");
    };
    let text = error.to_string();
    assert!(matches!(error, GpuError::OutOfMemory { .. }), "{text}");
    assert!(text.contains(&asked.to_string()) && text.contains(&total.to_string()), "{text}");
    what_goes_up_comes_down()
}

#[test]
fn lengths_that_differ_are_refused() -> Outcome {
    let stream = stream();
    let buffer = DeviceBuffer::<u32>::new(device(), 8)?;
    let refused = stream.upload(buffer.view(), &[1, 2, 3]).expect_err("3 into 8").to_string();
    assert_eq!(refused, "upload: 3 elements do not fit 8");
    Ok(())
}

#[test]
fn a_damaged_module_is_refused_by_name() {
    for (name, image) in [("empty.co", &b""[..]), ("text.co", &b"this is no kernel"[..])] {
        let error = Module::load(device(), name, image).err().expect(name).to_string();
        assert!(error.contains(name) && !error.contains('\0'), "{error}");
    }
}

#[test]
fn properties_make_sense() {
    let properties = device().properties();
    assert!(properties.arch.starts_with("gfx") || properties.arch.starts_with("sm_"));
    assert!([32, 64].contains(&properties.wave_size));
    assert!(properties.lds_bytes >= 32 << 10 && properties.max_workgroup >= 1024);
    assert!(properties.memory_bytes > 0 && properties.compute_units > 0);
    println!("{}", properties.summary());
}

#[test]
fn emulated_chips_are_of_the_table() {
    for chip in emulator::Chip::ALL {
        let listed = shared::chips::Chip::find(chip.name());
        let listed = listed.unwrap_or_else(|| panic!("{chip}: not in shared/src/chips.rs"));
        assert_eq!(listed.family.wave(), chip.properties().wave_size, "{chip}");
    }
}
