//! Calls of modern clients that wait for an answer to their legacy server's question.

use ::http::Method;

use super::bridging::{CAPABILITIES, able, answer, asked, legacy, params};
use super::*;
use crate::limits;
use crate::mcp::code;

const A: ChildId = ChildId(1);

/// A modern client's call that the legacy server asks something in: the call's id there, and the state.
fn parked(rig: &mut Rig, stream: u32) -> (Value, Value) {
    rig.modern_call(stream, "a", "tools/call", &params(&json!({})));
    let call = asked(rig, A)["id"].clone();
    rig.say(A, &json!({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": {"message": "m"}}));
    let (of, code, body) = answer(rig);
    assert_eq!((of, code, &body["resultType"]), (stream, None, &json!("input_required")));
    let (key, question) = body["inputRequests"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(
        (key.as_str(), question),
        ("question-1", &json!({"method": "elicitation/create", "params": {"message": "m"}}))
    );
    (call, body["requestState"].clone())
}

fn back(state: &Value, answers: &Value) -> String {
    params(&json!({"requestState": state, "inputResponses": answers}))
}

// --- a legacy client, a modern server

#[test]
fn question_parks_the_call_and_the_retry_goes_on_with_it() {
    let mut rig = legacy(&json!({"tools": {}}));
    let (call, state) = parked(&mut rig, 1);
    rig.modern_call(
        2,
        "a",
        "tools/call",
        &back(&state, &json!({"question-1": {"action": "accept", "n": 1.5}, "more": 1})),
    );
    assert_eq!(
        asked(&mut rig, A),
        json!({"jsonrpc": "2.0", "id": "q", "result": {"action": "accept", "n": 1.5}}),
        "and no second call"
    );
    rig.answer(A, &call, json!({"content": []}));
    assert_eq!(answer(&mut rig), (2, None, json!({"content": [], "resultType": "complete"})));
    rig.modern_call(3, "a", "tools/call", &back(&state, &json!({"question-1": {}})));
    assert_eq!(answer(&mut rig).1, Some(code::INVALID_PARAMS), "a state is good for once");
    assert!(rig.written(A).is_empty());
}

#[test]
fn rounds_have_states_of_their_own() {
    let mut rig = legacy(&json!({"tools": {}}));
    let (call, first) = parked(&mut rig, 1);
    rig.modern_call(2, "a", "tools/call", &back(&first, &json!({})));
    let (_, _, again) = answer(&mut rig);
    assert_eq!(again["inputRequests"]["question-1"]["method"], "elicitation/create", "what is missing is asked again");
    rig.modern_call(3, "a", "tools/call", &back(&first, &json!({"question-1": {}})));
    assert_eq!(answer(&mut rig).1, Some(code::INVALID_PARAMS), "the older state");
    rig.say(A, &json!({"jsonrpc": "2.0", "id": 7, "method": "roots/list"}));
    assert!(rig.answers().is_empty(), "its client is away");
    rig.modern_call(4, "a", "tools/call", &back(&again["requestState"], &json!({"question-1": {}})));
    let (_, _, third) = answer(&mut rig);
    assert_eq!(third["inputRequests"], json!({"question-2": {"method": "roots/list"}}));
    assert_eq!(asked(&mut rig, A)["id"], "q");
    rig.modern_call(5, "a", "tools/call", &back(&third["requestState"], &json!({"question-2": {"roots": []}})));
    assert_eq!(asked(&mut rig, A), json!({"jsonrpc": "2.0", "id": 7, "result": {"roots": []}}));
    rig.answer(A, &call, json!({}));
    assert_eq!(answer(&mut rig).0, 5);
}

#[test]
fn state_is_good_for_nobody_else_and_nothing_else() {
    let mut rig = legacy(&json!({"tools": {}}));
    let (_, state) = parked(&mut rig, 1);
    let answers = json!({"question-1": {}});
    let other =
        json!({"name": "t", "arguments": {"x": 2}, "requestState": state, "inputResponses": answers}).to_string();
    let changed = Value::from(state.as_str().unwrap().replace(|c: char| c.is_ascii_digit(), "x"));
    for (stream, method, params) in [
        (2, "tools/call", other),
        (3, "prompts/get", back(&state, &answers)),
        (4, "tools/call", back(&changed, &answers)),
        (5, "tools/call", back(&json!(""), &answers)),
        (6, "tools/call", back(&json!(7), &answers)),
    ] {
        rig.modern_call(stream, "a", method, &params);
        assert_eq!(answer(&mut rig).1, Some(code::INVALID_PARAMS), "{stream}");
    }
    let head = OpenHead {
        server: "a".into(),
        method: "tools/call".into(),
        version: Some("2026-07-28".into()),
        actor: "bob".into(),
        ..OpenHead::default()
    };
    rig.tunnel(tunnel::Event::Call { stream: StreamId(7), head, params: Bytes::from(back(&state, &answers)) });
    assert_eq!(answer(&mut rig).1, Some(code::INVALID_PARAMS));
    assert!(rig.written(A).is_empty(), "the server heard of none of it");
    rig.modern_call(8, "a", "tools/call", &back(&state, &answers));
    assert_eq!(asked(&mut rig, A)["id"], "q", "and the call still waits");
}

#[test]
fn client_that_stays_away_has_its_call_cancelled() {
    let mut rig = legacy(&json!({"tools": {}}));
    let (call, state) = parked(&mut rig, 1);
    rig.advance(limits::PARKED_FOR);
    let written = rig.written(A);
    assert_eq!((&written[0]["id"], written[0]["error"].is_object()), (&json!("q"), true));
    assert_eq!((&written[1]["method"], &written[1]["params"]["requestId"]), (&json!("notifications/cancelled"), &call));
    rig.modern_call(2, "a", "tools/call", &back(&state, &json!({"question-1": {}})));
    assert_eq!(answer(&mut rig).1, Some(code::INVALID_PARAMS));
    assert_eq!(rig.server_status("a").calls, 0);
}

#[test]
fn answer_that_comes_while_the_client_is_away_waits_for_it() {
    let mut rig = legacy(&json!({"tools": {}}));
    let (call, state) = parked(&mut rig, 1);
    rig.answer(A, &call, json!({"late": true}));
    assert!(rig.answers().is_empty());
    rig.modern_call(2, "a", "tools/call", &back(&state, &json!({"question-1": {}})));
    assert_eq!(answer(&mut rig), (2, None, json!({"late": true, "resultType": "complete"})));
    assert!(rig.written(A).is_empty());
}

#[test]
fn tunnel_that_goes_leaves_a_parked_call_waiting_and_its_server_that_ends_does_not() {
    let mut rig = legacy(&json!({"tools": {}}));
    let (_, state) = parked(&mut rig, 1);
    rig.closed(CloseCode::Normal);
    assert!(rig.written(A).is_empty());
    rig.advance(limits::RECONNECT_MAX);
    rig.connect(Dialect::V2);
    rig.commands();
    rig.exited(A, 1, "");
    rig.advance(limits::RESTART_MAX);
    let child = rig.bring_up("a", &["t"]);
    rig.commands();
    rig.modern_call(2, "a", "tools/call", &back(&state, &json!({"question-1": {}})));
    assert_eq!(answer(&mut rig).1, Some(code::INVALID_PARAMS), "never a second execution");
    assert!(rig.written(child).is_empty());
}

#[test]
fn call_that_wants_a_page_visited_first_is_begun_when_the_client_comes_back() {
    let mut rig = legacy(&json!({"tools": {}}));
    let able = json!({"elicitation": {"url": {}}});
    let params = |more: Value| {
        let mut params = json!({"name": "t", "_meta": {CAPABILITIES: able}});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params.to_string()
    };
    let page = json!({"mode": "url", "elicitationId": "e", "url": "https://a.example", "message": "m"});
    let error = json!({"code": -32042, "message": "m", "data": {"elicitations": [page]}});
    let turn_away = |rig: &mut Rig| {
        let id = asked(rig, A)["id"].clone();
        rig.say(A, &json!({"jsonrpc": "2.0", "id": id, "error": error}));
        answer(rig)
    };
    rig.modern_call(1, "a", "tools/call", &params(json!({})));
    let (_, code, body) = turn_away(&mut rig);
    assert_eq!((code, &body["inputRequests"]["page-1"]["params"]), (None, &page));
    let answers = json!({"requestState": body["requestState"], "inputResponses": {"page-1": {"action": "accept"}}});
    rig.modern_call(2, "a", "tools/call", &params(answers));
    let call = asked(&mut rig, A);
    assert_eq!((&call["params"]["name"], &call["params"]["requestState"]), (&json!("t"), &Value::Null));
    rig.answer(A, &call["id"], json!({}));
    assert_eq!(answer(&mut rig), (2, None, json!({"resultType": "complete"})));
    rig.modern_call(3, "a", "tools/call", r#"{"name":"t"}"#);
    let (_, code, body) = turn_away(&mut rig);
    assert_eq!((code, &body["data"]["requiredCapabilities"]), (Some(-32021), &json!({"elicitation": {"url": {}}})));
}

#[test]
fn question_that_the_client_cannot_answer_ends_its_call() {
    let mut rig = legacy(&json!({"tools": {}}));
    rig.modern_call(1, "a", "tools/call", r#"{"name":"t"}"#);
    let call = asked(&mut rig, A)["id"].clone();
    rig.say(A, &json!({"jsonrpc": "2.0", "id": 3, "method": "sampling/createMessage", "params": {}}));
    let (_, code, body) = answer(&mut rig);
    assert_eq!((code, &body["data"]["requiredCapabilities"]), (Some(-32021), &json!({"sampling": {}})));
    let written = rig.written(A);
    assert_eq!((&written[0]["id"], written[0]["error"].is_object()), (&json!(3), true));
    assert_eq!((&written[1]["method"], &written[1]["params"]["requestId"]), (&json!("notifications/cancelled"), &call));
}

/// A call of a modern client that is not the usual one.
fn call_of(rig: &mut Rig, stream: u32, actor: &str, method: &str, params: &str) -> Value {
    let head = OpenHead {
        server: "a".into(),
        method: method.into(),
        version: Some("2026-07-28".into()),
        actor: actor.into(),
        ..OpenHead::default()
    };
    let params = Bytes::copy_from_slice(params.as_bytes());
    rig.tunnel(tunnel::Event::Call { stream: StreamId(stream), head, params });
    asked(rig, A)["id"].clone()
}

fn roots(id: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "roots/list"})
}

#[test]
fn call_that_waits_for_its_client_leaves_no_doubt_about_the_only_one_that_goes_on() {
    let mut rig = legacy(&json!({"tools": {}}));
    let (_, state) = parked(&mut rig, 1);
    call_of(&mut rig, 2, "bob", "tools/call", &params(&json!({})));
    rig.say(A, &roots("r"));
    let (of, _, body) = answer(&mut rig);
    assert_eq!((of, &body["inputRequests"]["question-1"]["method"]), (2, &json!("roots/list")));
    rig.say(A, &roots("s"));
    assert_eq!(asked(&mut rig, A)["error"]["code"], code::AMBIGUOUS, "both wait, and are two clients'");
    let of_carol = call_of(&mut rig, 3, "carol", "tools/call", &params(&json!({})));
    let of_dan = call_of(&mut rig, 4, "dan", "tools/call", &params(&json!({})));
    rig.say(A, &roots("t"));
    assert_eq!(asked(&mut rig, A)["error"]["code"], code::AMBIGUOUS, "two clients' calls go on");
    for call in [of_carol, of_dan] {
        rig.answer(A, &call, json!({}));
        answer(&mut rig);
    }
    rig.modern_call(5, "a", "tools/call", &back(&state, &json!({"question-1": {}})));
    assert_eq!(asked(&mut rig, A)["id"], "q");
    rig.say(A, &roots("u"));
    assert_eq!(answer(&mut rig).0, 5, "it goes on, and the other waits");
}

#[test]
fn parked_call_whose_question_was_taken_back_may_be_the_one_that_asks() {
    let mut rig = legacy(&json!({"tools": {}}));
    parked(&mut rig, 1);
    let withdrawn = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "q"}});
    rig.say(A, &withdrawn);
    call_of(&mut rig, 2, "bob", "tools/call", &params(&json!({})));
    rig.say(A, &roots("r"));
    assert_eq!(asked(&mut rig, A)["error"]["code"], code::AMBIGUOUS);
}

#[test]
fn second_question_of_a_parked_call_is_asked_with_the_first() {
    let mut rig = legacy(&json!({"tools": {}}));
    let (_, state) = parked(&mut rig, 1);
    rig.say(A, &roots("r"));
    assert!(rig.answers().is_empty() && rig.written(A).is_empty());
    rig.modern_call(2, "a", "tools/call", &back(&state, &json!({"question-1": {}})));
    assert_eq!(asked(&mut rig, A)["id"], "q");
    let (_, _, body) = answer(&mut rig);
    assert_eq!(body["inputRequests"], json!({"question-2": {"method": "roots/list"}}));
}

#[test]
fn question_in_several_calls_of_one_modern_client_is_asked_in_the_newest_that_can() {
    let mut rig = legacy(&json!({"tools": {}}));
    for stream in [1, 2] {
        rig.modern_call(stream, "a", "tools/call", &params(&json!({})));
        asked(&mut rig, A);
    }
    rig.modern_call(3, "a", "completion/complete", &params(&json!({})));
    asked(&mut rig, A);
    rig.say(A, &roots("r"));
    assert_eq!(answer(&mut rig).0, 2);
    rig.say(A, &roots("s"));
    assert_eq!(answer(&mut rig).0, 1);
    call_of(&mut rig, 4, "", "tools/call", &params(&json!({})));
    call_of(&mut rig, 5, "", "tools/call", &params(&json!({})));
    rig.say(A, &roots("t"));
    assert_eq!(asked(&mut rig, A)["error"]["code"], code::AMBIGUOUS, "of whom nothing is known may be two");
}

#[test]
fn question_in_a_call_that_cannot_come_back_is_declined_and_the_call_goes_on() {
    for method in ["completion/complete", "vendor/x"] {
        let mut rig = legacy(&json!({"tools": {}}));
        let own = json!({"requestState": "own", "inputResponses": {"k": 1}, "_meta": {CAPABILITIES: able()}});
        rig.modern_call(1, "a", method, &own.to_string());
        let call = asked(&mut rig, A);
        assert_eq!(call["params"], json!({"requestState": "own", "inputResponses": {"k": 1}}), "its own words");
        rig.say(A, &roots("r"));
        let told = asked(&mut rig, A);
        assert_eq!((&told["id"], &told["error"]["code"]), (&json!("r"), &json!(code::METHOD_NOT_FOUND)));
        assert!(rig.answers().is_empty(), "{method}");
        rig.answer(A, &call["id"], json!({"x": 1}));
        assert_eq!(answer(&mut rig), (1, None, json!({"x": 1, "resultType": "complete"})));
        rig.modern_call(2, "a", method, &params(&json!({})));
        let call = asked(&mut rig, A);
        let page = json!({"mode": "url", "elicitationId": "e", "url": "https://a.example", "message": "m"});
        let error = json!({"code": -32042, "message": "m", "data": {"elicitations": [page]}});
        rig.say(A, &json!({"jsonrpc": "2.0", "id": call["id"], "error": error}));
        assert_eq!(answer(&mut rig).1, Some(code::INTERNAL_ERROR), "{method}");
    }
}

#[test]
fn parked_calls_of_one_caller_are_bounded() {
    let mut rig = http::ready();
    let most = u32::try_from(limits::MAX_PARKED).unwrap();
    for stream in 1..=most + 1 {
        rig.modern_call(stream, "web", "tools/call", &params(&json!({"n": stream})));
        let (fetch, _) = rig.fetched(&Method::POST);
        rig.head(fetch, 200, http::SSE);
        let question = json!({"jsonrpc": "2.0", "id": stream, "method": "roots/list"});
        rig.chunk(fetch, &std::format!("data: {question}\n\n"));
        let (of, code, body) = answer(&mut rig);
        assert_eq!(of, stream);
        assert_eq!((code, &body["resultType"]), (None, &json!("input_required")));
    }
    assert_eq!(rig.server_status("web").calls, limits::MAX_PARKED, "the first one has made room");
    assert_eq!(rig.aborted().len(), 1);
}
