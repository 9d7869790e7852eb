use core::cell::RefCell;
use core::net::IpAddr;

use http::header::{HeaderName, HeaderValue};
use http::{Method, Uri};
use proptest::prelude::*;

use super::super::gate::{Admission, Gate, Step};
use super::*;
use crate::http::{Reply, RequestHead};
use crate::limits;
use crate::oauth::refusals::RefusedToken;
use crate::oauth::{self, Snapshot, token::seal_access};
use crate::relay::Opened;
use crate::seal::Sealer;

pub(super) struct Door {
    pub(super) gate: Gate,
    sealer: Sealer,
    snapshot: Snapshot,
    now: Now,
    /// All requests come over one connection, as they may behind a proxy.
    opened: RefCell<Opened>,
}

impl Door {
    pub(super) fn new() -> Self {
        Self::with(&config())
    }

    pub(super) fn with(config: &RelayConfig) -> Self {
        let sealer = Sealer::new(std::vec![Sealer::generate(&mut Seeded::new(1))]);
        let settings = Settings::from_config(config, "https://relay.example/");
        let now = Now { instant: Instant::from_micros(1), unix: UnixTime::from_secs(1_000) };
        let gate = Gate::new(Arc::new(settings));
        let families = Arc::new([principal("ann", Role::Client).family].into());
        let snapshot = Snapshot { families, ..Snapshot::new(sealer.clone()) };
        Self { gate, snapshot, sealer, now, opened: RefCell::default() }
    }

    pub(super) fn token(&self, principal: &Principal) -> String {
        format!("Bearer {}", seal_access(&self.sealer, principal, &mut Seeded::new(2)).expose())
    }

    pub(super) fn admit(&self, head: &RequestHead) -> Admission {
        self.gate.admit(head, &self.snapshot, self.now, &mut self.opened.borrow_mut())
    }

    /// The reply to a request that is answered by its head alone.
    pub(super) fn refused(&self, head: &RequestHead) -> Reply {
        match self.admit(head) {
            Admission::Reply(reply) | Admission::Refuse(RefusedToken { reply, .. }) => reply,
            other => panic!("admitted: {other:?}"),
        }
    }

    pub(super) fn accept(&self, head: RequestHead, body: &[u8]) -> Step {
        let Admission::Read { route, .. } = self.admit(&head) else { panic!("not admitted: {:?}", self.admit(&head)) };
        let body = Bytes::copy_from_slice(body);
        let opened = &mut self.opened.borrow_mut();
        self.gate.accept(ExchangeId(1), route, head, body, &self.snapshot, self.now, opened, &mut Seeded::new(3))
    }

    pub(super) fn replied(&self, head: RequestHead, body: &[u8]) -> Reply {
        match self.accept(head, body) {
            Step::Reply(reply) => reply,
            other => panic!("passed on: {other:?}"),
        }
    }

    pub(super) fn posted(&self, head: RequestHead, body: &[u8]) -> Post {
        match self.accept(head, body) {
            Step::Shard(user, Event::Post(post)) => {
                assert_eq!(user, post.principal.user);
                post
            }
            other => panic!("not posted: {other:?}"),
        }
    }

    /// A POST of a signed-in client.
    pub(super) fn post(&self) -> RequestHead {
        let token = self.token(&principal("ann", Role::Client));
        request("POST", "/mcp", &[("authorization", &token), ("content-type", "application/json"), ("accept", BOTH)])
    }

    /// A POST of a client without a handshake.
    pub(super) fn modern(&self, method: &str) -> RequestHead {
        with(with(self.post(), "mcp-protocol-version", "2026-07-28"), "mcp-method", method)
    }

    /// The same in a session of that version.
    pub(super) fn in_session(&self, version: &str) -> RequestHead {
        let body =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"{version}"}}}}"#);
        let post = self.posted(self.post(), body.as_bytes());
        assert_eq!(post.speaker.version().as_str(), version);
        let mut head = self.post();
        head.headers.insert("mcp-session-id", post.headers["mcp-session-id"].clone());
        head
    }

    fn tunnel(&self) -> RequestHead {
        let token = self.token(&principal("ann", Role::Agent));
        let mut fields = HANDSHAKE.to_vec();
        fields.push(("authorization", &token));
        request("GET", "/ws?name=my%20laptop", &fields)
    }
}

const BOTH: &str = "application/json, text/event-stream";
const HANDSHAKE: [(&str, &str); 4] = [
    ("connection", "keep-alive, Upgrade"),
    ("upgrade", "WebSocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

pub(super) fn request(method: &str, target: &str, fields: &[(&str, &str)]) -> RequestHead {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("relay.example"));
    for (name, value) in fields {
        headers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    RequestHead {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        uri: target.parse::<Uri>().unwrap(),
        headers,
        peer: IpAddr::from([192, 0, 2, 1]),
    }
}

pub(super) fn with(mut head: RequestHead, name: &'static str, value: &str) -> RequestHead {
    head.headers.insert(name, HeaderValue::from_str(value).unwrap());
    head
}

pub(super) fn without(mut head: RequestHead, name: &str) -> RequestHead {
    head.headers.remove(name);
    head
}

fn challenge(reply: &Reply) -> &str {
    reply.headers["www-authenticate"].to_str().unwrap()
}

pub(super) fn error_code(reply: &Reply) -> i64 {
    serde_json::from_slice::<serde_json::Value>(&reply.body).unwrap()["error"]["code"].as_i64().unwrap()
}

const PING: &[u8] = br#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#;

#[test]
fn health_is_told_to_whoever_asks() {
    for path in ["/healthz", "/readyz"] {
        assert_eq!(Door::new().refused(&without(request("GET", path, &[]), "host")).status, 200);
        assert_eq!(Door::new().refused(&request("POST", path, &[])).status, 405);
    }
}

#[test]
fn foreign_hosts_are_refused_everywhere_else() {
    for path in ["/", "/mcp", "/ws", "/token", "/.well-known/oauth-authorization-server", "/nothing"] {
        for host in ["[", "evil.example", "relay.example.evil.example", "", "relay.example:1"] {
            let reply = Door::new().refused(&with(request("GET", path, &[]), "host", host));
            assert_eq!(reply.status, 403, "{path} {host}");
        }
        let own = request("GET", path, &[]);
        let mut twice = own.clone();
        twice.headers.append("host", own.headers["host"].clone());
        for odd in [without(own, "host"), twice] {
            let reply = Door::new().refused(&odd);
            assert_eq!(reply.status, 400, "{path}");
            assert!(reply.body.starts_with(b"a request has one Host field"), "{path}");
        }
    }
}

#[test]
fn paths_have_their_methods() {
    let door = Door::new();
    for (path, method, allow) in [
        ("/mcp", "PUT", "GET, POST, DELETE, OPTIONS"),
        ("/mcp/files", "PATCH", "GET, POST, DELETE, OPTIONS"),
        ("/ws", "POST", "GET"),
        ("/token", "GET", "POST, OPTIONS"),
        ("/consent", "DELETE", "GET, HEAD, POST"),
        ("/authorize", "POST", "GET, HEAD"),
        ("/healthz", "POST", "GET, HEAD"),
        ("/.well-known/oauth-protected-resource", "POST", "GET, HEAD, OPTIONS"),
    ] {
        let reply = door.refused(&request(method, path, &[]));
        assert_eq!((reply.status.as_u16(), reply.headers["allow"].to_str().unwrap()), (405, allow), "{path}");
    }
    for path in [
        "/nothing",
        "/mcpx",
        "/mcp/a/b/c",
        "/mcp/%ff",
        "/.well-known/other",
        "//",
        "/.well-known/oauth-protected-resource/ws",
    ] {
        assert_eq!(door.refused(&request("GET", path, &[])).status, 404, "{path}");
    }
}

#[test]
fn discovery_documents_are_open_to_all_pages() {
    let door = Door::new();
    for (path, key, value) in [
        ("/.well-known/oauth-authorization-server", "issuer", "https://relay.example"),
        ("/.well-known/oauth-protected-resource", "resource", "https://relay.example/mcp"),
        ("/.well-known/oauth-protected-resource/mcp", "resource", "https://relay.example/mcp"),
        ("/.well-known/oauth-protected-resource/mcp/a%20b/c", "resource", "https://relay.example/mcp/a%20b/c"),
    ] {
        let reply = door.refused(&request("GET", path, &[("origin", "https://any.example")]));
        let json: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(json[key], value);
        assert_eq!(reply.headers["access-control-allow-origin"], "*");
        assert_eq!(door.refused(&request("OPTIONS", path, &[("origin", "https://any.example")])).status, 204);
    }
}

#[test]
fn sign_in_goes_to_its_machine() {
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/authorize?x=1"),
        ("POST", "/consent"),
        ("POST", "/login"),
        ("GET", "/callback"),
        ("POST", "/token"),
        ("POST", "/register"),
        ("POST", "/revoke"),
        ("GET", "/device"),
        ("POST", "/device"),
        ("POST", "/device_authorization"),
        ("POST", "/introspect"),
    ] {
        let door = Door::new();
        let head = request(method, path, &[]);
        assert!(matches!(door.admit(&head), Admission::Read { limit: limits::MAX_OAUTH_BODY, .. }), "{path}");
        let Step::Grants(oauth::grants::Event::Request { exchange, head, body }) = door.accept(head, b"x=1") else {
            panic!("{path}")
        };
        assert_eq!(
            (exchange, head.uri.path(), &body[..]),
            (ExchangeId(1), path.split('?').next().unwrap(), &b"x=1"[..])
        );
    }
}

#[test]
fn request_without_a_token_learns_where_to_get_one() {
    for (path, document) in
        [("/mcp", "/mcp"), ("/mcp/", "/mcp"), ("/mcp/a%20b", "/mcp/a%20b"), ("/mcp/d/%22", "/mcp/d/%22")]
    {
        let reply = Door::new().refused(&request("POST", path, &[]));
        assert_eq!(reply.status, 401);
        let expected = format!(
            "Bearer resource_metadata=\"https://relay.example/.well-known/oauth-protected-resource{document}\", scope=\"mcp:tools mcp:read tunnel:manage\""
        );
        assert_eq!(challenge(&reply), expected, "no error when no token came");
    }
    let reply = Door::new().refused(&request("GET", "/ws?name=x", &HANDSHAKE));
    assert!(reply.status == 401 && challenge(&reply).ends_with("scope=\"agent\""), "{}", challenge(&reply));
}

#[test]
fn bad_tokens_are_invalid() {
    let mut door = Door::new();
    let good = principal("ann", Role::Client);
    let expired = Principal { expires: UnixTime::from_secs(1_000), ..good.clone() };
    let other = Door::new();
    let strange = Sealer::new(std::vec![Sealer::generate(&mut Seeded::new(9))]);
    let strange = format!("Bearer {}", seal_access(&strange, &good, &mut Seeded::new(2)).expose());
    for token in ["Bearer x".into(), door.token(&expired), strange] {
        let reply = other.refused(&with(other.post(), "authorization", &token));
        assert_eq!(reply.status, 401);
        assert!(
            challenge(&reply).starts_with("Bearer error=\"invalid_token\", error_description="),
            "{}",
            challenge(&reply)
        );
    }
    door.snapshot.families = Arc::default();
    assert_eq!(door.refused(&door.post()).status, 401);
    for broken in ["Bearer", "Bearer a b"] {
        assert_eq!(other.refused(&with(other.post(), "authorization", broken)).status, 400);
    }
    assert_eq!(other.refused(&with(other.post(), "authorization", "Basic eDp5")).status, 401);
}

#[test]
fn tokens_open_only_what_they_are_for() {
    let door = Door::new();
    let agent = door.token(&principal("ann", Role::Agent));
    let reply = door.refused(&with(door.post(), "authorization", &agent));
    assert!(reply.status == 403 && challenge(&reply).contains("insufficient_scope"), "{}", challenge(&reply));
    let client = door.token(&principal("ann", Role::Client));
    let reply = door.refused(&with(door.tunnel(), "authorization", &client));
    assert!(reply.status == 403 && challenge(&reply).contains("only an agent's token"), "{}", challenge(&reply));
    let narrow = Principal { audience: "https://relay.example/mcp/files".into(), ..principal("ann", Role::Client) };
    let narrow = door.token(&narrow);
    assert_eq!(door.refused(&with(door.post(), "authorization", &narrow)).status, 403);
    let head = RequestHead { uri: "/mcp/files".parse().unwrap(), ..with(door.post(), "authorization", &narrow) };
    assert!(matches!(door.admit(&head), Admission::Read { .. }));
    let elsewhere = Principal { audience: "https://other.example/mcp".into(), ..principal("ann", Role::Client) };
    assert_eq!(door.refused(&with(door.post(), "authorization", &door.token(&elsewhere))).status, 403);
}

#[test]
fn foreign_pages_may_not_call() {
    let door = Door::new();
    for head in [door.post(), door.tunnel(), request("POST", "/introspect", &[])] {
        assert_eq!(door.refused(&with(head, "origin", "https://evil.example")).status, 403);
    }
    let reply = door.replied(with(door.post(), "origin", "https://app.example"), PING);
    assert_eq!(reply.headers["access-control-allow-origin"], "https://app.example");
    let reply = door.refused(&request("POST", "/mcp", &[("origin", "https://app.example")]));
    assert_eq!(reply.headers["access-control-allow-origin"], "https://app.example", "pages must be able to read a 401");
    let ask = |origin| door.refused(&request("OPTIONS", "/mcp", &[("origin", origin)])).status.as_u16();
    assert_eq!((ask("https://app.example"), ask("https://evil.example")), (204, 403));
}

#[test]
fn posts_are_json_and_answers_are_taken() {
    let door = Door::new();
    for kind in ["text/plain", "application/json; charset=latin1", "application/jsonx"] {
        assert_eq!(door.refused(&with(door.post(), "content-type", kind)).status, 415, "{kind}");
    }
    assert_eq!(door.refused(&without(door.post(), "content-type")).status, 415);
    for (accept, expected) in [
        (BOTH, Some(Accepts::Either)),
        ("*/*", Some(Accepts::Either)),
        ("application/json", Some(Accepts::Json)),
        ("application/*", Some(Accepts::Json)),
        ("text/event-stream", Some(Accepts::Stream)),
        ("text/html", None),
    ] {
        let head = with(door.in_session("2025-11-25"), "accept", accept);
        match expected {
            Some(expected) => assert_eq!(door.posted(head, PING).accepts, expected, "{accept}"),
            None => assert_eq!(door.refused(&head).status, 406, "{accept}"),
        }
    }
    assert_eq!(door.posted(without(door.in_session("2025-11-25"), "accept"), PING).accepts, Accepts::Either);
}

#[test]
fn version_header_must_be_one_that_has_sessions() {
    let door = Door::new();
    for (version, fine) in [
        ("2024-11-05", true),
        ("2025-03-26", true),
        ("2025-06-18", true),
        ("2025-11-25", true),
        ("2026-07-28", false),
        ("2025-06-19", false),
        ("", false),
    ] {
        let head = with(door.in_session("2025-11-25"), "mcp-protocol-version", version);
        match fine {
            true => assert_eq!(door.posted(head, PING).speaker.version(), Version::V2025_11_25),
            false => assert_eq!(door.replied(head, PING).status, 400, "{version}"),
        }
    }
}

#[test]
fn bodies_that_are_no_messages_are_refused() {
    let door = Door::new();
    for (body, code) in [
        (&b""[..], rpc::PARSE_ERROR),
        (b"{", rpc::PARSE_ERROR),
        (b"\xff", rpc::PARSE_ERROR),
        (b"7", rpc::INVALID_REQUEST),
        (b"{}", rpc::INVALID_REQUEST),
        (br#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, rpc::INVALID_REQUEST),
        (br#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, rpc::INVALID_REQUEST),
    ] {
        let reply = door.replied(door.in_session("2025-11-25"), body);
        assert_eq!((reply.status.as_u16(), error_code(&reply)), (400, code), "{body:?}");
    }
}

#[test]
fn initialize_begins_a_session_that_outlives_the_relay() {
    let door = Door::new();
    let head = door.in_session("2025-06-18");
    let id = head.headers["mcp-session-id"].to_str().unwrap().to_string();
    assert!(id.len() <= limits::MAX_SESSION_ID && id.bytes().all(|byte| byte.is_ascii_graphic()));
    let restarted = Door::new();
    let post = restarted.posted(head, PING);
    assert_eq!(post.speaker.version(), Version::V2025_06_18);
    assert!(
        matches!(&post.content, Content::Request(request) if &*request.method == "ping" && request.id.as_bytes() == b"\"a\"")
    );
}

#[test]
fn requests_need_a_session_of_their_own_client() {
    let door = Door::new();
    let reply = door.replied(door.post(), PING);
    assert_eq!(reply.status, 400);
    assert!(core::str::from_utf8(&reply.body).unwrap().contains(r#""id":"a""#), "the refusal names the request");
    for id in ["x", "", "AAAA"] {
        assert_eq!(door.replied(with(door.post(), "mcp-session-id", id), PING).status, 404, "{id}");
    }
    let mine = door.in_session("2025-11-25");
    for other in
        [principal("bob", Role::Client), Principal { client: ClientId::new("x"), ..principal("ann", Role::Client) }]
    {
        let head = with(mine.clone(), "authorization", &door.token(&other));
        assert_eq!(door.replied(head, PING).status, 404, "{}", other.user);
    }
    let mut later = Door::new();
    let Speaker::Legacy(session) = later.posted(mine.clone(), PING).speaker else { panic!("a session") };
    later.snapshot.ended_sessions.insert(session.key.clone(), session.expires);
    assert_eq!(later.replied(mine, PING).status, 404, "it was ended");
}

const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

#[test]
fn notifications_and_responses_are_accepted() {
    let door = Door::new();
    for body in [INITIALIZED, r#"{"jsonrpc":"2.0","error":{"code":1,"message":"x"}}"#] {
        assert_eq!(door.replied(door.in_session("2025-11-25"), body.as_bytes()).status, 202);
        assert_eq!(door.replied(door.post(), body.as_bytes()).status, 400, "not without a session");
    }
    let note = |body: &'static str| match door.posted(door.in_session("2025-11-25"), body.as_bytes()).content {
        Content::Note(note) => note,
        other => panic!("no note: {other:?}"),
    };
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    assert_eq!(note(cancel), Note::Cancelled { params: Bytes::from_static(br#"{"requestId":1}"#) });
    let answer = r#"{"jsonrpc":"2.0","id":"q","result":{}}"#;
    let id = rpc::RawId::from_raw(b"\"q\"").unwrap();
    assert_eq!(note(answer), Note::Answer { id, json: Bytes::from_static(answer.as_bytes()) });
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
    let (method, json) = ("notifications/roots/list_changed".into(), Bytes::from_static(changed.as_bytes()));
    assert_eq!(note(changed), Note::Notification { method, params: Bytes::new(), json });
}

#[test]
fn batches_belong_to_one_version() {
    let door = Door::new();
    let batch = br#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"notifications/initialized"},
        {"jsonrpc":"2.0","id":2,"method":"initialize"},{"jsonrpc":"2.0","method":"notifications/cancelled","params":{}},7]"#;
    let Content::Batch(items) = door.posted(door.in_session("2025-03-26"), batch).content else { panic!("no batch") };
    let [ping, Item::Unreadable(_), Item::Note(note), Item::Unreadable(_)] = items.as_slice() else {
        panic!("not in its order: {items:?}")
    };
    assert_eq!(ping.request().map(|request| &*request.method), Some("ping"));
    assert_eq!(*note, Note::Cancelled { params: Bytes::from_static(b"{}") });
    for version in ["2024-11-05", "2025-06-18", "2025-11-25"] {
        let reply = door.replied(door.in_session(version), batch);
        assert_eq!(reply.status, 400, "{version}");
        assert!(String::from_utf8_lossy(&reply.body).contains(&format!("{version} has no batches")), "{reply:?}");
    }
    let quiet = br#"[{"jsonrpc":"2.0","method":"notifications/initialized"}]"#;
    assert_eq!(door.replied(door.in_session("2025-03-26"), quiet).status, 202);
    assert_eq!(door.replied(door.in_session("2025-03-26"), b"[]").status, 400);
}

#[test]
fn get_listens_and_delete_ends() {
    let door = Door::new();
    let session = door.in_session("2025-11-25").headers["mcp-session-id"].clone();
    let token = door.token(&principal("ann", Role::Client));
    let head = |method| {
        let mut head =
            request(method, "/mcp/laptop/files", &[("authorization", &token), ("accept", "text/event-stream")]);
        head.headers.insert("mcp-session-id", session.clone());
        head
    };
    let Step::Shard(user, Event::Listen(listen)) = door.accept(head("GET"), b"") else { panic!("no listener") };
    assert_eq!((user.as_str(), listen.exchange), ("ann", ExchangeId(1)));
    assert_eq!(listen.endpoint, Endpoint::DeviceServer("laptop".into(), "files".into()));
    let Step::Grants(oauth::grants::Event::EndSession { session: ended, expires, .. }) =
        door.accept(head("DELETE"), b"")
    else {
        panic!("not ended")
    };
    assert_eq!((ended, expires), (listen.session.key.clone(), listen.session.expires));
    for method in ["GET", "DELETE"] {
        assert_eq!(door.replied(without(head(method), "mcp-session-id"), b"").status, 400);
        assert_eq!(door.replied(with(head(method), "mcp-session-id", "x"), b"").status, 404);
    }
    assert_eq!(door.refused(&with(head("GET"), "accept", "application/json")).status, 406);
    assert!(matches!(door.admit(&head("GET")), Admission::Read { limit: 0, .. }));
}

#[test]
fn tunnel_is_opened_for_an_agent() {
    let door = Door::new();
    let Admission::Upgrade(upgrade) = door.admit(&door.tunnel()) else { panic!("refused") };
    assert_eq!((upgrade.user.as_str(), upgrade.device.as_str(), upgrade.dialect), ("ann", "my laptop", Dialect::V1));
    assert_eq!((upgrade.device_id, upgrade.headers.len()), (None, 0));
    assert_eq!(upgrade.expires, UnixTime::from_secs(20_000), "a tunnel lives as long as its family");
    let head = with(with(door.tunnel(), "mcp-tunnel", "2"), "mcp-tunnel-device", "id-1");
    let Admission::Upgrade(upgrade) = door.admit(&head) else { panic!("refused") };
    assert_eq!((upgrade.device_id, upgrade.dialect), (Some(DeviceId::new("id-1")), Dialect::V2));
    assert_eq!(upgrade.headers["mcp-tunnel"], "2");
}

#[test]
fn handshakes_that_are_none_are_refused() {
    let door = Door::new();
    let long = "x".repeat(limits::MAX_DEVICE_NAME + 1);
    for (head, status) in [
        (without(door.tunnel(), "upgrade"), 426),
        (with(door.tunnel(), "connection", "close"), 426),
        (with(door.tunnel(), "sec-websocket-version", "8"), 426),
        (without(door.tunnel(), "sec-websocket-key"), 400),
        (with(door.tunnel(), "sec-websocket-key", "dGhl"), 400),
        (RequestHead { uri: "/ws".parse().unwrap(), ..door.tunnel() }, 400),
        (RequestHead { uri: "/ws?name=".parse().unwrap(), ..door.tunnel() }, 400),
        (RequestHead { uri: "/ws?name=%0a".parse().unwrap(), ..door.tunnel() }, 400),
        (RequestHead { uri: "/ws?name=a%e2%80%aeb".parse().unwrap(), ..door.tunnel() }, 400),
        (RequestHead { uri: "/ws?name=%ff".parse().unwrap(), ..door.tunnel() }, 400),
        (RequestHead { uri: "/ws?name=a&name=b".parse().unwrap(), ..door.tunnel() }, 400),
        (RequestHead { uri: format!("/ws?name={long}").parse().unwrap(), ..door.tunnel() }, 400),
        (with(with(door.tunnel(), "mcp-tunnel", "2"), "mcp-tunnel-device", "a b"), 400),
        (with(with(door.tunnel(), "mcp-tunnel", "2"), "mcp-tunnel-device", ""), 400),
    ] {
        assert_eq!(door.refused(&head).status.as_u16(), status, "{head:?}");
    }
}

#[test]
fn token_in_the_url_needs_the_operators_word() {
    let token = Door::new().token(&principal("ann", Role::Agent)).replace("Bearer ", "");
    let target: Uri = format!("/ws?name=laptop&token={token}").parse().unwrap();
    let head = |door: &Door| without(RequestHead { uri: target.clone(), ..door.tunnel() }, "authorization");
    let strict = Door::new();
    let reply = strict.refused(&head(&strict));
    assert_eq!(reply.status, 403, "signing in anew would not help");
    let text = core::str::from_utf8(&reply.body).unwrap();
    assert!(text.contains("legacy.tokenInQuery") && !text.contains(&token), "{text}");
    let lenient = Door::with(&RelayConfig { token_in_query: true, ..config() });
    assert!(matches!(lenient.admit(&head(&lenient)), Admission::Upgrade(_)));
    let mcp =
        RequestHead { uri: format!("/mcp?token={token}").parse().unwrap(), ..without(lenient.post(), "authorization") };
    assert_eq!(lenient.refused(&mcp).status, 401, "on /ws alone");
}

#[test]
fn giant_heads_are_refused() {
    let door = Door::new();
    let own: usize = door.post().headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let padded =
        |more: usize| with(door.post(), "x-big", &"x".repeat(limits::MAX_HEADERS - own - "x-big".len() + more));
    assert!(matches!(door.admit(&padded(0)), Admission::Read { .. }));
    let reply = door.refused(&padded(1));
    assert_eq!(reply.status, 431);
    assert!(core::str::from_utf8(&reply.body).unwrap().contains("32 KiB"));
    let id = "x".repeat(limits::MAX_SESSION_ID + 1);
    assert_eq!(door.replied(with(door.post(), "mcp-session-id", &id), PING).status, 404);
}

#[test]
fn refused_bodies_are_answered_in_the_words_of_their_endpoint() {
    let door = Door::new();
    let origin = ("origin", "https://app.example");
    for path in ["/token", "/register", "/revoke", "/device_authorization"] {
        let fields: &[(&str, &str)] = if path == "/device_authorization" { &[] } else { &[origin] };
        let Admission::Read { route, limit } = door.admit(&request("POST", path, fields)) else { panic!("{path}") };
        assert_eq!(limit, 16 * 1024);
        let too_large = door.gate.too_large(&route);
        assert_eq!(too_large.status.as_u16(), 413);
        let body = r#"{"error":"invalid_request","error_description":"the body is larger than 16 KiB"}"#;
        assert_eq!(too_large.body, body, "{path}");
        assert_eq!(too_large.headers.contains_key("access-control-allow-origin"), !fields.is_empty(), "{path}");
        let too_slow = door.gate.too_slow(&route);
        assert_eq!(too_slow.status.as_u16(), 408);
        assert!(too_slow.body.starts_with(br#"{"error":"invalid_request""#), "{path}");
    }
    let Admission::Read { route, .. } = door.admit(&with(door.post(), origin.0, origin.1)) else { panic!("refused") };
    let gate = &door.gate;
    for (reply, status) in [
        (gate.too_large(&route), 413),
        (gate.too_slow(&route), 408),
        (gate.no_room(&route), 503),
        (gate.unreadable(&route), 400),
    ] {
        assert_eq!(reply.status.as_u16(), status);
        assert!(reply.body.starts_with(br#"{"jsonrpc":"2.0","id":null,"error""#));
        assert!(reply.headers.contains_key("access-control-allow-origin"));
    }
}

const FIELDS: [&str; 16] = [
    "host",
    "origin",
    "accept",
    "content-type",
    "authorization",
    "mcp-session-id",
    "mcp-protocol-version",
    "mcp-method",
    "mcp-name",
    "mcp-param-a",
    "connection",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
    "mcp-tunnel",
    "mcp-tunnel-device",
];

fn paths() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("/mcp".to_string()),
        Just("/ws?name=a".to_string()),
        Just("/token".to_string()),
        "/[ -~]{0,40}",
        "/mcp/[!-~]{0,40}",
        "/ws\\?[!-~]{0,40}",
        "/\\.well-known/oauth-protected-resource[!-~]{0,20}",
        "https?://[!-~]{0,20}",
    ]
}

proptest! {
    #[test]
    fn heads_are_judged_alike_whatever_came_before_on_their_connection(
        changes in prop::collection::vec(
            (
                prop::sample::select(&[
                    ("accept", BOTH), ("accept", "text/html"), ("accept", "application/json"), ("content-type", "text/plain"),
                    ("content-length", "7"), ("authorization", "Bearer mlt_a_x"), ("authorization", "Bearer"),
                    ("host", "evil.example"), ("host", "relay.example"), ("origin", "https://app.example"),
                    ("origin", "https://evil.example"), ("mcp-session-id", "x"), ("transfer-encoding", "gzip"),
                    ("mcp-protocol-version", "2026-07-28"), ("x-y", "z"), ("x-y", "z\tz"),
                ][..]),
                0..4_usize,
                prop::sample::select(&["POST", "GET", "DELETE", "OPTIONS"][..]),
                prop::sample::select(&["/mcp", "/mcp?x", "/mcp/files", "/mcp/", "/token", "http://relay.example/mcp"][..]),
            ),
            1..12,
        ),
    ) {
        let door = Door::new();
        for ((name, value), how, method, target) in changes {
            let good = door.in_session("2025-11-25");
            prop_assert!(matches!(door.admit(&good), Admission::Read { .. }), "what is remembered");
            let mut head = match how {
                0 => with(good, name, value),
                1 => without(good, name),
                2 => good,
                _ => {
                    let mut twice = good;
                    twice.headers.append(name, HeaderValue::from_static(value));
                    twice
                }
            };
            if how == 2 {
                (head.method, head.uri) = (method.parse().unwrap(), target.parse().unwrap());
            }
            let fresh = door.gate.admit(&head, &door.snapshot, door.now, &mut Opened::default());
            prop_assert_eq!(std::format!("{:?}", door.admit(&head)), std::format!("{fresh:?}"));
        }
    }

    #[test]
    fn no_head_or_body_panics(
        method in prop_oneof!["GET", "POST", "DELETE", "OPTIONS", "[A-Z]{1,8}"],
        target in paths(),
        fields in prop::collection::vec(
            (
                prop::sample::select(&FIELDS[..]),
                prop::collection::vec(prop_oneof![32_u8..=126, 128_u8..=255], 0..40),
            ),
            0..8,
        ),
        signed_in in any::<bool>(),
        modern in any::<bool>(),
        body in prop_oneof![
            any::<Vec<u8>>(),
            "[\\[{\"a-z:,0-9}\\]]{0,60}".prop_map(String::into_bytes),
            "\\{\"jsonrpc\":\"2.0\",\"id\":[0-9]{1,3},\"method\":\"initialize\",\"params\":[\\[{\"}\\]0-9]{1,9}\\}"
                .prop_map(String::into_bytes),
            ("[a-z/]{1,12}", "[\\[{\"a-z:,0-9}\\]]{0,60}").prop_map(|(method, rest)| format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"_meta":{{
                    "io.modelcontextprotocol/protocolVersion":"2026-07-28",
                    "io.modelcontextprotocol/clientCapabilities":{{}}}},"name":"{method}"}}{rest}}}"#
            ).into_bytes()),
        ],
    ) {
        let door = Door::new();
        let Ok(uri) = target.parse::<Uri>() else { return Ok(()) };
        let mut head = if signed_in { door.in_session("2025-03-26") } else { request("GET", "/", &[]) };
        head.method = Method::from_bytes(method.as_bytes()).unwrap();
        head.uri = uri;
        if modern {
            head = with(head, "mcp-protocol-version", "2026-07-28");
        }
        for (name, value) in fields {
            head.headers.append(name, HeaderValue::from_bytes(&value).unwrap());
        }
        if let Admission::Read { route, .. } = door.admit(&head) {
            let body = Bytes::from(body);
            let opened = &mut door.opened.borrow_mut();
            let _ =
                door.gate.accept(ExchangeId(1), route, head, body, &door.snapshot, door.now, opened, &mut Seeded::new(3));
        }
    }
}

#[test]
fn client_that_comes_back_says_what_it_read_last() {
    let door = Door::new();
    let session = door.in_session("2025-11-25").headers["mcp-session-id"].clone();
    let token = door.token(&principal("ann", Role::Client));
    for (length, heard) in [(1, true), (limits::MAX_EVENT_ID, true), (limits::MAX_EVENT_ID + 1, false)] {
        let id = "x".repeat(length);
        let mut head = request("GET", "/mcp", &[("authorization", &token), ("accept", "text/event-stream")]);
        head.headers.insert("mcp-session-id", session.clone());
        let Step::Shard(_, Event::Listen(listen)) = door.accept(with(head, "last-event-id", &id), b"") else {
            panic!("no listener")
        };
        assert_eq!(listen.last_event, heard.then_some(id));
    }
}

#[test]
fn heads_are_taken_up_to_each_of_their_bounds() {
    let door = Door::new();
    let mut many = door.post();
    while many.headers.len() < limits::MAX_FIELDS {
        many.headers.append("x-more", http::HeaderValue::from_static(""));
    }
    assert!(matches!(door.admit(&many), Admission::Read { .. }));
    many.headers.append("x-more", http::HeaderValue::from_static(""));
    assert_eq!(door.refused(&many).status, 431);

    let post = door.post();
    let fields: usize = post.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let long = |more: usize| {
        let target = "/mcp?".len();
        let uri = format!("/mcp?{}", "x".repeat(limits::MAX_HEAD - fields - target + more)).parse().unwrap();
        RequestHead { uri, ..door.post() }
    };
    assert!(matches!(door.admit(&long(0)), Admission::Read { .. }));
    assert_eq!(door.refused(&long(1)).status, 431);
}

#[test]
fn proxy_that_is_not_named_is_noticed() {
    let door = Door::new();
    let forwarded = request("GET", "/", &[("x-forwarded-for", "203.0.113.7")]).headers;
    let peer = "198.51.100.9".parse().unwrap();
    assert!(door.gate.is_forwarded_unheard(peer, &forwarded));
    assert!(!door.gate.is_forwarded_unheard(peer, &door.post().headers));
}
