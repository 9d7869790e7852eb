//! A server's stderr: appended to a file that is rotated, its end kept for people.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::log::ROTATE;
use crate::rt;
use crate::{files, log};

/// The log of one server.
#[derive(Debug)]
pub(crate) struct StderrLog {
    path: PathBuf,
    /// Opened at the first byte; none again after a failure, which is told once.
    file: Option<File>,
    failed: bool,
    tail: VecDeque<u8>,
}

impl StderrLog {
    /// The log of `server` under `logs`.
    pub(crate) fn new(logs: &Path, server: &str) -> Self {
        let path = logs.join(format!("{}.stderr.log", files::file_name(server)));
        Self { path, file: None, failed: false, tail: VecDeque::new() }
    }

    /// Adds what the server said. A log that cannot be written costs the log, not the server.
    pub(crate) async fn append(&mut self, bytes: &[u8]) {
        self.tail.extend(&bytes[bytes.len().saturating_sub(TAIL)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL));
        if self.failed {
            return;
        }
        if let Err(error) = self.write(bytes).await {
            tracing::warn!(path = %self.path.display(), %error, "cannot write a server's log");
            self.failed = true;
            self.file = None;
        }
    }

    /// The last of it, at most 2 KiB, beginning with a whole line where there is one.
    pub(crate) fn tail(&self) -> String {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        if self.tail.len() == TAIL
            && let Some(end) = text.find('\n').filter(|end| end + 1 < text.len())
        {
            text.drain(..=end);
        }
        // Replacement characters are longer than what they replace.
        while text.len() > TAIL {
            text.pop();
        }
        text
    }

    /// On a thread that may wait for the disk.
    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let (file, path, bytes) = (self.file.take(), self.path.clone(), bytes.to_vec());
        let written = rt::spawn_blocking(move || {
            // Another agent may have a server of that name, and rotate the same log; a person may remove it.
            let is_to_be_kept = |file: &File| files::length_at(file, &path).is_some_and(|length| length < ROTATE);
            let mut file = match file.filter(is_to_be_kept) {
                Some(file) => file,
                None => open(&path)?,
            };
            file.write_all(&bytes)?;
            Ok(file)
        });
        self.file = Some(written.await.unwrap_or_else(|error| Err(std::io::Error::other(error)))?);
        Ok(())
    }
}

/// Opens the file to append; one that is full first makes room for a new one.
fn open(path: &Path) -> std::io::Result<File> {
    if let Some(dir) = path.parent() {
        files::private_dir(dir)?;
    }
    log::rotate(path)?;
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// What is kept in memory for `status`.
const TAIL: usize = 2 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    #[crate::rt::test]
    async fn tail_is_the_last_whole_lines() {
        let dir = TempDir::new();
        let mut log = StderrLog::new(dir.path(), "server");
        log.append(b"short\n").await;
        assert_eq!(log.tail(), "short\n");
        for n in 0..1000 {
            log.append(format!("line {n}\n").as_bytes()).await;
        }
        let tail = log.tail();
        assert!(tail.len() <= TAIL && tail.starts_with("line ") && tail.ends_with("line 999\n"), "{tail}");
        assert!(StderrLog::new(dir.path(), "x").tail().is_empty());
    }

    #[crate::rt::test]
    async fn full_log_is_rotated_and_appended_to_across_starts() {
        let dir = TempDir::new();
        let mut log = StderrLog::new(dir.path(), "a/b");
        let mebibyte = vec![b'x'; 1024 * 1024];
        for _ in 0..11 {
            log.append(&mebibyte).await;
        }
        drop(log);
        StderrLog::new(dir.path(), "a/b").append(b"again\n").await;
        let mut sizes: Vec<_> = std::fs::read_dir(dir.path())
            .expect("lists")
            .map(|f| f.expect("a file").metadata().expect("has").len())
            .collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [1024 * 1024 + 6, ROTATE]);
    }

    #[crate::rt::test]
    async fn two_servers_of_one_name_lose_nothing_by_a_rotation() {
        let dir = TempDir::new();
        let (mut one, mut other) = (StderrLog::new(dir.path(), "same"), StderrLog::new(dir.path(), "same"));
        one.append(b"one\n").await;
        other.append(&vec![b'x'; 10 * 1024 * 1024]).await;
        one.append(b"one\n").await;
        other.append(b"other\n").await;
        let length = |name: &str| std::fs::metadata(dir.path().join(name)).expect("is there").len();
        assert_eq!((length("same.stderr.log"), length("same.stderr.log.1")), (10, ROTATE + 4));
    }

    #[crate::rt::test]
    async fn log_that_cannot_be_written_keeps_the_tail() {
        let mut log = StderrLog::new(Path::new("/dev/null"), "server");
        log.append(b"still here\n").await;
        log.append(b"and here\n").await;
        assert_eq!(log.tail(), "still here\nand here\n");
    }
}
