//! A conversation in the terminal, in Harmony.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Result;
use gptoss::harmony::{self, Channel, Delta, Effort, Message, Parser, Role, SystemPrompt};
use gptoss::scheduler::{Event, Request};
use gptoss::terminal;
use gptoss::tokenizer::Tokenizer;
use gptoss::worker::{Worker, WorkerOptions};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::{Args, Console, check_prompt, time_seed};
use crate::cli::interrupt;

const HELP: &str = "\
/system TEXT  replace the instructions, and start over
/reset        start over
/help         this list
/quit         leave, as does Ctrl-D; Ctrl-C stops an answer";

/// Terminal codes of what is not the answer itself.
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// What a line typed by the user asks for.
#[derive(Debug, PartialEq, Eq)]
enum Input<'a> {
    Nothing,
    Help,
    Reset,
    Quit,
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
            "/system" => Input::System(rest.trim()),
            other => Input::Unknown(other),
        }
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let mut console = Console::stdout(args.log())?;
    let tokenizer = args.tokenizer()?;
    let (weights, _) = args.weights(&mut console)?;
    let opened = args.device.open(weights, args.room(1))?;
    console.line(format!("device: {}", opened.describe()))?;
    let positions = args.positions(opened.engine())?;
    let worker = Worker::start(opened.engines, WorkerOptions { batch: 1, reuse: true })?;
    let mut chat = Chat {
        tokenizer: &tokenizer,
        worker,
        positions,
        sampling: args.sampling(time_seed),
        effort: args.effort.unwrap_or_default(),
        instructions: args.system.clone().unwrap_or_default(),
        history: Vec::new(),
        colour: std::io::stdout().is_terminal(),
    };
    console.line("/help lists the commands")?;
    interrupt::catch()?;
    if let Some(first) = &args.input {
        console.line(format!("> {first}"))?;
        chat.say(first, &mut console)?;
    }
    let mut editor = DefaultEditor::new()?;
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                console.line("(Ctrl-D or /quit leaves)")?;
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(error.into()),
        };
        // The history is a convenience: a line it does not take is still said.
        let _ = editor.add_history_entry(line.as_str());
        match Input::parse(&line) {
            Input::Nothing => {}
            Input::Help => console.line(HELP)?,
            Input::Quit => return Ok(ExitCode::SUCCESS),
            Input::Reset => {
                chat.history.clear();
                console.line("(a new conversation)")?;
            }
            Input::System(text) => {
                chat.instructions = text.to_owned();
                chat.history.clear();
                console.line("(a new conversation, with these instructions)")?;
            }
            Input::Unknown(command) => {
                console.line(format!("{command} is no command; /help lists them"))?;
            }
            Input::Say(text) => chat.say(text, &mut console)?,
        }
    }
}

struct Chat<'a> {
    tokenizer: &'a Tokenizer,
    worker: Worker,
    /// Most tokens of the conversation.
    positions: usize,
    sampling: gptoss::engine::Sampling,
    effort: Effort,
    instructions: String,
    history: Vec<Message>,
    colour: bool,
}

impl Chat<'_> {
    /// Adds the user's message and streams the answer. A message that cannot be answered is taken
    /// back, and why is printed: the conversation goes on.
    fn say(&mut self, text: &str, console: &mut Console) -> Result<()> {
        self.history.push(Message::new(Role::User, text));
        let conversation = self.conversation();
        let prompt = harmony::render(&conversation, self.tokenizer)?;
        if let Err(error) = check_prompt(&prompt, self.worker.config(), self.positions) {
            self.history.pop();
            return console.line(format!("({error}; /reset starts over)"));
        }
        let answer = self.answer(prompt, console)?;
        self.history.extend(answer);
        Ok(())
    }

    fn conversation(&self) -> Vec<Message> {
        let system = SystemPrompt { date: Some(harmony::today()), effort: self.effort };
        let mut messages = vec![system.message()];
        if !self.instructions.is_empty() {
            messages.push(Message::instructions(&self.instructions));
        }
        messages.extend(self.history.iter().cloned());
        messages
    }

    /// Streams an answer until it ends or Ctrl-C comes; what was said counts either way.
    fn answer(&mut self, prompt: Vec<u32>, console: &mut Console) -> Result<Vec<Message>> {
        let max_tokens = self.positions - prompt.len();
        let stop = harmony::STOP_TOKENS.to_vec();
        let sampling = self.sampling;
        let request = Request { id: 0, prompt, max_tokens, sampling, stop, prefill_only: false };
        let (sender, events) = mpsc::channel();
        let handle = self.worker.submit(request, &sender, None);
        let mut parser = Parser::default();
        let mut printer = Printer { colour: self.colour, message: None };
        loop {
            match events.recv_timeout(Duration::from_millis(50)) {
                Ok(Event::Token { token, .. }) => {
                    for delta in parser.push(token, self.tokenizer)? {
                        printer.print(&delta, console)?;
                    }
                }
                Ok(Event::Failed { error, .. }) => anyhow::bail!(error),
                Ok(Event::Done { .. }) => break,
                Ok(_) | Err(_) => {}
            }
            if interrupt::asked() {
                handle.cancel();
                break;
            }
        }
        let (rest, messages) = parser.finish();
        for delta in rest {
            printer.print(&delta, console)?;
        }
        printer.end(console)?;
        Ok(messages)
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
            ("/reset ", Input::Reset),
            ("/system  Be brief. ", Input::System("Be brief.")),
            ("/system", Input::System("")),
            ("/sytem x", Input::Unknown("/sytem")),
        ] {
            assert_eq!(Input::parse(line), input, "{line:?}");
        }
    }
}
