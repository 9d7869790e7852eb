//! Clients that listen for changes (GET on `/mcp`).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::lists::Lists;
use super::outlet::Outlet;
use super::replay::Asked;
use super::shard::{Cx, Lease};
use super::{Accepts, Endpoint, Listen, SessionKey};
use crate::id::{ExchangeId, FamilyId};
use crate::mcp::code;
use crate::rpc::envelope;
use crate::time::UnixTime;

/// The listeners of one user.
#[derive(Debug, Default)]
pub(super) struct Listeners(BTreeMap<ExchangeId, Listener>);

/// A client that listens.
#[derive(Debug)]
pub(super) struct Listener {
    outlet: Outlet,
    pub(super) session: SessionKey,
    pub(super) family: FamilyId,
    endpoint: Endpoint,
    expires: UnixTime,
    /// The lists that the client knows, as far as is known here.
    seen: Lists,
}

impl Listeners {
    /// Whether the client with that grant gets no stream of changes any more: alone it may have half of all that there may
    /// be, `most`, and whoever comes later finds half of what is left. `others`: the streams of the user besides these,
    /// and those of them that the client has.
    pub(super) fn is_full(&self, family: &FamilyId, (others, of_client): (usize, usize), most: usize) -> bool {
        let own = self.0.values().filter(|listener| listener.family == *family).count();
        self.0.len() + others + own + of_client >= most
    }

    /// How many listen.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody listens.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Opens a stream. A session has one: a second takes the place of the first, whose client may not know that it is
    /// gone. `stale`: the client may have read its list before the last change, so it is told at once.
    /// `others`: as in [`is_full`](Self::is_full).
    pub(super) fn add(&mut self, listen: Listen, seen: Lists, stale: bool, others: (usize, usize), cx: &mut Cx<'_>) {
        let Listen { exchange, principal, endpoint, session, headers, .. } = listen;
        let mut outlet = Outlet::new(exchange, Accepts::Stream, headers).resumable(&session, Asked::default());
        self.end(|listener| listener.session == session.key && listener.endpoint == endpoint, cx);
        let (family, most) = (principal.family.clone(), cx.settings.limits.streams_per_user);
        if self.is_full(&family, others, most) {
            self.0.retain(|_, listener| !listener.outlet.is_away());
        }
        if self.is_full(&family, others, most) {
            let message = "too many clients of this user listen for changes (limits.streamsPerUser)";
            let response = envelope::error(None, code::OVERLOADED, message, None);
            return outlet.whole(StatusCode::SERVICE_UNAVAILABLE, response, cx);
        }
        outlet.hold(cx);
        outlet.begin_events(None, cx);
        // A first byte, so that proxies pass the head on.
        outlet.heartbeat(cx);
        for method in seen.all().into_iter().filter(|_| stale) {
            outlet.message(envelope::notification(method, b""), None, 0, cx);
        }
        cx.lease(Lease::Exchange(exchange), principal.family_expires);
        let (session, expires) = (session.key.clone(), principal.family_expires);
        self.0.insert(exchange, Listener { outlet, session, family, endpoint, expires, seen });
    }

    /// Its client went away, and may come back.
    pub(super) fn gone(&mut self, exchange: ExchangeId, cx: &mut Cx<'_>) {
        if let Some(Listener { outlet, session, family, endpoint, expires, seen }) = self.0.remove(&exchange)
            && let Some(outlet) = outlet.left(cx)
        {
            self.0.insert(exchange, Listener { outlet, session, family, endpoint, expires, seen });
        }
    }

    /// A client takes its stream up again, after the event at a place of it; false when nobody has that stream.
    pub(super) fn take_up(
        &mut self,
        (stream, place): (u64, u64),
        exchange: ExchangeId,
        headers: HeaderMap,
        cx: &mut Cx<'_>,
    ) -> bool {
        let found = self.0.iter().find(|(_, listener)| listener.outlet.stream() == Some(stream)).map(|(old, _)| *old);
        let Some(mut listener) = found.and_then(|old| self.0.remove(&old)) else { return false };
        listener.outlet.take_up(exchange, headers, place, cx);
        cx.lease(Lease::Exchange(exchange), listener.expires);
        self.0.insert(exchange, listener);
        true
    }

    /// Drops the streams whose clients did not come back.
    pub(super) fn forget(&mut self, cx: &Cx<'_>) {
        self.0.retain(|_, listener| {
            !listener.outlet.is_away() || listener.outlet.stream().is_some_and(|stream| cx.replay.has(stream))
        });
    }

    /// Ends the streams of those who are `meant`.
    pub(super) fn end(&mut self, meant: impl Fn(&Listener) -> bool, cx: &mut Cx<'_>) {
        let ended: Vec<_> = self.0.extract_if(.., |_, listener| meant(listener)).collect();
        for (_, listener) in ended {
            listener.outlet.finish(cx);
        }
    }

    /// A listener's grant may have run out: returns it if it has.
    pub(super) fn expired(&mut self, exchange: ExchangeId, cx: &mut Cx<'_>) -> Option<FamilyId> {
        let expires = self.0.get(&exchange)?.expires;
        if cx.now.unix < expires {
            cx.lease(Lease::Exchange(exchange), expires);
            return None;
        }
        let listener = self.0.remove(&exchange)?;
        listener.outlet.finish(cx);
        Some(listener.family)
    }

    /// A stream has been quiet.
    pub(super) fn heartbeat(&mut self, exchange: ExchangeId, cx: &mut Cx<'_>) {
        if let Some(listener) = self.0.get_mut(&exchange) {
            listener.outlet.heartbeat(cx);
        }
    }

    /// Who listens where.
    pub(super) fn endpoints(&self) -> Vec<(ExchangeId, Endpoint)> {
        self.0.iter().map(|(exchange, listener)| (*exchange, listener.endpoint.clone())).collect()
    }

    /// The streams of a session, with their endpoints and grants. `is_there`: those that somebody reads.
    pub(super) fn of(&self, session: &SessionKey, is_there: bool) -> Vec<(ExchangeId, &Endpoint, &FamilyId)> {
        let its = self.0.iter().filter(|(_, listener)| listener.session == *session);
        let read = its.filter(|(_, listener)| !is_there || !listener.outlet.is_away());
        read.map(|(exchange, listener)| (*exchange, &listener.endpoint, &listener.family)).collect()
    }

    /// The session of a listener.
    pub(super) fn session(&self, exchange: ExchangeId) -> Option<SessionKey> {
        self.0.get(&exchange).map(|listener| listener.session.clone())
    }

    /// Passes a message on to a listener. Returns whether somebody is there to read it: else it is only kept.
    pub(super) fn pass(&mut self, exchange: ExchangeId, json: &Bytes, cx: &mut Cx<'_>) -> bool {
        let Some(listener) = self.0.get_mut(&exchange) else { return false };
        listener.outlet.message(json.clone(), None, 0, cx) && !listener.outlet.is_away()
    }

    /// Says something on the stream of a session; false when it has none.
    pub(super) fn say(&mut self, session: &SessionKey, json: Bytes, cx: &mut Cx<'_>) -> bool {
        let listener = self.0.values_mut().find(|listener| listener.session == *session);
        listener.is_some_and(|listener| listener.outlet.message(json, None, 0, cx))
    }

    /// `lists` is what a listener's endpoint lists now: says which of it is news.
    pub(super) fn tell(&mut self, exchange: ExchangeId, lists: Lists, cx: &mut Cx<'_>) {
        let Some(listener) = self.0.get_mut(&exchange) else { return };
        for method in lists.news(&listener.seen) {
            listener.outlet.message(envelope::notification(method, b""), None, 0, cx);
        }
        listener.seen = lists;
    }
}
