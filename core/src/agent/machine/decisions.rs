//! What a person decides on the control socket: calls that wait, tools that changed.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;

use super::Agent;
use crate::agent::approvals::Waiting;
use crate::agent::contract::ControlCommand;
use crate::agent::cx::{RequestId, Timer};
use crate::agent::guard;
use crate::agent::server::people;
use crate::agent::status;
use crate::audit::Decision;
use crate::config::policy::{Approve, PinMode};
use crate::limits;
use crate::mcp::code;

impl Agent {
    /// Does what a person decided; returns the answer.
    pub(super) fn decide(&mut self, command: ControlCommand) -> Bytes {
        match command {
            ControlCommand::Approvals { params } => {
                status::json(&status::Waiting { waiting: self.approvals.list(params, self.cx.now.instant) })
            }
            ControlCommand::Approve { id, always } => status::json(&self.approve(RequestId(id), always)),
            ControlCommand::Deny { id } => status::json(&self.reject(RequestId(id))),
            ControlCommand::Pins { definitions } => {
                let mode = match self.cx.guard.rules.policy().pins {
                    PinMode::Off => "off",
                    PinMode::Warn => "warn",
                    PinMode::Block => "block",
                };
                let (servers, changed) = (self.cx.guard.pinned(), self.cx.guard.changes(definitions));
                status::json(&status::Pins { mode: mode.to_string(), servers, changed })
            }
            ControlCommand::PinsApprove { server, tool } => {
                status::json(&self.accept(server.as_deref(), tool.as_deref()))
            }
            ControlCommand::Status | ControlCommand::Restart { .. } => Bytes::new(),
        }
    }

    /// Judges the tools of a server anew, or those of all.
    pub(super) fn judge(&mut self, name: Option<&str>) {
        for server in self.servers.values_mut().filter(|server| name.is_none_or(|name| name == server.name())) {
            server.judge(&mut self.cx);
        }
    }

    /// Nobody approved a call in time.
    pub(super) fn approval_timed_out(&mut self, request: RequestId) {
        let Some(waiting) = self.approvals.take(request) else { return };
        tracing::warn!(call = request.0, server = &*waiting.subject.server, "nobody approved a call in time");
        self.ledger.decide(request, Decision::Unanswered);
        let secs = waiting.until.saturating_since(waiting.since).as_secs();
        let message = format!(
            "this call needs approval on the device, and nobody gave it within {secs} s: `mcp-local-tunnel approve` there lists what waits"
        );
        self.refuse(request, code::REFUSED, &message);
    }

    fn approve(&mut self, request: RequestId, always: bool) -> status::Decided {
        let Some(waiting) = self.approvals.take(request) else { return nothing(request) };
        let subject = waiting.subject.clone();
        let first = self.cx.guard.rules.approve(&subject.server, &subject.tool) == Approve::First;
        if first {
            let print = self.print(waiting.place(), &subject);
            self.cx.guard.approve(&subject.server, subject.approved_as(), &subject.tool, &print);
        }
        // Should the pins be unreadable, a first approval is remembered here.
        if always || (first && self.must_ask(waiting.place(), &waiting.method, &subject)) {
            self.approvals.let_pass(subject.clone());
        }
        let mut decided = Vec::from([request.0]);
        let settled = !self.must_ask(waiting.place(), &waiting.method, &subject);
        if let Err(error) = self.release(request, waiting) {
            return status::Decided { decided: Vec::new(), error: Some(error) };
        }
        if settled {
            for (request, waiting) in self.approvals.take_all(&subject) {
                decided.push(request.0);
                // The rules say the same of it as of the first.
                let _ = self.release(request, waiting);
            }
        }
        status::Decided { decided, error: None }
    }

    /// Passes an approved call on, unless rules or pins forbid it by now: then for people, why.
    fn release(&mut self, request: RequestId, waiting: Waiting) -> Result<(), String> {
        self.cx.timers.clear(&Timer::Approval(request));
        match self.allowed(waiting.place(), &waiting.method, &waiting.subject) {
            Ok(()) => {
                self.ledger.decide(request, Decision::Approved);
                self.hand_on(request, waiting);
                Ok(())
            }
            Err(refusal) => {
                let why = format!("call {} was refused all the same: {}", request.0, refusal.message);
                self.refuse_as(request, refusal);
                Err(why)
            }
        }
    }

    fn reject(&mut self, request: RequestId) -> status::Decided {
        if self.approvals.take(request).is_none() {
            return nothing(request);
        }
        self.cx.timers.clear(&Timer::Approval(request));
        self.ledger.decide(request, Decision::Rejected);
        self.refuse(request, code::REFUSED, "this call was refused on the device");
        status::Decided { decided: Vec::from([request.0]), error: None }
    }

    fn accept(&mut self, server: Option<&str>, tool: Option<&str>) -> status::Accepted {
        if let Some(name) = server.filter(|name| !self.names.contains_key(*name)) {
            let known: Vec<&str> = self.names.keys().map(String::as_str).collect();
            let name = people(name, limits::MAX_QUOTE);
            let error = Some(format!("no server is named \"{name}\"; there are: {}", known.join(", ")));
            return status::Accepted { approved: Vec::new(), error };
        }
        let (mut approved, lost) = self.cx.guard.accept(server, tool);
        self.judge(server);
        for name in lost {
            let tools = self.names.get(&name).and_then(|slot| self.servers.get(slot)).map(|server| server.tools());
            approved.extend(tools.into_iter().flat_map(|tools| tools.iter()).map(|tool| guard::unknown(&name, tool)));
        }
        let unknown = tool.filter(|_| approved.is_empty());
        let error = unknown.map(|tool| format!("no tool \"{}\" waits to be approved", people(tool, limits::MAX_QUOTE)));
        status::Accepted { approved, error }
    }
}

fn nothing(request: RequestId) -> status::Decided {
    let error = Some(format!("no call {} waits for approval: see `mcp-local-tunnel approve list`", request.0));
    status::Decided { decided: Vec::new(), error }
}
