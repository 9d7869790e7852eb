//! What is left of a server when its guards were killed: the agent, as *subreaper* of all that it started, gets it as
//! children of its own, and ends it. (Linux; elsewhere orphans go to the system.)

use std::collections::BTreeSet;
use std::io;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, getpgrp, getpid, kill_process, waitpid};

use crate::rt::{self, Child};

/// The guards that this process has started and not reaped. They are the process's, as its children are: whoever is no
/// guard is a stray, in whichever part of the program.
static GUARDS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn guards() -> MutexGuard<'static, BTreeSet<i32>> {
    GUARDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a guard.
///
/// # Errors
/// What the system says.
pub(crate) fn start_guard(command: Command, streams: [Stdio; 3]) -> io::Result<Child> {
    // Not before the first one: a browser that was opened for the sign-in is nobody's stray.
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(getpid()))?;
    // Locked until it is known: who looks for strays meanwhile must not take it for one.
    let mut guards = guards();
    let child = rt::start(command, streams, false)?;
    guards.extend(rt::id(&child).map(u32::cast_signed));
    Ok(child)
}

/// The guard was reaped.
pub(crate) fn forget_guard(pid: Pid) {
    guards().remove(&pid.as_raw_nonzero().get());
}

/// Kills and reaps the children of this process that are no guards, and theirs after them. What is in this process's own
/// group was not started as a server.
pub(crate) fn end() {
    let give_up = Instant::now() + HOPELESS;
    loop {
        let strays = strays();
        if strays.is_empty() || Instant::now() >= give_up {
            return;
        }
        for pid in strays {
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn strays() -> Vec<Pid> {
    let guards = guards();
    let (own, group) = (getpid().as_raw_nonzero().get(), getpgrp().as_raw_nonzero().get());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        if parent_and_group(&stat).is_some_and(|(parent, of)| parent == own && of != group) && !guards.contains(&pid) {
            found.extend(Pid::from_raw(pid));
        }
    }
    found
}

/// Of a `/proc/<pid>/stat`: `pid (name) state parent group …`, where the name may hold anything.
fn parent_and_group(stat: &str) -> Option<(i32, i32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// After this long something is beyond SIGKILL (another user's, or stuck in the kernel).
const HOPELESS: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parent_and_group_are_read_past_any_name() {
        assert_eq!(parent_and_group("12 (a) b (c) R 1) S 9 13 12"), Some((9, 13)));
        assert_eq!(parent_and_group("12 (cat) Z 7 12"), Some((7, 12)));
        assert_eq!(parent_and_group("nonsense"), None);
    }
}
