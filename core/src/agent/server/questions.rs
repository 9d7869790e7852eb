//! What a server asks a client: to whom the question goes, and how its answer finds back.
//!
//! A question belongs to a call. Over HTTP the stream tells to which; a process says nothing, so that the question is
//! passed on only where there is no doubt: a client must never be asked on behalf of another. In which of a client's calls
//! it is asked matters less: when that call has its result, another one of the client has the question, and its answer is
//! told by the session. What is asked with no call open is for [`beside`](super::beside).

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::bridging::Bridge;
use super::{Call, Server};
use crate::agent::caller::Caller;
use crate::agent::cx::{Cx, Report, RequestId};
use crate::limits;
use crate::mcp::{code, method};
use crate::rpc::{self, Message, RawId, envelope, object};
use crate::time::Instant;

/// The questions of one run that wait for a client, by the server's own ids.
#[derive(Debug, Default)]
pub(super) struct Questions(BTreeMap<RawId, Question>);

#[derive(Debug)]
struct Question {
    call: RequestId,
    /// The key of its client's session.
    session: Arc<str>,
    /// The server does not say which call it belongs to.
    is_guess: bool,
    /// The server's own progress token, as raw JSON.
    token: Option<Bytes>,
}

/// Whose calls of a process were cancelled a moment ago: until the process has read that, what it asks may still be in
/// their course. It has read it when it answers what it was asked later.
#[derive(Debug, Default)]
pub(super) struct Cancelled(VecDeque<Doubt>);

#[derive(Debug)]
struct Doubt {
    since: Instant,
    caller: Caller,
    /// A number between the requests before the cancellation and those after it.
    mark: RequestId,
}

impl Cancelled {
    pub(super) fn add(&mut self, caller: Caller, cx: &mut Cx) {
        if self.0.len() >= limits::MAX_CANCELLED {
            self.0.pop_front();
        }
        self.0.push_back(Doubt { since: cx.now.instant, caller, mark: cx.request_id() });
    }

    /// A request was answered.
    pub(super) fn answered(&mut self, request: RequestId) {
        self.0.retain(|doubt| doubt.mark > request);
    }

    fn forget(&mut self, now: Instant) {
        self.0.retain(|doubt| now.saturating_since(doubt.since) < limits::CANCEL_HEARD);
    }

    /// Whether a question may be another client's than `caller`.
    pub(super) fn leave_doubt(&self, caller: &Caller) -> bool {
        self.0.iter().any(|doubt| !doubt.caller.is_same_client(caller))
    }
}

/// Why a question is not passed on: code and text of the error that answers it.
pub(super) type Declined = (i64, &'static str);

impl Questions {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn count_of(&self, call: RequestId) -> usize {
        self.0.values().filter(|question| question.call == call).count()
    }

    /// Takes the question out that waits under that id, if it is meant. Returns its call.
    fn take(&mut self, id: &RawId, is_its: impl Fn(&Question) -> bool) -> Option<RequestId> {
        self.0.get(id).filter(|question| is_its(question))?;
        self.0.remove(id).map(|question| question.call)
    }

    /// Takes out all questions of a call.
    fn take_all(&mut self, call: RequestId) -> Vec<(RawId, Question)> {
        self.0.extract_if(.., |_, question| question.call == call).collect()
    }
}

impl Question {
    /// Whether a word in the course of that call, which is one of that session, may be about it.
    fn is_heard_in(&self, call: RequestId, session: &str) -> bool {
        self.call == call || (!session.is_empty() && *self.session == *session)
    }
}

impl Server {
    /// A request of the server. `on`: the request on whose stream it came (HTTP only).
    pub(super) fn hear_request(
        &mut self,
        id: RawId,
        method: &str,
        params: &Bytes,
        json: Bytes,
        on: Option<RequestId>,
        cx: &mut Cx,
    ) {
        // 2026-07-28, stdio and Streamable HTTP: a server MUST NOT ask, and a client MUST NOT answer.
        if self.is_modern() {
            return tracing::debug!(server = self.name.as_str(), "request of a server that may send none dropped");
        }
        if method == method::PING {
            return self.note(envelope::result(&id, b"{}"), cx);
        }
        self.cancelled.forget(cx.now.instant);
        if let Ok((call, _)) = self.asking_call(method, params, on)
            && self.ask_modern(call, &id, method, params, cx)
        {
            return;
        }
        if self.questions.0.contains_key(&id) || self.beside.has(&id) {
            return tracing::debug!(server = self.name.as_str(), "second question of one id dropped");
        }
        match self.whom_to_ask(method, params, json.len(), on) {
            Ok(call) => {
                tracing::debug!(server = self.name.as_str(), call = call.0, "server asks the client");
                // Copied: a few bytes must not keep a whole question in memory.
                let token = object::get_path(params, &["_meta", "progressToken"]);
                let token = token.map(|token| Bytes::copy_from_slice(&token));
                let open = self.calls.get(&call).map(|open| &open.caller);
                let waits = || self.held.iter().find(|held| held.request == call).map(|held| &held.caller);
                let caller = open.or_else(waits).expect("the call that asks is open or held");
                self.belongings.learn_page(method, params, call, caller);
                let question = Question { call, session: caller.session.clone(), is_guess: on.is_none(), token };
                if let Some(open) = self.calls.get_mut(&call) {
                    open.asked = true;
                }
                self.questions.0.insert(id, question);
                self.renew(call, cx);
                cx.report(Report::Message { request: call, json, droppable: false });
            }
            // What comes on a call's stream is that call's, or nobody's.
            Err(NOBODY) if on.is_none() => {
                if let Err((id, declined)) = self.ask_beside(id, method, params, json, cx) {
                    self.decline(&id, declined, cx);
                }
            }
            Err(declined) => self.decline(&id, declined, cx),
        }
    }

    fn decline(&mut self, id: &RawId, (code, why): Declined, cx: &mut Cx) {
        tracing::debug!(server = self.name.as_str(), reason = why, "server's question declined");
        self.note(envelope::error(Some(id), code, why, None), cx);
    }

    /// The call that a question belongs to, if its client can be asked that.
    fn whom_to_ask(
        &self,
        method: &str,
        params: &Bytes,
        bytes: usize,
        on: Option<RequestId>,
    ) -> Result<RequestId, Declined> {
        let (call, caller) = self.asking_call(method, params, on)?;
        if !caller.is_reachable {
            return Err(UNREACHABLE);
        }
        if !caller.declares(method, params) {
            return Err(UNDECLARED);
        }
        if bytes > limits::MAX_CALL_MESSAGE {
            return Err((code::TOO_LARGE, "the question is larger than a client can be asked"));
        }
        if self.questions.count_of(call) >= limits::MAX_CALL_QUESTIONS {
            return Err((code::OVERLOADED, "too many questions of one call wait for the client"));
        }
        Ok(call)
    }

    /// The call in whose course the server asks this.
    fn asking_call(
        &self,
        method: &str,
        params: &Bytes,
        on: Option<RequestId>,
    ) -> Result<(RequestId, &Caller), Declined> {
        if let Some(request) = on {
            return self.calls.get(&request).map(|call| (request, &call.caller)).ok_or(NOBODY);
        }
        let all = || self.calls.iter().map(|(request, call)| (request, &**call));
        // In the course of one that is answered nothing is asked any more.
        let open = || all().filter(|(_, call)| !call.bridge.is_done());
        let Some(newest) = open().next_back() else { return self.asking_held() };
        if self.session.is_some() {
            // Any call will do, since the client is one. Calls ask in the order in which they came, mostly, and once.
            let unasked = || all().find(|(_, call)| !call.asked);
            let free = || all().find(|(request, _)| self.questions.count_of(**request) == 0);
            let (request, call) = unasked().or_else(free).unwrap_or(newest);
            return Ok((*request, &call.caller));
        }
        // A task is its maker's, whoever else calls meanwhile.
        if let Some(session) = self.owner_of(method, params) {
            let its = self.calls.iter().rev().find(|(_, call)| &*call.caller.session == session);
            return its.map(|(request, call)| (*request, &call.caller)).ok_or(NOBODY);
        }
        // A call that waits for a modern client had its question, and its server needs that answer first: another question
        // is almost surely of a call that the server works on. Else a client that stays away would keep all others from
        // being asked for as long as its call waits.
        let is_working = |call: &&Call| !call.bridge.is_waiting();
        let any_works = all().any(|(_, call)| is_working(&call));
        let candidates = || open().filter(|(_, call)| !any_works || is_working(call));
        // Of several calls of one client any will do, since the same person is asked: the newest is the likeliest.
        let may_ask = |(_, call): &(&RequestId, &Call)| call.bridge.may_ask();
        let found = candidates().rev().find(may_ask).or_else(|| candidates().next_back());
        let Some((request, Call { caller, .. })) = found else { return Err(NOBODY) };
        let is_certain = candidates().all(|(other, call)| other == request || call.caller.is_same_client(caller));
        let is_certain = is_certain && !self.cancelled.leave_doubt(caller);
        if is_certain { Ok((*request, caller)) } else { Err((code::AMBIGUOUS, AMBIGUOUS)) }
    }

    /// The call in whose course a server asks that works on none: one that waits for its start may be what makes it ask.
    fn asking_held(&self) -> Result<(RequestId, &Caller), Declined> {
        let newest = self.held.back().ok_or(NOBODY)?;
        let session = &newest.caller.session;
        let is_certain = self.session.is_some() || self.held.iter().all(|held| held.caller.session == *session);
        match (is_certain, session.is_empty()) {
            (true, false) => Ok((newest.request, &newest.caller)),
            // A modern client is told by the answer to its call, which was not begun.
            (true, true) => Err(NOBODY),
            (false, _) => Err((code::AMBIGUOUS, AMBIGUOUS)),
        }
    }

    /// What a client says in the course of its call: the answer to a question, or how far it is with it. Whatever was
    /// not asked for stops here.
    pub(in crate::agent) fn hear_client(&mut self, call: RequestId, json: Bytes, cx: &mut Cx) {
        if self.hear_input(call, &json, cx) {
            return;
        }
        let caller = self.callers().find(|(request, _)| *request == call);
        let session = caller.map(|(_, caller)| caller.session.clone()).unwrap_or_default();
        let asking = match rpc::parse(&json) {
            Ok(Message::Response { id: Some(id), .. }) => {
                self.questions.take(&id, |question| question.is_heard_in(call, &session))
            }
            Ok(Message::Notification { method, params }) if &*method == method::PROGRESS => {
                let token = object::get(&params, "progressToken");
                let is_meant = |it: &&Question| token.is_some() && it.token == token && it.is_heard_in(call, &session);
                self.questions.0.values().find(is_meant).map(|question| question.call)
            }
            Ok(_) | Err(_) => None,
        };
        let Some(asking) = asking else {
            return tracing::debug!(server = self.name.as_str(), call = call.0, "word of a client dropped");
        };
        self.renew(asking, cx);
        self.note(json, cx);
    }

    /// The call in whose course a session is asked what has that id.
    pub(super) fn call_asking(&self, session: &str, id: &RawId) -> Option<RequestId> {
        let question = self.questions.0.get(id).filter(|question| *question.session == *session);
        let needs = |call: &Call| *call.caller.session == *session && call.bridge.needs(id);
        let bridged = || self.calls.iter().find(|(_, call)| needs(call)).map(|(request, _)| *request);
        question.map(|question| question.call).or_else(bridged)
    }

    /// Whether a session is asked what has that id.
    pub(in crate::agent) fn is_asking(&self, session: &str, id: &RawId) -> bool {
        self.call_asking(session, id).is_some() || self.beside.is_asking(session, id)
    }

    /// The server gives a question up: its client need not answer any more.
    pub(super) fn withdraw(&mut self, params: &Bytes, json: Bytes, cx: &mut Cx) {
        let Some(id) = object::get(params, "requestId").and_then(|raw| RawId::from_raw(&raw)) else { return };
        if self.hear_cancelled(&id, cx) {
            return;
        }
        self.withdraw_parked(&id);
        match self.questions.0.remove(&id) {
            Some(Question { call, .. }) => self.tell(call, json, false, cx),
            None => self.withdraw_beside(&id, json, cx),
        }
    }

    /// Forgets what is asked in the course of calls. Returns these.
    pub(super) fn forget_questions(&mut self) -> BTreeSet<RequestId> {
        let asked = core::mem::take(&mut self.questions).0.into_values().map(|question| question.call);
        let mut calls: BTreeSet<_> = asked.collect();
        for (request, call) in &mut self.calls {
            if let Bridge::Down(down) = &mut call.bridge
                && !down.take_open().is_empty()
            {
                calls.insert(*request);
            }
        }
        calls
    }

    /// A call is over, and nobody will answer what was asked in it.
    pub(super) fn end_questions(&mut self, call: RequestId, cx: &mut Cx) {
        for (id, _) in self.questions.take_all(call) {
            self.note(envelope::error(Some(&id), code::CANCELLED, "the call that this belongs to is over", None), cx);
        }
    }

    /// The server has answered a call. What it asked in it may belong to another one of its client, which has it from now
    /// on. Not so when the call ends in another way: its client may never have heard of the question.
    pub(super) fn hand_questions_on(&mut self, call: RequestId, cx: &Cx) {
        for (id, question) in self.questions.take_all(call) {
            let call = self.other_call(&question, cx).unwrap_or(call);
            self.questions.0.insert(id, Question { call, ..question });
        }
    }

    /// Another call that a question may belong to.
    fn other_call(&self, question: &Question, cx: &Cx) -> Option<RequestId> {
        if !cx.hands_on || !question.is_guess || question.session.is_empty() {
            return None;
        }
        let is_its = |(request, caller): &(RequestId, &Caller)| {
            let has_room = || self.questions.count_of(*request) < limits::MAX_CALL_QUESTIONS;
            *request != question.call && caller.session == question.session && has_room()
        };
        self.callers().find(is_its).map(|(request, _)| request)
    }

    /// Whose calls are open, or held.
    fn callers(&self) -> impl Iterator<Item = (RequestId, &Caller)> {
        let open = self.calls.iter().map(|(request, call)| (*request, &call.caller));
        open.chain(self.held.iter().map(|held| (held.request, &held.caller)))
    }
}

pub(super) const NOBODY: Declined =
    (code::METHOD_NOT_FOUND, "no client's call is open that this could belong to, so that there is nobody to ask");
pub(super) const UNREACHABLE: Declined =
    (code::METHOD_NOT_FOUND, "the client is behind an old relay, and cannot be asked");
pub(super) const UNDECLARED: Declined =
    (code::METHOD_NOT_FOUND, "the client did not declare that it can be asked this");
const AMBIGUOUS: &str = "several calls are open, or were a moment ago, and this could belong to any of them: with `isolation: \"session\"` in \
the server's entry each client that has a session has a process of its own; a server over HTTP says itself what belongs to which";
