//! Single resources, and tasks, that modern clients watch on the endpoint of all servers (2026-07-28, patterns,
//! Subscriptions; extension `io.modelcontextprotocol/tasks`, Task Status Notifications).
//!
//! Each server that has any of them is asked for its own by a `subscriptions/listen` of the relay's, a call that lasts and
//! feeds the client's subscription. It is opened anew when it ends or its device comes back, and ends with the
//! subscription.
//!
//! ```text
//!   Away ──server is there──► Asked ──acknowledged──► Open
//!    ▲  ▲                       │ └──never will──► Refused │
//!    │  └───device lost─────────┴──────────────────────────┤
//!    └──────pause───── Again ◄──────────ended──────────────┘
//! ```

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::ask::{Caller, Errand};
use super::{Room, reset};
use crate::id::{ConnId, ExchangeId};
use crate::limits;
use crate::mcp::{Era, code, method};
use crate::relay::calls::{CallKey, Sink};
use crate::relay::failure::Failure;
use crate::relay::resources::Owner;
use crate::relay::shard::{Cx, Timer};
use crate::relay::subscriptions::{self, TASKS, WATCHED};
use crate::relay::tasks;
use crate::relay::watches::{self, MAX_WATCHED};
use crate::relay::{Endpoint, Request};
use crate::rpc::{self, RawId, object, quoted};
use crate::time::Instant;
use crate::tunnel::ResetCode;

/// What one subscription watches.
#[derive(Debug)]
pub(super) struct Feeds {
    caller: Caller,
    /// The client's id of its subscription.
    id: RawId,
    /// The raw `_meta` of its request; empty when it had none.
    meta: Bytes,
    /// When it is acknowledged at the latest.
    patience: Instant,
    /// One of each server.
    feeds: Vec<Feed>,
}

/// What one server is asked for.
#[derive(Debug)]
struct Feed {
    /// The labels of device and server: a device that connects anew has another connection.
    place: (String, String),
    /// In the client's order.
    uris: Vec<Watched>,
    /// Ids of tasks, each with its place in what the client asked for.
    tasks: Vec<(usize, String)>,
    state: State,
    /// How often in a row it ended soon.
    failures: u32,
}

#[derive(Debug)]
struct Watched {
    /// Its place in what the client asked for.
    rank: usize,
    /// The client's spelling.
    spelled: String,
    /// The server's own.
    own: String,
}

/// What a client asks to hear of.
#[derive(Debug, Default)]
pub(super) struct Asked {
    uris: Vec<String>,
    pub(super) tasks: Vec<String>,
}

/// How far a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It takes no calls, or is not there.
    Away,
    /// It was asked, and has said nothing.
    Asked(ConnId),
    /// It said what it honours, then.
    Open(ConnId, Instant),
    /// It is asked again then.
    Again(Instant),
    /// It does not do it.
    Refused,
}

/// The resources and tasks that the params of `subscriptions/listen` ask for, each once, as far as there is room for so
/// many.
pub(super) fn asked(params: &Bytes) -> Result<Asked, Failure> {
    let list = |name: &str, longest: usize, fault: &'static str| {
        let raw = object::get_path(params, &["notifications", name]).unwrap_or(Bytes::from_static(b"[]"));
        let asked: Vec<String> = serde_json::from_slice(&raw).map_err(|_| Failure::BadParams(fault))?;
        let mut seen = BTreeSet::new();
        let fits = asked.iter().filter(|text| text.len() <= longest && seen.insert(text.as_str()));
        Ok(fits.take(limits::MAX_LISTENED).cloned().collect::<Vec<String>>())
    };
    let asked = Asked {
        uris: list(WATCHED, MAX_WATCHED, "params.notifications.resourceSubscriptions must be a list of URIs")?,
        tasks: list(TASKS, limits::MAX_ID, "params.notifications.taskIds must be a list of tasks' ids")?,
    };
    if !asked.is_empty() && object::get(params, "_meta").is_some_and(|meta| meta.len() > limits::MAX_FEED_META) {
        return Err(Failure::BadParams("params._meta is too long for a subscription to resources or tasks"));
    }
    Ok(asked)
}

impl Asked {
    fn is_empty(&self) -> bool {
        self.uris.is_empty() && self.tasks.is_empty()
    }
}

impl Room {
    /// Asks the owners of `asked` for what a new subscription watches. It is acknowledged once all have said what they
    /// honour: a change that the client makes after that must not be missed.
    pub(super) fn begin_feeds(
        &mut self,
        exchange: ExchangeId,
        caller: &Caller,
        request: &Request,
        asked: Asked,
        cx: &mut Cx<'_>,
    ) {
        let all = self.feeds.values().flat_map(|feeds| &feeds.feeds);
        let room = limits::MAX_FED.saturating_sub(all.map(|feed| feed.uris.len() + feed.tasks.len()).sum());
        let feeds = self.owners(asked, room, cx);
        if !feeds.is_empty() {
            let meta = object::get(&request.params, "_meta").unwrap_or_default();
            let feeds = Feeds {
                caller: caller.clone(),
                id: request.id.clone(),
                // Copied: it must not keep the whole request in memory.
                meta: Bytes::copy_from_slice(&meta),
                patience: cx.now.instant + limits::FEED_PATIENCE,
                feeds,
            };
            self.feeds.insert(exchange, feeds);
        }
        self.feed(exchange, cx);
    }

    /// Asks the servers whose time it is, and acknowledges the subscription if nothing more is waited for.
    pub(in crate::relay) fn feed(&mut self, exchange: ExchangeId, cx: &mut Cx<'_>) {
        let now = cx.now.instant;
        let is_due = |feed: &Feed| match feed.state {
            State::Away => true,
            State::Again(at) => at <= now,
            State::Asked(_) | State::Open(..) | State::Refused => false,
        };
        let feeds = self.feeds.get(&exchange).map(|feeds| feeds.feeds.as_slice()).unwrap_or_default();
        let due = feeds.iter().enumerate().filter(|(_, feed)| is_due(feed));
        let due: Vec<_> = due.map(|(index, feed)| (index, feed.place.clone())).collect();
        let asked: Vec<_> = due.into_iter().map(|(index, place)| (index, self.able(&place, cx))).collect();
        let Some(feeds) = self.feeds.get_mut(&exchange) else { return self.acknowledge(exchange, cx) };
        let (caller, id) = (feeds.caller.clone(), feeds.id.clone());
        let mut errands = Vec::new();
        // All are marked before the first is asked, for it may refuse at once.
        for (index, server) in asked {
            let Some(feed) = feeds.feeds.get_mut(index) else { continue };
            feed.state = server.as_ref().map_or(State::Away, |(conn, _)| State::Asked(*conn));
            let (params, method) = (feed.params(&feeds.meta), method::SUBSCRIPTIONS_LISTEN.into());
            errands.extend(server.map(|(conn, server)| (index, Errand { conn, server, method, params, tool: None })));
        }
        for (index, errand) in errands {
            self.open(Sink::Feed { exchange, index }, &caller, id.clone(), errand, cx);
        }
        self.acknowledge(exchange, cx);
    }

    /// What is there changed: whoever waits for a server may have it now.
    pub(super) fn feed_anew(&mut self, cx: &mut Cx<'_>) {
        let waits = |feeds: &Feeds| feeds.feeds.iter().any(|feed| feed.state == State::Away);
        let waiting: Vec<_> = self.feeds.iter().filter(|(_, feeds)| waits(feeds)).map(|(at, _)| *at).collect();
        for exchange in waiting {
            self.feed(exchange, cx);
        }
    }

    /// Which subscription a call feeds.
    pub(super) fn feed_of(&self, key: CallKey) -> Option<(ExchangeId, usize)> {
        match self.calls.get(&key)?.sink {
            Sink::Feed { exchange, index } => Some((exchange, index)),
            Sink::Reply(_) | Sink::Slot { .. } | Sink::Part { .. } | Sink::Nobody => None,
        }
    }

    /// A server says something on what the relay asked it for. What was not asked for is dropped.
    pub(super) fn feed_said(&mut self, key: CallKey, method: &str, params: &Bytes, json: &Bytes, cx: &mut Cx<'_>) {
        let Some((exchange, index)) = self.feed_of(key) else { return };
        match method {
            method::SUBSCRIPTIONS_ACKNOWLEDGED => self.feed_acknowledged(key, (exchange, index), params, cx),
            method::RESOURCE_UPDATED => {
                let raw = object::get(params, "uri").unwrap_or_default();
                let feed = self.feeds.get(&exchange).and_then(|feeds| feeds.feeds.get(index));
                let (Some(feed), Some(uri)) = (feed, rpc::string(&raw)) else { return };
                let spelled = feed.spelled(&uri);
                let Some(call) = self.calls.get(&key).filter(|_| !spelled.is_empty()) else { return };
                let json = call.notification(json.clone());
                self.acknowledge_now(exchange, cx);
                for spelled in spelled {
                    let set = object::set_path(&json, &["params", "uri"], quoted(&spelled).as_bytes());
                    let json = if spelled == uri { json.clone() } else { set.unwrap_or_else(|_| json.clone()) };
                    self.subscriptions.say(exchange, json, cx);
                }
            }
            method::TASK_NOTICE => {
                let raw = object::get(params, "taskId").unwrap_or_default();
                let feed = self.feeds.get(&exchange).and_then(|feeds| feeds.feeds.get(index));
                let (Some(feed), Some(id), Some(call)) = (feed, rpc::string(&raw), self.calls.get(&key)) else {
                    return;
                };
                if feed.tasks.iter().any(|(_, task)| *task == *id) {
                    let json = call.notification(json.clone());
                    self.acknowledge_now(exchange, cx);
                    self.subscriptions.say(exchange, json, cx);
                }
            }
            _ => {}
        }
    }

    /// What the relay asked a server for is over, with this response.
    pub(super) fn feed_ended(&mut self, (exchange, index): (ExchangeId, usize), response: &Bytes, cx: &mut Cx<'_>) {
        let code = object::get_path(response, &["error", "code"]);
        let code: Option<i64> = code.and_then(|raw| serde_json::from_slice(&raw).ok());
        let is_here = |conn| self.devices.contains_key(&conn);
        let feed = self.feeds.get_mut(&exchange).and_then(|feeds| feeds.feeds.get_mut(index));
        let Some(feed) = feed else { return };
        feed.state = match (feed.state, code) {
            (State::Refused, _) | (_, Some(code::METHOD_NOT_FOUND | code::INVALID_PARAMS)) => State::Refused,
            (State::Asked(conn) | State::Open(conn, _), _) if !is_here(conn) => State::Away,
            (state, _) => State::Again(cx.now.instant + feed.pause(state, cx.now.instant)),
        };
        self.acknowledge(exchange, cx);
    }

    /// Ends what was asked for subscriptions that are over.
    pub(super) fn end_feeds(&mut self, cx: &mut Cx<'_>) {
        let subscriptions = &self.subscriptions;
        self.standing.retain(|exchange, _| subscriptions.contains(*exchange) || self.replies.contains_key(exchange));
        let over: Vec<_> = self.feeds.extract_if(.., |exchange, _| !subscriptions.contains(*exchange)).collect();
        for (exchange, _) in over {
            cx.timers.clear(&Timer::Feed(exchange));
            let fed = |sink: &Sink| matches!(sink, Sink::Feed { exchange: of, .. } if *of == exchange);
            let keys: Vec<CallKey> =
                self.calls.iter().filter(|(_, call)| fed(&call.sink)).map(|(key, _)| *key).collect();
            for key in keys {
                reset(key, ResetCode::Cancelled, "the client's subscription is over", cx);
                self.fail(key, &Failure::Cancelled, cx);
            }
        }
    }

    /// The servers of which there are any of these resources and tasks. What is nobody's, or not clearly one server's, is
    /// left out.
    fn owners(&mut self, asked: Asked, room: usize, cx: &Cx<'_>) -> Vec<Feed> {
        let mut feeds: Vec<Feed> = Vec::new();
        if asked.is_empty() {
            return feeds;
        }
        let whose = |id: String| self.whose_task(Era::Modern, &id).map(|owner| (id, owner));
        let tasks: Vec<(String, tasks::Owner)> = asked.tasks.into_iter().filter_map(whose).collect();
        let resources = &self.listing(Era::Modern, cx).resources;
        let left = room.saturating_sub(asked.uris.len());
        for (rank, spelled) in asked.uris.into_iter().enumerate().take(room) {
            let Owner::One(spot, own) = resources.owner(&spelled) else { continue };
            let (place, own) = (spot.labels().clone(), own.to_string());
            if own.len() <= limits::MAX_URI {
                add(&mut feeds, place, |feed| feed.uris.push(Watched { rank, spelled, own }));
            }
        }
        for (rank, (id, (conn, server))) in tasks.into_iter().enumerate().take(left) {
            if let Some(spot) = resources.spot_of(conn, &server) {
                add(&mut feeds, spot.labels().clone(), |feed| feed.tasks.push((rank, id)));
            }
        }
        feeds
    }

    /// The server at that place, if it can be asked.
    fn able(&mut self, place: &(String, String), cx: &Cx<'_>) -> Option<(ConnId, Arc<str>)> {
        let spot = self.listing(Era::Modern, cx).resources.spot(place)?;
        let (conn, name) = (spot.conn, spot.server.clone());
        let device = self.devices.get(&conn).filter(|device| !device.leaving)?;
        let (_, server) = device.catalog.server(&name)?;
        server.takes_calls().then_some((conn, name))
    }

    fn feed_acknowledged(
        &mut self,
        key: CallKey,
        (exchange, index): (ExchangeId, usize),
        params: &Bytes,
        cx: &mut Cx<'_>,
    ) {
        let is_first = !self.subscriptions.is_acknowledged(exchange);
        let Some(feeds) = self.feeds.get_mut(&exchange) else { return };
        let id = feeds.id.clone();
        let Some(feed) = feeds.feeds.get_mut(index) else { return };
        if !matches!(feed.state, State::Asked(_)) {
            return;
        }
        let honoured = |name: &str| -> BTreeSet<String> {
            let raw = object::get_path(params, &["notifications", name]);
            raw.and_then(|raw| serde_json::from_slice(&raw).ok()).unwrap_or_default()
        };
        // What was promised once stays so: the server may honour it again next time.
        if is_first {
            let (uris, tasks) = (honoured(WATCHED), honoured(TASKS));
            feed.uris.retain(|watched| uris.contains(&watched.own));
            feed.tasks.retain(|(_, id)| tasks.contains(id));
        }
        if feed.uris.is_empty() && feed.tasks.is_empty() {
            feed.state = State::Refused;
            reset(key, ResetCode::Cancelled, "nothing that was asked for is told", cx);
            return self.fail(key, &Failure::Cancelled, cx);
        }
        feed.state = State::Open(key.0, cx.now.instant);
        // Nobody listened since the client was promised to hear of these.
        let missed = feed.uris.iter().filter(|_| !is_first).map(|watched| watched.spelled.clone());
        for uri in missed.collect::<Vec<_>>() {
            self.subscriptions.say(exchange, subscriptions::updated(&id, &uri), cx);
        }
        self.acknowledge(exchange, cx);
    }

    /// Acknowledges a subscription unless something is waited for, and sets its timer.
    fn acknowledge(&mut self, exchange: ExchangeId, cx: &mut Cx<'_>) {
        let feeds = self.feeds.get(&exchange);
        let is_done = feeds.is_none_or(|feeds| {
            let waits = |feed: &Feed| matches!(feed.state, State::Asked(_));
            feeds.patience <= cx.now.instant || !feeds.feeds.iter().any(waits)
        });
        if is_done {
            self.acknowledge_now(exchange, cx);
        }
        let patience = self.feeds.get(&exchange).filter(|_| !is_done).map(|feeds| feeds.patience);
        let feeds = self.feeds.get(&exchange).map(|feeds| feeds.feeds.as_slice()).unwrap_or_default();
        let again = feeds.iter().filter_map(|feed| match feed.state {
            State::Again(at) => Some(at),
            State::Away | State::Asked(_) | State::Open(..) | State::Refused => None,
        });
        match again.chain(patience).min() {
            Some(at) => cx.timers.set(Timer::Feed(exchange), at),
            None => cx.timers.clear(&Timer::Feed(exchange)),
        }
    }

    /// Says what of a subscription is honoured, if it was not said. A server that is still silent, or not there for the
    /// moment, is one that will be heard.
    fn acknowledge_now(&mut self, exchange: ExchangeId, cx: &mut Cx<'_>) {
        if self.subscriptions.is_acknowledged(exchange) {
            return;
        }
        let lists = self.lists_of(&Endpoint::All, Era::Modern, cx);
        let feeds = self.feeds.get(&exchange).map(|feeds| feeds.feeds.as_slice()).unwrap_or_default();
        let honoured = || feeds.iter().filter(|feed| feed.state != State::Refused);
        let uris = honoured().flat_map(|feed| &feed.uris).map(|watched| (watched.rank, watched.spelled.as_str()));
        let tasks = honoured().flat_map(|feed| &feed.tasks).map(|(rank, id)| (*rank, id.as_str()));
        let (uris, tasks) = (in_order(uris), in_order(tasks));
        self.subscriptions.acknowledge(exchange, (&uris, &tasks), &lists, cx);
    }
}

/// Texts in the order in which the client asked for them.
fn in_order<'a>(ranked: impl Iterator<Item = (usize, &'a str)>) -> Vec<&'a str> {
    let mut ranked: Vec<(usize, &str)> = ranked.collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, text)| text).collect()
}

/// Adds something to what the server with these labels is asked for.
fn add(feeds: &mut Vec<Feed>, place: (String, String), what: impl FnOnce(&mut Feed)) {
    if let Some(feed) = feeds.iter_mut().find(|feed| feed.place == place) {
        return what(feed);
    }
    let (uris, tasks) = (Vec::new(), Vec::new());
    let mut feed = Feed { place, uris, tasks, state: State::Away, failures: 0 };
    what(&mut feed);
    feeds.push(feed);
}

impl Feed {
    /// What its server is asked with.
    fn params(&self, meta: &Bytes) -> Bytes {
        let uris: BTreeSet<&str> = self.uris.iter().map(|watched| watched.own.as_str()).collect();
        let uris: Vec<String> = uris.into_iter().map(quoted).collect();
        let tasks: Vec<String> = self.tasks.iter().map(|(_, id)| quoted(id)).collect();
        let lists = [(WATCHED, uris), (TASKS, tasks)].into_iter().filter(|(_, texts)| !texts.is_empty());
        let members: Vec<String> = lists.map(|(name, texts)| format!(r#""{name}":[{}]"#, texts.join(","))).collect();
        let params = Bytes::from(format!(r#"{{"notifications":{{{}}}}}"#, members.join(",")));
        if meta.is_empty() {
            return params;
        }
        object::set_path(&params, &["_meta"], meta).unwrap_or(params)
    }

    /// How the client knows a server's resource: each way in which it watches it, or that of which it is a part.
    fn spelled(&self, uri: &str) -> Vec<String> {
        let parts = self.uris.iter().filter_map(|watched| {
            watches::part(&watched.own, uri).map(|rest| (watched.own.len(), format!("{}{rest}", watched.spelled)))
        });
        let parts: Vec<(usize, String)> = parts.collect();
        let longest = parts.iter().map(|(length, _)| *length).max();
        parts.into_iter().filter(|(length, _)| Some(*length) == longest).map(|(_, spelled)| spelled).collect()
    }

    /// How long to wait before it is asked again.
    fn pause(&mut self, state: State, now: Instant) -> core::time::Duration {
        if let State::Open(_, since) = state
            && now.saturating_since(since) >= limits::RECONNECT_STABLE
        {
            self.failures = 0;
        }
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        limits::FEED_PAUSE.saturating_mul(factor).min(limits::FEED_PAUSE_MAX)
    }
}
