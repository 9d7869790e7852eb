//! The wire between two ends of a tunnel: ordered, with latency, a window of bytes under way, and faults.

use std::time::Duration;

use tunnel_core::id::ConnId;
use tunnel_core::tunnel::Message;

use crate::world::AgentKey;

/// One WebSocket connection of the world.
#[derive(Debug)]
pub struct Link {
    /// Whose.
    pub agent: AgentKey,
    /// Its number at the agent.
    pub at_agent: ConnId,
    /// Its number at the relay.
    pub at_relay: ConnId,
    /// One way.
    pub latency: Duration,
    /// Bytes sent and not yet delivered, toward the relay and toward the agent.
    pub under_way: [usize; 2],
    /// Half open: what is sent vanishes, and nobody is told.
    pub silent: bool,
}

/// What fits between the ends before the sender's socket is not writable any more.
pub const WINDOW: usize = 256 * 1024;

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Toward {
    /// From agent to relay.
    Relay = 0,
    /// From relay to agent.
    Agent = 1,
}

/// A message's size on the wire, about.
pub fn size(message: &Message) -> usize {
    match message {
        Message::Text(bytes) | Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len() + 8,
        Message::Close(close) => close.reason.len() + 10,
    }
}
