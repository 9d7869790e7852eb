//! What sessions set at a server that they share.

use ::http::Method;

use super::*;
use crate::limits;
use crate::mcp::code;

const A: ChildId = ChildId(1);

fn log(level: &str) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": level, "data": "d"}})
}

fn updated(uri: &str) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}})
}

/// Calls a method, answers it as the server if it gets there, and returns what got there, and the answer.
fn ask(rig: &mut Rig, session: &str, method: &str, params: &Value, fails: bool) -> (Option<Value>, Option<i64>) {
    rig.call_as(9, session, &json!({}), method, &params.to_string());
    let asked = rig.written(A).pop();
    if let Some(asked) = &asked {
        let mut answer = json!({"jsonrpc": "2.0", "id": asked["id"]});
        match fails {
            true => answer["error"] = json!({"code": -32601, "message": "no"}),
            false => answer["result"] = json!({}),
        }
        rig.say(A, &answer);
    }
    let (_, code, _) = rig.answers().pop().expect("an answer");
    (asked.map(|asked| asked["params"].clone()), code)
}

/// Sets the level of a session; returns the level that the server was told.
fn set_level(rig: &mut Rig, session: &str, level: &str) -> Option<String> {
    let (told, code) = ask(rig, session, "logging/setLevel", &json!({"level": level}), false);
    assert_eq!(code, None);
    told.map(|params| params["level"].as_str().unwrap().to_string())
}

/// Whether the server hears of it.
fn watch(rig: &mut Rig, session: &str, how: &str, uri: &str) -> bool {
    let (told, code) = ask(rig, session, &std::format!("resources/{how}"), &json!({"uri": uri}), false);
    assert_eq!(code, None);
    told.is_some()
}

/// What the server is asked by the agent itself: method and params.
fn aside(rig: &mut Rig, child: ChildId) -> Vec<(String, Value)> {
    let requests = rig.written(child).into_iter().filter(|message| message.get("id").is_some());
    requests.map(|message| (message["method"].as_str().unwrap().to_string(), message["params"].clone())).collect()
}

#[test]
fn server_is_set_to_the_most_talkative_level_and_each_session_hears_its_own() {
    let mut rig = Rig::ready(&["a"]);
    assert_eq!(set_level(&mut rig, "one", "error").as_deref(), Some("error"));
    assert_eq!(set_level(&mut rig, "two", "debug").as_deref(), Some("debug"));
    assert_eq!(set_level(&mut rig, "one", "warning"), None, "it is as talkative as it has to be");
    assert_eq!(set_level(&mut rig, "two", "alert").as_deref(), Some("warning"), "nobody wants more any longer");
    for (level, hearers) in [("info", None), ("warning", Some("one")), ("emergency", Some("one two"))] {
        rig.say(A, &log(level));
        let expected: Vec<(String, Value)> = hearers.into_iter().map(|it| (it.to_string(), log(level))).collect();
        assert_eq!(rig.notices(), expected);
    }
}

#[test]
fn log_of_a_call_is_kept_from_a_session_that_does_not_want_it() {
    let mut rig = Rig::ready(&["a"]);
    set_level(&mut rig, "one", "error");
    rig.call_in(1, "one");
    rig.say(A, &log("info"));
    rig.say(A, &log("error"));
    assert_eq!(rig.messages(), [(1, log("error"), true)]);
    assert!(rig.notices().is_empty());
}

#[test]
fn level_that_the_server_refuses_counts_for_nothing() {
    let mut rig = Rig::ready(&["a"]);
    let (told, code) = ask(&mut rig, "one", "logging/setLevel", &json!({"level": "error"}), true);
    assert_eq!((told, code), (Some(json!({"level": "error"})), Some(-32601)));
    rig.say(A, &log("debug"));
    assert_eq!(rig.notices(), [(String::new(), log("debug"))]);
    assert_eq!(set_level(&mut rig, "two", "error").as_deref(), Some("error"), "asked anew");
    let (told, _) = ask(&mut rig, "one", "logging/setLevel", &json!({"level": "loud"}), true);
    assert_eq!(told, Some(json!({"level": "loud"})), "it can say itself what is wrong with it");
}

#[test]
fn refusal_of_a_level_comes_as_it_is_and_leaves_what_was_set_before() {
    let mut rig = Rig::ready(&["a"]);
    assert_eq!(set_level(&mut rig, "one", "warning").as_deref(), Some("warning"));
    for level in ["loud", "debug"] {
        rig.call_as(7, "one", &json!({}), "logging/setLevel", &json!({"level": level}).to_string());
        let asked = rig.written(A).remove(0);
        let error = r#"{"code":-32602,"message":"no","data":{"n":1.50}}"#;
        let line = std::format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, asked["id"]);
        rig.event(Event::Line { child: A, line: Bytes::from(line) });
        assert_eq!(rig.answers(), [(7, Some(-32602), error.to_string())], "{level}: word for word");
        rig.say(A, &log("info"));
        assert!(rig.notices().is_empty(), "{level}: the session still wants to hear warnings");
        rig.say(A, &log("warning"));
        assert_eq!(rig.notices(), [("one".to_string(), log("warning"))], "{level}");
    }
}

#[test]
fn level_that_is_refused_after_the_next_one_was_set_does_not_undo_that() {
    let mut rig = Rig::ready(&["a"]);
    for (stream, level) in [(1, "debug"), (2, "error")] {
        rig.call_as(stream, "one", &json!({}), "logging/setLevel", &json!({"level": level}).to_string());
    }
    let asked = rig.written(A);
    rig.say(A, &json!({"jsonrpc": "2.0", "id": asked[0]["id"], "error": {"code": -32602, "message": "no"}}));
    rig.answer(A, &asked[1]["id"], json!({}));
    rig.say(A, &log("warning"));
    assert!(rig.notices().is_empty());
    rig.say(A, &log("error"));
    assert_eq!(rig.notices(), [("one".to_string(), log("error"))]);
}

#[test]
fn resource_is_watched_for_as_long_as_anybody_watches_it() {
    let mut rig = Rig::ready(&["a"]);
    assert!(watch(&mut rig, "one", "subscribe", "test://x"));
    assert!(watch(&mut rig, "two", "subscribe", "test://x"));
    assert!(watch(&mut rig, "two", "subscribe", "test://y"));
    for (uri, watchers) in [("test://x", Some("one two")), ("test://y", Some("two")), ("test://z", None)] {
        rig.say(A, &updated(uri));
        let expected: Vec<(String, Value)> = watchers.into_iter().map(|it| (it.to_string(), updated(uri))).collect();
        assert_eq!(rig.notices(), expected);
    }
    assert!(!watch(&mut rig, "one", "unsubscribe", "test://x"), "another still watches it");
    rig.say(A, &updated("test://x"));
    assert_eq!(rig.notices(), [("two".to_string(), updated("test://x"))]);
    assert!(watch(&mut rig, "two", "unsubscribe", "test://x"));
    rig.say(A, &updated("test://x"));
    assert!(rig.notices().is_empty());
}

#[test]
fn subscription_that_the_server_refuses_or_does_not_answer_counts_for_nothing() {
    let mut rig = Rig::ready(&["a"]);
    let (_, code) = ask(&mut rig, "one", "resources/subscribe", &json!({"uri": "test://x"}), true);
    assert_eq!(code, Some(-32601));
    rig.call_as(1, "one", &json!({}), "resources/subscribe", r#"{"uri":"test://x"}"#);
    rig.reset(1);
    rig.say(A, &updated("test://x"));
    assert!(rig.notices().is_empty());
}

#[test]
fn subscriptions_are_bounded() {
    let mut rig = Rig::ready(&["a"]);
    for n in 0..limits::MAX_SUBSCRIPTIONS {
        watch(&mut rig, "one", "subscribe", &n.to_string());
    }
    let (told, code) = ask(&mut rig, "one", "resources/subscribe", &json!({"uri": "more"}), false);
    assert_eq!((told, code), (None, Some(code::OVERLOADED)));
    assert!(watch(&mut rig, "two", "subscribe", "more"));
}

#[test]
fn new_process_is_told_what_the_old_one_knew_before_any_call() {
    let mut rig = Rig::ready(&["a"]);
    set_level(&mut rig, "one", "warning");
    set_level(&mut rig, "two", "info");
    watch(&mut rig, "two", "subscribe", "test://x");
    rig.exited(A, 1, "boom");
    rig.call_in(1, "one");
    rig.advance(limits::RESTART_MAX);
    let child = rig.bring_up("a", &["tool"]);
    let asked = aside(&mut rig, child);
    let known = [("logging/setLevel", json!({"level": "info"})), ("resources/subscribe", json!({"uri": "test://x"}))];
    assert_eq!(asked[..2], known.map(|(method, params)| (method.to_string(), params)));
    assert_eq!(asked[2].0, "tools/call");
    rig.say(child, &updated("test://x"));
    assert_eq!(rig.notices(), [("two".to_string(), updated("test://x"))]);
}

#[test]
fn what_a_session_set_is_forgotten_with_it() {
    let mut rig = Rig::ready(&["a"]);
    set_level(&mut rig, "one", "error");
    set_level(&mut rig, "two", "debug");
    watch(&mut rig, "one", "subscribe", "test://x");
    watch(&mut rig, "two", "subscribe", "test://x");
    watch(&mut rig, "two", "subscribe", "test://y");
    rig.tunnel(tunnel::Event::SessionEnded { session: "two".to_string() });
    let ended =
        [("resources/unsubscribe", json!({"uri": "test://y"})), ("logging/setLevel", json!({"level": "error"}))];
    assert_eq!(aside(&mut rig, A), ended.map(|(method, params)| (method.to_string(), params)));
    rig.say(A, &updated("test://x"));
    rig.say(A, &log("error"));
    assert_eq!(rig.notices(), [("one".to_string(), updated("test://x")), ("one".to_string(), log("error"))]);
}

#[test]
fn calls_without_a_session_set_what_the_server_has_as_they_please() {
    let mut rig = Rig::ready(&["a"]);
    set_level(&mut rig, "one", "debug");
    let (told, _) = ask(&mut rig, "", "logging/setLevel", &json!({"level": "error"}), false);
    assert_eq!(told, Some(json!({"level": "error"})));
    assert_eq!(set_level(&mut rig, "two", "info").as_deref(), Some("debug"), "one still wants that");
}

#[test]
fn subscription_that_cannot_be_sent_counts_for_nothing() {
    let mut rig = Rig::ready(&["a"]);
    let fill = std::format!("{{\"x\":\"{}\"}}", "x".repeat(limits::MAX_STDIN_BACKLOG - 2_000));
    rig.call_as(1, "two", &json!({}), "tools/call", &fill);
    let uri = "x".repeat(limits::MAX_URI);
    rig.call_as(2, "one", &json!({}), "resources/subscribe", &json!({ "uri": uri }).to_string());
    assert_eq!(rig.answers()[0].1, Some(code::OVERLOADED));
    rig.say(A, &updated(&uri));
    assert!(rig.notices().is_empty());
}

#[test]
fn new_session_with_an_http_server_is_told_what_the_old_one_knew() {
    let mut rig = http::ready();
    let head = OpenHead {
        server: "web".into(),
        method: "resources/subscribe".into(),
        session: "one".into(),
        length: 16,
        ..OpenHead::default()
    };
    let params = Bytes::from_static(br#"{"uri":"test:x"}"#);
    rig.tunnel(tunnel::Event::Call { stream: StreamId(1), head, params });
    let (fetch, request) = rig.fetched(&Method::POST);
    rig.reply_to(fetch, http::JSON, &http::result(&request, &json!({})));
    rig.call(2, "web", "{}");
    let (fetch, asked) = rig.fetched(&Method::POST);
    rig.head(fetch, 404, http::JSON);
    http::new_session(&mut rig, "s2");
    let (aside, request) = rig.fetched(&Method::POST);
    let subscribe = http::body(&request);
    assert_eq!(
        (&subscribe["method"], &subscribe["params"]),
        (&json!("resources/subscribe"), &json!({"uri": "test:x"}))
    );
    assert_eq!(rig.fetched(&Method::POST).1.body, asked.body);
    // What it says to that is of no interest, and no call's answer.
    rig.answers();
    rig.head(aside, 500, &[]);
    rig.fetch(aside, crate::http::fetch::FetchEvent::End);
    assert!(rig.answers().is_empty());
}
