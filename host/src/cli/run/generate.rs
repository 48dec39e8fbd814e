//! Continues one text, token by token.

use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gptoss::scheduler::{Event, Request};
use gptoss::tokenizer::{STOP_TOKENS, TextStream};
use gptoss::worker::{Worker, WorkerOptions};

use super::{Args, Console, describe_sampling, encode, time_seed};
use crate::cli::{interrupt, progress};

/// How often Ctrl-C is looked for while no token comes.
const ASK_EVERY: Duration = Duration::from_millis(50);

pub fn run(args: &Args) -> Result<ExitCode> {
    let prompt = args.input.as_deref().context("mode generate needs -i, the text to continue")?;
    let mut notes = Console::stderr(None)?;
    let mut console = Console::stdout(args.log())?;
    let tokenizer = args.tokenizer()?;
    let (weights, _) = args.weights(&mut notes)?;
    let opened = args.device.open(weights, 1, args.room())?;
    notes.line(format!("device: {}", opened.describe()))?;
    let positions = args.positions(opened.engine())?;
    let config = opened.engine().config().clone();
    let ids = encode(&tokenizer, prompt, &config, positions)?;
    let sampling = args.sampling(time_seed);
    if sampling.temperature > 0.0 {
        notes.line(describe_sampling(&sampling))?;
    }

    interrupt::catch()?;
    let consumed = ids.len();
    let request = Request {
        id: 0,
        prompt: ids,
        max_tokens: positions - consumed,
        sampling,
        stop: STOP_TOKENS.into(),
        prefill_only: false,
    };
    let worker = Worker::start(opened.engines, WorkerOptions { batch: 1, reuse: false })?;
    let (sender, events) = mpsc::channel();
    let start = Instant::now();
    let mut waiting = Some(progress::waiting("the model reads the prompt"));
    let handle = worker.submit(request, &sender, None);
    drop(sender);
    let mut stream = TextStream::default();
    let mut times = Vec::new();
    loop {
        match events.recv_timeout(ASK_EVERY) {
            Ok(Event::Token { token, .. }) => {
                times.push(start.elapsed());
                if waiting.take().is_some() {
                    console.untrusted(prompt)?;
                }
                if !STOP_TOKENS.contains(&token) {
                    console.untrusted(&stream.push(&tokenizer.bytes(token)?))?;
                }
            }
            Ok(Event::Failed { error, .. }) => bail!(error),
            Ok(Event::Done { .. }) | Err(RecvTimeoutError::Disconnected) => break,
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
        }
        if interrupt::asked() {
            // A step may take long; what it would bring is not wanted any more.
            handle.cancel();
            worker.abandon();
            drop(waiting);
            console.untrusted(&stream.finish())?;
            console.line("")?;
            return Ok(ExitCode::from(interrupt::EXIT_CODE));
        }
    }
    if waiting.take().is_some() {
        console.untrusted(prompt)?;
    }
    console.untrusted(&stream.finish())?;
    console.line("")?;
    report(&times, consumed, &mut notes)?;
    Ok(ExitCode::SUCCESS)
}

/// Says how fast the prompt was read and the text written, from when each token came.
fn report(times: &[Duration], prompt: usize, notes: &mut Console) -> Result<()> {
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(()) };
    let first = first.as_secs_f64();
    notes.line(format!("prompt: {prompt} tokens, first token after {first:.3} s"))?;
    let seconds = last.as_secs_f64() - first;
    if times.len() > 1 && seconds > 0.0 {
        notes.line(format!("achieved tok/s: {:.6}", (times.len() - 1) as f64 / seconds))?;
    }
    Ok(())
}
