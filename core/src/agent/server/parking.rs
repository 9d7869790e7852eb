//! Modern clients' calls that a legacy server cannot finish before it is told something: parked, until the client comes
//! back with answers (2026-07-28, patterns, MRTR).
//!
//! The server's call stays open all the while, so that nothing is ever done twice (A7): whatever the client brings that
//! does not fit a call that waits is an error.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::bridging::Bridge;
use super::{Call, Held, Server, Timer, Why};
use crate::agent::bridge::questions::{self, Question};
use crate::agent::bridge::state::{self, Binding, Ticket};
use crate::agent::bridge::{Era, errors, meta};
use crate::agent::caller::Caller;
use crate::agent::cx::{Cx, Report, RequestId};
use crate::agent::routing;
use crate::limits;
use crate::mcp::code;
use crate::rpc::{RawId, envelope};
use crate::tunnel::Outcome;

/// A modern client's call of a legacy server.
#[derive(Debug)]
pub(super) struct Down {
    method: Arc<str>,
    binding: Binding,
    /// What the server wants to know, by its own ids.
    open: Vec<(RawId, Question)>,
    /// How many questions there were.
    asked: u32,
    /// How often the client came back.
    round: u32,
    is_parked: bool,
    /// The server's answer, which came while the client was away.
    done: Option<(Outcome, Bytes)>,
}

/// What a ticket names whose call the server turned away: no request has this number.
const NO_CALL: RequestId = RequestId(0);

impl Down {
    pub(super) fn new(held: &Held, server: &str) -> Self {
        Self {
            method: held.method.clone(),
            binding: Binding::new(&held.caller.actor, server, &held.method, &held.params),
            open: Vec::new(),
            asked: 0,
            round: 0,
            is_parked: false,
            done: None,
        }
    }

    pub(super) fn method(&self) -> &str {
        &self.method
    }

    /// Whether its server has nothing to do for it before its client comes back: it waits for an answer, or is done. A
    /// parked call whose questions were all taken back goes on.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_parked && (self.is_done() || !self.open.is_empty())
    }

    /// Whether its server has answered it.
    pub(super) fn is_done(&self) -> bool {
        self.done.is_some()
    }

    /// Whether its client was sent away, so that it hears nothing of it.
    pub(super) fn is_parked(&self) -> bool {
        self.is_parked
    }

    /// Takes out what the server still waits for.
    pub(super) fn take_open(&mut self) -> Vec<RawId> {
        core::mem::take(&mut self.open).into_iter().map(|(id, _)| id).collect()
    }
}

impl Server {
    /// A question of the server in the course of a modern client's call. Returns whether it was one.
    pub(super) fn ask_modern(
        &mut self,
        request: RequestId,
        id: &RawId,
        method: &str,
        params: &Bytes,
        cx: &mut Cx,
    ) -> bool {
        let Some(Call { bridge: Bridge::Down(down), caller, .. }) = self.calls.get_mut(&request).map(Box::as_mut)
        else {
            return false;
        };
        let declined = if !questions::may_ask(&down.method) {
            Some((
                code::METHOD_NOT_FOUND,
                "a client of this era cannot be asked anything in the course of such a request",
            ))
        } else if !questions::is_question(method) {
            Some((code::METHOD_NOT_FOUND, "a client of this era cannot be asked that"))
        } else if params.len() > limits::MAX_CALL_MESSAGE {
            Some((code::TOO_LARGE, "the question is larger than a client can be asked"))
        } else if down.open.len() >= limits::MAX_CALL_QUESTIONS {
            Some((code::OVERLOADED, "too many questions of one call wait for the client"))
        } else {
            None
        };
        if let Some((code, why)) = declined {
            self.note(envelope::error(Some(id), code, why, None), cx);
            return true;
        }
        if let Some(required) = questions::missing(&caller.capabilities, method, params) {
            let body = errors::missing_capability(required);
            self.give_up_call(request, id, (code::MISSING_CAPABILITY, body), cx);
            return true;
        }
        down.asked += 1;
        let key = alloc::format!("question-{}", down.asked);
        let question = Question { key, method: method.to_string(), params: Bytes::copy_from_slice(params) };
        let is_parked = down.is_parked;
        let caller = caller.clone();
        // A client has no way to say that it gave one up: the one that waits for longest makes room.
        if !is_parked && let Some(oldest) = self.surplus_parked(&caller) {
            self.give_up_parked(oldest, cx);
        }
        self.belongings.learn_page(method, params, request, &caller);
        if let Some(Call { bridge: Bridge::Down(down), .. }) = self.calls.get_mut(&request).map(Box::as_mut) {
            down.open.push((id.clone(), question));
        }
        if !is_parked {
            self.park(request, cx);
        }
        true
    }

    /// The server may not go on with a call: it is told, and so is the client.
    fn give_up_call(&mut self, request: RequestId, id: &RawId, (code, body): (i64, Bytes), cx: &mut Cx) {
        self.note(envelope::error(Some(id), code::METHOD_NOT_FOUND, "the client cannot be asked this", None), cx);
        self.cancel(request, &Why::Words("the client cannot be asked what the call needs"), cx);
        cx.report(Report::Answer { request, outcome: Outcome::Error { code }, body });
    }

    /// The oldest parked call of a client that has as many as it may.
    fn surplus_parked(&self, caller: &Caller) -> Option<RequestId> {
        let parked = |call: &Call| matches!(&call.bridge, Bridge::Down(down) if down.is_parked);
        let of_it = |call: &Call| parked(call) && call.caller.key() == caller.key();
        let mut its = self.calls.iter().filter(|(_, call)| of_it(call)).map(|(request, _)| *request);
        let oldest = its.next()?;
        (its.count() + 1 >= limits::MAX_PARKED).then_some(oldest)
    }

    /// Answers the client with what is open, and waits for it to come back.
    fn park(&mut self, request: RequestId, cx: &mut Cx) {
        let Some(Call { bridge: Bridge::Down(down), .. }) = self.calls.get_mut(&request).map(Box::as_mut) else {
            return;
        };
        down.is_parked = true;
        let until = cx.now.unix + limits::PARKED_FOR;
        let state = cx.seal_ticket(&down.binding, Ticket { call: request, round: down.round, until });
        let body = questions::input_required(down.open.iter().map(|(_, question)| question), &state);
        cx.arm(self.slot, Timer::Parked(request), limits::PARKED_FOR);
        cx.disarm(self.slot, Timer::Call(request));
        cx.report(Report::Answer { request, outcome: Outcome::Result, body });
    }

    /// The ticket that a modern client's call brings for one that is parked here.
    fn ticket(&self, caller: &Caller, method: &str, params: &Bytes, state: &str, cx: &Cx) -> Option<Ticket> {
        let binding = Binding::new(&caller.actor, &self.name, method, params);
        let ticket = state::open(&cx.states, &binding, state, cx.now.unix)?;
        match &self.calls.get(&ticket.call)?.bridge {
            Bridge::Down(down) if down.is_parked && down.round == ticket.round => Some(ticket),
            Bridge::Down(_) | Bridge::Straight | Bridge::Subscription(_) | Bridge::Up(_) => None,
        }
    }

    /// Whether a call goes on with one that is parked here, so that nobody has to allow it once more.
    pub(in crate::agent) fn resumes(&self, caller: &Caller, method: &str, params: &Bytes, cx: &Cx) -> bool {
        let state = questions::state_of(params).ok().flatten().filter(|_| questions::may_ask(method));
        let is_bridged = self.era == Era::Legacy && caller.era() == Era::Modern;
        state.is_some_and(|state| is_bridged && self.ticket(caller, method, params, &state, cx).is_some())
    }

    /// A modern client comes back. What does not fit a call that waits is an error, and never a call of its own.
    pub(super) fn resume_call(&mut self, held: Held, state: &str, cx: &mut Cx) {
        let Held { request: from, caller, method, params } = held;
        let ticket = self.ticket(&caller, &method, &params, state, cx);
        let call = ticket.and_then(|ticket| Some((ticket.call, self.calls.get_mut(&ticket.call)?.as_mut())));
        let Some((request, Call { bridge: Bridge::Down(down), caller: was, progress, level, .. })) = call else {
            let reason = "requestState is none of a call that waits for answers: it was changed, used, or is too old";
            return self.refuse(from, code::INVALID_PARAMS, reason, cx);
        };
        let answers = questions::responses(&params);
        let is_answer = |raw: &Bytes| raw.trim_ascii_start().starts_with(b"{");
        let mut open = down.open.iter().filter_map(|(_, question)| answers.get(&question.key));
        if !open.all(is_answer) {
            return self.refuse(from, code::INVALID_PARAMS, "each of the inputResponses must be an object", cx);
        }
        down.is_parked = false;
        down.round += 1;
        *was = caller;
        *level = meta::log_level(&params);
        *progress = routing::own_progress_token(&params, request).ok().and_then(|(_, progress)| progress);
        let told: Vec<(RawId, Bytes)> = down
            .open
            .extract_if(.., |(_, question)| answers.contains_key(&question.key))
            .filter_map(|(id, question)| Some((id, answers.get(&question.key)?.clone())))
            .collect();
        let (is_open, done) = (!down.open.is_empty(), down.done.take());
        cx.disarm(self.slot, Timer::Parked(request));
        cx.report(Report::Moved { from, to: request });
        self.last_used = cx.now.instant;
        for (id, answer) in told {
            self.note(envelope::result(&id, &answer), cx);
        }
        if let Some((outcome, body)) = done {
            if let Some(call) = self.close_call(request, cx) {
                let (outcome, body) = call.bridge.translate(outcome, body);
                cx.report(Report::Answer { request, outcome, body });
            }
        } else if is_open {
            self.park(request, cx);
        } else {
            self.renew(request, cx);
        }
    }

    /// The server's answer to a parked call is kept for its client. Returns whether it was one.
    pub(super) fn keep_answer(&mut self, request: RequestId, answer: &Result<Bytes, Bytes>) -> bool {
        let Some(Call { bridge: Bridge::Down(down), .. }) = self.calls.get_mut(&request).map(Box::as_mut) else {
            return false;
        };
        if down.is_parked {
            down.done = Some(match answer {
                Ok(result) => (Outcome::Result, result.clone()),
                Err(error) => (Outcome::Error { code: routing::error_code(error) }, error.clone()),
            });
            // Nobody waits for the rest any more.
            down.open.clear();
        }
        down.is_parked
    }

    /// The server did nothing before the person has been somewhere (2025-11-25, `URLElicitationRequiredError`): the client
    /// is told so in the way of its era, and its retry is a call of its own. Returns whether that was it.
    pub(super) fn sends_away(&mut self, request: RequestId, error: &Bytes, cx: &mut Cx) -> bool {
        let Some(Call { bridge: Bridge::Down(down), caller, .. }) = self.calls.get(&request).map(Box::as_ref) else {
            return false;
        };
        let pages = questions::pages(error);
        if down.is_parked
            || !questions::may_ask(&down.method)
            || routing::error_code(error) != code::URL_ELICITATION_REQUIRED
            || pages.is_empty()
        {
            return false;
        }
        let missing =
            pages.iter().find_map(|page| questions::missing(&caller.capabilities, &page.method, &page.params));
        let (outcome, body) = match missing {
            Some(required) => (Outcome::Error { code: code::MISSING_CAPABILITY }, errors::missing_capability(required)),
            None => {
                let until = cx.now.unix + limits::PARKED_FOR;
                let state = cx.seal_ticket(&down.binding, Ticket { call: NO_CALL, round: 0, until });
                (Outcome::Result, questions::input_required(&pages, &state))
            }
        };
        self.close_call(request, cx);
        cx.report(Report::Answer { request, outcome, body });
        true
    }

    /// Whether a state says that its call was never begun, so that it is to be begun now.
    pub(super) fn begins(&self, held: &Held, state: &str, cx: &Cx) -> bool {
        let binding = Binding::new(&held.caller.actor, &self.name, &held.method, &held.params);
        state::open(&cx.states, &binding, state, cx.now.unix).is_some_and(|ticket| ticket.call == NO_CALL)
    }

    /// The server takes a question back.
    pub(super) fn withdraw_parked(&mut self, id: &RawId) {
        for call in self.calls.values_mut() {
            if let Bridge::Down(down) = &mut call.bridge {
                down.open.retain(|(open, _)| open != id);
            }
        }
    }

    /// The client did not come back.
    pub(super) fn give_up_parked(&mut self, request: RequestId, cx: &mut Cx) {
        self.cancel(request, &Why::Words("the client did not come back with what was asked"), cx);
    }
}
