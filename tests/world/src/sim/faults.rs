//! What goes wrong, and how it ends.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tunnel_core::agent::machine::Event as AgentEvent;
use tunnel_core::id::ExchangeId;
use tunnel_core::oauth::Role;
use tunnel_core::oauth::grants::AdminCommand;

use super::plan::Act;
use super::stage::{Asked, Stage, mint_command, server_name, start_of};
use crate::agent::{self, Agent};
use crate::disk::Health;
use crate::link::Net;
use crate::provider::Mood;
use crate::script::{Pace, Script, Start};
use crate::site::is_session;
use crate::world::AgentKey;

/// The end of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undo {
    RelayStarts,
    RelayDies(u32),
    RelayDiskIsGood,
    AgentStarts(usize, bool),
    ThiefGoes(AgentKey),
    NetIsGood(usize),
    NetIsWhole(usize),
    AgentDiskIsGood(usize),
    ServerGoesOn(usize, usize),
    ServerIsMended(usize, usize),
    MintForAgent(usize),
    MintForClient(usize),
    ProviderIsGood,
    /// The provider lets the person of that sign-in go back.
    ComesBack(usize),
    /// A client takes a stream up again that broke.
    TakesUp,
    Read(ExchangeId),
    /// A client loses its connection.
    HangsUp(ExchangeId),
    /// The connections of a server over HTTP break.
    Cuts(usize, usize),
    /// A person approves what waits for that.
    Decides(usize),
    /// A person approves for good what has waited longest.
    DecidesOne(usize),
    /// Somebody counts what a device is asked.
    Counts(usize),
    /// A client hears again what the relay says.
    ClientHears(usize),
    /// What came for a client whose network is slow gets to it, and so on until then.
    ComesLate(usize, u64),
}

impl Stage {
    /// Does what a step says.
    pub(super) fn act(&mut self, act: &Act) {
        if !self.use_it(act)
            && !self.crowd(act)
            && !self.sign_in_act(act)
            && !self.break_relay(act)
            && !self.break_agent(act)
        {
            self.break_server(act);
        }
    }

    fn break_relay(&mut self, act: &Act) -> bool {
        match *act {
            Act::KillRelay { down_ms, lose } => {
                if self.world.relay_is_up() {
                    self.kill_relay(down_ms, lose);
                }
            }
            Act::StopRelay { down_ms } => {
                if self.world.relay_is_up() {
                    self.disturb_all(ms(down_ms) + Duration::from_secs(1));
                    self.world.stop_relay();
                    self.later(Duration::from_secs(1), Undo::RelayDies(down_ms));
                }
            }
            Act::RelayDisk { health, ms: span, most_ms } => {
                self.office.is_in_doubt(self.world.micros());
                self.world.disk.health = match health % 3 {
                    0 => Health::Slow(ms(if most_ms == 0 { 400 } else { most_ms })),
                    1 => Health::Full,
                    _ => Health::Broken,
                };
                self.later(ms(span), Undo::RelayDiskIsGood);
            }
            Act::RelayClock { step_ms } => {
                self.disturb_all(Duration::ZERO);
                self.oracle.clock_is_set();
                self.world.relay_clock.wall_ms += i64::from(step_ms);
                self.world.rearm_all(None);
            }
            Act::Revoke { agent, who, ms: span } => self.revoke(agent, who, span),
            _ => return false,
        }
        true
    }

    fn kill_relay(&mut self, down_ms: u32, lose: bool) {
        self.disturb_all(ms(down_ms));
        self.oracle.relay_ends.insert(self.world.micros());
        self.oracle.tunnels.clear();
        self.office.relay_died(self.world.micros());
        self.world.kill_relay();
        self.asked.clear();
        if lose {
            self.world.trace.cover("the relay lost its disk");
            self.world.disk.lose();
            self.oracle.all_is_lost();
            self.office.all_is_lost();
        }
        self.later(ms(down_ms), Undo::RelayStarts);
    }

    fn revoke(&mut self, agent: bool, who: u8, span: u32) {
        if !self.world.relay_is_up() {
            return;
        }
        let (token, undo) = if agent {
            let Some(laptop) = self.laptop(who) else { return };
            self.disturb(laptop, ms(span));
            (self.laptops[laptop].token, Undo::MintForAgent(laptop))
        } else {
            let Some(person) = self.person(who) else { return };
            self.people[person].changes += 1;
            (self.people[person].token, Undo::MintForClient(person))
        };
        self.sees_revoking(token);
        let id = self.oracle.revoking(token);
        let job = self.world.ask_admin(AdminCommand::TokenRevoke { id });
        self.asked.insert(job, Asked::Revoke(token));
        self.later(ms(span), undo);
    }

    fn break_agent(&mut self, act: &Act) -> bool {
        match *act {
            Act::KillAgent { agent, down_ms, lose } => self.at(agent, ms(down_ms), |stage, laptop, key| {
                stage.end(key);
                stage.later(ms(down_ms), Undo::AgentStarts(laptop, lose));
            }),
            Act::Twin { agent } => self.at(agent, Duration::ZERO, |stage, laptop, _| {
                stage.world.trace.cover("a device has two processes");
                // It has a directory of its own.
                stage.oracle.doubt_watches(laptop, 0);
                let twin = stage.fresh_agent(laptop);
                stage.start(laptop, twin);
            }),
            Act::Thief { agent, ms: span } => self.at(agent, ms(span), |stage, laptop, _| {
                let it = &stage.laptops[laptop];
                let token = stage.oracle.token(it.token).text.clone();
                let scripts = [("stolen".to_owned(), Script::default())].into();
                let config = agent::config(["stolen"].into_iter());
                let (device, seed) = (it.device.clone(), stage.world.next_agent_seed());
                let thief = Agent::configured(config, &device, "another-id", &token, scripts, seed);
                let key = stage.world.add_agent(thief);
                stage.later(ms(span), Undo::ThiefGoes(key));
            }),
            Act::Suspend { agent, ms: span } => self.at(agent, ms(span), |stage, _, key| {
                stage.world.suspend_agent(key, ms(span));
                stage.oracle.nudged(key);
            }),
            Act::AgentClock { agent, step_ms } => self.at(agent, Duration::ZERO, |stage, _, key| {
                stage.world.look(key).clock.wall_ms += i64::from(step_ms);
                stage.oracle.nudged(key);
            }),
            Act::Silence { agent, ways } => self.at(agent, Duration::ZERO, |stage, _, key| {
                let ways = [[true, true], [true, false], [false, true]][usize::from(ways) % 3];
                stage.world.silence_toward(key, ways);
            }),
            Act::Reset { agent } => self.at(agent, Duration::ZERO, |stage, _, key| stage.world.reset(key)),
            Act::Partition { agent, ways, ms: span } => self.at(agent, ms(span), |stage, laptop, key| {
                let blocked = [[true, true], [true, false], [false, true]][usize::from(ways) % 3];
                stage.world.partition(key, blocked);
                stage.later(ms(span), Undo::NetIsWhole(laptop));
            }),
            Act::Slow { agent, latency_ms, bandwidth, ms: span } => self.at(agent, ms(span), |stage, laptop, key| {
                let net = stage.world.net(key);
                let latency = ms(latency_ms);
                stage.world.set_net(key, Net { latency, jitter: latency / 2, bandwidth: bandwidth.into(), ..net });
                stage.later(ms(span), Undo::NetIsGood(laptop));
            }),
            Act::Nudge { agent } => self.nudge(agent, AgentEvent::Nudge),
            Act::Network { agent } => self.nudge(agent, AgentEvent::NetworkChanged),
            Act::AgentDisk { agent, ms: span, health } => self.at(agent, ms(span), |stage, laptop, key| {
                stage.world.look(key).disk =
                    [Health::Broken, Health::Full, Health::Slow(SLOW)][usize::from(health) % 3];
                stage.oracle.doubt_watches(laptop, 0);
                stage.later(ms(span), Undo::AgentDiskIsGood(laptop));
            }),
            _ => return false,
        }
        true
    }

    fn nudge(&mut self, agent: u8, event: AgentEvent) {
        let Some(key) = self.laptop(agent).and_then(|laptop| self.laptops[laptop].key) else { return };
        if !self.world.is_asleep(key) {
            self.oracle.nudged(key);
            self.world.tell(key, event);
        }
    }

    /// Does something to a laptop whose agent runs and is awake, which disturbs it for `span`.
    fn at(&mut self, agent: u8, span: Duration, fault: impl FnOnce(&mut Self, usize, AgentKey)) {
        let Some(laptop) = self.laptop(agent) else { return };
        let Some(key) = self.laptops[laptop].key.filter(|key| !self.world.is_asleep(*key)) else { return };
        self.disturb(laptop, span);
        fault(self, laptop, key);
    }

    fn break_server(&mut self, act: &Act) {
        match *act {
            Act::Die { agent, server } => self.at_server(agent, server, Duration::ZERO, |stage, _, key, name| {
                if stage.world.child_of(key, name).is_some() {
                    stage.world.server_dies(key, name);
                }
            }),
            Act::Cut { agent, server } => self.at_server(agent, server, Duration::ZERO, |stage, _, key, name| {
                stage.world.cut_site(key, name);
            }),
            Act::Print { agent, server, kind, lines } => self.print(agent, server, kind, lines),
            Act::Hang { agent, server, deaf, ms: span } => {
                self.at_server(agent, server, ms(span), |stage, (laptop, server), key, name| {
                    stage.oracle.has_hung = true;
                    stage.world.set_pace(key, name, if deaf { Pace::Deaf } else { Pace::Stalls });
                    stage.later(ms(span), Undo::ServerGoesOn(laptop, server));
                });
            }
            Act::NewTool { agent, server } => {
                self.at_server(agent, server, Duration::ZERO, |stage, (laptop, server), key, _| {
                    // One that does not run cannot say so, and is not asked; one of both eras may have a run that sleeps.
                    let plan = &stage.laptops[laptop].plan.servers[server];
                    if plan.lazy || plan.isolated || plan.era % 3 == 2 {
                        return;
                    }
                    stage.new_tool(laptop, server, key);
                })
            }
            Act::Spoil { agent, server, start, ms: span } => {
                self.at_server(agent, server, ms(span), |stage, (laptop, server), key, name| {
                    let spoilt = start_of(start);
                    stage.world.look(key).scripts.get_mut(name).expect("it has it").start = spoilt;
                    stage.laptops[laptop].spoilt.insert(server, spoilt);
                    if stage.laptops[laptop].plan.servers[server].web {
                        stage.oracle.out_of_reach(key);
                    }
                    stage.later(ms(span), Undo::ServerIsMended(laptop, server));
                });
            }
            _ => {}
        }
    }

    fn at_server(
        &mut self,
        agent: u8,
        server: u8,
        span: Duration,
        fault: impl FnOnce(&mut Self, (usize, usize), AgentKey, &str),
    ) {
        let Some(server) = self.laptop(agent).and_then(|laptop| self.server(laptop, server)) else { return };
        self.at(agent, span, |stage, laptop, key| {
            let name = server_name(laptop, server);
            if stage.world.look(key).scripts.contains_key(&name) {
                fault(stage, (laptop, server), key, &name);
            }
        });
    }

    fn print(&mut self, agent: u8, server: u8, kind: u8, lines: u16) {
        self.at_server(agent, server, Duration::ZERO, |stage, _, key, name| {
            for line in 0..lines {
                let Some(child) = stage.world.child_of(key, name).filter(|child| !is_session(*child)) else { return };
                let text = match kind % 4 {
                    0 => format!("\u{1b}[31m{line} bottles {{\"half\":"),
                    1 => json!({"jsonrpc": "2.0", "method": "notifications/message",
                        "params": {"level": "info", "data": line}})
                    .to_string(),
                    2 => json!({"jsonrpc": "2.0", "id": 1_000_000 + u32::from(line), "result": {}}).to_string(),
                    _ => {
                        let prefix = Bytes::from_static(b"{\"jsonrpc\":\"2.0\",\"method\":\"");
                        let (suffix, length) = (Bytes::from_static(b"xxx"), 1 << 30);
                        return stage.world.tell(key, AgentEvent::LineTooLong { child, prefix, suffix, length });
                    }
                };
                stage.world.tell(key, AgentEvent::Line { child, line: Bytes::from(text) });
            }
        });
    }

    /// Something ends.
    pub(super) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::RelayStarts => {
                if !self.world.relay_is_up() {
                    self.world.start_relay();
                }
            }
            Undo::RelayDies(down_ms) => {
                if self.world.relay_is_up() {
                    self.kill_relay(down_ms, false);
                }
            }
            Undo::RelayDiskIsGood => self.world.disk.health = Health::Good,
            Undo::AgentStarts(laptop, lose) => self.restart(laptop, lose),
            Undo::ThiefGoes(key) => drop(self.world.kill_agent(key)),
            Undo::NetIsGood(laptop) => {
                if let Some(key) = self.laptops[laptop].key {
                    let blocked = self.world.net(key).blocked;
                    self.world.set_net(key, Net { blocked, ..self.good_net() });
                }
            }
            Undo::NetIsWhole(laptop) => {
                if let Some(key) = self.laptops[laptop].key {
                    self.world.partition(key, [false; 2]);
                }
            }
            Undo::AgentDiskIsGood(laptop) => {
                if let Some(key) = self.laptops[laptop].key {
                    self.world.look(key).disk = Health::Good;
                }
            }
            Undo::ServerGoesOn(laptop, server) => {
                if let Some(key) = self.laptops[laptop].key {
                    self.world.set_pace(key, &server_name(laptop, server), Pace::Lively);
                }
            }
            Undo::ServerIsMended(laptop, server) => self.mend(laptop, server),
            Undo::MintForAgent(laptop) => {
                if self.world.relay_is_up() {
                    let job = self.world.ask_admin(mint_command(self.laptops[laptop].user, Role::Agent, 0));
                    self.asked.insert(job, Asked::MintForAgent(laptop));
                }
            }
            Undo::MintForClient(person) => {
                if self.world.relay_is_up() {
                    let job = self.world.ask_admin(mint_command(self.people[person].user, Role::Client, 0));
                    self.asked.insert(job, Asked::MintForClient(person));
                }
            }
            Undo::ProviderIsGood => self.world.provider.mood = Mood::Good,
            Undo::TakesUp => self.come_back(u8::MAX),
            Undo::ComesBack(flow) => self.comes_back(flow),
            Undo::Read(exchange) => self.world.set_reading(exchange, true),
            Undo::HangsUp(exchange) => self.hang_up(exchange),
            Undo::Cuts(laptop, server) => {
                if let Some(key) = self.laptops[laptop].key {
                    self.disturb(laptop, Duration::ZERO);
                    self.world.cut_site(key, &server_name(laptop, server));
                }
            }
            Undo::Decides(laptop) => self.decide(laptop, true, false),
            Undo::DecidesOne(laptop) => self.decide_one(laptop),
            Undo::Counts(laptop) => self.calls_are_within_limits(laptop),
            Undo::ClientHears(person) => self.client_hears(person, true),
            Undo::ComesLate(person, until) => self.comes_late(person, until),
        }
    }

    /// A spoilt server starts as it did again; what failed is tried again by itself.
    pub(super) fn mend(&mut self, laptop: usize, server: usize) {
        let name = server_name(laptop, server);
        let start: Start = start_of(self.laptops[laptop].plan.servers[server].start);
        self.laptops[laptop].spoilt.remove(&server);
        let agent = match self.laptops[laptop].key {
            Some(key) => Some(self.world.look(key)),
            None => self.laptops[laptop].stored.as_deref_mut(),
        };
        if let Some(script) = agent.and_then(|agent| agent.scripts.get_mut(&name)) {
            script.start = start;
        }
    }
}

/// The longest that a slow disk of an agent takes for anything.
const SLOW: Duration = Duration::from_secs(5);

fn ms(span: u32) -> Duration {
    Duration::from_millis(span.into())
}
