//! The gate: the pure first step of every request. `&self`, shared by all connections, no lock.

use bytes::Bytes;

use crate::entropy::Entropy;
use crate::http::{Reply, RequestHead};
use crate::id::{DeviceId, DeviceName, ExchangeId, FamilyId, UserId};
use crate::oauth;
use crate::relay::shard;
use crate::time::{Now, UnixTime};
use crate::tunnel::Dialect;

/// What to do with a request whose head was read.
#[derive(Debug)]
pub enum Admission {
    /// Answer at once; the body, if any, is not read and the connection closes.
    Reply(Reply),
    /// Read the body whole, at most `limit` bytes, then call [`Gate::accept`] with `route`. A longer body is answered
    /// with [`Gate::too_large`], a slow one with [`Gate::too_slow`].
    Read {
        /// What the head meant; opaque to the adapter.
        route: Route,
        /// In bytes; 0 when no body is expected.
        limit: usize,
    },
    /// Answer 101 with `headers` (the adapter adds `Sec-WebSocket-Accept`), then bring [`shard::Event::TunnelUp`] to
    /// the user's shard.
    Upgrade(Upgrade),
}

/// A tunnel that may be opened.
#[derive(Debug, Clone)]
pub struct Upgrade {
    /// Whose device it is.
    pub user: UserId,
    /// The grant the tunnel belongs to: it ends with it.
    pub family: FamilyId,
    /// When the tunnel ends at the latest.
    pub expires: UnixTime,
    /// The device's name.
    pub device: DeviceName,
    /// What tells it from another device of that name; none on V1.
    pub device_id: Option<DeviceId>,
    /// What is spoken.
    pub dialect: Dialect,
    /// For the 101 response.
    pub headers: http::HeaderMap,
}

/// What the gate made of a request whose body was read.
#[derive(Debug)]
pub enum Step {
    /// Answer at once.
    Reply(Reply),
    /// Hand this to [`oauth::grants::Grants`], which answers the exchange.
    Grants(oauth::grants::Event),
    /// Hand this to `user`'s shard, which answers the exchange.
    Shard(UserId, shard::Event),
}

/// What the head of a request meant. Opaque to adapters.
#[derive(Debug)]
pub struct Route(());
