//! A shard with its tunnels and exchanges.

use std::collections::HashMap;
use std::sync::Arc;

use tunnel_core::host::Machine;
use tunnel_core::id::{ConnId, ExchangeId, FamilyId};
use tunnel_core::relay::Settings;
use tunnel_core::relay::shard::{Action, Event, Shard};
use tunnel_core::time::Now;
use tunnel_core::tunnel::{self, Close, CloseCode, Command};

use crate::audit::Shared;
use crate::driver::Hosted;
use crate::entropy::OsEntropy;
use crate::exchange::{ExchangeHandle, Part, Source};
use crate::queue::Queue;

/// A shard, and whom its orders are for.
pub(super) struct Rooms {
    shard: Shard,
    settings: Arc<Settings>,
    audit: Option<Shared>,
    tunnels: HashMap<ConnId, Queue<Command>>,
    exchanges: HashMap<ExchangeId, ExchangeHandle>,
}

/// Whom to wake.
pub(super) enum Later {
    Tunnel(Queue<Command>),
    Exchange(ExchangeHandle),
    /// The client does not read; its reply was cut short, which the shard has to hear.
    CutOff(ExchangeId, ExchangeHandle),
    /// Not to wake, but to tell the authorization server.
    Used(FamilyId),
}

impl Rooms {
    pub(super) fn new(settings: Arc<Settings>, audit: Option<Shared>) -> Self {
        Self {
            shard: Shard::new(Arc::clone(&settings), Box::new(OsEntropy::new())),
            settings,
            audit,
            tunnels: HashMap::new(),
            exchanges: HashMap::new(),
        }
    }

    /// A client's request, to be answered to `handle`.
    pub(super) fn ask(&mut self, exchange: ExchangeId, handle: ExchangeHandle, event: Event, now: Now) {
        self.exchanges.insert(exchange, handle);
        self.shard.handle_event(event, now);
    }

    /// The client of `exchange` went away. Nothing is said of one whose reply was complete already.
    pub(super) fn gone(&mut self, exchange: ExchangeId, now: Now) {
        if self.exchanges.remove(&exchange).is_some() {
            self.shard.handle_event(Event::Gone { exchange }, now);
        }
    }

    /// A tunnel is up; `event` says whose.
    pub(super) fn open(&mut self, conn: ConnId, commands: Queue<Command>, event: Event, now: Now) {
        self.tunnels.insert(conn, commands);
        self.shard.handle_event(event, now);
    }

    /// A tunnel said something.
    pub(super) fn heard(&mut self, conn: ConnId, event: tunnel::Event, now: Now) {
        let last = matches!(event, tunnel::Event::Closed(_));
        self.shard.handle_event(Event::Tunnel { conn, event }, now);
        if last {
            self.tunnels.remove(&conn);
        }
    }

    /// Something that concerns no exchange or tunnel of its own.
    pub(super) fn tell(&mut self, event: Event, now: Now) {
        self.shard.handle_event(event, now);
    }

    fn give(&self, exchange: ExchangeId, part: Part, later: &mut Vec<Later>) {
        // One that is gone is unknown: what the machine ordered before it heard of that.
        if let Some(handle) = self.exchanges.get(&exchange) {
            push(exchange, handle.clone(), part, later);
        }
    }

    /// Gives the last part of a reply.
    fn conclude(&mut self, exchange: ExchangeId, part: Part, later: &mut Vec<Later>) {
        if let Some(handle) = self.exchanges.remove(&exchange) {
            push(exchange, handle, part, later);
        }
    }
}

fn push(exchange: ExchangeId, handle: ExchangeHandle, part: Part, later: &mut Vec<Later>) {
    let reads = handle.push(part);
    later.push(if reads { Later::Exchange(handle) } else { Later::CutOff(exchange, handle) });
}

impl Hosted for Rooms {
    type Machine = Shard;
    type Later = Later;

    fn machine(&mut self) -> &mut Shard {
        &mut self.shard
    }

    fn carry_out(&mut self, action: Action, _now: Now, later: &mut Vec<Later>) {
        match action {
            Action::Reply { exchange, reply } => self.conclude(exchange, Part::Reply(reply), later),
            Action::Begin { exchange, head, source } => {
                let source = source.and_then(|(conn, stream)| {
                    let commands = self.tunnels.get(&conn)?.clone();
                    Some(Source { commands, stream })
                });
                self.give(exchange, Part::Begin(head, source), later);
            }
            Action::Body { exchange, bytes, credit } => self.give(exchange, Part::Body(bytes, credit), later),
            Action::Finish { exchange } => self.conclude(exchange, Part::Finish, later),
            Action::Abort { exchange } => self.conclude(exchange, Part::Abort, later),
            Action::Tunnel { conn, command } => {
                if let Some(commands) = self.tunnels.get(&conn) {
                    commands.push(command);
                    later.push(Later::Tunnel(commands.clone()));
                }
            }
            Action::Used { family } => later.push(Later::Used(family)),
            Action::Audit(line) => self.audit.iter().for_each(|audit| audit.append(line.clone())),
        }
    }

    /// Throws the shard away and closes its sockets: agents and clients come back by themselves.
    fn recover(&mut self, _now: Now, later: &mut Vec<Later>) {
        for (_, commands) in self.tunnels.drain() {
            commands.push(Command::Close(Close::new(CloseCode::Internal, "the relay had a fault")));
            later.push(Later::Tunnel(commands));
        }
        for (_, handle) in self.exchanges.drain() {
            handle.push(Part::Abort);
            later.push(Later::Exchange(handle));
        }
        self.shard = Shard::new(Arc::clone(&self.settings), Box::new(OsEntropy::new()));
    }
}
