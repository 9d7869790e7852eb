//! The end of all faults, and what must hold soon after.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tunnel_core::agent::machine::ControlCommand;
use tunnel_core::limits;
use tunnel_core::oauth::Role;

use super::oracle::{Call, Kind, SETTLED, Verdict};
use super::plan::Tool;
use super::stage::{Stage, server_name, start_of};
use crate::disk::Health;
use crate::script::{Pace, Start};

impl Stage {
    /// Faults stop; then everything must come back within a bound, and nothing may be left over.
    pub(super) fn heal(&mut self) {
        self.world.note("── faults stop", [0; 2], &[]);
        self.mend_all();
        // Whoever sleeps wakes up first: an agent may find then that it is not wanted any more.
        let wakes = self.laptops.iter().filter_map(|laptop| laptop.key).collect::<Vec<_>>();
        let wakes = wakes.into_iter().map(|key| self.world.look(key).clock.asleep_until).max().unwrap_or_default();
        self.until(wakes.max(self.world.micros()) + 30_000_000);
        self.sign_everybody_in();
        let settled = self.laptops.iter().map(|laptop| laptop.disturbed_until).max().unwrap_or_default();
        self.until(settled.max(self.world.micros() + SETTLED) + 1);
        self.everybody_is_up();
        self.calls_end();
        self.catalogs_are_whole();
        self.everything_works();
        self.news_reach_everybody();
        self.signing_in_works();
        self.nothing_is_left_over();
    }

    pub(super) fn wait(&mut self, span: Duration) {
        self.until(self.world.micros() + crate::link::micros(span));
    }

    fn mend_all(&mut self) {
        for (_, undo) in std::mem::take(&mut self.undo) {
            // A relay that is about to stop does, and comes back.
            self.undo(undo);
        }
        for (_, undo) in std::mem::take(&mut self.undo) {
            self.undo(undo);
        }
        self.world.disk.health = Health::Good;
        if self.world.relay_clock.wall_ms != 0 {
            // Somebody sets the clock right: a provider's tokens are of no use to one that is off.
            self.world.relay_clock.wall_ms = 0;
            self.oracle.clock_is_set();
            self.world.rearm_all(None);
        }
        if !self.world.relay_is_up() {
            self.world.start_relay();
        }
        let known: Vec<_> = self.oracle.owners.keys().copied().collect();
        for key in known {
            let is_the_one = self.laptops.iter().any(|laptop| laptop.key == Some(key));
            if !is_the_one && self.world.lives(key) {
                self.end(key);
            }
        }
        for laptop in 0..self.laptops.len() {
            self.disturb(laptop, Duration::ZERO);
            self.restart(laptop, false);
            let net = self.good_net();
            let Some(key) = self.laptops[laptop].key else { continue };
            self.world.set_net(key, net);
            self.world.look(key).disk = Health::Good;
            for server in 0..self.laptops[laptop].plan.servers.len() {
                self.mend(laptop, server);
                self.world.set_pace(key, &server_name(laptop, server), Pace::Lively);
            }
            let wakes = self.world.look(key).clock.asleep_until;
            let now = self.world.micros();
            self.disturb(laptop, Duration::from_micros(wakes.saturating_sub(now)));
        }
    }

    /// Whoever has no good token gets one, and every client has a session.
    fn sign_everybody_in(&mut self) {
        for laptop in 0..self.laptops.len() {
            let it = &self.laptops[laptop];
            if self.oracle.verdict(it.token, self.world.relay_unix() + A_DAY_MS) != Verdict::Opens {
                self.laptops[laptop].token = self.mint(self.laptops[laptop].user, Role::Agent, 0);
                if let Some(key) = self.laptops[laptop].key {
                    self.end(key);
                }
            }
            self.restart(laptop, false);
        }
        for person in 0..self.people.len() {
            let it = &self.people[person];
            let is_renewed = self.oracle.verdict(it.token, self.world.relay_unix() + A_DAY_MS) != Verdict::Opens;
            if is_renewed {
                let token = self.mint(it.user, Role::Client, 0);
                let text = self.oracle.token(token).text.clone();
                let it = &mut self.people[person];
                (it.token, it.token_since) = (token, self.world.micros());
                it.client = it.client.clone().with_token(&text);
            }
            // A session outlives all that happened, but its end, the end of its grant and a clock that was set.
            let it = &self.people[person];
            if !it.client.is_ready() || is_renewed || !self.oracle.is_steady() {
                self.new_session(person);
            }
        }
    }

    fn everybody_is_up(&mut self) {
        for laptop in 0..self.laptops.len() {
            let it = &self.laptops[laptop];
            let key = it.key.unwrap_or_else(|| panic!("{} has no agent", it.device));
            let device = it.device.clone();
            let now = self.world.now_at(key).instant;
            assert!(!self.oracle.is_overdue(key, now), "{device} should have dialled");
            let status = self.world.control(key, ControlCommand::Status);
            assert_eq!(status["relay"]["state"], "connected", "{device} is not up: {status}");
        }
        for person in &self.people {
            assert!(person.client.is_ready(), "a client of {} got no session", person.user);
        }
    }

    /// Every call comes to its end by itself, the longest by the limit on silence.
    fn calls_end(&mut self) {
        let last = self.world.micros() + crate::link::micros(limits::CALL_IDLE + Duration::from_secs(60));
        let is_open =
            |stage: &Self| stage.oracle.is_at_work() || stage.oracle.calls.values().any(|call| !is_stream(call));
        while is_open(self) && self.world.micros() < last {
            self.wait(Duration::from_secs(60));
        }
        let open: Vec<_> = self.oracle.calls.values().filter(|call| !is_stream(call)).collect();
        assert!(open.is_empty(), "calls never end: {open:?}");
        self.wait(limits::PARKED_FOR);
        let untold = self.oracle.untold();
        let untold: Vec<_> = untold.into_iter().map(str::to_owned).collect();
        assert!(untold.is_empty(), "their servers work on, and were not told that nobody waits: {untold:?}");
    }

    /// What each client lists is what the model says.
    fn catalogs_are_whole(&mut self) {
        for person in 0..self.people.len() {
            let (lent, may_be_lent) = self.expected_of_libraries(self.people[person].user);
            for (index, list) in ["prompts", "resources"].into_iter().enumerate() {
                let listed = self.list(person, &format!("{list}/list"));
                let (expected, maybe) = (&lent[index], &may_be_lent[index]);
                let is_whole =
                    expected.is_subset(&listed) && listed.iter().all(|it| expected.contains(it) || maybe.contains(it));
                assert!(is_whole, "{} lists {listed:?} as {list}: {expected:?}", self.people[person].user);
            }
            let listed = self.list(person, "tools/list");
            let (expected, maybe) = self.expected_tools(self.people[person].user);
            let (missing, extra) = (expected.difference(&listed), listed.difference(&expected));
            let differs: Vec<_> = missing.chain(extra.filter(|tool| !maybe.contains(*tool))).collect();
            assert!(
                differs.is_empty(),
                "{} lists what is not there or misses what is: {differs:?}",
                self.people[person].user
            );
        }
    }

    /// The prompts and resources that must be listed, and those that may be.
    fn expected_of_libraries(&self, user: &str) -> ([BTreeSet<String>; 2], [BTreeSet<String>; 2]) {
        let (mut expected, mut maybe) = <([BTreeSet<String>; 2], [BTreeSet<String>; 2])>::default();
        let own: Vec<_> = (0..self.laptops.len()).filter(|laptop| self.laptops[*laptop].user == user).collect();
        for (laptop, server) in self.libraries(user, |_| true) {
            let plan = &self.laptops[laptop].plan.servers[server];
            let lists = match start_of(plan.start) {
                Start::Well | Start::Garbage => &mut expected,
                Start::Exit | Start::Hang | Start::Missing => &mut maybe,
            };
            let name = server_name(laptop, server);
            let prefix = if own.len() > 1 { format!("{}__{name}", self.laptops[laptop].device) } else { name.clone() };
            lists[0].insert(format!("{prefix}__hello"));
            lists[1].insert(self.resource(laptop, server));
        }
        (expected, maybe)
    }

    fn list(&mut self, person: usize, method: &str) -> BTreeSet<String> {
        self.oracle.listed = None;
        self.ask(u8::try_from(person).expect("few"), Kind::List, method, &json!({}));
        self.wait(Duration::from_secs(20));
        self.oracle.listed.take().unwrap_or_else(|| panic!("{method} is answered"))
    }

    /// What must be listed, and what may be besides: a server that ends soon after its start may have said what it has, and
    /// one that starts badly may have started well once.
    fn expected_tools(&mut self, user: &str) -> (BTreeSet<String>, BTreeSet<String>) {
        let mut maybe = BTreeSet::new();
        let own: Vec<_> = (0..self.laptops.len()).filter(|laptop| self.laptops[*laptop].user == user).collect();
        let mut expected = BTreeSet::from(["status".to_owned(), "restart".to_owned()]);
        for laptop in &own {
            let key = self.laptops[*laptop].key.expect("it is up");
            let device = self.laptops[*laptop].device.clone();
            for server in 0..self.laptops[*laptop].plan.servers.len() {
                let name = server_name(*laptop, server);
                let expected = match start_of(self.laptops[*laptop].plan.servers[server].start) {
                    Start::Well | Start::Garbage => &mut expected,
                    Start::Exit | Start::Hang | Start::Missing => &mut maybe,
                };
                let tools = self.world.look(key).scripts[&name].tools();
                let is_denied = self.laptops[*laptop].plan.servers[server].policy == 1;
                let tools = tools.iter().filter(|tool| !is_denied || tool["name"] != "blob");
                let tools = tools.map(|tool| tool["name"].as_str().expect("a script's tool has a name").to_owned());
                let prefix = if own.len() > 1 { format!("{device}__{name}") } else { name.clone() };
                expected.extend(tools.map(|tool| format!("{prefix}__{tool}")));
            }
        }
        (expected, maybe)
    }

    pub(super) fn working_servers(&self, laptop: usize) -> Vec<usize> {
        let servers = self.laptops[laptop].plan.servers.iter().enumerate();
        servers.filter(|(_, plan)| plan.start % 5 < 2).map(|(index, _)| index).collect()
    }

    /// Each client can call each server of its user's: the model demands it.
    fn everything_works(&mut self) {
        let mut waiting = Vec::new();
        for person in 0..self.people.len() {
            for laptop in 0..self.laptops.len() {
                if self.laptops[laptop].user != self.people[person].user {
                    continue;
                }
                for server in self.working_servers(laptop) {
                    let exchange = self.call(person, laptop, server, Tool::Echo, 0);
                    let call = &self.oracle.calls[&exchange];
                    let is_asked = self.laptops[laptop].plan.servers[server].policy >= 2;
                    assert!(call.is_strict || is_asked, "the model has forgotten to demand it: {call:?}");
                    waiting.extend(is_asked.then(|| call.marker.clone()));
                }
            }
        }
        // A lazy server starts first.
        self.wait(Duration::from_secs(40));
        (0..self.laptops.len()).for_each(|laptop| self.decide(laptop, true, false));
        self.wait(Duration::from_secs(60));
        let unheard: Vec<_> = waiting.iter().filter(|marker| !self.oracle.was_heard(marker)).collect();
        assert!(unheard.is_empty(), "a person approved them, and no server heard of them: {unheard:?}");
    }

    fn nothing_is_left_over(&mut self) {
        let streams = self.oracle.calls.iter().filter(|(_, call)| is_stream(call));
        for stream in streams.map(|(stream, _)| *stream).collect::<Vec<_>>() {
            self.oracle.calls.remove(&stream);
            self.world.hang_up(stream);
        }
        self.wait(Duration::from_secs(300));
        assert!(self.oracle.calls.is_empty(), "{:?}", self.oracle.calls);
        // A call whose client went away without a cancel may wait for it for long, with a question for instance.
        let last = self.world.micros() + crate::link::micros(limits::CALL_IDLE + Duration::from_secs(60));
        while self.world.micros() < last && (0..self.laptops.len()).any(|laptop| self.status(laptop)["calls"] != 0) {
            self.wait(Duration::from_secs(60));
        }
        for laptop in 0..self.laptops.len() {
            let status = self.status(laptop);
            assert!(status["calls"] == 0 && status["waiting"] == 0, "calls are left over: {status}");
        }
        // What the last of them was answered is kept for its client for a while.
        self.wait(limits::REPLAY_KEPT + Duration::from_secs(10));
        let left = self.world.relay_timeout();
        assert!(left.is_none_or(|left| left.reason == "a grant runs out"), "the relay still waits for {left:?}");
        self.books_are_empty();
        let before = self.world.steps;
        self.wait(Duration::from_secs(600));
        let steps = self.world.steps - before;
        let most = 2_000 + 2_000 * self.laptops.len() as u64;
        assert!(steps <= most, "an idle world takes {steps} steps in ten minutes");
    }

    /// No call, stream or timer is left over, nor an entry of any map that belongs to one.
    fn books_are_empty(&mut self) {
        let relay = self.world.relay.as_ref().expect("it is up");
        let left = relay.shard.leftovers();
        assert!(left.is_empty(), "left over at the relay: {left:?}");
        let busy: Vec<_> = relay.connections.iter().filter(|(_, tunnel)| !tunnel.is_idle()).collect();
        assert!(busy.is_empty(), "left over on tunnels at the relay: {busy:?}");
        for laptop in &self.laptops {
            let agent = self.world.look(laptop.key.expect("it is up"));
            let left = agent.machine.leftovers();
            assert!(left.is_empty(), "left over at {}: {left:?}", laptop.device);
            let tunnel = agent.connection.as_ref().map(|end| &end.connection);
            assert!(tunnel.is_none_or(|tunnel| tunnel.is_idle()), "left over on the tunnel of {}", laptop.device);
        }
    }

    fn status(&mut self, laptop: usize) -> Value {
        let key = self.laptops[laptop].key.expect("it is up");
        self.world.control(key, ControlCommand::Status)
    }
}

/// What is open for as long as its client likes.
const fn is_stream(call: &Call) -> bool {
    matches!(call.kind, Kind::Listen)
}

/// A token that is good for less than this is replaced before everything has to work.
const A_DAY_MS: u64 = 86_400_000;
