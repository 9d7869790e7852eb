//! The agent's driver: one task owns the machine; processes, fetches and the tunnel run beside it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};
use tunnel_core::agent::Veil;
use tunnel_core::agent::machine::{Action, Agent, Event, Exit, Identity, Spawn, Unsaved};
use tunnel_core::config::AgentConfig;
use tunnel_core::daemon::{self as daemon_machine, Kind};
use tunnel_core::host::Machine;
use tunnel_core::http::fetch::{Fetch, FetchEvent};
use tunnel_core::id::{ChildId, ConnId, DeviceId, DeviceName, FetchId, JobId};
use tunnel_core::secret::Secret;
use tunnel_core::signin::machine::Person;
use tunnel_core::tunnel::connection::{Connection, Settings as TunnelSettings};
use tunnel_core::tunnel::{self, Close, CloseCode, Command, Hello, Side};

use crate::audit::Audit;
use crate::backlog::{Backlog, Ticket};
use crate::clock::Clock;
use crate::daemon::{self, Claim, Files, Sessions};
use crate::entropy::OsEntropy;
use crate::files::{self, Replaced, TokenFile};
use crate::net::{ConnectError, Connector};
use crate::process::{self, Launcher, Process};
use crate::queue::Queue;
use crate::rt::{self, AbortHandle, JoinSet, sleep_until, timeout};
use crate::shelf::Shelf;
use crate::signal::Asked;
use crate::signin::Desk;
use crate::{fetch, ipc, login_path, network, ws};

/// What an agent is started with.
pub struct Options {
    /// Its configuration.
    pub config: AgentConfig,
    /// Where tokens, logs and the control socket are.
    pub config_dir: PathBuf,
    /// Where the configuration comes from (a path, or the text itself): two of them are two agents.
    pub source: String,
    /// A minted token, instead of a sign-in.
    pub token: Option<Secret>,
    /// Who is there to sign in.
    pub person: Person,
    /// Reads the configuration again, or says why it cannot.
    pub read_config: ReadConfig,
    /// The binary that guards the servers; `None`: the running one.
    pub guard: Option<PathBuf>,
    /// What servers in a sandbox may not reach besides `config_dir`.
    pub hidden: Vec<PathBuf>,
    /// Whether it lives for itself or for sessions.
    pub kind: Kind,
    /// How long a daemon outlives its last session.
    pub grace: Duration,
}

/// Reads the configuration again.
pub type ReadConfig = Box<dyn Fn() -> Result<AgentConfig, String> + Send + Sync>;

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another agent with this configuration runs.
    #[error("an agent with this configuration is running already: see `mcp-local-tunnel status`")]
    Running,
    /// A file of the configuration directory cannot be used.
    #[error("cannot use {path}: {cause}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// Runs an agent until it ends by itself or is asked to; `asked` brings what signals ask.
///
/// # Errors
/// Why it does not start.
pub async fn run(options: Options, mut asked: mpsc::UnboundedReceiver<Asked>) -> Result<Exit, AgentError> {
    let files = Files::new(&options.config_dir, &options.source);
    let (claim, server) = claim(&files, options.kind)?;
    let place = server.as_ref().map(|server| server.place().clone());
    let (mut driver, mut inputs) = Driver::new(options, claim.as_ref().map(|_| files.pid).zip(place))?;
    let control = server.map(|server| {
        let urgent = driver.urgent.clone();
        rt::spawn(daemon::serve(server, move |input| drop(urgent.send(Input::Session(input)))))
    });
    let network = Arc::new(Notify::new());
    let changed = Arc::clone(&network);
    let watching = rt::spawn(network::watch(move || changed.notify_one()));
    let found = login_path::find().await;
    (driver.launcher.path, driver.silent_shell) = (found.path, found.silent);
    let exit = loop {
        if let Some(exit) = driver.settle() {
            break exit;
        }
        let deadlines = [driver.agent.poll_timeout(), driver.sessions.daemon.poll_timeout()];
        let deadline = deadlines.into_iter().flatten().min_by_key(|deadline| deadline.at);
        let clock = driver.clock;
        let due = async {
            match deadline {
                Some(deadline) => sleep_until(clock.to_host(deadline.at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(asked) = asked.recv() => match asked {
                Asked::Stop => driver.sessions.daemon.handle_event(daemon_machine::Event::StopAsked, clock.now()),
                Asked::Nudge => driver.hand(Event::Nudge),
            },
            Some(input) = inputs.urgent.recv() => driver.take(input),
            () = network.notified() => driver.hand(Event::NetworkChanged),
            () = due => {
                driver.agent.handle_timeout(clock.now());
                driver.sessions.daemon.handle_timeout(clock.now());
            }
            Some(event) = inputs.streams.recv() => driver.hand(event),
        }
        driver.take_waiting(&mut inputs);
    };
    watching.abort();
    // From here on nobody new is listened to, but the claim stays until all is over.
    if let Some(task) = control {
        task.abort();
        let _ = task.await;
    }
    driver.finish(&exit, inputs).await;
    drop(claim);
    Ok(exit)
}

/// Where the agent of that configuration listens for commands.
#[must_use]
pub fn control_socket(config_dir: &Path, source: &str) -> PathBuf {
    Files::new(config_dir, source).socket
}

/// Makes this process the agent of its configuration. One in the foreground does its work also where it can write no
/// files; a daemon that nobody finds is of no use.
fn claim(files: &Files, kind: Kind) -> Result<(Option<Claim>, Option<ipc::Server>), AgentError> {
    let unusable = |path: &Path, cause: io::Error| match kind {
        Kind::Daemon => Err(AgentError::Unusable { path: path.to_owned(), cause }),
        Kind::Foreground => {
            let path = path.display();
            tracing::warn!(%path, error = %cause, "no control socket: `status` will not find this agent");
            Ok(())
        }
    };
    let claim = match Claim::take_as(kind, &files.pid) {
        Ok(None) => return Err(AgentError::Running),
        Ok(claim) => {
            // A daemon's starter did that already; since then a person may have stopped it.
            if kind == Kind::Foreground {
                files.unmark_stopped();
            }
            claim
        }
        Err(error) => {
            unusable(&files.pid, error)?;
            return Ok((None, None));
        }
    };
    match ipc::Server::bind(&files.socket) {
        Ok(server) => Ok((claim, Some(server))),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(AgentError::Running),
        Err(error) => {
            unusable(&files.socket, error)?;
            Ok((claim, None))
        }
    }
}

/// What comes to the machine's task.
struct Inputs {
    /// Bounded by the machine, which orders what these answer.
    urgent: mpsc::UnboundedReceiver<Input>,
    /// What servers say: whoever talks too fast waits for room.
    streams: mpsc::Receiver<Event>,
}

enum Input {
    Event(Event),
    /// From the control socket.
    Session(daemon::Input),
    /// Who owns the pid file.
    Owner(Option<u32>),
    /// What the relay said, which is listened to no faster than it is heard here.
    Tunnel(Event, Ticket),
}

struct Driver {
    agent: Agent,
    sessions: Sessions,
    /// The pid file and the socket, where they could be had.
    found_by: Option<(PathBuf, ipc::Place)>,
    clock: Clock,
    /// Events that orders brought at once.
    pending: Vec<Event>,
    desk: Desk,
    connector: Connector,
    launcher: Launcher,
    /// The login shell that did not tell its `PATH`.
    silent_shell: Option<PathBuf>,
    shelf: Shelf,
    /// Where what is pinned of servers is kept.
    pins: PathBuf,
    audit: Audit,
    read_config: Arc<ReadConfig>,
    urgent: mpsc::UnboundedSender<Input>,
    streams: mpsc::Sender<Event>,
    processes: HashMap<ChildId, Process>,
    fetches: HashMap<FetchId, AbortHandle>,
    tunnels: HashMap<ConnId, Queue<Command>>,
    tunnel_tasks: JoinSet<()>,
    asked: HashMap<JobId, oneshot::Sender<Bytes>>,
    next_job: u64,
}

impl Driver {
    fn new(options: Options, found_by: Option<(PathBuf, ipc::Place)>) -> Result<(Self, Inputs), AgentError> {
        let (urgent, urgent_inputs) = mpsc::unbounded_channel();
        let (streams, stream_inputs) = mpsc::channel(STREAM_EVENTS);
        let clock = Clock::new();
        let identity = identity(&options)?;
        let connector = connector(&options.config)?;
        let tokens = TokenFile::new(&options.config_dir, &options.config.relay);
        let (signed, audited) = (urgent.clone(), urgent.clone());
        let desk =
            Desk::new(tokens, connector.clone(), move |event| drop(signed.send(Input::Event(Event::Signin(event)))));
        let logs = options.config_dir.join("logs");
        let mut launcher = Launcher::new(logs.clone());
        launcher.guard = options.guard.or(launcher.guard);
        launcher.hidden = [vec![options.config_dir.clone()], options.hidden].concat();
        // What others may write there, a log's name for one, would be followed.
        if let Err(error) = files::narrow_own(&options.config_dir) {
            tracing::warn!(path = %options.config_dir.display(), %error, "others can look into this directory");
        }
        let mut agent = Agent::new(options.config, identity, options.token, Box::new(OsEntropy::new()));
        let shelf = Shelf::new(&options.config_dir, &options.source);
        if let Some(json) = shelf.wishes() {
            agent.handle_event(Event::WishesRecalled { json }, clock.now());
        }
        agent.handle_event(Event::Start { person: options.person }, clock.now());
        let mut sessions = Sessions::new(daemon_machine::Settings {
            kind: options.kind,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            grace: options.grace,
        });
        sessions.daemon.handle_event(daemon_machine::Event::Begun, clock.now());
        let driver = Self {
            agent,
            sessions,
            found_by,
            clock,
            pending: Vec::new(),
            desk,
            connector,
            launcher,
            silent_shell: None,
            shelf,
            pins: options.config_dir.join("pins"),
            audit: Audit::new(logs, move |result| drop(audited.send(Input::Event(Event::AuditWritten(result))))),
            read_config: Arc::new(options.read_config),
            urgent,
            streams,
            processes: HashMap::new(),
            fetches: HashMap::new(),
            tunnels: HashMap::new(),
            tunnel_tasks: JoinSet::new(),
            asked: HashMap::new(),
            next_job: 0,
        };
        Ok((driver, Inputs { urgent: urgent_inputs, streams: stream_inputs }))
    }

    /// Carries out all that is ordered; returns why the agent ends, once it does.
    fn settle(&mut self) -> Option<Exit> {
        loop {
            while let Some(action) = self.sessions.poll() {
                match action {
                    daemon_machine::Action::StopAgent => self.hand(Event::Stop),
                    daemon_machine::Action::ReadOwner => self.read_owner(),
                    daemon_machine::Action::Answer { .. } | daemon_machine::Action::Dismiss(_) => {}
                }
            }
            while let Some(action) = self.agent.poll_action() {
                if let Some(exit) = self.carry_out(action) {
                    return Some(exit);
                }
            }
            if self.pending.is_empty() {
                return None;
            }
            for event in std::mem::take(&mut self.pending) {
                self.hand(event);
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.hand(event),
            Input::Tunnel(event, ticket) => {
                self.hand(event);
                drop(ticket);
            }
            Input::Session(daemon::Input::Opened(session, words)) => self.sessions.opened(session, words),
            Input::Session(daemon::Input::Asked(session, command, answer)) => {
                self.sessions.asked(session, command, answer, self.clock.now());
            }
            Input::Session(daemon::Input::Ordered(command, answer)) => {
                let job = JobId(self.next_job);
                self.next_job += 1;
                self.asked.insert(job, answer);
                self.hand(Event::Control { job, command });
            }
            Input::Session(daemon::Input::Closed(session)) => self.sessions.closed(session, self.clock.now()),
            Input::Owner(pid) => {
                self.sessions.daemon.handle_event(daemon_machine::Event::Owner { pid }, self.clock.now());
            }
        }
    }

    /// Takes what else has come by now: what it brings is ordered together.
    fn take_waiting(&mut self, inputs: &mut Inputs) {
        for _ in 0..INPUTS_AT_ONCE {
            if let Ok(input) = inputs.urgent.try_recv() {
                self.take(input);
            } else if let Ok(event) = inputs.streams.try_recv() {
                self.hand(event);
            } else {
                break;
            }
        }
    }

    fn read_owner(&self) {
        if let Some((pid_file, socket)) = self.found_by.clone() {
            let urgent = self.urgent.clone();
            rt::spawn_blocking(move || {
                let owner = Claim::owner(&pid_file);
                // Without its socket it is no more to be found than without its pid file.
                let lost = owner == Some(std::process::id()) && !socket.is_held();
                drop(urgent.send(Input::Owner(owner.filter(|_| !lost))));
            });
        }
    }

    /// Hands an event in, and forgets what it ends.
    fn hand(&mut self, event: Event) {
        match &event {
            Event::Exited { child, .. } => drop(self.processes.remove(child)),
            Event::Fetch { fetch, event } if event.is_last() => drop(self.fetches.remove(fetch)),
            Event::DialFailed { conn, .. } | Event::Tunnel { conn, event: tunnel::Event::Closed(_) } => {
                self.tunnels.remove(conn);
            }
            _ => {}
        }
        self.agent.handle_event(event, self.clock.now());
    }

    fn carry_out(&mut self, action: Action) -> Option<Exit> {
        match action {
            Action::Signin(action) => self.desk.carry_out(action),
            Action::Dial { conn, url, headers, hello } => self.dial(conn, url, headers, hello),
            Action::Tunnel { conn, command } => {
                if let Some(commands) = self.tunnels.get(&conn) {
                    commands.send(command);
                }
            }
            Action::Spawn { child, spawn } => {
                let veil = veil(&spawn);
                self.pending.push(Event::Veiled { child, veil });
                self.pending.push(match self.launcher.spawn(child, spawn, self.streams.clone()) {
                    Ok(process) => {
                        let pid = process.pid();
                        self.processes.insert(child, process);
                        Event::Spawned { child, pid }
                    }
                    Err(error) => Event::SpawnFailed { child, error: self.with_shell(error) },
                });
            }
            Action::Write { child, bytes } => {
                if let Some(process) = self.processes.get(&child) {
                    process.write(bytes);
                }
            }
            Action::CloseStdin { child } => {
                if let Some(process) = self.processes.get_mut(&child) {
                    process.close_stdin();
                }
            }
            Action::Kill { child, force } => {
                if let Some(process) = self.processes.get(&child) {
                    process.kill(force);
                }
            }
            Action::Fetch { fetch, request } => {
                let task = rt::spawn(stream(self.connector.clone(), fetch, request, self.streams.clone()));
                self.fetches.insert(fetch, task.abort_handle());
            }
            Action::AbortFetch { fetch } => {
                if let Some(task) = self.fetches.remove(&fetch) {
                    task.abort();
                }
            }
            Action::Recall { server } => {
                let catalog = self.shelf.load(&server);
                self.pending.push(Event::Recalled { server, catalog });
            }
            Action::Keep { server, catalog } => self.shelf.save(&server, &catalog),
            Action::KeepWishes { json } => self.shelf.keep_wishes(&json),
            Action::ReadConfig => {
                let (read, urgent) = (Arc::clone(&self.read_config), self.urgent.clone());
                rt::spawn_blocking(move || drop(urgent.send(Input::Event(Event::ConfigRead(read())))));
            }
            Action::LoadPins { key } => {
                let (path, urgent) = (self.pin_file(&key), self.urgent.clone());
                rt::spawn_blocking(move || {
                    let read = files::read(&path, MAX_PIN_FILE).map_err(|error| error.to_string());
                    let result = read.map(|content| content.map(Bytes::from));
                    drop(urgent.send(Input::Event(Event::PinsLoaded { key, result })));
                });
            }
            Action::SavePins { key, base, content } => {
                let (path, urgent) = (self.pin_file(&key), self.urgent.clone());
                rt::spawn_blocking(move || {
                    let result = match files::replace_if(&path, base.as_deref(), &content, MAX_PIN_FILE) {
                        Ok(Replaced::Done) => Ok(()),
                        Ok(Replaced::Other(now)) => Err(Unsaved::Changed(now.map(Bytes::from))),
                        Err(error) => Err(Unsaved::Failed(error.to_string())),
                    };
                    drop(urgent.send(Input::Event(Event::PinsSaved { key, result })));
                });
            }
            Action::OpenAudit(file) => self.audit.open(file),
            Action::Audit { file, line } => self.audit.append(file, line),
            Action::ControlReply { job, json } => {
                if let Some(answer) = self.asked.remove(&job) {
                    let _ = answer.send(json);
                }
            }
            Action::Exit(exit) => return Some(exit),
        }
        None
    }

    /// Why a program was not found, where the shell that knows better said nothing.
    fn with_shell(&self, error: String) -> String {
        match &self.silent_shell {
            Some(shell) if error.ends_with(process::NOT_FOUND) => {
                let shell = shell.display();
                format!("{error} of the system (the login shell {shell} did not tell its own PATH in time)")
            }
            _ => error,
        }
    }

    /// Where what is pinned of a server is kept.
    fn pin_file(&self, key: &str) -> PathBuf {
        self.pins.join(format!("{}.json", files::file_name(key)))
    }

    fn dial(&mut self, conn: ConnId, url: String, headers: http::HeaderMap, hello: Hello) {
        let commands = Queue::new();
        self.tunnels.insert(conn, commands.clone());
        let (connector, clock, urgent) = (self.connector.clone(), self.clock, self.urgent.clone());
        while self.tunnel_tasks.try_join_next().is_some() {}
        self.tunnel_tasks.spawn(async move {
            let mut ending = Ending { conn, urgent, told: false };
            match ws::dial(&connector, &url, headers).await {
                Ok((socket, dialect)) => {
                    let settings = TunnelSettings { side: Side::Agent, dialect, hello };
                    let connection = Connection::new(settings, clock.now());
                    ending.bring(Event::Dialed { conn, dialect });
                    let backlog = Backlog::default();
                    let bring = |events: std::vec::Drain<'_, tunnel::Event>| {
                        for event in events {
                            ending.told |= matches!(event, tunnel::Event::Closed(_));
                            let _ = ending.urgent.send(Input::Tunnel(Event::Tunnel { conn, event }, backlog.ticket()));
                        }
                    };
                    ws::pump(socket, connection, commands, clock, |cx| backlog.poll_room(cx), bring).await;
                }
                Err(error) => {
                    ending.told = true;
                    ending.bring(Event::DialFailed { conn, error });
                }
            }
        });
    }

    /// Lets the tunnel and the sessions have their last words.
    async fn finish(mut self, exit: &Exit, mut inputs: Inputs) {
        self.sessions.daemon.handle_event(daemon_machine::Event::Ended(exit.clone()), self.clock.now());
        while self.sessions.poll().is_some() {}
        // Whoever waits for an answer learns that there is none.
        self.asked.clear();
        let dismissed = async {
            while self.sessions.is_open() {
                let Some(input) = inputs.urgent.recv().await else { return };
                if let Input::Session(daemon::Input::Closed(session)) = input {
                    self.sessions.closed(session, self.clock.now());
                }
            }
        };
        let _ = timeout(LAST_WORDS, dismissed).await;
        let _ = timeout(LAST_WORDS, async { while self.tunnel_tasks.join_next().await.is_some() {} }).await;
    }
}

/// Tells the machine of a tunnel's end, however its task ends.
struct Ending {
    conn: ConnId,
    urgent: mpsc::UnboundedSender<Input>,
    told: bool,
}

impl Ending {
    fn bring(&self, event: Event) {
        // The machine's task is gone when the process is about to end.
        let _ = self.urgent.send(Input::Event(event));
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.told {
            let closed = tunnel::Event::Closed(Close::new(CloseCode::Internal, "the tunnel's task failed"));
            self.bring(Event::Tunnel { conn: self.conn, event: closed });
        }
    }
}

/// Makes a request to a local HTTP server and brings its answer piece by piece.
async fn stream(connector: Connector, fetch: FetchId, request: Fetch, events: mpsc::Sender<Event>) {
    let bring = async |event| events.send(Event::Fetch { fetch, event }).await.is_ok();
    let mut response = match fetch::open(&connector, request).await {
        Ok(response) => response,
        Err(error) => {
            bring(FetchEvent::Failed(error)).await;
            return;
        }
    };
    let headers = std::mem::take(&mut response.headers);
    let mut open = bring(FetchEvent::Head { status: response.status, headers }).await;
    while open {
        let (event, last) = match response.next().await {
            Ok(Some(piece)) => (FetchEvent::Chunk(piece), false),
            Ok(None) => (FetchEvent::End, true),
            Err(error) => (FetchEvent::Failed(error), true),
        };
        open = bring(event).await && !last;
    }
}

/// What a server's environment holds. A value that cannot be found is in no environment.
fn veil(spawn: &Spawn) -> Veil {
    let found = spawn.env.iter().filter_map(|(name, given)| {
        let value = process::value(name, given).ok()?;
        Some((name.clone(), Secret::new(value.to_string_lossy())))
    });
    Veil::of_environment(found)
}

fn connector(config: &AgentConfig) -> Result<Connector, AgentError> {
    let path = config.ca_file.as_deref().map(PathBuf::from);
    let connector = Connector::from_environment(path.as_deref())
        .map_err(|bad| AgentError::Unusable { path: bad.file, cause: bad.cause })?;
    // Said at once: it will not mend while the agent runs.
    match connector.check(&config.relay) {
        Err(ConnectError::Proxy { variable, cause }) => {
            Err(AgentError::Unusable { path: variable.into(), cause: io::Error::other(cause) })
        }
        Err(ConnectError::Tcp(_) | ConnectError::Tls(_) | ConnectError::OutOfReach) | Ok(()) => Ok(connector),
    }
}

fn identity(options: &Options) -> Result<Identity, AgentError> {
    let path = options.config_dir.join("device-id");
    let seed = device_seed(&path).map_err(|cause| AgentError::Unusable { path, cause })?;
    // Two configurations on one machine are two devices: neither may take the other's connection for its own old one.
    let device_id = files::short_hash(format!("{seed}\n{}", options.source).as_bytes());
    let device = options.config.name.clone().unwrap_or_else(host_name);
    Ok(Identity {
        device: DeviceName::from(device),
        device_id: DeviceId::from(device_id),
        version: env!("CARGO_PKG_VERSION").into(),
        os: std::env::consts::OS.into(),
    })
}

/// What this machine's device ids are made of: drawn once.
fn device_seed(path: &Path) -> io::Result<String> {
    if let Some(kept) = files::read(path, 256)? {
        return Ok(String::from_utf8_lossy(&kept).trim().to_owned());
    }
    let drawn = tunnel_core::entropy::bytes::<16>(&mut OsEntropy::new());
    let seed: String = drawn.iter().map(|byte| format!("{byte:02x}")).collect();
    files::replace(path, seed.as_bytes())?;
    Ok(seed)
}

/// The machine's name.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// All tools of one server with what is kept of their definitions: a few megabytes, were they very many.
const MAX_PIN_FILE: u64 = 16 * 1024 * 1024;
/// Events of servers that wait for the machine: lines may be large, so not many.
const STREAM_EVENTS: usize = 64;
/// What is taken in a row before its orders are carried out.
const INPUTS_AT_ONCE: usize = 64;
/// How long the closing handshake of the tunnel may take when the agent ends, and how long the farewell to sessions.
const LAST_WORDS: Duration = Duration::from_millis(1500);
