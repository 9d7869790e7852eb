//! The reply of one exchange: whole, or begun as JSON or as an event stream.
//!
//! ```text
//!   No ──answer──► Json ──end──► (gone)
//!   │ └──whole───────────────► (gone)
//!   └──message, silence──► Events ──answer──► Line ──end──► (gone)
//! ```
//!
//! An event stream of a session goes on when its client loses the connection: what is said meanwhile is only kept (see
//! [`replay`](super::replay)), until the client takes the stream up again on another exchange.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use super::calls::consume;
use super::replay::{self, Asked};
use super::shard::{Action, Cx, Lease, Timer};
use super::{Accepts, Session, SessionKey, Speaker, era};
use crate::http::{Reply, ReplyHead};
use crate::id::{ConnId, ExchangeId, StreamId};
use crate::limits;
use crate::mcp::{Version, header};
use crate::sse::{self, one_line};

/// The reply of one exchange. Consumed when the reply is complete.
#[derive(Debug)]
pub(super) struct Outlet {
    exchange: ExchangeId,
    accepts: Accepts,
    /// Fields for the reply's head.
    headers: HeaderMap,
    /// Whether an error of the transport shows in the status, as from 2026-07-28 on.
    modern: bool,
    state: State,
    /// Where the credit of its pieces goes back to.
    source: Option<(ConnId, StreamId)>,
    /// Whose event stream it may become, if that can be taken up again.
    resumable: Option<Resumable>,
    /// The client is gone.
    away: bool,
}

/// An event stream that can be taken up again.
#[derive(Debug)]
struct Resumable {
    session: SessionKey,
    asked: Asked,
    /// It begins with an id and no data (2025-11-25, Transports, Streamable HTTP). Older clients take that for a message.
    primes: bool,
    /// Its number, once it has begun.
    stream: Option<u64>,
}

/// How far a reply is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was sent.
    No,
    /// Inside a JSON body.
    Json,
    /// Between the events of a stream.
    Events,
    /// Inside the data line of a stream's last event.
    Line,
}

impl Outlet {
    /// The reply of an exchange that nothing was sent on.
    pub(super) fn new(exchange: ExchangeId, accepts: Accepts, headers: HeaderMap) -> Self {
        let (state, source, resumable) = (State::No, None, None);
        Self { exchange, accepts, headers, modern: false, state, source, resumable, away: false }
    }

    /// The same for a client of this era.
    pub(super) fn speaking(self, speaker: &Speaker) -> Self {
        Self { modern: matches!(speaker, Speaker::Modern { .. }), ..self }
    }

    /// The status of an answer that is this error.
    pub(super) fn status_of(&self, error: i64) -> StatusCode {
        if self.modern { era::status(error) } else { StatusCode::OK }
    }

    /// Whether the client takes an event stream.
    pub(super) fn takes_events(&self) -> bool {
        self.accepts != Accepts::Json
    }

    /// The same for a client of a session, which may take an event stream up again. `asked` is what it answers.
    pub(super) fn resumable(mut self, session: &Session, asked: Asked) -> Self {
        let primes = session.version >= Version::V2025_11_25;
        let session = session.key.clone();
        self.resumable = Some(Resumable { session, asked, primes, stream: None });
        self
    }

    /// The number of its event stream, if it can be taken up again.
    pub(super) fn stream(&self) -> Option<u64> {
        self.resumable.as_ref()?.stream
    }

    /// Whether its client is gone.
    pub(super) fn is_away(&self) -> bool {
        self.away
    }

    pub(super) fn exchange(&self) -> ExchangeId {
        self.exchange
    }

    /// Says that a notification came.
    pub(super) fn accepted(self, cx: &mut Cx<'_>) {
        let reply = Reply { status: StatusCode::ACCEPTED, headers: self.headers, body: Bytes::new() };
        cx.out.push(Action::Reply { exchange: self.exchange, reply });
    }

    /// The answer does not come at once: it is told when its client goes away, and becomes a stream after a silence.
    pub(super) fn hold(&self, cx: &mut Cx<'_>) {
        cx.exchanges.insert(self.exchange, cx.user.clone());
        match self.accepts {
            Accepts::Either | Accepts::Stream => {
                cx.timers.set(Timer::Silence(self.exchange), cx.now.instant + limits::STREAM_AFTER);
            }
            Accepts::Json => {}
        }
    }

    /// Whether the transport would have to be cut to say anything else.
    pub(super) fn is_mid_answer(&self) -> bool {
        match self.state {
            State::Json | State::Line => true,
            State::No | State::Events => false,
        }
    }

    /// Answers with one whole JSON-RPC message, which fits on one line. `status` counts while nothing was sent.
    pub(super) fn whole(mut self, mut status: StatusCode, message: Bytes, cx: &mut Cx<'_>) {
        // In a session 404 would say that the session is over (2025-11-25, Transports, Session Management).
        if status == StatusCode::NOT_FOUND && self.resumable.is_some() && !self.headers.contains_key(header::SESSION_ID)
        {
            status = StatusCode::OK;
        }
        if status != StatusCode::OK {
            // A session that begins with an error has not begun.
            self.headers.remove(header::SESSION_ID);
        }
        match (self.state, self.accepts) {
            (State::No, Accepts::Either | Accepts::Json) => {
                self.release(cx);
                let reply = Reply::json_beside(self.headers, status, message);
                cx.out.push(Action::Reply { exchange: self.exchange, reply });
            }
            (State::No, Accepts::Stream) => {
                self.release(cx);
                let mut reply = Reply { status, headers: event_headers(), body: sse::event(None, &one_line(message)) };
                reply.headers.extend(self.headers);
                cx.out.push(Action::Reply { exchange: self.exchange, reply });
            }
            (State::Events, _) => {
                if let Some(stream) = self.stream() {
                    cx.replay.ends(stream);
                }
                self.emit(message, 0, cx);
                self.finish(cx);
            }
            (State::Json | State::Line, _) => self.abort(cx),
        }
    }

    /// Answers with a response in three pieces, the long middle one uncopied.
    pub(super) fn long(mut self, (before, after): (Bytes, Bytes), middle: Bytes, cx: &mut Cx<'_>) {
        let length = u64::try_from(middle.len()).ok();
        let after_length = u64::try_from(after.len()).unwrap_or_default();
        self.begin_answer(StatusCode::OK, before, (length, after_length), None, cx);
        self.piece(middle, 0, cx);
        self.end_answer(after, cx);
    }

    /// Sends a message before the answer; false when the client takes no stream. `credit` bytes go back to the source
    /// once it is consumed.
    pub(super) fn message(
        &mut self,
        message: Bytes,
        source: Option<(ConnId, StreamId)>,
        credit: u32,
        cx: &mut Cx<'_>,
    ) -> bool {
        let sent = self.begin_events(source, cx);
        if sent {
            // An exchange gives credit back to where it began: a call that took another's place has it at once.
            let credit = match source.filter(|_| self.source != source) {
                Some(other) => {
                    consume(other, credit, cx);
                    0
                }
                None => credit,
            };
            self.emit(message, credit, cx);
            self.rest(cx);
        }
        sent
    }

    /// Turns a reply that nothing was sent of into an event stream; false when the client takes none, or when it is
    /// too late.
    pub(super) fn begin_events(&mut self, source: Option<(ConnId, StreamId)>, cx: &mut Cx<'_>) -> bool {
        match (self.state, self.accepts) {
            (State::No, Accepts::Either | Accepts::Stream) => {
                let mut headers = event_headers();
                headers.extend(self.headers.clone());
                self.begin(StatusCode::OK, headers, None, source, cx);
                self.state = State::Events;
                self.prime(cx);
                self.rest(cx);
                true
            }
            (State::Events, _) => true,
            (State::No, Accepts::Json) | (State::Json | State::Line, _) => false,
        }
    }

    /// Begins an answer whose body follows in pieces: `length` bytes if that is known, with `before` before it and
    /// `after` bytes after it. `status` counts while nothing was sent.
    pub(super) fn begin_answer(
        &mut self,
        status: StatusCode,
        before: Bytes,
        (length, after): (Option<u64>, u64),
        source: Option<(ConnId, StreamId)>,
        cx: &mut Cx<'_>,
    ) {
        let as_json = self.state == State::No && self.accepts != Accepts::Stream;
        if as_json {
            let mut headers = core::mem::take(&mut self.headers);
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            let around = u64::try_from(before.len()).unwrap_or_default().saturating_add(after);
            self.begin(status, headers, length.map(|length| length.saturating_add(around)), source, cx);
            self.state = State::Json;
            cx.out.push(Action::Body { exchange: self.exchange, bytes: before, credit: 0 });
        } else {
            self.begin_events(source, cx);
            self.state = State::Line;
            let id = self.stream().and_then(|stream| Some((stream, cx.replay.begin_message(stream)?)));
            let id = id.map(|(stream, place)| cx.replay.event_id(cx.numbers, stream, place));
            let bytes: Bytes = [&sse::data_prefix(id.as_deref())[..], &before].concat().into();
            if let Some(stream) = self.stream() {
                cx.replay.piece(stream, &before);
            }
            self.send(bytes, 0, cx);
        }
        cx.timers.clear(&Timer::Heartbeat(self.exchange));
        cx.timers.clear(&Timer::Silence(self.exchange));
    }

    /// Sends a piece of a begun answer; `credit` bytes go back to the source once it is consumed.
    pub(super) fn piece(&mut self, bytes: Bytes, credit: u32, cx: &mut Cx<'_>) {
        let bytes = match self.state {
            State::Line => one_line(bytes),
            State::Json | State::No | State::Events => bytes,
        };
        if let (State::Line, Some(stream)) = (self.state, self.stream()) {
            cx.replay.piece(stream, &bytes);
        }
        self.send(bytes, credit, cx);
    }

    /// Completes a begun answer.
    pub(super) fn end_answer(self, after: Bytes, cx: &mut Cx<'_>) {
        if let (State::Line, Some(stream)) = (self.state, self.stream()) {
            cx.replay.piece(stream, &after);
            cx.replay.end_message(stream);
        }
        let bytes = match self.state {
            State::Line => [&after[..], &sse::data_suffix()].concat().into(),
            State::Json | State::No | State::Events => after,
        };
        self.send(bytes, 0, cx);
        self.finish(cx);
    }

    /// Answers a client that comes back for its event stream with a message that ends it.
    pub(super) fn instead(mut self, message: &Bytes, cx: &mut Cx<'_>) {
        self.begin_events(None, cx);
        let id = replay::last_id(cx.numbers);
        self.send(sse::event(Some(&id), message), 0, cx);
        self.finish(cx);
    }

    /// Answers a client that comes back for an event stream which it has had to its end: no more of it is to come. Some
    /// clients come back after an error, and again whenever that stream ends, but for this status (WHATWG HTML,
    /// Server-sent events: 204 ends the attempts).
    pub(super) fn nothing(self, cx: &mut Cx<'_>) {
        let reply = Reply { status: StatusCode::NO_CONTENT, headers: self.headers, body: Bytes::new() };
        cx.out.push(Action::Reply { exchange: self.exchange, reply });
    }

    /// Answers with what is left of an event stream that is over.
    pub(super) fn again(mut self, (stream, place): (u64, u64), cx: &mut Cx<'_>) {
        self.begin_events(None, cx);
        for (place, data) in cx.replay.take_up(stream, place).0 {
            let id = cx.replay.event_id(cx.numbers, stream, place);
            self.send(sse::event(Some(&id), &data), 0, cx);
        }
        // It may be lost once more.
        cx.replay.left(stream, true, cx.now.instant);
        self.finish(cx);
    }

    /// Ends an event stream.
    pub(super) fn finish(self, cx: &mut Cx<'_>) {
        self.release(cx);
        self.leave(true, cx);
        if !self.away {
            cx.out.push(Action::Finish { exchange: self.exchange });
        }
    }

    /// Ends with the response that tells of a failure. Amid an answer the transport is cut, so that the client sees that
    /// it is not whole; one that comes back finds the response.
    pub(super) fn fail(mut self, response: Bytes, cx: &mut Cx<'_>) {
        if !self.is_mid_answer() {
            return self.whole(StatusCode::OK, response, cx);
        }
        if let Some(stream) = self.stream() {
            cx.replay.drop_message(stream);
            cx.replay.ends(stream);
            cx.replay.add(stream, &one_line(response));
        }
        self.state = State::Events;
        if self.away { self.finish(cx) } else { self.abort(cx) }
    }

    /// Cuts the transport, so that the client sees that the answer is not whole.
    pub(super) fn abort(self, cx: &mut Cx<'_>) {
        self.release(cx);
        self.leave(true, cx);
        cx.out.push(Action::Abort { exchange: self.exchange });
    }

    /// The client went away: nothing more is sent. An event stream that can be taken up again goes on.
    pub(super) fn left(mut self, cx: &mut Cx<'_>) -> Option<Self> {
        self.release(cx);
        self.leave(false, cx);
        self.away = true;
        self.stream().is_some().then_some(self)
    }

    /// Closes the client's connection, which is to come back in `millis` for the rest (2025-11-25, Transports, Sending
    /// Messages to the Server); false for a client that does not know of it, or amid an answer.
    pub(super) fn pause(&mut self, source: Option<(ConnId, StreamId)>, millis: u32, cx: &mut Cx<'_>) -> bool {
        let knows = self.resumable.as_ref().is_some_and(|resumable| resumable.primes);
        if !knows || self.away || self.is_mid_answer() || !self.begin_events(source, cx) {
            return false;
        }
        self.send(sse::retry(millis), 0, cx);
        self.release(cx);
        self.leave(false, cx);
        self.away = true;
        cx.out.push(Action::Finish { exchange: self.exchange });
        true
    }

    /// A client takes the event stream up again on another exchange, after the event at `place`.
    pub(super) fn take_up(&mut self, exchange: ExchangeId, headers: HeaderMap, place: u64, cx: &mut Cx<'_>) {
        let Some(stream) = self.stream() else { return };
        if !self.away {
            self.release(cx);
            cx.out.push(Action::Abort { exchange: self.exchange });
        }
        (self.exchange, self.headers, self.away) = (exchange, headers, false);
        cx.exchanges.insert(exchange, cx.user.clone());
        let mut headers = event_headers();
        headers.extend(self.headers.clone());
        self.begin(StatusCode::OK, headers, None, self.source, cx);
        let (events, pending) = cx.replay.take_up(stream, place);
        for (place, data) in events {
            let id = cx.replay.event_id(cx.numbers, stream, place);
            self.send(sse::event(Some(&id), &data), 0, cx);
        }
        match pending {
            Some((place, beginning)) => {
                let id = cx.replay.event_id(cx.numbers, stream, place);
                let bytes = [&sse::data_prefix(Some(&id))[..], &beginning].concat().into();
                self.send(bytes, 0, cx);
            }
            None => self.rest(cx),
        }
    }

    /// A comment, so that no proxy takes a quiet stream for a dead one. Inside a data line there is no room for one.
    pub(super) fn heartbeat(&mut self, cx: &mut Cx<'_>) {
        match self.state {
            State::Events if !self.away => {
                let bytes = Bytes::from_static(sse::HEARTBEAT);
                cx.out.push(Action::Body { exchange: self.exchange, bytes, credit: 0 });
                self.rest(cx);
            }
            State::Events | State::No | State::Json | State::Line => {}
        }
    }

    /// The first event of a stream that can be taken up again.
    fn prime(&mut self, cx: &mut Cx<'_>) {
        let Some(resumable) = &mut self.resumable else { return };
        let stream = cx.numbers.draw();
        resumable.stream = Some(stream);
        cx.replay.begin(stream, resumable.session.clone(), resumable.asked.clone());
        if resumable.primes {
            let id = cx.replay.event_id(cx.numbers, stream, 0);
            self.send(sse::event(Some(&id), b""), 0, cx);
        }
    }

    /// Sends a message as an event.
    fn emit(&self, message: Bytes, credit: u32, cx: &mut Cx<'_>) {
        let message = one_line(message);
        let id = self.stream().and_then(|stream| Some((stream, cx.replay.add(stream, &message)?)));
        let id = id.map(|(stream, place)| cx.replay.event_id(cx.numbers, stream, place));
        self.send(sse::event(id.as_deref(), &message), credit, cx);
    }

    /// Sends bytes; with nobody there, only their credit goes back.
    fn send(&self, bytes: Bytes, credit: u32, cx: &mut Cx<'_>) {
        match self.source {
            _ if !self.away => cx.out.push(Action::Body { exchange: self.exchange, bytes, credit }),
            Some(source) => consume(source, credit, cx),
            None => {}
        }
    }

    /// Nobody reads the event stream for now.
    fn leave(&self, is_over: bool, cx: &mut Cx<'_>) {
        if let Some(stream) = self.stream() {
            cx.replay.left(stream, is_over, cx.now.instant);
            let timer = Timer::Forget(cx.user.clone());
            if cx.timers.get(&timer).is_none() {
                cx.timers.set(timer, cx.now.instant + limits::REPLAY_KEPT);
            }
        }
    }

    fn begin(
        &mut self,
        status: StatusCode,
        headers: HeaderMap,
        length: Option<u64>,
        source: Option<(ConnId, StreamId)>,
        cx: &mut Cx<'_>,
    ) {
        self.source = source;
        let head = ReplyHead { status, headers, length };
        cx.out.push(Action::Begin { exchange: self.exchange, head, source });
    }

    /// A stream was heard of: the next heartbeat is due a while from now.
    fn rest(&self, cx: &mut Cx<'_>) {
        if self.away {
            return;
        }
        cx.timers.clear(&Timer::Silence(self.exchange));
        cx.timers.set(Timer::Heartbeat(self.exchange), cx.now.instant + limits::HEARTBEAT);
    }

    fn release(&self, cx: &mut Cx<'_>) {
        match self.state {
            State::No => cx.timers.clear(&Timer::Silence(self.exchange)),
            State::Events => cx.timers.clear(&Timer::Heartbeat(self.exchange)),
            // Neither waits for what is being sent.
            State::Json | State::Line => {}
        }
        cx.timers.clear(&Timer::Expiry(Lease::Exchange(self.exchange)));
        cx.exchanges.remove(&self.exchange);
    }
}

/// The head of an event stream. `X-Accel-Buffering` is for nginx, which would collect events otherwise; `no-transform`
/// for proxies that would compress, and collect, them.
pub(super) fn event_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    headers
}
