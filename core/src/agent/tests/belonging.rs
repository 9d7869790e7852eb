//! To whom what a server tells belongs, when several clients use it.

use std::format;

use super::bridging::asked;
use super::*;
use crate::mcp::code;

const A: ChildId = ChildId(1);
const TASK: &str = "io.modelcontextprotocol/related-task";

fn note(method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "method": format!("notifications/{method}"), "params": params})
}

fn log(level: &str) -> Value {
    note("message", &json!({"level": level, "data": "d"}))
}

/// A modern client's call that wants to hear from this level on; none: that wants to hear nothing.
fn modern(rig: &mut Rig, stream: u32, level: Option<&str>) {
    let meta = level.map_or(json!({}), |level| json!({"io.modelcontextprotocol/logLevel": level}));
    rig.modern_call(stream, "a", "tools/call", &json!({"name": "tool", "_meta": meta}).to_string());
}

/// The streams that heard exactly that.
fn streams(rig: &mut Rig, json: &Value) -> Vec<u32> {
    let messages = rig.messages();
    assert!(messages.iter().all(|(_, message, _)| message == json), "{messages:?}");
    messages.into_iter().map(|(stream, _, _)| stream).collect()
}

/// A legacy session's call, and its id at the server.
fn call(rig: &mut Rig, stream: u32, session: &str) -> Value {
    let can = json!({"elicitation": {"url": {}}, "sampling": {}});
    rig.call_as(stream, session, &can, "tools/call", r#"{"name":"tool"}"#);
    asked(rig, A)["id"].clone()
}

fn for_session(session: &str, json: &Value) -> Vec<(String, Value)> {
    Vec::from([(session.to_string(), json.clone())])
}

#[test]
fn log_of_a_process_that_works_for_one_session_goes_to_its_newest_call() {
    let mut rig = Rig::ready(&["a"]);
    rig.call_in(1, "one");
    rig.call_in(2, "one");
    modern(&mut rig, 3, None);
    rig.say(A, &log("info"));
    assert_eq!((streams(&mut rig, &log("info")), rig.notices()), (Vec::from([2]), Vec::new()));
}

#[test]
fn log_that_may_be_anybodys_is_heard_once_by_each_session_and_by_the_calls_that_asked_for_it() {
    let mut rig = Rig::ready(&["a"]);
    rig.call_in(1, "one");
    rig.call_in(2, "two");
    for (stream, level) in [(3, Some("debug")), (4, Some("error")), (5, None), (6, Some("info"))] {
        modern(&mut rig, stream, level);
    }
    for (level, hearers) in [("info", &[3, 6][..]), ("debug", &[3]), ("alert", &[3, 4, 6])] {
        rig.say(A, &log(level));
        assert_eq!(streams(&mut rig, &log(level)), hearers, "{level}");
        assert_eq!(rig.notices(), for_session("", &log(level)), "nobody said what they want");
    }
}

#[test]
fn log_with_a_progress_token_is_that_calls_alone_under_its_clients_own_token() {
    for place in ["meta", "params"] {
        let mut rig = Rig::ready(&["a"]);
        rig.call_as(1, "one", &json!({}), "tools/call", r#"{"_meta":{"progressToken":"mine"}}"#);
        let token = asked(&mut rig, A)["params"]["_meta"]["progressToken"].clone();
        rig.call_in(2, "two");
        modern(&mut rig, 3, Some("debug"));
        let said = |token: &Value| match place {
            "meta" => note("message", &json!({"level": "info", "_meta": {"progressToken": token}})),
            _ => note("message", &json!({"level": "info", "progressToken": token})),
        };
        rig.say(A, &said(&token));
        let mine = said(&json!("mine"));
        assert_eq!((streams(&mut rig, &mine), rig.notices()), (Vec::from([1]), Vec::new()), "{place}");
        // That of a call which gave none is nobody's.
        let other = said(&json!(token.as_u64().unwrap() + 1));
        rig.say(A, &other);
        assert_eq!(streams(&mut rig, &other), [3], "{place}");
        assert_eq!(rig.notices(), for_session("", &other), "{place}");
    }
}

#[test]
fn page_that_was_visited_is_told_to_the_session_that_was_asked_to() {
    let mut rig = Rig::ready(&["a"]);
    let first = call(&mut rig, 1, "one");
    let done = |id: &str| note("elicitation/complete", &json!({"elicitationId": id}));
    let params = json!({"mode": "url", "message": "m", "url": "https://a.example", "elicitationId": "e1"});
    rig.say(A, &json!({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": params}));
    assert_eq!(rig.messages().len(), 1);
    call(&mut rig, 2, "two");
    rig.say(A, &done("e1"));
    assert_eq!((streams(&mut rig, &done("e1")), rig.notices()), (Vec::from([1]), Vec::new()));
    rig.answer(A, &first, json!({}));
    rig.say(A, &done("e1"));
    assert_eq!((streams(&mut rig, &done("e1")), rig.notices()), (Vec::new(), for_session("one", &done("e1"))));
    rig.written(A);
    call(&mut rig, 3, "one");
    rig.say(A, &done("e1"));
    assert_eq!((streams(&mut rig, &done("e1")), rig.notices()), (Vec::from([3]), Vec::new()), "a later call of it");
    rig.say(A, &done("other"));
    assert_eq!(rig.notices(), for_session("", &done("other")), "nobody knows whose it is");
}

#[test]
fn page_that_an_error_wants_visited_is_its_calls_sessions() {
    let mut rig = Rig::ready(&["a"]);
    let id = call(&mut rig, 1, "one");
    let pages = json!([{"mode": "url", "url": "https://a.example", "elicitationId": "e1", "message": "m"}]);
    let error = json!({"code": code::URL_ELICITATION_REQUIRED, "message": "m", "data": {"elicitations": pages}});
    rig.say(A, &json!({"jsonrpc": "2.0", "id": id, "error": error}));
    let done = note("elicitation/complete", &json!({"elicitationId": "e1"}));
    rig.say(A, &done);
    assert_eq!(rig.notices(), for_session("one", &done));
}

#[test]
fn page_that_a_modern_client_was_asked_to_visit_is_told_to_no_session() {
    let mut rig = Rig::ready(&["a"]);
    let able = json!({"io.modelcontextprotocol/clientCapabilities": {"elicitation": {"url": {}}}});
    rig.modern_call(1, "a", "tools/call", &json!({"name": "tool", "_meta": able}).to_string());
    let params = json!({"mode": "url", "message": "m", "url": "https://a.example", "elicitationId": "e1"});
    rig.say(A, &json!({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": params}));
    assert!(rig.answers()[0].2.contains("input_required"));
    rig.say(A, &note("elicitation/complete", &json!({"elicitationId": "e1"})));
    assert_eq!((rig.messages(), rig.notices()), (Vec::new(), Vec::new()));
}

#[test]
fn what_is_about_a_task_is_told_to_the_session_that_made_it() {
    let mut rig = Rig::ready(&["a"]);
    let id = call(&mut rig, 1, "one");
    rig.answer(A, &id, json!({"task": {"taskId": "t1", "status": "working"}}));
    call(&mut rig, 2, "two");
    let status = |id: &str| note("tasks/status", &json!({"taskId": id, "status": "completed"}));
    let vendor = note("vendor", &json!({"_meta": {TASK: {"taskId": "t1"}}}));
    let logged = note("message", &json!({"level": "info", "_meta": {TASK: {"taskId": "t1"}}}));
    for json in [status("t1"), vendor, logged] {
        rig.say(A, &json);
        assert_eq!((rig.messages(), rig.notices()), (Vec::new(), for_session("one", &json)));
    }
    call(&mut rig, 3, "three");
    rig.say(A, &status("other"));
    assert_eq!(rig.notices(), for_session("", &status("other")), "nobody knows whose it is");
}

#[test]
fn question_about_a_task_is_its_makers_whoever_else_calls() {
    let mut rig = Rig::ready(&["a"]);
    let id = call(&mut rig, 1, "one");
    rig.answer(A, &id, json!({"task": {"taskId": "t1", "status": "working"}}));
    call(&mut rig, 2, "two");
    let question = |id: u32| {
        let params = json!({"messages": [], "_meta": {TASK: {"taskId": "t1"}}});
        json!({"jsonrpc": "2.0", "id": id, "method": "sampling/createMessage", "params": params})
    };
    rig.say(A, &question(1));
    assert!(rig.messages().is_empty(), "its maker has no call open");
    assert_eq!(rig.notices(), for_session("one", &question(1)), "and is asked where it listens");
    call(&mut rig, 3, "one");
    call(&mut rig, 4, "two");
    rig.say(A, &question(2));
    assert_eq!(streams(&mut rig, &question(2)), [3]);
}

#[test]
fn question_during_a_start_is_that_of_the_only_session_that_waits() {
    let roots = json!({"jsonrpc": "2.0", "id": 1, "method": "roots/list"});
    for (sessions, expected) in
        [(&["one"][..], Ok(1)), (&["one", "one"], Ok(2)), (&["one", "two"], Err(code::AMBIGUOUS))]
    {
        let mut rig = Rig::ready(&["a"]);
        rig.exited(A, 1, "");
        for (stream, session) in (1..).zip(sessions) {
            rig.call_in(stream, session);
        }
        rig.advance(crate::limits::RESTART_MAX);
        let child = rig.spawned("a").expect("it is started again");
        rig.event(Event::Spawned { child, pid: 100 });
        rig.greet(child);
        rig.written(child);
        rig.say(child, &roots);
        match expected {
            Ok(stream) => {
                assert_eq!(streams(&mut rig, &roots), [stream], "{sessions:?}");
                let answer = json!({"jsonrpc": "2.0", "id": 1, "result": {"roots": []}});
                rig.client_says(stream, &answer);
                assert_eq!(asked(&mut rig, child), answer);
            }
            Err(code) => assert_eq!(asked(&mut rig, child)["error"]["code"], code, "{sessions:?}"),
        }
    }
}
