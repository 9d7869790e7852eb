mod table;

use alloc::string::ToString;
use core::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::daemon::{Answer, Farewell, Kind};
use crate::entropy::Seeded;
use crate::table::{given, kinds};
use crate::time::UnixTime;

kinds!(EVENTS, kind: Event, "" { Begun, Line, LineTooLong, InputEnded, Link, Status });

/// A stub at a time, with what it wrote and ordered.
struct Rig {
    stub: Stub,
    now: Now,
    wrote: Vec<Value>,
    /// What it asks the agent, not yet answered.
    asked: Vec<JobId>,
    exited: bool,
}

impl Rig {
    fn new() -> Self {
        let link = link::Settings { version: "2.0.0".into(), interactive: false, minted: false, keep: false };
        let settings = Settings { relay: "https://t.example".into(), link };
        let mut rig = Self {
            stub: Stub::new(settings, Box::new(Seeded::new(1))),
            now: Now { instant: Instant::from_micros(1), unix: UnixTime::default() },
            wrote: Vec::new(),
            asked: Vec::new(),
            exited: false,
        };
        rig.hand(Event::Begun);
        rig
    }

    fn attached() -> Self {
        let mut rig = Self::new();
        rig.attach();
        rig
    }

    fn attach(&mut self) {
        let (version, error) = ("2.0.0".into(), None);
        let (pid, kind) = (1, Kind::Daemon);
        let answer = Answer { ok: true, version, pid, kind, kept: false, sessions: Some(1), ending: false, error };
        self.hand(Event::Link(link::Event::Answered(answer)));
    }

    fn hand(&mut self, event: Event) {
        given(kind(&event));
        self.stub.handle_event(event, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.stub.poll_action() {
            assert!(!self.exited, "nothing follows the exit: {action:?}");
            match action {
                Action::Link(_) => {}
                Action::AskStatus { job } => self.asked.push(job),
                Action::Write(line) => {
                    assert!(line.ends_with(b"\n") && line.iter().filter(|byte| **byte == b'\n').count() == 1);
                    self.wrote.push(serde_json::from_slice(&line).expect("it writes JSON"));
                }
                Action::Exit => self.exited = true,
            }
        }
    }

    fn line(&mut self, line: &Value) {
        self.hand(Event::Line(line.to_string().into()));
    }

    /// The one answer to a message.
    fn ask(&mut self, message: &Value) -> Value {
        self.line(message);
        assert_eq!(self.wrote.len(), 1, "{message}: {:?}", self.wrote);
        self.wrote.remove(0)
    }

    fn result(&mut self, method: &str, params: &Value) -> Value {
        let answer = self.ask(&request(method, params));
        assert_eq!(answer["id"], 1);
        answer["result"].clone()
    }

    fn error(&mut self, method: &str, params: &Value) -> Value {
        let answer = self.ask(&request(method, params));
        assert_eq!((&answer["id"], answer.get("result")), (&json!(1), None), "{answer}");
        answer["error"].clone()
    }

    /// The agent's answer to what it was asked.
    fn report(&mut self) {
        for job in core::mem::take(&mut self.asked) {
            self.hand(Event::Status { job, outcome: Ok(document().to_string().into()) });
        }
    }

    fn lose(&mut self, farewell: Option<Farewell>) {
        self.hand(Event::Link(link::Event::Lost(farewell)));
    }

    fn pass(&mut self, time: Duration) {
        given("time");
        let end = self.now.instant + time;
        while let Some(deadline) = self.stub.poll_timeout().filter(|deadline| deadline.at <= end) {
            self.now.instant = deadline.at;
            self.stub.handle_timeout(self.now);
            self.drain();
            self.hand(Event::Link(link::Event::Nobody { credentials: Some(1), stopped: false }));
        }
        self.now.instant = end;
    }
}

fn request(method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
}

fn call(id: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "status", "arguments": {}}})
}

fn document() -> Value {
    json!({"version": "2.0.0", "device": "laptop", "deviceId": "x", "calls": 0, "uptimeSecs": 9,
    "relay": {"url": "https://t.example", "state": "connected", "sinceSecs": 5, "attempts": 0},
    "servers": [
        {"name": "files", "state": "ready", "sinceSecs": 5, "pid": 42, "tools": 11, "calls": 0, "restarts": 0},
        {"name": "web", "state": "failed", "sinceSecs": 5, "tools": 0, "calls": 0, "restarts": 1, "reason": "no such program"},
    ]})
}

/// `_meta` of a modern request.
fn modern(more: &Value) -> Value {
    let mut params = json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {}}});
    for (key, value) in more.as_object().into_iter().flatten() {
        params[key] = value.clone();
    }
    params
}

#[test]
fn handshake_agrees_on_a_version_with_a_handshake() {
    for (asked, agreed) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
    ] {
        let result = Rig::new().result("initialize", &json!({"protocolVersion": asked, "capabilities": {}}));
        assert_eq!(result["protocolVersion"], agreed, "{asked}");
        assert!(result["capabilities"]["tools"].is_object() && result["serverInfo"]["name"] == "mcp-local-tunnel");
    }
}

#[test]
fn modern_discovery_tells_all_that_a_result_must() {
    let result = Rig::new().result("server/discover", &modern(&json!({})));
    assert_eq!(result["supportedVersions"], json!(["2026-07-28"]));
    assert_eq!((&result["resultType"], &result["cacheScope"]), (&json!("complete"), &json!("private")));
    assert!(result["ttlMs"].is_u64() && result["capabilities"]["tools"].is_object());
    assert_eq!(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "mcp-local-tunnel");
}

#[test]
fn one_read_only_tool_is_listed_in_both_eras() {
    let mut rig = Rig::new();
    let legacy = rig.result("tools/list", &json!({"cursor": ""}));
    let modern = rig.result("tools/list", &modern(&json!({})));
    assert_eq!(legacy["tools"], modern["tools"]);
    assert_eq!(legacy["tools"].as_array().map(Vec::len), Some(1));
    assert_eq!(legacy["tools"][0]["annotations"]["readOnlyHint"], true);
    assert_eq!((legacy.get("resultType"), &modern["resultType"]), (None, &json!("complete")));
    assert!(modern["ttlMs"].is_u64() && modern["cacheScope"].is_string());
}

#[test]
fn ping_is_answered_and_ids_keep_their_type() {
    let mut rig = Rig::new();
    for id in [json!(1), json!("1"), json!(-3), json!("ä")] {
        let answer = rig.ask(&json!({"jsonrpc": "2.0", "id": id, "method": "ping"}));
        assert_eq!((&answer["id"], &answer["result"]), (&id, &json!({})));
    }
}

#[test]
fn what_is_wrong_is_answered_with_its_code() {
    let version = |text: &str, capabilities: Value| {
        json!({"_meta": {"io.modelcontextprotocol/protocolVersion": text,
            "io.modelcontextprotocol/clientCapabilities": capabilities}})
    };
    for (method, params, expected) in [
        ("resources/list", json!({}), -32601),
        ("subscriptions/listen", modern(&json!({})), -32601),
        ("initialize", modern(&json!({})), -32601),
        ("ping", modern(&json!({})), -32601),
        ("server/discover", json!({}), -32602),
        ("server/discover", json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}), -32602),
        ("server/discover", version("2026-07-28", json!(null)), -32602),
        ("server/discover", json!({"_meta": {"io.modelcontextprotocol/protocolVersion": 7}}), -32602),
        ("tools/list", version("2027-01-01", json!({})), -32022),
        ("tools/list", version("2025-11-25", json!({})), -32022),
        ("tools/list", json!({"cursor": "x"}), -32602),
        ("tools/list", json!([]), -32602),
        ("tools/call", json!({"name": "restart"}), -32602),
        ("tools/call", json!({}), -32602),
    ] {
        let error = Rig::attached().error(method, &params);
        assert_eq!(error["code"], expected, "{method} {params}: {error}");
        if expected == -32022 {
            assert_eq!(error["data"]["supported"], json!(["2026-07-28"]));
            assert!(error["data"]["requested"].is_string());
        }
    }
}

#[test]
fn garbage_is_answered_and_the_conversation_goes_on() {
    let mut rig = Rig::new();
    for (line, code) in
        [("{", -32700), ("[]", -32600), ("7", -32600), (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, -32600)]
    {
        rig.hand(Event::Line(line.into()));
        assert_eq!(rig.wrote.remove(0)["error"]["code"], code, "{line}");
    }
    rig.hand(Event::LineTooLong);
    assert_eq!(rig.wrote.remove(0)["error"]["code"], -32600);
    rig.hand(Event::Line(" \r".into()));
    assert_eq!(rig.result("ping", &json!({})), json!({}));
}

#[test]
fn notifications_and_answers_are_silent() {
    let mut rig = Rig::new();
    for message in [
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}),
        json!({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "status"}}),
        json!({"jsonrpc": "2.0", "id": 5, "result": {}}),
    ] {
        rig.line(&message);
    }
    assert!(rig.wrote.is_empty() && rig.asked.is_empty(), "{:?}", rig.wrote);
}

#[test]
fn tool_shows_the_running_tunnel_and_its_endpoint() {
    for (params, kind) in [(json!({}), None), (modern(&json!({})), Some(json!("complete")))] {
        let mut rig = Rig::attached();
        let mut params = params;
        params["name"] = "status".into();
        rig.line(&request("tools/call", &params));
        assert!(rig.wrote.is_empty());
        rig.report();
        let result = rig.wrote.remove(0)["result"].clone();
        let text = result["content"][0]["text"].as_str().expect("a text");
        for word in ["https://t.example/mcp", "laptop", "files: ready, 11 tools", "web: failed (no such program)"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert_eq!(result["structuredContent"]["endpoint"], "https://t.example/mcp");
        assert_eq!(result["structuredContent"]["status"]["device"], "laptop");
        assert_eq!((result.get("resultType"), &result["isError"]), (kind.as_ref(), &json!(false)));
    }
}

#[test]
fn tool_says_what_to_run_where_only_a_person_helps() {
    for (farewell, word) in [
        (Farewell::Stopped, "mcp-local-tunnel start"),
        (Farewell::NeedsLogin { reason: "revoked".into() }, "mcp-local-tunnel login"),
        (Farewell::Refused { reason: "go away".into() }, "go away"),
    ] {
        let mut rig = Rig::attached();
        rig.lose(Some(farewell));
        rig.hand(Event::Link(link::Event::Nobody { credentials: None, stopped: false }));
        let answer = rig.ask(&call(&json!(1)));
        let text = answer["result"]["content"][0]["text"].as_str().expect("a text");
        assert!(text.contains(word) && text.contains("https://t.example/mcp"), "{text}");
        assert!(answer["result"]["structuredContent"]["problem"].is_string());
    }
}

#[test]
fn call_waits_for_the_agent_that_is_starting() {
    let mut rig = Rig::new();
    rig.line(&call(&json!("early")));
    rig.hand(Event::Link(link::Event::Nobody { credentials: Some(1), stopped: false }));
    assert!(rig.wrote.is_empty());
    rig.pass(limits::ATTACH_POLL);
    assert!(rig.asked.is_empty());
    rig.stub.handle_timeout(Now { instant: rig.now.instant + limits::ATTACH_POLL, ..rig.now });
    rig.attach();
    rig.report();
    assert_eq!(rig.wrote.remove(0)["id"], "early");
}

#[test]
fn call_is_answered_in_time_whatever_happens() {
    let mut rig = Rig::new();
    rig.line(&call(&json!(1)));
    rig.pass(limits::STUB_CALL);
    assert_eq!(rig.wrote.len(), 1, "the agent never came");
    let mut rig = Rig::attached();
    rig.line(&call(&json!(1)));
    let job = rig.asked.remove(0);
    rig.hand(Event::Status { job, outcome: Err("broken".into()) });
    assert!(rig.wrote.is_empty());
    rig.pass(limits::STUB_CALL);
    assert_eq!(rig.wrote.len(), 1, "the agent never answered");
    rig.hand(Event::Status { job, outcome: Ok(Bytes::from_static(b"{}")) });
    assert_eq!(rig.wrote.len(), 1, "late");
}

#[test]
fn call_that_the_agent_died_over_is_asked_of_the_next() {
    let mut rig = Rig::attached();
    rig.line(&call(&json!(1)));
    let job = rig.asked.remove(0);
    rig.hand(Event::Status { job, outcome: Err("reset".into()) });
    rig.lose(None);
    rig.now.instant = rig.stub.poll_timeout().expect("looks again").at;
    rig.stub.handle_timeout(rig.now);
    rig.drain();
    rig.attach();
    rig.report();
    assert_eq!(rig.wrote.len(), 1);
}

#[test]
fn agent_of_a_strange_version_is_said_to_be_one() {
    let mut rig = Rig::attached();
    rig.line(&call(&json!(1)));
    let job = rig.asked.remove(0);
    rig.hand(Event::Status { job, outcome: Ok(Bytes::from_static(b"{\"error\":\"?\"}")) });
    assert!(rig.wrote.remove(0).to_string().contains("another version"));
}

#[test]
fn calls_are_bounded() {
    let mut rig = Rig::attached();
    for id in 0..limits::MAX_STUB_CALLS {
        rig.line(&call(&json!(id)));
    }
    assert!(rig.wrote.is_empty());
    assert_eq!(rig.ask(&call(&json!("over")))["error"]["code"], -32013);
    rig.report();
    assert_eq!(rig.wrote.len(), limits::MAX_STUB_CALLS);
}

#[test]
fn batch_is_answered_as_one_in_the_revision_that_has_them() {
    let mut rig = Rig::attached();
    let batch = json!([request("ping", &json!({})), call(&json!(2)), {"jsonrpc": "2.0", "method": "notifications/x"}]);
    assert_eq!(rig.ask(&batch)["error"]["code"], -32600, "not before the handshake");
    rig.result("initialize", &json!({"protocolVersion": "2025-03-26"}));
    rig.line(&batch);
    assert!(rig.wrote.is_empty(), "one call is open");
    rig.report();
    let answers = rig.wrote.remove(0);
    let ids: Vec<_> = answers.as_array().expect("an array").iter().map(|answer| answer["id"].clone()).collect();
    assert_eq!(ids, [json!(1), json!(2)]);
    rig.line(&json!([{"jsonrpc": "2.0", "method": "notifications/x"}]));
    assert!(rig.wrote.is_empty());
    assert_eq!(rig.ask(&json!([]))["error"]["code"], -32600);
}

#[test]
fn end_of_stdin_ends_it_once_all_is_answered() {
    let mut rig = Rig::attached();
    rig.hand(Event::InputEnded);
    assert!(rig.exited);
    rig.hand(Event::InputEnded);
    assert_eq!(rig.stub.poll_timeout(), None);
    let mut rig = Rig::attached();
    rig.line(&call(&json!(1)));
    rig.hand(Event::InputEnded);
    assert!(!rig.exited);
    rig.report();
    assert!(rig.exited && rig.wrote.len() == 1);
}

proptest! {
    #[test]
    fn whatever_comes_is_answered_with_json_or_nothing(lines in prop::collection::vec("[\\[\\]{}\":,a-z0-9 ]{0,40}", 0..8)) {
        let mut rig = Rig::attached();
        for line in lines {
            rig.hand(Event::Line(line.into()));
        }
    }
}
