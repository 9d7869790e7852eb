//! An agent of the world: the real machine, scripts for its local servers.

use std::collections::BTreeMap;

use tunnel_core::agent::{Agent as Machine, Identity};
use tunnel_core::config::{AgentConfig, ServerConfig, Transport};
use tunnel_core::entropy::Seeded;
use tunnel_core::id::{ChildId, ConnId, DeviceId, DeviceName};
use tunnel_core::secret::Secret;
use tunnel_core::tunnel::connection::Connection;

use crate::script::Script;
use crate::world::World;

/// A running agent.
pub struct Agent {
    pub(crate) machine: Machine,
    /// Its tunnel, if one is connected.
    pub(crate) connection: Option<(ConnId, Connection)>,
    /// What its servers do, by name.
    pub scripts: BTreeMap<String, Script>,
    /// Its servers' processes that run.
    pub children: BTreeMap<ChildId, String>,
    /// How many processes it started in all, by server.
    pub spawned: BTreeMap<String, usize>,
    /// When it dialed, in microseconds.
    pub dials: Vec<u64>,
    /// Why it ended, if it did.
    pub exit: Option<tunnel_core::agent::machine::Exit>,
    /// What its configuration file says now.
    pub config: AgentConfig,
}

impl Agent {
    /// An agent called `device` with these servers; it waits for its start.
    #[must_use]
    pub fn new(device: &str, device_id: &str, token: &str, scripts: BTreeMap<String, Script>, seed: u64) -> Self {
        let config = config(scripts.keys().map(String::as_str));
        let identity = Identity {
            device: DeviceName::new(device),
            device_id: DeviceId::new(device_id),
            version: "2.0.0".to_owned(),
            os: "linux".to_owned(),
        };
        let entropy = Box::new(Seeded::new(seed));
        Self {
            machine: Machine::new(config.clone(), identity, Some(Secret::new(token)), entropy),
            connection: None,
            scripts,
            children: BTreeMap::new(),
            spawned: BTreeMap::new(),
            dials: Vec::new(),
            exit: None,
            config,
        }
    }
}

impl Agent {
    /// Whether it has no tunnel.
    #[must_use]
    pub fn connection_is_down(&self) -> bool {
        self.connection.is_none()
    }
}

/// A configuration with these servers.
pub fn config<'a>(servers: impl Iterator<Item = &'a str>) -> AgentConfig {
    let server = |name: &str| ServerConfig {
        transport: Transport::Stdio { command: vec![name.to_owned()], env: BTreeMap::new(), cwd: None },
        start_timeout_secs: 60,
    };
    AgentConfig {
        relay: World::PUBLIC_URL.to_owned(),
        name: None,
        servers: servers.map(|name| (name.to_owned(), server(name))).collect(),
        token: Some("env:TOKEN".to_owned()),
    }
}
