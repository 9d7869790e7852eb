//! Modern clients' subscriptions outlive the run of the server that they were opened at: a client that listens need not
//! know that a process ended, or that a connection broke.
//!
//! ```text
//!   under way ──the run ends, its stream breaks──► waiting ──ready, patience over──► under way (as another request)
//!       └─ the server stops, rests or failed ──────────┴──► ended, with a result
//! ```
//!
//! The client was told what is honoured: it is not told again. What it may have missed it is: that lists are others, and
//! of each resource that it watches that this may be another.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;
use ring::digest::{Context, Digest, SHA256};
use serde_json::value::RawValue;

use super::bridging::Bridge;
use super::{About, Call, Server, State, Timer};
use crate::agent::bridge::filters::{self, Filter};
use crate::agent::bridge::meta;
use crate::agent::caller::Caller;
use crate::agent::cx::{Cx, Report, RequestId};
use crate::agent::routing;
use crate::limits;
use crate::mcp::method;
use crate::rpc::{RawId, envelope, quoted};
use crate::tunnel::Outcome;

/// A modern client's subscription at a modern server.
#[derive(Debug)]
pub(super) struct Subscription {
    /// As they were sent; `None`: they were too large to be kept, and it ends with its run.
    params: Option<Bytes>,
    /// Its client was told what is honoured.
    is_acknowledged: bool,
    /// The lists that its client knows, should they be those of a run that is over.
    known: Option<Known>,
}

/// One whose server has to be asked anew.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) caller: Caller,
    pub(super) subscription: Subscription,
}

/// The lists of a server, each by its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known([Vec<u8>; 3]);

impl Subscription {
    /// One that is about to be asked for. `room` bytes of its params may be kept.
    pub(super) fn new(params: &Bytes, room: usize) -> Self {
        // Copied: it must not keep the whole message in memory.
        let params = (params.len() <= room.min(limits::MAX_KEPT_LISTEN)).then(|| Bytes::copy_from_slice(params));
        Self { params, is_acknowledged: false, known: None }
    }

    /// How many bytes are kept for it.
    pub(super) fn kept(&self) -> usize {
        self.params.as_ref().map_or(0, Bytes::len)
    }
}

impl Known {
    pub(super) fn of(about: &About) -> Self {
        let digest = |raws: &mut dyn Iterator<Item = &RawValue>| {
            let mut context = Context::new(&SHA256);
            for raw in raws {
                context.update(raw.get().as_bytes());
                // No JSON value holds this byte.
                context.update(b"\0");
            }
            let digest: Digest = context.finish();
            digest.as_ref().to_vec()
        };
        let About { tools, prompts, resources, templates, .. } = about;
        Self([
            digest(&mut tools.iter().map(|tool| tool.raw())),
            digest(&mut prompts.iter().map(|raw| &**raw)),
            digest(&mut resources.iter().chain(templates).map(|raw| &**raw)),
        ])
    }

    /// The notifications for whoever knows `self`, where `now` is.
    pub(super) fn news<'a>(&'a self, now: &'a Self) -> impl Iterator<Item = &'static str> + 'a {
        let methods = [method::TOOLS_CHANGED, method::PROMPTS_CHANGED, method::RESOURCES_CHANGED];
        let pairs = self.0.iter().zip(&now.0).zip(methods);
        pairs.filter(|((old, new), _)| old != new).map(|(_, method)| method)
    }
}

impl Server {
    /// Whether that is a modern client's subscription at a modern server.
    pub(super) fn is_subscription(&self, request: RequestId) -> bool {
        self.calls.get(&request).is_some_and(|call| call.bridge.is_subscription())
    }

    /// The run ends: what clients know of it, should any of them listen.
    pub(super) fn remember_lists(&mut self) {
        let is_heard = self.listening.is_used() || self.calls.values().any(|call| call.bridge.is_subscription());
        if is_heard && self.listening.known.is_none() {
            self.listening.known = Some(Known::of(&self.about));
        }
    }

    /// The run is gone, and another is to come: whoever listens waits for it.
    pub(super) fn keep_subscriptions(&mut self) {
        let kept = |call: &Call| matches!(&call.bridge, Bridge::Subscription(Subscription { params: Some(_), .. }));
        for (request, call) in self.calls.extract_if(.., |_, call| kept(call)) {
            if let Call { bridge: Bridge::Subscription(mut subscription), caller, .. } = *call {
                subscription.known = subscription.known.or_else(|| self.listening.known.clone());
                self.listening.waiting.insert(request, Waiting { caller, subscription });
            }
        }
    }

    /// The stream of a client's subscription broke, while the server goes on. Returns whether it is taken up again.
    pub(super) fn subscribes_later(&mut self, request: RequestId, cx: &mut Cx) -> bool {
        let Some(Call { bridge: Bridge::Subscription(subscription), .. }) =
            self.calls.get_mut(&request).map(Box::as_mut)
        else {
            return false;
        };
        // One that was never honoured is refused with what was said of it.
        if self.state != State::Ready || !subscription.is_acknowledged || subscription.params.is_none() {
            return false;
        }
        // It was asked for anew, and broke before anything was honoured.
        let is_futile = subscription.known.is_some();
        subscription.known = subscription.known.take().or_else(|| Some(Known::of(&self.about)));
        self.tell_cancelled(request, "it is asked for anew", cx);
        let call = self.close_call(request, cx).map(|call| *call);
        let Some(Call { bridge: Bridge::Subscription(subscription), caller, .. }) = call else {
            return false;
        };
        self.listening.again.lost(cx.now.instant);
        let wait = self.listening.again.next(&mut cx.jitter);
        if is_futile && self.listening.again.attempt() > limits::MAX_QUICK_FAILURES {
            end(request, cx);
            return true;
        }
        self.listening.waiting.insert(request, Waiting { caller, subscription });
        if cx.due_in(self.slot, Timer::Subscribe).is_none() {
            cx.arm(self.slot, Timer::Subscribe, wait);
        }
        true
    }

    /// A new run is ready: what clients listen for goes on. What the last run promised in the other era ends.
    pub(super) fn take_up_subscriptions(&mut self, cx: &mut Cx) {
        let known = self.listening.known.take();
        if self.is_modern() {
            self.end_made_up(cx);
            self.subscribe_again(cx);
        } else {
            self.end_waiting(cx);
            self.tell_missed(known, cx);
        }
    }

    /// Asks for the subscriptions that wait, each as another request.
    pub(super) fn subscribe_again(&mut self, cx: &mut Cx) {
        for (from, Waiting { caller, subscription }) in core::mem::take(&mut self.listening.waiting) {
            let request = cx.request_id();
            cx.report(Report::Moved { from, to: request });
            let params =
                subscription.params.as_ref().and_then(|params| routing::own_progress_token(params, request).ok());
            let sent = params.and_then(|(params, progress)| {
                let level = meta::log_level(&params);
                let asked = self.link.as_mut()?.ask(request, method::SUBSCRIPTIONS_LISTEN, &params, None, cx);
                asked.ok().map(|()| (level, progress))
            });
            match sent {
                Some((level, progress)) => {
                    let bridge = Bridge::Subscription(subscription);
                    let call = Call {
                        caller,
                        asked: false,
                        bridge,
                        level,
                        lists_tools: false,
                        undo: None,
                        progress,
                        refused: None,
                    };
                    self.calls.insert(request, Box::new(call));
                }
                None => end(request, cx),
            }
        }
    }

    /// A modern server says what it honours. A client hears that once; later, what it may have missed.
    pub(super) fn subscription_acknowledged(&mut self, request: RequestId, params: &Bytes, json: &Bytes, cx: &mut Cx) {
        let Some(Call { bridge: Bridge::Subscription(subscription), .. }) =
            self.calls.get_mut(&request).map(Box::as_mut)
        else {
            return;
        };
        self.listening.again.connected(cx.now.instant);
        let known = subscription.known.take();
        if !core::mem::replace(&mut subscription.is_acknowledged, true) {
            return cx.report(Report::Message { request, json: json.clone(), droppable: false });
        }
        let (Some(honoured), Some(known)) = (Filter::read(params), known) else { return };
        missed(request, &honoured, known.news(&Known::of(&self.about)), cx);
    }

    /// A legacy server runs again: whoever listens hears of what is another.
    fn tell_missed(&mut self, known: Option<Known>, cx: &mut Cx) {
        let Some(known) = known.filter(|_| !self.listening.subscribers.is_empty()) else { return };
        let now = Known::of(&self.about);
        for (request, filter) in &self.listening.subscribers {
            missed(*request, filter, known.news(&now), cx);
        }
    }

    /// No run follows, or not soon: whoever listens hears that it is over (2026-07-28, Subscriptions, Graceful Closure).
    pub(super) fn end_subscriptions(&mut self, cx: &mut Cx) {
        let straight = self.calls.iter().filter(|(_, call)| call.bridge.is_subscription());
        for request in straight.map(|(request, _)| *request).collect::<Vec<_>>() {
            self.close_call(request, cx);
            end(request, cx);
        }
        self.end_waiting(cx);
        self.end_made_up(cx);
        self.listening.known = None;
    }

    fn end_waiting(&mut self, cx: &mut Cx) {
        core::mem::take(&mut self.listening.waiting).into_keys().for_each(|request| end(request, cx));
    }

    fn end_made_up(&mut self, cx: &mut Cx) {
        core::mem::take(&mut self.listening.subscribers).into_keys().for_each(|request| end(request, cx));
    }

    /// The agent stops, and may be there again in a moment: nothing is said to those who listen, so that the relay keeps
    /// them. Returns which they are.
    pub(in crate::agent) fn leave_subscriptions(&mut self, cx: &mut Cx) -> Vec<RequestId> {
        let straight = self.calls.iter().filter(|(_, call)| call.bridge.is_subscription());
        let mut left: Vec<RequestId> = straight.map(|(request, _)| *request).collect();
        for request in &left {
            self.close_call(*request, cx);
        }
        left.extend(core::mem::take(&mut self.listening.waiting).into_keys());
        left.extend(core::mem::take(&mut self.listening.subscribers).into_keys());
        left
    }
}

/// Says on a subscription what its client may have missed.
fn missed(request: RequestId, filter: &Filter, news: impl Iterator<Item = &'static str>, cx: &mut Cx) {
    let nothing = Bytes::new();
    let lists = news.filter(|method| filter.wants(method, &nothing));
    let lists = lists.map(|method| envelope::notification(method, b""));
    let updated =
        |uri| envelope::notification(method::RESOURCE_UPDATED, format!("{{\"uri\":{}}}", quoted(uri)).as_bytes());
    let id = RawId::from_number(request.0);
    for json in lists.chain(filter.uris.iter().map(|uri| updated(uri))) {
        if let Some(json) = filters::on_subscription(&json, id.as_bytes()) {
            cx.report(Report::Message { request, json, droppable: false });
        }
    }
}

fn end(request: RequestId, cx: &mut Cx) {
    let body = filters::ended(RawId::from_number(request.0).as_bytes());
    cx.report(Report::Answer { request, outcome: Outcome::Result, body });
}
