//! A relay of the world: the real gate, grants, shard and connections; a map for a disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tunnel_core::config::{Clients, Local, LocalUser, Login, Naming, RelayConfig, RelayLimits};
use tunnel_core::entropy::Seeded;
use tunnel_core::host::Machine as _;
use tunnel_core::id::ConnId;
use tunnel_core::keyring::Keyring;
use tunnel_core::oauth::Snapshot;
use tunnel_core::oauth::grants::{Action as GrantsAction, Change, Event as GrantsEvent, Grants};
use tunnel_core::relay::gate::Gate;
use tunnel_core::relay::shard::{Action as ShardAction, Event as ShardEvent, Shard};
use tunnel_core::relay::{self, Settings};
use tunnel_core::seal::Key;
use tunnel_core::time::Now;
use tunnel_core::tunnel::connection::Connection;

use crate::client::Outcome;
use crate::link::{Toward, WINDOW, size};
use crate::world::{Delivery, World};

/// What a relay keeps through a restart.
#[derive(Debug, Default)]
pub struct Disk {
    /// The store.
    pub records: BTreeMap<String, Vec<u8>>,
}

/// A running relay.
pub struct Relay {
    pub(crate) gate: Gate,
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
                ShardAction::Reply { exchange, reply } => self.reply(exchange, reply),
                ShardAction::Begin { exchange, head, source } => {
                    if let Some(it) = self.exchanges.get_mut(&exchange) {
                        assert_eq!(it.status, None, "one head for an exchange");
                        (it.status, it.headers, it.length, it.source) =
                            (Some(head.status), head.headers, head.length, source);
                    }
                }
                ShardAction::Body { exchange, bytes, credit } => {
                    if let Some(it) = self.exchanges.get_mut(&exchange) {
                        assert!(it.status.is_some() && it.finished.is_none(), "a piece belongs to a started answer");
                        it.unread.push_back((bytes, credit));
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
                GrantsAction::Persist { job, changes } => {
                    for change in changes {
                        match change {
                            Change::Put { key, value } => drop(self.disk.records.insert(key, value)),
                            Change::Delete { key } => drop(self.disk.records.remove(&key)),
                        }
                    }
                    let done = GrantsEvent::Persisted { job, result: Ok(()) };
                    self.schedule(Duration::from_millis(1), Delivery::Grants(done));
                }
                GrantsAction::Publish(snapshot) => {
                    if let Some(relay) = &mut self.relay {
                        relay.snapshot = Arc::clone(&snapshot);
                    }
                }
                GrantsAction::RevokedAll => self.shard(ShardEvent::RevokedAll),
                GrantsAction::Revoked { family } => self.shard(ShardEvent::Revoked { family }),
                GrantsAction::SessionEnded { user, session } => self.shard(ShardEvent::SessionEnded { user, session }),
                // No audit is kept.
                GrantsAction::Audit(_) => {}
                GrantsAction::AdminReply { job, json } => drop(self.admin.insert(job, json)),
                GrantsAction::Fetch { .. } | GrantsAction::Verify { .. } => panic!("nobody signs in at a page here"),
                GrantsAction::KeepKeys { .. } => panic!("the world's key is configured"),
            }
        }
    }

    /// Drives the relay's end of a tunnel.
    pub(crate) fn at_relay(&mut self, conn: ConnId, input: impl FnOnce(&mut Connection)) {
        let Some(connection) = self.relay.as_mut().and_then(|relay| relay.connections.get_mut(&conn)) else { return };
        input(connection);
        while let Some(event) =
            self.relay.as_mut().and_then(|relay| relay.connections.get_mut(&conn)).and_then(Connection::poll_event)
        {
            self.shard(ShardEvent::Tunnel { conn, event });
        }
        self.transmit_relay(conn);
    }

    pub(crate) fn transmit_relay(&mut self, conn: ConnId) {
        let now = self.now();
        while let Some(link) = self.links.get_mut(&conn) {
            let Some(relay) = &mut self.relay else { return };
            let Some(connection) = relay.connections.get_mut(&conn) else { return };
            if link.under_way[Toward::Agent as usize] >= WINDOW {
                return;
            }
            let Some(message) = connection.poll_transmit(now) else {
                if connection.is_closed() {
                    relay.connections.remove(&conn);
                    self.schedule(self.latency, Delivery::Gone(conn, Toward::Agent));
                }
                return;
            };
            link.under_way[Toward::Agent as usize] += size(&message);
            let latency = link.latency;
            self.schedule(latency, Delivery::Message(conn, Toward::Agent, message));
        }
    }
}
