//! MCP clients: requests as a real client makes them, and what came back.

use std::collections::VecDeque;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use tunnel_core::http::Reply;
use tunnel_core::http::RequestHead;
use tunnel_core::id::{ConnId, ExchangeId, StreamId};
use tunnel_core::limits;
use tunnel_core::mcp::{header, key};
use tunnel_core::tunnel::Command;

use crate::sabotage::Sabotage;
use crate::seen::Seen;
use crate::world::World;

/// One request and what came back so far.
#[derive(Debug, Clone, Default)]
pub struct Exchange {
    /// The status, once the head came.
    pub status: Option<StatusCode>,
    /// Header fields.
    pub headers: HeaderMap,
    /// The announced length.
    pub length: Option<u64>,
    /// What the client took of the body.
    pub body: Vec<u8>,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
    /// When it ended, in microseconds of the world's clock.
    pub ended_at: u64,
    /// A slow client: pieces wait here until `reading` again.
    pub unread: VecDeque<(Bytes, u32)>,
    /// Whether the client takes the body as it comes.
    pub reading: bool,
    /// Where credit goes back to.
    pub source: Option<(ConnId, StreamId)>,
    /// How much waits, in bytes.
    pub waiting: usize,
    /// Whether the relay has said its last word, though the client may not have read it yet.
    pub(crate) finished: Option<Outcome>,
}

/// What modern clients speak.
const MODERN: &str = "2026-07-28";

/// A whole answer in one piece, beside the pieces that wait.
const WHOLE: usize = 32 << 20;

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The reply is complete.
    Complete,
    /// The transport was cut.
    Aborted,
}

impl Exchange {
    /// A piece came. Of an answer that a tunnel's stream feeds, no more waits than its credit and a little.
    pub(crate) fn push(&mut self, bytes: Bytes, credit: u32) {
        self.waiting += bytes.len();
        self.unread.push_back((bytes, credit));
        assert!(self.waiting <= limits::MAX_UNTAKEN + WHOLE, "{} bytes wait for a client", self.waiting);
    }

    /// The messages of a reply: the JSON body, or the events of a stream so far.
    ///
    /// # Panics
    ///
    /// When the body is neither: a relay never sends that.
    #[must_use]
    pub fn messages(&self) -> Vec<Value> {
        if !self.is_stream() {
            return serde_json::from_slice(&self.body).into_iter().collect();
        }
        let text = std::str::from_utf8(&self.body).expect("an event stream is UTF-8");
        let events = text.split_inclusive("\n\n").filter(|event| event.ends_with("\n\n"));
        events
            .filter_map(|event| {
                let data: Vec<_> = event.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim).collect();
                (!data.concat().is_empty()).then(|| serde_json::from_str(&data.join("\n")).expect("data is JSON"))
            })
            .collect()
    }

    /// Whether the reply is an event stream.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
    }

    /// The final answer: the last message, which has a `result` or an `error`.
    #[must_use]
    pub fn answer(&self) -> Option<Value> {
        self.answers().into_iter().next()
    }

    /// Every message that is a final answer; there must not be two.
    #[must_use]
    pub fn answers(&self) -> Vec<Value> {
        let is_answer = |message: &Value| message.get("result").is_some() || message.get("error").is_some();
        self.messages().into_iter().filter(is_answer).collect()
    }

    /// The id of the last event of a stream that has one.
    #[must_use]
    pub fn last_event(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.body);
        let whole = &text[..text.rfind("\n\n")?];
        whole.lines().rev().find_map(|line| Some(line.strip_prefix("id:")?.trim().to_owned()))
    }

    /// How many comment heartbeats came.
    #[must_use]
    pub fn heartbeats(&self) -> usize {
        String::from_utf8_lossy(&self.body).lines().filter(|line| line.starts_with(':')).count()
    }
}

/// An MCP client with a token and, after `initialize`, a session; or a modern one, which has none.
#[derive(Debug, Clone)]
pub struct Client {
    token: String,
    is_modern: bool,
    /// What it asks to speak in a handshake.
    version: &'static str,
    session: Option<String>,
    path: String,
    next_id: u64,
}

impl Client {
    /// A client that holds `token` and talks to `/mcp`.
    #[must_use]
    pub fn new(token: &str) -> Self {
        let (token, path) = (token.to_owned(), "/mcp".to_owned());
        Self { token, is_modern: false, version: "2025-11-25", session: None, path, next_id: 1 }
    }

    /// The same of another revision, which has a handshake.
    #[must_use]
    pub fn speaking(self, version: &'static str) -> Self {
        Self { version, ..self }
    }

    /// The same of the modern era, which initializes nothing.
    #[must_use]
    pub fn modern(token: &str) -> Self {
        Self { is_modern: true, ..Self::new(token) }
    }

    /// The same client at another path.
    #[must_use]
    pub fn at(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// The same client, session and all, with another token.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    /// Initializes a session.
    ///
    /// # Panics
    ///
    /// When the relay does not answer as the protocol says.
    pub fn initialize(&mut self, world: &mut World) -> Value {
        let exchange = self.ask_for_session(world);
        let reply = world.finish(exchange);
        assert!(self.initialized(&reply), "no session: {reply:?}");
        let answer = reply.answer().expect("initialize is answered");
        self.notify(world, "notifications/initialized", &json!({}));
        answer["result"].clone()
    }

    /// Asks for a session; to be brought to [`initialized`](Self::initialized) once it is answered.
    pub fn ask_for_session(&mut self, world: &mut World) -> ExchangeId {
        self.session = None;
        let params = json!({
            "protocolVersion": self.version, "capabilities": {"sampling": {}, "roots": {"listChanged": true}},
            "clientInfo": {"name": "world", "version": "1"},
        });
        self.request(world, "initialize", &params)
    }

    /// The session, if that is what came.
    pub fn initialized(&mut self, reply: &Exchange) -> bool {
        let session = reply.headers.get("mcp-session-id").and_then(|session| session.to_str().ok());
        self.session = session.map(str::to_owned);
        self.session.is_some()
    }

    /// Whether it can make requests: it is modern, or has a session.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_modern || self.session.is_some()
    }

    /// Its session, if it has one.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// Whether it is of the modern era.
    #[must_use]
    pub fn is_modern(&self) -> bool {
        self.is_modern
    }

    /// Sends a request; its exchange goes on while the world does.
    pub fn request(&mut self, world: &mut World, method: &str, params: &Value) -> ExchangeId {
        let id = self.next_id;
        self.next_id += 1;
        let mut params = params.clone();
        if self.is_modern {
            params["_meta"][key::VERSION] = json!(MODERN);
            params["_meta"][key::CLIENT_INFO] = json!({"name": "world", "version": "1"});
            params["_meta"][key::CLIENT_CAPABILITIES] = json!({"sampling": {}});
        }
        self.post(world, &json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
    }

    /// An id for a request that the caller puts together.
    pub fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// The id that the next request will carry.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Calls a tool; its exchange goes on while the world does.
    pub fn call(&mut self, world: &mut World, tool: &str, arguments: &Value) -> ExchangeId {
        self.request(world, "tools/call", &json!({"name": tool, "arguments": arguments}))
    }

    /// Calls a tool and waits for its answer: the whole JSON-RPC message.
    ///
    /// # Panics
    ///
    /// When none comes.
    pub fn call_now(&mut self, world: &mut World, tool: &str, arguments: &Value) -> Value {
        let exchange = self.call(world, tool, arguments);
        let reply = world.finish(exchange);
        reply.answer().unwrap_or_else(|| panic!("no answer: {reply:?}"))
    }

    /// The names of all listed tools.
    ///
    /// # Panics
    ///
    /// When the list is not one.
    pub fn tools(&mut self, world: &mut World) -> Vec<String> {
        self.tool_objects(world)
            .iter()
            .map(|tool| tool["name"].as_str().expect("a tool has a name").to_owned())
            .collect()
    }

    /// All listed tools.
    ///
    /// # Panics
    ///
    /// When the list is not one.
    pub fn tool_objects(&mut self, world: &mut World) -> Vec<Value> {
        let exchange = self.request(world, "tools/list", &json!({}));
        let reply = world.finish(exchange);
        let answer = reply.answer().unwrap_or_else(|| panic!("no list: {reply:?}"));
        answer["result"]["tools"].as_array().unwrap_or_else(|| panic!("a list: {answer}")).clone()
    }

    /// Sends a notification and waits until it was taken.
    ///
    /// # Panics
    ///
    /// When it was refused.
    pub fn notify(&mut self, world: &mut World, method: &str, params: &Value) {
        let exchange = self.post(world, &json!({"jsonrpc": "2.0", "method": method, "params": params}));
        assert_eq!(world.finish(exchange).status, Some(StatusCode::ACCEPTED), "{method} is taken");
    }

    /// Opens the stream of notifications.
    pub fn listen(&self, world: &mut World) -> ExchangeId {
        world.request(self.head(Method::GET), Bytes::new())
    }

    /// Takes up a stream again that broke after the event of that id.
    pub fn resume(&self, world: &mut World, last_event: &str) -> ExchangeId {
        let mut head = self.head(Method::GET);
        let id = HeaderValue::from_str(last_event).expect("an event's id is visible ASCII");
        head.headers.insert(HeaderName::from_static("last-event-id"), id);
        world.request(head, Bytes::new())
    }

    /// Sends a request to another endpoint.
    pub fn request_at(&mut self, world: &mut World, path: &str, method: &str, params: &Value) -> ExchangeId {
        let mut there = self.clone().at(path);
        let exchange = there.request(world, method, params);
        self.next_id = there.next_id;
        exchange
    }

    /// Ends the session.
    pub fn delete(&self, world: &mut World) -> ExchangeId {
        world.request(self.head(Method::DELETE), Bytes::new())
    }

    /// Posts any JSON.
    pub fn post(&self, world: &mut World, message: &Value) -> ExchangeId {
        let mut head = self.head(Method::POST);
        if self.is_modern {
            // 2026-07-28, Streamable HTTP, Standard Headers: what the body says is repeated.
            let params = &message["params"];
            let (method, name) = (message["method"].as_str(), params["name"].as_str().or(params["uri"].as_str()));
            for (field, value) in
                [(header::PROTOCOL_VERSION, Some(MODERN)), (header::METHOD, method), (header::NAME, name)]
            {
                let value = value.map(|value| HeaderValue::from_str(value).expect("a test's name is ASCII"));
                head.headers.extend(value.map(|value| (HeaderName::from_static(field), value)));
            }
        }
        world.request(head, Bytes::from(message.to_string()))
    }

    /// Posts any bytes.
    pub fn post_raw(&self, world: &mut World, body: Bytes) -> ExchangeId {
        world.request(self.head(Method::POST), body)
    }

    fn head(&self, method: Method) -> RequestHead {
        let mut headers = HeaderMap::new();
        let mut set = |name: HeaderName, value: &str| {
            headers.insert(name, HeaderValue::from_str(value).expect("a test's header is valid"));
        };
        set(HOST, World::AUTHORITY);
        set(AUTHORIZATION, &format!("Bearer {}", self.token));
        if method == Method::POST {
            set(CONTENT_TYPE, "application/json");
            set(ACCEPT, "application/json, text/event-stream");
        } else {
            set(ACCEPT, "text/event-stream");
        }
        if let Some(session) = &self.session {
            set(HeaderName::from_static("mcp-session-id"), session);
            // 2025-03-26 has no such field.
            if self.version != "2025-03-26" {
                set(HeaderName::from_static("mcp-protocol-version"), self.version);
            }
        }
        RequestHead {
            method,
            uri: self.path.parse().expect("a test's path is valid"),
            headers,
            peer: std::net::Ipv4Addr::LOCALHOST.into(),
        }
    }
}

/// Replies, as clients take them.
impl World {
    pub(crate) fn reply(&mut self, exchange: ExchangeId, reply: Reply) {
        self.note("reply", [exchange.0, u64::from(reply.status.as_u16())], &reply.body);
        if let Some(it) = self.exchanges.get_mut(&exchange) {
            assert_eq!(it.status, None, "one reply for an exchange");
            it.status = Some(reply.status);
            it.headers = reply.headers;
            it.length = Some(reply.body.len() as u64);
            it.body = reply.body.to_vec();
        }
        self.end(exchange, Outcome::Complete);
    }

    pub(crate) fn last_word(&mut self, exchange: ExchangeId, outcome: Outcome) {
        assert!(!self.forgotten.contains(&exchange), "{exchange:?} is ended, and its client is gone");
        if let Some(it) = self.exchanges.get_mut(&exchange) {
            assert_eq!(it.finished.replace(outcome), None, "one last word for an exchange");
        }
        self.read(exchange);
    }

    /// The client of an exchange takes what waits, if it reads at all.
    pub(crate) fn read(&mut self, exchange: ExchangeId) {
        let mut taken = VecDeque::new();
        if let Some(it) = self.exchanges.get_mut(&exchange).filter(|it| it.reading) {
            taken = std::mem::take(&mut it.unread);
            it.waiting = 0;
        }
        if !taken.is_empty() && self.exchanges.get(&exchange).is_some_and(Exchange::is_stream) {
            self.saw(|| Seen::Spoke { exchange });
        }
        for (bytes, credit) in taken {
            let Some(it) = self.exchanges.get_mut(&exchange) else { return };
            it.body.extend_from_slice(&bytes);
            if let Some((conn, stream)) = it.source.filter(|_| credit > 0) {
                self.consumed(conn, stream, credit);
            }
        }
        if let Some(it) = self.exchanges.get(&exchange)
            && let (Some(outcome), None, true) = (it.finished, it.outcome, it.unread.is_empty())
        {
            let (length, body) = (it.length, it.body.len() as u64);
            let whole = length.is_none_or(|length| length == body);
            assert!(whole || outcome == Outcome::Aborted, "{length:?} announced, {body} sent");
            self.end(exchange, outcome);
        }
    }

    pub(crate) fn consumed(&mut self, conn: ConnId, stream: StreamId, bytes: u32) {
        if self.sabotage == Some(Sabotage::Stingy) && bytes % 8 == 3 {
            return;
        }
        let now = self.now();
        self.at_relay(conn, |connection| {
            connection.handle_command(Command::Consumed { stream, bytes }, now);
        });
    }

    pub(crate) fn end(&mut self, exchange: ExchangeId, outcome: Outcome) {
        if let Some(it) = self.exchanges.get_mut(&exchange) {
            assert_eq!(it.outcome.replace(outcome), None, "one end for an exchange");
            it.ended_at = self.clock;
            self.note("ended", [exchange.0, outcome as u64], &[]);
            self.saw(|| Seen::Ended { exchange, outcome });
        }
    }
}
