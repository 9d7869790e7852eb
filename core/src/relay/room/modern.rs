//! What clients without a handshake ask of a room (2026-07-28).

use alloc::format;
use alloc::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::Room;
use super::ask::Caller;
use super::feeds;
use crate::id::{ConnId, ExchangeId, FamilyId};
use crate::limits;
use crate::mcp::catalog::State;
use crate::mcp::{Era, code, key, method, mirror};
use crate::relay::calls::{Call, CallKey, Sink};
use crate::relay::capabilities::TASKS_EXTENSION;
use crate::relay::discover::{self, Keep};
use crate::relay::failure::Failure;
use crate::relay::offer::Offer;
use crate::relay::shard::{Cx, Lease};
use crate::relay::subscriptions::{Subscriber, Wants};
use crate::relay::{Endpoint, Request, Speaker};
use crate::rpc::{RawId, envelope, object};
use crate::tunnel::{Dialect, ResetCode};

impl Room {
    /// A modern client's request. On an endpoint of one server all of them are its agent's to answer.
    pub(super) fn modern(&mut self, sink: Sink, caller: &Caller, request: Request, cx: &mut Cx<'_>) {
        if &*request.method == method::SUBSCRIPTIONS_LISTEN
            && let Some(refusal) = self.no_stream(&sink, &caller.principal.family, cx)
        {
            let (status, code, text) = refusal;
            return self.deliver(sink, status, envelope::error(Some(&request.id), code, text, None), cx);
        }
        match (&*request.method, &caller.endpoint) {
            (method::TOOLS_CALL, Endpoint::All) => self.call_by_name(sink, caller, request, cx),
            (method::TOOLS_LIST, Endpoint::All) => {
                let list = self.list(caller, &request.params, cx);
                self.respond_own(sink, caller, &request.id, (Keep::Lists, list), cx);
            }
            (method::DISCOVER, Endpoint::All) => {
                let found = discover::aggregated(&self.offers(Era::Modern));
                self.respond_own(sink, caller, &request.id, (Keep::Lists, Ok(found)), cx);
            }
            (method::SUBSCRIPTIONS_LISTEN, Endpoint::All) => self.subscribe(sink, caller, &request, cx),
            (_, Endpoint::All) => self.ask_all(sink, caller, request, cx),
            (method::TOOLS_LIST | method::DISCOVER, single) if self.answers_for(single, Era::Modern, cx) => {
                let result = match &*request.method {
                    method::DISCOVER => {
                        let place = self.locate(single, cx);
                        place.map(|(_, _, server)| discover::transparent(server.offer(Era::Modern)))
                    }
                    _ => self.list(caller, &request.params, cx),
                };
                self.respond_own(sink, caller, &request.id, (Keep::Lists, result), cx);
            }
            (method::SUBSCRIPTIONS_LISTEN, _) => self.stand(sink, caller, request, cx),
            (_, Endpoint::Server(_) | Endpoint::DeviceServer(..)) => self.forward(sink, caller, request, cx),
        }
    }

    /// Answers a request with what is the relay's own, in the shape of the caller's revision.
    pub(super) fn respond_own(
        &mut self,
        sink: Sink,
        caller: &Caller,
        id: &RawId,
        (keep, result): (Keep, Result<Bytes, Failure>),
        cx: &mut Cx<'_>,
    ) {
        let body = match (&caller.speaker, result) {
            (Speaker::Modern { .. }, Ok(body)) => body,
            (_, result) => return self.respond(sink, id, result, cx),
        };
        let server = self.locate(&caller.endpoint, cx).ok().map(|(_, _, server)| server.offer(Era::Modern));
        let (around, inner) = (discover::around(id, keep, server.and_then(Offer::info)), body.slice(1..));
        match sink {
            Sink::Reply(outlet) if body.len() > limits::WHOLE_ANSWER => outlet.long(around, inner, cx),
            sink => self.deliver(sink, StatusCode::OK, [&around.0[..], &inner, &around.1].concat().into(), cx),
        }
    }

    /// Checks the header fields that repeat a tool's parameters. Of a tool that is not listed nothing is known, and its
    /// server's word counts.
    pub(super) fn check_mirrored(
        &self,
        speaker: &Speaker,
        (conn, server, tool): (ConnId, &Arc<str>, &str),
        params: &Bytes,
    ) -> Result<(), Failure> {
        let Speaker::Modern { mirrored, .. } = speaker else { return Ok(()) };
        let server = self.devices.get(&conn).and_then(|device| device.catalog.server(server));
        let tool = server.and_then(|(_, server)| server.offer(Era::Modern).tool(tool)).filter(|tool| tool.is_mirrored);
        let Some(schema) = tool.and_then(|tool| object::get(&tool.json, "inputSchema")) else { return Ok(()) };
        let arguments = object::get(params, "arguments").unwrap_or_default();
        mirror::params(&schema, &arguments).iter().try_for_each(|(field, raw)| agrees(mirrored, field, raw.as_ref()))
    }

    /// How many streams of changes this user's clients have open that subscribed; and how many of those the client has
    /// with that grant.
    pub(super) fn subscribed(&self, family: &FamilyId) -> (usize, usize) {
        let feeds = |call: &Call| matches!(call.sink, Sink::Feed { .. });
        let lasting = self.calls.values().filter(|call| call.until.is_some() && !feeds(call)).map(|call| &call.family);
        let families = self.subscriptions.families().chain(lasting);
        families.fold((0, 0), |(all, own), of| (all + 1, own + usize::from(of == family)))
    }

    /// The grant of a call that lasts may have run out.
    pub(super) fn lapsed(&mut self, exchange: ExchangeId, key: CallKey, cx: &mut Cx<'_>) {
        match self.calls.get(&key).and_then(|call| call.until) {
            Some(until) if cx.now.unix < until => cx.lease(Lease::Exchange(exchange), until),
            Some(_) => {
                super::reset(key, ResetCode::Cancelled, "the client's sign-in ran out", cx);
                self.fail(key, &Failure::SignedOut, cx);
            }
            None => {}
        }
    }

    fn subscribe(&mut self, sink: Sink, caller: &Caller, request: &Request, cx: &mut Cx<'_>) {
        let asked = Wants::read(&request.params).and_then(|wants| Ok((wants, feeds::asked(&request.params)?)));
        let (wants, asked) = match asked {
            Ok(asked) => asked,
            Err(failure) => return self.respond(sink, &request.id, Err(failure), cx),
        };
        if !asked.tasks.is_empty() && !declares_tasks(&request.params) {
            let text = "a client that listens for tasks must declare that it knows them";
            let lacks = format!(r#"{{"requiredCapabilities":{{"extensions":{{"{TASKS_EXTENSION}":{{}}}}}}}}"#);
            let error = envelope::error(Some(&request.id), code::MISSING_CAPABILITY, text, Some(lacks.as_bytes()));
            return self.deliver(sink, StatusCode::BAD_REQUEST, error, cx);
        }
        let Sink::Reply(outlet) = sink else { return };
        let exchange = outlet.exchange();
        let lists = self.lists_of(&Endpoint::All, Era::Modern, cx);
        let stale = super::is_recent(self.listed_at, cx);
        let (family, expires) = (caller.principal.family.clone(), caller.principal.family_expires);
        let who = Subscriber { id: request.id.clone(), family, expires };
        self.subscriptions.add(outlet, who, wants, (lists, stale), cx);
        self.begin_feeds(exchange, caller, request, asked, cx);
    }

    /// Why a client gets no stream of changes, if it does not.
    fn no_stream(&self, sink: &Sink, family: &FamilyId, cx: &Cx<'_>) -> Option<(StatusCode, i64, &'static str)> {
        match sink {
            Sink::Reply(outlet) if !outlet.takes_events() => {
                let text = "a subscription is an event stream: Accept must allow text/event-stream";
                Some((StatusCode::NOT_ACCEPTABLE, code::INVALID_REQUEST, text))
            }
            Sink::Reply(_) | Sink::Slot { .. } | Sink::Part { .. } | Sink::Feed { .. } | Sink::Nobody => {
                let (all, own) = self.subscribed(family);
                let is_full = self.listeners.is_full(family, (all, own), cx.settings.limits.streams_per_user);
                let text = "too many clients of this user listen for changes (limits.streamsPerUser)";
                is_full.then_some((StatusCode::SERVICE_UNAVAILABLE, code::OVERLOADED, text))
            }
        }
    }

    /// Whether what the one server of an endpoint offers is said for it, from the catalog: its agent is an old one, which
    /// can be asked for nothing but calls of tools; or it does not run, and is not to be started for being looked at. What
    /// a session has a run of for itself that run alone knows to tell it.
    pub(super) fn answers_for(&self, endpoint: &Endpoint, era: Era, cx: &Cx<'_>) -> bool {
        let Ok((conn, _, server)) = self.locate(endpoint, cx) else { return false };
        let is_old = self.devices.get(&conn).is_some_and(|device| device.dialect == Dialect::V1);
        let is_own = era == Era::Legacy && server.isolated && server.takes_calls();
        is_old || (server.state != State::Ready && !is_own)
    }
}

/// Whether a request's client knows tasks: one that does not MUST hear what it lacks (extension
/// `io.modelcontextprotocol/tasks`, Task Status Notifications).
fn declares_tasks(params: &Bytes) -> bool {
    let path = ["_meta", key::CLIENT_CAPABILITIES, "extensions", TASKS_EXTENSION];
    object::get_path(params, &path).is_some_and(|raw| raw.starts_with(b"{"))
}

/// Whether a header field repeats a parameter as it must (2026-07-28, Streamable HTTP, Server Behavior for Custom
/// Headers). An object or array cannot be repeated: that the parameter is one is for the server to refuse.
fn agrees(mirrored: &HeaderMap, field: &http::HeaderName, raw: Option<&Bytes>) -> Result<(), Failure> {
    let mut all = mirrored.get_all(field).iter();
    let fault = match (raw, all.next(), all.next()) {
        (None, None, _) => return Ok(()),
        (Some(raw), None, _) if raw.starts_with(b"{") || raw.starts_with(b"[") => return Ok(()),
        (Some(raw), Some(value), None) if mirror::decode(value).is_some_and(|told| mirror::is_same(&told, raw)) => {
            return Ok(());
        }
        (Some(_), None, _) => "is missing: it repeats an argument of this call",
        (Some(_), Some(_), _) => "does not repeat the argument that it stands for",
        (None, Some(_), _) => "repeats an argument that this call does not have",
    };
    Err(Failure::Mismatch(format!("{field} {fault}")))
}
