//! Workgroups over host threads, waves within a workgroup.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::arguments::Block;
use super::{Launch, Options};
use crate::check::Checker;
use crate::code::{Kernel, Start};
use crate::counters::Counters;
use crate::exec::{
    Executors, Group, LANES, Lanes, Observer, Pause, State, Trouble, Unobserved, Wave, WaveStart,
    run,
};
use crate::fault::{Fault, FaultKind};
use crate::isa::{Class, Program};
use crate::memory::{Memory, POISON, Region};

/// Instructions that a wave issues before others of its workgroup get a turn, so that one wave
/// may wait for another by polling.
const SLICE: u64 = 1 << 20;

/// Scratch per lane of kernels whose need is not known at compile time.
const DYNAMIC_STACK: u32 = 16 << 10;

/// One launch, shared by the threads that run it.
pub(crate) struct Dispatch {
    /// Live allocations and the arguments, ordered by address.
    regions: Vec<Arc<Region>>,
    program: Arc<Program>,
    kernel: Kernel,
    start: Start,
    entry: usize,
    grid: [u32; 3],
    block: [u32; 3],
    lds_bytes: usize,
    scratch_bytes: u32,
    user_sgprs: Vec<u32>,
    mode: u32,
    options: Options,
    /// Keeps the arguments alive; `regions` points into it.
    _arguments: Block,
    /// Next workgroup to start.
    next: AtomicU64,
    /// Workgroups from this one on are not started: a lower one has faulted.
    stop: AtomicU64,
    progress: Mutex<Progress>,
    idle: Condvar,
}

/// What the threads of a launch have got done.
#[derive(Default)]
struct Progress {
    /// Threads at work.
    workers: usize,
    counters: Counters,
    /// The first fault in workgroup order.
    fault: Option<(u64, Box<Fault>)>,
}

impl Dispatch {
    /// Prepares a launch that has been validated.
    pub(crate) fn new(
        memory: &Memory,
        launch: &Launch<'_>,
        kernel: &Kernel,
        start: &Start,
        options: &Options,
    ) -> Result<Dispatch, String> {
        let arguments = Block::new(launch, kernel, start);
        let mut regions = memory.reachable(launch.code.owner());
        let region = arguments.region();
        let at = regions.partition_point(|r| r.allocation.base < region.allocation.base);
        regions.insert(at, Arc::new(region));
        let program = launch.code.program().clone();
        let entry = program.at(start.entry_address);
        let entry = entry.ok_or_else(|| format!("{}: its entry is not code", kernel.name))?;
        let rsrc1 = start.descriptor.rsrc1;
        let mode = rsrc1.float_round_mode_32()
            | rsrc1.float_round_mode_16_64() << 2
            | rsrc1.float_denorm_mode_32() << 4
            | rsrc1.float_denorm_mode_16_64() << 6
            | u32::from(rsrc1.enable_dx10_clamp()) << 8
            | u32::from(rsrc1.enable_ieee_mode()) << 9;
        if mode & 0xf != 0 {
            return Err(format!(
                "{}: rounding mode {:#x} is not emulated",
                kernel.name,
                mode & 0xf
            ));
        }
        let dynamic_stack = start.descriptor.properties.uses_dynamic_stack();
        Ok(Dispatch {
            regions,
            program,
            entry,
            grid: launch.grid,
            block: launch.block,
            lds_bytes: (kernel.lds_bytes + launch.dynamic_lds) as usize,
            scratch_bytes: kernel.scratch_bytes.max(if dynamic_stack { DYNAMIC_STACK } else { 0 }),
            user_sgprs: arguments.user_sgprs(kernel, start),
            mode,
            kernel: kernel.clone(),
            start: start.clone(),
            options: *options,
            _arguments: arguments,
            next: AtomicU64::new(0),
            stop: AtomicU64::new(u64::MAX),
            progress: Mutex::default(),
            idle: Condvar::new(),
        })
    }

    /// Runs all workgroups.
    ///
    /// The calling thread works too and waits only for helpers that have started: a launch makes
    /// progress even when every helper thread is held up by kernels that wait for this one.
    pub(crate) fn run(self) -> Result<Counters, Box<Fault>> {
        let dispatch = Arc::new(self);
        let threads = match dispatch.options.threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            threads => threads,
        };
        let helpers = (threads as u64).min(dispatch.workgroups()).saturating_sub(1);
        for _ in 0..helpers {
            let dispatch = dispatch.clone();
            rayon::spawn(move || dispatch.work());
        }
        dispatch.work();
        let mut progress = dispatch.lock();
        while progress.workers > 0 {
            progress = dispatch.idle.wait(progress).unwrap_or_else(|e| e.into_inner());
        }
        match progress.fault.take() {
            Some((_, fault)) => Err(fault),
            None => Ok(progress.counters),
        }
    }

    fn workgroups(&self) -> u64 {
        self.grid.iter().map(|&n| u64::from(n)).product()
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Takes workgroups until none is left.
    fn work(&self) {
        self.lock().workers += 1;
        let counters = if self.options.checkers.any() {
            self.take_groups(|index, waves| self.checked(index, waves))
        } else {
            self.take_groups(|index, waves| self.group(index, waves, &mut Unobserved))
        };
        let mut progress = self.lock();
        progress.workers -= 1;
        progress.counters += counters;
        self.idle.notify_all();
    }

    fn take_groups(
        &self,
        mut run: impl FnMut(u64, &mut Vec<Wave>) -> Result<Counters, Box<Fault>>,
    ) -> Counters {
        thread_local! {
            /// Waves of this thread's last launch; their registers are reused.
            static WAVES: RefCell<Vec<Wave>> = const { RefCell::new(Vec::new()) };
        }
        let mut waves = WAVES.take();
        let mut counters = Counters::default();
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.workgroups() || index >= self.stop.load(Ordering::Relaxed) {
                break;
            }
            match run(index, &mut waves) {
                Ok(group) => counters += group,
                Err(fault) => {
                    self.stop.fetch_min(index, Ordering::Relaxed);
                    let mut progress = self.lock();
                    if progress.fault.as_ref().is_none_or(|(first, _)| index < *first) {
                        progress.fault = Some((index, fault));
                    }
                }
            }
        }
        WAVES.set(waves);
        counters
    }

    /// Runs one workgroup under the checkers.
    fn checked(&self, index: u64, waves: &mut Vec<Wave>) -> Result<Counters, Box<Fault>> {
        let count = (self.block.iter().product::<u32>() as usize).div_ceil(LANES);
        let sgprs = self.user_sgprs.len() + 3;
        let mut checker = Checker::new(self.options.checkers, count, self.lds_bytes, sgprs);
        self.group(index, waves, &mut checker)
    }

    /// Runs one workgroup to its end.
    fn group<O: Observer>(
        &self,
        index: u64,
        waves: &mut Vec<Wave>,
        observer: &mut O,
    ) -> Result<Counters, Box<Fault>> {
        let id = self.workgroup_id(index);
        let executors = Executors::new();
        let mut group = Group {
            regions: &self.regions,
            program: &self.program,
            lds: POISON.to_le_bytes().repeat(self.lds_bytes.div_ceil(2)),
            counters: Counters::default(),
        };
        group.lds.truncate(self.lds_bytes);
        let count = self.start_waves(id, waves);
        let waves = &mut waves[..count];
        while waves.iter().any(|wave| wave.state != State::Ended) {
            for wave in waves.iter_mut().filter(|wave| wave.state == State::Running) {
                let outcome = run(wave, &mut group, &executors, observer, SLICE);
                let outcome = outcome.and_then(|pause| self.within_limit(wave, pause));
                outcome.map_err(|trouble| self.fault(*trouble, id, wave))?;
            }
            if waves.iter().all(|wave| wave.state != State::Running) {
                if waves.iter().any(Wave::is_waiting) {
                    let outcome = observer.barrier(waves);
                    let at = waves.iter().position(Wave::is_waiting).unwrap_or(0);
                    outcome.map_err(|trouble| self.fault(*trouble, id, &waves[at]))?;
                }
                // Ended waves count as arrived.
                for wave in waves.iter_mut().filter(|wave| wave.state == State::AtBarrier) {
                    wave.state = State::Running;
                }
            }
        }
        let mut counters = group.counters;
        counters.workgroups = 1;
        counters.waves = count as u64;
        for wave in waves {
            add_counts(&mut counters, &wave.counts);
        }
        Ok(counters)
    }

    fn within_limit(&self, wave: &Wave, pause: Pause) -> Result<(), Box<Trouble>> {
        let limit = self.options.instruction_limit;
        if pause == Pause::Slice && wave.counts.iter().sum::<u64>() > limit {
            return Err(FaultKind::InstructionLimit(limit).into());
        }
        Ok(())
    }

    fn workgroup_id(&self, index: u64) -> [u32; 3] {
        let [x, y, _] = self.grid.map(u64::from);
        [(index % x) as u32, (index / x % y) as u32, (index / x / y) as u32]
    }

    /// Puts the workgroup's waves into their initial state; returns how many there are.
    fn start_waves(&self, id: [u32; 3], waves: &mut Vec<Wave>) -> usize {
        let threads = self.block.iter().product::<u32>() as usize;
        let count = threads.div_ceil(LANES);
        while waves.len() < count {
            waves.push(Wave::new());
        }
        let rsrc2 = self.start.descriptor.rsrc2;
        let mut sgprs = self.user_sgprs.clone();
        let enabled = [
            rsrc2.enable_sgpr_workgroup_id_x(),
            rsrc2.enable_sgpr_workgroup_id_y(),
            rsrc2.enable_sgpr_workgroup_id_z(),
        ];
        sgprs.extend((0..3).filter(|&axis| enabled[axis]).map(|axis| id[axis]));
        let [bx, by, _] = self.block.map(|n| n as usize);
        for (index, wave) in waves.iter_mut().enumerate().take(count) {
            let first = index * LANES;
            let lanes = (threads - first).min(LANES);
            let mut v0: Lanes = [0; LANES];
            for (lane, value) in v0.iter_mut().enumerate() {
                let thread = first + lane;
                let (x, y, z) = (thread % bx, thread / bx % by, thread / bx / by);
                *value = (x | y << 10 | z << 20) as u32;
            }
            let allocated = (self.kernel.vgprs.max(1) as usize).next_multiple_of(8).min(256);
            wave.start(&WaveStart {
                index: index as u32,
                entry: self.entry,
                sgprs: &sgprs,
                v0,
                exec: if lanes == LANES { u32::MAX } else { (1 << lanes) - 1 },
                mode: self.mode,
                scratch_bytes: self.scratch_bytes,
                vgprs: allocated,
            });
        }
        count
    }

    fn fault(&self, trouble: Trouble, workgroup: [u32; 3], wave: &Wave) -> Box<Fault> {
        let at = wave.pc.saturating_sub(1);
        let instruction = match self.program.insts.get(at) {
            Some(inst) => inst.to_string(),
            None => "past the end of the code".to_owned(),
        };
        Box::new(Fault {
            kind: trouble.kind,
            kernel: self.kernel.name.clone(),
            workgroup,
            wave: wave.index,
            lane: trouble.lane,
            pc: self.program.address(at).wrapping_sub(self.start.entry_address).cast_signed(),
            instruction,
        })
    }
}

/// Adds a wave's instruction counts.
fn add_counts(counters: &mut Counters, counts: &[u64; Class::COUNT]) {
    let of = |class: Class| counts[class as usize];
    counters.instructions += counts.iter().sum::<u64>();
    counters.valu += of(Class::Valu);
    counters.salu += of(Class::Salu);
    counters.smem += of(Class::Smem);
    counters.global += of(Class::Global);
    counters.scratch += of(Class::Scratch);
    counters.lds += of(Class::Lds);
    counters.matrix += of(Class::Matrix);
    counters.wait += of(Class::Wait);
    counters.branch += of(Class::Branch);
    counters.barrier += of(Class::Barrier);
    counters.other += of(Class::Other);
}
