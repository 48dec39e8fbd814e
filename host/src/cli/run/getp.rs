//! A file of prompts, many at a time.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gptoss::cpu::CpuEngine;
use gptoss::engine::{ByHand, Engine, Sampling};
use gptoss::modes::crosscheck::{self, Crosscheck};
use gptoss::modes::journal::{self, JobKey, OutputFile};
use gptoss::modes::{prompts, request_seed, verify};
use gptoss::scheduler::{Counts, Event, Request, RequestError};
use gptoss::stop;
use gptoss::tokenizer::{STOP_TOKENS, Tokenizer};
use gptoss::worker::{Until, Worker, WorkerOptions};

use super::{Args, Console, describe_sampling, encode, time_seed};
use crate::cli::interrupt;
use crate::cli::progress::{self, Progress};

/// What runs when no file is given.
const SAMPLE: &str = "4\n\
    Hello, world!\n\
    What is the capital of France?\n\
    Write a short poem about rain on a tin roof.\n\
    Explain why matrix units want their operands in tiles.\n";

pub fn run(args: &Args) -> Result<ExitCode> {
    // Ids on standard output stay alone there.
    let mut console = match args.output {
        Some(_) => Console::stdout(args.log())?,
        None => Console::stderr(args.log())?,
    };
    let input = read_input(args.input.as_deref(), &mut console)?;
    let name = args.input.as_deref().unwrap_or("the sample prompts");
    let limit = (args.truncate > 0).then_some(args.truncate);
    let prompts = prompts::parse(&input, limit).with_context(|| name.to_owned())?;
    let tokenizer = Arc::new(args.tokenizer()?);
    let (weights, model) = args.weights(&mut console)?;
    let built_in = args.checkpoint.is_none();
    let room = args.room(args.batch());
    let opened = match built_in {
        true => args.device.open_or_emulate(Arc::clone(&weights), room)?,
        false => args.device.open_all(Arc::clone(&weights), room)?,
    };
    // What the built-in model computes on a GPU is compared with the CPU engine.
    let compared = built_in && !opened.is_cpu() && args.temperature() == 0.0;
    console.line(format!("device: {}", opened.describe()))?;
    let engine = opened.engine();
    let positions = args.positions(engine)?;
    let sampling = args.sampling(|| resumed_seed(args).unwrap_or_else(time_seed));
    console.line(format!(
        "getp: {} requests, {positions} positions, {} at a time",
        prompts.len(),
        args.batch().min(engine.limits().max_chunks) * opened.engines.len()
    ))?;
    if sampling.temperature > 0.0 {
        console.line(describe_sampling(&sampling))?;
    }

    let mut phases = Phases::default();
    let requests = phases.time("tokenize", || {
        requests(&prompts, &tokenizer, opened.engine(), positions, sampling)
            .with_context(|| name.to_owned())
    })?;
    let key = args.job_key(&prompts, positions, sampling, &model, &opened.kind)?;
    let until = || stop::until(&args.stop, &tokenizer);
    let Some(output) = open_output(args, &requests, &key, until)? else {
        console.line("resume: every request is finished already")?;
        return verified(args, &mut console);
    };
    let mut job = Job { requests, output, generated: 0, kept: compared.then(Vec::new) };
    let options = WorkerOptions { batch: args.batch(), reuse: true };
    let worker = Worker::start(opened.engines, options)?;
    let outcome = job.infer(worker, until, &mut phases, &mut console)?;
    if outcome.is_interrupted {
        return interrupted(args.output.as_deref());
    }
    if !outcome.failed.is_empty() {
        return failed(&outcome.failed, job.requests.len(), args.output.as_deref());
    }
    job.output.finish()?;

    let seconds = phases.total();
    console.line("")?;
    console.line("┌─────────────────────────────┐")?;
    console.line(format!("│ ⌛️ Time: {seconds:<13.6}      │"))?;
    console.line(format!("│ ⚡️ TPS: {:<13.6}       │", job.generated as f64 / seconds))?;
    console.line("└─────────────────────────────┘")?;
    if args.profile {
        phases.print(outcome.counts, &mut console)?;
    }
    if let Some(kept) = job.kept {
        let reference = ByHand::new(args.device.open_reference(weights)?);
        crosscheck(&job.requests, &kept, reference, &mut console)?;
    }
    verified(args, &mut console)
}

/// The output, as far as an earlier run came; `None` when that was to its end.
fn open_output(
    args: &Args,
    requests: &[Request],
    key: &JobKey,
    until: impl Fn() -> Option<Until>,
) -> Result<Option<OutputFile>> {
    let count = requests.len();
    Ok(match &args.output {
        None => Some(OutputFile::stream(Box::new(std::io::stdout()), count)),
        Some(path) if args.resume => OutputFile::resume(path, count, key, |request, ids| {
            let Request { max_tokens, stop, .. } = &requests[request];
            let stopped = ids.last().is_some_and(|id| stop.contains(id));
            let enough = || {
                let mut until = until();
                until
                    .as_mut()
                    .and_then(|until| ids.iter().position(|&id| until(id)))
                    .is_some_and(|at| at + 1 == ids.len())
            };
            ids.len() == *max_tokens || ids.len() < *max_tokens && (stopped || enough())
        })?,
        Some(path) => Some(OutputFile::create(path, count, key)?),
    })
}

/// What `-v` says of the output.
fn verified(args: &Args, console: &mut Console) -> Result<ExitCode> {
    match (&args.output, &args.verify) {
        (Some(output), Some(reference)) => check(output, reference, console),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Compares the tokens of this run with the logits of another engine.
fn crosscheck(
    requests: &[Request],
    chosen: &[(usize, Vec<u32>)],
    mut reference: ByHand<CpuEngine>,
    console: &mut Console,
) -> Result<()> {
    let mut found = Crosscheck::default();
    let waiting = progress::waiting("check: the CPU engine computes the same");
    for (id, tokens) in chosen {
        found.add(&mut reference, *id, &requests[*id].prompt, tokens)?;
    }
    drop(waiting);
    let (Crosscheck { tokens, equal, close, .. }, beyond) = (found, found.beyond());
    let percent = 100.0 * crosscheck::TOLERANCE;
    console.line(format!(
        "check: of {tokens} tokens {equal} are what the CPU engine chooses after the same text, \
         {close} are within {percent} % of the logits' root mean square of it, {beyond} are not \
         (allowed: {}, for experts that nearly tie)",
        found.allowed()
    ))?;
    match found.first_beyond {
        Some((request, place)) if !found.passes() => bail!(
            "check: {beyond} of {tokens} tokens differ from the CPU engine's, the first is token \
             {place} of request {request}; expected at most {}",
            found.allowed()
        ),
        _ => Ok(()),
    }
}

fn read_input(path: Option<&str>, console: &mut Console) -> Result<Vec<u8>> {
    match path {
        Some(path) => std::fs::read(path).with_context(|| format!("cannot read {path}")),
        None => {
            console.line("prompts: 4 samples (-i takes a file)")?;
            Ok(SAMPLE.into())
        }
    }
}

/// Encodes every prompt, so that one which cannot run is refused before any has.
fn requests(
    prompts: &[&str],
    tokenizer: &Tokenizer,
    engine: &dyn Engine,
    positions: usize,
    sampling: Sampling,
) -> Result<Vec<Request>> {
    let request = |(id, text): (usize, &&str)| {
        let prompt = encode(tokenizer, text, engine.config(), positions)
            .with_context(|| format!("prompt {id} (line {})", id + 2))?;
        let max_tokens = positions - prompt.len();
        let sampling = Sampling { seed: request_seed(sampling.seed, id as u64), ..sampling };
        let stop = STOP_TOKENS.into();
        Ok(Request { id, prompt, max_tokens, sampling, stop, prefill_only: false })
    };
    prompts.iter().enumerate().map(request).collect()
}

/// The seed of the run that `--resume` completes.
fn resumed_seed(args: &Args) -> Option<u64> {
    let output = args.output.as_ref().filter(|_| args.resume)?;
    journal::recorded(output, "seed")?.parse().ok()
}

fn interrupted(output: Option<&Path>) -> Result<ExitCode> {
    match output {
        Some(path) => eprintln!(
            "gptoss: interrupted; what is finished is in {}, --resume completes {}",
            journal::journal_path(path).display(),
            path.display()
        ),
        None => eprintln!("gptoss: interrupted"),
    }
    Ok(ExitCode::from(interrupt::EXIT_CODE))
}

/// Says which requests failed. The others are kept, and the output is not whole.
fn failed(
    failed: &[(usize, RequestError)],
    requests: usize,
    output: Option<&Path>,
) -> Result<ExitCode> {
    for (id, error) in failed {
        eprintln!("gptoss: prompt {id} (line {}): {error}", id + 2);
    }
    let kept = output.map_or_else(String::new, |path| {
        format!("; the others are kept in {}", journal::journal_path(path).display())
    });
    bail!("{} of {requests} requests failed{kept}", failed.len())
}

fn check(output: &Path, reference: &Path, console: &mut Console) -> Result<ExitCode> {
    let read = |path: &Path| {
        let bytes =
            std::fs::read(path).with_context(|| format!("❌ Cannot open {}", path.display()))?;
        // Bytes that are no text differ from every id.
        anyhow::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let (ours, theirs) = (read(output)?, read(reference)?);
    let same = verify::verify(&ours, &theirs, console)?;
    console.line(if same { "✅ Verification: PASSED" } else { "❌ Verification: FAILED" })?;
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a run came to.
#[derive(Default)]
struct Ended {
    counts: Counts,
    is_interrupted: bool,
    failed: Vec<(usize, RequestError)>,
}

struct Job {
    requests: Vec<Request>,
    output: OutputFile,
    /// Tokens of the requests that finished in this run.
    generated: usize,
    /// Those tokens with their requests, where they are compared afterwards.
    kept: Option<Vec<(usize, Vec<u32>)>>,
}

impl Job {
    /// Runs what is not done yet, until all has ended or Ctrl-C comes.
    fn infer(
        &mut self,
        worker: Worker,
        until: impl Fn() -> Option<Until>,
        phases: &mut Phases,
        console: &mut Console,
    ) -> Result<Ended> {
        let todo: Vec<Request> =
            self.requests.iter().filter(|r| !self.output.is_done(r.id)).cloned().collect();
        let kept = self.requests.len() - todo.len();
        if kept > 0 {
            console.line(format!("resume: {kept} requests are finished"))?;
        }
        let mut report = Report::new(&todo);
        interrupt::catch()?;
        let start = Instant::now();
        let mut outcome = Ended::default();
        let mut writing = Duration::ZERO;
        let (sender, events) = mpsc::channel();
        let mut left = todo.len();
        todo.into_iter().for_each(|request| drop(worker.submit(request, &sender, until())));
        while left > 0 {
            match events.recv_timeout(interrupt::ASK_EVERY) {
                Ok(Event::Token { .. }) => report.token(),
                Ok(Event::Done { id, tokens, .. }) => {
                    left -= 1;
                    let start = Instant::now();
                    self.record(id, tokens, &mut report)?;
                    writing += start.elapsed();
                }
                Ok(Event::Failed { id, error }) => {
                    left -= 1;
                    outcome.failed.push((id, error));
                }
                Ok(Event::Started { .. } | Event::Prefill { .. }) | Err(_) => {}
            }
            if interrupt::asked() {
                outcome.is_interrupted = true;
                break;
            }
        }
        outcome.counts = worker.counts();
        drop(worker);
        phases.add("engine", start.elapsed().as_secs_f64());
        // The engines go on meanwhile.
        phases.add("of it output", writing.as_secs_f64());
        drop(report);
        Ok(outcome)
    }

    /// Keeps what a request generated.
    fn record(&mut self, id: usize, tokens: Vec<u32>, report: &mut Report) -> Result<()> {
        self.generated += tokens.len();
        report.done(self.requests[id].max_tokens - tokens.len());
        if let Some(kept) = &mut self.kept {
            kept.push((id, tokens.clone()));
        }
        let recorded = self.output.record(id, tokens);
        recorded.with_context(|| "the output is unfinished; --resume completes it")
    }
}

/// How far the job is.
struct Report {
    progress: Progress,
    requests: usize,
    done: usize,
}

impl Report {
    fn new(requests: &[Request]) -> Report {
        let most = requests.iter().map(|request| request.max_tokens as u64).sum();
        Report { progress: progress::tokens("getp", most), requests: requests.len(), done: 0 }
    }

    fn token(&self) {
        self.progress.inc(1);
    }

    /// A request ended, `unused` tokens short of its limit.
    fn done(&mut self, unused: usize) {
        self.done += 1;
        let length = self.progress.length().unwrap_or(0);
        self.progress.set_length(length.saturating_sub(unused as u64));
        self.progress.set_message(format!("{} of {} requests", self.done, self.requests));
    }
}

/// Seconds per phase, in the order of first use.
#[derive(Default)]
struct Phases(Vec<(&'static str, f64)>);

impl Phases {
    fn time<T>(&mut self, phase: &'static str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.add(phase, start.elapsed().as_secs_f64());
        result
    }

    fn add(&mut self, phase: &'static str, seconds: f64) {
        match self.0.iter_mut().find(|(name, _)| *name == phase) {
            Some((_, total)) => *total += seconds,
            None => self.0.push((phase, seconds)),
        }
    }

    /// Time of inference.
    fn total(&self) -> f64 {
        let inference = self.0.iter().filter(|(name, _)| *name != "of it output");
        inference.map(|(_, seconds)| seconds).sum::<f64>().max(f64::MIN_POSITIVE)
    }

    fn print(&self, counts: Counts, console: &mut Console) -> Result<()> {
        let fed = counts.prefill_tokens + counts.decode_tokens;
        for (name, seconds) in &self.0 {
            console.line(format!("{name:<17}: {seconds:>10.3} s"))?;
        }
        for (name, count) in [
            ("steps", counts.steps),
            ("prefill tokens", counts.prefill_tokens),
            ("decode tokens", counts.decode_tokens),
            ("reused tokens", counts.reused_tokens),
            ("preemptions", counts.preemptions),
        ] {
            console.line(format!("{name:<17}: {count:>10}"))?;
        }
        let per_step = fed as f64 / counts.steps.max(1) as f64;
        console.line(format!("{:<17}: {per_step:>10.1}", "tokens per step"))
    }
}
