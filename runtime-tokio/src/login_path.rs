//! The `PATH` of a person's login shell, for an agent that a service manager started.
//!
//! launchd and systemd give a service the system's directories alone; `npx`, `uvx` and their like stand where a shell's
//! profile says. The shell is asked once, in a session of its own process group, and for no longer than a moment.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::BytesMut;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::rt::{self, timeout};

/// What came of looking for a better `PATH` than this process's own.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// What servers should have; `None`: this process's own is fine, or no better one is to be had.
    pub(crate) path: Option<OsString>,
    /// The shell that was asked and did not answer in time.
    pub(crate) silent: Option<PathBuf>,
}

/// What servers should have for `PATH` if this process's own is a service manager's: the login shell's, then its own.
pub(crate) async fn find() -> Found {
    let own = std::env::var_os("PATH").unwrap_or_default();
    if is_bare(&own) { ask_within(PATIENCE, shell(), &own).await } else { Found::default() }
}

async fn ask_within(patience: Duration, shell: PathBuf, own: &OsStr) -> Found {
    match timeout(patience, ask(&shell)).await {
        Ok(Some(found)) => Found { path: joined(&found, own), silent: None },
        Ok(None) => {
            tracing::debug!(shell = %shell.display(), "login shell tells no PATH");
            Found::default()
        }
        Err(_) => {
            tracing::warn!(shell = %shell.display(), "login shell does not tell its PATH in time: programs are looked for in the system's directories alone");
            Found { path: None, silent: Some(shell) }
        }
    }
}

/// Whether a path names nothing but directories that every system has.
fn is_bare(path: &OsStr) -> bool {
    std::env::split_paths(path).all(|dir| BARE.iter().any(|bare| dir.as_path() == Path::new(bare)))
}

fn shell() -> PathBuf {
    let own = std::env::var_os("SHELL").map(PathBuf::from).filter(|shell| shell.is_absolute());
    own.or_else(|| passwd_shell(&std::fs::read_to_string("/etc/passwd").ok()?)).unwrap_or_else(|| "/bin/sh".into())
}

/// The shell of this process's user: `name:password:uid:gid:comment:home:shell`.
fn passwd_shell(passwd: &str) -> Option<PathBuf> {
    let uid = rustix::process::getuid().as_raw().to_string();
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let own = passwd.lines().map(fields).find(|fields| fields.get(2) == Some(&uid))?;
    own.get(6).filter(|shell| shell.starts_with('/')).map(PathBuf::from)
}

/// Asks a shell. Profiles print things, so that the answer is between marks.
async fn ask(shell: &Path) -> Option<Vec<u8>> {
    // Many set PATH for interactive shells alone; with a terminal at hand such a shell would want it for itself.
    let interactive = std::fs::File::open("/dev/tty").is_err();
    let mut command = Command::new(shell);
    command.arg("-l").args(interactive.then_some("-i")).arg("-c").arg(format!("printf '{MARK}%s{MARK}' \"$PATH\""));
    command.process_group(0);
    let mut child = rt::start(command, [Stdio::null(), Stdio::piped(), Stdio::null()], true).ok()?;
    let group = Group(rt::id(&child).and_then(|id| Pid::from_raw(id.try_into().ok()?)));
    let mut stdout = child.stdout.take()?;
    let mut said = BytesMut::new();
    // Not to the end: what a profile left in the background keeps the pipe open.
    while between_marks(&said).is_none() && said.len() < MAX_SAID {
        if rt::read_buf(&mut stdout, &mut said).await.ok()? == 0 {
            break;
        }
    }
    drop(group);
    between_marks(&said)
}

/// What a profile started goes with its shell.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

fn between_marks(said: &[u8]) -> Option<Vec<u8>> {
    let text = MARK.as_bytes();
    let at = |from: usize| said.get(from..)?.windows(text.len()).position(|part| part == text).map(|at| from + at);
    let start = at(0)? + text.len();
    let found = said.get(start..at(start)?)?;
    (!found.is_empty()).then(|| found.to_vec())
}

/// The directories of both, each once, those of `found` first.
fn joined(found: &[u8], own: &OsStr) -> Option<OsString> {
    let found = OsString::from_vec(found.to_vec());
    let mut seen = BTreeSet::new();
    let dirs = std::env::split_paths(&found).chain(std::env::split_paths(own));
    let dirs: Vec<PathBuf> = dirs.filter(|dir| dir.is_absolute() && seen.insert(dir.clone())).collect();
    let joined = std::env::join_paths(dirs).ok()?;
    (!joined.as_bytes().is_empty() && joined != own).then_some(joined)
}

/// What launchd and systemd give, and what containers have.
const BARE: [&str; 8] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/snap/bin", ""];
/// A profile may ask the network; an agent does not wait for it.
const PATIENCE: Duration = Duration::from_secs(3);
const MARK: &str = "__mcp_local_tunnel_path__";
/// A profile's chatter and a path.
const MAX_SAID: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn paths_of_service_managers_are_bare() {
        for bare in ["/usr/bin:/bin:/usr/sbin:/sbin", "/usr/local/sbin:/usr/local/bin:/usr/bin:/snap/bin", ""] {
            assert!(is_bare(OsStr::new(bare)), "{bare}");
        }
        for own in ["/home/me/.local/bin:/usr/bin", "/opt/homebrew/bin:/usr/bin:/bin"] {
            assert!(!is_bare(OsStr::new(own)), "{own}");
        }
    }

    #[test]
    fn both_paths_are_joined_without_doubles() {
        let join = |found: &str, own: &str| joined(found.as_bytes(), OsStr::new(own));
        assert_eq!(join("/me/bin:/bin", "/usr/bin:/bin"), Some("/me/bin:/bin:/usr/bin".into()));
        assert_eq!(join("/usr/bin:/bin", "/usr/bin:/bin"), None, "nothing new");
        assert_eq!(join("relative:/x", ""), Some("/x".into()));
    }

    #[test]
    fn shell_is_read_from_the_users_line() {
        let uid = rustix::process::getuid().as_raw();
        let passwd = format!("other:x:4242424:0::/:/bin/no\nme:x:{uid}:0:Me:/home/me:/bin/fish\n");
        assert_eq!(passwd_shell(&passwd), Some("/bin/fish".into()));
        assert_eq!(passwd_shell("broken\n"), None);
    }

    fn script(dir: &TempDir, text: &str) -> PathBuf {
        let path = dir.path().join("shell");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("writes");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("set");
        path
    }

    #[crate::rt::test]
    async fn chatter_of_a_profile_is_skipped() {
        let dir = TempDir::new();
        // As a shell does: the last argument is the command.
        let shell = script(&dir, "echo Welcome; for last; do :; done; PATH=/from/profile; eval \"$last\"; echo bye");
        assert_eq!(ask(&shell).await.as_deref(), Some(&b"/from/profile"[..]));
    }

    #[crate::rt::test]
    async fn shell_that_hangs_is_named() {
        let dir = TempDir::new();
        let shell = script(&dir, "sleep 100");
        let found = ask_within(Duration::from_millis(50), shell.clone(), OsStr::new("/bin")).await;
        assert_eq!(found, Found { path: None, silent: Some(shell) });
    }

    #[crate::rt::test]
    async fn shell_that_says_nothing_or_is_missing_changes_nothing() {
        let dir = TempDir::new();
        assert_eq!(ask(&script(&dir, "exit 1")).await, None);
        assert_eq!(ask(Path::new("/no/such/shell")).await, None);
    }
}
