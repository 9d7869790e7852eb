//! Servers that are reached over Streamable HTTP.

use std::format;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::*;
use crate::http::fetch::{Fetch, FetchError, FetchEvent};
use crate::id::FetchId;
use crate::limits;
use crate::mcp::catalog::State;
use crate::mcp::code;
use crate::tunnel::ResetCode;

pub(super) const JSON: &[(&str, &str)] = &[("content-type", "application/json; charset=utf-8")];
pub(super) const SSE: &[(&str, &str)] = &[("content-type", "text/event-stream")];

/// An agent with one HTTP server, `web`.
fn started() -> Rig {
    let mut config = config(&[]);
    let headers = [("X-Key".to_string(), Secret::new("Bearer the-key")), ("Accept".to_string(), Secret::new("own"))];
    let transport = Transport::Http { url: "http://127.0.0.1:1/mcp".to_string(), headers: headers.into() };
    config.servers.insert(
        "web".to_string(),
        ServerConfig { transport, start_timeout_secs: 60, life: Life { era: EraChoice::Legacy, ..Life::default() } },
    );
    let mut rig = Rig::new(config, Some("minted"));
    rig.event(Event::Start { person: Person::Absent });
    rig
}

/// The same with its handshake done, in a session, the tunnel up. It has no stream for notifications.
pub(super) fn ready() -> Rig {
    let mut rig = started();
    handshake(&mut rig, &[("content-type", "application/json"), ("mcp-session-id", "s1")]);
    rig.connect(Dialect::V2);
    let (listen, _) = rig.fetched(&Method::GET);
    rig.head(listen, 405, &[]);
    rig.actions.clear();
    rig
}

fn handshake(rig: &mut Rig, headers: &[(&str, &str)]) {
    let (fetch, request) = rig.fetched(&Method::POST);
    let about = json!({"protocolVersion": "2025-06-18", "capabilities": {}});
    rig.reply_to(fetch, headers, &result(&request, &about));
    let (note, request) = rig.fetched(&Method::POST);
    assert_eq!(body(&request)["method"], "notifications/initialized");
    rig.head(note, 202, &[]);
    rig.fetch(note, FetchEvent::End);
    let (list, request) = rig.fetched(&Method::POST);
    rig.reply_to(list, JSON, &result(&request, &json!({"tools": [{"name": "t"}]})));
}

pub(super) fn body(request: &Fetch) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

pub(super) fn result(request: &Fetch, result: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": body(request)["id"], "result": result}).to_string()
}

/// An error that answers a request.
pub(super) fn failure(request: &Fetch, code: i64) -> String {
    json!({"jsonrpc": "2.0", "id": body(request)["id"], "error": {"code": code, "message": "m"}}).to_string()
}

impl Rig {
    pub(super) fn fetch(&mut self, fetch: FetchId, event: FetchEvent) {
        self.event(Event::Fetch { fetch, event });
    }

    pub(super) fn head(&mut self, fetch: FetchId, status: u16, headers: &[(&str, &str)]) {
        let field = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        let headers: HeaderMap = headers.iter().map(field).collect();
        self.fetch(fetch, FetchEvent::Head { status: StatusCode::from_u16(status).unwrap(), headers });
    }

    pub(super) fn chunk(&mut self, fetch: FetchId, text: &str) {
        self.fetch(fetch, FetchEvent::Chunk(Bytes::copy_from_slice(text.as_bytes())));
    }

    /// A whole successful answer, cut in the middle.
    pub(super) fn reply_to(&mut self, fetch: FetchId, headers: &[(&str, &str)], text: &str) {
        self.head(fetch, 200, headers);
        let (front, back) = text.split_at(text.len() / 2);
        self.chunk(fetch, front);
        self.chunk(fetch, back);
        self.fetch(fetch, FetchEvent::End);
    }

    /// The oldest fetch of that method.
    pub(super) fn fetched(&mut self, method: &Method) -> (FetchId, Fetch) {
        self.take(|action| match action {
            Action::Fetch { fetch, request } if request.method == *method => Some((*fetch, request.clone())),
            _ => None,
        })
        .unwrap_or_else(|| panic!("no {method}"))
    }

    pub(super) fn aborted(&mut self) -> Vec<FetchId> {
        self.take_all(|action| match action {
            Action::AbortFetch { fetch } => Some(*fetch),
            _ => None,
        })
    }

    pub(super) fn is_quiet(&self) -> bool {
        !self.actions.iter().any(|action| matches!(action, Action::Fetch { .. }))
    }
}

#[test]
fn handshake_learns_session_and_version_and_every_later_request_carries_them() {
    let mut rig = started();
    let (fetch, request) = rig.fetched(&Method::POST);
    assert_eq!(request.url, "http://127.0.0.1:1/mcp");
    assert_eq!(request.headers["accept"], "application/json, text/event-stream", "the entry cannot break the protocol");
    assert!(request.headers["x-key"] == "Bearer the-key" && request.headers["x-key"].is_sensitive());
    assert!(!request.headers.contains_key("mcp-session-id") && !request.headers.contains_key("mcp-protocol-version"));
    let about = json!({"protocolVersion": "2025-03-26", "capabilities": {}});
    rig.reply_to(fetch, &[("content-type", "application/json"), ("mcp-session-id", "s1")], &result(&request, &about));
    for _ in 0..2 {
        let (_, request) = rig.fetched(&Method::POST);
        assert_eq!(
            (&request.headers["mcp-session-id"], &request.headers["mcp-protocol-version"]),
            (&"s1".parse().unwrap(), &"2025-03-26".parse().unwrap())
        );
    }
}

#[test]
fn answer_as_json() {
    let mut rig = ready();
    rig.call(1, "web", "{}");
    let (fetch, request) = rig.fetched(&Method::POST);
    rig.reply_to(fetch, JSON, &result(&request, &json!({"x": 1})));
    assert_eq!(rig.answers(), [(1, None, "{\"x\":1}".to_string())]);
    assert_eq!(rig.server_status("web").calls, 0);
}

#[test]
fn answer_as_a_stream_with_what_comes_before_it() {
    let mut rig = ready();
    rig.call(1, "web", r#"{"_meta":{"progressToken":"mine"}}"#);
    let (fetch, request) = rig.fetched(&Method::POST);
    let token = &body(&request)["params"]["_meta"]["progressToken"];
    let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token}});
    let log = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}});
    rig.head(fetch, 200, SSE);
    rig.chunk(fetch, &format!("id: 1\ndata:\n\ndata: {progress}\n\ndata: {log}\n\nevent: message\nda"));
    let streams = rig.take_all(|action| match action {
        Action::Tunnel { command: Command::Message { stream, droppable, .. }, .. } => Some((stream.0, *droppable)),
        _ => None,
    });
    assert_eq!(streams, [(1, true), (1, true)], "what comes on a call's stream belongs to it");
    rig.chunk(fetch, &format!("ta: {}\n\n", result(&request, &json!("done"))));
    assert_eq!(rig.answers(), [(1, None, "\"done\"".to_string())]);
    rig.fetch(fetch, FetchEvent::End);
    assert!(rig.is_quiet(), "an answered stream is not resumed");
}

#[test]
fn broken_stream_is_taken_up_where_it_broke() {
    let mut rig = ready();
    rig.call(1, "web", "{}");
    let (fetch, request) = rig.fetched(&Method::POST);
    rig.head(fetch, 200, SSE);
    rig.chunk(fetch, "id: e7\nretry: 2500\ndata:\n\n");
    rig.fetch(fetch, FetchEvent::Failed(FetchError::Broken("reset".to_string())));
    rig.advance(Duration::from_millis(2499));
    assert!(rig.is_quiet());
    rig.advance(Duration::from_millis(1));
    let (fetch, resumed) = rig.fetched(&Method::GET);
    assert_eq!(
        (&resumed.headers["last-event-id"], &resumed.headers["mcp-session-id"]),
        (&"e7".parse().unwrap(), &"s1".parse().unwrap())
    );
    rig.head(fetch, 200, SSE);
    rig.chunk(fetch, &format!("data: {}\n\n", result(&request, &json!(1))));
    assert_eq!(rig.answers(), [(1, None, "1".to_string())]);
}

#[test]
fn resuming_that_brings_nothing_ends() {
    let mut rig = ready();
    rig.call(1, "web", "{}");
    let (mut fetch, _) = rig.fetched(&Method::POST);
    rig.head(fetch, 200, SSE);
    rig.chunk(fetch, "id: e7\ndata:\n\n");
    for _ in 0..limits::MAX_RESUMPTIONS {
        rig.fetch(fetch, FetchEvent::End);
        assert!(rig.answers().is_empty());
        rig.advance(Duration::from_secs(1));
        fetch = rig.fetched(&Method::GET).0;
        rig.head(fetch, 200, SSE);
    }
    rig.fetch(fetch, FetchEvent::End);
    assert_eq!(rig.answers()[0].1, Some(code::SERVER_UNAVAILABLE));
    assert!(rig.is_quiet());
}

#[test]
fn stream_that_is_cut_into_pieces_is_followed_to_its_end() {
    let mut rig = ready();
    rig.call(1, "web", "{}");
    let (mut fetch, request) = rig.fetched(&Method::POST);
    for piece in 0..limits::MAX_RESUMPTIONS * 2 {
        rig.head(fetch, 200, SSE);
        rig.chunk(fetch, &format!("id: e{piece}\nretry: 0\ndata:\n\n"));
        rig.fetch(fetch, FetchEvent::End);
        assert!(rig.is_quiet(), "not without a pause, whatever the server wishes");
        rig.advance(Duration::from_millis(100));
        fetch = rig.fetched(&Method::GET).0;
    }
    rig.head(fetch, 200, SSE);
    rig.chunk(fetch, &format!("data: {}\n\n", result(&request, &json!(1))));
    assert_eq!(rig.answers(), [(1, None, "1".to_string())]);
}

#[test]
fn stream_without_ids_that_breaks_is_a_lost_call_and_never_sent_again() {
    let mut rig = ready();
    rig.call(1, "web", "{}");
    let (fetch, _) = rig.fetched(&Method::POST);
    rig.head(fetch, 200, SSE);
    rig.fetch(fetch, FetchEvent::Failed(FetchError::Broken("reset".to_string())));
    assert_eq!(rig.answers()[0].1, Some(code::SERVER_UNAVAILABLE));
    rig.advance(Duration::from_secs(100));
    assert!(rig.is_quiet());
    assert_eq!(rig.server_status("web").state, State::Ready, "one broken answer is not the server's end");
}

/// The handshake of a session that is begun anew.
pub(super) fn new_session(rig: &mut Rig, id: &str) {
    handshake(rig, &[("content-type", "application/json"), ("mcp-session-id", id)]);
}

#[test]
fn ended_session_is_begun_anew_and_what_was_refused_is_asked_there() {
    let mut rig = ready();
    rig.call(1, "web", r#"{"n":1}"#);
    rig.call(2, "web", r#"{"n":2}"#);
    let (first, asked) = rig.fetched(&Method::POST);
    let (second, _) = rig.fetched(&Method::POST);
    rig.head(first, 404, JSON);
    rig.call(3, "web", r#"{"n":3}"#);
    new_session(&mut rig, "s2");
    assert_eq!(rig.server_status("web").state, State::Ready);
    let (again, request) = rig.fetched(&Method::POST);
    assert_eq!((&request.body, &request.headers["mcp-session-id"]), (&asked.body, &"s2".parse().unwrap()));
    assert_eq!(body(&rig.fetched(&Method::POST).1)["params"], json!({"n": 3}), "what came meanwhile was held");
    rig.reply_to(again, JSON, &result(&request, &json!("one")));
    assert_eq!(rig.answers(), [(1, None, "\"one\"".to_string())]);
    // The other one was on its way when the session ended, and is refused only now.
    rig.head(second, 404, JSON);
    let (again, request) = rig.fetched(&Method::POST);
    assert_eq!(
        (&body(&request)["params"], &request.headers["mcp-session-id"]),
        (&json!({"n": 2}), &"s2".parse().unwrap())
    );
    rig.reply_to(again, JSON, &result(&request, &json!("two")));
    assert_eq!(rig.answers(), [(2, None, "\"two\"".to_string())]);
}

#[test]
fn call_is_asked_in_one_other_session_and_in_no_third() {
    let mut rig = ready();
    rig.call(1, "web", "{}");
    let (fetch, _) = rig.fetched(&Method::POST);
    rig.head(fetch, 404, JSON);
    new_session(&mut rig, "s2");
    let (fetch, _) = rig.fetched(&Method::POST);
    rig.head(fetch, 404, JSON);
    let (_, code, text) = rig.answers().remove(0);
    assert!(code == Some(code::SERVER_UNAVAILABLE) && text.contains("call again"), "{text}");
    new_session(&mut rig, "s3");
    rig.actions.retain(|action| !matches!(action, Action::Fetch { request, .. } if request.method == Method::GET));
    assert!(rig.is_quiet());
}

#[test]
fn call_whose_answer_began_is_not_asked_again_when_the_session_ends() {
    let mut rig = ready();
    rig.call(1, "web", r#"{"n":1}"#);
    rig.call(2, "web", r#"{"n":2}"#);
    let (first, asked) = rig.fetched(&Method::POST);
    let (second, _) = rig.fetched(&Method::POST);
    rig.head(first, 200, SSE);
    rig.head(second, 404, JSON);
    new_session(&mut rig, "s2");
    assert_eq!(body(&rig.fetched(&Method::POST).1)["params"], json!({"n": 2}));
    rig.chunk(first, &format!("data: {}\n\n", result(&asked, &json!("one"))));
    assert_eq!(rig.answers(), [(1, None, "\"one\"".to_string())], "its answer comes all the same");
}

#[test]
fn stream_that_was_to_be_resumed_is_lost_with_its_session() {
    for breaks_first in [true, false] {
        let mut rig = ready();
        rig.call(1, "web", r#"{"n":1}"#);
        rig.call(2, "web", r#"{"n":2}"#);
        let (first, _) = rig.fetched(&Method::POST);
        let (second, _) = rig.fetched(&Method::POST);
        rig.head(first, 200, SSE);
        rig.chunk(first, "id: e7\ndata:\n\n");
        if breaks_first {
            rig.fetch(first, FetchEvent::End);
        }
        rig.head(second, 404, JSON);
        if !breaks_first {
            rig.fetch(first, FetchEvent::End);
        }
        let (stream, code, _) = rig.answers().remove(0);
        assert_eq!((stream, code), (1, Some(code::SERVER_UNAVAILABLE)), "it may have run: never sent again");
        new_session(&mut rig, "s2");
        assert_eq!(body(&rig.fetched(&Method::POST).1)["params"], json!({"n": 2}));
        rig.actions.clear();
        rig.advance(Duration::from_secs(10));
        assert!(rig.is_quiet());
    }
}

#[test]
fn question_of_an_ended_session_is_lost_with_its_call() {
    let question = json!({"jsonrpc": "2.0", "id": "q", "method": "roots/list"});
    let params = r#"{"_meta":{"io.modelcontextprotocol/clientCapabilities":{"roots":{}}}}"#;
    for (is_modern, breaks_first) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut rig = ready();
        let head = OpenHead {
            server: "web".into(),
            method: "tools/call".into(),
            version: Some(if is_modern { "2026-07-28" } else { "2025-11-25" }.into()),
            actor: "ann".into(),
            session: if is_modern { "" } else { "s" }.into(),
            capabilities: r#"{"roots":{}}"#.into(),
            length: params.len() as u64,
            ..OpenHead::default()
        };
        rig.tunnel(tunnel::Event::Call { stream: StreamId(1), head, params: Bytes::from_static(params.as_bytes()) });
        let (asking, _) = rig.fetched(&Method::POST);
        rig.head(asking, 200, SSE);
        rig.chunk(asking, &format!("id: e1\ndata: {question}\n\n"));
        assert_eq!(rig.answers().len(), usize::from(is_modern), "a modern client is asked by an answer");
        rig.actions.clear();
        rig.call(2, "web", r#"{"n":2}"#);
        let (second, _) = rig.fetched(&Method::POST);
        if breaks_first {
            rig.fetch(asking, FetchEvent::End);
        }
        rig.head(second, 404, JSON);
        assert_eq!(rig.aborted().contains(&asking), !breaks_first);
        let answers = rig.answers();
        assert_eq!(answers.len(), usize::from(!is_modern), "{answers:?}");
        assert!(answers.iter().all(|(_, code, _)| *code == Some(code::SERVER_UNAVAILABLE)), "{answers:?}");
        // Nothing is said of the question in the new session.
        new_session(&mut rig, "s2");
        assert_eq!(body(&rig.fetched(&Method::POST).1)["params"], json!({"n": 2}));
        rig.actions.retain(|action| !matches!(action, Action::Fetch { request, .. } if request.method == Method::GET));
        assert!(rig.is_quiet(), "{:?}", rig.actions);
    }
}

#[test]
fn resumption_that_is_refused_with_its_session_is_no_call_to_send_again() {
    let mut rig = ready();
    rig.call(1, "web", "{}");
    let (fetch, _) = rig.fetched(&Method::POST);
    rig.head(fetch, 200, SSE);
    rig.chunk(fetch, "id: e7\ndata:\n\n");
    rig.fetch(fetch, FetchEvent::End);
    rig.advance(Duration::from_secs(1));
    let (fetch, _) = rig.fetched(&Method::GET);
    rig.head(fetch, 404, JSON);
    assert_eq!(rig.answers().remove(0).1, Some(code::SERVER_UNAVAILABLE));
}

#[test]
fn server_whose_sessions_end_at_once_counts_as_failing() {
    let mut rig = ready();
    for stream in 1..=limits::MAX_QUICK_FAILURES {
        rig.call(stream, "web", "{}");
        let (fetch, _) = rig.fetched(&Method::POST);
        rig.head(fetch, 404, JSON);
        new_session(&mut rig, "s");
        rig.actions.clear();
    }
    rig.call(100, "web", "{}");
    let (fetch, _) = rig.fetched(&Method::POST);
    rig.head(fetch, 404, JSON);
    assert!(rig.is_quiet());
    assert_eq!(rig.server_status("web").state, State::Failed);
}

#[test]
fn server_without_a_stream_for_notifications_may_answer_404() {
    let mut rig = started();
    new_session(&mut rig, "s1");
    let (listen, _) = rig.fetched(&Method::GET);
    rig.head(listen, 404, &[]);
    assert!(rig.is_quiet());
    assert_eq!(rig.server_status("web").state, State::Ready);
}

#[test]
fn cancelled_call_is_aborted_and_the_server_told() {
    let mut rig = ready();
    rig.call(1, "web", "{}");
    let (fetch, request) = rig.fetched(&Method::POST);
    rig.tunnel(tunnel::Event::Reset { stream: StreamId(1), code: ResetCode::Cancelled, reason: String::new() });
    assert_eq!(rig.aborted(), [fetch]);
    let (_, note) = rig.fetched(&Method::POST);
    assert_eq!(body(&note)["method"], "notifications/cancelled");
    assert_eq!(body(&note)["params"]["requestId"], body(&request)["id"]);
    rig.reply_to(fetch, JSON, &result(&request, &json!("late")));
    assert!(rig.answers().is_empty());
}

#[test]
fn error_statuses_are_answers() {
    let error = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"bad","data":0.10}}"#;
    for (status, text, code, expected) in [
        (400, error, code::INVALID_PARAMS, r#"{"code":-32602,"message":"bad","data":0.10}"#),
        (500, "<h1>oops</h1>", code::SERVER_UNAVAILABLE, "500 Internal Server Error: <h1>oops</h1>"),
        (500, "the-key is too old", code::SERVER_UNAVAILABLE, "500 Internal Server Error: [header X-Key] is too old"),
        (403, "", code::SERVER_UNAVAILABLE, "403 Forbidden"),
    ] {
        let mut rig = ready();
        rig.call(1, "web", "{}");
        let (fetch, _) = rig.fetched(&Method::POST);
        rig.head(fetch, status, &[]);
        rig.chunk(fetch, text);
        rig.fetch(fetch, FetchEvent::End);
        let (_, answered, body) = rig.answers().remove(0);
        assert_eq!(answered, Some(code));
        assert!(body.contains(expected), "{body}");
        assert_eq!(rig.server_status("web").state, State::Ready);
    }
}

#[test]
fn server_that_moved_within_its_origin_is_followed_there_and_stays_there() {
    for (status, location) in [(307, "http://127.0.0.1:1/mcp/"), (308, "/mcp/"), (307, "mcp/")] {
        let mut rig = started();
        let (fetch, asked) = rig.fetched(&Method::POST);
        rig.head(fetch, status, &[("location", location)]);
        assert_eq!(rig.aborted(), [fetch]);
        let (fetch, again) = rig.fetched(&Method::POST);
        assert_eq!((again.url.as_str(), &again.body), ("http://127.0.0.1:1/mcp/", &asked.body), "{location}");
        assert_eq!(again.headers, asked.headers);
        let about = json!({"protocolVersion": "2025-06-18", "capabilities": {}});
        rig.reply_to(fetch, JSON, &result(&again, &about));
        assert_eq!(rig.fetched(&Method::POST).1.url, "http://127.0.0.1:1/mcp/", "later requests go there at once");
    }
}

#[test]
fn redirect_that_leads_away_or_on_is_not_followed_and_named() {
    for (status, location, words) in [
        (307, "http://127.0.0.1:2/mcp?key=secret", "http://127.0.0.1:2/mcp:"),
        (307, "https://127.0.0.1:1/mcp", "https://127.0.0.1:1/mcp:"),
        (308, "http://u:secret@127.0.0.1:1/mcp", "http://127.0.0.1:1/mcp:"),
        (302, "/login#secret", "302 Found, which leads to http://127.0.0.1:1/login:"),
        (303, "/mcp/", "303"),
    ] {
        let mut rig = started();
        let (fetch, _) = rig.fetched(&Method::POST);
        rig.head(fetch, status, &[("location", location)]);
        assert!(rig.is_quiet(), "{location}");
        let seen = rig.server_status("web");
        let reason = seen.reason.unwrap();
        assert!(seen.state == State::Failed && reason.contains(words) && !reason.contains("secret"), "{reason}");
    }
    let mut rig = started();
    let (fetch, _) = rig.fetched(&Method::POST);
    rig.head(fetch, 307, &[("location", "/a")]);
    let (fetch, _) = rig.fetched(&Method::POST);
    rig.head(fetch, 307, &[("location", "/b")]);
    assert!(rig.is_quiet(), "once for each request");
    assert!(rig.server_status("web").reason.unwrap().contains("/b"));
}

#[test]
fn stream_of_notifications_is_found_where_the_server_moved_to() {
    let mut rig = started();
    handshake(&mut rig, JSON);
    let (listen, _) = rig.fetched(&Method::GET);
    rig.head(listen, 307, &[("location", "/mcp/")]);
    let (listen, request) = rig.fetched(&Method::GET);
    assert_eq!(request.url, "http://127.0.0.1:1/mcp/");
    rig.head(listen, 200, SSE);
    rig.fetch(listen, FetchEvent::End);
    rig.advance(Duration::from_secs(1));
    rig.fetched(&Method::GET);
}

#[test]
fn web_page_is_no_mcp_server() {
    let mut rig = started();
    let (fetch, _) = rig.fetched(&Method::POST);
    rig.head(fetch, 200, &[("content-type", "text/html; charset=utf-8")]);
    let status = rig.server_status("web");
    assert_eq!(status.state, State::Failed);
    assert!(status.reason.unwrap().contains("a web page"));
}

#[test]
fn answers_that_are_none_fail_their_call() {
    for (headers, text) in
        [(JSON, "nonsense"), (JSON, "{}"), (&[("content-type", "text/html")][..], "<p>"), (&[][..], "")]
    {
        let mut rig = ready();
        rig.call(1, "web", "{}");
        let (fetch, _) = rig.fetched(&Method::POST);
        rig.reply_to(fetch, headers, text);
        assert_eq!(rig.answers().remove(0).1, Some(code::INTERNAL_ERROR), "{text}");
    }
}

#[test]
fn answer_that_is_too_large_is_given_up_at_the_limit() {
    for headers in [JSON, SSE] {
        let mut rig = ready();
        rig.call(1, "web", "{}");
        let (fetch, _) = rig.fetched(&Method::POST);
        rig.head(fetch, 200, headers);
        rig.chunk(fetch, "data: ");
        let piece = Bytes::from(std::vec![b'x'; limits::MAX_MESSAGE / 4]);
        for _ in 0..4 {
            rig.fetch(fetch, FetchEvent::Chunk(piece.clone()));
        }
        rig.chunk(fetch, "xxxxxxx");
        assert_eq!(rig.answers().remove(0).1, Some(code::TOO_LARGE));
        assert_eq!(rig.aborted(), [fetch]);
    }
}

#[test]
fn credentials_that_are_refused_fail_the_server_with_what_mends_it() {
    let mut rig = started();
    let (fetch, _) = rig.fetched(&Method::POST);
    rig.head(fetch, 401, &[]);
    rig.fetch(fetch, FetchEvent::End);
    let status = rig.server_status("web");
    assert_eq!(status.state, State::Failed);
    assert!(status.reason.unwrap().contains("`headers`"));
}

#[test]
fn unreachable_server_is_tried_again_and_its_calls_are_answered() {
    let mut rig = ready();
    rig.call(1, "web", "{}");
    rig.call(2, "web", "{}");
    let (fetch, _) = rig.fetched(&Method::POST);
    let (other, _) = rig.fetched(&Method::POST);
    rig.fetch(fetch, FetchEvent::Failed(FetchError::Connect("refused".to_string())));
    assert_eq!(rig.answers().len(), 2);
    assert_eq!(rig.aborted(), [other]);
    let status = rig.server_status("web");
    assert_eq!(status.state, State::Restarting);
    assert!(status.reason.unwrap().contains("refused"));
    rig.advance(limits::RESTART_FIRST);
    let (_, request) = rig.fetched(&Method::POST);
    assert_eq!(body(&request)["method"], "initialize");
    assert!(!request.headers.contains_key("mcp-session-id"), "a new session");
}

#[test]
fn stream_of_notifications_is_kept_open() {
    let mut rig = started();
    handshake(&mut rig, JSON);
    rig.connect(Dialect::V2);
    rig.catalogs();
    let (listen, request) = rig.fetched(&Method::GET);
    assert_eq!(request.headers["accept"], "text/event-stream");
    rig.head(listen, 200, SSE);
    rig.chunk(listen, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n");
    rig.advance(limits::RELIST_DELAY);
    let (list, request) = rig.fetched(&Method::POST);
    rig.reply_to(list, JSON, &result(&request, &json!({"tools": []})));
    assert_eq!(rig.catalogs().remove(0)["servers"][0]["tools"], json!([]));
    rig.fetch(listen, FetchEvent::End);
    rig.advance(Duration::from_secs(1));
    rig.fetched(&Method::GET);
}

#[test]
fn what_was_said_while_no_stream_of_notifications_was_open_is_found_out() {
    let mut rig = started();
    handshake(&mut rig, JSON);
    rig.connect(Dialect::V2);
    rig.catalogs();
    // Before the first was open, and while there was none between the first and the second.
    for (tools, is_news) in [(json!([{"name": "t"}]), false), (json!([]), true)] {
        let (listen, _) = rig.fetched(&Method::GET);
        rig.head(listen, 200, SSE);
        rig.advance(limits::RELIST_DELAY);
        let (list, request) = rig.fetched(&Method::POST);
        assert_eq!(body(&request)["method"], "tools/list");
        rig.reply_to(list, JSON, &result(&request, &json!({"tools": tools})));
        let counted = |told: &Value| told["servers"][0]["announced"]["tools"].as_u64();
        let told: Vec<u64> = rig.catalogs().iter().filter_map(counted).collect();
        let expected: &[u64] = if is_news { &[1] } else { &[] };
        assert_eq!(told, expected, "only what is another is told");
        rig.fetch(listen, FetchEvent::End);
        rig.advance(limits::RECONNECT_MAX);
    }
}

#[test]
fn list_that_a_broken_connection_cost_is_asked_for_again() {
    let mut rig = started();
    let (fetch, request) = rig.fetched(&Method::POST);
    let about = json!({"protocolVersion": "2025-06-18", "capabilities": {"prompts": {}}});
    rig.reply_to(fetch, JSON, &result(&request, &about));
    let (note, _) = rig.fetched(&Method::POST);
    rig.head(note, 202, &[]);
    rig.fetch(note, FetchEvent::End);
    let (list, request) = rig.fetched(&Method::POST);
    rig.reply_to(list, JSON, &result(&request, &json!({"tools": [{"name": "t"}]})));
    for _ in 0..2 {
        let (list, request) = rig.fetched(&Method::POST);
        assert_eq!(body(&request)["method"], "prompts/list");
        rig.fetch(list, FetchEvent::Failed(FetchError::Broken("reset".to_string())));
        assert_eq!(rig.server_status("web").state, State::Ready, "it does without");
        rig.advance(limits::LIST_PATIENCE);
    }
    let (list, request) = rig.fetched(&Method::POST);
    rig.reply_to(list, JSON, &result(&request, &json!({"prompts": []})));
    rig.actions.clear();
    rig.advance(limits::RELIST_TIMEOUT * 2);
    assert!(rig.is_quiet(), "it has come");
}

#[test]
fn server_requests_over_http_are_answered_by_post() {
    let mut rig = ready();
    rig.call(1, "web", "{}");
    let (fetch, _) = rig.fetched(&Method::POST);
    rig.head(fetch, 200, SSE);
    rig.chunk(fetch, "data: {\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"ping\"}\n\n");
    let (_, answer) = rig.fetched(&Method::POST);
    assert_eq!(body(&answer), json!({"jsonrpc": "2.0", "id": 0, "result": {}}));
}

#[test]
fn streams_that_stay_open_after_their_answer_are_bounded() {
    let mut rig = ready();
    for stream in 1..=30 {
        rig.call(stream, "web", "{}");
        let (fetch, request) = rig.fetched(&Method::POST);
        rig.head(fetch, 200, SSE);
        rig.chunk(fetch, &format!("data: {}\n\n", result(&request, &json!(1))));
    }
    assert_eq!(rig.aborted().len(), 30 - limits::MAX_LINGERING - 1);
}

#[test]
fn stop_ends_the_session_and_does_not_wait_long_for_it() {
    let mut rig = ready();
    rig.event(Event::Stop);
    rig.closed(CloseCode::GoingAway);
    let (_, farewell) = rig.fetched(&Method::DELETE);
    assert_eq!(farewell.headers["mcp-session-id"], "s1");
    assert_eq!(rig.exit(), None);
    rig.advance(limits::STOP_GRACE);
    assert_eq!(rig.exit(), Some(Exit::Stopped));
}

#[test]
fn hanging_handshake_over_http_is_given_up() {
    let mut rig = started();
    let (fetch, _) = rig.fetched(&Method::POST);
    rig.advance(Duration::from_secs(60));
    assert_eq!(rig.aborted(), [fetch]);
    assert_eq!(rig.server_status("web").state, State::Restarting);
}

#[test]
fn address_that_is_no_mcp_endpoint_is_the_reason() {
    let mut rig = started();
    let (fetch, _) = rig.fetched(&Method::POST);
    rig.head(fetch, 404, &[]);
    rig.chunk(fetch, "Cannot POST /mcp\n");
    rig.fetch(fetch, FetchEvent::End);
    let status = rig.server_status("web");
    assert_eq!(status.state, State::Restarting);
    assert_eq!(status.reason.unwrap(), "it answered 404 Not Found: Cannot POST /mcp");
}
