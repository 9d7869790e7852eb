//! What scenarios do to a world.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tunnel_core::agent::machine::{ControlCommand, Event as AgentEvent};
use tunnel_core::config::AgentPolicy;
use tunnel_core::host::Machine as _;
use tunnel_core::http::RequestHead;
use tunnel_core::id::{ChildId, ExchangeId, JobId};
use tunnel_core::oauth::Role;
use tunnel_core::oauth::grants::{AdminCommand, Event as GrantsEvent};
use tunnel_core::relay::gate::{Admission, Step};
use tunnel_core::relay::shard::Event as ShardEvent;
use tunnel_core::signin::machine::Person;
use tunnel_core::time::Deadline;

use crate::agent::Agent;
use crate::alarms::Whose;
use crate::client::{Exchange, Outcome};
use crate::link::{Net, Parcel, Toward};
use crate::relay::Relay;
use crate::script::Script;
use crate::world::{AgentKey, World};

/// The relay.
impl World {
    /// Starts the relay on what its disk holds.
    pub fn start_relay(&mut self) {
        let seed = self.seed.wrapping_mul(31).wrapping_add(self.clock);
        self.note("relay starts", [0; 2], &[]);
        self.relay = Some(Relay::start(&self.config, &self.key, &self.disk, seed, self.now()));
        self.drain_grants();
        self.rearm_all(None);
    }

    /// Kills the relay: its memory is gone, its sockets break.
    pub fn kill_relay(&mut self) {
        self.note("relay killed", [0; 2], &[]);
        self.relay = None;
        self.crash_disk();
        self.alarms.clear(|whose| matches!(whose, Whose::Shard | Whose::Grants | Whose::RelayTunnel(_)));
        let cut = self.exchanges.iter().filter(|(_, exchange)| exchange.outcome.is_none());
        for exchange in cut.map(|(exchange, _)| *exchange).collect::<Vec<_>>() {
            self.end(exchange, Outcome::Aborted);
        }
        for conn in self.links.keys().copied().collect::<Vec<_>>() {
            self.send(conn, Toward::Agent, Parcel::Gone);
        }
    }

    /// Has the relay stop in good order. It is to be killed a moment later.
    pub fn stop_relay(&mut self) {
        self.shard(ShardEvent::Stop);
    }

    /// Whether the relay runs.
    #[must_use]
    pub const fn relay_is_up(&self) -> bool {
        self.relay.is_some()
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
        let job = self.ask_admin(command);
        self.run_until("the operator's answer", |world| world.admin.contains_key(&job));
        serde_json::from_slice(&self.admin[&job]).expect("the operator's answer is JSON")
    }

    /// The same, without waiting for the answer.
    pub fn ask_admin(&mut self, command: AdminCommand) -> JobId {
        let job = JobId(self.number());
        self.grants(GrantsEvent::Admin { job, command });
        job
    }

    /// When the relay's rooms next want to be woken: to see that nothing is left over.
    #[must_use]
    pub fn relay_timeout(&self) -> Option<Deadline> {
        self.relay.as_ref().and_then(|relay| relay.shard.poll_timeout())
    }
}

/// Agents.
impl World {
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
        let scripts = servers.into_iter().map(|(name, script)| (name.to_owned(), script)).collect();
        let seed = self.next_agent_seed();
        self.add_agent(Agent::under(policy, "laptop", "id-of-laptop", token, scripts, seed))
    }

    /// The same, saying who it is.
    pub fn agent_with_id<const N: usize>(
        &mut self,
        device: &str,
        device_id: &str,
        token: &str,
        servers: [(&str, Script); N],
    ) -> AgentKey {
        let scripts = servers.into_iter().map(|(name, script)| (name.to_owned(), script)).collect();
        let seed = self.next_agent_seed();
        self.add_agent(Agent::new(device, device_id, token, scripts, seed))
    }

    /// What the next agent draws from.
    #[must_use]
    pub const fn next_agent_seed(&self) -> u64 {
        self.seed ^ (0x1000 + self.next_agent as u64)
    }

    /// Adds an agent and starts it.
    pub fn add_agent(&mut self, agent: Agent) -> AgentKey {
        let key = AgentKey(self.next_agent);
        self.next_agent += 1;
        let wishes = agent.wishes.clone();
        self.agents.insert(key, agent);
        if let Some(json) = wishes {
            self.tell(key, AgentEvent::WishesRecalled { json });
        }
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

    /// An agent, to look at and to change what its servers do.
    ///
    /// # Panics
    ///
    /// When it was killed.
    pub fn look(&mut self, agent: AgentKey) -> &mut Agent {
        self.agents.get_mut(&agent).expect("the agent lives")
    }

    /// Whether an agent was not killed.
    #[must_use]
    pub fn lives(&self, agent: AgentKey) -> bool {
        self.agents.contains_key(&agent)
    }

    /// Kills an agent: its sockets break, its servers die with it. Returns what was it.
    pub fn kill_agent(&mut self, agent: AgentKey) -> Option<Agent> {
        self.note("agent killed", [agent.0 as u64, 0], &[]);
        let was = self.agents.remove(&agent);
        self.alarms.clear(|whose| match whose {
            Whose::Agent(key) | Whose::AgentTunnel(key, _) => *key == agent,
            Whose::Shard | Whose::Grants | Whose::RelayTunnel(_) => false,
        });
        let links: Vec<_> = self.links.values().filter(|link| link.agent == agent).map(|link| link.at_relay).collect();
        for conn in links {
            self.send(conn, Toward::Relay, Parcel::Gone);
        }
        was
    }

    /// Kills an agent and starts it again, with what it has on disk.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn restart_agent(&mut self, agent: AgentKey) -> AgentKey {
        let old = self.kill_agent(agent).expect("the agent lives");
        let seed = self.next_agent_seed();
        self.add_agent(old.restarted(seed))
    }

    /// Makes every tunnel of an agent half open: what is sent vanishes, and nobody is told.
    pub fn silence(&mut self, agent: AgentKey) {
        self.silence_toward(agent, [true; 2]);
    }

    /// The same in one direction: toward the relay, or toward the agent.
    pub fn silence_toward(&mut self, agent: AgentKey, ways: [bool; 2]) {
        for link in self.links.values_mut().filter(|link| link.agent == agent) {
            link.silent = [link.silent[0] || ways[0], link.silent[1] || ways[1]];
        }
    }

    /// Breaks every tunnel of an agent where both ends are told.
    pub fn reset(&mut self, agent: AgentKey) {
        let links: Vec<_> = self.links.values().filter(|link| link.agent == agent).map(|link| link.at_relay).collect();
        for conn in links {
            self.send(conn, Toward::Relay, Parcel::Gone);
            self.send(conn, Toward::Agent, Parcel::Gone);
        }
    }

    /// Nothing gets through to the agent (`[false, true]`), from it, or either way.
    pub fn partition(&mut self, agent: AgentKey, blocked: [bool; 2]) {
        let net = self.net(agent);
        self.set_net(agent, Net { blocked, ..net });
    }

    /// Brings an agent an event from outside.
    pub fn tell(&mut self, agent: AgentKey, event: AgentEvent) {
        let now = self.now_at(agent);
        if let Some(node) = self.agents.get_mut(&agent) {
            node.machine.handle_event(event, now);
            self.drain_agent(agent);
        }
    }

    /// The process of one of an agent's servers; the first of them.
    #[must_use]
    pub fn child_of(&mut self, agent: AgentKey, server: &str) -> Option<ChildId> {
        self.look(agent).children.iter().find(|(_, name)| *name == server).map(|(child, _)| *child)
    }

    /// The processes of one of an agent's servers.
    pub fn children_of(&mut self, agent: AgentKey, server: &str) -> Vec<ChildId> {
        let children = self.look(agent).children.iter();
        children.filter(|(_, name)| *name == server).map(|(child, _)| *child).collect()
    }

    /// One of an agent's servers says something by itself.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn server_says(&mut self, agent: AgentKey, server: &str, message: &Value) {
        let child = self.child_of(agent, server).expect("the server runs");
        self.tell(agent, AgentEvent::Line { child, line: Bytes::from(message.to_string()) });
    }

    /// One of an agent's servers dies.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn server_dies(&mut self, agent: AgentKey, server: &str) {
        let child = self.child_of(agent, server).expect("the server runs");
        self.child_exits(agent, child, None, Some(9));
    }

    /// Suspends every machine of the world but the wall clock.
    pub fn suspend(&mut self, span: Duration) {
        self.wall_ahead += u64::try_from(span.as_millis()).expect("a test's span fits");
    }

    /// Suspends an agent and its servers.
    pub fn suspend_agent(&mut self, agent: AgentKey, span: Duration) {
        let span = crate::link::micros(span);
        let now = self.clock;
        let clock = &mut self.look(agent).clock;
        clock.lost += span;
        clock.asleep_until = now + span;
        self.rearm_all(Some(agent));
    }

    /// Whether an agent sleeps.
    #[must_use]
    pub fn is_asleep(&self, agent: AgentKey) -> bool {
        self.agents.get(&agent).is_some_and(|agent| agent.clock.asleep_until > self.clock)
    }
}

/// Clients.
impl World {
    /// Makes a request; the exchange goes on while the world does.
    pub fn request(&mut self, head: RequestHead, body: Bytes) -> ExchangeId {
        let exchange = ExchangeId(self.number());
        self.note("request", [exchange.0, 0], &body);
        self.exchanges.insert(exchange, Exchange { reading: true, ..Exchange::default() });
        let now = self.now();
        let Some(relay) = &mut self.relay else {
            self.end(exchange, Outcome::Aborted);
            return exchange;
        };
        match relay.gate.admit(&head, &relay.snapshot, now, &mut relay.opened) {
            Admission::Reply(reply) => self.reply(exchange, reply),
            Admission::Refuse(refused) => self.grants(GrantsEvent::TokenRefused { exchange, refused }),
            Admission::Read { route, limit } if body.len() > limit => {
                let reply = relay.gate.too_large(&route);
                self.reply(exchange, reply);
            }
            Admission::Read { route, .. } => {
                let opened = &mut relay.opened;
                let step =
                    relay.gate.accept(exchange, route, head, body, &relay.snapshot, now, opened, &mut relay.entropy);
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

    /// Takes an exchange that ended.
    pub fn take(&mut self, exchange: ExchangeId) -> Option<Exchange> {
        self.exchanges.get(&exchange)?.outcome?;
        self.exchanges.remove(&exchange)
    }

    /// The client of an exchange goes away.
    pub fn hang_up(&mut self, exchange: ExchangeId) {
        self.note("client gone", [exchange.0, 0], &[]);
        let Some(was) = self.exchanges.remove(&exchange) else { return };
        if was.outcome.is_some() {
            return;
        }
        // What waited for it is thrown away, and its credit goes back all the same.
        if let Some((conn, stream)) = was.source {
            for (_, credit) in was.unread {
                self.consumed(conn, stream, credit);
            }
        }
        if was.finished.is_none() {
            self.shard(ShardEvent::Gone { exchange });
            self.forgotten.insert(exchange);
        }
    }

    /// Whether the client of an exchange takes what comes. What waited is taken at once.
    pub fn set_reading(&mut self, exchange: ExchangeId, reading: bool) {
        if let Some(it) = self.exchanges.get_mut(&exchange) {
            it.reading = reading;
        }
        self.read(exchange);
    }
}
