//! Clients without a handshake that listen for changes (2026-07-28, Subscriptions): `subscriptions/listen` on `/mcp`. On
//! an endpoint of one server it is a call like any other, but one that lasts.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::failure::Failure;
use super::lists::Lists;
use super::outlet::Outlet;
use super::shard::{Cx, Lease};
use crate::id::{ExchangeId, FamilyId};
use crate::mcp::{key, method};
use crate::rpc::{RawId, envelope, object, quoted};
use crate::time::UnixTime;

/// The subscriptions of one user.
#[derive(Debug, Default)]
pub(super) struct Subscriptions(BTreeMap<ExchangeId, Subscription>);

/// A subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    outlet: Outlet,
    /// The client's id of its request: every message on the stream carries it.
    id: RawId,
    pub(super) family: FamilyId,
    expires: UnixTime,
    wants: Wants,
    /// The lists that the client knows, as far as is known here.
    seen: Lists,
    /// The client may have read its list before the last change.
    stale: bool,
    /// It was said what is honoured, which comes first.
    acknowledged: bool,
}

/// Which notices a client wants and gets: never one that it did not ask for. What `/mcp` has none of is left out of
/// what is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wants {
    /// That the list of tools changed.
    tools: bool,
    prompts: bool,
    /// Of resources or their templates.
    resources: bool,
}

/// Who subscribes.
pub(super) struct Subscriber {
    pub(super) id: RawId,
    /// The grant that the stream ends with, and when that is at the latest.
    pub(super) family: FamilyId,
    pub(super) expires: UnixTime,
}

impl Wants {
    /// What the params of `subscriptions/listen` ask for, of what there is.
    pub(super) fn read(params: &Bytes) -> Result<Self, Failure> {
        let asked = object::get(params, "notifications").and_then(|raw| object::Object::parse(&raw).ok());
        let asked = asked.ok_or(Failure::BadParams("params.notifications must say which notifications are wanted"))?;
        let is_asked = |name| asked.get(name).is_some_and(|raw| raw == "true");
        let [tools, prompts, resources] = [TOOLS, PROMPTS, RESOURCES].map(is_asked);
        Ok(Self { tools, prompts, resources })
    }

    fn acknowledged(self, (uris, tasks): (&[&str], &[&str])) -> String {
        let all = [(self.tools, TOOLS), (self.prompts, PROMPTS), (self.resources, RESOURCES)];
        let wanted = all.into_iter().filter(|(is_wanted, _)| *is_wanted);
        let mut members: Vec<String> = wanted.map(|(_, name)| format!("\"{name}\":true")).collect();
        for (name, texts) in [(WATCHED, uris), (TASKS, tasks)].iter().filter(|(_, texts)| !texts.is_empty()) {
            let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
            members.push(format!("\"{name}\":[{}]", texts.join(",")));
        }
        format!("{{{}}}", members.join(","))
    }

    /// Of these notifications those that are wanted.
    pub(super) fn among(self, methods: Vec<&'static str>) -> impl Iterator<Item = &'static str> {
        methods.into_iter().filter(move |method| match *method {
            method::TOOLS_CHANGED => self.tools,
            method::PROMPTS_CHANGED => self.prompts,
            method::RESOURCES_CHANGED => self.resources,
            _ => false,
        })
    }
}

impl Subscriptions {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The grants of their clients.
    pub(super) fn families(&self) -> impl Iterator<Item = &FamilyId> {
        self.0.values().map(|subscription| &subscription.family)
    }

    /// Whether there is one on that exchange.
    pub(super) fn contains(&self, exchange: ExchangeId) -> bool {
        self.0.contains_key(&exchange)
    }

    /// Opens a stream on a reply that nothing was sent of; nothing is said before [`acknowledge`](Self::acknowledge).
    /// `stale`: the client may have read its list before the last change, so it is told at once then.
    pub(super) fn add(
        &mut self,
        outlet: Outlet,
        who: Subscriber,
        wants: Wants,
        (seen, stale): (Lists, bool),
        cx: &mut Cx<'_>,
    ) {
        let exchange = outlet.exchange();
        outlet.hold(cx);
        cx.lease(Lease::Exchange(exchange), who.expires);
        let Subscriber { id, family, expires } = who;
        let acknowledged = false;
        self.0.insert(exchange, Subscription { outlet, id, family, expires, wants, seen, stale, acknowledged });
    }

    /// Keeps a subscription to one server until its device is back; the room says what there is to say on it.
    pub(super) fn keep(&mut self, outlet: Outlet, who: Subscriber) {
        let Subscriber { id, family, expires } = who;
        let wants = Wants { tools: false, prompts: false, resources: false };
        let (seen, stale, acknowledged) = (Lists::default(), false, false);
        let kept = Subscription { outlet, id, family, expires, wants, seen, stale, acknowledged };
        self.0.insert(kept.outlet.exchange(), kept);
    }

    /// Takes such a one out again.
    pub(super) fn take(&mut self, exchange: ExchangeId) -> Option<(Outlet, RawId)> {
        self.0.remove(&exchange).map(|kept| (kept.outlet, kept.id))
    }

    /// Whether it was said what of it is honoured.
    pub(super) fn is_acknowledged(&self, exchange: ExchangeId) -> bool {
        self.0.get(&exchange).is_some_and(|subscription| subscription.acknowledged)
    }

    /// Says what is honoured, these URIs and tasks among it, and what changed meanwhile: `lists` is what `/mcp` lists
    /// now.
    pub(super) fn acknowledge(
        &mut self,
        exchange: ExchangeId,
        watched: (&[&str], &[&str]),
        lists: &Lists,
        cx: &mut Cx<'_>,
    ) {
        let Some(subscription) = self.0.get_mut(&exchange) else { return };
        let Subscription { outlet, id, wants, seen, stale, acknowledged, .. } = subscription;
        *acknowledged = true;
        let honoured = wants.acknowledged(watched);
        outlet.message(notice(id, method::SUBSCRIPTIONS_ACKNOWLEDGED, Some(&honoured)), None, 0, cx);
        let news = if *stale { lists.all() } else { lists.news(seen) };
        for method in wants.among(news) {
            outlet.message(notice(id, method, None), None, 0, cx);
        }
        *seen = lists.clone();
    }

    /// Says something of a server's on an acknowledged subscription.
    pub(super) fn say(&mut self, exchange: ExchangeId, json: Bytes, cx: &mut Cx<'_>) {
        if let Some(subscription) = self.0.get_mut(&exchange) {
            subscription.outlet.message(json, None, 0, cx);
        }
    }

    /// Nothing was said for long enough: the client sees that its stream is there.
    pub(super) fn silence(&mut self, exchange: ExchangeId, cx: &mut Cx<'_>) {
        if let Some(subscription) = self.0.get_mut(&exchange) {
            subscription.outlet.begin_events(None, cx);
        }
    }

    /// Its client went away.
    pub(super) fn gone(&mut self, exchange: ExchangeId, cx: &mut Cx<'_>) {
        if let Some(subscription) = self.0.remove(&exchange) {
            subscription.outlet.left(cx);
        }
    }

    /// Ends those that are `meant`.
    pub(super) fn end(&mut self, meant: impl Fn(&Subscription) -> bool, cx: &mut Cx<'_>) {
        let ended: Vec<_> = self.0.extract_if(.., |_, subscription| meant(subscription)).collect();
        for (_, subscription) in ended {
            subscription.finish(cx);
        }
    }

    /// Its grant may have run out.
    pub(super) fn expired(&mut self, exchange: ExchangeId, cx: &mut Cx<'_>) {
        match self.0.get(&exchange).map(|subscription| subscription.expires) {
            Some(expires) if cx.now.unix < expires => cx.lease(Lease::Exchange(exchange), expires),
            Some(_) => self.0.remove(&exchange).into_iter().for_each(|subscription| subscription.finish(cx)),
            None => {}
        }
    }

    /// A stream has been quiet.
    pub(super) fn heartbeat(&mut self, exchange: ExchangeId, cx: &mut Cx<'_>) {
        if let Some(subscription) = self.0.get_mut(&exchange) {
            subscription.outlet.heartbeat(cx);
        }
    }

    /// `lists` is what `/mcp` lists now: says so to those whom it is news to.
    pub(super) fn tell(&mut self, lists: &Lists, cx: &mut Cx<'_>) {
        let told = self.0.values_mut().filter(|subscription| subscription.acknowledged);
        for Subscription { outlet, id, wants, seen, .. } in told {
            for method in wants.among(lists.news(seen)) {
                outlet.message(notice(id, method, None), None, 0, cx);
            }
            *seen = lists.clone();
        }
    }
}

impl Subscription {
    fn finish(self, cx: &mut Cx<'_>) {
        self.outlet.whole(http::StatusCode::OK, ended(&self.id), cx);
    }
}

/// The response to a subscription that its server ends (Graceful Closure).
pub(super) fn ended(id: &RawId) -> Bytes {
    let meta = meta(id);
    envelope::result(id, format!(r#"{{"resultType":"complete",{meta}}}"#).as_bytes())
}

fn notice(id: &RawId, method: &str, honoured: Option<&str>) -> Bytes {
    let honoured = honoured.map(|honoured| format!(r#","notifications":{honoured}"#)).unwrap_or_default();
    envelope::notification(method, format!("{{{}{honoured}}}", meta(id)).as_bytes())
}

/// The notification that a resource changed, by the URI that the client knows.
pub(super) fn updated(id: &RawId, uri: &str) -> Bytes {
    let params = format!("{{{},\"uri\":{}}}", meta(id), quoted(uri));
    envelope::notification(method::RESOURCE_UPDATED, params.as_bytes())
}

/// Members of `notifications` in the params of `subscriptions/listen`.
const TOOLS: &str = "toolsListChanged";
const PROMPTS: &str = "promptsListChanged";
const RESOURCES: &str = "resourcesListChanged";
pub(super) const WATCHED: &str = "resourceSubscriptions";
/// The same of the extension `io.modelcontextprotocol/tasks` (Task Status Notifications).
pub(super) const TASKS: &str = "taskIds";

fn meta(id: &RawId) -> String {
    let id = core::str::from_utf8(id.as_bytes()).expect("an id is JSON, which is UTF-8");
    format!(r#""_meta":{{"{}":{id}}}"#, key::SUBSCRIPTION_ID)
}
