//! Clients and servers of different eras.

use super::*;
use crate::limits;
use crate::mcp::code;

pub(super) const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
pub(super) const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const LISTS: &str = r#"{"tools":[{"name":"t"}],"resources":[],"resourceTemplates":[],"prompts":[]}"#;
const A: ChildId = ChildId(1);

pub(super) fn modern_config(era: EraChoice) -> AgentConfig {
    let mut config = config(&[]);
    config.servers.insert("a".to_string(), ServerConfig { life: Life { era, ..Life::default() }, ..stdio("a") });
    config
}

/// An agent with a modern server `a` that speaks these versions and can do this; the tunnel up.
fn modern(versions: &[&str], capabilities: &Value) -> Rig {
    listening(versions, capabilities).0
}

/// The same of which it is not known whether it speaks the legacy era.
fn trying(versions: &[&str], capabilities: &Value) -> Rig {
    start(modern_config(EraChoice::Auto), versions, capabilities).0
}

/// A modern one, and the id of our own subscription there.
pub(super) fn listening(versions: &[&str], capabilities: &Value) -> (Rig, Value) {
    start(modern_config(EraChoice::Modern), versions, capabilities)
}

fn start(config: AgentConfig, versions: &[&str], capabilities: &Value) -> (Rig, Value) {
    let mut rig = Rig::new(config, Some("minted"));
    rig.event(Event::Start { person: Person::Absent });
    let child = rig.spawned("a").unwrap();
    rig.event(Event::Spawned { child, pid: 100 });
    let asked = rig.written(child).remove(0);
    rig.answer(child, &asked["id"], json!({"supportedVersions": versions, "capabilities": capabilities}));
    let mut listen = Value::Null;
    while let Some(asked) = rig.written(child).pop() {
        match asked["method"].as_str() {
            Some("subscriptions/listen") => listen = asked["id"].clone(),
            _ => rig.answer(child, &asked["id"], LISTS.parse().unwrap()),
        }
    }
    rig.connect(Dialect::V2);
    rig.commands();
    (rig, listen)
}

/// The same with a legacy one.
pub(super) fn legacy(capabilities: &Value) -> Rig {
    let mut rig = Rig::started(&["a"]);
    let child = rig.spawned("a").unwrap();
    rig.event(Event::Spawned { child, pid: 100 });
    let asked = rig.written(child).remove(0);
    let about = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": {"name": "old"},
        "instructions": "i"});
    rig.answer(child, &asked["id"], about);
    while let Some(list) = rig.written(child).pop() {
        rig.answer(child, &list["id"], LISTS.parse().unwrap());
    }
    rig.connect(Dialect::V2);
    rig.commands();
    rig.actions.clear();
    rig
}

pub(super) fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The only answer that was sent.
pub(super) fn answer(rig: &mut Rig) -> (u32, Option<i64>, Value) {
    let answers = rig.answers();
    let [(stream, code, body)] = &answers[..] else { panic!("{answers:?}") };
    (*stream, *code, value(body))
}

pub(super) fn asked(rig: &mut Rig, child: ChildId) -> Value {
    let mut written = rig.written(child);
    assert_eq!(written.len(), 1, "{written:?}");
    written.remove(0)
}

pub(super) fn able() -> Value {
    json!({"sampling": {}, "elicitation": {}, "roots": {}})
}

/// A modern client's call of a tool.
pub(super) fn params(more: &Value) -> String {
    let mut params = json!({"name": "t", "arguments": {"x": 1}, "_meta": {CAPABILITIES: able()}});
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    params.to_string()
}

#[test]
fn legacy_call_says_what_the_handshake_said() {
    let mut rig = modern(&["2026-07-28"], &json!({"tools": {}}));
    rig.call_as(1, "s", &json!({"roots": {}}), "logging/setLevel", r#"{"level":"error"}"#);
    assert_eq!(rig.answers(), [(1, None, "{}".to_string())], "a modern server has no such method");
    rig.call_as(2, "s", &json!({"roots": {}}), "tools/call", r#"{"name":"t","_meta":{"progressToken":"p"}}"#);
    let call = asked(&mut rig, A);
    let meta = &call["params"]["_meta"];
    assert_eq!((&meta[CAPABILITIES], &meta[LOG_LEVEL]), (&json!({"roots": {}}), &json!("error")));
    assert_eq!(meta["progressToken"], call["id"]);
    let result = json!({"resultType": "complete", "content": []});
    rig.answer(A, &call["id"], result.clone());
    assert_eq!(answer(&mut rig), (2, None, result));
    rig.call_as(3, "s", &json!({}), "ping", "");
    assert_eq!(rig.answers(), [(3, None, "{}".to_string())]);
    rig.call_as(4, "s", &json!({}), "subscriptions/listen", "{}");
    assert_eq!(answer(&mut rig).1, Some(code::METHOD_NOT_FOUND));
}

#[test]
fn input_required_asks_the_legacy_client_and_sends_the_call_again() {
    let mut rig = modern(&["2026-07-28"], &json!({"tools": {}}));
    rig.call_as(1, "s", &able(), "tools/call", r#"{"name":"t","arguments":{"n":1.50},"_meta":{"progressToken":"p"}}"#);
    let first = asked(&mut rig, A);
    let requests =
        json!({"a": {"method": "elicitation/create", "params": {"message": "m"}}, "b": {"method": "roots/list"}});
    rig.answer(
        A,
        &first["id"],
        json!({"resultType": "input_required", "inputRequests": requests, "requestState": "s\u{e9}"}),
    );
    assert!(rig.answers().is_empty());
    let questions = rig.messages();
    assert_eq!(questions.len(), 2);
    assert_eq!(questions[0].1["params"], json!({"message": "m"}));
    assert_eq!((questions[1].0, &questions[1].1["method"], questions[1].2), (1, &json!("roots/list"), false));
    rig.client_says(1, &json!({"jsonrpc": "2.0", "id": 999, "result": {}}));
    rig.client_says(1, &json!({"jsonrpc": "2.0", "id": questions[1].1["id"], "result": {"roots": []}}));
    assert!(rig.written(A).is_empty(), "one answer is missing");
    rig.client_says(1, &json!({"jsonrpc": "2.0", "id": questions[0].1["id"], "result": {"action": "decline"}}));
    let second = asked(&mut rig, A);
    assert_ne!(second["id"], first["id"]);
    assert_eq!(second["params"]["inputResponses"], json!({"a": {"action": "decline"}, "b": {"roots": []}}));
    assert_eq!(
        (&second["params"]["requestState"], &second["params"]["arguments"]),
        (&json!("s\u{e9}"), &json!({"n": 1.5}))
    );
    assert_eq!(second["params"]["_meta"]["progressToken"], second["id"]);
    rig.say(A, &json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": second["id"], "progress": 1}}));
    assert_eq!(rig.messages()[0].1["params"]["progressToken"], "p");
    rig.answer(A, &second["id"], json!({"resultType": "complete"}));
    assert_eq!(answer(&mut rig).0, 1);
    assert_eq!(rig.server_status("a").calls, 0);
}

#[test]
fn input_told_by_its_session_finds_the_run_that_asked_whatever_run_it_has_now() {
    let mut rig = Rig::new(modern_config(EraChoice::Auto), Some("minted"));
    rig.event(Event::Start { person: Person::Absent });
    let child = rig.spawned("a").unwrap();
    rig.event(Event::Spawned { child, pid: 100 });
    let discover = asked(&mut rig, child);
    rig.connect(Dialect::V2);
    rig.call_as(1, "s", &able(), "tools/call", r#"{"name":"t"}"#);
    let both = json!({"supportedVersions": ["2026-07-28", "2025-11-25"], "capabilities": {"tools": {}}});
    rig.answer(child, &discover["id"], both);
    let mut call = Value::Null;
    loop {
        let written = rig.written(child);
        if written.is_empty() {
            break;
        }
        for asked in written {
            match asked["method"].as_str() {
                Some("tools/call") => call = asked,
                Some("tools/list") => rig.answer(child, &asked["id"], LISTS.parse().unwrap()),
                _ => {}
            }
        }
    }
    let requests = json!({"b": {"method": "roots/list"}});
    rig.answer(child, &call["id"], json!({"resultType": "input_required", "inputRequests": requests}));
    let roots = json!({"jsonrpc": "2.0", "id": rig.messages()[0].1["id"], "result": {"roots": []}});
    rig.call_as(2, "t", &able(), "tools/call", r#"{"name":"t"}"#);
    assert!(rig.spawned("a").is_some(), "legacy clients have a run of their own from now on");
    rig.session_says("s", &roots);
    assert_eq!(asked(&mut rig, child)["params"]["inputResponses"], json!({"b": {"roots": []}}));
}

#[test]
fn input_may_be_told_by_the_session_that_is_asked_for_it() {
    let mut rig = modern(&["2026-07-28"], &json!({"tools": {}}));
    rig.call_as(1, "s", &able(), "tools/call", r#"{"name":"t"}"#);
    let first = asked(&mut rig, A);
    let requests = json!({"b": {"method": "roots/list"}});
    rig.answer(A, &first["id"], json!({"resultType": "input_required", "inputRequests": requests}));
    let roots = json!({"jsonrpc": "2.0", "id": rig.messages()[0].1["id"], "result": {"roots": []}});
    for session in ["t", "s", "s"] {
        rig.session_says(session, &roots);
    }
    let sent = rig.written(A);
    assert_eq!(sent.len(), 1, "by that session alone, and once");
    assert_eq!(sent[0]["params"]["inputResponses"], json!({"b": {"roots": []}}));
}

#[test]
fn state_without_questions_is_sent_back_at_once_and_not_for_ever() {
    let mut rig = modern(&["2026-07-28"], &json!({"tools": {}}));
    rig.call_as(1, "s", &able(), "tools/call", r#"{"name":"t"}"#);
    for round in 0..limits::MAX_ROUNDS {
        let call = asked(&mut rig, A);
        assert_eq!(call["params"]["requestState"].is_null(), round == 0);
        rig.answer(A, &call["id"], json!({"resultType": "input_required", "requestState": "s"}));
    }
    let call = asked(&mut rig, A);
    rig.answer(A, &call["id"], json!({"resultType": "input_required", "requestState": "s"}));
    assert_eq!(answer(&mut rig).1, Some(code::INTERNAL_ERROR));
    assert_eq!(rig.server_status("a").calls, 0);
}

#[test]
fn errors_of_the_modern_era_are_told_in_words_of_the_legacy_one() {
    let mut rig = modern(&["2026-07-28"], &json!({"tools": {}}));
    rig.call_as(1, "s", &json!({}), "tools/call", r#"{"name":"t"}"#);
    let call = asked(&mut rig, A);
    let error = json!({"code": -32021, "message": "m", "data": {"requiredCapabilities": {"sampling": {}}}});
    rig.say(A, &json!({"jsonrpc": "2.0", "id": call["id"], "error": error}));
    let mut told = error;
    told["code"] = json!(-32602);
    assert_eq!(answer(&mut rig), (1, Some(-32602), told));
}

#[test]
fn extensions_are_not_told_to_clients_that_are_bridged() {
    let capabilities = json!({"tools": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}});
    let told = |rig: &mut Rig| {
        rig.tunnel(tunnel::Event::Up(Hello::default()));
        rig.catalogs().pop().expect("a catalog")["servers"][0].clone()
    };
    let server = told(&mut modern(&["2026-07-28"], &capabilities));
    assert_eq!((&server["capabilities"], &server["legacy"]), (&capabilities, &json!({"capabilities": {"tools": {}}})));
    assert!(told(&mut modern(&["2026-07-28"], &json!({"tools": {}})))["legacy"].is_null());
    assert!(told(&mut trying(&["2026-07-28"], &capabilities))["legacy"].is_null(), "it may speak their era");
}

#[test]
fn methods_of_the_modern_era_come_to_no_legacy_run() {
    for mut rig in [legacy(&json!({"tools": {}})), modern(&["2026-07-28"], &json!({"tools": {}}))] {
        for (stream, method) in [(1, "server/discover"), (2, "subscriptions/listen")] {
            rig.call_as(stream, "s", &json!({}), method, "{}");
            assert_eq!(answer(&mut rig).1, Some(code::METHOD_NOT_FOUND), "{method}");
        }
        assert!(rig.written(A).is_empty());
    }
    // Nor does it begin one.
    let mut rig = trying(&["2026-07-28", "2025-11-25"], &json!({"tools": {}}));
    rig.call_as(1, "s", &json!({}), "server/discover", "{}");
    assert_eq!((answer(&mut rig).1, rig.spawned("a")), (Some(code::METHOD_NOT_FOUND), None));
}

#[test]
fn what_a_legacy_client_cannot_answer_ends_its_call() {
    let ask = |rig: &mut Rig, requests: Value| {
        rig.call_as(1, "s", &json!({"roots": {}}), "tools/call", r#"{"name":"t"}"#);
        let call = asked(rig, A);
        rig.answer(A, &call["id"], json!({"resultType": "input_required", "inputRequests": requests}));
    };
    let mut rig = modern(&["2026-07-28"], &json!({"tools": {}}));
    ask(&mut rig, json!({"a": {"method": "sampling/createMessage", "params": {}}}));
    let (_, code, body) = answer(&mut rig);
    assert_eq!(code, Some(code::INVALID_PARAMS));
    assert_eq!(body["data"], json!({"requiredCapabilities": {"sampling": {}}}));
    ask(&mut rig, json!({"a": {"method": "vendor/other"}}));
    let (_, code, body) = answer(&mut rig);
    assert_eq!((code, body.get("data")), (Some(code::INTERNAL_ERROR), None), "no capability stands for that");
    ask(&mut rig, json!([]));
    assert_eq!(answer(&mut rig).1, Some(code::INTERNAL_ERROR));
    rig.messages();
    ask(&mut rig, json!({"a": {"method": "roots/list"}}));
    let id = rig.messages()[0].1["id"].clone();
    rig.client_says(1, &json!({"jsonrpc": "2.0", "id": id, "error": {"code": -1, "message": "no \"roots\""}}));
    let (_, code, body) = answer(&mut rig);
    assert_eq!(code, Some(code::INTERNAL_ERROR));
    assert!(body["message"].as_str().unwrap().contains("no \"roots\""));
    assert!(rig.written(A).is_empty() && rig.server_status("a").calls == 0);
}

#[test]
fn call_that_is_cancelled_while_its_client_is_asked_is_not_sent_again() {
    let mut rig = modern(&["2026-07-28"], &json!({"tools": {}}));
    rig.call_as(1, "s", &able(), "tools/call", r#"{"name":"t"}"#);
    let call = asked(&mut rig, A);
    rig.answer(
        A,
        &call["id"],
        json!({"resultType": "input_required", "inputRequests": {"a": {"method": "roots/list"}}}),
    );
    let id = rig.messages()[0].1["id"].clone();
    rig.reset(1);
    rig.client_says(1, &json!({"jsonrpc": "2.0", "id": id, "result": {"roots": []}}));
    assert!(rig.written(A).is_empty(), "and nothing is open there that could be cancelled");
    assert_eq!(rig.server_status("a").calls, 0);
}

#[test]
fn resource_that_is_not_found_is_so_in_the_legacy_era_too() {
    let mut rig = modern(&["2026-07-28"], &json!({"tools": {}}));
    rig.call_as(1, "s", &json!({}), "resources/read", r#"{"uri":"a:b"}"#);
    let call = asked(&mut rig, A);
    rig.say(A, &json!({"jsonrpc": "2.0", "id": call["id"], "error": {"code": -32602, "message": "m"}}));
    assert_eq!(answer(&mut rig), (1, Some(-32002), json!({"code": -32002, "message": "m"})));
}

#[test]
fn server_of_both_eras_has_a_run_for_legacy_clients() {
    let mut rig = trying(&["2026-07-28", "2025-11-25"], &json!({"tools": {}}));
    rig.modern_call(1, "a", "tools/call", r#"{"name":"t"}"#);
    assert_eq!(asked(&mut rig, A)["params"], json!({"name": "t"}));
    rig.call_as(2, "s", &json!({}), "tools/call", r#"{"name":"t"}"#);
    rig.call_as(3, "t", &json!({}), "tools/call", r#"{"name":"t"}"#);
    assert!(rig.written(A).is_empty());
    let branch = rig.spawned("a").expect("a process of its own");
    rig.event(Event::Spawned { child: branch, pid: 101 });
    rig.greet(branch);
    let list = rig.written(branch).pop().unwrap();
    rig.answer(branch, &list["id"], json!({"tools": [{"name": "t"}]}));
    let calls = rig.written(branch);
    assert_eq!((calls.len(), &calls[0]["params"]), (2, &json!({"name": "t"})), "one for all, and unbridged");
    for call in calls {
        rig.answer(branch, &call["id"], json!({}));
    }
    assert_eq!(rig.answers().len(), 2);
    rig.advance(limits::SESSION_IDLE);
    let closed = rig.take(|action| match action {
        Action::CloseStdin { child } => Some(*child),
        _ => None,
    });
    assert_eq!(closed, Some(branch), "when nobody uses it, it ends");
    rig.exited(branch, 0, "");
    assert_eq!(rig.server_status("a").state, crate::mcp::catalog::State::Ready);
}

#[test]
fn server_of_the_modern_era_alone_is_found_out_once_and_bridged() {
    for ends in [false, true] {
        let mut rig = trying(&["2026-07-28"], &json!({"tools": {}}));
        rig.call_as(1, "s", &json!({}), "tools/call", r#"{"name":"t"}"#);
        let branch = rig.spawned("a").unwrap();
        rig.event(Event::Spawned { child: branch, pid: 101 });
        let initialize = rig.written(branch).remove(0);
        assert_eq!(initialize["method"], "initialize");
        match ends {
            true => rig.exited(branch, 1, ""),
            false => {
                let error = json!({"code": -32601, "message": "m"});
                rig.say(branch, &json!({"jsonrpc": "2.0", "id": initialize["id"], "error": error}));
            }
        }
        let call = asked(&mut rig, A);
        assert_eq!(call["params"]["_meta"][CAPABILITIES], json!({}), "the call that waited is bridged");
        rig.answer(A, &call["id"], json!({}));
        assert_eq!(answer(&mut rig), (1, None, json!({})));
        rig.call_as(2, "s", &json!({}), "tools/call", r#"{"name":"t"}"#);
        assert!(rig.spawned("a").is_none(), "it is not tried again");
        asked(&mut rig, A);
    }
}

#[test]
fn sessions_own_runs_are_tried_too() {
    let life = Life { isolation: crate::config::Isolation::Session, ..Life::default() };
    let mut config = config(&[]);
    config.servers.insert("a".to_string(), ServerConfig { life, ..stdio("a") });
    let mut rig = Rig::new(config, Some("minted"));
    rig.event(Event::Start { person: Person::Absent });
    rig.event(Event::Recalled { server: "a".to_string(), catalog: None });
    let learn = |rig: &mut Rig, child: ChildId| {
        rig.event(Event::Spawned { child, pid: 100 });
        let asked = rig.written(child).remove(0);
        assert_eq!(asked["method"], "server/discover");
        rig.answer(child, &asked["id"], json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}));
        let list = rig.written(child).pop().unwrap();
        rig.answer(child, &list["id"], LISTS.parse().unwrap());
    };
    let main = rig.spawned("a").unwrap();
    learn(&mut rig, main);
    rig.exited(main, 0, "");
    rig.connect(Dialect::V2);
    rig.call_as(1, "s", &json!({"roots": {}}), "tools/call", r#"{"name":"t"}"#);
    let tried = rig.spawned("a").unwrap();
    rig.event(Event::Spawned { child: tried, pid: 101 });
    assert_eq!(rig.written(tried).remove(0)["method"], "initialize");
    rig.exited(tried, 1, "");
    let own = rig.spawned("a").expect("its session has a run of its own all the same");
    learn(&mut rig, own);
    assert_eq!(asked(&mut rig, own)["params"]["_meta"][CAPABILITIES], json!({"roots": {}}));
    assert!(rig.spawned("a").is_none());
}

// --- a modern client, a legacy server

#[test]
fn results_and_errors_of_a_legacy_server_are_modern_ones() {
    let mut rig = legacy(&json!({"tools": {}}));
    rig.modern_call(1, "a", "tools/call", &params(&json!({})));
    let call = asked(&mut rig, A);
    let mut sent = value(&params(&json!({})));
    sent.as_object_mut().unwrap().remove("_meta");
    assert_eq!(call["params"], sent, "without what only the modern era says");
    rig.answer(A, &call["id"], json!({"content": []}));
    assert_eq!(answer(&mut rig), (1, None, json!({"content": [], "resultType": "complete"})));
    rig.modern_call(2, "a", "resources/read", r#"{"uri":"a:b"}"#);
    let call = asked(&mut rig, A);
    rig.answer(A, &call["id"], json!({"contents": []}));
    let cached = json!({"contents": [], "resultType": "complete", "ttlMs": 0, "cacheScope": "private"});
    assert_eq!(answer(&mut rig), (2, None, cached));
    rig.modern_call(3, "a", "resources/read", r#"{"uri":"a:b"}"#);
    let call = asked(&mut rig, A);
    rig.say(A, &json!({"jsonrpc": "2.0", "id": call["id"], "error": {"code": -32002, "message": "m"}}));
    assert_eq!(answer(&mut rig), (3, Some(-32602), json!({"code": -32602, "message": "m"})));
    rig.modern_call(4, "a", "vendor/x", "{}");
    let call = asked(&mut rig, A);
    rig.say(A, &json!({"jsonrpc": "2.0", "id": call["id"], "error": {"code": -32601, "message": "m"}}));
    assert_eq!(answer(&mut rig).1, Some(-32601));
}

#[test]
fn discovery_is_answered_from_the_handshake_and_removed_methods_are_unknown() {
    let mut rig = legacy(&json!({"tools": {}, "x": 1}));
    rig.modern_call(1, "a", "server/discover", "{}");
    let (_, code, body) = answer(&mut rig);
    assert_eq!(
        (code, &body["capabilities"], &body["instructions"]),
        (None, &json!({"tools": {}, "x": 1}), &json!("i"))
    );
    assert_eq!(body["supportedVersions"][0], "2026-07-28");
    for (stream, method) in [
        (2, "ping"),
        (3, "logging/setLevel"),
        (4, "resources/subscribe"),
        (5, "resources/unsubscribe"),
        (6, "initialize"),
    ] {
        rig.modern_call(stream, "a", method, "{}");
        assert_eq!(answer(&mut rig).1, Some(code::METHOD_NOT_FOUND), "{method}");
    }
    assert!(rig.written(A).is_empty());
}

#[test]
fn subscription_to_too_much_names_the_limit() {
    let mut rig = legacy(&json!({"resources": {"subscribe": true}}));
    let uris: Vec<String> = (0..=limits::MAX_LISTENED).map(|n| std::format!("a:{n}")).collect();
    let params = json!({"notifications": {"resourceSubscriptions": uris}});
    rig.modern_call(1, "a", "subscriptions/listen", &params.to_string());
    let (_, code, body) = answer(&mut rig);
    assert_eq!(code, Some(code::INVALID_PARAMS));
    assert!(body["message"].as_str().unwrap().contains("256 URIs of 2048 bytes"), "{body}");
}

#[test]
fn log_is_heard_from_the_level_on_that_the_call_wants() {
    let mut rig = legacy(&json!({"tools": {}, "logging": {}}));
    let log = |level: &str| json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": level, "data": 1}});
    rig.modern_call(1, "a", "tools/call", r#"{"name":"t"}"#);
    let first = asked(&mut rig, A);
    rig.say(A, &log("emergency"));
    assert!(rig.messages().is_empty(), "who did not ask hears nothing");
    rig.answer(A, &first["id"], json!({}));
    rig.modern_call(2, "a", "tools/call", &json!({"name": "t", "_meta": {LOG_LEVEL: "warning"}}).to_string());
    let written = rig.written(A);
    assert_eq!(
        (&written[0]["method"], &written[0]["params"]["level"]),
        (&json!("logging/setLevel"), &json!("warning"))
    );
    rig.answer(A, &written[0]["id"], json!({}));
    rig.say(A, &log("info"));
    rig.say(A, &log("error"));
    let messages = rig.messages();
    assert_eq!((messages.len(), messages[0].0, &messages[0].1["params"]["level"]), (1, 2, &json!("error")));
}

#[test]
fn subscription_at_a_legacy_server_is_made_up() {
    let can = json!({"tools": {"listChanged": true}, "resources": {"subscribe": true}});
    let mut rig = legacy(&can);
    let filter = json!({"notifications": {"toolsListChanged": true, "promptsListChanged": true, "resourceSubscriptions": ["a:b"]}});
    rig.modern_call(1, "a", "subscriptions/listen", &filter.to_string());
    let messages = rig.messages();
    let (stream, ack, _) = &messages[0];
    assert_eq!((*stream, &ack["method"]), (1, &json!("notifications/subscriptions/acknowledged")));
    assert_eq!(ack["params"]["notifications"], json!({"toolsListChanged": true, "resourceSubscriptions": ["a:b"]}));
    let id = ack["params"]["_meta"][SUBSCRIPTION].clone();
    assert!(id.is_u64(), "the relay puts the client's own in its place");
    let subscribe = asked(&mut rig, A);
    assert_eq!((&subscribe["method"], &subscribe["params"]), (&json!("resources/subscribe"), &json!({"uri": "a:b"})));
    rig.modern_call(
        2,
        "a",
        "subscriptions/listen",
        &json!({"notifications": {"resourceSubscriptions": ["a:b"]}}).to_string(),
    );
    assert!(rig.written(A).is_empty(), "it is watched already");
    rig.messages();
    rig.say(A, &json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    rig.say(A, &json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "a:b"}}));
    let heard: Vec<(u32, Value)> =
        rig.messages().into_iter().map(|(stream, json, _)| (stream, json["method"].clone())).collect();
    let (tools, updated) = (json!("notifications/tools/list_changed"), json!("notifications/resources/updated"));
    assert_eq!(heard, [(1, tools), (1, updated.clone()), (2, updated)]);
    rig.reset(1);
    assert!(rig.written(A).is_empty(), "another still watches");
    rig.reset(2);
    assert_eq!(asked(&mut rig, A)["method"], "resources/unsubscribe");
}

#[test]
fn modern_subscription_is_passed_on_as_it_is_and_may_be_silent() {
    let mut rig = modern(&["2026-07-28"], &json!({"tools": {}}));
    let listen = json!({"notifications": {"toolsListChanged": true, "vendor": 1}}).to_string();
    rig.modern_call(1, "a", "subscriptions/listen", &listen);
    let call = asked(&mut rig, A);
    assert_eq!(call["params"], value(&listen));
    let note =
        json!({"jsonrpc": "2.0", "method": "notifications/vendor", "params": {"_meta": {SUBSCRIPTION: call["id"]}}});
    rig.say(A, &note);
    assert_eq!(rig.messages(), [(1, note, false)]);
    rig.advance(Duration::from_secs(24 * 3600));
    assert!(rig.answers().is_empty());
    rig.say(A, &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": call["id"]}}));
    assert_eq!(answer(&mut rig).1, None);
}
