//! The world itself: its clock, its queue of what will happen, and the drivers of its machines.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use tunnel_core::agent::machine::{ControlCommand, Event as AgentEvent};
use tunnel_core::config::{AgentPolicy, Naming, RelayConfig};
use tunnel_core::entropy::Seeded;
use tunnel_core::host::Machine;
use tunnel_core::http::RequestHead;
use tunnel_core::id::{ChildId, ConnId, ExchangeId, JobId};
use tunnel_core::oauth::Role;
use tunnel_core::oauth::grants::{AdminCommand, Event as GrantsEvent};
use tunnel_core::relay::gate::{Admission, Step};
use tunnel_core::relay::shard::Event as ShardEvent;
use tunnel_core::seal::{Key, Sealer};
use tunnel_core::signin::machine::Person;
use tunnel_core::time::{Deadline, Instant, Now, UnixTime};
use tunnel_core::tunnel::{Hello, Message};

use crate::agent::Agent;
use crate::client::{Exchange, Outcome};
use crate::link::{Link, Toward, size};
use crate::relay::{Disk, Relay, config};
use crate::script::{Say, Script};

/// Which agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentKey(pub usize);

/// The world. See the crate's documentation.
pub struct World {
    pub(crate) clock: u64,
    /// How far the wall clock runs ahead of the monotonic one, in milliseconds: a suspend adds to it.
    pub(crate) wall_ahead: u64,
    pub(crate) queue: BTreeMap<(u64, u64), Delivery>,
    pub(crate) sequence: u64,
    pub(crate) seed: u64,
    /// One way between relay and agents.
    pub latency: Duration,
    pub(crate) config: RelayConfig,
    pub(crate) key: Key,
    pub(crate) disk: Disk,
    pub(crate) relay: Option<Relay>,
    pub(crate) agents: BTreeMap<AgentKey, Agent>,
    pub(crate) agents_made: usize,
    pub(crate) links: BTreeMap<ConnId, Link>,
    pub(crate) exchanges: BTreeMap<ExchangeId, Exchange>,
    pub(crate) admin: BTreeMap<JobId, Bytes>,
    pub(crate) numbers: u64,
    /// How many steps the world has taken; a machine that spins would show here.
    pub steps: u64,
}

/// Something that will happen. Links go by their number at the relay.
pub(crate) enum Delivery {
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
            agents_made: 0,
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
            scope: String::new(),
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

    /// The same, under a policy.
    pub fn agent_under<const N: usize>(
        &mut self,
        policy: AgentPolicy,
        token: &str,
        servers: [(&str, Script); N],
    ) -> AgentKey {
        let key = self.next_agent();
        let scripts = servers.into_iter().map(|(name, script)| (name.to_owned(), script)).collect();
        let seed = self.seed ^ (0x1000 + key.0 as u64);
        self.agents.insert(key, Agent::under(policy, "laptop", "id-of-laptop", token, scripts, seed));
        self.tell(key, AgentEvent::Start { person: Person::Absent });
        key
    }

    /// Asks an agent on its control socket.
    ///
    /// # Panics
    ///
    /// When it does not answer at once.
    pub fn control(&mut self, agent: AgentKey, command: ControlCommand) -> Value {
        let job = JobId(self.number());
        self.tell(agent, AgentEvent::Control { job, command });
        let answer = self.look(agent).answers.remove(&job).expect("it answers");
        serde_json::from_slice(&answer).expect("with JSON")
    }

    /// The same, saying who it is.
    pub fn agent_with_id<const N: usize>(
        &mut self,
        device: &str,
        device_id: &str,
        token: &str,
        servers: [(&str, Script); N],
    ) -> AgentKey {
        let key = self.next_agent();
        let scripts = servers.into_iter().map(|(name, script)| (name.to_owned(), script)).collect();
        let seed = self.seed ^ (0x1000 + key.0 as u64);
        self.agents.insert(key, Agent::new(device, device_id, token, scripts, seed));
        self.tell(key, AgentEvent::Start { person: Person::Absent });
        key
    }

    /// A key that no agent had, not even one that was killed: its links are still there.
    fn next_agent(&mut self) -> AgentKey {
        self.agents_made += 1;
        AgentKey(self.agents_made - 1)
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
        self.take_agent(agent);
    }

    /// Kills an agent and starts it again, with what it has on disk.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn restart_agent(&mut self, agent: AgentKey) -> AgentKey {
        let old = self.take_agent(agent).expect("the agent lives");
        // Nothing that is under way to the old process may reach the new one.
        let key = AgentKey(self.agents.keys().map(|key| key.0 + 1).max().unwrap_or_default().max(agent.0 + 1));
        let node = old.restarted(self.seed ^ (0x1000 + key.0 as u64));
        let wishes = node.wishes.clone();
        self.agents.insert(key, node);
        if let Some(json) = wishes {
            self.tell(key, AgentEvent::WishesRecalled { json });
        }
        self.tell(key, AgentEvent::Start { person: Person::Absent });
        key
    }

    fn take_agent(&mut self, agent: AgentKey) -> Option<Agent> {
        let node = self.agents.remove(&agent);
        let links: Vec<_> = self.links.values().filter(|link| link.agent == agent).map(|link| link.at_relay).collect();
        for conn in links {
            self.schedule(self.latency, Delivery::Gone(conn, Toward::Relay));
        }
        node
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
            Admission::Refuse(refused) => self.grants(GrantsEvent::TokenRefused { exchange, refused }),
            Admission::Read { route, limit } if body.len() > limit => {
                let reply = relay.gate.too_large(&route);
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

    pub(crate) fn now(&self) -> Now {
        Now {
            instant: Instant::from_micros(self.clock),
            unix: UnixTime::from_millis(self.wall_ahead + self.clock / 1000),
        }
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(crate) fn schedule(&mut self, after: Duration, delivery: Delivery) {
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
}

/// Whose timer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whose {
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
