//! The driven machine of the agent: it takes events in, hands them to the part that they concern, and passes on what
//! the parts have to say to each other.

mod admission;
mod clients;
mod decisions;
mod entries;
mod leftovers;
mod sessions;
mod tunnel;
mod wishes;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::approvals::Approvals;
use super::audit::Ledger;
use super::caller::LastCaller;
pub use super::contract::{Action, ControlCommand, DialError, Event, Exit, Identity, Spawn, Unsaved};
use super::cx::{Cx, Slot, Timer};
use super::guard::Guard;
use super::restraint::Restraint;
use super::routing::Routes;
use super::server::{Server, people};
use super::status;
use super::uplink::{Uplink, Watch, Wish};
use crate::audit::End;
use crate::config::AgentConfig;
use crate::entropy::{self, Entropy, Seeded};
use crate::host::{Machine, MonotonicClamp};
use crate::id::{ConnId, JobId};
use crate::limits;
use crate::seal::Sealer;
use crate::secret::Secret;
use crate::signin::machine::{self as signin, Failure, Person, Signin};
use crate::time::{Deadline, Instant, Now};

/// An agent: local servers, the uplink to the relay, and the routing between them.
///
/// Servers live independently of the tunnel: what happens to it cancels calls, and touches no server.
pub struct Agent {
    cx: Cx,
    clamp: MonotonicClamp,
    config: AgentConfig,
    identity: Identity,
    phase: Phase,
    started: Instant,
    person: Person,
    /// `None` with a minted token.
    signin: Option<Signin>,
    /// Whether the sign-in has given up, and waits to be started again.
    signin_idle: bool,
    uplink: Uplink,
    watch: Watch,
    servers: BTreeMap<Slot, Server>,
    /// The servers that have an entry; the others are on their way out.
    names: BTreeMap<String, Slot>,
    /// The runs that sessions have for themselves, by the server and the session's key.
    sessions: BTreeMap<(Slot, String), Slot>,
    last_slot: u32,
    servers_started: bool,
    routes: Routes,
    last_caller: LastCaller,
    catalog: Catalog,
    /// What people should know of the agent's configuration: why it is not the one that stands in the file.
    remark: Option<String>,
    /// Restarts that wait for the configuration to be read.
    restarts: Vec<Restart>,
    approvals: Approvals,
    ledger: Ledger,
    /// Why the audit cannot be written.
    audit_problem: Option<String>,
    /// Whose device it is, as the last relay named them for logs; empty: it did not.
    user: String,
    /// When a changed network was last a reason to look at the tunnel.
    network_seen: Option<Instant>,
    /// How often the relay may have servers restarted.
    relay_restarts: Restraint,
    /// When what sessions set was kept the last time.
    wishes_kept: Option<Instant>,
    /// Servers of which sessions watch something that nobody tells them since a run of it is gone.
    unwatched: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Before [`Event::Start`].
    New,
    Running,
    /// Servers and tunnel are being ended, for this reason. `closing`: the tunnel whose end is still to come.
    Stopping {
        exit: Exit,
        closing: Option<ConnId>,
    },
    Done,
}

/// What the relay has yet to hear of the catalog.
#[derive(Debug, Default)]
struct Catalog {
    whole: bool,
    changed: BTreeSet<Slot>,
    removed: BTreeSet<String>,
    remark: bool,
}

#[derive(Debug)]
struct Restart {
    server: Option<String>,
    job: Option<JobId>,
}

impl Agent {
    /// An agent that waits for [`Event::Start`]. `token` is a minted one; without it the agent signs in.
    #[must_use]
    pub fn new(config: AgentConfig, identity: Identity, token: Option<Secret>, mut entropy: Box<dyn Entropy>) -> Self {
        // Jitter is no secret, and the sign-in needs the real source for its own.
        let jitter = Seeded::new(u64::from_le_bytes(entropy::bytes(&mut entropy)));
        let states = Sealer::new(Vec::from([Sealer::generate(&mut entropy)]));
        let settings = signin::Settings {
            relay: config.relay.clone(),
            // Whether such a relay may be used was decided when the configuration was checked.
            allow_insecure: config.relay.starts_with("http://"),
            device: identity.device.to_string(),
        };
        let signin = token.is_none().then(|| Signin::new(settings, entropy));
        let mut agent = Self {
            cx: Cx::new(jitter, identity.version.clone(), states),
            clamp: MonotonicClamp::default(),
            uplink: Uplink::new(config.relay.clone(), &identity, token),
            config,
            identity,
            phase: Phase::New,
            started: Instant::default(),
            person: Person::Absent,
            signin,
            signin_idle: false,
            watch: Watch::default(),
            servers: BTreeMap::new(),
            names: BTreeMap::new(),
            sessions: BTreeMap::new(),
            last_slot: 0,
            servers_started: false,
            routes: Routes::default(),
            last_caller: LastCaller::default(),
            catalog: Catalog::default(),
            remark: None,
            restarts: Vec::new(),
            approvals: Approvals::default(),
            ledger: Ledger::default(),
            audit_problem: None,
            user: String::new(),
            network_seen: None,
            relay_restarts: Restraint::new(limits::RELAY_RESTARTS, limits::RELAY_RESTARTS_WINDOW),
            wishes_kept: None,
            unwatched: BTreeSet::new(),
        };
        agent.cx.guard = Guard::new(agent.config.policy.clone());
        for name in agent.config.servers.keys().cloned().collect::<Vec<_>>() {
            agent.add_server(name);
        }
        agent
    }

    #[cfg(test)]
    pub(super) const fn phase(&self) -> &'static str {
        match self.phase {
            Phase::New => "new",
            Phase::Running => "running",
            Phase::Stopping { .. } => "stopping",
            Phase::Done => "done",
        }
    }

    fn begin(&mut self, now: Now) {
        self.cx.now = self.clamp.clamp(now);
        if self.watch.woke(self.cx.now) && self.phase == Phase::Running {
            tracing::info!("the machine was asleep");
            self.look_again();
        }
    }

    /// What was found out about the way to the relay may hold no longer.
    fn look_again(&mut self) {
        self.fire_early(Timer::SigninAgain);
        let wish = self.uplink.woke(&mut self.cx);
        self.grant(wish);
    }

    /// Waits until the new addresses are there to be used. A network that never settles (containers come and go) must
    /// not undo the backoff.
    fn network_changed(&mut self) {
        if self.phase == Phase::Running && self.cx.timers.get(&Timer::Network).is_none() {
            let settled = self.cx.now.instant + limits::NETWORK_SETTLES;
            let at = self.network_seen.map_or(settled, |seen| settled.max(seen + limits::NETWORK_PAUSE));
            self.cx.timers.set(Timer::Network, at);
        }
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::WishesRecalled { json } => self.recall_wishes(&json),
            Event::Start { person } => self.start(person),
            // Nothing of it was ordered before `Start`, which begins it.
            Event::Signin(_) if self.phase == Phase::New => {}
            Event::Signin(event) => self.signin_event(event),
            Event::Dialed { conn, dialect } => self.uplink.dialed(conn, dialect, &mut self.cx),
            Event::DialFailed { conn, error } if self.uplink.is_current(conn) => {
                let wish = self.uplink.dial_failed(&error, &mut self.cx);
                self.grant(wish);
            }
            Event::DialFailed { .. } => {}
            Event::Tunnel { conn, event } => self.tunnel_event(conn, event),
            Event::Nudge if self.phase == Phase::Running => {
                self.fire_early(Timer::SigninAgain);
                let wish = self.uplink.nudge(&mut self.cx);
                self.grant(wish);
            }
            Event::Nudge => {}
            Event::NetworkChanged => self.network_changed(),
            Event::Recalled { server, catalog } => {
                let slot = self.names.get(&server).copied();
                if let Some(server) = slot.and_then(|slot| self.servers.get_mut(&slot)) {
                    server.recalled(catalog.as_ref(), &mut self.cx);
                }
            }
            Event::ConfigRead(result) => self.config_read(result),
            Event::PinsLoaded { key, result } => {
                if let Some(server) = self.cx.guard.loaded(&key, result) {
                    self.judge(Some(&server));
                }
            }
            Event::PinsSaved { key, result } => {
                if let Some(server) = self.cx.guard.saved(&key, result) {
                    self.judge(Some(&server));
                }
            }
            Event::AuditWritten(result) => self.audit_problem = result.err(),
            Event::Control { job, command } => self.control(job, command),
            Event::Stop => self.stop(Exit::Stopped),
            Event::Veiled { .. }
            | Event::Spawned { .. }
            | Event::SpawnFailed { .. }
            | Event::Line { .. }
            | Event::LineTooLong { .. }
            | Event::Wrote { .. }
            | Event::OutputEnded { .. }
            | Event::Exited { .. }
            | Event::Fetch { .. } => self.server_event(event),
        }
    }

    /// Something of a server's process or fetch. One of a server that is gone finds nobody.
    fn server_event(&mut self, event: Event) {
        let slot = match &event {
            Event::Veiled { child, .. }
            | Event::Spawned { child, .. }
            | Event::SpawnFailed { child, .. }
            | Event::Line { child, .. }
            | Event::LineTooLong { child, .. }
            | Event::Wrote { child, .. }
            | Event::OutputEnded { child }
            | Event::Exited { child, .. } => self.cx.child_slot(*child),
            Event::Fetch { fetch, .. } => self.cx.fetch_slot(*fetch),
            _ => None,
        };
        let Some(server) = slot.and_then(|slot| self.servers.get_mut(&slot)) else { return };
        let cx = &mut self.cx;
        match event {
            Event::Veiled { child, veil } => server.veiled(child, veil),
            Event::Spawned { child, pid } => server.spawned(child, pid, cx),
            Event::SpawnFailed { child, error } => {
                cx.forget_child(child);
                server.spawn_failed(child, &error, cx);
            }
            Event::Line { child, line } => server.line(child, &line, cx),
            Event::LineTooLong { child, prefix, suffix, length } => {
                server.line_too_long(child, &prefix, &suffix, length, cx);
            }
            Event::Wrote { child, bytes } => server.wrote(child, bytes),
            Event::OutputEnded { child } => server.output_ended(child, cx),
            Event::Exited { child, code, signal, stderr } => {
                cx.forget_child(child);
                server.exited(child, code, signal, &stderr, cx);
            }
            Event::Fetch { fetch, event } => {
                if event.is_last() {
                    cx.forget_fetch(fetch);
                }
                server.fetched(fetch, event, cx);
            }
            _ => {}
        }
    }

    /// Does now what would be due later, if it is planned at all.
    fn fire_early(&mut self, timer: Timer) {
        if self.cx.timers.get(&timer).is_some() {
            self.cx.timers.clear(&timer);
            self.fire(timer);
        }
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Redial => {
                let wish = self.uplink.redial(&mut self.cx);
                self.grant(wish);
            }
            Timer::Watch => self.cx.timers.set(Timer::Watch, self.cx.now.instant + limits::WATCH_INTERVAL),
            Timer::SigninAgain => self.signin_event(signin::Event::Start { person: self.person }),
            Timer::Network => {
                tracing::info!("the network changed");
                self.network_seen = Some(self.cx.now.instant);
                self.look_again();
            }
            Timer::StopDeadline => {
                if let Phase::Stopping { exit, .. } = &self.phase {
                    tracing::warn!("not everything ended in time");
                    let exit = exit.clone();
                    self.exit(exit);
                }
            }
            Timer::Wishes => {}
            Timer::Approval(request) => self.approval_timed_out(request),
            Timer::Server(slot, timer) => {
                if let Some(server) = self.servers.get_mut(&slot) {
                    server.handle_timeout(timer, &mut self.cx);
                }
            }
        }
    }

    /// Passes on what the parts have to say to each other, until all is said.
    fn settle(&mut self) {
        loop {
            self.drain_signin();
            let Some(report) = self.cx.reports.pop_front() else { break };
            self.hear(report);
        }
        self.forget_sessions();
        self.servers.retain(|slot, server| !server.is_gone() || self.names.get(server.name()) == Some(slot));
        self.send_catalog();
        self.cx.guard.save(&mut self.cx.out);
        self.keep_wishes();
        self.finish();
    }

    fn exit(&mut self, exit: Exit) {
        self.keep_wishes_now();
        self.phase = Phase::Done;
        self.cx.out.push(Action::Exit(exit));
    }
}

impl Machine for Agent {
    type Event = Event;
    type Action = Action;

    fn handle_event(&mut self, event: Event, now: Now) {
        if self.phase == Phase::Done {
            return;
        }
        self.begin(now);
        self.dispatch(event);
        self.settle();
    }

    fn handle_timeout(&mut self, now: Now) {
        if self.phase == Phase::Done {
            return;
        }
        self.begin(now);
        while let Some(timer) = self.cx.timers.pop_due(self.cx.now.instant) {
            self.fire(timer);
        }
        if let Some(signin) = &mut self.signin {
            signin.handle_timeout(self.cx.now);
        }
        self.settle();
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.cx.out.pop()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        if self.phase == Phase::Done {
            return None;
        }
        let own = self.cx.timers.next().map(|(at, timer)| Deadline { at, reason: timer.reason() });
        let signin = self.signin.as_ref().and_then(Machine::poll_timeout);
        own.into_iter().chain(signin).min_by_key(|deadline| deadline.at)
    }
}

impl Agent {
    fn start(&mut self, person: Person) {
        if self.phase != Phase::New {
            return;
        }
        self.phase = Phase::Running;
        self.started = self.cx.now.instant;
        self.person = person;
        self.cx.timers.set(Timer::Watch, self.cx.now.instant + limits::WATCH_INTERVAL);
        self.open_audit();
        if self.uplink.has_token() {
            self.start_servers();
            let wish = self.uplink.dial(&mut self.cx);
            self.grant(wish);
        } else {
            self.signin_event(signin::Event::Start { person });
        }
    }

    /// Something of the sign-in.
    fn signin_event(&mut self, event: signin::Event) {
        if matches!(event, signin::Event::Start { .. }) {
            self.signin_idle = false;
            self.cx.timers.clear(&Timer::SigninAgain);
        }
        if let Some(signin) = &mut self.signin {
            signin.handle_event(event, self.cx.now);
        }
        self.drain_signin();
        // With tokens of an earlier run this device is signed in, also while the relay cannot be reached.
        if self.phase == Phase::Running && self.has_tokens() {
            self.start_servers();
        }
    }

    fn drain_signin(&mut self) {
        while let Some(action) = self.signin.as_mut().and_then(Machine::poll_action) {
            match action {
                signin::Action::Ready { access, expires } if self.phase == Phase::Running => {
                    self.start_servers();
                    let wish = self.uplink.token(access, expires, &mut self.cx);
                    self.grant(wish);
                }
                signin::Action::Failed(failure) if self.phase == Phase::Running => self.signin_failed(failure),
                signin::Action::Ready { .. } | signin::Action::Failed(_) => {}
                action => self.cx.out.push(Action::Signin(action)),
            }
        }
    }

    fn signin_failed(&mut self, failure: Failure) {
        self.signin_idle = true;
        let reason = failure.to_string();
        tracing::warn!(reason = reason.as_str(), "no token");
        self.uplink.note(people(&reason, limits::MAX_REASON));
        match failure {
            Failure::Unreachable { .. } => self.sign_in_again(),
            // Somebody has signed in there, so that it is a relay: a captive portal or a maintenance page is in between.
            Failure::NotARelay { .. } if self.has_tokens() => self.sign_in_again(),
            Failure::NotARelay { .. }
            | Failure::NeedsLogin { .. }
            | Failure::Refused { .. }
            | Failure::NotRevoked { .. }
            | Failure::Local { .. } => self.stop(Exit::NeedsLogin(failure)),
        }
    }

    /// Plans the next attempt: when the relay is dialled the next time, or, if that needs no token now, in a while.
    fn sign_in_again(&mut self) {
        let held = self.signin.as_ref().map(|signin| signin.held(self.cx.now)).unwrap_or_default();
        if !self.uplink.wait_for_token(held, &mut self.cx) {
            self.cx.timers.set(Timer::SigninAgain, self.cx.now.instant + limits::SIGNIN_RETRY.max(held));
        }
    }

    fn has_tokens(&self) -> bool {
        self.signin.as_ref().is_some_and(Signin::has_tokens)
    }

    /// Does what the uplink wants.
    fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Nothing => {}
            Wish::Signin if self.signin_idle => {
                self.signin_event(signin::Event::Start { person: self.person });
            }
            Wish::Signin => self.signin_event(signin::Event::Refused),
            Wish::Exit(exit) => self.stop(exit),
        }
    }

    /// Lets go of what clients listen to without a word: the relay keeps their streams for when this device is back.
    fn leave_subscriptions(&mut self) {
        let cx = &mut self.cx;
        let left: Vec<_> = self.servers.values_mut().flat_map(|server| server.leave_subscriptions(cx)).collect();
        for request in left {
            self.routes.take(request);
            self.close(request, End::Cancelled);
        }
    }

    /// Ends everything; asked a second time, at once.
    fn stop(&mut self, exit: Exit) {
        match self.phase {
            Phase::Done => {}
            Phase::Stopping { .. } => {
                tracing::info!("stopping at once");
                for server in self.servers.values_mut() {
                    server.kill(&mut self.cx);
                }
            }
            Phase::New | Phase::Running => {
                tracing::info!("stopping");
                self.leave_subscriptions();
                for server in self.servers.values_mut() {
                    server.stop(&mut self.cx);
                }
                let closing = self.uplink.close(&mut self.cx);
                self.cx.timers.clear(&Timer::SigninAgain);
                self.cx.timers.clear(&Timer::Network);
                self.cx.timers.set(Timer::StopDeadline, self.cx.now.instant + limits::STOP_TIMEOUT);
                for job in self.restarts.drain(..).filter_map(|restart| restart.job) {
                    let error = Some("the agent stops".to_string());
                    let json = status::json(&status::Restarted { servers: Vec::new(), error });
                    self.cx.out.push(Action::ControlReply { job, json });
                }
                self.phase = Phase::Stopping { exit, closing };
            }
        }
    }

    /// Ends the agent once nothing of it is left.
    fn finish(&mut self) {
        if let Phase::Stopping { exit, closing: None } = &self.phase
            && self.servers.values().all(Server::is_gone)
        {
            let exit = exit.clone();
            self.exit(exit);
        }
    }
}
