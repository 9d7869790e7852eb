//! What a server tells without being asked: what belongs to a call goes on the call's stream, the rest to the sessions
//! that want it.
//!
//! That a list changed is not passed on as it is said: the relay hears of it in the catalog ([`lists`](super::lists)).

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;

use super::belonging::Whose;
use super::bridging::Bridge;
use super::lists::List;
use super::{Call, Server};
use crate::agent::bridge::Era;
use crate::agent::cx::{Cx, Report, RequestId};
use crate::agent::routing;
use crate::agent::wishes::Level;
use crate::limits;
use crate::mcp::method;
use crate::rpc::{self, RawId, object};

impl Server {
    /// A notification of the server. `on`: the request on whose stream it came (HTTP only).
    pub(super) fn hear_notification(
        &mut self,
        method: &str,
        params: &Bytes,
        json: Bytes,
        on: Option<RequestId>,
        cx: &mut Cx,
    ) {
        if self.hear_subscribed(method, params, &json, cx) {
            return;
        }
        match method {
            method::PROGRESS => self.hear_progress(params, &json, cx),
            method::TOOLS_CHANGED | method::PROMPTS_CHANGED | method::RESOURCES_CHANGED => {
                self.lists_changed(List::changed_by(method), cx);
            }
            method::CANCELLED => self.withdraw(params, json, cx),
            method::LOG_MESSAGE => self.hear_log(params, json, on, cx),
            method::RESOURCE_UPDATED => self.hear_update(params, json, on, cx),
            _ => match self.open_call(on) {
                Some(request) => self.tell(request, json, false, cx),
                None => self.hear_of_belonging(method, params, json, cx),
            },
        }
    }

    fn hear_progress(&mut self, params: &Bytes, json: &Bytes, cx: &mut Cx) {
        let Some((request, params)) = routing::progress_of(params) else { return };
        self.renew(request, cx);
        let Some(progress) = self.calls.get(&request).and_then(|call| call.progress.as_ref()) else { return };
        if let Some(json) = progress.restore(json, &params) {
            self.tell(request, json, true, cx);
        }
    }

    /// A log message. That of a process which works for one client alone belongs to it. What may be anybody's, each
    /// session hears once, and each call of a modern client that asked for it, for a log is its calls' alone there.
    fn hear_log(&mut self, params: &Bytes, json: Bytes, on: Option<RequestId>, cx: &mut Cx) {
        let level = object::get(params, "level").and_then(|raw| Level::parse(&rpc::string(&raw)?));
        let tied = || self.tied(params, &json).filter(|_| on.is_none());
        let on = self.open_call(on).map(|request| (request, json.clone()));
        if let Some((request, json)) = on.or_else(tied) {
            return self.tell_log(request, level, json, cx);
        }
        if let Some(whose) = self.belongings.whose(method::LOG_MESSAGE, params) {
            let session = whose.session.clone();
            if !session.is_empty() && cx.wishes.hears(&session, &self.name, level) {
                self.announce(Vec::from([session]), json, cx);
            }
            return;
        }
        let calls = self.logging_calls();
        if let Some(only) = self.only_client(&calls) {
            return self.tell_log(only, level, json, cx);
        }
        for request in calls {
            if self.calls.get(&request).is_some_and(|call| call.caller.era() == Era::Modern) {
                self.tell_log(request, level, json.clone(), cx);
            }
        }
        match (self.session_key(), cx.wishes.hearers(&self.name, level)) {
            (Some(own), _) => {
                if cx.wishes.hears(own, &self.name, level) {
                    self.announce(Vec::from([own.to_string()]), json, cx);
                }
            }
            (None, None) => self.announce(Vec::new(), json, cx),
            (None, Some(sessions)) if sessions.is_empty() => {}
            (None, Some(sessions)) => self.announce(sessions, json, cx),
        }
    }

    /// Tells a call's client what was logged, if it wants to hear that.
    fn tell_log(&mut self, request: RequestId, level: Option<Level>, json: Bytes, cx: &mut Cx) {
        self.renew(request, cx);
        let hears = self.calls.get(&request).is_some_and(|call| match call.caller.era() {
            // 2026-07-28, Logging: who did not set a level MUST NOT hear anything.
            Era::Modern => call.level.is_some_and(|least| level.is_none_or(|level| level >= least)),
            Era::Legacy => cx.wishes.hears(&call.caller.session, &self.name, level),
        });
        if hears {
            self.tell(request, json, true, cx);
        }
    }

    /// The call that a log message names by its progress token, and the message with the client's own token.
    fn tied(&self, params: &Bytes, json: &Bytes) -> Option<(RequestId, Bytes)> {
        [&["_meta", TOKEN][..], &[TOKEN]].into_iter().find_map(|path| {
            let request = RequestId(RawId::number_of(&object::get_path(params, path)?)?);
            let token = self.calls.get(&request)?.progress.as_ref()?.token();
            let path = [&["params"], path].concat();
            Some((request, object::set_path(json, &path, token).ok()?))
        })
    }

    /// The calls whose clients may want to hear what is logged.
    fn logging_calls(&self) -> Vec<RequestId> {
        let may_hear = |call: &Call| match (call.caller.era(), &call.bridge) {
            (_, Bridge::Subscription(_)) => false,
            (Era::Modern, _) => call.level.is_some(),
            (Era::Legacy, _) => true,
        };
        self.calls.iter().filter(|(_, call)| may_hear(call)).map(|(request, _)| *request).collect()
    }

    /// The newest of these calls, if there is but one, or all are of one session.
    fn only_client(&self, calls: &[RequestId]) -> Option<RequestId> {
        let (newest, others) = calls.split_last()?;
        let session = |request| self.calls.get(request).map(|call| &*call.caller.session);
        let own = session(newest);
        let is_one = |other| own.is_some_and(|own| !own.is_empty()) && session(other) == own;
        others.iter().all(is_one).then_some(*newest)
    }

    /// Something about a task, or a page that somebody was to visit, or of a kind that is not known here: its owner hears
    /// of it. If nobody knows whose it is, it is that of the one call in whose course it came, and else every session's.
    fn hear_of_belonging(&mut self, method: &str, params: &Bytes, json: Bytes, cx: &mut Cx) {
        match self.belongings.whose(method, params).cloned() {
            Some(Whose { call, .. }) if self.calls.get(&call).is_some_and(|call| !call.bridge.is_down()) => {
                self.tell(call, json, false, cx);
            }
            // A modern client has no stream that this could come on, and these words no meaning (2026-07-28, changelog).
            Some(Whose { session, .. }) if session.is_empty() => {}
            Some(Whose { session, .. }) => match self.open_call_of(&session) {
                Some(request) => self.tell(request, json, false, cx),
                None => self.announce(Vec::from([session]), json, cx),
            },
            None => match self.only_call(method) {
                Some(request) => self.tell(request, json, false, cx),
                None => {
                    let sessions = self.session_key().map(ToString::to_string).into_iter().collect();
                    self.announce(sessions, json, cx);
                }
            },
        }
    }

    /// The newest call of a session that a process works on: a client need not listen on any other stream. A server over
    /// HTTP says itself what belongs to a call.
    fn open_call_of(&self, session: &str) -> Option<RequestId> {
        self.child()?;
        let its = self.calls.iter().rev().find(|(_, call)| &*call.caller.session == session);
        its.map(|(request, _)| *request)
    }

    /// The call in whose course a process says something, if it can be but one client's.
    fn only_call(&self, method: &str) -> Option<RequestId> {
        self.child()?;
        let is_worked_on = |call: &Call| !call.bridge.is_subscription() && !call.bridge.is_waiting();
        let calls: Vec<_> = self.calls.iter().filter(|(_, call)| is_worked_on(call)).map(|(id, _)| *id).collect();
        let only = self.only_client(&calls)?;
        // These words have no meaning to a modern client (2026-07-28, changelog).
        let is_legacy = matches!(method, method::TASK_STATUS | method::ELICITATION_COMPLETE);
        let call = self.calls.get(&only)?;
        let hears = !call.bridge.is_parked() && (!is_legacy || call.caller.era() == Era::Legacy);
        hears.then_some(only)
    }

    /// A resource changed: those hear of it who watch it.
    pub(super) fn hear_update(&mut self, params: &Bytes, json: Bytes, on: Option<RequestId>, cx: &mut Cx) {
        let Some(uri) = object::get(params, "uri") else { return };
        let Some(uri) = rpc::string(&uri) else { return };
        let mut watchers = cx.wishes.watchers(&self.name, &uri);
        if let Some(own) = self.session_key() {
            watchers.retain(|session| session == own);
        }
        if let Some(request) = self.open_call(on) {
            let session = self.calls.get(&request).map(|call| call.caller.session.clone()).unwrap_or_default();
            let others = watchers.len();
            watchers.retain(|watcher| **watcher != *session);
            if watchers.len() < others {
                self.tell(request, json.clone(), false, cx);
            }
        }
        if !watchers.is_empty() {
            self.announce(watchers, json, cx);
        }
    }

    /// The call on whose stream something came.
    fn open_call(&self, on: Option<RequestId>) -> Option<RequestId> {
        on.filter(|request| self.calls.contains_key(request))
    }

    /// Tells the client of a call, of which something was heard.
    pub(super) fn tell(&mut self, request: RequestId, json: Bytes, droppable: bool, cx: &mut Cx) {
        self.renew(request, cx);
        if json.len() > limits::MAX_CALL_MESSAGE {
            // Sent, it would end the call.
            return tracing::debug!(server = self.name.as_str(), bytes = json.len(), "notification too large: dropped");
        }
        cx.report(Report::Message { request, json, droppable });
    }

    pub(super) fn announce(&self, sessions: Vec<String>, json: Bytes, cx: &mut Cx) {
        if self.is_modern() && self.is_dual() && self.session.is_none() {
            // Sessions are those of legacy clients, who have another run.
            return;
        }
        cx.report(Report::Notice { server: self.name.clone(), sessions, json });
    }
}

const TOKEN: &str = "progressToken";
