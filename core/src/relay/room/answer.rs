//! What agents answer in a room, and how a call ends.

use alloc::boxed::Box;
use alloc::collections::btree_map::Entry;
use alloc::vec::Vec;

use bytes::Bytes;
use http::StatusCode;

use super::questions::Of;
use super::{Room, reset};
use crate::limits;
use crate::mcp::task;
use crate::relay::calls::{Call, CallKey, Phase, Progress, Sink};
use crate::relay::failure::Failure;
use crate::relay::shard::{Action, Cx, Timer};
use crate::rpc::{RawId, envelope};
use crate::time::Instant;
use crate::tunnel::{Dialect, Outcome, ResetCode};

impl Room {
    pub(super) fn answer(&mut self, key: CallKey, outcome: Outcome, length: Option<u64>, cx: &mut Cx<'_>) {
        let Some(call) = self.calls.get_mut(&key) else {
            return tracing::debug!(conn = %key.0, call = %key.1, "late answer dropped");
        };
        if !call.answer(outcome, length) {
            return tracing::warn!(conn = %key.0, call = %key.1, "second answer dropped");
        }
        call.heard = cx.now.instant;
    }

    pub(super) fn data(&mut self, key: CallKey, bytes: Bytes, end: bool, cx: &mut Cx<'_>) {
        let Some(call) = self.calls.get_mut(&key) else {
            return tracing::debug!(conn = %key.0, call = %key.1, "late piece dropped");
        };
        if end && call.on_all && matches!(call.phase, Phase::Answered { outcome: Outcome::Result, .. }) {
            let task = task::id_in(&bytes);
            let server = task.as_ref().map(|_| call.place.server.clone());
            if let (Some(task), Some(server)) = (task, server) {
                self.tasks.learn(&task, (key.0, server));
            }
        }
        match call.data(key, bytes, end, cx) {
            Progress::More => call.heard = cx.now.instant,
            Progress::Done(response) => {
                tracing::debug!(conn = %key.0, call = %key.1,
                    elapsed_ms = cx.now.instant.saturating_since(call.opened).as_millis(), "call answered");
                if let Some(record) = &call.audit {
                    cx.out.push(Action::Audit(record.answered(Some(&call.place), &call.phase, call.opened, cx.now)));
                }
                if matches!(call.phase, Phase::Body { outcome: Outcome::Result, .. }) {
                    self.hand_questions_on(key);
                }
                let sink = self.take(key, cx).map(|call| call.sink);
                if let (Some(sink), Some(response)) = (sink, response) {
                    self.deliver(sink, StatusCode::OK, response, cx);
                }
            }
            Progress::Fault(why) => {
                let failure = Failure::Broken(call.place.clone());
                reset(key, ResetCode::Internal, why, cx);
                self.fail(key, &failure, cx);
            }
            Progress::TooLarge => {
                reset(key, ResetCode::TooLarge, "the answers are too long together", cx);
                self.fail(key, &Failure::BatchTooLarge, cx);
            }
        }
    }

    /// A call's server wants to be left alone for a while: so is the relay, by a client that knows of it.
    pub(super) fn pause(&mut self, key: CallKey, millis: u32, cx: &mut Cx<'_>) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        if let Sink::Reply(outlet) = &mut call.sink
            && outlet.pause(Some(key), millis, cx)
            && let Some(exchange) = call.exchange.take()
        {
            self.replies.remove(&exchange);
        }
        self.renew(key, cx);
    }

    /// Ends the calls of a client that may not have their answers any more; a batch ends with the last of its calls.
    pub(super) fn end_calls(&mut self, meant: impl Fn(&Call) -> bool, failure: &Failure, cx: &mut Cx<'_>) {
        let ended: Vec<CallKey> = self.calls.iter().filter(|(_, call)| meant(call)).map(|(key, _)| *key).collect();
        for key in ended {
            reset(key, ResetCode::Cancelled, "the client's sign-in or session ended", cx);
            self.fail(key, failure, cx);
        }
    }

    /// Any sign of life renews a call's idle limit. Its timer is not touched for that: it asks when it is due.
    pub(super) fn renew(&mut self, key: CallKey, cx: &Cx<'_>) {
        if let Some(call) = self.calls.get_mut(&key) {
            call.heard = cx.now.instant;
        }
    }

    /// When a call is given up if nothing more is heard of it.
    pub(super) fn given_up(&self, (conn, _): CallKey, call: &Call, cx: &Cx<'_>) -> Instant {
        let idle = match self.devices.get(&conn).map(|device| device.dialect) {
            Some(Dialect::V1) => cx.settings.limits.call_idle.min(limits::V1_CALL_TIMEOUT),
            Some(Dialect::V2) | None => cx.settings.limits.call_idle,
        };
        call.heard + idle
    }

    /// Ends a call without a result.
    pub(super) fn fail(&mut self, key: CallKey, failure: &Failure, cx: &mut Cx<'_>) {
        let Some(call) = self.take(key, cx) else { return };
        tracing::debug!(conn = %key.0, call = %key.1, reason = failure.reason(), code = failure.code(), "call failed");
        if let Some(record) = &call.audit {
            cx.out.push(Action::Audit(record.failed(Some(&call.place), failure, call.opened, cx.now)));
        }
        let response = call.failed(failure);
        match call.sink {
            Sink::Reply(outlet) => outlet.fail(response, cx),
            sink => self.deliver(sink, StatusCode::OK, response, cx),
        }
    }

    /// Takes a call off the books.
    pub(super) fn take(&mut self, key: CallKey, cx: &mut Cx<'_>) -> Option<Box<Call>> {
        let call = self.calls.remove(&key)?;
        cx.timers.clear(&Timer::Idle(key.0, key.1));
        self.questions.retain(|_, question| question.of != Of::Call(key));
        if let Some(session) = &call.session {
            let request = (session.clone(), call.id.clone());
            // One of several calls for a request does not stand for it.
            if let Entry::Occupied(of) = self.requests.entry(request)
                && *of.get() == key
            {
                of.remove();
            }
        }
        if let Some(exchange) = call.exchange {
            self.replies.remove(&exchange);
            self.standing.remove(&exchange);
        }
        Some(call)
    }

    /// Answers a request.
    pub(super) fn respond(&mut self, sink: Sink, id: &RawId, result: Result<Bytes, Failure>, cx: &mut Cx<'_>) {
        match (sink, result) {
            (Sink::Reply(outlet), Ok(result)) if result.len() > limits::WHOLE_ANSWER => {
                outlet.long(envelope::around_result(id), result, cx);
            }
            (sink, Ok(result)) => self.deliver(sink, StatusCode::OK, envelope::result(id, &result), cx),
            (sink, Err(failure)) => {
                let status = match (&sink, failure.status()) {
                    (Sink::Reply(outlet), StatusCode::OK) => outlet.status_of(failure.code()),
                    (_, status) => status,
                };
                self.deliver(sink, status, failure.response(id), cx);
            }
        }
    }

    /// Brings a whole response where it belongs.
    pub(super) fn deliver(&mut self, sink: Sink, status: StatusCode, response: Bytes, cx: &mut Cx<'_>) {
        match sink {
            Sink::Reply(outlet) => outlet.whole(status, response, cx),
            Sink::Slot { exchange, index, .. } => self.fill(exchange, index, response, cx),
            Sink::Part { gather, index, .. } => self.part(gather, index, &response, cx),
            Sink::Feed { exchange, index } => self.feed_ended((exchange, index), &response, cx),
            Sink::Nobody => {}
        }
    }
}
