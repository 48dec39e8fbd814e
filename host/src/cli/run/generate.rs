//! Continues one text, token by token.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use gptoss::scheduler::{Event, Request};
use gptoss::stop::{self, StopTexts};
use gptoss::tokenizer::{STOP_TOKENS, TextStream, Tokenizer};
use gptoss::worker::{Worker, WorkerOptions};

use super::{Args, Console, describe_sampling, encode, time_seed};
use crate::cli::{interrupt, progress};

pub fn run(args: &Args) -> Result<ExitCode> {
    let prompt = args.input.as_deref().context("mode generate needs -i, the text to continue")?;
    let mut notes = Console::stderr(None)?;
    let mut console = Console::stdout(args.log())?;
    let tokenizer = Arc::new(args.tokenizer()?);
    let (weights, _) = args.weights(&mut notes)?;
    let opened = args.device.open(weights, args.room(1))?;
    notes.line(format!("device: {}", opened.describe()))?;
    let positions = args.positions(opened.engine())?;
    let ids = encode(&tokenizer, prompt, opened.engine().config(), positions)?;
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
    let text = Text::new(&args.stop, &tokenizer, prompt);
    let told = follow(&worker, request, text, &mut console)?;
    notes.line(told.speed(consumed))?;
    if told.is_interrupted {
        // A step may take long, and what it would bring is not wanted any more.
        worker.abandon();
        return Ok(ExitCode::from(interrupt::EXIT_CODE));
    }
    Ok(ExitCode::SUCCESS)
}

/// The text as it is shown.
struct Text<'a> {
    tokenizer: &'a Arc<Tokenizer>,
    stops: &'a [String],
    stop: StopTexts,
    stream: TextStream,
    /// Shown before the first token.
    prompt: Option<&'a str>,
}

impl<'a> Text<'a> {
    fn new(stops: &'a [String], tokenizer: &'a Arc<Tokenizer>, prompt: &'a str) -> Text<'a> {
        let (stop, stream) = (StopTexts::new(stops), TextStream::default());
        Text { tokenizer, stops, stop, stream, prompt: Some(prompt) }
    }

    fn push(&mut self, token: u32, console: &mut Console) -> Result<()> {
        if let Some(prompt) = self.prompt.take() {
            console.untrusted(prompt)?;
        }
        if STOP_TOKENS.contains(&token) {
            return Ok(());
        }
        let bytes = self.stop.push(&self.tokenizer.bytes(token)?);
        console.untrusted(&self.stream.push(&bytes))
    }

    fn end(mut self, console: &mut Console) -> Result<()> {
        if let Some(prompt) = self.prompt.take() {
            console.untrusted(prompt)?;
        }
        let rest = self.stream.push(&self.stop.finish());
        console.untrusted(&rest)?;
        console.untrusted(&self.stream.finish())?;
        console.line("")
    }
}

/// When tokens came.
struct Told {
    start: Instant,
    first: Option<Instant>,
    last: Instant,
    tokens: usize,
    is_interrupted: bool,
}

impl Told {
    /// Tokens after the first one per second since that one, and how long the prompt took.
    fn speed(&self, prompt: usize) -> String {
        let first = self.first.unwrap_or(self.last);
        let seconds = (self.last - first).as_secs_f64().max(f64::MIN_POSITIVE);
        let rate = self.tokens.saturating_sub(1) as f64 / seconds;
        format!(
            "achieved tok/s: {rate:.6} ({} tokens; the prompt's {prompt} took {:.3} s)",
            self.tokens,
            (first - self.start).as_secs_f64()
        )
    }
}

/// Shows what comes, until the end or Ctrl-C.
fn follow(
    worker: &Worker,
    request: Request,
    mut text: Text<'_>,
    console: &mut Console,
) -> Result<Told> {
    let (sender, events) = mpsc::channel();
    let start = Instant::now();
    let mut told = Told { start, first: None, last: start, tokens: 0, is_interrupted: false };
    let mut reading =
        Some(progress::tokens("the model reads the prompt", request.prompt.len() as u64));
    let handle = worker.submit(request, &sender, stop::until(text.stops, text.tokenizer));
    drop(sender);
    loop {
        match events.recv_timeout(interrupt::ASK_EVERY) {
            Ok(Event::Prefill { done, .. }) => {
                reading.iter().for_each(|bar| bar.set_position(done as u64));
            }
            Ok(Event::Token { token, .. }) => {
                drop(reading.take());
                told.last = Instant::now();
                told.first.get_or_insert(told.last);
                told.tokens += 1;
                text.push(token, console)?;
            }
            Ok(Event::Failed { error, .. }) => bail!(error),
            Ok(Event::Done { .. }) | Err(RecvTimeoutError::Disconnected) => break,
            Ok(Event::Started { .. }) | Err(RecvTimeoutError::Timeout) => {}
        }
        if interrupt::asked() {
            handle.cancel();
            told.is_interrupted = true;
            break;
        }
    }
    drop(reading);
    text.end(console)?;
    Ok(told)
}
