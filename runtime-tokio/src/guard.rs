//! The guards: two processes between the agent and one local server, which let nothing of the server outlive the agent.
//!
//! The agent starts its own binary again as `__guard outer <its pid> …`, that one again as `__guard inner …`, and this
//! one as `__guard exec …`, which [becomes the command](exec). Each guard waits for what it started and ends with it,
//! and with the process that started it, however that ended (also by `kill -9`, when it can do nothing any more itself).
//! On Linux each is the *subreaper* of what it started: a process that detached itself with `setsid` becomes its child
//! when orphaned, and is found and killed too.
//!
//! | killed | who ends the server and all that it started |
//! |---|---|
//! | the agent | both guards |
//! | the outer guard, with or without the agent | the inner one |
//! | both guards | [the agent](crate::strays) |
//! | the inner guard, by the server for example | the outer one |
//! | the agent and both guards, in one instant | the system, on Linux: but the command alone, whose children hear of it by the end of their streams |
//!
//! The inner guard also watches the memory of everything that descends from it: over the limit, all of it is killed, and
//! the last line of stderr says so. The resident pages of all processes are added up, so that those which they share
//! count for each.
//!
//! | signal to a guard | what it does |
//! |---|---|
//! | SIGTERM, SIGHUP | SIGTERM to the process group of what it started |
//! | SIGINT | SIGKILL to everything that descends from it |
//!
//! Neither ever has the server's environment: the agent writes it to the server's stdin, where the last step reads it.

pub(crate) mod exec;
pub(crate) mod sandbox;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, getppid, kill_process, kill_process_group,
};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

/// The hidden subcommand that the agent starts its own binary with.
pub const SUBCOMMAND: &str = "__guard";

/// The roles behind it: who guards the guard, who guards the command, and what becomes the command.
pub(crate) const OUTER: &str = "outer";
const INNER: &str = "inner";
const EXEC: &str = "exec";
pub(crate) const MEMORY: &str = "--memory";
pub(crate) const HIDE: &str = "--hide";
/// How they are called in lists of processes.
pub(crate) const ARG0: &str = "mcp-local-tunnel";

/// What asks the guard to end the command at once.
pub(crate) const KILL_SIGNAL: Signal = Signal::INT;

/// Runs as a guard, or as the step that becomes the command. `args` are those after [`SUBCOMMAND`]. Call it before
/// anything else of the program starts: it wants to be small and without threads.
pub fn main(mut args: impl Iterator<Item = OsString>) -> ! {
    crate::private::keep_from_other_processes();
    let role = args.next();
    let outcome = match role.as_ref().and_then(|role| role.to_str()) {
        Some(OUTER) => outer(args),
        Some(INNER) => inner(args),
        Some(EXEC) => exec::become_command(args).map(|never| match never {}),
        _ => Err(usage()),
    };
    let code = outcome.unwrap_or_else(|error| {
        // The server's log gets this: the guard's stderr is the server's.
        eprintln!("{error}");
        NOT_STARTED
    });
    std::process::exit(code)
}

fn usage() -> String {
    format!("usage: {SUBCOMMAND} {OUTER}|{INNER}|{EXEC} <pid> [--memory <bytes>] [--hide <path>]… -- <command>…")
}

/// Guards the other guard, which gets the same order.
fn outer(mut args: impl Iterator<Item = OsString>) -> Result<i32, String> {
    let parent = args.next().as_deref().and_then(pid).ok_or_else(usage)?;
    let rest: Vec<OsString> = args.collect();
    guard(parent, None, || start(INNER, &rest))
}

/// Guards the command.
fn inner(args: impl Iterator<Item = OsString>) -> Result<i32, String> {
    let order = parse(args)?;
    // Kept for one line: whoever reads it is told of the command's end by the guard's own.
    let ceiling = order.memory.map(|bytes| Ceiling { bytes, stderr: rustix::io::dup(std::io::stderr()).ok() });
    guard(order.parent, ceiling.as_ref(), || start(EXEC, &order.for_exec()))
}

fn guard(parent: Pid, ceiling: Option<&Ceiling>, start: impl FnOnce() -> Result<Pid, String>) -> Result<i32, String> {
    become_subreaper();
    let watch = Watch::new(parent).map_err(|error| format!("cannot watch for signals: {error}"))?;
    if watch.parent_is_gone() {
        return Ok(0);
    }
    let child = start()?;
    silence_own_streams();
    Ok(attend(child, &watch, ceiling))
}

/// What a guard is told to do.
struct Order {
    /// Who started it.
    parent: Pid,
    /// How many bytes all processes of the command may occupy.
    memory: Option<u64>,
    /// What the command may not reach: there is a sandbox if there is any of it.
    hidden: Vec<PathBuf>,
    command: Vec<OsString>,
}

impl Order {
    /// What the step that becomes the command is told, but for the parent's id.
    fn for_exec(&self) -> Vec<OsString> {
        let hidden = self.hidden.iter().flat_map(|path| [HIDE.into(), path.into()]);
        hidden.chain(["--".into()]).chain(self.command.iter().cloned()).collect()
    }
}

/// `<parent's pid> [--memory <bytes>] [--hide <path>]… -- command…`
fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Order, String> {
    let parent = args.next().as_deref().and_then(pid).ok_or_else(usage)?;
    let mut order = Order { parent, memory: None, hidden: Vec::new(), command: Vec::new() };
    loop {
        match args.next().as_deref().and_then(OsStr::to_str) {
            Some(MEMORY) => {
                let bytes = args.next().and_then(|bytes| bytes.to_str()?.parse().ok());
                order.memory = Some(bytes.ok_or_else(usage)?);
            }
            Some(HIDE) => order.hidden.push(args.next().ok_or_else(usage)?.into()),
            Some("--") => break,
            _ => return Err(usage()),
        }
    }
    order.command = args.collect();
    if order.command.is_empty() { Err(usage()) } else { Ok(order) }
}

fn pid(text: &OsStr) -> Option<Pid> {
    text.to_str()?.parse().ok().filter(|pid| *pid > 0).and_then(Pid::from_raw)
}

/// Starts this binary again in another role.
fn start(role: &str, args: &[OsString]) -> Result<Pid, String> {
    let child = running_binary()
        .map(Command::new)
        .and_then(|mut command| {
            let command = command.arg0(ARG0).arg(SUBCOMMAND).arg(role).arg(std::process::id().to_string()).args(args);
            command.env_clear().process_group(0).spawn()
        })
        .map_err(|error| format!("cannot start the guard: {error}"))?;
    // A guard reaps by itself (orphans too), never through `Child`.
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| "the process has no id".into())
}

/// What starts the running program again. Unlike the path that it once was started from, `/proc/self/exe` names it even
/// after an upgrade.
pub(crate) fn running_binary() -> io::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.exists() { Ok(running.to_owned()) } else { std::env::current_exe() }
}

/// Lets go of the command's streams: who reads its stdout must see it end when the command ends.
fn silence_own_streams() {
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

/// Waits until the child or the parent is gone; returns the exit code once nothing of the command is left.
fn attend(child: Pid, watch: &Watch, ceiling: Option<&Ceiling>) -> i32 {
    let mut killing_at: Option<Instant> = None;
    loop {
        if let Some(status) = reap(child) {
            kill_descendants(child, watch);
            return code_of(status);
        }
        if watch.asked_to_kill.load(Ordering::SeqCst) || killing_at.is_some_and(|at| at <= Instant::now()) {
            return kill_descendants(child, watch).map_or(128 + Signal::KILL.as_raw(), code_of);
        }
        if watch.asked_to_end.swap(false, Ordering::SeqCst) {
            let _ = kill_process_group(child, Signal::TERM);
        }
        if killing_at.is_none() && watch.parent_is_gone() {
            let _ = kill_process_group(child, Signal::TERM);
            killing_at = Some(Instant::now() + GRACE);
        }
        if ceiling.is_some_and(Ceiling::is_hit) {
            return kill_descendants(child, watch).map_or(128 + Signal::KILL.as_raw(), code_of);
        }
        // Without a deadline of its own it wakes for signals and for its parent's end.
        let kill_in = killing_at.map(|at| at.saturating_duration_since(Instant::now()));
        watch.wait(kill_in.into_iter().chain(ceiling.map(|_| WEIGH)).min());
    }
}

/// Reaps all children that ended; returns the command's status if it is among them.
fn reap(child: Pid) -> Option<WaitStatus> {
    let mut found = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == child {
            found = Some(status);
        }
    }
    found
}

/// Whether there is a child, alive or still to be reaped.
fn has_children() -> bool {
    rustix::process::waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT).is_ok()
}

/// Kills whatever descends from the guard until nothing is left, or until it is clear that something cannot be killed.
fn kill_descendants(child: Pid, watch: &Watch) -> Option<WaitStatus> {
    let _ = kill_process_group(child, Signal::KILL);
    let give_up = Instant::now() + HOPELESS;
    let mut status = None;
    loop {
        status = reap(child).or(status);
        let left = descendants();
        // A child may be there unseen, where `/proc` hides the other guard.
        if (left.is_empty() && !has_children()) || Instant::now() >= give_up {
            return status;
        }
        for pid in left {
            let _ = kill_process(pid, Signal::KILL);
        }
        watch.wait(Some(Duration::from_millis(10)));
    }
}

fn code_of(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(NOT_STARTED)
}

/// How much memory the command and its descendants may occupy.
struct Ceiling {
    bytes: u64,
    /// Where it is told that they had more.
    stderr: Option<OwnedFd>,
}

impl Ceiling {
    /// Whether they have more; it is told then.
    fn is_hit(&self) -> bool {
        let resident: u64 = descendants().into_iter().filter_map(resident).fold(0, u64::saturating_add);
        if resident <= self.bytes {
            return false;
        }
        if let Some(stderr) = &self.stderr {
            let (used, limit) = (resident >> 20, self.bytes >> 20);
            let line = format!("\nits processes took {used} MiB of memory and were killed: memoryLimit is {limit}\n");
            let _ = rustix::io::write(stderr, line.as_bytes());
        }
        true
    }
}

/// How much memory a process occupies, in bytes. Where there is no `/proc`, that is not known.
fn resident(pid: Pid) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", pid.as_raw_nonzero())).ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(u64::try_from(rustix::param::page_size()).ok()?))
}

/// What wakes a guard: its parent's end and signals.
struct Watch {
    parent: Pid,
    /// Readable once the parent ended; none where the system has no such thing, and then its id is looked at.
    parent_end: Option<OwnedFd>,
    signals: UnixStream,
    asked_to_end: Arc<AtomicBool>,
    asked_to_kill: Arc<AtomicBool>,
}

impl Watch {
    fn new(parent: Pid) -> io::Result<Self> {
        let (signals, writer) = UnixStream::pair()?;
        signals.set_nonblocking(true)?;
        let asked_to_end = Arc::new(AtomicBool::new(false));
        let asked_to_kill = Arc::new(AtomicBool::new(false));
        for (signal, flag) in [(SIGTERM, &asked_to_end), (SIGHUP, &asked_to_end), (SIGINT, &asked_to_kill)] {
            signal_hook::flag::register(signal, Arc::clone(flag))?;
        }
        // After the flags: a byte in the pipe means that they are set.
        for signal in [SIGTERM, SIGHUP, SIGINT, SIGCHLD] {
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        Ok(Self { parent, parent_end: open_pidfd(parent), signals, asked_to_end, asked_to_kill })
    }

    /// An orphan gets another parent.
    fn parent_is_gone(&self) -> bool {
        getppid() != Some(self.parent)
    }

    /// Sleeps until something may have happened, at most `limit`.
    fn wait(&self, limit: Option<Duration>) {
        let gone = self.parent_is_gone();
        let limit = match limit {
            None if self.parent_end.is_none() || gone => Some(LOOK_AGAIN),
            other => other,
        };
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut wakers = vec![PollFd::new(&self.signals, PollFlags::IN)];
        // The end of the parent stays readable for ever: not to be asked again once it is known.
        wakers.extend(self.parent_end.iter().filter(|_| !gone).map(|end| PollFd::new(end, PollFlags::IN)));
        let _ = poll(&mut wakers, limit.as_ref());
        let mut drained = [0; 64];
        while matches!((&self.signals).read(&mut drained), Ok(1..)) {}
    }
}

#[cfg(target_os = "linux")]
fn open_pidfd(pid: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn open_pidfd(_pid: Pid) -> Option<OwnedFd> {
    None
}

#[cfg(target_os = "linux")]
fn become_subreaper() {
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

#[cfg(not(target_os = "linux"))]
fn become_subreaper() {}

/// The living processes that descend from this one. Where there is no `/proc`, none are known.
fn descendants() -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some(parent) = living_parent(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut of = vec![rustix::process::getpid().as_raw_nonzero().get()];
    while let Some(pid) = of.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            found.extend(Pid::from_raw(child));
            of.push(child);
        }
    }
    found
}

/// The parent in a `/proc/<pid>/stat`: `pid (name) state parent …`, where the name may hold anything. `None` for the dead.
pub(crate) fn living_parent(stat: &str) -> Option<i32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.next()?.parse().ok(),
    }
}

/// What a shell says of a command that it cannot find.
const NOT_STARTED: i32 = 127;
/// Between SIGTERM and SIGKILL once the agent is gone: nobody waits for the server's answers any more.
const GRACE: Duration = Duration::from_millis(500);
/// After this long something is beyond SIGKILL (another user's, or stuck in the kernel).
const HOPELESS: Duration = Duration::from_secs(5);
/// How often memory is looked at: a process that grows by a gigabyte a second is over by half of one.
const WEIGH: Duration = Duration::from_millis(500);
/// How often the agent is looked for where its end cannot be waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_a_pid_two_dashes_and_a_command() {
        let parse = |line: &str| parse(line.split(' ').map(OsString::from));
        let order = parse("17 -- npx -- x").expect("parses");
        assert_eq!((order.parent.as_raw_nonzero().get(), order.memory, order.command.len()), (17, None, 3));
        let order = parse("17 --memory 4096 --hide /a --hide /b -- npx").expect("parses");
        assert_eq!((order.memory, order.hidden.len()), (Some(4096), 2));
        assert_eq!(order.for_exec(), ["--hide", "/a", "--hide", "/b", "--", "npx"]);
        let bad = [
            "",
            "17",
            "17 --",
            "x -- npx",
            "17 npx",
            "-1 -- npx",
            "17 --memory -- x",
            "17 --memory x -- y",
            "17 --hide",
        ];
        for bad in bad {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn parent_is_read_past_any_name_and_the_dead_have_none() {
        assert_eq!(living_parent("12 (cat) S 7 12 12 0"), Some(7));
        assert_eq!(living_parent("12 (a) b (c) R 1) S 9 12"), Some(9));
        assert_eq!(living_parent("12 (cat) Z 7 12"), None);
        assert_eq!(living_parent("nonsense"), None);
    }

    #[test]
    fn own_children_are_descendants() {
        let mut child = Command::new("sleep").arg("30").spawn().expect("sleep runs");
        let pid = Pid::from_child(&child);
        assert!(descendants().contains(&pid));
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert!(!descendants().contains(&pid));
    }
}
