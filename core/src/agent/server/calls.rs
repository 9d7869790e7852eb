//! The calls of a server: sent, held while it starts, cancelled, refused.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use super::bridging::{Bridge, Crossing};
use super::stdio::Full;
use super::subscriptions::Arranged;
use super::{Call, Held, Link, Server, State, Then, Timer, mirror, people};
use crate::agent::bridge::{Era, meta};
use crate::agent::caller::Caller;
use crate::agent::cx::{Cx, Report, RequestId};
use crate::agent::{policy, routing};
use crate::limits;
use crate::mcp::{code, method};
use crate::rpc::{self, envelope, object};
use crate::tunnel::Outcome;

/// Why a call is cancelled.
pub(in crate::agent) enum Why<'a> {
    /// In our own words.
    Words(&'a str),
    /// The raw params of its client's notification.
    Client(&'a Bytes),
}

impl Why<'_> {
    /// The params of the server's notification: a client's own but for the id, whatever else it says in them.
    fn params(&self, request: RequestId) -> Bytes {
        let words = |reason: &str| {
            let reason = rpc::quoted(&people(reason, limits::MAX_QUOTE));
            Bytes::from(format!("{{\"requestId\":{},\"reason\":{reason}}}", request.0))
        };
        match self {
            Self::Words(reason) => words(reason),
            Self::Client(params) => match object::Object::parse(params) {
                Ok(params) => params.set(&[("requestId", request.0.to_string().as_bytes())]),
                Err(_) => words("the client cancelled"),
            },
        }
    }
}

impl Server {
    /// A call. It gets one [`Report::Answer`], unless it is cancelled first.
    pub(in crate::agent) fn call(
        &mut self,
        request: RequestId,
        mut caller: Caller,
        method: Arc<str>,
        params: Bytes,
        cx: &mut Cx,
    ) {
        if !self.has_room(&caller) {
            return self.refuse(request, code::OVERLOADED, "it has too many calls of this client under way", cx);
        }
        cx.wishes.touch(&caller, &self.name, cx.now.unix);
        if caller.session.is_empty() {
            self.beside.meet_stranger(cx.now.instant);
        }
        if caller.era() == Era::Modern {
            // 2026-07-28, basic, Statelessness: what it can do it says with each request.
            caller.capabilities = meta::capabilities(&params);
        }
        let held = Held { request, caller, method, params };
        self.last_used = cx.now.instant;
        match self.state {
            State::Ready => self.send_call(held, cx),
            // Held until it is ready, or has failed once more.
            State::Idle
            | State::Recalling
            | State::Starting
            | State::Probing
            | State::Restarting
            | State::Stopping(_, Then::Start) => self.held.push_back(held),
            State::Asleep => {
                self.held.push_back(held);
                self.move_to_starting(cx);
            }
            State::Stopping(step, Then::Sleep) => {
                self.held.push_back(held);
                self.state = State::Stopping(step, Then::Start);
            }
            State::Failed | State::Stopped | State::Stopping(_, Then::Nothing) => {
                let reason = self.reason.clone().unwrap_or_else(|| "it is stopped".to_string());
                self.refuse(request, code::SERVER_UNAVAILABLE, &reason, cx);
            }
        }
    }

    /// Whether a caller may have one more call under way: nobody may take more than is left for others. Alone, that is
    /// half of all there is; whoever comes later finds as much as is left, and nobody finds nothing.
    fn has_room(&self, caller: &Caller) -> bool {
        if 2 * (self.calls.len() + self.held.len() + self.listening.waiting().len()) < limits::MAX_SERVER_CALLS {
            // However many of them are its own.
            return true;
        }
        let all = self.calls.values().map(|call| &call.caller).chain(self.held.iter().map(|held| &held.caller));
        let all = all.chain(self.listening.waiting());
        let (all, own) = all.fold((0, 0), |(all, own), one| (all + 1, own + usize::from(one.key() == caller.key())));
        own + all < limits::MAX_SERVER_CALLS
    }

    /// The caller gave up. No answer follows; the server is told, and may work on.
    pub(in crate::agent) fn cancel(&mut self, request: RequestId, why: &Why<'_>, cx: &mut Cx) {
        self.held.retain(|held| held.request != request);
        self.end_questions(request, cx);
        if self.unsubscribe(request, cx) {
            return;
        }
        let Some(call) = self.close_call(request, cx).filter(|call| call.bridge.is_under_way()) else { return };
        self.cancelled.add(call.caller, cx);
        if let Some(link) = &mut self.link {
            link.abandon(request, cx);
            link.note(envelope::notification(method::CANCELLED, &why.params(request)), cx);
        }
    }

    pub(super) fn send_call(&mut self, held: Held, cx: &mut Cx) {
        let request = held.request;
        if let Err((code, reason)) = self.may_send(&held.method, &held.params, cx) {
            return self.refuse(request, code, &reason, cx);
        }
        let Some(Crossing { held, bridge, level }) = self.cross(held, cx) else { return };
        let (params, undo) = match self.arrange(&held, cx) {
            Arranged::Send { params, undo } => (params, undo),
            Arranged::Done => {
                let body = Bytes::from_static(b"{}");
                return cx.report(Report::Answer { request, outcome: Outcome::Result, body });
            }
            Arranged::Refused(code, reason) => return self.refuse(request, code, reason, cx),
        };
        let Held { caller, method, .. } = held;
        let schema = self.mirrored_schema(&method, &params);
        let failed = match routing::own_progress_token(&params, request) {
            Err(_) => (code::INVALID_PARAMS, "params must be a JSON object"),
            Ok((params, progress)) => {
                let link = self.link.as_mut();
                match link.map(|link| link.ask(request, &method, &params, schema.as_ref(), cx)) {
                    Some(Ok(())) => {
                        let lists_tools = &*method == method::TOOLS_LIST;
                        let call =
                            Call { caller, asked: false, bridge, level, lists_tools, undo, progress, refused: None };
                        self.calls.insert(request, Box::new(call));
                        return self.renew(request, cx);
                    }
                    Some(Err(Full)) => (code::OVERLOADED, "it does not read what it is sent"),
                    None => (code::SERVER_UNAVAILABLE, "it is not running"),
                }
            }
        };
        if let Some(undo) = undo {
            self.take_back(undo, cx);
        }
        self.refuse(request, failed.0, failed.1, cx);
    }

    /// Whether fields of its HTTP requests repeat what is in their bodies.
    pub(super) fn repeats_in_fields(&self) -> bool {
        self.is_modern() && self.child().is_none()
    }

    /// The schema of the tool that is called, if fields of an HTTP request have to repeat arguments of it.
    pub(super) fn mirrored_schema(&self, method: &str, params: &Bytes) -> Option<Bytes> {
        if method != method::TOOLS_CALL || !self.repeats_in_fields() {
            return None;
        }
        let name = policy::called_tool(params).ok()?;
        mirror::schema_of(self.about.tools.get(&name)?.raw())
    }

    /// Asks once more what was refused with the last session.
    pub(super) fn ask_refused(&mut self, cx: &mut Cx) {
        let Some(Link::Http(http)) = &mut self.link else { return };
        for (request, call) in &mut self.calls {
            if let Some(json) = call.refused.as_mut().map(core::mem::take).filter(|json| !json.is_empty()) {
                http.request(*request, json, HeaderMap::new(), false, cx);
            }
        }
    }

    /// Forgets a call that is over.
    pub(super) fn close_call(&mut self, request: RequestId, cx: &mut Cx) -> Option<Box<Call>> {
        let mut call = self.calls.remove(&request)?;
        if let Some(undo) = call.undo.take() {
            self.take_back(undo, cx);
        }
        self.end_questions(request, cx);
        if let Bridge::Down(down) = &mut call.bridge {
            for id in down.take_open() {
                let why = "the call that this belongs to is over";
                self.note(envelope::error(Some(&id), code::CANCELLED, why, None), cx);
            }
        }
        self.last_used = cx.now.instant;
        cx.disarm(self.slot, Timer::Call(request));
        cx.disarm(self.slot, Timer::Parked(request));
        Some(call)
    }

    /// Something was heard of a call: its idle limit starts over.
    pub(super) fn renew(&mut self, request: RequestId, cx: &mut Cx) {
        // A subscription is silent for as long as nothing changes.
        let is_timed = self.calls.get(&request).is_some_and(|call| !call.bridge.is_subscription());
        if let Some(limit) = self.config.life.call_idle_secs.filter(|_| is_timed) {
            cx.arm(self.slot, Timer::Call(request), Duration::from_secs(limit));
        }
    }

    /// Nothing was heard of a call for its idle limit.
    pub(super) fn give_up(&mut self, request: RequestId, cx: &mut Cx) {
        if self.calls.contains_key(&request) {
            let limit = self.config.life.call_idle_secs.unwrap_or_default();
            let reason = format!("nothing was heard of the call for {limit} s, its `callIdleTimeout`");
            self.cancel(request, &Why::Words(&reason), cx);
            self.refuse(request, code::TIMED_OUT, &reason, cx);
        }
    }

    /// Whether its list, which may be another since the call came, still has the tool.
    fn may_send(&self, method: &str, params: &Bytes, cx: &Cx) -> Result<(), (i64, String)> {
        if method != method::TOOLS_CALL {
            return Ok(());
        }
        if !self.unusable.is_empty()
            && let Ok(name) = policy::called_tool(params)
            && let Some(reason) = self.unusable.get(&*name)
        {
            return Err((code::INVALID_PARAMS, format!("its definition of this tool must not be used: {reason}")));
        }
        if !cx.guard.wants_list(&self.name) {
            return Ok(());
        }
        let name = policy::called_tool(params).map_err(|reason| (code::INVALID_PARAMS, reason.to_string()))?;
        match self.about.tools.refusal(&name) {
            Some(reason) => Err((code::REFUSED, reason)),
            None => Ok(()),
        }
    }

    /// Answers every call, also those that wait for its start.
    pub(super) fn fail_calls(&mut self, reason: &str, cx: &mut Cx) {
        self.fail_open(reason, cx);
        for held in core::mem::take(&mut self.held) {
            self.refuse(held.request, code::SERVER_UNAVAILABLE, reason, cx);
        }
    }

    /// Answers every call that the server works on.
    pub(super) fn fail_open(&mut self, reason: &str, cx: &mut Cx) {
        for request in self.calls.keys().copied().collect::<Vec<_>>() {
            self.close_call(request, cx);
            self.refuse(request, code::SERVER_UNAVAILABLE, reason, cx);
        }
    }

    pub(super) fn refuse(&mut self, request: RequestId, code: i64, reason: &str, cx: &mut Cx) {
        self.refuse_with(request, (code, reason), None, cx);
    }

    /// The same with this raw `data`.
    pub(super) fn refuse_with(
        &mut self,
        request: RequestId,
        (code, reason): (i64, &str),
        data: Option<&str>,
        cx: &mut Cx,
    ) {
        self.end_questions(request, cx);
        let (name, reason) = (people(&self.name, limits::MAX_QUOTE), self.veil.hide(reason));
        let message = format!("server \"{name}\": {reason}");
        let body = envelope::error_object(code, &message, data.map(str::as_bytes));
        cx.report(Report::Answer { request, outcome: Outcome::Error { code }, body });
    }
}
