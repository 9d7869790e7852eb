//! What a server tells without being asked: what belongs to a call goes on the call's stream, the rest to the sessions
//! that want it.
//!
//! That a list changed is not passed on: the relay hears of it in the catalog ([`lists`](super::lists)).

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;

use super::bridging::Bridge;
use super::lists::List;
use super::{Call, Server};
use crate::agent::bridge::Era;
use crate::agent::cx::{Cx, Report, RequestId};
use crate::agent::routing;
use crate::agent::wishes::Level;
use crate::limits;
use crate::mcp::method;
use crate::rpc::{self, object};

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
                None => {
                    let sessions = self.session_key().map(ToString::to_string).into_iter().collect();
                    self.announce(sessions, json, cx);
                }
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

    /// A log message. That of a process which works on one call alone belongs to that call.
    fn hear_log(&mut self, params: &Bytes, json: Bytes, on: Option<RequestId>, cx: &mut Cx) {
        let level = object::get(params, "level").and_then(|raw| Level::parse(&rpc::string(&raw)?));
        let only = || self.logging_call().filter(|_| on.is_none());
        if let Some(request) = self.open_call(on).or_else(only) {
            self.renew(request, cx);
            let hears = self.calls.get(&request).is_some_and(|call| match call.caller.era() {
                // 2026-07-28, Logging: who did not set a level MUST NOT hear anything.
                Era::Modern => call.level.is_some_and(|least| level.is_none_or(|level| level >= least)),
                Era::Legacy => cx.wishes.hears(&call.caller.session, &self.name, level),
            });
            if hears {
                self.tell(request, json, true, cx);
            }
            return;
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

    /// The call that a log message belongs to which says nothing of it: the only one whose client may want to hear any.
    fn logging_call(&self) -> Option<RequestId> {
        let may_hear = |call: &Call| match (call.caller.era(), &call.bridge) {
            (_, Bridge::Subscription(_)) => false,
            (Era::Modern, _) => call.level.is_some(),
            (Era::Legacy, _) => true,
        };
        let mut hearers = self.calls.iter().filter(|(_, call)| may_hear(call)).map(|(request, _)| *request);
        hearers.next().filter(|_| hearers.next().is_none())
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
            watchers.retain(|watcher| *watcher != session);
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
    fn tell(&mut self, request: RequestId, json: Bytes, droppable: bool, cx: &mut Cx) {
        self.renew(request, cx);
        if json.len() > limits::MAX_CALL_MESSAGE {
            // Sent, it would end the call.
            return tracing::debug!(server = self.name.as_str(), bytes = json.len(), "notification too large: dropped");
        }
        cx.report(Report::Message { request, json, droppable });
    }

    fn announce(&self, sessions: Vec<String>, json: Bytes, cx: &mut Cx) {
        if self.is_modern() && self.is_dual() {
            // Sessions are those of legacy clients, who have another run.
            return;
        }
        cx.report(Report::Notice { server: self.name.clone(), sessions, json });
    }
}
