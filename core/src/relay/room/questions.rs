//! What servers and clients say to each other while a call is under way, and beside calls: questions of a server and
//! their answers, notifications both ways.
//!
//! A server numbers its questions without knowing of any other, so that ids collide in a client's session: the client
//! sees ids of the relay's making, and the server hears of its own. The same with the progress token of a question.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;

use super::Room;
use super::ask::Caller;
use super::beside::{self, Beside};
use crate::id::StreamId;
use crate::limits;
use crate::mcp::{Era, code, method};
use crate::relay::calls::{self, Call, CallKey, Sink};
use crate::relay::failure::Failure;
use crate::relay::shard::{Action, Cx};
use crate::relay::{Endpoint, Note, SessionKey};
use crate::rpc::object::{self, Object};
use crate::rpc::{self, Message, RawId, envelope, quoted};
use crate::tunnel::{self, Command, Dialect};

/// A question of a server that its client has not answered.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) of: Of,
    pub(super) session: SessionKey,
    /// The server's own id.
    pub(super) id: RawId,
    /// The server's own progress token, if it wants to hear.
    pub(super) token: Option<Bytes>,
}

/// What a question belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Of {
    Call(CallKey),
    /// To no call.
    Nothing(Beside),
}

impl Question {
    /// Whether it was asked under that id in one of these calls.
    fn is_of(&self, calls: &[CallKey], id: &RawId) -> bool {
        self.id == *id && matches!(&self.of, Of::Call(key) if calls.contains(key))
    }
}

/// What agents say.
impl Room {
    /// A message of a server that belongs to a call.
    pub(super) fn message(&mut self, key: CallKey, json: Bytes, credit: u32, cx: &mut Cx<'_>) {
        if !self.calls.contains_key(&key) {
            return;
        }
        let sent = match rpc::parse(&json) {
            Ok(Message::Notification { method, params }) if self.feed_of(key).is_some() => {
                self.feed_said(key, &method, &params, &json, cx);
                return calls::consume(key, credit, cx);
            }
            Ok(Message::Notification { method, params })
                if &*method == method::SUBSCRIPTIONS_ACKNOWLEDGED && self.is_acknowledged_again(key) =>
            {
                self.tell_missed(key, &params, cx);
                return calls::consume(key, credit, cx);
            }
            Ok(Message::Notification { method, params }) if &*method == method::CANCELLED => {
                self.withdrawn(key, &json, &params, credit, cx)
            }
            Ok(Message::Notification { method, .. }) if &*method == method::RESOURCE_UPDATED => {
                let json = self.updated(key, json, cx);
                self.say(key, json, credit, cx)
            }
            Ok(Message::Notification { .. }) => self.say(key, json, credit, cx),
            Ok(Message::Request { id, params, .. }) => self.ask(key, &id, &params, &json, credit, cx),
            Ok(Message::Response { .. }) | Err(_) => false,
        };
        if !sent {
            tracing::trace!(conn = %key.0, call = %key.1, "message of a call dropped");
            calls::consume(key, credit, cx);
        }
        self.renew(key, cx);
    }

    /// A server says on a call's stream that a resource changed: the URI is the client's.
    fn updated(&mut self, key: CallKey, json: Bytes, cx: &Cx<'_>) -> Bytes {
        let call = self.calls.get(&key).filter(|call| call.on_all);
        let Some((session, server)) = call.map(|call| (call.session.clone(), call.place.server.clone())) else {
            return json;
        };
        let era = if session.is_some() { Era::Legacy } else { Era::Modern };
        self.respelled((session.as_ref().map(|session| &*session.0), era), (key.0, &server), &json, cx)
    }

    /// Says something on the stream of a call's answer; false when there is none.
    pub(super) fn say(&mut self, key: CallKey, json: Bytes, credit: u32, cx: &mut Cx<'_>) -> bool {
        let Some(call) = self.calls.get_mut(&key) else { return false };
        let json = call.notification(json);
        match &mut call.sink {
            Sink::Reply(outlet) => outlet.message(json, Some(key), credit, cx),
            Sink::Slot { exchange, .. } => {
                let batch = self.batches.get_mut(exchange);
                batch.is_some_and(|batch| batch.outlet.message(json, Some(key), credit, cx))
            }
            Sink::Part { .. } | Sink::Feed { .. } | Sink::Nobody => false,
        }
    }

    /// Asks the client of a call; a server whose question gets to nobody is told so. Returns whether the credit goes back
    /// with what was sent.
    fn ask(&mut self, key: CallKey, id: &RawId, params: &Bytes, json: &Bytes, credit: u32, cx: &mut Cx<'_>) -> bool {
        let session = self.calls.get(&key).and_then(|call| call.session.clone());
        let (Some(session), Ok(object)) = (session, Object::parse(json)) else {
            self.decline(key, None, id, "this client cannot be asked anything", cx);
            return false;
        };
        if self.questions.len() >= limits::MAX_QUESTIONS {
            self.decline(key, Some(&session), id, "too many questions wait for their answers", cx);
            return false;
        }
        // An id that is used again is that of a new question.
        let calls = self.alike(key);
        self.questions.retain(|_, question| !question.is_of(&calls, id));
        let number = cx.numbers.draw();
        let (question, token) = named_anew(&object, params, &cx.numbers.name(number));
        let on_call = self.say(key, question.clone(), credit, cx);
        // A client that takes no stream as its answer may listen on another one.
        if !on_call && !self.listeners.say(&session, question, cx) {
            self.decline(key, Some(&session), id, "this client takes no event stream, on which it could be asked", cx);
            return false;
        }
        self.questions.insert(number, Question { of: Of::Call(key), session, id: id.clone(), token });
        on_call
    }

    fn decline(&self, key: CallKey, session: Option<&SessionKey>, id: &RawId, why: &str, cx: &mut Cx<'_>) {
        tracing::debug!(conn = %key.0, call = %key.1, reason = why, "question of a server declined");
        let json = envelope::error(Some(id), code::METHOD_NOT_FOUND, why, None);
        match session {
            Some(session) => self.answer_in(key, session, json, cx),
            None => answer(key, json, cx),
        }
    }

    /// A server takes a question back: its notification with the id that the client knows, where it was asked. Returns
    /// whether the credit goes back with what was sent.
    fn withdrawn(&mut self, key: CallKey, json: &Bytes, params: &Bytes, credit: u32, cx: &mut Cx<'_>) -> bool {
        let Some(id) = object::get(params, "requestId").and_then(|raw| RawId::from_raw(&raw)) else { return false };
        let calls = self.alike(key);
        let found = self.questions.iter().find(|(_, question)| question.is_of(&calls, &id));
        let number = found.map(|(number, _)| *number);
        let Some((number, question)) = number.and_then(|number| self.questions.remove_entry(&number)) else {
            return false;
        };
        let name = quoted(&cx.numbers.name(number));
        let Ok(json) = object::set_path(json, &["params", "requestId"], name.as_bytes()) else { return false };
        let on_call = self.say(key, json.clone(), credit, cx);
        if !on_call {
            self.listeners.say(&question.session, json, cx);
        }
        on_call
    }
}

/// What clients say.
impl Room {
    pub(super) fn note(&mut self, caller: &Caller, note: Note, cx: &mut Cx<'_>) {
        // Without a session there is nothing that a note could be about.
        let Some(session) = caller.speaker.session().cloned() else { return };
        match note {
            Note::Cancelled { params } => self.cancelled(&session, &params, cx),
            Note::Answer { id, json } => self.answered(&session, &id, &json, cx),
            Note::Notification { method, params, json } if &*method == method::PROGRESS => {
                self.progressed(&session, &params, &json, cx);
            }
            Note::Notification { method, json, .. } => self.notified(&session, &caller.endpoint, &method, &json, cx),
        }
    }

    /// `notifications/cancelled`: of a request in the same session, or of none. The request is answered all the same, with
    /// an error, though no response should be sent (2025-11-25, Cancellation, Behavior Requirements): its POST needs an
    /// answer, and clients take an event stream that ends without a response for a broken one, and come back for it. An
    /// answer to a request that it gave up a client ignores (the same page).
    fn cancelled(&mut self, session: &SessionKey, params: &Bytes, cx: &mut Cx<'_>) {
        let id = object::get(params, "requestId").and_then(|raw| RawId::from_raw(&raw));
        if let Some(key) = id.and_then(|id| self.requests.get(&(session.clone(), id)).copied()) {
            let reason = object::get(params, "reason").unwrap_or_default();
            let reason = rpc::string(&reason).unwrap_or_else(|| "the client cancelled".into());
            // Copied: it must not keep a whole request in memory, as it may in a batch.
            let params = Bytes::copy_from_slice(params);
            let command = Command::Cancel { stream: key.1, params, reason: reason.to_string() };
            cx.out.push(Action::Tunnel { conn: key.0, command });
            self.fail(key, &Failure::Cancelled, cx);
        }
    }

    /// A client answered a question of this session. One that nobody asked, or not any more, is dropped.
    fn answered(&mut self, session: &SessionKey, id: &RawId, json: &Bytes, cx: &mut Cx<'_>) {
        let Some(number) = self.question(session, id.as_bytes(), cx) else {
            return tracing::debug!("answer to no open question dropped");
        };
        let (Some(question), Ok(object)) = (self.questions.remove(&number), Object::parse(json)) else { return };
        let json = object.replace(&[("id", question.id.as_bytes())]);
        match question.of {
            Of::Call(key) => {
                self.answer_in(key, session, json, cx);
                self.renew(key, cx);
            }
            Of::Nothing(beside) => beside.answered(session, &question.id, json, cx),
        }
    }

    /// Brings a server what its client answers in a call: by the session, where the agent knows the question by that, since
    /// on the call's stream it is lost if the call has just ended there. What is too large for that way has no other.
    fn answer_in(&self, key: CallKey, session: &SessionKey, json: Bytes, cx: &mut Cx<'_>) {
        let by_session = self.devices.get(&key.0).is_some_and(|device| device.hands_on()) && tunnel::fits_notice(&json);
        match self.calls.get(&key).filter(|_| by_session) {
            Some(call) => beside::tell((key.0, &call.place.server), session, json, cx),
            None => answer(key, json, cx),
        }
    }

    /// A call's server has answered it. What was asked in it may belong to another one of its client, which has it from now
    /// on: a process does not say which. An agent that knows better drops the answer. After an error its process may be
    /// another one, which numbers its questions anew.
    pub(super) fn hand_questions_on(&mut self, key: CallKey) {
        let is_its = |question: &Question| question.of == Of::Call(key);
        let its: Vec<u64> = self.questions.iter().filter(|(_, it)| is_its(it)).map(|(number, _)| *number).collect();
        if its.is_empty() {
            return;
        }
        let others: Vec<CallKey> = self.alike(key).into_iter().filter(|other| *other != key).collect();
        for number in its {
            let count = |of| self.questions.values().filter(|question| question.of == Of::Call(of)).count();
            let other = others.iter().find(|other| count(**other) < limits::MAX_CALL_QUESTIONS);
            if let (Some(other), Some(question)) = (other, self.questions.get_mut(&number)) {
                question.of = Of::Call(*other);
            }
        }
    }

    /// The calls that a question in the course of that one may belong to: it, and if its agent hands questions on, all of
    /// its client at its server.
    fn alike(&self, key: CallKey) -> Vec<CallKey> {
        let hands_on = self.devices.get(&key.0).is_some_and(|device| device.hands_on());
        let Some(call) = self.calls.get(&key).filter(|_| hands_on) else { return Vec::from([key]) };
        let of_device = self.calls.range((key.0, StreamId(0))..=(key.0, StreamId(u32::MAX)));
        let is_alike = |other: &Call| other.session == call.session && other.place.server == call.place.server;
        of_device.filter(|(_, other)| is_alike(other)).map(|(key, _)| *key).collect()
    }

    /// A client says how far its answer is.
    fn progressed(&mut self, session: &SessionKey, params: &Bytes, json: &Bytes, cx: &mut Cx<'_>) {
        let name = object::get(params, "progressToken").unwrap_or_default();
        let Some(question) = self.question(session, &name, cx).and_then(|number| self.questions.get(&number)) else {
            return;
        };
        let token = question.token.as_ref();
        let json = token.and_then(|token| object::set_path(json, &["params", "progressToken"], token).ok());
        match (&question.of, json) {
            (Of::Call(key), Some(json)) => {
                let (conn, stream) = *key;
                let command = Command::Message { stream, json, droppable: true };
                cx.out.push(Action::Tunnel { conn, command });
                self.renew((conn, stream), cx);
            }
            (Of::Nothing(beside), Some(json)) => beside.progressed(session, json, cx),
            (_, None) => {}
        }
    }

    /// Any other notification: to the server of its endpoint. On the endpoint of all servers only those of the protocol
    /// have a meaning that is everybody's.
    fn notified(&self, session: &SessionKey, endpoint: &Endpoint, method: &str, json: &Bytes, cx: &mut Cx<'_>) {
        let place = self.locate(endpoint, cx).ok().map(|(conn, server, _)| (conn, server.to_string()));
        let mut tell = |conn, server: Option<String>| {
            let command = Command::ClientNotice { session: session.0.to_string(), server, json: json.clone() };
            cx.out.push(Action::Tunnel { conn, command });
        };
        match endpoint {
            Endpoint::All if method == method::ROOTS_CHANGED => {
                let speaking = self.devices.values().filter(|device| device.dialect == Dialect::V2);
                speaking.for_each(|device| tell(device.conn, None));
            }
            Endpoint::All => {}
            Endpoint::Server(_) | Endpoint::DeviceServer(..) => {
                if let Some((conn, server)) = place {
                    tell(conn, Some(server));
                }
            }
        }
    }

    /// The open question of that session which a client knows by the raw name.
    fn question(&self, session: &SessionKey, raw: &[u8], cx: &Cx<'_>) -> Option<u64> {
        let number = cx.numbers.read(&rpc::string(raw)?)?;
        self.questions.get(&number).filter(|question| question.session == *session).map(|_| number)
    }
}

/// A server's question with a name of the relay's for its id, and for its progress token if it has one; and that token.
pub(super) fn named_anew(question: &Object, params: &Bytes, name: &str) -> (Bytes, Option<Bytes>) {
    let name = quoted(name);
    let token = object::get_path(params, PROGRESS_TOKEN);
    let params = token.as_ref().and_then(|_| object::set_path(params, PROGRESS_TOKEN, name.as_bytes()).ok());
    let question = match &params {
        Some(params) => question.replace(&[("id", name.as_bytes()), ("params", params)]),
        None => question.replace(&[("id", name.as_bytes())]),
    };
    // Copied: a few bytes must not keep the whole question in memory.
    (question, token.map(|token| Bytes::copy_from_slice(&token)))
}

/// Brings a server the answer to what it asked.
fn answer((conn, stream): CallKey, json: Bytes, cx: &mut Cx<'_>) {
    cx.out.push(Action::Tunnel { conn, command: Command::Message { stream, json, droppable: false } });
}

const PROGRESS_TOKEN: &[&str] = &["_meta", "progressToken"];
