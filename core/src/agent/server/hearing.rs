//! What a server says: answers, requests, notifications, and what is none of them.

use alloc::format;
use core::time::Duration;

use bytes::Bytes;

use super::handshake::{Asked, Refusal};
use super::http::{Heard, SESSION_LOST};
use super::link::Link;
use super::{Fault, Server, State, Timer, mirror, people, stdio};
use crate::agent::cx::{Cx, Report, RequestId};
use crate::agent::routing;
use crate::http::fetch::FetchEvent;
use crate::id::{ChildId, FetchId};
use crate::limits;
use crate::mcp::code;
use crate::rpc::{Message, RawId};
use crate::tunnel::Outcome;

impl Server {
    /// A line of its stdout.
    pub(in crate::agent) fn line(&mut self, child: ChildId, line: &Bytes, cx: &mut Cx) {
        if !matches!(self.state, State::Probing | State::Ready) {
            return;
        }
        let Some(Link::Stdio(stdio)) = self.link.as_mut().filter(|link| link.is_child(child)) else { return };
        let was_noisy = stdio.is_noisy();
        let messages = stdio.read(line, cx.now.instant);
        if !was_noisy && stdio.is_noisy() {
            tracing::warn!(server = self.name.as_str(), reason = stdio.noise_text(), "server prints to its stdout");
        }
        if stdio.is_flooding() {
            return self.fail_flooding(cx);
        }
        if messages.is_empty()
            && let Some(request) = stdio::broken_answer(line)
        {
            self.unanswered(request, code::INTERNAL_ERROR, "its answer is no JSON-RPC message", cx);
        }
        for (message, json) in messages {
            self.hear(message, json, None, cx);
        }
    }

    /// A line of its stdout was too long, and is lost. The call that it answered is answered with that.
    pub(in crate::agent) fn line_too_long(
        &mut self,
        child: ChildId,
        prefix: &[u8],
        suffix: &[u8],
        length: u64,
        cx: &mut Cx,
    ) {
        if !matches!(self.state, State::Probing | State::Ready) {
            return;
        }
        let Some(Link::Stdio(stdio)) = self.link.as_mut().filter(|link| link.is_child(child)) else { return };
        let mut answerable = self.calls.iter().filter(|(_, call)| !call.bridge.is_subscription());
        let first = answerable.next().filter(|_| self.asked.is_none()).map(|(request, _)| *request);
        let only = || first.filter(|_| answerable.next().is_none());
        let request = stdio::answered_by(prefix, suffix).or_else(only);
        tracing::warn!(server = self.name.as_str(), bytes = length, "line of a server's stdout too long");
        stdio.noise(prefix, cx.now.instant);
        if length >= limits::MAX_LINE_SKIPPED {
            return self.fail_flooding(cx);
        }
        if let Some(request) = request {
            let reason = format!("its answer is larger than {} bytes", limits::MAX_MESSAGE);
            self.unanswered(request, code::TOO_LARGE, &reason, cx);
        }
    }

    /// What it prints is no MCP and has no end: read on, it would cost a processor. It will hardly mend by itself.
    fn fail_flooding(&mut self, cx: &mut Cx) {
        let reason = self.with_noise("it floods its stdout with what is no MCP, and was stopped".into());
        self.fail(Fault::NeedsHelp, reason, cx);
    }

    /// Bytes went into its stdin.
    pub(in crate::agent) fn wrote(&mut self, child: ChildId, bytes: usize) {
        if let Some(Link::Stdio(stdio)) = self.link.as_mut().filter(|link| link.is_child(child)) {
            stdio.wrote(bytes);
        }
    }

    /// Something of a fetch.
    pub(in crate::agent) fn fetched(&mut self, fetch: FetchId, event: FetchEvent, cx: &mut Cx) {
        let Some(Link::Http(http)) = &mut self.link else { return };
        for heard in http.handle(fetch, event, cx) {
            match heard {
                Heard::Message { message, json, on } => self.hear(message, json, on, cx),
                Heard::Unanswered { request, code, reason } => self.unanswered(request, code, &reason, cx),
                Heard::SessionEnded { refused, is_new } => self.session_ended(refused, is_new, cx),
                Heard::Listens => self.lists_missed(cx),
                Heard::Lost(reason) => self.fail_http(&reason, cx),
                Heard::Denied(reason) if self.state == State::Probing => self.fail(Fault::NeedsHelp, reason, cx),
                Heard::Denied(_) => {}
                Heard::Gone => {
                    if let State::Stopping(_, then) = self.state {
                        self.ended_as_told(then, cx);
                    }
                }
            }
        }
    }

    /// The server does not know our session. What it refused for that is asked once more in a new one, and only once.
    ///
    /// This is no second execution (A7): 404 is how a server "MUST respond to requests containing that session ID" after
    /// it ended the session (2025-11-25, Transports, Session Management), so that it turned the request away at the
    /// door, before any tool.
    fn session_ended(&mut self, refused: Option<(RequestId, Option<Bytes>)>, is_new: bool, cx: &mut Cx) {
        if is_new {
            self.backoff.lost(cx.now.instant);
            let _ = self.backoff.next(&mut cx.jitter);
        }
        let may_go_on = self.state == State::Ready && self.backoff.attempt() <= limits::MAX_QUICK_FAILURES;
        if is_new && !may_go_on {
            return self.fail_http("its session ended: call again", cx);
        }
        if let Some((request, sent)) = refused {
            match (self.calls.get_mut(&request), sent) {
                (Some(call), Some(json)) if call.refused.is_none() => call.refused = Some(json),
                _ => self.unanswered(request, code::SERVER_UNAVAILABLE, "its session ended: call again", cx),
            }
        }
        if is_new {
            tracing::info!(server = self.name.as_str(), "server ended its session: a new one is begun");
            self.renew_session(cx);
        } else if self.state == State::Ready {
            self.ask_refused(cx);
        }
    }

    /// Begins a new session with a server that ended the last one. Its calls that are under way stay so; but for those that
    /// wait for a client's word, which nobody would understand in the new one.
    fn renew_session(&mut self, cx: &mut Cx) {
        assert_eq!(self.state, State::Ready, "only a session that was begun is begun anew");
        let mut lost = self.forget_questions();
        self.forget_run(cx);
        if let Some(Link::Http(http)) = &mut self.link {
            for request in &lost {
                http.abandon(*request, cx);
            }
            lost.extend(http.forget_session(cx));
        }
        for request in lost {
            self.unanswered(request, code::SERVER_UNAVAILABLE, SESSION_LOST, cx);
        }
        cx.arm(self.slot, Timer::Start, Duration::from_secs(self.config.start_timeout_secs));
        self.enter(State::Probing, None, cx);
        self.initialize(cx);
    }

    fn fail_http(&mut self, reason: &str, cx: &mut Cx) {
        match self.state {
            State::Starting | State::Probing | State::Ready => {
                self.fail(Fault::Transient, people(reason, limits::MAX_REASON), cx);
            }
            State::Stopping(_, then) => self.ended_as_told(then, cx),
            State::Idle | State::Recalling | State::Asleep | State::Restarting | State::Failed | State::Stopped => {}
        }
    }

    /// One message of the server. `on`: the request on whose stream it came (HTTP only).
    fn hear(&mut self, message: Message, json: Bytes, on: Option<RequestId>, cx: &mut Cx) {
        match message {
            Message::Response { id, outcome } => self.hear_answer(id.as_ref(), outcome, cx),
            Message::Request { id, method, params } => self.hear_request(id, &method, &params, json, on, cx),
            Message::Notification { method, params } => self.hear_notification(&method, &params, json, on, cx),
        }
    }

    fn hear_answer(&mut self, id: Option<&RawId>, outcome: Result<Bytes, Bytes>, cx: &mut Cx) {
        let Some(request) = id.and_then(RawId::as_number).map(RequestId) else {
            return tracing::debug!(server = self.name.as_str(), "answer without one of our ids dropped");
        };
        self.cancelled.answered(request);
        if self.asked.as_ref().and_then(Asked::request) == Some(request) {
            return self.hear_about(outcome.map_err(|error| Refusal::read(&error, &self.veil)), cx);
        }
        let code = outcome.as_ref().err().map(|error| routing::error_code(error));
        if self.heard_aside(request) || self.heard_listen(request, code, cx) || self.goes_on(request, &outcome, cx) {
            return;
        }
        if let Some(call) = self.calls.get_mut(&request).filter(|_| outcome.is_ok()) {
            call.undo = None;
        }
        if outcome.is_ok() {
            self.hand_questions_on(request, cx);
        }
        let Some(call) = self.close_call(request, cx) else {
            return tracing::debug!(server = self.name.as_str(), call = request.0, "late answer dropped");
        };
        self.learn_whose(request, &call.caller, &outcome);
        let (outcome, body) = match outcome {
            Ok(result) if call.lists_tools => {
                let result = if self.repeats_in_fields() { mirror::usable(result) } else { result };
                (Outcome::Result, cx.guard.shown_of(&self.name, (self.edition(), &self.about.tools), result))
            }
            Ok(result) => (Outcome::Result, result),
            Err(error) => (Outcome::Error { code: routing::error_code(&error) }, error),
        };
        let (outcome, body) = call.bridge.translate(outcome, body);
        cx.report(Report::Answer { request, outcome, body });
    }

    pub(super) fn unanswered(&mut self, request: RequestId, code: i64, reason: &str, cx: &mut Cx) {
        if self.asked.as_ref().and_then(Asked::request) == Some(request) {
            self.hear_about(Err(Refusal { code, reason: reason.into(), raw: None }), cx);
        } else if self.heard_aside(request) || self.heard_listen(request, None, cx) {
            tracing::debug!(server = self.name.as_str(), reason, "own request unanswered");
        } else if self.subscribes_later(request, cx) {
            tracing::debug!(server = self.name.as_str(), reason, "a client's subscription broke: it is taken up again");
        } else if self.close_call(request, cx).is_some() {
            self.refuse(request, code, reason, cx);
        }
    }

    /// Sends something that has no answer.
    pub(super) fn note(&mut self, json: Bytes, cx: &mut Cx) {
        if let Some(link) = &mut self.link {
            link.note(json, cx);
        }
    }

    /// Asks something of our own. Should it not get there, the patience with its answer ends.
    pub(super) fn ask(&mut self, request: RequestId, method: &str, params: &[u8], cx: &mut Cx) {
        let params = self.own_params(params, cx);
        let sent = self.link.as_mut().map(|link| link.ask(request, method, &params, None, cx));
        if sent != Some(Ok(())) {
            tracing::debug!(server = self.name.as_str(), "question dropped: the server does not read");
        }
    }
}
