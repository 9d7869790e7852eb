//! The world itself: its clocks, its queue of what will happen, and the drivers of its machines.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tunnel_core::agent::machine::{DialError, Event as AgentEvent};
use tunnel_core::config::{Naming, RelayConfig};
use tunnel_core::entropy::Seeded;
use tunnel_core::host::Machine;
use tunnel_core::http::fetch::{Fetch, FetchError, Fetched};
use tunnel_core::id::{ChildId, ConnId, ExchangeId, FetchId, JobId};
use tunnel_core::oauth::grants::Event as GrantsEvent;
use tunnel_core::seal::{Key, Sealer};
use tunnel_core::time::{Deadline, Now};
use tunnel_core::tunnel::{Hello, Message};

use crate::agent::Agent;
use crate::alarms::{Alarms, Whose};
use crate::client::Exchange;
use crate::clock::NodeClock;
use crate::disk::Disk;
use crate::framing::Heard;
use crate::link::{Link, Net, Parcel, Toward, micros};
use crate::provider::Provider;
use crate::relay::{Relay, config};
use crate::sabotage::Sabotage;
use crate::script::Say;
use crate::seen::Seen;
use crate::shelf::Kept;
use crate::trace::Trace;

/// Which agent. One that is started again is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentKey(pub usize);

/// The world. See the crate's documentation.
pub struct World {
    pub(crate) clock: u64,
    /// How far all wall clocks run ahead of the world's, in milliseconds: a suspend of all adds to it.
    pub(crate) wall_ahead: u64,
    pub(crate) queue: BTreeMap<(u64, u64), Delivery>,
    pub(crate) sequence: u64,
    pub(crate) seed: u64,
    /// One way between relay and agents whose network is not set.
    pub latency: Duration,
    /// Whether links have real WebSocket frames on a pipe of bytes.
    pub framing: bool,
    pub(crate) config: RelayConfig,
    pub(crate) key: Key,
    /// What the relay keeps.
    pub disk: Disk,
    /// The provider that a relay may be configured with.
    pub provider: Provider,
    /// The relay's clocks.
    pub relay_clock: NodeClock,
    pub(crate) relay: Option<Relay>,
    pub(crate) agents: BTreeMap<AgentKey, Agent>,
    pub(crate) next_agent: usize,
    pub(crate) nets: BTreeMap<AgentKey, Net>,
    pub(crate) links: BTreeMap<ConnId, Link>,
    pub(crate) exchanges: BTreeMap<ExchangeId, Exchange>,
    /// Exchanges whose client went away: nobody may say anything on them.
    pub(crate) forgotten: BTreeSet<ExchangeId>,
    pub(crate) admin: BTreeMap<JobId, Bytes>,
    pub(crate) numbers: u64,
    pub(crate) alarms: Alarms,
    /// What the world itself draws: jitter, cuts, what a crash leaves.
    pub(crate) dice: Seeded,
    /// A lie that the world tells, to see whether an observer notices.
    pub sabotage: Option<Sabotage>,
    /// What happened.
    pub trace: Trace,
    /// What an observer is to look at; only when there is one.
    pub seen: Option<Vec<Seen>>,
    /// How many steps the world has taken; a machine that spins would show here.
    pub steps: u64,
    /// Steps at the same time.
    at_once: u64,
}

/// Something that will happen. Links go by their number at the relay.
pub(crate) enum Delivery {
    /// With its number on its link.
    Parcel(ConnId, Toward, u64, Parcel),
    Dialed(AgentKey, ConnId, http::HeaderMap, String, Hello),
    Say(AgentKey, ChildId, Say),
    Agent(AgentKey, AgentEvent),
    /// Nobody answered a dial.
    NoAnswer(AgentKey, ConnId),
    /// A write to an agent's disk is done.
    Kept(AgentKey, Kept),
    /// An agent's request comes to a site.
    Asked(AgentKey, FetchId, Box<Fetch>),
    /// Its head is due.
    HeadIsDue(AgentKey, FetchId),
    /// A site says something in the course of that stream.
    SiteSays(AgentKey, ChildId, Option<u64>, Say),
    /// A fetch of the relay's ends, in the life of that number.
    Fetched(u64, FetchId, Result<Fetched, FetchError>),
    /// A write to the relay's disk ends, in the life of that number.
    Written(u64),
}

/// An observed world looks at its tunnels every so many steps.
const LOOKS: u64 = 8;
/// More steps than this at one time are a loop.
const MAX_AT_ONCE: u64 = 200_000;

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
        Self::with_config(seed, config(naming))
    }

    /// The same, configured so.
    #[must_use]
    pub fn with_config(seed: u64, config: RelayConfig) -> Self {
        let mut world = Self {
            clock: 0,
            wall_ahead: 1_790_000_000_000,
            queue: BTreeMap::new(),
            sequence: 0,
            seed,
            latency: Duration::from_millis(10),
            framing: false,
            config,
            key: Sealer::generate(&mut Seeded::new(seed)),
            disk: Disk::default(),
            provider: Provider::default(),
            relay_clock: NodeClock::default(),
            relay: None,
            agents: BTreeMap::new(),
            next_agent: 0,
            nets: BTreeMap::new(),
            links: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            admin: BTreeMap::new(),
            numbers: 0,
            alarms: Alarms::default(),
            dice: Seeded::new(seed ^ 0xd1ce),
            sabotage: None,
            trace: Trace::default(),
            seen: None,
            steps: 0,
            at_once: 0,
        };
        world.start_relay();
        world
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

    /// Does the next thing that is due by `end`, in microseconds; `false` when nothing is.
    ///
    /// # Panics
    ///
    /// When a machine breaks what every machine promises.
    pub fn step(&mut self, end: u64) -> bool {
        let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
        let timer = self.alarms.first();
        let Some(at) = queued.into_iter().chain(timer.map(|(at, _)| at)).min().filter(|at| *at <= end) else {
            return false;
        };
        self.steps += 1;
        if self.seen.is_some() && self.steps.is_multiple_of(LOOKS) {
            self.look_at_tunnels();
        }
        self.at_once = if at > self.clock { 0 } else { self.at_once + 1 };
        assert!(self.at_once < MAX_AT_ONCE, "the world does not get on: {timer:?}");
        self.clock = self.clock.max(at);
        if queued == Some(at) {
            let (_, delivery) = self.queue.pop_first().expect("it was seen");
            self.deliver(delivery);
        } else if let Some((_, whose)) = timer {
            self.fire(whose);
        }
        true
    }

    /// Nothing happens until `end`, in microseconds.
    pub(crate) fn pass(&mut self, end: u64) {
        self.clock = self.clock.max(end);
    }

    /// What the relay's wall clock shows, in milliseconds.
    pub(crate) fn relay_unix(&self) -> u64 {
        self.now().unix.as_millis()
    }

    /// Whether an exchange is there, ended or not.
    pub(crate) fn has(&self, exchange: ExchangeId) -> bool {
        self.exchanges.contains_key(&exchange)
    }

    // The drivers.

    /// The relay's clocks.
    pub(crate) fn now(&self) -> Now {
        self.relay_clock.now(self.clock, self.wall())
    }

    /// An agent's.
    pub(crate) fn now_at(&self, agent: AgentKey) -> Now {
        let clock = self.agents.get(&agent).map(|agent| agent.clock).unwrap_or_default();
        clock.now(self.clock, self.wall())
    }

    pub(crate) fn wall(&self) -> u64 {
        self.wall_ahead + self.clock / 1000
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(crate) fn schedule(&mut self, after: Duration, delivery: Delivery) {
        self.schedule_at(self.clock + micros(after), delivery);
    }

    pub(crate) fn schedule_at(&mut self, at: u64, delivery: Delivery) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), delivery);
    }

    /// Something happened that a trace shows.
    pub(crate) fn note(&mut self, what: &str, numbers: [u64; 2], bytes: &[u8]) {
        self.trace.note(self.clock, what, numbers, bytes);
    }

    /// Something happened that an observer looks at.
    pub(crate) fn saw(&mut self, seen: impl FnOnce() -> Seen) {
        if let Some(all) = &mut self.seen {
            all.push(seen());
        }
    }

    /// Sets a machine's alarm anew: it was driven.
    pub(crate) fn rearm(&mut self, whose: Whose) {
        let deadline = self.deadline(whose);
        let at = deadline.map(|deadline| match whose {
            Whose::Shard | Whose::Grants | Whose::RelayTunnel(_) => self.relay_clock.when(deadline.at),
            Whose::Agent(key) | Whose::AgentTunnel(key, _) => {
                self.agents.get(&key).map(|agent| agent.clock).unwrap_or_default().when(deadline.at)
            }
        });
        self.alarms.set(whose, at);
    }

    /// Sets the alarms of all machines of the relay, or of an agent, anew: its clock changed.
    pub fn rearm_all(&mut self, agent: Option<AgentKey>) {
        let mut all = Vec::new();
        match (agent, &self.relay) {
            (None, Some(relay)) => {
                all.extend([Whose::Shard, Whose::Grants]);
                all.extend(relay.connections.keys().map(|conn| Whose::RelayTunnel(*conn)));
            }
            (None, None) => {}
            (Some(key), _) => {
                all.push(Whose::Agent(key));
                let connection = self.agents.get(&key).and_then(|agent| agent.connection.as_ref());
                all.extend(connection.map(|end| Whose::AgentTunnel(key, end.conn)));
            }
        }
        all.into_iter().for_each(|whose| self.rearm(whose));
    }

    fn deadline(&self, whose: Whose) -> Option<Deadline> {
        match whose {
            Whose::Shard => self.relay.as_ref()?.shard.poll_timeout(),
            Whose::Grants => self.relay.as_ref()?.grants.poll_timeout(),
            Whose::RelayTunnel(conn) => self.relay.as_ref()?.connections.get(&conn)?.poll_timeout(),
            Whose::Agent(key) => self.agents.get(&key)?.machine.poll_timeout(),
            Whose::AgentTunnel(key, conn) => {
                self.agents.get(&key)?.connection.as_ref().filter(|end| end.conn == conn)?.connection.poll_timeout()
            }
        }
    }

    fn fire(&mut self, whose: Whose) {
        let Some(deadline) = self.deadline(whose) else { return self.alarms.set(whose, None) };
        self.note(deadline.reason, [0; 2], &[]);
        self.trace.cover(deadline.reason);
        let now = match whose {
            Whose::Shard | Whose::Grants | Whose::RelayTunnel(_) => self.now(),
            Whose::Agent(key) | Whose::AgentTunnel(key, _) => self.now_at(key),
        };
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
        if let Some(next) = self.deadline(whose) {
            assert!(next.at > now.instant, "{whose:?} was woken, and wants to be at once again: {}", next.reason);
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        if let Some(until) = self.sleeps(&delivery) {
            return self.schedule_at(until, delivery);
        }
        match delivery {
            Delivery::Parcel(conn, toward, number, parcel) => {
                for parcel in self.arrived(conn, toward, number, parcel) {
                    self.open(conn, toward, parcel);
                }
                // The window may have room again.
                self.transmit(conn, toward);
            }
            Delivery::Dialed(agent, conn, headers, url, hello) => self.dialed(agent, conn, headers, &url, hello),
            Delivery::Say(agent, child, say) => self.say(agent, child, say),
            Delivery::Agent(agent, event) => self.tell(agent, event),
            Delivery::NoAnswer(agent, conn) => self.dial_failed(agent, conn, DialError::TimedOut),
            Delivery::Kept(agent, kept) => self.kept(agent, kept),
            Delivery::Asked(agent, fetch, request) => {
                if self.lives(agent) {
                    self.fetched_at(agent, fetch, request);
                }
            }
            Delivery::HeadIsDue(agent, fetch) => self.fetch_is_late(agent, fetch),
            Delivery::SiteSays(agent, child, on, say) => self.site_says(agent, child, on, say),
            Delivery::Fetched(life, fetch, result) => {
                if life == self.disk.life() {
                    self.grants(GrantsEvent::Fetched { fetch, result });
                }
            }
            Delivery::Written(life) => self.written(life),
        }
    }

    /// Until when whoever it is for sleeps.
    fn sleeps(&self, delivery: &Delivery) -> Option<u64> {
        let agent = match delivery {
            Delivery::Parcel(conn, Toward::Agent, ..) => self.links.get(conn)?.agent,
            Delivery::Dialed(agent, ..)
            | Delivery::Say(agent, ..)
            | Delivery::Agent(agent, _)
            | Delivery::NoAnswer(agent, _)
            | Delivery::Kept(agent, _)
            | Delivery::Asked(agent, ..)
            | Delivery::HeadIsDue(agent, _)
            | Delivery::SiteSays(agent, ..) => *agent,
            Delivery::Parcel(_, Toward::Relay, ..) | Delivery::Fetched(..) | Delivery::Written(_) => return None,
        };
        self.agents.get(&agent).map(|agent| agent.clock.asleep_until).filter(|until| *until > self.clock)
    }

    /// A parcel reached its end.
    fn open(&mut self, conn: ConnId, toward: Toward, parcel: Parcel) {
        if !self.has_end(conn, toward) {
            // A socket that is gone answers with a reset; a reset is answered by nothing.
            if !matches!(parcel, Parcel::Gone) {
                self.send_back(conn, toward);
            }
            return self.sweep(conn);
        }
        match parcel {
            Parcel::Message(message) => self.hear(conn, toward, message),
            Parcel::Gone => self.hear_end(conn, toward, "reset"),
            Parcel::Bytes(bytes) => {
                self.note("bytes", [conn.0, bytes.len() as u64], &[]);
                let framing = self.links.get_mut(&conn).and_then(|link| link.framing.as_mut());
                let heard = framing.map(|framing| framing.read(toward, &bytes)).unwrap_or_default();
                for heard in heard {
                    match heard {
                        Heard::Message(message) => self.hear(conn, toward, message),
                        Heard::Ended(why) => self.hear_end(conn, toward, why),
                    }
                }
                self.flush(conn, toward.other());
            }
        }
    }

    fn hear(&mut self, conn: ConnId, toward: Toward, message: Message) {
        let Some((agent, at_agent)) = self.links.get(&conn).map(|link| (link.agent, link.at_agent)) else { return };
        match toward {
            Toward::Relay => {
                let now = self.now();
                self.at_relay(conn, |connection| connection.handle_message(message, now));
            }
            Toward::Agent => {
                let now = self.now_at(agent);
                self.at_agent(agent, at_agent, |connection| connection.handle_message(message, now));
            }
        }
    }

    fn hear_end(&mut self, conn: ConnId, toward: Toward, why: &str) {
        let Some((agent, at_agent)) = self.links.get(&conn).map(|link| (link.agent, link.at_agent)) else { return };
        match toward {
            Toward::Relay => {
                let now = self.now();
                self.at_relay(conn, |connection| connection.handle_gone(why, now));
            }
            Toward::Agent => {
                let now = self.now_at(agent);
                self.at_agent(agent, at_agent, |connection| connection.handle_gone(why, now));
            }
        }
    }
}

/// A reply's status, for short assertions.
impl Exchange {
    /// Whether the status is 200.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.status == Some(StatusCode::OK)
    }
}
