//! One user's room: the devices that are connected, and what clients ask of them.
//!
//! Soft state alone (invariant A9): a room is made by the first thing that needs it and gone with the last, and
//! everything in it comes back by itself when agents and clients connect again.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};
use http::StatusCode;

use super::calls::{self, Call, CallKey, Phase, Progress, Sink};
use super::catalog::{Server, printable};
use super::device::{self, Device};
use super::failure::{Failure, Place};
use super::listeners::Listeners;
use super::listing::{Listing, Meaning, Source};
use super::outlet::Outlet;
use super::shard::{Action, Cx, Lease, Timer};
use super::{Content, Endpoint, Listen, Post, Request, Session, SessionKey, initialize, meta, route};
use crate::id::{ConnId, ExchangeId, FamilyId, StreamId};
use crate::limits;
use crate::mcp::method;
use crate::rpc::{self, RawId, envelope, object::Object, quoted};
use crate::time::Instant;
use crate::tunnel::{Close, CloseCode, Command, Dialect, Event, OpenHead, ResetCode};

/// One user's room.
#[derive(Debug)]
pub(super) struct Room {
    devices: BTreeMap<ConnId, Device>,
    calls: BTreeMap<CallKey, Call>,
    /// Calls by what their client calls them.
    requests: BTreeMap<(SessionKey, RawId), CallKey>,
    /// Calls by the exchange that awaits their answer.
    replies: BTreeMap<ExchangeId, CallKey>,
    batches: BTreeMap<ExchangeId, Batch>,
    listeners: Listeners,
    /// The list of `/mcp`; `None` after a change, until somebody asks.
    listing: Option<Listing>,
    changed_at: Instant,
}

/// A batch whose answers are collected.
#[derive(Debug)]
struct Batch {
    outlet: Outlet,
    slots: Vec<Option<Bytes>>,
}

/// Who asks, and where.
struct Caller {
    session: Session,
    endpoint: Endpoint,
    family: FamilyId,
}

/// A call that is about to be opened: where it goes, and with what.
struct Errand {
    conn: ConnId,
    server: Arc<str>,
    method: String,
    params: Bytes,
    /// The tool's own name, for V1.
    tool: Option<Arc<str>>,
}

impl Room {
    /// A room without anybody in it. It counts as changed: what a client saw in the room before it is not known.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            devices: BTreeMap::new(),
            calls: BTreeMap::new(),
            requests: BTreeMap::new(),
            replies: BTreeMap::new(),
            batches: BTreeMap::new(),
            listeners: Listeners::default(),
            listing: None,
            changed_at: now,
        }
    }

    /// Whether nothing would be lost with it.
    pub(super) fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.calls.is_empty() && self.batches.is_empty() && self.listeners.is_empty()
    }

    /// A client's message.
    pub(super) fn post(&mut self, post: Post, cx: &mut Cx<'_>) {
        let outlet = Outlet::new(post.exchange, post.accepts, post.headers);
        let caller = Caller { session: post.session, endpoint: post.endpoint, family: post.principal.family.clone() };
        match post.content {
            Content::Request(request) => self.request(Sink::Reply(outlet), &caller, request, cx),
            Content::Cancelled { params } => {
                self.cancelled(&caller.session.key, &params, cx);
                outlet.accepted(cx);
            }
            Content::Batch { requests, cancelled } => {
                for params in cancelled {
                    self.cancelled(&caller.session.key, &params, cx);
                }
                if requests.is_empty() {
                    return outlet.accepted(cx);
                }
                self.batch(outlet, &caller, requests, cx);
            }
        }
    }

    /// A client's GET.
    pub(super) fn listen(&mut self, listen: Listen, cx: &mut Cx<'_>) {
        let seen = self.list_of(&listen.endpoint, cx);
        let recent = cx.now.instant.saturating_since(self.changed_at) < limits::ANNOUNCE_LATE;
        self.listeners.add(listen, seen, recent, cx);
    }

    /// The client of an exchange went away.
    pub(super) fn gone(&mut self, exchange: ExchangeId, cx: &mut Cx<'_>) {
        if let Some(call) = self.replies.remove(&exchange).and_then(|key| self.calls.get_mut(&key)) {
            if let Sink::Reply(outlet) = core::mem::replace(&mut call.sink, Sink::Nobody) {
                outlet.forget(cx);
            }
        } else if let Some(batch) = self.batches.remove(&exchange) {
            batch.outlet.forget(cx);
            for call in self.calls.values_mut() {
                if matches!(&call.sink, Sink::Slot { exchange: of, .. } if *of == exchange) {
                    call.sink = Sink::Nobody;
                }
            }
        } else {
            self.listeners.gone(exchange, cx);
        }
    }

    /// A device's tunnel is up. It may take the place of its own old tunnel, and of nobody else's.
    pub(super) fn tunnel_up(&mut self, device: Device, cx: &mut Cx<'_>) {
        let conn = device.conn;
        let old = self.devices.values().find(|old| old.name == device.name).map(|old| (old.conn, old.id.clone()));
        match old {
            Some((_, Some(old))) if device.id.as_ref().is_some_and(|new| *new != old) => {
                tracing::warn!(%conn, device = %device.name, "device name is taken");
                let remedy = "another device with this name is connected: set another \"name\" in the configuration";
                return close(conn, CloseCode::NameTaken, remedy, cx);
            }
            Some((old, _)) => {
                tracing::info!(%conn, device = %device.name, "device replaces its old tunnel");
                close(old, CloseCode::Replaced, "the same device connected anew", cx);
                self.lose(old, CloseCode::Replaced, cx);
            }
            None if self.devices.len() >= limits::MAX_DEVICES => {
                tracing::warn!(%conn, device = %device.name, "too many devices");
                return close(conn, CloseCode::Refused, "too many devices of this user are connected", cx);
            }
            None => {}
        }
        tracing::info!(%conn, device = %device.name, dialect = ?device.dialect, "device connected");
        cx.lease(Lease::Tunnel(conn), device.expires);
        self.devices.insert(conn, device);
        self.changed(cx);
    }

    /// A tunnel said something.
    pub(super) fn tunnel(&mut self, conn: ConnId, event: Event, cx: &mut Cx<'_>) {
        let Some(device) = self.devices.get_mut(&conn) else { return };
        match event {
            Event::Up(hello) => device.hello = Some(hello),
            Event::Catalog(update) => {
                device.catalog.apply(&update, cx.now.instant);
                self.changed(cx);
            }
            Event::Answer { stream, outcome, length } => self.answer((conn, stream), outcome, length, cx),
            Event::Data { stream, bytes, end } => self.data((conn, stream), bytes, end, cx),
            Event::Message { stream, json, credit } => self.message((conn, stream), json, credit, cx),
            Event::Reset { stream, code, reason } => {
                if let Some(call) = self.calls.get(&(conn, stream)) {
                    let reason = printable(&reason, limits::MAX_REASON);
                    let failure = Failure::Reset { place: call.place.clone(), code, reason };
                    self.fail((conn, stream), &failure, cx);
                }
            }
            Event::GoAway => device.leaving = true,
            Event::RoundTrip { micros } => device.round_trip_micros = Some(micros),
            Event::Closed(close) => {
                tracing::info!(%conn, device = %device.name, code = close.code.to_u16(), "device disconnected");
                self.lose(conn, close.code, cx);
            }
            // What belongs to no call concerns nobody here: changes of lists come as catalogs.
            Event::Notice { .. } => tracing::trace!(%conn, "notice dropped"),
            Event::Call { .. } | Event::Restart { .. } => {
                tracing::warn!(%conn, "an agent ordered what only a relay may")
            }
        }
    }

    /// A family of tokens was revoked, or ran out.
    pub(super) fn revoked(&mut self, family: &FamilyId, cx: &mut Cx<'_>) {
        let tunnels: Vec<ConnId> = self.of_devices(|device| device.family == *family);
        for conn in tunnels {
            self.expel(conn, cx);
        }
        self.end_calls(|call| call.family == *family, cx);
        self.listeners.end(|listener| listener.family == *family, cx);
    }

    /// A tunnel's grant ran out.
    pub(super) fn expired(&mut self, lease: &Lease, cx: &mut Cx<'_>) {
        match lease {
            Lease::Tunnel(conn) => match self.devices.get(conn).map(|device| device.expires) {
                Some(expires) if cx.now.unix < expires => cx.lease(lease.clone(), expires),
                Some(_) => self.expel(*conn, cx),
                None => {}
            },
            Lease::Exchange(exchange) => self.listeners.expired(*exchange, cx),
        }
    }

    /// A client ended its session.
    pub(super) fn session_ended(&mut self, session: &SessionKey, cx: &mut Cx<'_>) {
        self.end_calls(|call| call.session == *session, cx);
        self.listeners.end(|listener| listener.session == *session, cx);
    }

    /// The relay stops.
    pub(super) fn stop(&mut self, cx: &mut Cx<'_>) {
        for key in self.calls.keys().copied().collect::<Vec<_>>() {
            self.fail(key, &Failure::Stopping, cx);
        }
        for conn in self.of_devices(|_| true) {
            close(conn, CloseCode::GoingAway, "the relay is stopping", cx);
            self.lose(conn, CloseCode::GoingAway, cx);
        }
        self.listeners.end(|_| true, cx);
    }

    /// A reply that nothing was sent of has been silent for long enough to become a stream.
    pub(super) fn silence(&mut self, exchange: ExchangeId, cx: &mut Cx<'_>) {
        let source = self.replies.get(&exchange).copied();
        if let Some(Call { sink: Sink::Reply(outlet), .. }) = source.and_then(|key| self.calls.get_mut(&key)) {
            outlet.begin_events(source, cx);
        } else if let Some(batch) = self.batches.get_mut(&exchange) {
            batch.outlet.begin_events(None, cx);
        }
    }

    /// A stream has been quiet.
    pub(super) fn heartbeat(&mut self, exchange: ExchangeId, cx: &mut Cx<'_>) {
        let call = self.replies.get(&exchange).and_then(|key| self.calls.get_mut(key));
        if let Some(Call { sink: Sink::Reply(outlet), .. }) = call {
            outlet.heartbeat(cx);
        } else if let Some(batch) = self.batches.get_mut(&exchange) {
            batch.outlet.heartbeat(cx);
        } else {
            self.listeners.heartbeat(exchange, cx);
        }
    }

    /// Nothing was heard of a call for its idle limit.
    pub(super) fn idle(&mut self, key: CallKey, cx: &mut Cx<'_>) {
        if let Some(call) = self.calls.get(&key) {
            let failure = Failure::TimedOut(call.place.clone());
            reset(key, ResetCode::TimedOut, "nothing was heard of the call for too long", cx);
            self.fail(key, &failure, cx);
        }
    }

    /// The changes of a moment are over: clients whose list is another now are told.
    pub(super) fn announce(&mut self, cx: &mut Cx<'_>) {
        for (exchange, endpoint) in self.listeners.endpoints() {
            let list = self.list_of(&endpoint, cx);
            self.listeners.tell(exchange, list, cx);
        }
    }
}

/// What clients ask.
impl Room {
    fn request(&mut self, sink: Sink, caller: &Caller, request: Request, cx: &mut Cx<'_>) {
        match (request.method.as_str(), &caller.endpoint) {
            (method::PING, _) => self.respond(sink, &request.id, Ok(Bytes::from_static(b"{}")), cx),
            (method::INITIALIZE, _) => {
                let result = self.initialize(caller, cx);
                self.respond(sink, &request.id, result, cx);
            }
            (method::TOOLS_LIST, _) => {
                let result = self.list(caller, &request.params, cx);
                self.respond(sink, &request.id, result, cx);
            }
            (method::TOOLS_CALL, Endpoint::All) => self.call_by_name(sink, caller, request, cx),
            (other, Endpoint::All) => {
                let failure = Failure::NoSuchMethod(printable(other, limits::MAX_LISTED_NAME));
                self.respond(sink, &request.id, Err(failure), cx);
            }
            (_, Endpoint::Server(_) | Endpoint::DeviceServer(..)) => self.forward(sink, caller, request, cx),
        }
    }

    fn batch(&mut self, outlet: Outlet, caller: &Caller, requests: Vec<Result<Request, Bytes>>, cx: &mut Cx<'_>) {
        let exchange = outlet.exchange();
        outlet.hold(cx);
        let slots = alloc::vec![None; requests.len()];
        self.batches.insert(exchange, Batch { outlet, slots });
        for (index, request) in requests.into_iter().enumerate() {
            let sink = Sink::Slot { exchange, index, held: BytesMut::new() };
            match request {
                Ok(request) => self.request(sink, caller, request, cx),
                Err(response) => self.deliver(sink, StatusCode::OK, response, cx),
            }
        }
    }

    fn initialize(&mut self, caller: &Caller, cx: &Cx<'_>) -> Result<Bytes, Failure> {
        let version = caller.session.version;
        match &caller.endpoint {
            Endpoint::All => {
                let servers = self.sources().into_iter().flat_map(|source| source.catalog.servers());
                Ok(initialize::aggregated(version, servers))
            }
            single => {
                let (_, _, server) = self.locate(single, cx)?;
                Ok(initialize::transparent(version, server))
            }
        }
    }

    /// There is one page: a cursor can only be somebody else's.
    fn list(&mut self, caller: &Caller, params: &Bytes, cx: &Cx<'_>) -> Result<Bytes, Failure> {
        let cursor = rpc::object::get(params, "cursor").unwrap_or_default();
        if !matches!(&cursor[..], b"" | b"null" | b"\"\"") {
            return Err(Failure::BadParams("no such cursor: the list has one page"));
        }
        match &caller.endpoint {
            Endpoint::All => Ok(self.listing(cx).body.clone()),
            single => self.locate(single, cx).map(|(_, _, server)| server.list.clone()),
        }
    }

    /// `tools/call` on `/mcp`: the name says where.
    fn call_by_name(&mut self, sink: Sink, caller: &Caller, request: Request, cx: &mut Cx<'_>) {
        match self.errand_by_name(&request, cx) {
            Ok(Some(errand)) => self.open(sink, caller, request.id, errand, cx),
            Ok(None) => {
                let result = self.meta(&request, cx);
                self.respond(sink, &request.id, result, cx);
            }
            Err(failure) => self.respond(sink, &request.id, Err(failure), cx),
        }
    }

    /// Where a call by name goes; `None` for a meta tool.
    fn errand_by_name(&mut self, request: &Request, cx: &Cx<'_>) -> Result<Option<Errand>, Failure> {
        let params =
            Object::parse_or_empty(&request.params).map_err(|_| Failure::BadParams("params must be an object"))?;
        let raw = params.get("name").unwrap_or_default();
        let name = rpc::string(&raw).ok_or(Failure::BadParams("params.name must be the tool's name"))?;
        if meta::NAMES.contains(&name.as_ref()) {
            return Ok(None);
        }
        let shown = || printable(&name, limits::MAX_LISTED_NAME);
        let target = match self.listing(cx).resolve(&name) {
            Meaning::Tool(target) => target.clone(),
            Meaning::Ambiguous(choices) => {
                return Err(Failure::AmbiguousTool { name: shown(), choices: choices.join(", ") });
            }
            Meaning::Unknown(near) => return Err(Failure::NoSuchTool { name: shown(), near: near.join(", ") }),
        };
        Ok(Some(Errand {
            conn: target.conn,
            server: target.server,
            method: request.method.clone(),
            params: params.replace(&[("name", quoted(&target.tool).as_bytes())]),
            tool: Some(target.tool),
        }))
    }

    /// Any request on an endpoint of one server: passed on as it is.
    fn forward(&mut self, sink: Sink, caller: &Caller, request: Request, cx: &mut Cx<'_>) {
        match self.locate(&caller.endpoint, cx).map(|(conn, name, _)| (conn, name.clone())) {
            Ok((conn, server)) => {
                let is_call = request.method == method::TOOLS_CALL;
                let tool = is_call.then(|| rpc::object::get(&request.params, "name")).flatten();
                let tool = tool.and_then(|raw| rpc::string(&raw).map(|name| Arc::from(name.as_ref())));
                let errand = Errand { conn, server, method: request.method, params: request.params, tool };
                self.open(sink, caller, request.id, errand, cx);
            }
            Err(failure) => self.respond(sink, &request.id, Err(failure), cx),
        }
    }

    fn meta(&mut self, request: &Request, cx: &mut Cx<'_>) -> Result<Bytes, Failure> {
        let name = rpc::object::get(&request.params, "name").unwrap_or_default();
        let arguments = rpc::object::get(&request.params, "arguments").unwrap_or_default();
        if rpc::string(&name).as_deref() == Some(meta::STATUS) {
            let now = cx.now.instant;
            self.listing(cx);
            let listing = self.listing.as_ref().expect("the listing was just made");
            return Ok(meta::status(&device::sorted(&self.devices), listing, now));
        }
        let order = meta::restart(&arguments, &device::sorted(&self.devices))?;
        for (conn, server) in order.commands {
            tracing::info!(%conn, server = server.as_deref(), "restart ordered");
            cx.out.push(Action::Tunnel { conn, command: Command::Restart { server } });
        }
        Ok(order.result)
    }

    /// Opens a call on its device's tunnel, or says why not.
    fn open(&mut self, sink: Sink, caller: &Caller, id: RawId, errand: Errand, cx: &mut Cx<'_>) {
        let request = (caller.session.key.clone(), id.clone());
        match self.may_open(&request, &errand) {
            Err(failure) => self.respond(sink, &id, Err(failure), cx),
            Ok((place, stream)) => {
                let key = (errand.conn, stream);
                tracing::debug!(conn = %key.0, call = %key.1, device = %place.device,
                    server = %place.server, method = %printable(&errand.method, limits::MAX_LISTED_NAME), "call opened");
                let exchange = match &sink {
                    Sink::Reply(outlet) => Some(outlet.exchange()),
                    Sink::Slot { .. } | Sink::Nobody => None,
                };
                if let Sink::Reply(outlet) = &sink {
                    outlet.hold(cx);
                    self.replies.insert(outlet.exchange(), key);
                }
                self.requests.insert(request, key);
                let call = Call {
                    id,
                    session: caller.session.key.clone(),
                    family: caller.family.clone(),
                    place,
                    opened: cx.now.instant,
                    exchange,
                    sink,
                    phase: Phase::Waiting,
                };
                self.calls.insert(key, call);
                self.renew(key, cx);
                let head = OpenHead {
                    server: errand.server.to_string(),
                    method: errand.method,
                    version: Some(caller.session.version.as_str().to_string()),
                    client: Some(caller.session.client.clone()),
                    session: caller.session.key.0.to_string(),
                    length: u64::try_from(errand.params.len()).unwrap_or_default(),
                };
                let v1_tool = errand.tool.as_deref().map(|tool| device::v1_tool(&errand.server, tool));
                let command = Command::Open { stream, head, params: errand.params, v1_tool };
                cx.out.push(Action::Tunnel { conn: errand.conn, command });
            }
        }
    }

    fn may_open(&mut self, request: &(SessionKey, RawId), errand: &Errand) -> Result<(Place, StreamId), Failure> {
        if self.requests.contains_key(request) {
            return Err(Failure::IdInUse);
        }
        if self.calls.len() >= limits::MAX_CALLS {
            return Err(Failure::Overloaded);
        }
        let open = self.calls.range((errand.conn, StreamId(0))..=(errand.conn, StreamId(u32::MAX))).count();
        let device = self.devices.get_mut(&errand.conn).expect("an errand's device was just found connected");
        let (_, server) =
            device.catalog.server(&errand.server).expect("an errand's server was just found on its device");
        let place = Place { device: device.name.to_string(), server: errand.server.to_string() };
        if device.leaving {
            return Err(Failure::Leaving(place));
        }
        if !server.is_ready() {
            return Err(Failure::NotReady { place, state: meta::state(server.state), reason: server.reason.clone() });
        }
        if device.dialect == Dialect::V1 && errand.method != method::TOOLS_CALL {
            return Err(Failure::NoSuchMethod(printable(&errand.method, limits::MAX_LISTED_NAME)));
        }
        if open >= device.max_streams() {
            return Err(Failure::Overloaded);
        }
        let stream = device.next_stream().ok_or_else(|| Failure::Leaving(place.clone()))?;
        Ok((place, stream))
    }

    /// `notifications/cancelled`: of a request in the same session, or of none.
    fn cancelled(&mut self, session: &SessionKey, params: &Bytes, cx: &mut Cx<'_>) {
        let id = rpc::object::get(params, "requestId").and_then(|raw| RawId::from_raw(&raw));
        if let Some(key) = id.and_then(|id| self.requests.get(&(session.clone(), id)).copied()) {
            reset(key, ResetCode::Cancelled, "the client cancelled", cx);
            self.fail(key, &Failure::Cancelled, cx);
        }
    }
}

/// What agents answer.
impl Room {
    fn answer(&mut self, key: CallKey, outcome: crate::tunnel::Outcome, length: Option<u64>, cx: &mut Cx<'_>) {
        let Some(call) = self.calls.get_mut(&key) else {
            return tracing::debug!(conn = %key.0, call = %key.1, "late answer dropped");
        };
        if !call.answer(outcome, length) {
            return tracing::warn!(conn = %key.0, call = %key.1, "second answer dropped");
        }
        self.renew(key, cx);
    }

    fn data(&mut self, key: CallKey, bytes: Bytes, end: bool, cx: &mut Cx<'_>) {
        let Some(call) = self.calls.get_mut(&key) else {
            return tracing::debug!(conn = %key.0, call = %key.1, "late piece dropped");
        };
        match call.data(key, bytes, end, cx) {
            Progress::More => self.renew(key, cx),
            Progress::Done(response) => {
                tracing::debug!(conn = %key.0, call = %key.1,
                    elapsed_ms = cx.now.instant.saturating_since(call.opened).as_millis(), "call answered");
                let sink = self.take(key, cx).map(|call| call.sink);
                if let (Some(sink), Some(response)) = (sink, response) {
                    self.deliver(sink, StatusCode::OK, response, cx);
                }
            }
            Progress::Fault => {
                let failure = Failure::Broken(call.place.clone());
                reset(key, ResetCode::Internal, "the answer does not fit its announcement", cx);
                self.fail(key, &failure, cx);
            }
            Progress::TooLarge => {
                reset(key, ResetCode::TooLarge, "the answers of a batch are too long", cx);
                self.fail(key, &Failure::BatchTooLarge, cx);
            }
        }
    }

    /// A message that belongs to a call. Only notifications pass: no client was told that it may be asked anything.
    fn message(&mut self, key: CallKey, json: Bytes, credit: u32, cx: &mut Cx<'_>) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let passes = matches!(rpc::parse(&json), Ok(rpc::Message::Notification { .. }));
        let sent = match &mut call.sink {
            Sink::Reply(outlet) if passes => outlet.message(json, Some(key), credit, cx),
            Sink::Reply(_) | Sink::Slot { .. } | Sink::Nobody => false,
        };
        if !sent {
            tracing::trace!(conn = %key.0, call = %key.1, "message of a call dropped");
            calls::consume(key, credit, cx);
        }
        self.renew(key, cx);
    }

    /// A tunnel is over: every call on it is answered at once.
    fn lose(&mut self, conn: ConnId, code: CloseCode, cx: &mut Cx<'_>) {
        let calls = self.calls.range((conn, StreamId(0))..=(conn, StreamId(u32::MAX)));
        for key in calls.map(|(key, _)| *key).collect::<Vec<_>>() {
            let place = self.calls.get(&key).expect("the call was just listed").place.clone();
            self.fail(key, &Failure::Disconnected { place, code }, cx);
        }
        if self.devices.remove(&conn).is_some() {
            cx.timers.clear(&Timer::Expiry(Lease::Tunnel(conn)));
            self.changed(cx);
        }
    }

    fn expel(&mut self, conn: ConnId, cx: &mut Cx<'_>) {
        tracing::info!(%conn, "tunnel's sign-in ended");
        close(conn, CloseCode::Revoked, "the sign-in of this device was revoked or ran out", cx);
        self.lose(conn, CloseCode::Revoked, cx);
    }

    /// Ends the calls of a client that may not have their answers any more; a batch ends with the last of its calls.
    fn end_calls(&mut self, meant: impl Fn(&Call) -> bool, cx: &mut Cx<'_>) {
        let ended: Vec<CallKey> = self.calls.iter().filter(|(_, call)| meant(call)).map(|(key, _)| *key).collect();
        for key in ended {
            reset(key, ResetCode::Cancelled, "the client's sign-in or session ended", cx);
            self.fail(key, &Failure::SignedOut, cx);
        }
    }

    /// Any sign of life renews a call's idle limit.
    fn renew(&self, (conn, stream): CallKey, cx: &mut Cx<'_>) {
        let idle = match self.devices.get(&conn).map(|device| device.dialect) {
            Some(Dialect::V1) => cx.settings.call_idle.min(limits::V1_CALL_TIMEOUT),
            Some(Dialect::V2) | None => cx.settings.call_idle,
        };
        cx.timers.set(Timer::Idle(conn, stream), cx.now.instant + idle);
    }

    /// Ends a call without a result.
    fn fail(&mut self, key: CallKey, failure: &Failure, cx: &mut Cx<'_>) {
        let Some(call) = self.take(key, cx) else { return };
        tracing::debug!(conn = %key.0, call = %key.1, reason = failure.reason(), code = failure.code(), "call failed");
        let response = call.failed(failure);
        match call.sink {
            Sink::Reply(outlet) if outlet.is_mid_answer() => outlet.abort(cx),
            sink => self.deliver(sink, StatusCode::OK, response, cx),
        }
    }

    /// Takes a call off the books.
    fn take(&mut self, key: CallKey, cx: &mut Cx<'_>) -> Option<Call> {
        let call = self.calls.remove(&key)?;
        cx.timers.clear(&Timer::Idle(key.0, key.1));
        self.requests.remove(&(call.session.clone(), call.id.clone()));
        if let Some(exchange) = call.exchange {
            self.replies.remove(&exchange);
        }
        Some(call)
    }

    /// Answers a request.
    fn respond(&mut self, sink: Sink, id: &RawId, result: Result<Bytes, Failure>, cx: &mut Cx<'_>) {
        match (sink, result) {
            (Sink::Reply(outlet), Ok(result)) if result.len() > limits::WHOLE_ANSWER => {
                outlet.long(envelope::around_result(id), result, cx);
            }
            (sink, Ok(result)) => self.deliver(sink, StatusCode::OK, envelope::result(id, &result), cx),
            (sink, Err(failure)) => self.deliver(sink, failure.status(), failure.response(id), cx),
        }
    }

    /// Brings a whole response where it belongs.
    fn deliver(&mut self, sink: Sink, status: StatusCode, response: Bytes, cx: &mut Cx<'_>) {
        match sink {
            Sink::Reply(outlet) => outlet.whole(status, response, cx),
            Sink::Slot { exchange, index, .. } => self.fill(exchange, index, response, cx),
            Sink::Nobody => {}
        }
    }

    /// Puts a response into its batch, and sends the batch when it was the last.
    fn fill(&mut self, exchange: ExchangeId, index: usize, response: Bytes, cx: &mut Cx<'_>) {
        let Some(batch) = self.batches.get_mut(&exchange) else { return };
        let held: usize = batch.slots.iter().flatten().map(Bytes::len).sum();
        let fits = held.saturating_add(response.len()) <= limits::MAX_BATCH_ANSWER;
        let Some(slot) = batch.slots.get_mut(index) else { return };
        *slot = Some(if fits { response } else { too_large(&response) });
        if batch.slots.iter().all(Option::is_some)
            && let Some(batch) = self.batches.remove(&exchange)
        {
            let whole = envelope::batch(batch.slots.iter().flatten().map(AsRef::as_ref));
            batch.outlet.whole(StatusCode::OK, whole, cx);
        }
    }
}

/// What there is.
impl Room {
    fn changed(&mut self, cx: &mut Cx<'_>) {
        self.listing = None;
        self.changed_at = cx.now.instant;
        let timer = Timer::Announce(cx.user.clone());
        if cx.timers.get(&timer).is_none() && !self.listeners.is_empty() {
            cx.timers.set(timer, cx.now.instant + limits::ANNOUNCE_DELAY);
        }
    }

    fn listing(&mut self, cx: &Cx<'_>) -> &Listing {
        if self.listing.is_none() {
            self.listing = Some(Listing::new(&self.sources(), cx.settings.naming));
        }
        self.listing.as_ref().expect("the listing was just made")
    }

    /// What `tools/list` says on this endpoint; empty when there is no such server.
    fn list_of(&mut self, endpoint: &Endpoint, cx: &Cx<'_>) -> Bytes {
        match endpoint {
            Endpoint::All => self.listing(cx).body.clone(),
            single => self.locate(single, cx).map(|(_, _, server)| server.list.clone()).unwrap_or_default(),
        }
    }

    fn sources(&self) -> Vec<Source<'_>> {
        let devices = device::sorted(&self.devices).into_iter();
        devices.map(|device| Source { conn: device.conn, device: &device.name, catalog: &device.catalog }).collect()
    }

    fn of_devices(&self, wanted: impl Fn(&Device) -> bool) -> Vec<ConnId> {
        self.devices.values().filter(|device| wanted(device)).map(|device| device.conn).collect()
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

fn close(conn: ConnId, code: CloseCode, reason: &str, cx: &mut Cx<'_>) {
    cx.out.push(Action::Tunnel { conn, command: Command::Close(Close::new(code, reason)) });
}

fn reset((conn, stream): CallKey, code: ResetCode, reason: &str, cx: &mut Cx<'_>) {
    let command = Command::Reset { stream, code, reason: reason.to_string() };
    cx.out.push(Action::Tunnel { conn, command });
}

/// The response that stands for one that its batch has no room for.
fn too_large(response: &Bytes) -> Bytes {
    let id = rpc::object::get(response, "id").and_then(|raw| RawId::from_raw(&raw));
    let failure = Failure::BatchTooLarge;
    id.map_or_else(|| rpc::envelope::error(None, failure.code(), failure.reason(), None), |id| failure.response(&id))
}
