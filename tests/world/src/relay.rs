//! A relay of the world: the real gate, grants, shard and connections; a map for a disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use tunnel_core::config::{Clients, Local, LocalUser, Login, Naming, RelayConfig, RelayLimits};
use tunnel_core::entropy::Seeded;
use tunnel_core::host::Machine as _;
use tunnel_core::id::{ConnId, ExchangeId};
use tunnel_core::keyring::Keyring;
use tunnel_core::oauth::Snapshot;
use tunnel_core::oauth::grants::{Action as GrantsAction, Event as GrantsEvent, Grants};
use tunnel_core::relay::gate::Gate;
use tunnel_core::relay::shard::{Action as ShardAction, Event as ShardEvent, Shard};
use tunnel_core::relay::{self, Opened, Settings};
use tunnel_core::seal::Key;
use tunnel_core::time::Now;
use tunnel_core::tunnel::connection::Connection;
use tunnel_core::tunnel::{self, CloseCode};

use crate::alarms::Whose;
use crate::client::Outcome;
use crate::disk::Disk;
use crate::link::{Parcel, Toward};
use crate::sabotage::Sabotage;
use crate::seen::Seen;
use crate::world::World;

/// A running relay.
pub struct Relay {
    pub(crate) gate: Gate,
    /// All clients come through one proxy, which has one connection.
    pub(crate) opened: Opened,
    pub(crate) grants: Grants,
    pub(crate) shard: Shard,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) entropy: Seeded,
    /// The tunnels it holds.
    pub(crate) connections: BTreeMap<ConnId, Connection>,
}

/// The person of the world. Anyone else needs a token of their own.
pub const USER: &str = "ada";

/// How the world's relays are configured.
#[must_use]
pub fn config(naming: Naming) -> RelayConfig {
    let user = |name: &str| LocalUser { name: name.to_owned(), password_hash: String::new() };
    RelayConfig {
        audit: None,
        login: Login::Local(Local { users: vec![user(USER), user("eve")] }),
        host: "127.0.0.1".to_owned(),
        port: 3000,
        public_url: Some(World::PUBLIC_URL.to_owned()),
        secrets: Vec::new(),
        state_dir: None,
        clients: Clients::default(),
        naming,
        token_in_query: false,
        allowed_origins: Vec::new(),
        trusted_proxies: Vec::new(),
        tls: None,
        limits: RelayLimits::default(),
    }
}

impl Relay {
    /// Starts on `disk`.
    #[must_use]
    pub fn start(config: &RelayConfig, key: &Key, disk: &Disk, seed: u64, now: Now) -> Self {
        let settings = Arc::new(Settings::from_config(config, World::PUBLIC_URL));
        let keys = Keyring::configured(vec![key.clone()]);
        let records = disk.records.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let oauth = settings.oauth.clone();
        Self {
            gate: Gate::new(Arc::clone(&settings)),
            opened: Opened::default(),
            snapshot: Arc::new(Snapshot::new(keys.sealer())),
            grants: Grants::new(oauth, keys, records, Box::new(Seeded::new(seed ^ 1)), now),
            shard: relay::shard::Shard::new(settings, Box::new(Seeded::new(seed ^ 2))),
            entropy: Seeded::new(seed ^ 3),
            connections: BTreeMap::new(),
        }
    }
}

/// The relay's side of the world.
impl World {
    pub(crate) fn shard(&mut self, event: ShardEvent) {
        let now = self.now();
        if let Some(relay) = &mut self.relay {
            relay.shard.handle_event(event, now);
            self.drain_shard();
        }
    }

    pub(crate) fn drain_shard(&mut self) {
        let now = self.now();
        while let Some(action) = self.relay.as_mut().and_then(|relay| relay.shard.poll_action()) {
            match action {
                ShardAction::Reply { exchange, reply } => {
                    self.is_awaited(exchange);
                    self.reply(exchange, reply);
                }
                ShardAction::Begin { exchange, head, source } => {
                    self.is_awaited(exchange);
                    self.note("begin", [exchange.0, u64::from(head.status.as_u16())], &[]);
                    if let Some(it) = self.exchanges.get_mut(&exchange) {
                        assert_eq!(it.status, None, "one head for an exchange");
                        (it.status, it.headers, it.length, it.source) =
                            (Some(head.status), head.headers, head.length, source);
                    }
                }
                ShardAction::Body { exchange, bytes, credit } => {
                    self.is_awaited(exchange);
                    self.note("body", [exchange.0, u64::from(credit)], &bytes);
                    if let Some(it) = self.exchanges.get_mut(&exchange) {
                        assert!(it.status.is_some() && it.finished.is_none(), "a piece belongs to a started answer");
                        it.push(bytes, credit);
                        self.read(exchange);
                    }
                }
                ShardAction::Finish { exchange } => self.last_word(exchange, Outcome::Complete),
                ShardAction::Abort { exchange } => self.last_word(exchange, Outcome::Aborted),
                // No audit is kept.
                ShardAction::Audit(_) => {}
                ShardAction::Used { family } => self.grants(GrantsEvent::Used { family }),
                ShardAction::Tunnel { conn, command } => {
                    self.at_relay(conn, |connection| connection.handle_command(command, now));
                }
            }
        }
        self.rearm(Whose::Shard);
    }

    /// Once its client went away, nothing is said on an exchange.
    fn is_awaited(&self, exchange: ExchangeId) {
        assert!(!self.forgotten.contains(&exchange), "{exchange:?} is spoken to, and its client is gone");
    }

    pub(crate) fn grants(&mut self, event: GrantsEvent) {
        let now = self.now();
        if let Some(relay) = &mut self.relay {
            relay.grants.handle_event(event, now);
            self.drain_grants();
        }
    }

    pub(crate) fn drain_grants(&mut self) {
        while let Some(action) = self.relay.as_mut().and_then(|relay| relay.grants.poll_action()) {
            match action {
                GrantsAction::Reply { exchange, reply } => self.reply(exchange, reply),
                GrantsAction::Persist { job, changes } => self.persist(job, changes),
                GrantsAction::Publish(snapshot) => {
                    if let Some(relay) = &mut self.relay {
                        relay.snapshot = Arc::clone(&snapshot);
                    }
                }
                GrantsAction::RevokedAll | GrantsAction::Revoked { .. } | GrantsAction::SessionEnded { .. }
                    if self.sabotage == Some(Sabotage::Clinging) => {}
                GrantsAction::RevokedAll => self.shard(ShardEvent::RevokedAll),
                GrantsAction::Revoked { family } => self.shard(ShardEvent::Revoked { family }),
                GrantsAction::SessionEnded { user, session } => self.shard(ShardEvent::SessionEnded { user, session }),
                // No audit is kept.
                GrantsAction::Audit(_) => {}
                GrantsAction::AdminReply { job, json } => {
                    self.note("operator is answered", [job.0, 0], &json);
                    self.saw(|| Seen::Admin { job, answer: serde_json::from_slice(&json).expect("it is JSON") });
                    drop(self.admin.insert(job, json));
                }
                GrantsAction::Fetch { fetch, request } => self.fetch(fetch, &request),
                GrantsAction::Verify { .. } => panic!("nobody types a password here"),
                GrantsAction::KeepKeys { .. } => panic!("the world's key is configured"),
            }
        }
        self.rearm(Whose::Grants);
    }

    /// Drives the relay's end of a tunnel.
    pub(crate) fn at_relay(&mut self, conn: ConnId, input: impl FnOnce(&mut Connection)) {
        let Some(connection) = self.relay.as_mut().and_then(|relay| relay.connections.get_mut(&conn)) else { return };
        input(connection);
        while let Some(event) =
            self.relay.as_mut().and_then(|relay| relay.connections.get_mut(&conn)).and_then(Connection::poll_event)
        {
            if let tunnel::Event::Closed(close) = &event {
                self.closed(None, close);
            }
            let is_last = matches!(event, tunnel::Event::Closed(_));
            self.shard(ShardEvent::Tunnel { conn, event });
            if is_last {
                self.saw(|| Seen::TunnelDown { conn });
                self.grants(GrantsEvent::TunnelDown { conn });
            }
        }
        self.transmit(conn, Toward::Agent);
        self.rearm(Whose::RelayTunnel(conn));
    }

    /// An end of a tunnel was told of its end. Two honest ends never accuse each other of breaking the rules.
    pub(crate) fn closed(&mut self, agent: Option<crate::AgentKey>, close: &tunnel::Close) {
        self.note("closed", [u64::from(close.code.to_u16()), u64::from(agent.is_some())], close.reason.as_bytes());
        let is_accusation = matches!(close.code, CloseCode::Protocol | CloseCode::TooBig);
        assert!(!is_accusation, "honest peers never break the rules: {close:?}");
        self.trace.cover(match close.code {
            CloseCode::Normal => "closed: normal",
            CloseCode::GoingAway => "closed: going away",
            CloseCode::Protocol => "closed: protocol",
            CloseCode::TooBig => "closed: too big",
            CloseCode::Internal => "closed: internal",
            CloseCode::TimedOut => "closed: timed out",
            CloseCode::Revoked => "closed: revoked",
            CloseCode::Replaced => "closed: replaced",
            CloseCode::NameTaken => "closed: name taken",
            CloseCode::Refused => "closed: refused",
            CloseCode::Other(_) => "closed: broken",
        });
        let at = agent.map_or_else(|| self.now(), |agent| self.now_at(agent)).instant;
        let close = close.clone();
        self.saw(|| Seen::Closed { agent, at, close });
    }
}

/// Both ends of links.
impl World {
    /// Whether the end is there that things on the way `toward` arrive at.
    pub(crate) fn has_end(&self, conn: ConnId, toward: Toward) -> bool {
        match toward {
            Toward::Relay => self.relay.as_ref().is_some_and(|relay| relay.connections.contains_key(&conn)),
            Toward::Agent => self.links.get(&conn).is_some_and(|link| {
                let end = self.agents.get(&link.agent).and_then(|agent| agent.connection.as_ref());
                end.is_some_and(|end| end.conn == link.at_agent)
            }),
        }
    }

    /// The end that `toward` leads to is gone: whoever sends there is told.
    pub(crate) fn send_back(&mut self, conn: ConnId, toward: Toward) {
        self.send(conn, toward.other(), Parcel::Gone);
    }

    /// Forgets a link without ends.
    pub(crate) fn sweep(&mut self, conn: ConnId) {
        if !self.has_end(conn, Toward::Relay) && !self.has_end(conn, Toward::Agent) {
            self.links.remove(&conn);
        }
    }

    /// The sender toward `toward` writes while its socket takes it.
    pub(crate) fn transmit(&mut self, conn: ConnId, toward: Toward) {
        while let Some(link) = self.links.get_mut(&conn) {
            let (agent, at_agent) = (link.agent, link.at_agent);
            if !link.is_writable(toward) {
                self.trace.cover("a socket was full");
                break;
            }
            let now = match toward {
                Toward::Relay => self.now_at(agent),
                Toward::Agent => self.now(),
            };
            let Some(connection) = self.sender(conn, toward) else { break };
            let Some(message) = connection.poll_transmit(now) else {
                if connection.is_closed() {
                    self.flush(conn, toward);
                    self.drop_end(conn, toward);
                    self.send(conn, toward, Parcel::Gone);
                }
                break;
            };
            self.note("sends", [conn.0, toward as u64], message_bytes(&message));
            let link = self.links.get_mut(&conn).expect("it was there");
            match &mut link.framing {
                Some(framing) => {
                    let waiting = framing.write(toward, message);
                    if waiting >= crate::link::WINDOW / 4 {
                        self.flush(conn, toward);
                    }
                }
                None => self.send(conn, toward, Parcel::Message(message)),
            }
            if toward == Toward::Relay {
                self.rearm(Whose::AgentTunnel(agent, at_agent));
            }
        }
        self.flush(conn, toward);
        match toward {
            Toward::Agent => self.rearm(Whose::RelayTunnel(conn)),
            Toward::Relay => {
                let ends = self.links.get(&conn).map(|link| (link.agent, link.at_agent));
                ends.into_iter().for_each(|(agent, at_agent)| self.rearm(Whose::AgentTunnel(agent, at_agent)));
            }
        }
    }

    /// Bytes that were written go on their way.
    pub(crate) fn flush(&mut self, conn: ConnId, toward: Toward) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let Some(framing) = &mut link.framing else { return };
        for piece in framing.take(toward, &mut self.dice) {
            self.send(conn, toward, Parcel::Bytes(piece));
        }
    }

    fn sender(&mut self, conn: ConnId, toward: Toward) -> Option<&mut Connection> {
        match toward {
            Toward::Agent => self.relay.as_mut()?.connections.get_mut(&conn),
            Toward::Relay => {
                let link = self.links.get(&conn)?;
                self.agent_end(link.agent, link.at_agent)
            }
        }
    }

    fn drop_end(&mut self, conn: ConnId, toward: Toward) {
        match toward {
            Toward::Agent => {
                if let Some(relay) = &mut self.relay {
                    relay.connections.remove(&conn);
                }
            }
            Toward::Relay => {
                if let Some(link) = self.links.get(&conn)
                    && let Some(agent) = self.agents.get_mut(&link.agent)
                {
                    agent.connection = None;
                }
            }
        }
    }
}

fn message_bytes(message: &tunnel::Message) -> &[u8] {
    match message {
        tunnel::Message::Text(bytes) | tunnel::Message::Binary(bytes) => bytes,
        tunnel::Message::Ping(_) => b"ping",
        tunnel::Message::Pong(_) => b"pong",
        tunnel::Message::Close(close) => close.reason.as_bytes(),
    }
}
