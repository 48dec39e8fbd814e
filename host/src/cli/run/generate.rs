//! Continues one text, token by token.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use gptoss::modes::scheduler::{Event, Request, Scheduler};
use gptoss::tokenizer::{STOP_TOKENS, TextStream};

use super::{Args, Console, describe_sampling, encode, time_seed};
use crate::cli::{interrupt, progress};

pub fn run(args: &Args) -> Result<ExitCode> {
    let prompt = args.input.as_deref().context("mode generate needs -i, the text to continue")?;
    let mut notes = Console::stderr(None)?;
    let mut console = Console::stdout(args.log())?;
    let tokenizer = args.tokenizer()?;
    let (weights, _) = args.weights(&mut notes)?;
    let mut opened = args.device.open(weights, 1, args.room())?;
    notes.line(format!("device: {}", opened.describe()))?;
    let engine = opened.engine();
    let positions = args.positions(engine)?;
    let ids = encode(&tokenizer, prompt, engine.config(), positions)?;
    let sampling = args.sampling(time_seed);
    if sampling.temperature > 0.0 {
        notes.line(describe_sampling(&sampling))?;
    }

    interrupt::catch()?;
    let start = Instant::now();
    let consumed = ids.len();
    let mut scheduler = Scheduler::new(1);
    let max_tokens = positions - consumed;
    scheduler.submit(Request {
        id: 0,
        prompt: ids,
        max_tokens,
        sampling,
        stop: STOP_TOKENS.into(),
    });
    let mut stream = TextStream::default();
    let mut generated = 0;
    let mut first = None;
    let mut interrupted = false;
    let mut waiting = Some(progress::waiting("the model reads the prompt"));
    while !scheduler.is_idle() && !interrupted {
        for event in scheduler.step(engine)? {
            let Event::Token { token, .. } = event else { continue };
            generated += 1;
            if first.is_none() {
                first = Some(Instant::now());
                drop(waiting.take());
                console.untrusted(prompt)?;
            }
            if !STOP_TOKENS.contains(&token) {
                console.untrusted(&stream.push(&tokenizer.bytes(token)?))?;
            }
        }
        interrupted = interrupt::asked();
    }
    if waiting.take().is_some() {
        console.untrusted(prompt)?;
    }
    console.untrusted(&stream.finish())?;
    console.line("")?;
    notes.line(speed(generated, consumed, start, first))?;
    Ok(if interrupted { ExitCode::from(interrupt::EXIT_CODE) } else { ExitCode::SUCCESS })
}

/// Tokens after the first one per second since that one, and how long the prompt took.
fn speed(generated: usize, prompt: usize, start: Instant, first: Option<Instant>) -> String {
    let first = first.unwrap_or_else(Instant::now);
    let seconds = first.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
    let rate = generated.saturating_sub(1) as f64 / seconds;
    format!(
        "achieved tok/s: {rate:.6} ({generated} tokens; the prompt's {prompt} took {:.3} s)",
        first.duration_since(start).as_secs_f64()
    )
}
