//! Servers that each session of a client has for itself (`isolation: "session"`).

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Agent;
use super::admission::Refusal;
use crate::agent::bridge::Era;
use crate::agent::caller::Caller;
use crate::agent::cx::{Report, Slot};
use crate::agent::pins::Edition;
use crate::agent::server::{List, Server};
use crate::config::Isolation;
use crate::limits;

impl Agent {
    /// Which run of the server in `slot` a call goes to. A call without a session goes to the shared one.
    pub(super) fn run_for(&mut self, slot: Slot, caller: &Caller) -> Result<Slot, Refusal> {
        let Some(server) = self.servers.get(&slot) else { return Ok(slot) };
        // A server of both eras speaks each client's own: only what speaks one has to be bridged.
        let branches = server.is_dual() && caller.era() == Era::Legacy;
        let is_shared = server.config().life.isolation == Isolation::Shared || caller.session.is_empty();
        let key = match (is_shared, branches) {
            (true, false) => return Ok(slot),
            (true, true) => (slot, String::new()),
            (false, _) => (slot, caller.session.to_string()),
        };
        let run = self.sessions.get(&key).copied().filter(|run| self.servers.get(run).is_some_and(Server::takes_calls));
        match run {
            Some(run) => Ok(run),
            None => self.add_run(key, caller),
        }
    }

    fn add_run(&mut self, key: (Slot, String), caller: &Caller) -> Result<Slot, Refusal> {
        let runs: Vec<&Server> = self.runs_of(key.0).filter_map(|run| self.servers.get(&run)).collect();
        if runs.len() >= limits::MAX_SESSION_RUNS {
            // The one that nobody used for longest makes room; its session gets a new one when it comes back.
            let idle = runs.iter().filter(|run| run.is_idle()).min_by_key(|run| run.last_used()).map(|run| run.slot());
            match idle.and_then(|run| self.servers.get_mut(&run)) {
                Some(run) => run.stop(&mut self.cx),
                None => {
                    let text = format!("{} sessions use a server of their own already", limits::MAX_SESSION_RUNS);
                    return Err(Refusal::limited(text));
                }
            }
        }
        let number = self.free_number(key.0);
        let Some(server) = self.servers.get(&key.0) else { return Ok(key.0) };
        let is_dual = server.is_dual();
        let (name, config) = (server.name().to_string(), server.config().clone());
        self.last_slot += 1;
        let slot = Slot(self.last_slot);
        let now = self.cx.now.instant;
        let mut run = match key.1.is_empty() {
            true => Server::branch(slot, name, config, now),
            // A session is a legacy client's.
            false => {
                let run = Server::for_session(slot, number, caller.clone(), name, config, now);
                if is_dual { run.tried() } else { run }
            }
        };
        run.start(&mut self.cx);
        self.servers.insert(slot, run);
        self.sessions.insert(key, slot);
        Ok(slot)
    }

    /// The least number that no run of that server has, one on its way out included: it names a log.
    fn free_number(&self, main: Slot) -> u32 {
        let name = self.servers.get(&main).map(Server::name);
        let of_it = |server: &&Server| Some(server.name()) == name;
        let taken: Vec<u32> = self.servers.values().filter(of_it).filter_map(Server::session_number).collect();
        (1..=u32::MAX).find(|number| !taken.contains(number)).unwrap_or(u32::MAX)
    }

    /// The run of a server of both eras for clients of the legacy one, if there is one.
    pub(super) fn branch_of(&self, main: Slot) -> Option<Slot> {
        self.sessions.get(&(main, String::new())).copied()
    }

    /// The runs of a server's sessions that take calls.
    pub(super) fn runs_of(&self, main: Slot) -> impl Iterator<Item = Slot> {
        let runs = self.sessions.iter().filter(move |((of, _), _)| *of == main).map(|(_, run)| *run);
        runs.filter(|run| self.servers.get(run).is_some_and(Server::takes_calls))
    }

    /// Ends the runs of a server's sessions: its entry changed, or somebody wants it restarted.
    pub(super) fn stop_runs(&mut self, main: Slot) {
        for run in self.runs_of(main).collect::<Vec<_>>() {
            if let Some(server) = self.servers.get_mut(&run) {
                server.stop(&mut self.cx);
            }
            self.lose_watch(main);
        }
    }

    /// Forgets the sessions whose run is over.
    pub(super) fn forget_sessions(&mut self) {
        self.sessions.retain(|_, run| self.servers.get(run).is_some_and(Server::takes_calls));
    }

    /// A further run was told what the server offers, or what it offers clients of the legacy era: so is the server
    /// itself, but for what concerns a session alone.
    pub(super) fn learn_from(&mut self, run: Slot, announced: &BTreeSet<List>) {
        let told = |run: &Server| (run.about(), run.edition(), run.session_number().is_some());
        let Some((about, edition, is_sessions)) = self.servers.get(&run).map(told) else { return };
        let main = self.sessions.iter().find(|(_, slot)| **slot == run).map(|((main, _), _)| *main);
        if let Some(server) = main.and_then(|main| self.servers.get_mut(&main)) {
            match (edition, is_sessions) {
                (Edition::Legacy, true) => return server.adopt_of_session(&about, &mut self.cx),
                (Edition::Main, true) => return server.learn(&about, &mut self.cx),
                (Edition::Legacy, false) => server.adopt(&about, &mut self.cx),
                // The one run beside the main one that all share is the one for older clients.
                (Edition::Main, false) => {}
            }
            server.count(announced, edition);
            if !announced.is_empty() {
                self.cx.report(Report::Changed(server.slot()));
            }
        }
    }
}
