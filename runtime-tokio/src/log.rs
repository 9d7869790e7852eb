//! A daemon's own log: a file that is rotated, which also takes what the process writes to stderr.

use std::fs::{File, OpenOptions};
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
    length: u64,
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
        let length = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), open: Mutex::new(Open { file, length, streams: false }) })
    }

    /// The name that a full log is moved to.
    #[must_use]
    pub fn previous(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".1");
        name.into()
    }

    fn rotate(&self, open: &mut Open) -> io::Result<()> {
        std::fs::rename(&self.path, Self::previous(&self.path))?;
        open.file = append(&self.path)?;
        open.length = 0;
        if open.streams {
            take_streams(&open.file)?;
        }
        Ok(())
    }
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
        if open.length >= ROTATE {
            // A log that cannot be moved grows on rather than losing what is said.
            let _ = self.rotate(&mut open);
        }
        let written = open.file.write(line)?;
        open.length = open.length.saturating_add(written as u64);
        Ok(written)
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
const ROTATE: u64 = 10 * 1024 * 1024;

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
}
