//! Whether a process descends from a local server: told by its ancestors, since a guard is among a server's, and adopts
//! what it started when that is orphaned. Where there is no `/proc`, or it hides others' processes (`hidepid`), nobody's
//! descent is known.

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use tunnel_core::daemon::Standing;

use crate::guard;

/// Who the process is. One that cannot be looked at any more counts as a server's: a person's command waits for its
/// answer. The id was taken when it connected; a process that gets itself another ancestor first (by asking a session
/// manager to start it) is not found out.
pub(crate) fn standing(peer: Option<i32>) -> Standing {
    if !cfg!(target_os = "linux") {
        return Standing::Person;
    }
    match peer {
        Some(peer) => of(peer),
        None => Standing::Server,
    }
}

fn of(peer: i32) -> Standing {
    let own = std::process::id().cast_signed();
    'again: for _ in 0..TRIES {
        let (mut pid, mut standing) = (peer, Standing::Person);
        for _ in 0..MAX_ANCESTORS {
            // An id of 0 is outside of what can be seen here, and so no descendant.
            if pid <= 1 {
                return standing;
            }
            if pid == own && pid != peer {
                return if standing == Standing::Person { Standing::Server } else { standing };
            }
            let Some((parent, line)) = look(pid) else {
                if is_hidden(pid) {
                    return standing;
                }
                continue 'again;
            };
            match guarded(&line) {
                Some(true) => return Standing::Sandboxed,
                Some(false) => standing = Standing::Server,
                None => {}
            }
            pid = parent;
        }
        return Standing::Server;
    }
    Standing::Server
}

/// Whether a process is there and cannot be looked at.
fn is_hidden(pid: i32) -> bool {
    let seen = std::fs::exists(format!("/proc/{pid}/stat")).unwrap_or_default();
    !seen && Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

/// A process's parent and command line.
fn look(pid: i32) -> Option<(i32, Vec<u8>)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some((guard::living_parent(&stat)?, line))
}

/// Whether it is a guard, and if so whether it is one of a sandbox.
fn guarded(line: &[u8]) -> Option<bool> {
    let mut words = line.split(|byte| *byte == 0).skip(1);
    if words.next()? != guard::SUBCOMMAND.as_bytes() {
        return None;
    }
    Some(words.take_while(|word| *word != b"--").any(|word| word == guard::HIDE.as_bytes()))
}

/// An ancestor may end while it is looked for, and its children get another one.
const TRIES: usize = 8;
/// Nobody's command is that deep.
const MAX_ANCESTORS: usize = 256;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn guard_is_known_by_its_command_line_and_so_is_its_sandbox() {
        let guarded = |line: &str| guarded(line.replace(' ', "\0").as_bytes());
        assert_eq!(guarded("mcp-local-tunnel __guard outer 7 -- sh --hide x"), Some(false));
        assert_eq!(guarded("mcp-local-tunnel __guard inner 7 --hide /a -- sh"), Some(true));
        assert_eq!(guarded("sh -c __guard"), None);
        assert_eq!(guarded(""), None);
    }

    #[test]
    fn own_child_is_a_servers_and_who_started_this_process_is_not() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().expect("sleep runs");
        assert_eq!(standing(Some(child.id().cast_signed())), Standing::Server);
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert_eq!(standing(Some(child.id().cast_signed())), Standing::Server, "the dead are not trusted");
        assert_eq!(standing(Some(std::process::id().cast_signed())), Standing::Person);
        assert_eq!(standing(Some(1)), Standing::Person);
        assert_eq!(standing(None), Standing::Server);
    }
}
