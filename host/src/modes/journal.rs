//! The getp output file, written so that nothing finished is ever lost.
//!
//! Every finished request goes to a journal beside the output, in whatever order they finish, as
//! one `write` each: an interrupt, a kill or a full disk costs only the requests in flight. Records
//! are forced to the disk at most every [`SYNC_EVERY`], so that a power cut costs those of the last
//! moments too. When all are there, the output (a line of ids per request, in request order) is
//! written under another name and takes its place at once: whatever the file held before stays
//! until then. The journal goes last, so its presence means that the output is not whole.
//!
//! A later run of the same job takes the finished requests from the journal; [`JobKey`] says what
//! makes two jobs the same. Without a journal, an output is recognised as finished by its lines,
//! which tell the prompts' lengths and `-n`, but neither the model nor the sampling.

mod job;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::files::{self, AtomicFile, FilesError, Target};
pub use job::{JobKey, file_stamp, model_stamp};

/// First line of every journal; the number counts its formats.
const MAGIC: &str = "gptoss getp journal 2";
/// Ends the description of the job.
const HEADER_END: &str = "--";
/// Least time between two records that are forced to the disk.
pub const SYNC_EVERY: Duration = Duration::from_millis(500);

/// Why the output cannot be written or gone on with.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The output cannot be made or replaced.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The file system has no locks, or refused one.
    #[error("{path} cannot be locked against other runs: {source}", path = path.display())]
    Lock {
        /// The journal.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A run was interrupted and nobody said what to do with what it left.
    #[error(
        "{path} holds an unfinished run, expected --resume to complete it, or the file deleted",
        path = path.display()
    )]
    Unfinished {
        /// The journal.
        path: PathBuf,
    },
    /// Another process writes the same output.
    #[error("{path} is in use by another run", path = path.display())]
    Busy {
        /// The journal.
        path: PathBuf,
    },
    /// The journal was written by another job.
    #[error("{path} belongs to another job: {name} is \"{found}\", expected \"{expected}\"", path = path.display())]
    OtherJob {
        /// The journal.
        path: PathBuf,
        /// What differs.
        name: String,
        /// The journal's value.
        found: String,
        /// This job's value.
        expected: String,
    },
    /// There is no journal, and the output is not what this job gives.
    #[error("{path} has no journal to resume from, and is not this job's output: {reason}", path = path.display())]
    OtherOutput {
        /// The output.
        path: PathBuf,
        /// What is unlike it.
        reason: String,
    },
    /// A line nobody wrote.
    #[error("{path}: line {line} is no finished request", path = path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The output is a device or a pipe, which has no journal.
    #[error("{path} is no regular file, it cannot be resumed", path = path.display())]
    NotRegular {
        /// The output.
        path: PathBuf,
    },
    /// The output was ended too early.
    #[error("{path}: request {request} is not finished", path = path.display())]
    Missing {
        /// The output.
        path: PathBuf,
        /// The first request without a record.
        request: usize,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> JournalError + '_ {
    move |source| JournalError::Io { path: path.to_owned(), source }
}

/// An output being written.
pub enum OutputFile {
    /// A regular file.
    Journaled(Journal),
    /// A pipe or a device.
    Streamed(Stream),
}

/// The journal's name for an output's name.
pub fn journal_path(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".journal");
    PathBuf::from(name)
}

/// The value that an unfinished run of `output` recorded for `name`.
pub fn recorded(output: &Path, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(journal_path(output)).ok()?;
    let header = text.lines().skip(1).take_while(|&line| line != HEADER_END);
    header.filter_map(|line| line.split_once(' ')).find(|(n, _)| *n == name).map(|(_, v)| v.into())
}

impl OutputFile {
    /// Lines go to `output` in order, and are kept nowhere else.
    pub fn stream(output: Box<dyn Write>, requests: usize) -> OutputFile {
        OutputFile::Streamed(Stream::new(PathBuf::from("standard output"), output, requests))
    }

    /// Starts the output of `requests` requests. A regular file at `path` keeps its content until
    /// [`OutputFile::finish`]; what [`files::target`] refuses is refused.
    pub fn create(path: &Path, requests: usize, job: &JobKey) -> Result<OutputFile, JournalError> {
        if files::target(path)? == Target::Stream {
            let stream = Box::new(files::open_stream(path)?);
            return Ok(OutputFile::Streamed(Stream::new(path.to_owned(), stream, requests)));
        }
        check_writable(path)?;
        Journal::create(path.to_owned(), requests, job).map(OutputFile::Journaled)
    }

    /// Goes on with an unfinished output; `None` when it is finished. Where there is nothing yet,
    /// it is started. `is_whole` says whether a request can have ended with these ids.
    pub fn resume(
        path: &Path,
        requests: usize,
        job: &JobKey,
        is_whole: impl Fn(usize, &[u32]) -> bool,
    ) -> Result<Option<OutputFile>, JournalError> {
        let target = files::target(path)?;
        if target == Target::Stream {
            return Err(JournalError::NotRegular { path: path.to_owned() });
        }
        if target == Target::Regular && !journal_path(path).exists() {
            return check_finished(path, requests, is_whole).map(|()| None);
        }
        check_writable(path)?;
        Journal::resume(path.to_owned(), requests, job).map(OutputFile::Journaled).map(Some)
    }

    /// Whether a request is finished.
    pub fn is_done(&self, request: usize) -> bool {
        match self {
            OutputFile::Journaled(journal) => journal.records[request].is_some(),
            OutputFile::Streamed(stream) => stream.is_done(request),
        }
    }

    /// Records a finished request. In a journal, a kill does not lose it once this returns; a
    /// power cut may, within about [`SYNC_EVERY`].
    pub fn record(&mut self, request: usize, tokens: Vec<u32>) -> Result<(), JournalError> {
        match self {
            OutputFile::Journaled(journal) => journal.record(request, &tokens),
            OutputFile::Streamed(stream) => stream.record(request, tokens),
        }
    }

    /// Ends an output whose requests are all recorded: from now on the file is whole.
    pub fn finish(self) -> Result<(), JournalError> {
        match self {
            OutputFile::Journaled(journal) => journal.finish(),
            OutputFile::Streamed(stream) => stream.finish(),
        }
    }
}

/// A file that may not be written must not be replaced either; better said before the work.
fn check_writable(path: &Path) -> Result<(), JournalError> {
    match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path)(error)),
        _ => Ok(()),
    }
}

/// Refuses an output that this job cannot have written.
fn check_finished(
    path: &Path,
    requests: usize,
    is_whole: impl Fn(usize, &[u32]) -> bool,
) -> Result<(), JournalError> {
    let bytes = std::fs::read(path).map_err(io_error(path))?;
    let text = String::from_utf8_lossy(&bytes);
    let other = |reason| Err(JournalError::OtherOutput { path: path.to_owned(), reason });
    let lines = text.lines().count();
    if lines != requests || !(text.is_empty() || text.ends_with('\n')) {
        return other(format!("it has {lines} lines, expected {requests} whole ones"));
    }
    for (request, line) in text.lines().enumerate() {
        if !parse_ids(line).is_some_and(|ids| is_whole(request, &ids)) {
            return other(format!("line {} is no answer to its prompt", request + 1));
        }
    }
    Ok(())
}

/// Lines written in order as soon as their turn has come.
pub struct Stream {
    path: PathBuf,
    output: Box<dyn Write>,
    /// Finished requests that wait for an earlier one.
    waiting: Vec<Option<Vec<u32>>>,
    /// Requests whose line is in the output: all before this one.
    written: usize,
}

impl Stream {
    fn new(path: PathBuf, output: Box<dyn Write>, requests: usize) -> Stream {
        Stream { path, output, waiting: vec![None; requests], written: 0 }
    }

    fn is_done(&self, request: usize) -> bool {
        request < self.written || self.waiting[request].is_some()
    }

    fn record(&mut self, request: usize, tokens: Vec<u32>) -> Result<(), JournalError> {
        self.waiting[request] = Some(tokens);
        let mut text = String::new();
        while let Some(tokens) = self.waiting.get_mut(self.written).and_then(Option::take) {
            text += spaced(&tokens).trim_start();
            text.push('\n');
            self.written += 1;
        }
        let write = self.output.write_all(text.as_bytes()).and_then(|()| self.output.flush());
        write.map_err(io_error(&self.path))
    }

    fn finish(self) -> Result<(), JournalError> {
        match self.written {
            request if request < self.waiting.len() => {
                Err(JournalError::Missing { path: self.path, request })
            }
            _ => Ok(()),
        }
    }
}

/// ` 1 2 3`: every id behind a space.
fn spaced(tokens: &[u32]) -> String {
    tokens.iter().map(|token| format!(" {token}")).collect()
}

fn parse_ids(line: &str) -> Option<Vec<u32>> {
    line.split_whitespace().map(|word| word.parse().ok()).collect()
}

/// Finished requests in a file of their own.
pub struct Journal {
    output: PathBuf,
    path: PathBuf,
    file: File,
    /// Bytes of whole records.
    length: u64,
    /// Where in the file the ids of each finished request are, with a space before each.
    records: Vec<Option<Span>>,
    synced: Instant,
}

/// Bytes of a file.
#[derive(Clone, Copy)]
struct Span {
    start: u64,
    bytes: usize,
}

impl Journal {
    fn create(output: PathBuf, requests: usize, job: &JobKey) -> Result<Journal, JournalError> {
        let path = journal_path(&output);
        let mut options = OpenOptions::new();
        let file = match options.read(true).append(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(JournalError::Unfinished { path });
            }
            file => file.map_err(io_error(&path))?,
        };
        Journal::new(output, path, file, requests, job)
    }

    fn resume(output: PathBuf, requests: usize, job: &JobKey) -> Result<Journal, JournalError> {
        let path = journal_path(&output);
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).open(&path);
        let file = file.map_err(io_error(&path))?;
        Journal::new(output, path, file, requests, job)
    }

    /// Takes what is in the file, and starts it where that is nothing.
    fn new(
        output: PathBuf,
        path: PathBuf,
        mut file: File,
        requests: usize,
        job: &JobKey,
    ) -> Result<Journal, JournalError> {
        lock(&file, &path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io_error(&path))?;
        let mut records = vec![None; requests];
        let length = restore(&path, &bytes, job, &mut records)? as u64;
        // A record cut short by a kill is computed again.
        file.set_len(length).map_err(io_error(&path))?;
        let mut journal = Journal { output, path, file, length, records, synced: Instant::now() };
        if length == 0 {
            journal.append(&header(job))?;
        }
        journal.sync()?;
        sync_folder(&journal.path)?;
        Ok(journal)
    }

    fn record(&mut self, request: usize, tokens: &[u32]) -> Result<(), JournalError> {
        let name = format!("{request}:");
        let ids = spaced(tokens);
        let start = self.length + name.len() as u64;
        self.append(&format!("{name}{ids}\n"))?;
        self.records[request] = Some(Span { start, bytes: ids.len() });
        if self.synced.elapsed() >= SYNC_EVERY {
            self.sync()?;
        }
        Ok(())
    }

    /// Adds a record, whole or not at all.
    fn append(&mut self, record: &str) -> Result<(), JournalError> {
        if let Err(source) = self.file.write_all(record.as_bytes()) {
            // The reader drops an unfinished record as well, so that this may fail.
            let _ = self.file.set_len(self.length);
            return Err(JournalError::Io { path: self.path.clone(), source });
        }
        self.length += record.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        self.file.sync_data().map_err(io_error(&self.path))?;
        self.synced = Instant::now();
        Ok(())
    }

    fn finish(mut self) -> Result<(), JournalError> {
        self.sync()?;
        self.write_output()?;
        std::fs::remove_file(&self.path).map_err(io_error(&self.path))?;
        sync_folder(&self.path)
    }

    /// Makes the output from the records.
    fn write_output(&self) -> Result<(), JournalError> {
        let mut file = AtomicFile::create(&self.output)?;
        let mut writer = BufWriter::new(&mut file);
        for (request, record) in self.records.iter().enumerate() {
            let missing = || JournalError::Missing { path: self.output.clone(), request };
            let Span { start, bytes } = record.ok_or_else(missing)?;
            let mut line = vec![0; bytes];
            self.file.read_exact_at(&mut line, start).map_err(io_error(&self.path))?;
            line.push(b'\n');
            let line = line.strip_prefix(b" ").unwrap_or(&line);
            writer.write_all(line).map_err(io_error(&self.output))?;
        }
        writer.flush().map_err(io_error(&self.output))?;
        drop(writer);
        // A full disk may show only now; the journal stays then.
        Ok(file.commit()?)
    }
}

/// Takes the journal for this process. Whoever held it before may have finished and removed it
/// meanwhile: a file without a name is nobody's journal.
fn lock(file: &File, path: &Path) -> Result<(), JournalError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => JournalError::Busy { path: path.to_owned() },
        TryLockError::Error(source) => JournalError::Lock { path: path.to_owned(), source },
    })?;
    let ours = file.metadata().map_err(io_error(path))?;
    match std::fs::metadata(path) {
        Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => Ok(()),
        _ => Err(JournalError::Busy { path: path.to_owned() }),
    }
}

/// Makes a name that was created or removed last through a power cut.
fn sync_folder(path: &Path) -> Result<(), JournalError> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    Ok(files::sync_folder(folder)?)
}

/// The text before the first record in a journal of `job`.
pub fn header(job: &JobKey) -> String {
    let fields = job.fields();
    let fields: String = fields.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
    format!("{MAGIC}\n{fields}{HEADER_END}\n")
}

/// How many requests of `job` are finished, by the bytes of its journal.
pub fn finished(bytes: &[u8], job: &JobKey) -> Result<usize, JournalError> {
    let mut records = vec![None; job.requests];
    restore(Path::new("the journal"), bytes, job, &mut records)?;
    Ok(records.iter().flatten().count())
}

/// Takes the finished requests of a journal of `job` and returns the bytes of its whole lines; 0
/// when not even the header is whole.
fn restore(
    path: &Path,
    bytes: &[u8],
    job: &JobKey,
    records: &mut [Option<Span>],
) -> Result<usize, JournalError> {
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let damaged = |line: usize| JournalError::Damaged { path: path.to_owned(), line: line + 1 };
    let text = match std::str::from_utf8(&bytes[..whole]) {
        Ok(text) => text,
        Err(error) => {
            let before = &bytes[..error.valid_up_to()];
            return Err(damaged(before.iter().filter(|&&byte| byte == b'\n').count()));
        }
    };
    let mut lines = text.lines().enumerate();
    let Some((_, magic)) = lines.next() else {
        return if MAGIC.as_bytes().starts_with(bytes) { Ok(0) } else { Err(damaged(0)) };
    };
    check_magic(path, magic)?;
    if !text.lines().any(|line| line == HEADER_END) {
        return Ok(0);
    }
    for (name, expected) in job.fields() {
        let (line, text) = lines.next().ok_or_else(|| damaged(0))?;
        let (found_name, found) = text.split_once(' ').ok_or_else(|| damaged(line))?;
        if (found_name, found) != (name, &expected) {
            return Err(JournalError::OtherJob {
                path: path.to_owned(),
                name: name.to_owned(),
                found: found.to_owned(),
                expected,
            });
        }
    }
    match lines.next() {
        Some((_, HEADER_END)) => {}
        other => return Err(damaged(other.map_or(0, |(line, _)| line))),
    }
    for (line, record) in lines {
        let (request, ids) = parse_record(record).ok_or_else(|| damaged(line))?;
        let start = (ids.as_ptr().addr() - text.as_ptr().addr()) as u64;
        let span = Span { start, bytes: ids.len() };
        *records.get_mut(request).ok_or_else(|| damaged(line))? = Some(span);
    }
    Ok(whole)
}

fn check_magic(path: &Path, found: &str) -> Result<(), JournalError> {
    let name = |line: &str| line.rsplit_once(' ').map(|(name, _)| name.to_owned());
    if found == MAGIC {
        return Ok(());
    }
    if name(found) != name(MAGIC) {
        return Err(JournalError::Damaged { path: path.to_owned(), line: 1 });
    }
    Err(JournalError::OtherJob {
        path: path.to_owned(),
        name: String::from("format"),
        found: found.escape_debug().to_string(),
        expected: MAGIC.to_owned(),
    })
}

/// The request of a record, and its ids as they stand.
fn parse_record(line: &str) -> Option<(usize, &str)> {
    let (request, ids) = line.split_once(':')?;
    parse_ids(ids)?;
    Some((request.parse().ok()?, ids))
}
