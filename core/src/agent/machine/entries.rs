//! The servers and their entries in the configuration: added, changed, removed, restarted; and the control socket.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Action, Agent, Phase, Restart};
use crate::agent::bridge::Era;
use crate::agent::contract::ControlCommand;
use crate::agent::cx::Slot;
use crate::agent::server::{Server, people};
use crate::agent::status;
use crate::config::AgentConfig;
use crate::id::JobId;
use crate::limits;

impl Agent {
    pub(super) fn add_server(&mut self, name: String) {
        let Some(config) = self.config.servers.get(&name).cloned() else { return };
        if self.names.len() >= limits::MAX_SERVERS {
            return tracing::warn!(server = name.as_str(), "too many servers: left out");
        }
        self.cx.guard.watch(&name, &config, &mut self.cx.out);
        self.last_slot += 1;
        let slot = Slot(self.last_slot);
        let mut server = Server::new(slot, name.clone(), config, self.cx.now.instant);
        if self.servers_started {
            server.start(&mut self.cx);
        }
        self.names.insert(name, slot);
        self.servers.insert(slot, server);
    }

    fn remove_server(&mut self, name: &str) {
        let Some(slot) = self.names.remove(name) else { return };
        self.stop_runs(slot);
        if let Some(server) = self.servers.get_mut(&slot) {
            server.stop(&mut self.cx);
        }
        self.catalog.changed.remove(&slot);
        self.cx.guard.forget(name);
        self.cx.wishes.forget_server(name);
        self.catalog.removed.insert(name.to_string());
    }

    pub(super) fn start_servers(&mut self) {
        if !core::mem::replace(&mut self.servers_started, true) {
            for server in self.servers.values_mut() {
                server.start(&mut self.cx);
            }
        }
    }

    pub(super) fn control(&mut self, job: JobId, command: ControlCommand) {
        match command {
            ControlCommand::Status => {
                let json = status::json(&self.status());
                self.cx.out.push(Action::ControlReply { job, json });
            }
            ControlCommand::Restart { server } => self.restart(server, Some(job)),
            ControlCommand::Approvals { .. }
            | ControlCommand::Approve { .. }
            | ControlCommand::Deny { .. }
            | ControlCommand::Pins { .. }
            | ControlCommand::PinsApprove { .. } => {
                let json = self.decide(command);
                self.cx.out.push(Action::ControlReply { job, json });
            }
        }
    }

    /// A restart is wanted: the configuration is read first, since that is why people restart things.
    pub(super) fn restart(&mut self, server: Option<String>, job: Option<JobId>) {
        if self.phase != Phase::Running || self.restarts.len() >= limits::MAX_PENDING_RESTARTS {
            let error = Some("the agent cannot do that now".to_string());
            if let Some(job) = job {
                let json = status::json(&status::Restarted { servers: Vec::new(), error });
                self.cx.out.push(Action::ControlReply { job, json });
            }
            return;
        }
        tracing::info!(server = server.as_deref().unwrap_or("*"), "restart wanted");
        if self.restarts.is_empty() {
            self.cx.out.push(Action::ReadConfig);
        }
        self.restarts.push(Restart { server, job });
    }

    pub(super) fn config_read(&mut self, result: Result<AgentConfig, String>) {
        if self.phase != Phase::Running {
            return;
        }
        let (touched, problem) = match result {
            Ok(config) => (self.apply(config), None),
            Err(reason) => {
                tracing::warn!(reason = reason.as_str(), "configuration not read: the old entries stay");
                let problem = format!("the configuration could not be read, so the old one stays: {reason}");
                self.remark(Some(people(&problem, limits::MAX_REASON)));
                (BTreeSet::new(), Some(problem))
            }
        };
        for restart in core::mem::take(&mut self.restarts) {
            let answer = self.restart_now(restart.server, &touched, problem.clone());
            if let Some(job) = restart.job {
                self.cx.out.push(Action::ControlReply { job, json: status::json(&answer) });
            }
        }
    }

    /// Sets what people should know, and tells the relay: whoever asked it for a restart hears nothing else of this.
    fn remark(&mut self, remark: Option<String>) {
        if self.remark != remark {
            self.remark = remark;
            self.catalog.remark = true;
        }
    }

    /// Makes the servers those of `config`. Returns the names of those that changed.
    fn apply(&mut self, config: AgentConfig) -> BTreeSet<String> {
        let mut touched = BTreeSet::new();
        let at_start = |config: &AgentConfig| {
            (config.relay.clone(), config.name.clone(), config.token.clone(), config.ca_file.clone())
        };
        let needs_start = at_start(&config) != at_start(&self.config);
        if needs_start {
            tracing::warn!(NEEDS_START);
        }
        self.remark(needs_start.then(|| NEEDS_START.to_string()));
        for name in self.names.keys().filter(|name| !config.servers.contains_key(*name)).cloned().collect::<Vec<_>>() {
            self.remove_server(&name);
            touched.insert(name);
        }
        if self.cx.guard.set_policy(config.policy) {
            tracing::info!("the policy is another now");
            self.open_audit();
        }
        self.config.servers = config.servers;
        for (name, config) in self.config.servers.clone() {
            let slot = self.names.get(&name).copied();
            let is_changed = |server: &Server| *server.config() != config;
            if let Some(slot) = slot.filter(|slot| self.servers.get(slot).is_some_and(is_changed)) {
                self.stop_runs(slot);
            }
            match slot.and_then(|slot| self.servers.get_mut(&slot)) {
                Some(server) if *server.config() == config => {}
                Some(server) => {
                    server.restart(Some(config), &mut self.cx);
                    touched.insert(name);
                }
                None => {
                    self.add_server(name.clone());
                    touched.insert(name);
                }
            }
        }
        for (name, config) in &self.config.servers {
            self.cx.guard.watch(name, config, &mut self.cx.out);
            self.cx.guard.look_again(name, &mut self.cx.out);
        }
        self.judge(None);
        touched
    }

    fn restart_now(
        &mut self,
        server: Option<String>,
        touched: &BTreeSet<String>,
        problem: Option<String>,
    ) -> status::Restarted {
        let mut answer = status::Restarted { servers: touched.iter().cloned().collect(), error: problem };
        let wanted: Vec<String> = match server {
            None => self.names.keys().cloned().collect(),
            Some(name) if self.names.contains_key(&name) || touched.contains(&name) => Vec::from([name]),
            Some(name) => {
                let known: Vec<&str> = self.names.keys().map(String::as_str).collect();
                let name = people(&name, limits::MAX_QUOTE);
                answer.error = Some(format!("no server is named \"{name}\"; there are: {}", known.join(", ")));
                return answer;
            }
        };
        for name in wanted.into_iter().filter(|name| !touched.contains(name)) {
            let slot = self.names.get(&name).copied();
            if let Some(slot) = slot {
                self.stop_runs(slot);
            }
            if let Some(server) = slot.and_then(|slot| self.servers.get_mut(&slot)) {
                server.restart(None, &mut self.cx);
                answer.servers.push(name);
            }
        }
        answer
    }

    fn status(&self) -> status::Document {
        let now = self.cx.now.instant;
        let current = self.names.values().filter_map(|slot| Some((*slot, self.servers.get(slot)?)));
        status::Document {
            version: self.identity.version.clone(),
            device: self.identity.device.as_str().to_string(),
            device_id: self.identity.device_id.as_str().to_string(),
            relay: self.uplink.status(&self.cx),
            remark: self.remark.clone(),
            servers: current.map(|(slot, server)| self.server_status(slot, server)).collect(),
            calls: self.routes.len(),
            waiting: self.approvals.len(),
            changed_tools: self.cx.guard.changes(false),
            problems: self.problems(),
            uptime_secs: now.saturating_since(self.started).as_secs(),
        }
    }

    /// A server with the runs of its sessions.
    fn server_status(&self, slot: Slot, server: &Server) -> status::Server {
        let runs: Vec<&Server> = self.runs_of(slot).filter_map(|run| self.servers.get(&run)).collect();
        let mut status = server.status(&self.cx);
        status.sessions = runs.len();
        status.calls += runs.iter().map(|run| run.open_calls()).sum::<usize>();
        status
    }

    /// What keeps the agent from doing all it should.
    fn problems(&self) -> Vec<String> {
        let audit =
            |why| people(&format!("the audit cannot be written, and calls pass without it: {why}"), limits::MAX_REASON);
        let mut problems: Vec<String> = self.audit_problem.iter().map(audit).chain(self.cx.guard.problems()).collect();
        for server in self.names.values().filter_map(|slot| self.servers.get(slot)) {
            let (name, tools) = (server.name(), server.tools());
            if tools.is_empty() {
                continue;
            }
            let is_other = |idle: &&str| server.tools_for(Era::Legacy).is_none_or(|tools| tools.get(idle).is_none());
            for idle in self.cx.guard.rules.idle(name, tools).filter(is_other) {
                let (name, idle) = (people(name, limits::MAX_QUOTE), people(idle, limits::MAX_QUOTE));
                problems.push(format!("the policy of {name} names \"{idle}\", which none of its tools is called"));
            }
        }
        problems
    }
}

const NEEDS_START: &str =
    "relay, name, token and caFile are read at the start alone: start the agent again to use new ones";
