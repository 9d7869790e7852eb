//! The shard: the rooms of a slice of the users, driven behind one mutex. It decides only.

use alloc::boxed::Box;
use alloc::sync::Arc;

use bytes::Bytes;

use super::Settings;
use crate::entropy::Entropy;
use crate::host::{Machine, Mailbox};
use crate::http::{Reply, ReplyHead};
use crate::id::{ConnId, DeviceId, DeviceName, ExchangeId, FamilyId, StreamId, UserId};
use crate::time::{Deadline, Now, UnixTime};
use crate::tunnel::{self, Dialect};

/// What happened, as far as a shard is concerned.
#[derive(Debug)]
pub enum Event {
    /// A client's message on `/mcp`, read and checked by the gate.
    Post(super::Post),
    /// A client opened the stream of notifications (GET).
    Listen(super::Listen),
    /// The client of an exchange went away before its reply was complete.
    Gone {
        /// The exchange.
        exchange: ExchangeId,
    },
    /// An agent's tunnel is up.
    TunnelUp {
        /// Its connection.
        conn: ConnId,
        /// Whose.
        user: UserId,
        /// The device's name.
        device: DeviceName,
        /// What tells it from another of that name.
        device_id: Option<DeviceId>,
        /// The grant it belongs to.
        family: FamilyId,
        /// When it must end.
        expires: UnixTime,
        /// What is spoken.
        dialect: Dialect,
    },
    /// A tunnel said something. `Closed` is brought here too, and is the last one of its connection.
    Tunnel {
        /// The connection.
        conn: ConnId,
        /// What it said.
        event: tunnel::Event,
    },
    /// A family of tokens was revoked: its tunnels and streams end.
    Revoked {
        /// The family.
        family: FamilyId,
    },
    /// A client ended its session (DELETE): its streams end.
    SessionEnded {
        /// Whose.
        user: UserId,
        /// The session's key.
        session: super::SessionKey,
    },
    /// The relay stops: say so to agents and streams.
    Stop,
}

/// What a shard orders.
#[derive(Debug)]
pub enum Action {
    /// Answer an exchange, whole.
    Reply {
        /// The exchange.
        exchange: ExchangeId,
        /// The answer.
        reply: Reply,
    },
    /// Start an answer whose body follows. `source` is where the credit of its `Body` pieces goes back to.
    Begin {
        /// The exchange.
        exchange: ExchangeId,
        /// Its head.
        head: ReplyHead,
        /// The tunnel's stream that feeds it.
        source: Option<(ConnId, StreamId)>,
    },
    /// A piece of a started answer.
    Body {
        /// The exchange.
        exchange: ExchangeId,
        /// The piece.
        bytes: Bytes,
        /// How many bytes are returned as `Consumed` to the exchange's source once the piece has left the adapter:
        /// taken by the client, or thrown away because the client went away.
        credit: u32,
    },
    /// A started answer is complete.
    Finish {
        /// The exchange.
        exchange: ExchangeId,
    },
    /// A started answer cannot be completed: end its transport so that the client sees it is cut short.
    Abort {
        /// The exchange.
        exchange: ExchangeId,
    },
    /// Give a command to a tunnel.
    Tunnel {
        /// The connection.
        conn: ConnId,
        /// The command.
        command: tunnel::Command,
    },
}

/// The rooms of a slice of the users.
pub struct Shard {
    _settings: Arc<Settings>,
    _entropy: Box<dyn Entropy>,
    out: Mailbox<Action>,
}

impl Shard {
    /// A shard without rooms.
    #[must_use]
    pub fn new(settings: Arc<Settings>, entropy: Box<dyn Entropy>) -> Self {
        Self { _settings: settings, _entropy: entropy, out: Mailbox::default() }
    }
}

impl Machine for Shard {
    type Event = Event;
    type Action = Action;

    fn handle_event(&mut self, _event: Event, _now: Now) {}

    fn handle_timeout(&mut self, _now: Now) {}

    fn poll_action(&mut self) -> Option<Action> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        None
    }
}
