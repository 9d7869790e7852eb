//! A plan's world and its people.

use std::collections::BTreeMap;
use std::time::Duration;

use tunnel_core::config::policy::{Pattern, Policy};
use tunnel_core::config::{Approve, Isolation, Life, Login, Naming, RelayConfig, Transport};
use tunnel_core::id::{ExchangeId, JobId};
use tunnel_core::oauth::Role;
use tunnel_core::oauth::grants::AdminCommand;

use super::endings::Ending;
use super::faults::Undo;
use super::oracle::{Oracle, TokenId};
use super::plan::{AgentPlan, Plan, ServerPlan, Setup};
use super::signin::Office;
use crate::Client;
use crate::agent::{self, Agent};
use crate::link::Net;
use crate::sabotage::Sabotage;
use crate::script::{Era, Script, Start};
use crate::world::{AgentKey, World};
use crate::{provider, relay};

/// The users of every world.
pub(super) const USERS: [&str; 2] = ["ada", "eve"];

/// A world, its people, and the model of both.
pub(super) struct Stage {
    pub(super) world: World,
    pub(super) setup: Setup,
    pub(super) laptops: Vec<Laptop>,
    pub(super) people: Vec<Person>,
    pub(super) oracle: Oracle,
    /// Who signs in, and what came of it.
    pub(super) office: Office,
    /// What ends by itself.
    pub(super) undo: BTreeMap<(u64, u64), Undo>,
    /// What must have ended at which time.
    pub(super) endings: BTreeMap<(u64, u64), Ending>,
    /// What the operator was asked.
    pub(super) asked: BTreeMap<JobId, Asked>,
    pub(super) last: u64,
    /// There were more calls at once than the relay keeps streams of.
    pub(super) was_crowded: bool,
}

/// A device.
pub(super) struct Laptop {
    pub(super) plan: AgentPlan,
    pub(super) user: &'static str,
    pub(super) device: String,
    /// Its agent, if one runs.
    pub(super) key: Option<AgentKey>,
    /// What is left of the last one.
    pub(super) stored: Option<Box<Agent>>,
    pub(super) token: TokenId,
    /// What is wrong with it has passed by then, as far as it goes away by itself.
    pub(super) disturbed_until: u64,
    /// How often something was done to it.
    pub(super) disturbances: u64,
    /// Servers of it that are spoilt for now.
    pub(super) spoilt: BTreeMap<usize, Start>,
}

/// A client.
pub(super) struct Person {
    pub(super) client: Client,
    pub(super) user: &'static str,
    pub(super) token: TokenId,
    /// Since when it has that token, and its session.
    pub(super) token_since: u64,
    pub(super) session_since: u64,
    /// How often its token or session was changed.
    pub(super) changes: u64,
    pub(super) listening: Option<ExchangeId>,
}

/// What the operator was asked for.
pub(super) enum Asked {
    Revoke(TokenId),
    MintForAgent(usize),
    MintForClient(usize),
}

impl Stage {
    /// Everybody is there, and all is well.
    pub(super) fn new(plan: &Plan, lines: bool) -> Self {
        let mut world = World::with_config(plan.seed, config(plan.setup.provider));
        if lines {
            world.trace.lines = Some(Vec::new());
        }
        world.latency = Duration::from_millis(plan.setup.latency_ms.into());
        world.framing = plan.setup.framing;
        world.sabotage = plan.setup.sabotage;
        world.provider.denies = plan.setup.sabotage == Some(Sabotage::Gullible);
        world.relay_clock.ppm = plan.setup.relay_ppm.into();
        world.rearm_all(None);
        world.seen = Some(Vec::new());
        let mut stage = Self {
            world,
            setup: plan.setup.clone(),
            laptops: Vec::new(),
            people: Vec::new(),
            oracle: Oracle::default(),
            office: Office::default(),
            undo: BTreeMap::new(),
            endings: BTreeMap::new(),
            asked: BTreeMap::new(),
            last: 0,
            was_crowded: false,
        };
        for index in 0..plan.setup.agents.len() {
            stage.add_laptop(index);
        }
        for index in 0..plan.setup.clients.len() {
            stage.add_person(index);
        }
        stage
    }

    fn add_laptop(&mut self, index: usize) {
        let plan = self.setup.agents[index].clone();
        let user = USERS[usize::from(plan.second_user)];
        let token = self.mint(user, Role::Agent, 0);
        let device = format!("d{index}-of-{user}");
        // What has no sessions over HTTP cannot tell whose a call is.
        let has_own =
            |server: &ServerPlan| server.isolated && !plan.old && (!server.web || server.era.is_multiple_of(3));
        for (server, _) in plan.servers.iter().enumerate().filter(|(_, server)| has_own(server)) {
            self.oracle.isolated.insert((index, server_name(index, server)));
        }
        let laptop = Laptop {
            plan,
            user,
            device,
            key: None,
            stored: None,
            token,
            disturbed_until: super::oracle::SETTLED,
            disturbances: 0,
            spoilt: BTreeMap::new(),
        };
        self.laptops.push(laptop);
        let agent = self.fresh_agent(index);
        self.start(index, agent);
    }

    fn add_person(&mut self, index: usize) {
        let plan = self.setup.clients[index].clone();
        let user = USERS[usize::from(plan.second_user)];
        let token = self.mint(user, Role::Client, plan.token_secs);
        let text = self.oracle.token(token).text.clone();
        let version = ["2025-11-25", "2025-06-18", "2025-03-26"][usize::from(plan.age) % 3];
        let client = if plan.modern { Client::modern(&text) } else { Client::new(&text).speaking(version) };
        let (token_since, session_since) = (self.world.micros(), self.world.micros());
        self.people.push(Person { client, user, token, token_since, session_since, changes: 0, listening: None });
        self.new_session(index);
    }

    /// A token of a good relay, at once.
    pub(super) fn mint(&mut self, user: &'static str, role: Role, secs: u32) -> TokenId {
        let job = self.world.ask_admin(mint_command(user, role, secs));
        let end = self.world.micros() + 10_000_000;
        loop {
            let seen = self.world.seen.as_mut().expect("it is observed");
            let answer = seen.iter().position(|seen| matches!(seen, crate::Seen::Admin { job: of, .. } if *of == job));
            if let Some(index) = answer
                && let crate::Seen::Admin { answer, .. } = seen.remove(index)
            {
                return self.oracle.minted(&answer).unwrap_or_else(|| panic!("a token: {answer}"));
            }
            assert!(self.world.step(end), "a good relay answers its operator");
        }
    }

    /// A laptop's agent as it is when it is new.
    pub(super) fn fresh_agent(&self, index: usize) -> Agent {
        let laptop = &self.laptops[index];
        let names: Vec<_> = (0..laptop.plan.servers.len()).map(|server| server_name(index, server)).collect();
        let named = names.iter().zip(&laptop.plan.servers);
        let scripts = named.map(|(name, plan)| (name.clone(), script(plan, library(laptop.user, name)))).collect();
        let mut config = agent::config(names.iter().map(String::as_str));
        for (name, plan) in names.iter().zip(&laptop.plan.servers) {
            let isolation = if plan.isolated { Isolation::Session } else { Isolation::Shared };
            let idle_stop_secs = plan.lazy.then_some(60);
            let life = Life { lazy: plan.lazy, idle_stop_secs, isolation, ..Life::default() };
            let server = config.servers.get_mut(name).expect("it was just put there");
            server.life = life;
            if plan.web {
                let url = format!("{}{name}", crate::site::ORIGIN);
                server.transport = Transport::Http { url, headers: BTreeMap::new() };
            }
            config.policy.servers.insert(name.clone(), policy(plan));
        }
        let token = &self.oracle.token(laptop.token).text;
        let seed = self.world.next_agent_seed();
        let id = format!("id-of-{}", laptop.device);
        let mut agent = Agent::configured(config, &laptop.device, &id, token, scripts, seed);
        agent.clock.ppm = laptop.plan.ppm.into();
        agent.is_old = laptop.plan.old;
        agent
    }

    /// A laptop's agent starts.
    pub(super) fn start(&mut self, index: usize, mut agent: Agent) {
        let net = self.laptops[index].key.map(|key| self.world.net(key));
        // A laptop that is started again is awake.
        agent.clock.lost -= agent.clock.asleep_until.saturating_sub(self.world.micros());
        agent.clock.asleep_until = 0;
        let key = self.world.add_agent(agent);
        let net = net.map_or(self.good_net(), |net| Net { blocked: [false; 2], ..net });
        self.world.set_net(key, net);
        self.laptops[index].key = Some(key);
        self.oracle.owners.insert(key, index);
    }

    /// The network as it is when nothing is wrong.
    pub(super) fn good_net(&self) -> Net {
        let latency = Duration::from_millis(self.setup.latency_ms.into());
        Net { jitter: latency / 4, ..Net::good(latency) }
    }

    /// The agent of a laptop is gone; what it leaves is kept for the next one.
    pub(super) fn end(&mut self, key: AgentKey) {
        let Some(was) = self.world.kill_agent(key) else { return };
        let left = self.oracle.agent_gone(key);
        self.end_of_calls(&left, "its agent is gone");
        let Some(index) = self.oracle.owners.get(&key).copied() else { return };
        // What sessions set is on its disk a second later, or a few where that was slow.
        self.oracle.doubt_watches(index, self.world.micros().saturating_sub(8_000_000));
        let laptop = &mut self.laptops[index];
        if laptop.key == Some(key) {
            laptop.key = None;
            laptop.stored = Some(Box::new(was));
        }
    }

    /// The laptop's agent starts again on what the last one left.
    pub(super) fn restart(&mut self, index: usize, lose: bool) {
        if self.laptops[index].key.is_some() {
            return;
        }
        let Some(stored) = self.laptops[index].stored.take() else { return };
        if lose {
            self.oracle.doubt_watches(index, 0);
        }
        let token = self.oracle.token(self.laptops[index].token).text.clone();
        let agent = stored.reborn(&token, self.world.next_agent_seed(), lose);
        self.start(index, agent);
    }

    /// The laptop that a plan's number means.
    pub(super) fn laptop(&self, number: u8) -> Option<usize> {
        usize::from(number).checked_rem(self.laptops.len())
    }

    /// The laptop of `user` that a plan's number means.
    pub(super) fn laptop_of(&self, user: &str, number: u8) -> Option<usize> {
        let own: Vec<_> = (0..self.laptops.len()).filter(|index| self.laptops[*index].user == user).collect();
        own.get(usize::from(number).checked_rem(own.len())?).copied()
    }

    pub(super) fn person(&self, number: u8) -> Option<usize> {
        usize::from(number).checked_rem(self.people.len())
    }

    pub(super) fn server(&self, laptop: usize, number: u8) -> Option<usize> {
        usize::from(number).checked_rem(self.laptops[laptop].plan.servers.len())
    }

    /// Something is wrong with a laptop until `span` is over, and then for as long as it takes to get over it.
    pub(super) fn disturb(&mut self, laptop: usize, span: Duration) {
        let until = self.world.micros() + crate::link::micros(span) + super::oracle::SETTLED;
        let laptop = &mut self.laptops[laptop];
        laptop.disturbed_until = laptop.disturbed_until.max(until);
        laptop.disturbances += 1;
    }

    /// The same with all of them.
    pub(super) fn disturb_all(&mut self, span: Duration) {
        (0..self.laptops.len()).for_each(|laptop| self.disturb(laptop, span));
    }

    pub(super) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Has something end after a while.
    pub(super) fn later(&mut self, span: Duration, undo: Undo) {
        let number = self.number();
        self.undo.insert((self.world.micros() + crate::link::micros(span), number), undo);
    }
}

/// How the relay is configured: with a provider, or with users of its own.
fn config(with_provider: bool) -> RelayConfig {
    let plain = relay::config(Naming::Auto);
    if with_provider { RelayConfig { login: Login::Oidc(provider::config()), ..plain } } else { plain }
}

/// What a server of a laptop is called.
pub(super) fn server_name(laptop: usize, server: usize) -> String {
    format!("s{laptop}{server}")
}

pub(super) fn start_of(kind: u8) -> Start {
    [Start::Well, Start::Garbage, Start::Exit, Start::Hang, Start::Missing][usize::from(kind) % 5]
}

/// What the URIs of a server have in them.
pub(super) fn library(user: &str, server: &str) -> String {
    format!("{server}-of-{user}")
}

fn policy(plan: &ServerPlan) -> Policy {
    let (deny, approve) = match plan.policy {
        1 => (vec![Pattern::of_server("blob")], Approve::Never),
        2 => (Vec::new(), Approve::First),
        3 => (Vec::new(), Approve::Always),
        _ => (Vec::new(), Approve::Never),
    };
    Policy { deny, approve, ..Policy::default() }
}

fn script(plan: &ServerPlan, library: String) -> Script {
    Script {
        is_watchable: plan.library,
        library: plan.library.then_some(library),
        start: start_of(plan.start),
        era: [Era::Legacy, Era::Modern, Era::Both][usize::from(plan.era) % 3],
        page: plan.page.into(),
        ..Script::default()
    }
}

pub(super) fn mint_command(user: &str, role: Role, secs: u32) -> AdminCommand {
    let lifetime_secs = if secs == 0 { 86_400 * 30 } else { secs.into() };
    AdminCommand::TokenCreate {
        user: user.to_owned(),
        role,
        scope: String::new(),
        label: "world".to_owned(),
        lifetime_secs,
    }
}
