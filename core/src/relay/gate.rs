//! The gate: the pure first step of every request. `&self`, shared by all connections, no lock.

use alloc::sync::Arc;

use bytes::Bytes;
use http::StatusCode;

use crate::entropy::Entropy;
use crate::http::{Reply, RequestHead};
use crate::id::{DeviceId, DeviceName, ExchangeId, FamilyId, UserId};
use crate::oauth::{self, Snapshot};
use crate::relay::{Settings, shard};
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

/// The gate. One per relay, shared by all connections.
pub struct Gate {
    _settings: Arc<Settings>,
}

impl Gate {
    /// What to do with a request, judged by its head alone.
    #[must_use]
    pub fn admit(&self, _head: &RequestHead, _snapshot: &Snapshot, _now: Now) -> Admission {
        Admission::Reply(Reply::text(StatusCode::SERVICE_UNAVAILABLE, "not written yet"))
    }

    /// What to do with an admitted request whose whole body was read.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "each is a distinct input of a pure function")]
    pub fn accept(
        &self,
        _exchange: ExchangeId,
        _route: Route,
        _head: RequestHead,
        _body: Bytes,
        _snapshot: &Snapshot,
        _now: Now,
        _entropy: &mut dyn Entropy,
    ) -> Step {
        Step::Reply(Reply::text(StatusCode::SERVICE_UNAVAILABLE, "not written yet"))
    }

    /// The answer to a body longer than its limit.
    #[must_use]
    pub fn too_large(&self) -> Reply {
        Reply::text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large")
    }

    /// The answer to a body that did not come in time.
    #[must_use]
    pub fn too_slow(&self) -> Reply {
        Reply::text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")
    }
}
