use super::*;
use crate::limits;
use crate::rpc::Message as Rpc;

/// A stream's events in these actions: exchange, id and data.
fn events(actions: &[String]) -> Vec<(String, String, String)> {
    let event = |action: &String| {
        let (exchange, rest) = action.strip_prefix("body ")?.split_once(' ')?;
        let text: String = serde_json::from_str(rest.split_once(' ')?.1).ok()?;
        let id = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap_or_default();
        let data = text.lines().find_map(|line| line.strip_prefix("data: "))?;
        Some((exchange.to_string(), id.to_string(), data.to_string()))
    };
    actions.iter().filter_map(event).collect()
}

const PROGRESS: &str = r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#;

fn result(body: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":7,"result":{body}}}"#)
}

/// A world with a client that knows the priming event.
fn primed() -> World {
    World { version: Version::V2025_11_25, shows_ids: true, ..World::ready() }
}

/// A call whose client has had the priming event and a notification, and the id of the latter.
fn streaming() -> (World, String) {
    let mut world = primed();
    world.call(7);
    let sent = events(&world.progress(1, 1));
    assert_eq!((sent.len(), sent[0].2.as_str(), sent[1].2.as_str()), (2, "", PROGRESS));
    let id = sent[1].1.clone();
    (world, id)
}

/// The GET of a client that comes back after the event `id`.
fn back(world: &mut World, id: &str) -> Vec<String> {
    world.last_event = Some(id.to_string());
    world.listen()
}

#[test]
fn priming_event_is_for_those_who_know_it() {
    for (version, primes) in [(Version::V2025_06_18, false), (Version::V2025_11_25, true)] {
        let mut world = World { version, ..primed() };
        world.call(7);
        let sent = events(&world.progress(1, 1));
        assert_eq!(sent.first().is_some_and(|(_, _, data)| data.is_empty()), primes, "{sent:?}");
        assert!(sent.iter().all(|(_, id, _)| !id.is_empty()));
    }
}

#[test]
fn call_goes_on_without_its_client_and_is_answered_when_it_comes_back() {
    let (mut world, id) = streaming();
    assert_eq!(world.gone(1), [""; 0]);
    assert_eq!(world.progress(1, 1), ["tunnel 1 consumed 1 51"], "nobody takes it, so its credit goes back at once");
    let actions = back(&mut world, &id);
    assert_eq!(actions[0], "begin 2 events from 1/1");
    let missed = events(&actions);
    assert_eq!((missed.len(), missed[0].2.as_str()), (1, PROGRESS));
    world.answer(1, 1, None);
    let actions = world.data(1, 1, r#"{"n":1e400}"#, true);
    assert_eq!(events(&actions)[0].2, result(r#"{"n":1e400}"#));
    assert_eq!(actions.last().unwrap(), "finish 2");
}

#[test]
fn answer_that_came_meanwhile_is_there_for_a_while() {
    let (mut world, id) = streaming();
    world.gone(1);
    world.answer(1, 1, Some(5));
    assert_eq!(world.data(1, 1, "[1", false), ["tunnel 1 consumed 1 2"]);
    world.data(1, 1, ",2", false);
    world.data(1, 1, "]", true);
    for _ in 0..2 {
        let actions = back(&mut world, &id);
        assert_eq!(events(&actions)[0].2, result("[1,2]"));
        assert!(actions.last().unwrap().starts_with("finish "));
    }
    world.advance(limits::REPLAY_KEPT + limits::REPLAY_KEPT);
    assert!(
        events(&back(&mut world, &id)).iter().all(|(_, _, data)| !data.contains("result")),
        "forgotten: a new stream"
    );
}

#[test]
fn client_that_comes_back_amid_an_answer_gets_it_from_its_beginning() {
    let (mut world, id) = streaming();
    world.answer(1, 1, None);
    world.data(1, 1, "[1,", false);
    let actions = back(&mut world, &id);
    assert_eq!(actions[..2], ["abort 1", "begin 2 events from 1/1"], "the old connection was not known to be broken");
    let beginning = &actions[2];
    assert!(beginning.contains(r#"data: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":[1,""#), "{beginning}");
    assert_eq!(world.data(1, 1, "2]", true).last().unwrap(), "finish 2");
    let whole = events(&back(&mut world, &id));
    assert_eq!(whole[0].2, result("[1,2]"));
}

#[test]
fn failure_amid_an_answer_is_told_to_a_client_that_comes_back() {
    let (mut world, id) = streaming();
    world.answer(1, 1, None);
    world.data(1, 1, "[1,", false);
    world.tunnel(1, tunnel::Event::Closed(tunnel::Close::new(tunnel::CloseCode::Other(1006), "")));
    assert!(world.drain().contains(&"abort 1".to_string()));
    let told = events(&back(&mut world, &id));
    assert!(told[0].2.contains("device-disconnected"), "{told:?}");
}

#[test]
fn answer_too_long_to_be_kept_is_told_as_missed() {
    let (mut world, id) = streaming();
    world.gone(1);
    world.answer(1, 1, None);
    let piece = format!("\"{}", "x".repeat(limits::MAX_REPLAY / 2));
    world.data(1, 1, &piece, false);
    world.data(1, 1, &piece[1..], false);
    world.data(1, 1, &piece[1..], false);
    world.data(1, 1, "\"", true);
    let told = back(&mut world, &id);
    assert!(told[1].contains("answer-missed") && told[1].contains(r#"\"id\":7"#), "{told:?}");
    assert_eq!((told[0].as_str(), told[2..].join("").as_str()), ("begin 2 events", "finish 2"));
}

/// The same relay after a restart.
fn restarted() -> World {
    let settings = Settings::from_config(&config(), "https://relay.example");
    let mut world = primed();
    world.shard = Shard::new(Arc::new(settings), Box::new(Seeded::new(2)));
    world
}

#[test]
fn client_that_comes_back_after_a_restart_is_told_that_its_call_is_lost() {
    let (_, id) = streaming();
    let mut world = restarted();
    let told = back(&mut world, &id);
    assert_eq!((told[0].as_str(), told[2..].join("").as_str()), ("begin 1 events", "finish 1"));
    let event = &events(&told)[0];
    assert!(event.2.starts_with(r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32000,"#), "{event:?}");
    assert!(event.2.contains("outcome-unknown"), "{event:?}");
    assert_eq!(back(&mut world, &event.1), ["reply 2 204 "], "once");
}

#[test]
fn client_that_comes_back_to_a_forgotten_stream_is_told_that_its_call_is_lost() {
    let (mut world, id) = streaming();
    world.gone(1);
    world.advance(limits::REPLAY_KEPT + limits::REPLAY_KEPT);
    assert!(events(&back(&mut world, &id))[0].2.contains("outcome-unknown"));
}

#[test]
fn client_that_has_had_its_response_is_told_that_nothing_more_comes() {
    for failure in [false, true] {
        let (mut world, id) = streaming();
        world.gone(1);
        if failure {
            world.error(1, 1, -1, "{}");
        } else {
            world.answer(1, 1, Some(5));
            world.data(1, 1, "[1", false);
            world.data(1, 1, ",2]", true);
        }
        let had = events(&back(&mut world, &id)).remove(0);
        assert!(had.2.contains(r#""id":7"#), "{had:?}");
        assert_eq!(back(&mut world, &had.1), ["reply 3 204 "]);
        assert_eq!(back(&mut restarted(), &had.1), ["reply 1 204 "]);
    }
}

#[test]
fn batch_goes_on_without_its_client_and_is_answered_when_it_comes_back() {
    let mut world = World { version: Version::V2025_03_26, ..primed() };
    let read = |id: u64| {
        let params = Bytes::from_static(br#"{"name":"files__read"}"#);
        Item::Request(Request { id: rpc::RawId::from_number(id), method: "tools/call".into(), params })
    };
    world.content(Content::Batch(std::vec![read(50), read(51)]));
    let id = events(&world.progress(1, 1))[0].1.clone();
    world.gone(1);
    world.answer(1, 1, None);
    world.data(1, 1, "{}", true);
    let actions = back(&mut world, &id);
    assert_eq!(actions.len(), 1, "{actions:?}");
    assert_eq!(world.advance(limits::HEARTBEAT), [r#"body 2 +0 ": keep-alive\n\n""#]);
    world.gone(2);
    world.progress(1, 2);
    world.answer(1, 2, None);
    world.data(1, 2, "{}", true);
    let array = r#"[{"jsonrpc":"2.0","id":50,"result":{}},{"jsonrpc":"2.0","id":51,"result":{}}]"#;
    for _ in 0..2 {
        let actions = back(&mut world, &id);
        let data: Vec<_> = events(&actions).into_iter().map(|(_, _, data)| data).collect();
        assert_eq!(data, [PROGRESS, array]);
        assert!(actions.last().unwrap().starts_with("finish "));
    }
    let told = events(&back(&mut restarted(), &id));
    assert!(told[0].2.starts_with(r#"[{"jsonrpc":"2.0","id":50,"error":"#), "{told:?}");
    assert_eq!(told[0].2.matches("outcome-unknown").count(), 2, "{told:?}");
}

#[test]
fn batch_whose_client_does_not_come_back_is_dropped_and_its_calls_go_on() {
    let mut world = World { version: Version::V2025_03_26, ..primed() };
    let params = Bytes::from_static(br#"{"name":"files__read"}"#);
    let id = rpc::RawId::from_number(50);
    let request = Request { id, method: "tools/call".into(), params };
    world.content(Content::Batch(std::vec![Item::Request(request)]));
    let id = events(&world.progress(1, 1))[0].1.clone();
    world.gone(1);
    world.advance(limits::REPLAY_KEPT + limits::REPLAY_KEPT);
    world.answer(1, 1, None);
    assert_eq!(world.data(1, 1, "[", false), ["tunnel 1 consumed 1 1"]);
    assert_eq!(world.data(1, 1, "]", true), [""; 0]);
    assert!(events(&back(&mut world, &id))[0].2.contains("outcome-unknown"));
}

#[test]
fn stream_of_notifications_goes_on_too() {
    let mut world = primed();
    world.advance(limits::ANNOUNCE_LATE);
    let primed = events(&world.listen());
    let id = primed[0].1.clone();
    world.gone(1);
    world.catalog(1, &whole(&[server("files", &["read", "new"])]));
    world.advance(limits::ANNOUNCE_DELAY);
    let actions = back(&mut world, &id);
    assert_eq!(actions[0], "begin 2 events");
    assert!(events(&actions)[0].2.contains("tools/list_changed"), "{actions:?}");
    world.gone(2);
    world.advance(limits::REPLAY_KEPT + limits::REPLAY_KEPT);
    let fresh = events(&back(&mut world, &id));
    assert!(fresh[0].2.is_empty() && fresh[0].1 != id, "a new stream: {fresh:?}");
}

#[test]
fn nobody_else_takes_a_stream_up() {
    let (mut world, id) = streaming();
    world.gone(1);
    world.session = "other";
    let actions = back(&mut world, &id);
    assert!(!events(&actions).iter().any(|(_, _, data)| data.contains("progress")), "a stream of its own: {actions:?}");
    world.session = "s";
    for wrong in ["", "x", "-", "wVwCiewt-1-99", "wVwCiewt-99-1", "AAAAAAAA-1-1", "wVwCiewt-1"] {
        let actions = back(&mut world, wrong);
        assert!(!events(&actions).iter().any(|(_, _, data)| data.contains("progress")), "{wrong}: {actions:?}");
    }
    let (user, session) = (UserId::new("ann"), SessionKey(Arc::from("s")));
    world.event(Event::SessionEnded { user, session });
    world.drain();
    assert!(!events(&back(&mut world, &id)).iter().any(|(_, _, data)| data.contains("progress")));
}

#[test]
fn client_is_left_alone_as_the_server_wants_and_comes_back() {
    let mut world = primed();
    world.call(7);
    world.tunnel(1, tunnel::Event::Pause { stream: StreamId(1), millis: 500 });
    let actions = world.drain();
    let id = events(&actions)[0].1.clone();
    assert_eq!(actions[2..], [r#"body 1 +0 "retry: 500\n\n""#, "finish 1"]);
    assert_eq!(back(&mut world, &id), ["begin 2 events from 1/1"]);
    world.answer(1, 1, None);
    assert_eq!(events(&world.data(1, 1, "{}", true))[0].2, result("{}"));

    for world in [World { version: Version::V2025_06_18, ..primed() }, World { accepts: Accepts::Json, ..primed() }] {
        let mut world = world;
        world.call(7);
        world.tunnel(1, tunnel::Event::Pause { stream: StreamId(1), millis: 500 });
        assert_eq!(world.drain(), [""; 0], "who does not know of it waits on");
    }
}

#[test]
fn question_reaches_a_client_that_comes_back() {
    let (mut world, id) = streaming();
    world.gone(1);
    world.said(1, r#"{"jsonrpc":"2.0","id":7,"method":"roots/list"}"#);
    let asked = events(&back(&mut world, &id));
    let question = Bytes::from(asked[0].2.clone());
    let Ok(Rpc::Request { id, .. }) = rpc::parse(&question) else { panic!("{asked:?}") };
    let id = core::str::from_utf8(id.as_bytes()).unwrap();
    let actions = world.post(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
    assert_eq!(actions[0], r#"tunnel 1 message 1 {"jsonrpc":"2.0","id":7,"result":{}}"#);
}
