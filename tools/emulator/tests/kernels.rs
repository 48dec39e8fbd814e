//! Whole kernels through the public interface.

use std::sync::Arc;

use emulator::{Chip, CodeImage, Launch, Memory, Options, Owner, launch};

#[test]
fn axpy() {
    let memory = Arc::new(Memory::new());
    let bytes = include_bytes!("data/axpy.co");
    let code = CodeImage::load(&memory, Owner::Device(0), Chip::Gfx1151, bytes).unwrap();
    let n = 1000usize;
    let x: Vec<f32> = (0..n).map(|i| i as f32 * 0.5).collect();
    let px = memory.allocate(Owner::Device(0), 4 * n).unwrap();
    let py = memory.allocate(Owner::Device(0), 4 * n).unwrap();
    let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
    memory.write(px, &bytes).unwrap();
    memory.write(py, &bytes).unwrap();
    let mut kernarg = Vec::new();
    kernarg.extend((n as u32).to_le_bytes());
    kernarg.extend(2.0f32.to_le_bytes());
    kernarg.extend(px.to_le_bytes());
    kernarg.extend(py.to_le_bytes());
    let l = Launch {
        code: &code,
        kernel: "axpy",
        grid: [8, 1, 1],
        block: [128, 1, 1],
        dynamic_lds: 0,
        kernarg: &kernarg,
    };
    let counters = launch(&memory, &l, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((counters.workgroups, counters.waves), (8, 32));
    // 31 whole waves and one with 8 lanes load x and y and store y, four bytes a lane.
    assert_eq!(counters.global_bytes, 12 * n as u64);
    assert_eq!(counters.wait % 32, 0);
    assert!(counters.instructions < 32 * 64, "{counters:?}");
    let mut out = vec![0; 4 * n];
    memory.read(py, &mut out).unwrap();
    for (i, bytes) in out.as_chunks::<4>().0.iter().enumerate() {
        assert_eq!(f32::from_le_bytes(*bytes), 3.0 * x[i]);
    }
}
