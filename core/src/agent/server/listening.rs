//! Streams of changes: our own at a modern server, and those that modern clients open (2026-07-28, patterns,
//! Subscriptions).
//!
//! A modern client's subscription at a modern server is a call like any other, but that it may be silent for long. At a
//! legacy server it is made up here, of what that server tells without being asked.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use core::time::Duration;

use bytes::Bytes;

use super::lasting::{Known, Waiting};
use super::lists::List;
use super::{Held, Link, Server, State, Timer};
use crate::agent::bridge::filters::{self, Filter};
use crate::agent::caller::Caller;
use crate::agent::cx::{Cx, Report, RequestId};
use crate::backoff::Backoff;
use crate::limits;
use crate::mcp::{code, method};
use crate::rpc::{RawId, envelope};
use crate::tunnel::Outcome;

/// The streams of one run.
#[derive(Debug)]
pub(super) struct Listening {
    /// Our own at a modern server, and what it was asked for.
    own: Option<(RequestId, Filter)>,
    /// The server has no such thing.
    is_useless: bool,
    /// Our own is not acknowledged, yet or again: what the server says of its lists is heard by nobody.
    is_behind: bool,
    backoff: Backoff,
    /// What is made up for modern clients at a legacy server, and what they want to hear.
    pub(super) subscribers: BTreeMap<RequestId, Filter>,
    /// Modern clients' subscriptions that a modern server has to be asked for anew.
    pub(super) waiting: BTreeMap<RequestId, Waiting>,
    /// Between two attempts to do so while it runs.
    pub(super) again: Backoff,
    /// The lists that subscribers know, of a run that is over.
    pub(super) known: Option<Known>,
}

impl Default for Listening {
    fn default() -> Self {
        Self {
            own: None,
            is_useless: false,
            is_behind: true,
            backoff: Backoff::new(FIRST, limits::RECONNECT_MAX, limits::RECONNECT_STABLE),
            subscribers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            again: Backoff::new(FIRST, limits::RECONNECT_MAX, limits::RECONNECT_STABLE),
            known: None,
        }
    }
}

impl Listening {
    /// Drops what belongs to one run, except for who listens to it.
    pub(super) fn forget(&mut self) {
        (self.own, self.is_useless, self.is_behind) = (None, false, true);
    }

    /// Whether a client listens of whom no call tells.
    pub(super) fn is_used(&self) -> bool {
        !self.subscribers.is_empty() || !self.waiting.is_empty()
    }

    /// The clients whose subscriptions wait for a new run.
    pub(super) fn waiting(&self) -> impl ExactSizeIterator<Item = &Caller> {
        self.waiting.values().map(|waiting| &waiting.caller)
    }

    /// How many bytes are kept for those.
    pub(super) fn kept(&self) -> usize {
        self.waiting.values().map(|waiting| waiting.subscription.kept()).sum()
    }
}

impl Server {
    /// Listens to a modern server for what the agent and the sessions of legacy clients want to know; anew, if that is
    /// something else than before.
    pub(in crate::agent) fn listen(&mut self, cx: &mut Cx) {
        if !self.is_modern() || self.state != State::Ready || self.listening.is_useless {
            return;
        }
        let everything = Filter { tools: true, prompts: true, resources: true, uris: self.watched_here(cx) };
        let wanted = everything.within(self.about.capabilities.as_deref());
        if self.listening.own.as_ref().is_some_and(|(_, filter)| *filter == wanted) {
            return;
        }
        let old = self.listening.own.take();
        cx.disarm(self.slot, Timer::Listen);
        if !wanted.is_empty() {
            let request = cx.request_id();
            let params = alloc::format!("{{\"notifications\":{}}}", wanted.to_json());
            self.listening.own = Some((request, wanted));
            self.ask(request, method::SUBSCRIPTIONS_LISTEN, params.as_bytes(), cx);
        }
        if let Some((old, _)) = old {
            // What is said on the old one until the server hears of the new one is on its way where nobody reads.
            self.listening.is_behind = true;
            self.tell_cancelled(old, "what is listened for changed", cx);
        }
    }

    /// Our own stream ended. Returns whether that request was it.
    pub(super) fn heard_listen(&mut self, request: RequestId, code: Option<i64>, cx: &mut Cx) -> bool {
        if self.listening.own.as_ref().is_none_or(|(own, _)| *own != request) {
            return false;
        }
        self.listening.own = None;
        if code == Some(code::METHOD_NOT_FOUND) {
            self.listening.is_useless = true;
            return true;
        }
        self.listening.is_behind = true;
        self.listening.backoff.lost(cx.now.instant);
        let wait = self.listening.backoff.next(&mut cx.jitter);
        cx.arm(self.slot, Timer::Listen, wait);
        true
    }

    /// A notification on a subscription at a modern server. Returns whether it was one.
    pub(super) fn hear_subscribed(&mut self, method: &str, params: &Bytes, json: &Bytes, cx: &mut Cx) -> bool {
        if !self.is_modern() {
            self.tell_subscribers(method, params, json, cx);
            return false;
        }
        let Some(id) = filters::subscription(params) else { return false };
        let Some(request) = RawId::number_of(&id).map(RequestId) else { return true };
        if self.listening.own.as_ref().is_some_and(|(own, _)| *own == request) {
            match method {
                method::SUBSCRIPTIONS_ACKNOWLEDGED => {
                    self.listening.backoff.connected(cx.now.instant);
                    if core::mem::take(&mut self.listening.is_behind) {
                        self.lists_missed(cx);
                    }
                }
                // The subscription is the agent's own: no session has heard of it, nor its era of any.
                method::RESOURCE_UPDATED => self.hear_update(params, filters::untagged(json), None, cx),
                _ => self.lists_changed(List::changed_by(method), cx),
            }
        } else if method == method::SUBSCRIPTIONS_ACKNOWLEDGED {
            self.subscription_acknowledged(request, params, json, cx);
        } else if self.is_subscription(request) {
            cx.report(Report::Message { request, json: json.clone(), droppable: false });
        }
        true
    }

    /// The server ends a subscription by a cancellation (2026-07-28, Cancellation). Returns whether it was one.
    pub(super) fn hear_cancelled(&mut self, id: &RawId, cx: &mut Cx) -> bool {
        let Some(request) = id.as_number().map(RequestId) else { return false };
        if self.heard_listen(request, None, cx) {
            return true;
        }
        if !self.is_subscription(request) {
            return false;
        }
        let body = filters::ended(id.as_bytes());
        if self.close_call(request, cx).is_some() {
            cx.report(Report::Answer { request, outcome: Outcome::Result, body });
        }
        true
    }

    /// A modern client listens to a legacy server.
    pub(super) fn subscribe(&mut self, held: Held, cx: &mut Cx) {
        let Held { request, params, .. } = held;
        let Some(filter) = Filter::read(&params) else {
            let reason = alloc::format!(
                "notifications must be an object that says what to listen for, with {} URIs of {} bytes each at most",
                limits::MAX_LISTENED,
                limits::MAX_URI
            );
            return self.refuse(request, code::INVALID_PARAMS, &reason, cx);
        };
        let filter = filter.within(self.about.capabilities.as_deref());
        let json = filters::acknowledged(RawId::from_number(request.0).as_bytes(), &filter);
        cx.report(Report::Message { request, json, droppable: false });
        for uri in &filter.uris {
            if !self.is_watched(uri, cx) {
                self.tell_watch(method::RESOURCES_SUBSCRIBE, uri, cx);
            }
        }
        self.listening.subscribers.insert(request, filter);
    }

    /// A modern client does not listen any more. Returns whether that was all.
    pub(super) fn unsubscribe(&mut self, request: RequestId, cx: &mut Cx) -> bool {
        if self.listening.waiting.remove(&request).is_some() {
            return true;
        }
        let Some(filter) = self.listening.subscribers.remove(&request) else { return false };
        for uri in filter.uris {
            if self.state == State::Ready && !self.is_watched(&uri, cx) {
                self.tell_watch(method::RESOURCES_UNSUBSCRIBE, &uri, cx);
            }
        }
        true
    }

    /// Whether a modern client listens for a resource of a legacy server.
    pub(super) fn is_listened(&self, uri: &str) -> bool {
        self.listening.subscribers.values().any(|filter| filter.uris.contains(uri))
    }

    /// The resources of a legacy server that modern clients listen for.
    pub(super) fn listened(&self) -> BTreeSet<String> {
        self.listening.subscribers.values().flat_map(|filter| filter.uris.iter().cloned()).collect()
    }

    fn is_watched(&self, uri: &str, cx: &Cx) -> bool {
        self.is_listened(uri) || cx.wishes.is_watched(&self.name, uri, "")
    }

    fn tell_subscribers(&self, method: &str, params: &Bytes, json: &Bytes, cx: &mut Cx) {
        for (request, filter) in &self.listening.subscribers {
            if filter.wants(method, params)
                && let Some(json) = filters::on_subscription(json, RawId::from_number(request.0).as_bytes())
            {
                cx.report(Report::Message { request: *request, json, droppable: false });
            }
        }
    }

    /// Nobody waits for that request any more. Over HTTP, to drop its stream says so.
    pub(super) fn tell_cancelled(&mut self, request: RequestId, reason: &str, cx: &mut Cx) {
        let reason = crate::rpc::quoted(reason);
        let params = alloc::format!("{{\"requestId\":{},\"reason\":{reason}}}", request.0);
        if let Some(link) = &mut self.link {
            link.abandon(request, cx);
            link.note(envelope::notification(method::CANCELLED, params.as_bytes()), cx);
        }
    }

    /// It is time to open our stream of changes again.
    pub(super) fn listen_again(&mut self, cx: &mut Cx) {
        match &mut self.link {
            Some(Link::Http(http)) if !http.is_modern() => http.listen(cx),
            Some(Link::Http(_) | Link::Stdio(_)) | None => self.listen(cx),
        }
    }
}

/// Before our stream is opened again.
const FIRST: Duration = Duration::from_secs(1);
