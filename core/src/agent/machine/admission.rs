//! What becomes of a call before any server hears of it: passed on, held for a person, or refused.
//!
//! A relay is not trusted with this: whatever it asks for, only what the rules and the pins of this device allow gets
//! to a server.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::{Action, Agent};
use crate::agent::approvals::{Subject, Waiting};
use crate::agent::audit::Entry;
use crate::agent::bridge::Era;
use crate::agent::caller::Caller;
use crate::agent::cx::{RequestId, Slot, Timer};
use crate::agent::pins::Print;
use crate::agent::policy::{self, Scope};
use crate::agent::routing::Route;
use crate::agent::server::{Server, Why, people};
use crate::agent::tools::Tools;
use crate::audit::{Decision, End};
use crate::config::policy::{Approve, CallLimits};
use crate::id::{ConnId, StreamId};
use crate::limits;
use crate::mcp::{code, method};
use crate::names;
use crate::rpc::envelope;
use crate::tunnel::{Command, OpenHead, Outcome};

/// Why a call is not passed on.
pub(super) struct Refusal {
    decision: Decision,
    code: i64,
    pub(super) message: String,
}

impl Refusal {
    fn invalid(code: i64, message: impl Into<String>) -> Self {
        Self { decision: Decision::Invalid, code, message: message.into() }
    }

    fn denied(message: impl Into<String>) -> Self {
        Self { decision: Decision::Denied, code: code::REFUSED, message: message.into() }
    }

    pub(super) fn limited(message: impl Into<String>) -> Self {
        Self { decision: Decision::Limited, code: code::OVERLOADED, message: message.into() }
    }
}

impl Agent {
    pub(super) fn call(&mut self, conn: ConnId, stream: StreamId, head: OpenHead, params: Bytes) {
        tracing::debug!(
            call = stream.0,
            server = people(&head.server, limits::MAX_QUOTE),
            method = people(&head.method, limits::MAX_QUOTE),
            "call"
        );
        let tool = match &*head.method {
            method::TOOLS_CALL => policy::called_tool(&params).map(Arc::from),
            other => Ok(Arc::from(other)),
        };
        let caller = self.last_caller.of(&head, self.uplink.carries_messages());
        let destination = self.destination(&head).and_then(|slot| match &tool {
            Ok(_) => Ok(slot),
            Err(reason) => Err(Refusal::invalid(code::INVALID_PARAMS, *reason)),
        });
        let OpenHead { server, method, session, .. } = head;
        let (actor, client) = (caller.actor.clone(), caller.client.clone());
        let subject = Subject { actor, client, server, tool: tool.unwrap_or_default() };
        let verdict = destination.and_then(|slot| {
            self.allowed((slot, &caller), &method, &subject)?;
            let counted = self.counted(&method, &subject)?;
            Ok((slot, counted))
        });
        let request = self.cx.request_id();
        match verdict {
            Ok((slot, counted)) => {
                if !self.routes.add(request, Route { conn, stream, slot }) {
                    return tracing::debug!(call = stream.0, "second call on one stream dropped");
                }
                let now = self.cx.now.instant;
                self.cx.guard.limiter.take(&counted, now);
                let scopes = counted.into_iter().map(|(scope, _)| scope).collect();
                self.ledger.open(request, self.entry(&method, session, &subject, params.len(), scopes));
                self.pass(request, Waiting { subject, slot, caller, method, params, since: now, until: now });
            }
            Err(refusal) => {
                let entry = self.entry(&method, session, &subject, params.len(), Vec::new());
                let entry = Entry { decision: refusal.decision, ..entry };
                self.audit(&entry, End::Error(refusal.code));
                let body = envelope::error_object(refusal.code, &refusal.message, None);
                let command = Command::Answer { stream, outcome: Outcome::Error { code: refusal.code }, body };
                self.cx.out.push(Action::Tunnel { conn, command });
            }
        }
    }

    /// Passes a call on, or has it wait for a person.
    fn pass(&mut self, request: RequestId, mut call: Waiting) {
        if !self.must_ask(call.place(), &call.method, &call.subject) || self.resumes(&call) {
            return self.hand_on(request, call);
        }
        if !self.approvals.has_room(&call.caller, call.params.len()) {
            self.ledger.decide(request, Decision::Limited);
            return self.refuse(request, code::OVERLOADED, "too many calls wait for approval on this device");
        }
        let patience = core::time::Duration::from_secs(self.cx.guard.rules.policy().approval_secs);
        call.until = call.since + patience;
        tracing::warn!(
            call = request.0,
            client = &*call.subject.client,
            actor = &*call.subject.actor,
            server = &*call.subject.server,
            tool = &*people(&call.subject.tool, limits::MAX_QUOTE),
            "call waits for approval: see `mcp-local-tunnel approve`"
        );
        self.ledger.decide(request, Decision::Waiting);
        self.cx.timers.set(Timer::Approval(request), call.until);
        self.approvals.add(request, call);
    }

    /// Whether it is a call that was let pass before, with what its server asked.
    fn resumes(&self, call: &Waiting) -> bool {
        let server = self.servers.get(&call.slot);
        server.is_some_and(|server| server.resumes(&call.caller, &call.method, &call.params, &self.cx))
    }

    /// Gives a call to its server, or to its session's run of it.
    pub(super) fn hand_on(&mut self, request: RequestId, call: Waiting) {
        let run = match self.run_for(call.slot, &call.caller) {
            Ok(run) => run,
            Err(refusal) => return self.refuse_as(request, refusal),
        };
        self.routes.redirect(request, run);
        match self.servers.get_mut(&run) {
            Some(server) => server.call(request, call.caller, call.method, call.params, &mut self.cx),
            None => self.refuse(request, code::SERVER_UNAVAILABLE, "its server is gone"),
        }
    }

    /// Answers a call with its refusal.
    pub(super) fn refuse_as(&mut self, request: RequestId, refusal: Refusal) {
        self.ledger.decide(request, refusal.decision);
        self.refuse(request, refusal.code, &refusal.message);
    }

    /// Where a call goes; or the error that answers it.
    fn destination(&self, head: &OpenHead) -> Result<Slot, Refusal> {
        if self.routes.len() >= limits::MAX_STREAMS {
            return Err(Refusal::limited("too many calls at once"));
        }
        // The handshake with a server is the agent's own.
        if &*head.method == method::INITIALIZE || method::is_notification(&head.method) {
            return Err(Refusal::invalid(code::METHOD_NOT_FOUND, "this method cannot be called"));
        }
        // Never two eras in one process: what only the modern one knows comes to no run that speaks the other.
        let is_modern_alone = matches!(&*head.method, method::DISCOVER | method::SUBSCRIPTIONS_LISTEN);
        if is_modern_alone && Caller::era_of(head) == Era::Legacy {
            return Err(Refusal::invalid(code::METHOD_NOT_FOUND, "this method is of a newer protocol"));
        }
        if head.session.len() > limits::MAX_SESSION_KEY {
            return Err(Refusal::invalid(code::INVALID_REQUEST, "the key of the session is too long"));
        }
        let Some(slot) = self.names.get(&*head.server) else {
            let name = people(&head.server, limits::MAX_QUOTE);
            let message = format!("no server is named \"{name}\" on this device");
            return Err(Refusal::invalid(code::SERVER_UNAVAILABLE, message));
        };
        Ok(*slot)
    }

    /// Whether rules and pins allow a call by that client.
    pub(super) fn allowed(&self, place: (Slot, &Caller), method: &str, subject: &Subject) -> Result<(), Refusal> {
        let Subject { server, tool, .. } = subject;
        let name = || people(tool, limits::MAX_QUOTE);
        // What may not be called is taken out of the list.
        if method == method::TOOLS_LIST {
            return Ok(());
        }
        if method != method::TOOLS_CALL {
            return match self.cx.guard.rules.allows_method(server, method) {
                true => Ok(()),
                false => Err(Refusal::denied(format!("\"{}\" is not allowed by this device's policy", name()))),
            };
        }
        if !self.cx.guard.rules.allows(server, tool) {
            return Err(Refusal::denied(format!("the tool \"{}\" is not allowed by this device's policy", name())));
        }
        if !self.cx.guard.wants_list(server) {
            return Ok(());
        }
        // A run that never was ready has no list yet: it is looked at again once it has. So is what the server itself
        // does not list, where each session has a run that may.
        let is_new_to = |tools: &Tools| tools.get(tool).is_none() && self.will_have_own(place);
        let tools = self.tools_of(place).filter(|tools| !is_new_to(tools));
        match tools.and_then(|tools| tools.refusal(tool)) {
            Some(reason) => Err(Refusal::denied(format!("server \"{}\": {reason}", people(server, limits::MAX_QUOTE)))),
            None => Ok(()),
        }
    }

    /// The limits that a call counts for, if it fits into them.
    fn counted(&mut self, method: &str, subject: &Subject) -> Result<Vec<(Scope, CallLimits)>, Refusal> {
        if method != method::TOOLS_CALL && !policy::brings_content(method) {
            return Ok(Vec::new());
        }
        let limits = self.cx.guard.rules.limits(&subject.server, &subject.tool);
        self.cx.guard.limiter.check(&limits, self.cx.now.instant).map_err(Refusal::limited)?;
        Ok(limits)
    }

    /// Whether a person has to say yes first.
    pub(super) fn must_ask(&self, place: (Slot, &Caller), method: &str, subject: &Subject) -> bool {
        if method != method::TOOLS_CALL && !policy::brings_content(method) {
            return false;
        }
        let guard = &self.cx.guard;
        match guard.rules.approve(&subject.server, &subject.tool) {
            Approve::Never => false,
            _ if self.approvals.passes(subject) => false,
            Approve::First => {
                !guard.is_approved(&subject.server, subject.approved_as(), &subject.tool, &self.print(place, subject))
            }
            Approve::Always => true,
        }
    }

    /// What tells a tool's definition from others; that of a tool that nobody listed is empty.
    pub(super) fn print(&self, place: (Slot, &Caller), subject: &Subject) -> Print {
        let tool = self.tools_of(place).and_then(|tools| tools.get(&subject.tool));
        tool.map(|tool| tool.print().clone()).unwrap_or_default()
    }

    /// The tools that a client has: those of its session's own run, or else those that the server lists to its era.
    fn tools_of(&self, place: (Slot, &Caller)) -> Option<&Tools> {
        let (slot, caller) = place;
        self.own_tools(place).or_else(|| self.servers.get(&slot)?.tools_for(caller.era()))
    }

    fn own_tools(&self, (slot, caller): (Slot, &Caller)) -> Option<&Tools> {
        let run = self.servers.get(&self.own_run(slot, &caller.session)?).filter(|run| run.takes_calls());
        run.map(Server::tools).filter(|tools| !tools.is_empty())
    }

    /// Whether the client's session has a run of its own that is not there yet, or has listed nothing.
    fn will_have_own(&self, (slot, caller): (Slot, &Caller)) -> bool {
        let is_isolated = self.servers.get(&slot).is_some_and(Server::is_isolated) && !caller.session.is_empty();
        is_isolated && self.own_tools((slot, caller)).is_none()
    }

    /// Answers a call that no server works on.
    pub(super) fn refuse(&mut self, request: RequestId, code: i64, message: &str) {
        let Some(Route { conn, stream, .. }) = self.routes.take(request) else { return };
        self.close(request, End::Error(code));
        let body = envelope::error_object(code, message, None);
        let command = Command::Answer { stream, outcome: Outcome::Error { code }, body };
        self.cx.out.push(Action::Tunnel { conn, command });
    }

    /// The caller gave up, or the tunnel is gone.
    pub(super) fn cancel(&mut self, request: RequestId, route: Route, why: &Why<'_>) {
        self.close(request, End::Cancelled);
        if self.approvals.take(request).is_some() {
            self.cx.timers.clear(&Timer::Approval(request));
        } else if let Some(server) = self.servers.get_mut(&route.slot) {
            server.cancel(request, why, &mut self.cx);
        }
    }

    /// A call is over.
    pub(super) fn close(&mut self, request: RequestId, end: End) {
        if let Some(entry) = self.ledger.close(request) {
            self.cx.guard.limiter.release(&entry.scopes);
            self.audit(&entry, end);
        }
    }

    fn audit(&mut self, entry: &Entry, end: End) {
        if let Some(file) = self.cx.guard.rules.policy().audit.clone() {
            let line = entry.line(&self.user, self.identity.device.as_str(), end, self.cx.now);
            self.cx.out.push(Action::Audit { file, line });
        }
    }

    /// A tool that an old relay was not told of was asked for, and refused: noted like any other refusal.
    pub(super) fn unlisted(&mut self, listed: &str, bytes: usize) {
        let own = |server: &str| listed.strip_prefix(&names::label(server))?.strip_prefix(names::SEPARATOR);
        let found =
            self.names.iter().find_map(|(server, slot)| Some((server.clone(), *slot, own(server)?.to_string())));
        let (server, slot, tool) = found.map_or_else(
            || (String::new(), None, listed.to_string()),
            |(server, slot, tool)| (server, Some(slot), tool),
        );
        let subject =
            Subject { actor: Arc::default(), client: Arc::default(), server: server.into(), tool: tool.into() };
        let nobody = Caller::default();
        let refusal = slot.and_then(|slot| self.allowed((slot, &nobody), method::TOOLS_CALL, &subject).err());
        let decision = refusal.map_or(Decision::Invalid, |refusal| refusal.decision);
        let entry =
            Entry { decision, ..self.entry(&method::TOOLS_CALL.into(), Arc::default(), &subject, bytes, Vec::new()) };
        self.audit(&entry, End::Error(code::INVALID_PARAMS));
    }

    /// Has the file opened where there is an audit.
    pub(super) fn open_audit(&mut self) {
        self.audit_problem = None;
        if let Some(file) = self.cx.guard.rules.policy().audit.clone() {
            self.cx.out.push(Action::OpenAudit(file));
        }
    }

    fn entry(
        &self,
        method: &Arc<str>,
        session: Arc<str>,
        subject: &Subject,
        bytes: usize,
        scopes: Vec<Scope>,
    ) -> Entry {
        // A name may be as long as all params; what is kept is what a line says.
        let tool = match subject.tool.len() <= limits::MAX_QUOTE {
            true => subject.tool.clone(),
            false => people(&subject.tool, limits::MAX_QUOTE).into(),
        };
        Entry {
            subject: Subject { tool, ..subject.clone() },
            method: method.clone(),
            session,
            bytes,
            began: self.cx.now.instant,
            decision: Decision::Allowed,
            scopes,
        }
    }
}
