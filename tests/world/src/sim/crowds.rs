//! Clients that ask for much at once, that are far away, and that want the same.

use std::time::Duration;

use serde_json::Value;
use tunnel_core::agent::machine::ControlCommand;
use tunnel_core::id::ExchangeId;
use tunnel_core::limits;

use super::faults::Undo;
use super::plan::{Act, Tool};
use super::stage::Stage;

impl Stage {
    /// Does what crowds and distant clients do; `false`: it is something else.
    pub(super) fn crowd(&mut self, act: &Act) -> bool {
        match *act {
            Act::Crowd { client, agent, server, how, count } => {
                let Some(person) = self.person(client) else { return true };
                let Some(laptop) = self.laptop_of(self.people[person].user, agent) else { return true };
                let Some(server) = self.server(laptop, server) else { return true };
                if self.people[person].client.is_ready() {
                    self.asks_for_much((person, laptop, server), how, count.into());
                }
            }
            Act::Rivals { agent } => {
                if let Some(laptop) = self.laptop(agent) {
                    self.rivals(laptop);
                }
            }
            Act::ClientNet { client, how, ms } => {
                if let Some(person) = self.person(client) {
                    self.break_client_net(person, how, ms);
                }
            }
            _ => return false,
        }
        true
    }

    /// What comes near the limits: others may be refused meanwhile.
    fn asks_for_much(&mut self, (person, laptop, server): (usize, usize, usize), how: u8, count: u32) {
        self.disturb(laptop, Duration::from_secs(60));
        self.was_crowded |= how.is_multiple_of(3) && count as usize >= limits::MAX_REPLAYS / 2;
        let calls: Vec<ExchangeId> = match how % 3 {
            0 => (0..count).map(|_| self.call(person, laptop, server, Tool::Wait, 4_000)).collect(),
            1 => vec![self.call(person, laptop, server, Tool::Blob, 1_000_000 + count * 2_000)],
            _ => vec![self.call(person, laptop, server, Tool::Flood, count)],
        };
        self.later(Duration::from_secs(1), Undo::Counts(laptop));
        for exchange in &calls {
            if let Some(call) = self.oracle.calls.get_mut(exchange) {
                call.is_strict = false;
            }
        }
        if let (1.., [exchange]) = (how % 3, &calls[..]) {
            self.world.trace.cover("a client does not read what is much");
            self.stops_hearing(*exchange);
            // Some read on before the relay gives it up, some do not.
            let patience = if count.is_multiple_of(2) { limits::STALL_TIMEOUT + Duration::from_secs(20) } else { SOON };
            self.later(patience, Undo::Read(*exchange));
            self.wait(patience);
        }
    }

    /// A device and each of its servers hold no more calls than they may.
    pub(super) fn calls_are_within_limits(&mut self, laptop: usize) {
        let Some(key) = self.laptops[laptop].key.filter(|key| !self.world.is_asleep(*key)) else { return };
        let status = self.world.control(key, ControlCommand::Status);
        let count = |of: &Value| usize::try_from(of["calls"].as_u64().expect("calls are counted")).expect("few");
        assert!(count(&status) <= limits::MAX_STREAMS, "a device holds too many calls: {status}");
        let servers = status["servers"].as_array().expect("servers are told of");
        let is_kept = servers.iter().all(|server| count(server) <= limits::MAX_SERVER_CALLS);
        assert!(is_kept, "a server holds too many calls: {status}");
    }

    /// Everybody wants the same of a server that asks its person first.
    fn rivals(&mut self, laptop: usize) {
        let plans = &self.laptops[laptop].plan.servers;
        let Some(server) = plans.iter().position(|server| server.policy >= 2) else { return };
        let user = self.laptops[laptop].user;
        let able = |person: &usize| self.people[*person].user == user && self.people[*person].client.is_ready();
        let people: Vec<_> = (0..self.people.len()).filter(able).collect();
        if people.len() > 1 {
            self.world.trace.cover("several clients wait for one person");
        }
        for person in people {
            self.call(person, laptop, server, Tool::Echo, 0);
        }
        self.later(Duration::from_secs(1), Undo::DecidesOne(laptop));
    }

    fn break_client_net(&mut self, person: usize, how: u8, ms: u32) {
        match how % 3 {
            0 => {
                self.world.trace.cover("a client's connections broke");
                self.people[person].listening = None;
                self.open_for(person).into_iter().for_each(|exchange| self.hang_up(exchange));
            }
            1 => {
                self.world.trace.cover("a client was cut off for a while");
                self.client_hears(person, false);
                self.later(Duration::from_millis(ms.into()), Undo::ClientHears(person));
            }
            _ => {
                self.world.trace.cover("a client was far away");
                self.comes_late(person, self.world.micros() + u64::from(ms) * 1000);
            }
        }
    }

    fn open_for(&self, person: usize) -> Vec<ExchangeId> {
        let own = self.oracle.calls.iter().filter(|(_, call)| call.person == person);
        own.map(|(exchange, _)| *exchange).collect()
    }

    /// Whether anything gets through to a client, of what it waits for now.
    pub(super) fn client_hears(&mut self, person: usize, hears: bool) {
        for exchange in self.open_for(person) {
            if hears {
                self.world.set_reading(exchange, true);
            } else {
                self.stops_hearing(exchange);
            }
        }
    }

    /// What came meanwhile gets to a client that is far away.
    pub(super) fn comes_late(&mut self, person: usize, until: u64) {
        self.client_hears(person, true);
        if self.world.micros() < until {
            self.client_hears(person, false);
            self.later(FAR_AWAY, Undo::ComesLate(person, until));
        }
    }

    fn stops_hearing(&mut self, exchange: ExchangeId) {
        self.oracle.stops_reading(exchange);
        self.world.set_reading(exchange, false);
    }
}

/// How late what the relay says comes to a client that is far away.
const FAR_AWAY: Duration = Duration::from_millis(700);
/// When somebody reads on.
const SOON: Duration = Duration::from_secs(8);
