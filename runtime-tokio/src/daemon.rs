//! An agent's files, and the sessions on its socket.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tunnel_core::agent::machine::ControlCommand;
use tunnel_core::daemon::{Action, Answer, Command, Daemon, Event, Farewell, Kind, Request, Settings, Standing};
use tunnel_core::host::Machine;
use tunnel_core::id::SessionId;
use tunnel_core::limits;
use tunnel_core::time::Now;

use crate::descent;
use crate::files;
use crate::ipc::{Connection, Server};
use crate::rt::timeout;
use crate::seldom::Seldom;

/// Where the agent of one configuration has its files. Two configurations are two agents.
#[derive(Debug, Clone)]
pub struct Files {
    /// Where it listens for sessions and commands.
    pub socket: PathBuf,
    /// Its process id; locked while it runs.
    pub pid: PathBuf,
    /// There from `stop` until somebody starts it again: a session that just breaks off does not say that it was stopped.
    pub stopped: PathBuf,
    /// Its log, when it runs as a daemon.
    pub log: PathBuf,
}

impl Files {
    /// Those of the configuration that comes from `source` (a path, or the text itself).
    #[must_use]
    pub fn new(config_dir: &Path, source: &str) -> Self {
        let name = format!("agent-{}", files::short_hash(source.as_bytes()));
        let run = config_dir.join("run");
        Self {
            socket: run.join(format!("{name}.sock")),
            pid: run.join(format!("{name}.pid")),
            stopped: run.join(format!("{name}.stopped")),
            log: config_dir.join("logs").join(format!("{name}.log")),
        }
    }

    /// Has sessions that were there before leave the agent stopped. Where there is no directory, there is none.
    ///
    /// # Errors
    /// What the system says.
    pub fn mark_stopped(&self) -> io::Result<()> {
        match OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&self.stopped) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Somebody wants the agent to run.
    pub(crate) fn unmark_stopped(&self) {
        if let Err(error) = files::remove(&self.stopped) {
            let path = self.stopped.display();
            tracing::debug!(%path, %error, "cannot remove the mark of a stop");
        }
    }
}

/// The claim to be the agent of a configuration: its pid file, locked. The system lets go of it when the process ends,
/// however that ends, so that a pid file from before is never in the way.
#[derive(Debug)]
pub struct Claim {
    file: File,
    path: PathBuf,
}

impl Claim {
    /// Takes the claim; `None` while another process has it.
    ///
    /// # Errors
    /// What the system says.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        Self::take_as(Kind::Daemon, path)
    }

    /// The same of an agent that was started so: whoever finds it hanging reads that.
    pub(crate) fn take_as(kind: Kind, path: &Path) -> io::Result<Option<Self>> {
        if let Some(dir) = path.parent() {
            files::private_dir(dir)?;
        }
        for _ in 0..TRIES {
            let mut options = OpenOptions::new();
            let mut file = options.create(true).truncate(false).read(true).write(true).mode(0o600).open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Whoever had the lock before may have removed the file, and a third may have made a new one.
            if !is_at(&file, path) {
                continue;
            }
            file.set_len(0)?;
            file.rewind()?;
            let more = match kind {
                Kind::Daemon => "",
                Kind::Foreground => FOREGROUND,
            };
            writeln!(file, "{}{more}", std::process::id())?;
            return Ok(Some(Self { file, path: path.to_owned() }));
        }
        Err(io::Error::other("the file is not the one that was just opened"))
    }

    /// The process that the pid file names.
    #[must_use]
    pub fn owner(path: &Path) -> Option<u32> {
        read(&mut File::open(path).ok()?).map(|(pid, _)| pid)
    }

    /// The process that has the claim now, and how it was started, whether it answers or not.
    #[must_use]
    pub fn holder(path: &Path) -> Option<(u32, Kind)> {
        let mut file = File::open(path).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => read(&mut file),
            // Free, or not to be told.
            Ok(()) | Err(TryLockError::Error(_)) => None,
        }
    }
}

fn read(file: &mut File) -> Option<(u32, Kind)> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    match text.strip_suffix(&format!("{FOREGROUND}\n")) {
        Some(pid) => Some((pid.trim().parse().ok()?, Kind::Foreground)),
        None => Some((text.trim().parse().ok()?, Kind::Daemon)),
    }
}

/// Ends a process by force; its guard ends what it started.
pub fn kill(pid: u32) {
    signal(pid, rustix::process::Signal::KILL);
}

/// Asks a process to end, as a service manager does.
pub fn terminate(pid: u32) {
    signal(pid, rustix::process::Signal::TERM);
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw)
        && let Err(error) = rustix::process::kill_process(pid, signal)
    {
        tracing::warn!(%error, "cannot end the process");
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if is_at(&self.file, &self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |found: io::Result<std::fs::Metadata>| found.ok().map(|found| (found.dev(), found.ino()));
    identity(file.metadata()).is_some_and(|own| identity(std::fs::metadata(path)) == Some(own))
}

/// What comes from a connection to the agent's socket.
#[derive(Debug)]
pub(crate) enum Input {
    /// Somebody connected; whom to say last words to.
    Opened(SessionId, mpsc::UnboundedSender<Bytes>),
    /// Somebody asks the machine.
    Asked(SessionId, Command, oneshot::Sender<Bytes>),
    /// Somebody asks the agent.
    Ordered(ControlCommand, oneshot::Sender<Bytes>),
    /// The connection closed.
    Closed(SessionId),
}

/// Brings what comes on the socket, until dropped.
pub(crate) async fn serve(server: Server, bring: impl Fn(Input) + Clone + Send + Sync + 'static) {
    let next = AtomicU64::new(0);
    let idle = Idle::default();
    // A server that asks again and again must not fill the log.
    let refusals = Arc::new(Mutex::new(Seldom::default()));
    server
        .converse(
            limits::MAX_SESSIONS + COMMANDS,
            || idle.end_oldest(),
            |connection| {
                let session = SessionId(next.fetch_add(1, Ordering::Relaxed));
                talk(connection, session, idle.clone(), Arc::clone(&refusals), bring.clone())
            },
        )
        .await;
}

/// The connections that nothing was asked on, or no more: sessions and commands need their places.
#[derive(Debug, Clone, Default)]
struct Idle(Arc<Mutex<BTreeMap<SessionId, oneshot::Sender<()>>>>);

impl Idle {
    /// Makes way when it is told to, as long as the receiver is there.
    fn wait(&self, session: SessionId) -> oneshot::Receiver<()> {
        let (end, ended) = oneshot::channel();
        self.lock().insert(session, end);
        ended
    }

    fn end_oldest(&self) {
        let oldest = self.lock().pop_first();
        if let Some((session, end)) = oldest {
            tracing::debug!(session = session.0, "an idle connection makes room");
            let _ = end.send(());
        }
    }

    fn forget(&self, session: SessionId) {
        self.lock().remove(&session);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<SessionId, oneshot::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn talk(
    mut connection: Connection,
    session: SessionId,
    idle: Idle,
    refusals: Arc<Mutex<Seldom>>,
    bring: impl Fn(Input),
) {
    let peer = connection.peer();
    let standing = descent::standing(peer);
    if standing != Standing::Person {
        tracing::debug!(?standing, "one of the servers connected to the control socket");
    }
    let (words, mut last_words) = mpsc::unbounded_channel();
    bring(Input::Opened(session, words));
    let talked = async {
        let mut attached = false;
        loop {
            // A session says nothing for as long as its editor runs.
            let ended = async {
                if attached {
                    return std::future::pending().await;
                }
                let _ = timeout(IDLE, idle.wait(session)).await;
            };
            let line = tokio::select! {
                biased;
                Some(words) = last_words.recv() => return connection.send(&words).await,
                line = connection.receive() => line?,
                () = ended => return Ok(()),
            };
            idle.forget(session);
            let Some(line) = line else { return Ok(()) };
            let (answer, answered) = oneshot::channel();
            let request: Result<Request, _> = serde_json::from_slice(&line);
            if let Some(refusal) = request.as_ref().ok().and_then(|request| standing.refusal(request)) {
                if refusals.lock().unwrap_or_else(PoisonError::into_inner).is_time(Instant::now()) {
                    tracing::warn!(pid = peer, reason = refusal, "refused a command of one of the servers");
                }
                connection.send(&Bytes::from(serde_json::json!({"ok": false, "error": refusal}).to_string())).await?;
                continue;
            }
            let is_attach = matches!(request, Ok(Request::Daemon(Command::Attach { .. })));
            match request {
                Ok(Request::Daemon(command)) => {
                    attached |= is_attach;
                    bring(Input::Asked(session, command, answer));
                }
                Ok(Request::Agent(command)) => bring(Input::Ordered(command, answer)),
                Err(_) => drop(answer.send(Bytes::from_static(NOT_A_COMMAND))),
            }
            match answered.await {
                Ok(answer) => connection.send(&answer).await?,
                // The agent has ended. A refusal would be taken for one of this session; as it is, it looks for another.
                Err(_) if is_attach => return Ok(()),
                Err(_) => connection.send(STOPPING).await?,
            }
        }
    };
    let outcome: io::Result<()> = talked.await;
    if let Err(error) = outcome {
        tracing::debug!(%error, "control connection ended");
    }
    idle.forget(session);
    bring(Input::Closed(session));
}

/// The machine with its connections.
pub(crate) struct Sessions {
    pub(crate) daemon: Daemon,
    open: HashMap<SessionId, mpsc::UnboundedSender<Bytes>>,
    asked: HashMap<SessionId, oneshot::Sender<Bytes>>,
}

impl Sessions {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { daemon: Daemon::new(settings), open: HashMap::new(), asked: HashMap::new() }
    }

    /// Somebody connected.
    pub(crate) fn opened(&mut self, session: SessionId, words: mpsc::UnboundedSender<Bytes>) {
        self.open.insert(session, words);
    }

    /// Somebody asks the machine.
    pub(crate) fn asked(&mut self, session: SessionId, command: Command, answer: oneshot::Sender<Bytes>, now: Now) {
        self.asked.insert(session, answer);
        self.daemon.handle_event(Event::Asked { session, command }, now);
    }

    /// A connection closed.
    pub(crate) fn closed(&mut self, session: SessionId, now: Now) {
        self.open.remove(&session);
        self.asked.remove(&session);
        self.daemon.handle_event(Event::Closed { session }, now);
    }

    /// Whether a connection is open.
    pub(crate) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The next order that is not only for a connection.
    pub(crate) fn poll(&mut self) -> Option<Action> {
        while let Some(action) = self.daemon.poll_action() {
            match action {
                Action::Answer { session, answer } => self.answer(session, &answer),
                Action::Dismiss(farewell) => self.dismiss(&farewell),
                action @ (Action::ReadOwner | Action::StopAgent) => return Some(action),
            }
        }
        None
    }

    fn answer(&mut self, session: SessionId, answer: &Answer) {
        if let Some(asker) = self.asked.remove(&session) {
            let json = serde_json::to_vec(answer).expect("an answer is made of strings and numbers");
            let _ = asker.send(json.into());
        }
    }

    fn dismiss(&self, farewell: &Farewell) {
        let json = Bytes::from(serde_json::to_vec(farewell).expect("last words are made of strings"));
        for session in self.open.values() {
            let _ = session.send(json.clone());
        }
    }
}

const STOPPING: &[u8] = br#"{"ok":false,"error":"the agent is stopping"}"#;
const NOT_A_COMMAND: &[u8] = br#"{"ok":false,"error":"not a command"}"#;
/// How often a file may be exchanged between its opening and its locking: processes that end do so once each.
const TRIES: u32 = 100;
/// Follows the process id in the pid file of an agent in the foreground.
const FOREGROUND: &str = "\nforeground";
/// A connection that asks nothing gives its place back.
const IDLE: Duration = Duration::from_secs(60);
/// Places for commands beside the sessions: people and scripts ask one at a time.
const COMMANDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt;
    use crate::testing::TempDir;

    #[test]
    fn claim_is_one_processes_and_names_it() {
        let dir = TempDir::new();
        let path = dir.path().join("run/agent.pid");
        let claim = Claim::take(&path).expect("takes").expect("is free");
        assert_eq!(Claim::owner(&path), Some(std::process::id()));
        assert!(Claim::take(&path).expect("looks").is_none());
        drop(claim);
        assert!(!path.exists());
        assert_eq!(Claim::owner(&path), None);
    }

    #[test]
    fn holder_is_who_has_the_claim_now() {
        let dir = TempDir::new();
        let path = dir.path().join("agent.pid");
        assert_eq!(Claim::holder(&path), None);
        std::fs::write(&path, "1\n").expect("what a crash left");
        assert_eq!((Claim::holder(&path), Claim::owner(&path)), (None, Some(1)));
        for kind in [Kind::Daemon, Kind::Foreground] {
            let claim = Claim::take_as(kind, &path).expect("takes").expect("is free");
            assert_eq!(Claim::holder(&path), Some((std::process::id(), kind)));
            assert_eq!(Claim::owner(&path), Some(std::process::id()));
            drop(claim);
        }
    }

    #[crate::rt::test]
    async fn agent_that_has_ended_refuses_no_session() {
        let dir = TempDir::new();
        let path = dir.path().join("test.sock");
        let task = rt::spawn(serve(Server::bind(&path).expect("binds"), drop));
        let mut session = Connection::open(&path).await.expect("connects");
        session.send(br#"{"command":"attach","version":"2"}"#).await.expect("sends");
        assert_eq!(session.receive().await.expect("closes"), None);
        let mut person = Connection::open(&path).await.expect("connects");
        assert_eq!(person.ask(br#"{"command":"status"}"#).await.expect("answers"), STOPPING);
        task.abort();
    }

    #[crate::rt::test]
    async fn idle_connections_make_room_for_who_asks() {
        let dir = TempDir::new();
        let path = dir.path().join("test.sock");
        let server = Server::bind(&path).expect("binds");
        let task = rt::spawn(serve(server, |input| {
            if let Input::Asked(_, _, answer) = input {
                let _ = answer.send(Bytes::from_static(b"{}"));
            }
        }));
        let mut session = Connection::open(&path).await.expect("connects");
        let attach = br#"{"command":"attach","version":"2"}"#;
        assert_eq!(session.ask(attach).await.expect("answers"), "{}");
        let mut idle = Vec::new();
        for _ in 0..limits::MAX_SESSIONS + COMMANDS + 16 {
            idle.push(std::os::unix::net::UnixStream::connect(&path).expect("connects"));
        }
        assert_eq!(crate::ipc::request(&path, br#"{"command":"stop"}"#).await.expect("answers"), "{}");
        assert_eq!(session.ask(attach).await.expect("it is no idle one"), "{}");
        task.abort();
    }

    #[test]
    fn stale_pid_file_is_replaced() {
        let dir = TempDir::new();
        let path = dir.path().join("agent.pid");
        std::fs::write(&path, "4194304999\n and more of what was there before").expect("writes");
        let _claim = Claim::take(&path).expect("takes").expect("is free");
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), format!("{}\n", std::process::id()));
    }

    #[test]
    fn claim_that_was_taken_over_leaves_the_new_owners_file() {
        let dir = TempDir::new();
        let path = dir.path().join("agent.pid");
        let orphan = Claim::take(&path).expect("takes").expect("is free");
        std::fs::remove_file(&path).expect("removes");
        std::fs::write(&path, "1\n").expect("another's");
        drop(orphan);
        assert_eq!(Claim::owner(&path), Some(1));
    }

    #[test]
    fn two_configurations_have_files_of_their_own() {
        let (one, other) = (Files::new(Path::new("/c"), "a"), Files::new(Path::new("/c"), "b"));
        assert!(one.socket != other.socket && one.pid != other.pid && one.log != other.log);
    }
}
