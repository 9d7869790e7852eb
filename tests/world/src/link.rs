//! The wire between the two ends of a tunnel: ordered, with latency, bandwidth, a window of bytes under way, and faults.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tunnel_core::id::ConnId;
use tunnel_core::tunnel::Message;

use crate::framing::Framing;
use crate::world::{AgentKey, Delivery, World};

/// One WebSocket connection of the world.
#[derive(Debug)]
pub struct Link {
    /// Whose.
    pub agent: AgentKey,
    /// Its number at the agent.
    pub at_agent: ConnId,
    /// Its number at the relay.
    pub at_relay: ConnId,
    /// Bytes sent and not yet acknowledged, toward the relay and toward the agent.
    pub under_way: [usize; 2],
    /// Half open: what is sent toward the relay, or toward the agent, vanishes, and nobody is told.
    pub silent: [bool; 2],
    /// Real frames on a pipe of bytes, if this world has them.
    pub(crate) framing: Option<Box<Framing>>,
    /// When the last thing sent arrives, in each direction: nothing overtakes.
    arrives: [u64; 2],
    /// How many parcels were sent, and how many were taken, in each direction.
    sent: [u64; 2],
    taken: [u64; 2],
    /// What a partition holds back, in each direction: it is sent again until it gets through.
    held: [BTreeMap<u64, Parcel>; 2],
    /// What arrived before something that a partition holds back.
    early: [BTreeMap<u64, Parcel>; 2],
    /// Delivered bytes whose acknowledgment a partition of the other direction holds back.
    unacknowledged: [usize; 2],
}

/// The network of one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Net {
    /// One way.
    pub latency: Duration,
    /// How much more it may be, each time anew.
    pub jitter: Duration,
    /// Bytes a millisecond; 0: as many as there are.
    pub bandwidth: u64,
    /// Whether nothing gets through, toward the relay and toward the agent.
    pub blocked: [bool; 2],
}

/// Something on the wire.
#[derive(Debug)]
pub(crate) enum Parcel {
    Message(Message),
    /// Of a world with real frames.
    Bytes(Bytes),
    /// The socket was closed, or broke.
    Gone,
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

impl Toward {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Relay => Self::Agent,
            Self::Agent => Self::Relay,
        }
    }
}

impl Net {
    /// A good one with this latency.
    #[must_use]
    pub const fn good(latency: Duration) -> Self {
        Self { latency, jitter: Duration::ZERO, bandwidth: 0, blocked: [false; 2] }
    }
}

impl Parcel {
    /// Its size on the wire, about.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Message(message) => size(message),
            Self::Bytes(bytes) => bytes.len(),
            Self::Gone => 0,
        }
    }
}

fn size(message: &Message) -> usize {
    match message {
        Message::Text(bytes) | Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len() + 8,
        Message::Close(close) => close.reason.len() + 10,
    }
}

impl Link {
    pub(crate) fn new(agent: AgentKey, at_agent: ConnId, at_relay: ConnId, framing: Option<Box<Framing>>) -> Self {
        Self {
            agent,
            at_agent,
            at_relay,
            under_way: [0; 2],
            silent: [false; 2],
            framing,
            arrives: [0; 2],
            sent: [0; 2],
            taken: [0; 2],
            held: Default::default(),
            early: Default::default(),
            unacknowledged: [0; 2],
        }
    }

    /// Whether the sender's socket takes more.
    pub(crate) fn is_writable(&self, toward: Toward) -> bool {
        self.under_way[toward as usize] < WINDOW
    }
}

/// Networks.
impl World {
    /// The network of an agent.
    #[must_use]
    pub fn net(&self, agent: AgentKey) -> Net {
        self.nets.get(&agent).copied().unwrap_or(Net::good(self.latency))
    }

    /// Changes the network of an agent. What a partition held back that is over goes on its way.
    pub fn set_net(&mut self, agent: AgentKey, net: Net) {
        self.nets.insert(agent, net);
        let conns: Vec<_> = self.links.values().filter(|link| link.agent == agent).map(|link| link.at_relay).collect();
        for conn in conns {
            for toward in [Toward::Relay, Toward::Agent] {
                if net.blocked[toward as usize] {
                    continue;
                }
                let Some(link) = self.links.get_mut(&conn) else { continue };
                let late = std::mem::take(&mut link.unacknowledged[toward.other() as usize]);
                link.under_way[toward.other() as usize] -= late;
                for (number, parcel) in std::mem::take(&mut link.held[toward as usize]) {
                    self.put(conn, toward, number, parcel);
                }
                self.transmit(conn, toward.other());
            }
        }
    }

    /// Sends `parcel` on a link; its sender's window has room.
    pub(crate) fn send(&mut self, conn: ConnId, toward: Toward, parcel: Parcel) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        link.under_way[toward as usize] += parcel.size();
        link.sent[toward as usize] += 1;
        let number = link.sent[toward as usize];
        self.put(conn, toward, number, parcel);
    }

    /// On its way, or held back by a partition.
    fn put(&mut self, conn: ConnId, toward: Toward, number: u64, parcel: Parcel) {
        let Some(agent) = self.links.get(&conn).map(|link| link.agent) else { return };
        let net = self.net(agent);
        let (latency, jitter) = (micros(net.latency), micros(net.jitter));
        let jitter = if jitter == 0 { 0 } else { self.dice.next_u64() % jitter };
        let Some(link) = self.links.get_mut(&conn) else { return };
        if net.blocked[toward as usize] {
            return drop(link.held[toward as usize].insert(number, parcel));
        }
        let line = (parcel.size() as u64 * 1000).checked_div(net.bandwidth).unwrap_or(0);
        let arrives = &mut link.arrives[toward as usize];
        *arrives = (self.clock + latency + jitter).max(*arrives) + line;
        let at = *arrives;
        self.schedule_at(at, Delivery::Parcel(conn, toward, number, parcel));
    }

    /// Something arrived. Returns what is there now without a gap.
    pub(crate) fn arrived(&mut self, conn: ConnId, toward: Toward, number: u64, parcel: Parcel) -> Vec<Parcel> {
        let Some(agent) = self.links.get(&conn).map(|link| link.agent) else { return Vec::new() };
        let net = self.net(agent);
        let Some(link) = self.links.get_mut(&conn) else { return Vec::new() };
        let index = toward as usize;
        // A partition that began meanwhile takes what is on its way, too.
        if net.blocked[index] {
            link.held[index].insert(number, parcel);
            return Vec::new();
        }
        link.early[index].insert(number, parcel);
        let mut whole = Vec::new();
        while let Some(parcel) = link.early[index].remove(&(link.taken[index] + 1)) {
            link.taken[index] += 1;
            if net.blocked[toward.other() as usize] {
                link.unacknowledged[index] += parcel.size();
            } else {
                link.under_way[index] -= parcel.size();
            }
            whole.push(parcel);
        }
        if link.silent[index] { Vec::new() } else { whole }
    }
}

pub(crate) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).expect("a test's span fits")
}
