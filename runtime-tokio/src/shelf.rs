//! What servers that are not running offer, kept on disk: one private file each.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::files;

/// The kept catalogs of one configuration.
#[derive(Debug)]
pub(crate) struct Shelf {
    dir: PathBuf,
}

impl Shelf {
    /// Those of the configuration that comes from `source`.
    pub(crate) fn new(config_dir: &Path, source: &str) -> Self {
        Self { dir: config_dir.join("catalogs").join(files::short_hash(source.as_bytes())) }
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
}
