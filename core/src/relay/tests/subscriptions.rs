//! `subscriptions/listen`: on `/mcp`, and on an endpoint of one server.

use super::*;
use crate::limits;
use crate::tunnel::{Close, CloseCode};

const LISTEN: &str = r#"{"jsonrpc":"2.0","id":"s1","method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true,"promptsListChanged":true,"resourceSubscriptions":["a:b"]}}}"#;
const META: &str = r#"\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":\"s1\"}"#;

fn event(message: &str) -> String {
    format!(r#"body 1 +0 "event: message\ndata: {{\"jsonrpc\":\"2.0\",{message}}}\n\n""#)
}

fn acknowledged() -> String {
    event(&format!(
        r#"\"method\":\"notifications/subscriptions/acknowledged\",\"params\":{{{META},\"notifications\":{{\"toolsListChanged\":true,\"promptsListChanged\":true}}}}"#
    ))
}

fn changed() -> String {
    event(&format!(r#"\"method\":\"notifications/tools/list_changed\",\"params\":{{{META}}}"#))
}

fn ended() -> Vec<String> {
    let result = format!(r#"\"id\":\"s1\",\"result\":{{\"resultType\":\"complete\",{META}}}"#);
    [event(&result), "finish 1".into()].into()
}

/// A world that has been quiet for long, and a subscription on exchange 1.
fn listening() -> World {
    let mut world = World::ready();
    world.version = Version::V2026_07_28;
    world.advance(limits::ANNOUNCE_LATE);
    assert_eq!(world.post(LISTEN), ["begin 1 events".to_string(), acknowledged()]);
    world
}

#[test]
fn changes_come_under_the_clients_own_id_after_the_acknowledgement() {
    let mut world = listening();
    world.catalog(1, &whole(&[server("files", &["read"])]));
    world.catalog(1, &whole(&[server("files", &["read", "new"])]));
    assert_eq!(world.advance(limits::ANNOUNCE_DELAY), [changed()]);
    world.catalog(1, &whole(&[server("files", &["read", "new"])]));
    assert_eq!(world.advance(limits::ANNOUNCE_DELAY), [""; 0], "the same list is no news");
    assert_eq!(world.advance(limits::HEARTBEAT), [r#"body 1 +0 ": keep-alive\n\n""#]);
}

#[test]
fn subscriber_that_comes_soon_after_a_change_is_told() {
    let mut world = World::ready();
    world.version = Version::V2026_07_28;
    assert_eq!(world.post(LISTEN), ["begin 1 events".to_string(), acknowledged(), changed()]);
}

#[test]
fn nothing_comes_that_was_not_asked_for() {
    let mut world = World::ready();
    world.version = Version::V2026_07_28;
    for filter in ["{}", r#"{"toolsListChanged":false,"resourceSubscriptions":["a:b"]}"#] {
        let listen = LISTEN
            .replace(r#"{"toolsListChanged":true,"promptsListChanged":true,"resourceSubscriptions":["a:b"]}"#, filter);
        let actions = world.post(&listen);
        assert!(actions.len() == 2 && actions[1].contains(r#"\"notifications\":{}"#), "{actions:?}");
        world.catalog(1, &whole(&[server("files", &["other"])]));
        assert_eq!(world.advance(limits::ANNOUNCE_DELAY), [""; 0]);
        world.catalog(1, &files());
        world.advance(limits::ANNOUNCE_DELAY);
    }
    for params in ["{}", r#"{"notifications":[]}"#] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{params}}}"#);
        assert_eq!(failure(&world.post(&body)[0]).0, -32602, "{params}");
    }
}

#[test]
fn each_list_that_was_asked_for_is_told() {
    let mut world = World::ready();
    world.version = Version::V2026_07_28;
    world.advance(limits::ANNOUNCE_LATE);
    world.post(&LISTEN.replace("resourceSubscriptions\":[\"a:b\"]", "resourcesListChanged\":true"));
    world.catalog(1, &whole(&[server("files", &["read", "write"]), aggregate::rich("a", "")]));
    let told = world.advance(limits::ANNOUNCE_DELAY);
    assert!(told[0].contains("prompts/list_changed") && told[1].contains("resources/list_changed"), "{told:?}");
    assert_eq!(told.len(), 2);
    let mut world = listening();
    world.catalog(1, &whole(&[server("files", &["read", "write"]), aggregate::rich("a", "")]));
    assert_eq!(world.advance(limits::ANNOUNCE_DELAY).len(), 1, "nobody asked about resources");
}

#[test]
fn subscription_ends_with_a_result() {
    let mut world = listening();
    world.event(Event::Revoked { family: FamilyId::new("another") });
    world.event(Event::SessionEnded { user: UserId::new("ann"), session: SessionKey(Arc::from("s")) });
    assert_eq!(world.drain(), ["tunnel 1 session ended s"]);
    world.event(Event::Revoked { family: FamilyId::new("client-family") });
    assert_eq!(world.drain(), ended());

    let mut world = listening();
    world.event(Event::Stop);
    assert_eq!(world.drain()[1..], ended());

    let mut world = listening();
    let actions = world.advance(Duration::from_secs(20_000));
    assert!(actions.ends_with(&ended()), "its family ran out: {actions:?}");

    let mut world = listening();
    assert_eq!(world.gone(1), [""; 0]);
    world.catalog(1, &whole(&[]));
    assert_eq!(world.advance(limits::HEARTBEAT), [""; 0], "its client went away");
}

#[test]
fn streams_of_both_eras_are_bounded_together() {
    let bounds = RelayLimits { streams_per_user: 3, ..RelayLimits::default() };
    let mut world = World::with(&RelayConfig { limits: bounds, ..config() });
    world.up(1, "laptop", Some("id-1"));
    world.catalog(1, &files());
    world.drain();
    assert!(world.listen()[0].starts_with("begin"));
    world.version = Version::V2026_07_28;
    assert!(world.post(LISTEN)[0].starts_with("begin"));
    world.endpoint = Endpoint::Server("files".into());
    assert!(world.post(LISTEN)[0].starts_with("tunnel 1 open"));
    for endpoint in [Endpoint::All, Endpoint::Server("files".into())] {
        world.endpoint = endpoint;
        let actions = world.post(LISTEN);
        assert!(actions.len() == 1 && actions[0].contains(" 503 "), "{actions:?}");
    }
    world.session = "another";
    assert!(world.listen()[0].contains(" 503 "));
    world.gone(2);
    assert!(world.listen()[0].starts_with("begin"));
}

#[test]
fn client_that_takes_no_stream_cannot_subscribe() {
    let mut world = World::ready();
    world.version = Version::V2026_07_28;
    world.accepts = Accepts::Json;
    for endpoint in [Endpoint::All, Endpoint::Server("files".into())] {
        world.endpoint = endpoint;
        let actions = world.post(LISTEN);
        assert!(actions.len() == 1 && actions[0].contains(" 406 "), "{actions:?}");
    }
}

/// A subscription to one server: a call on stream 1.
fn at_server() -> World {
    let mut world = World::ready();
    world.version = Version::V2026_07_28;
    world.endpoint = Endpoint::Server("files".into());
    let actions = world.post(LISTEN);
    assert!(
        actions.len() == 1 && actions[0].starts_with("tunnel 1 open 1 files subscriptions/listen {"),
        "{actions:?}"
    );
    world
}

fn notice(world: &mut World, params: &str) -> Vec<String> {
    let json = format!(r#"{{"jsonrpc":"2.0","method":"notifications/tools/list_changed"{params}}}"#);
    world.tunnel(1, tunnel::Event::Message { stream: StreamId(1), json: Bytes::from(json), credit: 9 });
    world.drain()
}

#[test]
fn one_servers_notices_carry_the_clients_own_id() {
    let mut world = at_server();
    let expected = |more: &str| {
        format!(
            r#"body 1 +9 "event: message\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\",\"params\":{{{more}}}}}\n\n""#
        )
    };
    let own = r#","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":7,"x":1.0}}"#;
    let kept = META.replace("s1\\\"}", "s1\\\",\\\"x\\\":1.0}");
    assert_eq!(notice(&mut world, own), ["begin 1 events from 1/1".to_string(), expected(&kept)]);
    assert_eq!(notice(&mut world, ""), [expected(META)]);
    world.answer(1, 1, None);
    world.data(1, 1, r#"{"resultType":"comp"#, false);
    assert_eq!(world.data(1, 1, r#"lete"}"#, true), ended());
}

#[test]
fn one_servers_subscription_may_be_silent_and_ends_with_its_grant() {
    let mut world = at_server();
    let actions = world.advance(RelayLimits::default().call_idle * 2);
    assert!(
        actions.iter().all(|action| action.starts_with("begin 1 events") || action.contains("keep-alive")),
        "{actions:?}"
    );
    let actions = world.advance(Duration::from_secs(20_000));
    let (last, rest) = actions.split_at(actions.len() - 3);
    assert_eq!(rest[0], "tunnel 1 reset 1 Cancelled", "{actions:?}");
    assert_eq!(rest[1..], ended());
    assert!(last.iter().all(|action| action.contains("keep-alive")), "{last:?}");

    let mut world = at_server();
    assert_eq!(world.gone(1), ["tunnel 1 reset 1 Cancelled"]);

    let mut world = at_server();
    notice(&mut world, "");
    world.tunnel(1, tunnel::Event::Closed(Close::new(CloseCode::Normal, "")));
    assert!(world.drain()[0].contains("device-disconnected"), "an end that nobody meant is an error");
}
