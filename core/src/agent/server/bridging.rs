//! Calls whose client is of another era than the server's run: what each has to be told otherwise.
//!
//! A legacy client's call of a modern server may come back for input: the client is asked on the call's stream, and the
//! call sent again with its answers ([`Up`]). A modern client's call of a legacy server may be asked something: it is
//! parked, the client told so by its result, and taken up again when the client returns ([`parking`](super::parking)).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use bytes::Bytes;

use super::lasting::Subscription;
use super::parking::Down;
use super::stdio::Full;
use super::{About, Call, Held, Server, Timer, people};
use crate::agent::bridge::questions::{self, InputRequired};
use crate::agent::bridge::{Era, discovery, errors, meta, results};
use crate::agent::cx::{Cx, Report, RequestId};
use crate::agent::routing;
use crate::agent::wishes::Level;
use crate::limits;
use crate::mcp::{code, method};
use crate::rpc::{self, Message, RawId, envelope, object};
use crate::tunnel::Outcome;

/// What stands between a call and its server.
#[derive(Debug)]
pub(super) enum Bridge {
    /// Nothing: both are of one era.
    Straight,
    /// A modern client's subscription at a modern server. Its messages name it by our id: the relay knows the client's.
    Subscription(Subscription),
    /// A legacy client, a modern server.
    Up(Box<Up>),
    /// A modern client, a legacy server.
    Down(Box<Down>),
}

/// A legacy client's call of a modern server.
#[derive(Debug)]
pub(super) struct Up {
    method: Arc<str>,
    /// As they were sent, but for the progress token; `None`: they were too large to be kept.
    params: Option<Bytes>,
    /// The client's own.
    asked_with: Bytes,
    /// How often it came back for input.
    rounds: u32,
    asking: Option<Asking>,
}

/// What a client is being asked.
#[derive(Debug)]
struct Asking {
    /// The server's `requestState`.
    state: Option<Bytes>,
    /// The keys of what is not answered yet, by our ids.
    open: BTreeMap<RawId, String>,
    answers: BTreeMap<String, Bytes>,
}

/// Why a client is not asked what its call needs.
struct Unasked {
    code: i64,
    reason: String,
    /// The raw capabilities that it would have to declare.
    lacks: Option<&'static str>,
}

impl Unasked {
    fn of(code: i64, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), lacks: None }
    }
}

/// A call, as its server is asked it.
pub(super) struct Crossing {
    pub(super) held: Held,
    pub(super) bridge: Bridge,
    /// From which level on its modern client hears what the server logs.
    pub(super) level: Option<Level>,
}

impl Bridge {
    /// Whether the server works on the call, rather than waiting for it to be sent again.
    pub(super) fn is_under_way(&self) -> bool {
        match self {
            Self::Up(up) => up.asking.is_none(),
            Self::Down(down) => !down.is_done(),
            Self::Straight | Self::Subscription(_) => true,
        }
    }

    /// Whether it is a modern client's subscription, which gets no answer before it ends.
    pub(super) fn is_subscription(&self) -> bool {
        matches!(self, Self::Subscription(_))
    }

    /// Whether it is a modern client's call of a legacy server.
    pub(super) fn is_down(&self) -> bool {
        matches!(self, Self::Down(_))
    }

    /// Whether its client was sent away for answers, and hears nothing of it until it comes back.
    pub(super) fn is_parked(&self) -> bool {
        match self {
            Self::Down(down) => down.is_parked(),
            Self::Straight | Self::Subscription(_) | Self::Up(_) => false,
        }
    }

    /// Whether its server has nothing to do for it before a modern client comes back.
    pub(super) fn is_waiting(&self) -> bool {
        match self {
            Self::Down(down) => down.is_waiting(),
            Self::Straight | Self::Subscription(_) | Self::Up(_) => false,
        }
    }

    /// Whether its server has answered it, and only its client is to come back for that.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Down(down) => down.is_done(),
            Self::Straight | Self::Subscription(_) | Self::Up(_) => false,
        }
    }

    /// Whether its client can be asked something in the course of it, by what it calls.
    pub(super) fn may_ask(&self) -> bool {
        match self {
            Self::Down(down) => questions::may_ask(down.method()),
            Self::Straight | Self::Subscription(_) | Self::Up(_) => true,
        }
    }

    /// Whether its client is asked this, which it needs to be sent again.
    pub(super) fn needs(&self, id: &RawId) -> bool {
        match self {
            Self::Up(up) => up.asking.as_ref().is_some_and(|asking| asking.open.contains_key(id)),
            Self::Straight | Self::Subscription(_) | Self::Down(_) => false,
        }
    }

    /// How many bytes are kept for it.
    fn kept(&self) -> usize {
        match self {
            Self::Up(up) => up.params.as_ref().map_or(0, Bytes::len),
            Self::Subscription(subscription) => subscription.kept(),
            Self::Straight | Self::Down(_) => 0,
        }
    }

    /// An answer of the server as the client knows it.
    pub(super) fn translate(&self, outcome: Outcome, body: Bytes) -> (Outcome, Bytes) {
        let error = |(code, body)| (Outcome::Error { code }, body);
        match (self, outcome) {
            (Self::Straight | Self::Subscription(_), _) | (Self::Up(_), Outcome::Result) => (outcome, body),
            (Self::Up(up), Outcome::Error { code }) => {
                error(errors::to_legacy(&up.method, &up.asked_with, code, &body))
            }
            (Self::Down(down), Outcome::Result) => (outcome, results::to_modern(down.method(), &body)),
            (Self::Down(_), Outcome::Error { code }) => error(errors::to_modern(code, &body)),
        }
    }
}

impl Server {
    /// Brings a call into the shape that the server's run knows. `None`: it was answered.
    pub(super) fn cross(&mut self, mut held: Held, cx: &mut Cx) -> Option<Crossing> {
        match (held.caller.era(), self.era) {
            (Era::Legacy, Era::Legacy) => Some(Crossing { held, bridge: Bridge::Straight, level: None }),
            (Era::Modern, Era::Modern) => {
                let level = meta::log_level(&held.params);
                let bridge = match &*held.method == method::SUBSCRIPTIONS_LISTEN {
                    true => Bridge::Subscription(Subscription::new(&held.params, self.room_for_params())),
                    false => Bridge::Straight,
                };
                Some(Crossing { held, bridge, level })
            }
            (Era::Legacy, Era::Modern) => {
                let bridge = self.cross_up(&mut held, cx)?;
                Some(Crossing { held, bridge, level: None })
            }
            (Era::Modern, Era::Legacy) => self.cross_down(held, cx),
        }
    }

    fn cross_up(&mut self, held: &mut Held, cx: &mut Cx) -> Option<Bridge> {
        let request = held.request;
        let text = |key: &str| {
            let raw = object::get(&held.params, key)?;
            rpc::string(&raw).map(|text| text.into_owned())
        };
        let session = held.caller.session.clone();
        match &*held.method {
            method::PING => {}
            method::SET_LEVEL => match text("level").and_then(|text| Level::parse(&text)) {
                Some(level) => drop(cx.wishes.set_level(&session, &self.name, Some(level))),
                None => {
                    self.refuse(request, code::INVALID_PARAMS, Level::EXPECTED, cx);
                    return None;
                }
            },
            method::RESOURCES_SUBSCRIBE | method::RESOURCES_UNSUBSCRIBE => {
                let Some(uri) = text("uri") else {
                    self.refuse(request, code::INVALID_PARAMS, "uri must be a text", cx);
                    return None;
                };
                if &*held.method == method::RESOURCES_UNSUBSCRIBE {
                    cx.wishes.unsubscribe(&session, &self.name, &uri);
                } else if cx.wishes.subscribe(&session, &self.name, &uri).is_err() {
                    self.refuse(request, code::OVERLOADED, "this session watches too many resources already", cx);
                    return None;
                }
                self.listen(cx);
            }
            _ => return self.send_up(held, cx),
        }
        cx.report(Report::Answer { request, outcome: Outcome::Result, body: Bytes::from_static(b"{}") });
        None
    }

    /// How many more bytes may be kept of calls' params.
    fn room_for_params(&self) -> usize {
        let kept: usize = self.calls.values().map(|call| call.bridge.kept()).sum();
        limits::MAX_KEPT_PARAMS.saturating_sub(kept + self.listening.kept())
    }

    fn send_up(&mut self, held: &mut Held, cx: &mut Cx) -> Option<Bridge> {
        let level = cx.wishes.lowest(&self.name, Some(&held.caller.session));
        let Ok(params) = meta::add(&held.params, &held.caller, level) else {
            self.refuse(held.request, code::INVALID_PARAMS, "params must be a JSON object", cx);
            return None;
        };
        let asked_with = core::mem::replace(&mut held.params, params);
        let keeps = questions::may_ask(&held.method) && held.params.len() <= self.room_for_params();
        Some(Bridge::Up(Box::new(Up {
            method: held.method.clone(),
            params: keeps.then(|| held.params.clone()),
            asked_with: if &*held.method == method::RESOURCES_READ { asked_with } else { Bytes::new() },
            rounds: 0,
            asking: None,
        })))
    }

    fn cross_down(&mut self, mut held: Held, cx: &mut Cx) -> Option<Crossing> {
        let request = held.request;
        match &*held.method {
            method::DISCOVER => {
                let About { info, capabilities, instructions, .. } = &self.about;
                let body = discovery::result(info.as_deref(), capabilities.as_deref(), instructions.as_deref());
                cx.report(Report::Answer { request, outcome: Outcome::Result, body });
                return None;
            }
            method::SUBSCRIPTIONS_LISTEN => {
                self.subscribe(held, cx);
                return None;
            }
            // What the modern era took out (2026-07-28, changelog).
            method::PING | method::SET_LEVEL | method::RESOURCES_SUBSCRIBE | method::RESOURCES_UNSUBSCRIBE => {
                self.refuse(request, code::METHOD_NOT_FOUND, "this method is of an older protocol", cx);
                return None;
            }
            _ => {}
        }
        // No other request has a state or answers, so that what another one says under these names is its own.
        let may_ask = questions::may_ask(&held.method);
        match if may_ask { questions::state_of(&held.params) } else { Ok(None) } {
            Ok(None) => {}
            Ok(Some(state)) if self.begins(&held, &state, cx) => {}
            Ok(Some(state)) => {
                self.resume_call(held, &state, cx);
                return None;
            }
            Err(reason) => {
                self.refuse(request, code::INVALID_PARAMS, reason, cx);
                return None;
            }
        }
        let level = meta::log_level(&held.params);
        if let Some(level) = level {
            self.log_from(level, cx);
        }
        let down = Down::new(&held, &self.name);
        if may_ask {
            held.params = questions::without_answers(&held.params);
        }
        held.params = meta::strip(&held.params);
        Some(Crossing { held, bridge: Bridge::Down(Box::new(down)), level })
    }

    /// An answer that is not the last word for its client. Returns whether it was dealt with.
    pub(super) fn goes_on(&mut self, request: RequestId, outcome: &Result<Bytes, Bytes>, cx: &mut Cx) -> bool {
        match self.calls.get(&request).map(|call| &call.bridge) {
            Some(Bridge::Up(up)) if up.asking.is_none() => {}
            // It is waited for no more: it will be sent again.
            Some(Bridge::Up(_)) => return true,
            Some(Bridge::Down(_)) => {
                return self.keep_answer(request, outcome)
                    || outcome.as_ref().is_err_and(|error| self.sends_away(request, error, cx));
            }
            Some(Bridge::Straight | Bridge::Subscription(_)) | None => return false,
        }
        let Ok(result) = outcome else { return false };
        match InputRequired::read(result) {
            Ok(None) => false,
            Ok(Some(required)) => {
                if let Err(Unasked { code, reason, lacks }) = self.ask_client(request, required, cx) {
                    self.end_lacking(request, (code, &reason), lacks, cx);
                }
                true
            }
            Err(reason) => {
                self.end_with(request, code::INTERNAL_ERROR, reason, cx);
                true
            }
        }
    }

    /// Asks a legacy client what its call needs; or sends the call again, when nothing has to be asked.
    fn ask_client(&mut self, request: RequestId, required: InputRequired, cx: &mut Cx) -> Result<(), Unasked> {
        let Some(Call { bridge: Bridge::Up(up), caller, .. }) = self.calls.get_mut(&request).map(Box::as_mut) else {
            return Ok(());
        };
        up.rounds += 1;
        if up.rounds > limits::MAX_ROUNDS {
            let reason = format!("it asked for input {} times", limits::MAX_ROUNDS);
            return Err(Unasked::of(code::INTERNAL_ERROR, reason));
        }
        if up.params.is_none() {
            return Err(Unasked::of(code::TOO_LARGE, "it asks for input, and the call is too large to be sent again"));
        }
        let mut open = BTreeMap::new();
        for question in &required.questions {
            if !questions::is_question(&question.method) {
                let method = people(&question.method, limits::MAX_QUOTE);
                // There is no capability that a client could declare to be asked that.
                return Err(Unasked::of(
                    code::INTERNAL_ERROR,
                    format!("it asks for {method}, which nobody can answer"),
                ));
            }
            if !caller.declares(&question.method, &question.params) {
                let method = people(&question.method, limits::MAX_QUOTE);
                let reason = format!("it asks for {method}, which the client did not declare that it can answer");
                let lacks = questions::missing(&caller.capabilities, &question.method, &question.params);
                return Err(Unasked { code: code::INVALID_PARAMS, reason, lacks });
            }
            if !caller.is_reachable {
                let reason = "it asks for input, and the client is behind an old relay, and cannot be asked";
                return Err(Unasked::of(code::INTERNAL_ERROR, reason));
            }
            if question.params.len() > limits::MAX_CALL_MESSAGE - limits::MAX_QUOTED {
                return Err(Unasked::of(code::TOO_LARGE, "its question is larger than a client can be asked"));
            }
            let id = cx.request_id();
            let params = questions::to_legacy(question, id.0);
            let json = envelope::request(&RawId::from_number(id.0), &question.method, &params);
            open.insert(RawId::from_number(id.0), question.key.clone());
            cx.report(Report::Message { request, json, droppable: false });
        }
        let is_asked = !open.is_empty();
        up.asking = Some(Asking { state: required.state, open, answers: BTreeMap::new() });
        // A person answers: that the server is silent meanwhile is not its fault.
        cx.disarm(self.slot, Timer::Call(request));
        if !is_asked {
            self.send_again(request, cx);
        }
        Ok(())
    }

    /// A legacy client's word about what a modern server asked. Returns whether it was one.
    pub(super) fn hear_input(&mut self, request: RequestId, json: &Bytes, cx: &mut Cx) -> bool {
        let Some(Call { bridge: Bridge::Up(up), .. }) = self.calls.get_mut(&request).map(Box::as_mut) else {
            return false;
        };
        let Some(asking) = &mut up.asking else { return true };
        let Ok(Message::Response { id: Some(id), outcome }) = rpc::parse(json) else { return true };
        let Some(key) = asking.open.remove(&id) else { return true };
        match outcome {
            Ok(answer) => {
                asking.answers.insert(key, answer);
                if asking.open.is_empty() {
                    self.send_again(request, cx);
                }
            }
            // The modern era has no word for a client that cannot answer: the call ends with why.
            Err(error) => {
                let why = object::get(&error, "message").and_then(|raw| Some(rpc::string(&raw)?.into_owned()));
                let why = people(&why.unwrap_or_default(), limits::MAX_QUOTE);
                let reason = format!("it asked for input, and the client answered with an error: {why}");
                self.end_with(request, code::INTERNAL_ERROR, &reason, cx);
            }
        }
        true
    }

    /// Sends a call again, as another request (2026-07-28, MRTR, Client Requirements: the id MUST be another).
    fn send_again(&mut self, request: RequestId, cx: &mut Cx) {
        let Some(mut call) = self.calls.remove(&request) else { return };
        let Bridge::Up(up) = &mut call.bridge else { return };
        let Some((asking, params)) = up.asking.take().zip(up.params.as_ref()) else { return };
        let params = questions::retry(params, &asking.answers, asking.state.as_ref());
        let again = cx.request_id();
        cx.report(Report::Moved { from: request, to: again });
        let Ok((params, progress)) = routing::own_progress_token(&params, again) else { return };
        call.progress = progress;
        let (method, schema) = (up.method.clone(), self.mirrored_schema(&up.method, &params));
        let sent = self.link.as_mut().map(|link| link.ask(again, &method, &params, schema.as_ref(), cx));
        match sent {
            Some(Ok(())) => {
                self.calls.insert(again, call);
                self.renew(again, cx);
            }
            Some(Err(Full)) => self.refuse(again, code::OVERLOADED, "it does not read what it is sent", cx),
            None => self.refuse(again, code::SERVER_UNAVAILABLE, "it is not running", cx),
        }
    }

    /// Ends a call with an error of ours.
    pub(super) fn end_with(&mut self, request: RequestId, code: i64, reason: &str, cx: &mut Cx) {
        self.end_lacking(request, (code, reason), None, cx);
    }

    /// The same, which names the (raw) capabilities that the client lacks.
    fn end_lacking(&mut self, request: RequestId, (code, reason): (i64, &str), lacks: Option<&str>, cx: &mut Cx) {
        if self.close_call(request, cx).is_some() {
            let data = lacks.map(errors::required_capabilities);
            self.refuse_with(request, (code, reason), data.as_deref(), cx);
        }
    }
}
