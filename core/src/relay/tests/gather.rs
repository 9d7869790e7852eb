//! Requests on the endpoint of all servers that several of them work on: levels of logs, tasks.

use super::aggregate::{answered, request, rich, two_servers};
use super::*;
use crate::limits;
use crate::mcp::code;
use crate::tunnel::{Close, CloseCode};

fn refused(world: &mut World, stream: u32, error: &str) -> Vec<String> {
    let outcome = Outcome::Error { code: -32602 };
    world.tunnel(1, tunnel::Event::Answer { stream: StreamId(stream), outcome, length: None });
    world.data(1, stream, error, true)
}

#[test]
fn level_is_set_at_every_server_that_has_a_log() {
    let mut world = two_servers();
    let mute = r#"{"name":"mute","state":"ready","tools":[]}"#.to_string();
    let asleep = rich("asleep", "").replace("\"ready\"", "\"asleep\"");
    world.catalog(1, &whole(&[rich("a", ""), rich("b", ""), mute, asleep]));
    world.drain();
    let params = r#"{"level":"error","n":1.0}"#;
    let opened = world.post(&request(7, "logging/setLevel", params));
    let expected =
        [1, 2].map(|n| format!("tunnel 1 open {n} {} logging/setLevel {params}", if n == 1 { "a" } else { "b" }));
    assert_eq!(opened, expected);
    assert_eq!(answered(&mut world, 1, "{}"), [""; 0]);
    let done = refused(&mut world, 2, r#"{"code":-32602,"message":"no"}"#);
    assert_eq!(done, [r#"reply 1 200 {"jsonrpc":"2.0","id":7,"result":{}}"#], "one of them took it");
    assert_eq!(world.shard.poll_timeout().map(|deadline| deadline.reason), Some("a grant runs out"));
}

#[test]
fn level_that_no_server_takes_is_refused() {
    let mut world = two_servers();
    world.post(&request(7, "logging/setLevel", r#"{"level":"alert"}"#));
    refused(&mut world, 1, r#"{"code":-32602,"message":"a"}"#);
    let done = refused(&mut world, 2, r#"{"code":-32602,"message":"b"}"#);
    assert_eq!(done, [r#"reply 1 200 {"jsonrpc":"2.0","id":7,"error":{"code":-32602,"message":"a"}}"#]);
    let mut world = World::ready();
    let actions = world.post(&request(9, "logging/setLevel", r#"{"level":"error"}"#));
    assert_eq!(failure(&actions[0]).0, code::METHOD_NOT_FOUND);
}

#[test]
fn level_that_there_is_not_is_refused_whoever_runs() {
    let mut world = two_servers();
    for state in ["ready", "asleep"] {
        world.catalog(1, &whole(&[rich("a", "").replace("\"ready\"", &format!("\"{state}\""))]));
        world.drain();
        for params in ["{}", r#"{"level":"loud"}"#, r#"{"level":"Error"}"#, r#"{"level":3}"#, r#"{"level":null}"#] {
            let told = world.post(&request(8, "logging/setLevel", params));
            assert_eq!((told.len(), failure(&told[0]).0), (1, code::INVALID_PARAMS), "{params}: no server is asked");
            assert!(told[0].contains("debug, info, notice, warning, error, critical, alert, emergency"), "{told:?}");
        }
    }
}

#[test]
fn server_that_does_not_answer_holds_nobody_up() {
    let mut world = two_servers();
    world.post(&request(7, "logging/setLevel", r#"{"level":"error"}"#));
    answered(&mut world, 2, "{}");
    assert_eq!(world.advance(limits::STREAM_AFTER), ["begin 1 events"]);
    let done = world.advance(limits::GATHER_PATIENCE - limits::STREAM_AFTER);
    assert!(done[0].contains(r#"\"id\":7,\"result\":{}"#) && done[1] == "finish 1", "{done:?}");
    assert_eq!(answered(&mut world, 1, "{}"), [""; 0], "too late");
}

#[test]
fn task_goes_to_the_server_that_made_it() {
    let mut world = two_servers();
    world.catalog(
        1,
        &whole(&[
            rich("a", ""),
            rich("b", "").replace("\"tools\":[]", r#""tools":[{"name":"slow","inputSchema":{}}]"#),
        ]),
    );
    world.drain();
    world.post(&request(1, "tools/call", r#"{"name":"b__slow","task":{"ttl":1.0}}"#));
    let result = r#"{"task":{"taskId":"t-1","status":"working","ttl":1.0}}"#;
    let done = answered(&mut world, 1, result);
    assert_eq!(done, [format!(r#"reply 1 200 {{"jsonrpc":"2.0","id":1,"result":{result}}}"#)], "nothing is changed");
    for (id, method) in [(2, "tasks/get"), (3, "tasks/result"), (4, "tasks/cancel")] {
        let params = r#"{ "taskId":"t-1"}"#;
        assert_eq!(world.post(&request(id, method, params)), [format!("tunnel 1 open {id} b {method} {params}")]);
    }
    world.tunnel(
        1,
        tunnel::Event::Notice {
            server: "b".into(),
            sessions: Vec::new(),
            json: Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{}}"#),
        },
    );
    assert_eq!(world.drain(), [""; 0], "nobody listens");
}

#[test]
fn task_that_is_not_known_is_looked_for() {
    let mut world = two_servers();
    let searched = world.post(&request(1, "tasks/result", r#"{"taskId":"t-1","secret":1}"#));
    let expected = ["a", "b"]
        .iter()
        .zip(1..)
        .map(|(server, n)| format!(r#"tunnel 1 open {n} {server} tasks/get {{"taskId":"t-1"}}"#));
    assert_eq!(searched, expected.collect::<Vec<_>>());
    refused(&mut world, 1, r#"{"code":-32602,"message":"no"}"#);
    let passed = answered(&mut world, 2, r#"{"taskId":"t-1","status":"completed"}"#);
    assert_eq!(passed, [r#"tunnel 1 open 3 b tasks/result {"taskId":"t-1","secret":1}"#]);
    let done = answered(&mut world, 3, r#"{"content":[]}"#);
    assert_eq!(done, [r#"reply 1 200 {"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#]);
    let known = world.post(&request(2, "tasks/get", r#"{"taskId":"t-1"}"#));
    assert_eq!(known, [r#"tunnel 1 open 4 b tasks/get {"taskId":"t-1"}"#], "it is known now");
}

#[test]
fn search_for_a_task_answers_what_it_found() {
    let mut world = two_servers();
    world.post(&request(1, "tasks/get", r#"{"taskId":"t-1"}"#));
    answered(&mut world, 1, r#"{"taskId":"t-1", "ttl":1.0}"#);
    let done = refused(&mut world, 2, r#"{"code":-32602,"message":"no"}"#);
    assert_eq!(done, [r#"reply 1 200 {"jsonrpc":"2.0","id":1,"result":{"taskId":"t-1", "ttl":1.0}}"#]);
    world.post(&request(2, "tasks/cancel", r#"{"taskId":"t-2"}"#));
    refused(&mut world, 3, r#"{"code":-32602,"message":"no"}"#);
    let done = refused(&mut world, 4, r#"{"code":-32602,"message":"no"}"#);
    assert_eq!(failure(&done[0]), (code::INVALID_PARAMS, "no-such-task".into()));
    world.post(&request(3, "tasks/cancel", r#"{"taskId":"t-3"}"#));
    answered(&mut world, 5, r#"{"taskId":"t-3"}"#);
    let done = answered(&mut world, 6, r#"{"taskId":"t-3"}"#);
    assert_eq!(failure(&done[0]), (code::AMBIGUOUS, "ambiguous-task".into()), "nothing was cancelled");
    assert_eq!(failure(&world.post(&request(4, "tasks/get", "{}"))[0]).0, code::INVALID_PARAMS);
}

#[test]
fn only_server_with_tasks_is_asked_at_once() {
    let mut world = World::new();
    world.up(1, "laptop", Some("id-1"));
    world.catalog(1, &whole(&[rich("a", ""), server("files", &["read"])]));
    world.drain();
    let passed = world.post(&request(1, "tasks/cancel", r#"{"taskId":"t"}"#));
    assert_eq!(passed, [r#"tunnel 1 open 1 a tasks/cancel {"taskId":"t"}"#]);
    let mut world = World::ready();
    let none = world.post(&request(1, "tasks/cancel", r#"{"taskId":"t"}"#));
    assert_eq!(failure(&none[0]), (code::INVALID_PARAMS, "no-such-task".into()));
}

#[test]
fn lists_of_tasks_are_merged_page_by_page() {
    let mut world = two_servers();
    let opened = world.post(&request(1, "tasks/list", r#"{"cursor":"","_meta":{}}"#));
    let expected = ["a", "b"]
        .iter()
        .zip(1..)
        .map(|(server, n)| format!(r#"tunnel 1 open {n} {server} tasks/list {{"_meta":{{}}}}"#));
    assert_eq!(opened, expected.collect::<Vec<_>>());
    answered(&mut world, 2, r#"{"tasks":[{"taskId":"b-1"}]}"#);
    let next = answered(&mut world, 1, r#"{"tasks":[{"taskId":"a-1", "ttl":1.0}],"nextCursor":"more"}"#);
    assert_eq!(next, [r#"tunnel 1 open 3 a tasks/list {"cursor":"more","_meta":{}}"#]);
    let done = answered(&mut world, 3, r#"{"tasks":[{"taskId":"a-2"}]}"#);
    let tasks = r#"{"tasks":[{"taskId":"a-1", "ttl":1.0},{"taskId":"a-2"},{"taskId":"b-1"}]}"#;
    assert_eq!(done, [format!(r#"reply 1 200 {{"jsonrpc":"2.0","id":1,"result":{tasks}}}"#)]);
    let known = world.post(&request(2, "tasks/get", r#"{"taskId":"b-1"}"#));
    assert_eq!(known, [r#"tunnel 1 open 4 b tasks/get {"taskId":"b-1"}"#]);
    assert_eq!(failure(&world.post(&request(3, "tasks/list", r#"{"cursor":"x"}"#))[0]).0, code::INVALID_PARAMS);
    let mut world = World::ready();
    assert_eq!(failure(&world.post(&request(3, "tasks/list", "{}"))[0]).0, code::METHOD_NOT_FOUND);
}

#[test]
fn gathering_ends_with_its_devices_its_session_and_the_relay() {
    let search = request(1, "tasks/cancel", r#"{"taskId":"t"}"#);
    let found = |world: &mut World| {
        world.post(&search);
        answered(world, 1, r#"{"taskId":"t"}"#);
    };
    let mut world = two_servers();
    found(&mut world);
    world.tunnel(1, tunnel::Event::Closed(Close::new(CloseCode::Normal, "")));
    let ended = world.drain();
    assert_eq!(ended.len(), 1, "nothing is opened where nobody is: {ended:?}");
    assert_eq!(failure(&ended[0]).1, "no-such-task");

    let mut world = two_servers();
    found(&mut world);
    world.event(Event::SessionEnded { user: UserId::new("ann"), session: SessionKey(Arc::from("s")) });
    let ended = world.drain();
    assert_eq!(failure(&ended[0]).1, "session-ended");
    assert!(!ended.iter().any(|action| action.contains("open")), "{ended:?}");

    let mut world = two_servers();
    found(&mut world);
    world.event(Event::Stop);
    let ended = world.drain();
    assert_eq!(failure(&ended[0]).1, "relay-stopping");
    assert_eq!(ended.iter().filter(|action| action.starts_with("reply")).count(), 1);
}

#[test]
fn gathering_in_a_batch_fills_its_place() {
    let mut world = two_servers();
    world.version = Version::V2025_03_26;
    let read = |json: &str| match rpc::parse(&Bytes::copy_from_slice(json.as_bytes())).unwrap() {
        Message::Request { id, method, params } => Item::Request(Request { id, method, params }),
        other => panic!("{other:?}"),
    };
    let requests =
        std::vec![read(&request(1, "logging/setLevel", r#"{"level":"info"}"#)), read(&request(2, "ping", "{}"))];
    world.content(Content::Batch(requests));
    answered(&mut world, 1, "{}");
    let done = answered(&mut world, 2, "{}");
    let expected = r#"reply 1 200 [{"jsonrpc":"2.0","id":1,"result":{}},{"jsonrpc":"2.0","id":2,"result":{}}]"#;
    assert_eq!(done, [expected]);
}

#[test]
fn client_that_left_hears_of_nothing_and_one_that_comes_back_of_all() {
    let mut world = two_servers();
    world.post(&request(1, "logging/setLevel", r#"{"level":"info"}"#));
    assert_eq!(world.gone(1), [""; 0]);
    answered(&mut world, 1, "{}");
    assert_eq!(answered(&mut world, 2, "{}"), [""; 0]);

    let mut world = two_servers();
    world.shows_ids = true;
    world.version = Version::V2025_11_25;
    world.post(&request(1, "logging/setLevel", r#"{"level":"info"}"#));
    let begun = world.advance(limits::STREAM_AFTER);
    let id = begun[1].split("id: ").nth(1).unwrap().split("\\n").next().unwrap().to_string();
    world.gone(1);
    answered(&mut world, 1, "{}");
    world.last_event = Some(id);
    assert_eq!(world.listen(), ["begin 2 events"]);
    let done = answered(&mut world, 2, "{}");
    assert!(done[0].starts_with("body 2") && done[0].contains("result") && done[1] == "finish 2", "{done:?}");
}

#[test]
fn each_gathering_becomes_the_stream_of_its_own_client() {
    let mut world = two_servers();
    for id in [1, 2] {
        world.post(&request(id, "logging/setLevel", r#"{"level":"error"}"#));
    }
    assert_eq!(world.advance(limits::STREAM_AFTER), ["begin 1 events", "begin 2 events"]);
}

#[test]
fn task_of_an_error_or_of_an_endpoint_of_one_server_is_not_remembered() {
    let slow = rich("b", "").replace("\"tools\":[]", r#""tools":[{"name":"slow","inputSchema":{}}]"#);
    let made = r#"{"code":-5,"message":"m","task":{"taskId":"t-1"}}"#;
    for (endpoint, tool, code) in [(Endpoint::Server("b".into()), "slow", None), (Endpoint::All, "b__slow", Some(-5))] {
        let mut world = two_servers();
        world.catalog(1, &whole(&[rich("a", ""), slow.clone()]));
        world.endpoint = endpoint;
        world.post(&call(tool, 1));
        let done = match code {
            None => answered(&mut world, 1, made),
            Some(code) => world.error(1, 1, code, made),
        };
        assert!(done[0].contains(made), "{done:?}");
        world.endpoint = Endpoint::All;
        assert_eq!(world.post(&request(2, "tasks/get", r#"{"taskId":"t-1"}"#)).len(), 2, "both are asked");
    }
}

#[test]
fn task_that_is_found_on_a_device_that_came_back_is_known_again() {
    let mut world = two_servers();
    let get = request(1, "tasks/get", r#"{"taskId":"t-1"}"#);
    for conn in [1, 2] {
        world.up(conn, "laptop", Some("id-1"));
        world.catalog(conn, &whole(&[rich("a", ""), rich("b", "")]));
        world.drain();
        assert_eq!(world.post(&get).len(), 2, "both are asked");
        world.error(conn, 1, -32_602, r#"{"code":-32602,"message":"no"}"#);
        world.answer(conn, 2, None);
        world.data(conn, 2, r#"{"taskId":"t-1"}"#, true);
    }
    assert_eq!(world.post(&get), [r#"tunnel 2 open 3 b tasks/get {"taskId":"t-1"}"#]);
}
