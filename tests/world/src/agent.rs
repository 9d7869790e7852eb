//! An agent of the world: the real machine, scripts for its local servers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use tunnel_core::agent::machine::{Action, DialError, Event, Exit, Unsaved};
use tunnel_core::agent::{Agent as Machine, Identity};
use tunnel_core::config::{AgentConfig, AgentPolicy, Life, ServerConfig, Transport};
use tunnel_core::entropy::Seeded;
use tunnel_core::host::Machine as _;
use tunnel_core::http::{Reply, RequestHead};
use tunnel_core::id::{ChildId, ConnId, DeviceId, DeviceName, JobId};
use tunnel_core::oauth::refusals::RefusedToken;
use tunnel_core::relay::gate::Admission;
use tunnel_core::relay::shard::Event as ShardEvent;
use tunnel_core::secret::Secret;
use tunnel_core::tunnel::connection::{Connection, Settings};
use tunnel_core::tunnel::{self, Hello, Side};

use crate::link::{Link, Toward, WINDOW, size};
use crate::script::{Say, Script, Start};
use crate::world::{AgentKey, Delivery, World};

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
    /// What it keeps of its servers on disk.
    pub kept: BTreeMap<String, Bytes>,
    /// What it keeps of clients' sessions on disk.
    pub wishes: Option<Bytes>,
    /// When it dialed, in microseconds.
    pub dials: Vec<u64>,
    /// Why it ended, if it did.
    pub exit: Option<Exit>,
    /// What its configuration file says now.
    pub config: AgentConfig,
    /// What it pinned, on its disk.
    pub pins: BTreeMap<String, Bytes>,
    /// The lines of its audit.
    pub audit: Vec<String>,
    /// What it answered on its control socket.
    pub answers: BTreeMap<JobId, Bytes>,
    identity: Identity,
    token: Secret,
}

impl Agent {
    /// An agent called `device` with these servers; it waits for its start.
    #[must_use]
    pub fn new(device: &str, device_id: &str, token: &str, scripts: BTreeMap<String, Script>, seed: u64) -> Self {
        Self::under(AgentPolicy::default(), device, device_id, token, scripts, seed)
    }

    /// The same, under a policy.
    #[must_use]
    pub fn under(
        policy: AgentPolicy,
        device: &str,
        device_id: &str,
        token: &str,
        scripts: BTreeMap<String, Script>,
        seed: u64,
    ) -> Self {
        let mut config = AgentConfig { policy, ..config(scripts.keys().map(String::as_str)) };
        for (name, server) in &mut config.servers {
            server.life.isolation = scripts[name].isolation;
        }
        let identity = Identity {
            device: DeviceName::new(device),
            device_id: DeviceId::new(device_id),
            version: "2.0.0".to_owned(),
            os: "linux".to_owned(),
        };
        let (entropy, token) = (Box::new(Seeded::new(seed)), Secret::new(token));
        Self {
            machine: Machine::new(config.clone(), identity.clone(), Some(token.clone()), entropy),
            connection: None,
            scripts,
            children: BTreeMap::new(),
            spawned: BTreeMap::new(),
            kept: BTreeMap::new(),
            wishes: None,
            dials: Vec::new(),
            exit: None,
            config,
            pins: BTreeMap::new(),
            audit: Vec::new(),
            answers: BTreeMap::new(),
            identity,
            token,
        }
    }

    /// Another process of the same agent: what it has on disk is there, what it had in memory is not.
    #[must_use]
    pub fn restarted(self, seed: u64) -> Self {
        let Self { config, mut scripts, kept, wishes, pins, identity, token, .. } = self;
        let machine = Machine::new(config.clone(), identity.clone(), Some(token.clone()), Box::new(Seeded::new(seed)));
        for script in scripts.values_mut() {
            script.forget_processes();
        }
        Self {
            machine,
            connection: None,
            scripts,
            children: BTreeMap::new(),
            spawned: BTreeMap::new(),
            kept,
            wishes,
            dials: Vec::new(),
            exit: None,
            config,
            pins,
            audit: Vec::new(),
            answers: BTreeMap::new(),
            identity,
            token,
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
        life: Life::default(),
    };
    AgentConfig {
        relay: World::PUBLIC_URL.to_owned(),
        name: None,
        servers: servers.map(|name| (name.to_owned(), server(name))).collect(),
        token: Some("env:TOKEN".to_owned()),
        ca_file: None,
        policy: Default::default(),
    }
}

/// The agents' side of the world.
impl World {
    pub(crate) fn drain_agent(&mut self, key: AgentKey) {
        let now = self.now();
        while let Some(action) = self.agents.get_mut(&key).and_then(|agent| agent.machine.poll_action()) {
            match action {
                Action::Dial { conn, url, headers, hello } => {
                    let clock = self.clock;
                    self.look(key).dials.push(clock);
                    self.schedule(self.latency * 2, Delivery::Dialed(key, conn, headers, url, hello));
                }
                Action::Tunnel { conn, command } => {
                    self.at_agent(key, conn, |connection| connection.handle_command(command, now));
                }
                Action::Spawn { child, spawn } => self.spawn(key, child, &spawn.server),
                Action::Write { child, bytes } => self.write(key, child, &bytes),
                Action::CloseStdin { child } | Action::Kill { child, .. } => {
                    if self.look(key).children.contains_key(&child) {
                        let exit = Say::Exit(Duration::ZERO, 0);
                        self.schedule(Duration::from_millis(1), Delivery::Say(key, child, exit));
                    }
                }
                Action::ReadConfig => {
                    let config = self.look(key).config.clone();
                    self.schedule(Duration::from_millis(1), Delivery::Agent(key, Event::ConfigRead(Ok(config))));
                }
                Action::Recall { server } => {
                    let catalog = self.look(key).kept.get(&server).cloned();
                    let recalled = Event::Recalled { server, catalog };
                    self.schedule(Duration::from_millis(1), Delivery::Agent(key, recalled));
                }
                Action::Keep { server, catalog } => drop(self.look(key).kept.insert(server, catalog)),
                Action::KeepWishes { json } => self.look(key).wishes = Some(json),
                Action::Exit(exit) => self.look(key).exit = Some(exit),
                Action::LoadPins { key: pins } => {
                    let content = self.look(key).pins.get(&pins).cloned();
                    let event = Event::PinsLoaded { key: pins, result: Ok(content) };
                    self.schedule(Duration::from_millis(1), Delivery::Agent(key, event));
                }
                Action::SavePins { key: pins, base, content } => {
                    let kept = &mut self.look(key).pins;
                    let result = if kept.get(&pins) == base.as_ref() {
                        kept.insert(pins.clone(), content);
                        Ok(())
                    } else {
                        Err(Unsaved::Changed(kept.get(&pins).cloned()))
                    };
                    let event = Event::PinsSaved { key: pins, result };
                    self.schedule(Duration::from_millis(1), Delivery::Agent(key, event));
                }
                Action::OpenAudit(_) => {}
                Action::Audit { line, .. } => {
                    self.look(key).audit.push(String::from_utf8(line.to_vec()).expect("a line is text"));
                }
                Action::ControlReply { job, json } => drop(self.look(key).answers.insert(job, json)),
                Action::Signin(_) | Action::Fetch { .. } | Action::AbortFetch { .. } => {
                    panic!("agents of the world hold minted tokens and run stdio servers")
                }
            }
        }
    }

    pub(crate) fn dialed(
        &mut self,
        key: AgentKey,
        at_agent: ConnId,
        mut headers: http::HeaderMap,
        url: &str,
        hello: Hello,
    ) {
        let now = self.now();
        let Some(relay) = &mut self.relay else {
            let error = DialError::Connect("connection refused".to_owned());
            return self.tell(key, Event::DialFailed { conn: at_agent, error });
        };
        let uri: http::Uri = url.parse().expect("an agent dials a URL");
        for (name, value) in [
            ("host", Self::AUTHORITY),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            headers.insert(name, http::HeaderValue::from_static(value));
        }
        let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let head = RequestHead {
            method: http::Method::GET,
            uri: target.parse().expect("its path too"),
            headers,
            peer: Ipv4Addr::LOCALHOST.into(),
        };
        let upgrade = match relay.gate.admit(&head, &relay.snapshot, now) {
            Admission::Upgrade(upgrade) => upgrade,
            Admission::Reply(Reply { status, headers, body, .. })
            | Admission::Refuse(RefusedToken { reply: Reply { status, headers, body, .. }, .. }) => {
                let text = |name| headers.get(name).and_then(|value| Some(value.to_str().ok()?.to_owned()));
                let (retry_after, challenge) = (text(RETRY_AFTER), text(WWW_AUTHENTICATE).unwrap_or_default());
                let message = String::from_utf8_lossy(&body).into_owned();
                let error = DialError::Status { status: status.as_u16(), retry_after, challenge, message };
                return self.tell(key, Event::DialFailed { conn: at_agent, error });
            }
            Admission::Read { .. } => panic!("an upgrade has no body"),
        };
        let dialect = upgrade.dialect;
        let features = vec![tunnel::ASKS_BESIDE.to_owned()];
        let ours = Hello { version: "2.0.0".to_owned(), features, ..hello.clone() };
        let relay_end = Connection::new(Settings { side: Side::Relay, dialect, hello: ours }, now);
        let agent_end = Connection::new(Settings { side: Side::Agent, dialect, hello }, now);
        let conn = ConnId(self.number());
        if let Some(relay) = &mut self.relay {
            relay.connections.insert(conn, relay_end);
        }
        let link =
            Link { agent: key, at_agent, at_relay: conn, latency: self.latency, under_way: [0; 2], silent: false };
        self.links.insert(conn, link);
        self.look(key).connection = Some((at_agent, agent_end));
        self.shard(ShardEvent::TunnelUp {
            conn,
            user: upgrade.user,
            device: upgrade.device,
            device_id: upgrade.device_id,
            family: upgrade.family,
            expires: upgrade.expires,
            dialect,
            audit: upgrade.audit,
        });
        self.at_relay(conn, |_| ());
        self.tell(key, Event::Dialed { conn: at_agent, dialect });
        self.at_agent(key, at_agent, |_| ());
    }

    /// Drives an agent's end of a tunnel.
    pub(crate) fn at_agent(&mut self, key: AgentKey, conn: ConnId, input: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.agent_end(key, conn) {
            input(connection);
        }
        while let Some(event) = self.agent_end(key, conn).and_then(Connection::poll_event) {
            self.tell(key, Event::Tunnel { conn, event });
        }
        self.transmit_agent(key, conn);
    }

    pub(crate) fn agent_end(&mut self, key: AgentKey, conn: ConnId) -> Option<&mut Connection> {
        let (own, connection) = self.agents.get_mut(&key)?.connection.as_mut()?;
        (*own == conn).then_some(connection)
    }

    pub(crate) fn transmit_agent(&mut self, key: AgentKey, at_agent: ConnId) {
        let now = self.now();
        let found = self.links.iter().find(|(_, link)| link.agent == key && link.at_agent == at_agent);
        let Some(conn) = found.map(|(conn, _)| *conn) else { return };
        while self.links[&conn].under_way[Toward::Relay as usize] < WINDOW {
            let Some(connection) = self.agent_end(key, at_agent) else { return };
            let Some(message) = connection.poll_transmit(now) else {
                if connection.is_closed() {
                    self.look(key).connection = None;
                    self.schedule(self.latency, Delivery::Gone(conn, Toward::Relay));
                }
                return;
            };
            let latency = self.latency;
            if let Some(link) = self.links.get_mut(&conn) {
                link.under_way[Toward::Relay as usize] += size(&message);
            }
            self.schedule(latency, Delivery::Message(conn, Toward::Relay, message));
        }
    }
}

/// Local servers of the world.
impl World {
    pub(crate) fn spawn(&mut self, key: AgentKey, child: ChildId, server: &str) {
        let agent = self.look(key);
        *agent.spawned.entry(server.to_owned()).or_default() += 1;
        let script = agent.scripts.entry(server.to_owned()).or_default();
        if script.start == Start::Missing {
            let error = "No such file or directory".to_owned();
            return self.schedule(Duration::ZERO, Delivery::Agent(key, Event::SpawnFailed { child, error }));
        }
        let says = script.started();
        agent.children.insert(child, server.to_owned());
        let pid = 1000 + u32::try_from(child.0).expect("a test starts few processes");
        self.schedule(Duration::ZERO, Delivery::Agent(key, Event::Spawned { child, pid }));
        self.schedule_says(key, child, says);
    }

    pub(crate) fn write(&mut self, key: AgentKey, child: ChildId, bytes: &[u8]) {
        let agent = self.look(key);
        let Some(server) = agent.children.get(&child).cloned() else { return };
        let script = agent.scripts.entry(server).or_default();
        let says: Vec<_> = bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .flat_map(|line| script.hear(child, line))
            .collect();
        let wrote = Event::Wrote { child, bytes: bytes.len() };
        self.schedule(Duration::from_micros(50), Delivery::Agent(key, wrote));
        self.schedule_says(key, child, says);
    }

    pub(crate) fn schedule_says(&mut self, key: AgentKey, child: ChildId, says: Vec<Say>) {
        for say in says {
            let (Say::Line(after, _) | Say::TooLong(after, _, _) | Say::Exit(after, _)) = say;
            self.schedule(after + Duration::from_micros(100), Delivery::Say(key, child, say));
        }
    }

    pub(crate) fn say(&mut self, key: AgentKey, child: ChildId, say: Say) {
        if !self.agents.get(&key).is_some_and(|agent| agent.children.contains_key(&child)) {
            return;
        }
        match say {
            Say::Line(_, line) => self.tell(key, Event::Line { child, line }),
            Say::TooLong(_, prefix, length) => {
                self.tell(key, Event::LineTooLong { child, prefix, suffix: Bytes::from_static(b"\"}]}}"), length });
            }
            Say::Exit(_, code) => self.child_exits(key, child, Some(code), None),
        }
    }

    pub(crate) fn child_exits(&mut self, key: AgentKey, child: ChildId, code: Option<i32>, signal: Option<i32>) {
        self.look(key).children.remove(&child);
        let stderr = "cannot open the display".to_owned();
        self.tell(key, Event::OutputEnded { child });
        self.tell(key, Event::Exited { child, code, signal, stderr });
    }
}
