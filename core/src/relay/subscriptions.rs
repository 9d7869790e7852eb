//! Clients without a handshake that listen for changes (2026-07-28, Subscriptions): `subscriptions/listen` on `/mcp`. On
//! an endpoint of one server it is a call like any other, but one that lasts.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;

use super::failure::Failure;
use super::outlet::Outlet;
use super::shard::{Cx, Lease};
use crate::id::{ExchangeId, FamilyId};
use crate::mcp::{key, method};
use crate::rpc::{RawId, envelope, object};
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
    /// The list of tools that the client knows, as far as is known here.
    seen: Bytes,
}

/// Which notices a client wants and gets: never one that it did not ask for. What `/mcp` has none of is left out of
/// what is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wants {
    /// That the list of tools changed.
    tools: bool,
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
        Ok(Self { tools: asked.get("toolsListChanged").is_some_and(|raw| raw == "true") })
    }

    fn acknowledged(self) -> &'static str {
        if self.tools { r#"{"toolsListChanged":true}"# } else { "{}" }
    }
}

impl Subscriptions {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Opens a stream on a reply that nothing was sent of: first it says what is honoured. `stale`: the client may have
    /// read its list before the last change, so it is told at once.
    pub(super) fn add(
        &mut self,
        mut outlet: Outlet,
        who: Subscriber,
        wants: Wants,
        (seen, stale): (Bytes, bool),
        cx: &mut Cx<'_>,
    ) {
        let exchange = outlet.exchange();
        outlet.hold(cx);
        outlet.message(notice(&who.id, method::SUBSCRIPTIONS_ACKNOWLEDGED, Some(wants)), None, 0, cx);
        if wants.tools && stale {
            outlet.message(notice(&who.id, method::TOOLS_CHANGED, None), None, 0, cx);
        }
        cx.lease(Lease::Exchange(exchange), who.expires);
        let Subscriber { id, family, expires } = who;
        self.0.insert(exchange, Subscription { outlet, id, family, expires, wants, seen });
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

    /// `list` is what `/mcp` lists now: says so to those whom it is news to.
    pub(super) fn tell(&mut self, list: &Bytes, cx: &mut Cx<'_>) {
        for subscription in self.0.values_mut().filter(|subscription| subscription.wants.tools) {
            if subscription.seen != *list {
                subscription.seen = list.clone();
                subscription.outlet.message(notice(&subscription.id, method::TOOLS_CHANGED, None), None, 0, cx);
            }
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

fn notice(id: &RawId, method: &str, wants: Option<Wants>) -> Bytes {
    let wants = wants.map(|wants| format!(r#","notifications":{}"#, wants.acknowledged())).unwrap_or_default();
    envelope::notification(method, format!("{{{}{wants}}}", meta(id)).as_bytes())
}

fn meta(id: &RawId) -> alloc::string::String {
    let id = core::str::from_utf8(id.as_bytes()).expect("an id is JSON, which is UTF-8");
    format!(r#""_meta":{{"{}":{id}}}"#, key::SUBSCRIPTION_ID)
}
