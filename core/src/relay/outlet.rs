//! The reply of one exchange: whole, or begun as JSON or as an event stream.
//!
//! ```text
//!   No ──answer──► Json ──end──► (gone)
//!   │ └──whole───────────────► (gone)
//!   └──message, silence──► Events ──answer──► Line ──end──► (gone)
//! ```

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use super::Accepts;
use super::shard::{Action, Cx, Lease, Timer};
use crate::http::{Reply, ReplyHead};
use crate::id::{ConnId, ExchangeId, StreamId};
use crate::limits;
use crate::mcp::header;
use crate::sse::{self, one_line};

/// The reply of one exchange. Consumed when the reply is complete.
#[derive(Debug)]
pub(super) struct Outlet {
    exchange: ExchangeId,
    accepts: Accepts,
    /// Fields for the reply's head.
    headers: HeaderMap,
    state: State,
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
        Self { exchange, accepts, headers, state: State::No }
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
    pub(super) fn whole(mut self, status: StatusCode, message: Bytes, cx: &mut Cx<'_>) {
        if status != StatusCode::OK {
            // A session that begins with an error has not begun.
            self.headers.remove(header::SESSION_ID);
        }
        match (self.state, self.accepts) {
            (State::No, Accepts::Either | Accepts::Json) => {
                let mut reply = Reply::json(status, message);
                reply.headers.extend(self.headers.clone());
                self.release(cx);
                cx.out.push(Action::Reply { exchange: self.exchange, reply });
            }
            (State::No, Accepts::Stream) => {
                let mut reply = Reply { status, headers: event_headers(), body: event(message) };
                reply.headers.extend(self.headers.clone());
                self.release(cx);
                cx.out.push(Action::Reply { exchange: self.exchange, reply });
            }
            (State::Events, _) => {
                cx.out.push(Action::Body { exchange: self.exchange, bytes: event(message), credit: 0 });
                self.finish(cx);
            }
            (State::Json | State::Line, _) => self.abort(cx),
        }
    }

    /// Answers with a response in three pieces, the long middle one uncopied.
    pub(super) fn long(mut self, (before, after): (Bytes, Bytes), middle: Bytes, cx: &mut Cx<'_>) {
        let length = u64::try_from(middle.len()).ok();
        self.begin_answer(before, length, u64::try_from(after.len()).unwrap_or_default(), None, cx);
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
            cx.out.push(Action::Body { exchange: self.exchange, bytes: event(message), credit });
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
                self.begin(headers, None, source, cx);
                self.state = State::Events;
                self.rest(cx);
                true
            }
            (State::Events, _) => true,
            (State::No, Accepts::Json) | (State::Json | State::Line, _) => false,
        }
    }

    /// Begins an answer whose body follows in pieces: `length` bytes if that is known, with `before` before it and
    /// `after` bytes after it.
    pub(super) fn begin_answer(
        &mut self,
        before: Bytes,
        length: Option<u64>,
        after: u64,
        source: Option<(ConnId, StreamId)>,
        cx: &mut Cx<'_>,
    ) {
        let as_json = self.state == State::No && self.accepts != Accepts::Stream;
        if as_json {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.extend(self.headers.clone());
            let around = u64::try_from(before.len()).unwrap_or_default().saturating_add(after);
            self.begin(headers, length.map(|length| length.saturating_add(around)), source, cx);
            self.state = State::Json;
            cx.out.push(Action::Body { exchange: self.exchange, bytes: before, credit: 0 });
        } else {
            self.begin_events(source, cx);
            self.state = State::Line;
            let bytes = [&sse::data_prefix(None)[..], &before].concat().into();
            cx.out.push(Action::Body { exchange: self.exchange, bytes, credit: 0 });
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
        cx.out.push(Action::Body { exchange: self.exchange, bytes, credit });
    }

    /// Completes a begun answer.
    pub(super) fn end_answer(self, after: Bytes, cx: &mut Cx<'_>) {
        let bytes = match self.state {
            State::Line => [&after[..], &sse::data_suffix()].concat().into(),
            State::Json | State::No | State::Events => after,
        };
        cx.out.push(Action::Body { exchange: self.exchange, bytes, credit: 0 });
        self.finish(cx);
    }

    /// Ends an event stream.
    pub(super) fn finish(self, cx: &mut Cx<'_>) {
        self.release(cx);
        cx.out.push(Action::Finish { exchange: self.exchange });
    }

    /// Cuts the transport, so that the client sees that the answer is not whole.
    pub(super) fn abort(self, cx: &mut Cx<'_>) {
        self.release(cx);
        cx.out.push(Action::Abort { exchange: self.exchange });
    }

    /// The client went away: nothing more is sent.
    pub(super) fn forget(self, cx: &mut Cx<'_>) {
        self.release(cx);
    }

    /// A comment, so that no proxy takes a quiet stream for a dead one. Inside a data line there is no room for one.
    pub(super) fn heartbeat(&mut self, cx: &mut Cx<'_>) {
        match self.state {
            State::Events => {
                let bytes = Bytes::from_static(sse::HEARTBEAT);
                cx.out.push(Action::Body { exchange: self.exchange, bytes, credit: 0 });
                self.rest(cx);
            }
            State::No | State::Json | State::Line => {}
        }
    }

    fn begin(&self, headers: HeaderMap, length: Option<u64>, source: Option<(ConnId, StreamId)>, cx: &mut Cx<'_>) {
        let head = ReplyHead { status: StatusCode::OK, headers, length };
        cx.out.push(Action::Begin { exchange: self.exchange, head, source });
    }

    /// A stream was heard of: the next heartbeat is due a while from now.
    fn rest(&self, cx: &mut Cx<'_>) {
        cx.timers.clear(&Timer::Silence(self.exchange));
        cx.timers.set(Timer::Heartbeat(self.exchange), cx.now.instant + limits::HEARTBEAT);
    }

    fn release(&self, cx: &mut Cx<'_>) {
        cx.timers.clear(&Timer::Silence(self.exchange));
        cx.timers.clear(&Timer::Heartbeat(self.exchange));
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

/// One event that carries a JSON-RPC message.
fn event(message: Bytes) -> Bytes {
    sse::event(None, &one_line(message))
}
