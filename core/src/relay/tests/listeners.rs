use super::*;
use crate::limits;
use crate::tunnel::{Close, CloseCode};

const CHANGED: &str =
    r#"body 1 +0 "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n""#;
const HEARTBEAT: &str = r#"body 1 +0 ": keep-alive\n\n""#;

/// A world that has been quiet for long, and a listener on exchange 1.
fn listening() -> World {
    let mut world = World::ready();
    world.advance(limits::ANNOUNCE_LATE);
    assert_eq!(world.listen(), ["begin 1 events", HEARTBEAT]);
    world
}

#[test]
fn quiet_stream_gets_heartbeats() {
    let mut world = listening();
    assert_eq!(world.advance(limits::HEARTBEAT), [HEARTBEAT]);
}

#[test]
fn changes_of_a_moment_are_told_once() {
    let mut world = listening();
    world.catalog(1, &whole(&[server("files", &["read"])]));
    world.catalog(1, &whole(&[server("files", &["read", "new"])]));
    world.up(2, "desktop", Some("id-2"));
    assert_eq!(world.drain(), [""; 0]);
    assert_eq!(world.advance(limits::ANNOUNCE_DELAY), [CHANGED]);
    world.tunnel(2, tunnel::Event::Closed(Close::new(CloseCode::Normal, "")));
    assert_eq!(world.advance(limits::ANNOUNCE_DELAY), [CHANGED]);
}

#[test]
fn device_that_comes_changes_the_names_of_the_others_before_it_says_what_it_has() {
    let mut world = listening();
    world.up(2, "desktop", Some("id-2"));
    assert_eq!(world.advance(limits::ANNOUNCE_DELAY), [CHANGED]);
}

#[test]
fn list_that_is_the_same_again_is_no_news() {
    let mut world = listening();
    world.tunnel(1, tunnel::Event::Closed(Close::new(CloseCode::Other(1006), "")));
    world.up(2, "laptop", Some("id-1"));
    world.catalog(2, &files());
    assert_eq!(world.advance(limits::ANNOUNCE_DELAY), [""; 0]);
}

#[test]
fn endpoints_of_one_server_hear_of_that_server_alone() {
    let mut world = World::ready();
    world.catalog(1, &whole(&[server("files", &["read"]), server("git", &["log"])]));
    world.advance(limits::ANNOUNCE_LATE);
    world.endpoint = Endpoint::Server("git".into());
    world.listen();
    world.catalog(1, &whole(&[server("files", &["read", "new"]), server("git", &["log"])]));
    assert_eq!(world.advance(limits::ANNOUNCE_DELAY), [""; 0]);
    world.catalog(1, &format!(r#"{{"servers":[{}]}}"#, server("git", &["log", "diff"])));
    assert_eq!(world.advance(limits::ANNOUNCE_DELAY), [CHANGED]);
    world.catalog(1, r#"{"removed":["git"]}"#);
    assert_eq!(world.advance(limits::ANNOUNCE_DELAY), [CHANGED]);
}

#[test]
fn listener_that_comes_soon_after_a_change_is_told() {
    let mut world = World::ready();
    assert_eq!(world.listen(), ["begin 1 events", HEARTBEAT, CHANGED]);
}

#[test]
fn listener_whose_session_began_after_the_last_change_is_told_nothing() {
    for endpoint in [Endpoint::All, Endpoint::Server("files".into())] {
        let mut world = World::ready();
        world.advance(Duration::from_secs(2));
        (world.began, world.endpoint) = (1_002, endpoint);
        // The same again is no change.
        world.catalog(1, &files());
        world.catalog(1, &format!(r#"{{"servers":[{}]}}"#, server("files", &["read", "write"])));
        assert_eq!(world.listen(), ["begin 1 events", HEARTBEAT]);
    }
}

#[test]
fn change_between_the_begin_of_a_session_and_its_stream_is_told() {
    let single = || Endpoint::Server("files".into());
    let more = format!(r#"{{"servers":[{}]}}"#, server("files", &["read", "new"]));
    let said = format!(r#"{{"servers":[{}]}}"#, announcing(1));
    let other = format!(r#"{{"servers":[{}]}}"#, server("git", &["log"]));
    for (endpoint, update, told) in [
        (Endpoint::All, &more, true),
        (Endpoint::All, &other, true),
        (Endpoint::All, &said, false),
        (single(), &more, true),
        (single(), &other, false),
        (single(), &said, true),
    ] {
        let mut world = World::ready();
        world.advance(Duration::from_secs(2));
        (world.began, world.endpoint) = (1_002, endpoint);
        world.advance(Duration::from_secs(2));
        world.catalog(1, update);
        let is_told = world.listen().contains(&CHANGED.to_string());
        assert_eq!(is_told, told, "{:?} {update}", world.endpoint);
    }
}

/// The server `files` as it is, which said so often that its tools changed.
fn announcing(times: u32) -> String {
    let listed = server("files", &["read", "write"]);
    format!(r#"{},"announced":{{"tools":{times}}}}}"#, &listed[..listed.len() - 1])
}

#[test]
fn what_a_server_says_is_told_on_its_own_endpoint_also_when_nothing_changed() {
    let mut world = listening();
    world.session = "other";
    world.endpoint = Endpoint::Server("files".into());
    assert_eq!(world.listen()[0], "begin 2 events");
    let on_own = CHANGED.replace("body 1", "body 2");
    let mut say = |update: String| {
        world.catalog(1, &format!(r#"{{"servers":[{update}]}}"#));
        world.advance(limits::ANNOUNCE_DELAY)
    };
    assert_eq!(say(announcing(1)), [on_own.as_str()]);
    assert_eq!(say(announcing(1)), [""; 0]);
    assert_eq!(say(announcing(3)), [on_own.as_str()]);
    let more = announcing(4).replace("read", "new");
    assert_eq!(say(more.clone()), [CHANGED, on_own.as_str()], "once each");
    assert_eq!(say(more.replace(":4", ":0")), [""; 0], "its agent was started anew");
    assert_eq!(say(more.replace(":4", ":1")), [on_own.as_str()]);
}

#[test]
fn second_stream_of_a_session_takes_the_place_of_the_first() {
    let mut world = listening();
    assert_eq!(world.listen()[0], "finish 1");
    world.session = "other";
    assert_eq!(world.listen()[0], "begin 3 events");
}

#[test]
fn listener_that_went_away_is_forgotten() {
    let mut world = listening();
    assert_eq!(world.gone(1), [""; 0]);
    world.catalog(1, &whole(&[]));
    assert_eq!(world.advance(limits::HEARTBEAT), [""; 0]);
}

#[test]
fn stream_ends_with_its_session_its_family_and_the_relay() {
    let mut world = listening();
    world.event(Event::SessionEnded { user: UserId::new("bob"), session: SessionKey(Arc::from("s")) });
    world.event(Event::Revoked { family: FamilyId::new("another") });
    assert_eq!(world.drain(), [""; 0]);
    world.event(Event::SessionEnded { user: UserId::new("ann"), session: SessionKey(Arc::from("s")) });
    assert_eq!(world.drain(), ["tunnel 1 session ended s", "finish 1"]);

    let mut world = listening();
    world.event(Event::Revoked { family: FamilyId::new("client-family") });
    assert_eq!(world.drain(), ["finish 1"]);

    let mut world = listening();
    world.event(Event::Stop);
    assert_eq!(world.drain(), ["tunnel 1 close GoingAway", "finish 1"]);

    let mut world = listening();
    let actions = world.advance(Duration::from_secs(20_000));
    assert_eq!(actions.last().map(String::as_str), Some("finish 1"), "its family ran out");
}

#[test]
fn listeners_of_a_user_are_bounded() {
    const SESSIONS: [&str; 2] = ["a", "b"];
    let bounds = RelayLimits { streams_per_user: 5, ..RelayLimits::default() };
    let mut world = World::with(&RelayConfig { limits: bounds, ..config() });
    for index in 0..3 {
        world.endpoint = Endpoint::Server(format!("server-{index}"));
        world.session = SESSIONS[0];
        assert!(world.listen()[0].starts_with("begin"));
    }
    world.session = SESSIONS[1];
    let actions = world.listen();
    assert!(actions[0].contains(" 503 ") && actions.len() == 1, "{actions:?}");
}

fn notice(world: &mut World, server: &str, sessions: &[&str]) {
    let json = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/message"}"#);
    let sessions = sessions.iter().map(ToString::to_string).collect();
    world.tunnel(1, tunnel::Event::Notice { server: server.into(), sessions, json });
    world.drain();
}

/// How many notices a client hears that begins to listen to that server.
fn heard(world: &mut World, server: &str) -> usize {
    world.endpoint = Endpoint::Server(server.into());
    world.listen().iter().filter(|action| action.contains("notifications/message")).count()
}

#[test]
fn notice_of_a_moment_ago_is_for_the_sessions_that_there_were() {
    for (began, sessions, expected) in
        [(900, &[][..], 1), (1_000, &[], 1), (1_100, &[], 0), (1_100, &["s"], 1), (900, &["other"], 0)]
    {
        let mut world = World::ready();
        notice(&mut world, "files", sessions);
        world.began = began;
        assert_eq!(heard(&mut world, "files"), expected, "{began} {sessions:?}");
    }
}

#[test]
fn server_that_says_much_leaves_others_their_notices_of_a_moment_ago() {
    let mut world = World::new();
    world.up(1, "laptop", Some("id-1"));
    world.catalog(1, &whole(&[server("files", &["read"]), server("git", &["log"])]));
    notice(&mut world, "git", &[]);
    for _ in 0..limits::MAX_LATE_NOTICES {
        notice(&mut world, "files", &[]);
    }
    assert_eq!(heard(&mut world, "git"), 1);
    assert_eq!(heard(&mut world, "files"), limits::MAX_LATE_NOTICES - 1);
}
