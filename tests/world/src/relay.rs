//! A relay of the world: the real gate, grants, shard and connections; a map for a disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use tunnel_core::config::{Local, LocalUser, Login, Naming, RelayConfig};
use tunnel_core::entropy::Seeded;
use tunnel_core::id::ConnId;
use tunnel_core::oauth::grants::Grants;
use tunnel_core::oauth::{self, Snapshot};
use tunnel_core::relay::gate::Gate;
use tunnel_core::relay::shard::Shard;
use tunnel_core::relay::{self, Settings};
use tunnel_core::seal::{Key, Sealer};
use tunnel_core::time::Now;
use tunnel_core::tunnel::connection::Connection;

use crate::world::World;

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
        login: Login::Local(Local { users: vec![user(USER), user("eve")] }),
        host: "127.0.0.1".to_owned(),
        port: 3000,
        public_url: Some(World::PUBLIC_URL.to_owned()),
        secret: None,
        state_dir: None,
        naming,
        token_in_query: false,
        allowed_origins: Vec::new(),
        trusted_proxies: Vec::new(),
        max_body: tunnel_core::limits::MAX_BODY,
        call_idle_secs: tunnel_core::limits::CALL_IDLE.as_secs(),
    }
}

impl Relay {
    /// Starts on `disk`.
    #[must_use]
    pub fn start(config: &RelayConfig, key: &Key, disk: &Disk, seed: u64, now: Now) -> Self {
        let settings = Arc::new(Settings::from_config(config, World::PUBLIC_URL));
        let sealer = Sealer::new(vec![key.clone()]);
        let records = disk.records.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let oauth = oauth::Settings { public_url: World::PUBLIC_URL.to_owned(), login: config.login.clone() };
        Self {
            gate: Gate::new(Arc::clone(&settings), sealer.clone()),
            grants: Grants::new(oauth, sealer, records, Box::new(Seeded::new(seed ^ 1)), now),
            shard: relay::shard::Shard::new(settings, Box::new(Seeded::new(seed ^ 2))),
            snapshot: Arc::default(),
            entropy: Seeded::new(seed ^ 3),
            connections: BTreeMap::new(),
        }
    }
}
