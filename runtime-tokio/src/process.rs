//! Local servers' processes: each in its own process group under [guards](crate::guard), its streams as events.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::sync::{mpsc, watch};
use tunnel_core::agent::machine::{Event, Spawn};
use tunnel_core::config::{BASE_ENVIRONMENT, Reference};
use tunnel_core::id::ChildId;
use tunnel_core::secret::Secret;

use crate::guard::{self, exec, sandbox};
use crate::lines::{Line, Lines};
use crate::rt::{self, AsyncRead, AsyncWriteExt, Child, ChildStdin, JoinHandle};
use crate::stderr::StderrLog;
use crate::strays;

/// How processes are started.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The binary whose hidden subcommand is the guard; `None`: servers are started bare.
    pub guard: Option<PathBuf>,
    /// Where each server's stderr goes: `<logs>/<server>.stderr.log`.
    pub logs: PathBuf,
    /// What servers have for `PATH`, where it is not this process's own.
    pub path: Option<OsString>,
    /// What a server in a sandbox may not reach.
    pub hidden: Vec<PathBuf>,
}

impl Launcher {
    /// Starts servers under this very binary as guard.
    #[must_use]
    pub fn new(logs: PathBuf) -> Self {
        Self { guard: guard::running_binary().ok(), logs, path: None, hidden: Vec::new() }
    }

    /// Starts a process; what it does comes as events of `child`, `Exited` being the last. Waits for room in `events`:
    /// a server that talks faster than it is listened to is slowed down by its own pipe.
    ///
    /// # Errors
    /// For people: why it cannot be started.
    pub fn spawn(&self, child: ChildId, spawn: Spawn, events: mpsc::Sender<Event>) -> Result<Process, String> {
        let (command, first) = self.command(&spawn)?;
        let streams = [Stdio::piped(), Stdio::piped(), Stdio::piped()];
        let started = match self.guard {
            // A guard ends its server when this process ends; killed itself, it could not.
            Some(_) => strays::start_guard(command, streams),
            None => rt::start(command, streams, true),
        };
        let mut process = started.map_err(|error| error.to_string())?;
        let pid = rt::id(&process).and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).ok_or("it ended at once")?;
        let streams = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = streams else { return Err("its streams are missing".into()) };
        widen(&stdout);
        let (input, written) = mpsc::unbounded_channel();
        let (killer, kills) = mpsc::unbounded_channel();
        let (ended, has_ended) = watch::channel(false);
        let writer = rt::spawn(write_input(stdin, first, written, child, events.clone()));
        let log = StderrLog::new(&self.logs, &spawn.log);
        let run = Run {
            stderr: rt::spawn(keep_stderr(stderr, log, has_ended.clone())),
            stdout: rt::spawn(read_lines(stdout, Lines::new(spawn.max_line), child, events.clone(), has_ended)),
            group: Group { pid, guarded: self.guard.is_some() },
            process,
            child,
            events,
        };
        rt::spawn(async move {
            run.until_exited(kills, ended).await;
            writer.abort();
        });
        Ok(Process { pid, input: Some(input), killer })
    }

    /// What starts the server, and what it must be given on stdin before all else.
    fn command(&self, spawn: &Spawn) -> Result<(Command, Vec<u8>), String> {
        let (program, args) = spawn.command.split_first().ok_or("no command is configured")?;
        if let Some(cwd) = &spawn.cwd
            && !Path::new(cwd).is_dir()
        {
            return Err(format!("its working directory {cwd} does not exist"));
        }
        let environment = self.environment(spawn)?;
        let path = environment.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
        // Looked for here, since a guard could only tell in its exit code.
        check_program(program, path, spawn.cwd.as_deref())?;
        let mut first = Vec::new();
        let mut command = match &self.guard {
            Some(binary) => {
                first = exec::written_environment(&environment)?;
                let mut command = Command::new(binary);
                command.env_clear().args(self.guard_args(spawn)?).arg0(guard::ARG0).arg("--").arg(program);
                command
            }
            None if spawn.sandbox => return Err("a server has no sandbox without a guard".into()),
            None => {
                let mut command = Command::new(program);
                command.env_clear().envs(environment);
                command
            }
        };
        command.args(args).process_group(0);
        if let Some(cwd) = &spawn.cwd {
            command.current_dir(cwd);
        }
        Ok((command, first))
    }

    /// What the guard is told, up to the command.
    fn guard_args(&self, spawn: &Spawn) -> Result<Vec<OsString>, String> {
        let mut args = vec![guard::SUBCOMMAND.into(), guard::OUTER.into(), std::process::id().to_string().into()];
        if let Some(limit) = spawn.memory_limit {
            args.extend([guard::MEMORY.into(), limit.to_string().into()]);
        }
        if spawn.sandbox {
            // Without anything to hide, a guard makes no sandbox.
            assert!(!self.hidden.is_empty(), "an agent has a directory of its own to hide");
            sandbox::check()
                .map_err(|reason| format!("it is to run in a sandbox, and there is none here: {reason}"))?;
            for path in &self.hidden {
                args.extend([guard::HIDE.into(), path.into()]);
            }
        }
        Ok(args)
    }

    /// The small base of this process's own environment, then what the server's entry says.
    fn environment(&self, spawn: &Spawn) -> Result<Vec<(String, OsString)>, String> {
        let base = BASE_ENVIRONMENT.iter().filter_map(|name| match (*name, &self.path) {
            ("PATH", Some(path)) => Some(("PATH".to_owned(), path.clone())),
            (name, _) => Some((name.to_owned(), std::env::var_os(name)?)),
        });
        let own = spawn.env.iter().map(|(name, given)| Ok((name.clone(), value(name, given)?)));
        base.map(Ok).chain(own).collect()
    }
}

/// A handle to a running process. Dropping it closes the process's stdin and kills it.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    input: Option<mpsc::UnboundedSender<Bytes>>,
    killer: mpsc::UnboundedSender<Signal>,
}

impl Process {
    /// The process's id (the guard's, where there is one: a signal to it reaches the server).
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Writes to stdin, after what was given before. The owner keeps the queue short: it hears `Wrote`.
    pub fn write(&self, bytes: Bytes) {
        if let Some(input) = &self.input {
            // Fails once the process is gone; `Exited` is under way then.
            let _ = input.send(bytes);
        }
    }

    /// Closes stdin once everything is written.
    pub fn close_stdin(&mut self) {
        self.input = None;
    }

    /// Signals the whole process group: SIGTERM, or SIGKILL when `force`.
    pub fn kill(&self, force: bool) {
        let _ = self.killer.send(if force { Signal::KILL } else { Signal::TERM });
    }
}

/// What a signal is sent to.
#[derive(Debug, Clone, Copy)]
struct Group {
    pid: Pid,
    guarded: bool,
}

impl Group {
    fn signal(self, signal: Signal) {
        // A failure means that it is gone, which is what was wanted.
        let _ = match (self.guarded, signal) {
            (true, Signal::KILL) => kill_process(self.pid, guard::KILL_SIGNAL),
            (true, other) => kill_process(self.pid, other),
            (false, any) => kill_process_group(self.pid, any),
        };
    }
}

/// A process under way.
struct Run {
    process: Child,
    group: Group,
    child: ChildId,
    stdout: JoinHandle<()>,
    stderr: JoinHandle<String>,
    events: mpsc::Sender<Event>,
}

impl Run {
    async fn until_exited(mut self, mut kills: mpsc::UnboundedReceiver<Signal>, ended: watch::Sender<bool>) {
        // Signals are sent from here alone, where the process is also reaped: its id cannot have been given away.
        let status = loop {
            tokio::select! {
                status = rt::ended(&mut self.process) => break status,
                signal = kills.recv() => match signal {
                    Some(signal) => self.group.signal(signal),
                    None => {
                        self.group.signal(Signal::KILL);
                        break rt::ended(&mut self.process).await;
                    }
                },
            }
        };
        if self.group.guarded {
            strays::forget_guard(self.group.pid);
            if status.as_ref().is_ok_and(|status| status.signal().is_some()) {
                // It did not end by itself, and so may have left something.
                let _ = rt::spawn_blocking(strays::end).await;
            }
        } else {
            self.group.signal(Signal::KILL);
        }
        let _ = ended.send(true);
        let _ = self.stdout.await;
        let stderr = self.stderr.await.unwrap_or_default();
        let (code, signal) = outcome(status, self.group.guarded);
        let _ = self.events.send(Event::Exited { child: self.child, code, signal, stderr }).await;
    }
}

/// Exit code and signal. A guard tells a signal as a shell does, 128 above.
fn outcome(status: io::Result<ExitStatus>, guarded: bool) -> (Option<i32>, Option<i32>) {
    let Ok(status) = status else { return (None, None) };
    match status.code() {
        Some(code @ 129..=192) if guarded => (None, Some(code - 128)),
        code => (code, status.signal()),
    }
}

/// Gives a server room to write a large answer without a pause for each piece of it.
fn widen(stdout: &impl AsFd) {
    // Refused to who has very many pipes: then it stays as it is.
    #[cfg(target_os = "linux")]
    let _ = rustix::pipe::fcntl_setpipe_size(stdout, PIPE);
    #[cfg(not(target_os = "linux"))]
    let _ = stdout;
}

async fn read_lines(
    mut stdout: impl AsyncRead + Unpin,
    mut lines: Lines,
    child: ChildId,
    events: mpsc::Sender<Event>,
    mut ended: watch::Receiver<bool>,
) {
    while read_some(&mut stdout, lines.space(), &mut ended).await {
        while let Some(line) = lines.next() {
            if events.send(line_event(child, line)).await.is_err() {
                return;
            }
        }
    }
    if let Some(line) = lines.finish() {
        let _ = events.send(line_event(child, line)).await;
    }
    let _ = events.send(Event::OutputEnded { child }).await;
}

fn line_event(child: ChildId, line: Line) -> Event {
    match line {
        Line::Whole(line) => Event::Line { child, line },
        Line::TooLong { prefix, suffix, length } => Event::LineTooLong { child, prefix, suffix, length },
    }
}

/// Keeps stderr in its file, and the last of it in memory, which is returned at the end.
async fn keep_stderr(
    mut stderr: impl AsyncRead + Unpin,
    mut log: StderrLog,
    mut ended: watch::Receiver<bool>,
) -> String {
    let mut buffer = BytesMut::with_capacity(STDERR_READ);
    while read_some(&mut stderr, &mut buffer, &mut ended).await {
        log.append(&buffer).await;
        buffer.clear();
    }
    log.tail()
}

/// Reads a piece. `false` at the end, which a pipe that a descendant keeps open reaches when it stays quiet for
/// [`QUIET`] after the process ended.
async fn read_some(
    pipe: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    ended: &mut watch::Receiver<bool>,
) -> bool {
    let ended_and_quiet = async {
        // An error says that the sender is gone, and so is the process.
        let _ = ended.wait_for(|ended| *ended).await;
        rt::sleep(QUIET).await;
    };
    tokio::select! {
        biased;
        read = rt::read_buf(pipe, buffer) => matches!(read, Ok(1..)),
        () = ended_and_quiet => false,
    }
}

async fn write_input(
    mut stdin: ChildStdin,
    first: Vec<u8>,
    mut queue: mpsc::UnboundedReceiver<Bytes>,
    child: ChildId,
    events: mpsc::Sender<Event>,
) {
    let mut broken = stdin.write_all(&first).await.is_err();
    drop(first);
    let (mut waiting, mut together) = (Vec::new(), BytesMut::new());
    while queue.recv_many(&mut waiting, LINES_AT_ONCE).await > 0 {
        let mut lines = waiting.drain(..).peekable();
        while let Some(line) = lines.next() {
            let mut bytes = line;
            // Small lines that wait go out in one write.
            if lines.peek().is_some_and(|next| bytes.len() + next.len() <= WRITE) {
                together.extend_from_slice(&bytes);
                while let Some(next) = lines.next_if(|next| together.len() + next.len() <= WRITE) {
                    together.extend_from_slice(&next);
                }
                bytes = together.split().freeze();
            }
            // What a closed stdin does not take any more is gone all the same, and must not be counted for ever.
            broken = broken || stdin.write_all(&bytes).await.is_err();
            if events.send(Event::Wrote { child, bytes: bytes.len() }).await.is_err() {
                return;
            }
        }
    }
}

/// What a server's variable is, once it is looked up. An error names the place, never what is there.
pub(crate) fn value(name: &str, given: &Secret) -> Result<OsString, String> {
    match Reference::read(given.expose()) {
        None => Ok(given.expose().into()),
        Some(Reference::Variable(of)) => std::env::var_os(of).ok_or_else(|| {
            format!("its env.{name} refers to the variable {of}, which is not set where the agent was started")
        }),
        Some(Reference::File(path)) => {
            let unreadable = |error: io::Error| format!("its env.{name} refers to a file that cannot be read: {error}");
            let content = crate::files::read(Path::new(path), MAX_VALUE).map_err(unreadable)?;
            let mut content =
                content.ok_or_else(|| format!("its env.{name} refers to {path}, which does not exist"))?;
            while content.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                content.pop();
            }
            match content.contains(&0) {
                true => Err(format!("its env.{name} refers to {path}, which holds a NUL byte")),
                false => Ok(OsString::from_vec(content)),
            }
        }
    }
}

/// What is said of a program that stands in no directory of `PATH`.
pub(crate) const NOT_FOUND: &str = "not found in PATH";

/// Whether `program` can be found the way that starting it will look for it.
fn check_program(program: &str, path: Option<&std::ffi::OsStr>, cwd: Option<&str>) -> Result<(), String> {
    let here = Path::new(cwd.unwrap_or("."));
    if program.contains('/') {
        let file = here.join(program);
        return match executable(&file) {
            true => Ok(()),
            false if file.is_file() => Err(format!("{program} is not executable: `chmod +x` it")),
            false if file.is_dir() => Err(format!("{program} is a directory, not a program")),
            false => Err(format!("{program} does not exist")),
        };
    }
    let path = path.unwrap_or("/bin:/usr/bin".as_ref());
    match std::env::split_paths(path).any(|dir| executable(&here.join(dir).join(program))) {
        true => Ok(()),
        // What mends it is said where all reasons are made.
        false => Err(NOT_FOUND.into()),
    }
}

fn executable(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

/// The longest value from a file: what a process takes as one variable.
const MAX_VALUE: u64 = 128 * 1024;
/// How long a pipe may stay open, saying nothing, after its process ended.
const QUIET: Duration = Duration::from_millis(100);
const STDERR_READ: usize = 8 * 1024;
/// What a server's stdout holds until it is read: a few pieces of a large answer. More is slower, since it falls out of
/// the processor's cache meanwhile.
#[cfg(target_os = "linux")]
const PIPE: usize = 256 * 1024;
/// Lines that are looked at together before they are written.
const LINES_AT_ONCE: usize = 64;
/// What is written to a server at once: a pipe's usual capacity.
const WRITE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    const CHILD: ChildId = ChildId(7);

    fn shell(script: &str) -> Spawn {
        Spawn {
            server: "test server".into(),
            log: "test server".into(),
            command: vec!["sh".into(), "-c".into(), script.into()],
            env: vec![("GIVEN".into(), Secret::new("given"))],
            cwd: None,
            max_line: 100,
            memory_limit: None,
            sandbox: false,
        }
    }

    fn start(logs: &TempDir, spawn: Spawn) -> (Result<Process, String>, mpsc::Receiver<Event>) {
        let (events, received) = mpsc::channel(4);
        let launcher = Launcher { guard: None, logs: logs.path().to_owned(), path: None, hidden: Vec::new() };
        (launcher.spawn(CHILD, spawn, events), received)
    }

    /// Every event up to and with `Exited`, as text.
    async fn all(mut events: mpsc::Receiver<Event>) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(event) = events.recv().await {
            seen.push(match event {
                Event::Line { line, .. } => String::from_utf8_lossy(&line).into_owned(),
                Event::LineTooLong { length, .. } => format!("too long: {length}"),
                Event::Wrote { bytes, .. } => format!("wrote {bytes}"),
                Event::OutputEnded { .. } => "output ended".into(),
                Event::Exited { code, signal, stderr, .. } => format!("exited {code:?} {signal:?} {stderr}"),
                other => format!("{other:?}"),
            });
        }
        seen
    }

    #[crate::rt::test]
    async fn lines_come_before_the_end_and_the_exit_code_after() {
        let logs = TempDir::new();
        let script = "printf 'one\\r\\n\\377\\n'; printf 'x%.0s' $(seq 200); echo; printf last; echo oops >&2; exit 3";
        let (process, events) = start(&logs, shell(script));
        let _process = process.expect("starts");
        let expected = ["one", "\u{fffd}", "too long: 200", "last", "output ended", "exited Some(3) None oops\n"];
        assert_eq!(all(events).await, expected);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn pipe_is_widened() {
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        widen(&reader);
        assert_eq!(rustix::pipe::fcntl_getpipe_size(&reader).expect("a pipe has a size"), PIPE);
    }

    #[crate::rt::test]
    async fn input_is_written_in_order_and_its_end_is_seen() {
        let logs = TempDir::new();
        let (process, events) = start(&logs, shell("cat; echo done"));
        let mut process = process.expect("starts");
        process.write(Bytes::from_static(b"a\n"));
        process.write(Bytes::from_static(b"bc\n"));
        process.close_stdin();
        let mut seen = all(events).await;
        seen.retain(|event| !event.starts_with("wrote"));
        assert_eq!(seen, ["a", "bc", "done", "output ended", "exited Some(0) None "]);
    }

    #[crate::rt::test]
    async fn kill_reaches_the_whole_group() {
        let logs = TempDir::new();
        let (process, mut events) = start(&logs, shell("sleep 60 & echo $!; trap '' TERM; wait; sleep 60"));
        let process = process.expect("starts");
        let Some(Event::Line { line, .. }) = events.recv().await else { panic!("a line with the grandchild's id") };
        let grandchild: i32 = std::str::from_utf8(&line).expect("digits").parse().expect("a number");
        process.kill(true);
        assert_eq!(all(events).await.last().map(String::as_str), Some("exited None Some(9) "));
        let alive =
            || std::fs::read_to_string(format!("/proc/{grandchild}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        for _ in 0..100 {
            if !alive() {
                return;
            }
            rt::sleep(Duration::from_millis(10)).await;
        }
        panic!("the grandchild lives on");
    }

    #[crate::rt::test]
    async fn environment_is_the_base_and_the_entry_alone() {
        let logs = TempDir::new();
        let (process, events) = start(&logs, shell("env"));
        let _process = process.expect("starts");
        let seen = all(events).await;
        assert!(seen.contains(&"GIVEN=given".to_owned()), "{seen:?}");
        assert!(!seen.iter().any(|line| line.starts_with("CARGO")), "{seen:?}");
    }

    #[crate::rt::test]
    async fn values_are_looked_up_and_missing_ones_are_named() {
        let logs = TempDir::new();
        let file = logs.path().join("key");
        std::fs::write(&file, "from a file\n").expect("writes");
        let given = |value: &str| Spawn { env: vec![("KEY".into(), Secret::new(value))], ..shell("echo \"$KEY\"") };
        let home = std::env::var("HOME").expect("a test has a home");
        let place = format!("file:{}", file.display());
        let literal = "file:./dev.db";
        for (value, expected) in [(place.as_str(), "from a file"), ("env:HOME", &home), (literal, literal), ("", "")] {
            let (process, events) = start(&logs, given(value));
            let _process = process.expect("starts");
            assert_eq!(all(events).await[0], expected);
        }
        let missing = start(&logs, given("env:NO_SUCH_VARIABLE_HERE")).0.expect_err("is not set");
        assert!(missing.contains("env.KEY") && missing.contains("NO_SUCH_VARIABLE_HERE"), "{missing}");
        let missing = start(&logs, given("file:/no/such/file")).0.expect_err("does not exist");
        assert!(missing.contains("env.KEY") && missing.contains("/no/such/file"), "{missing}");
    }

    #[crate::rt::test]
    async fn path_of_the_login_shell_finds_programs_and_is_passed_on() {
        let logs = TempDir::new();
        let bin = logs.path().join("bin");
        std::fs::create_dir(&bin).expect("made");
        let path = std::env::join_paths([bin.as_path(), Path::new("/usr/bin"), Path::new("/bin")]).expect("joins");
        std::os::unix::fs::symlink("/bin/sh", bin.join("only-here")).expect("links");
        let launcher =
            Launcher { guard: None, logs: logs.path().to_owned(), path: Some(path.clone()), hidden: Vec::new() };
        let (events, received) = mpsc::channel(4);
        let spawn = Spawn { command: vec!["only-here".into(), "-c".into(), "echo $PATH".into()], ..shell("") };
        let _process = launcher.spawn(CHILD, spawn, events).expect("is found");
        assert_eq!(all(received).await[0], path.to_string_lossy());
    }

    #[crate::rt::test]
    async fn what_cannot_start_says_why() {
        let logs = TempDir::new();
        let with = |command: &str, cwd: Option<&str>| {
            let spawn = Spawn { command: vec![command.into()], cwd: cwd.map(Into::into), ..shell("") };
            start(&logs, spawn).0.expect_err("cannot start")
        };
        assert!(with("no-such-program-anywhere", None).contains("not found in PATH"));
        assert!(with("./no-such-file", None).contains("does not exist"));
        assert!(with("/etc/passwd", None).contains("not executable"));
        assert!(with("sh", Some("/no/such/dir")).contains("/no/such/dir"));
    }

    #[crate::rt::test]
    async fn output_that_a_descendant_keeps_open_is_given_up() {
        let logs = TempDir::new();
        let (process, events) = start(&logs, shell("setsid sleep 5 & echo started; exit 0"));
        let _process = process.expect("starts");
        let begin = std::time::Instant::now();
        assert_eq!(all(events).await, ["started", "output ended", "exited Some(0) None "]);
        assert!(begin.elapsed() < Duration::from_secs(4));
    }
}
