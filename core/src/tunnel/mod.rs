//! The tunnel between relay and agent: what both sides may say, and the connection that says it.
//!
//! [`Connection`](connection::Connection) is the one pulled component of core: the task that owns the socket hands
//! messages and commands in, takes events out, and asks [`poll_transmit`](connection::Connection::poll_transmit) for
//! the next message only while the socket is writable. Two dialects share this interface: V2 (binary frames, streams
//! with credit) and V1 (the JSON messages of the predecessor).

mod close;
pub mod connection;
mod credit;
mod frame;
mod head;
mod keepalive;
mod load;
mod schedule;
mod streams;
#[cfg(test)]
mod tests;
pub mod upgrade;
mod v1;
mod v2;

pub use close::{Close, CloseCode};
pub use head::OpenHead;
pub use load::{Load, StreamLoad};
pub use v2::fits_notice;

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::id::StreamId;

/// Which side of the tunnel this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Accepts connections, opens streams.
    Relay,
    /// Dials, answers streams.
    Agent,
}

/// What is spoken on a tunnel; decided by the upgrade's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// JSON text messages, one per call, no streams: the predecessor's.
    V1,
    /// Binary messages of frames: ours.
    V2,
}

/// A WebSocket message, as the adapter reads and writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A text message (V1). Valid UTF-8.
    Text(Bytes),
    /// A binary message (V2).
    Binary(Bytes),
    /// A WebSocket ping.
    Ping(Bytes),
    /// A WebSocket pong.
    Pong(Bytes),
    /// The closing handshake; nothing follows it.
    Close(Close),
}

/// The two kinds of final answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The body is the raw `result`.
    Result,
    /// The body is the raw `error` object; the code is repeated beside it so that a status can be chosen first.
    Error {
        /// The JSON-RPC error code.
        code: i64,
    },
}

/// Why a stream ended without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ResetCode {
    /// The caller does not want the answer any more.
    Cancelled = 1,
    /// The answer was larger than allowed.
    TooLarge = 2,
    /// No credit for too long: the consumer stopped reading.
    Stalled = 3,
    /// The server that worked on it went away.
    ServerGone = 4,
    /// A fault on the resetting side.
    Internal = 5,
    /// Too many calls at once.
    Overloaded = 6,
    /// No frame for longer than the idle limit.
    TimedOut = 7,
}

/// What each side tells of itself first (frame `Hello`, JSON). Unknown members are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hello {
    /// The program's version.
    pub version: String,
    /// The operating system (`linux`, `macos`), for `status`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub os: String,
    /// The device's name as its owner wrote it (agent).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub device: String,
    /// Whose device it is, in logs: the name that the relay's own log has, which tells nothing of the person (relay).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The largest call body this side takes, in bytes.
    pub max_message: u64,
    /// How many streams this side takes at once.
    pub max_streams: u32,
    /// Named features beyond the first release of V2.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
}

/// The feature of a relay that asks a client what a server asks with no call open: a request in a [`Command::Notice`] to
/// one session, whose response comes back as an [`Event::ClientNotice`]. An older one drops such a request.
pub const ASKS_BESIDE: &str = "asks-beside-calls";

/// The feature of a side that knows a server's question by its client's session, whichever call it was asked in. When that
/// call has its result, a relay keeps the question for another call of the client at that server, as its agent does; and an agent
/// takes the answer as an [`Event::ClientNotice`] too, which may come when the call is over already.
pub const HANDS_ON: &str = "hands-questions-on";

/// What a connection tells its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The peer's hello; the tunnel is usable. On V1 it comes at once, made up of what is known.
    Up(Hello),
    /// Relay: the agent's catalog, whole or changes of it: JSON of [`crate::mcp::catalog::Update`].
    Catalog(Bytes),
    /// Agent: a call with its whole params (an agent buffers them: a stdio server takes a line).
    Call {
        /// The stream to answer on.
        stream: StreamId,
        /// The head.
        head: OpenHead,
        /// The raw params; empty when there are none.
        params: Bytes,
    },
    /// Relay: the first frame of an answer, before its body.
    Answer {
        /// The call.
        stream: StreamId,
        /// Result or error.
        outcome: Outcome,
        /// The body's length if known.
        length: Option<u64>,
    },
    /// Relay: a piece of an answer's body. `Consumed` commands give its credit back.
    Data {
        /// The call.
        stream: StreamId,
        /// The piece; empty only when `end`.
        bytes: Bytes,
        /// Whether the answer is complete.
        end: bool,
    },
    /// Agent, on V1: a tool was asked for that is not listed. It was answered already.
    Unlisted {
        /// Under what the relay has for its name.
        tool: String,
        /// How long its params are.
        bytes: usize,
    },
    /// One raw JSON-RPC message that belongs to a call. Relay: a server's notification or request; it came before the
    /// answer. Agent: the client's response to such a request, or a notification of it.
    Message {
        /// The call.
        stream: StreamId,
        /// The message.
        json: Bytes,
        /// Relay: how many bytes of the stream's credit it holds: give them back with [`Command::Consumed`] once the
        /// client took the message (or it was dropped), as for the body. 0 on an agent and on V1.
        credit: u32,
    },
    /// Relay: the server of a call closed its event stream before the answer, and wants to be asked for the rest later
    /// (2025-11-25, Transports, Sending Messages to the Server): its client may be left alone as long.
    Pause {
        /// The call.
        stream: StreamId,
        /// For how long, in milliseconds.
        millis: u32,
    },
    /// Relay: a local server's notification that belongs to no call, or its question to the client of one session.
    Notice {
        /// The local server.
        server: String,
        /// For whom: the keys of clients' sessions; empty: for every client that listens to that server.
        sessions: Vec<String>,
        /// The raw JSON-RPC message.
        json: Bytes,
    },
    /// A stream is gone without an answer: the peer ended it, or this connection did because a limit was hit (too large,
    /// stalled, overloaded, timed out). Nothing more of the stream follows, and commands for it are ignored.
    Reset {
        /// The call.
        stream: StreamId,
        /// Why.
        code: ResetCode,
        /// For people; may be empty.
        reason: String,
    },
    /// Agent: the client of a call gave it up, in its own words. As after [`Reset`](Self::Reset), the stream is gone.
    Cancelled {
        /// The call.
        stream: StreamId,
        /// The raw params of the client's `notifications/cancelled`, with its own `requestId`; may be anything.
        params: Bytes,
    },
    /// Agent: restart one server, or all of them.
    Restart {
        /// The server, `None` for all.
        server: Option<String>,
    },
    /// Agent: a client's notification that belongs to no call, or its answer to a question of that server.
    ClientNotice {
        /// The key of the client's session.
        session: String,
        /// The local server that it is for; `None`: all that the session uses.
        server: Option<String>,
        /// The raw JSON-RPC message.
        json: Bytes,
    },
    /// Agent: a client's session is over, and with it what it has set or subscribed to.
    SessionEnded {
        /// Its key.
        session: String,
    },
    /// The peer will close soon: open nothing new.
    GoAway,
    /// A round trip was measured.
    RoundTrip {
        /// In microseconds.
        micros: u64,
    },
    /// The connection is over: every stream on it is gone. Always the last event.
    Closed(Close),
}

/// What a connection's owner orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Relay: open a call. `stream` is the owner's next number; numbers rise.
    Open {
        /// The call's number.
        stream: StreamId,
        /// Its head.
        head: OpenHead,
        /// The raw params.
        params: Bytes,
        /// V1 only: the tool's name as that agent listed it: server and tool of its catalog, joined with `__`.
        v1_tool: Option<String>,
    },
    /// Relay: `bytes` of a stream's answer or messages were consumed; credit may go back.
    Consumed {
        /// The call.
        stream: StreamId,
        /// How many bytes.
        bytes: u32,
    },
    /// Agent: send the catalog (JSON of [`crate::mcp::catalog::Update`]).
    Catalog(Bytes),
    /// Agent: the final answer of a call, whole. The connection sends it in pieces, as credit allows.
    Answer {
        /// The call.
        stream: StreamId,
        /// Result or error.
        outcome: Outcome,
        /// The raw `result` or `error`.
        body: Bytes,
    },
    /// One raw JSON-RPC message that belongs to a call, in either direction. Ignored once the call was answered.
    Message {
        /// The call.
        stream: StreamId,
        /// The message.
        json: Bytes,
        /// Whether it may be dropped for newer ones of its call while it waits for credit: true of progress and log
        /// notifications, never of requests and responses.
        droppable: bool,
    },
    /// Agent: the server of a call closed its event stream before the answer, and is asked for the rest later.
    Pause {
        /// The call.
        stream: StreamId,
        /// For how long, in milliseconds.
        millis: u32,
    },
    /// Agent: a local server's notification that belongs to no call, or, to a relay that [asks so](ASKS_BESIDE), its question
    /// to the client of one session.
    Notice {
        /// The local server.
        server: String,
        /// For whom: the keys of clients' sessions; empty: for every client that listens to that server.
        sessions: Vec<String>,
        /// The raw JSON-RPC message.
        json: Bytes,
    },
    /// End a stream without an answer.
    Reset {
        /// The call.
        stream: StreamId,
        /// Why.
        code: ResetCode,
        /// For people.
        reason: String,
    },
    /// Relay: end a stream without an answer, since its client gave it up.
    Cancel {
        /// The call.
        stream: StreamId,
        /// The raw params of the client's `notifications/cancelled`. Of longer ones than a frame's head the reason alone
        /// gets to the agent, as it does where the agent is older.
        params: Bytes,
        /// For people.
        reason: String,
    },
    /// Relay: ask the agent to restart one server, or all.
    Restart {
        /// The server, `None` for all.
        server: Option<String>,
    },
    /// Relay: pass a client's notification on that belongs to no call, or its answer to a question of that server: to one
    /// that belongs to no call, or to any, if the agent [hands questions on](HANDS_ON). What [does not fit](fits_notice) a
    /// frame's head is dropped.
    ClientNotice {
        /// The key of the client's session.
        session: String,
        /// The local server that it is for; `None`: all that the session uses.
        server: Option<String>,
        /// The raw JSON-RPC message.
        json: Bytes,
    },
    /// Relay: a client's session is over.
    SessionEnded {
        /// Its key.
        session: String,
    },
    /// Send a ping now: the machine may have been asleep.
    Probe,
    /// Announce the end, so that the peer opens nothing new.
    GoAway,
    /// Send what is queued as control, then the closing handshake. [`Event::Closed`] with the same words comes at once.
    Close(Close),
}
