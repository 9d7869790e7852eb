//! The relay's small store: a map of text keys to bytes, crash-safe, in the state directory.
//!
//! After a fault of the disk the file is opened anew (see [`disk`]): what was acknowledged is in it, and the relay goes
//! on as soon as the disk does.
//!
//! Its size is bounded by what the machine keeps ([`tunnel_core::limits`]: some 10 MiB at the very most) and by the
//! store's pages, which are used again; what a busy time left over is given back at the next start.

mod disk;

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend, TableDefinition, WriteTransaction,
};
use rustix::fs::Access;
use tokio::sync::oneshot;
use tunnel_core::oauth::grants::Change;

use self::disk::{Disk, Fault, Held};
use crate::files;
use crate::keys::MASTER;

/// An open store. Writes go to a thread of its own, which commits what is waiting as one transaction: a busy relay
/// pays for one sync to the disk, not for one per write.
#[derive(Debug, Clone)]
pub struct Store {
    /// `None`: nothing is kept.
    writer: Option<mpsc::Sender<Write>>,
}

/// What a store held when it was opened.
pub type Records = Vec<(String, Vec<u8>)>;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("another relay uses {0}: stop it, or give this one a `stateDir` of its own")]
    InUse(PathBuf),
    /// A newer version has written it.
    #[error(
        "the state in {path} has format {found}, and this version knows format {FORMAT}: run the newer mcp-local-tunnel again, or give this one a `stateDir` of its own"
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// What the store says.
        found: u64,
    },
    /// The file is there and is no store, or not a whole one.
    #[error(
        "{path} is damaged ({cause}): restore it, or remove it and the keys beside it (then everybody has to sign in again)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the store said.
        cause: String,
    },
    /// The file is there, and the disk refuses to read or write it.
    #[error("{path} cannot be read or written ({cause}): mend that, and start again")]
    Faulty {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// The directory or the file cannot be used.
    #[error("the state in {path} cannot be used: {cause}")]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the system or the store said.
        cause: String,
    },
}

impl Store {
    /// Opens or makes the store in directory `dir`, which becomes 0700.
    ///
    /// # Errors
    /// The directory is another relay's, of a newer version, damaged, or cannot be used.
    pub fn open(dir: &Path) -> Result<(Self, Records), StoreError> {
        let unusable = |cause: String| StoreError::Unusable { path: dir.to_owned(), cause };
        let (file, is_new) = claim(dir)?;
        let path = dir.join(FILE);
        let disk = Disk::open(
            move || Held::new(&file),
            |database| {
                let loaded = load(database)?;
                if let Err(error) = shrink(database, &path) {
                    tracing::warn!(%error, "the store cannot be made smaller");
                }
                Ok(loaded)
            },
        );
        let (disk, records) = match disk {
            Ok((disk, Loaded::Records(records))) => (disk, records),
            Ok((_, Loaded::Newer(found))) => return Err(StoreError::Newer { path: dir.to_owned(), found }),
            Err(Fault { cause, .. }) if is_new => return Err(unusable(cause)),
            Err(Fault { cause, of_the_disk: true }) => return Err(StoreError::Faulty { path: dir.join(FILE), cause }),
            Err(Fault { cause, of_the_disk: false }) => {
                return Err(StoreError::Damaged { path: dir.join(FILE), cause });
            }
        };
        let (writer, queue) = mpsc::channel();
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_until_closed(disk, &queue))
            .map_err(|error| unusable(error.to_string()))?;
        Ok((Self { writer: Some(writer) }, records))
    }

    /// A store that forgets: for a relay without a writable directory.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { writer: None }
    }

    /// Orders `changes` to be applied durably and all together, after what was submitted before.
    #[must_use]
    pub fn submit(&self, changes: Vec<Change>) -> Committed {
        let Some(writer) = &self.writer else { return Committed(None) };
        let (done, answer) = oneshot::channel();
        // When the thread is gone, so is `done`, which the waiter sees.
        let _ = writer.send(Write { changes, done });
        Committed(Some(answer))
    }
}

/// Changes that are on their way to the disk; `None`: nothing is kept.
#[derive(Debug)]
pub struct Committed(Option<oneshot::Receiver<Result<(), String>>>);

impl Committed {
    /// Waits until they are there.
    ///
    /// # Errors
    /// What the store said; then none of them holds.
    pub async fn wait(self) -> Result<(), String> {
        match self.0 {
            Some(answer) => answer.await.unwrap_or_else(|_| Err("the store has stopped".into())),
            None => Ok(()),
        }
    }
}

struct Write {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), String>>,
}

fn write_until_closed<B: StorageBackend>(mut disk: Disk<B>, queue: &mpsc::Receiver<Write>) {
    while let Ok(first) = queue.recv() {
        let mut batch = vec![first];
        batch.extend(queue.try_iter().take(MAX_BATCH));
        let result = disk.with(|database| commit(database, &batch)).map_err(|fault| fault.cause);
        for write in batch {
            // Who does not wait any more has no use for the answer.
            let _ = write.done.send(result.clone());
        }
    }
}

fn commit(database: &Database, batch: &[Write]) -> Result<(), redb::Error> {
    // redb's default durability: the commit returns once it is on the disk.
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(RECORDS)?;
        for change in batch.iter().flat_map(|write| &write.changes) {
            match change {
                Change::Put { key, value } => drop(table.insert(key.as_str(), value.as_slice())?),
                Change::Delete { key } => drop(table.remove(key.as_str())?),
            }
        }
    }
    Ok(transaction.commit()?)
}

/// Whether a store could be kept in `dir`, found out without making anything.
///
/// # Errors
/// Why not.
pub fn check(dir: &Path) -> Result<(), String> {
    let found = dir.ancestors().find(|place| place.as_os_str().is_empty() || place.exists()).unwrap_or(dir);
    let place = if found.as_os_str().is_empty() { Path::new(".") } else { found };
    let failed = |error: std::io::Error| format!("{}: {error}", place.display());
    if !std::fs::metadata(place).map_err(failed)?.is_dir() {
        return Err(format!("{} is no directory", place.display()));
    }
    rustix::fs::access(place, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| failed(error.into()))
}

/// The store's file, locked, and whether nothing is in it yet.
fn claim(dir: &Path) -> Result<(File, bool), StoreError> {
    let unusable = |error: std::io::Error| StoreError::Unusable { path: dir.to_owned(), cause: error.to_string() };
    files::private_dir(dir).map_err(unusable)?;
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).read(true).write(true).mode(0o600).open(dir.join(FILE));
    let file = file.map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => return Err(unusable(error)),
    }
    let mut start = [0; MAGIC.len()];
    let read = file.read_at(&mut start, 0).map_err(unusable)?;
    // redb writes its mark last. Without one a first start was killed half way, and nothing was ever kept in it.
    let is_new = start.get(..read).is_none_or(|start| start.iter().all(|byte| *byte == 0));
    // Keys are made after the store: it was there, and is lost, or its volume is not mounted. Better to say so than to
    // sign everybody out.
    if is_new && dir.join(MASTER).exists() {
        let cause = "it is missing or empty, while there are keys".to_owned();
        return Err(StoreError::Damaged { path: dir.join(FILE), cause });
    }
    if is_new {
        file.set_len(0).map_err(unusable)?;
    }
    Ok((file, is_new))
}

/// What a store turned out to hold.
enum Loaded {
    Records(Records),
    /// It is of this format, which is not known here.
    Newer(u64),
}

fn load(database: &Database) -> Result<Loaded, redb::Error> {
    let transaction = database.begin_write()?;
    match format(&transaction)? {
        Some(FORMAT) => transaction.abort()?,
        Some(newer @ FORMAT..) => return Ok(Loaded::Newer(newer)),
        older => {
            migrate(&transaction, older)?;
            transaction.commit()?;
        }
    }
    let table = database.begin_read()?.open_table(RECORDS)?;
    let mut records = Records::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        records.push((key.value().to_owned(), value.value().to_owned()));
    }
    Ok(Loaded::Records(records))
}

/// The format that a store says it has; `None`: it is new, or of before stores said it.
fn format(transaction: &WriteTransaction) -> Result<Option<u64>, redb::Error> {
    Ok(transaction.open_table(META)?.get(FORMAT_KEY)?.map(|format| format.value()))
}

/// Brings a store to the present format. Format 2 has the records of 1, which the machine reads as they are: a family
/// without scopes has all of them.
fn migrate(transaction: &WriteTransaction, from: Option<u64>) -> Result<(), redb::Error> {
    if !transaction.open_table(RECORDS)?.is_empty()? {
        tracing::info!(from = from.unwrap_or(1), to = FORMAT, "the store is brought to a newer format");
    }
    transaction.open_table(META)?.insert(FORMAT_KEY, FORMAT)?;
    Ok(())
}

/// Gives back what the file has of unused pages, when that is much.
fn shrink(database: &mut Database, path: &Path) -> Result<(), redb::Error> {
    let length = std::fs::metadata(path)?.len();
    if length < SHRINK_ABOVE {
        return Ok(());
    }
    let transaction = database.begin_write()?;
    let used = transaction.stats()?.stored_bytes();
    transaction.abort()?;
    if length / SHRINK_FACTOR > used {
        database.compact()?;
    }
    Ok(())
}

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
/// What the store says of itself.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
/// 1 was before stores said it; 2 has scopes in the records of families.
const FORMAT: u64 = 2;
/// What redb's files begin with.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";
/// A file that is no larger is left as it is: an empty one has a megabyte and a half.
const SHRINK_ABOVE: u64 = 8 * 1024 * 1024;
/// A file that is this many times as large as what is in it is compacted: pages that are half full are usual.
const SHRINK_FACTOR: u64 = 4;
const FILE: &str = "state.redb";
/// The whole store is a few megabytes at most; redb's default of a gigabyte is for databases.
const CACHE: usize = 1024 * 1024;
/// Writes of one transaction: enough to amortise the sync, few enough to answer the first one soon.
const MAX_BATCH: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt;
    use crate::testing::TempDir;

    fn put(key: &str, value: &[u8]) -> Change {
        Change::Put { key: key.into(), value: value.into() }
    }

    #[crate::rt::test]
    async fn records_survive_reopening() {
        let dir = TempDir::new();
        let (store, records) = Store::open(dir.path()).expect("opens");
        assert!(records.is_empty());
        let first = store.submit(vec![put("a", b"1"), put("b", b"2")]);
        let second = store.submit(vec![put("a", b"3"), Change::Delete { key: "b".into() }, put("c", b"")]);
        assert_eq!(second.wait().await, Ok(()));
        assert_eq!(first.wait().await, Ok(()));
        drop(store);
        let records = reopen(dir.path()).await;
        assert_eq!(records, [("a".to_owned(), b"3".to_vec()), ("c".to_owned(), Vec::new())]);
    }

    #[test]
    fn file_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = TempDir::new();
        let (_store, _) = Store::open(dir.path()).expect("opens");
        let mode = std::fs::metadata(dir.path().join(FILE)).expect("made").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[crate::rt::test]
    async fn second_relay_on_the_same_directory_is_refused() {
        let dir = TempDir::new();
        let (_store, _) = Store::open(dir.path()).expect("opens");
        assert!(matches!(Store::open(dir.path()), Err(StoreError::InUse(_))));
    }

    #[test]
    fn unusable_directory_says_so() {
        let error = Store::open(Path::new("/dev/null/state")).expect_err("cannot be made");
        assert!(error.to_string().contains("/dev/null/state"), "{error}");
    }

    #[test]
    fn first_start_that_was_killed_half_way_does_no_harm() {
        let dir = TempDir::new();
        for left in [&b""[..], &[0; 4], &[0; 4096]] {
            std::fs::write(dir.path().join(FILE), left).expect("written");
            let (store, records) = Store::open(dir.path()).expect("opens");
            assert!(records.is_empty());
            drop(store);
            std::fs::remove_file(dir.path().join(FILE)).expect("removed");
        }
    }

    #[test]
    fn file_that_is_no_store_is_left_alone_and_named() {
        let dir = TempDir::new();
        let (store, _) = Store::open(dir.path()).expect("opens");
        drop(store);
        let cut = std::fs::read(dir.path().join(FILE)).expect("read");
        for content in [b"not a store at all".to_vec(), cut[..cut.len() / 2].to_vec(), cut[..20].to_vec()] {
            std::fs::write(dir.path().join("other"), &content).expect("written");
            std::fs::rename(dir.path().join("other"), dir.path().join(FILE)).expect("put there");
            let error = Store::open(dir.path()).expect_err("damaged");
            assert!(matches!(error, StoreError::Damaged { .. }) && error.to_string().contains(FILE), "{error}");
            let left = std::fs::read(dir.path().join(FILE)).expect("read");
            assert!(left == content, "it is as it was");
        }
    }

    #[test]
    fn store_that_is_gone_while_its_keys_are_there_is_refused() {
        let dir = TempDir::new();
        drop(Store::open(dir.path()).expect("a first start"));
        std::fs::write(dir.path().join(MASTER), "a key").expect("written");
        for lose in [|path: &Path| std::fs::remove_file(path), |path: &Path| std::fs::write(path, "")] {
            lose(&dir.path().join(FILE)).expect("it is there");
            let error = Store::open(dir.path()).expect_err("what was revoked is forgotten");
            assert!(error.to_string().contains("while there are keys"), "{error}");
        }
    }

    #[crate::rt::test]
    async fn store_of_a_newer_version_is_refused_and_left_alone() {
        let dir = TempDir::new();
        let database = Database::create(dir.path().join(FILE)).expect("makes one");
        let transaction = database.begin_write().expect("begins");
        transaction.open_table(META).expect("opens").insert(FORMAT_KEY, FORMAT + 1).expect("set");
        transaction.commit().expect("commits");
        drop(database);
        for _ in 0..2 {
            let error = Store::open(dir.path()).expect_err("newer");
            assert!(matches!(error, StoreError::Newer { found, .. } if found == FORMAT + 1), "{error}");
            assert!(error.to_string().contains("newer mcp-local-tunnel"), "{error}");
        }
    }

    #[crate::rt::test]
    async fn store_of_before_formats_is_taken_over() {
        let dir = TempDir::new();
        let database = Database::create(dir.path().join(FILE)).expect("makes one");
        let transaction = database.begin_write().expect("begins");
        transaction.open_table(RECORDS).expect("opens").insert("a", &b"1"[..]).expect("put");
        transaction.commit().expect("commits");
        drop(database);
        for _ in 0..2 {
            assert_eq!(reopen(dir.path()).await, [("a".to_owned(), b"1".to_vec())]);
        }
        released(dir.path()).await;
        let database = Database::open(dir.path().join(FILE)).expect("opens");
        let transaction = database.begin_write().expect("begins");
        assert_eq!(format(&transaction).expect("read"), Some(FORMAT));
    }

    #[crate::rt::test]
    async fn pages_are_used_again_and_given_back() {
        const RECORDS: usize = 2_500;
        let dir = TempDir::new();
        let length = || std::fs::metadata(dir.path().join(FILE)).expect("is there").len();
        let (store, _) = Store::open(dir.path()).expect("opens");
        let fill = |round: u8| {
            let key = |at: usize| put(&format!("family/{at:032}"), &[round; 4096]);
            store.submit((0..RECORDS).map(key).collect())
        };
        fill(0).wait().await.expect("written");
        let once = length();
        for round in 1..4 {
            fill(round).wait().await.expect("written");
        }
        assert!(once > SHRINK_ABOVE && length() <= 3 * once, "{} grew to {}", once, length());
        let keys = (0..RECORDS).map(|at| Change::Delete { key: format!("family/{at:032}") });
        store.submit(keys.collect()).wait().await.expect("written");
        drop(store);
        assert_eq!(reopen(dir.path()).await, []);
        assert!(length() < SHRINK_ABOVE, "an empty store has {}", length());
    }

    async fn reopen(dir: &Path) -> Records {
        released(dir).await;
        Store::open(dir).expect("opens again").1
    }

    /// The writer's thread closes the file a moment after the last handle is dropped.
    async fn released(dir: &Path) {
        let file = File::open(dir.join(FILE)).expect("it is there");
        for _ in 0..500 {
            if file.try_lock().is_ok() {
                return;
            }
            rt::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("the store is never released");
    }
}
