//! Which era a server is spoken to in, and how that is found out.

use ::http::Method;

use super::http::{JSON, body, failure, result};
use super::*;
use crate::limits;

const VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// An agent with one process, `a`, of which nothing is known.
fn started(era: EraChoice) -> Rig {
    let mut config = config(&[]);
    config.servers.insert("a".to_string(), ServerConfig { life: Life { era, ..Life::default() }, ..stdio("a") });
    let mut rig = Rig::new(config, Some("minted"));
    rig.event(Event::Start { person: Person::Absent });
    rig
}

/// The same with one HTTP server, `web`.
pub(super) fn started_http() -> Rig {
    let mut config = config(&[]);
    let transport = Transport::Http { url: "http://127.0.0.1:1/mcp".to_string(), headers: [].into() };
    config.servers.insert("web".to_string(), ServerConfig { transport, start_timeout_secs: 60, life: Life::default() });
    let mut rig = Rig::new(config, Some("minted"));
    rig.event(Event::Start { person: Person::Absent });
    rig
}

/// The same, of the modern era alone, without tools, and with its tunnel up.
fn modern_http() -> Rig {
    let mut rig = started_http();
    let (fetch, request) = rig.fetched(&Method::POST);
    rig.reply_to(fetch, JSON, &result(&request, &discovery(&["2026-07-28"])));
    let (fetch, request) = rig.fetched(&Method::POST);
    rig.reply_to(fetch, JSON, &result(&request, &json!({"tools": []})));
    rig.connect(Dialect::V2);
    rig
}

pub(super) fn discovery(versions: &[&str]) -> Value {
    json!({"resultType": "complete", "supportedVersions": versions, "capabilities": {"tools": {}}, "ttlMs": 0,
        "cacheScope": "private", "instructions": "i",
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "new", "version": "1"}}})
}

impl Rig {
    /// The process that was ordered, running; and what it was asked first.
    fn run(&mut self) -> (ChildId, Value) {
        let child = self.spawned("a").expect("its process was ordered");
        self.event(Event::Spawned { child, pid: 100 });
        let asked = self.written(child).remove(0);
        (child, asked)
    }

    fn fail(&mut self, child: ChildId, id: &Value, error: &Value) {
        self.say(child, &json!({"jsonrpc": "2.0", "id": id, "error": error}));
    }

    /// Answers the list that was asked for.
    fn list(&mut self, child: ChildId) -> Value {
        let list = self.written(child).pop().expect("its tools were asked for");
        assert_eq!(list["method"], "tools/list");
        self.answer(child, &list["id"], json!({"tools": [{"name": "t", "inputSchema": {}}]}));
        list
    }
}

#[test]
fn modern_server_is_discovered_and_never_initialized() {
    let mut rig = started(EraChoice::Auto);
    let (child, asked) = rig.run();
    assert_eq!(
        (&asked["method"], &asked["params"]["_meta"][VERSION]),
        (&json!("server/discover"), &json!("2026-07-28"))
    );
    assert_eq!(asked["params"]["_meta"]["io.modelcontextprotocol/clientInfo"]["name"], "mcp-local-tunnel");
    rig.answer(child, &asked["id"], discovery(&["2026-07-28", "2025-11-25"]));
    let list = rig.list(child);
    assert_eq!(list["params"]["_meta"][VERSION], "2026-07-28", "every request says what it speaks");
    rig.connect(Dialect::V2);
    let server = rig.catalogs().pop().unwrap()["servers"][0].clone();
    assert_eq!(server["versions"], json!(["2026-07-28", "2025-11-25"]));
    assert_eq!((&server["info"]["name"], &server["instructions"]), (&json!("new"), &json!("i")));
}

#[test]
fn legacy_server_that_says_so_is_initialized_in_the_same_process() {
    for error in [
        json!({"code": -32601, "message": "m"}),
        json!({"code": -32602, "message": "m"}),
        json!({"code": -32600, "message": "m", "data": {"supported": ["2026-07-28"]}}),
        json!({"code": 1, "message": "m"}),
        json!({}),
    ] {
        let mut rig = started(EraChoice::Auto);
        let (child, asked) = rig.run();
        rig.fail(child, &asked["id"], &error);
        let initialize = rig.written(child).remove(0);
        assert_eq!(initialize["method"], "initialize", "{error}");
        assert!(initialize["params"]["_meta"].is_null());
        assert_eq!(rig.spawned("a"), None);
    }
}

#[test]
fn whatever_took_discover_for_something_gets_a_new_process_for_the_other_era() {
    let silent = |rig: &mut Rig, _: ChildId, _: &Value| rig.advance(limits::DISCOVER_TIMEOUT);
    let answers =
        |result: Value| move |rig: &mut Rig, child: ChildId, id: &Value| rig.answer(child, id, result.clone());
    let unsupported = |rig: &mut Rig, child: ChildId, id: &Value| {
        let error = json!({"code": -32022, "message": "m", "data": {"supported": ["2025-06-18"]}});
        rig.fail(child, id, &error);
    };
    type Answer = Box<dyn Fn(&mut Rig, ChildId, &Value)>;
    let cases: [(&str, Answer); 4] = [
        ("silence", Box::new(silent)),
        ("no discovery", Box::new(answers(json!({"tools": []})))),
        ("legacy versions alone", Box::new(answers(discovery(&["2025-11-25"])))),
        ("unsupported", Box::new(unsupported)),
    ];
    for (case, answer) in cases {
        let mut rig = started(EraChoice::Auto);
        let (first, asked) = rig.run();
        answer(&mut rig, first, &asked["id"]);
        assert!(rig.written(first).is_empty(), "{case}: never two eras in one child");
        let closed = rig.take(|action| matches!(action, Action::CloseStdin { .. }).then_some(()));
        assert_eq!(closed, Some(()), "{case}");
        rig.exited(first, 0, "");
        let (second, asked) = rig.run();
        assert_eq!((second != first, &asked["method"]), (true, &json!("initialize")), "{case}");
        assert_eq!(rig.server_status("a").restarts, 0, "{case}: nothing went wrong");
    }
}

#[test]
fn process_that_ends_over_discover_is_tried_with_initialize_at_once() {
    let mut rig = started(EraChoice::Auto);
    let (child, _) = rig.run();
    rig.exited(child, 1, "Received request before initialization was complete");
    let (child, asked) = rig.run();
    assert_eq!(asked["method"], "initialize");
    rig.exited(child, 1, "no such file");
    assert_eq!(rig.spawned("a"), None, "then it is something else");
    assert!(rig.server_status("a").reason.unwrap().contains("no such file"));
    rig.advance(limits::RESTART_MAX);
    assert_eq!(rig.run().1["method"], "server/discover", "and nothing is known of it");
}

#[test]
fn what_was_found_out_is_remembered_for_later_runs() {
    for (is_modern, method) in [(true, "server/discover"), (false, "initialize")] {
        let mut rig = started(EraChoice::Auto);
        let (child, asked) = rig.run();
        if is_modern {
            rig.answer(child, &asked["id"], discovery(&["2026-07-28"]));
        } else {
            rig.fail(child, &asked["id"], &json!({"code": -32601, "message": "m"}));
            rig.greet(child);
        }
        rig.list(child);
        rig.exited(child, 1, "");
        rig.advance(limits::RESTART_MAX);
        assert_eq!(rig.run().1["method"], method);
    }
}

#[test]
fn entry_may_fix_the_era() {
    let mut rig = started(EraChoice::Legacy);
    assert_eq!(rig.run().1["method"], "initialize");
    let mut rig = started(EraChoice::Modern);
    let (child, asked) = rig.run();
    assert_eq!(asked["method"], "server/discover");
    rig.advance(limits::DISCOVER_TIMEOUT);
    assert_eq!(rig.spawned("a"), None, "there is nothing else to try");
    rig.fail(child, &asked["id"], &json!({"code": -32601, "message": "m"}));
    assert!(rig.written(child).is_empty());
    assert!(rig.server_status("a").reason.unwrap().contains("era \"modern\""));
}

#[test]
fn server_of_unknown_revisions_alone_is_of_no_use() {
    for answer in [
        json!({"result": discovery(&["2031-01-01"])}),
        json!({"error": {"code": -32022, "message": "m", "data": {"supported": ["2031-01-01"], "requested": "2026-07-28"}}}),
    ] {
        let mut rig = started(EraChoice::Auto);
        let (child, asked) = rig.run();
        let mut line = json!({"jsonrpc": "2.0", "id": asked["id"]});
        line.as_object_mut().unwrap().extend(answer.as_object().unwrap().clone());
        rig.say(child, &line);
        let status = rig.server_status("a");
        assert_eq!(status.state, crate::mcp::catalog::State::Failed);
        assert!(status.reason.unwrap().contains("2031-01-01"));
    }
}

#[test]
fn restart_finds_the_era_out_anew() {
    let mut rig = started(EraChoice::Auto);
    let (child, _) = rig.run();
    rig.advance(limits::DISCOVER_TIMEOUT);
    rig.exited(child, 0, "");
    let (child, initialize) = rig.run();
    rig.answer(
        child,
        &initialize["id"],
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}),
    );
    rig.list(child);
    rig.exited(child, 1, "");
    rig.advance(limits::RESTART_MAX);
    let (child, asked) = rig.run();
    assert_eq!(asked["method"], "initialize", "what is known is not asked again");
    rig.event(Event::Control { job: JobId(1), command: ControlCommand::Restart { server: None } });
    rig.event(Event::ConfigRead(Err("unchanged".to_string())));
    rig.exited(child, 0, "");
    let (_, asked) = rig.run();
    assert_eq!(asked["method"], "server/discover", "it may have been too slow, or have learned something");
}

#[test]
fn server_that_turns_down_a_revision_of_its_own_is_asked_once_more() {
    let odd = |versions: &[&str]| json!({"code": -32022, "message": "m", "data": {"supported": versions}});
    let asked_again = |versions: &[&str]| {
        let mut rig = started(EraChoice::Auto);
        let (child, first) = rig.run();
        rig.fail(child, &first["id"], &odd(versions));
        let again = rig.written(child).pop().expect("it was asked again");
        assert_eq!((&again["method"], again["id"] == first["id"]), (&json!("server/discover"), false));
        (rig, child, again["id"].clone())
    };
    let (mut rig, child, id) = asked_again(&["2026-07-28"]);
    rig.answer(child, &id, discovery(&["2026-07-28"]));
    rig.list(child);
    assert_eq!(rig.server_status("a").state, crate::mcp::catalog::State::Ready);

    let (mut rig, child, id) = asked_again(&["2026-07-28"]);
    rig.fail(child, &id, &odd(&["2026-07-28"]));
    assert!(rig.written(child).is_empty(), "not for ever");
    assert!(rig.server_status("a").reason.unwrap().contains("turns down"));

    let (mut rig, child, id) = asked_again(&["2025-11-25", "2026-07-28"]);
    rig.fail(child, &id, &odd(&["2025-11-25", "2026-07-28"]));
    let status = rig.server_status("a");
    assert_ne!(status.state, crate::mcp::catalog::State::Failed, "the older era is left: {:?}", status.reason);
}

#[test]
fn http_server_is_asked_with_header_fields_and_without_a_session() {
    let mut rig = started_http();
    let (fetch, request) = rig.fetched(&Method::POST);
    assert_eq!(body(&request)["method"], "server/discover");
    for (name, value) in [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "server/discover")] {
        assert_eq!(request.headers[name], value);
    }
    let headers = [("content-type", "application/json"), ("mcp-session-id", "not to be taken")];
    rig.reply_to(fetch, &headers, &result(&request, &discovery(&["2026-07-28"])));
    let (fetch, request) = rig.fetched(&Method::POST);
    assert!(!request.headers.contains_key("mcp-session-id"));
    assert_eq!(
        (&request.headers["mcp-method"], &body(&request)["method"]),
        (&"tools/list".parse().unwrap(), &json!("tools/list"))
    );
    let schema = json!({"properties": {"region": {"type": "string", "x-mcp-header": "Region"}}});
    let bad = json!({"properties": {"region": {"type": "number", "x-mcp-header": "Region"}}});
    let tools = json!({"tools": [{"name": "t", "inputSchema": schema}, {"name": "bad", "inputSchema": bad}]});
    rig.reply_to(fetch, JSON, &result(&request, &tools));
    assert!(rig.is_quiet(), "no GET");
    rig.connect(Dialect::V2);
    let listed = tools;
    let tools = rig.catalogs().pop().unwrap()["servers"][0]["tools"].clone();
    assert_eq!(tools.as_array().unwrap().len(), 1, "a definition that breaks the rules is left out, the other stays");
    rig.modern_call(1, "web", "tools/call", r#"{"name":"t","arguments":{"region":"Zürich"},"_meta":{"x":1.0}}"#);
    let (_, request) = rig.fetched(&Method::POST);
    assert_eq!(request.headers["mcp-name"], "t");
    assert_eq!(request.headers["mcp-param-region"], "=?base64?WsO8cmljaA==?=");
    assert!(core::str::from_utf8(&request.body).unwrap().contains(r#""_meta":{"x":1.0}"#), "its meta is its own");

    rig.modern_call(2, "web", "tools/list", "{}");
    let (fetch, request) = rig.fetched(&Method::POST);
    rig.reply_to(fetch, JSON, &result(&request, &listed));
    let (_, _, shown) = rig.answers().pop().expect("it is answered");
    assert!(shown.contains(r#""name":"t""#) && !shown.contains("bad"), "asked for by a client too: {shown}");
    rig.modern_call(3, "web", "tools/call", r#"{"name":"bad","arguments":{"region":1.5}}"#);
    assert!(rig.is_quiet(), "its server is not asked");
    let (stream, code, why) = rig.answers().pop().expect("it is refused");
    assert_eq!((stream, code, why.contains("x-mcp-header")), (3, Some(-32602), true), "{why}");
}

#[test]
fn http_server_without_the_modern_era_is_initialized() {
    for (status, text) in [(400, "Bad Request: Server not initialized"), (404, ""), (405, ""), (500, "")] {
        let mut rig = started_http();
        let (fetch, _) = rig.fetched(&Method::POST);
        rig.head(fetch, status, &[]);
        rig.chunk(fetch, text);
        rig.fetch(fetch, crate::http::fetch::FetchEvent::End);
        let (_, request) = rig.fetched(&Method::POST);
        assert_eq!(body(&request)["method"], "initialize", "{status}");
        assert!(!request.headers.contains_key("mcp-protocol-version") && !request.headers.contains_key("mcp-method"));
    }
}

#[test]
fn modern_http_errors_are_answers_whatever_their_status() {
    let mut rig = modern_http();
    for (stream, status, code) in [(1, 400, -32021), (2, 404, -32601), (3, 200, -32602)] {
        rig.modern_call(stream, "web", "vendor/x", "{}");
        let (fetch, request) = rig.fetched(&Method::POST);
        rig.head(fetch, status, JSON);
        rig.chunk(fetch, &failure(&request, code));
        rig.fetch(fetch, crate::http::fetch::FetchEvent::End);
        assert_eq!(rig.answers(), [(stream, Some(code), json!({"code": code, "message": "m"}).to_string())]);
    }
}

#[test]
fn cancelled_call_over_modern_http_is_a_closed_stream_and_no_message() {
    let mut rig = modern_http();
    rig.modern_call(1, "web", "vendor/x", "{}");
    let (fetch, _) = rig.fetched(&Method::POST);
    rig.tunnel(tunnel::Event::Reset { stream: StreamId(1), code: tunnel::ResetCode::Cancelled, reason: String::new() });
    assert_eq!(rig.aborted(), [fetch]);
    assert!(rig.is_quiet());
}
