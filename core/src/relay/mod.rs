//! The relay: what a client's request means, and which agent answers it.
//!
//! Three parts by who changes what: [`gate`] reads requests and checks tokens against an immutable snapshot, without a
//! lock; [`crate::oauth::grants`] owns sign-in; [`shard`] owns the rooms of a slice of the users.

pub mod gate;
pub mod shard;

use alloc::string::String;
use alloc::sync::Arc;

use bytes::Bytes;

use crate::id::ExchangeId;
use crate::oauth::Principal;

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
    pub version: crate::mcp::Version,
    /// The client's name and version from `initialize`, capped.
    pub client: String,
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
    /// In which session; none for `initialize` (the gate answers that one) and sessionless eras.
    pub session: Option<Session>,
    /// Whether the client takes `text/event-stream` as an answer.
    pub accepts_stream: bool,
    /// The JSON-RPC request, response or notification: one message, checked to be well-formed.
    pub message: crate::rpc::Message,
    /// The whole body that `message` was read from.
    pub body: Bytes,
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
    pub session: Session,
}
