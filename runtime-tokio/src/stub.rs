//! The driver of the stub: stdio, and the way to the agent; that way alone for `start`.

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;
use tokio::sync::mpsc;
use tunnel_core::daemon::{self, Answer};
use tunnel_core::host::Machine;
use tunnel_core::limits;
use tunnel_core::stub::link::{self, End, Link, Standing};
use tunnel_core::stub::{Action, Event, Settings, Stub};
use tunnel_core::time::Deadline;

use crate::clock::Clock;
use crate::daemon::{Claim, Files};
use crate::entropy::OsEntropy;
use crate::files::{self, TokenFile};
use crate::ipc::{self, Connection};
use crate::lines::{Line, Lines};
use crate::rt::{self, AbortHandle, AsyncRead, AsyncReadExt, Child, Instant, sleep, sleep_until, timeout};
use crate::signin;

/// The way to one configuration's agent.
#[derive(Debug, Clone)]
pub struct Way {
    /// The agent's files.
    pub files: Files,
    /// How it gets its token.
    pub credentials: Credentials,
    /// The program to start as an agent.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// What is added to its environment.
    pub env: Vec<(OsString, OsString)>,
}

/// How an agent gets its token.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// This machine signs in.
    Signin(Box<signin::Options>),
    /// The configuration names a file that holds a minted one.
    File(PathBuf),
    /// The configuration names a variable.
    Variable,
}

/// Runs a stub on stdin and stdout until stdin ends or `stop` does.
///
/// # Errors
/// What the system says when stdout cannot be written.
pub async fn run(settings: Settings, way: Way, stop: impl Future<Output = ()>) -> io::Result<()> {
    let clock = Clock::new();
    let mut stub = Stub::new(settings, Box::new(OsEntropy::new()));
    let (happened, mut events) = mpsc::unbounded_channel();
    let socket = way.files.socket.clone();
    let bring = happened.clone();
    let mut liaison = Liaison::new(way, move |event| drop(bring.send(Event::Link(event))));
    let mut lines = read_stdin()?;
    let (output, written) = write_stdout()?;
    stub.handle_event(Event::Begun, clock.now());
    tokio::pin!(stop);
    'serving: loop {
        while let Some(action) = stub.poll_action() {
            match action {
                Action::Link(action) => liaison.carry_out(action),
                Action::AskStatus { job } => {
                    let (socket, happened) = (socket.clone(), happened.clone());
                    rt::spawn(async move {
                        let outcome = status(&socket).await.map_err(|error| error.to_string());
                        let _ = happened.send(Event::Status { job, outcome });
                    });
                }
                // An editor that does not read is not read either.
                Action::Write(line) => tokio::select! {
                    sent = output.send(line) => if sent.is_err() { break 'serving },
                    () = &mut stop => break 'serving,
                },
                Action::Exit => break 'serving,
            }
        }
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(event) = events.recv() => stub.handle_event(event, clock.now()),
            () = due(stub.poll_timeout(), clock) => stub.handle_timeout(clock.now()),
            Some(event) = lines.recv() => stub.handle_event(event, clock.now()),
        }
    }
    drop(output);
    timeout(LAST_LINES, written).await.unwrap_or(Ok(Ok(()))).unwrap_or(Ok(()))
}

/// An agent that runs and stays.
#[derive(Debug)]
pub struct Started {
    /// What it says of itself.
    pub answer: Answer,
    /// Whether it was started now.
    pub new: bool,
}

/// Why there is no agent, for people.
#[derive(Debug)]
pub enum NotStarted {
    /// A person must sign in.
    NeedsLogin(String),
    /// The token that the configuration names is of no use.
    NeedsToken(String),
    /// The configuration, or its directory, cannot be used.
    Unusable(String),
    /// Something else.
    Failed(String),
}

/// Starts the agent, unless it runs, and has it stay.
///
/// # Errors
/// How it stands instead.
pub async fn start(mut settings: link::Settings, way: Way) -> Result<Started, NotStarted> {
    settings.keep = true;
    let clock = Clock::new();
    let give_up = Instant::now() + START_WITHIN;
    let mut link = Link::new(settings, Box::new(OsEntropy::new()));
    let (happened, mut events) = mpsc::unbounded_channel();
    let mut liaison = Liaison::new(way, move |event| drop(happened.send(event)));
    let (mut last, mut new) = (None, false);
    link.handle_event(link::Event::Begun, clock.now());
    loop {
        while let Some(action) = link.poll_action() {
            new |= action == link::Action::Start;
            liaison.carry_out(action);
        }
        match (link.standing(), &last) {
            (Standing::Attached, Some(answer)) => return Ok(Started { answer: Answer::clone(answer), new }),
            (Standing::NeedsLogin(reason), _) => return Err(NotStarted::NeedsLogin(reason.to_owned())),
            (Standing::NeedsToken(reason), _) => return Err(NotStarted::NeedsToken(reason.to_owned())),
            (Standing::Broken(reason), _) => return Err(NotStarted::Unusable(reason.to_owned())),
            (Standing::Refused(reason) | Standing::Unwelcome(reason), _) => {
                return Err(NotStarted::Failed(reason.to_owned()));
            }
            (Standing::Stopped, _) => return Err(NotStarted::Failed("the agent was stopped meanwhile".into())),
            (Standing::Troubled(reason), _) if Instant::now() >= give_up => {
                return Err(NotStarted::Failed(reason.to_owned()));
            }
            // A person at a browser takes as long as it takes.
            (Standing::SigningIn | Standing::Troubled(_) | Standing::Coming | Standing::Attached, _) => {}
        }
        tokio::select! {
            Some(event) = events.recv() => {
                if let link::Event::Answered(answer) = &event {
                    last = Some(answer.clone());
                }
                link.handle_event(event, clock.now());
            }
            () = due(link.poll_timeout(), clock) => link.handle_timeout(clock.now()),
            // An agent that hangs brings nothing.
            () = sleep_until(give_up), if Instant::now() < give_up => {}
        }
    }
}

/// Carries out what a link orders.
struct Liaison {
    way: Arc<Way>,
    bring: Arc<dyn Fn(link::Event) + Send + Sync>,
    session: Option<AbortHandle>,
    signing_in: Option<AbortHandle>,
}

impl Liaison {
    /// A person began something that wants the agent: an earlier `stop` is over.
    fn new(way: Way, bring: impl Fn(link::Event) + Send + Sync + 'static) -> Self {
        way.files.unmark_stopped();
        Self { way: Arc::new(way), bring: Arc::new(bring), session: None, signing_in: None }
    }

    fn carry_out(&mut self, action: link::Action) {
        let (way, bring) = (Arc::clone(&self.way), Arc::clone(&self.bring));
        match action {
            link::Action::Attach { keep } => {
                self.close_session();
                let task = rt::spawn(async move { attach(&way, keep, &*bring).await });
                self.session = Some(task.abort_handle());
            }
            link::Action::Retire => {
                self.close_session();
                rt::spawn(async move {
                    let outcome = command(&way.files.socket, &daemon::Command::Retire { version: version() }).await;
                    if let Err(error) = outcome {
                        tracing::debug!(%error, "the older agent was not asked");
                    }
                });
            }
            link::Action::Start => match spawn(&way) {
                Ok(mut child) => {
                    rt::spawn(async move {
                        let stderr = child.stderr.take();
                        let (status, words) = tokio::join!(rt::ended(&mut child), last_words(stderr));
                        let end = match status.ok().and_then(|status| status.code()) {
                            Some(NEEDS_LOGIN) => End::NeedsLogin,
                            Some(UNUSABLE) => End::Unusable,
                            _ => End::Failed,
                        };
                        bring(link::Event::StartEnded { end, words });
                    });
                }
                Err(error) => {
                    let reason = format!("cannot start {}: {error}", way.program.display());
                    bring(link::Event::StartFailed { reason });
                }
            },
            link::Action::SignIn => {
                let task = rt::spawn(async move { bring(link::Event::SignedIn(sign_in(&way).await)) });
                self.signing_in = Some(task.abort_handle());
            }
            link::Action::LeaveSignIn => {
                if let Some(task) = self.signing_in.take() {
                    task.abort();
                }
            }
            link::Action::Kill { pid } => {
                if Claim::holder(&way.files.pid).is_some_and(|(holder, _)| holder == pid) {
                    crate::daemon::kill(pid);
                }
            }
        }
    }

    fn close_session(&mut self) {
        if let Some(task) = self.session.take() {
            task.abort();
        }
    }
}

impl Drop for Liaison {
    fn drop(&mut self) {
        self.close_session();
    }
}

/// Asks for a session, and stays in it until it ends.
async fn attach(way: &Way, keep: bool, bring: &(dyn Fn(link::Event) + Send + Sync)) {
    let opening = open_session(&way.files.socket, keep);
    tokio::pin!(opening);
    let opened = match timeout(ATTACH_WITHIN, &mut opening).await {
        Ok(opened) => opened,
        Err(_) => {
            bring(link::Event::Silent { holder: Claim::holder(&way.files.pid) });
            opening.await
        }
    };
    match opened {
        Ok((mut connection, answer)) => {
            let open = answer.ok;
            bring(link::Event::Answered(answer));
            if open {
                let words = connection.receive().await.ok().flatten();
                bring(link::Event::Lost(words.and_then(|words| serde_json::from_slice(&words).ok())));
            }
        }
        Err(error) if is_nobody(&error) => {
            let (credentials, stopped) = (credentials(way), way.files.stopped.exists());
            bring(link::Event::Nobody { credentials, stopped });
        }
        Err(error) if is_refusal(&error) => bring(link::Event::Refused { reason: error.to_string() }),
        Err(error) if is_unusable(&error) => {
            bring(link::Event::Unusable { reason: format!("cannot use {}: {error}", way.files.socket.display()) });
        }
        Err(error) => bring(link::Event::Failed { reason: format!("cannot reach the agent: {error}") }),
    }
}

async fn open_session(socket: &Path, keep: bool) -> io::Result<(Connection, Answer)> {
    let mut connection = Connection::open(socket).await?;
    let command = daemon::Command::Attach { version: version(), keep };
    // However long it takes: the machine decides when it has been too long.
    connection.send(&json(&command)).await?;
    let answer = connection.receive().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((connection, read_answer(&answer)?))
}

/// Whether that is what an agent said, rather than the system.
#[must_use]
pub fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none()
}

/// The machine's answer; an error is what was said instead of one.
fn read_answer(json: &[u8]) -> io::Result<Answer> {
    let refusal =
        |json| Some(serde_json::from_slice::<serde_json::Value>(json).ok()?.get("error")?.as_str()?.to_owned());
    serde_json::from_slice(json).map_err(|error| match refusal(json) {
        Some(refusal) => io::Error::new(io::ErrorKind::PermissionDenied, refusal),
        None => error.into(),
    })
}

/// Asks the agent's machine something.
///
/// # Errors
/// `NotFound` or `ConnectionRefused` when no agent runs; otherwise what went wrong.
pub async fn command(socket: &Path, command: &daemon::Command) -> io::Result<Answer> {
    read_answer(&ipc::request_within(AGENT_ANSWERS, socket, &json(command)).await?)
}

async fn status(socket: &Path) -> io::Result<Bytes> {
    ipc::request_within(AGENT_ANSWERS, socket, br#"{"command":"status"}"#).await
}

/// Whether no agent runs, or only one that is just ending.
fn is_nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

/// Whether the way to the socket is barred, and not only the agent away: trying again mends nothing.
#[must_use]
pub fn is_unusable(error: &io::Error) -> bool {
    let barred = [Errno::NOTDIR, Errno::ACCESS, Errno::LOOP, Errno::PERM, Errno::NAMETOOLONG];
    Errno::from_io_error(error).is_some_and(|error| barred.contains(&error))
}

/// Tells the tokens at hand from other ones, without reading them.
fn credentials(way: &Way) -> Option<u64> {
    match &way.credentials {
        Credentials::Signin(signin) => TokenFile::new(&signin.config_dir, &signin.relay).mark(),
        Credentials::File(path) => files::mark(path),
        // The process has one environment for life.
        Credentials::Variable => Some(0),
    }
}

/// Signs in, one stub at a time: the others wait, and then find the tokens, or that nobody wanted to.
async fn sign_in(way: &Way) -> Result<(), String> {
    let Credentials::Signin(options) = &way.credentials else { return Ok(()) };
    let before = credentials(way);
    // Not the lock of the tokens themselves: the sign-in takes that one.
    let path = TokenFile::new(&options.config_dir, &options.relay).path().with_extension("sign-in.lock");
    let lock = loop {
        match Claim::take(&path) {
            Ok(Some(lock)) => break lock,
            Ok(None) => sleep(SIGNIN_POLL).await,
            Err(error) => return Err(format!("cannot use {}: {error}", path.display())),
        }
    };
    let now = credentials(way);
    let refused = path.with_extension("refused");
    let outcome = if now.is_some() && now != before {
        Ok(())
    } else if let Some(reason) = refusal(&refused) {
        Err(reason)
    } else {
        let outcome = signin::login(options).await;
        if let Err(failure @ (signin::Failure::Refused { .. } | signin::Failure::NeedsLogin { .. })) = &outcome
            && let Err(error) = files::replace(&refused, failure.to_string().as_bytes())
        {
            tracing::warn!(path = %refused.display(), %error, "cannot write down that the sign-in was refused");
        }
        outcome.map_err(|failure| failure.to_string())
    };
    drop(lock);
    outcome
}

/// What a person said no to in a browser that an editor opened not long ago: no other editor opens the next one.
fn refusal(path: &Path) -> Option<String> {
    let age = std::fs::metadata(path).ok()?.modified().ok()?.elapsed().ok()?;
    let reason = files::read(path, limits::MAX_REASON as u64).ok()??;
    (age < limits::SIGNIN_AGAIN).then(|| String::from_utf8_lossy(&reason).into_owned())
}

/// Starts an agent. It detaches itself: see [`crate::log::detach`].
fn spawn(way: &Way) -> io::Result<Child> {
    let mut command = Command::new(&way.program);
    command.args(&way.args).envs(way.env.iter().map(|(name, value)| (name, value)));
    // Stderr until its log is open, and for its last words.
    rt::start(command, [Stdio::null(), Stdio::null(), Stdio::piped()], false)
}

/// The last line that comes, once the other side is done.
async fn last_words(stderr: Option<impl AsyncRead + Unpin>) -> Option<String> {
    let mut stderr = stderr?;
    let (mut kept, mut buffer) = (Vec::new(), vec![0; READ]);
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        kept.extend_from_slice(buffer.get(..read).unwrap_or_default());
        kept.drain(..kept.len().saturating_sub(limits::MAX_REASON));
    }
    let text = String::from_utf8_lossy(&kept);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.strip_prefix("error: ").unwrap_or(line).to_owned())
}

async fn due(deadline: Option<Deadline>, clock: Clock) {
    match deadline {
        Some(deadline) => sleep_until(clock.to_host(deadline.at)).await,
        None => std::future::pending().await,
    }
}

/// Reads stdin on a thread of its own: it is shared with whoever started this, so it must not be made non-blocking, and
/// a read that never ends must not hold up the end of the process.
fn read_stdin() -> io::Result<mpsc::Receiver<Event>> {
    let (bring, lines) = mpsc::channel(16);
    std::thread::Builder::new().name("stdin".into()).spawn(move || {
        let mut cutter = Lines::new(limits::MAX_BODY);
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; READ];
        let event = |line| match line {
            Line::Whole(line) => Event::Line(line),
            Line::TooLong { .. } => Event::LineTooLong,
        };
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => cutter.space().extend_from_slice(buffer.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            }
            while let Some(line) = cutter.next() {
                if bring.blocking_send(event(line)).is_err() {
                    return;
                }
            }
        }
        if let Some(line) = cutter.finish() {
            let _ = bring.blocking_send(event(line));
        }
        let _ = bring.blocking_send(Event::InputEnded);
    })?;
    Ok(lines)
}

type Written = tokio::sync::oneshot::Receiver<io::Result<()>>;

/// Writes stdout on a thread of its own, for the same reasons.
fn write_stdout() -> io::Result<(mpsc::Sender<Bytes>, Written)> {
    let (output, mut lines) = mpsc::channel::<Bytes>(16);
    let (done, written) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("stdout".into()).spawn(move || {
        let mut stdout = io::stdout().lock();
        let mut outcome = Ok(());
        while let (Ok(()), Some(line)) = (&outcome, lines.blocking_recv()) {
            outcome = stdout.write_all(&line).and_then(|()| stdout.flush());
        }
        let _ = done.send(outcome);
    })?;
    Ok((output, written))
}

fn json(command: &daemon::Command) -> Vec<u8> {
    serde_json::to_vec(command).expect("a command is made of strings")
}

fn version() -> String {
    env!("CARGO_PKG_VERSION").into()
}

/// The exit code of an agent that needs a sign-in, as `--help` documents it.
const NEEDS_LOGIN: i32 = 3;
/// The exit code of one that finds its configuration, or its directory, unusable.
const UNUSABLE: i32 = 2;
/// How long an agent may take to answer: it does so at once, or hangs, or the machine has much to do.
pub const AGENT_ANSWERS: Duration = Duration::from_secs(5);
/// How long it may take to answer a session before that is said.
const ATTACH_WITHIN: Duration = Duration::from_secs(5);
/// How long `start` tries.
const START_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks whether another stub's sign-in is over.
const SIGNIN_POLL: Duration = Duration::from_millis(250);
/// How long the last answers may take to be read.
const LAST_LINES: Duration = Duration::from_secs(5);
/// What is read at once.
const READ: usize = 16 * 1024;
