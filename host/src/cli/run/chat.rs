//! A conversation in the terminal, in Harmony.
//!
//! [`session`] knows what was said, [`lines`] what the user types, [`client`] the worker; here they
//! meet.

mod client;
mod lines;
mod reading;
mod session;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use gptoss::engine::Engine;
use gptoss::harmony::{self, Channel, Delta, Effort, SystemPrompt};
use gptoss::scheduler::{Event, Finish, RequestError};
use gptoss::terminal;
use gptoss::worker::{Worker, WorkerOptions};

use super::{Args, Console, describe_sampling, time_seed};
use crate::cli::{interrupt, progress};
use client::{Client, Stream};
use lines::{Line, Lines};
use reading::Reading;
use session::{Asked, Limits, Refusal, Session};

const HELP: &str = "\
/more         go on with an answer that was cut
/effort WORD  how long to reason: low, medium or high
/system TEXT  replace the instructions, and start over
/reset        start over
/help         this list
/quit         leave, as does Ctrl-D; Ctrl-C stops an answer";

/// Terminal codes of what is not the answer itself.
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// Reading a prompt that takes longer shows how far it is.
const QUICK: Duration = Duration::from_secs(2);

/// What a line typed by the user asks for.
#[derive(Debug, PartialEq, Eq)]
enum Input<'a> {
    Nothing,
    Help,
    Reset,
    Quit,
    More,
    Effort(&'a str),
    System(&'a str),
    Unknown(&'a str),
    Say(&'a str),
}

impl Input<'_> {
    fn parse(line: &str) -> Input<'_> {
        let line = line.trim();
        if !line.starts_with('/') {
            return if line.is_empty() { Input::Nothing } else { Input::Say(line) };
        }
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match command {
            "/help" => Input::Help,
            "/reset" => Input::Reset,
            "/quit" | "/exit" => Input::Quit,
            "/more" => Input::More,
            "/effort" => Input::Effort(rest.trim()),
            "/system" => Input::System(rest.trim()),
            other => Input::Unknown(other),
        }
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let mut console = Console::stdout(args.log())?;
    let tokenizer = Arc::new(args.tokenizer()?);
    let (weights, _) = args.weights(&mut console)?;
    let opened = args.device.open(weights, args.room(1))?;
    console.line(format!("device: {}", opened.describe()))?;
    let (positions, why) = context(args, opened.engine())?;
    console.line(format!("context: {positions} tokens ({why})"))?;
    let sampling = args.sampling(time_seed);
    if sampling.temperature > 0.0 {
        console.line(describe_sampling(&sampling))?;
    }
    let vocabulary = opened.engine().config().vocab_size;
    let worker = Worker::start(opened.engines, WorkerOptions { batch: 1, reuse: true })?;
    let system =
        SystemPrompt { date: Some(harmony::today()), effort: args.effort.unwrap_or_default() };
    let limits = Limits { positions, vocabulary };
    let mut session = Session::new(tokenizer, limits, sampling, args.stop.clone(), system);
    session.instruct(args.system.as_deref().unwrap_or_default());
    let colour = std::io::stdout().is_terminal();
    let mut chat = Chat { session, client: Client::new(worker), console, positions, colour };
    chat.console.line("/help lists the commands")?;
    interrupt::catch()?;
    let talked = chat.talk(args.input.as_deref());
    // A step may take long, and what it would bring is not wanted any more.
    chat.client.leave();
    talked.map(|()| ExitCode::SUCCESS)
}

/// Tokens that a conversation may have, and what sets the limit.
fn context(args: &Args, engine: &dyn Engine) -> Result<(usize, &'static str)> {
    let wanted = args.positions(engine)?;
    let most = engine.limits().pages.max_positions();
    let model = engine.config().max_position_embeddings;
    Ok(match wanted {
        _ if wanted > most => (most, "what the memory for keys and values holds"),
        _ if wanted == model => (wanted, "all the model has"),
        _ => (wanted, "-n"),
    })
}

/// How an answer ended.
enum End {
    Whole,
    /// By the limit of the context.
    Full,
    Interrupted,
    Failed(RequestError),
}

struct Chat {
    session: Session,
    client: Client,
    console: Console,
    /// Tokens of the conversation at most.
    positions: usize,
    colour: bool,
}

impl Chat {
    /// Reads and answers until the end of the input.
    fn talk(&mut self, first: Option<&str>) -> Result<()> {
        self.prepare()?;
        if let Some(first) = first {
            self.console.text("> ")?;
            self.console.untrusted(first)?;
            self.console.line("")?;
            self.say(first)?;
        }
        let mut lines = Lines::open()?;
        loop {
            match lines.next(&mut self.console)? {
                Line::Text(line) => {
                    if !self.obey(Input::parse(&line))? {
                        return Ok(());
                    }
                }
                Line::Unreadable(why) => self.note(&format!("{why}; it was not sent"))?,
                Line::Interrupted => self.note("Ctrl-D or /quit leaves")?,
                Line::End => return Ok(()),
            }
        }
    }

    /// Does what a line asks for; false when it asks for the end.
    fn obey(&mut self, input: Input<'_>) -> Result<bool> {
        match input {
            Input::Nothing => {}
            Input::Help => self.console.line(HELP)?,
            Input::Quit => return Ok(false),
            Input::Reset => {
                self.session.reset();
                self.prepare()?;
                self.note("a new conversation")?;
            }
            Input::System(text) => {
                self.session.instruct(text);
                self.prepare()?;
                self.note("a new conversation, with these instructions")?;
            }
            Input::Effort("") => {
                self.note(&format!("effort is {}", self.session.effort().name()))?;
            }
            Input::Effort(word) => match Effort::from_str(word) {
                Ok(effort) => {
                    self.session.set_effort(effort);
                    self.prepare()?;
                    self.note(&format!("effort is {} from now on", effort.name()))?;
                }
                Err(error) => self.note(&error.to_string())?,
            },
            Input::Unknown(command) => {
                self.console.untrusted(command)?;
                self.console.line(" is no command; /help lists them")?;
            }
            Input::More => {
                let asked = self.session.more();
                self.answer(asked)?;
            }
            Input::Say(text) => self.say(text)?,
        }
        Ok(true)
    }

    fn say(&mut self, text: &str) -> Result<()> {
        let asked = self.session.say(text);
        self.answer(asked)
    }

    /// A line beside the conversation.
    fn note(&mut self, text: &str) -> Result<()> {
        self.console.line(format!("({})", terminal::line(text)))
    }

    /// Has the beginning of the next prompt computed while the user types.
    fn prepare(&mut self) -> Result<()> {
        let prefix = self.session.prefix()?;
        if prefix.len() < self.positions {
            self.client.prepare(prefix);
        }
        Ok(())
    }

    /// Asks, and shows the answer. What cannot be answered is not part of the conversation, which
    /// goes on.
    fn answer(&mut self, asked: Result<Asked, Refusal>) -> Result<()> {
        let Asked { prompt, max_tokens, sampling, reading, forgotten } = match asked {
            Ok(asked) => asked,
            Err(error @ Refusal::TooLong { .. }) => {
                return self.note(&format!("{error}; it was not sent, /reset starts over"));
            }
            Err(error) => return self.note(&error.to_string()),
        };
        if forgotten > 0 {
            let turns = if forgotten == 1 { "turn was" } else { "turns were" };
            self.note(&format!(
                "the context of {} tokens is full: the oldest {forgotten} {turns} forgotten",
                self.positions
            ))?;
        }
        // One that came when the answer before had just ended is not for this one.
        interrupt::asked();
        let stream = self.client.ask(prompt, max_tokens, sampling);
        let mut printer = Printer { colour: self.colour, message: None };
        let (reading, end) = self.follow(&stream, reading, &mut printer)?;
        if let End::Failed(error) = end {
            printer.end(&mut self.console)?;
            if let RequestError::DeviceLost(_) = error {
                bail!(error);
            }
            self.session.take_back()?;
            return self.note(&format!("{error}; the message is taken back"));
        }
        for delta in self.session.take(reading, !matches!(end, End::Whole))? {
            printer.print(&delta, &mut self.console)?;
        }
        printer.end(&mut self.console)?;
        match end {
            // Whoever stops an answer does not want the machine to go on with anything.
            End::Interrupted => self.note("cut; /more continues"),
            End::Full => {
                self.note("cut: the context is full; /more continues")?;
                self.prepare()
            }
            End::Whole | End::Failed(_) => self.prepare(),
        }
    }

    /// Shows what comes until the answer ends or Ctrl-C comes.
    fn follow(
        &mut self,
        stream: &Stream,
        mut reading: Reading,
        printer: &mut Printer,
    ) -> Result<(Reading, End)> {
        let mut waiting = Some(Waiting::new());
        let end = loop {
            match stream.events.recv_timeout(interrupt::ASK_EVERY) {
                Ok(Event::Token { token, .. }) => {
                    drop(waiting.take());
                    for delta in reading.push(token)? {
                        printer.print(&delta, &mut self.console)?;
                    }
                    if reading.is_stopped() {
                        stream.handle.cancel();
                        break End::Whole;
                    }
                }
                Ok(Event::Started { reused, .. }) => {
                    waiting.iter_mut().for_each(|waiting| waiting.reused = reused);
                }
                Ok(Event::Prefill { done, total, .. }) => {
                    waiting.iter_mut().for_each(|waiting| waiting.at(done, total));
                }
                Ok(Event::Done { finish: Finish::Stop, .. }) => break End::Whole,
                Ok(Event::Done { .. }) => break End::Full,
                Ok(Event::Failed { error, .. }) => break End::Failed(error),
                Err(RecvTimeoutError::Timeout) => {
                    if let (Some(waiting), Some((done, total))) =
                        (&mut waiting, self.client.background())
                    {
                        waiting.at(done, total);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let why = "the worker has gone".to_owned();
                    break End::Failed(RequestError::DeviceLost(why));
                }
            }
            if interrupt::asked() {
                stream.handle.cancel();
                break End::Interrupted;
            }
        };
        Ok((reading, end))
    }
}

/// Shows how far the model is with the prompt, when that takes long.
struct Waiting {
    start: Instant,
    /// Tokens that were there before.
    reused: usize,
    bar: Option<progress::Progress>,
}

impl Waiting {
    fn new() -> Waiting {
        Waiting { start: Instant::now(), reused: 0, bar: None }
    }

    fn at(&mut self, done: usize, total: usize) {
        let elapsed = self.start.elapsed();
        if elapsed < QUICK {
            return;
        }
        let total = total.saturating_sub(self.reused) as u64;
        let bar = self.bar.get_or_insert_with(|| {
            let bar = progress::tokens("the model reads the conversation", total);
            bar.set_elapsed(elapsed);
            bar
        });
        bar.set_length(total);
        bar.set_position(done.saturating_sub(self.reused) as u64);
    }
}

/// Prints the pieces of an answer, each message on lines of its own, under its channel's name
/// unless it is the answer; reasoning is dimmed.
struct Printer {
    colour: bool,
    /// The message whose line is open.
    message: Option<usize>,
}

impl Printer {
    fn print(&mut self, delta: &Delta, console: &mut Console) -> Result<()> {
        if self.message != Some(delta.message) {
            self.end(console)?;
            self.message = Some(delta.message);
            if delta.channel != Channel::Final {
                let dim = if self.colour { DIM } else { "" };
                let to = delta.recipient.iter().map(|name| format!(" to {}", terminal::line(name)));
                let to: String = to.collect();
                console.text(&format!("{dim}[{}{to}] ", delta.channel.name()))?;
            }
        }
        console.untrusted(&delta.text)
    }

    /// Ends the line, when something was printed.
    fn end(&mut self, console: &mut Console) -> Result<()> {
        match self.message.take() {
            Some(_) => console.line(if self.colour { PLAIN } else { "" }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands_or_messages() {
        for (line, input) in [
            ("", Input::Nothing),
            ("  \t", Input::Nothing),
            (" hello /help ", Input::Say("hello /help")),
            ("/help", Input::Help),
            ("/quit", Input::Quit),
            ("/more", Input::More),
            ("/effort  high ", Input::Effort("high")),
            ("/effort", Input::Effort("")),
            ("/reset ", Input::Reset),
            ("/system  Be brief. ", Input::System("Be brief.")),
            ("/system", Input::System("")),
            ("/sytem x", Input::Unknown("/sytem")),
        ] {
            assert_eq!(Input::parse(line), input, "{line:?}");
        }
    }
}
