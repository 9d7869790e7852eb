//! What servers ask with no call open.

use ::http::Method;

use super::questions::{declined, isolated};
use super::*;
use crate::limits;
use crate::mcp::code;

const A: ChildId = ChildId(1);

fn roots(id: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "roots/list"})
}

fn result(id: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": {"roots": []}})
}

fn cancelled(id: &Value) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})
}

fn says_changed(rig: &mut Rig, session: &str) {
    rig.session_says(session, &json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}));
}

/// A call of a session that is over.
fn called(rig: &mut Rig, child: ChildId, session: &str) {
    rig.call_in(9, session);
    let id = rig.written(child).pop().unwrap()["id"].clone();
    rig.answer(child, &id, json!({}));
    rig.actions.clear();
}

/// A ready server which these sessions called.
fn used_by(sessions: &[&str]) -> Rig {
    let mut rig = Rig::ready(&["a"]);
    sessions.iter().for_each(|session| called(&mut rig, A, session));
    rig
}

/// Whom the server asks then: the notice's sessions, or the code of the error that it is declined with.
fn whom(rig: &mut Rig, child: ChildId, question: &Value) -> Result<String, i64> {
    rig.actions.clear();
    rig.say(child, question);
    assert!(rig.messages().is_empty());
    match rig.notices().pop() {
        Some((session, json)) => {
            assert_eq!((&json, rig.written(child).len()), (question, 0));
            Ok(session)
        }
        None => Err(declined(rig, child)[0].1),
    }
}

#[test]
fn only_session_of_a_run_is_asked_and_answers_once_and_raw() {
    let mut rig = used_by(&["one"]);
    let line = "{\"id\":1,\"method\":\"roots/list\", \"params\":{\"n\":1e400,\"n\":null},\"jsonrpc\":\"2.0\"}";
    rig.event(Event::Line { child: A, line: Bytes::from_static(line.as_bytes()) });
    let sent = rig.take_all(|action| match action {
        Action::Tunnel { command: Command::Notice { server, sessions, json }, .. } => {
            Some((server.clone(), sessions.join(" "), json.clone()))
        }
        _ => None,
    });
    assert_eq!(sent, [("a".to_string(), "one".to_string(), Bytes::from_static(line.as_bytes()))]);
    let answer = "{\"jsonrpc\":\"2.0\",\"result\":{\"z\":1.00, \"a\":1e400},\"id\":1}";
    for expected in [Some(std::format!("{answer}\n")), None] {
        let (session, server) = ("one".to_string(), Some("a".to_string()));
        rig.tunnel(tunnel::Event::ClientNotice { session, server, json: Bytes::from_static(answer.as_bytes()) });
        let written = rig.take(|action| match action {
            Action::Write { bytes, .. } => Some(bytes.clone()),
            _ => None,
        });
        assert_eq!(written.as_deref(), expected.as_ref().map(String::as_bytes));
    }
}

#[test]
fn what_was_not_asked_for_or_is_anothers_to_answer_stops_at_the_agent() {
    let mut rig = used_by(&["one", "two"]);
    says_changed(&mut rig, "one");
    assert_eq!(whom(&mut rig, A, &roots(&json!(1))), Ok("one".to_string()));
    rig.session_says("two", &result(&json!(1)));
    rig.session_says("one", &result(&json!("1")));
    rig.session_says("one", &roots(&json!(1)));
    rig.session_says("one", &cancelled(&json!(1)));
    let json = Bytes::from(result(&json!(1)).to_string());
    rig.tunnel(tunnel::Event::ClientNotice { session: "one".to_string(), server: None, json });
    assert_eq!(rig.written(A), [] as [Value; 0]);
    rig.session_says("one", &result(&json!(1)));
    assert_eq!(rig.written(A), [result(&json!(1))]);
}

#[test]
fn of_several_sessions_the_one_is_asked_whose_roots_changed_and_no_other() {
    let mut rig = used_by(&["one", "two"]);
    assert_eq!(whom(&mut rig, A, &roots(&json!(1))), Err(code::AMBIGUOUS));
    says_changed(&mut rig, "two");
    let sampling = json!({"jsonrpc": "2.0", "id": 2, "method": "sampling/createMessage", "params": {}});
    assert_eq!(whom(&mut rig, A, &sampling), Err(code::AMBIGUOUS));
    assert_eq!(whom(&mut rig, A, &roots(&json!(3))), Ok("two".to_string()));
    assert_eq!(whom(&mut rig, A, &roots(&json!(4))), Err(code::AMBIGUOUS), "it has asked for them");
    says_changed(&mut rig, "one");
    says_changed(&mut rig, "two");
    assert_eq!(whom(&mut rig, A, &roots(&json!(5))), Err(code::AMBIGUOUS));
    rig.advance(limits::ROOTS_ASKED_WITHIN);
    says_changed(&mut rig, "one");
    rig.advance(limits::ROOTS_ASKED_WITHIN - Duration::from_secs(1));
    assert_eq!(whom(&mut rig, A, &roots(&json!(6))), Ok("one".to_string()));
    says_changed(&mut rig, "one");
    rig.advance(limits::ROOTS_ASKED_WITHIN);
    assert_eq!(whom(&mut rig, A, &roots(&json!(7))), Err(code::AMBIGUOUS), "it may be about anything");
}

#[test]
fn question_that_a_cancelled_call_may_have_caused_is_asked_of_no_other_session() {
    let mut rig = used_by(&["one"]);
    rig.call_in(1, "two");
    rig.tunnel(tunnel::Event::SessionEnded { session: "two".to_string() });
    rig.reset(1);
    says_changed(&mut rig, "one");
    for id in 1..3 {
        assert_eq!(whom(&mut rig, A, &roots(&json!(id))), Err(code::AMBIGUOUS));
    }
    rig.advance(limits::CANCEL_HEARD);
    assert_eq!(whom(&mut rig, A, &roots(&json!(3))), Ok("one".to_string()));
    rig.call_in(2, "one");
    rig.reset(2);
    assert_eq!(whom(&mut rig, A, &roots(&json!(4))), Ok("one".to_string()), "its own leaves no doubt");
}

#[test]
fn question_while_a_call_is_open_is_that_calls_whoever_said_what_before() {
    let mut rig = used_by(&["one"]);
    rig.call_in(1, "two");
    let call = rig.written(A).pop().unwrap()["id"].clone();
    says_changed(&mut rig, "one");
    rig.say(A, &roots(&json!(1)));
    assert_eq!(rig.messages(), [(1, roots(&json!(1)), false)]);
    rig.client_says(1, &result(&json!(1)));
    rig.answer(A, &call, json!({}));
    assert_eq!(whom(&mut rig, A, &roots(&json!(2))), Ok("one".to_string()));
    says_changed(&mut rig, "one");
    rig.tunnel(tunnel::Event::SessionEnded { session: "one".to_string() });
    assert_eq!(whom(&mut rig, A, &roots(&json!(3))), Ok("two".to_string()), "the other one is over");
}

#[test]
fn sessions_that_are_over_or_left_and_clients_without_one_are_told_apart() {
    let mut rig = used_by(&["one", "two"]);
    rig.tunnel(tunnel::Event::SessionEnded { session: "one".to_string() });
    assert_eq!(whom(&mut rig, A, &roots(&json!(1))), Ok("two".to_string()));
    called(&mut rig, A, "");
    assert_eq!(whom(&mut rig, A, &roots(&json!(2))), Err(code::AMBIGUOUS), "it may be about who has no session");
    rig.advance(limits::SESSION_IN_USE);
    assert_eq!(whom(&mut rig, A, &roots(&json!(3))), Err(code::METHOD_NOT_FOUND), "nobody is there");
    called(&mut rig, A, "three");
    assert_eq!(whom(&mut rig, A, &roots(&json!(4))), Ok("three".to_string()));
    rig.tunnel(tunnel::Event::SessionEnded { session: "three".to_string() });
    says_changed(&mut rig, "three");
    assert_eq!(whom(&mut rig, A, &roots(&json!(5))), Err(code::METHOD_NOT_FOUND));
}

#[test]
fn client_is_not_asked_what_it_did_not_declare_nor_behind_an_older_relay() {
    let mut rig = used_by(&["one"]);
    let elicitation = json!({"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": {}});
    assert_eq!(whom(&mut rig, A, &elicitation), Err(code::METHOD_NOT_FOUND));
    assert!(whom(&mut rig, A, &roots(&json!(2))).is_ok());
    rig.closed(CloseCode::TimedOut);
    rig.advance(limits::RECONNECT_MAX);
    rig.conn = rig.dialled().unwrap();
    let (conn, dialect) = (rig.conn, Dialect::V2);
    rig.event(Event::Dialed { conn, dialect });
    rig.tunnel(tunnel::Event::Up(Hello::default()));
    assert_eq!(whom(&mut rig, A, &roots(&json!(3))), Err(code::METHOD_NOT_FOUND));
}

#[test]
fn run_of_a_session_asks_its_client_alone() {
    let mut rig = isolated();
    let mut runs = Vec::new();
    for (stream, session) in [(1, "one"), (2, "two")] {
        rig.call_in(stream, session);
        let child = rig.spawned("a").unwrap();
        rig.event(Event::Spawned { child, pid: 1 });
        rig.greet(child);
        let list = rig.written(child).pop().unwrap();
        rig.answer(child, &list["id"], json!({"tools": [{"name": "tool", "inputSchema": {}}]}));
        let call = rig.written(child).pop().unwrap();
        rig.answer(child, &call["id"], json!({}));
        runs.push(child);
    }
    assert_eq!(whom(&mut rig, runs[0], &roots(&json!(1))), Ok("one".to_string()));
    assert_eq!(whom(&mut rig, runs[1], &roots(&json!(1))), Ok("two".to_string()));
    rig.session_says("two", &result(&json!(1)));
    assert_eq!((rig.written(runs[0]).len(), rig.written(runs[1])), (0, [result(&json!(1))].into()));
}

#[test]
fn shared_process_of_a_server_with_runs_for_sessions_asks_nobody() {
    let mut rig = isolated();
    rig.call_in(1, "one");
    rig.bring_up("a", &["tool"]);
    rig.call_as(2, "", &json!({}), "tools/call", "{}");
    rig.advance(limits::RESTART_MAX);
    let main = rig.bring_up("a", &["tool"]);
    let id = rig.written(main).pop().unwrap()["id"].clone();
    rig.answer(main, &id, json!({}));
    assert_eq!(whom(&mut rig, main, &roots(&json!(1))), Err(code::METHOD_NOT_FOUND));
}

#[test]
fn questions_end_with_the_session_the_tunnel_and_the_patience() {
    type End = fn(&mut Rig);
    let ends: [(&str, End, i64, usize); 3] = [
        ("session", |rig| rig.tunnel(tunnel::Event::SessionEnded { session: "one".to_string() }), code::CANCELLED, 0),
        ("tunnel", |rig| rig.closed(CloseCode::TimedOut), code::CANCELLED, 0),
        ("patience", |rig| rig.advance(limits::BESIDE_PATIENCE), code::TIMED_OUT, 1),
    ];
    for (how, end, code, told) in ends {
        let mut rig = used_by(&["one"]);
        assert!(whom(&mut rig, A, &roots(&json!("q"))).is_ok());
        assert!(whom(&mut rig, A, &roots(&json!("r"))).is_ok());
        rig.session_says("one", &result(&json!("r")));
        rig.written(A);
        end(&mut rig);
        let errors: Vec<_> = declined(&mut rig, A).into_iter().map(|(id, code, _)| (id, code)).collect();
        assert_eq!(errors, [(json!("q"), code)], "{how}");
        let notices = rig.notices();
        assert_eq!(notices.len(), told, "{how}");
        let is_taken_back = |(_, json): &(String, Value)| json["params"]["requestId"] == "q";
        assert!(notices.iter().all(is_taken_back), "{how}: {notices:?}");
        rig.session_says("one", &result(&json!("q")));
        assert_eq!(rig.written(A), [] as [Value; 0], "{how}: too late");
    }
}

#[test]
fn question_that_its_server_takes_back_or_leaves_is_taken_back_at_the_client() {
    let mut rig = used_by(&["one"]);
    assert!(whom(&mut rig, A, &roots(&json!(1))).is_ok());
    rig.say(A, &cancelled(&json!(2)));
    rig.say(A, &cancelled(&json!(1)));
    rig.say(A, &cancelled(&json!(1)));
    assert_eq!(rig.notices(), [("one".to_string(), cancelled(&json!(1)))]);
    assert!(whom(&mut rig, A, &roots(&json!(2))).is_ok());
    rig.exited(A, 1, "boom");
    let (session, json) = rig.notices().pop().unwrap();
    assert_eq!(
        (&*session, &json["method"], &json["params"]["requestId"]),
        ("one", &cancelled(&json!(1))["method"], &json!(2))
    );
    rig.advance(limits::RESTART_MAX);
    let child = rig.bring_up("a", &["tool"]);
    rig.session_says("one", &result(&json!(2)));
    assert_eq!(rig.written(child), [] as [Value; 0], "the new process asked nothing");
}

#[test]
fn progress_of_a_client_renews_the_patience_with_it() {
    let mut rig = used_by(&["one"]);
    let mut question = roots(&json!(1));
    question["params"] = json!({"_meta": {"progressToken": "t"}});
    assert!(whom(&mut rig, A, &question).is_ok());
    rig.advance(limits::BESIDE_PATIENCE / 2);
    let progress = |token: &str| json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}});
    for (session, token) in [("one", "u"), ("two", "t"), ("one", "t")] {
        rig.session_says(session, &progress(token));
    }
    assert_eq!(rig.written(A), [progress("t")]);
    rig.advance(limits::BESIDE_PATIENCE / 2);
    assert_eq!(rig.written(A), [] as [Value; 0]);
    rig.session_says("one", &result(&json!(1)));
    assert_eq!(rig.written(A), [result(&json!(1))]);
}

#[test]
fn questions_beside_calls_are_bounded_in_number_and_length() {
    let mut rig = used_by(&["one"]);
    let mut long = roots(&json!("long"));
    long["params"] = json!({"x": "x".repeat(limits::MAX_NOTICE)});
    assert_eq!(whom(&mut rig, A, &long), Err(code::TOO_LARGE));
    for id in 0..limits::MAX_BESIDE {
        assert!(whom(&mut rig, A, &roots(&json!(id))).is_ok());
    }
    assert_eq!(whom(&mut rig, A, &roots(&json!("more"))), Err(code::OVERLOADED));
    rig.say(A, &roots(&json!(0)));
    assert!(rig.notices().is_empty() && rig.written(A).is_empty(), "one id is one question");
}

#[test]
fn page_that_a_client_is_to_visit_is_told_of_to_it_alone() {
    let mut rig = Rig::ready(&["a"]);
    rig.call_as(1, "one", &json!({"elicitation": {"url": {}}}), "tools/call", "{}");
    let id = rig.written(A).pop().unwrap()["id"].clone();
    rig.answer(A, &id, json!({}));
    let params = json!({"mode": "url", "elicitationId": "e", "url": "https://example.com", "message": "m"});
    let question = json!({"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": params});
    assert_eq!(whom(&mut rig, A, &question), Ok("one".to_string()));
    let complete =
        json!({"jsonrpc": "2.0", "method": "notifications/elicitation/complete", "params": {"elicitationId": "e"}});
    rig.say(A, &complete);
    assert_eq!(rig.notices(), [("one".to_string(), complete)]);
}

/// Over HTTP such a question comes on the stream that the agent listens on, and its answer is posted.
#[test]
fn question_of_an_http_server_outside_of_calls_is_asked_of_the_only_session() {
    let mut rig = http::ready();
    let head = OpenHead {
        server: "web".into(),
        method: "tools/call".into(),
        session: "one".into(),
        capabilities: r#"{"roots":{}}"#.into(),
        length: 2,
        ..OpenHead::default()
    };
    rig.tunnel(tunnel::Event::Call { stream: StreamId(1), head, params: Bytes::from_static(b"{}") });
    let (fetch, request) = rig.fetched(&Method::POST);
    rig.head(fetch, 200, http::SSE);
    rig.chunk(fetch, &std::format!("data: {}\n\n", http::result(&request, &json!({}))));
    rig.actions.clear();
    rig.chunk(fetch, &std::format!("data: {}\n\n", roots(&json!(1))));
    assert_eq!(rig.notices(), [("one".to_string(), roots(&json!(1)))]);
    let (session, server) = ("one".to_string(), Some("web".to_string()));
    let json = Bytes::from(result(&json!(1)).to_string());
    rig.tunnel(tunnel::Event::ClientNotice { session, server, json });
    assert_eq!(http::body(&rig.fetched(&Method::POST).1), result(&json!(1)));
}
