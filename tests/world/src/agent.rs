//! An agent of the world: the real machine, scripts for its local servers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use tunnel_core::agent::machine::{Action, DialError, Event, Exit};
use tunnel_core::agent::{Agent as Machine, Identity};
use tunnel_core::config::{AgentConfig, AgentPolicy, Life, ServerConfig, Transport};
use tunnel_core::entropy::Seeded;
use tunnel_core::host::Machine as _;
use tunnel_core::http::{Reply, RequestHead};
use tunnel_core::id::{ChildId, ConnId, DeviceId, DeviceName, JobId};
use tunnel_core::limits;
use tunnel_core::oauth::grants::Event as GrantsEvent;
use tunnel_core::oauth::refusals::RefusedToken;
use tunnel_core::relay::gate::Admission;
use tunnel_core::relay::shard::Event as ShardEvent;
use tunnel_core::rpc;
use tunnel_core::secret::Secret;
use tunnel_core::tunnel::connection::{Connection, Settings};
use tunnel_core::tunnel::{self, Dialect, Hello, Side};

use crate::alarms::Whose;
use crate::clock::NodeClock;
use crate::disk::Health;
use crate::framing::Framing;
use crate::link::{Link, Toward};
use crate::sabotage::Sabotage;
use crate::script::{Pace, Say, Script, Start};
use crate::seen::Seen;
use crate::shelf::Kept;
use crate::site::{Sites, is_session};
use crate::world::{AgentKey, Delivery, World};

/// A running agent.
pub struct Agent {
    pub(crate) machine: Machine,
    /// Its tunnel, if one is connected.
    pub(crate) connection: Option<End>,
    /// Its clocks.
    pub clock: NodeClock,
    /// An old one, which speaks dialect V1.
    pub is_old: bool,
    /// What servers that do not read have been sent.
    pub(crate) unread: Vec<(ChildId, Bytes)>,
    /// Its servers over HTTP.
    pub(crate) sites: Sites,
    /// How its disk is; a broken one neither keeps nor gives anything.
    pub disk: Health,
    /// What was asked of its disk is done by then.
    pub(crate) disk_until: u64,
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
    /// What it wanted to keep of these last could not be written: it is on the disk with the next change.
    pub lacks_wishes: bool,
    /// When it dialed, in microseconds.
    pub dials: Vec<u64>,
    /// Why it ended, if it did.
    pub exit: Option<Exit>,
    /// Who it is.
    identity: Identity,
    token: Secret,
    /// What its configuration file says now.
    pub config: AgentConfig,
    /// What it pinned, on its disk.
    pub pins: BTreeMap<String, Bytes>,
    /// The lines of its audit.
    pub audit: Vec<String>,
    /// What it answered on its control socket.
    pub answers: BTreeMap<JobId, Bytes>,
}

/// An agent's end of its tunnel.
pub(crate) struct End {
    /// Its number here.
    pub(crate) conn: ConnId,
    /// The link's.
    pub(crate) link: ConnId,
    pub(crate) connection: Connection,
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
        Self::configured(config, device, device_id, token, scripts, seed)
    }

    /// The same, with this configuration.
    #[must_use]
    pub fn configured(
        config: AgentConfig,
        device: &str,
        device_id: &str,
        token: &str,
        scripts: BTreeMap<String, Script>,
        seed: u64,
    ) -> Self {
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
            clock: NodeClock::default(),
            is_old: false,
            unread: Vec::new(),
            sites: Sites::default(),
            disk: Health::Good,
            disk_until: 0,
            scripts,
            children: BTreeMap::new(),
            spawned: BTreeMap::new(),
            kept: BTreeMap::new(),
            wishes: None,
            lacks_wishes: false,
            dials: Vec::new(),
            exit: None,
            identity,
            token,
            config,
            pins: BTreeMap::new(),
            audit: Vec::new(),
            answers: BTreeMap::new(),
        }
    }
}

impl Agent {
    /// Another process of the same agent: what it has on disk is there, what it had in memory is not.
    #[must_use]
    pub fn restarted(self, seed: u64) -> Self {
        let token = self.token.expose().to_owned();
        let fresh = self.reborn(&token, seed, false);
        Self { spawned: BTreeMap::new(), ..fresh }
    }

    /// The next process of the same device, started on what the last one left on its disk: nothing, if that is lost.
    #[must_use]
    pub fn reborn(self, token: &str, seed: u64, lose: bool) -> Self {
        let Self { mut scripts, kept, wishes, pins, identity, config, spawned, clock, is_old, .. } = self;
        for script in scripts.values_mut() {
            script.forget_processes();
        }
        let (entropy, token) = (Box::new(Seeded::new(seed)), Secret::new(token));
        Self {
            machine: Machine::new(config.clone(), identity.clone(), Some(token.clone()), entropy),
            connection: None,
            clock,
            is_old,
            unread: Vec::new(),
            sites: Sites::default(),
            disk: Health::Good,
            disk_until: 0,
            scripts,
            children: BTreeMap::new(),
            spawned,
            kept: if lose { BTreeMap::new() } else { kept },
            wishes: wishes.filter(|_| !lose),
            lacks_wishes: false,
            dials: Vec::new(),
            exit: None,
            identity,
            token,
            config,
            pins: if lose { BTreeMap::new() } else { pins },
            audit: Vec::new(),
            answers: BTreeMap::new(),
        }
    }

    /// What it dials with.
    pub(crate) fn token(&self) -> &str {
        self.token.expose()
    }

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
        let now = self.now_at(key);
        while let Some(action) = self.agents.get_mut(&key).and_then(|agent| agent.machine.poll_action()) {
            match action {
                Action::Dial { conn, url, headers, hello } => {
                    let clock = self.clock;
                    self.look(key).dials.push(clock);
                    self.note("dials", [key.0 as u64, conn.0], &[]);
                    self.saw(|| Seen::Dials { agent: key, at: now.instant });
                    let round_trip = self.net(key).latency * 2;
                    self.schedule(round_trip, Delivery::Dialed(key, conn, headers, url, hello));
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
                    let agent = self.look(key);
                    let failed = (agent.disk == Health::Broken).then(|| Err("input/output error".to_owned()));
                    let read = failed.unwrap_or_else(|| Ok(agent.config.clone()));
                    self.was_read(key, Event::ConfigRead(read));
                }
                Action::Recall { server } => {
                    let catalog = self.look(key).kept.get(&server).cloned();
                    self.was_read(key, Event::Recalled { server, catalog });
                }
                Action::Keep { server, catalog } => self.keeps(key, Kept::Catalog { server, catalog }),
                Action::KeepWishes { json } => self.keeps(key, Kept::Wishes(json)),
                Action::Exit(exit) => {
                    self.note("agent is done", [key.0 as u64, 0], format!("{exit:?}").as_bytes());
                    self.saw(|| Seen::Exit { agent: key, exit: exit.clone() });
                    self.look(key).exit = Some(exit);
                }
                Action::LoadPins { key: pins } => {
                    let agent = self.look(key);
                    let failed = (agent.disk == Health::Broken).then(|| Err("input/output error".to_owned()));
                    let result = failed.unwrap_or_else(|| Ok(agent.pins.get(&pins).cloned()));
                    self.was_read(key, Event::PinsLoaded { key: pins, result });
                }
                Action::SavePins { key: pins, base, content } => {
                    self.keeps(key, Kept::Pins { key: pins, base, content });
                }
                Action::OpenAudit(_) => {}
                Action::Audit { line, .. } => {
                    self.look(key).audit.push(String::from_utf8(line.to_vec()).expect("a line is text"));
                }
                Action::ControlReply { job, json } => drop(self.look(key).answers.insert(job, json)),
                Action::Fetch { fetch, request } => {
                    self.saw(|| Seen::Sent { bytes: request.body.clone() });
                    self.schedule(request.timeout, Delivery::HeadIsDue(key, fetch));
                    self.schedule(Duration::from_millis(1), Delivery::Asked(key, fetch, Box::new(request)));
                }
                Action::AbortFetch { fetch } => self.fetch_aborted(key, fetch),
                Action::Signin(_) => panic!("agents of the world hold minted tokens"),
            }
        }
        self.rearm(Whose::Agent(key));
    }

    pub(crate) fn dial_failed(&mut self, key: AgentKey, conn: ConnId, error: DialError) {
        if !self.lives(key) {
            return;
        }
        self.trace.cover(match &error {
            DialError::Connect(_) => "dial: refused connection",
            DialError::TimedOut => "dial: no answer",
            DialError::Status { status: 401, .. } => "dial: 401",
            DialError::Status { status: 403, .. } => "dial: 403",
            DialError::Status { .. } => "dial: another status",
        });
        let at = self.now_at(key).instant;
        self.saw(|| Seen::DialFailed { agent: key, at, error: error.clone() });
        self.tell(key, Event::DialFailed { conn, error });
    }

    pub(crate) fn dialed(
        &mut self,
        key: AgentKey,
        at_agent: ConnId,
        mut headers: http::HeaderMap,
        url: &str,
        hello: Hello,
    ) {
        if !self.agents.contains_key(&key) {
            return;
        }
        let now = self.now();
        if self.net(key).blocked != [false; 2] {
            return self.schedule(limits::DIAL_TIMEOUT, Delivery::NoAnswer(key, at_agent));
        }
        let Some(relay) = &mut self.relay else {
            return self.dial_failed(key, at_agent, DialError::Connect("connection refused".to_owned()));
        };
        if self.agents.get(&key).is_some_and(|agent| agent.is_old) {
            // Neither the header nor an identity: a relay takes it for one of the predecessor's.
            ["mcp-tunnel", "mcp-tunnel-device"].into_iter().for_each(|name| drop(headers.remove(name)));
        }
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
        let upgrade = match relay.gate.admit(&head, &relay.snapshot, now, &mut relay.opened) {
            Admission::Upgrade(upgrade) => upgrade,
            Admission::Reply(Reply { status, headers, body, .. })
            | Admission::Refuse(RefusedToken { reply: Reply { status, headers, body, .. }, .. }) => {
                let text = |name| headers.get(name).and_then(|value| Some(value.to_str().ok()?.to_owned()));
                let (retry_after, challenge) = (text(RETRY_AFTER), text(WWW_AUTHENTICATE).unwrap_or_default());
                let message = String::from_utf8_lossy(&body).into_owned();
                let error = DialError::Status { status: status.as_u16(), retry_after, challenge, message };
                return self.dial_failed(key, at_agent, error);
            }
            Admission::Read { .. } => panic!("an upgrade has no body"),
        };
        let dialect = upgrade.dialect;
        let features = vec![tunnel::ASKS_BESIDE.to_owned(), tunnel::HANDS_ON.to_owned()];
        let ours = Hello { version: "2.0.0".to_owned(), features, ..hello.clone() };
        let at = self.now_at(key);
        let relay_end = Connection::new(Settings { side: Side::Relay, dialect, hello: ours }, now);
        let connection = Connection::new(Settings { side: Side::Agent, dialect, hello }, at);
        let conn = ConnId(self.number());
        if let Some(relay) = &mut self.relay {
            relay.connections.insert(conn, relay_end);
        }
        let framing = self.framing.then(|| Box::new(Framing::new(dialect)));
        self.links.insert(conn, Link::new(key, at_agent, conn, framing));
        self.look(key).connection = Some(End { conn: at_agent, link: conn, connection });
        self.note("tunnel", [key.0 as u64, conn.0], format!("{dialect:?}").as_bytes());
        self.trace.cover(if dialect == Dialect::V1 { "a tunnel of V1" } else { "a tunnel of V2" });
        let token = self.look(key).token().to_owned();
        self.saw(|| Seen::TunnelUp { agent: key, conn, token });
        let (family, device) = (upgrade.family.clone(), upgrade.device.clone());
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
        self.grants(GrantsEvent::TunnelUp { conn, family, device });
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
            if let tunnel::Event::Closed(close) = &event {
                self.closed(Some(key), close);
            }
            self.saw_calls(key, conn, &event);
            let is_given_up = matches!(event, tunnel::Event::Reset { .. } | tunnel::Event::Cancelled { .. });
            if is_given_up && self.sabotage == Some(Sabotage::Deaf) {
                continue;
            }
            self.tell(key, Event::Tunnel { conn, event });
        }
        let end = self.agents.get(&key).and_then(|agent| agent.connection.as_ref());
        let link = end.filter(|end| end.conn == conn).map(|end| end.link);
        link.into_iter().for_each(|link| self.transmit(link, Toward::Relay));
        self.rearm(Whose::AgentTunnel(key, conn));
    }

    pub(crate) fn agent_end(&mut self, key: AgentKey, conn: ConnId) -> Option<&mut Connection> {
        let end = self.agents.get_mut(&key)?.connection.as_mut()?;
        (end.conn == conn).then_some(&mut end.connection)
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
        self.note("a server starts", [key.0 as u64, child.0], server.as_bytes());
        self.saw(|| Seen::Child { agent: key, child, began: true });
        let pid = 1000 + u32::try_from(child.0).expect("a test starts few processes");
        self.schedule(Duration::ZERO, Delivery::Agent(key, Event::Spawned { child, pid }));
        self.schedule_says(key, child, says);
    }

    pub(crate) fn write(&mut self, key: AgentKey, child: ChildId, bytes: &[u8]) {
        self.note("to a server", [key.0 as u64, child.0], bytes);
        self.saw(|| Seen::Sent { bytes: Bytes::copy_from_slice(bytes) });
        let agent = self.look(key);
        let Some(server) = agent.children.get(&child).cloned() else { return };
        let script = agent.scripts.entry(server).or_default();
        if script.pace != Pace::Lively {
            if script.pace == Pace::Stalls {
                let wrote = Event::Wrote { child, bytes: bytes.len() };
                self.schedule(Duration::from_micros(50), Delivery::Agent(key, wrote));
            }
            return self.look(key).unread.push((child, Bytes::copy_from_slice(bytes)));
        }
        self.read_by(key, child, bytes, true);
    }

    /// A server reads what was written to it; the agent hears that there is room again, unless it has.
    fn read_by(&mut self, key: AgentKey, child: ChildId, bytes: &[u8], is_news: bool) {
        let agent = self.look(key);
        let Some(server) = agent.children.get(&child).cloned() else { return };
        let sabotage = self.sabotage;
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let lines = lines.flat_map(|line| sabotage.map_or_else(|| vec![line], |lie| lie.written(line)));
        let agent = self.look(key);
        let script = agent.scripts.entry(server.clone()).or_default();
        let says: Vec<_> = lines.clone().flat_map(|line| script.hear(child, line)).collect();
        if self.seen.is_some() {
            for line in lines {
                let message = serde_json::from_slice(line).expect("an agent writes JSON lines");
                self.saw(|| Seen::Heard { agent: key, server: server.clone(), child, message });
            }
        }
        if is_news {
            let wrote = Event::Wrote { child, bytes: bytes.len() };
            self.schedule(Duration::from_micros(50), Delivery::Agent(key, wrote));
        }
        self.schedule_says(key, child, says);
    }

    /// A process of a server, or a session, prints something by itself.
    pub(crate) fn prints(&mut self, key: AgentKey, child: ChildId, line: Bytes) {
        if is_session(child) {
            return self.site_prints(key, child, None, line);
        }
        self.tell(key, Event::Line { child, line });
    }

    /// How a server gets on with its work from now on.
    pub fn set_pace(&mut self, key: AgentKey, server: &str, pace: Pace) {
        let agent = self.look(key);
        let Some(script) = agent.scripts.get_mut(server) else { return };
        let said_so = std::mem::replace(&mut script.pace, pace) == Pace::Stalls;
        if pace != Pace::Lively {
            return;
        }
        let children = &agent.children;
        let of_it = |child: &ChildId| children.get(child).is_none_or(|name| name == server);
        let (due, rest) = std::mem::take(&mut agent.unread).into_iter().partition(|(child, _)| of_it(child));
        agent.unread = rest;
        let due: Vec<(ChildId, Bytes)> = due;
        for (child, bytes) in due {
            self.read_by(key, child, &bytes, !said_so);
        }
        let requests = std::mem::take(&mut self.look(key).sites.unread);
        for (fetch, request) in requests {
            self.fetched_at(key, fetch, request);
        }
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
            Say::Line(_, line) => {
                self.note("a server says", [key.0 as u64, child.0], &line);
                self.saw_answer(key, child, &line);
                let lines = self.sabotage.map_or_else(|| vec![line.clone()], |lie| lie.said(line.clone()));
                for line in lines {
                    self.tell(key, Event::Line { child, line });
                }
            }
            Say::TooLong(_, prefix, length) => {
                self.tell(key, Event::LineTooLong { child, prefix, suffix: Bytes::from_static(b"\"}]}}"), length });
            }
            Say::Exit(_, code) => self.child_exits(key, child, Some(code), None),
        }
    }

    /// Whether a line is the answer to a request.
    pub(crate) fn saw_answer(&mut self, key: AgentKey, child: ChildId, line: &Bytes) {
        if self.seen.is_some()
            && let Ok(rpc::Message::Response { id: Some(id), .. }) = rpc::parse(line)
        {
            let id = String::from_utf8_lossy(id.as_bytes()).into_owned();
            self.saw(|| Seen::Answers { agent: key, child, id });
        }
    }

    pub(crate) fn child_exits(&mut self, key: AgentKey, child: ChildId, code: Option<i32>, signal: Option<i32>) {
        if is_session(child) {
            return self.site_dies(key, child);
        }
        if self.look(key).children.remove(&child).is_none() {
            return;
        }
        self.note("a server ends", [key.0 as u64, child.0], &[]);
        self.saw(|| Seen::Child { agent: key, child, began: false });
        if self.sabotage == Some(Sabotage::Undead) {
            return;
        }
        let stderr = "cannot open the display".to_owned();
        self.tell(key, Event::OutputEnded { child });
        self.tell(key, Event::Exited { child, code, signal, stderr });
    }
}
