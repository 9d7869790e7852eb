//! The relay: what a client's request means, and which agent answers it.
//!
//! Three parts by who changes what: [`gate`] reads requests and checks tokens against an immutable snapshot, without a
//! lock; [`crate::oauth::grants`] owns sign-in; [`shard`] owns the rooms of a slice of the users.
//!
//! | file | what lives there |
//! |---|---|
//! | `gate`, `service`, `route`, `handshake`, `session` | a request's head and body: paths, methods, tokens, upgrades, sealed session ids |
//! | `era`, `modern` | in which era a message is spoken, and what one without a handshake must say |
//! | `shard`, `room` | one mutex's worth of users; one user's devices, calls and listeners |
//! | `device`, `catalog`, `items`, `capabilities` | a connected device, and what it offers |
//! | `listing`, `named`, `resources`, `namespace`, `template`, `lists` | what all devices offer: under which names and URIs, and whose each is |
//! | `audit` | what a relay's audit says of tunnels and calls |
//! | `permission`, `challenge` | which scope a request needs, and what it is told without |
//! | `calls`, `outlet`, `mend`, `failure` | a call under way, the reply it feeds, what in it is the relay's to say, and why it may have no result |
//! | `tasks`, `watches` | whose a task is, and under which URIs resources are watched |
//! | `replay` | event streams that a client may take up again |
//! | `listeners`, `subscriptions` | change notices, in both eras |
//! | `initialize`, `discover`, `meta` | what the relay says of itself, and its tools `status` and `restart` |

mod audit;
mod calls;
mod capabilities;
mod catalog;
mod challenge;
mod device;
mod discover;
mod era;
mod failure;
pub mod gate;
mod handshake;
mod initialize;
mod items;
mod listeners;
mod listing;
mod lists;
mod mend;
mod meta;
mod modern;
mod named;
mod namespace;
mod offer;
mod opened;
mod outlet;
mod permission;
mod replay;
mod resources;
mod room;
mod route;
mod service;
mod session;
pub mod settings;
pub mod shard;
mod subscriptions;
mod tasks;
mod template;
#[cfg(test)]
mod tests;
mod watches;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use http::HeaderMap;

pub use opened::Opened;
pub use settings::Settings;

use crate::id::{ExchangeId, UserId};
use crate::mcp::{Era, Version};
use crate::oauth::Principal;
use crate::rpc::RawId;
use crate::time::UnixTime;

/// Which of `shards` shards has `user`'s room. `shards` is at least 1; the same user is always in the same shard.
#[must_use]
pub fn shard_of(user: &UserId, shards: usize) -> usize {
    // FNV-1a: the same on every machine and run. Nobody gains by steering users into one shard but a slower relay.
    let hash = user
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let shards = u64::try_from(shards.max(1)).unwrap_or(u64::MAX);
    usize::try_from((hash >> 32 ^ hash) % shards).unwrap_or(0)
}

/// A legacy session's key: the nonce sealed in its `Mcp-Session-Id`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub Arc<str>);

/// Which devices and servers an endpoint speaks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// `/mcp`: all of the user's devices, names prefixed.
    All,
    /// `/mcp/{server}`: the one device that has this server.
    Server(String),
    /// `/mcp/{device}/{server}`.
    DeviceServer(String, String),
}

/// What a sealed `Mcp-Session-Id` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its key.
    pub key: SessionKey,
    /// The negotiated protocol version.
    pub version: Version,
    /// The client's name and version from `initialize`, capped.
    pub client: Arc<str>,
    /// The raw `capabilities` that it declared, at most [`limits::MAX_CAPABILITIES`](crate::limits::MAX_CAPABILITIES).
    pub capabilities: Arc<str>,
    /// When it ends by itself.
    pub expires: UnixTime,
}

/// Who asks, as far as the protocol goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Speaker {
    /// A client of a revision with a handshake, in its session.
    Legacy(Arc<Session>),
    /// A client of a revision without: what its request says of itself.
    Modern {
        /// The protocol version.
        version: Version,
        /// The client's name and version, capped; empty when it gave none.
        client: Arc<str>,
        /// The header fields that repeat the parameters of the tool it calls.
        mirrored: HeaderMap,
    },
}

impl Speaker {
    /// The protocol version that is spoken.
    #[must_use]
    pub fn version(&self) -> Version {
        match self {
            Self::Legacy(session) => session.version,
            Self::Modern { version, .. } => *version,
        }
    }

    /// The era of that.
    #[must_use]
    pub fn era(&self) -> Era {
        match self {
            Self::Legacy(_) => Era::Legacy,
            Self::Modern { .. } => Era::Modern,
        }
    }

    /// What the client calls itself.
    #[must_use]
    pub fn client(&self) -> &Arc<str> {
        match self {
            Self::Legacy(session) => &session.client,
            Self::Modern { client, .. } => client,
        }
    }

    /// The session's key; `None`: there are no sessions.
    #[must_use]
    pub fn session(&self) -> Option<&SessionKey> {
        match self {
            Self::Legacy(session) => Some(&session.key),
            Self::Modern { .. } => None,
        }
    }
}

/// Which content types a client takes as an answer to a POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepts {
    /// JSON or an event stream: what the specification asks of clients.
    Either,
    /// JSON alone: no progress, no heartbeats.
    Json,
    /// An event stream alone.
    Stream,
}

/// A client's message, ready for its shard.
#[derive(Debug)]
pub struct Post {
    /// The exchange to answer.
    pub exchange: ExchangeId,
    /// Who asks.
    pub principal: Arc<Principal>,
    /// On which endpoint.
    pub endpoint: Endpoint,
    /// Who asks, in which session: for `initialize` the one that the gate just minted.
    pub speaker: Speaker,
    /// What the client takes as an answer.
    pub accepts: Accepts,
    /// Header fields that the reply must carry: CORS, and the minted `Mcp-Session-Id`.
    pub headers: HeaderMap,
    /// The user's pseudonym, if an audit is kept.
    pub audit: Option<Arc<str>>,
    /// What was sent, checked to be well-formed.
    pub content: Content,
}

/// The body of a POST.
#[derive(Debug)]
pub enum Content {
    /// A request.
    Request(Request),
    /// What has no answer.
    Note(Note),
    /// A batch of 2025-03-26 with at least one element that concerns somebody.
    Batch(Vec<Item>),
}

/// One of the messages of a batch.
#[derive(Debug)]
pub enum Item {
    /// A request.
    Request(Request),
    /// What has no answer.
    Note(Note),
    /// What could not be read, or does not belong there: its JSON-RPC error response.
    Unreadable(Bytes),
}

impl Item {
    /// The request, if it is one.
    #[must_use]
    pub fn request(&self) -> Option<&Request> {
        match self {
            Self::Request(request) => Some(request),
            Self::Note(_) | Self::Unreadable(_) => None,
        }
    }
}

/// What a client says that has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// `notifications/cancelled`.
    Cancelled {
        /// The raw params.
        params: Bytes,
    },
    /// The response to what a server asked.
    Answer {
        /// Its id: the one that the relay gave the question.
        id: RawId,
        /// The raw response.
        json: Bytes,
    },
    /// Another notification.
    Notification {
        /// The method.
        method: Arc<str>,
        /// The raw params; empty when absent.
        params: Bytes,
        /// The raw notification.
        json: Bytes,
    },
}

/// A JSON-RPC request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The client's id.
    pub id: RawId,
    /// The method.
    pub method: Arc<str>,
    /// The raw params; empty when absent.
    pub params: Bytes,
}

/// A client's GET for notifications.
#[derive(Debug)]
pub struct Listen {
    /// The exchange to keep open.
    pub exchange: ExchangeId,
    /// Who listens.
    pub principal: Arc<Principal>,
    /// On which endpoint.
    pub endpoint: Endpoint,
    /// In which session.
    pub session: Arc<Session>,
    /// `Last-Event-ID`: where a stream that broke is to go on.
    pub last_event: Option<String>,
    /// Header fields that the reply must carry: CORS.
    pub headers: HeaderMap,
}
