//! The store's database on a disk that may fail for a while: full, unplugged, read-only.
//!
//! redb refuses everything once one read or write has failed. So the database is then dropped, and opened anew at the
//! next use; the lock on its file is held meanwhile.

use std::any::Any;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use redb::backends::FileBackend;
use redb::{Database, StorageBackend};

/// A database, and how to come by its file again.
pub(super) struct Disk<B> {
    backend: Box<dyn Fn() -> io::Result<B> + Send>,
    /// `None`: something failed, and it is to be opened anew.
    database: Option<Database>,
}

/// Why the database could not be used.
#[derive(Debug)]
pub(super) struct Fault {
    /// What the system or redb said.
    pub(super) cause: String,
    /// Whether it was the system, rather than what is in the file.
    pub(super) of_the_disk: bool,
}

impl<B: StorageBackend> Disk<B> {
    /// Opens what `backend` gives, or makes a database of it where it is empty; `first` is done before all else.
    pub(super) fn open<T>(
        backend: impl Fn() -> io::Result<B> + Send + 'static,
        first: impl FnOnce(&mut Database) -> Result<T, redb::Error>,
    ) -> Result<(Self, T), Fault> {
        let (database, done) = guarded(|| {
            let mut database = open(backend()?)?;
            let done = first(&mut database)?;
            Ok((database, done))
        })?;
        Ok((Self { backend: Box::new(backend), database: Some(database) }, done))
    }

    /// Does `work` with the database. Should it fail, the next one finds the database opened anew.
    pub(super) fn with<T>(&mut self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, Fault> {
        let database = match self.database.take() {
            Some(database) => database,
            None => {
                let database = guarded(|| {
                    renew(&(self.backend)()?)?;
                    open((self.backend)()?)
                })?;
                tracing::info!("the store is open again");
                database
            }
        };
        let done = guarded(|| work(&database));
        if done.is_ok() {
            self.database = Some(database);
        } else {
            // Closing it may find the same fault, which is known.
            let _ = guarded(|| {
                drop(database);
                Ok(())
            });
        }
        done
    }
}

fn open(backend: impl StorageBackend) -> Result<Database, redb::Error> {
    Ok(Database::builder().set_cache_size(super::CACHE).create_with_backend(backend)?)
}

/// Writes everything once more that is in the file. Where a sync fails, the system may take for written what is in its
/// memory alone, and no later sync would bring that to the disk, though later commits rest on it.
fn renew(file: &impl StorageBackend) -> io::Result<()> {
    let mut mark = [0; super::MAGIC.len()];
    let length = file.len()?;
    if length >= super::MAGIC.len() as u64 {
        file.read(0, &mut mark)?;
    }
    if mark != super::MAGIC {
        return Err(io::Error::other("what was in the store is gone"));
    }
    let mut page = vec![0; PAGE];
    for at in (0..length).step_by(PAGE) {
        page.truncate(usize::try_from(length - at).unwrap_or(PAGE).min(PAGE));
        file.read(at, &mut page)?;
        // A hole stays one: there may be no room to fill it.
        if page.iter().any(|byte| *byte != 0) {
            file.write(at, &page)?;
        }
    }
    file.sync_data()
}

/// A file whose lock outlives the databases on it.
#[derive(Debug)]
pub(super) struct Held(FileBackend);

impl Held {
    /// On a file that is locked. The lock is its holder's: redb takes it once more, which changes nothing.
    pub(super) fn new(file: &File) -> io::Result<Self> {
        FileBackend::new(file.try_clone()?).map(Self).map_err(io::Error::other)
    }
}

impl StorageBackend for Held {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// Does `work`, in which redb asserts what it expects of a file. What it would print then is the fault's cause instead.
fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Fault> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                others(panic);
            }
        }));
    });
    GUARDED.set(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(false);
    match done {
        Ok(done) => done.map_err(|error| Fault { of_the_disk: is_of_the_disk(&error), cause: error.to_string() }),
        Err(panic) => Err(Fault { of_the_disk: false, cause: asserted(&*panic) }),
    }
}

/// Whether the system refused. A file that ends too soon is another matter.
fn is_of_the_disk(error: &redb::Error) -> bool {
    match error {
        redb::Error::Io(error) => !matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData),
        error => matches!(error, redb::Error::PreviousIo),
    }
}

/// What a panic says, on one line.
fn asserted(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let words = text.unwrap_or("no reason").split_whitespace().collect::<Vec<_>>().join(" ");
    format!("redb: {}", words.chars().take(MAX_CAUSE).collect::<String>())
}

thread_local! {
    /// Whether this thread is in [`guarded`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Characters of what a panic says.
const MAX_CAUSE: usize = 200;
/// What is renewed at once: a page of the file's and of most systems.
const PAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;
    use crate::store::{Loaded, RECORDS, load};
    use crate::testing::TempDir;

    /// A disk that is full from some write on, or fails at some sync.
    #[derive(Debug, Default)]
    struct Faults {
        /// Writes, changes of length and syncs so far.
        done: AtomicUsize,
        /// Those of this number and later fail; 0: none.
        from: AtomicUsize,
    }

    #[derive(Debug)]
    struct Faulty(Held, Arc<Faults>);

    impl Faulty {
        fn step(&self, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
            let (done, from) = (self.1.done.fetch_add(1, SeqCst) + 1, self.1.from.load(SeqCst));
            if from != 0 && done >= from { Err(ErrorKind::StorageFull.into()) } else { work() }
        }
    }

    impl StorageBackend for Faulty {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.step(|| self.0.set_len(len))
        }

        fn sync_data(&self) -> io::Result<()> {
            self.step(|| self.0.sync_data())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.step(|| self.0.write(offset, data))
        }
    }

    fn file(path: &Path) -> File {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path).expect("opens");
        file.try_lock().expect("nobody else has it");
        file
    }

    fn put(disk: &mut Disk<Faulty>, key: &str) -> Result<(), Fault> {
        disk.with(|database| {
            let transaction = database.begin_write()?;
            transaction.open_table(RECORDS)?.insert(key, [7; 3000].as_slice())?;
            Ok(transaction.commit()?)
        })
    }

    fn keys(database: &Database) -> Vec<String> {
        match load(database) {
            Ok(Loaded::Records(records)) => records.into_iter().map(|(key, _)| key).collect(),
            Ok(Loaded::Newer(_)) | Err(_) => panic!("it is read"),
        }
    }

    #[test]
    fn fault_at_any_step_of_a_write_loses_nothing_and_ends_with_the_fault() {
        let mut steps = 0;
        for failing in 1.. {
            let (dir, faults) = (TempDir::new(), Arc::new(Faults::default()));
            let path = dir.path().join("store");
            let (held, given) = (file(&path), Arc::clone(&faults));
            let backend = move || Ok(Faulty(Held::new(&held)?, Arc::clone(&given)));
            let (mut disk, ()) = Disk::open(backend, |database| load(database).map(drop)).expect("opens");
            put(&mut disk, "before").expect("written");
            faults.done.store(0, SeqCst);
            faults.from.store(failing, SeqCst);
            let during = put(&mut disk, "during");
            let is_whole = during.is_ok();
            if !is_whole {
                let fault = put(&mut disk, "again").expect_err("the disk is still full");
                assert!(fault.of_the_disk, "step {failing}: {fault:?}");
                assert!(File::open(&path).expect("is there").try_lock().is_err(), "no other relay gets in meanwhile");
            }
            faults.from.store(0, SeqCst);
            put(&mut disk, "after").expect("the disk has room again");
            drop(disk);
            let database = Database::open(&path).expect("it is whole");
            let found = keys(&database);
            let has = |key: &str| found.iter().any(|found| found == key);
            assert!(has("before") && has("after"), "step {failing}: {found:?}");
            assert!(has("during") || !is_whole, "step {failing}: what was acknowledged is there");
            if is_whole {
                steps = failing;
                break;
            }
        }
        assert!(steps > 3, "a write has some steps that can fail");
    }

    #[test]
    fn store_that_was_emptied_meanwhile_is_not_begun_anew() {
        let (dir, faults) = (TempDir::new(), Arc::new(Faults::default()));
        let path = dir.path().join("store");
        let (held, given) = (file(&path), Arc::clone(&faults));
        let backend = move || Ok(Faulty(Held::new(&held)?, Arc::clone(&given)));
        let (mut disk, ()) = Disk::open(backend, |database| load(database).map(drop)).expect("opens");
        faults.from.store(1, SeqCst);
        put(&mut disk, "during").expect_err("the disk is full");
        faults.from.store(0, SeqCst);
        File::options().write(true).truncate(true).open(&path).expect("opens");
        let fault = put(&mut disk, "after").expect_err("it is empty");
        assert!(fault.cause.contains("is gone"), "{fault:?}");
        assert_eq!(std::fs::metadata(&path).expect("is there").len(), 0);
    }
}
