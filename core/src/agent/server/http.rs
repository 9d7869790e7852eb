//! The link to an HTTP server: Streamable HTTP as a client, of either era.
//!
//! Each message is a POST. Its answer is JSON or an event stream; a stream that breaks is resumed where the server gave
//! its events ids. A GET keeps a stream open for what belongs to no request, if the server has one. A server that has
//! moved within its origin is followed there. In the modern era there is no session, no GET and no resumption, header
//! fields repeat what the body says, and to drop a stream cancels its request (2026-07-28, Streamable HTTP).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, Method, StatusCode};
use url::Url;

use super::stdio::messages;
use super::{Timer, people};
use crate::agent::cx::{Cx, Report, RequestId, Slot};
use crate::agent::veil::Veil;
use crate::backoff::Backoff;
use crate::http::fetch::{Fetch, FetchError, FetchEvent};
use crate::http::reach::Reach;
use crate::id::FetchId;
use crate::limits;
use crate::mcp::{Version, code, header};
use crate::rpc::Message;
use crate::secret::Secret;
use crate::sse;

/// An HTTP server, with the session that it gave.
#[derive(Debug)]
pub(super) struct Http {
    slot: Slot,
    /// The entry's, until the server says that it is elsewhere in its origin.
    url: String,
    /// The entry's own header fields.
    headers: HeaderMap,
    /// What must not be told of it.
    veil: Veil,
    session: Option<HeaderValue>,
    /// How many sessions there were.
    sessions: u32,
    version: Option<Version>,
    exchanges: BTreeMap<FetchId, Exchange>,
    /// Requests whose event stream broke and will be taken up again.
    resuming: BTreeMap<RequestId, Resume>,
    listening: Listening,
    /// The stream of what belongs to no request was open in this session.
    listened: bool,
    listen_backoff: Backoff,
}

/// What the link makes of something that came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A message, and the request on whose stream it came.
    Message { message: Message, json: Bytes, on: Option<RequestId> },
    /// A request will get no answer.
    Unanswered { request: RequestId, code: i64, reason: String },
    /// The server does not know the session any more (404), and did nothing with what it was sent in it. `refused`: the
    /// request, and what it was, unless it is too large to be kept.
    SessionEnded { refused: Option<(RequestId, Option<Bytes>)>, is_new: bool },
    /// The stream of what belongs to no request is open: for the first time, or again.
    Listens,
    /// The server cannot be reached.
    Lost(String),
    /// It will not work before somebody changes its entry.
    Denied(String),
    /// The farewell is said, as far as it can be.
    Gone,
}

#[derive(Debug)]
struct Exchange {
    purpose: Purpose,
    reading: Reading,
    resume: Resume,
    /// What was sent, until the answer's head comes: the server may want it sent elsewhere.
    sent: Option<Sent>,
    /// It was sent elsewhere once.
    redirected: bool,
    /// In which session it was sent; `None`: in none.
    session: Option<u32>,
}

/// A request that may be sent once more.
#[derive(Debug)]
struct Sent {
    method: Method,
    /// The header fields that are its own.
    fields: HeaderMap,
    body: Bytes,
    timeout: Duration,
}

impl Sent {
    fn empty(method: Method, timeout: Duration) -> Self {
        Self { method, fields: HeaderMap::new(), body: Bytes::new(), timeout }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A request whose answer is awaited.
    Request { request: RequestId, opens_session: bool },
    /// A notification, or an answer of ours.
    Note,
    /// The stream of what belongs to no request.
    Listen,
    /// The end of the session.
    Farewell,
    /// The answer came; the stream may end in its own time, so that its connection can be used again.
    Answered,
}

#[derive(Debug)]
enum Reading {
    Head,
    Json(BytesMut),
    Events(sse::Parser),
    Problem { status: StatusCode, body: BytesMut },
    Nothing,
}

/// Where a broken event stream goes on.
#[derive(Debug, Clone, Default)]
struct Resume {
    last_event: Option<String>,
    retry: Option<Duration>,
    /// Resumptions in a row that brought no event.
    attempts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listening {
    /// Not yet, or between two attempts.
    No,
    Open(FetchId),
    /// The server has no such stream (2025-03-26, Transports: GET may be answered with 405).
    Never,
}

impl Http {
    pub(super) fn new(slot: Slot, url: &str, headers: &BTreeMap<String, Secret>, veil: Veil) -> Self {
        Self {
            slot,
            url: url.to_string(),
            headers: entry_headers(headers),
            veil,
            session: None,
            sessions: 0,
            version: None,
            exchanges: BTreeMap::new(),
            resuming: BTreeMap::new(),
            listening: Listening::No,
            listened: false,
            listen_backoff: Backoff::new(LISTEN_FIRST, limits::RECONNECT_MAX, limits::RECONNECT_STABLE),
        }
    }

    /// What the handshake agreed on; every later request carries it (2025-06-18, Protocol Version Header: MUST).
    pub(super) fn set_version(&mut self, version: Option<Version>) {
        self.version = version;
    }

    /// Whether it is spoken to as the modern era does.
    pub(super) fn is_modern(&self) -> bool {
        self.version.is_some_and(|version| !version.is_legacy())
    }

    /// Sends a request with these header fields. `opens_session`: it is `initialize`.
    pub(super) fn request(
        &mut self,
        request: RequestId,
        json: Bytes,
        fields: HeaderMap,
        opens_session: bool,
        cx: &mut Cx,
    ) {
        let purpose = Purpose::Request { request, opens_session };
        self.post(purpose, json, fields, limits::HTTP_ANSWER_TIMEOUT, cx);
    }

    /// Sends a notification, or the answer to a request of the server.
    pub(super) fn note(&mut self, json: Bytes, cx: &mut Cx) {
        // 2026-07-28, Streamable HTTP, Sending Messages: there are none.
        if !self.is_modern() {
            self.post(Purpose::Note, json, HeaderMap::new(), limits::HTTP_NOTE_TIMEOUT, cx);
        }
    }

    /// Stops waiting for whatever was asked, since it is asked otherwise.
    pub(super) fn abandon_requests(&mut self, cx: &mut Cx) {
        for fetch in self.exchanges.keys().copied().collect::<Vec<_>>() {
            self.drop_exchange(fetch, cx);
        }
    }

    /// Stops waiting for an answer.
    pub(super) fn abandon(&mut self, request: RequestId, cx: &mut Cx) {
        if self.resuming.remove(&request).is_some() {
            cx.disarm(self.slot, Timer::Resume(request));
        }
        let asks =
            |exchange: &Exchange| matches!(exchange.purpose, Purpose::Request { request: r, .. } if r == request);
        if let Some(fetch) = self.exchanges.iter().find(|(_, exchange)| asks(exchange)).map(|(fetch, _)| *fetch) {
            self.drop_exchange(fetch, cx);
        }
    }

    /// Opens the stream of what belongs to no request, unless the server has none.
    pub(super) fn listen(&mut self, cx: &mut Cx) {
        if self.listening == Listening::No {
            let fetch = self.get(Purpose::Listen, Resume::default(), cx);
            self.listening = Listening::Open(fetch);
        }
    }

    /// Forgets the session, of which the server knows nothing any more. What was asked in it and is not answered yet may
    /// still be; except for what was to be resumed in it, which is returned.
    pub(super) fn forget_session(&mut self, cx: &mut Cx) -> Vec<RequestId> {
        (self.session, self.version, self.listened) = (None, None, false);
        if let Listening::Open(fetch) = self.listening {
            self.drop_exchange(fetch, cx);
        }
        cx.disarm(self.slot, Timer::Listen);
        self.listening = Listening::No;
        let lost: Vec<RequestId> = core::mem::take(&mut self.resuming).into_keys().collect();
        for request in &lost {
            cx.disarm(self.slot, Timer::Resume(*request));
        }
        lost
    }

    /// Takes up a request whose stream broke (2025-11-25, Transports, Resumability).
    pub(super) fn resume(&mut self, request: RequestId, cx: &mut Cx) {
        if let Some(resume) = self.resuming.remove(&request) {
            self.get(Purpose::Request { request, opens_session: false }, resume, cx);
        }
    }

    /// Drops everything under way.
    pub(super) fn abandon_all(&mut self, cx: &mut Cx) {
        for fetch in self.exchanges.keys().copied().collect::<Vec<_>>() {
            self.drop_exchange(fetch, cx);
        }
        for request in core::mem::take(&mut self.resuming).into_keys() {
            cx.disarm(self.slot, Timer::Resume(request));
        }
        cx.disarm(self.slot, Timer::Listen);
        self.listening = Listening::Never;
    }

    /// Drops everything under way. Ends the session, if there is one: then `true`, and [`Heard::Gone`] follows.
    pub(super) fn close(&mut self, cx: &mut Cx) -> bool {
        self.abandon_all(cx);
        if self.session.is_none() {
            return false;
        }
        self.send(Purpose::Farewell, Sent::empty(Method::DELETE, limits::STOP_GRACE), Resume::default(), cx);
        true
    }

    /// Something of a fetch.
    pub(super) fn handle(&mut self, fetch: FetchId, event: FetchEvent, cx: &mut Cx) -> Vec<Heard> {
        if !self.exchanges.contains_key(&fetch) {
            return Vec::new();
        }
        match event {
            FetchEvent::Head { status, headers } => self.head(fetch, status, &headers, cx),
            FetchEvent::Chunk(bytes) => self.chunk(fetch, &bytes, cx),
            FetchEvent::End => self.ended(fetch, None, cx),
            FetchEvent::Failed(error) => self.ended(fetch, Some(error), cx),
        }
    }

    fn head(&mut self, fetch: FetchId, status: StatusCode, headers: &HeaderMap, cx: &mut Cx) -> Vec<Heard> {
        if status.is_redirection() {
            return self.redirected(fetch, status, headers, cx);
        }
        let Some(exchange) = self.exchanges.get_mut(&fetch) else { return Vec::new() };
        let sent = exchange.sent.take();
        // 2025-11-25, Transports, Session Management: 404 to a request with a session id means a new session. (Some
        // answer so to a GET because they have no such stream.)
        let ended = status == StatusCode::NOT_FOUND
            && exchange.session.is_some()
            && (exchange.purpose != Purpose::Listen || self.listened);
        let mut heard = Vec::new();
        match exchange.purpose {
            Purpose::Request { request, .. } if status.is_success() && media(headers) == "text/html" => {
                self.drop_exchange(fetch, cx);
                return denied(request, code::INTERNAL_ERROR, NOT_MCP.to_string());
            }
            Purpose::Request { opens_session: true, .. } if status.is_success() => {
                self.session = headers.get(header::SESSION_ID).cloned();
                self.sessions = self.sessions.saturating_add(1);
            }
            Purpose::Listen if status.is_success() => {
                self.listened = true;
                heard.push(Heard::Listens);
                self.listen_backoff.connected(cx.now.instant);
            }
            Purpose::Request { .. } | Purpose::Note | Purpose::Listen if ended => {
                let is_new = exchange.session == Some(self.sessions) && self.session.is_some();
                let refused = match exchange.purpose {
                    Purpose::Request { request, .. } => Some((request, body_of_post(sent))),
                    _ => None,
                };
                self.drop_exchange(fetch, cx);
                return Vec::from([Heard::SessionEnded { refused, is_new }]);
            }
            Purpose::Listen => {
                tracing::debug!(status = status.as_u16(), "server has no stream for notifications");
                self.listening = Listening::Never;
                self.drop_exchange(fetch, cx);
                return Vec::new();
            }
            Purpose::Note if !status.is_success() => {
                tracing::debug!(status = status.as_u16(), "server refused a notification");
            }
            Purpose::Request { .. } | Purpose::Note | Purpose::Farewell | Purpose::Answered => {}
        }
        exchange.reading = match exchange.purpose {
            Purpose::Request { .. } | Purpose::Listen if status.is_success() => body_of(headers),
            Purpose::Request { .. } => Reading::Problem { status, body: BytesMut::new() },
            Purpose::Listen | Purpose::Note | Purpose::Farewell | Purpose::Answered => Reading::Nothing,
        };
        heard
    }

    /// The server is elsewhere. 307 and 308 ask for the same request there (RFC 9110 sections 15.4.8 and 15.4.9): a
    /// server that redirects has not done anything with it. Followed once, and only within the origin: the entry's
    /// headers, with their secrets, go nowhere else.
    fn redirected(&mut self, fetch: FetchId, status: StatusCode, headers: &HeaderMap, cx: &mut Cx) -> Vec<Heard> {
        let Some(exchange) = self.exchanges.remove(&fetch) else { return Vec::new() };
        cx.abort(fetch);
        let place = headers.get(LOCATION).and_then(|location| location.to_str().ok());
        let keeps_method = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        let place =
            Url::parse(&self.url).ok().zip(place).and_then(|(here, place)| Some((here.join(place).ok()?, here)));
        let Exchange { purpose, resume, sent, redirected, .. } = exchange;
        let near = place.as_ref().filter(|(there, here)| keeps_method && !redirected && within_origin(there, here));
        if let Some(((there, _), sent)) = near.zip(sent) {
            tracing::debug!(status = status.as_u16(), "server moved within its origin");
            self.url = there.to_string();
            let again = self.send(purpose, sent, resume, cx);
            if let Some(exchange) = self.exchanges.get_mut(&again) {
                exchange.redirected = true;
            }
            if purpose == Purpose::Listen {
                self.listening = Listening::Open(again);
            }
            return Vec::new();
        }
        match purpose {
            Purpose::Request { request, .. } => {
                let place = place.map_or_else(|| "nowhere".to_string(), |(there, _)| place_text(there));
                let reason = format!("it answered {status}, which leads to {place}: is the `url` of its entry right?");
                denied(request, code::SERVER_UNAVAILABLE, reason)
            }
            Purpose::Listen => {
                self.listening = Listening::Never;
                Vec::new()
            }
            Purpose::Farewell => Vec::from([Heard::Gone]),
            Purpose::Note | Purpose::Answered => Vec::new(),
        }
    }

    fn chunk(&mut self, fetch: FetchId, bytes: &Bytes, cx: &mut Cx) -> Vec<Heard> {
        let Some(exchange) = self.exchanges.get_mut(&fetch) else { return Vec::new() };
        match &mut exchange.reading {
            Reading::Head | Reading::Nothing => return Vec::new(),
            Reading::Json(body) => {
                if body.len().saturating_add(bytes.len()) <= limits::MAX_MESSAGE {
                    body.extend_from_slice(bytes);
                    return Vec::new();
                }
            }
            Reading::Problem { body, .. } => {
                let room = limits::MAX_PROBLEM.saturating_sub(body.len());
                body.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
                return Vec::new();
            }
            Reading::Events(parser) => {
                if parser.push(bytes).is_ok() {
                    return self.events(fetch);
                }
            }
        }
        let purpose = exchange.purpose;
        self.drop_exchange(fetch, cx);
        match purpose {
            Purpose::Request { request, .. } => Vec::from([unanswered(request, code::TOO_LARGE, too_large())]),
            Purpose::Listen => self.listen_later(cx),
            Purpose::Note | Purpose::Farewell | Purpose::Answered => Vec::new(),
        }
    }

    /// The events that are complete.
    fn events(&mut self, fetch: FetchId) -> Vec<Heard> {
        let mut heard = Vec::new();
        let Some(exchange) = self.exchanges.get_mut(&fetch) else { return heard };
        let Reading::Events(parser) = &mut exchange.reading else { return heard };
        for event in parser.by_ref() {
            exchange.resume.attempts = 0;
            exchange.resume.retry = event.retry.or(exchange.resume.retry);
            exchange.resume.last_event = event.id.or(exchange.resume.last_event.take());
            // The first event of a resumable stream has an id and no data (2025-11-25).
            if !event.data.is_empty() {
                hear(&event.data, &mut exchange.purpose, &mut heard);
            }
        }
        heard
    }

    fn ended(&mut self, fetch: FetchId, error: Option<FetchError>, cx: &mut Cx) -> Vec<Heard> {
        let Some(mut exchange) = self.exchanges.remove(&fetch) else { return Vec::new() };
        let unreachable = matches!(error, Some(FetchError::Connect(_) | FetchError::Tls(_) | FetchError::Url(_)));
        match (exchange.purpose, error) {
            (Purpose::Farewell, _) => Vec::from([Heard::Gone]),
            (Purpose::Answered, _) => Vec::new(),
            (_, Some(error)) if unreachable => Vec::from([Heard::Lost(error.to_string())]),
            (Purpose::Note, _) => Vec::new(),
            (Purpose::Listen, _) => self.listen_later(cx),
            (Purpose::Request { request, .. }, error) => match exchange.reading {
                Reading::Events(_) if exchange.session != self.session_number() => {
                    Vec::from([unanswered(request, code::SERVER_UNAVAILABLE, SESSION_LOST)])
                }
                Reading::Events(_) => self.resume_later(request, exchange.resume, error, cx),
                Reading::Json(body) if error.is_none() => {
                    let mut heard = Vec::new();
                    hear(&body.freeze(), &mut exchange.purpose, &mut heard);
                    if exchange.purpose != Purpose::Answered {
                        heard.push(unanswered(request, code::INTERNAL_ERROR, "its answer is no JSON-RPC message"));
                    }
                    heard
                }
                Reading::Problem { status, body } => problem(request, status, body.freeze(), &self.veil),
                Reading::Nothing if error.is_none() => {
                    Vec::from([unanswered(request, code::INTERNAL_ERROR, "it answered without an answer's body")])
                }
                Reading::Head | Reading::Json(_) | Reading::Nothing => {
                    let reason = error.map_or_else(|| "its answer is missing".to_string(), |error| error.to_string());
                    Vec::from([unanswered(request, code::SERVER_UNAVAILABLE, reason)])
                }
            },
        }
    }

    /// Waits, then asks for the rest of a broken stream, if the server said where it stands.
    fn resume_later(
        &mut self,
        request: RequestId,
        mut resume: Resume,
        error: Option<FetchError>,
        cx: &mut Cx,
    ) -> Vec<Heard> {
        if self.is_modern() || resume.last_event.is_none() || resume.attempts >= limits::MAX_RESUMPTIONS {
            let why = error.map_or_else(|| "its stream ended".to_string(), |error| error.to_string());
            let reason = format!("no answer came before {why}");
            return Vec::from([unanswered(request, code::SERVER_UNAVAILABLE, reason)]);
        }
        resume.attempts += 1;
        let wait = resume.retry.unwrap_or(LISTEN_FIRST).clamp(RESUME_MIN, limits::RECONNECT_MAX);
        cx.arm(self.slot, Timer::Resume(request), wait);
        // A server that says when to come back has closed the stream on purpose.
        if resume.retry.is_some() {
            cx.report(Report::Pause { request, wait });
        }
        self.resuming.insert(request, resume);
        Vec::new()
    }

    fn listen_later(&mut self, cx: &mut Cx) -> Vec<Heard> {
        self.listening = Listening::No;
        self.listen_backoff.lost(cx.now.instant);
        let wait = self.listen_backoff.next(&mut cx.jitter);
        cx.arm(self.slot, Timer::Listen, wait);
        Vec::new()
    }

    fn post(&mut self, purpose: Purpose, json: Bytes, fields: HeaderMap, timeout: Duration, cx: &mut Cx) -> FetchId {
        let sent = Sent { method: Method::POST, fields, body: json, timeout };
        self.send(purpose, sent, Resume::default(), cx)
    }

    fn get(&mut self, purpose: Purpose, resume: Resume, cx: &mut Cx) -> FetchId {
        self.send(purpose, Sent::empty(Method::GET, limits::HTTP_NOTE_TIMEOUT), resume, cx)
    }

    fn send(&mut self, purpose: Purpose, sent: Sent, resume: Resume, cx: &mut Cx) -> FetchId {
        self.bound_answered(cx);
        let Sent { method, fields, body, timeout } = sent;
        let mut headers = self.request_headers(&method, resume.last_event.as_deref());
        headers.extend(fields.clone());
        let session = self.session_number();
        let is_kept = body.len() <= limits::MAX_KEPT_REQUEST;
        let sent = is_kept.then(|| Sent { method: method.clone(), fields, body: body.clone(), timeout });
        // Event streams may be as long as they like: each event is bounded when it is read.
        let url = self.url.clone();
        let request = Fetch { method, url, headers, body, timeout, max_body: usize::MAX, reach: Reach::Anywhere };
        let fetch = cx.fetch(self.slot, request);
        self.exchanges
            .insert(fetch, Exchange { purpose, reading: Reading::Head, resume, sent, redirected: false, session });
        fetch
    }

    fn session_number(&self) -> Option<u32> {
        self.session.as_ref().map(|_| self.sessions)
    }

    fn request_headers(&self, method: &Method, last_event: Option<&str>) -> HeaderMap {
        let mut headers = self.headers.clone();
        let mut set = |name: &'static str, value| drop(headers.insert(HeaderName::from_static(name), value));
        match *method {
            Method::POST => {
                set(ACCEPT.as_str(), HeaderValue::from_static("application/json, text/event-stream"));
                set(CONTENT_TYPE.as_str(), HeaderValue::from_static("application/json"));
            }
            Method::GET => set(ACCEPT.as_str(), HeaderValue::from_static("text/event-stream")),
            _ => {}
        }
        if let Some(session) = &self.session {
            set(header::SESSION_ID, session.clone());
        }
        if let Some(version) = self.version {
            set(header::PROTOCOL_VERSION, HeaderValue::from_static(version.as_str()));
        }
        if let Some(id) = last_event.and_then(|id| HeaderValue::from_bytes(id.as_bytes()).ok()) {
            set(header::LAST_EVENT_ID, id);
        }
        headers
    }

    /// Streams that stay open after their answer are not kept without bound.
    fn bound_answered(&mut self, cx: &mut Cx) {
        let answered =
            |(fetch, exchange): (&FetchId, &Exchange)| (exchange.purpose == Purpose::Answered).then_some(*fetch);
        let open: Vec<FetchId> = self.exchanges.iter().filter_map(answered).collect();
        for fetch in open.iter().take(open.len().saturating_sub(limits::MAX_LINGERING)) {
            self.drop_exchange(*fetch, cx);
        }
    }

    fn drop_exchange(&mut self, fetch: FetchId, cx: &mut Cx) {
        self.exchanges.remove(&fetch);
        cx.abort(fetch);
    }
}

/// Between two attempts to open a stream, unless the server says how long.
const LISTEN_FIRST: Duration = Duration::from_secs(1);

/// However short a server wants it: a stream that always ends at once must not keep both sides busy.
const RESUME_MIN: Duration = Duration::from_millis(100);

/// The entry's header fields as the HTTP library has them. The configuration was checked; what is not a header is left
/// out and said.
fn entry_headers(entry: &BTreeMap<String, Secret>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in entry {
        let field = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value.expose()).ok());
        match field {
            Some((name, mut value)) => {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
            None => tracing::warn!(header = name.as_str(), "not an HTTP header: left out"),
        }
    }
    headers
}

/// How the body of a successful answer is read.
fn body_of(headers: &HeaderMap) -> Reading {
    match media(headers).as_str() {
        "application/json" => Reading::Json(BytesMut::new()),
        "text/event-stream" => Reading::Events(sse::Parser::new(limits::MAX_MESSAGE)),
        _ => Reading::Nothing,
    }
}

fn media(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether `there` is at the very server that `here` is at.
fn within_origin(there: &Url, here: &Url) -> bool {
    there.origin() == here.origin() && there.username().is_empty() && there.password().is_none()
}

/// A URL for people: without what may be secret.
fn place_text(mut url: Url) -> String {
    url.set_query(None);
    url.set_fragment(None);
    // A URL that can have neither has nothing to hide.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    people(url.as_str(), limits::MAX_QUOTE)
}

/// What may be sent again: a POST that was turned away; to resume a stream is nothing new.
fn body_of_post(sent: Option<Sent>) -> Option<Bytes> {
    sent.filter(|sent| sent.method == Method::POST).map(|sent| sent.body)
}

pub(super) const SESSION_LOST: &str = "its session ended before its answer came";
const NOT_MCP: &str = "it answered with a web page (text/html), not MCP: is the `url` of its entry right?";

/// The messages of one JSON text. Once the request has its answer, the exchange awaits nothing more.
fn hear(text: &Bytes, purpose: &mut Purpose, heard: &mut Vec<Heard>) {
    let on = match *purpose {
        Purpose::Request { request, .. } => Some(request),
        Purpose::Note | Purpose::Listen | Purpose::Farewell | Purpose::Answered => None,
    };
    for (message, json) in messages(text) {
        let answers = matches!(&message, Message::Response { id, .. }
            if id.as_ref().is_none_or(|id| id.as_number().map(RequestId) == on));
        match (answers, on, message) {
            // An error whose sender could not read the id answers the request of its own exchange.
            (true, Some(request), Message::Response { outcome, .. }) => {
                *purpose = Purpose::Answered;
                let id = Some(crate::rpc::RawId::from_number(request.0));
                heard.push(Heard::Message { message: Message::Response { id, outcome }, json, on });
            }
            (_, _, message) => heard.push(Heard::Message { message, json, on }),
        }
    }
}

/// A request was answered with an error status: the body's JSON-RPC error if it has one, else the status.
fn problem(request: RequestId, status: StatusCode, body: Bytes, veil: &Veil) -> Vec<Heard> {
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        let reason = format!("it answered {status}: set what it wants under `headers` of its entry");
        return denied(request, code::SERVER_UNAVAILABLE, reason);
    }
    let mut purpose = Purpose::Request { request, opens_session: false };
    let mut heard = Vec::new();
    hear(&body, &mut purpose, &mut heard);
    if purpose == Purpose::Answered {
        return heard;
    }
    let text = veil.hide(&String::from_utf8_lossy(body.get(..limits::MAX_QUOTED).unwrap_or(&body)));
    let text = people(&text, limits::MAX_QUOTE);
    let colon = if text.is_empty() { "" } else { ": " };
    Vec::from([unanswered(request, code::SERVER_UNAVAILABLE, format!("it answered {status}{colon}{text}"))])
}

fn denied(request: RequestId, code: i64, reason: String) -> Vec<Heard> {
    Vec::from([Heard::Denied(reason.clone()), unanswered(request, code, reason)])
}

fn unanswered(request: RequestId, code: i64, reason: impl Into<String>) -> Heard {
    Heard::Unanswered { request, code, reason: reason.into() }
}

fn too_large() -> String {
    format!("its answer is larger than {} bytes", limits::MAX_MESSAGE)
}
