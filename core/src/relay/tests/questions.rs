use super::*;
use crate::limits;

/// Of the first question in a world made with its seed.
const FIRST: &str = "wVwCiewt-1";

const QUESTION: &str = r#"{"jsonrpc":"2.0","id":7,"method":"roots/list","params":{"_meta":{"progressToken":"t"}}}"#;

/// A call on stream 1 whose server has asked its client something.
fn asked() -> World {
    let mut world = World::ready();
    world.call(1);
    let said = world.said(1, QUESTION);
    let question = r#"{"jsonrpc":"2.0","id":"NAME","method":"roots/list","params":{"_meta":{"progressToken":"NAME"}}}"#;
    assert_eq!(said, ["begin 1 events from 1/1", &event(1, 9, &question.replace("NAME", FIRST))]);
    world
}

fn event(exchange: u64, credit: u32, json: &str) -> String {
    format!("body {exchange} +{credit} {:?}", format!("event: message\ndata: {json}\n\n"))
}

fn with_name(json: &str) -> String {
    json.replace("NAME", FIRST)
}

#[test]
fn answer_goes_to_the_server_that_asked_once() {
    let mut world = asked();
    let answer = with_name(r#"{"jsonrpc":"2.0","result":{"n":1e400},"id":"NAME"}"#);
    let restored = r#"tunnel 1 message 1 {"jsonrpc":"2.0","result":{"n":1e400},"id":7}"#;
    assert_eq!(world.post(&answer), [restored, "reply 2 202 "]);
    assert_eq!(world.post(&answer), ["reply 3 202 "]);
}

#[test]
fn answer_of_another_session_or_run_or_of_no_question_is_dropped() {
    let mut world = asked();
    world.session = "other";
    assert_eq!(world.post(&with_name(r#"{"jsonrpc":"2.0","id":"NAME","result":{}}"#)), ["reply 2 202 "]);
    world.session = "s";
    for id in ["1", "7", "\"x-1\"", "\"wVwCiewt-2\"", "\"1\""] {
        let actions = world.post(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
        assert_eq!(actions.len(), 1, "{id}: {actions:?}");
    }
    let mut later = World::with(&config());
    later.shard =
        Shard::new(Arc::new(Settings::from_config(&config(), "https://relay.example")), Box::new(Seeded::new(2)));
    later.up(1, "laptop", Some("id-1"));
    later.catalog(1, &files());
    later.drain();
    later.call(1);
    later.said(1, QUESTION);
    assert_eq!(later.post(&with_name(r#"{"jsonrpc":"2.0","id":"NAME","result":{}}"#)).len(), 1);
}

#[test]
fn clients_progress_carries_the_servers_token() {
    let mut world = asked();
    let progress =
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"NAME","progress":0.50}}"#;
    let restored = format!("tunnel 1 message 1 {} droppable", progress.replace("NAME", "t"));
    assert_eq!(world.post(&with_name(progress)), [&restored, "reply 2 202 "]);
    assert_eq!(world.post(&progress.replace("NAME", "t")), ["reply 3 202 "], "it is not the client's token");
}

#[test]
fn question_that_is_taken_back_is_named_as_the_client_knows_it() {
    let mut world = asked();
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7,"reason":"late"}}"#;
    assert_eq!(world.said(1, cancel), [event(1, 9, &cancel.replace(":7", &format!(":\"{FIRST}\"")))]);
    assert_eq!(world.said(1, cancel), ["tunnel 1 consumed 1 9"], "it is open no longer");
    assert_eq!(world.post(&with_name(r#"{"jsonrpc":"2.0","id":"NAME","result":{}}"#)), ["reply 2 202 "]);
}

#[test]
fn questions_end_with_their_call() {
    let mut world = asked();
    world.answer(1, 1, None);
    world.data(1, 1, "{}", true);
    assert_eq!(world.post(&with_name(r#"{"jsonrpc":"2.0","id":"NAME","result":{}}"#)), ["reply 2 202 "]);
}

/// The same, of an agent that hands questions on.
fn asked_of_one_that_hands_on() -> World {
    let mut world = World::ready();
    let features = [tunnel::HANDS_ON.to_string()].into();
    world.tunnel(1, tunnel::Event::Up(tunnel::Hello { features, ..Default::default() }));
    world.call(1);
    world.said(1, QUESTION);
    world
}

const ANSWER: &str = r#"{"jsonrpc":"2.0","result":{},"id":"NAME"}"#;
const BY_SESSION: &str = r#"tunnel 1 notice of s to files {"jsonrpc":"2.0","result":{},"id":7}"#;

#[test]
fn answer_is_told_by_the_session_as_long_as_it_fits() {
    let mut world = asked_of_one_that_hands_on();
    assert_eq!(world.post(&with_name(ANSWER)), [BY_SESSION, "reply 2 202 "]);
    let mut world = asked_of_one_that_hands_on();
    let long = ANSWER.replace("{}", &format!(r#""{}""#, "x".repeat(limits::CHUNK)));
    assert!(world.post(&with_name(&long))[0].starts_with("tunnel 1 message 1 "), "it takes the way of the call");
}

#[test]
fn question_of_a_call_that_ends_is_kept_for_another_one_of_its_client() {
    let mut world = asked_of_one_that_hands_on();
    world.call(2);
    world.call(3);
    aggregate::answered(&mut world, 1, "{}");
    aggregate::answered(&mut world, 2, "{}");
    assert_eq!(world.post(&with_name(ANSWER)), [BY_SESSION, "reply 4 202 "]);
    assert_eq!(world.post(&with_name(ANSWER)), ["reply 5 202 "], "once");
}

#[test]
fn question_of_a_call_that_has_no_result_is_kept_for_no_other() {
    type End = fn(&mut World);
    let ends: [(&str, End); 3] = [
        ("cancelled", |world| {
            world.post(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#);
        }),
        ("refused", |world| {
            let (stream, outcome) = (StreamId(1), tunnel::Outcome::Error { code: -32000 });
            world.tunnel(1, tunnel::Event::Answer { stream, outcome, length: None });
            world.data(1, 1, r#"{"code":-32000,"message":"no"}"#, true);
        }),
        ("reset", |world| {
            let (stream, code, reason) = (StreamId(1), tunnel::ResetCode::ServerGone, String::new());
            world.tunnel(1, tunnel::Event::Reset { stream, code, reason });
        }),
    ];
    for (how, end) in ends {
        let mut world = asked_of_one_that_hands_on();
        world.call(2);
        end(&mut world);
        world.drain();
        assert_eq!(world.post(&with_name(ANSWER)).len(), 1, "{how}");
    }
}

#[test]
fn question_that_nobody_can_be_asked_is_declined_by_the_session_too() {
    let mut world = asked_of_one_that_hands_on();
    world.accepts = Accepts::Json;
    world.call(2);
    let told = world.said(2, QUESTION);
    assert!(told[0].starts_with("tunnel 1 notice of s to files ") && told[0].contains("-32601"), "{told:?}");
}

#[test]
fn question_ends_with_the_last_call_of_its_client_there() {
    let mut world = asked_of_one_that_hands_on();
    world.catalog(1, &whole(&[server("files", &["read", "write"]), server("web", &["get"])]));
    world.post(&call("web__get", 2));
    world.session = "t";
    world.call(3);
    world.session = "s";
    aggregate::answered(&mut world, 1, "{}");
    assert_eq!(world.post(&with_name(ANSWER)).len(), 1, "of another server, and of another client");
}

#[test]
fn question_ends_with_its_device() {
    let mut world = asked_of_one_that_hands_on();
    world.call(2);
    world.tunnel(1, tunnel::Event::Closed(tunnel::Close::new(tunnel::CloseCode::TimedOut, "")));
    world.drain();
    assert_eq!(world.post(&with_name(ANSWER)).len(), 1);
}

#[test]
fn question_that_was_kept_is_taken_back_on_the_other_calls_stream() {
    let mut world = asked_of_one_that_hands_on();
    world.call(2);
    aggregate::answered(&mut world, 1, "{}");
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#;
    let told = world.said(2, cancel);
    assert!(told.iter().any(|action| action.contains(FIRST)), "{told:?}");
    assert_eq!(world.post(&with_name(ANSWER)), ["reply 3 202 "], "nobody waits for it");
}

#[test]
fn id_that_is_used_again_is_that_of_a_new_question() {
    let mut world = asked_of_one_that_hands_on();
    world.call(2);
    aggregate::answered(&mut world, 1, "{}");
    world.said(2, QUESTION);
    assert_eq!(world.post(&with_name(ANSWER)), ["reply 3 202 "], "the answer to the old one is none to the new one");
}

#[test]
fn call_has_a_bounded_number_of_questions_kept_for_it() {
    let mut world = asked_of_one_that_hands_on();
    world.call(2);
    for id in 100..100 + limits::MAX_CALL_QUESTIONS {
        world.said(1, &QUESTION.replace('7', &id.to_string()));
    }
    aggregate::answered(&mut world, 1, "{}");
    let kept = (1..=2 * limits::MAX_CALL_QUESTIONS)
        .filter(|number| world.post(&ANSWER.replace("NAME", &format!("wVwCiewt-{number}"))).len() == 2);
    assert_eq!(kept.count(), limits::MAX_CALL_QUESTIONS);
}

#[test]
fn client_without_a_stream_is_asked_on_the_one_it_listens_on_or_not_at_all() {
    let mut world = World::ready();
    world.accepts = Accepts::Json;
    world.call(1);
    let actions = world.said(1, QUESTION);
    assert!(
        actions[0].starts_with(r#"tunnel 1 message 1 {"jsonrpc":"2.0","id":7,"error":{"code":-32601,"#),
        "{actions:?}"
    );
    assert_eq!(actions[1..], ["tunnel 1 consumed 1 9"]);
    world.listen();
    let actions = world.said(1, QUESTION);
    assert!(actions[0].starts_with("body 2 +0 ") && actions[0].contains("roots/list"), "{actions:?}");
    assert_eq!(actions[1..], ["tunnel 1 consumed 1 9"]);
}

#[test]
fn open_questions_are_bounded() {
    let mut world = World::ready();
    world.call(1);
    for id in 0..limits::MAX_QUESTIONS {
        assert!(world.said(1, &QUESTION.replace('7', &id.to_string())).last().unwrap().starts_with("body 1 +9 "));
    }
    assert!(world.said(1, QUESTION)[0].contains("too many questions"));
}

#[test]
fn notification_of_a_client_goes_where_its_endpoint_leads() {
    const ROOTS: &str = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
    const VENDOR: &str = r#"{"jsonrpc":"2.0","method":"notifications/vendor/x","params":{"n":1.0}}"#;
    let mut world = World::ready();
    world.up(2, "old", None);
    world.drain();
    assert_eq!(world.post(ROOTS), [&format!("tunnel 1 notice of s to all {ROOTS}"), "reply 1 202 "]);
    assert_eq!(world.post(VENDOR), ["reply 2 202 "]);
    world.endpoint = Endpoint::Server("files".into());
    assert_eq!(world.post(VENDOR), [&format!("tunnel 1 notice of s to files {VENDOR}"), "reply 3 202 "]);
    world.endpoint = Endpoint::Server("nothing".into());
    assert_eq!(world.post(VENDOR), ["reply 4 202 "]);
}

#[test]
fn notices_reach_those_they_are_for() {
    const UPDATED: &str = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:b"}}"#;
    let mut world = World::ready();
    world.endpoint = Endpoint::Server("files".into());
    world.listen();
    world.session = "other";
    world.listen();
    world.endpoint = Endpoint::All;
    world.session = "third";
    world.listen();
    let mut notice = |server: &str, sessions: &[&str], json: &str| {
        let sessions = sessions.iter().map(ToString::to_string).collect();
        let json = Bytes::copy_from_slice(json.as_bytes());
        world.tunnel(1, tunnel::Event::Notice { server: server.into(), sessions, json });
        world.drain()
    };
    assert_eq!(notice("files", &[], UPDATED), [event(1, 0, UPDATED), event(2, 0, UPDATED)]);
    assert_eq!(notice("files", &["other", "gone"], UPDATED), [event(2, 0, UPDATED)]);
    assert_eq!(notice("git", &[], UPDATED), [""; 0]);
    assert_eq!(notice("files", &[], r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#), [""; 0]);
}

#[test]
fn what_is_of_no_known_kind_is_heard_where_all_servers_are_too() {
    let mut world = World::ready();
    world.listen();
    let mut notice = |json: &str| {
        let (server, json) = ("files".into(), Bytes::copy_from_slice(json.as_bytes()));
        world.tunnel(1, tunnel::Event::Notice { server, sessions: Vec::new(), json });
        world.drain()
    };
    for method in ["notifications/vendor", "notifications/tasks/status"] {
        let json = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"n":1.00}}}}"#);
        assert_eq!(notice(&json), [event(1, 0, &json)]);
    }
    for method in ["tools/list_changed", "prompts/list_changed", "resources/list_changed", "resources/updated"] {
        assert_eq!(notice(&format!(r#"{{"jsonrpc":"2.0","method":"notifications/{method}"}}"#)), [""; 0], "{method}");
    }
}

#[test]
fn notice_waits_a_moment_for_a_client_that_is_about_to_listen() {
    const UPDATED: &str = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:b"}}"#;
    const LOG: &str = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"data":1}}"#;
    let mut world = World::ready();
    world.endpoint = Endpoint::Server("files".into());
    world.advance(limits::ANNOUNCE_LATE);
    let notice = |world: &mut World, sessions: &[&str], json: &str| {
        let sessions = sessions.iter().map(ToString::to_string).collect();
        let json = Bytes::copy_from_slice(json.as_bytes());
        world.tunnel(1, tunnel::Event::Notice { server: "files".into(), sessions, json });
        world.drain()
    };
    notice(&mut world, &["s"], UPDATED);
    notice(&mut world, &[], LOG);
    world.session = "other";
    assert_eq!(world.listen()[2..], [event(1, 0, LOG)], "what is for everyone, and not what is another's");
    world.session = "s";
    assert_eq!(world.listen()[2..], [event(2, 0, UPDATED), event(2, 0, LOG)]);
    assert_eq!(world.listen()[3..], [""; 0], "once");
    world.session = "late";
    world.advance(limits::LATE_NOTICE_KEPT);
    assert_eq!(world.listen()[2..], [""; 0]);
}

#[test]
fn server_takes_back_no_question_but_the_one_that_it_names_in_its_call() {
    let mut world = asked();
    world.call(2);
    let cancel =
        |id: u32| format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#);
    world.said(1, &cancel(8));
    world.said(2, &cancel(7));
    let answer = with_name(r#"{"jsonrpc":"2.0","result":{},"id":"NAME"}"#);
    let restored = r#"tunnel 1 message 1 {"jsonrpc":"2.0","result":{},"id":7}"#;
    assert_eq!(world.post(&answer), [restored, "reply 3 202 "], "it is open still");
}

#[test]
fn whatever_is_heard_of_a_call_keeps_it() {
    type Say = fn(&mut World);
    let says: [(&str, Say); 3] = [
        ("pause", |world| world.tunnel(1, tunnel::Event::Pause { stream: StreamId(1), millis: 5 })),
        ("answer", |world| drop(world.post(&with_name(ANSWER)))),
        ("progress", |world| {
            let params = with_name(r#"{"progressToken":"NAME"}"#);
            world.post(&format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}"#));
        }),
    ];
    let (idle, second) = (config().limits.call_idle, Duration::from_secs(1));
    for (what, say) in says {
        let mut world = asked();
        world.advance(idle - second);
        say(&mut world);
        world.advance(idle - second);
        assert_eq!(world.shard.leftovers().get("calls"), Some(&1), "{what}");
        world.advance(second);
        assert_eq!(world.shard.leftovers().get("calls"), None, "{what}");
    }
}
