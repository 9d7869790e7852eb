//! What servers ask clients.

use ::http::Method;

use super::*;
use crate::config::Isolation;
use crate::http::fetch::Fetch;
use crate::id::FetchId;
use crate::limits;
use crate::mcp::code;

const A: ChildId = ChildId(1);

fn sampling(id: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "sampling/createMessage", "params": {"messages": []}})
}

fn result(id: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": {"role": "assistant"}})
}

/// The errors that a server was answered with: its id, the code, the text.
pub(super) fn declined(rig: &mut Rig, child: ChildId) -> Vec<(Value, i64, String)> {
    let errors = rig.written(child).into_iter().filter(|message| message.get("error").is_some());
    let read = |message: Value| {
        let error = &message["error"];
        (message["id"].clone(), error["code"].as_i64().unwrap(), error["message"].as_str().unwrap().to_string())
    };
    errors.map(read).collect()
}

/// A ready server with one open call of session `one`.
fn asking() -> Rig {
    let mut rig = Rig::ready(&["a"]);
    rig.call_in(1, "one");
    rig.actions.clear();
    rig
}

#[test]
fn question_goes_to_the_only_call_and_its_answer_back_once() {
    let mut rig = asking();
    for id in [json!("q"), json!(7)] {
        rig.say(A, &sampling(id.clone()));
        assert_eq!(rig.messages(), [(1, sampling(id.clone()), false)]);
        rig.client_says(1, &result(id.clone()));
        assert_eq!(rig.written(A), [result(id.clone())]);
        rig.client_says(1, &result(id));
        assert!(rig.written(A).is_empty(), "once is enough");
    }
}

#[test]
fn question_and_answer_are_passed_on_raw() {
    let mut rig = asking();
    let question = "{\"id\":1,\"method\":\"vendor/x\", \"params\":{\"n\":1e400,\"n\":null},\"jsonrpc\":\"2.0\"}";
    rig.event(Event::Line { child: A, line: Bytes::from_static(question.as_bytes()) });
    let raw = |rig: &mut Rig| {
        rig.take(|action| match action {
            Action::Tunnel { command: Command::Message { json, .. }, .. } => Some(json.clone()),
            Action::Write { bytes, .. } => Some(bytes.clone()),
            _ => None,
        })
    };
    assert_eq!(raw(&mut rig).unwrap(), question);
    let answer = "{\"jsonrpc\":\"2.0\",\"result\":{\"z\":1.00, \"a\":1e400},\"id\":1}";
    let json = Bytes::from_static(answer.as_bytes());
    rig.tunnel(tunnel::Event::Message { stream: StreamId(1), json, credit: 0 });
    assert_eq!(raw(&mut rig).unwrap(), std::format!("{answer}\n"));
}

#[test]
fn what_was_not_asked_for_never_reaches_the_server() {
    let mut rig = asking();
    rig.say(A, &sampling(json!("q")));
    let (request, note) = ("sampling/createMessage", "notifications/cancelled");
    for (stream, json) in [
        (1, result(json!("other"))),
        (2, result(json!("q"))),
        (1, result(json!(1))),
        (1, json!({"jsonrpc": "2.0", "id": "q", "method": request})),
        (1, json!({"jsonrpc": "2.0", "method": note, "params": {"requestId": "q"}})),
        (1, json!({"jsonrpc": "2.0", "id": null, "error": {"code": 1, "message": "m"}})),
        (1, json!("nonsense")),
    ] {
        rig.client_says(stream, &json);
        assert!(rig.written(A).is_empty(), "{json}");
    }
    let refusal = json!({"jsonrpc": "2.0", "id": "q", "error": {"code": -1, "message": "the person said no"}});
    rig.client_says(1, &refusal);
    assert_eq!(rig.written(A), [refusal]);
}

#[test]
fn question_of_a_process_that_could_belong_to_two_clients_is_declined_with_the_remedy() {
    let mut rig = asking();
    rig.call_in(2, "one");
    rig.say(A, &sampling(json!(1)));
    assert_eq!(rig.messages()[0].0, 2, "both calls are one client's, and the newest is the likelier one");
    rig.call_in(3, "two");
    rig.written(A);
    rig.say(A, &sampling(json!(2)));
    assert!(rig.messages().is_empty());
    let (id, code, text) = declined(&mut rig, A).remove(0);
    assert_eq!((id, code), (json!(2), code::AMBIGUOUS));
    assert!(text.contains("isolation: \"session\""), "{text}");
}

#[test]
fn question_may_be_of_a_call_that_was_cancelled_a_moment_ago() {
    let mut rig = asking();
    rig.call_in(2, "two");
    rig.reset(2);
    rig.written(A);
    rig.say(A, &sampling(json!(1)));
    assert_eq!((rig.messages().len(), declined(&mut rig, A)[0].1), (0, code::AMBIGUOUS), "it may not have read that");
    rig.advance(limits::CANCEL_HEARD);
    rig.say(A, &sampling(json!(2)));
    assert_eq!(rig.messages().len(), 1);
    rig.call_in(3, "one");
    rig.reset(3);
    rig.say(A, &sampling(json!(3)));
    assert_eq!(rig.messages().len(), 1, "it is the same client either way");
    rig.call_in(4, "two");
    rig.reset(4);
    rig.written(A);
    rig.call_in(5, "one");
    let later = rig.written(A).pop().expect("it was sent");
    rig.answer(A, &later["id"], json!({"content": []}));
    rig.say(A, &sampling(json!(4)));
    assert_eq!(rig.messages().len(), 1, "what it answers it was asked after that");
}

#[test]
fn calls_without_a_session_are_never_taken_for_one_clients() {
    let mut rig = Rig::ready(&["a"]);
    for stream in [1, 2] {
        rig.call_as(stream, "", &json!({"sampling": {}}), "tools/call", "{}");
    }
    rig.written(A);
    rig.say(A, &sampling(json!(1)));
    assert_eq!((rig.messages().len(), declined(&mut rig, A)[0].1), (0, code::AMBIGUOUS));
}

#[test]
fn question_outside_of_any_call_is_declined() {
    let mut rig = Rig::ready(&["a"]);
    rig.say(A, &sampling(json!(1)));
    assert_eq!((rig.messages().len(), declined(&mut rig, A)[0].1), (0, code::METHOD_NOT_FOUND));
}

#[test]
fn client_is_not_bothered_with_what_it_did_not_declare() {
    let mut rig = Rig::ready(&["a"]);
    rig.call_as(1, "one", &json!({"elicitation": {}}), "tools/call", "{}");
    rig.written(A);
    rig.say(A, &sampling(json!(1)));
    rig.say(A, &json!({"jsonrpc": "2.0", "id": 2, "method": "elicitation/create", "params": {"mode": "url"}}));
    rig.say(A, &json!({"jsonrpc": "2.0", "id": 3, "method": "elicitation/create", "params": {"message": "m"}}));
    let asked: Vec<Value> = rig.messages().into_iter().map(|(_, json, _)| json["id"].clone()).collect();
    assert_eq!(asked, [json!(3)]);
    let told: Vec<(Value, i64)> = declined(&mut rig, A).into_iter().map(|(id, code, _)| (id, code)).collect();
    assert_eq!(told, [(json!(1), code::METHOD_NOT_FOUND), (json!(2), code::METHOD_NOT_FOUND)]);
}

#[test]
fn client_of_an_old_relay_is_not_asked() {
    let mut rig = Rig::started(&["a"]);
    rig.bring_up("a", &["tool"]);
    rig.connect(Dialect::V1);
    rig.call_as(1, "one", &json!({"sampling": {}}), "tools/call", "{}");
    rig.written(A);
    rig.say(A, &sampling(json!(1)));
    assert!(rig.messages().is_empty());
    assert!(declined(&mut rig, A)[0].2.contains("old relay"));
}

#[test]
fn open_questions_are_answered_with_an_error_when_their_call_ends() {
    type End = fn(&mut Rig, Value);
    let ends: [(&str, End); 3] = [
        ("answered", |rig, id| rig.answer(A, &id, json!({}))),
        ("cancelled", |rig, _| rig.reset(1)),
        ("tunnel", |rig, _| rig.closed(CloseCode::TimedOut)),
    ];
    for (how, end) in ends {
        let mut rig = Rig::ready(&["a"]);
        rig.call_in(1, "one");
        let id = rig.written(A)[0]["id"].clone();
        rig.say(A, &sampling(json!("q")));
        rig.say(A, &sampling(json!("r")));
        rig.client_says(1, &result(json!("r")));
        rig.written(A);
        end(&mut rig, id);
        let told: Vec<Value> = declined(&mut rig, A).into_iter().map(|(id, ..)| id).collect();
        assert_eq!(told, [json!("q")], "{how}");
        rig.client_says(1, &result(json!("q")));
        assert!(rig.written(A).is_empty(), "{how}: too late");
    }
}

/// Two calls of session `one`, on streams 1 and 2, of which the newer one is taken for the one that asks "q"; the server's
/// ids of both.
fn asked_in_one_of_two() -> (Rig, [Value; 2]) {
    asked_in_two(Rig::ready(&["a"]))
}

fn asked_in_two(mut rig: Rig) -> (Rig, [Value; 2]) {
    rig.call_in(1, "one");
    rig.call_in(2, "one");
    let ids = rig.written(A).into_iter().map(|call| call["id"].clone()).collect::<Vec<_>>();
    rig.say(A, &sampling(json!("q")));
    assert_eq!(rig.messages(), [(2, sampling(json!("q")), false)]);
    (rig, ids.try_into().expect("two"))
}

#[test]
fn question_outlives_the_call_that_it_was_taken_to_be_of() {
    let (mut rig, [first, second]) = asked_in_one_of_two();
    rig.answer(A, &second, json!({}));
    assert_eq!(declined(&mut rig, A), [], "it may be the other call's");
    rig.session_says("two", &result(json!("q")));
    assert!(rig.written(A).is_empty(), "it is not that client's to answer");
    rig.session_says("one", &result(json!("q")));
    rig.session_says("one", &result(json!("q")));
    assert_eq!(rig.written(A), [result(json!("q"))], "once is enough");
    rig.answer(A, &first, json!({}));
    assert!(rig.written(A).is_empty(), "nothing is open");
}

#[test]
fn question_ends_with_a_call_that_has_no_result_for_its_client_may_not_have_heard_of_it() {
    type End = fn(&mut Rig, &Value);
    let ends: [(&str, End); 2] = [
        ("cancelled", |rig, _| rig.reset(2)),
        ("refused", |rig, id| {
            rig.say(A, &json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32000, "message": "no"}}))
        }),
    ];
    for (how, end) in ends {
        let (mut rig, [_, second]) = asked_in_one_of_two();
        end(&mut rig, &second);
        let told: Vec<Value> = declined(&mut rig, A).into_iter().map(|(id, ..)| id).collect();
        assert_eq!(told, [json!("q")], "{how}");
        rig.session_says("one", &result(json!("q")));
        assert!(rig.written(A).is_empty(), "{how}: too late");
    }
}

#[test]
fn question_ends_with_the_last_call_of_its_client() {
    let (mut rig, [first, second]) = asked_in_one_of_two();
    rig.call_in(3, "two");
    rig.answer(A, &second, json!({}));
    rig.written(A);
    rig.answer(A, &first, json!({}));
    let (id, code, _) = declined(&mut rig, A).remove(0);
    assert_eq!((id, code), (json!("q"), code::CANCELLED), "another client's call has none of it");
    rig.session_says("one", &result(json!("q")));
    assert!(rig.written(A).is_empty(), "too late");
}

#[test]
fn question_that_was_handed_on_is_the_other_calls_in_all() {
    let (mut rig, [_, second]) = asked_in_one_of_two();
    let mut with_token = sampling(json!("r"));
    with_token["params"]["_meta"] = json!({"progressToken": "t"});
    rig.say(A, &with_token);
    rig.answer(A, &second, json!({}));
    rig.messages();
    let progress =
        json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": "t", "progress": 1}});
    rig.client_says(1, &progress);
    rig.client_says(1, &result(json!("r")));
    assert_eq!(rig.written(A), [progress, result(json!("r"))]);
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "q"}});
    rig.say(A, &cancel);
    assert_eq!(rig.messages(), [(1, cancel, false)]);
    rig.session_says("one", &result(json!("q")));
    assert!(rig.written(A).is_empty(), "nobody waits for it");
}

#[test]
fn relay_that_forgets_a_calls_questions_has_none_handed_on() {
    let mut rig = Rig::started(&["a"]);
    rig.bring_up("a", &["tool"]);
    rig.conn = rig.dialled().expect("the relay was dialled");
    rig.event(Event::Dialed { conn: rig.conn, dialect: Dialect::V2 });
    rig.tunnel(tunnel::Event::Up(Hello::default()));
    let (mut rig, [_, second]) = asked_in_two(rig);
    rig.answer(A, &second, json!({}));
    assert_eq!(declined(&mut rig, A)[0].1, code::CANCELLED);
}

#[test]
fn no_call_has_more_questions_handed_on_than_it_may_ask() {
    let (mut rig, [_, second]) = asked_in_one_of_two();
    for id in 1..limits::MAX_CALL_QUESTIONS {
        rig.say(A, &sampling(json!(id)));
    }
    rig.answer(A, &second, json!({}));
    assert_eq!(declined(&mut rig, A), [], "as many as one may have");
    rig.call_in(3, "one");
    let third = rig.written(A).pop().expect("it was sent")["id"].clone();
    rig.say(A, &sampling(json!("r")));
    rig.answer(A, &third, json!({}));
    let told: Vec<_> = declined(&mut rig, A).into_iter().map(|(id, code, _)| (id, code)).collect();
    assert_eq!(told, [(json!("r"), code::CANCELLED)], "one over");
}

#[test]
fn tunnel_that_goes_ends_all_questions_at_once() {
    let (mut rig, _) = asked_in_one_of_two();
    rig.closed(CloseCode::TimedOut);
    assert_eq!(declined(&mut rig, A).len(), 1);
}

#[test]
fn question_that_the_server_gives_up_is_cancelled_at_the_client() {
    let mut rig = asking();
    rig.say(A, &sampling(json!("q")));
    rig.messages();
    let cancel = |id: &str| json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
    rig.say(A, &cancel("never asked"));
    rig.say(A, &cancel("q"));
    assert_eq!(rig.messages(), [(1, cancel("q"), false)]);
    rig.client_says(1, &result(json!("q")));
    assert!(rig.written(A).is_empty(), "nobody waits for it");
}

#[test]
fn progress_of_a_question_goes_back_with_the_servers_own_token() {
    let mut rig = asking();
    let mut question = sampling(json!("q"));
    question["params"]["_meta"] = json!({"progressToken": "t"});
    rig.say(A, &question);
    assert_eq!(rig.messages()[0].1, question);
    let progress = |token: Value| json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}});
    for token in [json!("t"), json!("u"), json!(null)] {
        rig.client_says(1, &progress(token));
    }
    assert_eq!(rig.written(A), [progress(json!("t"))]);
    rig.client_says(1, &result(json!("q")));
    rig.written(A);
    rig.client_says(1, &progress(json!("t")));
    assert!(rig.written(A).is_empty());
}

#[test]
fn questions_and_their_answers_renew_a_calls_idle_limit() {
    let mut config = config(&["a"]);
    let life = Life { call_idle_secs: Some(10), ..Life::default() };
    config
        .servers
        .insert("a".to_string(), ServerConfig { life: Life { era: EraChoice::Legacy, ..life }, ..stdio("a") });
    let mut rig = Rig::new(config, Some("minted"));
    rig.event(Event::Start { person: Person::Absent });
    rig.bring_up("a", &["tool"]);
    rig.connect(Dialect::V2);
    rig.call_in(1, "one");
    rig.advance(Duration::from_secs(9));
    rig.say(A, &sampling(json!("q")));
    rig.advance(Duration::from_secs(9));
    rig.client_says(1, &result(json!("q")));
    rig.advance(Duration::from_secs(9));
    assert!(rig.answers().is_empty());
    rig.advance(Duration::from_secs(1));
    assert_eq!(rig.answers()[0].1, Some(code::TIMED_OUT));
}

#[test]
fn questions_of_one_call_are_bounded() {
    let mut rig = asking();
    for id in 0..=limits::MAX_CALL_QUESTIONS {
        rig.say(A, &sampling(json!(id)));
    }
    assert_eq!(rig.messages().len(), limits::MAX_CALL_QUESTIONS);
    assert_eq!(declined(&mut rig, A)[0].1, code::OVERLOADED);
    rig.say(A, &sampling(json!(0)));
    assert!(rig.messages().is_empty() && rig.written(A).is_empty(), "one id is one question");
}

#[test]
fn question_is_taken_back_in_the_servers_own_words() {
    let mut rig = asking();
    rig.say(A, &sampling(json!(1)));
    rig.messages();
    let line = r#"{"params":{"_meta":{"x":1.0},"requestId":1,"x":[1e400]},"jsonrpc":"2.0","method":"notifications/cancelled"}"#;
    rig.event(Event::Line { child: A, line: Bytes::from(line) });
    let sent = rig.take_all(|action| match action {
        Action::Tunnel { command: Command::Message { json, .. }, .. } => Some(json.clone()),
        _ => None,
    });
    assert_eq!(sent, [line]);
}

#[test]
fn question_that_is_too_large_ends_no_call() {
    let mut rig = asking();
    let mut question = sampling(json!(1));
    question["params"]["x"] = json!("x".repeat(limits::MAX_CALL_MESSAGE));
    rig.say(A, &question);
    assert!(rig.messages().is_empty() && rig.answers().is_empty());
    assert_eq!(declined(&mut rig, A)[0].1, code::TOO_LARGE);
}

#[test]
fn new_process_knows_nothing_of_the_old_ones_questions() {
    let mut rig = asking();
    rig.say(A, &sampling(json!(1)));
    rig.exited(A, 1, "boom");
    rig.answers();
    rig.call_in(2, "one");
    rig.advance(limits::RESTART_MAX);
    let child = rig.bring_up("a", &["tool"]);
    rig.written(child);
    rig.client_says(1, &result(json!(1)));
    rig.client_says(2, &result(json!(1)));
    assert!(rig.written(child).is_empty());
}

#[test]
fn shared_server_hears_of_all_that_some_client_may_declare() {
    let mut rig = Rig::started(&["a"]);
    let child = rig.spawned("a").unwrap();
    rig.event(Event::Spawned { child, pid: 1 });
    let params = rig.written(child).remove(0)["params"].clone();
    assert_eq!(params["protocolVersion"], "2025-11-25");
    let elicitation = json!({"form": {}, "url": {}});
    assert_eq!(
        params["capabilities"],
        json!({"roots": {"listChanged": true}, "sampling": {"context": {}, "tools": {}}, "elicitation": elicitation})
    );
}

/// An agent whose server `a` runs once for each session, learned before.
pub(super) fn isolated() -> Rig {
    let mut config = config(&["a"]);
    let life = Life { isolation: Isolation::Session, ..Life::default() };
    config
        .servers
        .insert("a".to_string(), ServerConfig { life: Life { era: EraChoice::Legacy, ..life }, ..stdio("a") });
    let mut rig = Rig::new(config, Some("minted"));
    rig.event(Event::Start { person: Person::Absent });
    rig.event(Event::Recalled { server: "a".to_string(), catalog: None });
    let child = rig.bring_up("a", &["tool"]);
    rig.exited(child, 0, "");
    rig.connect(Dialect::V2);
    rig.actions.clear();
    rig
}

#[test]
fn sessions_own_run_meets_its_client() {
    let mut rig = isolated();
    rig.call_as(1, "one", &json!({"roots": {}, "x": null}), "tools/call", "{}");
    let child = rig.spawned("a").unwrap();
    rig.event(Event::Spawned { child, pid: 1 });
    let params = rig.written(child).remove(0)["params"].clone();
    let expected = json!({
        "protocolVersion": "2025-06-18",
        "capabilities": {"roots": {}, "x": null},
        "clientInfo": {"name": "Client of one", "version": "1.2"},
    });
    assert_eq!(params, expected);
}

#[test]
fn sessions_own_run_may_ask_in_any_of_its_calls_even_in_one_that_waits_for_it() {
    let mut rig = isolated();
    rig.call_in(1, "one");
    let child = rig.spawned("a").unwrap();
    rig.event(Event::Spawned { child, pid: 1 });
    rig.greet(child);
    let roots = |id: u32| json!({"jsonrpc": "2.0", "id": id, "method": "roots/list"});
    rig.say(child, &roots(1));
    assert_eq!(rig.messages(), [(1, roots(1), false)], "it wants to know before it is ready");
    let list = rig.written(child).pop().unwrap();
    rig.client_says(1, &json!({"jsonrpc": "2.0", "id": 1, "result": {"roots": []}}));
    assert_eq!(rig.written(child).len(), 1);
    rig.answer(child, &list["id"], json!({"tools": []}));
    rig.call_in(2, "one");
    rig.say(child, &roots(2));
    rig.say(child, &roots(3));
    rig.say(child, &roots(4));
    let expected = [(1, roots(2), false), (2, roots(3), false), (2, roots(4), false)];
    assert_eq!(rig.messages(), expected, "each in a call that asks nothing yet, in their order");
}

#[test]
fn sessions_own_run_asks_in_a_call_that_has_not_asked_before() {
    let mut rig = isolated();
    rig.call_in(1, "one");
    let child = rig.bring_up("a", &["tool"]);
    rig.call_in(2, "one");
    rig.actions.clear();
    for (id, stream) in [(1, 1), (2, 2), (3, 1)] {
        rig.say(child, &sampling(json!(id)));
        assert_eq!(rig.messages(), [(stream, sampling(json!(id)), false)]);
        rig.client_says(stream, &result(json!(id)));
    }
}

#[test]
fn session_that_ends_takes_its_own_run_with_it_at_once() {
    let mut rig = isolated();
    rig.call_in(1, "one");
    let one = rig.bring_up("a", &["tool"]);
    rig.call_in(2, "two");
    rig.bring_up("a", &["tool"]);
    rig.tunnel(tunnel::Event::SessionEnded { session: "one".to_string() });
    let closed = rig.take_all(|action| match action {
        Action::CloseStdin { child } => Some(*child),
        _ => None,
    });
    assert_eq!(closed, [one]);
    assert_eq!(rig.answers()[0].0, 1);
    assert_eq!(rig.server_status("a").sessions, 1);
}

/// A call of a server over HTTP, which answers it with a stream: that, and the request.
fn streaming(rig: &mut Rig, stream: u32, session: &str) -> (FetchId, Fetch) {
    let head = OpenHead {
        server: "web".into(),
        method: "tools/call".into(),
        session: session.into(),
        capabilities: r#"{"sampling":{}}"#.into(),
        length: 2,
        ..OpenHead::default()
    };
    rig.tunnel(tunnel::Event::Call { stream: StreamId(stream), head, params: Bytes::from_static(b"{}") });
    let (fetch, request) = rig.fetched(&Method::POST);
    rig.head(fetch, 200, http::SSE);
    (fetch, request)
}

/// Over HTTP the stream tells whose question it is.
#[test]
fn question_on_a_calls_stream_belongs_to_it_whoever_else_calls() {
    let mut rig = http::ready();
    let (first, request) = streaming(&mut rig, 1, "one");
    let (second, _) = streaming(&mut rig, 2, "two");
    for (fetch, stream) in [(second, 2), (first, 1)] {
        rig.chunk(fetch, &std::format!("data: {}\n\n", sampling(json!(stream))));
        assert_eq!(rig.messages(), [(stream, sampling(json!(stream)), false)]);
    }
    rig.client_says(2, &result(json!(1)));
    assert!(rig.is_quiet(), "it is not that client's to answer");
    rig.client_says(1, &result(json!(1)));
    assert_eq!(http::body(&rig.fetched(&Method::POST).1), result(json!(1)));
    // The answer to the other one is awaited no longer once its call has ended.
    rig.chunk(second, &std::format!("data: {}\n\n", sampling(json!("more"))));
    rig.chunk(first, &std::format!("data: {}\n\n", http::result(&request, &json!({}))));
    assert!(rig.is_quiet());
    rig.reset(2);
    let told: Vec<Value> = core::iter::from_fn(|| (!rig.is_quiet()).then(|| http::body(&rig.fetched(&Method::POST).1)))
        .filter(|message| message.get("error").is_some())
        .map(|message| message["id"].clone())
        .collect();
    assert_eq!(told, [json!("more"), json!(2)]);
}

#[test]
fn question_on_a_calls_stream_ends_with_it() {
    let mut rig = http::ready();
    let (first, request) = streaming(&mut rig, 1, "one");
    streaming(&mut rig, 2, "one");
    rig.chunk(first, &std::format!("data: {}\n\n", sampling(json!("q"))));
    rig.chunk(first, &std::format!("data: {}\n\n", http::result(&request, &json!({}))));
    let told = http::body(&rig.fetched(&Method::POST).1);
    assert_eq!((&told["id"], &told["error"]["code"]), (&json!("q"), &json!(code::CANCELLED)), "no other call has it");
}
