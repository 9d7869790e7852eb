//! What an observer of a world is told: the facts that a model compares with what it predicts.

use serde_json::Value;
use tunnel_core::agent::machine::{DialError, Exit};
use tunnel_core::id::{ChildId, ConnId, ExchangeId, JobId};
use tunnel_core::time::Instant;
use tunnel_core::tunnel::Close;

use crate::client::Outcome;
use crate::world::AgentKey;

/// A fact.
#[derive(Debug, Clone)]
pub enum Seen {
    /// A server heard a message.
    Heard {
        /// Whose.
        agent: AgentKey,
        /// Which.
        server: String,
        /// Its process.
        child: ChildId,
        /// What.
        message: Value,
    },
    /// A server answers a request, if its process lives until then.
    Answers {
        /// Whose.
        agent: AgentKey,
        /// Its process.
        child: ChildId,
        /// The request's raw id.
        id: String,
    },
    /// A server's process began or ended.
    Child {
        /// Whose.
        agent: AgentKey,
        /// Its process.
        child: ChildId,
        /// Whether it began.
        began: bool,
    },
    /// A client read something of an event stream.
    Spoke {
        /// On which exchange.
        exchange: ExchangeId,
    },
    /// An exchange ended.
    Ended {
        /// Which.
        exchange: ExchangeId,
        /// How.
        outcome: Outcome,
    },
    /// An agent dials, at this time of its own.
    Dials {
        /// Which.
        agent: AgentKey,
        /// When.
        at: Instant,
    },
    /// An agent's dial failed, at this time of its own.
    DialFailed {
        /// Which.
        agent: AgentKey,
        /// When.
        at: Instant,
        /// Why.
        error: DialError,
    },
    /// A tunnel is up.
    TunnelUp {
        /// Whose.
        agent: AgentKey,
        /// Its number at the relay.
        conn: ConnId,
    },
    /// An end of a tunnel was told that it is over.
    Closed {
        /// Whose; `None`: the relay.
        agent: Option<AgentKey>,
        /// When, at that end.
        at: Instant,
        /// How.
        close: Close,
    },
    /// An agent is done.
    Exit {
        /// Which.
        agent: AgentKey,
        /// Why.
        exit: Exit,
    },
    /// The operator was answered.
    Admin {
        /// Which question.
        job: JobId,
        /// With what.
        answer: Value,
    },
}
