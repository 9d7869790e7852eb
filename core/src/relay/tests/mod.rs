//! What a shard and a gate do: given, when, then all actions, none left over.

mod aggregate;
mod audit;
mod batches;
mod beside;
mod calls;
mod catalogs;
mod devices;
mod edges;
mod eras;
mod feeds;
mod gate;
mod gate_edges;
mod gather;
mod isolation;
mod kit;
mod left;
mod listeners;
mod modern;
mod modern_gate;
mod questions;
mod random;
mod replay;
mod scopes;
mod shards;
mod standing;
mod subscriptions;
mod table;
mod table_batches;
mod table_gathers;
mod table_lives;
mod table_questions;
mod table_resumption;
mod table_standing;
mod used;
mod words;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use super::shard::{Action, Event, Shard};
use super::{Accepts, Content, Endpoint, Item, Listen, Note, Post, Request, Session, SessionKey, Settings, Speaker};
use crate::config::{Local, Login, Naming, RelayConfig, RelayLimits};
use crate::entropy::Seeded;
use crate::host::Machine;
use crate::id::{ClientId, ConnId, DeviceId, DeviceName, ExchangeId, FamilyId, StreamId, UserId};
use crate::mcp::{Version, method};
use crate::oauth::scopes::Scopes;
use crate::oauth::{Principal, Role};
use crate::rpc::{self, Message};
use crate::time::{Instant, Now, UnixTime};
use crate::tunnel::{self, Command, Dialect, Outcome};

pub(super) fn config() -> RelayConfig {
    RelayConfig {
        audit: None,
        login: Login::Local(Local { users: Vec::new() }),
        host: "127.0.0.1".into(),
        port: 3000,
        public_url: Some("https://relay.example".into()),
        secrets: Vec::new(),
        state_dir: None,
        clients: crate::config::Clients::default(),
        naming: Naming::Auto,
        token_in_query: false,
        allowed_origins: std::vec!["https://app.example".into()],
        trusted_proxies: Vec::new(),
        tls: None,
        limits: RelayLimits { max_body: 1 << 20, ..RelayLimits::default() },
    }
}

pub(super) fn principal(user: &str, role: Role) -> Principal {
    Principal {
        user: UserId::new(user),
        client: ClientId::new("client"),
        actor: "client".into(),
        role,
        audience: format!("https://relay.example{}", role.path()),
        scopes: Scopes::all(role),
        family: FamilyId::new("client-family"),
        expires: UnixTime::from_secs(10_000),
        family_expires: UnixTime::from_secs(20_000),
    }
}

/// A shard, its time, and who talks to it.
struct World {
    shard: Shard,
    now: Now,
    exchanges: u64,
    user: &'static str,
    session: &'static str,
    /// The grant of the client.
    family: &'static str,
    /// When the session was begun, in seconds.
    began: u64,
    endpoint: Endpoint,
    accepts: Accepts,
    /// A version without sessions: the client is none's.
    version: Version,
    /// The header fields that repeat a tool's parameters.
    mirrored: HeaderMap,
    /// Where the next GET says that its stream broke.
    last_event: Option<String>,
    /// Whether the ids of events are shown.
    shows_ids: bool,
    /// Under which name the user is audited.
    audit: Option<Arc<str>>,
    scopes: Scopes,
    /// All that came out so far.
    told: Vec<String>,
}

impl World {
    fn new() -> Self {
        Self::with(&config())
    }

    fn with(config: &RelayConfig) -> Self {
        let settings = Settings::from_config(config, "https://relay.example");
        Self {
            shard: Shard::new(Arc::new(settings), Box::new(Seeded::new(1))),
            now: Now { instant: Instant::from_micros(1_000_000_000), unix: UnixTime::from_secs(1_000) },
            exchanges: 0,
            user: "ann",
            session: "s",
            family: "client-family",
            began: 0,
            endpoint: Endpoint::All,
            accepts: Accepts::Either,
            version: Version::V2025_06_18,
            mirrored: HeaderMap::new(),
            last_event: None,
            shows_ids: false,
            audit: None,
            scopes: Scopes::all(Role::Client),
            told: Vec::new(),
        }
    }

    /// A world with the device `laptop` on connection 1, whose server `files` has the tools `read` and `write`.
    fn ready() -> Self {
        let mut world = Self::new();
        world.up(1, "laptop", Some("id-1"));
        world.catalog(1, &files());
        world.drain();
        world
    }

    fn event(&mut self, event: Event) {
        kit::note(&event);
        self.shard.handle_event(event, self.now);
    }

    /// All actions, but for what is told of grants' use: that is a test of its own.
    fn drain(&mut self) -> Vec<String> {
        let shows_ids = self.shows_ids;
        let actions = core::iter::from_fn(|| self.shard.poll_action());
        let told = actions.filter(|action| !matches!(action, Action::Used { .. })).map(|action| show(&action));
        let told: Vec<_> = told.map(|action| if shows_ids { action } else { without_id(&action) }).collect();
        self.told.extend_from_slice(&told);
        told
    }

    fn advance(&mut self, by: Duration) -> Vec<String> {
        crate::table::given("time");
        self.now = Now { instant: self.now.instant + by, unix: self.now.unix + by };
        self.shard.handle_timeout(self.now);
        self.drain()
    }

    fn up(&mut self, conn: u64, device: &str, id: Option<&str>) {
        let dialect = if id.is_some() { Dialect::V2 } else { Dialect::V1 };
        self.up_as(conn, device, id, dialect, &format!("family-{conn}"));
    }

    fn up_as(&mut self, conn: u64, device: &str, id: Option<&str>, dialect: Dialect, family: &str) {
        self.event(Event::TunnelUp {
            conn: ConnId(conn),
            user: UserId::new(self.user),
            device: DeviceName::new(device),
            device_id: id.map(DeviceId::new),
            family: FamilyId::new(family),
            expires: UnixTime::from_secs(30_000),
            dialect,
            audit: self.audit.clone(),
        });
    }

    fn catalog(&mut self, conn: u64, json: &str) {
        self.tunnel(conn, tunnel::Event::Catalog(Bytes::copy_from_slice(json.as_bytes())));
    }

    fn tunnel(&mut self, conn: u64, event: tunnel::Event) {
        self.event(Event::Tunnel { conn: ConnId(conn), event });
    }

    fn post(&mut self, json: &str) -> Vec<String> {
        let body = Bytes::copy_from_slice(json.as_bytes());
        let content = match rpc::parse(&body).unwrap() {
            Message::Request { id, method, params } => Content::Request(Request { id, method, params }),
            Message::Notification { method, params } if &*method == method::CANCELLED => {
                Content::Note(Note::Cancelled { params })
            }
            Message::Notification { method, params } => {
                Content::Note(Note::Notification { method, params, json: body })
            }
            Message::Response { id, .. } => Content::Note(Note::Answer { id: id.unwrap(), json: body }),
        };
        self.content(content)
    }

    fn content(&mut self, content: Content) -> Vec<String> {
        self.exchanges += 1;
        let post = Post {
            exchange: ExchangeId(self.exchanges),
            principal: self.principal(),
            endpoint: self.endpoint.clone(),
            speaker: self.speaker(),
            accepts: self.accepts,
            headers: HeaderMap::new(),
            audit: self.audit.clone(),
            content,
        };
        self.event(Event::Post(post));
        self.drain()
    }

    fn listen(&mut self) -> Vec<String> {
        self.exchanges += 1;
        let listen = Listen {
            exchange: ExchangeId(self.exchanges),
            principal: self.principal(),
            endpoint: self.endpoint.clone(),
            session: self.session(),
            last_event: self.last_event.take(),
            headers: HeaderMap::new(),
        };
        self.event(Event::Listen(listen));
        self.drain()
    }

    fn principal(&self) -> Arc<Principal> {
        let family = FamilyId::new(self.family);
        Arc::new(Principal { scopes: self.scopes.clone(), family, ..principal(self.user, Role::Client) })
    }

    fn speaker(&self) -> Speaker {
        if self.version.is_legacy() {
            return Speaker::Legacy(self.session());
        }
        Speaker::Modern { version: self.version, client: "Cursor 2".into(), mirrored: self.mirrored.clone() }
    }

    fn session(&self) -> Arc<Session> {
        Arc::new(Session {
            key: SessionKey(Arc::from(self.session)),
            version: self.version,
            client: "Cursor 1".into(),
            capabilities: Arc::default(),
            expires: UnixTime::from_secs(self.began) + crate::limits::SESSION_LIFETIME,
        })
    }

    /// Calls `files__read` with request id `id`.
    fn call(&mut self, id: u32) -> Vec<String> {
        self.post(&call("files__read", id))
    }

    fn error(&mut self, conn: u64, stream: u32, code: i64, text: &str) -> Vec<String> {
        let stream = StreamId(stream);
        self.tunnel(conn, tunnel::Event::Answer { stream, outcome: Outcome::Error { code }, length: None });
        self.data(conn, stream.0, text, true)
    }

    fn answer(&mut self, conn: u64, stream: u32, length: Option<u64>) -> Vec<String> {
        let stream = StreamId(stream);
        self.tunnel(conn, tunnel::Event::Answer { stream, outcome: Outcome::Result, length });
        self.drain()
    }

    fn data(&mut self, conn: u64, stream: u32, text: &str, end: bool) -> Vec<String> {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        self.tunnel(conn, tunnel::Event::Data { stream: StreamId(stream), bytes, end });
        self.drain()
    }

    fn progress(&mut self, conn: u64, stream: u32) -> Vec<String> {
        let json = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/progress"}"#);
        self.tunnel(conn, tunnel::Event::Message { stream: StreamId(stream), json, credit: 51 });
        self.drain()
    }

    /// A server's message in a call of connection 1.
    fn said(&mut self, stream: u32, json: &str) -> Vec<String> {
        let json = Bytes::copy_from_slice(json.as_bytes());
        self.tunnel(1, tunnel::Event::Message { stream: StreamId(stream), json, credit: 9 });
        self.drain()
    }

    fn gone(&mut self, exchange: u64) -> Vec<String> {
        self.event(Event::Gone { exchange: ExchangeId(exchange) });
        self.drain()
    }

    /// The result of a request that is answered at once.
    fn ask(&mut self, json: &str) -> serde_json::Value {
        let actions = self.post(json);
        let [action] = actions.as_slice() else { panic!("more than a reply: {actions:?}") };
        let json = action.splitn(4, ' ').nth(3).unwrap();
        serde_json::from_str(json).unwrap()
    }
}

pub(super) fn call(tool: &str, id: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"n":1.0}}}}}}"#
    )
}

fn files() -> String {
    whole(&[server("files", &["read", "write"])])
}

fn whole(servers: &[String]) -> String {
    format!(r#"{{"whole":true,"servers":[{}]}}"#, servers.join(","))
}

fn server(name: &str, tools: &[&str]) -> String {
    let tools: Vec<_> = tools
        .iter()
        .map(|tool| format!(r#"{{"name":"{tool}","description":"Tool {tool}","inputSchema":{{"type":"object"}}}}"#))
        .collect();
    format!(r#"{{"name":"{name}","state":"ready","tools":[{}]}}"#, tools.join(","))
}

/// The same without the id of an event.
fn without_id(action: &str) -> String {
    match action.split_once("\\nid: ").and_then(|(before, rest)| Some((before, rest.split_once("\\n")?.1))) {
        Some((before, after)) => format!("{before}\\n{after}"),
        None => action.to_string(),
    }
}

/// An action in a line.
fn show(action: &Action) -> String {
    let text = |bytes: &Bytes| core::str::from_utf8(bytes).unwrap().to_string();
    match action {
        Action::Reply { exchange, reply } => {
            format!("reply {exchange} {} {}", reply.status.as_u16(), text(&reply.body))
        }
        Action::Begin { exchange, head, source } => {
            let kind = head.headers["content-type"].to_str().unwrap();
            let kind = if kind == "text/event-stream" { "events" } else { "json" };
            let length = head.length.map_or(String::new(), |length| format!(" of {length}"));
            let source = source.map_or(String::new(), |(conn, stream)| format!(" from {conn}/{stream}"));
            format!("begin {exchange} {kind}{length}{source}")
        }
        Action::Body { exchange, bytes, credit } => format!("body {exchange} +{credit} {:?}", text(bytes)),
        Action::Finish { exchange } => format!("finish {exchange}"),
        Action::Abort { exchange } => format!("abort {exchange}"),
        Action::Tunnel { conn, command } => format!("tunnel {conn} {}", show_command(command)),
        Action::Used { family } => format!("used {family}"),
        Action::Audit(line) => format!("audit {}", text(line)),
    }
}

fn show_command(command: &Command) -> String {
    match command {
        Command::Open { stream, head, params, v1_tool } => {
            let params = core::str::from_utf8(params).unwrap();
            let v1 = v1_tool.as_ref().map_or(String::new(), |tool| format!(" v1 {tool}"));
            assert_eq!(head.length, params.len() as u64);
            format!("open {stream} {} {} {params}{v1}", head.server, head.method)
        }
        Command::Consumed { stream, bytes } => format!("consumed {stream} {bytes}"),
        Command::Cancel { stream, params, .. } => {
            format!("cancel {stream} {}", core::str::from_utf8(params).unwrap())
        }
        Command::Reset { stream, code, .. } => format!("reset {stream} {code:?}"),
        Command::Restart { server } => format!("restart {server:?}"),
        Command::Close(close) => format!("close {:?}", close.code),
        Command::Message { stream, json, droppable } => {
            let json = core::str::from_utf8(json).unwrap();
            format!("message {stream} {json}{}", if *droppable { " droppable" } else { "" })
        }
        Command::ClientNotice { session, server, json } => {
            let json = core::str::from_utf8(json).unwrap();
            format!("notice of {session} to {} {json}", server.as_deref().unwrap_or("all"))
        }
        Command::SessionEnded { session } => format!("session ended {session}"),
        other => format!("{other:?}"),
    }
}

/// The code and the reason of the error in a reply.
fn failure(action: &str) -> (i64, String) {
    let start = action.find('{').unwrap();
    let end = action.rfind('}').unwrap();
    let text = action[start..=end].replace("\\\"", "\"").replace("\\\\", "\\");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    (json["error"]["code"].as_i64().unwrap(), json["error"]["data"]["reason"].as_str().unwrap_or_default().to_string())
}
