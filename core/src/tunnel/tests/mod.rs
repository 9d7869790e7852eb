//! A relay's and an agent's connection, joined in memory, on simulated time.

mod edges;
mod honest;
mod keeping;
mod orders;
mod streaming;
mod table;
mod table_v1;
mod v1;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::id::StreamId;
use crate::time::{Instant, Now, UnixTime};
use crate::tunnel::connection::{Connection, Settings};
use crate::tunnel::{Command, Dialect, Event, Hello, Message, OpenHead, Outcome, Side};

/// Both ends of one tunnel. Messages are carried only when told, so that a test sees each of them.
pub(super) struct Pair {
    pub(super) relay: Connection,
    pub(super) agent: Connection,
    pub(super) now: Instant,
}

impl Pair {
    pub(super) fn new(dialect: Dialect) -> Self {
        let now = Instant::from_micros(1_000_000);
        let connection = |side, version: &str| {
            let hello = Hello { version: version.into(), ..Hello::default() };
            Connection::new(Settings { side, dialect, hello }, at(now))
        };
        Self { relay: connection(Side::Relay, "relay"), agent: connection(Side::Agent, "agent"), now }
    }

    /// A V2 tunnel whose hellos were exchanged.
    pub(super) fn up() -> Self {
        let mut pair = Self::new(Dialect::V2);
        pair.run();
        assert!(matches!(pair.relay_events()[..], [Event::Up(_)]));
        assert!(matches!(pair.agent_events()[..], [Event::Up(_)]));
        pair
    }

    pub(super) fn relay(&mut self, command: Command) {
        self.relay.handle_command(command, at(self.now));
    }

    pub(super) fn agent(&mut self, command: Command) {
        self.agent.handle_command(command, at(self.now));
    }

    /// Carries one message to the relay.
    pub(super) fn carry_to_relay(&mut self) -> Option<Message> {
        let message = self.agent.poll_transmit(at(self.now))?;
        self.relay.handle_message(message.clone(), at(self.now));
        Some(message)
    }

    /// Carries one message to the agent.
    pub(super) fn carry_to_agent(&mut self) -> Option<Message> {
        let message = self.relay.poll_transmit(at(self.now))?;
        self.agent.handle_message(message.clone(), at(self.now));
        Some(message)
    }

    /// Carries messages both ways until nobody has any.
    pub(super) fn run(&mut self) {
        while self.carry_to_relay().is_some() | self.carry_to_agent().is_some() {}
    }

    /// Lets time pass, firing timers when they are due; `carry`: whether messages get through.
    pub(super) fn pass(&mut self, time: Duration, carry: bool) {
        let end = self.now + time;
        loop {
            if carry {
                self.run();
            }
            let deadlines = [self.relay.poll_timeout(), self.agent.poll_timeout()];
            let next = deadlines.into_iter().flatten().map(|deadline| deadline.at).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            for side in [&mut self.relay, &mut self.agent] {
                side.handle_timeout(at(self.now));
                assert!(side.poll_timeout().is_none_or(|deadline| deadline.at > self.now), "a fired timer is not due");
            }
        }
        self.now = end;
    }

    pub(super) fn relay_events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.relay.poll_event()).collect()
    }

    pub(super) fn agent_events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.agent.poll_event()).collect()
    }

    /// Opens a call and brings it to the agent.
    pub(super) fn call(&mut self, stream: u32, params: &[u8]) {
        self.relay(open(stream, params));
        self.run();
    }
}

pub(super) fn at(instant: Instant) -> Now {
    Now { instant, unix: UnixTime::default() }
}

pub(super) fn open(stream: u32, params: &[u8]) -> Command {
    let params = Bytes::copy_from_slice(params);
    Command::Open { stream: StreamId(stream), head: head(params.len()), params, v1_tool: None }
}

pub(super) fn head(length: usize) -> OpenHead {
    OpenHead { server: "files".into(), method: "tools/call".into(), length: length as u64, ..OpenHead::default() }
}

pub(super) fn answer(stream: u32, body: impl Into<Bytes>) -> Command {
    Command::Answer { stream: StreamId(stream), outcome: Outcome::Result, body: body.into() }
}

pub(super) fn message(stream: u32, json: impl ToString, droppable: bool) -> Command {
    Command::Message { stream: StreamId(stream), json: json.to_string().into(), droppable }
}

pub(super) fn consumed(stream: u32, bytes: usize) -> Command {
    Command::Consumed { stream: StreamId(stream), bytes: u32::try_from(bytes).unwrap() }
}
