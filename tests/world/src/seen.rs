//! What an observer of a world is told: the facts that a model compares with what it predicts.

use bytes::Bytes;
use serde_json::Value;
use tunnel_core::agent::machine::{DialError, Exit};
use tunnel_core::id::{ChildId, ConnId, ExchangeId, JobId, StreamId};
use tunnel_core::time::Instant;
use tunnel_core::tunnel::{self, Close};

use crate::client::Outcome;
use crate::world::{AgentKey, World};

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
        /// What it came with.
        token: String,
    },
    /// The relay has that tunnel no more.
    TunnelDown {
        /// Its number at the relay.
        conn: ConnId,
    },
    /// A call comes to an agent.
    Asked {
        /// Which.
        agent: AgentKey,
        /// The tunnel's number at the agent.
        conn: ConnId,
        /// Its stream there.
        stream: StreamId,
        /// The method.
        method: String,
        /// Its raw params.
        params: Bytes,
    },
    /// An agent hears that a call was given up; all of a tunnel's, which is gone.
    GivenUp {
        /// Which.
        agent: AgentKey,
        /// The tunnel's number at the agent.
        conn: ConnId,
        /// The call's stream there; `None`: all of them.
        stream: Option<StreamId>,
    },
    /// An agent sends lines or a request to one of its servers, which may hear of it later.
    Sent {
        /// What.
        bytes: Bytes,
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

impl World {
    /// Calls that come to an agent, and go.
    pub(crate) fn saw_calls(&mut self, agent: AgentKey, conn: ConnId, event: &tunnel::Event) {
        match event {
            tunnel::Event::Call { stream, head, params } => {
                let (stream, method, params) = (*stream, head.method.to_string(), params.clone());
                self.saw(|| Seen::Asked { agent, conn, stream, method, params });
            }
            tunnel::Event::Reset { stream, .. } | tunnel::Event::Cancelled { stream, .. } => {
                let stream = Some(*stream);
                self.saw(|| Seen::GivenUp { agent, conn, stream });
            }
            tunnel::Event::Closed(_) => self.saw(|| Seen::GivenUp { agent, conn, stream: None }),
            _ => {}
        }
    }
}
