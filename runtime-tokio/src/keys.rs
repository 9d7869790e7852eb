//! The relay's master key: from the configured secret, or made once and kept in the state directory.

use std::path::{Path, PathBuf};

use ring::hmac;
use tunnel_core::entropy::Entropy;
use tunnel_core::seal::{Key, KeySource, Sealer, key_from_secret, stretch};
use tunnel_core::secret::Secret;

use crate::files;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key's file holds something else.
    #[error("{0} is damaged: restore it, or remove it (then everybody has to sign in again)")]
    Damaged(PathBuf),
    /// The key's file cannot be read or written.
    #[error("cannot use {path}: {cause}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// The sealer of a relay. With a configured `secret` its key is derived from that; otherwise it is random, kept in
/// directory `dir`, so that a restart signs nobody out. Without `dir` nothing is kept. May take a large part of a second.
///
/// # Errors
/// The file of the key cannot be used.
pub fn sealer(dir: Option<&Path>, secret: Option<&Secret>, entropy: &mut dyn Entropy) -> Result<Sealer, KeyError> {
    let key = match (secret, dir) {
        (Some(secret), dir) => configured(dir, secret),
        (None, Some(dir)) => kept(&dir.join(MASTER), entropy)?,
        (None, None) => Sealer::generate(entropy),
    };
    Ok(Sealer::new(vec![key]))
}

fn configured(dir: Option<&Path>, secret: &Secret) -> Key {
    let damaged = match key_from_secret(secret.expose()) {
        KeySource::Direct(key) => return key,
        KeySource::Stretch { damaged } => damaged,
    };
    if damaged {
        tracing::warn!("`secret` looks like a generated one but is cut or mistyped: it is used as any other text");
    } else {
        tracing::warn!("`secret` is not a generated one: make a stronger one with `mcp-local-tunnel gen-secret`");
    }
    let cache = dir.map(|dir| dir.join(STRETCHED));
    if let Some(key) = cache.as_deref().and_then(|path| cached(path, secret)) {
        return key;
    }
    let key = stretch(secret.expose());
    if let Some(path) = cache {
        let text = key.to_text();
        let content = Secret::new(format!("{}\n{}\n", text.expose(), tag(&text, secret)));
        if let Err(error) = files::replace(&path, content.expose().as_bytes()) {
            tracing::warn!(path = %path.display(), %error, "cannot keep the stretched secret");
        }
    }
    key
}

/// The stretched key, if it is the one of this secret.
fn cached(path: &Path, secret: &Secret) -> Option<Key> {
    let content = Secret::new(String::from_utf8(files::read(path, MAX_FILE).ok()??).ok()?);
    let (text, rest) = content.expose().split_once('\n')?;
    let KeySource::Direct(key) = key_from_secret(text) else { return None };
    (rest.trim_end() == tag(&Secret::new(text), secret)).then_some(key)
}

/// Binds a stretched key to its secret. Keyed by the key itself: the file helps nobody to guess the secret faster who
/// does not have the key already.
fn tag(key: &Secret, secret: &Secret) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes());
    let tag = hmac::sign(&key, secret.expose().as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn kept(path: &Path, entropy: &mut dyn Entropy) -> Result<Key, KeyError> {
    let unusable = |cause| KeyError::Unusable { path: path.to_owned(), cause };
    if let Some(content) = files::read(path, MAX_FILE).map_err(unusable)? {
        let text = String::from_utf8(content).map(Secret::new).unwrap_or_default();
        return match key_from_secret(text.expose()) {
            KeySource::Direct(key) => Ok(key),
            KeySource::Stretch { .. } => Err(KeyError::Damaged(path.to_owned())),
        };
    }
    let key = Sealer::generate(entropy);
    files::replace(path, key.to_text().expose().as_bytes()).map_err(unusable)?;
    tracing::info!(path = %path.display(), "made a master key");
    Ok(key)
}

const MASTER: &str = "master.key";
const STRETCHED: &str = "stretched.key";
/// A key is 60 bytes, a tag as many.
const MAX_FILE: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::OsEntropy;
    use crate::testing::TempDir;
    use tunnel_core::seal::Purpose;

    fn sealer_of(dir: Option<&Path>, secret: Option<&str>) -> Sealer {
        sealer(dir, secret.map(Secret::new).as_ref(), &mut OsEntropy::new()).expect("a sealer")
    }

    fn same(one: &Sealer, other: &Sealer) -> bool {
        let sealed = one.seal(Purpose::Cookie, b"", b"x", &mut OsEntropy::new());
        other.open(Purpose::Cookie, b"", &sealed).is_ok()
    }

    #[test]
    fn generated_key_survives_a_restart_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = TempDir::new();
        let first = sealer_of(Some(dir.path()), None);
        assert!(same(&first, &sealer_of(Some(dir.path()), None)));
        assert!(!same(&first, &sealer_of(None, None)));
        let mode = std::fs::metadata(dir.path().join(MASTER)).expect("kept").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn damaged_key_is_an_error_rather_than_a_new_key() {
        let dir = TempDir::new();
        std::fs::write(dir.path().join(MASTER), "mlts_cut").expect("written");
        let error = sealer(Some(dir.path()), None, &mut OsEntropy::new()).expect_err("damaged");
        assert!(matches!(error, KeyError::Damaged(_)));
    }

    #[test]
    fn stretched_secret_is_cached_for_that_secret_alone() {
        let dir = TempDir::new();
        let first = sealer_of(Some(dir.path()), Some("correct horse"));
        assert!(dir.path().join(STRETCHED).exists());
        assert!(cached(&dir.path().join(STRETCHED), &Secret::new("correct horse")).is_some());
        assert!(cached(&dir.path().join(STRETCHED), &Secret::new("other horse")).is_none());
        assert!(same(&first, &sealer_of(Some(dir.path()), Some("correct horse"))));
        assert!(!same(&first, &sealer_of(Some(dir.path()), Some("other horse"))));
    }

    #[test]
    fn generated_secret_needs_no_file() {
        let dir = TempDir::new();
        let text = tunnel_core::seal::generate_secret(&mut OsEntropy::new());
        let first = sealer_of(Some(dir.path()), Some(text.expose()));
        assert!(same(&first, &sealer_of(None, Some(text.expose()))));
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 0);
    }
}
