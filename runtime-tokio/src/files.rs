//! Files that only their owner may read: written whole, replaced atomically.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tunnel_core::secret::Secret;
use tunnel_core::signin::predecessor;

/// Makes `dir` and its parents, 0700 each where they are new; `dir` itself is narrowed to 0700 if it was wider.
///
/// # Errors
/// What the system says.
pub fn private_dir(dir: &Path) -> io::Result<()> {
    make_dir(dir)?;
    let mode = fs::metadata(dir)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Narrows `dir` to 0700 if it is there, belongs to this user, and was wider. Somebody else's is left to them.
///
/// # Errors
/// What the system says.
pub(crate) fn narrow_own(dir: &Path) -> io::Result<()> {
    let found = match fs::metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let is_own = found.uid() == rustix::process::geteuid().as_raw();
    if is_own && found.is_dir() && found.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        tracing::info!(path = %dir.display(), "others could look into this directory: it is its owner's alone now");
    }
    Ok(())
}

/// Narrows the file at `path` to 0600 if it is there and was wider; whether it was.
///
/// # Errors
/// What the system says.
pub(crate) fn narrow_file(path: &Path) -> io::Result<bool> {
    let mode = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found?.permissions().mode(),
    };
    let is_wide = mode & 0o077 != 0;
    if is_wide {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    Ok(is_wide)
}

/// Replaces `path` by `content`, 0600, durably: a reader sees the old file or the new one, never a part. Directories that
/// are missing are made, 0700.
///
/// # Errors
/// What the system says; then the old file is untouched.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // One that is there already may be anybody's: its mode is left alone.
    make_dir(dir)?;
    let temporary = temporary_beside(path);
    let written = write_new(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    // The rename is durable once the directory is.
    File::open(dir)?.sync_all()
}

/// The content of `path`, `None` when there is no such file. A file longer than `max` is an error.
///
/// # Errors
/// What the system says.
pub fn read(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Ok(found) if found.len() > max => {
            Err(io::Error::other(format!("{} is longer than {max} bytes", path.display())))
        }
        Ok(_) => fs::read(path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// How long `file` is, if it still is what `path` names.
pub(crate) fn length_at(file: impl AsFd, path: &Path) -> Option<u64> {
    let (opened, named) = (rustix::fs::fstat(file).ok()?, rustix::fs::stat(path).ok()?);
    let is_the_same = opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
    is_the_same.then_some(opened.st_size.cast_unsigned())
}

/// What became of [`replace_if`].
#[derive(Debug, PartialEq, Eq)]
pub enum Replaced {
    /// It was replaced.
    Done,
    /// It was left alone: it is this by now.
    Other(Option<Vec<u8>>),
}

/// Replaces `path` in a private directory, as [`replace`] does, if its content still is `base`; `None`: no file.
/// Processes that do so take turns.
///
/// # Errors
/// What the system says.
pub fn replace_if(path: &Path, base: Option<&[u8]>, content: &[u8], max: u64) -> io::Result<Replaced> {
    path.parent().map_or(Ok(()), private_dir)?;
    let _turn = Lock::take(&path.with_extension("lock"), LOCK_PATIENCE)?;
    let now = read(path, max)?;
    if now.as_deref() != base {
        return Ok(Replaced::Other(now));
    }
    replace(path, content).map(|()| Replaced::Done)
}

/// Removes `path`; that there is none is fine.
///
/// # Errors
/// What the system says.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// `text` as one harmless part of a file name: what is not a letter, digit, `-`, `_` or inner `.` is replaced, and a
/// hash then keeps two texts apart.
#[must_use]
pub fn file_name(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !text.is_empty() && text.len() <= 100 && text.chars().all(plain) && !text.starts_with('.') {
        return text.to_owned();
    }
    let kept: String = text.chars().map(|c| if plain(c) { c } else { '_' }).take(80).collect();
    format!("{}-{}", kept.trim_start_matches('.'), short_hash(text.as_bytes()))
}

/// Sixteen hexadecimal digits of SHA-256: to name files after things, not to protect anything.
#[must_use]
pub fn short_hash(data: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, data);
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The cached tokens of one relay: a file of the configuration directory.
#[derive(Debug, Clone)]
pub struct TokenFile {
    path: PathBuf,
    /// What an agent before 2.0 left, and the relay it belongs to.
    old: Option<PathBuf>,
    relay: String,
}

/// A number that tells a file's content from other content, without reading it; `None` when there is none.
pub(crate) fn mark(path: &Path) -> Option<u64> {
    let found = fs::metadata(path).ok().filter(|found| found.len() > 0)?;
    let parts = [found.ino(), found.len(), found.mtime().cast_unsigned(), found.mtime_nsec().cast_unsigned()];
    Some(parts.into_iter().fold(0, |sum: u64, part| sum.wrapping_mul(31).wrapping_add(part)))
}

impl TokenFile {
    /// The file of `relay` (its URL) under `config_dir`.
    #[must_use]
    pub fn new(config_dir: &Path, relay: &str) -> Self {
        let host = relay.split_once("://").map_or(relay, |(_, rest)| rest);
        // The scheme is part of the identity: a token got over https never goes to http.
        let name = if relay.starts_with("http://") { format!("{host}+http") } else { host.to_owned() };
        Self {
            path: config_dir.join("tokens").join(format!("{}.json", file_name(&name))),
            old: predecessor::file_name(relay).map(|name| config_dir.join(name)),
            relay: relay.to_owned(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the other processes that use these tokens to be done with them.
    ///
    /// # Errors
    /// For people: why there is no lock.
    pub fn lock(&self) -> Result<Lock, String> {
        let path = self.path.with_extension("lock");
        let dir = path.parent().map_or(Ok(()), private_dir);
        let lock = dir.and_then(|()| Lock::take(&path, LOCK_PATIENCE));
        lock.map_err(|error| format!("cannot lock {}: {error}", path.display()))
    }

    /// Its content, `None` when there is none. The first time that is what an agent before 2.0 left, copied.
    ///
    /// # Errors
    /// For people: what failed and where.
    pub fn load(&self) -> Result<Option<Bytes>, String> {
        let found = read(&self.path, MAX_TOKEN_FILE).map_err(|error| self.explain("read", &error))?;
        Ok(found.map(Bytes::from).or_else(|| self.adopt()))
    }

    /// A number that tells its content from other content, without reading it; `None` when there is none.
    #[must_use]
    pub fn mark(&self) -> Option<u64> {
        match (fs::metadata(&self.path), &self.old) {
            (Err(error), Some(old)) if error.kind() == io::ErrorKind::NotFound => mark(old),
            _ => mark(&self.path),
        }
    }

    /// Replaces it; `None` empties it, so that nothing is copied into it again.
    ///
    /// # Errors
    /// For people: what failed and where.
    pub fn save(&self, tokens: Option<&Secret>) -> Result<(), String> {
        let content = tokens.map_or("", Secret::expose).as_bytes();
        let dir = self.path.parent().map_or(Ok(()), private_dir);
        dir.and_then(|()| replace(&self.path, content)).map_err(|error| self.explain("write", &error))
    }

    /// Copies what of the old file is of use. The old file is left to the old agent.
    fn adopt(&self) -> Option<Bytes> {
        let path = self.old.as_ref()?;
        let old = read(path, MAX_TOKEN_FILE).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "cannot read the tokens of an older agent");
            None
        })?;
        let tokens = predecessor::adopt(&old, &self.relay)?;
        match self.save(Some(&tokens)) {
            Ok(()) => tracing::info!(path = %path.display(), "took over the sign-in of an older agent"),
            Err(reason) => tracing::warn!(reason, "cannot copy the tokens of an older agent"),
        }
        Some(Bytes::copy_from_slice(tokens.expose().as_bytes()))
    }

    fn explain(&self, what: &str, error: &io::Error) -> String {
        format!("cannot {what} {}: {error}", self.path.display())
    }
}

/// A file that one process at a time holds: let go of when dropped, and by the system when the process ends however.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the open file is the lock")] File);

impl Lock {
    /// Takes the lock of `path`, a file of no content that is made where it is missing and stays. Waits up to
    /// `patience` for whoever holds it.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::TimedOut`] when somebody holds it for longer.
    pub fn take(path: &Path, patience: Duration) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if began.elapsed() >= patience => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "another process holds it"));
                }
                // A blocking lock could not be given up.
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_INTERVAL),
            }
        }
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// A name beside `path` that no other writer of this or another process uses.
fn temporary_beside(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{}.new", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

/// Tokens and what belongs to them are a few kilobytes.
const MAX_TOKEN_FILE: u64 = 256 * 1024;
/// How long another process may hold the tokens: two requests to the relay of ten seconds each, and a little.
const LOCK_PATIENCE: Duration = Duration::from_secs(25);
/// Between two looks at a lock that is held.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn replaced_file_is_private_whole_and_alone() {
        let dir = TempDir::new();
        let path = dir.path().join("deep/er/file");
        replace(&path, b"one").expect("writes");
        replace(&path, b"two").expect("writes again");
        assert_eq!(read(&path, 10).expect("reads").as_deref(), Some(&b"two"[..]));
        assert_eq!(fs::metadata(&path).expect("exists").permissions().mode() & 0o777, 0o600);
        let parent = path.parent().expect("has one");
        assert_eq!(fs::metadata(parent).expect("exists").permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(parent).expect("lists").count(), 1);
        assert!(read(&path, 2).is_err());
    }

    #[test]
    fn wide_directory_is_narrowed_only_where_that_is_asked_for() {
        let dir = TempDir::new();
        let wide = dir.path().join("wide");
        fs::create_dir(&wide).expect("made");
        fs::set_permissions(&wide, fs::Permissions::from_mode(0o755)).expect("set");
        replace(&wide.join("file"), b"").expect("writes");
        assert_eq!(fs::metadata(&wide).expect("exists").permissions().mode() & 0o777, 0o755);
        private_dir(&wide).expect("narrows");
        assert_eq!(fs::metadata(&wide).expect("exists").permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn own_directory_is_narrowed_and_no_other() {
        let dir = TempDir::new();
        let own = dir.path().join("own");
        narrow_own(&own).expect("none is fine");
        fs::create_dir(&own).expect("made");
        fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).expect("set");
        let mode = |path: &Path| fs::metadata(path).expect("exists").permissions().mode() & 0o7777;
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&own, Some(54321), None).expect("root may");
            narrow_own(&own).expect("left alone");
            assert_eq!(mode(&own), 0o777);
            std::os::unix::fs::chown(&own, Some(0), None).expect("root may");
        }
        narrow_own(&own).expect("narrows");
        assert_eq!(mode(&own), 0o700);
    }

    #[test]
    fn file_names_stay_inside_their_directory_and_apart() {
        assert_eq!(file_name("everything-1.x"), "everything-1.x");
        for hostile in ["../../etc/passwd", "a/b", "", ".", "..", ".hidden", "a\0b", &"x".repeat(300)] {
            let name = file_name(hostile);
            assert!(!name.contains('/') && !name.starts_with('.') && !name.contains('\0'), "{name}");
            assert!(!name.is_empty() && name.len() <= 120, "{name}");
        }
        assert_ne!(file_name("a/b"), file_name("a:b"));
    }

    #[test]
    fn file_that_somebody_else_changed_is_left_alone() {
        let dir = TempDir::new();
        let path = dir.path().join("pins").join("one.json");
        let put = |base, content| replace_if(&path, base, content, 100).expect("it can be written");
        assert_eq!(put(None, b"a"), Replaced::Done);
        assert_eq!(put(None, b"b"), Replaced::Other(Some(b"a".to_vec())));
        assert_eq!(put(Some(b"a"), b"b"), Replaced::Done);
        fs::remove_file(&path).expect("it is there");
        assert_eq!(put(Some(b"b"), b"c"), Replaced::Other(None));
    }

    #[test]
    fn lock_is_held_by_one_at_a_time() {
        let dir = TempDir::new();
        let path = dir.path().join("lock");
        let held = Lock::take(&path, Duration::ZERO).expect("nobody holds it");
        let refused = Lock::take(&path, Duration::from_millis(50)).expect_err("it is held");
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || Lock::take(&path, Duration::from_secs(20)).map(drop)
        });
        drop(held);
        waiting.join().expect("joins").expect("gets it");
        assert_eq!(fs::metadata(&path).expect("stays").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn tokens_of_two_relays_are_kept_apart() {
        let dir = TempDir::new();
        let one = TokenFile::new(dir.path(), "https://relay.example");
        let other = TokenFile::new(dir.path(), "http://relay.example");
        one.save(Some(&Secret::new("tokens"))).expect("saves");
        assert_eq!(other.load(), Ok(None));
        assert_eq!(one.load(), Ok(Some(Bytes::from_static(b"tokens"))));
        let mark = one.mark();
        one.save(Some(&Secret::new("others"))).expect("saves");
        assert!(mark.is_some() && one.mark().is_some() && one.mark() != mark && other.mark().is_none());
    }

    #[test]
    fn old_tokens_are_copied_once_and_left_alone() {
        let dir = TempDir::new();
        let old = dir.path().join("tokens-relay.example.json");
        let content = r#"{"accessToken":"a","expiresAt":5,"clientId":"mcp-local-tunnel-agent"}"#;
        fs::write(&old, content).expect("writes");
        let tokens = TokenFile::new(dir.path(), "https://relay.example");
        assert!(tokens.mark().is_some(), "they will be copied");
        let copied = tokens.load().expect("reads").expect("copied");
        assert_eq!(fs::read(tokens.path()).expect("is there"), copied);
        assert_eq!(fs::metadata(tokens.path()).expect("is there").permissions().mode() & 0o777, 0o600);

        assert!(tokens.mark().is_some());
        tokens.save(None).expect("empties");
        assert_eq!(tokens.mark(), None);
        assert_eq!(tokens.load(), Ok(Some(Bytes::new())), "signed out stays signed out");
        assert_eq!(fs::read_to_string(&old).expect("is there"), content);
    }
}
