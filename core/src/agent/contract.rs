//! What an agent is told and what it orders: the values between [`Agent`](super::Agent) and its adapter.

use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;

use super::veil::Veil;
use crate::config::{AgentConfig, AuditFile};
use crate::http::fetch::{Fetch, FetchEvent};
use crate::id::{ChildId, ConnId, DeviceId, DeviceName, FetchId, JobId};
use crate::secret::Secret;
use crate::signin;
use crate::tunnel::{self, Dialect};

/// Who this agent is; the same for all of its life.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The device's name: the configuration's, else the host name.
    pub device: DeviceName,
    /// What tells the device from another of that name.
    pub device_id: DeviceId,
    /// The program's version.
    pub version: String,
    /// The operating system (`linux`, `macos`), for `status`.
    pub os: String,
}

/// What happened, as far as an agent is concerned.
#[derive(Debug)]
pub enum Event {
    /// What [`Action::KeepWishes`] brought last. Before `Start`, or it is of no use.
    WishesRecalled {
        /// The content; it may be anything.
        json: Bytes,
    },
    /// Begin: sign in, start servers, dial.
    Start {
        /// Who is there to sign in.
        person: signin::machine::Person,
    },
    /// Something of the sign-in. Not before `Start`, or it is of no use.
    Signin(signin::machine::Event),
    /// The tunnel is connected: the WebSocket handshake is done.
    Dialed {
        /// The connection that [`Action::Dial`] named.
        conn: ConnId,
        /// What the relay's 101 said.
        dialect: Dialect,
    },
    /// The tunnel could not be connected.
    DialFailed {
        /// The connection that [`Action::Dial`] named.
        conn: ConnId,
        /// Why.
        error: DialError,
    },
    /// The tunnel said something; `Closed` is its last word.
    Tunnel {
        /// The connection.
        conn: ConnId,
        /// What it said.
        event: tunnel::Event,
    },
    /// What a server's environment holds, looked up: brought before `Spawned`, and shown to nobody.
    Veiled {
        /// Which.
        child: ChildId,
        /// The values.
        veil: Veil,
    },
    /// A server's process runs.
    Spawned {
        /// Which.
        child: ChildId,
        /// The process's id, for `status`.
        pid: u32,
    },
    /// A server's process could not be started.
    SpawnFailed {
        /// Which.
        child: ChildId,
        /// What the system said.
        error: String,
    },
    /// A line of a server's stdout, without its end; never longer than the cap.
    Line {
        /// Which.
        child: ChildId,
        /// The line.
        line: Bytes,
    },
    /// A line of a server's stdout was over the cap and thrown away, but for its ends: in one of them is the id of the
    /// call that it answers (many servers write it last).
    LineTooLong {
        /// Which.
        child: ChildId,
        /// How it began, at most 4 KiB.
        prefix: Bytes,
        /// How it ended, at most 256 bytes.
        suffix: Bytes,
        /// How long it was, in bytes.
        length: u64,
    },
    /// Bytes went into a server's stdin.
    Wrote {
        /// Which.
        child: ChildId,
        /// How many.
        bytes: usize,
    },
    /// A server's stdout ended; its process may go on.
    OutputEnded {
        /// Which.
        child: ChildId,
    },
    /// A server's process ended, and every line of its stdout was brought before. Its last event. A stdout that a
    /// descendant keeps open is given up 100 ms after the process ended.
    Exited {
        /// Which.
        child: ChildId,
        /// The exit code, or `None` when a signal ended it.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// The last lines of its stderr, at most 2 KiB, for people.
        stderr: String,
    },
    /// Something of a request to a local HTTP server.
    Fetch {
        /// Which.
        fetch: FetchId,
        /// What.
        event: FetchEvent,
    },
    /// What was looked up for [`Action::Recall`].
    Recalled {
        /// The server's name.
        server: String,
        /// What [`Action::Keep`] brought last; `None` when there is nothing, or nothing that can be read.
        catalog: Option<Bytes>,
    },
    /// The configuration was read again, or why not.
    ConfigRead(Result<AgentConfig, String>),
    /// What is pinned of a server was read.
    PinsLoaded {
        /// Whose, as [`Action::LoadPins`] named it.
        key: String,
        /// The content, `None` when there is none; or why it cannot be read.
        result: Result<Option<Bytes>, String>,
    },
    /// What is pinned of a server was saved, or why not.
    PinsSaved {
        /// Whose, as [`Action::SavePins`] named it.
        key: String,
        /// How it went.
        result: Result<(), Unsaved>,
    },
    /// SIGHUP: try to connect at once.
    Nudge,
    /// This machine's addresses changed. May come as often as it likes.
    NetworkChanged,
    /// The audit cannot be written, for this reason; or it can be again.
    AuditWritten(Result<(), String>),
    /// Somebody asks on the control socket.
    Control {
        /// To answer with [`Action::ControlReply`].
        job: JobId,
        /// What.
        command: ControlCommand,
    },
    /// End: stop servers, close the tunnel, then order [`Action::Exit`].
    Stop,
}

/// Why the tunnel could not be connected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// No connection, or it broke: name not found, refused, TLS.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The relay answered with another status than 101.
    #[error("the relay answered {status}: {message}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// `Retry-After`, as it was written.
        retry_after: Option<String>,
        /// `WWW-Authenticate`, several of them joined by commas, control characters removed; empty when there is none.
        challenge: String,
        /// The beginning of the body, at most 512 bytes, control characters removed; the challenge when there is none.
        message: String,
    },
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
}

/// What may be asked on an agent's control socket.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum ControlCommand {
    /// What is up and what is not: a JSON document.
    Status,
    /// Restart one server, or all.
    Restart {
        /// Which.
        #[serde(default)]
        server: Option<String>,
    },
    /// The calls that wait for an approval: a JSON document.
    Approvals {
        /// With what each is called with.
        #[serde(default)]
        params: bool,
    },
    /// Let a waiting call pass.
    Approve {
        /// Which.
        id: u64,
        /// And every later one of its client to its tool, for as long as the agent runs.
        #[serde(default)]
        always: bool,
    },
    /// Refuse a waiting call.
    Deny {
        /// Which.
        id: u64,
    },
    /// What is pinned, and what changed: a JSON document.
    Pins {
        /// With the definitions of what changed.
        #[serde(default)]
        definitions: bool,
    },
    /// Take changed tools for what they are now.
    PinsApprove {
        /// Of this server; `None`: of all.
        #[serde(default)]
        server: Option<String>,
        /// This tool; `None`: all of them.
        #[serde(default)]
        tool: Option<String>,
    },
}

/// Why pins were not saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsaved {
    /// They are not what they were any more: this is what another agent of this machine made of them.
    Changed(Option<Bytes>),
    /// They cannot be written; for people.
    Failed(String),
}

/// What an agent orders.
#[derive(Debug)]
pub enum Action {
    /// Something of the sign-in (never `Ready` or `Failed`: those stay inside).
    Signin(signin::machine::Action),
    /// Connect a tunnel. The adapter makes the WebSocket handshake with these headers, then a
    /// [`tunnel::connection::Connection`], and brings `Dialed` or `DialFailed`.
    Dial {
        /// Its number.
        conn: ConnId,
        /// `ws` or `wss` URL.
        url: String,
        /// For the upgrade request; the token is marked sensitive.
        headers: http::HeaderMap,
        /// What the connection tells the relay of this side.
        hello: tunnel::Hello,
    },
    /// Give a command to the tunnel.
    Tunnel {
        /// The connection.
        conn: ConnId,
        /// The command.
        command: tunnel::Command,
    },
    /// Start a server's process in its own process group.
    Spawn {
        /// Its number.
        child: ChildId,
        /// What to run.
        spawn: Spawn,
    },
    /// Write a line (its end included) to a server's stdin, in order; then bring `Wrote`.
    Write {
        /// Which.
        child: ChildId,
        /// The bytes.
        bytes: Bytes,
    },
    /// Close a server's stdin.
    CloseStdin {
        /// Which.
        child: ChildId,
    },
    /// Signal a server's whole process group. `Exited` (or `SpawnFailed`) follows as it always does.
    Kill {
        /// Which.
        child: ChildId,
        /// SIGKILL rather than SIGTERM.
        force: bool,
    },
    /// Make a request to a local HTTP server; its body is read in pieces.
    Fetch {
        /// Its number.
        fetch: FetchId,
        /// The request.
        request: Fetch,
    },
    /// Stop a fetch. Events of it that are under way are ignored.
    AbortFetch {
        /// Which.
        fetch: FetchId,
    },
    /// Look up what was last kept of a server, then bring `Recalled`.
    Recall {
        /// Its name.
        server: String,
    },
    /// Keep this of a server, in the place of what was kept before; private, since descriptions may tell secrets. What
    /// cannot be kept costs one start of the server later on.
    Keep {
        /// Its name.
        server: String,
        /// What it offers: JSON.
        catalog: Bytes,
    },
    /// Keep what clients' sessions set, in the place of what was kept before, for the owner alone. What cannot be kept is
    /// lost with this process.
    KeepWishes {
        /// Of each session its key, which opens nothing by itself, and what it watches: JSON.
        json: Bytes,
    },
    /// Read the configuration again, then bring `ConfigRead`.
    ReadConfig,
    /// Answer on the control socket: one JSON document of [`status`](super::status).
    ControlReply {
        /// The question's number.
        job: JobId,
        /// The answer.
        json: Bytes,
    },
    /// Read what is pinned of a server, then bring `PinsLoaded`.
    LoadPins {
        /// Whose: a name for a file, made of what a person called the server, and not safe as it is.
        key: String,
    },
    /// Replace what is pinned of a server, for its owner alone, durably, if it still is `base`; then bring `PinsSaved`.
    SavePins {
        /// Whose.
        key: String,
        /// What it was when it was read or saved last; `None`: there was none.
        base: Option<Bytes>,
        /// The whole content.
        content: Bytes,
    },
    /// Open the audit's file, so that one that cannot be written is known before there is something to write. Whenever
    /// that changes, bring `AuditWritten`.
    OpenAudit(AuditFile),
    /// Append a line to the audit, a file for its owner alone that is rotated. In order.
    Audit {
        /// Which file.
        file: AuditFile,
        /// The line, its end included.
        line: Bytes,
    },
    /// The process may end, for this reason.
    Exit(Exit),
}

/// A process to run.
#[derive(Debug, Clone)]
pub struct Spawn {
    /// The server's name.
    pub server: String,
    /// What its stderr file is named after: the server's name, and which of its runs this is where there are several.
    pub log: String,
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// Its whole environment besides the small base that the adapter takes from its own
    /// ([`crate::config::BASE_ENVIRONMENT`]). A value may be a [`Reference`](crate::config::Reference), which the adapter
    /// looks up; one that cannot be found is why the process cannot be started.
    pub env: Vec<(String, Secret)>,
    /// Its working directory.
    pub cwd: Option<String>,
    /// The longest line of stdout that is taken, in bytes.
    pub max_line: usize,
    /// How many bytes of memory all its processes may occupy together, where the system can tell.
    pub memory_limit: Option<u64>,
    /// Whether the agent's own files and the processes of others are to be out of its reach; where the system cannot do
    /// that, it cannot be started.
    pub sandbox: bool,
}

/// Why an agent ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// As asked.
    Stopped,
    /// Sign-in is needed and cannot be had here.
    NeedsLogin(signin::machine::Failure),
    /// The relay refused this device for good.
    Refused(String),
}
