//! What clients ask of a room.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::Room;
use super::aggregate::one_page;
use crate::id::{ConnId, StreamId};
use crate::limits;
use crate::mcp::{Era, method};
use crate::oauth::Principal;
use crate::relay::audit::{Record, Who};
use crate::relay::calls::{Call, Phase, Sink};
use crate::relay::catalog::printable;
use crate::relay::discover::Keep;
use crate::relay::failure::{Failure, Place};
use crate::relay::mend::Mend;
use crate::relay::named::Meaning;
use crate::relay::outlet::Outlet;
use crate::relay::replay::Asked;
use crate::relay::shard::{Action, Cx, Lease, Timer};
use crate::relay::{Content, Endpoint, Item, Post, Request, SessionKey, Speaker, device, initialize, meta};
use crate::rpc::{self, RawId, object::Object, quoted};
use crate::time::Now;
use crate::tunnel::{Command, Dialect, OpenHead};

impl Room {
    /// A client's message.
    pub(in crate::relay) fn post(&mut self, post: Post, cx: &mut Cx<'_>) {
        let lacking = self.lacking(&post, cx);
        let caller =
            Caller { speaker: post.speaker, endpoint: post.endpoint, principal: post.principal, audit: post.audit };
        if !lacking.is_empty() {
            cx.out.extend(caller.refusals(&post.content, cx.now));
            return Self::step_up(post.exchange, &caller.principal, &caller.endpoint, (&lacking, post.headers), cx);
        }
        let outlet = Outlet::new(post.exchange, post.accepts, post.headers).speaking(&caller.speaker);
        let outlet = match &caller.speaker {
            Speaker::Legacy(session) => outlet.resumable(session, asked(&post.content)),
            Speaker::Modern { .. } => outlet,
        };
        match post.content {
            Content::Request(request) => self.request(Sink::Reply(outlet), &caller, request, cx),
            Content::Note(note) => {
                self.note(&caller, note, cx);
                outlet.accepted(cx);
            }
            Content::Batch(items) => self.batch(outlet, &caller, items, cx),
        }
    }

    pub(super) fn request(&mut self, sink: Sink, caller: &Caller, request: Request, cx: &mut Cx<'_>) {
        if let Speaker::Modern { .. } = caller.speaker {
            return self.modern(sink, caller, request, cx);
        }
        match (&*request.method, &caller.endpoint) {
            (method::PING, _) => self.respond(sink, &request.id, Ok(Bytes::from_static(b"{}")), cx),
            (method::INITIALIZE, _) => {
                let result = self.initialize(caller, cx);
                self.respond(sink, &request.id, result, cx);
            }
            (method::TOOLS_LIST, endpoint)
                if *endpoint == Endpoint::All || self.answers_for(endpoint, Era::Legacy, cx) =>
            {
                let result = self.list(caller, &request.params, cx);
                self.respond(sink, &request.id, result, cx);
            }
            (method::TOOLS_CALL, Endpoint::All) => self.call_by_name(sink, caller, request, cx),
            (_, Endpoint::All) => self.ask_all(sink, caller, request, cx),
            (_, Endpoint::Server(_) | Endpoint::DeviceServer(..)) => self.forward(sink, caller, request, cx),
        }
    }

    fn initialize(&mut self, caller: &Caller, cx: &Cx<'_>) -> Result<Bytes, Failure> {
        let version = caller.speaker.version();
        match &caller.endpoint {
            Endpoint::All => Ok(initialize::aggregated(version, &self.offers(version.era()))),
            single => {
                let (_, _, server) = self.locate(single, cx)?;
                Ok(initialize::transparent(version, server.offer(version.era())))
            }
        }
    }

    pub(super) fn list(&mut self, caller: &Caller, params: &Bytes, cx: &Cx<'_>) -> Result<Bytes, Failure> {
        one_page(params)?;
        let era = caller.speaker.era();
        match &caller.endpoint {
            Endpoint::All => Ok(self.listing(era, cx).lists.tools.clone()),
            single => self.locate(single, cx).map(|(_, _, server)| server.offer(era).lists.tools.clone()),
        }
    }

    /// `tools/call` on `/mcp`: the name says where.
    pub(super) fn call_by_name(&mut self, sink: Sink, caller: &Caller, request: Request, cx: &mut Cx<'_>) {
        let result = match self.errand_by_name(caller, &request, cx) {
            Ok(Some(errand)) => return self.open(sink, caller, request.id, errand, cx),
            Ok(None) => self.meta(caller.speaker.era(), &request, cx),
            Err(failure) => Err(failure),
        };
        if caller.audit.is_some() {
            let name = rpc::object::get(&request.params, "name").unwrap_or_default();
            let record = caller.record(&request.method, rpc::string(&name).as_deref(), request.params.len());
            cx.out.extend(record.map(|record| Action::Audit(record.done(&result, cx.now))));
        }
        self.respond_own(sink, caller, &request.id, (Keep::No, result), cx);
    }

    /// Where a call by name goes; `None` for a meta tool.
    fn errand_by_name(&mut self, caller: &Caller, request: &Request, cx: &Cx<'_>) -> Result<Option<Errand>, Failure> {
        let params =
            Object::parse_or_empty(&request.params).map_err(|_| Failure::BadParams("params must be an object"))?;
        let raw = params.get("name").unwrap_or_default();
        let name = rpc::string(&raw).ok_or(Failure::BadParams("params.name must be the tool's name"))?;
        if meta::NAMES.contains(&name.as_ref()) {
            return Ok(None);
        }
        let shown = || printable(&name, limits::MAX_LISTED_NAME);
        let era = caller.speaker.era();
        let target = match self.listing(era, cx).resolve(&name) {
            Meaning::One(target) => target.clone(),
            Meaning::Ambiguous(choices) => {
                return Err(Failure::AmbiguousTool { name: shown(), choices: choices.join(", ") });
            }
            Meaning::Unknown(near) => {
                let near = near.join(", ");
                match self.own_tool(era, &name) {
                    Some(Ok(target)) => target,
                    Some(Err(choices)) => {
                        return Err(Failure::AmbiguousTool { name: shown(), choices: choices.join(", ") });
                    }
                    // An agent may be on its way back.
                    None if self.devices.is_empty() => return Err(Failure::NoDevice(shown())),
                    None => return Err(Failure::NoSuchTool { name: shown(), near }),
                }
            }
        };
        self.check_mirrored(&caller.speaker, (target.conn, &target.server, &target.name), &request.params)?;
        Ok(Some(Errand {
            conn: target.conn,
            server: target.server,
            method: request.method.clone(),
            params: params.replace(&[("name", quoted(&target.name).as_bytes())]),
            tool: Some(target.name),
        }))
    }

    /// Any request on an endpoint of one server: passed on as it is.
    pub(super) fn forward(&mut self, sink: Sink, caller: &Caller, request: Request, cx: &mut Cx<'_>) {
        let is_call = &*request.method == method::TOOLS_CALL;
        let tool = is_call.then(|| rpc::object::get(&request.params, "name")).flatten();
        let tool: Option<Arc<str>> = tool.and_then(|raw| rpc::string(&raw).map(|name| Arc::from(name.as_ref())));
        let place = self.locate(&caller.endpoint, cx).map(|(conn, name, _)| (conn, name.clone()));
        let checked = place.and_then(|(conn, server)| match &tool {
            Some(tool) => {
                self.check_mirrored(&caller.speaker, (conn, &server, tool), &request.params).map(|()| (conn, server))
            }
            None => Ok((conn, server)),
        });
        match checked {
            Ok((conn, server)) => {
                let errand = Errand { conn, server, method: request.method, params: request.params, tool };
                self.open(sink, caller, request.id, errand, cx);
            }
            Err(failure) => {
                let record = caller.record(&request.method, tool.as_deref(), request.params.len());
                cx.out.extend(record.map(|it| Action::Audit(it.failed(None, &failure, cx.now.instant, cx.now))));
                self.respond(sink, &request.id, Err(failure), cx);
            }
        }
    }

    fn meta(&mut self, era: Era, request: &Request, cx: &mut Cx<'_>) -> Result<Bytes, Failure> {
        let name = rpc::object::get(&request.params, "name").unwrap_or_default();
        let arguments = rpc::object::get(&request.params, "arguments").unwrap_or_default();
        if rpc::string(&name).as_deref() == Some(meta::STATUS) {
            let now = cx.now.instant;
            self.listing(era, cx);
            return Ok(meta::status(&device::sorted(&self.devices), self.made_listing(era), now));
        }
        let order = meta::restart(&arguments, &device::sorted(&self.devices))?;
        for (conn, server) in order.commands {
            tracing::info!(%conn, server = server.as_deref(), "restart ordered");
            cx.out.push(Action::Tunnel { conn, command: Command::Restart { server } });
        }
        Ok(order.result)
    }

    /// Opens a call on its device's tunnel, or says why not.
    pub(super) fn open(&mut self, sink: Sink, caller: &Caller, id: RawId, errand: Errand, cx: &mut Cx<'_>) {
        let is_part = matches!(sink, Sink::Part { .. } | Sink::Feed { .. });
        let request = caller.speaker.session().filter(|_| !is_part).map(|session| (session.clone(), id.clone()));
        let audit = caller.record(&errand.method, errand.tool.as_deref(), errand.params.len());
        match self.may_open(request.as_ref(), caller, &errand, cx.settings.limits.calls_per_user) {
            Err(failure) => {
                let place = audit.as_ref().and_then(|_| self.place(&errand));
                let line = audit.map(|it| it.failed(place.as_ref(), &failure, cx.now.instant, cx.now));
                cx.out.extend(line.map(Action::Audit));
                self.respond(sink, &id, Err(failure), cx);
            }
            Ok((place, stream)) => {
                let key = (errand.conn, stream);
                if tracing::enabled!(tracing::Level::DEBUG) {
                    let tool = errand.tool.as_deref().map(|tool| printable(tool, limits::MAX_LISTED_NAME));
                    let method = printable(&errand.method, limits::MAX_LISTED_NAME);
                    tracing::debug!(conn = %key.0, call = %key.1, device = %place.device, server = %place.server, %method,
                        tool, "call opened");
                }
                let exchange = match &sink {
                    Sink::Reply(outlet) => Some(outlet.exchange()),
                    Sink::Slot { .. } | Sink::Part { .. } | Sink::Feed { .. } | Sink::Nobody => None,
                };
                if let Sink::Reply(outlet) = &sink {
                    outlet.hold(cx);
                    self.replies.insert(outlet.exchange(), key);
                }
                self.requests.extend(request.map(|request| (request, key)));
                let dialect = self.devices.get(&key.0).map_or(Dialect::V2, |device| device.dialect);
                let mend = Mend::of(&caller.speaker, &errand.method, dialect);
                let until =
                    mend.as_ref().filter(|mend| mend.is_subscription()).map(|_| caller.principal.family_expires);
                if let (Some(until), Some(exchange)) = (until, exchange) {
                    cx.lease(Lease::Exchange(exchange), until);
                }
                let has_method = self.has_method(caller.speaker.era(), &errand);
                let call = Call {
                    id,
                    session: caller.speaker.session().cloned(),
                    family: caller.principal.family.clone(),
                    place,
                    opened: cx.now.instant,
                    heard: cx.now.instant,
                    exchange,
                    sink,
                    phase: Phase::Waiting,
                    mend,
                    until,
                    has_method,
                    on_all: caller.endpoint == Endpoint::All,
                    audit,
                };
                if call.until.is_none() {
                    cx.timers.set(Timer::Idle(key.0, key.1), self.given_up(key, &call, cx));
                }
                self.calls.insert(key, Box::new(call));
                let session = match &caller.speaker {
                    Speaker::Legacy(session) => Some(session),
                    Speaker::Modern { .. } => None,
                };
                let head = OpenHead {
                    server: errand.server.clone(),
                    method: errand.method,
                    version: Some(Cow::Borrowed(caller.speaker.version().as_str())),
                    client: Some(caller.speaker.client().clone()),
                    actor: caller.principal.actor.clone(),
                    session: session.map(|session| session.key.0.clone()).unwrap_or_default(),
                    capabilities: session.map(|session| session.capabilities.clone()).unwrap_or_default(),
                    length: u64::try_from(errand.params.len()).unwrap_or_default(),
                };
                let tool = errand.tool.filter(|_| dialect == Dialect::V1);
                let v1_tool = tool.map(|tool| device::v1_tool(&errand.server, &tool));
                let command = Command::Open { stream, head, params: errand.params, v1_tool };
                cx.out.push(Action::Tunnel { conn: errand.conn, command });
            }
        }
    }

    /// Whether an errand's server surely has its method. For other methods nothing says so but its answer.
    fn has_method(&self, era: Era, errand: &Errand) -> bool {
        let device = self.devices.get(&errand.conn);
        let server = device.and_then(|device| device.catalog.server(&errand.server));
        let Some(offer) = server.map(|(_, server)| server.offer(era)) else { return false };
        match &*errand.method {
            method::TOOLS_CALL => !offer.tools.is_empty(),
            method::PROMPTS_GET => offer.declares(&["prompts"]),
            method::RESOURCES_READ => offer.declares(&["resources"]),
            method::COMPLETE => offer.declares(&["completions"]),
            _ => false,
        }
    }

    /// Where an errand goes.
    fn place(&self, errand: &Errand) -> Option<Place> {
        let device = self.devices.get(&errand.conn)?;
        Some(Place { device: device.name.clone(), server: errand.server.clone() })
    }

    fn may_open(
        &mut self,
        request: Option<&(SessionKey, RawId)>,
        caller: &Caller,
        errand: &Errand,
        most: usize,
    ) -> Result<(Place, StreamId), Failure> {
        if request.is_some_and(|request| self.requests.contains_key(request)) {
            return Err(Failure::IdInUse);
        }
        let all = self.calls.len();
        // As long as half is left, nobody can have more than their share: then they need not be counted.
        let may_crowd = |most: usize| 2 * all >= most;
        if all >= most {
            return Err(Failure::Overloaded("of this user (limits.callsPerUser)"));
        }
        if may_crowd(most) && caller.is_crowding(self.calls.values().map(Box::as_ref), most) {
            return Err(Failure::Overloaded("of this client (of limits.callsPerUser it has its share)"));
        }
        let device = self.devices.get_mut(&errand.conn).expect("an errand's device was just found connected");
        let (_, server) =
            device.catalog.server(&errand.server).expect("an errand's server was just found on its device");
        let place = Place { device: device.name.clone(), server: errand.server.clone() };
        if device.leaving {
            return Err(Failure::Leaving(place));
        }
        if !server.takes_calls() {
            return Err(Failure::NotReady { place, state: meta::state(server.state), reason: server.reason.clone() });
        }
        if device.dialect == Dialect::V1 && &*errand.method != method::TOOLS_CALL {
            return Err(Failure::NoSuchMethod(printable(&errand.method, limits::MAX_LISTED_NAME)));
        }
        let most = device.max_streams();
        if may_crowd(most) {
            let on_device = self.calls.range((errand.conn, StreamId(0))..=(errand.conn, StreamId(u32::MAX)));
            if on_device.clone().count() >= most {
                return Err(Failure::Overloaded("on this device"));
            }
            if caller.is_crowding(on_device.map(|(_, call)| &**call), most) {
                return Err(Failure::Overloaded("of this client on this device"));
            }
        }
        let stream = device.next_stream().ok_or_else(|| Failure::Leaving(place.clone()))?;
        Ok((place, stream))
    }
}

/// Who asks, and where.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) speaker: Speaker,
    pub(super) endpoint: Endpoint,
    pub(super) principal: Arc<Principal>,
    /// Their user's pseudonym, if an audit is kept.
    audit: Option<Arc<str>>,
}

impl Caller {
    /// The beginning of a call's line in the audit, if one is kept.
    pub(super) fn record(&self, method: &str, tool: Option<&str>, params_bytes: usize) -> Option<Box<Record>> {
        let (session, client) = (self.speaker.session(), self.speaker.client());
        self.audit.as_ref().map(|user| {
            let who = Who { user, grant: &self.principal.family, session, actor: &self.principal.actor, client };
            Record::new(&who, method, tool, params_bytes)
        })
    }

    /// Whether it has so many of these calls, of which there may be `most`, that others could find none left: alone a
    /// client may have half, and whoever comes later finds half of what is left. So may each session of its.
    fn is_crowding<'a>(&self, calls: impl Iterator<Item = &'a Call>, most: usize) -> bool {
        let session = self.speaker.session();
        let count = |(all, of_client, of_session), call: &Call| {
            let is_its = session.is_some() && call.session.as_ref() == session;
            (all + 1, of_client + usize::from(call.family == self.principal.family), of_session + usize::from(is_its))
        };
        let (all, of_client, of_session): (usize, usize, usize) = calls.fold((0, 0, 0), count);
        all + of_client.max(of_session) >= most
    }

    /// The lines about calls that the caller's scopes do not allow.
    fn refusals(&self, content: &Content, now: Now) -> Vec<Action> {
        let requests: Vec<_> = match content {
            Content::Request(request) => [request].into(),
            Content::Batch(items) => items.iter().filter_map(Item::request).collect(),
            Content::Note(_) => Vec::new(),
        };
        let calls = requests.into_iter().filter(|request| &*request.method == method::TOOLS_CALL);
        let record = |request: &Request| {
            let name = rpc::object::get(&request.params, "name").unwrap_or_default();
            self.record(&request.method, rpc::string(&name).as_deref(), request.params.len())
        };
        calls.filter_map(record).map(|record| Action::Audit(record.refused(now))).collect()
    }
}

/// What the answer to a message answers.
fn asked(content: &Content) -> Asked {
    match content {
        Content::Request(request) => Asked::one(&request.id),
        Content::Batch(items) => Asked::batch(items.iter().filter_map(Item::request).map(|request| &request.id)),
        Content::Note(_) => Asked::default(),
    }
}

/// A call that is about to be opened: where it goes, and with what.
pub(super) struct Errand {
    pub(super) conn: ConnId,
    pub(super) server: Arc<str>,
    pub(super) method: Arc<str>,
    pub(super) params: Bytes,
    /// The tool's own name, for V1.
    pub(super) tool: Option<Arc<str>>,
}
