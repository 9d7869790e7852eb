//! A daemon's own log: a file that is rotated, which also takes what the process writes to stderr.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::files;

/// The log.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Whether stdout and stderr go there too.
    streams: bool,
}

impl Log {
    /// Opens the log at `path` to append.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            files::private_dir(dir)?;
        }
        Self::at(path)
    }

    /// The same in a directory that is not ours: its mode is left alone.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let file = append(path)?;
        Ok(Self { path: path.to_owned(), open: Mutex::new(Open { file, streams: false }) })
    }

    /// The name that a full log is moved to.
    #[must_use]
    pub fn previous(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".1");
        name.into()
    }

    /// Whether the file is still the one at its path: somebody else may have moved or removed it.
    pub(crate) fn is_in_place(&self) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        files::length_at(&open.file, &self.path).is_some()
    }

    /// Goes on in the file that is at the path now, or in a new one.
    fn renew(&self, open: &mut Open) -> io::Result<()> {
        rotate(&self.path)?;
        open.file = append(&self.path)?;
        if open.streams {
            take_streams(&open.file)?;
        }
        Ok(())
    }
}

/// Moves the log at `path` out of the way if it is full. Processes that write to the same one take turns, so that nobody
/// moves the new file over the full one; while another one is at it, nothing is done.
///
/// # Errors
/// What the system says.
pub(crate) fn rotate(path: &Path) -> io::Result<()> {
    let file = match OpenOptions::new().append(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // It may have been moved between the look at it and the lock.
    if files::length_at(&file, path).is_some_and(|length| length >= ROTATE) {
        std::fs::rename(path, Log::previous(path))?;
    }
    Ok(())
}

/// Makes this process a daemon: a session of its own, its output in the log. The one way back to whoever started it is
/// what stderr was: for the last words of one that ends at once.
///
/// # Errors
/// What the system says.
pub fn detach(log: &Log) -> io::Result<File> {
    let stderr = io::stderr().as_fd().try_clone_to_owned()?;
    // A process that leads a group already cannot have a session of its own; then it was started for itself.
    let _ = rustix::process::setsid();
    let mut open = log.open.lock().unwrap_or_else(PoisonError::into_inner);
    open.streams = true;
    take_streams(&open.file)?;
    Ok(stderr.into())
}

impl Write for &Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if files::length_at(&open.file, &self.path).is_none_or(|length| length >= ROTATE) {
            // A log that cannot be moved grows on rather than losing what is said.
            let _ = self.renew(&mut open);
        }
        open.file.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn take_streams(file: &File) -> io::Result<()> {
    rustix::stdio::dup2_stdout(file)?;
    rustix::stdio::dup2_stderr(file)?;
    Ok(())
}

/// A file and its predecessor: at most twice this.
pub(crate) const ROTATE: u64 = 10 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn full_log_is_rotated_and_appended_to_across_starts() {
        let dir = TempDir::new();
        let path = dir.path().join("logs/agent-1.log");
        for _ in 0..2 {
            let log = Log::open(&path).expect("opens");
            for _ in 0..6 {
                (&log).write_all(&vec![b'x'; 1024 * 1024]).expect("writes");
            }
        }
        let length = |path: &Path| std::fs::metadata(path).expect("exists").len();
        assert_eq!((length(&path), length(&Log::previous(&path))), (2 * 1024 * 1024, ROTATE));
    }
    #[test]
    fn two_writers_of_one_log_keep_every_line_of_a_rotation() {
        let dir = TempDir::new();
        let path = dir.path().join("logs/audit.log");
        let (one, other) = (Log::open(&path).expect("opens"), Log::open(&path).expect("opens"));
        (&one).write_all(&vec![b'x'; 10 * 1024 * 1024]).expect("writes");
        for (log, line) in [(&one, "one"), (&other, "two"), (&one, "three"), (&other, "four")] {
            let mut log = log;
            log.write_all(line.as_bytes()).expect("writes");
        }
        assert_eq!(std::fs::read_to_string(&path).expect("is there"), "onetwothreefour");
        assert_eq!(std::fs::metadata(Log::previous(&path)).expect("kept").len(), ROTATE);
    }

    #[test]
    fn log_that_another_process_is_moving_is_written_on() {
        let dir = TempDir::new();
        let path = dir.path().join("logs/audit.log");
        let log = Log::open(&path).expect("opens");
        (&log).write_all(&vec![b'x'; 10 * 1024 * 1024]).expect("writes");
        let held = File::open(&path).expect("is there");
        held.lock().expect("nobody else has it");
        (&log).write_all(b"meanwhile").expect("writes");
        assert!(!Log::previous(&path).exists());
        drop(held);
        (&log).write_all(b"after").expect("writes");
        assert_eq!(std::fs::read(&path).expect("is there"), b"after");
        assert_eq!(std::fs::metadata(Log::previous(&path)).expect("kept").len(), ROTATE + 9);
    }

    #[test]
    fn removed_log_is_begun_again() {
        let dir = TempDir::new();
        let path = dir.path().join("logs/agent-1.log");
        let log = Log::open(&path).expect("opens");
        (&log).write_all(b"gone").expect("writes");
        std::fs::remove_file(&path).expect("is there");
        assert!(!log.is_in_place());
        (&log).write_all(b"here").expect("writes");
        assert_eq!(std::fs::read(&path).expect("is there again"), b"here");
    }
}
