//! The relay's small store: a map of text keys to bytes, crash-safe, in the state directory.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use redb::{Database, ReadableTable, TableDefinition};
use tokio::sync::oneshot;
use tunnel_core::oauth::grants::Change;

use crate::files;

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
    /// The directory is another relay's, or cannot be used.
    pub fn open(dir: &Path) -> Result<(Self, Records), StoreError> {
        let unusable = |cause: String| StoreError::Unusable { path: dir.to_owned(), cause };
        files::private_dir(dir).map_err(|error| unusable(error.to_string()))?;
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).read(true).write(true).mode(0o600).open(dir.join(FILE));
        let file = file.map_err(|error| unusable(error.to_string()))?;
        let database = Database::builder().set_cache_size(CACHE).create_file(file).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(dir.to_owned()),
            other => unusable(other.to_string()),
        })?;
        let records = load(&database).map_err(|error| unusable(error.to_string()))?;
        let (writer, queue) = mpsc::channel();
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_until_closed(&database, &queue))
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

fn write_until_closed(database: &Database, queue: &mpsc::Receiver<Write>) {
    while let Ok(first) = queue.recv() {
        let mut batch = vec![first];
        batch.extend(queue.try_iter().take(MAX_BATCH));
        let result = commit(database, &batch).map_err(|error| error.to_string());
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

fn load(database: &Database) -> Result<Records, redb::Error> {
    // A write transaction, so that the table exists from the first start on.
    let transaction = database.begin_write()?;
    let mut records = Records::new();
    {
        let table = transaction.open_table(RECORDS)?;
        for entry in table.iter()? {
            let (key, value) = entry?;
            records.push((key.value().to_owned(), value.value().to_owned()));
        }
    }
    transaction.commit()?;
    Ok(records)
}

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const FILE: &str = "state.redb";
/// The whole store is a few megabytes at most; redb's default of a gigabyte is for databases.
const CACHE: usize = 1024 * 1024;
/// Writes of one transaction: enough to amortise the sync, few enough to answer the first one soon.
const MAX_BATCH: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    fn put(key: &str, value: &[u8]) -> Change {
        Change::Put { key: key.into(), value: value.into() }
    }

    #[tokio::test]
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

    #[tokio::test]
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

    /// The writer's thread closes the file a moment after the last handle is dropped.
    async fn reopen(dir: &Path) -> Records {
        for _ in 0..200 {
            match Store::open(dir) {
                Err(StoreError::InUse(_)) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                other => return other.expect("opens again").1,
            }
        }
        panic!("the store is never released");
    }
}
