//! The getp output file, written so that nothing finished is ever lost.
//!
//! The output has one line of ids per request, in request order; a line is written as soon as all
//! before it are. Every finished request goes first to a journal beside the output, in whatever
//! order they finish, as one `write` each: an interrupt, a kill or a full disk costs only the
//! requests in flight. A later run with the same job takes the finished ones from the journal. The
//! journal goes when the output is whole, so its presence means that the output is not.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// First line of every journal.
const MAGIC: &str = "gptoss getp journal 1";
/// Ends the description of the job.
const HEADER_END: &str = "--";

/// What determines the output of a job, as names and values; the journal of another job is
/// refused.
pub type JobKey = Vec<(&'static str, String)>;

/// Tokens of each request, where it is finished.
type Done = Vec<Option<Vec<u32>>>;

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
    #[error("{path} belongs to another job: {name} is {found:?}, expected {expected:?}", path = path.display())]
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
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> JournalError + '_ {
    move |source| JournalError::Io { path: path.to_owned(), source }
}

/// An output being written.
pub struct OutputFile {
    path: PathBuf,
    output: Box<dyn Write>,
    journal: Option<Journal>,
    /// Finished requests that are not in the output yet.
    done: Done,
    /// Requests whose line is in the output: all before this one.
    written: usize,
}

struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes of whole records.
    length: u64,
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
        let path = PathBuf::from("standard output");
        OutputFile { path, output, journal: None, done: vec![None; requests], written: 0 }
    }

    /// Creates the output, or with `resume` goes on with an unfinished one.
    pub fn create(
        path: &Path,
        requests: usize,
        job: &JobKey,
        resume: bool,
    ) -> Result<OutputFile, JournalError> {
        let regular = std::fs::metadata(path).map_or(true, |metadata| metadata.is_file());
        if !regular {
            if resume {
                return Err(JournalError::NotRegular { path: path.to_owned() });
            }
            let file = OpenOptions::new().write(true).open(path).map_err(io_error(path))?;
            let stream = OutputFile::stream(Box::new(file), requests);
            return Ok(OutputFile { path: path.to_owned(), ..stream });
        }
        let (journal, done) = Journal::open(journal_path(path), requests, job, resume)?;
        // The journal holds every line, so that the output is simply written anew.
        let file = File::create(path).map_err(io_error(path))?;
        let mut output = OutputFile {
            path: path.to_owned(),
            output: Box::new(file),
            journal: Some(journal),
            done,
            written: 0,
        };
        output.write_ready()?;
        Ok(output)
    }

    /// Whether a request is finished.
    pub fn is_done(&self, request: usize) -> bool {
        request < self.written || self.done[request].is_some()
    }

    /// Records a finished request: when this returns, a kill does not lose it.
    pub fn record(&mut self, request: usize, tokens: Vec<u32>) -> Result<(), JournalError> {
        if let Some(journal) = &mut self.journal {
            journal.append(&format!("{request}:{}\n", spaced(&tokens, " ")))?;
        }
        self.done[request] = Some(tokens);
        self.write_ready()
    }

    /// Writes the lines whose turn has come.
    fn write_ready(&mut self) -> Result<(), JournalError> {
        let mut text = String::new();
        while let Some(tokens) = self.done.get_mut(self.written).and_then(Option::take) {
            text += spaced(&tokens, "").trim_start();
            text.push('\n');
            self.written += 1;
        }
        let write = self.output.write_all(text.as_bytes()).and_then(|()| self.output.flush());
        write.map_err(io_error(&self.path))
    }

    /// Ends a whole output. Every request is recorded by now.
    pub fn finish(self) -> Result<(), JournalError> {
        let Some(journal) = self.journal else { return Ok(()) };
        // A full disk may show only now; the journal stays then.
        let sync = File::open(&self.path).and_then(|file| file.sync_all());
        sync.map_err(io_error(&self.path))?;
        std::fs::remove_file(&journal.path).map_err(io_error(&journal.path))
    }
}

/// ` 1 2 3`: every id behind a space, and `empty` when there is none.
fn spaced(tokens: &[u32], empty: &str) -> String {
    if tokens.is_empty() {
        return empty.to_owned();
    }
    tokens.iter().map(|token| format!(" {token}")).collect()
}

impl Journal {
    /// Opens or creates the journal; the finished requests come with it.
    fn open(
        path: PathBuf,
        requests: usize,
        job: &JobKey,
        resume: bool,
    ) -> Result<(Journal, Done), JournalError> {
        if !resume && path.exists() {
            return Err(JournalError::Unfinished { path });
        }
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(io_error(&path))?;
        if file.try_lock().is_err() {
            return Err(JournalError::Busy { path });
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io_error(&path))?;
        let mut done = vec![None; requests];
        let length = restore(&path, &bytes, job, &mut done)? as u64;
        // A record cut short by a kill is computed again.
        file.set_len(length).map_err(io_error(&path))?;
        let mut journal = Journal { path, file, length };
        if length == 0 {
            let header: String =
                job.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
            journal.append(&format!("{MAGIC}\n{header}{HEADER_END}\n"))?;
        }
        Ok((journal, done))
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
}

/// Takes the finished requests of a journal of `job` and returns the bytes of its whole lines; 0
/// when not even the header is whole.
fn restore(
    path: &Path,
    bytes: &[u8],
    job: &JobKey,
    done: &mut [Option<Vec<u32>>],
) -> Result<usize, JournalError> {
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let text = String::from_utf8_lossy(&bytes[..whole]);
    let mut lines = text.lines().enumerate();
    let damaged = |line: usize| JournalError::Damaged { path: path.to_owned(), line: line + 1 };
    let header_is_whole = text.lines().any(|line| line == HEADER_END);
    match lines.next() {
        Some((_, MAGIC)) if header_is_whole => {}
        None | Some((_, MAGIC)) => return Ok(0),
        Some((line, _)) => return Err(damaged(line)),
    }
    for (name, expected) in job {
        let (line, text) = lines.next().ok_or_else(|| damaged(0))?;
        let (found_name, found) = text.split_once(' ').ok_or_else(|| damaged(line))?;
        if (found_name, found) != (name, expected) {
            return Err(JournalError::OtherJob {
                path: path.to_owned(),
                name: (*name).to_owned(),
                found: found.to_owned(),
                expected: expected.clone(),
            });
        }
    }
    match lines.next() {
        Some((_, HEADER_END)) => {}
        Some((line, _)) => return Err(damaged(line)),
        None => return Err(damaged(job.len())),
    }
    for (line, text) in lines {
        let (request, tokens) = parse_record(text).ok_or_else(|| damaged(line))?;
        *done.get_mut(request).ok_or_else(|| damaged(line))? = Some(tokens);
    }
    Ok(whole)
}

fn parse_record(line: &str) -> Option<(usize, Vec<u32>)> {
    let (request, tokens) = line.split_once(':')?;
    let tokens = tokens.split_whitespace().map(|word| word.parse().ok());
    Some((request.parse().ok()?, tokens.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(n: &str) -> JobKey {
        vec![("requests", String::from("4")), ("n", n.to_owned())]
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.txt");
        (dir, path)
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    const WHOLE: &str = "1 2\n\n5\n7 8 9\n";

    fn finish(mut output: OutputFile) {
        for (request, tokens) in [(0, vec![1, 2]), (1, vec![]), (2, vec![5]), (3, vec![7, 8, 9])] {
            if !output.is_done(request) {
                output.record(request, tokens).unwrap();
            }
        }
        output.finish().unwrap();
    }

    #[test]
    fn lines_come_in_request_order_as_soon_as_they_can() {
        let (_dir, path) = folder();
        let mut output = OutputFile::create(&path, 4, &job("64"), false).unwrap();
        output.record(3, vec![7, 8, 9]).unwrap();
        assert_eq!(read(&path), "");
        output.record(0, vec![1, 2]).unwrap();
        assert_eq!(read(&path), "1 2\n");
        output.record(1, vec![]).unwrap();
        output.record(2, vec![5]).unwrap();
        assert_eq!(read(&path), WHOLE);
        output.finish().unwrap();
        assert!(!journal_path(&path).exists());
    }

    #[test]
    fn a_run_cut_anywhere_resumes_to_the_same_bytes() {
        let (_dir, path) = folder();
        let mut output = OutputFile::create(&path, 4, &job("64"), false).unwrap();
        output.record(3, vec![7, 8, 9]).unwrap();
        output.record(0, vec![1, 2]).unwrap();
        drop(output);
        let journal = std::fs::read(journal_path(&path)).unwrap();
        let finished = |cut: usize| {
            journal[..cut].split(|&b| b == b'\n').skip(4).filter(|l| !l.is_empty()).count()
        };
        for cut in 0..=journal.len() {
            std::fs::write(journal_path(&path), &journal[..cut]).unwrap();
            // Whatever the output holds, the journal decides.
            std::fs::write(&path, "1 2\n9").unwrap();
            let output = OutputFile::create(&path, 4, &job("64"), true).unwrap();
            let kept = (0..4).filter(|&request| output.is_done(request)).count();
            let torn = usize::from(journal.get(cut.wrapping_sub(1)) != Some(&b'\n'));
            assert!(kept + torn >= finished(cut), "{kept} kept after a cut at {cut}");
            finish(output);
            assert_eq!(read(&path), WHOLE, "cut at {cut}");
        }
    }

    #[test]
    fn an_unfinished_run_is_not_overwritten() {
        let (_dir, path) = folder();
        drop(OutputFile::create(&path, 4, &job("64"), false).unwrap());
        let error = OutputFile::create(&path, 4, &job("64"), false).err().unwrap();
        assert!(error.to_string().contains("--resume"), "{error}");
    }

    #[test]
    fn another_job_is_refused_with_what_differs() {
        let (_dir, path) = folder();
        drop(OutputFile::create(&path, 4, &job("64"), false).unwrap());
        assert_eq!(recorded(&path, "n").as_deref(), Some("64"));
        let error = OutputFile::create(&path, 4, &job("65"), true).err().unwrap().to_string();
        assert!(error.contains(r#"n is "64", expected "65""#), "{error}");
    }

    #[test]
    fn two_runs_do_not_share_an_output() {
        let (_dir, path) = folder();
        let _first = OutputFile::create(&path, 4, &job("64"), false).unwrap();
        let error = OutputFile::create(&path, 4, &job("64"), true).err().unwrap();
        assert!(matches!(error, JournalError::Busy { .. }), "{error}");
    }

    #[test]
    fn a_damaged_journal_is_refused_by_line() {
        let (_dir, path) = folder();
        drop(OutputFile::create(&path, 4, &job("64"), false).unwrap());
        let header = read(&journal_path(&path));
        for (text, line) in [
            (String::from("garbage\n"), 1),
            (format!("{header}x: 1\n"), 5),
            (format!("{header}0: 1\n4: 1\n"), 6),
            (format!("{header}0: one\n"), 5),
        ] {
            std::fs::write(journal_path(&path), &text).unwrap();
            let error = OutputFile::create(&path, 4, &job("64"), true).err().unwrap();
            assert!(matches!(error, JournalError::Damaged { line: l, .. } if l == line), "{error}");
        }
    }

    #[test]
    fn a_full_device_is_an_error() {
        let path = Path::new("/dev/full");
        let mut output = OutputFile::create(path, 1, &job("64"), false).unwrap();
        let error = output.record(0, vec![1]).unwrap_err().to_string();
        assert!(error.starts_with("/dev/full: No space left"), "{error}");
        assert!(OutputFile::create(path, 1, &job("64"), true).is_err());
    }
}
