//! One user's room: the devices that are connected, and what clients ask of them.
//!
//! Soft state alone (invariant A9): a room is made by the first thing that needs it and gone with the last, and
//! everything in it comes back by itself when agents and clients connect again.

mod aggregate;
mod answer;
mod ask;
mod batches;
mod beside;
mod feeds;
mod gather;
mod leftovers;
mod modern;
mod notices;
mod own;
mod presence;
mod questions;
mod scopes;
mod standing;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use self::batches::Batch;
use self::feeds::Feeds;
use self::gather::Gather;
use self::notices::Notice;
use self::questions::Question;
use self::standing::Standing;
use super::audit::Passage;
use super::calls::{Call, CallKey, Sink};
use super::catalog::{Server, printable};
use super::device::{self, Device};
use super::failure::Failure;
use super::listeners::Listeners;
use super::listing::{Listing, Source};
use super::lists::Lists;
use super::offer::Offer;
use super::outlet::Outlet;
use super::replay::{Asked, Found, Replay, read_id};
use super::shard::{Action, Cx, Lease, Timer};
use super::subscriptions::Subscriptions;
use super::tasks::Tasks;
use super::watches::Watches;
use super::{Accepts, Endpoint, Listen, SessionKey, permission, route};
use crate::id::{ConnId, ExchangeId, FamilyId};
use crate::limits;
use crate::mcp::Era;
use crate::rpc::RawId;
use crate::time::Now;
use crate::tunnel::{Close, CloseCode, Command, Event, ResetCode};

/// One user's room.
#[derive(Debug)]
pub(super) struct Room {
    /// Each by itself, as below: a map's nodes are half empty.
    devices: BTreeMap<ConnId, Box<Device>>,
    /// Old agents whose name another tunnel has. One that is closed comes back within a second and takes the place
    /// again, so they are left waiting until the name is free.
    waiting: BTreeMap<ConnId, Box<Device>>,
    calls: BTreeMap<CallKey, Box<Call>>,
    /// Calls by what their client calls them.
    requests: BTreeMap<(SessionKey, RawId), CallKey>,
    /// Calls by the exchange that awaits their answer.
    replies: BTreeMap<ExchangeId, CallKey>,
    /// Batches by the exchange that they came on: their clients may await them on another.
    batches: BTreeMap<ExchangeId, Batch>,
    /// What servers asked clients, by the number that the relay gave it.
    questions: BTreeMap<u64, Question>,
    /// Requests that several servers work on.
    gathers: BTreeMap<u64, Gather>,
    listeners: Listeners,
    subscriptions: Subscriptions,
    /// What subscriptions hear of resources, and from whom.
    feeds: BTreeMap<ExchangeId, Feeds>,
    /// Subscriptions to one server: those under way are calls, and those that wait for their device are among the others.
    standing: BTreeMap<ExchangeId, Standing>,
    watches: Watches,
    tasks: Tasks,
    /// Notices of the last seconds, for clients that are about to listen.
    late: VecDeque<Notice>,
    /// What was said on event streams.
    pub(super) replay: Replay,
    /// The lists of `/mcp`, by the era of the clients that see them; gone after a change, until somebody asks.
    listings: BTreeMap<Era, Listing>,
    /// Since when `/mcp` lists what it does.
    listed_at: Now,
}

impl Room {
    /// A room without anybody in it. It counts as changed: what a client saw in the room before it is not known.
    pub(super) fn new(now: Now) -> Self {
        Self {
            devices: BTreeMap::new(),
            waiting: BTreeMap::new(),
            calls: BTreeMap::new(),
            requests: BTreeMap::new(),
            replies: BTreeMap::new(),
            batches: BTreeMap::new(),
            questions: BTreeMap::new(),
            gathers: BTreeMap::new(),
            listeners: Listeners::default(),
            subscriptions: Subscriptions::default(),
            feeds: BTreeMap::new(),
            standing: BTreeMap::new(),
            watches: Watches::default(),
            tasks: Tasks::default(),
            late: VecDeque::new(),
            replay: Replay::default(),
            listings: BTreeMap::new(),
            listed_at: now,
        }
    }

    /// Whether nothing would be lost with it.
    pub(super) fn is_empty(&self) -> bool {
        let alone = self.devices.is_empty() && self.waiting.is_empty();
        let unasked = self.calls.is_empty() && self.batches.is_empty() && self.gathers.is_empty();
        alone && unasked && !self.is_heard() && self.replay.is_empty()
    }

    /// A client's GET.
    pub(super) fn listen(&mut self, listen: Listen, cx: &mut Cx<'_>) {
        if let Some(missing) = permission::missing(&listen.principal.scopes, permission::READS) {
            let lacking = (&[missing].into_iter().collect(), listen.headers);
            return Self::step_up(listen.exchange, &listen.principal, &listen.endpoint, lacking, cx);
        }
        if self.take_up(&listen, cx) {
            return;
        }
        let seen = self.lists_of(&listen.endpoint, Era::Legacy, cx);
        let (exchange, endpoint, expires) = (listen.exchange, listen.endpoint.clone(), listen.session.expires);
        let listed_at = match &endpoint {
            Endpoint::All => self.listed_at,
            single => self.locate(single, cx).map_or(self.listed_at, |(_, _, server)| server.listed_at),
        };
        // Who began after the last change has read nothing older.
        let may_know_older = expires <= listed_at.unix + limits::SESSION_LIFETIME;
        let is_stale = may_know_older && is_recent(listed_at, cx);
        let others = self.subscribed(&listen.principal.family);
        self.listeners.add(listen, seen, is_stale, others, cx);
        self.tell_late(exchange, &endpoint, expires, cx);
    }

    /// Whether anybody listens for changes of lists.
    fn is_heard(&self) -> bool {
        !self.listeners.is_empty() || !self.subscriptions.is_empty()
    }

    /// The client of an exchange went away.
    pub(super) fn gone(&mut self, exchange: ExchangeId, cx: &mut Cx<'_>) {
        let key = self.replies.remove(&exchange);
        if let Some((key, call)) = key.and_then(|key| self.calls.get_mut(&key).map(|call| (key, call))) {
            let is_cancel = call.session.is_none();
            if let Sink::Reply(outlet) = core::mem::replace(&mut call.sink, Sink::Nobody)
                && let Some(outlet) = outlet.left(cx)
            {
                call.sink = Sink::Reply(outlet);
                call.exchange = None;
            }
            // 2026-07-28, Cancellation: who closes the reply gives the request up.
            if is_cancel {
                reset(key, ResetCode::Cancelled, "the client closed its request", cx);
                self.fail(key, &Failure::Cancelled, cx);
            }
        } else if !self.left_batch(exchange, cx) && !self.left_gather(exchange, cx) {
            self.listeners.gone(exchange, cx);
            self.subscriptions.gone(exchange, cx);
            self.end_feeds(cx);
        }
    }

    /// A tunnel said something.
    pub(super) fn tunnel(&mut self, conn: ConnId, event: Event, cx: &mut Cx<'_>) {
        let Some(device) = self.devices.get_mut(&conn) else {
            // Whoever waits for a name is only heard when it goes.
            if let Event::Closed(close) = event {
                self.lose(conn, close.code, cx);
            }
            return;
        };
        match event {
            Event::Up(hello) => device.hello = Some(hello.into()),
            Event::Catalog(update) => {
                let is_news = device.catalog.apply(&update, &cx.settings.limits, cx.now);
                self.changed(is_news, cx);
                self.feed_anew(cx);
                self.stand_anew(conn, cx);
            }
            Event::Answer { stream, outcome, length } => self.answer((conn, stream), outcome, length, cx),
            Event::Data { stream, bytes, end } => self.data((conn, stream), bytes, end, cx),
            Event::Message { stream, json, credit } => self.message((conn, stream), json, credit, cx),
            Event::Pause { stream, millis } => self.pause((conn, stream), millis, cx),
            Event::Reset { stream, code, reason } => {
                if let Some(call) = self.calls.get(&(conn, stream)) {
                    let reason = printable(&reason, limits::MAX_REASON);
                    let failure = Failure::Reset { place: call.place.clone(), code, reason };
                    self.fail((conn, stream), &failure, cx);
                }
            }
            Event::GoAway => device.leaving = true,
            Event::Unlisted { .. } => tracing::debug!("word that only a relay says dropped"),
            Event::RoundTrip { micros } => device.round_trip_micros = Some(micros),
            Event::Closed(close) => {
                let (code, reason) = (close.code.to_u16(), printable(&close.reason, limits::MAX_REASON));
                tracing::info!(%conn, device = %device.name, code, reason, "device disconnected");
                self.lose(conn, close.code, cx);
            }
            Event::Notice { server, sessions, json } => self.notice(conn, server, sessions, json, cx),
            Event::Call { .. }
            | Event::Restart { .. }
            | Event::Cancelled { .. }
            | Event::ClientNotice { .. }
            | Event::SessionEnded { .. } => {
                tracing::warn!(%conn, "an agent ordered what only a relay may")
            }
        }
    }

    /// These families of tokens were revoked.
    pub(super) fn revoked(&mut self, meant: impl Fn(&FamilyId) -> bool, cx: &mut Cx<'_>) {
        for conn in self.tunnels_of(|device| meant(&device.family)) {
            self.expel(conn, Passage::Down(CloseCode::Revoked), cx);
        }
        self.end_gathers(|caller| meant(&caller.principal.family), &Failure::SignedOut, cx);
        self.end_calls(|call| meant(&call.family), &Failure::SignedOut, cx);
        self.end_beside(&meant, cx);
        self.listeners.end(|listener| meant(&listener.family), cx);
        self.subscriptions.end(|subscription| meant(&subscription.family), cx);
        self.end_feeds(cx);
    }

    /// A tunnel's grant ran out.
    pub(super) fn expired(&mut self, lease: &Lease, cx: &mut Cx<'_>) {
        match lease {
            Lease::Tunnel(conn) => match self.devices.get(conn).or(self.waiting.get(conn)).map(|device| device.expires)
            {
                Some(expires) if cx.now.unix < expires => cx.lease(lease.clone(), expires),
                Some(_) => self.expel(*conn, Passage::RanOut, cx),
                None => {}
            },
            Lease::Exchange(exchange) => match self.replies.get(exchange) {
                Some(key) => self.lapsed(*exchange, *key, cx),
                None => {
                    if let Some(family) = self.listeners.expired(*exchange, cx) {
                        self.end_beside(|one| *one == family, cx);
                    }
                    self.subscriptions.expired(*exchange, cx);
                    self.end_feeds(cx);
                }
            },
        }
    }

    /// A client ended its session.
    pub(super) fn session_ended(&mut self, session: &SessionKey, cx: &mut Cx<'_>) {
        self.end_gathers(|caller| caller.speaker.session() == Some(session), &Failure::SessionEnded, cx);
        self.end_calls(|call| call.session.as_ref() == Some(session), &Failure::SessionEnded, cx);
        for device in self.devices.values() {
            let command = Command::SessionEnded { session: session.0.to_string() };
            cx.out.push(Action::Tunnel { conn: device.conn, command });
        }
        self.listeners.end(|listener| listener.session == *session, cx);
        self.forget_beside(|_, of| of == session);
        self.watches.forget(session);
        cx.replay.end_session(session);
    }

    /// What was kept for clients that went away may be forgotten.
    pub(super) fn forget(&mut self, cx: &mut Cx<'_>) {
        if let Some(next) = cx.replay.sweep(cx.now.instant) {
            cx.timers.set(Timer::Forget(cx.user.clone()), next);
        }
        self.listeners.forget(cx);
        self.forget_batches(cx);
    }

    /// A client comes back for an event stream of its session (2025-11-25, Transports, Resumability and Redelivery). Of one
    /// that is not known, the responses that were to come will not; one of notifications is begun anew: returns false.
    fn take_up(&mut self, listen: &Listen, cx: &mut Cx<'_>) -> bool {
        let Some(id) = &listen.last_event else { return false };
        let due = Asked::after(id);
        let (exchange, headers, session) = (listen.exchange, listen.headers.clone(), &listen.session);
        let outlet = || Outlet::new(exchange, Accepts::Stream, headers.clone());
        if due.as_ref().is_some_and(Asked::is_empty) {
            outlet().nothing(cx);
            return true;
        }
        // No stream has the number 0.
        let (stream, place) = read_id(cx.numbers, id).unwrap_or_default();
        match cx.replay.find(stream, &session.key, place) {
            Found::Nothing => match due.and_then(|due| due.failed(&Failure::Forgotten)) {
                Some(response) => outlet().instead(&response, cx),
                None => return false,
            },
            Found::Lost(asked) => match asked.failed(&Failure::Missed) {
                Some(response) => outlet().instead(&response, cx),
                None => return false,
            },
            Found::Kept { is_over: true } => outlet().again((stream, place), cx),
            Found::Kept { is_over: false } => {
                for (key, call) in &mut self.calls {
                    if let Sink::Reply(outlet) = &mut call.sink
                        && outlet.stream() == Some(stream)
                    {
                        if let Some(old) = call.exchange.replace(exchange) {
                            self.replies.remove(&old);
                        }
                        self.replies.insert(exchange, *key);
                        outlet.take_up(exchange, headers, place, cx);
                        return true;
                    }
                }
                if let Some(outlet) = self.gather_outlets().find(|outlet| outlet.stream() == Some(stream)) {
                    outlet.take_up(exchange, headers, place, cx);
                    return true;
                }
                if let Some(outlet) = self.batch_outlets().find(|outlet| outlet.stream() == Some(stream)) {
                    outlet.take_up(exchange, headers, place, cx);
                    return true;
                }
                return self.listeners.take_up((stream, place), exchange, headers, cx);
            }
        }
        true
    }

    /// The relay stops.
    pub(super) fn stop(&mut self, cx: &mut Cx<'_>) {
        self.end_gathers(|_| true, &Failure::Stopping, cx);
        for key in self.calls.keys().copied().collect::<Vec<_>>() {
            self.fail(key, &Failure::Stopping, cx);
        }
        for conn in self.tunnels_of(|_| true) {
            close(conn, CloseCode::GoingAway, "the relay is stopping", cx);
            self.lose(conn, CloseCode::GoingAway, cx);
        }
        self.listeners.end(|_| true, cx);
        self.subscriptions.end(|_| true, cx);
        self.end_feeds(cx);
    }

    /// A reply that nothing was sent of has been silent for long enough to become a stream.
    pub(super) fn silence(&mut self, exchange: ExchangeId, cx: &mut Cx<'_>) {
        let source = self.replies.get(&exchange).copied();
        if let Some(Call { sink: Sink::Reply(outlet), .. }) =
            source.and_then(|key| self.calls.get_mut(&key)).map(Box::as_mut)
        {
            outlet.begin_events(source, cx);
        } else if let Some(outlet) = self.batching(exchange) {
            outlet.begin_events(None, cx);
        } else if let Some(outlet) = self.gathering(exchange) {
            outlet.begin_events(None, cx);
        } else {
            self.subscriptions.silence(exchange, cx);
        }
    }

    /// A stream has been quiet.
    pub(super) fn heartbeat(&mut self, exchange: ExchangeId, cx: &mut Cx<'_>) {
        let call = self.replies.get(&exchange).and_then(|key| self.calls.get_mut(key)).map(Box::as_mut);
        if let Some(Call { sink: Sink::Reply(outlet), .. }) = call {
            outlet.heartbeat(cx);
        } else if let Some(outlet) = self.batching(exchange) {
            outlet.heartbeat(cx);
        } else if let Some(outlet) = self.gathering(exchange) {
            outlet.heartbeat(cx);
        } else {
            self.listeners.heartbeat(exchange, cx);
            self.subscriptions.heartbeat(exchange, cx);
        }
    }

    /// A call may not have been heard of for its idle limit.
    pub(super) fn idle(&mut self, key: CallKey, cx: &mut Cx<'_>) {
        if let Some(call) = self.calls.get(&key) {
            let given_up = self.given_up(key, call, cx);
            if cx.now.instant < given_up {
                return cx.timers.set(Timer::Idle(key.0, key.1), given_up);
            }
            let failure = Failure::TimedOut(call.place.clone());
            reset(key, ResetCode::TimedOut, "nothing was heard of the call for too long", cx);
            self.fail(key, &failure, cx);
        }
    }

    /// The changes of a moment are over: clients whose list is another now are told.
    pub(super) fn announce(&mut self, cx: &mut Cx<'_>) {
        for (exchange, endpoint) in self.listeners.endpoints() {
            let lists = self.lists_of(&endpoint, Era::Legacy, cx);
            self.listeners.tell(exchange, lists, cx);
        }
        if !self.subscriptions.is_empty() {
            let lists = self.lists_of(&Endpoint::All, Era::Modern, cx);
            self.subscriptions.tell(&lists, cx);
        }
    }
}

/// What there is.
impl Room {
    /// `is_news`: what is listed may be something else now.
    fn changed(&mut self, is_news: bool, cx: &mut Cx<'_>) {
        self.listings.clear();
        if is_news {
            self.listed_at = cx.now;
        }
        let timer = Timer::Announce(cx.user.clone());
        if cx.timers.get(&timer).is_none() && self.is_heard() {
            cx.timers.set(timer, cx.now.instant + limits::ANNOUNCE_DELAY);
        }
    }

    /// What `/mcp` lists to clients of that era.
    fn listing(&mut self, era: Era, cx: &Cx<'_>) -> &Listing {
        let era = self.listed_for(era);
        if !self.listings.contains_key(&era) {
            let listing = Listing::new(&self.sources(), era, cx.settings.naming);
            self.listings.insert(era, listing);
        }
        self.listings.get(&era).expect("the listing is there, or was just made")
    }

    /// The same, which was made before.
    fn made_listing(&self, era: Era) -> &Listing {
        self.listings.get(&self.listed_for(era)).expect("the listing was just made")
    }

    /// One listing is for the clients of both eras where no server makes a difference.
    fn listed_for(&self, era: Era) -> Era {
        if self.devices.values().any(|device| device.catalog.differs()) { era } else { Era::Modern }
    }

    /// What is listed on this endpoint to clients of that era; nothing when there is no such server.
    fn lists_of(&mut self, endpoint: &Endpoint, era: Era, cx: &Cx<'_>) -> Lists {
        match endpoint {
            Endpoint::All => self.listing(era, cx).lists.clone(),
            single => self.locate(single, cx).map(|(_, _, server)| server.offer(era).lists.clone()).unwrap_or_default(),
        }
    }

    /// What each server offers clients of that era.
    fn offers(&self, era: Era) -> Vec<(&Arc<str>, &Offer)> {
        let devices = device::sorted(&self.devices).into_iter();
        devices.flat_map(|device| device.catalog.servers()).map(|(name, server)| (name, server.offer(era))).collect()
    }

    fn sources(&self) -> Vec<Source<'_>> {
        let devices = device::sorted(&self.devices).into_iter();
        devices.map(|device| Source { conn: device.conn, device: &device.name, catalog: &device.catalog }).collect()
    }

    /// The one server that an endpoint speaks for.
    fn locate(&self, endpoint: &Endpoint, cx: &Cx<'_>) -> Result<(ConnId, &Arc<str>, &Server), Failure> {
        let (device, name) = match endpoint {
            Endpoint::Server(server) => (None, server),
            Endpoint::DeviceServer(device, server) => (Some(device), server),
            Endpoint::All => return Err(Failure::BadParams("this endpoint speaks for all servers")),
        };
        let devices = device::sorted(&self.devices).into_iter();
        let on = devices.filter(|on| device.is_none_or(|name| on.is_called(name)));
        let found: Vec<_> =
            on.filter_map(|on| on.catalog.server(name).map(|(name, server)| (on, name, server))).collect();
        match found.as_slice() {
            [(on, name, server)] => Ok((on.conn, name, server)),
            [] => {
                Err(Failure::NoSuchServer { server: printable(name, limits::MAX_LISTED_NAME), servers: self.servers() })
            }
            several => {
                let base = &cx.settings.public_url;
                let urls: Vec<String> =
                    several.iter().map(|(on, name, _)| route::server_url(base, on.name.as_str(), name)).collect();
                Err(Failure::AmbiguousServer {
                    server: printable(name, limits::MAX_LISTED_NAME),
                    urls: urls.join(" or "),
                })
            }
        }
    }

    /// The names of all servers, joined.
    fn servers(&self) -> String {
        let all = self.devices.values().flat_map(|device| device.catalog.servers());
        let names: BTreeSet<&str> = all.map(|(name, _)| name.as_ref()).collect();
        names.into_iter().take(16).collect::<Vec<_>>().join(", ")
    }
}

/// Whether a client may have read a list before it became what it is then, and begin to listen only now.
fn is_recent(listed_at: Now, cx: &Cx<'_>) -> bool {
    cx.now.instant.saturating_since(listed_at.instant) < limits::ANNOUNCE_LATE
}

fn close(conn: ConnId, code: CloseCode, reason: &str, cx: &mut Cx<'_>) {
    cx.out.push(Action::Tunnel { conn, command: Command::Close(Close::new(code, reason)) });
}

fn reset((conn, stream): CallKey, code: ResetCode, reason: &str, cx: &mut Cx<'_>) {
    let command = Command::Reset { stream, code, reason: reason.to_string() };
    cx.out.push(Action::Tunnel { conn, command });
}

#[cfg(test)]
impl Room {
    /// The calls on the books.
    pub(super) fn calls(&self) -> impl Iterator<Item = &Call> {
        self.calls.values().map(Box::as_ref)
    }
}
