//! The relay's master keys: from the configured secrets, or made and kept in the state directory.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use ring::hmac;
use tunnel_core::entropy::Entropy;
use tunnel_core::keyring::Keyring;
use tunnel_core::limits::MAX_KEYS;
use tunnel_core::seal::{Key, KeySource, key_from_secret, stretch};
use tunnel_core::secret::Secret;
use tunnel_core::time::UnixTime;

use crate::files;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The keys' file holds something else.
    #[error("{0} is damaged: restore it, or remove it (then everybody has to sign in again)")]
    Damaged(PathBuf),
    /// The keys' file cannot be read or written.
    #[error("cannot use {path}: {cause}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// The keys of a relay. With configured `secrets` they are derived from those; otherwise they are random, kept in
/// directory `dir`, so that a restart signs nobody out. Without `dir` nothing is kept. May take a large part of a second
/// for each secret.
///
/// # Errors
/// The file of the keys cannot be used.
pub fn keyring(
    dir: Option<&Path>,
    secrets: &[Secret],
    entropy: &mut dyn Entropy,
    now: UnixTime,
) -> Result<Keyring, KeyError> {
    match dir {
        _ if !secrets.is_empty() => Ok(configured(dir, secrets)),
        Some(dir) => kept(dir, entropy, now),
        None => Ok(Keyring::made(entropy, now)),
    }
}

/// Whether keys are kept in `dir`, as far as can be seen.
pub(crate) fn are_kept(dir: &Path) -> bool {
    dir.join(MASTER).try_exists().unwrap_or(true)
}

/// Keeps `keys` in `dir`, in place of those before.
///
/// # Errors
/// What the system says; then those before are still there.
pub fn keep(dir: &Path, keys: &Keyring) -> std::io::Result<()> {
    files::replace(&dir.join(MASTER), keys.to_text().expose().as_bytes())
}

fn kept(dir: &Path, entropy: &mut dyn Entropy, now: UnixTime) -> Result<Keyring, KeyError> {
    let path = dir.join(MASTER);
    let unusable = |cause| KeyError::Unusable { path: path.clone(), cause };
    narrow(&path).map_err(unusable)?;
    if let Some(content) = files::read(&path, MAX_FILE).map_err(unusable)? {
        let text = String::from_utf8(content).map(Secret::new).unwrap_or_default();
        let written = std::fs::metadata(&path).and_then(|found| found.modified()).map_err(unusable)?;
        let written = written.duration_since(UNIX_EPOCH).unwrap_or_default();
        let written = UnixTime::from_secs(written.as_secs());
        return Keyring::from_text(text.expose(), written).ok_or(KeyError::Damaged(path));
    }
    let keys = Keyring::made(entropy, now);
    keep(dir, &keys).map_err(unusable)?;
    tracing::info!(path = %path.display(), "made a master key");
    Ok(keys)
}

fn configured(dir: Option<&Path>, secrets: &[Secret]) -> Keyring {
    let cache = dir.map(|dir| dir.join(STRETCHED));
    if let Some(Err(error)) = cache.as_deref().map(narrow) {
        tracing::warn!(reason = %error, "the stretched secret is in a file that is not its owner's alone");
    }
    let known = cache.as_deref().map(read_cache).unwrap_or_default();
    let mut stretched = Vec::new();
    let keys = secrets.iter().map(|secret| match key_from_secret(secret.expose()) {
        KeySource::Direct(key) => key,
        KeySource::Stretch { damaged } => {
            warn_of_weakness(damaged);
            let key = known.iter().find(|known| known.is_of(secret)).map(|known| known.key.clone());
            let key = key.unwrap_or_else(|| stretch(secret.expose()));
            stretched.push(Cached::new(key.clone(), secret));
            key
        }
    });
    let keys: Vec<Key> = keys.collect();
    let is_news = stretched.iter().any(|one| !known.iter().any(|known| known.tag == one.tag));
    if let Some(path) = cache.filter(|_| is_news) {
        let content: Vec<_> = stretched.iter().map(Cached::to_text).collect();
        let content = Secret::new(content.iter().map(Secret::expose).collect::<String>());
        if let Err(error) = files::replace(&path, content.expose().as_bytes()) {
            tracing::warn!(path = %path.display(), %error, "cannot keep the stretched secret");
        }
    }
    Keyring::configured(keys)
}

/// Keys in a file are their owner's alone. Where they were not, somebody may have them.
fn narrow(path: &Path) -> std::io::Result<()> {
    let unchanged = |error: std::io::Error| {
        std::io::Error::new(error.kind(), format!("others can read it, and that cannot be changed: {error}"))
    };
    if files::narrow_file(path).map_err(unchanged)? {
        tracing::warn!(
            path = %path.display(),
            "others could read this file of keys: it is its owner's alone now; if somebody has read it, they can make \
             tokens: have new keys made with `mcp-local-tunnel keys revoke-all`, or another `secret`"
        );
    }
    Ok(())
}

fn warn_of_weakness(damaged: bool) {
    if damaged {
        tracing::warn!("`secret` looks like a generated one but is cut or mistyped: it is used as any other text");
    } else {
        tracing::warn!("`secret` is not a generated one: make a stronger one with `mcp-local-tunnel gen-secret`");
    }
}

/// A stretched key, and what binds it to its secret.
struct Cached {
    key: Key,
    tag: String,
}

impl Cached {
    fn new(key: Key, secret: &Secret) -> Self {
        let tag = tag(&key, secret);
        Self { key, tag }
    }

    fn is_of(&self, secret: &Secret) -> bool {
        self.tag == tag(&self.key, secret)
    }

    /// Two lines.
    fn to_text(&self) -> Secret {
        Secret::new(format!("{}\n{}\n", self.key.to_text().expose(), self.tag))
    }
}

/// The stretched keys of last time; what cannot be read is stretched anew.
fn read_cache(path: &Path) -> Vec<Cached> {
    let content = files::read(path, MAX_FILE).ok().flatten().and_then(|content| String::from_utf8(content).ok());
    let content = Secret::new(content.unwrap_or_default());
    let lines: Vec<_> = content.expose().lines().collect();
    let pairs = lines.chunks_exact(2).filter_map(|pair| match (key_from_secret(pair.first()?), pair.last()?) {
        (KeySource::Direct(key), tag) => Some(Cached { key, tag: (*tag).to_owned() }),
        (KeySource::Stretch { .. }, _) => None,
    });
    pairs.take(MAX_KEYS).collect()
}

/// Keyed by the key itself: the file helps nobody to guess the secret faster who does not have the key already.
fn tag(key: &Key, secret: &Secret) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.to_text().expose().as_bytes());
    let tag = hmac::sign(&key, secret.expose().as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) const MASTER: &str = "master.key";
const STRETCHED: &str = "stretched.key";
/// A key is 60 bytes, a tag as many, and there are sixteen at most.
const MAX_FILE: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::OsEntropy;
    use crate::testing::TempDir;
    use tunnel_core::seal::Purpose;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn keyring_of(dir: Option<&Path>, secrets: &[&str]) -> Keyring {
        let secrets: Vec<_> = secrets.iter().map(|text| Secret::new(*text)).collect();
        keyring(dir, &secrets, &mut OsEntropy::new(), NOW).expect("keys")
    }

    /// Whether `other` opens what `one` seals.
    fn opens(one: &Keyring, other: &Keyring) -> bool {
        let sealed = one.sealer().seal(Purpose::Cookie, b"", b"x", &mut OsEntropy::new());
        other.sealer().open(Purpose::Cookie, b"", &sealed).is_ok()
    }

    fn mode(path: &Path) -> u32 {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).expect("kept").permissions().mode() & 0o777
    }

    #[test]
    fn generated_key_survives_a_restart_and_is_private() {
        let dir = TempDir::new();
        let first = keyring_of(Some(dir.path()), &[]);
        assert!(opens(&first, &keyring_of(Some(dir.path()), &[])));
        assert!(!opens(&first, &keyring_of(None, &[])));
        assert_eq!(mode(&dir.path().join(MASTER)), 0o600);
    }

    #[test]
    fn rotated_keys_survive_a_restart_and_are_private() {
        let dir = TempDir::new();
        let first = keyring_of(Some(dir.path()), &[]);
        let (second, _) = first.rotated(&mut OsEntropy::new(), NOW, None).expect("rotates");
        keep(dir.path(), &second).expect("kept");
        let read = keyring_of(Some(dir.path()), &[]);
        assert!(opens(&first, &read) && opens(&second, &read) && !opens(&read, &first));
        assert_eq!(mode(&dir.path().join(MASTER)), 0o600);
    }

    #[test]
    fn keys_that_others_could_read_are_narrowed() {
        use std::os::unix::fs::PermissionsExt;
        let dir = TempDir::new();
        for (name, secrets) in [(MASTER, &[][..]), (STRETCHED, &["correct horse"])] {
            let (first, path) = (keyring_of(Some(dir.path()), secrets), dir.path().join(name));
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
            assert!(opens(&first, &keyring_of(Some(dir.path()), secrets)));
            assert_eq!(mode(&path), 0o600, "{name}");
        }
    }

    #[test]
    fn damaged_key_is_an_error_rather_than_a_new_key() {
        let dir = TempDir::new();
        std::fs::write(dir.path().join(MASTER), "mlts_cut").expect("written");
        let error = keyring(Some(dir.path()), &[], &mut OsEntropy::new(), NOW).expect_err("damaged");
        assert!(matches!(error, KeyError::Damaged(_)));
    }

    #[test]
    fn stretched_secret_is_cached_for_that_secret_alone() {
        let dir = TempDir::new();
        let first = keyring_of(Some(dir.path()), &["correct horse"]);
        let path = dir.path().join(STRETCHED);
        assert_eq!(mode(&path), 0o600);
        let cached = read_cache(&path);
        assert!(matches!(cached.as_slice(), [one] if one.is_of(&Secret::new("correct horse"))));
        assert!(!cached[0].is_of(&Secret::new("other horse")));
        assert!(opens(&first, &keyring_of(Some(dir.path()), &["correct horse"])));
        assert!(!opens(&first, &keyring_of(Some(dir.path()), &["other horse"])));
    }

    #[test]
    fn first_secret_seals_all_open_and_all_are_cached() {
        let dir = TempDir::new();
        let old = keyring_of(Some(dir.path()), &["old"]);
        let both = keyring_of(Some(dir.path()), &["new", "old"]);
        assert!(opens(&old, &both) && !opens(&both, &old));
        assert_eq!(read_cache(&dir.path().join(STRETCHED)).len(), 2);
        assert!(opens(&both, &keyring_of(Some(dir.path()), &["new"])));
    }

    #[test]
    fn generated_secret_needs_no_file() {
        let dir = TempDir::new();
        let text = tunnel_core::seal::generate_secret(&mut OsEntropy::new());
        let first = keyring_of(Some(dir.path()), &[text.expose()]);
        assert!(opens(&first, &keyring_of(None, &[text.expose()])));
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 0);
    }
}
