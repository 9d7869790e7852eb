//! The audit: lines appended to a rotated file of its owner's, by a thread of its own.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use rustix::fs::Access;
use tunnel_core::config::AuditFile;

use crate::files;
use crate::log::Log;

/// The thread that writes, and the way to it.
type Writer = (SyncSender<Line>, JoinHandle<()>);
/// A line, and where it goes; an empty one only opens the file.
type Line = (AuditFile, Bytes);
/// Hears whether it can be written, whenever that changes.
type Tell = Arc<dyn Fn(Result<(), String>) + Send + Sync>;

/// A relay's audit: one for all its machines, whose lines keep the order in which each machine wrote them.
#[derive(Clone)]
pub(crate) struct Shared {
    file: AuditFile,
    audit: Arc<Mutex<Audit>>,
}

impl Shared {
    /// An audit in `file`, whose default is in `dir`. The file is opened once, so that one that cannot be written to is
    /// known from the start.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn open(dir: Option<&Path>, file: AuditFile) -> io::Result<Self> {
        let dir = match (dir, &file) {
            (Some(dir), _) => dir,
            (None, AuditFile::At(_)) => Path::new(""),
            (None, AuditFile::Default) => return Err(io::Error::other("there is no state directory to keep it in")),
        };
        open_file(dir, &file)?;
        // What goes wrong later is in the log.
        let audit = Audit::new(dir.to_owned(), |_| ());
        Ok(Self { file, audit: Arc::new(Mutex::new(audit)) })
    }

    /// Appends a line.
    pub(crate) fn append(&self, line: Bytes) {
        self.lock().append(self.file.clone(), line);
    }

    /// Waits until all is written.
    pub(crate) fn finish(&self) {
        self.lock().finish();
    }

    fn lock(&self) -> MutexGuard<'_, Audit> {
        // What is behind it is sound after each step.
        self.audit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where an agent's lines go.
pub(crate) struct Audit {
    logs: PathBuf,
    tell: Tell,
    writer: Option<Writer>,
    /// Lines that found no room since the last one that did.
    lost: u64,
}

impl Audit {
    /// An audit whose default file is in `logs`. `tell` hears whether it can be written, whenever that changes.
    pub(crate) fn new(logs: PathBuf, tell: impl Fn(Result<(), String>) + Send + Sync + 'static) -> Self {
        Self { logs, tell: Arc::new(tell), writer: None, lost: 0 }
    }

    /// Opens the file before there is a line.
    pub(crate) fn open(&mut self, file: AuditFile) {
        self.append(file, Bytes::new());
    }

    /// Appends a line. Should the disk not keep up, calls are not held up for it: what is lost is counted, and told.
    pub(crate) fn append(&mut self, file: AuditFile, line: Bytes) {
        let (logs, tell) = (&self.logs, &self.tell);
        let (sender, _) = self.writer.get_or_insert_with(|| start(logs.clone(), Arc::clone(tell)));
        if self.lost > 0 {
            let note = Bytes::from(format!("{{\"lost\":{}}}\n", self.lost));
            if sender.try_send((file.clone(), note)).is_ok() {
                tracing::warn!(lines = self.lost, "the audit was too slow: lines were lost");
                self.lost = 0;
            }
        }
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = sender.try_send((file, line)) {
            self.lost += 1;
        }
    }

    /// Waits until all is written.
    pub(crate) fn finish(&mut self) {
        if let Some((sender, thread)) = self.writer.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.finish();
    }
}

fn start(logs: PathBuf, tell: Tell) -> Writer {
    let (sender, lines) = sync_channel(WAITING);
    (sender, std::thread::spawn(move || write(&logs, &lines, &*tell)))
}

fn write(logs: &Path, lines: &Receiver<Line>, tell: &dyn Fn(Result<(), String>)) {
    let mut open: Option<(AuditFile, Log)> = None;
    let mut failed = false;
    for (file, line) in lines {
        // Who keeps the audit may move or remove it, and another agent may write the same one and rotate it.
        if open.as_ref().is_none_or(|(opened, log)| *opened != file || !log.is_in_place()) {
            open = None;
        }
        let written = match &open {
            Some((_, log)) => (&*log).write_all(&line),
            None => open_file(logs, &file).and_then(|log| {
                (&log).write_all(&line)?;
                open = Some((file.clone(), log));
                Ok(())
            }),
        };
        // Told once: the next lines will hardly fare better.
        match &written {
            Err(error) if !failed => {
                tracing::error!(%error, ?file, "the audit cannot be written");
                tell(Err(format!("{}: {error}", path(logs, &file).display())));
            }
            Ok(()) if failed => tell(Ok(())),
            Err(_) | Ok(()) => {}
        }
        failed = written.is_err();
    }
}

fn open_file(logs: &Path, file: &AuditFile) -> io::Result<Log> {
    if *file == AuditFile::Default {
        files::private_dir(logs)?;
    }
    let path = path(logs, file);
    let log = Log::at(&path)?;
    // One that was there already may be everybody's to read.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(log)
}

fn path(logs: &Path, file: &AuditFile) -> PathBuf {
    match file {
        AuditFile::Default => logs.join("audit.log"),
        AuditFile::At(path) => PathBuf::from(path),
    }
}

/// Whether the audit whose default file is in `logs` could be written, found out without leaving a file behind.
///
/// # Errors
/// Why not.
pub fn check(logs: &Path, file: &AuditFile) -> Result<(), String> {
    let path = path(logs, file);
    let unwritable = |error: io::Error| format!("{}: {error}", path.display());
    match OpenOptions::new().append(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened.map(drop).map_err(unwritable),
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Its own directory is made.
    if *file == AuditFile::Default && !dir.exists() {
        return Ok(());
    }
    rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| unwritable(error.into()))
}

/// Lines that wait for the disk: a second's worth of very many calls.
const WAITING: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn lines_are_appended_in_order_for_their_owner_alone() {
        let dir = TempDir::new();
        let logs = dir.path().join("logs");
        for run in 0..2 {
            let mut audit = Audit::new(logs.clone(), |_| panic!("it can be written"));
            for line in 0..10 {
                audit.append(AuditFile::Default, Bytes::from(format!("{run} {line}\n")));
            }
            audit.finish();
        }
        let path = logs.join("audit.log");
        let text = std::fs::read_to_string(&path).expect("it is there");
        assert_eq!(text.lines().count(), 20);
        assert!(text.starts_with("0 0\n0 1\n") && text.ends_with("1 9\n"), "{text}");
        assert_eq!(std::fs::metadata(&path).expect("exists").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn shared_audit_takes_lines_from_everybody() {
        let dir = TempDir::new();
        let audit = Shared::open(Some(dir.path()), AuditFile::Default).expect("it can be written to");
        let threads = (0..4).map(|thread| {
            let audit = audit.clone();
            std::thread::spawn(move || (0..50).for_each(|_| audit.append(Bytes::from(format!("{thread}\n")))))
        });
        threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().expect("it ends"));
        audit.finish();
        let text = std::fs::read_to_string(dir.path().join("audit.log")).expect("it is there");
        assert_eq!(text.lines().count(), 200);
    }

    #[test]
    fn audit_that_cannot_be_kept_is_known_from_the_start() {
        let nowhere = AuditFile::At("/dev/null/audit".into());
        assert!(Shared::open(None, nowhere).is_err() && Shared::open(None, AuditFile::Default).is_err());
    }

    #[test]
    fn own_file_is_narrowed_and_its_directory_left_alone() {
        let dir = TempDir::new();
        let wide = dir.path().join("wide");
        std::fs::create_dir(&wide).expect("made");
        std::fs::set_permissions(&wide, std::fs::Permissions::from_mode(0o755)).expect("set");
        let path = wide.join("audit.jsonl");
        std::fs::write(&path, "before\n").expect("written");
        let mut audit = Audit::new(dir.path().join("logs"), |_| panic!("it can be written"));
        audit.append(AuditFile::At(path.display().to_string()), Bytes::from_static(b"after\n"));
        audit.finish();
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "before\nafter\n");
        let mode = |path: &Path| std::fs::metadata(path).expect("exists").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&wide)), (0o600, 0o755));
        assert!(!dir.path().join("logs").exists());
    }

    #[test]
    fn audit_that_was_removed_or_replaced_goes_on_in_its_place() {
        let dir = TempDir::new();
        let path = dir.path().join("audit.log");
        let (told, heard) = std::sync::mpsc::channel();
        let mut audit = Audit::new(dir.path().to_owned(), move |result| told.send(result).expect("heard"));
        let append = |audit: &mut Audit, line: &'static str| {
            audit.append(AuditFile::Default, Bytes::from_static(line.as_bytes()));
            let written = || std::fs::read_to_string(&path).is_ok_and(|text| text.ends_with(line));
            let began = std::time::Instant::now();
            while !written() && began.elapsed() < std::time::Duration::from_secs(20) {
                std::thread::yield_now();
            }
            assert!(written(), "{line}");
        };
        append(&mut audit, "first\n");
        std::fs::remove_file(&path).expect("is there");
        append(&mut audit, "second\n");
        std::fs::rename(&path, dir.path().join("moved")).expect("is there");
        std::fs::write(&path, "of another\n").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
        append(&mut audit, "third\n");
        assert_eq!(std::fs::read_to_string(&path).expect("is there"), "of another\nthird\n");
        assert_eq!(std::fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o600);
        assert!(heard.try_iter().next().is_none(), "nothing went wrong");
        // What stands in its place now takes no lines.
        std::fs::remove_file(&path).expect("is there");
        std::fs::create_dir(&path).expect("made");
        audit.append(AuditFile::Default, Bytes::from_static(b"lost\n"));
        audit.finish();
        assert!(heard.try_iter().next().expect("told").expect_err("a directory").contains("audit.log"));
    }

    #[test]
    fn file_that_cannot_be_written_is_told_once_and_when_it_can() {
        let dir = TempDir::new();
        let missing = dir.path().join("missing");
        let file = AuditFile::At(missing.join("audit.log").display().to_string());
        assert!(check(dir.path(), &file).expect_err("no directory").contains("audit.log"));
        let (told, heard) = std::sync::mpsc::channel();
        let mut audit = Audit::new(dir.path().join("logs"), move |result| told.send(result).expect("heard"));
        audit.open(file.clone());
        assert!(heard.recv().expect("told").expect_err("no directory").contains("audit.log"));
        audit.append(file.clone(), Bytes::from_static(b"lost\n"));
        std::fs::create_dir(&missing).expect("made");
        audit.append(file.clone(), Bytes::from_static(b"kept\n"));
        audit.finish();
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [Ok(())]);
        assert_eq!(check(dir.path(), &file), Ok(()));
        assert_eq!(check(dir.path(), &AuditFile::Default), Ok(()));
        assert!(check(dir.path(), &AuditFile::At(missing.display().to_string())).is_err(), "it is a directory");
    }
}
