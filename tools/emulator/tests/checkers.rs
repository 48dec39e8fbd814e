//! One planted bug per kind of fault and checker; `data/bugs.s` is the source of the kernels.

use std::sync::Arc;

use emulator::{
    Checkers, Chip, CodeImage, Counters, Fault, FaultKind, Launch, LaunchError, Memory, Options,
    Owner, launch,
};

/// Runs a kernel on a fresh buffer of which the first 256 bytes are written.
fn run(kernel: &str, checkers: Checkers) -> Result<Counters, Box<Fault>> {
    let memory = Arc::new(Memory::new());
    memory.track_initialisation(checkers.uninitialised);
    let bytes = include_bytes!("data/bugs.co");
    let code = CodeImage::load(&memory, Owner::Device(0), Chip::Gfx1151, bytes).unwrap();
    let buffer = memory.allocate(Owner::Device(0), 4096).unwrap();
    memory.write(buffer, &[7; 256]).unwrap();
    let kernarg = buffer.to_le_bytes();
    let (grid, block) = ([1, 1, 1], [64, 1, 1]);
    let launched = Launch { code: &code, kernel, grid, block, dynamic_lds: 0, kernarg: &kernarg };
    let options = Options { checkers, instruction_limit: 1 << 22, ..Options::default() };
    match launch(&memory, &launched, &options) {
        Ok(counters) => Ok(counters),
        Err(LaunchError::Fault(fault)) => Err(fault),
        Err(error) => panic!("{error}"),
    }
}

/// The fault of a kernel that passes without checkers and fails with all of them.
fn found(kernel: &str) -> Box<Fault> {
    run(kernel, Checkers::default()).unwrap_or_else(|fault| panic!("unchecked: {fault}"));
    run(kernel, Checkers::ALL).expect_err("the planted bug is found")
}

#[test]
fn a_clean_kernel_passes_every_check() {
    let counters = run("clean", Checkers::ALL).unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!((counters.workgroups, counters.waves, counters.barrier), (1, 2, 2));
    assert_eq!((counters.global, counters.lds, counters.smem), (4, 4, 2));
    // Each wave reads and writes one line's worth of its own.
    assert_eq!((counters.global_bytes, counters.global_lines), (512, 4));
    assert_eq!((counters.lds_bytes, counters.lds_bank_conflicts), (512, 0));
}

#[test]
fn a_bad_address_is_reported_with_its_place() {
    let fault = run("out_of_bounds", Checkers::default()).unwrap_err();
    let FaultKind::IllegalAddress { address, bytes: 4, access: "store", nearest: Some(nearest) } =
        fault.kind
    else {
        panic!("{fault}");
    };
    assert_eq!(address, nearest.base + 0x10_0000);
    assert_eq!((fault.wave, fault.lane, fault.workgroup), (0, Some(0), [0, 0, 0]));
    assert!(fault.instruction.starts_with("global_store_b32 v1, v0, s[4:5]"), "{fault}");
    let text = fault.to_string();
    assert!(text.contains("kernel out_of_bounds, workgroup (0, 0, 0), wave 0, lane 0"), "{text}");
}

#[test]
fn lds_is_as_large_as_the_kernel_says() {
    let fault = run("lds_out_of_bounds", Checkers::default()).unwrap_err();
    assert_eq!((fault.wave, fault.lane), (1, Some(0)), "{fault}");
    let expected = FaultKind::LdsOutOfBounds { address: 512, bytes: 4, size: 512 };
    assert_eq!(fault.kind, expected);
}

#[test]
fn traps_unknown_instructions_and_endless_loops_stop() {
    let fault = run("trap", Checkers::default()).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Trap(2));
    let fault = run("unknown_instruction", Checkers::default()).unwrap_err();
    assert_eq!(fault.kind, FaultKind::UnknownInstruction);
    assert!(fault.instruction.contains("0xf0000000"), "{fault}");
    let fault = run("endless", Checkers::default()).unwrap_err();
    assert_eq!(fault.kind, FaultKind::InstructionLimit(1 << 22));
}

#[test]
fn uninitialised_values_are_found() {
    let memory = ["uninitialised_memory", "uninitialised_lds"];
    for kernel in memory.into_iter().chain(["uninitialised_register", "undecided_mask"]) {
        let fault = found(kernel);
        assert!(matches!(fault.kind, FaultKind::Uninitialised(_)), "{kernel}: {fault}");
    }
}

/// A mask of never set bits is defined where a defined operand decides.
#[test]
fn masks_that_defined_bits_decide_pass() {
    run("decided_mask", Checkers::ALL).unwrap_or_else(|fault| panic!("{fault}"));
}

#[test]
fn races_between_waves_are_found() {
    for kernel in ["lds_race", "global_race"] {
        let fault = run(kernel, Checkers { races: true, ..Checkers::default() }).unwrap_err();
        assert!(matches!(fault.kind, FaultKind::Race(_)), "{kernel}: {fault}");
        assert_eq!(fault.wave, 1);
    }
}

#[test]
fn missing_waits_are_found() {
    for (kernel, register) in [
        ("missing_vector_wait", "v3 is read"),
        ("missing_lds_wait", "v2 is read"),
        ("missing_scalar_wait", "s4 is read"),
    ] {
        let fault = found(kernel);
        let FaultKind::MissingWait(what) = &fault.kind else { panic!("{kernel}: {fault}") };
        assert!(what.starts_with(register), "{kernel}: {what}");
    }
}

#[test]
fn divergent_barriers_are_found() {
    for kernel in ["ended_before_barrier", "different_barriers"] {
        let fault = found(kernel);
        assert!(matches!(fault.kind, FaultKind::DivergentBarrier(_)), "{kernel}: {fault}");
    }
}
