//! The world itself: its clock, its queue of what will happen, and the drivers of its machines.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use tunnel_core::agent::machine::{Action as AgentAction, DialError, Event as AgentEvent};
use tunnel_core::config::{Naming, RelayConfig};
use tunnel_core::entropy::Seeded;
use tunnel_core::host::Machine;
use tunnel_core::http::{Reply, RequestHead};
use tunnel_core::id::{ChildId, ConnId, ExchangeId, JobId, StreamId};
use tunnel_core::oauth::Role;
use tunnel_core::oauth::grants::{Action as GrantsAction, AdminCommand, Change, Event as GrantsEvent};
use tunnel_core::relay::gate::{Admission, Step};
use tunnel_core::relay::shard::{Action as ShardAction, Event as ShardEvent};
use tunnel_core::seal::{Key, Sealer};
use tunnel_core::time::{Deadline, Instant, Now, UnixTime};
use tunnel_core::tunnel::connection::{Connection, Settings as TunnelSettings};
use tunnel_core::tunnel::{self, Dialect, Hello, Message, Side};

use crate::agent::Agent;
use crate::client::{Exchange, Outcome};
use crate::link::{Link, Toward, WINDOW, size};
use crate::relay::{Disk, Relay, config};
use crate::script::{Say, Script, Start};

/// Which agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentKey(pub usize);

/// The world. See the crate's documentation.
pub struct World {
    clock: u64,
    /// How far the wall clock runs ahead of the monotonic one, in milliseconds: a suspend adds to it.
    wall_ahead: u64,
    queue: BTreeMap<(u64, u64), Delivery>,
    sequence: u64,
    seed: u64,
    /// One way between relay and agents.
    pub latency: Duration,
    config: RelayConfig,
    key: Key,
    disk: Disk,
    relay: Option<Relay>,
    agents: BTreeMap<AgentKey, Agent>,
    links: BTreeMap<ConnId, Link>,
    exchanges: BTreeMap<ExchangeId, Exchange>,
    admin: BTreeMap<JobId, Bytes>,
    numbers: u64,
    /// How many steps the world has taken; a machine that spins would show here.
    pub steps: u64,
}

/// Something that will happen. Links go by their number at the relay.
enum Delivery {
    Message(ConnId, Toward, Message),
    Gone(ConnId, Toward),
    Dialed(AgentKey, ConnId, http::HeaderMap, String, Hello),
    Say(AgentKey, ChildId, Say),
    Agent(AgentKey, AgentEvent),
    Grants(GrantsEvent),
}

impl World {
    /// The relay's public URL.
    pub const PUBLIC_URL: &'static str = "https://relay.example";
    /// The `Host` of every request.
    pub const AUTHORITY: &'static str = "relay.example";

    /// A world with a running relay and nobody else.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_naming(seed, Naming::Auto)
    }

    /// The same, with another rule for names.
    #[must_use]
    pub fn with_naming(seed: u64, naming: Naming) -> Self {
        let mut world = Self {
            clock: 0,
            wall_ahead: 1_790_000_000_000,
            queue: BTreeMap::new(),
            sequence: 0,
            seed,
            latency: Duration::from_millis(10),
            config: config(naming),
            key: Sealer::generate(&mut Seeded::new(seed)),
            disk: Disk::default(),
            relay: None,
            agents: BTreeMap::new(),
            links: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            admin: BTreeMap::new(),
            numbers: 0,
            steps: 0,
        };
        world.start_relay();
        world
    }

    // What scenarios do.

    /// Starts the relay on what its disk holds.
    pub fn start_relay(&mut self) {
        let seed = self.seed.wrapping_mul(31).wrapping_add(self.clock);
        self.relay = Some(Relay::start(&self.config, &self.key, &self.disk, seed, self.now()));
        self.drain_grants();
    }

    /// Kills the relay: its memory is gone, its sockets break.
    pub fn kill_relay(&mut self) {
        self.relay = None;
        for exchange in self.exchanges.values_mut().filter(|exchange| exchange.outcome.is_none()) {
            exchange.outcome = Some(Outcome::Aborted);
            exchange.ended_at = self.clock;
        }
        for conn in self.links.keys().copied().collect::<Vec<_>>() {
            self.schedule(self.latency, Delivery::Gone(conn, Toward::Agent));
        }
    }

    /// Mints a token for `user` at the running relay.
    ///
    /// # Panics
    ///
    /// When the relay refuses.
    pub fn mint(&mut self, user: &str, role: Role) -> String {
        let command = AdminCommand::TokenCreate {
            user: user.to_owned(),
            role,
            label: "world".to_owned(),
            lifetime_secs: 86_400 * 30,
        };
        let answer = self.admin(command);
        answer["token"].as_str().unwrap_or_else(|| panic!("a token: {answer}")).to_owned()
    }

    /// Asks the relay as its operator does.
    ///
    /// # Panics
    ///
    /// When no answer comes.
    pub fn admin(&mut self, command: AdminCommand) -> Value {
        let job = JobId(self.number());
        self.grants(GrantsEvent::Admin { job, command });
        self.run_until("the operator's answer", |world| world.admin.contains_key(&job));
        serde_json::from_slice(&self.admin[&job]).expect("the operator's answer is JSON")
    }

    /// Adds an agent with these servers and starts it.
    pub fn agent<const N: usize>(&mut self, device: &str, token: &str, servers: [(&str, Script); N]) -> AgentKey {
        let device_id = format!("id-of-{device}");
        self.agent_with_id(device, &device_id, token, servers)
    }

    /// The same, saying who it is.
    pub fn agent_with_id<const N: usize>(
        &mut self,
        device: &str,
        device_id: &str,
        token: &str,
        servers: [(&str, Script); N],
    ) -> AgentKey {
        let key = AgentKey(self.agents.len());
        let scripts = servers.into_iter().map(|(name, script)| (name.to_owned(), script)).collect();
        let seed = self.seed ^ (0x1000 + key.0 as u64);
        self.agents.insert(key, Agent::new(device, device_id, token, scripts, seed));
        self.tell(key, AgentEvent::Start { interactive: false });
        key
    }

    /// An agent, to look at and to change what its servers do.
    ///
    /// # Panics
    ///
    /// When it was killed.
    pub fn look(&mut self, agent: AgentKey) -> &mut Agent {
        self.agents.get_mut(&agent).expect("the agent lives")
    }

    /// Kills an agent: its sockets break, its servers die with it.
    pub fn kill_agent(&mut self, agent: AgentKey) {
        self.agents.remove(&agent);
        let links: Vec<_> = self.links.values().filter(|link| link.agent == agent).map(|link| link.at_relay).collect();
        for conn in links {
            self.schedule(self.latency, Delivery::Gone(conn, Toward::Relay));
        }
    }

    /// Makes every tunnel of an agent half open: what is sent vanishes, and nobody is told.
    pub fn silence(&mut self, agent: AgentKey) {
        for link in self.links.values_mut().filter(|link| link.agent == agent) {
            link.silent = true;
        }
    }

    /// Brings an agent an event from outside.
    pub fn tell(&mut self, agent: AgentKey, event: AgentEvent) {
        let now = self.now();
        if let Some(node) = self.agents.get_mut(&agent) {
            node.machine.handle_event(event, now);
            self.drain_agent(agent);
        }
    }

    /// One of an agent's servers says something by itself.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn server_says(&mut self, agent: AgentKey, server: &str, message: &Value) {
        let (child, _) = self.look(agent).children.iter().find(|(_, name)| *name == server).expect("the server runs");
        let (child, line) = (*child, Bytes::from(message.to_string()));
        self.tell(agent, AgentEvent::Line { child, line });
    }

    /// One of an agent's servers dies.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn server_dies(&mut self, agent: AgentKey, server: &str) {
        let (child, _) = self.look(agent).children.iter().find(|(_, name)| *name == server).expect("the server runs");
        let child = *child;
        self.child_exits(agent, child, None, Some(9));
    }

    /// Suspends every machine of the world but the wall clock.
    pub fn suspend(&mut self, span: Duration) {
        self.wall_ahead += u64::try_from(span.as_millis()).expect("a test's span fits");
    }

    /// Makes a request; the exchange goes on while the world does.
    pub fn request(&mut self, head: RequestHead, body: Bytes) -> ExchangeId {
        let exchange = ExchangeId(self.number());
        self.exchanges.insert(exchange, Exchange { reading: true, ..Exchange::default() });
        let now = self.now();
        let Some(relay) = &mut self.relay else {
            self.end(exchange, Outcome::Aborted);
            return exchange;
        };
        match relay.gate.admit(&head, &relay.snapshot, now) {
            Admission::Reply(reply) => self.reply(exchange, reply),
            Admission::Read { limit, .. } if body.len() > limit => {
                let reply = relay.gate.too_large();
                self.reply(exchange, reply);
            }
            Admission::Read { route, .. } => {
                let step = relay.gate.accept(exchange, route, head, body, &relay.snapshot, now, &mut relay.entropy);
                match step {
                    Step::Reply(reply) => self.reply(exchange, reply),
                    Step::Grants(event) => self.grants(event),
                    Step::Shard(_, event) => self.shard(event),
                }
            }
            Admission::Upgrade(_) => panic!("a client of the world opens no tunnel"),
        }
        exchange
    }

    /// An exchange as it stands.
    #[must_use]
    pub fn exchange(&self, exchange: ExchangeId) -> &Exchange {
        &self.exchanges[&exchange]
    }

    /// Runs until an exchange ended, and takes it.
    ///
    /// # Panics
    ///
    /// When it does not end within an hour of the world's time.
    pub fn finish(&mut self, exchange: ExchangeId) -> Exchange {
        self.run_until("the end of an exchange", |world| world.exchanges[&exchange].outcome.is_some());
        self.exchanges.remove(&exchange).expect("it was there a moment ago")
    }

    /// The client of an exchange goes away.
    pub fn hang_up(&mut self, exchange: ExchangeId) {
        self.exchanges.remove(&exchange);
        self.shard(ShardEvent::Gone { exchange });
    }

    /// Whether the client of an exchange takes what comes. What waited is taken at once.
    pub fn set_reading(&mut self, exchange: ExchangeId, reading: bool) {
        if let Some(it) = self.exchanges.get_mut(&exchange) {
            it.reading = reading;
        }
        self.read(exchange);
    }

    /// How many calls, tunnels and timers the relay holds: to see that nothing is left over.
    #[must_use]
    pub fn relay_timeout(&self) -> Option<Deadline> {
        self.relay.as_ref().and_then(|relay| relay.shard.poll_timeout())
    }

    /// Microseconds since the world began.
    #[must_use]
    pub const fn micros(&self) -> u64 {
        self.clock
    }

    /// Lets `span` pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.clock + micros(span);
        while self.step(end) {}
        self.clock = end;
    }

    /// Runs until `test` holds.
    ///
    /// # Panics
    ///
    /// When it does not within an hour of the world's time.
    pub fn run_until(&mut self, what: &str, test: impl Fn(&Self) -> bool) {
        let end = self.clock + micros(Duration::from_secs(3600));
        while !test(self) {
            assert!(self.step(end), "{what}: not within an hour");
        }
    }

    /// Runs until an agent's tunnel is up and all its servers that can be are listed; a convenience for scenarios.
    pub fn settle(&mut self) {
        self.run(Duration::from_secs(2));
    }

    // The drivers.

    fn now(&self) -> Now {
        Now {
            instant: Instant::from_micros(self.clock),
            unix: UnixTime::from_millis(self.wall_ahead + self.clock / 1000),
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn schedule(&mut self, after: Duration, delivery: Delivery) {
        self.sequence += 1;
        self.queue.insert((self.clock + micros(after), self.sequence), delivery);
    }

    /// Does the next thing that is due by `end`; `false` when nothing is.
    fn step(&mut self, end: u64) -> bool {
        let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
        let timer = self.next_timer();
        let Some(at) = queued.into_iter().chain(timer.map(|(at, _)| at)).min().filter(|at| *at <= end) else {
            return false;
        };
        self.steps += 1;
        self.clock = self.clock.max(at);
        if queued == Some(at) {
            let (_, delivery) = self.queue.pop_first().expect("it was seen");
            self.deliver(delivery);
        } else if let Some((_, whose)) = timer {
            self.fire(whose);
        }
        true
    }

    fn next_timer(&self) -> Option<(u64, Whose)> {
        let mut all = Vec::new();
        let mut add = |deadline: Option<Deadline>, whose| all.extend(deadline.map(|d| (d.at.as_micros(), whose)));
        if let Some(relay) = &self.relay {
            add(relay.shard.poll_timeout(), Whose::Shard);
            add(relay.grants.poll_timeout(), Whose::Grants);
            for (conn, connection) in &relay.connections {
                add(connection.poll_timeout(), Whose::RelayTunnel(*conn));
            }
        }
        for (key, agent) in &self.agents {
            add(agent.machine.poll_timeout(), Whose::Agent(*key));
            if let Some((conn, connection)) = &agent.connection {
                add(connection.poll_timeout(), Whose::AgentTunnel(*key, *conn));
            }
        }
        all.into_iter().min()
    }

    fn fire(&mut self, whose: Whose) {
        let now = self.now();
        match whose {
            Whose::Shard => {
                if let Some(relay) = &mut self.relay {
                    relay.shard.handle_timeout(now);
                }
                self.drain_shard();
            }
            Whose::Grants => {
                if let Some(relay) = &mut self.relay {
                    relay.grants.handle_timeout(now);
                }
                self.drain_grants();
            }
            Whose::Agent(key) => {
                self.look(key).machine.handle_timeout(now);
                self.drain_agent(key);
            }
            Whose::RelayTunnel(conn) => self.at_relay(conn, |connection| connection.handle_timeout(now)),
            Whose::AgentTunnel(key, conn) => self.at_agent(key, conn, |connection| connection.handle_timeout(now)),
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        let now = self.now();
        match delivery {
            Delivery::Message(conn, toward, message) => {
                let Some(link) = self.links.get_mut(&conn) else { return };
                link.under_way[toward as usize] -= size(&message);
                let (agent, at_agent, silent) = (link.agent, link.at_agent, link.silent);
                match toward {
                    Toward::Relay => {
                        if !silent {
                            self.at_relay(conn, |connection| connection.handle_message(message, now));
                        }
                        self.transmit_agent(agent, at_agent);
                    }
                    Toward::Agent => {
                        if !silent {
                            self.at_agent(agent, at_agent, |connection| connection.handle_message(message, now));
                        }
                        self.transmit_relay(conn);
                    }
                }
            }
            Delivery::Gone(conn, toward) => {
                let Some(link) = self.links.get(&conn) else { return };
                let (agent, at_agent) = (link.agent, link.at_agent);
                match toward {
                    Toward::Relay => self.at_relay(conn, |connection| connection.handle_gone("reset", now)),
                    Toward::Agent => self.at_agent(agent, at_agent, |connection| connection.handle_gone("reset", now)),
                }
            }
            Delivery::Dialed(agent, conn, headers, url, hello) => self.dialed(agent, conn, headers, &url, hello),
            Delivery::Say(agent, child, say) => self.say(agent, child, say),
            Delivery::Agent(agent, event) => self.tell(agent, event),
            Delivery::Grants(event) => self.grants(event),
        }
    }

    // The relay's side.

    fn shard(&mut self, event: ShardEvent) {
        let now = self.now();
        if let Some(relay) = &mut self.relay {
            relay.shard.handle_event(event, now);
            self.drain_shard();
        }
    }

    fn drain_shard(&mut self) {
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
                ShardAction::Tunnel { conn, command } => {
                    self.at_relay(conn, |connection| connection.handle_command(command, now));
                }
            }
        }
    }

    fn grants(&mut self, event: GrantsEvent) {
        let now = self.now();
        if let Some(relay) = &mut self.relay {
            relay.grants.handle_event(event, now);
            self.drain_grants();
        }
    }

    fn drain_grants(&mut self) {
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
                GrantsAction::Revoked { family } => self.shard(ShardEvent::Revoked { family }),
                GrantsAction::SessionEnded { user, session } => self.shard(ShardEvent::SessionEnded { user, session }),
                GrantsAction::AdminReply { job, json } => drop(self.admin.insert(job, json)),
                GrantsAction::Fetch { .. } | GrantsAction::Verify { .. } => panic!("nobody signs in at a page here"),
            }
        }
    }

    /// Drives the relay's end of a tunnel.
    fn at_relay(&mut self, conn: ConnId, input: impl FnOnce(&mut Connection)) {
        let Some(connection) = self.relay.as_mut().and_then(|relay| relay.connections.get_mut(&conn)) else { return };
        input(connection);
        while let Some(event) =
            self.relay.as_mut().and_then(|relay| relay.connections.get_mut(&conn)).and_then(Connection::poll_event)
        {
            self.shard(ShardEvent::Tunnel { conn, event });
        }
        self.transmit_relay(conn);
    }

    fn transmit_relay(&mut self, conn: ConnId) {
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

    // The agents' side.

    fn drain_agent(&mut self, key: AgentKey) {
        let now = self.now();
        while let Some(action) = self.agents.get_mut(&key).and_then(|agent| agent.machine.poll_action()) {
            match action {
                AgentAction::Dial { conn, url, headers, hello } => {
                    let clock = self.clock;
                    self.look(key).dials.push(clock);
                    self.schedule(self.latency * 2, Delivery::Dialed(key, conn, headers, url, hello));
                }
                AgentAction::Tunnel { conn, command } => {
                    self.at_agent(key, conn, |connection| connection.handle_command(command, now));
                }
                AgentAction::Spawn { child, spawn } => self.spawn(key, child, &spawn.server),
                AgentAction::Write { child, bytes } => self.write(key, child, &bytes),
                AgentAction::CloseStdin { child } | AgentAction::Kill { child, .. } => {
                    if self.look(key).children.contains_key(&child) {
                        let exit = Say::Exit(Duration::ZERO, 0);
                        self.schedule(Duration::from_millis(1), Delivery::Say(key, child, exit));
                    }
                }
                AgentAction::ReadConfig => {
                    let config = self.look(key).config.clone();
                    self.schedule(Duration::from_millis(1), Delivery::Agent(key, AgentEvent::ConfigRead(Ok(config))));
                }
                AgentAction::Exit(exit) => self.look(key).exit = Some(exit),
                AgentAction::ControlReply { job, json } => drop(self.admin.insert(job, json)),
                AgentAction::Signin(_) | AgentAction::Fetch { .. } | AgentAction::AbortFetch { .. } => {
                    panic!("agents of the world hold minted tokens and run stdio servers")
                }
            }
        }
    }

    fn dialed(&mut self, key: AgentKey, at_agent: ConnId, mut headers: http::HeaderMap, url: &str, hello: Hello) {
        let now = self.now();
        let Some(relay) = &mut self.relay else {
            let error = DialError::Connect("connection refused".to_owned());
            return self.tell(key, AgentEvent::DialFailed { conn: at_agent, error });
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
            Admission::Reply(Reply { status, body, .. }) => {
                let message = String::from_utf8_lossy(&body).into_owned();
                let error = DialError::Status { status: status.as_u16(), retry_after: None, message };
                return self.tell(key, AgentEvent::DialFailed { conn: at_agent, error });
            }
            Admission::Read { .. } => panic!("an upgrade has no body"),
        };
        let dialect = upgrade.dialect;
        let ours = Hello { version: "2.0.0".to_owned(), ..hello.clone() };
        let relay_end = Connection::new(TunnelSettings { side: Side::Relay, dialect, hello: ours }, now);
        let agent_end = Connection::new(TunnelSettings { side: Side::Agent, dialect, hello }, now);
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
        });
        self.at_relay(conn, |_| ());
        self.tell(
            key,
            AgentEvent::Dialed {
                conn: at_agent,
                dialect: if dialect == Dialect::V2 { Dialect::V2 } else { Dialect::V1 },
            },
        );
        self.at_agent(key, at_agent, |_| ());
    }

    /// Drives an agent's end of a tunnel.
    fn at_agent(&mut self, key: AgentKey, conn: ConnId, input: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.agent_end(key, conn) {
            input(connection);
        }
        while let Some(event) = self.agent_end(key, conn).and_then(Connection::poll_event) {
            self.tell(key, AgentEvent::Tunnel { conn, event });
        }
        self.transmit_agent(key, conn);
    }

    fn agent_end(&mut self, key: AgentKey, conn: ConnId) -> Option<&mut Connection> {
        let (own, connection) = self.agents.get_mut(&key)?.connection.as_mut()?;
        (*own == conn).then_some(connection)
    }

    fn transmit_agent(&mut self, key: AgentKey, at_agent: ConnId) {
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

    // Local servers.

    fn spawn(&mut self, key: AgentKey, child: ChildId, server: &str) {
        let agent = self.look(key);
        *agent.spawned.entry(server.to_owned()).or_default() += 1;
        let script = agent.scripts.entry(server.to_owned()).or_default();
        if script.start == Start::Missing {
            let error = "No such file or directory".to_owned();
            return self.schedule(Duration::ZERO, Delivery::Agent(key, AgentEvent::SpawnFailed { child, error }));
        }
        let says = script.started();
        agent.children.insert(child, server.to_owned());
        let pid = 1000 + u32::try_from(child.0).expect("a test starts few processes");
        self.schedule(Duration::ZERO, Delivery::Agent(key, AgentEvent::Spawned { child, pid }));
        self.schedule_says(key, child, says);
    }

    fn write(&mut self, key: AgentKey, child: ChildId, bytes: &[u8]) {
        let agent = self.look(key);
        let Some(server) = agent.children.get(&child).cloned() else { return };
        let script = agent.scripts.entry(server).or_default();
        let says: Vec<_> = bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .flat_map(|line| script.hear(line))
            .collect();
        let wrote = AgentEvent::Wrote { child, bytes: bytes.len() };
        self.schedule(Duration::from_micros(50), Delivery::Agent(key, wrote));
        self.schedule_says(key, child, says);
    }

    fn schedule_says(&mut self, key: AgentKey, child: ChildId, says: Vec<Say>) {
        for say in says {
            let (Say::Line(after, _) | Say::TooLong(after, _, _) | Say::Exit(after, _)) = say;
            self.schedule(after + Duration::from_micros(100), Delivery::Say(key, child, say));
        }
    }

    fn say(&mut self, key: AgentKey, child: ChildId, say: Say) {
        if !self.agents.get(&key).is_some_and(|agent| agent.children.contains_key(&child)) {
            return;
        }
        match say {
            Say::Line(_, line) => self.tell(key, AgentEvent::Line { child, line }),
            Say::TooLong(_, prefix, length) => {
                self.tell(
                    key,
                    AgentEvent::LineTooLong { child, prefix, suffix: Bytes::from_static(b"\"}]}}"), length },
                );
            }
            Say::Exit(_, code) => self.child_exits(key, child, Some(code), None),
        }
    }

    fn child_exits(&mut self, key: AgentKey, child: ChildId, code: Option<i32>, signal: Option<i32>) {
        self.look(key).children.remove(&child);
        let stderr = "cannot open the display".to_owned();
        self.tell(key, AgentEvent::OutputEnded { child });
        self.tell(key, AgentEvent::Exited { child, code, signal, stderr });
    }

    // Replies.

    fn reply(&mut self, exchange: ExchangeId, reply: Reply) {
        if let Some(it) = self.exchanges.get_mut(&exchange) {
            assert_eq!(it.status, None, "one reply for an exchange");
            it.status = Some(reply.status);
            it.headers = reply.headers;
            it.length = Some(reply.body.len() as u64);
            it.body = reply.body.to_vec();
        }
        self.end(exchange, Outcome::Complete);
    }

    fn last_word(&mut self, exchange: ExchangeId, outcome: Outcome) {
        if let Some(it) = self.exchanges.get_mut(&exchange) {
            assert_eq!(it.finished.replace(outcome), None, "one last word for an exchange");
        }
        self.read(exchange);
    }

    /// The client of an exchange takes what waits, if it reads at all.
    fn read(&mut self, exchange: ExchangeId) {
        let mut taken = VecDeque::new();
        if let Some(it) = self.exchanges.get_mut(&exchange).filter(|it| it.reading) {
            taken = std::mem::take(&mut it.unread);
        }
        for (bytes, credit) in taken {
            let Some(it) = self.exchanges.get_mut(&exchange) else { return };
            it.body.extend_from_slice(&bytes);
            if let Some((conn, stream)) = it.source.filter(|_| credit > 0) {
                self.consumed(conn, stream, credit);
            }
        }
        if let Some(it) = self.exchanges.get(&exchange).filter(|it| it.unread.is_empty()) {
            if let (Some(outcome), None) = (it.finished, it.outcome) {
                let (length, body) = (it.length, it.body.len() as u64);
                assert!(
                    outcome == Outcome::Aborted || length.is_none_or(|length| length == body),
                    "{length:?} announced, {body} sent"
                );
                self.end(exchange, outcome);
            }
        }
    }

    fn consumed(&mut self, conn: ConnId, stream: StreamId, bytes: u32) {
        let now = self.now();
        self.at_relay(conn, |connection| {
            connection.handle_command(tunnel::Command::Consumed { stream, bytes }, now);
        });
    }

    fn end(&mut self, exchange: ExchangeId, outcome: Outcome) {
        if let Some(it) = self.exchanges.get_mut(&exchange) {
            assert_eq!(it.outcome.replace(outcome), None, "one end for an exchange");
            it.ended_at = self.clock;
        }
    }
}

/// Whose timer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Shard,
    Grants,
    RelayTunnel(ConnId),
    Agent(AgentKey),
    AgentTunnel(AgentKey, ConnId),
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).expect("a test's span fits")
}

/// A reply's status, for short assertions.
impl Exchange {
    /// Whether the status is 200.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.status == Some(StatusCode::OK)
    }
}
