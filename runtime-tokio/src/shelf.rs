//! What an agent keeps on disk for its next run: what servers that are not running offer, one private file each, and what
//! clients' sessions set.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::files;

/// What is kept of one configuration.
#[derive(Debug)]
pub(crate) struct Shelf {
    dir: PathBuf,
    wishes: PathBuf,
}

impl Shelf {
    /// Those of the configuration that comes from `source`.
    pub(crate) fn new(config_dir: &Path, source: &str) -> Self {
        let name = files::short_hash(source.as_bytes());
        let wishes = config_dir.join("sessions").join(format!("{name}.json"));
        Self { dir: config_dir.join("catalogs").join(name), wishes }
    }

    /// What sessions had set; `None` also when it cannot be read.
    pub(crate) fn wishes(&self) -> Option<Bytes> {
        match files::read(&self.wishes, MAX_WISHES) {
            Ok(found) => found.map(Bytes::from),
            Err(error) => {
                tracing::warn!(path = %self.wishes.display(), %error, "cannot read what clients' sessions had set");
                None
            }
        }
    }

    /// Keeps what sessions set. After a failure it is lost with this process.
    pub(crate) fn keep_wishes(&self, wishes: &[u8]) {
        let dir = self.wishes.parent().map_or(Ok(()), files::private_dir);
        if let Err(error) = dir.and_then(|()| files::replace(&self.wishes, wishes)) {
            tracing::warn!(path = %self.wishes.display(), %error, "cannot keep what clients' sessions set");
        }
    }

    /// What was kept of a server; `None` also when it cannot be read.
    pub(crate) fn load(&self, server: &str) -> Option<Bytes> {
        let path = self.path(server);
        match files::read(&path, MAX) {
            Ok(found) => found.map(Bytes::from),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read what a server offers");
                None
            }
        }
    }

    /// Keeps `catalog` of a server. A failure costs one start of the server, the next time.
    pub(crate) fn save(&self, server: &str, catalog: &[u8]) {
        let path = self.path(server);
        if let Err(error) = files::private_dir(&self.dir).and_then(|()| files::replace(&path, catalog)) {
            tracing::warn!(path = %path.display(), %error, "cannot keep what a server offers");
        }
    }

    fn path(&self, server: &str) -> PathBuf {
        self.dir.join(format!("{}.json", files::file_name(server)))
    }
}

/// What a server may offer, with what JSON adds to it.
const MAX: u64 = 2 * tunnel_core::limits::MAX_CATALOG as u64;
/// What sessions set.
const MAX_WISHES: u64 = tunnel_core::limits::MAX_KEPT_WISHES as u64;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn catalogs_are_private_and_apart_by_configuration_and_server() {
        let dir = TempDir::new();
        let (one, other) = (Shelf::new(dir.path(), "one"), Shelf::new(dir.path(), "other"));
        one.save("../files", b"{}");
        assert_eq!(one.load("../files").as_deref(), Some(&b"{}"[..]));
        assert_eq!((one.load("files"), other.load("../files")), (None, None));
        let mode = std::fs::metadata(one.path("../files")).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(one.path("../files").starts_with(dir.path().join("catalogs")));
    }

    #[test]
    fn what_sessions_set_is_private_and_bounded() {
        let dir = TempDir::new();
        let (one, other) = (Shelf::new(dir.path(), "one"), Shelf::new(dir.path(), "other"));
        assert_eq!(one.wishes(), None);
        one.keep_wishes(b"{}");
        assert_eq!((one.wishes().as_deref(), other.wishes()), (Some(&b"{}"[..]), None));
        let mode = |path: &Path| std::fs::metadata(path).expect("exists").permissions().mode() & 0o777;
        assert_eq!((mode(&one.wishes), mode(&dir.path().join("sessions"))), (0o600, 0o700));
        one.keep_wishes(&vec![b' '; tunnel_core::limits::MAX_KEPT_WISHES + 1]);
        assert_eq!(one.wishes(), None);
    }
}
