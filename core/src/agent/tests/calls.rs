//! Calls, from the tunnel to a server and back.

use super::*;
use crate::limits;
use crate::mcp::code;
use crate::tunnel::ResetCode;

const A: ChildId = ChildId(1);
const B: ChildId = ChildId(2);

fn notices(rig: &mut Rig) -> Vec<(String, String)> {
    rig.take_all(|action| match action {
        Action::Tunnel { command: Command::Notice { server, json, .. }, .. } => {
            Some((server.clone(), String::from_utf8(json.to_vec()).unwrap()))
        }
        _ => None,
    })
}

fn messages(rig: &mut Rig) -> Vec<(u32, String)> {
    rig.take_all(|action| match action {
        Action::Tunnel { command: Command::Message { stream, json, .. }, .. } => {
            Some((stream.0, String::from_utf8(json.to_vec()).unwrap()))
        }
        _ => None,
    })
}

/// The raw line that was written last.
fn line(rig: &mut Rig) -> String {
    rig.take_all(|action| match action {
        Action::Write { bytes, .. } => Some(String::from_utf8(bytes.to_vec()).unwrap()),
        _ => None,
    })
    .pop()
    .expect("something was written")
}

#[test]
fn what_is_on_the_books_of_a_call_is_gone_with_it() {
    let mut rig = Rig::ready(&["a"]);
    assert!(rig.agent.leftovers().is_empty(), "{:?}", rig.agent.leftovers());
    rig.call_method(1, "a", "vendor/thing", "{}");
    let left = rig.agent.leftovers();
    for what in ["calls", "routes", "streams", "audit entries"] {
        assert_eq!(left.get(what), Some(&1), "{what}: {left:?}");
    }
    let id = serde_json::from_str::<Value>(&line(&mut rig)).unwrap()["id"].clone();
    rig.event(Event::Line {
        child: A,
        line: Bytes::from(std::format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}")),
    });
    assert!(rig.agent.leftovers().is_empty(), "{:?}", rig.agent.leftovers());
}

#[test]
fn call_and_answer_are_passed_on_raw() {
    let mut rig = Rig::ready(&["a"]);
    rig.call_method(1, "a", "vendor/thing", "{\"n\": 1e400,\n \"x\":null}");
    let line = line(&mut rig);
    assert!(line.ends_with("\"method\":\"vendor/thing\",\"params\":{\"n\": 1e400,  \"x\":null}}\n"), "{line}");
    let id = serde_json::from_str::<Value>(&line.replace("1e400", "1")).unwrap()["id"].clone();
    let answer = std::format!("{{\"result\":{{\"z\":1.00,\"a\":[ ]}},\"jsonrpc\":\"2.0\",\"id\":{id}}}");
    rig.event(Event::Line { child: A, line: Bytes::from(answer) });
    assert_eq!(rig.answers(), [(1, None, "{\"z\":1.00,\"a\":[ ]}".to_string())]);
}

#[test]
fn error_is_passed_on_raw_with_its_code() {
    let mut rig = Rig::ready(&["a"]);
    rig.call(1, "a", "{}");
    let id = &rig.written(A)[0]["id"];
    rig.say(A, &json!({"jsonrpc": "2.0", "id": id, "error": {"code": -7, "message": "m", "data": [1]}}));
    assert_eq!(rig.answers(), [(1, Some(-7), r#"{"code":-7,"data":[1],"message":"m"}"#.to_string())]);
}

#[test]
fn concurrent_calls_have_their_own_ids_and_may_overtake() {
    let mut rig = Rig::ready(&["a"]);
    rig.call(1, "a", "{}");
    rig.call(2, "a", "{}");
    let written = rig.written(A);
    assert_ne!(written[0]["id"], written[1]["id"]);
    rig.answer(A, &written[1]["id"], json!(2));
    rig.answer(A, &written[0]["id"], json!(1));
    assert_eq!(rig.answers(), [(2, None, "2".to_string()), (1, None, "1".to_string())]);
}

#[test]
fn progress_reaches_its_caller_with_the_callers_token() {
    let mut rig = Rig::ready(&["a"]);
    rig.call(1, "a", r#"{"_meta":{"progressToken":"t"}}"#);
    rig.call(2, "a", r#"{"_meta":{"progressToken":"t"}}"#);
    rig.call(3, "a", "{}");
    let tokens: Vec<Value> =
        rig.written(A).iter().map(|call| call["params"]["_meta"]["progressToken"].clone()).collect();
    assert_ne!(tokens[0], tokens[1]);
    for token in [&tokens[1], &json!(999), &json!("t"), &json!(null)] {
        let params = json!({"progressToken": token, "progress": 1});
        rig.say(A, &json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}));
    }
    let restored = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1,"progressToken":"t"}}"#;
    assert_eq!(messages(&mut rig), [(2, restored.to_string())]);
}

#[test]
fn cancelled_call_is_cancelled_at_the_server_and_its_late_answer_dropped() {
    let mut rig = Rig::ready(&["a"]);
    rig.call(1, "a", "{}");
    let id = rig.written(A)[0]["id"].clone();
    let reset =
        tunnel::Event::Reset { stream: StreamId(1), code: ResetCode::Cancelled, reason: "had \"enough\"".into() };
    rig.tunnel(reset.clone());
    let params = json!({"requestId": id, "reason": "had \"enough\""});
    let note = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
    assert_eq!(rig.written(A), [note]);
    rig.answer(A, &id, json!({}));
    rig.tunnel(reset);
    assert!(rig.answers().is_empty() && rig.written(A).is_empty());
}

#[test]
fn clients_own_words_reach_the_server_with_its_id_in_them() {
    let mut rig = Rig::ready(&["a"]);
    let mut cancel = |params: &str| {
        rig.call(1, "a", "{}");
        let id = rig.written(A)[0]["id"].clone();
        let params = Bytes::copy_from_slice(params.as_bytes());
        rig.tunnel(tunnel::Event::Cancelled { stream: StreamId(1), params });
        let line = rig.take(|action| match action {
            Action::Write { bytes, .. } => Some(String::from_utf8(bytes.to_vec()).unwrap()),
            _ => None,
        });
        rig.answer(A, &id, json!({}));
        assert!(rig.answers().is_empty() && rig.written(A).is_empty());
        (line.expect("it is told"), id)
    };
    let (line, id) = cancel(r#"{"_meta":{"trace":1.0},"requestId":"mine", "reason":null,"x":[1e400]}"#);
    let params = std::format!(r#"{{"_meta":{{"trace":1.0}},"requestId":{id}, "reason":null,"x":[1e400]}}"#);
    let expected = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":"#;
    assert_eq!(line, std::format!("{expected}{params}}}\n"));
    let (line, id) = cancel("nonsense");
    assert!(line.contains(&std::format!(r#"{{"requestId":{id},"reason":"#)), "{line}");
}

#[test]
fn second_answer_is_dropped() {
    let mut rig = Rig::ready(&["a"]);
    rig.call(1, "a", "{}");
    let id = rig.written(A)[0]["id"].clone();
    rig.answer(A, &id, json!(1));
    rig.answer(A, &id, json!(2));
    assert_eq!(rig.answers().len(), 1);
}

#[test]
fn answer_from_another_server_is_dropped() {
    let mut rig = Rig::ready(&["a", "b"]);
    rig.call(1, "a", "{}");
    let id = rig.written(A)[0]["id"].clone();
    rig.answer(B, &id, json!("stolen"));
    assert!(rig.answers().is_empty());
    rig.answer(A, &id, json!("own"));
    assert_eq!(rig.answers(), [(1, None, "\"own\"".to_string())]);
}

#[test]
fn calls_of_a_server_that_dies_are_answered_at_once_with_its_name_and_reason() {
    let mut rig = Rig::ready(&["a", "b"]);
    rig.call(1, "a", "{}");
    rig.call(2, "b", "{}");
    rig.exited(A, 134, "out of memory");
    let answers = rig.answers();
    assert_eq!((answers.len(), answers[0].0, answers[0].1), (1, 1, Some(code::SERVER_UNAVAILABLE)));
    assert!(answers[0].2.contains("server \\\"a\\\"") && answers[0].2.contains("out of memory"), "{}", answers[0].2);
}

#[test]
fn call_to_a_server_that_is_down_says_why() {
    let mut rig = Rig::ready(&["a"]);
    restart_until_failed(&mut rig);
    rig.call(1, "a", "{}");
    let (_, code, body) = rig.answers().remove(0);
    assert_eq!(code, Some(code::SERVER_UNAVAILABLE));
    assert!(body.contains("boom"), "{body}");
}

#[test]
fn call_during_a_restart_waits_for_the_new_run() {
    let mut rig = Rig::ready(&["a"]);
    rig.exited(A, 1, "boom");
    rig.call(1, "a", "{\"x\":1}");
    assert!(rig.answers().is_empty());
    rig.advance(limits::RESTART_MAX);
    let child = rig.bring_up("a", &["tool"]);
    assert_eq!(rig.written(child)[0]["params"], json!({"x": 1}));
}

#[test]
fn call_during_a_restart_is_answered_with_why_it_failed_again() {
    let mut rig = Rig::ready(&["a"]);
    rig.exited(A, 1, "boom");
    rig.call(1, "a", "{}");
    rig.advance(limits::RESTART_MAX);
    let child = rig.spawned("a").unwrap();
    rig.exited(child, 1, "still broken");
    assert!(rig.answers().remove(0).2.contains("still broken"));
}

/// Ends a server, and each run of it that follows.
fn restart_until_failed(rig: &mut Rig) {
    rig.exited(A, 1, "boom");
    for _ in 0..limits::MAX_QUICK_FAILURES {
        rig.advance(limits::RESTART_MAX);
        let child = rig.spawned("a").unwrap();
        rig.exited(child, 1, "boom");
    }
}

#[test]
fn calls_to_a_starting_server_wait_for_it_and_are_sent_once() {
    let mut rig = Rig::started(&["a"]);
    rig.connect(Dialect::V2);
    rig.call(1, "a", "{\"x\":1}");
    rig.call(2, "a", "{}");
    rig.tunnel(tunnel::Event::Reset { stream: StreamId(2), code: ResetCode::Cancelled, reason: String::new() });
    assert!(rig.answers().is_empty());
    let child = rig.bring_up("a", &["x"]);
    let calls: Vec<Value> = rig.written(child);
    assert_eq!(calls.len(), 1, "the cancelled one was never sent");
    assert_eq!(calls[0]["params"], json!({"x": 1}));
}

#[test]
fn calls_that_wait_for_a_server_that_does_not_start_are_answered() {
    let mut rig = Rig::started(&["a"]);
    rig.connect(Dialect::V2);
    rig.call(1, "a", "{}");
    let child = rig.spawned("a").unwrap();
    rig.exited(child, 1, "");
    assert_eq!(rig.answers()[0].1, Some(code::SERVER_UNAVAILABLE));
}

#[test]
fn tunnel_that_dies_cancels_its_calls_and_touches_no_server() {
    let mut rig = Rig::ready(&["a"]);
    rig.call(1, "a", "{}");
    let id = rig.written(A)[0]["id"].clone();
    rig.closed(CloseCode::TimedOut);
    let written = rig.written(A);
    assert_eq!((written.len(), &written[0]["params"]["requestId"]), (1, &id));
    rig.advance(limits::RECONNECT_FIRST);
    rig.connect(Dialect::V2);
    rig.answer(A, &id, json!("late"));
    assert!(rig.answers().is_empty());
    let catalog = rig.catalogs().remove(0);
    assert_eq!((&catalog["whole"], &catalog["servers"][0]["state"]), (&json!(true), &json!("ready")));
    assert!(!rig.actions.iter().any(|action| matches!(action, Action::Spawn { .. } | Action::Kill { .. })));
}

#[test]
fn words_of_an_older_tunnel_are_dropped() {
    let mut rig = Rig::ready(&["a"]);
    let old = rig.conn;
    rig.closed(CloseCode::TimedOut);
    rig.advance(limits::RECONNECT_FIRST);
    rig.connect(Dialect::V2);
    rig.conn = old;
    rig.call(1, "a", "{}");
    rig.closed(CloseCode::Replaced);
    assert!(rig.written(A).is_empty());
    assert_eq!(rig.exit(), None, "our own new tunnel replaced our own old one");
}

#[test]
fn server_asking_a_client_is_declined_and_pings_are_answered() {
    let mut rig = Rig::ready(&["a"]);
    rig.say(A, &json!({"jsonrpc": "2.0", "id": "p", "method": "ping"}));
    rig.say(A, &json!({"jsonrpc": "2.0", "id": 5, "method": "sampling/createMessage", "params": {}}));
    let written = rig.written(A);
    assert_eq!(written[0], json!({"jsonrpc": "2.0", "id": "p", "result": {}}));
    assert_eq!((&written[1]["id"], &written[1]["error"]["code"]), (&json!(5), &json!(-32601)));
}

#[test]
fn log_messages_are_passed_on_while_the_tunnel_is_up() {
    let mut rig = Rig::ready(&["a"]);
    let log = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}});
    rig.say(A, &log);
    assert_eq!(notices(&mut rig), [("a".to_string(), log.to_string())]);
    rig.closed(CloseCode::Normal);
    rig.say(A, &log);
    assert!(notices(&mut rig).is_empty());
}

#[test]
fn line_that_is_too_long_fails_only_its_call() {
    let mut rig = Rig::ready(&["a"]);
    rig.call(1, "a", "{}");
    rig.call(2, "a", "{}");
    let id = rig.written(A)[1]["id"].clone();
    let suffix = Bytes::from(std::format!("xxx\"}}]}},\"jsonrpc\":\"2.0\",\"id\":{id}}}"));
    let prefix = Bytes::from_static(b"{\"result\":{\"content\":[{\"text\":\"x");
    let length = limits::MAX_MESSAGE as u64 + 1;
    rig.event(Event::LineTooLong { child: A, prefix: prefix.clone(), suffix, length });
    let answers = rig.answers();
    assert_eq!((answers.len(), answers[0].0, answers[0].1), (1, 2, Some(code::TOO_LARGE)));
    rig.event(Event::LineTooLong { child: A, prefix, suffix: Bytes::new(), length });
    assert_eq!(rig.answers()[0].0, 1, "the only call that is left must be the one");
}

#[test]
fn strangers_and_handshakes_are_refused() {
    let mut rig = Rig::ready(&["a"]);
    rig.call(1, "nobody", "{}");
    rig.call(9, "", "{}");
    rig.call_method(2, "a", "initialize", "{}");
    rig.call_method(3, "a", "notifications/cancelled", "{}");
    rig.call(4, "a", "[1]");
    rig.call(5, "a", "{\"broken\":");
    let codes: Vec<(u32, Option<i64>)> = rig.answers().into_iter().map(|(stream, code, _)| (stream, code)).collect();
    let (unavailable, method, params) = (code::SERVER_UNAVAILABLE, code::METHOD_NOT_FOUND, code::INVALID_PARAMS);
    assert_eq!(
        codes,
        [
            (1, Some(unavailable)),
            (9, Some(unavailable)),
            (2, Some(method)),
            (3, Some(method)),
            (4, Some(params)),
            (5, Some(params))
        ]
    );
    assert!(rig.written(A).is_empty());
}

#[test]
fn calls_at_one_server_are_bounded() {
    let mut rig = Rig::ready(&["a", "b"]);
    let most = u32::try_from(limits::MAX_SERVER_CALLS / 2).unwrap();
    for stream in 1..=most {
        rig.call(stream, "a", "{}");
    }
    assert!(rig.answers().is_empty());
    rig.call(most + 1, "a", "{}");
    assert_eq!(rig.answers()[0].1, Some(code::OVERLOADED));
    rig.call(most + 2, "b", "{}");
    assert!(rig.answers().is_empty(), "another server has room");
}

#[test]
fn flood_of_one_client_starves_no_other() {
    let mut rig = Rig::ready(&["a"]);
    let half = u32::try_from(limits::MAX_SERVER_CALLS / 2).unwrap();
    for stream in 1..=half + 5 {
        rig.call_in(stream, "flood");
    }
    assert_eq!(rig.answers().len(), 5, "a client alone has half");
    for (session, stream) in [("second", 1_000), ("third", 2_000), ("fourth", 3_000)] {
        for stream in stream..stream + 20 {
            rig.call_in(stream, session);
        }
        assert!(rig.answers().is_empty(), "{session}");
    }
    // What it gives back it cannot take again while others are there.
    for stream in 1..=10 {
        rig.reset(stream);
    }
    for stream in half + 6..half + 16 {
        rig.call_in(stream, "flood");
    }
    assert_eq!(rig.answers().len(), 10);
}

#[test]
fn callers_without_a_session_are_told_apart_by_who_acts() {
    let mut rig = Rig::ready(&["a"]);
    let half = u32::try_from(limits::MAX_SERVER_CALLS / 2).unwrap();
    let mut call = |stream, actor: &str| {
        let actor = actor.to_string();
        let head = OpenHead {
            server: "a".into(),
            method: "tools/call".into(),
            actor: actor.into(),
            length: 2,
            ..OpenHead::default()
        };
        rig.tunnel(tunnel::Event::Call { stream: StreamId(stream), head, params: Bytes::from_static(b"{}") });
        rig.answers().len()
    };
    assert_eq!((1..=half).map(|stream| call(stream, "ann's script")).sum::<usize>(), 0);
    assert_eq!((call(1_000, "ann's script"), call(1_001, "ann's editor")), (1, 0));
}

#[test]
fn server_that_does_not_read_gets_no_more_calls_until_it_does() {
    let mut rig = Rig::ready(&["a"]);
    rig.event(Event::Wrote { child: A, bytes: 10_000 });
    let params = std::format!("{{\"x\":\"{}\"}}", "x".repeat(limits::MAX_STDIN_BACKLOG - 1_000));
    rig.call(1, "a", &params);
    rig.call(2, "a", &params);
    assert_eq!(rig.answers().remove(0).1, Some(code::OVERLOADED));
    rig.event(Event::Wrote { child: A, bytes: params.len() });
    rig.call(3, "a", &params);
    assert!(rig.answers().is_empty());
}

#[test]
fn catalog_is_whole_first_and_then_what_changed() {
    let mut rig = Rig::started(&["a", "b"]);
    rig.bring_up("a", &["x"]);
    rig.connect(Dialect::V2);
    let whole = rig.catalogs();
    assert_eq!((whole.len(), &whole[0]["whole"]), (1, &json!(true)));
    let state = |catalog: &Value, at: usize| catalog["servers"][at]["state"].clone();
    assert_eq!((state(&whole[0], 0), state(&whole[0], 1)), (json!("ready"), json!("starting")));
    rig.bring_up("b", &["y"]);
    let change = rig.catalogs().pop().unwrap();
    assert_eq!((&change["whole"], &change["servers"][0]["name"]), (&json!(false), &json!("b")));
    assert_eq!(change["servers"][0]["info"], json!({"name": "s"}));
    assert_eq!(change["servers"].as_array().unwrap().len(), 1);
}

#[test]
fn catalog_never_has_more_tools_than_a_relay_takes() {
    let names: Vec<String> = (0..limits::MAX_TOOLS).map(|n| n.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut rig = Rig::started(&["a", "b"]);
    rig.bring_up("a", &names);
    rig.bring_up("b", &["left out"]);
    rig.connect(Dialect::V2);
    let catalog = rig.catalogs().remove(0);
    let tools = |at: usize| catalog["servers"][at]["tools"].as_array().unwrap().len();
    assert_eq!((tools(0), tools(1)), (limits::MAX_TOOLS, 0));
}
