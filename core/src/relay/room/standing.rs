//! Subscriptions to one server: calls that last, and that outlive their tunnel (2026-07-28, patterns, Subscriptions).
//!
//! While its device is away a client's stream stays open. The server is asked anew when the device is back, and what the
//! client may have missed is told; its acknowledgement it has. A server that is not there any more, or failed, ends it in
//! peace. What the agent does in its place while only a process is away, it does by itself.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use http::StatusCode;

use super::Room;
use super::ask::{Caller, Errand};
use crate::id::{ConnId, DeviceName, ExchangeId};
use crate::limits;
use crate::mcp::{Era, method};
use crate::relay::Request;
use crate::relay::calls::{CallKey, Phase, Sink};
use crate::relay::device::Device;
use crate::relay::failure::Failure;
use crate::relay::lists::Lists;
use crate::relay::shard::{Action, Cx};
use crate::relay::subscriptions::{self, Subscriber, WATCHED, Wants};
use crate::rpc::{envelope, object};
use crate::tunnel::Dialect;

/// What a subscription to one server needs to be asked for anew.
#[derive(Debug)]
pub(super) struct Standing {
    caller: Caller,
    /// As the client sent them.
    params: Bytes,
    /// The client was told what is honoured.
    is_acknowledged: bool,
    /// Where it was when its tunnel broke: the device's name, and what the client knows of the lists.
    left: Option<(DeviceName, Lists)>,
}

impl Room {
    /// `subscriptions/listen` on an endpoint of one server.
    pub(super) fn stand(&mut self, sink: Sink, caller: &Caller, request: Request, cx: &mut Cx<'_>) {
        let exchange = match &sink {
            Sink::Reply(outlet) => Some(outlet.exchange()),
            Sink::Slot { .. } | Sink::Part { .. } | Sink::Feed { .. } | Sink::Nobody => None,
        };
        if let Some(exchange) = exchange.filter(|_| request.params.len() <= limits::MAX_KEPT_LISTEN) {
            // Copied: it must not keep the whole message in memory.
            let params = Bytes::copy_from_slice(&request.params);
            let standing = Standing { caller: caller.clone(), params, is_acknowledged: false, left: None };
            self.standing.insert(exchange, standing);
        }
        self.forward(sink, caller, request, cx);
        // It may have been refused at once.
        self.end_feeds(cx);
    }

    /// A call's tunnel is gone: a subscription waits for its device, any other call fails.
    pub(super) fn leave(&mut self, key: CallKey, device: Option<&Device>, failure: &Failure, cx: &mut Cx<'_>) {
        let call = self.calls.get(&key).filter(|call| matches!(call.phase, Phase::Waiting));
        let exchange = call.filter(|call| matches!(call.sink, Sink::Reply(_))).and_then(|call| call.exchange);
        let Some((exchange, standing)) = exchange.and_then(|at| Some((at, self.standing.remove(&at)?))) else {
            return self.fail(key, failure, cx);
        };
        let Some(call) = self.take(key, cx) else { return };
        tracing::debug!(conn = %key.0, call = %key.1, "subscription waits for its device");
        if let Some(record) = &call.audit {
            cx.out.push(Action::Audit(record.failed(Some(&call.place), failure, call.opened, cx.now)));
        }
        let server = device.and_then(|device| device.catalog.server(&call.place.server));
        let lists = server.map(|(_, server)| server.offer(Era::Modern).lists.clone()).unwrap_or_default();
        // Should it have been lost before it was honoured again, its client knows what it knew before.
        let lists = standing.left.map_or(lists, |(_, lists)| lists);
        let standing = Standing { left: Some((call.place.device, lists)), ..standing };
        let expires = call.until.unwrap_or(standing.caller.principal.family_expires);
        if let Sink::Reply(outlet) = call.sink {
            self.subscriptions.keep(outlet, Subscriber { id: call.id, family: call.family, expires });
            self.standing.insert(exchange, standing);
        }
    }

    /// A device says what it has: what waits for one of its servers is asked for anew.
    pub(super) fn stand_anew(&mut self, conn: ConnId, cx: &mut Cx<'_>) {
        let waits = |exchange: &&ExchangeId| self.subscriptions.contains(**exchange);
        let waiting: Vec<ExchangeId> = self.standing.keys().filter(waits).copied().collect();
        for exchange in waiting {
            let Some(standing) = self.standing.get(&exchange) else { continue };
            let device = self.devices.get(&conn).map(|device| device.name.as_str());
            let was_there = standing.left.as_ref().is_some_and(|(name, _)| device == Some(name.as_str()));
            let errand = match self.locate(&standing.caller.endpoint, cx) {
                Ok((conn, server, state)) => {
                    let device = self.devices.get(&conn).filter(|device| !device.leaving);
                    if device.is_none_or(|device| device.dialect == Dialect::V1) {
                        continue;
                    }
                    let (method, params) = (method::SUBSCRIPTIONS_LISTEN.into(), standing.params.clone());
                    let errand = Errand { conn, server: server.clone(), method, params, tool: None };
                    state.takes_calls().then_some(errand)
                }
                Err(Failure::NoSuchServer { .. }) if was_there => None,
                Err(_) => continue,
            };
            self.stand_again(exchange, errand, cx);
        }
    }

    /// Asks a server anew for a subscription; or ends it, where there is none to ask.
    fn stand_again(&mut self, exchange: ExchangeId, errand: Option<Errand>, cx: &mut Cx<'_>) {
        let caller = self.standing.get(&exchange).map(|standing| standing.caller.clone());
        let Some(((outlet, id), caller)) = self.subscriptions.take(exchange).zip(caller) else { return };
        match errand {
            Some(errand) => self.open(Sink::Reply(outlet), &caller, id, errand, cx),
            None => outlet.whole(StatusCode::OK, subscriptions::ended(&id), cx),
        }
        self.end_feeds(cx);
    }

    /// A server says what it honours of a subscription. Returns whether its client knows already.
    pub(super) fn is_acknowledged_again(&mut self, key: CallKey) -> bool {
        let exchange = self.calls.get(&key).and_then(|call| call.exchange);
        let standing = exchange.and_then(|exchange| self.standing.get_mut(&exchange));
        standing.is_some_and(|standing| core::mem::replace(&mut standing.is_acknowledged, true))
    }

    /// A subscription goes on: its client is told what it may have missed of what is honoured.
    pub(super) fn tell_missed(&mut self, key: CallKey, params: &Bytes, cx: &mut Cx<'_>) {
        let call = self.calls.get(&key).and_then(|call| Some((call.exchange?, call.id.clone())));
        let Some((exchange, id)) = call else { return };
        let standing = self.standing.get_mut(&exchange);
        let left = standing.and_then(|standing| Some((standing.left.take()?, standing.caller.endpoint.clone())));
        let (Some(((_, seen), endpoint)), Ok(wants)) = (left, Wants::read(params)) else { return };
        let lists = self.lists_of(&endpoint, Era::Modern, cx);
        let uris = object::get_path(params, &["notifications", WATCHED]);
        let uris: Vec<String> = uris.and_then(|raw| serde_json::from_slice(&raw).ok()).unwrap_or_default();
        let news = wants.among(lists.news(&seen)).map(|method| envelope::notification(method, b""));
        let updated = uris.iter().take(limits::MAX_LISTENED).map(|uri| subscriptions::updated(&id, uri));
        for json in news.chain(updated).collect::<Vec<_>>() {
            self.say(key, json, 0, cx);
        }
    }
}
